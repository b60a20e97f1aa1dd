"""Summarise a comparison. Every measure is a mean over seeds with its interval, in tables for the command line and for GitHub."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import rich.box
import rich.table
import torch
from numpy.typing import NDArray
from rich.text import Text
from torch import Tensor

from ...text import one_line
from ..compare import BASELINES, CLASSIC_RULES
from ..evaluate import Estimate

UNDEFINED = "–"
Floats = NDArray[np.float64]
_UNKNOWN = Estimate(None, None)


@dataclass(frozen=True)
class Row:
    """Results of one scripted agent, or of the proxies that learned under one rule, over all seeds of a scenario.

    Attributes:
        name: The scripted agent's name, or the credit rule's.
        learned: Whether the row is of proxies that learned.
        seeds: The seeds, ascending.
        results: The seeds' results, as :func:`~proxycoop.training.compare.results` reads them.
        measures: Means over seeds with 95 % Student-t intervals. With one seed, the intervals are over its episodes.
    """

    name: str
    learned: bool
    seeds: tuple[int, ...]
    results: tuple[Mapping[str, Any], ...]
    measures: Mapping[str, Estimate]

    @property
    def label(self) -> str:
        """Its name in lists that hold scripted and learned agents."""
        return f"learned, {self.name}" if self.learned else self.name

    def measure(self, name: str) -> Estimate:
        """The estimate of a measure; undefined if no seed has it."""
        return self.measures.get(name, _UNKNOWN)

    def mean(self, name: str) -> float:
        """The mean of a measure, NaN where undefined."""
        mean = self.measure(name).mean
        return math.nan if mean is None else mean

    def sample(self, name: str) -> Tensor:
        """A measure of each seed, ``(n_seeds,)``, NaN where undefined."""
        return _sample(self.results, name)

    def series(self, name: str) -> Floats:
        """A series for each seed, ``(n_seeds, …)``; NaN where a number is undefined."""
        return np.array([result["series"][name] for result in self.results], dtype=np.float64)

    def mean_series(self, name: str) -> Floats:
        """The mean of a series over the seeds that have a number there, ``(…)``; NaN where no seed has one."""
        numbers = self.series(name)
        known = ~np.isnan(numbers)
        total, count = np.where(known, numbers, 0.0).sum(axis=0), known.sum(axis=0)
        mean: Floats = np.where(count > 0, total / np.maximum(count, 1), math.nan)
        return mean

    def curve(self, name: str) -> tuple[Floats, Floats]:
        """A learning curve: agent-steps of the first seed, as far as all seeds got, ``(n,)``, and a metric there, ``(n_seeds, n)``."""
        curves = [([u["agent_steps"] for u in result["curve"]], [u[name] for u in result["curve"]]) for result in self.results]
        reached = min(steps[-1] for steps, _ in curves)
        at = np.array([step for step in curves[0][0] if step <= reached], dtype=np.float64)
        return at, np.array([np.interp(at, steps, values) for steps, values in curves])


@dataclass(frozen=True)
class Table:
    """One scenario's rows: scripted agents first, then learned ones.

    Attributes:
        scenario: The scenario as plain data, with the split of the first seed.
        rows: The rows.
    """

    scenario: Mapping[str, Any]
    rows: tuple[Row, ...]

    @property
    def name(self) -> str:
        """The scenario's name."""
        return str(self.scenario["name"])

    @property
    def scripted(self) -> tuple[Row, ...]:
        """Rows of scripted agents."""
        return tuple(row for row in self.rows if not row.learned)

    @property
    def learned(self) -> tuple[Row, ...]:
        """Rows of learned agents, one a credit rule."""
        return tuple(row for row in self.rows if row.learned)

    @property
    def best(self) -> Row | None:
        """The learned row with the highest welfare, if any has one."""
        known = [row for row in self.learned if not math.isnan(row.mean("welfare"))]
        return max(known, key=lambda row: row.mean("welfare"), default=None)

    def agent(self, name: str) -> Row | None:
        """The row of a scripted agent, if there is one."""
        return next((row for row in self.scripted if row.name == name), None)

    @property
    def seeds(self) -> tuple[int, ...]:
        """All seeds of any row."""
        return tuple(sorted({seed for row in self.rows for seed in row.seeds}))

    @property
    def meaning_of_intervals(self) -> str:
        """What the intervals mean, in words."""
        single = [row.label for row in self.rows if len(row.seeds) == 1]
        over_seeds = "± is the half-width of a 95 % Student-t interval over seeds"
        if not single:
            return f"{over_seeds}."
        over_episodes = "± is the half-width of a 95 % interval over the episodes of one evaluation, and says nothing about other seeds"
        if len(single) == len(self.rows):
            return f"One seed only: {over_episodes}."
        return f"{over_seeds}; with one seed only ({', '.join(single)}), {over_episodes}."


