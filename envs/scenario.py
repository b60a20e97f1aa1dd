"""Scenarios: everything that defines a cooperative, as data.

A scenario is one YAML file. Every key is validated. A scenario may extend another (``extends: NAME``); its own keys then override those of
the other::

    scenario.load("digits")
    scenario.load("digits", **{"lots.rows": 40, "screening.governance": "own"})
    scenario.load("my/cooperative.yaml", horizon=8)
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    PrivateAttr,
    SerializeAsAny,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from .. import strict_yaml
from ..registry import unknown_name
from ..settings import LATER, Settings, misplaced
from .admission import Admission, refuse
from .aggregation import AggregatorSettings, Mean
from .aggregation import check as check_aggregator
from .conduct.population import Members, seats_taken
from .conduct.settings import Conduct
from .data.lots import Lots
from .data.mixtures import DirichletMixture
from .data.names import Names
from .data.sources import Data
from .files.draft import RateOfAnotherModel, model_in_words, read_draft
from .files.draft import names as names
from .files.draft import plain as plain_data
from .files.explain import explain
from .files.recorded import differences as differences
from .files.recorded import n_agents_of as n_agents_of
from .model.additive import WeightsName
from .model.models import ModelSettings, Softmax
from .model.server import ServerSettings, Sgd
from .model.starting import Start as Start
from .model.substrates import FedAvg, SubstrateSettings, Traversal, Vertical
from .model.utility import UtilityName
from .money.settlement import SettlementTerms
from .participation import MOST_OF_ALL, MOST_PRESENT, Participation
from .privacy import Privacy
from .screening.profiles import BY_VALUE, Profile
from .screening.verdicts import Screening
from .values.interface import VALUES, Value


class Reward(Settings):
    """From credit to reward: r = scale·credit − contribution_cost·lots − violation_penalty·violations + public_share·scale·v(N) −
    loyalty·harm.

    Under ``settlement.reward: settlement`` an agent's payout, in reward units, takes the place of scale·credit.
    """

    scale: float | Literal["auto"] = Field(
        "auto",
        description="Reward units per unit of utility. auto: N·T divided by the gain of an episode in which all clean lots are contributed "
        "without screening. A good episode is then worth about N·T, so that learning settings transfer between scenarios.",
    )
    contribution_cost: float = Field(0.15, ge=0, description="Cost of contributing one lot for one round, in reward units.")
    violation_penalty: float = Field(
        0.1, ge=0, description="Fine for contributing an update that violates the own principal's profile, in reward units."
    )
    public_share: float = Field(0.0, ge=0, description="Share of the cooperative's whole gain that every agent gets, whatever its credit.")
    loyalty: float = Field(
        0.0,
        ge=0,
        json_schema_extra=LATER,
        description="What a proxy loses for the harm that a round did to the values of its own principal, in reward units per tolerance: "
        "the rise of each loss over the principal's tolerance for one update (else over its limit divided by the number of rounds), summed "
        "over values. A fall counts as a gain.",
    )

    @field_validator("scale")
    @classmethod
    def _positive(cls, scale: float | str) -> float | str:
        if not isinstance(scale, str) and scale <= 0:
            raise ValueError(f"scale={scale}: must be positive, or 'auto'")
        return scale


class Observations(Settings):
    """What proxies observe beyond what a real one could."""

    marginal_gains: bool = Field(
        False,
        description="For ablations: each proxy also observes what each of its lots would add to the round, measured on the validation set, "
        "in reward units. Nothing is paid for it. It tells what is lost for want of information from what is lost for want of incentives.",
    )


def _value(settings: Any) -> Any:
    """Build a value from its settings. Their ``kind`` says which class it is."""
    if isinstance(settings, Value):
        return settings
    if not isinstance(settings, Mapping) or not isinstance(settings.get("kind"), str):
        raise ValueError(f"a value needs a 'kind', one of {', '.join(VALUES)}")
    cls, rest = VALUES[settings["kind"]], {key: value for key, value in settings.items() if key != "kind"}
    known = inspect.signature(cls).parameters
    if unknown := [key for key in rest if key not in known]:
        raise PydanticCustomError("unknown_key", "unknown key", {"key": unknown[0], "known": ["kind", *known]})
    if missing := [name for name, one in known.items() if one.default is inspect.Parameter.empty and name not in rest]:
        raise ValueError(f"a value of kind {settings['kind']!r} needs {', '.join(map(repr, missing))}")
    return cls(**rest)


@dataclass(frozen=True)
class _Origin:
    """What is known of where a scenario comes from. Scenarios are the same if they say the same, wherever they come from."""

    rates: tuple[RateOfAnotherModel, ...] = field(default=(), compare=False)


class Scenario(Settings):
    """A complete cooperative. Every part has a default. ``proxycoop scenarios NAME`` prints a scenario in full."""

    name: str = Field("scenario", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="Its name: letters, digits, '.', '_', '-'.")
    description: str = Field("", description="What is at stake and for whom, in words.")
    version: int = Field(
        1, ge=1, json_schema_extra=LATER, description="Version of the scenario: raised when a change of the file changes its numbers."
    )
    principals: int = Field(
        6,
        ge=1,
        le=MOST_OF_ALL,
        description="Number of principals N; each has one proxy. At most 1,024, unless only some take part in a round (participation).",
    )
    horizon: int = Field(16, ge=1, le=2**20, description="Number of rounds T of an episode.")
    data: Data = Field(default_factory=Data, description="Where the data comes from and how it is split.")
    lots: Lots = Field(default_factory=Lots, description="How principals' private data is drawn.")
    model: ModelSettings = Field(default_factory=Softmax, description="The shared model.")
    start: Start = Field(default_factory=Start, description="How the shared model is trained before the first round.")
    substrate: SubstrateSettings = Field(default_factory=FedAvg, description="How updates are computed.")
    weights: WeightsName = Field(
        "fixed",
        description="fixed: a lot's weight is its share of all data, so that withholding it changes nothing for the others. participants: "
        "weights are renormalised over the admitted lots (classic FedAvg), so that withholding a lot gives the others more weight.",
    )
    aggregator: AggregatorSettings = Field(
        default_factory=Mean,
        json_schema_extra=LATER,
        description="How the server merges the admitted updates: their mean, or a rule that withstands some that are Byzantine.",
    )
    server: ServerSettings = Field(default_factory=Sgd, description="How the server applies the aggregate.")
    utility: UtilityName = Field(
        "neg_log_loss", description="Utility on the validation set. neg_log_loss: minus the mean cross-entropy, in nats; or accuracy."
    )
    values: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,40}$")], Annotated[SerializeAsAny[Value], BeforeValidator(_value)]] = (
        Field(default_factory=dict, description="Values by name.")
    )
    profiles: tuple[Profile, ...] = Field((), description="Value profiles. Principals beyond the number of holders have none.")
    profiles_drawn: bool = Field(
        True, description="Whether each episode draws anew who holds which profile. If not, principals take the profiles in order."
    )
    screening: Screening = Field(default_factory=Screening, description="Whose profiles screen whose updates.")
    admission: Admission | None = Field(
        None,
        json_schema_extra=LATER,
        description="How many updates a round takes at most, and who chooses among those that passed the screening. none: all of them.",
    )
    privacy: Privacy | None = Field(
        None,
        json_schema_extra=LATER,
        description="How updates are shortened and noised, so that they tell little of the data behind them. none: they are not.",
    )
    participation: Participation | None = Field(
        None,
        json_schema_extra=LATER,
        description="How many agents take part in a round, drawn anew in every round. none: all of them.",
    )
    reward: Reward = Field(default_factory=Reward, description="From credit to reward.")
    observations: Observations = Field(
        default_factory=Observations, json_schema_extra=LATER, description="What proxies observe beyond what a real one could."
    )
    settlement: SettlementTerms | None = Field(
        None,
        json_schema_extra=LATER,
        description="What the cooperative earns in money, and how it is split. none: there is no money. `settlement: {}`: the defaults.",
    )
    conduct: Conduct | None = Field(
        None,
        json_schema_extra=LATER,
        description="What proxies may do beside contributing their lots: forge updates, pull levers, and take part under several "
        "names. none: nothing.",
    )
    population: tuple[Members, ...] = Field(
        (),
        json_schema_extra=LATER,
        description="Agents that play some of the seats, whoever plays or learns in the others.",
    )
    _origin: _Origin = PrivateAttr(default_factory=_Origin)

    @model_validator(mode="after")
    def _check(self) -> Scenario:
        if self.participation is None and self.principals > MOST_PRESENT:
            raise misplaced(
                ("principals",),
                f"must be less than or equal to {MOST_PRESENT:,} where all take part in every round (got {self.principals:,}): lower it, "
                "or let some take part, as in participation: {sample: 32}",
            )
        holders = sum(profile.holders for profile in self.profiles)
        if holders > self.principals:
            raise ValueError(
                f"profiles have {holders} holders in all, but there are only {self.principals} principals: lower holders or raise "
                "principals"
            )
        for i, profile in enumerate(self.profiles):
            for kind in BY_VALUE:
                for value in getattr(profile, kind):
                    if value not in self.values:
                        known = sorted(self.values) or ["none: define one under values"]
                        raise misplaced(("profiles", i, kind, value), str(unknown_name("value", value, known)))
            for place, tag in enumerate(profile.forbidden_tags):
                if tag not in self.lots.tags:
                    known = sorted(self.lots.tags) or ["none: define one under lots.tags"]
                    raise misplaced(("profiles", i, "forbidden_tags", place), str(unknown_name("tag", tag, known)))
        self._check_tags()
        if self.screening.governance == "negotiate" and self.utility != "neg_log_loss":
            raise ValueError(
                f"screening.governance=negotiate needs predicted gains, but utility={self.utility} has no gradient to predict them with: "
                "use utility: neg_log_loss, or another governance"
            )
        self.lots.samples(self.principals)
        if self.conduct is not None:
            self.conduct.check_identities(self.principals, self.lots.per_principal, columns=isinstance(self.substrate, Vertical))
        if len(self.company) == self.n_agents:
            raise ValueError(
                f"population takes all {self.n_agents} seats: leave at least one, for those who learn or play what they are asked to"
            )
        if self.reward.loyalty:
            self._check_loyalty()
        if self.conduct is not None:
            tolerates = any(profile.tolerances or profile.relative_tolerances for profile in self.profiles)
            screening, n_lots = self.screening, self.lots.per_principal
            auction = self.admission is not None and "bids" in self.admission.choose.needs
            self.conduct.check(
                self.n_agents, n_lots, self.horizon, screening.governance, screening.filter, tolerates=tolerates, auction=auction
            )
        if self.participation is not None:
            screening, by_share = self.screening, ("quorum", "weighted", "stakeholders")
            self.participation.check(
                self.principals,
                conduct=self.conduct is not None,
                substrate=isinstance(self.substrate, Vertical),
                **{
                    "screening.governance": screening.governance == "negotiate",
                    "lots.rows": not isinstance(self.lots.rows, int) and isinstance(self.substrate, Traversal),
                    "screening.filter": screening.filter != "reject" and screening.governance in by_share,
                },
            )
        self._check_defences()
        if isinstance(self.substrate, Vertical):
            self._check_vertical()
        elif self.lots.corruption.what == "links":
            raise ValueError(
                "lots.corruption.what=links needs substrate vertical, because records are linked only where principals hold columns of the "
                "same rows: use what: labels"
            )
        return self

    def _check_tags(self) -> None:
        """Refuse profiles that forbid all data: one profile alone, or all profiles together where each has a veto."""
        carried = {tag for tag, probability in self.lots.tags.items() if probability > 0}
        forbidden = [set(profile.forbidden_tags) for profile in self.profiles]
        if carried and any(carried <= one for one in forbidden):
            raise ValueError(
                f"a profile forbids every tag that lots carry ({', '.join(sorted(carried))}), so that no update could ever be admissible "
                "to its holders: leave at least one tag out of its forbidden_tags"
            )
        together = self.screening.governance in ("unanimous", "stakeholders", "negotiate")
        if carried and together and carried <= set().union(*forbidden):
            raise ValueError(
                f"together, the profiles forbid every tag that lots carry ({', '.join(sorted(carried))}). Under "
                f"governance {self.screening.governance} each holder has a veto, so nothing could ever be admitted: leave one tag that "
                "nobody forbids"
            )

    def _check_loyalty(self) -> None:
        """Refuse loyalty where harm cannot be measured in principals' own tolerances."""
        loyalty = self.reward.loyalty
        if not any(profile.bounds for profile in self.profiles):
            raise ValueError(
                f"reward.loyalty={loyalty:g} weighs harm in principals' own tolerances, and no profile has any: give profiles tolerances "
                "or limits, or leave loyalty out"
            )
        for i, profile in enumerate(self.profiles):
            for kind, value in ((kind, value) for kind, of in profile.bounds for value, most in of.items() if most == 0):
                raise misplaced(
                    ("profiles", i, kind, value), f"must be above 0 with reward.loyalty={loyalty:g}, which weighs harm as multiples of it"
                )

    def _check_defences(self) -> None:
        """Refuse an aggregator, an admission or privacy that does not go with the rest."""
        conduct, columns = self.conduct or Conduct(), isinstance(self.substrate, Vertical)
        per_agent = self.lots.per_principal + len(conduct.forgeries)
        n_updates = per_agent * self.n_seats
        if self.aggregator != Mean():
            if columns:
                why = f"aggregator.kind={self.aggregator.kind}: principals hold columns, so that no two updates are of the same parameters"
                raise ValueError(f"substrate vertical does not go with {why}; use mean")
            if self.screening.governance == "negotiate":
                raise ValueError(
                    f"screening.governance=negotiate bargains over sums of updates, and does not go with aggregator.kind="
                    f"{self.aggregator.kind}: use aggregator mean, or another governance"
                )
            room = n_updates if self.admission is None else min(self.admission.capacity, n_updates)
            by_agent = self.aggregator.over == "agents"
            n_units = min(room, self.n_seats) if by_agent else room
            try:
                check_aggregator(self.aggregator, n_units)
            except ValueError as error:
                raise misplaced(("aggregator",), str(error)) from None
        if self.admission is not None:
            if columns and {"wants", "likeness"} & {*self.admission.choose.needs}:
                why = f"admission.choose={self.admission.choose.kind}: updates of different columns have nothing in common"
                raise ValueError(f"substrate vertical does not go with {why}; use another mechanism")
            try:
                refuse(
                    self.admission,
                    n_updates=n_updates,
                    has_gain=self.utility == "neg_log_loss",
                    has_bids=any(lever.kind == "bid" for lever in conduct.levers),
                    governance=self.screening.governance,
                )
            except ValueError as error:
                raise misplaced(("admission",), str(error)) from None
        if self.privacy is not None:
            self.privacy.check(
                holders=self.lots.holders,
                copied=any(one.lots == "copied" for one in conduct.identities),
                vertical=columns,
                weights=self.weights,
                aggregator="mean" if self.aggregator == Mean() else self.aggregator.kind,
                governance=self.screening.governance,
                filter=self.screening.filter,
                limited=self.admission is not None,
                forgeries=[forgery.kind for forgery in conduct.forgeries],
            )

    def _check_vertical(self) -> None:
        """Refuse settings that make no sense where principals hold columns of the same rows."""
        lots, corruption = self.lots, self.lots.corruption
        n_wrong = round(corruption.least_rate * lots.rows) if isinstance(lots.rows, int) else 0
        for does_not_apply, why in (
            (self.conduct is not None, "conduct: principals hold columns there, and no updates of all parameters; leave it out"),
            (
                self.model.kind != "softmax",
                f"model.kind={self.model.kind}: only in a linear model do parameters belong to columns; use softmax",
            ),
            (
                self.weights != "fixed",
                f"weights={self.weights}: the columns' parts add up, so renormalising would enlarge the others' step; use fixed",
            ),
            (not isinstance(lots.rows, int), f"lots.rows={lots.rows}: all lots share the same rows; give one number"),
            (lots.mixture != DirichletMixture(), f"lots.mixture.kind={lots.mixture.kind}: all lots share the same rows; leave mixture out"),
            (lots.holders != 1, f"lots.holders={lots.holders}: all lots share the same rows, each with its own columns; leave holders out"),
            (lots.sites is not None, "lots.sites: all lots share the same rows, so no row belongs to one site; leave sites out"),
            (
                lots.site_shift != 0,
                f"lots.site_shift={lots.site_shift:g}: no two principals hold the same column, so nothing can differ; leave it out",
            ),
            (
                corruption.what != "links" and (corruption.some or bool(corruption.pairs)),
                f"lots.corruption.what={corruption.what}: principals hold columns, and the server holds the labels; use what: links, "
                "without pairs",
            ),
            (
                corruption.what == "links" and corruption.some and n_wrong < 2,
                f"lots.corruption.rate={corruption.least_rate:g} of lots.rows={lots.rows}: wrong links need at least two rows; raise "
                "one of them",
            ),
        ):
            if does_not_apply:
                raise ValueError(f"substrate vertical does not go with {why}")

    @property
    def company(self) -> dict[int, str]:
        """Who plays which seat by the scenario's population: names of agents by seat.

        Raises:
            ValueError: If a seat does not exist or is named twice, or there are not so many free seats.
        """
        return seats_taken(self.population, self.n_agents)

    @property
    def n_agents(self) -> int:
        """Number of proxies: one for each principal, and one for every further name of those that have several."""
        return self.principals + (0 if self.conduct is None else self.conduct.n_more_names)

    @property
    def n_seats(self) -> int:
        """Number of proxies that take part in a round: all of them, or those that :attr:`participation` samples."""
        return self.n_agents if self.participation is None else self.participation.sample

    @property
    def samples_some(self) -> bool:
        """Whether some proxies are absent in every round."""
        return self.n_seats < self.n_agents

    def lacks_everybody(self, what: str) -> str:
        """Why what needs all agents in every round is not possible, as a sentence with the remedy; empty if it is.

        Args:
            what: What needs them.
        """
        if self.participation is None:
            return ""
        return (
            f"scenario {self.name!r} has participation: {what} needs all agents in every round, but {self.n_seats:,} of "
            f"{self.n_agents:,} are present; use a scenario without participation"
        )

    def require_everybody(self, what: str) -> None:
        """Refuse what needs all agents in every round.

        Args:
            what: What needs them, for the message.

        Raises:
            ValueError: If the scenario has participation.
        """
        if lacking := self.lacks_everybody(what):
            raise ValueError(lacking)

    @property
    def names(self) -> Names | None:
        """Under which names the principals take part; ``None`` if each has one."""
        if self.conduct is None or not self.conduct.identities:
            return None
        several = [(one.principal, one.split, one.lots == "copied") for one in self.conduct.identities]
        return Names.of(self.principals, self.lots.per_principal, several)

    @property
    def limited(self) -> tuple[str, ...]:
        """Names of the values that any profile limits for the episode, in the order of the values."""
        limited = {name for profile in self.profiles for name in profile.limited}
        return tuple(name for name in self.values if name in limited)

    @property
    def model_in_words(self) -> str:
        """The kind of the model, and of a module the factory."""
        return model_in_words(self.model.model_dump())

    @property
    def rates_of_another_model(self) -> tuple[RateOfAnotherModel, ...]:
        """Learning rates that a file set for a model of another kind, and that still hold here: the scenario inherited them.

        Where a rate comes from is known of scenarios that :func:`load` has read, and of their copies.
        """
        return tuple(
            one
            for one in self._origin.rates
            if one.model != self.model_in_words
            and getattr(getattr(self, one.setting.partition(".")[0]), one.setting.partition(".")[2], None) == one.rate
        )

    def without_items(self) -> Scenario:
        """The same cooperative in which proxies can do nothing beside contributing their lots. Principals keep their names."""
        if self.conduct is None or not self.conduct.identities:
            return self.model_copy(update={"conduct": None})
        return self.model_copy(update={"conduct": Conduct(identities=self.conduct.identities)})

    def unscreened(self, reward_scale: float) -> Scenario:
        """The same cooperative without screening and with the given reward scale: the baseline that screening is compared with."""
        screening = Screening(governance="none", harm=self.screening.harm)
        return self.model_copy(update={"screening": screening, "reward": self.reward.model_copy(update={"scale": reward_scale})})

    def on_split(self, split_seed: int) -> Scenario:
        """The same cooperative on the data split with this seed alone."""
        return self.model_copy(update={"data": self.data.model_copy(update={"split_seed": split_seed, "splits": 1})})

    def undefended(self) -> Scenario:
        """The same cooperative that merges all admitted updates by their mean, without noise."""
        return self.model_copy(update={"aggregator": Mean(), "admission": None, "privacy": None})

    def unlimited(self) -> Scenario:
        """The same cooperative in which nothing limits what an episode adds up to: no limits, and no guard. Tolerances stay."""
        profiles = tuple(profile.model_copy(update={"limits": {}, "relative_limits": {}}) for profile in self.profiles)
        return self.model_copy(update={"profiles": profiles, "screening": self.screening.model_copy(update={"guard": False})})

    def to_yaml(self, *, full: bool = False) -> str:
        """The whole scenario as YAML that :func:`load` reads back. ``full`` is as in :meth:`to_dict`."""
        return strict_yaml.write(self.to_dict(full=full))

    def to_dict(self, *, full: bool = False) -> dict[str, Any]:
        """The whole scenario as plain data, defaults included.

        Args:
            full: Whether settings that earlier versions did not have, such as ``settlement``, are there at their defaults too. Records of
                runs leave them out: those from before they existed have no such keys either, and they are compared with this.
        """
        plain: dict[str, Any] = plain_data(self, full)
        return plain


