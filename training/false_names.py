"""What a principal gains by a second name: for the same lots, dealt out to both names, and for the same lots offered twice."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..credit import CreditRule
from ..envs import Engine, Scenario
from ..envs.data.names import Names
from ..envs.metrics import own_harm

PRINCIPAL = 0
"""The principal with a second name. Lots are drawn anew in each episode, and so are profiles by default, so any one would do."""


def second_name_gains(
    scenario: Scenario, rule: CreditRule, seeds: Sequence[int], chosen: Sequence[Tensor], returns: Tensor
) -> dict[str, Tensor]:
    r"""What the first principal gains by a second name, when everybody contributes what it did without that name.

    The reference is the cooperative without the second name: N names for N principals. With it there are N + 1, and the second one has its
    principal's value profile. Nobody reacts, so that what changes is names alone: who is paid, what the screening hears, and in which
    proportion data count.

    - ``split_gain``: the principal offers the first half of its lots under its own name and the other half under the second one. With
      unanimous screening the steps are the same as without it, so the gain is what the rule alone pays for the second name.
    - ``copy_gain``: the principal offers its lots under its own name, and the same lots once more under the second one. They add to the
      data of which a lot's weight is a share: with fixed weights everybody's lots weigh :math:`D / (D + D_0)` of what they did, D rows in
      all and :math:`D_0` of the principal. Contributing the copies costs as much as contributing the lots.

    Each is the return of both names together less the return of the one name, and above 0 if the second name pays. The public share and
    what loyalty takes, which a principal has by itself, are counted once.

    Args:
        scenario: The cooperative.
        rule: The credit rule.
        seeds: Seeds of the episodes.
        chosen: What was contributed in each round without a second name, bool ``(E, N, K)`` each.
        returns: What everybody got then, ``(E, N)``, in reward units.

    Returns:
        ``split_gain`` and ``copy_gain``, ``(E,)`` each, in reward units. ``split_gain`` is NaN where a principal has one lot. Both are NaN
        in vertical cooperatives, where a name holds columns, where the rule does not serve one agent more, and where the scenario itself
        gives principals several names, or lets some of them take part in a round.
    """
    if scenario.names is not None or scenario.participation is not None:
        return {measure: torch.full((len(seeds),), torch.nan) for measure in ("split_gain", "copy_gain")}
    n_principals, n_lots = scenario.principals, scenario.lots.per_principal
    gains = {}
    for measure, names_for in (("split_gain", Names.split), ("copy_gain", Names.copied)):
        try:
            names = names_for(n_principals, n_lots, PRINCIPAL)
            gains[measure] = _return_under(names, scenario, rule, seeds, chosen) - returns[:, PRINCIPAL]
        except ValueError:  # the same rule has just served N agents here: it is the second name that is refused
            gains[measure] = torch.full((len(seeds),), torch.nan)
    return gains


def _return_under(names: Names, scenario: Scenario, rule: CreditRule, seeds: Sequence[int], chosen: Sequence[Tensor]) -> Tensor:
    """What the principal gets under all its names together, ``(E,)``, in reward units.

    Raises:
        ValueError: If the scenario or the rule does not allow these names.
    """
    engine = Engine(scenario, rule, len(seeds), names=names)
    engine.reset(seeds)
    for lots in chosen:
        engine.step(names.choices(lots))
    seats = names.names_of(PRINCIPAL)
    own = torch.stack([result.rewards for result in engine.history]).sum(dim=0)[:, seats].sum(dim=1)  # (E,)
    return own - (len(seats) - 1) * counted_once(engine)[:, PRINCIPAL]


def counted_once(engine: Engine) -> Tensor:
    """What a principal has by itself in the episode so far, whatever the number of its names, ``(E, N)``, in reward units.

    It is the public share less what loyalty takes. Each name gets it, and a total of names counts it once.
    """
    reward = engine.scenario.reward
    gain = torch.stack([result.gain for result in engine.history]).sum(dim=0)  # (E,)
    public = (engine.reward_scale * reward.public_share * gain)[:, None].expand(engine.num_envs, engine.num_agents)
    return public - reward.loyalty * own_harm(engine) if reward.loyalty else public
