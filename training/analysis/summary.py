"""Summarise a comparison. Every measure is a mean with its interval, in tables for the command line and for GitHub.

A measure of learned agents is a matrix, training seeds by evaluation splits. Its interval covers both, and so does that of a difference of
two rows, which is the mean of the difference of their matrices; see :mod:`~proxycoop.training.intervals`. Scripted agents have one row of
the matrix, which stands for all seeds.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import rich.box
import rich.table
import torch
from numpy.typing import NDArray
from rich.text import Text
from torch import Tensor

from ...text import one_line, shortened
from ..compare import BASELINES, CLASSIC_RULES, RULE_BOUND
from ..evaluate import Estimate
from ..measures import MEASURES
from .ranking import Ranking, rank

UNDEFINED = "–"
REFERENCES = ("measuring_planner", "planner")
"""Scripted agents with whose welfare others are compared: the first that a comparison has. The planner that predicts stands in where the
one that measures was not played."""
Floats = NDArray[np.float64]
_UNKNOWN = Estimate(None, None)
Kind = Literal["share", "loss", "correlation", "reward"]


@dataclass(frozen=True)
class Row:
    """Results of one scripted agent, or of the proxies that learned under one rule, over all seeds and evaluation splits of a scenario.

    Attributes:
        name: The scripted agent's name, or the credit rule's.
        learned: Whether the row is of proxies that learned.
        seeds: The seeds of the trainings, ascending; none for scripted agents.
        results: The seeds' results, as :func:`~proxycoop.training.compare.results` reads them; one for scripted agents.
        measures: Means with 95 % intervals over seeds and splits. With one seed, and for scripted agents, they are over splits alone; with
            one split over seeds alone; with one of both over the episodes.
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
        """A measure of each seed, ``(n_seeds,)``, NaN where undefined; of scripted agents the one that there is, ``(1,)``."""
        return _sample(self.results, name)

    def matrix(self, name: str) -> Tensor:
        """A measure of each seed on each split of the evaluation, ``(n_seeds, n_splits)``, NaN where undefined."""
        return _matrix(self.results, name)

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
        """The learned row with the highest mean welfare, if any has one. :func:`ranked` says whether that is certain."""
        order = ranked(self.learned, "welfare").order
        return self.learned[order[0]] if order else None

    def agent(self, name: str) -> Row | None:
        """The row of a scripted agent, if there is one."""
        return next((row for row in self.scripted if row.name == name), None)

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of all trainings."""
        return tuple(sorted({seed for row in self.rows for seed in row.seeds}))

    @property
    def meaning_of_intervals(self) -> str:
        """What the intervals mean, in words."""
        splits = max((len(row.results[0].get("splits", ())) for row in self.rows), default=0)
        single = [row.label for row in self.learned if len(row.seeds) == 1]
        several = [row for row in self.learned if len(row.seeds) > 1]
        where = "evaluation splits" if splits > 1 else "the episodes of one evaluation"
        if not several:
            if not single:
                return f"± is the half-width of a 95 % interval over {where}."
            return f"One seed only: ± is the half-width of a 95 % interval over {where}, and says nothing about other seeds."
        both = f"training seeds and {splits} evaluation splits (two-way random effects, Satterthwaite)" if splits > 1 else "training seeds"
        said = f"± is the half-width of a 95 % interval over {both}"
        said += f"; of scripted agents, over {where}" * bool(self.scripted)
        return said + (f"; with one seed only ({', '.join(single)}), over {where}." if single else ".")


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
    kind: Kind
    meaning: str
    learned_only: bool = False


def summarise(results: Sequence[Mapping[str, Any]]) -> list[Table]:
    """Gather results over seeds, one table a scenario.

    Three measures are added. ``test_cross_entropy`` is −``test_utility``, in nats, where the utility is ``neg_log_loss``. ``planner_share``
    is the ratio of mean welfare to that of the reference (see :func:`reference`), over the splits that both have. Its interval is
    linearised: that of the mean of (w − ratio·p) / mean p over seeds and splits. It is undefined if the reference's welfare is not
    positive. ``best_reply_gap`` is the welfare of best replies under the same rule minus that of what was learned, paired by split, where
    the comparison has best replies. ``admitted_share`` becomes undefined if nothing was contributed, and ``corrupt_share`` if no lots are
    corrupt.

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
        rows.setdefault((learned, _name_of(cell)), []).append(_with_derived(result))
    made = []
    for rows in by_scenario.values():
        for row in rows.values():
            row.sort(key=lambda result: result["cell"].get("seed", 0))
        planner = next((rows[False, name] for name in REFERENCES if (False, name) in rows), [])
        ordered = sorted(rows, key=_place)
        all_rows = [_row(name, kind, rows[kind, name], planner) for kind, name in ordered]
        made.append(Table(rows[ordered[0]][0]["cell"]["scenario"], tuple(_beside_best_reply(row, all_rows) for row in all_rows)))
    return made


