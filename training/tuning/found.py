"""What a tuning found: its trials, the best of them, and the comparison with the defaults on held-out seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ... import __version__
from ...envs.scenario import Scenario
from ..analysis.ranking import is_beyond
from ..intervals import Estimate
from .objectives import OBJECTIVES
from .plan import Plan
from .search import Trial
from .trainings import scoring_splits

FORMAT = 1


@dataclass(frozen=True)
class HeldOut:
    """The tuned parameters and the defaults on held-out seeds, in reward units.

    Attributes:
        seeds: The seeds.
        splits: Seeds of the data splits.
        tuned: Of each objective the mean on each split, by seed, under the tuned parameters.
        default: The same under the defaults.
    """

    seeds: tuple[int, ...]
    splits: tuple[int, ...]
    tuned: Mapping[str, list[list[float]]]
    default: Mapping[str, list[list[float]]]

    def of(self, which: str, objective: str) -> Estimate:
        """The mean of an objective (or of ``violations``), ``tuned`` or ``default``, with its 95 % interval over seeds and splits."""
        return Estimate.crossed(_matrix((self.tuned if which == "tuned" else self.default)[objective]))

    def difference(self, objective: str) -> Estimate:
        """Tuned less default, paired by seed and split, with its 95 % interval."""
        return Estimate.crossed(_matrix(self.tuned[objective]) - _matrix(self.default[objective]))


@dataclass(frozen=True)
class Tuned:
    """What a tuning found.

    Attributes:
        plan: What was run.
        trials: All trials, in their order.
        held_out: The comparison on held-out seeds; ``None`` if the best trial is the default.
    """

    plan: Plan
    trials: tuple[Trial, ...]
    held_out: HeldOut | None

    @property
    def objective(self) -> str:
        """What trials were scored by."""
        return self.plan.settings.objective

    @property
    def best(self) -> Trial:
        """The trial of the highest score; of equal ones the first."""
        return max((one for one in self.trials if one.score is not None), key=lambda one: (one.score or 0.0, -one.number))

    @property
    def default(self) -> Trial | None:
        """The trial of the defaults, if they lie in the ranges."""
        return next((one for one in self.trials if one.is_default), None)

    @property
    def is_better(self) -> bool:
        """Whether the tuned parameters are better than the defaults on held-out seeds: the whole interval of the difference is above 0."""
        return self.held_out is not None and is_beyond(self.held_out.difference(self.objective))

    @property
    def is_worse(self) -> bool:
        """Whether they are worse there: the whole interval is below 0."""
        return self.held_out is not None and is_beyond(self.held_out.difference(self.objective), above=False)

    @property
    def mechanism(self) -> tuple[str, Scenario]:
        """The best trial's rule and scenario."""
        return self.plan.made(self.best.values)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        held_out = self.held_out
        compared = None
        measures = (*OBJECTIVES, "violations")
        if held_out is not None:
            compared = {
                "seeds": list(held_out.seeds),
                "splits": list(held_out.splits),
                "tuned": dict(held_out.tuned),
                "default": dict(held_out.default),
                "difference": {name: _pair(held_out.difference(name)) for name in measures},
                "means": {which: {name: _pair(held_out.of(which, name)) for name in measures} for which in ("tuned", "default")},
            }
        return {
            "format": FORMAT,
            "version": __version__,
            "settings": self.plan.settings.plain(),
            "tuning_seeds": list(self.plan.seeds),
            "tuning_splits": list(scoring_splits(self.plan.settings.evaluation_splits)),
            "default": dict(self.plan.default),
            "trials": [
                {
                    "number": one.number,
                    "values": dict(one.values),
                    "score": one.score,
                    "scores": dict(one.scores),
                    "failed": one.failed,
                    "is_default": one.is_default,
                }
                for one in self.trials
            ],
            "best": {"number": self.best.number, "values": dict(self.best.values), "score": self.best.score, "rule": self.mechanism[0]},
            "held_out": compared,
            "is_better": self.is_better,
        }


def _matrix(rows: list[list[float]]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def _pair(estimate: Estimate) -> list[float | None]:
    return [estimate.mean, estimate.half_width]
