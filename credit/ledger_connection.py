"""Connections to a ledger's database: SQLite or PostgreSQL, durable, patient, and with errors in one line.

SQLite is used with a write-ahead log, ``synchronous=FULL`` (what was acknowledged survives a power cut), foreign keys, and ``BEGIN
IMMEDIATE``, so that a writer waits at the door and not half-way. Its own way of waiting is not fair, nor does it cover every case (the
first switch to the log, say): who finds the database busy starts anew after a short random time.
"""

from __future__ import annotations

import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy import Connection, Engine
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DBAPIError

from ..text import one_line
from .ledger_schema import MIGRATIONS, VERSIONS, version
from .names import shown

T = TypeVar("T")

PATIENCE = 600.0
"""Seconds that a writer waits for the others."""

_SCHEMA_LOCK = 0x70726F7879636F  # of PostgreSQL's advisory locks: "proxyco"
_PAUSE, _LONGEST_PAUSE = 0.001, 0.016  # seconds between two looks, on average: at first, and for whoever waits long
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}
_NO_LOG = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY}
_RETRY = {"40001", "40P01"}  # PostgreSQL: serialization failure, deadlock; nothing was written
_PLAIN = {  # what SQLite's codes mean for a ledger
    sqlite3.SQLITE_FULL: "the disk is full, nothing was written",
    sqlite3.SQLITE_IOERR: "cannot be read or written, nothing was written: is the disk full?",
    sqlite3.SQLITE_CORRUPT: "is damaged",
    sqlite3.SQLITE_NOTADB: "is no ledger: no SQLite database",
    sqlite3.SQLITE_PERM: "may not be read",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened: where file or folder may not be written, open it read-only",
    sqlite3.SQLITE_READONLY: "is read-only, nothing was written: open it read-only, or use a copy",
}
_PLAIN_STATES = {"53100": "the disk is full, nothing was written", "25006": "is read-only, nothing was written"}


class Damaged(ValueError):  # noqa: N818
    """A file of SQLite's is damaged so much that the database itself cannot read it."""


