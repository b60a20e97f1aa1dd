"""Stable-Baselines3 beyond PPO, its contributed algorithms, and SuperSuit's rows."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from stable_baselines3 import DQN
from stable_baselines3.common.utils import update_learning_rate

from proxycoop import agents
from proxycoop.envs import Engine, scenario
from proxycoop.envs.vector import CooperativeVecEnv
from proxycoop.training.libraries import sb3, sb3_contrib
from proxycoop.training.libraries.policy import LotQPolicy
from proxycoop.training.libraries.registry import settings_for
from proxycoop.training.libraries.shared.sb3_normalise import normalised
from proxycoop.training.libraries.supersuit import CooperativeRows
from proxycoop.training.run import Run
from proxycoop.training.train import train


def welfare(small, agent):
    return float(agents.play(Engine(small, "loo", 32), agent, range(900, 932))["welfare"].mean())


def curve(folder):
    return json.loads((folder / "curve.json").read_text())["updates"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("library", "algo", "steps", "changes"),
    [
        ("sb3", "a2c", 20_000, {}),
        ("sb3", "dqn", 20_000, {}),
        ("sb3-contrib", "maskable_ppo", 15_000, {"actions": "discrete"}),
        ("supersuit", "ppo", 15_000, {}),
    ],
)
def test_each_learns_what_random_choice_does_not(small, tmp_path, library, algo, steps, changes):
    settings = settings_for(library, algo, scenario=small, credit="loo", total_steps=steps, **changes)
    folder = train(settings, tmp_path / "run", tensorboard=False)
    learned = agents.make("learned", path=folder)
    assert welfare(small, learned) > welfare(small, agents.make("random")) + 3
    assert curve(folder)[-1]["agent_steps"] >= steps


def test_masks_are_kept_by_maskable_ppo(tmp_path):
    sparse = scenario.load("digits", horizon=4, substrate={"kind": "traversal", "lr": 0.4, "batch": 10})
    settings = settings_for("sb3-contrib", "maskable_ppo", scenario=sparse, credit="equal", num_cooperatives=2, total_steps=96)
    rows = CooperativeVecEnv(sparse, "equal", 2, seed=0)
    env, _ = normalised(rows, rows.engine.layout, 0.5)
    model = sb3_contrib._maskable_ppo(Run(settings, tmp_path), env, rows.policy_kwargs)
    observations = env.reset()
    for _ in range(4):
        masks = rows.action_masks()
        actions, _ = model.predict(observations, action_masks=masks)
        assert not (actions > masks[:, 1::2]).any()
        observations, *_ = env.step(actions)
    train(settings, tmp_path / "run", tensorboard=False)


def test_dqn_values_are_additive_over_lots_and_greedy_by_their_sign(small):
    env = CooperativeVecEnv(small, "loo", 2, actions="discrete", seed=0)
    model = DQN(LotQPolicy, env, policy_kwargs=env.policy_kwargs | {"hidden": 8}, buffer_size=100, seed=0, device="cpu")
    network = model.policy.network
    torch.nn.init.normal_(network.decide.weight)
    observations = torch.from_numpy(env.reset())
    values = model.q_net(observations)
    logits, state = network.logits(observations), network.state_value(observations)
    for code in range(16):
        lots = [k for k in range(4) if code >> k & 1]
        assert torch.allclose(values[:, code], state + logits[:, lots].sum(dim=1), atol=1e-5)
    actions, _ = model.predict(observations.numpy(), deterministic=True)
    assert torch.equal(env._rows.codec.decode(actions, "the rows"), logits > 0)
    target = dict(model.q_net_target.named_parameters())
    assert all(torch.equal(own, target[name]) for name, own in model.q_net.named_parameters() if "decide" not in name)


@pytest.mark.parametrize(
    ("library", "algo", "changes"),
    [("sb3", "a2c", {}), ("sb3", "dqn", {}), ("sb3-contrib", "maskable_ppo", {"actions": "discrete"}), ("supersuit", "ppo", {})],
)
def test_the_same_seed_trains_the_same_policy_and_another_seed_another(small, tmp_path, library, algo, changes):
    def network(name, seed):
        settings = settings_for(library, algo, scenario=small, credit="loo", total_steps=200, num_cooperatives=4, seed=seed, **changes)
        return torch.load(train(settings, tmp_path / name, tensorboard=False) / "policy.pt", weights_only=True)["network"]

    first, again, other = network("a", 1), network("b", 1), network("c", 2)
    points = curve(tmp_path / "a")
    assert [point["agent_steps"] for point in points] == [(i + 1) * 4 * 3 * 6 for i in range(len(points))]
    assert points[-1]["agent_steps"] >= 200
    assert {"welfare", "clean_share"} <= points[0].keys()
    assert agents.make("learned", path=tmp_path / "a").deterministic == (algo == "dqn")
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize(
    ("library", "algo", "changes"),
    [
        ("sb3", "ppo", {}),
        ("sb3", "a2c", {"n_steps": 3}),
        ("sb3", "dqn", {"buffer_size": 2_000}),
        ("sb3", "dqn", {"buffer_size": 200, "updates_per_round": 0.5, "rewards": "team"}),  # a buffer that has begun anew
        ("sb3-contrib", "maskable_ppo", {}),
        ("supersuit", "ppo", {}),
        ("supersuit", "a2c", {"n_steps": 3}),
        ("supersuit", "dqn", {"buffer_size": 2_000}),
    ],
)
def test_runs_that_were_cut_off_end_as_if_they_had_not_been(small, resumed, library, algo, changes):
    resumed(
        settings_for(library, algo, scenario=small, credit="loo", total_steps=500, num_cooperatives=4, checkpoint_every=5, **changes),
        after=400,
    )


def test_supersuits_rows_are_seeded_one_cooperative_after_the_other(small):
    settings = settings_for("supersuit", scenario=small, credit="loo", num_cooperatives=2)
    rows, again = CooperativeRows(settings), CooperativeRows(settings)
    seeds = [one.seed(3)[0] for one in (rows, again)]
    assert seeds[0] == seeds[1]
    observations = rows.reset()
    assert np.array_equal(observations, again.reset())
    engine = Engine(small, "loo", 2)
    assert np.array_equal(observations, engine.reset([seeds[0], seeds[0] + 1]).reshape(6, -1).numpy())
    for _ in range(6):
        _, rewards, dones, infos = rows.step(np.ones((6, 4), dtype=np.int64))
        result = engine.step(torch.ones(2, 3, 4, dtype=torch.bool))
        assert np.allclose(rewards, result.rewards.flatten().numpy(), atol=1e-6)
    assert dones.all()
    assert not any("episode" in info for info in infos)  # Stable-Baselines3 would look for returns and lengths there
    assert rows.last_episode["clean_share"] == 1.0


def test_team_rewards_are_the_mean_of_the_cooperatives(small):
    own, team = (CooperativeVecEnv(small, "loo", 2, rewards=form, seed=0) for form in ("own", "team"))
    for rows in (own, team):
        rows.reset()
    actions = np.random.default_rng(0).integers(0, 2, (6, 4))
    expected = own.step(actions)[1].reshape(2, 3).mean(axis=1, keepdims=True).repeat(3, axis=1).ravel()
    assert np.allclose(team.step(actions)[1], expected, atol=1e-6)
    with pytest.raises(ValueError, match="unknown form of the rewards 'mine': the known ones are own, team"):
        CooperativeVecEnv(small, "loo", 2, rewards="mine")


def test_dqn_takes_as_many_gradient_steps_as_it_says(small, tmp_path):
    for updates, expected in ((0.5, 6), (2, 24), (1, 12)):
        run = Run(settings_for("sb3", "dqn", scenario=small, credit="loo", num_cooperatives=2, updates_per_round=updates), tmp_path)
        rows = CooperativeVecEnv(small, "loo", 2, actions="discrete", seed=0)
        env, _ = normalised(rows, rows.engine.layout, 0.5)
        model = sb3.algorithm(run, env, rows.policy_kwargs)
        model.learn(3 * 6 * 6)  # three episodes; the first only fills the buffer
        assert model._n_updates == expected
    with pytest.raises(ValueError, match=r"updates_per_round=0\.7: must be a whole number, or one divided by a whole number"):
        settings_for("sb3", "dqn", scenario=small, updates_per_round=0.7)


@pytest.mark.parametrize("n_steps", [5, 9])
def test_a2c_keeps_checkpoints_whatever_its_updates_are(small, tmp_path, n_steps):
    settings = settings_for(
        "sb3", "a2c", scenario=small, credit="loo", total_steps=3 * 6 * 30, num_cooperatives=1, checkpoint_every=2, n_steps=n_steps
    )
    kept = []

    def look(done, total, metrics):
        if (tmp_path / "checkpoint.pt").exists():
            kept.append(len(torch.load(tmp_path / "checkpoint.pt", weights_only=False)["curve"]))

    train(settings, tmp_path, progress=look, tensorboard=False)
    assert len(set(kept)) >= 3


@pytest.mark.parametrize(("library", "algo", "per_update"), [("sb3", "ppo", 72), ("sb3", "a2c", 24), ("sb3-contrib", "maskable_ppo", 72)])
def test_the_learning_rate_falls_from_the_whole_to_the_last_updates_share(small, tmp_path, monkeypatch, library, algo, per_update):
    rates = []

    def noted(optimizer, rate):
        rates.append(rate)
        update_learning_rate(optimizer, rate)

    monkeypatch.setattr("stable_baselines3.common.base_class.update_learning_rate", noted)
    changes = {"n_steps": 2} if algo == "a2c" else {}
    train(
        settings_for(
            library, algo, scenario=small, credit="loo", total_steps=5 * per_update - 7, num_cooperatives=4, learning_rate=0.01, **changes
        ),
        tmp_path / "run",
        tensorboard=False,
    )
    assert np.allclose(rates, [0.01 * share / 5 for share in (5, 4, 3, 2, 1)])
