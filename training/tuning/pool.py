"""Where a tuning trains, several trainings side by side. What is finished already is read and not trained again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, as_completed
from contextlib import contextmanager
from pathlib import Path

from ..executors import executor
from .trainings import Training, scored

Answer = dict[str, list[float]] | str
"""What a training reached, by objective and split; or why it failed."""
TrainAll = Callable[[Sequence[Training], Callable[[str], None]], dict[Path, Answer]]
"""Do some trainings, and call a function after each. Gives their answers by their folders."""


@contextmanager
def training_pool(modules: Sequence[str], jobs: int | None, ray: str | None = None) -> Iterator[TrainAll]:
    """Workers that end when the context does, with all that they started.

    Args:
        modules: Modules that they import first.
        jobs: How many there are; by default one per core.
        ray: Address of a Ray cluster whose cores work instead; see :mod:`~proxycoop.training.executors`.
    """
    with executor(modules, jobs=jobs, ray=ray) as workers:

        def train_all(trainings: Sequence[Training], report: Callable[[str], None]) -> dict[Path, Answer]:
            answers: dict[Path, Answer] = {}
            running: dict[Future[dict[str, list[float]]], Training] = {}
            for training in {one.folder: one for one in trainings}.values():  # two trials may have the same values
                if (finished := training.scores()) is None:
                    running[workers.submit(scored, training, training.folder)] = training
                else:
                    answers[training.folder] = finished
            for _ in range(len(trainings) - len(running)):
                report("")
            for future in as_completed(running):
                try:
                    answers[running[future].folder] = future.result()
                except ValueError as error:  # it diverged, or its mechanism does not play
                    answers[running[future].folder] = str(error)
                report(running[future].what)
            return answers

        yield train_all
