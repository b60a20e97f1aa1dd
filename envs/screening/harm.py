r"""Harm: what an update does to a value.

It is predicted to first order or to second order, or measured on the value's probe set:

.. math:: h_m = \langle \nabla \ell_m(\theta), \Delta \rangle, \qquad
    h_m = \langle \nabla \ell_m(\theta), \Delta \rangle + \tfrac12 \langle \Delta, \nabla^2 \ell_m(\theta) \Delta \rangle, \qquad
    h_m = \ell_m(\theta + \Delta) - \ell_m(\theta)

First-order harm is linear in the update, so a mean of harmless updates is harmless. Measured harm is convex in the update if the value is
convex and the model linear (class and group losses). Then a mean of harmless updates is harmless too, by Jensen's inequality. For gaps and
rates this does not hold; there the guard helps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from ..compiled.assumptions import traced
from ..data.sources import Dataset, Rows
from ..model.interface import Model
from ..values.interface import Value

HarmName = Literal["first_order", "second_order", "measured"]

_CHUNK = 2**24  # largest number of entries of a temporary tensor: 64 MiB in float32


def beside(part: Tensor, factor: Tensor, n: int) -> Tensor:
    """What has n axes for the updates, beside factors of updates, which may have one axis more, for several factors of each update."""
    return part if factor.dim() == n else part.unsqueeze(n)


def predicted_harm(value_gradients: Tensor, updates: Tensor) -> Tensor:
    """First-order harm of updates: ``(E, M, P)``, ``(E, ..., P)`` → ``(E, ..., M)``, in each value's unit."""
    flat = updates.reshape(updates.shape[0], -1, updates.shape[-1])  # (E, ., P)
    return torch.bmm(flat, value_gradients.transpose(1, 2)).reshape(*updates.shape[:-1], -1)


