"""The tables of a ledger, and the migrations that bring a database from one version to the next.

Amounts are whole minor units in 64 bits, credit is float64, and times are UTC in ISO 8601. Rows are only ever added: triggers refuse to
change or delete one. The triggers guard against mistakes. The owner of the database can drop them, and it is the chain that shows what was
changed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import BigInteger, Connection, Float, Text

from ..money.settlement import LARGEST
from .chain import CHAINED, GENESIS, Value, link
from .names import shown

NUMBER = BigInteger()
MEASURE = Float(53)

COLUMNS: dict[str, dict[str, sa.types.TypeEngine[Any]]] = {
    "cooperatives": {"seq": NUMBER, "name": Text(), "currency": Text(), "exponent": NUMBER, "policy": Text(), "at": Text()},
    "members": {"seq": NUMBER, "position": NUMBER, "name": Text(), "at": Text()},
    "rounds": {"seq": NUMBER, "round": NUMBER, "key": Text(), "n_credits": NUMBER, "at": Text()},
    "credits": {"seq": NUMBER, "round": NUMBER, "position": NUMBER, "credit": MEASURE},
    "decisions": {"seq": NUMBER, "round": NUMBER, "decided": Text()},
    "revenue": {"seq": NUMBER, "amount": NUMBER, "round": NUMBER, "key": Text(), "at": Text()},
    "settlements": {
        "seq": NUMBER,
        "number": NUMBER,
        "revenue": NUMBER,
        "reserve": NUMBER,
        "now": NUMBER,
        "key": Text(),
        "n_payouts": NUMBER,
        "at": Text(),
    },
    "payouts": {"seq": NUMBER, "settlement": NUMBER, "position": NUMBER, "amount": NUMBER, "standing": MEASURE, "paid": NUMBER},
}
"""For each chained table, the columns that a row's hash covers."""

OPTIONAL = {("rounds", "key"), ("revenue", "round"), ("revenue", "key"), ("settlements", "key")}
"""Columns that may be null."""


def _table(name: str) -> sa.TableClause:
    own = "id" if name == "cooperatives" else "cooperative_id"
    columns = [sa.column(column, kind) for column, kind in COLUMNS[name].items()]
    return sa.table(name, sa.column(own, BigInteger()), *columns, sa.column("hash", Text()))


TABLES = {name: _table(name) for name in CHAINED}
"""The chained tables, as SQLAlchemy sees them."""

HEADS = sa.table(
    "heads",
    sa.column("cooperative_id", BigInteger()),
    sa.column("seq", BigInteger()),
    sa.column("hash", Text()),
    sa.column("revenue", BigInteger()),
)
"""The tip of each cooperative's chain, and the sum of all its revenue. Writers lock this row."""

VERSIONS = sa.table("ledger_version", sa.column("version", BigInteger()), sa.column("at", Text()), sa.column("hash", Text()))
"""The versions that the database has had, chained from :data:`~proxycoop.credit.ledger.chain.GENESIS`."""

NAMES = (*CHAINED, HEADS.name, VERSIONS.name)
"""All tables of a ledger."""

