"""PPO, GRPO and OSPO on the engine's tensors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from proxycoop import agents
from proxycoop.agents.network import LotNetwork
from proxycoop.envs import Engine, scenario
from proxycoop.envs.vector import CooperativeVecEnv
from proxycoop.training.libraries import ippo
from proxycoop.training.libraries.registry import settings_for
from proxycoop.training.run import Run
from proxycoop.training.train import train

ALGORITHMS = ["ppo", "grpo", "ospo"]


def settings(small, algo="ppo", **changes):
    group = {} if algo == "ppo" or changes.get("group") == "agents" else {"group_size": 2}
    fields = {"scenario": small, "credit": "loo", "total_steps": 500, "num_cooperatives": 4, "checkpoint_every": 5, **group, **changes}
    return settings_for("ippo", algo, **fields)


def learn(chosen, folder):
    return ippo.learn(Run(chosen, folder))


def identical(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("algo", ["ppo", *(pytest.param(algo, marks=pytest.mark.slow) for algo in ("grpo", "ospo"))])
def test_proxies_learn_to_contribute_clean_lots_and_to_withhold_corrupt_ones(small, tmp_path, algo):
    group = {} if algo == "ppo" else {"group_size": 4}
    folder = train(settings(small, algo, total_steps=10_000, num_cooperatives=16, **group), tmp_path / "run", tensorboard=False)
    engine = Engine(small, "loo", 32)
    learned = agents.play(engine, agents.make("learned", path=folder), range(900, 932))
    random = agents.play(engine, agents.make("random"), range(900, 932))
    assert float(learned["corrupt_share"].mean()) < 0.2
    assert float(learned["clean_share"].mean()) > 0.4
    assert float(learned["welfare"].mean()) > float(random["welfare"].mean()) + 5


def pooled(moment, width, n_lots):
    return torch.cat([moment[: n_lots * width].reshape(n_lots, width).mean(dim=0).repeat(n_lots), moment[n_lots * width :]])


def reference(chosen, n_updates):
    """The same by the book: sums as they are defined, ``torch.distributions``, autograd, plain Adam; an update is one minibatch."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(chosen.seed)
        engine = Engine(chosen.training_scenario, chosen.credit, chosen.num_cooperatives)
        network = LotNetwork(**engine.layout.sizes, hidden=chosen.hidden)
    optimizer = torch.optim.Adam(network.parameters(), lr=chosen.learning_rate, eps=1e-5)
    generator = torch.Generator().manual_seed(chosen.seed)
    width, n_lots = len(engine.layout.lot_features), engine.num_lots
    rows, all_returns = [], []
    for update in range(n_updates):
        raw = engine.reset(ippo.cooperatives(chosen) if update == 0 else None)
        x, a, r, old = [], [], [], []
        for _ in range(engine.horizon):
            rows.append(raw.flatten(end_dim=1).double())
            every = torch.cat(rows)
            first, second = (pooled(moment.mean(dim=0), width, n_lots) for moment in (every, every**2))
            mean = first * len(every) / (len(every) + 1e-4)  # Stable-Baselines3 begins as if it had seen 1e-4 rows of variance 1
            variance = (second * len(every) + 1e-4) / (len(every) + 1e-4) - mean**2
            x.append(((raw - mean) / (variance + 1e-8).sqrt()).clamp(-10, 10).float())
            coins = torch.distributions.Bernoulli(logits=network.logits(x[-1].flatten(end_dim=1)).unflatten(0, raw.shape[:2]))
            a.append((torch.rand(coins.logits.shape, generator=generator) < coins.probs).float())
            old.append(coins.log_prob(a[-1]).sum(dim=-1).detach())
            result = engine.step(a[-1])
            raw = result.observations
            r.append(result.rewards if chosen.rewards == "own" else result.rewards.mean(dim=1, keepdim=True).expand_as(result.rewards))
        v = [network.state_value(one.flatten(end_dim=1)).detach().unflatten(0, raw.shape[:2]) for one in x]
        all_returns += [sum(chosen.gamma ** (t - s) * r[s] for s in range(t + 1)) for t in range(len(r))]
        scale = torch.stack(all_returns).double().std(correction=0)
        r = [(one / scale).float() for one in r]
        delta = [r[t] + (chosen.gamma * v[t + 1] if t + 1 < len(r) else 0) - v[t] for t in range(len(r))]
        decay = chosen.gamma * chosen.gae_lambda
        advantage = torch.stack([sum(decay ** (s - t) * delta[s] for s in range(t, len(r))) for t in range(len(r))])
        target = (advantage + torch.stack(v)).flatten()
        advantage = advantage.flatten()
        advantage = (advantage - advantage.mean()) / advantage.std()
        x, a, old = torch.stack(x).flatten(end_dim=2), torch.stack(a).flatten(end_dim=2), torch.stack(old).flatten()
        for group in optimizer.param_groups:
            group["lr"] = chosen.learning_rate * (1 - update / n_updates)
        for _ in range(chosen.n_epochs):
            torch.randperm(len(x), generator=generator)
            coins = torch.distributions.Bernoulli(logits=network.logits(x))
            ratio = (coins.log_prob(a).sum(dim=1) - old).exp()
            low, high = 1 - chosen.clip_range, 1 + chosen.clip_range
            policy_loss = -torch.min(ratio * advantage, ratio.clamp(low, high) * advantage).mean()
            value_loss = torch.nn.functional.mse_loss(network.state_value(x), target)
            optimizer.zero_grad()
            (policy_loss + 0.5 * value_loss - chosen.ent_coef * coins.entropy().sum(dim=1).mean()).backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 0.5)
            optimizer.step()
    return network, mean, float(scale**2)


