"""Rows of a ledger: reading a cooperative, the tip of its chain to which rows are added, and the state of its accounts."""

from __future__ import annotations

import heapq
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy import Connection, bindparam

from ...registry import unknown_name
from ...text import one_line
from ..money.money import Currency
from ..money.settlement import LARGEST, Accounts, SettlementPolicy
from .chain import CHAINED, Value, link
from .names import shown
from .schema import HEADS, TABLES, mistyped

_AT_ONCE = 1000  # rows that are fetched at a time


@dataclass
class Known:
    """What is known of a cooperative. Nothing of it ever changes, except that members join.

    Attributes:
        id: Its number in the database.
        name: Its name.
        currency: The currency that it pays in.
        policy: How it settles.
        positions: Position of each member, by name, in their order: of the members that are known so far.
    """

    id: int
    name: str
    currency: Currency
    policy: SettlementPolicy
    positions: dict[str, int] = field(default_factory=dict)

    def read_members(self, connection: Connection) -> None:
        """Read the members that joined meanwhile."""
        rows = connection.execute(_MEMBERS, {"own": self.id, "known": len(self.positions)}).all()
        with readable(self):
            joined = {**self.positions}
            for row in rows:
                require_sound("members", row)
                if row.position != len(joined):
                    raise ValueError(f"its member {shown(row.name)} is number {row.position}, and should be {len(joined)}")
                joined[row.name] = row.position
            self.positions = joined

    def position(self, connection: Connection, member: str) -> int:
        """The position of a member.

        Raises:
            ValueError: If there is none of that name.
        """
        if member not in self.positions:
            self.read_members(connection)
        if member not in self.positions:
            raise unknown_name(f"member of {self.name!r}", member, list(self.positions))
        return self.positions[member]


class Tip:
    """The tip of a cooperative's chain, to which a transaction adds rows.

    Attributes:
        seq: Number of the last row.
        hash: Hash of the last row.

    Args:
        own: The cooperative's number.
        cooperative: Its name.
        seq: As above; 0 for a new chain.
        hash: As above.
        revenue: All revenue so far, in minor units.
    """

    def __init__(self, own: int, cooperative: str, seq: int, hash: str, revenue: int) -> None:
        self.seq, self.hash = seq, hash
        self._own, self._cooperative, self._revenue = own, cooperative, revenue
        self._new = seq == 0
        self._rows: dict[str, list[dict[str, Value]]] = {}

    def add(self, table: str, **fields: Value) -> None:
        """Add a row, given by all its columns except ``seq``, ``hash`` and the cooperative's."""
        self.seq += 1
        fields["seq"] = self.seq
        self.hash = link(self.hash, table, {**fields, "cooperative": self._cooperative})
        fields["hash"] = self.hash
        fields["id" if table == "cooperatives" else "cooperative_id"] = self._own
        self._rows.setdefault(table, []).append(fields)

    def earn(self, amount: int, round: int | None, key: str | None, at: str) -> None:
        """Add revenue.

        Raises:
            ValueError: If all revenue would come to more than 2^63 − 1.
        """
        self._revenue += amount
        if self._revenue > LARGEST:
            raise ValueError(
                f"all revenue of {self._cooperative!r} would come to {self._revenue} minor units: at most 2^63 − 1 can be recorded"
            )
        self.add("revenue", amount=amount, round=round, key=key, at=at)

    def write(self, connection: Connection) -> None:
        """Write the rows that were added, and the new tip."""
        if not self._rows:
            return
        for table in CHAINED:  # rows that others refer to come first
            if table in self._rows:
                connection.execute(_INSERT[table], self._rows[table])
        head = {"own": self._own, "seq": self.seq, "hash": self.hash, "revenue": self._revenue}
        connection.execute(_NEW_HEAD if self._new else _MOVE_HEAD, head)


