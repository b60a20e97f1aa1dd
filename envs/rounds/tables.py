"""Rounds whose coalition game is known whole, as a table, before a credit rule asks."""

from __future__ import annotations

from dataclasses import dataclass, fields

from torch import Tensor

from ...credit import CoalitionGame, CreditRule, GameRule
from ...credit.games.game import SurrogateMaker
from ..compiled.assumptions import cautious
from ..model.coalitions import RoundStep, UtilityGame
from ..model.utility import HeldOutUtility
from ..played_round import PlayedRound

MOST_AGENTS = 10
"""Of larger games the table is long, and is made when a rule asks."""


def is_tabulated(rule: CreditRule | None, n_agents: int) -> bool:
    """Whether a rule asks for the worth of every coalition of so many agents."""
    return isinstance(rule, GameRule) and n_agents <= MOST_AGENTS and rule.cost(n_agents) >= 2**n_agents - 1


def worths(aggregate: RoundStep, utility: HeldOutUtility, log_share: Tensor) -> Tensor | None:
    """v of every coalition, ``(E, 2**N)``, in a function that is being traced.

    ``None`` for games that are not additive in the logits, and in the function's cautious form.
    """
    if cautious():  # some exponent is out of range
        return None
    game = UtilityGame(aggregate, utility.name, utility.rows, log_share)
    if not game.additive or aggregate.weights != "fixed":
        return None
    return game.logits.block(0, aggregate.updates.shape[1])


def tabulated(played: PlayedRound, table: Tensor) -> PlayedRound:
    """The same round, whose game need not be computed any more.

    Args:
        played: The round.
        table: v of every coalition, ``(E, 2**N)``.
    """
    return _Tabulated(**{field.name: getattr(played, field.name) for field in fields(PlayedRound)}, table=table)


@dataclass(frozen=True, kw_only=True)
class _Tabulated(PlayedRound):
    table: Tensor

    def _game_of(self, aggregate: RoundStep) -> UtilityGame:
        if aggregate is not self.aggregate:  # of lots
            return super()._game_of(aggregate)
        return _KnownGame(aggregate, self.utility, self.before.log_share, self.table)


class _KnownGame(UtilityGame):
    def __init__(self, aggregate: RoundStep, utility: HeldOutUtility, log_share: Tensor, table: Tensor) -> None:
        super().__init__(aggregate, utility.name, utility.rows, log_share)
        self._table = table

    def game(self, surrogate: SurrogateMaker | None = None) -> CoalitionGame:
        """The coalition game, as credit rules take it."""
        return CoalitionGame(self._values, self.round_step.updates.shape[1], value_block=self._block, surrogate=surrogate)

    def _block(self, first: int, n_low: int) -> Tensor:
        return self._table[:, first : first + 2**n_low]

    def _values(self, coalitions: Tensor) -> Tensor:
        return self.logits.values(coalitions)
