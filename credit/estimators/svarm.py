"""SVARM: estimating the Shapley value without marginal contributions."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..games.game import CoalitionGame
from ..rule import RULES
from .estimate import Estimate, Estimator
from .sampling import Rows, allocate, covering, first_seen, subsets, tensor
from .strata import coalitions_with, coalitions_without, degrees_of_freedom, moments, strata


@RULES.register("svarm")
class Svarm(Estimator):
    r"""Pays an estimate of the Shapley value in which every sampled coalition serves all players: those in it, or those outside.

    .. math:: c_i = \overline{v(A^+) : i \in A^+} - \overline{v(A^-) : i \notin A^-}, \qquad
        P(|A^+| = s) = \frac{1}{s H_n}, \quad P(|A^-| = s) = \frac{1}{(n - s) H_n}

    where a bar is the mean over the draws, and :math:`H_n` is the n-th harmonic number. All coalitions of a size are drawn with the same
    chance. Given that i is in A⁺, the size of A⁺ is uniform, as the Shapley value asks. Every player first gets one draw of both kinds,
    which serves that player only, so that nobody is left without one.

    Costs ``budget`` evaluations; a coalition that is drawn twice counts twice, but is evaluated once. Unbiased. Not efficient. Symmetric
    and null-player in expectation only.

    Known failure: a game with a large v(N). A difference of two means of whole worths varies more than a mean of differences.

    Args:
        budget: Most coalitions to evaluate in a round, v(∅) apart: a positive whole number. ``None`` is 20 a player.
        seed: Seed of the draws, a whole number from 0.

    Raises:
        ValueError: If ``budget`` is not a positive whole number, or ``seed`` is negative or not whole. At reset, if the budget is too small
            for the number of agents.

    References:
        Kolpaczki, Bengs, Muschalik & Hüllermeier (2024), *Approximating the Shapley value without marginal contributions*, AAAI.
    """

    source = "Kolpaczki et al. 2024 (AAAI)"
    pays = "Shapley value, from mean worths of coalitions with and without the agent"
    known_failure = "a large v(N) hides differences"

    def least_budget(self, n_players: int) -> int:
        """4n: two draws of both kinds for every player."""
        return 4 * n_players

    def sample(self, game: CoalitionGame, budget: int, generator: np.random.Generator) -> Estimate:
        """See the class."""
        n = game.n_players
        first = np.concatenate([_first_draws(n, generator), _first_draws(n, generator)])  # with i, and complements of those without i
        n_more = budget
        harmonic = 1 / np.arange(1, n + 1)
        sizes = generator.choice(np.arange(1, n + 1), size=(n_more, 2), p=harmonic / harmonic.sum())
        # A⁻ is the complement of a coalition that is drawn like A⁺
        drawn = np.argsort(generator.random((n_more, 2, n)), axis=2) < sizes[..., None]  # (m, 2, n)
        rows = np.concatenate([first, drawn.reshape(-1, n)])
        is_plus = np.concatenate([np.arange(2 * n) < n, np.tile([True, False], n_more)])
        asked = np.where(is_plus[:, None], rows, ~rows)
        spent = (first_seen(asked) & asked.any(axis=1)).cumsum()
        kept = int((spent <= budget).sum())
        somebody = torch.from_numpy(asked[:kept].any(axis=1))
        worth = game.value(tensor(asked[:kept])[somebody]).double()
        v = worth.new_zeros(len(worth), kept)  # the empty coalition is worth 0
        v[:, somebody.to(v.device)] = worth
        counts = tensor(rows[:kept])
        counts[: 2 * n] = torch.eye(n, dtype=torch.bool).repeat(2, 1)  # a first draw serves its player only
        plus, minus = torch.from_numpy(is_plus[:kept].copy()), torch.from_numpy(~is_plus[:kept])
        parts = [moments(v[:, kind.to(v.device)], counts[kind]) for kind in (plus, minus)]
        means, spreads, numbers = (torch.stack(part, dim=-2) for part in zip(*parts, strict=True))
        variances = spreads / numbers
        return Estimate(
            means[:, 0] - means[:, 1],
            lambda: (variances.sum(dim=1).sqrt(), degrees_of_freedom(variances, numbers)),
            int(spent[kept - 1]),
            f"SVARM, {kept} draws",
        )


def _first_draws(n: int, generator: np.random.Generator) -> Rows:
    """For each player a coalition that holds it, of uniform size, bool ``(n, n)``."""
    rank = generator.random((n, n))
    np.fill_diagonal(rank, -1.0)  # the player itself comes first
    return np.argsort(np.argsort(rank, axis=1), axis=1) < generator.integers(1, n + 1, size=(n, 1))


@RULES.register("stratified_svarm")
class StratifiedSvarm(Estimator):
    r"""Pays an estimate of the Shapley value by SVARM, with one mean for every player and coalition size.

    .. math:: c_i = \frac{1}{n} \sum_{s=0}^{n-1} \Bigl[\overline{v(A) : i \in A, |A| = s + 1} - \overline{v(A) : i \notin A, |A| = s}\Bigr]

    where a bar is the mean over the drawn coalitions. Sizes 0, 1, n − 1 and n are enumerated (2n + 1 evaluations). The other sizes share
    the rest of the budget evenly, without replacement. Every player has at least one coalition of each size with it, and one without. With
    a budget of all coalitions the value is exact.

    Costs ``budget`` evaluations. Unbiased. Not efficient. Symmetric and null-player in expectation only.

    Known failure: the least budget, about 2n ln n. With less, a stratum would be empty, so a smaller budget is refused.

    Departures from the source: the numbers of draws by size are fixed and even rather than random.

    Args:
        budget: Most coalitions to evaluate in a round, v(∅) apart: a positive whole number. ``None`` is 20 a player.
        seed: Seed of the draws, a whole number from 0.

    Raises:
        ValueError: If ``budget`` is not a positive whole number, or ``seed`` is negative or not whole. At reset, if the budget is too small
            for the number of agents.

    References:
        Kolpaczki, Bengs, Muschalik & Hüllermeier (2024), *Approximating the Shapley value without marginal contributions*, AAAI.
    """

    source = "Kolpaczki et al. 2024 (AAAI)"
    pays = "Shapley value, from the same means by coalition size"
    known_failure = "needs about 2n ln n evaluations"

    def least_budget(self, n_players: int) -> int:
        """v(N), and for every size enough coalitions that each player is in one and outside of one."""
        return 1 + sum(covering(n_players, min(s, n_players - s)) for s in range(1, n_players))

    def sample(self, game: CoalitionGame, budget: int, generator: np.random.Generator) -> Estimate:
        """See the class."""
        n = game.n_players
        sizes = list(range(1, n))
        available = coalitions_with(n)[1:n] + coalitions_without(n)[1:n]
        least = [covering(n, min(s, n - s)) for s in sizes]
        counts = allocate(budget - 1, [1.0] * len(sizes), least, [int(min(a, 2.0**62)) for a in available.tolist()])
        drawn = [_of_size(n, s, count, generator) for s, count in zip(sizes, counts, strict=True)]
        rows = tensor(np.concatenate([*drawn, np.ones((1, n), dtype=bool)]))
        v = game.value(rows).double()
        size = rows.sum(dim=1)
        with_i = strata(rows, size, v, coalitions_with(n))
        without_i = strata(~rows, size, v, coalitions_without(n))
        means = with_i.mean[:, 1:] - without_i.mean[:, :-1]  # (E, n, n): of sizes s + 1 and s

        def errors() -> tuple[Tensor, Tensor]:
            variance = torch.cat([with_i.variance[:, 1:], without_i.variance[:, 1:-1]], dim=1) / n**2  # size 0 is worth 0
            return variance.sum(dim=1).sqrt(), degrees_of_freedom(variance, torch.cat([with_i.count[1:], without_i.count[1:-1]]))

        return Estimate(
            means.mean(dim=1),
            errors,
            len(rows),
            f"stratified SVARM, {len(rows)} coalitions",
        )


def _of_size(n: int, size: int, count: int, generator: np.random.Generator) -> Rows:
    small = subsets(n, min(size, n - size), count, generator)
    return small if 2 * size <= n else ~small
