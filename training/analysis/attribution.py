"""Shapley values of games that are played in a batch of episodes, with intervals for the means."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...credit import CoalitionGame, Estimator, KernelShap, Shapley
from ..evaluate import Estimate


@dataclass(frozen=True)
class Attribution:
    """What each player of a game is worth, for R targets, E episodes and n players.

    Attributes:
        players: The players' names.
        values: Shapley values in each episode, double ``(R, E, n)``, in the target's unit; rows sum to ``everybody`` − ``nobody``.
        means: Their means over episodes, R × n, with 95 % intervals. These cover both the choice of episodes and the choice of coalitions.
        nobody: v(∅), double ``(R, E)``.
        everybody: v(N), double ``(R, E)``.
        method: How they were computed, in words.
    """

    players: tuple[str, ...]
    values: Tensor
    means: tuple[tuple[Estimate, ...], ...]
    nobody: Tensor
    everybody: Tensor
    method: str

    def among(self, players: tuple[str, ...]) -> Attribution:
        """The same game with more players. The added ones are null players: they add nothing to any coalition, so they get 0."""
        place = [players.index(name) for name in self.players]
        nothing = 0 * self.nobody[..., None].expand(-1, -1, len(players))  # NaN in episodes in which the game is undefined
        values = nothing.index_copy(2, torch.tensor(place), self.values)
        means = tuple(
            tuple(dict(zip(self.players, known, strict=True)).get(name, Estimate.of(of_target[:, i])) for i, name in enumerate(players))
            for known, of_target in zip(self.means, values, strict=True)
        )
        return replace(self, players=players, values=values, means=means)


def rule_within(n_players: int, budget: int) -> Estimator:
    """The rule that computes Shapley values within a budget of coalitions: exact if it covers all of them, else paired KernelSHAP.

    The estimators of :mod:`~proxycoop.credit` were compared on the features of a policy trained on ``digits``. KernelSHAP, its variant by
    size, and regression on size and membership had the smallest standard errors. Antithetic permutations had larger ones.
    """
    return Shapley() if budget >= 2**n_players - 1 else KernelShap(budget)


def attribute(worth: Callable[[Tensor], Tensor], players: tuple[str, ...], rule: Estimator) -> Attribution:
    """Shapley values of a game that is played in episodes.

    Args:
        worth: The game: from coalitions, bool ``(m, n)``, to their worth, double ``(R, E, m)``. An episode may be NaN throughout.
        players: The n players' names.
        rule: The rule that computes the values, from the same coalitions in all episodes.
    """
    n = len(players)
    nobody = worth(torch.zeros(1, n, dtype=torch.bool))  # (R, E, 1)
    n_targets, n_episodes, _ = nobody.shape

    def with_mean(coalitions: Tensor) -> Tensor:
        """Worth of coalitions, with the mean over episodes as one more game, so that the mean's standard error is known."""
        gain = worth(coalitions) - nobody
        return torch.cat([gain, gain.nanmean(dim=1, keepdim=True)], dim=1).flatten(0, 1)  # (R·(E + 1), m)

    game = CoalitionGame(with_mean, n)
    found = rule.estimate(game)
    values = found.values.unflatten(0, (n_targets, n_episodes + 1))
    _, high = found.interval()
    half_width = high.unflatten(0, values.shape[:2])[:, -1] - values[:, -1]  # (R, n)
    means = tuple(tuple(_widened(Estimate.of(values[r, :-1, i]), float(half_width[r, i])) for i in range(n)) for r in range(n_targets))
    grand = game.grand().unflatten(0, values.shape[:2])[:, :-1]
    return Attribution(players, values[:, :-1], means, nobody[..., 0], grand + nobody[..., 0], found.method)


def _widened(estimate: Estimate, half_width: float) -> Estimate:
    """An interval for the choice of episodes, widened by an independent interval for the choice of coalitions."""
    if estimate.half_width is None:
        return estimate
    return replace(estimate, half_width=(estimate.half_width**2 + half_width**2) ** 0.5)
