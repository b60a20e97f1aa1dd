"""Verification: a walk along a ledger's chains that recomputes every hash and every settlement.

It trusts nothing that it reads: a column may hold what it never should, and a row may be missing, doubled or in another's place. It finds
every change, unless somebody wrote a new chain from there on. With a head that was kept elsewhere it finds that too.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from ...text import one_line
from ..money.money import Currency
from ..money.settlement import Accounts, Settlement, SettlementPolicy
from .chain import CHAINED, GENESIS, Head, canonical, link
from .names import shown
from .rows import HEAD, chain_rows
from .schema import COLUMNS, DEFINITIONS, HEADS, TABLES, VERSIONS, definitions, mistyped

MOST_PROBLEMS = 20
"""Largest number of problems that are listed; the first one matters most."""


@dataclass(frozen=True)
class Problem:
    """Something that is wrong with a ledger.

    Attributes:
        cooperative: The cooperative whose chain it is in; ``None`` if it is in none.
        table: The table; ``None`` if it is not in one table.
        seq: The row's place in the chain; ``None`` if it is not one row.
        what: The problem in words, with what people call the row.
    """

    cooperative: str | None
    table: str | None
    seq: int | None
    what: str


@dataclass
class Verification:
    """What verification found.

    Attributes:
        problems: At most 20, in the order in which they were found.
        rows: Number of rows that were walked, by table.
        heads: The tip of each cooperative's chain, as recomputed from its rows.
    """

    problems: list[Problem] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)
    heads: dict[str, Head] = field(default_factory=dict)

    def add(self, cooperative: str | None, table: str | None, seq: int | None, what: str) -> None:
        """Note a problem, unless there are many already."""
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(Problem(cooperative, table, seq, one_line(what)))

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def verify_database(connection: Connection, cooperative: str | None, expected: Mapping[str, Head]) -> Verification:
    """Verify a ledger, or one of its cooperatives; see :meth:`~proxycoop.credit.ledger.Ledger.verify`."""
    if cooperative is not None and expected and cooperative not in expected:
        raise ValueError(f"no head of {shown(cooperative)} was given, but of {', '.join(map(shown, expected))}: nothing would be compared")
    found = Verification(rows=dict.fromkeys(CHAINED, 0))
    try:
        if connection.dialect.name == "sqlite":
            for (line,) in connection.exec_driver_sql(f"PRAGMA integrity_check({MOST_PROBLEMS})"):
                if line != "ok":
                    found.add(None, None, None, f"SQLite's own check: {line}")
        rows = connection.execute(sa.select(TABLES["cooperatives"]).order_by(TABLES["cooperatives"].c.id)).all()
        for name in sorted(expected.keys() - {row.name for row in rows}):
            found.add(name, None, None, f"there is no cooperative {shown(name)}: it was deleted or renamed since its head was kept")
        for row in rows:
            if cooperative is None or row.name == cooperative:
                walk = _Walk(found, row, expected.get(row.name))
                with closing(chain_rows(connection, row.id)) as chain:
                    for table, one in chain:
                        walk.take(table, dict(zip(COLUMNS[table], one[1:-1], strict=True)), one.hash)
                walk.finish(connection.execute(HEAD, {"own": row.id}).first())
        if cooperative is None:
            _verify_rest(connection, found)
    except (DBAPIError, sqlite3.Error) as error:
        reason = str(error.orig if isinstance(error, DBAPIError) else error).strip()
        found.add(None, None, None, f"the database is damaged and cannot be read further: {reason.splitlines()[0] if reason else error!r}")
    return found


def _verify_rest(connection: Connection, found: Verification) -> None:
    """Verify what belongs to no cooperative: versions, triggers, and rows without a cooperative."""
    previous, last = GENESIS, 0
    for row in connection.execute(sa.select(VERSIONS).order_by(VERSIONS.c.version)):
        fields = {"version": row.version, "at": row.at}
        if row.version != last + 1 or row.hash != _linked(previous, VERSIONS.name, fields):
            found.add(None, VERSIONS.name, None, f"version {shown(row.version)}: the row was changed, or one before it is missing")
        previous, last = row.hash, last + 1
    owners = sa.select(TABLES["cooperatives"].c.id)
    for table in (*(TABLES[name] for name in CHAINED[1:]), HEADS):
        name = table.name
        lost = sa.select(table.c.cooperative_id, table.c.seq).where(table.c.cooperative_id.not_in(owners)).limit(1)
        for row in connection.execute(lost):
            seq = row.seq if isinstance(row.seq, int) else None
            found.add(None, name, seq, f"rows of cooperative number {shown(row.cooperative_id)}, which does not exist")
    there, should = definitions(connection), DEFINITIONS[connection.dialect.name]
    for place in sorted(there.keys() | should.keys()):
        table_name, trigger = place
        if table_name == trigger:
            if there.get(place) == should[place]:
                continue
            what = "the table is not defined as it should be, so rows may have been changed: their hashes show it"
        elif place not in there:
            what = f"the trigger {trigger} is missing or off, so rows may have been changed: their hashes show it"
        elif place not in should:
            what = f"the trigger {shown(trigger)} is not a ledger's, so rows may have been changed: their hashes show it"
        elif there[place] != should[place]:
            what = f"the trigger {trigger} does not do what it should, so rows may have been changed: their hashes show it"
        else:
            continue
        found.add(None, table_name, None, what)


def _linked(previous: str, table: str, fields: Mapping[str, Any]) -> str | None:
    """The hash that a row should have; ``None`` if it holds a value that no row can hold."""
    try:
        return link(previous, table, fields)
    except (TypeError, ValueError):
        return None


class _Walk:
    """A walk along one cooperative's chain.

    Args:
        found: Where problems are noted.
        row: The cooperative's row.
        expected: Its head, if one was kept elsewhere.
    """

    def __init__(self, found: Verification, row: sa.Row[Any], expected: Head | None) -> None:
        self._found = found
        self._name = row.name if isinstance(row.name, str) else shown(row.name)
        self._expected = expected
        self._met_expected = False
        self._seq = 0
        self._hashes = [GENESIS]  # hashes of the row before: as stored and, if that is wrong, as it should be
        self._members: list[str] = []
        self._keys: dict[str, tuple[str, int]] = {}
        self._rounds: set[int] = set()
        self._decided: set[int] = set()
        self._number = 0
        self._income = self._pending = 0
        self._accounts: Accounts | None = None
        self._round: _Round | None = None
        self._settling: _Settling | None = None
        self._takes = {
            "cooperatives": self._take_cooperatives,
            "members": self._take_members,
            "rounds": self._take_rounds,
            "credits": self._take_credits,
            "decisions": self._take_decisions,
            "revenue": self._take_revenue,
            "settlements": self._take_settlements,
            "payouts": self._take_payouts,
        }
        self._astray = False  # whether the rows that follow belong to a row that could not be read

    def take(self, table: str, fields: dict[str, Any], hash: Any) -> None:
        """Walk over the next row."""
        self._found.rows[table] += 1
        seq = fields["seq"]
        misplaced, wrong_kind = self._misplaced(seq), mistyped(table, fields)
        if table not in ("credits", "payouts"):
            self._astray = self._astray or bool(misplaced)  # where rows are missing, the others need not be counted
            self._close()
            self._astray = False
        wrong = misplaced + wrong_kind
        should = [_linked(previous, table, {**fields, "cooperative": self._name}) for previous in self._hashes]
        if should and hash not in should:
            wrong.append("its hash does not follow: this row was changed")
            # the next row follows the stored hash if this row was changed, and the right hash if only the hash was
            self._hashes = [one for one in (hash, should[0]) if isinstance(one, str)]
        else:
            self._hashes = [hash] if isinstance(hash, str) else []
        if self._expected is not None and self._expected.seq == seq:
            self._met_expected = True
            if hash != self._expected.hash:
                wrong.append("its hash is not that of the head that was kept: rows were rewritten since")
        if isinstance(seq, int):
            self._seq = seq
            self._found.heads[self._name] = Head(seq, str(hash))
        if wrong:
            self._add(table, fields, "; ".join(wrong))
        if wrong_kind:
            self._astray = True
        else:
            for problem in self._takes[table](fields):
                self._add(table, fields, problem)

    def finish(self, head: sa.Row[Any] | None) -> None:
        """The chain has ended. Compare its tip with the cooperative's head."""
        self._close()
        tip = self._found.heads.get(self._name, Head(0, GENESIS))
        if head is None:
            self._found.add(self._name, "heads", None, "the cooperative has no head")
        elif (head.seq, head.hash) != (tip.seq, tip.hash):
            self._found.add(
                self._name,
                "heads",
                head.seq if isinstance(head.seq, int) else None,
                f"the head says {shown(head.seq)}, {shown(head.hash)}, and the last row is {tip.seq}, {shown(tip.hash)}: "
                "the last rows were deleted or added, or the head was changed",
            )
        elif head.revenue != self._income:
            self._found.add(
                self._name, "heads", tip.seq, f"the head says that all revenue was {shown(head.revenue)}, and it was {self._income}"
            )
        if self._expected is not None and not self._met_expected:
            self._found.add(
                self._name,
                None,
                self._expected.seq,
                f"the chain ends at {tip.seq} or lacks row {self._expected.seq}: rows were deleted since the head was kept",
            )

    def _add(self, table: str, fields: Mapping[str, Any], what: str) -> None:
        seq = fields["seq"]
        self._found.add(self._name, table, seq if isinstance(seq, int) else None, f"{self._label(table, fields)}: {what}")

    def _label(self, table: str, fields: Mapping[str, Any]) -> str:
        """What people call a row."""
        if table == "cooperatives":
            return f"cooperative {shown(fields['name'])}"
        if table == "members":
            return f"member {shown(fields['name'])}"
        if table == "rounds":
            return f"round {shown(fields['round'])}"
        if table == "decisions":
            return f"decisions of round {shown(fields['round'])}"
        if table == "revenue":
            return f"revenue of {shown(fields['amount'])}" + ("" if fields["round"] is None else f" in round {shown(fields['round'])}")
        if table == "settlements":
            return f"settlement {shown(fields['number'])}"
        position = fields["position"]
        known = isinstance(position, int) and 0 <= position < len(self._members)
        member = shown(self._members[position]) if known else f"number {shown(position)}"
        part = "round" if table == "credits" else "settlement"
        return f"{part} {shown(fields[part])}, member {member}"

    def _misplaced(self, seq: Any) -> list[str]:
        due = self._seq + 1
        if not isinstance(seq, int) or seq == due:
            return []
        self._hashes = []  # the row that it should follow is missing
        if seq < due:
            return [f"there are two rows {seq}"]
        return [f"row {due} before it is missing" if seq == due + 1 else f"rows {due} to {seq - 1} before it are missing"]

    def _key(self, table: str, seq: int, key: str | None) -> list[str]:
        if key is None:
            return []
        other = self._keys.setdefault(key, (table, seq))
        if other == (table, seq) or (table == "settlements" and other == ("revenue", seq - 1)):
            return []
        return [f"its key {shown(key)} stands for row {other[1]} already"]

    def _take_cooperatives(self, row: Mapping[str, Any]) -> list[str]:
        try:
            Currency(row["currency"], row["exponent"])
            self._accounts = Accounts(SettlementPolicy.model_validate_json(row["policy"]), len(self._members))
        except ValueError as error:
            return [f"its currency or policy cannot be read, so that settlements are not recomputed: {error}"]
        return []

    def _take_members(self, row: Mapping[str, Any]) -> list[str]:
        problems = [f"it is number {row['position']}, and should be {len(self._members)}"] if row["position"] != len(self._members) else []
        if row["name"] in self._members:
            problems.append("there are two members of that name")
        self._members.append(row["name"])
        if self._accounts is not None:
            self._accounts.join(1)
        return problems

    def _take_rounds(self, row: Mapping[str, Any]) -> list[str]:
        problems = self._key("rounds", row["seq"], row["key"])
        if row["round"] in self._rounds:
            problems.append("there are two rounds of that number")
        self._rounds.add(row["round"])
        self._round = _Round(row["seq"], row["round"], row["n_credits"])
        return problems

    def _take_credits(self, row: Mapping[str, Any]) -> list[str]:
        if self._astray:
            return []
        if self._round is None or self._round.number != row["round"]:
            self._astray = True
            return [f"it does not follow round {row['round']}"]
        if row["position"] in self._round.credit or row["position"] >= len(self._members):
            return ["there is no such member" if row["position"] >= len(self._members) else "the member has two credits in the round"]
        self._round.credit[row["position"]] = row["credit"]
        return []

    def _take_decisions(self, row: Mapping[str, Any]) -> list[str]:
        problems = [] if row["round"] in self._rounds else ["there is no such round before it"]
        if row["round"] in self._decided:
            problems.append("there are two of that round")
        self._decided.add(row["round"])
        try:
            as_written = canonical(json.loads(row["decided"]))
        except ValueError:
            as_written = ""
        return problems if as_written == row["decided"] else [*problems, "what it says is no canonical JSON"]

    def _take_revenue(self, row: Mapping[str, Any]) -> list[str]:
        self._income += row["amount"]
        self._pending += row["amount"]
        problems = self._key("revenue", row["seq"], row["key"])
        if row["round"] is not None and row["round"] not in self._rounds:
            problems.append("there is no such round before it")
        return problems

    def _take_settlements(self, row: Mapping[str, Any]) -> list[str]:
        problems = self._key("settlements", row["seq"], row["key"])
        if row["number"] != self._number + 1:
            problems.append(f"its number should be {self._number + 1}")
        self._number = row["number"]
        came, self._pending = self._pending, 0
        settlement = None
        if self._accounts is not None:
            try:
                settlement = self._accounts.settle([came])
            except ValueError as error:
                problems.append(f"the policy does not settle it: {error}")
        self._settling = _Settling(row["seq"], row["number"], row["reserve"], row["now"], row["n_payouts"], settlement)
        checks = [("revenue", row["revenue"], came), ("n_payouts", row["n_payouts"], len(self._members))]
        if settlement is not None and self._accounts is not None:
            checks += [("reserve", row["reserve"], int(settlement.reserve[0])), ("now", row["now"], self._accounts.now)]
        return problems + self._compared(checks)

    def _take_payouts(self, row: Mapping[str, Any]) -> list[str]:
        if self._astray:
            return []
        settling = self._settling
        if settling is None or settling.number != row["settlement"]:
            self._astray = True
            return [f"it does not follow settlement {row['settlement']}"]
        place = len(settling.rows)
        settling.rows.append((row["position"], row["standing"], row["paid"]))
        if row["position"] != place or place >= len(self._members):
            self._astray = True
            return [f"payout {place} of the settlement is of member number {row['position']}"]
        if settling.settlement is None or self._accounts is None:
            return []
        return self._compared(
            [
                ("amount", row["amount"], int(settling.settlement.payouts[0, place])),
                ("standing", row["standing"], float(self._accounts.standing[0, place])),
                ("paid", row["paid"], int(self._accounts.paid[0, place])),
            ]
        )

    def _compared(self, checks: list[tuple[str, Any, Any]]) -> list[str]:
        wrong = [
            f"its {what} is {there}, but by the rows before it and the policy it should be {should}"
            for what, there, should in checks
            if there != should
        ]
        if wrong and self._settling is not None:
            self._settling.differs = True
        return ["; ".join(wrong)] if wrong else []

    def _close(self) -> None:
        """The rows of a round, or of a settlement, are complete."""
        closing, settling = self._round, self._settling
        self._round = self._settling = None
        if closing is not None:
            if len(closing.credit) != closing.n_credits and not self._astray:
                self._found.add(
                    self._name,
                    "rounds",
                    closing.seq,
                    f"round {closing.number}: it should have {closing.n_credits} credits, and has {len(closing.credit)}",
                )
            if self._accounts is not None:
                credit = np.zeros((1, len(self._members)))
                for position, one in closing.credit.items():
                    credit[0, position] = one
                try:
                    self._accounts.credit(credit, closing.number)
                except ValueError as error:
                    self._found.add(self._name, "rounds", closing.seq, f"round {closing.number}: {error}")
        if settling is not None:
            if len(settling.rows) != settling.n_payouts and not self._astray:
                self._found.add(
                    self._name,
                    "settlements",
                    settling.seq,
                    f"settlement {settling.number}: it should have {settling.n_payouts} payouts, and has {len(settling.rows)}",
                )
            if settling.differs and self._accounts is not None:  # go on from what is stored, to find what else is wrong
                self._accounts.now = settling.now
                self._accounts.reserve[0] = settling.reserve
                for position, standing, paid in settling.rows:
                    if position < len(self._members):
                        self._accounts.standing[0, position], self._accounts.paid[0, position] = standing, paid


@dataclass
class _Round:
    seq: int
    number: int
    n_credits: int
    credit: dict[int, float] = field(default_factory=dict)


@dataclass
class _Settling:
    seq: int
    number: int
    reserve: int
    now: int
    n_payouts: int
    settlement: Settlement | None
    rows: list[tuple[int, float, int]] = field(default_factory=list)
    differs: bool = False
