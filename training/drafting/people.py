"""Whom the values of a drafted scenario protect: groups from protected columns, values on them, and how many probe rows there are."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...envs.data import Bools, Dataset, Group
from ...envs.data.tables.columns import MISSING
from ...envs.values import VALUES

MOST_VALUES = 4
"""Values that are proposed at most."""
LOW = 0.25
"""The group of a protected number are those below this quantile."""
MOST_PROBE_ROWS, _LEAST_PROBE_ROWS = 100, 15
_PROBE_SHARE = 0.25  # of all rows, that probe sets may take
_STRATUM_SHARE = 0.5  # of a stratum's rows
_FEWEST_OF_A_CLASS = 5  # expected in the probe set of a group
_FEWEST_ROWS_OF_A_CLASS, _LEAST_SHARE_OF_A_CLASS = 40, 0.01
_LEAST_SHARE = 0.04  # of all rows, that a group has
_SHOWN = 5  # levels that are named
_Candidate = tuple[str, dict[str, Any], str]


@dataclass
class People:
    """Groups and values, with the reason for each.

    Attributes:
        groups: The groups, by name, as a scenario has them.
        values: The values, by name, as a scenario has them.
        why: The reason for each group and value, by its name: groups and values have no name in common.
        probe_rows: Rows of each stratum of a probe set.
        left_out: What was not proposed, and why, one sentence each.
    """

    groups: dict[str, dict[str, Any]] = field(default_factory=dict)
    values: dict[str, dict[str, Any]] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)
    probe_rows: int = MOST_PROBE_ROWS
    left_out: list[str] = field(default_factory=list)


def propose(dataset: Dataset, words: Sequence[str], numbers: Sequence[str], most: int) -> People:
    """Propose groups and values.

    Args:
        dataset: The data.
        words: Protected columns that are attributes.
        numbers: Protected columns that are columns of numbers.
        most: Largest number of values.
    """
    people, rare = People(), rarest(dataset)
    rare_name = dataset.class_names[rare]
    share = float((dataset.labels == rare).mean())
    losses, gaps = list[_Candidate](), list[_Candidate]()
    for name, group, why in _groups(dataset, words, numbers, people.left_out):
        people.groups[name], people.why[name] = group, why
        losses.append(
            (f"{name}_loss", {"kind": "group_loss", "group": name}, f"log loss of {name}, in nats: how well the model serves them")
        )
        gap = {"kind": "disparity", "group": name, "label": rare_name}
        gaps.append((f"{name}_gap", gap, f"by how much the mean score for {rare_name!r} of {name} differs from that of all others"))
    missed = f"share of the rows of class {rare_name!r} that the model misses; it is the rarest class, with {share:.0%} of the rows"
    candidates: list[_Candidate] = [("missed", {"kind": "miss_rate", "label": rare_name}, missed)]
    candidates += [*losses[:2], *gaps[:1], *losses[2:], *gaps[1:]]
    if not losses and len(dataset.class_names) == 2:
        other = dataset.class_names[1 - rare]
        false = f"share of the rows of class {other!r} that the model takes for {rare_name!r}"
        candidates.append(("false_alarm", {"kind": "miss_rate", "label": other}, false))
    for name, value, why in candidates:
        if len(people.values) == min(most, MOST_VALUES):
            people.left_out.append(f"value {name}: there are {len(people.values)} already")
            continue
        tried = people.values | {name: value}
        rows, lack = _probe_rows(dataset, people.groups, tried)
        if rows < _LEAST_PROBE_ROWS or lack:
            people.left_out.append(f"value {name}: {lack or f'too few rows for a probe set of {_LEAST_PROBE_ROWS} rows a stratum'}")
            continue
        people.values, people.probe_rows = tried, rows
        people.why[name] = why
    used = {of for value in people.values.values() if (of := value.get("group"))}
    people.groups = {name: group for name, group in people.groups.items() if name in used}
    return people


def rarest(dataset: Dataset) -> int:
    """The class with the fewest rows among those that have enough of them to be protected; of several, the last."""
    counts = np.bincount(dataset.labels, minlength=len(dataset.class_names))
    enough = counts >= max(_FEWEST_ROWS_OF_A_CLASS, _LEAST_SHARE_OF_A_CLASS * counts.sum())
    counts = np.where(enough | (counts == counts.max()), counts, counts.sum() + 1)
    return int(len(counts) - 1 - np.argmin(counts[::-1]))


def _groups(
    dataset: Dataset, words: Sequence[str], numbers: Sequence[str], left_out: list[str]
) -> Iterator[tuple[str, dict[str, Any], str]]:
    """A group for each protected column: its name, its settings and the reason."""
    n_rows, taken = len(dataset.labels), set[str]()
    for attribute in words:
        levels = [level for level in dataset.levels(attribute) if level != MISSING]
        large = [level for level in levels if (dataset.attribute(attribute) == level).sum() >= _LEAST_SHARE * n_rows]
        if len(large) < 2:
            left_out.append(f"a group of {attribute}: only {len(large)} of its levels has {_LEAST_SHARE:.0%} of the rows")
            continue
        if small := [level for level in levels if level not in large]:
            shares = [f"{level} {(dataset.attribute(attribute) == level).mean():.1%}" for level in small[:_SHOWN]]
            more = f" and {len(small) - _SHOWN} more levels" if len(small) > _SHOWN else ""
            left_out.append(f"a group of {attribute}: {', '.join(shares)}{more}: too few rows, a group has at least {_LEAST_SHARE:.0%}")
        share = float((dataset.attribute(attribute) == large[-1]).mean())
        why = f"the smallest level of {attribute} with at least {_LEAST_SHARE:.0%} of the rows: it has {share:.0%}"
        yield _name(f"{attribute}_{large[-1]}", taken), {"attribute": attribute, "equals": large[-1]}, why
    for column in numbers:
        group = {"column": column, "below": LOW}
        share = float(Group.model_validate(group).members(dataset).mean())
        if share < _LEAST_SHARE:
            left_out.append(f"a group of {column}: {share:.0%} of the rows are below its quantile {LOW:g}")
            continue
        edge = float(np.nanquantile(dataset.features[:, dataset.column(column)], LOW))
        yield _name(f"{column}_low", taken), group, f"the lowest quarter of {column}: below {edge:g}, {share:.0%} of the rows"


def _name(text: str, taken: set[str]) -> str:
    """A name of letters that scenarios allow, not taken yet."""
    base = re.sub(r"[^A-Za-z0-9_-]+", "_", text).strip("_")[:28] or "group"
    name = next(one for i in range(1, len(taken) + 2) if (one := base if i == 1 else f"{base}_{i}") not in taken)
    taken.add(name)
    return name


def _probe_rows(dataset: Dataset, groups: Mapping[str, Mapping[str, Any]], values: Mapping[str, Mapping[str, Any]]) -> tuple[int, str]:
    """How many rows each stratum's probe set can have, and what a value lacks, in words; empty if nothing."""
    members = {name: Group.model_validate(group).members(dataset) for name, group in groups.items()}
    strata = list[Bools]()
    for settings in values.values():
        kind, rest = settings["kind"], {key: one for key, one in settings.items() if key != "kind"}
        try:
            strata += VALUES[kind](**rest).strata(dataset, members)
        except ValueError as error:  # a level without rows of a class
            return 0, str(error)
    n_drawn = 2 * len(strata)  # a probe set and a probe test set each, which may all draw from the same rows
    least = min(int(stratum.sum()) for stratum in strata)
    rows = min(MOST_PROBE_ROWS, int(_PROBE_SHARE * len(dataset.labels) / n_drawn), int(_STRATUM_SHARE * least / n_drawn))
    for settings in values.values():
        if settings["kind"] == "group_loss":
            counts = np.sort(np.bincount(dataset.labels[members[settings["group"]]], minlength=2))[::-1]
            if rows * counts[1] / counts.sum() < _FEWEST_OF_A_CLASS:
                return rows, f"{rows} probe rows of the group would hold fewer than {_FEWEST_OF_A_CLASS} of a second class"
    return rows, ""
