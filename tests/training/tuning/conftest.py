"""A tiny tuning that is run once, in forked processes."""

from __future__ import annotations

import multiprocessing
from types import SimpleNamespace

import pytest

from proxycoop.training.executors import processes
from proxycoop.training.tuning import planned, tune

QUICK = {"total_steps": 60, "num_cooperatives": 2, "splits": 1, "episodes": 2, "evaluation_splits": 2, "seeds": 1}
PARAMETERS = ["scenario:reward.public_share=0.0..0.5", "scenario:screening.governance=own|unanimous"]


@pytest.fixture(scope="package", autouse=True)
def forked():
    """Processes are forked from this one: interpreters of their own would cost seconds of imports each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "multiprocessing", SimpleNamespace(get_context=lambda _: multiprocessing.get_context("fork")))
        yield


@pytest.fixture(scope="package")
def tiny(small):
    """With a reward scale of its own: to measure one costs more than to train."""
    return small.model_copy(update={"name": "tiny", "reward": small.reward.model_copy(update={"scale": 40.0})})


@pytest.fixture(scope="package")
def plan(tiny):
    return planned("equal", tiny, PARAMETERS, **QUICK)


@pytest.fixture(scope="package")
def whole(plan, tmp_path_factory):
    """A whole tuning with one process, its folder, and what it told."""
    folder, told = tmp_path_factory.mktemp("tuning"), []
    found = tune(plan, folder, trials=6, held_out_seeds=2, jobs=1, told=lambda *words: told.append(words))
    return found, folder, told
