"""Filters: the largest part, the nearest update, what never enters, and rounds of real cooperatives in which they work."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from pettingzoo.test import parallel_api_test
from scipy.optimize import minimize
from torch import Tensor

from proxycoop.envs import Engine, Scenario, cooperative_v0, scenario
from proxycoop.envs.screening.filters import LEAST_KEPT, Filtered, filtered, largest
from proxycoop.envs.screening.harm import predicted_harm
from proxycoop.envs.screening.profiles import Profiles
from proxycoop.envs.screening.verdicts import Screening, Verdicts, admissible

N_ENVS, N, K, M, P, G, D = 3, 4, 3, 3, 12, 2, 2
GOVERNANCES = ("own", "unanimous", "quorum", "weighted", "stakeholders")
CONVEX = ("own", "unanimous")


def made(governance: str, filter: str, quorum: float = 0.6, **more: object) -> Screening:
    by_share = {"quorum": quorum} if governance in ("quorum", "weighted", "stakeholders") else {}
    return Screening(governance=governance, filter=filter, **by_share, **more)


def random_round(seed: int) -> tuple[Tensor, Tensor, Verdicts]:
    """Updates, value gradients and verdicts, with limits of all sorts."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    updates = torch.randn(N_ENVS, N, K, P, generator=generator, dtype=torch.float64)
    gradients = torch.randn(N_ENVS, M, P, generator=generator, dtype=torch.float64)
    directions = torch.randn(D, M, generator=generator, dtype=torch.float64)
    minds = torch.randint(-6, D, (N_ENVS, N), generator=generator)
    weight = uniform(N_ENVS, N) + 0.1
    tolerance = 0.5 + uniform(N_ENVS, N, M) * 2
    tolerance[uniform(N_ENVS, N, M) < 0.05] = 0.0
    profiles = Profiles(
        tolerance.masked_fill(uniform(N_ENVS, N, M) < 0.6, math.inf),
        uniform(N_ENVS, N, G) < 0.05,
        (1 + 3 * uniform(N_ENVS, N)).masked_fill(uniform(N_ENVS, N) < 0.6, math.inf),
        directions=directions / directions.norm(dim=1, keepdim=True),
        follows=minds[..., None] == torch.arange(D),
    )
    return updates, gradients, judged(updates, gradients, profiles, torch.randint(G, (N_ENVS, N, K), generator=generator), weight)


def judged(updates: Tensor, gradients: Tensor, profiles: Profiles, tags: Tensor, weight: Tensor) -> Verdicts:
    return Verdicts(predicted_harm(gradients, updates), updates.norm(dim=-1), tags, profiles, weight / weight.sum(dim=1, keepdim=True))


def part(verdicts: Verdicts, factor: Tensor) -> Verdicts:
    """What everybody thinks of parts of the updates, to first order."""
    return replace(verdicts, harm=factor[..., None] * verdicts.harm, norm=factor * verdicts.norm)


def anew(verdicts: Verdicts, updates: Tensor, gradients: Tensor) -> Verdicts:
    """What everybody thinks of other updates from the same data."""
    return replace(verdicts, harm=predicted_harm(gradients, updates), norm=updates.norm(dim=-1))


def loosened(profiles: Profiles, relative: float, absolute: float) -> Profiles:
    return replace(profiles, tolerance=profiles.tolerance * (1 + relative) + absolute, max_norm=profiles.max_norm * (1 + relative))


def run(filter: str, governance: str, seed: int, quorum: float = 0.6) -> tuple[Tensor, Tensor, Verdicts, Filtered, Tensor]:
    updates, gradients, verdicts = random_round(seed)
    screening = made(governance, filter, quorum)
    return updates, gradients, verdicts, filtered(updates, verdicts, screening, gradients, None), admissible(verdicts, screening)


@pytest.mark.parametrize("quorum", [0.25, 0.6, 1.0])
@pytest.mark.parametrize("governance", GOVERNANCES)
def test_scale_takes_the_largest_part_that_passes(governance: str, quorum: float) -> None:
    n_shrunk = 0
    for seed in range(6):
        updates, _, verdicts, mended, whole = run("scale", governance, seed, quorum)
        screening, factor = made(governance, "scale", quorum), mended.kept
        assert (mended.passes >= whole).all()
        assert admissible(part(verdicts, factor), screening)[mended.passes].all()
        shrunk = mended.passes & ~whole
        assert not admissible(part(verdicts, factor * (1 + 1e-4)), screening)[shrunk].any()
        torch.testing.assert_close(mended.updates[mended.passes], (factor[..., None] * updates)[mended.passes], rtol=1e-12, atol=0)
        dropped = ~mended.passes
        assert not admissible(part(verdicts, torch.full_like(factor, LEAST_KEPT)), screening)[dropped].any()
        n_shrunk += int(shrunk.sum())
    assert n_shrunk > 10


