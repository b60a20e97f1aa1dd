"""Rows are tampered with: see ``ledger.py``."""

from __future__ import annotations

import contextlib
import math
import random
import sqlite3
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from cases import MEMBERS, POLICY, credited, database, driver, operate
from tqdm import tqdm

from proxycoop.credit.ledger import Ledger
from proxycoop.credit.ledger.chain import CHAINED, link
from proxycoop.credit.ledger.verification import Problem


@dataclass
class Tampering:
    """What came of changes behind the ledger's back.

    Attributes:
        rows: Of the ledger.
        speed: Rows verified a second.
        named: Values changed for which verification named the row; ``refused``: that the database itself did not take.
        columns: In how many columns.
        by_chain: Bytes changed in the file that verification found in rows; ``by_database``: in the database; ``harmless``: that changed no
            row's content.
        cut: Cooperatives whose last rows were deleted; how many of them were found by the chain alone, and by a head that was kept.
        forged: The same of those of which all was rewritten behind a changed row.
        problems: What was let through, one line each.
    """

    rows: int = 0
    speed: float = 0.0
    named: int = 0
    refused: int = 0
    columns: int = 0
    by_chain: int = 0
    by_database: int = 0
    harmless: int = 0
    cut: tuple[int, int, int] = (0, 0, 0)
    forged: tuple[int, int, int] = (0, 0, 0)
    problems: list[str] = field(default_factory=list)


SMALL = [f"clinics {i}" for i in range(10)]
OWNED = {table: ("id" if table == "cooperatives" else "cooperative_id") for table in CHAINED}


def fill(url: str, rows: int) -> None:
    """A large cooperative of so many rows, and small ones."""
    with Ledger(url) as ledger:
        ledger.init("clinics", MEMBERS, policy=POLICY)
        bar, n = tqdm(total=rows, unit=" rows", desc="writing"), 0
        while (head := ledger.head("clinics")).seq < rows or n % 6 != 5:  # the last operation is a round
            operate(ledger, "clinics", n)
            bar.update(min(ledger.head("clinics").seq, rows) - min(head.seq, rows))
            n += 1
        bar.close()
        ledger.record("clinics", n, credited(n), decisions={"members": {member: {"offered": [0]} for member in MEMBERS}})
        for name in SMALL:
            ledger.init(name, MEMBERS[:3], policy=POLICY)
            for n in range(7):
                if n == 5:
                    ledger.settle(name, revenue=n, key=f"settlement {n}")
                else:
                    some, decided = dict(list(credited(n).items())[:3]), {"gamma": 1.0 / n} if n else None
                    ledger.record(name, n, some, revenue=100, key=f"round {n}" if n % 2 else None, decisions=decided)


class Burglar:
    """Changes rows of a database without asking the ledger."""

    def __init__(self, url: str) -> None:
        self._engine = sa.create_engine(driver(url), poolclass=sa.NullPool)
        self._sqlite = self._engine.dialect.name == "sqlite"
        self.columns = {table: [one["name"] for one in sa.inspect(self._engine).get_columns(table)] for table in CHAINED}

    @contextmanager
    def inside(self) -> Iterator[sa.Connection]:
        """A connection that no trigger, foreign key or check of SQLite's holds back; afterwards all triggers are there again."""
        with self._engine.connect() as connection:
            if not self._sqlite:
                with connection.begin():
                    connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
                    yield connection
                return
            for pragma in ("ignore_check_constraints = ON", "foreign_keys = OFF", "synchronous = OFF"):
                connection.exec_driver_sql(f"PRAGMA {pragma}")
            connection.exec_driver_sql("BEGIN IMMEDIATE")  # leaving without a commit rolls all of it back
            triggers = connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").all()
            for name, _ in triggers:
                connection.exec_driver_sql(f"DROP TRIGGER {name}")
            yield connection
            for _, sql in triggers:
                connection.exec_driver_sql(sql)
            connection.commit()

    def rows(self, table: str, cooperative: str) -> list[dict[str, Any]]:
        """All rows of a table, of one cooperative."""
        own = f"SELECT * FROM {table} WHERE {OWNED[table]} = (SELECT id FROM cooperatives WHERE name = :name) ORDER BY seq"
        with self._engine.connect() as connection:
            return [dict(row) for row in connection.execute(sa.text(own), {"name": cooperative}).mappings()]

    def change(self, table: str, row: Mapping[str, Any], column: str, value: object) -> None:
        """Give a row another value."""
        with self.inside() as connection:
            words = f"UPDATE {table} SET {column} = :value WHERE {OWNED[table]} = :own AND seq = :seq"
            done = connection.execute(sa.text(words), {"value": value, "own": row[OWNED[table]], "seq": row["seq"]})
            assert done.rowcount == 1, f"{table}.{column}"


