"""Dividing what a round gained by shares that say nothing about harm."""

from __future__ import annotations

import torch
from torch import Tensor

MAX_SCALE = 10.0
"""The largest factor by which credit is rescaled, by default."""


def proportions(amounts: Tensor, otherwise: Tensor | float) -> Tensor:
    """Amounts divided by their sum.

    Args:
        amounts: ``(..., n)``, non-negative.
        otherwise: What is returned where all amounts are 0; must broadcast to ``amounts``.
    """
    total = amounts.sum(dim=-1, keepdim=True)
    return torch.where(total > 0, amounts / torch.where(total > 0, total, 1.0), otherwise)


def by_shares(gain: Tensor, share: Tensor) -> Tensor:
    """Gains by shares, and losses equally: little trust or agreement does not prove harm, so it is not fined.

    Args:
        gain: v(N), ``(E,)``.
        share: ``(E, N)``, non-negative, summing to one.

    Returns:
        ``(E, N)``, in the gain's unit and precision, summing to ``gain``.
    """
    gain = gain[:, None]
    return gain.clamp(min=0) * share.to(gain.dtype) + gain.clamp(max=0) / share.shape[1]


def rescaled(credit: Tensor, worth: Tensor, max_scale: float = MAX_SCALE) -> Tensor:
    """Credit ``(E, N)``, rescaled to sum to ``worth`` ``(E,)``; see :class:`~proxycoop.credit.Normalised`."""
    credit = credit.to(torch.promote_types(credit.dtype, worth.dtype))
    total = credit.sum(dim=1)
    rounding = 10 * torch.finfo(credit.dtype).eps * credit.abs().sum(dim=1)
    one_sign = (total.sign() * worth.sign() > 0) & (torch.minimum(total.abs(), worth.abs()) > rounding)
    factor = torch.where(one_sign, worth / torch.where(one_sign, total, 1.0), 1.0).clamp(max=max_scale)[:, None]
    scaled = factor * credit
    return scaled + (worth[:, None] - scaled.sum(dim=1, keepdim=True)) / credit.shape[1]
