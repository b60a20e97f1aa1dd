"""Rounds from a CSV file, for the ledger. The whole file is checked before anything is recorded."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass, field
from pathlib import Path

from ...credit.ledger.ledger import LARGEST_CREDIT, Cooperative
from ...credit.ledger.names import checked_name, shown
from ...credit.money.settlement import LARGEST
from ...registry import unknown_name

NEEDED = ("round", "member", "credit")
EXPORTED = ("cooperative", "seq", "position", "hash")
"""Columns of an exported ``credits.csv`` that are not read: they are about the rows' place in another ledger."""

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", re.ASCII)
_WHOLE = re.compile(r"[0-9]{1,40}", re.ASCII)


@dataclass
class CreditedRound:
    """A round of the file.

    Attributes:
        number: Number of the round.
        line: Line of the file, from 1, where it begins.
        credit: Credit by member.
        revenue: Revenue in minor units; ``None`` if no line gives it.
    """

    number: int
    line: int
    credit: dict[str, float] = field(default_factory=dict)
    revenue: int | None = None


def read_rounds(path: Path, cooperative: Cooperative) -> list[CreditedRound]:
    """Read the rounds of a CSV file.

    Its columns are ``round``, ``member`` and ``credit``, and optionally ``revenue``: in major units, in one of a round's lines or the same
    in all. It may also be a ``credits.csv`` that ``proxycoop ledger export`` wrote. The lines of a round need not stand together.

    Args:
        path: The file, in UTF-8.
        cooperative: The cooperative whose members may be named, and whose currency revenue is in.

    Returns:
        The rounds in the order in which they begin.

    Raises:
        ValueError: If the file cannot be read, or a line is wrong; the message names the line.
    """
    rounds: dict[int, CreditedRound] = {}
    name = repr(str(path))
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file, strict=True)
            header = next(rows, [])
            _check_header(header, name)
            line = rows.line_num + 1
            for row in rows:
                if row:
                    try:
                        _add(rounds, dict(zip(header, row, strict=True)) if len(row) == len(header) else None, len(row), line, cooperative)
                    except ValueError as error:
                        raise ValueError(f"{name}, line {line}: {error}") from None
                line = rows.line_num + 1
    except OSError as error:
        raise ValueError(f"{name} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is not in UTF-8: byte {error.start} cannot be read") from error
    except csv.Error as error:
        raise ValueError(f"{name}, line {rows.line_num}: no valid CSV: {error}") from error
    if not rounds:
        raise ValueError(f"{name} has no rounds: it needs lines with {', '.join(NEEDED)}")
    return list(rounds.values())


def _check_header(header: list[str], name: str) -> None:
    if len(header) == 1 and (between := next((sign for sign in ";\t|" if sign in header[0]), None)):
        raise ValueError(f"{name}, line 1: the columns are separated by {between!r}: save it with commas, and numbers with a decimal point")
    missing = [column for column in NEEDED if column not in header]
    known = (*NEEDED, "revenue", *EXPORTED)
    if missing:
        raise ValueError(
            f"{name}, line 1: has no column {', '.join(missing)}; the first line names the columns: {', '.join(NEEDED)}, revenue"
        )
    for column in header:
        if column not in known:
            raise ValueError(f"{name}, line 1: {unknown_name('column', column[:60], list(known))}")
        if header.count(column) > 1:
            raise ValueError(f"{name}, line 1: column {column!r} occurs twice")


def _add(rounds: dict[int, CreditedRound], row: dict[str, str] | None, n_cells: int, line: int, cooperative: Cooperative) -> None:
    """Add a line. A ValueError says what is wrong with it."""
    if row is None:
        raise ValueError(f"has {n_cells} cells, not as many as the first line")
    number, credit = round_of(row["round"]), credit_of(row["credit"])
    member = checked_name("member", row["member"])
    if member not in cooperative.members:
        raise unknown_name(f"member of {shown(cooperative.name)}", member, list(cooperative.members))
    one = rounds.setdefault(number, CreditedRound(number, line))
    if member in one.credit:
        raise ValueError(f"{shown(member)} occurs twice in round {number}")
    one.credit[member] = credit
    if row.get("revenue"):
        revenue = cooperative.currency.minor(row["revenue"])
        if one.revenue not in (None, revenue):
            raise ValueError(
                f"revenue {row['revenue']} of round {number} is not what an earlier line says: give it once, or the same in all lines"
            )
        one.revenue = revenue


def round_of(text: str) -> int:
    """A round's number, from text.

    Raises:
        ValueError: If the text is not a whole number from 0 to 2^63 − 1.
    """
    if not _WHOLE.fullmatch(text) or int(text) > LARGEST:
        raise ValueError(f"round {shown(text)}: must be a whole number from 0 to 2^63 − 1")
    return int(text)


def credit_of(text: str) -> float:
    """A credit, from text.

    Raises:
        ValueError: If the text is not a finite number, or is larger than a ledger takes.
    """
    if not _NUMBER.fullmatch(text) or abs(float(text)) > LARGEST_CREDIT:
        raise ValueError(f"credit {shown(text)}: must be a number such as 0.25 or -1e-3, at most {LARGEST_CREDIT:g} in size")
    return float(text)
