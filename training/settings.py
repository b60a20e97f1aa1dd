"""Settings of training runs: what all have in common, and what each family of algorithms adds."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from .. import credit
from ..envs.observations.spaces import ActionForm, RewardForm
from ..envs.scenario import Scenario
from ..envs.shared import require_served
from ..settings import Settings


class TrainSettings(Settings):
    """One training run. Saved in the run's folder; a run is resumed with the settings that it began with."""

    scenario: Scenario = Field(description="The cooperative.")
    credit: str = Field("shapley", description="Credit rule that pays the proxies: its name, with arguments if it takes any.")
    seed: int = Field(0, ge=0, le=2**32 - 1, description="Seed of the network, of the sampling and of the cooperatives.")
    library: str = Field("sb3", description="RL library that trains.")
    algo: str = Field("ppo", description="Its algorithm.")
    total_steps: int = Field(120_000, ge=1, description="Agent-steps, rounded up to whole updates.")
    num_cooperatives: int = Field(16, ge=1, description="Cooperatives stepped at once.")
    learning_rate: float = Field(1e-3, gt=0, description="Adam's learning rate at the start.")
    gamma: float = Field(0.5, ge=0, le=1, description="Discount per round.")
    hidden: int = Field(64, ge=1, description="Units of each hidden layer.")
    actions: ActionForm = Field("multi_discrete", description="Form of the actions.")
    rewards: RewardForm = Field("own", description="Whether each proxy is given its own reward, or all the mean of the team's.")

    def plain(self) -> dict[str, Any]:
        """All settings as they come back from a JSON file, so that a run's can be compared with those on disk."""
        settings = self.model_dump(mode="json", exclude={"scenario"}) | {"scenario": self.scenario.to_dict()}
        plain: dict[str, Any] = json.loads(json.dumps(settings))
        return plain

    @field_validator("credit")
    @classmethod
    def _can_serve(cls, rule: str, info: ValidationInfo) -> str:
        made = credit.make(rule)
        if "scenario" in info.data:  # it is not where the scenario itself is wrong
            require_served(info.data["scenario"], made, rule)
        return rule


class Checkpointed(TrainSettings):
    """A run that can go on from a checkpoint, to the same numbers as if it had not been cut off."""

    checkpoint_every: int = Field(20, ge=1, description="Updates between checkpoints; episodes where updates are shorter.")


