"""What the demonstrations of ``ledger.py`` share: new databases, and a fixed sequence of a cooperative's operations."""

from __future__ import annotations

import multiprocessing
import os
import random
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from proxycoop.credit import SettlementPolicy
from proxycoop.credit.ledger import Ledger
from proxycoop.credit.ledger.receipts import Receipt, SettlementReceipt

MEMBERS = [f"member {i:02}" for i in range(16)]
POLICY = SettlementPolicy(decay=0.99, solidarity=0.1, reserve=0.05, clawback=True)
POSTGRES = "PROXYCOOP_POSTGRES"
FORK = multiprocessing.get_context("fork")  # a new interpreter for every kill would cost seconds each

Row = tuple[str, dict[str, Any]]
"""A row's table and its columns but those that the ledger chose: its place, its time, its hash."""


@contextmanager
def database(url: str) -> Iterator[str]:
    """A new, empty database beside the one of a URL, which is dropped afterwards."""
    if url.startswith("sqlite:///"):
        with tempfile.TemporaryDirectory(dir=Path(url.removeprefix("sqlite:///")).parent) as folder:
            yield f"sqlite:///{folder}/ledger.db"
        return
    name = f"proxycoop_{uuid.uuid4().hex}"
    server = sa.create_engine(driver(url), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)

    def run(statement: str) -> None:
        with server.connect() as connection:
            connection.exec_driver_sql(statement)

    run(f"CREATE DATABASE {name}")
    try:
        yield sa.make_url(url).set(database=name).render_as_string(hide_password=False)
    finally:
        run(f"DROP DATABASE {name} WITH (FORCE)")


def driver(url: str) -> sa.URL:
    """The URL as SQLAlchemy wants it."""
    made = sa.make_url(url)
    return made if made.get_backend_name() == "sqlite" else made.set(drivername="postgresql+psycopg")


def databases(url: str | None) -> Iterator[tuple[str, str]]:
    """Names and URLs of what is to be tried."""
    if url is not None:
        yield ("SQLite" if url.startswith("sqlite:") else "PostgreSQL"), url
        return
    with tempfile.TemporaryDirectory() as folder:
        yield "SQLite", f"sqlite:///{folder}/ledger.db"
    if POSTGRES in os.environ:
        yield "PostgreSQL", os.environ[POSTGRES]


def rows_of(ledger: Ledger, cooperative: str) -> list[Row]:
    """A cooperative's rows behind those of its creation."""
    chosen = ("seq", "at", "cooperative")
    rows = [
        (entry.table, {name: value for name, value in entry.fields.items() if name not in chosen}) for entry in ledger.entries(cooperative)
    ]
    return [row for row in rows if row[0] not in ("cooperatives", "members")]


def verified(ledger: Ledger, cooperative: str | None = None) -> list[str]:
    """What verification has to say against a ledger, in a line each; nothing if it stands."""
    verification = ledger.verify(cooperative)
    return [] if verification.ok else [str(one) for one in verification.problems]


def credited(t: int) -> dict[str, float]:
    """What a round's members are credited with; about a quarter of it is negative."""
    draw = random.Random(t)
    return {member: draw.uniform(-0.25, 0.75) for member in MEMBERS}


def operate(ledger: Ledger, cooperative: str, n: int) -> Receipt | SettlementReceipt:
    """The ``n``-th operation of a cooperative, always the same."""
    if n % 6 == 5:
        return ledger.settle(cooperative, revenue=n, key=f"settlement {n}")
    if n % 6 == 3:
        return ledger.record_revenue(cooperative, 1000 + n, key=f"revenue {n}")
    return ledger.record(cooperative, n, credited(n), revenue=100 + n if n % 2 else 0, key=f"round {n}" if n % 4 else None)
