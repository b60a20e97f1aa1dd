"""A Ray cluster: tasks on the cores of several machines, each with one thread.

Ray finds a core for each task, and runs a task again whose worker or machine died. A task that raises is not run again. Machines share no
disk: a task's folders are sent with it, and come back with its answer; see :mod:`.folders`. What a task wrote is written here when it
has ended. So what is kept is whole tasks: one whose worker died begins anew.

References:
    Moritz et al. (2018), *Ray: a distributed framework for emerging AI applications*, OSDI.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from ..own_modules import not_ours
from .folders import unpack
from .reachable import WorkerLostError, require_reachable
from .remote import Outcome, Work, versions, work_of
from .workers import ending_orderly

RETRIES = 5
"""How often a task is run again whose worker or machine died."""
POLL = 1.0
"""Seconds between two looks at the progress."""
PATIENCE = 180.0
"""Seconds that the machines have to say which versions they have. A worker's first start imports torch."""
_TRY = "gcs_client.cc"
"""What is in each line that Ray's native code writes about a try to connect."""
_REFUSED = "InvalidAuthToken"
"""What is in such a line if the cluster has another token."""
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}

_connection: str | None = None


@contextmanager
def connected(address: str | None, modules: Sequence[str] = ()) -> Iterator[None]:
    """Keep one connection to a cluster for several executors; ``local`` starts one and ends it. Without an address this does nothing.

    Args:
        address: As :func:`~proxycoop.training.executors.places.executor` takes it.
        modules: All modules that workers will import. Those that are not installed are sent along.

    Raises:
        ValueError: If the cluster cannot be joined, this process is connected to another one, or a module is a script.
    """
    global _connection
    if address is None or _connection == address:
        yield
        return
    require_reachable(address)
    sent = _sent_along(modules)
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    with ending_orderly():
        with _handler_kept():
            import ray

        if ray.is_initialized():
            if address != "auto":
                raise ValueError(f"--ray {address}: this process has joined a cluster already: pass 'auto', or call ray.shutdown() first")
            yield
            return
        try:
            with _handler_kept():
                _join(ray, address, sent)
            _connection = address
            yield
        finally:
            _connection = None
            ray.shutdown()


@contextmanager
def cluster(address: str, modules: Sequence[str], moved: Callable[[int], object] | None) -> Iterator[_Cluster]:
    """A cluster to submit tasks to; see :func:`~proxycoop.training.executors.places.executor`."""
    with connected(address, modules), ending_orderly():
        import ray

        modules = [module for module in modules if module != "__mp_main__"]
        workers = _Cluster(ray, modules, moved is not None)
        workers.require_same_versions()
        ended = threading.Event()
        watcher = threading.Thread(target=_watch, args=(workers, moved, ended), daemon=True)
        if moved is not None:
            watcher.start()
        try:
            yield workers
        except BaseException:
            workers.cancel()
            raise
        finally:
            workers.close()
            ended.set()
            if moved is not None:
                watcher.join()


