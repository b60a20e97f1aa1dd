"""The nearest admissible update, against enumeration of active sets, scipy, closed forms, and the conditions that define it."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq, nnls
from torch import Tensor

from proxycoop.envs.screening.projection import inward_margin, project

DTYPES = [torch.float32, torch.float64]
Arrays = np.ndarray


def problems(
    seed: int, n_envs: int = 5, n_updates: int = 7, n_normals: int = 3, n_params: int = 6, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Random updates, normals and limits; a quarter of the limits 0, a quarter infinite; no ball."""
    generator = torch.Generator().manual_seed(seed)
    updates = torch.randn(n_envs, n_updates, n_params, generator=generator, dtype=torch.float64)
    normals = torch.randn(n_envs, n_normals, n_params, generator=generator, dtype=torch.float64)
    normals = normals * torch.rand(n_envs, n_normals, 1, generator=generator, dtype=torch.float64) * 5
    limits = torch.rand(n_envs, n_updates, n_normals, generator=generator, dtype=torch.float64)
    kind = torch.randint(4, limits.shape, generator=generator)
    limits = limits.masked_fill(kind == 0, 0.0).masked_fill(kind == 1, torch.inf)
    return updates.to(dtype), normals.to(dtype), limits.to(dtype), torch.full(limits.shape[:2], torch.inf, dtype=dtype)


def enumerated(update: Arrays, normals: Arrays, limits: Arrays) -> Arrays:
    """The nearest of the feasible points among the projections on every intersection of faces."""
    best, nearest = None, np.inf
    for size in range(len(normals) + 1):
        for faces in itertools.combinations(np.flatnonzero(np.isfinite(limits)), size):
            n, limit = normals[list(faces)], limits[list(faces)]
            point = update - np.linalg.pinv(n) @ (n @ update - limit) if size else update
            distance = np.linalg.norm(point - update)
            if (normals @ point <= limits + 1e-9).all() and distance < nearest:
                best, nearest = point, distance
    assert best is not None
    return best


def enumerated_in_ball(update: Arrays, normals: Arrays, limits: Arrays, radius: float) -> Arrays:
    """The same at sΔ, with s by a root finder of its own."""

    def at(s: float) -> Arrays:
        return enumerated(s * update, normals, limits)

    if np.linalg.norm(at(1.0)) <= radius:
        return at(1.0)
    return at(brentq(lambda s: np.linalg.norm(at(s)) - radius, 1e-9, 1.0, xtol=1e-14))


def scale_of(updates: Tensor, normals: Tensor) -> Tensor:
    """‖Δ‖·‖n‖, ``(E, B, C)``."""
    return updates.norm(dim=-1)[..., None] * normals.norm(dim=-1)[:, None]


@pytest.mark.parametrize("n_normals", [1, 2, 3, 4])
def test_it_is_the_nearest_point_that_enumeration_of_active_sets_finds(n_normals: int) -> None:
    updates, normals, limits, none = problems(n_normals, n_normals=n_normals)
    moved = project(updates, normals, limits, none)
    for e, b in itertools.product(range(5), range(7)):
        expected = enumerated(updates[e, b].numpy(), normals[e].numpy(), limits[e, b].numpy())
        np.testing.assert_allclose(moved[e, b].numpy(), expected, atol=1e-8)


@pytest.mark.parametrize("n_normals", [1, 2, 3, 4])
def test_in_a_ball_it_is_the_nearest_point_that_enumeration_and_a_root_finder_find(n_normals: int) -> None:
    updates, normals, limits, _ = problems(10 + n_normals, n_normals=n_normals)
    radius = torch.linspace(0.2, 3, 35, dtype=torch.float64).reshape(5, 7)
    moved = project(updates, normals, limits, radius)
    assert (moved.norm(dim=-1) <= radius).all()
    for e, b in itertools.product(range(5), range(7)):
        expected = enumerated_in_ball(updates[e, b].numpy(), normals[e].numpy(), limits[e, b].numpy(), radius[e, b].item())
        np.testing.assert_allclose(moved[e, b].numpy(), expected, atol=1e-7)


