"""Under which names principals take part, where one may have several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .lots import DrawnLots


@dataclass(frozen=True)
class Names:
    """The seats of a cooperative in which a principal may sit under several names.

    Every name acts for one principal: it has that principal's value profile, and offers some of that principal's lots. Nobody in the
    cooperative knows which names belong together, so each counts as a member of its own: for the credit rule, for the screening, and in the
    data that the members report. A lot that two names offer is counted twice. Stakes alone are no more than they were: the names of a
    principal share its stake equally.

    Attributes:
        owner: The principal behind each name, one entry a seat.
        holds: Which of its principal's lots each name offers, bool, one row a seat with K entries.
    """

    owner: tuple[int, ...]
    holds: tuple[tuple[bool, ...], ...]

    def __post_init__(self) -> None:
        if not self.owner or len(self.owner) != len(self.holds) or len({len(row) for row in self.holds}) != 1:
            raise ValueError(f"owner={self.owner}, holds={self.holds}: each name needs a principal, and a row with one entry a lot")
        if not all(any(row) for row in self.holds):
            raise ValueError(f"holds={self.holds}: each name must offer at least one lot")

    @classmethod
    def of(cls, n_principals: int, n_lots: int, several: Sequence[tuple[int, int, bool]]) -> Names:
        """Some principals take part under several names each, and the others under one.

        A principal's own name stays where it is. Its other names come after those of all principals, in the order of ``several``.

        Args:
            n_principals: Number of principals N.
            n_lots: Number of lots K of each.
            several: For each principal with several names: which one, how many names k it has, and whether every name offers all its lots.
                If not, its lots are dealt out: its own name offers the first of them, the next name the following ones, and so on, as
                equally many as possible.

        Raises:
            ValueError: If a principal does not exist or is named twice, has fewer than two names, or has fewer lots to deal out than names.
        """
        owner, holds = list(range(n_principals)), [(True,) * n_lots] * n_principals
        for place, (principal, n_names, copied) in enumerate(several):
            if principal not in range(n_principals):
                raise ValueError(f"principal={principal}: principals go from 0 to {n_principals - 1}")
            if principal in [one for one, _, _ in several[:place]]:
                raise ValueError(f"principal={principal} is there twice: give all its names at once")
            if n_names < 2:
                raise ValueError(f"n_names={n_names}: must be at least 2")
            if not copied and n_names > n_lots:
                raise ValueError(f"n_lots={n_lots}: {_counted(n_lots)} cannot be split between {n_names} names")
            size, larger = divmod(n_lots, n_names)
            ends = [(name + 1) * size + min(name + 1, larger) for name in range(n_names)]
            dealt = [tuple(start <= k < end for k in range(n_lots)) for start, end in zip([0, *ends], ends, strict=False)]
            holds[principal], *others = [(True,) * n_lots] * n_names if copied else dealt
            owner += [principal] * len(others)
            holds += others
        return cls(tuple(owner), tuple(holds))

    @classmethod
    def split(cls, n_principals: int, n_lots: int, principal: int = 0) -> Names:
        """A principal offers the first half of its lots under its own name, and the others under a second name, which comes last.

        Raises:
            ValueError: If there is only one lot, or no such principal.
        """
        return cls.of(n_principals, n_lots, [(principal, 2, False)])

    @classmethod
    def copied(cls, n_principals: int, n_lots: int, principal: int = 0) -> Names:
        """A principal offers all its lots under its own name, and the same lots once more under a second name, which comes last.

        Raises:
            ValueError: If there is no such principal.
        """
        return cls.of(n_principals, n_lots, [(principal, 2, True)])

    def check(self, n_principals: int, n_lots: int) -> None:
        """Refuse a cooperative of other principals or lots.

        Raises:
            ValueError: If a name's principal does not exist, or the principals have another number of lots.
        """
        if not set(self.owner) <= set(range(n_principals)):
            raise ValueError(f"owner={self.owner}: principals go from 0 to {n_principals - 1}")
        if len(self.holds[0]) != n_lots:
            raise ValueError(f"holds has {len(self.holds[0])} entries a name, but principals have {n_lots} lots")

    def names_of(self, principal: int) -> list[int]:
        """The seats in which a principal sits."""
        return [seat for seat, owner in enumerate(self.owner) if owner == principal]

    def lots(self, drawn: DrawnLots) -> DrawnLots:
        """What the names offer of the principals' lots; a lot that a name does not offer has no rows."""
        return drawn.seated(self.owner).only(self._held(drawn.samples.device))

    def choices(self, chosen: Tensor) -> Tensor:
        """What the names choose if the principals choose these items, bool ``(…, N, I)``: bool ``(…, n_names, I)``.

        What is no lot, such as a forged update, is chosen by a principal's first name alone.
        """
        first = torch.tensor([seat == self.owner.index(owner) for seat, owner in enumerate(self.owner)])
        held = self._held(chosen.device)
        others = first.to(chosen.device)[:, None].expand(-1, chosen.shape[-1] - held.shape[-1])
        return chosen[..., list(self.owner), :] & torch.cat([held, others], dim=-1)

    def _held(self, device: torch.device) -> Tensor:
        return torch.tensor(self.holds, device=device)


def _counted(n_lots: int) -> str:
    return "one lot" if n_lots == 1 else f"{n_lots} lots"
