"""Least-squares estimators of the Shapley value: paired KernelSHAP and leverage-score sampling."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..games.game import CoalitionGame
from ..rule import RULES
from .estimate import Estimate, Estimator
from .regression import paired_design, slopes_by_size


class _PairedRegression(Estimator):
    """Weighted least squares on pairs (S, N∖S), with the constraint of efficiency. Subclasses say how sizes are drawn."""

    efficient = True
    leverage: bool

    def __init__(self, budget: int | None = None, seed: int = 0, by_size: bool = False, surrogate: bool = False) -> None:
        super().__init__(budget, seed, surrogate)
        if not isinstance(by_size, bool):
            raise ValueError(f"by_size={by_size!r}: must be True or False")
        self.by_size = by_size

    def least_budget(self, n_players: int) -> int:
        """2n − 1: v(N), and as many pairs as there are unknowns."""
        return 2 * n_players - 1

    def sample(self, game: CoalitionGame, budget: int, generator: np.random.Generator) -> Estimate:
        """See the class."""
        n = game.n_players
        design = paired_design(n, (budget - 1) // 2, generator, leverage=self.leverage)
        v = game.value(torch.cat([design.members, ~design.members])).double()
        design, v = design.to(v.device), v.unflatten(1, (2, -1))  # (E, 2, P)
        grand = game.grand().double()[:, None]  # (E, 1)
        # half the difference of a pair's two equations: they say no more about θ
        y = (v[:, 0] - v[:, 1]) / 2 - (design.size.double() / n - 0.5) * grand
        theta = y @ design.solve.T  # (E, n)
        known, pull = torch.zeros_like(theta), None
        if self.by_size:
            slope, pull = slopes_by_size(theta @ design.x.T, y, design.size, n // 2 + 1)
            # the fitted game's regression over all pairs is known: by the kernel and the spread of coalitions, all sizes count the same
            sides = torch.tensor([0.0] + [1.0 if 2 * s == n else 2.0 for s in range(1, n // 2 + 1)]).to(slope)
            known = (slope @ sides / sides.sum())[:, None] * theta
            y = y - slope[:, design.size] * (theta @ design.x.T)
            theta = y @ design.solve.T

        def errors() -> tuple[Tensor, Tensor]:
            return design.errors(y - theta @ design.x.T, None if pull is None else design.kept * (1 - pull))

        return Estimate(
            grand / n + known + theta,
            errors,
            2 * len(design.members) + 1,
            f"{self.source.split(' (')[0]}{' by size' if self.by_size else ''}, {len(design.members)} pairs",
        )


@RULES.register("kernelshap")
class KernelShap(_PairedRegression):
    r"""Pays an estimate of the Shapley value: the additive game that fits the sampled coalitions best, by the Shapley kernel.

    .. math:: c = \arg\min_{\phi: \sum_i \phi_i = v(N)} \sum_{(S, N \setminus S)} w_{|S|}
        \Bigl[\tfrac{v(S) - v(N \setminus S)}{2} - \sum_i \phi_i \bigl(1[i \in S] - \tfrac12\bigr)\Bigr]^2, \qquad
        w_s \propto \frac{1}{\binom{n}{s} s (n-s)}

    Each coalition is drawn with its complement, without replacement. Sizes are drawn in proportion to the kernel. Sizes that the budget
    covers altogether are enumerated. The estimate is exact for games in which players interact by pairs only.

    With ``by_size`` a first fit may have another slope for every size (a control variate; ours). Its exact regression is known, and only
    what it leaves is estimated from the draws. This helps wherever what an agent adds depends on how many are there already, as in averages
    and saturating games. Elsewhere it hardly costs anything.

    Costs ``budget`` evaluations. Efficient. Symmetric and null-player in expectation only. Consistent; its bias is of the order of one over
    the budget, because a ratio is estimated.

    Known failure: few evaluations a player. The regression then has hardly more equations than unknowns.

    Departures from the source: the constraint is solved exactly rather than by a large weight. Draws are without replacement, and balanced
    over players.

    Args:
        budget: Most coalitions to evaluate in a round, v(∅) apart: a positive whole number. ``None`` is 20 a player.
        seed: Seed of the draws, a whole number from 0.
        by_size: Whether to fit slopes by size first.

    Raises:
        ValueError: If ``budget`` is not a positive whole number, ``seed`` is negative or not whole, or ``by_size`` is not a bool. At reset,
            if the budget is too small for the number of agents.

    References:
        Lundberg & Lee (2017), *A unified approach to interpreting model predictions*, NeurIPS. Covert & Lee (2021), *Improving KernelSHAP:
        practical Shapley value estimation using linear regression*, AISTATS (pairing, and errors from residuals).
    """

    source = "paired KernelSHAP (Lundberg & Lee 2017; Covert & Lee 2021)"
    pays = "Shapley value, by least squares on paired coalitions"
    known_failure = "few evaluations a player"
    leverage = False


@RULES.register("leverage")
class LeverageShap(_PairedRegression):
    r"""Pays an estimate of the Shapley value by the regression of paired KernelSHAP, with all sizes drawn equally often.

    .. math:: c = \arg\min_{\phi: \sum_i \phi_i = v(N)} \sum_{(S, N \setminus S)} \frac{w_{|S|}}{\pi_S}
        \Bigl[\tfrac{v(S) - v(N \setminus S)}{2} - \sum_i \phi_i \bigl(1[i \in S] - \tfrac12\bigr)\Bigr]^2, \qquad
        \pi_S \propto 1 / \tbinom{n}{|S|}

    A coalition's chance is its leverage in the full regression, which depends on its binomial coefficient alone.

    Costs ``budget`` evaluations. Efficient. Symmetric and null-player in expectation only. Consistent; its bias is of the order of one over
    the budget.

    Known failure: that of KernelSHAP, few evaluations a player.

    Departures from the source: the numbers of draws by size are fixed up to rounding rather than binomial, and balanced over players.

    Args:
        budget: Most coalitions to evaluate in a round, v(∅) apart: a positive whole number. ``None`` is 20 a player.
        seed: Seed of the draws, a whole number from 0.
        by_size: Whether to fit slopes by size first, as in :class:`KernelShap`.

    Raises:
        ValueError: If ``budget`` is not a positive whole number, ``seed`` is negative or not whole, or ``by_size`` is not a bool. At reset,
            if the budget is too small for the number of agents.

    References:
        Musco & Witter (2025), *Provably accurate Shapley value estimation via leverage score sampling*, ICLR.
    """

    source = "Leverage SHAP (Musco & Witter 2025)"
    pays = "Shapley value, by the same least squares; every coalition size drawn equally often"
    known_failure = "few evaluations a player"
    leverage = True
