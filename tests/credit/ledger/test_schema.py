import sqlite3
from contextlib import closing

import pytest
import sqlalchemy as sa

from proxycoop.credit.ledger import Ledger
from proxycoop.credit.ledger import schema as ledger_schema
from proxycoop.credit.ledger.schema import COLUMNS, DEFINITIONS, HEADS, MIGRATIONS, NAMES, OPTIONAL, TABLES, VERSIONS, definitions


@pytest.fixture
def engine(ledger_url):
    """Straight to the database, past the ledger."""
    engine = sa.create_engine(sa.make_url(ledger_url).set(drivername="sqlite" if "sqlite" in ledger_url else "postgresql+psycopg"))
    yield engine
    engine.dispose()


@pytest.fixture
def ledger(ledger_url):
    """A ledger with a row in every table."""
    with Ledger(ledger_url) as ledger:
        ledger.init("clinics", ["Ada", "Bo"])
        ledger.record("clinics", 0, {"Ada": 1.0}, revenue=10, key="k", decisions={"members": {"Ada": {"offered": [0]}}})
        ledger.settle("clinics")
        yield ledger


def test_the_tables_are_as_the_code_reads_them(ledger, engine):
    inspector = sa.inspect(engine)
    assert set(inspector.get_table_names()) == set(NAMES)
    for name, columns in COLUMNS.items():
        there = {column["name"]: column for column in inspector.get_columns(name)}
        own = "id" if name == "cooperatives" else "cooperative_id"
        assert list(there) == [own, *columns, "hash"] == [column.name for column in TABLES[name].c]
        assert {column for column in there if there[column]["nullable"]} == {column for table, column in OPTIONAL if table == name}
        for column, kind in columns.items():
            affinity = (
                "TEXT" if isinstance(kind, sa.Text) else "BIGINT INTEGER" if isinstance(kind, sa.BigInteger) else "DOUBLE PRECISION REAL"
            )
            assert str(there[column]["type"]) in affinity
    for table in (HEADS, VERSIONS):
        assert [column["name"] for column in inspector.get_columns(table.name)] == [column.name for column in table.c]


@pytest.mark.parametrize("table", NAMES)
@pytest.mark.parametrize("statement", ["UPDATE {table} SET hash = hash", "DELETE FROM {table}", "TRUNCATE {table} CASCADE"])
def test_rows_can_neither_be_changed_nor_deleted(ledger, engine, table, statement):
    if "TRUNCATE" in statement and engine.dialect.name == "sqlite":
        statement = "DELETE FROM {table} WHERE 1 = 1"  # SQLite's TRUNCATE, which it does without looking at rows if it may
    with pytest.raises(sa.exc.DBAPIError, match="is append-only"), engine.begin() as connection:
        connection.exec_driver_sql(statement.format(table=table))
    assert ledger.verify().ok


@pytest.mark.parametrize(("seq", "revenue"), [(1, 10), (7, 10), (99, 9)])
def test_heads_only_move_forwards(ledger, engine, seq, revenue):
    with pytest.raises(sa.exc.DBAPIError, match="heads is append-only"), engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE heads SET seq = {seq}, revenue = {revenue}")


# what would replace each table's row: by its key, and by every other column that is unique
REPLACED = [
    ("ledger_version", "SELECT version, 'x', 'x' FROM ledger_version"),
    ("cooperatives", "SELECT id, 1, 'other', currency, exponent, policy, at, 'x' FROM cooperatives"),
    ("cooperatives", "SELECT 9, 1, name, currency, exponent, policy, at, 'x' FROM cooperatives"),
    ("members", "SELECT 1, seq, 9, 'x', at, 'x' FROM members"),
    ("members", "SELECT 1, 99, position, 'x', at, 'x' FROM members WHERE position = 0"),
    ("members", "SELECT 1, 99, 9, name, at, 'x' FROM members WHERE position = 0"),
    ("rounds", "SELECT 1, seq, 9, 'x', 1, at, 'x' FROM rounds"),
    ("rounds", "SELECT 1, 99, round, 'x', 1, at, 'x' FROM rounds"),
    ("rounds", "SELECT 1, 99, 9, key, 1, at, 'x' FROM rounds"),
    ("credits", "SELECT 1, seq, 0, 1, 9.0, 'x' FROM credits"),
    ("credits", "SELECT 1, 99, round, position, 9.0, 'x' FROM credits"),
    ("revenue", "SELECT 1, seq, 9, NULL, NULL, at, 'x' FROM revenue"),
    ("revenue", "SELECT 1, 99, 9, round, NULL, at, 'x' FROM revenue"),
    ("settlements", "SELECT 1, seq, 9, 0, 0, 0, NULL, 0, at, 'x' FROM settlements"),
    ("settlements", "SELECT 1, 99, number, 0, 0, 0, NULL, 0, at, 'x' FROM settlements"),
    ("payouts", "SELECT 1, seq, 1, 9, 0, 0.0, 0, 'x' FROM payouts"),
    ("payouts", "SELECT 1, 99, settlement, position, 0, 0.0, 0, 'x' FROM payouts"),
    ("heads", "SELECT cooperative_id, 99, 'x', 0 FROM heads"),
]


