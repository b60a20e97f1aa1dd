"""Report a comparison: one self-contained HTML page with findings, tables and figures."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined

from ..envs import scenario as scenarios
from ..files import write_text
from .compare import results
from .evaluate import Estimate
from .figures import Drawing, Looks, figures, looks
from .summary import Row, Table, cells, columns, difference, spell, summarise, told

_SPAM = 0.05
"""Share of corrupt lots from which it is called spamming."""
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
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((resources.files(__package__) / "templates" / "report.html.j2").read_text(encoding="utf-8"))
    path = Path(folder) / "report.html" if out is None else Path(out)
    page = template.render(
        names=[table.name for table in tables],
        sections=[_section(table, styles) for table in tables],
        versions=sorted({str(result.get("version", "unknown")) for result in found}),
        settings=_settings(found),
        command=_command(found, tables),
        custom=[table.name for table in tables if not _ships(table)],
        resplit=_resplit(found),
        n_results=len(found),
    )
    try:
        return write_text(path, page)
    except OSError as error:
        raise ValueError(f"report {str(path)!r} cannot be written: {error.strerror or error}") from error


def _section(table: Table, styles: Looks) -> dict[str, Any]:
    """What the template needs of a scenario."""
    drawings: list[Drawing] = figures(table, styles)
    return {
        "table": table,
        "facts": _facts(table.scenario),
        "findings": findings(table),
        "columns": columns(table),
        "rows": list(zip(table.rows, cells(table), strict=True)),
        "drawings": drawings,
        "measures": _measures(table),
        "yaml": yaml.safe_dump(dict(table.scenario), sort_keys=False, allow_unicode=True),
        "third": max(int(table.scenario["principals"]) // 3, 1),
    }


def _facts(scenario: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The cooperative in short, as names and texts."""
    lots, screening, reward = scenario["lots"], scenario["screening"], scenario["reward"]
    governance = screening["governance"] + (f" of {100 * screening['quorum']:.0f} %" if screening["governance"] == "quorum" else "")
    rows = lots["rows"] if isinstance(lots["rows"], int) else ", ".join(map(str, lots["rows"]))
    corrupt = f", {100 * lots['corruption']['share']:.0f} % of them corrupt ({100 * lots['corruption']['rate']:.0f} % of labels swapped)"
    values = [f"{name} ({str(value['kind']).replace('_', ' ')})" for name, value in scenario["values"].items()]
    profiles = [_profile(profile) for profile in scenario["profiles"]]
    return [
        ("Principals (N)", str(scenario["principals"])),
        ("Lots each (K)", f"{lots['per_principal']} of {rows} rows{corrupt if lots['corruption']['share'] else ''}"),
        ("Rounds (T)", str(scenario["horizon"])),
        ("Utility", "minus cross-entropy, nats" if scenario["utility"] == "neg_log_loss" else str(scenario["utility"])),
        ("Values", ", ".join(values) or "none"),
        ("Who protects what", "; ".join(profiles) + "; the others nothing" if profiles else "nobody protects anything"),
        (
            "Governance",
            governance + (f", filter {screening['filter']}" if governance != "none" else "") + ", guarded" * bool(screening["guard"]),
        ),
        ("Weights", str(scenario["weights"])),
        ("Substrate, model", f"{scenario['substrate']['kind']}, {scenario['model']['kind']}"),
        ("Costs", f"{reward['contribution_cost']:g} a lot and round, fine of {reward['violation_penalty']:g}, in reward units"),
    ]


def _profile(profile: Mapping[str, Any]) -> str:
    limits = [f"{name} rises by at most {tolerance:g} an update" for name, tolerance in profile["tolerances"].items()]
    limits += [f"no {tag} data" for tag in profile["forbidden_tags"]]
    limits += [f"no update longer than {profile['max_norm']:g}"] if profile["max_norm"] is not None else []
    return f"{profile['holders']} × {', '.join(limits) or 'no limits'}"


def _measures(table: Table) -> list[tuple[str, list[tuple[str, str]]]]:
    """Every measure of every row, as text."""
    names = sorted({name for row in table.rows for name in row.measures})
    made = []
    for name in names:
        estimates = [row.measure(name) for row in table.rows]
        largest = max((abs(estimate.mean) for estimate in estimates if estimate.mean is not None), default=0.0)
        percent = name in _COUNTS
        places = 1 if percent or largest >= 10 else 3
        made.append((name.replace("_", " ") + ", %" * percent, [spell(estimate, places, percent=percent) for estimate in estimates]))
    return made


