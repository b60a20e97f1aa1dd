"""From columns as they were read to a data set: features, labels and attributes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....registry import unknown_name
from ....text import one_line
from ..dataset import Dataset
from .columns import LABEL, MISSING, Column, number_as_word
from .settings import PARTS, TableFile

MOST_CLASSES = 100
"""A label with more different entries is refused: it is a measurement, or an identifier."""
_LARGEST = float(np.finfo(np.float32).max)
_NAMED = 5  # how many columns a message names
_DATE = re.compile(r"(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{4})([T ]\d{1,2}:\d{2}.*)?", re.ASCII)
_DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+", re.ASCII)


@dataclass(frozen=True)
class Table:
    """A file that was read.

    Attributes:
        dataset: The data set. Where ``data.file.missing`` is ``fill``, missing numbers are NaN in it; they are filled when the data is
            split, because the medians are those of the train pool.
        told: What was guessed, left out and filled, one sentence each.
    """

    dataset: Dataset
    told: tuple[str, ...]


def encode(columns: Sequence[Column], told: Iterable[str], file: TableFile) -> Table:
    """Make a data set of columns.

    Args:
        columns: The columns, without those that are dropped.
        told: What has been guessed so far.
        file: What the columns mean.

    Raises:
        ValueError: If a column that is named is not there, entries are missing, not finite or too large, the label has one class or too
            many, or a feature has too many levels or only one.
    """
    what, told = f"data file {file.name!r}", list(told)
    by_name = {column.name: column for column in columns}
    label = file.label or LABEL
    for role in ("label", "split", "attributes", "as_categories"):
        named = label if role == "label" else getattr(file, role)
        for name in (named,) if isinstance(named, str) else named or ():
            if name not in by_name:
                raise ValueError(f"{what}: data.file.{role}: {_no_such(name, list(by_name), told)}")
    by_name, told = _without_gaps(by_name, told, what, file)
    labels, classes = _label(by_name[label], what, file)
    attributes = {name: by_name[name].texts() for name in file.attributes}
    if file.split is not None:
        attributes[file.split] = _parts(by_name[file.split], what)
    hidden = ({*file.attributes} - {*file.also_features}) | {label, file.split}
    names, features = _features([column for name, column in by_name.items() if name not in hidden], what, file)
    told.insert(0, f"{len(labels):,} rows, {len(names)} features, classes {', '.join(map(one_line, classes))}")
    return Table(Dataset(features, labels, classes, names, attributes), tuple(told))


def _no_such(name: str, known: Sequence[str], told: Sequence[str]) -> str:
    shown = [*known[:40], *(["…"] if len(known) > 40 else [])]
    return str(unknown_name("column", name, [one_line(one) for one in shown])) + "".join(f"; {one}" for one in told)


def _without_gaps(by_name: dict[str, Column], told: list[str], what: str, file: TableFile) -> tuple[dict[str, Column], list[str]]:
    """The columns once missing entries are dealt with, but for the numbers that the train pool's medians will fill."""
    gaps = {name: int(column.missing.sum()) for name, column in by_name.items()}
    gaps = {name: n for name, n in gaps.items() if n}
    if not gaps:
        return by_name, told
    counted = _listed([f"{n:,} in {name!r}" for name, n in gaps.items()])
    if file.missing == "refuse":
        raise ValueError(
            f"{what} lacks entries: {counted}. Set data.file.missing to drop_rows or fill, or leave columns out with data.file.drop"
        )
    if file.missing == "drop_rows":
        kept = ~np.logical_or.reduce([by_name[name].missing for name in gaps])
        if not kept.any():
            raise ValueError(f"{what}: data.file.missing=drop_rows leaves no row; entries lack: {counted}: use fill, or data.file.drop")
        told.append(f"{(~kept).sum():,} of {len(kept):,} rows are left out, for entries that lack: {counted}")
        return {name: column.rows(kept) for name, column in by_name.items()}, told
    for name in (file.label, file.split):
        if name in gaps:
            raise ValueError(f"{what}: {gaps[name]:,} entries lack in {name!r}, which cannot be filled: use drop_rows")
    if empty := [name for name, n in gaps.items() if n == len(by_name[name].numbers)]:
        raise ValueError(f"{what}: {_listed(map(repr, empty))} hold no entry at all: leave such columns out with data.file.drop")
    told.append(f"entries that lack are filled: {counted}")
    return by_name, told


def _label(column: Column, what: str, file: TableFile) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """The labels, ``(n_rows,)``, and the classes: numbers from the lowest up, words in the order of the alphabet."""
    as_numbers = column.as_numbers(file.decimal)
    if as_numbers is not None:
        _require_finite(as_numbers, what)
        different, labels = np.unique(as_numbers.numbers, return_inverse=True)
        classes = tuple(number_as_word(float(one)) for one in different)
    else:
        assert column.words is not None
        order = np.argsort(np.array(column.words))
        classes, labels = tuple(column.words[i] for i in order), np.argsort(order)[column.numbers]
    if len(classes) < 2:
        raise ValueError(f"{what}: label {column.name!r} is {classes[0]!r} in every row: there must be at least two classes")
    if len(classes) > MOST_CLASSES:
        hint = "a measurement? Cut it into classes in a column of its own" if as_numbers is not None else "a name or free text?"
        raise ValueError(
            f"{what}: label {column.name!r} has {len(classes):,} different entries, such as {classes[0][:40]!r}, and at most "
            f"{MOST_CLASSES} classes are allowed: is it {hint}"
        )
    return labels.reshape(-1).astype(np.int64), classes


