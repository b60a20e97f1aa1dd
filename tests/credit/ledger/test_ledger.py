import math
import multiprocessing
import os
import pickle
import shutil
import signal
import sqlite3
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from proxycoop.credit.ledger import Cooperative, Ledger, Receipt, rows
from proxycoop.credit.ledger.chain import GENESIS, Head, link
from proxycoop.credit.money.money import Currency
from proxycoop.credit.money.settlement import LARGEST, Accounts, SettlementPolicy

# Python from 3.12 on warns where other threads might hold locks: those of libraries here hold none that a child needs.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def clock():
    """A clock that goes on by a second whenever it is looked at."""
    times = (START + timedelta(seconds=second) for second in range(10**9))
    return lambda: next(times)


@pytest.fixture
def ledger(ledger_url):
    with Ledger(ledger_url, clock=clock()) as ledger:
        yield ledger


@pytest.fixture
def clinics(ledger):
    ledger.init("clinics", ["Ada", "Bo"])
    return ledger


FORK = multiprocessing.get_context("fork")  # a new interpreter for every process would cost seconds of imports


def started(body, *arguments):
    """A process of its own that runs ``body``; its exit code is 1 if that raises."""
    process = FORK.Process(target=body, args=arguments)
    process.start()
    return process


def exit_code(process):
    process.join()
    return process.exitcode


# cooperatives


def test_a_new_cooperative_is_what_was_given(ledger):
    policy = SettlementPolicy(decay=0.9, reserve=0.1, floor=5)
    made = ledger.init("clinics", ["Ada", "Bo"], currency="JPY", policy=policy)
    assert made == Cooperative("clinics", Currency("JPY", 0), policy, ("Ada", "Bo"))
    assert ledger.cooperatives() == [made] == [ledger.cooperative("clinics")]


def test_init_again_changes_nothing_and_lets_new_members_join_behind(clinics):
    before = clinics.head("clinics")
    assert clinics.init("clinics", ["Bo", "Ada"]).members == ("Ada", "Bo")
    assert clinics.head("clinics") == before
    assert clinics.init("clinics", ["Cy", "Ada"]).members == ("Ada", "Bo", "Cy")
    assert clinics.head("clinics").seq == before.seq + 1


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"currency": "USD"}, "exists with currency EUR, and not USD"),
        ({"exponent": 3}, "exists with exponent 2, and not 3"),
        ({"policy": SettlementPolicy(reserve=0.5)}, "exists with policy .*reserve=0.0.*, and not .*reserve=0.5"),
    ],
)
def test_what_was_agreed_on_stays(clinics, other, message):
    with pytest.raises(ValueError, match=message):
        clinics.init("clinics", ["Ada", "Cy"], **other)
    assert clinics.cooperative("clinics").members == ("Ada", "Bo")


def test_cooperatives_in_one_database_know_nothing_of_each_other(clinics):
    clinics.init("farms", ["Ada"], currency="USD")
    clinics.record("clinics", 0, {"Ada": 1.0}, revenue=10, key="k")
    clinics.record("farms", 0, {"Ada": 2.0}, revenue=20, key="k")
    assert clinics.settle("farms").payouts == {"Ada": 20}
    assert clinics.settle("clinics").payouts == {"Ada": 10, "Bo": 0}
    assert [one.name for one in clinics.cooperatives()] == ["clinics", "farms"]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([], "must have at least one member"),
        (["Ada", "Ada"], "'Ada' is named twice"),
        (["Zo\u00eb", "Zoe\u0308"], "named twice"),
        ("Ada", r"members='Ada': give a list of names, such as \['Ada'\]"),
        (b"Ada", "members=b'Ada': give a list of names"),
        ({"Ada": 1}, "give a list of names"),
        (None, "members=None: give a list of names"),
        (["Ada\n"], "control character"),
        (["=1+1"], "formula"),
    ],
)
def test_members_that_cannot_be_told_apart_or_shown_are_refused_and_leave_no_file(tmp_path, members, message):
    with Ledger(tmp_path / "deep" / "ledger.db") as ledger, pytest.raises(ValueError, match=message):
        ledger.init("clinics", members)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("method", ["cooperative", "head", "settle", "verify"])