class _Cluster:
    """Where tasks are submitted.

    Attributes:
        slots: As many as there are: Ray keeps them waiting, and clusters that grow look at how many wait.
    """

    slots = sys.maxsize

    def __init__(self, ray: Any, modules: Sequence[str], watched: bool) -> None:
        self._ray = ray
        self._modules = list(modules)
        self._expected = versions()
        self._do = ray.remote(num_cpus=1, max_retries=RETRIES, retry_exceptions=False)(_remote_function())
        self._board = ray.remote(num_cpus=0, max_restarts=-1)(_Board).remote() if watched else None
        self._most_memory = max((int(node["Resources"].get("memory", 0)) for node in _alive(ray)), default=0)
        self._refs: dict[int, Any] = {}
        self._told: dict[int, int] = {}
        self._n_submitted = 0
        self._writer = ThreadPoolExecutor(1)  # Ray's own thread must not wait for a disk

    def submit(self, call: Callable[..., Any], *arguments: Any, memory: int | None = None) -> Future[Any]:
        """Have something done on some machine. More memory than any machine has is not asked for: it would wait for ever."""
        number, self._n_submitted = self._n_submitted, self._n_submitted + 1
        work = work_of(call, arguments)
        task = self._do if memory is None else self._do.options(memory=min(memory, self._most_memory))
        ref = task.remote(work.call, work.folders, self._expected, self._modules, number, self._board)
        self._refs[number] = ref
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()

        def finish(done: Future[Any]) -> None:
            with suppress(RuntimeError):  # it was cancelled, and nobody waits for it any more
                self._writer.submit(self._finish, number, work, done, future)

        ref.future().add_done_callback(finish)
        return future

    def cancel(self) -> None:
        """End all tasks that are not done."""
        for ref in list(self._refs.values()):
            with suppress(Exception):  # of a cluster that is gone
                self._ray.cancel(ref, force=True)

    def close(self) -> None:
        """Take nothing more from the cluster, once what is being written is written."""
        self._writer.shutdown(cancel_futures=True)

    def done(self) -> int:
        """Work that is reported so far by all tasks together."""
        running: Mapping[int, int] = {}
        if self._board is not None:
            with suppress(self._ray.exceptions.RayError, TimeoutError, ConnectionError):  # it begins anew where its machine was lost
                running = self._ray.get(self._board.read.remote(), timeout=5 * POLL)
        return sum({**running, **self._told}.values())

    def require_same_versions(self) -> None:
        """Ask every machine that has cores which versions it has.

        Raises:
            ValueError: If one has others; or has no proxycoop.
        """
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        ask = self._ray.remote(num_cpus=0, max_retries=0)(_asking_function())
        nodes = [node["NodeID"] for node in _alive(self._ray) if node["Resources"].get("CPU", 0) > 0]
        asked = [ask.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(self._expected) for node in nodes]
        try:
            found = self._ray.get(asked, timeout=PATIENCE)
        except self._ray.exceptions.GetTimeoutError:
            self._refs.update(enumerate(asked))
            raise ValueError(f"--ray: not all of the {len(nodes)} machines have answered in {PATIENCE:.0f} s: see 'ray status'") from None
        except self._ray.exceptions.RayError as error:
            raise ValueError(f"--ray: the machines cannot be asked for their versions: {_line(error)}") from None
        if wrong := next(filter(None, found), None):
            raise ValueError(f"--ray: {wrong}")

    def _finish(self, number: int, work: Work, done: Future[Any], future: Future[Any]) -> None:
        """Write what came back, and hand the answer on."""
        try:
            outcome: Outcome = done.result()
            for (home, before), files in zip(work.folders, outcome.folders, strict=True):
                if files != before:
                    unpack(files, Path(home), before)
            answer = pickle.loads(outcome.answer)
        except self._ray.exceptions.RayError as error:
            future.set_exception(WorkerLostError(f"its worker was lost, after up to {RETRIES} more tries: {_line(error)}"))
        except BaseException as error:  # the disk is full, for example
            future.set_exception(error)
        else:
            self._told[number] = outcome.told
            if outcome.failed:
                future.set_exception(answer)
            else:
                future.set_result(answer)
        finally:
            self._refs.pop(number, None)


class _Board:
    """Where tasks say how far they are: an actor of Ray's."""

    def __init__(self) -> None:
        self.told: dict[int, int] = {}

    def write(self, number: int, told: int) -> None:
        self.told[number] = told

    def read(self) -> dict[int, int]:
        return self.told


def _remote_function() -> Callable[..., Any]:
    """The task as Ray sends it: a function within a function goes as its code, so that a machine without proxycoop can say so."""
    package = __package__

    def proxycoop_task(call: bytes, folders: Any, expected: Any, modules: Any, number: int, board: Any) -> Any:
        import importlib

        remote = importlib.import_module(f"{package}.remote")

        def tell(told: int) -> None:
            if board is not None:
                board.write.remote(number, told)

        return remote.do(remote.Work(call, folders), expected, modules, tell)

    return proxycoop_task


