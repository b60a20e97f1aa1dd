"""The class head of a model: which parameters of its last layer belong to which class."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def class_head(module: nn.Module, n_classes: int | None = None) -> Tensor | None:
    """The class that each parameter of a module's last layer belongs to.

    Args:
        module: Any module. Its last layer is the last one that it registered.
        n_classes: Number of classes, if known. A last layer with another number of outputs is no head.

    Returns:
        int64 ``(P,)``, in the order of ``module.parameters()``, −1 for parameters of other layers. ``None`` if the last layer is not an
        ``nn.Linear`` with parameters of its own.
    """
    layers = [layer for layer in module.modules() if not list(layer.children())]
    if not layers or not isinstance(last := layers[-1], nn.Linear) or n_classes not in (None, last.out_features):
        return None
    elsewhere = {id(one) for layer in layers[:-1] for one in layer.parameters()}
    if not any(one is last.weight for one in module.parameters()) or id(last.weight) in elsewhere:  # computed from others, or shared
        return None
    head = [
        torch.arange(last.out_features)[:, None].expand(-1, last.in_features).flatten()  # weight (C, D)
        if parameter is last.weight
        else torch.arange(last.out_features)
        if parameter is last.bias
        else torch.full((parameter.numel(),), -1)
        for parameter in module.parameters()
    ]
    return torch.cat(head)
