r"""What contributing should cost, so that a cooperative is a dilemma that is worth learning.

Where a lot costs nothing, every rule teaches the same. Where it costs more than any lot gains, no rule helps. In between, equal shares
make proxies ride free: each bears the whole cost of its lot and gets an N-th of what it gains. The cost that is proposed is the one at
which half of what the cooperative could win is lost so:

.. math:: W_\text{equal}(c) = \tfrac12 W^*(c)

:math:`W^*` is the welfare of ``measuring_planner``, who chooses for all, and :math:`W_\text{equal}` that of best replies under the rule
``equal``, both on the scenario's own terms, screening included. With g the mean gain of a clean lot in a round of a good episode, in reward
units, the search begins at :math:`g / \sqrt N`, the geometric mean of what a lot gains and of what its contributor gets of it under equal
shares. It goes up or down by steps of :math:`\sqrt 2` until the half is crossed, and interpolates between the last two costs, over their
logarithms.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from ...agents import make, play
from ...envs import Engine, Scenario

EPISODES = 4
"""Cooperatives in which each cost is tried."""
HALF = 0.5
"""The share of the planner's welfare that best replies under ``equal`` shall reach."""
_STEP = 2**0.5
_MOST_STEPS = 6


@dataclass(frozen=True)
class Stakes:
    """What contributing should cost, and what was measured.

    Attributes:
        cost: The proposed cost of a lot in a round, in reward units.
        is_dilemma: Whether the share was crossed between two costs that were tried. If not, ``cost`` is the last one tried.
        tried: Welfare of the planner and of best replies under ``equal``, by the cost, in reward units, in the order tried.
    """

    cost: float
    is_dilemma: bool
    tried: dict[float, tuple[float, float]]


def stakes(scenario: Scenario, *, episodes: int = EPISODES, progress: Callable[[str], None] | None = None) -> Stakes:
    """Measure what contributing should cost.

    Args:
        scenario: The cooperative. Its reward scale must be ``auto``, so that a good episode is worth N·T reward units.
        episodes: Cooperatives in which each cost is tried.
        progress: Called before each cost that is tried, with it in words.

    Returns:
        The cost, to two digits. The same scenario gives the same numbers.

    Raises:
        ValueError: If the reward scale is not ``auto``, only some agents are present in a round, or the scenario does not fit its data.
    """
    scenario.require_everybody("the cost at which best replies lose half")
    if scenario.reward.scale != "auto":
        raise ValueError(f"reward.scale={scenario.reward.scale}: must be auto, so that a cost has the same meaning in every scenario")
    n_clean = max(1.0, scenario.n_agents * scenario.lots.per_principal * (1 - scenario.lots.corruption.share))
    cost = scenario.n_agents / n_clean / math.sqrt(scenario.n_agents)  # all clean lots of a round gain N
    tried: dict[float, tuple[float, float]] = {}
    before: tuple[float, float] | None = None
    for _ in range(_MOST_STEPS):
        cost = _two_digits(cost)
        if progress is not None:
            progress(f"a cost of {cost:g}")
        planner, equal = (_welfare(scenario, cost, agent, episodes) for agent in ("measuring_planner", "best_reply"))
        tried[cost] = planner, equal
        share = equal / planner if planner > 0 else 0.0
        if before is not None and (before[1] > HALF) != (share > HALF):
            way = (before[1] - HALF) / (before[1] - share)
            return Stakes(_two_digits(before[0] * (cost / before[0]) ** way), True, tried)
        before = (cost, share)
        cost = cost * _STEP if share > HALF else cost / _STEP
    return Stakes(before[0] if before is not None else cost, False, tried)


def _welfare(scenario: Scenario, cost: float, agent: str, episodes: int) -> float:
    """Mean welfare of an episode, in reward units."""
    reward = scenario.reward.model_copy(update={"contribution_cost": cost})
    engine = Engine(scenario.model_copy(update={"reward": reward}), "equal", num_envs=episodes)
    return float(play(engine, make(agent), seeds=range(episodes))["welfare"].double().mean())


def _two_digits(number: float) -> float:
    return float(f"{number:.2g}")
