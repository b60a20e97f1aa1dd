"""The chain of a ledger: every row carries a hash of itself and of the row before, so that no row can be changed alone.

A row's hash is the SHA-256, in lowercase hexadecimal digits, of the UTF-8 of the canonical JSON of ::

    [hash of the row before, name of the table, {column: value, …}]

The columns are all but ``hash`` and ``cooperative_id``. In place of the latter stands ``cooperative``, the cooperative's name. Before the
first row stand 64 zeros. Canonical JSON has sorted keys and no spaces, escapes everything beyond ASCII, and has neither NaN nor infinities.
Floats are written with the fewest digits that read back as the same float64, as Python and JavaScript do, and whole ones with ``.0``.

Whoever may write the database can still write a new chain. To notice that, compare the head, which is the last hash, with one that was kept
elsewhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

Value = str | int | float | None
"""What a column may hold."""

GENESIS = "0" * 64
"""The hash before a cooperative's first row."""

CHAINED = ("cooperatives", "members", "rounds", "credits", "decisions", "revenue", "settlements", "payouts")
"""The tables whose rows make up the chain."""


@dataclass(frozen=True)
class Head:
    """The tip of a cooperative's chain. Whoever keeps it elsewhere notices when rows are rewritten or missing.

    Attributes:
        seq: Number of the last row, from 1.
        hash: Hash of the last row.
    """

    seq: int
    hash: str


@dataclass(frozen=True)
class Entry:
    """A row of the ledger.

    Attributes:
        table: The table that it stands in.
        seq: Its place in the cooperative's chain, from 1.
        fields: What its hash covers: every column but ``hash`` and ``cooperative_id``, and ``cooperative``, the cooperative's name.
        hash: Its hash, as stored.
    """

    table: str
    seq: int
    fields: Mapping[str, Value]
    hash: str


_ENCODER = json.JSONEncoder(ensure_ascii=True, sort_keys=True, separators=(",", ":"), allow_nan=False)


def canonical(value: object) -> str:
    """Canonical JSON.

    Raises:
        ValueError: If it holds NaN or an infinity.
        TypeError: If it holds something that JSON does not have.
    """
    return _ENCODER.encode(value)


def link(previous: str, table: str, fields: Mapping[str, Value]) -> str:
    """The hash of a row.

    Args:
        previous: The hash of the row before, or :data:`GENESIS`.
        table: The table's name.
        fields: What the hash covers, see :class:`Entry`.

    Raises:
        ValueError: As :func:`canonical` does.
        TypeError: As :func:`canonical` does.
    """
    return hashlib.sha256(canonical([previous, table, fields]).encode()).hexdigest()
