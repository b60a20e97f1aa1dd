"""Figures of a sweep: a measure against a varied setting, a line with a 95 % band for every rule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator, PercentFormatter

from ..analysis.curves import SHARE_OF_REFERENCE, Curve, Panel, ScenarioSweep, in_title, is_share, places_of, unit_of
from ..analysis.summary import Floats, interval, told
from ..evaluate import Estimate
from ..grid import Setting, in_words
from ..sweep import figure_name
from .drawing import GREY, WIDTH, Drawing, End, Look, Looks, drawable, drawing, figure_of_lines, fit, house_style, name_ends

_REFERENCE = Look(GREY, (0, (8, 2)), "")
_SCRIPTED = (Look(GREY, (0, (4, 2)), "d"), Look(GREY, (0, (1, 1)), "p"), Look(GREY, (0, (3, 1, 1, 1)), "h"), Look(GREY, (0, (1, 3)), "*"))
_OF_RULE = (0, (1, 2))
_MOST_LABELS = 9
"""Values of a setting beyond which the axis labels round numbers instead of the values."""


def sweep_figures(found: ScenarioSweep, styles: Looks, measure: str = SHARE_OF_REFERENCE) -> list[Drawing]:
    """A figure for every varied setting of a scenario.

    With one varied setting, names stand at the curves' ends. With more, a figure has a small panel for every combination of the other
    settings' values, with the same axes.

    Args:
        found: What the sweep found in the scenario.
        styles: Looks of the rules; see :func:`~proxycoop.training.pages.figures.looks`.
        measure: What is drawn.

    Raises:
        ValueError: If there is no such measure.
    """
    made = []
    with house_style():
        for setting in found.settings:
            panels = found.panels(setting, measure)
            draw = _whole if len(panels) == 1 else _small
            made.append(draw(figure_name(found.name, setting), panels, styles, measure))
    return made


def _whole(key: str, panels: Sequence[Panel], styles: Looks, measure: str) -> Drawing:
    """One panel, with names at the curves' ends."""
    (panel,) = panels
    figure = figure_of_lines([curve.name for curve in panel.curves], 3.1)
    ax = figure.subplots()
    ends = _draw(ax, panel, styles)
    ax.set_ylabel(_axis_of(measure))
    ax.set_xlabel(panel.setting.path)
    _finish([ax], [panel], measure)
    if ends:
        name_ends(figure, ax, ends)
    return drawing(key, figure, _in_words(panels, measure))


def _small(key: str, panels: Sequence[Panel], styles: Looks, measure: str) -> Drawing:
    """Small panels side by side, with one legend."""
    n_columns = 3 if len(panels) in (3, 5, 6, 9) else 2
    n_rows = math.ceil(len(panels) / n_columns)
    titles = [drawable(panel.title, 34 if n_columns == 2 else 26) for panel in panels]
    curves = {curve.label: (curve, _look(curve, panel, styles)) for panel in panels for curve in panel.curves}
    height = 0.5 + 0.17 * math.ceil(len(curves) / 2) + n_rows * (1.55 + 0.14 * max(title.count("\n") for title in titles))
    figure = Figure((WIDTH, height), layout="constrained")
    axes = figure.subplots(n_rows, n_columns, sharex=True, sharey=True, squeeze=False).ravel()
    for i, ax in enumerate(axes):
        if i >= len(panels):
            ax.set_visible(False)
            continue
        _draw(ax, panels[i], styles)
        ax.set_title(titles[i])
        if i + n_columns >= len(panels):
            ax.tick_params(labelbottom=True)
    _finish(list(axes[: len(panels)]), panels, measure)
    figure.supxlabel(panels[0].setting.path, fontsize=8)
    figure.supylabel(_axis_of(measure) if n_rows > 1 else drawable(_axis_of(measure), 20), fontsize=8)
    keys = [Line2D([], [], color=look.colour, linestyle=look.dashes, marker=look.marker, markersize=3.6) for _, look in curves.values()]
    names = [drawable(curve.name, 32) for curve, _ in curves.values()]
    figure.legend(keys, names, loc="outside upper left", ncols=2, handlelength=3.2)
    return drawing(key, figure, _in_words(panels, measure))


