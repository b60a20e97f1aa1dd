"""What leaves a ledger, and the script with which a third party verifies it."""

from __future__ import annotations

import ast
import csv
import hashlib
import json
import math
import random
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pyarrow.parquet
import pytest

from proxycoop.credit.ledger import Ledger, export
from proxycoop.credit.ledger.chain import CHAINED, Head
from proxycoop.credit.ledger.verify_bundle import verify
from proxycoop.credit.money.settlement import LARGEST, SettlementPolicy

HOSTILE = ['Ada "A", Lovelace; <b>&amp;</b>', "שלום עולם", "O'Neil [bold]", "می\u200cخواهم,名前"]
AWKWARD = [0.1, -0.1, 1 / 3, 5e-324, 1.7976931348623157e299, -0.0, 2.5e-17, 123456789.123456789]


@pytest.fixture(scope="module")
def books(tmp_path_factory):
    """A ledger of two cooperatives with hostile names, awkward credits, revenue with and without rounds, and four settlements."""
    with Ledger(tmp_path_factory.mktemp("books") / "books.db") as ledger:
        ledger.init("clinics <&>", HOSTILE, policy=SettlementPolicy(decay=0.9, reserve=0.1, floor=3))
        ledger.init("other", ["Ada"], currency="JPY")
        rng = random.Random(0)
        for t in range(12):
            credit = {name: AWKWARD[(t + i) % len(AWKWARD)] for i, name in enumerate(HOSTILE) if rng.random() < 0.7}
            ledger.record("clinics <&>", t, credit, revenue=rng.randrange(1000) if t % 2 else 0, key=f"round, {t}" if t % 3 else None)
            if t == 6:
                ledger.init("clinics <&>", ["Late"], policy=SettlementPolicy(decay=0.9, reserve=0.1, floor=3))
            if t % 3 == 2:
                ledger.settle("clinics <&>", revenue=rng.randrange(1000), key=f"settlement {t}" if t > 5 else None)
        ledger.record_revenue("clinics <&>", LARGEST // 2, key='"quoted" key')
        yield ledger


@pytest.fixture(scope="module")
def bundle(books, tmp_path_factory):
    return export.write_bundle(books, "clinics <&>", tmp_path_factory.mktemp("bundle") / "new" / "audit.json")


def judged(path: Path, *words: str) -> tuple[int, str]:
    """What the script beside the bundle says, run by a bare Python."""
    script = path.with_name("verify_bundle.py")
    done = subprocess.run([sys.executable, "-I", "-S", script, path, *words], capture_output=True, text=True, timeout=60, check=False)
    said = done.stdout + done.stderr
    assert "Traceback" not in said
    return done.returncode, said


def check(data: object, tmp_path: Path, *words: str) -> tuple[int, str]:
    """What the script says of other content."""
    path = tmp_path / "other.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")
    path.with_name("verify_bundle.py").write_bytes(Path(export.__file__).with_name("verify_bundle.py").read_bytes())
    return judged(path, *words)


def rehashed(data: dict, tip: bool = True) -> dict:
    """The same bundle with a chain that fits its content, as a forger would write it."""
    before = "0" * 64
    for entry in data["entries"]:
        text = json.dumps([before, entry["table"], entry["fields"]], sort_keys=True, separators=(",", ":"))
        before = entry["hash"] = hashlib.sha256(text.encode()).hexdigest()
    if tip:
        data["head"] = {"seq": len(data["entries"]), "hash": before}
    return data


def tampered(path: Path, table: str, statement: str) -> None:
    """Change a ledger as only who owns the file can."""
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("PRAGMA ignore_check_constraints = 1")
        database.execute(f"DROP TRIGGER {table}_update")
        database.execute(statement)


def test_csv_files_hold_every_row_in_full(books, tmp_path):
    paths = export.write_csv(books, "clinics <&>", tmp_path / "new" / "tables")
    assert [path.name for path in paths] == [f"{table}.csv" for table in CHAINED]
    rows = {path.stem: list(csv.DictReader(path.read_text(encoding="utf-8").splitlines())) for path in paths}
    names = [*HOSTILE, "Late"]
    count = 0
    for entry in books.entries("clinics <&>"):
        row = rows[entry.table].pop(0)
        count += 1
        assert row.pop("hash") == entry.hash
        if entry.table in ("credits", "payouts"):
            assert row.pop("member") == names[entry.fields["position"]]
        assert row.keys() == entry.fields.keys()
        for column, value in entry.fields.items():
            if isinstance(value, float):
                assert float(row[column]) == value
                assert row[column] == repr(value)
            else:
                assert row[column] == ("" if value is None else str(value))
    assert not any(rows.values())
    assert count == books.head("clinics <&>").seq


