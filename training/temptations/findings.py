"""Red teams: what a credit rule tempts proxies to do, found out by scripted cheats, a learned best response, and trainings of all.

For one rule and one scenario:

1. Each scripted cheat plays among honest proxies (:mod:`~proxycoop.training.temptations.cheats`).
2. All proxies are trained where they may cheat, and where they may not. The difference is the *damage*.
3. A best response is learned against honest proxies, and against those that were trained
   (:mod:`~proxycoop.training.temptations.exploit`).
4. Of the cheats that pay, the worst are measured again under what the package has against them.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from ... import credit
from ...agents import make, play
from ...agents.agent import class_of
from ...agents.seats import populated, require_unprivileged
from ...envs import Engine, Scenario
from ...envs.shared import require_served
from ..evaluate import EVALUATION_SEED, held_out_splits
from ..executors import Executor, executor, require_place
from ..intervals import Estimate
from ..libraries.registry import settings_for
from ..own_modules import modules_for
from ..train import train
from .cheats import CHEATS, Gain, gain_of, tempting
from .exploit import STEPS, Response, best_response, frozen

TRAINING_STEPS = 120_000
"""Agent-steps of each training of all proxies."""
EPISODES, SPLITS = 16, 6
"""Episodes on each split, and splits, on which trained proxies are measured."""
MOST_DEFENDED = 3
"""Of how many cheats that pay it is tried what helps."""
HELPS = 0.5
"""A defence helps if it takes at least this share of a cheat's gain, or makes it pay no more."""
COSTS = 0.1
"""And if honest proxies lose no more than this share of their welfare."""


@dataclass(frozen=True)
class Defence:
    """What of a cheat's gain is left under another rule, or with another setting.

    Attributes:
        what: The rule, or the setting, as one writes it.
        cheat: Name of the cheat.
        gain: What the cheat gains under it.
        share: The same as a share of its gain without.
        before: Welfare of honest proxies without it, in reward units.
        after: Welfare of honest proxies under it.
    """

    what: str
    cheat: str
    gain: Estimate
    share: float
    before: float
    after: float

    @property
    def helps(self) -> bool:
        """Whether it takes a good part of the gain, and little of honest proxies' welfare."""
        stops = self.gain.mean is not None and self.gain.mean <= (self.gain.half_width or 0.0)
        return (self.share <= 1 - HELPS or stops) and self.after >= self.before - COSTS * abs(self.before)


@dataclass(frozen=True)
class Findings:
    """What was found out about a rule in a scenario.

    Attributes:
        rule: The rule.
        scenario: Name of the scenario.
        gains: Of each cheat what it gains among honest proxies.
        responses: The best responses, to honest and to trained proxies.
        worlds: Measures of what trained proxies do: ``tempted``, where they may cheat, and ``honest``, where they may not; ``planner``, a
            reference that may use every item and knows the gain.
        defences: What was tried against the cheats that pay.
        left_out: Cheats that the scenario has no room for, with the reason.
        settings: Steps, seed, episodes and splits.
    """

    rule: str
    scenario: str
    gains: tuple[Gain, ...]
    responses: tuple[Response, ...]
    worlds: Mapping[str, Mapping[str, Estimate]]
    defences: tuple[Defence, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def paying(self) -> list[Gain]:
        """The cheats that pay, the one that gains most first."""
        return sorted((one for one in self.gains if one.pays), key=lambda one: -(one.gain.mean or 0.0))

    def damage(self, measure: str) -> float | None:
        """By how much a measure is higher where all were trained with temptations than where they were trained without; ``None`` if
        it is undefined.
        """
        pair = [self.worlds[world].get(measure) for world in ("tempted", "honest") if world in self.worlds]
        if len(pair) < 2 or any(one is None or one.mean is None for one in pair):
            return None
        tempted, honest = (one.mean for one in pair if one is not None)
        assert tempted is not None
        assert honest is not None
        return tempted - honest

    @property
    def price_of_anarchy(self) -> float | None:
        """Welfare of proxies that were trained where they may cheat, as a share of the planner's; ``None`` if that is not positive."""
        learned, planned = (self.worlds.get(world, {}).get("welfare") for world in ("tempted", "planner"))
        if learned is None or planned is None or learned.mean is None or not planned.mean or planned.mean <= 0:
            return None
        return learned.mean / planned.mean

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            **asdict(self),
            "gains": [{**asdict(one), "pays": one.pays} for one in self.gains],
            "defences": [{**asdict(one), "helps": one.helps} for one in self.defences],
            "price_of_anarchy": self.price_of_anarchy,
            "damage": {name: self.damage(name) for name in self.worlds.get("tempted", {})},
        }


