"""Learning where only some agents are present in a round: returns over own rounds, against loops, and in both libraries."""

import numpy as np
import pytest
import torch
from stable_baselines3.common.buffers import RolloutBuffer

from proxycoop.envs import scenario
from proxycoop.envs.observations.spaces import observation_space
from proxycoop.envs.vector import CooperativeVecEnv
from proxycoop.training.libraries.registry import settings_for
from proxycoop.training.libraries.sb3 import PresentRows
from proxycoop.training.libraries.shared.own_rounds import OwnRounds
from proxycoop.training.train import train

T, E, N, M = 7, 2, 5, 2
GAMMA, LAMBDA = 0.6, 0.8


@pytest.fixture
def drawn():
    generator = torch.Generator().manual_seed(0)
    agents = torch.rand(T, E, N, generator=generator).argsort(dim=2)[..., :M].sort(dim=2).values
    rewards = torch.randn(T, E, N, dtype=torch.float64, generator=generator)
    values = torch.randn(T, E, M, dtype=torch.float64, generator=generator)
    return agents, rewards, values


def own_rounds(agents):
    """For each environment and agent: the rounds and seats in which it is present."""
    return {
        (e, i): [(t, agents[t, e].tolist().index(i)) for t in range(T) if i in agents[t, e].tolist()] for e in range(E) for i in range(N)
    }


def test_returns_and_advantages_are_over_own_rounds(drawn):
    agents, rewards, values = drawn
    own = OwnRounds(agents, N)
    earned = own.rewards(rewards)
    to_go, so_far, advantages = own.reward_to_go(earned, GAMMA), own.discounted(earned, GAMMA), own.gae(earned, values, GAMMA, LAMBDA)
    for (e, i), places in own_rounds(agents).items():
        after = later_value = later = 0.0
        for k, (t, seat) in reversed(list(enumerate(places))):
            until = places[k + 1][0] if k + 1 < len(places) else T
            r = float(rewards[t:until, e, i].sum())
            assert float(earned[t, e, seat]) == pytest.approx(r)
            after = r + GAMMA * after
            assert float(to_go[t, e, seat]) == pytest.approx(after)
            later = r + GAMMA * later_value - float(values[t, e, seat]) + GAMMA * LAMBDA * later
            later_value = float(values[t, e, seat])
            assert float(advantages[t, e, seat]) == pytest.approx(later)
        before = 0.0
        for t, seat in places:
            before = float(earned[t, e, seat]) + GAMMA * before
            assert float(so_far[t, e, seat]) == pytest.approx(before)


def test_the_rows_of_stable_baselines_have_the_same_advantages_and_only_those_present_are_learned_from():
    made = scenario.load("digits", principals=N, horizon=T, profiles=[], participation={"sample": M}, **{"reward.scale": 100.0})
    rows = CooperativeVecEnv(made, "loo", E, seed=3)
    space = observation_space(rows.engine.layout)
    plain = RolloutBuffer(T, space, rows.action_space, "cpu", gae_lambda=LAMBDA, gamma=GAMMA, n_envs=E * N)
    rows.reset()
    buffer = PresentRows(rows, plain)
    buffer.reset()
    generator = torch.Generator().manual_seed(1)
    agents, rewards, values = [], [], []
    starts = np.ones(E * N, dtype=np.float32)
    for _ in range(T):
        agents.append(rows.engine.attendance.agents)
        value = torch.randn(E * N, generator=generator)
        reward = torch.randn(E * N, generator=generator)
        action = torch.randint(2, (E * N, 4), generator=generator).numpy()
        _, _, dones, _ = rows.step(action)
        buffer.add(np.zeros((E * N, space.shape[0])), action, reward.numpy(), starts, value, torch.zeros(E * N))
        starts = dones.astype(np.float32)
        rewards.append(reward.reshape(E, N))
        values.append(value.reshape(E, N))
    buffer.compute_returns_and_advantage(torch.zeros(E * N), dones)
    present = torch.stack(agents)
    own = OwnRounds(present, N)
    expected = own.gae(own.rewards(torch.stack(rewards)), torch.stack(values).gather(2, present), GAMMA, LAMBDA)
    found = torch.from_numpy(buffer.advantages).reshape(T, E, N).gather(2, present)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    drawn = torch.cat([batch.advantages for batch in buffer.get(5)])
    torch.testing.assert_close(drawn.sort().values, expected.flatten().sort().values, rtol=1e-5, atol=1e-5)


def learned(folder, made, **more):
    run = settings_for("ippo", "ppo", scenario=made, credit="loo", total_steps=300, num_cooperatives=2, splits=1, **more)
    return torch.load(train(run, folder, tensorboard=False) / "policy.pt", weights_only=True)["network"]


def test_a_training_with_a_sample_of_all_is_the_training_without_participation(tmp_path):
    whole = scenario.load("breast_cancer", horizon=4, **{"reward.scale": 100.0})
    sampled = scenario.load("breast_cancer", horizon=4, participation={"sample": whole.principals}, **{"reward.scale": 100.0})
    one, other = learned(tmp_path / "whole", whole), learned(tmp_path / "sampled", sampled)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(("library", "algo"), [("ippo", "ppo"), ("ippo", "grpo"), ("sb3", "ppo"), ("sb3", "a2c")])
def test_libraries_learn_from_those_present_beside_others_who_do_not_learn(library, algo, tmp_path):
    more = {"reward.scale": 100.0, "lots.per_principal": 2}
    made = scenario.load("digits", principals=12, horizon=3, participation={"sample": 4}, **more)
    run = settings_for(library, algo, scenario=made, credit="loo", total_steps=60, num_cooperatives=4, splits=1, seats=("0=none", "5=all"))
    folder = train(run, tmp_path / "run", tensorboard=False)
    assert (folder / "policy.pt").is_file()
