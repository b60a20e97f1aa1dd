"""A labelled table, and the registry of data sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...checks import items_of
from ...registry import Registry, unknown_name

Floats = NDArray[np.floating[Any]]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Dataset:
    """A labelled table.

    Attributes:
        features: float64 ``(n_rows, n_features)``; float32 if they are given so, which takes half the memory.
        labels: int64 ``(n_rows,)``, from 0.
        class_names: The classes' names, by label.
        feature_names: The columns' names.
        attributes: What is known of every row in words, by the attribute's name: str ``(n_rows,)``, one *level* per row. Groups, sites
            and strata are made from attributes. The model sees an attribute only if there are columns for it.

    Arrays of other number types, lists, tensors and tables are converted. The fields are checked when the table is made.

    Raises:
        ValueError: If a field has another type or shape than these, rows or names do not match in number, a label has no class, or a name
            is there twice.
    """

    features: Floats
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    feature_names: tuple[str, ...]
    attributes: Mapping[str, NDArray[np.str_]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        features = _numbers("features", self.features, 2)
        n_rows, n_features = features.shape
        labels = _numbers("labels", self.labels, 1)
        classes, columns = _names("class_names", self.class_names), _names("feature_names", self.feature_names)
        if not n_rows:
            raise ValueError("features have no rows: a data set needs some")
        if len(labels) != n_rows:
            raise ValueError(f"there are {len(labels)} labels for {n_rows} rows of features: give one label a row")
        if len(columns) != n_features:
            raise ValueError(f"there are {len(columns)} feature_names for {n_features} columns of features: give one name a column")
        if len(wrong := labels[(labels != np.floor(labels)) | ~((labels >= 0) & (labels < len(classes)))]):
            raise ValueError(
                f"labels hold {wrong[0].item()}: they must be whole numbers from 0 to {len(classes) - 1}, the places of the classes "
                f"{', '.join(classes)} in class_names"
            )
        if not isinstance(self.attributes, Mapping):
            raise ValueError(f"attributes={self.attributes!r}: must be a dictionary of one text a row, by the attribute's name")
        attributes = {name: _texts(name, column, n_rows) for name, column in self.attributes.items()}
        fields = {"features": features, "labels": labels.astype(np.int64, copy=False), "attributes": attributes}
        for name, content in (fields | {"class_names": classes, "feature_names": columns}).items():
            object.__setattr__(self, name, content)

    def class_index(self, label: int | str) -> int:
        """The label of a class, given by name or number.

        Raises:
            ValueError: If there is no such class; the message lists the classes.
        """
        named = self.class_names.index(str(label)) if str(label) in self.class_names else label
        if isinstance(label, int) and named != label < len(self.class_names):
            raise ValueError(
                f"class {label} may mean {self.class_names[label]!r}, whose number it is, or {str(label)!r}, whose name it is: write the "
                "name in quotes"
            )
        if label in self.class_names:
            return self.class_names.index(str(label))
        if str(label).isdigit() and int(label) < len(self.class_names):
            return int(label)
        raise unknown_name("class", label, list(self.class_names))

    def column(self, name: str) -> int:
        """The index of a column, given by name.

        Raises:
            ValueError: If there is no such column; the message lists the columns.
        """
        if name not in self.feature_names:
            raise unknown_name("column", name, list(self.feature_names))
        return self.feature_names.index(name)

    def columns(self, wanted: Sequence[int | str]) -> list[int]:
        """The indices of columns, given by number, name or shell pattern (``"education_*"``). They keep the order given, each once.

        Raises:
            ValueError: If there is no such column, or no column matches a pattern.
        """
        indices: list[int] = []
        for one in items_of("wanted", wanted, "columns"):
            if isinstance(one, int):
                if not 0 <= one < len(self.feature_names):
                    raise ValueError(f"data.columns={list(wanted)}: numbers must be from 0 to {len(self.feature_names) - 1}")
                indices.append(one)
            elif one not in self.feature_names and any(sign in one for sign in "*?["):
                matching = [i for i, name in enumerate(self.feature_names) if fnmatchcase(name, one)]
                if not matching:
                    raise ValueError(f"data.columns: no column matches {one!r}: the columns are {', '.join(self.feature_names)}")
                indices += matching
            else:
                indices.append(self.column(one))
        return list(dict.fromkeys(indices))

    def attribute(self, name: str) -> NDArray[np.str_]:
        """Every row's level of an attribute, str ``(n_rows,)``.

        Raises:
            ValueError: If there is no such attribute; the message lists the attributes.
        """
        if name not in self.attributes:
            raise unknown_name("attribute", name, sorted(self.attributes) or ["none: this data has no attributes"])
        return self.attributes[name]

    def levels(self, attribute: str) -> list[str]:
        """The levels of an attribute that occur in the data, the most frequent first.

        Raises:
            ValueError: If there is no such attribute; the message lists the attributes.
        """
        names, counts = np.unique(self.attribute(attribute), return_counts=True)
        return [str(names[i]) for i in np.argsort(-counts, kind="stable")]

    def with_levels(self, attribute: str, levels: Sequence[str]) -> Bools:
        """Which rows have one of the levels of an attribute, bool ``(n_rows,)``.

        Raises:
            ValueError: If there is no such attribute or level; the message lists those there are.
        """
        known = self.levels(attribute)
        levels = items_of("levels", levels, "levels")
        for level in levels:
            if level not in known:
                raise unknown_name(f"level of attribute {attribute!r}", level, known)
        return np.isin(self.attribute(attribute), levels)


def _numbers(name: str, came: object, ndim: int) -> Floats:
    """An array of numbers with this many dimensions: float64, or float32 where features are."""
    shape = "(n_rows, n_features)" if ndim == 2 else "(n_rows,)"
    if isinstance(came, np.ma.MaskedArray) and np.ma.is_masked(came):
        raise ValueError(f"{name} have masked entries: fill them, or drop their rows")
    try:
        array = np.asarray(came)
    except (TypeError, ValueError, RuntimeError):  # which one depends on what came
        raise ValueError(f"{name} is a {type(came).__name__} that makes no array: must be numbers of shape {shape}") from None
    if array.dtype.kind not in "biuf" or array.ndim != ndim:
        raise ValueError(f"{name} is an array of {array.dtype} of shape {array.shape}: must be numbers of shape {shape}")
    return array if ndim == 2 and array.dtype == np.float32 else array.astype(np.float64, copy=False)


def _names(name: str, came: Sequence[str]) -> tuple[str, ...]:
    """Names, each once."""
    names = items_of(name, came, "names")
    if wrong := [one for one in names if not isinstance(one, str)]:
        raise ValueError(f"{name} hold {wrong[0]!r}: names must be texts, such as {str(wrong[0])!r}")
    if twice := [one for i, one in enumerate(names) if one in names[:i]]:
        raise ValueError(f"{name} hold {twice[0]!r} twice: give each a name of its own")
    return tuple(map(str, names))


def _texts(name: str, came: object, n_rows: int) -> NDArray[np.str_]:
    """An attribute as texts, one a row."""
    texts = np.asarray(came)
    if texts.shape != (n_rows,):
        raise ValueError(f"attribute {name!r} has shape {texts.shape} for {n_rows} rows of features: give one text a row")
    return texts if texts.dtype.kind == "U" else texts.astype(np.str_)


DATA: Registry[Dataset] = Registry("data source", "proxycoop.data")
