"""The commands ``proxycoop ledger``."""

from __future__ import annotations

import csv
import json
import os
import shutil
import sqlite3
import subprocess
import sys

import pytest
from rich.console import Console

from proxycoop.credit.ledger import Ledger
from proxycoop.credit.money.settlement import SettlementPolicy
from proxycoop.training import terminal
from proxycoop.training.commands import cli

# Python from 3.12 on warns where other threads might hold locks: those of libraries here hold none that a child needs.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")

HOSTILE = ("[bold]Ada[/bold] <b>&amp;</b>", "שלום עולם", "a=b", 'O\'Neil "x", y', "x" * 200)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    path = tmp_path_factory.mktemp("original") / "books.db"
    with Ledger(path) as ledger:
        ledger.init("clinics", ["Ada", "Bo"])
        ledger.record("clinics", 0, {"Ada": 0.3, "Bo": 0.1}, revenue=1000)
        ledger.record("clinics", 1, {"Ada": 0.3, "Bo": -0.1})
    return path


@pytest.fixture
def books(original, tmp_path):
    """A ledger with one cooperative, two rounds and revenue that awaits settlement."""
    return shutil.copy(original, tmp_path / "books.db")


def heads(path):
    with Ledger(path, read_only=True) as ledger:
        return {one.name: ledger.head(one.name) for one in ledger.cooperatives()}


def test_help_lists_the_commands_and_each_has_examples(run):
    code, out, _ = run("ledger", "--help")
    assert code == 0
    for command in ("init", "record", "settle", "verify", "statement", "export"):
        assert command in out
        code, own, _ = run("ledger", command, "--help")
        assert code == 0
        assert "Example" in own


def test_a_cooperative_is_kept_from_its_first_day_to_an_audit(run, tmp_path):
    books = tmp_path / "books.db"
    code, out, err = run("ledger", "init", books, "-c", "clinics", "--member", "Ada", "--member", "Bo")
    assert (code, err) == (0, "")
    assert out.startswith("created: clinics, 2 members (2 of them new), pays in EUR")
    code, out, _ = run("ledger", "record", books, "--round", 0, "--credit", "Ada=.3", "--credit", "Bo=.1", "--revenue", "12.34")
    assert code == 0
    assert out.startswith("round 0: recorded, row 7, hash ")
    again = run("ledger", "record", books, "--round", 0, "--credit", "Bo=0.1", "--credit", "Ada=3e-1", "--revenue", "12.34")[1]
    assert again == out.replace("recorded,", "was recorded already,")
    code, out, _ = run("ledger", "record", books, "--revenue", "100", "--key", "invoice-7")
    assert out.startswith("revenue of 100.00 EUR: recorded, row 8")
    assert "already, row 8" in run("ledger", "record", books, "--revenue", "100", "--key", "invoice-7")[1]
    code, out, _ = run("ledger", "settle", books)
    assert code == 0
    assert [line.split() for line in out.splitlines() if line.strip().startswith(("Ada", "Bo"))] == [
        ["Ada", "75.0", "%", "84.25", "84.25"],  # 112.34 × 0.3 / (0.3 + 0.1), where 0.3 as float64 is a little less than three tenths
        ["Bo", "25.0", "%", "28.09", "28.09"],
    ]
    code, out, _ = run("ledger", "verify", books)
    assert code == 0
    assert "OK: 11 rows of 1 cooperative\n" in out
    code, out, _ = run("ledger", "export", books, "--bundle", tmp_path / "new" / "audit.json")
    assert code == 0
    script = tmp_path / "new" / "verify_bundle.py"
    assert f"verify it with python {script} {tmp_path / 'new' / 'audit.json'}" in out
    done = subprocess.run(
        [sys.executable, "-I", "-S", script, tmp_path / "new" / "audit.json"], capture_output=True, text=True, check=False
    )
    head = heads(books)["clinics"]
    assert done.stdout == f"OK: 11 rows of 'clinics', head {head.seq}:{head.hash}\n"


