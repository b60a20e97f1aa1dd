"""What benchmarks that train policies share: a training, and how the policy plays on splits of the data that nobody trained on."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from proxycoop import agents
from proxycoop.envs import Engine, Scenario
from proxycoop.training.evaluate import EVALUATION_SEED, held_out_splits
from proxycoop.training.libraries.registry import settings_for
from proxycoop.training.train import train

EPISODES = 16
"""Episodes that a policy plays on each of the splits."""


def trained_and_played(
    home: Scenario,
    played: Scenario,
    rule: str,
    seed: int,
    steps: int,
    measures: Sequence[str],
    more: Callable[[Engine, Mapping[str, Tensor]], Mapping[str, Tensor]],
) -> dict[str, float]:
    """Train by ``ippo`` at home, and play on the held-out splits.

    Args:
        home: The cooperative of the training.
        played: The cooperative that is played, on other splits.
        rule: The credit rule of both.
        seed: Of the training.
        steps: Agent-steps of the training.
        measures: Which metrics of an episode to return, where they exist.
        more: Metrics beside those of the episodes, from an engine whose episodes are over, and their metrics.

    Returns:
        Means over splits and episodes (and agents), with five decimals.
    """
    settings = settings_for("ippo", "ppo", scenario=home, credit=rule, seed=seed, total_steps=steps)
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        train(settings, folder, tensorboard=False, overwrite=True)
        for index, split in enumerate(held_out_splits()):
            first = EVALUATION_SEED + index * EPISODES
            engine = Engine(played.on_split(split), rule, EPISODES)
            metrics = agents.play(engine, agents.make("learned", path=folder), range(first, first + EPISODES))
            metrics |= more(engine, metrics)
            for one in measures:
                if one in metrics:
                    found.setdefault(one, []).append(float(metrics[one].double().mean()))
    return {one: round(sum(means) / len(means), 5) for one, means in found.items()}
