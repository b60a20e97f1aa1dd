"""PPO in a single file, with only PyTorch and Gymnasium, on the vector environment of all proxies. Ten seconds.

Every proxy of every cooperative is a sub-environment, and all of them train one policy. As in CleanRL (Huang et al. 2022), the loop can be
read beside the papers: Schulman et al. (2017), *Proximal policy optimization algorithms*, and Schulman et al. (2016) for the advantages.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import gymnasium
import torch
from torch import Tensor, nn
from torch.distributions import Categorical

import proxycoop.envs  # noqa: F401  # registers the environment


@dataclass(frozen=True)
class Settings:
    """Settings of the training."""

    scenario: str = "breast_cancer"
    credit: str = "loo"
    num_cooperatives: int = 16
    total_steps: int = 60_000  # agent-steps
    num_steps: int = 16  # rounds of a rollout: one episode of this scenario
    learning_rate: float = 1e-3  # falls linearly to 0
    gamma: float = 0.5
    gae_lambda: float = 0.95
    update_epochs: int = 6
    num_minibatches: int = 3
    clip_coef: float = 0.2
    ent_coef: float = 0.003
    vf_coef: float = 0.5
    max_grad_norm: float = 0.5
    hidden: int = 64
    seed: int = 0


def make(settings: Settings, num_cooperatives: int, mode: str) -> gymnasium.vector.VectorEnv:
    """Cooperatives with a row for each proxy."""
    what = {"scenario": settings.scenario, "credit": settings.credit, "autoreset_mode": mode}
    return gymnasium.make_vec("proxycoop/cooperative-v0", num_cooperatives=num_cooperatives, **what)


def layer(n_inputs: int, n_outputs: int, gain: float = 2**0.5) -> nn.Linear:
    """A layer with orthogonal weights."""
    linear = nn.Linear(n_inputs, n_outputs)
    nn.init.orthogonal_(linear.weight, gain)
    nn.init.zeros_(linear.bias)
    return linear


class Agent(nn.Module):
    """Actor and critic: two networks."""

    def __init__(self, envs: gymnasium.vector.VectorEnv, hidden: int) -> None:
        super().__init__()
        size, self.n_choices = envs.single_observation_space.shape[0], envs.single_action_space.nvec.tolist()

        def network(n_outputs: int, gain: float) -> nn.Sequential:
            return nn.Sequential(layer(size, hidden), nn.Tanh(), layer(hidden, hidden), nn.Tanh(), layer(hidden, n_outputs, gain))

        self.actor, self.critic = network(sum(self.n_choices), 0.01), network(1, 1.0)

    def policy(self, observations: Tensor, mask: Tensor) -> Categorical:
        """The distribution of the two choices for each lot, ``(B, K, 2)``. A forbidden choice has probability 0."""
        return Categorical(logits=self.actor(observations).masked_fill(~mask, -1e8).unflatten(-1, (len(self.n_choices), 2)))

    def value(self, observations: Tensor) -> Tensor:
        """Discounted rewards that are still to come, ``(B,)``."""
        return self.critic(observations)[..., 0]


def train(agent: Agent, envs: gymnasium.vector.VectorEnv, settings: Settings) -> None:
    """Proximal policy optimisation."""
    optimizer = torch.optim.Adam(agent.parameters(), lr=settings.learning_rate, eps=1e-5)
    batch_size = settings.num_steps * envs.num_envs
    n_updates = -(-settings.total_steps // batch_size)

    observation, infos = envs.reset(seed=settings.seed)
    for update in range(n_updates):
        optimizer.param_groups[0]["lr"] = settings.learning_rate * (1 - update / n_updates)

        # play: (T, rows, …)
        rollout: list[tuple[Tensor, ...]] = []
        for _ in range(settings.num_steps):
            seen, mask = torch.from_numpy(observation), torch.from_numpy(infos["action_mask"])
            with torch.no_grad():
                policy, value = agent.policy(seen, mask), agent.value(seen)
            action = policy.sample()
            observation, reward, terminations, truncations, infos = envs.step(action.numpy())
            done = torch.from_numpy(terminations | truncations).float()
            rollout.append((seen, mask, action, policy.log_prob(action).sum(-1), value, torch.from_numpy(reward).float(), done))
        seen, mask, action, log_prob, value, reward, done = (torch.stack(part) for part in zip(*rollout, strict=True))

        # how much better than expected each action was; after the horizon nothing is earned, so there the value is 0
        with torch.no_grad():
            next_value = agent.value(torch.from_numpy(observation))
        advantage, last = torch.zeros_like(reward), torch.zeros_like(next_value)
        for t in reversed(range(settings.num_steps)):
            delta = reward[t] + settings.gamma * next_value * (1 - done[t]) - value[t]
            advantage[t] = last = delta + settings.gamma * settings.gae_lambda * (1 - done[t]) * last
            next_value = value[t]

        # learn
        batch = [part.flatten(end_dim=1) for part in (seen, mask, action, log_prob, advantage, advantage + value)]
        for _ in range(settings.update_epochs):
            for rows in torch.randperm(batch_size).chunk(settings.num_minibatches):
                b_seen, b_mask, b_action, b_log_prob, b_advantage, b_return = (part[rows] for part in batch)
                policy = agent.policy(b_seen, b_mask)
                ratio = (policy.log_prob(b_action).sum(-1) - b_log_prob).exp()
                b_advantage = (b_advantage - b_advantage.mean()) / (b_advantage.std() + 1e-8)
                clipped = ratio.clamp(1 - settings.clip_coef, 1 + settings.clip_coef)
                policy_loss = -torch.min(ratio * b_advantage, clipped * b_advantage).mean()
                value_loss = (agent.value(b_seen) - b_return).square().mean()
                entropy = policy.entropy().sum(-1).mean()
                loss = policy_loss + settings.vf_coef * value_loss - settings.ent_coef * entropy
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(agent.parameters(), settings.max_grad_norm)
                optimizer.step()


def welfare(settings: Settings, choose: Callable[[Tensor, Tensor], Tensor], num_cooperatives: int = 64) -> float:
    """Mean welfare, in reward units, of one episode of cooperatives that training did not see."""
    envs = make(settings, num_cooperatives, "Disabled")
    observation, infos = envs.reset(seed=1_000_000)
    while "metrics" not in infos:
        observation, *_, infos = envs.step(choose(torch.from_numpy(observation), torch.from_numpy(infos["action_mask"])).numpy())
    return float(infos["metrics"]["welfare"].mean())


if __name__ == "__main__":
    settings = Settings()
    torch.manual_seed(settings.seed)
    envs = make(settings, settings.num_cooperatives, "SameStep")
    agent, layout = Agent(envs, settings.hidden), envs.unwrapped.engine.layout
    players = {
        "random": lambda seen, _: torch.randint(2, (len(seen), layout.n_lots)),
        "honest": lambda seen, _: (layout.lot(seen, "own_admissible") > 0.5) & (layout.lot(seen, "excess_loss") <= 0),
        "untrained": lambda seen, mask: agent.policy(seen, mask).sample(),
    }
    for name, choose in players.items():
        print(f"{name}: welfare {welfare(settings, choose):.1f}")
    train(agent, envs, settings)
    print(f"trained: welfare {welfare(settings, players['untrained']):.1f}")
