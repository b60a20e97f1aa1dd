"""What commands tell of a scenario's start and scales: notes where they make no sense, and ``proxycoop scenarios NAME --calibrate``."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from ..terminal import add_row, complain, remark, say, show, table_of
from .options import load_scenario, outputs_of

if TYPE_CHECKING:
    from ...envs.scenario import Scenario
    from ..analysis.calibrate import Calibration

_TRAINING = 120_000  # agent-steps, the default of `train`
_QUIET = 10.0
"""Seconds after which a line tells what is measured, where there is no terminal for a bar."""


def examine(loaded: Scenario, name: str) -> None:
    """Tell, once and in one line each, what makes no sense about a scenario's start and scales.

    Where its data or its model cannot be had, nothing is told: whoever plays it is told then.

    Args:
        loaded: The scenario.
        name: Its name or path, as it was given.
    """
    from ..analysis.diagnosis import diagnose

    try:
        found = diagnose(loaded)
    except ValueError:
        return
    for finding in found:
        remark(str(finding))
    if found:
        remark(f"`proxycoop scenarios {name} --calibrate` measures and proposes what makes sense")


@contextmanager
def parts_told() -> Iterator[Callable[[int, int, str], None]]:
    """Show how far a long work is: give a function that takes how many parts are done, of how many, and what is being done.

    On a terminal there is a bar, and elsewhere a line now and then.
    """
    from tqdm import tqdm

    with tqdm(unit=" parts", dynamic_ncols=True, delay=1, disable=None) as bar:
        due = monotonic() + _QUIET

        def move(done: int, total: int, what: str) -> None:
            nonlocal due
            bar.total = total
            bar.set_postfix_str(what)
            bar.update(done - bar.n)
            if bar.disable and monotonic() > due:  # there is no terminal to show it
                due = monotonic() + _QUIET
                complain(f"{done} of {total} parts are done, now {what}\n")

        yield move


def calibrate_scenario(
    name: str,
    overrides: list[str] | None,
    *,
    rule: str | None,
    blocked: float | None,
    episodes: int | None,
    seed: int | None,
    out: Path | None,
    overwrite: bool,
) -> None:
    """Do what ``proxycoop scenarios NAME --calibrate`` does; ``None`` stands for an option that was not given.

    Raises:
        ValueError: If the scenario, the rule or a number is refused, or the file is not to be written.
    """
    from ...files import write_text
    from ..analysis.calibrate import BLOCKED, EPISODES, RULE, calibrate

    loaded = load_scenario(name, overrides)
    outputs = outputs_of("scenarios", overwrite, out, scenarios=[name])
    episodes = EPISODES if episodes is None else episodes
    blocked = BLOCKED if blocked is None else blocked
    with parts_told() as move:
        try:
            made = calibrate(loaded, rule=rule or RULE, blocked=blocked, episodes=episodes, seed=seed or 0, progress=move)
        except ValueError as refusal:
            raise ValueError(f"--{refusal}" if str(refusal).startswith("blocked=") else str(refusal)) from None
    for finding in made.before:
        remark(str(finding))
    _report(made, episodes)
    for finding in made.after:
        remark(f"with the proposal, too: {finding}")
    text = as_yaml(made, name, overrides, out)
    if out is None:
        say(f"\n{text}")
        return
    with outputs:
        write_text(out, text)
    say(f"wrote {out}; next: proxycoop play -s {out}\n")


def _report(made: Calibration, episodes: int) -> None:
    """What was measured, as tables and sentences."""
    from ..analysis.calibrate import SHARES

    now, then = made.scenario.start, made.proposed.start
    say(
        f"{made.scenario.name}, {episodes} episodes on each of {made.n_splits} data splits\n\n"
        f"Log loss of the start on the validation rows, in nats: guessing {made.guessing:.3f}, now {made.start:.3f} "
        f"({now.steps} steps of {now.lr:g}), proposed {made.proposed_start:.3f} ({then.steps} steps of {then.lr:g}), "
        f"the best that the public rows teach {made.best_start:.3f}.\n\n"
        "Gain of an episode of all clean lots, without screening, from the proposed start:\n"
    )
    part, setting = made.searched.split(".")
    own, chosen = (getattr(getattr(one, part), setting) for one in (made.scenario, made.proposed))
    best = max(made.gains.values())
    rows = [(rate, gain, "") for rate, gain in made.gains.items()] + [(chosen, made.proposed_gain, f"proposed; it is {own:g} now")]
    table = table_of(made.searched, "gain", "of the best", "")
    for rate, gain, remarks in sorted(rows):
        add_row(table, f"{rate:g}", f"{gain:z.3g}".replace("-", "−"), f"{gain / best:.0%}" if gain > 0 else "–", remarks)
    show(table)
    if made.levels:
        shares = " / ".join(f"{share:.0%}" for share in SHARES)
        say(f"\nWhat updates do at the proposed start and rate. Levels that would block {shares} of them, as a setting of a profile:\n")
        bounds = ("tolerances", "relative_tolerances", "limits", "relative_limits")
        table = table_of("value", "loss", "harmed by", *bounds)
        for level in made.levels:
            levels = (" / ".join(f"{number:.2g}" for number in getattr(level, bound)) for bound in bounds)
            add_row(table, level.value, f"{level.loss:.3g}", f"{level.harmful:.0%}", *levels)
        show(table, spare=("harmed by", "loss"))
    say(
        f"\nSpeed under {made.rule}: {made.speed:,.0f} agent-steps a CPU second, without the learner. A training of {_TRAINING:,} "
        f"agent-steps takes {_TRAINING / made.speed:,.0f} CPU seconds, and what the learner takes.\n"
    )


def as_yaml(made: Calibration, base: str, overrides: Iterable[str] | None, out: Path | None) -> str:
    """The proposal as a scenario that extends the one that was measured.

    Args:
        made: What was measured.
        base: Name or path of the scenario; a path is written relative to the file.
        overrides: What ``--set`` changed: these parts are written in full.
        out: The file that will hold it, if any.
    """
    from ... import strict_yaml

    extends = base
    if base.endswith((".yaml", ".yml")):
        place = out.parent if out is not None else Path()
        extends = Path(os.path.relpath(os.path.realpath(base), os.path.realpath(place))).as_posix()  # a folder may be a link
    plain, changes = made.proposed.to_dict(full=True), made.changes()
    parts = dict.fromkeys(assignment.partition("=")[0].partition(".")[0] for assignment in overrides or ())
    changed = {part: plain[part] for part in parts if part != "name"} | {
        part: plain[part] if part in parts else change for part, change in changes.items()
    }
    level = f"{made.blocked:.0%} of the updates" if made.levels else "no update"
    head = (
        f"# Measured by `proxycoop scenarios --calibrate`: {made.searched} brings two thirds of the best gain, and each tolerance and\n"
        f"# limit would block {level}, but for limits that are raised to the tolerance for the same value.\n"
    )
    return head + strict_yaml.write({"extends": extends, "name": f"{made.scenario.name[:50]}-calibrated", **changed})
