"""An audit as a self-contained HTML page, and as tables for the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import rich.box
from rich.table import Table
from rich.text import Text

from ... import __version__
from ...text import one_line
from ..analysis.audit import Audit
from ..analysis.objections import Account, Findings, Totals
from ..analysis.summary import UNDEFINED, spell
from ..evaluate import Estimate
from .description import describe
from .drawing import Drawing, house_style
from .page import write_page
from .screening_figures import blocks, harms, value_losses

MOST_SEATS = 32
"""Largest number of seats for which the page shows, seat by seat, who blocks whom."""
COLUMNS = (
    ("on account of", "The reason for the objection: a value, a direction, the norm or a tag."),
    ("objected by", "The profile whose holders object. An update counts once, however many of them object."),
    ("updates objected to", "Contributed updates that they find inadmissible for this reason."),
    ("blocked", "Those of them that did not enter the step. Others may have objected to them too."),
    ("mended", "Those of them that entered the step after a filter had shrunk or projected them."),
    ("corrupt, %", "Share of corrupt lots among those objected to."),
    ("predicted harm", "Mean harm that the screening predicted for them."),
    (
        "realised harm",
        "Mean harm that each would have done, alone and at full length, on the value's probe test set, which no screening sees.",
    ),
    ("allowed", "Mean of what those who object allow: their tolerance, or what is left of their limit if that is less."),
    ("rightly, %", "Share of the updates objected to whose realised harm was indeed beyond what is allowed."),
    (
        "missed, %",
        "Share of the updates that entered the step whose realised harm, in the form in which they entered, was beyond what is allowed.",
    ),
)
"""Headings of the table by account and profile, and what they mean."""


def write_audit(findings: Findings, out: Path, *, agents: str, top: int = 10) -> Path:
    """Write the page.

    Args:
        findings: The findings of the audit.
        out: The HTML file.
        agents: Who played, in words.
        top: How many of the most harmful blocked updates to list.

    Raises:
        ValueError: If the file cannot be written.
    """
    audit = findings.audit
    return write_page(
        out,
        "audit.html.j2",
        audit=audit,
        agents=agents,
        facts=describe(audit.scenario.to_dict()),
        totals=[*totals_in_words(findings.totals), *findings.notes()],
        columns=COLUMNS,
        rows=[cells(account) for account in findings.accounts],
        worst=findings.worst(top),
        drawings=_drawings(audit),
        too_many_seats=audit.scenario.n_agents > MOST_SEATS,
        version=__version__,
        yaml=audit.scenario.to_yaml(),
    )


def totals_in_words(totals: Totals) -> list[str]:
    """The totals as sentences."""
    (contributed, corrupt), n = totals.contributed, totals.contributed[0]

    def counted(what: tuple[int, int]) -> str:
        share = f" ({100 * what[0] / n:.1f} %)" if n else ""
        return f"{what[0]:,}{share}, {what[1]:,} of them corrupt"

    return [
        f"contributed: {contributed:,} updates, {corrupt:,} of them corrupt",
        f"somebody objected to {counted(totals.objected)}",
        f"blocked: {counted(totals.blocked)}",
        f"entered after the filter mended them: {counted(totals.mended)}",
        f"entered unchanged although somebody objected: {counted(totals.let_in)}",
        *([f"left out by the bargain although nobody objected: {counted(totals.left_out)}"] if totals.left_out[0] else []),
    ]


def cells(account: Account) -> list[str]:
    """A row of the table by account and profile, as text; see :data:`COLUMNS`."""

    def number(value: float | None) -> str:
        return UNDEFINED if value is None else f"{value:.3g}".replace("-", "−")

    def share(value: float | None) -> str:
        return spell(Estimate(value, None), 0, percent=True)[0]

    return [
        account.account,
        account.profile,
        f"{account.objected:,}",
        f"{account.blocked:,}",
        f"{account.mended:,}",
        share(account.corrupt),
        number(account.predicted),
        number(account.realised),
        number(account.tolerance),
        share(account.rightly),
        share(account.missed),
    ]


def console_table(accounts: Sequence[Account]) -> Table:
    """The table by account and profile for the command line."""
    drawn = Table(box=rich.box.SIMPLE_HEAD, pad_edge=False)
    for i, (title, _) in enumerate(COLUMNS):
        drawn.add_column(title, justify="left" if i < 2 else "right", overflow="fold")
    for account in accounts:
        drawn.add_row(*(Text(one_line(cell)) for cell in cells(account)))
    return drawn


def _drawings(audit: Audit) -> list[Drawing]:
    """The figures for which there is data."""
    n_values, values = len(audit.scenario.values), list(audit.scenario.values)
    names, seats = audit.profile_names, [f"proxy_{i}" for i in range(audit.scenario.n_agents)]
    drawn = []
    with house_style():
        if audit.scenario.profiles and not audit.blocks_by_profile.isnan().all():
            drawn.append(blocks("blocks", audit.blocks_by_profile.numpy(), names, names[:-1], "holders of a profile"))
            if audit.scenario.n_agents <= MOST_SEATS:
                drawn.append(blocks("seats", audit.blocks_by_seat.numpy(), seats, seats, "each seat"))
        if n_values:
            screened, free = (losses.transpose(0, 1).double().numpy() for losses in (audit.value_losses, audit.unscreened_value_losses))
            tolerance, limit = audit.tolerance.double().mean(dim=1).numpy(), audit.max_rise.double().mean(dim=0).numpy()
            drawn.append(value_losses(values, screened, free, tolerance, limit, "the agents"))
        finite = audit.contributed & audit.norm.isfinite()
        if n_values and finite.any():
            predicted, realised = (numbers[finite][:, :n_values].double().numpy() for numbers in (audit.predicted, audit.realised))
            tolerance = audit.tolerance.double().mean(dim=(0, 1)).numpy()
            drawn.append(harms(values, predicted, realised, (audit.kept[finite] >= 1).numpy(), tolerance))
    return drawn
