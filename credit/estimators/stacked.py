"""The mean of two fits, weighted by how well each foretells coalitions that it has not seen."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..games.game import CoalitionGame
from ..rule import RULES
from .estimate import Estimate
from .gaussian_process import GaussianProcess
from .regression import Design
from .single_draws import Fit, SingleDraws
from .size_regression import SizeRegression

_EVEN, _SHARPNESS = 0.9, 4
"""Ratio of the two errors at which both weigh the same, and the power with which the weights follow it."""


@RULES.register("stacked")
class Stacked(SingleDraws):
    r"""Pays a mean of two estimates from the same coalitions: ``gaussian_process`` and ``size_regression``.

    .. math:: c = w\,c^{\text{GP}} + (1 - w)\,c^{\text{SR}}, \quad w = \Bigl(1 + \bigl(r^{\text{GP}} / 0.9\,r^{\text{SR}}\bigr)^4\Bigr)^{-1}

    where r is the root mean square error with which each foretells the worth of a drawn coalition from the other ones. Coalitions count by
    the square of their weight in the regression, times the share of their size that was not drawn. The errors are those of leave-one-out
    cross-validation, given the process's covariance. Of the regression they are approximate: within a tenth or so from ten evaluations a
    player on. Each environment has a weight of its own.

    So where a game is smooth it is the Gaussian process, where it jumps it is the regression, and in between the mean is better than
    either. The constants .9 and 4 were chosen on games of other seeds than those that ``benchmarks/credit/estimators.py`` reports on.

    Costs ``budget`` evaluations, and the factorisation of a matrix of as many rows. Efficient but for rounding. Symmetric and null-player
    in expectation only. With a budget of all coalitions the value is exact. Standard errors are the larger of two: the two estimates'
    weighted mean, which is the most that they can be together for given weights; and the regression's, times how much smaller r is for the
    mean of both than for the regression alone, which does not rest on the process's covariance.

    Known failure: games that jump, of many players, with few evaluations: the regression needs more than five a player there, and the
    process describes no jumps.

    Args:
        budget: Most coalitions to evaluate in a round, v(∅) apart: a positive whole number. ``None`` is 20 a player.
        seed: Seed of the draws, a whole number from 0.
        surrogate: Whether both describe what a round's surrogate leaves, where it has one.

    Raises:
        ValueError: If ``budget`` is not a positive whole number, ``seed`` is negative or not whole, or ``surrogate`` is not a bool. At
            reset, if the budget is too small for the number of agents.

    References:
        Ours. Means of fits, weighted by cross-validation: Wolpert (1992), *Stacked generalization*, Neural Networks 5.
    """

    source = "ours, from stacked generalization (Wolpert 1992)"
    pays = "mean of a Gaussian process's and a regression's Shapley value, by cross-validation"
    known_failure = "games that jump, of many players, with few evaluations"
    efficient = True

    def least_budget(self, n_players: int) -> int:
        """n + 4, as for the regression."""
        return n_players + 4

    def fitted(self, game: CoalitionGame, design: Design, generator: np.random.Generator) -> Fit:
        """See the class."""
        smooth = GaussianProcess(self.budget, self.seed).fitted(game, design, generator)
        linear = SizeRegression(self.budget, self.seed).fitted(game, design, generator)
        if len(design.members) == 2**game.n_players - 2:
            return smooth
        left_out = smooth.left_out(), linear.left_out()
        counts = (design.weight.square() * design.left).to(left_out[0].device)

        def size(residual: Tensor) -> Tensor:
            return (counts * residual.square()).sum(dim=1).sqrt()

        ours, theirs = (size(residual) for residual in left_out)
        ratio = (ours / (_EVEN * theirs)).nan_to_num(1.0)  # both are 0 where all worths are
        weight = 1 / (1 + ratio**_SHARPNESS)[:, None]  # (E, 1)

        def mean(one: Tensor, other: Tensor) -> Tensor:
            return weight * one + (1 - weight) * other

        def errors() -> tuple[Tensor, Tensor]:
            (error, degrees), (other, others_degrees) = smooth.estimate.errors(), linear.estimate.errors()
            smaller = (size(mean(*left_out)) / theirs).nan_to_num(1.0)[:, None]
            return torch.maximum(mean(error, other), smaller * other), torch.minimum(degrees, others_degrees)

        values = mean(smooth.estimate.values, linear.estimate.values)
        method = f"Gaussian process and regression on size and membership, {len(design.members)} coalitions"
        estimate = Estimate(values, errors, smooth.estimate.evaluations, method)
        return Fit(estimate, lambda: mean(*left_out))
