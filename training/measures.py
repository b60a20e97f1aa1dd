"""The tables of results, ``results.csv`` and its like, and their dictionary: what every measure means, and its unit."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from .libraries.registry import find
from .settings import TrainSettings

REWARD, SHARE, UTILITY, VALUE = "reward units", "share, 0 to 1", "utility's unit", "value's unit"
"""Units that several measures have. A utility is minus cross-entropy in nats, or accuracy as a share; a value has the unit of its loss."""


CELL_COLUMNS = ("scenario", "agent", "credit", "seed", "split_seed", "episodes", "evaluation_splits", "scenario_digest", "version", "seats")
"""Columns of ``results.csv`` about every cell. Settings of the training follow, and then the measures."""
EVALUATION = ("episodes", "evaluation_splits")
"""Settings of a cell's evaluation."""
TABLES = ("results.csv", "results-splits.csv", "results-columns.csv")
"""Files that gather all cells: their measures, those on each split of the evaluation, and what the columns mean."""


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
    "best_reply_gap": Measure(
        REWARD,
        "Welfare of best replies under the same rule minus welfare of what was learned: what learning and information cost, not incentive.",
    ),
    "test_cross_entropy": Measure("nats", "Loss of the final model on data that credit never touches; lower is better."),
    "test_welfare": Measure(REWARD, "The gain in utility on data that credit never touches, in reward units, minus everybody's costs."),
    "home_welfare": Measure(REWARD, "Welfare on the data splits of the training; undefined for scripted agents."),
    "home_gap": Measure(
        REWARD, "Welfare on the data splits of the training minus welfare on those of the evaluation, which nobody trained on."
    ),
    "overlap": Measure(
        SHARE,
        "Share of the evaluation's validation and test rows that lie in the train pool, the validation set or the public set of a split of "
        "the training. Data are finite, so other splits deal out the same rows anew; policies see none of them.",
    ),
    "test_accuracy": Measure(SHARE, "Accuracy of the final model on data that credit never touches."),
    "test_utility": Measure(UTILITY, "Utility of the final model on data that credit never touches."),
    "unscreened_utility": Measure(UTILITY, "Utility of the final model on data that credit never touches, had nobody screened."),
    "test_value/<value>": Measure(VALUE, "Loss of the value under the final model, on data that credit never touches; lower is better."),
    "unscreened_value/<value>": Measure(VALUE, "Loss of the value on data that credit never touches, had nobody screened."),
    "value_change/<value>": Measure(VALUE, "Change of the value's loss over the episode, on the probe set of the screening."),
    "worst_value": Measure(
        "share, 1 is all that is allowed",
        "Change over the episode of the loss of the value that fared worst, on the screening's probe sets, as a share of what profiles "
        "allow: the strictest limit; without one, the number of rounds times the strictest tolerance. Below 0 if all improved.",
    ),
    "test_worst_value": Measure(
        "share, 1 is all that is allowed",
        "Change over the episode of the loss of the value that fared worst, on people outside the screening's probe sets, as a share of "
        "what profiles allow in an episode.",
    ),
    "limit_used/<value>": Measure(
        "share, 1 is the whole limit",
        "Largest rise of the value's loss over its start in any round, as a share of the strictest limit on it.",
    ),
    "beyond_limits": Measure(SHARE, "Share of rounds after which a value's loss on its probe set was beyond somebody's limit."),
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
    "sent/<item>": Measure(SHARE, "Share of all proxies' rounds in which the forgery was sent."),
    "pulled/<item>": Measure(
        SHARE, "Share of proxies' rounds in which the lever was pulled; of strict and lax among those whose principal has a tolerance."
    ),
    "declared/larger": Measure(
        SHARE, "Share of rounds in which larger tolerances were declared than are true, of proxies whose principal has a tolerance."
    ),
    "declared/smaller": Measure(
        SHARE, "Share of rounds in which smaller tolerances were declared than are true, of proxies whose principal has a tolerance."
    ),
    "refused_share": Measure(
        SHARE, "Share of the updates that passed the screening and found no place, where a round has room for only some."
    ),
    "envy": Measure(
        "places", "How many more places in a round a proxy had updates for and another proxy had: mean over proxies and rounds."
    ),
    "payments": Measure(REWARD, "What a proxy paid for places under an auction, less what it got back: mean over proxies."),
    "epsilon": Measure("ε", "Loss of privacy of a principal in an episode, of the lot that told most: mean over principals."),
    "own_harm": Measure(
        "tolerances",
        "Rise over the episode of the losses of the values of a proxy's own principal, as multiples of its tolerance for one update, "
        "summed over values: mean over proxies. Below 0 if they fell.",
    ),
    "principal_welfare": Measure(
        REWARD,
        "Return of a proxy, without what reward.loyalty takes, less own_harm: mean over proxies. One tolerance counts as one reward unit.",
    ),
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
"""Every measure of an evaluation by its name; ``<value>`` stands for the name of a value, ``<item>`` for that of a forgery or a lever. They
are means over the episodes of an evaluation and its splits. ``planner_share`` and ``test_cross_entropy`` are derived of others, in
summaries and reports."""

