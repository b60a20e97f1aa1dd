"""What releases guarantee, against the definition order by order and against the exact guarantee of Gaussian noise."""

import math

import pytest
import torch
from scipy import integrate
from scipy.optimize import brentq
from scipy.stats import norm
from torch import Tensor

from proxycoop.envs.privacy import ORDERS, epsilon, sigma_for

GRID = [(n, sigma, delta) for n in (1, 4, 16, 256) for sigma in (0.3, 0.8, 1.0, 4.0, 16.0) for delta in (1e-3, 1e-5, 1e-8)]


def by_definition(n: int, sigma: float, delta: float) -> float:
    """The least ε over the orders, each by the formula."""
    least = math.inf
    for order in ORDERS:
        divergence = n * order / (2 * sigma**2)
        least = min(least, divergence + math.log1p(-1 / order) - math.log(delta * order) / (order - 1))
    return least


def exact_delta(eps: float, mu: float) -> float:
    """δ of Gaussian noise at a distance of μ standard deviations (Balle & Wang 2018, theorem 8)."""
    return float(norm.cdf(mu / 2 - eps / mu) - math.exp(eps + norm.logcdf(-mu / 2 - eps / mu)))


def exact(n: int, sigma: float, delta: float) -> float:
    """ε of n such releases, which tell as much as one at √n times the distance (Balle & Wang 2018)."""
    mu = math.sqrt(n) / sigma
    if exact_delta(0.0, mu) <= delta:
        return 0.0
    high = 1.0
    while exact_delta(high, mu) > delta:
        high *= 2
    return float(brentq(lambda eps: exact_delta(eps, mu) - delta, 0.0, high, xtol=1e-12, rtol=1e-12))


@pytest.mark.parametrize(("n", "sigma", "delta"), GRID)
def test_epsilon_is_the_least_over_the_orders(n: int, sigma: float, delta: float) -> None:
    assert float(epsilon(n, sigma, delta)) == pytest.approx(by_definition(n, sigma, delta), rel=1e-12)


@pytest.mark.parametrize(("n", "sigma", "delta"), GRID)
def test_epsilon_is_never_below_the_exact_one_and_within_a_quarter_of_it_unless_there_is_much_noise(
    n: int, sigma: float, delta: float
) -> None:
    least = exact(n, sigma, delta)
    found = float(epsilon(n, sigma, delta))
    assert found >= least
    assert found <= 1.25 * least, (found, least)


def test_at_delta_1e_5_epsilon_is_4_to_10_percent_above_the_exact_one_for_16_rounds() -> None:
    ratios = [float(epsilon(16, sigma, 1e-5)) / exact(16, sigma, 1e-5) for sigma in (0.3, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)]
    assert 1.04 < min(ratios) < 1.05
    assert 1.09 < max(ratios) < 1.10


@pytest.mark.parametrize("order", [1.5, 3.0, 12.0])
def test_the_divergence_of_gaussians_is_the_one_that_is_added_up(order: float) -> None:
    sigma = 1.3

    def integrand(x: float) -> float:
        return math.exp(order * norm.logpdf(x, 1.0, sigma) + (1 - order) * norm.logpdf(x, 0.0, sigma))

    integral, _ = integrate.quad(integrand, order - 30, order + 30, points=[order], epsabs=1e-14, epsrel=1e-12)
    assert math.log(integral) / (order - 1) == pytest.approx(order / (2 * sigma**2), rel=1e-8)


def test_tensors_of_numbers_give_each_its_own_epsilon() -> None:
    n = torch.tensor([[0, 1, 16], [2, 3, 7]])
    found = epsilon(n, 1.5, 1e-5)
    assert found.dtype == torch.float64
    for row, one in zip(found, n, strict=True):
        for eps, number in zip(row, one, strict=True):
            assert float(eps) == pytest.approx(by_definition(int(number), 1.5, 1e-5) if number else 0.0, rel=1e-12)


