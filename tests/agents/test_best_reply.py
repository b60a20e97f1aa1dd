"""Best replies and equilibria of one round."""

from __future__ import annotations

import itertools
from copy import copy

import pytest
import torch

from proxycoop import agents, credit
from proxycoop.agents.equilibrium import STARTS, best_replies, best_reply, equilibria, start_of
from proxycoop.agents.seats import require_playable
from proxycoop.envs import Engine, scenario

STRICT = [{"holders": 1, "tolerances": {"missed_cancer": 0.05}}]
SMALL = {"principals": 3, "horizon": 4, "lots.per_principal": 2, "profiles": STRICT, "reward.scale": 100.0}
TWO = SMALL | {"principals": 2, "lots.per_principal": 1, "profiles": [], "reward.violation_penalty": 0.0}


class Table(credit.CreditRule):
    """Pays two agents with one lot each by what both contribute: entry (a, b) of a table holds what each of them gets."""

    def __init__(self, table):
        self.table = torch.tensor(table, dtype=torch.float64)  # (2, 2, 2)

    def assign(self, round):
        a, b = round.contributed[:, :, 0].long().unbind(dim=1)
        return self.table[a, b]


def two(table, cost=0.0, **changes):
    """A cooperative of two agents that are paid by a table, in reward units."""
    made = scenario.load("breast_cancer", **TWO | {"reward.contribution_cost": cost, "reward.scale": 1.0} | changes)
    engine = Engine(made, Table(table), 2, dtype=torch.float64)
    engine.reset(range(2))
    return engine


def tiny(rule, n_envs=6, **changes):
    """A cooperative with steps so small that the gain of lots adds up."""
    settings = {"substrate.local_lr": 1e-4, "reward.scale": 6e6, "horizon": 2, "profiles": STRICT} | changes
    engine = Engine(scenario.load("breast_cancer", **settings), rule, n_envs, dtype=torch.float64)
    engine.reset(range(n_envs))
    return engine


def lone_gains(engine):
    """What each admissible lot adds, in reward units, (E, N, K)."""
    look = engine.prospect
    return engine.reward_scale * look.proposals.share * engine.predicted_gain()


def test_where_only_some_take_part_it_is_refused_before_anything_is_played():
    some = scenario.load("breast_cancer", **SMALL | {"participation": {"sample": 2}})
    engine = Engine(some, "equal", 2)
    beside = agents.Seats(agents.make("honest"), {1: agents.make("best_reply")})
    for agent in (agents.make("best_reply"), beside):
        with pytest.raises(ValueError, match="agent best_reply needs all agents in every round, but 2 of 3 are present"):
            agents.play(engine, agent)
    with pytest.raises(ValueError, match="agent best_reply needs all agents"):
        agents.SeatEnv(some, "equal", others="best_reply")
    with pytest.raises(ValueError, match=r"^--seat 1=best_reply: .*agent best_reply needs all agents"):
        require_playable("best_reply", some, "--seat 1=best_reply")


@pytest.mark.parametrize("rule", ["loo", "shapley", "standalone", "in_run(order=1)"])
def test_in_an_additive_game_marginal_credit_makes_proxies_contribute_what_pays_its_cost(rule):
    engine = tiny(rule)
    replies = best_replies(engine)
    expected = (lone_gains(engine) > engine.scenario.reward.contribution_cost) & engine.prospect.passes
    assert (replies.choices == expected).all()
    assert 0.2 < float(expected.double().mean()) < 0.8
    assert replies.converged.all()


@pytest.mark.parametrize("n", [3, 6])
def test_in_an_additive_game_equal_split_makes_proxies_contribute_what_pays_its_cost_n_times(n):
    engine = tiny("equal", principals=n)
    expected = (lone_gains(engine) / n > engine.scenario.reward.contribution_cost) & engine.prospect.passes
    replies = best_replies(engine, "all")
    assert (replies.choices == expected).all()
    assert (replies.choices != best_replies(tiny("loo", principals=n)).choices).any()