CELL: Mapping[str, Measure] = {
    "scenario": Measure("name", "The scenario."),
    "agent": Measure("name", "The scripted agent, or “learned”."),
    "credit": Measure("name", "The credit rule that pays, with its arguments."),
    "seed": Measure("number", "Seed of the training; empty for scripted agents."),
    "split_seed": Measure("number", "Seed of the first split of the data that the training played on; empty for scripted agents."),
    "episodes": Measure("episodes", "Number of episodes of the evaluation on each of its splits."),
    "evaluation_splits": Measure("numbers", "Seeds of the splits of the data that the evaluation played on."),
    "evaluation_split": Measure("number", "In results-splits.csv: seed of the split of the data on which the row's numbers were measured."),
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
        if found := known.get(column) or known.get(f"{kind}{slash}<value>") or known.get(f"{kind}{slash}<item>"):
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


def training_settings(cell: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a cell's training that it shares with the others of its folder; none for a scripted agent."""
    own = ("format", "agent", *EVALUATION, "seed", "scenario", "credit", "checkpoint_every", "seats")
    return {name: value for name, value in cell.items() if name not in own} if cell["agent"] == "learned" else {}


def columns_of(found: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[str], str]:
    """The columns of ``results.csv`` after :data:`CELL_COLUMNS`, and what they mean.

    Returns:
        The names of the settings of the trainings; those of the measures; and the dictionary of all columns, as CSV; see
        :func:`dictionary`.
    """
    trained: Mapping[str, Any] = next((result["cell"] for result in found if result["cell"]["agent"] == "learned"), {})
    settings = list(dict.fromkeys(name for result in found for name in training_settings(result["cell"])))
    names = sorted({name for result in found for name in result["measures"]})
    return (
        settings,
        names,
        dictionary([*CELL_COLUMNS, "evaluation_split", *settings, *names], trained.get("library", "sb3"), trained.get("algo")),
    )


def tables(found: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The tables of a comparison's results, as CSV by the names of their files, :data:`TABLES`.

    ``results.csv`` has one row a cell, with everything that its numbers depend on, and one column a measure. Columns of settings come
    first: those of every cell, then those of the training, which are empty for scripted agents. So are seed and split of the training.
    ``results-splits.csv`` has a row for each cell and split of the evaluation: who played, the split, and the measures there.
    ``results-columns.csv`` says of every column what it means, and in which unit it is.
    """
    settings, names, meanings = columns_of(found)
    rows: list[list[Any]] = [[*CELL_COLUMNS, *settings, *names]]
    who = ("scenario", "agent", "credit", "seed")
    by_split: list[list[Any]] = [[*who, "evaluation_split", *names]]
    for result in found:
        cell, measures = result["cell"], result["measures"]
        scenario, training = cell["scenario"], training_settings(cell)
        about = [scenario["name"], cell["agent"], cell["credit"], cell.get("seed")]
        rows.append([*about, scenario["data"]["split_seed"] if cell["agent"] == "learned" else None, cell["episodes"]])
        rows[-1] += [" ".join(map(str, cell["evaluation_splits"])), scenario_digest(scenario), result.get("version", "")]
        rows[-1] += [" ".join(cell.get("seats", ())), *(training.get(name) for name in settings)]
        rows[-1] += [measures[name][0] if name in measures else None for name in names]
        for index, split in enumerate(result["splits"]):
            there = [result["by_split"][name][index] if name in result["by_split"] else None for name in names]
            by_split.append([*about, split, *there])
    return dict(zip(TABLES, (_csv(rows), _csv(by_split), meanings), strict=True))


def _csv(rows: Sequence[Sequence[Any]]) -> str:
    """Rows as CSV; ``None`` is an empty cell."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(["" if entry is None else entry for entry in row] for row in rows)
    return text.getvalue()


def scenario_digest(scenario: Mapping[str, Any]) -> str:
    """Twelve digits that tell scenarios apart: the SHA-256 of all settings but the split, as JSON with sorted keys."""
    alike = {**scenario, "data": {**scenario["data"], "split_seed": None}}
    return hashlib.sha256(json.dumps(alike, sort_keys=True).encode()).hexdigest()[:12]
