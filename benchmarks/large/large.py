"""What an episode of a large cooperative takes, in time and memory, and what proxies learn in one of a thousand.

``crowd`` with N principals, of whom 32 are present in a round. Every episode is played in a process of its own, by proxies that contribute
each lot with probability ½. Seconds are of processor time on one thread, and do not depend on what else runs on the machine. Memory is the
most that the process ever held (resident), Python and torch included; what a principal takes is the slope between the smallest and the
largest cooperative.

Run: ``python benchmarks/large/large.py [--sizes 100 1000 10000] [--steps 120000] [--markdown FILE]``.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from proxycoop import agents
from proxycoop.envs import Engine, cooperative_v0, scenario
from proxycoop.files import read_json, write_text

SCENARIO, SAMPLE = "crowd", 32
SIZES = (100, 1_000, 10_000)
RULES = ("loo", "shapley(budget=640)", "fedsv(budget=640)", "comfedsv", "cgsv")
LEARNED = ("loo",)
SHOWN = ("clean_share", "corrupt_share", "welfare")


def sized(n: int, **more: Any) -> scenario.Scenario:
    """The scenario with n principals, a fifth of whom hold each profile."""
    profiles = [{**profile.model_dump(), "holders": n // 5} for profile in scenario.load(SCENARIO).profiles]
    return scenario.load(SCENARIO, principals=n, profiles=profiles, **{"participation.sample": SAMPLE}, **more)


def peak() -> float:
    """The most memory that this process ever held, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def episode(n: int, rule: str) -> dict[str, float]:
    """One episode of n principals: seconds by part, and MiB."""
    began = time.process_time()
    engine = Engine(sized(n, **{"reward.scale": 2000.0}), rule)
    marks = [time.process_time()]
    engine.reset([0])
    marks.append(time.process_time())
    coins = torch.Generator().manual_seed(0)
    while engine.t < engine.horizon:
        engine.step(torch.rand(1, n, engine.num_lots, generator=coins) < 0.5)
    marks.append(time.process_time())
    credited = int((engine.credit_so_far[0] != 0).sum())
    return {"build": marks[0] - began, "reset": marks[1] - marks[0], "rounds": marks[2] - marks[1], "peak": peak(), "credited": credited}


def books(n: int) -> dict[str, float]:
    """An episode of n principals with money, settled every fourth round and written into a ledger: seconds without it and with it, MiB."""
    taken = []
    for kept in (False, True):
        with tempfile.TemporaryDirectory() as folder:
            made = sized(n, **{"reward.scale": 2000.0, "settlement": {"period": 4}})
            ledger = Path(folder) / "books.db" if kept else None
            env = cooperative_v0.parallel_env(made, "loo", infos="mask", ledger=ledger)
            env.reset(seed=0)
            actions = dict.fromkeys(env.agents, [1] * made.lots.per_principal)
            began = time.process_time()
            while env.agents:
                env.step(actions)
            taken.append(time.process_time() - began)
            env.close()
    return {"plain": taken[0], "books": taken[1], "peak": peak()}


def apart(what: str, *given: object) -> dict[str, Any]:
    """What this file measures when it is asked in a process of its own."""
    command = [sys.executable, __file__, "--one", what, *map(str, given)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def train(rule: str, steps: int) -> list[str]:
    """A row of the table of trainings: what is contributed before and after, and seconds."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        began = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-m", "proxycoop", "train", "--library", "ippo", "--scenario", SCENARIO, "--credit", rule]
        subprocess.run([*command, "--steps", str(steps), "--seed", "0", "--out", str(out)], check=True, capture_output=True)
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime
        curve = read_json(out / "curve.json")["updates"]
    return [f"`{rule}`", *_told(curve[0]), *_told(curve[-1]), f"{seconds:.0f} s"]


def scripted(name: str) -> list[str]:
    """A row of the table of scripted agents."""
    engine = Engine(SCENARIO, "loo", num_envs=16)
    found = agents.play(engine, agents.make(name), range(16))
    return [f"`{name}`", *_told({one: float(found[one].float().mean()) for one in SHOWN})]


def _told(measured: dict[str, float]) -> list[str]:
    clean, corrupt, welfare = (measured[one] for one in SHOWN)
    return [f"{clean:.0%}", f"{corrupt:.0%}", f"{welfare:.0f}"]


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown, numbers to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines)


def main() -> None:
    """Measure, and print or write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="numbers of principals")
    parser.add_argument("--steps", type=int, default=120_000, help="agent-steps of the training; 0 for none")
    parser.add_argument("--markdown", type=Path, help="write the tables here")
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.one:
        what, n, *rule = chosen.one
        print(json.dumps(episode(int(n), *rule) if what == "episode" else books(int(n))))
        return
    rows, peaks = [], {}
    for n in chosen.sizes:
        found = apart("episode", n, RULES[0])
        peaks[n] = found["peak"]
        whole = found["reset"] + found["rounds"]
        rows.append([f"{n:,}", f"{found['reset']:.2f} s", f"{found['rounds']:.2f} s", f"{whole:.2f} s", f"{found['peak']:.0f} MiB"])
    small, large = min(peaks), max(peaks)
    parts = [table(["principals", "drawing the lots", "16 rounds", "episode", "memory, at most"], rows)]
    if small < large:
        each = (peaks[large] - peaks[small]) / (large - small) * 1024
        parts.append(f"From {small:,} to {large:,} principals a principal takes {each:.1f} KiB.")
    rows = []
    for rule in RULES:
        found = apart("episode", large, rule)
        rows.append([f"`{rule}`", f"{found['rounds']:.2f} s", f"{found['peak']:.0f} MiB", f"{found['credited']:,.0f}"])
    parts.append(table([f"rule, {large:,} principals", "16 rounds", "memory, at most", "principals credited"], rows))
    found = apart("books", large)
    parts.append(
        f"With money and a settlement every fourth round, the same episode through the PettingZoo face, {large:,} principals, takes "
        f"{found['plain']:.1f} s; written into a ledger, {found['books']:.1f} s ({found['peak']:.0f} MiB)."
    )
    if chosen.steps:
        head = ["rule", "clean, first update", "corrupt", "welfare", "clean, last update", "corrupt", "welfare", "processor"]
        parts.append(table(head, [train(rule, chosen.steps) for rule in LEARNED]))
        parts.append(table(["agent", "clean", "corrupt", "welfare"], [scripted(name) for name in ("all", "honest", "planner", "oracle")]))
    text = "\n\n".join(parts) + "\n"
    print(text)
    if chosen.markdown:
        write_text(chosen.markdown, text)


if __name__ == "__main__":
    main()