def test_a_public_share_counts():
    engine = tiny("equal", **{"reward.public_share": 0.5})
    expected = (lone_gains(engine) * (1 / 6 + 0.5) > engine.scenario.reward.contribution_cost) & engine.prospect.passes
    assert (best_replies(engine).choices == expected).all()


def test_nobody_contributes_for_nothing_and_everybody_keeps_what_costs_nothing():
    engine = tiny(None)
    assert not best_replies(engine).choices.any()
    free = tiny(None, **{"reward.contribution_cost": 0.0, "reward.violation_penalty": 0.0})
    everything = best_replies(free, "all").choices
    assert (everything == free.prospect.available).all()  # nobody pays, so nobody has a reason to change


def test_pay_by_the_lot_makes_proxies_contribute_everything():
    class ByTheLot(credit.CreditRule):
        def assign(self, round):
            return 0.002 * round.contributed.sum(dim=-1).double()

    rows = Engine(scenario.load("breast_cancer", **SMALL | {"reward.violation_penalty": 0.1}), ByTheLot(), 5)
    rows.reset(range(5))
    own = rows.prospect.own_blocked
    assert (best_replies(rows).choices == (0.15 + 0.1 * own < 0.2)).all()  # 100 × 0.002 a lot, less cost and fine
    assert own.any()


@pytest.mark.parametrize("rule", ["equal", "loo", "shapley", "cgsv", "data_size", "smoothed(rule='loo')"])
@pytest.mark.parametrize(
    "changes", [{}, {"weights": "participants"}, {"server": {"momentum": 0.9}}], ids=["fixed", "participants", "momentum"]
)
def test_a_best_reply_is_the_best_of_all_rounds_played_one_by_one(rule, changes):
    """By hand: a copy of the engine plays each of the 2^K choices."""
    engine = Engine(scenario.load("breast_cancer", **SMALL | changes), rule, 3, dtype=torch.float64)
    engine.reset(range(3))
    generator = torch.Generator().manual_seed(0)
    for t in range(3):
        choices = torch.rand(3, 3, 2, generator=generator) < 0.5
        seat = t % 3
        reply = best_reply(engine, choices, seat)
        rewards = []
        for own in itertools.product([False, True], repeat=2):
            tried = choices.clone()
            tried[:, seat] = torch.tensor(own)
            rewards.append(copy(engine).step(tried).rewards[:, seat])
        played = choices.clone()
        played[:, seat] = reply
        torch.testing.assert_close(copy(engine).step(played).rewards[:, seat], torch.stack(rewards).amax(dim=0), rtol=0, atol=1e-9)
        engine.step(played)


@pytest.mark.parametrize("weights", ["fixed", "participants"])
@pytest.mark.parametrize("rule", ["equal", "loo", "shapley"])
def test_where_replies_converged_nobody_gains_by_choosing_otherwise(weights, rule):
    engine = Engine(scenario.load("breast_cancer", weights=weights, **SMALL), rule, 4, dtype=torch.float64)
    engine.reset(range(4))
    for _ in range(2):
        replies = best_replies(engine)
        assert replies.converged.all()
        settled = copy(engine).step(replies.choices).rewards
        for seat in range(3):
            for own in itertools.product([False, True], repeat=2):
                other = replies.choices.clone()
                other[:, seat] = torch.tensor(own)
                assert (copy(engine).step(other).rewards[:, seat] <= settled[:, seat] + 1e-9).all()
        engine.step(replies.choices)


