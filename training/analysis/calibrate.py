r"""Measure a cooperative, and propose a start, learning rates, tolerances and limits for it.

Three things are measured, one after the other, since each depends on those before it. Numbers are means over splits of the data.

1. **The start.** The model is trained on the public rows at 8 learning rates, by the optimiser that the scenario names. Let H be the log
   loss of guessing by the frequencies of the classes, and :math:`L_{min}` the least log loss on the validation rows that any rate reaches
   within 64 steps. Half of what the public rows can teach is left to the cooperative: the start is the first step with
   :math:`L \le (H + L_{min}) / 2`. The rate is the largest that takes at least 5 steps to it, with a loss on the public rows that falls at
   every step until twice as many.
2. **The learning rate.** From that start, reference episodes are played (all clean lots, no screening) at up to 11 rates. The rate is the
   one at which an episode gains two thirds of the most that any rate gains; between two rates, gains are interpolated over the rate's
   logarithm. Beyond it steps soon overshoot, and corrupt lots do more harm. It is the substrate's rate if the server is ``sgd``, where only
   the product of the two rates counts, and the server's if it is ``adam``, where the size of updates hardly counts. The other one stays,
   and so do the local steps.
3. **Tolerances and limits**, at that start and that rate: the level at which a share of all updates of the reference episodes would be
   blocked, corrupt lots included. They are absolute, or shares of the value's loss, as in the scenario. A limit is at least the tolerance
   for the same value, so that a first round may use that. A scenario that has values and no profiles gets a profile for each.

Last, some rounds of the proposed cooperative are played under the credit rule, in as many cooperatives as a training steps at once, to see
how many agent-steps a CPU second they take. What the learner takes comes on top.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ...checks import real_number, whole_number
from ...credit import make
from ...envs import Engine, Scenario
from ...envs.devices import plain_torch
from ...envs.scenario import Start, load
from ...envs.screening.profiles import Profile
from ...envs.shared import require_served, shared
from ..settings import TrainSettings
from .diagnosis import BOUNDS, BoundName, Finding, Looks, diagnose, level, look, splits_of, utility_of_guessing

RULE, BLOCKED, EPISODES = "shapley", 0.1, 8
"""Defaults of :func:`calibrate`."""
SHARES = (0.1, 0.25, 0.5)
"""Shares of the updates that the levels in :attr:`Calibration.levels` would block."""
_START_RATES = {
    "sgd": (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0),
    "adam": (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05),
}
_START_STEPS = 64
_LEAST_STEPS = 5
_RATES = {
    "sgd": (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0),
    "adam": (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0),
}
_SAME_UNIT: tuple[tuple[BoundName, BoundName], ...] = (("limits", "tolerances"), ("relative_limits", "relative_tolerances"))
_ENOUGH = 2 / 3
_CPU_SECONDS = 2.0

Progress = Callable[[int, int, str], None]
"""Called with how many parts are done, of how many, and what is being measured."""


@dataclass(frozen=True)
class Level:
    """What updates do to a value in the reference episodes of the proposed cooperative.

    Attributes:
        value: The value's name.
        loss: Its loss where episodes begin, mean over splits, in its unit.
        harmful: Share of the updates that harm it at all.
        tolerances: Levels of an update's harm that would block 10 %, 25 % and 50 % of the updates, in the value's unit.
        relative_tolerances: The same as shares of the value's loss at the round's start.
        limits: The same of the episode's rise and the update's harm together, in the value's unit.
        relative_limits: The same as shares of the value's loss where the episode began.
    """

    value: str
    loss: float
    harmful: float
    tolerances: tuple[float, ...]
    relative_tolerances: tuple[float, ...]
    limits: tuple[float, ...]
    relative_limits: tuple[float, ...]


@dataclass(frozen=True)
class Calibration:
    """What was measured of a scenario, and what is proposed for it.

    Attributes:
        scenario: The scenario as it was.
        proposed: The scenario with the proposed start, rates and profiles.
        before: What made no sense about it.
        after: What still makes none.
        guessing: Log loss of guessing by the frequencies of the classes on the validation rows, in nats.
        start: Log loss of the scenario's own start on the same rows, in nats.
        proposed_start: Log loss of the proposed start.
        best_start: The least log loss that training on the public rows reaches.
        searched: The learning rate that was searched: ``substrate.local_lr``, ``substrate.lr`` or ``server.lr``.
        gains: Mean gain of a reference episode at each rate that was tried, in the utility's unit; not finite where the model diverged.
        proposed_gain: The same at the proposed rate.
        levels: What updates do to each value.
        blocked: Share of the updates that each proposed tolerance would block.
        n_splits: Number of data splits on which was measured.
        rule: The credit rule under which the speed was measured.
        speed: Agent-steps a CPU second, without the learner. It is the only number that differs from one time to the next.
    """

    scenario: Scenario
    proposed: Scenario
    before: tuple[Finding, ...]
    after: tuple[Finding, ...]
    guessing: float
    start: float
    proposed_start: float
    best_start: float
    searched: str
    gains: Mapping[float, float]
    proposed_gain: float
    levels: tuple[Level, ...]
    blocked: float
    n_splits: int
    rule: str
    speed: float

    def changes(self) -> dict[str, Any]:
        """The proposed settings as plain data, for a scenario that extends the one that was measured."""
        part, name = self.searched.split(".")
        plain = self.proposed.to_dict()
        changed: dict[str, Any] = {"start": plain["start"], part: {name: plain[part][name]}}
        if self.proposed.profiles:
            changed["profiles"] = [
                {"holders": profile.holders, **profile.model_dump(exclude_defaults=True)} for profile in self.proposed.profiles
            ]
        return changed


def calibrate(
    scenario: Scenario | str | Path,
    *,
    rule: str = RULE,
    blocked: float = BLOCKED,
    episodes: int = EPISODES,
    seed: int = 0,
    progress: Progress | None = None,
) -> Calibration:
    """Measure a cooperative, and propose a start, a learning rate, tolerances and limits.

    Args:
        scenario: A scenario, its name, or the path of its YAML file.
        rule: Credit rule for the speed, with arguments if it takes any.
        blocked: Share of the updates of the reference episodes that each proposed tolerance and limit would block, above 0 and below 1.
        episodes: Reference episodes on each split: the scenario's own splits, or 4.
        seed: Seed of the first episode's cooperative; the others follow by a step of one.
        progress: Called before every part of the work.

    Returns:
        What was measured and what is proposed. Same scenario, same numbers, but for the speed.

    Raises:
        ValueError: If the scenario is not valid or does not fit its data, the rule is unknown or cannot serve it, a number is out of
            range, or clean lots gain nothing at any learning rate.
    """
    scenario = scenario if isinstance(scenario, Scenario) else load(scenario)
    episodes, seed = whole_number("episodes", episodes, 1), whole_number("seed", seed, 0)
    if not 0 < real_number("blocked", blocked) < 1:
        raise ValueError(f"blocked={blocked!r}: must be a share of the updates, above 0 and below 1")
    require_served(scenario, make(rule), rule)
    n_splits = splits_of(scenario)
    searched = _searched(scenario)
    rates = _RATES[scenario.server.kind]
    total, done = len(rates) + 5, 0

    def now(what: str) -> None:
        nonlocal done
        if progress is not None:
            progress(done, total, what)
        done += 1

    def seen(of: Scenario) -> Looks:
        return look(of, episodes=episodes, seed=seed, splits=n_splits)

    now("the scenario as it is")
    before = tuple(diagnose(scenario))
    now("starts")
    curves = _Starts.of(scenario, n_splits)
    started = scenario.model_copy(update={"start": curves.proposed(scenario.start)})
    gains: dict[float, float] = {}
    for rate in rates:
        now(f"{searched}={rate:.3g}")
        gains[rate] = float(seen(_with_rate(started, searched, rate)).gain.double().nan_to_num(nan=-np.inf).mean())
        if gains[rate] < max(gains.values()) / 2 and max(gains.values()) > 0:
            break  # beyond the best, by far
    done = len(rates) + 2
    rated = _with_rate(started, searched, _part_of_the_best(scenario, searched, gains, _ENOUGH))
    now("what updates do")
    looks = seen(rated)
    profiles = _profiles(rated, looks, blocked)
    proposed = Scenario.model_validate(rated.model_copy(update={"profiles": profiles}).to_dict())  # whose learning rates are its own
    now("the proposal")
    after = tuple(diagnose(proposed))
    now(f"the speed under {rule}")
    speed = _speed(proposed, rule)
    if progress is not None:
        progress(total, total, "done")
    return Calibration(
        scenario=scenario,
        proposed=proposed,
        before=before,
        after=after,
        guessing=curves.guessing,
        start=curves.at(scenario.start),
        proposed_start=curves.at(proposed.start),
        best_start=curves.best,
        searched=searched,
        gains=gains,
        proposed_gain=float(looks.gain.double().mean()),
        levels=tuple(_level(name, m, looks) for m, name in enumerate(proposed.values)),
        blocked=blocked,
        n_splits=n_splits,
        rule=rule,
        speed=speed,
    )


def best_start(scenario: Scenario) -> tuple[float, float]:
    """Log loss of guessing by the frequencies of the classes, and the least that training on the public rows reaches, in nats.

    Both are on the validation rows, and means over splits as in :func:`calibrate`.

    Raises:
        ValueError: If the scenario does not fit its data.
    """
    curves = _Starts.of(scenario, splits_of(scenario))
    return curves.guessing, curves.best


@dataclass(frozen=True)
class _Starts:
    """Training on the public rows, S steps at each of G learning rates; means over splits.

    Attributes:
        scenario: The scenario.
        n_splits: Number of splits.
        guessing: Log loss of guessing on the validation rows.
        held_out: Log loss on the validation rows, ``(S + 1, G)``; infinite where it is not finite.
        public: Log loss on the public rows, ``(S + 1, G)``; ``None`` if there are none.
    """

    scenario: Scenario
    n_splits: int
    guessing: float
    held_out: Tensor
    public: Tensor | None

    @staticmethod
    def of(scenario: Scenario, n_splits: int) -> _Starts:
        """Train at every rate, all at once, on every split."""
        trained = [_trained(scenario, split, _START_RATES[scenario.start.optimizer], _START_STEPS) for split in range(n_splits)]
        guessing, held_out, public = zip(*trained, strict=True)
        has_public = all(len(rows) for rows in public)
        return _Starts(
            scenario,
            n_splits,
            float(np.mean(guessing)),
            _finite(torch.stack(held_out).mean(dim=0)),
            _finite(torch.stack(public).mean(dim=0)) if has_public else None,
        )

    @property
    def best(self) -> float:
        """The least log loss on the validation rows at any rate and step."""
        return float(self.held_out.min())

    def at(self, start: Start) -> float:
        """Log loss of a start on the validation rows."""
        trained = [_trained(self.scenario, split, (start.lr,), start.steps)[1][-1, 0] for split in range(self.n_splits)]
        return float(torch.stack(trained).mean())

    def proposed(self, now: Start) -> Start:
        """The start that leaves half of what the public rows teach to the cooperative. Without public rows: none."""
        if self.public is None:
            return now.model_copy(update={"steps": 0})
        enough = self.held_out <= max(self.best, (self.guessing + self.best) / 2)  # (S + 1, G)
        first = torch.where(enough.any(dim=0), enough.int().argmax(dim=0), _START_STEPS + 1)  # (G,)
        if int(first.min()) == 0:  # the model knows as much before any training
            return now.model_copy(update={"steps": 0})
        falls = self.public.diff(dim=0) < 0  # (S, G)
        steady = torch.stack([falls[: 2 * int(steps), g].all() for g, steps in enumerate(first)])
        slow = (first >= _LEAST_STEPS) & (first <= _START_STEPS)
        if slow.any():
            g = int((slow & steady if (slow & steady).any() else slow).nonzero()[-1])
        else:  # every rate gets there at once: the smallest
            g = int((first <= _START_STEPS).nonzero()[0])
        return now.model_copy(update={"steps": int(first[g]), "lr": _START_RATES[now.optimizer][g]})


@plain_torch()
def _trained(scenario: Scenario, split: int, rates: tuple[float, ...], n_steps: int) -> tuple[float, Tensor, Tensor]:
    """Log loss of guessing, and the model's on the validation and the public rows, ``(S + 1, G)`` each; the last is empty without rows."""
    untrained = {"start": Start(steps=0), "profiles": ()}  # a relative tolerance is refused where an untrained model has no loss
    one = scenario.on_split(scenario.data.split_seed + split).model_copy(update=untrained)
    splits, model, theta = shared(one, torch.float32)
    thetas = theta.repeat(len(rates), 1)  # (G, P)
    eta = torch.tensor(rates)[:, None]
    held_out, public = [], []
    start = scenario.start.model_copy(update={"steps": n_steps if len(splits.public) else 0})
    for at in chain([thetas], start.path(model, thetas, splits.public, one.data.split_seed, eta)):
        held_out.append(_log_loss(model.logits(at, splits.validation.x), splits.validation.y))
        if len(splits.public):
            public.append(_log_loss(model.logits(at, splits.public.x), splits.public.y))
    guessing = -utility_of_guessing(splits.validation.y, splits.n_classes, "neg_log_loss")
    return guessing, torch.stack(held_out), torch.stack(public) if public else torch.empty(0)


