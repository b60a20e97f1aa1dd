"""Settings of training runs: those that all runs share, and those of each family of algorithms."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from .. import credit
from ..agents.seats import Company, require_playable, seats_named
from ..envs.conduct.population import merged
from ..envs.observations.spaces import ActionForm, RewardForm
from ..envs.scenario import Scenario
from ..envs.shared import require_served
from ..settings import Settings


class TrainSettings(Settings):
    """Settings of one training run. They are saved in the run's folder. A run can only be resumed with the settings that it began with."""

    scenario: Scenario = Field(description="The cooperative.")
    credit: str = Field("shapley", description="Credit rule that pays the proxies: its name, with arguments if it takes any.")
    seed: int = Field(0, ge=0, le=2**32 - 1, description="Seed of the network, of the sampling and of the cooperatives.")
    library: str = Field("sb3", description="RL library that trains the proxies.")
    algo: str = Field("ppo", description="Algorithm of the library.")
    total_steps: int = Field(120_000, ge=1, description="Agent-steps of the training, rounded up to whole updates.")
    num_cooperatives: int = Field(16, ge=1, le=2**20, description="Number of cooperatives that are stepped at once.")
    learning_rate: float = Field(1e-3, gt=0, description="Adam's learning rate at the start.")
    gamma: float = Field(0.5, ge=0, le=1, description="Discount per round.")
    hidden: int = Field(64, ge=1, le=2**14, description="Units of each hidden layer.")
    actions: ActionForm = Field("multi_discrete", description="Form of the actions.")
    rewards: RewardForm = Field("own", description="Whether each proxy gets its own reward, or all get the mean of the team's rewards.")

    splits: int = Field(
        8,
        ge=1,
        le=256,
        description="Number of data splits that the training plays on in turn, from the scenario's split_seed on. An update of one episode "
        "is on one split.",
    )
    seats: tuple[str, ...] = Field(
        (), description="Agents that play some of the seats and do not learn, such as 0=none. The others share the policy that is trained."
    )
    checkpoint_every: int = Field(20, ge=1, description="Updates between checkpoints; episodes if updates are shorter than an episode.")

    @property
    def training_scenario(self) -> Scenario:
        """The cooperatives that the training plays: the scenario on ``splits`` splits of its data, the first being its own."""
        data = self.scenario.data.model_copy(update={"splits": self.splits})
        return self.scenario.model_copy(update={"data": data})

    @property
    def n_learners(self) -> int:
        """Number of proxies that learn."""
        return self.scenario.n_agents - len(self.seats)

    def company(self) -> Company | None:
        """Who plays the seats that do not learn; ``None`` if all learn."""
        n_agents = self.scenario.n_agents
        return Company(seats_named(self.seats, n_agents), n_agents) if self.seats else None

    def plain(self) -> dict[str, Any]:
        """All settings in the form in which a JSON file returns them, so that they can be compared with those on disk.

        ``seats`` is left out where all proxies learn, and ``splits`` where there is one, as in the files of versions that had no such
        settings.
        """
        settings = self.model_dump(mode="json", exclude={"scenario"}) | {"scenario": self.scenario.to_dict()}
        if not self.seats:
            del settings["seats"]
        if self.splits == 1:
            del settings["splits"]
        plain: dict[str, Any] = json.loads(json.dumps(settings))
        return plain

    @field_validator("credit")
    @classmethod
    def _can_serve(cls, rule: str, info: ValidationInfo) -> str:
        made = credit.make(rule)
        if "scenario" in info.data:  # it is missing if the scenario itself is wrong
            require_served(info.data["scenario"], made, rule)
        return rule

    @model_validator(mode="before")
    @classmethod
    def _take_the_scenario_s_splits(cls, given: Any) -> Any:
        """A scenario that has several splits already says on how many to train, unless that is given."""
        scenario = given.get("scenario") if isinstance(given, dict) else None
        if isinstance(scenario, Scenario) and scenario.data.splits > 1:
            return {"splits": scenario.data.splits, **given}
        return given

    @model_validator(mode="before")
    @classmethod
    def _take_the_scenario_s_population(cls, given: Any) -> Any:
        """The scenario's population takes its seats, unless other agents are given them. ``2=learned`` lets the policy have seat 2."""
        scenario = given.get("scenario") if isinstance(given, dict) else None
        if not isinstance(scenario, Scenario) or not scenario.population:
            return given
        seats = merged(scenario.company, seats_named(given.get("seats", ()), scenario.n_agents))
        return {**given, "seats": tuple(f"{seat}={name}" for seat, name in seats.items())}

    @field_validator("splits")
    @classmethod
    def _are_the_scenario_s(cls, splits: int, info: ValidationInfo) -> int:
        own = info.data["scenario"].data.splits if "scenario" in info.data else 1
        if own not in (1, splits):
            raise ValueError(
                f"splits={splits}, but the scenario has data.splits={own}: leave data.splits out, which is for playing without training, "
                "or give both the same number"
            )
        return splits

    @field_validator("seats")
    @classmethod
    def _can_be_seated(cls, seats: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if not seats or "scenario" not in info.data:
            return seats
        scenario: Scenario = info.data["scenario"]
        named = seats_named(seats, scenario.n_agents)
        if len(named) == scenario.n_agents:
            raise ValueError(f"{', '.join(seats)}: all {scenario.n_agents} seats are taken: leave one to the policy that is trained")
        for seat, name in named.items():
            if name == "learned":
                raise ValueError(f"{seat}=learned: the policy that is trained plays all seats that are not named: leave this one out")
            require_playable(name, scenario, f"{seat}={name}")
        return tuple(f"{seat}={name}" for seat, name in named.items())


def differing(old: Mapping[str, Any], plain: Mapping[str, Any]) -> list[str]:
    """The settings in which two trainings differ.

    Args:
        old: Settings on disk. In earlier versions some libraries had no ``checkpoint_every``, so its absence is no difference.
        plain: Settings as :meth:`TrainSettings.plain` gives them.

    Returns:
        Their names, in alphabetical order.
    """
    old = {"checkpoint_every": plain["checkpoint_every"], **old}
    return sorted(name for name in old.keys() | plain.keys() if old.get(name) != plain.get(name))


class PPOSettings(TrainSettings):
    """Settings of proximal policy optimisation (Schulman et al. 2017). An update uses one episode of every cooperative."""

    learning_rate: float = Field(1e-3, gt=0, description="Adam's learning rate at the start; falls linearly to 0.")
    n_epochs: int = Field(6, ge=1, description="Passes over the data of an update.")
    batch_size: int = Field(512, ge=2, description="Agent-steps of a minibatch.")
    gae_lambda: float = Field(0.95, ge=0, le=1, description="λ of generalised advantage estimation.")
    clip_range: float = Field(0.2, gt=0, description="Clipping range of the probability ratio.")
    ent_coef: float = Field(0.003, ge=0, description="Weight of the entropy bonus.")

    def minibatch(self, n_rows: int, rows_of: int = 1) -> int:
        """A size near ``batch_size`` that divides an update evenly: the largest one below, or the next one above if that is too small.

        Args:
            n_rows: Rows of an update.
            rows_of: Agent-steps that a row holds.

        Returns:
            Rows of a minibatch: at most ``batch_size // rows_of`` and at least half of that, if such a size exists; else more.

        Raises:
            ValueError: If an update is a single agent-step. PPO compares agent-steps, and needs at least two.
        """
        if n_rows * rows_of < 2:
            raise ValueError("an update is one agent-step, which PPO cannot compare with others: raise num_cooperatives")
        wanted = min(max(self.batch_size // rows_of, 1), n_rows)
        divisors = [size for size in range(1, n_rows + 1) if n_rows % size == 0]
        below = max(size for size in divisors if size <= wanted)
        return below if 2 * below >= wanted and below * rows_of > 1 else min(size for size in divisors if size > below)


class RayPPOSettings(PPOSettings):
    """Settings of PPO in RLlib."""

    num_env_runners: int = Field(0, ge=0, description="Processes that play and share the cooperatives. 0: the learning process plays.")
    masks: bool = Field(True, description="Whether the policy gets action masks: which lots have anything to contribute.")

    @model_validator(mode="after")
    def _can_share(self) -> RayPPOSettings:
        if self.num_cooperatives % max(self.num_env_runners, 1):
            raise ValueError(
                f"num_cooperatives={self.num_cooperatives} cannot be shared equally by num_env_runners={self.num_env_runners}: "
                "make it a multiple"
            )
        return self


class A2CSettings(TrainSettings):
    """Settings of synchronous advantage actor-critic (Mnih et al. 2016)."""

    learning_rate: float = Field(3e-3, gt=0, description="RMSprop's learning rate at the start; falls linearly to 0.")
    n_steps: int = Field(
        8,
        ge=1,
        description="Rounds of every cooperative that an update uses. Where only some agents are present in a round, an update takes whole "
        "episodes: the horizon by default, or a multiple of it.",
    )
    gae_lambda: float = Field(0.95, ge=0, le=1, description="λ of generalised advantage estimation.")
    ent_coef: float = Field(0.003, ge=0, description="Weight of the entropy bonus.")

    @model_validator(mode="before")
    @classmethod
    def _take_whole_episodes(cls, given: Any) -> Any:
        """Where some agents are absent, an update is an episode by default: what an agent gets before its next own round is in it."""
        scenario = given.get("scenario") if isinstance(given, dict) else None
        if isinstance(scenario, Scenario) and scenario.samples_some:
            return {"n_steps": scenario.horizon, **given}
        return given

    @model_validator(mode="after")
    def _are_whole_episodes(self) -> A2CSettings:
        scenario = self.scenario
        if scenario.samples_some and self.n_steps % scenario.horizon:
            raise ValueError(
                f"n_steps={self.n_steps}: with participation, an update of a2c takes whole episodes: make it a multiple of the horizon, "
                f"{scenario.horizon}, or leave it out"
            )
        return self


class QSettings(TrainSettings):
    """Settings of value-based learning from a replay buffer (Mnih et al. 2015), for each proxy by itself or for the team."""

    learning_rate: float = Field(1e-3, gt=0, description="Adam's learning rate.")
    actions: ActionForm = Field("discrete", description="Form of the actions.")
    buffer_size: int = Field(50_000, ge=1, description="Agent-steps that the replay buffer holds.")
    batch_size: int = Field(512, ge=2, description="Agent-steps of a minibatch.")
    exploration_share: float = Field(0.5, gt=0, le=1, description="Share of the training over which ε falls from 1 to exploration_end.")
    exploration_end: float = Field(0.05, ge=0, le=1, description="Final ε of the ε-greedy exploration.")
    target_tau: float = Field(
        0.05, gt=0, le=1, description="Share of the way that the target network moves towards the learned network in an update."
    )
    updates_per_round: float = Field(
        1.0, gt=0, description="Gradient steps per round of all cooperatives: a whole number, or one divided by a whole number."
    )

    @field_validator("updates_per_round")
    @classmethod
    def _is_whole(cls, updates: float) -> float:
        ratio = max(updates, 1 / updates)
        if abs(ratio - round(ratio)) > 1e-6:
            raise ValueError(f"updates_per_round={updates}: must be a whole number, or one divided by a whole number, such as 0.5")
        return updates


class TeamQSettings(QSettings):
    """Settings of value-based learning of one team value that is composed of the proxies' values (VDN, QMIX)."""

    rewards: Literal["team"] = Field("team", description="The team's mean reward, because there is one value for all proxies.")


class MADDPGSettings(TrainSettings):
    """Settings of off-policy actor-critic with central critics (Lowe et al. 2017; Ackermann et al. 2019)."""

    learning_rate: float = Field(1e-3, gt=0, description="Adam's learning rate of the actor.")
    actions: ActionForm = Field("discrete", description="Form of the actions.")
    critic_learning_rate: float = Field(1e-3, gt=0, description="Adam's learning rate of the critics.")
    buffer_size: int = Field(20_000, ge=1, description="Rounds that the replay buffer holds.")
    batch_size: int = Field(256, ge=2, description="Rounds of a minibatch.")
    target_tau: float = Field(
        0.05, gt=0, le=1, description="Share of the way that the target networks move towards the learned networks in an update."
    )
    updates_per_round: float = Field(1.0, gt=0, description="Gradient steps per round of all cooperatives.")


class EngineSettings(PPOSettings):
    """Settings of PPO directly on the engine's tensors."""

    device: str = Field("cpu", description="Where cooperatives and networks live: cpu, cuda, cuda:1 …")


class GroupSettings(TrainSettings):
    """Settings of policy gradients that compare within groups instead of using a critic (Shao et al. 2024; Zhao & Li 2025)."""

    learning_rate: float = Field(1e-3, gt=0, description="Adam's learning rate at the start; falls linearly to 0.")
    n_epochs: int = Field(6, ge=1, description="Passes over the data of an update.")
    batch_size: int = Field(512, ge=2, description="Agent-steps of a minibatch.")
    clip_range: float = Field(0.2, gt=0, description="Clipping range of the probability ratio.")
    ent_coef: float = Field(0.003, ge=0, description="Weight of the entropy bonus.")
    device: str = Field("cpu", description="Where cooperatives and networks live: cpu, cuda, cuda:1 …")
    group: Literal["replicas", "agents"] = Field(
        "replicas", description="Who is compared: a seat with itself in replicas of its cooperative, or the proxies of a cooperative."
    )
    group_size: int = Field(4, ge=2, description="Replicas of each cooperative, if replicas are compared. Divides num_cooperatives.")
    spread: Literal["update", "group"] = Field(
        "update", description="The gaps to a group's mean are divided by their spread in the whole update, or in their own group."
    )

    @model_validator(mode="after")
    def _can_compare(self) -> GroupSettings:
        if self.algo == "ospo" and "gamma" in self.model_fields_set:
            raise ValueError("gamma: ospo looks at the reward of one round only and has no discount: leave gamma out, or use grpo")
        terms = self.scenario.settlement
        if self.algo == "ospo" and terms is not None and terms.reward == "settlement" and terms.period > 1:
            raise ValueError(
                f"settlement.period={terms.period}: ospo looks at the reward of one round only, and most rounds pay nothing: use grpo, or "
                "settlement.period=1"
            )
        if self.group == "agents" and "group_size" in self.model_fields_set:
            raise ValueError("group_size: with group='agents', a group is the proxies of a cooperative: leave group_size out")
        if self.group == "agents" and (self.rewards == "team" or self.n_learners < 2):
            raise ValueError(
                f"group='agents' compares what the proxies of a cooperative get, but here {self.n_learners} get "
                f"rewards={self.rewards!r}: use group='replicas'"
            )
        if self.group == "replicas" and self.num_cooperatives % self.group_size:
            raise ValueError(
                f"num_cooperatives={self.num_cooperatives} does not divide into groups of group_size={self.group_size} replicas: "
                "make it a multiple"
            )
        return self
