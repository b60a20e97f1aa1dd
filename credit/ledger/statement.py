"""A member's account: its credit, its standing and its payouts, settlement by settlement."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from ..money.money import Currency
from ..money.settlement import SettlementPolicy
from .chain import Head
from .rows import HEAD, Known, readable, require_sound
from .schema import HEADS, TABLES


@dataclass(frozen=True)
class StatementLine:
    """One settlement, for one member.

    Attributes:
        number: Number of the settlement, from 1.
        at: Its time, UTC in ISO 8601.
        n_rounds: Number of rounds that it covered.
        first_round: The lowest of their numbers; ``None`` if there were none.
        last_round: The highest of their numbers; ``None`` if there were none.
        credit: The member's credit, summed over these rounds, in the utility's unit.
        standing: The member's cumulative credit by the policy, in the same unit.
        share: Its share of all members' positive standings, 0 to 1; 0 where nobody has one. The policy's other parts (solidarity, floors,
            clawback) show in the payout.
        revenue: Revenue that was settled, for all members, in minor units.
        payout: Payout to the member, in minor units.
        paid: Paid to the member so far, this settlement included, in minor units.
        reserve: The cooperative's reserve afterwards, in minor units.
    """

    number: int
    at: str
    n_rounds: int
    first_round: int | None
    last_round: int | None
    credit: float
    standing: float
    share: float
    revenue: int
    payout: int
    paid: int
    reserve: int


@dataclass(frozen=True)
class StatementRound:
    """A round of which the ledger says what was decided, for one member.

    Attributes:
        round: Number of the round.
        credit: The member's credit in it, in the utility's unit.
        revenue: Revenue that the round brought in, for all members, in minor units.
        said: What was decided about the member, as it was recorded; empty if nothing was.
        of_all: What was decided about the whole round.
    """

    round: int
    credit: float
    revenue: int
    said: Mapping[str, Any]
    of_all: Mapping[str, Any]


@dataclass(frozen=True)
class Statement:
    """The account of a member.

    Attributes:
        cooperative: Name of the cooperative.
        member: Name of the member.
        currency: Currency of all amounts, which are in its minor units.
        policy: How the cooperative settles.
        joined: When the member joined, UTC in ISO 8601.
        lines: The settlements since then, in their order.
        n_rounds: Number of rounds since the last settlement.
        credit: The member's credit in these rounds, summed, in the utility's unit.
        revenue: Revenue since the last settlement, in minor units.
        paid: Paid to the member so far, in minor units.
        reserve: The cooperative's reserve, in minor units.
        head: The tip of the chain when the statement was made.
        rounds: The rounds of which the ledger says what was decided, in the order in which they were recorded.
    """

    cooperative: str
    member: str
    currency: Currency
    policy: SettlementPolicy
    joined: str
    lines: tuple[StatementLine, ...]
    n_rounds: int
    credit: float
    revenue: int
    paid: int
    reserve: int
    head: Head
    rounds: tuple[StatementRound, ...] = ()


def read_statement(connection: Connection, known: Known, member: str) -> Statement:
    """The account of a member as it stands now.

    Raises:
        ValueError: If there is none of that name, or a row that matters for it is damaged.
    """
    own = {"own": known.id, "position": known.position(connection, member)}
    with readable(known):
        return _read(connection, known, own)


def _read(connection: Connection, known: Known, own: dict[str, int]) -> Statement:
    joined = connection.execute(_JOINED, own).one()
    head = connection.execute(HEAD, own).one()
    rounds = connection.execute(_ROUNDS, own).all()
    revenue = connection.execute(_REVENUE, own).all()
    require_sound("members", joined)
    require_sound(HEADS.name, head)
    for one in rounds:
        require_sound("rounds", one)
    for came in revenue:
        require_sound("revenue", came)
    positive: dict[int, list[float]] = {}
    for standing in connection.execute(_STANDINGS, own):
        positive.setdefault(standing.settlement, []).append(max(standing.standing, 0.0))
    lines = []
    at_round, last, reserve = 0, 0, 0
    for row in connection.execute(_SETTLEMENTS, own):
        covered = []
        while at_round < len(rounds) and rounds[at_round].seq < row.seq:
            covered.append(rounds[at_round])
            at_round += 1
        last, reserve = row.seq, row.reserve
        if row.seq < joined.seq:
            continue
        for table in ("settlements", "payouts"):  # of these columns the two tables share only seq
            require_sound(table, row)
        total = math.fsum(positive[row.number])
        lines.append(
            StatementLine(
                number=row.number,
                at=row.at,
                n_rounds=len(covered),
                first_round=min((one.round for one in covered), default=None),
                last_round=max((one.round for one in covered), default=None),
                credit=math.fsum(one.credit or 0.0 for one in covered),
                standing=row.standing,
                share=max(row.standing, 0.0) / total if total else 0.0,
                revenue=row.revenue,
                payout=row.amount,
                paid=row.paid,
                reserve=row.reserve,
            )
        )
    rest = rounds[at_round:]
    return Statement(
        cooperative=known.name,
        member=joined.name,
        currency=known.currency,
        policy=known.policy,
        joined=joined.at,
        lines=tuple(lines),
        n_rounds=len(rest),
        credit=math.fsum(one.credit or 0.0 for one in rest),
        revenue=sum(one.amount for one in revenue if one.seq > last),
        paid=lines[-1].paid if lines else 0,
        reserve=reserve,
        head=Head(head.seq, head.hash),
        rounds=_decided(connection, own, joined),
    )


def _decided(connection: Connection, own: dict[str, int], joined: sa.Row[Any]) -> tuple[StatementRound, ...]:
    """What was decided, round by round, since the member joined."""
    rounds = []
    for row in connection.execute(_DECIDED, own):
        if row.seq < joined.seq:
            continue
        require_sound("decisions", row)
        of_all = json.loads(row.decided)
        said = of_all.pop("members", {}).get(joined.name, {})
        rounds.append(StatementRound(row.round, row.credit or 0.0, row.amount or 0, said, of_all))
    return tuple(rounds)


_OWN: sa.BindParameter[int] = sa.bindparam("own")
_POSITION: sa.BindParameter[int] = sa.bindparam("position")
_MEMBERS, _ROUND, _CREDIT, _DECISIONS, _REVENUES, _SETTLED, _PAID = (
    TABLES[name].c for name in ("members", "rounds", "credits", "decisions", "revenue", "settlements", "payouts")
)
_JOINED = sa.select(TABLES["members"]).where(_MEMBERS.cooperative_id == _OWN, _MEMBERS.position == _POSITION)
_ROUNDS = (
    sa.select(_ROUND.seq, _ROUND.round, _CREDIT.credit)
    .select_from(
        TABLES["rounds"].outerjoin(
            TABLES["credits"],
            (_CREDIT.cooperative_id == _ROUND.cooperative_id) & (_CREDIT.round == _ROUND.round) & (_CREDIT.position == _POSITION),
        )
    )
    .where(_ROUND.cooperative_id == _OWN)
    .order_by(_ROUND.seq)
)
_DECIDED = (
    sa.select(_DECISIONS.seq, _DECISIONS.round, _DECISIONS.decided, _CREDIT.credit, _REVENUES.amount)
    .select_from(
        TABLES["decisions"]
        .outerjoin(
            TABLES["credits"],
            (_CREDIT.cooperative_id == _DECISIONS.cooperative_id) & (_CREDIT.round == _DECISIONS.round) & (_CREDIT.position == _POSITION),
        )
        .outerjoin(
            TABLES["revenue"],
            (_REVENUES.cooperative_id == _DECISIONS.cooperative_id) & (_REVENUES.round == _DECISIONS.round),
        )
    )
    .where(_DECISIONS.cooperative_id == _OWN)
    .order_by(_DECISIONS.seq)
)
_REVENUE = sa.select(_REVENUES.seq, _REVENUES.amount).where(_REVENUES.cooperative_id == _OWN)
_STANDINGS = sa.select(_PAID.settlement, _PAID.standing).where(_PAID.cooperative_id == _OWN)
_SETTLEMENTS = (
    sa.select(_SETTLED.seq, _SETTLED.number, _SETTLED.at, _SETTLED.revenue, _SETTLED.reserve, _PAID.standing, _PAID.amount, _PAID.paid)
    .select_from(
        TABLES["settlements"].outerjoin(
            TABLES["payouts"],
            (_PAID.cooperative_id == _SETTLED.cooperative_id) & (_PAID.settlement == _SETTLED.number) & (_PAID.position == _POSITION),
        )
    )
    .where(_SETTLED.cooperative_id == _OWN)
    .order_by(_SETTLED.seq)
)
