"""Receipts: what the ledger returns for a recorded entry, and how a receipt is found again if the entry is repeated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection

from .names import shown
from .rows import Known, read_payouts, readable, require_sound
from .schema import TABLES


@dataclass(frozen=True)
class Receipt:
    """What the ledger returns for a recorded entry.

    Attributes:
        seq: Place in the chain of the last row that was written for it.
        hash: That row's hash; together with ``seq`` a head to verify against later.
        repeated: Whether the entry was there already, so that nothing was written.
    """

    seq: int
    hash: str
    repeated: bool


@dataclass(frozen=True)
class SettlementReceipt:
    """The result of a settlement.

    Attributes:
        number: Number of the settlement, from 1.
        revenue: Revenue that was split, in minor units.
        payouts: Payout to each member, by name, in minor units.
        standings: Each member's cumulative credit by the policy, by name, in the utility's unit.
        paid: Paid to each member so far, this settlement included, by name, in minor units.
        reserve: The cooperative's reserve afterwards, in minor units.
        seq: As in :class:`Receipt`.
        hash: As in :class:`Receipt`.
        repeated: As in :class:`Receipt`.
    """

    number: int
    revenue: int
    payouts: dict[str, int]
    standings: dict[str, float]
    paid: dict[str, int]
    reserve: int
    seq: int
    hash: str
    repeated: bool


class Named(NamedTuple):
    """What a caller's key stands for: the table, in words, and the row."""

    table: str
    words: str
    row: sa.Row[Any]


def earlier_round(connection: Connection, own: int, number: int) -> sa.Row[Any] | None:
    """The row of a round, if the round was recorded already."""
    return connection.execute(_ROUND, {"own": own, "round": number}).first()


def named_by(connection: Connection, own: int, key: str) -> Named | None:
    """What a key stands for, if anything. A settlement and the revenue that came with it share one key."""
    for table, words in (("settlements", "settlement {number}"), ("rounds", "round {round}"), ("revenue", "revenue of {amount}")):
        columns = TABLES[table].c
        row = connection.execute(sa.select(TABLES[table]).where(columns.cooperative_id == own, columns.key == key)).first()
        if row is not None:
            return Named(table, words.format_map(row._mapping), row)
    return None


def same_round(
    connection: Connection, known: Known, earlier: sa.Row[Any], credit: dict[int, float], amount: int, key: str | None, decided: str | None
) -> Receipt:
    """The receipt of a round that was recorded already.

    Raises:
        ValueError: If the round now differs from the recorded one, or a row of it is damaged.
    """
    own = {"own": known.id, "round": earlier.round}
    rows = connection.execute(_CREDITS_OF_ROUND, own).all()
    income = connection.execute(_REVENUE_OF_ROUND, own).first()
    decisions = connection.execute(_DECISIONS_OF_ROUND, own).first()
    known.read_members(connection)
    names = list(known.positions)
    with readable(known):
        for table, row in [
            ("rounds", earlier),
            *(("credits", one) for one in rows),
            *((table, row) for table, row in (("decisions", decisions), ("revenue", income)) if row),
        ]:
            require_sound(table, row)
        if len(rows) != earlier.n_credits:
            raise ValueError(f"its round {earlier.round} should have {earlier.n_credits} credits, and has {len(rows)}")
        there = {row.position: row.credit for row in rows}
        differences = [
            f"{shown(names[position])}'s credit was {there.get(position, 'none')}, now {credit.get(position, 'none')}"
            for position in sorted(there.keys() | credit.keys())
            if there.get(position) != credit.get(position)
        ]
    if amount != (income.amount if income else 0):
        differences.append(f"revenue was {income.amount if income else 0}, now {amount}")
    if decided != (decisions.decided if decisions else None):
        differences.append("what was decided in it is something else")
    if key != earlier.key:
        differences.append(f"the key was {shown(earlier.key) if earlier.key else 'none'}, now {shown(key) if key else 'none'}")
    if differences:
        more = f", and {len(differences) - 3} more" if len(differences) > 3 else ""
        raise ValueError(
            f"round {earlier.round} of {shown(known.name)} is recorded already, and differs: {'; '.join(differences[:3])}{more}. "
            "A recorded round cannot be changed: use another round"
        )
    last = income or decisions or (rows[-1] if rows else earlier)
    return Receipt(last.seq, last.hash, True)


def same_revenue(known: Known, named: Named, amount: int, key: str) -> Receipt:
    """The receipt of revenue that was recorded already.

    Raises:
        ValueError: If the key stands for something else, or for another amount.
    """
    if named.table != "revenue":
        raise ValueError(f"key {shown(key)} of {shown(known.name)} stands for {named.words} already: use another for this revenue")
    with readable(known):
        require_sound("revenue", named.row)
    if named.row.amount != amount:
        raise ValueError(
            f"key {shown(key)} of {shown(known.name)} stands for revenue of {named.row.amount} already, now it is {amount}: "
            "use another key for another revenue"
        )
    return Receipt(named.row.seq, named.row.hash, True)


def same_settlement(connection: Connection, known: Known, named: Named, amount: int, key: str) -> SettlementReceipt:
    """The receipt of a settlement that was made already.

    Raises:
        ValueError: If the key stands for something else, other revenue came with it, or a row of it is damaged.
    """
    words, row = named.words, named.row
    if named.table != "settlements":
        raise ValueError(f"key {shown(key)} of {shown(known.name)} stands for {words} already: use another for this settlement")
    columns = TABLES["revenue"].c
    came = connection.execute(sa.select(columns.amount).where(columns.cooperative_id == known.id, columns.key == key)).scalar() or 0
    if came != amount:
        raise ValueError(
            f"key {shown(key)} of {shown(known.name)} stands for {words}, which came with revenue of {came}, now {amount}: use another key"
        )
    payouts = read_payouts(connection, known, row)
    rows = dict(zip(known.positions, payouts, strict=False))  # members that joined later were not paid
    last = payouts[-1]
    return SettlementReceipt(
        number=row.number,
        revenue=row.revenue,
        payouts={name: one.amount for name, one in rows.items()},
        standings={name: one.standing for name, one in rows.items()},
        paid={name: one.paid for name, one in rows.items()},
        reserve=row.reserve,
        seq=last.seq,
        hash=last.hash,
        repeated=True,
    )


_ROUND, _CREDITS_OF_ROUND, _DECISIONS_OF_ROUND, _REVENUE_OF_ROUND = (
    sa.select(TABLES[name])
    .where(TABLES[name].c.cooperative_id == sa.bindparam("own"), TABLES[name].c.round == sa.bindparam("round"))
    .order_by("seq")
    for name in ("rounds", "credits", "decisions", "revenue")
)
