r"""A round's coalition game: what the utility would have gained with only some of the agents.

.. math:: v(S) = U(\theta + \gamma\,\text{server}(d_S)) - U(\theta + \gamma\,\text{server}(0)), \qquad d_S = \sum_{i \in S} w_i \Delta_i

For a linear model, plain server steps and fixed weights, all :math:`2^N` values come from one batched matrix product. Agent i
changes the logits by :math:`L_i`, so with :math:`F_i = \exp(L_i - L_{i,y})` and p the softmax at the round's start

.. math:: v(S) = -\text{mean}_v \log \sum_c p_{vc} \prod_{i \in S} F_{ivc}.

Splitting the agents into a half a and a half b, the sum over classes is the product of the matrices
:math:`A_{ac} = p_c \prod_{i \in a} F_{ic}` and :math:`B_{bc} = \prod_{i \in b} F_{ic}`: the work of :math:`2^N` is done by
:math:`2 \cdot 2^{N/2}` rows and a matrix product, and never leaves the cache.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from ...credit import CoalitionGame, coalition_matrix
from ..data.sources import Rows
from .likelihood import log_softmax, right
from .models import Model
from .server import ServerSettings, ServerState, Sgd
from .utility import UTILITIES, UtilityName

WeightsName = Literal["fixed", "participants"]

_CHUNK = 2**24  # numbers that a temporary tensor may hold: 64 MiB in float32
_CACHE = 2**18  # the same where a processor's cache should hold it: 1 MiB


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

    def coefficients(self, coalitions: Tensor) -> Tensor:
        """How much of each agent's update is in the coalitions' steps: bool ``(C, N)`` → ``(E, C, N)`` or ``(1, C, N)``.

        Coalitions that differ between environments are taken too, ``(E, C, N)``.
        """
        members = coalitions.to(self.updates)
        members = members[None] if coalitions.dim() == 2 else members  # (1, C, N) or (E, C, N)
        if self.weights == "fixed":
            return members
        total = self.weight @ members[0].T if coalitions.dim() == 2 else (members @ self.weight[..., None])[..., 0]  # (E, C)
        return members / torch.where(total > 0, total, 1.0)[..., None]

    def step(self, coalitions: Tensor) -> Tensor:
        """d_S before the server sees it, ``(E, C, P)``."""
        return self.coefficients(coalitions) @ self.updates

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
        self.additive = round_step.model.linear and isinstance(round_step.server, Sgd) and utility == "neg_log_loss"

    def game(self) -> CoalitionGame:
        """The coalition game, as credit rules take it."""
        doubling = self.additive and self.round_step.weights == "fixed"
        return CoalitionGame(
            self._additive_values if self.additive else self._general_values,
            self.round_step.updates.shape[1],
            value_block=self._block_values if doubling else None,
        )

    def value_of_lots(self, lots: Tensor) -> Tensor:
        """Values of sets of lots that may differ between environments, bool ``(E, C, N, K)`` → ``(E, C)``.

        Only of a step with lots in the agents' place, see :meth:`RoundStep.of_lots`.
        """
        return self._own_values(lots.flatten(2)) if self.additive else self._general_values(lots.flatten(2))

    def _general_values(self, coalitions: Tensor) -> Tensor:
        """Values of coalitions, bool ``([E,] C, N)``, for any model, server and utility, ``(E, C)``, in bounded memory."""
        step, utility = self.round_step, UTILITIES[self.utility]
        rows = self.validation
        n_envs, n_coalitions = len(step.theta), coalitions.shape[-2]
        coalitions = coalitions.to(step.theta.device)
        per_coalition = n_envs * max(step.model.n_parameters, 4 * len(rows) * step.model.n_classes)
        size = max(1, _CHUNK // per_coalition)
        before = utility(self._log_share.transpose(0, 1), rows.y)  # (E,)
        values = [
            utility(step.model.logits(step.parameters(some).flatten(end_dim=1), rows.x), rows.y).reshape(n_envs, -1)
            for some in coalitions.split(size, dim=-2)
        ]
        after = torch.cat(values, dim=1) if n_coalitions else before.new_zeros(n_envs, 0)
        return after - before[:, None]

    @cached_property
    def _log_share(self) -> Tensor:
        """Log-softmax of the model at the round's start, log p, ``(V, E, C)``."""
        step = self.round_step
        start = self._before if step.starts_at_theta else log_softmax(step.model.logits(step.start, self.validation.x))
        return start.transpose(0, 1)

    @cached_property
    def _shift(self) -> Tensor:
        """L_i − L_{i,y}: how each agent moves the logits against the right answer's, ``(V, E, N, C)``; a plain server's steps only."""
        step = self.round_step
        updates = step.updates * (step.gamma * step.server.lr)[:, None, None]
        n_envs, n_agents = updates.shape[:2]
        logits = step.model.logits(updates.flatten(end_dim=1), self.validation.x).transpose(0, 1)  # (V, E·N, C)
        return (logits - right(logits, self.validation.y[:, None])[..., None]).reshape(-1, n_envs, n_agents, logits.shape[-1])

    def _additive_values(self, coalitions: Tensor) -> Tensor:
        """Values of coalitions, bool ``(C, N)``, for a linear model, ``(E, C)``."""
        if self.round_step.weights == "participants":
            return self._own_values(coalitions)
        # classes last, slower than _own_values: with fixed weights no number moves by a bit
        shift, log_share = self._shift, self._log_share[:, :, None]  # (V, E, N, C), (V, E, 1, C)
        coalitions = coalitions.to(shift.device)
        size = max(1, _CHUNK // log_share.numel())
        values = [
            -(log_share + self.round_step.coefficients(some) @ shift).logsumexp(dim=-1).mean(dim=0)  # (E, some)
            for some in coalitions.split(size)
        ]
        return torch.cat(values, dim=1) if values else shift.new_zeros(shift.shape[1], 0)

    def _own_values(self, coalitions: Tensor) -> Tensor:
        """Values of coalitions that may differ between environments, bool ``([E,] C, N)``, for a linear model, ``(E, C)``."""
        n_envs = self._shift.shape[1]
        coefficients = self.round_step.coefficients(coalitions.to(self._shift.device)).expand(n_envs, -1, -1)
        values = self._shift.new_empty(coefficients.shape[:2])
        for envs, in_range in self._by_range:
            values[envs] = self._summed(envs, coefficients[envs], in_range)
        return values

    def _summed(self, envs: slice | Tensor, coefficients: Tensor, in_range: bool) -> Tensor:
        """Values by how much of each agent is in the step, in some environments, ``(e, C, N)`` → ``(e, C)``.

        One matrix product an environment, with the rows last, so that the sum over classes runs along memory. As much at once as a
        processor's cache holds.
        """
        shift, log_share = (part[envs] for part in self._rows_last)
        (n_envs, n_coalitions, _), n_rows = coefficients.shape, len(self.validation)
        most = (_CACHE if shift.device.type == "cpu" else _CHUNK) // shift.shape[-1]
        size = max(1, min(most, n_coalitions))
        n_at_once = max(1, most // size)
        values = shift.new_empty(n_envs, n_coalitions)
        for some in (slice(first, first + n_at_once) for first in range(0, n_envs, n_at_once)):
            for which in (slice(first, first + size) for first in range(0, n_coalitions, size)):
                logs = torch.baddbmm(log_share[some], coefficients[some, which], shift[some]).unflatten(2, (-1, n_rows))
                sums = logs.exp_().sum(dim=2).log_() if in_range else logs.logsumexp(dim=2)  # over classes
                values[some, which] = -sums.mean(dim=-1)
        return values

    def _block_values(self, first: int, n_low: int) -> Tensor:
        """Values of coalitions first … first + 2**n_low − 1 for a linear model and fixed weights, ``(E, 2**n_low)``.

        Agents from n_low on are in or out as the bits of first say; over the others, see the module's docstring.
        """
        _, n_envs, n_agents, _ = self._shift.shape
        always = [i for i in range(n_low, n_agents) if first >> i & 1]
        values = self._shift.new_empty(n_envs, 2**n_low)
        for envs, in_range in self._by_range:
            if in_range:
                values[envs] = self._doubled(envs, always, n_low)
            else:
                coalitions = coalition_matrix(n_low).new_zeros(2**n_low, n_agents)
                coalitions[:, :n_low] = coalition_matrix(n_low)
                coalitions[:, always] = True
                coefficients = self.round_step.coefficients(coalitions.to(values.device)).expand(n_envs, -1, -1)
                values[envs] = self._summed(envs, coefficients[envs], in_range)
        return values

    def _doubled(self, envs: slice | Tensor, always: list[int], n_low: int) -> Tensor:
        """Values of all coalitions of the first agents, each with those who are always in, in some environments, ``(e, 2**n_low)``."""
        factor, share = self._factor[:, envs, :n_low], self._share[:, envs]
        if always:
            share = share * self._factor[:, envs][:, :, always].prod(dim=2)
        size = max(1, _CHUNK // (len(factor) * 2**n_low))
        chunks = [
            _log_sums(some_factor, some_share) for some_factor, some_share in zip(factor.split(size, 1), share.split(size, 1), strict=True)
        ]
        return -torch.cat(chunks)  # minus the mean over rows of log Σ_c p_c Π F_c

    @cached_property
    def _rows_last(self) -> tuple[Tensor, Tensor]:
        """How agents move the logits, and log p, in other order: ``(E, N, C·V)``, ``(E, 1, C·V)``."""
        n_envs, n_agents = self.round_step.updates.shape[:2]
        shift, log_share = self._shift.permute(1, 2, 3, 0), self._log_share.permute(1, 2, 0)
        return shift.reshape(n_envs, n_agents, -1), log_share.reshape(n_envs, 1, -1)

    @cached_property
    def _by_range(self) -> list[tuple[slice | Tensor, bool]]:
        """The environments in at most two parts: those whose steps are in range, and the others. No part is empty."""
        inside = self._in_range
        if inside.all() or not inside.any():
            return [(slice(None), bool(inside.all()))]
        return [(part.nonzero()[:, 0], in_range) for part, in_range in ((inside, True), (~inside, False))]

    @cached_property
    def _factor(self) -> Tensor:
        """F_i = exp(L_i − L_{i,y}), ``(V, E, N, C)``."""
        return self._shift.exp()

    @cached_property
    def _share(self) -> Tensor:
        """Softmax at the round's start, p, ``(V, E, C)``."""
        return self._log_share.exp()

    @cached_property
    def _in_range(self) -> Tensor:
        r"""Environments whose steps are so small that a product of exponentials loses no term that matters, bool ``(E,)``.

        Every exponent is at most b in size: :math:`b = \sum_i \max_c |L_i - L_{i,y}|` with fixed weights. A mean over those who take part
        moves logits by no more than one of them would alone. A term lost to underflow is below tiny·e^b and the sum is at least e^−b / C,
        so b ≤ (log(1/tiny) − log(1/eps)) / 2 keeps what is lost below rounding.
        """
        shift, step = self._shift, self.round_step
        number = torch.finfo(shift.dtype)
        limit = (math.log(number.eps) - math.log(number.tiny)) / 2  # 35.7 in single precision
        if step.weights == "participants":
            alone = shift.abs().amax(dim=(0, 3))  # (E, N)
            return (alone <= limit * step.weight).all(dim=1)
        low, high = shift.aminmax()
        if max(-float(low), float(high)) * shift.shape[2] <= limit:  # the cheap bound is met, as it nearly always is
            return torch.ones(shift.shape[1], dtype=torch.bool, device=shift.device)
        return shift.abs().amax(dim=-1).sum(dim=-1).amax(dim=0) <= limit  # a NaN is out of range


def _log_sums(factor: Tensor, share: Tensor) -> Tensor:
    """Mean over rows of log Σ_c p_c Π_{i∈S} F_ic for all S: ``(V, E, N, C)``, ``(V, E, C)`` → ``(E, 2**N)``."""
    n_rows, n_envs, n_agents, _ = factor.shape
    half = n_agents // 2
    low = _products(factor[:, :, :half], share)  # (V, E, 2**half, C)
    high = _products(factor[:, :, half:], torch.ones_like(share))  # (V, E, 2**(N - half), C)
    sums = torch.bmm(high.flatten(end_dim=1), low.flatten(end_dim=1).transpose(1, 2))  # (V·E, 2**(N - half), 2**half)
    return sums.log_().reshape(n_rows, n_envs, 2**n_agents).mean(dim=0)


def _products(factor: Tensor, first: Tensor) -> Tensor:
    """First · Π_{i∈S} F_i for every subset S of a few agents, by doubling: ``(V, E, n, C)`` → ``(V, E, 2**n, C)``."""
    n = factor.shape[2]
    products = first.new_empty(*first.shape[:2], 2**n, first.shape[-1])
    products[:, :, 0] = first
    for i in range(n):
        torch.mul(products[:, :, : 2**i], factor[:, :, i, None], out=products[:, :, 2**i : 2 ** (i + 1)])
    return products
