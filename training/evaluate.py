"""Evaluate agents under a credit rule, by every measure that needs no further training.

All episodes on a split of the data are played at once, one per environment. Whatever is compared plays the same seeds on the same splits.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..agents import Agent, make, play
from ..agents.seats import populated
from ..checks import items_of, whole_number
from ..credit import CreditRule, LotRule, Round, Shapley
from ..envs import Engine, Scenario
from ..envs.data.overlap import overlap
from ..envs.model.utility import least_divisor
from ..envs.outcome import deadlock, strictest_limits
from ..envs.shared import shared
from .blocks import by_profile, by_value
from .false_names import second_name_gains
from .intervals import Estimate as Estimate

EXACT_COMPARISON = 12
"""Largest number of agents for which credit is compared with the exact Shapley value. Every additional agent doubles its time."""


MOST_RANKED = 1024
"""Largest number of agents of which a series tells the credit of each."""
EVALUATION_SEED = 1_000_000
"""First seed of the cooperatives in evaluations. A training draws its cooperatives' seeds from its own seed."""
EVALUATION_SPLITS = range(1_000_000, 1_000_010)
"""Seeds of the data splits on which policies are evaluated by default: the same for all. No training gets there by counting from 0."""


@dataclass(frozen=True)
class Evaluation:
    """What some agents did under a credit rule.

    Attributes:
        measures: Estimates by name; see :func:`evaluate`. Intervals are over splits of the data, or over episodes if there is one split.
        series: Series by name: one number per round, or a list of numbers per round, averaged over episodes and splits.
        notes: What a reader of the measures should know, as sentences: that in some episodes nothing passed, why, and what helps.
        splits: Seeds of the data splits that were played.
        by_split: Of each measure the mean over episodes on each split, ``None`` where undefined.
    """

    measures: dict[str, Estimate]
    series: dict[str, list[Any]]
    notes: tuple[str, ...] = ()
    splits: tuple[int, ...] = ()
    by_split: dict[str, list[float | None]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "measures": {name: [estimate.mean, estimate.half_width] for name, estimate in self.measures.items()},
            "splits": list(self.splits),
            "by_split": self.by_split,
            "series": self.series,
        }


class _Timed(CreditRule):
    """A rule whose time is measured."""

    only_watches = True

    def __init__(self, rule: CreditRule) -> None:
        self.rule = rule
        self.seconds = 0.0

    def reset(self, num_envs: int, num_agents: int) -> None:
        """As the rule does."""
        self.rule.reset(num_envs, num_agents)

    def assign(self, round: Round) -> Tensor:
        """As the rule does."""
        began = time.perf_counter()
        credit = self.rule.assign(round)
        self.seconds += time.perf_counter() - began
        return credit


class _TimedLots(_Timed, LotRule):
    """A rule that credits single lots, whose time is measured."""

    rule: LotRule

    def assign_lots(self, round: Round) -> Tensor:
        """As the rule does."""
        began = time.perf_counter()
        credit = self.rule.assign_lots(round)
        self.seconds += time.perf_counter() - began
        return credit