@pytest.mark.parametrize("rule", ["equal", "loo", "data_size"])
@pytest.mark.parametrize("weights", ["fixed", "participants"])
def test_the_equilibria_are_those_of_a_slow_loop_over_all_choices(rule, weights):
    engine = Engine(scenario.load("breast_cancer", weights=weights, **SMALL | {"principals": 2}), rule, 3, dtype=torch.float64)
    engine.reset(range(3))
    found = equilibria(engine)
    rewards, welfare = {}, {}
    for bits in itertools.product([False, True], repeat=4):
        result = copy(engine).step(torch.tensor(bits).reshape(1, 2, 2).expand(3, -1, -1))
        rewards[bits], welfare[bits] = result.rewards, engine.reward_scale * result.gain - result.cost.sum(dim=1)
    for e in range(3):
        stable = []
        for bits, of in rewards.items():
            others = [*((a, b, *bits[2:], 0) for a, b in itertools.product([False, True], repeat=2))]
            others += [(*bits[:2], a, b, 1) for a, b in itertools.product([False, True], repeat=2)]
            if all(rewards[other[:4]][e, other[4]] <= of[e, other[4]] + 1e-9 for other in others):
                stable.append(float(welfare[bits][e]))
        assert found.exact
        assert int(found.count[e]) == len(stable)
        assert float(found.optimum[e]) == pytest.approx(max(float(one[e]) for one in welfare.values()), abs=1e-9)
        if stable:
            assert (float(found.best[e]), float(found.worst[e])) == pytest.approx((max(stable), min(stable)), abs=1e-9)
            assert float(welfare[tuple(found.best_choices[e].flatten().tolist())][e]) == pytest.approx(float(found.best[e]), abs=1e-9)
            assert float(found.price_of_anarchy[e]) >= float(found.price_of_stability[e]) >= 1


def test_without_an_equilibrium_replies_go_round_and_say_so():
    """Matching pennies: one wants to do as the other does, the other wants not to."""
    engine = two([[[1, 0], [0, 1]], [[0, 1], [1, 0]]])
    replies = best_replies(engine, sweeps=5)
    assert not replies.converged.any()
    assert (replies.sweeps == 5).all()
    found = equilibria(engine)
    assert (found.count == 0).all()
    assert found.best.isnan().all()
    assert found.price_of_anarchy.isnan().all()
    assert not found.best_choices.any()
    assert (equilibria(engine, most=1).count == 0).all()


def test_of_several_equilibria_replies_find_that_which_the_start_leads_to():
    """Each is paid only if both contribute: nobody and everybody are both in equilibrium."""
    engine = two([[[0, 0], [0, 0]], [[0, 0], [3, 3]]], cost=1.0)
    assert not best_replies(engine, "none").choices.any()
    assert best_replies(engine, "all").choices.all()
    found = equilibria(engine)
    assert (found.count == 2).all()
    assert (best_replies(engine, torch.ones(2, 2, 1, dtype=torch.bool)).choices == best_replies(engine, "all").choices).all()
    some = equilibria(engine, most=1)
    assert not some.exact
    assert (some.count == 2).all()
    torch.testing.assert_close(some.best, found.best)
    torch.testing.assert_close(some.worst, found.worst)
    assert some.optimum.isnan().all()


def test_the_prices_of_anarchy_and_stability():
    nan, inf = torch.nan, torch.inf
    nothing = torch.zeros(5, 1, 1, dtype=torch.bool)
    reached = torch.tensor([2.0, 0.0, -1.0, nan, 4.0])
    found = agents.Equilibria(True, torch.ones(5), reached, reached, torch.tensor([4.0, 4.0, 4.0, 4.0, 4.0]), nothing, nothing)
    torch.testing.assert_close(found.price_of_anarchy, torch.tensor([2.0, inf, inf, nan, 1.0]), equal_nan=True)
    zero = torch.zeros(1)
    assert float(agents.Equilibria(True, zero, zero, zero, zero, nothing[:1], nothing[:1]).price_of_stability) == 1


def test_where_replies_begin():
    engine = Engine(scenario.load("breast_cancer", **SMALL), "loo", 2)
    engine.reset(range(2))
    assert not start_of(engine, "last").any()
    assert not start_of(engine, "none").any()
    assert start_of(engine, "all").all()
    assert (start_of(engine, "clean") == ~engine.lots.corrupt & engine.prospect.passes).all()
    choices = torch.rand(2, 3, 2, generator=torch.Generator().manual_seed(1)) < 0.5
    engine.step(choices)
    assert (start_of(engine, "last") == choices).all()
    assert STARTS == ("last", "none", "all", "clean")


