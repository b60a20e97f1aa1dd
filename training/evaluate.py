"""Evaluate agents under a credit rule, by every measure that needs no further training.

All episodes are played at once, one per environment. Whatever is compared plays the same seeds.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import scipy.stats
import torch
from torch import Tensor

from ..agents import Agent, make, play
from ..credit import CreditRule, Round, Shapley
from ..envs import Engine, Scenario
from ..envs.outcome import deadlock
from .blocks import by_profile, by_value
from .false_names import second_name_gains

EXACT_COMPARISON = 12
"""Largest number of agents for which credit is compared with the exact Shapley value. Every additional agent doubles its time."""


@dataclass(frozen=True)
class Estimate:
    """A mean over episodes or seeds, and the half-width of its 95 % confidence interval. ``None`` stands for undefined."""

    mean: float | None
    half_width: float | None

    @classmethod
    def of(cls, sample: Tensor) -> Estimate:
        """Student's interval for the mean of a sample ``(n,)``; NaNs are left out."""
        sample = sample[~sample.isnan()].double()
        if len(sample) == 0:
            return cls(None, None)
        mean = float(sample.mean())
        if len(sample) == 1:
            return cls(mean, None)
        return cls(mean, float(scipy.stats.t.ppf(0.975, len(sample) - 1) * sample.std() / len(sample) ** 0.5))


@dataclass(frozen=True)
class Evaluation:
    """What some agents did under a credit rule.

    Attributes:
        measures: Estimates by name; see :func:`evaluate`.
        series: Series by name: one number per round, or a list of numbers per round, averaged over episodes.
        notes: What a reader of the measures should know, as sentences: that in some episodes nothing passed, why, and what helps.
    """

    measures: dict[str, Estimate]
    series: dict[str, list[Any]]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "measures": {name: [estimate.mean, estimate.half_width] for name, estimate in self.measures.items()},
            "series": self.series,
        }


class _Timed(CreditRule):
    """A rule whose time is measured."""

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


