"""Clipping and noise against single updates by hand, and the noise against its distribution."""

import math

import pytest
import torch
from torch import Tensor
from torch.linalg import vector_norm

from proxycoop.envs import randomness
from proxycoop.envs.privacy import Privacy, clipped, noised, step_noise
from proxycoop.envs.randomness import Purpose, fold

E, N, U, P = 5, 3, 4, 6
KEYS = fold(torch.arange(E), 0)


def drawn_updates(dtype: torch.dtype = torch.float64) -> Tensor:
    """Updates of very different lengths; one is zero."""
    generator = torch.Generator().manual_seed(1)
    updates = torch.randn(E, N, U, P, generator=generator, dtype=dtype) * torch.logspace(-3, 3, U, dtype=dtype)[:, None]
    updates[0, 0, 0] = 0.0
    return updates


@pytest.mark.parametrize("clip", [0.01, 1.0, 50.0])
def test_each_update_is_shortened_to_the_norm_and_keeps_its_direction(clip: float) -> None:
    updates = drawn_updates()
    found = clipped(updates, vector_norm(updates, dim=-1), clip)
    for e in range(E):
        for i in range(N):
            for u in range(U):
                one = updates[e, i, u].tolist()
                length = math.sqrt(sum(x * x for x in one))
                if length <= clip:
                    assert found[e, i, u].tolist() == one
                else:
                    assert found[e, i, u].tolist() == pytest.approx([x * clip / length for x in one], rel=1e-13)
                    assert float(vector_norm(found[e, i, u])) <= clip * (1 + 1e-14)


def test_updates_that_are_not_finite_become_zero_and_leave_the_others_alone() -> None:
    updates = drawn_updates(torch.float32)
    updates[0, 1, 2, 3], updates[1, 0, 0, 0], updates[2, 2, 3] = math.inf, math.nan, 1e30  # the last one's norm is infinite
    norm = vector_norm(updates, dim=-1)
    found = clipped(updates, norm, 1.0)
    broken = torch.zeros(E, N, U, dtype=torch.bool)
    broken[0, 1, 2] = broken[1, 0, 0] = broken[2, 2, 3] = True
    assert found[broken].eq(0).all()
    assert found[~broken].equal(clipped(updates[~broken][None], norm[~broken][None], 1.0)[0])
    assert found.isfinite().all()


def test_noise_is_the_drawn_numbers_times_its_standard_deviation() -> None:
    updates = drawn_updates()
    found = noised(updates, KEYS, 7, 0.3)
    for e in range(E):
        numbers = randomness.normal(fold(KEYS[e : e + 1], Purpose.PRIVACY, 7), U * N * P)[0]
        for i in range(N):
            for u in range(U):
                start = (u * N + i) * P
                assert found[e, i, u].equal(updates[e, i, u] + 0.3 * numbers[start : start + P])


def test_a_batch_is_noised_as_its_rows_alone_and_each_round_anew() -> None:
    updates = drawn_updates()
    found = noised(updates, KEYS, 2, 1.0)
    for e in range(E):
        assert noised(updates[e : e + 1], KEYS[e : e + 1], 2, 1.0).equal(found[e : e + 1])
    step = step_noise(torch.linspace(0.1, 0.5, E, dtype=torch.float64), P, KEYS, 2)
    for e in range(E):
        assert step_noise(torch.linspace(0.1, 0.5, E, dtype=torch.float64)[e : e + 1], P, KEYS[e : e + 1], 2).equal(step[e : e + 1])
    assert (noised(updates, KEYS, 3, 1.0) != found).all()
    assert len(found[0].sub(updates[0]).unique()) == N * U * P  # no two coordinates have the same noise


def test_forged_updates_after_the_lots_leave_the_lots_noise_as_it_is() -> None:
    updates = drawn_updates()
    assert noised(updates, KEYS, 2, 1.0)[:, :, :2].equal(noised(updates[:, :, :2], KEYS, 2, 1.0))


def test_noise_has_the_mean_the_standard_deviation_and_the_tails_of_a_gaussian() -> None:
    keys = torch.arange(40)
    noise = noised(torch.zeros(40, 5, 4, 500, dtype=torch.float64), keys, 0, 2.5) / 2.5
    n = noise.numel()
    assert abs(float(noise.mean())) < 5 / math.sqrt(n)
    assert abs(float(noise.square().mean()) - 1) < 5 * math.sqrt(2 / n)
    for bound in (1.0, 2.0, 3.0):
        beyond = math.erfc(bound / math.sqrt(2))
        assert abs(float((noise.abs() > bound).double().mean()) - beyond) < 5 * math.sqrt(beyond * (1 - beyond) / n)
    flat = noise.flatten(end_dim=2)
    correlation = (flat @ flat.T / 500).fill_diagonal_(0.0)  # updates of one environment, and of several
    assert float(correlation.abs().max()) < 6 / math.sqrt(500)


def test_noise_of_a_step_is_in_proportion_to_its_environment_s_scale() -> None:
    scale = torch.tensor([0.0, 0.1, 0.2, 0.3, 4.0], dtype=torch.float64)
    found = step_noise(scale, P, KEYS, 1)
    for e in range(E):
        assert found[e].equal(float(scale[e]) * randomness.normal(fold(KEYS[e : e + 1], Purpose.PRIVACY, 1), P)[0])


def test_without_noise_updates_stay_as_they_are() -> None:
    updates = drawn_updates()
    assert noised(updates, KEYS, 0, 0.0) is updates


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_leaves_the_proxies_is_clipped_and_noised_where_the_settings_say_so(dtype: torch.dtype) -> None:
    updates = drawn_updates(dtype)
    norm = vector_norm(updates, dim=-1)
    short = clipped(updates, norm, 0.5)
    largest = torch.linspace(0.1, 0.3, E, dtype=dtype)
    by_update = Privacy(clip=0.5, noise_multiplier=3.0)
    assert by_update.released(updates, norm, KEYS, 4).equal(noised(short, KEYS, 4, 1.5))
    assert by_update.of_step(largest, P, KEYS, 4).equal(torch.zeros(E, P, dtype=dtype))
    of_step = Privacy(clip=0.5, noise_multiplier=3.0, noise="step")
    assert of_step.released(updates, norm, KEYS, 4).equal(short)
    assert of_step.shortened(updates, norm).equal(short)
    found = of_step.of_step(largest, P, KEYS, 4)
    assert found.dtype == dtype
    assert found.equal(step_noise(1.5 * largest, P, KEYS, 4))


def test_no_lot_changes_a_step_by_more_than_the_noise_is_made_for() -> None:
    """Each lot's update is left out in turn, whatever the others are."""
    updates = drawn_updates()
    privacy = Privacy(clip=0.7, noise="step")
    short = privacy.shortened(updates, vector_norm(updates, dim=-1))
    share = torch.rand(E, N, U, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    share = share / share.sum(dim=(1, 2), keepdim=True)
    step = (share[..., None] * short).sum(dim=(1, 2))
    for i in range(N):
        for u in range(U):
            without = share.clone()
            without[:, i, u] = 0.0
            change = vector_norm(step - (without[..., None] * short).sum(dim=(1, 2)), dim=-1)
            assert (change <= 0.7 * share.amax(dim=(1, 2)) * (1 + 1e-12)).all()
