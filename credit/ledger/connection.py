"""Connections to a ledger's database, SQLite or PostgreSQL: they are durable, they wait for each other, and their errors take one line.

SQLite is used with a write-ahead log, with foreign keys, with ``synchronous=EXTRA``, so that what was acknowledged survives a power cut,
and with ``BEGIN IMMEDIATE``, so that a writer waits before its transaction and not in the middle of it. SQLite's own way of waiting is not
fair and does not cover every case, such as the first switch to the log. So whoever finds the database busy starts anew after a short random
time.

``synchronous=FULL`` would do for the log. But before the switch to the log, and on file systems without one, a commit is the removal of a
journal, and only ``EXTRA`` syncs the folder after it. Otherwise the journal could come back after a power cut and undo what was
acknowledged.

SQLite keeps its locks in a table of the process. A forked child inherits the table but not the locks. As long as the table holds a
connection from before the fork, the child's new connections lock nothing, and its commits can go to a log that others have removed. So idle
connections are closed before a fork. A file that is in use at that moment is refused in the child. Connections that were not opened by this
module are not seen.
"""

from __future__ import annotations

import os
import random
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy import Connection, Engine
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DBAPIError

from ...files import require_name
from ...text import one_line
from .names import shown
from .schema import MIGRATIONS, VERSIONS, version

T = TypeVar("T")

PATIENCE = 600.0
"""Seconds that a writer waits for other writers."""

_SCHEMA_LOCK = 0x70726F7879636F  # of PostgreSQL's advisory locks: "proxyco"
_PAUSE, _LONGEST_PAUSE = 0.001, 0.016  # mean seconds between two tries: at first, and after a long wait
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}
_NO_LOG = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY}
_RETRY = {"40001", "40P01", "55P03"}  # PostgreSQL: serialization failure, deadlock, lock_timeout; nothing was written
_PLAIN = {  # what SQLite's codes mean for a ledger
    sqlite3.SQLITE_FULL: "the disk is full, nothing was written",
    sqlite3.SQLITE_IOERR: "cannot be read or written: is the disk full?",
    sqlite3.SQLITE_CORRUPT: "is damaged",
    sqlite3.SQLITE_NOTADB: "is no ledger: it is not an SQLite database",
    sqlite3.SQLITE_PERM: "may not be read",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened: if the file or its folder may not be written, open it read-only",
    sqlite3.SQLITE_READONLY: "is read-only, nothing was written: open it read-only, or use a copy",
}
_PLAIN_STATES = {"53100": "the disk is full, nothing was written", "25006": "is read-only, nothing was written"}
_UNKNOWN = "whether it was written is not known: do the same again; with a round or a key it counts only once"
_SHOWN = {"host", "hostaddr", "port", "dbname", "user", "service", "sslmode", "connect_timeout", "target_session_attrs", "application_name"}


class Damaged(ValueError):  # noqa: N818
    """A file of SQLite's is so badly damaged that the database itself cannot read it."""


