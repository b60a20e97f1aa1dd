"""A Ray cluster of two nodes on this machine: the same table as without it, and what happens when parts of it die."""

from __future__ import annotations

import csv
import os
import sys
import time
from concurrent.futures import wait
from pathlib import Path

import pytest

from proxycoop.training import own_modules
from proxycoop.training.compare import cells, compare
from proxycoop.training.executors import cluster as cluster_module
from proxycoop.training.executors import executor
from proxycoop.training.own_modules import import_modules

pytest.importorskip("ray")
# Ray warns of its own changes to come, and leaves sockets and files of its processes open
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore"), pytest.mark.skipif(sys.platform == "win32", reason="POSIX")]

MODULE = """
import os, signal, time
from pathlib import Path

def dies_once(folder, mark):
    if not os.path.exists(mark):
        Path(mark).write_text("begun")
        os.kill(os.getpid(), signal.SIGKILL)
    folder.mkdir(exist_ok=True)
    (folder / "result").write_text((folder / "before").read_text() + " and after" if (folder / "before").exists() else "after")
    return os.getpid()

def raises(mark):
    with open(mark, "a") as file:
        file.write("x")
    raise ValueError("on purpose")

def dies(mark):
    with open(mark, "a") as file:
        file.write("x")
    os.kill(os.getpid(), signal.SIGKILL)

def waits(mark):
    Path(mark).write_text(str(os.getpid()))
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def address():
    """The address of two nodes with a core each."""
    from ray.cluster_utils import Cluster

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    nodes.add_node(num_cpus=1)
    nodes.wait_for_nodes()
    yield nodes.address
    nodes.shutdown()


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A module of one's own, which workers do not have unless it is sent along."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "tasks_of_mine.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(own_modules, "_imported", {})
    import_modules(["tasks_of_mine"])
    yield sys.modules["tasks_of_mine"]
    del sys.modules["tasks_of_mine"]


def table(out: Path) -> list[dict[str, str]]:
    with (out / "results.csv").open() as file:
        return [{name: value for name, value in row.items() if name != "credit_microseconds"} for row in csv.DictReader(file)]


def test_the_table_equals_the_local_one_to_the_last_bit(small, forking, address, tmp_path):
    every = cells([small], ["loo"], [0], total_steps=200, episodes=2, evaluation_splits=2)
    todo = [cell for cell in every if cell.agent in ("learned", "none", "all")]
    with forking():
        compare(todo, tmp_path / "local", jobs=1, quiet=True)
    compare(todo, tmp_path / "ray", ray=address, quiet=True)
    assert table(tmp_path / "ray") == table(tmp_path / "local")
    names = [
        sorted(str(path.relative_to(tmp_path / where)) for path in (tmp_path / where).rglob("*") if "tb" not in path.parts)
        for where in ("local", "ray")
    ]
    assert names[0] == names[1], "the folders hold the same files"


def test_a_task_whose_worker_is_killed_is_done_again_and_one_that_raises_is_not(mine, address, tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/before").write_text("before")
    with executor(["tasks_of_mine"], ray=address) as workers:
        done = workers.submit(mine.dies_once, tmp_path / "kept", str(tmp_path / "begun"), memory=10**15)
        failed = workers.submit(mine.raises, str(tmp_path / "raised"))
        assert done.result() != os.getpid()
        assert (tmp_path / "begun").exists()
        assert (tmp_path / "kept/result").read_text() == "before and after"
        with pytest.raises(ValueError, match=r"^on purpose$"):
            failed.result()
    assert (tmp_path / "raised").read_text() == "x"


def test_a_task_that_kills_every_worker_fails_in_one_line(mine, address, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster_module, "RETRIES", 1)
    with executor(["tasks_of_mine"], ray=address) as workers, pytest.raises(OSError, match="its worker was lost, after up to 1 more"):
        workers.submit(mine.dies, str(tmp_path / "died")).result()
    assert (tmp_path / "died").read_text() == "xx"


def test_what_runs_ends_when_the_driver_is_interrupted(mine, address, tmp_path):
    mark = tmp_path / "pid"

    def interrupted() -> None:
        with executor(["tasks_of_mine"], ray=address) as workers:
            future = workers.submit(mine.waits, str(mark))
            while not mark.exists() or not mark.read_text():
                wait([future], timeout=0.1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    until = time.monotonic() + 60
    while _lives(int(mark.read_text())):
        assert time.monotonic() < until
        time.sleep(0.1)


def test_other_versions_are_noticed_before_anything_is_done(address, monkeypatch):
    monkeypatch.setattr(cluster_module, "versions", lambda: {"torch": "0.0"})
    with pytest.raises(ValueError, match=r"--ray: machine .* has torch .* instead of 0\.0") as refused, executor([], ray=address):
        pass
    assert "\n" not in str(refused.value)


def test_a_module_that_workers_lack_is_named(address):
    with executor(["not_here_and_not_there"], ray=address) as workers, pytest.raises(ValueError, match="'not_here_and_not_there' cannot"):
        workers.submit(int).result()


def test_what_a_script_defines_is_refused(address):
    with pytest.raises(ValueError, match="in the script that runs"), executor(["__mp_main__"], ray=address):
        pass


def _lives(number: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[:1]
    except OSError:
        return False
