"""Different policies in different seats."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from ..checks import whole_number
from ..envs.engine import Engine
from ..envs.observations.layout import ObservationLayout
from ..envs.randomness import fold
from ..registry import unknown_name
from .agent import AGENTS, Agent, checked_agent, make


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


def seats_named(assignments: Iterable[str], n_agents: int) -> dict[int, str]:
    """Who plays which seat, from texts such as ``"0=none"``. All other seats are the policy's.

    Args:
        assignments: A seat's number and the name of an agent, each.
        n_agents: Number of seats N.

    Returns:
        Names by seat, in the order of the seats.

    Raises:
        ValueError: If a text is written otherwise, a seat does not exist or is named twice, or there is no such agent.
    """
    seats: dict[int, str] = {}
    for assignment in assignments:
        number, _, name = assignment.partition("=")
        if not (number.isascii() and number.isdigit() and name):
            raise ValueError(f"seat {assignment!r}: write a seat's number and an agent's name, such as 0=none")
        if not int(number) < n_agents:
            raise ValueError(f"seat {assignment!r}: seats go from 0 to {n_agents - 1}")
        if int(number) in seats:
            raise ValueError(f"seat {assignment!r}: seat {int(number)} is {seats[int(number)]!r} already: name each seat once")
        if name not in AGENTS:
            raise unknown_name("agent", name, AGENTS.names())
        seats[int(number)] = name
    return dict(sorted(seats.items()))


def seated(policy: Agent, seats: Mapping[int, str]) -> Agent:
    """The policy, with agents of these names in some seats."""
    return Seats(policy, {seat: make(name) for seat, name in seats.items()}) if seats else policy


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