@dataclass
class _Job:
    """Something to be done in a process of its own, once others are done."""

    key: str
    what: str
    call: Callable[..., Any]
    arguments: tuple[Any, ...]
    after: tuple[str, ...] = ()


def redteam(
    rules: Sequence[str],
    scenario: Scenario,
    folder: str | Path,
    *,
    steps: int = TRAINING_STEPS,
    response_steps: int = STEPS,
    seed: int = 0,
    jobs: int | None = None,
    ray: str | None = None,
    told: Callable[[int, int, str], None] | None = None,
) -> list[Findings]:
    """Find out what rules tempt proxies to do.

    Args:
        rules: Credit rules, with arguments if they take any.
        scenario: The cooperative. Where it does not say what proxies may do, they may do everything (:func:`~.cheats.tempting`).
        folder: Where trainings are kept. Those that are finished there with the same settings are not run again.
        steps: Agent-steps of each training of all proxies.
        response_steps: Agent-steps of each best response.
        seed: Seed of the trainings.
        jobs: Processes that run at once; by default one per core.
        ray: Address of a Ray cluster on which it is found out instead; see :mod:`~proxycoop.training.executors`.
        told: Called with the jobs done, their total, and what is being tried, or what has just been done. Once all is done, with nothing.

    Returns:
        The findings, one for each rule.

    Raises:
        ValueError: If a rule is unknown or cannot serve the scenario, or something fails; the message says what.
    """
    require_place(jobs, ray)
    for rule in rules:
        require_served(scenario, credit.make(rule), rule)
    require_unprivileged(populated(make("honest"), tempting(scenario, rules[0])))
    work = [job for rule in rules for job in _jobs_of(rule, scenario, Path(folder), steps, response_steps, seed)]
    modules = list(dict.fromkeys(module for rule in rules for module in modules_for(scenario, rule, scenario.company.values())))
    with executor(modules, jobs=jobs, ray=ray, n_tasks=len(work)) as workers:
        done = _worked_off(work, workers, told)
        for job in work:
            if job.call is _response and isinstance(policy := job.arguments[2], Path):
                done[job.key] = replace(done[job.key], others=frozen(policy))  # a cluster played a copy of it, elsewhere
        more = [job for rule in rules for job in _defences_of(rule, scenario, done)]
        done |= _worked_off(more, workers, told, len(work))
    settings = {"steps": steps, "response_steps": response_steps, "seed": seed, "episodes": EPISODES, "splits": SPLITS}
    return [_findings(rule, scenario, done, settings) for rule in rules]


def _jobs_of(rule: str, scenario: Scenario, folder: Path, steps: int, response_steps: int, seed: int) -> Iterator[_Job]:
    """What is found out about one rule, the longest first."""
    tempted, plain = tempting(scenario, rule), _untempted(scenario)
    for name, where in (("tempted", tempted), ("honest", plain)):
        kept = folder / _digest(rule, where, steps, seed, name)
        what = "all proxies learn, and may cheat" if name == "tempted" else "all proxies learn, and may not cheat"
        yield _Job(f"{rule}/{name}", f"{rule}: {what}", _world, (where, rule, steps, seed, kept))
    responds = folder / _digest(rule, tempted, response_steps, seed, "response-honest")
    exploits = f"{rule}: one proxy learns to exploit"
    given = (tempted, rule, "honest", responds, response_steps, seed)
    yield _Job(f"{rule}/response-honest", f"{exploits} honest ones", _response, given)
    kept = folder / _digest(rule, tempted, steps, seed, "tempted")
    responds = folder / _digest(rule, tempted, response_steps, seed, f"response-learned-{steps}")
    yield _Job(
        f"{rule}/response-learned",
        f"{exploits} those that learned",
        _response,
        (tempted, rule, kept, responds, response_steps, seed),
        after=(f"{rule}/tempted",),
    )
    yield _Job(f"{rule}/planner", f"{rule}: a planner that may use everything", _planned, (tempted,))
    for name, cheat in CHEATS.items():
        if not cheat.lacks(tempted):
            where = tempting(scenario, rule, cheat.kinds)
            yield _Job(f"{rule}/cheat/{name}", f"{rule}: a proxy that {cheat.what}", _gained, (name, where, rule))


