"""Figures of what screening did: who blocks whom, value losses with and without it, and predicted against realised harm."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from ..analysis.summary import Floats, told
from ..evaluate import Estimate
from .drawing import BLUE, GREY, RULE, VERMILION, WIDTH, Drawing, Look, drawable, drawing, fit, line

_SCREENED, _FREE = Look(BLUE, "-", "o"), Look(VERMILION, (0, (4, 2)), "s")
_ROOM = (0, (1, 1.2))
_LIMIT = (0, (6, 2))
"""Dashes of a limit for the episode."""
MOST_DOTS = 4000
"""Most dots of a scatter plot. Of more, evenly spaced ones are drawn, so that the page stays small."""
MOST_LETTERS = 42
"""Most letters that the column names of a matrix may have side by side before they touch."""


def blocks(key: str, shares: Floats, whose: Sequence[str], who: Sequence[str], of: str) -> Drawing:
    """Who blocks whom, as a matrix of shares.

    Args:
        key: The figure's key.
        shares: Share of the updates contributed from row r to which column c objects, ``(n_rows, n_columns)``; NaN where nothing was
            contributed.
        whose: The rows' names.
        who: The columns' names. Rows that are NaN throughout are left out.
        of: Who played, for the text.
    """
    rows = [r for r in range(len(whose)) if not np.isnan(shares[r]).all()]
    shares = shares[rows]
    row_names, column_names = [drawable(whose[r], 24) for r in rows], [drawable(name, 18) for name in who]
    n_lines = max((name.count("\n") + 1 for name in row_names), default=1)
    most_lines = max(name.count("\n") + 1 for name in column_names)
    longest = max(len(part) for name in column_names for part in name.split("\n"))
    tall = len(column_names) > 5 or longest * len(column_names) > MOST_LETTERS  # then the columns' names are written vertically
    if tall:
        column_names = [drawable(name, 24) for name in who]
        longest = max(len(part) for name in column_names for part in name.split("\n"))
    head = 0.5 + (longest * 0.075 if tall else 0.14 * most_lines)
    figure = Figure((WIDTH, round(head + len(rows) * max(0.3, 0.13 * n_lines + 0.06) + 0.3, 2)), layout="constrained")
    ax = figure.subplots()
    ax.pcolormesh(np.arange(len(who)), np.arange(len(rows)), np.nan_to_num(shares), cmap="Blues", vmin=0, vmax=1, shading="nearest")
    ax.invert_yaxis()
    said = [f"Updates of {of}"]
    for r, c in np.ndindex(shares.shape):
        text = told(Estimate(None if np.isnan(shares[r, c]) else float(shares[r, c]), None), 0, percent=True)
        colour = "white" if shares[r, c] > 0.55 else "black"
        ax.text(c, r, text.replace("\u00a0%", ""), ha="center", va="center", fontsize=7 if len(who) <= 12 else 5, color=colour)
        said.append(f"{whose[rows[r]]}, objected to by {who[c]}: {text}")
    ax.set_xticks(range(len(who)), column_names, rotation=90 if tall else 0)
    ax.set_yticks(range(len(rows)), row_names)
    ax.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    ax.spines[:].set_visible(False)
    ax.grid(visible=False)
    ax.set_xlabel("who objects", labelpad=6)
    ax.xaxis.set_label_position("top")
    ax.set_ylabel("whose updates, per cent")
    return drawing(key, figure, said)


def value_losses(names: Sequence[str], screened: Floats, free: Floats, tolerance: Floats, limit: Floats, of: str) -> Drawing:
    """Value losses over the rounds, with screening and where nobody screens, one panel per value.

    Args:
        names: The M values.
        screened: Losses with screening, ``(n_samples, T + 1, M)``; a sample is a seed or an episode.
        free: The same where nobody screens.
        tolerance: The strictest tolerance for one update in each round, ``(T, M)``, within what is left of limits; not finite where nobody
            has one.
        limit: The strictest limit on the rise over an episode, ``(M,)``; not finite where nobody has one.
        of: Who played, for the text.
    """
    figure, said = Figure((WIDTH, round(0.45 + 1.75 * len(names), 2)), layout="constrained"), [f"Play of {of}"]
    rounds = np.arange(screened.shape[1], dtype=np.float64)
    tolerated = limited = False
    for m, (ax, name) in enumerate(zip(figure.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0], names, strict=True)):
        line(ax, rounds, screened[..., m], "", _SCREENED, 0)
        line(ax, rounds, free[..., m], "", _FREE, 1)
        fit([ax])
        before, room = screened[:, :-1, m].mean(axis=0), tolerance[:, m]
        start, highest = float(screened[:, 0, m].mean()), ax.get_ylim()[1]
        low, high = ax.get_ylim()
        if np.isfinite(room).all():
            tolerated = True
            ax.plot(rounds[1:], before + room, color=GREY, linestyle=_ROOM, linewidth=1.1)
            highest = max(highest, float((before + room).max()) + 0.05 * (high - low))
        at_most = ""
        if np.isfinite(limit[m]):
            limited = True
            ax.axhline(start + limit[m], color=GREY, linestyle=_LIMIT, linewidth=1.1)
            highest = max(highest, start + float(limit[m]) + 0.05 * (high - low))
            at_most = f"; the limit is {start + limit[m]:.3g}"
        ax.set_ylim(low, highest)
        ax.set_title(drawable(name, 60))
        ends = (float(curves[:, -1, m].mean()) for curves in (screened, free))
        said.append(f"{name}: from {start:.3g} to {next(ends):.3g} screened and {next(ends):.3g} unscreened{at_most}")
    ax.set_xlabel("rounds played")
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    keys = [Line2D([], [], color=look.colour, linestyle=look.dashes, marker=look.marker) for look in (_SCREENED, _FREE)]
    keys += [Line2D([], [], color=GREY, linestyle=_ROOM)] * tolerated + [Line2D([], [], color=GREY, linestyle=_LIMIT)] * limited
    texts = ["screened", "had nobody screened", *["round's start + what is allowed"] * tolerated, *["limit"] * limited]
    figure.legend(keys, texts, loc="outside upper left", ncols=2 if len(keys) > 3 else 3)
    return drawing("value-losses", figure, said)


def harms(names: Sequence[str], predicted: Floats, realised: Floats, entered: NDArray[np.bool_], tolerance: Floats) -> Drawing:
    """Predicted against realised harm of every contributed update, one panel per value.

    Args:
        names: The M values.
        predicted: Predicted harm, ``(n, M)``, n ≥ 1.
        realised: Realised harm, ``(n, M)``.
        entered: Whether the update was let in as it was, bool ``(n,)``.
        tolerance: The strictest tolerance, as a mean over rounds, ``(M,)``; not finite where nobody has one.
    """
    figure, said = Figure((WIDTH, round(0.5 + 2.5 * -(-len(names) // 2), 2)), layout="constrained"), []
    axes = figure.subplots(-(-len(names) // 2), 2, squeeze=False).ravel()
    some = np.unique(np.linspace(0, len(predicted) - 1, min(len(predicted), MOST_DOTS)).astype(np.int64))
    for m, (ax, name) in enumerate(zip(axes, names, strict=False)):
        x, y = predicted[:, m], realised[:, m]
        for let_in, colour, marker in ((True, BLUE, "o"), (False, VERMILION, "x")):
            chosen = some[entered[some] == let_in]
            # beyond 500 dots, they are one bitmap inside the file, which is far smaller than as many shapes
            ax.scatter(x[chosen], y[chosen], s=9, c=colour, marker=marker, linewidths=0.7, alpha=0.55, rasterized=len(some) > 500)
        low, high = float(min(x.min(), y.min())), float(max(x.max(), y.max()))
        ax.plot([low, high], [low, high], color=RULE, linewidth=0.9, zorder=1)
        if np.isfinite(tolerance[m]):
            ax.axvline(tolerance[m], color=GREY, linestyle=(0, (3, 2)), linewidth=1)
            ax.axhline(tolerance[m], color=GREY, linestyle=(0, (3, 2)), linewidth=1)
        ax.set(xlabel="predicted harm", ylabel="realised harm")
        ax.set_title(drawable(name, 30))
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.yaxis.set_major_locator(MaxNLocator(4))
        fitted = float(np.corrcoef(x, y)[0, 1]) if len(x) > 1 and x.std() > 0 and y.std() > 0 else float("nan")
        said.append(f"{name}: {len(x)} updates, correlation {fitted:.2f}")
    for ax in axes[len(names) :]:
        ax.set_visible(False)
    keys = [
        Line2D([], [], color=colour, marker=marker, linestyle="", markersize=4) for colour, marker in ((BLUE, "o"), (VERMILION, "x"))
    ] + [Line2D([], [], color=GREY, linestyle=(0, (3, 2)), linewidth=1)]
    figure.legend(keys, ["entered as it was", "blocked or mended", "allowed, in the mean"], loc="outside upper left", ncols=3)
    return drawing("harms", figure, said)