def test_nothing_released_spends_nothing_and_anything_without_noise_spends_all() -> None:
    assert epsilon(torch.tensor([0, 1, 5]), 0.0, 1e-5).tolist() == [0.0, math.inf, math.inf]
    assert float(epsilon(0, 1.0, 1e-5)) == 0.0
    assert float(epsilon(1, 1e-200, 1e-5)) == math.inf  # its square is 0 in floating point


def test_epsilon_is_never_below_0() -> None:
    assert by_definition(1, 100.0, 0.9) < 0
    assert float(epsilon(1, 100.0, 0.9)) == 0.0


def test_more_releases_and_less_noise_spend_more() -> None:
    assert (epsilon(torch.arange(64), 1.0, 1e-5).diff() > 0).all()
    assert (torch.stack([epsilon(16, sigma, 1e-5) for sigma in (8.0, 4.0, 2.0, 1.0, 0.5)]).diff() > 0).all()


def bisected(budget: float, n: int, delta: float) -> float:
    """The least noise multiplier for a budget, slowly."""
    low, high = 1e-3, 1e4
    for _ in range(200):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if by_definition(n, middle, delta) <= budget else (middle, high)
    return high


@pytest.mark.parametrize("budget", [0.5, 1.0, 3.0, 8.0, 50.0])
@pytest.mark.parametrize("n", [1, 16, 200])
@pytest.mark.parametrize("delta", [1e-5, 1e-3])
def test_sigma_for_a_budget_is_the_least_that_keeps_it(budget: float, n: int, delta: float) -> None:
    sigma = sigma_for(budget, n, delta)
    assert sigma == pytest.approx(bisected(budget, n, delta), rel=1e-9)
    assert budget * (1 - 1e-9) < float(epsilon(n, sigma, delta)) <= budget
    assert float(epsilon(n, sigma * (1 - 1e-6), delta)) > budget


def test_no_releases_need_no_noise() -> None:
    assert sigma_for(1.0, 0, 1e-5) == 0.0


def test_a_budget_that_no_noise_keeps_is_refused_with_the_least_that_can_be_had() -> None:
    floor = by_definition(1, 1e9, 1e-5)
    with pytest.raises(ValueError, match=rf"epsilon=0\.1: with delta=1e-05 no noise spends less than {floor:.4g} .* larger epsilon"):
        sigma_for(0.1, 16, 1e-5)
    assert float(epsilon(16, sigma_for(floor * 1.001, 16, 1e-5), 1e-5)) <= floor * 1.001


@pytest.mark.parametrize(
    ("n", "sigma", "delta", "said"),
    [
        (-1, 1.0, 1e-5, "n_releases=-1: must be a whole number, at least 0"),
        (1.5, 1.0, 1e-5, "n_releases=1.5: must be a whole number"),
        (True, 1.0, 1e-5, "n_releases=True: must be a whole number"),
        (torch.tensor([1.0]), 1.0, 1e-5, "n_releases has dtype torch.float32: must be whole numbers"),
        (torch.tensor([True]), 1.0, 1e-5, "n_releases has dtype torch.bool: must be whole numbers"),
        (torch.tensor([3, -2]), 1.0, 1e-5, "n_releases has entries below 0, the least of them -2"),
        (1, -1.0, 1e-5, "noise_multiplier=-1.0: must be a number from 0"),
        (1, math.nan, 1e-5, "noise_multiplier=nan"),
        (1, 1.0, 0.0, "delta=0.0: must be above 0 and below 1"),
        (1, 1.0, 1.0, "delta=1.0: must be above 0 and below 1"),
        (1, 1.0, "small", "delta='small'"),
    ],
)
def test_what_makes_no_sense_is_refused(n: Tensor | int, sigma: float, delta: float, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        epsilon(n, sigma, delta)


@pytest.mark.parametrize(
    ("budget", "n", "said"),
    [(-1.0, 1, "epsilon=-1.0"), (math.inf, 1, "epsilon=inf"), (1.0, -1, "n_releases=-1"), (1.0, 2.5, "n_releases=2.5")],
)
def test_budgets_that_make_no_sense_are_refused(budget: float, n: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        sigma_for(budget, n, 1e-5)
