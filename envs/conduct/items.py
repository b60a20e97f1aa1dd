"""The items of a proxy: its lots, its forgeries and its levers, each with a choice every round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..data.lots import DrawnLots
from .forging import Sent
from .settings import Bid, Claim, Conduct, Lax, OfALot, Strict

_NO_TAG = -1


@dataclass(frozen=True)
class Standing:
    """What the choices so far have done to the cooperative.

    Attributes:
        declared: By how much the tolerances that each agent declares differ from its principal's, as a factor, ``(E, N)``.
        gone: Who has left, bool ``(E, N)``.
        sent: What earlier rounds leave for forgeries.
        taken: How many places each agent had so far, where there is room for only some, int64 ``(E, N)``.
    """

    declared: Tensor
    gone: Tensor
    sent: Sent
    taken: Tensor

    @classmethod
    def start(cls, theta: Tensor, n_agents: int) -> Standing:
        """Where an episode begins, with the shared parameters ``(E, P)``."""
        ones = theta.new_ones(len(theta), n_agents)
        none = torch.zeros_like(ones, dtype=torch.int64)
        return cls(ones, torch.zeros_like(ones, dtype=torch.bool), Sent.none(theta, n_agents), none)


class Items:
    """The items of every proxy of a cooperative, in order: K lots, F forgeries, L levers. The first U = K + F send updates.

    Attributes:
        conduct: The settings.
        n_lots: Number of lots K.
        n_updates: Number of items that send an update, U.
        names: Names of the forgeries and the levers.

    Args:
        conduct: What proxies may do; ``None`` for lots alone.
        n_lots: Number of lots K of each proxy.
    """

    def __init__(self, conduct: Conduct | None, n_lots: int) -> None:
        self.conduct = conduct or Conduct()
        self.n_lots = n_lots
        self.n_updates = n_lots + len(self.conduct.forgeries)
        self.names = self.conduct.names

    def __len__(self) -> int:
        return self.n_lots + len(self.names)

    def __bool__(self) -> bool:
        """Whether there is anything beside lots."""
        return bool(self.names)

    @property
    def n_levers(self) -> int:
        """Number of levers L."""
        return len(self.conduct.levers)

    def tags(self, lots: DrawnLots) -> Tensor:
        """Provenance of every update, int64 ``(E, N, U)``. Made of a lot, it is that lot's; else −1, which nobody forbids."""
        if not self.conduct.forgeries:
            return lots.tags
        none = torch.full_like(lots.tags[..., 0], _NO_TAG)
        return torch.cat(
            [lots.tags, *(lots.tags[..., f.of, None] if isinstance(f, OfALot) else none[..., None] for f in self.conduct.forgeries)], dim=-1
        )

    def samples(self, lots: DrawnLots) -> Tensor:
        """Rows that every update claims, int64 ``(N, U)``: the lots' own, and of forged ones those of the proxy's mean lot, rounded."""
        if not self.conduct.forgeries:
            return lots.samples
        n_held = (lots.samples > 0).sum(dim=1, keepdim=True).clamp(min=1)
        mean = (lots.samples.sum(dim=1, keepdim=True) / n_held).round().to(lots.samples)
        return torch.cat([lots.samples, mean.expand(-1, len(self.conduct.forgeries))], dim=1)

    @cached_property
    def costs(self) -> tuple[float, ...]:
        """What each item costs in a round in which it is chosen, as shares of ``reward.contribution_cost``."""
        return (1.0,) * self.n_lots + self.conduct.costs

    def claims(self, pulled: Tensor) -> Tensor:
        """By how much each agent multiplies the rows that it claims, ``(E, N)``, from the levers pulled, bool ``(E, N, L)``."""
        return self._factor(pulled, (Claim,))

    def declared(self, pulled: Tensor) -> Tensor:
        """By how much each agent multiplies its principal's tolerances in the next round, ``(…, E, N)``, from ``(…, E, N, L)``."""
        return self._factor(pulled, (Strict, Lax))

    def bids(self, pulled: Tensor) -> Tensor:
        """What each agent bids for all that it contributes, ``(E, N)``, in reward units: what its bids come to together."""
        amounts = [lever.amount if isinstance(lever, Bid) else 0.0 for lever in self.conduct.levers]
        return pulled.double() @ torch.tensor(amounts, dtype=torch.float64).to(pulled.device)

    def who(self, pulled: Tensor, kind: str) -> Tensor | None:
        """Who pulls the lever of a kind, bool ``(E, N)``; ``None`` if there is none."""
        kinds = [lever.kind for lever in self.conduct.levers]
        return pulled[..., kinds.index(kind)] if kind in kinds else None

    def fellows(self, n_agents: int, like: Tensor) -> Tensor:
        """Who belongs together, bool ``(N, N)``: each agent to itself, and the members of a cabal to each other; like another."""
        member = torch.zeros(n_agents, dtype=torch.bool)
        member[list(self.conduct.cabal)] = True
        return (torch.eye(n_agents, dtype=torch.bool) | (member[:, None] & member)).to(like.device)

    def pullable(self, gone: Tensor, tolerates: Tensor) -> Tensor:
        """Which levers do anything, bool ``(E, N, L)``.

        Args:
            gone: Who has left, bool ``(E, N)``.
            tolerates: Whose principal has a tolerance to declare, bool ``(E, N)``.
        """
        in_cabal = torch.zeros(gone.shape[1], dtype=torch.bool)
        in_cabal[list(self.conduct.cabal)] = True
        in_cabal = in_cabal.to(gone.device).expand_as(gone)
        may: dict[str, Tensor] = {"strict": tolerates, "lax": tolerates, "vouch": in_cabal}
        can = [~gone & may[lever.kind] if lever.kind in may else ~gone for lever in self.conduct.levers]
        return torch.stack(can, dim=-1) if can else gone[..., None][..., :0]

    def may(self, tolerates: Tensor) -> Tensor:
        """Who may choose what beside its lots while nobody has left, bool ``(E, N, F + L)``; see :meth:`pullable`."""
        levers = self.pullable(torch.zeros_like(tolerates), tolerates)
        forgeries = levers.new_ones(*tolerates.shape, self.n_updates - self.n_lots)
        return torch.cat([forgeries, levers], dim=-1)

    def one_hot(self, like: Tensor) -> Tensor:
        """Of which kind each item is: a lot, or one of the others by its name, ``(I, 1 + F + L)``, of the type of another tensor."""
        place = [0] * self.n_lots + list(range(1, len(self.names) + 1))
        return torch.eye(len(self.names) + 1)[place].to(like)

    def padded(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """Features of the updates, ``(E, N, U, ·)`` each, with zeros for the levers: ``(E, N, I, ·)``."""
        return [torch.cat([part, part.new_zeros(*part.shape[:2], self.n_levers, *part.shape[3:])], dim=2) for part in parts]

    def whole(self, choices: Tensor) -> Tensor:
        """Choices of the first items, bool ``(..., n)``, with nothing of the others: ``(..., I)``."""
        return pad(choices, (0, len(self) - choices.shape[-1]))

    def lots(self, of_updates: Tensor) -> Tensor:
        """What updates there are of lots alone, bool ``(E, N, U)``, as choices ``(E, N, I)``."""
        return self.whole(of_updates[..., : self.n_lots])

    def _factor(self, pulled: Tensor, kinds: tuple[type[Claim] | type[Strict] | type[Lax], ...]) -> Tensor:
        found = pulled.new_ones(pulled.shape[:-1], dtype=torch.float64)
        for at, lever in enumerate(self.conduct.levers):
            if isinstance(lever, kinds):
                found = torch.where(pulled[..., at], lever.factor * found, found)
        return found
