"""Manipulation gains, against episodes that are played one by one."""

from __future__ import annotations

import json

import pytest
import torch

from proxycoop import agents
from proxycoop.envs import Engine, scenario
from proxycoop.training.evaluate import held_out_splits
from proxycoop.training.intervals import Estimate
from proxycoop.training.temptations.cheats import CHEATS, gain_of, gains, pays, played, tempting

SPLIT = held_out_splits(1)[0]
SENDS = {"doubler": "doubler(kind='twin')"}


@pytest.fixture(scope="module")
def tempted(small):
    return tempting(small, "loo")


def returns(of, rule, seed, seats):
    """Returns of one episode with some agents in some seats, and honest others."""
    engine = Engine(of.on_split(SPLIT), rule)
    play = agents.Seats(agents.make("honest"), {seat: agents.make(name) for seat, name in seats.items()})
    metrics = agents.play(engine, play, [seed])
    return metrics["return"][0].double(), float(metrics["welfare"][0]), engine


@pytest.mark.parametrize("name", ["free_rider", "doubler", "over_claimer", "sandbagger"])
def test_gain_is_the_mean_over_seats_of_the_cheat_s_return_less_its_honest_self_s(tempted, name):
    found = gain_of(CHEATS[name], tempted, "loo", episodes=2, splits=1, seed=5)
    expected, welfare = [], []
    for seed in (5, 6):
        honest, all_honest, _ = returns(tempted, "loo", seed, {})
        for seat in range(3):
            cheated, all_cheated, _ = returns(tempted, "loo", seed, {seat: SENDS.get(name, name)})
            expected.append(float(cheated[seat] - honest[seat]))
            welfare.append(all_cheated - all_honest)
    assert found.gain.mean == pytest.approx(sum(expected) / 6, abs=1e-3)
    assert found.welfare.mean == pytest.approx(sum(welfare) / 6, abs=1e-3)


def test_who_declares_values_is_measured_where_there_are_values_to_declare(tempted):
    found = gain_of(CHEATS["hypocrite"], tempted, "loo", episodes=2, splits=1, seed=5)
    expected = []
    for seed in (5, 6):
        honest, _, engine = returns(tempted, "loo", seed, {})
        (seat,) = engine.profiles.tolerates[0].nonzero().flatten().tolist()
        expected.append(float(returns(tempted, "loo", seed, {seat: "hypocrite"})[0][seat] - honest[seat]))
    assert found.gain.mean == pytest.approx(sum(expected) / 2, abs=1e-3)


def test_gain_of_a_second_name_under_equal_split_is_the_closed_form(small):
    """Names change no step, so that a principal gets 2/(n + 1) of each gain in place of 1/n."""
    shared = small.model_copy(update={"reward": small.reward.model_copy(update={"public_share": 0.3, "loyalty": 0.5})})
    found = gain_of(CHEATS["two_names"], tempting(shared, "equal"), "equal", episodes=2, splits=1, seed=5)
    expected = 0.0
    for seed in (5, 6):
        _, _, engine = returns(small, "equal", seed, {})
        gained = engine.reward_scale * sum(float(result.gain[0]) for result in engine.history)
        expected += gained * (2 / 4 - 1 / 3) / 2
    assert found.gain.mean == pytest.approx(expected, abs=2e-3)
    assert found.principal.mean == pytest.approx(expected, abs=2e-3)
    assert found.welfare.mean == pytest.approx(0.0, abs=1e-3)


@pytest.mark.parametrize("rule", ["loo", "shapley", "equal"])
def test_a_rule_that_treats_seats_alike_pays_no_seat_better(tempted, rule):
    found = gain_of(CHEATS["best_seat"], tempted, rule, episodes=2, splits=2)
    assert found.gain.mean == pytest.approx(0.0, abs=1e-4)
    assert not found.pays


def test_a_rule_that_pays_the_first_seat_twice_is_found_out(tempted):
    found = gain_of(CHEATS["best_seat"], tempted, "twice_for_the_first", episodes=2, splits=1, seed=5)
    expected = []
    for seed in (5, 6):
        _, _, engine = returns(tempted, "loo", seed, {})
        credit = engine.reward_scale * torch.stack([result.credit[0] for result in engine.history]).sum(dim=0)
        expected.append(float((credit * (2 / 3)).mean()))  # the first seat's advantage over the mean seat is c − c/3
    assert found.gain.mean == pytest.approx(sum(expected) / 2, abs=1e-3)


