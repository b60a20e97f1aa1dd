"""Different policies in different seats."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from ..checks import whole_number
from ..envs.conduct.population import members_named, seats_taken
from ..envs.engine import Engine
from ..envs.observations.layout import ObservationLayout
from ..envs.randomness import fold
from ..envs.scenario import Scenario
from .agent import Agent, checked_agent, class_of, make


class Seats(Agent):
    """One policy for most proxies and other policies for some seats: for deviators, free riders and mixed populations.

    Args:
        default: The policy of all seats that ``others`` does not name.
        others: Policies by seat. The same object may play several seats.

    Raises:
        ValueError: If a policy is no agent, or a seat is no whole number. When it plays, if a seat does not exist,
            or a policy was not made for the observations.
    """

    made_for = "any"  # each member is asked by itself

    def __init__(self, default: Agent, others: Mapping[int, Agent]) -> None:
        self.default = checked_agent("default", default)
        if not isinstance(others, Mapping):
            raise ValueError(f"others={others!r}: must be a dictionary of agents by seat, such as {{0: agents.make('none')}}")
        hint = "seats are whole numbers from 0 on"
        self.others = {whole_number("seat", seat, 0, hint=hint): checked_agent(f"others[{seat}]", agent) for seat, agent in others.items()}
        self.members = list(dict.fromkeys([default, *self.others.values()]))
        self.privileged = any(agent.privileged for agent in self.members)

    def check_scenario(self, scenario: Scenario) -> None:
        """Refuse a scenario that a policy cannot play."""
        for agent in self.members:
            agent.check_scenario(scenario)

    def watch(self, engine: Engine) -> None:
        """Pass the engine on to the privileged policies, and tell them their seats."""
        for agent in self.members:
            if agent.privileged:
                agent.watch(engine)
                agent.sit(seat for seat in range(engine.num_agents) if self.others.get(seat, self.default) is agent)

    def begin(self, layout: ObservationLayout, keys: Tensor) -> None:
        """Begin an episode for every policy."""
        super().begin(layout, keys)
        for agent in self.members:
            agent.begin(layout, keys)

    def choose(self, observations: Tensor) -> Tensor:
        """The choice of each seat's own policy.

        Raises:
            ValueError: If a seat does not exist.
        """
        n_agents = observations.shape[1]
        chosen = {agent: agent.act(observations) for agent in self.members}
        choices = chosen[self.default].clone()
        for seat, agent in self.others.items():
            if seat not in range(n_agents):
                raise ValueError(f"seat {seat}: seats go from 0 to {n_agents - 1}")
            choices[:, seat] = chosen[agent][:, seat]
        return choices


def require_unprivileged(agent: Agent) -> None:
    """Refuse agents that see what no proxy could: they look into one engine, where many populations are to be played.

    Raises:
        ValueError: If so.
    """
    members = agent.members if isinstance(agent, Seats) else [agent]
    if sighted := [type(one).__name__ for one in members if one.privileged]:
        raise ValueError(f"{', '.join(sighted)} sees what no proxy could: let agents play that choose by what they observe")


class Mixture(Agent):
    """Different policies in different seats of each cooperative of a batch: for playing many populations at once.

    Args:
        policies: The policies.
        plays: Which of them plays, by environment and seat, int64 ``(E, N)``.

    Raises:
        ValueError: If a policy is no agent or is privileged, or an entry of ``plays`` is none of theirs. When it plays, if the batch has
            another size.
    """

    made_for = "any"

    def __init__(self, policies: Sequence[Agent], plays: Tensor) -> None:
        self.policies = [checked_agent(f"policies[{i}]", policy) for i, policy in enumerate(policies)]
        for policy in self.policies:
            require_unprivileged(policy)
        if plays.dim() != 2 or not ((plays >= 0) & (plays < len(self.policies))).all():
            raise ValueError(f"plays must be (environments, seats) of numbers from 0 to {len(self.policies) - 1}, one for each policy")
        self.playing = plays

    def check_scenario(self, scenario: Scenario) -> None:
        """Refuse a scenario that a policy cannot play."""
        for policy in self.policies:
            policy.check_scenario(scenario)

    def begin(self, layout: ObservationLayout, keys: Tensor) -> None:
        """Begin an episode for every policy."""
        super().begin(layout, keys)
        for policy in self.policies:
            policy.begin(layout, keys)

    def choose(self, observations: Tensor) -> Tensor:
        """The choice of the policy that plays there.

        Raises:
            ValueError: If the batch has another size than ``plays``.
        """
        if observations.shape[:2] != self.playing.shape:
            raise ValueError(f"plays is for {tuple(self.playing.shape)} environments and seats, here are {tuple(observations.shape[:2])}")
        chosen = torch.stack([policy.act(observations) for policy in self.policies])  # (policies, E, N, I)
        which = self.playing.to(chosen.device)[None, ..., None].expand(1, *chosen.shape[1:])
        return chosen.gather(0, which)[0]


def seats_named(assignments: Iterable[str], n_agents: int) -> dict[int, str]:
    """Who plays which seat, from texts such as ``"0=none"`` or ``"count:2=plagiarist"``. All other seats are the policy's.

    Args:
        assignments: Seats and the name of an agent, each; see :func:`~proxycoop.envs.conduct.population.members_named`.
        n_agents: Number of seats N.

    Returns:
        Names by seat, in the order of the seats.

    Raises:
        ValueError: If a text is written otherwise, a seat does not exist or is named twice, or there is no such agent.
    """
    population = [members_named(assignment) for assignment in assignments]
    for entry in population:
        class_of(entry.agent)
    return seats_taken(population, n_agents)


def require_playable(name: str, scenario: Scenario, where: str) -> None:
    """Refuse an agent that cannot play a scenario.

    Args:
        name: The agent's name.
        scenario: The scenario.
        where: What asked for it, for the message, such as ``"--seat 2=plagiarist"``.

    Raises:
        ValueError: If it cannot. The message says what the scenario lacks, if the agent knows.
    """
    agent = class_of(name)
    if not getattr(agent, "plays", Agent.plays)(scenario):
        lacking = getattr(agent, "lacks", Agent.lacks)(scenario)
        raise ValueError(f"{where}: {lacking or f'agent {name!r} cannot play scenario {scenario.name!r}'}")


def populated(policy: Agent, scenario: Scenario) -> Agent:
    """The policy, with the scenario's population in its seats. What is seated already (:class:`Seats`) stays as it is.

    Raises:
        ValueError: If an agent of the population is unknown, or cannot play the scenario.
    """
    if isinstance(policy, Seats):
        return policy
    for seat, name in scenario.company.items():
        require_playable(name, scenario, f"population: {seat}={name}")
    return seated(policy, scenario.company)


def seated(policy: Agent, seats: Mapping[int, str], *, instead: bool = False) -> Agent:
    """The policy, with agents of these names in some seats.

    Args:
        policy: The policy of all other seats.
        seats: Names of agents by seat.
        instead: Whether these seats take the place of a scenario's population even if there are none.
    """
    return Seats(policy, {seat: make(name) for seat, name in seats.items()}) if seats or instead else policy


class Company:
    """Agents that play some seats of an engine, while a learner plays the others.

    Attributes:
        learners: The learner's seats, in order.

    Args:
        seats: Names of agents by seat; at least one seat must be left.
        n_agents: Number of seats N.
    """

    def __init__(self, seats: Mapping[int, str], n_agents: int) -> None:
        self.learners = [seat for seat in range(n_agents) if seat not in seats]
        self._agents = {seat: make(name) for seat, name in seats.items()}

    def begin(self, engine: Engine) -> None:
        """Begin an episode, after the engine did."""
        assert engine.seeds is not None
        for seat, agent in self._agents.items():
            if agent.privileged:
                agent.watch(engine)
                agent.sit([seat])
            agent.begin(engine.layout, fold(engine.seeds, engine.episode))

    def join(self, engine: Engine, choices: Tensor) -> Tensor:
        """Everybody's choices in the coming round, ``(E, N, K)``, from the learner's, ``(E, len(learners), K)``. Call it once a round."""
        everyone = torch.empty(engine.num_envs, engine.num_agents, engine.num_items, dtype=torch.bool, device=choices.device)
        everyone[:, self.learners] = choices.bool()
        for seat, agent in self._agents.items():
            everyone[:, seat] = agent.act(engine.observations)[:, seat]
        return everyone