def limits_of(verdicts: Verdicts, governance: str, e: int, i: int) -> tuple[np.ndarray, float]:
    """The tightest limits of the principals who are asked, in order of values and directions, and on the norm."""
    asked = [i] if governance == "own" else list(range(N))
    profiles = verdicts.profiles
    against = torch.where(profiles.follows[e, asked], 1e-6, math.inf)
    limits = torch.cat([profiles.tolerance[e, asked], against], dim=1).amin(dim=0)
    return limits.numpy(), float(profiles.max_norm[e, asked].amin())


@pytest.mark.parametrize("governance", CONVEX)
def test_project_is_the_nearest_update_that_a_reference_solver_finds(governance: str) -> None:
    n_moved = 0
    for seed in range(2):
        updates, gradients, verdicts, mended, whole = run("project", governance, seed)
        for e, i, k in (mended.passes & ~whole).nonzero().tolist():
            normals = torch.cat([gradients[e], verdicts.profiles.directions @ gradients[e]]).numpy()
            limits, radius = limits_of(verdicts, governance, e, i)
            target, held = updates[e, i, k].numpy(), np.isfinite(limits)
            conditions = [
                {"type": "ineq", "fun": lambda x, n=normals[held], b=limits[held]: b - n @ x, "jac": lambda x, n=normals[held]: -n}
            ]
            if math.isfinite(radius):
                conditions.append({"type": "ineq", "fun": lambda x, r=radius: (r * r - x @ x) / 2, "jac": lambda x: -x})
            answer = minimize(
                lambda x, t=target: ((x - t) ** 2).sum() / 2,
                np.zeros(P),
                jac=lambda x, t=target: x - t,
                constraints=conditions,
                method="SLSQP",
                options={"ftol": 1e-14, "maxiter": 500},
            )
            np.testing.assert_allclose(mended.updates[e, i, k].numpy(), answer.x, atol=2e-5)
            n_moved += 1
    assert n_moved > 20


@pytest.mark.parametrize("governance", CONVEX)
def test_project_is_never_further_away_than_scale_and_within_all_limits(governance: str) -> None:
    for seed in range(10):
        updates, gradients, verdicts, projected, whole = run("project", governance, seed)
        scaled = run("scale", governance, seed)[3]
        assert (projected.passes >= scaled.passes).all()
        both = scaled.passes & ~whole
        away = ((projected.updates - updates).norm(dim=-1), (scaled.updates - updates).norm(dim=-1))
        assert (away[0] <= away[1] * (1 + 1e-5))[both].all()
        assert (away[0] < away[1] * 0.9)[both].any()
        loose = replace(anew(verdicts, projected.updates, gradients), profiles=loosened(verdicts.profiles, 1e-9, 1e-9))
        assert admissible(loose, made(governance, "project"))[projected.passes].all()


@pytest.mark.parametrize("governance", GOVERNANCES)
def test_what_project_leaves_passes_and_where_a_fixed_set_of_principals_is_asked_stays_when_projected_again(governance: str) -> None:
    screening = made(governance, "project")
    for seed in range(6):
        _, gradients, verdicts, mended, whole = run("project", governance, seed)
        loose = replace(anew(verdicts, mended.updates, gradients), profiles=loosened(verdicts.profiles, 1e-9, 1e-9))
        assert admissible(loose, screening)[mended.passes].all()
        again = filtered(mended.updates, anew(verdicts, mended.updates, gradients), screening, gradients, None)
        moved = (again.updates - mended.updates).norm(dim=-1)
        if governance in CONVEX:  # elsewhere rounding can change which of the principals bind
            assert (moved <= 1e-8)[mended.passes].all()
        torch.testing.assert_close(
            mended.kept[mended.passes & ~whole],
            (mended.updates.norm(dim=-1) / verdicts.norm)[mended.passes & ~whole],
        )


