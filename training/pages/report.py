"""Report a comparison: one self-contained HTML page with findings, tables and figures."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, Literal

import torch

from ... import strict_yaml
from ...envs.scenario import n_agents_of
from ...files import output_folder, write_bytes, write_text
from ..analysis.latex import latex
from ..analysis.ranking import Ranking, is_beyond
from ..analysis.summary import Row, Table, cells, columns, difference, markdown, ranked, reference, spell, summarise, told
from ..compare import columns_of, results
from ..evaluate import Estimate
from ..measures import SHARE, meaning_of
from .again import command, is_resplit
from .description import describe
from .drawing import Drawing, Looks, house_style
from .figures import FIGURES, figures, looks
from .page import write_page
from .temptation_figures import heat_map

_SPAM = 0.05
"""Share of the corrupt lots contributed above which the page speaks of spamming."""
_ROUNDING = 1e-5
"""Gain in utility below which credit and gain may differ by rounding alone."""
_SETTINGS = {
    "episodes": "episodes of an evaluation on each split",
    "evaluation_splits": "data splits of the evaluation",
    "splits": "data splits of a training",
}
_TRAINING = (
    "total_steps",
    "splits",
    "num_cooperatives",
    "learning_rate",
    "n_epochs",
    "batch_size",
    "gamma",
    "gae_lambda",
    "clip_range",
    "ent_coef",
    "hidden",
    "actions",
)
_GROUPS = {False: "scripted", True: "learned under"}
_GAMED = (
    ("split_gain", "Splitting", "a principal that deals its lots out to two names gets more for them"),
    ("copy_gain", "Copying", "a principal that offers its lots under two names gets more for them"),
)
"""Measures of what an agent gains by cheating, with a finding for each."""
_OF_ROUNDS = "share of rounds"
_UNKNOWN_ORDER = " One seed does not tell which rule comes first on others."


def report(folder: str | Path, out: str | Path | None = None) -> Path:
    """Write the page.

    Args:
        folder: Folder of a comparison.
        out: The HTML file; by default ``report.html`` in the folder.

    Returns:
        Its path.

    Raises:
        ValueError: If the folder holds no finished results, one is damaged, or the file cannot be written.
    """
    found = results(folder)
    tables = summarise(found)
    styles = looks(tables)
    again, custom = command(found, tables)
    return write_page(
        Path(folder) / "report.html" if out is None else Path(out),
        "report.html.j2",
        names=[table.name for table in tables],
        sections=[_section(table, styles) for table in tables],
        versions=sorted({str(result.get("version", "unknown")) for result in found}),
        settings=_settings(found),
        command=again,
        custom=custom,
        resplit=is_resplit(found),
        n_results=len(found),
        dictionary=_dictionary(found),
    )


Form = Literal["web", "paper"]
"""For the web, parts are Markdown tables and SVG figures; for papers, LaTeX tables and PDF figures."""
_ENDINGS: Mapping[Form, tuple[str, str]] = {"web": (".md", ".svg"), "paper": (".tex", ".pdf")}


def parts(folder: str | Path, out: str | Path, form: Form = "web") -> list[Path]:
    """Write the parts of the page as files: of each scenario a table ``NAME.md`` or ``NAME.tex`` and figures ``NAME-KEY.svg`` or ``.pdf``.

    Args:
        folder: Folder of a comparison.
        out: Folder for the files.
        form: Whether they are for the web or for papers.

    Returns:
        Their paths.

    Raises:
        ValueError: If the folder holds no finished results, one is damaged, or ``out`` cannot be written.
    """
    tables = summarise(results(folder))
    styles, place = looks(tables), output_folder(out)
    of_table, of_figure = _ENDINGS[form]
    written = []
    for table in tables:
        written.append(write_text(place / f"{_stem(table)}{of_table}", markdown(table) if form == "web" else latex(table)))
        for one in (*figures(table, styles), *_conduct(table)):
            drawn = one.svg if form == "web" else one.pdf
            written.append(write_bytes(place / f"{_stem(table)}-{one.key}{of_figure}", drawn))
    return written


def names_of_parts(folder: str | Path, form: Form = "web") -> list[str]:
    """Names of the files that :func:`parts` may write for a comparison, whether or not there is data for each."""
    of_table, of_figure = _ENDINGS[form]
    stems = [_stem(table) for table in summarise(results(folder))]
    return [name for stem in stems for name in (f"{stem}{of_table}", *(f"{stem}-{key}{of_figure}" for key in (*FIGURES, "conduct")))]


def _stem(table: Table) -> str:
    """How the files of a scenario's parts begin."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", table.name)


