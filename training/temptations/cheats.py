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

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ... import credit as credit_rules
from ...agents import Agent, Mixture, make, play
from ...agents.agent import class_of
from ...agents.seats import populated
from ...envs import Engine, Scenario
from ...envs.conduct import Conduct
from ...envs.conduct.settings import FORGERIES, LEVERS
from ...envs.data.names import Names
from ...envs.metrics import episode_metrics
from ..evaluate import held_out_splits
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
        gain: What the cheat gained, in reward units.
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
        ValueError: If the substrate is vertical, where proxies hold columns.
    """
    if scenario.conduct is not None and scenario.conduct.names:
        return scenario
    screening = scenario.screening
    cabal = list(CABAL) if scenario.n_agents > len(CABAL) else []
    fits = {
        "stale": scenario.horizon > 1,
        "quit": False,
        "strict": (tolerates := any(profile.tolerances or profile.relative_tolerances for profile in scenario.profiles)),
        "lax": tolerates,
        "block": screening.governance in ("unanimous", "quorum", "weighted") and screening.filter == "reject",
        "vouch": bool(cabal) and rule is not None and "peer_gains" in credit_rules.make(rule).needs,
    }
    given: dict[str, Any] = {"identities": () if scenario.conduct is None else scenario.conduct.identities, "cabal": cabal}
    for part, known in (("forgeries", FORGERIES), ("levers", LEVERS)):
        given[part] = [{"kind": kind} for kind in known if fits.get(kind, True) and (kinds is None or kind in kinds)]
    parts = {name: getattr(scenario, name) for name in type(scenario).model_fields}
    return Scenario.model_validate({**parts, "conduct": Conduct.model_validate(given)})


def gain_of(
    cheat: Cheat,
    scenario: Scenario,
    rule: str,
    *,
    episodes: int = EPISODES,
    splits: int = SPLITS,
    seed: int = 0,
    others: Others = _honest,
) -> Gain:
    """Measure what a cheat gains.

    Args:
        cheat: The cheat, one of :data:`CHEATS`.
        scenario: The cooperative, made by :func:`tempting`.
        rule: The credit rule, with arguments if it takes any.
        episodes: Episodes on each split of the data.
        splits: Splits of the data, which no training plays on. Intervals are over them.
        seed: Seed of the first episode; the others follow by a step of one.
        others: Makes the policy of everybody else, with which the cheat is also compared in its own seat; honest by default.

    Raises:
        ValueError: If the scenario lacks what the cheat needs.
    """
    if lacks := cheat.lacks(scenario):
        raise ValueError(lacks)
    everybody = partial(_populated, others, scenario)
    samples = []
    for index, split in enumerate(held_out_splits(splits)):
        first = seed + index * episodes
        samples.append(cheat.measure(scenario.on_split(split), rule, range(first, first + episodes), everybody))

    def over_splits(which: str) -> Estimate:
        parts = [getattr(sample, which) for sample in samples]
        return Estimate.of(parts[0] if splits == 1 else torch.stack([part.nanmean() for part in parts]))

    return Gain(cheat.name, over_splits("gain"), over_splits("principal"), over_splits("welfare"))


def gains(
    scenario: Scenario,
    rule: str,
    names: Sequence[str] | None = None,
    *,
    episodes: int = EPISODES,
    splits: int = SPLITS,
    seed: int = 0,
    others: Others = _honest,
) -> Iterator[Gain]:
    """The gain of each cheat that the scenario has room for, one after another; see :func:`gain_of`.

    Args:
        scenario: The cooperative, made by :func:`tempting`.
        rule: The credit rule.
        names: Names of cheats; all by default.
        episodes: Episodes on each split.
        splits: Splits of the data.
        seed: Seed of the first episode.
        others: Makes the policy of everybody else.
    """
    for name in CHEATS if names is None else names:
        cheat = CHEATS[name]
        if not cheat.lacks(scenario):
            yield gain_of(cheat, scenario, rule, episodes=episodes, splits=splits, seed=seed, others=others)


def played(engine: Engine, agent: Agent, seeds: Sequence[int]) -> dict[str, Tensor]:
    """Returns ``(E, N)``, principals' welfare ``(E, N)`` and welfare ``(E,)`` of an episode, in double precision."""
    metrics = play(engine, agent, seeds)
    own = metrics.get("principal_welfare", metrics["return"])
    return {name: part.double() for name, part in (("return", metrics["return"]), ("principal", own), ("welfare", metrics["welfare"]))}


def _in_every_seat(name: str, scenario: Scenario, rule: str, seeds: Sequence[int], others: Others) -> Sample:
    """An agent in each seat in turn, while the others are not; a mean over the seats in which it can cheat."""
    n_agents, episodes = scenario.n_agents, len(seeds)
    honest = Engine(scenario, rule, episodes)
    plain = played(honest, others(), seeds)
    every = [*seeds] * n_agents  # seat by seat
    who = torch.arange(n_agents).repeat_interleave(episodes)  # the cheat's seat, (N·E,)
    plays = torch.nn.functional.one_hot(who, n_agents)
    cheated = played(Engine(scenario, rule, len(every)), Mixture([others(), make(name)], plays), every)
    rows = torch.arange(len(every))

    def of_cheat(part: str) -> Tensor:
        found = cheated[part][rows, who].reshape(n_agents, episodes).T  # (E, N)
        return found - plain[part]

    able = _able(name, honest)  # (E, N)
    welfare = cheated["welfare"].reshape(n_agents, episodes).T - plain["welfare"][:, None]

    def mean(part: Tensor) -> Tensor:
        return torch.where(able, part, torch.nan).nanmean(dim=1)

    return Sample(mean(of_cheat("return")), mean(of_cheat("principal")), mean(welfare))


