"""Curves of a sweep: a measure against a varied setting, for each credit rule, with 95 % intervals; and tables of them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import rich.box
import rich.table
from rich.text import Text

from ...registry import unknown_name
from ...text import one_line
from ..evaluate import Estimate
from ..grid import Setting, in_words
from ..measures import REWARD, SHARE, meaning_of
from ..sweep import Swept
from .summary import Table, interval, ranked, reference, spell, summarise

SHARE_OF_REFERENCE = "planner_share"
"""The measure that is drawn by default: mean welfare as a share of the reference's."""
HALF = 0.5
"""Share of the reference's welfare at which a finding is said to turn."""
MOST_COMBINATIONS = 6
"""Combinations of the other settings' values beyond which the findings are left to the figures."""


@dataclass(frozen=True)
class Curve:
    """A measure of one rule or scripted agent along a setting.

    Attributes:
        name: The credit rule's name, or the scripted agent's.
        kind: Whether proxies learned, a scripted agent played, or it is the reference.
        estimates: The measure at every value of the setting; undefined where no cell is finished.
    """

    name: str
    kind: Literal["learned", "scripted", "reference"]
    estimates: tuple[Estimate, ...]

    @property
    def label(self) -> str:
        """Its name in lists that hold rules and agents."""
        return f"learned, {self.name}" if self.kind == "learned" else self.name


@dataclass(frozen=True)
class Panel:
    """Curves of one scenario along one setting, the others being fixed.

    Attributes:
        setting: The setting on the horizontal axis, with its values.
        fixed: The values of the other varied settings, by their columns.
        curves: Rules first, then scripted agents, then the reference.
    """

    setting: Setting
    fixed: Mapping[str, Any]
    curves: tuple[Curve, ...]

    @property
    def title(self) -> str:
        """The fixed settings by the last part of their names, in words; empty if there are none."""
        return ", ".join(f"{column.rpartition('.')[2]} {in_words(value)}" for column, value in self.fixed.items())


@dataclass(frozen=True)
class ScenarioSweep:
    """What a sweep found in one scenario.

    Attributes:
        name: The scenario's name.
        settings: The varied settings.
        tables: The summary at every point at which a cell of the scenario is finished, by the point's values.
        agents: Scripted agents that are shown beside the rules.
    """

    name: str
    settings: tuple[Setting, ...]
    tables: Mapping[tuple[Any, ...], Table]
    agents: tuple[str, ...]

    @cached_property
    def measures(self) -> list[str]:
        """Names of all measures of learned agents."""
        return sorted({name for table in self.tables.values() for row in table.rows for name in row.measures})

    @property
    def seeds(self) -> tuple[int, ...]:
        """All seeds of any point."""
        return tuple(sorted({seed for table in self.tables.values() for seed in table.seeds}))

    def panels(self, along: Setting, measure: str = SHARE_OF_REFERENCE) -> list[Panel]:
        """The curves along a setting: a panel for each combination of the other settings' values.

        Raises:
            ValueError: If there is no such measure.
        """
        if measure not in self.measures:
            raise unknown_name("measure", measure, self.measures)
        place = self.settings.index(along)
        others = [setting for setting in self.settings if setting != along]
        made = []
        for fixed in itertools.product(*(setting.values for setting in others)):
            at = [self.tables.get((*fixed[:place], value, *fixed[place:])) for value in along.values]
            if any(at):
                values = {setting.column: value for setting, value in zip(others, fixed, strict=True)}
                made.append(Panel(along, values, self._curves(at, measure)))
        return made

    def _curves(self, tables: Sequence[Table | None], measure: str) -> tuple[Curve, ...]:
        present = [table for table in tables if table is not None]
        rules = list(dict.fromkeys(row.name for table in present for row in table.learned))
        stands = next((row.name for table in present if (row := reference(table)) is not None), None)
        shown: list[tuple[str, Literal["learned", "scripted", "reference"]]] = [(rule, "learned") for rule in rules]
        scripted = dict.fromkeys(row.name for agent in self.agents for table in present for row in table.scripted if plays(row.name, agent))
        shown += [(name, "scripted") for name in scripted if name != stands]
        shown += [(stands, "reference")] if stands is not None else []
        return tuple(Curve(name, kind, tuple(_estimate(table, name, kind, measure) for table in tables)) for name, kind in shown)