def test_an_unknown_cooperative_is_refused_with_the_known_ones(clinics, method):
    with pytest.raises(ValueError, match=r"unknown cooperative 'clinic' \(did you mean 'clinics'\?\): the known ones are clinics"):
        getattr(clinics, method)("clinic")


HOSTILE = ["O'Brien", 'Robert"); DROP TABLE members;--', "<script>alert(1)</script>", "نرگس", "%s %(x)s :own ? {0}", "a\\b", "x" * 200]


def test_hostile_names_are_kept_as_they_are(ledger):
    for name in HOSTILE:
        ledger.init(name, HOSTILE)
    for name in HOSTILE:
        ledger.record(name, 0, dict.fromkeys(HOSTILE, 1.0), revenue=700, key=name)
        assert ledger.settle(name).payouts == dict.fromkeys(HOSTILE, 100)
        assert ledger.statement(name, name).lines[0].payout == 100
    assert [one.name for one in ledger.cooperatives()] == HOSTILE
    assert ledger.verify().ok


# rounds


def test_a_round_stands_in_the_chain_as_one_block_with_its_credits_and_revenue(clinics):
    receipt = clinics.record("clinics", 7, {"Bo": -0.1, "Ada": 0.3}, revenue=100, key="k7")
    entries = list(clinics.entries("clinics"))
    at = "2026-01-02T03:04:06.000000Z"
    assert [(one.table, dict(one.fields)) for one in entries[3:]] == [
        ("rounds", {"cooperative": "clinics", "seq": 4, "round": 7, "key": "k7", "n_credits": 2, "at": at}),
        ("credits", {"cooperative": "clinics", "seq": 5, "round": 7, "position": 0, "credit": 0.3}),
        ("credits", {"cooperative": "clinics", "seq": 6, "round": 7, "position": 1, "credit": -0.1}),
        ("revenue", {"cooperative": "clinics", "seq": 7, "amount": 100, "round": 7, "key": None, "at": at}),
    ]
    previous = GENESIS
    for entry in entries:
        assert entry.hash == link(previous, entry.table, entry.fields)
        previous = entry.hash
    assert receipt == Receipt(7, previous, False)
    assert clinics.head("clinics") == Head(7, previous)


@pytest.mark.parametrize("credit", [{}, {"Ada": 0.0}, {"Bo": 1.5, "Ada": -2}])
@pytest.mark.parametrize("revenue", [0, 5])
@pytest.mark.parametrize("key", [None, "k"])
def test_recording_the_same_again_writes_nothing_and_gives_the_first_receipt(clinics, credit, revenue, key):
    first = clinics.record("clinics", 3, credit, revenue, key)
    clinics.record("clinics", 4, {"Ada": 1.0}, 9)
    head = clinics.head("clinics")
    assert clinics.record("clinics", 3, credit, revenue, key) == Receipt(first.seq, first.hash, True)
    assert clinics.head("clinics") == head


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"credit": {"Ada": 0.3, "Bo": 0.2}}, "\"'Bo'|'Bo''s credit was 0.1, now 0.2"),
        ({"credit": {"Ada": 0.3}}, "'Bo''s credit was 0.1, now none"),
        ({"credit": {"Ada": 0.3, "Bo": 0.1, "Cy": 0.0}}, "'Cy''s credit was none, now 0.0"),
        ({"revenue": 0}, "revenue was 100, now 0"),
        ({"revenue": 101}, "revenue was 100, now 101"),
        ({"key": None}, "the key was 'k', now none"),
        ({"key": "other"}, "the key was 'k', now 'other'"),
        ({"decisions": {"gamma": 0.5}}, "what was decided in it is something else"),
        ({"decisions": None}, "what was decided in it is something else"),
    ],
)
def test_a_recorded_round_cannot_be_recorded_otherwise(clinics, changed, message):
    clinics.init("clinics", ["Cy"])
    given = {"credit": {"Ada": 0.3, "Bo": 0.1}, "revenue": 100, "key": "k", "decisions": {"gamma": 1.0}}
    clinics.record("clinics", 0, **given)
    head = clinics.head("clinics")
    with pytest.raises(ValueError, match=f"round 0 of 'clinics' is recorded already, and differs: .*({message})"):
        clinics.record("clinics", 0, **{**given, **changed})
    assert clinics.head("clinics") == head