def test_init_takes_members_from_a_file_and_lets_new_ones_join(run, tmp_path):
    (tmp_path / "names.txt").write_text("\ufeffAda\n\nשלום עולם\r\nBo\n", encoding="utf-8")
    code, out, err = run(
        "ledger", "init", tmp_path / "b.db", "-c", "c", "--members", tmp_path / "names.txt", "--member", "Zoe", "--currency", "JPY"
    )
    assert (code, err) == (0, "")
    assert "4 members (4 of them new), pays in JPY" in out
    code, out, err = run("ledger", "init", tmp_path / "b.db", "--member", "Cy", "--member", "Ada")
    assert (code, err) == (0, "")
    assert out.startswith("exists: c, 5 members (1 of them new), pays in JPY")
    with Ledger(tmp_path / "b.db") as ledger:
        assert ledger.cooperative("c").members == ("Zoe", "Ada", "שלום עולם", "Bo", "Cy")


def test_init_takes_a_policy_from_a_file_and_the_command_line(run, tmp_path):
    (tmp_path / "p.yaml").write_text("decay: 0.5\nfloor: 100\n")
    words = ("ledger", "init", tmp_path / "b.db", "-c", "c", "--member", "Ada", "--policy", tmp_path / "p.yaml", "--set", "decay=.9")
    assert run(*words, "--set", "cap=1000", "--currency", "XYZ", "--exponent", 4)[0] == 0
    with Ledger(tmp_path / "b.db") as ledger:
        one = ledger.cooperative("c")
        assert one.policy == SettlementPolicy(decay=0.9, floor=100, cap=1000)
        assert (one.currency.code, one.currency.exponent) == ("XYZ", 4)
    assert run("ledger", "init", tmp_path / "b.db", "--member", "Bo")[0] == 0, "who joins need not say what was agreed on"
    assert run("ledger", "init", tmp_path / "b.db", "--member", "Bo", "--currency", "XYZ")[0] == 0
    code, _, err = run("ledger", "init", tmp_path / "b.db", "--member", "Cy", "--set", "decay=.8")
    assert (code, "exists with policy" in err) == (2, True)


def test_rounds_of_a_file_are_recorded_once(run, books, tmp_path):
    file = tmp_path / "credits.csv"
    file.write_text("member,revenue,round,credit\nAda,12.30,7,.5\nBo,,8,-1e-3\nBo,12.3,7,0.25\nAda,,1,.3\nBo,,1,-.1\n")
    code, out, err = run("ledger", "record", books, "--file", file)
    assert (code, out, err) == (0, "2 rounds recorded, 1 were there already\n", "")
    assert run("ledger", "record", books, "--file", file)[1] == "0 rounds recorded, 3 were there already\n"
    with Ledger(books) as ledger:
        rows = [entry.fields for entry in ledger.entries("clinics")]
    assert [(row["round"], row["position"], row["credit"]) for row in rows if "credit" in row][4:] == [
        (7, 0, 0.5),
        (7, 1, 0.25),
        (8, 1, -0.001),
    ]
    assert [row["amount"] for row in rows if "amount" in row] == [1000, 1230]


