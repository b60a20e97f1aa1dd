"""A member's account, by hand."""

import pytest

from proxycoop.credit.ledger import Ledger
from proxycoop.credit.money.settlement import SettlementPolicy


@pytest.fixture
def clinics(ledger_url):
    """A cooperative whose policy counts negative credit."""
    with Ledger(ledger_url) as ledger:
        ledger.init("clinics", ["Ada", "Bo", "Cy"], policy=SettlementPolicy(clawback=True))
        yield ledger


def accounts(ledger):
    return {name: ledger.statement("clinics", name).lines[-1] for name in ("Ada", "Bo", "Cy")}


def test_shares_are_of_the_positive_standings_and_who_is_below_zero_has_none(clinics):
    clinics.record("clinics", 0, {"Ada": 3.0, "Bo": 1.0, "Cy": -2.0}, revenue=100)
    clinics.settle("clinics")
    lines = accounts(clinics)
    assert {name: line.standing for name, line in lines.items()} == {"Ada": 3.0, "Bo": 1.0, "Cy": -2.0}
    assert {name: line.share for name, line in lines.items()} == {"Ada": 0.75, "Bo": 0.25, "Cy": 0.0}
    assert {name: line.payout for name, line in lines.items()} == {"Ada": 75, "Bo": 25, "Cy": 0}


def test_where_nobody_has_a_positive_standing_nobody_has_a_share(clinics):
    clinics.record("clinics", 0, {"Ada": -3.0, "Bo": 0.0, "Cy": -2.0}, revenue=90)
    clinics.settle("clinics")
    lines = accounts(clinics)
    assert {name: line.share for name, line in lines.items()} == {"Ada": 0.0, "Bo": 0.0, "Cy": 0.0}
    assert {name: line.payout for name, line in lines.items()} == {"Ada": 30, "Bo": 30, "Cy": 30}
