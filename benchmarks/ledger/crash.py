"""Writing processes are killed: see ``ledger.py``."""

from __future__ import annotations

import os
import random
import select
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa
from cases import FORK, MEMBERS, POLICY, Row, credited, database, driver, operate, rows_of, verified
from tqdm import tqdm

from proxycoop.credit import Accounts
from proxycoop.credit.ledger import Ledger

NAME = "clinics"


class Plan:
    """The rows that operations must have left, computed without the ledger."""

    def __init__(self) -> None:
        self._accounts = Accounts(POLICY, len(MEMBERS))
        self._revenue, self._settlements = 0, 0
        self._rows: list[list[Row]] = []

    def rows(self, n: int) -> list[Row]:
        """Of the ``n``-th operation."""
        while len(self._rows) <= n:
            self._rows.append(self._next(len(self._rows)))
        return self._rows[n]

    def _next(self, n: int) -> list[Row]:
        if n % 6 == 3:
            return [self._earned(1000 + n, None, f"revenue {n}")]
        if n % 6 != 5:
            given = list(credited(n).values())
            self._accounts.credit([given], n)
            rows: list[Row] = [("rounds", {"round": n, "key": f"round {n}" if n % 4 else None, "n_credits": len(given)})]
            rows += [("credits", {"round": n, "position": i, "credit": one}) for i, one in enumerate(given)]
            return [*rows, self._earned(100 + n, n, None)] if n % 2 else rows
        rows = [self._earned(n, None, f"settlement {n}")]
        revenue, self._revenue, self._settlements = self._revenue, 0, self._settlements + 1
        payouts = self._accounts.settle([revenue]).payouts[0]
        end = {"reserve": self._accounts.reserve[0], "now": self._accounts.now, "key": f"settlement {n}", "n_payouts": len(MEMBERS)}
        rows.append(("settlements", {"number": self._settlements, "revenue": revenue, **end}))
        for i, payout in enumerate(payouts):
            standing, paid = float(self._accounts.standing[0, i]), self._accounts.paid[0, i]
            rows.append(("payouts", {"settlement": self._settlements, "position": i, "amount": payout, "standing": standing, "paid": paid}))
        return rows

    def _earned(self, amount: int, t: int | None, key: str | None) -> Row:
        self._revenue += amount
        return "revenue", {"amount": amount, "round": t, "key": key}


def after_a_crash(found: Sequence[Row], acknowledged: int, plan: Plan) -> tuple[bool, list[str]]:
    """Whether the operation under way was done after all, and what is wrong with the rows.

    Args:
        found: The cooperative's rows.
        acknowledged: How many operations were.
        plan: What they must have left.
    """
    due = [row for n in range(acknowledged) for row in plan.rows(n)]
    if list(found) == due:
        return False, []
    if list(found) == due + plan.rows(acknowledged):
        return True, []
    where = next((i for i, pair in enumerate(zip(found, due, strict=False)) if pair[0] != pair[1]), min(len(found), len(due)))
    what = "lost" if where >= len(found) else "not whole" if where >= len(due) else f"another: {found[where]}"
    return False, [f"{len(found)} rows, {len(due)} acknowledged; behind row {where} of them the next is {what}"]


@dataclass
class Crashes:
    """What came of the kills.

    Attributes:
        places: Where they hit.
        done: Operations under way that were done after all; ``undone``: that were not.
        acknowledged: Operations by kind.
        problems: One line each.
        ledgers: How many were filled.
    """

    places: Counter[str] = field(default_factory=Counter)
    done: int = 0
    undone: int = 0
    acknowledged: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    ledgers: int = 0


PLACES = {
    b"-": "before or between transactions",
    b"B": "in a transaction, before it wrote",
    b"W": "in a transaction that had written",
    b"C": "while it committed",
}


def writer(url: str, first: int, pipe: int, statement: int | None, after: bool) -> None:
    """Writes until it is killed, and tells the pipe where it is.

    Args:
        url: The database.
        first: The operation to begin with.
        pipe: Where to write.
        statement: At which of its SQL statements that write it kills itself; at none if ``None``.
        after: Right after that statement and not before it.
    """
    count = 0

    def tell(*words: object) -> None:
        os.write(pipe, " ".join(map(str, words)).encode() + b"\n")

    def before_statement(_c: object, _u: object, sql: str, *_: object) -> None:
        nonlocal count
        if sql.lstrip().startswith(("INSERT", "UPDATE", "CREATE")):
            count += 1
            if count == statement and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            tell("W")

    def after_statement(*_: object) -> None:
        if count == statement:
            os.kill(os.getpid(), signal.SIGKILL)

    sa.event.listen(sa.Engine, "begin", lambda _: tell("B"))
    sa.event.listen(sa.Engine, "commit", lambda _: tell("C"))
    sa.event.listen(sa.Engine, "rollback", lambda _: tell("-"))
    sa.event.listen(sa.Engine, "before_cursor_execute", before_statement)
    sa.event.listen(sa.Engine, "after_cursor_execute", after_statement)
    try:
        with Ledger(url) as ledger:
            ledger.init(NAME, MEMBERS, policy=POLICY)
            for n in range(first, sys.maxsize):
                receipt = operate(ledger, NAME, n)
                tell("A", n, receipt.seq, receipt.hash, int(receipt.repeated))
    except BaseException:
        tell("E", traceback.format_exc(limit=-3).replace("\n", " | "))
    os._exit(1)


