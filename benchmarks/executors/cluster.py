"""What a Ray cluster of two machines does to a comparison: the same table, less time, and what happens if parts of it die.

Two nodes of Ray are started on this machine, each with one core, as processes of their own. A comparison runs

1. in one process, and in two, without Ray; and on the two nodes;
2. on the two nodes, while a worker that runs a cell is killed (SIGKILL);
3. on the two nodes, while one node is killed;
4. on the two nodes, while the command itself is killed; then the same command is given again.

All tables must be equal to the last bit, but for ``credit_microseconds``, which is a time. The script fails if they are not, or if a cell
that was finished is run again.

Run: ``python benchmarks/executors/cluster.py [--markdown FILE]``; minutes.
"""

from __future__ import annotations

import argparse
import csv
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ray.cluster_utils import Cluster

from proxycoop.files import write_text

TIMES = ("credit_microseconds",)
"""Columns that hold measured times, which differ from run to run."""
TASK = b"ray::proxycoop_task"
"""How Ray names a process that works on a cell."""


@contextmanager
def two_nodes() -> Iterator[Cluster]:
    """Two nodes of Ray with a core each. The first is the head."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        nodes.add_node(num_cpus=1)
        nodes.wait_for_nodes()
        yield nodes
    finally:
        nodes.shutdown()


def command(out: Path, size: tuple[int, int], *where: str) -> list[str]:
    """The comparison, with so many seeds and agent-steps."""
    seeds, steps = map(str, size)
    words = ["compare", "-s", "breast_cancer", "-r", "equal", "-r", "loo", "--seeds", seeds, "--steps", steps]
    return [sys.executable, "-m", "proxycoop", *words, "--evaluation-splits", "2", "--episodes", "4", "--out", str(out), *where]


def table(out: Path) -> list[dict[str, str]]:
    """The rows of a comparison, without times."""
    with (out / "results.csv").open(encoding="utf-8") as file:
        return [{name: value for name, value in row.items() if name not in TIMES} for row in csv.DictReader(file)]


def timed(words: list[str]) -> float:
    """Seconds that a command takes."""
    began = time.perf_counter()
    subprocess.run(words, check=True, capture_output=True)
    return time.perf_counter() - began


def finished(out: Path) -> dict[Path, float]:
    """When each finished cell was written."""
    return {path: path.stat().st_mtime for path in out.glob("cells/*/*/*/result.json")}


def during(words: list[str], out: Path, act: Callable[[subprocess.Popen[str]], object], after: int = 1) -> tuple[int, float]:
    """Run a command, and do something once so many cells are finished and another is being worked on.

    Returns:
        The command's exit code, and the seconds that it took.
    """
    began = time.perf_counter()
    with subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as running:
        while running.poll() is None and not (len(finished(out)) >= after and working()):
            time.sleep(0.05)
        if running.poll() is not None:
            sys.exit(f"it ended too early: {running.communicate()[1]}")
        act(running)
        running.communicate()
    return running.returncode, time.perf_counter() - began


def working() -> list[int]:
    """Processes of Ray on this machine that work on a cell; Linux only."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended meanwhile
            if path.read_bytes().startswith(TASK):
                found.append(int(path.parent.name))
    return found


def rows(folder: Path, size: tuple[int, int]) -> Iterator[tuple[str, str, str]]:
    """What was done, how long it took, and what came of it."""
    want: list[dict[str, str]] = []

    def same(out: Path) -> str:
        if table(out) != want:
            sys.exit(f"{out}: the table differs")
        return "equal table"

    for jobs in (1, 2):
        seconds = timed(command(folder / f"local-{jobs}", size, "--jobs", str(jobs)))
        want = want or table(folder / "local-1")
        yield f"no Ray, {jobs} process{'es' * (jobs > 1)}", f"{seconds:.0f}", same(folder / f"local-{jobs}")
    with two_nodes() as nodes:
        ray = ("--ray", nodes.address)
        seconds = timed(command(folder / "ray", size, *ray))
        yield "two nodes of one core", f"{seconds:.0f}", same(folder / "ray")
        out = folder / "worker"
        code, seconds = during(command(out, size, *ray), out, lambda _: os.kill(working()[0], signal.SIGKILL))
        yield "the same; a worker is killed", f"{seconds:.0f}", f"exit {code}, {same(out)}"
        out, kept = folder / "driver", {}

        def cut(driver: subprocess.Popen[str]) -> None:
            driver.kill()
            driver.wait()
            kept.update(finished(out))

        code, seconds = during(command(out, size, *ray), out, cut, after=4)
        seconds += timed(command(out, size, *ray))
        again = [path for path, when in kept.items() if finished(out)[path] != when]
        if again or not kept:
            sys.exit(f"{len(again)} of {len(kept)} finished cells were run again")
        yield "the same; the command is killed, and given again", f"{seconds:.0f}", f"{len(kept)} cells kept, none again, {same(out)}"
        out = folder / "node"
        lost = next(iter(nodes.worker_nodes))
        code, seconds = during(command(out, size, *ray), out, lambda _: nodes.remove_node(lost, allow_graceful=False))
        yield "the same; a node is killed", f"{seconds:.0f}", f"exit {code}, {same(out)}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12_000, help="agent-steps of each training")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of each of the two rules")
    parser.add_argument("--markdown", type=Path, help="write the table into this file")
    arguments = parser.parse_args()
    loads = [os.getloadavg()[0]]
    lines = [f"| {9 + 2 * arguments.seeds} cells, {2 * arguments.seeds} of them trainings | seconds | what came of it |", "|---|---:|---|"]
    with tempfile.TemporaryDirectory() as folder:
        for what, seconds, outcome in rows(Path(folder), (arguments.seeds, arguments.steps)):
            loads.append(os.getloadavg()[0])
            lines.append(f"| {what} | {seconds} | {outcome} |")
            sys.stderr.write(f"{lines[-1]}\n")
    noise = f"{os.cpu_count()} cores, which others used too: {min(loads):.1f} to {max(loads):.1f} processes wanted them at once."
    text = "\n".join(lines) + f"\n\nTrainings of {arguments.steps:,} agent-steps in `breast_cancer`. {noise}\n"
    sys.stdout.write(text)
    if arguments.markdown is not None:
        write_text(arguments.markdown, text)


if __name__ == "__main__":
    main()
