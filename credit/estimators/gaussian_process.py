r"""The Shapley value of a Gaussian process that was fitted to sampled coalitions.

The game is taken to be drawn from a Gaussian process over coalitions. Its covariance has three parts:

.. math:: k(S, T) = \rho^{|S \triangle T|} + 3\,\kappa(|S|, |T|) + b\,\kappa(|S|, |T|)\,\tfrac4n \langle x_S, x_T \rangle, \qquad
    \kappa(s, t) = e^{-\frac12 \left(\frac{s - t}{0.3\,n}\right)^2}, \quad x_S = 1_S - |S|/n

- The first falls with the number of players in which two coalitions differ. In the Walsh expansion of a game it gives an interaction of k
  players a variance that falls like :math:`\lambda^k`, :math:`\rho = (1 - \lambda)/(1 + \lambda)`.
- The second is a curve over coalition sizes.
- The third is who is in, with a slope that varies smoothly with the size.

λ and b are those under which the draws are likeliest, from a small grid. The process's variance is the likeliest for them, times m over
the degrees of freedom that they and the players leave, without which standard errors of few draws would be too small.

**Its Shapley value is known in closed form**, since φ is linear and :math:`k(\cdot, T)` is a game whose value is known. Of the first part
it is :math:`\int_0^1 (a_i - b_i) \prod_{j \ne i} (p\,a_j + (1 - p)\,b_j)\,dp`, where a_j and b_j are the factors of player j when it is in
and when it is out (Owen's multilinear extension); Gauss and Legendre's rule is exact for it. The value of the fitted game is a weighted sum
of these, and the posterior variance of the value, which gives the standard error, is known in the same way.

References:
    Ours. Gaussian processes: Rasmussen & Williams (2006), *Gaussian processes for machine learning*. Owen (1972), *Multilinear extensions
    of games*, Management Science 18.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ..games.game import CoalitionGame
from ..games.known import table_game
from ..games.surrogate import chances
from ..rule import RULES, GameRule, make
from .estimate import Estimate
from .regression import Design
from .single_draws import SingleDraws

FALLS = (0.4, 0.2, 0.1, 0.05, 0.025, 0.0125)
"""λ: by which factor the variance of interactions falls with each further player."""
SLOPES = (0.0, 1.0, 10.0)
"""b: weight of slopes that vary with the size."""
_SIZE_WEIGHT, _SIZE_SCALE, _NUGGET = 3.0, 0.3, 1e-6
_SELECTED_ON = 320  # draws on which λ and b are selected


@RULES.register("gaussian_process")
class GaussianProcess(SingleDraws):
    r"""Pays the Shapley value of a Gaussian process that is fitted to sampled coalitions.

    .. math:: c_i = \sum_k \alpha_k\, \phi_i\bigl(k(\cdot, S_k)\bigr), \qquad \alpha = K^{-1} v

    where S_k are the sampled coalitions, N and ∅ among them, v their worths, K their covariances, and φ the Shapley value, which is known
    in closed form for the covariance k (:mod:`~proxycoop.credit.estimators.gaussian_process`). Coalitions are drawn as for
    ``size_regression``. The covariance's two parameters are those under which the draws are likeliest, for each environment by itself.

    Costs ``budget`` evaluations, and the factorisation of a matrix of as many rows: some seconds for 1,000 evaluations. Efficient but for
    rounding. Symmetric and null-player in expectation only. With a budget of all coalitions the value is exact.
    Standard errors are the process's own: right where the game is as smooth as the process takes it to be.

    Known failure: games that jump, such as a vote with a quota, which no smooth process describes.

    Args:
        budget: Most coalitions to evaluate in a round, v(∅) apart: a positive whole number. ``None`` is 20 a player.
        seed: Seed of the draws, a whole number from 0.
        surrogate: Whether the process describes what a round's surrogate leaves, where it has one.

    Raises:
        ValueError: If ``budget`` is not a positive whole number, ``seed`` is negative or not whole, or ``surrogate`` is not a bool. At
            reset, if the budget is too small for the number of agents.

    References:
        Ours; see the module. The idea of a fitted game whose value is known: Witter, Liu & Musco (2025), *Regression-adjusted Monte Carlo
        estimators for Shapley values and probabilistic values*, NeurIPS.
    """

    source = "ours, from Gaussian processes (Rasmussen & Williams 2006)"
    pays = "Shapley value of a Gaussian process fitted to the coalitions"
    known_failure = "games that jump, such as votes with a quota"
    efficient = True

    def least_budget(self, n_players: int) -> int:
        """n + 1: v(N), and a coalition for each player."""
        return n_players + 1

    def fitted(self, game: CoalitionGame, design: Design, generator: np.random.Generator) -> Estimate:
        """See the class."""
        drawn = design.members
        n = game.n_players
        ends = torch.tensor([[True] * n, [False] * n])
        worth = torch.cat([game.value(drawn), game.grand()[:, None]], dim=1).double()
        y = torch.cat([worth, torch.zeros_like(worth[:, :1])], dim=1)  # (E, m)
        rows = torch.cat([drawn, ends]).to(y.device)
        if len(rows) == 2**n:
            return Estimate.exact(_exactly(rows, y), len(drawn) + 1, "exact, from all coalitions")
        chosen = self._likeliest(rows, y, generator)  # (E,)
        values, error = torch.empty_like(y[:, :n]), torch.empty_like(y[:, :n])
        for which in chosen.unique().tolist():
            here = chosen == which
            values[here], error[here] = _posterior(_Covariance(n, *_GRID[which]), rows, y[here])
        values = values + (y[:, -2, None] - values.sum(dim=1, keepdim=True)) / n  # what the nugget takes off v(N)
        return Estimate(
            values,
            lambda: (error, torch.full_like(error, _freedom(rows))),
            len(drawn) + 1,
            f"Gaussian process, {len(drawn)} coalitions",
        )

    def _likeliest(self, rows: Tensor, y: Tensor, generator: np.random.Generator) -> Tensor:
        """Which of the grid's covariances makes an environment's draws likeliest, int64 ``(E,)``."""
        if len(rows) > _SELECTED_ON:
            some = torch.from_numpy(np.sort(generator.permutation(len(rows) - 2)[: _SELECTED_ON - 2]))
            some = torch.cat([some, torch.tensor([len(rows) - 2, len(rows) - 1])]).to(rows.device)
            rows, y = rows[some], y[:, some]
        found = []
        for fall, slope in _GRID:
            factor = torch.linalg.cholesky(_Covariance(rows.shape[1], fall, slope).matrix(rows))
            white = torch.linalg.solve_triangular(factor, y.T, upper=False)  # (m, E)
            spread = white.square().mean(dim=0).clamp(min=torch.finfo(torch.float64).tiny)
            found.append(-0.5 * len(rows) * spread.log() - factor.diagonal().log().sum())
        return torch.stack(found).nan_to_num(-torch.inf).argmax(dim=0)


_GRID = tuple(itertools.product(FALLS, SLOPES))


@dataclass(frozen=True)
class _Covariance:
    """The covariance k over coalitions of n players, for one λ and one b."""

    n: int
    fall: float
    slope: float

    @property
    def rho(self) -> float:
        """By which factor the first part falls with each player in which coalitions differ."""
        return (1 - self.fall) / (1 + self.fall)

    def matrix(self, rows: Tensor) -> Tensor:
        """k of all pairs, and a little more on the diagonal, double ``(m, m)``."""
        members = rows.double()
        size = rows.sum(dim=1)
        differ = size[:, None] + size - 2 * members @ members.T
        x = members - members.mean(dim=1, keepdim=True)
        by_size = _by_size(self.n).to(members)[size][:, size]
        found: Tensor = self.rho**differ + by_size * (_SIZE_WEIGHT + self.slope * 4 / self.n * (x @ x.T))
        found.diagonal().add_(_NUGGET * (1 + _SIZE_WEIGHT + self.slope))
        return found

    def values(self, rows: Tensor) -> Tensor:
        """The Shapley value of k(·, T) for each T among the rows, double ``(m, n)``."""
        n, members = self.n, rows.double()
        size = rows.sum(dim=1)
        p, share = (torch.tensor(part, dtype=torch.float64).to(members.device) for part in chances("shapley", n))
        own = (1 - self.rho) * (2 * members - 1)  # a_i − b_i
        step = p[:, None, None] * (1 - self.rho)
        mixed = members * (self.rho + step) + (1 - members) * (1 - step)  # (points, m, n)
        log = mixed.log()
        found: Tensor = own * torch.einsum("pmn,p->mn", (log.sum(dim=-1, keepdim=True) - log).exp(), share)
        by_size = _by_size(n).to(members)
        found = found + (_SIZE_WEIGHT / n * (by_size[n] - by_size[0]))[size, None]
        return found + self.slope * 4 / n * _slope(n).to(members)[size, None] * (members - members.mean(dim=1, keepdim=True))

    def variance(self) -> float:
        """The variance of a player's Shapley value before anything is known, with a process of variance 1."""
        n = self.n
        p, share = (np.array(part) for part in chances("shapley", n))
        agree = p[:, None] * p + (1 - p[:, None]) * (1 - p)
        first = 2 * (1 - self.rho) * share @ (agree + self.rho * (1 - agree)) ** (n - 1) @ share
        size, slope, t = _by_size(n).numpy(), _slope(n).numpy(), np.arange(n)
        second = _SIZE_WEIGHT * 2 * (size[n, n] - size[n, 0]) / n**2
        third = self.slope * 4 / n * float((slope[1:] * (1 - (t + 1) / n) + slope[:-1] * t / n).mean())
        return float(first + second + third)


