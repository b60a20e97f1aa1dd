"""Real data sets, and how a cooperative's data is split.

No two splits share a row, but they may hold rows with the same features; see :mod:`~proxycoop.envs.data.duplicates`:

* the *public* set, on which the shared model is trained before the first round;
* the *train* pool, from which the principals' lots are drawn;
* the *validation* set, on which the utility is computed;
* the *test* set, which credit never uses;
* for every value, a *probe* set for screening and a *probe test* set for reporting.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Annotated, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor

from ...settings import LATER, Settings, misplaced
from . import fairness, fashion, texts  # noqa: F401  # they register their data sources
from .dataset import DATA, Bools, Dataset, Floats
from .tables import SOURCES, TableFile, digest_of, read, require_unchanged
from .tables.settings import check_source

__all__ = [
    "DATA",
    "Bools",
    "Data",
    "Dataset",
    "Floats",
    "Group",
    "HeldOut",
    "Rows",
    "Splits",
    "load",
    "split",
]


@DATA.register("digits")
def digits() -> Dataset:
    """Handwritten digits, 8 × 8 pixels in [0, 1], 1,797 rows (UCI, bundled with scikit-learn)."""
    from sklearn.datasets import load_digits  # slow to import

    bunch = load_digits()
    return Dataset(
        features=bunch.data / 16.0,
        labels=bunch.target.astype(np.int64),
        class_names=tuple(str(digit) for digit in range(10)),
        feature_names=tuple(str(name) for name in bunch.feature_names),
    )


@DATA.register("breast_cancer")
def breast_cancer() -> Dataset:
    """Wisconsin diagnostic breast cancer, 30 measurements of cell nuclei, class 1 is malignant, 569 rows (bundled with scikit-learn)."""
    from sklearn.datasets import load_breast_cancer  # slow to import

    bunch = load_breast_cancer()
    return Dataset(
        features=bunch.data,
        labels=(1 - bunch.target).astype(np.int64),  # in scikit-learn malignant is 0
        class_names=("benign", "malignant"),
        feature_names=tuple(str(name) for name in bunch.feature_names),
    )


def load(source: str, file: TableFile | None = None) -> Dataset:
    """The data set called ``source``, read once; again if another function was registered under the name since, or a file has changed.

    Args:
        source: Its name.
        file: The file, for the sources that read one.

    Raises:
        ValueError: If the name is unknown (the message lists the known ones), or its function fails or does not return a data set; if the
            file cannot be read, does not fit what is said of it, or is not the one whose digest is recorded.
    """
    if source not in SOURCES or file is None:
        return _load(source, DATA[source])
    require_unchanged(source, file)
    return _read(source, file.model_copy(update={"sha256": digest_of(source, file)}))


@lru_cache(maxsize=4)
def _read(source: str, file: TableFile) -> Dataset:
    return read(source, file).dataset


@lru_cache(maxsize=8)
def _load(source: str, factory: Callable[..., Dataset]) -> Dataset:
    del factory  # a part of the key: it is what DATA has under the name
    try:
        dataset = DATA.make(source)
    except ValueError as error:
        raise ValueError(f"data source {source!r}: {error}") from error
    except (ArithmeticError, AttributeError, LookupError, OSError, TypeError) as error:  # it reads whatever the user has
        raise ValueError(f"data source {source!r} failed: {type(error).__name__}: {error}") from error
    if not isinstance(dataset, Dataset):
        raise ValueError(f"data source {source!r} returned {type(dataset).__name__}: it must return a Dataset")
    return dataset


class Group(Settings):
    """A group of people (rows), for values that protect groups. A column of the data or an attribute decides who belongs to it."""

    column: str | None = Field(None, description="Name of the column that decides; used with above or below.")
    above: float | None = Field(None, ge=0, lt=1, description="Rows above this quantile of the column belong to the group.")
    below: float | None = Field(None, gt=0, le=1, description="Rows below this quantile of the column belong to the group.")
    attribute: str | None = Field(None, description="Name of the attribute that decides; used with equals.")
    equals: str | tuple[str, ...] = Field((), description="Rows with this level of the attribute, or one of these, belong to the group.")

    @model_validator(mode="after")
    def _check(self) -> Group:
        given = {name for name in type(self).model_fields if getattr(self, name) not in (None, ())}
        if given not in ({"column", "above"}, {"column", "below"}, {"attribute", "equals"}):
            raise ValueError(
                f"group on {self.column or self.attribute!r}: give either a column with exactly one of 'above' and 'below', or an "
                "attribute with 'equals'"
            )
        return self

    def members(self, dataset: Dataset) -> Bools:
        """Which rows belong to the group, bool ``(n_rows,)``.

        Raises:
            ValueError: If the column, the attribute or a level is unknown; the message lists the known ones.
        """
        if self.attribute is not None:
            return dataset.with_levels(self.attribute, (self.equals,) if isinstance(self.equals, str) else self.equals)
        assert self.column is not None
        column = dataset.features[:, dataset.column(self.column)]
        known = column[~np.isnan(column)]  # a row whose number is missing is in no group
        if self.above is not None:
            return np.asarray(column > np.quantile(known, self.above))
        assert self.below is not None
        return np.asarray(column < np.quantile(known, self.below))


class HeldOut(Settings):
    """A held-out set. Classes may be thinned, so that the majority's interest differs from that of the protected classes."""

    rows: int = Field(150, ge=2, description="Number of rows.")
    thin: dict[int | str, Annotated[float, Field(ge=0)]] = Field(
        default_factory=dict, description="Factors on classes' natural frequencies, by name or number of the class: {8: 0.15}."
    )


