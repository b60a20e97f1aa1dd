"""How the shared model starts: plain gradient descent or Adam, in batches, and starts that are refused or told."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from proxycoop.envs import Engine, scenario
from proxycoop.envs.data import Rows
from proxycoop.envs.model import Cnn, Mlp, Softmax
from proxycoop.envs.scenario import Start
from proxycoop.envs.shared import shared

SMALL = {"principals": 2, "profiles": [], "reward.scale": 1.0}


@pytest.fixture
def rows() -> Rows:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(30, 4, generator=generator)
    return Rows(x=x, y=(x[:, 0] * x[:, 1] > 0).long(), groups={})


def in_torch(start: Start, rows: Rows, theta: torch.Tensor, optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> torch.Tensor:
    """The same training by torch's optimiser."""
    parameter.data.copy_(theta)
    model = Softmax().build(4, 2)
    for x, y in start._batches(rows, seed=3):
        optimizer.zero_grad()
        with torch.enable_grad():
            nn.functional.cross_entropy(model.logits(parameter, x)[0], y).backward()
        optimizer.step()
    return parameter.detach()


@pytest.mark.parametrize("batch", [None, 7, 40])
@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_a_start_is_what_torchs_optimisers_make(rows: Rows, kind: str, batch: int | None) -> None:
    start = Start(steps=23, lr=0.05, optimizer=kind, batch=batch)
    theta = torch.randn(1, 10, generator=torch.Generator().manual_seed(1))
    parameter = nn.Parameter(theta.clone())
    optimizer = (torch.optim.SGD if kind == "sgd" else torch.optim.Adam)([parameter], lr=0.05)
    found = start.train(Softmax().build(4, 2), theta, rows, seed=3)
    torch.testing.assert_close(found, in_torch(start, rows, theta, optimizer, parameter), rtol=1e-4, atol=1e-5)


def test_a_pass_has_every_row_once_and_the_seed_fixes_the_order(rows: Rows) -> None:
    start = Start(steps=6, batch=10)
    batches = start._batches(rows, seed=0)
    assert [len(y) for _, y in batches] == [10] * 6
    for first in (0, 3):
        together = torch.cat([x for x, _ in batches[first : first + 3]])
        assert torch.equal(together.sort(dim=0).values, rows.x.sort(dim=0).values)
    assert torch.equal(batches[0][0], start._batches(rows, seed=0)[0][0])
    assert not torch.equal(batches[0][0], start._batches(rows, seed=1)[0][0])


def test_rates_side_by_side_are_what_each_gives_alone(rows: Rows) -> None:
    model, start = Mlp(hidden=(5,)).build(4, 2), Start(steps=9, optimizer="adam", batch=8)
    theta = model.start()[None]
    *_, both = start.path(model, theta.repeat(2, 1), rows, 0, torch.tensor([[0.01], [0.1]]))
    for i, lr in enumerate((0.01, 0.1)):
        alone = start.model_copy(update={"lr": lr}).train(model, theta, rows, 0)
        torch.testing.assert_close(both[i : i + 1], alone)


def test_what_did_not_exist_is_not_in_files_that_do_not_use_it() -> None:
    assert scenario.load("digits").to_dict()["start"] == {"steps": 20, "lr": 0.5}
    assert scenario.load("digits", **{"start.optimizer": "adam"}).to_dict()["start"]["optimizer"] == "adam"


def test_adam_brings_a_network_to_where_plain_steps_do_not() -> None:
    """A convolutional network on digits: 20 plain steps at the default rate leave it at chance or worse."""
    cnn = {"model": {"kind": "cnn", "channels": [8], "kernel": [2], "stride": [2], "hidden": [32]}, **SMALL}

    def loss(**start: object) -> float:
        splits, model, theta = shared(scenario.load("digits", **cnn, start=start), torch.float32)
        return float(nn.functional.cross_entropy(model.logits(theta[None], splits.validation.x)[0], splits.validation.y))

    assert loss(steps=20, lr=0.01, optimizer="adam") < 0.8 * loss(steps=20, lr=0.01)


def test_a_start_that_diverges_is_refused_and_says_what_to_change() -> None:
    made = scenario.load("digits", **SMALL, model={"kind": "mlp"}, **{"start.lr": 1e8})
    with pytest.raises(
        ValueError, match=r"scenario 'digits': the model diverges in 20 steps of sgd with start.lr=1e\+08.*optimizer: adam"
    ) as told:
        Engine(made, None)
    assert "\n" not in str(told.value)


def test_a_start_that_is_far_worse_than_equal_chances_is_told() -> None:
    made = scenario.load("digits", **SMALL, model={"kind": "mlp"}, **{"start.lr": 30.0, "values": {}})
    with pytest.warns(UserWarning, match=r"after 20 steps of sgd with start.lr=30 .* gives all 10 classes the same chance has 2.30: lower"):
        shared(made, torch.float32)


def test_a_network_without_a_start_is_not_told() -> None:
    made = scenario.load("digits", **SMALL, model={"kind": "cnn", "channels": [4], "kernel": [2], "stride": [2]}, **{"start.steps": 0})
    splits, model, theta = shared(made, torch.float32)
    assert model.logits(theta[None], splits.validation.x).abs().max() == 0
    assert isinstance(made.model, Cnn)
