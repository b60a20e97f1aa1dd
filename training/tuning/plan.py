"""What a tuning is to do: its settings, and the trainings of each mechanism. All is checked before anything is trained."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator

from ...checks import items_of
from ...envs.scenario import Scenario
from ...registry import unknown_name
from ...settings import Settings, problems
from ..grid import in_words, point_name
from ..libraries.registry import learner, settings_for
from ..own_modules import modules_for
from .objectives import OBJECTIVES
from .parameters import SCENARIO, Parameter, defaults, mechanism, read_parameters, remarks, require_valid
from .search import require_optuna
from .trainings import Training, own_splits


class TuningSettings(Settings):
    """Settings of a tuning. A folder holds the tuning of one set of them."""

    rule: str = Field(description="Credit rule, with arguments if it takes any. They are its defaults here.")
    scenario: Scenario = Field(description="The cooperative. Its settings are the defaults here.")
    parameters: tuple[str, ...] = Field(description="What is varied, and over which values.")
    objective: str = Field("welfare", description="What trials are scored by.")
    seeds: int = Field(2, ge=1, le=1000, description="Number of seeds with which each trial trains.")
    first_seed: int = Field(0, ge=0, le=2**31, description="The first of these seeds; the others follow, and then those that are held out.")
    sampler_seed: int = Field(0, ge=0, le=2**32 - 1, description="Seed of the search.")
    episodes: int = Field(16, ge=1, description="Episodes of each evaluation on each split.")
    evaluation_splits: int = Field(6, ge=2, le=1000, description="Number of data splits of each evaluation.")
    training: dict[str, Any] = Field(default_factory=dict, description="Library, algorithm, and settings of the trainings.")

    @field_validator("objective")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name not in OBJECTIVES:
            raise unknown_name("objective", name, list(OBJECTIVES))
        return name

    def plain(self) -> dict[str, Any]:
        """All settings in the form in which a JSON file returns them."""
        plain: dict[str, Any] = json.loads(
            json.dumps(self.model_dump(mode="json", exclude={"scenario"}) | {"scenario": self.scenario.to_dict()})
        )
        return plain


@dataclass(frozen=True)
class Plan:
    """A tuning that is to be run; see :func:`~proxycoop.training.tuning.planned`.

    Attributes:
        settings: Its settings.
        parameters: What is varied.
        default: The values of the parameters in the rule and the scenario as they were given.
        modules: Modules that other processes import.
        notes: What a user should know before it runs, as sentences.
    """

    settings: TuningSettings
    parameters: tuple[Parameter, ...]
    default: Mapping[str, Any]
    modules: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def seeds(self) -> range:
        """The tuning seeds."""
        return range(self.settings.first_seed, self.settings.first_seed + self.settings.seeds)

    def held_out_seeds(self, count: int) -> range:
        """Seeds that no trial trains with: those after the tuning seeds."""
        return range(self.seeds.stop, self.seeds.stop + count)

    def made(self, values: Mapping[str, Any]) -> tuple[str, Scenario]:
        """The rule and the scenario with some values of the parameters.

        Raises:
            ValueError: If these values do not go together.
        """
        return mechanism(self.settings.rule, self.settings.scenario, {} if values == self.default else values)

    def trainings(self, values: Mapping[str, Any], seeds: Iterable[int], splits: Sequence[int], folder: Path, what: str) -> list[Training]:
        """The trainings of a mechanism, one a seed.

        Raises:
            ValueError: If these values do not go together.
        """
        rule, scenario = self.made(values)
        place = folder / "trainings" / point_name({f"parameter.{without_part(name)}": value for name, value in values.items()})
        made = []
        for seed in seeds:
            settings = settings_for(scenario=scenario, credit=rule, seed=seed, **self.settings.training)
            settings = own_splits(settings, self.settings.evaluation_splits)
            made.append(Training(f"{what}, seed {seed}", settings, place / f"seed-{seed}", self.settings.episodes, tuple(splits)))
        return made


def planned(
    rule: str,
    scenario: Scenario,
    parameters: Iterable[str],
    *,
    objective: str = "welfare",
    library: str = "ippo",
    algo: str | None = None,
    seeds: int = 2,
    first_seed: int = 0,
    sampler_seed: int = 0,
    episodes: int = 16,
    evaluation_splits: int = 6,
    **training: Any,
) -> Plan:
    """Plan a tuning. The mechanism is built as it was given and at the ends of each range here, before anything is trained.

    Args:
        rule: Credit rule, with arguments if it takes any.
        scenario: The cooperative.
        parameters: What is varied, as :func:`~proxycoop.training.tuning.read_parameters` takes it: ``["budget=20..200"]``.
        objective: One of :data:`~.objectives.OBJECTIVES`.
        library: RL library that trains.
        algo: Algorithm of the library; its first if not given.
        seeds: Number of seeds with which each trial trains.
        first_seed: The first of them.
        sampler_seed: Seed of the search.
        episodes: Episodes of each evaluation on each split.
        evaluation_splits: Number of data splits of each evaluation, at least 2.
        **training: Other settings of the trainings, such as ``total_steps``.

    Raises:
        ValueError: If Optuna or the library is not installed, or something is unknown or not allowed; the message says what.
    """
    require_optuna()
    texts = items_of("parameters", parameters, "parameters")
    read = read_parameters(texts)
    try:
        settings = TuningSettings(
            rule=rule,
            scenario=scenario,
            parameters=tuple(map(str, read)),
            objective=objective,
            seeds=seeds,
            first_seed=first_seed,
            sampler_seed=sampler_seed,
            episodes=episodes,
            evaluation_splits=evaluation_splits,
            training={"library": library, "algo": algo, **training},
        )
    except ValidationError as error:
        raise ValueError("; ".join(map(str, problems(error)))) from None
    built = require_valid(rule, scenario, read)
    for made_rule, made in built:
        learner(settings_for(scenario=made, credit=made_rule, seed=first_seed, **settings.training))
    modules = dict.fromkeys(module for made_rule, made in built for module in modules_for(made, made_rule, made.company.values()))
    plan = Plan(settings, read, defaults(rule, scenario, read), tuple(modules), tuple(remarks(read)))
    plan.trainings(plan.default, plan.seeds, (), Path(), "")  # refuses seeds that train on splits of the evaluation
    return plan


def in_short(values: Mapping[str, Any]) -> str:
    """Values in words: ``budget=60, reward.public_share=0.2``."""
    return ", ".join(f"{without_part(name)}={in_words(value)}" for name, value in values.items())


def without_part(name: str) -> str:
    """A parameter's name without ``scenario:`` before it."""
    return name.removeprefix(SCENARIO)