class Database:
    """A database that holds a ledger, or will hold one.

    Connections are made when they are needed, and made anew in a forked process. An SQLite file that is read or written at the moment of
    the fork cannot be used in the child, see above.

    Args:
        where: Path of an SQLite file, or a URL: ``sqlite:///path``, ``postgresql://user:password@host/database``.
        read_only: Write nothing.

    Attributes:
        name: The path, or the URL without its password, for messages.
        url: URL to open it again.
        is_sqlite: Whether it is an SQLite file; otherwise it is PostgreSQL.

    Raises:
        ValueError: If it is neither of the two, the driver is not installed, or it is read-only and there is no such file.
    """

    def __init__(self, where: str | os.PathLike[str], read_only: bool = False) -> None:
        self.read_only = read_only
        self.url = _url(where)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        given = Path(str(self.url.database))
        self.path = Path(os.path.abspath(given))  # it stays the same file when the process changes its folder
        if self.is_sqlite:
            self.url = self.url.set(database=str(self.path))
        hidden = self.url.query.keys() - _SHOWN  # an unknown option might be a password
        self.name = repr(str(given) if self.is_sqlite else self.url.difference_update_query(hidden).render_as_string(hide_password=True))
        if not self.is_sqlite:
            try:
                import psycopg  # noqa: F401
            except ImportError as error:
                raise ValueError(f"ledger {self.name} needs PostgreSQL's driver: pip install 'proxycoop[postgres]'") from error
        elif read_only and not self._is_file():
            raise ValueError(f"ledger {self.name} does not exist")
        self._engine: Engine | None = None
        self._opened: tuple[int, int] | None = None  # the file that the engine opened, by _file
        self._checked = False
        self._calls = 0  # calls under way, which may hold a connection
        _watch_forks()
        with _GUARD:
            _ALL.add(self)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction for reading, which sees the database as it stands when the transaction begins.

        Raises:
            ValueError: If the database holds no ledger of the newest version, or cannot be read. Where a reader may not write beside the
                file, it reads without locks. Then the error is also raised at the end if somebody wrote meanwhile.
        """
        with self.plain_errors(), self._call():
            connection = _patiently(self._reading)
            content = _raw(connection).content if self.is_sqlite else None
            try:
                yield connection
            except Exception as error:
                self._require_same(content, error)  # that may be the cause of the error
                raise
            else:
                self._require_same(content)
            finally:
                connection.close()

    def write(self, body: Callable[[Connection], T], create: bool = False) -> T:
        """Run ``body`` in one transaction. Afterwards all that it wrote is safe on disk, or nothing was written.

        It may run more than once: if another writer gets in between, or a connection turns out to be dead, it starts anew.

        Args:
            body: Gets the connection.
            create: Make the file if it is missing, and do not ask for a ledger in it. Writers that create wait for each other.

        Raises:
            ValueError: If the database is read-only, holds no ledger of the newest version, or cannot be written.
        """
        if self.read_only:
            raise ValueError(f"ledger {self.name} was opened read-only: nothing can be written")
        with self.plain_errors():
            if create and self.is_sqlite:
                self._make_file()
            with self._call():
                result = _patiently(lambda: self._writing(body, create))
                if create and self.is_sqlite:
                    try:
                        _patiently(self._log_ahead)
                    except (DBAPIError, sqlite3.Error) as error:
                        line = _first_line(error.orig if isinstance(error, DBAPIError) else error)
                        raise ValueError(
                            f"ledger {self.name} was written, but cannot be switched to its write-ahead log ({line}): do the same again"
                        ) from error
            return result

    def lock_schema(self, connection: Connection) -> None:
        """Until the transaction ends, let nobody else change the tables or create cooperatives."""
        if not self.is_sqlite:  # in SQLite a writer is alone anyway
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_SCHEMA_LOCK})")

    def close(self) -> None:
        """Close all connections; the next use opens new ones."""
        with _GUARD:
            engine, self._engine = self._engine, None
            if engine is not None:
                engine.dispose()

    @contextmanager
    def plain_errors(self) -> Iterator[None]:
        """Turn errors of the database into a ValueError of one line, which names the ledger and never its password."""
        try:
            yield
        except (DBAPIError, sqlite3.Error) as error:
            kind = Damaged if _codes(error)[0] == sqlite3.SQLITE_CORRUPT else ValueError
            raise kind(f"ledger {self.name} {_plain(error)}") from error
        except UnicodeDecodeError as error:
            raise Damaged(f"ledger {self.name} is damaged") from error
        except sa.exc.NoResultFound as error:
            raise ValueError(f"ledger {self.name} is damaged: a row that must be there is missing; verify says which") from error

    def before_fork(self) -> tuple[int, int] | None:
        """Close the connections that may be closed. If an SQLite file is still in use, return its device and number."""
        if not self.is_sqlite:
            return None
        if self._engine is not None:
            self._engine.pool.dispose()  # only idle connections; the others return to the pool
        return self._file() if self._calls else None

    def after_fork(self) -> None:
        """In the child: keep the parent's connections as they are, since closing them here would disturb the parent."""
        if self._engine is not None:
            _INHERITED.append(self._engine)
        self._engine = None

    @contextmanager
    def _call(self) -> Iterator[None]:
        """A call that may hold a connection. It is refused in the child of a process that held one to the file when it forked."""
        if self.is_sqlite and _REFUSED and self._file() in _REFUSED:
            raise ValueError(
                f"ledger {self.name} was being read or written when this process was forked, and SQLite cannot be used across a fork: fork "
                "while nothing reads or writes it, or start a new process (spawn)"
            )
        with _GUARD:
            self._calls += 1
        try:
            yield
        finally:
            with _GUARD:
                self._calls -= 1

    def _reading(self) -> Connection:
        connection = self._connect()
        try:
            if not self.is_sqlite:
                connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            self._require_ledger(connection)  # SQLite's snapshot is made by the first read
        except BaseException as error:
            connection.close()
            if isinstance(error, DBAPIError) and error.connection_invalidated:
                raise _Stale(error) from error
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
            if error.connection_invalidated and not committing:
                raise _Stale(error) from error  # nothing was committed, so it may be done again
            if error.connection_invalidated:
                raise ValueError(f"ledger {self.name}: the connection broke while it wrote, and {_UNKNOWN}") from error
            if committing and _codes(error)[0] == sqlite3.SQLITE_IOERR:  # such as a failed sync: the commit may still be in the file
                raise ValueError(
                    f"ledger {self.name} could not be written or made safe on disk ({_first_line(error.orig)}), and {_UNKNOWN}"
                ) from error
            raise

    def _is_file(self) -> bool:
        try:
            return self.path.is_file()
        except OSError as error:  # a parent folder that may not be entered
            raise ValueError(f"ledger {self.name} cannot be read: {error.strerror or error}") from error

    def _make_file(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.touch()
        except OSError as error:
            raise ValueError(f"ledger {self.name} cannot be written: {error.strerror or error}") from error

    def _log_ahead(self) -> None:
        """Switch the file to the write-ahead log for good. On file systems that cannot do that, the ledger works without it."""
        with self._connect() as connection:
            _raw(connection).execute("PRAGMA journal_mode = WAL").fetchall()  # not through SQLAlchemy, which would begin a transaction

    def _connect(self) -> Connection:
        with _GUARD:
            if self._engine is None:
                self._engine = self._sqlite() if self.is_sqlite else self._postgresql()
                self._opened = self._file() if self.is_sqlite else None
            elif self.is_sqlite and not self.read_only and self._file() != self._opened:
                raise ValueError(
                    f"ledger {self.name} was removed or replaced while it was open, so what is recorded now would be lost: put the file "
                    "back, or close the ledger and open it again"
                )
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
        if not self.read_only and self.path.stat().st_nlink > 1:
            raise ValueError(
                f"ledger {self.name} has more than one name (hard links), and SQLite keeps a log for each: make a copy for the other name, "
                "or open it read-only"
            )
        # A reader opens the file for each read, since from one read to the next it may gain or lose the right to lock it.
        pool: dict[str, Any] = {"poolclass": sa.NullPool} if self.read_only else {"poolclass": sa.QueuePool, "max_overflow": -1}
        engine = sa.create_engine("sqlite://", creator=self._open_file, **pool)
        sa.event.listen(engine, "begin", _begin_sqlite)
        return engine

    def _file(self) -> tuple[int, int] | None:
        """The file's device and number, by which SQLite knows it; ``None`` if the file cannot be found."""
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _content(self) -> tuple[int, ...]:
        """Numbers that change when the file is written to. The size of its log comes last."""
        try:
            log = Path(f"{os.path.realpath(self.path)}-wal").stat().st_size  # SQLite keeps it beside the file, not beside a link
        except FileNotFoundError:
            log = 0
        file = self.path.stat()
        return file.st_dev, file.st_ino, file.st_size, file.st_mtime_ns, log

    def _require_same(self, content: tuple[int, ...] | None, error: Exception | None = None) -> None:
        """Refuse what was read without locks if somebody wrote meanwhile."""
        try:
            same = content is None or content == self._content()
        except OSError:
            same = False
        if not same:
            raise ValueError(
                f"ledger {self.name} was written to while it was read, without locks, since no log can be made beside it: read it again"
            ) from error

    def _open_file(self) -> sqlite3.Connection:
        where = f"file:{quote(str(self.path.absolute()))}?mode="
        if not self.read_only:
            connection = _opened(where + "rw")
            try:
                connection.execute("PRAGMA foreign_keys = ON")
                connection.execute("PRAGMA synchronous = EXTRA")
            except sqlite3.Error:  # the file is no database
                connection.close()
                raise
            return connection
        connection = _opened(where + "ro")
        try:
            connection.execute("SELECT 1 FROM sqlite_master").fetchall()
        except UnicodeDecodeError:  # of an error's text, which quotes the damaged schema
            connection.close()
            raise
        except sqlite3.Error as error:
            connection.close()
            content = self._content()
            if error.sqlite_errorcode & 0xFF not in _NO_LOG or content[-1]:
                raise
            # For the log, even a reader writes beside the file. If it may not, and nobody has the file open to write, it needs no log.
            connection = _opened(where + "ro&immutable=1")
            connection.content = content
        return connection

    def _postgresql(self) -> Engine:
        engine = sa.create_engine(self.url, isolation_level="READ COMMITTED", max_overflow=-1)
        sa.event.listen(engine, "connect", _prepare_postgresql)
        return engine


_VERSION = sa.select(sa.func.max(VERSIONS.c.version))
_GUARD = threading.RLock()  # held during a fork, so that nobody opens a connection meanwhile
_ALL: weakref.WeakSet[Database] = weakref.WeakSet()
_REFUSED: set[tuple[int, int]] = set()  # files that were in use when this process was forked
_HELD: set[tuple[int, int]] = set()  # the same, while it is forked
_INHERITED: list[Engine] = []


@cache
def _watch_forks() -> None:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_before_fork, after_in_parent=_after_in_parent, after_in_child=_after_in_child)


