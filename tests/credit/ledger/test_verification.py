import shutil
from contextlib import suppress

import pytest
import sqlalchemy as sa

from proxycoop.credit.ledger import Ledger
from proxycoop.credit.ledger.chain import GENESIS, Head, link
from proxycoop.credit.ledger.schema import COLUMNS, NAMES, OPTIONAL
from proxycoop.credit.ledger.verification import MOST_PROBLEMS
from proxycoop.credit.money.settlement import SettlementPolicy


def fill(ledger):
    """Two cooperatives with several rows in every table."""
    policy = SettlementPolicy(reserve=0.1, decay=0.9)
    for name in ("clinics", "farms"):
        ledger.init(name, ["Ada", "Bo"], policy=policy)
        ledger.record(name, 7, {"Ada": 0.5, "Bo": 0.25}, revenue=100, key="k7", decisions={"members": {"Bo": {"offered": [0]}}})
        ledger.record(name, 2, {"Ada": -1.0, "Bo": 1.0}, revenue=30, key="k2")
        ledger.settle(name, 5, key="s1")
        ledger.init(name, ["Cy"], policy=policy)
        ledger.record(name, 9, {"Cy": 2.0}, decisions={"utility": -0.5})
        ledger.record_revenue(name, 50, key="gift")
        ledger.settle(name)


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A file with that ledger, to be copied."""
    path = tmp_path_factory.mktemp("filled") / "ledger.db"
    with Ledger(path) as ledger:
        fill(ledger)
    return path


@pytest.fixture
def ledger(ledger_url, filled):
    """A ledger of two cooperatives with several rows in every table."""
    url = sa.make_url(ledger_url)
    if url.drivername == "sqlite":
        shutil.copy(filled, url.database)
    with Ledger(ledger_url) as ledger:
        if url.drivername != "sqlite":
            fill(ledger)
        yield ledger


class Tamperer:
    """Whoever owns the database: triggers and checks are no hindrance."""

    def __init__(self, url):
        self.sqlite = url.startswith("sqlite")
        self.engine = sa.create_engine(sa.make_url(url).set(drivername="sqlite" if self.sqlite else "postgresql+psycopg"))

    def run(self, *statements):
        with self.engine.connect() as connection:
            if self.sqlite:
                connection.exec_driver_sql("PRAGMA ignore_check_constraints = ON")
                for (trigger,) in connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'trigger'").all():
                    connection.exec_driver_sql(f"DROP TRIGGER {trigger}")
            else:
                connection.exec_driver_sql("SET session_replication_role = replica")  # neither triggers nor foreign keys
            for statement in statements:
                connection.exec_driver_sql(statement)
            connection.commit()
            if not self.sqlite:
                connection.exec_driver_sql("SET session_replication_role = origin")
                connection.commit()

    def one(self, query):
        with self.engine.connect() as connection:
            return connection.exec_driver_sql(query).one()


@pytest.fixture
def tamperer(ledger, ledger_url):
    tamperer = Tamperer(ledger_url)
    yield tamperer
    tamperer.engine.dispose()


def first(ledger, **options):
    """The first problem in a chain; what SQLite itself notices comes before, and missing triggers behind."""
    verification = ledger.verify(**options)
    assert not verification.ok
    return next(one for one in verification.problems if one.cooperative is not None)


def test_an_untouched_ledger_is_fine(ledger):
    verification = ledger.verify(expected={name: ledger.head(name) for name in ("clinics", "farms")})
    assert verification.problems == []
    assert verification.ok
    of_rounds = {"rounds": 6, "credits": 10, "decisions": 4}
    assert verification.rows == {"cooperatives": 2, "members": 6, **of_rounds, "revenue": 8, "settlements": 4, "payouts": 10}
    assert verification.heads == {name: ledger.head(name) for name in ("clinics", "farms")}
    alone = ledger.verify("farms")
    assert alone.rows["members"] == 3
    assert list(alone.heads) == ["farms"]


def test_an_earlier_head_is_still_part_of_a_chain_that_grew(ledger):
    head = ledger.head("farms")
    ledger.record("farms", 10, {"Ada": 1.0})
    assert ledger.verify(expected={"farms": head}).ok


FIELDS = [(table, column) for table, columns in COLUMNS.items() for column in [*columns, "hash"]]


@pytest.mark.parametrize(("table", "column"), FIELDS)
def test_every_field_that_is_changed_is_found_and_its_row_named(ledger, tamperer, table, column):
    own = "id" if table == "cooperatives" else "cooperative_id"
    seq = tamperer.one(f"SELECT max(seq) FROM {table} WHERE {own} = 2")[0]
    kind = COLUMNS[table].get(column, sa.Text())
    if (table, column) in OPTIONAL and tamperer.one(f"SELECT {column} FROM {table} WHERE {own} = 2 AND seq = {seq}")[0] is None:
        change = "77" if isinstance(kind, sa.BigInteger) else "'x'"
    elif column == "hash":
        change = "'0' || substr(hash, 2, 62) || 'g'"
    elif column == "seq":
        change = "seq + 1000"
    elif isinstance(kind, sa.BigInteger):
        change = f"{column} + 1"
    elif isinstance(kind, sa.Float):
        change = f"{column} + 1e-15"
    else:
        change = f"{column} || ' '"
    if (table, column) == ("cooperatives", "seq"):
        tamperer.run(*([] if tamperer.sqlite else ["ALTER TABLE cooperatives DROP CONSTRAINT cooperatives_seq_check"]))
    tamperer.run(f"UPDATE {table} SET {column} = {change} WHERE {own} = 2 AND seq = {seq}")
    problem = first(ledger)
    if column == "seq":
        assert problem.cooperative == "farms"
        assert "missing" in problem.what
        assert str(seq) in problem.what
    else:
        assert (problem.cooperative, problem.table, problem.seq) == (
            "farms " if (table, column) == ("cooperatives", "name") else "farms",
            table,
            seq,
        )
        assert "its hash does not follow" in problem.what
    assert {one.cooperative for one in ledger.verify().problems} <= {None, problem.cooperative}


@pytest.mark.parametrize(
    ("table", "where", "label"),
    [
        ("cooperatives", "id = 2", "cooperative 'farms'"),
        ("members", "cooperative_id = 2 AND position = 1", "member 'Bo'"),
        ("rounds", "cooperative_id = 2 AND round = 7", "round 7"),
        ("credits", "cooperative_id = 2 AND round = 7 AND position = 0", "round 7, member 'Ada'"),
        ("revenue", "cooperative_id = 2 AND round = 7", "revenue of 100 in round 7"),
        ("settlements", "cooperative_id = 2 AND number = 2", "settlement 2"),
        ("payouts", "cooperative_id = 2 AND settlement = 2 AND position = 2", "settlement 2, member 'Cy'"),
    ],
)
def test_a_row_is_named_as_people_call_it_and_one_changed_hash_is_one_problem(ledger, tamperer, table, where, label):
    tamperer.run(f"UPDATE {table} SET hash = 'x' WHERE {where}")
    problems = [one for one in ledger.verify().problems if one.cooperative is not None and one.table != "heads"]
    assert [one.what for one in problems] == [f"{label}: its hash does not follow: this row was changed"]


@pytest.mark.parametrize("column", ["version", "at", "hash"])
def test_a_changed_version_row_is_found(ledger, tamperer, column):
    tamperer.run(f"UPDATE ledger_version SET {column} = {'version' if column == 'version' else repr('x')}")
    if column == "version":
        tamperer.run("UPDATE ledger_version SET at = at || ' '")
    assert any(one.table == "ledger_version" and "was changed" in one.what for one in ledger.verify().problems)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("seq = seq + 1", "the head says"),
        ("hash = 'x'", "the head says 25, 'x'"),
        ("revenue = revenue + 1", "the head says that all revenue was 186, and it was 185"),
    ],
)
def test_a_changed_head_is_found(ledger, tamperer, change, message):
    tamperer.run(f"UPDATE heads SET {change} WHERE cooperative_id = 2")
    problem = first(ledger)
    assert (problem.cooperative, problem.table) == ("farms", "heads")
    assert message in problem.what


def test_a_missing_head_is_found(ledger, tamperer):
    tamperer.run("DELETE FROM heads WHERE cooperative_id = 2")
    assert first(ledger).what == "the cooperative has no head"


@pytest.mark.parametrize("table", [name for name in COLUMNS if name != "cooperatives"])
def test_a_deleted_row_is_found(ledger, tamperer, table):
    (seq,) = tamperer.one(f"SELECT min(seq) FROM {table} WHERE cooperative_id = 1")
    tamperer.run(f"DELETE FROM {table} WHERE cooperative_id = 1 AND seq = {seq}")
    assert f"row {seq} before it is missing" in first(ledger).what


def test_deleted_last_rows_with_a_head_moved_back_are_found_by_a_head_kept_elsewhere(ledger, tamperer):
    kept = ledger.head("clinics")
    seq, last = tamperer.one("SELECT seq, hash FROM revenue WHERE cooperative_id = 1 AND key = 'gift'")
    tamperer.run(
        f"DELETE FROM payouts WHERE cooperative_id = 1 AND seq > {seq}",
        f"DELETE FROM settlements WHERE cooperative_id = 1 AND seq > {seq}",
        f"UPDATE heads SET seq = {seq}, hash = '{last}' WHERE cooperative_id = 1",
    )
    assert not [one for one in ledger.verify().problems if one.cooperative is not None]
    problem = first(ledger, expected={"clinics": kept})
    assert (problem.cooperative, problem.seq) == ("clinics", kept.seq)
    assert "rows were deleted since the head was kept" in problem.what


def test_a_chain_that_was_written_anew_is_found_by_a_head_kept_elsewhere(ledger, tamperer):
    kept = ledger.head("clinics")
    statements, previous = [], GENESIS
    for entry in list(ledger.entries("clinics")):
        fields = dict(entry.fields)
        if entry.table == "members" and fields["position"] == 0:
            fields["name"] = "Eve"
        previous = link(previous, entry.table, fields)
        name = ", name = 'Eve'" if fields.get("name") == "Eve" else ""
        own = "id" if entry.table == "cooperatives" else "cooperative_id"
        statements.append(f"UPDATE {entry.table} SET hash = '{previous}'{name} WHERE {own} = 1 AND seq = {entry.seq}")
    tamperer.run(*statements, f"UPDATE heads SET hash = '{previous}' WHERE cooperative_id = 1")
    assert not [one for one in ledger.verify().problems if one.cooperative is not None]
    problem = first(ledger, expected={"clinics": kept})
    assert "is not that of the head that was kept: rows were rewritten since" in problem.what


def test_a_forger_who_writes_hashes_anew_but_cannot_count_is_found_by_the_policy(ledger, tamperer):
    statements, previous = [], GENESIS
    for entry in list(ledger.entries("clinics")):
        fields = dict(entry.fields)
        if entry.table == "payouts" and fields["settlement"] == 1:
            fields["amount"] += 5 if fields["position"] == 0 else -5
            statements.append(f"UPDATE payouts SET amount = {fields['amount']} WHERE cooperative_id = 1 AND seq = {entry.seq}")
        previous = link(previous, entry.table, fields)
        own = "id" if entry.table == "cooperatives" else "cooperative_id"
        statements.append(f"UPDATE {entry.table} SET hash = '{previous}' WHERE {own} = 1 AND seq = {entry.seq}")
    tamperer.run(*statements, f"UPDATE heads SET hash = '{previous}' WHERE cooperative_id = 1")
    problems = [one for one in ledger.verify().problems if one.cooperative is not None]
    assert [one.what.split(" is ")[0] for one in problems] == [
        "settlement 1, member 'Ada': its amount",
        "settlement 1, member 'Bo': its amount",
    ]
    assert "by the rows before it and the policy it should be" in problems[0].what


def test_a_settlement_shares_its_key_with_the_revenue_right_before_it_and_with_no_other(ledger, tamperer):
    ledger.record_revenue("clinics", 5, key="late")
    ledger.record("clinics", 10, {"Ada": 1.0})
    ledger.settle("clinics", 8, key="s3")  # its own revenue has its key too
    ledger.record_revenue("clinics", 2)
    ledger.settle("clinics")
    assert ledger.verify().ok
    statements, previous, late = [], GENESIS, None
    for entry in list(ledger.entries("clinics")):
        fields = dict(entry.fields)
        key = ""
        if entry.table == "revenue" and fields["key"] == "late":
            late = entry.seq
        elif entry.table == "settlements" and fields["number"] == 4:
            fields["key"], key = "late", ", key = 'late'"
        previous = link(previous, entry.table, fields)
        own = "id" if entry.table == "cooperatives" else "cooperative_id"
        statements.append(f"UPDATE {entry.table} SET hash = '{previous}'{key} WHERE {own} = 1 AND seq = {entry.seq}")
    tamperer.run(*statements, f"UPDATE heads SET hash = '{previous}' WHERE cooperative_id = 1")
    problems = [one for one in ledger.verify().problems if one.cooperative is not None]
    assert [one.what for one in problems] == [f"settlement 4: its key 'late' stands for row {late} already"]


def test_a_deleted_or_renamed_cooperative_is_found_by_its_kept_head(ledger, tamperer):
    head = ledger.head("farms")
    tamperer.run("UPDATE cooperatives SET name = 'ranches' WHERE id = 2")
    first, second, *_ = [one for one in ledger.verify(expected={"farms": head}).problems if one.cooperative is not None]
    assert (first.cooperative, first.what) == (
        "farms",
        "there is no cooperative 'farms': it was deleted or renamed since its head was kept",
    )
    assert (second.cooperative, second.table, second.seq) == ("ranches", "cooperatives", 1)


def test_rows_moved_to_another_cooperative_are_found_in_both(ledger, tamperer):
    tamperer.run("DELETE FROM credits WHERE cooperative_id = 1 AND round = 7", "UPDATE credits SET cooperative_id = 1 WHERE round = 7")
    problems = [one for one in ledger.verify().problems if one.cooperative is not None]
    assert {one.cooperative for one in problems} == {"clinics", "farms"}
    assert problems[0].what == "round 7, member 'Ada': its hash does not follow: this row was changed"
    assert any("rows 5 to 6 before it are missing" in one.what for one in problems if one.cooperative == "farms")


def test_rows_of_no_cooperative_are_found(ledger, tamperer):
    tamperer.run("UPDATE revenue SET cooperative_id = 99 WHERE cooperative_id = 2 AND key = 'gift'")
    assert any(one.what == "rows of cooperative number 99, which does not exist" for one in ledger.verify().problems)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("credits SET credit = 'much'", "its credit is 'much', and not a finite number"),
        ("credits SET credit = 9e999", "its credit is inf, and not a finite number"),
        ("credits SET position = 'Ada'", "its position is 'Ada', and not a whole number"),
        ("credits SET round = 1.5", "its round is 1.5, and not a whole number"),
        ("rounds SET n_credits = -1", "its n_credits is -1, and not a whole number"),
        ("rounds SET round = x'00ff'", "and not a whole number"),
        ("revenue SET amount = '12 EUR'", "its amount is '12 EUR'"),
        ("revenue SET key = x'ff'", "and not text"),
        ("revenue SET at = CAST(x'ff41' AS TEXT)", "its hash does not follow"),
        ("members SET name = x'00'", "and not text"),
        ("settlements SET now = -2", "its now is -2, and not a whole number from -1"),
        ("payouts SET paid = 1e300", "its paid is 1e"),
        ("payouts SET seq = 'last'", "its seq is 'last'"),
    ],
)
def test_what_no_column_should_hold_is_a_problem_and_no_crash(tmp_path, change, message):
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    with Ledger(url) as ledger:
        ledger.init("farms", ["Ada", "Bo"])
        ledger.record("farms", 0, {"Ada": 1.0}, revenue=10)
        ledger.settle("farms")
        tamperer = Tamperer(url)
        table = change.split()[0]
        tamperer.run(f"UPDATE {change} WHERE seq = (SELECT max(seq) FROM {table})")
        tamperer.engine.dispose()
        verification = ledger.verify()
        assert any(one.cooperative == "farms" and one.table == table and message in one.what for one in verification.problems)
        assert all(one.what.isprintable() for one in verification.problems)


@pytest.mark.parametrize("policy", ["not JSON", "{}x", '{"decay": 7}', '{"unknown": 1}'])
def test_a_policy_that_cannot_be_read_is_a_problem_and_no_crash(ledger, tamperer, policy):
    tamperer.run(f"UPDATE cooperatives SET policy = '{policy}' WHERE id = 2")
    what = [one.what for one in ledger.verify().problems if one.cooperative == "farms"]
    assert any("its currency or policy cannot be read" in one for one in what)
    with Ledger(ledger.url) as fresh:
        with pytest.raises(ValueError, match="cooperative 'farms' is damaged"):
            fresh.settle("farms", 5)
        assert not fresh.verify("farms").ok


@pytest.mark.parametrize("table", NAMES)
def test_a_missing_table_is_a_problem_and_no_crash(ledger, tamperer, table):
    tamperer.run(f"DROP TABLE {table} CASCADE" if not tamperer.sqlite else f"DROP TABLE {table}")
    if table == "ledger_version":
        with pytest.raises(ValueError, match=r"that are not a ledger's|refuses"):
            ledger.verify()
    else:
        assert any("cannot be read further" in one.what for one in ledger.verify().problems)


def test_at_most_twenty_problems_are_listed(ledger, tamperer):
    for number in range(20, 50):
        ledger.record("farms", number, {"Ada": 1.0})
    tamperer.run("UPDATE credits SET credit = credit + 1")
    assert len(ledger.verify().problems) == MOST_PROBLEMS


def test_missing_triggers_are_found(ledger, tamperer):
    tamperer.run("SELECT 1" if tamperer.sqlite else "DROP TRIGGER credits_update ON credits")
    problems = ledger.verify().problems
    assert any("the trigger credits_update is missing or off" in one.what for one in problems)


def test_a_trigger_that_was_replaced_by_one_that_does_nothing_is_found(ledger, tamperer):
    if tamperer.sqlite:
        changes = ["DROP TRIGGER credits_update", "CREATE TRIGGER credits_update BEFORE UPDATE ON credits BEGIN SELECT 1; END"]
    else:
        changes = [
            "CREATE FUNCTION idle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$",
            "CREATE OR REPLACE TRIGGER credits_update BEFORE UPDATE ON credits FOR EACH ROW EXECUTE FUNCTION idle()",
        ]
    with tamperer.engine.begin() as connection:
        for change in changes:
            connection.exec_driver_sql(change)
    (problem,) = ledger.verify().problems
    assert (problem.table, "the trigger credits_update does not do what it should" in problem.what) == ("credits", True)


def test_a_trigger_that_grew_a_condition_is_found(ledger, tamperer):
    if tamperer.sqlite:
        end = "WHEN NEW.round > 5 BEGIN SELECT RAISE(ABORT, 'credits is append-only: no row may be changed'); END"
        changes = ["DROP TRIGGER credits_update", f"CREATE TRIGGER credits_update BEFORE UPDATE ON credits {end}"]
    else:
        end = "FOR EACH ROW WHEN (NEW.round > 5) EXECUTE FUNCTION ledger_is_append_only()"
        changes = [f"CREATE OR REPLACE TRIGGER credits_update BEFORE UPDATE ON credits {end}"]
    with tamperer.engine.begin() as connection:
        for change in changes:
            connection.exec_driver_sql(change)
    (problem,) = ledger.verify().problems
    assert "the trigger credits_update does not do what it should" in problem.what


@pytest.mark.postgres
def test_a_function_of_the_triggers_that_was_gutted_is_found(postgres_url):
    with Ledger(postgres_url) as ledger:
        ledger.init("clinics", ["Ada"])
        burglar = Tamperer(postgres_url)
        with burglar.engine.begin() as connection:
            connection.exec_driver_sql(
                "CREATE OR REPLACE FUNCTION ledger_is_append_only() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN RETURN coalesce(NEW, OLD); END $$"
            )
        burglar.engine.dispose()
        problems = ledger.verify().problems
    assert all("does not do what it should" in one.what for one in problems)
    assert len(problems) == MOST_PROBLEMS


def test_a_foreign_trigger_on_a_table_of_the_ledger_is_found_and_one_elsewhere_is_not(ledger, tamperer):
    if tamperer.sqlite:
        make = "CREATE TRIGGER extra AFTER INSERT ON {table} BEGIN SELECT 1; END"
    else:
        make = "CREATE TRIGGER extra AFTER INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION ledger_is_append_only()"
    with tamperer.engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE recipes (name TEXT)")
        connection.exec_driver_sql(make.format(table="recipes"))
    assert ledger.verify().ok
    with tamperer.engine.begin() as connection:
        connection.exec_driver_sql(make.format(table="revenue").replace("extra", "more"))
    (problem,) = ledger.verify().problems
    assert (problem.table, problem.what) == (
        "revenue",
        "the trigger 'more' is not a ledger's, so rows may have been changed: their hashes show it",
    )


def test_a_cooperative_that_was_deleted_with_all_its_rows_is_found_by_the_head_it_left(ledger, tamperer):
    tables = ["payouts", "settlements", "revenue", "credits", "rounds", "members"]
    tamperer.run(*(f"DELETE FROM {table} WHERE cooperative_id = 2" for table in tables), "DELETE FROM cooperatives WHERE id = 2")
    problem = next(one for one in ledger.verify().problems if one.table == "heads")
    assert problem.what == "rows of cooperative number 2, which does not exist"


def test_heads_of_other_cooperatives_alone_are_nothing_to_verify_one_against(ledger):
    head = ledger.head("clinics")
    with pytest.raises(ValueError, match="no head of 'farms' was given, but of 'clinics': nothing would be compared"):
        ledger.verify("farms", expected={"clinics": head})
    assert ledger.verify("clinics", expected={"clinics": head}).ok


DAMAGE = {
    "no payouts": ["DELETE FROM payouts WHERE cooperative_id = 2 AND settlement = 2"],
    "the last payout is missing": ["DELETE FROM payouts WHERE cooperative_id = 2 AND position = 2"],
    "the first payout is missing": ["DELETE FROM payouts WHERE cooperative_id = 2 AND position = 0"],
    "a payout to nobody": ["UPDATE payouts SET position = 9 WHERE cooperative_id = 2 AND position = 1"],
    "fewer payouts by the settlement": ["UPDATE settlements SET n_payouts = 1 WHERE cooperative_id = 2"],
    "standing is text": ["UPDATE payouts SET standing = 'x' WHERE cooperative_id = 2"],
    "paid is negative": ["UPDATE payouts SET paid = -5 WHERE cooperative_id = 2"],
    "paid is half": ["UPDATE payouts SET paid = 0.5 WHERE cooperative_id = 2"],
    "reserve is text": ["UPDATE settlements SET reserve = 'x' WHERE cooperative_id = 2"],
    "a member is missing": ["DELETE FROM members WHERE cooperative_id = 2 AND position = 1"],
    "a member is elsewhere": ["UPDATE members SET position = 9 WHERE cooperative_id = 2 AND position = 1"],
    "a member is no text": ["UPDATE members SET name = x'ff' WHERE cooperative_id = 2 AND position = 1"],
    "the head is text": ["UPDATE heads SET seq = 'x' WHERE cooperative_id = 2"],
    "the head is missing": ["DELETE FROM heads WHERE cooperative_id = 2"],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_who_settles_on_damaged_rows_is_told_so_in_one_line_and_nothing_is_paid(tmp_path, damage):
    """Tables of PostgreSQL take no such values, so that this is about SQLite."""
    damaged(tmp_path, DAMAGE[damage])
    with Ledger(tmp_path / "ledger.db") as ledger:
        count = ledger.verify().rows
        for call in (
            lambda: ledger.settle("farms", 5),
            lambda: ledger.settle("farms", 7, key="s2"),
            lambda: ledger.settle("farms", 5, key="new"),
        ):
            with pytest.raises(ValueError, match=r"is damaged.*verify says which") as refused:
                call()
            assert str(refused.value).isprintable()
            assert str(refused.value).count("is damaged") == 1
        for member in ("Ada", "Bo", "Cy"):  # a statement reads the rows of its member alone, and may be sound
            with suppress(ValueError):
                assert ledger.statement("farms", member).member == member
        verification = ledger.verify()
        assert not verification.ok
        assert verification.rows == count
        assert ledger.settle("clinics", 5).number == 1, "the other cooperative goes on"


@pytest.mark.parametrize(
    "damage",
    [
        ["UPDATE credits SET credit = 'much' WHERE cooperative_id = 2 AND round = 9"],
        ["UPDATE credits SET position = 77 WHERE cooperative_id = 2 AND round = 9"],
        ["DELETE FROM credits WHERE cooperative_id = 2 AND round = 9"],
        ["DELETE FROM rounds WHERE cooperative_id = 2 AND round = 9"],
        ["UPDATE rounds SET round = 'x' WHERE cooperative_id = 2 AND round = 9"],
        ["UPDATE rounds SET n_credits = 0 WHERE cooperative_id = 2 AND round = 9"],
        ["UPDATE revenue SET amount = 'x' WHERE cooperative_id = 2 AND round = 9"],
    ],
)
def test_damaged_rows_since_the_last_settlement_are_not_settled(tmp_path, damage):
    damaged(tmp_path, damage)
    with Ledger(tmp_path / "ledger.db") as ledger:
        with pytest.raises(ValueError, match=r"cooperative 'farms' is damaged: .*verify says which"):
            ledger.settle("farms", 5)
        if "DELETE FROM rounds" not in damage[0] and "'x' WHERE cooperative_id = 2 AND round = 9" not in damage[0]:
            with pytest.raises(ValueError, match=r"cooperative 'farms' is damaged: .*verify says which"):
                ledger.record("farms", 9, {"Cy": 2.0}, revenue=3)
        assert not ledger.verify().ok


def damaged(folder, changes):
    """A ledger of which rows are damaged and triggers are whole."""
    url = f"sqlite:///{folder / 'ledger.db'}"
    with Ledger(url) as ledger:
        ledger.init("clinics", ["Ada"])
        ledger.init("farms", ["Ada", "Bo", "Cy"])
        ledger.record("farms", 0, {"Ada": 1.0, "Bo": 0.5}, revenue=10)
        ledger.settle("farms", 5, key="s1")
        ledger.settle("farms", 7, key="s2")
        ledger.record("farms", 9, {"Cy": 2.0}, revenue=3)
    tamperer = Tamperer(url)
    with tamperer.engine.connect() as connection:
        triggers = connection.exec_driver_sql("SELECT sql FROM sqlite_master WHERE type = 'trigger'").scalars().all()
    tamperer.run(*changes, *triggers)
    tamperer.engine.dispose()


def test_a_damaged_file_is_a_problem_and_no_crash(tmp_path):
    path = tmp_path / "ledger.db"
    with Ledger(path) as ledger:
        ledger.init("farms", ["Ada"])
        for number in range(200):
            ledger.record("farms", number, {"Ada": 1.0})
    content = bytearray(path.read_bytes())
    content[len(content) // 2 :: 64] = b"\xff" * len(content[len(content) // 2 :: 64])
    path.write_bytes(content)
    with Ledger(path, read_only=True) as ledger:
        assert not ledger.verify(expected={"farms": Head(1, "x")}).ok