def _log_loss(logits: Tensor, y: Tensor) -> Tensor:
    """Mean cross-entropy of G models on the same rows, ``(G, R, C)``, ``(R,)`` → ``(G,)``, in nats."""
    return cross_entropy(logits.transpose(1, 2), y.expand(len(logits), -1), reduction="none").mean(dim=1)


def _finite(losses: Tensor) -> Tensor:
    return torch.where(losses.isfinite(), losses, torch.inf)


def _searched(scenario: Scenario) -> str:
    """The learning rate that decides how far a round goes."""
    if scenario.server.kind == "adam":
        return "server.lr"
    return "substrate.local_lr" if scenario.substrate.kind == "fedavg" else "substrate.lr"


def _with_rate(scenario: Scenario, searched: str, rate: float) -> Scenario:
    part, name = searched.split(".")
    return scenario.model_copy(update={part: getattr(scenario, part).model_copy(update={name: rate})})


def _part_of_the_best(scenario: Scenario, searched: str, gains: Mapping[float, float], share: float) -> float:
    """The rate at which gains, on their way up, are a share of the best, to two digits."""
    rates, gained = list(gains), list(gains.values())
    best = max(gained)
    if not best > 0:
        raise ValueError(
            f"scenario {scenario.name!r}: an episode of all clean lots gains nothing at any {searched} from {rates[0]:.2g} to "
            f"{rates[-1]:.2g}: are there clean lots? Does the model learn from the public rows (data.public_rows)?"
        )
    at = next(i for i, gain in enumerate(gained) if gain >= share * best)
    if at == 0:
        return _two_digits(rates[0])
    below = max(gained[at - 1], -best)  # interpolation from a model that diverged would say nothing
    way = (share * best - below) / (gained[at] - below)
    return _two_digits(rates[at - 1] * (rates[at] / rates[at - 1]) ** way)


