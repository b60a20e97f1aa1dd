"""Means of a game over its coalitions by size and by who is in them."""

from __future__ import annotations

from dataclasses import dataclass
from math import comb

import torch
from torch import Tensor


@dataclass(frozen=True)
class Strata:
    """What draws say about each player's coalitions of each size. Index s of the second axis is size s, from 0 to n.

    Attributes:
        count: Draws of size s with player i in them, ``(n + 1, n)``.
        mean: Their mean, ``(n_envs, n + 1, n)``; 0 where there were none.
        variance: Variance of that mean, ``(n_envs, n + 1, n)``: 0 where all coalitions were drawn, NaN where it cannot be told.
    """

    count: Tensor
    mean: Tensor
    variance: Tensor

    @property
    def missing(self) -> Tensor:
        """Whether a stratum had no draw, bool ``(n + 1, n)``."""
        return self.count == 0


def strata(members: Tensor, size: Tensor, worth: Tensor, n_available: Tensor) -> Strata:
    """Draws without replacement, sorted into strata.

    Args:
        members: Which players' strata a draw counts in, bool ``(m, n)``.
        size: Size under which a draw is filed, ``(m,)``, from 0 to n.
        worth: ``(n_envs, m)``, double.
        n_available: How many different draws the stratum of each size has for one player, ``(n + 1,)``, double.
    """
    n = members.shape[1]
    count = worth.new_zeros(n + 1, n)
    mean = worth.new_zeros(len(worth), n + 1, n)
    squares = torch.zeros_like(mean)  # sums of squares about the mean
    for s in size.unique().tolist():
        drawn = (size == s).nonzero()[:, 0]
        inside, v = members[drawn].to(worth), worth[:, drawn.to(worth.device)]
        centre = v.mean(dim=1, keepdim=True)
        v = v - centre  # so that subtracting the mean's square loses little precision
        count[s] = inside.sum(dim=0)
        average = (v @ inside) / count[s].clamp(min=1)
        mean[:, s] = torch.where(count[s] > 0, average + centre, 0.0)
        squares[:, s] = (v.square() @ inside - count[s] * average.square()).clamp(min=0)
    # where a player has only one draw of a size, take the spread of the others' draws of that size
    pooled = squares.sum(dim=2, keepdim=True) / (count - 1).clamp(min=0).sum(dim=1)[:, None]  # NaN where nobody has two
    spread = torch.where(count > 1, squares / (count - 1).clamp(min=1), pooled)
    left = 1 - count / n_available.to(worth)[:, None].clamp(min=1)
    variance = torch.where(left <= 1e-12, 0.0, spread / count.clamp(min=1) * left)
    return Strata(count, mean, torch.where(count > 0, variance, torch.nan))


def moments(worth: Tensor, members: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and variance of the draws that serve each player.

    Args:
        worth: Worth of each draw, ``(n_envs, m)``, double.
        members: Which players it serves, bool ``(m, n)``; each player at least once.

    Returns:
        The mean and the variance of one draw, ``(n_envs, n)`` each, and the number of draws, ``(n,)``. A player with one draw has the
        variance of the others.
    """
    inside = members.to(worth)
    count = inside.sum(dim=0)
    centre = worth.mean(dim=1, keepdim=True)
    worth = worth - centre  # so that subtracting the mean's square loses little precision
    mean = (worth @ inside) / count
    squares = (worth.square() @ inside - count * mean.square()).clamp(min=0)
    pooled = squares.sum(dim=1, keepdim=True) / (count - 1).sum().clamp(min=1)
    return mean + centre, torch.where(count > 1, squares / (count - 1).clamp(min=1), pooled), count


def coalitions_with(n: int) -> Tensor:
    """C(n−1, s−1): how many coalitions of each size s hold a given player, double ``(n + 1,)``."""
    return torch.tensor([0.0] + [float(comb(n - 1, s - 1)) for s in range(1, n + 1)], dtype=torch.float64)


def coalitions_without(n: int) -> Tensor:
    """C(n−1, s): how many coalitions of each size s lack a given player, double ``(n + 1,)``."""
    return torch.tensor([float(comb(n - 1, s)) for s in range(n)] + [0.0], dtype=torch.float64)


def degrees_of_freedom(variance: Tensor, count: Tensor) -> Tensor:
    """Degrees of freedom of a sum of independent means, by Welch and Satterthwaite: ``(n_envs, k, n)`` → ``(n_envs, n)``.

    Args:
        variance: Variance of each mean, ``(n_envs, k, n)``; the sum is over k.
        count: Draws behind each mean, ``(k, n)``.
    """
    return variance.sum(dim=1).square() / (variance.square() / (count - 1).clamp(min=1)).sum(dim=1).clamp(min=1e-300)
