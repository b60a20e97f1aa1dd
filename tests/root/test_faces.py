"""All faces of the engine are views of the same cooperatives."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch

import proxycoop.agents
from proxycoop.envs import Engine, cooperative_v0, scenario
from proxycoop.envs.gymnasium_vector import CooperativeVectorEnv
from proxycoop.envs.vector import CooperativeVecEnv

SMALL = scenario.load("breast_cancer", horizon=5)
CREDIT = "shapley"
SEEDS = (7, 8, 9)


class Script(proxycoop.agents.Agent):
    """Plays choices that were written down beforehand."""

    made_for = "any"

    def __init__(self, choices):
        self.choices = choices  # (T, E, N, K)

    def choose(self, observations):
        return self.choices[self.t]


@pytest.fixture(scope="module")
def choices():
    """(T, E, N, K)."""
    return torch.rand(5, len(SEEDS), 6, 4, generator=torch.Generator().manual_seed(0)) < 0.5


@pytest.fixture(scope="module")
def expected(choices):
    """Observations ``(T + 1, E, N, size)`` and rewards ``(T, E, N)`` of the engine: of each seed alone, and of all at once."""

    def played(seeds, choices):
        engine = Engine(SMALL, CREDIT, len(seeds))
        observations, rewards = [engine.reset(seeds)], []
        for chosen in choices:
            result = engine.step(chosen)
            observations.append(result.observations)
            rewards.append(result.rewards)
        return torch.stack(observations).numpy(), torch.stack(rewards).numpy()

    alone = [played([seed], choices[:, e : e + 1]) for e, seed in enumerate(SEEDS)]
    return [np.concatenate(parts, axis=1) for parts in zip(*alone, strict=True)], played(SEEDS, choices)


def test_a_batch_of_cooperatives_is_the_cooperatives_one_by_one(expected):
    alone, together = expected
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("e", range(len(SEEDS)))
def test_pettingzoo_s_parallel_face_plays_the_engine_s_trajectory(choices, expected, e):
    env = cooperative_v0.parallel_env(SMALL, CREDIT)
    observations, _ = env.reset(seed=SEEDS[e])
    seen, earned = [list(observations.values())], []
    for chosen in choices[:, e].long().numpy():
        observations, rewards, *_ = env.step(dict(zip(env.agents, chosen, strict=True)))
        seen.append(list(observations.values()))
        earned.append(list(rewards.values()))
    assert np.array_equal(np.array(seen), expected[0][0][:, e])
    assert np.array_equal(np.array(earned, dtype=np.float32), expected[0][1][:, e])


@pytest.mark.parametrize("e", range(len(SEEDS)))
def test_pettingzoo_s_aec_face_plays_the_engine_s_trajectory(choices, expected, e):
    env = cooperative_v0.env(SMALL, CREDIT)
    env.reset(seed=SEEDS[e])
    turns = iter(choices[:, e].flatten(end_dim=1).long().numpy())
    seen, earned = [], []
    for _ in env.agent_iter():
        observation, reward, terminated, truncated, _ = env.last()
        seen.append(observation)
        earned.append(reward)
        env.step(None if terminated or truncated else next(turns))
    assert np.array_equal(np.array(seen).reshape(6, 6, -1), expected[0][0][:, e])
    assert np.array_equal(np.array(earned, dtype=np.float32).reshape(6, 6)[1:], expected[0][1][:, e])  # before the first round nothing


@pytest.mark.parametrize("seat", [0, 3, 5])
def test_one_seat_among_proxies_who_play_the_others_choices_plays_the_engine_s_trajectory(choices, expected, seat):
    env = gymnasium.make("proxycoop/seat-v0", scenario=SMALL, credit=CREDIT, seat=seat, others=Script(choices[:, 1:2]))
    seen, earned = [env.reset(seed=SEEDS[1])[0]], []
    for chosen in choices[:, 1, seat].long().numpy():
        observation, reward, *_ = env.step(chosen)
        seen.append(observation)
        earned.append(reward)
    assert np.array_equal(np.array(seen), expected[0][0][:, 1, seat])
    assert np.array_equal(np.array(earned, dtype=np.float32), expected[0][1][:, 1, seat])


def test_gymnasium_s_vector_face_plays_the_engine_s_trajectory(choices, expected):
    envs = CooperativeVectorEnv(SMALL, CREDIT, num_cooperatives=len(SEEDS))
    seen, earned = [envs.reset(seed=SEEDS[0])[0]], []  # cooperative e has the seed + e
    for chosen in choices.flatten(1, 2).long().numpy():
        observations, rewards, *_ = envs.step(chosen)
        seen.append(observations)
        earned.append(rewards)
    assert np.array_equal(np.array(seen).reshape(expected[1][0].shape), expected[1][0])
    assert np.array_equal(np.array(earned, dtype=np.float32).reshape(expected[1][1].shape), expected[1][1])


def test_stable_baselines3_s_face_plays_the_engine_s_trajectory(choices, expected):
    rows = CooperativeVecEnv(SMALL, CREDIT, num_cooperatives=len(SEEDS))
    seen, earned = [rows.start(SEEDS)], []
    for chosen in choices.flatten(1, 2).long().numpy():
        observations, rewards, dones, infos = rows.step(chosen)
        seen.append(np.array([info["terminal_observation"] for info in infos]) if dones.all() else observations)
        earned.append(rewards)
    assert np.array_equal(np.array(seen).reshape(expected[1][0].shape), expected[1][0])
    assert np.array_equal(np.array(earned).reshape(expected[1][1].shape), expected[1][1])


def test_codes_and_bits_are_the_same_actions(choices, expected):
    envs = CooperativeVectorEnv(SMALL, CREDIT, num_cooperatives=len(SEEDS), actions="discrete")
    envs.reset(seed=SEEDS[0])
    codes = (choices.long() << torch.arange(4)).sum(dim=-1).flatten(1).numpy()
    earned = [envs.step(chosen)[1] for chosen in codes]
    assert np.array_equal(np.array(earned, dtype=np.float32).reshape(expected[1][1].shape), expected[1][1])


def test_the_table_of_speeds_has_a_row_for_every_face(benchmark_script, monkeypatch):
    faces = benchmark_script("training/faces")
    for name, value in {"SCENARIO": SMALL, "SIZES": (1, 2), "REPEATS": 1}.items():
        monkeypatch.setattr(faces, name, value)
    lines = faces.table(seconds=0)
    assert lines[2].count("|") == lines[3].count("|") == 7
    rows = [line.strip("| ").split(" | ") for line in lines[4:]]
    assert {row[3].split("(")[0].strip("`"): row[2] != "–" for row in rows} == {  # at E = 2
        "Engine": True,
        "cooperative_v0.parallel_env": False,  # one cooperative at a time
        "cooperative_v0.env": False,
        "gymnasium.make": False,
        "CooperativeVectorEnv": True,
        "CooperativeTorchRLEnv": faces.HAS_TORCHRL,
        "CooperativeVecEnv": True,
    }