def life(url: str, first: int, draw: random.Random) -> list[list[bytes]]:
    """What a writer told until it was killed."""
    read, write = os.pipe()
    way = draw.choice(["clock", "statement", "commit"])
    statement = draw.randrange(1, 24) if way == "statement" else None
    process = FORK.Process(target=writer, args=(url, first, write, statement, draw.random() < 0.5))
    process.start()
    os.close(write)
    told = b""
    if way == "clock":
        select.select([], [], [], draw.uniform(0, 0.15))
    elif way == "commit":
        commits = draw.randrange(1, 8)
        while told.count(b"C\n") < commits and (more := os.read(read, 65536)):
            told += more
        select.select([], [], [], draw.uniform(0, 0.004))  # a commit's time
    if way != "statement":
        process.kill()
    while more := os.read(read, 65536):
        told += more
    os.close(read)
    process.join()
    process.close()
    return [line.split(b" ", 4) for line in told.splitlines()]


def settled_server(url: str) -> None:
    """Wait until a PostgreSQL server has noticed that the killed are gone: it ends what they asked for."""
    if url.startswith("sqlite:"):
        return
    others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    others += " AND backend_type = 'client backend'"
    engine = sa.create_engine(driver(url), poolclass=sa.NullPool)
    with engine.connect() as connection:
        while connection.exec_driver_sql(others).scalar():
            connection.rollback()
            time.sleep(0.001)


@dataclass(frozen=True)
class Told:
    """What a writer told before it was killed.

    Attributes:
        place: Where it was, see :data:`PLACES`.
        receipts: Of each operation that it acknowledged its number, and what the ledger said: seq, hash, repeated.
        errors: What made it end by itself.
    """

    place: bytes
    receipts: Sequence[tuple[int, int, str, bool]]
    errors: Sequence[str]

    @classmethod
    def read(cls, lines: Sequence[Sequence[bytes]]) -> Told:
        """From its lines."""
        place, receipts, errors = b"-", [], []
        for word, *rest in lines:
            if word == b"E":
                errors.append(b" ".join(rest).decode())
            elif word == b"A":
                n, seq, digest, repeated = rest
                receipts.append((int(n), int(seq), digest.decode(), repeated == b"1"))
            place = word if word in PLACES else b"-"
        return cls(place, receipts, errors)


def crash(url: str, kills: int, seed: int = 0, every: int = 25) -> Crashes:
    """Kill writers, and look at what they left, with a new ledger now and then."""
    draw, result = random.Random(seed), Crashes()
    bar = tqdm(total=kills, unit=" kills")
    for first in range(0, kills, every):
        result.ledgers += 1
        with database(url) as own:
            plan, acknowledged, there = Plan(), 0, False
            for _ in range(min(every, kills - first)):
                told = Told.read(life(own, acknowledged, draw))
                settled_server(own)
                result.problems += told.errors
                for i, (n, _, _, repeated) in enumerate(told.receipts):
                    if n != acknowledged or repeated != (i == 0 and there):
                        result.problems.append(f"operation {n} was acknowledged as {'there' if repeated else 'new'}, falsely")
                    result.acknowledged["settlements" if n % 6 == 5 else "revenue" if n % 6 == 3 else "rounds"] += 1
                    acknowledged += 1
                found, wrong = left_behind(own, told.receipts)
                there, more = after_a_crash(found, acknowledged, plan)
                result.problems += wrong + more
                result.places[PLACES[told.place]] += 1
                result.done += there
                result.undone += told.place != b"-" and not there
                bar.update()
            with Ledger(own) as ledger:
                ledger.init(NAME, MEMBERS, policy=POLICY)
                operate(ledger, NAME, acknowledged)
                result.problems += verified(ledger)
                if not after_a_crash(rows_of(ledger, NAME), acknowledged, plan)[0]:
                    result.problems.append("the work did not resume")
    bar.close()
    return result


def left_behind(url: str, receipts: Sequence[tuple[int, int, str, bool]]) -> tuple[list[Row], list[str]]:
    """The rows after a kill, and what is wrong with the chain, the members, or receipts that were given."""
    with Ledger(url) as ledger:
        try:
            there = ledger.cooperatives()
        except ValueError as error:
            if receipts or not any(words in str(error) for words in ("is no ledger yet", "does not exist")):
                return [], [str(error)]
            return [], []  # killed before the tables were there
        problems = verified(ledger)
        if not there:
            return [], problems
        if there[0].members != tuple(MEMBERS):
            problems.append(f"of {len(MEMBERS)} members there are {len(there[0].members)}")
        hashes = {entry.seq: entry.hash for entry in ledger.entries(NAME)}
        problems += [f"the receipt of operation {n} does not hold" for n, seq, digest, _ in receipts if hashes.get(seq) != digest]
        return rows_of(ledger, NAME), problems


def table_of_crashes(results: Mapping[str, Crashes]) -> str:
    """One column a database."""
    head = ["| | " + " | ".join(results) + " |", "|---|" + "---:|" * len(results)]

    def line(what: str, of: Callable[[Crashes], int]) -> str:
        return f"| {what} | " + " | ".join(f"{of(one):,}" for one in results.values()) + " |"

    def at(place: str) -> Callable[[Crashes], int]:
        return lambda one: one.places[place]

    def acknowledged(kind: str) -> Callable[[Crashes], int]:
        return lambda one: one.acknowledged[kind]

    lines = [line("kills", lambda one: sum(one.places.values()))]
    lines += [line(f"– {place}", at(place)) for place in PLACES.values()]
    lines += [
        line("killed in a transaction: all of it was there", lambda one: one.done),
        line("killed in a transaction: nothing of it was there", lambda one: one.undone),
        *(line(f"{kind} acknowledged", acknowledged(kind)) for kind in ("rounds", "revenue", "settlements")),
        line("ledgers filled", lambda one: one.ledgers),
        line("problems: lost, doubled, half there, paid twice, refused", lambda one: len(one.problems)),
    ]
    return "\n".join(head + lines) + "\n"
