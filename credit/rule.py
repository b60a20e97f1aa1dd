"""The interface of a credit rule, and the registry in which rules are found by name."""

from __future__ import annotations

import reprlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import wraps
from inspect import isfunction
from typing import Any, ClassVar, Literal

from torch import Tensor

from ..checks import whole_number
from ..registry import Registry, unknown_name, with_arguments
from .arguments import checked_players
from .games.game import CoalitionGame, GameLike, as_game
from .games.round import REMEDIES, Need, Round

RULES: Registry[CreditRule] = Registry("credit rule", "proxycoop.credit_rules")

Family = Literal["division", "value", "estimator", "federated", "gradient", "peer", "time", "veto", "learning", "wrapper"]
"""What kind of rule it is.

- ``division``: reads v(N) and the round's records.
- ``value``: is defined by the whole coalition game.
- ``estimator``: samples coalitions to approximate a value.
- ``federated``: sums over rounds or lots.
- ``gradient``: reads updates and gradients.
- ``peer``: asks the agents.
- ``time``: asks who came first.
- ``veto``: screens each coalition by its own members' values.
- ``learning``: comes from multi-agent reinforcement learning.
- ``wrapper``: changes what another rule pays.
"""


def make(rule: str, /, **kwargs: object) -> CreditRule:
    """Build a credit rule by its name.

    Args:
        rule: A registered name, such as ``"shapley"``, or a name with arguments, such as ``"shapley(budget=60)"``. A name with arguments is
            accepted wherever a rule's name is (environments, trainings, the command line).
        **kwargs: The rule's own parameters.

    Raises:
        ValueError: If the name is unknown (the message lists the known ones), the rule takes no such parameter, or a parameter is not
            valid.
    """
    name, arguments = parse(rule)
    for twice in arguments.keys() & kwargs.keys():
        raise ValueError(f"credit rule {rule!r}: {twice!r} is given twice, in the name and as a keyword")
    return RULES.make(name, **arguments, **kwargs)


def parse(rule: str) -> tuple[str, dict[str, object]]:
    """Name and arguments of a rule: ``"shapley(budget=60)"`` → ``("shapley", {"budget": 60})``.

    Raises:
        ValueError: If it is no text, or the name is followed by anything but ``(argument=value, …)``, with Python literals as values.
    """
    if not isinstance(rule, str):
        raise ValueError(f"rule={rule!r}: must be the name of a credit rule as text, such as 'shapley' or 'shapley(budget=60)'")
    return with_arguments("credit rule", rule, "shapley(budget=60) or normalised(rule='loo')")


_OF_PLAYERS = ("cost", "method", "check", "least_budget", "estimator")
"""Methods of rules that are told the number of players, and nothing else."""


def _told_players(method: Callable[[Any, int], Any]) -> Callable[[Any, int], Any]:
    """The method of a rule, handed a Python number from 1."""

    @wraps(method)
    def told(self: CreditRule, n_players: int) -> Any:
        return method(self, checked_players(n_players))

    return told


def _given_rounds(method: Callable[[Any, Round], Tensor]) -> Callable[[Any, Round], Tensor]:
    """The method of a rule, handed a round. One that remembers is handed rounds of one size until it is reset."""

    @wraps(method)
    def given(self: CreditRule, round: Round) -> Tensor:
        if not isinstance(round, Round):
            raise ValueError(f"round={reprlib.repr(round)}: must be a Round of a cooperative; a game alone is paid by values(game)")
        if self._remembers:
            size = round.num_envs, round.num_agents
            if self._remembered not in (None, size):
                raise ValueError(
                    f"the round is of {size[0]} environments and {size[1]} agents, but the episodes that {type(self).__name__} remembers "
                    f"are of {self._remembered[0]} and {self._remembered[1]}: call reset({size[0]}, {size[1]}) where new episodes begin"
                )
            self._remembered = size
        return method(self, round)

    return given


def _forgetting(method: Callable[[Any, int, int], None]) -> Callable[[Any, int, int], None]:
    """A rule's reset, after which rounds may have another size, whether or not it calls the one that it overrides."""

    @wraps(method)
    def reset(self: CreditRule, num_envs: int, num_agents: int) -> None:
        self._remembered = None
        method(self, num_envs, num_agents)

    return reset