@pytest.mark.parametrize("filter", ["reject", "scale", "project"])
@pytest.mark.parametrize("governance", GOVERNANCES)
def test_an_admissible_update_enters_to_the_bit_and_kept_says_how_much_of_the_others(governance: str, filter: str) -> None:
    n_whole = 0
    for seed in range(6):
        updates, _, _, mended, whole = run(filter, governance, seed)
        n_whole += int(whole.sum())
        assert torch.equal(mended.updates[whole], updates[whole])
        assert (mended.kept[whole] == 1).all()
        assert (mended.kept[~mended.passes] == 0).all()
        assert (mended.kept[mended.passes] >= LEAST_KEPT).all()
        assert (mended.kept <= 1 + 1e-12).all()
        assert mended.updates.isfinite().all()  # what does not pass is multiplied by 0
        if filter == "reject":
            assert torch.equal(mended.passes, whole)
    assert n_whole > 3


@pytest.mark.parametrize("filter", ["scale", "project"])
@pytest.mark.parametrize("governance", GOVERNANCES)
def test_forbidden_data_is_never_mended(governance: str, filter: str) -> None:
    n_forbidden = 0
    for seed in range(10):
        _, _, verdicts, mended, _ = run(filter, governance, seed, 1.0)
        forbidding = verdicts.profiles.forbidden[torch.arange(N_ENVS)[:, None, None], :, verdicts.tags]  # (E, N, K, N)
        asked = torch.eye(N, dtype=torch.bool)[:, None].expand(N, K, N) if governance == "own" else torch.ones(N, K, N, dtype=torch.bool)
        hopeless = (forbidding & asked).any(dim=-1)
        assert not mended.passes[hopeless].any()
        assert (mended.kept[hopeless] == 0).all()
        n_forbidden += int(hopeless.sum())
    assert n_forbidden > 5


@pytest.mark.parametrize("filter", ["reject", "scale", "project"])
@pytest.mark.parametrize("governance", GOVERNANCES)
@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_an_update_that_is_not_finite_never_enters(governance: str, filter: str, bad: float) -> None:
    updates, gradients, verdicts = random_round(1)
    norm, updates = verdicts.norm.clone(), updates.clone()
    norm[0, 1, 2], updates[0, 1, 2] = bad, 0.0  # as the engine hands them over
    harm = verdicts.harm.clone()
    harm[0, 1, 2] = 0.0
    mended = filtered(updates, replace(verdicts, norm=norm, harm=harm), made(governance, filter, 0.25), gradients, None)
    assert not mended.passes[0, 1, 2]
    assert mended.kept[0, 1, 2] == 0
    assert mended.kept.isfinite().all()


@pytest.mark.parametrize("filter", ["reject", "scale", "project"])
@pytest.mark.parametrize("governance", ["own", "unanimous", "quorum", "weighted"])
def test_an_update_whose_harm_is_no_number_never_enters(governance: str, filter: str) -> None:
    updates, gradients, verdicts = random_round(1)
    harm = verdicts.harm.clone()
    harm[0, 1, 2, 1] = math.nan
    mended = filtered(updates, replace(verdicts, harm=harm), made(governance, filter), gradients, None)
    assert not mended.passes[0, 1, 2]
    assert mended.updates.isfinite().all()


def one(harm: float, tolerance: list[float]) -> tuple[Tensor, Tensor, Verdicts]:
    """One update of that harm to one value along one axis, of length 1 along another."""
    updates, gradients = torch.tensor([[[[harm, 1.0]]]], dtype=torch.float64), torch.tensor([[[1.0, 0.0]]], dtype=torch.float64)
    n = len(tolerance)
    limits = torch.tensor([tolerance], dtype=torch.float64)[..., None]
    profiles = Profiles(limits, torch.zeros(1, n, 0, dtype=torch.bool), torch.full((1, n), math.inf, dtype=torch.float64))
    verdicts = Verdicts(predicted_harm(gradients, updates), updates.norm(dim=-1), torch.zeros(1, 1, 1, dtype=torch.int64), profiles)
    return updates, gradients, verdicts


