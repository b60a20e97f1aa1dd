"""Forgeries and levers, against rounds by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from proxycoop import agents
from proxycoop.envs import Engine, episode_metrics, scenario
from proxycoop.envs.data.names import Names
from proxycoop.envs.rendering import render_picture, render_text
from proxycoop.training.analysis.audit import audit
from proxycoop.training.analysis.objections import Findings

FORGERIES = ("echo", "noise", "twin", "near_twin", "boost", "flip", "stale", "blend", "little_is_enough", "inner_product")
LEVERS = ("claim", "strict", "lax", "block", "quit")
OF = {"twin": 1, "near_twin": 2, "boost": 3, "flip": 0, "stale": 2}
SCENARIOS = ("digits", "digits-mean")


def conduct(*names: str, **settings: dict[str, object]) -> dict[str, object]:
    """Some forgeries and levers, each with its settings if there are any."""
    items = [{"kind": name} | ({"of": OF[name]} if name in OF else {}) | settings.get(name, {}) for name in names]
    return {
        "forgeries": [one for one in items if one["kind"] in FORGERIES],
        "levers": [one for one in items if one["kind"] in LEVERS],
    }


def engine_of(name: str, *names: str, rule: str | None = "shapley", num_envs: int = 2, **settings: dict[str, object]) -> Engine:
    made = scenario.load(name, principals=4, horizon=6, conduct=conduct(*names, **settings), **{"reward.scale": 100.0})
    return Engine(made, rule, num_envs, dtype=torch.float64)


def play(engine: Engine, rounds: int, seed: int = 0) -> list[Tensor]:
    """Some rounds at random: the choices of each."""
    generator = torch.Generator().manual_seed(seed)
    engine.reset(range(5, 5 + engine.num_envs))
    chosen = [torch.rand(engine.num_envs, engine.num_agents, engine.num_items, generator=generator) < 0.5 for _ in range(rounds)]
    for one in chosen:
        engine.step(one)
    return chosen


def only(engine: Engine, agent: int, *items: str | int) -> Tensor:
    """One agent's choice of some lots or items, and nobody else's."""
    chosen = torch.zeros(engine.num_envs, engine.num_agents, engine.num_items, dtype=torch.bool)
    for item in items:
        chosen[:, agent, item if isinstance(item, int) else engine.num_lots + engine.items.names.index(item)] = True
    return chosen


@pytest.mark.parametrize("name", SCENARIOS)
def test_without_what_it_offers_a_cooperative_with_conduct_is_the_one_without_it_to_the_last_bit(name):
    engine = engine_of(name, *FORGERIES, *LEVERS, num_envs=3)
    plain = Engine(scenario.load(name, principals=4, horizon=6, **{"reward.scale": 100.0}), "shapley", 3, dtype=torch.float64)
    for one in (engine, plain):
        one.reset([1, 2, 3])
    generator = torch.Generator().manual_seed(1)
    for _ in range(6):
        lots = torch.rand(3, 4, plain.num_lots, generator=generator) < 0.5
        with_conduct = engine.step(torch.cat([lots, torch.zeros(3, 4, len(engine.items.names), dtype=torch.bool)], dim=-1))
        without = plain.step(lots)
        assert torch.equal(engine.theta, plain.theta)
        assert torch.equal(with_conduct.credit, without.credit)
        assert torch.equal(with_conduct.rewards, without.rewards)
        assert torch.equal(with_conduct.blocked_by[:, :, : plain.num_lots], without.blocked_by)
        width = len(plain.layout.lot_features)
        seen = engine.layout.split(with_conduct.observations)[0][..., : plain.num_lots, :width]
        expected = plain.layout.split(without.observations)[0]
        differ = (seen != expected).any(dim=(0, 1, 2))
        assert {plain.layout.lot_features[i] for i in differ.nonzero()[:, 0]} <= {"norm"}  # the mean norm is of forged updates, too


def test_the_reward_scale_is_that_of_honest_work():
    plain = Engine("breast_cancer", None)
    assert Engine(scenario.load("breast_cancer", conduct=conduct(*FORGERIES)), None).reward_scale == plain.reward_scale


@pytest.mark.parametrize("name", SCENARIOS)
def test_each_forged_update_is_the_one_by_its_formula(name):
    engine = engine_of(name, *FORGERIES, "claim", echo={"size": 1.5}, noise={"size": 0.5}, stale={"rounds": 2}, near_twin={"noise": 0.3})
    played = play(engine, 0)
    first = engine.prospect
    forged = first.proposals.updates[:, :, engine.num_lots :]
    nothing_yet = [FORGERIES.index(kind) for kind in ("echo", "stale", "blend")]
    assert not first.available[:, :, engine.num_lots :][..., nothing_yet].any()
    assert not forged[:, :, nothing_yet].any()
    generator, looks = torch.Generator().manual_seed(3), [first]
    played = []
    for _ in range(3):
        chosen = torch.rand(2, 4, engine.num_items, generator=generator) < 0.5
        before = engine.theta
        result = engine.step(chosen)
        step = engine.theta - before
        played.append(result.contributed)
        looks.append(engine.prospect)
    k = engine.num_lots
    for e in range(2):
        lots = looks[-1].proposals.updates[e, :, :k].numpy()
        mean_norm = np.mean([np.linalg.norm(lots[i, j]) for i in range(4) for j in range(k)])
        last, sent = looks[-2].proposals.updates[e].numpy(), played[-1][e].numpy()
        for i in range(4):
            made = dict(zip(FORGERIES, looks[-1].proposals.updates[e, i, k:].numpy(), strict=True))
            s = step[e].numpy()
            np.testing.assert_allclose(made["echo"], s * 1.5 * mean_norm / np.linalg.norm(s), rtol=1e-9)
            assert np.linalg.norm(made["noise"]) == pytest.approx(0.5 * mean_norm, rel=1e-9)
            np.testing.assert_array_equal(made["twin"], lots[i, 1])
            off = made["near_twin"] - lots[i, 2]
            assert np.linalg.norm(off) == pytest.approx(0.3 * np.linalg.norm(lots[i, 2]), rel=1e-9)
            np.testing.assert_array_equal(made["boost"], 3 * lots[i, 3])
            np.testing.assert_array_equal(made["flip"], -lots[i, 0])
            np.testing.assert_array_equal(made["stale"], looks[-3].proposals.updates[e, i, 2].numpy())
            of_others = [last[j, u] for j in range(4) if j != i for u in range(last.shape[1]) if sent[j, u]]
            np.testing.assert_allclose(made["blend"], np.mean(of_others, axis=0), rtol=1e-9, atol=1e-15)
            theirs = np.array([lots[j, u] for j in range(4) if j != i for u in range(k)])
            mean, deviation = theirs.mean(axis=0), theirs.std(axis=0)
            np.testing.assert_allclose(made["little_is_enough"], mean - 1.5 * deviation, rtol=1e-8, atol=1e-9)
            np.testing.assert_allclose(made["inner_product"], -0.5 * mean, rtol=1e-8, atol=1e-12)
    random = looks[-1].proposals.updates[:, :, k + 1].flatten(end_dim=1)
    cosine = torch.nn.functional.cosine_similarity(random[:, None], random[None], dim=-1)
    assert (cosine - torch.eye(len(random))).abs().max() < 0.2  # everybody's is another one


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("kind", FORGERIES)
def test_a_forgery_enters_the_step_with_the_rows_of_the_mean_lot_and_costs_its_share(name, kind):
    engine = engine_of(name, kind, rule="data_size", **{kind: {"cost": 0.25}})
    unscreened = engine.scenario.model_copy(update={"screening": engine.scenario.unscreened(100.0).screening})
    engine = Engine(unscreened, "data_size", 2, dtype=torch.float64)
    play(engine, 3, seed=1)
    theta, update = engine.theta, engine.prospect.proposals.updates[:, 2, engine.num_lots]
    lot, rows, own_before = engine.prospect.proposals.updates[:, 0, 1], engine.lots.samples, engine.prospect.own_admissible
    result = engine.step(only(engine, 2, kind) | only(engine, 0, 1))
    share = rows[2].double().mean() / rows.sum()
    own = rows[0, 1] / rows.sum()
    weight = (share, own) if engine.scenario.weights == "fixed" else (share / (share + own), own / (share + own))
    expected = engine.scenario.server.lr * (weight[0] * update + weight[1] * lot)
    torch.testing.assert_close(engine.theta - theta, expected, rtol=1e-9, atol=1e-13)
    reward = engine.scenario.reward
    look = torch.stack([own_before[:, 2, engine.num_lots], own_before[:, 0, 1]], dim=1).double()  # 0 where it is fined
    expected_cost = reward.contribution_cost * torch.tensor([0.25, 1.0]) + reward.violation_penalty * (1 - look)
    torch.testing.assert_close(result.cost[:, [2, 0]], expected_cost)
    torch.testing.assert_close(result.credit[:, 2], result.gain * share / (share + own), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", SCENARIOS)
def test_credit_of_forgers_is_that_of_the_game_by_hand(name):
    engine = engine_of(name, "boost", "flip", "noise")
    play(engine, 2, seed=4)
    theta = engine.theta
    look, rows = engine.prospect, engine.lots.samples
    generator = torch.Generator().manual_seed(9)
    chosen = torch.rand(2, 4, engine.num_items, generator=generator) < 0.6
    result = engine.step(chosen)
    mean = rows.sum(dim=1, keepdim=True) / rows.shape[1]
    claimed = torch.cat([rows, mean.round().expand(-1, 3)], dim=1) / rows.sum()
    for e in range(2):

        def worth(members: list[int], e: int = e) -> float:
            entering = torch.zeros_like(claimed)
            for i in members:
                entering[i] = claimed[i] * result.admitted[e, i]
            if engine.scenario.weights == "participants" and entering.sum() > 0:
                entering = entering / entering.sum()
            step = engine.scenario.server.lr * torch.einsum("iu,iup->p", entering.double(), look.proposals.updates[e])
            logits = engine.model.logits(torch.stack([theta[e] + step, theta[e]]), engine.splits.validation.x)
            after, before = engine.utility.of_logits(logits).tolist()
            return after - before

        for i in range(4):
            others = [j for j in range(4) if j != i]
            value = 0.0
            for code in range(8):
                members = [j for b, j in enumerate(others) if code >> b & 1]
                weight = math.factorial(len(members)) * math.factorial(3 - len(members)) / math.factorial(4)
                value += weight * (worth([*members, i]) - worth(members))
            assert float(result.credit[e, i]) == pytest.approx(value, rel=1e-7, abs=1e-10)


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_claim_multiplies_rows_and_weights_of_its_round_alone(name):
    engine = engine_of(name, "twin", "claim", rule="data_size", claim={"factor": 4.0, "cost": 0.5})
    play(engine, 1)
    before = engine.prospect.proposals
    result = engine.step(only(engine, 1, 0, "claim") | only(engine, 3, 0))
    shares = result.admitted * before.share
    shares[:, 1] *= 4
    expected = result.gain[:, None] * shares.sum(dim=2) / shares.sum(dim=(1, 2))[:, None].clamp(min=1e-300)
    torch.testing.assert_close(result.credit, expected.nan_to_num(0.0), rtol=1e-9, atol=1e-12)
    samples = engine.round.samples
    torch.testing.assert_close(samples[:, 1], 4.0 * samples[:, 0], rtol=0, atol=0)
    torch.testing.assert_close(engine.prospect.proposals.share, before.share, rtol=0, atol=0)
    cost = engine.scenario.reward.contribution_cost
    fined = (result.contributed & ~result.admitted)[:, 1].sum(dim=-1) > 0
    assert torch.allclose(result.cost[~fined, 1], torch.tensor(1.5 * cost, dtype=torch.float64))


@pytest.mark.parametrize(("lever", "factor"), [("strict", 0.2), ("lax", 5.0)])
def test_a_declared_tolerance_holds_in_the_next_round_for_the_own_profile_alone(lever, factor):
    engine = Engine(engine_of("digits", "strict", "lax").scenario.unlimited(), "shapley", 2, dtype=torch.float64)
    engine.reset([5, 6])
    holds = engine.profiles.tolerates
    assert torch.equal(engine.prospect.pullable, holds[..., None].expand(-1, -1, 2))
    true = engine.profiles.tolerance
    who = 0
    for turn in range(3):
        result = engine.step(only(engine, who, lever) if turn == 0 else only(engine, who))
        declared = engine.prospect.verdicts.profiles.tolerance
        expected = true.clone()
        if turn == 0:
            expected[:, who] *= torch.where(holds[:, who], factor, torch.ones(2, dtype=torch.float64))[:, None]
            assert torch.equal(result.pulled[:, who].any(dim=-1), holds[:, who])
        assert torch.equal(declared, expected)
        admissible = (engine.prospect.harm[:, :, :, None] <= expected[:, None, None]).all(dim=-1)
        assert torch.equal(engine.prospect.verdicts.admissible_to, admissible)
    assert torch.equal(engine.profiles.tolerance, true)


def test_a_tolerance_declared_as_nothing_is_nothing_and_leaves_other_values_alone():
    engine = Engine(engine_of("digits", "strict", strict={"factor": 0.0}).scenario.unlimited(), "shapley", 2, dtype=torch.float64)
    engine.reset([5, 6])
    true = engine.profiles.tolerance
    engine.step(engine.items.whole(torch.zeros(2, 4, engine.num_lots, dtype=torch.bool)) | only(engine, 0, "strict"))
    declared = engine.prospect.verdicts.profiles.tolerance
    assert torch.equal(declared[:, 0], torch.where(true[:, 0].isfinite(), 0.0, true[:, 0]))
    assert torch.equal(declared[:, 1:], true[:, 1:])


@pytest.mark.parametrize("kind", ["twin", "near_twin", "boost", "flip", "stale"])
def test_of_a_lot_that_has_nothing_nothing_is_forged(kind):
    made = engine_of("digits", kind, "noise", **{kind: {"of": 0}}).scenario
    engine = Engine(made, "data_size", 1, names=Names.split(4, 4), dtype=torch.float64)  # the last seat has no lot 0
    engine.reset([1])
    for _ in range(3):
        look, k = engine.prospect, engine.num_lots
        there = look.available[0, :, :k]
        assert not look.available[0, 4, k]
        assert bool(look.available[0, 1, k]) == (kind != "stale" or engine.t > 0)
        mean_norm = look.norm[0, :, :k][there].mean()
        assert torch.allclose(look.norm[0, :, k + 1], mean_norm)  # noise is as long as the lots that there are
        engine.step(look.choosable)


def test_another_s_huge_update_does_not_hide_what_the_rest_sent():
    made = engine_of("digits", "noise", "blend", noise={"size": 1e7}).scenario
    engine = Engine(made, "loo", 1)
    engine.reset([3])
    update = engine.prospect.proposals.updates[:, 1, 2]
    engine.step(only(engine, 0, "noise") | only(engine, 1, 2))
    torch.testing.assert_close(engine.prospect.proposals.updates[:, 0, -1], update, rtol=1e-5, atol=1e-8)


def test_who_has_left_has_no_public_share():
    made = scenario.load("digits", principals=4, horizon=4, conduct=conduct("quit"), **{"reward.scale": 100.0, "reward.public_share": 0.5})
    engine = Engine(made, "loo", 2)
    engine.reset([0, 1])
    lots = engine.items.lots(engine.prospect.available)
    result = engine.step(lots | only(engine, 1, "quit"))
    for _ in range(2):
        assert not result.rewards[:, 1].any()
        shared = 100 * (result.credit + 0.5 * result.gain[:, None]) - result.cost
        torch.testing.assert_close(result.rewards[:, [0, 2, 3]], shared[:, [0, 2, 3]])
        result = engine.step(lots)


def test_an_audit_names_the_lever_as_the_reason():
    made = scenario.load("digits", principals=4, horizon=2, profiles=[], conduct=conduct("block"), **{"reward.scale": 1.0})

    class Blocking(agents.Agent):
        made_for = "any"

        def choose(self, observations: Tensor) -> Tensor:
            chosen = torch.ones(*observations.shape[:2], self.layout.n_items, dtype=torch.bool)
            chosen[:, 1:, -1] = False
            return chosen

    found = Findings(audit(made, Blocking, credit="loo", episodes=2))
    assert found.totals.contributed[0] == 2 * 2 * 16
    assert found.totals.objected[0] == found.totals.blocked[0] == 2 * 2 * 12
    assert found.totals.left_out[0] == 0
    assert [(account.account, account.objected) for account in found.accounts] == [("block", 48)]


def test_strict_and_lax_together_multiply():
    engine = engine_of("digits", "strict", "lax")
    engine.reset([5, 6])
    true = engine.profiles.tolerance
    everyone = torch.ones(2, 4, engine.num_items, dtype=torch.bool)
    engine.step(everyone)
    torch.testing.assert_close(engine.prospect.verdicts.profiles.tolerance, true, rtol=1e-12, atol=0)


def test_who_blocks_objects_to_all_that_others_send_in_that_round():
    engine = engine_of("digits", "echo", "block")
    play(engine, 1)
    free = engine.prospect.passes & engine.prospect.available
    everything = torch.ones(2, 4, engine.num_items, dtype=torch.bool)
    everything[..., -1] = False
    result = engine.step(everything | only(engine, 2, "block"))
    others = [0, 1, 3]
    assert result.blocked_by[:, others, :, 2].all()
    assert not result.admitted[:, others].any()
    assert torch.equal(result.admitted[:, 2], free[:, 2])  # nobody else blocks
    through = engine.round.let_through(torch.tensor([[True, True, False, True], [False, False, True, False]]))
    assert through[:, 0, others].any()
    assert not through[:, 1, others].any()
    result = engine.step(everything)
    assert result.admitted[:, others].any()


@pytest.mark.parametrize(("governance", "enters"), [("quorum", True), ("weighted", True), ("unanimous", False)])
def test_one_objection_counts_as_the_governance_says(governance, enters):
    made = scenario.load(
        "digits", principals=4, profiles=[], conduct=conduct("block"), **{"screening.governance": governance, "reward.scale": 1.0}
    )
    engine = Engine(made, "loo", 1)
    engine.reset([0])
    chosen = torch.ones(1, 4, engine.num_items, dtype=torch.bool)
    chosen[:, 1:, -1] = False
    admitted = engine.step(chosen).admitted
    assert bool(admitted[:, 1:].all()) == enters
    assert bool(admitted[:, 1:].any()) == enters
    assert admitted[:, 0].all()


@pytest.mark.parametrize("rule", ["equal", "shapley", "g_shapley"])
def test_who_quits_sends_nothing_is_paid_nothing_and_objects_to_nothing_from_then_on(rule):
    engine = engine_of("digits", "twin", "lax", "quit", rule=rule)
    play(engine, 1)
    everything = torch.ones(2, 4, engine.num_items, dtype=torch.bool)
    everything[..., -1] = False
    result = engine.step(everything | only(engine, 1, "quit"))
    for turn in range(3):
        assert not result.contributed[:, 1].any()
        assert not result.credit[:, 1].any()
        assert not result.rewards[:, 1].any() or turn == 0
        assert result.credit[:, [0, 2, 3]].any()
        assert not engine.prospect.choosable[:, 1].any()
        assert not engine.prospect.blocked_by[..., 1].any()
        result = engine.step(everything)
    engine.reset()
    assert engine.prospect.choosable[:, 1, -1].all()


def test_batches_play_as_single_cooperatives_and_twice_the_same():
    names = (*FORGERIES, *LEVERS[:-1])
    together = engine_of("digits-mean", *names, num_envs=3)
    chosen = play(together, 4, seed=2)
    first = [result.rewards for result in together.history]
    play(together, 4, seed=2)
    assert all(torch.equal(a, b.rewards) for a, b in zip(first, together.history, strict=True))
    for e in range(3):
        alone = engine_of("digits-mean", *names, num_envs=1)
        alone.reset([5 + e])
        for one, result in zip(chosen, together.history, strict=True):
            torch.testing.assert_close(alone.step(one[e : e + 1]).rewards[0], result.rewards[e], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(alone.observations[0], together.observations[e], rtol=1e-5, atol=1e-5)


def test_every_item_has_a_block_that_says_what_it_is_and_a_name():
    engine = engine_of("digits", "echo", "twin", "lax")
    chosen = play(engine, 2)[-1]
    layout = engine.layout
    assert layout.items == ("echo", "twin", "lax")
    blocks, _ = layout.split(engine.observations)
    kinds = blocks[..., [layout.lot_features.index(f"is/{name}") for name in ("lot", *layout.items)]]
    expected = torch.eye(4)[[0] * engine.num_lots + [1, 2, 3]]
    assert torch.equal(kinds, expected.expand_as(kinds))
    last = layout.item(engine.observations, "last_contributed").bool()
    result = engine.history[-1]
    assert torch.equal(last, torch.cat([result.contributed, result.pulled], dim=-1))
    assert torch.equal(last[..., :-1] & ~chosen[..., :-1], torch.zeros_like(last[..., :-1]))
    assert list(layout.slices)[layout.slices["lax/loss"].start] == "lax/loss"
    assert set(layout.describe()) == {*layout.lot_features, *layout.agent_features}
    norm = layout.item(engine.observations, "norm")
    assert torch.allclose(norm[..., engine.num_lots + 1], norm[..., 1], atol=1e-5)  # the twin's is that of its lot
    assert layout.differences(Engine("digits", None).layout)[0].startswith("it has") or True


def test_two_of_a_kind_have_names_of_their_own():
    engine = engine_of("digits", "twin")
    made = engine.scenario.model_copy(
        update={"conduct": type(engine.scenario.conduct).model_validate({"forgeries": [{"kind": "twin"}, {"kind": "twin", "of": 2}]})}
    )
    assert made.conduct.names == ("twin", "twin_2")


@pytest.mark.parametrize("agent", ["all", "none", "honest", "oracle", "random"])
def test_agents_that_choose_among_lots_forge_nothing(agent):
    engine = engine_of("digits", "echo", "twin", "lax", "quit")
    agents.play(engine, agents.make(agent), [1, 2])
    for result in engine.history:
        assert not result.contributed[..., engine.num_lots :].any()
        assert not result.pulled.any()
    assert engine.history[-1].contributed.any() == (agent != "none")


@pytest.mark.parametrize("agent", ["planner", "measuring_planner", "best_reply"])
def test_references_may_use_every_item_and_do_no_worse_than_without(agent):
    engine = engine_of("digits", "twin", "boost", "claim", "quit", rule="loo")
    plain = engine_of("digits", rule="loo")
    welfare = [agents.play(one, agents.make(agent), [1, 2])["welfare"].mean() for one in (engine, plain)]
    if agent == "measuring_planner":
        assert welfare[0] > welfare[1] - 1
    assert any(result.chosen[..., engine.num_lots :].any() for result in engine.history)


def test_a_best_reply_pays_as_what_it_tried():
    """Nothing that one proxy could do alone would have paid it more."""
    made = engine_of("digits", "boost", "claim", "quit").scenario
    share = made.model_copy(update={"reward": made.reward.model_copy(update={"public_share": 0.3})})
    engine = Engine(share, "data_size", 1, dtype=torch.float64)
    engine.reset([5])
    engine.step(engine.items.lots(engine.prospect.available) | only(engine, 3, "quit"))
    chosen = torch.zeros(1, 4, engine.num_items, dtype=torch.bool)
    chosen[:, :, 1] = True
    reply = agents.equilibrium.best_reply(engine, chosen, 2)
    paid = []
    for code in range(2**engine.num_items):
        trial = engine.fork()
        trial.rule, trial.rule_name = engine.rule, engine.rule_name
        one = chosen.clone()
        one[0, 2] = torch.tensor([bool(code >> k & 1) for k in range(engine.num_items)])
        paid.append(float(trial.step(one).rewards[0, 2]))
    code = int((reply[0] * 2 ** torch.arange(engine.num_items)).sum())
    assert paid[code] == pytest.approx(max(paid), abs=1e-9)
    assert max(paid) > paid[2] + 0.1


def test_metrics_have_the_share_of_rounds_of_each_item():
    engine = engine_of("digits", "echo", "twin", "lax", "claim")
    chosen = play(engine, 4, seed=7)
    metrics = episode_metrics(engine)
    twin = torch.stack([one[..., engine.num_lots + 1] for one in chosen]).double().mean(dim=(0, 2))
    torch.testing.assert_close(metrics["sent/twin"], twin)
    holds = engine.profiles.tolerates
    pulled = torch.stack([one[..., engine.num_lots + 2] for one in chosen]) & holds
    torch.testing.assert_close(metrics["pulled/lax"], pulled.sum(dim=(0, 2)) / (4 * holds.sum(dim=1)).double())
    torch.testing.assert_close(metrics["declared/larger"], metrics["pulled/lax"])
    assert (metrics["declared/smaller"] == 0).all()
    clean = ~engine.lots.corrupt
    lots = torch.stack([one[..., : engine.num_lots] for one in chosen])
    torch.testing.assert_close(metrics["clean_share"], (lots & clean).sum(dim=(0, 2, 3)) / (4.0 * clean.sum(dim=(1, 2))).double())


def test_levers_that_cancel_each_other_declare_the_truth():
    levers = [{"kind": "strict", "factor": 0.2}, {"kind": "lax", "factor": 5}, {"kind": "lax", "factor": 2}]
    engine = Engine(scenario.load("digits", conduct={"levers": levers}), "loo", 1)
    engine.reset([0])
    # of the holders: truth (.2 × 5), larger (.2 × 5 × 2), smaller (.2 × 2), larger (5), smaller (.2), truth (nothing)
    rounds = [(1, 1, 0), (1, 1, 1), (1, 0, 1), (0, 1, 0), (1, 0, 0), (0, 0, 0)]
    for one in rounds:
        chosen = torch.zeros(1, engine.num_agents, engine.num_items, dtype=torch.bool)
        chosen[..., engine.num_lots :] = torch.tensor(one, dtype=torch.bool)
        engine.step(chosen)
    metrics = episode_metrics(engine)
    assert float(metrics["declared/larger"]) == pytest.approx(2 / 6)
    assert float(metrics["declared/smaller"]) == pytest.approx(2 / 6)
    assert float(metrics["pulled/strict"]) == pytest.approx(4 / 6)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"conduct": {"forgeries": [{"kind": "twin", "of": 4}]}}, r"conduct.forgeries.0.of.*lots go from 0 to 3"),
        ({"conduct": {"forgeries": [{"kind": "tween"}]}}, r"conduct.forgeries.0.*'echo', 'noise', 'twin'"),
        ({"conduct": {"forgeries": [{"kind": "boost", "factor": 1}]}}, r"factor.*greater than 1"),
        ({"conduct": {"levers": [{"kind": "lax", "factor": 0.5}]}}, r"factor.*greater than 1"),
        ({"conduct": {"levers": [{"kind": "quit"}, {"kind": "quit"}]}}, r"'quit' 2 times"),
        ({"conduct": {"levers": [{"kind": "block"}]}, "screening.governance": "own"}, r"'block' needs .*governance unanimous"),
        ({"conduct": {"levers": [{"kind": "lax"}]}, "profiles": []}, r"'lax' declares other tolerances, and here is none"),
        (
            {"conduct": {"levers": [{"kind": "bid"}]}},
            r"conduct.levers.0.kind.*'bid' bids for places, and here is no auction: add admission",
        ),
        ({"conduct": {"levers": [{"kind": "claim", "cost": -1}]}}, r"cost.*greater than or equal to 0"),
        ({"conduct": {"forgeries": [{"kind": "echo"}] * 17}}, r"17 forgeries and levers: there may be 16 at most"),
        ({"conduct": {"levers": [{"kind": "block"}]}, "screening": {"governance": "none"}}, r"'block' needs .*governance unanimous"),
        ({"conduct": {"levers": [{"factor": 2}]}}, r"levers: each must have a kind, as in {kind: claim}, one of claim, strict, lax, block"),
        ({"conduct": {"forgeries": {"kind": "echo"}}}, r"forgeries: must be a list, such as \[{kind: echo}\]"),
        ({"conduct": {"forgeries": ["echo"]}}, r"each must have a kind, as in {kind: echo}, one of echo, noise, .* \(got 'echo'\)"),
        ({"conduct": {"levers": [{"kind": "claim", "factor": 1}]}}, r"factor=1 claims what there is"),
        ({"conduct": {"forgeries": [{"kind": "stale", "rounds": 16}]}}, r"rounds=16: an episode has 16 rounds: must be fewer"),
        ({"conduct": {"forgery": []}}, r"unknown key 'conduct.forgery'; did you mean 'forgeries'"),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_place(changes, said):
    with pytest.raises(ValueError, match=said):
        scenario.load("digits", **changes)


def test_actions_of_another_shape_are_refused_with_the_items():
    engine = engine_of("digits", "echo", "lax")
    engine.reset([0, 1])
    with pytest.raises(ValueError, match=r"\(num_envs, num_agents, num_items: 4 lots, echo, lax\) = \(2, 4, 6\)"):
        engine.step(torch.zeros(2, 4, 4))


def test_compiled_rounds_have_no_conduct():
    with pytest.raises(ValueError, match="compile=True cannot serve scenario 'digits': conduct"):
        Engine(scenario.load("digits", conduct=conduct("echo")), "loo", compile=True)


def test_text_and_picture_say_what_was_declared_and_who_has_left():
    engine = engine_of("digits", "lax", "quit", num_envs=1)
    engine.reset([5])
    holder = int(engine.profiles.tolerates[0].nonzero()[0, 0])
    other = (holder + 1) % 4
    engine.step(only(engine, holder, "lax"))
    assert "declared" not in render_text(engine)
    engine.step(only(engine, other, "quit"))
    text = render_text(engine)
    assert f"declared, of the own tolerances: proxy_{holder} 5 times" in text
    assert f"left: proxy_{other}" in text
    assert render_picture(engine).ndim == 3
    engine.step(only(engine, holder))
    assert "declared" not in render_text(engine)
    assert f"left: proxy_{other}" in render_text(engine)


def test_who_objects_in_the_round_in_which_it_leaves_still_objects():
    engine = engine_of("digits", "block", "quit", num_envs=1)
    engine.reset([5])
    lots = torch.ones(1, 4, engine.num_items, dtype=torch.bool)
    lots[..., engine.num_lots :] = False
    result = engine.step(lots | only(engine, 1, "block", "quit"))
    assert result.blocked_by[0, [0, 2, 3], :, 1].all()
    assert not result.admitted.any()
    assert not engine.prospect.blocked_by[..., 1].any()
