r"""What a mechanism is tuned for: welfare, Nash welfare, or the worst-off principal.

All are measured in each cooperative, that is in each episode, and then averaged over episodes. With :math:`R_i` the return of principal i
in an episode and W the welfare, in reward units,

.. math::
    W = \text{scale} \cdot \Delta U - \text{costs}, \qquad
    B_i = R_i - \frac 1 N \Big(\sum_j R_j - W\Big), \qquad
    \text{nash} = \exp\Big(\frac 1 N \sum_i \log \max(B_i, \phi)\Big), \qquad
    \text{worst_off} = \min_i B_i .

:math:`B_i` is the *balanced return*. Rules and settings may pay more than the cooperative gained, as a public share does, or less. What
they pay beyond it is charged to all principals equally, and what they keep back is given to all equally. So balanced returns sum to the
welfare, and no mechanism scores by paying what nobody earned.

The Nash product needs positive numbers. A balanced return below the floor :math:`\phi` counts as the floor, so that nash never falls below
it. Where most are at the floor, nash tells mechanisms apart no more; :func:`at_floor` says how many are.

The average is taken last because by default each episode draws anew who holds which lots and which profile. Over many episodes all seats
then have the same mean return, however unequal each cooperative is.

References:
    Nash (1950), *The bargaining problem*, Econometrica 18(2).
    Kaneko & Nakamura (1979), *The Nash social welfare function*, Econometrica 47(2).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ...envs import Engine
from ..false_names import counted_once

FLOOR = 1.0
"""Least return that Nash welfare distinguishes, in reward units. A whole good episode is worth about T units to a principal."""


class Objective(NamedTuple):
    """What a mechanism may be tuned for.

    Attributes:
        title: Its name in tables and figures.
        meaning: What it is, in a sentence.
    """

    title: str
    meaning: str


OBJECTIVES: Mapping[str, Objective] = {
    "welfare": Objective("welfare", "What the cooperative gains in utility, in reward units, minus everybody's costs."),
    "nash": Objective(
        "Nash welfare",
        f"Geometric mean of the principals' balanced returns in an episode, in reward units; one below {FLOOR:g} counts as {FLOOR:g}.",
    ),
    "worst_off": Objective("return of the worst-off", "The least balanced return of a principal in an episode, in reward units."),
}
"""What a mechanism may be tuned for, by its name after ``--for``."""


def principal_returns(engine: Engine, returns: Tensor) -> Tensor:
    """What each principal got in the episode just played, all its names together, in reward units.

    What a principal has by itself, such as its public share, counts once, whatever the number of its names.

    Args:
        engine: The cooperatives.
        returns: Returns of all seats, ``(E, N)``.

    Returns:
        ``(E, P)`` for P principals.
    """
    names = engine.scenario.names
    if names is None:
        return returns
    owner = torch.tensor(names.owner, device=returns.device)
    n_principals = int(owner.max()) + 1
    totals = returns.new_zeros(len(returns), n_principals).index_add(1, owner, returns)
    n_names = torch.bincount(owner, minlength=n_principals)
    first = torch.tensor([names.owner.index(principal) for principal in range(n_principals)], device=returns.device)
    return totals - (n_names - 1) * counted_once(engine)[:, first].to(returns.dtype)


def balanced(returns: Tensor, welfare: Tensor) -> Tensor:
    """Returns that sum to the welfare: what was paid beyond it is charged to all principals equally.

    Args:
        returns: Returns of the principals, ``(E, P)``, in reward units.
        welfare: Welfare of the cooperatives, ``(E,)``.

    Returns:
        ``(E, P)``.
    """
    return returns - (returns.sum(dim=1) - welfare)[:, None] / returns.shape[1]


def nash(returns: Tensor) -> Tensor:
    """Nash welfare of each cooperative: geometric mean of the principals' returns, at least :data:`FLOOR` each, ``(E, P)`` → ``(E,)``."""
    return returns.clamp(min=FLOOR).log().mean(dim=1).exp()


def worst_off(returns: Tensor) -> Tensor:
    """The least return of a principal in each cooperative, ``(E, P)`` → ``(E,)``."""
    return returns.amin(dim=1)


def at_floor(returns: Tensor) -> Tensor:
    """Share of the principals whose return is below :data:`FLOOR`, ``(E, P)`` → ``(E,)``."""
    return (returns < FLOOR).to(returns.dtype).mean(dim=1)