def evaluate(
    scenario: Scenario, credit: CreditRule | str, agent: Agent | Callable[[], Agent], *, episodes: int = 64, seed: int = 0
) -> Evaluation:
    """Play episodes and measure.

    Args:
        scenario: The cooperative.
        credit: The credit rule, or its name (with arguments, if it takes any).
        agent: Everybody's policy, or a function that makes it.
        episodes: Number of episodes, at least 2.
        seed: Seed of the first episode's cooperative; the others follow by a step of one.

    Returns:
        Measures by name: means over episodes with 95 % intervals. They are those of :func:`~proxycoop.envs.episode_metrics`, in its units
        (``return`` and ``cost`` as means over agents), and

        * ``test_utility``, ``test_accuracy``, ``test_value/<name>``: the final model on data that credit never touches;
        * ``unscreened_utility``, ``unscreened_value/<name>``: the same where nobody screens;
        * ``realised_violations``: share of rounds in which a value loss truly rose beyond somebody's tolerance (first-order screening
          does not exclude this);
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
        * ``tolerance``: a list over values, the strictest tolerance for one update; ``None`` if nobody has one;
        * ``credit``: cumulative, in reward units, a list over agents from the one with the most clean lots to the one with the fewest.

        Shares of the contributed updates, over all rounds:

        * ``blocks``: to which holders of a profile object; rows and columns as in :func:`~proxycoop.training.blocks.by_profile`;
        * ``blocks_by_value``: to which somebody objects because of a value.

    Raises:
        ValueError: If there are fewer than 2 episodes, or the agent or rule does not fit the scenario.
    """
    if episodes < 2:
        raise ValueError(f"episodes={episodes}: at least 2 are needed for an interval")

    def new_agent() -> Agent:
        return agent if isinstance(agent, Agent) else agent()

    seeds = range(seed, seed + episodes)
    engine = Engine(scenario, credit, episodes)
    assert engine.rule is not None
    engine.rule = rule = _Timed(engine.rule)
    exact = torch.zeros(episodes, engine.num_agents)
    compare_exact = engine.num_agents <= EXACT_COMPARISON

    def add_exact(engine: Engine) -> None:
        if compare_exact:
            exact.add_(Shapley().values(engine.round.game))

    metrics = play(engine, new_agent(), seeds, on_round=add_exact)
    samples = {name: measure.mean(dim=1) if measure.dim() == 2 else measure for name, measure in metrics.items()}
    samples |= {f"test_{name}": measure for name, measure in engine.test().items()}
    samples["realised_violations"] = _realised_violations(engine)
    credit_sum = engine.credit_so_far
    samples["pearson_shapley"] = _pearson(credit_sum, exact) if compare_exact else torch.full((1,), torch.nan)
    samples["jain"], samples["gini"] = _jain(credit_sum), _gini(credit_sum)
    samples["credit_microseconds"] = torch.tensor([rule.seconds / engine.horizon / episodes * 1e6])
    series = _series(engine)
    chosen = [result.contributed for result in engine.history]
    stuck = deadlock(engine)

    unscreened = Engine(scenario.unscreened(engine.reward_scale), rule.rule, episodes)
    play(unscreened, new_agent(), seeds)
    samples |= {f"unscreened_{name}": measure for name, measure in unscreened.test().items() if name != "accuracy"}
    series["unscreened_value_loss"] = value_losses_of(unscreened).mean(dim=1).tolist()

    samples |= second_name_gains(scenario, rule.rule, seeds, chosen, metrics["return"])
    return Evaluation({name: Estimate.of(sample) for name, sample in samples.items()}, series, (stuck,) * bool(stuck))


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
    gaps = (x[:, :, None] - x[:, None]).abs().sum(dim=(1, 2))
    total = x.sum(dim=1)
    return torch.where(total > 0, gaps / (2 * x.shape[1] * total.clamp(min=1e-300)), 0.0)


def _series(engine: Engine) -> dict[str, list[Any]]:
    history, corrupt = engine.history, engine.lots.corrupt
    order = (~corrupt).sum(dim=-1).argsort(dim=1, descending=True, stable=True)  # (E, N)
    credit = engine.reward_scale * torch.stack([result.credit for result in history]).cumsum(dim=0)  # (T, E, N)
    ranked = credit.gather(2, order.expand(credit.shape))
    utility = torch.stack([engine.initial_utility, *(result.utility for result in history)])  # (T + 1, E)
    contributed = torch.stack([result.contributed for result in history])  # (T, E, N, K)

    assert engine.profiles.kind is not None

    def share(kind: Tensor) -> list[float]:
        shares: list[float] = ((contributed & kind).sum(dim=(1, 2, 3)) / kind.sum().clamp(min=1)).tolist()
        return shares

    return {
        "utility": utility.mean(dim=1).tolist(),
        "clean_share": share(~corrupt),
        "corrupt_share": share(corrupt),
        "value_loss": value_losses_of(engine).mean(dim=1).tolist(),
        "tolerance": defined(torch.stack([result.tolerance.mean(dim=0) for result in history])),
        "blocks": defined(by_profile(history, engine.profiles.kind, len(engine.scenario.profiles))),
        "blocks_by_value": defined(by_value(history)),
        "credit": ranked.mean(dim=1).tolist(),
    }


def defined(numbers: Tensor) -> list[Any]:
    """Numbers as nested lists, with ``None`` for those that are not finite."""
    if numbers.dim() > 1:
        return [defined(part) for part in numbers]
    return [number if math.isfinite(number) else None for number in numbers.tolist()]


def agent_maker(name: str, **kwargs: object) -> Callable[[], Agent]:
    """A function that makes the agent called ``name``; see :func:`proxycoop.agents.make`."""
    return partial(make, name, **kwargs)
