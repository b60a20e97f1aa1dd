r"""Losses and gradients of all values of a cooperative at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..data.sources import Dataset, Rows
from ..model.interface import Model
from .interface import Value, require_losses


def losses_and_gradients(
    values: Mapping[str, Value], probes: Sequence[Rows], probe_logits: Sequence[Tensor], model: Model, theta: Tensor, dataset: Dataset
) -> tuple[Tensor, Tensor]:
    """Value losses and their gradients.

    Args:
        values: The M values.
        probes: The probe set of each value, prepared or not.
        probe_logits: The model's logits on each probe set, ``(E, n_rows, n_classes)``.
        model: The shared model.
        theta: Its parameters, ``(E, P)``.
        dataset: The data set from which the probe sets came.

    Returns:
        The losses ``(E, M)``, and their gradients ``(E, M, P)``.

    Raises:
        ValueError: If a value does not answer with a loss for each environment.
    """
    if not values:
        return theta.new_empty(len(theta), 0), theta.new_empty(len(theta), 0, theta.shape[-1])
    losses, gradients = [], []
    for (name, value), probe, logits in zip(values.items(), probes, probe_logits, strict=True):
        loss, cotangent = value.loss_and_gradient(logits, probe, dataset)
        require_losses(name, loss, logits)
        losses.append(loss.to(theta))
        gradients.append(model.pullback(theta, probe.x, cotangent))
    return torch.stack(losses, dim=1), torch.stack(gradients, dim=1)


def protected_classes(values: Mapping[str, Value], dataset: Dataset) -> Tensor:
    """Which class each value protects, bool ``(M, n_classes)``."""
    protects = torch.zeros(len(values), len(dataset.class_names), dtype=torch.bool)
    for m, value in enumerate(values.values()):
        if (label := value.protected_class(dataset)) is not None:
            protects[m, label] = True
    return protects