class Harm:
    """The harm of updates by one of the three definitions.

    Args:
        kind: Which definition.
        values: The M values, by name.
        probes: The probe set of each value, prepared or not.
        model: The shared model.
        dataset: The data set from which the probe sets came.
    """

    def __init__(self, kind: HarmName, values: Mapping[str, Value], probes: Sequence[Rows], model: Model, dataset: Dataset) -> None:
        self.kind = kind
        self.linear = kind == "first_order" or not values
        """Whether the harm is linear in the update."""
        self._values = list(zip(values.values(), probes, strict=True))
        self._model = model
        self._dataset = dataset

    def __call__(self, theta: Tensor, updates: Tensor, value_losses: Tensor, value_gradients: Tensor) -> Tensor:
        """Harm of updates.

        Args:
            theta: The shared parameters, ``(E, P)``.
            updates: ``(E, ..., P)``.
            value_losses: Value losses at θ, ``(E, M)``.
            value_gradients: Their gradients at θ, ``(E, M, P)``.

        Returns:
            ``(E, ..., M)``, in each value's unit.
        """
        if self.linear:
            return predicted_harm(value_gradients, updates)
        n_envs, *middle, n_parameters = updates.shape
        if self.kind == "measured" and not middle:  # one update an environment
            moved = theta + updates
            losses = [value.loss(self._model.logits(moved, probe.x), probe, self._dataset) for value, probe in self._values]
            return torch.stack(losses, dim=-1) - value_losses
        flat = updates.reshape(n_envs, -1, n_parameters)  # (E, B, P)
        measured, moved = self.kind == "measured", (theta[:, None] + flat if self.kind == "measured" else flat)
        harms = []
        for m, (value, probe) in enumerate(self._values):
            size = max(1, _CHUNK // (n_envs * max(n_parameters, 4 * len(probe) * self._model.n_classes)))
            if measured:
                parts = [self._loss(value, probe, some) for some in _parts(moved, size)]
            else:
                parts = [
                    predicted_harm(value_gradients[:, m, None], some)[..., 0] + self._bend(value, probe, theta, some) / 2
                    for some in _parts(flat, size)
                ]
            harms.append(parts[0] if len(parts) == 1 else torch.cat(parts, dim=1))
        harm = torch.stack(harms, dim=-1)  # (E, B, M)
        return (harm - value_losses[:, None] if measured else harm).reshape(n_envs, *middle, len(harms))

    def losses(self, theta: Tensor) -> Tensor:
        """The value losses on the probe sets, ``(E, P)`` → ``(E, M)``."""
        losses = theta.new_empty(len(theta), len(self._values))
        for m, (value, probe) in enumerate(self._values):
            losses[:, m] = value.loss(self._model.logits(theta, probe.x), probe, self._dataset)
        return losses

    def along(self, theta: Tensor, updates: Tensor, value_losses: Tensor, value_gradients: Tensor) -> Callable[[Tensor], Tensor]:
        """A function from factors ``(E, ...)`` to the harm of the updates times these factors, ``(E, ..., M)``.

        There may be several factors for each update, along a last axis of their own.

        The arguments are those of :meth:`__call__`.
        """
        n = updates.dim() - 1
        if self.kind == "measured" and not self.linear:
            if traced() and self._model.linear and n == 1:
                return self._along_answers(theta, updates, value_losses)
            return lambda factor: self(theta, factor[..., None] * beside(updates, factor, n), value_losses, value_gradients)
        first = predicted_harm(value_gradients, updates)
        second = self(theta, updates, value_losses, value_gradients) - first
        return lambda factor: factor[..., None] * beside(first, factor, n) + factor[..., None].square() * beside(second, factor, n)

    def _along_answers(self, theta: Tensor, updates: Tensor, value_losses: Tensor) -> Callable[[Tensor], Tensor]:
        """The same of measured harm of one update an environment, ``(E, P)``, by the answers of a linear model: two passes for all factors.

        It rounds otherwise than a pass for every factor, so that it is for compiled rounds alone.
        """
        answers = [[_rows_last(self._model.logits(some, probe.x)) for some in (theta, updates)] for _, probe in self._values]

        def harm(factor: Tensor) -> Tensor:
            losses = [
                value.loss(beside(at, factor, 1) + factor[..., None, None] * beside(change, factor, 1), probe, self._dataset)
                for (value, probe), (at, change) in zip(self._values, answers, strict=True)
            ]
            return torch.stack(losses, dim=-1) - beside(value_losses, factor, 1)

        return harm

    def _loss(self, value: Value, probe: Rows, moved: Tensor) -> Tensor:
        """ℓ at parameters ``(E, B, P)``: ``(E, B)``."""
        return value.loss(self._model.logits(moved.flatten(end_dim=1), probe.x), probe, self._dataset).reshape(moved.shape[:2])

    def _bend(self, value: Value, probe: Rows, theta: Tensor, updates: Tensor) -> Tensor:
        """⟨Δ, ∇²ℓ Δ⟩, ``(E, B)``: the second derivative of ℓ(θ + εΔ) at ε = 0, by differentiating twice."""
        start = theta[:, None].expand_as(updates).flatten(end_dim=1)  # (E·B, P)
        along = updates.flatten(end_dim=1)

        if self._model.linear:  # two forward passes are enough
            at_start, change = self._model.logits(start, probe.x), self._model.logits(along, probe.x)

            def logits(epsilon: Tensor) -> Tensor:
                return at_start + epsilon[:, None, None] * change
        else:

            def logits(epsilon: Tensor) -> Tensor:
                return self._model.logits(start + epsilon[:, None] * along, probe.x)

        with torch.enable_grad():
            epsilon = along.new_zeros(len(along)).requires_grad_()
            loss = value.loss(logits(epsilon), probe, self._dataset)
            (slope,) = torch.autograd.grad(loss.sum(), epsilon, create_graph=True)
            if not slope.requires_grad:  # the value is linear in the logits of a linear model
                return updates.new_zeros(updates.shape[:2])
            (bend,) = torch.autograd.grad(slope.sum(), epsilon, materialize_grads=True)
        return bend.detach().reshape(updates.shape[:2])


def _rows_last(logits: Tensor) -> Tensor:
    """The same logits ``(E, R, C)``, with the rows next to each other in memory: sums over a few classes are then faster."""
    return logits.transpose(1, 2).contiguous().transpose(1, 2)


def _parts(updates: Tensor, size: int) -> Sequence[Tensor]:
    """Updates ``(E, B, P)`` in parts of at most ``size`` an environment."""
    return [updates] if updates.shape[1] <= size else updates.split(size, dim=1)
