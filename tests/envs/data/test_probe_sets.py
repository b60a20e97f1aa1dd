"""Probe sets of several classes hold these in their proportions, whatever was dealt before."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from proxycoop.envs import scenario
from proxycoop.envs.data import DATA, Dataset
from proxycoop.envs.shared import shared

ROWS, SHARE = 6000, 0.25


@pytest.fixture
def quarter(monkeypatch):
    """A table of which a quarter is of class yes, in either of two groups."""
    random = np.random.default_rng(0)
    labels = (random.random(ROWS) < SHARE).astype(np.int64)
    people = np.where(random.random(ROWS) < 0.5, "a", "b")
    table = Dataset(random.normal(size=(ROWS, 2)), labels, ("no", "yes"), ("x", "y"), {"people": people})
    monkeypatch.setitem(DATA._factories, "quarter", lambda: table)


def shares(**changes):
    plain = {
        "principals": 2,
        "data": {
            "source": "quarter",
            "probe_rows": 200,
            "validation": {"rows": 100},
            "test": {"rows": 100},
            "groups": {"a": {"attribute": "people", "equals": "a"}},
            **changes,
        },
        "values": {"missed": {"kind": "miss_rate", "label": "yes"}, "a": {"kind": "group_loss", "group": "a"}},
    }
    splits, _, _ = shared(scenario.Scenario.model_validate(plain), torch.float32)
    return {
        "probe": float(splits.probe["a"].y.double().mean()),
        "probe test": float(splits.probe_test["a"].y.double().mean()),
        "train": float(splits.train.y.double().mean()),
    }


def test_a_group_drawn_after_a_class_has_that_class_too(quarter):
    for name, share in shares(train_rows=500).items():
        assert share == pytest.approx(SHARE, abs=4 * (SHARE * (1 - SHARE) / 200) ** 0.5), name
