"""Connections that must not lose what was acknowledged: forks, failing disks, readers without locks, servers with settings of their own."""

from __future__ import annotations

import importlib.util
import os
import signal
import sqlite3
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from proxycoop.credit.ledger import Ledger
from proxycoop.credit.ledger.connection import Database, _Raw

# Python from 3.12 on warns where other threads might hold locks: those of libraries here hold none that a child needs.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")

NOBODY = 65534


def begun(where: str | Path) -> Ledger:
    """A ledger with a round in it."""
    ledger = Ledger(where)
    ledger.init("clinics", ["Ada", "Bo"])
    ledger.record("clinics", 0, {"Ada": 1.0}, revenue=1000)
    return ledger


def rounds(ledger: Ledger) -> list[int]:
    return [one.fields["round"] for one in ledger.entries("clinics") if one.table == "rounds"]


def wrong(call: Callable[[], object]) -> str:
    """What a call says that must be refused."""
    with pytest.raises(ValueError, match="ledger") as error:
        call()
    said = str(error.value)
    assert said.isprintable()
    return said


class Child:
    """A forked process: it does the first steps of ``body`` at once, up to its first ``yield``, and the rest after :meth:`finish`."""

    def __init__(self, body: Callable[[], Iterator[None]]) -> None:
        ready, self._ready = os.pipe()
        self._go, go = os.pipe()
        self._said, said = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                steps = body()
                next(steps)
                os.write(self._ready, b".")
                os.read(self._go, 1)
                list(steps)
                os.write(said, b"done")
            except BaseException:
                os.write(said, traceback.format_exc().encode()[-4000:])
            os._exit(0)
        self._start = go
        os.close(self._ready)
        os.close(said)
        os.read(ready, 1)
        os.close(ready)

    def finish(self) -> str:
        """Let it go on, and wait for it: ``done``, or what went wrong."""
        os.write(self._start, b".")
        with os.fdopen(self._said) as lines:
            said = lines.read()
        os.waitpid(self._pid, 0)
        os.close(self._start)
        os.close(self._go)
        return said


# Forks


def test_what_a_forked_child_records_stays_when_the_parent_closes_meanwhile(ledger_url):
    ledger = begun(ledger_url)

    def body() -> Iterator[None]:
        ledger.record("clinics", 1, {"Ada": 1.0}, revenue=10)
        yield
        for number in range(2, 6):
            ledger.record("clinics", number, {"Ada": 1.0}, revenue=10)
        ledger.close()

    child = Child(body)
    ledger.close()
    assert child.finish() == "done"
    with Ledger(ledger_url) as again:
        assert rounds(again) == [0, 1, 2, 3, 4, 5]
        assert again.verify().ok


def test_nobody_is_paid_twice_when_a_child_settles_after_its_parent_closed(ledger_url):
    ledger = begun(ledger_url)

    def body() -> Iterator[None]:
        ledger.head("clinics")
        yield
        assert ledger.settle("clinics", key="november").payouts == {"Ada": 1000, "Bo": 0}
        os.kill(os.getpid(), signal.SIGKILL)

    child = Child(body)
    ledger.close()
    assert child.finish() == ""
    with Ledger(ledger_url) as again:
        again.record("clinics", 1, {"Bo": 3.0})
        receipt = again.settle("clinics", key="november")
        assert (receipt.repeated, receipt.payouts) == (True, {"Ada": 1000, "Bo": 0})
        assert again.verify().ok


def test_a_parent_goes_on_after_its_child_used_the_ledger_and_ended(ledger_url):
    with begun(ledger_url) as ledger:

        def body() -> Iterator[None]:
            yield
            ledger.record("clinics", 1, {"Ada": 1.0})
            ledger.close()

        child = Child(body)
        ledger.record("clinics", 2, {"Ada": 1.0})
        assert child.finish() == "done"
        ledger.record("clinics", 3, {"Ada": 1.0})
        assert sorted(rounds(ledger)) == [0, 1, 2, 3]
        assert ledger.verify().ok


