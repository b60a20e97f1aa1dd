"""Settlement in a cooperative: what its model earns in money, and when that is split among the members.

A scenario without the key ``settlement`` has no money in it. With it, every round earns *revenue*, the more the more useful the model is.
Every ``period`` rounds, and at the episode's end, the revenue that has come in is split. A
:class:`~proxycoop.credit.money.settlement.SettlementPolicy` does this, by each member's credit so far. Amounts of money are whole minor
units, such as cents.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor

from ...credit.money.apportionment import Whole
from ...credit.money.money import Currency
from ...credit.money.settlement import LARGEST, Accounts, SettlementPolicy
from ...settings import Settings, default_kind

MOST_A_ROUND = 2**53
"""The largest revenue of a round, in minor units. Revenue is computed in float64, which holds every whole number up to this one."""
CEILING = {"neg_log_loss": 0.0, "accuracy": 1.0}
"""The highest value of each utility."""

Floats = NDArray[np.float64]


class _Revenue(Settings):
    per_unit: int = Field(
        1_000_000,
        ge=1,
        le=MOST_A_ROUND,
        strict=True,
        description="Minor units per unit of utility: 1,000,000 means 10,000 euros for one nat, and 100 euros for a hundredth of a nat. A "
        "round's revenue is rounded to whole minor units, so a small number here loses precision.",
    )
    base: int = Field(0, ge=0, le=MOST_A_ROUND, strict=True, description="Revenue that every round earns in addition, in minor units.")


class Improvement(_Revenue):
    """Revenue for improvement: a round earns by how much it raises the utility above the best of the episode so far.

    Before the first round the best is the utility at the episode's start. If the utility falls and rises again, it is not paid for twice.
    """

    kind: Literal["improvement"] = "improvement"

    def paid_for(self, utility: Floats, best: Floats, first: Floats) -> Floats:
        """The rise in utility that a round is paid for, ``(E,)``."""
        del first
        return np.maximum(utility - best, 0.0)


class Level(_Revenue):
    """Revenue for a level: a round earns by how far the utility is above its level at the episode's start, as for a service in use."""

    kind: Literal["level"] = "level"

    def paid_for(self, utility: Floats, best: Floats, first: Floats) -> Floats:
        """The rise in utility that a round is paid for, ``(E,)``."""
        del best
        return np.maximum(utility - first, 0.0)


RevenueSettings = Annotated[Annotated[Improvement | Level, Field(discriminator="kind")], default_kind("improvement")]


class SettlementTerms(Settings):
    """What a cooperative earns, and how and when it is split."""

    revenue: RevenueSettings = Field(default_factory=Improvement, description="What a round earns.")
    period: int = Field(
        1, ge=1, strict=True, description="Rounds between settlements. The last round of an episode always settles, to close the accounts."
    )
    currency: str = Field("EUR", description="Code of the currency: 3 to 12 capital letters or digits.")
    exponent: int | None = Field(
        None, strict=True, description="The currency's decimals: a major unit is 10^exponent minor units. none: as in ISO 4217."
    )
    policy: SettlementPolicy = Field(default_factory=SettlementPolicy, description="How revenue is split.")
    reward: Literal["credit", "settlement"] = Field(
        "credit",
        description="What agents are rewarded with. credit: their credit, every round; settlements are then only bookkeeping. settlement: "
        "what settlements pay them, when they pay. An episode of all clean lots is then worth as much in money as its gain is in credit.",
    )

    @model_validator(mode="after")
    def _check(self) -> SettlementTerms:
        Currency.of(self.currency, self.exponent)
        return self

    @property
    def money(self) -> Currency:
        """The currency with its decimals."""
        return Currency.of(self.currency, self.exponent)


class Meter:
    """Reads what episodes earn, round by round.

    Args:
        revenue: What a round earns.
        utility: Utility at the episodes' start, ``(E,)``.
    """

    def __init__(self, revenue: Improvement | Level, utility: Tensor) -> None:
        self.revenue = revenue
        self.first = self.best = utility.cpu().double().numpy()

    def read(self, utility: Tensor, t: int) -> NDArray[np.int64]:
        """What round t has earned, from the utility after it: int64 ``(E,)``, in minor units, rounded half to even.

        Raises:
            ValueError: If the utility is not a number.
        """
        after = utility.cpu().double().numpy()
        if np.isnan(after).any():
            raise ValueError(f"the shared model diverged in round {t}: lower the learning rates of the substrate and the server")
        paid_for = self.revenue.paid_for(after, self.best, self.first)
        self.best = np.maximum(self.best, after)
        return self.revenue.base + np.rint(self.revenue.per_unit * paid_for).astype(np.int64)


def money_scale(terms: SettlementTerms, reward_scale: float, reference: Tensor | None, least_gain: float = 0.0) -> float:
    """Reward units per minor unit. With it, a reference episode's revenue is worth as many reward units as its gain in utility.

    With ``reward.scale: auto`` that worth is N·T, as it is with credit. Under :class:`Improvement` without ``base``, revenue is
    proportional to the rise of the utility, so the result is ``reward_scale / per_unit`` and no reference is needed.

    Args:
        terms: What is earned.
        reward_scale: Reward units per unit of utility.
        reference: Utilities of reference episodes, including the start, ``(T + 1, episodes)``; only if :func:`needs_reference` is true.
        least_gain: Gain that the reference episodes must exceed, because rounding could have brought less.

    Raises:
        ValueError: If the reference episodes earn nothing, or gain nothing or so little that rounding could have brought it.
    """
    if not needs_reference(terms):
        return reward_scale / terms.revenue.per_unit
    assert reference is not None
    meter = Meter(terms.revenue, reference[0])
    earned = float(np.mean(sum(meter.read(utility, t) for t, utility in enumerate(reference[1:]))))
    gain = float((reference[-1] - reference[0]).double().mean())
    if not (earned > 0 and gain > least_gain):
        raise ValueError(
            "settlement.revenue: the worth of money in reward units is measured by an episode of all clean lots without screening. Here "
            f"that episode changes utility by {gain:.4g}, where rounding hides less than {least_gain:.1g}, and earns {earned:.4g} minor "
            "units: raise per_unit, change the substrate's learning rate, or use kind: improvement without base: it needs no such episode"
        )
    return reward_scale * gain / earned


