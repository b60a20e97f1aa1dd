"""The base of scripted adversaries: proxies that follow a fixed dishonest plan."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from ...envs.conduct.settings import LEVERS, kind_of
from ...envs.observations.layout import ObservationLayout
from ...envs.scenario import Scenario
from ..agent import Agent
from ..scripted import Honest

Beside = Literal["honest", "nothing"]
"""Which of its lots an adversary contributes beside what it forges: those of ``honest``, or none."""


class Adversary(Agent):
    """A scripted proxy that cheats in one way. Its honest self is ``honest``: the cheat is what the two differ in.

    A subclass names the forgeries and levers that it uses in :attr:`kinds`. The scenario must have at least one of them (``conduct:``).

    Args:
        beside: Which of its lots it contributes: ``"honest"``, those that its honest self would, or ``"nothing"``.

    Raises:
        ValueError: If ``beside`` is neither.
    """

    made_for = "any"

    kinds: ClassVar[tuple[str, ...]] = ()
    """Kinds of the forgeries and levers that it uses."""
    knows: ClassVar[str] = "what a proxy observes"
    """What it may know, in words."""
    by_default: ClassVar[Beside] = "honest"
    """What it contributes beside, unless it is told."""

    def __init__(self, beside: Beside | None = None) -> None:
        if beside not in (None, "honest", "nothing"):
            raise ValueError(f"beside={beside!r}: must be 'honest' or 'nothing'")
        self.beside: Beside = self.by_default if beside is None else beside
        self.honest = Honest()

    @classmethod
    def lacks(cls, scenario: Scenario) -> str:
        """What the scenario lacks for it to play, as a sentence with the remedy; empty if nothing."""
        return cls._lacks_items(ObservationLayout.of(scenario).items)

    @classmethod
    def _lacks_items(cls, items: tuple[str, ...]) -> str:
        if not cls.kinds or any(kind_of(item) in cls.kinds for item in items):
            return ""
        where = "forgeries" if cls.kinds[0] not in LEVERS else "levers"
        return (
            f"agent {cls.__name__} needs {' or '.join(cls.kinds)} among the scenario's conduct, which has {', '.join(items) or 'nothing'}: "
            f"add conduct: {{{where}: [{{kind: {cls.kinds[0]}}}]}}"
        )

    def check_layout(self, layout: ObservationLayout) -> None:
        """Refuse a scenario in which there is nothing that it could cheat with.

        Raises:
            ValueError: If so. The message says what to add to the scenario.
        """
        if lacking := self._lacks_items(layout.items):
            raise ValueError(lacking)

    def begin(self, layout: ObservationLayout, keys: Tensor) -> None:
        """Begin an episode, for the honest self as well."""
        super().begin(layout, keys)
        self.honest.begin(layout, keys)

    def choose(self, observations: Tensor) -> Tensor:
        """The lots of the honest self, or none, and what the cheat adds, bool ``(E, N, I)``."""
        self.observed = observations
        lots = self.honest.act(observations)[..., : self.layout.n_lots]
        return torch.cat(self.cheat(lots if self.beside == "honest" else torch.zeros_like(lots), lots), dim=-1)

    def cheat(self, lots: Tensor, honest: Tensor) -> tuple[Tensor, Tensor]:
        """The lots that are contributed, bool ``(E, N, K)``, and the items beside them, bool ``(E, N, I − K)``.

        Args:
            lots: What would be contributed without the cheat, by ``beside``.
            honest: What the honest self would contribute.
        """
        del honest
        return lots, self.every(lots, self.kinds)

    def every(self, lots: Tensor, kinds: tuple[str, ...]) -> Tensor:
        """All items of some kinds, bool ``(E, N, I − K)``."""
        chosen = torch.tensor([kind_of(item) in kinds for item in self.layout.items], dtype=torch.bool, device=lots.device)
        return chosen.expand(*lots.shape[:2], -1)

    def made_of(self, lots: Tensor, kinds: tuple[str, ...]) -> Tensor:
        """The items of some kinds that are made of lots in a set, bool ``(E, N, K)`` → ``(E, N, I − K)``."""
        chosen = torch.zeros(*lots.shape[:2], len(self.layout.items), dtype=torch.bool, device=lots.device)
        for place, (item, lot) in enumerate(zip(self.layout.items, self.layout.made_of, strict=True)):
            if lot is not None and kind_of(item) in kinds:
                chosen[..., place] = lots[..., lot]
        return chosen

    def lots_of(self, items: Tensor, like: Tensor) -> Tensor:
        """Which lots some items are made of, bool ``(E, N, I − K)`` → ``(E, N, K)``, of the shape of another set of lots."""
        of = torch.zeros_like(like)
        for place, lot in enumerate(self.layout.made_of):
            if lot is not None:
                of[..., lot] |= items[..., place]
        return of
