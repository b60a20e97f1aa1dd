"""What episodes came to, in words: by how much the losses that profiles watch have risen, and why nothing passed.

A tolerance is about one update, and screening keeps each step within it. Only a limit is about the sum of the steps. Without one a loss may
rise far over an episode although every step was within every profile. This is said beside the verdict on a step.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..text import one_line
from .engine import Engine
from .metrics import limits_used
from .scenario import Scenario

OTHER_LIMITS = "other limits (norms, tags or directions)"
"""The reason for screening an update out that is beyond no tolerance."""
BARGAIN = "the bargain"
"""The same under governance negotiate."""


def watched(scenario: Scenario) -> list[str]:
    """Names of the values that somebody's profile limits or weighs, in the scenario's order."""
    named = {name for profile in scenario.profiles for name in profile.values}
    return [name for name in scenario.values if name in named]


def rises(engine: Engine, environment: int = 0) -> dict[str, float]:
    """By how much each :func:`watched` loss has risen since the episode's start, by name, in the value's own unit.

    Args:
        engine: The engine; it is only read.
        environment: Index of the environment.
    """
    risen = (engine.prospect.value_losses - engine.initial_value_losses)[environment].tolist()
    return {name: risen[list(engine.values).index(name)] for name in watched(engine.scenario)}


def strictest_limits(engine: Engine) -> Tensor:
    """The strictest limit on the rise of each value's loss over an episode, ``(E, M)``; infinite where nobody has one."""
    return engine.prospect.left.amin(dim=1) + (engine.prospect.value_losses - engine.initial_value_losses)


def used_up(engine: Engine, environment: int = 0) -> dict[str, float]:
    """How much of the strictest limit on each limited value is used up now, by name, as a share of it: above 1 beyond the limit.

    Args:
        engine: The engine; it is only read.
        environment: Index of the environment.
    """
    names, shares = list(engine.values), limits_used(engine)[:, environment]  # (T, M)
    return {name: shares[-1, names.index(name)].item() if len(shares) else 0.0 for name in engine.scenario.limited}


def rises_in_words(risen: Mapping[str, float], used: Mapping[str, float] | None = None) -> str:
    """Rises by name as text, such as ``watched losses since the start: eights -0.1000, nines +0.1200 (60 % of its limit)``.

    Empty if nothing is watched.

    Args:
        risen: By how much each watched loss has risen; see :func:`rises`.
        used: How much of its limit each limited value has used up; see :func:`used_up`.
    """
    shares = {name: f" ({share:.0%} of its limit)".replace("%", " %") for name, share in (used or {}).items()}
    told = ", ".join(f"{one_line(name)} {rise:+z.4f}{shares.get(name, '')}" for name, rise in risen.items())
    return f"watched losses since the start: {told}" if told else ""


def in_short(engine: Engine, environment: int) -> str:
    """The round just played in a few lines, where only some agents are present: those of thousands of proxies would fill no screen.

    Args:
        engine: The engine; it is only read.
        environment: Index of the environment.
    """
    e, scenario = environment, engine.scenario
    lines = [
        one_line(f"{scenario.name} · credit rule: {engine.rule_name} · {engine.num_seats:,} of {engine.num_agents:,} proxies in a round"),
        f"round {engine.t}/{engine.horizon}, utility {engine.prospect.utility[e].item():.4f}",
    ]
    if engine.history:
        last = engine.history[-1]
        assert last.present is not None
        present = last.present[e]
        contributed, clean = last.contributed[e, present], engine.lots.clean[e, present]
        n_sent, n_admitted = int(contributed.sum()), int(last.admitted[e].sum())
        credit = engine.reward_scale * last.credit[e, present]
        lines += [
            f"those present contributed {n_sent} of {clean.numel()} lots, {int((contributed & clean).sum())} of {int(clean.sum())} clean "
            f"ones; {n_admitted} entered",
            f"credit of those present: {credit.min().item():+z.2f} to {credit.max().item():+z.2f}, {credit.sum().item():+z.2f} in all",
            f"so far {int((engine.credit_so_far[e] != 0).sum()):,} proxies were credited",
        ]
        broken = ["VIOLATES a profile"] * bool(last.violated[e]) + ["uses FORBIDDEN data"] * bool(last.forbidden_used[e])
        lines += [" and ".join(broken) or "within every profile", rises_in_words(rises(engine, e), used_up(engine, e))]
        lines += [deadlock(engine, e)] * (engine.t == engine.horizon)
    return "\n".join(line for line in lines if line)


def deadlock(engine: Engine, environment: int | None = None) -> str:
    """What to say if nothing passed in an episode although something was contributed; empty if there is no such episode.

    Args:
        engine: The engine, after at least one round; it is only read.
        environment: Index of the environment to look at; ``None`` for all.

    Returns:
        In how many episodes that was, which value screened out most, and what helps.
    """
    history = engine.history
    chosen = slice(None) if environment is None else slice(environment, environment + 1)
    contributed = torch.stack([result.contributed[chosen] for result in history])  # (T, E, N, K)
    passed = torch.stack([result.admitted[chosen] for result in history]).any(dim=-1).any(dim=-1).any(dim=0)  # (E,)
    stuck = contributed.any(dim=-1).any(dim=-1).any(dim=0) & ~passed
    if not stuck.any():
        return ""
    refused = contributed[:, stuck]
    beyond = torch.stack([result.harm[chosen] > result.tolerance[chosen][:, None, None] for result in history])[:, stuck]  # (…, M)
    counts = (beyond & refused[..., None]).flatten(end_dim=-2).sum(dim=0).tolist()
    reasons = dict(zip(engine.values, counts, strict=True))
    if others := int((refused & ~beyond.any(dim=-1)).sum()):
        reasons[BARGAIN if engine.scenario.screening.governance == "negotiate" else OTHER_LIMITS] = others
    return deadlock_in_words(engine.scenario, int(stuck.sum()), len(stuck), int(refused.sum()), reasons)


def deadlock_in_words(scenario: Scenario, n_stuck: int, n_episodes: int, n_updates: int, reasons: Mapping[str, int]) -> str:
    """What to say of episodes in which nothing passed.

    Args:
        scenario: The cooperative.
        n_stuck: Number of episodes in which updates were contributed and none was admitted.
        n_episodes: Number of episodes.
        n_updates: Number of updates contributed in the former.
        reasons: How many of those updates each reason screened out. An update may have several.
    """
    where = "nothing passed" if n_episodes == 1 else f"nothing passed in {n_stuck} of {n_episodes} episodes"
    reason = max(reasons, key=lambda name: reasons[name])
    there = " there" * (n_episodes > 1)
    said = f"{where}: all {n_updates} updates contributed{there} were screened out, {reasons[reason]} of them because of {one_line(reason)}"
    screening = scenario.screening
    mends = screening.filter == "reject" and screening.governance != "negotiate"
    helps = ["another seed"] * (n_episodes == 1)
    helps += ["screening.filter: project, which mends updates instead of refusing them, or screening.governance: negotiate"] * mends
    helps += [f"a wider tolerance{' or limit' * (reason in scenario.limited)} for {one_line(reason)}"] * (reason in scenario.values)
    return f"{said}. Try the agents planner or oracle, which see more than a proxy; {'; '.join(helps) or 'wider limits'}"
