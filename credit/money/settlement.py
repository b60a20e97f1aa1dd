"""Settlement: revenue that is split by cumulative credit.

Credit is measured, money is counted: credit is float64 and is only ever added up and compared; money is a whole number of minor units
(cents, say) in Python integers, and is rounded once, by largest remainders. So the parts sum to the revenue to the unit, and the same
credits and revenues give the same payouts on every machine.

A settlement, in order::

    standing   S_i = Σ_t decay^(T−t) · early^t · max(c_i^t, 0)         (with clawback: of c_i^t with its sign)
    weights    w_i = solidarity / n + (1 − solidarity) · S_i⁺ / Σ_j S_j⁺      (1 / n if nobody has a positive standing, or by split: equal)
    reserve    of the revenue R, ⌊reserve · R⌋ is kept back; D = R − ⌊reserve · R⌋ is paid
    clawback   w_i ← max(L · w_i − paid_i, 0), with L all that was ever paid, D included: who was overpaid waits until that is made good
    payouts    D by the weights, nobody less than the floor or more than the cap; the reserve helps out where D does not reach for
               the floors, and takes what nobody may have

Payouts plus what the reserve gained are the revenue, exactly. In a settlement, a member whose credit is higher, all else alike, is never
paid less; members with the same credit and the same payments so far get the same up to one unit, the odd one going to who joined first.
Nobody is ever asked for money back. Credits that cancel to nothing may leave a rest of rounding, which counts where nobody has more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, model_validator

from ...settings import Settings
from .apportionment import Whole, checked_amounts, require_whole, whole_weights, within

LARGEST = 2**63 - 1
"""The largest amount, in minor units: of a revenue, of all that was ever paid, of the reserve."""


class SettlementPolicy(Settings):
    """How revenue is split. Shares are read as the decimals they are written as: .1 is a tenth."""

    split: Literal["credit", "equal"] = Field(
        "credit", description="credit: by cumulative credit; equal: all alike, whatever their credit."
    )
    decay: float = Field(1.0, gt=0, le=1, description="What a round's credit counts for a round later; 1 forgets nothing.")
    early: float = Field(
        1.0, gt=0, le=1, description="Round t's credit counts early^t: below 1, who came early has more; 1: all rounds alike."
    )
    solidarity: float = Field(0.0, ge=0, le=1, description="Part of what is paid that is split equally.")
    floor: int = Field(0, ge=0, le=LARGEST, strict=True, description="Least payout of a member in a settlement, in minor units.")
    cap: int | None = Field(
        None, ge=0, le=LARGEST, strict=True, description="Largest payout of a member in a settlement, in minor units; none: no limit."
    )
    reserve: float = Field(0.0, ge=0, lt=1, description="Part of every revenue that is kept back, for floors that revenue does not reach.")
    clawback: bool = Field(
        False,
        description="Count credit with its sign and settle towards each member's part, by today's standings, of all that was ever paid: "
        "who turns out to have been overpaid waits, and who joins late has a part in what was paid before; otherwise negative credit "
        "counts as none and what was paid is done with.",
    )

    @model_validator(mode="before")
    @classmethod
    def _are_numbers(cls, data: Any) -> Any:
        for name in ("decay", "early", "solidarity", "reserve"):
            if isinstance(data, Mapping) and isinstance(data.get(name), bool):
                raise ValueError(f"{name}={data[name]}: must be a number")
        return data

    @model_validator(mode="after")
    def _check(self) -> SettlementPolicy:
        if self.decay < 1 and self.early < 1:
            raise ValueError(
                f"decay={self.decay:g} and early={self.early:g}: one lets late rounds count more and the other early ones; give one of them"
            )
        if self.cap is not None and self.cap < self.floor:
            raise ValueError(f"cap={self.cap} is below floor={self.floor}: raise the cap, or lower the floor")
        if self.split == "equal":
            default = SettlementPolicy.model_fields
            given = [name for name in ("decay", "early", "solidarity", "clawback") if getattr(self, name) != default[name].default]
            if given:
                raise ValueError(
                    f"split=equal looks at no credit, so {' and '.join(given)} would do nothing: leave it out, or use split: credit"
                )
        return self


def aged(standing: NDArray[np.float64], now: int, credit: NDArray[np.float64], t: int, policy: SettlementPolicy) -> NDArray[np.float64]:
    """Standings when a round's credit has come in.

    Rounds may come in any order; one from before the latest enters as old as it is.

    Args:
        standing: ``(..., n)``, in the credit's unit, as of round ``now``.
        now: The latest round so far, or −1.
        credit: Of the round, ``(..., n)``.
        t: Its number, from 0.
        policy: Its ``decay``, ``early`` and ``clawback``.

    Returns:
        ``(..., n)``, as of round ``max(now, t)``.

    Raises:
        ValueError: If a credit is not finite, standings grow too large for float64, or as :func:`require_remembered` does.
    """
    credit = np.asarray(credit, dtype=np.float64)
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
    """Refuse a round so far ahead of the latest that by the policy's decay all credit so far would be forgotten: a wrong number, surely.

    Args:
        policy: Its ``decay``.
        now: The latest round so far, or −1.
        t: The round's number.

    Raises:
        ValueError: If a credit of 1 would be 0 by then.
    """
    if 0 <= now < t and _power(policy.decay, t - now) == 0:
        raise ValueError(
            f"round={t} is {t - now:,} rounds after the latest, {now}, by which with decay={policy.decay:g} all credit so far would be "
            "forgotten: number rounds one by one"
        )


def shares(standing: NDArray[np.float64], policy: SettlementPolicy) -> Whole:
    """Weights by which a policy splits, ``(batch, n)`` → whole numbers ``(batch, n)``, whose proportions are what counts."""
    weight = whole_weights(np.maximum(standing, 0.0) if policy.split == "credit" else np.zeros_like(standing))
    total, n = weight.sum(axis=1), weight.shape[1]
    weight = np.where((total == 0)[:, None], 1, weight)
    total = np.where(total == 0, n, total)
    solidarity = _decimal(policy.solidarity)
    blended: Whole = solidarity.numerator * total[:, None] + (solidarity.denominator - solidarity.numerator) * n * weight
    return blended


def still_due(weight: Whole, paid: Whole, amount: Whole) -> Whole:
    """Weights by what each member still has to get of its part of all that was ever paid.

    Args:
        weight: ``(batch, n)``.
        paid: To each member so far, ``(batch, n)``, in minor units.
        amount: What is to be paid now, ``(batch,)``, in minor units.

    Returns:
        Whole numbers ``(batch, n)``; 0 for who has had more than its part.
    """
    total = weight.sum(axis=1)[:, None]
    due: Whole = np.maximum((amount + paid.sum(axis=1))[:, None] * weight - paid * total, 0)
    return due


@dataclass(frozen=True)
class Settlement:
    """What a settlement came to, for a batch of cooperatives.

    Attributes:
        revenue: What there was to split, ``(batch,)``, in minor units.
        payouts: To each member, ``(batch, n)``.
        reserve: What the cooperative has in reserve afterwards, ``(batch,)``.
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
    """Split revenue by what members have earned.

    Args:
        revenue: Whole, from 0 to 2^63 − 1, ``(batch,)``, in minor units.
        standing: Cumulative credit, ``(batch, n)``; see :func:`aged`.
        policy: How.
        paid: What each member was paid before, ``(batch, n)``; nothing if not given.
        reserve: What there is in reserve, ``(batch,)``; nothing if not given.

    Raises:
        ValueError: If an amount is negative, or what was ever paid or is in reserve would be more than 2^63 − 1; the weights are refused
            as by :func:`~proxycoop.credit.money.apportionment.apportion`.
        TypeError: If an amount is not a whole number.
    """
    batch, n = standing.shape
    amount = checked_amounts(revenue, batch, "revenue")
    paid = np.zeros((batch, n), dtype=object) if paid is None else np.asarray(paid)
    if paid.shape != standing.shape:
        raise ValueError(f"paid has shape {paid.shape}: must be (batch, n) = {standing.shape}")
    paid = checked_amounts(paid.ravel(), paid.size, "paid").reshape(paid.shape)
    reserve = checked_amounts([0] * batch if reserve is None else reserve, batch, "reserve")
    return _settled(amount, standing, policy, paid, reserve)


