"""The layout of an observation: the name, place and meaning of every feature."""

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
    ("excess_loss", "that loss minus the mean cross-entropy on the validation set, nats"),
    ("norm", "log of the update's norm over the mean norm of all updates; norms that rounding hides count as the least that it does not"),
    ("cosine", "cosine of the update with the last applied step; near 0 if rounding hides one of them"),
    ("own_admissible", "whether the update is admissible to the proxy's own principal"),
    ("last_contributed", "whether the lot was contributed last round"),
    ("last_admitted", "whether the lot was contributed and admitted last round"),
    ("acceptance", "share of the lot's contributions that were admitted, (admitted + ½) / (contributed + 1)"),
    (
        "credit",
        "mean credit per contribution of the lot, reward units; a rule that does not credit single lots counts as crediting admitted lots "
        "equally",
    ),
)
_AGENT_FEATURES = (
    ("time", "rounds played over the horizon, t/T"),
    ("utility", "the shared model's utility: nats, or share correct"),
    ("utility_change", "the utility's change in the last round, in reward units per agent"),
    ("admitted_share", "share of all contributed updates that were admitted last round"),
    ("last_credit", "the proxy's last credit, in reward units"),
    (
        "payout_share",
        "the proxy's share of all cumulative positive credit, 1/N until that is more than rounding (its share of money, where there is "
        "any, is paid_share)",
    ),
    ("cost", "the proxy's costs so far over the largest costs possible in an episode"),
    ("participation", "share of the proxy's lots that it contributed last round"),
)
_MARGINAL_GAIN = (
    "marginal_gain",
    "what the lot would add to the round if all others were contributed as in the last one, measured, reward units; 0 if it would be "
    "screened out",
)
"""A lot's last feature, where the scenario says ``observations.marginal_gains``."""
_MONEY_FEATURES = (
    ("paid_share", "the proxy's share of all money paid so far; 1/N before the first payment"),
    ("last_payout", "what the last settlement paid the proxy, in reward units per round of a period"),
    ("waiting", "revenue that is not settled yet, in reward units per agent and round of a period"),
    ("until_settlement", "rounds until the next settlement over the rounds of a period"),
)