def _asking_function() -> Callable[..., Any]:
    """Whether a machine has the same versions: an empty text, or what differs."""
    package = __package__

    def proxycoop_versions(expected: Mapping[str, str]) -> str:
        import importlib
        import platform

        try:
            remote = importlib.import_module(f"{package}.remote")
            remote.require_same(expected)
        except ImportError as error:
            return f"machine {platform.node()!r} of the cluster lacks proxycoop {expected['proxycoop']} ({error}): install it there"
        except ValueError as error:
            return str(error)
        return ""

    return proxycoop_versions


def _join(ray: Any, address: str, sent: Sequence[str]) -> None:
    """Connect this process.

    Raises:
        ValueError: In one line, if that fails.
    """
    how: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL, "configure_logging": True}
    if address == "local":
        how["include_dashboard"] = False
    if sent:
        how["runtime_env"] = {"py_modules": list(sent)}
    refusals: list[str] = []
    try:
        with _tries_kept(refusals) if address != "local" else nullcontext():
            ray.init(address=address, **how)
    except ray.exceptions.AuthenticationError:
        raise _no_token(address) from None
    except ConnectionError as error:
        if any(_REFUSED in text for text in (str(error), *refusals)):
            raise _no_token(address) from None
        start = "; 'ray start --head' starts one, and --ray local does for the time of a command" if address == "auto" else ""
        raise ValueError(f"--ray {address}: no Ray cluster can be joined ({_line(error)}){start}") from None
    except (RuntimeError, SystemExit) as error:
        raise ValueError(f"--ray {address}: {_line(error)}") from None


def _no_token(address: str) -> ValueError:
    return ValueError(
        f"--ray {address}: the cluster refuses the authentication: it has a token, which this command lacks. Set "
        "RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN to what 'ray get-auth-token' prints on the head; or RAY_AUTH_MODE=disabled for all nodes "
        "and the command"
    )


@contextmanager
def _tries_kept(tries: list[str]) -> Iterator[None]:
    """Keep from standard error what Ray's native code writes there while it connects: a line for each try, at one a second.

    Args:
        tries: Gets these lines. All others are written when the context ends.
    """
    sys.stderr.flush()
    try:
        stream = os.dup(2)
    except OSError:  # the shell closed it
        yield
        return
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stream, 2)
            os.close(stream)
            file.seek(0)
            for line in file.read().decode(errors="replace").splitlines(keepends=True):
                if _TRY in line:
                    tries.append(line)
                else:
                    sys.stderr.write(line)


def _sent_along(modules: Sequence[str]) -> list[str]:
    """The files and folders of modules that are not installed, which the machines of the cluster therefore lack.

    Raises:
        ValueError: If one is the script that runs.
    """
    if "__mp_main__" in modules:
        raise ValueError(
            "--ray: a rule, value, agent or data source is defined in the script that runs, which workers do not have: put it "
            "into a module, and import that"
        )
    installed = [Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib", "stdlib")]
    paths: dict[str, None] = {}
    for module in not_ours(modules):
        top = sys.modules.get(module.partition(".")[0])
        places = [*getattr(top, "__path__", ())] or [file for file in [getattr(top, "__file__", None)] if file]
        for place in map(Path, places):
            if not any(place.resolve().is_relative_to(one) for one in installed):
                paths[str(place)] = None
    return list(paths)


def _alive(ray: Any) -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def _watch(workers: _Cluster, moved: Callable[[int], object] | None, ended: threading.Event) -> None:
    """Pass on how far tasks are."""
    assert moved is not None
    before = 0
    while True:
        last = ended.wait(POLL)
        done = sum(workers._told.values()) if last else workers.done()
        moved(done - before)
        before = done
        if last:
            return


@contextmanager
def _handler_kept() -> Iterator[None]:
    """Ray sets a handler of SIGTERM when it is imported, and when it connects. Ours stays."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _line(error: BaseException) -> str:
    """What an exception of Ray's says, in one line, at most 300 characters of it."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:299]}…"
