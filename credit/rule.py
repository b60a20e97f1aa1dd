"""The interface of a credit rule, and the registry in which rules are found by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor

from ..registry import Registry
from .game import CoalitionGame
from .round import Round

RULES: Registry[CreditRule] = Registry("credit rule", "proxycoop.credit_rules")


def make(name: str, /, **kwargs: object) -> CreditRule:
    """The credit rule called ``name``.

    Args:
        name: A registered name, such as ``"shapley"``.
        **kwargs: The rule's own parameters.

    Raises:
        ValueError: If the name is unknown (the message lists the known ones) or the rule takes no such parameter.
    """
    return RULES.make(name, **kwargs)


class CreditRule(ABC):
    """From a round to one number per agent.

    A rule is small: subclass, declare what it promises, write :meth:`assign`, and register it::

        @credit.RULES.register("mine")
        class Mine(credit.CreditRule):
            '''Pays for the number of admitted lots.'''

            def assign(self, round):
                return round.admitted.sum(dim=-1).float()

    The class attributes are promises: the test-suite holds every registered rule to them.
    """

    source: ClassVar[str] = "unpublished"
    """Where the rule was defined."""
    evaluations: ClassVar[str] = "0"
    """Cost of a round in coalition evaluations, as a formula in n."""
    efficient: ClassVar[bool] = False
    """Whether credits sum to v(N)."""
    symmetric: ClassVar[bool] = False
    """Whether interchangeable agents get the same."""
    null_player: ClassVar[bool] = False
    """Whether an agent that adds nothing to any coalition gets nothing."""
    max_players: ClassVar[int | None] = None
    """Largest number of agents; ``None`` for any."""

    def check(self, n_players: int) -> None:
        """Refuse a cooperative that the rule cannot serve.

        Raises:
            ValueError: If there are more than :attr:`max_players` agents.
        """
        if self.max_players is not None and n_players > self.max_players:
            cost = f"{2**n_players:,}" if n_players < 64 else f"2**{n_players}"
            raise ValueError(
                f"{type(self).__name__} takes at most {self.max_players} agents, got {n_players} ({cost} coalitions a round): "
                f"use a rule with few evaluations, such as credit='loo' ({n_players + 1}) or credit='standalone' ({n_players})"
            )

    def reset(self, num_envs: int, num_agents: int) -> None:
        """Begin ``num_envs`` episodes of ``num_agents`` agents. Rules with a memory clear it here, after calling this.

        Raises:
            ValueError: If the rule cannot serve this many agents.
        """
        del num_envs
        self.check(num_agents)

    @abstractmethod
    def assign(self, round: Round) -> Tensor:
        """Credit of every agent for this round, ``(E, N)``, in the utility's unit."""


class GameRule(CreditRule):
    """A rule that needs nothing but the coalition game; it serves any game with v(∅) = 0, also outside a cooperative."""

    def assign(self, round: Round) -> Tensor:
        """Credit of every agent for this round, ``(E, N)``, in the utility's unit."""
        return self.values(round.game)

    @abstractmethod
    def values(self, game: CoalitionGame) -> Tensor:
        """Each player's value, ``(n_envs, n_players)``, in the game's unit.

        Raises:
            ValueError: If the game has too many players for the rule.
        """