class Data(Settings):
    """Where the data comes from and how it is split."""

    source: str = Field("digits", description="Name of the data source. csv, parquet, npz and idx read a file of your own.")
    file: TableFile | None = Field(
        None, json_schema_extra=LATER, description="The file that csv, parquet, npz and idx read, and what its columns mean."
    )
    columns: tuple[int | str, ...] | None = Field(
        None, min_length=1, description='Columns to keep, by number, name or shell pattern ("education_*"); all by default.'
    )
    scaling: Literal["none", "centre", "standardise"] = Field(
        "none", description="centre: subtract the mean; standardise: then divide by the standard deviation. Both come from the train pool."
    )
    split_seed: int = Field(0, ge=0, description="Seed of the split.")
    splits: int = Field(
        1,
        ge=1,
        le=256,
        json_schema_extra=LATER,
        description="Number of splits that episodes take turns on, with the seeds split_seed, split_seed + 1, …: an engine's episode k is "
        "on split k modulo splits. Each has a start model, validation set and reward scale of its own.",
    )
    public_rows: int = Field(40, ge=0, description="Rows of the public set, on which the shared model is trained before round 1.")
    validation: HeldOut = Field(default_factory=HeldOut, description="The set on which the utility is computed.")
    test: HeldOut = Field(default_factory=lambda: HeldOut(rows=400), description="The test set, which credit never uses.")
    train_rows: int | None = Field(
        None, ge=1, description="Largest number of rows of the train pool, to keep resets of large data fast; no limit by default."
    )
    duplicates: Literal["keep", "drop"] = Field(
        "keep",
        description="drop: of rows with the same features (in the columns kept), use only the first, so that no two splits hold one.",
    )
    probe_rows: int = Field(40, ge=2, description="Rows per stratum of each value's probe set; its probe test set has as many.")
    groups: dict[str, Group] = Field(default_factory=dict, description="Groups that values may protect, by name.")

    @model_validator(mode="after")
    def _check_file(self) -> Data:
        """Refuse a file that does not go with the source. Take down the digest of one that does."""
        check_source(self.source, self.file)
        if self.file is not None and self.file.sha256 is None:
            try:
                digest = digest_of(self.source, self.file)
            except ValueError as error:
                raise misplaced(("file", "path"), str(error).removeprefix("data.file.path=")) from None
            vars(self)["file"] = self.file.model_copy(update={"sha256": digest})
        return self


@dataclass(frozen=True)
class Rows:
    """Some rows of a data set as tensors.

    Attributes:
        x: Features, ``(n_rows, n_features)``.
        y: Labels, int64 ``(n_rows,)``.
        groups: Members of each group, bool ``(n_rows,)``, by group name.
        reference: The start model's logits, ``(n_rows, n_classes)``; only on probe sets of values that compare with the start model.
        column: The labels as a column, ``(n_rows, 1)``, which losses take without making it anew.
    """

    x: Tensor
    y: Tensor
    groups: Mapping[str, Tensor]
    reference: Tensor | None = None
    column: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        vars(self)["column"] = self.y[..., None]

    def __len__(self) -> int:
        return self.y.shape[0]

    def to(self, device: torch.device) -> Rows:
        """The same rows on a device."""
        groups = {name: members.to(device) for name, members in self.groups.items()}
        return Rows(self.x.to(device), self.y.to(device), groups, None if self.reference is None else self.reference.to(device))


