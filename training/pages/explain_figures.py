"""Figures of an explanation: what proxies are worth and what they are paid, and what seeing each feature is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, MaxNLocator

from ..analysis.explain import FeatureWorth, ProxyWorth
from ..analysis.summary import interval, told
from ..evaluate import Estimate
from .drawing import BLUE, RULE, VERMILION, WIDTH, Drawing, drawable, drawing

_SOLID: Mapping[str, Any] = {"color": "#56B4E9", "edgecolor": "#56B4E9"}
_HATCHED: Mapping[str, Any] = {"color": "white", "edgecolor": VERMILION, "hatch": "/////"}


def proxies(found: ProxyWorth) -> Drawing:
    """Worth of the proxies by rank, beside what they were paid."""
    n = found.returns.shape[1]
    paid = [Estimate.of(column) for column in found.returns.unbind(dim=1)]
    figure, said = Figure((WIDTH, 2.6), layout="constrained"), []
    ax = figure.subplots()
    for estimates, what, look, dx in ((found.worth.means[0], "worth", _SOLID, -0.2), (paid, "pay", _HATCHED, 0.2)):
        for i, estimate in enumerate(estimates):
            ax.bar(i + 1 + dx, estimate.mean or 0.0, width=0.38, linewidth=0.8, **look)
            ax.plot([i + 1 + dx] * 2, interval(estimate), color="black", linewidth=1)
            said.append(f"{what} of rank {i + 1}: {told(estimate, 2)}")
    ax.axhline(0, color=RULE, linewidth=0.8)
    ax.set(xlabel="rank by clean lots, most first", ylabel="reward units an episode", xlim=(0.4, n + 0.6))
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True) if n > 12 else FixedLocator(range(1, n + 1)))
    ax.grid(visible=False, axis="x")
    keys = [Patch(facecolor=look["color"], edgecolor=look["edgecolor"], hatch=look.get("hatch")) for look in (_SOLID, _HATCHED)]
    figure.legend(keys, ["what its policy is worth to all", "what it is paid"], loc="outside upper left", ncols=2)
    return drawing("proxies", figure, said)


def pay(found: ProxyWorth) -> Drawing:
    """Worth against pay of every proxy in every episode."""
    worth, paid = found.welfare.flatten().numpy(), found.returns.flatten().numpy()
    least_clean = found.clean <= found.clean.double().mean()  # no more clean lots than the mean
    figure = Figure((WIDTH, 3.3), layout="constrained")
    ax = figure.subplots()
    for few, colour, marker in ((False, BLUE, "o"), (True, VERMILION, "x")):
        chosen = (least_clean == few).flatten().numpy()
        ax.scatter(worth[chosen], paid[chosen], s=13, c=colour, marker=marker, linewidths=0.8, alpha=0.7, rasterized=len(worth) > 500)
    ends = [float(min(worth.min(), paid.min())), float(max(worth.max(), paid.max()))]
    ax.plot(ends, ends, color=RULE, linewidth=0.9, zorder=1)
    ax.set(xlabel="worth of a proxy's policy in an episode, reward units", ylabel="its pay, reward units")
    ax.xaxis.set_major_locator(MaxNLocator(6))
    ax.yaxis.set_major_locator(MaxNLocator(6))
    keys = [Line2D([], [], color=c, marker=m, linestyle="", markersize=4) for c, m in ((BLUE, "o"), (VERMILION, "x"))]
    keys.append(Line2D([], [], color=RULE, linewidth=0.9))
    figure.legend(keys, ["more clean lots than the mean", "no more", "paid what it is worth"], loc="outside upper left", ncols=3)
    said = [f"{len(worth)} proxies in {len(found.welfare)} episodes", f"correlation within episodes {told(found.pearson, 2)}"]
    return drawing("pay", figure, said)


def outcomes(found: FeatureWorth) -> Drawing:
    """What seeing each feature is worth in welfare."""
    means = found.outcomes.means[0]
    order = found.ranked(means).order
    names = [found.outcomes.players[i] for i in order]
    figure = Figure((WIDTH, 2.0), layout="constrained")
    ax = figure.subplots()
    said = _bars(ax, names, [means[i] for i in order])
    ax.set(xlabel="welfare that seeing the feature adds, reward units")
    _key(figure)
    _make_room(figure, ax)
    return drawing("outcomes", figure, said)


def behaviour(found: FeatureWorth) -> Drawing:
    """How far each feature moves the probability of contributing a lot, and whether it favours clean lots."""
    order = found.ranked(found.influence).order
    names = [found.outcomes.players[i] for i in order]
    panels: list[tuple[str, str, Sequence[Estimate]]] = [("Influence", "mean move, points of 100", found.influence)]
    if any(estimate.mean is not None for estimate in found.discrimination.means[0]):
        panels.append(("Tells clean from corrupt", "clean above corrupt, points", found.discrimination.means[0]))
    figure, said = Figure((WIDTH, 2.0), layout="constrained"), []
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for ax, (title, unit, estimates) in zip(axes, panels, strict=True):
        said += [f"{title}, {text}" for text in _bars(ax, names, [_percent(estimates[i]) for i in order])]
        ax.set(title=title, xlabel=unit)
    _key(figure)
    _make_room(figure, axes[0])
    return drawing("behaviour", figure, said)


def _percent(estimate: Estimate) -> Estimate:
    return Estimate(*(None if number is None else 100 * number for number in (estimate.mean, estimate.half_width)))


def _make_room(figure: Figure, ax: Axes) -> None:
    """Make a figure of bars as high as its names need. What stands around the bars has the same height, however many there are."""
    labels = [label.get_text() for label in ax.get_yticklabels()]
    n_lines = max(text.count("\n") + 1 for text in labels)
    figure.draw_without_rendering()  # lays the figure out, so that sizes are known
    lacking = len(labels) * (0.06 + 0.13 * n_lines) - ax.get_window_extent().height / figure.dpi
    figure.set_size_inches(WIDTH, round(figure.get_figheight() + lacking, 2))


def _bars(ax: Axes, names: Sequence[str], estimates: Sequence[Estimate]) -> list[str]:
    """Draw a horizontal bar with its interval for each name, the first on top. Returns the bars in words."""
    said = []
    for y, (name, estimate) in enumerate(zip(names, estimates, strict=True)):
        look = _SOLID if name.startswith("lot/") else _HATCHED
        ax.barh(y, estimate.mean or 0.0, height=0.66, linewidth=0.8, **look)
        ax.plot(interval(estimate), [y, y], color="black", linewidth=1)
        said.append(f"{name}: {told(estimate, 2)}")
    ax.axvline(0, color=RULE, linewidth=0.8)
    ax.set_yticks(range(len(names)), [drawable(name.partition("/")[2], 40) for name in names])
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.grid(visible=False, axis="y")
    return said


def _key(figure: Figure) -> None:
    keys = [Patch(facecolor=look["color"], edgecolor=look["edgecolor"], hatch=look.get("hatch")) for look in (_SOLID, _HATCHED)]
    figure.legend(keys, ["feature of the lot", "of the proxy or the cooperative"], loc="outside upper left", ncols=2)