def _profiles(scenario: Scenario, looks: Looks, blocked: float) -> tuple[Profile, ...]:
    """The scenario's profiles with the proposed tolerances and limits. Where there are none, one for each value."""
    values, own = list(scenario.values), scenario.screening.governance == "own"
    profiles = scenario.profiles
    if not profiles and values:
        together = [values] if len(values) > scenario.principals else [[name] for name in values]
        holders = max(1, scenario.principals // (len(together) + 1))
        profiles = tuple(Profile(holders=holders, tolerances=dict.fromkeys(names, 0.0)) for names in together)
    made = []
    for i, profile in enumerate(profiles):

        def proposed(bound: BoundName, name: str, holders: int | None = i if own and scenario.profiles else None) -> float:
            return _two_digits(level(looks.needed(bound, values.index(name), holders), blocked))

        bounds = {bound: {name: proposed(bound, name) for name in getattr(profile, bound)} for bound in BOUNDS}
        for limits, tolerances in _SAME_UNIT:
            bounds[limits] = {name: max(limit, bounds[tolerances].get(name, 0.0)) for name, limit in bounds[limits].items()}
        made.append(Profile.model_validate(profile.model_dump() | bounds))
    return tuple(made)


def _level(name: str, m: int, looks: Looks) -> Level:
    needed = {bound: looks.needed(bound, m) for bound in BOUNDS}
    levels = {bound: tuple(level(one, share) for share in SHARES) for bound, one in needed.items()}
    return Level(
        value=name,
        loss=float(looks.first_losses[..., m].double().mean()),
        harmful=float((needed["tolerances"] > 0).double().mean()),
        tolerances=levels["tolerances"],
        relative_tolerances=levels["relative_tolerances"],
        limits=levels["limits"],
        relative_limits=levels["relative_limits"],
    )


def _two_digits(number: float) -> float:
    return float(f"{number:.2g}")


def _speed(scenario: Scenario, rule: str) -> float:
    """Agent-steps a CPU second of rounds in which all lots are contributed, in as many cooperatives as a training steps at once."""
    engine = Engine(scenario, rule, num_envs=TrainSettings.model_fields["num_cooperatives"].default)
    everything = engine.items.whole(torch.ones(engine.num_envs, engine.num_agents, engine.num_lots, dtype=torch.bool))
    engine.reset(range(engine.num_envs))
    engine.step(everything)  # what is made once is made
    rounds, began = 0, time.process_time()
    while rounds == 0 or time.process_time() - began < _CPU_SECONDS:
        if engine.t == engine.horizon:
            engine.reset()
        engine.step(everything)
        rounds += 1
    return rounds * engine.num_envs * engine.num_seats / max(time.process_time() - began, 1e-9)
