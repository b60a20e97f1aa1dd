"""What is proposed has the properties that it claims, is proposed again, and does not depend on what it replaces."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from proxycoop import agents
from proxycoop.envs import Engine, scenario
from proxycoop.envs.scenario import Start
from proxycoop.training.analysis import calibrate as module
from proxycoop.training.analysis import diagnosis
from proxycoop.training.analysis.calibrate import calibrate
from proxycoop.training.analysis.diagnosis import diagnose, look

SMALL = {"principals": 4, "horizon": 3}
QUICK = {"rule": "equal", "episodes": 2}


def small_net(n_features, n_classes, width=12):
    """A module of one's own, with a frozen bias in its first layer."""
    net = nn.Sequential(nn.Linear(n_features, width), nn.Tanh(), nn.Linear(width, n_classes))
    net[0].bias.requires_grad_(False)
    return net


@pytest.fixture(autouse=True, scope="module")
def _short():
    """Fewer splits, and no long measurement of the speed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_CPU_SECONDS", 0.0)
        patch.setattr(diagnosis, "SPLITS", 2)
        yield


@pytest.fixture(scope="module")
def made(_short):
    return calibrate(scenario.load("digits-mean", **SMALL), **QUICK)


def test_a_scenario_known_to_be_bad_is_mended(made):
    wrong = {"start.steps": 0, "substrate.local_lr": 40.0, "profiles.0.tolerances.eights": 900.0, "profiles.1.limits.nines": 900.0}
    bad = calibrate(scenario.load("digits-mean", **SMALL, **wrong), **QUICK)
    assert [one.settings[0] for one in bad.before] == ["start.steps", "profiles.0.tolerances.eights", "profiles.1.limits.nines"]
    assert bad.after == ()
    assert bad.proposed == made.proposed  # whatever it replaces
    assert bad.start == pytest.approx(math.log(10))


def test_the_same_is_proposed_again(made):
    again = calibrate(made.proposed, **QUICK)
    assert again.proposed == made.proposed
    assert again.changes() == made.changes()
    assert replace(again, scenario=made.scenario, before=made.before, start=made.start, speed=made.speed) == made
    assert again.before == again.after == ()
    assert again.start == again.proposed_start == made.proposed_start


def test_the_start_leaves_half_of_what_the_public_rows_teach(made):
    start = made.proposed.start
    played = []
    for steps in (start.steps - 1, start.steps):
        one = made.proposed.model_copy(update={"start": Start(steps=steps, lr=start.lr)})
        split = one.data.model_copy(update={"splits": diagnosis.SPLITS})
        engine = Engine(one.unscreened(1.0).model_copy(update={"data": split}), None)
        losses = []
        for episode in range(diagnosis.SPLITS):
            engine.reset([0], episode=episode)
            losses.append(-float(engine.initial_utility[0]))
        played.append(sum(losses) / diagnosis.SPLITS)
    half = (made.guessing + made.best_start) / 2
    assert played[1] <= half < played[0]
    assert made.proposed_start == pytest.approx(played[1], abs=1e-5)
    assert start.steps >= 5


def test_the_rate_gains_two_thirds_of_the_best(made):
    best = max(made.gains.values())
    assert made.searched == "substrate.local_lr"
    assert made.proposed_gain == pytest.approx(2 / 3 * best, rel=0.1)


def test_gains_are_interpolated_over_the_logarithm_of_the_rate_on_their_way_up():
    one = scenario.load("digits")
    assert module._part_of_the_best(one, "x", {0.1: 1.0, 1.0: 3.0, 10.0: 4.0, 100.0: 2.0}, 0.5) == pytest.approx(10**-0.5, rel=0.02)
    assert module._part_of_the_best(one, "x", {0.1: 3.0, 1.0: 4.0}, 0.5) == 0.1
    assert module._part_of_the_best(one, "x", {0.1: -math.inf, 1.0: 4.0}, 0.5) == pytest.approx(0.1 * 10**0.75, rel=0.02)
    with pytest.raises(ValueError, match=r"gains nothing at any x from 0\.1 to 1"):
        module._part_of_the_best(one, "x", {0.1: -1.0, 1.0: -math.inf}, 0.5)


def test_each_tolerance_and_limit_would_block_the_share(made):
    seen = look(made.proposed, episodes=2, splits=diagnosis.SPLITS)
    for profile, value in zip(made.proposed.profiles, (0, 1), strict=True):
        for bound in ("tolerances", "limits"):
            (most,) = getattr(profile, bound).values()
            needed = seen.needed(bound, value)
            blocked = float((needed > most).double().mean())
            assert blocked == pytest.approx(0.1, abs=0.02) or (bound == "limits" and most == next(iter(profile.tolerances.values())))
    for level in made.levels:
        assert list(level.tolerances) == sorted(level.tolerances, reverse=True)


def test_more_is_blocked_where_more_is_asked(made):
    stricter = calibrate(made.scenario, blocked=0.4, **QUICK)
    for one, other in zip(stricter.proposed.profiles, made.proposed.profiles, strict=True):
        assert next(iter(one.tolerances.values())) < next(iter(other.tolerances.values()))
    assert stricter.proposed.start == made.proposed.start


def test_bounds_keep_their_kind_and_everything_else_stays():
    profiles = [
        {"holders": 1, "relative_tolerances": {"eights": 0.1}, "relative_limits": {"eights": 0.1}, "max_norm": 3.0, "stake": 2.0},
        {"holders": 2, "tolerances": {"nines": 0.1}, "direction": {"eights": 1.0}},
    ]
    one = scenario.load("digits", **SMALL, profiles=profiles, **{"screening.governance": "own"})
    made = calibrate(one, **QUICK)
    first, second = made.proposed.profiles
    assert (list(first.relative_tolerances), list(first.relative_limits), first.tolerances) == (["eights"], ["eights"], {})
    assert first.relative_limits["eights"] >= first.relative_tolerances["eights"] != 0.1
    assert (first.max_norm, first.stake, second.direction, second.holders) == (3.0, 2.0, {"eights": 1.0}, 2)
    changed = {"start", "substrate", "profiles"}
    assert made.proposed.model_dump(exclude=changed) == one.model_dump(exclude=changed)


def test_a_scenario_with_values_and_no_profiles_gets_a_profile_for_each():
    made = calibrate(scenario.load("digits", **SMALL, profiles=[]), **QUICK)
    assert [(profile.holders, list(profile.tolerances)) for profile in made.proposed.profiles] == [(1, ["eights"]), (1, ["nines"])]
    alone = calibrate(scenario.load("digits", horizon=2, principals=1, profiles=[]), **QUICK)
    assert [(profile.holders, list(profile.tolerances)) for profile in alone.proposed.profiles] == [(1, ["eights", "nines"])]
    nothing = calibrate(scenario.load("digits", **SMALL, profiles=[], values={}), **QUICK)
    assert (nothing.levels, nothing.proposed.profiles) == ((), ())
    assert "profiles" not in nothing.changes()


@pytest.mark.parametrize(
    ("name", "settings", "searched"),
    [
        ("digits", {"server": {"kind": "adam"}}, "server.lr"),
        ("digits", {"substrate": {"kind": "traversal"}}, "substrate.lr"),
        ("breast_cancer-vertical", {}, "substrate.lr"),
        ("digits", {"utility": "accuracy"}, "substrate.local_lr"),
        ("breast_cancer", {"model": {"kind": "module", "factory": "nets_of_this_test:small_net"}}, "substrate.local_lr"),
        ("breast_cancer", {"data.splits": 3, "settlement": {}}, "substrate.local_lr"),
    ],
)
def test_every_kind_of_scenario_is_calibrated(name, settings, searched, monkeypatch):
    monkeypatch.setitem(sys.modules, "nets_of_this_test", SimpleNamespace(small_net=small_net))
    one = scenario.load(name, horizon=3, **settings)
    made = calibrate(one, **QUICK)
    assert made.searched == searched
    assert made.after == ()
    assert made.proposed_start < made.guessing
    assert made.n_splits == max(2, one.data.splits)
    part, _, setting = searched.partition(".")
    assert made.changes()[part] == {setting: getattr(getattr(made.proposed, part), setting)}


def test_a_start_without_public_rows_has_no_steps():
    made = calibrate(scenario.load("digits", **SMALL, **{"data.public_rows": 0, "start.steps": 0}), **QUICK)
    assert made.proposed.start.steps == 0
    assert [one.about for one in made.after] == ["start"]


def test_rates_of_another_model_are_the_scenario_s_own_once_they_are_measured():
    one = scenario.load("digits-mean", **SMALL, **{"model.kind": "mlp"})
    made = calibrate(one, **QUICK)
    assert "learning_rate" in [found.about for found in made.before]
    assert made.after == ()
    assert made.proposed.rates_of_another_model == ()


def test_speed_is_agent_steps_over_cpu_seconds(monkeypatch):
    clock = iter([0.0, 1.0, 2.0, 3.0, 3.0])
    monkeypatch.setattr(module.time, "process_time", lambda: next(clock))
    monkeypatch.setattr(module, "_CPU_SECONDS", 2.5)
    assert module._speed(scenario.load("digits", **SMALL), "equal") == 3 * 16 * 4 / 3.0


def test_progress_is_told_part_by_part():
    told: list[tuple[int, int, str]] = []
    calibrate(scenario.load("digits", **SMALL), **QUICK, progress=lambda *part: told.append(part))
    assert [done for done, _, _ in told] == sorted({done for done, _, _ in told})
    assert told[-1][0] == told[-1][1]
    assert told[1][2] == "starts"


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"blocked": 0}, "blocked=0: must be a share of the updates, above 0 and below 1"),
        ({"blocked": "much"}, "blocked='much': must be a finite number"),
        ({"episodes": 0}, "episodes=0: must be a whole number, at least 1"),
        ({"seed": -1}, "seed=-1"),
        ({"rule": "shaply"}, "did you mean 'shapley'"),
        ({"rule": "verfedsv"}, "cannot serve scenario 'digits'"),
    ],
)
def test_wrong_arguments_are_refused(how, message):
    with pytest.raises(ValueError, match=message):
        calibrate("digits", **how)


def test_a_scenario_in_which_clean_lots_gain_nothing_is_refused():
    none_clean = {"lots.corruption": {"share": 1.0, "rate": 1.0}}
    with pytest.raises(ValueError, match=r"gains nothing at any substrate\.local_lr"):
        calibrate(scenario.load("digits", **SMALL, **none_clean), **QUICK)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "model"), [("digits-mean", {"kind": "softmax"}), ("digits-mean", {"kind": "mlp", "hidden": [32]})])
def test_proposals_are_dilemmas(name, model):
    """Honest play is worth more than contributing everything, and less than knowing what is clean; the screening blocks some, not all."""
    made = calibrate(scenario.load(name, model=model), rule="loo")
    assert made.after == ()
    assert calibrate(made.proposed, rule="loo").changes() == made.changes()
    engine = Engine(made.proposed, "loo", num_envs=32)
    welfare, admitted = {}, {}
    for agent in ("all", "honest", "oracle"):
        played = agents.play(engine, agents.make(agent), seeds=range(32))
        welfare[agent], admitted[agent] = (float(played[what].mean()) for what in ("welfare", "admitted_share"))
    assert welfare["all"] < 0 < welfare["honest"] < welfare["oracle"]
    assert 0.3 < admitted["all"] < 0.9


@pytest.mark.slow
@pytest.mark.parametrize("name", scenario.names())
def test_every_shipped_scenario_is_calibrated(name):
    made = calibrate(name, rule="equal", episodes=4)
    assert made.after == ()
    assert diagnose(made.proposed) == []
    assert torch.tensor(list(made.gains.values())).max() > 0