def _parts(column: Column, what: str) -> NDArray[np.str_]:
    """An own split, str ``(n_rows,)``."""
    parts = column.texts()
    levels = sorted({*np.unique(parts).tolist()})
    if unknown := [level for level in levels if level not in PARTS]:
        raise ValueError(
            f"{what}: data.file.split: column {column.name!r} holds {unknown[0][:40]!r}: its levels must be {', '.join(PARTS)}"
        )
    if "train" not in levels:
        raise ValueError(f"{what}: data.file.split: column {column.name!r} has no row with train, from which lots are drawn")
    return parts


def _features(columns: Sequence[Column], what: str, file: TableFile) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """The names of the features, and the features, ``(n_rows, n_features)``: float32 if all their columns are, else float64."""
    wrong, made = list[str](), list[Column]()
    for column in columns:
        numbers = None if column.name in file.as_categories else column.as_numbers(file.decimal)
        if numbers is not None:
            _require_finite(numbers, what)
            column = numbers
        else:
            column = column.as_words()
        if fault := _fault(column, file):
            wrong.append(fault)
        made.append(column)
    if wrong:
        raise ValueError(f"{what}: " + _listed(wrong, "; "))
    parts = list[tuple[str, NDArray[Any]]]()
    for column in made:
        parts += _with_indicator(column) if column.words is None else _encoded(column, file)
    if not parts:
        raise ValueError(f"{what}: no column is left for the features: columns are the label, attributes, or dropped")
    is_small = all(entries.dtype in (np.float32, np.bool_) for _, entries in parts)
    features = np.empty((len(parts[0][1]), len(parts)), dtype=np.float32 if is_small else np.float64)
    names = []
    for j, (name, entries) in enumerate(parts):
        features[:, j] = entries
        names.append(name)
    return tuple(names), features


def _fault(column: Column, file: TableFile) -> str:
    """Why a column cannot be a feature, in words; empty if it can."""
    name, words = one_line(column.name), column.words
    known = column.numbers[~column.missing]
    if not column.of_array and len(known) == len(column.numbers) and (known == known[0]).all():
        entry = number_as_word(float(known[0])) if words is None else words[known[0]]
        return f"column {name!r} is {entry[:40]!r} in every row, which tells nothing: leave it out with data.file.drop"
    if words is None:
        return ""
    if all(_DATE.fullmatch(word) for word in words):
        return f"column {name!r} holds dates, such as {words[0][:40]!r}: make numbers of them, or leave it out with data.file.drop"
    if len(words) > file.most_levels:
        if all(_DECIMAL_COMMA.fullmatch(word) for word in words if not word.isdigit()):
            return f"column {name!r} holds numbers with a comma, such as {words[0]!r}: set data.file.decimal to ','"
        return (
            f"column {name!r} has {len(words):,} levels, such as {words[0][:40]!r}{_odd(words)}, and at most {file.most_levels} are "
            "allowed: leave it out with data.file.drop, make it one of data.file.attributes, or raise data.file.most_levels"
        )
    return ""


def _odd(words: Sequence[str]) -> str:
    """What keeps a column from holding numbers, where almost all its words are numbers."""
    odd = [word for word in words if not re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", word, re.ASCII)]
    return f" (all are numbers but {', '.join(repr(word[:20]) for word in odd)}: data.file.missing_marks?)" if len(odd) <= 3 else ""


def _encoded(column: Column, file: TableFile) -> list[tuple[str, NDArray[Any]]]:
    """A column of words as columns of numbers."""
    assert column.words is not None
    levels, place = [*sorted(column.words)], {word: i for i, word in enumerate(column.words)}
    is_missing = column.missing
    gap = [(f"{column.name}={MISSING}", is_missing)] if is_missing.any() else []
    if file.categories == "ordinal":
        rank = np.empty(len(levels) + 1, dtype=np.float32)  # the last place is that of −1
        for i, word in enumerate(levels):
            rank[place[word]] = i
        rank[-1] = np.nan
        return [(column.name, rank[column.numbers]), *gap]
    levels = levels[1:] if len(levels) == 2 and not gap else levels
    return [*((f"{column.name}={word}", column.numbers == place[word]) for word in levels), *gap]


def _with_indicator(column: Column) -> list[tuple[str, NDArray[Any]]]:
    """A column of numbers, with a column that says where entries are missing if any are."""
    missing = column.missing
    return [(column.name, column.numbers), *([(f"{column.name}={MISSING}", missing)] if missing.any() else [])]


def _require_finite(column: Column, what: str) -> None:
    """Refuse entries that are not finite, or not in single precision, in which models compute."""
    size = np.abs(column.numbers)
    for wrong, are in ((np.isinf(size), "not finite"), (size > _LARGEST, f"beyond ±{_LARGEST:.2g}")):
        if wrong.any():
            row = int(np.argmax(wrong))
            raise ValueError(
                f"{what}: column {one_line(column.name)!r} holds {column.numbers[row]} in row {row + 1}; {wrong.sum():,} entries in all "
                f"are {are}: correct them, or leave the column out with data.file.drop"
            )


def _listed(parts: Iterable[str], between: str = ", ") -> str:
    """The first parts of a list, and how many more there are."""
    parts = list(parts)
    more = f"{between}and {len(parts) - _NAMED:,} more" if len(parts) > _NAMED else ""
    return between.join(parts[:_NAMED]) + more