def test_a_file_that_is_read_at_the_moment_of_the_fork_is_refused_in_the_child_whoever_opens_it(tmp_path):
    path = tmp_path / "ledger.db"
    with begun(path) as ledger, Ledger(path) as idle, begun(tmp_path / "other.db") as other:
        entries = ledger.entries("clinics")
        first = next(entries)

        def body() -> Iterator[None]:
            yield
            for call in (
                lambda: ledger.record("clinics", 1, {"Ada": 1.0}),
                lambda: ledger.head("clinics"),
                lambda: idle.head("clinics"),
                lambda: Ledger(path).init("clinics", ["Cy"]),
                lambda: Ledger(path, read_only=True).head("clinics"),
            ):
                assert "'" + str(path) + "' was being read or written when this process was forked" in wrong(call)
            other.record("clinics", 1, {"Ada": 1.0})

        assert Child(body).finish() == "done"
        assert [first.seq, *(one.seq for one in entries)] == [1, 2, 3, 4, 5, 6]
        assert rounds(other) == [0, 1]
        assert ledger.record("clinics", 1, {"Ada": 1.0}).seq == 8

        def later() -> Iterator[None]:
            yield
            idle.record("clinics", 2, {"Ada": 1.0})

        assert Child(later).finish() == "done"  # nothing is under way any more
        assert ledger.verify().ok


# Disks


@pytest.mark.parametrize("written", [True, False])
def test_after_a_failed_sync_nobody_says_that_nothing_was_written(tmp_path, monkeypatch, written):
    with begun(tmp_path / "ledger.db") as ledger:
        commit = sqlite3.Connection.commit

        def failing(raw: sqlite3.Connection) -> None:
            if written:
                commit(raw)
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(_Raw, "commit", failing, raising=False)
            said = wrong(lambda: ledger.record("clinics", 1, {"Ada": 1.0}, revenue=5))
        assert "(disk I/O error), and whether it was written is not known: do the same again; with a round or a key" in said
        assert "nothing was written" not in said
        assert ledger.record("clinics", 1, {"Ada": 1.0}, revenue=5).repeated is written
        assert ledger.verify().rows["rounds"] == 2


@pytest.mark.parametrize("code", [sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN])
def test_a_disk_that_fails_behind_the_commit_of_init_is_not_said_to_have_kept_nothing(tmp_path, monkeypatch, code):
    execute = sqlite3.Connection.execute

    def failing(raw: sqlite3.Connection, statement: str) -> sqlite3.Cursor:
        if "journal_mode" in statement:
            error = sqlite3.OperationalError("it failed")
            error.sqlite_errorcode = code
            raise error
        return execute(raw, statement)

    with Ledger(tmp_path / "ledger.db") as ledger:
        with monkeypatch.context() as patch:
            patch.setattr(_Raw, "execute", failing, raising=False)
            said = wrong(lambda: ledger.init("clinics", ["Ada"]))
        assert "ledger.db' was written, but cannot be switched to its write-ahead log (it failed): do the same again" in said
        assert "nothing was written" not in said
        head = ledger.head("clinics")
        ledger.init("clinics", ["Ada"])
        assert ledger.head("clinics") == head
        assert (tmp_path / "ledger.db-wal").exists()


def test_a_commit_syncs_the_folder_too(tmp_path):
    """3 is EXTRA: without a write-ahead log the commit is the removal of the journal."""
    with begun(tmp_path / "ledger.db") as ledger:
        assert ledger._database.write(lambda connection: connection.exec_driver_sql("PRAGMA synchronous").scalar()) == 3


# Readers where nothing may be written beside the file


@pytest.fixture
def shelf() -> Iterator[Path]:
    """A ledger in a folder that other users can read, unlike those of ``tmp_path``; nobody may write to the folder."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        begun(folder / "ledger.db").close()
        (folder / "ledger.db").chmod(0o644)
        folder.chmod(0o555)
        yield folder / "ledger.db"
        folder.chmod(0o755)


def become_nobody() -> None:
    """Permissions do not bind root."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


def write_more(path: Path) -> None:
    path.parent.chmod(0o755)
    with Ledger(path) as ledger:
        for number in range(1, 101):
            ledger.record("clinics", number, {"Ada": 1.0}, revenue=1)
    path.parent.chmod(0o555)


