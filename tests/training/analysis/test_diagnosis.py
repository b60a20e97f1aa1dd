"""What makes no sense about a scenario is found, with the right numbers, and nothing else."""

from __future__ import annotations

import math

import pytest
import torch

from proxycoop.envs import Engine, scenario
from proxycoop.training.analysis import diagnosis
from proxycoop.training.analysis.diagnosis import Looks, Standing, diagnose, level, look, utility_of_guessing

SMALL = {"horizon": 3, "principals": 4}


def of(harm: list[float], losses: list[float], first: list[float]) -> Looks:
    """Looks at one value, in as many rounds as there are losses, of one agent with one lot; it holds the first profile."""
    rounds = len(harm)
    return Looks(
        gain=torch.ones(1),
        harm=torch.tensor(harm).reshape(rounds, 1, 1, 1, 1),
        losses=torch.tensor(losses).reshape(rounds, 1, 1),
        first_losses=torch.tensor(first).reshape(rounds, 1, 1),
        there=torch.ones(rounds, 1, 1, 1, dtype=torch.bool),
        kind=torch.zeros(rounds, 1, 1, dtype=torch.int64),
    )


def test_guessing_has_the_entropy_of_the_labels_and_the_share_of_the_largest_class():
    y = torch.tensor([2, 2, 2, 0])
    assert utility_of_guessing(y, 3, "neg_log_loss") == pytest.approx(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert utility_of_guessing(y, 3, "accuracy") == 0.75


def test_what_an_update_needs_by_hand():
    seen = of([0.3, -0.1, 0.2], losses=[1.0, 2.0, 0.5], first=[1.0, 1.0, 1.0])
    for bound, expected in (
        ("tolerances", [0.3, 0.0, 0.2]),
        ("relative_tolerances", [0.3, 0.0, 0.4]),
        ("limits", [0.3, 0.0, 0.0]),  # the third falls less far below the start than it has fallen
        ("relative_limits", [0.3, 0.0, 0.0]),
    ):
        assert seen.needed(bound, 0).tolist() == pytest.approx(expected), bound
    assert len(seen.needed("tolerances", 0, holders=1)) == 0
    assert of([0.2], [1.5], [1.0]).needed("limits", 0).tolist() == pytest.approx([0.7])
    assert level(torch.arange(11.0), 0.1) == pytest.approx(9.0)


def test_what_an_update_needs_is_what_the_screening_asks():
    made = scenario.load(
        "digits",
        **SMALL,
        profiles=[
            {"holders": 1, "tolerances": {"eights": 0.2}},
            {"holders": 1, "relative_tolerances": {"nines": 0.1}},
            {"holders": 1, "limits": {"eights": 0.3}},
            {"holders": 1, "relative_limits": {"nines": 0.2}},
        ],
    )
    seen = look(made, episodes=4)
    engine = Engine(made.unscreened(1.0), None, num_envs=4)
    engine.reset(range(4))
    blocked = torch.zeros(4)
    while engine.t < engine.horizon:
        by = engine.prospect.blocked_by.sum(dim=2)  # (E, N, N)
        for kind in range(4):
            blocked[kind] += by.sum(dim=1)[engine.profiles.kind == kind].sum()
        engine.step(~engine.lots.corrupt)
    bounds = [("tolerances", 0, 0.2), ("relative_tolerances", 1, 0.1), ("limits", 0, 0.3), ("relative_limits", 1, 0.2)]
    assert [int((seen.needed(bound, value) > most).sum()) for bound, value, most in bounds] == blocked.int().tolist()
    assert all(0 < n < 4 * 3 * 16 for n in blocked.int().tolist())


def test_a_start_without_training_is_worse_than_guessing():
    made = scenario.load("digits", **SMALL, **{"start.steps": 0})
    (found,) = diagnose(made)
    labels = Engine(made.unscreened(1.0), None).splits.validation.y
    entropy = -utility_of_guessing(labels, 10, "neg_log_loss")
    assert (found.about, found.settings) == ("start", ("start.steps", "start.lr"))
    assert str(found) == (
        "scenario 'digits': the start (start.steps=0, start.lr=0.5) is worse than guessing: its log loss on the validation rows is "
        f"{math.log(10):.3f} nats, and that of the classes' frequencies {entropy:.3f}"
    )


def test_the_start_is_that_of_the_engine_on_four_splits_or_the_scenario_s_own():
    for settings, n_splits in (({}, 4), ({"data.splits": 2}, 2), ({"utility": "accuracy"}, 4)):
        made = scenario.load("breast_cancer", **SMALL, **settings, profiles=[])
        engine = Engine(made.model_copy(update={"data": made.data.model_copy(update={"splits": n_splits})}).unscreened(1.0), None)
        start, guessing = [], []
        for episode in range(n_splits):
            engine.reset([0], episode=episode)
            start.append(float(engine.initial_utility[0]))
            guessing.append(utility_of_guessing(engine.splits.validation.y, 2, made.utility))
        found = Standing.of(made)
        assert found.start == pytest.approx(sum(start) / n_splits, abs=1e-6)
        assert found.guessing == pytest.approx(sum(guessing) / n_splits)


def test_accuracy_is_compared_with_naming_the_largest_class(monkeypatch):
    made = scenario.load("breast_cancer", **SMALL, utility="accuracy", profiles=[], **{"start.steps": 0})
    assert diagnose(made) == []  # it names the first class, benign, which is the largest: equal up to rounding
    monkeypatch.setattr(diagnosis.Standing, "of", lambda _: Standing(0.05, 0.74))
    (found,) = diagnose(made)
    assert str(found).endswith("its accuracy on the validation rows is 0.050, and that of naming the largest class 0.740")


def test_tolerances_that_never_bind_and_always_bind_are_told_apart():
    """Any first step away from the start raises the drift from it, where it is measured."""
    made = scenario.load(
        "digits",
        principals=4,
        horizon=1,
        **{"screening.harm": "measured", "values.drift": {"kind": "drift"}},
        profiles=[
            {"holders": 1, "tolerances": {"eights": 9.0, "drift": 0.0}},
            {"holders": 1, "relative_tolerances": {"nines": 8.0}, "limits": {"eights": 9.5}, "relative_limits": {}},
            {"holders": 1, "tolerances": {"eights": 0.1}},
        ],
    )
    found = diagnose(made)
    assert [(one.about, one.settings[0]) for one in found] == [
        ("tolerance", "profiles.0.tolerances.eights"),
        ("tolerance", "profiles.0.tolerances.drift"),
        ("tolerance", "profiles.1.relative_tolerances.nines"),
        ("limit", "profiles.1.limits.eights"),
    ]
    needed = look(made).needed("tolerances", 0)
    assert str(found[0]) == (
        "scenario 'digits': profiles.0.tolerances.eights=9 never binds: it blocks none of 512 updates in the reference episodes; "
        f"{level(needed, 0.1):.2g} would block 10%"
    )
    assert "profiles.0.tolerances.drift=0 always binds: it blocks all of 512 updates" in str(found[1])


def test_without_screening_no_tolerance_is_in_question():
    loose = [{"holders": 1, "tolerances": {"eights": 9.0}}]
    assert diagnose(scenario.load("digits", **SMALL, **{"screening.governance": "none", "screening.guard": False}, profiles=loose)) == []
    assert len(diagnose(scenario.load("digits", **SMALL, **{"screening.governance": "own"}, profiles=loose))) == 1


def test_learning_rates_of_another_model_are_named_with_where_they_were_set():
    made = scenario.load("digits", **SMALL, model={"kind": "mlp", "hidden": [16]}, **{"start.steps": 40})
    (found,) = diagnose(made)
    assert found.about == "learning_rate"
    assert found.settings == ("start.lr", "substrate.local_lr")
    assert "the model is mlp, but learning rates were set for another: start.lr=0.5 for softmax (digits.yaml:" in str(found)
    assert "substrate.local_lr=0.375 for softmax (digits.yaml:" in str(found)


@pytest.mark.parametrize("name", ["digits", "breast_cancer", "breast_cancer-vertical"])
def test_shipped_scenarios_make_sense(name):
    assert diagnose(scenario.load(name)) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", scenario.names())
def test_all_shipped_scenarios_make_sense_but_for_one_start(name):
    assert [one.about for one in diagnose(scenario.load(name))] == ["start"] * (name == "german")
