"""A member's statement as tables for the command line, as CSV and as a self-contained HTML page."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rich.box
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from ... import __version__
from ...credit.ledger.statement import Statement, StatementLine, StatementRound
from ...credit.money.money import Currency
from ...credit.money.settlement import SettlementPolicy
from ...files import write_text
from ...text import one_line
from .drawing import BLUE, VERMILION, WIDTH, Drawing, drawing, house_style
from .page import write_page

COLUMNS = (
    ("settlement", "Its number, and when it was made (UTC)."),
    ("rounds", "The first and the last round that it covers, and in brackets how many there are."),
    ("credit", "The member's credit in these rounds, summed, in the utility's unit."),
    ("standing", "The member's cumulative credit as the policy counts it, in the same unit."),
    ("share, %", "The member's share of all positive standings. The payout shows what the policy makes of it."),
    ("revenue", "The amount that was settled, for all members."),
    ("payout", "The amount paid to this member."),
    ("paid", "The amount paid to this member so far, this payout included."),
)
"""Headings of the table of settlements, and what they mean."""
ROUND_COLUMNS = (
    ("round", "Its number."),
    ("offered", "The member's lots that it offered."),
    ("entered", "Those of them that entered the step; in brackets the share of the update that did, where a filter changed it."),
    ("credit", "The member's credit in the round, in the utility's unit."),
    ("revenue of all", "The amount that the round brought in, for all members."),
    (
        "objections and refusals",
        "Who objected to which lot, over what, by how much; and what was refused, and why.",
    ),
)
"""Headings of the table of rounds, where the ledger says what was decided in them, and what they mean."""

_CSV_COLUMNS = (
    *("settlement", "at", "n_rounds", "first_round", "last_round", "credit", "standing", "share"),
    *("revenue", "payout", "paid", "reserve", "currency"),
)
_MOST_TOLD = 24  # settlements that a figure describes in words


def write_statement(statement: Statement, out: Path) -> Path:
    """Write the page.

    Raises:
        ValueError: If the file cannot be written.
    """
    return write_page(
        out,
        "statement.html.j2",
        statement=statement,
        facts=facts(statement),
        rules=policy_in_words(statement.policy, statement.currency),
        columns=COLUMNS,
        rows=[cells(line, statement.currency) for line in statement.lines],
        round_columns=ROUND_COLUMNS,
        rounds=[round_cells(one, statement.currency) for one in statement.rounds],
        drawings=_drawings(statement),
        version=__version__,
    )


def facts(statement: Statement) -> list[tuple[str, str]]:
    """The totals of a statement, as names and values."""
    money = statement.currency
    return [
        ("paid so far", money.format(statement.paid)),
        ("settlements", f"{len(statement.lines):,}"),
        ("member since", _time(statement.joined)),
        ("rounds since the last settlement", f"{statement.n_rounds:,}"),
        ("credit in these", _number(statement.credit)),
        ("to be settled next, for all", money.format(statement.revenue)),
        ("the cooperative's reserve", money.format(statement.reserve)),
    ]


def policy_in_words(policy: SettlementPolicy, money: Currency) -> list[str]:
    """How a cooperative settles, as sentences."""
    if policy.split == "equal":
        said = ["what is paid is split equally, whatever the credit"]
    else:
        said = ["what is paid is split in proportion to cumulative credit, or equally if nobody has any"]
        if policy.decay < 1:
            said.append(f"a round's credit counts {policy.decay:g} times as much after every further round")
        if policy.early < 1:
            said.append(f"credit counts {policy.early:g} times as much with every round that it comes later, so early rounds count most")
        if policy.solidarity:
            said.append(f"{100 * policy.solidarity:g} % of what is paid is split equally")
        if policy.clawback:
            said.append("credit counts with its sign; a member that turns out to have been overpaid waits until that is made good")
        else:
            said.append("a round's negative credit counts as 0")
    if policy.reserve:
        said.append(f"{100 * policy.reserve:g} % of every revenue is kept in reserve")
    if policy.floor:
        said.append(f"nobody gets less than {money.format(policy.floor)} in a settlement, as far as revenue and reserve reach")
    if policy.cap is not None:
        others = "the others by what is due to them" if policy.clawback else "the others in the same proportions"
        said.append(
            f"nobody gets more than {money.format(policy.cap)} in a settlement; what that keeps from one goes to {others}, "
            "and the rest into the reserve"
        )
    return said


def cells(line: StatementLine, money: Currency) -> list[str]:
    """A row of the table of settlements, as text; see :data:`COLUMNS`."""
    return [
        f"{line.number} · {_time(line.at)}",
        _rounds(line),
        _number(line.credit),
        _number(line.standing),
        f"{100 * line.share:.1f}",
        money.plain(line.revenue),
        money.plain(line.payout),
        money.plain(line.paid),
    ]


def round_cells(one: StatementRound, money: Currency) -> list[str]:
    """A row of the table of rounds, as text; see :data:`ROUND_COLUMNS`. What a ledger of another program says may look otherwise."""
    said, kept = one.said, one.said.get("kept", {})

    def entered(lot: object) -> str:
        part = kept.get(str(lot)) if isinstance(kept, Mapping) else None
        return f"{lot} ({100 * part:.0f} %)" if isinstance(part, float) else str(lot)

    return [
        str(one.round),
        ", ".join(map(str, _list(said, "offered"))) or "–",
        ", ".join(map(entered, _list(said, "entered"))) or "–",
        _number(one.credit),
        money.plain(one.revenue),
        "; ".join([*(_objection(it) for it in _list(said, "objections")), *(_refusal(it) for it in _list(said, "refused"))]) or "–",
    ]


def _list(said: Mapping[str, Any], name: str) -> list[Any]:
    part = said.get(name, [])
    return part if isinstance(part, list) else [part]


def _objection(it: Any) -> str:
    """An objection in words: ``proxy_3 objected to lot 2: nines 0.12 > 0.05``."""
    if not isinstance(it, Mapping):
        return str(it)
    amount, limit = it.get("amount"), it.get("limit")
    by_how_much = f" {_above(amount, limit)}" if isinstance(amount, float) and isinstance(limit, float) else ""
    return f"{it.get('by')} objected to lot {it.get('lot')}: {it.get('about')}{by_how_much}"


def _above(amount: float, limit: float) -> str:
    """``0.12 > 0.05``, with as many digits as tell the two apart, three at least."""
    for n_digits in range(3, 18):  # 17 tell any two numbers apart
        both = [f"{one:.{n_digits}g}" for one in (amount, limit)]
        if both[0] != both[1]:
            break
    return " > ".join(both).replace("-", "−")


def _refusal(it: Any) -> str:
    if not isinstance(it, Mapping):
        return str(it)
    return str(it.get("reason")) if it.get("lot") is None else f"lot {it['lot']}: {it.get('reason')}"


def console_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table for the command line. Names stand to the left and may be folded. Amounts are never shortened.

    Cells may hold any name that people chose; nothing in a name is read as markup.
    """
    drawn = Table(box=rich.box.SIMPLE_HEAD, pad_edge=False)
    for i, title in enumerate(titles):
        needed = max(cell_len(text) for text in (title, *(row[i] for row in rows)))
        drawn.add_column(
            Text(one_line(title)), justify="right" if i else "left", overflow="fold", no_wrap=i > 0, min_width=needed if i else 10
        )
    for row in rows:
        drawn.add_row(*(Text(one_line(cell)) for cell in row))
    return drawn