def _populated(others: Others, scenario: Scenario) -> Agent:
    """The policy of everybody else, apart from the scenario's population."""
    return populated(others(), scenario)


def _able(name: str, engine: Engine) -> Tensor:
    """In which seats an agent can cheat, bool ``(E, N)``: declaring values needs a principal who has some, and seats of the scenario's
    population are taken.
    """
    free = torch.ones(engine.num_envs, engine.num_agents, dtype=torch.bool)
    free[:, list(engine.scenario.company)] = False
    return free & engine.profiles.tolerates if set(getattr(class_of(name), "kinds", ())) & {"lax", "strict"} else free


def _in_cabal(scenario: Scenario, rule: str, seeds: Sequence[int], others: Others) -> Sample:
    """All members of the cabal at once; a mean over them."""
    assert scenario.conduct is not None
    members = list(scenario.conduct.cabal)
    plain = played(Engine(scenario, rule, len(seeds)), others(), seeds)
    plays = torch.zeros(len(seeds), scenario.n_agents, dtype=torch.int64)
    plays[:, members] = 1
    cheated = played(Engine(scenario, rule, len(seeds)), Mixture([others(), make("colluder")], plays), seeds)
    gain, principal = ((cheated[part] - plain[part])[:, members].mean(dim=1) for part in ("return", "principal"))
    return Sample(gain, principal, cheated["welfare"] - plain["welfare"])


def _under_names(n_names: int, copied: bool, scenario: Scenario, rule: str, seeds: Sequence[int], others: Others) -> Sample:
    """The first principal under several names; the total of its names."""
    names = Names.of(scenario.principals, scenario.lots.per_principal, [(0, n_names, copied)])
    plain = played(Engine(scenario, rule, len(seeds)), others(), seeds)
    engine = Engine(scenario, rule, len(seeds), names=names)
    cheated = played(engine, others(), seeds)
    own = names.names_of(0)
    once = engine.reward_scale * scenario.reward.public_share * episode_metrics(engine)["gain"].double()
    harm = cheated["return"][:, 0] - cheated["principal"][:, 0]  # (1 − λ)·H, for the return has lost λ·H already
    loyalty = scenario.reward.loyalty
    if loyalty:
        once = once - loyalty * episode_metrics(engine)["own_harm"][:, 0].double()
    total = cheated["return"][:, own].sum(dim=1) - (n_names - 1) * once
    return Sample(total - plain["return"][:, 0], total - harm - plain["principal"][:, 0], cheated["welfare"] - plain["welfare"])


def _in_another_seat(scenario: Scenario, rule: str, seeds: Sequence[int], others: Others) -> Sample:
    """The best seat: what principals get in it over what they get in the mean seat, with the same lots and profiles.

    A rule that treats agents alike pays the same wherever a principal sits. The best seat is that with the highest mean, so where seats
    differ by chance alone the gain is slightly above 0.
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
    best = advantage[:, int(advantage.mean(dim=0).argmax())]
    return Sample(best, best, torch.zeros_like(best))


def _with_wrong_labels(scenario: Scenario, rule: str, seeds: Sequence[int], others: Others) -> Sample:
    """The first principal's labels are wrong, and its proxy contributes them all."""
    corruption = scenario.lots.corruption.model_copy(update={"principals": (0,)})
    wrong = scenario.model_copy(update={"lots": scenario.lots.model_copy(update={"corruption": corruption})})
    plain = played(Engine(scenario, rule, len(seeds)), others(), seeds)
    plays = torch.zeros(len(seeds), scenario.n_agents, dtype=torch.int64)
    plays[:, 0] = 1
    cheated = played(Engine(wrong, rule, len(seeds)), Mixture([others(), make("label_flipper")], plays), seeds)
    gain, principal = ((cheated[part] - plain[part])[:, 0] for part in ("return", "principal"))
    return Sample(gain, principal, cheated["welfare"] - plain["welfare"])


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


def _scripted(name: str, what: str) -> Cheat:
    return Cheat(name, what, partial(_in_every_seat, name), partial(_lacks_agent_needs, name), class_of(name).kinds)


CHEATS: dict[str, Cheat] = {
    one.name: one
    for one in (
        _scripted("free_rider", "sends the last step back, and no data"),
        _scripted("noise_maker", "sends random updates, and no data"),
        _scripted("plagiarist", "sends the mean of what others sent last, and no data"),
        _scripted("recycler", "sends what its lots proposed a round ago"),
        _scripted("doubler", "sends the update of a lot twice"),
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
        Cheat("best_seat", "takes the seat that is paid best", _in_another_seat, lambda scenario: _lacks_principals(1, True, scenario)),
    )
}
"""The ways to cheat that are measured, by name."""
