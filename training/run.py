"""What a library's adapter gets to train with, and what it returns."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..agents import saved
from ..agents.network import LotNetwork
from .settings import TrainSettings

if TYPE_CHECKING:  # TensorBoard's writer is slow to import
    from torch.utils.tensorboard import SummaryWriter

CHECKPOINT = "checkpoint.pt"
"""Name of the checkpoint's file in a run's folder."""

Progress = Callable[[int, int, dict[str, float]], None]
"""Called after every update with the agent-steps done, the total of agent-steps, and the mean metrics of the last episodes."""


@dataclass(frozen=True)
class Trained:
    """What a run has learned.

    Attributes:
        network: The policy.
        mean: Means that normalise the network's inputs: of each lot feature, then of each agent feature, ``(F + G,)``.
        variance: The variances, likewise.
        return_variance: Variance by which rewards were scaled. The critic's values are in units of its square root.
        greedy: Whether the network's logits are differences of action values.
    """

    network: LotNetwork
    mean: Tensor
    variance: Tensor
    return_variance: float = 1.0
    greedy: bool = False


class Run:
    """A run in progress.

    Attributes:
        settings: What to train, and how. Its scenario is the one that the training plays, with all splits of the data: libraries need not
            care for them.
        folder: The run's folder.
        checkpoint: The last state that :meth:`keep` got before the run was interrupted; ``None`` if the run begins.
        curve: Metrics of every update so far.

    Args:
        settings: What to train, and how, as the user gave it.
        folder: As above.
        progress: Called after every update.
        tensorboard: Whether to write TensorBoard's logs.
        checkpoint: The content of the run's checkpoint file, if there is one.
        versions: Versions of the packages on which a checkpoint depends, by name.
    """

    def __init__(
        self,
        settings: TrainSettings,
        folder: Path,
        *,
        progress: Progress | None = None,
        tensorboard: bool = False,
        checkpoint: Mapping[str, Any] | None = None,
        versions: Mapping[str, str] | None = None,
    ) -> None:
        self.settings = settings.model_copy(update={"scenario": settings.training_scenario})
        self._given = settings
        self._versions = dict(versions or {})
        self.folder = folder
        self.checkpoint = None if checkpoint is None else checkpoint["state"]
        self.curve: list[dict[str, float]] = [] if checkpoint is None else checkpoint["curve"]
        self._kept_at = len(self.curve)
        self._seconds_before: float = 0.0 if checkpoint is None else checkpoint["seconds"]
        self._began = time.perf_counter()
        self._progress = progress
        self._tensorboard = tensorboard
        self._writer: SummaryWriter | None = None
        self._watched: Callable[[], Iterable[tuple[str, Tensor]]] = tuple

    @property
    def logs(self) -> str | None:
        """Folder of TensorBoard's logs, for libraries that write their own; ``None`` if none are wanted."""
        return str(self.folder / "tb") if self._tensorboard else None

    @property
    def is_due(self) -> bool:
        """Whether it is time for a checkpoint."""
        return len(self.curve) - self._kept_at >= self.settings.checkpoint_every

    @property
    def seconds(self) -> float:
        """Seconds that the run has taken so far. Work that was lost in an interruption, after the last checkpoint, is not counted."""
        return self._seconds_before + time.perf_counter() - self._began

    @property
    def steps_done(self) -> int:
        """Agent-steps of the updates that were reported."""
        return int(self.curve[-1]["agent_steps"]) if self.curve else 0

    def watch(self, parameters: Callable[[], Iterable[tuple[str, Tensor]]]) -> None:
        """Say what the run learns, before it learns. After every update these numbers must be finite.

        Args:
            parameters: Returns the names and the current values of what is learned, as ``network.named_parameters`` does.
        """
        self._watched = parameters

    def require_finite(self, agent_steps: int | None = None) -> None:
        """Refuse to go on with a network that has diverged. A loss or a gradient that is not finite has made its parameters so, too.

        Args:
            agent_steps: Agent-steps done so far; those that were reported last by default.

        Raises:
            ValueError: If a parameter is not finite. The message names it and says what to do.
        """
        if (name := saved.first_not_finite(dict(self._watched()))) is not None:
            raise self._diverged(f"parameter {name} is not finite", self.steps_done if agent_steps is None else agent_steps)

    def report(self, agent_steps: int, metrics: Mapping[str, float]) -> None:
        """Record an update.

        Args:
            agent_steps: Agent-steps done so far.
            metrics: Means over the update's episodes, by the names of :func:`~proxycoop.envs.episode_metrics`, and whatever else the
                library reports.

        Raises:
            ValueError: If a metric or a parameter is not finite: the training has diverged.
        """
        self.require_finite(agent_steps)
        if wrong := [name for name, value in metrics.items() if not math.isfinite(value)]:
            raise self._diverged(f"metric {wrong[0]} is {metrics[wrong[0]]}", agent_steps)
        point = {"agent_steps": agent_steps, **metrics}
        self.curve.append(point)
        if self._tensorboard:
            if self._writer is None:
                from torch.utils.tensorboard import SummaryWriter

                # points after the checkpoint from which a run continues are written again
                self._writer = SummaryWriter(self.logs, purge_step=None if self.checkpoint is None else agent_steps)
            for name, value in metrics.items():
                self._writer.add_scalar(f"cooperative/{name}", value, agent_steps)
        if self._progress is not None:
            self._progress(agent_steps, max(self.settings.total_steps, agent_steps), dict(metrics))

    def keep(self, state: Mapping[str, Any]) -> None:
        """Write a checkpoint: everything that the rest of the run depends on. A state that is not finite never replaces an earlier one.

        The file is replaced as a whole, so that a process that is killed while it writes leaves the earlier one.

        Args:
            state: Tensors and plain data: numbers, texts, and mappings and sequences of these. Files with anything else are not read.

        Raises:
            ValueError: If a number is not finite: the training has diverged.
        """
        self.require_finite()
        if (name := saved.first_not_finite(state)) is not None:
            raise self._diverged(f"{name} is not finite", self.steps_done)
        data = {"settings": self._given.plain(), "versions": self._versions, "curve": self.curve, "seconds": self.seconds, "state": state}
        saved.write(self.folder / CHECKPOINT, data, "checkpoint")
        self._kept_at = len(self.curve)

    def _diverged(self, what: str, agent_steps: int) -> ValueError:
        kept = self.curve[self._kept_at - 1]["agent_steps"] if self._kept_at else 0
        stays = f"; the checkpoint of {kept:,} agent-steps stays in {str(self.folder / CHECKPOINT)!r}" if kept else ""
        return ValueError(
            f"training diverged, no policy is written: {what} after {agent_steps:,} agent-steps: lower the learning_rate, which is "
            f"{self.settings.learning_rate:g}{stays}"
        )

    def close(self) -> None:
        """End the logs."""
        if self._writer is not None:
            self._writer.close()
