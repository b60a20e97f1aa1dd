"""The table that a scenario is drafted on: how to read it, and what its columns mean, as ``data.file`` has it."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...envs.data import Dataset
from ...envs.data.tables import Column, TableFile, read, scan
from ...envs.data.tables.columns import MISSING
from ...envs.data.tables.encoding import MOST_CLASSES
from ...registry import unknown_name
from ..terminal import remark
from .roles import MOST_LEVELS, Guess, guess
from .sheet import Sheet
from .sizes import FEWEST_ROWS

_TEXT, _PARQUET = (".csv", ".tsv", ".txt", ".data"), (".parquet", ".pq")
_FEW_ROWS = 0.05
"""Rows with a gap are left out if they are at most this share of all; else gaps are filled."""
_SHOWN = 40
_MOST_CODES = 20
"""A label with more different numbers looks like a measurement."""
_NUMBER = re.compile(r"[-+]?\d+(,\d+)?", re.ASCII)
_IN_THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2},\d{3}", re.ASCII)


@dataclass(frozen=True)
class Wishes:
    """What was asked for; ``None`` and nothing leave it to the guess.

    Attributes:
        label: Name of the column that the model learns to predict.
        attributes: Names of the protected columns.
        sites: Name of the column whose levels are the places that hold the data.
        principals: Number of principals.
        keep: Columns that are not to be dropped, whatever they look like.
        drop: Columns that are to be dropped.
    """

    label: str
    attributes: Collection[str] | None = None
    sites: str | None = None
    principals: int | None = None
    keep: Collection[str] = ()
    drop: Collection[str] = ()

    def among(self, columns: Sequence[Column]) -> Wishes:
        """The same wishes, once it is known that the table can fulfil them. ``"sex,age"`` stands for two columns, unless one is called so.

        Raises:
            ValueError: If there is no such column, it has two tasks, or its entries do not fit its task.
        """
        known = [column.name for column in columns]

        def split(names: Collection[str]) -> list[str]:
            return [one.strip() for name in names for one in ([name] if name in known else name.split(","))]

        named = {
            "label": [self.label],
            "attributes": split(self.attributes or ()),
            "sites": [] if self.sites is None else [self.sites],
            "keep": split(self.keep),
            "drop": split(self.drop),
        }
        for argument, names in named.items():
            for name in names:
                if name not in known:
                    shown = [*known[:_SHOWN], *["…"] * (len(known) > _SHOWN)]
                    raise ValueError(f"{argument}: {unknown_name('column', name, shown)}")
                if argument != "label" and name == self.label:
                    raise ValueError(f"{argument}: {name!r} is the label: name another column")
        for one, other in (("drop", "keep"), ("drop", "attributes"), ("drop", "sites"), ("sites", "attributes")):
            if both := sorted({*named[one]} & {*named[other]}):
                raise ValueError(f"{one}: {both[0]!r} is one of {other} too: leave one of the two")
        for column in columns:
            if column.name == self.label:
                _require_classes(column)
            for argument in ("attributes", "sites"):
                if column.name in named[argument] and column.words is not None and len(column.words) > MOST_LEVELS:
                    raise ValueError(
                        f"{argument}: {column.name!r} has {len(column.words):,} different words, and at most {MOST_LEVELS} are allowed: "
                        "name another column"
                    )
        attributes = None if self.attributes is None else named["attributes"]
        return Wishes(self.label, attributes, self.sites, self.principals, named["keep"], named["drop"])


@dataclass(frozen=True)
class Opened:
    """A table that was read, and what was guessed about it.

    Attributes:
        path: The file.
        source: The data source that reads it.
        wishes: What was asked for.
        guesses: What each column is taken for.
        dataset: The table as a scenario has it.
        told: What else was guessed, and what was done about gaps, one sentence each.
    """

    path: Path
    source: str
    wishes: Wishes
    guesses: list[Guess]
    dataset: Dataset
    told: list[str]

    @property
    def protected(self) -> list[Guess]:
        """The protected columns."""
        return [one for one in self.guesses if one.role in ("attribute", "protected")]


def open_table(path: Path, wishes: Wishes, sheet: Sheet) -> Opened:
    """Read a table, and put what its columns mean onto the sheet.

    Raises:
        ValueError: If it cannot be read, does not fit the wishes, or has too few rows.
    """
    source = source_of(path)
    sheet.say("data", "where rows come from, and how they are split")
    sheet.put("data.source", source, "the format, from the end of the file's name")
    sheet.say("data.file", "the table, and what its columns mean; columns that nothing is said of are features")
    sheet.put("data.file.path", str(path), "the file, relative to this one")
    sheet.put("data.file.label", wishes.label, "what the model learns to predict, as it was asked for")
    file = sheet.settings["data"]["file"]
    try:
        columns, guessed = scan(source, TableFile(**file))
    except ValueError as refusal:  # there is no scenario yet whose key could be wrong
        raise ValueError(str(refusal).removeprefix("data.file.path=")) from None
    if source == "csv" and _has_decimal_commas(columns):
        sheet.put("data.file.decimal", ",", "the decimal point: columns hold numbers with a comma")
        columns, guessed = scan(source, TableFile(**file))
        guessed.append("a comma is the decimal point, as was guessed")
    wishes = wishes.among(columns)
    columns = [column for column in columns if column.name not in wishes.drop]
    guesses = guess(
        columns, wishes.label, _labels(columns, wishes.label), attributes=wishes.attributes, sites=wishes.sites, keep=wishes.keep
    )
    _say_columns(guesses, wishes, sheet)
    _say_gaps([one for one in guesses if not one.dropped and one.column.missing.any()], sheet)
    made = read(source, TableFile(**file))
    if (n_rows := len(made.dataset.labels)) < FEWEST_ROWS:
        raise ValueError(
            f"data file {path.name!r} has {n_rows:,} rows that can be used: a cooperative is drafted on at least {FEWEST_ROWS}"
        )
    return Opened(path, source, wishes, guesses, made.dataset, [*made.told, *(one for one in guessed if one not in made.told)])


def source_of(path: Path) -> str:
    """The data source that reads a file of this name.

    Raises:
        ValueError: If none does.
    """
    end = path.with_suffix("").suffix if path.suffix.lower() == ".gz" else path.suffix
    if end.lower() in _PARQUET:
        return "parquet"
    if end.lower() in _TEXT:
        return "csv"
    raise ValueError(f"{path.name!r}: a scenario is drafted on a file whose name ends in {', '.join((*_TEXT, *_PARQUET))} or .csv.gz")


def _require_classes(label: Column) -> None:
    """Refuse a label that has no classes, or too many."""
    n_classes = len(label.as_words().words or ())
    if n_classes < 2:
        raise ValueError(f"label: {label.name!r} has the same entry in every row: name a column with two classes or more")
    if n_classes > MOST_CLASSES:
        raise ValueError(
            f"label: {label.name!r} has {n_classes:,} different entries, and at most {MOST_CLASSES} classes are allowed: name another "
            "column; if it is a measurement, cut it into classes in a column of its own"
        )
    if n_classes > _MOST_CODES and label.as_numbers() is not None:
        remark(
            f"label: {label.name!r} has {n_classes} different numbers, each of which is taken for a class: if it is a measurement, cut it "
            "into classes in a column of its own"
        )


def _has_decimal_commas(columns: Sequence[Column]) -> bool:
    """Whether a column of words holds numbers with a comma that cannot all be between thousands, as in ``1,234``."""
    return any(
        column.words
        and all(map(_NUMBER.fullmatch, column.words))
        and any("," in word and not _IN_THOUSANDS.fullmatch(word) for word in column.words)
        for column in columns
    )


def _labels(columns: Sequence[Column], label: str) -> NDArray[np.int64]:
    """Every row's class, int64 ``(n_rows,)``, for the search of leaks; rows without a label are a class of their own."""
    column = next(one for one in columns if one.name == label).as_words()
    return np.asarray(column.numbers.astype(np.int64) % (1 + len(column.words or ())))


