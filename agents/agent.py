"""The base class of a proxy's policy, how to find a policy by name, and how to play an episode with it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from ..envs.engine import Engine
from ..envs.metrics import episode_metrics
from ..envs.observations.layout import ObservationLayout
from ..envs.randomness import Purpose, fold
from ..envs.scenario import Scenario
from ..registry import Registry

AGENTS: Registry[Agent] = Registry("agent", "proxycoop.agents")


def make(name: str, /, **kwargs: object) -> Agent:
    """The agent called ``name``.

    Args:
        name: A registered name, such as ``"honest"``.
        **kwargs: The agent's own parameters, such as ``path`` for ``"learned"``.

    Raises:
        ValueError: If the name is unknown (the message lists the known names), or if the agent does not take these parameters.
    """
    return AGENTS.make(name, **kwargs)


class Agent(ABC):
    """One policy for all proxies in a batch of cooperatives. It sees only what each proxy observes."""

    privileged: bool = False
    """Whether the agent sees more than a proxy can. Such agents are for reference only."""

    @classmethod
    def plays(cls, scenario: Scenario) -> bool:
        """Whether the agent can play this scenario. Nearly all agents can play every scenario."""
        del scenario
        return True

    def watch(self, engine: Engine) -> None:  # noqa: B027  # only privileged agents look at it
        """Take the engine. This is called only for :attr:`privileged` agents."""

    def begin(self, layout: ObservationLayout, keys: Tensor) -> None:
        """Begin an episode in E environments.

        Args:
            layout: The layout of an observation.
            keys: One key per environment, int64 ``(E,)``, from which the policy may draw random numbers.

        Raises:
            ValueError: If the policy does not fit the layout.
        """
        self.layout = layout
        self.keys = keys
        self.t = 0

    def act(self, observations: Tensor) -> Tensor:
        """Choose, for every proxy, which lots to contribute: ``(E, N, size)`` → bool ``(E, N, K)``."""
        choices = self.choose(observations)
        self.t += 1
        return choices

    @abstractmethod
    def choose(self, observations: Tensor) -> Tensor:
        """The policy itself, which :meth:`act` calls: ``(E, N, size)`` → bool ``(E, N, K)``."""

    def round_keys(self) -> Tensor:
        """A new key per environment for this round, int64 ``(E,)``."""
        return fold(self.keys, Purpose.POLICY, self.t)


class PrivilegedAgent(Agent):
    """A reference that looks into the engine. No proxy could play it."""

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
    """
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
