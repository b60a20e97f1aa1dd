"""The engine: determinism on any batch size, rewards by hand, copies, weights, what observations say, errors."""

import math
from copy import copy
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from proxycoop import credit
from proxycoop.envs import Engine, Scenario, scenario
from proxycoop.envs.records import RoundResult

SHORT = {"reward.scale": 1.0, "horizon": 3}
SEEDS = [5, 0, 2**63 - 1, 17, 5, 123456789, 1, 2, 3, 4, 6]
COOPERATIVES: dict[str, tuple[str, dict[str, object]]] = {
    "digits": ("digits", {}),
    "digits-mean": ("digits-mean", {}),
    "digits-provenance": ("digits-provenance", {}),
    "breast_cancer": ("breast_cancer", {}),
    "traversal": ("digits", {"substrate": {"kind": "traversal", "batch": 64}}),
    "mlp": ("breast_cancer", {"model": {"kind": "mlp", "hidden": [6]}, "start.steps": 5}),
    "limits": (
        "digits",
        {
            "profiles": [{"holders": 2, "limits": {"eights": 0.05}}, {"holders": 2, "relative_limits": {"nines": 0.02}}],
            "screening": {"harm": "measured", "guard": True},
        },
    ),
    "adam, quorum, guard": ("digits", {"server": {"kind": "adam"}, "screening": {"governance": "quorum", "guard": True}}),
}


def load(kind: str, **overrides: object) -> Scenario:
    name, settings = COOPERATIVES[kind]
    return scenario.load(name, **{**settings, "horizon": 4, **overrides})


def play(engine: Engine, seeds: list[int], actions: Tensor) -> tuple[list[Tensor], list[RoundResult]]:
    """Two consecutive whole episodes with given actions ``(2, T, E, N, K)``: what was drawn, and what happened."""
    drawn, results = [], []
    for episode in range(2):
        first = engine.reset(seeds if episode == 0 else None)
        lots, profiles = engine.lots, engine.profiles
        drawn += [lots.x, lots.y, lots.corrupt, lots.tags, profiles.tolerance, profiles.forbidden, profiles.max_norm, first]
        results += [engine.step(actions[episode, t]) for t in range(engine.horizon)]
        assert results[-1].done
    return drawn, results