def test_no_text_in_csv_is_a_formula(books, tmp_path):
    for path in export.write_csv(books, "clinics <&>", tmp_path):
        for row in csv.reader(path.read_text(encoding="utf-8").splitlines()):
            for cell in row:
                if cell.startswith(tuple("=+-@\t\r")):
                    assert math.isfinite(float(cell))


def test_a_formula_that_was_smuggled_into_a_ledger_is_not_written(tmp_path):
    with Ledger(tmp_path / "l.db") as ledger:
        ledger.init("clinics", ["Ada"])
    tampered(tmp_path / "l.db", "members", "UPDATE members SET name = '=1+1'")
    with Ledger(tmp_path / "l.db") as ledger:
        with pytest.raises(ValueError, match="row 2 of members has text that a spreadsheet would take for a formula"):
            export.write_csv(ledger, "clinics", tmp_path / "tables")
        assert not list((tmp_path / "tables").iterdir())
        assert "row 2" in judged(export.write_bundle(ledger, "clinics", tmp_path / "b.json"))[1]


def test_rows_that_hold_no_value_of_their_column_are_named(tmp_path):
    with Ledger(tmp_path / "l.db") as ledger:
        ledger.init("clinics", ["Ada"])
        ledger.record("clinics", 0, {"Ada": 1.0})
    tampered(tmp_path / "l.db", "credits", "UPDATE credits SET credit = x'00'")
    with Ledger(tmp_path / "l.db") as ledger:
        with pytest.raises(ValueError, match=r"row 4 of credits holds a value that JSON does not have .* run proxycoop ledger verify"):
            export.write_bundle(ledger, "clinics", tmp_path / "b.json")
        with pytest.raises(ValueError, match=r"is damaged .* run proxycoop ledger verify"):
            export.write_parquet(ledger, "clinics", tmp_path / "tables")
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith("l.db")) == ["tables"]
    assert not list((tmp_path / "tables").iterdir())


def test_parquet_keeps_types_and_values(books, tmp_path):
    tables = {path.stem: pyarrow.parquet.read_table(path) for path in export.write_parquet(books, "clinics <&>", tmp_path / "new")}
    assert list(tables) == list(CHAINED)
    kinds = {(name, column.name): str(column.type) for name, table in tables.items() for column in table.schema}
    assert {kinds[place] for place in (("credits", "credit"), ("payouts", "standing"))} == {"double"}
    assert {kinds[place] for place in (("revenue", "amount"), ("revenue", "round"), ("payouts", "paid"), ("members", "seq"))} == {"int64"}
    assert {kinds[place] for place in (("rounds", "key"), ("members", "name"), ("credits", "member"), ("credits", "hash"))} == {"string"}
    rows = {name: table.to_pylist() for name, table in tables.items()}
    for entry in books.entries("clinics <&>"):
        row = rows[entry.table].pop(0)
        row.pop("member", None)
        assert row == {**entry.fields, "hash": entry.hash}
    assert not any(rows.values())


def test_tables_without_rows_are_written_with_their_columns(books, tmp_path):
    paths = export.write_csv(books, "other", tmp_path)
    assert {path.stem: len(path.read_text().splitlines()) - 1 for path in paths} == {
        **dict.fromkeys(CHAINED, 0),
        "cooperatives": 1,
        "members": 1,
    }
    paths = export.write_parquet(books, "other", tmp_path)
    assert [pyarrow.parquet.read_table(path).num_rows for path in paths] == [1, 1, 0, 0, 0, 0, 0, 0]


def test_more_rows_than_are_held_at_a_time_are_all_written(books, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "_AT_ONCE", 5)
    paths = export.write_parquet(books, "clinics <&>", tmp_path)
    assert sum(pyarrow.parquet.read_table(path).num_rows for path in paths) == books.head("clinics <&>").seq


def test_progress_ends_at_the_number_of_rows(books, tmp_path):
    told = []
    export.write_csv(books, "clinics <&>", tmp_path, lambda done, total: told.append((done, total)))
    seq = books.head("clinics <&>").seq
    assert (told[0], told[-1]) == ((0, seq), (seq, seq))


def test_nothing_is_written_without_pyarrow(books, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ValueError, match=r"pip install 'proxycoop\[parquet\]'"):
        export.write_parquet(books, "clinics <&>", tmp_path / "tables")
    assert not list(tmp_path.iterdir())


