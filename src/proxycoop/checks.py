"""Checks of arguments that many classes and functions share."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping
from typing import Any, SupportsFloat, SupportsIndex, TypeVar, cast

T = TypeVar("T")


def whole_number(name: str, came: object, low: int, high: int | None = None, hint: str = "") -> int:
    """A whole number as an ``int``. NumPy's integers count; ``True``, ``False`` and floats do not.

    Args:
        name: The argument's name, for the message.
        came: What was passed.
        low: The least that is allowed.
        high: The most that is allowed; ``None`` for no bound.
        hint: What the numbers mean, for the message, such as ``"seats go from 0 to 5"``. By default the bounds.

    Raises:
        ValueError: If it is no whole number, or out of bounds.
    """
    try:
        number = None if isinstance(came, bool) else operator.index(cast(SupportsIndex, came))
    except TypeError:
        number = None
    if number is None or number < low or (high is not None and number > high):
        bounds = hint or (f"must be a whole number, at least {low}" if high is None else f"must be a whole number from {low} to {high}")
        raise ValueError(f"{name}={came!r}: {bounds}")
    return number


def real_number(name: str, came: object, low: float = -math.inf, high: float = math.inf) -> float:
    """A finite number as a ``float``. Numbers of NumPy and tensors with one entry count; ``True``, ``False`` and text do not.

    Args:
        name: The argument's name, for the message.
        came: What was passed.
        low: The least that is allowed.
        high: The most that is allowed.

    Raises:
        ValueError: If it is no finite number, or out of bounds.
    """
    try:
        number = math.nan if isinstance(came, (bool, str, bytes)) else float(cast(SupportsFloat, came))
    except (TypeError, ValueError, RuntimeError, OverflowError):  # which one depends on what came
        number = math.nan
    if not (math.isfinite(number) and low <= number <= high):
        bounds = "a finite number" if math.isinf(low) and math.isinf(high) else f"a number from {low:g} to {high:g}"
        raise ValueError(f"{name}={came!r}: must be {bounds}")
    return number


def items_of(name: str, came: Iterable[T], of: str) -> list[T]:
    """The items of a list, or of anything else that can be gone through. Text is one item, not the list of its letters.

    Args:
        name: The argument's name, for the message.
        came: What was passed.
        of: What it holds, for the message: ``"names"``.

    Raises:
        ValueError: If it is text, bytes, a mapping, or cannot be gone through.
    """
    given: Any = came
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise ValueError(f"{name}={given!r}: give a list of {of}" + f", such as [{given!r}]" * isinstance(given, str))
    return list(given)