def random_actions(engine: Engine, seed: int = 0, episodes: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (episodes, engine.horizon, engine.num_envs, engine.num_agents, engine.num_lots)
    return torch.rand(shape, generator=generator) < 0.7


EXACT = ("contributed", "admitted", "blocked_by", "violated", "forbidden_used")
CLOSE = ("observations", "rewards", "credit", "gain", "utility", "value_losses", "harm", "kept", "tolerance", "step_harm", "gamma", "cost")
CLOSE += ("left",)


@pytest.mark.parametrize("size", [5, *(pytest.param(size, marks=pytest.mark.slow) for size in (2, 11))])
@pytest.mark.parametrize("kind", COOPERATIVES)
def test_environment_e_of_a_batch_is_the_single_environment_with_its_seed(kind: str, size: int) -> None:
    not_here = {"pulled", "passed", "payments", "lot_credit", "bargain", "revenue", "payouts", "present"}
    assert {"evaluations", "done", *not_here, *EXACT, *CLOSE} == {field.name for field in fields(RoundResult)}
    made, seeds = load(kind), SEEDS[:size]
    batch, single = Engine(made, "shapley", size), Engine(made, "shapley")
    actions = random_actions(batch)
    drawn, results = play(batch, seeds, actions)
    for e in {0, size // 2, size - 1}:
        alone_drawn, alone_results = play(single, seeds[e : e + 1], actions[:, :, e : e + 1])
        for a, b in zip(drawn, alone_drawn, strict=True):
            if a.dtype == torch.float32 and a.shape[-1] == batch.layout.size:
                torch.testing.assert_close(a[e], b[0], rtol=1e-5, atol=1e-5)  # the first observations
            else:
                assert torch.equal(a[e], b[0])
        for a, b in zip(results, alone_results, strict=True):
            for name in EXACT:
                assert torch.equal(getattr(a, name)[e], getattr(b, name)[0]), name
            for name in CLOSE:
                slack = batch.reward_scale * 1e-6 if name in ("rewards", "observations") else 1e-5  # 1e-6 of a nat, in reward units
                torch.testing.assert_close(getattr(a, name)[e], getattr(b, name)[0], rtol=1e-5, atol=slack, msg=name)


@pytest.mark.parametrize("kind", ["digits", "breast_cancer", "traversal"])
def test_in_double_precision_batch_and_single_agree_to_rounding(kind: str) -> None:
    made = load(kind)
    batch, single = Engine(made, "shapley", 5, dtype=torch.float64), Engine(made, "shapley", dtype=torch.float64)
    actions = random_actions(batch)
    _, results = play(batch, SEEDS[:5], actions)
    _, alone = play(single, SEEDS[3:4], actions[:, :, 3:4])
    for a, b in zip(results, alone, strict=True):
        for name in CLOSE:
            slack = 1e-6 if name == "observations" else 1e-9  # observations are float32 always
            torch.testing.assert_close(getattr(a, name)[3], getattr(b, name)[0], rtol=slack, atol=slack, msg=name)


@pytest.mark.parametrize("kind", COOPERATIVES)
def test_the_same_seeds_give_exactly_the_same_trajectory_and_others_another(kind: str) -> None:
    made = load(kind)
    engine = Engine(made, "shapley", 3)
    actions = random_actions(engine)
    drawn, results = play(engine, [1, 2, 1], actions)
    for again in (engine, Engine(made, "shapley", 3)):
        drawn_2, results_2 = play(again, [1, 2, 1], actions)
        assert all(torch.equal(a, b) for a, b in zip(drawn, drawn_2, strict=True))
        for a, b in zip(results, results_2, strict=True):
            assert all(torch.equal(getattr(a, name), getattr(b, name)) for name in EXACT + CLOSE)
    x, next_x = drawn[0], drawn[8]  # the lots of the two episodes
    assert torch.equal(x[0], x[2])
    assert not torch.equal(x[0], x[1])
    assert not torch.equal(x[0], next_x[0])


def test_an_episode_can_be_entered_by_its_number() -> None:
    engine = Engine(load("digits", **SHORT), None)
    engine.reset([4])
    engine.reset()
    engine.reset()
    third = engine.lots.x
    assert engine.episode == 2
    engine.reset([4], episode=2)
    assert torch.equal(engine.lots.x, third)


def test_without_a_seed_the_system_draws_one_and_the_next_reset_goes_on_from_it() -> None:
    one, two = (Engine(load("digits", **SHORT), None, 4) for _ in range(2))
    one.reset()
    two.reset()
    assert not torch.equal(one.seeds, two.seeds)
    assert (one.seeds >= 0).all()
    seeds = one.seeds.tolist()
    one.reset()
    two.reset(seeds, episode=1)
    assert torch.equal(one.lots.x, two.lots.x)


def test_global_random_state_is_neither_read_nor_moved() -> None:
    engine = Engine(load("mlp", **SHORT), "shapley", 2)
    drawn = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        engine.reset([3, 4])
        engine.step(torch.ones(2, 6, 4))
        assert torch.equal(before, torch.get_rng_state())
        drawn.append(engine.theta)
    assert torch.equal(*drawn)


# Rewards


def test_reward_is_credit_and_public_share_minus_costs_and_fines() -> None:
    reward = {"scale": 50.0, "contribution_cost": 0.2, "violation_penalty": 0.7, "public_share": 0.3}
    made = load("digits", reward=reward, profiles=[{"holders": 6, "tolerances": {"eights": 0.01}}], **{"screening.governance": "own"})
    engine = Engine(made, "loo", 3, dtype=torch.float64)
    engine.reset([1, 2, 3])
    actions = random_actions(engine)[0]
    fined = 0
    for t in range(4):
        utility = engine.prospect.utility
        harm = engine.prospect.harm[..., 0]
        result = engine.step(actions[t])
        for e in range(3):
            gain = float(result.utility[e] - utility[e])
            for i in range(6):
                n_violations = sum(bool(actions[t, e, i, k]) and float(harm[e, i, k]) > 0.01 for k in range(4))
                cost = 0.2 * int(actions[t, e, i].sum()) + 0.7 * n_violations
                expected = 50 * float(result.credit[e, i]) - cost + 0.3 * 50 * gain
                assert result.cost[e, i].item() == pytest.approx(cost)
                assert result.rewards[e, i].item() == pytest.approx(expected, abs=1e-6)
                fined += n_violations
    assert fined > 0


def test_costs_of_a_double_precision_engine_are_double_precision() -> None:
    engine = Engine(load("digits", **SHORT, **{"reward.violation_penalty": 0.0}), None, dtype=torch.float64)
    engine.reset([1])
    assert engine.step(torch.ones(1, 6, 4)).cost[0, 0].item() == pytest.approx(4 * 0.15, abs=1e-12)


def test_a_fine_is_for_the_own_profile_alone_and_for_contributed_lots_alone() -> None:
    made = load("digits", profiles_drawn=False, profiles=[{"tolerances": {"eights": 0.0}}], **SHORT)
    engine = Engine(made, None, 2)
    engine.reset([1, 2])
    assert engine.prospect.blocked_by[:, 1:].any()  # principal 0 blocks updates of others too, who are not fined
    result = engine.step(torch.ones(2, 6, 4))
    own = engine.history[0].blocked_by[:, 0, :, 0].sum(dim=-1)
    expected = torch.full((2, 6), 0.6)
    expected[:, 0] += 0.1 * own
    torch.testing.assert_close(result.cost, expected)
    assert not engine.step(torch.zeros(2, 6, 4)).cost.any()


@pytest.mark.parametrize("name", ["digits", "breast_cancer"])
def test_auto_scale_makes_a_good_episode_worth_n_times_t(name: str) -> None:
    made = scenario.load(name, horizon=6)
    bare = scenario.load(name, horizon=6, **{"reward.scale": 1.0, "screening": {"governance": "none", "guard": False}})
    engine = Engine(bare, None, 32)
    engine.reset(range(32))
    for _ in range(6):
        engine.step(~engine.lots.corrupt)
    gain = float((engine.prospect.utility - engine.initial_utility).mean())
    assert gain > 0
    assert Engine(made, None).reward_scale == pytest.approx(made.principals * 6 / gain, rel=1e-6)


def test_nobody_is_paid_without_a_rule() -> None:
    engine = Engine(load("digits", **SHORT), None)
    engine.reset([1])
    result = engine.step(torch.ones(1, 6, 4))
    assert not result.credit.any()
    torch.testing.assert_close(result.rewards, -result.cost)
    torch.testing.assert_close(engine.credit_so_far, torch.zeros(1, 6))


# Copies, test set


def test_a_copy_sits_on_the_originals_lots_and_its_updates_are_the_same() -> None:
    made = load("digits", **SHORT, **{"lots.rows": [3, 20, 7, 11, 1, 16]})
    engine, plain = Engine(made, "shapley", 2, dtype=torch.float64), Engine(made, None, 2, dtype=torch.float64)
    plain.reset([1, 2])
    engine.reset([1, 2], copies={5: 0, 2: 1})
    for copier, original in ((5, 0), (2, 1)):
        for part in ("x", "y", "corrupt", "tags"):
            assert torch.equal(getattr(engine.lots, part)[:, copier], getattr(plain.lots, part)[:, original])
        assert engine.lots.samples[copier].tolist() == plain.lots.samples[original].tolist()
        assert torch.equal(engine.prospect.proposals.updates[:, copier], engine.prospect.proposals.updates[:, original])
    assert torch.equal(engine.lots.x[:, [0, 1, 3, 4]], plain.lots.x[:, [0, 1, 3, 4]])
    assert torch.equal(engine.profiles.tolerance, plain.profiles.tolerance)  # a copy keeps its own principal
    result = engine.step(torch.ones(2, 6, 4))
    torch.testing.assert_close(result.credit[:, 5], result.credit[:, 0])  # symmetry of the Shapley value
    engine.reset([1, 2])
    assert torch.equal(engine.lots.x, plain.lots.x)  # the next reset forgets the copies


def test_test_measures_the_shared_model_on_test_rows_alone() -> None:
    engine = Engine(load("digits", **SHORT), None, 2, dtype=torch.float64)
    engine.reset([1, 2])
    engine.step(torch.ones(2, 6, 4))
    measures = engine.test()
    assert set(measures) == {"utility", "accuracy", "value/eights", "value/nines"}
    for e in range(2):
        weight = engine.theta[e].reshape(65, 10)
        rows = engine.splits.test
        logits = rows.x @ weight[:64] + weight[64]
        assert measures["utility"][e].item() == pytest.approx(-cross_entropy(logits, rows.y).item())
        assert measures["accuracy"][e].item() == pytest.approx((logits.argmax(dim=-1) == rows.y).double().mean().item())
        for name in ("eights", "nines"):
            rows = engine.splits.probe_test[name]
            assert measures[f"value/{name}"][e].item() == pytest.approx(cross_entropy(rows.x @ weight[:64] + weight[64], rows.y).item())


def test_utility_and_value_losses_of_a_round_are_measured_on_validation_and_probe_rows() -> None:
    engine = Engine(load("digits", **SHORT), None, dtype=torch.float64)
    engine.reset([1])
    result = engine.step(torch.ones(1, 6, 4))
    weight = engine.theta[0].reshape(65, 10)
    rows, probe = engine.splits.validation, engine.splits.probe["nines"]
    assert result.utility.item() == pytest.approx(-cross_entropy(rows.x @ weight[:64] + weight[64], rows.y).item())
    assert result.value_losses[0, 1].item() == pytest.approx(cross_entropy(probe.x @ weight[:64] + weight[64], probe.y).item())


def test_episodes_start_from_gradient_descent_on_the_public_rows() -> None:
    engine = Engine(load("digits", **SHORT, start={"steps": 4, "lr": 0.3}), None, dtype=torch.float64)
    engine.reset([1])
    rows, theta = engine.splits.public, torch.zeros(650, dtype=torch.float64)
    for _ in range(4):
        theta = theta.detach().requires_grad_()
        weight = theta.reshape(65, 10)
        theta = theta - 0.3 * torch.autograd.grad(cross_entropy(rows.x @ weight[:64] + weight[64], rows.y), theta)[0]
    torch.testing.assert_close(engine.theta[0], theta.detach())


# Observations


def test_observations_say_what_happened() -> None:
    engine = Engine(load("digits", **{"reward.scale": 40.0}), "shapley", 3, dtype=torch.float64)
    first, layout = engine.reset([1, 2, 3]), engine.layout
    assert first.dtype == torch.float32
    assert first.shape == (3, 6, layout.size)
    assert (layout.agent(first, "time") == 0).all()
    assert (layout.lot(first, "acceptance") == 0.5).all()
    assert (layout.lot(first, "cosine") == 0).all()
    assert layout.agent(first, "payout_share").flatten().tolist() == pytest.approx([1 / 6] * 18)
    actions, before = random_actions(engine)[0, 0], engine.theta.clone()
    result = engine.step(actions)
    seen, look = result.observations, engine.prospect

    def same(feature: Tensor, expected: Tensor) -> None:
        torch.testing.assert_close(feature, expected.expand(feature.shape).float(), rtol=1e-5, atol=1e-5)

    same(layout.agent(seen, "time"), torch.tensor(0.25))
    same(layout.agent(seen, "utility"), result.utility[:, None])
    same(layout.agent(seen, "last_credit"), 40 * result.credit)
    same(layout.agent(seen, "participation"), actions.double().mean(dim=-1))
    same(layout.agent(seen, "admitted_share"), (result.admitted.sum(dim=(1, 2)) / result.contributed.sum(dim=(1, 2)))[:, None])
    same(layout.agent(seen, "cost"), result.cost / ((0.15 + 0.1) * 4 * 4))
    same(layout.agent(seen, "utility_change"), (40 / 6 * result.gain)[:, None])
    same(layout.agent(seen, "value_loss/nines"), result.value_losses[:, 1:])
    positive = result.credit.clamp(min=0)
    same(layout.agent(seen, "payout_share"), positive / positive.sum(dim=1, keepdim=True))
    same(layout.lot(seen, "last_contributed"), result.contributed)
    same(layout.lot(seen, "last_admitted"), result.admitted)
    same(layout.lot(seen, "acceptance"), (result.admitted + 0.5) / (result.contributed + 1))
    norm = look.proposals.updates.norm(dim=-1)
    same(layout.lot(seen, "norm"), (norm / norm.mean(dim=(1, 2), keepdim=True)).log())
    step = (engine.theta - before)[:, None, None]
    same(layout.lot(seen, "cosine"), torch.cosine_similarity(look.proposals.updates, step, dim=-1))
    own = torch.stack([look.blocked_by[:, i, :, i] for i in range(6)], dim=1)
    same(layout.lot(seen, "own_admissible"), ~own)
    same(layout.agent(seen, "holds/eights"), engine.profiles.tolerance[..., 0].isfinite())
    same(layout.lot(seen, "harm/eights"), (look.harm[..., 0] / 0.36).clamp(-3, 3))
    assert torch.equal(engine.state(), seen.flatten(start_dim=1))


def test_observations_reveal_neither_which_lots_are_corrupt_nor_the_test_set() -> None:
    plain, other = (Engine(load("digits", **SHORT), "shapley") for _ in range(2))
    plain.reset([1])
    ground = other._ground
    ground.splits = replace(ground.splits, test=replace(ground.splits.test, x=ground.splits.test.x + 1))
    other.reset([1])
    other.lots.corrupt.logical_not_()
    for _ in range(2):
        assert torch.equal(plain.step(torch.ones(1, 6, 4)).observations, other.step(torch.ones(1, 6, 4)).observations)


# Errors


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(load("digits", **SHORT), "equal", 2)


def test_step_before_reset_and_after_the_end_say_to_reset() -> None:
    fresh = Engine(load("digits", **SHORT), None)
    with pytest.raises(RuntimeError, match=r"before the first reset.*call reset"):
        fresh.step(torch.ones(1, 6, 4))
    fresh.reset([1])
    for t in range(3):
        assert fresh.step(torch.ones(1, 6, 4)).done == (t == 2)
    with pytest.raises(RuntimeError, match=r"after the episode's 3 rounds.*call reset"):
        fresh.step(torch.ones(1, 6, 4))


@pytest.mark.parametrize("shape", [(6, 4), (1, 6, 4), (2, 4, 6), (2, 6, 4, 1), (2, 24), ()])
def test_actions_of_another_shape_are_refused(engine: Engine, shape: tuple[int, ...]) -> None:
    engine.reset([1, 2])
    with pytest.raises(ValueError, match=r"num_lots\) = \(2, 6, 4\)"):
        engine.step(torch.zeros(shape))
    assert engine.t == 0


@pytest.mark.parametrize("value", [0.5, 2, -1, math.nan, math.inf])
def test_actions_other_than_zero_and_one_are_refused(engine: Engine, value: float) -> None:
    engine.reset([1, 2])
    actions = torch.ones(2, 6, 4)
    actions[1, 5, 3] = value
    with pytest.raises(ValueError, match=r"0 \(withhold\) or 1 \(contribute\)"):
        engine.step(actions)
    assert engine.t == 0


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float32, torch.uint8])
def test_actions_may_be_of_any_type(engine: Engine, dtype: torch.dtype) -> None:
    engine.reset([1, 2])
    actions = torch.arange(48).reshape(2, 6, 4) % 2
    assert torch.equal(engine.step(actions.to(dtype)).contributed, actions.bool())


