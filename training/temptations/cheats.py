r"""Manipulation gain: what a scripted cheat earns over its honest self.

For a cheat c in seat i, while all others are honest,

.. math:: G_i(c) = R_i(c, h_{-i}) - R_i(h_i, h_{-i})

with R the return of an episode in reward units and h the agent ``honest``. Both episodes have the same seed, so that lots, profiles and
start are the same. For several names of a principal, R is the total of all its names; the public share and what loyalty takes, which a
principal has by itself, are counted once. For a cabal it is the mean over its members, who cheat together.

A rule is *manipulable* by a cheat if its gain is positive: honesty is then no equilibrium.

References:
    Burnat & Davidson (2026), *Quotient semivalues for false-name-resistant data attribution*, arXiv 2605.07663, for gains of false names.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from ... import credit as credit_rules
from ...agents import Agent, Mixture, Seats, make, play
from ...agents.agent import class_of
from ...agents.seats import populated, require_unprivileged
from ...envs import Engine, Scenario
from ...envs.conduct import Conduct
from ...envs.conduct.settings import FORGERIES, LEVERS, kind_of
from ...envs.data.names import Names
from ...registry import unknown_name
from ...settings import problems
from ..evaluate import held_out_splits
from ..false_names import counted_once
from ..intervals import Estimate

EPISODES, SPLITS = 4, 12
"""Episodes on each split of the data, and splits, on which a gain is measured."""
LEAST = 0.01
"""What gains are taken to be rounding, in reward units an episode."""
CABAL = (0, 1)
Others = Callable[[], Agent]
_honest: Others = partial(make, "honest")


@dataclass(frozen=True)
class Sample:
    """What cheating brought in some episodes; all ``(E,)``, NaN where nobody could cheat.

    Attributes:
        gain: What the cheat gained, in reward units. Of a cheat that may be done in several ways, of which the best counts, by way:
            ``(E, ways)``.
        principal: What its principal gained: the same, less the harm to its values, in reward units.
        welfare: What the cooperative gained, in reward units.
    """

    gain: Tensor
    principal: Tensor
    welfare: Tensor


@dataclass(frozen=True)
class Gain:
    """What a cheat gains, as estimates over splits of the data, in reward units an episode.

    Attributes:
        cheat: Its name in :data:`CHEATS`.
        gain: Of the cheat.
        principal: Of its principal, whose values count.
        welfare: Of the whole cooperative.
    """

    cheat: str
    gain: Estimate
    principal: Estimate
    welfare: Estimate

    @property
    def pays(self) -> bool:
        """Whether the gain is above 0 by more than its interval, and by more than rounding."""
        return pays(self.gain)


@dataclass(frozen=True)
class Cheat:
    """A way to cheat, and how what it brings is measured.

    Attributes:
        name: Its name.
        what: What it does, in a clause that goes on from "who".
        measure: ``(scenario, rule, seeds, others) -> Sample``, in a scenario that :func:`tempting` has made. ``others`` makes the policy of
            everybody else, and of the honest self.
        lacks: What a scenario lacks for it, in words; empty if nothing.
        kinds: Kinds of the forgeries and levers that it uses.
    """

    name: str
    what: str
    measure: Callable[[Scenario, str, Sequence[int], Others], Sample]
    lacks: Callable[[Scenario], str]
    kinds: tuple[str, ...] = ()


def pays(gain: Estimate) -> bool:
    """Whether a gain is above 0 by more than its interval, and by more than rounding."""
    return gain.mean is not None and gain.mean > max(gain.half_width or 0.0, LEAST)


def tempting(scenario: Scenario, rule: str | None = None, kinds: Collection[str] | None = None) -> Scenario:
    """The same cooperative, in which proxies may do all that fits it: every forgery and lever, and a cabal of the first two seats.

    Only leaving is left out: it forges nothing, cannot be undone, and so keeps learners from learning. A scenario that says itself what
    proxies may do stays as it is.

    Args:
        scenario: The cooperative.
        rule: The credit rule, with arguments if it takes any. Vouching is left out where no peers rank each other.
        kinds: The kinds of forgeries and levers that are wanted; all by default.

    Raises:
        ValueError: If the substrate is vertical, where proxies hold columns; if only some agents are present in a round; or if something
            else in the scenario does not go with what proxies may do.
    """
    if scenario.conduct is not None and scenario.conduct.names:
        return scenario
    if scenario.substrate.kind == "vertical":
        raise ValueError(f"scenario {scenario.name!r} has substrate vertical: principals hold columns there, and nothing can be forged")
    scenario.require_everybody("a scenario in which proxies may cheat")
    screening = scenario.screening
    own = () if scenario.conduct is None else scenario.conduct.cabal
    cabal = list(own or CABAL) if scenario.n_agents > len(CABAL) else []
    if kinds is not None:  # what the scenario's population needs is there too
        kinds = {*kinds, *(kind for name in scenario.company.values() for kind in getattr(class_of(name), "kinds", ()))}
    fits = {
        "stale": scenario.horizon > 1,
        "quit": False,
        "little_is_enough": False,  # it knows what no proxy does
        "inner_product": False,
        "bid": scenario.admission is not None and "bids" in scenario.admission.choose.needs,
        "strict": (tolerates := any(profile.tolerances or profile.relative_tolerances for profile in scenario.profiles)),
        "lax": tolerates,
        "block": screening.governance in ("unanimous", "quorum", "weighted") and screening.filter == "reject",
        "vouch": bool(cabal) and rule is not None and "peer_gains" in credit_rules.make(rule).needs,
    }
    given: dict[str, Any] = {"identities": () if scenario.conduct is None else scenario.conduct.identities, "cabal": cabal}
    for part, known in (("forgeries", FORGERIES), ("levers", LEVERS)):
        given[part] = [{"kind": kind} for kind in known if fits.get(kind, True) and (kinds is None or kind in kinds)]
    parts = {name: getattr(scenario, name) for name in type(scenario).model_fields}
    try:
        return Scenario.model_validate({**parts, "conduct": Conduct.model_validate(given)})
    except ValidationError as error:
        why = "; ".join(map(str, problems(error)))
        raise ValueError(f"scenario {scenario.name!r}, with a conduct of all that proxies may do: {why}") from None


def gain_of(
    cheat: Cheat,
    scenario: Scenario,
    rule: str,
    *,
    episodes: int = EPISODES,
    splits: int | Sequence[int] = SPLITS,
    seed: int = 0,
    others: Others = _honest,
) -> Gain:
    """Measure what a cheat gains.

    Args:
        cheat: The cheat, one of :data:`CHEATS`.
        scenario: The cooperative, made by :func:`tempting`.
        rule: The credit rule, with arguments if it takes any.
        episodes: Episodes on each split of the data.
        splits: Seeds of splits of the data; or how many, of those that no training plays on. Intervals are over them.
        seed: Seed of the first episode; the others follow by a step of one.
        others: Makes the policy of everybody else, with which the cheat is also compared in its own seat; honest by default.

    Raises:
        ValueError: If the scenario lacks what the cheat needs.
    """
    if lacks := cheat.lacks(scenario):
        raise ValueError(lacks)
    everybody = partial(_populated, others, scenario)
    require_unprivileged(everybody())
    samples = []
    for index, split in enumerate(held_out_splits(splits) if isinstance(splits, int) else splits):
        first = seed + index * episodes
        samples.append(cheat.measure(scenario.on_split(split), rule, range(first, first + episodes), everybody))

    found = {name: [getattr(sample, name) for sample in samples] for name in ("gain", "principal", "welfare")}
    if found["gain"][0].dim() == 2:
        found["gain"] = found["principal"] = _best_way(found["gain"])
    of = {name: parts[0] if len(parts) == 1 else torch.stack([part.nanmean() for part in parts]) for name, parts in found.items()}
    return Gain(cheat.name, *(Estimate.of(of[name]) for name in ("gain", "principal", "welfare")))


def _best_way(by_way: Sequence[Tensor]) -> list[Tensor]:
    """Of each part, what the way gained that was best in all other parts, ``(E, ways)`` each → ``(E,)`` each.

    So chance, which makes some way the best, is not counted as a gain. A single part is divided into its episodes.
    """
    parts = [row[None] for row in by_way[0]] if len(by_way) == 1 else list(by_way)
    means = torch.stack([part.mean(dim=0) for part in parts])  # (parts, ways)
    best = [int((means.sum(dim=0) - own).argmax()) for own in means]
    chosen = [part[:, way] for part, way in zip(parts, best, strict=True)]
    return [torch.cat(chosen)] if len(by_way) == 1 else chosen


def gains(
    scenario: Scenario,
    rule: str,
    names: Sequence[str] | None = None,
    *,
    episodes: int = EPISODES,
    splits: int | Sequence[int] = SPLITS,
    seed: int = 0,
    others: Others = _honest,
) -> Iterator[Gain]:
    """The gain of each cheat that the scenario has room for, one after another; see :func:`gain_of`.

    Args:
        scenario: The cooperative, made by :func:`tempting`.
        rule: The credit rule.
        names: Names of cheats; all by default.
        episodes: Episodes on each split.
        splits: Seeds of splits of the data, or how many.
        seed: Seed of the first episode.
        others: Makes the policy of everybody else.

    Raises:
        ValueError: If there is no such cheat; the message lists the known names.
    """
    for name in CHEATS if names is None else names:
        if name not in CHEATS:
            raise unknown_name("cheat", name, list(CHEATS))
        cheat = CHEATS[name]
        if not cheat.lacks(scenario):
            yield gain_of(cheat, scenario, rule, episodes=episodes, splits=splits, seed=seed, others=others)


def played(engine: Engine, agent: Agent, seeds: Sequence[int]) -> dict[str, Tensor]:
    """What an episode brought, in double precision: ``return`` and ``principal`` ``(E, N)``, and ``welfare`` ``(E,)``.

    ``return`` is that of a seat's principal, under all its names together: the public share and what loyalty takes, which a principal has
    by itself, are counted once. ``principal`` is the same less the harm to its values, and without what loyalty takes.
    """
    metrics = {name: one.double() for name, one in play(engine, agent, seeds).items()}
    reward = engine.scenario.reward
    harm = metrics.get("own_harm", torch.zeros_like(metrics["return"]))
    earned = metrics["return"]
    if engine.names is not None:
        owner = torch.tensor(engine.names.owner)
        same = (owner[:, None] == owner).double()  # (N, N)
        earned = earned @ same - (same.sum(dim=1) - 1) * counted_once(engine).double()
    return {"return": earned, "principal": earned + (reward.loyalty - 1) * harm, "welfare": metrics["welfare"]}


def _populated(others: Others, scenario: Scenario) -> Agent:
    """The policy of everybody else, apart from the scenario's population."""
    return populated(others(), scenario)