@pytest.mark.parametrize("n_params", [4, 30])
def test_with_limits_of_zero_it_is_the_residual_of_non_negative_least_squares(n_params: int) -> None:
    updates, normals, limits, none = problems(20, n_normals=10, n_params=n_params)  # with 4 parameters, 10 normals are dependent
    moved = project(updates, normals, torch.zeros_like(limits), none)
    for e, b in itertools.product(range(5), range(7)):
        weights, _ = nnls(normals[e].numpy().T, updates[e, b].numpy())
        np.testing.assert_allclose(moved[e, b].numpy(), updates[e, b].numpy() - weights @ normals[e].numpy(), atol=1e-8)


@pytest.mark.parametrize("n_params", [6, 40])
def test_the_move_is_a_combination_of_active_normals_with_weights_that_are_not_negative(n_params: int) -> None:
    updates, normals, limits, none = problems(30, n_normals=6, n_params=n_params)
    moved = project(updates, normals, limits, none)
    harm = moved @ normals.transpose(-1, -2)
    assert (harm <= limits + 1e-12 * scale_of(updates, normals)).all()
    for e, b in itertools.product(range(5), range(7)):
        active = (
            harm[e, b] >= limits[e, b] - 2e-11 * scale_of(updates, normals)[e, b]
        ).numpy()  # dual feasibility and complementarity at once
        _, residual = nnls(normals[e].numpy()[active].T, (updates - moved)[e, b].numpy()) if active.any() else (0, 0.0)
        assert residual < 1e-8
        assert active.any() or torch.equal(moved[e, b], updates[e, b])


def kkt_residual(update: Tensor, moved: Tensor, normals: Tensor, limits: Tensor) -> float:
    """How far the move is from a combination, with weights of at least 0, of the normals whose limits are met."""
    met = (moved @ normals.T >= limits - 1e-8 * (1 + update.norm())).numpy()
    return float(nnls(normals.numpy()[met].T, (update - moved).numpy())[1]) if met.any() else (update - moved).norm().item()


@pytest.mark.parametrize("seed", range(10))
def test_small_integers_with_their_many_ties_and_dependencies_are_solved_too(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)

    def integers(low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high + 1, shape, generator=generator).double()

    updates, normals, limits = integers(-9, 9, 4, 20, 3), integers(-1, 1, 4, 10, 3), integers(0, 2, 4, 20, 10)
    moved = project(updates, normals, limits, torch.full((4, 20), torch.inf, dtype=torch.float64))
    assert (moved @ normals.transpose(-1, -2) <= limits + 1e-12 * scale_of(updates, normals)).all()
    for e, b in itertools.product(range(4), range(20)):
        assert kkt_residual(updates[e, b], moved[e, b], normals[e], limits[e, b]) < 1e-8


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("apart", [1e-5, 1e-6, 1e-7, 1e-8])
def test_limits_hold_even_where_normals_are_too_nearly_opposite_to_solve_for(dtype: torch.dtype, apart: float) -> None:
    updates, normals, limits, none = problems(85, n_normals=6, n_params=20, n_updates=50, dtype=dtype)
    normals[:, 1:3] = -normals[:, :1] * (1 + apart * normals[:, 1:3])
    limits = limits.masked_fill(limits < 0.5, 0.0)
    radius = none.masked_fill(torch.arange(50) % 3 == 0, 2.0)
    moved = project(updates, normals, limits, radius)
    margin = inward_margin(dtype) * normals.norm(dim=-1)[:, None] * torch.minimum(updates.norm(dim=-1), radius)[..., None]
    assert (moved @ normals.transpose(-1, -2) <= limits + (1 + 1e-5) * margin).all()
    assert (moved.norm(dim=-1) <= torch.minimum(radius, updates.norm(dim=-1))).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_limit_takes_off_the_excess_along_its_normal(dtype: torch.dtype) -> None:
    updates, normals, limits, none = problems(40, n_normals=1, n_params=50, dtype=dtype)
    limits = limits.nan_to_num(posinf=0.3)
    excess = (updates @ normals.transpose(-1, -2) - limits).clamp(min=0)  # (E, B, 1)
    expected = updates - excess * normals / normals.square().sum(dim=-1, keepdim=True)
    tolerance = {torch.float32: 2e-5, torch.float64: 1e-9}[dtype]
    torch.testing.assert_close(project(updates, normals, limits, none), expected, rtol=0, atol=tolerance)