# WHOLE(column) and REAL(column) stand for checks, {long} and {double} for types, {clustered} for rows kept in the order of the key.
_VERSION_1 = """
CREATE TABLE ledger_version (
    version {long} NOT NULL PRIMARY KEY CHECK (WHOLE(version)),
    at TEXT NOT NULL,
    hash TEXT NOT NULL
);
CREATE TABLE cooperatives (
    id {long} NOT NULL PRIMARY KEY CHECK (WHOLE(id)),
    seq {long} NOT NULL CHECK (seq = 1 AND WHOLE(seq)),
    name TEXT NOT NULL UNIQUE,
    currency TEXT NOT NULL,
    exponent {long} NOT NULL CHECK (WHOLE(exponent)),
    policy TEXT NOT NULL,
    at TEXT NOT NULL,
    hash TEXT NOT NULL
);
CREATE TABLE members (
    cooperative_id {long} NOT NULL REFERENCES cooperatives (id),
    seq {long} NOT NULL CHECK (WHOLE(seq)),
    position {long} NOT NULL CHECK (WHOLE(position)),
    name TEXT NOT NULL,
    at TEXT NOT NULL,
    hash TEXT NOT NULL,
    PRIMARY KEY (cooperative_id, seq),
    UNIQUE (cooperative_id, name),
    UNIQUE (cooperative_id, position)
) {clustered};
CREATE TABLE rounds (
    cooperative_id {long} NOT NULL REFERENCES cooperatives (id),
    seq {long} NOT NULL CHECK (WHOLE(seq)),
    round {long} NOT NULL CHECK (WHOLE(round)),
    key TEXT,
    n_credits {long} NOT NULL CHECK (WHOLE(n_credits)),
    at TEXT NOT NULL,
    hash TEXT NOT NULL,
    PRIMARY KEY (cooperative_id, seq),
    UNIQUE (cooperative_id, round),
    UNIQUE (cooperative_id, key)
) {clustered};
CREATE TABLE credits (
    cooperative_id {long} NOT NULL,
    seq {long} NOT NULL CHECK (WHOLE(seq)),
    round {long} NOT NULL CHECK (WHOLE(round)),
    position {long} NOT NULL CHECK (WHOLE(position)),
    credit {double} NOT NULL CHECK (REAL(credit)),
    hash TEXT NOT NULL,
    PRIMARY KEY (cooperative_id, seq),
    UNIQUE (cooperative_id, round, position),
    FOREIGN KEY (cooperative_id, round) REFERENCES rounds (cooperative_id, round),
    FOREIGN KEY (cooperative_id, position) REFERENCES members (cooperative_id, position)
) {clustered};
CREATE TABLE revenue (
    cooperative_id {long} NOT NULL REFERENCES cooperatives (id),
    seq {long} NOT NULL CHECK (WHOLE(seq)),
    amount {long} NOT NULL CHECK (amount > 0 AND WHOLE(amount)),
    round {long} CHECK (round IS NULL OR WHOLE(round)),
    key TEXT,
    at TEXT NOT NULL,
    hash TEXT NOT NULL,
    PRIMARY KEY (cooperative_id, seq),
    UNIQUE (cooperative_id, round),
    UNIQUE (cooperative_id, key),
    FOREIGN KEY (cooperative_id, round) REFERENCES rounds (cooperative_id, round)
) {clustered};
CREATE TABLE settlements (
    cooperative_id {long} NOT NULL REFERENCES cooperatives (id),
    seq {long} NOT NULL CHECK (WHOLE(seq)),
    number {long} NOT NULL CHECK (number > 0 AND WHOLE(number)),
    revenue {long} NOT NULL CHECK (WHOLE(revenue)),
    reserve {long} NOT NULL CHECK (WHOLE(reserve)),
    now {long} NOT NULL CHECK (now = -1 OR WHOLE(now)),
    key TEXT,
    n_payouts {long} NOT NULL CHECK (WHOLE(n_payouts)),
    at TEXT NOT NULL,
    hash TEXT NOT NULL,
    PRIMARY KEY (cooperative_id, seq),
    UNIQUE (cooperative_id, number),
    UNIQUE (cooperative_id, key)
) {clustered};
CREATE TABLE payouts (
    cooperative_id {long} NOT NULL,
    seq {long} NOT NULL CHECK (WHOLE(seq)),
    settlement {long} NOT NULL CHECK (WHOLE(settlement)),
    position {long} NOT NULL CHECK (WHOLE(position)),
    amount {long} NOT NULL CHECK (WHOLE(amount)),
    standing {double} NOT NULL CHECK (REAL(standing)),
    paid {long} NOT NULL CHECK (WHOLE(paid)),
    hash TEXT NOT NULL,
    PRIMARY KEY (cooperative_id, seq),
    UNIQUE (cooperative_id, settlement, position),
    FOREIGN KEY (cooperative_id, settlement) REFERENCES settlements (cooperative_id, number),
    FOREIGN KEY (cooperative_id, position) REFERENCES members (cooperative_id, position)
) {clustered};
CREATE TABLE heads (
    cooperative_id {long} NOT NULL PRIMARY KEY REFERENCES cooperatives (id),
    seq {long} NOT NULL CHECK (WHOLE(seq)),
    hash TEXT NOT NULL,
    revenue {long} NOT NULL CHECK (WHOLE(revenue))
);
"""

_VERSION_2 = """
CREATE TABLE decisions (
    cooperative_id {long} NOT NULL REFERENCES cooperatives (id),
    seq {long} NOT NULL CHECK (WHOLE(seq)),
    round {long} NOT NULL CHECK (WHOLE(round)),
    decided TEXT NOT NULL,
    hash TEXT NOT NULL,
    PRIMARY KEY (cooperative_id, seq),
    UNIQUE (cooperative_id, round),
    FOREIGN KEY (cooperative_id, round) REFERENCES rounds (cooperative_id, round)
) {clustered};
"""

# Columns that are unique: by these, INSERT OR REPLACE would find a row to replace.
_ONCE = {
    "ledger_version": ["version"],
    "cooperatives": ["id", "name"],
    "members": ["cooperative_id, seq", "cooperative_id, name", "cooperative_id, position"],
    "rounds": ["cooperative_id, seq", "cooperative_id, round", "cooperative_id, key"],
    "credits": ["cooperative_id, seq", "cooperative_id, round, position"],
    "revenue": ["cooperative_id, seq", "cooperative_id, round", "cooperative_id, key"],
    "settlements": ["cooperative_id, seq", "cooperative_id, number", "cooperative_id, key"],
    "payouts": ["cooperative_id, seq", "cooperative_id, settlement, position"],
    "heads": ["cooperative_id"],
}
_ONCE_2 = {"decisions": ["cooperative_id, seq", "cooperative_id, round"]}
_GROWS = "NEW.cooperative_id <> OLD.cooperative_id OR NEW.seq <= OLD.seq OR NEW.revenue < OLD.revenue"