def _taken(agent: Agent) -> set[int]:
    """The seats that have somebody of their own."""
    return set(agent.others) if isinstance(agent, Seats) else set()


def _first_free(agent: Agent, scenario: Scenario) -> int:
    """The first principal whose seat has nobody of its own.

    Raises:
        ValueError: If there is none.
    """
    free = [seat for seat in range(scenario.principals) if seat not in _taken(agent)]
    if not free:
        raise ValueError("every seat has an agent of its own, and none is left to cheat: leave one free")
    return free[0]


def _in_every_seat(name: str, scenario: Scenario, rule: str, seeds: Sequence[int], others: Others) -> Sample:
    """An agent in each seat in turn, while the others do as they do; a mean over the seats in which it can cheat."""
    n_agents, episodes = scenario.n_agents, len(seeds)
    engine = Engine(scenario, rule, episodes)
    plain = played(engine, others(), seeds)
    every = [*seeds] * n_agents  # seat by seat
    who = torch.arange(n_agents).repeat_interleave(episodes)  # the cheat's seat, (N·E,)
    plays = torch.nn.functional.one_hot(who, n_agents)
    cheated = played(Engine(scenario, rule, len(every)), Mixture([others(), make(name)], plays), every)
    rows = torch.arange(len(every))
    able = torch.ones(episodes, n_agents, dtype=torch.bool)
    able[:, list(_taken(others()))] = False
    if set(getattr(class_of(name), "kinds", ())) & {"lax", "strict"}:  # declaring values needs a principal who has some
        able &= engine.profiles.tolerates

    def mean(part: Tensor) -> Tensor:
        return torch.where(able, part, torch.nan).nanmean(dim=1)

    def of_cheat(part: str) -> Tensor:
        return mean(cheated[part][rows, who].reshape(n_agents, episodes).T - plain[part])

    welfare = cheated["welfare"].reshape(n_agents, episodes).T - plain["welfare"][:, None]
    return Sample(of_cheat("return"), of_cheat("principal"), mean(welfare))


