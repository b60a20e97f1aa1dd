"""The smallest round of the battery in which a rule is seen to lack an axiom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ..rule import CreditRule, make
from .axioms import AXIOMS, SHOWN
from .battery import MAX_ENUMERATED, Facts, battery


@dataclass(frozen=True, eq=False)
class Witness:
    """A round that shows that an axiom is not kept.

    Attributes:
        case: The case of the battery, in words.
        t: Index of the round within the case's episode, from 0.
        n_rounds: Number of rounds of that episode.
        worths: v(S) of every coalition, ``(2**n,)``, bit ``i`` of the index for agent ``i``, in the utility's unit.
        paid: Credit of every agent, ``(n,)``, in the utility's unit.
        words: What is wrong.
    """

    case: str
    t: int
    n_rounds: int
    worths: Tensor
    paid: Tensor
    words: str


def witnesses(rule: str | Callable[[], CreditRule]) -> dict[str, Witness]:
    """For each axiom that a rule does not declare, a round with as few agents as possible that shows it.

    Args:
        rule: A registered name, with arguments if it takes any, or a function of no arguments that builds the rule.

    Returns:
        Witnesses by the names of the axioms: efficient, symmetric, null_player. An axiom is left out if no round of at most 12 agents in
        the battery shows a violation.
    """
    new: Callable[[], CreditRule] = partial(make, rule) if isinstance(rule, str) else rule
    lacking = [axiom for axiom in AXIOMS if not getattr(new(), axiom)]
    found: dict[str, Witness] = {}
    # one agent alone shows least; games with known values, which are the easiest to check, are at the end of the battery
    cases = [case for case in reversed(battery()) if case.n_agents <= MAX_ENUMERATED]
    for case in sorted(cases, key=lambda case: (case.n_agents == 1, case.n_agents, len(case.facts))):
        if len(found) == len(lacking):
            break
        try:
            (one := new()).reset(len(case.facts[0].gain), case.n_agents)
        except ValueError:  # it does not serve so many
            continue
        for t, (the_round, facts) in enumerate(zip(case.build(), case.facts, strict=True)):
            paid = one.assign(the_round).double()
            for axiom in lacking:
                if axiom not in found and (shown := _shown(axiom, paid, facts)) is not None:
                    env, words = shown
                    worths = the_round.game.values()[env].double()
                    found[axiom] = Witness(case.name, t, len(case.facts), worths, paid[env].clone(), words)
    return {axiom: found[axiom] for axiom in AXIOMS if axiom in found}


def _shown(axiom: str, paid: Tensor, facts: Facts) -> tuple[int, str] | None:
    """The environment in which an axiom is broken most, and how; ``None`` if it is kept."""
    n = paid.shape[1]
    if axiom == "efficient":
        residual = (paid.sum(dim=1) - facts.gain)[:, None]  # (E, 1)
    elif axiom == "symmetric":
        residual = ((paid[:, :, None] - paid[:, None, :]) * facts.alike).flatten(start_dim=1)  # (E, N²)
    else:
        residual = paid * facts.null  # (E, N)
    residual = residual.abs() / facts.scale[:, None]
    if residual.max() < max(SHOWN, 1e3 * facts.precision):
        return None
    env, where = (int(index) for index in torch.unravel_index(residual.argmax(), residual.shape))
    if axiom == "efficient":
        return env, f"credits sum to {paid[env].sum():.4g}, but v(N) = {facts.gain[env]:.4g}"
    if axiom == "symmetric":
        i, j = sorted(divmod(where, n))
        return env, f"agents {i} and {j} are interchangeable, but paid {paid[env, i]:.4g} and {paid[env, j]:.4g}"
    return env, f"agent {where} adds nothing to any coalition, but is paid {paid[env, where]:.4g}"
