"""Report a comparison: one self-contained HTML page with findings, tables and figures."""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ...envs import scenario as scenarios
from ...files import output_folder, write_text
from ..analysis.summary import Row, Table, cells, columns, difference, interval, markdown, spell, summarise, told
from ..compare import results
from ..evaluate import Estimate
from .description import describe
from .drawing import Drawing, Looks
from .figures import figures, looks
from .page import write_page

_SPAM = 0.05
"""Share of the corrupt lots contributed above which the page speaks of spamming."""
_TRAINING = (
    "total_steps",
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
_COUNTS = ("clean_share", "corrupt_share", "admitted_share", "violations", "realised_violations", "test_accuracy", "planner_share")
"""Measures that are shares, shown in per cent."""


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
    return write_page(
        Path(folder) / "report.html" if out is None else Path(out),
        "report.html.j2",
        names=[table.name for table in tables],
        sections=[_section(table, styles) for table in tables],
        versions=sorted({str(result.get("version", "unknown")) for result in found}),
        settings=_settings(found),
        command=_command(found, tables),
        custom=[table.name for table in tables if not _ships(table)],
        resplit=_resplit(found),
        n_results=len(found),
    )


def parts(folder: str | Path, out: str | Path) -> list[Path]:
    """Write the parts of the page as files, for papers and READMEs: a table ``NAME.md`` and figures ``NAME-KEY.svg``.

    Args:
        folder: Folder of a comparison.
        out: Folder for the files.

    Returns:
        Their paths.

    Raises:
        ValueError: If the folder holds no finished results, one is damaged, or ``out`` cannot be written.
    """
    tables = summarise(results(folder))
    styles, place = looks(tables), output_folder(out)
    written = []
    for table in tables:
        stem = re.sub(r"[^A-Za-z0-9._-]", "_", table.name)
        written.append(write_text(place / f"{stem}.md", markdown(table)))
        written += [write_text(place / f"{stem}-{one.key}.svg", one.svg.decode()) for one in figures(table, styles)]
    return written


def _section(table: Table, styles: Looks) -> dict[str, Any]:
    """What the template needs to know of a scenario."""
    drawings: list[Drawing] = figures(table, styles)
    return {
        "table": table,
        "facts": describe(table.scenario),
        "findings": findings(table),
        "columns": columns(table),
        "rows": list(zip(table.rows, cells(table), strict=True)),
        "drawings": drawings,
        "measures": _measures(table),
        "yaml": yaml.safe_dump(dict(table.scenario), sort_keys=False, allow_unicode=True),
        "best": None if table.best is None else table.best.name,
        "third": max(int(table.scenario["principals"]) // 3, 1),
    }


def _measures(table: Table) -> list[tuple[str, list[tuple[str, str]]]]:
    """Every measure of every row, as text."""
    made = []
    for name in sorted({name for row in table.rows for name in row.measures}):
        estimates = [row.measure(name) for row in table.rows]
        largest = max((abs(estimate.mean) for estimate in estimates if estimate.mean is not None), default=0.0)
        percent = name in _COUNTS
        places = 1 if percent or largest >= 10 else 3
        made.append((name.replace("_", " ") + ", %" * percent, [spell(estimate, places, percent=percent) for estimate in estimates]))
    return made


def _settings(found: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Settings of training and evaluation. Where cells differ, all values are listed."""
    settings = []
    for name in ("episodes", *_TRAINING):
        values = list(dict.fromkeys(str(result["cell"][name]) for result in found if name in result["cell"]))
        if values:
            settings.append(("episodes of an evaluation" if name == "episodes" else name.replace("_", " "), ", ".join(values)))
    return settings


def _resplit(found: Sequence[Mapping[str, Any]]) -> bool:
    """Whether every seed has its own split of the data."""
    return all(result["cell"]["scenario"]["data"]["split_seed"] == result["cell"]["seed"] for result in found)


def _ships(table: Table) -> bool:
    """Whether the package has the same scenario, apart from its split."""
    if table.name not in scenarios.names():
        return False
    ours: dict[str, Any] = json.loads(json.dumps(scenarios.load(table.name).to_dict()))  # numbers as keys have become text in results
    ours["data"]["split_seed"] = table.scenario["data"]["split_seed"]
    return ours == table.scenario


def _command(found: Sequence[Mapping[str, Any]], tables: Sequence[Table]) -> str:
    """The command line that repeats the comparison."""
    seeds = sorted({result["cell"]["seed"] for result in found})
    rules = dict.fromkeys(row.name for table in tables for row in table.learned)
    words = ["proxycoop", "compare"]
    words += [word for table in tables for word in ("--scenario", table.name if _ships(table) else f"{table.name}.yaml")]
    words += [word for rule in rules for word in ("--rule", rule)]
    words += ["--seeds", str(seeds[-1] - seeds[0] + 1)] + (["--first-seed", str(seeds[0])] if seeds[0] else [])
    for option, name in (("--steps", "total_steps"), ("--episodes", "episodes")):
        words += [word for value in sorted({r["cell"][name] for r in found if name in r["cell"]})[-1:] for word in (option, str(value))]
    return shlex.join([*words, *(() if _resplit(found) else ("--same-split",)), "--out", "out/again"])


def findings(table: Table) -> list[tuple[str, str]]:
    """What a scenario's numbers say, as headings and sentences. A finding that the data do not support is left out."""
    learned = table.learned
    ranked = sorted((row for row in learned if not math.isnan(row.mean("welfare"))), key=lambda row: -row.mean("welfare"))
    said = [*_welfare_finding(ranked), *_test_finding(table, ranked)]
    oracle = table.agent("oracle")
    if oracle is not None and (riders := [row for row in learned if row.mean("clean_share") < oracle.mean("clean_share") / 2]):
        listed, share = _listed(riders, "clean_share", percent=True), told(oracle.measure("clean_share"), 1, percent=True)
        said.append(("Free riding", f"fewer than half as many clean lots are contributed as by the oracle ({share}) under {listed}."))
    if spammers := [row for row in learned if row.mean("corrupt_share") > _SPAM]:
        listed = _listed(spammers, "corrupt_share", percent=True)
        said.append(("Spamming", f"more than {100 * _SPAM:.0f} % of the corrupt lots are contributed under {listed}."))
    elif learned:
        said.append(("No spamming", f"under no rule do proxies contribute more than {100 * _SPAM:.0f} % of the corrupt lots."))
    said += _value_findings(table, ranked)
    if paid := [row for row in learned if _lower(row.measure("sybil_gain")) > 0]:
        listed = _listed(paid, "sybil_gain")
        said.append(
            ("Sybils", f"a second seat with copies of the first seat's lots raises their joint return under {listed}, in reward units.")
        )
    if off := [row for row in learned if abs(row.mean("imbalance")) > 0.05 * abs(_gain(table, row))]:
        listed = _listed(off, "imbalance")
        said.append(("Unbalanced budget", f"credit differs from the gain by more than 5 % under {listed}, in reward units."))
    if broken := [row for row in learned if row.mean("violations") > 0]:
        listed = _listed(broken, "violations", percent=True)
        said.append(("Violations", f"share of rounds in which the step broke somebody's profile, to first order: {listed}."))
    return said


def _welfare_finding(ranked: Sequence[Row]) -> list[tuple[str, str]]:
    """Which rule has the highest and the lowest welfare, by how much, and which have a negative one."""
    if not ranked:
        return []
    best, *others = ranked
    share = best.measure("planner_share").mean
    text = f"{best.name} with {told(best.measure('welfare'), 1)} reward units"
    text += "" if share is None else f", {_percent(share)} of the planner's"
    text += f"; lowest: {others[-1].name} with {told(others[-1].measure('welfare'), 1)}." if others else "."
    leads = [(other.name, difference(best, other, "welfare")) for other in others]
    if any(lead.half_width is not None for _, lead in leads):
        listed = (
            f"{told(lead, 1)} over {name}{' (within noise)' * (lead.half_width is not None and _lower(lead) <= 0)}" for name, lead in leads
        )
        text += f" Its lead, seed by seed: {', '.join(listed)}."
    said = [("Highest welfare", text)]
    if worse := [row for row in ranked if row.mean("welfare") < 0]:
        said.append(("Worse than nothing", f"welfare is negative under {_listed(worse, 'welfare')}."))
    return said


def _test_finding(table: Table, ranked: Sequence[Row]) -> list[tuple[str, str]]:
    """Which rule ends with the best model on the test set, and which end with a worse one than at the start."""
    column = columns(table)[0]
    accuracy = column.kind == "share"
    sign, places, unit = (1, 1, "") if accuracy else (-1, 3, " nats")
    known = [row for row in table.learned if not math.isnan(row.mean(column.measure))]
    if not known:
        return []
    best = max(known, key=lambda row: sign * row.mean(column.measure))
    text = f"{best.name} with {told(best.measure(column.measure), places, percent=accuracy)}{unit}"
    start = table.agent("none")
    text += "" if start is None else f" (start: {told(start.measure(column.measure), places, percent=accuracy)})"
    text += f", although {ranked[0].name} has the highest welfare." if ranked and ranked[0] is not best else "."
    said = [("Highest test accuracy" if accuracy else "Lowest test cross-entropy", text)]
    if start is not None and (worse := [row for row in known if sign * (row.mean(column.measure) - start.mean(column.measure)) < 0]):
        listed = _listed(worse, column.measure, percent=accuracy, places=places)
        said.append(("A worse model", f"than at the start, on the test set, under {listed}."))
    return said


def _value_findings(table: Table, ranked: Sequence[Row]) -> list[tuple[str, str]]:
    """What happened to each value under the rule with the highest welfare, and what screening changed."""
    start = table.agent("none")
    if start is None or not ranked:
        return []
    said, best = [], ranked[0]
    for value in table.scenario["values"]:
        measures = f"test_value/{value}", f"unscreened_value/{value}"
        before, screened, free = start.measure(measures[0]), best.measure(measures[0]), best.measure(measures[1])
        if before.mean is None or screened.mean is None or free.mean is None:
            continue
        direction = "falls" if screened.mean < before.mean else "rises even with screening"
        text = f"its loss {direction} under {best.name}, from {told(before, 3)} to {told(screened, 3)} on the test set; "
        effect = told(difference(best, best, *measures), 3)
        said.append((f"Value {value}", f"{text}where nobody screens, it ends at {told(free, 3)}. Screening changes it by {effect}."))
    return said


def _gain(table: Table, row: Row) -> float:
    """What the cooperative gained in utility, in reward units: welfare plus costs. ``cost`` is a mean over agents."""
    return row.mean("welfare") + float(table.scenario["principals"]) * row.mean("cost")


def _lower(estimate: Estimate) -> float:
    """The interval's lower end; −∞ if there is no interval."""
    return -math.inf if estimate.half_width is None else interval(estimate)[0]


def _percent(share: float) -> str:
    return told(Estimate(share, None), 0, percent=True)


def _listed(rows: Sequence[Row], measure: str, *, percent: bool = False, places: int = 1) -> str:
    """The names of rules, each with a measure."""
    return ", ".join(f"{row.name} ({told(row.measure(measure), places, percent=percent)})" for row in rows)