def _sample(plain: Mapping[str, Tensor], cheated: Mapping[str, Tensor], seats: Sequence[int]) -> Sample:
    """What some seats gained, a mean over them, where both were played with the same seeds."""
    gain, principal = ((cheated[part][:, seats] - plain[part][:, seats]).mean(dim=1) for part in ("return", "principal"))
    return Sample(gain, principal, cheated["welfare"] - plain["welfare"])


def _mixed(scenario: Scenario, episodes: int, others: Others, name: str, seats: Sequence[int]) -> Mixture:
    """An agent in some seats, and the others beside it."""
    plays = torch.zeros(episodes, scenario.n_agents, dtype=torch.int64)
    plays[:, list(seats)] = 1
    return Mixture([others(), make(name)], plays)


def _in_cabal(scenario: Scenario, rule: str, seeds: Sequence[int], others: Others) -> Sample:
    """All members of the cabal at once, apart from seats that have somebody of their own; a mean over them."""
    assert scenario.conduct is not None
    members = [seat for seat in scenario.conduct.cabal if seat not in _taken(others())]
    if not members:
        nothing = torch.full((len(seeds),), torch.nan, dtype=torch.float64)
        return Sample(nothing, nothing, nothing)
    plain = played(Engine(scenario, rule, len(seeds)), others(), seeds)
    cheated = played(Engine(scenario, rule, len(seeds)), _mixed(scenario, len(seeds), others, "colluder", members), seeds)
    return _sample(plain, cheated, members)