class CreditRule(ABC):
    """A credit rule: from a round to one number per agent.

    A rule is small. Subclass, declare what it promises, write :meth:`assign`, and register it::

        @credit.RULES.register("mine")
        class Mine(credit.CreditRule):
            '''Pays for the number of admitted lots.'''

            def assign(self, round):
                return round.admitted.sum(dim=-1).float()

    The class attributes are promises, and :func:`~proxycoop.credit.check_rule` tests them. A rule whose promises depend on its parameters
    sets them on the instance.

    :meth:`cost`, :meth:`method` and :meth:`check` are handed a Python number from 1, whatever the caller passed: NumPy's whole numbers are
    converted, and anything else is refused by name.
    """

    family: ClassVar[Family] = "division"
    """What kind of rule it is; see :data:`~proxycoop.credit.rule.Family`."""
    source: ClassVar[str] = "unpublished"
    """Where the rule was defined."""
    pays: ClassVar[str] = ""
    """What an agent is paid, in a few words or a short formula, for tables."""
    known_failure: ClassVar[str] = ""
    """When it fails, in a few words, for tables; the docstring says more."""
    evaluations: str = "0"
    """Cost of a round in coalition evaluations, as a formula in n for people to read. v(∅) = 0 costs none. :meth:`cost` is the number."""
    efficient: bool = False
    """Whether credits sum to v(N)."""
    symmetric: bool = False
    """Whether interchangeable agents get the same."""
    null_player: bool = False
    """Whether an agent that adds nothing to any coalition gets nothing."""
    max_players: int | None = None
    """Largest number of agents; ``None`` for any."""
    needs: tuple[Need, ...] = ()
    """What a cooperative must offer beyond the game. A cooperative that does not is refused before its first round."""
    by_agent: ClassVar[bool] = False
    """Whether a rule with a memory keeps it by ``round.agents``, so that it serves rounds in which only some members are present."""
    _remembered: tuple[int, int] | None = None
    """Of how many environments and agents the rounds are that a rule with a memory remembers."""
    _remembers: ClassVar[bool] = False
    """Whether the rule has a memory. One that overrides :meth:`reset` has, unless it says otherwise."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in _OF_PLAYERS:
            if isfunction(method := vars(cls).get(name)):
                setattr(cls, name, _told_players(method))
        if isfunction(reset := vars(cls).get("reset")):
            cls._remembers = vars(cls).get("_remembers", True)
            setattr(cls, "reset", _forgetting(reset))  # noqa: B010 - a type checker refuses the plain assignment
        if isfunction(assign := vars(cls).get("assign")):
            setattr(cls, "assign", _given_rounds(assign))  # noqa: B010 - a type checker refuses the plain assignment

    def cost(self, n_players: int) -> int:
        """Most coalition evaluations that a round of ``n_players`` may cost in each environment; 0 unless a rule says otherwise."""
        checked_players(n_players)
        return 0

    def method(self, n_players: int) -> str:
        """How the rule computes credit for ``n_players``, in words. A rule that chooses between methods names the one that it chooses."""
        cost = self.cost(n_players)
        return f"{cost:,} coalition evaluation{'s' if cost != 1 else ''} a round"

    def unmet(self, has: Mapping[str, bool], name: str) -> Need | None:
        """The first of :attr:`needs` that a cooperative does not offer, or ``None``.

        Args:
            has: Whether the cooperative offers each thing, by name. What is not named counts as offered.
            name: Name of the rule, for the error message.

        Raises:
            ValueError: If the rule needs something that no cooperative knows of; the message lists what can be needed.
        """
        for need in self.needs:
            if need not in REMEDIES:
                raise unknown_name(f"need of credit rule {name!r}", need, list(REMEDIES))
            if not has.get(need, True):
                return need
        return None

    def check(self, n_players: int) -> None:
        """Refuse a cooperative that the rule cannot serve.

        Raises:
            ValueError: If ``n_players`` is not a whole number from 1, or there are more than :attr:`max_players` agents; the message says
                what it would cost and names rules that can serve them.
        """
        n_players = checked_players(n_players)
        if self.max_players is not None and n_players > self.max_players:
            raise too_many(type(self).__name__, self.max_players, n_players)

    def reset(self, num_envs: int, num_agents: int) -> None:
        """Begin ``num_envs`` episodes of ``num_agents`` agents a round. A rule with a memory clears it here, after calling this.

        Where only some members of a cooperative are present in a round, ``num_agents`` counts these; how many members there are, and who
        is there, each round says.

        Raises:
            ValueError: If ``num_envs`` or ``num_agents`` is not a whole number from 1, or the rule cannot serve this many agents.
        """
        whole_number("num_envs", num_envs, 1)
        self.check(checked_players(num_agents, "num_agents"))

    @property
    def tied_to_places(self) -> str:
        """Why the rule needs the same agents in every round, in words; empty if it serves rounds in which only some members are present.

        A rule with a memory needs them, unless it says with :attr:`by_agent` that it keeps what it knows by :attr:`Round.agents
        <proxycoop.credit.Round>`. One whose arguments name agents by their place needs them too.
        """
        if self._remembers and not self.by_agent:
            return f"{type(self).__name__} remembers agents by their place in a round, and other agents take the places in every round"
        return ""

    @abstractmethod
    def assign(self, round: Round) -> Tensor:
        """Credit of every agent for this round, ``(E, N)``, in the utility's unit."""