def test_exported_credits_are_recorded_in_another_ledger_to_the_last_bit(run, books, tmp_path):
    with Ledger(books) as ledger:
        ledger.record("clinics", 2, {"Ada": 1 / 3, "Bo": -5e-324})
    assert run("ledger", "export", books, "--csv", tmp_path / "tables")[0] == 0
    assert run("ledger", "init", tmp_path / "b.db", "-c", "copy", "--member", "Ada", "--member", "Bo")[0] == 0
    code, out, err = run("ledger", "record", tmp_path / "b.db", "--file", tmp_path / "tables" / "credits.csv")
    assert (code, out, err) == (0, "3 rounds recorded, 0 were there already\n", "")

    def recorded(path, name):
        with Ledger(path) as ledger:
            return [entry.fields["credit"] for entry in ledger.entries(name) if entry.table == "credits"]

    assert recorded(tmp_path / "b.db", "copy") == recorded(books, "clinics") == [0.3, 0.1, 0.3, -0.1, 1 / 3, -5e-324]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "line 1: has no column round, member, credit"),
        ("round,member\n", "line 1: has no column credit"),
        ("round,member,credit,note\n", "line 1: unknown column 'note'"),
        ("round,member,credit,credit\n", "line 1: column 'credit' occurs twice"),
        ("round,member,credit\n", "has no rounds"),
        ("round,member,credit\n5,Ada,.1\n5,Bo\n", "line 3: has 2 cells, not as many as the first line"),
        ("round,member,credit\n5,Ada,.1\n5,Ada,.1\n", "line 3: 'Ada' occurs twice in round 5"),
        ("round,member,credit\n5,Ada,.1\n5,Cy,.1\n", "line 3: unknown member of 'clinics' 'Cy': the known ones are Ada, Bo"),
        ("round,member,credit\n5,Ada,.1\n\n\n6,Bo,nan\n", "line 5: credit 'nan': must be a number"),
        ('round,member,credit\n5,Ada,.1\n6,"B\no",1\n', "line 3: member 'B\\no' has a control character"),
        ("round,member,credit\n5,Ada,1e301\n", "line 2: credit '1e301': must be a number such as 0.25 or -1e-3, at most 1e+300"),
        ("round,member,credit\n5,Ada,1_0\n", "line 2: credit '1_0'"),
        ("round,member,credit\n5,Ada, 1\n", "line 2: credit ' 1'"),
        ("round,member,credit\n5,Ada,\n", "line 2: credit ''"),
        ("round,member,credit\n-5,Ada,1\n", "line 2: round '-5': must be a whole number from 0"),
        ("round,member,credit\n5.0,Ada,1\n", "line 2: round '5.0'"),
        (f"round,member,credit\n{2**63},Ada,1\n", "must be a whole number from 0 to 2^63 − 1"),
        (f"round,member,credit\n{'9' * 9999},Ada,1\n", "line 2: round '999"),
        ("round,member,credit,revenue\n5,Ada,1,1.234\n", "line 2: amount '1.234' has 3 decimals: EUR has 2"),
        ("round,member,credit,revenue\n5,Ada,1,2\n5,Bo,1,3\n", "line 3: revenue 3 of round 5 is not what an earlier line says"),
        ('round,member,credit\n5,"Ada,1\n', "no valid CSV"),
        ('round,member,credit\n5,"Ada"x,1\n', "line 2: no valid CSV"),
        (f"round,member,credit\n5,{'x' * 200_000},1\n", "line 2: no valid CSV: field larger than field limit"),
        (b"round,member,credit\n5,A\xffda,1\n", "is not in UTF-8: byte 23"),
        ("round,member,credit\n5,A\0da,1\n", "line 2: "),
    ],
    ids=range(25),
)
def test_a_wrong_line_of_a_file_is_named_and_nothing_of_the_file_is_recorded(run, books, tmp_path, text, said):
    before = heads(books)
    file = tmp_path / "credits.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    code, out, err = run("ledger", "record", books, "--file", file)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1
    assert len(err) < 400
    assert heads(books) == before


def test_a_round_of_a_file_that_was_recorded_otherwise_is_named_with_its_line(run, books, tmp_path):
    (tmp_path / "c.csv").write_text("round,member,credit\n5,Ada,1\n1,Ada,.3\n6,Ada,1\n")
    code, _, err = run("ledger", "record", books, "--file", tmp_path / "c.csv")
    assert code == 2
    assert "c.csv', line 3: round 1 of 'clinics' is recorded already, and differs: 'Bo's credit was -0.1" in err.replace("''s", "'s")
    assert "(1 rounds before it are recorded)" in err


def test_settling_twice_pays_once(run, books):
    code, first, err = run("ledger", "settle", books, "--revenue", "5.00", "--key", "july")
    assert (code, err) == (0, "")
    assert first.startswith("settlement 1 of clinics: made, revenue 15.00 EUR\n")
    code, again, _ = run("ledger", "settle", books, "--revenue", "5.00", "--key", "july")
    assert (code, again) == (0, first.replace(": made", ": was made already"))
    code, out, err = run("ledger", "settle", books)
    assert (code, out) == (2, "")
    assert "nothing came in since settlement 1" in err
    assert run("ledger", "settle", books, "--revenue", "5")[1].startswith("settlement 2 of clinics: made, revenue 5.00 EUR\n")


def test_an_earlier_settlement_is_shown_as_it_was(run, books):
    first = run("ledger", "settle", books, "--key", "a")[1]
    with Ledger(books) as ledger:
        ledger.record("clinics", 9, {"Bo": 5.0}, revenue=100)
        ledger.init("clinics", ["Cy"])
    assert run("ledger", "settle", books, "--key", "b")[0] == 0
    assert run("ledger", "settle", books, "--key", "a")[1] == first.replace(": made", ": was made already")


