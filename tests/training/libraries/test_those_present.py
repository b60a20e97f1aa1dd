"""Who is counted where only some agents are present in a round: learners who are present, in every library that trains there."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.vec_env import VecNormalize

from proxycoop.envs import Engine, Scenario, scenario
from proxycoop.envs.vector import CooperativeVecEnv
from proxycoop.training.libraries import ippo, sb3
from proxycoop.training.libraries.registry import LIBRARIES, learner, settings_for
from proxycoop.training.libraries.shared.own_rounds import OwnRounds
from proxycoop.training.libraries.shared.sb3_normalise import PresentMeanStd, PresentNormalize, normalised
from proxycoop.training.run import Run
from proxycoop.training.settings import QSettings
from proxycoop.training.train import train

N, M, T, E = 8, 3, 4, 4
RESIDENTS = [{"agent": "honest", "seats": [0, 1, 2, 5]}]
LEARNERS = [3, 4, 6, 7]


def made(sample=M, **changes):
    some = {} if sample is None else {"participation": {"sample": sample}}
    sizes = {"reward.scale": 100.0, "lots.per_principal": 2, "start.steps": 5}
    return scenario.load("digits", principals=N, horizon=T, profiles=[], **{**some, **sizes, **changes})


def settings(library="ippo", algo="ppo", sample=M, population=(), **changes):
    fields = {"credit": "loo", "total_steps": 200, "num_cooperatives": E, "splits": 1, **changes}
    return settings_for(library, algo, scenario=made(sample, population=list(population)), **fields)


def outcome(chosen, folder):
    """The policy with its normalisation, and the curve."""
    folder = train(chosen, folder, tensorboard=False)
    policy = torch.load(folder / "policy.pt", weights_only=True)
    numbers = {**policy.pop("network"), **{name: entry for name, entry in policy.items() if isinstance(entry, torch.Tensor)}}
    return numbers, json.loads((folder / "curve.json").read_text())["updates"]


def assert_same(one, other):
    (numbers, curve), (others, other_curve) = one, other
    assert numbers.keys() == others.keys()
    assert all(torch.equal(numbers[name], others[name]) for name in numbers)
    assert curve == other_curve


ABLE = [("ippo", "ppo", {}), ("ippo", "grpo", {}), ("sb3", "ppo", {}), ("sb3", "a2c", {}), ("sb3-contrib", "maskable_ppo", {})]


@pytest.mark.parametrize("population", [(), RESIDENTS], ids=["all-learn", "residents"])
@pytest.mark.parametrize(("library", "algo", "changes"), ABLE)
def test_a_sample_of_all_trains_as_without_participation_to_the_last_bit(library, algo, changes, population, tmp_path):
    one, other = (outcome(settings(library, algo, sample, population, **changes), tmp_path / str(sample)) for sample in (None, N))
    assert_same(one, other)


@pytest.mark.parametrize(
    ("library", "algo", "population"),
    [
        ("ippo", "ppo", ()),
        ("ippo", "grpo", ()),
        ("sb3", "ppo", ()),
        ("sb3", "ppo", RESIDENTS),
        ("sb3", "a2c", RESIDENTS),
        ("sb3-contrib", "maskable_ppo", RESIDENTS),
    ],
)
def test_what_leaves_out_the_absent_leaves_out_nobody_where_all_are_present(library, algo, population, tmp_path, monkeypatch):
    whole = {"n_steps": T} if algo == "a2c" else {}
    plain = outcome(settings(library, algo, None, population, **whole), tmp_path / "plain")
    monkeypatch.setattr(Scenario, "samples_some", property(lambda self: self.participation is not None))
    assert_same(plain, outcome(settings(library, algo, N, population, **whole), tmp_path / "sampled"))


def test_residents_who_are_present_are_not_counted(tmp_path, monkeypatch):
    chosen = settings(population=RESIDENTS, batch_size=4)
    pooled, update, gradient, step = [], [], [], []

    def spy(kept, original, part):
        def called(*arguments):
            kept.append(part(*arguments))
            return original(*arguments)

        return called

    def before(engine, actions):
        learns = torch.zeros(N, dtype=torch.bool)
        learns[LEARNERS] = True
        return engine.observations[engine.attendance.mask & learns] if engine.num_envs == E else None

    monkeypatch.setattr(ippo, "pooled", spy(pooled, ippo.pooled, lambda layout, seen: seen.flatten(end_dim=-2)))
    monkeypatch.setattr(
        ippo.RunningMoments, "update", spy(update, ippo.RunningMoments.update, lambda one, mean, var, count: (len(mean), count))
    )
    monkeypatch.setattr(ippo, "loss_gradient", spy(gradient, ippo.loss_gradient, lambda *given: len(given[1])))
    monkeypatch.setattr(Engine, "step", spy(step, Engine.step, before))
    run = Run(chosen, tmp_path)
    ippo.learn(run)
    expected = [rows for rows in step if rows is not None]
    there = [rows for rows in expected if len(rows)]
    assert all(torch.equal(one, other) for one, other in zip(pooled, there, strict=True))
    per_update = [sum(map(len, expected[first : first + T])) for first in range(0, len(expected), T)]
    assert [point["agent_steps"] for point in run.curve] == np.cumsum(per_update).tolist()
    assert run.curve[-2]["agent_steps"] < 200 <= run.curve[-1]["agent_steps"]
    assert [count for size, count in update if size > 1] == [len(rows) for rows in there]
    assert [count for size, count in update if size == 1] == per_update
    assert sum(gradient) == chosen.n_epochs * sum(per_update)
    assert max(gradient) <= 4


@pytest.mark.parametrize("spread", ["update", "group"])
@pytest.mark.parametrize("grouping", [{"group": "agents"}, {"group": "replicas", "group_size": 3}])
def test_only_learners_are_compared(grouping, spread):
    chosen = settings("ippo", "grpo", num_cooperatives=6, spread=spread, **grouping)
    generator = torch.Generator().manual_seed(0)
    worth = torch.randn(4, 6, 5, dtype=torch.float64, generator=generator)
    learning = torch.rand(4, 2, 1, 5, generator=generator).expand(4, 2, 3, 5).flatten(1, 2) < 0.6  # replicas have the same present
    found = ippo.relative(worth, chosen, learning)
    places = [(t, e, i) for t in range(4) for e in range(6) for i in range(5) if learning[t, e, i]]

    def group(t, e, i):
        rivals = [(t, e, j) for j in range(5)] if grouping["group"] == "agents" else [(t, f, i) for f in range(e // 3 * 3, e // 3 * 3 + 3)]
        return torch.stack([worth[one] for one in rivals if learning[one]])

    gaps = torch.stack([worth[place] - group(*place).mean() for place in places])
    spreads = torch.stack([group(*place).std(correction=0) for place in places]) if spread == "group" else gaps.std(correction=0)
    torch.testing.assert_close(torch.stack([found[place] for place in places]), gaps / (spreads + ippo.GROUP_EPSILON))
    torch.testing.assert_close(
        ippo.relative(worth, chosen, torch.ones_like(learning)), ippo.relative(worth, chosen), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize(
    ("library", "algo", "population"),
    [("ippo", "ppo", RESIDENTS), ("ippo", "grpo", RESIDENTS), ("sb3", "ppo", ()), ("sb3", "a2c", ()), ("sb3-contrib", "maskable_ppo", ())],
)
def test_runs_with_participation_go_on_where_they_were_cut_off(resumed, library, algo, population):
    resumed(settings(library, algo, population=population, total_steps=400, checkpoint_every=2), after=200)


def test_a2c_takes_whole_episodes():
    assert settings("sb3", "a2c").n_steps == T
    assert settings("sb3", "a2c", n_steps=2 * T).n_steps == 2 * T
    assert settings("sb3", "a2c", None).n_steps == settings("sb3", "a2c", N).n_steps == 8
    with pytest.raises(ValueError, match=r"n_steps=6: with participation, an update of a2c takes whole episodes: .* 4, or leave"):
        settings("sb3", "a2c", n_steps=6)
    rows = CooperativeVecEnv(made(), "loo", 1, seed=0)
    buffer = sb3.PresentRows(rows, RolloutBuffer(2, rows.observation_space, rows.action_space, "cpu", n_envs=N))
    with pytest.raises(ValueError, match="n_steps: with participation, a rollout holds whole episodes: make it a multiple of the horizon"):
        buffer.compute_returns_and_advantage(torch.zeros(N), np.zeros(N, dtype=np.bool_))


def test_what_comes_late_in_an_episode_reaches_the_last_own_round_of_a2c(tmp_path, monkeypatch):
    filled = []
    compute = sb3.PresentRows.compute_returns_and_advantage

    def spy(buffer, last_values, dones):
        buffer.rewards[T - 1] += 10  # a payout when the first episode ends
        compute(buffer, last_values, dones)
        filled.append((buffer.present.copy(), buffer.rewards.copy(), buffer.values.copy(), buffer.advantages.copy()))

    monkeypatch.setattr(sb3.PresentRows, "compute_returns_and_advantage", spy)
    train(settings("sb3", "a2c", n_steps=2 * T), tmp_path / "run", tensorboard=False)
    present, rewards, values, advantages = filled[0]
    seen = 0
    for row in np.flatnonzero(present[:T].any(axis=0)):
        last = np.flatnonzero(present[:T, row]).max()
        expected = rewards[last:T, row].sum() - values[last, row]
        assert advantages[last, row] == pytest.approx(expected, rel=1e-4, abs=1e-4)
        seen += last < T - 1
    assert seen


def test_the_normalisation_of_stable_baselines_counts_own_rounds_of_those_present():
    rows = CooperativeVecEnv(made(**{"reward.public_share": 0.5}), "loo", E, seed=0)  # those absent are paid, too
    env, seen = normalised(rows, rows.engine.layout, gamma=0.6)
    assert type(env) is PresentNormalize
    assert type(seen) is PresentMeanStd
    rng = np.random.default_rng(0)
    env.reset()
    observed, sums = [], []
    for _ in range(3):
        agents, rewards = [], []
        for _ in range(T):
            agents.append(rows.engine.attendance.agents)
            observed.append(rows.observations()[rows.present()])
            env.step(rng.integers(0, 2, (E * N, 2)))
            rewards.append(torch.from_numpy(env.get_original_reward()).reshape(E, N).double())
        own = OwnRounds(torch.stack(agents), N)
        sums.append(own.discounted(own.rewards(torch.stack(rewards)), 0.6).flatten())
    returns = torch.cat(sums).numpy()
    assert env.ret_rms.count == pytest.approx(3 * T * E * M)
    assert env.ret_rms.mean == pytest.approx(returns.mean(), rel=1e-4)
    assert env.ret_rms.var == pytest.approx(returns.var(), rel=1e-4)
    observed.append(rows.observations()[rows.present()])  # those of the round to come
    cut = len(rows.engine.layout.lot_features) * rows.engine.layout.n_items
    own = np.concatenate(observed)[:, cut:].astype(np.float64)
    assert seen.count == pytest.approx(len(own))
    assert np.allclose(seen.mean[cut:], own.mean(axis=0), rtol=1e-4, atol=1e-5)
    assert np.allclose(seen.var[cut:], own.var(axis=0), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("sample", [None, N])
def test_where_all_are_present_the_normalisation_is_stable_baselines(sample):
    rows = CooperativeVecEnv(made(sample), "loo", E)
    assert type(normalised(rows, rows.engine.layout, 0.5)[0]) is VecNormalize


@pytest.mark.parametrize(("library", "algo"), [(name, algo) for name, one in LIBRARIES.items() for algo in one.algorithms])
def test_algorithms_that_learn_from_the_absent_are_refused_with_those_that_do_not(library, algo):
    if LIBRARIES[library].algorithms[algo].participation:
        assert settings(library, algo).scenario.samples_some
        return
    said = (
        f"scenario 'digits' has participation, and {library} {algo} would learn from those who are absent, too: use one of "
        "sb3: ppo, a2c; sb3-contrib: maskable_ppo; ippo: ppo, grpo, ospo"
    )
    with pytest.raises(ValueError, match=f"^{said}$"):
        settings(library, algo)
    assert not settings(library, algo, N).scenario.samples_some


def test_settings_that_were_made_by_hand_are_refused_before_the_training(tmp_path):
    chosen = QSettings(library="sb3", algo="dqn", scenario=made(), credit="loo")
    with pytest.raises(ValueError, match="sb3 dqn would learn from those who are absent, too"):
        learner(chosen)
    with pytest.raises(ValueError, match="sb3 dqn would learn from those who are absent, too"):
        train(chosen, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_update_without_any_learner_says_what_to_do():
    rows = CooperativeVecEnv(made(), "loo", 1, seed=0)
    buffer = sb3.PresentRows(rows, RolloutBuffer(T, rows.observation_space, rows.action_space, "cpu", n_envs=N))
    with pytest.raises(ValueError, match="nobody who learns was present in a whole update: raise num_cooperatives"):
        next(buffer.get(4))