def test_with_a_tolerance_of_zero_scale_leaves_nothing_and_project_all_that_does_no_harm() -> None:
    updates, gradients, verdicts = one(0.75, [0.0])
    scaled = filtered(updates, verdicts, made("unanimous", "scale"), gradients, None)
    assert not scaled.passes.item()
    assert scaled.kept.item() == 0
    projected = filtered(updates, verdicts, made("unanimous", "project"), gradients, None)
    torch.testing.assert_close(projected.updates[0, 0, 0], torch.tensor([0.0, 1.0], dtype=torch.float64), rtol=0, atol=1e-9)
    assert projected.kept.item() == pytest.approx(1 / 1.25)


@pytest.mark.parametrize(("tolerance", "passes"), [(0.9e-3, False), (1.1e-3, True)])
def test_of_which_less_than_a_thousandth_would_be_left_is_dropped(tolerance: float, passes: bool) -> None:
    updates, gradients, verdicts = one(1.0, [tolerance])
    mended = filtered(updates, verdicts, made("unanimous", "scale"), gradients, None)
    assert mended.passes.item() is passes
    assert mended.kept.item() == (pytest.approx(tolerance, rel=1e-5) if passes else 0)


@pytest.mark.parametrize(("quorum", "expected"), [(0.25, 0.8), (0.5, 0.4), (0.75, 0.2), (0.76, 0.1), (1.0, 0.1), (1e-9, 0.8)])
@pytest.mark.parametrize("filter", ["scale", "project"])
def test_under_a_quorum_the_kth_most_lenient_principal_binds(filter: str, quorum: float, expected: float) -> None:
    updates, gradients, verdicts = one(1.0, [0.2, 0.8, 0.1, 0.4])
    mended = filtered(updates, verdicts, made("quorum", filter, quorum), gradients, None)
    assert predicted_harm(gradients, mended.updates).item() == pytest.approx(expected, rel=1e-5)


def test_bisection_gives_the_largest_factor_that_passes_to_its_resolution_or_nothing() -> None:
    edge = torch.tensor([0.9, 0.5, 0.123456, 0.0, 2.0])
    factor = largest(lambda f: f < edge, torch.ones(5), halvings=20)
    assert (factor[:3] < edge[:3]).all()
    assert (edge[:3] - factor[:3] <= 2**-20 + 1e-7).all()
    assert factor[3:].tolist() == [0.0, 1.0]
    assert torch.equal(largest(lambda f: f < 2, torch.rand(4), 3), largest(lambda f: f < 5, torch.rand(4), 3)) is False
    start = torch.tensor([0.3, 0.7])
    assert largest(lambda f: f < 2, start) is start


# whole rounds


def cooperative(name: str, share: float = 0.3, **overrides: object) -> Scenario:
    """The scenario with that share of its tolerances, which everybody holds."""
    profiles = [profile.model_dump() for profile in scenario.load(name).profiles]
    for profile in profiles:
        profile["tolerances"] = {value: share * tolerance for value, tolerance in profile["tolerances"].items()}
    return scenario.load(name, **{"reward.scale": 1.0, "profiles": profiles, **overrides})


def play(engine: Engine, n_rounds: int | None = None, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    engine.reset(range(engine.num_envs))
    for _ in range(n_rounds or engine.horizon):
        engine.step(torch.rand(engine.num_envs, engine.num_agents, engine.num_lots, generator=generator) < 0.8)


@pytest.mark.parametrize("weights", ["fixed", "participants"])
@pytest.mark.parametrize("filter", ["reject", "scale", "project"])
@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("breast_cancer", 0.3),
        ("digits", 0.02),
        *(pytest.param(*one, marks=pytest.mark.slow) for one in (("breast_cancer", 0.02), ("digits", 0.3))),
    ],
)
def test_whatever_unanimous_filters_let_in_no_step_of_208_rounds_violates(name: str, share: float, filter: str, weights: str) -> None:
    engine = Engine(cooperative(name, share, **{"screening.filter": filter, "weights": weights}), None, num_envs=13)
    play(engine)
    n_mended = 0
    for result in engine.history:
        assert (result.step_harm <= result.tolerance + 1e-5).all()
        assert not result.violated.any()
        n_mended += int(((result.kept > 0) & (result.kept < 1)).sum())
    assert (n_mended > 100) == (filter != "reject")