def test_hostile_names_are_shown_as_they_are(run, tmp_path):
    books = tmp_path / "b.db"
    members = [word for name in HOSTILE for word in ("--member", name)]
    credit = [word for i, name in enumerate(HOSTILE) for word in ("--credit", f"{name}={i}.5")]
    assert run("ledger", "init", books, "-c", "[red]c[/red]", *members)[0] == 0
    code, _, err = run("ledger", "record", books, "--round", 0, *credit, "--revenue", 100)
    assert (code, err) == (0, "")
    code, out, _ = run("ledger", "settle", books)
    assert code == 0
    assert all(name in out for name in ("[bold]Ada[/bold] <b>&amp;</b>", "שלום עולם", " a=b ", 'O\'Neil "x", y', "[red]c[/red]"))
    assert out.replace(" ", "").replace("\n", "").count("x") >= 200, "a long name is folded, not cut"
    for name in HOSTILE:
        words = ("ledger", "statement", books, name, "--html", tmp_path / "page.html", "--csv", tmp_path / "page.csv", "--overwrite")
        code, out, err = run(*words)
        assert (code, err) == (0, "")
        assert out.startswith(f"{name}, member of [red]c[/red]")
        assert "<b>&amp;</b>" not in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_a_statement_is_shown_and_written(run, books, tmp_path):
    code, out, _ = run("ledger", "statement", books, "Ada")
    assert code == 0
    assert "nothing was settled since the member joined" in out
    assert "to be settled next, for all: 10.00 EUR" in out
    run("ledger", "settle", books)
    code, out, err = run("ledger", "statement", books, "Bo", "--csv", tmp_path / "new" / "bo.csv", "--html", tmp_path / "bo.html")
    assert (code, err) == (0, "")
    assert "paid so far: 1.43 EUR" in out
    (row,) = csv.DictReader((tmp_path / "new" / "bo.csv").read_text().splitlines())
    row.pop("at")
    assert row == {
        "settlement": "1",
        "n_rounds": "2",
        "first_round": "0",
        "last_round": "1",
        "credit": "0.0",
        "standing": "0.1",
        "share": repr(0.1 / 0.7),
        "revenue": "10.00",
        "payout": "1.43",
        "paid": "1.43",
        "reserve": "0.00",
        "currency": "EUR",
    }
    assert "Statement of <bdi>Bo</bdi>" in (tmp_path / "bo.html").read_text(encoding="utf-8")


def test_heads_that_were_saved_must_still_stand(run, books, tmp_path):
    code, out, _ = run("ledger", "verify", books, "--save-head", tmp_path / "new" / "head.json")
    assert code == 0
    head = heads(books)["clinics"]
    assert f"head of clinics: {head.seq}:{head.hash}" in out
    run("ledger", "export", books, "--bundle", tmp_path / "b.json")
    run("ledger", "settle", books)
    for given in (tmp_path / "new" / "head.json", tmp_path / "b.json", f"{head.seq}:{head.hash}"):
        code, out, err = run("ledger", "verify", books, "--head", given)
        assert (code, err) == (0, "")
        assert "with 1 head noted before" in out
    code, out, _ = run("ledger", "verify", books, "--head", f"{head.seq}:{'0' * 64}")
    assert code == 1
    assert f"{head.seq}" in out.split("BAD: ")[1]
    later = heads(books)["clinics"]
    code, out, _ = run("ledger", "verify", books, "-c", "clinics", "--head", f"{later.seq + 1}:{later.hash}")
    assert (code, "BAD: " in out) == (1, True)


def test_a_changed_row_is_named_and_no_head_is_saved(run, books, tmp_path):
    with sqlite3.connect(books) as database:
        database.execute("DROP TRIGGER credits_update")
        database.execute("UPDATE credits SET credit = 0.5 WHERE seq = 6")
    database.close()
    code, out, _ = run("ledger", "verify", books, "--save-head", tmp_path / "head.json")
    assert code == 1
    assert any("clinics credits 6" in line for line in out.splitlines() if line.startswith("BAD: "))
    assert "OK" not in out
    assert not (tmp_path / "head.json").exists()


