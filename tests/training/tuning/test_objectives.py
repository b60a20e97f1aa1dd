"""What a mechanism is tuned for, against definitions written with loops."""

from __future__ import annotations

import math

import pytest
import torch

from proxycoop import agents
from proxycoop.envs import Engine
from proxycoop.training.tuning.objectives import FLOOR, at_floor, balanced, nash, principal_returns, worst_off


@pytest.fixture
def returns():
    return 5 * torch.randn(7, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 3


def test_nash_is_the_geometric_mean_with_a_floor(returns):
    for row, found in zip(returns.tolist(), nash(returns).tolist(), strict=True):
        product = math.prod(max(one, FLOOR) for one in row)
        assert found == pytest.approx(product ** (1 / len(row)), rel=1e-12)


def test_a_return_that_is_not_positive_counts_as_the_floor():
    assert nash(torch.tensor([[-5.0, 0.0, 8.0]])).item() == pytest.approx(2.0)
    assert nash(torch.tensor([[-5.0, -1.0]])).item() == FLOOR
    assert at_floor(torch.tensor([[-5.0, 0.0, 8.0, 1.0]])).item() == 0.5


def test_worst_off_is_the_least_return_of_each_cooperative(returns):
    assert worst_off(returns).tolist() == [min(row) for row in returns.tolist()]


def test_balanced_returns_sum_to_the_welfare_and_keep_all_differences(returns):
    welfare = torch.arange(7, dtype=torch.float64)
    found = balanced(returns, welfare)
    for e in range(7):
        beyond = sum(returns[e].tolist()) - float(welfare[e])
        assert found[e].tolist() == pytest.approx([one - beyond / 4 for one in returns[e].tolist()], rel=1e-12)
    assert torch.allclose(found.sum(dim=1), welfare)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_public_share_pays_nobody_anything_in_balanced_returns(tiny, share):
    found = []
    for public in (0.0, share):
        played = tiny.model_copy(update={"reward": tiny.reward.model_copy(update={"public_share": public})})
        engine = Engine(played, "loo", 3, dtype=torch.float64)
        metrics = agents.play(engine, agents.make("all"), range(3))
        found.append(balanced(principal_returns(engine, metrics["return"]), metrics["welfare"]))
    assert torch.allclose(*found, atol=1e-9)


def test_names_of_a_principal_add_up_and_its_public_share_counts_once(tiny):
    from proxycoop.envs.scenario import Scenario

    changes = {"conduct": {"identities": [{"principal": 1, "split": 2}]}}
    plain = tiny.to_dict() | changes
    plain["reward"] = plain["reward"] | {"public_share": 0.5}
    engine = Engine(Scenario.model_validate(plain), "loo", 2, dtype=torch.float64)
    metrics = agents.play(engine, agents.make("all"), range(2))
    found = principal_returns(engine, metrics["return"])
    owner = engine.scenario.names.owner
    assert owner == (0, 1, 2, 1)
    for e in range(2):
        gain = sum(float(result.gain[e]) for result in engine.history)
        public = float(engine.reward_scale) * 0.5 * gain
        for principal in range(3):
            seats = [seat for seat, one in enumerate(owner) if one == principal]
            total = sum(float(metrics["return"][e, seat]) for seat in seats) - (len(seats) - 1) * public
            assert float(found[e, principal]) == pytest.approx(total, rel=1e-9)
    assert torch.equal(principal_returns(Engine(tiny, None, 2), metrics["return"]), metrics["return"])
