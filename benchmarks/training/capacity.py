r"""Who gains and who loses when a round has room for only some: welfare, envy and the worst-off under each admission mechanism.

Proxies are trained by PPO (``ippo``) where a round takes 4, 8 or 16 of 24 updates, under each mechanism, and without a limit. They play
on splits of the data on which none was trained. Under the auction a proxy has four levers with which it bids 1, 2, 4 and 8 reward units.

With ``--cheats FILE`` nothing is trained: it measures what each cheat of the red team gains with ``--places`` places.

Run: ``python benchmarks/training/capacity.py [--scenario digits-mean] [--rules shapley equal] [--seeds 3] [--steps 120000] [--jobs 1]
[--minutes M] [--cheats FILE] [--csv FILE] [--markdown FILE] [--pictures FOLDER]``; half a minute of a core for each training. What is done
is in rows of the CSV file and is not run again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1]))  # what benchmarks share, which processes find by its module's name

from csv_rows import Rows
from held_out import trained_and_played

from proxycoop.envs import Engine, Scenario, scenario
from proxycoop.files import write_bytes, write_text
from proxycoop.training.analysis.summary import told
from proxycoop.training.evaluate import held_out_splits
from proxycoop.training.intervals import Estimate
from proxycoop.training.pages.drawing import house_style
from proxycoop.training.pages.temptation_figures import heat_map
from proxycoop.training.temptations.cheats import gains, tempting

MECHANISMS = ("lottery", "by_gain", "turns", "maximin", "equal_shares", "fair_lottery", "auction", "shareable")
CAPACITIES = (4, 8, 16)
UNLIMITED = "no limit"
RULES = ("shapley", "equal")
BIDS = [{"kind": "bid", "amount": amount} for amount in (1.0, 2.0, 4.0, 8.0)]
ABOUT = ("scenario", "mechanism", "capacity", "rule", "seed", "steps")
MEASURES = ("welfare", "worst_off", "envy", "refused_share", "clean_share", "corrupt_share", "spread", "payments")
COLUMNS = (*ABOUT, *MEASURES)
SHOWN = {"welfare": 1, "worst_off": 1, "spread": 1, "envy": 2, "refused_share": 2, "clean_share": 2, "corrupt_share": 2}
"""Measures of the table, with their decimals."""


@dataclass(frozen=True)
class Task:
    """A training and what is measured of it."""

    scenario: str
    mechanism: str
    capacity: int
    rule: str
    seed: int
    steps: int

    @property
    def tempted(self) -> Scenario:
        """The cooperative in which proxies may do all that a red team tempts with. Under the auction honest proxies bid nothing."""
        conduct = tempting(scenario.load(self.scenario), self.rule).conduct
        assert conduct is not None
        given = conduct.model_dump()
        if self.mechanism == "auction":
            given["levers"] = [*given["levers"], *BIDS[:2]]
        admission = None if self.mechanism == UNLIMITED else {"capacity": self.capacity, "choose": self.mechanism}
        return scenario.load(self.scenario, conduct=given, admission=admission)

    @property
    def played(self) -> Scenario:
        """The cooperative."""
        if self.mechanism == UNLIMITED:
            return scenario.load(self.scenario)
        overrides: dict[str, Any] = {"admission": {"capacity": self.capacity, "choose": self.mechanism}}
        if self.mechanism == "auction":
            overrides["conduct"] = {"levers": BIDS}
        return scenario.load(self.scenario, **overrides)


def measured(task: Task) -> dict[str, Any]:
    """Train, and play on the splits that were held out. Returns a row of the table."""
    torch.set_num_threads(1)
    played = task.played
    data = played.data.model_copy(update={"split_seed": 8 * task.seed})  # every seed trains on eight splits of its own
    home = played.model_copy(update={"data": data})
    about = {one: getattr(task, one) for one in ABOUT}
    return about | trained_and_played(home, played, task.rule, task.seed, task.steps, MEASURES, _between_agents)


def _between_agents(_: Engine, metrics: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The return of the worst-off agent, and how far it is from that of the best-off."""
    returns = metrics["return"]
    return {"worst_off": returns.amin(dim=1), "spread": returns.amax(dim=1) - returns.amin(dim=1)}