def test_a_ledger_of_several_cooperatives_asks_which(run, books, tmp_path):
    with Ledger(books) as ledger:
        ledger.init("other", ["Ada"])
    for words in (("settle",), ("statement",), ("record", "--revenue", "1"), ("export", "--csv", tmp_path), ("init", "--member", "Cy")):
        command, *rest = words
        code, _, err = run("ledger", command, books, *(["Ada"] if command == "statement" else []), *rest)
        assert code == 2
        assert "holds 2 cooperatives: name one with --cooperative: clinics, other" in err
    assert run("ledger", "settle", books, "-c", "clinics")[0] == 0
    code, out, _ = run("ledger", "verify", books)
    assert (code, "of 2 cooperatives" in out) == (0, True)
    code, out, _ = run("ledger", "verify", books, "-c", "other")
    assert (code, "OK: 2 rows of 1 cooperative\n" in out) == (0, True)


def test_commands_that_only_read_leave_the_file_as_it_is(run, books, tmp_path):
    run("ledger", "settle", books)
    before = books.read_bytes()
    for words in (("verify",), ("statement", "Ada"), ("export", "--csv", tmp_path / "c", "--bundle", tmp_path / "b.json")):
        assert run("ledger", words[0], books, *words[1:])[0] == 0
    assert books.read_bytes() == before


