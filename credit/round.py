"""What a credit rule sees of one round of a learning cooperative."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

from torch import Tensor

from .game import CoalitionGame


class Round:
    """One screened and aggregated round, batched over E environments, N agents and K lots.

    Args:
        game: v(S): what the round's utility gain would have been with only the agents of S; v(∅) = 0.
        contributed: bool ``(E, N, K)``: the lots that the proxies chose to contribute.
        admitted: bool ``(E, N, K)``: contributed and not screened out.
        blocked_by: bool ``(E, N, K, N)``: whether lot ``(i, k)`` is inadmissible to principal j, whatever governance made of it.
        samples: ``(N, K)``: data rows behind each lot.
        updates: ``() -> (E, N, P)``: each agent's part in the step of a plain server: its admitted updates times their weights, the
            guard's factor and the server's learning rate. They sum to the applied step, less what a server's momentum adds; with
            Adam they are what enters it.
        utility_gradient: ``() -> (E, P)``: gradient of the utility at the parameters on which the round's game starts.
        t: Index of the round within its episode, from 0.
        episode: Index of the episode among those of its seed; rules that sample draw anew in every round of every episode.
    """

    def __init__(
        self,
        game: CoalitionGame,
        *,
        contributed: Tensor,
        admitted: Tensor,
        blocked_by: Tensor,
        samples: Tensor,
        updates: Callable[[], Tensor],
        utility_gradient: Callable[[], Tensor],
        t: int,
        episode: int = 0,
    ) -> None:
        self.game = game
        self.contributed = contributed
        self.admitted = admitted
        self.blocked_by = blocked_by
        self.samples = samples
        self.t = t
        self.episode = episode
        self._updates = updates
        self._utility_gradient = utility_gradient

    @property
    def num_envs(self) -> int:
        """Number of environments E."""
        return self.contributed.shape[0]

    @property
    def num_agents(self) -> int:
        """Number of agents N."""
        return self.contributed.shape[1]

    @cached_property
    def updates(self) -> Tensor:
        """Each agent's part in the step of a plain server, ``(E, N, P)``; see the class."""
        return self._updates()

    @cached_property
    def gain(self) -> Tensor:
        """What the round gained over contributing nothing: v(N), ``(E,)``, in the utility's unit."""
        return self.game.grand()

    def value(self, coalitions: Tensor) -> Tensor:
        """v(S) of the given coalitions, bool ``(C, N)``: ``(E, C)``, each coalition evaluated at most once."""
        return self.game.value(coalitions)

    def utility_gradient(self) -> Tensor:
        """Gradient of the utility at the parameters on which the round's game starts, ``(E, P)``."""
        return self._utility_gradient()