@pytest.mark.parametrize(
    ("decisions", "message"),
    [
        ([1], "decisions='\\[1\\]' of round 0: must be a mapping|must be a mapping, in which 'members'"),
        ({"members": [1]}, "in which 'members', if it is there, is one by name"),
        ({"gamma": math.nan}, "decisions of round 0 are no JSON"),
        ({"gamma": {1, 2}}, "decisions of round 0 are no JSON"),
        ({1: 2}, "decisions of round 0 are no JSON .*reads back as something else"),
        ({"members": {"Di": {}}}, "unknown member of 'clinics' 'Di'"),
    ],
)
def test_decisions_that_are_no_json_or_of_nobody_are_refused_and_nothing_is_written(clinics, decisions, message):
    head = clinics.head("clinics")
    with pytest.raises(ValueError, match=message):
        clinics.record("clinics", 0, {"Ada": 1.0}, decisions=decisions)
    assert clinics.head("clinics") == head


def test_a_statement_says_what_was_decided_since_the_member_joined(clinics):
    said = {"offered": [0, 2], "entered": [0], "objections": [{"lot": 2, "by": "Bo", "about": "nines", "amount": 0.2, "limit": 0.1}]}
    clinics.record("clinics", 0, {"Ada": 0.5}, revenue=7, decisions={"gamma": 0.5, "members": {"Ada": said}})
    clinics.record("clinics", 1, {"Bo": 0.5})
    clinics.init("clinics", ["Cy"])
    clinics.record("clinics", 2, {"Cy": -1.0}, decisions={"members": {}})
    first, third = clinics.statement("clinics", "Ada").rounds
    assert (first.round, first.credit, first.revenue, first.said, first.of_all) == (0, 0.5, 7, said, {"gamma": 0.5})
    assert (third.round, third.credit, third.revenue, third.said) == (2, 0.0, 0, {})
    assert [(one.round, one.credit) for one in clinics.statement("clinics", "Cy").rounds] == [(2, -1.0)]
    again = clinics.record("clinics", 0, {"Ada": 0.5}, revenue=7, decisions={"members": {"Ada": said}, "gamma": 0.5})
    assert again.repeated


def test_a_key_names_one_thing(clinics):
    clinics.record("clinics", 0, {"Ada": 1.0}, key="round")
    clinics.record_revenue("clinics", 50, key="revenue")
    clinics.settle("clinics", 7, key="settlement")
    head = clinics.head("clinics")
    for key, stands_for in (("round", "round 0"), ("revenue", "revenue of 50"), ("settlement", "settlement 1")):
        with pytest.raises(ValueError, match=f"key '{key}' of 'clinics' stands for {stands_for} already"):
            clinics.record("clinics", 1, {}, key=key)
        with pytest.raises(ValueError, match=f"key '{key}' of 'clinics' stands for {stands_for} already"):
            clinics.record_revenue("clinics", 7 if key == "settlement" else 51, key=key)
        with pytest.raises(ValueError, match=f"key '{key}' of 'clinics' stands for {stands_for}"):
            clinics.settle("clinics", 8, key=key)
    assert clinics.head("clinics") == head
    assert clinics.verify().ok


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"round": -1}, ValueError, "round=-1: must be from 0"),
        ({"round": 2**63}, ValueError, "must be from 0 to 2.63 − 1"),
        ({"round": 1.0}, TypeError, "round=1.0: must be a whole number, not float"),
        ({"credit": "Ada"}, ValueError, "credit='Ada' of round 0: give the credit of each member"),
        ({"credit": [("Ada", 1.0)]}, ValueError, "of round 0: give the credit of each member"),
        ({"round": True}, TypeError, "round=True"),
        ({"revenue": -1}, ValueError, "revenue=-1: must be from 0"),
        ({"revenue": 10**1000}, ValueError, "revenue=1000"),
        ({"revenue": 1.5}, TypeError, "revenue=1.5: must be a whole number of minor units"),
        ({"revenue": Fraction(3)}, TypeError, "revenue=Fraction"),
        ({"revenue": "3"}, TypeError, "revenue='3'"),
        ({"credit": {"Ada": math.nan}}, ValueError, "credit nan of 'Ada' in round 0: must be a finite number"),
        ({"credit": {"Ada": -math.inf}}, ValueError, "credit -inf of 'Ada'"),
        ({"credit": {"Ada": 2e300}}, ValueError, "at most 1e[+]300"),
        ({"credit": {"Ada": 10**400}}, ValueError, "must be a finite number"),
        ({"credit": {"Ada": "1"}}, ValueError, "credit '1' of 'Ada'"),
        ({"credit": {"Ada": True}}, ValueError, "credit True of 'Ada'"),
        ({"credit": {"Ada": None}}, ValueError, "credit None of 'Ada'"),
        ({"credit": {"Cy": 1.0}}, ValueError, "unknown member of 'clinics' 'Cy': the known ones are Ada, Bo"),
        ({"credit": {"Zo\u00eb": 1.0, "Zoe\u0308": 1.0}}, ValueError, "named twice in round 0"),
        ({"key": ""}, ValueError, "key '' has 0 characters"),
        ({"key": "k\n"}, ValueError, "control character"),
    ],
)
def test_a_round_that_makes_no_sense_is_refused_and_nothing_is_written(clinics, arguments, error, message):
    head = clinics.head("clinics")
    with pytest.raises(error, match=message):
        clinics.record("clinics", **{"round": 0, "credit": {"Ada": 1.0}, **arguments})
    assert clinics.head("clinics") == head


