"""What a red team found out, as a self-contained HTML page, as tables for the command line, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rich.box
from rich.table import Table
from rich.text import Text

from ... import __version__
from ...envs.scenario import Scenario
from ...text import one_line
from ..analysis.summary import spell, told
from ..intervals import Estimate
from ..temptations.cheats import CHEATS
from ..temptations.findings import Findings
from ..temptations.words import sentences
from .description import describe
from .drawing import Drawing, house_style
from .page import write_page
from .temptation_figures import cheat_gains, heat_map, response_curves, response_shares, response_trace

CHEAT_COLUMNS = (
    ("cheat", "Name of the cheat."),
    ("what it does", "A proxy that does this, among honest ones."),
    ("gain", "What it earns over its honest self, in reward units an episode; same seeds, paired; 95 % intervals over splits of the data."),
    ("its principal", "The same less the harm to its principal's values, in its tolerances."),
    ("welfare", "What the cooperative gains by it."),
    ("pays", "Whether the gain is above 0 by more than its interval."),
)
WORLD_MEASURES = {
    "welfare": "welfare, reward units",
    "return": "a proxy's return",
    "principal_welfare": "a principal's welfare",
    "own_harm": "harm to own values, tolerances",
    "utility": "utility, validation",
    "clean_share": "clean lots, share",
    "corrupt_share": "corrupt lots, share",
    "declared": "declared over true tolerance",
}
"""What the page shows of what all learned, with the titles."""


def write_redteam(found: Sequence[Findings], scenario: Scenario, out: Path) -> Path:
    """Write the page.

    Args:
        found: The findings, one for each rule.
        scenario: The cooperative, with what proxies may do.
        out: The HTML file.

    Raises:
        ValueError: If the file cannot be written.
    """
    return write_page(
        out,
        "redteam.html.j2",
        found=[_section(one) for one in found],
        rules=[one.rule for one in found],
        maps=_maps(found),
        scenario=scenario,
        facts=describe(scenario.to_dict()),
        cheat_columns=CHEAT_COLUMNS,
        settings=found[0].settings,
        version=__version__,
        yaml=scenario.to_yaml(),
    )


def to_dict(found: Sequence[Findings]) -> dict[str, Any]:
    """Plain data for JSON: the findings of each rule, with the sentences that say them."""
    return {"version": __version__, "findings": [{"sentences": sentences(one), **one.to_dict()} for one in found]}


def console_table(found: Findings) -> Table:
    """The cheats by gain, for the command line."""
    drawn = Table(title=Text(one_line(f"{found.rule} in {found.scenario}")), box=rich.box.SIMPLE_HEAD, pad_edge=False)
    for i, title in enumerate(("cheat", "gain", "its principal", "welfare", "")):
        drawn.add_column(title, justify="left" if i in (0, 4) else "right", overflow="fold")
    for one in sorted(found.gains, key=lambda gain: -(gain.gain.mean or 0.0)):
        cells = (one.cheat, *(told(part, 2) for part in (one.gain, one.principal, one.welfare)), "pays" if one.pays else "")
        drawn.add_row(*map(Text, cells))
    return drawn


def _section(found: Findings) -> dict[str, Any]:
    """What the page says of one rule."""
    ordered = sorted(found.gains, key=lambda gain: -(gain.gain.mean or 0.0))
    rows: list[list[Any]] = [
        [
            one.cheat,
            CHEATS[one.cheat].what,
            *(spell(part, 2) for part in (one.gain, one.principal, one.welfare)),
            "yes" if one.pays else "no",
        ]
        for one in ordered
    ]
    names = [name for name in WORLD_MEASURES if any(name in world for world in found.worlds.values())]
    kinds = [name for name in found.worlds["tempted"] if name.startswith(("sent/", "pulled/", "declared/", "value_change/"))]
    worlds = [
        [
            WORLD_MEASURES.get(name, name.replace("/", ", ")),
            *(spell(found.worlds[world].get(name, Estimate(None, None)), 2) for world in found.worlds),
        ]
        for name in (*names, *kinds)
    ]
    responses = [
        [title, *(spell(part, 2) for part in (one.gain, one.principal, one.welfare)), "yes" if one.done else "no"]
        for title, one in zip(_AGAINST, found.responses, strict=True)
    ]
    defences = [
        [
            one.cheat,
            one.what,
            spell(one.gain, 2),
            f"{100 * one.share:.0f}",
            *(spell(Estimate(welfare, None), 1) for welfare in (one.before, one.after)),
            "yes" if one.helps else "no",
        ]
        for one in found.defences
    ]
    return {
        "rule": found.rule,
        "sentences": sentences(found),
        "cheats": rows,
        "worlds": worlds,
        "responses": responses,
        "defences": defences,
        "left_out": [f"{name}: {why}" for name, why in found.left_out.items()],
        "drawings": _drawings(found),
    }


_AGAINST = ("honest proxies", "proxies that learned")


def _drawings(found: Findings) -> list[Drawing]:
    with house_style():
        ordered = sorted(found.gains, key=lambda gain: -(gain.gain.mean or 0.0))
        most = max(found.responses, key=lambda one: one.gain.mean or 0.0)
        return [cheat_gains(ordered), response_curves(found.responses, _AGAINST), response_shares(most), response_trace(most)]


def _maps(found: Sequence[Findings]) -> list[Drawing]:
    """Heat maps of cheats and of what all learned by rule, where there are several rules."""
    if len(found) < 2:
        return []
    rules = [one.rule for one in found]
    cheats = [name for name in CHEATS if any(gain.cheat == name for one in found for gain in one.gains)]
    gains = [[next((gain.gain.mean for gain in one.gains if gain.cheat == name), None) for one in found] for name in cheats]
    items = [name for name in found[0].worlds["tempted"] if name.startswith(("sent/", "pulled/"))]
    shares = [[one.worlds["tempted"][name].mean if name in one.worlds["tempted"] else None for one in found] for name in items]
    with house_style():
        return [
            heat_map("map-gains", cheats, rules, gains, "gain, reward units"),
            heat_map("map-items", [name.partition("/")[2] for name in items], rules, shares, "share of rounds", share=True),
        ]
