"""Beta-Shapley values: semivalues that weigh small or large coalitions more."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.special import betaln
from torch import Tensor

from ..arguments import is_number
from ..games.game import MAX_ENUMERATED, CoalitionGame
from ..rule import RULES, WholeGameRule
from .semivalues import SizeWeights, semivalue


@lru_cache(maxsize=32)
def beta_shapley_weights(n: int, alpha: float, beta: float) -> SizeWeights:
    r"""Weight of one marginal contribution to a coalition of each size s, from 0 to n − 1.

    .. math:: p_s = \frac{B(s + \beta, n - 1 - s + \alpha)}{B(\alpha, \beta)}, \qquad \sum_s \binom{n-1}{s} p_s = 1
    """
    s = np.arange(n)
    return tuple(np.exp(betaln(s + beta, n - 1 - s + alpha) - betaln(alpha, beta)).tolist())


@RULES.register("beta_shapley")
class BetaShapley(WholeGameRule):
    r"""Pays each agent its average marginal contribution, weighted by the size of the coalition that it joins.

    .. math:: c_i = \sum_{s=0}^{n-1} \binom{n-1}{s} \frac{B(s+\beta, n-1-s+\alpha)}{B(\alpha,\beta)} \cdot
        \text{mean}_{|S|=s,\, i \notin S} [v(S \cup i) - v(S)]

    With α > β small coalitions count more. In these a contribution is easiest to tell from noise. α = β = 1 is the Shapley value.

    Costs 2^n evaluations and takes n ≤ 20, in bounded memory. Symmetric, null-player and linear. Not efficient, unless α = β = 1.

    Known failure: it looks away from some coalitions. With a large α it hardly sees large ones, and agents with the same data are all paid
    as if each were alone.

    Args:
        alpha: α, above 0 and finite.
        beta: β, above 0 and finite.

    Raises:
        ValueError: If ``alpha`` or ``beta`` is not a positive number. At reset, if there are more than 20 agents.

    References:
        Kwon & Zou (2022), *Beta Shapley: a unified and noise-reduced data valuation framework for machine learning*, AISTATS.
    """

    source = "Kwon & Zou 2022 (AISTATS)"
    pays = "mean marginal contribution, with small or large coalitions weighing more"
    known_failure = "agents with the same data are paid as if each were alone"
    symmetric = True
    null_player = True
    max_players = MAX_ENUMERATED

    def __init__(self, alpha: float = 4.0, beta: float = 1.0) -> None:
        for name, number in (("alpha", alpha), ("beta", beta)):
            if not is_number(number) or number <= 0:
                raise ValueError(f"{name}={number!r}: must be a positive number")
        self.alpha = float(alpha)
        self.beta = float(beta)
        self.efficient = alpha == beta == 1

    def divide(self, game: CoalitionGame) -> Tensor:
        """The Beta-Shapley value of every player, ``(n_envs, n_players)``."""
        return semivalue(game, beta_shapley_weights(game.n_players, self.alpha, self.beta))