@pytest.mark.parametrize(("amount", "error"), [(0, ValueError), (-5, ValueError), (2**63, ValueError), (0.5, TypeError), (None, TypeError)])
def test_revenue_is_a_positive_whole_number(clinics, amount, error):
    with pytest.raises(error, match="amount="):
        clinics.record_revenue("clinics", amount)


def test_revenue_with_a_key_counts_once_and_without_one_each_time(clinics):
    first = clinics.record_revenue("clinics", 5, key="k")
    assert clinics.record_revenue("clinics", 5, key="k") == Receipt(first.seq, first.hash, True)
    with pytest.raises(ValueError, match="stands for revenue of 5 already"):
        clinics.record_revenue("clinics", 6, key="k")
    clinics.record_revenue("clinics", 5)
    clinics.record_revenue("clinics", 5)
    assert clinics.settle("clinics").revenue == 15


def test_credit_is_stored_to_the_last_bit(clinics):
    awkward = [0.1, -0.1, 5e-324, 1e300, -1e300, 1 / 3, -0.0, 123456789.123456789, float(np.nextafter(1, 2))]
    for number, one in enumerate(awkward):
        clinics.record("clinics", number, {"Ada": np.float64(one)}, revenue=np.int64(number))
    stored = [one.fields["credit"] for one in clinics.entries("clinics") if one.table == "credits"]
    assert stored == awkward
    assert math.copysign(1, stored[6]) == 1  # −0.0 is stored as 0.0
    assert clinics.verify().ok


# settlements


def test_a_settlement_pays_by_cumulative_credit_and_says_so(clinics):
    clinics.record("clinics", 0, {"Ada": 0.3, "Bo": 0.1}, revenue=60)
    clinics.record_revenue("clinics", 30)
    receipt = clinics.settle("clinics", revenue=10)
    assert (receipt.number, receipt.revenue, receipt.payouts, receipt.reserve) == (1, 100, {"Ada": 75, "Bo": 25}, 0)
    assert Head(receipt.seq, receipt.hash) == clinics.head("clinics")
    assert not receipt.repeated


def test_settling_again_with_the_same_key_gives_the_first_receipt(clinics):
    clinics.record("clinics", 0, {"Ada": 1.0}, revenue=60)
    first = clinics.settle("clinics", 40, key="january")
    clinics.init("clinics", ["Cy"])
    clinics.record("clinics", 1, {"Cy": 1.0}, revenue=1)
    clinics.settle("clinics", key="february")
    head = clinics.head("clinics")
    again = clinics.settle("clinics", 40, key="january")
    assert again.repeated
    assert again.payouts == {"Ada": 100, "Bo": 0}
    assert (again.number, again.revenue, again.reserve, again.seq, again.hash) == (1, 100, 0, first.seq, first.hash)
    with pytest.raises(ValueError, match="key 'january' of 'clinics' stands for settlement 1, which came with revenue of 40, now 41"):
        clinics.settle("clinics", 41, key="january")
    assert clinics.head("clinics") == head