def _section(table: Table, styles: Looks) -> dict[str, Any]:
    """What the template needs to know of a scenario."""
    drawings = [*figures(table, styles), *_conduct(table)]
    described, rows = columns(table), list(zip(table.rows, cells(table), strict=True))
    groups = [(heading, [[row.name, *texts] for row, texts in rows if row.learned == learned]) for learned, heading in _GROUPS.items()]
    return {
        "table": table,
        "facts": describe(table.scenario),
        "findings": findings(table),
        "columns": described,
        "headings": [
            ("agents", "A scripted agent, or the credit rule under which proxies learned."),
            *((c.title, c.meaning) for c in described),
        ],
        "groups": [(heading, texts) for heading, texts in groups if texts],
        "drawings": drawings,
        "measure_headings": [("measure", "Its name in results.csv."), ("unit", "Its unit."), *((row.label, "") for row in table.rows)],
        "measures": _measures(table),
        "meanings": {name: meaning_of(name).meaning for row in table.rows for name in row.measures},
        "yaml": strict_yaml.write(_to_share(table.scenario)),
        "best": _best_in_words(table),
        "third": max(n_agents_of(table.scenario) // 3, 1),
    }


def _to_share(scenario: Mapping[str, Any]) -> dict[str, Any]:
    """A scenario as others may read it: of its file only the name, not the folders of the machine that it was read on."""
    data = dict(scenario.get("data") or {})
    if isinstance(file := data.get("file"), Mapping) and "path" in file:
        data["file"] = {**file, "path": PurePath(str(file["path"]).replace("\\", "/")).name}
        return {**scenario, "data": data}
    return dict(scenario)


def _conduct(table: Table) -> list[Drawing]:
    """How often each forgery was sent and each lever pulled, by row, where the scenario has any."""
    names = [name for name in sorted({name for row in table.rows for name in row.measures}) if name.startswith(("sent/", "pulled/"))]
    if not names:
        return []
    shares = [[row.measure(name).mean for name in names] for row in table.rows]
    with house_style():
        return [
            heat_map(
                "conduct", [row.label for row in table.rows], [name.partition("/")[2] for name in names], shares, _OF_ROUNDS, share=True
            )
        ]


def _measures(table: Table) -> list[list[str | tuple[str, str]]]:
    """Every measure of every row, as text: its name, its unit, and its mean and half-width for every row."""
    made: list[list[str | tuple[str, str]]] = []
    for name in sorted({name for row in table.rows for name in row.measures}):
        estimates, unit = [row.measure(name) for row in table.rows], meaning_of(name).unit
        largest = max((abs(estimate.mean) for estimate in estimates if estimate.mean is not None), default=0.0)
        percent = unit == SHARE
        places = 1 if percent or largest >= 10 else 3
        made.append([name, "%" if percent else unit, *(spell(estimate, places, percent=percent) for estimate in estimates)])
    return [*made, ["seeds", "", *(", ".join(map(str, row.seeds)) or "–" for row in table.rows)]]


def _settings(found: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Settings of training and evaluation. Where cells differ, all values are listed."""
    settings = []
    for name in ("episodes", "evaluation_splits", *_TRAINING):
        values = list(dict.fromkeys(_told_setting(result["cell"][name]) for result in found if name in result["cell"]))
        if values:
            settings.append((_SETTINGS.get(name, name.replace("_", " ")), ", ".join(values)))
    if seats := list(dict.fromkeys(seat for result in found for seat in result["cell"].get("seats", ()))):
        settings.append(("seats that other agents played", ", ".join(seats)))
    return settings


def _told_setting(value: object) -> str:
    """A setting as text; numbers that follow each other as their first and last."""
    if isinstance(value, list) and len(value) > 2 and value == list(range(value[0], value[0] + len(value))):
        return f"{value[0]} to {value[-1]}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _dictionary(found: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """What the columns of ``results.csv`` mean, as rows of a table."""
    _, _, text = columns_of(found)
    return list(csv.reader(text.splitlines()))[1:]


def findings(table: Table) -> list[tuple[str, str]]:
    """What a scenario's numbers say, as headings and sentences. A finding that the data do not support is left out.

    Whatever a sentence calls highest or lowest is so for certain, seed by seed; else the sentence says that it is not. On one seed nothing
    is. Where a rule is named because it lies beyond a limit, "within noise" says that its interval reaches the limit.
    """
    learned = table.learned
    said = [*_seeds_finding(table), *_welfare_finding(table), *_test_finding(table)]
    oracle = table.agent("oracle")
    if oracle is not None and (riders := [row for row in learned if row.mean("clean_share") < oracle.mean("clean_share") / 2]):
        half = oracle.mean("clean_share") / 2
        listed = _listed(riders, "clean_share", percent=True, sure=lambda row: is_beyond(row.measure("clean_share"), half, above=False))
        share = told(oracle.measure("clean_share"), 1, percent=True)
        said.append(("Free riding", f"fewer than half as many clean lots are contributed as by the oracle ({share}) under {listed}."))
    spam = f"more than {100 * _SPAM:.0f} % of the corrupt lots"
    if spammers := [row for row in learned if row.mean("corrupt_share") > _SPAM]:
        listed = _listed(spammers, "corrupt_share", percent=True, sure=lambda row: is_beyond(row.measure("corrupt_share"), _SPAM))
        said.append(("Spamming", f"{spam} are contributed under {listed}."))
    elif any(not math.isnan(row.mean("corrupt_share")) for row in learned):
        perhaps = [row for row in learned if not is_beyond(row.measure("corrupt_share"), _SPAM, above=False)]
        doubt = f" That is within noise under {_listed(perhaps, 'corrupt_share', percent=True)}." if perhaps else ""
        said.append(("No spamming", f"under no rule do proxies contribute {spam}.{doubt}"))
    said += _value_findings(table)
    for measure, heading, text in _GAMED:
        if paid := [row for row in learned if is_beyond(row.measure(measure))]:
            said.append((heading, f"{text} under {_listed(paid, measure)}, in reward units."))
    said += _budget_finding(table)
    if broken := [row for row in learned if row.mean("beyond_limits") > 0]:
        listed = _listed(broken, "beyond_limits", percent=True)
        said.append(
            ("Beyond a limit", f"share of rounds after which a value's loss was beyond somebody's limit for the episode: {listed}.")
        )
    if strained := [row for row in learned if row.mean("test_worst_value") > 1]:
        listed = _listed(strained, "test_worst_value", percent=True, sure=lambda row: is_beyond(row.measure("test_worst_value"), 1.0))
        text = "on people outside the probe sets the value that fares worst ends further from its start than profiles allow in an episode"
        said.append(("Values strained", f"{text}, under {listed}."))
    return [*said, *_home_finding(table)]


def _home_finding(table: Table) -> list[tuple[str, str]]:
    """How much better policies do on the splits on which they were trained, where that is certain for some rule."""
    gaps = [row for row in table.learned if is_beyond(row.measure("home_gap"))]
    if not gaps:
        return []
    places = _places_told(gaps, "home_gap")
    text = "welfare is higher on the data splits of the training than on those that nobody trained on, in reward units, under "
    return [("Home advantage", f"{text}{_listed(gaps, 'home_gap', places=places)}.")]


def _seeds_finding(table: Table) -> list[tuple[str, str]]:
    """Which rules were trained once only, and which rows lack seeds that others have."""
    learned, said = table.learned, []
    if single := [row for row in learned if len(row.seeds) == 1]:
        who = "each rule was" if len(single) == len(learned) else f"{_names(single)} {'were' if len(single) > 1 else 'was'}"
        text = (
            f"{who} trained once. What follows may be different on another seed: ± is then over one evaluation. "
            "To compare rules, train with more seeds."
        )
        said.append(("One seed", text))
    lacking = [(row.label, [str(seed) for seed in table.seeds if seed not in row.seeds]) for row in table.learned]
    if lacking := [(name, seeds) for name, seeds in lacking if seeds]:
        listed = ", ".join(f"{name} (seed{'s' * (len(seeds) > 1)} {', '.join(seeds)})" for name, seeds in lacking)
        said.append(("Unfinished", f"cells are missing: {listed}. Means over different seeds differ for that reason too."))
    return said


def _welfare_finding(table: Table) -> list[tuple[str, str]]:
    """Which rule has the highest and the lowest welfare, by how much and whether that is certain, and which have a negative one."""
    rows = [row for row in table.learned if not math.isnan(row.mean("welfare"))]
    if not rows:
        return []
    places = _places_told(rows, "welfare")
    if _one_seed(rows) or len(rows) == 1:
        said = [("Welfare", f"{_listed(rows, 'welfare', places=places)}, in reward units.{_UNKNOWN_ORDER * (len(rows) > 1)}")]
    elif _alike(rows, "welfare"):
        said = [("Welfare", f"the same on every seed under all rules: {_listed(rows, 'welfare', places=places)}, in reward units.")]
    else:
        highest, lowest = ranked(rows, "welfare"), ranked(rows, "welfare", lowest_first=True)
        best, *others = (rows[i] for i in highest.order)
        planner, share = reference(table), best.measure("planner_share").mean
        text = "" if highest.is_certain else "not certain; on average it is "
        text += f"{best.name} with {told(best.measure('welfare'), places)} reward units"
        if share is not None and planner is not None:
            text += f", {_percent(share)} of the planner's"
        text += f"; lowest: {_first(rows, lowest, 'welfare', places)}. Its lead, seed by seed: "
        leads = [(other.name, difference(best, other, "welfare")) for other in others]
        text += ", ".join(f"{_told_lead(lead, places)} over {name}{_doubt(lead)}" for name, lead in leads)
        said = [("Highest welfare", f"{text}.")]
    if worse := [row for row in rows if row.mean("welfare") < 0]:
        listed = _listed(worse, "welfare", places=places, sure=lambda row: is_beyond(row.measure("welfare"), above=False))
        said.append(("Worse than nothing", f"welfare is negative under {listed}."))
    return said


def _budget_finding(table: Table) -> list[tuple[str, str]]:
    """Under which rules credit does not sum to the gain. What rounding could have brought is no difference."""
    gains = [
        (row.mean("gain"), _gain(table, row)) for row in table.rows if not math.isnan(row.mean("gain"))
    ]  # utility's unit, reward units
    unit = max((abs(rewarded / gain) for gain, rewarded in gains if abs(gain) > _ROUNDING), default=math.inf if gains else 0.0)
    floor = _ROUNDING * unit  # reward units; if nobody gained anything, nothing can be told from rounding
    rows = [row for row in table.learned if abs(row.mean("imbalance")) > max(0.05 * abs(_gain(table, row)), floor)]
    if not rows:
        return []

    def is_sure(row: Row) -> bool:
        limit = 0.05 * abs(_gain(table, row))
        return is_beyond(row.measure("imbalance"), limit) or is_beyond(row.measure("imbalance"), -limit, above=False)

    listed = _listed(rows, "imbalance", places=_places_told(rows, "imbalance"), sure=is_sure)
    return [("Unbalanced budget", f"on average credit differs by more than 5 % of the gain under {listed}, in reward units.")]


def _test_finding(table: Table) -> list[tuple[str, str]]:
    """Which rule ends with the best model on the test set, and which end with a worse one than at the start."""
    column = columns(table)[0]
    accuracy, measure = column.kind == "share", column.measure
    places, unit, what = (1, "", "test accuracy") if accuracy else (3, " nats", "test cross-entropy")
    rows = [row for row in table.learned if not math.isnan(row.mean(measure))]
    if not rows:
        return []
    start = table.agent("none")
    began = "" if start is None else f" (start: {told(start.measure(measure), places, percent=accuracy)})"
    if _one_seed(rows) or len(rows) == 1:
        listed = _listed(rows, measure, percent=accuracy, places=places)
        said = [(what.capitalize(), f"{listed}{', in nats' * (not accuracy)}{began}.{_UNKNOWN_ORDER * (len(rows) > 1)}")]
    elif _alike(rows, measure):
        listed = _listed(rows, measure, percent=accuracy, places=places)
        said = [(what.capitalize(), f"the same on every seed under all rules: {listed}{', in nats' * (not accuracy)}{began}.")]
    else:
        ranking = ranked(rows, measure, lowest_first=not accuracy)
        best, text = rows[ranking.order[0]], "" if ranking.is_certain else "not certain; on average it is "
        text += f"{best.name} with {told(best.measure(measure), places, percent=accuracy)}{unit}{began}"
        if not ranking.is_certain:
            text += f"; within noise of it: {_names([rows[i] for i in ranking.rivals])}"
        welfare = ranked(table.learned, "welfare")
        other = table.learned[welfare.order[0]] if welfare.is_certain else best
        text += f", although {other.name} has the highest welfare." if ranking.is_certain and other is not best else "."
        said = [(f"{'Highest' if accuracy else 'Lowest'} {what}", text)]
    if start is not None:
        changes = [(row, difference(row, start, measure)) for row in rows]
        if worse := {row.name: change for row, change in changes if (change.mean or 0.0) * (1 if accuracy else -1) < 0}:
            worsened = [row for row in rows if row.name in worse]
            listed = _listed(
                worsened, measure, percent=accuracy, places=places, sure=lambda row: not _is_noise(worse[row.name], above=not accuracy)
            )
            said.append(("A worse model", f"than at the start, on the test set, under {listed}."))
    return said


def _value_findings(table: Table) -> list[tuple[str, str]]:
    """What happened to each value under the rule with the highest mean welfare, and what screening changed."""
    start, best = table.agent("none"), table.best
    if start is None or best is None:
        return []
    said, screens = [], bool(table.scenario["profiles"]) and table.scenario["screening"]["governance"] != "none"
    for value in table.scenario["values"]:
        measures = f"test_value/{value}", f"unscreened_value/{value}"
        before, screened, free = start.measure(measures[0]), best.measure(measures[0]), best.measure(measures[1])
        if before.mean is None or screened.mean is None or free.mean is None:
            continue
        falls, change = screened.mean < before.mean, difference(best, start, measures[0])
        direction = "falls" if falls else "rises even with screening" if screens else "rises"
        if change.mean == 0 and not change.half_width:
            text = f"its loss does not change under {best.name}: {told(screened, 3)} on the test set; "
        else:
            doubt = " (within noise)" * _is_noise(change, above=not falls)
            text = f"its loss {direction}{doubt} under {best.name}, from {told(before, 3)} to {told(screened, 3)} on the test set; "
        if not screens:
            said.append((f"Value {value}", f"{text}nobody screens."))
            continue
        effect = told(difference(best, best, *measures), 3)
        said.append((f"Value {value}", f"{text}where nobody screens, it ends at {told(free, 3)}. Screening changes it by {effect}."))
    return said


def _best_in_words(table: Table) -> str | None:
    """The rule whose play some figures show, and why that one."""
    best, rows = table.best, [row for row in table.learned if not math.isnan(row.mean("welfare"))]
    if best is None or len(rows) == 1:
        return None if best is None else best.name
    if _one_seed(rows):
        return f"{best.name}, whose welfare is the largest on this one seed, which says nothing about other seeds"
    certain = ranked(rows, "welfare").is_certain
    return f"{best.name}, the rule with the highest {'welfare' if certain else 'mean welfare; others are within noise of it'}"


def _is_noise(change: Estimate, *, above: bool = True) -> bool:
    """Whether a difference, seed by seed, has an interval that is not wholly above 0, or below it."""
    return change.half_width is not None and not is_beyond(change, above=above)


def _one_seed(rows: Sequence[Row]) -> bool:
    """Whether no row has a second seed."""
    return all(len(row.seeds) == 1 for row in rows)


def _told_lead(lead: Estimate, places: int) -> str:
    """A lead, with as many decimals as show that it is none where it is certain."""
    if lead.mean and is_beyond(lead) and lead.mean < 10**-places:
        places = min(1 - math.floor(math.log10(lead.mean)), 6)
    return told(lead, places)


def _doubt(lead: Estimate) -> str:
    """What a reader must know of a lead, seed by seed: that it is noise, or that there are too few seeds to tell."""
    if lead.mean is None:
        return " (no seed in common)"
    return " (one seed in common)" if lead.half_width is None else " (within noise)" * _is_noise(lead)


def _alike(rows: Sequence[Row], measure: str) -> bool:
    """Whether a measure is the same in all rows, on every seed."""
    first, *others = rows
    return all(row.seeds == first.seeds and torch.equal(row.sample(measure), first.sample(measure)) for row in others)


def _places_told(rows: Sequence[Row], measure: str) -> int:
    """Decimals of reward units in sentences: one, more if all numbers are below 1, none if they are large."""
    largest = max((abs(row.mean(measure)) for row in rows if not math.isnan(row.mean(measure))), default=0.0)
    return 1 if largest == 0 or 1 <= largest < 1e4 else min(max(2 - math.floor(math.log10(largest)), 0), 6)


def _first(rows: Sequence[Row], ranking: Ranking, measure: str, places: int) -> str:
    """The first row of a ranking with its measure, and who else may be the first."""
    first, rivals = rows[ranking.order[0]], [rows[i] for i in ranking.rivals]
    return f"{first.name} with {told(first.measure(measure), places)}" + (f", within noise of {_names(rivals)}" if rivals else "")


def _names(rows: Sequence[Row]) -> str:
    return ", ".join(row.name for row in rows)


def _gain(table: Table, row: Row) -> float:
    """What the cooperative gained in utility, in reward units: welfare plus costs. ``cost`` is a mean over agents."""
    return row.mean("welfare") + n_agents_of(table.scenario) * row.mean("cost")


def _percent(share: float) -> str:
    return told(Estimate(share, None), 0, percent=True)


def _listed(
    rows: Sequence[Row], measure: str, *, percent: bool = False, places: int = 1, sure: Callable[[Row], bool] = lambda _: True
) -> str:
    """The names of rules, each with a measure, and with a doubt where what is said of it is not sure."""
    return ", ".join(
        f"{row.name} ({told(row.measure(measure), places, percent=percent)}{'' if sure(row) else ', within noise'})" for row in rows
    )
