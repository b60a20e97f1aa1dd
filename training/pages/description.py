"""A cooperative in words, for pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...envs.rendering import direction_in_short
from ...envs.screening.profiles import Profile
from ...envs.screening.verdicts import Screening


def describe(scenario: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The cooperative in short, as names and texts."""
    lots, reward = scenario["lots"], scenario["reward"]
    screening = Screening.model_validate(scenario["screening"])
    rows = lots["rows"] if isinstance(lots["rows"], int) else ", ".join(map(str, lots["rows"]))
    corruption = lots["corruption"]
    wrong = "rows linked wrongly" if corruption["what"] == "links" else "labels swapped"
    corrupt = f", {100 * corruption['share']:.0f} % of them corrupt ({100 * corruption['rate']:.0f} % of {wrong})"
    values = [f"{name} ({str(value['kind']).replace('_', ' ')})" for name, value in scenario["values"].items()]
    profiles = [_profile(Profile.model_validate(profile)) for profile in scenario["profiles"]]
    return [
        ("Principals (N)", str(scenario["principals"])),
        ("Lots each (K)", f"{lots['per_principal']} of {rows} rows{corrupt if corruption['share'] else ''}"),
        ("Rounds (T)", str(scenario["horizon"])),
        ("Utility", "minus cross-entropy, nats" if scenario["utility"] == "neg_log_loss" else str(scenario["utility"])),
        ("Values", ", ".join(values) or "none"),
        ("Who protects what", "; ".join(profiles) + "; the others nothing" if profiles else "nobody protects anything"),
        ("Governance", _governance(screening)),
        ("Screening", _screening(screening)),
        ("Weights", str(scenario["weights"])),
        ("Substrate, model", f"{scenario['substrate']['kind']}, {scenario['model']['kind']}"),
        ("Costs", f"{reward['contribution_cost']:g} a lot and round, fine of {reward['violation_penalty']:g}, in reward units"),
    ]


def _governance(screening: Screening) -> str:
    """Whose objections count."""
    share = f"{100 * screening.quorum:.0f} %"
    weigh = {"data": "rows of data", "stake": "stake"}[screening.weigh_by]
    goal = {"nash": "the highest Nash welfare", "worst_off": "the best for the worst-off principal"}[screening.bargain]
    return {
        "none": "none: nobody screens",
        "own": "own: everybody screens its own updates",
        "unanimous": "unanimous: an update must be admissible to everybody",
        "quorum": f"quorum: admissible to at least {share} of the principals",
        "weighted": f"weighted: admissible to principals with at least {share} of all {weigh}",
        "stakeholders": f"stakeholders: admissible to at least {share} of those whose profile names the value, tag, norm or direction",
        "negotiate": f"negotiate: the set of updates is bargained for {goal}, within {screening.budget} moves",
    }[screening.governance]


def _screening(screening: Screening) -> str:
    """How harm is predicted, and what is done with inadmissible updates."""
    harm = {
        "first_order": "harm predicted to first order",
        "second_order": "harm predicted to second order",
        "measured": "harm measured on the probe sets",
    }[screening.harm]
    fate = {
        "reject": "inadmissible updates are rejected",
        "scale": "inadmissible updates are shrunk until they are admissible",
        "project": "inadmissible updates are replaced by the nearest admissible ones",
    }[screening.filter]
    parts = [harm, *([fate] if screening.governance not in ("none", "negotiate") else [])]
    return ", ".join([*parts, *(["the applied step is guarded"] if screening.guard else [])])


def _profile(profile: Profile) -> str:
    limits = [f"{name} rises by at most {tolerance:g} an update" for name, tolerance in profile.tolerances.items()]
    limits += [f"{name} rises by at most {100 * share:g} % of itself an update" for name, share in profile.relative_tolerances.items()]
    limits += [f"no update against the direction {direction_in_short(profile.direction)}"] if profile.direction else []
    limits += [f"no {tag} data" for tag in profile.forbidden_tags]
    limits += [f"no update longer than {profile.max_norm:g}"] if profile.max_norm is not None else []
    stake = f" (stake {profile.stake:g} each)" if profile.stake != 1 else ""
    return f"{profile.holders} of them{stake}: {', '.join(limits) or 'no limits'}"