def _settings(found: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Settings of training and evaluation; more than one value where cells differ."""
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
    """Whether it is a scenario of the package as it stands, its split apart."""
    if table.name not in scenarios.names():
        return False
    ours, theirs = scenarios.load(table.name).to_dict(), dict(table.scenario)
    ours["data"] = ours["data"] | {"split_seed": theirs["data"]["split_seed"]}
    return ours == theirs


def _command(found: Sequence[Mapping[str, Any]], tables: Sequence[Table]) -> str:
    """The command line that does it again."""
    seeds = sorted({result["cell"]["seed"] for result in found})
    rules = dict.fromkeys(row.name for table in tables for row in table.learned)
    words = ["proxycoop", "compare"]
    words += [word for table in tables for word in ("--scenario", table.name if _ships(table) else f"{table.name}.yaml")]
    words += [word for rule in rules for word in ("--rule", rule)]
    words += ["--seeds", str(seeds[-1] - seeds[0] + 1)] + (["--first-seed", str(seeds[0])] if seeds[0] else [])
    for option, name in (("--steps", "total_steps"), ("--episodes", "episodes")):
        words += [word for value in sorted({r["cell"][name] for r in found if name in r["cell"]})[-1:] for word in (option, str(value))]
    return shlex.join([*words, *(() if _resplit(found) else ("--same-split",)), "--out", "out/again"])


def findings(table: Table) -> list[str]:
    """What a scenario's numbers say, in sentences; each is derived from the data, and absent where the data does not say it."""
    ranked = sorted((row for row in table.learned if not math.isnan(row.mean("welfare"))), key=lambda row: -row.mean("welfare"))
    said: list[str] = []
    if ranked:
        said.append(_welfare_finding(ranked))
    if worse := [row for row in ranked if row.mean("welfare") < 0]:
        said.append(f"Worse than contributing nothing, in welfare: {_listed(worse, 'welfare')}.")
    said += _test_finding(table, ranked)
    oracle = table.agent("oracle")
    if oracle is not None and (riders := [row for row in table.learned if row.mean("clean_share") < oracle.mean("clean_share") / 2]):
        share, listed = told(oracle.measure("clean_share"), 1, percent=True), _listed(riders, "clean_share", percent=True)
        said.append(f"Free riding: fewer than half of the clean lots that the oracle contributes ({share}) under {listed}.")
    if spammers := [row for row in table.learned if row.mean("corrupt_share") > _SPAM]:
        listed = _listed(spammers, "corrupt_share", percent=True)
        said.append(f"Spamming: more than {100 * _SPAM:.0f} % of the corrupt lots are contributed under {listed}.")
    elif table.learned:
        said.append(f"No rule teaches proxies to contribute more than {100 * _SPAM:.0f} % of the corrupt lots.")
    if ranked:
        said += _value_findings(table, ranked[0])
    if paid := [row for row in table.learned if _lower(row.measure("sybil_gain")) > 0]:
        said.append(
            f"Taking a second seat to offer copies of one's own lots pays, in reward units an episode, under {_listed(paid, 'sybil_gain')}."
        )
    if off := [row for row in table.learned if abs(row.mean("imbalance")) > 0.05 * abs(_gain(table, row))]:
        said.append(f"Budget not balanced by more than 5 % of the gain (credit minus gain, in reward units): {_listed(off, 'imbalance')}.")
    if broken := [row for row in table.learned if row.mean("violations") > 0]:
        said.append(f"Rounds whose applied step broke a profile, to first order: {_listed(broken, 'violations', percent=True)}.")
    return said


def _welfare_finding(ranked: Sequence[Row]) -> str:
    best, *others = ranked
    share = best.measure("planner_share").mean
    of_planner = "" if share is None else f", {100 * share:.0f} % of the planner's"
    text = f"Highest welfare: {best.name} with {told(best.measure('welfare'), 1)} reward units{of_planner}"
    if not others:
        return f"{text}."
    text += f"; lowest: {others[-1].name} with {told(others[-1].measure('welfare'), 1)}."
    leads = [(other.name, difference(best, other, "welfare")) for other in others]
    if any(lead.half_width is not None for _, lead in leads):
        listed = (f"{told(lead, 1)} over {name}{' (within noise)' * (_lower(lead) <= 0)}" for name, lead in leads)
        text += f" Its lead, seed by seed: {', '.join(listed)}."
    return text


def _test_finding(table: Table, ranked: Sequence[Row]) -> list[str]:
    """Who ends with the best model on the test set, who with a worse one than at the start."""
    column = columns(table)[0]
    percent, sign = column.kind == "share", 1 if column.kind == "share" else -1
    known = [row for row in table.learned if not math.isnan(row.mean(column.measure))]
    if not known:
        return []
    places = 1 if percent else 3
    best = max(known, key=lambda row: sign * row.mean(column.measure))
    what = "test accuracy" if percent else "test cross-entropy"
    start = table.agent("none")
    before = "" if start is None else f" (start: {told(start.measure(column.measure), places, percent=percent)})"
    text = f"{'Highest' if percent else 'Lowest'} {what}: {best.name} with {told(best.measure(column.measure), places, percent=percent)}"
    text += ("" if percent else " nats") + before
    text += f", although {ranked[0].name} has the highest welfare." if ranked and ranked[0] is not best else "."
    said = [text]
    if start is not None and (worse := [row for row in known if sign * (row.mean(column.measure) - start.mean(column.measure)) < 0]):
        said.append(f"A model worse than at the start, by {what}: {_listed(worse, column.measure, percent=percent, places=places)}.")
    return said


def _value_findings(table: Table, row: Row) -> list[str]:
    """What screening did to each value under one rule."""
    said, start = [], table.agent("none")
    for value in table.scenario["values"] if start is not None else ():
        assert start is not None
        before, screened, free = (
            start.measure(f"test_value/{value}"),
            row.measure(f"test_value/{value}"),
            row.measure(f"unscreened_value/{value}"),
        )
        if before.mean is None or screened.mean is None or free.mean is None:
            continue
        direction = "falls" if screened.mean < before.mean else "rises even with screening"
        text = f"The value loss {value} {direction} under {row.name}: {told(before, 3)} at the start, {told(screened, 3)} at the end"
        said.append(f"{text}, {told(free, 3)} had nobody screened (test set).")
    return said


def _gain(table: Table, row: Row) -> float:
    """What the cooperative gained in utility, in reward units: welfare before costs (``cost`` is a mean over agents)."""
    return row.mean("welfare") + float(table.scenario["principals"]) * row.mean("cost")


def _lower(estimate: Estimate) -> float:
    """The interval's lower end; −∞ where it has none."""
    return -math.inf if estimate.mean is None or estimate.half_width is None else estimate.mean - estimate.half_width


def _listed(rows: Sequence[Row], measure: str, *, percent: bool = False, places: int = 1) -> str:
    """Rules with a measure of each."""
    return ", ".join(f"{row.name} ({told(row.measure(measure), places, percent=percent)})" for row in rows)