def others(value: object, draw: random.Random) -> list[Any]:
    """Values that are next to one: one bit, one letter, one unit away; more than one, for the case that the database refuses the first."""
    if value is None:
        return [0, "x"]
    if isinstance(value, int):
        return [value ^ 1 << draw.randrange(12), value + 1, value + 1_000_003]
    if isinstance(value, float):
        return [math.nextafter(value, draw.choice([-math.inf, math.inf])), value + 1]
    text, places = str(value), draw.sample(range(len(str(value))), 2)
    return [text[:at] + chr(ord(text[at]) ^ bit) + text[at + 1 :] for bit in (1, 2) for at in places]


def change_values(url: str, trials: int, draw: random.Random, result: Tampering) -> None:
    """Every column of every table in the large cooperative, and random ones in the small."""
    burglar = Burglar(url)
    places = [(table, column) for table, columns in burglar.columns.items() for column in columns]
    result.columns = len(places)
    whole = [("clinics", table, column) for table, column in places]
    some = [(draw.choice(SMALL), *draw.choice(places)) for _ in range(max(trials - len(whole), 0))]
    with Ledger(url, read_only=True) as ledger:
        for cooperative, table, column in tqdm(whole + some, unit=" values"):
            row = draw.choice(burglar.rows(table, cooperative))
            for value in others(row[column], draw):
                try:
                    burglar.change(table, row, column, value)
                except sa.exc.DBAPIError:  # a type, a check or a key that holds without triggers too
                    continue
                break
            else:
                result.refused += 1
                continue
            changed = {**row, column: value}
            wrong = verdict(ledger, None if table == "cooperatives" or column == "cooperative_id" else cooperative)
            if any(names_row(one, table, row, changed) for one in wrong[:3]):
                result.named += 1
            else:
                said = f"{wrong[0]}" if wrong else "nothing"
                result.problems.append(
                    f"{cooperative}, {table}, row {row['seq']}, {column} {row[column]!r} → {value!r}: verify said {said}"
                )
            burglar.change(table, changed, column, row[column])
        result.problems += [f"after all was undone: {one}" for one in ledger.verify().problems]


