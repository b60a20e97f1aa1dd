"""The base class of a proxy's policy, how to find a policy by name, and how to play an episode with it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..envs.engine import Engine
from ..envs.metrics import episode_metrics
from ..envs.observations.layout import ObservationLayout
from ..envs.randomness import Purpose, fold
from ..envs.scenario import Scenario
from ..registry import Registry, with_arguments

AGENTS: Registry[Agent] = Registry("agent", "proxycoop.agents")


def make(name: str, /, **kwargs: object) -> Agent:
    """The agent called ``name``.

    Args:
        name: A registered name, such as ``"honest"``, which may be followed by arguments, as in ``"random(probability=0.9)"``.
        **kwargs: The agent's own parameters, such as ``path`` for ``"learned"``.

    Raises:
        ValueError: If the name is unknown (the message lists the known names), if the agent does not take these parameters, or if one is
            given twice.
    """
    known, arguments = parse(name)
    if both := sorted(arguments.keys() & kwargs.keys()):
        raise ValueError(f"agent {name!r}: {both[0]} is given twice, in the name and beside it: leave one")
    return AGENTS.make(known, **arguments, **kwargs)


def parse(name: str) -> tuple[str, dict[str, object]]:
    """Name and arguments of an agent: ``"random(probability=0.9)"`` → ``("random", {"probability": 0.9})``.

    Raises:
        ValueError: If it is no text, or the name is followed by anything but ``(argument=value, …)``.
    """
    if not isinstance(name, str):
        raise ValueError(f"agent={name!r}: must be the name of an agent as text, such as 'honest' or 'random(probability=0.9)'")
    return with_arguments("agent", name, "random(probability=0.9) or learned(path='out/run')")


def class_of(name: str) -> Any:
    """The class, or the function that makes it, of an agent that is named with or without arguments.

    Raises:
        ValueError: If the name is unknown; the message lists the known names.
    """
    return AGENTS[parse(name)[0]]


def checked_agent(argument: str, came: object) -> Agent:
    """The agent that was passed.

    Args:
        argument: The argument's name, for the message.
        came: What was passed.

    Raises:
        ValueError: If it is no agent.
    """
    if not isinstance(came, Agent):
        raise ValueError(f"{argument}={came!r}: must be an agent, as from agents.make('honest')")
    return came


class Agent(ABC):
    """One policy for all proxies in a batch of cooperatives. It sees only what each proxy observes.

    A subclass defines :meth:`choose`, and says in :attr:`made_for` which observations it reads. Two scenarios may have observations of one
    size that mean different things. So :meth:`begin` refuses a layout that the policy was not made for.
    """

    made_for: ObservationLayout | Literal["any"] | None = None
    """The layout of the observations that the policy reads: ``engine.layout`` of the scenario in which it was trained, or
    ``ObservationLayout.of(scenario)``. ``"any"`` is for policies that fit every scenario, because they find features by their names
    (``self.layout.lot(observations, "excess_loss")``) or read none. An agent that says neither is refused."""

    privileged: bool = False
    """Whether the agent sees more than a proxy can. Such agents are for reference only."""

    @classmethod
    def plays(cls, scenario: Scenario) -> bool:
        """Whether the agent can play this scenario. Nearly all agents can play every scenario."""
        return not cls.lacks(scenario)

    @classmethod
    def lacks(cls, scenario: Scenario) -> str:
        """What the scenario lacks for it to play, as a sentence with the remedy; empty if nothing."""
        del scenario
        return ""

    def check_scenario(self, scenario: Scenario) -> None:
        """Refuse a scenario that the agent cannot play.

        Raises:
            ValueError: If it cannot. The message says what the scenario lacks, if the agent knows.
        """
        if not self.plays(scenario):
            raise ValueError(self.lacks(scenario) or f"agent {type(self).__name__} cannot play scenario {scenario.name!r}")

    def watch(self, engine: Engine) -> None:  # noqa: B027  # only privileged agents look at it
        """Take the engine. This is called only for :attr:`privileged` agents."""

    def sit(self, seats: Iterable[int]) -> None:  # noqa: B027  # only those that must know look at it
        """Take only these seats, while other agents play the others. This is called after :meth:`watch`, for privileged agents."""

    def begin(self, layout: ObservationLayout, keys: Tensor) -> None:
        """Begin an episode in E environments.

        Args:
            layout: The layout of an observation.
            keys: One key per environment, int64 ``(E,)``, from which the policy may draw random numbers.

        Raises:
            ValueError: If the policy was not made for the layout, or does not say what it was made for.
        """
        self.check_layout(layout)
        self.layout = layout
        self.keys = keys
        self.t = 0

    def check_layout(self, layout: ObservationLayout) -> None:
        """Refuse observations that mean something else than those that the policy was made for, or that hold another number of lots.

        Raises:
            ValueError: If the layout differs from :attr:`made_for`, which the message explains, or :attr:`made_for` is not set.
        """
        name, made_for = type(self).__name__, self.made_for
        if made_for == "any":
            return
        if not isinstance(made_for, ObservationLayout):
            raise ValueError(
                f"agent {name} does not say which observations it reads (made_for={made_for!r}): set made_for = engine.layout, of the "
                'scenario that it was trained in, or made_for = "any" if it fits every scenario'
            )
        if differences := made_for.differences(layout):
            raise ValueError(
                f"agent {name} was made for other observations than this scenario has: {'; '.join(differences)}. Play it in a scenario "
                'with the same lots and values, or set made_for = "any" if it finds features by their names'
            )

    def act(self, observations: Tensor) -> Tensor:
        """Choose, for every proxy, which lots to contribute: ``(E, N, size)`` → bool ``(E, N, I)``.

        The policy gets a copy of the observations, which it may change. One that answers for the K lots alone forges nothing, and pulls no
        lever, where the scenario has ``conduct``.

        Raises:
            RuntimeError: If no episode was begun.
            ValueError: If the policy answers with anything but 0 or 1 for every lot.
        """
        name = type(self).__name__
        if not hasattr(self, "layout"):
            raise RuntimeError(f"agent {name} was not begun: call begin first, and in a begin of your own super().begin(layout, keys)")
        answer, shape = self.choose(observations.clone()), (*observations.shape[:-1], self.layout.n_lots)
        whole = (*shape[:-1], self.layout.n_items)
        if not isinstance(answer, Tensor) or tuple(answer.shape) not in (shape, whole):
            came = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
            items = f" for lots alone, or (E, N, I) = {whole} for lots, {', '.join(self.layout.items)}" if self.layout.items else ""
            raise ValueError(f"agent {name} answered with {came}: choose must return a tensor of shape (E, N, K) = {shape}{items}")
        if answer.dtype != torch.bool and not ((answer == 0) | (answer == 1)).all():
            raise ValueError(f"agent {name} answered with numbers other than 0 (withhold) and 1 (contribute): draw or compare them first")
        self.t += 1
        return pad(answer.bool(), (0, whole[-1] - answer.shape[-1]))

    @abstractmethod
    def choose(self, observations: Tensor) -> Tensor:
        """The policy itself, which :meth:`act` calls: ``(E, N, size)`` → bool ``(E, N, K)`` or ``(E, N, I)``."""

    def round_keys(self) -> Tensor:
        """A new key per environment for this round, int64 ``(E,)``."""
        return fold(self.keys, Purpose.POLICY, self.t)


class PrivilegedAgent(Agent):
    """A reference that looks into the engine, and reads no observations. No proxy could play it."""

    made_for = "any"
    privileged = True

    def watch(self, engine: Engine) -> None:
        """Take the engine, to look into it."""
        self.engine = engine


def play(
    engine: Engine,
    agent: Agent,
    seeds: Sequence[int] | None = None,
    *,
    copies: Mapping[int, int] | None = None,
    before_round: Callable[[Engine], None] | None = None,
    on_round: Callable[[Engine], None] | None = None,
) -> dict[str, Tensor]:
    """Play one episode in every environment of the engine.

    Args:
        engine: The cooperatives.
        agent: The policy of all proxies.
        seeds: As for :meth:`~proxycoop.envs.Engine.reset`.
        copies: As for :meth:`~proxycoop.envs.Engine.reset`.
        before_round: Called before every round, with the engine; ``engine.prospect`` then holds the round's proposals.
        on_round: Called after every round, with the engine.

    Returns:
        The episode's metrics; see :func:`~proxycoop.envs.episode_metrics`. The rounds are in ``engine.history``.

    Raises:
        ValueError: If ``agent`` is no agent, does not fit the scenario, or answers with no choices; or ``engine`` is no engine.
    """
    checked_agent("agent", agent)
    if not isinstance(engine, Engine):
        raise ValueError(f"engine={engine!r}: must be an Engine, as from Engine('digits', credit='loo', num_envs=8)")
    agent.check_scenario(engine.scenario)
    observations = engine.reset(seeds, copies=copies)
    if agent.privileged:
        agent.watch(engine)
    assert engine.seeds is not None
    agent.begin(engine.layout, fold(engine.seeds, engine.episode))
    while engine.t < engine.horizon:
        if before_round is not None:
            before_round(engine)
        observations = engine.step(agent.act(observations)).observations
        if on_round is not None:
            on_round(engine)
    return episode_metrics(engine)