_WORDS = {
    "sqlite": {
        "{long}": "INTEGER",
        "{double}": "REAL",
        "{clustered}": "WITHOUT ROWID",
        # SQLite's columns accept values of any type
        r"WHOLE\((\w+)\)": r"typeof(\1) = 'integer' AND \1 >= 0",
        r"REAL\((\w+)\)": r"typeof(\1) = 'real' AND abs(\1) <= 1.7976931348623157e308",
    },
    "postgresql": {
        "{long}": "BIGINT",
        "{double}": "DOUBLE PRECISION",
        "{clustered}": "",
        r"WHOLE\((\w+)\)": r"\1 >= 0",
        r"REAL\((\w+)\)": r"\1 > '-Infinity' AND \1 < 'Infinity'",  # NaN is larger than all numbers
    },
}


def _version_1(dialect: str) -> list[str]:
    """The statements that make the tables and their triggers."""
    return _statements(_VERSION_1, dialect) + (
        _sqlite_triggers(_ONCE) if dialect == "sqlite" else [_FUNCTION, *_postgresql_triggers(_ONCE)]
    )


def _version_2(dialect: str) -> list[str]:
    """The statements that add what was decided in a round."""
    return _statements(_VERSION_2, dialect) + (_sqlite_triggers(_ONCE_2) if dialect == "sqlite" else _postgresql_triggers(_ONCE_2))


def _statements(tables: str, dialect: str) -> list[str]:
    for word, meaning in _WORDS[dialect].items():
        tables = re.sub(word, meaning, tables)
    return [statement.strip() for statement in tables.split(";") if statement.strip()]


def _sqlite_triggers(tables: Mapping[str, Sequence[str]]) -> list[str]:
    def trigger(table: str, event: str, condition: str, what: str) -> str:
        return (
            f"CREATE TRIGGER {table}_{event.lower()} BEFORE {event} ON {table} {condition} "
            f"BEGIN SELECT RAISE(ABORT, '{table} is append-only: no row may be {what}'); END"
        )

    statements = []
    for table, once in tables.items():
        same = " OR ".join(
            f"EXISTS (SELECT 1 FROM {table} WHERE {' AND '.join(f'{column} = NEW.{column}' for column in columns.split(', '))})"
            for columns in once
        )
        statements += [
            trigger(table, "UPDATE", f"WHEN {_GROWS}" if table == "heads" else "", "changed"),
            trigger(table, "DELETE", "", "deleted"),
            trigger(table, "INSERT", f"WHEN {same}", "replaced"),
        ]
    return statements


_FUNCTION = """CREATE FUNCTION ledger_is_append_only() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION '% is append-only: no row may be changed or deleted', TG_TABLE_NAME; END $$"""


def _postgresql_triggers(tables: Iterable[str]) -> list[str]:
    statements = []
    for table in tables:
        when = f"WHEN ({_GROWS}) " if table == "heads" else ""
        execute = "EXECUTE FUNCTION ledger_is_append_only()"
        statements += [
            f"CREATE TRIGGER {table}_update BEFORE UPDATE ON {table} FOR EACH ROW {when}{execute}",
            f"CREATE TRIGGER {table}_delete BEFORE DELETE ON {table} FOR EACH ROW {execute}",
            f"CREATE TRIGGER {table}_truncate BEFORE TRUNCATE ON {table} FOR EACH STATEMENT {execute}",
        ]
    return statements


Migration = Callable[[str], Sequence[str]]
"""From a dialect's name to the statements that bring a database from the version before to this version."""

MIGRATIONS: list[Migration] = [_version_1, _version_2]
"""The migrations, version 1 first. A published one is never changed: a new version is a new migration."""


def _plain(definition: str) -> str:
    """A definition without the case, spaces and brackets in which databases differ."""
    return re.sub(r"[\s()]+", "", definition).lower()


def _made(dialect: str) -> dict[tuple[str, str], str]:
    """The definitions that the migrations make, see :data:`DEFINITIONS`."""
    made: dict[tuple[str, str], str] = {}
    body = ""
    for migration in MIGRATIONS:
        for statement in migration(dialect):
            if function := re.match(r"CREATE FUNCTION.*?\$\$(.*)\$\$", statement, re.DOTALL):
                body = function[1]
            if trigger := re.match(r"CREATE TRIGGER (\w+) BEFORE \w+ ON (\w+)", statement):
                made[trigger[2], trigger[1]] = _plain(statement + body)
            if dialect == "sqlite" and (table := re.match(r"CREATE TABLE (\w+)", statement)):
                made[table[1], table[1]] = _plain(statement)
    return made