def test_a_reader_without_locks_sees_what_was_written_since_its_last_read(shelf):
    def body() -> Iterator[None]:
        become_nobody()
        with Ledger(shelf, read_only=True) as ledger:
            assert ledger.verify().rows["rounds"] == 1
            yield
            assert ledger.verify().rows["rounds"] == 101
            assert ledger.verify().ok
            assert rounds(ledger) == list(range(101))

    child = Child(body)
    write_more(shelf)
    assert child.finish() == "done"


def test_what_was_read_without_locks_while_somebody_wrote_is_refused(shelf):
    def body() -> Iterator[None]:
        become_nobody()
        with Ledger(shelf, read_only=True) as ledger:
            entries = ledger.entries("clinics")
            next(entries)
            left = ledger.entries("clinics")
            next(left)
            yield
            left.close()  # who does not want the rest is not told
            assert "was written to while it was read, without locks, since no log can be made beside it: read it again" in wrong(
                lambda: list(entries)
            )
            assert rounds(ledger) == list(range(101))

    child = Child(body)
    write_more(shelf)
    assert child.finish() == "done"


def test_what_goes_wrong_in_a_read_without_locks_is_laid_to_the_writer_where_there_was_one(shelf):
    def body() -> Iterator[None]:
        become_nobody()
        database = Database(shelf, read_only=True)

        def reading() -> Iterator[None]:
            with database.read() as connection:
                yield
                connection.exec_driver_sql("SELECT * FROM torn")

        steps = reading()
        next(steps)
        yield
        assert "was written to while it was read" in wrong(lambda: next(steps))
        again = reading()
        next(again)
        assert "no such table: torn" in wrong(lambda: next(again))
        database.close()

    child = Child(body)
    write_more(shelf)
    assert child.finish() == "done"


# PostgreSQL


def set_for_all(url: str, setting: str) -> None:
    """Change a setting of the database for the sessions to come."""
    engine = sa.create_engine(sa.make_url(url).set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f'ALTER DATABASE "{engine.url.database}" {setting}')
    engine.dispose()


@pytest.mark.postgres
@pytest.mark.parametrize("digits", [-15, 0])
def test_floats_are_exact_whatever_the_database_is_set_to(postgres_url, digits):
    set_for_all(postgres_url, f"SET extra_float_digits = {digits}")
    credit = {"Ada": 1 / 3, "Bo": 0.1 + 0.2}
    with Ledger(postgres_url) as ledger:
        ledger.init("clinics", ["Ada", "Bo"])
        ledger.record("clinics", 0, credit, revenue=10**15)
        assert ledger.record("clinics", 0, credit, revenue=10**15).repeated
        ledger.settle("clinics")
        assert ledger.verify().ok
    set_for_all(postgres_url, "RESET extra_float_digits")
    with Ledger(postgres_url) as ledger:
        assert ledger.verify().ok
        assert [one.fields["credit"] for one in ledger.entries("clinics") if one.table == "credits"] == [*credit.values()]


@pytest.mark.postgres
def test_a_lock_timeout_of_the_database_does_not_reach_the_caller(postgres_url, monkeypatch):
    set_for_all(postgres_url, "SET lock_timeout = '20ms'")
    pauses = []
    with begun(postgres_url) as ledger:
        other = sa.create_engine(ledger._database.url)
        with other.connect() as holder:
            holder.exec_driver_sql("SELECT * FROM heads FOR UPDATE")

            def pause(seconds: float) -> None:
                pauses.append(seconds)
                if len(pauses) == 3:
                    holder.rollback()

            monkeypatch.setattr("proxycoop.credit.ledger.connection.time.sleep", pause)
            assert ledger.record("clinics", 1, {"Ada": 1.0}).seq == 8
        other.dispose()
        assert len(pauses) == 3
        assert ledger.verify().ok