@pytest.mark.parametrize("rewards", ["own", "team"])
def test_two_updates_are_those_of_ppo_by_the_book(small, tmp_path, rewards):
    # steps so long that ratios leave the clipping range
    chosen = settings(
        small, total_steps=2 * 6 * 4 * 3, batch_size=10_000, n_epochs=5, ent_coef=0.05, learning_rate=0.02, hidden=8, rewards=rewards
    )
    trained = learn(chosen, tmp_path)
    network, mean, return_variance = reference(chosen, 2)
    for (name, ours), theirs in zip(trained.network.named_parameters(), network.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-4), name
    width = len(Engine(small).layout.lot_features)
    assert torch.allclose(trained.mean[:width], mean[:width].float(), atol=1e-4)
    assert trained.return_variance == pytest.approx(return_variance, rel=1e-3)


def test_the_gradient_of_the_loss_is_autograds(small):
    generator = torch.Generator().manual_seed(1)
    logits, old = (torch.randn(64, 4, dtype=torch.float64, generator=generator) for _ in range(2))
    values, advantages, targets = (torch.randn(64, dtype=torch.float64, generator=generator) for _ in range(3))
    actions, available = (torch.rand(64, 4, generator=generator) < 0.6 for _ in range(2))
    actions = (actions & available).double()
    logits.requires_grad_(), values.requires_grad_()
    old_log_prob = (torch.distributions.Bernoulli(logits=old).log_prob(actions) * available).sum(dim=1)
    coins = torch.distributions.Bernoulli(logits=logits)
    ratio = ((coins.log_prob(actions) * available).sum(dim=1) - old_log_prob).exp()
    assert 10 < int(((ratio - 1).abs() > 0.2).sum()) < 60
    surrogate = torch.min(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages)
    loss = -surrogate.mean() - 0.1 * (coins.entropy() * available).sum(dim=1).mean() + 0.5 * (values - targets).square().mean()
    loss.backward()
    chosen = settings(small, ent_coef=0.1)
    with torch.no_grad():
        d_logits, d_values = ippo.loss_gradient(chosen, logits, values, actions, available.double(), old_log_prob, advantages, targets)
    assert torch.allclose(d_logits, logits.grad, atol=1e-12)
    assert torch.allclose(d_values, values.grad, atol=1e-12)
    assert not d_logits[~available].any()


