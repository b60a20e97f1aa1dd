"""Regression on coalition size and membership: an estimator of the Shapley value for larger cooperatives."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..games.game import CoalitionGame
from ..rule import RULES
from .estimate import Estimate
from .regression import Design, slopes_by_size
from .single_draws import Fit, SingleDraws


@RULES.register("size_regression")
class SizeRegression(SingleDraws):
    r"""Pays an estimate of the Shapley value by KernelSHAP's regression, after removing what coalition size explains.

    .. math:: c = \frac{v(N)}{n} + \bar a\,\theta + R(v - g), \qquad
        g(S) = \frac{|S|}{n} v(N) + b_{|S|} + a_{|S|} \langle \theta, x_S \rangle, \qquad x_S = 1_S - \frac{|S|}{n}

    where R is weighted least squares on the sampled coalitions, by the Shapley kernel. First a game g is fitted to them. It has three
    parts:

    - a worth b of each size: first a smooth curve, then freely, with a pull towards the curve;
    - who is in the coalition, θ;
    - a slope a of each size, with a pull towards 1.

    The Shapley value of g is known: b treats all players alike, and the slopes count with their mean over sizes, :math:`\bar a`. So g is a
    control variate: R only has to estimate what g leaves, and the result is right whatever g is. Coalitions are drawn one by one, because a
    complement would say little that g does not. Sizes are drawn in proportion to the kernel, without replacement. With a budget of all
    coalitions the value is exact.

    Costs ``budget`` evaluations. Efficient. Symmetric and null-player in expectation only. Consistent; its bias is of the order of one over
    the budget, because it fits and estimates on the same draws. It is best where what an agent adds depends on how many are there already,
    as in averages, coverage and saturating games.

    Known failure: a small cooperative in which players interact by pairs only. Paired draws are exact there, and this is not.

    Args:
        budget: Most coalitions to evaluate in a round, v(∅) apart: a positive whole number. ``None`` is 20 a player.
        seed: Seed of the draws, a whole number from 0.
        surrogate: Whether the difference to a round's surrogate is estimated, where it has one.

    Raises:
        ValueError: If ``budget`` is not a positive whole number, ``seed`` is negative or not whole, or ``surrogate`` is not a bool. At
            reset, if the budget is too small for the number of agents.

    References:
        Ours. The regression: Lundberg & Lee (2017), *A unified approach to interpreting model predictions*, NeurIPS. Fitted games as
        control variates: Witter, Liu & Musco (2025), *Regression-adjusted Monte Carlo estimators for Shapley values and probabilistic
        values*, NeurIPS.
    """

    source = "ours, from KernelSHAP (Lundberg & Lee 2017)"
    pays = "Shapley value, by least squares on what coalition size does not explain"
    known_failure = "small cooperatives in which players interact by pairs only"
    efficient = True

    def least_budget(self, n_players: int) -> int:
        """n + 4: v(N), and one coalition more than there are unknowns, without which nothing tells how far off the fit is."""
        return n_players + 4

    def fitted(self, game: CoalitionGame, design: Design, generator: np.random.Generator) -> Fit:
        """See the class."""
        del generator
        n = game.n_players
        v = game.value(design.members).double()
        design = design.to(v.device)
        grand = game.grand().double()[:, None]  # (E, 1)
        y = v - design.size.double() / n * grand  # (E, m)
        level, kept = _levels(design, y)
        y = y - level
        theta = y @ design.solve.T  # (E, n)
        slope, more = slopes_by_size(theta @ design.x.T, y, design.size, n)
        y = y - slope[:, design.size] * (theta @ design.x.T)
        rest = y @ design.solve.T

        residual, kept = y - rest @ design.x.T, kept * (1 - more)
        estimate = Estimate(
            grand / n + slope[:, 1:].mean(dim=1, keepdim=True) * theta + rest,
            lambda: design.errors(residual, kept, jackknife=True),
            len(design.members) + 1,
            f"regression on size and membership, {len(design.members)} coalitions",
        )
        return Fit(estimate, lambda: residual / kept)


def _levels(design: Design, y: Tensor) -> tuple[Tensor, Tensor]:
    """Worth b of each draw's size, ``(E, m)``; and which share of its residual a draw's pull on b and on membership leaves, ``(m,)``."""
    n = design.members.shape[1]
    t = design.size.double() / n
    bow = t * (1 - t)  # b is 0 for nobody and for all
    smooth = torch.stack([bow, bow * (1 - 2 * t), bow * (1 - 2 * t).square()], dim=1)  # (m, 3)
    columns = torch.cat([design.x, smooth], dim=1)
    solve = design.solve_with(columns)
    found = y @ solve.T  # (E, n + 3)
    rough = y - found @ columns.T
    of_size = torch.nn.functional.one_hot(design.size, n).double()  # (m, n)
    count = of_size.sum(dim=0) + 1  # one draw more, at the smooth level
    kept = design.kept_by(solve, columns) * (1 - 1 / count[design.size])
    return found[:, n:] @ smooth.T + (rough @ of_size / count)[:, design.size], kept
