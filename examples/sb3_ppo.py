"""Stable-Baselines3: PPO on the vectorised face, where every proxy of every cooperative is a row. Ten seconds."""

from stable_baselines3 import PPO

from proxycoop.envs.vector import CooperativeVecEnv
from proxycoop.training.libraries.policy import LotPolicy

STEPS = 30_000  # agent-steps; use 120,000 for a full training

rows = CooperativeVecEnv("digits", credit="shapley", num_cooperatives=16, seed=0)
model = PPO(
    LotPolicy,  # one network for all proxies and lots; "MlpPolicy" works too, but learns less
    rows,
    policy_kwargs=rows.policy_kwargs,
    n_steps=rows.engine.horizon,
    batch_size=512,
    n_epochs=6,
    gamma=0.5,
    learning_rate=1e-3,
    device="cpu",
    seed=0,
)
model.learn(STEPS)

test = CooperativeVecEnv("digits", credit="shapley", num_cooperatives=64, seed=1)
observations = test.reset()
for _ in range(test.engine.horizon):
    actions, _ = model.predict(observations, deterministic=False)
    observations, rewards, dones, infos = test.step(actions)
for name in ("welfare", "clean_share", "corrupt_share"):
    print(f"{name}: {float(test.last_episode[name].mean()):.2f}")
