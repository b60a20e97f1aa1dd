r"""A round's coalition game: what the utility would have gained with only some of the agents.

.. math:: v(S) = U(\theta + \gamma\,\text{server}(d_S)) - U(\theta + \gamma\,\text{server}(0)), \qquad d_S = \sum_{i \in S} w_i \Delta_i

For a linear model and plain server steps, each agent moves the logits by something of its own (:mod:`~proxycoop.envs.model.additive`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from ...credit import CoalitionGame
from ...credit.games.game import SurrogateMaker
from ..data.sources import Rows
from .additive import CHUNK, AdditiveLogits, WeightsName, coefficients, flat_against_right
from .interface import Model
from .likelihood import log_softmax
from .server import ServerSettings, ServerState, Sgd
from .utility import UTILITIES, UtilityName


@dataclass(frozen=True)
class RoundStep:
    """One round's aggregate, for E environments and N agents: enough to redo it with any coalition.

    Attributes:
        model: The shared model.
        server: The server's settings.
        state: The server's memory before the round.
        theta: Parameters before the round, ``(E, P)``.
        updates: Each agent's admitted updates, summed with their lots' shares of all data, ``(E, N, P)``.
        weight: Each agent's admitted share of all data, ``(E, N)``.
        weights: Whether absent agents count as zero (``fixed``) or the step is renormalised (``participants``).
        gamma: The guard's factor on the server's step, ``(E,)``.
    """

    model: Model
    server: ServerSettings
    state: ServerState
    theta: Tensor
    updates: Tensor
    weight: Tensor
    weights: WeightsName
    gamma: Tensor

    @property
    def starts_at_theta(self) -> bool:
        """Whether a round in which nobody takes part leaves θ as it is: always, unless the server remembers."""
        return isinstance(self.server, Sgd) and self.server.momentum == 0

    @property
    def does_not_add_up(self) -> str:
        """Why steps are not sums over agents, in words; empty where they are."""
        return ""

    def coefficients(self, coalitions: Tensor) -> Tensor:
        """How much of each agent's update is in the coalitions' steps: bool ``(C, N)`` → ``(E, C, N)`` or ``(1, C, N)``.

        Coalitions that differ between environments are taken too, ``(E, C, N)``.
        """
        return coefficients(coalitions, self.weight, self.weights)

    def step(self, coalitions: Tensor) -> Tensor:
        """d_S before the server sees it, ``(E, C, P)``."""
        coefficients = self.coefficients(coalitions)
        return torch.bmm(coefficients.expand(len(self.updates), -1, -1), self.updates)

    def parameters(self, coalitions: Tensor) -> Tensor:
        """Parameters after the round if only S had taken part, ``(E, C, P)``."""
        return self.theta[:, None] + self.gamma[:, None, None] * self.server.delta(self.step(coalitions), self.state)

    @cached_property
    def start(self) -> Tensor:
        """Parameters after a round in which nobody takes part, ``(E, P)``: θ, moved by what the server's memory alone brings."""
        if self.starts_at_theta:
            return self.theta
        return self.parameters(torch.zeros(1, self.updates.shape[1], dtype=torch.bool, device=self.theta.device))[:, 0]

    def applied_updates(self) -> Tensor:
        """Each agent's part in the step, ``(E, N, P)``; they sum to it, less what the server's memory alone brings."""
        return self._parts(self._everyones[..., None] * self.updates)

    def applied_lots(self, share: Tensor, updates: Tensor) -> Tensor:
        """Each admitted lot's part in the step, ``(E, N, K, P)``, by its share of all data, ``(E, N, K)``, 0 if not admitted."""
        entering = (self._everyones[..., None] * share)[..., None] * updates
        return self._parts(entering.flatten(1, 2)).reshape(updates.shape)

    @property
    def _everyones(self) -> Tensor:
        """How much of each agent's update is in the step of all, ``(E, N)`` or ``(1, N)``."""
        return self.coefficients(torch.ones(1, self.updates.shape[1], dtype=torch.bool, device=self.theta.device))[:, 0]

    def _parts(self, entering: Tensor) -> Tensor:
        """Parts in what is added to θ, by what enters the server, ``(E, n, P)``."""
        return self.gamma[:, None, None] * self.server.parts(entering, self.state)

    def of_lots(self, share: Tensor, updates: Tensor) -> RoundStep:
        """The same step with lots in the agents' place, whatever was contributed: shares ``(E, N, K)``, updates ``(E, N, K, P)``."""
        return replace(self, updates=(share[..., None] * updates).flatten(1, 2), weight=share.flatten(1, 2))