DEFINITIONS = {dialect: _made(dialect) for dialect in _WORDS}
"""By dialect, the definitions that a ledger must have, by table and name: of its triggers, and in SQLite of its tables too."""


def version(connection: Connection, ledger: str) -> int:
    """The version of the ledger in a database, 0 if there is none.

    Args:
        connection: To the database.
        ledger: Name of the ledger, for messages.

    Raises:
        ValueError: If its version is newer than this proxycoop knows, or other tables have the names of a ledger's.
    """
    inspector = sa.inspect(connection)
    there = set(inspector.get_table_names())
    if VERSIONS.name not in there:
        taken = sorted(there.intersection(NAMES))
        if taken:
            raise ValueError(f"ledger {ledger} has tables {', '.join(taken)} that are not a ledger's: use another database")
        return 0
    if not {"version", "at", "hash"} <= {column["name"] for column in inspector.get_columns(VERSIONS.name)}:
        raise ValueError(f"ledger {ledger} has a table {VERSIONS.name} that is not a ledger's: use another database")
    found = connection.execute(sa.select(sa.func.max(VERSIONS.c.version))).scalar()
    if not isinstance(found, int) or found < 1:
        raise ValueError(f"ledger {ledger} is damaged: its version is {found!r}")
    if found > len(MIGRATIONS):
        raise ValueError(f"ledger {ledger} is of version {found}; this proxycoop knows versions up to {len(MIGRATIONS)}: upgrade proxycoop")
    return found


def migrate(connection: Connection, ledger: str, at: str) -> None:
    """Bring a database to the newest version, within the connection's transaction.

    Args:
        connection: In a transaction; no other migration may run at the same time.
        ledger: Name of the database, for messages.
        at: The time, for the table of versions.

    Raises:
        ValueError: As :func:`version` does.
    """
    for number in range(version(connection, ledger) + 1, len(MIGRATIONS) + 1):
        for statement in MIGRATIONS[number - 1](connection.dialect.name):
            connection.exec_driver_sql(statement, execution_options={"no_parameters": True})  # a % stands for itself
        previous = connection.execute(sa.select(VERSIONS.c.hash).where(VERSIONS.c.version == number - 1)).scalar()
        fields: dict[str, Value] = {"version": number, "at": at}
        connection.execute(sa.insert(VERSIONS), {**fields, "hash": link(previous or GENESIS, VERSIONS.name, fields)})


def definitions(connection: Connection) -> dict[tuple[str, str], str]:
    """The definitions in a database, of the triggers on a ledger's tables and in SQLite of the tables, as in :data:`DEFINITIONS`."""
    if connection.dialect.name == "sqlite":
        query = "SELECT tbl_name, name, sql FROM sqlite_master WHERE type IN ('table', 'trigger')"
    else:
        query = (
            "SELECT relname, tgname, pg_get_triggerdef(pg_trigger.oid, true) || prosrc FROM pg_trigger "
            "JOIN pg_class ON pg_class.oid = tgrelid JOIN pg_proc ON pg_proc.oid = tgfoid "
            "WHERE NOT tgisinternal AND tgenabled IN ('O', 'A') AND pg_table_is_visible(pg_class.oid)"
        )
    rows = connection.exec_driver_sql(query).all()
    return {(str(table), str(name)): _plain(str(definition)) for table, name, definition in rows if table in NAMES}


_KINDS: dict[str, Mapping[str, sa.types.TypeEngine[Any]]] = {**COLUMNS, HEADS.name: {"seq": NUMBER, "hash": Text(), "revenue": NUMBER}}


def mistyped(table: str, fields: Mapping[str, Any]) -> list[str]:
    """What is of the wrong type in a row, or in those of its columns that are given. SQLite's columns accept any type."""
    wrong = []
    for column, kind in _KINDS[table].items():
        if column not in fields:
            continue
        one = fields[column]
        if one is None and (table, column) in OPTIONAL:
            continue
        if kind is NUMBER:
            least = -1 if column == "now" else 0
            if type(one) is not int or not least <= one <= LARGEST:
                wrong.append(f"its {column} is {shown(one)}, and not a whole number from {least} to 2^63 − 1")
        elif kind is MEASURE:
            if type(one) is not float or not math.isfinite(one):
                wrong.append(f"its {column} is {shown(one)}, and not a finite number")
        elif type(one) is not str:
            wrong.append(f"its {column} is {shown(one)}, and not text")
    return wrong
