"""One seat as a Gymnasium environment."""

from __future__ import annotations

import threading

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env as gymnasium_check
from stable_baselines3.common.env_checker import check_env as sb3_check

from proxycoop import agents
from proxycoop.envs import Engine, scenario

SMALL = scenario.load("breast_cancer", horizon=4)


@pytest.mark.parametrize("actions", ["multi_discrete", "discrete"])
def test_the_checkers_of_gymnasium_and_of_stable_baselines3_pass(actions):
    sb3_check(agents.SeatEnv(SMALL, "loo", actions=actions, render_mode="rgb_array"))
    made = gymnasium.make("proxycoop/seat-v0", scenario=SMALL, credit="loo", actions=actions, disable_env_checker=True)
    gymnasium_check(made.unwrapped, skip_render_check=True)


def test_a_seat_that_plays_as_the_others_gives_the_engines_own_episode():
    env = agents.SeatEnv(SMALL, "loo", seat=2, others="honest")
    engine = Engine(SMALL, "loo")
    expected = agents.play(engine, agents.make("honest"), [5])
    observation, _ = env.reset(seed=5)
    honest, total, done = agents.make("honest"), 0.0, False
    honest.begin(env.engine.layout, torch.zeros(1, dtype=torch.int64))
    while not done:
        own = honest.act(torch.from_numpy(observation)[None, None])[0, 0]
        observation, reward, terminated, done, info = env.step(own.numpy().astype(np.int64))
        assert not terminated
        total += reward
    assert total == pytest.approx(float(expected["return"][0, 2]), rel=1e-5)
    assert info["metrics"]["welfare"] == pytest.approx(float(expected["welfare"][0]), rel=1e-5)
    assert info["metrics"]["return"] == pytest.approx(total, rel=1e-5)


def test_only_the_own_seat_follows_the_action():
    env = agents.SeatEnv(SMALL, "loo", seat=1, others="none")
    env.reset(seed=0)
    env.step(np.ones(4, dtype=np.int64))
    assert env.engine.history[-1].contributed[0].sum(dim=-1).tolist() == [0, 4, 0, 0, 0, 0]


def test_privileged_others_see_the_engine():
    env = agents.SeatEnv(SMALL, "loo", others="oracle")
    env.reset(seed=0)
    env.step(np.zeros(4, dtype=np.int64))
    assert not (env.engine.history[-1].contributed & env.engine.lots.corrupt).any()


def test_the_mask_says_which_lots_have_something_to_contribute():
    sparse = scenario.load("digits", substrate={"kind": "traversal", "lr": 0.4, "batch": 10})
    _, info = agents.SeatEnv(sparse, "equal", seat=3).reset(seed=0)
    env = agents.SeatEnv(sparse, "equal", seat=3)
    env.reset(seed=0)
    assert info["action_mask"][1::2].tolist() == env.engine.prospect.available[0, 3].tolist()


def test_what_is_wrong_is_refused():
    with pytest.raises(ValueError, match="seat=6: seats go from 0 to 5"):
        agents.SeatEnv(SMALL, seat=6)
    for seat in (True, 1.0, "0", None):
        with pytest.raises(ValueError, match=f"seat={seat!r}: seats go from 0 to 5"):
            agents.SeatEnv(SMALL, seat=seat)
    with pytest.raises(ValueError, match=r"others=3: must be an agent, as from agents\.make"):
        agents.SeatEnv(SMALL, others=3)
    with pytest.raises(ValueError, match="unknown agent 'honset'"):
        agents.SeatEnv(SMALL, others="honset")
    with pytest.raises(ValueError, match="render_mode='human': must be one of ansi, rgb_array"):
        agents.SeatEnv(SMALL, render_mode="human")
    env = agents.SeatEnv(SMALL, "loo", render_mode="ansi")
    with pytest.raises(RuntimeError, match="before the first reset"):
        env.step(np.zeros(4, dtype=np.int64))
    env.reset(seed=0)
    with pytest.raises(ValueError, match="action of seat 0 has shape"):
        env.step(np.zeros(3, dtype=np.int64))
    env.step(np.zeros(4, dtype=np.int64))
    assert "round 1" in env.render()


def test_environments_that_are_given_the_same_agent_play_as_each_would_alone():
    random = agents.make("random")
    alone, one, other = (agents.SeatEnv(SMALL, "loo", others=agent) for agent in ("random", random, random))
    for env, seed in ((alone, 0), (one, 0), (other, 7)):
        env.reset(seed=seed)
    for _ in range(SMALL.horizon):
        rewards = [env.step([1] * 4)[1] for env in (alone, one, other)]
        assert rewards[0] == rewards[1]


def test_an_agent_that_cannot_be_copied_is_refused():
    agent = agents.make("random")
    agent.lock = threading.Lock()
    with pytest.raises(ValueError, match="cannot be copied"):
        agents.SeatEnv(SMALL, "loo", others=agent)
