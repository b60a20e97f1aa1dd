"""Figures of a comparison, as SVG. Each can be read without colour: by markers, dashes, hatching and labels beside the lines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, MaxNLocator, PercentFormatter

from ...envs.rendering import profile_in_short
from ...envs.scenario import n_agents_of
from ...envs.screening.profiles import Profile
from ..analysis.summary import REFERENCES, Row, Table, difference, interval, reference, told
from ..compare import CLASSIC_RULES
from ..evaluate import Estimate
from .drawing import GREY, RULE, WIDTH, Drawing, Look, Looks, drawable, drawing, figure_of_lines, fit, house_style, line, name_ends
from .screening_figures import blocks, value_losses

_COLOURS = ("#E69F00", "#D55E00", "#CC79A7", "#009E73", "#0072B2", "#000000", "#56B4E9")
"""Okabe and Ito's colours, which colour-blind readers can tell apart. Their yellow is left out, because it is faint on white."""
_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (7, 1.5, 1, 1.5)), (0, (3, 1, 1, 1, 1, 1)), (0, (9, 3)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*", "p")
_REFERENCE_DASHES: Mapping[str, Any] = {REFERENCES[0]: (0, (8, 2)), "oracle": (0, (4, 2)), "all": (0, (2, 2)), "none": (0, (1, 2))}


def looks(tables: Iterable[Table]) -> Looks:
    """A look for every credit rule, the same in all scenarios of a comparison. The classic rules look the same in all comparisons."""
    names = [*CLASSIC_RULES, *sorted({row.name for table in tables for row in table.learned} - set(CLASSIC_RULES))]
    return {name: Look(_COLOURS[i % len(_COLOURS)], _DASHES[i % len(_DASHES)], _MARKERS[i % len(_MARKERS)]) for i, name in enumerate(names)}


FIGURES = ("shares", "outcomes", "training", "rounds", "values", "value-losses", "blocks", "credit", "robustness")
"""Keys of all figures, in their order."""


def figures(table: Table, styles: Looks) -> list[Drawing]:
    """All figures of a scenario for which there is data.

    Args:
        table: The scenario's rows.
        styles: Looks of its credit rules; see :func:`looks`.
    """
    draw = (_shares, _outcomes, _training, _rounds, _values, _value_losses, _blocks, _credit, _robustness)
    with house_style():
        return [drawn for one in draw if (drawn := one(table, styles)) is not None]


def _shares(table: Table, _: Looks) -> Drawing | None:
    """Clean and corrupt share of every row, as bars."""
    figure = _tall_figure(table.rows, 0.31)
    ax, said = figure.subplots(), []
    looks_of = (("clean", "#56B4E9", "#56B4E9", "", -0.19), ("corrupt", "white", "#D55E00", "/////", 0.19))
    for row, y in _agents_axis(ax, table.rows):
        for kind, face, edge, hatch, dy in looks_of:
            estimate = row.measure(f"{kind}_share")
            said.append(f"{row.label}: {told(estimate, 0, percent=True)} {kind}")
            if estimate.mean is None:
                continue
            ax.barh(y + dy, estimate.mean, height=0.36, color=face, edgecolor=edge, hatch=hatch, linewidth=0.8)
            low, high = np.clip(interval(estimate), 0, 1)
            ax.plot([low, high], [y + dy] * 2, color="black", linewidth=1)
            text = told(Estimate(estimate.mean, None), 0, percent=True)
            ax.text(max(high, estimate.mean) + 0.012, y + dy, text, va="center", fontsize=6.8)
    ax.set(xlim=(0, 1.1), xticks=np.arange(6) / 5, xlabel="share of the lots of a kind that is contributed")
    ax.xaxis.set_major_formatter(PercentFormatter(1, 0, " %"))
    ax.grid(visible=False, axis="y")
    keys = [Patch(facecolor=face, edgecolor=edge, hatch=hatch) for _, face, edge, hatch, _ in looks_of]
    figure.legend(keys, ["clean lots", "corrupt lots"], loc="outside upper left", ncols=2)
    return drawing("shares", figure, said)


def _outcomes(table: Table, styles: Looks) -> Drawing | None:
    """Welfare and test loss of every row, as dots."""
    accuracy = table.scenario["utility"] == "accuracy"
    loss = ("test_utility", "Test accuracy", "share correct") if accuracy else ("test_cross_entropy", "Test cross-entropy", "nats")
    guides = ((reference(table), _REFERENCE_DASHES[REFERENCES[0]]), (table.agent("none"), _REFERENCE_DASHES["none"]))
    figure, said = _tall_figure(table.rows, 0.23), []
    panels = (("welfare", "Welfare", "reward units"), loss)
    for ax, (measure, title, unit), (guide, dashes) in zip(figure.subplots(1, 2, sharey=True), panels, guides, strict=True):
        for row, y in _agents_axis(ax, table.rows):
            _dot(ax, y, row.measure(measure), row, styles)
            said.append(f"{title} of {row.label}: {told(row.measure(measure), 3)}")
        ax.set(title=title, xlabel=unit, xlim=_limits([row.measure(measure) for row in table.rows]))
        ax.xaxis.set_major_locator(MaxNLocator(4))
        if guide is not None and guide.measure(measure).mean is not None:
            ax.axvline(guide.mean(measure), color=GREY, linestyle=dashes, linewidth=1, zorder=1)
    return drawing("outcomes", figure, said)


def _training(table: Table, styles: Looks) -> Drawing | None:
    """Metrics of training over agent-steps."""
    rows = [row for row in table.learned if all(len(result["curve"]) > 1 for result in row.results)]
    if not rows:
        return None
    panels = (
        ("welfare", "Welfare, reward units"),
        ("clean_share", "Clean lots contributed"),
        ("corrupt_share", "Corrupt lots contributed"),
    )
    figure, said = figure_of_lines([row.name for row in rows], 1.85, panels=len(panels)), []
    axes = figure.subplots(len(panels), 1, sharex=True)
    for ax, (measure, title) in zip(axes, panels, strict=True):
        ends = []
        for i, row in enumerate(rows):
            steps, values = row.curve(measure)
            ends.append(line(ax, steps / 1000, values, row.name, styles[row.name], i))
            said.append(f"{title} under {row.name}: from {values[:, 0].mean():.3g} to {values[:, -1].mean():.3g}")
        planner = reference(table)
        if measure == "welfare" and planner is not None and planner.measure(measure).mean is not None:
            ax.axhline(planner.mean(measure), color=GREY, linestyle=_REFERENCE_DASHES[REFERENCES[0]], linewidth=1)
            ends.append((0.0, planner.mean(measure), planner.name, GREY))
        ax.set_title(title)
        fit([ax], share=measure != "welfare")
        name_ends(figure, ax, ends)
    axes[-1].set_xlabel("agent-steps, thousands")
    return drawing("training", figure, said)


def _rounds(table: Table, styles: Looks) -> Drawing | None:
    """Utility of the shared model over the rounds of an episode."""
    scripted = [Look(GREY, dashes, "") for dashes in _REFERENCE_DASHES.values()]
    shown = [(row, styles[row.name]) for row in table.learned]
    shown += [(row, look) for name, look in zip(_REFERENCE_DASHES, scripted, strict=True) if (row := table.agent(name)) is not None]
    if not shown:
        return None
    figure, ends, said = figure_of_lines([row.name for row, _ in shown], 3.55), [], []
    ax = figure.subplots()
    for i, (row, look) in enumerate(shown):
        utility = row.series("utility")  # (n_seeds, T + 1)
        ends.append(line(ax, np.arange(utility.shape[1], dtype=float), utility, row.name, look, i, band=row.learned))
        said.append(f"{row.label}: from {utility[:, 0].mean():.3g} to {utility[:, -1].mean():.3g}")
    accuracy = table.scenario["utility"] == "accuracy"
    ax.set(xlabel="rounds played", ylabel="validation accuracy" if accuracy else "validation utility: −cross-entropy, nats")
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    fit([ax])
    name_ends(figure, ax, ends)
    return drawing("rounds", figure, said)


def _values(table: Table, styles: Looks) -> Drawing | None:
    """Value losses at the end, with and without screening, against the start."""
    names = [name for name in table.scenario["values"] if any(row.measure(f"test_value/{name}").mean is not None for row in table.rows)]
    rows = [row for row in table.rows if row.learned or row.name in ("all", "oracle", *REFERENCES)]
    if not names or not rows:
        return None
    figure, said = _tall_figure(rows, 0.24, panels=len(names)), []
    for ax, name in zip(figure.subplots(len(names), 1, squeeze=False)[:, 0], names, strict=True):
        shown = []
        for row, y in _agents_axis(ax, rows):
            screened, free = row.measure(f"test_value/{name}"), row.measure(f"unscreened_value/{name}")
            _dot(ax, y - 0.15, screened, row, styles, marker="o", hollow=False)
            _dot(ax, y + 0.15, free, row, styles, marker="o", hollow=True)
            effect = told(difference(row, row, f"test_value/{name}", f"unscreened_value/{name}"), 3)
            ax.text(1.02, y, effect, transform=ax.get_yaxis_transform(), va="center", fontsize=7)
            shown += [screened, free]
            said.append(f"{name}, {row.label}: {told(screened, 3)} screened, {told(free, 3)} unscreened, difference {effect}")
        start = table.agent("none")
        before = Estimate(None, None) if start is None else start.measure(f"test_value/{name}")
        if before.mean is not None:
            ax.axvline(before.mean, color="black", linestyle=_REFERENCE_DASHES["none"])
            said.append(f"{name} at the start: {told(before, 3)}")
        ax.set(xlim=_limits([*shown, before]), xlabel="value loss on the test set, in its own unit")
        ax.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))  # small numbers have long labels, which would touch
        ax.set_title(drawable(name, 40))
        ax.text(1.02, 0, "effect of screening", transform=ax.get_yaxis_transform(), va="center", color=GREY, fontsize=7, fontstyle="italic")
    keys = [Line2D([], [], color="black", marker="o", markerfacecolor=face) for face in ("black", "white")]
    keys.append(Line2D([], [], color="black", linestyle=_REFERENCE_DASHES["none"]))
    figure.legend(keys, ["end, screened", "end, had nobody screened", "start"], loc="outside upper left", ncols=3)
    return drawing("values", figure, said)


