"""Play episodes in which only some of the proxies take part, or the policy sees only some of the features. Explanations are made of these.

Every coalition plays the same cooperatives with the same random numbers. So a difference between two coalitions is due to their members and
to what follows from them. All coalitions of a block are environments of one engine, and are stepped at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn.functional import pad

from ...agents import Agent, play
from ...agents.seats import seated
from ...credit import CreditRule
from ...envs import Engine, Scenario, randomness
from ...envs.observations.layout import ObservationLayout
from ...envs.randomness import fold

TARGETS = ("welfare", "gain", "test_utility")
"""Measures of an episode: welfare, in reward units; the utility's gain, and the utility on the test set, in the utility's unit."""
LOTS_AT_ONCE = 6144
"""Most lots of all environments of an engine together. With more, each takes longer: they no longer fit into the processor's caches."""
_BACKGROUND = 0x5645524C  # a stream of random numbers of its own, besides those of :class:`~proxycoop.envs.randomness.Purpose`

Progress = Callable[[int], None]
"""Called with the number of coalitions that were played."""


@runtime_checkable
class Stochastic(Protocol):
    """An agent that can give the probability of contributing each lot."""

    def probabilities(self, observations: Tensor) -> Tensor:
        """Probabilities by lot, ``(..., size)`` → ``(..., K)``."""


class Present(Agent):
    """A policy that only some proxies play. Absent proxies contribute nothing.

    Args:
        agent: The policy.
        present: Who plays, bool ``(E, N)``.
    """

    made_for = "any"  # the policy is asked by itself

    def __init__(self, agent: Agent, present: Tensor) -> None:
        self.agent = agent
        self.present = present
        self.privileged = agent.privileged  # where a reference plays one of the seats

    def watch(self, engine: Engine) -> None:
        """Pass the engine on."""
        self.agent.watch(engine)

    def begin(self, layout: ObservationLayout, keys: Tensor) -> None:
        """An episode begins."""
        super().begin(layout, keys)
        self.agent.begin(layout, keys)

    def choose(self, observations: Tensor) -> Tensor:
        """What the policy chooses, for the proxies that are present."""
        return self.agent.act(observations) & self.present[..., None]


class Background:
    r"""What proxies observe in other cooperatives. It replaces features that a policy may not see.

    A draw is what a random proxy of a random reference cooperative observed *in the same round*: the same proxy for all hidden features and
    for all lots. Features that are the same for everybody in a round, that is, the ``time`` and the rounds until settlement, come from a
    random round instead. A draw depends on the cooperative's key, the round, the seat and the number of the draw. It does not depend on
    which features are hidden.

    Args:
        observations: Observations in reference cooperatives, ``(T, B, N, size)``.
        layout: Layout of the observations.
    """

    def __init__(self, observations: Tensor, layout: ObservationLayout) -> None:
        self._rows = observations.flatten(1, 2)  # (T, B·N, size)
        self._clocks = [layout.slices[name] for name in ("agent/time", "agent/until_settlement") if name in layout.slices]

    def draw(self, keys: Tensor, n_agents: int, t: int, number: int) -> Tensor:
        """Draws for everybody in round t: int64 keys ``(E,)`` → ``(E, N, size)``."""
        horizon, n_rows = self._rows.shape[:2]
        which, when = randomness.uniform(fold(keys, _BACKGROUND, t, number), 2, n_agents).unbind(dim=1)  # (E, N) each
        row = (which * n_rows).long()
        drawn = self._rows[t][row]
        another = self._rows[(when * horizon).long(), row]
        for clock in self._clocks:
            drawn[..., clock] = another[..., clock]
        return drawn


class Blinkered(Agent):
    r"""A policy that sees only some features. The others are replaced by draws from a background.

    .. math:: \pi_C(k \mid s) = \frac{1}{m} \sum_{j=1}^{m} \pi(k \mid s_C, b^{(j)}_{\bar C})

    where π(k | s) is the probability of contributing lot k, C the set of features that the policy sees, and :math:`b^{(j)}` draws from the
    background. The probabilities are averaged, and then every lot is drawn independently. The expectation does not depend on m; a larger m
    only makes differences between coalitions less noisy. For a policy that gives no probabilities, a choice counts as probability 0 or 1.
    Its choice must depend on the observations, the keys and the round alone, because it is asked m times.

    Args:
        agent: The policy.
        seen: Which of :func:`features` it sees, bool ``(E, n_features)``.
        background: What replaces the other features.
        draws: Number of draws m.
    """

    made_for = "any"  # the policy is asked by itself

    def __init__(self, agent: Agent, seen: Tensor, background: Background, draws: int) -> None:
        self.agent = agent
        self.seen = seen
        self.background = background
        self.draws = draws

    def begin(self, layout: ObservationLayout, keys: Tensor) -> None:
        """An episode begins."""
        super().begin(layout, keys)
        self.agent.begin(layout, keys)
        n_lot, n_agent = len(layout.lot_features), len(layout.agent_features)
        entry = torch.cat([torch.arange(n_lot).repeat(layout.n_items), n_lot + torch.arange(n_agent)])  # each entry's feature
        self._seen = self.seen[:, None, entry]  # (E, 1, size)

    def probabilities(self, observations: Tensor) -> Tensor:
        """Probability of choosing each item in this round, ``(E, N, size)`` → ``(E, N, I)``."""
        total = observations.new_zeros(*observations.shape[:2], self.layout.n_items)
        for number in range(self.draws):
            drawn = self.background.draw(self.keys, observations.shape[1], self.t, number)
            total += self._asked(torch.where(self._seen, observations, drawn))
        return total / self.draws

    def choose(self, observations: Tensor) -> Tensor:
        """Draw each lot with its probability, from the random numbers that the policy itself would use."""
        probabilities = self.probabilities(observations)
        return randomness.uniform(self.round_keys(), *probabilities.shape[1:]) < probabilities

    def _asked(self, observations: Tensor) -> Tensor:
        if isinstance(self.agent, Stochastic):
            return self.agent.probabilities(observations)
        self.agent.t = self.t
        chosen = self.agent.choose(observations).to(observations.dtype)
        return pad(chosen, (0, self.layout.n_items - chosen.shape[-1]))


