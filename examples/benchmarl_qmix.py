"""BenchMARL: QMIX on the team's reward, as an experiment of BenchMARL. Its other algorithms and models work as well. Half a minute."""

import tempfile

from benchmarl.algorithms import QmixConfig
from benchmarl.experiment import Callback, Experiment, ExperimentConfig
from torchrl.envs import TransformedEnv
from torchrl.envs.utils import ExplorationType, set_exploration_type

from proxycoop.training.libraries.benchmarl import CooperativeTask, LotModelConfig, episode_means

COOPERATIVES, ROUNDS = 16, 16  # cooperatives played at once; rounds of an episode
ITERATIONS = 30  # each is one episode of every cooperative; use 78 for a full training


class Welfare(Callback):
    """Prints the cooperatives' welfare every ten iterations."""

    def on_batch_collected(self, batch):
        if self.experiment.n_iters_performed % 10 == 0:
            print(f"iteration {self.experiment.n_iters_performed}: welfare {episode_means(batch)['welfare']:.1f}")


config = ExperimentConfig.get_from_yaml()
config.gamma, config.lr, config.polyak_tau = 0.5, 1e-3, 0.05
config.exploration_eps_init, config.exploration_eps_end = 1.0, 0.05
config.max_n_frames, config.max_n_iters, config.off_policy_n_envs_per_worker = None, ITERATIONS, COOPERATIVES
config.off_policy_collected_frames_per_batch, config.off_policy_n_optimizer_steps = COOPERATIVES * ROUNDS, 2 * ROUNDS
config.off_policy_memory_size = 10_000
config.evaluation, config.render, config.loggers, config.create_json = False, False, [], False

task = CooperativeTask("digits", credit="shapley", rewards="team")
model = LotModelConfig(**task.layout.sizes)
with tempfile.TemporaryDirectory() as config.save_folder:
    experiment = Experiment(task, QmixConfig.get_from_yaml(), model, seed=0, config=config, callbacks=[Welfare()])
    experiment.run()
env = task.get_env_fun(COOPERATIVES, continuous_actions=False, seed=1, device="cpu")()
with set_exploration_type(ExplorationType.DETERMINISTIC):
    played = TransformedEnv(env, *task.get_env_transforms(env)).rollout(ROUNDS, experiment.policy)
print("trained, without exploration: " + ", ".join(f"{name} {episode_means(played)[name]:.2f}" for name in ("welfare", "corrupt_share")))