class Database:
    """A database that holds a ledger, or shall.

    Connections are made when they are needed, and anew in a forked process.

    Args:
        where: A path of a SQLite file, or a URL: ``sqlite:///path``, ``postgresql://user:password@host/database``.
        read_only: Write nothing.

    Attributes:
        name: The path or the URL without its password, for messages.
        url: To open it again.
        is_sqlite: Whether it is a file of SQLite, else PostgreSQL.

    Raises:
        ValueError: If it is neither of the two, the driver is not installed, or it is to be read only and there is no such file.
    """

    def __init__(self, where: str | os.PathLike[str], read_only: bool = False) -> None:
        self.read_only = read_only
        self.url = _url(where)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self.path = Path(str(self.url.database))
        secret = [key for key in self.url.query if "pass" in key]
        self.name = repr(
            str(self.path) if self.is_sqlite else self.url.difference_update_query(secret).render_as_string(hide_password=True)
        )
        if not self.is_sqlite:
            try:
                import psycopg  # noqa: F401
            except ImportError as error:
                raise ValueError(f"ledger {self.name} needs PostgreSQL's driver: pip install 'proxycoop[postgres]'") from error
        elif read_only and not self._is_file():
            raise ValueError(f"ledger {self.name} does not exist")
        self._engine: Engine | None = None
        self._checked = False
        self._pid = os.getpid()
        self._inherited: list[Engine] = []
        self._guard = threading.Lock()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that sees the database as it stands when it begins, for reading.

        Raises:
            ValueError: If the database holds no ledger of the newest version, or cannot be read.
        """
        with self.plain_errors():
            connection = _patiently(self._reading)
            try:
                yield connection
            finally:
                connection.close()

    def write(self, body: Callable[[Connection], T], create: bool = False) -> T:
        """Run ``body`` in one transaction: all that it writes is there afterwards, safe on disk, or nothing.

        It may run more than once: when another writer gets in between, or a connection turns out to be dead, all starts anew.

        Args:
            body: Gets the connection.
            create: Make the file if it is missing, and ask for no ledger; writers that create wait for each other.

        Raises:
            ValueError: If the database is read-only, holds no ledger of the newest version, or cannot be written.
        """
        if self.read_only:
            raise ValueError(f"ledger {self.name} was opened read-only: nothing can be written")
        with self.plain_errors():
            if create and self.is_sqlite:
                self._make_file()
            result = _patiently(lambda: self._writing(body, create))
            if create and self.is_sqlite:
                _patiently(self._log_ahead)
            return result

    def lock_schema(self, connection: Connection) -> None:
        """Let nobody else change the tables, or create cooperatives, until the transaction ends."""
        if not self.is_sqlite:  # where a writer is alone anyway
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_SCHEMA_LOCK})")

    def close(self) -> None:
        """Close all connections; the next use opens new ones."""
        with self._guard:
            engine, self._engine = self._engine, None
        if engine is not None and self._pid == os.getpid():
            engine.dispose()

    @contextmanager
    def plain_errors(self) -> Iterator[None]:
        """What goes wrong in the database becomes a ValueError of one line, which names the ledger and never its password."""
        try:
            yield
        except (DBAPIError, sqlite3.Error) as error:
            kind = Damaged if _codes(error)[0] == sqlite3.SQLITE_CORRUPT else ValueError
            raise kind(f"ledger {self.name} {_plain(error)}") from error
        except sa.exc.NoResultFound as error:
            raise ValueError(f"ledger {self.name} is damaged: a row that must be there is missing; verify says which") from error

    def _reading(self) -> Connection:
        connection = self._connect()
        try:
            if not self.is_sqlite:
                connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            self._require_ledger(connection)  # the first look at it is what makes SQLite's snapshot
        except BaseException:
            connection.close()
            raise
        return connection

    def _writing(self, body: Callable[[Connection], T], create: bool) -> T:
        committing = False
        try:
            with self._connect().execution_options(writes=True) as connection, connection.begin():
                if not create:
                    self._require_ledger(connection)
                result = body(connection)
                committing = True
            return result
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
            if not committing:
                raise _Stale(error) from error  # nothing was committed, so it may be done again
            raise ValueError(
                f"ledger {self.name} broke off while it wrote, and whether it was written is not known: do the same again, it counts once "
                "if it has a round or a key"
            ) from error

    def _is_file(self) -> bool:
        try:
            return self.path.is_file()
        except OSError as error:  # a folder on the way that may not be entered
            raise ValueError(f"ledger {self.name} cannot be read: {error.strerror or error}") from error

    def _make_file(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.touch()
        except OSError as error:
            raise ValueError(f"ledger {self.name} cannot be written: {error.strerror or error}") from error

    def _log_ahead(self) -> None:
        """Switch the file to the write-ahead log, for good; where a file system cannot do that, the ledger works without."""
        with self._connect() as connection:
            raw = connection.connection.driver_connection
            assert isinstance(raw, sqlite3.Connection)
            raw.execute("PRAGMA journal_mode = WAL").fetchall()  # not in a transaction, as SQLAlchemy would have it

    def _connect(self) -> Connection:
        with self._guard:
            if self._pid != os.getpid():  # connections do not survive a fork; closing them here would disturb the parent's
                if self._engine is not None:
                    self._inherited.append(self._engine)
                self._engine, self._pid = None, os.getpid()
            if self._engine is None:
                self._engine = self._sqlite() if self.is_sqlite else self._postgresql()
            engine = self._engine
        return engine.connect()

    def _require_ledger(self, connection: Connection) -> None:
        if self._checked and connection.execute(_VERSION).scalar() == len(MIGRATIONS):
            return
        found = version(connection, self.name)
        if found == 0:
            raise ValueError(f"ledger {self.name} is no ledger yet: create it with init")
        if found < len(MIGRATIONS):
            raise ValueError(f"ledger {self.name} is of version {found}, older than {len(MIGRATIONS)}: bring it up to date with init")
        self._checked = True

    def _sqlite(self) -> Engine:
        if not self._is_file():
            raise ValueError(f"ledger {self.name} {'is no file' if self.path.exists() else 'does not exist: create it with init'}")
        engine = sa.create_engine("sqlite://", creator=self._open_file, poolclass=sa.QueuePool, max_overflow=-1)
        sa.event.listen(engine, "begin", _begin_sqlite)
        return engine

    def _open_file(self) -> sqlite3.Connection:
        where = f"file:{quote(str(self.path.absolute()))}?mode="
        if not self.read_only:
            connection = _opened(where + "rw")
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA synchronous = FULL")
            return connection
        connection = _opened(where + "ro")
        try:
            connection.execute("SELECT 1 FROM sqlite_master").fetchall()
        except sqlite3.Error as error:
            connection.close()
            log = Path(f"{self.path}-wal")
            if error.sqlite_errorcode & 0xFF not in _NO_LOG or (log.exists() and log.stat().st_size):
                raise
            # Even a reader writes beside the file, for the log; where it may not, and nobody has the file open to write, it needs none.
            connection = _opened(where + "ro&immutable=1")
        return connection

    def _postgresql(self) -> Engine:
        engine = sa.create_engine(self.url, isolation_level="READ COMMITTED", max_overflow=-1)
        sa.event.listen(engine, "connect", _prepare_postgresql)
        return engine


_VERSION = sa.select(sa.func.max(VERSIONS.c.version))


class _Stale(Exception):  # noqa: N818
    """A connection turned out to be dead before anything was committed."""

    def __init__(self, reason: DBAPIError) -> None:
        super().__init__(reason)
        self.reason = reason


def _patiently(attempt: Callable[[], T]) -> T:
    """Try until nobody is in the way."""
    until = time.monotonic() + PATIENCE
    stale, pause = False, _PAUSE
    while True:
        try:
            return attempt()
        except _Stale as error:
            if stale:
                raise error.reason from None
            stale = True
        except (DBAPIError, sqlite3.Error) as error:
            if not _busy(error) or time.monotonic() > until:
                raise
            time.sleep(random.uniform(0.5, 1.5) * pause)  # not from a seed: processes must differ
            pause = min(2 * pause, _LONGEST_PAUSE)


def _url(where: str | os.PathLike[str]) -> URL:
    if isinstance(where, str) and "://" in where:
        try:
            url = sa.make_url(where)
        except (ArgumentError, ValueError):
            raise ValueError("ledger: the URL cannot be read; write sqlite:///path or postgresql://user@host/database") from None
        if url.drivername in ("postgresql", "postgres", "postgresql+psycopg"):
            return url.set(drivername="postgresql+psycopg")
        if url.drivername not in ("sqlite", "sqlite+pysqlite"):
            raise ValueError(f"ledger {shown(url.drivername)}://…: must be a path, sqlite:///path or postgresql://user@host/database")
        if url.query or url.host:
            raise ValueError("ledger: write sqlite:///path (four slashes before an absolute one), with nothing behind the path")
    else:
        url = URL.create("sqlite", database=os.fspath(where))
    if not url.database or url.database == ":memory:" or "\0" in url.database:
        raise ValueError(f"ledger {shown(url.database)}: a ledger is kept in a file: give a path")
    return url


def _opened(where: str) -> sqlite3.Connection:
    connection = sqlite3.connect(where, uri=True, timeout=0, isolation_level=None, check_same_thread=False)
    connection.text_factory = _text
    return connection


def _text(raw: bytes) -> str:
    """Text as stored; what is no UTF-8 is kept as surrogates, for verification to find."""
    return raw.decode("utf-8", "surrogateescape")


def _begin_sqlite(connection: Connection) -> None:
    """Begin a transaction; a writer waits here until it is alone."""
    raw = connection.connection.driver_connection
    assert isinstance(raw, sqlite3.Connection)
    if connection.get_execution_options().get("writes"):
        _patiently(lambda: raw.execute("BEGIN IMMEDIATE"))  # not through SQLAlchemy: many may wait, and look often
    else:
        raw.execute("BEGIN")


def _prepare_postgresql(connection: Any, _: object) -> None:
    """Text is UTF-8 whatever the database's encoding is, and a commit is on disk when it is acknowledged."""
    with connection.cursor() as cursor:
        cursor.execute("SET client_encoding TO 'UTF8'")
        cursor.execute("SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'")
    connection.commit()


def _busy(error: DBAPIError | sqlite3.Error) -> bool:
    """Whether others are in the way, so that nothing was written and all may be done again."""
    code, state = _codes(error)
    return code in _BUSY or state in _RETRY


def _plain(error: DBAPIError | sqlite3.Error) -> str:
    """What is wrong, in words."""
    code, state = _codes(error)
    line = _first_line(error.orig if isinstance(error, DBAPIError) else error)
    if code in _PLAIN:
        return f"{_PLAIN[code]} ({line})"
    if state in _PLAIN_STATES:
        return f"{_PLAIN_STATES[state]} ({line})"
    if isinstance(error, sa.exc.OperationalError) and code is None and state is None:
        return f"cannot be reached: {line}"
    return f"refuses: {line}"


def _codes(error: DBAPIError | sqlite3.Error) -> tuple[int | None, str | None]:
    """SQLite's primary code, or PostgreSQL's state."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    code = getattr(cause, "sqlite_errorcode", None)
    return (None if code is None else code & 0xFF), getattr(cause, "sqlstate", None)


def _first_line(error: object) -> str:
    text = str(error).strip()
    return one_line(text.splitlines()[0] if text else type(error).__name__)