def test_with_nothing_to_pay_there_is_no_settlement(clinics):
    clinics.record("clinics", 0, {"Ada": 1.0})
    for _ in range(2):
        with pytest.raises(ValueError, match="cooperative 'clinics': nothing came in since settlement 0"):
            clinics.settle("clinics", key="k")
    clinics.settle("clinics", 5)
    with pytest.raises(ValueError, match="nothing came in since settlement 1"):
        clinics.settle("clinics")


def test_floors_are_paid_from_the_reserve_where_nothing_came_in(ledger):
    ledger.init("clinics", ["Ada", "Bo"], policy=SettlementPolicy(floor=3, reserve=0.1))
    ledger.record("clinics", 0, {"Ada": 1.0}, revenue=100)
    assert ledger.settle("clinics").reserve == 10
    with pytest.raises(ValueError, match=r"nothing came in since settlement 1.*to pay floors from the reserve, give a key"):
        ledger.settle("clinics")  # which would pay them again each time it is repeated
    second = ledger.settle("clinics", key="May")
    assert (second.revenue, second.payouts, second.reserve) == (0, {"Ada": 3, "Bo": 3}, 4)
    assert ledger.settle("clinics", key="May").repeated
    assert ledger.settle("clinics", key="June").payouts == {"Ada": 2, "Bo": 2}
    with pytest.raises(ValueError, match="nothing came in"):
        ledger.settle("clinics", key="July")


def test_a_round_by_which_all_credit_would_be_forgotten_is_refused_before_it_stands(ledger):
    ledger.init("clinics", ["Ada", "Bo"], policy=SettlementPolicy(decay=0.5))
    ledger.record("clinics", 7, {"Ada": 3.0, "Bo": 1.0})
    with pytest.raises(ValueError, match=r"round=20260701 is 20,260,694 rounds after the latest, 7, .* number rounds one by one"):
        ledger.record("clinics", 20260701, {"Ada": 1.0})
    ledger.record("clinics", 1000, {})
    assert ledger.settle("clinics", revenue=100).payouts == {"Ada": 75, "Bo": 25}


POLICIES = [
    SettlementPolicy(),
    SettlementPolicy(decay=0.9, solidarity=0.2, floor=7, reserve=0.15),
    SettlementPolicy(early=0.97, cap=400),
    SettlementPolicy(clawback=True, reserve=0.03),
    SettlementPolicy(split="equal", floor=1),
]


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: canonical_id(policy))
def test_settling_bit_by_bit_is_the_same_as_accounts_kept_by_hand(ledger, policy):
    rng = np.random.default_rng(3)
    names = [f"m{number}" for number in range(6)]
    ledger.init("clinics", names[:4], policy=policy)
    accounts = Accounts(policy, 4)
    due = 0
    for step, number in enumerate(rng.permutation(40)):  # rounds come in any order
        if step in (11, 25):  # somebody joins
            n = accounts.paid.shape[1]
            ledger.init("clinics", [names[n]], policy=policy)
            accounts.join(1)
        n = accounts.paid.shape[1]
        credit, revenue = rng.normal(size=n), int(rng.integers(0, 300))
        accounts.credit(credit[None], int(number))
        ledger.record("clinics", number, dict(zip(names, credit, strict=False)), revenue=revenue)
        due += revenue
        if step % 7 == 6:
            settlement = accounts.settle([due])
            receipt = ledger.settle("clinics")
            assert receipt.revenue == due
            assert list(receipt.payouts.values()) == settlement.payouts[0].tolist()
            assert receipt.reserve == settlement.reserve[0]
            due = 0
            statement = ledger.statement("clinics", "m0")
            assert statement.lines[-1].standing == accounts.standing[0, 0]
            assert statement.paid == accounts.paid[0, 0]
    assert ledger.verify().problems == []


def canonical_id(policy):
    return ",".join(f"{name}={value}" for name, value in policy.model_dump(exclude_defaults=True).items()) or "default"


def test_members_who_join_later_begin_at_nothing(clinics):
    clinics.record("clinics", 0, {"Ada": 1.0}, revenue=10)
    clinics.settle("clinics")
    clinics.init("clinics", ["Cy"])
    clinics.record("clinics", 1, {"Cy": 1.0}, revenue=10)
    assert clinics.settle("clinics").payouts == {"Ada": 5, "Bo": 0, "Cy": 5}
    assert [line.number for line in clinics.statement("clinics", "Cy").lines] == [2]


