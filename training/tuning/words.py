"""What a tuning found, in sentences and in a table for the command line."""

from __future__ import annotations

import rich.box
from rich.table import Table
from rich.text import Text

from ...text import one_line
from ..analysis.summary import told
from ..intervals import Estimate
from .found import Tuned
from .objectives import FLOOR, OBJECTIVES
from .plan import in_short, without_part
from .search import Trial

MOST_SHOWN = 10
"""Most trials in the table of the command line."""
PLACES = 2
"""Decimals of scores."""
_MANY_AT_FLOOR = 0.1


def sentences(found: Tuned) -> list[str]:
    """What was found: the best trial, the comparison on held-out seeds, the winner's curse, and what to be careful about."""
    return [_search(found), *_held_out(found), *_cautions(found)]


def _search(found: Tuned) -> str:
    best, default = found.best, found.default
    n_seeds, title = len(found.plan.seeds), OBJECTIVES[found.objective].title
    said = (
        f"Of {_counted(len(found.trials), 'trial')} of {_counted(n_seeds, 'tuning seed')} each, trial {best.number + 1} has the highest "
        f"{title}: {in_figures(best.score)} with {in_short(best.values)}."
    )
    if default is None:
        return f"{said} The defaults ({in_short(found.plan.default)}) are not within the ranges, so they are no trial."
    if default.number == best.number:
        return f"{said} These are the defaults."
    how = f"scored {in_figures(default.score)}" if default.score is not None else "failed"
    return f"{said} The defaults ({in_short(default.values)}) {how}."


def _held_out(found: Tuned) -> list[str]:
    compared, title = found.held_out, OBJECTIVES[found.objective].title
    if compared is None:
        return ["The search found nothing better than the defaults, so nothing was trained on held-out seeds."]
    gap, tuned, default = compared.difference(found.objective), *(compared.of(which, found.objective) for which in ("tuned", "default"))
    where = f"On {_counted(len(compared.seeds), 'held-out seed')}, which no trial trained with"
    numbers = (
        f"{where}, the tuned parameters reach {told(tuned, PLACES)} and the defaults {told(default, PLACES)}. "
        f"The difference is {told(gap, PLACES)}, paired by seed and data split."
    )
    if found.is_better:
        verdict = f"The tuned parameters are better: the whole 95 % interval of the difference in {title} is above 0."
    elif found.is_worse:
        verdict = "The tuned parameters are worse than the defaults there, so the search found nothing better."
    else:
        verdict = "The interval of the difference holds 0, so the search found nothing that is certainly better than the defaults."
    return [numbers, verdict, _curse(found)]


def _curse(found: Tuned) -> str:
    """What the score in the search was worth."""
    compared = found.held_out
    assert compared is not None
    there = compared.of("tuned", found.objective).mean
    said = f"The tuned parameters scored {in_figures(found.best.score)} in the search, and {in_figures(there)} on held-out seeds."
    if (led := lead_in_search(found)) is not None:
        gap = compared.difference(found.objective).mean
        said += f" They led the defaults by {in_figures(led)} in the search, and by {in_figures(gap)} there."
    return f"{said} The highest of many noisy scores is too high on average (the winner’s curse): report the held-out numbers."


def lead_in_search(found: Tuned) -> float | None:
    """By how much the best trial scored more than the defaults; ``None`` if they are no trial, or failed."""
    best, default = found.best.score, None if found.default is None else found.default.score
    return None if best is None or default is None else best - default


def _cautions(found: Tuned) -> list[str]:
    said = []
    if failed := [one for one in found.trials if one.failed]:
        said.append(f"{_counted(len(failed), 'trial')} failed; trial {failed[0].number + 1}: {failed[0].failed}.")
    share = share_at_floor(found.best)
    if found.objective == "nash" and share > _MANY_AT_FLOOR:
        said.append(
            f"In the best trial, {100 * share:.0f} % of the principals’ balanced returns are below {FLOOR:g} and count as {FLOOR:g}: among "
            "those, Nash welfare tells nothing apart. Consider --for worst_off."
        )
    return [*said, *found.plan.notes]


def share_at_floor(trial: Trial) -> float:
    """Share of the principals' returns in a trial that Nash welfare takes for its floor."""
    numbers = [number for row in trial.scores.get("at_floor", []) for number in row]
    return sum(numbers) / len(numbers) if numbers else 0.0


def console_table(found: Tuned) -> Table:
    """The best trials and the defaults, for the command line."""
    settings = found.plan.settings
    title = f"{settings.rule} in {settings.scenario.name}: {OBJECTIVES[found.objective].title} at the tuning seeds"
    drawn = Table(title=Text(one_line(title)), box=rich.box.SIMPLE_HEAD, pad_edge=False)
    names = [one.name for one in found.plan.parameters]
    others = [name for name in OBJECTIVES if name != found.objective]
    for column in ("trial", *map(without_part, names), found.objective, *others, "violations", ""):
        drawn.add_column(column, justify="right" if column else "left", overflow="fold")
    ranked = sorted((one for one in found.trials if one.score is not None), key=lambda one: (-(one.score or 0.0), one.number))
    for one in ranked[:MOST_SHOWN] + [one for one in ranked[MOST_SHOWN:] if one.is_default]:
        drawn.add_row(*(Text(one_line(cell)) for cell in row_of(found, one)))
    return drawn


def row_of(found: Tuned, trial: Trial) -> list[str]:
    """A trial in a table: its number from 1, its values, its scores by objective, and what is to be said of it."""
    values = [in_short({"": trial.values[one.name]}).removeprefix("=") for one in found.plan.parameters]
    names = [found.objective, *(name for name in OBJECTIVES if name != found.objective)]
    scores = [in_figures(mean_of(trial, name)) for name in names]
    scores.append(told(Estimate(mean_of(trial, "violations"), None), 0, percent=True))
    remark = (
        "failed"
        if trial.failed
        else ", ".join(word for word, holds in (("best", trial.number == found.best.number), ("default", trial.is_default)) if holds)
    )
    return [str(trial.number + 1), *values, *scores, remark]


def mean_of(trial: Trial, objective: str) -> float | None:
    """Mean of an objective, or of ``violations``, over the tuning seeds and their splits; ``None`` if the trial failed."""
    numbers = [number for row in trial.scores.get(objective, []) for number in row]
    return sum(numbers) / len(numbers) if numbers else None


def in_figures(number: float | None) -> str:
    """A score as text; ``–`` for none."""
    return told(Estimate(number, None), PLACES)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"
