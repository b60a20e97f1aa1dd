"""Several processes write at the same time: see ``ledger.py``."""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from cases import FORK, MEMBERS, POLICY, Row, credited, database, rows_of, verified
from tqdm import tqdm

from proxycoop.credit.ledger import Ledger


@dataclass
class Work:
    """What a process did.

    Attributes:
        new: Rounds that it was told are new; ``repeated``: that were there already.
        settlements: How many it was given a receipt for.
        errors: What calls failed with.
        seconds: That it took; of these it computed for ``cpu``, waited for its ``turn``, and spent in ``commits``, where the disk is.
    """

    new: list[int] = field(default_factory=list)
    repeated: list[int] = field(default_factory=list)
    settlements: int = 0
    errors: list[str] = field(default_factory=list)
    seconds: float = 0.0
    cpu: float = 0.0
    turn: float = 0.0
    commits: float = 0.0


@dataclass(frozen=True)
class Race:
    """What came of writers.

    Attributes:
        work: By process.
        problems: One line each.
        verification: Seconds that it took to verify what was written.
        rows: How many rows that was.
    """

    work: Sequence[Work]
    problems: Sequence[str]
    verification: float
    rows: int

    @property
    def speed(self) -> float:
        """New rounds a second, of all processes together."""
        return sum(len(one.new) for one in self.work) / max(one.seconds for one in self.work)

    @property
    def cpu(self) -> float:
        """Seconds of computing a round."""
        return sum(one.cpu for one in self.work) / max(sum(len(one.new) for one in self.work), 1)

    def share(self, of: str) -> float:
        """Part of the writers' time."""
        return float(sum(getattr(one, of) for one in self.work)) / sum(one.seconds for one in self.work)


SHARED = 10  # every so manieth round is one that two processes record
SETTLED = 200  # every so manieth round is followed by a settlement


def race(url: str, processes: int, seconds: float, members: int, together: bool = True, safe: bool = True) -> Race:
    """Let processes write at once.

    Args:
        url: Where a new database is made.
        processes: How many.
        seconds: For how long.
        members: Of a round.
        together: To one cooperative; otherwise each to its own.
        safe: Wait for the disk; otherwise acknowledge what a power cut would lose, to see what waiting costs.
    """
    names = [f"clinics {p}" for p in range(1 if together else processes)]
    with database(url) as own:
        with Ledger(own) as ledger:
            for name in names:
                ledger.init(name, MEMBERS[:members], policy=POLICY)
        barrier = FORK.Barrier(processes)
        queue: Any = FORK.SimpleQueue()
        arguments = [(own, names[p % len(names)], p, processes, seconds, members, together, safe, barrier, queue) for p in range(processes)]
        running = [FORK.Process(target=racer, args=one) for one in arguments]
        for process in running:
            process.start()
        told = dict(queue.get() for _ in tqdm(running, unit=" writers"))
        work = [Work(**told[p]) for p in range(processes)]
        for process in running:
            process.join()
            process.close()
        with Ledger(own) as ledger:
            began = time.perf_counter()
            problems = verified(ledger)
            elapsed = time.perf_counter() - began
            rows = {name: rows_of(ledger, name) for name in names}
    problems += [error for one in work for error in one.errors]
    for name in names:
        problems += after_a_race(rows[name], work if together else [one for one, p in zip(work, names, strict=True) if p == name], members)
    return Race(work, problems, elapsed, sum(map(len, rows.values())))