@dataclass(frozen=True)
class Column:
    """A column of the summary.

    Attributes:
        title: Its heading, unit included.
        short: A shorter heading, for narrow tables.
        measure: The measure that it shows.
        kind: ``share`` is shown in per cent, ``loss`` with three decimals, ``correlation`` with two, ``reward`` with as many as its
            size needs.
        meaning: What it means, in one sentence.
        learned_only: Whether it is left blank for scripted agents.
    """

    title: str
    short: str
    measure: str
    kind: Literal["share", "loss", "correlation", "reward"]
    meaning: str
    learned_only: bool = False


def summarise(results: Sequence[Mapping[str, Any]]) -> list[Table]:
    """Gather results over seeds, one table a scenario.

    Two measures are added. ``test_cross_entropy`` is −``test_utility``, in nats, where the utility is ``neg_log_loss``. ``planner_share``
    is the ratio of mean welfare to the planner's, over the seeds that both have. Its interval is linearised: that of the mean of
    (w − ratio·p) / mean p over seeds. It is undefined if the planner's welfare is not positive. ``admitted_share`` becomes undefined if
    nothing was contributed.

    Args:
        results: Cells, as :func:`~proxycoop.training.compare.results` reads them.

    Returns:
        Tables in the order of the scenarios' first results.
    """
    by_scenario: dict[str, dict[tuple[bool, str], list[Mapping[str, Any]]]] = {}
    for result in results:
        cell = result["cell"]
        learned = cell["agent"] == "learned"
        rows = by_scenario.setdefault(str(cell["scenario"]["name"]), {})
        rows.setdefault((learned, str(cell["credit"] if learned else cell["agent"])), []).append(_with_derived(result))
    made = []
    for rows in by_scenario.values():
        for row in rows.values():
            row.sort(key=lambda result: result["cell"]["seed"])
        planner = rows.get((False, "planner"), [])
        ordered = sorted(rows, key=_place)
        made.append(
            Table(rows[ordered[0]][0]["cell"]["scenario"], tuple(_row(name, kind, rows[kind, name], planner) for kind, name in ordered))
        )
    return made


def columns(table: Table) -> tuple[Column, ...]:
    """The columns of a scenario's summary."""
    accuracy = table.scenario["utility"] == "accuracy"
    return (
        Column("test accuracy, %", "accuracy %", "test_utility", "share", "Accuracy of the final model on data that credit never touches.")
        if accuracy
        else Column(
            "test cross-entropy, nats",
            "test loss",
            "test_cross_entropy",
            "loss",
            "Loss of the final model on data that credit never touches; lower is better.",
        ),
        Column(
            "welfare, reward units",
            "welfare",
            "welfare",
            "reward",
            "What the cooperative gained in utility, in reward units, minus everybody's costs.",
        ),
        Column(
            "of planner's welfare, %",
            "planner %",
            "planner_share",
            "share",
            "Mean welfare as a share of that of the planner, which knows the true gain and is near an upper bound.",
        ),
        Column("clean, %", "clean %", "clean_share", "share", "Share of the clean lots that were contributed."),
        Column("corrupt, %", "corrupt %", "corrupt_share", "share", "Share of the corrupt lots that were contributed."),
        Column("admitted, %", "admitted %", "admitted_share", "share", "Share of contributed lots that passed screening."),
        Column(
            "violations, %",
            "broken %",
            "violations",
            "share",
            "Share of rounds whose applied step broke somebody's profile, to first order.",
        ),
        Column(
            "Pearson with Shapley",
            "Pearson",
            "pearson_shapley",
            "correlation",
            "Correlation, over agents, of an episode's credit with the exact Shapley value; undefined if all get the same.",
            learned_only=True,
        ),
    )


