"""Processes that train for a tuning, side by side. What is finished already is read and not trained again."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import active_children
from pathlib import Path
from typing import Any

from ..workers import begin, ending_orderly, stop
from .trainings import Training, scored

Answer = dict[str, list[float]] | str
"""What a training reached, by objective and split; or why it failed."""
TrainAll = Callable[[Sequence[Training], Callable[[str], None]], dict[Path, Answer]]
"""Do some trainings, and call a function after each. Gives their answers by their folders."""


@contextmanager
def training_pool(modules: Sequence[str], jobs: int | None) -> Iterator[TrainAll]:
    """Processes that end when the context does, with all that they started.

    Args:
        modules: Modules that they import first.
        jobs: How many there are; by default one per core.
    """
    context = multiprocessing.get_context("spawn")
    others = set(active_children())
    progress: Any = context.Queue()
    n_jobs = jobs or os.cpu_count() or 1
    with ending_orderly(), ProcessPoolExecutor(n_jobs, context, initializer=begin, initargs=(list(modules), progress)) as processes:

        def train_all(trainings: Sequence[Training], report: Callable[[str], None]) -> dict[Path, Answer]:
            answers: dict[Path, Answer] = {}
            running: dict[Future[dict[str, list[float]]], Training] = {}
            for training in {one.folder: one for one in trainings}.values():  # two trials may have the same values
                if (finished := training.scores()) is None:
                    running[processes.submit(scored, training)] = training
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

        try:
            yield train_all
        except BaseException:
            processes.shutdown(wait=False, cancel_futures=True)
            stop([child for child in active_children() if child not in others])
            raise
