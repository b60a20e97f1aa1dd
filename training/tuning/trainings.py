"""One training within a tuning, and what its proxies reach on data splits that they never saw."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ... import __version__
from ...agents import make, play
from ...agents.seats import seated, seats_named
from ...envs import Engine
from ...files import output_folder, read_json, write_json
from ..compare import training_splits
from ..evaluate import EVALUATION_SEED, held_out_splits
from ..settings import TrainSettings
from ..train import train
from .objectives import at_floor, balanced, nash, principal_returns, worst_off

TUNING_SPLITS = 2_000_000
"""Seed of the first data split on which trials are scored. Those on which the tuned parameters are compared in the end are others."""
RESULT = "scores.json"
"""Name of the file with a training's scores, in its folder."""


@dataclass(frozen=True)
class Training:
    """A training, and how its proxies are measured.

    Attributes:
        what: What it is, in words.
        settings: What is trained.
        folder: Where it is kept.
        episodes: Episodes on each split.
        splits: Seeds of the data splits.
    """

    what: str
    settings: TrainSettings
    folder: Path
    episodes: int
    splits: tuple[int, ...]

    def description(self) -> dict[str, Any]:
        """Everything that its scores depend on, as a JSON file returns it."""
        settings = self.settings.plain()
        settings.pop("checkpoint_every", None)
        plain: dict[str, Any] = json.loads(json.dumps({"settings": settings, "episodes": self.episodes, "splits": self.splits}))
        return plain

    def scores(self) -> dict[str, list[float]] | None:
        """Its scores, by objective and split, if it is finished.

        Raises:
            ValueError: If the folder holds scores of other settings, or damaged ones.
        """
        path = self.folder / RESULT
        if not path.exists():
            return None
        result = read_json(path)
        if result.get("of") != self.description() or not isinstance(result.get("scores"), dict):
            raise ValueError(f"{str(path)!r} holds scores of other settings, or none: delete its folder and run the command again")
        scores: dict[str, list[float]] = result["scores"]
        return scores


def scoring_splits(count: int) -> tuple[int, ...]:
    """Seeds of the data splits on which trials are scored."""
    return tuple(range(TUNING_SPLITS, TUNING_SPLITS + count))


def own_splits(settings: TrainSettings, count: int) -> TrainSettings:
    """The settings of a training on data splits of its seed's own, as in a comparison.

    Raises:
        ValueError: If it would train on a split on which trials, or the tuned parameters, are measured.
    """
    data = settings.scenario.data.model_copy(update={"split_seed": settings.seed * settings.splits})
    placed = settings.model_copy(update={"scenario": settings.scenario.model_copy(update={"data": data})})
    measured = {*scoring_splits(count), *held_out_splits(count)}
    if both := sorted(measured & set(training_splits(placed))):
        raise ValueError(f"seed {settings.seed} trains on split {both[0]} of the data, on which scores are measured: choose smaller seeds")
    return placed


def scored(training: Training, place: Path) -> dict[str, list[float]]:
    """Train in a folder, and measure: the mean over episodes of each objective on each split. What was finished before is read."""
    if (finished := replace(training, folder=place).scores()) is not None:
        return finished
    folder = output_folder(place)
    train(training.settings, folder, resume=True, tensorboard=False)
    scores = measured(training.settings, lambda: make("learned", path=folder), training.episodes, training.splits)
    write_json(folder / RESULT, {"version": __version__, "of": training.description(), "scores": scores})
    return scores


def measured(settings: TrainSettings, agent: Callable[[], Any], episodes: int, splits: Sequence[int]) -> dict[str, list[float]]:
    """What a policy reaches, by objective: the mean over episodes on each split.

    Also ``at_floor``, the share of returns at the floor of nash; and ``violations``, the share of rounds whose step broke a profile.
    """
    found: dict[str, list[float]] = {}
    seats = seats_named(settings.seats, settings.scenario.n_agents)
    for index, split in enumerate(splits):
        first = EVALUATION_SEED + index * episodes
        engine = Engine(settings.scenario.on_split(split), settings.credit, episodes)
        metrics = play(engine, seated(agent(), seats, instead=True), range(first, first + episodes))
        returns = balanced(principal_returns(engine, metrics["return"]).double(), metrics["welfare"].double())
        of_episode = {"welfare": metrics["welfare"], "nash": nash(returns), "worst_off": worst_off(returns)}
        of_episode |= {"at_floor": at_floor(returns), "violations": metrics["violations"]}
        for name, values in of_episode.items():
            found.setdefault(name, []).append(float(values.double().mean()))
    return found
