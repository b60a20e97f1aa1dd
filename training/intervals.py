r"""Means and their 95 % intervals: over one kind of repetition, or over two that are crossed.

A measure of a comparison is a matrix: R training seeds, each evaluated on the same S data splits. Both are samples: other seeds would have
learned other policies, and other splits would have been other cooperatives. So the interval of the mean has to cover both, which neither
an interval over seeds nor one over splits does. The model is two-way random effects without replication,

.. math:: x_{rs} = \mu + a_r + b_s + e_{rs}, \quad
    \operatorname{Var}(\bar x) = \frac{\sigma_a^2}{R} + \frac{\sigma_b^2}{S} + \frac{\sigma_e^2}{RS},

and with the mean squares of the analysis of variance

.. math:: \widehat{\operatorname{Var}}(\bar x) = \frac{MS_R + MS_S - MS_E}{RS}, \quad
    \nu = \frac{(MS_R + MS_S - MS_E)^2}
    {\frac{MS_R^2}{R - 1} + \frac{MS_S^2}{S - 1} + \frac{MS_E^2}{(R - 1)(S - 1)}}

degrees of freedom of Student's distribution (Satterthwaite). A bootstrap of both indices (Owen's pigeonhole bootstrap) answers the same
question without a model. It is conservative, and with ten seeds its tails are rough, so it is not used here.

With three seeds and more, 94 to 98 % of such intervals hold the mean of normal effects. With two seeds that differ much, 88 to 91 % do.

References:
    Searle, Casella & McCulloch (1992), *Variance components*, Wiley, chapters 4 and 5 (Henderson's method I for missing entries).
    Satterthwaite (1946), *An approximate distribution of estimates of variance components*, Biometrics Bulletin 2(6).
    Owen (2007), *The pigeonhole bootstrap*, Annals of Applied Statistics 1(2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

LEVEL = 0.95
"""Level of all intervals."""


def _quantile(degrees: float) -> Any:
    """How many standard errors wide half an interval of Student's is."""
    from scipy.stats import t  # slow to import

    return t.ppf(0.5 + LEVEL / 2, degrees)


@dataclass(frozen=True)
class Estimate:
    """A mean over episodes, seeds or splits, and the half-width of its 95 % confidence interval. ``None`` stands for undefined."""

    mean: float | None
    half_width: float | None

    @classmethod
    def of(cls, sample: Tensor) -> Estimate:
        """Student's interval for the mean of a sample ``(n,)``; NaNs are left out."""
        sample = sample[~sample.isnan()].double()
        if len(sample) == 0:
            return cls(None, None)
        mean = float(sample.mean())
        if len(sample) == 1:
            return cls(mean, None)
        return cls(mean, float(_quantile(len(sample) - 1) * sample.std() / len(sample) ** 0.5))

    @classmethod
    def difference(cls, a: Tensor, b: Tensor) -> Estimate:
        """Welch's interval for the difference of the means of two samples ``(n,)``, ``(m,)``; NaNs are left out.

        Of a sample of one number, the interval is that of the other sample's mean: it says nothing about what else the one might have been.

        References:
            Welch (1947), *The generalization of "Student's" problem when several different population variances are involved*, Biometrika
            34(1-2).
        """
        a, b = (sample[~sample.isnan()].double() for sample in (a, b))
        if not len(a) or not len(b):
            return cls(None, None)
        mean, known = float(a.mean() - b.mean()), [sample for sample in (a, b) if len(sample) > 1]
        if not known:
            return cls(mean, None)
        terms = torch.stack([sample.var() / len(sample) for sample in known])
        free = torch.tensor([len(sample) - 1.0 for sample in known], dtype=torch.float64)
        variance, degrees = _satterthwaite(terms, free)
        return cls(mean, float(_quantile(float(degrees))) * float(variance) ** 0.5)

    @classmethod
    def crossed(cls, matrix: Tensor) -> Estimate:
        """Interval for the mean of a matrix ``(R, S)`` of training seeds by evaluation splits, covering both; see :func:`two_way`.

        NaNs are left out, and so are rows and columns without a number. Of one row, the interval is Student's over its columns, and says
        nothing about other rows; of one column likewise. Of one number there is none. With fewer numbers than rows and columns together,
        mean and interval are those of the rows' means, or of the columns' if these are fewer.

        Raises:
            ValueError: If it is no matrix.
        """
        if matrix.dim() != 2:
            raise ValueError(f"matrix has shape {tuple(matrix.shape)}: must be (seeds, splits)")
        known = ~matrix.isnan()
        matrix = matrix[known.any(dim=1)][:, known.any(dim=0)].double()
        known = ~matrix.isnan()
        if min(matrix.shape) <= 1:
            return cls.of(matrix.flatten())
        if int(known.sum()) < sum(matrix.shape):  # too few entries to tell rows, columns and the rest apart
            return cls.of(matrix.nanmean(dim=int(matrix.shape[0] <= matrix.shape[1])))
        found = two_way(matrix[None])
        half_width = _quantile(float(found.degrees)) * float(found.variance) ** 0.5
        return cls(float(found.mean), float(half_width))


class TwoWay(NamedTuple):
    """Means of matrices, and how uncertain they are; all ``(B,)``.

    Attributes:
        mean: The mean of all entries.
        variance: The estimated variance of the mean, in the square of the entries' unit.
        degrees: Degrees of freedom of Student's distribution.
    """

    mean: Tensor
    variance: Tensor
    degrees: Tensor