@pytest.mark.parametrize(
    ("seeds", "complaint"),
    [([1], "1 entries for 2"), ([1, 2, 3], "3 entries for 2"), ([1, -1], "seed=-1"), ([1, 2**63], "from 0 to 2"), ([1, 1.5], "seed=1.5")],
)
def test_wrong_seeds_are_refused(engine: Engine, seeds: list[float], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        engine.reset(seeds)  # type: ignore[arg-type]


@pytest.mark.parametrize("copies", [{6: 0}, {0: 6}, {-1: 0}])
def test_copies_of_seats_that_do_not_exist_are_refused_and_leave_the_episode_alone(engine: Engine, copies: dict[int, int]) -> None:
    engine.reset([1, 2])
    seeds, tolerance = engine.seeds, engine.profiles.tolerance
    with pytest.raises(ValueError, match="seats go from 0 to 5"):
        engine.reset([7, 8], copies=copies)
    assert torch.equal(engine.seeds, seeds)
    assert torch.equal(engine.profiles.tolerance, tolerance)


@pytest.mark.parametrize("num_envs", [0, -3])
def test_a_batch_needs_an_environment(num_envs: int) -> None:
    with pytest.raises(ValueError, match=f"num_envs={num_envs}"):
        Engine(load("digits", **SHORT), None, num_envs)


def test_unknown_credit_rules_are_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown credit rule 'shaply'.*did you mean 'shapley'"):
        Engine(load("digits", **SHORT), "shaply")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("gain", r"answered with \(2,\)"),
        ("nan", "not finite in round 0"),
        ("inf", "not finite in round 0"),
        ("-inf", "not finite in round 0"),
        ("list", "answered with list"),
    ],
)
def test_a_rule_that_answers_wrongly_is_named(answer: str, said: str) -> None:
    class Wrong(credit.CreditRule):
        def assign(self, round: credit.Round) -> Tensor:
            if answer in ("nan", "inf", "-inf"):
                return torch.tensor([[0.0] * 6, [0.0] * 5 + [float(answer)]])
            return {"gain": round.gain, "list": [[0.0] * 6] * 2}[answer]

    engine = Engine(scenario.load("breast_cancer"), Wrong(), 2)
    engine.reset([0, 1])
    with pytest.raises(ValueError, match=f"credit rule Wrong .*{said}"):
        engine.step(torch.ones(2, 6, 4))


