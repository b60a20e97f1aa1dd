"""Numbers depend neither on what the caller has set in torch, nor on other threads, nor on what ran before in a notebook."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from proxycoop import agents
from proxycoop.envs import Engine, scenario
from proxycoop.envs.data import DATA, Dataset, load
from proxycoop.envs.shared import _shared
from proxycoop.envs.values.interface import VALUES, Value, rows_of

MLP = scenario.load("breast_cancer", horizon=3, model={"kind": "mlp", "hidden": [4]})


class Size(Value):
    """Differentiated automatically, as users' values are."""

    def strata(self, dataset, groups):
        return [rows_of(dataset, groups)]

    def loss(self, logits, probe, dataset):
        return logits.square().mean(dim=(-1, -2))


@contextmanager
def default_dtype():
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def default_device():
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


STATES = {
    "default dtype": default_dtype,
    "default device": default_device,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "inference mode": torch.inference_mode,
}


@pytest.mark.parametrize("state", STATES)
def test_an_episode_is_the_same_whatever_the_caller_has_set_in_torch(monkeypatch, state):
    monkeypatch.setitem(VALUES._factories, "test_torch_state_size", Size)
    small = scenario.load("breast_cancer", horizon=3, values={"size": {"kind": "test_torch_state_size"}}, profiles=[])

    def played(settings):
        _shared.cache_clear()
        engine = Engine(settings, "shapley", 2)
        first = engine.reset([0, 1])
        return first.dtype, agents.play(engine, agents.make("honest"), [0, 1])["return"]

    for settings in (small, MLP):
        expected = played(settings)
        with STATES[state]():
            came = played(settings)
        assert came[0] == torch.float32
        assert torch.equal(came[1], expected[1])
        engine = Engine(settings, "shapley", 2)  # what was made under that state serves elsewhere
        assert torch.equal(agents.play(engine, agents.make("honest"), [0, 1])["return"], expected[1])
    _shared.cache_clear()


def test_engines_of_one_module_play_in_several_threads_as_they_play_alone():
    def played(seed):
        return agents.play(Engine(MLP, "loo"), agents.make("random"), [seed])["return"]

    expected = [played(seed) for seed in range(4)]
    _shared.cache_clear()  # so that the threads build it, too
    with ThreadPoolExecutor(4) as pool:
        for came, alone in zip(pool.map(played, [0, 1, 2, 3] * 2), expected * 2, strict=True):
            assert torch.equal(came, alone)


def test_a_notebook_s_cell_that_runs_again_replaces_its_data_and_its_model(monkeypatch):
    monkeypatch.setattr(DATA, "_factories", dict(DATA._factories))

    def cell(number):
        def table() -> Dataset:
            return Dataset(np.full((4, 1), number), np.array([0, 1, 0, 1]), ("no", "yes"), ("x",))

        DATA.register("test_torch_state_table")(table)

    for number in (1.0, 2.0):
        cell(number)
        assert load("test_torch_state_table").features[0, 0] == number

    def factory(width):
        return lambda n_features, n_classes: torch.nn.Sequential(torch.nn.Linear(n_features, width), torch.nn.Linear(width, n_classes))

    settings = scenario.load("breast_cancer", horizon=2, model={"kind": "module", "factory": f"{__name__}:made"})
    sizes = []
    for width in (2, 8):
        monkeypatch.setitem(globals(), "made", factory(width))
        sizes.append(Engine(settings, "loo").model.n_parameters)
    assert sizes[0] < sizes[1]