def _before_fork() -> None:
    _GUARD.acquire()
    _HELD.clear()
    _HELD.update(held for database in list(_ALL) if (held := database.before_fork()) is not None)


def _after_in_parent() -> None:
    _GUARD.release()


def _after_in_child() -> None:
    _REFUSED.update(_HELD)
    for database in list(_ALL):
        database.after_fork()
    _GUARD.release()


class _Stale(Exception):  # noqa: N818
    """A connection turned out to be dead before anything was committed."""

    def __init__(self, reason: DBAPIError) -> None:
        super().__init__(reason)
        self.reason = reason


def _patiently(attempt: Callable[[], T]) -> T:
    """Try until nobody is in the way, for at most :data:`PATIENCE` seconds."""
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
    if not isinstance(where, str | os.PathLike) or not isinstance(os.fspath(where), str):
        raise ValueError(f"ledger {where!r}: must be a path or a URL, as text, not {type(where).__name__}")
    if isinstance(where, str) and "://" in where:
        try:
            url = sa.make_url(where)
        except (ArgumentError, ValueError):
            raise ValueError("ledger: the URL cannot be read; write sqlite:///path or postgresql://user@host/database") from None
        if url.drivername in ("postgresql", "postgres", "postgresql+psycopg"):
            if where.count("@") > (url.username is not None):  # what was read as host or database may belong to the password
                raise ValueError("ledger: the URL cannot be read: except for the @ before the host, write @ as %40, / as %2F and ? as %3F")
            return url.set(drivername="postgresql+psycopg")
        if url.drivername not in ("sqlite", "sqlite+pysqlite"):
            raise ValueError(f"ledger {shown(url.drivername)}://…: must be a path, sqlite:///path or postgresql://user@host/database")
        if url.query or url.host:
            raise ValueError("ledger: write sqlite:///path (four slashes before an absolute path), with nothing after the path")
    else:
        url = URL.create("sqlite", database=os.fspath(where))
    if not url.database or url.database == ":memory:" or "\0" in url.database:
        raise ValueError(f"ledger {shown(str(where))}: a ledger is kept in a file: give a path")
    if url.get_backend_name() == "sqlite":
        require_name(url.database, "ledger")
        if not url.database.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in url.database):
            raise ValueError(f"ledger {url.database!r}: SQLite needs names in UTF-8, and this one is not: rename the file or its folder")
    return url


