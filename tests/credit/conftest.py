"""Games, rounds and the like that the tests of the credit rules share."""

from collections.abc import Callable, Sequence
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis.strategies import SearchStrategy
from torch import Tensor

from proxycoop import credit


@pytest.fixture(scope="session")
def table_game() -> Callable[[Tensor], credit.CoalitionGame]:
    """See credit.table_game."""
    return credit.table_game


@pytest.fixture(scope="session")
def learning_round() -> Callable[..., credit.Round]:
    """See credit.learning_round."""
    return credit.learning_round


@pytest.fixture
def clean_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers among the credit rules is gone after it."""
    credit.RULES.names()  # the entry points of the machine that runs the tests are read before the copy is taken
    monkeypatch.setattr(credit.RULES, "_factories", dict(credit.RULES._factories))


@pytest.fixture(params=[60, pytest.param(10_000, marks=pytest.mark.slow)], ids=lambda cases: f"{cases}-cases")
def every(request: pytest.FixtureRequest) -> Callable[..., Callable[[Callable[..., None]], None]]:
    """Decorates a claim about drawn cases, and tries it at once: on 60 of them, and on 10,000 among the slow tests."""

    def of(*cases: SearchStrategy[object]) -> Callable[[Callable[..., None]], None]:
        return lambda claim: settings(max_examples=request.param)(given(*cases)(claim))()

    return of


@pytest.fixture(scope="session")
def largest_remainders() -> Callable[[Sequence[Fraction]], list[int]]:
    """Fractions that sum to a whole number, rounded: the units that are left go to the largest remainders, the first of equals."""

    def rounded(quotas: Sequence[Fraction]) -> list[int]:
        parts = [int(quota) for quota in quotas]
        for i in sorted(range(len(quotas)), key=lambda i: (parts[i] - quotas[i], i))[: int(sum(quotas)) - sum(parts)]:
            parts[i] += 1
        return parts

    return rounded


@pytest.fixture(scope="session")
def water_filled() -> Callable[..., list[Fraction]]:
    """Quotas within limits, by the level at which they sum to the amount, found between the levels at which members reach their limits.

    With ``highest`` the level rises no further. What the quotas then do not sum to is left.
    """

    def filled(amount: int, weight: Sequence[float | Fraction], floor: int, cap: int | None, highest: int | None = None) -> list[Fraction]:
        n, w = len(weight), [Fraction(one) for one in weight]
        w = w if any(w) else [Fraction(1)] * n
        if amount < n * floor:
            return [Fraction(amount, n)] * n

        def quotas(level: Fraction) -> list[Fraction]:
            return [
                max(level * one, Fraction(floor)) if cap is None else min(max(level * one, Fraction(floor)), Fraction(cap)) for one in w
            ]

        if highest is not None and sum(quotas(Fraction(highest))) <= amount:
            return quotas(Fraction(highest))
        levels = [Fraction(limit) / one for one in w if one for limit in (floor, cap) if limit is not None]
        below = max(level for level in [Fraction(0), *levels] if sum(quotas(level)) <= amount)
        gap = amount - sum(quotas(below))
        # who rises between this level and the next; beyond the last one, without a cap, everybody with a weight
        rising = [one for one, quota in zip(w, quotas(below), strict=True) if one and quota == below * one and quota != cap]
        # with nobody left to rise, whoever has a weight is at the cap: the rest is left
        return quotas(below + gap / sum(rising)) if gap and rising else quotas(below)

    return filled
