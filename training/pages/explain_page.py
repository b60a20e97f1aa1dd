"""An explanation as a self-contained HTML page, as tables and sentences for the command line, and as JSON and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rich.box
from rich.table import Table
from rich.text import Text

from ... import __version__
from ...envs.observations.layout import ObservationLayout
from ...envs.rendering import profile_in_short
from ...text import one_line
from ..analysis.coalition_play import TARGETS
from ..analysis.explain import Explanation, ProxyWorth
from ..analysis.ranking import is_beyond
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
    described = ObservationLayout.of(scenario).describe()
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
        meanings={name: described[name.partition("/")[2]] for name in found.features.outcomes.players},
        drawings=drawings,
        version=__version__,
        yaml=scenario.to_yaml(),
    )


def sentences(found: Explanation) -> list[str]:
    """The results in words."""
    apart = found.features.discrimination.means[0]
    said = [
        _worth_in_words(found.proxies),
        *([_pay_in_words(found.proxies.pearson, found.proxies.slope)] if found.scenario.n_agents > 1 else []),
        f"the policy contributes {_shares_in_words(found)}" + _most(found, apart, "it tells them apart most{} by", percent=True),
    ]
    seen = found.features.outcomes
    blind, seeing = (Estimate.of(part[0]) for part in (seen.nobody, seen.everybody))
    if not any(found.features.is_read):
        return [*said, "none of the features that it observes changes what it does"]
    said.append(
        f"if it saw nothing, an episode's welfare would be {told(blind, 2)}; it is {told(seeing, 2)}"
        + _most(found, seen.means[0], "it rises most{} by seeing")
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
    """Rows of the table of features that the policy reads, highest welfare first, as text; see :data:`FEATURE_COLUMNS`."""
    part = found.features
    return [
        [
            part.outcomes.players[i],
            _with_interval(part.outcomes.means[0][i], 2),
            _with_interval(part.outcomes.means[2][i], 4),
            *(_with_interval(estimates[i], 1, percent=True) for estimates in (part.influence, part.discrimination.means[0])),
            spell(Estimate(part.direction[i], None), 2)[0],
        ]
        for i in part.ranked(part.outcomes.means[0]).order
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


def _worth_in_words(part: ProxyWorth) -> str:
    """What all proxies are worth, and those with the most and the fewest clean lots, where these differ."""
    clean, means = part.clean.double().mean(dim=0), part.worth.means[0]
    together = told(Estimate.of(part.worth.everybody[0] - part.worth.nobody[0]), 2)
    if len(means) == 1:
        return f"the only proxy is worth {together} of welfare per episode"
    text = f"all proxies together are worth {together} of welfare per episode"
    if bool((part.clean == part.clean[:, :1]).all()):
        return f"{text}; in each of them, all have the same number of clean lots"
    return (
        f"{text}; of that, the proxy with the most clean lots ({clean[0]:.1f}) is worth {told(means[0], 2)}, "
        f"the one with the fewest ({clean[-1]:.1f}) {told(means[-1], 2)}"
    )


def _shares_in_words(found: Explanation) -> str:
    """Which share of the clean and of the corrupt lots is contributed, where there are any."""
    lots, n_principals = found.scenario.lots, found.scenario.principals
    n = n_principals * lots.per_principal
    n_corrupt = lots.corruption.mean_corrupt(n_principals, lots.per_principal)
    kinds = (
        ("clean lots", found.clean_share, n - n_corrupt),
        ("corrupt ones" if n_corrupt < n else "corrupt lots", found.corrupt_share, n_corrupt),
    )
    return " and ".join(f"{told(share, 0, percent=True)} of the {kind}" for kind, share, count in kinds if count)


def _pay_in_words(pearson: Estimate, slope: Estimate) -> str:
    if pearson.mean is None or slope.mean is None:
        return "it is unknown whether pay follows worth: in every episode all proxies are worth the same, or are paid the same"
    verdict = (
        "pay follows worth"
        if is_beyond(pearson, 0.5)
        else "pay follows worth loosely"
        if is_beyond(pearson) and is_beyond(pearson, 0.5, above=False)
        else "pay follows worth, but how closely is not certain"
        if is_beyond(pearson)
        else "pay goes against worth"
        if is_beyond(pearson, above=False)
        else "it is not certain that pay follows worth"
    )
    return (
        f"{verdict}: within an episode their correlation is {told(pearson, 2)}, and a proxy that is worth 1 more than another "
        f"is paid {told(slope, 2)} more"
    )


def _most(found: Explanation, estimates: Sequence[Estimate], opening: str, *, percent: bool = False) -> str:
    """Which feature has the highest estimate, as the end of a sentence, and whether that is certain.

    Args:
        found: The explanation.
        estimates: An estimate of each feature.
        opening: The words before the features; ``{}`` stands where "on average" is added if the first place is not certain.
        percent: Whether the estimates are shares, to be told in percentage points.
    """
    names, part = found.features.outcomes.players, found.features
    first, *others = part.ranked(estimates).order or (None,)
    if first is None:
        return ""
    if (estimates[first].mean or 0.0) <= 0:
        return "; no feature adds to that on average"

    def tell(i: int) -> str:
        text = _with_interval(estimates[i], 1 if percent else 2, percent=percent)
        return f"{names[i]} ({text}{' pp' * percent})"

    rivals = [names[i] for i in part.ranked(estimates).rivals]
    doubts = [] if is_beyond(estimates[first]) else ["covers 0" if estimates[first].half_width is not None else "is unknown"]
    if rivals and estimates[first].half_width is not None:
        more = f" and {len(rivals) - _TOLD} more" if len(rivals) > _TOLD else ""
        doubts.append(f"overlaps {'that' if len(rivals) == 1 else 'those'} of {', '.join(rivals[:_TOLD])}{more}")
    shown = [first, *(i for i in others if is_beyond(estimates[i]))][:_TOLD]
    doubt = f". This is not certain: the interval of {names[first]} {' and '.join(doubts)}" if doubts else ""
    return f"; {opening.format(' on average' if doubts else '')} {', then '.join(map(tell, shown))}{doubt}"


def _with_interval(estimate: Estimate, places: int, *, percent: bool = False) -> str:
    return " ±\u00a0".join(part for part in spell(estimate, places, percent=percent) if part)
