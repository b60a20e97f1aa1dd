"""Checks of arguments that rules share: numbers of players, budgets, seeds and other numbers. NumPy's numbers are taken as Python's are."""

from __future__ import annotations

from math import isfinite, isnan

import numpy as np


def is_number(value: object, *, finite: bool = True) -> bool:
    """Whether something is a number: no bool, never NaN, and finite unless ``finite=False``."""
    if not isinstance(value, int | float | np.integer | np.floating) or isinstance(value, bool):
        return False
    try:
        return isfinite(value) if finite else not isnan(value)
    except OverflowError:  # a whole number that is too large for a float
        return False


def is_whole(value: object, least: int) -> bool:
    """Whether something is a whole number of at least ``least``, and no bool."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(value >= least)


def checked_players(n_players: int, name: str = "n_players") -> int:
    """The number of players, if it is valid, as a Python number: 2**n of a NumPy one overflows without a word.

    Args:
        n_players: What the caller passed.
        name: What the argument is called there.

    Raises:
        ValueError: If it is not a whole number from 1.
    """
    if not is_whole(n_players, 1):
        raise ValueError(f"{name}={n_players!r}: must be a whole number, and a game needs at least one player")
    return int(n_players)


def checked_budget(budget: int | None) -> int | None:
    """The budget, if it is valid, as a Python number.

    Raises:
        ValueError: If it is neither ``None`` nor a positive whole number.
    """
    if budget is not None and not is_whole(budget, 1):
        raise ValueError(f"budget={budget!r}: must be a positive whole number of coalition evaluations, or None")
    return None if budget is None else int(budget)


def checked_seed(seed: int) -> int:
    """The seed, if it is valid, as a Python number.

    Raises:
        ValueError: If it is negative or not whole.
    """
    if not is_whole(seed, 0):
        raise ValueError(f"seed={seed!r}: must be a whole number from 0")
    return int(seed)
