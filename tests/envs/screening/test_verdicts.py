"""Screening: who blocks what, governance at its boundaries, and no applied step beyond anybody's tolerance."""

import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from proxycoop.envs import Engine, scenario
from proxycoop.envs.data.lots import LotSource
from proxycoop.envs.screening.harm import predicted_harm
from proxycoop.envs.screening.profiles import Profile, Profiles, ProfileTable
from proxycoop.envs.screening.verdicts import Screening, Verdicts, admissible, exceeds, guard_factor, inadmissible_to

UNSCALED = {"reward.scale": 1.0}  # saves the reference episodes; rewards do not matter here
GUARDED = {
    "none": {"screening": {"governance": "none", "guard": True}},
    "own": {"screening": {"governance": "own", "guard": True}},
    "quorum": {"screening": {"governance": "quorum", "quorum": 0.4, "guard": True}},
    "momentum": {"server": {"kind": "sgd", "momentum": 0.9}, "screening.guard": True},
    "adam": {"server": {"kind": "adam", "lr": 0.03}, "screening.guard": True},
}


def play(engine: Engine, seed: int = 0) -> None:
    """An episode of random proxies."""
    generator = torch.Generator().manual_seed(seed)
    engine.reset(range(100, 100 + engine.num_envs))
    while engine.t < engine.horizon:
        engine.step(torch.rand(engine.num_envs, engine.num_agents, engine.num_lots, generator=generator) < 0.7)


def excess(engine: Engine) -> Tensor:
    """Harm beyond the strictest tolerance in every round, ``(T, E, M)``."""
    harm = torch.stack([result.step_harm for result in engine.history])
    return harm - engine.profiles.tolerance.amin(dim=1)


def loaded(name: str, **overrides: object) -> scenario.Scenario:
    made = scenario.load(name, **{**UNSCALED, **overrides})
    tolerant = made.unlimited()
    if "screening.guard" in overrides or "guard" in dict(overrides.get("screening", {})):  # type: ignore[call-overload]
        return made.model_copy(update={"profiles": tolerant.profiles})
    return tolerant


def tightened(name: str, **overrides: object) -> scenario.Scenario:
    """The scenario with tolerances a fifth of what they are, so that steps which nobody screens do exceed them."""
    profiles = [profile.model_dump() for profile in scenario.load(name).unlimited().profiles]
    for profile in profiles:
        profile["tolerances"] = {value: 0.2 * tolerance for value, tolerance in profile["tolerances"].items()}
    return loaded(name, **{"profiles": profiles, **overrides})


