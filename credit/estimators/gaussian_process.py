r"""The Shapley value of a Gaussian process that was fitted to sampled coalitions.

The game is taken to be drawn from a Gaussian process over coalitions. Its covariance has four parts:

.. math:: k(S, T) = \prod_{j \in S \triangle T} \rho_j + 3\,\kappa(|S|, |T|) + b\,\kappa(|S|, |T|)\,\tfrac4n \langle x_S, x_T \rangle
    + \sum_{k=1}^n g_k\, [S \cap B_k \ne \emptyset]\,[T \cap B_k \ne \emptyset],

    \kappa(s, t) = e^{-\frac12 \left(\frac{s - t}{0.3\,n}\right)^2}, \qquad x_S = 1_S - |S|/n

- The first falls with the players in whom two coalitions differ. In the Walsh expansion of a game it gives an interaction of the players
  in A a variance in proportion to :math:`\prod_{j \in A} \lambda_j`, :math:`\rho_j = (1 - \lambda_j)/(1 + \lambda_j)`.
- The second is a curve over coalition sizes.
- The third is who is in, with a slope that varies smoothly with the size.
- The fourth is who is the best that is in; :math:`B_k` are the k players that are worth the most. Where a coalition is worth what its best
  member is, as in airport games, the worth is a sum of such steps.

First all players have the same λ. It and b are those under which the draws are likeliest, from a small grid. Then players matter by what
they are worth: :math:`\lambda_j = f \lambda\, r_j^\gamma / \overline{r^\gamma}`, where :math:`r_j = |\phi_j| / \max |\phi| + 0.05` by the
first fit. f and γ are the likeliest again; :math:`\gamma = 0, f = 1` is the first fit. No λ is above .98. Last, players are put in order by
that fit's values, :math:`\phi_{(1)} \ge \phi_{(2)} \ge \dots`, with :math:`g_k = w\,h_k^2 / \sum_l h_l^2`, where :math:`h_k - .05` is
:math:`k\,|\phi_{(k)} - \phi_{(k+1)}|` as a share of the largest of these, and :math:`\phi_{(n+1)} = 0`: these are the steps of the airport
game that has such values. w is the likeliest, 0 among others; and once more, with the order by what that finds. All are selected on some
320 of the draws, if there are more. A millionth of the variance is added to the diagonal of the covariance matrix. For standard errors the
process's variance is the mean square by which each draw differs from the mean given the others, in units of its own variance, times m over
the degrees of freedom that these choices and the players leave. Where the covariance is not the right one, that says more of what is left
than the likeliest variance. A difference to a surrogate that is known to be small at some coalitions is conditioned on them: they do not
say how large it is elsewhere.

**Its Shapley value is known in closed form**, since φ is linear and :math:`k(\cdot, T)` is a game whose value is known. Of the first part
it is :math:`\int_0^1 (a_i - b_i) \prod_{j \ne i} (p\,a_j + (1 - p)\,b_j)\,dp`, where a_j and b_j are the factors of player j when it is in
and when it is out (Owen's multilinear extension); Gauss and Legendre's rule is exact for it. The value of the fitted game is a weighted sum
of these, and the posterior variance of the value, which gives the standard error, is known in the same way.

References:
    Ours. Gaussian processes, and a scale for every input: Rasmussen & Williams (2006), *Gaussian processes for machine learning*. The
    variance by cross-validation: Bachoc (2013), *Cross validation and maximum likelihood estimations of hyper-parameters of Gaussian
    processes with model misspecification*, Computational Statistics & Data Analysis 66. Owen (1972), *Multilinear extensions of games*,
    Management Science 18.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor

from ..games.game import CoalitionGame
from ..games.known import table_game
from ..games.surrogate import chances
from ..rule import RULES, GameRule, make
from .estimate import Estimate
from .regression import Design
from .single_draws import Fit, SingleDraws

FALLS = (0.4, 0.2, 0.1, 0.05, 0.025, 0.0125)
"""λ: by which factor the variance of interactions falls with each further player."""
SLOPES = (0.0, 1.0, 10.0)
"""b: weight of slopes that vary with the size."""
RELEVANCES = ((0.0, 1.0), (0.5, 1.0), (0.5, 2.0), (1.0, 1.0), (1.0, 2.0))
"""γ and f: how strongly a player's λ follows what it is worth, and by what factor the mean of all changes."""
BESTS = (0.0, 10.0, 100.0)
"""w: weight of who is the best member."""
_SIZE_WEIGHT, _SIZE_SCALE, _NUGGET = 3.0, 0.3, 1e-6
_LEAST_RELEVANCE, _LARGEST_FALL, _LEAST_STEP = 0.05, 0.98, 0.05
_ORDERED = 2  # times that players are put in order
_SELECTED_ON = 320  # draws on which λ, b, γ and f are selected
_MOST_NUMBERS = 1 << 24  # in the covariance matrices that are worked on at once