def test_proxies_that_do_not_reply_repeat_what_they_did_last():
    engine = two([[[0, 0], [0, 0]], [[0, 0], [3, 3]]], cost=1.0)
    both = torch.ones(2, 2, 1, dtype=torch.bool)
    agent = agents.Seats(agents.make("all"), {0: agents.make("best_reply")})
    agent.watch(engine)
    agent.begin(engine.layout, engine.seeds)
    first = agent.act(engine.observations)
    assert not first[:, 0].any()  # the other is taken to contribute nothing in the first round
    assert first[:, 1].all()
    engine.step(first)
    second = agent.act(engine.observations)
    assert (second == both).all()  # the other did contribute


def test_agents_that_share_seats_reply_to_each_other_and_are_not_disturbed_by_an_earlier_company():
    engine = two([[[0, 0], [0, 0]], [[0, 0], [3, 3]]], cost=1.0)
    agent = agents.make("best_reply", start="all")
    seated = agents.Seats(agents.make("none"), {0: agent})
    agents.play(engine, seated, range(2))
    assert not any(result.contributed.any() for result in engine.history)
    agents.play(engine, agent, range(2))
    assert all(result.contributed.all() for result in engine.history)
    assert all(one.all() for one in agent.converged)
    assert len(agent.converged) == engine.horizon


def test_one_seat_as_an_environment_among_best_replies():
    env = agents.SeatEnv(scenario.load("breast_cancer", **SMALL), "loo", seat=1, others="best_reply")
    env.reset(seed=0)
    _, _, _, _, _ = env.step([1, 1])
    assert env.others.seats == (0, 2)


@pytest.mark.parametrize("rule", ["equal", "shapley", "shapley(budget=20)", "cgsv"])
def test_each_environment_is_played_as_if_it_were_alone(rule):
    small = scenario.load("digits", horizon=3, **{"reward.scale": 562.0})
    together = Engine(small, rule, 5)
    agents.play(together, agents.make("best_reply"), range(5))
    for e in (0, 3):
        alone = Engine(small, rule)
        agents.play(alone, agents.make("best_reply"), [e])
        for mine, theirs in zip(alone.history, together.history, strict=True):
            assert (mine.contributed[0] == theirs.contributed[e]).all()


def test_best_replies_to_marginal_credit_bring_nearly_what_the_planner_brings_and_to_equal_split_do_not():
    digits = scenario.load("digits", profiles=[])
    welfare = {
        rule: float(agents.play(Engine(digits, rule, 8), agents.make("best_reply"), range(8))["welfare"].mean())
        for rule in ("loo", "equal")
    }
    planner = float(agents.play(Engine(digits, None, 8), agents.make("planner"), range(8))["welfare"].mean())
    assert welfare["loo"] > 0.95 * planner
    assert 0 < welfare["equal"] < 0.5 * planner


def test_what_is_wrong_is_refused():
    engine = two([[[0, 0], [0, 0]], [[0, 0], [3, 3]]])
    with pytest.raises(ValueError, match="start='first': must be one of last, none, all, clean"):
        agents.make("best_reply", start="first")
    with pytest.raises(ValueError, match="start='first': must be one of last, none, all, clean"):
        best_replies(engine, "first")
    with pytest.raises(ValueError, match="sweeps=0"):
        agents.make("best_reply", sweeps=0)
    with pytest.raises(ValueError, match=r"start has shape \(2, 2\): must be \(E, N, K\) = \(2, 2, 1\)"):
        best_replies(engine, torch.ones(2, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match="seat=2"):
        best_replies(engine, seats=[2])
    with pytest.raises(ValueError, match="seat=-1"):
        best_reply(engine, torch.ones(2, 2, 1, dtype=torch.bool), -1)