def _posterior(covariance: _Covariance, rows: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of every player's value given the draws ``(E, m)``: ``(E, n)`` each."""
    factor = torch.linalg.cholesky(covariance.matrix(rows))
    basis = covariance.values(rows)  # (m, n)
    white, white_basis = (torch.linalg.solve_triangular(factor, part, upper=False) for part in (y.T, basis))
    left = (covariance.variance() - white_basis.square().sum(dim=0)).clamp(min=0)  # (n,)
    spread = white.square().sum(dim=0) / _freedom(rows)  # (E,)
    return white.T @ white_basis, (spread[:, None] * left).sqrt()


def _freedom(rows: Tensor) -> float:
    """Degrees of freedom of the process's variance: the draws, less one for each player, the size, λ and b."""
    return float(max(len(rows) - rows.shape[1] - 3, 1))


def _exactly(rows: Tensor, y: Tensor) -> Tensor:
    """The Shapley values ``(E, n)`` of games of which all coalitions are known, ``(2**n, n)`` and ``(E, 2**n)``."""
    bits = 2 ** torch.arange(rows.shape[1], device=rows.device)
    table = torch.empty_like(y)
    table[:, (rows * bits).sum(dim=1)] = y
    rule = make("shapley")
    assert isinstance(rule, GameRule)
    return rule.values(table_game(table))


@lru_cache(maxsize=64)
def _by_size(n: int) -> Tensor:
    """κ of all pairs of sizes, double ``(n + 1, n + 1)``."""
    size = torch.arange(n + 1, dtype=torch.float64)
    return torch.exp(-0.5 * ((size[:, None] - size) / (_SIZE_SCALE * n)).square())


@lru_cache(maxsize=64)
def _slope(n: int) -> Tensor:
    r"""What the Shapley value of :math:`\kappa(|S|, t)\,\langle x_S, x_T \rangle` is in units of x_T, for each t, double ``(n + 1,)``.

    A player's joining a coalition of s others changes :math:`\kappa\,\langle x, x_T \rangle` in expectation by
    :math:`[\kappa(s + 1, t)\,(1 - \tfrac{s}{n - 1}) + \kappa(s, t)\,\tfrac{s}{n - 1}]\,x_{T,i}`, because x_T sums to 0.
    """
    size, s = _by_size(n), torch.arange(n, dtype=torch.float64)[:, None]
    part = s / max(n - 1, 1)
    return (size[1:] * (1 - part) + size[:-1] * part).mean(dim=0)
