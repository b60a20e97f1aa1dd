"""How long imports take beyond that of torch, and a check that no slow library is imported unless it is asked for.

Every import runs in a process of its own, which times it after ``import torch``. The shortest of several runs is printed, because the first
fills the file system's caches. The command fails if a package imports one of the listed libraries without needing it, or if it takes more
than a second.

Run: ``python benchmarks/training/imports.py [--runs 5] [--markdown FILE]``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from proxycoop.files import write_text

PACKAGES = (
    "proxycoop",
    "proxycoop.credit",
    "proxycoop.envs",
    "proxycoop.agents",
    "proxycoop.training.libraries.registry",
    "proxycoop.training.commands.cli",
)
HEAVY = (
    *("stable_baselines3", "sb3_contrib", "supersuit", "ray", "benchmarl", "torchrl", "agilerl", "flwr"),
    *("matplotlib", "sqlalchemy", "sklearn", "scipy.stats", "scipy.optimize"),
)
SCRIPT = """
import sys, time
began = time.perf_counter()
import torch
between = time.perf_counter()
import {package}
print(between - began, time.perf_counter() - between, *sorted(set({heavy}) & set(sys.modules)))
"""


def timed(package: str) -> tuple[float, float, list[str]]:
    """Seconds of torch's import and of the package's after it, and which of the heavy libraries came with it."""
    done = subprocess.run([sys.executable, "-c", SCRIPT.format(package=package, heavy=HEAVY)], capture_output=True, text=True, check=True)
    torch_seconds, seconds, *heavy = done.stdout.split()
    return float(torch_seconds), float(seconds), heavy


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="runs of each import")
    parser.add_argument("--markdown", type=Path, help="write the table into this file")
    arguments = parser.parse_args()
    lines = ["| import | seconds beyond torch's | slow libraries that came with it |", "|---|---:|---|"]
    torch_seconds, came = [], set()
    for package in PACKAGES:
        runs = [timed(package) for _ in range(arguments.runs)]
        torch_seconds += [run[0] for run in runs]
        came.update(name for run in runs for name in run[2])
        lines.append(f"| `{package}` | {min(run[1] for run in runs):.2f} | {', '.join(runs[0][2]) or 'none'} |")
    text = "\n".join(lines) + f"\n\ntorch itself: {min(torch_seconds):.2f} s.\n"
    sys.stdout.write(text)
    if arguments.markdown is not None:
        write_text(arguments.markdown, text)
    if slow := [line.split("`")[1] for line in lines[2:] if float(line.split("|")[2]) > 1]:
        sys.exit(f"more than a second beyond torch's import: {', '.join(slow)}")
    if came:
        sys.exit(f"imported without being asked for: {', '.join(sorted(came))}")


if __name__ == "__main__":
    main()