def scenario_sweeps(swept: Swept) -> list[ScenarioSweep]:
    """A sweep's findings, scenario by scenario. Estimates are those of :func:`~proxycoop.training.analysis.summary.summarise`."""
    tables: dict[str, dict[tuple[Any, ...], Table]] = {}
    for point in swept.points:
        for table in summarise(point.results):
            tables.setdefault(table.name, {})[tuple(point.values[setting.column] for setting in swept.settings)] = table
    return [ScenarioSweep(name, swept.settings, found, swept.agents) for name, found in tables.items()]


def plays(row: str, agent: str) -> bool:
    """Whether a row is of a scripted agent; one that plays what a rule pays for has a row for every rule, ``best_reply, equal``."""
    return row == agent or row.startswith(f"{agent}, ")


def findings(found: ScenarioSweep) -> list[tuple[str, list[str]]]:
    """What a scenario's curves say: where each rule reaches half of the reference's welfare, and which rule is first where.

    A rule reaches half where its interval lies above, and misses it where its interval lies below. A rule is called first only where it
    is ahead of every other, as their paired differences show. The findings go along the first setting, for each combination of the
    others' values; beyond :data:`MOST_COMBINATIONS` of them there are none.

    Returns:
        Headings, each with its sentences.
    """
    along, *others = found.settings
    combinations = list(itertools.product(*(setting.values for setting in others)))
    if len(combinations) > MOST_COMBINATIONS:
        return []
    said = []
    for fixed in combinations:
        where = [f"{setting.path} {in_words(value)}" for setting, value in zip(others, fixed, strict=True)]
        tables = {value: table for value in along.values if (table := found.tables.get((value, *fixed))) is not None}
        if sentences := list(_findings(along, tables)):
            said.append((", ".join([f"By {along.path}", *where]), sentences))
    return said


def _findings(along: Setting, tables: Mapping[Any, Table]) -> Iterator[str]:
    stands = next((row.name for table in tables.values() if (row := reference(table)) is not None), None)
    rules = list(dict.fromkeys(row.name for table in tables.values() for row in table.learned))
    for rule in rules:
        above: list[Any] = []
        near: list[Any] = []
        below: list[Any] = []
        for value, table in tables.items():
            of = _estimate(table, rule, "learned", SHARE_OF_REFERENCE)
            if of.mean is not None:
                low, high = interval(of)
                (above if low > HALF else below if high < HALF else near).append(value)
        if stands is not None and (above or near or below):
            yield _against_half(rule, stands, *(_among(along, at) for at in (above, near, below)))
    if len(rules) > 1:
        first: dict[str, list[Any]] = {}
        for value, table in tables.items():
            order = ranked(table.learned, "welfare")
            first.setdefault(table.learned[order.order[0]].name if order.order and order.is_certain else "", []).append(value)
        open_at = _among(along, first.pop("", []))
        if first:
            certain = ", ".join(f"under {rule} at {_among(along, at)}" for rule, at in first.items())
            yield f"Welfare is highest {certain}{f'; at {open_at} it is not certain' if open_at else ''}."
        else:
            yield f"It is certain nowhere ({open_at}) under which rule welfare is highest."


def _against_half(rule: str, stands: str, above: str, near: str, below: str) -> str:
    """Where welfare under a rule is above and below half of the reference's, and where its interval contains half, in a sentence."""
    half = f"half of what {stands} reaches"
    if not above and not below:
        return f"Under {rule}, it is certain nowhere ({near}) whether welfare is more or less than {half}."
    sides = [f"{word} than {half} at {at}" for word, at in (("more", above), ("less", below)) if at]
    sides[1:] = [side.replace(half, "half") for side in sides[1:]]
    return f"Under {rule}, welfare is {' and '.join(sides)}{f'; at {near} it is not certain' if near else ''}."


def rows(found: ScenarioSweep, measure: str = SHARE_OF_REFERENCE) -> tuple[list[str], list[list[str | tuple[str, str]]]]:
    """The curves as a table: a row for every point, a column for every varied setting, rule, agent and the reference.

    Where the measure is the share of the reference's welfare, the reference's column has its welfare, in reward units.

    Returns:
        The headings; and the rows, whose cells are texts, or means with their half-widths.

    Raises:
        ValueError: If there is no such measure.
    """
    if measure not in found.measures:
        raise unknown_name("measure", measure, found.measures)
    curves = found._curves(list(found.tables.values()), measure)
    of_reference = "welfare" if measure == SHARE_OF_REFERENCE else measure
    columns: list[list[tuple[str, str]]] = []
    for curve in curves:
        shown = of_reference if curve.kind == "reference" else measure
        estimates = [_estimate(table, curve.name, curve.kind, shown) for table in found.tables.values()]
        columns.append([spell(estimate, places_of(shown, estimates), percent=is_share(shown)) for estimate in estimates])
    unit = unit_of(measure)
    headings = [setting.path for setting in found.settings]
    headings += [f"{curve.name}, {unit_of(of_reference) if curve.kind == 'reference' else unit}" for curve in curves]
    cells: list[list[str | tuple[str, str]]] = []
    for i, values in enumerate(found.tables):
        cells.append([*map(in_words, values), *(column[i] for column in columns)])
    return headings, cells