def evaluate(
    scenario: Scenario,
    credit: CreditRule | str,
    agent: Agent | Callable[[], Agent],
    *,
    episodes: int = 64,
    seed: int = 0,
    splits: Sequence[int] | None = None,
    home: Sequence[int] | None = None,
    unscreened: bool = True,
    progress: Callable[[int, int, str], object] | None = None,
) -> Evaluation:
    """Play episodes and measure.

    Args:
        scenario: The cooperative.
        credit: The credit rule, or its name (with arguments, if it takes any).
        agent: Everybody's policy, or a function that makes it. The scenario's population takes its seats, unless the policy is
            :class:`~proxycoop.agents.Seats` already.
        episodes: Number of episodes on each split, at least 2.
        seed: Seed of the first episode's cooperative; the others follow by a step of one, also from split to split.
        splits: Seeds of the data splits to play on, each with a start model, validation set and test set of its own. By default the
            scenario's own, ``data.splits`` of them. Those that no policy was trained on are :data:`EVALUATION_SPLITS`.
        home: Seeds of the data splits that the policy was trained on, to compare with. Without them ``home_welfare``, ``home_gap`` and
            ``overlap`` are not measured.
        unscreened: Whether to play the episodes once more where nobody screens. Without that, what is called ``unscreened_…`` is not
            measured.
        progress: Called before each data split is played, and at the end: how many are done, of how many, and what is played now.

    Returns:
        Measures by name: means over episodes and splits with 95 % intervals. They are those of :func:`~proxycoop.envs.episode_metrics`, in
        its units (``return`` and ``cost`` as means over agents), and

        * ``test_utility``, ``test_accuracy``, ``test_value/<name>``: the final model on data that credit never touches;
        * ``test_welfare``: welfare with the gain on the test set in place of that on the validation set;
        * ``worst_value``, ``test_worst_value``: how far the value that fared worst moved from where the episode began, as a share of what
          profiles allow in an episode: on the probe sets of the screening, and on people outside them; see :func:`allowed`;
        * ``unscreened_utility``, ``unscreened_value/<name>``: the same where nobody screens;
        * ``realised_violations``: share of rounds in which a value loss truly rose beyond somebody's tolerance (first-order screening
          does not exclude this);
        * ``home_welfare``: welfare on the splits of the training; ``home_gap``: how much more that is than welfare here;
        * ``overlap``: share of the validation and test rows that lie in the train pool, validation set or public set of a split of the
          training; see :func:`~proxycoop.envs.data.overlap.overlap`;
        * ``pearson_shapley``: correlation, over the agents of an episode, of their credit with the sum of the exact Shapley values of its
          rounds; undefined if all agents get the same, and for more than 12 agents;
        * ``jain``, ``gini``: evenness and inequality of cumulative credit, with negative credit counted as 0;
        * ``split_gain``: what a principal gains by dealing its lots out to two names; ``copy_gain``: by offering the same lots under two
          names. Each is compared with the same cooperative without the second name; see
          :func:`~proxycoop.training.false_names.second_name_gains`. Both are undefined in vertical cooperatives, whose lots are columns;
        * ``credit_microseconds``: time of the credit rule per round and environment, coalition evaluations included.

        Series by round:

        * ``utility``, start included;
        * ``clean_share``, ``corrupt_share``;
        * ``value_loss``, start included: a list over values; ``unscreened_value_loss``: the same where nobody screens;
        * ``tolerance``: a list over values, the strictest tolerance for one update, within what is left of limits; ``None`` if nobody has
          one;
        * ``credit``: cumulative, in reward units, a list over agents from the one with the most clean lots to the one with the fewest; the
          first 1,024 of them, if there are more.

        Shares of the contributed updates, over all rounds:

        * ``blocks``: to which holders of a profile object; rows and columns as in :func:`~proxycoop.training.blocks.by_profile`;
        * ``blocks_by_value``: to which somebody objects because of a value.

    Raises:
        ValueError: If there are fewer than 2 episodes, splits are none or named twice, or the agent or rule does not fit the scenario.
    """
    if episodes < 2:
        raise ValueError(f"episodes={episodes}: at least 2 are needed for an interval")
    own = range(scenario.data.split_seed, scenario.data.split_seed + scenario.data.splits)
    played = own if splits is None else checked_splits("splits", splits)
    trained = [] if home is None else checked_splits("home", home)

    def new_agent() -> Agent:
        return populated(agent if isinstance(agent, Agent) else agent(), scenario)

    def seeds_of(index: int) -> range:
        return range(seed + index * episodes, seed + (index + 1) * episodes)

    n_parts = len(played) + len(trained)

    def told(done: int, what: str) -> None:
        if progress is not None:
            progress(done, n_parts, what)

    parts = []
    for index, one in enumerate(played):
        told(index, f"data split {one}")
        parts.append(_on_split(scenario.on_split(one), credit, new_agent, seeds_of(index), unscreened))
    by_split = {name: [Estimate.of(part.samples[name]).mean for part in parts] for name in parts[0].samples}
    if home is not None:
        welfare = []
        for index, one in enumerate(trained):
            told(len(played) + index, f"data split {one} of the training")
            welfare.append(_welfare(scenario.on_split(one), credit, new_agent(), seeds_of(index)))
        at_home = sum(welfare) / len(welfare)
        by_split["home_welfare"] = [at_home] * len(parts)
        by_split["home_gap"] = [None if here is None else at_home - here for here in by_split["welfare"]]
        used = [shared(scenario.on_split(one), torch.float32)[0] for one in trained]
        by_split["overlap"] = [overlap(shared(scenario.on_split(one), torch.float32)[0], used) for one in played]
    told(n_parts, "")
    measures = {name: Estimate.of(_numbers(means)) for name, means in by_split.items()}
    if home is not None:
        measures["home_welfare"] = Estimate.of(_numbers(welfare))
        measures["home_gap"] = Estimate.difference(_numbers(welfare), _numbers(by_split["welfare"]))
    if len(parts) == 1:
        measures |= {name: Estimate.of(sample) for name, sample in parts[0].samples.items()}
    return Evaluation(measures, _mean_series([part.series for part in parts]), _notes(played, parts), tuple(played), by_split)


