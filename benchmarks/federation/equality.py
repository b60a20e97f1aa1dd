"""Is a federation equal to the simulator? Episodes of both on the same data and seeds, and the largest differences.

Sites are called in this process, by Flower's messages. Run it in the environment that has flwr.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from pathlib import Path

from in_process import cells, differences, made, n_differing

RULES = ("shapley", "loo", "fedsv", "shapley(budget=40, seed=1)")
GOVERNANCES = ("quorum", "stakeholders")
WEIGHTS = ("fixed", "participants")
SHOWN = ("observations", "kept", "gamma", "credit", "rewards", "utility", "value_losses", "model")


def main() -> None:
    """Play all episodes, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agent", default="random(probability=0.7)", help="what every site plays, such as learned(path='out/run')")
    parser.add_argument("--rounds", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--markdown", type=Path)
    given = parser.parse_args()
    logging.getLogger("flwr").setLevel(logging.ERROR)
    lines = [
        f"| weights | governance | rule | choices, admissions, objections, money that differ | {' | '.join(SHOWN).replace('_', ' ')} |",
        f"|---|---|---|---:|{'---:|' * len(SHOWN)}",
    ]
    for weights in WEIGHTS:
        for governance in GOVERNANCES:
            cooperative = made(horizon=given.rounds, weights=weights, **{"screening.governance": governance})
            for rule in RULES:
                largest: dict[str, float] = {}
                for seed in range(given.seeds):
                    with tempfile.TemporaryDirectory() as folder:
                        found = differences(cooperative, rule, given.agent, seed, Path(folder), Path(folder) / "ledger.db")
                    largest = {name: max(one, largest.get(name, 0.0)) for name, one in found.items()}
                numbers = cells(largest, SHOWN)
                lines.append(f"| {weights} | {governance} | `{rule}` | {n_differing(largest) or 'none'} | {numbers} |")
                print(lines[-1], flush=True)
    lines += [
        "",
        f"Largest absolute differences between a federation over Flower's messages and the simulator. In each of {given.seeds} "
        f"episode{'s' * (given.seeds != 1)} of {given.rounds} rounds of `digits`, every site plays `{given.agent.split('(')[0]}`. "
        "Single precision. *Credit*, *utility*, *value losses* are in nats, *rewards* in reward units.",
    ]
    if given.markdown:
        given.markdown.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
