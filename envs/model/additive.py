r"""Coalition games in which every agent moves the logits of the validation rows by something of its own.

.. math:: v(S) = U\Bigl(f_0 + \sum_{i \in S} c_i(S) L_i\Bigr) - U(f_0)

with f₀ the logits where the game starts, and U minus the mean cross-entropy. The rounds of a linear model with a plain server are such
games, and those of other models are near them (:mod:`~proxycoop.envs.model.surrogates`).

With fixed weights (c = 1) all :math:`2^N` values come from one batched matrix product. With :math:`F_i = \exp(L_i - L_{i,y})` and p the
softmax at the start

.. math:: v(S) = -\text{mean}_v \log \sum_c p_{vc} \prod_{i \in S} F_{ivc}.

Splitting the agents into a half a and a half b, the sum over classes is the product of the matrices
:math:`A_{ac} = p_c \prod_{i \in a} F_{ic}` and :math:`B_{bc} = \prod_{i \in b} F_{ic}`: the work of :math:`2^N` is done by
:math:`2 \cdot 2^{N/2}` rows and a matrix product, and never leaves the cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from ...credit import CoalitionGame, coalition_matrix
from ...credit.games.game import Surrogate, SurrogateMaker
from ...credit.games.surrogate import quadratic
from ..compiled.assumptions import traced, usually
from .likelihood import rights

WeightsName = Literal["fixed", "participants"]

CHUNK = 2**24  # numbers that a temporary tensor may hold: 64 MiB in float32
_CACHE = 2**18  # the same where a processor's cache should hold it: 1 MiB


def coefficients(coalitions: Tensor, weight: Tensor, weights: WeightsName) -> Tensor:
    """How much of each agent is in the coalitions' steps: bool ``(C, N)`` → ``(E, C, N)`` or ``(1, C, N)``.

    Coalitions that differ between environments are taken too, ``(E, C, N)``.

    Args:
        coalitions: The coalitions.
        weight: Each agent's weight, ``(E, N)``.
        weights: Whether absent agents count as zero (``fixed``), or coefficients are divided by the weight of those who take part.
    """
    members = coalitions.to(weight)
    members = members[None] if coalitions.dim() == 2 else members  # (1, C, N) or (E, C, N)
    if weights == "fixed":
        return members
    total = weight @ members[0].T if coalitions.dim() == 2 else (members @ weight[..., None])[..., 0]  # (E, C)
    return members / torch.where(total > 0, total, 1.0)[..., None]


@dataclass(frozen=True)
class AdditiveLogits:
    """Such a game, of E environments, N agents, V rows and C classes.

    Attributes:
        shift: L_i − L_{i,y}: how each agent moves the logits against the right answer's, ``(V, E, N, C)``; see :func:`against_right`.
        log_share: Log-softmax of the model where the game starts, log p, ``(V, E, C)``.
        weight: Each agent's weight, ``(E, N)``.
        weights: As in :func:`coefficients`.
    """

    shift: Tensor
    log_share: Tensor
    weight: Tensor
    weights: WeightsName

    def game(self, surrogate: SurrogateMaker | None = None) -> CoalitionGame:
        """The coalition game, as credit rules take it."""
        block = self.block if self.weights == "fixed" else None
        return CoalitionGame(self.values, self.shift.shape[2], value_block=block, surrogate=surrogate)

    def surrogate(self, game: CoalitionGame, most: int) -> Surrogate:
        """The expansion, as games ask for their surrogates."""
        del game, most  # it needs no evaluation
        return self.expansion()

    def expansion(self) -> Surrogate:
        """The game's quadratic expansion: its gradient and curvature in the agents are moments of the logits under p."""
        n_rows = len(self.shift)
        shift, p = self.shift.permute(1, 2, 0, 3), self.log_share.exp().permute(1, 0, 2)[:, None]  # (E, N, V, C), (E, 1, V, C)
        mean = (p * shift).sum(dim=-1, keepdim=True)
        spread = ((shift - mean) * p.sqrt()).flatten(2).double()
        return quadratic(-mean[..., 0].double().mean(dim=-1), spread @ spread.transpose(1, 2) / -n_rows, self._renormalised)

    @property
    def _renormalised(self) -> Tensor | None:
        return self.weight if self.weights == "participants" else None

    def values(self, coalitions: Tensor) -> Tensor:
        """Values of coalitions, bool ``([E,] C, N)``: ``(E, C)``."""
        if self.weights == "participants" or coalitions.dim() == 3:
            return self._own_values(coalitions)
        # classes last, slower than _own_values: with fixed weights no number moves by a bit
        shift, log_share = self.shift, self.log_share[:, :, None]  # (V, E, N, C), (V, E, 1, C)
        coalitions = coalitions.to(shift.device)
        size = max(1, CHUNK // log_share.numel())
        values = [
            -(log_share + self._coefficients(some) @ shift).logsumexp(dim=-1).mean(dim=0)  # (E, some)
            for some in coalitions.split(size)
        ]
        return torch.cat(values, dim=1) if values else shift.new_zeros(shift.shape[1], 0)

    def moved(self, coefficients: Tensor) -> Tensor:
        """Values where each agent's part is in the step with a coefficient of any kind, ``(E, C, N)``: ``(E, C)``."""
        return self._summed(None, coefficients, in_range=False)

    def _coefficients(self, coalitions: Tensor) -> Tensor:
        return coefficients(coalitions, self.weight, self.weights)

    def _own_values(self, coalitions: Tensor) -> Tensor:
        """Values of coalitions that may differ between environments, bool ``([E,] C, N)``, ``(E, C)``."""
        n_envs = self.shift.shape[1]
        coefficients = self._coefficients(coalitions.to(self.shift.device)).expand(n_envs, -1, -1)
        return self._joined(lambda envs, in_range: self._summed(envs, _some(coefficients, envs), in_range), coefficients.shape[1])

    def _joined(self, values_of: Callable[[Tensor | None, bool], Tensor], n_coalitions: int) -> Tensor:
        """Values of all environments, ``(E, C)``, by those of its parts (:attr:`_by_range`), ``(e, C)``."""
        if len(self._by_range) == 1:
            return values_of(*self._by_range[0])
        values = self.shift.new_empty(self.shift.shape[1], n_coalitions)
        for envs, in_range in self._by_range:
            values[envs] = values_of(envs, in_range)
        return values

    def _summed(self, envs: Tensor | None, coefficients: Tensor, in_range: bool) -> Tensor:
        """Values by how much of each agent is in the step, in some environments, ``(e, C, N)`` → ``(e, C)``.

        One matrix product an environment, with the rows last, so that the sum over classes runs along memory. As much at once as a
        processor's cache holds.
        """
        shift, log_share = (_some(part, envs) for part in self._rows_last)
        (n_envs, n_coalitions, _), n_rows = coefficients.shape, len(self.shift)
        most = (_CACHE if shift.device.type == "cpu" else CHUNK) // shift.shape[-1]
        size = max(1, min(most, n_coalitions))
        n_at_once = max(1, most // size)
        values = shift.new_empty(n_envs, n_coalitions)
        for some in (slice(first, first + n_at_once) for first in range(0, n_envs, n_at_once)):
            for which in (slice(first, first + size) for first in range(0, n_coalitions, size)):
                logs = torch.baddbmm(log_share[some], coefficients[some, which], shift[some]).unflatten(2, (-1, n_rows))
                sums = logs.exp_().sum(dim=2).log_() if in_range else logs.logsumexp(dim=2)  # over classes
                values[some, which] = -sums.mean(dim=-1)
        return values

    def block(self, first: int, n_low: int) -> Tensor:
        """Values of coalitions first … first + 2**n_low − 1 with fixed weights, ``(E, 2**n_low)``.

        Agents from n_low on are in or out as the bits of first say; over the others, see the module's docstring.
        """
        _, n_envs, n_agents, _ = self.shift.shape
        always = [i for i in range(n_low, n_agents) if first >> i & 1]

        def values_of(envs: Tensor | None, in_range: bool) -> Tensor:
            if in_range:
                return self._doubled(envs, always, n_low)
            coalitions = coalition_matrix(n_low).new_zeros(2**n_low, n_agents)
            coalitions[:, :n_low] = coalition_matrix(n_low)
            coalitions[:, always] = True
            coefficients = self._coefficients(coalitions.to(self.shift.device)).expand(n_envs, -1, -1)
            return self._summed(envs, _some(coefficients, envs), in_range)

        return self._joined(values_of, 2**n_low)

    def _doubled(self, envs: Tensor | None, always: list[int], n_low: int) -> Tensor:
        """Values of all coalitions of the first agents, each with those who are always in, in some environments, ``(e, 2**n_low)``."""
        factor, share = _some(self._factor, envs, 1), _some(self._share, envs, 1)
        if always:
            share = share * factor[:, :, always].prod(dim=2)
        factor = factor if n_low == factor.shape[2] else factor[:, :, :n_low]
        size = max(1, CHUNK // (len(factor) * 2**n_low))
        if factor.shape[1] <= size:
            return -_log_sums(factor, share)  # minus the mean over rows of log Σ_c p_c Π F_c
        chunks = [
            _log_sums(some_factor, some_share) for some_factor, some_share in zip(factor.split(size, 1), share.split(size, 1), strict=True)
        ]
        return -torch.cat(chunks)

    @cached_property
    def _rows_last(self) -> tuple[Tensor, Tensor]:
        """How agents move the logits, and log p, in other order: ``(E, N, C·V)``, ``(E, 1, C·V)``."""
        _, n_envs, n_agents, _ = self.shift.shape
        shift, log_share = self.shift.permute(1, 2, 3, 0), self.log_share.permute(1, 2, 0)
        return shift.reshape(n_envs, n_agents, -1), log_share.reshape(n_envs, 1, -1)

    @cached_property
    def _by_range(self) -> list[tuple[Tensor | None, bool]]:
        """The environments in at most two parts: those whose steps are in range, and the others. No part is empty; ``None`` is all."""
        if self._all_in_range:
            return [(None, True)]
        inside = self._in_range
        if usually(inside):
            return [(None, True)]
        if not inside.any():
            return [(None, False)]
        return [(part.nonzero()[:, 0], in_range) for part, in_range in ((inside, True), (~inside, False))]

    @cached_property
    def _factor(self) -> Tensor:
        """F_i = exp(L_i − L_{i,y}), ``(V, E, N, C)``."""
        return self.shift.exp()

    @cached_property
    def _share(self) -> Tensor:
        """Softmax at the round's start, p, ``(V, E, C)``."""
        return self.log_share.exp()

    @cached_property
    def _in_range(self) -> Tensor:
        r"""Environments whose steps are so small that a product of exponentials loses no term that matters, bool ``(E,)``.

        Every exponent is at most b in size: :math:`b = \sum_i \max_c |L_i - L_{i,y}|` with fixed weights. A mean over those who take part
        moves logits by no more than one of them would alone. A term lost to underflow is below tiny·e^b and the sum is at least e^−b / C,
        so b ≤ (log(1/tiny) − log(1/eps)) / 2 keeps what is lost below rounding.
        """
        shift = self.shift
        if self.weights == "participants":
            alone = shift.abs().amax(dim=(0, 3))  # (E, N)
            return (alone <= self._limit * self.weight).all(dim=1)
        return shift.abs().amax(dim=-1).sum(dim=-1).amax(dim=0) <= self._limit  # a NaN is out of range

    @property
    def _all_in_range(self) -> bool:
        """Whether all are by a cheaper bound, as they nearly always are: N times the largest entry."""
        if self.weights == "participants" or traced():
            return False
        low, high = self.shift.aminmax()
        return max(-float(low), float(high)) * self.shift.shape[2] <= self._limit

    @property
    def _limit(self) -> float:
        number = torch.finfo(self.shift.dtype)
        return (math.log(number.eps) - math.log(number.tiny)) / 2  # 35.7 in single precision


def _some(part: Tensor, envs: Tensor | None, dim: int = 0) -> Tensor:
    """Some environments of a tensor, or all."""
    return part if envs is None else part.index_select(dim, envs)


def against_right(logits: Tensor, y: Tensor) -> Tensor:
    """Logits against the right answer's: ``(V, E, N, C)`` and labels ``(V,)`` → ``(V, E, N, C)``."""
    return flat_against_right(logits.flatten(1, 2), y).reshape(logits.shape)


def flat_against_right(logits: Tensor, y: Tensor) -> Tensor:
    """The same of any models one after another: ``(V, B, C)`` → ``(V, B, C)``."""
    return logits - rights(logits, y.reshape(-1, 1, 1))


def _log_sums(factor: Tensor, share: Tensor) -> Tensor:
    """Mean over rows of log Σ_c p_c Π_{i∈S} F_ic for all S: ``(V, E, N, C)``, ``(V, E, C)`` → ``(E, 2**N)``."""
    n_rows, n_envs, n_agents, n_classes = factor.shape
    half = n_agents // 2
    low, high = _products(factor.reshape(n_rows * n_envs, n_agents, n_classes), share.reshape(n_rows * n_envs, n_classes), half)
    sums = torch.bmm(high, low.transpose(1, 2))  # (V·E, 2**(N - half), 2**half)
    return sums.log_().reshape(n_rows, n_envs, 2**n_agents).mean(dim=0)


def _products(factor: Tensor, first: Tensor, half: int) -> tuple[Tensor, Tensor]:
    """First · Π_{i∈S} F_i for every subset S of the first half of the agents, and Π_{i∈S} F_i for those of the others.

    By doubling, both halves at once: ``(B, N, C)``, ``(B, C)`` → ``(B, 2**half, C)``, ``(B, 2**(N - half), C)``.
    """
    products = factor.new_empty(len(factor), 2, 2**half, factor.shape[-1])
    start, *grown = products.split([1, *(2**i for i in range(half))], dim=2)
    torch.stack([first, torch.ones_like(first)], dim=1, out=start[:, :, 0])
    pairs = factor if factor.shape[1] == 2 * half else factor[:, : 2 * half]
    for i, (pair, new) in enumerate(zip(pairs.reshape(len(pairs), 2, half, 1, -1 if half else 0).unbind(dim=2), grown, strict=True)):
        torch.mul(products[:, :, : 2**i] if i else start, pair, out=new)
    low, high = products.unbind(dim=1)
    if factor.shape[1] > 2 * half:  # one agent more
        high = torch.cat([high, high * factor[:, -1:]], dim=1)
    return low, high
