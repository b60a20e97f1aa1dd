"""An explanation as a self-contained HTML page, as tables and sentences for the command line, and as JSON and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rich.box
import yaml
from rich.table import Table
from rich.text import Text

from ... import __version__
from ...envs.observations.layout import ObservationLayout
from ...envs.rendering import profile_in_short
from ...text import one_line
from ..analysis.coalition_play import TARGETS
from ..analysis.explain import Explanation
from ..analysis.summary import spell, told
from ..evaluate import Estimate
from .description import describe
from .drawing import Drawing, house_style
from .explain_figures import behaviour, outcomes, pay, proxies
from .page import write_page

Column = tuple[str, str]
"""A heading and its meaning."""

PROXY_COLUMNS: tuple[Column, ...] = (
    ("rank", "Place of the proxy in its episode, by number of clean lots, most first."),
    ("clean lots", "How many clean lots it holds, mean over episodes."),
    (
        "worth",
        "What its policy is worth to all: its Shapley value in the game of whole episodes, in welfare (gain minus all costs).",
    ),
    ("pay", "What it was paid, minus its costs, in the episode in which all proxies play."),
    ("pay − worth", "Mean difference within an episode, with an interval of its own."),
    ("worth in gain", "The same Shapley value, in the utility's gain on the validation set."),
    ("worth on test data", "The same Shapley value, in the final utility on data that credit never touches."),
)
FEATURE_COLUMNS: tuple[Column, ...] = (
    ("feature", "A quantity that proxies observe: of a lot, or of the proxy and the cooperative."),
    (
        "welfare",
        "What seeing it is worth: its Shapley value in an episode's welfare. Either everybody's policy sees a feature, or nobody's does.",
    ),
    ("test data", "The same Shapley value, in the final utility on data that credit never touches."),
    ("influence, pp", "By how many percentage points it moves the probability of contributing a lot, up or down, on average."),
    (
        "tells clean, pp",
        "By how many percentage points seeing it raises the probability of contributing clean lots above that of corrupt lots.",
    ),
    (
        "direction",
        "Correlation of the feature with its change of the probability. Positive: a larger value makes contributing more likely.",
    ),
)
MOST_ROWS = 12
"""Features that the command line shows."""
_TOLD = 3
"""Features that a sentence names."""


def write_explanation(found: Explanation, out: Path, *, agents: str) -> Path:
    """Write the page.

    Args:
        found: The explanation.
        out: The HTML file.
        agents: Who played, in words.

    Raises:
        ValueError: If the file cannot be written.
    """
    scenario = found.scenario
    with house_style():
        drawings: list[Drawing] = [proxies(found.proxies), pay(found.proxies)]
        if any(found.features.is_read):
            drawings += [outcomes(found.features), behaviour(found.features)]
    layout = ObservationLayout.of(scenario)
    return write_page(
        out,
        "explain.html.j2",
        found=found,
        agents=agents,
        facts=describe(scenario.to_dict()),
        sentences=sentences(found),
        proxy_columns=PROXY_COLUMNS,
        proxy_rows=proxy_rows(found),
        profile_rows=profile_rows(found),
        feature_columns=FEATURE_COLUMNS,
        feature_rows=feature_rows(found),
        meanings=layout.describe(),
        drawings=drawings,
        version=__version__,
        yaml=yaml.safe_dump(scenario.to_dict(), sort_keys=False, allow_unicode=True),
    )


def sentences(found: Explanation) -> list[str]:
    """The results in words."""
    worth, clean = found.proxies.worth, found.proxies.clean.double().mean(dim=0)
    together = Estimate.of(worth.everybody[0] - worth.nobody[0])
    first, last = worth.means[0][0], worth.means[0][-1]
    said = [
        f"all proxies together are worth {told(together, 2)} of welfare per episode; of that, the proxy with the most clean lots "
        f"({clean[0]:.1f}) is worth {told(first, 2)}, the one with the fewest ({clean[-1]:.1f}) {told(last, 2)}",
        _pay_in_words(found.proxies.pearson, found.proxies.slope),
        f"the policy contributes {told(found.clean_share, 0, percent=True)} of the clean lots and "
        f"{told(found.corrupt_share, 0, percent=True)} of the corrupt ones"
        + _best("; it tells them apart mostly by", found, found.features.discrimination.means[0], 100, " pp"),
    ]
    seen = found.features.outcomes
    blind, seeing = (Estimate.of(part[0]) for part in (seen.nobody, seen.everybody))
    if not any(found.features.is_read):
        return [*said, "none of the features that it observes changes what it does"]
    said.append(
        f"if it saw nothing, an episode's welfare would be {told(blind, 2)}; it is {told(seeing, 2)}"
        + _best(", mostly by seeing", found, seen.means[0], 1, "")
    )
    read, unread = ([name for name, one in zip(seen.players, found.features.is_read, strict=True) if one == kind] for kind in (True, False))
    if unread:
        few = len(read) < len(unread)
        said.append(f"of {len(seen.players)} features it reads only {', '.join(read)}" if few else f"it does not read {', '.join(unread)}")
    return said


def proxy_rows(found: Explanation) -> list[list[str]]:
    """Rows of the table of proxies, as text; see :data:`PROXY_COLUMNS`."""
    part = found.proxies
    paid, over = ([Estimate.of(column) for column in numbers.unbind(dim=1)] for numbers in (part.returns, part.returns - part.welfare))
    return [
        [
            str(i + 1),
            f"{part.clean[:, i].double().mean():.1f}",
            *(_with_interval(estimate, 2) for estimate in (part.worth.means[0][i], paid[i], over[i])),
            *(_with_interval(part.worth.means[r][i], 4) for r in (1, 2)),
        ]
        for i in range(len(paid))
    ]


def profile_rows(found: Explanation) -> list[list[str]]:
    """Rows of the table of profiles, as text: profile, worth and pay of a holder. No rows if everybody holds the same profile."""
    part, profiles = found.proxies, found.scenario.profiles
    names = [*(profile_in_short(profile) for profile in profiles), "no profile"]
    held = [kind for kind in range(len(names)) if (part.kind == kind).any()]
    if len(held) < 2:
        return []
    return [
        [names[kind], *(_with_interval(part.of_profile(kind, numbers), 2) for numbers in (part.welfare, part.returns))] for kind in held
    ]


def feature_rows(found: Explanation) -> list[list[str]]:
    """Rows of the table of features that the policy reads, most influence first, as text; see :data:`FEATURE_COLUMNS`."""
    part = found.features
    order = sorted(range(len(part.is_read)), key=lambda i: -(part.influence[i].mean or 0.0))
    return [
        [
            part.outcomes.players[i],
            _with_interval(part.outcomes.means[0][i], 2),
            _with_interval(part.outcomes.means[2][i], 4),
            *(_with_interval(estimates[i], 1, percent=True) for estimates in (part.influence, part.discrimination.means[0])),
            spell(Estimate(part.direction[i], None), 2)[0],
        ]
        for i in order
        if part.is_read[i]
    ]


def console_table(columns: Sequence[Column] | Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table for the command line."""
    drawn = Table(box=rich.box.SIMPLE_HEAD, pad_edge=False)
    for i, column in enumerate(columns):
        drawn.add_column(column if isinstance(column, str) else column[0], justify="left" if i == 0 else "right", overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(one_line(cell)) for cell in row))
    return drawn