def _numbers(means: Sequence[float | None]) -> Tensor:
    """Means as float64 ``(n,)``, NaN where undefined."""
    return torch.tensor([math.nan if mean is None else mean for mean in means], dtype=torch.float64)


def held_out_splits(count: int | None = None) -> range:
    """Seeds of that many data splits that no policy was trained on: :data:`EVALUATION_SPLITS`, or more or fewer from its first on."""
    first = EVALUATION_SPLITS[0]
    n_splits = len(EVALUATION_SPLITS) if count is None else whole_number("evaluation_splits", count, 1, 1000)
    return range(first, first + n_splits)


def checked_splits(name: str, splits: Sequence[int]) -> list[int]:
    """Seeds of data splits, each once.

    Args:
        name: The argument's name, for messages.
        splits: The seeds.

    Raises:
        ValueError: If there are none, one is no whole number from 0 on, or one is named twice.
    """
    seeds = [whole_number(name, one, 0) for one in items_of(name, splits, "seeds of data splits")]
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"{name}={seeds}: give at least one seed of a data split, and each once")
    return seeds


@dataclass(frozen=True)
class _Part:
    """An evaluation on one split: what each episode came to, ``(E,)`` by measure, the series, and a note if nothing passed."""

    samples: dict[str, Tensor]
    series: dict[str, list[Any]]
    stuck: str


def _on_split(scenario: Scenario, credit: CreditRule | str, new_agent: Callable[[], Agent], seeds: range, unscreened: bool) -> _Part:
    """Play all episodes on one split, and measure them."""
    episodes = len(seeds)
    engine = Engine(scenario, credit, episodes)
    assert engine.rule is not None
    engine.rule = rule = (_TimedLots if isinstance(engine.rule, LotRule) else _Timed)(engine.rule)
    exact = torch.zeros(episodes, engine.num_agents)
    compare_exact = engine.num_agents <= EXACT_COMPARISON and engine.attendance is None and not scenario.samples_some
    start: dict[str, Tensor] = {}

    def look(engine: Engine) -> None:
        if engine.t == 0:
            start.update(engine.test())

    def add_exact(engine: Engine) -> None:
        if compare_exact:
            exact.add_(Shapley().values(engine.round.game))

    metrics = play(engine, new_agent(), seeds, before_round=look, on_round=add_exact)
    end = engine.test()
    samples = {name: measure.mean(dim=1) if measure.dim() == 2 else measure for name, measure in metrics.items()}
    samples |= {f"test_{name}": measure for name, measure in end.items()}
    samples["test_welfare"] = engine.reward_scale * (end["utility"] - start["utility"]) - metrics["cost"].sum(dim=1)
    most = allowed(engine)
    samples["worst_value"] = _worst(engine.prospect.value_losses - engine.initial_value_losses, most)
    changes = [end[f"value/{name}"] - start[f"value/{name}"] for name in engine.values]
    samples["test_worst_value"] = _worst(torch.stack(changes, dim=-1) if changes else torch.zeros_like(most), most)
    samples["realised_violations"] = _realised_violations(engine)
    credit_sum = engine.credit_so_far
    samples["pearson_shapley"] = _pearson(credit_sum, exact) if compare_exact else torch.full((1,), torch.nan)
    samples["jain"], samples["gini"] = _jain(credit_sum), _gini(credit_sum)
    samples["credit_microseconds"] = torch.tensor([rule.seconds / engine.horizon / episodes * 1e6])
    series = _series(engine)
    chosen = [result.chosen for result in engine.history]
    stuck = deadlock(engine)

    if unscreened:
        free = Engine(scenario.unscreened(engine.reward_scale), rule.rule, episodes)
        play(free, new_agent(), seeds)
        samples |= {f"unscreened_{name}": measure for name, measure in free.test().items() if name != "accuracy"}
        series["unscreened_value_loss"] = value_losses_of(free).mean(dim=1).tolist()

    samples |= second_name_gains(scenario, rule.rule, seeds, chosen, metrics["return"])
    return _Part(samples, series, stuck)


