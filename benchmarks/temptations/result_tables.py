"""The benchmark's tables, as Markdown."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence

from rows import damage, of, of_which, rules_in
from trials import LONGER, LOYAL, LOYAL_SCENARIO, LOYALTIES, SCENARIOS, Same

from proxycoop.training.analysis.summary import told

SHOWN: dict[str, tuple[str, dict[str, str]]] = {
    "forgeries": (
        "forged updates",
        {
            "welfare": "welfare",
            "clean": "clean_share",
            "corrupt": "corrupt_share",
            **{kind: f"sent/{kind}" for kind in ("echo", "noise", "twin", "boost")},
        },
    ),
    "values": (
        "declared values",
        {
            "welfare": "welfare",
            "clean": "clean_share",
            "smaller": "declared/smaller",
            "larger": "declared/larger",
            "own harm": "own_harm",
            "a principal's welfare": "principal_welfare",
            "largest rise of a loss": "realised_rise",
        },
    ),
    "honest": (
        "without temptations",
        {
            "welfare": "welfare",
            "clean": "clean_share",
            "corrupt": "corrupt_share",
            "own harm": "own_harm",
            "a principal's welfare": "principal_welfare",
        },
    ),
}
"""The tables: of each trial its title, and its columns with their measures."""
DAMAGES = {"damage": "welfare", "harm added": "own_harm"}
"""Columns of both trials once there are trainings without temptations: the measure less the same without (:func:`damage`)."""
UNITS = ("welfare", "return", "principal_welfare")
"""Measures in reward units, which are shown with one decimal."""
LOYALTY_COLUMNS = {
    "larger": "declared/larger",
    "smaller": "declared/smaller",
    "own harm": "own_harm",
    "a principal's welfare": "principal_welfare",
    "welfare": "welfare",
}


def not_trained(same: Same, asked: Collection[str]) -> list[str]:
    """Which of the rules asked for have no row in the tables, and why, as Markdown. Trials that agree share a list."""
    said: dict[tuple[str, ...], dict[str, list[str]]] = {}
    for (name, trial), found in same.items():
        like: dict[str, list[str]] = {}
        for rule, first in found.items():
            if rule != first:
                like.setdefault(first, []).append(f"`{rule}`")
        reasons = [f"- They pay like `{first}`: {', '.join(sorted(rules))}." for first, rules in like.items()]
        if refused := sorted(set(asked) - set(found)):
            reasons.append(f"- They cannot serve the scenario: {', '.join(f'`{rule}`' for rule in refused)}.")
        said.setdefault(tuple(reasons), {}).setdefault(SHOWN[trial][0], []).append(f"`{name}`")
    lines: list[str] = []
    for why, where in said.items():
        if why:
            places = "; ".join(f"{title} in {', '.join(names)}" for title, names in where.items())
            lines += [f"Rules without a row ({places}):", "", *why, ""]
    return lines


def tables(rows: Sequence[dict[str, str]], same: Same, asked: Collection[str]) -> str:
    """The tables of both trials in each scenario, and that of loyalty, as Markdown."""
    lines = not_trained(same, asked)
    for name in (one for one in SCENARIOS if any(row["scenario"] == one for row in rows)):
        compared = any(of_which(row, scenario=name, trial="honest") for row in rows)
        for trial, (title, columns) in SHOWN.items():
            rules = rules_in(rows, same, name, trial)
            if not rules:
                continue
            damages = DAMAGES if compared and trial != "honest" else {}
            head = ["rule", "seeds", *damages, *columns]
            lines += [f"**`{name}`, {title}**", "", f"| {' | '.join(head)} |", "|---|" + "---:|" * (len(head) - 1)]
            for rule in rules:
                here = {"scenario": name, "trial": trial, "rule": rule, "loyalty": 0.0}
                n_seeds = sum(of_which(row, **here) for row in rows)
                cells = [told(damage(rows, same, name, trial, rule, one), 1 if one in UNITS else 2) for one in damages.values()]
                cells += [told(of(rows, measure, **here), 1 if measure in UNITS else 2) for measure in columns.values()]
                lines.append(f"| `{rule}` | {n_seeds} | {' | '.join(cells)} |")
            lines.append("")
    if loyal := loyalty_rows(rows):
        lines += [f"**`{LOYAL_SCENARIO}`, declared values, by loyalty λ**", ""]
        lines += ["| rule | λ | seeds | " + " | ".join(LOYALTY_COLUMNS) + " |", "|---|---:|---:|" + "---:|" * len(LOYALTY_COLUMNS)]
        lines += [f"| `{rule}` | {loyalty:g} | {n_seeds} | {' | '.join(cells)} |" for rule, loyalty, n_seeds, cells in loyal]
        lines.append("")
    return "\n".join(lines)


def lengths(rows: Sequence[dict[str, str]]) -> str:
    """What trainings of other lengths come to, beside those of the usual one, as Markdown; empty if all have the same length."""
    here = [row for row in rows if row["trial"] in ("honest", "forgeries") and row["rule"] in LONGER and float(row["loyalty"]) == 0]
    by_length = {name: sorted({int(row["steps"]) for row in here if row["scenario"] == name}) for name in SCENARIOS}
    if all(len(found) < 2 for found in by_length.values()):
        return ""
    columns = ("agent-steps", "seeds", "welfare without", "with forgeries", "damage", "clean", "echo", "noise")
    lines = ["**Trained twice as long, with forged updates**", "", f"| scenario | rule | {' | '.join(columns)} |"]
    lines.append("|---|---|" + "---:|" * len(columns))
    for name, rule in itertools.product(SCENARIOS, LONGER):
        for steps in by_length[name] if len(by_length[name]) > 1 else ():
            part = [row for row in here if (row["scenario"], row["rule"], row["steps"]) == (name, rule, str(steps))]
            if not part:
                continue
            forged = [row for row in part if row["trial"] == "forgeries"]
            cells = [told(of(part, "welfare", trial="honest"), 1), told(of(forged, "welfare"), 1)]
            cells.append(told(damage(part, {}, name, "forgeries", rule, "welfare"), 1))
            cells += [told(of(forged, measure), 2) for measure in ("clean_share", "sent/echo", "sent/noise")]
            lines.append(f"| `{name}` | `{rule}` | {steps:,} | {len(forged)} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", ""])


def loyalty_rows(rows: Sequence[dict[str, str]]) -> list[tuple[str, float, int, list[str]]]:
    """By rule and λ: the seeds, and the measures as text; empty if only λ = 0 was trained."""
    values = [row for row in rows if (row["scenario"], row["trial"]) == (LOYAL_SCENARIO, "values") and row["rule"] in LOYAL]
    if all(float(row["loyalty"]) == 0 for row in values):
        return []
    found = []
    for rule, loyalty in itertools.product(LOYAL, (0.0, *LOYALTIES)):
        here = [row for row in values if row["rule"] == rule and float(row["loyalty"]) == loyalty]
        if here:
            cells = [told(of(here, measure), 1 if measure in UNITS else 2) for measure in LOYALTY_COLUMNS.values()]
            found.append((rule, loyalty, len(here), cells))
    return found