def racer(
    url: str, cooperative: str, p: int, processes: int, seconds: float, members: int, together: bool, safe: bool, barrier: Any, queue: Any
) -> None:
    """One process."""
    work = Work()
    if not safe:
        sa.event.listen(sa.Pool, "checkout", careless)
    clock = Clock(work)
    with Ledger(url) as ledger:
        ledger.cooperative(cooperative)
        barrier.wait()
        clock.listen()
        began, cpu = time.perf_counter(), time.process_time()
        until, n = began + seconds, 0
        while time.perf_counter() < until:
            n += 1
            # even numbers are a process's own, odd ones those of the two of a pair
            t = 2 * (n * processes + p // 2) + 1 if together and n % SHARED == 0 else 2 * (n * processes + p)
            clock.called = time.perf_counter()
            try:
                receipt = ledger.record(cooperative, t, dict(list(credited(t).items())[:members]), revenue=t % 3)
                (work.repeated if receipt.repeated else work.new).append(t)
                if n % SETTLED == 0:
                    ledger.settle(cooperative, revenue=1000, key=f"{p} {n}")
                    work.settlements += 1
            except Exception as error:
                work.errors.append(f"{type(error).__name__}: {error}")
                break
        work.cpu, work.seconds = time.process_time() - cpu, time.perf_counter() - began
    queue.put((p, vars(work)))


class Clock:
    """Notes what the calls of a process spend waiting for their turn, and committing."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.called: float | None = None
        self._asked = self._commits = 0.0

    def listen(self) -> None:
        """Begin."""
        sa.event.listen(sa.Engine, "before_cursor_execute", self._before)
        sa.event.listen(sa.Engine, "after_cursor_execute", self._after)
        sa.event.listen(sa.Engine, "commit", self._commit)
        sa.event.listen(sa.Pool, "checkin", self._checkin)

    def _before(self, _c: object, _u: object, sql: str, *_: object) -> None:
        self._asked = time.perf_counter()
        if self.called is not None and not sql.startswith("BEGIN"):  # whoever could begin has its turn, in SQLite
            self.work.turn += self._asked - self.called
            self.called = None

    def _after(self, _c: object, _u: object, sql: str, *_: object) -> None:
        if "FOR UPDATE" in sql:  # this is where PostgreSQL lets a writer wait
            self.work.turn += time.perf_counter() - self._asked

    def _commit(self, _: object) -> None:
        self._commits = time.perf_counter()

    def _checkin(self, *_: object) -> None:
        if self._commits:
            self.work.commits += time.perf_counter() - self._commits
        self._commits = 0.0


def careless(connection: Any, record: Any, _: object) -> None:
    """Let a connection not wait for the disk."""
    if not record.info.get("careless"):
        cursor = connection.cursor()
        cursor.execute("PRAGMA synchronous = OFF" if isinstance(connection, sqlite3.Connection) else "SET synchronous_commit TO off")
        cursor.close()
        connection.commit()
        record.info["careless"] = True


def after_a_race(rows: Sequence[Row], work: Sequence[Work], members: int) -> list[str]:
    """What is wrong with a cooperative's rows, after what its writers were told."""
    problems = []
    told = Counter(t for one in work for t in one.new)
    found = Counter(row["round"] for table, row in rows if table == "rounds")
    problems += [
        f"round {t} was new to {told[t]} writers and is there {found[t]} times" for t in told | found if not told[t] == found[t] == 1
    ]
    problems += [f"round {t} was said to be there and is not" for one in work for t in one.repeated if not found[t]]
    by_round: dict[Any, list[Any]] = {}
    for table, row in rows:
        if table == "credits":
            by_round.setdefault(row["round"], []).append(row["credit"])
    problems += [f"round {t} has others' credits" for t in found if by_round.get(t) != list(credited(t).values())[:members]]
    settlements = [row for table, row in rows if table == "settlements"]
    if len(settlements) != sum(one.settlements for one in work):
        problems.append(f"{len(settlements)} settlements, {sum(one.settlements for one in work)} acknowledged")
    paid: Counter[Any] = Counter()
    for table, row in rows:
        if table == "payouts":
            paid[row["settlement"]] += row["amount"]
    reserve = 0
    for row in settlements:
        if paid[row["number"]] + row["reserve"] - reserve != row["revenue"]:
            problems.append(
                f"settlement {row['number']} paid out {paid[row['number']]} of {row['revenue']}, {row['reserve'] - reserve} kept back"
            )
        reserve = row["reserve"]
    earned = sum(row["amount"] for table, row in rows if table == "revenue")
    due = sum(t % 3 for t in found) + 1000 * len(settlements)
    return problems if earned == due else [*problems, f"revenue of {earned}, {due} acknowledged"]


RACES: Mapping[str, Mapping[str, Any]] = {
    "to one cooperative": {},
    "each to its own": {"together": False},
    "one writer alone": {"processes": 1},
    "to one cooperative, not waiting for the disk": {"safe": False},
    "one writer alone, not waiting for the disk": {"processes": 1, "safe": False},
}


def table_of_races(results: Mapping[tuple[str, str], Race], processes: int) -> str:
    """How fast, and below that what was written; one row a database and way of writing."""
    fast = ["| database | writers | rounds a second | CPU, ms a round | time waiting for one's turn | time in commits |"]
    fast.append("|---|---|---:|---:|---:|---:|")
    right = ["| database | writers | rounds | of these by two | settlements | rows | rows verified a second | problems |"]
    right.append("|---|---|---:|---:|---:|---:|---:|---:|")
    for (name, way), one in results.items():
        who = f"| {name} | {way if RACES[way].get('processes') == 1 else f'{processes} {way}'} |"
        fast.append(f"{who} {one.speed:,.0f} | {1000 * one.cpu:.2f} | {one.share('turn'):.0%} | {one.share('commits'):.0%} |")
        rounds, twice = (sum(len(getattr(work, of)) for work in one.work) for of in ("new", "repeated"))
        counts = [
            rounds,
            twice,
            sum(work.settlements for work in one.work),
            one.rows,
            round(one.rows / one.verification),
            len(one.problems),
        ]
        right.append(f"{who} {' | '.join(f'{count:,}' for count in counts)} |")
    return "\n".join([*fast, "", *right]) + "\n"
