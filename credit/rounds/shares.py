"""Dividing what a round gained by shares that say nothing of harm."""

from __future__ import annotations

import torch
from torch import Tensor

MAX_SCALE = 10.0
"""The largest factor by which credit is rescaled, unless told otherwise."""


def proportions(amounts: Tensor, otherwise: Tensor | float) -> Tensor:
    """Amounts over their sum.

    Args:
        amounts: ``(..., n)``, non-negative.
        otherwise: What there is instead where all are 0; must broadcast to ``amounts``.
    """
    total = amounts.sum(dim=-1, keepdim=True)
    return torch.where(total > 0, amounts / torch.where(total > 0, total, 1.0), otherwise)


def by_shares(gain: Tensor, share: Tensor) -> Tensor:
    """Gains by shares, and losses by all alike: to be trusted, or to agree, is no ground for a fine.

    Args:
        gain: v(N), ``(E,)``.
        share: ``(E, N)``, non-negative, summing to one.

    Returns:
        ``(E, N)``, in the gain's unit and precision, summing to ``gain``.
    """
    gain = gain[:, None]
    return gain.clamp(min=0) * share.to(gain.dtype) + gain.clamp(max=0) / share.shape[1]


def rescaled(credit: Tensor, worth: Tensor, max_scale: float = MAX_SCALE) -> Tensor:
    """Credit ``(E, N)``, scaled to sum to ``worth`` ``(E,)`` where a positive factor can; see :class:`~proxycoop.credit.Normalised`."""
    credit = credit.to(torch.promote_types(credit.dtype, worth.dtype))
    total = credit.sum(dim=1)
    rounding = 10 * torch.finfo(credit.dtype).eps * credit.abs().sum(dim=1)
    one_sign = (total.sign() * worth.sign() > 0) & (torch.minimum(total.abs(), worth.abs()) > rounding)
    factor = torch.where(one_sign, worth / torch.where(one_sign, total, 1.0), 1.0).clamp(max=max_scale)[:, None]
    scaled = factor * credit
    return scaled + (worth[:, None] - scaled.sum(dim=1, keepdim=True)) / credit.shape[1]
