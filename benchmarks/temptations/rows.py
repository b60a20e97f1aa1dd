"""The table of trainings, a row each: reading, writing, and means over seeds."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # what benchmarks share, which processes find by its module's name

from csv_rows import Rows
from trials import ABOUT, ITEMS, MEASURES, SCENARIOS, TRIALS, Same

from proxycoop.training.intervals import Estimate

COLUMNS = (*ABOUT, *MEASURES, *ITEMS)
NUMBERS: Mapping[str, type[int] | type[float]] = {"loyalty": float, "seed": int, "steps": int, **dict.fromkeys((*MEASURES, *ITEMS), float)}


@dataclass(frozen=True)
class Table(Rows):
    """The trainings that are done."""

    about: Sequence[str] = ABOUT
    measures: Sequence[str] = (*MEASURES, *ITEMS)

    def read(self) -> list[dict[str, str]]:
        """The rows of the CSV file; none if there is no file. What a row lacks is empty.

        Raises:
            SystemExit: If it cannot be read, is not such a table, or a number in it is none. The message says where and why.
        """
        try:
            rows = [dict.fromkeys(COLUMNS, "") | {"loyalty": "0.0"} | row for row in super().read()]
            for line, row in enumerate(rows, 2):
                _require(row, line)
        except (OSError, ValueError) as error:
            raise SystemExit(f"--csv {self.path}: {error}") from error
        return rows

    def done(self) -> set[tuple[str, ...]]:
        """What is trained already. Rows of older files that lack what is declared are made anew."""
        return {self.key(row) for row in self.read() if row["trial"] != "values" or row["declared/larger"]}

    def place(self, row: Mapping[str, Any]) -> tuple[Any, ...]:
        """By scenario, trial, rule and seed, in the order of the trials."""
        order = {name: i for i, name in enumerate((*SCENARIOS, *TRIALS))}
        return order[row["scenario"]], order[row["trial"]], row["rule"], float(row["loyalty"]), int(row["seed"])


def _require(row: Mapping[str, str], line: int) -> None:
    """Refuse a row that no training wrote."""
    if None in row:
        raise ValueError(f"line {line} has more cells than the header")
    if others := [name for name in row if name not in COLUMNS]:
        raise ValueError(f"it has a column {others[0]!r}, which is none of {', '.join(COLUMNS)}")
    if absent := [name for name in (*ABOUT, "welfare") if not row[name]]:
        raise ValueError(f"line {line} has no {', '.join(absent)}")
    if row["scenario"] not in SCENARIOS or row["trial"] not in TRIALS:
        raise ValueError(f"line {line} is of {row['scenario']}, {row['trial']}: allowed are {[*SCENARIOS]}, {[*TRIALS]}")
    for name, number in NUMBERS.items():
        try:
            number(row[name] or 0)
        except ValueError:
            raise ValueError(f"line {line}: {name} is {row[name]!r}, which is not a number") from None


def of_which(row: Mapping[str, str], **which: object) -> bool:
    """Whether a row is of a scenario, trial, rule, …, as named."""
    return all(row[name] == str(value) for name, value in which.items())


def of(rows: Sequence[dict[str, str]], measure: str, **which: object) -> Estimate:
    """The mean of a measure over seeds, with its 95 % interval (Student), in some rows."""
    found = [row[measure] for row in rows if of_which(row, **which) and row[measure]]
    return Estimate.of(torch.tensor([float(one) for one in found], dtype=torch.float64))


def trained_as(same: Same, name: str, trial: str, rule: str) -> str:
    """The rule whose trainings stand for a rule in a trial: the first one that pays the same there."""
    return same.get((name, trial), {}).get(rule, rule)


def mean(rows: Sequence[dict[str, str]], same: Same, measure: str, name: str, trial: str, rule: str) -> float | None:
    """The mean of a measure over the trainings that stand for a rule; ``None`` if there are none."""
    return of(rows, measure, scenario=name, trial=trial, rule=trained_as(same, name, trial, rule), loyalty=0.0).mean


def damage(rows: Sequence[dict[str, str]], same: Same, name: str, trial: str, rule: str, measure: str) -> Estimate:
    """A measure with a temptation less the same without, over the seeds of which both trainings are there; seeds are paired."""
    tempted, honest = (
        {
            row["seed"]: float(row[measure])
            for row in rows
            if of_which(row, scenario=name, trial=one, rule=trained_as(same, name, one, rule), loyalty=0.0)
        }
        for one in (trial, "honest")
    )
    both = sorted(tempted.keys() & honest.keys())
    return Estimate.of(torch.tensor([tempted[seed] - honest[seed] for seed in both], dtype=torch.float64))


def rules_in(rows: Sequence[dict[str, str]], same: Same, name: str, trial: str) -> list[str]:
    """The rules of a trial, by welfare, the highest first; without those that pay like another one."""
    found = {row["rule"] for row in rows if of_which(row, scenario=name, trial=trial, loyalty=0.0)}
    found -= {rule for rule, first in same.get((name, trial), {}).items() if rule != first}
    return sorted(found, key=lambda rule: -(of(rows, "welfare", scenario=name, trial=trial, rule=rule, loyalty=0.0).mean or 0.0))