def needs_reference(terms: SettlementTerms) -> bool:
    """Whether :func:`money_scale` needs a reference episode."""
    return not (isinstance(terms.revenue, Improvement) and terms.revenue.base == 0)


def check_size(revenue: Improvement | Level, horizon: int, room: float) -> None:
    """Refuse revenue that could become too large to be counted exactly.

    Args:
        revenue: What a round earns.
        horizon: Number of rounds of an episode.
        room: By how much the utility can rise at most.

    Raises:
        ValueError: If a round could earn more than 2^53 minor units, or an episode more than 2^63 − 1.
    """
    most = revenue.base + revenue.per_unit * room
    if not (most <= MOST_A_ROUND and most * horizon <= LARGEST):
        raise ValueError(
            f"settlement.revenue: per_unit={revenue.per_unit} and base={revenue.base} could bring {most:.4g} minor units in each of "
            f"{horizon} rounds: must be at most 2^53 in one round and 2^63 − 1 in all; lower them"
        )


@dataclass(frozen=True)
class Turnover:
    """A round's money.

    Attributes:
        revenue: What the round earned, int64 ``(E,)``, in minor units.
        payouts: What was paid to each agent, int64 ``(E, N)``, in minor units; 0 in rounds without a settlement.
        worth: The payouts in reward units, float64 ``(E, N)``, on the CPU.
    """

    revenue: Tensor
    payouts: Tensor
    worth: Tensor


class Treasury:
    """The accounts of E cooperatives of N agents, kept on the CPU round by round.

    Attributes:
        terms: What is earned, and how and when it is split.
        money_scale: Reward units per minor unit.
        accounts: Credit and payments so far.
        waiting: Revenue that is not settled yet, Python integers ``(E,)``, in minor units.

    Args:
        terms: What is earned, and how and when it is split.
        shape: E and N.
        horizon: Number of rounds of an episode.
        money_scale: Reward units per minor unit; 0 where agents are rewarded with credit, because then it is not used.
    """

    def __init__(self, terms: SettlementTerms, shape: tuple[int, int], horizon: int, money_scale: float) -> None:
        self.terms = terms
        self.money_scale = money_scale
        self._shape = shape
        self._horizon = horizon
        self._rounds = min(terms.period, horizon)  # of a period

    def begin(self, utility: Tensor) -> None:
        """Begin an episode, whose utility is ``(E,)`` at the start."""
        self._meter = Meter(self.terms.revenue, utility)
        self.accounts = Accounts(self.terms.policy, self._shape[1], batch=self._shape[0])
        self.waiting: Whole = np.zeros(self._shape[0], dtype=object)
        self._last_payout: Floats = np.zeros(self._shape)  # in reward units
        self._share: Floats = np.full(self._shape, 1 / self._shape[1])  # of all that was paid

    def settles_after(self, t: int) -> bool:
        """Whether a settlement follows round t, counted from 0."""
        return (t + 1) % self.terms.period == 0 or t + 1 == self._horizon

    def close(self, t: int, credit: Tensor, utility: Tensor) -> Turnover:
        """Close the books of round t.

        Args:
            t: The round's index, from 0.
            credit: What the rule assigned, ``(E, N)``.
            utility: Utility after the round, ``(E,)``.

        Returns:
            The round's money. Amounts are on the credit's device.
        """
        revenue = self._meter.read(utility, t)
        self.accounts.credit(credit.cpu().double().numpy(), t)
        self.waiting = self.waiting + revenue
        payouts, worth = np.zeros(self._shape, dtype=np.int64), np.zeros(self._shape)
        if self.settles_after(t):
            payouts = self.accounts.settle(self.waiting).payouts.astype(np.int64)
            self.waiting = np.zeros_like(self.waiting)
            worth = payouts.astype(np.float64) * self.money_scale
            self._last_payout = worth
            paid = self.accounts.paid.astype(np.float64)
            total = paid.sum(axis=1, keepdims=True)
            self._share = np.divide(paid, total, out=np.full(self._shape, 1 / self._shape[1]), where=total > 0)
        of_round, of_agents = (torch.from_numpy(one).to(credit.device) for one in (revenue, payouts))
        return Turnover(of_round, of_agents, torch.from_numpy(worth))

    def features(self, t: int, device: torch.device, dtype: torch.dtype) -> list[Tensor | float]:
        """What proxies see of the accounts before round t: a number or ``(E, N)`` per feature. Amounts are per round of a period."""
        to_each = self.money_scale / (self._shape[1] * self._rounds) * self.waiting.astype(np.float64)
        waiting = np.broadcast_to(to_each[:, None], self._shape)
        next_settlement = min((t // self.terms.period + 1) * self.terms.period, self._horizon)
        seen = torch.from_numpy(np.stack([self._share, self._last_payout / self._rounds, waiting])).to(device, dtype)
        return [*seen.unbind(), (next_settlement - t) / self._rounds]
