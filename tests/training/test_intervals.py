"""Intervals over crossed samples: closed forms, invariances, missing entries, and coverage in simulations."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from proxycoop.training.intervals import Estimate, two_way

# row effects 0, 3, 6; column effects 0, 4; and what is left is ±1 or 0
X = torch.tensor([[1.0, 3.0], [2.0, 8.0], [6.0, 10.0]])


def t(degrees: float) -> float:
    return float(scipy.stats.t.ppf(0.975, degrees))


def anova(x: np.ndarray) -> tuple[float, float, float]:
    """Mean squares of rows, columns and the rest, by sums over entries."""
    n_rows, n_columns = x.shape
    grand, rows, columns = x.mean(), x.mean(axis=1), x.mean(axis=0)
    between_rows = sum((rows[r] - grand) ** 2 for r in range(n_rows) for _ in range(n_columns)) / (n_rows - 1)
    between_columns = sum((columns[s] - grand) ** 2 for _ in range(n_rows) for s in range(n_columns)) / (n_columns - 1)
    rest = sum((x[r, s] - rows[r] - columns[s] + grand) ** 2 for r in range(n_rows) for s in range(n_columns))
    return between_rows, between_columns, rest / ((n_rows - 1) * (n_columns - 1))


def test_mean_squares_by_hand() -> None:
    """Rows 2, 5, 8 and columns 3, 7 around 5: MS_R = 2·18/2 = 18, MS_S = 3·8/1 = 24, MS_E = 4/2 = 2."""
    assert anova(X.numpy()) == pytest.approx((18, 24, 2))
    found = two_way(X[None])
    assert float(found.mean) == 5
    assert float(found.variance) == pytest.approx((18 + 24 - 2) / 6)
    assert float(found.degrees) == pytest.approx(40**2 / (18**2 / 2 + 24**2 / 1 + 2**2 / 2))
    estimate = Estimate.crossed(X)
    assert estimate.mean == 5
    assert estimate.half_width == pytest.approx(t(float(found.degrees)) * math.sqrt(40 / 6))


def test_the_formula_holds_wherever_no_component_is_negative() -> None:
    rng = np.random.default_rng(0)
    count = 0
    for _ in range(50):
        x = rng.normal(size=(6, 1)) + rng.normal(size=(1, 4)) + rng.normal(size=(6, 4))
        rows, columns, rest = anova(x)
        if rows < rest or columns < rest:
            continue
        count += 1
        found = two_way(torch.from_numpy(x)[None])
        variance = rows + columns - rest
        assert float(found.variance) == pytest.approx(variance / 24)
        assert float(found.degrees) == pytest.approx(max(variance**2 / (rows**2 / 5 + columns**2 / 3 + rest**2 / 15), 1))
    assert count > 25


def test_a_component_that_comes_out_negative_is_left_out() -> None:
    columns_only = torch.tensor([[1.0, 4.0, 8.0], [2.0, 4.0, 7.0]])  # rows have equal means
    found = two_way(columns_only[None])
    _, between, _ = anova(columns_only.numpy())
    assert float(found.variance) == pytest.approx(between / 6)
    assert float(found.degrees) == pytest.approx(2)
    assert Estimate.crossed(columns_only).half_width == pytest.approx(Estimate.of(columns_only.mean(dim=0)).half_width)
    neither = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    assert Estimate.crossed(neither).half_width == pytest.approx(Estimate.of(neither.flatten()).half_width)


@pytest.mark.parametrize("shape", [(1, 5), (5, 1)])
def test_one_row_or_column_is_student_s_interval(shape: tuple[int, int]) -> None:
    x = torch.arange(5.0).square()
    assert Estimate.crossed(x.reshape(shape)) == Estimate.of(x)


def test_one_number_has_no_interval_and_none_has_no_mean() -> None:
    assert Estimate.crossed(torch.tensor([[3.0]])) == Estimate(3.0, None)
    assert Estimate.crossed(torch.full((2, 3), torch.nan)) == Estimate(None, None)
    assert Estimate.crossed(torch.empty(0, 3)) == Estimate(None, None)


def test_a_difference_of_two_samples_has_welch_s_interval() -> None:
    draws = torch.Generator().manual_seed(0)
    a, b = 3 * torch.randn(8, generator=draws, dtype=torch.float64), 1 + torch.randn(10, generator=draws, dtype=torch.float64)
    expected = scipy.stats.ttest_ind(a.numpy(), b.numpy(), equal_var=False).confidence_interval(0.95)
    found = Estimate.difference(a, torch.cat([b, torch.tensor([math.nan])]))
    assert found.mean == pytest.approx((expected.low + expected.high) / 2)
    assert found.half_width == pytest.approx((expected.high - expected.low) / 2)


def test_a_difference_from_one_number_has_the_interval_of_the_other_sample_and_from_none_no_mean() -> None:
    one, some = torch.tensor([5.0]), torch.tensor([1.0, 2.0, 3.0])
    for found in (Estimate.difference(one, some), Estimate.difference(some, one)):
        assert abs(found.mean or 0) == 3
        assert found.half_width == pytest.approx(Estimate.of(some).half_width)
    assert Estimate.difference(one, one) == Estimate(0.0, None)
    assert Estimate.difference(some, torch.tensor([math.nan])) == Estimate(None, None)


def test_equal_entries_have_an_interval_of_width_zero() -> None:
    assert Estimate.crossed(torch.full((3, 4), 0.1)) == Estimate(pytest.approx(0.1), pytest.approx(0.0, abs=1e-9))


def test_order_transposition_and_shifts_change_nothing_and_scale_scales() -> None:
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(1)) + torch.arange(5.0)[:, None]
    one = Estimate.crossed(x)
    assert one.mean is not None
    assert one.half_width is not None
    for other in (x[[3, 0, 4, 1, 2]], x[:, [2, 0, 3, 1]], x.T):
        assert Estimate.crossed(other).half_width == pytest.approx(one.half_width)
    assert Estimate.crossed(x + 1000).half_width == pytest.approx(one.half_width, rel=1e-3)
    assert Estimate.crossed(-3 * x.double()) == Estimate(pytest.approx(-3 * one.mean), pytest.approx(3 * one.half_width))


def test_a_batch_is_its_matrices() -> None:
    x = torch.randn(7, 4, 3, generator=torch.Generator().manual_seed(2))
    x[2, 1, 1] = torch.nan
    for part, whole in zip(zip(*two_way(x), strict=True), x, strict=True):
        assert [float(one) for one in part] == pytest.approx([float(one) for one in two_way(whole[None])])


def henderson(x: np.ndarray) -> tuple[float, float, float]:
    """Variance components by method I, from the expectation of each sum of squares taken entry by entry."""
    known = np.argwhere(~np.isnan(x))
    values = np.array([x[r, s] for r, s in known])
    count = len(known)
    same = [
        known[:, :1] == known[:, :1].T,
        known[:, 1:] == known[:, 1:].T,
        np.eye(count, dtype=bool),
    ]  # of which pairs of entries the covariance has a component
    means = [one / one.sum(axis=1, keepdims=True) for one in (*same, np.ones((count, count), dtype=bool))]  # projections on means
    rows, columns, each, grand = means
    forms = [rows - grand, columns - grand, each - rows - columns + grand]
    expected = np.array([[np.trace(form @ one) for one in same] for form in forms])
    return tuple(np.linalg.solve(expected, [values @ form @ values for form in forms]))


def test_missing_entries_are_those_of_henderson_s_method() -> None:
    rng = np.random.default_rng(3)
    x = 2 * rng.normal(size=(5, 1)) + 2 * rng.normal(size=(1, 6)) + rng.normal(size=(5, 6))
    x[[0, 1, 4, 4], [1, 1, 0, 5]] = np.nan
    a, b, e = henderson(x)
    assert min(a, b) > 0
    known = ~np.isnan(x)
    count = known.sum()
    variance = a * (known.sum(axis=1) ** 2).sum() / count**2 + b * (known.sum(axis=0) ** 2).sum() / count**2 + e / count
    found = two_way(torch.from_numpy(x)[None])
    assert float(found.variance) == pytest.approx(variance)
    assert float(found.mean) == pytest.approx(np.nanmean(x))


def test_rows_and_columns_without_a_number_are_left_out() -> None:
    x = torch.full((4, 3), torch.nan)
    x[:3, :2] = X
    assert Estimate.crossed(x) == Estimate.crossed(X)
    x[3, 2] = 1.0  # too few entries now to tell rows, columns and the rest apart: 7 of 4 + 3 are just enough
    assert Estimate.crossed(x).half_width is not None
    sparse = torch.tensor([[1.0, torch.nan, torch.nan], [torch.nan, 2.0, torch.nan], [torch.nan, torch.nan, 4.0]])
    assert Estimate.crossed(sparse) == Estimate.of(torch.tensor([1.0, 2.0, 4.0]))


def drawn(shape: tuple[int, int], sds: tuple[float, float, float], n: int = 2000) -> Tensor:
    """Matrices with mean 0 and these standard deviations of rows, columns and the rest."""
    generator = torch.Generator().manual_seed(7)
    sizes = (shape[0], 1), (1, shape[1]), shape
    return sum(sd * torch.randn(n, *size, generator=generator, dtype=torch.float64) for sd, size in zip(sds, sizes, strict=True))


@pytest.mark.parametrize("sds", [(1, 1, 1), (1, 0, 1), (0, 1, 1), (3, 1, 0.5), (1, 3, 0.5), (1, 0.1, 0.1)])
@pytest.mark.parametrize("shape", [(10, 10), (5, 10), (10, 5)])
@pytest.mark.parametrize("missing", [False, True])
def test_intervals_cover_the_mean_in_95_of_100_cases(shape: tuple[int, int], sds: tuple[float, float, float], missing: bool) -> None:
    x = drawn(shape, sds)
    if missing:
        x[:, 2, 3] = x[:, 3, 1] = x[:, 0, 0] = torch.nan
    found = two_way(x)
    half_width = torch.from_numpy(scipy.stats.t.ppf(0.975, found.degrees.numpy())) * found.variance.sqrt()
    assert 0.93 <= float((found.mean.abs() <= half_width).double().mean()) <= 0.97


def test_over_seeds_alone_an_interval_misses_what_splits_do() -> None:
    means = drawn((10, 10), (0.3, 1, 0.3)).mean(dim=2)  # (n, seeds)
    half_width = t(9) * means.std(dim=1) / 10**0.5
    assert float((means.mean(dim=1).abs() <= half_width).double().mean()) < 0.6


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (torch.zeros(3, 3), r"x has shape \(3, 3\): must be \(batch, rows, columns\)"),
        (torch.zeros(1, 1, 3), "at least 2 rows and 2 columns"),
        (torch.full((1, 2, 2), torch.nan), "must have a number in each row and column"),
    ],
)
def test_what_is_no_batch_of_matrices_is_refused(x: Tensor, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        two_way(x)
    with pytest.raises(ValueError, match=r"matrix has shape \(3,\): must be \(seeds, splits\)"):
        Estimate.crossed(torch.zeros(3))