@pytest.mark.parametrize("rule", ["loo", "equal", "data_size"])
def test_seats_that_differ_by_chance_alone_pay_nothing(small, rule):
    drawing = lambda: agents.make("random")  # noqa: E731
    found = gain_of(CHEATS["best_seat"], tempting(small, rule), rule, episodes=8, splits=6, others=drawing)
    assert not found.pays


def test_a_cabal_cheats_together(tempted):
    found = gain_of(CHEATS["cabal"], tempted, "loo", episodes=1, splits=1, seed=5)
    honest, cheated = (returns(tempted, "loo", 5, seats)[0] for seats in ({}, {0: "colluder", 1: "colluder"}))
    assert found.gain.mean == pytest.approx(float((cheated - honest)[:2].mean()), abs=1e-3)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_wrong_labels_are_added_to_a_cooperative_that_stays_the_same(small, share):
    named = {"lots.corruption.principals": [2], "lots.corruption.share": share, "reward.scale": "auto"}
    made = scenario.load("breast_cancer", principals=3, horizon=6, profiles=[], **named)
    found = gain_of(CHEATS["label_flipper"], tempting(made, "loo"), "loo", episodes=2, splits=1, seed=5)
    engine = Engine(made.on_split(SPLIT), "loo")
    corruption = made.lots.corruption.model_copy(update={"principals": (0, 2)})
    lots, reward = made.lots.model_copy(update={"corruption": corruption}), made.reward.model_copy(update={"scale": engine.reward_scale})
    wrong = made.model_copy(update={"lots": lots, "reward": reward})
    expected = []
    for seed in (5, 6):
        honest, cheated = returns(made, "loo", seed, {}), returns(wrong, "loo", seed, {0: "label_flipper"})
        assert torch.equal(honest[2].lots.corrupt[:, 1:], cheated[2].lots.corrupt[:, 1:])
        expected.append(float(cheated[0][0] - honest[0][0]))
    assert found.gain.mean == pytest.approx(sum(expected) / 2, abs=1e-3)


@pytest.mark.parametrize("server", [{"kind": "sgd"}, {"kind": "sgd", "momentum": 0.5}])
def test_return_of_a_principal_with_several_names_is_the_total_of_its_names(small, server):
    named = small.model_copy(update={"reward": small.reward.model_copy(update={"public_share": 0.3, "loyalty": 0.5})})
    several = scenario.Scenario.model_validate(
        {**named.to_dict(), "server": server, "conduct": {"identities": [{"principal": 0, "split": 2}]}}
    )
    engine = Engine(several, "loo", 2)
    found = played(engine, agents.make("honest"), [5, 6])
    metrics = agents.play(engine, agents.make("honest"), [5, 6])
    gained = sum(result.gain for result in engine.history)  # what momentum alone brings is nobody's
    once = engine.reward_scale * 0.3 * gained - 0.5 * metrics["own_harm"][:, 0]
    total = metrics["return"][:, 0] + metrics["return"][:, 3] - once
    torch.testing.assert_close(found["return"][:, 0], total.double(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found["return"][:, 3], found["return"][:, 0])
    torch.testing.assert_close(found["return"][:, 1], metrics["return"][:, 1].double())
    assert gain_of(CHEATS["doubler"], tempting(several, "loo"), "loo", episodes=1, splits=1).gain.mean is not None


def test_a_tempted_scenario_has_what_fits_it(small):
    forgeries, levers = ("echo", "noise", "twin", "near_twin", "boost", "flip", "stale", "blend"), ("claim", "strict", "lax", "block")
    assert tempting(small).conduct.names == forgeries + levers
    assert tempting(small, "peer_ranking").conduct.names[-1] == "vouch"
    assert tempting(small, kinds=("twin",)).conduct.names == ("twin",)
    plain = scenario.load("digits", profiles=[], **{"screening.governance": "none", "screening.guard": False})
    assert not {"strict", "lax", "block"} & set(tempting(plain).conduct.names)
    own = scenario.load("digits", conduct={"forgeries": [{"kind": "echo"}]})
    assert tempting(own) is own
    own = scenario.load("digits", conduct={"cabal": [2, 4]})
    assert tempting(own).conduct.cabal == (2, 4)
    with pytest.raises(ValueError, match="has substrate vertical: principals hold columns"):
        tempting(scenario.load("breast_cancer-vertical"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"participation": {"sample": 2}}, "has participation: a scenario in which proxies may cheat needs all agents"),
        ({"privacy": {"noise": "step"}}, "with a conduct of all that proxies may do: privacy.noise: noise=step does not go with"),
    ],
)
def test_a_scenario_that_cannot_be_tempted_is_refused_in_one_line(run, changes, message):
    with pytest.raises(ValueError, match=message) as refused:
        tempting(scenario.load("digits", weights="fixed", **changes))
    ((part, of_part),) = changes.items()
    ((name, value),) = of_part.items()
    assert run("redteam", "loo", "-s", "digits", "--set", "weights=fixed", "--set", f"{part}.{name}={value}") == (
        2,
        "",
        f"error: {refused.value}\n",
    )