def cheats(name: str, rule: str, capacity: int, splits: int, only: Sequence[str] | None) -> str:
    """What each cheat gains over the honest self under each mechanism, as a table in Markdown."""
    columns: dict[str, dict[str, Estimate]] = {}
    for mechanism in tqdm((UNLIMITED, *MECHANISMS), unit=" mechanisms"):
        made = Task(name, mechanism, capacity, rule, 0, 0).tempted
        found = gains(made, rule, only, splits=held_out_splits(splits))
        columns[mechanism] = {gain.cheat: gain.gain for gain in found}
    rows = list(dict.fromkeys(cheat for column in columns.values() for cheat in column))
    lines = [f"| cheat | {' | '.join(f'`{mechanism}`' for mechanism in columns)} |", "|---|" + "---:|" * len(columns)]
    for cheat in rows:
        cells = [told(column[cheat], 1) if cheat in column else "–" for column in columns.values()]
        lines.append(f"| `{cheat}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def estimate(rows: Sequence[dict[str, str]], measure: str, **which: str) -> Estimate:
    """The mean over seeds of a measure, in some rows."""
    found = [float(row[measure]) for row in rows if row[measure] and all(row[key] == value for key, value in which.items())]
    return Estimate.of(torch.tensor(found, dtype=torch.float64))


def tables(rows: Sequence[dict[str, str]]) -> str:
    """Tables in Markdown, one for each rule."""
    lines: list[str] = []
    for rule in dict.fromkeys(row["rule"] for row in rows):
        own = [row for row in rows if row["rule"] == rule]
        lines += [f"**`{rule}`**", "", f"| places | mechanism | {' | '.join(SHOWN).replace('_', ' ')} | seeds |"]
        lines += ["|---:|---|" + "---:|" * (len(SHOWN) + 1)]
        for capacity, mechanism in [("24", UNLIMITED), *((str(b), m) for b, m in product(CAPACITIES, MECHANISMS))]:
            which = {"mechanism": mechanism} | ({} if mechanism == UNLIMITED else {"capacity": capacity})
            found = [estimate(own, measure, **which) for measure in SHOWN]
            n = sum(all(row[key] == value for key, value in which.items()) for row in own)
            if n:
                cells = [told(one, places) if one.mean is not None else "–" for one, places in zip(found, SHOWN.values(), strict=True)]
                lines.append(f"| {capacity} | `{mechanism}` | {' | '.join(cells)} | {n} |")
        lines.append("")
    return "\n".join(lines)


def draw(rows: Sequence[dict[str, str]], folder: Path) -> None:
    """A heat map for each rule: welfare and the worst-off, by mechanism and number of places."""
    for rule in dict.fromkeys(row["rule"] for row in rows):
        own = [row for row in rows if row["rule"] == rule]
        columns = [(measure, str(b)) for measure in ("welfare", "worst_off") for b in CAPACITIES]
        numbers = [[estimate(own, measure, mechanism=m, capacity=b).mean for measure, b in columns] for m in MECHANISMS]
        names = [f"{'worst-off' if measure == 'worst_off' else measure}, {b}" for measure, b in columns]
        with house_style():
            made = heat_map(f"capacity-{rule}", list(MECHANISMS), names, numbers, "reward units an episode")
        write_bytes(folder / f"capacity-{rule}.svg", made.svg)


def main() -> None:
    """Train what is missing, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", default="digits-mean")
    parser.add_argument("--rules", nargs="+", default=list(RULES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=120_000, help="agent-steps of each training")
    parser.add_argument("--jobs", type=int, default=1, help="processes side by side")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no training after that many minutes")
    parser.add_argument("--csv", type=Path, default=Path(__file__).parents[2] / "docs" / "results" / "capacity.csv")
    parser.add_argument("--markdown", type=Path, help="write the tables into this file")
    parser.add_argument("--pictures", type=Path, help="write the heat maps into this folder")
    parser.add_argument("--cheats", type=Path, help="only measure what each cheat gains, and write the table into this file")
    parser.add_argument("--places", type=int, default=8, help="places of a round, with --cheats")
    parser.add_argument("--only", nargs="+", help="names of cheats, with --cheats; all by default")
    parser.add_argument("--draw", action="store_true", help="train nothing; only make tables and pictures of what is there")
    arguments = parser.parse_args()
    if arguments.cheats is not None:
        torch.set_num_threads(1)
        write_text(arguments.cheats, cheats(arguments.scenario, arguments.rules[0], arguments.places, 6, arguments.only))
        return
    tasks = [
        Task(arguments.scenario, mechanism, capacity, rule, seed, arguments.steps)
        for seed in range(arguments.seeds)
        for rule in arguments.rules
        for mechanism, capacity in [(UNLIMITED, 24), *product(MECHANISMS, CAPACITIES)]
    ]
    kept = Rows(arguments.csv, ABOUT, MEASURES)
    if not arguments.draw:
        kept.measure(tasks, measured, arguments.jobs, arguments.minutes)
    rows = kept.read()
    text = tables(rows)
    sys.stdout.write(text)
    if arguments.markdown is not None:
        write_text(arguments.markdown, text)
    if arguments.pictures is not None:
        draw(rows, arguments.pictures)


if __name__ == "__main__":
    main()