def _say_columns(guesses: Sequence[Guess], wishes: Wishes, sheet: Sheet) -> None:
    """Attributes and dropped columns."""
    in_words = [one for one in guesses if one.role in ("attribute", "protected", "site") and one.in_words]
    if in_words:
        why = "; ".join(f"{one.name}: {one.why}" for one in in_words)
        known = "what is known of each row in words. The model does not see these columns"
        sheet.put("data.file.attributes", [one.name for one in in_words], f"{known}. {why}")
    dropped = [one for one in guesses if one.dropped]
    because = [*(f"{name}: named by --drop" for name in wishes.drop), *(f"{one.name}: {one.role}, {one.why}" for one in dropped)]
    if because:
        leaks = [one.name for one in dropped if one.role == "leak"]
        hint = f". If {leaks[0]} is known before {wishes.label} is, it is no leak: take it out of this list" if leaks else ""
        sheet.put(
            "data.file.drop", [*wishes.drop, *(one.name for one in dropped)], "columns that nobody sees. " + "; ".join(because) + hint
        )


def _say_gaps(gaps: Sequence[Guess], sheet: Sheet) -> None:
    """What is done about missing entries."""
    if not gaps:
        return
    share = float(np.logical_or.reduce([one.column.missing for one in gaps]).mean())
    counted = (
        f"entries that lack: {', '.join(f'{one.name} {one.column.missing.mean():.1%}' for one in gaps)}. {share:.1%} of the rows have one"
    )
    if any(one.role == "label" for one in gaps):
        sheet.put("data.file.missing", "drop_rows", f"{counted}. These rows are left out: a label that lacks cannot be filled")
    elif share <= _FEW_ROWS:
        sheet.put("data.file.missing", "drop_rows", f"{counted}. These rows are left out, as they are at most {_FEW_ROWS:.0%}")
    else:
        how = f"Numbers get the median of the train pool and a column that says where, words a level {MISSING!r} of their own"
        sheet.put("data.file.missing", "fill", f"{counted}. {how}")
