"""Checks of arguments that rules share: numbers, budgets and seeds."""

from __future__ import annotations

from math import isfinite, isnan


def is_number(value: object, *, finite: bool = True) -> bool:
    """Whether something is a number: no bool, never NaN, and finite unless ``finite=False``."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return isfinite(value) if finite else not isnan(value)
    except OverflowError:  # a whole number that is too large for a float
        return False


def is_whole(value: object, least: int) -> bool:
    """Whether something is a whole number of at least ``least``, and no bool."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def checked_budget(budget: int | None) -> int | None:
    """The budget, if it is valid.

    Raises:
        ValueError: If it is neither ``None`` nor a positive whole number.
    """
    if budget is not None and not is_whole(budget, 1):
        raise ValueError(f"budget={budget!r}: must be a positive whole number of coalition evaluations, or None")
    return budget


def checked_seed(seed: int) -> int:
    """The seed, if it is valid.

    Raises:
        ValueError: If it is negative or not whole.
    """
    if not is_whole(seed, 0):
        raise ValueError(f"seed={seed!r}: must be a whole number from 0")
    return seed
