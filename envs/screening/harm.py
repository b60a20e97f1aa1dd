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

from ..data.sources import Dataset, Rows
from ..model.models import Model
from ..values.interface import Value

HarmName = Literal["first_order", "second_order", "measured"]

_CHUNK = 2**24  # largest number of entries of a temporary tensor: 64 MiB in float32


def predicted_harm(value_gradients: Tensor, updates: Tensor) -> Tensor:
    """First-order harm of updates: ``(E, M, P)``, ``(E, ..., P)`` → ``(E, ..., M)``, in each value's unit."""
    flat = updates.reshape(len(updates), -1, updates.shape[-1])  # (E, ., P)
    return (flat @ value_gradients.transpose(-1, -2)).reshape(*updates.shape[:-1], value_gradients.shape[-2])


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
        flat = updates.reshape(n_envs, -1, n_parameters)  # (E, B, P)
        harms = []
        for m, (value, probe) in enumerate(self._values):
            size = max(1, _CHUNK // (n_envs * max(n_parameters, 4 * len(probe) * self._model.n_classes)))
            if self.kind == "measured":
                parts = [self._loss(value, probe, theta, some) - value_losses[:, m, None] for some in flat.split(size, dim=1)]
            else:
                parts = [
                    predicted_harm(value_gradients[:, m, None], some)[..., 0] + self._bend(value, probe, theta, some) / 2
                    for some in flat.split(size, dim=1)
                ]
            harms.append(torch.cat(parts, dim=1))
        return torch.stack(harms, dim=-1).reshape(n_envs, *middle, len(harms))

    def losses(self, theta: Tensor) -> Tensor:
        """The value losses on the probe sets, ``(E, P)`` → ``(E, M)``."""
        losses = theta.new_empty(len(theta), len(self._values))
        for m, (value, probe) in enumerate(self._values):
            losses[:, m] = value.loss(self._model.logits(theta, probe.x), probe, self._dataset)
        return losses

    def along(self, theta: Tensor, updates: Tensor, value_losses: Tensor, value_gradients: Tensor) -> Callable[[Tensor], Tensor]:
        """A function from factors ``(E, ...)`` to the harm of the updates times these factors, ``(E, ..., M)``.

        The arguments are those of :meth:`__call__`.
        """
        if self.kind == "measured" and not self.linear:
            return lambda factor: self(theta, factor[..., None] * updates, value_losses, value_gradients)
        first = predicted_harm(value_gradients, updates)
        second = self(theta, updates, value_losses, value_gradients) - first
        return lambda factor: factor[..., None] * first + factor[..., None].square() * second

    def _loss(self, value: Value, probe: Rows, theta: Tensor, updates: Tensor) -> Tensor:
        """ℓ(θ + Δ): ``(E, P)``, ``(E, B, P)`` → ``(E, B)``."""
        moved = (theta[:, None] + updates).flatten(end_dim=1)  # (E·B, P)
        return value.loss(self._model.logits(moved, probe.x), probe, self._dataset).reshape(updates.shape[:2])

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