@RULES.register("gaussian_process")
class GaussianProcess(SingleDraws):
    r"""Pays the Shapley value of a Gaussian process that is fitted to sampled coalitions.

    .. math:: c_i = \sum_k \alpha_k\, \phi_i\bigl(k(\cdot, S_k)\bigr), \qquad \alpha = K^{-1} v

    where S_k are the sampled coalitions, N and ∅ among them, v their worths, K their covariances, and φ the Shapley value, which is known
    in closed form for the covariance k (:mod:`~proxycoop.credit.estimators.gaussian_process`). Coalitions are drawn as for
    ``size_regression``. The covariance's parameters are those under which the draws are likeliest, for each environment by itself.

    Costs ``budget`` evaluations, and in each environment the factorisation of a matrix of as many rows, of which a second does some ten of
    1,000 rows. Efficient but for rounding. Symmetric and null-player in expectation only. With a budget of all coalitions the value is
    exact. Standard errors are the process's own: right where the game is as smooth as the process takes it to be.

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

    def fitted(self, game: CoalitionGame, design: Design, generator: np.random.Generator) -> Fit:
        """See the class."""
        n, n_drawn = game.n_players, len(design.members)
        order = torch.argsort(design.free.int(), descending=True, stable=True)  # those of free sizes first
        drawn, n_free = design.members[order], int(design.free.sum())
        ends = torch.tensor([[True] * n, [False] * n])
        worth = game.value(drawn).double()
        whole = game.grand().double()[:, None]
        y = torch.cat([worth[:, :n_free], whole, torch.zeros_like(whole), worth[:, n_free:]], dim=1)  # (E, m)
        rows = torch.cat([drawn[:n_free], ends, drawn[n_free:]]).to(y.device)
        if len(rows) == 2**n:
            exact = Estimate.exact(_exactly(rows, y), n_drawn + 1, "exact, from all coalitions")
            return Fit(exact, lambda: torch.zeros_like(worth))
        given = n_free + 2 if n_free else 0
        likeliest = self._likeliest(rows, y, n_free + 2, given, generator)
        fits = len(y) <= max(_MOST_NUMBERS // len(rows) ** 2, 1)
        kept = _Posterior(likeliest, rows, given) if fits else None  # else factors would fill the memory

        def of_all(part: Callable[[_Posterior, Tensor], Tensor]) -> Tensor:
            if kept is not None:
                return part(kept, y)
            return self._by_parts(lambda posterior, some: part(posterior, y[some]), likeliest, rows, given, 1)

        def errors() -> tuple[Tensor, Tensor]:
            error = of_all(_Posterior.errors)
            return error, likeliest.freedom(len(rows), given)[:, None].expand_as(error)

        def left_out() -> Tensor:
            found = of_all(_Posterior.left_out)
            places = torch.cat([torch.arange(n_free), torch.arange(n_free + 2, len(rows))])[torch.argsort(order)]
            return found[:, places.to(found.device)]

        values = of_all(_Posterior.values)
        values = values + (whole - values.sum(dim=1, keepdim=True)) / n  # what the nugget takes off v(N)
        return Fit(Estimate(values, errors, n_drawn + 1, f"Gaussian process, {n_drawn} coalitions"), left_out)

    def _likeliest(self, rows: Tensor, y: Tensor, n_first: int, given: int, generator: np.random.Generator) -> _Covariances:
        """For each environment the covariance that makes its draws likeliest; the first ``n_first`` rows are all looked at."""
        n, n_more = rows.shape[1], max(_SELECTED_ON - n_first, _SELECTED_ON // 3)
        if len(rows) - n_first > n_more:
            some = torch.from_numpy(np.sort(generator.permutation(len(rows) - n_first)[:n_more])) + n_first
            some = torch.cat([torch.arange(n_first), some]).to(rows.device)
            rows, y = rows[some], y[:, some]
        pairs = zip(*itertools.product(FALLS, SLOPES), strict=True)
        falls, slopes = (torch.tensor(part, dtype=torch.float64).to(y.device) for part in pairs)
        everyone = torch.arange(len(y)).to(y.device)
        first = _Posterior(_Covariances(falls[:, None].expand(-1, n), slopes), rows, given)
        white = first.white(y.T)  # (grid, m, E)
        best = first.likelihood(white.mT).argmax(dim=0)  # (E,)
        worth = torch.einsum("emn,em->en", first.basis[best], white[best, :, everyone])
        relevance = (worth.abs() / worth.abs().amax(dim=1, keepdim=True)).nan_to_num(0.0) + _LEAST_RELEVANCE
        powers, factors = (torch.tensor(part, dtype=torch.float64).to(y.device) for part in zip(*RELEVANCES, strict=True))
        powered = relevance[:, None] ** powers[:, None]  # (E, γ, n)
        fall = falls[best, None, None] * factors[:, None] * powered / powered.mean(dim=-1, keepdim=True)
        fall = fall.clamp(max=_LARGEST_FALL)  # (E, γ, n)

        def likeliest(among: _Covariances) -> _Covariances:
            """The likeliest for each environment, of some for each."""

            def which(posterior: _Posterior, some: Tensor) -> Tensor:
                return posterior.likelihood(posterior.white(y[some, None, :, None])[..., None, :, 0])[..., 0].argmax(dim=1)

            return among.of(everyone, self._by_parts(which, among, rows, given, among.fall.shape[1]))

        found = likeliest(_Covariances(fall, slopes[best, None].expand(fall.shape[:2])))
        weight = torch.tensor(BESTS, dtype=torch.float64).to(y.device)
        for _ in range(_ORDERED):
            place, step = _ordered(self._by_parts(lambda posterior, some: posterior.values(y[some]), found, rows, given, 1))
            fall, slope, place = (part[:, None].expand(-1, len(weight), *part.shape[1:]) for part in (found.fall, found.slope, place))
            found = likeliest(_Covariances(fall, slope, place, weight[:, None] * step[:, None]))
        return found

    @staticmethod
    def _by_parts(part: Callable[[_Posterior, Tensor], Tensor], of: _Covariances, rows: Tensor, given: int, each: int) -> Tensor:
        """What is asked of every environment's posteriors, of which there are so many each, as many environments at once as fit memory."""
        everyone = torch.arange(len(of.fall)).to(rows.device)
        at_once = everyone.split(max(_MOST_NUMBERS // (each * len(rows) ** 2), 1))
        return torch.cat([part(_Posterior(of.of(some), rows, given), some) for some in at_once])


def _ordered(worth: Tensor) -> tuple[Tensor, Tensor]:
    """Each player's place by what it is worth, from 0, and the steps g for w = 1, by place: ``(E, n)`` each."""
    ranked, order = worth.sort(dim=1, descending=True)
    steps = (ranked - torch.nn.functional.pad(ranked[:, 1:], (0, 1))).abs() * torch.arange(1, worth.shape[1] + 1).to(worth)
    height = ((steps / steps.amax(dim=1, keepdim=True)).nan_to_num(0.0) + _LEAST_STEP).square()
    return order.argsort(dim=1), height / height.sum(dim=1, keepdim=True)


@dataclass(frozen=True)
class _Covariances:
    """Covariances k over coalitions of n players.

    Attributes:
        fall: λ of each player, double ``(..., n)``.
        slope: b, ``(...)``.
        place: Each player's place in the order, int64 ``(..., n)``; ``None`` for w = 0.
        step: g, by place, ``(..., n)``; ``None`` for w = 0.
    """

    fall: Tensor
    slope: Tensor
    place: Tensor | None = None
    step: Tensor | None = None

    def of(self, *index: Tensor) -> _Covariances:
        """Those at some indices of the first dimensions."""
        ordered = () if self.place is None or self.step is None else (self.place[index], self.step[index])
        return _Covariances(self.fall[index], self.slope[index], *ordered)

    @property
    def n(self) -> int:
        """Number of players."""
        return self.fall.shape[-1]

    @property
    def rho(self) -> Tensor:
        """By which factor the first part falls if coalitions differ in a player, ``(..., n)``."""
        return (1 - self.fall) / (1 + self.fall)

    def freedom(self, n_rows: int, given: int) -> Tensor:
        """Degrees of freedom of the process's variance, ``(...)``: the d draws, less one for each of n players, the size, λ and b.

        Draws that are conditioned on are not among them. They tell who is worth what, too, so that players take only n d/(n + d) then.
        Steps take as many again.
        """
        drawn = n_rows - given
        shrunk = self.n * drawn / (self.n + drawn)
        plain = max(drawn - shrunk - 3, 2.0) if given else float(max(drawn - self.n - 3, 1))
        found = torch.full_like(self.slope, plain)
        if self.step is None:
            return found
        return torch.where(self.step.sum(dim=-1) > 0, max(plain - shrunk, min(plain, 2.0)), found)

    def _best(self, rows: Tensor) -> Tensor:
        """The first place among a coalition's members, ``(..., m)``; n for the empty one."""
        assert self.place is not None
        return torch.where(rows, self.place[..., None, :], self.n).amin(dim=-1)

    def _steps_from(self, place: Tensor, power: int) -> Tensor:
        """Sum of the steps from a place on, each over the number of players before it to some power: ``(..., m, k)`` → the same."""
        assert self.step is not None
        parts = self.step / torch.arange(1, self.n + 1).to(self.step) ** power
        tails = torch.nn.functional.pad(parts.flip(-1).cumsum(dim=-1).flip(-1), (0, 1))  # (..., n + 1)
        return tails[..., None, :].expand(*place.shape[:-1], -1).gather(-1, place)

    def matrix(self, rows: Tensor) -> Tensor:
        """k of all pairs, and a little more on the diagonal, double ``(..., m, m)``."""
        members = rows.double()
        size = rows.sum(dim=1)
        one_way = (members * self.rho.log()[..., None, :]) @ (1 - members).T  # players in the one alone
        x = members - members.mean(dim=1, keepdim=True)
        by_size = _by_size(self.n).to(members)[size][:, size]
        slope = self.slope[..., None, None]
        found: Tensor = (one_way + one_way.mT).exp() + by_size * (_SIZE_WEIGHT + slope * 4 / self.n * (x @ x.T))
        largest = 1 + _SIZE_WEIGHT + self.slope[..., None]
        if self.step is not None:
            best = self._best(rows)
            found = found + self._steps_from(torch.maximum(best[..., :, None], best[..., None, :]), 0)
            largest = largest + self.step.sum(dim=-1, keepdim=True)
        found.diagonal(dim1=-2, dim2=-1).add_(_NUGGET * largest)
        return found

    def values(self, rows: Tensor) -> Tensor:
        """The Shapley value of k(·, T) for each T among the rows, double ``(..., m, n)``."""
        n, members, rho = self.n, rows.double(), self.rho[..., None, :]
        size = rows.sum(dim=1)
        found = torch.zeros(*self.fall.shape[:-1], len(rows), n, dtype=torch.float64, device=members.device)
        for p, share in zip(*chances("shapley", n), strict=True):
            mixed = members * (rho + p * (1 - rho)) + (1 - members) * (1 - p * (1 - rho))
            log = mixed.log()
            found += share * (log.sum(dim=-1, keepdim=True) - log).exp()
        found *= (1 - rho) * (2 * members - 1)  # a_i − b_i
        by_size = _by_size(n).to(members)
        found += (_SIZE_WEIGHT / n * (by_size[n] - by_size[0]))[size, None]
        found += self.slope[..., None, None] * (4 / n * _slope(n).to(members)[size, None] * (members - members.mean(dim=1, keepdim=True)))
        if self.step is not None and self.place is not None:  # the players of B_k share its step
            found += self._steps_from(torch.maximum(self._best(rows)[..., :, None], self.place[..., None, :]), 1)
        return found

    def variance(self) -> Tensor:
        """The variance of each player's Shapley value before anything is known, with processes of variance 1: ``(..., n)``."""
        n, rho = self.n, self.rho
        first = torch.zeros_like(rho)
        nodes = list(zip(*chances("shapley", n), strict=True))
        for (p, share), (q, other) in itertools.product(nodes, nodes):
            agree = p * q + (1 - p) * (1 - q)
            log = (agree + rho * (1 - agree)).log()
            first += share * other * (log.sum(dim=-1, keepdim=True) - log).exp()
        size, slope, t = _by_size(n).numpy(), _slope(n).numpy(), np.arange(n)
        second = _SIZE_WEIGHT * 2 * (size[n, n] - size[n, 0]) / n**2
        third = 4 / n * float((slope[1:] * (1 - (t + 1) / n) + slope[:-1] * t / n).mean())
        found: Tensor = 2 * (1 - rho) * first + second + third * self.slope[..., None]
        if self.place is not None:
            found = found + self._steps_from(self.place[..., None, :], 2)[..., 0, :]
        return found


@dataclass(frozen=True)
class _Posterior:
    """Processes given the coalitions that were drawn, ``(m, n)``. Worths y are ``(E, m)``, a row for each process.

    What is known of the first ``given`` rows beforehand is no evidence of how much the game varies: a difference to a surrogate is small
    there because the surrogate was made so. They are conditioned on.
    """

    covariances: _Covariances
    rows: Tensor
    given: int

    @cached_property
    def factor(self) -> Tensor:
        """The covariance matrices' Cholesky factors, ``(..., m, m)``."""
        found: Tensor = torch.linalg.cholesky(self.covariances.matrix(self.rows))
        return found

    @cached_property
    def basis(self) -> Tensor:
        """The values of the covariances with each draw, whitened, ``(..., m, n)``."""
        return self.white(self.covariances.values(self.rows))

    def white(self, columns: Tensor) -> Tensor:
        """Columns ``(..., m, k)`` in terms of draws that do not depend on each other."""
        found: Tensor = torch.linalg.solve_triangular(self.factor, columns, upper=False)
        return found

    def values(self, y: Tensor) -> Tensor:
        """Mean of every player's value, ``(E, n)``."""
        return (self.white(y[..., None]) * self.basis).sum(dim=-2)

    def errors(self, y: Tensor) -> Tensor:
        """Standard deviation of every player's value, ``(E, n)``."""
        left = (self.covariances.variance() - self.basis.square().sum(dim=-2)).clamp(min=0)
        residual = self.weights(y).square() / self.precision  # squared distances from the mean given the others, over their variances
        spread = residual[..., self.given :].sum(dim=-1) / self.covariances.freedom(len(self.rows), self.given)  # (E,)
        return (spread[:, None] * left).sqrt()

    def likelihood(self, white: Tensor) -> Tensor:
        """Log likelihoods of whitened worths ``(..., k, m)``, but for a constant, each with the likeliest variance: ``(..., k)``."""
        spread = white[..., self.given :].square().mean(dim=-1).clamp(min=torch.finfo(torch.float64).tiny)
        log = self.factor.diagonal(dim1=-2, dim2=-1)[..., self.given :].log().sum(dim=-1, keepdim=True)
        return (-0.5 * (white.shape[-1] - self.given) * spread.log() - log).nan_to_num(-torch.inf)

    def left_out(self, y: Tensor) -> Tensor:
        """How far each draw is from the mean given the others, ``(E, m)``."""
        return self.weights(y) / self.precision

    def weights(self, y: Tensor) -> Tensor:
        """K⁻¹ y, ``(E, m)``."""
        return torch.cholesky_solve(y[..., None], self.factor)[..., 0]

    @cached_property
    def precision(self) -> Tensor:
        """One over the variance of each draw given the others, by a process of variance 1, ``(..., m)``."""
        found: Tensor = torch.cholesky_inverse(self.factor).diagonal(dim1=-2, dim2=-1)
        return found


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