@pytest.mark.parametrize(("table", "row"), REPLACED)
@pytest.mark.parametrize("recursive", ["ON", "OFF"])
def test_rows_cannot_be_replaced(tmp_path, table, row, recursive):
    path = tmp_path / "ledger.db"
    with Ledger(path) as ledger:
        ledger.init("clinics", ["Ada", "Bo"])
        ledger.record("clinics", 0, {"Ada": 1.0}, revenue=10, key="k")
        ledger.settle("clinics")
        raw = sqlite3.connect(path)
        raw.execute(f"PRAGMA recursive_triggers = {recursive}")
        with pytest.raises(sqlite3.IntegrityError, match=f"{table} is append-only"):
            raw.execute(f"INSERT OR REPLACE INTO {table} {row}")
        raw.close()
        assert ledger.verify().ok


@pytest.mark.parametrize(
    ("table", "values"),
    [
        ("revenue", "1, 99, -5, NULL, NULL, '', ''"),
        ("revenue", "1, 99, 0, NULL, NULL, '', ''"),
        ("revenue", "1, 99, 'much', NULL, NULL, '', ''"),
        ("revenue", "1, 99, 9223372036854775808, NULL, NULL, '', ''"),
        ("revenue", "1, 99, 5, 77, NULL, '', ''"),
        ("revenue", "9, 99, 5, NULL, NULL, '', ''"),
        ("credits", "1, 99, 0, 1, 9e999, ''"),
        ("credits", "1, 99, 0, 1, 'NaN', ''"),
        ("credits", "1, 99, 0, 1, NULL, ''"),
        ("credits", "1, 99, 77, 1, 1.0, ''"),
        ("credits", "1, 99, 0, 77, 1.0, ''"),
        ("payouts", "1, 99, 1, 1, -1, 1.0, 0, ''"),
        ("payouts", "1, 99, 77, 1, 1, 1.0, 0, ''"),
    ],
)
def test_the_tables_take_nothing_that_makes_no_sense(ledger, engine, table, values):
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", lambda raw, _: raw.execute("PRAGMA foreign_keys = ON"))
    with pytest.raises(sa.exc.DBAPIError), engine.begin() as connection:
        connection.exec_driver_sql(f"INSERT INTO {table} VALUES ({values})")


def test_all_tables_and_triggers_are_there_as_the_migrations_make_them(ledger, engine):
    with engine.connect() as connection:
        there = definitions(connection)
    assert there == DEFINITIONS[engine.dialect.name]
    events = ("update", "delete", "insert" if engine.dialect.name == "sqlite" else "truncate")
    triggers = {(table, f"{table}_{event}") for table in NAMES for event in events}
    tables = {(table, table) for table in NAMES} if engine.dialect.name == "sqlite" else set()
    assert there.keys() == triggers | tables
    assert all("isappend-only" in there[trigger] for trigger in triggers)


def test_a_table_of_sqlite_that_is_defined_otherwise_is_found(tmp_path):
    with Ledger(tmp_path / "l.db") as ledger:
        ledger.init("clinics", ["Ada"])
    with closing(sqlite3.connect(tmp_path / "l.db")) as connection:
        connection.executescript(
            "PRAGMA writable_schema = ON; UPDATE sqlite_master SET sql = replace(sql, 'amount > 0', 'amount > 1') WHERE name = 'revenue'"
        )
    with Ledger(tmp_path / "l.db") as ledger:
        problem = ledger.verify().problems[0]
    assert (problem.table, problem.what) == (
        "revenue",
        "the table is not defined as it should be, so rows may have been changed: their hashes show it",
    )


