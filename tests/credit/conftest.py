"""Games and rounds that the tests of the credit rules share."""

from collections.abc import Callable

import pytest
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