def _value_losses(table: Table, _: Looks) -> Drawing | None:
    """Value losses over the rounds, with and without screening, under the rule with the highest welfare."""
    best = table.best
    if best is None or not table.scenario["values"]:
        return None
    tolerance = best.series("tolerance")  # (n_seeds, T, M), NaN where nobody has one
    screened, free = best.series("value_loss"), best.series("unscreened_value_loss")
    return value_losses(list(table.scenario["values"]), screened, free, tolerance.mean(axis=0), best.mean_series("limit"), best.label)


def _blocks(table: Table, _: Looks) -> Drawing | None:
    """Who blocks whom under the rule with the highest welfare."""
    best = table.best
    if best is None or not table.scenario["profiles"]:
        return None
    names = [profile_in_short(Profile.model_validate(profile)) for profile in table.scenario["profiles"]]
    shares = best.mean_series("blocks")
    if np.isnan(shares).all():  # nothing was contributed
        return None
    return blocks("blocks", shares, [*names, "no profile"], names, best.label)


def _credit(table: Table, styles: Looks) -> Drawing | None:
    """Cumulative credit of the principals with the most and with the fewest clean lots, one panel per rule."""
    rows, n = table.learned, n_agents_of(table.scenario)
    if not rows or n < 2:
        return None
    third, n_columns = max(n // 3, 1), min(len(rows), 3)
    n_rows = -(-len(rows) // n_columns)
    n_breaks = max(drawable(row.name, 20).count("\n") for row in rows)
    figure, said = Figure((WIDTH, 0.6 + (1.7 + 0.14 * n_breaks) * n_rows), layout="constrained"), []
    axes = figure.subplots(n_rows, n_columns, sharex=True, sharey=True, squeeze=False).ravel()
    dashed = Look("black", (0, (4, 2)), "s")
    for ax, row in zip(axes, rows, strict=False):
        credit = row.series("credit")  # (n_seeds, T, N)
        credit = np.concatenate([np.zeros_like(credit[:, :1]), credit], axis=1)
        rounds = np.arange(credit.shape[1], dtype=float)
        most, fewest = credit[..., :third].mean(axis=-1), credit[..., -third:].mean(axis=-1)
        line(ax, rounds, most, "", Look(styles[row.name].colour, "-", "o"), 0)
        line(ax, rounds, fewest, "", dashed, 1)
        ax.axhline(0, color=RULE, linewidth=0.8, zorder=1)
        ax.set_title(drawable(row.name, 20))
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        said.append(f"{row.name}: {most[:, -1].mean():.3g} with most clean lots, {fewest[:, -1].mean():.3g} with fewest")
    fit(list(axes[: len(rows)]))
    for i, ax in enumerate(axes):
        ax.set_visible(i < len(rows))
        if i + n_columns >= len(rows):
            ax.tick_params(labelbottom=True)
            ax.set_xlabel("rounds played")
        if i % n_columns == 0:
            ax.set_ylabel("reward units")
    keys = [Line2D([], [], color=look.colour, linestyle=look.dashes, marker=look.marker) for look in (Look(GREY, "-", "o"), dashed)]
    figure.legend(keys, ["most clean lots", "fewest clean lots"], loc="outside upper left", ncols=2)
    return drawing("credit", figure, said)


def _robustness(table: Table, styles: Looks) -> Drawing | None:
    """What a principal gains by a second name, how equal credit is, and whether the budget balances."""
    panels = (
        ("split_gain", "Gain from splitting", "reward units", 0),
        ("copy_gain", "Gain from copying", "reward units", 0),
        ("jain", "Jain's index of credit", "1/N one has all, 1 all equal", 1),
        ("imbalance", "Credit minus gain", "reward units", 0),
    )
    if not (rows := table.learned):
        return None
    figure, said = _tall_figure(rows, 0.23, panels=2), []
    for ax, (measure, title, label, guide) in zip(figure.subplots(2, 2, sharey=True).ravel(), panels, strict=True):
        for row, y in _agents_axis(ax, rows):
            _dot(ax, y, row.measure(measure), row, styles)
            said.append(f"{title} under {row.name}: {told(row.measure(measure), 2)}")
        ax.axvline(guide, color=RULE, linewidth=0.9, zorder=1)
        low, high = _limits([row.measure(measure) for row in rows] + [Estimate(float(guide), None)])
        limits = (-1, 1) if high - low < 0.1 else (low, high)  # rounding errors are no finding
        ax.set(title=title, xlabel=label, xlim=(0, 1.04) if measure == "jain" else limits)
        ax.xaxis.set_major_locator(FixedLocator([0, 0.5, 1]) if measure == "jain" else MaxNLocator(4))
    return drawing("robustness", figure, said)


def _agents_axis(ax: Axes, rows: Sequence[Row]) -> list[tuple[Row, float]]:
    """Put rows on the vertical axis: learned above scripted, each group under its heading. Returns the rows with their heights."""
    labels: list[str] = []
    places: list[tuple[Row | None, float]] = []
    y = 0.0
    for learned, heading in ((True, "learned under"), (False, "scripted")):
        if group := [row for row in rows if row.learned == learned]:
            labels += [heading, *(drawable(row.name, 18) for row in group)]
            places += [(row, y + i) for i, row in enumerate([None, *group])]
            y += len(group) + 1.1
    ax.set_yticks([place for _, place in places], labels)
    for text, (row, _) in zip(ax.get_yticklabels(), places, strict=False):  # there are no labels if another panel has them
        if row is None:
            text.set(color=GREY, fontsize=7, fontstyle="italic")
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(y - 0.45, -0.5)
    ax.spines["left"].set_visible(False)
    return [(row, place) for row, place in places if row is not None]


def _dot(ax: Axes, y: float, estimate: Estimate, row: Row, styles: Looks, *, marker: str | None = None, hollow: bool | None = None) -> None:
    """Draw a mean and its interval. Scripted agents are hollow grey diamonds."""
    if estimate.mean is None:
        ax.text(0.5, y, "–", transform=ax.get_yaxis_transform(), ha="center", va="center", color=GREY)
        return
    look = styles[row.name] if row.learned else Look(GREY, "-", "d")
    ax.plot(interval(estimate), [y, y], color=look.colour, zorder=2)
    face = "white" if (not row.learned if hollow is None else hollow) else look.colour
    ax.plot([estimate.mean], [y], marker or look.marker, color=look.colour, markerfacecolor=face, zorder=3)


def _limits(estimates: Sequence[Estimate]) -> tuple[float, float]:
    """Horizontal limits that show all means, and as much of the intervals as leaves the means apart."""
    means = [estimate.mean for estimate in estimates if estimate.mean is not None] or [0.0]
    ends = [interval(estimate) for estimate in estimates if estimate.mean is not None] or [(0.0, 0.0)]
    span = max(means) - min(means) or max(abs(means[0]), 0.1)
    low, high = max(min(low for low, _ in ends), min(means) - 0.4 * span), min(max(high for _, high in ends), max(means) + 0.4 * span)
    return low - 0.06 * span, high + 0.06 * span


def _tall_figure(rows: Sequence[Row], step: float, *, panels: int = 1) -> Figure:
    """A figure with room for rows, each at least ``step`` inches high. Its panels are stacked."""
    n_lines = max((drawable(row.name, 18).count("\n") + 1 for row in rows), default=1)
    n_groups = len({row.learned for row in rows})
    height = panels * (0.8 + (len(rows) + 1.1 * n_groups) * max(step, 0.13 * n_lines + 0.04))
    return Figure((WIDTH, 0.2 + height), layout="constrained")