def test_a_failure_half_way_leaves_no_file(books, tmp_path):
    class HalfError(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done == total:
            raise HalfError

    for write, place in ((export.write_csv, tmp_path), (export.write_parquet, tmp_path), (export.write_bundle, tmp_path / "b.json")):
        with pytest.raises(HalfError):
            write(books, "clinics <&>", place, stop)
        assert not list(tmp_path.iterdir())


def test_a_bundle_is_verified_by_python_alone(books, bundle):
    head = books.head("clinics <&>")
    code, said = judged(bundle)
    assert (code, said) == (0, f"OK: {head.seq} rows of 'clinics <&>', head {head.seq}:{head.hash}\n")
    data = json.loads(bundle.read_text())
    assert list(data) == ["format", "cooperative", "head", "verified_with", "entries"]
    assert data["verified_with"] == "verify_bundle.py"
    assert judged(bundle, "--head", f"{head.seq}:{head.hash}")[0] == 0
    earlier = data["entries"][10]
    assert judged(bundle, "--head", f"{earlier['seq']}:{earlier['hash']}")[0] == 0, "a head that was noted when the ledger was shorter"


def test_the_script_is_short_and_needs_the_standard_library_alone():
    lines = Path(export.__file__).with_name("verify_bundle.py").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 60
    assert {line.split()[1] for line in lines if line.startswith(("import ", "from "))} <= sys.stdlib_module_names
    assert all(line.isascii() for line in lines), "it prints its own text on any terminal"
    ast.parse("\n".join(lines), feature_version=(3, 9))


def test_a_change_of_any_value_is_found_and_its_row_named(bundle):
    data = json.loads(bundle.read_text())
    tried = set()
    for index, entry in enumerate(data["entries"]):
        places = [(entry, "table"), (entry, "seq"), (entry, "hash"), *((entry["fields"], column) for column in entry["fields"])]
        for holder, column in places:
            if (entry["table"], column) in tried and index % 7:
                continue
            tried.add((entry["table"], column))
            old = holder[column]
            for new in _others(old):
                holder[column] = new
                sums = Counter()
                with pytest.raises((ValueError, LookupError, TypeError, AttributeError)):
                    verify(data, set(), sums)
                assert sums["rows"] == index + 1, (entry, column, new)
            del holder[column]
            with pytest.raises((ValueError, LookupError, TypeError, AttributeError)):
                verify(data, set(), Counter())
            holder[column] = old
    assert len(tried) > 50
    assert verify(data, set(), Counter()).startswith("OK")


def _others(value: object) -> list[object]:
    if isinstance(value, str):
        return [value + "x", value[:-1], value.swapcase() if value.swapcase() != value else "", 1, None]
    if isinstance(value, float):
        return [math.nextafter(value, math.inf), -value if value else 1.0, str(value), None, int(value) if value == int(value) else 0.5]
    if value is None:
        return ["x", 0, "", False]
    return [value + 1, value - 1, float(value) + 0.5, str(value), None, 10**30, -value - 1]


def test_rows_that_are_missing_doubled_moved_or_added_are_found(bundle, tmp_path):
    whole = json.loads(bundle.read_text())
    n = len(whole["entries"])

    def other(change) -> str:
        data = json.loads(bundle.read_text())
        change(data["entries"])
        code, said = check(data, tmp_path)
        assert code == 1
        return said

    assert other(lambda rows: rows.pop(20)).startswith("BAD: row 21: ")
    assert other(lambda rows: rows.insert(20, rows[20])).startswith("BAD: row 22: ")
    assert other(lambda rows: rows.insert(5, rows.pop(20))).startswith("BAD: row 6: ")
    assert "rows are missing" in other(lambda rows: rows.pop())
    assert "rows are missing" in other(lambda rows: rows.clear())
    assert other(lambda rows: rows.append(rows[-1])).startswith(f"BAD: row {n + 1}: ")


def test_a_chain_that_was_cut_off_or_written_anew_shows_by_a_noted_head(bundle, tmp_path):
    whole = json.loads(bundle.read_text())
    noted = "{seq}:{hash}".format(**whole["head"])
    cut = json.loads(bundle.read_text())
    cut["entries"].pop()
    assert check(rehashed(cut), tmp_path)[0] == 0, "revenue at the end may as well not have come"
    code, said = check(cut, tmp_path, "--head", noted)
    assert (code, "noted head is none of its rows" in said) == (1, True)
    anew = json.loads(bundle.read_text())
    anew["entries"][1]["fields"]["name"] = "Mallory"
    assert check(rehashed(anew), tmp_path)[0] == 0
    assert check(anew, tmp_path, "--head", noted)[0] == 1


@pytest.mark.parametrize(
    ("table", "column", "change", "said"),
    [
        ("revenue", "amount", 1, "its number or revenue does not follow"),
        ("settlements", "revenue", 1, "its number or revenue does not follow"),
        ("settlements", "reserve", 1, "payouts and the reserve's gain are not the revenue"),
        ("settlements", "n_payouts", 1, "it is not its member's turn"),
        ("settlements", "n_payouts", -1, "it is not its member's turn"),
        ("settlements", "number", 1, "its number or revenue does not follow"),
        ("members", "position", 1, "it is not its member's turn"),
        ("payouts", "position", 77, "it is not its member's turn"),
        ("payouts", "amount", 1, "its member was paid"),
        ("payouts", "paid", 1, "its member was paid"),
        ("payouts", "settlement", 1, "does not belong here"),
        ("rounds", "n_credits", 1, "does not belong here"),
        ("credits", "round", 1, "does not belong here"),
        ("payouts", "amount", -(10**6), "a number is not from 0 to 2^63 - 1"),
        ("payouts", "amount", 2**63, "a number is not from 0 to 2^63 - 1"),
        ("payouts", "amount", 0.5, "a number is not from 0 to 2^63 - 1"),
    ],
)
def test_money_that_does_not_add_up_is_found_though_all_hashes_fit(bundle, tmp_path, table, column, change, said):
    data = json.loads(bundle.read_text())
    row = next(entry["fields"] for entry in data["entries"] if entry["table"] == table and entry["fields"][column] >= (table != "payouts"))
    row[column] += change
    code, out = check(rehashed(data), tmp_path)
    assert code == 1
    assert said in out
    assert out.startswith("BAD: row ")


def test_payments_moved_from_one_member_to_another_are_found_though_all_hashes_fit(bundle, tmp_path):
    data = json.loads(bundle.read_text())
    rows = [entry["fields"] for entry in data["entries"] if entry["table"] == "payouts" and entry["fields"]["settlement"] == 4]
    rows[0]["amount"] += 1
    rows[0]["paid"] += 1
    assert "are not the revenue" in check(rehashed(data), tmp_path)[1]
    rows[1]["amount"] -= 1
    assert "its member was paid" in check(rehashed(data), tmp_path)[1]


def changed(bundle: Path, tmp_path: Path, change: Callable[[list[dict]], object]) -> str:
    """What the script says of a bundle whose rows were changed, and all hashes with them."""
    data = json.loads(bundle.read_text())
    change([{"table": entry["table"], "row": entry["fields"]} for entry in data["entries"]])
    code, said = check(rehashed(data), tmp_path)
    assert code == 1
    return said


def test_a_member_paid_twice_in_a_settlement_is_found_though_sums_and_hashes_fit(bundle, tmp_path):
    def double(rows: list[dict]) -> None:
        before, last = [one["row"] for one in rows if one["table"] == "payouts"][-2:]
        last.update(position=before["position"], paid=before["paid"] + last["amount"])

    assert "it is not its member's turn" in changed(bundle, tmp_path, double)


def test_a_settlement_number_that_stands_twice_is_found_though_sums_and_hashes_fit(bundle, tmp_path):
    def again(rows: list[dict]) -> None:
        for one in rows:
            column = {"settlements": "number", "payouts": "settlement"}.get(one["table"])
            if column is not None and one["row"][column] == 4:
                one["row"][column] = 3

    assert "its number or revenue does not follow" in changed(bundle, tmp_path, again)


def test_a_settlement_that_pays_nobody_is_found(tmp_path):
    with Ledger(tmp_path / "l.db") as ledger:
        ledger.init("clinics", ["Ada"], policy=SettlementPolicy(reserve=0.5))
        ledger.settle("clinics", 10)
        path = export.write_bundle(ledger, "clinics", tmp_path / "b.json")
    data = json.loads(path.read_text())
    *entries, settlement, payout = data["entries"]
    assert payout["table"] == "payouts"
    settlement["fields"].update(n_payouts=0, reserve=10)
    code, said = check(rehashed({**data, "entries": [*entries, settlement]}), tmp_path)
    assert (code, "after it rows are missing" in said) == (1, True)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "3",
        '"text"',
        "{}",
        '{"format": 1}',
        '{"format": 2, "entries": []}',
        '{"format": 1, "cooperative": "a", "head": {"seq": 0, "hash": ""}, "entries": {}}',
        '{"format": 1, "cooperative": "a", "head": 3, "entries": []}',
        '{"format": 1, "cooperative": "a", "head": {"seq": 1, "hash": ""}, "entries": [3]}',
        '{"format": 1, "cooperative": "a", "head": {"seq": 1, "hash": ""}, "entries": [{"table": [], "seq": 1, "fields": {"seq": 1}}]}',
        '{"format": 1, "cooperative": "a", "head": {"seq": 1, "hash": ""}, "entries": [{"table": "x", "seq": 1, "fields": {"seq": NaN}}]}',
        '{"format": 1, "cooperative": "a", "head": {"seq": 1, "hash": ""}, "entries": null}',
        '{"format": 1, "entries": [{"table": "x", "seq": 1, "fields": "seq"}]}',
        "[" * 100_000,
        '{"a":' * 100_000,
        "9" * 10_000,
        "\ufeff{}",
        '{"format": 1, "cooperative": "\\ud800", "head": {"seq": 1, "hash": "\\ud800"}, "entries": []}',
    ],
    ids=range(21),
)
def test_what_is_no_bundle_is_one_line_and_exit_code_1(tmp_path, text):
    code, said = check(text, tmp_path)
    assert code == 1
    assert said.startswith("BAD: row ")
    assert said.count("\n") == 1
    assert len(said) < 300