def under(agent: str, rule: str) -> str:
    """The name of the row of a scripted agent that plays what the rule pays for, one of :data:`~proxycoop.training.compare.RULE_BOUND`."""
    return f"{agent}, {rule}"


def _name_of(cell: Mapping[str, Any]) -> str:
    """The name of a cell's row."""
    agent, rule = str(cell["agent"]), str(cell["credit"])
    return rule if agent == "learned" else under(agent, rule) if agent in RULE_BOUND else agent


def _beside_best_reply(row: Row, rows: Sequence[Row]) -> Row:
    """A learned row with how far it lies below best replies under the same rule, where these were played."""
    replies = next((one for one in rows if not one.learned and one.name == under("best_reply", row.name)), None)
    if replies is None or not row.learned:
        return row
    return replace(row, measures={**row.measures, "best_reply_gap": difference(replies, row, "welfare")})


def reference(table: Table) -> Row | None:
    """The scripted agent whose welfare others are compared with: the first of :data:`REFERENCES` that the comparison has."""
    return next((row for name in REFERENCES if (row := table.agent(name)) is not None), None)


def columns(table: Table) -> tuple[Column, ...]:
    """The columns of a scenario's summary."""
    accuracy = table.scenario["utility"] == "accuracy"
    gap = [_column("below best reply, reward units", "below reply", "best_reply_gap", "reward", learned_only=True)]
    gap = gap if any("best_reply_gap" in row.measures for row in table.rows) else []
    return (
        Column("test accuracy, %", "accuracy %", "test_utility", "share", MEASURES["test_accuracy"].meaning)
        if accuracy
        else _column("test cross-entropy, nats", "test loss", "test_cross_entropy", "loss"),
        _column("welfare, reward units", "welfare", "welfare", "reward"),
        _column("test welfare, reward units", "test welfare", "test_welfare", "reward"),
        _column("of planner's welfare, %", "planner %", "planner_share", "share"),
        *gap,
        _column("clean, %", "clean %", "clean_share", "share"),
        _column("corrupt, %", "corrupt %", "corrupt_share", "share"),
        _column("worst value, % of what is allowed", "worst value %", "test_worst_value", "share"),
        _column("Pearson with Shapley", "Pearson", "pearson_shapley", "correlation", learned_only=True),
    )


def _column(title: str, short: str, measure: str, kind: Kind, *, learned_only: bool = False) -> Column:
    return Column(title, short, measure, kind, MEASURES[measure].meaning, learned_only)


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
    names = shortened([row.name for row in table.rows], 90)
    for row, name, texts in zip(table.rows, names, cells(table, decimals=0), strict=True):
        if row.learned != group:
            group = row.learned
            drawn.add_section()
            drawn.add_row(Text("learned" if group else "scripted", style="italic dim"))
        drawn.add_row(Text(textwrap.indent(wrapped(name, 19), " ")), *(Text(" ±".join(part for part in text if part)) for text in texts))
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
    """A measure of one row minus that (or another) of a second row, over the seeds and evaluation splits that both have.

    The rows are paired by seed and split, because rows of a seed share their training splits, and all rows share the cooperatives of the
    evaluation. So this interval is far narrower than the intervals of the two rows. A scripted agent is paired with every seed. Two rows
    of learned agents that share one seed have no interval: one over splits would say nothing about other seeds.
    """
    ours, theirs = a.matrix(measure), b.matrix(measure_of_b or measure)
    if a.learned and b.learned:
        common = [seed for seed in a.seeds if seed in b.seeds]
        ours, theirs = ours[[a.seeds.index(seed) for seed in common]], theirs[[b.seeds.index(seed) for seed in common]]
    if len(ours) == 0 or len(theirs) == 0 or ours.shape[1] != theirs.shape[1]:
        return _UNKNOWN
    found = Estimate.crossed(ours - theirs)
    return Estimate(found.mean, None) if (a.learned or b.learned) and max(len(ours), len(theirs)) == 1 else found


def ranked(rows: Sequence[Row], measure: str, *, lowest_first: bool = False) -> Ranking:
    """Rows ranked by a measure. A row is certain to be first if it is ahead of every other, seed by seed and split by split; see
    :func:`difference`. On one seed nothing is certain.
    """
    estimates = [row.measure(measure) for row in rows]
    return rank(estimates, lead=lambda i, j: difference(rows[i], rows[j], measure), lowest_first=lowest_first)


