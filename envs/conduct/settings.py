"""What proxies may do beside contributing their lots: forgeries and levers, as data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, Field, ValidationInfo, field_validator, model_validator

from ...settings import Settings, misplaced, models_in


class Forgery(Settings):
    """An update that is sent in place of an honest one. It claims as many rows as the proxy's mean lot has."""

    cost: float = Field(0.1, ge=0, description="What sending it for a round costs, as a share of reward.contribution_cost.")


class OfALot(Forgery):
    """A forgery that is made of one of the proxy's own lots."""

    of: int = Field(0, ge=0, description="Which of the proxy's lots it is made of, from 0.")


class OfASize(Forgery):
    """A forgery that is as long as one likes."""

    size: float = Field(1.0, gt=0, description="Its norm, as a share of the mean norm of all lots' updates in the round.")


class Echo(OfASize):
    """The step that was applied last, sent back."""

    kind: Literal["echo"] = "echo"


class Noise(OfASize):
    """A random direction, drawn anew every round."""

    kind: Literal["noise"] = "noise"


class Twin(OfALot):
    """The update of a lot, sent a second time."""

    kind: Literal["twin"] = "twin"


class NearTwin(OfALot):
    """The update of a lot with some noise, so that comparing updates for equality does not find it."""

    kind: Literal["near_twin"] = "near_twin"
    noise: float = Field(0.1, gt=0, description="Norm of the noise, as a share of the update's norm.")


class Boost(OfALot):
    """The update of a lot, made larger."""

    kind: Literal["boost"] = "boost"
    factor: float = Field(3.0, gt=1, description="By how much it is multiplied.")


class Flip(OfALot):
    """The update of a lot, turned round: it undoes what the lot would teach."""

    kind: Literal["flip"] = "flip"


class Stale(OfALot):
    """The update that a lot proposed some rounds ago: nothing is trained for it."""

    kind: Literal["stale"] = "stale"
    rounds: int = Field(1, ge=1, le=64, description="How many rounds ago.")


class Blend(Forgery):
    """The mean of all updates that the others sent in the last round: their work, copied without any data."""

    kind: Literal["blend"] = "blend"


class Lever(Settings):
    """Something that a proxy does in a round and that sends no update."""

    cost: float = Field(0.0, ge=0, description="What pulling it for a round costs, as a share of reward.contribution_cost.")


class Claim(Lever):
    """All that the proxy sends in this round claims more rows than it has: pay by volume and weights in the step follow."""

    kind: Literal["claim"] = "claim"
    factor: float = Field(3.0, gt=0, description="By how much the rows are multiplied.")

    @field_validator("factor")
    @classmethod
    def _claims(cls, factor: float) -> float:
        if factor == 1:
            raise ValueError("factor=1 claims what there is: must be above 1, or below to claim less")
        return factor


class Strict(Lever):
    """In the next round the proxy declares less than its principal tolerates."""

    kind: Literal["strict"] = "strict"
    factor: float = Field(0.2, ge=0, lt=1, description="By how much all tolerances of the own profile are multiplied.")


class Lax(Lever):
    """In the next round the proxy declares more than its principal tolerates."""

    kind: Literal["lax"] = "lax"
    factor: float = Field(5.0, gt=1, description="By how much all tolerances of the own profile are multiplied.")


class Block(Lever):
    """The proxy objects to all that others send in this round, whatever its principal's profile says."""

    kind: Literal["block"] = "block"


class Quit(Lever):
    """The proxy leaves: from this round to the episode's end it sends nothing, is paid nothing, and objects to nothing after the round."""

    kind: Literal["quit"] = "quit"


AnyForgery = Annotated[Echo | Noise | Twin | NearTwin | Boost | Flip | Stale | Blend, Field(discriminator="kind")]
AnyLever = Annotated[Claim | Strict | Lax | Block | Quit, Field(discriminator="kind")]


class Conduct(Settings):
    """What proxies may do beside contributing their lots. Each forgery and lever is an item of its own, with a choice every round."""

    MOST: ClassVar[int] = 16

    forgeries: tuple[AnyForgery, ...] = Field((), description="Updates that every proxy may send in place of honest ones.")
    levers: tuple[AnyLever, ...] = Field((), description="What every proxy may do that sends no update.")

    @field_validator("forgeries", "levers", mode="before")
    @classmethod
    def _listed(cls, given: Any, info: ValidationInfo) -> Any:
        """Refuse what is no list of mappings with a kind, in words of YAML."""
        kinds = [one.model_fields["kind"].default for one in models_in(cls.model_fields[str(info.field_name)].annotation)]
        if not isinstance(given, list | tuple):
            raise ValueError(f"must be a list, such as [{{kind: {kinds[0]}}}] (got {given!r})")
        for one in given:
            if not isinstance(one, BaseModel) and not (isinstance(one, Mapping) and "kind" in one):
                raise ValueError(f"each must have a kind, as in {{kind: {kinds[0]}}}, one of {', '.join(kinds)} (got {one!r})")
        return given

    @model_validator(mode="after")
    def _check(self) -> Conduct:
        if len(self.names) > self.MOST:
            raise ValueError(f"conduct has {len(self.names)} forgeries and levers: there may be {self.MOST} at most")
        counted = Counter(lever.kind for lever in self.levers)
        for kind in ("block", "quit"):
            if counted[kind] > 1:
                raise ValueError(f"levers has {kind!r} {counted[kind]} times, and it does the same each time: name it once")
        return self

    def check(self, n_lots: int, horizon: int, governance: str, filter: str, *, tolerates: bool) -> None:
        """Refuse what does not go with the rest of a scenario.

        Args:
            n_lots: Number of lots K of each proxy.
            horizon: Number of rounds T.
            governance: The screening's.
            filter: The screening's.
            tolerates: Whether any profile has a tolerance.

        Raises:
            ValueError: If a forgery is made of a lot that there is not, or a lever would do nothing. The error has its place.
        """
        for i, forgery in enumerate(self.forgeries):
            if isinstance(forgery, OfALot) and forgery.of >= n_lots:
                raise misplaced(("conduct", "forgeries", i, "of"), f"of={forgery.of}: lots go from 0 to {n_lots - 1}")
            if isinstance(forgery, Stale) and forgery.rounds >= horizon:
                raise misplaced(
                    ("conduct", "forgeries", i, "rounds"), f"rounds={forgery.rounds}: an episode has {horizon} rounds: must be fewer"
                )
        counts = governance in ("unanimous", "quorum", "weighted") and filter == "reject"
        for i, lever in enumerate(self.levers):
            why = ""
            if isinstance(lever, Block) and not counts:
                why = (
                    "needs principals whose objections count whatever their reason: governance unanimous, quorum or weighted, and filter "
                    f"reject (here: governance {governance}, filter {filter})"
                )
            elif isinstance(lever, (Strict, Lax)) and not tolerates:
                why = "declares other tolerances, and here is none to declare"
            if why:
                raise misplaced(("conduct", "levers", i, "kind"), f"{lever.kind!r} {why}")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the forgeries and then the levers: their kinds; the second of a kind is ``KIND_2``, and so on."""
        seen = Counter[str]()
        found = []
        for item in (*self.forgeries, *self.levers):
            seen[item.kind] += 1
            found.append(item.kind if seen[item.kind] == 1 else f"{item.kind}_{seen[item.kind]}")
        return tuple(found)

    @property
    def costs(self) -> tuple[float, ...]:
        """Costs of the same, as shares of ``reward.contribution_cost``."""
        return tuple(item.cost for item in (*self.forgeries, *self.levers))
