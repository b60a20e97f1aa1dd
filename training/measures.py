"""What every measure means, and its unit: the dictionary of ``results.csv``, and of all tables of measures."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from .libraries.registry import find
from .settings import TrainSettings

REWARD, SHARE, UTILITY, VALUE = "reward units", "share, 0 to 1", "utility's unit", "value's unit"
"""Units that several measures have. A utility is minus cross-entropy in nats, or accuracy as a share; a value has the unit of its loss."""


class Measure(NamedTuple):
    """What a column of numbers means.

    Attributes:
        unit: Its unit.
        meaning: What it is, in a sentence or two.
    """

    unit: str
    meaning: str


MEASURES: Mapping[str, Measure] = {
    "welfare": Measure(REWARD, "What the cooperative gained in utility, in reward units, minus everybody's costs."),
    "planner_share": Measure(
        SHARE,
        "Mean welfare as a share of that of the planner that measures. The planner that predicts stands in where only that was played.",
    ),
    "test_cross_entropy": Measure("nats", "Loss of the final model on data that credit never touches; lower is better."),
    "test_accuracy": Measure(SHARE, "Accuracy of the final model on data that credit never touches."),
    "test_utility": Measure(UTILITY, "Utility of the final model on data that credit never touches."),
    "unscreened_utility": Measure(UTILITY, "Utility of the final model on data that credit never touches, had nobody screened."),
    "test_value/<value>": Measure(VALUE, "Loss of the value under the final model, on data that credit never touches; lower is better."),
    "unscreened_value/<value>": Measure(VALUE, "Loss of the value on data that credit never touches, had nobody screened."),
    "value_change/<value>": Measure(VALUE, "Change of the value's loss over the episode, on the probe set of the screening."),
    "clean_share": Measure(SHARE, "Share of the clean lots that were contributed."),
    "corrupt_share": Measure(SHARE, "Share of the corrupt lots that were contributed. Where there are none, files hold 0 and tables –."),
    "admitted_share": Measure(
        SHARE, "Share of contributed lots that passed screening. Where none was contributed, files hold 0 and tables –."
    ),
    "kept": Measure(
        SHARE, "Norm of what entered over the norm of the update: mean over admitted updates, below 1 where a filter changed them."
    ),
    "violations": Measure(SHARE, "Share of rounds whose applied step broke somebody's profile, to first order."),
    "realised_violations": Measure(SHARE, "Share of rounds in which a value's loss truly rose beyond somebody's tolerance."),
    "pearson_shapley": Measure(
        "correlation, −1 to 1",
        "Correlation, over agents, of an episode's credit with the exact Shapley value; undefined if all get the same.",
    ),
    "jain": Measure(
        "index, 1/N to 1", "Jain's index: how evenly cumulative credit is spread, with negative credit as 0; 1 where all get the same."
    ),
    "gini": Measure("index, 0 to 1", "Gini coefficient of cumulative credit, with negative credit as 0; 0 where all get the same."),
    "imbalance": Measure(REWARD, "Sum of credit minus sum of the gains v(N); 0 for an efficient rule."),
    "split_gain": Measure(REWARD, "What a principal gains by dealing its lots out to two names, over having one name."),
    "copy_gain": Measure(REWARD, "What a principal gains by offering the same lots under two names, over having one name."),
    "return": Measure(REWARD, "Sum of the rewards of a proxy: mean over proxies."),
    "cost": Measure(REWARD, "Sum of the costs and fines of a proxy: mean over proxies."),
    "utility": Measure(UTILITY, "Utility after the last round, on the validation set from which credit is computed."),
    "gain": Measure(UTILITY, "Change of the utility over the episode, on the validation set."),
    "revenue": Measure("minor units of the currency", "What the cooperative earned in the episode."),
    "paid": Measure("minor units of the currency", "What a proxy was paid of the revenue: mean over proxies."),
    **{
        f"{which}/{name}": Measure("satisfaction", f"{meaning} {of}")
        for which, of in (
            ("negotiated", "With the negotiated sets of updates, mean over rounds."),
            ("unanimous", "With the sets that are admissible to everybody, mean over rounds."),
        )
        for name, meaning in (
            ("total", "Sum of the principals' satisfaction."),
            ("worst_group", "Mean satisfaction of the holders of the profile that fares worst."),
            ("percentile_20", "20th percentile of the principals' satisfaction."),
            ("gini", "Gini coefficient of the principals' satisfaction, 0 where all have the same."),
            ("nash_welfare", "Geometric mean of the principals' satisfaction; 0 if anybody's is at most 0."),
        )
    },
    "evaluations": Measure("coalitions", "Coalitions that the credit rule evaluated in a round."),
    "credit_microseconds": Measure("microseconds", "Time of the credit rule per round and cooperative, coalition evaluations included."),
}
"""Every measure of an evaluation by its name; ``<value>`` stands for the name of a value. They are means over the episodes of an
evaluation. ``planner_share`` and ``test_cross_entropy`` are derived of others, in summaries and reports."""

CELL: Mapping[str, Measure] = {
    "scenario": Measure("name", "The scenario."),
    "agent": Measure("name", "The scripted agent, or “learned”."),
    "credit": Measure("name", "The credit rule that pays, with its arguments."),
    "seed": Measure("number", "Seed of the training and of its evaluation."),
    "split_seed": Measure("number", "Seed of the split of the data into training, validation and test sets."),
    "episodes": Measure("episodes", "Number of episodes of the evaluation."),
    "scenario_digest": Measure(
        "12 hexadecimal digits", "A digest of all settings of the scenario but the split. Equal scenarios have equal ones."
    ),
    "version": Measure("version", "Version of proxycoop that wrote the result."),
    "seats": Measure("names", "Agents that played some of the seats, in training and evaluation, such as 0=none; else empty."),
}
"""Columns of ``results.csv`` that say what a row is about."""

_FOREIGN = Measure("unknown", "This version of proxycoop does not know the column: another version wrote it.")


def meaning_of(column: str, library: str = "sb3", algo: str | None = None) -> Measure:
    """What a measure or another column of ``results.csv`` means.

    Args:
        column: The column's name.
        library: The library that trained, whose settings may be columns.
        algo: Its algorithm; the library's first if not given.
    """
    kind, slash, _ = column.partition("/")
    for known in (CELL, MEASURES):
        if found := known.get(column) or known.get(f"{kind}{slash}<value>"):
            return found
    try:
        settings: type[TrainSettings] = find(library, algo)[1].settings
    except ValueError:  # results of a version that had other libraries
        return _FOREIGN
    if column in settings.model_fields:
        return Measure("setting", f"{settings.model_fields[column].description} Empty for scripted agents.")
    return _FOREIGN


def dictionary(columns: Iterable[str], library: str = "sb3", algo: str | None = None) -> str:
    """The dictionary of a table, as CSV: each column with its unit and its meaning. See :func:`meaning_of`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("column", *Measure._fields))
    writer.writerows((column, *meaning_of(column, library, algo)) for column in columns)
    return text.getvalue()