def test_amounts_up_to_2_63_minus_1_are_settled_and_none_beyond(clinics):
    clinics.record("clinics", 0, {"Ada": 1.0, "Bo": 1.0})
    clinics.record_revenue("clinics", LARGEST - 5)
    assert sum(clinics.settle("clinics").payouts.values()) == LARGEST - 5
    for attempt in (
        lambda: clinics.record("clinics", 1, {}, revenue=6),
        lambda: clinics.record_revenue("clinics", 6),
        lambda: clinics.settle("clinics", 6),
    ):
        with pytest.raises(ValueError, match=f"all revenue of 'clinics' would come to {LARGEST + 1} minor units: at most"):
            attempt()
    assert sum(clinics.settle("clinics", 5).payouts.values()) == 5
    assert clinics.verify().ok


# statements


def test_a_statement_accounts_for_every_settlement_and_what_came_since(clinics):
    clinics.record("clinics", 0, {"Ada": 3.0, "Bo": 1.0}, revenue=100)
    clinics.record("clinics", 5, {"Bo": -2.0}, revenue=20)
    clinics.settle("clinics")
    clinics.record("clinics", 2, {"Ada": 1.0}, revenue=30)
    clinics.record_revenue("clinics", 4)
    statement = clinics.statement("clinics", "Ada")
    (line,) = statement.lines
    assert (line.number, line.n_rounds, line.first_round, line.last_round) == (1, 2, 0, 5)
    assert (line.credit, line.standing, line.share, line.revenue, line.payout, line.paid) == (3.0, 3.0, 0.75, 120, 90, 90)
    assert line.at == "2026-01-02T03:04:08.000000Z"
    assert (statement.cooperative, statement.member, statement.currency) == ("clinics", "Ada", Currency("EUR", 2))
    assert (statement.joined, statement.n_rounds, statement.credit, statement.revenue) == ("2026-01-02T03:04:05.000000Z", 1, 1.0, 34)
    assert (statement.paid, statement.reserve, statement.head) == (90, 0, clinics.head("clinics"))
    bo = clinics.statement("clinics", "Bo").lines[0]
    assert (bo.credit, bo.standing, bo.share, bo.payout) == (-1.0, 1.0, 0.25, 30)
    with pytest.raises(ValueError, match="unknown member of 'clinics' 'Cy'"):
        clinics.statement("clinics", "Cy")


# the database


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (":memory:", "a ledger is kept in a file"),
        ("sqlite://", "a ledger is kept in a file"),
        ("sqlite:///:memory:", "a ledger is kept in a file"),
        ("", "give a path"),
        ("a\0b", "give a path"),
        ("sqlite:///x?mode=ro", "nothing after the path"),
        ("mysql://user:secret@host/db", "'mysql'://…: must be a path, sqlite:///path or postgresql"),
        ("://secret", "the URL cannot be read"),
        ("postgresql://user:secret@host:port/db", "the URL cannot be read"),
    ],
)
def test_what_is_no_place_for_a_ledger_is_refused_without_telling_a_password(where, message):
    with pytest.raises(ValueError, match=message) as caught:
        Ledger(where)
    assert "secret" not in str(caught.value)


def test_a_server_that_is_not_there_is_said_in_one_line_without_the_password():
    with Ledger("postgresql://ada:secret@127.0.0.1:1/ledger") as ledger:
        with pytest.raises(ValueError, match=r"ledger 'postgresql.*://ada:\*\*\*@127.0.0.1:1/ledger' cannot be reached: ") as caught:
            ledger.cooperatives()
        assert "secret" not in str(caught.value) + repr(ledger)
        assert "\n" not in str(caught.value)


def test_without_the_driver_postgresql_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ValueError, match=r"needs PostgreSQL's driver: pip install 'proxycoop\[postgres\]'"):
        Ledger("postgresql://host/ledger")


def test_only_init_makes_a_file(tmp_path):
    path = tmp_path / "ledger.db"
    with Ledger(path) as ledger:
        for attempt in (ledger.cooperatives, lambda: ledger.settle("clinics", 5), ledger.verify):
            with pytest.raises(ValueError, match="does not exist: create it with init"):
                attempt()
    with pytest.raises(ValueError, match=f"ledger '{path}' does not exist"):
        Ledger(path, read_only=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"no database at all, but long enough to look like one" * 20, b"short"])