def to_dict(found: Explanation) -> dict[str, Any]:
    """Plain data for JSON: means with half-widths, and the numbers of every episode."""

    def plain(estimate: Estimate) -> list[float | None]:
        return [estimate.mean, estimate.half_width]

    part, seen, told_apart = found.proxies, found.features.outcomes, found.features.discrimination
    return {
        "scenario": found.scenario.to_dict(),
        "seeds": list(found.seeds),
        "words": sentences(found),
        "clean_share": plain(found.clean_share),
        "corrupt_share": plain(found.corrupt_share),
        "proxies": {
            "method": part.worth.method,
            "pearson": plain(part.pearson),
            "slope": plain(part.slope),
            "worth": {name: [plain(one) for one in part.worth.means[r]] for r, name in enumerate(TARGETS)},
            "nobody": {name: part.worth.nobody[r].tolist() for r, name in enumerate(TARGETS)},
            "everybody": {name: part.worth.everybody[r].tolist() for r, name in enumerate(TARGETS)},
            "episodes": _records(found),
        },
        "features": {
            "method": seen.method,
            "lots": found.features.n_lots,
            "noise_of_influence": found.features.noise,
            "blind": {name: plain(Estimate.of(seen.nobody[r])) for r, name in enumerate(TARGETS)},
            "seeing": {name: plain(Estimate.of(seen.everybody[r])) for r, name in enumerate(TARGETS)},
            "each": {
                name: {
                    "read": found.features.is_read[i],
                    **{target: plain(seen.means[r][i]) for r, target in enumerate(TARGETS)},
                    "influence": plain(found.features.influence[i]),
                    "discrimination": plain(told_apart.means[0][i]),
                    "direction": found.features.direction[i],
                }
                for i, name in enumerate(seen.players)
            },
        },
    }


def to_csv(found: Explanation) -> str:
    """CSV with one row for each proxy in each episode: what it holds, what it is worth and what it was paid."""
    records = _records(found)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def _records(found: Explanation) -> list[dict[str, Any]]:
    part = found.proxies
    names = [*(profile_in_short(profile) for profile in found.scenario.profiles), "no profile"]
    return [
        {
            "seed": found.seeds[e],
            "proxy": int(part.seats[e, i]),
            "rank": i + 1,
            "clean_lots": int(part.clean[e, i]),
            "profile": names[int(part.kind[e, i])],
            **{f"worth_{name}": float(part.worth.values[r, e, i]) for r, name in enumerate(TARGETS)},
            "pay": float(part.returns[e, i]),
        }
        for e in range(len(found.seeds))
        for i in range(part.returns.shape[1])
    ]


def _pay_in_words(pearson: Estimate, slope: Estimate) -> str:
    if pearson.mean is None or slope.mean is None:
        return "it is unknown whether pay follows worth: in every episode all proxies are worth the same, or are paid the same"
    low = pearson.mean - (pearson.half_width or 0.0)
    verdict = "pay follows worth" if low > 0.5 else "pay follows worth loosely" if low > 0 else "it is not certain that pay follows worth"
    return (
        f"{verdict}: within an episode their correlation is {told(pearson, 2)}, and a proxy that is worth 1 more than another "
        f"is paid {told(slope, 2)} more"
    )


def _best(before: str, found: Explanation, estimates: Sequence[Estimate], scale: float, unit: str) -> str:
    """The features with the highest values, as the end of a sentence. Only features whose intervals lie above 0 are named."""
    known = [
        (estimate.mean, name, estimate)
        for name, estimate in zip(found.features.outcomes.players, estimates, strict=True)
        if estimate.mean is not None and estimate.mean > (estimate.half_width or 0.0)
    ]
    best = sorted(known, key=lambda one: -one[0])[:_TOLD]
    if not best:
        return ""
    return f"{before} " + ", ".join(f"{name} (+{spell(e, 1 if scale == 100 else 2, percent=scale == 100)[0]}{unit})" for _, name, e in best)


def _with_interval(estimate: Estimate, places: int, *, percent: bool = False) -> str:
    return " ±\u00a0".join(part for part in spell(estimate, places, percent=percent) if part)