def test_a_ball_alone_shrinks_to_its_radius() -> None:
    updates, normals, _, _ = problems(50)
    radius = torch.full((5, 7), 0.5, dtype=torch.float64)
    moved = project(updates, normals[:, :0], torch.zeros(5, 7, 0, dtype=torch.float64), radius)
    torch.testing.assert_close(moved, updates * 0.5 / updates.norm(dim=-1, keepdim=True), rtol=1e-9, atol=0)
    assert (moved.norm(dim=-1) <= radius).all()


def test_a_ball_of_radius_zero_leaves_nothing() -> None:
    updates, normals, limits, none = problems(51)
    assert project(updates, normals, limits, torch.zeros_like(none)).abs().max() == 0


def test_limits_can_lengthen_nothing() -> None:
    updates, normals, limits, none = problems(52)
    assert (project(updates, normals, limits, none).norm(dim=-1) <= updates.norm(dim=-1)).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_admissible_update_comes_back_to_the_bit(dtype: torch.dtype) -> None:
    updates, normals, limits, none = problems(60, n_updates=200, dtype=dtype)
    radius = none.clone()
    radius[:, ::2] = 2.0
    moved = project(updates, normals, limits, radius)
    within = (updates @ normals.transpose(-1, -2) <= limits).all(dim=-1) & (updates.norm(dim=-1) <= radius)
    assert 100 < within.sum() < 900
    assert torch.equal(moved[within], updates[within])
    assert (moved != updates).any(dim=-1)[~within].all()


@pytest.mark.parametrize("n_params", [20, 5000])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_strict_comparison_holds_afterwards_where_the_limit_is_not_zero(dtype: torch.dtype, n_params: int) -> None:
    updates, normals, limits, none = problems(70, n_updates=40, n_normals=5, n_params=n_params, dtype=dtype)
    radius = torch.where(torch.arange(40) % 2 == 0, 0.7 * updates.norm(dim=-1), none)
    moved = project(updates, normals, limits, radius)
    harm, scale = moved @ normals.transpose(-1, -2), scale_of(updates, normals)
    assert (harm <= limits)[limits >= inward_margin(dtype) * scale].all()
    assert (harm <= limits * (1 + 1e-6) + 1e-7 * scale).all()
    assert (moved.norm(dim=-1) <= radius).all()
    met = (harm >= limits - 3 * inward_margin(dtype) * scale).any(dim=-1) | (moved.norm(dim=-1) >= radius * (1 - 3 * inward_margin(dtype)))
    assert met[(moved != updates).any(dim=-1)].all()  # on the boundary, rather than far inside


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cosine", [1.0, 0.99, 1 - 1e-6])
def test_opposite_normals_leave_a_narrow_slab(dtype: torch.dtype, cosine: float) -> None:
    updates, normals, limits, none = problems(80, n_normals=2, n_params=200, n_updates=50, dtype=dtype)
    away = torch.randn(5, 200, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)
    first = normals[:, 0] / normals[:, 0].norm(dim=-1, keepdim=True)
    away = away - (away * first).sum(dim=-1, keepdim=True) * first
    normals[:, 1] = -cosine * normals[:, 0] + (1 - cosine**2) ** 0.5 * away / away.norm(dim=-1, keepdim=True) * normals[:, 0].norm(
        dim=-1, keepdim=True
    )
    limits[:, ::2] = 0.0
    moved = project(updates, normals, limits, none)
    harm = moved @ normals.transpose(-1, -2)
    assert (harm <= limits * (1 + 1e-6) + 2e-7 * scale_of(updates, normals)).all()
    if cosine < 1:  # rounding of the harm moves the edge of the slab by that over the sine of the angle
        away_by = {torch.float32: 1e-5, torch.float64: 3e-10}[dtype] * updates.norm(dim=-1).max().item() / (1 - cosine**2) ** 0.5
        for e, b in itertools.product(range(5), range(50)):
            arrays = [tensor.double().numpy() for tensor in (updates[e, b], normals[e], limits[e, b])]
            assert np.linalg.norm(moved[e, b].numpy() - enumerated(*arrays)) < away_by