def _welfare(scenario: Scenario, credit: CreditRule | str, agent: Agent, seeds: range) -> float:
    """Mean welfare on one split."""
    return float(play(Engine(scenario, credit, len(seeds)), agent, seeds)["welfare"].double().mean())


def allowed(engine: Engine) -> Tensor:
    """How far profiles allow each value's loss to rise in an episode, ``(E, M)``, in the value's unit; infinite where nobody says.

    The strictest limit. Where there is none, or it is 0, T times the strictest tolerance for one update, T the number of rounds: with
    unanimous screening no step takes more than that to first order.
    """
    start, profiles = engine.initial_value_losses, engine.profiles
    least = least_divisor(start.abs().clamp(min=1))

    def strictest(absolute: Tensor | None, relative: Tensor | None) -> Tensor:
        most = torch.full_like(start, math.inf)
        if absolute is not None:
            most = torch.minimum(most, absolute.amin(dim=1))
        if relative is not None:
            shares = relative.amin(dim=1)
            most = torch.minimum(most, torch.where(shares.isfinite(), shares * start.clamp(min=0), math.inf))
        return torch.where(most > least, most, math.inf)

    limit = strictest(profiles.max_rise, profiles.relative_rise)
    tolerance = strictest(profiles.tolerance, profiles.relative)
    return torch.where(limit.isfinite(), limit, engine.horizon * tolerance)


def _worst(changes: Tensor, most: Tensor) -> Tensor:
    """The largest change as a share of what is allowed, ``(E, M)``, ``(E, M)`` → ``(E,)``; NaN where nothing is limited."""
    known = most.isfinite()
    shares = torch.where(known, changes / torch.where(known, most, 1.0), -math.inf)
    return shares.amax(dim=1).where(known.any(dim=1), torch.nan) if shares.shape[1] else shares.new_full((len(shares),), torch.nan)


def _notes(played: Sequence[int], parts: Sequence[_Part]) -> tuple[str, ...]:
    """What was said of the splits; of several in full only the first, and of the others where it is so too."""
    stuck = {one: part.stuck for one, part in zip(played, parts, strict=True) if part.stuck}
    if len(parts) == 1 or not stuck:
        return tuple(stuck.values())
    first, *others = stuck
    also = f"So in some episodes on split {', '.join(map(str, others))}." if others else ""
    return (f"split {first}: {stuck[first]}", *([also] if also else []))


def _mean_series(parts: Sequence[Mapping[str, list[Any]]]) -> dict[str, list[Any]]:
    """Series averaged over splits, entry by entry; undefined numbers are left out."""
    if len(parts) == 1:
        return dict(parts[0])
    stacked = {name: torch.from_numpy(np.array([part[name] for part in parts], dtype=np.float64)) for name in parts[0]}
    return {name: defined(numbers.nanmean(dim=0)) for name, numbers in stacked.items()}


def value_losses_of(engine: Engine) -> Tensor:
    """Value losses on the probe sets in the episodes just played, start included, ``(T + 1, E, M)``."""
    return torch.stack([engine.initial_value_losses, *(result.value_losses for result in engine.history)])


def _realised_violations(engine: Engine) -> Tensor:
    """Share of rounds in which a value loss on its probe set rose beyond the strictest tolerance, ``(E,)``."""
    losses = value_losses_of(engine)
    tolerance = torch.stack([result.tolerance for result in engine.history])  # (T, E, M)
    beyond = losses.diff(dim=0) > tolerance + 1e-6
    return beyond.any(dim=-1).double().mean(dim=0)


