"""A ledger against names, amounts, files and disks that mean it no good: one clear line, and nothing half-written."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import sqlite3
import stat
import subprocess
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import pytest

from proxycoop.credit.ledger import Ledger
from proxycoop.credit.ledger.verification import Verification

# Python from 3.12 on warns where other threads might hold locks: those of libraries here hold none that a child needs.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")

MEMBERS = ["Ada", "Bo"]
NOBODY = 65534


def begun(where: str | Path) -> Ledger:
    """A ledger with a round in it."""
    ledger = Ledger(where)
    ledger.init("clinics", MEMBERS)
    ledger.record("clinics", 0, {"Ada": 0.5, "Bo": 0.25}, revenue=10)
    return ledger


@pytest.fixture
def ledger(ledger_url) -> Iterator[Ledger]:
    with begun(ledger_url) as ledger:
        yield ledger


@pytest.fixture
def content(tmp_path) -> bytes:
    """A file with a ledger in it."""
    with begun(tmp_path / "ledger.db") as ledger:
        return at_rest(ledger, tmp_path / "ledger.db")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users can reach, unlike those of ``tmp_path``."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        yield Path(name)


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A disk of one megabyte."""
    mount, umount = shutil.which("mount"), shutil.which("umount")
    folder = tmp_path / "disk"
    folder.mkdir()
    if (
        mount is None
        or umount is None
        or subprocess.run([mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True).returncode
    ):
        pytest.skip("may mount no file system here: test_a_file_that_may_not_grow stands in for it")
    yield folder
    subprocess.run([umount, folder], check=True)


def one_line(error: pytest.ExceptionInfo[ValueError] | ValueError | str, ledger: Ledger | None = None) -> str:
    """What an error says, which must be a single line that is fit to be shown, and name the ledger where that is asked for."""
    text = str(error.value if isinstance(error, pytest.ExceptionInfo) else error)
    assert text.isprintable()
    assert 10 < len(text) < 500
    assert ledger is None or ledger.name in text
    return text


def refused(ledger: Ledger, call: Callable[[], object], *errors: type[Exception]) -> str:
    """What is said to something that must not change the ledger."""
    before = ledger.head("clinics")
    with pytest.raises(errors or ValueError) as error:
        call()
    assert ledger.head("clinics") == before
    assert ledger.verify().ok
    return one_line(error)


def apart(body: Callable[[], str]) -> str:
    """What ``body`` returns in a process of its own."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            said = body()
        except BaseException:
            said = traceback.format_exc()
        os.write(write, said.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as answers:
        said = answers.read()
    os.waitpid(child, 0)
    return said


def error_of(call: Callable[[], object]) -> str:
    """What a call says that must be refused."""
    try:
        call()
    except ValueError as error:
        return one_line(error)
    return "it was not refused"


def damage_of(call: Callable[[], object]) -> str:
    """The same of a call that may also return what verification found."""
    found: list[Verification] = []
    said = error_of(lambda: found.append(call()))
    return " ".join(map(str, found[0].problems)) if found else said


def become_nobody() -> None:
    """Permissions do not bind root."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


# Names


@pytest.mark.parametrize(
    "name",
    [
        "O'Brien",
        '"Robert"); DROP TABLE members; --',
        "<script>alert(1)</script>",
        "&amp; %s %(name)s {0} $1 :own \\x27 `id` ../../etc",
        "عيادة القلب",
        "שלום",
        "诊所 クリニック 🏥",
        "a" * 200,
        "NULL",
        "0",
    ],
)
def test_letters_and_signs_of_all_kinds_are_kept_as_they_are(ledger_url, name):
    with Ledger(ledger_url) as ledger:
        ledger.init(name, [name, "Bo"])
        ledger.record(name, 0, {name: 0.5, "Bo": 0.5}, revenue=3, key=name)
        assert ledger.settle(name).payouts == {name: 2, "Bo": 1}
        assert ledger.record(name, 0, {name: 0.5, "Bo": 0.5}, revenue=3, key=name).repeated
        assert ledger.cooperatives()[0].name == name
        assert ledger.cooperative(name).members == (name, "Bo")
        assert {entry.fields["cooperative"] for entry in ledger.entries(name)} == {name}
        assert ledger.verify().ok


HOSTILE = {
    "newline": "Ada\nBo",
    "line separator": "Ada\u2028Bo",
    "escape": "Ada\x1b[2J",
    "nul": "Ada\0Bo",
    "right-to-left mark": "Ada\u200f",
    "right-to-left override": "\u202eadA",
    "zero-width space": "A\u200bda",
    "byte-order mark": "\ufeffAda",
    "surrogate": "Ada\ud800",
    "private use": "Ada\ue000",
    "unassigned": "Ada\u0378",
    "10,000 characters": "A" * 10_000,
    "10,000 newlines": "\n" * 10_000,
    "nothing": "",
    "a space": " ",
    "space before": " Ada",
    "formula": "=HYPERLINK(1)",
    "formula of another kind": "@SUM(1)",
    "no-break space behind": "Ada\u00a0",
}


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_names_that_deceive_are_refused_in_one_short_line(ledger, name):
    refused(ledger, lambda: ledger.init(name, MEMBERS))
    refused(ledger, lambda: ledger.init("clinics", [*MEMBERS, name]))
    refused(ledger, lambda: ledger.record("clinics", 1, {"Ada": 1.0, name: 1.0}))
    refused(ledger, lambda: ledger.record("clinics", 1, {"Ada": 1.0}, key=name))
    refused(ledger, lambda: ledger.record_revenue("clinics", 1, key=name))
    refused(ledger, lambda: ledger.settle("clinics", key=name))
    refused(ledger, lambda: ledger.statement("clinics", name))
    refused(ledger, lambda: ledger.record(name, 1, {"Ada": 1.0}))
    refused(ledger, lambda: ledger.verify(name))
    refused(ledger, lambda: list(ledger.entries(name)))
    assert [one.name for one in ledger.cooperatives()] == ["clinics"]


def test_two_spellings_of_one_name_are_one_name(ledger):
    """The letter é, and e with an accent that is put on it."""
    ledger.init("clinics", ["Ren\u00e9"])
    ledger.init("clinics", ["Rene\u0301"])
    assert ledger.cooperative("clinics").members == ("Ada", "Bo", "Ren\u00e9")
    assert "named twice" in refused(ledger, lambda: ledger.init("clinics", ["Zo\u00e9", "Zoe\u0301"]))


# Amounts


@pytest.mark.parametrize(
    "amount", [-1, -(2**63), 2**63, 10**400, -(10**400)], ids=lambda amount: f"{amount:.0e}" if abs(amount) < 1e300 else "huge"
)
def test_revenue_out_of_bounds_is_refused(ledger, amount):
    for call in (
        lambda: ledger.record("clinics", 1, {"Ada": 1.0}, revenue=amount),
        lambda: ledger.record_revenue("clinics", amount),
        lambda: ledger.settle("clinics", revenue=amount),
    ):
        assert "2^63 − 1" in refused(ledger, call)


@pytest.mark.parametrize(
    "amount", [0.5, 1.0, float("nan"), float("inf"), 1e300, "12", "12.50", b"1", None, True, Fraction(1), [1]], ids=repr
)
def test_revenue_that_is_no_whole_number_is_refused(ledger, amount):
    for call in (
        lambda: ledger.record("clinics", 1, {"Ada": 1.0}, revenue=amount),
        lambda: ledger.record_revenue("clinics", amount),
        lambda: ledger.settle("clinics", revenue=amount),
    ):
        assert "must be a whole number" in refused(ledger, call, TypeError)


def test_revenue_that_adds_up_to_too_much_is_refused(ledger):
    ledger.record_revenue("clinics", 2**63 - 11)
    for call in (
        lambda: ledger.record("clinics", 1, {"Ada": 1.0}, revenue=1),
        lambda: ledger.record_revenue("clinics", 1),
        lambda: ledger.settle("clinics", revenue=1),
    ):
        assert "2^63 − 1" in refused(ledger, call)
    assert sum(ledger.settle("clinics").payouts.values()) == 2**63 - 1


@pytest.mark.parametrize(
    "credit", [float("nan"), float("inf"), -float("inf"), 1e301, 10**400, "0.5", None, 1j, [0.5]], ids=lambda one: repr(one)[:8]
)
def test_credit_that_is_no_number_is_refused(ledger, credit):
    refused(ledger, lambda: ledger.record("clinics", 1, {"Ada": credit, "Bo": 1.0}), ValueError, TypeError)


@pytest.mark.parametrize("number", [-1, 2**63, 10**400, 1.0, "1", None, True], ids=lambda one: repr(one)[:8])
def test_rounds_that_are_no_number_are_refused(ledger, number):
    refused(ledger, lambda: ledger.record("clinics", number, {"Ada": 1.0}), ValueError, TypeError)


# Files


def calls(path: Path) -> dict[str, Callable[[], object]]:
    """All that can be asked of a ledger."""

    def asked(of: Callable[[Ledger], object], read_only: bool = False) -> Callable[[], object]:
        def ask() -> object:
            with Ledger(path, read_only=read_only) as ledger:
                return of(ledger)

        return ask

    return {
        "init": asked(lambda ledger: ledger.init("clinics", [*MEMBERS, "Cy"])),
        "record": asked(lambda ledger: ledger.record("clinics", 1, {"Ada": 1.0})),
        "record_revenue": asked(lambda ledger: ledger.record_revenue("clinics", 5)),
        "settle": asked(lambda ledger: ledger.settle("clinics")),
        "cooperatives": asked(lambda ledger: ledger.cooperatives()),
        "head": asked(lambda ledger: ledger.head("clinics")),
        "entries": asked(lambda ledger: list(ledger.entries("clinics"))),
        "statement": asked(lambda ledger: ledger.statement("clinics", "Ada")),
        "verify": asked(lambda ledger: ledger.verify()),
        "verify, read-only": asked(lambda ledger: ledger.verify(), read_only=True),
    }


WRITERS = ("init", "record", "record_revenue", "settle")


def at_rest(ledger: Ledger, path: Path) -> bytes:
    """The file once all of the write-ahead log is in it."""
    ledger.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return path.read_bytes()


def test_a_ledger_of_a_newer_version_is_left_alone(content, tmp_path):
    path = tmp_path / "newer.db"
    path.write_bytes(content)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("INSERT INTO ledger_version SELECT 99, at, hash FROM ledger_version LIMIT 1")
    before = path.read_bytes()
    for name, call in calls(path).items():
        said = error_of(call)
        assert "version 99" in said, name
        assert "upgrade proxycoop" in said, name
        assert str(path) in said, name
    assert path.read_bytes() == before


BROKEN: dict[str, Callable[[bytes], bytes]] = {
    "text": lambda _: b"round,member,credit\n" * 400,
    "noise": lambda _: bytes(range(256)) * 32,
    "a header and nothing else": lambda whole: whole[:100],
    "half": lambda whole: whole[: len(whole) // 2],
    "nothing where tables were": lambda whole: whole[:4096] + bytes(len(whole) - 4096),
    "another database": lambda _: other_database(),
}


def other_database() -> bytes:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE rounds (what TEXT)")
        return connection.serialize()


@pytest.mark.parametrize("broken", BROKEN)
def test_files_that_are_no_ledger_are_named_and_left_alone(content, tmp_path, broken):
    content = BROKEN[broken](content)
    path = tmp_path / "broken.db"
    for name, call in calls(path).items():
        path.write_bytes(content)
        said = damage_of(call)
        assert str(path) in said, name
        assert path.read_bytes() == content, name
        for beside in ("-wal", "-shm"):
            path.with_name(path.name + beside).unlink(missing_ok=True)


def test_a_folder_is_no_ledger(tmp_path):
    for name, call in calls(tmp_path).items():
        assert str(tmp_path) in error_of(call), name


@pytest.mark.parametrize("folder_too", [False, True], ids=["file", "file and folder"])
def test_a_read_only_ledger_refuses_writers_and_serves_readers(open_folder, folder_too):
    """As another user, since permissions do not bind root."""
    path = open_folder / "ledger.db"
    with Ledger(path) as ledger:
        ledger.init("clinics", MEMBERS)
        ledger.record("clinics", 0, {"Ada": 0.5}, revenue=10)
        before = at_rest(ledger, path)
    path.chmod(stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH)
    if folder_too:
        open_folder.chmod(0o555)

    def body() -> str:
        become_nobody()
        said = [error_of(calls(path)[name]) for name in WRITERS]
        with Ledger(path, read_only=True) as ledger:
            rows = len(list(ledger.entries("clinics")))
            return "\n".join([*said, f"verified: {ledger.verify().ok}", f"{rows} rows"])

    *said, verified, rows = apart(body).splitlines()
    assert (verified, rows) == ("verified: True", "6 rows")
    assert len(said) == len(WRITERS)
    assert all(str(path) in one and ("read-only" in one or "cannot be written" in one) for one in said), said
    assert path.read_bytes() == before


def test_a_folder_that_may_not_be_written_gets_no_ledger(open_folder):
    open_folder.chmod(0o555)

    def body() -> str:
        become_nobody()
        return error_of(lambda: Ledger(open_folder / "ledger.db").init("clinics", MEMBERS))

    assert f"{open_folder}/ledger.db" in apart(body)
    assert list(open_folder.iterdir()) == []


# Full disks


def record_until_refused(ledger: Ledger) -> tuple[int, str]:
    """How many rounds were acknowledged, and what was said to the next."""
    for t in range(100_000):
        try:
            ledger.record("clinics", t, {"Ada": t / 7, "Bo": 1.0}, revenue=t, key=f"round {t}")
        except ValueError as error:
            return t, one_line(error, ledger)
    raise AssertionError("the disk does not fill")


def require_just(ledger: Ledger, n_rounds: int) -> None:
    """Just so many rounds are there, whole."""
    assert ledger.verify().ok
    entries = list(ledger.entries("clinics"))
    assert [entry.fields["round"] for entry in entries if entry.table == "rounds"] == list(range(n_rounds))
    assert len(entries) == 3 + sum(3 + (t > 0) for t in range(n_rounds))


def resume(ledger: Ledger, n_rounds: int) -> None:
    """What was refused is done again, and counted once; what was acknowledged is known."""
    assert ledger.record("clinics", n_rounds - 1, {"Ada": (n_rounds - 1) / 7, "Bo": 1.0}, n_rounds - 1, f"round {n_rounds - 1}").repeated
    assert not ledger.record("clinics", n_rounds, {"Ada": n_rounds / 7, "Bo": 1.0}, revenue=n_rounds, key=f"round {n_rounds}").repeated
    assert ledger.settle("clinics").revenue == sum(range(n_rounds + 1))
    assert ledger.verify().ok


def test_a_full_disk_is_said_in_one_line_and_loses_nothing(small_disk):
    path = small_disk / "ledger.db"
    with Ledger(path) as ledger:
        ledger.init("clinics", MEMBERS)
        ballast = small_disk / "ballast"
        ballast.write_bytes(bytes(300_000))
        n_rounds, said = record_until_refused(ledger)
        assert "disk is full" in said
        require_just(ledger, n_rounds)
        ballast.unlink()
        require_just(ledger, n_rounds)
        resume(ledger, n_rounds)
    with Ledger(path) as ledger:
        assert ledger.verify().ok


def test_a_settlement_that_finds_the_disk_full_is_paid_once_when_it_is_done_again(small_disk):
    with Ledger(small_disk / "ledger.db") as ledger:
        ledger.init("clinics", MEMBERS)
        ballast = small_disk / "ballast"
        ballast.write_bytes(bytes(300_000))
        paid = 0
        said = ""
        while not said:
            try:
                paid += sum(ledger.settle("clinics", revenue=7, key=f"settlement {paid}").payouts.values())
            except ValueError as error:
                said = one_line(error, ledger)
        assert "disk is full" in said
        ballast.unlink()
        assert sum(entry.fields["amount"] for entry in ledger.entries("clinics") if entry.table == "payouts") == paid
        assert ledger.settle("clinics", revenue=7, key=f"settlement {paid - 7}").repeated
        again = [ledger.settle("clinics", revenue=7, key=f"settlement {paid}") for _ in range(2)]
        assert [one.repeated for one in again] == [False, True]
        assert ledger.statement("clinics", "Ada").paid + ledger.statement("clinics", "Bo").paid == paid + 7
        assert ledger.verify().ok


def test_a_disk_that_is_full_from_the_start_gets_no_ledger(small_disk):
    ballast = small_disk / "ballast"
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        ballast.write_bytes(bytes(2_000_000))
    path = small_disk / "ledger.db"
    with Ledger(path) as ledger:
        assert "disk is full" in error_of(lambda: ledger.init("clinics", MEMBERS))
        ballast.unlink()
        ledger.init("clinics", MEMBERS)
        assert ledger.verify().ok


def test_a_file_that_may_not_grow_is_said_in_one_line_and_loses_nothing(tmp_path):
    """A limit on the size of files, in a process of its own: works where nothing can be mounted."""

    def body() -> str:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        with Ledger(tmp_path / "ledger.db") as ledger:
            ledger.init("clinics", MEMBERS)
            resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, hard))
            n_rounds, said = record_until_refused(ledger)
            require_just(ledger, n_rounds)
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
            require_just(ledger, n_rounds)
            resume(ledger, n_rounds)
        return f"{n_rounds} rounds, then: {said}"

    said = apart(body)
    assert "rounds, then: ledger" in said
    assert "whether it was written is not known" in said
