"""SuperSuit: PettingZoo's own wrappers, and Stable-Baselines3's PPO on top. Half a minute.

It needs ``pip install 'proxycoop[supersuit]'``.
"""

import numpy as np
import supersuit
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecMonitor

from proxycoop.envs import cooperative_v0
from proxycoop.training.libraries.policy import LotPolicy

STEPS = 20_000  # agent-steps
COOPERATIVES = 8

env = cooperative_v0.parallel_env("digits", credit="shapley", infos="mask")  # the learner needs no more
layout = env.observation_layout()
env = supersuit.clip_reward_v0(env, lower_bound=-5, upper_bound=5)  # any of PettingZoo's wrappers
vector = supersuit.pettingzoo_env_to_vec_env_v1(env)
vector = supersuit.concat_vec_envs_v1(vector, COOPERATIVES, num_cpus=0, base_class="stable_baselines3")
vector.seed = lambda seed=None: vector.venv.reset(seed=seed)  # Stable-Baselines3 calls it, and SuperSuit has none
rows = VecMonitor(vector)
model = PPO(
    LotPolicy,
    rows,
    policy_kwargs=layout.sizes,
    n_steps=env.unwrapped.engine.horizon,
    batch_size=256,
    gamma=0.5,
    learning_rate=1e-3,
    device="cpu",
    seed=0,
)
model.learn(STEPS)
returns = [episode["r"] for episode in model.ep_info_buffer]
print(f"mean return of a proxy over the last {len(returns)} episodes: {np.mean(returns):.2f}")
