"""AgileRL: IPPO with AgileRL's own networks and training loop. It needs ``pip install 'proxycoop[agilerl]'``."""

import random

import numpy as np
import torch
from agilerl.algorithms import IPPO
from agilerl.training.train_multi_agent_on_policy import train_multi_agent_on_policy

from proxycoop.training.libraries.agilerl_env import CooperativeAgileRLEnv

SCENARIO, CREDIT = "digits", "shapley"
NUM_COOPERATIVES, UPDATES, SEED = 16, 40, 0
NETWORK = {"encoder_config": {"hidden_size": [64], "activation": "Tanh"}, "head_config": {"hidden_size": [64], "activation": "Tanh"}}


def main() -> None:
    """Train one policy for all proxies, and print what a proxy earns in an episode, before and after training."""
    for seed in (random.seed, np.random.seed, torch.manual_seed):  # AgileRL draws from these generators
        seed(SEED)
    env = CooperativeAgileRLEnv(SCENARIO, CREDIT, NUM_COOPERATIVES, actions="multi_discrete", shared=True, seed=SEED)
    episode = env.rows.engine.horizon * env.num_envs  # agent-steps of one episode of every cooperative
    agent = IPPO(
        {"proxy": env.single_observation_space("proxy")},
        {"proxy": env.single_action_space("proxy")},
        net_config=NETWORK,
        learn_step=episode,
        batch_size=512,
        update_epochs=6,
        lr=1e-3,
        gamma=0.5,
        ent_coef=0.003,
    )
    print(f"before: {agent.test(env):.2f}")
    train_multi_agent_on_policy(env, SCENARIO, "IPPO", [agent], max_steps=UPDATES * episode, evo_steps=10 * episode, verbose=False)
    print(f"after: {agent.test(env):.2f}")


if __name__ == "__main__":
    main()
