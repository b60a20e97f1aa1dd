"""Admission as data: how many places a round has, and which mechanism deals them out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field

from ...settings import Settings, kind_by_name, models_in
from .auction import Auction
from .equal_shares import EqualShares
from .lotteries import FairLottery, Lottery
from .orders import ByGain, Maximin, Turns
from .shareable import Shareable

_Any = Annotated[
    Lottery | ByGain | Turns | Maximin | EqualShares | FairLottery | Auction | Shareable,
    Field(discriminator="kind"),
]

MECHANISMS: tuple[str, ...] = tuple(str(one.model_fields["kind"].default) for one in models_in(_Any))
"""The kinds of mechanisms."""


def _with_a_kind(given: Any) -> Any:
    """Refuse what names no mechanism, in words of YAML."""
    if not isinstance(given, BaseModel) and not (isinstance(given, Mapping) and "kind" in given):
        raise ValueError(f"must be a name, or have a kind, as in {{kind: lottery}}, one of {', '.join(MECHANISMS)}")
    return given


AnyMechanism = Annotated[Annotated[_Any, BeforeValidator(_with_a_kind)], kind_by_name("mechanism", MECHANISMS)]


class Admission(Settings):
    """A limit to the number of updates that a round takes, and who decides which of them these are."""

    capacity: int = Field(ge=1, description="Places B: the most updates that a round takes.")
    choose: AnyMechanism = Field(
        Lottery(),
        description="Who gets the places when more updates passed the screening: a mechanism's name, or its settings with a kind.",
    )


def refuse(admission: Admission, *, n_updates: int, has_gain: bool, has_bids: bool, governance: str) -> None:
    """Refuse what does not go with the rest of a scenario.

    Args:
        admission: The settings.
        n_updates: Number of all updates N·U of a round, lots and forgeries.
        has_gain: Whether the utility has a gradient.
        has_bids: Whether proxies have a lever to bid with.
        governance: The screening's.

    Raises:
        ValueError: If the governance chooses among the updates itself, if there is a place for every update, or if the mechanism needs
            gains or bids that there are not.
    """
    kind, required = admission.choose.kind, set(admission.choose.needs) - set(admission.choose.optional)
    if governance == "negotiate":
        raise ValueError("governance negotiate chooses among the updates itself: leave admission out, or use another governance")
    if admission.capacity >= n_updates:
        raise ValueError(
            f"capacity={admission.capacity} leaves a place for each of the {n_updates} updates: make it smaller, or leave admission out"
        )
    if "gain" in required and not has_gain:
        raise ValueError(
            f"choose={kind} needs the utility's gradient, and this utility has none: use utility: neg_log_loss, or another mechanism"
        )
    if "bids" in required and not has_bids:
        raise ValueError(f"choose={kind} needs bids, and proxies cannot bid: add conduct.levers: [{{kind: bid, amount: 1}}]")
