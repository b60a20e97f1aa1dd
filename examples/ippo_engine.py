"""PPO directly on the engine's tensors, without an RL library. Ten seconds. With ``device="cuda"`` it plays and trains on a GPU."""

import tempfile

import torch

from proxycoop import agents
from proxycoop.envs import Engine, scenario
from proxycoop.training.libraries.registry import settings_for
from proxycoop.training.train import train

settings = settings_for(
    "ippo",
    "ppo",  # or "grpo" or "ospo", which have no critic
    scenario=scenario.load("digits"),
    credit="shapley",
    num_cooperatives=16,
    total_steps=60_000,  # agent-steps; use 120,000 for a full training
    device="cpu",
    seed=0,
)
engine = Engine("digits", credit="shapley", num_envs=64)
with tempfile.TemporaryDirectory() as folder:
    learned = agents.make("learned", path=train(settings, f"{folder}/run"))
    players = {"random": agents.make("random"), "honest": agents.make("honest"), "learned": learned}
    for name, player in players.items():
        metrics = agents.play(engine, player, seeds=range(1000, 1064))
        means = (f"{what} {float(metrics[what].mean()):.2f}" for what in ("welfare", "clean_share", "corrupt_share"))
        print(f"{name}: {', '.join(means)}")

observations = engine.reset(range(64))  # or step it yourself: choices (E, N, K) in, observations (E, N, size) and rewards (E, N) out
generator = torch.Generator().manual_seed(0)
while engine.t < engine.horizon:
    choices = torch.rand(64, engine.num_agents, engine.num_lots, generator=generator) < 0.5
    result = engine.step(choices)
print(f"after {engine.t} rounds of coins the shared model's utility is {float(result.utility.mean()):.3f}")
