"""What a tuning found, as a self-contained HTML page."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined

from ... import __version__
from ...files import write_text
from ...text import printable
from ..analysis.summary import spell
from ..intervals import Estimate
from ..pages.description import describe
from ..pages.drawing import Drawing, house_style
from .figures import by_parameter, held_out, history
from .found import Tuned
from .objectives import OBJECTIVES
from .plan import in_short, without_part
from .trainings import scoring_splits
from .words import PLACES, lead_in_search, row_of, sentences

TEMPLATE = "tuning.html.j2"
_SHARED = "proxycoop.training.pages"
"""Whose templates hold the style and the tables of all pages."""


def write_tuning(found: Tuned, out: Path) -> Path:
    """Write the page.

    Args:
        found: What the tuning found.
        out: The HTML file.

    Returns:
        The path.

    Raises:
        ValueError: If the file cannot be written.
    """
    settings = found.plan.settings
    others = [name for name in OBJECTIVES if name != found.objective]
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(_template),
        finalize=lambda value: printable(value) if isinstance(value, str) and not hasattr(value, "__html__") else value,
    )
    text = environment.get_template(TEMPLATE).render(
        found=found,
        settings=settings,
        title=OBJECTIVES[found.objective].title,
        meaning=OBJECTIVES[found.objective].meaning,
        sentences=sentences(found),
        drawings=_drawings(found),
        facts=[*_facts(found), *describe(settings.scenario.to_dict())],
        parameters=[[one.name, one.values_in_words, in_short({"": found.plan.default[one.name]})[1:]] for one in found.plan.parameters],
        columns=[("trial", "Number of the trial")]
        + [(without_part(one.name), "Value of the parameter") for one in found.plan.parameters]
        + [(name, OBJECTIVES[name].meaning) for name in (found.objective, *others)]
        + [("violations", "Share of rounds whose step broke somebody's profile"), ("", "")],
        trials=[row_of(found, one) for one in found.trials],
        failed=[f"trial {one.number + 1}: {one.failed}" for one in found.trials if one.failed],
        compared=_compared(found),
        rule=found.mechanism[0],
        yaml=found.mechanism[1].to_yaml(),
        version=__version__,
    )
    try:
        return write_text(out, text)
    except OSError as error:
        raise ValueError(f"page {str(out)!r} cannot be written: {error.strerror or error}") from error


def _drawings(found: Tuned) -> list[Drawing]:
    with house_style():
        return [history(found), by_parameter(found), *([held_out(found)] if found.held_out is not None else [])]


def _compared(found: Tuned) -> list[list[Any]]:
    """Rows of the table of held-out seeds: an objective, its means, and the difference."""
    compared = found.held_out
    if compared is None:
        return []
    rows: list[list[Any]] = []
    for name in (found.objective, *(name for name in OBJECTIVES if name != found.objective)):
        estimates = [compared.of("tuned", name), compared.of("default", name), compared.difference(name)]
        rows.append([OBJECTIVES[name].title, *(spell(one, PLACES) for one in estimates)])
    share = [compared.of("tuned", "violations"), compared.of("default", "violations"), compared.difference("violations")]
    rows.append(["violations, % of rounds", *(spell(one, 1, percent=True) for one in share)])
    in_search = [Estimate(one.score if one is not None else None, None) for one in (found.best, found.default)]
    in_search.append(Estimate(lead_in_search(found), None))
    rows.append([f"{OBJECTIVES[found.objective].title} in the search", *(spell(one, PLACES) for one in in_search)])
    return rows


def _facts(found: Tuned) -> list[tuple[str, str]]:
    settings, seeds = found.plan.settings, found.plan.seeds
    facts = [
        ("Tuned for", f"{OBJECTIVES[found.objective].title} ({found.objective})"),
        ("Trials", str(len(found.trials))),
        ("Tuning seeds", ", ".join(map(str, seeds))),
    ]
    if found.held_out is not None:
        facts.append(("Held-out seeds", ", ".join(map(str, found.held_out.seeds))))
    splits = len(scoring_splits(settings.evaluation_splits))
    facts.append(("Evaluation", f"{settings.episodes} episodes on each of {splits} data splits; others on held-out seeds"))
    chosen = [f"{name.replace('_', ' ')} {value}" for name, value in settings.training.items() if value is not None]
    return [*facts, ("Training", ", ".join(chosen)), ("Seed of the search", str(settings.sampler_seed))]


def _template(name: str) -> str:
    """A template of ours, or one that all pages share."""
    own = resources.files(__package__) / "templates" / name
    return (own if own.is_file() else resources.files(_SHARED) / "templates" / name).read_text(encoding="utf-8")
