"""What a scenario says of the file that its data is read from."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from ....settings import Settings, misplaced

SOURCES = ("csv", "parquet", "npz", "idx")
"""The data sources that read a file."""
PARTS = ("public", "train", "validation", "test", "probe")
"""The levels of an own split's column."""
MARKS = ("", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "#N/A", "?")
"""What stands for a missing entry in text, unless a scenario says otherwise."""


class TableFile(Settings):
    """A file with one row for each example, and what its columns mean.

    Columns that nothing is said of are features. A feature's column holds numbers, or words, which are made into numbers.
    """

    path: str = Field(
        min_length=1,
        description="The file. In a scenario's file it is written relative to that file, elsewhere to the working directory. For idx: the "
        "file of images, or the folder of all four files.",
    )
    label: str | None = Field(
        None,
        description="The column that the model learns to predict; of npz the array, of idx the file of labels beside that of the images. "
        "Needed, but for a folder of idx files.",
    )
    attributes: tuple[str, ...] = Field(
        (), description="Columns that say in words what a row is, for groups, sites and values. The model does not see them."
    )
    also_features: tuple[str, ...] = Field((), description="Those of the attributes that the model sees too.")
    drop: tuple[str, ...] = Field((), description="Columns that are left out, as if the file did not have them.")
    categories: Literal["one_hot", "ordinal"] = Field(
        "one_hot",
        description="How a column of words becomes numbers. one_hot: a column of 0 and 1 for each level, called `city=Paris`, and only one "
        "if there are two levels. ordinal: one column with the level's place, from 0, in the order of the alphabet.",
    )
    as_categories: tuple[str, ...] = Field((), description="Columns of numbers that are codes: they are treated as words.")
    most_levels: int = Field(
        50, ge=2, le=10_000, description="Most levels of a column of words that is a feature; one with more is refused."
    )
    missing: Literal["refuse", "drop_rows", "fill"] = Field(
        "refuse",
        description="What is done about missing entries. drop_rows: rows with one are left out. fill: numbers get the median of the train "
        "pool, and a column `income=missing` says where; words get a level `missing` of their own. A missing label is never filled.",
    )
    missing_marks: tuple[str, ...] = Field(
        MARKS, description="csv: what stands for a missing entry. NaN does in every format, and in Parquet null."
    )
    split: str | None = Field(
        None,
        description="A column whose levels public, train, validation, test and probe say which set a row may be dealt to. For a folder of "
        "idx files: `part`, which is train or test.",
    )
    delimiter: str | None = Field(
        None,
        min_length=1,
        max_length=1,
        description="csv: what stands between columns. none: a comma, semicolon, tab or vertical bar, as it is guessed.",
    )
    decimal: Literal[".", ","] = Field(".", description="csv: the decimal point.")
    sha256: str | None = Field(
        None,
        pattern="^[0-9a-f]{64}$",
        description="Digest of the file's content, filled in when the scenario is made. Where the file has another one, it is refused.",
    )

    @field_validator("path")
    @classmethod
    def _from_the_root(cls, path: str) -> str:
        if path == "~" or path.startswith("~/"):
            raise ValueError("'~' is not replaced by a home folder here; write the whole path")
        return os.path.abspath(path)

    @model_validator(mode="after")
    def _check(self) -> TableFile:
        roles = {"drop": self.drop, "attributes": self.attributes, "label": (self.label,), "split": (self.split,)}
        for role, names in roles.items():
            if twice := [name for i, name in enumerate(names) if name in names[:i]]:
                raise misplaced((role,), f"{twice[0]!r} is there twice: leave one")
        for one, other in (("drop", "attributes"), ("drop", "label"), ("drop", "split"), ("label", "attributes"), ("label", "split")):
            if both := {name for name in roles[one] if name is not None} & {*roles[other]}:
                raise misplaced((one,), f"{min(both)!r} is under {other} too: leave one of the two")
        if strangers := [name for name in self.also_features if name not in self.attributes]:
            raise misplaced(
                ("also_features",), f"{strangers[0]!r} is none of the attributes: columns that are no attributes are features anyway"
            )
        if self.delimiter is not None and (self.delimiter == self.decimal or self.delimiter in '"\r\n'):
            raise misplaced(("delimiter",), f"must be neither the decimal {self.decimal!r}, nor a quote, nor a line's end")
        return self

    @property
    def name(self) -> str:
        """The file's name without its folder, for messages."""
        return Path(self.path).name

    def words(self) -> frozenset[str]:
        """Columns that are read as words, whatever they hold."""
        return frozenset({*self.attributes, *self.as_categories, *(name for name in (self.label, self.split) if name is not None)})


def check_source(source: str, file: TableFile | None) -> None:
    """Refuse a file where the source reads none, a source without its file, and settings that its format has not.

    Raises:
        ValueError: If they do not fit.
    """
    if source not in SOURCES:
        if file is not None:
            raise misplaced(
                ("file",), f"source {source!r} reads no file of yours: leave it out, or set data.source to {', '.join(SOURCES)}"
            )
        return
    if file is None:
        raise misplaced(("source",), f"{source} reads a file: say which, as in file: {{path: my.{source}, label: default}}")
    if file.label is None and not (source == "idx" and os.path.isdir(file.path)):
        raise misplaced(("file", "label"), "is needed: the column that the model learns to predict")
    if source != "csv":
        for key in ("missing_marks", "delimiter", "decimal"):
            if getattr(file, key) != TableFile.model_fields[key].default:
                raise misplaced(("file", key), f"is read with source csv alone, and source is {source}: leave it out")


def path_within(folder: Path, path: str) -> str:
    """A path that a scenario's file in this folder has written: relative to the folder unless it is a whole one."""
    return path if re.match(r"~(/|$)", path) else str(folder.resolve() / path)
