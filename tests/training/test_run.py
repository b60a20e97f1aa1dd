"""Trainings that diverge, and checkpoints that are not what they were."""

from __future__ import annotations

import math
import random
import shutil

import pytest
import torch

from proxycoop.training.libraries.registry import settings_for
from proxycoop.training.run import Run
from proxycoop.training.train import train

ALGORITHMS = [("ippo", "ppo"), ("sb3", "ppo")]


def settings(small, library="ippo", algo="ppo", **changes):
    """Four updates of 72 agent-steps."""
    return settings_for(library, algo, **{"scenario": small, "credit": "loo", "total_steps": 280, "num_cooperatives": 4, **changes})


class Poison:
    """Makes a network's numbers NaN after so many updates, as a step that is far too long does."""

    def __init__(self, monkeypatch, updates):
        self.left, self.parameters = updates, tuple
        watch = Run.watch

        def watched(run, parameters):
            self.parameters = parameters
            watch(run, parameters)

        monkeypatch.setattr(Run, "watch", watched)

    def __call__(self, done, total, metrics):
        self.left -= 1
        if self.left == 0:
            with torch.no_grad():
                for _, parameter in self.parameters():
                    parameter.fill_(math.nan)


@pytest.fixture
def cut(small, tmp_path, cut_off):
    """A run that was cut off, with its checkpoint."""

    def call(library="ippo", algo="ppo"):
        cut_off(settings(small, library, algo, checkpoint_every=1), tmp_path / "run", after=100, tensorboard=False)
        return tmp_path / "run"

    return call


@pytest.mark.parametrize(("library", "algo"), [*ALGORITHMS, ("sb3", "a2c"), ("sb3-contrib", "maskable_ppo"), ("supersuit", "ppo")])
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_a_training_that_diverges_says_so_writes_no_policy_and_leaves_the_folder_to_corrected_settings(small, tmp_path, library, algo):
    with pytest.raises(
        ValueError,
        match=r"^training diverged, no policy is written: parameter \S+ is not finite after \d+ agent-steps: lower the "
        r"learning_rate, which is 1e\+20$",
    ):
        train(settings(small, library, algo, learning_rate=1e20), tmp_path / "run", tensorboard=False)
    assert not (tmp_path / "run" / "policy.pt").exists()
    assert not (tmp_path / "run" / "checkpoint.pt").exists()
    if (library, algo) == ("ippo", "ppo"):
        assert (train(settings(small), tmp_path / "run", tensorboard=False) / "policy.pt").exists()


@pytest.mark.parametrize(("library", "algo"), ALGORITHMS)
def test_a_training_that_diverges_keeps_its_last_sound_checkpoint_and_can_go_on_from_there(small, tmp_path, monkeypatch, library, algo):
    chosen = settings(small, library, algo, checkpoint_every=1)
    whole = train(chosen, tmp_path / "whole", tensorboard=False)
    with monkeypatch.context() as patch:
        poison = Poison(patch, updates=3)
        with pytest.raises(ValueError, match=r"training diverged.* the checkpoint of 144 agent-steps stays in '.*run/checkpoint\.pt'$"):
            train(chosen, tmp_path / "run", progress=poison, tensorboard=False)
    assert not (tmp_path / "run" / "policy.pt").exists()
    went_on = train(chosen, tmp_path / "run", resume=True, tensorboard=False)
    a, b = (torch.load(folder / "policy.pt", weights_only=True)["network"] for folder in (whole, went_on))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_metric_that_is_not_finite_stops_the_training_and_is_named(small, tmp_path):
    run = Run(settings(small), tmp_path)
    run.report(72, {"welfare": 1.0})
    with pytest.raises(ValueError, match="training diverged, no policy is written: metric gain is nan after 144 agent-steps"):
        run.report(144, {"welfare": 1.0, "gain": math.nan})
    assert len(run.curve) == 1


@pytest.mark.parametrize(("library", "algo"), ALGORITHMS)
def test_a_checkpoint_that_is_not_what_was_written_is_refused_by_its_name(small, tmp_path, cut, library, algo):
    folder = cut(library, algo)
    file, chosen = folder / "checkpoint.pt", settings(small, library, algo, checkpoint_every=1)
    whole, coins = file.read_bytes(), random.Random(0)
    flipped = bytearray(whole)
    flipped[coins.randrange(len(whole))] ^= 4
    for content in (bytes(flipped), bytes(len(whole)), whole[:-10], whole[: len(whole) // 2], b""):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"checkpoint '.*checkpoint\.pt' is damaged or not a checkpoint .*: delete it to train from"):
            train(chosen, folder, resume=True, tensorboard=False)
    file.write_bytes(whole)
    assert (train(chosen, folder, resume=True, tensorboard=False) / "policy.pt").exists()


def test_a_checkpoint_of_another_run_and_a_policy_in_its_place_are_refused(small, tmp_path, cut, cut_off):
    folder, chosen = cut(), settings(small, checkpoint_every=1)
    cut_off(settings(small, checkpoint_every=1, gamma=0.9, seed=3), tmp_path / "other", after=100, tensorboard=False)
    shutil.copy(tmp_path / "other" / "checkpoint.pt", folder)
    with pytest.raises(ValueError, match=r"checkpoint '.*checkpoint\.pt' is that of a run with another gamma, seed: delete it"):
        train(chosen, folder, resume=True, tensorboard=False)
    shutil.copy(train(chosen, tmp_path / "done", tensorboard=False) / "policy.pt", folder / "checkpoint.pt")
    with pytest.raises(ValueError, match=r"is damaged or not a checkpoint \(it lacks curve, seconds, state\)"):
        train(chosen, folder, resume=True, tensorboard=False)


def test_an_earlier_version_s_checkpoint_goes_on_unless_it_holds_numbers_that_are_not_finite(small, cut):
    folder, chosen = cut(), settings(small, checkpoint_every=1)
    old = torch.load(folder / "checkpoint.pt", weights_only=False)
    del old["settings"]
    bad = old | {"state": old["state"] | {"network": old["state"]["network"] | {"value.bias": torch.tensor([math.nan])}}}
    torch.save(bad, folder / "checkpoint.pt")
    with pytest.raises(ValueError, match=r"checkpoint\.pt' holds numbers that are not finite, in state\.network\.value\.bias: delete it"):
        train(chosen, folder, resume=True, tensorboard=False)
    torch.save(old, folder / "checkpoint.pt")
    assert (train(chosen, folder, resume=True, tensorboard=False) / "policy.pt").exists()


def test_the_model_within_a_checkpoint_of_stable_baselines3_must_be_finite_too(small, cut, monkeypatch):
    folder = cut("sb3", "ppo")
    monkeypatch.setattr(torch.nn.Module, "state_dict", lambda module: {"network.value.bias": torch.tensor([math.nan])})
    with pytest.raises(ValueError, match=r"checkpoint '.*' holds numbers that are not finite, in policy\.network\.value\.bias: delete it"):
        train(settings(small, "sb3", "ppo", checkpoint_every=1), folder, resume=True, tensorboard=False)
