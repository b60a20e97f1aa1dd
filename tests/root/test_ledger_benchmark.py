"""The demonstrations of the ledger: in small, and that they notice what they look for."""

from __future__ import annotations

from pathlib import Path

import pytest

# Python from 3.12 on warns where other threads might hold locks: those of libraries here hold none that a child needs.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")

BENCHMARKS = Path(__file__).parents[2] / "benchmarks" / "ledger"


@pytest.fixture(scope="module")
def scripts(benchmark_script):
    """The script and its neighbours, which it finds as scripts do: beside itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield {name: benchmark_script(f"ledger/{name}") for name in ("ledger", "crash", "writers", "tamper")}


# In small


def test_killed_writers_lose_and_double_nothing(scripts, ledger_url):
    result = scripts["crash"].crash(ledger_url, kills=8, every=4)
    assert result.problems == []
    assert sum(result.places.values()) == 8
    assert result.ledgers == 2
    assert result.acknowledged["rounds"] > 0


@pytest.mark.parametrize("together", [True, False], ids=["one cooperative", "each its own"])
def test_racing_writers_lose_and_double_nothing(scripts, ledger_url, together):
    result = scripts["writers"].race(ledger_url, processes=2, seconds=0.5, members=3, together=together, safe=together)
    assert result.problems == []
    assert all(one.new for one in result.work)
    assert result.rows >= 4 * sum(len(one.new) for one in result.work)


def test_changed_values_and_bytes_are_found(scripts, ledger_url):
    result = scripts["tamper"].tamper(ledger_url, rows=110, trials=60, n_bytes=20)
    assert result.problems == []
    assert result.columns == 57
    assert result.named + result.refused == 60
    assert result.refused <= 3
    assert result.by_chain + result.by_database + result.harmless == (20 if ledger_url.startswith("sqlite") else 0)
    assert result.cut == result.forged == (5, 0, 5)  # the chain alone cannot know, a head that was kept does


# What they look for


@pytest.fixture
def plan(scripts):
    return scripts["crash"].Plan()


def rows(plan, n):
    return [row for i in range(n) for row in plan.rows(i)]


def test_rows_of_the_acknowledged_or_of_one_operation_more_are_right(scripts, plan):
    check = scripts["crash"].after_a_crash
    assert check(rows(plan, 6), 6, plan) == (False, [])
    assert check(rows(plan, 6), 5, plan) == (True, [])
    assert check([], 0, plan) == (False, [])


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (lambda found: found[:-1], "is lost"),  # a settlement without its last payout
        (lambda found: found + found[-1:], "is not whole"),  # paid twice
        (lambda found: found[:3] + found[4:], "is another"),
        (lambda found: found[:1] + found, "is another"),
        (lambda found: [*found[:-1], (found[-1][0], {**found[-1][1], "amount": found[-1][1]["amount"] + 1})], "is another"),
    ],
)
def test_lost_doubled_and_changed_rows_are_noticed(scripts, plan, spoil, what):
    done, problems = scripts["crash"].after_a_crash(spoil(rows(plan, 6)), 6, plan)
    assert not done
    assert len(problems) == 1
    assert what in problems[0]


def test_half_of_the_operation_under_way_is_noticed(scripts, plan):
    for more in range(1, len(plan.rows(6))):
        found = rows(plan, 6) + plan.rows(6)[:more]
        assert "not whole" in scripts["crash"].after_a_crash(found, 6, plan)[1][0]


def test_the_plan_pays_out_what_came_in(plan):
    kept = 0
    for n in range(5, 60, 6):
        earned = sum(row["amount"] for i in range(n - 5, n + 1) for table, row in plan.rows(i) if table == "revenue")
        settlement = next(row for table, row in plan.rows(n) if table == "settlements")
        assert settlement["revenue"] == earned
        assert sum(row["amount"] for table, row in plan.rows(n) if table == "payouts") + settlement["reserve"] - kept == earned
        kept = settlement["reserve"]


@pytest.fixture
def raced(scripts):
    """Two writers' rounds 1 to 3 of one member, the second recorded by both, and a settlement of 1003 minor units."""
    script = scripts["writers"]
    found = []
    for t in (1, 2, 3):
        credit = script.credited(t)["member 00"]
        found += [("rounds", {"round": t}), ("credits", {"round": t, "position": 0, "credit": credit})]
        found += [("revenue", {"amount": t % 3})] if t % 3 else []
    found += [("revenue", {"amount": 1000}), ("settlements", {"number": 1, "revenue": 1003, "reserve": 3})]
    found += [("payouts", {"settlement": 1, "amount": 1000})]
    return found, [script.Work(new=[1, 2], settlements=1), script.Work(new=[3], repeated=[2])]


def test_races_that_went_well_are_right(scripts, raced):
    assert scripts["writers"].after_a_race(*raced, members=1) == []


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (lambda found, _: found.remove(("rounds", {"round": 3})), "round 3 was new to 1 writers and is there 0 times"),
        (lambda found, _: found.append(("rounds", {"round": 3})), "round 3 was new to 1 writers and is there 2 times"),
        (lambda _, work: work[1].new.append(2), "round 2 was new to 2 writers and is there 1 times"),
        (lambda _, work: work[1].repeated.append(9), "round 9 was said to be there and is not"),
        (lambda found, _: found[1][1].update(credit=7.0), "round 1 has others' credits"),
        (lambda found, _: found[-1][1].update(amount=2000), "settlement 1 paid out 2000 of 1003, 3 kept back"),
        (lambda _, work: setattr(work[1], "settlements", 1), "1 settlements, 2 acknowledged"),
        (lambda found, _: found.append(("revenue", {"amount": 1})), "revenue of 1004, 1003 acknowledged"),
    ],
)
def test_races_that_went_wrong_are_noticed(scripts, raced, spoil, what):
    spoil(*raced)
    assert what in scripts["writers"].after_a_race(*raced, members=1)


def test_problems_fail_the_command_and_tables_are_written(scripts, tmp_path, monkeypatch, capsys):
    main, commands = scripts["ledger"].main, scripts["ledger"].COMMANDS
    main(["crash", "--kills", "1", "--url", f"sqlite:///{tmp_path}/ledger.db", "--markdown", str(tmp_path / "crash.md")])
    assert (tmp_path / "crash.md").read_text() in capsys.readouterr().out
    assert "| kills | 1 |" in (tmp_path / "crash.md").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["crash.md"]  # databases are made beside the URL's, and dropped
    monkeypatch.setitem(commands, "crash", lambda _: ("a table\n", ["round 3 is lost"]))
    with pytest.raises(SystemExit, match="1 problems:\nround 3 is lost"):
        main(["crash"])
