"""Settlement in a cooperative: what its model earns in money, and when that is split among the members.

A scenario without the key ``settlement`` has no money in it. With it, every round earns *revenue* by how useful the model is; every
``period`` rounds, and at the episode's end, what has come in is split by :class:`~proxycoop.credit.money.settlement.SettlementPolicy`, a
member's credit so far being what it goes by. Money is whole minor units (cents, say) throughout.
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
"""The largest revenue of a round, in minor units: up to there float64, from which it is made, holds every whole number."""
CEILING = {"neg_log_loss": 0.0, "accuracy": 1.0}
"""The most that a utility can come to."""

Floats = NDArray[np.float64]


class _Revenue(Settings):
    per_unit: int = Field(
        1_000_000,
        ge=1,
        le=MOST_A_ROUND,
        strict=True,
        description="Minor units that a unit of utility is worth: 1,000,000 are 10,000 euros for a nat, or 100 for a hundredth. What a "
        "round earns is rounded to whole minor units, so of a small one little is left.",
    )
    base: int = Field(0, ge=0, le=MOST_A_ROUND, strict=True, description="What every round earns besides, in minor units.")


class Improvement(_Revenue):
    """Revenue for getting better: a round earns what it raises the utility above the best of the episode so far.

    Before the first round the best is where the episode began. What falls and rises again is not paid for twice.
    """

    kind: Literal["improvement"] = "improvement"

    def paid_for(self, utility: Floats, best: Floats, first: Floats) -> Floats:
        """Utility that a round is paid for, ``(E,)``."""
        del first
        return np.maximum(utility - best, 0.0)


class Level(_Revenue):
    """Revenue for being good: a round earns by how far the utility lies above where the episode began, like a service while it is used."""

    kind: Literal["level"] = "level"

    def paid_for(self, utility: Floats, best: Floats, first: Floats) -> Floats:
        """Utility that a round is paid for, ``(E,)``."""
        del best
        return np.maximum(utility - first, 0.0)


RevenueSettings = Annotated[Annotated[Improvement | Level, Field(discriminator="kind")], default_kind("improvement")]


class SettlementTerms(Settings):
    """What a cooperative earns, and how and when it is split."""

    revenue: RevenueSettings = Field(default_factory=Improvement, description="What a round earns.")
    period: int = Field(
        1, ge=1, strict=True, description="Rounds between settlements; the last round of an episode settles always, so accounts are closed."
    )
    currency: str = Field("EUR", description="Code of the currency: 3 to 12 capital letters or digits.")
    exponent: int | None = Field(
        None, strict=True, description="Its decimals: a major unit has 10^exponent minor ones; none: those of ISO 4217."
    )
    policy: SettlementPolicy = Field(default_factory=SettlementPolicy, description="How revenue is split.")
    reward: Literal["credit", "settlement"] = Field(
        "credit",
        description="What agents are rewarded by: credit, every round (settlement is bookkeeping then), or what settlements pay them, when "
        "they do; money then weighs so much that what an episode of all clean lots earns is worth what it gains.",
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
    """What episodes earn round by round, ``(E,)``.

    Args:
        revenue: By what they earn.
        utility: Where they begin, ``(E,)``.
    """

    def __init__(self, revenue: Improvement | Level, utility: Tensor) -> None:
        self.revenue = revenue
        self.first = self.best = utility.cpu().double().numpy()

    def read(self, utility: Tensor, t: int) -> NDArray[np.int64]:
        """What round t has earned, by the utility after it: int64 ``(E,)``, in minor units, rounded half to even.

        Raises:
            ValueError: If the utility is no number.
        """
        after = utility.cpu().double().numpy()
        if np.isnan(after).any():
            raise ValueError(f"the shared model diverged in round {t}: lower the learning rates of the substrate and the server")
        paid_for = self.revenue.paid_for(after, self.best, self.first)
        self.best = np.maximum(self.best, after)
        return self.revenue.base + np.rint(self.revenue.per_unit * paid_for).astype(np.int64)


def money_scale(terms: SettlementTerms, reward_scale: float, reference: Tensor | None) -> float:
    """Reward units a minor unit, such that the revenue of a reference episode is worth in reward units what its gain is.

    With ``reward.scale: auto`` that is N·T, as with credit. Where an improvement earns ``per_unit`` and nothing besides, revenue is
    proportional to what the utility rises by, and so it is ``reward_scale / per_unit``, without a reference.

    Args:
        terms: What is earned.
        reward_scale: Reward units a unit of utility.
        reference: Utilities of reference episodes, start included, ``(T + 1, episodes)``; where :func:`needs_reference` says so.

    Raises:
        ValueError: If the reference episodes gain or earn nothing.
    """
    if not needs_reference(terms):
        return reward_scale / terms.revenue.per_unit
    assert reference is not None
    meter = Meter(terms.revenue, reference[0])
    earned = float(np.mean(sum(meter.read(utility, t) for t, utility in enumerate(reference[1:]))))
    gain = float((reference[-1] - reference[0]).double().mean())
    if not (earned > 0 and gain > 0):
        raise ValueError(
            "settlement.revenue: money is weighed against utility by an episode of all clean lots without screening, which here changes "
            f"utility by {gain:.4g} and earns {earned:.4g} minor units: raise per_unit, lower the substrate's learning rate, or take kind: "
            "improvement without base, which needs no such episode"
        )
    return reward_scale * gain / earned


def needs_reference(terms: SettlementTerms) -> bool:
    """Whether money can be weighed against utility only by an episode."""
    return not (isinstance(terms.revenue, Improvement) and terms.revenue.base == 0)


def check_size(revenue: Improvement | Level, horizon: int, room: float) -> None:
    """Refuse revenue that cannot be counted.

    Args:
        revenue: What a round earns.
        horizon: Rounds of an episode.
        room: The most that utility can rise by.

    Raises:
        ValueError: If a round could earn more than 2^53 minor units, or an episode more than 2^63 − 1.
    """
    most = revenue.base + revenue.per_unit * room
    if not (most <= MOST_A_ROUND and most * horizon <= LARGEST):
        raise ValueError(
            f"settlement.revenue: per_unit={revenue.per_unit} and base={revenue.base} could bring {most:.4g} minor units in each of "
            f"{horizon} rounds: no more than 2^53 in one and 2^63 − 1 in all can be counted; lower them"
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
        money_scale: Reward units a minor unit.
        accounts: Credit and payments so far.
        waiting: Revenue that was not settled yet, Python integers ``(E,)``, in minor units.

    Args:
        terms: As above.
        shape: E and N.
        horizon: Rounds of an episode.
        money_scale: As above; 0 where agents are rewarded by credit, and nobody asks what money is worth to them.
    """

    def __init__(self, terms: SettlementTerms, shape: tuple[int, int], horizon: int, money_scale: float) -> None:
        self.terms = terms
        self.money_scale = money_scale
        self._shape = shape
        self._horizon = horizon
        self._rounds = min(terms.period, horizon)  # of a period

    def begin(self, utility: Tensor) -> None:
        """An episode begins, at utility ``(E,)``."""
        self._meter = Meter(self.terms.revenue, utility)
        self.accounts = Accounts(self.terms.policy, self._shape[1], batch=self._shape[0])
        self.waiting: Whole = np.zeros(self._shape[0], dtype=object)
        self._last_payout: Floats = np.zeros(self._shape)  # in reward units
        self._share: Floats = np.full(self._shape, 1 / self._shape[1])  # of all that was paid

    def settles_after(self, t: int) -> bool:
        """Whether round t, from 0, is followed by a settlement."""
        return (t + 1) % self.terms.period == 0 or t + 1 == self._horizon

    def close(self, t: int, credit: Tensor, utility: Tensor) -> Turnover:
        """Close the books of round t.

        Args:
            t: Its number, from 0.
            credit: What the rule assigned, ``(E, N)``.
            utility: After it, ``(E,)``.

        Returns:
            Its money; amounts are on the credit's device.
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

    def features(self, t: int, device: torch.device) -> list[Tensor | float]:
        """What proxies see of the accounts before round t: one ``(E, N)`` or number a feature; amounts are for each round of a period."""
        to_each = self.money_scale / (self._shape[1] * self._rounds) * self.waiting.astype(np.float64)
        waiting = np.broadcast_to(to_each[:, None], self._shape)
        next_settlement = min((t // self.terms.period + 1) * self.terms.period, self._horizon)
        seen = torch.from_numpy(np.stack([self._share, self._last_payout / self._rounds, waiting])).to(device, torch.float32)
        return [*seen.unbind(), (next_settlement - t) / self._rounds]
