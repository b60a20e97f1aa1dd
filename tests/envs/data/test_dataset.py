"""What a data set takes and what it refuses, and the data sources of one's own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from proxycoop.envs import Engine, scenario
from proxycoop.envs.data import DATA, Dataset, load

X = np.random.default_rng(0).normal(size=(300, 3))
Y = np.arange(300) % 2
GOOD = Dataset(X, Y, ("no", "yes"), ("a", "b", "c"), {"town": np.array(["n", "s"] * 150)})


@pytest.mark.parametrize(
    "fields",
    [
        {"features": X.tolist(), "labels": Y.tolist()},
        {"features": torch.tensor(X), "labels": torch.tensor(Y)},
        {"features": X.astype(">f8"), "labels": Y.astype(">i4")},
        {"labels": Y.astype(bool)},
        {"labels": Y.astype(np.uint8)},
        {"labels": Y.astype(float)},
        {"class_names": ["no", "yes"], "feature_names": ["a", "b", "c"]},
        {"attributes": {"town": ["n", "s"] * 150}},
    ],
)
def test_numbers_of_any_kind_become_the_same_table(fields):
    table = replace(GOOD, **fields)
    assert table.features.dtype == np.float64
    assert table.labels.dtype == np.int64
    for name in ("features", "labels"):
        assert np.array_equal(getattr(table, name), getattr(GOOD, name))
    assert (table.class_names, table.feature_names) == (GOOD.class_names, GOOD.feature_names)
    assert table.levels("town") == GOOD.levels("town")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"features": X[:, 0]}, r"features is an array of float64 of shape \(300,\)"),
        ({"features": X.astype(str)}, "features is an array of <U32"),
        ({"features": X + 0j}, "features is an array of complex128"),
        ({"features": np.ma.masked_less(X, 0)}, "features have masked entries"),
        ({"features": X[:0], "labels": Y[:0], "attributes": {}}, "features have no rows"),
        ({"labels": Y[:200]}, "200 labels for 300 rows"),
        ({"labels": Y + 1}, "labels hold 2.0: they must be whole numbers from 0 to 1"),
        ({"labels": Y + 0.5}, "labels hold 0.5"),
        ({"labels": np.where(Y, "yes", "no")}, "labels is an array of <U3"),
        ({"class_names": "ab"}, "class_names='ab': give a list"),
        ({"class_names": ("no", "no")}, "class_names hold 'no' twice"),
        ({"feature_names": ("a", "b")}, "2 feature_names for 3 columns"),
        ({"feature_names": (0, 1, 2)}, "feature_names hold 0"),
        ({"attributes": {"town": np.array(["n"])}}, r"attribute 'town' has shape \(1,\)"),
        ({"attributes": None}, "attributes=None: must be a dictionary"),
    ],
)
def test_a_table_that_does_not_fit_together_is_refused(fields, said):
    with pytest.raises(ValueError, match=said):
        replace(GOOD, **fields)


def test_a_number_that_is_the_name_of_another_class_is_refused():
    grades = Dataset(X, Y, ("1", "2"), ("a", "b", "c"))
    assert grades.class_index("1") == 0
    assert grades.class_index(0) == 0
    with pytest.raises(ValueError, match="class 1 may mean '2', whose number it is, or '1', whose name it is"):
        grades.class_index(1)
    assert Dataset(X, Y, ("0", "1"), ("a", "b", "c")).class_index(1) == 1


def _no_file():
    raise FileNotFoundError(2, "No such file", "visits.csv")


@pytest.mark.parametrize(
    ("source", "said"),
    [(lambda: (X, Y), "returned tuple: it must return a Dataset"), (lambda: None, "returned NoneType"), (_no_file, "failed: FileNotFound")],
)
def test_a_source_that_fails_is_named(monkeypatch, source, said):
    monkeypatch.setitem(DATA._factories, "test_dataset_source", source)
    with pytest.raises(ValueError, match=f"data source 'test_dataset_source' {said}"):
        load("test_dataset_source")


def test_a_gap_is_named_by_column_and_row_unless_its_column_is_left_out(monkeypatch):
    gap = X.copy()
    gap[7, 1] = np.nan
    monkeypatch.setitem(DATA._factories, "test_dataset_gap", lambda: replace(GOOD, features=gap))
    settings = {
        "name": "gap",
        "description": "A table with a gap.",
        "data": {"source": "test_dataset_gap", "public_rows": 20, "validation": {"rows": 40}, "test": {"rows": 40}},
        "lots": {"corruption": {"pairs": [["no", "yes"]]}},
        "reward": {"scale": 1.0},
        "values": {},
        "profiles": [],
    }
    with pytest.raises(ValueError, match="column 'b' of source 'test_dataset_gap' holds nan in row 7"):
        Engine(scenario.Scenario.model_validate(settings), "loo")
    settings["data"]["columns"] = ["a", "c"]
    assert Engine(scenario.Scenario.model_validate(settings), "loo").splits.n_features == 2
