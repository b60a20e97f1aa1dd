"""Report a sweep: one self-contained HTML page with a figure for every varied setting, and the same as Markdown and as files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from ...files import output_folder, write_bytes, write_text
from ..analysis.curves import SHARE_OF_REFERENCE, ScenarioSweep, caption, findings, is_share, markdown, rows, scenario_sweeps, unit_of
from ..measures import meaning_of
from ..sweep import Swept, figure_name, swept
from .description import describe
from .drawing import Drawing, Looks
from .figures import looks
from .page import write_page
from .sweep_figures import is_logarithmic, sweep_figures

Form = Literal["web", "paper", "slides"]
"""For the web, figures are SVG and tables Markdown; for papers, figures are PDF; for slides, figures are PNG."""
_ENDINGS: Mapping[Form, str] = {"web": ".svg", "paper": ".pdf", "slides": ".png"}


def sweep_page(folder: str | Path, out: str | Path | None = None, *, measure: str = SHARE_OF_REFERENCE) -> Path:
    """Write the page.

    Args:
        folder: Folder of a sweep.
        out: The HTML file; by default ``sweep.html`` in the folder.
        measure: What the figures show: by default welfare as a share of the planner's that measures.

    Returns:
        Its path.

    Raises:
        ValueError: If the folder holds no sweep or no finished results, one is damaged, there is no such measure, or the file cannot be
            written.
    """
    of_all, scenarios = swept(folder), scenario_sweeps(swept(folder))
    styles = _styles(scenarios)
    return write_page(
        Path(folder) / "sweep.html" if out is None else Path(out),
        "sweep.html.j2",
        settings=of_all.settings,
        meanings=of_all.meanings,
        measure=measure,
        is_share_of_reference=measure == SHARE_OF_REFERENCE,
        meaning=meaning_of(measure).meaning,
        unit=unit_of(measure) if is_share(measure) else meaning_of(measure).unit,
        logarithmic=[setting.path for setting in of_all.settings if is_logarithmic(setting)],
        sections=[_section(one, styles, measure) for one in scenarios],
        facts=_facts(of_all, styles),
        versions=sorted({str(result.get("version", "unknown")) for point in of_all.points for result in point.results}),
        n_results=sum(len(point.results) for point in of_all.points),
        n_points=len(of_all.points),
    )


def sweep_parts(folder: str | Path, out: str | Path, form: Form = "web", *, measure: str = SHARE_OF_REFERENCE) -> list[Path]:
    """Write the figures as files ``SCENARIO-SETTING.svg``, ``.pdf`` or ``.png``; for the web also the tables, as ``SCENARIO.md``.

    Args:
        folder: Folder of a sweep.
        out: Folder for the files.
        form: What they are for.
        measure: What they show.

    Returns:
        Their paths.

    Raises:
        ValueError: As :func:`sweep_page` does.
    """
    scenarios, written = scenario_sweeps(swept(folder)), []
    styles, place = _styles(scenarios), output_folder(out)
    for one in scenarios:
        for drawn in sweep_figures(one, styles, measure):
            written.append(write_bytes(place / f"{drawn.key}{_ENDINGS[form]}", _content(drawn, form)))
        if form == "web":
            written.append(write_text(place / f"{_stem(one.name)}.md", markdown(one, measure)))
    return written


def names_of_sweep_parts(folder: str | Path, form: Form = "web") -> list[str]:
    """Names of the files that :func:`sweep_parts` writes for a sweep."""
    names = []
    for one in scenario_sweeps(swept(folder)):
        names += [f"{figure_name(one.name, setting)}{_ENDINGS[form]}" for setting in one.settings]
        names += [f"{_stem(one.name)}.md"] * (form == "web")
    return names


def sweep_markdown(folder: str | Path, *, measure: str = SHARE_OF_REFERENCE) -> str:
    """The tables of all scenarios as Markdown, each with the scenario's name before it.

    Raises:
        ValueError: As :func:`sweep_page` does.
    """
    return "\n".join(f"`{one.name}`:\n\n{markdown(one, measure)}" for one in scenario_sweeps(swept(folder)))


def sweep_drawings(folder: str | Path, *, measure: str = SHARE_OF_REFERENCE) -> list[Drawing]:
    """The figures of all scenarios, those of a scenario in the order of the settings.

    Raises:
        ValueError: As :func:`sweep_page` does.
    """
    scenarios = scenario_sweeps(swept(folder))
    styles = _styles(scenarios)
    return [drawn for one in scenarios for drawn in sweep_figures(one, styles, measure)]


def _stem(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)


def _styles(scenarios: list[ScenarioSweep]) -> Looks:
    return looks([table for one in scenarios for table in one.tables.values()])


def _content(drawn: Drawing, form: Form) -> bytes:
    return drawn.svg if form == "web" else drawn.pdf if form == "paper" else drawn.png


def _section(one: ScenarioSweep, styles: Looks, measure: str) -> dict[str, Any]:
    """What the template needs to know of a scenario."""
    first = next(iter(one.tables.values()))
    headings, cells = rows(one, measure)
    varied = {setting.path for setting in one.settings}
    return {
        "name": one.name,
        "description": first.scenario["description"],
        "facts": [(name, text) for name, text in describe(first.scenario) if name not in varied],
        "findings": findings(one),
        "figures": list(zip(one.settings, sweep_figures(one, styles, measure), strict=True)),
        "small": len(one.settings) > 1,
        "headings": [(heading, "") for heading in headings],
        "rows": cells,
        "n_settings": len(one.settings),
        "caption": caption(one, measure),
    }


def _facts(of_all: Swept, styles: Looks) -> list[tuple[str, str]]:
    """What was varied, and over what."""
    cells = [result["cell"] for point in of_all.points for result in point.results]
    learned: Mapping[str, Any] = next((cell for cell in cells if cell["agent"] == "learned"), {})
    known = {cell["credit"] for cell in cells if cell["agent"] == "learned"}
    rules = [rule for rule in styles if rule in known]
    varied = {setting.path for setting in of_all.settings}
    facts = [("credit rules", ", ".join(rules) or "none"), ("seeds", _seeds({cell["seed"] for cell in cells if "seed" in cell}))]
    facts += [("evaluation", f"{cells[0]['episodes']} episodes on each of {len(cells[0]['evaluation_splits'])} data splits")]
    for name in ("library", "algo", "total_steps", "gamma"):
        if name in learned and name not in varied:
            facts.append((name.replace("_", " "), str(learned[name])))
    return facts


def _seeds(seeds: set[int]) -> str:
    """Seeds in words: ``0 to 9``."""
    if not seeds:
        return "none"
    first, last = min(seeds), max(seeds)
    return f"{first} to {last}" if len(seeds) == last - first + 1 > 2 else ", ".join(map(str, sorted(seeds)))