def features(layout: ObservationLayout) -> tuple[str, ...]:
    """The features as players: first those of lots, each of which is one player for all lots of a proxy, then those of the agent."""
    return (*(f"lot/{name}" for name in layout.lot_features), *(f"agent/{name}" for name in layout.agent_features))


@dataclass(eq=False)
class EpisodeGame(ABC):
    """What coalitions are worth when they play episodes. Subclasses define what a coalition is.

    A call with coalitions, bool ``(m, n_players)``, plays all of them in the same cooperatives and returns ``(len(TARGETS), E, m)``.

    Args:
        scenario: The cooperative.
        credit: The credit rule that pays the proxies.
        seeds: Seeds of the E episodes.
        progress: Called as coalitions are played.
        agent: Makes the policy.
    """

    scenario: Scenario
    credit: CreditRule | str | None
    seeds: Sequence[int]
    progress: Progress
    agent: Callable[[], Agent] = field(kw_only=True)
    _engines: dict[int, Engine] = field(default_factory=dict, init=False, repr=False)

    @abstractmethod
    def player(self, coalitions: Tensor) -> Agent:
        """Everybody's policy in m·E environments, one for each coalition and episode, ``(m·E, n_players)``; a coalition's are adjacent."""

    def __call__(self, coalitions: Tensor) -> Tensor:
        """Worth of the coalitions, ``(len(TARGETS), E, m)``; see the class."""
        episodes = len(self.seeds)
        lots = episodes * self.scenario.n_agents * self.scenario.lots.per_principal
        worth = []
        for block in coalitions.split(max(1, LOTS_AT_ONCE // lots)):
            n_envs = len(block) * episodes
            if n_envs not in self._engines:
                self._engines[n_envs] = Engine(self.scenario, self.credit, n_envs)
            engine = self._engines[n_envs]
            metrics = play(engine, self.player(block.repeat_interleave(episodes, dim=0)), [*self.seeds] * len(block))
            metrics["test_utility"] = engine.test()["utility"]
            worth.append(torch.stack([metrics[target] for target in TARGETS]).double().unflatten(1, (len(block), episodes)))
            self.progress(len(block))
        return torch.cat(worth, dim=1).transpose(1, 2)


@dataclass(eq=False)
class ProxyGame(EpisodeGame):
    """A game whose players are proxies, by rank: rank r of episode e is the seat ``order[e, r]``.

    Its arguments are those of :class:`EpisodeGame`, and:

    Args:
        order: Seats in the order of the players, int64 ``(E, N)``.
    """

    order: Tensor = field(kw_only=True)

    def player(self, coalitions: Tensor) -> Agent:
        """The policy, played by the coalition's proxies only."""
        rank = self.order.argsort(dim=1).repeat(len(coalitions) // len(self.seeds), 1)  # of each seat, (m·E, N)
        return Present(self.agent(), coalitions.gather(1, rank))


@dataclass(eq=False)
class FeatureGame(EpisodeGame):
    """A game whose players are :func:`features`: everybody's policy sees only those of the coalition.

    Its arguments are those of :class:`EpisodeGame`, and:

    Args:
        seats: Names of agents that play some of the seats instead of the policy, and see everything.
        background: What replaces features that are not seen.
        draws: Draws over which probabilities are averaged.
    """

    seats: Mapping[int, str] = field(default_factory=dict, kw_only=True)
    background: Background = field(kw_only=True)
    draws: int = field(kw_only=True)

    def player(self, coalitions: Tensor) -> Agent:
        """The policy, which sees only the coalition's features."""
        return seated(Blinkered(self.agent(), coalitions, self.background, self.draws), self.seats)
