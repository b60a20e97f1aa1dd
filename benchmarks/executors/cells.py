"""What a cell of a comparison needs in time and memory, by scenario, and what ten thousand of them would cost.

Each scenario is trained twice for so many agent-steps, under one rule, and evaluated as `compare` does by default. A training's
processor time is a line in its agent-steps. Its slope and its start follow from the two, and with them the time of a training of 120,000
steps. Memory is the larger of the two: it does not grow with the steps.

Run: ``python benchmarks/executors/cells.py [--scenarios NAME …] [--markdown FILE]``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from proxycoop.envs import scenario
from proxycoop.files import write_text
from proxycoop.training.compare import cells, compare, results
from proxycoop.training.executors import Cost, cost_of, estimate

FULL = 120_000
"""Agent-steps of a training by default."""


def cost_at(name: str, rule: str, library: str, steps: int, folder: Path) -> tuple[int, Cost]:
    """The cost of one training and its evaluation, and the agent-steps that it did: whole rollouts, so perhaps more than were asked for."""
    every = cells([scenario.load(name)], [rule], [0], library=library, total_steps=steps)
    (trained,) = [cell for cell in every if cell.agent == "learned"]
    compare([trained], folder, jobs=1, quiet=True)
    found = cost_of(folder / "cells" / trained.name)
    assert found is not None
    return int(results(folder)[0]["curve"][-1]["agent_steps"]), found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenarios", nargs="+", default=list(scenario.names()), help="scenarios; by default all that are shipped")
    parser.add_argument("--rule", default="shapley", help="credit rule")
    parser.add_argument("--library", default="sb3", help="library that trains")
    parser.add_argument("--steps", type=int, nargs=2, default=(6_000, 18_000), help="agent-steps of the two trainings")
    parser.add_argument("--price", type=float, default=0.05, help="what an hour of one core costs: an assumption")
    parser.add_argument("--cores", type=int, default=64, help="cores that work at once")
    parser.add_argument("--markdown", type=Path, help="write the table into this file")
    arguments = parser.parse_args()
    few, more = arguments.steps
    titles = (
        "scenario",
        "MB",
        "measured: s at steps",
        "s at steps",
        f"s at {FULL:,}",
        "core-hours",
        f"hours on {arguments.cores}",
        "price",
    )
    lines = [f"| {' | '.join(titles)} |", "|---|" + "---:|" * (len(titles) - 1)]
    for name in arguments.scenarios:
        with tempfile.TemporaryDirectory() as folder:
            measured = [cost_at(name, arguments.rule, arguments.library, steps, Path(folder) / str(steps)) for steps in (few, more)]
        done, costs = [steps for steps, _ in measured], [cost for _, cost in measured]
        if done[0] == done[1]:
            sys.exit(
                f"{name}: {few} and {more} agent-steps are the same number of rollouts ({done[0]}): pass --steps that lie further apart"
            )
        slope = (costs[1].cpu_seconds - costs[0].cpu_seconds) / (done[1] - done[0])
        seconds = costs[1].cpu_seconds + slope * (FULL - done[1])
        peak = max(one.peak_memory or 0 for one in costs)
        many = estimate([Cost(seconds, seconds, peak)], 10_000, arguments.cores, arguments.price)
        row = [f"`{name}`", f"{peak / 1e6:,.0f}", *(f"{one.cpu_seconds:,.1f} at {steps:,}" for steps, one in measured), f"{seconds:,.0f}"]
        row += [f"{many.core_hours:,.0f}", f"{many.hours:,.1f}", f"{many.price:,.2f}"]
        lines.append(f"| {' | '.join(row)} |")
        sys.stderr.write(f"{lines[-1]}\n")
    told = (
        f"One training under `{arguments.rule}` by `{arguments.library}` and its evaluation, in seconds of processor time; at {FULL:,} "
        "agent-steps by the line through the two that were measured. The last three columns are for 10,000 such cells, at "
        f"{arguments.price:g} for an hour of one core, which is an assumption."
    )
    text = "\n".join(lines) + f"\n\n{told}\n"
    sys.stdout.write(text)
    if arguments.markdown is not None:
        write_text(arguments.markdown, text)


if __name__ == "__main__":
    main()