@pytest.mark.parametrize(
    ("filter", "harm"),
    [
        ("scale", "second_order"),
        ("project", "measured"),
        *(pytest.param(*one, marks=pytest.mark.slow) for one in (("scale", "measured"), ("project", "second_order"))),
    ],
)
@pytest.mark.parametrize("governance", GOVERNANCES)
def test_what_enters_passes_by_the_harm_that_the_screening_names(governance: str, filter: str, harm: str) -> None:
    settings = {"screening": made(governance, filter, harm=harm).model_dump()}
    engine = Engine(cooperative("digits", 0.2, **settings), None, num_envs=4, dtype=torch.float64)
    engine.reset(range(4))
    n_mended = 0
    for _ in range(3):
        look = engine.prospect
        entered = look.filtered.updates
        again = engine._ground.screener.harm(engine.theta, entered, look.value_losses, look.value_gradients)
        verdicts = replace(look.verdicts, harm=again, norm=entered.norm(dim=-1), profiles=loosened(look.verdicts.profiles, 1e-9, 1e-12))
        assert admissible(verdicts, engine.scenario.screening)[look.passes].all()
        n_mended += int((look.passes & (look.filtered.kept < 1)).sum())
        engine.step(torch.ones(4, 6, 4))
    assert n_mended > 20


@pytest.mark.parametrize("harm", ["second_order", "measured"])
def test_scale_takes_the_largest_part_by_any_harm(harm: str) -> None:
    settings = {"screening": {"filter": "scale", "harm": harm}}
    engine = Engine(cooperative("digits", 0.2, **settings), None, num_envs=4, dtype=torch.float64)
    engine.reset(range(4))
    for _ in range(3):
        look = engine.prospect
        shrunk = look.passes & (look.filtered.kept < 1)
        assert shrunk.any()
        along = engine._ground.screener.harm.along(engine.theta, look.proposals.updates, look.value_losses, look.value_gradients)
        more = look.filtered.kept + 2 * 2.0**-16  # two steps of the bisection further
        beyond = replace(look.verdicts, harm=along(more), norm=more * look.verdicts.norm)
        assert not admissible(beyond, engine.scenario.screening)[shrunk].any()
        engine.step(torch.ones(4, 6, 4))


COMBINATIONS = [
    {"governance": "unanimous", "filter": "scale"},
    {"governance": "unanimous", "filter": "project"},
    {"governance": "own", "filter": "project", "guard": True},
    {"governance": "quorum", "quorum": 0.7, "filter": "project", "harm": "second_order"},
    {"governance": "weighted", "quorum": 0.7, "filter": "scale", "guard": True},
    {"governance": "stakeholders", "filter": "project", "harm": "measured", "guard": True},
    {"governance": "unanimous", "filter": "scale", "harm": "measured"},
]
MIXED = {
    "profiles": [
        {"holders": 2, "tolerances": {"eights": 0.1}},
        {"relative_tolerances": {"nines": 0.05}},
        {"direction": {"eights": 1.0, "nines": 2.0}, "tolerances": {"nines": 0.2}},
        {"max_norm": 0.4, "forbidden_tags": ["bad"], "stake": 3.0},
    ],
    "lots.tags": {"good": 0.7, "bad": 0.3},
    "reward.scale": 1.0,
}


@pytest.mark.parametrize("settings", COMBINATIONS, ids=str)
def test_with_filters_an_environment_of_a_batch_is_the_single_one_and_the_same_seed_the_same_episode(settings: dict[str, object]) -> None:
    loaded = scenario.load("digits", screening=settings, **MIXED)
    batch, again, single = (Engine(loaded, "shapley", num_envs=n, dtype=torch.float64) for n in (5, 5, 1))
    actions = torch.rand(4, 5, 6, 4, generator=torch.Generator().manual_seed(0)) < 0.8
    seeds = [3, 1, 4, 1, 5]
    first, second = ([engine.reset(seeds), *(engine.step(a) for a in actions)][1:] for engine in (batch, again))
    names = ("admitted", "kept", "harm", "tolerance", "gamma", "step_harm", "credit", "gain", "utility", "violated", "forbidden_used")
    for a, b in zip(first, second, strict=True):
        assert all(torch.equal(getattr(a, name), getattr(b, name)) for name in names)
    assert any(((result.kept > 0) & (result.kept < 1)).any() for result in first)
    for e in (0, 4):
        single.reset([seeds[e]])
        for t, result in enumerate(first):
            alone = single.step(actions[t, e : e + 1])
            for name in names:
                torch.testing.assert_close(getattr(result, name)[e], getattr(alone, name)[0], rtol=1e-8, atol=1e-9, msg=name)


