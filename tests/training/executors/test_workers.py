"""Processes of a comparison: they import what is the user's own, and end with the process that started them."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading

import pytest

from proxycoop.envs import scenario
from proxycoop.envs.data import DATA
from proxycoop.envs.values import VALUES
from proxycoop.training import compare as compare_module
from proxycoop.training import own_modules
from proxycoop.training.compare import cells, compare, results
from proxycoop.training.executors import workers
from proxycoop.training.own_modules import import_modules, modules_for

# Python from 3.12 on warns where other threads might hold locks: those of libraries here hold none that a child needs.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
    pytest.mark.skipif(sys.platform == "win32", reason="process groups are POSIX"),
]

DATA_MODULE = """
from proxycoop.envs.data import DATA

@DATA.register("own_data")
def own_data():
    return DATA["breast_cancer"]()
"""
VALUE_MODULE = """
from proxycoop.envs.values import VALUES

@VALUES.register("own_value")
class OwnValue(VALUES["miss_rate"]):
    "A miss rate by another name."
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Modules with a data source and a value, in a folder from which other processes import too."""
    (tmp_path / "own_data_module.py").write_text(DATA_MODULE)
    (tmp_path / "own_value_module.py").write_text(VALUE_MODULE)
    (tmp_path / "imports_all.py").write_text("import own_data_module, own_value_module\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    for registry in (DATA, VALUES):
        monkeypatch.setattr(registry, "_factories", dict(registry._factories))
    monkeypatch.setattr(own_modules, "_imported", {})
    yield tmp_path
    for name in ("own_data_module", "own_value_module", "imports_all"):
        sys.modules.pop(name, None)


def own_scenario():
    values = {"missed": {"kind": "own_value", "label": 0}}
    small = {"principals": 2, "horizon": 2, "profiles": [], "data.source": "own_data", "values": {}}
    return scenario.load("breast_cancer", **small).model_copy(
        update={"values": scenario.load("breast_cancer", values=values, profiles=[]).values}
    )


# modules


def test_what_is_imported_and_what_registers_rule_data_and_values_is_imported_elsewhere_too(own):
    import_modules(["imports_all"])
    mine = own_scenario()
    needed = modules_for(mine, "loo")
    assert needed[0] == "imports_all"
    assert {"own_data_module", "own_value_module"} <= set(needed)
    assert own_modules.not_ours(needed) == ["imports_all", "own_data_module", "own_value_module"]
    assert own_modules.imported_files() == [own / "imports_all.py"]


@pytest.mark.slow
def test_the_processes_of_a_comparison_find_data_and_values_of_one_s_own(own):
    importlib.import_module("own_data_module")
    importlib.import_module("own_value_module")
    mine = own_scenario()
    todo = [cell for cell in cells([mine], ["equal"], [0], episodes=2) if cell.agent == "none"]
    compare(todo, own / "out", jobs=1, quiet=True)  # in an interpreter of its own
    (result,) = results(own / "out")
    assert result["imports"] == ["own_data_module", "own_value_module"]
    assert "test_value/missed" in result["measures"]


def test_data_of_an_interactive_session_are_refused_before_anything_runs(own, monkeypatch, tmp_path):
    importlib.import_module("own_data_module")
    importlib.import_module("own_value_module")
    mine = own_scenario()
    monkeypatch.setattr(DATA["own_data"], "__module__", "__main__")
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
    with pytest.raises(ValueError, match="data source 'own_data' is defined in an interactive session"):
        compare(cells([mine], ["equal"], [0]), tmp_path / "out", quiet=True)
    assert not (tmp_path / "out").exists()


# how they end


def _work_and_start_a_child(ready: int) -> None:
    child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"], pass_fds=[ready])
    os.write(ready, f"{child.pid}\n".encode())
    child.wait()


def _start_worker(ready: int) -> None:
    """What a comparison's process does: start a worker, and wait for it."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup the tests ignore it
    context = multiprocessing.get_context("fork")
    progress = context.Queue()
    worker = context.Process(target=lambda: (workers.begin([], progress), _work_and_start_a_child(ready)))
    worker.start()
    worker.join()


