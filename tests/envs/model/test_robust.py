"""Rounds under robust aggregators: what coalitions are worth, whose part the step is, and what the screening still promises."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from proxycoop import credit
from proxycoop.envs import Engine, scenario
from proxycoop.envs.aggregation import aggregate

DEFENCES: list[dict[str, Any]] = [
    {"kind": "median"},
    {"kind": "median", "over": "agents"},
    {"kind": "trimmed_mean", "f": 2, "weighted": True},
    {"kind": "trimmed_mean", "f": 2, "before": [{"kind": "nnm", "f": 2}]},
    {"kind": "meamed", "f": 2},
    {"kind": "krum", "f": 2},
    {"kind": "multi_krum", "f": 1, "over": "agents"},
    {"kind": "geometric_median", "weighted": True},
    {"kind": "centered_clipping", "radius": 0.2},
    {"kind": "minimum_diameter", "f": 2},
    {"kind": "mean", "weighted": False},
    {"kind": "mean", "before": [{"kind": "clip", "max_norm": 0.1}]},
    {"kind": "krum", "f": 1, "before": [{"kind": "bucketing", "size": 2}]},
]


def engine_of(defence: dict[str, Any], rule: str | None = "shapley", num_envs: int = 2, **overrides: Any) -> Engine:
    settings = {"principals": 5, "lots.per_principal": 3, "horizon": 4, "reward.scale": 100.0, "aggregator": defence} | overrides
    return Engine(scenario.load("digits", **settings), rule, num_envs, dtype=torch.float64)


def play(engine: Engine, rounds: int = 1, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    engine.reset(range(3, 3 + engine.num_envs))
    for _ in range(rounds):
        engine.step(torch.rand(engine.num_envs, engine.num_agents, engine.num_items, generator=generator) < 0.7)


def step_by_hand(engine: Engine, before: Any, sent: Tensor, e: int) -> Tensor:
    """The step of one environment from the lots in a set, bool ``(N, K)``: its units one by one, and nobody else."""
    made, look = engine.scenario.aggregator, before
    share, updates = look.proposals.share[e], look.filtered.updates[e]
    units: list[Tensor] = []
    weight: list[float] = []
    order: list[float] = []
    of_lots = engine.round.game._surrogate.args[0].round_step.order[e]
    for i in range(engine.num_agents):
        own = [k for k in range(engine.num_lots) if sent[i, k]]
        if made.over == "agents":
            if own:
                total = sum(float(share[i, k]) for k in own)
                units.append(sum(float(share[i, k]) / total * updates[i, k] for k in own))  # type: ignore[arg-type]
                weight.append(total)
                order.append(float(of_lots[i, 0]))
        else:
            for k in own:
                units.append(updates[i, k])
                weight.append(float(share[i, k]))
                order.append(float(of_lots[i, k]))
    if not units:
        return torch.zeros_like(updates[0, 0])
    present = torch.ones(1, 1, len(units), dtype=torch.bool)
    alone = aggregate(made, torch.stack(units)[None], torch.tensor([weight]).double(), present, torch.tensor([order]).double())[0, 0]
    return alone if engine.scenario.weights == "participants" else min(1.0, sum(weight)) * alone


@pytest.mark.parametrize("weights", ["fixed", "participants"])
@pytest.mark.parametrize("defence", DEFENCES, ids=str)
def test_a_coalition_is_worth_what_its_own_updates_alone_make(defence, weights):
    engine = engine_of(defence, weights=weights)
    play(engine)
    theta, before = engine.theta, None
    generator = torch.Generator().manual_seed(1)
    before = engine.prospect
    result = engine.step(torch.rand(2, 5, 3, generator=generator) < 0.7)
    coalitions = torch.tensor(list(itertools.product([False, True], repeat=5)))
    found = engine.round.value(coalitions)
    start = engine.utility.of_logits(engine.model.logits(theta, engine.utility.rows.x))
    for e in range(2):
        for c in range(0, len(coalitions), 3):
            step = step_by_hand(engine, before, result.admitted[e] & coalitions[c, :, None], e)
            after = engine.utility.of_logits(
                engine.model.logits((theta[e] + engine.scenario.server.lr * step)[None], engine.utility.rows.x)
            )
            assert float(found[e, c]) == pytest.approx(float(after[0] - start[e]), abs=1e-10)
    torch.testing.assert_close(result.gain, result.utility - start, atol=1e-10, rtol=0)


@pytest.mark.parametrize("defence", DEFENCES, ids=str)
def test_a_set_of_lots_is_worth_what_these_updates_alone_make(defence):
    engine = engine_of(defence)
    play(engine)
    theta, before = engine.theta, engine.prospect
    engine.step(torch.ones(2, 5, 3))
    start = engine.utility.of_logits(engine.model.logits(theta, engine.utility.rows.x))
    sets = torch.rand(2, 6, 5, 3, generator=torch.Generator().manual_seed(2)) < 0.5
    found = engine.round.lots.value(sets & engine.round.lots.candidates[:, None])
    for e in range(2):
        for c in range(6):
            step = step_by_hand(engine, before, sets[e, c] & engine.round.lots.candidates[e], e)
            after = engine.utility.of_logits(
                engine.model.logits((theta[e] + engine.scenario.server.lr * step)[None], engine.utility.rows.x)
            )
            assert float(found[e, c]) == pytest.approx(float(after[0] - start[e]), abs=1e-10)


@pytest.mark.parametrize("server", [{"kind": "sgd", "lr": 0.7, "momentum": 0.5}, {"kind": "adam"}], ids=["sgd", "adam"])
@pytest.mark.parametrize("defence", DEFENCES, ids=str)
def test_parts_of_agents_and_lots_sum_to_the_step_less_what_memory_brings(defence, server):
    engine = engine_of(defence, server=server)
    play(engine, rounds=2)
    theta, state = engine.theta, engine.server_state
    engine.step(torch.rand(2, 5, 3, generator=torch.Generator().manual_seed(4)) < 0.7)
    alone = engine.scenario.server.delta(torch.zeros_like(theta)[:, None], state)[:, 0]
    torch.testing.assert_close(engine.round.updates.sum(dim=1), engine.theta - theta - alone, atol=1e-10, rtol=0)
    torch.testing.assert_close(engine.round.lot_updates.sum(dim=2), engine.round.updates, atol=1e-12, rtol=0)
    assert not engine.round.lot_updates[~engine.history[-1].admitted].any()


@pytest.mark.parametrize("defence", DEFENCES, ids=str)
def test_batches_play_as_single_cooperatives(defence):
    both, one = engine_of(defence, num_envs=2), engine_of(defence, num_envs=1)
    chosen = torch.rand(3, 2, 5, 3, generator=torch.Generator().manual_seed(5)) < 0.7
    for e in range(2):
        both.reset([7, 8])
        one.reset([7 + e])
        for t in range(3):
            whole, single = both.step(chosen[t]), one.step(chosen[t, e : e + 1])
            torch.testing.assert_close(whole.credit[e], single.credit[0], atol=1e-12, rtol=0)
            torch.testing.assert_close(both.theta[e], one.theta[0], atol=1e-12, rtol=0)


def test_the_mean_by_name_is_the_plain_mean_to_the_last_bit():
    plain = Engine(scenario.load("digits", horizon=4), "shapley", 2)
    named = Engine(scenario.load("digits", horizon=4, aggregator={"kind": "mean"}), "shapley", 2)
    for engine in (plain, named):
        play(engine, rounds=3)
    assert torch.equal(plain.theta, named.theta)
    assert plain.scenario.to_yaml() == named.scenario.to_yaml()


@pytest.mark.parametrize("weights", ["fixed", "participants"])
def test_the_mean_without_weights_is_the_weighted_one_where_all_lots_are_alike(weights):
    plain, bare = (engine_of({"kind": "mean", "weighted": weighted}, weights=weights) for weighted in (True, False))
    for engine in (plain, bare):
        play(engine, rounds=3)
    torch.testing.assert_close(plain.theta, bare.theta, atol=1e-12, rtol=0)
    for ours, theirs in zip(plain.history, bare.history, strict=True):
        torch.testing.assert_close(ours.credit, theirs.credit, atol=1e-12, rtol=0)


def test_a_claim_of_many_rows_buys_no_influence_where_updates_do_not_weigh():
    honest, claims = (
        engine_of({"kind": "mean", "weighted": False}, weights="participants", conduct={"levers": [{"kind": "claim", "factor": 50}]})
        for _ in range(2)
    )
    chosen = torch.ones(2, 5, 4, dtype=torch.bool)
    chosen[..., 3] = False
    for engine, claim in ((honest, False), (claims, True)):
        engine.reset([1, 2])
        chosen[:, 0, 3] = claim
        engine.step(chosen)
    torch.testing.assert_close(honest.theta, claims.theta, atol=1e-12, rtol=0)


@pytest.mark.parametrize("defence", [one for one in DEFENCES if one["kind"] not in ("median", "trimmed_mean", "meamed")], ids=str)
def test_a_mixture_of_admissible_updates_violates_nobody_s_profile(defence):
    engine = engine_of(defence, weights="participants")
    assert engine.scenario.screening.governance == "unanimous"
    play(engine, rounds=4)
    for result in engine.history:
        assert (result.step_harm <= result.tolerance + 1e-9).all()
        assert not result.violated.any()


def test_the_median_of_admissible_updates_may_violate_a_profile_and_the_guard_restores_it():
    profiles = [one | {"tolerances": dict.fromkeys(one["tolerances"], 0.3)} for one in scenario.load("digits").to_dict()["profiles"]]
    violated = {}
    for guard in (False, True):
        settings = {"screening.guard": guard, "profiles": profiles, "principals": 6, "lots.per_principal": 4, "horizon": 8}
        engine = engine_of({"kind": "median"}, None, 32, weights="participants", **settings)
        play(engine, rounds=8)
        violated[guard] = sum(int(result.violated.sum()) for result in engine.history)
    assert violated[False] > 0
    assert violated[True] == 0


def test_attackers_move_the_mean_and_hardly_the_trimmed_mean():
    reached = {}
    for name, defence in {"mean": {"kind": "mean"}, "trimmed": {"kind": "trimmed_mean", "f": 3}}.items():
        engine = engine_of(
            defence,
            None,
            **{
                "screening.governance": "none",
                "conduct": {"forgeries": [{"kind": "inner_product", "factor": 20.0}] * 3},
                "lots.corruption.share": 0.0,
            },
        )
        engine.reset([1, 2])
        chosen = torch.zeros(2, 5, engine.num_items, dtype=torch.bool)
        chosen[:, 1:, :3] = True
        chosen[:, 0, 3:] = True
        while engine.t < engine.horizon:
            engine.step(chosen)
        reached[name] = engine.prospect.utility - engine.initial_utility
    assert (reached["mean"] < -0.1).all()
    assert (reached["trimmed"] > 0).all()


def test_estimates_have_no_surrogate_where_updates_do_not_add_up_and_say_so():
    engine = engine_of({"kind": "krum", "f": 2}, None)
    play(engine)
    estimate = credit.make("kernelshap", budget=20, surrogate=True).estimate(engine.round.game)
    assert estimate.surrogate == "aggregator krum does not add up what agents bring"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"aggregator": {"kind": "krum", "f": 12}}, r"aggregator.*'krum' with f=12 needs at least 27 units, but a full round has 24"),
        ({"aggregator": {"kind": "krum", "f": 4}, "admission": {"capacity": 8}}, r"needs at least 11 units, but a full round has 8"),
        ({"aggregator": {"kind": "krum", "f": 2, "over": "agents"}}, r"needs at least 7 units, but a full round has 6"),
        (
            {"aggregator": {"kind": "medain"}},
            r"aggregator: unknown aggregator 'medain' .*did you mean 'median'.*: the known ones are mean, median",
        ),
        ({"aggregator": "krumm"}, r"aggregator: unknown aggregator 'krumm' .*did you mean 'krum'"),
        ({"aggregator": "krum"}, r"aggregator.*f"),
        ({"aggregator": {"kind": "krum"}}, r"aggregator.*f"),
        ({"aggregator": {"kind": "median", "f": 1}}, r"unknown key 'aggregator.*f'"),
        ({"aggregator": {"kind": "median"}, "screening.governance": "negotiate"}, r"negotiate bargains over sums of updates"),
        ({"aggregator": {"kind": "median", "before": [{"kind": "clip"}]}}, r"aggregator.*max_norm"),
    ],
)
def test_what_does_not_go_together_is_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        scenario.load("digits", **changes)


def test_columns_have_no_robust_aggregate_and_compiled_rounds_no_aggregator():
    with pytest.raises(ValueError, match=r"vertical does not go with aggregator.kind=median"):
        scenario.load("breast_cancer-hospitals", aggregator={"kind": "median"}, substrate={"kind": "vertical"}, **{"lots.sites": None})
    with pytest.raises(ValueError, match="compile=True cannot serve scenario 'digits': aggregator"):
        Engine(scenario.load("digits", aggregator={"kind": "median"}), "loo", compile=True)


def test_an_aggregator_that_needs_nothing_can_be_given_by_its_name():
    assert scenario.load("digits", aggregator="median") == scenario.load("digits", aggregator={"kind": "median"})