def _under_names(n_names: int, copied: bool, scenario: Scenario, rule: str, seeds: Sequence[int], others: Others) -> Sample:
    """The first principal that is free under several names; the total of its names."""
    principal = _first_free(others(), scenario)
    names = Names.of(scenario.principals, scenario.lots.per_principal, [(principal, n_names, copied)])
    plain = played(Engine(scenario, rule, len(seeds)), others(), seeds)
    return _sample(plain, played(Engine(scenario, rule, len(seeds), names=names), others(), seeds), [principal])


def _in_another_seat(scenario: Scenario, rule: str, seeds: Sequence[int], others: Others) -> Sample:
    """By seat: what principals get in it over what they get in the mean seat, with the same lots and profiles; a mean over principals.

    A rule that treats agents alike pays the same wherever a principal sits.
    """
    n_agents, every = scenario.n_agents, (True,) * scenario.lots.per_principal
    found = []
    for shift in range(n_agents):
        owner = tuple((seat + shift) % n_agents for seat in range(n_agents))
        names = Names(owner, (every,) * n_agents)
        found.append(played(Engine(scenario, rule, len(seeds), names=names), others(), seeds)["return"])
    by_seat = torch.stack(found)  # (shifts, E, seats)
    principals = torch.stack([by_seat[:, :, seat].roll(seat, dims=0) for seat in range(n_agents)], dim=2)  # (principal, E, seat)
    advantage = (principals - principals.mean(dim=2, keepdim=True)).mean(dim=0)  # (E, seats)
    return Sample(advantage, advantage, torch.zeros(len(seeds), dtype=torch.float64))


