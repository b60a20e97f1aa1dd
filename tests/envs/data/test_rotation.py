"""Episodes take turns on the splits of the data."""

import copy

import pytest
import torch

from proxycoop.envs import Engine, episode_metrics
from proxycoop.envs.scenario import Scenario, load
from proxycoop.envs.shared import shared

SHORT = {"horizon": 3, "principals": 3, "profiles": [{"holders": 1, "tolerances": {"eights": 0.36}}]}
PAID = {"settlement": {"reward": "settlement", "period": 2}}


def play(engine: Engine) -> dict[str, torch.Tensor]:
    while engine.t < engine.horizon:
        engine.step(~engine.lots.corrupt)
    return {"observations": engine.observations, "theta": engine.theta, **engine.test(), **episode_metrics(engine)}


@pytest.mark.parametrize("more", [{}, PAID], ids=["credit", "money"])
def test_episode_k_is_that_of_an_engine_on_split_k(more: dict[str, object]) -> None:
    rotating = Engine(load("digits", **SHORT, **more, **{"data.splits": 3, "data.split_seed": 5}), "loo", 2)
    rotating.reset([7, 8])
    for episode in range(4):
        alone = Engine(load("digits", **SHORT, **more, **{"data.split_seed": 5 + episode % 3}), "loo", 2)
        alone.reset([7, 8], episode=episode)
        assert rotating.reward_scale == alone.reward_scale
        assert torch.equal(rotating.observations, alone.observations)
        found, expected = play(rotating), play(alone)
        assert all(torch.equal(found[name], expected[name]) for name in expected)
        rotating.reset()


def test_an_episode_is_named_by_seed_and_number_alone() -> None:
    scenario = load("digits", **SHORT, **{"data.splits": 3})
    gone_on, begun = Engine(scenario, "loo"), Engine(scenario, "loo", 2)
    gone_on.reset([4])
    for _ in range(4):
        gone_on.reset()
    begun.reset([3, 4], episode=4)
    assert torch.equal(play(gone_on)["theta"], play(begun)["theta"][1:])


def test_a_copy_goes_on_by_itself() -> None:
    engine = Engine(load("digits", **SHORT, **PAID, **{"data.splits": 2}), "loo")
    engine.reset([1], episode=1)
    other, fork = copy.copy(engine), engine.fork()
    expected = play(other)["theta"]
    other.reset()
    assert torch.equal(play(fork)["theta"], expected)
    assert torch.equal(play(engine)["theta"], expected)
    assert engine.treasury is not None
    assert engine.treasury.accounts.paid.any()


def test_one_split_is_left_out_of_files_and_more_are_read_back() -> None:
    assert "splits" not in load("digits").to_dict()["data"]
    assert "version" not in Scenario().to_dict()
    assert load("digits").to_dict()["version"] == load("digits").version > 1
    assert load("digits", **{"data.splits": 3}).to_dict()["data"]["splits"] == 3


def test_splits_share_what_was_made_for_one_of_them() -> None:
    engine = Engine(load("digits", **{"data.splits": 2}), "loo")
    engine.reset([0], episode=1)
    assert engine.splits is shared(load("digits", **{"data.split_seed": 1}), torch.float32)[0]


@pytest.mark.parametrize("splits", [0, 257, 1.5])
def test_a_number_of_splits_out_of_range_is_refused(splits: float) -> None:
    with pytest.raises(ValueError, match=r"data\.splits"):
        load("digits", **{"data.splits": splits})
