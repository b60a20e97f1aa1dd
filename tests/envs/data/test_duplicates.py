"""Rows alike: how many the splits share, what of the shipped data that concerns, and that they can be dropped."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from proxycoop.envs import Engine, scenario
from proxycoop.envs.data import Data, Dataset, HeldOut, Splits, split
from proxycoop.envs.data.duplicates import shared_rows, splits_of
from proxycoop.envs.shared import shared


def coarse(n_rows: int = 400) -> Dataset:
    """A table of two columns with five levels each, and a third in which all rows differ."""
    random = np.random.default_rng(3)
    features = np.column_stack([random.integers(0, 5, (n_rows, 2)), np.arange(n_rows)]).astype(float)
    return Dataset(features, random.integers(0, 2, n_rows), ("no", "yes"), ("a", "b", "number"))


@pytest.fixture
def people(monkeypatch: pytest.MonkeyPatch) -> Data:
    monkeypatch.setattr("proxycoop.envs.data.sources.load", lambda source, file=None: coarse())
    return Data(source="coarse", columns=("a", "b"), public_rows=2, validation=HeldOut(rows=4), test=HeldOut(rows=6), probe_rows=2)


def by_hand(splits: Splits, one: str, other: str) -> int:
    parts = splits_of(splits)
    known = {tuple(row) for row in parts[other].x.tolist()}
    return sum(tuple(row) in known for row in parts[one].x.tolist())


def test_rows_alike_are_counted_in_both_directions(people: Data) -> None:
    strata = {"some": lambda data, _: [data.labels == 0, data.labels == 1], "others": lambda data, _: [data.labels >= 0]}
    splits = split(people, strata, torch.float64)
    counts = shared_rows(splits)
    assert counts == {(one, other): by_hand(splits, one, other) for one, other in counts}
    assert len(counts) == 6 * 5
    assert counts["test", "train"] == 6
    assert counts["train", "test"] > 6
    assert len(splits_of(splits)["probe"]) == 6


def test_without_values_there_are_no_probe_sets_to_share(people: Data) -> None:
    counts = shared_rows(split(people, {}, torch.float64))
    assert counts["probe", "test"] == counts["test", "probe"] == counts["probe", "probe_test"] == 0


def test_duplicates_are_judged_by_the_columns_that_the_model_sees(people: Data) -> None:
    with_number = split(people.model_copy(update={"columns": None}), {}, torch.float64)
    assert sum(shared_rows(with_number).values()) == 0


def test_dropped_duplicates_leave_one_row_of_each_kind_and_no_splits_that_share(people: Data) -> None:
    splits = split(people.model_copy(update={"duplicates": "drop"}), {}, torch.float64)
    assert sum(shared_rows(splits).values()) == 0
    rows = torch.cat([part.x for part in splits_of(splits).values()])
    assert len(rows) == len(torch.unique(rows, dim=0)) == 25
    first = {tuple(row[:2]): i for i, row in reversed(list(enumerate(coarse().features.tolist())))}
    assert set(splits.train_index.tolist()) <= set(first.values())


def test_where_all_rows_differ_dropping_duplicates_changes_nothing() -> None:
    kept, dropped = (shared(scenario.load("digits", **{"data.duplicates": what}), torch.float32)[0] for what in ("keep", "drop"))
    for a, b in zip(splits_of(kept).values(), splits_of(dropped).values(), strict=True):
        assert torch.equal(a.x, b.x)


def test_too_few_rows_that_differ_are_refused(people: Data) -> None:
    with pytest.raises(ValueError, match=r"the test set wants 11 rows but only 3 that differ are left: lower .*, or use duplicates: keep"):
        split(people.model_copy(update={"duplicates": "drop", "test": HeldOut(rows=24)}), {}, torch.float64)


@pytest.mark.parametrize("name", ["digits", "breast_cancer", "breast_cancer-hospitals", "breast_cancer-vertical"])
def test_bundled_data_has_no_rows_alike_in_two_splits(name: str) -> None:
    assert sum(shared_rows(shared(scenario.load(name), torch.float64)[0]).values()) == 0


@pytest.mark.fairness
def test_most_test_rows_of_compas_are_in_other_splits_too() -> None:
    counts = shared_rows(shared(scenario.load("compas"), torch.float64)[0])
    assert (counts["test", "validation"], counts["test", "train"], counts["test", "probe"]) == (859, 1232, 999)  # of 1,500
    assert sum(shared_rows(shared(scenario.load("german"), torch.float64)[0]).values()) == 0


def test_lots_of_breast_cancer_share_rows_because_more_are_dealt_than_there_are() -> None:
    engine = Engine(scenario.load("breast_cancer", **{"reward.scale": 1.0, "lots.site_shift": 0.0}), None)
    engine.reset([0])
    dealt = engine.lots.x[0][engine.lots.present].double()
    assert len(dealt) == 6 * 4 * 12 == 288
    assert len(engine.splits.train) == 213
    assert len(torch.unique(dealt, dim=0)) < 213


def test_the_table_of_the_documentation_is_that_of_the_benchmark(benchmark_script) -> None:
    row = benchmark_script("values/shared_rows").row
    assert row(scenario.load("breast_cancer"))[1:] == ["288 of 213", "140", "0", "0", "0", "0"]
    assert row(scenario.load("breast_cancer-vertical"))[1] == "60 of 139"
