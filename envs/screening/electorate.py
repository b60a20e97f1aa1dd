"""Who judges where only some of the agents are present: all principals, told apart by the profile that they hold.

The absent keep their say. Principals with the same profile have the same verdict on an update, so each profile judges once, and counts as
often as it is held. So the verdicts of thousands of principals take as much memory as those of a few.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .profiles import Profile, Profiles, ProfileTable


@dataclass(frozen=True)
class Electorate:
    """The profiles that are in force, J of them: those of the scenario in their order, and last that of principals who have none.

    Attributes:
        profiles: The profiles, with an axis of J in place of that of principals.
        holders: How many principals hold each, int64 ``(J,)``.
        rows: Rows of data that the holders of each have together, ``(E, J)``.
        own: Which of them the agents hold that are present, int64 ``(E, m)``.
    """

    profiles: Profiles
    holders: Tensor
    rows: Tensor
    own: Tensor

    @classmethod
    def of(cls, table: ProfileTable, held: Tensor, rows: Tensor) -> Electorate:
        """The electorate of an episode, before anybody is present.

        Args:
            table: The profiles of ``kinds``.
            held: Index of the profile that each principal holds, int64 ``(E, N)``.
            rows: Rows of data that each principal has, ``(N,)``.
        """
        n_kinds = len(table.max_norm)
        by_kind = rows.new_zeros(len(held), n_kinds).scatter_add_(1, held, rows.expand(len(held), -1))
        return cls(table.deal(held[:, 0]), torch.bincount(held[0], minlength=n_kinds), by_kind, held[:, :0])

    def begun(self, start: Tensor) -> Electorate:
        """That of an episode that begins with these value losses, ``(E, M)``; see :meth:`~.profiles.Profiles.begun`."""
        return replace(self, profiles=self.profiles.begun(start))

    def with_present(self, own: Tensor) -> Electorate:
        """The same, for a round in which the agents present hold these profiles, int64 ``(E, m)``."""
        return replace(self, own=own)

    def of_owner(self, by_kind: Tensor) -> Tensor:
        """What the agents present have by their own profile, ``(E, J, …)`` → ``(E, m, …)``."""
        return by_kind[torch.arange(len(by_kind), device=by_kind.device)[:, None], self.own]

    def own_verdict(self, verdicts: Tensor) -> Tensor:
        """The own profile's verdict on each update, ``(E, m, K, J)`` → ``(E, m, K)``."""
        which = self.own[:, :, None, None].expand(-1, -1, verdicts.shape[2], 1)
        return verdicts.gather(3, which)[..., 0]

    def of_those_present(self, verdicts: Tensor) -> Tensor:
        """The verdicts of those present on each other's updates, ``(E, m, K, J)`` → ``(E, m, K, m)``."""
        which = self.own[:, None, None].expand(*verdicts.shape[:3], -1)
        return verdicts.gather(3, which)


def kinds(profiles: Sequence[Profile]) -> list[Profile]:
    """The profiles as an electorate has them: each once, and last that of principals who have none."""
    return [*(profile.model_copy(update={"holders": 1}) for profile in profiles), Profile()]