@pytest.mark.parametrize(
    "missing", [("settle",), ("verify",), ("statement", "Ada"), ("export", "--bundle", "b.json"), ("record", "--revenue", "1")]
)
def test_a_ledger_that_is_not_there_is_one_clear_line_and_is_not_made(run, tmp_path, monkeypatch, missing):
    monkeypatch.chdir(tmp_path)
    code, _, err = run("ledger", missing[0], "none.db", *missing[1:])
    assert code == 2
    assert err.startswith("error: ")
    assert "none.db" in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("init", "NEW", "--member", "Ada"), "to create a cooperative, name it with --cooperative NAME"),
        (("init", "NEW", "-c", "c"), "must have at least one member"),
        (("init", "NEW", "-c", "=c", "--member", "Ada"), "begins with '='"),
        (("init", "NEW", "-c", "c", "--member", "a\nb"), "has a control character"),
        (("init", "NEW", "-c", "c", "--member", "a\u202eb"), "has an invisible formatting character"),
        (("init", "NEW", "-c", "c", "--member", "x" * 10_000), "has 10,000 characters"),
        (("init", "NEW", "-c", "c", "--member", "a", "--member", "a"), "named twice"),
        (("init", "NEW", "-c", "c", "--member", "a", "--currency", "eur"), "currency 'eur': write 3 to 12 capital letters or digits"),
        (("init", "NEW", "-c", "c", "--member", "a", "--exponent", "19"), "must be a whole number of decimals from 0 to 18"),
        (("init", "NEW", "-c", "c", "--members", "/nonexistent"), "file of members '/nonexistent' cannot be read"),
        (("init", "NEW", "-c", "c", "--member", "a", "--policy", "/nonexistent"), "policy file '/nonexistent' cannot be read"),
        (
            ("init", "NEW", "-c", "c", "--member", "a", "--set", "decya=1"),
            "unknown setting of a policy 'decya' (did you mean 'decay'?): the known",
        ),
        (
            ("init", "NEW", "-c", "c", "--member", "a", "--set", "decay=2"),
            "error: --set 'decay=2': decay: Input should be less than or equal to 1 (got 2)",
        ),
        (
            ("init", "NEW", "-c", "c", "--member", "a", "--set", "floor=1.5"),
            "error: --set 'floor=1.5': floor: Input should be a valid integer (got 1.5)",
        ),
        (("init", "NEW", "-c", "c", "--member", "a", "--set", "decay"), "write KEY=VALUE"),
        (("init", "NEW", "-c", "c", "--member", "a", "--set", "cap=1", "--set", "floor=2"), "policy: cap=1 is below floor=2"),
        (("init", "/dev/null/x.db", "-c", "c", "--member", "a"), "/dev/null/x.db"),
        (("record", "BOOKS"), "there is nothing to record: give --round with --credit, or --revenue, or --file"),
        (("record", "BOOKS", "--credit", "Ada=1"), "--credit needs the number of its round"),
        (("record", "BOOKS", "--round", "5"), "--round without --credit: give --credit NAME=NUMBER, or --revenue for a round that"),
        (("init", "NEW", "-c", "c", "--member", "a", "--set", "decay=" + "9" * 5000), "error: --set 'decay=999"),
        (("verify", "BOOKS", "--save-head", "BOOKS"), "books.db' is the ledger itself: choose another file"),
        (("statement", "BOOKS", "Ada", "--csv", "BOOKS"), "books.db' is the ledger itself: choose another file"),
        (("statement", "BOOKS", "Ada", "--html", "BOOKS"), "books.db' is the ledger itself: choose another file"),
        (("export", "BOOKS", "--bundle", "BOOKS"), "books.db' is the ledger itself: choose another file"),
        (("statement", "BOOKS", "Ada", "--csv", "x", "--html", "./x"), "output 'x' is named twice: choose a file for each"),
        (("export", "BOOKS", "--csv", "t", "--bundle", "t/members.csv"), "output 't/members.csv' is named twice"),
        (("record", "BOOKS", "--round", "5", "--credit", "Ada"), "--credit 'Ada': write NAME=NUMBER"),
        (("record", "BOOKS", "--round", "5", "--credit", "Ada=x"), "credit 'x': must be a number"),
        (("record", "BOOKS", "--round", "5", "--credit", "Ada=inf"), "credit 'inf': must be a number"),
        (("record", "BOOKS", "--round", "5", "--credit", "Ada=1", "--credit", "Ada=1"), "'Ada' has a credit already"),
        (("record", "BOOKS", "--round", "5", "--credit", "Cy=1"), "unknown member of 'clinics' 'Cy'"),
        (("record", "BOOKS", "--round=-5", "--credit", "Ada=1"), "round '-5': must be a whole number from 0"),
        (("record", "BOOKS", "--round", "1.5", "--credit", "Ada=1"), "round '1.5'"),
        (("record", "BOOKS", "--round", "1", "--credit", "Ada=.4"), "round 1 of 'clinics' is recorded already, and differs"),
        (("record", "BOOKS", "--revenue", "1.234"), "--revenue: amount '1.234' has 3 decimals: EUR has 2, and nothing is rounded"),
        (("record", "BOOKS", "--revenue=-1"), "--revenue: amount '-1': write digits"),
        (("record", "BOOKS", "--revenue", "1e2"), "--revenue: amount '1e2': write digits"),
        (("record", "BOOKS", "--revenue", "9" * 10_000), "no more than 92233720368547758.07 EUR"),
        (("record", "BOOKS", "--revenue", "92233720368547758.07"), "all revenue"),
        (("record", "BOOKS", "--revenue", "0"), "must be from 1"),
        (("record", "BOOKS", "--file", "/nonexistent"), "'/nonexistent' cannot be read"),
        (("record", "BOOKS", "--file", "x.csv", "--round", "1"), "--file takes rounds, credits and revenue from the file"),
        (("record", "BOOKS", "-c", "nope", "--revenue", "1"), "unknown cooperative 'nope': the known ones are clinics"),
        (("settle", "BOOKS", "--key", " k"), "begins or ends with a space"),
        (("settle", "BOOKS", "--revenue", "1,5"), "--revenue: amount '1,5': write digits"),
        (("verify", "BOOKS", "--head", "7:xyz"), "head '7:xyz': write a row's number and its hash"),
        (("verify", "BOOKS", "--head", "/nonexistent"), "head file '/nonexistent' cannot be read"),
        (("verify", "BOOKS", "--save-head", "/dev/null/x"), "output folder '/dev/null' cannot be written"),
        (("verify", "BOOKS", "-c", "nope"), "unknown cooperative 'nope'"),
        (("statement", "BOOKS", "Cy"), "unknown member of 'clinics' 'Cy': the known ones are Ada, Bo"),
        (("statement", "BOOKS", "Ada", "--csv", "/dev/null/x"), "output folder '/dev/null' cannot be written"),
        (("statement", "BOOKS", "Ada", "--html", "/"), "is a folder: name a file in it"),
        (("export", "BOOKS"), "there is nothing to write: give --csv FOLDER, --parquet FOLDER or --bundle FILE"),
        (("export", "BOOKS", "--csv", "/dev/null/x"), "output folder '/dev/null/x' cannot be written"),
        (("export", "BOOKS", "--bundle", "/dev/null/x"), "output folder '/dev/null' cannot be written"),
        (("export", "BOOKS", "--bundle", "verify_bundle.py"), "choose another name"),
        (("settle", "mysql://user:secret@host/db"), "host"),
        (("settle", "/dev/null"), "/dev/null"),
    ],
    ids=range(59),
)
def test_a_wrong_input_is_one_clear_line_and_changes_nothing(run, books, tmp_path, monkeypatch, words, said):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    before = heads(books)
    code, out, err = run("ledger", *({"BOOKS": books, "NEW": "new.db"}.get(word, word) for word in words))
    assert (code, out) == (2, "")
    assert said in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert len(err) < 500
    assert "secret" not in err
    assert heads(books) == before
    assert not list((tmp_path / "empty").iterdir())


