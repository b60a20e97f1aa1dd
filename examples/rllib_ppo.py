"""RLlib: PPO on its new API stack, with masks that say which lots have anything to contribute. Twenty seconds."""

import ray
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from proxycoop.envs import scenario
from proxycoop.training.libraries.rllib import POLICY, CooperativeMultiAgentEnv, EpisodeMetrics, LotModule, everyone, model_config

UPDATES = 6  # of 1,536 agent-steps each; use 78 for a full training
COOPERATIVES = 16
RUNNERS = 0  # processes that play; with 0, this process plays

digits = scenario.load("digits")
episode = digits.principals * digits.horizon  # agent-steps
config = (
    PPOConfig()
    .environment(CooperativeMultiAgentEnv, env_config={"scenario": digits, "credit": "shapley", "masks": True})
    .env_runners(num_env_runners=RUNNERS, num_envs_per_env_runner=COOPERATIVES // max(RUNNERS, 1), rollout_fragment_length=episode)
    .multi_agent(policies={POLICY}, policy_mapping_fn=everyone, count_steps_by="agent_steps")
    .rl_module(rl_module_spec=RLModuleSpec(module_class=LotModule, model_config=model_config(digits, "shapley")))
    .training(train_batch_size_per_learner=COOPERATIVES * episode, minibatch_size=512, num_epochs=6, lr=1e-3, gamma=0.5, lambda_=0.95)
    .training(clip_param=0.2, use_kl_loss=False, entropy_coeff=0.003, vf_loss_coeff=0.5, grad_clip=0.5)
    .callbacks(EpisodeMetrics)
    .debugging(seed=0)
)
ray.init(address="local", include_dashboard=False)  # or the address of a cluster
algorithm = config.build_algo()
for _ in range(UPDATES):
    metrics = algorithm.train()["env_runners"]["cooperative"]
    print(", ".join(f"{name} {metrics[name]:.2f}" for name in ("welfare", "clean_share", "corrupt_share")))
algorithm.stop()
ray.shutdown()
