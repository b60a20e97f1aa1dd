"""What proxies may do beside contributing their lots: forgeries and levers, as data."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, Field, ValidationInfo, field_validator, model_validator

from ...settings import LATER, Settings, misplaced, models_in


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


class LittleIsEnough(Forgery):
    """The mean of all that the others' lots propose in this round, moved against its direction by so little that it looks like one of them.

    References:
        Baruch, Baruch & Goldberg (2019), *A little is enough: circumventing defenses for distributed learning*, NeurIPS.
    """

    kind: Literal["little_is_enough"] = "little_is_enough"
    deviations: float = Field(1.5, gt=0, description="By how many of their standard deviations z each parameter is moved: μ − z σ.")


class InnerProduct(Forgery):
    """The mean of all that the others' lots propose in this round, turned round and shortened: it slows learning and is hard to tell.

    References:
        Xie, Koyejo & Gupta (2020), *Fall of empires: breaking Byzantine-tolerant SGD by inner product manipulation*, UAI.
    """

    kind: Literal["inner_product"] = "inner_product"
    factor: float = Field(0.5, gt=0, description="Its length as a share ε of the mean's: −ε μ.")


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


class Vouch(Lever):
    """The member of a cabal tells rules in which peers rank each other that its cabal's updates alone helped its data."""

    kind: Literal["vouch"] = "vouch"


class Bid(Lever):
    """The proxy bids for places for all that it contributes in this round. Its bids add up."""

    kind: Literal["bid"] = "bid"
    amount: float = Field(1.0, gt=0, description="What it bids, in reward units. What it pays is what the auction asks, never more.")


class Identities(Settings):
    """The names under which one principal takes part. Each name has a seat, and a proxy, of its own."""

    principal: int = Field(ge=0, description="Which principal, from 0.")
    split: int = Field(2, ge=2, description="Number of its names k. Its own seat stays where it is; the others come after all principals.")
    lots: Literal["dealt", "copied"] = Field(
        "dealt",
        description="dealt: the principal's lots are dealt out to its names, as equally many to each as possible. copied: every name "
        "offers all of them.",
    )


AnyForgery = Annotated[
    Echo | Noise | Twin | NearTwin | Boost | Flip | Stale | Blend | LittleIsEnough | InnerProduct, Field(discriminator="kind")
]
AnyLever = Annotated[Claim | Strict | Lax | Block | Quit | Vouch | Bid, Field(discriminator="kind")]


FORGERIES, LEVERS = (tuple(str(one.model_fields["kind"].default) for one in models_in(of)) for of in (AnyForgery, AnyLever))
"""The kinds of forgeries, and of levers."""


def kind_of(item: str) -> str:
    """The kind of a forgery or lever by its name: ``echo_2`` is an ``echo``. See :attr:`Conduct.names`."""
    return re.sub(r"_\d+$", "", item)