def _untempted(scenario: Scenario) -> Scenario:
    """The same cooperative, in which nobody may cheat. Seats of the population whose agents then cannot play are free."""
    plain = scenario.without_items()
    members = tuple(one for one in scenario.population if getattr(class_of(one.agent), "plays", lambda _: True)(plain))
    return plain.model_copy(update={"population": members})


def _defences_of(rule: str, scenario: Scenario, done: Mapping[str, Any]) -> Iterator[_Job]:
    """What is tried against the cheats that pay most under a rule."""
    found = [done[f"{rule}/cheat/{name}"] for name in CHEATS if f"{rule}/cheat/{name}" in done]
    worst = sorted((gain for gain in found if gain.pays), key=lambda gain: -(gain.gain.mean or 0.0))[:MOST_DEFENDED]
    for gain in worst:
        tempted = tempting(scenario, rule, CHEATS[gain.cheat].kinds)
        for what, other, where in defences(rule, tempted):
            key = f"{rule}/defence/{gain.cheat}/{what}"
            yield _Job(key, f"{rule}: {what} against {gain.cheat}", _defended, (what, gain, rule, other, tempted, where))


def defences(rule: str, scenario: Scenario) -> list[tuple[str, str, Scenario]]:
    """What the package has against cheats: what to write, the rule that then pays, and the scenario that is then played.

    The rules are those that change what another pays. The settings are unanimous screening with a guard, and a limit on norms of twice the
    mean norm at the start.
    """
    found = []
    for wrapper in ("clipped", "normalised", "smoothed"):
        other = f"{wrapper}(rule={rule!r})"
        try:
            require_served(scenario, credit.make(other), other)
        except ValueError:
            continue
        found.append((f"--credit {json.dumps(other)}", other, scenario))
    screening = scenario.screening
    if scenario.profiles and (screening.governance != "unanimous" or not screening.guard):
        stricter = screening.model_copy(update={"governance": "unanimous", "guard": True})
        try:
            changed = Scenario.model_validate(scenario.to_dict() | {"screening": stricter.model_dump()})
        except ValueError:  # its filter or its harm does not go with it
            changed = None
        if changed is not None:
            found.append(("--set screening.governance=unanimous --set screening.guard=true", rule, changed))
    if scenario.profiles and screening.governance == "unanimous":
        engine = Engine(scenario, None, 16)
        engine.reset(range(16))
        most = float(f"{2 * float(engine.prospect.norm[..., : engine.num_lots].mean()):.2g}")
        tightest = min((profile.max_norm or most for profile in scenario.profiles), default=most)
        if tightest >= most:
            first = scenario.profiles[0].model_copy(update={"max_norm": most})
            limited = scenario.model_copy(update={"profiles": (first, *scenario.profiles[1:])})
            found.append((f"--set profiles.0.max_norm={most:g}", rule, limited))
    return found


def _worked_off(work: Sequence[_Job], workers: Executor, told: Callable[[int, int, str], None] | None, before: int = 0) -> dict[str, Any]:
    """Do all jobs in processes of their own, each after those that it waits for. Returns what they answered, by their keys."""
    answers: dict[str, Any] = {}
    waiting = list(work)
    running: dict[Future[Any], _Job] = {}
    while waiting or running:
        for job in [one for one in waiting if set(one.after) <= answers.keys()][: workers.slots - len(running)]:
            waiting.remove(job)
            running[workers.submit(job.call, *job.arguments)] = job
            if told is not None:
                told(before + len(answers), before + len(work), job.what)
        finished, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in finished:
            job = running.pop(future)
            try:
                answers[job.key] = future.result()
            except Exception as error:  # a rule of one's own may raise anything
                raise ValueError(f"{job.what}: failed: {error}") from error
            if told is not None:
                told(before + len(answers), before + len(work), f"{job.what}: done")
    if told is not None and work:
        told(before + len(work), before + len(work), "")
    return answers


