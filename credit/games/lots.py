"""The game among lots: what a round would have gained with exactly these lots, whoever owns them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .game import CoalitionGame

LotValues = Callable[[Tensor], Tensor]
"""From sets of lots, bool ``(E, C, N, K)``, to what the round would have gained with them, ``(E, C)``; 0 for no lots."""


class LotGame:
    """What a round's utility gain would have been had exactly these lots been in the step.

    Sets of lots may differ between environments, as they do when the screening depends on who is there. They may also hold lots that were
    not contributed or not admitted, since every lot has an update.

    Args:
        value: The gain of sets of lots, in the utility's unit.
        candidates: bool ``(E, N, K)``: the lots that would have been admitted if contributed.
        counted: Whether to count evaluations here. False where ``value`` asks a game that counts them.
    """

    def __init__(self, value: LotValues, candidates: Tensor, *, counted: bool = True) -> None:
        self._value = value
        self._counted = counted
        self.candidates = candidates
        self.evaluations = 0
        """How many sets of lots have been valued, in each environment."""

    @classmethod
    def of_agents(cls, game: CoalitionGame, num_envs: int) -> LotGame:
        """The lots of a game about which nothing else is known: each agent has one lot, which does all that the agent does."""

        def value(lots: Tensor) -> Tensor:
            n_envs, n_sets, n_agents, _ = lots.shape
            asked, place = lots[..., 0].reshape(-1, n_agents).unique(dim=0, return_inverse=True)
            return game.value(asked).gather(1, place.reshape(n_envs, n_sets))

        return cls(value, torch.ones(num_envs, game.n_players, 1, dtype=torch.bool), counted=False)

    def value(self, lots: Tensor) -> Tensor:
        """What sets of lots, bool ``(E, C, N, K)``, would have gained, ``(E, C)``, in the utility's unit.

        Raises:
            ValueError: If ``lots`` has another shape or type.
        """
        if lots.dtype != torch.bool or lots.dim() != 4 or (lots.shape[0], *lots.shape[2:]) != tuple(self.candidates.shape):
            n_envs, n_agents, n_lots = self.candidates.shape
            raise ValueError(f"lots must be bool of shape ({n_envs}, C, {n_agents}, {n_lots}), got {lots.dtype} {tuple(lots.shape)}")
        self.evaluations += lots.shape[1] * self._counted
        return self._value(lots)

    def among(self, lots: Tensor) -> CoalitionGame:
        """The coalition game whose players are all N·K lots. Lots that are not in ``lots``, bool ``(E, N, K)``, are worth nothing."""
        _, n_agents, n_lots = lots.shape

        def value(coalitions: Tensor) -> Tensor:
            sets = coalitions.reshape(1, -1, n_agents, n_lots).to(lots.device)
            return self.value(sets & lots[:, None])

        return CoalitionGame(value, n_agents * n_lots)

    def part(self, envs: slice) -> LotGame:
        """The same game for some of the environments."""

        def value(lots: Tensor) -> Tensor:
            everywhere = lots.new_zeros(len(self.candidates), *lots.shape[1:])
            everywhere[envs] = lots
            return self._value(everywhere)[envs]

        return LotGame(value, self.candidates[envs])


def unanimous(coalitions: Tensor, blocked_by: Tensor) -> Tensor:
    """The lots that no member of a coalition finds inadmissible.

    Args:
        coalitions: bool ``(C, N)``.
        blocked_by: bool ``(E, N, K, N)``: whether lot ``(i, k)`` is inadmissible to principal j.

    Returns:
        bool ``(E, C, N, K)``, for the lots of all agents, members or not.
    """
    return objections(coalitions, blocked_by) == 0


def objections(coalitions: Tensor, blocked_by: Tensor) -> Tensor:
    """How many members of a coalition find each lot inadmissible: ``(C, N)``, ``(E, N, K, N)`` → int ``(E, C, N, K)``."""
    members = coalitions.to(device=blocked_by.device, dtype=torch.float32)
    return (blocked_by.float() @ members.T).permute(0, 3, 1, 2).round().long()