@dataclass(frozen=True)
class ObservationLayout:
    """The layout of an observation: K blocks of lot features, then the agent's features.

    Forgeries and levers have blocks of the same features, after those of the lots. What does not apply to them is 0.

    Attributes:
        n_lots: Number of lots K.
        values: Names of the values.
        settles: Whether agents are rewarded by settlements. If so, there are features about money.
        limited: Names of the values that have limits for the episode. There is a feature about what is left of each.
        informed: Whether proxies see their lots' marginal gains.
        items: Names of what a proxy may choose beside its lots. There is a block for each, after those of the lots.
        made_of: Of each of these the lot that it is made of; ``None`` for what is made of no lot.
        lot_features: Names within a lot's block.
        agent_features: Names within the agent's block.
    """

    n_lots: int
    values: tuple[str, ...]
    settles: bool = False
    limited: tuple[str, ...] = ()
    informed: bool = False
    items: tuple[str, ...] = ()
    made_of: tuple[int | None, ...] = ()

    @classmethod
    def of(cls, scenario: Scenario) -> ObservationLayout:
        """The layout of a scenario's observations."""
        terms = scenario.settlement
        settles = terms is not None and terms.reward == "settlement"
        items, made_of = ((), ()) if scenario.conduct is None else (scenario.conduct.names, scenario.conduct.made_of)
        informed = scenario.observations.marginal_gains
        return cls(scenario.lots.per_principal, tuple(scenario.values), settles, scenario.limited, informed, items, made_of)

    @property
    def n_items(self) -> int:
        """Number of blocks: one for each lot, forgery and lever."""
        return self.n_lots + len(self.items)

    @cached_property
    def lot_features(self) -> tuple[str, ...]:
        """Names within a lot's block. ``harm/<value>`` is the harm over the own tolerance (else the strictest one), clipped to ±3.

        ``is/<item>`` says of which kind a block is, where there are others than lots.
        """
        told = (_MARGINAL_GAIN[0],) if self.informed else ()
        kinds = tuple(f"is/{item}" for item in ("lot", *self.items)) if self.items else ()
        return (*(name for name, _ in _LOT_FEATURES), *(f"harm/{value}" for value in self.values), *told, *kinds)

    @cached_property
    def agent_features(self) -> tuple[str, ...]:
        """Names within the agent's block.

        ``holds/<value>`` says whether the own profile names the value; ``left/<value>`` what is left of its limit.
        """
        return (
            *(name for name, _ in _AGENT_FEATURES),
            *(f"value_loss/{value}" for value in self.values),
            *(f"holds/{value}" for value in self.values),
            *(f"left/{value}" for value in self.limited),
            *(name for name, _ in _MONEY_FEATURES if self.settles),
        )

    @cached_property
    def size(self) -> int:
        """Length of an observation."""
        return self.n_items * len(self.lot_features) + len(self.agent_features)

    @property
    def slices(self) -> dict[str, slice]:
        """The place of every feature, by name: ``lot_0/loss``, …, ``agent/time``, …."""
        blocks = [*(f"lot_{k}" for k in range(self.n_lots)), *self.items]
        names = [f"{block}/{name}" for block in blocks for name in self.lot_features]
        names += [f"agent/{name}" for name in self.agent_features]
        return {name: slice(i, i + 1) for i, name in enumerate(names)}

    @property
    def sizes(self) -> dict[str, int]:
        """Numbers of features, as arguments of :class:`~proxycoop.agents.LotNetwork`."""
        return {"n_lot_features": len(self.lot_features), "n_agent_features": len(self.agent_features)}

    def differences(self, here: ObservationLayout) -> list[str]:
        """In what another layout differs, for messages; empty if observations and actions mean the same in both.

        Args:
            here: The other layout, that of the scenario at hand. This one is what a policy was made for.
        """
        found = [f"it has {self.n_lots} lots, here are {here.n_lots}"] if self.n_lots != here.n_lots else []
        if self.items != here.items:
            has, there = (", ".join(layout.items) or "none" for layout in (self, here))
            found.append(f"beside its lots it has {has}, here: {there}")
        elif self.made_of != here.made_of:
            found.append(f"its forgeries are made of lots {list(self.made_of)}, here: {list(here.made_of)}")
        for part, names, others in (("lot", self.lot_features, here.lot_features), ("agent", self.agent_features, here.agent_features)):
            if difference := features_differ(names, others):
                found.append(f"of the {part} features {difference}")
        return found

    def describe(self) -> dict[str, str]:
        """The meaning of each feature, by its name within its block."""
        meaning = dict(_LOT_FEATURES) | dict(_AGENT_FEATURES) | (dict(_MONEY_FEATURES) if self.settles else {})
        meaning |= dict([_MARGINAL_GAIN]) if self.informed else {}
        meaning |= {f"is/{item}": f"whether the block is that of {item}" for item in self.items}
        meaning |= {"is/lot": "whether the block is that of a lot"} if self.items else {}
        for value in self.values:
            meaning[f"harm/{value}"] = (
                f"predicted harm of the update to {value} over the own tolerance (else the strictest one, else 1), clipped to ±3"
            )
            meaning[f"value_loss/{value}"] = f"value loss of {value}"
            meaning[f"holds/{value}"] = f"whether the own profile names {value}"
        for value in self.limited:
            meaning[f"left/{value}"] = (
                f"what is left of the own limit on {value} (else of the strictest one), as a share of it; below 0 beyond it"
            )
        return meaning

    def split(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Split observations: ``(..., size)`` → items ``(..., I, n_lot_features)``, lots first; agent ``(..., n_agent_features)``."""
        cut = self.n_items * len(self.lot_features)
        items = observations[..., :cut].unflatten(-1, (self.n_items, len(self.lot_features)))
        return items, observations[..., cut:]

    def lot(self, observations: Tensor, name: str) -> Tensor:
        """One feature of every lot, ``(..., size)`` → ``(..., K)``."""
        return self.item(observations, name)[..., : self.n_lots]

    def item(self, observations: Tensor, name: str) -> Tensor:
        """One feature of every lot, forgery and lever, ``(..., size)`` → ``(..., I)``."""
        return self.split(observations)[0][..., self.lot_features.index(name)]

    def agent(self, observations: Tensor, name: str) -> Tensor:
        """One feature of the agent, ``(..., size)`` → ``(...)``."""
        return self.split(observations)[1][..., self.agent_features.index(name)]

    def join(self, lots: Sequence[Tensor], agent: Sequence[Tensor], shape: tuple[int, int]) -> Tensor:
        """Join features into observations, in the order of the names.

        Args:
            lots: The lots' features, some in each tensor ``(E, N, K, ...)`` of any dtype.
            agent: The agent's features, some in each tensor ``(E, N, ...)``, or with 1 in place of E or N.
            shape: E and N.

        Returns:
            float32 ``(E, N, size)``, within ±:data:`BOUND`, never NaN.
        """
        of_lots = torch.cat(list(lots), dim=-1)
        assert of_lots.shape[-1] == len(self.lot_features)
        joined = torch.cat([of_lots.flatten(2), *(some if some.shape[:2] == shape else some.expand(*shape, -1) for some in agent)], dim=-1)
        joined = joined.float()
        assert joined.shape[-1] == self.size
        return joined.nan_to_num_(0.0, BOUND, -BOUND).clamp_(-BOUND, BOUND)


def features_differ(names: Sequence[str], here: Sequence[str]) -> str:
    """In what two lists of features differ, in words; empty if they are the same. Their order counts.

    Args:
        names: What a policy reads.
        here: What the scenario at hand has.
    """
    lacking, unknown = [name for name in names if name not in here], [name for name in here if name not in names]
    said = [f"it reads {', '.join(lacking)}"] if lacking else []
    said += [f"here {'is' if len(unknown) == 1 else 'are'} {', '.join(unknown)}"] if unknown else []
    if not said and list(names) != list(here):
        place = next(i for i, (name, other) in enumerate(zip(names, here, strict=False)) if name != other)
        said = [f"it reads {names[place]} at place {place}, where {here[place]} is here"]
    return ", ".join(said)