class PPOSettings(TrainSettings):
    """Proximal policy optimisation (Schulman et al. 2017); an update sees one episode of every cooperative."""

    learning_rate: float = Field(1e-3, gt=0, description="Adam's learning rate at the start; falls linearly to 0.")
    n_epochs: int = Field(6, ge=1, description="Passes over the data of an update.")
    batch_size: int = Field(512, ge=2, description="Agent-steps of a minibatch.")
    gae_lambda: float = Field(0.95, ge=0, le=1, description="λ of generalised advantage estimation.")
    clip_range: float = Field(0.2, gt=0, description="PPO's clipping of the probability ratio.")
    ent_coef: float = Field(0.003, ge=0, description="Weight of the entropy bonus.")

    def minibatch(self, n_rows: int, rows_of: int = 1) -> int:
        """The size near ``batch_size`` into which an update divides evenly: the largest below it, or the next above if that is too small.

        Args:
            n_rows: Rows of an update.
            rows_of: Agent-steps that a row holds.

        Returns:
            Rows of a minibatch: at most ``batch_size // rows_of`` and at least half of it, else more.

        Raises:
            ValueError: If an update is a single agent-step, within which PPO cannot compare.
        """
        if n_rows * rows_of < 2:
            raise ValueError("an update is one agent-step, which PPO cannot compare with others: raise num_cooperatives")
        wanted = min(max(self.batch_size // rows_of, 1), n_rows)
        divisors = [size for size in range(1, n_rows + 1) if n_rows % size == 0]
        below = max(size for size in divisors if size <= wanted)
        return below if 2 * below >= wanted and below * rows_of > 1 else min(size for size in divisors if size > below)


class CheckpointedPPOSettings(PPOSettings, Checkpointed):
    """PPO with checkpoints."""


class RayPPOSettings(PPOSettings):
    """PPO in RLlib."""

    num_env_runners: int = Field(0, ge=0, description="Processes that play, which share the cooperatives; 0 plays where it learns.")
    masks: bool = Field(True, description="Whether the policy is told which lots there is anything to contribute of.")

    @model_validator(mode="after")
    def _can_share(self) -> RayPPOSettings:
        if self.num_cooperatives % max(self.num_env_runners, 1):
            raise ValueError(
                f"num_cooperatives={self.num_cooperatives} cannot be shared equally by num_env_runners={self.num_env_runners}: "
                "make it a multiple"
            )
        return self


class A2CSettings(TrainSettings):
    """Advantage actor-critic (Mnih et al. 2016), synchronous."""

    learning_rate: float = Field(3e-3, gt=0, description="RMSprop's learning rate at the start; falls linearly to 0.")
    n_steps: int = Field(8, ge=1, description="Rounds of every cooperative that an update sees.")
    gae_lambda: float = Field(0.95, ge=0, le=1, description="λ of generalised advantage estimation.")
    ent_coef: float = Field(0.003, ge=0, description="Weight of the entropy bonus.")


class CheckpointedA2CSettings(A2CSettings, Checkpointed):
    """The same with checkpoints."""


class QSettings(TrainSettings):
    """Value-based learning from a replay buffer (Mnih et al. 2015), of each proxy for itself or of the team."""

    learning_rate: float = Field(1e-3, gt=0, description="Adam's learning rate.")
    actions: ActionForm = Field("discrete", description="Form of the actions.")
    buffer_size: int = Field(50_000, ge=1, description="Agent-steps that the replay buffer holds.")
    batch_size: int = Field(512, ge=2, description="Agent-steps of a minibatch.")
    exploration_share: float = Field(0.5, gt=0, le=1, description="Share of the training over which ε falls from 1 to its end.")
    exploration_end: float = Field(0.05, ge=0, le=1, description="ε of the ε-greedy exploration at its end.")
    target_tau: float = Field(
        0.05, gt=0, le=1, description="Share of the way that the target network moves towards the other in an update."
    )
    updates_per_round: float = Field(
        1.0, gt=0, description="Gradient steps for each round of all the cooperatives: a whole number, or one over a whole number."
    )

    @field_validator("updates_per_round")
    @classmethod
    def _is_whole(cls, updates: float) -> float:
        ratio = max(updates, 1 / updates)
        if abs(ratio - round(ratio)) > 1e-6:
            raise ValueError(f"updates_per_round={updates}: must be a whole number, or one over a whole number, such as 0.5")
        return updates


class TeamQSettings(QSettings):
    """Value-based learning of one team value, which splits into the proxies' (VDN, QMIX)."""

    rewards: Literal["team"] = Field("team", description="The team's mean reward: there is one value for all.")


class MADDPGSettings(TrainSettings):
    """Off-policy actor-critic with central critics (Lowe et al. 2017; Ackermann et al. 2019)."""

    learning_rate: float = Field(1e-3, gt=0, description="Adam's learning rate of the actor.")
    actions: ActionForm = Field("discrete", description="Form of the actions.")
    critic_learning_rate: float = Field(1e-3, gt=0, description="Adam's learning rate of the critics.")
    buffer_size: int = Field(20_000, ge=1, description="Rounds that the replay buffer holds.")
    batch_size: int = Field(256, ge=2, description="Rounds of a minibatch.")
    target_tau: float = Field(
        0.05, gt=0, le=1, description="Share of the way that the target networks move towards the others in an update."
    )
    updates_per_round: float = Field(1.0, gt=0, description="Gradient steps for each round of all the cooperatives.")


class EngineSettings(CheckpointedPPOSettings):
    """PPO straight on the engine's tensors."""

    device: str = Field("cpu", description="Where cooperatives and networks live: cpu, cuda, cuda:1 …")


class GroupSettings(Checkpointed):
    """Policy gradients without a critic, by comparison within groups (Shao et al. 2024; Zhao & Li 2025)."""

    learning_rate: float = Field(1e-3, gt=0, description="Adam's learning rate at the start; falls linearly to 0.")
    n_epochs: int = Field(6, ge=1, description="Passes over the data of an update.")
    batch_size: int = Field(512, ge=2, description="Agent-steps of a minibatch.")
    clip_range: float = Field(0.2, gt=0, description="Clipping of the probability ratio.")
    ent_coef: float = Field(0.003, ge=0, description="Weight of the entropy bonus.")
    device: str = Field("cpu", description="Where cooperatives and networks live: cpu, cuda, cuda:1 …")
    group: Literal["replicas", "agents"] = Field(
        "replicas", description="Who is compared: a seat with itself in replicas of its cooperative, or the proxies of one with each other."
    )
    group_size: int = Field(4, ge=2, description="Replicas of each cooperative, where these are compared; divides num_cooperatives.")
    spread: Literal["update", "group"] = Field(
        "update", description="What gaps to the group's mean are divided by: their spread in the whole update, or in their own group."
    )

    @model_validator(mode="after")
    def _can_compare(self) -> GroupSettings:
        if self.algo == "ospo" and "gamma" in self.model_fields_set:
            raise ValueError("gamma: ospo looks at the reward of one round only and discounts nothing: leave it out, or use grpo")
        terms = self.scenario.settlement
        if self.algo == "ospo" and terms is not None and terms.reward == "settlement" and terms.period > 1:
            raise ValueError(
                f"settlement.period={terms.period}: ospo looks at the reward of one round only, and most rounds pay nothing: use grpo, or "
                "settlement.period=1"
            )
        if self.group == "agents" and "group_size" in self.model_fields_set:
            raise ValueError("group_size: where group='agents', the group is the proxies of a cooperative: leave it out")
        if self.group == "agents" and (self.rewards == "team" or self.scenario.principals < 2):
            raise ValueError(
                f"group='agents' compares what the proxies of a cooperative get, but here {self.scenario.principals} get "
                f"rewards={self.rewards!r}: use group='replicas'"
            )
        if self.group == "replicas" and self.num_cooperatives % self.group_size:
            raise ValueError(
                f"num_cooperatives={self.num_cooperatives} does not divide into groups of group_size={self.group_size} replicas"
            )
        return self