@dataclass
class Account:
    """A cooperative's accounts as of now: those of its last settlement, and what has come in since.

    Attributes:
        number: Number of the last settlement, or 0.
        accounts: Standings, payments and reserve.
        revenue: Revenue since then, in minor units.
    """

    number: int
    accounts: Accounts
    revenue: int

    @property
    def reserve(self) -> int:
        """The reserve, in minor units."""
        return int(self.accounts.reserve[0])

    @classmethod
    def read(cls, connection: Connection, known: Known) -> Account:
        """Read the accounts; the members must be known."""
        own = {"own": known.id}
        accounts = Accounts(known.policy, len(known.positions))
        last = connection.execute(_LAST_SETTLEMENT, own).first()
        number, since = 0, 0
        if last is not None:
            payouts = read_payouts(connection, known, last)
            number, since = last.number, last.seq
            accounts.now, accounts.reserve[0] = last.now, last.reserve
            for row in payouts:
                accounts.standing[0, row.position], accounts.paid[0, row.position] = row.standing, row.paid
        with readable(known):
            earned = connection.execute(_REVENUE_SINCE, {**own, "since": since}).all()
            for came in earned:
                require_sound("revenue", came)
            rounds = connection.execute(_ROUNDS_SINCE, {**own, "since": since}).all()
            new = connection.execute(_CREDITS_SINCE, {**own, "since": since}, execution_options={"yield_per": _AT_ONCE})
            with closing(new):  # both in the order of the chain, where a round's credits follow the round
                of_rounds = groupby(new, key=lambda row: row.round)
                behind, rows = next(of_rounds, (None, iter(())))
                for one in rounds:
                    require_sound("rounds", one)
                    credit = np.zeros((1, len(known.positions)))
                    there = 0
                    if one.round == behind:  # a round may have no credits
                        for new_row in rows:
                            require_sound("credits", new_row)
                            credit[0, new_row.position] = new_row.credit
                            there += 1
                        behind, rows = next(of_rounds, (None, iter(())))
                    if there != one.n_credits:
                        raise ValueError(f"its round {one.round} should have {one.n_credits} credits, and has {there}")
                    accounts.credit(credit, one.round)
            if behind is not None:
                raise ValueError(f"it has credits of round {shown(behind)} out of place")
        return cls(number, accounts, sum(row.amount for row in earned))


def read_known(connection: Connection, name: str) -> Known | None:
    """What is known of the cooperative of that name, without its members; ``None`` if there is no such cooperative.

    Raises:
        ValueError: If what is stored about it cannot be read.
    """
    row = connection.execute(_COOPERATIVE, {"name": name}).first()
    if row is None:
        return None
    try:
        return Known(row.id, row.name, Currency(row.currency, row.exponent), SettlementPolicy.model_validate_json(row.policy))
    except ValueError as error:
        raise ValueError(f"cooperative {shown(name)} is damaged: its currency or its policy cannot be read; verify the ledger") from error


@contextmanager
def readable(known: Known) -> Iterator[None]:
    """Report any error while a cooperative's rows are interpreted as damage, in one line. Only verification reads on.

    Raises:
        ValueError: If there is such an error.
    """
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        text = one_line(str(error))
        raise ValueError(f"cooperative {shown(known.name)} is damaged: {text or type(error).__name__}; verify says which row") from error


def require_sound(table: str, row: sa.Row[*tuple[Any, ...]]) -> None:
    """Make sure that every column of a row that was read holds a value that it may hold.

    Raises:
        ValueError: If one does not.
    """
    wrong = mistyped(table, row._asdict())
    if wrong:
        raise ValueError(f"of a row of {table} {wrong[0]}")


def read_payouts(connection: Connection, known: Known, settlement: sa.Row[Any]) -> Sequence[sa.Row[Any]]:
    """A settlement's payouts, in order, one for each member of that time; the members must be known.

    Raises:
        ValueError: If one is missing, there is one too many, or one cannot be read.
    """
    with readable(known):
        require_sound("settlements", settlement)
        rows = connection.execute(_PAYOUTS, {"own": known.id, "number": settlement.number}).all()
        for row in rows:
            require_sound("payouts", row)
        if [row.position for row in rows] != list(range(settlement.n_payouts)) or not 0 < len(rows) <= len(known.positions):
            raise ValueError(
                f"its settlement {settlement.number} should have {settlement.n_payouts} payouts, one a member, and has {len(rows)}"
            )
        return rows


