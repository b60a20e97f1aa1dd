"""What rules have in common that guard another rule, and that read more of a round than its game."""

from __future__ import annotations

from typing import ClassVar

from ..rule import CreditRule, Family, make


class Guard(CreditRule):
    """A rule that pays by another rule, unless it sees what it guards against.

    Args:
        rule: The other rule, or its name (with arguments, if it takes any: ``"shapley(budget=60)"``).

    Raises:
        ValueError: If ``rule`` is neither a credit rule nor the name of one.
    """

    family: ClassVar[Family] = "wrapper"
    _remembers: ClassVar[bool] = False  # the other rule may, and looks after itself

    def __init__(self, rule: CreditRule | str) -> None:
        self.rule = make(rule) if isinstance(rule, str) else rule
        if not isinstance(self.rule, CreditRule):
            raise ValueError(f"rule={rule!r}: must be a credit rule or the name of one")
        self.max_players = self.rule.max_players
        self.needs = tuple(dict.fromkeys((*self.rule.needs, *type(self).needs)))
        self.evaluations = f"{self.rule.evaluations} (the rule's)"

    def cost(self, n_players: int) -> int:
        """What the other rule costs."""
        return self.rule.cost(n_players)

    def method(self, n_players: int) -> str:
        """The other rule's method."""
        return self.rule.method(n_players)

    def check(self, n_players: int) -> None:
        """Refuse the numbers of agents that the other rule refuses.

        Raises:
            ValueError: If the other rule does.
        """
        self.rule.check(n_players)

    def reset(self, num_envs: int, num_agents: int) -> None:
        """Begin episodes, for the other rule too."""
        super().reset(num_envs, num_agents)
        self.rule.reset(num_envs, num_agents)