def _places(kind: str, estimates: Sequence[Estimate], decimals: int) -> int:
    """Decimals of a column."""
    if kind != "reward":
        return {"share": decimals, "loss": 3, "correlation": 2}[kind]
    largest = max((abs(estimate.mean) for estimate in estimates if estimate.mean is not None), default=0.0)
    return 1 if largest == 0 else min(max(2 - math.floor(math.log10(largest)), 0), 6)


def _place(key: tuple[bool, str]) -> tuple[bool, int, str]:
    """The sorting key of a row: scripted before learned; in each group the known names in their order, then the others by name."""
    learned, name = key
    known = CLASSIC_RULES if learned else (*BASELINES, *(under(agent, rule) for agent in RULE_BOUND for rule in CLASSIC_RULES))
    return learned, known.index(name) if name in known else len(known), name


def _with_derived(result: Mapping[str, Any]) -> Mapping[str, Any]:
    """A result with measures that are derived from others of the same evaluation."""
    measures, by_split = dict(result["measures"]), dict(result.get("by_split", {}))
    if result["cell"]["scenario"]["utility"] == "neg_log_loss" and measures.get("test_utility", [None])[0] is not None:
        mean, half_width = measures["test_utility"]
        measures["test_cross_entropy"] = [-mean, half_width]
        if "test_utility" in by_split:
            by_split["test_cross_entropy"] = [None if mean is None else -mean for mean in by_split["test_utility"]]
    shares = ("clean_share", "corrupt_share", "admitted_share")
    if measures.get("clean_share", [None])[0] == 0 and measures.get("corrupt_share", [None])[0] == 0:
        measures["admitted_share"] = [None, None]  # nothing was contributed
    if all(name in by_split for name in shares):
        by_split["admitted_share"] = [
            None if not clean and not corrupt else share for clean, corrupt, share in zip(*(by_split[name] for name in shares), strict=True)
        ]
    lots, corruption = result["cell"]["scenario"]["lots"], result["cell"]["scenario"]["lots"]["corruption"]
    n_drawn = round(corruption["share"] * result["cell"]["scenario"]["principals"] * lots["per_principal"])
    if not n_drawn and not corruption.get("principals"):
        measures["corrupt_share"] = [None, None]  # there are none
        if "corrupt_share" in by_split:
            by_split["corrupt_share"] = [None] * len(by_split["corrupt_share"])
    return {**result, "measures": measures, "by_split": by_split}


def _row(name: str, learned: bool, results: Sequence[Mapping[str, Any]], planner: Sequence[Mapping[str, Any]]) -> Row:
    measures = {}
    for measure in sorted({measure for result in results for measure in result["measures"]}):
        matrix = _matrix(results, measure)
        is_one = matrix.shape[1] == 1 and len(results) == 1
        measures[measure] = Estimate(*results[0]["measures"][measure]) if is_one else Estimate.crossed(matrix)
    measures["planner_share"] = _planner_share(results, planner)
    return Row(name, learned, tuple(result["cell"]["seed"] for result in results) if learned else (), tuple(results), measures)


def _planner_share(results: Sequence[Mapping[str, Any]], planner: Sequence[Mapping[str, Any]]) -> Estimate:
    """See :func:`summarise`."""
    if not planner:
        return _UNKNOWN
    w, p = _matrix(results, "welfare"), _matrix(planner, "welfare")
    if w.shape[1] != p.shape[1]:
        return _UNKNOWN
    p = torch.where(w.isnan(), torch.nan, p)  # (n_seeds, n_splits): the planner's row stands for every seed
    w = torch.where(p.isnan(), torch.nan, w)
    mean = float(p.nanmean())
    if not mean > 0:
        return _UNKNOWN
    ratio = float(w.nanmean()) / mean
    return Estimate(ratio, Estimate.crossed((w - ratio * p) / mean).half_width)


def _matrix(results: Sequence[Mapping[str, Any]], measure: str) -> Tensor:
    """A measure of each result on each split, ``(n_results, n_splits)``; ``(n_results, 1)`` where it was not measured by split."""
    rows = [result.get("by_split", {}).get(measure) for result in results]
    if any(row is None for row in rows):
        return _sample(results, measure)[:, None]
    return torch.tensor([[math.nan if mean is None else mean for mean in row] for row in rows], dtype=torch.float64)


def _sample(results: Sequence[Mapping[str, Any]], measure: str) -> Tensor:
    means = [result["measures"].get(measure, [None])[0] for result in results]
    return torch.tensor([math.nan if mean is None else mean for mean in means], dtype=torch.float64)