def test_files_that_are_not_there_or_no_text_and_wrong_calls_end_with_code_1(bundle, tmp_path):
    script = [sys.executable, "-I", "-S", bundle.with_name("verify_bundle.py")]
    (tmp_path / "binary").write_bytes(bytes(range(256)) * 100)
    for words in ([], ["a", "b"], ["--head"], [tmp_path / "none"], [tmp_path], [tmp_path / "binary"], [bundle, "--head", "x"]):
        done = subprocess.run([*script, *words], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 1
        assert done.stderr
        assert "Traceback" not in done.stderr


def test_a_bundle_may_not_be_called_as_its_script(books, tmp_path):
    with pytest.raises(ValueError, match=r"verify_bundle\.py is the script"):
        export.write_bundle(books, "clinics <&>", tmp_path / "verify_bundle.py")


def test_a_bundle_bears_the_name_in_the_form_in_which_the_ledger_has_it(tmp_path):
    with Ledger(tmp_path / "l.db") as ledger:
        ledger.init("Café", ["Ada"])
        path = export.write_bundle(ledger, "Cafe\u0301", tmp_path / "b.json")
    assert judged(path)[0] == 0


def test_heads_are_read_back_from_a_file_of_heads_and_from_a_bundle(books, bundle, tmp_path):
    heads = {one.name: books.head(one.name) for one in books.cooperatives()}
    assert export.read_heads(export.write_heads(heads, tmp_path / "new" / "heads.json")) == heads
    assert export.read_heads(bundle) == {"clinics <&>": heads["clinics <&>"]}
    assert export.head_of(f"7:{'a' * 64}") == Head(7, "a" * 64)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[]", "is neither"),
        ("3", "is neither"),
        ('{"heads": 3}', "is neither"),
        ('{"heads": {}}', "holds no heads: there is nothing to compare with"),
        ('{"heads": {"a": {"seq": 1}}}', "is neither"),
        ('{"cooperative": "a", "head": {"seq": "x", "hash": "y"}}', "write a row's number and its hash"),
        ('{"cooperative": ["a"], "head": {"seq": 1, "hash": "y"}}', "write a row's number and its hash|is neither"),
    ],
    ids=range(9),
)
def test_what_is_no_file_of_heads_is_refused(tmp_path, text, said):
    (tmp_path / "f.json").write_text(text)
    with pytest.raises(ValueError, match=said):
        export.read_heads(tmp_path / "f.json")


@pytest.mark.parametrize("text", ["", "7", "7:", "0:" + "a" * 64, "7:" + "A" * 64, "7:" + "a" * 63, "x:" + "a" * 64, f"7:{'a' * 64}\n"])
def test_what_is_no_head_is_refused(text):
    with pytest.raises(ValueError, match="write a row's number and its hash"):
        export.head_of(text)


def test_files_that_cannot_be_written_are_named(books):
    for write in (export.write_csv, export.write_parquet):
        with pytest.raises(ValueError, match="'/dev/null/x' cannot be written"):
            write(books, "clinics <&>", "/dev/null/x")
    with pytest.raises(ValueError, match="'/dev/null' cannot be written"):
        export.write_bundle(books, "clinics <&>", "/dev/null/x.json")
    with pytest.raises(ValueError, match="unknown cooperative 'none'"):
        export.write_bundle(books, "none", "x.json")