class UtilityGame:
    """v(S) of one round, in the utility's unit.

    Args:
        round_step: The round's aggregate.
        utility: Name of the utility.
        validation: The rows that define it.
        log_share: Log-softmax of the model on them before the round, ``(E, V, C)``.
    """

    def __init__(self, round_step: RoundStep, utility: UtilityName, validation: Rows, log_share: Tensor) -> None:
        self.round_step = round_step
        self._before = log_share
        self.utility = utility
        self.validation = validation
        sums = isinstance(round_step.server, Sgd) and not round_step.does_not_add_up
        self.additive = round_step.model.linear and sums and utility == "neg_log_loss"

    def game(self, surrogate: SurrogateMaker | None = None) -> CoalitionGame:
        """The coalition game, as credit rules take it.

        Args:
            surrogate: What makes a cheap game near it, for estimates.
        """
        if self.additive:
            return self.logits.game(surrogate)
        return CoalitionGame(self._general_values, self.round_step.updates.shape[1], surrogate=surrogate)

    def value_of_lots(self, lots: Tensor) -> Tensor:
        """Values of sets of lots that may differ between environments, bool ``(E, C, N, K)`` → ``(E, C)``.

        Only of a step with lots in the agents' place, see :meth:`RoundStep.of_lots`.
        """
        return self.logits.values(lots.flatten(2)) if self.additive else self._general_values(lots.flatten(2))

    def _general_values(self, coalitions: Tensor) -> Tensor:
        """Values of coalitions, bool ``([E,] C, N)``, for any model, server and utility, ``(E, C)``, in bounded memory."""
        utility, y = UTILITIES[self.utility], self.validation.y
        before = utility(self.start_logits, y)  # (E,)
        values = [utility(logits, y) for logits in self._answers(coalitions)]
        after = torch.cat(values, dim=1) if values else before.new_zeros(len(before), 0)
        return after - before[:, None]

    def answers(self, coalitions: Tensor) -> Tensor:
        """The logits of the validation rows had only some agents taken part, bool ``([E,] C, N)``, C > 0: ``(E, C, V, classes)``."""
        return torch.cat(list(self._answers(coalitions)), dim=1)

    def _answers(self, coalitions: Tensor) -> Iterator[Tensor]:
        """The same in bounded memory, for some of the coalitions after others."""
        step, rows = self.round_step, self.validation
        per_coalition = len(step.theta) * max(step.model.n_parameters, 4 * len(rows) * step.model.n_classes)
        for some in coalitions.to(step.theta.device).split(max(1, CHUNK // per_coalition), dim=-2):
            if some.shape[-2]:
                yield step.model.logits(step.parameters(some).flatten(end_dim=1), rows.x).unflatten(0, (len(step.theta), -1))

    @property
    def start_logits(self) -> Tensor:
        """The logits of the validation rows where the game starts, as log-softmax, ``(E, V, C)``."""
        return self.log_share.transpose(0, 1)

    @cached_property
    def log_share(self) -> Tensor:
        """Log-softmax of the model at the round's start, log p, ``(V, E, C)``."""
        step = self.round_step
        start = self._before if step.starts_at_theta else log_softmax(step.model.logits(step.start, self.validation.x))
        return start.transpose(0, 1)

    @cached_property
    def logits(self) -> AdditiveLogits:
        """The game in the agents' logits; a linear model's with a plain server only."""
        step = self.round_step
        updates = step.updates * (step.gamma * step.server.lr).reshape(-1, 1, 1)
        logits = step.model.logits_by_row(updates.flatten(end_dim=1), self.validation.x)  # (V, E·N, C)
        shift = flat_against_right(logits, self.validation.y).unflatten(1, updates.shape[:2])
        return AdditiveLogits(shift, self.log_share, step.weight, step.weights)
