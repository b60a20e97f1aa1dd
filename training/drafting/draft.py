"""A scenario on a table of one's own: what is guessed from the file, what is measured, and the scenario as commented YAML."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from ...checks import whole_number
from ...envs.scenario import Scenario
from ..analysis.calibrate import Calibration, best_start, calibrate
from ..analysis.stakes import Stakes, stakes
from .people import People
from .plan import plan
from .sheet import Sheet
from .table import Opened, Wishes, open_table

Progress = Callable[[int, int, str], None]
"""Called with how many parts are done, of how many, and what is being done."""
_TEACHES = 0.97
"""Public rows are doubled until they teach the model a log loss of at most this share of that of guessing."""
_MOST_PUBLIC = 500
_BEFORE, _AFTER = 4, 3
"""Parts of the work before and after the calibration; the cost may take more."""


@dataclass(frozen=True)
class Draft:
    """A scenario on a table, and how it came about.

    Attributes:
        scenario: The scenario.
        sheet: What is written of it, with a comment on every key; the rest is at its defaults.
        table: The table, and what was guessed about it.
        people: Groups, values, and what was not proposed.
        calibration: What was measured for the start, the rate, tolerances and limits.
        stakes: What was measured for the cost of contributing.
    """

    scenario: Scenario
    sheet: Sheet
    table: Opened
    people: People
    calibration: Calibration
    stakes: Stakes

    def to_yaml(self) -> str:
        """The scenario as YAML, with a comment on every key. The same file and wishes give the same bytes."""
        n_rows = len(self.table.dataset.labels)
        return (
            f"# Drafted by `proxycoop scenarios new` from {n_rows:,} rows of {self.table.path.name}. Every number is a proposal: change\n"
            "# what you know better. `proxycoop scenarios FILE --calibrate` measures the start, the rate and the tolerances again.\n"
            + self.sheet.to_yaml()
        )


def draft_scenario(
    path: str | Path,
    label: str,
    *,
    out: str | Path | None = None,
    attributes: Collection[str] | None = None,
    sites: str | None = None,
    principals: int | None = None,
    keep: Collection[str] = (),
    drop: Collection[str] = (),
    progress: Progress | None = None,
) -> Draft:
    """Draft a scenario on a table, and calibrate it.

    Args:
        path: The table: text (CSV and its kin) or Parquet, by the end of its name.
        label: Name of the column that the model learns to predict.
        out: The file that will hold the scenario, which names the table relative to its folder. By default it is in the table's folder.
        attributes: Names of the protected columns; by default they are found by name.
        sites: Name of the column whose levels are the places that hold the data; by default it is found by name.
        principals: Number of principals; by default 6, or as many as there are sites if these are 3 to 5.
        keep: Columns that are not to be dropped, whatever they look like.
        drop: Columns that are to be dropped.
        progress: Called before every part of the work.

    Returns:
        The draft. Same file, same wishes, same scenario.

    Raises:
        ValueError: If the file cannot be read, there is no such column, the label is no label, there are too few rows, or a cooperative
            on this table learns nothing.
    """
    if principals is not None and not 2 <= whole_number("principals", principals, 2) <= 64:
        raise ValueError(f"principals={principals}: must be from 2 to 64 for a draft; raise it in the file afterwards")
    path, steps, sheet = Path(path), _Steps(progress), Sheet()
    steps.next("the file and its columns")
    table = open_table(path, Wishes(label, attributes, sites, principals, keep, drop), sheet)
    steps.next("the cooperative")
    whom = plan(table, sheet)
    try:
        steps.next("the public rows")
        first = Scenario.model_validate(sheet.settings)
        taught = _taught(first, sheet, len(table.dataset.labels))
        made = calibrate(taught, progress=steps.within)
        _put_calibration(made, sheet)
        at_stake = stakes(made.proposed, progress=steps.next)
    except ValueError as refusal:
        raise ValueError(f"a scenario on {path.name!r} was drafted, but it does not play: {refusal}") from None
    _put_stakes(at_stake, sheet)
    scenario = Scenario.model_validate(sheet.settings)
    folder = Path(out).parent if out is not None else path.parent
    sheet.settings["data"]["file"]["path"] = Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
    steps.end()
    return Draft(scenario, sheet, table, whom, made, at_stake)


class _Steps:
    """Counts the parts of the work."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._done, self._total = 0, 22

    def next(self, what: str) -> None:
        """Another part begins."""
        self._total = max(self._total, self._done + 1)
        self._tell(what)
        self._done += 1

    def within(self, done: int, total: int, what: str) -> None:
        """A part of the calibration begins."""
        self._done, self._total = _BEFORE - 1 + done, _BEFORE - 1 + total + _AFTER
        self._tell(what)

    def end(self) -> None:
        """Everything is done."""
        self._done = self._total
        self._tell("done")

    def _tell(self, what: str) -> None:
        if self._progress is not None:
            self._progress(self._done, self._total, what)