@pytest.mark.parametrize("dtype", DTYPES)
def test_repeated_and_dependent_normals_change_nothing(dtype: torch.dtype) -> None:
    updates, normals, limits, none = problems(90, n_params=30, dtype=dtype)
    expected = project(updates, normals, limits, none)
    twice = project(updates, torch.cat([normals, 2 * normals], dim=1), torch.cat([limits, 2 * limits], dim=2), none)
    torch.testing.assert_close(twice, expected, rtol=0, atol=2e-5 if dtype == torch.float32 else 1e-9)
    implied, limit = normals.sum(dim=1, keepdim=True), limits.sum(dim=2, keepdim=True)
    more = project(updates, torch.cat([implied, normals], dim=1), torch.cat([limit, limits], dim=2), none)
    torch.testing.assert_close(more, expected, rtol=0, atol=2e-5 if dtype == torch.float32 else 1e-9)


def test_of_a_repeated_normal_the_tighter_limit_counts() -> None:
    updates, normals, limits, none = problems(91, n_normals=1)
    limits = limits.nan_to_num(posinf=0.3)
    both = project(updates, normals.expand(-1, 2, -1), torch.cat([limits + 0.1, limits], dim=2), none)
    torch.testing.assert_close(both, project(updates, normals, limits, none), rtol=0, atol=1e-10)


def test_zero_normals_and_infinite_limits_are_no_limits() -> None:
    updates, normals, limits, none = problems(100)
    expected = project(updates, normals, limits, none)
    zeros = torch.cat([torch.zeros_like(normals), normals], dim=1)
    torch.testing.assert_close(
        project(updates, zeros, torch.cat([0 * none[..., None].expand(-1, -1, 3).nan_to_num(), limits], 2), none), expected
    )
    assert torch.equal(project(updates, normals, torch.full_like(limits, torch.inf), none), updates)


def test_without_normals_or_ball_nothing_moves() -> None:
    updates, normals, limits, none = problems(101)
    assert torch.equal(project(updates, normals[:, :0], limits[..., :0], none), updates)


def test_zero_updates_and_updates_that_are_not_finite_come_back_as_they_are() -> None:
    updates, normals, limits, none = problems(102)
    updates[0, 0], updates[0, 1], updates[0, 2, 0], updates[0, 3, 1] = 0.0, torch.nan, torch.inf, -torch.inf
    moved = project(updates, normals, limits, none + 1)
    assert torch.equal(moved[0, :4].nan_to_num(nan=9.0), updates[0, :4].nan_to_num(nan=9.0))
    alone = project(updates[:, 4:], normals, limits[:, 4:], none[:, 4:] + 1)
    torch.testing.assert_close(moved[:, 4:], alone, rtol=0, atol=1e-14)


def test_a_normal_that_is_not_finite_leaves_its_environment_alone_and_disturbs_no_other() -> None:
    updates, normals, limits, none = problems(103)
    spoilt = normals.clone()
    spoilt[0, 1, 2], spoilt[1, 0] = torch.nan, torch.inf
    moved = project(updates, spoilt, limits, none)
    assert torch.equal(moved[:2], updates[:2])
    assert torch.equal(moved[2:], project(updates[2:], normals[2:], limits[2:], none[2:]))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("by", "steeper"), [(1e-6, 1e4), (1e5, 1e-3)])
