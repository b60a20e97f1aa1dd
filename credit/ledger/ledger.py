"""The ledger: who earned what in which round, what came in, and who was paid, in a database to which rows are only added.

::

    from proxycoop.credit.ledger import Ledger

    with Ledger("out/ledger.db") as ledger:
        ledger.init("clinics", ["Ada", "Bo"], currency="EUR")
        ledger.record("clinics", 0, {"Ada": 0.3, "Bo": 0.1}, revenue=100)
        ledger.settle("clinics").payouts  # {"Ada": 75, "Bo": 25}, in cents

One database holds many cooperatives, each with a chain of its own (:mod:`~proxycoop.credit.ledger.chain`). A round is one transaction, and
so is a settlement: all of it is there or nothing, and what was acknowledged stays. A round, or anything with a key, is done only once.
Doing it again writes nothing and gives the first receipt. So after a crash, or if the answer never came, simply repeat it.

Any number of processes may write at once. A settlement covers the rounds and the revenue recorded since the settlement before, whatever the
rounds' numbers are. It continues from the standings that the settlement before left in its rows.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from types import MappingProxyType, TracebackType

import numpy as np
import sqlalchemy as sa
from sqlalchemy import Connection

from ...checks import items_of
from ...registry import unknown_name
from ...text import one_line
from ..money.apportionment import require_whole
from ..money.money import Currency
from ..money.settlement import LARGEST, SettlementPolicy, require_policy, require_remembered
from .chain import GENESIS, Entry, Head, Value, canonical
from .connection import Damaged, Database
from .names import checked_name, shown
from .receipts import Receipt, SettlementReceipt, earlier_round, named_by, same_revenue, same_round, same_settlement
from .rows import HEAD, Account, Known, Tip, chain_rows, latest_round, lock, read_known
from .schema import COLUMNS, TABLES, migrate
from .statement import Statement, read_statement
from .verification import Problem, Verification, verify_database

LARGEST_CREDIT = 1e300
"""The largest absolute credit of a round. A hundred million of them still add up to a float64."""


@dataclass(frozen=True)
class Cooperative:
    """A cooperative as the ledger knows it.

    Attributes:
        name: Its name.
        currency: The currency that it pays in.
        policy: How it settles.
        members: Names of the members, in the order in which they joined.
    """

    name: str
    currency: Currency
    policy: SettlementPolicy
    members: tuple[str, ...]


def _utc() -> datetime:
    return datetime.now(UTC)


class Ledger:
    """A ledger in a database.

    Args:
        where: A path, for SQLite, or a URL: ``sqlite:///path`` or ``postgresql://user@host/database``.
        read_only: Never write.
        clock: Gives the time that is written into rows.

    Raises:
        ValueError: If ``where`` is neither, PostgreSQL's driver is missing, or it is read-only and there is no such file. All methods raise
            it if the database cannot be used, with one line that names the ledger.
    """

    def __init__(self, where: str | os.PathLike[str], *, read_only: bool = False, clock: Callable[[], datetime] = _utc) -> None:
        self._database = Database(where, read_only)
        self._clock = clock
        self._known: dict[str, Known] = {}

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __reduce__(self) -> tuple[Callable[..., Ledger], tuple[str]]:
        """Opened again by its URL, with its own connections."""
        return partial(Ledger, read_only=self._database.read_only, clock=self._clock), (
            self._database.url.render_as_string(hide_password=False),
        )

    def __repr__(self) -> str:
        return f"Ledger({self._database.name})"

    @property
    def url(self) -> str:
        """The URL to open it again, with its password."""
        return self._database.url.render_as_string(hide_password=False)

    @property
    def name(self) -> str:
        """The path, or the URL without its password, in quotes."""
        return self._database.name

    def close(self) -> None:
        """Close all connections; the next use opens new ones."""
        self._database.close()

    def init(
        self,
        name: str,
        members: Iterable[str],
        currency: str | None = None,
        exponent: int | None = None,
        policy: SettlementPolicy | None = None,
    ) -> Cooperative:
        """Create a cooperative, and the tables if there are none. Where the cooperative exists, new members join it.

        Tables of an older version are brought up to date.

        Args:
            name: Name of the cooperative.
            members: Names of the members. Those that are members already stay where they are.
            currency: Code of the currency, see :class:`~proxycoop.credit.money.money.Currency`. ``None`` is EUR, or what the cooperative
                has if it exists.
            exponent: Decimals of the currency; ``None`` is the currency's own.
            policy: How the cooperative settles. ``None`` is all defaults, or what the cooperative has if it exists.

        Raises:
            ValueError: If a name is refused or given twice, there are no members, the cooperative exists with another currency, exponent or
                policy, or the database holds other tables of these names.
        """
        name = checked_name("cooperative", name)
        given = _checked_members(members)
        if policy is not None:
            require_policy(policy)
        money = Currency.of("EUR" if currency is None else currency, exponent)
        if not given:
            raise ValueError(f"cooperative {shown(name)}: must have at least one member")

        def body(connection: Connection) -> None:
            self._database.lock_schema(connection)
            at = self._at()
            migrate(connection, self.name, at)
            known = read_known(connection, name)
            if known is None:
                own = 1 + (connection.execute(_LAST_ID).scalar() or 0)
                tip = Tip(own, name, 0, GENESIS, 0)
                agreed = canonical((SettlementPolicy() if policy is None else policy).model_dump(mode="json"))
                tip.add("cooperatives", name=name, currency=money.code, exponent=money.exponent, policy=agreed, at=at)
                joining, position = given, 0
            else:
                _require_same(known, currency, exponent, policy)
                tip = lock(connection, known)
                known.read_members(connection)
                joining, position = [one for one in given if one not in known.positions], len(known.positions)
            for place, member in enumerate(joining, position):
                tip.add("members", position=place, name=member, at=at)
            tip.write(connection)

        self._database.write(body, create=True)
        return self.cooperative(name)

    def cooperatives(self) -> list[Cooperative]:
        """All cooperatives, in the order in which they were created."""
        table = TABLES["cooperatives"]
        with self._database.read() as connection:
            names = connection.execute(sa.select(table.c.name).order_by(table.c.id)).scalars().all()
            every = [self._cooperative(connection, name) for name in names]
            for known in every:
                known.read_members(connection)
            return [_public(known) for known in every]

    def cooperative(self, name: str) -> Cooperative:
        """One cooperative.

        Raises:
            ValueError: If there is none of that name.
        """
        with self._database.read() as connection:
            known = self._cooperative(connection, name)
            known.read_members(connection)
            return _public(known)

    def record(
        self,
        cooperative: str,
        round: int,
        credit: Mapping[str, float],
        revenue: int = 0,
        key: str | None = None,
        decisions: Mapping[str, object] | None = None,
    ) -> Receipt:
        """Record a round: the credit of each member, the revenue that the round brought in, and what was decided in it.

        Args:
            cooperative: Name of the cooperative.
            round: Number of the round, from 0. Rounds may come in any order.
            credit: By member, finite, in the utility's unit. A member that is not named has none.
            revenue: What came in, in minor units.
            key: Your own name for this entry. An entry with the same key is recorded only once.
            decisions: What was decided in the round, as JSON has it. What is said of members stands under ``members``, by name: statements
                show it. ``None`` leaves it out.

        Returns:
            The receipt; the first one if the same was recorded before.

        Raises:
            ValueError: If the round or the key stands for something else already, a member or the cooperative is unknown, a credit is not
                finite or larger than 10^300, the decisions are no JSON or speak of somebody who is no member, or all revenue would come to
                more than 2^63 − 1.
            TypeError: If the round or the revenue is not a whole number.
        """
        number, amount, key = _whole("round", round), _whole("revenue", revenue), _checked_key(key)
        given, decided = _checked_credit(number, credit), _checked_decisions(number, decisions)

        def body(connection: Connection) -> Receipt:
            known = self._cooperative(connection, cooperative)
            tip = lock(connection, known)
            rows = sorted((known.position(connection, member), one) for member, one in given.items())
            for member in _spoken_of(decisions):
                known.position(connection, member)
            earlier = earlier_round(connection, known.id, number)
            if known.policy.decay < 1 and earlier is None:  # later, a settlement could no longer refuse it
                require_remembered(known.policy, latest_round(connection, known.id), number)
            named = None if key is None else named_by(connection, known.id, key)
            if earlier is not None:
                return same_round(connection, known, earlier, dict(rows), amount, key, decided)
            if named is not None:
                raise ValueError(f"key {shown(key)} of {shown(known.name)} stands for {named[1]} already: use another for round {number}")
            at = self._at()
            tip.add("rounds", round=number, key=key, n_credits=len(rows), at=at)
            for position, one in rows:
                tip.add("credits", round=number, position=position, credit=one)
            if decided is not None:
                tip.add("decisions", round=number, decided=decided)
            if amount:
                tip.earn(amount, number, None, at)
            tip.write(connection)
            return Receipt(tip.seq, tip.hash, False)

        return self._database.write(body)

    def record_revenue(self, cooperative: str, amount: int, key: str | None = None) -> Receipt:
        """Record revenue that belongs to no round.

        Args:
            cooperative: Name of the cooperative.
            amount: In minor units, at least 1.
            key: Your own name for this entry, so that it is recorded only once. Without a key, doing it again counts again.

        Returns:
            The receipt; the first one if the same was recorded before under this key.

        Raises:
            ValueError: If the amount is below 1, the key stands for something else already, the cooperative is unknown, or all revenue
                would come to more than 2^63 − 1.
            TypeError: If the amount is not a whole number.
        """
        amount, key = _whole("amount", amount, 1), _checked_key(key)

        def body(connection: Connection) -> Receipt:
            known = self._cooperative(connection, cooperative)
            tip = lock(connection, known)
            named = None if key is None else named_by(connection, known.id, key)
            if named is not None:
                return same_revenue(known, named, amount, str(key))
            tip.earn(amount, None, key, self._at())
            tip.write(connection)
            return Receipt(tip.seq, tip.hash, False)

        return self._database.write(body)

    def head(self, cooperative: str) -> Head:
        """The tip of a cooperative's chain, to keep elsewhere and verify against later.

        Raises:
            ValueError: If there is no such cooperative.
        """
        with self._database.read() as connection:
            row = connection.execute(HEAD, {"own": self._cooperative(connection, cooperative).id}).one()
            return Head(row.seq, row.hash)

    def settle(self, cooperative: str, revenue: int = 0, key: str | None = None) -> SettlementReceipt:
        """Pay out what came in since the settlement before, by the cooperative's policy.

        Args:
            cooperative: Name of the cooperative.
            revenue: What comes in with this settlement, in minor units. It is recorded in the same transaction.
            key: Your own name for this settlement, so that it is made only once.

        Returns:
            The receipt; the first one if it was made before under this key.

        Raises:
            ValueError: If there is nothing to pay, the key stands for something else already, the cooperative is unknown, or all revenue
                would come to more than 2^63 − 1. Without revenue, floors are paid from the reserve only under a key.
            TypeError: If the revenue is not a whole number.
        """
        amount, key = _whole("revenue", revenue), _checked_key(key)

        def body(connection: Connection) -> SettlementReceipt:
            known = self._cooperative(connection, cooperative)
            tip = lock(connection, known)
            known.read_members(connection)
            named = None if key is None else named_by(connection, known.id, key)
            if named is not None:
                return same_settlement(connection, known, named, amount, str(key))
            account = Account.read(connection, known)
            due = account.revenue + amount
            if not due and (key is None or not (known.policy.floor and account.reserve)):
                raise ValueError(
                    f"cooperative {shown(known.name)}: nothing came in since settlement {account.number}, so there is nothing to pay"
                    + ("; to pay floors from the reserve, give a key, so that it is done only once" if known.policy.floor else "")
                )
            at = self._at()
            if amount:
                tip.earn(amount, None, key, at)
            settlement = account.accounts.settle([due])
            payouts = dict(zip(known.positions, map(int, settlement.payouts[0]), strict=True))
            standings = dict(zip(known.positions, (float(one) + 0.0 for one in account.accounts.standing[0]), strict=True))
            paid = dict(zip(known.positions, map(int, account.accounts.paid[0]), strict=True))
            number, reserve, now = account.number + 1, account.reserve, account.accounts.now
            tip.add("settlements", number=number, revenue=due, reserve=reserve, now=now, key=key, n_payouts=len(payouts), at=at)
            for position, name in enumerate(known.positions):
                row = {"amount": payouts[name], "standing": standings[name], "paid": paid[name]}
                tip.add("payouts", settlement=number, position=position, **row)
            tip.write(connection)
            return SettlementReceipt(number, due, payouts, standings, paid, reserve, tip.seq, tip.hash, False)

        return self._database.write(body)

    def entries(self, cooperative: str) -> Iterator[Entry]:
        """All rows of a cooperative in the order of its chain, as they stood when the first was asked for. They are read a few at a time.

        Raises:
            ValueError: If there is no such cooperative.
        """
        with self._database.read() as connection:
            known = self._cooperative(connection, cooperative)
            with closing(chain_rows(connection, known.id)) as rows:
                for table, row in rows:
                    fields: dict[str, Value] = dict(zip(COLUMNS[table], row[1:-1], strict=True))
                    yield Entry(table, row.seq, {**fields, "cooperative": known.name}, row.hash)

    def verify(self, cooperative: str | None = None, expected: Mapping[str, Head] = MappingProxyType({})) -> Verification:
        """Walk the chains, recompute every hash and every settlement, and say what is wrong.

        Args:
            cooperative: The one to verify. ``None`` is all of them, and also checks that no row is without one.
            expected: Heads that were kept elsewhere, by cooperative. Their rows must still be there.

        Raises:
            ValueError: If there is no such cooperative, or this is no ledger at all. Whatever is wrong in the rows is reported, not raised.
        """
        kept = {checked_name("cooperative", name): head for name, head in expected.items()}
        if cooperative is not None:
            cooperative = checked_name("cooperative", cooperative)
        try:
            with self._database.read() as connection:
                if cooperative is not None and connection.execute(_ID, {"name": cooperative}).first() is None:
                    raise _unknown_cooperative(connection, cooperative)
                return verify_database(connection, cooperative, kept)
        except Damaged as error:
            return Verification([Problem(None, None, None, str(error))])

    def statement(self, cooperative: str, member: str) -> Statement:
        """The account of a member.

        Raises:
            ValueError: If there is no such cooperative or member.
        """
        with self._database.read() as connection:
            return read_statement(connection, self._cooperative(connection, cooperative), checked_name("member", member))

    def _cooperative(self, connection: Connection, name: str) -> Known:
        """What is known of a cooperative. It is read once, since it never changes."""
        known = self._known.get(name)
        if known is None:
            name = checked_name("cooperative", name)
            known = read_known(connection, name)
            if known is None:
                raise _unknown_cooperative(connection, name)
            self._known[name] = known
        return known

    def _at(self) -> str:
        return self._clock().astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _public(known: Known) -> Cooperative:
    return Cooperative(known.name, known.currency, known.policy, tuple(known.positions))


def _whole(name: str, number: object, least: int = 0) -> int:
    require_whole(name, number, "" if name == "round" else " of minor units (cents, say)")
    assert isinstance(number, int | np.integer)
    whole = int(number)
    if not least <= whole <= LARGEST:
        raise ValueError(f"{name}={shown(whole)}: must be from {least} to 2^63 − 1 = {LARGEST}")
    return whole


def _checked_key(key: str | None) -> str | None:
    return None if key is None else checked_name("key", key)


def _checked_members(members: Iterable[str]) -> list[str]:
    names = [checked_name("member", member) for member in items_of("members", members, "names")]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"member {shown(twice)} is named twice: names tell members apart")
    return names


def _checked_credit(round: int, credit: Mapping[str, float]) -> dict[str, float]:
    if not isinstance(credit, Mapping):
        raise ValueError(f"credit={shown(credit)} of round {round}: give the credit of each member, such as {{'Ada': 0.3, 'Bo': 0.1}}")
    checked: dict[str, float] = {}
    for member, one in credit.items():
        name = checked_name("member", member)
        if name in checked:
            raise ValueError(f"member {shown(name)} is named twice in round {round}: give one credit each")
        try:
            number = math.nan if isinstance(one, bool | str | bytes) else float(one)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not abs(number) <= LARGEST_CREDIT:
            raise ValueError(
                f"credit {shown(one)} of {shown(name)} in round {round}: must be a finite number, at most {LARGEST_CREDIT:g} in size"
            )
        checked[name] = number + 0.0  # −0.0 becomes 0.0
    return checked


def _spoken_of(decisions: Mapping[str, object] | None) -> Iterable[str]:
    """The members of whom decisions speak."""
    said = {} if decisions is None else decisions.get("members", {})
    return said if isinstance(said, Mapping) else ()


def _checked_decisions(round: int, decisions: Mapping[str, object] | None) -> str | None:
    """Decisions as canonical JSON."""
    if decisions is None:
        return None
    if not isinstance(decisions, Mapping) or not isinstance(decisions.get("members", {}), Mapping):
        raise ValueError(
            f"decisions={shown(decisions)} of round {round}: must be a mapping, in which 'members', if it is there, is one by name"
        )
    try:
        text = canonical(decisions)
        if json.loads(text) != decisions:  # a key that is no text, say, would come back as another
            raise ValueError("it reads back as something else")
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"decisions of round {round} are no JSON ({one_line(str(error))}): use text, finite numbers, lists and dictionaries"
        ) from None
    return text


def _require_same(known: Known, currency: str | None, exponent: int | None, policy: SettlementPolicy | None) -> None:
    there = known.currency
    code = there.code if currency is None else currency
    given = there if code == there.code and exponent is None else Currency.of(code, exponent)
    for what, agreed, now in (
        ("currency", there.code, given.code),
        ("exponent", there.exponent, given.exponent),
        ("policy", known.policy, known.policy if policy is None else policy),
    ):
        if agreed != now:
            raise ValueError(f"cooperative {shown(known.name)} exists with {what} {agreed}, and not {now}: it cannot be changed")


def _unknown_cooperative(connection: Connection, name: str) -> ValueError:
    names = connection.execute(sa.select(TABLES["cooperatives"].c.name).order_by(TABLES["cooperatives"].c.id)).scalars()
    return unknown_name("cooperative", name, [str(one) for one in names])


_ID = sa.select(TABLES["cooperatives"].c.id).where(TABLES["cooperatives"].c.name == sa.bindparam("name"))
_LAST_ID = sa.select(sa.func.max(TABLES["cooperatives"].c.id))
