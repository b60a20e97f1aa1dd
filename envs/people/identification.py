"""What choices between updates cannot tell, and how far they are to be trusted."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import gammaincinv

from .choice_model import EITHER_SIDE, Choices
from .comparisons import Floats
from .held_out import HeldOut

CONDITION = 30.0
"""Condition number from which effects move together too much for precise weights (Belsley, Kuh & Welsch 1980)."""
SINGULAR = 1e4
"""Condition number from which their weights are not told apart at all."""


def check_settings(confidence: float, penalty: float, folds: int) -> None:
    """Refuse settings of a fit that are out of range."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence}: must lie between 0 and 1")
    if not (math.isfinite(penalty) and penalty > 0):
        raise ValueError(f"penalty={penalty}: must be positive and finite")
    if folds < 2:
        raise ValueError(f"folds={folds}: must be at least 2")


def doubts(p_value: float | None, accuracy: HeldOut | None, confidence: float) -> list[str]:
    """What a reader should know if the choices are not predicted better than by guessing."""
    if accuracy is None:
        return ["there are too few choices to hold any out, so nothing says how well others would be predicted"]
    if max(p_value or 0.0, accuracy.p_value) <= 1 - confidence:
        return []
    return [
        f"the choices cannot be told from guessing (held-out accuracy {accuracy.accuracy:.0%}, p = {accuracy.p_value:.2g}"
        + (f"; all weights 0: p = {p_value:.2g}" if p_value is not None else "")
        + "): they are too few, contradict each other, or rest on what is not shown"
    ]


def unit_vector(weights: Floats, spread: Floats, confidence: float) -> tuple[Floats, float]:
    """A weight vector's direction, and the angle in degrees around it that holds the true one with the given confidence.

    The squared angle is, to first order, a weighted sum of squares of normal numbers, whose quantile is Satterthwaite's.
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
    """Which effects no weight can be given to, and which move together, by the condition indices of the scaled differences.

    Args:
        choices: The choices.
        names: Names of the linear columns.

    Returns:
        Reasons by name, for effects whose weights no data identify; and warnings.

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
                    f"the effects on {' and '.join(sorted(part))} move together in these pairs (condition number {index:.0f}): their "
                    "weights are told apart poorly; offer pairs that trade one for the other"
                )
    for name in sorted(together):
        others = ", ".join(sorted(together - {name}))
        unidentified[name] = f"its effect moves with {others} in all pairs, so only a combination of their weights is known"
    return unidentified, warnings


def say_why_no_tolerance(choices: Choices, m: int, name: str, unidentified: dict[str, str], warnings: list[str]) -> None:
    """Add to the statements why no tolerance is claimed for value m: no kink shows, or the pairs could not show one."""
    largest = float(max(choices.chosen[:, m].max(), choices.rejected[:, m].max()) * choices.scale[m])
    if len(choices.candidates(m)) > 1:
        warnings.append(f"{name}: no tolerance is claimed, because no steepening shows up to the largest harm offered, {largest:.3g}")
        return
    beyond = int((np.maximum(choices.chosen[:, m], choices.rejected[:, m]) > 0).sum())
    why = f"its tolerance: only {beyond} pairs have an option that harms it, too few to see where aversion steepens"
    if beyond >= 2 * EITHER_SIDE:
        why = f"its tolerance: the harms offered, up to {largest:.3g}, do not reach far enough to either side of any candidate"
    unidentified[name] = f"{unidentified[name]}; {why}" if name in unidentified else why
