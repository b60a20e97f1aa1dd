"""The benchmark's pictures: heat maps of what is sent and declared, welfare, and the curves of loyalty."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from result_tables import SHOWN, loyalty_rows
from rows import mean, of, of_which, rules_in
from trials import ITEMS, LOYAL, LOYAL_SCENARIO, LOYALTIES, SCENARIOS, TRIALS, Same

from proxycoop.training.analysis.summary import told
from proxycoop.training.pages.drawing import BLUE, RULE, VERMILION, WIDTH, Drawing, drawing, house_style
from proxycoop.training.pages.temptation_figures import heat_map

OVERVIEW = (
    ("clean", "forgeries", "clean_share"),
    ("echo", "forgeries", "sent/echo"),
    ("noise", "forgeries", "sent/noise"),
    ("larger", "values", "declared/larger"),
)
"""What the picture of all scenarios shows: title, trial and measure."""
WELFARE_LOOKS: Mapping[str, Mapping[str, Any]] = {
    "honest": {"color": "black", "marker": "|", "markersize": 7, "markeredgewidth": 1.5},
    "forgeries": {"color": BLUE, "marker": "o", "markersize": 4},
    "values": {"color": VERMILION, "marker": "s", "markersize": 4, "fillstyle": "none"},
}


def pictures(rows: Sequence[dict[str, str]], same: Same) -> list[Drawing]:
    """Heat maps of both trials in each scenario, one of all scenarios together, welfare, and the curves of loyalty."""
    drawn = []
    with house_style():
        for name in (one for one in SCENARIOS if any(row["scenario"] == one for row in rows)):
            for trial, (_, columns) in SHOWN.items():
                items = [measure for measure in columns.values() if measure in (*ITEMS, "clean_share", "corrupt_share")]
                if TRIALS[trial] is None or not (rules := rules_in(rows, same, name, trial)):
                    continue
                shares = [[of(rows, one, scenario=name, trial=trial, rule=rule, loyalty=0.0).mean for one in items] for rule in rules]
                titles = [one.partition("/")[2] or one.replace("_share", " lots") for one in items]
                drawn.append(heat_map(f"temptations-{name}-{trial}", rules, titles, shares, "share of rounds", share=True))
        if any(of_which(row, trial="forgeries") for row in rows):
            drawn.append(overview(rows, same))
            if any(of_which(row, trial="honest") for row in rows):
                drawn.append(welfares(rows, same))
        if loyalty_rows(rows):
            drawn.append(loyalty_curves(rows))
    return drawn


def overview(rows: Sequence[dict[str, str]], same: Same) -> Drawing:
    """What is sent and declared, by rule and scenario: the rule with the most clean lots among forgeries first."""
    names = [one for one in SCENARIOS if any(row["scenario"] == one for row in rows)]
    asked = [(*one, name) for one in OVERVIEW for name in names]
    rules = sorted({rule for name in names for rule in rules_in(rows, same, name, "forgeries")})
    shares = {rule: [mean(rows, same, measure, name, trial, rule) for _, trial, measure, name in asked] for rule in rules}

    def clean(rule: str) -> float:
        return -sum(part or 0.0 for part, (title, *_) in zip(shares[rule], asked, strict=True) if title == "clean")

    order = sorted(shares, key=clean)
    titles = [f"{re.split('[-_]', name)[0]} {title}" for title, _, _, name in asked]
    return heat_map("temptations", order, titles, [shares[rule] for rule in order], "share of rounds", share=True)


def welfares(rows: Sequence[dict[str, str]], same: Same) -> Drawing:
    """Welfare in each trial, by rule and scenario: the rule with the most welfare among forgeries first."""
    names = [one for one in SCENARIOS if any(row["scenario"] == one for row in rows)]
    found = {rule for name in names for rule in rules_in(rows, same, name, "forgeries")}
    rules = sorted(found, key=lambda rule: sum(mean(rows, same, "welfare", name, "forgeries", rule) or 0.0 for name in names))
    figure, said = Figure((WIDTH, 0.9 + 0.165 * len(rules)), layout="constrained"), []
    for ax, name in zip(figure.subplots(1, len(names), sharey=True, squeeze=False)[0], names, strict=True):
        for trial, look in WELFARE_LOOKS.items():
            there = [(x, y) for y, rule in enumerate(rules) if (x := mean(rows, same, "welfare", name, trial, rule)) is not None]
            ax.plot([x for x, _ in there], [y for _, y in there], linestyle="", label=SHOWN[trial][0], **look)
            said.append(f"{name}, {SHOWN[trial][0]}: {', '.join(f'{rules[y]} {x:.0f}' for x, y in reversed(there))}")
        for y, rule in enumerate(rules):
            ends = [mean(rows, same, "welfare", name, trial, rule) for trial in ("honest", "forgeries")]
            if None not in ends:
                ax.plot(ends, [y, y], color=RULE, linewidth=0.8, zorder=1)
        ax.set_yticks(range(len(rules)), rules)
        ax.set_ylim(-0.7, len(rules) - 0.3)
        ax.set_title(name)
        ax.xaxis.set_major_locator(MaxNLocator(4))
    figure.supxlabel("welfare, reward units an episode", fontsize="medium")
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=len(WELFARE_LOOKS))
    return drawing("temptations-welfare", figure, said)


def loyalty_curves(rows: Sequence[dict[str, str]]) -> Drawing:
    """Sell-out, own harm and principals' welfare by λ, a curve for each rule."""
    figure, said = Figure((WIDTH, 6.2), layout="constrained"), []
    panels = {
        "declared/larger": "larger tolerances, share",
        "own_harm": "own harm, tolerances",
        "principal_welfare": "a principal's welfare",
    }
    styles = dict(zip(LOYAL, ((BLUE, "-", "o"), (VERMILION, "--", "s"), ("#009E73", "-.", "^"), ("#CC79A7", ":", "D")), strict=True))
    for ax, (measure, title) in zip(figure.subplots(len(panels), 1, sharex=True), panels.items(), strict=True):
        for rule, (colour, dashes, marker) in styles.items():
            levels = (0.0, *LOYALTIES)
            estimates = [of(rows, measure, scenario=LOYAL_SCENARIO, trial="values", rule=rule, loyalty=level) for level in levels]
            known = [(i, one) for i, one in enumerate(estimates) if one.mean is not None]
            x, mean, half = ([i for i, _ in known], [one.mean or 0.0 for _, one in known], [one.half_width or 0.0 for _, one in known])
            ax.errorbar(x, mean, half, color=colour, linestyle=dashes, marker=marker, markersize=4, capsize=2, elinewidth=0.7, label=rule)
            said.append(f"{rule}, {title}: {', '.join(told(one, 2) for _, one in known)}")
        ax.set_ylabel(title)
        ax.set_xticks(range(len(LOYALTIES) + 1), [f"{level:g}" for level in (0.0, *LOYALTIES)])
    ax.set_xlabel("loyalty λ, reward units per tolerance")
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=len(LOYAL))
    return drawing("temptations-loyalty", figure, said)
