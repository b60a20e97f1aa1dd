"""Random numbers: right distributions, one stream a purpose, nothing depends on who else is in the batch."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from proxycoop.envs import randomness
from proxycoop.envs.randomness import Purpose, fold, gamma, normal, permutation, uniform

KEYS = torch.arange(50)
N = 4000  # numbers a key


def check_moments(x: Tensor, mean: float, variance: float, fourth: float) -> None:
    """Mean and variance within five standard errors; ``fourth`` is the fourth central moment."""
    count = x.numel()
    assert abs(float(x.mean()) - mean) < 5 * math.sqrt(variance / count)
    assert abs(float(((x - mean) ** 2).mean()) - variance) < 5 * math.sqrt((fourth - variance**2) / count)


def test_uniform_numbers_have_uniform_moments_and_quantiles() -> None:
    u = uniform(KEYS, N)
    check_moments(u, 1 / 2, 1 / 12, 1 / 80)
    counts = torch.histc(u, bins=20, min=0, max=1)
    expected = u.numel() / 20
    assert float(((counts - expected) ** 2 / expected).sum()) < 45  # chi-square with 19 degrees of freedom: p ≈ 0.0007
    assert u.min() > 0
    assert u.max() < 1


def test_normal_numbers_have_normal_moments() -> None:
    check_moments(normal(KEYS, N), 0.0, 1.0, 3.0)


@pytest.mark.parametrize("shape", [1, 3])
def test_gamma_numbers_have_gamma_moments(shape: int) -> None:
    check_moments(gamma(KEYS, shape, N), shape, shape, 3 * shape**2 + 6 * shape)


@pytest.mark.parametrize("lag", [1, 2, 20])
def test_neighbouring_numbers_and_neighbouring_keys_are_uncorrelated(lag: int) -> None:
    u = uniform(KEYS, N) - 0.5
    for a, b in ((u[:, lag:], u[:, :-lag]), (u[lag:], u[:-lag])):
        correlation = float((a * b).mean() * 12)
        assert abs(correlation) < 5 / math.sqrt(a.numel())


@pytest.mark.parametrize("size", [1, 2, 7, 50])
def test_a_row_depends_on_its_key_alone(size: int) -> None:
    draws: list[Callable[[Tensor], Tensor]] = [
        lambda keys: uniform(keys, 3, 5),
        lambda keys: normal(keys, 4),
        lambda keys: gamma(keys, 2, 4),
        lambda keys: permutation(keys, 6),
    ]
    for draw in draws:
        batch = draw(KEYS)
        assert torch.equal(draw(KEYS[:size]), batch[:size])
        assert torch.equal(draw(KEYS[-1:]), batch[-1:])
        assert torch.equal(draw(KEYS.flip(0)), batch.flip(0))


def test_every_purpose_episode_and_seed_has_a_stream_of_its_own() -> None:
    keys = torch.cat([fold(fold(KEYS, episode), purpose) for episode in range(20) for purpose in Purpose])
    keys = torch.cat([keys, *[fold(fold(KEYS, episode), Purpose.VIRTUAL_BATCH, t) for episode in range(20) for t in range(16)]])
    assert len(keys.unique()) == len(keys)
    u = uniform(keys[:200], 1000) - 0.5
    correlations = (u @ u.T) / 1000 * 12 - torch.eye(200, dtype=u.dtype)
    assert correlations.fill_diagonal_(0).abs().max() < 6 / math.sqrt(1000)


def test_the_order_of_words_matters_and_folding_twice_is_folding_both() -> None:
    assert not torch.equal(fold(KEYS, 1, 2), fold(KEYS, 2, 1))
    assert torch.equal(fold(KEYS, 1, 2), fold(fold(KEYS, 1), 2))
    assert not torch.equal(fold(KEYS, 0), KEYS)


def test_seeds_of_any_size_serve() -> None:
    seeds = torch.tensor([0, 1, 2**31, 2**32, 2**62, 2**63 - 1])
    u = uniform(fold(seeds, 0), 1000)
    assert ((u.mean(dim=1) - 0.5).abs() < 5 / math.sqrt(12_000)).all()
    assert len(u.flatten().unique()) == 6000


def test_a_permutation_is_a_permutation_and_every_place_is_equally_likely() -> None:
    order = permutation(torch.arange(5000), 2, 4)  # (5000, 2, 4)
    assert torch.equal(order.sort(dim=-1).values, torch.arange(4).expand(5000, 2, 4))
    share = torch.nn.functional.one_hot(order, 4).double().mean(dim=(0, 1))
    assert (share - 0.25).abs().max() < 5 * math.sqrt(0.25 * 0.75 / 10_000)


def test_numbers_are_splitmix64_written_in_plain_python() -> None:
    mask = 2**64 - 1

    def mix(z: int) -> int:
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        return z ^ (z >> 31)

    for key in (0, 12345, 2**63 - 1):
        expected = [((mix((key + i * 0x9E3779B97F4A7C15) & mask) >> 12) + 0.5) * 2.0**-52 for i in range(1, 9)]
        assert uniform(torch.tensor([key]), 8).tolist() == [expected]


def test_no_seed_and_episode_fold_to_the_key_of_another_seed() -> None:
    # a key that equals a bare seed makes (seed, episode, purpose, t) and (other seed, episode', purpose') one stream
    seeds = torch.arange(200)
    for episode in range(200):
        assert fold(seeds, episode).abs().min() > 10**6, episode


@pytest.mark.parametrize("word", [0, 1, 7, -1, 2**62 + 3, 2**63 - 1, -(2**63)])
def test_a_word_of_any_size_is_mixed_as_a_tensor_would_be(word: int) -> None:
    mixed = randomness._mix(torch.full((1,), word) * randomness._WORD + 1)
    assert randomness._mixed(word) == int(mixed)
