"""How often the applied step breaks somebody's profile: without screening, with it, and with the guard.

Random proxies play every shipped scenario, at its own tolerances and at a fifth of them. A step *violates* if its first-order harm,
or its norm, is beyond some principal's limit (to rounding); an update in it *is beyond* if it is inadmissible to somebody by itself.
At the shipped tolerances a step is the mean of 24 lots, which dilutes what a single lot does: updates are beyond their
tolerance by the hundred while hardly a step is. At a fifth of them most unscreened steps violate.

The command fails if a step violates under unanimous screening with a plain server, or anywhere with the guard.

Run: ``python benchmarks/screening.py [--rounds 256]``.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from proxycoop import agents
from proxycoop.envs import Engine, Scenario, scenario

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
    shipped = scenario.load(name)
    profiles = [
        profile.model_copy(update={"tolerances": {value: factor * tau for value, tau in profile.tolerances.items()}})
        for profile in shipped.profiles
    ]
    return scenario.load(name, **{"profiles": profiles, **changes, "screening.guard": guard})


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
    rounds = parser.parse_args().rounds
    failures = []
    for factor in (1.0, 0.2):
        table = Table(
            "screening and server", title=f"violating steps of {rounds}, tolerances × {factor:g} (updates in them beyond a tolerance)"
        )
        for name in scenario.names():
            table.add_column(name, justify="right")
        for label, changes in CONFIGURATIONS.items():
            for guard in (False, True):
                cells = []
                for name in scenario.names():
                    steps, beyond, total = count(configured(name, changes, factor, guard), rounds)
                    cells.append(f"{steps} ({beyond} of {total})")
                    if steps and (guard or label == "unanimous"):
                        failures.append(f"{label}, guard {guard}, {name}, tolerances × {factor:g}: {steps}")
                table.add_row(label + (" + guard" if guard else ""), *cells)
        Console(width=140).print(table)
    if failures:
        sys.exit("steps that should have been admissible were not: " + "; ".join(failures))


if __name__ == "__main__":
    main()
