"""One interface for all that is worked on elsewhere: :func:`executor` gives processes of this machine, or a Ray cluster.

.. code-block:: python

    with executor(["my_rule"], jobs=2) as workers:             # or executor(["my_rule"], ray="auto")
        futures = [workers.submit(work, one, Path("out") / one) for one in names]
        for future in as_completed(futures):
            print(future.result())

Futures are those of ``concurrent.futures``. An argument that is a :class:`~pathlib.Path` is a folder. Elsewhere the call gets a copy of
it, and what the call has written there is written here before the future is done.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from .cluster import cluster
from .processes import processes
from .reachable import require_reachable

T = TypeVar("T")
Moved = Callable[[int], object]
"""Called with the work that was done since the last call, as :func:`~proxycoop.training.executors.workers.tell` reports it; with 0 each
second in which there was none; and with less than 0 if a task begins again, because its worker died."""


class Executor(Protocol):
    """Where tasks are worked on.

    Attributes:
        slots: How many tasks are worth submitting at once.
    """

    slots: int

    def submit(self, call: Callable[..., T], *arguments: Any, memory: int | None = None) -> Future[T]:
        """Have something done.

        Args:
            call: A function of a module.
            *arguments: Its arguments, which can be pickled. Those that are paths are folders.
            memory: Bytes of memory that it needs, if that is known.
        """
        ...


def require_place(jobs: int | None, ray: str | None) -> None:
    """Refuse what cannot be worked on anywhere, before anything is done.

    Args:
        jobs: Processes of this machine.
        ray: Address of a Ray cluster; see :func:`executor`.

    Raises:
        ValueError: If both are given, the address is none, Ray is not installed, or nobody answers at the address.
    """
    if ray is None:
        return
    if jobs is not None:
        raise ValueError(f"--ray {ray} and --jobs {jobs}: give one of them; on Ray, as many tasks run at once as its machines have cores")
    require_reachable(ray)


@contextmanager
def executor(
    modules: Sequence[str], *, jobs: int | None = None, ray: str | None = None, n_tasks: int | None = None, moved: Moved | None = None
) -> Iterator[Executor]:
    """Processes or a cluster, until the context ends. If it ends by an exception, Ctrl-C or SIGTERM, all that is still running ends too.

    Args:
        modules: Modules that workers import first; see :func:`~proxycoop.training.own_modules.modules_for`.
        jobs: Processes that run at once; by default one per core.
        ray: ``local`` starts Ray on this machine and ends it. ``auto``, ``HOST:PORT`` or ``ray://HOST:PORT`` joins a cluster.
        n_tasks: Most tasks that there will be; more processes are not started.
        moved: What is told about progress, in a thread of its own.

    Raises:
        ValueError: As :func:`require_place` does; or if the machines of the cluster have other versions than this one, or lack the modules.
    """
    require_place(jobs, ray)
    if ray is not None:
        with cluster(ray, modules, moved) as workers:
            yield workers
        return
    n_jobs = jobs or os.cpu_count() or 1
    with processes(modules, n_jobs if n_tasks is None else min(n_jobs, max(n_tasks, 1)), moved) as pool:
        yield pool
