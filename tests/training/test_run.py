"""Trainings that diverge, and checkpoints that are not what they were."""

from __future__ import annotations

import json
import math
import random
import shutil
import signal
import subprocess
import sys

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


@pytest.mark.parametrize(("library", "algo"), [*ALGORITHMS, ("sb3", "dqn")])
def test_a_checkpoint_that_holds_numbers_that_are_not_finite_is_refused_by_the_name_of_the_number(small, cut, library, algo):
    folder = cut(library, algo)
    data = torch.load(folder / "checkpoint.pt", weights_only=True)
    name = "network" if library == "ippo" else "parameters.policy"
    part = data["state"]
    for key in name.split("."):
        part = part[key]
    parameter = next(iter(part))
    part[parameter].view(-1)[0] = math.nan
    torch.save(data, folder / "checkpoint.pt")
    with pytest.raises(ValueError, match=rf"checkpoint '.*' holds numbers that are not finite, in state\.{name}\.{parameter}: delete it"):
        train(settings(small, library, algo, checkpoint_every=1), folder, resume=True, tensorboard=False)


def test_a_checkpoint_of_other_versions_of_the_library_is_refused(small, cut, monkeypatch):
    folder, chosen = cut("sb3", "dqn"), settings(small, "sb3", "dqn", checkpoint_every=1)
    kept = torch.load(folder / "checkpoint.pt", weights_only=True)["versions"]
    assert kept.keys() == {"proxycoop", "torch", "stable-baselines3"}
    with monkeypatch.context() as patch:
        patch.setattr("proxycoop.training.train.versions", lambda library: kept | {"stable-baselines3": "9.9"})
        with pytest.raises(ValueError, match=r"^checkpoint '.*' was written with stable-baselines3 [\d.]+, here is 9\.9: install what"):
            train(chosen, folder, resume=True, tensorboard=False)
    assert (train(chosen, folder, resume=True, tensorboard=False) / "policy.pt").exists()


@pytest.mark.parametrize("other", [("sb3", "a2c", {"n_steps": 3}), ("supersuit", "ppo"), ("sb3", "ppo", {"n_epochs": 2})])
def test_a_checkpoint_of_another_library_algorithm_or_setting_is_refused(small, tmp_path, cut, cut_off, other):
    folder, (library, algo, *changes) = cut("sb3", "ppo"), other
    cut_off(settings(small, library, algo, checkpoint_every=1, **dict(*changes)), tmp_path / "other", 100, tensorboard=False)
    shutil.copy(tmp_path / "other" / "checkpoint.pt", folder)
    with pytest.raises(ValueError, match=r"checkpoint '.*' is that of a run with another (algo|library|n_epochs).*: delete it"):
        train(settings(small, "sb3", "ppo", checkpoint_every=1), folder, resume=True, tensorboard=False)


class Stranger:
    """Makes a file when it is read from a pickle."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return (open, (str(self.file), "w"))


@pytest.mark.parametrize(("library", "algo"), [("sb3", "ppo"), ("supersuit", "dqn")])
def test_no_checkpoint_runs_code_when_it_is_read(small, tmp_path, cut, library, algo):
    folder = cut(library, algo)
    data = torch.load(folder / "checkpoint.pt", weights_only=True)  # tensors and plain data
    torch.save(data | {"state": Stranger(tmp_path / "made")}, folder / "checkpoint.pt")
    with pytest.raises(ValueError, match=r"^checkpoint '.*' is damaged .* \(it holds more than tensors and plain data\): delete"):
        train(settings(small, library, algo, checkpoint_every=1), folder, resume=True, tensorboard=False)
    assert not (tmp_path / "made").exists()


def test_a_run_of_a_version_that_had_no_checkpoints_of_its_library_begins_again(small, tmp_path, cut):
    folder, chosen = cut("sb3", "dqn"), settings(small, "sb3", "dqn")
    (folder / "checkpoint.pt").unlink()
    record = json.loads((folder / "run.json").read_text())
    del record["settings"]["checkpoint_every"]
    (folder / "run.json").write_text(json.dumps(record))
    began_at = []
    train(chosen, folder, resume=True, tensorboard=False, progress=lambda done, *_: began_at.append(done))
    assert began_at[0] == 72


KILLED = """
import os, signal, sys
from proxycoop import files
from proxycoop.envs import scenario
from proxycoop.training.libraries.registry import settings_for
from proxycoop.training.train import train

replace, checkpoints = os.replace, []

def half_way(new, old):
    if str(old).endswith("checkpoint.pt"):
        checkpoints.append(old)
        if len(checkpoints) == 3:
            os.truncate(new, os.path.getsize(new) // 2)
            os.kill(os.getpid(), signal.SIGKILL)
    replace(new, old)

os.replace = half_way
small = scenario.load("breast_cancer", principals=3, horizon=6, profiles=[{"holders": 1, "tolerances": {"missed_cancer": 0.1}}])
settings = settings_for("sb3", "dqn", scenario=small, credit="loo", total_steps=280, num_cooperatives=4, checkpoint_every=1)
train(settings, sys.argv[1], tensorboard=False)
"""


def test_a_process_that_is_killed_while_it_writes_a_checkpoint_leaves_the_one_before(small, tmp_path):
    killed = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "run"], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert [path.name for path in (tmp_path / "run").glob(".checkpoint.pt.*")]  # what it was writing
    chosen = settings(small, "sb3", "dqn", checkpoint_every=1)
    told = []
    went_on = train(chosen, tmp_path / "run", resume=True, tensorboard=False, progress=lambda done, *_: told.append(done))
    assert told == [216, 288]
    assert not list(went_on.glob(".checkpoint.pt.*"))
    whole = train(chosen, tmp_path / "whole", tensorboard=False)
    a, b = (torch.load(one / "policy.pt", weights_only=True)["network"] for one in (whole, went_on))
    assert all(torch.equal(a[name], b[name]) for name in a)
