"""Processes that work for a comparison. They end with the process that started them, and what they started ends with them.

Each worker leads a process group of its own. It watches the process that started it, and if that is gone, however it ended, the worker
kills its group. To end workers while the process that started them lives on, :func:`stop` ends their groups.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from types import FrameType

import torch

from ..own_modules import import_modules

GRACE = 3.0
"""Seconds that workers have to end by themselves."""

_progress: Callable[[int], object] | None = None


def begin(modules: Sequence[str], progress: Queue[int | None]) -> None:
    """Set up a worker: its group, its watch, one thread because others run beside it, and the modules that register what is not ours.

    Args:
        modules: Modules to import.
        progress: Where :func:`tell` puts the work that was done.
    """
    for number in _requests():
        signal.signal(number, signal.SIG_DFL)  # a forked process has the handlers of the one that started it
    if sys.platform != "win32":
        os.setpgid(0, 0)
    threading.Thread(target=_watch, daemon=True).start()
    told_by(progress.put)
    torch.set_num_threads(1)
    import_modules(modules)


def told_by(progress: Callable[[int], object]) -> None:
    """Say what :func:`tell` calls in this process."""
    global _progress
    _progress = progress


@contextmanager
def single_threaded() -> Iterator[None]:
    """One thread for what is done meanwhile: rounds are too small for several, which would keep each other waiting."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def tell(done: int) -> None:
    """Report work that was done, in a worker, to the process that started it."""
    if _progress is not None:
        _progress(done)


def stop(workers: Sequence[BaseProcess]) -> None:
    """End workers and what they started: first they are asked, and after :data:`GRACE` seconds they are killed."""
    for worker in workers:
        _end(worker, signal.SIGTERM)
    until = time.monotonic() + GRACE
    for worker in workers:
        worker.join(max(until - time.monotonic(), 0.0))
    for worker in workers:  # also of those that have ended: what they started may not have
        _end(worker, getattr(signal, "SIGKILL", signal.SIGTERM))
        worker.join()


@contextmanager
def ending_orderly() -> Iterator[None]:
    """Within it, a request to end (SIGTERM, SIGHUP) raises SystemExit, so that workers can be ended and locks released on the way out.

    Signals that are ignored stay so, as ``nohup`` wants it, and handlers of others stay in place. Only the main thread receives signals; in
    others this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: FrameType | None) -> None:
        del frame
        raise SystemExit(128 + number)  # as shells say it

    ours = [number for number in _requests() if signal.getsignal(number) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, leave)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def _requests() -> list[signal.Signals]:
    """Signals that ask a process to end and that are not ignored here; Ctrl-C apart."""
    known: list[signal.Signals] = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    return [number for number in known if signal.getsignal(number) is not signal.SIG_IGN]


def _watch() -> None:
    """Wait until the process that started this one is gone, and then end this one and what it started."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    parent.join()
    if sys.platform != "win32":
        os.killpg(os.getpgid(0), signal.SIGKILL)
    os._exit(1)


def _end(worker: BaseProcess, number: int) -> None:
    """Send a signal to a worker's group; to the worker alone if it has none yet."""
    if sys.platform != "win32" and worker.pid is not None:
        try:
            os.killpg(worker.pid, number)
            return
        except (ProcessLookupError, PermissionError):  # it has not begun, or has ended; macOS says the latter of groups that end
            pass
    with suppress(ValueError, OSError):
        if worker.is_alive():
            worker.terminate() if number == signal.SIGTERM else worker.kill()
