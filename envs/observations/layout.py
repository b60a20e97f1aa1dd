"""What a proxy observes, name by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from ..scenario import Scenario

BOUND = 10.0
"""Observations are clipped to [−BOUND, BOUND]."""

_LOT_FEATURES = (
    ("loss", "the shared model's mean cross-entropy on the lot, nats"),
    ("excess_loss", "that minus its mean cross-entropy on the validation set, nats"),
    ("norm", "log of the update's norm over the mean norm of everybody's updates"),
    ("cosine", "cosine of the update with the last applied step"),
    ("own_admissible", "whether the update is admissible to the proxy's own principal"),
    ("last_contributed", "whether the lot was contributed last round"),
    ("last_admitted", "whether it was contributed and admitted last round"),
    ("acceptance", "share of its contributions that were admitted, (admitted + ½) / (contributed + 1)"),
    (
        "credit",
        "running mean of its credit, in reward units per lot; under rules that cannot tell, admitted lots have equal parts",
    ),
)
_AGENT_FEATURES = (
    ("time", "t/T"),
    ("utility", "the shared model's utility: nats, or share right"),
    ("utility_change", "its last change, in reward units per agent"),
    ("admitted_share", "share of all contributed updates that were admitted last round"),
    ("last_credit", "the proxy's last credit, in reward units"),
    ("payout_share", "the proxy's share of all positive cumulative credit; of money paid_share tells, where there is any"),
    ("cost", "the proxy's costs so far over the most it could spend in an episode"),
    ("participation", "share of its lots that the proxy contributed last round"),
)
_MONEY_FEATURES = (
    ("paid_share", "the proxy's share of all that was paid so far, an equal one before"),
    ("last_payout", "what the last settlement paid it, in reward units for each round of a period"),
    ("waiting", "revenue that is not settled yet, in reward units per agent for each round of a period"),
    ("until_settlement", "rounds until the next settlement, over those of a period"),
)


@dataclass(frozen=True)
class ObservationLayout:
    """Where everything is in an observation: K blocks of lot features, then the agent's features.

    Attributes:
        n_lots: Lots K.
        values: Names of the values.
        settles: Whether agents are rewarded by settlements, of which their features then tell.
        lot_features: Names within a lot's block.
        agent_features: Names within the agent's block.
    """

    n_lots: int
    values: tuple[str, ...]
    settles: bool = False

    @classmethod
    def of(cls, scenario: Scenario) -> ObservationLayout:
        """The layout of a scenario's observations."""
        terms = scenario.settlement
        return cls(scenario.lots.per_principal, tuple(scenario.values), terms is not None and terms.reward == "settlement")

    @cached_property
    def lot_features(self) -> tuple[str, ...]:
        """Names within a lot's block; ``harm/<value>`` is harm over the own (else the strictest) tolerance, clipped to ±3."""
        return (*(name for name, _ in _LOT_FEATURES), *(f"harm/{value}" for value in self.values))

    @cached_property
    def agent_features(self) -> tuple[str, ...]:
        """Names within the agent's block; ``value_loss/<value>`` in its unit, ``holds/<value>`` whether the own profile names it."""
        return (
            *(name for name, _ in _AGENT_FEATURES),
            *(f"value_loss/{value}" for value in self.values),
            *(f"holds/{value}" for value in self.values),
            *(name for name, _ in _MONEY_FEATURES if self.settles),
        )

    @cached_property
    def size(self) -> int:
        """Length of an observation."""
        return self.n_lots * len(self.lot_features) + len(self.agent_features)

    @property
    def slices(self) -> dict[str, slice]:
        """Every name's place: ``lot_0/loss`` … ``agent/time`` …."""
        names = [f"lot_{k}/{name}" for k in range(self.n_lots) for name in self.lot_features]
        names += [f"agent/{name}" for name in self.agent_features]
        return {name: slice(i, i + 1) for i, name in enumerate(names)}

    @property
    def sizes(self) -> dict[str, int]:
        """How many features there are, as :class:`~proxycoop.agents.LotNetwork` takes it."""
        return {"n_lot_features": len(self.lot_features), "n_agent_features": len(self.agent_features)}

    def describe(self) -> dict[str, str]:
        """What each feature means, by its name within its block."""
        meaning = dict(_LOT_FEATURES) | dict(_AGENT_FEATURES) | (dict(_MONEY_FEATURES) if self.settles else {})
        for value in self.values:
            meaning[f"harm/{value}"] = (
                f"predicted harm of the update to {value} over the own (else the strictest, else a unit's) tolerance, within ±3"
            )
            meaning[f"value_loss/{value}"] = f"value loss of {value}"
            meaning[f"holds/{value}"] = f"whether the own profile names {value}"
        return meaning

    def split(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Take observations apart: ``(..., size)`` → lots ``(..., K, n_lot_features)``, agent ``(..., n_agent_features)``."""
        cut = self.n_lots * len(self.lot_features)
        lots = observations[..., :cut].unflatten(-1, (self.n_lots, len(self.lot_features)))
        return lots, observations[..., cut:]

    def lot(self, observations: Tensor, name: str) -> Tensor:
        """One feature of every lot, ``(..., size)`` → ``(..., K)``."""
        return self.split(observations)[0][..., self.lot_features.index(name)]

    def agent(self, observations: Tensor, name: str) -> Tensor:
        """One feature of the agent, ``(..., size)`` → ``(...)``."""
        return self.split(observations)[1][..., self.agent_features.index(name)]

    def join(self, lots: Sequence[Tensor], agent: Sequence[Tensor | float], shape: tuple[int, int]) -> Tensor:
        """Put observations together, in the order of the names.

        Args:
            lots: One ``(E, N, K)`` a lot feature, of any type.
            agent: One ``(E, N)`` an agent feature, or what broadcasts to it.
            shape: E and N.

        Returns:
            float32 ``(E, N, size)``, within ±:data:`BOUND`, never NaN.
        """
        assert len(lots) == len(self.lot_features)
        assert len(agent) == len(self.agent_features)
        joined = torch.empty(*shape, self.size, device=lots[0].device)
        in_lots, in_agent = self.split(joined)  # views
        for j, of_lots in enumerate(lots):
            in_lots[..., j] = of_lots
        for j, of_agent in enumerate(agent):
            in_agent[..., j] = of_agent
        return joined.nan_to_num_(0.0, BOUND, -BOUND).clamp_(-BOUND, BOUND)
