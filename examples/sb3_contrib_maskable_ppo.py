"""sb3-contrib: PPO that respects action masks. Here the virtual batch holds no row of some lots. Twenty seconds.

It needs ``pip install 'proxycoop[sb3-contrib]'``.
"""

from sb3_contrib import MaskablePPO

from proxycoop.envs import scenario
from proxycoop.envs.vector import CooperativeVecEnv
from proxycoop.training.libraries.sb3_contrib import MaskableLotPolicy

STEPS = 30_000  # agent-steps

sparse = scenario.load("digits", substrate={"kind": "traversal", "lr": 0.4, "batch": 40})  # 40 rows a round, drawn from 24 lots
rows = CooperativeVecEnv(sparse, credit="shapley", num_cooperatives=16, seed=0)
horizon = rows.engine.horizon
model = MaskablePPO(
    MaskableLotPolicy,
    rows,
    policy_kwargs=rows.policy_kwargs,
    n_steps=horizon,
    batch_size=512,
    gamma=0.5,
    learning_rate=1e-3,
    device="cpu",
    seed=0,
)
model.learn(STEPS)

observations, forbidden = rows.reset(), 0
for _ in range(horizon):
    masks = rows.action_masks()
    actions, _ = model.predict(observations, action_masks=masks)
    forbidden += int((actions > masks[:, 1::2]).sum())
    observations, rewards, dones, infos = rows.step(actions)
print(f"welfare: {float(rows.last_episode['welfare'].mean()):.2f}; lots contributed that had nothing to contribute: {forbidden}")
