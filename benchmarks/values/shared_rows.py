"""How many rows the splits of each shipped scenario share, by their features, and how many rows its lots take from the train pool.

No row of the data is in two splits, but in tables of a few coarse columns many people look alike. Where test rows have the features of
rows that the model was trained or screened on, the test tells less about others. Where more rows are dealt than there are in the pool,
lots share rows.

Run: ``python benchmarks/values/shared_rows.py [--markdown FILE]``; seconds. Scenarios of the extra ``fairness`` need it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from proxycoop.envs import Scenario, scenario
from proxycoop.envs.data.duplicates import shared_rows, splits_of
from proxycoop.envs.shared import shared
from proxycoop.files import write_text

COLUMNS = (
    "scenario",
    "rows dealt, of a pool of",
    "test rows",
    "of them alike in train",
    "in validation",
    "in a probe set",
    "validation rows alike in train",
)


def row(one: Scenario) -> list[str]:
    """A scenario's row of the table."""
    splits = shared(one, torch.float64)[0]
    counts, sizes = shared_rows(splits), {name: len(rows) for name, rows in splits_of(splits).items()}
    samples = one.lots.samples(one.principals)
    copies = samples.numel() if one.substrate.kind == "vertical" else one.lots.holders  # lots of columns share their rows

    def share(of: str, other: str) -> str:
        return f"{100 * counts[of, other] / sizes[of]:.1f} %" if counts[of, other] else "0"

    dealt = f"{int(samples.sum()) // copies:,} of {sizes['train']:,}"
    others = [share("test", other) for other in ("train", "validation", "probe")]
    return [one.name, dealt, f"{sizes['test']:,}", *others, share("validation", "train")]


def main() -> None:
    """Print the table, and write it if asked to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--markdown", type=Path, help="write the table into this file")
    arguments = parser.parse_args()
    rows = [COLUMNS, ("---", *["---:"] * (len(COLUMNS) - 1)), *(row(scenario.load(name)) for name in scenario.names())]
    text = "".join(f"| {' | '.join(cells)} |\n" for cells in rows)
    sys.stdout.write(text)
    if arguments.markdown is not None:
        write_text(arguments.markdown, text)


if __name__ == "__main__":
    main()