@dataclass(frozen=True)
class Splits:
    """A cooperative's data, split as the module's docstring says.

    Attributes:
        dataset: The data set.
        train_index: Indices of the train pool's rows in the data set, int64 ``(n_rows,)``.
        public: Rows on which the shared model is trained before the first round.
        train: The train pool.
        validation: Rows on which the utility is computed.
        test: Rows for reporting, which credit never uses.
        probe: For each value, the rows on which updates are screened.
        probe_test: For each value, the rows on which its loss is reported.
        index: Indices in the data set of the rows of ``public``, ``train``, ``validation`` and ``test``, int64 ``(n_rows,)`` each.
    """

    dataset: Dataset
    train_index: NDArray[np.int64]
    public: Rows
    train: Rows
    validation: Rows
    test: Rows
    probe: Mapping[str, Rows]
    probe_test: Mapping[str, Rows]
    index: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)

    def to(self, device: torch.device) -> Splits:
        """The same splits with all rows on a device."""
        return Splits(
            dataset=self.dataset,
            train_index=self.train_index,
            public=self.public.to(device),
            train=self.train.to(device),
            validation=self.validation.to(device),
            test=self.test.to(device),
            probe={name: rows.to(device) for name, rows in self.probe.items()},
            probe_test={name: rows.to(device) for name, rows in self.probe_test.items()},
            index=self.index,
        )

    @property
    def n_features(self) -> int:
        """Number of features of a row."""
        return self.train.x.shape[1]

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.dataset.class_names)


class _Deck:
    """Rows in random order, dealt without replacement. If ``usable`` is given, only these rows are dealt.

    If ``own`` is given, it names the set to which each row may be dealt. A set that it gives no rows gets some of those for training.
    """

    def __init__(self, dataset: Dataset, seed: int, usable: Bools | None = None, own: NDArray[np.str_] | None = None) -> None:
        self.labels = dataset.labels
        self._own = own
        self.random = np.random.default_rng(seed)
        self.order = self.random.permutation(len(dataset.labels))
        self.free = np.ones(len(dataset.labels), dtype=bool) if usable is None else usable.copy()
        self._differ, self._or = ("", "") if usable is None else (" that differ", ", or use duplicates: keep")
        self.lacks_classes = False  # at the front: whole classes were dealt, and the others not

    def allowed(self, part: str) -> Bools:
        """The rows that may be dealt to a set, bool ``(n_rows,)``."""
        if self._own is None:
            return np.ones(len(self.labels), dtype=bool)
        given = np.asarray(self._own == part)
        return given if given.any() else np.asarray(self._own == "train")

    def deal(self, mask: Bools, rows: int, part: str, what: str) -> NDArray[np.int64]:
        """Take ``rows`` free rows within ``mask`` for a set."""
        mask = mask & self.allowed(part)
        chosen = self.order[(self.free & mask)[self.order]][:rows]
        if len(chosen) < rows:
            left = f"{len(chosen)}{self._differ} are left"
            of_own = "" if self._own is None else " of those that data.file.split gives it"
            raise ValueError(f"data: {what} wants {rows} rows but only {left}{of_own}: lower the rows of some split{self._or}")
        self.free[chosen] = False
        if any(0 < mask[self.labels == label].mean() < 1 for label in np.unique(self.labels)):
            # only some rows of a class could be taken, so the front of the deck now lacks them: shuffle what is left
            self.shuffle()
        return chosen

    def shuffle(self) -> None:
        """Shuffle what is left."""
        self.order = self.random.permutation(self.order)
        self.lacks_classes = False

    def deal_stratum(self, mask: Bools, rows: int, part: str, what: str) -> NDArray[np.int64]:
        """Take ``rows`` free rows within ``mask`` for a set. Of several classes, each has its share of them."""
        n_classes = len(np.unique(self.labels[mask]))
        if self.lacks_classes and n_classes > 1:
            self.shuffle()
        order = self.order
        chosen = self.deal(mask, rows, part, what)
        if self.order is order and n_classes < len(np.unique(self.labels)):
            self.lacks_classes = True
        return chosen

    def deal_by_class(self, rows: int, thin: Mapping[int, float], part: str) -> NDArray[np.int64]:
        """Take ``rows`` free rows for a set. Classes have their natural proportions times ``thin``, rounded by largest remainder."""
        what = f"the {part} set"
        counts = np.bincount(self.labels[self.allowed(part)], minlength=int(self.labels.max()) + 1)
        share = counts * np.array([thin.get(label, 1.0) for label in range(len(counts))])
        if not share.sum() > 0:
            raise ValueError(f"data: {what} has thin 0 for every class: give at least one class a factor above 0")
        exact = rows * share / share.sum()
        whole = np.floor(exact).astype(int)
        whole[np.argsort(whole - exact, kind="stable")[: rows - whole.sum()]] += 1
        return np.concatenate([self.deal(self.labels == label, n, part, what) for label, n in enumerate(whole)])