def test_a_file_of_something_else_is_refused_and_left_alone(tmp_path, content):
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with Ledger(path) as ledger:
        for attempt in (ledger.cooperatives, lambda: ledger.init("clinics", ["Ada"]), lambda: ledger.settle("clinics", 5)):
            with pytest.raises(ValueError, match=r"notes\.txt' is no ledger: it is not an SQLite database"):
                attempt()
    assert path.read_bytes() == content


def test_a_folder_is_no_ledger(tmp_path):
    with Ledger(tmp_path) as ledger, pytest.raises(ValueError, match="is no file"):
        ledger.cooperatives()


def test_a_path_may_have_any_characters(tmp_path):
    path = tmp_path / "a b?c#d%41'é" / "ledger.db"
    with Ledger(path) as ledger:
        ledger.init("clinics", ["Ada"])
    assert path.is_file()
    with Ledger(str(path), read_only=True) as ledger:
        assert ledger.cooperative("clinics").members == ("Ada",)


def test_read_only_reads_everything_and_writes_nothing(tmp_path):
    path = tmp_path / "ledger.db"
    with Ledger(path) as ledger:
        ledger.init("clinics", ["Ada"])
        ledger.record("clinics", 0, {"Ada": 1.0}, revenue=5)
        head = ledger.head("clinics")
    content = path.read_bytes()
    with Ledger(path, read_only=True) as ledger:
        assert ledger.head("clinics") == head
        assert ledger.verify(expected={"clinics": head}).ok
        for attempt in (
            lambda: ledger.init("clinics", ["Ada"]),
            lambda: ledger.record("clinics", 0, {"Ada": 1.0}, revenue=5),
            lambda: ledger.record_revenue("clinics", 5),
            lambda: ledger.settle("clinics"),
        ):
            with pytest.raises(ValueError, match="was opened read-only: nothing can be written"):
                attempt()
    assert path.read_bytes() == content


def test_a_folder_that_cannot_be_written_can_be_read_and_says_so_to_writers():
    folder = Path(tempfile.mkdtemp())  # pytest's own folders are the user's alone
    path = folder / "ledger.db"
    with Ledger(path) as ledger:
        ledger.init("clinics", ["Ada"])
    path.chmod(0o444)
    folder.chmod(0o555)

    def somebody_else():
        if os.getuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        with Ledger(path, read_only=True) as ledger:
            assert ledger.cooperative("clinics").members == ("Ada",)
            assert ledger.verify().ok
        with Ledger(path) as ledger:
            for attempt in (lambda: ledger.init("clinics", ["Bo"]), lambda: ledger.settle("clinics", 5)):
                with pytest.raises(ValueError, match=r"open it read-only|cannot be written"):
                    attempt()

    try:
        assert exit_code(started(somebody_else)) == 0
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


def test_a_pickled_ledger_opens_the_same_database(clinics):
    del clinics._clock  # a clock of generators does not pickle
    clinics._clock = now
    with pickle.loads(pickle.dumps(clinics)) as copy:
        assert copy.head("clinics") == clinics.head("clinics")


def now():
    return START


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_after_a_fork_the_child_has_connections_of_its_own(clinics):
    clinics.record("clinics", 0, {"Ada": 1.0})
    child = os.fork()
    if child == 0:
        status = 1
        try:
            clinics.record("clinics", 1, {"Ada": 1.0})
            status = 0 if clinics.verify().ok else 2
        finally:
            os._exit(status)
    clinics.record("clinics", 2, {"Ada": 1.0})
    assert os.waitpid(child, 0)[1] == 0
    rounds = {one.fields["round"] for one in clinics.entries("clinics") if one.table == "rounds"}
    assert rounds == {0, 1, 2}
    assert clinics.verify().ok


def test_entries_show_one_moment_whatever_is_written_meanwhile(clinics):
    clinics.record("clinics", 0, {"Ada": 1.0})
    entries = clinics.entries("clinics")
    first = next(entries)
    clinics.record("clinics", 1, {"Ada": 1.0})
    clinics.settle("clinics", 10)
    assert [first.seq, *(one.seq for one in entries)] == [1, 2, 3, 4, 5]