def cells(table: Table, *, decimals: int = 1) -> list[list[tuple[str, str]]]:
    """The summary as text: for each row and column the mean and the half-width, ``""`` if there is none.

    Args:
        table: The table.
        decimals: Number of decimals of shares, which are in per cent.
    """
    described = columns(table)
    places = [_places(column.kind, [row.measure(column.measure) for row in table.rows], decimals) for column in described]
    made = []
    for row in table.rows:
        estimates = [_UNKNOWN if column.learned_only and not row.learned else row.measure(column.measure) for column in described]
        made.append(
            [spell(estimate, n, percent=column.kind == "share") for column, estimate, n in zip(described, estimates, places, strict=True)]
        )
    return made


def spell(estimate: Estimate, places: int, *, percent: bool = False) -> tuple[str, str]:
    """Mean and half-width as text with ``places`` decimals, in per cent if asked; ``–`` and ``""`` where undefined."""
    scale = 100 if percent else 1
    if estimate.mean is None:
        return UNDEFINED, ""
    mean = f"{scale * estimate.mean:z.{places}f}".replace("-", "−")
    return mean, "" if estimate.half_width is None else f"{scale * estimate.half_width:.{places}f}"


def told(estimate: Estimate, places: int, *, percent: bool = False) -> str:
    """:func:`spell`, with its interval and its per cent sign, for a sentence."""
    text = "\u00a0±\u00a0".join(part for part in spell(estimate, places, percent=percent) if part)
    return f"{text}\u00a0%" if percent and estimate.mean is not None else text


def console_table(table: Table) -> rich.table.Table:
    """The summary for the command line. It is about 90 letters wide. On a narrower terminal it is folded, never cut."""
    drawn = rich.table.Table(
        title=Text(one_line(table.name)),
        caption=Text(one_line(table.meaning_of_intervals)),
        box=rich.box.SIMPLE_HEAD,
        pad_edge=False,
        padding=0,
    )
    drawn.add_column("agents", overflow="fold")
    for column in columns(table):
        drawn.add_column(column.short.replace(" ", "\n"), justify="right", overflow="fold")
    group = None
    for row, texts in zip(table.rows, cells(table, decimals=0), strict=True):
        if row.learned != group:
            group = row.learned
            drawn.add_section()
            drawn.add_row(Text("learned" if group else "scripted", style="italic dim"))
        drawn.add_row(
            Text(textwrap.indent(wrapped(row.name, 19), " ")), *(Text(" ±".join(part for part in text if part)) for text in texts)
        )
    return drawn


def markdown(table: Table) -> str:
    """The summary as a GitHub markdown table, without a heading."""
    described = columns(table)
    lines = ["| agents | " + " | ".join(column.title for column in described) + " |", "|---|" + "---:|" * len(described)]
    for row, texts in zip(table.rows, cells(table), strict=True):
        # GitHub reads a backslash before punctuation as "take it literally"; underscores inside words are literal already
        name = re.sub(r"[\\`*\[\]|~$<>&#!]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\\g<0>", one_line(row.label))
        lines.append(f"| {name} | " + " | ".join(" ± ".join(part for part in text if part) for text in texts) + " |")
    return "\n".join(lines) + "\n"


def wrapped(name: str, width: int) -> str:
    """A name on as many lines as it needs, up to 8; one blank if it is empty."""
    return "\n".join(_Wrapper(width, max_lines=8, placeholder=" …").wrap(one_line(name))) or " "


