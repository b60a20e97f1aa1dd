from itertools import combinations
from math import comb, prod

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import beta as beta_function
from torch import Tensor

from proxycoop import credit
from proxycoop.credit.solutions.beta_shapley import beta_shapley_weights

SEEDS = st.integers(0, 2**32 - 1)
PARAMETERS = st.floats(0.1, 32)


def random_worths(seed: int, n: int, n_envs: int = 1) -> Tensor:
    """Standard normal worths with v(∅) = 0, float64 ``(n_envs, 2**n)``."""
    v = torch.randn(n_envs, 2**n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    v[:, 0] = 0
    return v


def beta_shapley(v: Tensor, alpha: float, beta: float) -> Tensor:
    """The Beta-Shapley value of the games whose worths are in the table, ``(n_envs, n)``."""
    n = v.shape[1].bit_length() - 1
    return credit.BetaShapley(alpha, beta).values(lambda c: v[:, (c * 2 ** torch.arange(n)).sum(dim=1)], n)


def by_definition(v: Tensor, alpha: float, beta: float) -> list[float]:
    """Equation (5) and theorem 2 of Kwon & Zou, one coalition after another; j is the size with the player in it."""
    n = v.shape[1].bit_length() - 1
    values = []
    for i in range(n):
        others = [1 << k for k in range(n) if k != i]
        total = 0.0
        for j in range(1, n + 1):
            weight = n * comb(n - 1, j - 1) * beta_function(j + beta - 1, n - j + alpha) / beta_function(alpha, beta)
            codes = [sum(chosen) for chosen in combinations(others, j - 1)]
            total += weight * sum((v[0, code | 1 << i] - v[0, code]).item() for code in codes) / comb(n - 1, j - 1)
        values.append(total / n)
    return values


@given(st.integers(1, 20), PARAMETERS, PARAMETERS)
def test_the_weights_of_all_sizes_sum_to_one(n, alpha, beta):
    p = beta_shapley_weights(n, alpha, beta)
    assert sum(comb(n - 1, s) * weight for s, weight in enumerate(p)) == pytest.approx(1, abs=1e-11)


@pytest.mark.parametrize("n", [1, 2, 5, 12, 20])
def test_weights_with_both_parameters_1_are_shapleys(n):
    assert beta_shapley_weights(n, 1, 1) == pytest.approx([1 / (n * comb(n - 1, s)) for s in range(n)], rel=1e-12)


@given(SEEDS, st.integers(1, 8))
def test_both_parameters_1_give_the_shapley_value(seed, n):
    v = random_worths(seed, n, n_envs=2)
    torch.testing.assert_close(beta_shapley(v, 1, 1), credit.shapley_values(v), rtol=0, atol=1e-12)


@given(SEEDS, st.integers(1, 5), PARAMETERS, PARAMETERS)
def test_agrees_with_the_definition(seed, n, alpha, beta):
    v = random_worths(seed, n)
    assert beta_shapley(v, alpha, beta)[0].tolist() == pytest.approx(by_definition(v, alpha, beta), abs=1e-11)


@pytest.mark.parametrize(("alpha", "beta"), [(4, 1), (16, 1), (1, 4), (0.5, 0.5), (2, 3)])
@pytest.mark.parametrize("needed", [[2], [0, 3], [0, 1, 4], [0, 1, 2, 3, 4]])
def test_unanimity_game_gives_those_it_needs_a_moment_of_the_beta_distribution(alpha, beta, needed):
    # the others are there with probability E[p^(t−1)], p ~ Beta(β, α)
    expected = prod((beta + r) / (alpha + beta + r) for r in range(len(needed) - 1))
    paid = credit.BetaShapley(alpha, beta).values(lambda c: c[:, needed].all(dim=1), 5)[0]
    assert paid.tolist() == pytest.approx([expected if i in needed else 0.0 for i in range(5)], abs=1e-13)


def test_a_large_alpha_pays_what_agents_are_worth_alone_and_a_large_beta_what_they_add_to_all():
    v = random_worths(0, 5)
    alone = v[:, 2 ** torch.arange(5)]
    added = v[:, -1:] - v[:, 31 - 2 ** torch.arange(5)]
    torch.testing.assert_close(beta_shapley(v, 1e7, 1), alone, rtol=0, atol=1e-5)
    torch.testing.assert_close(beta_shapley(v, 1, 1e7), added, rtol=0, atol=1e-5)


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=8), PARAMETERS, PARAMETERS)
def test_additive_game_gives_each_player_its_own_worth(worth, alpha, beta):
    weights = torch.tensor(worth, dtype=torch.float64)
    assert credit.BetaShapley(alpha, beta).values(lambda c: c.double() @ weights, len(worth))[0].tolist() == pytest.approx(worth, abs=1e-8)


@pytest.mark.parametrize("n", [15, 17])
def test_many_players_share_an_additive_and_a_unanimity_game_in_closed_form(n):
    worth = torch.linspace(-1, 2, n, dtype=torch.float64)
    needed = [0, 3, n - 1]
    expected = worth + torch.tensor([5 * (1 / 5) * (2 / 6) if i in needed else 0.0 for i in range(n)], dtype=torch.float64)
    paid = credit.make("beta_shapley(alpha=4, beta=1)").values(lambda c: c.double() @ worth + 5.0 * c[:, needed].all(dim=1), n)
    torch.testing.assert_close(paid[0], expected, rtol=0, atol=1e-10)


def test_copies_are_paid_as_if_alone_under_a_large_alpha_which_is_its_known_failure():
    paid = credit.BetaShapley(alpha=100).values(lambda c: c.any(dim=1), 2)[0]
    assert paid.min() > 0.99  # one piece of work, paid nearly twice


def test_is_efficient_for_both_parameters_1_only_and_says_so():
    v = random_worths(1, 5)
    assert credit.BetaShapley(1, 1).efficient
    assert not credit.BetaShapley().efficient
    assert beta_shapley(v, 1, 1).sum().item() == pytest.approx(v[0, -1].item(), abs=1e-12)
    assert abs(beta_shapley(v, 4, 1).sum() - v[0, -1]) > 0.01


@given(SEEDS, st.integers(1, 6), st.integers(1, 5))
def test_a_batch_of_games_equals_the_games_one_by_one(seed, n, n_envs):
    v = random_worths(seed, n, n_envs)
    torch.testing.assert_close(beta_shapley(v, 4, 1), torch.cat([beta_shapley(row[None], 4, 1) for row in v]), rtol=0, atol=1e-13)


@pytest.mark.parametrize("bad", [0, -1.0, float("inf"), float("nan")])
@pytest.mark.parametrize("name", ["alpha", "beta"])
def test_parameters_must_be_positive_numbers(name, bad):
    with pytest.raises(ValueError, match=f"{name}={bad}: must be a positive number"):
        credit.make("beta_shapley", **{name: bad})