def test_log_probability_of_a_lot_that_is_not_available_is_that_of_certainty():
    logits, actions = torch.tensor([[0.3, -2.0, 5.0]]), torch.tensor([[1.0, 0.0, 0.0]])
    available = torch.tensor([[True, True, False]])
    p, q = 1 / (1 + math.exp(-0.3)), 1 / (1 + math.exp(2.0))
    assert float(ippo.log_prob(logits, actions, available)) == pytest.approx(math.log(p) + math.log(1 - q))


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_no_lot_is_contributed_that_is_not_available(tmp_path, monkeypatch, algo):
    sparse = scenario.load(
        "breast_cancer", principals=3, horizon=6, profiles=[], substrate={"kind": "traversal", "batch": 6}, **{"reward.scale": 1.0}
    )
    chosen, missing = [], []
    step = Engine.step

    def spy(engine, actions):
        chosen.append(bool((actions & ~engine.prospect.available).any()))
        missing.append(float((~engine.prospect.available).float().mean()))
        return step(engine, actions)

    monkeypatch.setattr(Engine, "step", spy)
    learn(settings(sparse, algo, total_steps=100), tmp_path)
    assert not any(chosen)
    assert np.mean(missing) > 0.3


def test_gae_is_the_decayed_sum_of_temporal_differences():
    rewards, values = torch.randn(5, 2, 3, dtype=torch.float64), torch.randn(5, 2, 3, dtype=torch.float64)
    advantages = ippo.gae(rewards, values, gamma=0.9, lam=0.8)
    for t in range(5):
        expected = torch.zeros(2, 3, dtype=torch.float64)
        for s in range(t, 5):
            following = values[s + 1] if s + 1 < 5 else torch.zeros(2, 3)
            expected += (0.9 * 0.8) ** (s - t) * (rewards[s] + 0.9 * following - values[s])
        assert torch.allclose(advantages[t], expected)


def test_rewards_to_go_and_so_far_are_discounted_by_distance():
    rewards = torch.tensor([1.0, 10.0, 100.0])
    assert ippo.reward_to_go(rewards, 0.5).tolist() == [31.0, 60.0, 100.0]
    assert ippo.discounted(rewards, 0.5).tolist() == [1.0, 10.5, 105.25]


GROUPINGS = [{"group": "agents"}, {"group": "replicas", "group_size": 3}]


