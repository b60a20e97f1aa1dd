"""Settlement: revenue is split by cumulative credit.

Credit is measured, and money is counted. Credit is float64, and is only ever added up and compared. Money is a whole number of minor units
(such as cents) in Python integers, and is rounded once, by largest remainders. So the parts sum to the revenue to the unit, and the same
credits and revenues give the same payouts on every machine.

A settlement, in order::

    standing   S_i = Σ_t decay^(T−t) · early^t · max(c_i^t, 0)         (with clawback: of c_i^t with its sign)
    weights    w_i = solidarity / n + (1 − solidarity) · S_i⁺ / Σ_j S_j⁺      (1 / n if nobody has a positive standing, or by split: equal)
    reserve    of the revenue R, ⌊reserve · R⌋ is kept back; D = R − ⌊reserve · R⌋ is paid
    clawback   w_i ← due_i = max(L · w_i − paid_i, 0), with L all that was ever paid, plus D: who was overpaid waits until that is made good
    payouts    min(max(λ · w_i, floor), cap), with the one λ by which they sum to D; with clawback λ is at most 1. The reserve helps out
               where D does not reach for the floors, and takes what no λ pays

The payouts, plus what the reserve gained, are exactly the revenue. In a settlement, a member with more credit, all else equal, is never
paid less. Members with the same credit and the same payments so far get the same, up to one unit, which goes to the one that joined first.
Nobody is ever asked for money back. Credits that should cancel may leave a rest of rounding; it counts where nobody has more.

What a cap keeps from one member goes to the others in proportion to their weights. So it never goes to a member without a weight. With
clawback a weight is a sum that is due, so nobody gets more than that: the dues sum to at least D, and λ would exceed 1 only by a cap. A
member that was overpaid, of which nothing is due, gets no more than the floor, whoever reaches the cap. The rest is the reserve's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, model_validator

from ...checks import whole_number
from ...settings import Settings
from .apportionment import Whole, checked_amounts, measured, require_whole, whole_weights, within

LARGEST = 2**63 - 1
"""The largest amount, in minor units, of a revenue, of all payouts so far, and of the reserve."""


class SettlementPolicy(Settings):
    """How revenue is split. A share is read as the decimal that was written: .1 is exactly a tenth."""

    split: Literal["credit", "equal"] = Field(
        "credit", description="credit: by cumulative credit. equal: the same for all, whatever their credit."
    )
    decay: float = Field(1.0, gt=0, le=1, description="Factor on a round's credit for every later round; 1 forgets nothing.")
    early: float = Field(
        1.0, gt=0, le=1, description="Round t's credit counts early^t. Below 1 early rounds count more; with 1 all count the same."
    )
    solidarity: float = Field(0.0, ge=0, le=1, description="Share of the payout that is split equally, 0 to 1.")
    floor: int = Field(0, ge=0, le=LARGEST, strict=True, description="Least payout of a member in a settlement, in minor units.")
    cap: int | None = Field(
        None,
        ge=0,
        le=LARGEST,
        strict=True,
        description="Largest payout of a member in a settlement, in minor units; none: no limit. What it keeps from one goes to the others "
        "by their weights, with clawback up to what is due to them, and the rest to the reserve.",
    )
    reserve: float = Field(0.0, ge=0, lt=1, description="Share of every revenue that is kept back, for floors that revenue does not cover.")
    clawback: bool = Field(
        False,
        description="Count negative credit too, and settle towards each member's share, by today's standings, of all that was ever paid. "
        "A member that turns out to have been overpaid waits, and one that joins late has a share in earlier payouts. "
        "Without clawback negative credit counts as 0, and earlier payouts are final.",
    )

    @model_validator(mode="after")
    def _check(self) -> SettlementPolicy:
        if self.decay < 1 and self.early < 1:
            raise ValueError(
                f"decay={self.decay:g} and early={self.early:g}: decay favours late rounds and early favours early ones; give one of them"
            )
        if self.cap is not None and self.cap < self.floor:
            raise ValueError(f"cap={self.cap} is below floor={self.floor}: raise the cap, or lower the floor")
        if self.split == "equal":
            default = SettlementPolicy.model_fields
            given = [name for name in ("decay", "early", "solidarity", "clawback") if getattr(self, name) != default[name].default]
            if given:
                raise ValueError(
                    f"split=equal does not use credit, so {' and '.join(given)} would do nothing: leave it out, or use split: credit"
                )
        return self


def aged(standing: NDArray[np.float64], now: int, credit: NDArray[np.float64], t: int, policy: SettlementPolicy) -> NDArray[np.float64]:
    """Standings after a round's credit has come in.

    Rounds may come in any order. One from before the latest enters as old as it is.

    Args:
        standing: ``(..., n)``, in the credit's unit, as of round ``now``.
        now: The latest round so far, or −1.
        credit: Credit of the round, ``(..., n)``.
        t: Its number, from 0.
        policy: Its ``decay``, ``early`` and ``clawback`` are used.

    Returns:
        ``(..., n)``, as of round ``max(now, t)``.

    Raises:
        ValueError: If a credit is not finite, standings grow too large for float64, or as :func:`require_remembered` does.
    """
    credit = measured("credit", credit)
    require_remembered(policy, now, t)
    if not np.isfinite(credit).all():
        raise ValueError(f"credit={credit[~np.isfinite(credit)][0]} of round {t}: must be finite")
    earned = (credit if policy.clawback else np.maximum(credit, 0.0)) * _power(policy.early, t)
    older, younger = (max(now - t, 0), max(t - now, 0)) if now >= 0 else (0, 0)  # than the latest round so far
    with np.errstate(over="ignore"):
        grown: NDArray[np.float64] = standing * _power(policy.decay, younger) + earned * _power(policy.decay, older)
    if not np.isfinite(grown).all():
        raise ValueError(f"the credit of round {t} brings cumulative credit beyond what float64 holds: give credit in a larger unit")
    return grown


def require_remembered(policy: SettlementPolicy, now: int, t: int) -> None:
    """Refuse a round so far ahead that the policy's decay would forget all credit so far: its number is surely wrong.

    Args:
        policy: Its ``decay`` is used.
        now: The latest round so far, or −1.
        t: The round's number.

    Raises:
        ValueError: If a credit of 1 would have decayed to 0 by then.
    """
    if 0 <= now < t and _power(policy.decay, t - now) == 0:
        raise ValueError(
            f"round={t} is {t - now:,} rounds after the latest, {now}, and with decay={policy.decay:g} all credit so far would be "
            "forgotten by then: number rounds one by one"
        )


def shares(standing: NDArray[np.float64], policy: SettlementPolicy) -> Whole:
    """Weights by which a policy splits, ``(batch, n)`` → whole numbers ``(batch, n)``. Only their proportions count."""
    weight = whole_weights(np.maximum(standing, 0.0) if policy.split == "credit" else np.zeros_like(standing))
    total, n = weight.sum(axis=1), weight.shape[1]
    weight = np.where((total == 0)[:, None], 1, weight)
    total = np.where(total == 0, n, total)
    solidarity = _decimal(policy.solidarity)
    blended: Whole = solidarity.numerator * total[:, None] + (solidarity.denominator - solidarity.numerator) * n * weight
    return blended


def still_due(weight: Whole, paid: Whole, amount: Whole) -> tuple[Whole, Whole]:
    """What each member must still get of its share of all that was ever paid, the amount included.

    Args:
        weight: ``(batch, n)``.
        paid: Paid to each member so far, ``(batch, n)``, in minor units.
        amount: To be paid now, ``(batch,)``, in minor units.

    Returns:
        Whole numbers ``(batch, n)``, 0 for members that have had more than their share, and by what to divide them to have minor units,
        ``(batch,)``. In minor units a row sums to the amount or more.
    """
    total = weight.sum(axis=1)
    due: Whole = np.maximum((amount + paid.sum(axis=1))[:, None] * weight - paid * total[:, None], 0)
    return due, total


@dataclass(frozen=True)
class Settlement:
    """The result of a settlement, for a batch of cooperatives.

    Attributes:
        revenue: Revenue that was split, ``(batch,)``, in minor units.
        payouts: Payout to each member, ``(batch, n)``, in minor units.
        reserve: The cooperative's reserve afterwards, ``(batch,)``, in minor units.
    """

    revenue: Whole
    payouts: Whole
    reserve: Whole


def settle(
    revenue: Sequence[int] | Whole,
    standing: NDArray[np.float64],
    policy: SettlementPolicy,
    *,
    paid: Whole | None = None,
    reserve: Whole | None = None,
) -> Settlement:
    """Split revenue by cumulative credit.

    Args:
        revenue: Whole, from 0 to 2^63 − 1, ``(batch,)``, in minor units.
        standing: Cumulative credit, ``(batch, n)``; see :func:`aged`.
        policy: How to split.
        paid: Paid to each member before, ``(batch, n)``, in minor units; 0 by default.
        reserve: In reserve, ``(batch,)``, in minor units; 0 by default.

    Raises:
        ValueError: If an amount is negative, or all payouts or the reserve would come to more than 2^63 − 1. If ``policy`` is no policy, or
            ``standing`` holds anything but numbers. Weights are refused as by :func:`~proxycoop.credit.money.apportionment.apportion`.
        TypeError: If an amount is not a whole number.
    """
    require_policy(policy)
    standing = measured("standing", standing)
    if standing.ndim != 2:
        raise ValueError(f"standing has shape {standing.shape}: must be (batch, n)")
    batch, n = standing.shape
    amount = checked_amounts(revenue, batch, "revenue")
    paid = np.zeros((batch, n), dtype=object) if paid is None else np.asarray(paid)
    if paid.shape != standing.shape:
        raise ValueError(f"paid has shape {paid.shape}: must be (batch, n) = {standing.shape}")
    paid = checked_amounts(paid.ravel(), paid.size, "paid").reshape(paid.shape)
    reserve = checked_amounts([0] * batch if reserve is None else reserve, batch, "reserve")
    return _settled(amount, standing, policy, paid, reserve)


def _settled(amount: Whole, standing: NDArray[np.float64], policy: SettlementPolicy, paid: Whole, reserve: Whole) -> Settlement:
    """As :func:`settle`, for amounts that are known to be whole and not negative."""
    n = standing.shape[1]
    kept_back = amount * _decimal(policy.reserve).numerator // _decimal(policy.reserve).denominator
    lacking = np.maximum(n * policy.floor - (amount - kept_back), 0)
    drawn = np.minimum(lacking, reserve + kept_back)
    to_pay = amount - kept_back + drawn
    weight, unit = shares(standing, policy), None
    if policy.clawback:
        weight, unit = still_due(weight, paid, to_pay)
    payouts, left = within(to_pay, weight, policy.floor, policy.cap, unit)
    settlement = Settlement(amount, payouts, reserve + kept_back - drawn + left)
    for what, most in (("a revenue", amount), ("all payouts", (paid + payouts).sum(axis=1)), ("the reserve", settlement.reserve)):
        if (most > LARGEST).any():
            raise ValueError(f"{what} would come to {most.max()} minor units: no more than 2^63 − 1 = {LARGEST} can be recorded")
    return settlement


class Accounts:
    """Credit and payments of a batch of cooperatives, round by round: standings that age, and what was paid.

    Attributes:
        policy: How revenue is split.
        standing: Cumulative credit, float64 ``(batch, n)``, as of round ``now``.
        now: The latest round, or −1.
        paid: Paid to each member so far, Python integers ``(batch, n)``, in minor units.
        reserve: Python integers ``(batch,)``, in minor units.

    Args:
        policy: As above.
        n_members: Number of members n; more may :meth:`join`.
        batch: Number of cooperatives.

    Raises:
        ValueError: If ``policy`` is no policy, or a number is not a whole number from 0.
    """

    def __init__(self, policy: SettlementPolicy, n_members: int, batch: int = 1) -> None:
        require_policy(policy)
        n_members, batch = whole_number("n_members", n_members, 0), whole_number("batch", batch, 0)
        self.policy = policy
        self.standing = np.zeros((batch, n_members), dtype=np.float64)
        self.now = -1
        self.paid = np.zeros((batch, n_members), dtype=object)
        self.reserve = np.zeros(batch, dtype=object)

    def join(self, n_members: int) -> None:
        """Add members after those that are there, with neither credit nor payments.

        Raises:
            ValueError: If ``n_members`` is not a whole number from 0.
        """
        n_members = whole_number("n_members", n_members, 0)
        self.standing = np.pad(self.standing, ((0, 0), (0, n_members)))
        self.paid = np.concatenate([self.paid, np.zeros((len(self.paid), n_members), dtype=object)], axis=1)

    def credit(self, credit: ArrayLike, t: int) -> None:
        """Add a round's credit, ``(batch, n)``; ``t`` is its number, from 0.

        Raises:
            ValueError: If there is not one number for each member, one is not finite, is masked or is no number, or ``t`` is negative.
                Nothing is changed then.
            TypeError: If ``t`` is not an integer.
        """
        require_whole("t", t, "")
        credit = measured("credit", credit)
        if t < 0 or credit.shape != self.standing.shape:
            raise ValueError(f"t={t}, credit of shape {credit.shape}: must be at least 0, and of shape (batch, n) = {self.standing.shape}")
        self.standing = aged(self.standing, self.now, credit, t, self.policy)
        self.now = max(self.now, t)

    def settle(self, revenue: Sequence[int] | Whole) -> Settlement:
        """Split revenue ``(batch,)`` and book it. Raises as :func:`settle` does, and then changes nothing."""
        amount = checked_amounts(revenue, len(self.standing), "revenue")
        settlement = _settled(amount, self.standing, self.policy, self.paid, self.reserve)
        self.paid = self.paid + settlement.payouts
        self.reserve = settlement.reserve
        return settlement


def require_policy(policy: object) -> None:
    """Refuse what is no policy, such as a mapping of its settings.

    Raises:
        ValueError: If it is none.
    """
    if not isinstance(policy, SettlementPolicy):
        raise ValueError(f"policy={policy!r}: must be a SettlementPolicy, such as SettlementPolicy(solidarity=0.1)")


def _power(base: float, exponent: int) -> float:
    """``base ** exponent`` by products alone, which every machine rounds alike; powers of libraries differ in the last digit."""
    power = 1.0
    while exponent:
        if exponent & 1:
            power *= base
        base *= base
        exponent >>= 1
    return power


def _decimal(share: float) -> Fraction:
    """A share as the decimal that was written."""
    return Fraction(repr(share))
