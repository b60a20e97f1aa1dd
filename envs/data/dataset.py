"""A labelled table, and the registry of data sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import NDArray

from ...checks import items_of
from ...registry import Registry, unknown_name

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Dataset:
    """A labelled table.

    Attributes:
        features: float64 ``(n_rows, n_features)``.
        labels: int64 ``(n_rows,)``, from 0.
        class_names: The classes' names, by label.
        feature_names: The columns' names.
        attributes: What is known of every row in words, by the attribute's name: str ``(n_rows,)``, one *level* per row. Groups, sites
            and strata are made from attributes. The model sees an attribute only if there are columns for it.
    """

    features: Floats
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    feature_names: tuple[str, ...]
    attributes: Mapping[str, NDArray[np.str_]] = field(default_factory=dict)

    def class_index(self, label: int | str) -> int:
        """The label of a class, given by name or number.

        Raises:
            ValueError: If there is no such class; the message lists the classes.
        """
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


DATA: Registry[Dataset] = Registry("data source", "proxycoop.data")