def names_row(problem: Problem, table: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether a problem names a row: where it stands, or where it is missing; by its cooperative if that is what changed its number."""
    if problem.table == table and problem.seq in (before["seq"], after["seq"]):
        return True
    if table == "cooperatives" and after["id"] != before["id"]:
        return problem.cooperative == str(before["name"])
    return f"row {before['seq']} before it is missing" in problem.what


def verdict(ledger: Ledger, cooperative: str | None) -> list[Problem]:
    """What verification says; that it fails itself is said as a problem of no row."""
    try:
        return ledger.verify(cooperative).problems
    except Exception as error:
        return [Problem(cooperative, None, None, f"verification failed: {''.join(traceback.format_exception(error)[-2:])}")]


def contents(path: Path) -> list[Any] | None:
    """All rows of a SQLite file, as bytes where they are text; nothing if it cannot be read."""
    connection = sqlite3.connect(path)
    connection.text_factory = bytes
    try:
        return [connection.execute(f"SELECT * FROM {table}").fetchall() for table in (*CHAINED, "heads", "ledger_version")]
    except (sqlite3.Error, UnicodeDecodeError):  # an error may cite what is no text
        return None
    finally:
        connection.close()


def change_bytes(url: str, trials: int, rows: int, draw: random.Random, result: Tampering) -> None:
    """Single bytes of a SQLite file: half of them anywhere, half of them in and around rows."""
    with database(url) as own:
        fill(own, rows)
        path = Path(own.removeprefix("sqlite:///"))
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        whole, original = path.read_bytes(), contents(path)
        hashes = [row["hash"].encode() for table in CHAINED for row in Burglar(own).rows(table, "clinics")]
        for trial in tqdm(range(trials), unit=" bytes"):
            at = whole.index(draw.choice(hashes)) + draw.randrange(-64, 64) if trial % 2 else draw.randrange(len(whole))
            copy = path.with_name(f"copy-{trial}.db")
            copy.write_bytes(whole[:at] + bytes([whole[at] ^ draw.randrange(1, 256)]) + whole[at + 1 :])
            try:
                with Ledger(copy, read_only=True) as ledger:
                    wrong = ledger.verify().problems
                in_rows, found = any(one.seq is not None for one in wrong), bool(wrong)
            except ValueError:
                in_rows, found = False, True
            except Exception as error:
                in_rows, found = False, True
                result.problems.append(
                    f"byte {at} of SQLite's file: verification failed: {''.join(traceback.format_exception(error)[-2:])}"
                )
            if found:
                result.by_chain += in_rows
                result.by_database += not in_rows
            elif contents(copy) == original:
                result.harmless += 1
            else:
                result.problems.append(f"byte {at} of SQLite's file changed rows, and verify said nothing")
            for file in path.parent.glob(f"{copy.name}*"):
                file.unlink()


def cut(burglar: Burglar, ledger: Ledger, name: str, draw: random.Random) -> None:
    """Delete the last rows of a cooperative, and set its head back."""
    entries = list(ledger.entries(name))
    ends = [i for i, entry in enumerate(entries) if entry.table == "rounds"]
    keep = draw.choice(ends[-2:])
    own = {"own": burglar.rows("cooperatives", name)[0]["id"], "keep": keep}
    with burglar.inside() as connection:
        for table in reversed(CHAINED[1:]):
            connection.execute(sa.text(f"DELETE FROM {table} WHERE cooperative_id = :own AND seq > :keep"), own)
        revenue = sum(int(str(entry.fields["amount"])) for entry in entries[:keep] if entry.table == "revenue")
        words = "UPDATE heads SET seq = :keep, hash = :hash, revenue = :revenue WHERE cooperative_id = :own"
        connection.execute(sa.text(words), {**own, "hash": entries[keep - 1].hash, "revenue": revenue})


def forge(burglar: Burglar, ledger: Ledger, name: str, draw: random.Random) -> None:
    """Change a row that settled nothing yet, and rewrite all hashes behind it, and the head."""
    entries = list(ledger.entries(name))
    last = max(i for i, entry in enumerate(entries) if entry.table == "payouts")
    first = draw.choice([i for i, entry in enumerate(entries) if i > last and entry.table == "credits"])
    own, tip = burglar.rows("cooperatives", name)[0]["id"], entries[first - 1].hash
    with burglar.inside() as connection:
        for i, entry in enumerate(entries[first:]):
            fields = dict(entry.fields)
            if i == 0:
                fields["credit"] = float(str(fields["credit"])) + 0.125
                words = "UPDATE credits SET credit = :credit WHERE cooperative_id = :own AND seq = :seq"
                connection.execute(sa.text(words), {"credit": fields["credit"], "own": own, "seq": entry.seq})
            tip = link(tip, entry.table, fields)
            words = f"UPDATE {entry.table} SET hash = :hash WHERE cooperative_id = :own AND seq = :seq"
            connection.execute(sa.text(words), {"hash": tip, "own": own, "seq": entry.seq})
        connection.execute(sa.text("UPDATE heads SET hash = :hash WHERE cooperative_id = :own"), {"hash": tip, "own": own})


def change_the_end(url: str, draw: random.Random, result: Tampering) -> None:
    """What a chain cannot know: half of the small cooperatives are cut, half are forged."""
    burglar = Burglar(url)
    with Ledger(url) as ledger:
        for i, name in enumerate(SMALL):
            kept = ledger.head(name)
            (cut if i % 2 else forge)(burglar, ledger, name, draw)
            alone, against = ledger.verify(name).ok, ledger.verify(name, expected={name: kept}).ok
            before = result.cut if i % 2 else result.forged
            after = (before[0] + 1, before[1] + (not alone), before[2] + (not against))
            if i % 2:
                result.cut = after
            else:
                result.forged = after
            if against:
                result.problems.append(f"{name}: {'last rows deleted' if i % 2 else 'rewritten'}, and the head that was kept did not tell")


def tamper(url: str, rows: int, trials: int, n_bytes: int, seed: int = 0) -> Tampering:
    """Change a ledger of so many rows in every way: values, bytes of its file, and its end."""
    draw, result = random.Random(seed), Tampering()
    with database(url) as own:
        fill(own, rows)
        with Ledger(own) as ledger:
            began = time.perf_counter()
            verification = ledger.verify()
            result.rows = sum(verification.rows.values())
            result.speed = result.rows / (time.perf_counter() - began)
            result.problems += map(str, verification.problems)
        change_values(own, trials, draw, result)
        change_the_end(own, draw, result)
    if url.startswith("sqlite:"):
        change_bytes(url, n_bytes, min(rows, 1000), draw, result)
    return result


def table_of_tampering(results: Mapping[str, Tampering]) -> str:
    """One column a database."""
    lines = ["| | " + " | ".join(results) + " |", "|---|" + "---:|" * len(results)]

    def add(what: str, of: Callable[[Tampering], str]) -> None:
        lines.append(f"| {what} | " + " | ".join(map(of, results.values())) + " |")

    add("rows", lambda one: f"{one.rows:,}")
    add("rows verified a second", lambda one: f"{one.speed:,.0f}")
    add("columns in which values were changed by a unit, a letter or a bit", lambda one: f"{one.columns}")
    add("values changed, and verify named the row", lambda one: f"{one.named:,}")
    add("values that the database did not take, even without triggers", lambda one: f"{one.refused:,}")
    add("bytes of the file changed, found in rows", lambda one: f"{one.by_chain:,}" if one.by_chain else "–")
    add("bytes of the file changed, found as damage to the database", lambda one: f"{one.by_database:,}" if one.by_chain else "–")
    add("bytes of the file changed that change no row (free space, and the like)", lambda one: f"{one.harmless:,}" if one.by_chain else "–")
    add("last rows deleted: found by the chain alone", lambda one: "{1} of {0}".format(*one.cut))
    add("last rows deleted: found by a head that was kept", lambda one: "{2} of {0}".format(*one.cut))
    add("rewritten with all hashes behind: found by the chain alone", lambda one: "{1} of {0}".format(*one.forged))
    add("rewritten with all hashes behind: found by a head that was kept", lambda one: "{2} of {0}".format(*one.forged))
    add("problems: changes that were let through", lambda one: f"{len(one.problems):,}")
    return "\n".join(lines) + "\n"
