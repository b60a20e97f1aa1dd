"""A cooperative in words, for pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...envs.rendering import direction_in_short
from ...envs.scenario import n_agents_of
from ...envs.screening.profiles import Profile
from ...envs.screening.verdicts import Screening


def describe(scenario: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The cooperative in short, as names and texts."""
    lots, reward, names = scenario["lots"], scenario["reward"], n_agents_of(scenario)
    screening = Screening.model_validate(scenario["screening"])
    values = [f"{name} ({str(value['kind']).replace('_', ' ')})" for name, value in scenario["values"].items()]
    profiles = [_profile(Profile.model_validate(profile)) for profile in scenario["profiles"]]
    defences = {
        "Aggregator": _aggregator(scenario.get("aggregator") or {}),
        "Room": _room(scenario.get("admission") or {}),
        "Privacy": _privacy(scenario.get("privacy") or {}),
    }
    return [
        ("Principals (N)", str(scenario["principals"]) + (f", under {names} names" if names > scenario["principals"] else "")),
        ("Lots each (K)", _lots(lots)),
        ("Rounds (T)", str(scenario["horizon"])),
        ("Utility", "minus cross-entropy, nats" if scenario["utility"] == "neg_log_loss" else str(scenario["utility"])),
        ("Values", ", ".join(values) or "none"),
        ("Who protects what", "; ".join(profiles) + "; the others nothing" if profiles else "nobody protects anything"),
        ("Governance", _governance(screening)),
        ("Screening", _screening(screening)),
        ("Weights", str(scenario["weights"])),
        *((name, said) for name, said in defences.items() if said),
        ("Substrate, model", f"{scenario['substrate']['kind']}, {scenario['model']['kind']}"),
        ("Costs", f"{reward['contribution_cost']:g} a lot and round, fine of {reward['violation_penalty']:g}, in reward units"),
    ]


def _aggregator(aggregator: Mapping[str, Any]) -> str:
    """How updates are merged; empty for their mean."""
    kind = aggregator.get("kind", "mean")
    before = [step["kind"] for step in aggregator.get("before", ())]
    if kind == "mean" and not before and aggregator.get("over", "updates") == "updates" and aggregator.get("weighted", True):
        return ""
    withstands = f", withstands {aggregator['f']}" if "f" in aggregator else ""
    return f"{kind} over {aggregator.get('over', 'updates')}{withstands}" + (f", after {', '.join(before)}" if before else "")


def _room(admission: Mapping[str, Any]) -> str:
    """How many updates a round takes and who chooses; empty if all."""
    return f"{admission['capacity']} updates a round, chosen by {admission['choose']['kind']}" if admission else ""


def _privacy(privacy: Mapping[str, Any]) -> str:
    """The noise; empty if there is none."""
    where = {"updates": "every update", "step": "the step"}
    return (
        f"updates shortened to {privacy['clip']:g}, noise of {privacy['noise_multiplier']:g} times that on {where[privacy['noise']]}"
        if privacy
        else ""
    )


def _lots(lots: Mapping[str, Any]) -> str:
    """How many lots there are, of how many rows, who holds them, and what is wrong with them."""
    rows = lots["rows"] if isinstance(lots["rows"], int) else ", ".join(map(str, lots["rows"]))
    parts = [f"{lots['per_principal']} of {rows} rows"]
    if classes := lots["mixture"].get("classes_per_principal"):
        parts.append(f"of {classes} common class{'es' * (classes > 1)}, drawn for each principal")
    if (skew := lots["mixture"].get("principal_concentration")) is not None:
        parts.append(f"classes divided among principals by Dirichlet weights of parameter {skew:g}")
    if (holders := lots.get("holders", 1)) > 1:
        parts.append(f"the same for {holders} principals")
    if lots["corruption"]["share"] or lots["corruption"].get("principals"):
        parts.append(_corruption(lots["corruption"]))
    return ", ".join(parts)


def _corruption(corruption: Mapping[str, Any]) -> str:
    """How many lots are corrupt, and what is wrong with them."""
    rate, size = (_between(corruption.get(name, 1.0), factor) for name, factor in (("rate", 100), ("size", 1)))
    wrong = {
        "labels": f"{rate} % of labels swapped",
        "links": f"{rate} % of rows linked wrongly",
        "features": f"noise of {size} standard deviations in {rate} % of rows",
        "stale": f"{rate} % of rows from before the classes moved by {size} standard deviations",
    }[corruption["what"]]
    share, named = f"{100 * corruption['share']:.0f} %", corruption.get("principals", ())
    whose = [f"all of principal{'s' * (len(named) > 1)} {', '.join(map(str, named))}"] if named else []
    if corruption["share"]:
        whose.append(f"{share} of all" if named else f"{share} of them")
    return f"{' and '.join(whose)} corrupt ({wrong})"


def _between(number: float | Sequence[float], factor: int) -> str:
    """A number, or the two between which it is drawn."""
    low, high = number if isinstance(number, Sequence) else (number, number)
    return f"{factor * low:g}" if low == high else f"{factor * low:g} to {factor * high:g}"


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
    most: dict[str, list[str]] = {name: [] for name in profile.values}
    for kind, words in (
        ("tolerances", "{:g} an update"),
        ("relative_tolerances", "{:.3g} % of itself an update"),
        ("limits", "{:g} an episode"),
        ("relative_limits", "{:.3g} % of its start an episode"),
    ):
        for name, number in getattr(profile, kind).items():
            most[name].append(words.format(100 * number if kind.startswith("relative") else number))
    limits = [f"the loss of {name} rises by at most {' and '.join(parts)}" for name, parts in most.items() if parts]
    limits += [f"no update against the direction {direction_in_short(profile.direction)}"] if profile.direction else []
    limits += [f"no {tag} data" for tag in profile.forbidden_tags]
    limits += [f"no update longer than {profile.max_norm:g}"] if profile.max_norm is not None else []
    stake = f" (stake {profile.stake:g} each)" if profile.stake != 1 else ""
    return f"{profile.holders} of them{stake}: {', '.join(limits) or 'no limits'}"