@pytest.mark.parametrize(
    ("rule", "name"),
    [
        ("shapley(budget=20, seed=1)", "shapley(budget=20, seed=1)"),
        (credit.make("shapley(budget=20)"), "shapley"),
        (credit.make("loo"), "loo"),
        (None, "none"),
    ],
)
def test_an_engine_knows_what_its_rule_is_called(rule: credit.CreditRule | str | None, name: str) -> None:
    assert Engine(load("digits", **SHORT), rule).rule_name == name


def test_a_model_that_diverges_is_said_to() -> None:
    engine = Engine(scenario.load("breast_cancer"), "loo")
    engine.reset([0])
    engine.theta = torch.full_like(engine.theta, torch.nan)
    engine.prospect = engine._look()
    with pytest.raises(ValueError, match="diverged in round 0: lower the learning rates"):
        engine.step(torch.ones(1, 6, 4))


def test_one_lot_that_overflows_does_not_blind_the_others() -> None:
    engine = Engine(scenario.load("breast_cancer"), None)
    engine.reset([0])
    engine.lots.inputs[0, 0, 0] = torch.inf
    engine.prospect = engine._look()
    norm = engine.layout.lot(engine._observe(), "norm")
    assert (norm[0, 1:].abs() < 5).all()


def test_forbidden_data_in_a_step_is_told_although_no_guard_can_undo_it() -> None:
    for governance, used in (("own", True), ("unanimous", False)):
        engine = Engine(scenario.load("digits-provenance", **{"screening.governance": governance, "screening.guard": True}), None, 8)
        engine.reset(range(8))
        result = engine.step(torch.ones(8, 6, 4))
        assert bool(result.forbidden_used.any()) == used
        assert not result.violated.any()


