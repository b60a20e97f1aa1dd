"""A small cooperative that PPO learns in seconds, and the command line."""

from __future__ import annotations

import multiprocessing
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from proxycoop.envs import scenario
from proxycoop.training import compare as compare_module
from proxycoop.training.commands import cli
from proxycoop.training.settings import TrainSettings
from proxycoop.training.train import train


@pytest.fixture(scope="session")
def small():
    return scenario.load("breast_cancer", principals=3, horizon=6, profiles=[{"holders": 1, "tolerances": {"missed_cancer": 0.1}}])


@pytest.fixture(scope="session")
def forking():
    """Within it, the processes of a comparison are forked from this one: interpreters of their own would cost seconds of imports each."""

    @contextmanager
    def within():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(compare_module, "multiprocessing", SimpleNamespace(get_context=lambda _: multiprocessing.get_context("fork")))
            yield

    return within


@pytest.fixture
def run(monkeypatch, capsys):
    """Run ``proxycoop WORDS`` and give its exit code, standard output and standard error."""

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["proxycoop", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    return call


class CutOffError(Exception):
    """A training is cut off."""


@pytest.fixture
def cut_off():
    """Train until so many agent-steps are reported, and then no more; the run's folder holds a checkpoint and no policy."""

    def call(settings: TrainSettings, folder: Path, after: int, **how: object) -> None:
        def cut(done: int, total: int, metrics: dict[str, float]) -> None:
            if done > after:
                raise CutOffError

        with pytest.raises(CutOffError):
            train(settings, folder, progress=cut, **how)
        assert (folder / "checkpoint.pt").exists()
        assert not (folder / "policy.pt").exists()

    return call


@pytest.fixture
def resumed(tmp_path, cut_off):
    """Check that a run that is cut off and goes on ends as if it had not been; gives its folder."""

    def call(settings: TrainSettings, after: int) -> Path:
        whole = train(settings, tmp_path / "whole", tensorboard=False)
        cut_off(settings, tmp_path / "cut", after, tensorboard=False)
        folder = train(settings, tmp_path / "cut", resume=True, tensorboard=False)
        a, b = (torch.load(one / "policy.pt", weights_only=True) for one in (whole, folder))
        for networks in (a.pop("network"), b.pop("network")), (a, b):
            assert networks[0].keys() == networks[1].keys()
            for name, entry in networks[0].items():
                assert torch.equal(entry, networks[1][name]) if isinstance(entry, torch.Tensor) else entry == networks[1][name]
        assert (whole / "curve.json").read_text() == (folder / "curve.json").read_text()
        return folder

    return call