def test_parquet_without_pyarrow_is_refused_before_anything_is_written(run, books, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    code, _, err = run("ledger", "export", books, "--csv", tmp_path / "c", "--parquet", tmp_path / "p")
    assert code == 2
    assert err == "error: Parquet files need pyarrow: pip install 'proxycoop[parquet]'\n"
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("beside", ["-wal", "-shm", "link", "hard link"])
def test_no_output_replaces_a_file_of_the_ledger_by_another_name(run, books, tmp_path, beside):
    place = books.with_name(f"books.db{beside}")
    if beside == "link":
        place.symlink_to(books)
    elif beside == "hard link":
        place.hardlink_to(books)
    before = books.read_bytes()
    code, _, err = run("ledger", "statement", books, "Ada", "--csv", place)
    assert (code, "is the ledger itself" in err) == (2, True)
    assert books.read_bytes() == before


def test_no_table_is_written_over_a_ledger_of_its_name(run, original, tmp_path):
    for table in ("members.csv", "verify_bundle.py"):
        books = shutil.copy(original, tmp_path / table)
        code, _, err = run("ledger", "export", books, "--csv", tmp_path, "--bundle", tmp_path / "b.json")
        assert (code, f"{table}' is the ledger itself" in err) == (2, True)
        assert heads(books) == heads(original)


def test_a_policy_file_that_sets_something_twice_is_refused(run, tmp_path):
    (tmp_path / "p.yaml").write_text("decay: .9\nfloor: 1\ndecay: .5\n")
    code, _, err = run("ledger", "init", tmp_path / "b.db", "-c", "c", "--member", "Ada", "--policy", tmp_path / "p.yaml")
    assert (code, "p.yaml:3: not valid YAML: the key 'decay' is given twice, first in line 1: leave one" in err) == (2, True)
    (tmp_path / "p.yaml").write_text(f"decay: {'9' * 5000}\n")
    code, _, err = run("ledger", "init", tmp_path / "b.db", "-c", "c", "--member", "Ada", "--policy", tmp_path / "p.yaml")
    assert (code, "p.yaml:1: not valid YAML: the number '9999" in err) == (2, True)
    assert not (tmp_path / "b.db").exists()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("decay: .9\nfloor: yes\n", "p.yaml:2: floor: Input should be a valid integer (got 'yes', which is text in YAML 1.2)"),
        ("decay: .9\nsolidarity: true\n", "p.yaml:2: solidarity: must be a number, not true or false (got True)"),
        ("decay: .9\nfloor: 2020-99-99\n", "p.yaml:2: floor: Input should be a valid integer (got '2020-99-99')"),
        ("decay: .9\ndecai: 1\n", "p.yaml:2: unknown setting of a policy 'decai' (did you mean 'decay'?)"),
        ("3: .9\n", "p.yaml:1: unknown setting of a policy 3"),
        ("decay: &d [*d]\n", "p.yaml:1: not valid YAML: the alias 'd' stands inside what it names"),
        ("", "p.yaml' must hold a mapping, such as decay: 0.9, not nothing"),
    ],
)
def test_a_wrong_policy_file_is_named_with_the_line(run, tmp_path, text, complaint):
    (tmp_path / "p.yaml").write_text(text)
    code, _, err = run("ledger", "init", tmp_path / "b.db", "-c", "c", "--member", "Ada", "--policy", tmp_path / "p.yaml")
    assert (code, err.count("\n")) == (2, 1)
    assert complaint in err
    assert not (tmp_path / "b.db").exists()