# migrations


def test_a_further_migration_is_applied_by_init_and_by_nothing_else(ledger, ledger_url, engine, monkeypatch):
    head = ledger.head("clinics")
    monkeypatch.setattr(ledger_schema, "MIGRATIONS", [*MIGRATIONS, lambda dialect: ["CREATE TABLE notes (text TEXT)"]])
    monkeypatch.setattr("proxycoop.credit.ledger.connection.MIGRATIONS", ledger_schema.MIGRATIONS)
    with Ledger(ledger_url) as newer:
        with pytest.raises(ValueError, match="is of version 2, older than 3: bring it up to date with init"):
            newer.head("clinics")
        newer.init("clinics", ["Ada"])
        assert newer.head("clinics") == head
        assert newer.verify().ok
    assert sa.inspect(engine).has_table("notes")
    with engine.connect() as connection:
        assert connection.execute(sa.select(VERSIONS.c.version).order_by(VERSIONS.c.version)).scalars().all() == [1, 2, 3]
    monkeypatch.undo()
    with Ledger(ledger_url) as older:
        for attempt in (lambda: older.head("clinics"), lambda: older.init("clinics", ["Ada"]), lambda: older.settle("clinics", 5)):
            with pytest.raises(ValueError, match="is of version 3; this proxycoop knows versions up to 2: upgrade proxycoop"):
                attempt()
    with pytest.raises(ValueError, match="of version 3"):  # one that was open all the time notices too
        ledger.settle("clinics", 5)


def test_a_ledger_without_decisions_is_brought_up_to_date_and_goes_on(ledger_url, engine, monkeypatch):
    with monkeypatch.context() as of_old:
        for module in ("schema", "connection"):
            of_old.setattr(f"proxycoop.credit.ledger.{module}.MIGRATIONS", MIGRATIONS[:1])
        with engine.begin() as connection:
            ledger_schema.migrate(connection, "old", "2026-01-01T00:00:00.000000Z")
        assert not sa.inspect(engine).has_table("decisions")
    with Ledger(ledger_url) as newer:
        with pytest.raises(ValueError, match="is of version 1, older than 2: bring it up to date with init"):
            newer.cooperatives()
        newer.init("clinics", ["Ada"])
        newer.record("clinics", 0, {"Ada": 1.0}, decisions={"members": {"Ada": {"offered": [1]}}, "gamma": 1.0})
        assert newer.verify().ok
        (one,) = newer.statement("clinics", "Ada").rounds
        assert (one.said, one.of_all) == ({"offered": [1]}, {"gamma": 1.0})


def test_a_migration_that_fails_leaves_the_version_before(ledger, ledger_url, engine, monkeypatch):
    monkeypatch.setattr(ledger_schema, "MIGRATIONS", [*MIGRATIONS, lambda dialect: ["CREATE TABLE notes (text TEXT)", "nonsense"]])
    with Ledger(ledger_url) as newer, pytest.raises(ValueError, match="nonsense"):
        newer.init("clinics", ["Ada"])
    assert not sa.inspect(engine).has_table("notes")
    assert ledger.verify().ok


def test_a_database_with_such_tables_of_something_else_is_refused_and_left_alone(ledger_url, engine):
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE members (name TEXT)")
    with Ledger(ledger_url) as ledger:
        for attempt in (lambda: ledger.init("clinics", ["Ada"]), ledger.cooperatives):
            with pytest.raises(ValueError, match="has tables members that are not a ledger's: use another database"):
                attempt()
    assert sa.inspect(engine).get_table_names() == ["members"]


def test_a_version_table_of_something_else_is_refused(ledger_url, engine):
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE ledger_version (name TEXT)")
    with Ledger(ledger_url) as ledger, pytest.raises(ValueError, match="a table ledger_version that is not a ledger's"):
        ledger.init("clinics", ["Ada"])


def test_a_database_of_something_else_is_no_ledger_until_init(ledger_url, engine):
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE recipes (name TEXT)")
    with Ledger(ledger_url) as ledger:
        with pytest.raises(ValueError, match="is no ledger yet: create it with init"):
            ledger.cooperatives()
        ledger.init("clinics", ["Ada"])
        assert ledger.verify().ok
    assert sa.inspect(engine).has_table("recipes")
