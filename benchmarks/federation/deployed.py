"""A federation of real processes, by the template's run.sh: a SuperLink and six SuperNodes here, with TLS and node authentication.

Is it equal to the simulator? And does it survive? With ``--kills``, SuperNodes, the ServerApp, and now and then everything at once are
ended by SIGKILL at random moments. A SuperNode is started again by ``run.sh``, a ServerApp by the next ``flwr run``, and everything by
the same command. In the end all rounds are played again from the server's files and looked up in the ledger.

Without kills every site answers in every round, so the episode must be that of the simulator. Run it in the environment that has flwr.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from in_process import ROOT, cells, compared, n_differing
from kills import Survival, audit

from proxycoop.envs import scenario
from proxycoop.envs.scenario import Scenario
from proxycoop.flower import Federation

TARGETS = {"a SuperNode": 0.6, "the ServerApp": 0.3, "everything": 0.1}
SHOWN = ("credit", "rewards", "utility", "value_losses", "gamma", "kept", "model")


def template(folder: Path, rounds: int) -> tuple[Path, Scenario]:
    """A copy of the template whose episode has so many rounds."""
    copy = folder / "federation"
    if not copy.exists():
        shutil.copytree(ROOT / "examples" / "federation", copy)
    path = copy / "cooperative" / "scenario.yaml"
    path.write_text(re.sub(r"^horizon: .*$", f"horizon: {rounds}", path.read_text(encoding="utf-8"), flags=re.M), encoding="utf-8")
    return copy, scenario.load(path)


def command_lines() -> Iterator[tuple[int, str]]:
    """All processes of this machine with their command lines; Linux only."""
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile
            yield int(path.name), (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")


def parent_of(pid: int) -> int:
    """The process that started a process; 0 if it is gone."""
    with suppress(OSError):
        return int(re.search(r"^PPid:\s*(\d+)", Path(f"/proc/{pid}/status").read_text(), re.M).group(1))
    return 0


def found_as(out: Path) -> dict[str, list[int]]:
    """The processes of the federation in a folder, by what they are."""
    lines = dict(command_lines())
    ours = {pid for pid, line in lines.items() if str(out) in line and pid != os.getpid()}
    while more := {pid for pid in lines if parent_of(pid) in ours} - ours - {os.getpid()}:
        ours |= more
    return {
        "a SuperNode": [pid for pid in ours if "/flower-supernode " in lines[pid]],
        "the ServerApp": [pid for pid in ours if "/flwr-serverapp " in lines[pid]],
        "everything": list(ours),
    }


def kill(out: Path, what: str, draw: random.Random) -> bool:
    """End one of such processes, or everything. Says whether there was one."""
    there = found_as(out)[what]
    chosen = there if what == "everything" else draw.sample(there, min(len(there), 1))
    for pid in chosen:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return bool(chosen)


def run(copy: Path, out: Path, settings: list[str], environment: dict[str, str], n_kills: int, rounds: int, seed: int) -> Counter[str]:
    """Run the template to its end, and kill meanwhile. Returns how many kills there were of each kind."""
    draw, kills = random.Random(seed), Counter[str]()
    began = time.monotonic()
    while not (out / "model.pt").exists():
        process = subprocess.Popen(["sh", str(copy / "run.sh"), str(out), *settings], env=environment, stdout=subprocess.DEVNULL)
        while process.poll() is None:
            done = len(list((out / "rounds").glob("round-*.pt")))
            pace = (time.monotonic() - began) / (done + 1)
            due = kills.total() < n_kills and kills.total() <= n_kills * (done + 2) / rounds
            if not due or not done:
                time.sleep(1.0)
                continue
            time.sleep(draw.uniform(0.0, pace))
            what = draw.choices(list(TARGETS), list(TARGETS.values()))[0]
            if kill(out, what, draw):
                kills[what] += 1
                print(f"round {done}: {what} is killed ({kills.total()} of {n_kills})", file=sys.stderr, flush=True)
        if process.returncode > 0 and not n_kills:
            sys.exit(f"run.sh ended with {process.returncode}: see {out / 'logs'}")
        process.wait()
    return kills


def main() -> None:
    """Run, compare or count, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the run; what is there goes on")
    parser.add_argument("--agent", default="honest", help="what every site plays, such as learned(path='out/run')")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--seed", type=int, default=5, help="of the episode, and of the kills")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds that sites have to answer")
    parser.add_argument("--port", type=int, default=9092)
    parser.add_argument("--markdown", type=Path)
    given = parser.parse_args()
    logging.getLogger("flwr").setLevel(logging.ERROR)
    given.out.mkdir(parents=True, exist_ok=True)
    folder = given.out.resolve()
    copy, cooperative = template(folder, given.rounds)
    out = folder / "out"
    environment = os.environ | {
        "AGENT": given.agent,
        "PORT": str(given.port),
        "TRIES": str(1 + 2 * given.kills),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    kills = run(copy, out, [f"seed={given.seed}", f"timeout={given.timeout}"], environment, given.kills, given.rounds, given.seed)
    seconds = (out / "model.pt").stat().st_mtime - (out / "rounds" / "start.json").stat().st_mtime
    found = Survival(kills=kills.total(), seconds=seconds)
    played = Federation(cooperative, "shapley", seed=given.seed, folder=out / "rounds", ledger=out / "ledger.db")
    told = re.findall(r"round (\d+): \d+ updates offered", (out / "logs" / "run.log").read_text(encoding="utf-8"))
    audit(played, out / "ledger.db", set(map(int, told)), found)
    problem = "; ".join(found.problems) or "0"
    if given.kills:
        counted = " | ".join(str(kills[what]) for what in TARGETS)
        lines = [
            "| rounds | kills of a SuperNode | of the ServerApp | of everything | answers missing, all on the ledger | lost, doubled, or "
            "not verified | minutes from the first answer |",
            "|---:|---:|---:|---:|---:|---:|---:|",
            f"| {found.rounds} | {counted} | {found.refusals} | {problem} | {seconds / 60:.0f} |",
        ]
    else:
        largest = compared(played.engine, cooperative, "shapley", given.agent, given.seed)
        numbers = cells(largest, SHOWN)
        if found.refusals:
            problem = f"{problem}; {found.refusals} answers were missing, so the episodes are different ones"
        measures = " | ".join(SHOWN).replace("_", " ")
        lines = [
            f"| rounds | choices, admissions, objections, money that differ | {measures} | ledger: problems | s from the first answer |",
            f"|---:|---:|{'---:|' * len(SHOWN)}---:|---:|",
            f"| {found.rounds} | {n_differing(largest) or 'none'} | {numbers} | {problem} | {seconds:.0f} |",
        ]
    text = "\n".join(lines) + "\n"
    print(text)
    if given.markdown:
        given.markdown.write_text(text, encoding="utf-8")
    sys.exit(problem != "0")


if __name__ == "__main__":
    main()