def write_csv(statement: Statement, out: Path) -> Path:
    """Write the settlements as CSV.

    Amounts are exact decimals in major units. Credit, standing and share have all their digits. Times are in UTC. The member's name is not
    in the file, and no cell can be read as a formula.

    Raises:
        ValueError: If the file cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_CSV_COLUMNS)
    money = statement.currency
    for line in statement.lines:
        amounts = (money.plain(amount) for amount in (line.revenue, line.payout, line.paid, line.reserve))
        rounds = (line.n_rounds, line.first_round, line.last_round)
        writer.writerow([line.number, line.at, *rounds, line.credit, line.standing, line.share, *amounts, money.code])
    try:
        return write_text(out, text.getvalue())
    except OSError as error:
        raise ValueError(f"{str(out)!r} cannot be written: {error.strerror or error}") from error


def _drawings(statement: Statement) -> list[Drawing]:
    """Payouts and shares over the settlements; no figure if there were none."""
    lines, money = statement.lines, statement.currency
    if not lines:
        return []
    number = np.array([line.number for line in lines])
    payout = np.array([line.payout for line in lines], dtype=np.float64) / 10**money.exponent
    share = np.array([line.share for line in lines])
    with house_style():
        figure = Figure((WIDTH, 3.4), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True)
        above.bar(number, payout, width=0.8 if len(lines) < 60 else 1.0, color=BLUE)
        above.set(title=f"Payouts, {money.code}", ylim=(0, None if payout.any() else 1))
        above.ticklabel_format(axis="y", useOffset=False, style="plain" if payout.max() < 1e7 else "sci")
        below.plot(number, share, color=VERMILION, marker="o", markersize=3.6, markevery=max(len(lines) // 24, 1))
        below.set(title="Share of all cumulative credit", xlabel="settlement", ylim=(-0.02, 1.02))
        below.set_xlim(number[0] - 0.6, number[-1] + 0.6)
        below.yaxis.set_major_formatter(PercentFormatter(1, 0, " %"))
        below.xaxis.set_major_locator(MaxNLocator(10, integer=True, min_n_ticks=1))
        above.yaxis.set_major_locator(MaxNLocator(5))
        told = lines if len(lines) <= _MOST_TOLD else (lines[0], *lines[-_MOST_TOLD + 1 :])
        said = [f"settlement {line.number}: {money.format(line.payout)}, {100 * line.share:.1f} % of cumulative credit" for line in told]
        if len(told) < len(lines):
            said.insert(1, f"{len(lines) - len(told)} settlements in between")
        return [drawing("payouts", figure, said)]


def _rounds(line: StatementLine) -> str:
    if line.first_round is None or line.last_round is None:
        return "–"
    if line.n_rounds == 1:
        return str(line.first_round)
    return f"{line.first_round}–{line.last_round} ({line.n_rounds:,})"


def _time(at: str) -> str:
    """A time to the minute. The CSV file has it in full."""
    return at[:16].replace("T", " ")


def _number(value: float) -> str:
    return f"{value:.4g}".replace("-", "−")