def _with_wrong_labels(scenario: Scenario, rule: str, seeds: Sequence[int], others: Others) -> Sample:
    """The labels of the first principal that is free are wrong, and its proxies contribute all its lots. All else is the same."""
    principal = _first_free(others(), scenario)
    honest = Engine(scenario, rule, len(seeds))
    corruption = scenario.lots.corruption
    flips = corruption.model_copy(update={"principals": tuple(sorted({*corruption.principals, principal}))})
    wrong = scenario.model_copy(
        update={
            "lots": scenario.lots.model_copy(update={"corruption": flips}),
            "reward": scenario.reward.model_copy(update={"scale": honest.reward_scale}),  # in the same unit
        }
    )
    seats = [principal] if honest.names is None else honest.names.names_of(principal)
    plain = played(honest, others(), seeds)
    cheated = played(Engine(wrong, rule, len(seeds)), _mixed(scenario, len(seeds), others, "label_flipper", seats), seeds)
    return _sample(plain, cheated, [principal])


def _lacks_agent_needs(name: str, scenario: Scenario) -> str:
    lacks: str = class_of(name).lacks(scenario)
    return lacks


def _lacks_cabal(scenario: Scenario) -> str:
    if scenario.conduct is None or not scenario.conduct.cabal:
        return "the scenario has no cabal: add conduct: {cabal: [0, 1]}"
    return _lacks_agent_needs("colluder", scenario)


def _lacks_principals(n_names: int, copied: bool, scenario: Scenario) -> str:
    if scenario.names is not None:
        return "principals have several names already"
    return "" if copied or scenario.lots.per_principal >= n_names else f"a principal has fewer than {n_names} lots to deal out"


def _lacks_labels(scenario: Scenario) -> str:
    corruption = scenario.lots.corruption
    return "" if corruption.what == "labels" and corruption.pairs else "the scenario says of no labels how they are wrong"


def _lacks_equals(scenario: Scenario) -> str:
    if scenario.company:
        return "the scenario's population plays differently in different seats"
    return _lacks_principals(1, True, scenario)


def _lacks_kind(kind: str, scenario: Scenario) -> str:
    names = () if scenario.conduct is None else scenario.conduct.names
    return "" if any(kind_of(name) == kind for name in names) else f"the scenario has no {kind}: add it to conduct"


def _scripted(name: str, what: str) -> Cheat:
    return Cheat(name, what, partial(_in_every_seat, name), partial(_lacks_agent_needs, name), class_of(name).kinds)


def _doubler(name: str, what: str, kind: str) -> Cheat:
    agent = f"doubler(kind={kind!r})"
    return Cheat(name, what, partial(_in_every_seat, agent), partial(_lacks_kind, kind), (kind,))


CHEATS: dict[str, Cheat] = {
    one.name: one
    for one in (
        _scripted("free_rider", "sends the last step back, and no data"),
        _scripted("noise_maker", "sends random updates, and no data"),
        _scripted("plagiarist", "sends the mean of what others sent last, and no data"),
        _scripted("recycler", "sends what its lots proposed a round ago"),
        _doubler("doubler", "sends the update of a lot twice", "twin"),
        _doubler("near_doubler", "sends the update of a lot twice, once with some noise", "near_twin"),
        _scripted("booster", "sends the update of a lot enlarged"),
        _scripted("saboteur", "sends the update of a lot with the sign turned"),
        _scripted("over_claimer", "claims more rows than it has"),
        _scripted("hypocrite", "declares larger tolerances than its principal has"),
        _scripted("blocker", "objects to all that others send"),
        _scripted("sandbagger", "keeps its data back for half the episode"),
        Cheat("cabal", "spares and praises its cabal alone", _in_cabal, _lacks_cabal, ("block", "vouch")),
        Cheat("two_names", "deals its lots out to two names", partial(_under_names, 2, False), partial(_lacks_principals, 2, False)),
        Cheat("copied_lots", "offers its lots under two names", partial(_under_names, 2, True), partial(_lacks_principals, 2, True)),
        Cheat("label_flipper", "contributes lots whose labels are wrong", _with_wrong_labels, _lacks_labels),
        Cheat("best_seat", "takes the seat that is paid best", _in_another_seat, _lacks_equals),
    )
}
"""The ways to cheat that are measured, by name."""