def _first_of_each(features: Floats) -> Bools:
    """Which rows are the first with their features, bool ``(n_rows,)``."""
    first = np.zeros(len(features), dtype=bool)
    first[np.unique(features, axis=0, return_index=True)[1]] = True
    return first


def _medians(pool: Floats, dataset: Dataset, data: Data) -> Floats:
    """The median of each column in the train pool, ``(n_features,)``, with which missing entries are filled everywhere."""
    empty = np.isnan(pool).all(axis=0)
    if empty.any():
        kept = range(len(dataset.feature_names)) if data.columns is None else dataset.columns(data.columns)
        name = dataset.feature_names[kept[int(np.argmax(empty))]]
        raise ValueError(
            f"data: column {name!r} has no entry in the train pool, whose median would fill its gaps: leave it out with data.file.drop"
        )
    return np.asarray(np.nanmedian(pool, axis=0))


def split(data: Data, strata: Mapping[str, Callable[[Dataset, Mapping[str, Bools]], Sequence[Bools]]], dtype: torch.dtype) -> Splits:
    """Split a data source.

    Args:
        data: The settings.
        strata: For each value, a function from the data set and its groups' members to bool masks. Each mask is a stratum that the value's
            probe set must hold.
        dtype: Type of the features.

    Returns:
        The splits. The same settings give the same splits.

    Raises:
        ValueError: If the source, a class, a column or a group is unknown, or there are too few rows.
    """
    dataset = load(data.source, data.file)
    groups = {name: group.members(dataset) for name, group in data.groups.items()}
    features = dataset.features if data.columns is None else dataset.features[:, dataset.columns(data.columns)]
    fills = data.file is not None and data.file.missing == "fill"
    finite = np.isfinite(features)
    if not finite.all() and not fills:
        row, column = np.argwhere(~finite)[0]
        name = dataset.feature_names[column if data.columns is None else dataset.columns(data.columns)[column]]
        raise ValueError(
            f"data: column {name!r} of source {data.source!r} holds {features[row, column]} in row {row}, and {(~finite).sum()} entries in "
            "all are not finite: drop their rows, fill the gaps, or leave out the columns with data.columns"
        )
    usable = _first_of_each(np.where(finite, features, np.inf)) if data.duplicates == "drop" else None  # NaN would equal nothing
    own = None if data.file is None or data.file.split is None else dataset.attribute(data.file.split)
    deck = _Deck(dataset, data.split_seed, usable, own)
    public = deck.deal_by_class(data.public_rows, {}, "public")
    probes = [
        {
            name: np.concatenate(
                [deck.deal_stratum(mask, data.probe_rows, "probe", f"the {what} set of value {name!r}") for mask in of(dataset, groups)]
            )
            for name, of in strata.items()
        }
        for what in ("probe", "probe test")
    ]
    held_out = {
        what: deck.deal_by_class(part.rows, {dataset.class_index(label): f for label, f in part.thin.items()}, what)
        for what, part in (("validation", data.validation), ("test", data.test))
    }
    left = deck.order[(deck.free & deck.allowed("train"))[deck.order]]
    if data.validation.thin or data.test.thin or deck.lacks_classes:  # classes are not at the front in their proportions
        left = deck.random.permutation(left)
    train = np.sort(left[: data.train_rows])
    if len(train) == 0:
        raise ValueError("data: no rows are left for the train pool: lower the rows of the other splits")

    pool = features[train]
    median = _medians(pool, dataset, data) if fills else None
    if median is not None:
        pool = np.where(np.isnan(pool), median, pool)
    shift, divisor = None, None
    if data.scaling != "none":
        shift = pool.mean(axis=0, dtype=np.float64)
    if shift is not None and data.scaling == "standardise":
        pool -= shift
        deviation = pool.std(axis=0, dtype=np.float64)
        divisor = np.where(deviation > 0, deviation, 1.0)
    del pool

    def rows(index: NDArray[np.int64]) -> Rows:
        x = features[index]
        x = x if median is None else np.where(np.isnan(x), median, x)
        x = x if shift is None else x - shift
        x = x if divisor is None else x / divisor
        return Rows(
            x=torch.tensor(x, dtype=dtype),
            y=torch.tensor(dataset.labels[index]),
            groups={name: torch.tensor(members[index]) for name, members in groups.items()},
        )

    return Splits(
        dataset=dataset,
        train_index=train,
        public=rows(public),
        train=rows(train),
        validation=rows(held_out["validation"]),
        test=rows(held_out["test"]),
        probe={name: rows(index) for name, index in probes[0].items()},
        probe_test={name: rows(index) for name, index in probes[1].items()},
        index={"public": public, "train": train, **held_out},
    )