def _taught(scenario: Scenario, sheet: Sheet, n_rows: int) -> Scenario:
    """The scenario with enough public rows that a start is better than guessing, if so many can be spared."""
    first = rows = scenario.data.public_rows
    while True:
        scenario = scenario.model_copy(update={"data": scenario.data.model_copy(update={"public_rows": rows})})
        guessing, best = best_start(scenario)
        more = min(2 * rows, n_rows // 10, _MOST_PUBLIC)
        if best <= _TEACHES * guessing or more <= rows:
            break
        rows = more
    how = (
        "a fiftieth of the rows, 12 to 60, or as many as hold two of the rarest class"
        if rows == first
        else f"measured: {first} taught it little more than guessing, so they were doubled until its log loss is {1 - _TEACHES:.0%} below "
        "that, or they can be doubled no more"
    )
    sheet.put("data.public_rows", rows, f"rows that the model is trained on before round 1; {how}")
    return scenario


def _put_calibration(made: Calibration, sheet: Sheet) -> None:
    """The start, the learning rate, tolerances and limits."""
    changes, best = made.changes(), max(made.gains.values())
    splits = f"means over {made.n_splits} data splits"
    start = {key: changes["start"][key] for key in ("steps", "lr")}
    sheet.put(
        "start",
        start,
        f"training on the public rows, measured ({splits}). Log loss on the validation rows, in nats: guessing {made.guessing:.3f}, "
        f"this start {made.proposed_start:.3f}, the best that public rows teach {made.best_start:.3f}; half of that is for the lots",
    )
    sheet.put(
        "substrate",
        sheet.settings["substrate"] | changes["substrate"],
        f"how updates are computed. local_lr is measured ({splits}): an episode of all clean lots gains {made.proposed_gain:.3f} nats, "
        f"{made.proposed_gain / best:.0%} of what the best rate gains; beyond it corrupt lots do more harm",
    )
    if made.proposed.profiles:
        said = (
            "who protects what. Tolerances (of an update) and limits (of an episode) are measured: each would block "
            f"{made.blocked:.0%} of all updates, corrupt ones included, but a limit is at least the tolerance. What people tolerate is "
            "theirs to say"
        )
        sheet.put("profiles", changes["profiles"], said)


def _put_stakes(at_stake: Stakes, sheet: Sheet) -> None:
    """The cost of contributing."""
    tried = ", ".join(f"{equal:.0f} of {planner:.0f} at {cost:g}" for cost, (planner, equal) in sorted(at_stake.tried.items()))
    found = "half" if at_stake.is_dilemma else "NOT half, which no cost that was tried came to,"
    sheet.put(
        "reward.contribution_cost",
        at_stake.cost,
        "cost of a lot in a round, in reward units, measured: best replies under equal shares reach "
        f"{found} of the planner's welfare ({tried})",
    )