def load(name_or_path: str | Path, **overrides: Any) -> Scenario:
    """Load a scenario.

    Args:
        name_or_path: Name of a scenario of this package or of another that ships some, or path of a YAML file.
        **overrides: Settings by dotted path: ``**{"lots.rows": 40}``. A mapping is merged into the settings that are there.

    Returns:
        The validated scenario.

    Raises:
        ValueError: If there is no such scenario (the message lists the known ones), if the YAML cannot be read, or if a key or value is not
            allowed. The message names the key, what is allowed, and the file and line, or the override, that it stands in.
    """
    return load_overridden(name_or_path, {dotted: (value, f"override {dotted}") for dotted, value in overrides.items()})


def load_overridden(name_or_path: str | Path, overrides: Mapping[str, tuple[Any, str]]) -> Scenario:
    """Load a scenario with overrides that have names of their own in messages, such as an option of the command line.

    Args:
        name_or_path: As for :func:`load`.
        overrides: By dotted path: the value, and where it comes from.

    Raises:
        ValueError: As :func:`load` does.
    """
    if not isinstance(name_or_path, (str, Path)):
        raise ValueError(f"scenario={name_or_path!r}: must be the name of a scenario, the path of its YAML file, or a Scenario")
    draft = read_draft(name_or_path)
    draft.override(overrides)
    try:
        made = Scenario.model_validate(draft.data)
    except ValidationError as error:
        raise ValueError(explain(error, draft, Scenario)) from None
    made._origin = _Origin(draft.rates_set())
    return made


def files_of(name_or_path: str | Path) -> list[Path]:
    """The files that a scenario is read from: its own, those that it extends, and that of its data. Scenarios of the package have none.

    Raises:
        ValueError: If a scenario's file cannot be read.
    """
    draft = read_draft(name_or_path)
    return draft.files + ([] if (data := draft.data_file()) is None else [data])