def _digest(rule: str, scenario: Scenario, steps: int, seed: int, what: str) -> str:
    """Name of a training's folder, which is another one for other settings, and for a rule of the same name with other code."""
    try:
        code = inspect.getsource(type(credit.make(rule)))
    except (OSError, TypeError):  # it was defined where no file is, as in an interactive session
        code = ""
    said = json.dumps([rule, code, scenario.to_dict(), steps, seed, what], sort_keys=True)
    safe = "".join(letter if letter.isalnum() or letter in "_-" else "-" for letter in rule)[:40]
    return f"{safe}-{what}-{hashlib.sha256(said.encode()).hexdigest()[:10]}"


def _world(scenario: Scenario, rule: str, steps: int, seed: int, folder: Path) -> dict[str, Estimate]:
    """Train all proxies, and measure what they do on splits that were held out."""
    settings = settings_for("ippo", "ppo", scenario=scenario, credit=rule, seed=seed, total_steps=steps)
    kept = train(settings, folder, resume=True, tensorboard=False)
    return _measured(scenario, rule, lambda: make("learned", path=kept))


def _planned(scenario: Scenario) -> dict[str, Estimate]:
    """What a planner reaches that may use every item."""
    return _measured(scenario, None, lambda: make("measuring_planner"))


def _measured(scenario: Scenario, rule: str | None, agent: Callable[[], Any]) -> dict[str, Estimate]:
    """Metrics of episodes on splits that were held out, with intervals over splits."""
    found: dict[str, list[float]] = {}
    for index, split in enumerate(held_out_splits(SPLITS)):
        first = EVALUATION_SEED + index * EPISODES
        engine = Engine(scenario.on_split(split), rule, EPISODES)
        metrics = play(engine, populated(agent(), scenario), range(first, first + EPISODES))
        for name, measure in metrics.items():
            found.setdefault(name, []).append(float(measure.double().mean()))
        if "declared/larger" in metrics:
            found.setdefault("declared", []).append(_declared(engine))
    return {name: Estimate.of(torch.tensor(means, dtype=torch.float64)) for name, means in found.items()}


def _declared(engine: Engine) -> float:
    """What is declared over what is true: mean over rounds and over proxies whose principal has a tolerance."""
    pulled = [result.pulled for result in engine.history[:-1] if result.pulled is not None]  # each counts in the next round
    true = torch.ones(engine.num_envs, engine.num_agents, dtype=torch.float64)
    factors = torch.stack([true, *(engine.items.declared(one) for one in pulled)])
    whose = engine.profiles.tolerates.expand(factors.shape[:3])
    return float(factors[whose].mean()) if whose.any() else 1.0


def _response(scenario: Scenario, rule: str, others: str | Path, folder: Path, steps: int, seed: int) -> Response:
    """A best response to others: an agent by name, or the policy of a training's folder."""
    return best_response(scenario, rule, frozen(others) if isinstance(others, Path) else others, folder, steps=steps, seed=seed)


def _gained(name: str, scenario: Scenario, rule: str) -> Gain:
    return gain_of(CHEATS[name], scenario, rule)


def _defended(what: str, gain: Gain, rule: str, other: str, scenario: Scenario, where: Scenario) -> Defence:
    """A cheat's gain, and honest proxies' welfare, under a defence."""
    against = gain_of(CHEATS[gain.cheat], where, other)
    welfare = []
    for name, played in ((rule, scenario), (other, where)):
        metrics = _measured(played, name, lambda: make("honest"))
        welfare.append(metrics["welfare"].mean or 0.0)
    share = (against.gain.mean or 0.0) / (gain.gain.mean or 1.0)
    return Defence(what, gain.cheat, against.gain, share, *welfare)


def _findings(rule: str, scenario: Scenario, done: Mapping[str, Any], settings: Mapping[str, Any]) -> Findings:
    def of(start: str) -> list[Any]:
        return [answer for key, answer in done.items() if key.startswith(f"{rule}/{start}")]

    tempted = tempting(scenario, rule)
    return Findings(
        rule=rule,
        scenario=scenario.name,
        gains=tuple(sorted(of("cheat/"), key=lambda one: list(CHEATS).index(one.cheat))),
        responses=(done[f"{rule}/response-honest"], done[f"{rule}/response-learned"]),
        worlds={world: done[f"{rule}/{world}"] for world in ("tempted", "honest", "planner")},
        defences=tuple(of("defence/")),
        left_out={name: lacks for name, cheat in CHEATS.items() if (lacks := cheat.lacks(tempted))},
        settings=settings,
    )
