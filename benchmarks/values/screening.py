"""How often the applied step breaks somebody's profile: without screening, with it, and with the guard.

Random proxies play every shipped scenario, at its own tolerances and at a fifth of them. A step *violates* if its first-order harm or its
norm is beyond some principal's limit (up to rounding). An update in it *is beyond* if it alone is inadmissible to somebody. A step is the
mean of 24 lots, which dilutes what a single lot does. So at the shipped tolerances hundreds of updates are beyond a tolerance, but hardly
any step is. At a fifth of the tolerances most unscreened steps violate.

The command fails if a step violates under unanimous screening with a plain server, or anywhere with the guard.

Run: ``python benchmarks/values/screening.py [--rounds 256] [--markdown FILE]``; two minutes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from proxycoop import agents
from proxycoop.envs import Engine, Scenario, scenario
from proxycoop.files import write_text

UNANIMOUS = {"screening.governance": "unanimous"}
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "no screening": {"screening.governance": "none"},
    "unanimous": UNANIMOUS,
    "own": {"screening.governance": "own"},
    "quorum 0.4": {"screening.governance": "quorum", "screening.quorum": 0.4},
    "unanimous, momentum 0.9": {**UNANIMOUS, "server": {"kind": "sgd", "momentum": 0.9}},
    "unanimous, Adam": {**UNANIMOUS, "server": {"kind": "adam"}},
}


def configured(name: str, changes: dict[str, Any], factor: float, guard: bool) -> Scenario:
    """A scenario with other screening or server, and with all tolerances multiplied."""
    profiles = [profile.tightened(factor) for profile in scenario.load(name).unlimited().profiles]
    return scenario.load(name, **{"profiles": profiles, **changes, "screening.guard": guard, "reward.scale": 1.0})  # nobody is paid


def count(one: Scenario, rounds: int) -> tuple[int, int, int]:
    """Violating steps, updates in steps that are inadmissible to somebody by themselves, and updates in steps."""
    num_envs = -(-rounds // one.horizon)
    engine = Engine(one, None, num_envs)
    agents.play(engine, agents.make("random"), range(num_envs))
    steps = sum(int(result.violated.sum()) for result in engine.history)
    beyond = sum(int((result.admitted & result.blocked_by.any(dim=-1)).sum()) for result in engine.history)
    return steps, beyond, sum(int(result.admitted.sum()) for result in engine.history)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=256, help="Rounds in each cell, rounded up to whole episodes.")
    parser.add_argument("--markdown", type=Path, help="write the tables into this file")
    arguments = parser.parse_args()
    rounds, names, failures, lines = arguments.rounds, scenario.names(), [], []
    runs = [(label, guard) for label in CONFIGURATIONS for guard in (False, True)]
    for factor in (1.0, 0.2):
        lines += [f"Violating steps of {rounds}, tolerances × {factor:g} (of all updates in them, those beyond a tolerance):", ""]
        lines += [f"| screening and server | {' | '.join(names)} |", "|---|" + "---:|" * len(names)]
        for label, guard in tqdm(runs, desc=f"tolerances × {factor:g}", unit=" rows"):
            cells = []
            for name in names:
                steps, beyond, total = count(configured(name, CONFIGURATIONS[label], factor, guard), rounds)
                cells.append(f"{steps} ({100 * beyond / max(total, 1):.0f} %)")
                if steps and (guard or label == "unanimous"):
                    failures.append(f"{label}, guard {guard}, {name}, tolerances × {factor:g}: {steps}")
            lines.append(f"| {label}{' + guard' if guard else ''} | {' | '.join(cells)} |")
        lines.append("")
    text = "\n".join(lines)
    sys.stdout.write(f"\n{text}")
    if arguments.markdown is not None:
        write_text(arguments.markdown, text)
    if failures:
        sys.exit("steps that should have been admissible were not: " + "; ".join(failures))


if __name__ == "__main__":
    main()
