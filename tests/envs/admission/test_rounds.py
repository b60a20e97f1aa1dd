"""Rounds with room for only some updates: what enters, what is paid for it, and what is measured."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from proxycoop import agents, credit
from proxycoop.agents.privileged import GreedySearch
from proxycoop.agents.trial import try_out
from proxycoop.envs import Engine, episode_metrics, scenario
from proxycoop.envs.admission.settings import MECHANISMS
from proxycoop.envs.rendering import render_picture, render_text

BIDS = {"levers": [{"kind": "bid", "amount": 1.0}, {"kind": "bid", "amount": 2.5}]}


def engine_of(choose: Any, rule: str | None = "shapley", num_envs: int = 2, capacity: int = 6, **overrides: Any) -> Engine:
    kind = choose if isinstance(choose, str) else choose["kind"]
    settings = {"horizon": 5, "reward.scale": 100.0, "admission": {"capacity": capacity, "choose": choose}}
    if kind == "auction":
        settings["conduct"] = BIDS
    return Engine(scenario.load("digits", **settings, **overrides), rule, num_envs, dtype=torch.float64)


def play(engine: Engine, rounds: int, seed: int = 0, seeds: Any = None) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    engine.reset(range(3, 3 + engine.num_envs) if seeds is None else seeds)
    shape = engine.num_envs, engine.num_agents, engine.num_items
    chosen = [torch.rand(shape, generator=generator) < 0.8 for _ in range(rounds)]
    for one in chosen:
        engine.step(one)
    return chosen


@pytest.mark.parametrize("choose", MECHANISMS)
def test_no_more_enter_than_there_is_room_for_and_all_places_are_given_that_somebody_can_use(choose):
    engine = engine_of(choose)
    play(engine, 5)
    for result in engine.history:
        assert result.passed is not None
        assert not (result.admitted & ~result.passed).any()
        assert not (result.passed & ~result.contributed).any()
        count, passed = result.admitted.sum(dim=(1, 2)), result.passed.sum(dim=(1, 2))
        assert (count <= 6).all()
        if choose != "auction":  # whose bidders want all or nothing
            assert torch.equal(count, passed.clamp(max=6))
        torch.testing.assert_close(result.credit.sum(dim=1), result.gain)


@pytest.mark.parametrize("choose", MECHANISMS)
def test_a_round_is_worth_what_entered_and_nothing_else(choose):
    engine = engine_of(choose, None)
    play(engine, 2)
    theta, before = engine.theta, engine.prospect
    result = engine.step(torch.ones(2, 6, engine.num_items))
    step = torch.einsum("enk,enkp->ep", result.admitted * before.proposals.share, before.filtered.updates)
    if engine.scenario.weights == "participants":
        step = step / (result.admitted * before.proposals.share).sum(dim=(1, 2))[:, None]
    torch.testing.assert_close(engine.theta - theta, engine.scenario.server.lr * step)


@pytest.mark.parametrize("choose", MECHANISMS)
def test_batches_play_as_single_cooperatives_and_twice_the_same(choose):
    whole = engine_of(choose)
    chosen = play(whole, 5, seeds=[11, 12])
    for e in range(2):
        single = engine_of(choose, num_envs=1)
        single.reset([11 + e])
        for one, result in zip(chosen, whole.history, strict=True):
            alone = single.step(one[e : e + 1])
            assert torch.equal(alone.admitted[0], result.admitted[e])
            torch.testing.assert_close(alone.rewards[0], result.rewards[e], atol=1e-12, rtol=0)


def test_by_gain_admits_what_raises_the_utility_most_to_first_order():
    engine = engine_of("by_gain", None)
    engine.reset([1, 2])
    gain = engine.prospect.proposals.share * (engine.prospect.filtered.updates @ engine.utility_gradient()[:, None, :, None])[..., 0]
    result = engine.step(torch.ones(2, 6, 4))
    for e in range(2):
        ranked = sorted((-float(gain[e, i, k]), i, k) for i in range(6) for k in range(4) if result.passed[e, i, k])
        best = {(i, k) for _, i, k in ranked[:6]}
        assert {tuple(one) for one in result.admitted[e].nonzero().tolist()} == best


def test_the_method_of_equal_shares_asks_what_updates_do_for_each_principal_s_own_data():
    engine = engine_of({"kind": "equal_shares", "complete": False}, None, capacity=3)
    engine.reset([1, 2])
    look = engine.prospect
    wants = torch.empty(2, 6, 6, 4, dtype=torch.float64)
    for e in range(2):
        for j in range(6):
            share = look.proposals.share[e, j]
            own = sum(share[k] * look.proposals.updates[e, j, k] for k in range(4)) / share.sum()
            for i in range(6):
                for k in range(4):
                    wants[e, j, i, k] = own @ look.filtered.updates[e, i, k]
    result = engine.step(torch.ones(2, 6, 4))
    for e in range(2):  # the first place goes to the candidate with the least price, with budgets of 3 / 6 each
        prices = {}
        for i in range(6):
            for k in range(4):
                if result.passed[e, i, k]:
                    utility = wants[e, :, i, k].clamp(min=0)
                    steps = sorted(0.5 / float(u) for u in utility if u > 0)
                    paid = [rho for rho in steps if sum(min(0.5, rho * float(u)) for u in utility) >= 1]
                    if paid:
                        low, high = 0.0, paid[0]
                        for _ in range(200):
                            middle = (low + high) / 2
                            enough = sum(min(0.5, middle * float(u)) for u in utility) >= 1
                            low, high = (low, middle) if enough else (middle, high)
                        prices[i, k] = high
        assert result.admitted[e][min(prices, key=lambda one: prices[one])]


def test_what_is_bid_is_the_sum_of_the_levers_and_what_is_paid_is_a_cost():
    engine = engine_of("auction", num_envs=1, capacity=4, **{"lots.per_principal": 4})
    engine.reset([5])
    chosen = torch.zeros(1, 6, 6, dtype=torch.bool)
    chosen[0, :, :4] = True
    chosen[0, 0, 4:] = True  # bids 3.5
    chosen[0, 1, 5] = True  # bids 2.5
    chosen[0, 2, 4] = True  # bids 1
    result = engine.step(chosen)
    assert result.passed is not None
    assert result.payments is not None
    winners = result.admitted.any(dim=-1)[0]
    wants = result.passed[0].sum(dim=-1)
    bids = torch.tensor([3.5, 2.5, 1.0, 0, 0, 0], dtype=torch.float64)
    score = torch.where(wants > 0, bids / wants.clamp(min=1).double().sqrt(), -1.0)
    assert winners[int(score.argmax())] or wants[int(score.argmax())] > 4
    contribution = engine.scenario.reward.contribution_cost * result.contributed.sum(dim=-1)
    fines = engine.scenario.reward.violation_penalty * (
        result.contributed & result.blocked_by.diagonal(dim1=1, dim2=3).permute(0, 2, 1)
    ).sum(-1)
    torch.testing.assert_close(result.cost, contribution + fines + result.payments)
    assert (result.payments[0] <= bids + 1e-12).all()
    metrics = episode_metrics(engine)
    torch.testing.assert_close(metrics["payments"], result.payments)
    own = engine.reward_scale * (engine.prospect.utility - engine.initial_utility)
    torch.testing.assert_close(metrics["welfare"], own - (result.cost - result.payments).sum(dim=1))


def test_who_offers_the_same_kind_as_others_shares_what_it_brings():
    engine = engine_of({"kind": "shareable", "similarity": 0.99}, "loo", capacity=2, principals=4)
    engine.reset([5, 6], copies={1: 0})
    result = engine.step(torch.ones(2, 4, 4))
    torch.testing.assert_close(result.credit[:, 0], result.credit[:, 1])  # copies of each other, whichever of them had the place
    paid = credit.make("loo").assign(engine.round)
    torch.testing.assert_close(result.credit.sum(dim=1), paid.sum(dim=1))


@pytest.mark.parametrize("rule", ["data_shapley", "equal"])
def test_shared_credit_is_of_lots_where_the_rule_tells_and_stays_with_agents_that_sent_nothing(rule):
    engine = engine_of("shareable", rule)
    play(engine, 3)
    paid = engine.rule.assign(engine.round) if rule == "equal" else engine.rule.assign_lots(engine.round).sum(dim=-1)
    torch.testing.assert_close(engine.history[-1].credit.sum(dim=1), paid.sum(dim=1))


@pytest.mark.parametrize("choose", MECHANISMS)
def test_a_round_that_was_tried_out_pays_what_the_round_then_pays(choose):
    engine = engine_of(choose)
    play(engine, 2)
    chosen = torch.rand(2, 6, engine.num_items, generator=torch.Generator().manual_seed(9)) < 0.7
    tried = try_out(engine, torch.arange(2), chosen)
    torch.testing.assert_close(engine.step(chosen).rewards, tried.rewards)


def test_metrics_say_who_found_no_place_and_who_had_more():
    engine = engine_of("turns", None)
    play(engine, 4)
    metrics = episode_metrics(engine)
    refused = passed = 0.0
    envy = torch.zeros(6, dtype=torch.float64)
    for result in engine.history:
        assert result.passed is not None
        passed += float(result.passed[0].sum())
        refused += float((result.passed & ~result.admitted)[0].sum())
        places, offered = result.admitted[0].sum(dim=-1), result.passed[0].sum(dim=-1)
        for i in range(6):
            envy[i] += max(0, min(int(places.max()), int(offered[i])) - int(places[i])) / 4
    assert float(metrics["refused_share"][0]) == pytest.approx(refused / passed)
    torch.testing.assert_close(metrics["envy"][0], envy)


def test_text_and_picture_say_who_found_no_place():
    engine = engine_of("lottery", None, num_envs=1, capacity=2)
    engine.reset([1])
    engine.step(torch.ones(1, 6, 4))
    text = render_text(engine)
    assert "N found no place" in text
    assert text.count("N") > 5
    assert render_picture(engine).std() > 0


def test_text_says_who_paid_for_places():
    engine = engine_of("auction", None, num_envs=1, capacity=4)
    engine.reset([5])
    engine.step(torch.ones(1, 6, 6))
    payments = engine.history[-1].payments
    assert payments is not None
    text = " ".join(render_text(engine).split())
    for i, payment in enumerate(payments[0].tolist()):
        assert (f"proxy_{i} {payment:.2f}".replace("-", "−") in text) == (abs(payment) >= 0.005)
    assert "paid for places, less what came back, in reward units: " in text


def test_proxies_learn_and_baselines_play_where_there_is_room_for_only_some():
    engine = engine_of("maximin", "loo", 4)
    for name in ("honest", "all", "planner", "best_reply", "random"):
        metrics = agents.play(engine, agents.make(name), range(4))
        assert metrics["return"].isfinite().all()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"admission": {"capacity": 24}}, r"admission: capacity=24 leaves a place for each of the 24 updates"),
        ({"admission": {"capacity": 0}}, r"admission.capacity: .*greater than or equal to 1"),
        ({"admission": {"capacity": 8, "choose": "auction"}}, r"choose=auction needs bids, and proxies cannot bid: add conduct.levers"),
        ({"admission": {"capacity": 8, "choose": "by_gain"}, "utility": "accuracy"}, r"choose=by_gain needs the utility's gradient"),
        ({"admission": {"capacity": 8, "choose": "by_gian"}}, r"unknown mechanism 'by_gian'.*did you mean 'by_gain'"),
        ({"admission": {"capacity": 8}, "screening.governance": "negotiate"}, r"negotiate chooses among the updates itself"),
        ({"admission": {"choose": "lottery"}}, r"admission.capacity"),
        ({"admission": {"capacity": 8, "choose": "lottery"}, "conduct": BIDS}, r"'bid' bids for places, and here is no auction"),
        ({"admission": 8}, r"admission"),
    ],
)
def test_what_does_not_go_together_is_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        scenario.load("digits", **changes)


def test_compiled_rounds_have_no_admission():
    with pytest.raises(ValueError, match="compile=True cannot serve scenario 'digits': admission"):
        Engine(scenario.load("digits", admission={"capacity": 8}), "loo", compile=True)


def test_the_reward_scale_is_that_of_the_cooperative_without_a_limit():
    plain, limited = Engine("digits", None), Engine(scenario.load("digits", admission={"capacity": 4}), None)
    assert plain.reward_scale == limited.reward_scale


def test_rules_that_screen_each_coalition_anew_are_refused():
    for rule in ("veto_shapley", "veto_own", "veto_shared"):
        with pytest.raises(ValueError, match=r"no vetoes: .*and no admission"):
            engine_of("lottery", rule)


def test_who_always_does_the_same_is_paid_nothing_by_the_aristocrat_utility():
    engine = engine_of("turns", "aristocrat", capacity=3)
    engine.reset([1, 2])
    for t in range(4):
        result = engine.step(torch.ones(2, 6, 4))
        assert t == 0 or result.credit.abs().max() < 1e-12  # before the first round it had contributed nothing
        assert torch.equal(engine.round.lots.candidates, result.admitted)


def test_lots_that_stayed_at_home_are_candidates_only_where_there_is_a_place_for_each():
    engine = engine_of("turns", None, num_envs=1, capacity=10, **{"screening.governance": "none"})
    engine.reset([1])
    chosen = torch.ones(1, 6, 4, dtype=torch.bool)
    chosen[0, :, 0] = False
    result = engine.step(chosen)
    assert torch.equal(engine.round.lots.candidates, result.admitted)
    chosen = torch.zeros(1, 6, 4, dtype=torch.bool)
    chosen[0, 0] = True
    engine = engine_of("turns", None, num_envs=1, capacity=23, **{"screening.governance": "none"})
    engine.reset([1])
    engine.step(chosen)
    assert engine.round.lots.candidates.sum() == 4
    chosen[0, 1:, 0] = True
    chosen[0, :, 1] = True
    engine.step(~chosen)
    assert (engine.round.lots.candidates | ~engine.prospect.available).sum() >= 1


def test_who_leaves_gets_nothing_back():
    conduct = {"levers": [{"kind": "bid", "amount": 2.0}, {"kind": "quit"}]}
    engine = Engine(
        scenario.load("digits", horizon=5, admission={"capacity": 6, "choose": "auction"}, conduct=conduct, **{"reward.scale": 100.0}),
        None,
        2,
    )
    engine.reset([1, 2])
    chosen = torch.ones(2, 6, 6, dtype=torch.bool)
    chosen[..., 5] = False
    chosen[:, 0, 5] = True
    for _ in range(2):
        result = engine.step(chosen)
        assert result.payments is not None
        assert not result.payments[:, 0].any()
        assert (result.payments[:, 1:] != 0).any()
        assert not result.rewards[:, 0].any() or engine.t == 1  # what it contributed in the round in which it left has its cost


def test_what_was_tried_out_has_the_welfare_of_the_round():
    for rebate in ("none", "bailey"):
        engine = engine_of({"kind": "auction", "rebate": rebate}, "loo")
        engine.reset([1, 2])
        chosen = torch.ones(2, 6, engine.num_items, dtype=torch.bool)
        chosen[:, 3:, 4] = False
        tried = try_out(engine, torch.arange(2), chosen)
        engine.step(chosen)
        assert episode_metrics(engine)["payments"].any()
        torch.testing.assert_close(tried.welfare, episode_metrics(engine)["welfare"])


@pytest.mark.parametrize("choose", ["lottery", "turns", "by_gain"])
def test_references_plan_for_the_places_there_are(choose):
    engine = engine_of(choose, "loo", 4, capacity=3)
    for name in ("planner", "measuring_planner"):
        agents.play(engine, agents.make(name), range(4))
        for result in engine.history:
            assert (result.contributed.sum(dim=(1, 2)) <= 3).all() or name == "measuring_planner"  # the oracle sends all clean lots
    search = GreedySearch()
    agents.play(engine, search, range(4))
    for result in engine.history:
        assert torch.equal(result.contributed, result.admitted)
        worth = engine.reward_scale * result.gain - result.cost.sum(dim=1)
        assert (worth >= -1e-9).all()


def test_exact_copies_are_of_one_kind_however_close_updates_must_be():
    for dtype in (torch.float32, torch.float64):
        made = scenario.load(
            "digits",
            admission={"capacity": 6, "choose": {"kind": "shareable", "similarity": 1.0}},
            conduct={"forgeries": [{"kind": "twin"}]},
        )
        engine = Engine(made, None, 16, dtype=dtype)
        engine.reset(range(16))
        engine._advance(torch.ones(16, 6, 5, dtype=torch.bool))
        entry = engine._make_room(engine._screen(torch.ones(16, 6, 5, dtype=torch.bool) & engine.prospect.available), made.admission)
        assert entry.places is not None
        assert entry.places.kinds is not None
        both = entry.passed[..., 0] & entry.passed[..., 4]
        assert torch.equal(entry.places.kinds[..., 0][both], entry.places.kinds[..., 4][both])