def test_a_file_without_heads_verifies_nothing_and_says_so(run, books, tmp_path):
    (tmp_path / "h.json").write_text('{"heads": {}}')
    code, out, err = run("ledger", "verify", books, "--head", tmp_path / "h.json")
    assert (code, out, "holds no heads: there is nothing to compare with" in err) == (2, "", True)


def forked(place, *words, encoding="utf-8"):
    """The command line in a process of its own, forked from this one, that writes to ``place``, and its errors beside it: its exit code."""
    child = os.fork()
    if child == 0:
        code = 120
        try:
            for number, file in ((1, place), (2, f"{place}.errors")):
                os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
            sys.stdout, sys.stderr = (os.fdopen(number, "w", encoding=encoding) for number in (1, 2))
            sys.argv = ["proxycoop", *map(str, words)]
            try:
                cli.main()
            except SystemExit as stop:
                code = stop.code
            else:
                code = 0
            sys.stderr.flush()
            sys.stdout.close()  # as Python does when it ends
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_name_that_the_terminal_cannot_show_is_escaped_and_the_settlement_is_no_error(run, tmp_path):
    books = tmp_path / "b.db"
    run("ledger", "init", books, "-c", "c", "--member", "\u0646\u0631\u06af\u0633")
    assert forked(tmp_path / "said", "ledger", "settle", books, "--revenue", "5.00", encoding="ascii") == 0
    assert (tmp_path / "said.errors").read_text() == ""
    assert r"\u0646\u0631\u06af\u0633" in (tmp_path / "said").read_text()
    with Ledger(books) as ledger:
        assert ledger.statement("c", "\u0646\u0631\u06af\u0633").paid == 500


def test_output_that_cannot_be_written_is_one_line_and_says_that_what_was_done_stays(books, tmp_path):
    (tmp_path / "full").symlink_to("/dev/full")
    assert forked(tmp_path / "full", "ledger", "settle", books) == 1
    assert (tmp_path / "full.errors").read_text() == (
        "error: [Errno 28] No space left on device: the output is incomplete; what was done before is kept\n"
    )
    with Ledger(books) as ledger:
        assert ledger.statement("clinics", "Ada").paid > 0


def test_a_closed_pipe_ends_without_a_traceback():
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "proxycoop", "ledger", "--help"], stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_a_floor_is_paid_from_the_reserve_under_a_key_and_not_by_a_repeat(run, tmp_path):
    books = tmp_path / "b.db"
    run("ledger", "init", books, "-c", "c", "--member", "Ada", "--set", "floor=100", "--set", "reserve=.5")
    assert run("ledger", "settle", books, "--revenue", "10")[0] == 0
    code, _, err = run("ledger", "settle", books)
    assert (code, "nothing came in since settlement 1" in err) == (2, True)
    code, first, _ = run("ledger", "settle", books, "--key", "august")
    assert (code, "settlement 2 of c: made, revenue 0.00 EUR" in first) == (0, True)
    assert "in reserve: 4.00 EUR" in first
    assert run("ledger", "settle", books, "--key", "august")[1] == first.replace(": made", ": was made already")


def test_a_file_of_heads_of_other_cooperatives_is_refused(run, books, tmp_path):
    (tmp_path / "h.json").write_text(json.dumps({"heads": {"other": {"seq": 1, "hash": "a" * 64}}}))
    code, _, err = run("ledger", "verify", books, "-c", "clinics", "--head", tmp_path / "h.json")
    assert (code, "has no head of 'clinics': it has those of 'other'" in err) == (2, True)


def test_no_digit_of_an_amount_is_lost_on_a_narrow_terminal(run, books, monkeypatch):
    monkeypatch.setattr(terminal, "console", lambda: Console(width=30))
    run("ledger", "record", books, "--revenue", "12345678901234567.89")
    _, settled, _ = run("ledger", "settle", books)
    with Ledger(books) as ledger:
        (line,) = ledger.statement("clinics", "Ada").lines
    assert line.payout > 10**18
    amount = f"{line.payout // 100}.{line.payout % 100:02d}"
    assert amount in settled
    assert amount in run("ledger", "statement", books, "Ada")[1]