class LotRule(CreditRule):
    """A rule that credits every lot. An agent's credit is the sum over its lots.

    Subclasses write :meth:`assign_lots`. Environments tell each proxy what its own lots earned.
    """

    @abstractmethod
    def assign_lots(self, round: Round) -> Tensor:
        """Credit of every lot for this round, ``(E, N, K)``, in the utility's unit; 0 for lots that were not contributed."""

    def assign(self, round: Round) -> Tensor:
        """Credit of every agent for this round, ``(E, N)``, in the utility's unit."""
        return self.assign_lots(round).sum(dim=-1)


class GameRule(CreditRule):
    """A rule that needs nothing but the coalition game. It serves any game, also outside a cooperative.

    Subclasses write :meth:`divide`. Users call :meth:`values`, or let an environment call :meth:`assign`.
    """

    family: ClassVar[Family] = "value"

    def assign(self, round: Round) -> Tensor:
        """Credit of every agent for this round, ``(E, N)``, in the utility's unit."""
        return self.divide(round.game)

    def values(self, game: GameLike, n_players: int | None = None) -> Tensor:
        """Each player's value in any game.

        Args:
            game: A :class:`CoalitionGame`, or any callable from coalitions, bool ``(m, n_players)``, to their worth, ``(m,)`` or
                ``(n_envs, m)``. A callable is asked for v(∅) once, and v(∅) is subtracted from its answers.
            n_players: Number of players, for a callable.

        Returns:
            ``(n_envs, n_players)``, in the game's unit; one row for a single game.

        Raises:
            ValueError: If the number of players is missing, not a whole number from 1, or too large for the rule. If the game answers with
                what is no number.
        """
        game = as_game(game, n_players)
        self.check(game.n_players)
        return self.divide(game)

    @abstractmethod
    def divide(self, game: CoalitionGame) -> Tensor:
        """Each player's value, ``(n_envs, n_players)``, in the game's unit. v(∅) is 0, and the number of players has been checked."""


class WholeGameRule(GameRule):
    """A rule that evaluates every coalition."""

    evaluations = "2^n"

    def cost(self, n_players: int) -> int:
        """All 2^n coalitions."""
        return 1 << n_players


def too_many(rule: str, most: int, n_players: int) -> ValueError:
    """The error for more players than a rule can serve. It says what they would cost, and names rules that can serve them."""
    cost = f"{2**n_players:,}" if n_players < 64 else f"2**{n_players}"
    return ValueError(
        f"{rule} takes at most {most} agents, got {n_players} ({cost} coalitions a round): use an estimator with a budget of "
        f"coalition evaluations, such as credit='shapley(budget={20 * n_players})' or credit='svarm(budget={20 * n_players})', or a rule "
        f"with few evaluations, such as credit='loo' ({n_players + 1}) or credit='standalone' ({n_players})"
    )