def test_all_cheats_that_fit_are_measured(tempted):
    assert [one.cheat for one in gains(tempted, "equal", episodes=1, splits=1)] == list(CHEATS)
    with pytest.raises(ValueError, match=r"unknown cheat 'nope'.*known ones are free_rider"):
        list(gains(tempted, "loo", ["nope"]))
    with pytest.raises(ValueError, match="Planner sees what no proxy could"):
        gain_of(CHEATS["doubler"], tempted, "loo", others=lambda: agents.make("planner"))
    with pytest.raises(ValueError, match="needs echo among the scenario's conduct"):
        gain_of(CHEATS["free_rider"], tempting(tempted.model_copy(update={"conduct": None}), kinds=("twin",)), "loo")


@pytest.mark.parametrize(
    ("mean", "half", "expected"), [(1.0, 0.5, True), (1.0, 1.5, False), (0.005, 0.0, False), (None, None, False), (2.0, None, True)]
)
def test_a_gain_pays_if_it_is_beyond_its_interval_and_rounding(mean, half, expected):
    assert pays(Estimate(mean, half)) == expected


def test_gains_among_others_are_over_what_these_earn(tempted):
    found = gain_of(CHEATS["doubler"], tempted, "loo", episodes=1, splits=1, seed=5, others=lambda: agents.make("all"))
    expected = []
    for seat in range(3):
        engine = Engine(tempted.on_split(SPLIT), "loo")
        own = [
            agents.play(engine, agents.Seats(agents.make("all"), {seat: agents.make(name)}), [5])["return"][0, seat]
            for name in ("all", SENDS["doubler"])
        ]
        expected.append(float(own[1] - own[0]))
    assert found.gain.mean == pytest.approx(sum(expected) / 3, abs=1e-3)


def test_seats_of_a_population_cannot_cheat(tempted):
    members = scenario.load("digits", population=[{"agent": "none", "seats": [1]}]).population
    peopled = tempted.model_copy(update={"population": members})
    found = gain_of(CHEATS["free_rider"], peopled, "loo", episodes=1, splits=1, seed=5)
    honest = returns(tempted, "loo", 5, {1: "none"})[0]
    expected = [float(returns(tempted, "loo", 5, {1: "none", seat: "free_rider"})[0][seat] - honest[seat]) for seat in (0, 2)]
    assert found.gain.mean == pytest.approx(sum(expected) / 2, abs=1e-3)
    seated = lambda: agents.Seats(agents.make("honest"), {1: agents.make("none")})  # noqa: E731
    assert gain_of(CHEATS["free_rider"], tempted, "loo", episodes=1, splits=1, seed=5, others=seated).gain == found.gain
    assert "differently in different seats" in CHEATS["best_seat"].lacks(peopled)
    assert gain_of(CHEATS["cabal"], peopled, "loo", episodes=1, splits=1, seed=5).gain.mean is not None


def test_evaluate_measures_cheats_if_asked(run, tmp_path):
    words = ["evaluate", "--agent", "honest", "-s", "breast_cancer", "--set", "horizon=2", "--set", "conduct={forgeries: [{kind: twin}]}"]
    code, out, _ = run(*words, "--episodes", 2, "--evaluation-splits", 1, "--cheats", "--json", tmp_path / "a.json")
    assert code == 0
    assert "gain/doubler" in out
    assert "gain/free_rider" not in out
    assert json.loads((tmp_path / "a.json").read_text())["cheats"]["doubler"]["gain"]["mean"] is not None
