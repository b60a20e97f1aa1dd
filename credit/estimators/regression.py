r"""Weighted least squares on sampled coalitions, which the estimators that fit a simpler game share.

Consider the additive games that give v(N) to all players together. The Shapley value is the one that fits v best over all coalitions, each
weighted by the Shapley kernel (Charnes, Golany, Keane & Rousseau 1988). Write :math:`c = v(N)/n + \theta`, with θ summing to 0. Then a
coalition's equation is :math:`v(S) - \tfrac{|S|}{n} v(N) = \langle \theta, x_S \rangle`, where :math:`x_S = 1_S - |S|/n`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from math import comb

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .sampling import Rows, balanced_subsets, bounded_shares, tensor


@dataclass(frozen=True)
class Design:
    """Coalitions drawn for a regression, and the regression's matrices.

    Attributes:
        members: Who is in, bool ``(m, n)``.
        weight: Weight of each coalition, double ``(m,)``: the kernel's share of its size, divided by the number of draws (by the expected
            number, if that is below 1).
        left: Share of its size's coalitions that were not drawn, double ``(m,)``.
        order: The random order that each coalition was cut from, ``(m,)``. Those of one order are disjoint.
        free: Whether it is of a size that was free, bool ``(m,)``.
    """

    members: Tensor
    weight: Tensor
    left: Tensor
    order: Tensor
    free: Tensor

    def to(self, device: torch.device) -> Design:
        """The same draws on a device. They are drawn on the CPU, so that they are the same on all devices."""
        return Design(*(part.to(device) for part in (self.members, self.weight, self.left, self.order, self.free)))

    @property
    def size(self) -> Tensor:
        """Number of members, ``(m,)``."""
        return self.members.sum(dim=1)

    @cached_property
    def x(self) -> Tensor:
        """x_S, double ``(m, n)``."""
        members = self.members.double()
        return members - members.mean(dim=1, keepdim=True)

    @cached_property
    def solve(self) -> Tensor:
        """Matrix of the regression, double ``(n, m)``: θ = y solveᵀ."""
        return self.solve_with(self.x)

    @cached_property
    def kept(self) -> Tensor:
        """Share of each draw's residual that its own pull on the regression leaves, ``(m,)``, above 0."""
        return self.kept_by(self.solve, self.x)

    @staticmethod
    def kept_by(solve: Tensor, columns: Tensor) -> Tensor:
        """The same of a regression on other columns ``(m, k)``, by its matrix ``(k, m)``."""
        return (1 - (solve.T * columns).sum(dim=1)).clamp(min=1e-3)

    def solve_with(self, columns: Tensor) -> Tensor:
        """Matrix of a regression on other columns, ``(m, k)``: ``(k, m)``."""
        weighted = columns * self.weight[:, None]
        inverse: Tensor = torch.linalg.pinv(weighted.T @ columns, rtol=1e-10, hermitian=True)
        return inverse @ weighted.T

    def errors(self, residual: Tensor, kept: Tensor | None = None, *, jackknife: bool = False) -> tuple[Tensor, Tensor]:
        """Standard errors of a regression by this design, and their degrees of freedom, ``(n_envs, n)`` each.

        This is a sandwich estimator. The draws' scores are inflated because a regression's residuals are too small (HC2, or HC3 with
        ``jackknife``, which is near the jackknife and wider where draws are few; MacKinnon & White 1985). Scores of draws from one order
        are summed before they are squared, since these draws are not independent. Sizes that were enumerated have no error.

        Args:
            residual: What the regression leaves of each draw, ``(n_envs, m)``.
            kept: Share of each draw's residual that its own pull on all that was fitted leaves, above 0, ``(n_envs, m)`` or ``(m,)``;
                :attr:`kept` by default.
            jackknife: Whether to inflate as the jackknife does.
        """
        n_draws, n = self.members.shape
        kept = self.kept if kept is None else kept
        scores = (residual * (self.left.sqrt() / kept if jackknife else (self.left / kept).sqrt()))[..., None] * self.solve.T  # (E, m, n)
        sums = scores.new_zeros(len(scores), int(self.order.max()) + 1, n).index_add(1, self.order, scores)
        error = sums.square().sum(dim=1).sqrt()
        n_orders = len(self.order[self.left > 0].unique())
        return error, torch.full_like(error, float(max(1, min(n_orders, n_draws - n + 1) - 1)))


