"""Comparisons: which of two updates a person prefers, and the CSV files that hold such answers.

People see an update's *effects*. These are the harm to each value (the change of the value's loss, in its unit; positive is worse) and,
optionally, the gain in utility. One of the two updates may be "no update", whose effects are all 0.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...files import write_text

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

GAIN = "gain"
"""Name of the gain's columns. No value may have this name."""


@dataclass(frozen=True)
class Comparisons:
    """Choices between pairs of updates: n pairs, M values.

    Args:
        values: Names of the values, M.
        first: Harms of the first update of each pair, ``(n, M)``, in each value's unit.
        second: Harms of the second, ``(n, M)``.
        chose_first: Whether the first was preferred, bool ``(n,)``.
        gain: Utility gains of the first and of the second, ``(n, 2)``, in the utility's unit; ``None`` if people were shown no gain.
        person: Label of the person who chose, ``(n,)``; ``None`` if one person made all choices or it is not known who did.

    Raises:
        ValueError: If shapes do not fit, a number is not finite, names repeat, there is no pair, or the two updates of a pair have
            the same effects.
    """

    values: tuple[str, ...]
    first: Floats
    second: Floats
    chose_first: Bools
    gain: Floats | None = None
    person: npt.NDArray[np.str_] | None = None

    def __post_init__(self) -> None:
        for name in ("first", "second", "gain"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=np.float64))
        object.__setattr__(self, "values", tuple(self.values))
        chosen = np.asarray(self.chose_first)
        if not np.isin(chosen, (0, 1)).all():
            raise ValueError("chose_first: must be True or False (or 1 and 0)")
        object.__setattr__(self, "chose_first", chosen.astype(bool))
        if self.person is not None:
            object.__setattr__(self, "person", np.asarray(self.person).astype(str))
        self._check()

    def _check(self) -> None:
        if not self.values or len(set(self.values)) < len(self.values) or GAIN in self.values:
            raise ValueError(f"values={self.values}: give at least one value, each once, and none called {GAIN!r}")
        n, m = self.first.shape if self.first.ndim == 2 else (len(self.chose_first), len(self.values))
        expected = {"first": (n, len(self.values)), "second": (n, m), "chose_first": (n,), "gain": (n, 2), "person": (n,)}
        for name, shape in expected.items():
            array = getattr(self, name)
            if array is not None and array.shape != shape:
                raise ValueError(f"{name} has shape {array.shape} for {len(self.values)} values and {n} pairs: must be {shape}")
        if n == 0:
            raise ValueError("there are no comparisons: give at least one pair")
        for name in ("first", "second", "gain"):
            array = getattr(self, name)
            if array is not None and not np.isfinite(array).all():
                raise ValueError(f"{name}: pair {int((~np.isfinite(array)).any(axis=1).argmax())} has a number that is not finite")
        same = (self.differences == 0).all(axis=1)
        if same.any():
            raise ValueError(f"pair {int(same.argmax())}: both updates have the same effects, so a choice says nothing; leave it out")

    def __len__(self) -> int:
        return len(self.chose_first)

    @property
    def differences(self) -> Floats:
        """Effects of the first update minus those of the second: harms, then the gain if there is one, ``(n, M)`` or ``(n, M + 1)``."""
        harms = self.first - self.second
        return harms if self.gain is None else np.column_stack([harms, self.gain[:, 0] - self.gain[:, 1]])

    @property
    def persons(self) -> tuple[str, ...]:
        """The persons who chose, sorted; empty if they are not known."""
        return () if self.person is None else tuple(np.unique(self.person).tolist())

    @property
    def who(self) -> npt.NDArray[np.int64]:
        """Index of each choice's person among :attr:`persons`, ``(n,)``; all 0 if it is not known who chose."""
        if self.person is None:
            return np.zeros(len(self), dtype=np.int64)
        return np.searchsorted(np.array(self.persons), self.person).astype(np.int64)

    def take(self, pairs: npt.NDArray[np.int64] | Bools | Sequence[int]) -> Comparisons:
        """Some of the pairs, by index or mask. For one person's choices: ``c.take(c.person == "ada")``."""
        index = np.asarray(pairs)
        return Comparisons(
            self.values,
            self.first[index],
            self.second[index],
            self.chose_first[index],
            None if self.gain is None else self.gain[index],
            None if self.person is None else self.person[index],
        )

    @classmethod
    def from_csv(cls, path: str | Path) -> Comparisons:
        """Read choices from a CSV file.

        The header names the columns, in any order: ``a:<value>`` and ``b:<value>`` for every value, and ``choice``, which is ``a`` or
        ``b``. If people were shown the gain, there are ``a:gain`` and ``b:gain``. If several people chose, there is ``person``.

        Raises:
            ValueError: If the file or a column is missing, or a column is unknown. Also if a line has a number that is not finite, a choice
                other than ``a`` and ``b``, an empty person, or two options with the same effects; the message names the line.
        """
        header, rows, lines = _table(Path(path))
        if len(header) == 1 and (between := next((sign for sign in ";\t|" if sign in header[0]), None)):
            raise ValueError(f"{path}: the columns are separated by {between!r}: save it with commas, and numbers with a decimal point")
        values = tuple(name[2:] for name in header if name.startswith("a:") and name != f"a:{GAIN}")
        shown = (*values, GAIN) if f"a:{GAIN}" in header or f"b:{GAIN}" in header else values
        needed = [f"{side}:{name}" for name in shown for side in "ab"] + ["choice"]
        if not values:
            raise ValueError(f"{path}: no column 'a:<value>': each value needs the columns a:<value> and b:<value>")
        if missing := [name for name in needed if name not in header]:
            raise ValueError(f"{path}: column {missing[0]!r} is missing (columns in the file: {', '.join(header)})")
        if unknown := [name for name in header if name not in (*needed, "person")]:
            raise ValueError(f"{path}: unknown column {unknown[0]!r}: allowed are {', '.join(needed)} and person; delete or rename it")
        if not rows:
            raise ValueError(f"{path}: there are no comparisons below the header: give at least one line")
        effects = {name: np.empty((len(rows), 2)) for name in shown}
        chose_first = np.empty(len(rows), dtype=bool)
        for i, (row, line) in enumerate(zip(rows, lines, strict=True)):
            where = f"{path}:{line}"
            for name in shown:
                effects[name][i] = [_number(row[f"{side}:{name}"], f"{side}:{name}", where) for side in "ab"]
            answer = row["choice"].strip().lower()
            if answer not in ("a", "b"):
                raise ValueError(f"{where}: choice is {row['choice']!r}: must be a or b (delete the line if nobody answered)")
            chose_first[i] = answer == "a"
            if all(effects[name][i, 0] == effects[name][i, 1] for name in shown):
                raise ValueError(f"{where}: a and b have the same effects, so a choice says nothing; delete the line")
            if "person" in header and not row["person"].strip():
                raise ValueError(f"{where}: person is empty: name a person on every line, or delete the column")
        harms = np.stack([effects[name] for name in values])  # (M, n, 2)
        return cls(
            values,
            harms[..., 0].T,
            harms[..., 1].T,
            chose_first,
            effects.get(GAIN),
            np.array([row["person"].strip() for row in rows]) if "person" in header else None,
        )

    def to_csv(self, path: str | Path, *, answered: bool = True) -> Path:
        """Write the pairs in the form that :meth:`from_csv` reads. With ``answered=False`` the choices are left empty, to be filled in."""
        shown = {name: np.stack([self.first[:, m], self.second[:, m]], axis=1) for m, name in enumerate(self.values)}
        shown |= {} if self.gain is None else {GAIN: self.gain}
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        people = [] if self.person is None else ["person"]
        table.writerow([*people, *(f"{side}:{name}" for side in "ab" for name in shown), "choice"])
        for i in range(len(self)):
            who = [] if self.person is None else [self.person[i]]
            numbers = [format(effect[i, side], ".6g") for side in (0, 1) for effect in shown.values()]
            table.writerow([*who, *numbers, ("a" if self.chose_first[i] else "b") if answered else ""])
        return write_text(path, text.getvalue())


def _table(path: Path) -> tuple[list[str], list[dict[str, str]], list[int]]:
    """Header, rows and the rows' line numbers of a CSV file."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            header = [name.strip() for name in next(reader, [])]
            if len(set(header)) < len(header):
                raise ValueError(f"{path}:1: a column occurs twice: {', '.join(header)}")
            rows, lines = [], []
            for cells in reader:
                if not any(cell.strip() for cell in cells):
                    continue
                if len(cells) != len(header):
                    raise ValueError(f"{path}:{reader.line_num}: has {len(cells)} cells, must have {len(header)}, one per column")
                rows.append(dict(zip(header, cells, strict=True)))
                lines.append(reader.line_num)
    except OSError as error:
        raise ValueError(f"{str(path)!r} cannot be read: {error.strerror or error}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{str(path)!r} is not a CSV file: {error}") from error
    return header, rows, lines


def _number(text: str, column: str, where: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"{where}: {column} is {text!r}: must be a number") from None
    if not math.isfinite(number):
        raise ValueError(f"{where}: {column} is {text!r}: must be finite")
    return number