@pytest.mark.parametrize("load", [loaded, tightened])
@pytest.mark.parametrize("name", scenario.names())
def test_unanimous_screening_alone_keeps_200_rounds_of_random_proxies_within_every_tolerance(
    name: str, load: Callable[[str], scenario.Scenario]
) -> None:
    made = load(name)
    engine = Engine(made, None, num_envs=max(16, -(-200 // made.horizon)))
    play(engine)
    assert engine.num_envs * engine.horizon >= 200
    assert any(bool((result.admitted != result.contributed).any()) for result in engine.history)  # something was screened out
    assert excess(engine).max() <= 1e-5
    assert not any(bool(result.violated.any()) for result in engine.history)


@pytest.mark.parametrize("name", scenario.names())
def test_without_screening_steps_exceed_tolerances(name: str) -> None:
    engine = Engine(tightened(name, **{"screening.governance": "none"}), None, num_envs=16)
    play(engine)
    assert (excess(engine) > 1e-3).sum() > 0
    assert sum(int(result.violated.sum()) for result in engine.history) > 0


def each_once(names: list[str], kinds: dict[str, object], *whole: str) -> list[object]:
    """Pairs of a scenario and a kind: all kinds with the scenarios named, each other scenario with one kind, the rest slow."""
    turn = dict(zip(names, itertools.cycle(kinds), strict=False))
    return [
        pytest.param(name, kind, marks=() if name in whole or kind == turn[name] else pytest.mark.slow) for name in names for kind in kinds
    ]


@pytest.mark.parametrize(("name", "kind"), each_once(scenario.names(), GUARDED, "breast_cancer"))
def test_guard_keeps_200_rounds_within_every_tolerance_where_screening_alone_does_not(name: str, kind: str) -> None:
    load = loaded if "server" in GUARDED[kind] else tightened
    engine = Engine(load(name, **GUARDED[kind]), None, num_envs=16)
    play(engine)
    gamma = torch.stack([result.gamma for result in engine.history])
    assert excess(engine).max() <= 1e-5
    assert not any(bool(result.violated.any()) for result in engine.history)
    assert (gamma <= 1).all()
    assert (gamma >= 0).all()
    if (name.startswith(("digits", "adult")) and not name.endswith(("-steep", "-graded"))) or load is tightened:
        assert (gamma < 1).any()  # the guard had something to do


MEASURED = {
    "none": {"screening": {"governance": "none"}},
    "own, project": {"screening": {"governance": "own", "filter": "project"}},
    "quorum": {"screening": {"governance": "quorum", "quorum": 0.4}},
    "weighted, scale": {"screening": {"governance": "weighted", "quorum": 0.4, "filter": "scale"}},
    "unanimous, project, adam": {"server": {"kind": "adam", "lr": 0.03}, "screening": {"filter": "project"}},
}


def measured_losses(engine: Engine, theta: Tensor) -> Tensor:
    """The value losses of softmax regressions, ``(E, M)``, by answers computed by hand on the probe sets as they were drawn."""
    losses = []
    for name, value in engine.values.items():
        probe = engine.splits.probe[name]
        weight = theta.reshape(len(theta), probe.x.shape[1] + 1, -1)
        losses.append(value.loss(probe.x @ weight[:, :-1] + weight[:, -1:], probe, engine.splits.dataset))
    return torch.stack(losses, dim=-1)


def outside(engine: Engine, theta: Tensor, step: Tensor, slack: float) -> Tensor:
    """Whether a step raises a value's loss beyond somebody's tolerance, bool ``(E,)``."""
    raised = measured_losses(engine, theta + step) - measured_losses(engine, theta)
    return (raised > engine.profiles.tolerance.amin(dim=1) + slack).any(dim=-1)


@pytest.mark.parametrize(("name", "kind"), each_once(["digits", "breast_cancer"], MEASURED, "breast_cancer"))
def test_with_measured_harm_and_the_guard_no_step_of_256_rounds_raises_a_value_s_loss_beyond_tolerance(name: str, kind: str) -> None:
    held = tightened(name, **MEASURED[kind])
    screening = held.screening.model_copy(update={"harm": "measured", "guard": True})
    engine = Engine(held.model_copy(update={"screening": screening}), None, num_envs=16, dtype=torch.float64)
    engine.reset(range(16))
    generator = torch.Generator().manual_seed(0)
    n_shrunk = 0
    while engine.t < engine.horizon:
        theta = engine.theta
        result = engine.step(torch.rand(16, engine.num_agents, engine.num_lots, generator=generator) < 0.7)
        step = engine.theta - theta
        assert not outside(engine, theta, step, 1e-12).any()
        assert not result.violated.any()
        shrunk = (result.gamma < 1) & (result.gamma > 1e-3)
        assert outside(engine, theta, step * 1.001, 0.0)[shrunk].all()  # the guard takes no more than it must
        n_shrunk += int(shrunk.sum())
    assert n_shrunk > 5


@pytest.mark.parametrize("name", ["digits", "breast_cancer"])
def test_without_screening_many_of_256_rounds_raise_a_value_s_loss_beyond_tolerance(name: str) -> None:
    engine = Engine(
        tightened(name, **{"screening.governance": "none", "screening.harm": "measured"}), None, num_envs=16, dtype=torch.float64
    )
    engine.reset(range(16))
    generator = torch.Generator().manual_seed(0)
    n_beyond = 0
    while engine.t < engine.horizon:
        theta = engine.theta
        result = engine.step(torch.rand(16, engine.num_agents, engine.num_lots, generator=generator) < 0.7)
        beyond = outside(engine, theta, engine.theta - theta, 2e-5)
        assert result.violated[beyond].all()
        n_beyond += int(beyond.sum())
    assert n_beyond > 20


def test_a_step_whose_harm_is_no_number_is_beyond_everybody_s_limits() -> None:
    nobody = profiles([math.inf])
    assert not exceeds(torch.tensor([[1e30]]).double(), torch.ones(1).double(), nobody, 1e-5).item()
    assert exceeds(torch.tensor([[math.nan]]).double(), torch.ones(1).double(), nobody, 1e-5).item()
    assert exceeds(torch.tensor([[0.0]]).double(), torch.tensor([math.nan]).double(), profiles([1.0], 2.0), 1e-5).item()


@pytest.mark.parametrize("kind", ["own", "quorum", "momentum", "adam"])
def test_each_way_around_unanimity_violates_somewhere_without_the_guard(kind: str) -> None:
    load = loaded if "server" in GUARDED[kind] else tightened
    engine = Engine(load("digits", **GUARDED[kind] | {"screening.guard": False}), None, num_envs=16)
    play(engine)
    assert sum(int(result.violated.sum()) for result in engine.history) > 0


@pytest.mark.parametrize("overrides", [{}, {"screening.governance": "none"}, GUARDED["momentum"]])
def test_reported_harm_is_the_value_gradient_times_the_parameters_change(overrides: dict[str, object]) -> None:
    engine = Engine(loaded("digits", **overrides), None, num_envs=8, dtype=torch.float64)
    engine.reset(range(8))
    generator = torch.Generator().manual_seed(1)
    strictest = engine.profiles.tolerance.amin(dim=1)
    for _ in range(engine.horizon):
        theta = engine.theta.clone().requires_grad_()
        gradients = []
        for value_name in engine.values:
            probe = engine.splits.probe[value_name]
            weight = theta.reshape(8, 65, 10)
            logits = probe.x @ weight[:, :64] + weight[:, 64:]
            loss = -(logits.softmax(dim=-1)[:, torch.arange(len(probe.y)), probe.y]).log().mean(dim=-1)
            gradients.append(torch.autograd.grad(loss.sum(), theta, retain_graph=True)[0])
        result = engine.step(torch.rand(8, 6, 4, generator=generator) < 0.8)
        change = engine.theta - theta.detach()
        harm = torch.stack([(gradient * change).sum(dim=-1) for gradient in gradients], dim=-1)
        torch.testing.assert_close(result.step_harm, harm, rtol=1e-9, atol=1e-11)
        assert torch.equal(result.violated, (harm > strictest + 1e-5 * (1 + strictest)).any(dim=-1))
        if engine.scenario.screening.governance == "unanimous":
            assert (harm <= strictest + 1e-9).all()


def test_a_first_order_harm_is_a_dot_product() -> None:
    gradients = torch.tensor([[[1.0, 2.0], [0.0, -1.0]]])  # (1, M=2, P=2)
    updates = torch.tensor([[[[3.0, 1.0]], [[-1.0, 2.0]]]])  # (1, N=2, K=1, P=2)
    assert predicted_harm(gradients, updates).tolist() == [[[[5.0, -1.0]], [[3.0, -2.0]]]]


# One profile at a time, each held by a known principal and violated on purpose.


def lone(profiles: list[dict[str, object]], **overrides: object) -> Engine:
    engine = Engine(loaded("digits", profiles=profiles, profiles_drawn=False, **overrides), None, num_envs=3)
    engine.reset([1, 2, 3])
    return engine


def test_only_the_holder_of_a_tolerance_blocks_and_exactly_what_exceeds_it() -> None:
    engine = lone([{"tolerances": {"nines": 5.0}}, {"tolerances": {"eights": 0.05}}])
    harmful = engine.prospect.harm[..., 0] > 0.05
    assert harmful.any()
    assert not harmful.all()
    assert torch.equal(engine.prospect.blocked_by[..., 1], harmful)
    assert not engine.prospect.blocked_by[..., [0, 2, 3, 4, 5]].any()
    result = engine.step(torch.ones(3, 6, 4))
    assert torch.equal(result.blocked_by[..., 1], harmful)
    assert torch.equal(result.admitted, ~harmful)


def test_a_tolerance_of_zero_blocks_any_harm_and_no_benefit() -> None:
    engine = lone([{"tolerances": {"eights": 0.0}}])
    assert torch.equal(engine.prospect.blocked_by[..., 0], engine.prospect.harm[..., 0] > 0)


def test_only_the_holder_blocks_a_forbidden_tag_whatever_the_update_does() -> None:
    engine = lone([{}, {}, {"forbidden_tags": ["bad"]}], **{"lots.tags": {"good": 0.5, "bad": 0.5}})
    bad = engine.lots.tags == 1
    assert bad.any()
    assert torch.equal(engine.prospect.blocked_by[..., 2], bad)
    assert not engine.prospect.blocked_by[..., [0, 1, 3, 4, 5]].any()
    assert torch.equal(engine.step(torch.ones(3, 6, 4)).admitted, ~bad)


def test_only_the_holder_of_a_norm_limit_blocks_what_is_longer() -> None:
    limit = float(lone([]).prospect.proposals.updates.norm(dim=-1).median())
    engine = lone([{}, {"max_norm": limit}])
    long = engine.prospect.proposals.updates.norm(dim=-1) > limit
    assert long.any()
    assert torch.equal(engine.prospect.blocked_by[..., 1], long)
    assert not engine.prospect.blocked_by[..., [0, 2, 3, 4, 5]].any()


@pytest.mark.parametrize("bad", [math.inf, math.nan])
@pytest.mark.parametrize("governance", ["none", "own", "unanimous", "quorum", "weighted", "stakeholders"])
@pytest.mark.parametrize("substrate", ["fedavg", "traversal"])
def test_an_update_that_is_not_finite_is_admitted_by_nobody_and_harms_nothing(
    monkeypatch: pytest.MonkeyPatch, governance: str, substrate: str, bad: float
) -> None:
    draw = LotSource.draw

    def poisoned(self: LotSource, keys: Tensor, owned: Tensor) -> object:
        lots = draw(self, keys, owned)
        lots.x[0, 2, 1, 0, 5] = bad
        return lots

    monkeypatch.setattr(LotSource, "draw", poisoned)
    settings = {"screening.governance": governance, "substrate.kind": substrate, "profiles": []}
    engine = Engine(loaded("digits", **settings), "shapley", num_envs=2)
    engine.reset([1, 2])
    poison = torch.zeros(2, 6, 4, dtype=torch.bool)
    poison[0, 2, 1] = True
    for _ in range(2):
        result = engine.step(torch.ones(2, 6, 4))
        assert torch.equal(result.blocked_by, poison[..., None].expand(2, 6, 4, 6))
        assert torch.equal(result.contributed, torch.ones(2, 6, 4, dtype=torch.bool))
        assert torch.equal(result.admitted, ~poison)
        for number in (engine.theta, result.observations, result.rewards, result.credit, result.utility, result.step_harm):
            assert number.isfinite().all()


def test_own_governance_asks_only_the_owner() -> None:
    engine = lone([{"tolerances": {"eights": 0.0}}], **{"screening.governance": "own"})
    harmful = engine.prospect.harm[..., 0] > 0
    assert harmful[:, 1:].any()  # others' updates harm principal 0 as well, who has no say over them
    expected = ~harmful
    expected[:, 1:] = True
    result = engine.step(torch.ones(3, 6, 4))
    assert torch.equal(result.admitted, expected)
    assert torch.equal(result.blocked_by[..., 0], harmful)  # recorded all the same


def verdict(admissible_to: int, n: int) -> Verdicts:
    """One update of harm 1, admissible to the first few of n principals."""
    tolerance = (torch.arange(n) < admissible_to).double()[None, :, None]  # (1, n, 1)
    everyone = Profiles(tolerance, torch.zeros(1, n, 0, dtype=torch.bool), torch.full((1, n), math.inf))
    return Verdicts(torch.ones(1, 1, 1, 1).double(), torch.ones(1, 1, 1), torch.zeros(1, 1, 1, dtype=torch.int64), everyone)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_finite_update_whose_harm_is_unknown_is_not_bargained_over(bad: float) -> None:
    harm = torch.tensor([[[[0.0, 0.0], [bad, 0.0], [0.0, bad], [9.0, 0.0]]]], dtype=torch.float64)  # (1, 1, 4, 2)
    nobody = Profiles(torch.full((1, 1, 2), math.inf).double(), torch.zeros(1, 1, 0, dtype=torch.bool), torch.tensor([[math.inf]]).double())
    judged = Verdicts(harm, torch.ones(1, 1, 4).double(), torch.zeros(1, 1, 4, dtype=torch.int64), nobody)
    assert judged.finite.all()
    assert admissible(judged, Screening(governance="negotiate"))[0, 0].tolist() == [True, False, False, True]


@pytest.mark.parametrize(
    ("admissible_to", "n", "quorum", "passes"),
    [
        (2, 4, 0.5, True),
        (2, 4, 0.51, False),
        (1, 4, 0.5, False),
        (4, 4, 1.0, True),
        (3, 4, 1.0, False),
        (1, 6, 1 / 6, True),
        (0, 6, 0.01, False),
    ],
)
def test_quorum_counts_its_boundary_as_passing(admissible_to: int, n: int, quorum: float, passes: bool) -> None:
    screening = Screening(governance="quorum", quorum=quorum)
    assert admissible(verdict(admissible_to, n), screening).item() is passes


def test_exactly_k_of_n_principals_meet_a_quorum_of_k_over_n_for_any_k_and_n() -> None:
    for n in range(1, 40):
        for k in range(1, n + 1):
            screening = Screening(governance="quorum", quorum=k / n)
            assert admissible(verdict(k, n), screening).item(), (k, n)
            assert not admissible(verdict(k - 1, n), screening).item(), (k, n)


def test_quorum_of_one_is_unanimity_in_a_whole_round() -> None:
    engine = lone([{"tolerances": {"eights": 0.05}}], screening={"governance": "quorum", "quorum": 1.0})
    unanimous = lone([{"tolerances": {"eights": 0.05}}])
    assert torch.equal(engine.prospect.passes, unanimous.prospect.passes)
    assert not engine.prospect.passes.all()


def profiles(tolerance: list[float], max_norm: float = math.inf) -> Profiles:
    return Profiles(
        torch.tensor([[tolerance]], dtype=torch.float64), torch.zeros(1, 1, 0, dtype=torch.bool), torch.tensor([[max_norm]]).double()
    )


@pytest.mark.parametrize(
    ("harm", "norm", "tolerance", "max_norm", "gamma"),
    [
        ([0.5, 0.1], 1.0, [0.2, 0.2], math.inf, 0.4),
        ([0.5, 0.8], 1.0, [0.2, 0.2], math.inf, 0.25),
        ([0.5, 0.1], 10.0, [0.2, 0.2], 1.0, 0.1),
        ([0.2, -3.0], 1.0, [0.2, 0.2], 1.0, 1.0),
        ([0.5, 9.0], 9.0, [math.inf, math.inf], math.inf, 1.0),
        ([0.5, 0.0], 1.0, [0.0, 0.0], math.inf, 0.0),
        ([0.0, 0.0], 0.0, [0.0, 0.0], 1.0, 1.0),
    ],
)
def test_guard_factor_is_the_smallest_ratio_of_limit_to_size(
    harm: list[float], norm: float, tolerance: list[float], max_norm: float, gamma: float
) -> None:
    size = torch.tensor([harm], dtype=torch.float64)
    factor = guard_factor(size, torch.tensor([norm], dtype=torch.float64), profiles(tolerance, max_norm))
    assert factor.item() == pytest.approx(gamma, rel=2e-6, abs=1e-12)
    assert (factor[:, None] * size <= torch.tensor([tolerance])).all()


def test_guard_listens_to_the_strictest_principal() -> None:
    two = Profiles(torch.tensor([[[0.4], [0.1]]]), torch.zeros(1, 2, 0, dtype=torch.bool), torch.tensor([[math.inf, 5.0]]))
    assert guard_factor(torch.tensor([[0.2]]), torch.tensor([1.0]), two).item() == pytest.approx(0.5, rel=2e-6)
    assert guard_factor(torch.tensor([[0.2]]), torch.tensor([50.0]), two).item() == pytest.approx(0.1, rel=2e-6)


def test_without_a_limit_on_norms_the_guard_looks_at_harm_alone() -> None:
    harm, norm = torch.tensor([[0.2, 0.1], [0.05, 0.3]]), torch.tensor([3.0, 1e30])
    for tolerance in ([0.1, 0.2], [0.4, math.inf]):
        told = profiles(tolerance, math.inf)
        assert torch.equal(guard_factor(harm, norm, replace(told, norms_limited=False)), guard_factor(harm, norm, told))
    nobody = replace(profiles([], math.inf), norms_limited=False)
    assert guard_factor(torch.zeros(1, 0), torch.tensor([5.0]), nobody).tolist() == [1.0]


def test_the_applied_step_is_gamma_times_the_unguarded_one() -> None:
    free = Engine(tightened("digits", **{"screening.governance": "none"}), None, num_envs=4, dtype=torch.float64)
    held = Engine(tightened("digits", **GUARDED["none"]), None, num_envs=4, dtype=torch.float64)
    for engine in (free, held):
        engine.reset(range(4))
    start = free.theta
    free.step(torch.ones(4, 6, 4))
    gamma = held.step(torch.ones(4, 6, 4)).gamma
    assert (gamma < 1).any()
    torch.testing.assert_close(held.theta - start, gamma[:, None] * (free.theta - start))


def test_inadmissibility_is_decided_by_the_worst_value_and_counts_the_tolerance_itself_as_admissible() -> None:
    table = Profiles(
        torch.tensor([[[0.5, math.inf], [0.5, 0.25], [math.inf, math.inf]]]),
        torch.zeros(1, 3, 0, dtype=torch.bool),
        torch.full((1, 3), math.inf),
    )
    harm = torch.tensor([[[[0.5, 0.25], [0.5, 0.3]], [[0.6, 0.0], [math.nan, 0.0]], [[-1.0, 9.0], [0.0, 0.0]]]])  # (1, 3, 2, 2)
    blocked = inadmissible_to(harm, torch.ones(1, 3, 2), torch.zeros(1, 3, 2, dtype=torch.int64), table)
    assert blocked[0, 0].tolist() == [[False, False, False], [False, True, False]]
    assert blocked[0, 1].tolist() == [[True, True, False], [True, True, True]]
    assert blocked[0, 2].tolist() == [[False, True, False], [False, False, False]]


def test_profiles_are_dealt_in_order_or_drawn_anew_with_everyone_getting_exactly_one() -> None:
    made = [Profile(holders=2, tolerances={"v": 0.5}), Profile(tolerances={"v": 0.1}, forbidden_tags=("x",), max_norm=3.0)]
    ordered = ProfileTable(made, 4, ["v"], ["x", "y"], False, torch.float32).deal(torch.arange(2))
    assert ordered.tolerance[0, :, 0].tolist() == pytest.approx([0.5, 0.5, 0.1, math.inf])
    assert ordered.forbidden[1].tolist() == [[False, False], [False, False], [True, False], [False, False]]
    assert ordered.max_norm[0].tolist() == [math.inf, math.inf, 3.0, math.inf]
    drawn = ProfileTable(made, 4, ["v"], ["x", "y"], True, torch.float32).deal(torch.arange(400))
    assert (drawn.tolerance[..., 0].sort(dim=1).values == torch.tensor([0.1, 0.5, 0.5, math.inf])).all()
    strict = drawn.max_norm == 3.0
    assert torch.equal(strict, drawn.forbidden[..., 0])  # a profile stays together
    assert (strict.double().mean(dim=0) - 0.25).abs().max() < 5 * (0.25 * 0.75 / 400) ** 0.5