def two_way(x: Tensor) -> TwoWay:
    r"""The mean of crossed samples with its variance, for a batch of matrices; rows and columns are random effects.

    The estimate is that of the module's docstring, with two additions. A variance component that comes out negative is set to 0, and what
    is left of the model is estimated anew: without rows the variance is that of the columns' means, :math:`MS_S / RS` with
    :math:`S - 1` degrees of freedom, and likewise without columns; without both, it is that of the mean of RS independent entries. And
    entries may be missing (NaN): sums of squares then have the expectations of Henderson's method I, which are those of the analysis of
    variance where nothing is missing.

    Args:
        x: Matrices ``(B, R, S)``, R and S at least 2. Each row and column has at least one number, and there are at least R + S numbers.

    Returns:
        Mean, variance and degrees of freedom, float64 ``(B,)`` each.

    Raises:
        ValueError: If there are fewer rows, columns or numbers.
    """
    if x.dim() != 3 or min(x.shape[1:]) < 2:
        raise ValueError(f"x has shape {tuple(x.shape)}: must be (batch, rows, columns), with at least 2 rows and 2 columns")
    x = x.double()
    known = ~x.isnan()
    n_rows, n_columns, count = float(x.shape[1]), float(x.shape[2]), known.sum(dim=(1, 2)).double()  # count: (B,)
    in_row, in_column = known.sum(dim=2).double(), known.sum(dim=1).double()  # (B, R), (B, S)
    if (count < n_rows + n_columns).any() or (in_row == 0).any() or (in_column == 0).any():
        raise ValueError("x must have a number in each row and column, and at least as many as rows and columns together")
    mean = x.nansum(dim=(1, 2)) / count
    x = torch.where(known, x - mean[:, None, None], 0.0)  # centred, so that T_μ is 0 and sums of squares lose no digits
    of_rows = (x.sum(dim=2).square() / in_row).sum(dim=1)  # T_A − T_μ
    of_columns = (x.sum(dim=1).square() / in_column).sum(dim=1)
    total = x.square().sum(dim=(1, 2))
    k_rows, k_columns = in_row.square().sum(dim=1) / count, in_column.square().sum(dim=1) / count

    # E[sums of squares] = expected @ (σ_a², σ_b², σ_e²), and Var(mean) = wanted · (σ_a², σ_b², σ_e²)
    sums = torch.stack([of_rows, of_columns, total - of_rows - of_columns], dim=-1)  # (B, 3)
    expected = torch.stack(
        [
            torch.stack([count - k_rows, n_rows - k_columns, torch.full_like(count, n_rows - 1)], dim=-1),
            torch.stack([n_columns - k_rows, count - k_columns, torch.full_like(count, n_columns - 1)], dim=-1),
            torch.stack([k_rows - n_columns, k_columns - n_rows, count - n_rows - n_columns + 1], dim=-1),
        ],
        dim=1,
    )  # (B, 3, 3)
    wanted = torch.stack([k_rows, k_columns, torch.ones_like(count)], dim=-1) / count[:, None]
    components = torch.linalg.solve(expected, sums)
    weights = torch.linalg.solve(expected.transpose(1, 2), wanted)
    free = torch.stack([torch.full_like(count, n_rows - 1), torch.full_like(count, n_columns - 1), count - n_rows - n_columns + 1], dim=-1)
    found = _satterthwaite(weights * sums, free)
    by_row, by_column = _one_way(of_rows, total, count, n_rows, k_rows), _one_way(of_columns, total, count, n_columns, k_columns)
    apart = total / (count - 1) / count, count - 1  # independent entries
    without_rows, without_columns = components[:, 0] < 0, components[:, 1] < 0

    def pick(part: int) -> Tensor:
        one = [torch.where(how[2], how[part], apart[part]) for how in (by_row, by_column)]
        some = torch.where(without_rows, one[1], torch.where(without_columns, one[0], found[part]))
        return torch.where(without_rows & without_columns, apart[part], some)

    return TwoWay(mean, pick(0).clamp(min=0), pick(1))


def _one_way(between: Tensor, total: Tensor, count: Tensor, n_groups: float, k: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Variance of the mean and its degrees of freedom where only groups are random, and whether groups differ at all; ``(B,)`` each."""
    within = (total - between) / (count - n_groups)
    component = (between - (n_groups - 1) * within) / (count - k)
    weight_between = k / (count * (count - k))
    weight_within = (1 - k * (n_groups - 1) / (count - k)) / count
    terms = torch.stack([weight_between * between, weight_within * within], dim=-1)
    free = torch.stack([torch.full_like(count, n_groups - 1), count - n_groups], dim=-1)
    return *_satterthwaite(terms, free), component > 0


def _satterthwaite(terms: Tensor, free: Tensor) -> tuple[Tensor, Tensor]:
    """A sum of scaled mean squares and its degrees of freedom, from the terms and theirs, ``(B, n)`` each → ``(B,)`` each."""
    variance = terms.sum(dim=-1)
    spread = (terms.square() / free).sum(dim=-1)
    return variance, torch.where(spread > 0, variance.square() / spread.clamp(min=1e-300), free.amin(dim=-1)).clamp(min=1.0)
