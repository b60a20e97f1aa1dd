"""Training on several splits of the data: every library takes turns on them, and one split is what there was before."""

from __future__ import annotations

import json
from importlib.util import find_spec

import pytest
import torch
from pydantic import ValidationError

from proxycoop.envs import Engine
from proxycoop.training.libraries.registry import settings_for
from proxycoop.training.libraries.shared.normalise import reference_statistics
from proxycoop.training.run import Run
from proxycoop.training.train import train

EPISODE = 2 * 6 * 3
"""Agent-steps of an episode of two cooperatives."""


def settings(small, library="ippo", algo=None, **changes):
    """Five episodes of two cooperatives, an episode an update."""
    quick = {"scenario": small, "credit": "equal", "total_steps": 5 * EPISODE, "num_cooperatives": 2, "batch_size": 18, "splits": 3}
    return settings_for(library, algo, **{**quick, **changes})


def on(small, **data):
    return small.model_copy(update={"data": small.data.model_copy(update=data)})


@pytest.mark.parametrize(
    ("library", "algo", "engines"), [("ippo", "ppo", 1), ("ippo", "grpo", 1), ("sb3", "ppo", 1), ("sb3", "dqn", 1), ("supersuit", "ppo", 2)]
)
def test_each_episode_is_on_the_next_split(small, tmp_path, monkeypatch, library, algo, engines):
    if library == "supersuit" and find_spec("supersuit") is None:
        pytest.skip("needs supersuit")
    played = []
    reset = Engine.reset

    def noted(self, *args, **how):
        observations = reset(self, *args, **how)
        if self.rule is not None:  # not the engine that measures the scale of rewards
            played.append((self.episode, self._ground.scenario.data.split_seed))
        return observations

    monkeypatch.setattr(Engine, "reset", noted)
    more = {"group_size": 2} if algo == "grpo" else {"buffer_size": 500} if algo == "dqn" else {}
    train(settings(on(small, split_seed=5), library, algo, **more), tmp_path, tensorboard=False)
    episodes = [episode for episode in range(7) for _ in range(engines)]  # rows go on to an episode that is not learned from
    assert played == [(episode, 5 + episode % 3) for episode in episodes[: len(played)]]
    assert len(played) >= 5 * engines


def test_one_split_is_what_there_was_before(small, tmp_path):
    one = settings(small, splits=1)
    assert "splits" not in one.plain()
    assert one.training_scenario == small
    assert Run(one, tmp_path).settings == one
    assert settings(small).plain()["splits"] == 3
    assert "splits" not in settings(small).plain()["scenario"]["data"]
    assert settings_for("ippo", scenario=small, credit="equal").splits == 8


def test_a_scenario_with_splits_of_its_own_says_on_how_many_to_train(small):
    two = on(small, splits=2)
    assert settings_for("ippo", scenario=two, credit="equal").splits == 2
    assert settings(two, splits=2).training_scenario == two
    with pytest.raises(ValueError, match=r"splits=3, but the scenario has data\.splits=2"):
        settings(two, splits=3)
    with pytest.raises((ValueError, ValidationError), match="splits"):
        settings(small, splits=0)


def test_a_run_of_an_earlier_version_goes_on_with_one_split_alone(small, tmp_path):
    folder = train(settings(small, splits=1), tmp_path / "run", tensorboard=False)
    record = json.loads((folder / "run.json").read_text())
    assert "splits" not in record["settings"]
    train(settings(small, splits=1), folder, resume=True, tensorboard=False)
    with pytest.raises(ValueError, match="holds a run with another splits: choose another --out"):
        train(settings(small, splits=8), folder, resume=True, tensorboard=False)
    other = train(settings(small, splits=2), tmp_path / "other", tensorboard=False)
    with pytest.raises(ValueError, match="holds a run with another splits: choose another --out"):
        train(settings(small, splits=1), other, resume=True, tensorboard=False)


@pytest.mark.parametrize("library", ["ippo", "sb3"])
def test_a_run_on_several_splits_that_was_cut_off_ends_as_if_it_had_not_been(small, resumed, library):
    resumed(settings(small, library, checkpoint_every=1), 2 * EPISODE)


def test_fixed_statistics_are_of_all_splits(small):
    both = reference_statistics(on(small, split_seed=5, splits=2), "equal")
    alone = [reference_statistics(on(small, split_seed=split), "equal") for split in (5, 6)]
    assert not torch.equal(both[0], alone[0][0])
    low, high = torch.minimum(alone[0][0], alone[1][0]), torch.maximum(alone[0][0], alone[1][0])
    assert ((both[0] >= low - 0.1 - 0.1 * low.abs()) & (both[0] <= high + 0.1 + 0.1 * high.abs())).all()
