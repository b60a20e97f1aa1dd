"""Apportionment: whole units in proportion to weights, so that the parts sum to the amount exactly.

Everything here is batch-first and exact. Arrays hold Python integers (``dtype=object``), so that no amount is too large, and rounding
happens only once. Credit is measured and comes as float64. Such a number is a whole number times a power of two, and is taken as exactly
that.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence, Set
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Whole = NDArray[np.object_]
"""Python integers in an array."""

_MANTISSA = 53  # bits of a float64's


def apportion(amount: Sequence[int] | Whole, weight: NDArray[np.float64] | Whole) -> Whole:
    r"""Split amounts in proportion to weights by the method of largest remainders (Hamilton 1792).

    .. math:: q_i = R \, w_i / {\textstyle\sum_j w_j}, \qquad r_i \in \{\lfloor q_i \rfloor, \lceil q_i \rceil\}, \qquad \sum_i r_i = R

    Everybody gets the whole part of their quota. The units that are left go to the largest fractions; ties go to whoever comes first.
    Raising one weight alone never lowers that one's part. The paradoxes of the method need a change of several weights, or of the amount.

    Args:
        amount: Whole, not negative, ``(batch,)``, in minor units.
        weight: Finite, not negative, ``(batch, n)``. A row of zeros is split equally.

    Returns:
        Whole numbers ``(batch, n)``, which sum to the amounts exactly.

    Raises:
        ValueError: If an amount is negative, a weight is negative or not finite, there is nobody to pay, or the shapes do not match.
        TypeError: If an amount is not a whole number, such as a float: money is counted, not measured.

    References:
        Balinski & Young (2001), *Fair Representation*, 2nd ed., Brookings.
    """
    w = whole_weights(weight)  # (B, n)
    r = checked_amounts(amount, len(w))  # (B,)
    w = np.where((w.sum(axis=1) == 0)[:, None], 1, w)
    return _rounded(r, r[:, None] * w, w.sum(axis=1))


def apportion_within(
    amount: Sequence[int] | Whole, weight: NDArray[np.float64] | Whole, floor: int = 0, cap: int | None = None
) -> tuple[Whole, Whole]:
    r"""Split amounts in proportion to weights, so that nobody gets less than ``floor`` or more than ``cap``.

    Quotas are :math:`q_i = \min(\max(\lambda w_i, floor), cap)`, with the one λ by which they sum to the amount (water filling). They are
    then rounded by largest remainders. If no λ is large enough, because everybody with a weight is at the cap, the rest is left: who has no
    weight gets the floor. An amount that is too small for everybody's floor is split equally.

    Args:
        amount: As in :func:`apportion`.
        weight: As in :func:`apportion`.
        floor: Least part of everybody, in minor units.
        cap: Largest part of everybody, in minor units; ``None`` for no limit.

    Returns:
        The parts ``(batch, n)`` and what is left ``(batch,)``. Together they sum to the amounts exactly.

    Raises:
        ValueError: If ``floor`` is negative or above ``cap``; otherwise as :func:`apportion` does.
        TypeError: As :func:`apportion` does.
    """
    w = whole_weights(weight)
    r = checked_amounts(amount, len(w))
    require_whole("floor", floor)
    require_whole("cap", floor if cap is None else cap)
    if not 0 <= floor <= (floor if cap is None else cap):
        raise ValueError(f"floor={floor}, cap={cap}: must be 0 ≤ floor ≤ cap")
    return within(r, w, floor, cap)


def within(r: Whole, w: Whole, floor: int, cap: int | None, unit: Whole | None = None) -> tuple[Whole, Whole]:
    """As :func:`apportion_within`, for amounts ``(batch,)`` and weights ``(batch, n)`` that are known to be whole and not negative.

    With ``unit``, positive and ``(batch,)``, a weight says what is due: ``w / unit`` minor units. Nobody gets more than that (or the floor,
    if it is more), so λ is at most ``1 / unit``, and what is then not paid is left. Quotas that do not sum to a whole number are rounded
    to the whole number below.
    """
    most = max([floor, *r]) if cap is None else cap
    w = np.where((w.sum(axis=1) == 0)[:, None], 1, w)
    if unit is None:
        unit = np.ones_like(r)
        highest = np.full_like(w, floor)  # the quotas as λ grows, (B, n), in minor units / unit
        highest[w > 0] = most
    else:
        highest = np.clip(w, floor * unit[:, None], most * unit[:, None])
    enough = r * unit >= highest.sum(axis=1)  # for the highest quotas
    to_pay = np.where(enough, highest.sum(axis=1) // unit, r)
    parts: Whole = np.where(enough[:, None], _rounded(to_pay, highest, unit), _water_filled(to_pay, w, floor, most))
    return parts, r - to_pay


def _water_filled(r: Whole, w: Whole, floor: int, most: int) -> Whole:
    """Parts ``(batch, n)`` that sum to the amounts ``(batch,)``, if the quotas come to that much with some λ."""
    n = w.shape[1]
    bound = np.full(w.shape, -1, dtype=object)  # −1: free; otherwise the limit that holds for a member
    bound = np.where((r < n * floor)[:, None], -2, bound)  # −2: too little for everybody's floor
    w = np.where(bound == -2, 1, w)
    for _ in range(2 * n):  # every pass but the last fixes somebody at a limit
        free = bound < 0
        rest = r - np.where(free, 0, bound).sum(axis=1)  # for those who are free, (B,)
        share = np.where(free, w, 0)
        total = share.sum(axis=1)
        share = np.where(free & (total == 0)[:, None], 1, share)
        total = share.sum(axis=1)
        low = (bound == -1) & (rest[:, None] * share < floor * total[:, None])
        high = (bound == -1) & (rest[:, None] * share > most * total[:, None])
        if not (low.any() or high.any()):
            break
        # Lifting to the floor takes from the others, and lowering to the cap gives to them. Only the larger of the two is final.
        lacking = np.where(low, floor * total[:, None] - rest[:, None] * share, 0).sum(axis=1)
        beyond = np.where(high, rest[:, None] * share - most * total[:, None], 0).sum(axis=1)
        bound = np.where(low & (lacking >= beyond)[:, None], floor, bound)
        bound = np.where(high & (beyond >= lacking)[:, None], most, bound)
    free = bound < 0
    parts = _rounded(rest, np.where(free, rest[:, None] * share, 0), np.where(total == 0, 1, total))
    filled: Whole = np.where(free, parts, bound)
    return filled


def checked_amounts(amount: Sequence[int] | Whole, batch: int, name: str = "amount") -> Whole:
    """Amounts as Python integers, ``(batch,)``; errors call them by ``name``.

    Raises:
        ValueError: If there is not one for each row, or one is negative.
        TypeError: If one is not an integer.
    """
    given: Any = amount
    if isinstance(given, str | bytes | Mapping | Set) or np.ndim(given) == 0:
        raise TypeError(f"{name}={given!r}: give a list of whole numbers, one a row, such as [{given if type(given) is int else 10_000}]")
    if len(amount) != batch:
        raise ValueError(f"{name} has {len(amount)} entries for {batch} rows of weights: give one a row")
    for one in amount:
        require_whole(name, one)
        if one < 0:
            raise ValueError(f"{name}={one}: must not be negative")
    return np.array([int(one) for one in amount], dtype=object)


def measured(name: str, numbers: object) -> NDArray[np.float64]:
    """An array of measured numbers, such as credits, as float64. They may be infinite or NaN.

    Args:
        name: What they are called in errors.
        numbers: An array, a tensor, or lists of numbers. ``Decimal`` and ``Fraction`` count.

    Raises:
        ValueError: If one is no real number, such as text, ``None`` or a switch, or is masked.
    """
    given: Any = numbers.detach().cpu().double() if isinstance(numbers, Tensor) and not numbers.is_complex() else numbers
    try:
        found = given if isinstance(given, np.ndarray) else np.asarray(given)
        if np.ma.is_masked(found):
            raise TypeError("masked")
        if found.dtype == object and not all(isinstance(one, Real | Decimal) and not isinstance(one, bool) for one in found.flat):
            raise TypeError("no number")
        if found.dtype.kind not in "iufO":
            raise TypeError("no numbers")
        return np.array(found, dtype=np.float64)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        raise ValueError(f"{name}={reprlib.repr(numbers)}: must be an array of real numbers") from None


def require_whole(name: str, number: object, of: str = " of minor units (cents, say)") -> None:
    """Refuse what is not a whole number.

    Raises:
        TypeError: If it is a float, a bool or anything but an integer.
    """
    if isinstance(number, bool | np.bool_) or not isinstance(number, int | np.integer):
        raise TypeError(f"{name}={number!r}: must be a whole number{of}, not {type(number).__name__}")


def whole_weights(weight: NDArray[np.float64] | Whole) -> Whole:
    """Weights as whole numbers in exactly the same proportions, row by row.

    Args:
        weight: float64, or integers, ``(batch, n)``.

    Raises:
        ValueError: If a weight is negative or not finite, or there are none.
        TypeError: If an array of objects holds anything but integers.
    """
    given = np.asarray(weight)
    if given.ndim != 2 or given.shape[1] == 0:
        raise ValueError(f"weight has shape {given.shape}: must be (batch, n) with n at least 1")
    if (given.dtype == object or np.issubdtype(given.dtype, np.integer)) and not np.ma.is_masked(weight):
        whole: Whole = given.astype(object)
        for one in whole.flat if given.dtype == object else ():
            require_whole("weight", one, "")
        if (whole < 0).any():
            raise ValueError("weight has negative entries: must not be negative")
        return whole
    w = measured("weight", weight)
    allowed = np.isfinite(w) & (w >= 0)
    if not allowed.all():
        raise ValueError(f"weight={w[~allowed][0]}: weights must be finite and not negative")
    mantissa, exponent = np.frexp(w)  # weight = mantissa · 2^exponent
    mantissas: Whole = np.ldexp(mantissa, _MANTISSA).astype(np.int64).astype(object)
    least = np.where(w > 0, exponent, exponent.max(initial=0)).min(axis=1, keepdims=True)
    shift = np.where(w > 0, exponent - least, 0)
    shifted: Whole = np.left_shift(mantissas, shift.astype(object))
    return shifted


def _rounded(amount: Whole, numerator: Whole, denominator: Whole) -> Whole:
    """Quotas ``numerator / denominator`` (n to one), which sum to the amount, rounded to whole numbers by largest remainders."""
    parts, remainder = numerator // denominator[:, None], numerator % denominator[:, None]
    units = amount - parts.sum(axis=1)  # fewer than n
    # a stable order by falling remainder: who comes first wins a tie
    order = np.argsort(-remainder, axis=1, kind="stable")
    place = np.argsort(order, axis=1, kind="stable")
    rounded: Whole = parts + (place < units[:, None]).astype(np.int64).astype(object)
    return rounded