def markdown(found: ScenarioSweep, measure: str = SHARE_OF_REFERENCE) -> str:
    """The curves as a GitHub markdown table, with what it shows below, and without a heading."""
    headings, cells = rows(found, measure)
    lines = ["| " + " | ".join(map(_escaped, headings)) + " |", "|" + "---:|" * len(headings)]
    for row in cells:
        lines.append("| " + " | ".join(_escaped(cell) if isinstance(cell, str) else " ± ".join(filter(None, cell)) for cell in row) + " |")
    lines += ["", _escaped(caption(found, measure))]
    for heading, sentences in findings(found):
        lines += ["", f"{_escaped(heading)}:", "", *(f"- {_escaped(text)}" for text in sentences)]
    return "\n".join(lines) + "\n"


def console_table(found: ScenarioSweep, measure: str = SHARE_OF_REFERENCE) -> rich.table.Table:
    """The curves for the command line."""
    headings, cells = rows(found, measure)
    drawn = rich.table.Table(
        title=Text(one_line(f"{found.name}: {in_title(measure)}")),
        caption=Text(one_line(caption(found, measure))),
        box=rich.box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for heading in headings:
        drawn.add_column(Text(one_line(heading)), justify="right", overflow="fold")
    for row in cells:
        drawn.add_row(*(Text(one_line(cell) if isinstance(cell, str) else " ±".join(filter(None, cell))) for cell in row))
    return drawn


def caption(found: ScenarioSweep, measure: str) -> str:
    """What the numbers and intervals of a scenario's table mean."""
    table = next(iter(found.tables.values()))
    n = len(found.seeds)
    return f"{meaning_of(measure).meaning} {n} seed{'s' * (n > 1)}. {table.meaning_of_intervals}"


def in_title(measure: str) -> str:
    """A measure in words, without its unit."""
    return "welfare, share of the planner's" if measure == SHARE_OF_REFERENCE else measure.replace("_", " ")


def is_share(measure: str) -> bool:
    """Whether a measure is a share, which tables and figures show in per cent."""
    return meaning_of(measure).unit == SHARE


def unit_of(measure: str) -> str:
    """A measure's unit, as tables and figures show it."""
    return "%" if is_share(measure) else meaning_of(measure).unit


def places_of(measure: str, estimates: Sequence[Estimate]) -> int:
    """Decimals of a measure in tables."""
    largest = max((abs(estimate.mean) for estimate in estimates if estimate.mean is not None), default=0.0)
    return 0 if is_share(measure) else 1 if largest >= 10 or meaning_of(measure).unit == REWARD else 3


def _estimate(table: Table | None, name: str, kind: str, measure: str) -> Estimate:
    row = None if table is None else next((one for one in table.rows if one.name == name and one.learned == (kind == "learned")), None)
    return Estimate(None, None) if row is None else row.measure(measure)


def _among(setting: Setting, some: Sequence[Any]) -> str:
    """Some of a setting's values, in words: ``0, 0.1 and 0.3 to 0.6``. Three or more numbers that follow each other are a range."""
    runs: list[list[Any]] = []
    for i, value in enumerate(setting.values):
        if value in some:
            if i and setting.values[i - 1] in some and runs:
                runs[-1].append(value)
            else:
                runs.append([value])
    texts = []
    for run in runs:
        texts += [f"{in_words(run[0])} to {in_words(run[-1])}"] if len(run) > 2 and setting.is_numeric else list(map(in_words, run))
    return " and ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)


def _escaped(text: str) -> str:
    """Text for GitHub: a backslash before punctuation takes it literally; underscores inside words are literal already."""
    return re.sub(r"[\\`*\[\]|~$<>&#!]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\\g<0>", one_line(text))