@pytest.mark.parametrize("settings", COMBINATIONS, ids=str)
def test_the_record_says_what_was_foreseen_and_how_much_entered(settings: dict[str, object]) -> None:
    engine = Engine(scenario.load("digits", screening=settings, **MIXED), None, num_envs=4, dtype=torch.float64)
    engine.reset(range(4))
    generator = torch.Generator().manual_seed(0)
    for _ in range(4):
        look = engine.prospect
        contributed = torch.rand(4, 6, 4, generator=generator) < 0.7
        result = engine.step(contributed)
        assert torch.equal(result.harm, look.verdicts.harm)
        assert torch.equal(result.admitted, contributed & look.passes)
        kept = look.filtered.updates.norm(dim=-1) / look.proposals.updates.norm(dim=-1)
        torch.testing.assert_close(result.kept, torch.where(result.admitted, kept, 0.0))
        share = 0.05 * look.value_losses[:, 1]
        nines = torch.full_like(share, 0.2).minimum(share)
        torch.testing.assert_close(result.tolerance, torch.stack([torch.full_like(share, 0.1), nines], dim=-1))
        assert result.bargain is None


@pytest.mark.parametrize(
    ("rule", "weights"),
    [
        ("shapley", "fixed"),
        ("shapley", "participants"),
        ("data_shapley", "participants"),
        *(
            pytest.param(rule, weights, marks=pytest.mark.slow)
            for rule in ("aristocrat", "in_run")
            for weights in ("fixed", "participants")
        ),
    ],
)
@pytest.mark.parametrize("settings", COMBINATIONS[:4], ids=str)
def test_the_game_is_about_what_entered_so_all_of_it_gains_what_happened(settings: dict[str, object], rule: str, weights: str) -> None:
    loaded = scenario.load("digits", screening=settings, weights=weights, **MIXED)
    engine = Engine(loaded, rule, num_envs=3, dtype=torch.float64)
    engine.reset(range(3))
    n_mended = 0
    for _ in range(3):
        theta, utility = engine.theta, engine.prospect.utility
        result = engine.step(torch.ones(3, 6, 4))
        torch.testing.assert_close(engine.round.updates.sum(dim=1), engine.theta - theta, rtol=1e-9, atol=1e-13)
        torch.testing.assert_close(engine.round.lot_updates.sum(dim=(1, 2)), engine.theta - theta, rtol=1e-9, atol=1e-13)
        torch.testing.assert_close(result.gain, result.utility - utility, rtol=1e-9, atol=1e-12)
        everybody = engine.round.value(torch.ones(1, 6, dtype=torch.bool))[:, 0]
        torch.testing.assert_close(everybody, result.gain, rtol=1e-9, atol=1e-12)
        if not engine.scenario.screening.guard:
            torch.testing.assert_close(engine.round.lots.value(result.admitted[:, None])[:, 0], result.gain, rtol=1e-9, atol=1e-12)
        if rule == "shapley":
            torch.testing.assert_close(result.credit.sum(dim=1), result.gain, rtol=1e-9, atol=1e-12)
        assert result.credit.isfinite().all()
        n_mended += int(((result.kept > 0) & (result.kept < 1)).sum())
    assert n_mended > 0


@pytest.mark.parametrize("rule", ["veto_shapley", "veto_own", "veto_shared"])
@pytest.mark.parametrize(
    "settings",
    [{"filter": "scale"}, {"filter": "project"}, {"governance": "own", "filter": "project"}, {"governance": "negotiate"}],
    ids=str,
)
def test_rules_about_vetoes_are_refused_where_updates_are_mended_or_bargained_over(settings: dict[str, object], rule: str) -> None:
    with pytest.raises(ValueError, match=rf"credit rule '{rule}' cannot serve scenario 'digits'.*filter reject"):
        Engine(scenario.load("digits", screening=settings, **{"reward.scale": 1.0}), rule)
    Engine(scenario.load("digits", **{"reward.scale": 1.0}), rule)  # where each update is judged as it is they serve


def test_the_pettingzoo_face_plays_with_projection_and_measured_harm() -> None:
    settings = {"filter": "project", "harm": "measured", "guard": True}
    made = scenario.load("digits", screening=settings, horizon=3, **MIXED)
    parallel_api_test(cooperative_v0.parallel_env(scenario=made, credit="shapley"), num_cycles=7)