def test_units_do_not_matter(dtype: torch.dtype, by: float, steeper: float) -> None:
    updates, normals, limits, none = problems(104, dtype=dtype)
    radius = none.masked_fill(torch.arange(7) % 2 == 0, 1.5)
    moved = project(by * updates, steeper * normals, by * steeper * limits, by * radius) / by
    torch.testing.assert_close(moved, project(updates, normals, limits, radius), rtol=0, atol=5e-5 if dtype == torch.float32 else 1e-9)


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_an_environment_gets_does_not_depend_on_its_batch(dtype: torch.dtype) -> None:
    updates, normals, limits, none = problems(110, n_envs=8, n_updates=24, n_normals=6, n_params=25, dtype=dtype)
    radius = none.clone()
    radius[:, ::3] = 2.0
    together = project(updates, normals, limits, radius)
    for e in range(8):
        alone = project(updates[e : e + 1], normals[e : e + 1], limits[e : e + 1], radius[e : e + 1])
        torch.testing.assert_close(alone, together[e : e + 1], rtol=0, atol=4 * torch.finfo(dtype).eps)


def test_the_order_of_the_normals_does_not_matter() -> None:
    updates, normals, limits, none = problems(120, n_normals=6)
    order = torch.tensor([3, 5, 0, 1, 4, 2])
    torch.testing.assert_close(
        project(updates, normals[:, order], limits[..., order], none), project(updates, normals, limits, none), rtol=0, atol=1e-9
    )


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), n_normals=st.integers(1, 8), n_params=st.integers(1, 12), ball=st.booleans())
def test_it_is_idempotent_and_firmly_nonexpansive(seed: int, n_normals: int, n_params: int, ball: bool) -> None:
    updates, normals, limits, none = problems(seed, n_envs=2, n_updates=6, n_normals=n_normals, n_params=n_params)
    limits = limits[:, :1].expand(-1, 6, -1)  # one convex set an environment
    radius = none.clone().fill_(1.5) if ball else none
    moved = project(updates, normals, limits, radius)
    torch.testing.assert_close(project(moved, normals, limits, radius), moved, rtol=0, atol=1e-9)
    between, moved_between = updates[:, :3] - updates[:, 3:], moved[:, :3] - moved[:, 3:]
    # ‖Πx − Πy‖² ≤ ⟨Πx − Πy, x − y⟩, which characterises projections on convex sets among other retractions
    assert (moved_between.square().sum(dim=-1) <= (moved_between * between).sum(dim=-1) + 1e-8).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"updates": torch.zeros(2, 3)}, r"updates \(2, 3\).*must be \(E, B, P\)"),
        ({"normals": torch.zeros(2, 4, 6)}, r"normals \(2, 4, 6\).*same E and P"),
        ({"limits": torch.zeros(2, 3, 5)}, r"limits has shape \(2, 3, 5\): must be \(2, 3, 4\)"),
        ({"max_norm": torch.zeros(2)}, r"max_norm has shape \(2,\): must be \(2, 3\)"),
        ({"limits": torch.full((2, 3, 4), -0.1)}, "limits has an entry that is negative"),
        ({"limits": torch.full((2, 3, 4), torch.nan)}, "limits has an entry that is .*not a number"),
        ({"max_norm": torch.full((2, 3), -1.0)}, "max_norm has an entry that is negative"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Tensor], message: str) -> None:
    given = {"updates": torch.zeros(2, 3, 5), "normals": torch.zeros(2, 4, 5), "limits": torch.zeros(2, 3, 4), "max_norm": torch.ones(2, 3)}
    with pytest.raises(ValueError, match=message):
        project(**(given | change))
