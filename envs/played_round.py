"""A round as it was played: what credit rules may ask of it, each answer computed when a rule asks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor

from ..credit import LotGame, Round
from .data.lots import DrawnLots
from .model.coalitions import RoundStep, UtilityGame
from .model.peers import peer_gains
from .model.surrogates import surrogate_of
from .model.utility import HeldOutUtility
from .participation import Attendance
from .records import Prospect
from .screening.verdicts import Screening, let_through


@dataclass(frozen=True)
class PlayedRound:
    """A round between aggregation and credit.

    Its methods are what :class:`~proxycoop.credit.Round` hands to rules. It holds data alone, so that it pickles and a rule may ask later.

    Attributes:
        t: Index of the round within its episode, from 0.
        episode: Index of the episode among those of its seeds.
        before: What stood before the proxies.
        lots: Whose data the updates come from.
        contributed: bool ``(E, N, K)``.
        admitted: bool ``(E, N, K)``.
        candidates: The lots that would have been admitted if contributed, bool ``(E, N, K)``.
        aggregate: The step that was applied, and how any coalition's step would have been made.
        utility: What the cooperative wants to raise.
        screening: The scenario's.
        who: Who is present, where only some agents are. N then counts these alone, and everything is theirs.
    """

    t: int
    episode: int
    before: Prospect
    lots: DrawnLots
    contributed: Tensor
    admitted: Tensor
    candidates: Tensor
    aggregate: RoundStep
    utility: HeldOutUtility
    screening: Screening
    who: Attendance | None = None

    def as_round(self) -> Round:
        """The round as credit rules see it."""
        played = self._game_of(self.aggregate)
        return Round(
            played.game(partial(surrogate_of, played)),
            contributed=self.contributed,
            admitted=self.admitted,
            blocked_by=self.before.verdicts.blocked_by_those_present,
            samples=self.lots.samples if self.before.claimed is None else self.before.claimed,
            updates=self.aggregate.applied_updates,
            utility_gradient=self.utility_gradient,
            t=self.t,
            episode=self.episode,
            lots=LotGame(self.value_of_lots, self.candidates),
            lot_updates=self.lot_updates,
            screening=self.let_through,
            utility_curvature=self.utility_curvature,
            utility_expansion=self.utility_expansion,
            peer_gains=self.peer_gains,
            class_head=self.utility.model.class_head,
            forged=self.forged,
            sent=self.sent,
            agents=self.who.agents if self._some_are_absent and self.who is not None else None,
            n_members=None if self.who is None else self.who.n_agents,
        )

    @property
    def _some_are_absent(self) -> bool:
        return self.who is not None and self.who.agents.shape[1] < self.who.n_agents

    def sent(self) -> Tensor:
        """Each agent's admitted updates, summed with their lots' shares of all data, ``(E, N, P)``."""
        return self.aggregate.updates

    @property
    def forged(self) -> Tensor:
        """Which updates no data is behind, bool ``(E, N, U)``: all that come after the lots'."""
        forged = torch.zeros_like(self.contributed)
        forged[..., self.lots.tags.shape[-1] :] = True
        return forged

    def utility_gradient(self) -> Tensor:
        """∇U where the round's game starts, ``(E, P)``."""
        return self.utility.gradient(self.aggregate.start)

    def utility_curvature(self, direction: Tensor) -> Tensor:
        """The Hessian of U at the same parameters times a direction, ``(E, P)`` → ``(E, P)``."""
        return self.utility.curvature(self.aggregate.start, direction)

    def utility_expansion(self, direction: Tensor) -> tuple[Tensor, Tensor]:
        """Both, ``(E, P)`` each."""
        return self.utility.expansion(self.aggregate.start, direction)

    def value_of_lots(self, sets: Tensor) -> Tensor:
        """What sets of lots would have gained, bool ``(E, C, N, K)`` → ``(E, C)``."""
        return self._lot_game.value_of_lots(sets)

    def lot_updates(self) -> Tensor:
        """Each lot's part in the step, ``(E, N, K, P)``."""
        return self.aggregate.applied_lots(self.admitted * self.before.proposals.share, self.before.filtered.updates)

    def let_through(self, coalitions: Tensor) -> Tensor:
        """The lots that the members of coalitions ``(C, N)`` would let through if only they were there, bool ``(E, C, N, K)``."""
        return let_through(coalitions, self.before.verdicts, self.screening)

    def peer_gains(self) -> Tensor:
        """What agents say that they find when they try each other's updates on their own data, ``(E, N, N)``.

        Who vouches for its cabal says that its members' updates gained 1 nat, and that all others lost as much.
        """
        found = peer_gains(self.utility.model, self.lots, self.aggregate.start, self.aggregate.applied_updates())
        vouching, fellows = self.before.vouching, self.before.fellows
        if vouching is None or fellows is None:
            return found
        return torch.where(vouching[..., None], torch.where(fellows, 1.0, -1.0).to(found), found)

    @cached_property
    def _lot_game(self) -> UtilityGame:
        """The game among lots; its tables are made once, when a rule first asks."""
        return self._game_of(self.aggregate.of_lots(self.before.proposals.share, self.before.filtered.updates))

    def _game_of(self, aggregate: RoundStep) -> UtilityGame:
        return UtilityGame(aggregate, self.utility.name, self.utility.rows, self.before.log_share)
