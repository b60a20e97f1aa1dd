"""Figures of temptations: gains of cheats, best responses, heat maps of what proxies do, and Schelling diagrams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ..analysis.summary import interval, told
from ..temptations.cheats import Gain
from ..temptations.diagram import Diagram
from ..temptations.exploit import Response
from .drawing import BLUE, GREY, RULE, VERMILION, WIDTH, Drawing, drawable, drawing

_PAYS: Mapping[str, Any] = {"color": "white", "edgecolor": VERMILION, "hatch": "/////"}
_PAYS_NOT: Mapping[str, Any] = {"color": "#56B4E9", "edgecolor": "#56B4E9"}
_FILLED: tuple[Literal["full", "none"], ...] = ("full", "none")
MOST_ROUNDS = 64
"""Most rounds of a trace that are drawn."""


def cheat_gains(gains: Sequence[Gain]) -> Drawing:
    """What each cheat gains, with its interval; those that pay are hatched."""
    figure, said = Figure((WIDTH, 0.75 + 0.24 * len(gains)), layout="constrained"), []
    ax = figure.subplots()
    for y, one in enumerate(gains):
        ax.barh(y, one.gain.mean or 0.0, height=0.66, linewidth=0.8, **(_PAYS if one.pays else _PAYS_NOT))
        ax.plot(interval(one.gain), [y, y], color="black", linewidth=1)
        said.append(f"{one.cheat}: {told(one.gain, 2)}")
    _named_rows(ax, [one.cheat for one in gains])
    ax.axvline(0, color=RULE, linewidth=0.8)
    ax.set(xlabel="gain over the honest self, reward units an episode")
    keys = [Patch(facecolor=look["color"], edgecolor=look["edgecolor"], hatch=look.get("hatch")) for look in (_PAYS, _PAYS_NOT)]
    figure.legend(keys, ["pays", "does not pay, or by less than its interval"], loc="outside upper left", ncols=2)
    return drawing("gains", figure, said)


def response_curves(responses: Sequence[Response], titles: Sequence[str]) -> Drawing:
    """Returns of the best responses as they were learned."""
    figure, said = Figure((WIDTH, 2.4), layout="constrained"), []
    ax = figure.subplots()
    looks = ((BLUE, "-"), (VERMILION, "--"))
    for response, title, (colour, dashes) in zip(responses, titles, looks, strict=False):
        x, y = (np.array([point[part] for point in response.curve]) for part in (0, 1))
        size = max(len(y) // 20, 1)
        ax.plot(x, y, color=colour, alpha=0.25, linewidth=0.7)
        ax.plot(x[size - 1 :], np.convolve(y, np.ones(size) / size, "valid"), color=colour, linestyle=dashes, label=title)
        said.append(f"against {title}: from {y[:size].mean():.1f} to {y[-size:].mean():.1f}")
    ax.set(xlabel="agent-steps", ylabel="its return, reward units")
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.yaxis.set_major_locator(MaxNLocator(5))
    figure.legend(loc="outside upper left", ncols=2)
    return drawing("curves", figure, said)


def response_shares(response: Response) -> Drawing:
    """How often the best response chooses each item, beside the policy that it departs from."""
    names = [name for name, pair in response.shares.items() if max(pair) > 0] or list(response.shares)
    figure, said = Figure((WIDTH, 0.75 + 0.3 * len(names)), layout="constrained"), []
    ax = figure.subplots()
    for y, name in enumerate(names):
        for share, look, dy in zip(response.shares[name], (_PAYS, _PAYS_NOT), (-0.2, 0.2), strict=True):
            ax.barh(y + dy, share, height=0.36, linewidth=0.8, **look)
        said.append(f"{name}: {response.shares[name][0]:.0%}, before {response.shares[name][1]:.0%}")
    _named_rows(ax, names)
    ax.set(xlabel="share of the rounds in which it can be chosen", xlim=(0, 1))
    ax.xaxis.set_major_formatter(PercentFormatter(1, None, " %"))
    keys = [Patch(facecolor=look["color"], edgecolor=look["edgecolor"], hatch=look.get("hatch")) for look in (_PAYS, _PAYS_NOT)]
    figure.legend(keys, ["best response", "the policy that it departs from"], loc="outside upper left", ncols=2)
    return drawing("shares", figure, said)


def response_trace(response: Response) -> Drawing:
    """One episode of the best response: what was sent, what entered, and what it earned."""
    rounds = response.trace[:MOST_ROUNDS]
    names = list(dict.fromkeys(name for one in rounds for name in one["sent"])) or ["nothing"]
    names.sort(key=lambda name: not name.startswith("lot "))
    figure, said = Figure((WIDTH, 1.9 + 0.2 * len(names)), layout="constrained"), []
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[0.2 * len(names) + 0.1, 1.2])
    for t, one in enumerate(rounds, 1):
        for name in one["sent"]:
            entered = name in one["admitted"]
            top.plot(t, names.index(name), marker="s", markersize=5, color=BLUE, fillstyle="full" if entered else "none")
        said.append(f"round {t}: sent {', '.join(one['sent']) or 'nothing'}, earned {one['reward']:.1f}")
    _named_rows(top, names)
    top.grid(visible=True, axis="x")
    bottom.bar(range(1, len(rounds) + 1), [one["reward"] for one in rounds], color="#56B4E9", width=0.7)
    bottom.plot(range(1, len(rounds) + 1), [one["welfare"] for one in rounds], color=VERMILION, marker="o", markersize=3)
    bottom.axhline(0, color=RULE, linewidth=0.8)
    bottom.set(xlabel="round", ylabel="reward units")
    bottom.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    bottom.yaxis.set_major_locator(MaxNLocator(4))
    keys: list[Any] = [Line2D([], [], color=BLUE, marker="s", linestyle="", fillstyle=style, markersize=5) for style in _FILLED]
    keys += [Patch(facecolor="#56B4E9"), Line2D([], [], color=VERMILION, marker="o", markersize=3)]
    words = ["sent and entered", "sent, did not enter, or a lever", "its reward", "the cooperative's welfare"]
    figure.legend(keys, words, loc="outside upper left", ncols=2)
    return drawing("trace", figure, said)


def heat_map(
    key: str, rows: Sequence[str], columns: Sequence[str], numbers: Sequence[Sequence[float | None]], unit: str, *, share: bool = False
) -> Drawing:
    """A table of numbers as colours, with the numbers written in the cells.

    Args:
        key: Name of the figure.
        rows: Names of the rows, from the top.
        columns: Names of the columns.
        numbers: By row and column; ``None`` where undefined.
        unit: What the numbers are.
        share: Whether they are shares from 0 to 1. Otherwise 0 is the middle of the colours.
    """
    table = np.array([[np.nan if one is None else one for one in row] for row in numbers], dtype=float)
    width = max(WIDTH, 1.6 + 0.52 * len(columns))
    figure = Figure((width, 1.15 + 0.22 * len(rows)), layout="constrained")
    ax = figure.subplots()
    largest = float(np.nanmax(np.abs(table), initial=1e-9))
    norm = Normalize(0, 1) if share else TwoSlopeNorm(0, -largest, largest)
    image = ax.imshow(table, cmap="Blues" if share else "PuOr_r", norm=norm, aspect="auto")
    said = []
    for i, row in enumerate(table):
        for j, number in enumerate(row):
            if np.isnan(number):
                ax.text(j, i, "–", ha="center", va="center", fontsize=6.5, color=GREY)
                continue
            text = f"{100 * number:.0f}" if share else f"{number:z.1f}".replace("-", "−")
            dark = number > 0.6 if share else abs(number) > 0.65 * largest
            ax.text(j, i, text, ha="center", va="center", fontsize=6.5, color="white" if dark else "black")
        cells = [f"{column} {'undefined' if np.isnan(one) else format(one, '.2f')}" for column, one in zip(columns, row, strict=True)]
        said.append(f"{rows[i]}: {', '.join(cells)}")
    ax.set_xticks(range(len(columns)), [drawable(name, 13) for name in columns], rotation=40, ha="left", rotation_mode="anchor")
    ax.set_yticks(range(len(rows)), [drawable(name, 30) for name in rows])
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    ax.grid(visible=False)
    for side in ax.spines.values():
        side.set_visible(False)
    bar = figure.colorbar(image, ax=ax, shrink=min(1.0, 6 / max(len(rows), 1) + 0.3), pad=0.02)
    bar.set_label(unit, fontsize=7.5)
    bar.ax.tick_params(labelsize=7)
    if share:
        bar.ax.yaxis.set_major_formatter(PercentFormatter(1, None, " %"))
    return drawing(key, figure, said)


def _named_rows(ax: Axes, names: Sequence[str]) -> None:
    ax.set_yticks(range(len(names)), [drawable(name, 30) for name in names])
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.xaxis.set_major_locator(MaxNLocator(6))
    ax.grid(visible=False, axis="y")


def schelling_panels(diagrams: Sequence[Diagram]) -> Drawing:
    """What honesty and the cheat earn against the number of others who are honest, a panel for each diagram."""
    n_columns = min(2, len(diagrams))
    n_rows = -(-len(diagrams) // n_columns)
    figure, said = Figure((WIDTH, 0.5 + 1.9 * n_rows), layout="constrained"), []
    axes = figure.subplots(n_rows, n_columns, squeeze=False).flatten()
    looks: tuple[tuple[str, str, Any, str], ...] = (("honest", BLUE, "-", "o"), ("cheating", VERMILION, "--", "s"))
    for ax, one in zip(axes, diagrams, strict=False):
        for which, colour, dashes, marker in looks:
            estimates = getattr(one, which)
            x, mean = range(len(estimates)), [estimate.mean or 0.0 for estimate in estimates]
            ends = np.array([interval(estimate) for estimate in estimates])
            ax.fill_between(x, ends[:, 0], ends[:, 1], color=colour, alpha=0.12, linewidth=0)
            ax.plot(x, mean, color=colour, linestyle=dashes, marker=marker, markersize=3.6)
            said.append(f"{one.rule}, {which}: {', '.join(told(estimate, 1) for estimate in estimates)}")
        ax.set_title(drawable(f"{one.rule}: {one.game}", 34))
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        ax.yaxis.set_major_locator(MaxNLocator(4))
    for ax in axes[len(diagrams) :]:
        ax.set_axis_off()
    figure.supxlabel("others who are honest", fontsize=8)
    figure.supylabel("return, reward units", fontsize=8)
    keys = [Line2D([], [], color=colour, linestyle=dashes, marker=marker, markersize=3.6) for _, colour, dashes, marker in looks]
    figure.legend(keys, ["honest", diagrams[0].cheat], loc="outside upper left", ncols=2)
    return drawing("schelling", figure, said)
