"""How much members interact in every shipped scenario, and what larger steps and skewed labels do to that.

For each scenario: R² of the best additive game, the shares of interaction of pairs and of larger groups, and how ``loo`` and ``standalone``
correlate with ``shapley``, where nobody screens and under the scenario's own screening. ``proxycoop scenarios --interaction`` prints the
same numbers.

Run: ``python benchmarks/values/interaction.py [--markdown FILE] [--changes FILE]``; two minutes. Scenarios of the extra ``fairness`` need
it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from proxycoop.envs import scenario
from proxycoop.files import write_text
from proxycoop.training.analysis.interaction import COLUMNS, cells, interaction

CHANGES: dict[str, tuple[str, dict[str, Any]]] = {
    "digits as it is": ("digits", {}),
    "local_lr 1.5": ("digits", {"substrate.local_lr": 1.5}),
    "local_lr 4": ("digits", {"substrate.local_lr": 4.0}),
    "2 classes a lot, local_lr 3": ("digits", {"lots.mixture.classes_per_lot": 2, "substrate.local_lr": 3.0}),
    "digits-mean as it is": ("digits-mean", {}),
    "digits-mean, 2 classes a lot, local_lr 0.5": ("digits-mean", {"lots.mixture.classes_per_lot": 2, "substrate.local_lr": 0.5}),
}
"""Changes to digits and digits-mean, by what is said of them."""
_HEADINGS = {"additive": "additive (R²)", "loo": "`loo`", "standalone": "`standalone`", "gain": "gain in nats"}


def of_scenario(name: str, episodes: int, seed: int) -> list[list[str]]:
    """A scenario's two rows: where nobody screens, and as it screens."""
    torch.set_num_threads(1)
    one = scenario.load(name)
    rows = [cells(interaction(one, episodes=episodes, seed=seed, screened=screened)) for screened in (False, True)]
    return [[f"`{row[0]}`", *row[1:]] for row in rows]


def of_change(what: str, episodes: int, seed: int) -> list[list[str]]:
    """The row of a change to a scenario, where nobody screens."""
    torch.set_num_threads(1)
    name, changes = CHANGES[what]
    return [[what, *cells(interaction(scenario.load(name, **changes), episodes=episodes, seed=seed))[2:]]]


def table(titles: list[str], rows: list[list[str]], n_words: int) -> str:
    """A Markdown table whose first ``n_words`` columns hold words."""
    head = [_HEADINGS.get(title, title) for title in titles]
    lines = [head, ["---"] * n_words + ["---:"] * (len(head) - n_words), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> None:
    """Print both tables, and write them if asked to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--episodes", type=int, default=32, help="episodes of each row")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first episode")
    parser.add_argument("--scenarios", nargs="+", default=scenario.names(), help="all by default")
    parser.add_argument("--jobs", type=int, default=2, help="processes side by side")
    parser.add_argument("--markdown", type=Path, help="write the table of scenarios into this file")
    parser.add_argument("--changes", type=Path, help="write the table of changes into this file")
    arguments = parser.parse_args()
    with ProcessPoolExecutor(arguments.jobs, multiprocessing.get_context("spawn")) as pool:
        running = [
            [pool.submit(work, one, arguments.episodes, arguments.seed) for one in names]
            for work, names in ((of_scenario, arguments.scenarios), (of_change, list(CHANGES)))
        ]
        bar = tqdm(total=sum(map(len, running)), unit=" scenarios")
        found: list[list[list[str]]] = []
        for futures in running:
            found.append([])
            for future in futures:
                found[-1] += future.result()
                bar.update()
        bar.close()
    scenarios = table(list(COLUMNS), found[0], 2)
    changes = table(["change", *COLUMNS[2:]], found[1], 1)
    sys.stdout.write(f"{scenarios}\n{changes}")
    for path, text in ((arguments.markdown, scenarios), (arguments.changes, changes)):
        if path is not None:
            write_text(path, text)


if __name__ == "__main__":
    main()
