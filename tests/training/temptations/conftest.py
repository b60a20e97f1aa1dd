"""A broken rule that red teams must find out."""

from __future__ import annotations

import pytest

from proxycoop.credit import RULES, CreditRule


@pytest.fixture(scope="package", autouse=True)
def broken():
    """A rule that pays the first seat twice what leave-one-out pays, called ``twice_for_the_first``."""

    class Twice(CreditRule):
        """Leave-one-out, and twice that for the first seat."""

        def assign(self, round):
            credit = RULES["loo"]().assign(round).clone()
            credit[:, 0] *= 2
            return credit

        def cost(self, n_players):
            return n_players + 1

    RULES.register("twice_for_the_first")(Twice)
    yield
    del RULES._factories["twice_for_the_first"]
