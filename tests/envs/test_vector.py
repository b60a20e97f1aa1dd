"""The Stable-Baselines3 face."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from stable_baselines3.common.vec_env import VecNormalize

from proxycoop.envs import Engine, scenario
from proxycoop.envs.vector import CooperativeVecEnv

SMALL = scenario.load("breast_cancer", horizon=4)


def rows(num_cooperatives=3, **kwargs):
    return CooperativeVecEnv(SMALL, "loo", num_cooperatives, seed=0, **kwargs)


def test_row_e_n_plus_i_is_proxy_i_of_cooperative_e():
    env = rows()
    engine = Engine(SMALL, "loo", 3)
    expected = engine.reset(env._next_seeds)
    assert np.array_equal(env.reset(), expected.reshape(18, -1).numpy())
    choices = torch.rand(3, 6, 4, generator=torch.Generator().manual_seed(0)) < 0.5
    observations, rewards, dones, infos = env.step(choices.reshape(18, 4).long().numpy())
    result = engine.step(choices)
    assert np.array_equal(observations, result.observations.reshape(18, -1).numpy())
    assert np.allclose(rewards, result.rewards.flatten().numpy())
    assert not dones.any()
    assert infos == [{}] * 18


def test_an_episode_ends_at_the_horizon_and_the_next_begins():
    env = rows()
    env.reset()
    total = np.zeros(18)
    for _ in range(4):
        before = env.engine.observations
        observations, rewards, dones, infos = env.step(np.ones((18, 4), dtype=np.int64))
        total += rewards
    assert dones.all()
    assert env.engine.t == 0
    assert env.engine.episode == 1
    for row, info in enumerate(infos):
        assert not info["TimeLimit.truncated"]  # nothing is earned after the horizon, which is observed
        assert info["episode"]["r"] == pytest.approx(total[row], rel=1e-5)
        assert info["episode"]["l"] == 4
        assert info["terminal_observation"].shape == observations[row].shape
        assert not np.array_equal(info["terminal_observation"], observations[row])
        assert not np.array_equal(info["terminal_observation"], before.reshape(18, -1)[row].numpy())
    assert float(env.last_episode["clean_share"].mean()) == 1.0


@pytest.mark.parametrize(("form", "size"), [("multi_discrete", 8), ("discrete", 16)])
def test_masks_are_flat_for_maskable_ppo(form, size):
    sparse = scenario.load("digits", substrate={"kind": "traversal", "lr": 0.4, "batch": 10})
    env = CooperativeVecEnv(sparse, "equal", 2, actions=form, seed=0)
    env.reset()
    assert env.has_attr("action_masks")
    masks = np.stack(env.env_method("action_masks"))
    assert masks.shape == (12, size)
    assert masks.dtype == bool
    available = env.engine.prospect.available.reshape(12, 4).numpy()
    if form == "multi_discrete":
        assert np.array_equal(masks[:, 1::2], available)
        assert masks[:, ::2].all()
    else:
        for row in range(12):
            for code in range(16):
                wanted = [bool(code >> k & 1) for k in range(4)]
                assert masks[row, code] == all(available[row, k] for k in range(4) if wanted[k])


def test_seeds_decide_everything_and_cooperatives_have_seeds_of_their_own():
    first, again, other = rows(), rows(), rows()
    other.seed(1)
    a, b, c = first.reset(), again.reset(), other.reset()
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)
    assert len(set(first.engine.seeds.tolist())) == 3


def test_normalisation_wraps_it():
    env = VecNormalize(rows(), gamma=0.5)
    observations = env.reset()
    for _ in range(5):
        observations, rewards, _, _ = env.step(np.ones((18, 4), dtype=np.int64))
    assert np.isfinite(observations).all()
    assert np.isfinite(rewards).all()


@pytest.mark.parametrize("actions", [np.ones((17, 4)), np.ones((18, 3)), np.ones(18), np.full((18, 4), 0.5), np.full((18, 4), 2)])
def test_wrong_actions_are_refused(actions):
    env = rows()
    env.reset()
    with pytest.raises(ValueError, match="action"):
        env.step_async(actions)


def test_rows_have_no_attributes_or_methods_of_their_own():
    env = rows()
    with pytest.raises(ValueError, match="all of them or none"):
        env.set_attr("render_mode", "ansi", indices=[0])
    with pytest.raises(AttributeError, match="no method 'fly'"):
        env.env_method("fly")
    assert env.get_attr("num_envs", indices=[0, 1]) == [18, 18]
    assert env.env_is_wrapped(VecNormalize) == [False] * 18


def test_step_before_reset_says_so():
    with pytest.raises(RuntimeError, match="before the first reset"):
        rows().step(np.ones((18, 4), dtype=np.int64))
    env = rows()
    env.reset()
    with pytest.raises(RuntimeError, match="before step_async"):
        env.step_wait()


def test_actions_of_an_episode_that_was_left_are_not_played_in_the_next():
    env = rows()
    with pytest.raises(RuntimeError, match="before the first reset"):
        env.step_async(np.ones((18, 4), dtype=int))
    env.reset()
    env.step_async(np.ones((18, 4), dtype=int))
    env.reset()
    with pytest.raises(RuntimeError, match="step_wait was called before step_async"):
        env.step_wait()


def test_the_place_of_an_episode_is_all_that_it_takes_to_begin_it():
    env, other = rows(), rows()
    assert other.place() is None
    env.reset()
    expected = env.reset()
    assert env.place()[1] == 1
    assert np.array_equal(other.start(*env.place()), expected)
    env.step(np.ones((env.num_envs, env.engine.num_items), dtype=np.int64))
    assert env.place() is None  # rounds of it were played
