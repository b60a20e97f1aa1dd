r"""Values: what a model update may do to people, as differentiable losses of the shared model.

A value m is a loss :math:`\ell_m(\theta)` on a probe set of its own. An update's predicted harm to it is first order,
:math:`h_m = \langle \nabla \ell_m(\theta), \Delta \rangle`, positive when the update makes things worse.

All kinds are here: importing this module registers them. How to write one's own, :class:`Value` says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .confidence import Confidence
from .data import Dataset, Rows
from .disparities import Disparity
from .drift import Drift
from .losses import ClassLoss, GroupLoss, WorstGroupLoss
from .miss_rate import MissRate
from .models import Model
from .value import VALUES, Value

__all__ = [
    "VALUES",
    "ClassLoss",
    "Confidence",
    "Disparity",
    "Drift",
    "GroupLoss",
    "MissRate",
    "Value",
    "WorstGroupLoss",
    "losses_and_gradients",
    "protected_classes",
]


def losses_and_gradients(
    values: Mapping[str, Value], probes: Sequence[Rows], probe_logits: Sequence[Tensor], model: Model, theta: Tensor, dataset: Dataset
) -> tuple[Tensor, Tensor]:
    """Value losses and their gradients.

    Args:
        values: The M values.
        probes: The probe set of each, prepared or not.
        probe_logits: The model's answers on them, ``(E, n_rows, n_classes)`` each.
        model: The shared model.
        theta: Its parameters, ``(E, P)``.
        dataset: Where the probe sets came from.

    Returns:
        ``(E, M)`` and ``(E, M, P)``.
    """
    losses = theta.new_empty(len(theta), len(values))
    gradients = theta.new_empty(len(theta), len(values), theta.shape[-1])
    for m, (value, probe, logits) in enumerate(zip(values.values(), probes, probe_logits, strict=True)):
        losses[:, m], cotangent = value.loss_and_gradient(logits, probe, dataset)
        gradients[:, m] = model.pullback(theta, probe.x, cotangent)
    return losses, gradients


def protected_classes(values: Mapping[str, Value], dataset: Dataset) -> Tensor:
    """Which class each value protects, bool ``(M, n_classes)``."""
    protects = torch.zeros(len(values), len(dataset.class_names), dtype=torch.bool)
    for m, value in enumerate(values.values()):
        if (label := value.protected_class(dataset)) is not None:
            protects[m, label] = True
    return protects