class _Wrapper(textwrap.TextWrapper):
    """Breaks lines at spaces and after hyphens, and within a rule's arguments after brackets and commas."""

    wordsep_re = re.compile(r"(\s+)|(?<=[-(\[,])(?=[^\s\d])")


def interval(estimate: Estimate) -> tuple[float, float]:
    """The ends of an estimate's interval. Both are the mean if there is no interval, and 0 if there is no mean."""
    mean, half_width = estimate.mean or 0.0, estimate.half_width or 0.0
    return mean - half_width, mean + half_width


def difference(a: Row, b: Row, measure: str, measure_of_b: str | None = None) -> Estimate:
    """A measure of one row minus that (or another) of a second row, over the seeds that both have.

    The rows are paired by seed, because rows of a seed share their data split and cooperatives. So this interval is far narrower than
    the intervals of the two rows.
    """
    theirs = dict(zip(b.seeds, b.sample(measure_of_b or measure).tolist(), strict=True))
    ours = zip(a.seeds, a.sample(measure).tolist(), strict=True)
    return Estimate.of(torch.tensor([mine - theirs[seed] for seed, mine in ours if seed in theirs], dtype=torch.float64))


def _places(kind: str, estimates: Sequence[Estimate], decimals: int) -> int:
    """Decimals of a column."""
    if kind != "reward":
        return {"share": decimals, "loss": 3, "correlation": 2}[kind]
    largest = max((abs(estimate.mean) for estimate in estimates if estimate.mean is not None), default=0.0)
    return 1 if largest == 0 else min(max(2 - math.floor(math.log10(largest)), 0), 6)


def _place(key: tuple[bool, str]) -> tuple[bool, int, str]:
    """The sorting key of a row: scripted before learned; in each group the known names in their order, then the others by name."""
    learned, name = key
    known = CLASSIC_RULES if learned else BASELINES
    return learned, known.index(name) if name in known else len(known), name


def _with_derived(result: Mapping[str, Any]) -> Mapping[str, Any]:
    """A result with measures that are derived from others of the same evaluation."""
    measures = dict(result["measures"])
    if result["cell"]["scenario"]["utility"] == "neg_log_loss" and measures.get("test_utility", [None])[0] is not None:
        mean, half_width = measures["test_utility"]
        measures["test_cross_entropy"] = [-mean, half_width]
    if measures.get("clean_share", [None])[0] == 0 and measures.get("corrupt_share", [None])[0] == 0:
        measures["admitted_share"] = [None, None]  # nothing was contributed
    return {**result, "measures": measures}


def _row(name: str, learned: bool, results: Sequence[Mapping[str, Any]], planner: Sequence[Mapping[str, Any]]) -> Row:
    measures = {}
    for measure in sorted({measure for result in results for measure in result["measures"]}):
        if len(results) == 1:
            measures[measure] = Estimate(*results[0]["measures"][measure])
        else:
            measures[measure] = Estimate.of(_sample(results, measure))
    measures["planner_share"] = _planner_share(results, planner)
    return Row(name, learned, tuple(result["cell"]["seed"] for result in results), tuple(results), measures)


def _planner_share(results: Sequence[Mapping[str, Any]], planner: Sequence[Mapping[str, Any]]) -> Estimate:
    """See :func:`summarise`."""
    theirs = {result["cell"]["seed"]: result for result in planner}
    shared = [result for result in results if result["cell"]["seed"] in theirs]
    w = _sample(shared, "welfare")
    p = _sample([theirs[result["cell"]["seed"]] for result in shared], "welfare")
    w, p = w[~(w + p).isnan()], p[~(w + p).isnan()]
    if len(p) == 0 or p.mean() <= 0:
        return _UNKNOWN
    ratio = w.mean() / p.mean()
    return Estimate(float(ratio), Estimate.of((w - ratio * p) / p.mean()).half_width)


def _sample(results: Sequence[Mapping[str, Any]], measure: str) -> Tensor:
    means = [result["measures"].get(measure, [None])[0] for result in results]
    return torch.tensor([math.nan if mean is None else mean for mean in means], dtype=torch.float64)