def _ended(reader: int) -> bool:
    """Wait until nobody holds the pipe's other end."""
    return os.read(reader, 1) == b""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGHUP])
def test_workers_and_their_children_end_with_the_process_that_started_them(number):
    reader, ready = os.pipe()
    parent = multiprocessing.get_context("fork").Process(target=_start_worker, args=(ready,))
    parent.start()
    os.close(ready)
    assert os.read(reader, 20).strip().isdigit(), "the worker's child runs"
    os.kill(parent.pid, number)
    parent.join()
    assert _ended(reader)
    os.close(reader)


def test_workers_and_their_children_can_be_stopped():
    reader, ready = os.pipe()
    context = multiprocessing.get_context("fork")
    progress = context.Queue()
    worker = context.Process(target=lambda: (workers.begin([], progress), _work_and_start_a_child(ready)))
    worker.start()
    os.close(ready)
    assert os.read(reader, 20).strip().isdigit()
    workers.stop([worker])
    assert worker.exitcode == -signal.SIGTERM
    assert _ended(reader)
    os.close(reader)


def test_a_request_to_end_leaves_orderly_and_the_old_effect_is_restored():
    with pytest.raises(SystemExit) as left, workers.ending_orderly():
        signal.raise_signal(signal.SIGTERM)
    assert left.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_ignored_signals_and_handlers_of_others_stay():
    heard = []
    old = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number)), signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with workers.ending_orderly():
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGTERM, old[0])
        signal.signal(signal.SIGHUP, old[1])
    assert heard == [signal.SIGTERM]


def test_in_another_thread_signals_are_left_alone():
    def body() -> None:
        with workers.ending_orderly():
            seen.append(signal.getsignal(signal.SIGTERM))

    seen: list[object] = []
    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert seen == [signal.SIG_DFL]


def test_a_comparison_that_is_interrupted_stops_its_workers_and_frees_its_folder(small, forking, tmp_path, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(compare_module, "as_completed", interrupted)
    todo = cells([small], ["loo"], [0], total_steps=10**7, episodes=2)
    before = set(multiprocessing.active_children())
    with forking(), pytest.raises(KeyboardInterrupt):
        compare(todo, tmp_path / "out", jobs=2)
    assert not set(multiprocessing.active_children()) - before
    assert f"stopped; 0 of {len(todo)} cells are finished and kept" in capsys.readouterr().err
    assert not (tmp_path / "out" / ".proxycoop.lock").exists()


WAITING = """
import multiprocessing, os, subprocess, sys
from proxycoop.envs.data import DATA

@DATA.register("waiting")
def waiting():
    if multiprocessing.parent_process() is None:
        return DATA["breast_cancer"]()
    pipe = os.open(os.environ["PIPE"], os.O_WRONLY)
    child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"], pass_fds=[pipe])
    os.write(pipe, b"begun")
    child.wait()
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_the_command_leaves_nothing_that_computes_and_lets_no_second_one_in(tmp_path, number):
    (tmp_path / "waits.py").write_text(WAITING)
    (tmp_path / "mine.yaml").write_text("extends: breast_cancer\nname: mine\ndata: {source: waiting}\n")
    os.mkfifo(tmp_path / "pipe")
    words = [sys.executable, "-m", "proxycoop", "--import", "waits", "compare", "-s", "mine.yaml", "-r", "loo", "--seeds", "1", "-j", "1"]
    environment = os.environ | {"PIPE": str(tmp_path / "pipe")}
    first = subprocess.Popen([*words, "--out", "out"], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    with (tmp_path / "pipe").open("rb") as pipe:
        assert pipe.read(5) == b"begun", "the module of --import reached the worker"
        second = subprocess.run([*words, "--out", "out"], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert second.returncode == 2
        assert f"'out' is in use by 'proxycoop compare' (process {first.pid} on " in second.stderr
        first.send_signal(number)
        _, err = first.communicate()
        assert pipe.read() == b"", "the worker and its child are gone"
    assert "Traceback" not in err
    assert first.returncode == {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGKILL: -9}[number]
    if number != signal.SIGKILL:
        assert "cells are finished and kept" in err
        assert not (tmp_path / "out" / ".proxycoop.lock").exists()