# several processes


def test_several_processes_may_initialise_at_once(ledger_url):
    names = ("Bo", "Cy", "Di")
    together = FORK.Barrier(len(names))

    def initialise(name):
        with Ledger(ledger_url) as ledger:
            together.wait()
            ledger.init("clinics", ["Ada", name])

    for process in [started(initialise, name) for name in names]:
        assert exit_code(process) == 0
    with Ledger(ledger_url) as ledger:
        members = ledger.cooperative("clinics").members
        assert members[0] == "Ada"
        assert set(members[1:]) == {"Bo", "Cy", "Di"}
        assert ledger.verify().ok


def write(where, name):
    with Ledger(where) as ledger:
        for number in range(20):
            ledger.record("clinics", number, {"Ada": 1.0}, revenue=3)
            ledger.record_revenue("clinics", 2, key=f"{name}-{number}")


def test_several_writers_lose_and_double_nothing(clinics, ledger_url):
    for process in [started(write, ledger_url, name) for name in range(3)]:
        assert exit_code(process) == 0
    assert clinics.settle("clinics").revenue == 20 * 3 + 3 * 20 * 2
    assert clinics.verify().ok


@pytest.mark.parametrize("moment", ["early", "late"])
def test_a_writer_killed_in_a_transaction_leaves_nothing(clinics, ledger_url, moment):
    clinics.record("clinics", 0, {"Ada": 1.0}, revenue=3)
    before = list(clinics.entries("clinics"))
    whole = rows.Tip.write

    def dies(tip, connection):
        if moment == "early":
            connection.execute(rows._INSERT["rounds"], tip._rows["rounds"])
        else:
            whole(tip, connection)
        os.kill(os.getpid(), signal.SIGKILL)

    def record():
        rows.Tip.write = dies
        with Ledger(ledger_url) as ledger:
            ledger.record("clinics", 1, {"Ada": 1.0}, revenue=3)

    assert exit_code(started(record)) == -signal.SIGKILL
    assert list(clinics.entries("clinics")) == before
    assert clinics.verify().ok
    assert not clinics.record("clinics", 1, {"Ada": 1.0}, revenue=3).repeated


def test_a_writer_waits_for_another_program_that_holds_the_file(tmp_path):
    path = tmp_path / "ledger.db"
    held, enough = FORK.Event(), FORK.Event()

    def hold():
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        held.set()
        enough.wait()
        other.execute("ROLLBACK")
        other.close()

    with Ledger(path) as ledger:
        ledger.init("clinics", ["Ada"])
        holder = started(hold)
        held.wait()
        writer = started(write, path, 0)
        writer.join(timeout=0.5)
        assert writer.is_alive()
        assert ledger.head("clinics").seq == 2
        enough.set()
        assert [exit_code(process) for process in (holder, writer)] == [0, 0]
        assert ledger.verify().rows["rounds"] == 20


def test_a_full_disk_is_said_and_leaves_nothing_half_written(tmp_path):
    with Ledger(tmp_path / "ledger.db") as ledger:
        ledger.init("clinics", ["Ada"])
        with ledger._database.read() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar()

        @sa.event.listens_for(ledger._database._engine, "begin")
        def limit(connection):
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")

        recorded = []

        def fill():
            for number in range(1000):
                recorded.append(ledger.record("clinics", number, {"Ada": 1.0}, key=f"{number} " + "x" * 150))

        with pytest.raises(ValueError, match=r"ledger\.db' the disk is full, nothing was written"):
            fill()
        head = ledger.head("clinics")
        assert head == Head(recorded[-1].seq, recorded[-1].hash)
        assert ledger.verify(expected={"clinics": head}).ok


@pytest.mark.parametrize("policy", [{"decay": 0.9}, "decay=.9", SettlementPolicy])
def test_what_is_no_policy_is_refused_and_founds_nothing(ledger, policy):
    with pytest.raises(ValueError, match=r"policy=.*must be a SettlementPolicy"):
        ledger.init("another", ["Ada"], policy=policy)


@pytest.mark.parametrize("where", [None, 5, b"books.db"])
def test_what_is_no_path_is_no_ledger(where):
    with pytest.raises(ValueError, match=r"ledger .*must be a path or a URL, as text"):
        Ledger(where)
