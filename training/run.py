"""What a library's adapter gets to train with, and what it returns."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..agents.network import LotNetwork
from ..files import write_atomically
from .settings import Checkpointed, TrainSettings

if TYPE_CHECKING:  # TensorBoard's writer is slow to import
    from torch.utils.tensorboard import SummaryWriter

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
        settings: What to train, and how.
        folder: The run's folder.
        checkpoint: The last state that :meth:`keep` got before the run was interrupted; ``None`` if the run begins.
        curve: Metrics of every update so far.

    Args:
        settings: As above.
        folder: As above.
        progress: Called after every update.
        tensorboard: Whether to write TensorBoard's logs.
        checkpoint: The content of the run's checkpoint file, if there is one.
    """

    def __init__(
        self,
        settings: TrainSettings,
        folder: Path,
        *,
        progress: Progress | None = None,
        tensorboard: bool = False,
        checkpoint: Mapping[str, Any] | None = None,
    ) -> None:
        self.settings = settings
        self.folder = folder
        self.checkpoint = None if checkpoint is None else checkpoint["state"]
        self.curve: list[dict[str, float]] = [] if checkpoint is None else checkpoint["curve"]
        self._kept_at = len(self.curve)
        self._seconds_before: float = 0.0 if checkpoint is None else checkpoint["seconds"]
        self._began = time.perf_counter()
        self._progress = progress
        self._tensorboard = tensorboard
        self._writer: SummaryWriter | None = None

    @property
    def logs(self) -> str | None:
        """Folder of TensorBoard's logs, for libraries that write their own; ``None`` if none are wanted."""
        return str(self.folder / "tb") if self._tensorboard else None

    @property
    def is_due(self) -> bool:
        """Whether it is time for a checkpoint."""
        settings = self.settings
        return isinstance(settings, Checkpointed) and len(self.curve) - self._kept_at >= settings.checkpoint_every

    @property
    def seconds(self) -> float:
        """Seconds that the run has taken so far. Work that was lost in an interruption, after the last checkpoint, is not counted."""
        return self._seconds_before + time.perf_counter() - self._began

    @property
    def steps_done(self) -> int:
        """Agent-steps of the updates that were reported."""
        return int(self.curve[-1]["agent_steps"]) if self.curve else 0

    def report(self, agent_steps: int, metrics: Mapping[str, float]) -> None:
        """Record an update.

        Args:
            agent_steps: Agent-steps done so far.
            metrics: Means over the update's episodes, by the names of :func:`~proxycoop.envs.episode_metrics`, and whatever else the
                library reports.
        """
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

    def keep(self, state: object) -> None:
        """Write a checkpoint: everything that the rest of the run depends on."""
        data = {"curve": self.curve, "seconds": self.seconds, "state": state}
        write_atomically(self.folder / "checkpoint.pt", lambda file: torch.save(data, file))
        self._kept_at = len(self.curve)

    def close(self) -> None:
        """End the logs."""
        if self._writer is not None:
            self._writer.close()