@pytest.mark.postgres
def test_readers_and_writers_do_not_notice_that_the_server_cut_idle_connections(postgres_url):
    with begun(postgres_url) as ledger:
        other = sa.create_engine(ledger._database.url)

        def cut() -> None:
            with other.connect() as connection:
                ended = connection.exec_driver_sql(
                    "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
                assert ended.scalars().all() == [True]

        cut()
        assert ledger.head("clinics").seq == 6
        cut()
        assert ledger.record("clinics", 1, {"Ada": 1.0}).seq == 8
        cut()
        assert ledger.verify().ok
        other.dispose()


# URLs

needs_driver = pytest.mark.skipif(importlib.util.find_spec("psycopg") is None, reason="the extra 'postgres' is not installed")


@needs_driver
@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:se@cret/x@127.0.0.1:1/db",
        "postgresql://u:se@cret@127.0.0.1:1/db",
        "postgresql://u:se@cret?x@127.0.0.1:1/db",
        "postgresql://127.0.0.1/se@cret",
        "postgresql://u@127.0.0.1:1/db?password=se@cret",
    ],
)
def test_a_url_whose_password_is_not_encoded_is_not_shown_at_all(url):
    said = wrong(lambda: Ledger(url))
    assert "write @ as %40" in said
    assert not [one for one in ("cret", "127.0", "db") if one in said]


@needs_driver
@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:secret@127.0.0.1:1/db",
        "postgresql://u:se%40cret%2Fx@127.0.0.1:1/db",
        "postgresql://u:se/cret@127.0.0.1:1/db",
        "postgresql://u:x@127.0.0.1:1/db?bogus=secret",
        "postgresql://u:x@127.0.0.1:1/db?sslpassword=secret&PASSWORD=secret",
        "postgresql://u@127.0.0.1:1/db?password=secret&connect_timeout=5",
    ],
)
def test_errors_show_where_a_ledger_is_and_nothing_secret(url):
    with Ledger(url) as ledger:
        said = wrong(lambda: ledger.head("clinics"))
        assert "@127.0.0.1:1/db" in said
        assert "cret" not in said + repr(ledger)
        assert ("connect_timeout=5" in said) == ("connect_timeout=5" in url)


@needs_driver
def test_a_database_with_an_at_sign_in_its_name_can_be_named_and_opened_again():
    with Ledger("postgresql://u@127.0.0.1:1/d%40b") as ledger, Ledger(ledger.url) as again:
        assert ledger.name == again.name
        assert "d%40b" in wrong(lambda: again.head("clinics"))


@pytest.mark.parametrize("read_only", [False, True])
def test_a_relative_path_stays_the_same_file_when_the_process_changes_its_folder(tmp_path, monkeypatch, read_only):
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    begun("books.db").close()
    with Ledger("other/books.db") as other:
        other.init("shops", ["Cy"])
    with Ledger("books.db", read_only=read_only) as ledger:
        monkeypatch.chdir("other")
        assert [one.name for one in ledger.cooperatives()] == ["clinics"]
        assert ledger.name == "'books.db'"


@pytest.mark.parametrize("replaced", [False, True])
def test_nothing_is_recorded_into_a_file_that_was_removed_or_replaced(tmp_path, replaced):
    ledger = begun(tmp_path / "books.db")
    if replaced:
        begun(tmp_path / "new.db").close()
        os.replace(tmp_path / "new.db", tmp_path / "books.db")
    else:
        (tmp_path / "books.db").unlink()
    assert "was removed or replaced while it was open" in wrong(lambda: ledger.record("clinics", 1, {"Ada": 1.0}))
    ledger.close()


def test_a_ledger_with_two_names_is_not_written(tmp_path):
    begun(tmp_path / "books.db").close()
    os.link(tmp_path / "books.db", tmp_path / "same.db")
    assert "more than one name" in wrong(lambda: Ledger(tmp_path / "same.db").record("clinics", 1, {"Ada": 1.0}))
    assert rounds(Ledger(tmp_path / "same.db", read_only=True)) == [0]


@pytest.mark.parametrize(("name", "said"), [("-", "standard input"), ("~/books.db", "HOME"), ("b\udcff.db", "UTF-8")])
def test_a_name_that_is_none_for_a_ledger_is_refused(tmp_path, monkeypatch, name, said):
    monkeypatch.chdir(tmp_path)
    assert said in wrong(lambda: Ledger(name))
    assert list(tmp_path.iterdir()) == []