class _Raw(sqlite3.Connection):
    """A connection of SQLite's.

    Attributes:
        content: Where nothing is locked, :meth:`Database._content` of when the file was opened.
    """

    content: tuple[int, ...] | None = None


def _raw(connection: Connection) -> _Raw:
    raw = connection.connection.driver_connection
    assert isinstance(raw, _Raw)
    return raw


def _opened(where: str) -> _Raw:
    connection = sqlite3.connect(where, uri=True, timeout=0, isolation_level=None, check_same_thread=False, factory=_Raw)
    connection.text_factory = _text
    return connection


def _text(raw: bytes) -> str:
    """Text as stored. Bytes that are not UTF-8 are kept as surrogates, for verification to find."""
    return raw.decode("utf-8", "surrogateescape")


def _begin_sqlite(connection: Connection) -> None:
    """Begin a transaction; a writer waits here until it is alone."""
    raw = _raw(connection)
    if connection.get_execution_options().get("writes"):
        _patiently(lambda: raw.execute("BEGIN IMMEDIATE"))  # not through SQLAlchemy: many may wait, and try often
    else:
        raw.execute("BEGIN")


def _prepare_postgresql(connection: Any, _: object) -> None:
    """Text is UTF-8 whatever the database's encoding, floats are exact, and a commit is on disk when it is acknowledged."""
    with connection.cursor() as cursor:
        cursor.execute("SET client_encoding TO 'UTF8'")
        cursor.execute("SET extra_float_digits TO 3")  # less than 1 would round floats
        cursor.execute("SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'")
    connection.commit()


def _busy(error: DBAPIError | sqlite3.Error) -> bool:
    """Whether others are in the way. Then nothing was written, and everything may be done again."""
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