@pytest.mark.parametrize("spread", ["update", "group"])
@pytest.mark.parametrize("grouping", GROUPINGS)
def test_advantages_over_the_group_have_mean_zero_in_each_and_unit_spread(small, grouping, spread):
    worth = torch.randn(4, 6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3 + 7
    advantages = ippo.relative(worth, settings(small, "grpo", num_cooperatives=6, spread=spread, **grouping))

    def groups(numbers):
        if grouping["group"] == "agents":
            return torch.stack([numbers[t, e] for t in range(4) for e in range(6)])
        return torch.stack([numbers[t, e : e + 3, i] for t in range(4) for e in (0, 3) for i in range(3)])

    given = groups(advantages)
    assert torch.allclose(given.mean(dim=1), torch.zeros(len(given), dtype=torch.float64), atol=1e-12)
    assert torch.equal(given.argsort(dim=1), groups(worth).argsort(dim=1))
    spreads = given.std(dim=1, correction=0) if spread == "group" else given.std(correction=0)
    assert torch.allclose(spreads, torch.ones_like(spreads), atol=1e-2)
    assert (given.std(dim=1).std() > 0.1) == (spread == "update")


@pytest.mark.parametrize("spread", ["update", "group"])
def test_where_all_of_a_group_get_the_same_there_is_no_advantage(small, spread):
    among_agents, replicas = (settings(small, "grpo", num_cooperatives=6, spread=spread, **grouping) for grouping in GROUPINGS)
    assert float(ippo.relative(torch.rand(2, 6, 1).expand(2, 6, 3) * 9, among_agents).abs().max()) < 0.02
    assert float(ippo.relative(torch.rand(2, 1, 3).expand(2, 6, 3) * 9, replicas).abs().max()) < 0.02


def test_cooperatives_are_stable_baselines_and_replicas_are_the_same_one(small):
    rows = CooperativeVecEnv(small, "loo", 4)
    assert ippo.cooperatives(settings(small, seed=3)) == rows.seed(3)[::3]
    assert ippo.cooperatives(settings(small, "grpo", group="agents", seed=3)) == rows.seed(3)[::3]
    a, b, c, d = ippo.cooperatives(settings(small, "grpo", seed=3))
    assert a == b != c == d


@pytest.mark.parametrize("algo", ["grpo", "ospo"])
def test_no_critic_is_trained_where_groups_are_compared(small, tmp_path, algo):
    trained = learn(settings(small, algo), tmp_path)
    torch.manual_seed(0)
    network = LotNetwork(**Engine(small).layout.sizes)
    start, end = network.state_dict(), trained.network.state_dict()
    assert all(torch.equal(start[name], end[name]) == name.startswith(("critic", "value")) for name in start)
    assert trained.return_variance == 1


def test_ospo_looks_at_one_round_and_grpo_at_the_rest(small, tmp_path, monkeypatch):
    seen = {}
    relative, step = ippo.relative, Engine.step

    def spy(worth, chosen, learning):
        seen["worth"] = worth.clone()
        return relative(worth, chosen, learning)

    def record(engine, actions):
        result = step(engine, actions)
        if engine.num_envs == 4:  # not the episodes that find the scale of the rewards
            seen.setdefault("rewards", []).append(result.rewards)
        return result

    monkeypatch.setattr(ippo, "relative", spy)
    monkeypatch.setattr(Engine, "step", record)
    for algo in ("ospo", "grpo"):
        seen.clear()
        learn(settings(small, algo, total_steps=1, rewards="team"), tmp_path)
        rewards = torch.stack(seen["rewards"]).mean(dim=2, keepdim=True)
        ahead = rewards if algo == "ospo" else torch.stack([sum(0.5 ** (s - t) * rewards[s] for s in range(t, 6)) for t in range(6)])
        assert torch.allclose(seen["worth"], ahead.expand_as(seen["worth"]), atol=1e-6)


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_the_same_seed_gives_the_same_policy_and_leaves_other_randomness_alone(small, tmp_path, algo):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    one = learn(settings(small, algo), tmp_path)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    same, other = learn(settings(small, algo), tmp_path), learn(settings(small, algo, seed=1), tmp_path)
    assert identical(one.network.state_dict(), same.network.state_dict())
    assert torch.equal(one.variance, same.variance)
    assert not identical(one.network.state_dict(), other.network.state_dict())


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_a_run_that_was_cut_off_ends_as_if_it_had_not_been(small, resumed, algo):
    resumed(settings(small, algo), after=400)


def test_updates_that_do_not_divide_into_minibatches_are_split_evenly(small, tmp_path, monkeypatch):
    sizes = []
    gradient = ippo.loss_gradient

    def spy(chosen, logits, *rest):
        sizes.append(len(logits))
        return gradient(chosen, logits, *rest)

    monkeypatch.setattr(ippo, "loss_gradient", spy)
    learn(settings(small, total_steps=1, n_epochs=1, batch_size=50), tmp_path)  # 6 · 4 · 3 = 72 rows
    assert sizes == [36, 36]


def test_a_minibatch_of_one_row_leaves_no_nan(tmp_path):
    lonely = scenario.load("breast_cancer", principals=1, horizon=3, profiles=[], **{"reward.scale": 1.0})
    trained = learn(settings(lonely, num_cooperatives=1, batch_size=2, total_steps=1), tmp_path)  # minibatches of 2 and 1
    assert all(parameter.isfinite().all() for parameter in trained.network.parameters())


@pytest.mark.parametrize(
    ("algo", "changes", "said"),
    [
        ("grpo", {"num_cooperatives": 6, "group_size": 4}, "num_cooperatives=6 does not divide into groups of group_size=4"),
        ("ospo", {"group": "agents", "rewards": "team"}, "group='agents' compares what the proxies of a cooperative get"),
        ("ospo", {"gamma": 0.9}, "gamma: ospo looks at the reward of one round only"),
        ("grpo", {"group": "agents", "group_size": 3}, "group_size: with group='agents', a group is the proxies of a cooperative"),
        ("grpo", {"group": "everybody"}, "Input should be 'replicas' or 'agents'"),
        ("ppo", {"group": "agents"}, "Extra inputs are not permitted"),
    ],
)
def test_wrong_settings_are_refused(small, algo, changes, said):
    with pytest.raises(ValueError, match=said):
        settings(small, algo, **changes)


def test_codes_as_actions_and_missing_devices_are_refused(small, tmp_path):
    with pytest.raises(ValueError, match="actions='discrete': ippo ppo takes multi_discrete"):
        train(settings(small, actions="discrete"), tmp_path / "run")
    with pytest.raises(ValueError, match="device='cuda:99' cannot be used"):
        learn(settings(small, device="cuda:99"), tmp_path)