def _settled(amount: Whole, standing: NDArray[np.float64], policy: SettlementPolicy, paid: Whole, reserve: Whole) -> Settlement:
    """:func:`settle` of amounts that are known to be whole and not negative."""
    n = standing.shape[1]
    kept_back = amount * _decimal(policy.reserve).numerator // _decimal(policy.reserve).denominator
    lacking = np.maximum(n * policy.floor - (amount - kept_back), 0)
    drawn = np.minimum(lacking, reserve + kept_back)
    to_pay = amount - kept_back + drawn
    weight = shares(standing, policy)
    if policy.clawback:
        weight = still_due(weight, paid, to_pay)
    payouts, left = within(to_pay, weight, policy.floor, policy.cap)
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
        paid: To each member so far, Python integers ``(batch, n)``, in minor units.
        reserve: Python integers ``(batch,)``, in minor units.

    Args:
        policy: As above.
        n_members: Members n; more may :meth:`join`.
        batch: Number of cooperatives.
    """

    def __init__(self, policy: SettlementPolicy, n_members: int, batch: int = 1) -> None:
        self.policy = policy
        self.standing = np.zeros((batch, n_members), dtype=np.float64)
        self.now = -1
        self.paid = np.zeros((batch, n_members), dtype=object)
        self.reserve = np.zeros(batch, dtype=object)

    def join(self, n_members: int) -> None:
        """Take in more members, behind those there are, with neither credit nor payments."""
        self.standing = np.pad(self.standing, ((0, 0), (0, n_members)))
        self.paid = np.concatenate([self.paid, np.zeros((len(self.paid), n_members), dtype=object)], axis=1)

    def credit(self, credit: ArrayLike, t: int) -> None:
        """Take in a round's credit, ``(batch, n)``; ``t`` is its number, from 0.

        Raises:
            ValueError: If there is not one number a member, one is not finite, or ``t`` is negative; nothing is changed.
            TypeError: If ``t`` is no integer.
        """
        require_whole("t", t, "")
        credit = np.asarray(credit, dtype=np.float64)
        if t < 0 or credit.shape != self.standing.shape:
            raise ValueError(f"t={t}, credit of shape {credit.shape}: must be at least 0, and of shape (batch, n) = {self.standing.shape}")
        self.standing = aged(self.standing, self.now, credit, t, self.policy)
        self.now = max(self.now, t)

    def settle(self, revenue: Sequence[int] | Whole) -> Settlement:
        """Split revenue ``(batch,)`` and take note of it; raises as :func:`settle` does, and then nothing is changed."""
        amount = checked_amounts(revenue, len(self.standing), "revenue")
        settlement = _settled(amount, self.standing, self.policy, self.paid, self.reserve)
        self.paid = self.paid + settlement.payouts
        self.reserve = settlement.reserve
        return settlement


def _power(base: float, exponent: int) -> float:
    """``base ** exponent`` by products alone, which every machine rounds alike; libraries' powers differ in the last digit."""
    power = 1.0
    while exponent:
        if exponent & 1:
            power *= base
        base *= base
        exponent >>= 1
    return power


def _decimal(share: float) -> Fraction:
    """A share as the decimal it is written as."""
    return Fraction(repr(share))
