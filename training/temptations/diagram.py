r"""Schelling diagrams: what honesty and a cheat earn against the number of others who are honest.

With n of the N − 1 others honest and the rest cheating, an honest proxy earns H(n), and one that cheats C(n). Four numbers say which game
it is: R = H(N − 1) and T = C(N − 1) where all others are honest, S = H(0) and P = C(0) where none is.

==================  ==============================================================================================================
class               when
==================  ==============================================================================================================
dilemma             T > R and P > S: cheating is better whatever others do, and R > P: all would be better off honest
stag hunt           R > T and P > S: honesty is better among honest ones, and cheating among cheats
chicken             T > R and S > P: cheating is better among honest ones, and honesty among cheats
none                R > T and S > P: honesty is better in both; or T > R, P > S and P > R: cheating is, and all gain if all cheat
undecided           a difference that matters is within its interval
==================  ==============================================================================================================

References:
    Schelling (1973), *Hockey helmets, concealed weapons, and daylight saving*, Journal of Conflict Resolution 17(3). Hughes et al. (2018),
    *Inequity aversion improves cooperation in intertemporal social dilemmas*, NeurIPS, for diagrams of learning environments.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch

from ...agents import Mixture, make
from ...agents.agent import class_of
from ...agents.scripted import Honest
from ...agents.seats import require_playable
from ...envs import Engine, Scenario
from ..evaluate import held_out_splits
from ..intervals import Estimate
from .cheats import LEAST, played

SEAT = 0
EPISODES, SPLITS = 4, 12
Game = Literal["dilemma", "stag hunt", "chicken", "none", "undecided"]


@dataclass(frozen=True)
class Diagram:
    """What honesty and a cheat earn; estimates are over splits of the data, in reward units an episode.

    Attributes:
        rule: The credit rule.
        scenario: Name of the scenario.
        cheat: Name of the agent that cheats.
        honest: Earnings of an honest proxy, by the number of others who are honest, from 0 to N − 1.
        cheating: Earnings of one that cheats, likewise.
        temptation: C(n) − H(n), paired, likewise.
        reward_over_punishment: H(N − 1) − C(0), paired: what all gain by honesty.
        welfare: Welfare of the cooperative if the proxy is honest, by the number of others who are.
    """

    rule: str
    scenario: str
    cheat: str
    honest: tuple[Estimate, ...]
    cheating: tuple[Estimate, ...]
    temptation: tuple[Estimate, ...]
    reward_over_punishment: Estimate
    welfare: tuple[Estimate, ...]

    @property
    def game(self) -> Game:
        """The game's class; see the module."""
        among_honest, among_cheats = sign(self.temptation[-1]), sign(self.temptation[0])
        if not among_honest or not among_cheats:
            return "undecided"
        if among_honest < 0:
            return "stag hunt" if among_cheats > 0 else "none"
        if among_cheats < 0:
            return "chicken"
        together = sign(self.reward_over_punishment)
        return "dilemma" if together > 0 else "none" if together < 0 else "undecided"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**asdict(self), "game": self.game}


def sign(estimate: Estimate) -> int:
    """1 or −1 if an estimate is above or below 0 by more than its interval and by more than rounding; else 0."""
    if estimate.mean is None or abs(estimate.mean) <= max(estimate.half_width or 0.0, LEAST):
        return 0
    return 1 if estimate.mean > 0 else -1


def schelling(
    scenario: Scenario,
    rule: str,
    cheat: str,
    *,
    episodes: int = EPISODES,
    splits: int = SPLITS,
    seed: int = 0,
    told: Callable[[int, int], None] | None = None,
) -> Diagram:
    """Measure a Schelling diagram.

    The proxy sits in the first seat, and the others who are honest in the next ones. Lots are drawn anew in each episode, so that seats do
    not matter where each principal has data of the same kind.

    Args:
        scenario: The cooperative, with what the cheat needs (:func:`~proxycoop.training.temptations.cheats.tempting`).
        rule: The credit rule, with arguments if it takes any.
        cheat: Name of the agent that cheats: an adversary, or any other that plays by its observations, such as ``"none"``.
        episodes: Episodes on each split of the data, the same for every population.
        splits: Splits, which no training plays on.
        seed: Seed of the first episode.
        told: Called after each split with the splits done and their number.

    Raises:
        ValueError: If the agent is unknown, cannot play the scenario, or sees what no proxy could.
    """
    scenario.require_everybody("a Schelling diagram")
    if scenario.company:
        raise ValueError("population: a Schelling diagram plays populations of its own: leave the scenario's out")
    if class_of(cheat) is Honest:
        raise ValueError(f"cheat={cheat!r}: it is compared with honest proxies, so choose another agent")
    require_playable(cheat, scenario, f"cheat={cheat!r}")
    if class_of(cheat).privileged:
        raise ValueError(f"cheat={cheat!r} sees what no proxy could: choose an agent that plays by its observations")
    n_agents = scenario.n_agents
    plays = torch.ones(n_agents, 2, n_agents, dtype=torch.int64)  # by the number of honest others, own choice, and seat; 1 = cheats
    for n in range(n_agents):
        plays[n, :, 1 : n + 1] = 0
    plays[:, 0, SEAT] = 0
    rows = plays.reshape(-1, n_agents).repeat_interleave(episodes, dim=0)
    earned, welfare = [], []
    for index, split in enumerate(held_out_splits(splits)):
        first = seed + index * episodes
        seeds = [*range(first, first + episodes)] * (2 * n_agents)
        engine = Engine(scenario.on_split(split), rule, len(seeds))
        found = played(engine, Mixture([make("honest"), make(cheat)], rows), seeds)
        earned.append(found["return"][:, SEAT].reshape(n_agents, 2, episodes))
        welfare.append(found["welfare"].reshape(n_agents, 2, episodes)[:, 0])
        if told is not None:
            told(index + 1, splits)
    of_return, of_welfare = torch.stack(earned), torch.stack(welfare)  # (S, N, 2, E), (S, N, E)

    def over_splits(numbers: torch.Tensor) -> Estimate:
        return Estimate.of(numbers[0] if splits == 1 else numbers.mean(dim=-1))

    return Diagram(
        rule=rule,
        scenario=scenario.name,
        cheat=cheat,
        honest=tuple(over_splits(of_return[:, n, 0]) for n in range(n_agents)),
        cheating=tuple(over_splits(of_return[:, n, 1]) for n in range(n_agents)),
        temptation=tuple(over_splits(of_return[:, n, 1] - of_return[:, n, 0]) for n in range(n_agents)),
        reward_over_punishment=over_splits(of_return[:, -1, 0] - of_return[:, 0, 1]),
        welfare=tuple(over_splits(of_welfare[:, n]) for n in range(n_agents)),
    )
