"""Figures of a tuning: scores of the trials, scores against each parameter, and the comparison on held-out seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator

from ..analysis.summary import interval, told
from ..grid import in_words
from ..pages.drawing import BLUE, GREY, RULE, VERMILION, WIDTH, Drawing, drawable, drawing
from .found import Tuned
from .objectives import OBJECTIVES
from .parameters import Parameter
from .plan import without_part
from .search import Trial
from .words import PLACES, in_figures

_TRIAL, _DEFAULT, _BEST = "o", "s", "*"
_FILLED: Mapping[str, Literal["full", "none"]] = {_TRIAL: "none", _DEFAULT: "full", _BEST: "full"}
_COLOURS = {_TRIAL: BLUE, _DEFAULT: "black", _BEST: VERMILION}
_SIZES = {_TRIAL: 4.0, _DEFAULT: 5.5, _BEST: 10.0}


def history(found: Tuned) -> Drawing:
    """The score of each trial, and the best so far."""
    figure, said = Figure((WIDTH, 2.9), layout="constrained"), []
    ax = figure.subplots()
    scored = _scored(found)
    numbers = [one.number + 1 for one in scored]
    best = np.maximum.accumulate([one.score or 0.0 for one in scored])
    ax.step(numbers, best, where="post", color=BLUE, linewidth=1.3)
    for one in scored:
        _mark(ax, one.number + 1, one, found)
        said.append(f"trial {one.number + 1}: {in_figures(one.score)}")
    ax.set(xlabel="trial", ylabel=_axis(found))
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    ax.yaxis.set_major_locator(MaxNLocator(5))
    keys = [Line2D([], [], color=BLUE, linewidth=1.3), *_keys(found)]
    figure.legend(keys, ["best so far", *_names(found)], loc="outside upper left", ncols=4, handletextpad=0.4)
    return drawing("history", figure, [*said, f"best: trial {found.best.number + 1}"])


def by_parameter(found: Tuned) -> Drawing:
    """The score against each parameter, a panel each."""
    parameters = found.plan.parameters
    n_columns = min(2, len(parameters))
    n_rows = math.ceil(len(parameters) / n_columns)
    figure, said = Figure((WIDTH, 0.55 + 2.0 * n_rows), layout="constrained"), []
    axes = figure.subplots(n_rows, n_columns, sharey=True, squeeze=False).ravel()
    for ax, parameter in zip(axes, parameters, strict=False):
        for one in _scored(found):
            _mark(ax, _place(parameter, one), one, found)
        _finish(ax, parameter)
        points = [f"{in_words(one.values[parameter.name])}: {in_figures(one.score)}" for one in _scored(found)]
        said.append(f"by {without_part(parameter.name)}: {', '.join(points)}")
    for ax in axes[len(parameters) :]:
        ax.set_visible(False)
    figure.supylabel(drawable(_axis(found), 24 if n_rows == 1 else 60), fontsize=8)
    figure.legend(_keys(found), _names(found), loc="outside upper left", ncols=3, handletextpad=0.4)
    return drawing("parameters", figure, said)


def held_out(found: Tuned) -> Drawing:
    """The tuned parameters and the defaults on held-out seeds, with intervals, and what each scored in the search."""
    compared = found.held_out
    assert compared is not None
    figure, said = Figure((WIDTH, 2.5), layout="constrained"), []
    left, right = figure.subplots(1, 2, width_ratios=[1.7, 1])
    for y, (which, trial) in enumerate((("tuned", found.best), ("default", found.default))):
        estimate = compared.of(which, found.objective)
        colour = VERMILION if which == "tuned" else GREY
        left.plot(interval(estimate), [y, y], color=colour, linewidth=1.6)
        left.plot(estimate.mean or 0.0, y, color=colour, marker="o", markersize=5)
        said.append(f"{which}, held-out seeds: {told(estimate, PLACES)}")
        if trial is not None and trial.score is not None:
            left.plot(trial.score, y - 0.2, color=colour, marker="D", markersize=4.5, fillstyle="none", linestyle="")
            said.append(f"{which}, tuning seeds: {in_figures(trial.score)}")
    left.set_yticks([0, 1], ["tuned", "defaults"])
    left.set_ylim(1.5, -0.6)
    left.set(xlabel=drawable(_axis(found), 34))
    gap = compared.difference(found.objective)
    by_seed = [np.mean(a) - np.mean(b) for a, b in zip(compared.tuned[found.objective], compared.default[found.objective], strict=True)]
    right.axvline(0, color=RULE, linewidth=0.8)
    right.plot(by_seed, [0.35] * len(by_seed), color=BLUE, marker="o", markersize=3.6, fillstyle="none", linestyle="")
    right.plot(interval(gap), [0, 0], color=BLUE, linewidth=1.6)
    right.plot(gap.mean or 0.0, 0, color=BLUE, marker="o", markersize=5)
    right.set_yticks([0, 0.35], ["mean", "seeds"])
    right.set_ylim(0.8, -0.6)
    right.set(xlabel="tuned less defaults")
    for ax in (left, right):
        ax.tick_params(axis="y", length=0)
        ax.grid(visible=False, axis="y")
        ax.xaxis.set_major_locator(MaxNLocator(4))
    keys = [
        Line2D([], [], color="black", marker="o", markersize=5, linewidth=1.6),
        Line2D([], [], color="black", marker="D", markersize=4.5, fillstyle="none", linestyle=""),
    ]
    figure.legend(keys, ["held-out seeds, 95 %", "in the search"], loc="outside upper left", ncols=2)
    return drawing("held-out", figure, [*said, f"difference: {told(gap, PLACES)}"])


def _scored(found: Tuned) -> list[Trial]:
    return [one for one in found.trials if one.score is not None]


def _marker(trial: Trial, found: Tuned) -> str:
    return _BEST if trial.number == found.best.number else _DEFAULT if trial.is_default else _TRIAL


def _mark(ax: Axes, x: float, trial: Trial, found: Tuned) -> None:
    marker, score = _marker(trial, found), trial.score or 0.0
    layer = 2 if marker == _TRIAL else 3
    ax.plot(x, score, marker=marker, color=_COLOURS[marker], markersize=_SIZES[marker], fillstyle=_FILLED[marker], zorder=layer)


def _keys(found: Tuned) -> list[Line2D]:
    shown = [marker for marker in _SIZES if marker in {_marker(one, found) for one in _scored(found)}]
    return [Line2D([], [], color=_COLOURS[m], marker=m, markersize=_SIZES[m], fillstyle=_FILLED[m], linestyle="") for m in shown]


def _names(found: Tuned) -> list[str]:
    words = {_TRIAL: "a trial", _DEFAULT: "defaults", _BEST: "the best"}
    return [word for marker, word in words.items() if marker in {_marker(one, found) for one in _scored(found)}]


def _place(parameter: Parameter, trial: Trial) -> float:
    """Where a trial stands on a parameter's axis: at its number, or at the place of its choice."""
    value = trial.values[parameter.name]
    return float(value) if parameter.choices is None else list(parameter.choices).index(parameter.text_of(value) or "")


def _finish(ax: Axes, parameter: Parameter) -> None:
    """An axis's limits, scale and ticks."""
    ax.set_xlabel(drawable(without_part(parameter.name), 34))
    ax.yaxis.set_major_locator(MaxNLocator(5))
    if parameter.choices is not None:
        ax.set_xticks(range(len(parameter.choices)), [drawable(text, 12) for text in parameter.choices])
        ax.set_xlim(-0.5, len(parameter.choices) - 0.5)
        return
    assert parameter.low is not None
    assert parameter.high is not None
    low, high = float(parameter.low), float(parameter.high)
    if parameter.log:
        ax.set_xscale("log")
        ticks = np.geomspace(low, high, 4)
        ax.set_xticks(ticks, [f"{tick:.3g}" for tick in ticks])
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xlim(low * (low / high) ** 0.03, high * (high / low) ** 0.03)
    else:
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=parameter.is_whole))
        ax.set_xlim(low - 0.03 * (high - low), high + 0.03 * (high - low))


def _axis(found: Tuned) -> str:
    return f"{OBJECTIVES[found.objective].title}, reward units"