def _draw(ax: Axes, panel: Panel, styles: Looks) -> list[End]:
    """Draw a panel's curves with their bands. Returns their ends."""
    places, ends = _places(panel.setting), []
    for curve in panel.curves:
        look = _look(curve, panel, styles)
        known = [i for i, estimate in enumerate(curve.estimates) if estimate.mean is not None]
        if not known:
            continue
        x: Floats = places[known]
        low, high = np.array([interval(curve.estimates[i]) for i in known]).T
        mean = np.array([curve.estimates[i].mean for i in known], dtype=np.float64)
        if curve.kind != "reference" and (high > low).any():
            if curve.kind == "learned":
                ax.fill_between(x, low, high, color=look.colour, alpha=0.13, linewidth=0)
            else:  # an outline: where bands of one colour lie over each other, one sees whose they are
                ax.fill_between(x, low, high, facecolor="none", edgecolor=look.colour, alpha=0.6, linewidth=0.6, linestyle=(0, (1, 1.5)))
        width = 1.0 if curve.kind == "reference" else 1.3
        ax.plot(x, mean, color=look.colour, linestyle=look.dashes, marker=look.marker or None, markersize=3.6, linewidth=width)
        ends.append((float(places.max()), float(mean[-1]), curve.name, look.colour))
    return ends


def _finish(axes: Sequence[Axes], panels: Sequence[Panel], measure: str) -> None:
    """The axes' limits, scales and ticks."""
    setting = panels[0].setting
    drawn = [ax for ax in axes if len(ax.get_lines())]
    if drawn:
        fit(drawn)
    for ax in axes:
        if is_share(measure):
            ax.yaxis.set_major_formatter(PercentFormatter(1, None, " %"))
        places = _places(setting)
        if not setting.is_numeric:
            ax.set_xticks(places, [drawable(in_words(value), 14) for value in setting.values])
        elif is_logarithmic(setting):
            ax.set_xscale("log")
            ax.xaxis.set_minor_locator(NullLocator())
            _label_values(ax, setting, len(axes))
        elif is_even(setting) or len(setting.values) <= 4:
            _label_values(ax, setting, len(axes))
        else:
            ax.xaxis.set_major_locator(MaxNLocator(6 if len(axes) == 1 else 3, integer=all(isinstance(v, int) for v in setting.values)))
        margin = 0.0 if is_logarithmic(setting) else 0.02 * float(np.ptp(places))
        ax.set_xlim(float(places.min()) - margin, float(places.max()) + margin)


def _label_values(ax: Axes, setting: Setting, n_panels: int) -> None:
    """Label the values themselves, or every other one where there is no room."""
    values = sorted(setting.values)
    step = math.ceil(len(values) / (_MOST_LABELS if n_panels == 1 else 4))
    ax.xaxis.set_major_locator(FixedLocator(values[::step]))
    ax.xaxis.set_major_formatter(lambda value, _: in_words(float(f"{value:.6g}")))


def _places(setting: Setting) -> Floats:
    """Where a setting's values stand on its axis: numbers at their place, others one after another."""
    places: Floats = np.array(setting.values if setting.is_numeric else range(len(setting.values)), dtype=np.float64)
    return places


def is_even(setting: Setting) -> bool:
    """Whether a setting's values are evenly spaced."""
    gaps = np.diff(np.sort(_places(setting)))
    return bool(np.ptp(gaps) <= 1e-6 * gaps.max(initial=0.0))


def is_logarithmic(setting: Setting) -> bool:
    """Whether a setting's values are spread more evenly in their logarithms, over a factor of at least 20."""
    if not setting.is_numeric or min(setting.values) <= 0 or max(setting.values) < 20 * min(setting.values):
        return False
    values = np.sort(_places(setting))
    spread = [float(gaps.std() / gaps.mean()) for gaps in (np.diff(values), np.diff(np.log(values)))]
    return spread[1] < spread[0]


def _look(curve: Curve, panel: Panel, styles: Looks) -> Look:
    if curve.kind == "learned":
        return styles[curve.name]
    if curve.kind == "reference":
        return _REFERENCE
    rule = curve.name.partition(", ")[2]
    if rule in styles:  # an agent that plays what the rule pays for: in the rule's colour
        return Look(styles[rule].colour, _OF_RULE, "")
    scripted = [one.name for one in panel.curves if one.kind == "scripted"]
    return _SCRIPTED[scripted.index(curve.name) % len(_SCRIPTED)]


def _axis_of(measure: str) -> str:
    return f"{in_title(measure)}{'' if is_share(measure) else f', {unit_of(measure)}'}"


def _in_words(panels: Sequence[Panel], measure: str) -> list[str]:
    """The curves in words and numbers."""
    said = []
    for panel in panels:
        where = f" ({panel.title})" if panel.title else ""
        for curve in panel.curves:
            n_places = places_of(measure, curve.estimates)
            pairs: list[tuple[Any, Estimate]] = list(zip(panel.setting.values, curve.estimates, strict=True))
            numbers = ", ".join(f"{in_words(value)}: {told(estimate, n_places, percent=is_share(measure))}" for value, estimate in pairs)
            said.append(f"{curve.label}{where}, by {panel.setting.path}: {numbers}")
    return said
