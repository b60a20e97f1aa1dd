"""What choices between updates cannot tell, and how far they can be trusted."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import gammaincinv

from .choice_model import EITHER_SIDE, Choices
from .comparisons import Floats
from .held_out import HeldOut

CONDITION = 30.0
"""From this condition number on, effects move together too much for precise weights (Belsley, Kuh & Welsch 1980)."""
SINGULAR = 1e4
"""From this condition number on, the effects' weights cannot be told apart at all."""


def check_settings(confidence: float, penalty: float, folds: int) -> None:
    """Refuse settings of a fit that are out of range.

    Raises:
        ValueError: If one is; the message names it.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence}: must lie between 0 and 1")
    if not (math.isfinite(penalty) and penalty > 0):
        raise ValueError(f"penalty={penalty}: must be positive and finite")
    if folds < 2:
        raise ValueError(f"folds={folds}: must be at least 2")


def doubts(p_value: float | None, accuracy: HeldOut | None, confidence: float) -> list[str]:
    """Warnings if the choices are not predicted better than by guessing, or nothing could be held out."""
    if accuracy is None:
        return ["there are too few choices to hold any out, so it is not known how well other choices would be predicted"]
    if max(p_value or 0.0, accuracy.p_value) <= 1 - confidence:
        return []
    return [
        f"the choices cannot be told from guessing (held-out accuracy {accuracy.accuracy:.0%}, p = {accuracy.p_value:.2g}"
        + (f"; all weights 0: p = {p_value:.2g}" if p_value is not None else "")
        + "): they are too few, contradict each other, or depend on something that is not shown"
    ]


def unit_vector(weights: Floats, spread: Floats, confidence: float) -> tuple[Floats, float]:
    """A weight vector's direction, and the angle around it, in degrees, that contains the true direction with the given confidence.

    To first order, the squared angle is a weighted sum of squares of normal numbers. Its quantile is Satterthwaite's approximation.
    """
    length = float(np.linalg.norm(weights))
    if len(weights) == 0 or length == 0:
        return np.empty(0), math.nan
    unit = weights / length
    across = np.eye(len(unit)) - np.outer(unit, unit)
    tangent = across @ spread @ across / length**2
    first, second = float(np.trace(tangent)), float(np.square(tangent).sum())
    if first <= 0 or second <= 0:  # a single value has no other direction
        return unit, 0.0
    square = second / first * 2 * gammaincinv(first**2 / second / 2, confidence)
    return unit, min(math.degrees(math.sqrt(square)), 180.0)


def what_moves(choices: Choices, names: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Find effects whose weights the data do not identify, and effects that move together, by condition indices of the scaled differences.

    Args:
        choices: The choices.
        names: Names of the linear columns.

    Returns:
        For effects whose weights are not identified, the reasons by name; and warnings.

    References:
        Belsley, Kuh & Welsch (1980), *Regression diagnostics*, chapter 3.
    """
    still = ~choices.linear.any(axis=0)
    unidentified = {
        names[j]: "its effect is the same in both options of every pair, so the choices say nothing about it"
        for j in np.flatnonzero(still).tolist()
    }
    moving = np.flatnonzero(~still).tolist()
    _, size, axes = np.linalg.svd(choices.linear[:, moving], full_matrices=True)
    size = np.append(size, np.zeros(len(moving) - len(size)))  # fewer choices than effects
    together: set[str] = set()
    warnings = []
    for s, axis in zip(size, axes, strict=True):
        index = size[0] / s if s > size[0] / SINGULAR else math.inf
        if index > CONDITION:
            part = {names[moving[j]] for j in np.flatnonzero(np.abs(axis) > 0.1)}
            if index == math.inf:
                together |= part
            else:
                warnings.append(
                    f"the effects on {' and '.join(sorted(part))} move together in these pairs (condition number {index:.0f}), so their "
                    "weights can hardly be told apart: offer pairs in which one falls and another rises"
                )
    for name in sorted(together):
        others = ", ".join(sorted(together - {name}))
        unidentified[name] = f"its effect moves with {others} in all pairs, so only a combination of their weights is known"
    return unidentified, warnings


def say_why_no_tolerance(choices: Choices, m: int, name: str, unidentified: dict[str, str], warnings: list[str]) -> None:
    """Add a statement that says why no tolerance is claimed for value m: the pairs show no kink, or could not show one."""
    largest = float(max(choices.chosen[:, m].max(), choices.rejected[:, m].max()) * choices.scale[m])
    if len(choices.candidates(m)) > 1:
        warnings.append(f"{name}: no tolerance is claimed, because aversion does not steepen up to the largest harm offered, {largest:.3g}")
        return
    beyond = int((np.maximum(choices.chosen[:, m], choices.rejected[:, m]) > 0).sum())
    why = f"its tolerance: only {beyond} pairs have an option that harms it, too few to see where aversion steepens"
    if beyond >= 2 * EITHER_SIDE:
        why = f"its tolerance: the harms offered, up to {largest:.3g}, do not reach far enough to either side of any candidate"
    unidentified[name] = f"{unidentified[name]}; {why}" if name in unidentified else why
