"""The dictionary of results.csv: every column is described, and nothing is described that does not occur."""

from __future__ import annotations

import csv
from functools import partial

import pytest

from proxycoop.agents import make
from proxycoop.envs import scenario
from proxycoop.training.compare import CELL_COLUMNS, columns_of
from proxycoop.training.evaluate import evaluate
from proxycoop.training.libraries.registry import LIBRARIES, settings_for
from proxycoop.training.measures import CELL, MEASURES, dictionary, meaning_of

DERIVED = {"planner_share", "test_cross_entropy", "best_reply_gap"}
"""Measures that summaries derive from those of an evaluation."""


@pytest.fixture(scope="module")
def measured(small):
    """The measures of cooperatives that have all of them together."""
    changes = {"principals": 4, "horizon": 2, "settlement.period": 2, "screening.governance": "negotiate"}
    paid = scenario.load("breast_cancer", **changes, conduct={"levers": [{"kind": "lax"}]})
    limited = scenario.load("breast_cancer", principals=3, horizon=2, profiles=[{"holders": 1, "limits": {"missed_cancer": 0.1}}])
    conduct = {"forgeries": [{"kind": "echo"}], "levers": [{"kind": "claim"}]}
    tempted = scenario.load("breast_cancer", principals=3, horizon=2, profiles=[], conduct=conduct)
    bids = {"levers": [{"kind": "bid"}]}
    auction = {"capacity": 4, "choose": "auction"}
    crowded = scenario.load("breast_cancer", principals=3, horizon=2, profiles=[], conduct=bids, admission=auction, privacy={})
    found = [evaluate(one, "equal", partial(make, "all"), episodes=2, home=[3]) for one in (small, paid, limited, tempted, crowded)]
    return {name for one in found for name in one.measures}


def test_every_measure_of_an_evaluation_is_described(measured):
    assert [name for name in sorted(measured) if meaning_of(name).unit == "unknown"] == []


def test_every_described_measure_occurs(measured):
    general = {f"{name.partition('/')[0]}/<value>" for name in measured if name.endswith(("missed_cancer", "false_alarm"))}
    general |= {f"{name.partition('/')[0]}/<item>" for name in measured if name.endswith(("/echo", "/claim", "/bid"))}
    assert MEASURES.keys() - DERIVED <= measured | general


def test_every_column_about_a_cell_is_described_and_no_other():
    assert {*CELL_COLUMNS, "evaluation_split"} == CELL.keys()  # the last is a column of results-splits.csv alone


@pytest.mark.parametrize(("library", "algo"), [(name, algo) for name, library in LIBRARIES.items() for algo in library.algorithms])
def test_every_setting_of_a_training_is_described_as_its_own_class_does(small, library, algo):
    settings = settings_for(library, algo, scenario=small, credit="equal")
    cell = {"agent": "learned", "episodes": 2, "evaluation_splits": [9], **settings.plain()}
    names, _, text = columns_of([{"cell": cell, "measures": {}}])
    rows = {row["column"]: row for row in csv.DictReader(text.splitlines())}
    assert {"gamma", "learning_rate", "library"} <= set(names) <= rows.keys()
    for name in names:
        assert rows[name]["meaning"].startswith(str(type(settings).model_fields[name].description))


def test_the_dictionary_has_a_row_for_each_column_in_its_order():
    rows = list(csv.DictReader(dictionary(["seed", "welfare", "test_value/a/b", "gamma", "odd"]).splitlines()))
    assert [row["column"] for row in rows] == ["seed", "welfare", "test_value/a/b", "gamma", "odd"]
    assert [row["unit"] for row in rows] == ["number", "reward units", "value's unit", "setting", "unknown"]
    assert meaning_of("gamma", "a library of another version").unit == "unknown"