class Conduct(Settings):
    """What proxies may do beside contributing their lots. Each forgery and lever is an item of its own, with a choice every round."""

    MOST: ClassVar[int] = 16
    MOST_AGENTS: ClassVar[int] = 1024

    forgeries: tuple[AnyForgery, ...] = Field((), description="Updates that every proxy may send in place of honest ones.")
    levers: tuple[AnyLever, ...] = Field((), description="What every proxy may do that sends no update.")
    cabal: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        (),
        json_schema_extra=LATER,
        description="Seats that act together: block spares them, and only they can vouch, for each other.",
    )
    identities: tuple[Identities, ...] = Field((), json_schema_extra=LATER, description="Principals that take part under several names.")

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

    @field_validator("identities", mode="before")
    @classmethod
    def _identities_listed(cls, given: Any) -> Any:
        """Refuse what is no list of mappings, in words of YAML."""
        if not isinstance(given, list | tuple) or not all(isinstance(one, BaseModel | Mapping) for one in given):
            raise ValueError("must be a list, such as [{principal: 0, split: 2}]")
        return given

    @model_validator(mode="after")
    def _check(self) -> Conduct:
        if len(self.names) > self.MOST:
            raise ValueError(f"conduct has {len(self.names)} forgeries and levers: there may be {self.MOST} at most")
        counted = Counter(lever.kind for lever in self.levers)
        for kind in ("block", "quit", "vouch"):
            if counted[kind] > 1:
                raise ValueError(f"levers has {kind!r} {counted[kind]} times, and it does the same each time: name it once")
        if len(set(self.cabal)) < len(self.cabal) or len(self.cabal) == 1:
            raise ValueError(f"cabal={list(self.cabal)}: must be at least two seats, each once")
        if counted["vouch"] and not self.cabal:
            raise ValueError("'vouch' is for members of a cabal, and there is none: name its seats, as in cabal: [0, 1]")
        return self

    def check_identities(self, n_principals: int, n_lots: int, *, columns: bool) -> None:
        """Refuse identities that the cooperative cannot have.

        Args:
            n_principals: Number of principals N.
            n_lots: Number of lots K of each.
            columns: Whether principals hold columns of the same rows.

        Raises:
            ValueError: If a principal does not exist or is named twice, has fewer lots to deal out than names, or holds columns; or if
                there are too many proxies. The error has its place.
        """
        if self.identities and columns:
            why = "seats of a vertical cooperative hold columns, which only one name can offer: leave identities out"
            raise misplaced(("conduct", "identities"), why)
        first: dict[int, int] = {}
        for i, one in enumerate(self.identities):
            where = ("conduct", "identities", i)
            if one.principal >= n_principals:
                raise misplaced((*where, "principal"), f"principals go from 0 to {n_principals - 1} (got {one.principal})")
            if one.principal in first:
                raise misplaced(
                    (*where, "principal"),
                    f"identities.{first[one.principal]} is of principal {one.principal} already: give all its names there",
                )
            if one.lots == "dealt" and one.split > n_lots:
                raise misplaced(
                    (*where, "split"),
                    f"split={one.split}: there must be a lot for each name, and a principal has {n_lots}: lower split, or use lots: copied",
                )
            first[one.principal] = i
        n_agents = n_principals + self.n_more_names
        if n_agents > self.MOST_AGENTS:
            raise misplaced(
                ("conduct", "identities"), f"{n_agents} proxies with all names: there may be {self.MOST_AGENTS:,} at most; lower split"
            )

    @property
    def n_more_names(self) -> int:
        """How many seats there are beside one for each principal."""
        return sum(one.split - 1 for one in self.identities)

    def check(self, n_agents: int, n_lots: int, horizon: int, governance: str, filter: str, *, tolerates: bool, auction: bool) -> None:
        """Refuse what does not go with the rest of a scenario.

        Args:
            n_agents: Number of proxies N.
            n_lots: Number of lots K of each proxy.
            horizon: Number of rounds T.
            governance: The screening's.
            filter: The screening's.
            tolerates: Whether any profile has a tolerance.
            auction: Whether places are auctioned.

        Raises:
            ValueError: If a forgery is made of a lot that there is not, a lever would do nothing, or a seat does not exist. The error has
                its place.
        """
        for i, seat in enumerate(self.cabal):
            if seat >= n_agents:
                raise misplaced(("conduct", "cabal", i), f"seats go from 0 to {n_agents - 1} (got {seat})")
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
            elif isinstance(lever, Bid) and not auction:
                why = "bids for places, and here is no auction: add admission: {capacity: …, choose: auction}"
            if why:
                raise misplaced(("conduct", "levers", i, "kind"), f"{lever.kind!r} {why}")

    @property
    def misdeclares(self) -> bool:
        """Whether proxies may declare other tolerances than their principals have."""
        return any(isinstance(lever, (Strict, Lax)) for lever in self.levers)

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
    def made_of(self) -> tuple[int | None, ...]:
        """Of each forgery and lever the lot that it is made of; ``None`` for what is made of no lot."""
        return tuple(item.of if isinstance(item, OfALot) else None for item in (*self.forgeries, *self.levers))

    @property
    def costs(self) -> tuple[float, ...]:
        """Costs of the same, as shares of ``reward.contribution_cost``."""
        return tuple(item.cost for item in (*self.forgeries, *self.levers))