def paired_design(n: int, n_pairs: int, generator: np.random.Generator, *, leverage: bool = False) -> Design:
    """Pairs (S, N∖S), each named by its S of at most n/2 players, drawn without replacement.

    Sizes are drawn in proportion to the kernel, or all equally often with ``leverage``. A size that would be drawn more often than it has
    sets is enumerated, and its share goes to the others.
    """
    small = range(1, n // 2 + 1)
    sides = [1 if 2 * s == n else 2 for s in small]
    available = [comb(n, s) * k // 2 for s, k in zip(small, sides, strict=True)]
    kernel = [k / (s * (n - s)) for s, k in zip(small, sides, strict=True)]
    return _design(n, list(small), n_pairs, kernel, [float(k) for k in sides] if leverage else kernel, available, generator, paired=True)


def single_design(n: int, n_coalitions: int, generator: np.random.Generator, *, free: Collection[int] = ()) -> Design:
    """Coalitions of 1 to n − 1 players, sizes in proportion to the kernel; otherwise as :func:`paired_design`.

    Args:
        n: Number of players.
        n_coalitions: Number of coalitions of the sizes that are not free.
        generator: Source of randomness.
        free: Sizes whose coalitions are all taken, beside the ``n_coalitions``.
    """
    sizes = list(range(1, n))
    kernel = [1 / (s * (n - s)) for s in sizes]
    return _design(n, sizes, n_coalitions, kernel, kernel, [comb(n, s) for s in sizes], generator, paired=False, free=free)


def _design(
    n: int,
    sizes: list[int],
    n_draws: int,
    kernel: list[float],
    share: list[float],
    available: list[int],
    generator: np.random.Generator,
    *,
    paired: bool,
    free: Collection[int] = (),
) -> Design:
    costly = [0 if s in free else most for s, most in zip(sizes, available, strict=True)]
    expected = bounded_shares(min(n_draws, sum(costly)), share, [0] * len(share), costly)
    # systematic rounding: every size gets its expected number rounded up or down, and they sum to the number of draws
    ends = np.floor(np.cumsum(expected) + 1e-9 + generator.random() * (1 - 1e-6)).astype(int)
    counts = np.diff(np.minimum(ends, round(sum(expected))), prepend=0)
    for j, s in enumerate(sizes):
        if s in free:
            counts[j], expected[j] = available[j], float(available[j])
    rows: list[Rows] = []
    weights, left, is_free = [], [], []
    orders: list[NDArray[np.intp]] = []
    n_orders = 0
    for s, count, wanted, most, mass in zip(sizes, counts, expected, available, kernel, strict=True):
        if count:
            count = min(int(count), most)
            drawn, order = balanced_subsets(n, min(s, n - s), count, generator, halves=paired and 2 * s == n)
            rows.append(drawn if 2 * s <= n else ~drawn)
            orders.append(order + n_orders)  # different sizes come from different orders
            n_orders += int(order.max()) + 1
            weights.append(np.full(count, mass / (count if wanted >= 1 else wanted)))
            left.append(np.full(count, 1 - count / most))
            is_free.append(np.full(count, s in free))
    numbers = [torch.from_numpy(np.concatenate(parts)) for parts in (weights, left, orders, is_free)]
    return Design(tensor(np.concatenate(rows)), *numbers)


def slopes_by_size(line: Tensor, y: Tensor, size: Tensor, n_sizes: int) -> tuple[Tensor, Tensor]:
    r"""For every size s, the factor a_s by which :math:`a_s \langle\theta, x\rangle` fits the draws of that size best.

    .. math:: a_s = \frac{\sum_{|S| = s} y_S \langle\theta, x_S\rangle + m_s}{\sum_{|S| = s} \langle\theta, x_S\rangle^2 + m_s}

    where m_s is the mean square. It pulls slopes of few draws towards 1.

    Args:
        line: ⟨θ, x⟩ of each draw, ``(E, m)``.
        y: What it estimates, ``(E, m)``.
        size: Size of each draw, ``(m,)``, below ``n_sizes``.
        n_sizes: Number of sizes, 0 included.

    Returns:
        The slopes, ``(E, n_sizes)``, 1 where there was no draw; and how strongly each draw pulls its own fit, ``(E, m)``, below 1.
    """
    of_size = torch.nn.functional.one_hot(size, n_sizes).to(line)  # (m, n_sizes)
    squares = line.square() @ of_size
    mean_square = squares / of_size.sum(dim=0).clamp(min=1)
    below = torch.where(squares > 0, squares + mean_square, 1.0)
    slope = torch.where(squares > 0, ((y * line) @ of_size + mean_square) / below, 1.0)
    return slope, line.square() / below[:, size]