def lock(connection: Connection, known: Known) -> Tip:
    """The tip of a cooperative's chain. Nobody else can move it until the transaction ends.

    Raises:
        ValueError: If it cannot be read.
    """
    row = connection.execute(_LOCK, {"own": known.id}).one()
    with readable(known):
        require_sound(HEADS.name, row)
    return Tip(known.id, known.name, row.seq, row.hash, row.revenue)


def latest_round(connection: Connection, own: int) -> int:
    """The highest round number so far, or −1."""
    number = connection.execute(_LATEST, {"own": own}).scalar()
    return -1 if number is None else int(number)


def chain_rows(connection: Connection, own: int) -> Generator[tuple[str, sa.Row[Any]], None, None]:
    """All rows of a cooperative with their tables, in the order of their ``seq``, a few at a time."""

    def rows(table: str, result: sa.CursorResult[Any]) -> Iterator[tuple[tuple[int, Any], str, sa.Row[Any]]]:
        for row in result:
            yield (0, row.seq) if isinstance(row.seq, int) else (1, str(row.seq)), table, row

    with ExitStack() as stack:
        streams = [
            rows(
                table,
                stack.enter_context(closing(connection.execute(_CHAIN[table], {"own": own}, execution_options={"yield_per": _AT_ONCE}))),
            )
            for table in CHAINED
        ]
        for _, table, row in heapq.merge(*streams, key=lambda item: item[0]):
            yield table, row


_OWN: sa.BindParameter[int] = bindparam("own")
_T = {name: table.c for name, table in TABLES.items()}
_INSERT = {name: sa.insert(table) for name, table in TABLES.items()}
_CHAIN = {
    name: sa.select(table).where((table.c.id if name == "cooperatives" else table.c.cooperative_id) == _OWN).order_by(table.c.seq)
    for name, table in TABLES.items()
}
_COOPERATIVE = sa.select(TABLES["cooperatives"]).where(_T["cooperatives"].name == bindparam("name"))
_MEMBERS = (
    sa.select(_T["members"].name, _T["members"].position)
    .where(_T["members"].cooperative_id == _OWN, _T["members"].position >= bindparam("known"))
    .order_by(_T["members"].position)
)
HEAD = sa.select(HEADS).where(HEADS.c.cooperative_id == _OWN)
"""Query of a cooperative's head, by ``own``."""
_LOCK = HEAD.with_for_update()
_NEW_HEAD = sa.insert(HEADS).values(cooperative_id=_OWN)
_MOVE_HEAD = sa.update(HEADS).where(HEADS.c.cooperative_id == _OWN)
_LAST_SETTLEMENT = (
    sa.select(TABLES["settlements"]).where(_T["settlements"].cooperative_id == _OWN).order_by(_T["settlements"].number.desc()).limit(1)
)
_PAYOUTS = (
    sa.select(TABLES["payouts"])
    .where(_T["payouts"].cooperative_id == _OWN, _T["payouts"].settlement == bindparam("number"))
    .order_by(_T["payouts"].position)
)
_REVENUE_SINCE = sa.select(_T["revenue"].amount).where(_T["revenue"].cooperative_id == _OWN, _T["revenue"].seq > bindparam("since"))
_ROUNDS_SINCE = (
    sa.select(_T["rounds"].round, _T["rounds"].n_credits)
    .where(_T["rounds"].cooperative_id == _OWN, _T["rounds"].seq > bindparam("since"))
    .order_by(_T["rounds"].seq)
)
_LATEST = sa.select(sa.func.max(_T["rounds"].round)).where(_T["rounds"].cooperative_id == _OWN)
_CREDITS_SINCE = (
    sa.select(_T["credits"].round, _T["credits"].position, _T["credits"].credit)
    .where(_T["credits"].cooperative_id == _OWN, _T["credits"].seq > bindparam("since"))
    .order_by(_T["credits"].seq)
)
