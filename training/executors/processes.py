"""Processes of this machine that work side by side. They end with the process that started them; see :mod:`.workers`."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import active_children
from queue import Empty
from threading import Thread
from typing import Any

from .workers import begin, ending_orderly, stop


class _Pool:
    def __init__(self, slots: int, pool: ProcessPoolExecutor) -> None:
        self.slots = slots
        self._pool = pool

    def submit(self, call: Callable[..., Any], *arguments: Any, memory: int | None = None) -> Future[Any]:
        del memory  # they share this machine's, and nobody divides it
        return self._pool.submit(call, *arguments)


@contextmanager
def processes(modules: Sequence[str], n_jobs: int, moved: Callable[[int], object] | None) -> Iterator[_Pool]:
    """Processes that end when the context does, with all that they started. Folders are theirs as well: nothing travels.

    Args:
        modules: Modules that they import first.
        n_jobs: How many there are.
        moved: What is told about progress; see :data:`~proxycoop.training.executors.places.Moved`.
    """
    context = multiprocessing.get_context("spawn")
    others = set(active_children())
    progress: Any = context.Queue()
    with ending_orderly(), ProcessPoolExecutor(n_jobs, context, initializer=begin, initargs=(list(modules), progress)) as pool:
        watcher = Thread(target=_watch, args=(progress, moved), daemon=True)
        watcher.start()
        try:
            yield _Pool(n_jobs, pool)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            stop([child for child in active_children() if child not in others])
            raise
        finally:
            progress.put(None)
            watcher.join()


def _watch(progress: Any, moved: Callable[[int], object] | None) -> None:
    """Pass on what workers tell, until there is a ``None``."""
    while True:
        try:
            done = progress.get(timeout=1)
        except Empty:
            done = 0
        if done is None:
            return
        if moved is not None:
            moved(done)