def test_an_episode_without_seeds_is_refused() -> None:
    engine = Engine(scenario.load("breast_cancer"), None)
    with pytest.raises(ValueError, match="episode=7 needs seeds"):
        engine.reset(episode=7)
    with pytest.raises(ValueError, match="seed='a'"):
        engine.reset(["a"])


@pytest.mark.parametrize("seeds", [{3, 1}, {3: 0, 1: 0}, "12", b"ab", torch.tensor(5)])
def test_seeds_that_are_no_list_are_refused(engine: Engine, seeds: object) -> None:
    with pytest.raises(ValueError, match="must be a list with one seed per environment"):
        engine.reset(seeds)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"episode": 2**63}, "episode=9223372036854775808: must be a whole number from 0 to"),
        ({"copies": [(0, 1)]}, r"copies=\[\(0, 1\)\]: must be a dictionary"),
        ({"copies": "01"}, "copies='01': must be a dictionary"),
    ],
)
def test_wrong_arguments_of_reset_are_refused(engine: Engine, wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        engine.reset([1, 2], **wrong)


@pytest.mark.parametrize("wrong", [{"dtype": torch.float16}, {"dtype": "float64"}, {"dtype": torch.int64}, {"names": "split"}])
def test_another_dtype_and_names_that_are_none_are_refused(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=f"^{name}="):
        Engine("breast_cancer", "loo", **wrong)


@pytest.mark.parametrize("rule", ["smoothed(rule='loo')", "aristocrat"])
def test_two_engines_that_share_a_rule_with_a_memory_cannot_mix_their_episodes(rule: str) -> None:
    shared = credit.make(rule)
    one, other = (Engine(load("breast_cancer"), shared) for _ in range(2))
    everything = torch.ones(1, one.num_agents, one.num_lots)
    for engine in (one, other):  # one after the other is fine
        engine.reset([0])
        engine.step(everything)
    with pytest.raises(RuntimeError, match=r"has a memory.*give each engine a rule of its own"):
        one.step(everything)
    other.step(everything)


def test_a_shallow_copy_of_an_engine_leaves_the_engine_alone() -> None:
    engine = Engine(load("breast_cancer"), "smoothed(rule='loo')")
    engine.reset([0])
    everything = torch.ones(1, engine.num_agents, engine.num_lots)
    engine.step(everything)
    other = copy(engine)
    theirs = other.step(0 * everything)
    assert (len(engine.history), engine.t) == (1, 1)
    assert not torch.equal(engine.step(everything).rewards, theirs.rewards)
    again = Engine(load("breast_cancer"), "smoothed(rule='loo')")
    again.reset([0])
    again.step(everything)
    assert torch.equal(again.step(everything).rewards, engine.history[-1].rewards)