def _pearson(a: Tensor, b: Tensor) -> Tensor:
    """Correlation over agents within each episode, ``(E, N)``, ``(E, N)`` → ``(E,)``; NaN where one of them is constant."""
    a, b = (x.double() - x.double().mean(dim=1, keepdim=True) for x in (a, b))
    norm = a.norm(dim=1) * b.norm(dim=1)
    constant = torch.minimum(a.norm(dim=1), b.norm(dim=1)) < 1e-9
    return torch.where(constant, torch.nan, (a * b).sum(dim=1) / norm.clamp(min=1e-30))


def _jain(credit: Tensor) -> Tensor:
    r"""Jain's index :math:`(\sum x)^2 / (n \sum x^2)` of non-negative credit, ``(E, N)`` → ``(E,)``; 1 where all are zero."""
    x = credit.double().clamp(min=0)
    square = x.square().sum(dim=1)
    return torch.where(square > 0, x.sum(dim=1).square() / (x.shape[1] * square.clamp(min=1e-300)), 1.0)


def _gini(credit: Tensor) -> Tensor:
    r"""Gini coefficient :math:`\sum_{ij} |x_i - x_j| / (2 n \sum x)` of non-negative credit, ``(E, N)`` → ``(E,)``; 0 if all are zero."""
    x = credit.double().clamp(min=0)
    n, total = x.shape[1], x.sum(dim=1)
    if n <= _LARGEST_TABLE_OF_PAIRS:
        gaps = (x[:, :, None] - x[:, None]).abs().sum(dim=(1, 2))
    else:  # the same sum, by rank
        rank = 2 * torch.arange(1, n + 1, dtype=x.dtype, device=x.device) - n - 1
        gaps = 2 * (rank * x.sort(dim=1).values).sum(dim=1)
    return torch.where(total > 0, gaps / (2 * x.shape[1] * total.clamp(min=1e-300)), 0.0)


_LARGEST_TABLE_OF_PAIRS = 256


def _series(engine: Engine) -> dict[str, list[Any]]:
    history, clean, corrupt = engine.history, engine.lots.clean, engine.lots.corrupt
    order = clean.sum(dim=-1).argsort(dim=1, descending=True, stable=True)  # (E, N)
    credit = engine.reward_scale * torch.stack([result.credit for result in history]).cumsum(dim=0)  # (T, E, N)
    ranked = credit.gather(2, order.expand(credit.shape))
    utility = torch.stack([engine.initial_utility, *(result.utility for result in history)])  # (T + 1, E)
    contributed = torch.stack([result.contributed for result in history])[..., : engine.num_lots]  # (T, E, N, K)

    assert engine.profiles.kind is not None

    attended = torch.stack([result.attended for result in history])[..., None]  # (T, E, N, 1)

    def share(kind: Tensor) -> list[float]:
        of = kind.sum() if engine.attendance is None else (attended & kind).sum(dim=(1, 2, 3))
        shares: list[float] = ((contributed & kind).sum(dim=(1, 2, 3)) / of.clamp(min=1)).tolist()
        return shares

    return {
        "utility": utility.mean(dim=1).tolist(),
        "clean_share": share(clean),
        "corrupt_share": share(corrupt),
        "value_loss": value_losses_of(engine).mean(dim=1).tolist(),
        "tolerance": defined(torch.stack([result.tolerance.mean(dim=0) for result in history])),
        "limit": defined(strictest_limits(engine).mean(dim=0)),
        "blocks": defined(by_profile(history, engine.profiles.kind, len(engine.scenario.profiles))),
        "blocks_by_value": defined(by_value(history)),
        "credit": ranked[..., :MOST_RANKED].mean(dim=1).tolist(),
    }


def defined(numbers: Tensor) -> list[Any]:
    """Numbers as nested lists, with ``None`` for those that are not finite."""
    if numbers.dim() > 1:
        return [defined(part) for part in numbers]
    return [number if math.isfinite(number) else None for number in numbers.tolist()]


def agent_maker(name: str, **kwargs: object) -> Callable[[], Agent]:
    """A function that makes the agent called ``name``; see :func:`proxycoop.agents.make`."""
    return partial(make, name, **kwargs)
