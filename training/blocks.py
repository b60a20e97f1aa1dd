"""Who blocks whom, counted over the rounds of a batch of episodes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ..envs.records import RoundResult


def objecting_kinds(blocked_by: Tensor, kind: Tensor, n_kinds: int) -> Tensor:
    """Whether any holder of a profile objects to an update: bool ``(E, N, K, N)``, int64 ``(E, N)`` → bool ``(E, N, K, n_kinds)``."""
    holds = one_hot(kind, n_kinds + 1)[..., :n_kinds].float()  # (E, N, n_kinds)
    return torch.einsum("enkj,ejc->enkc", blocked_by.float(), holds) > 0


def by_profile(history: Sequence[RoundResult], kind: Tensor, n_kinds: int) -> Tensor:
    """For each pair of profiles, the share of the updates contributed by holders of the first to which a holder of the second objects.

    Args:
        history: The rounds.
        kind: Index of the profile that a principal holds, int64 ``(E, N)``; ``n_kinds`` if it holds none.
        n_kinds: Number of profiles C.

    Returns:
        ``(C + 1, C)``. Rows: whose updates; the last row is for holders of no profile. Columns: who objects. NaN in rows that contributed
        nothing.
    """
    whose = one_hot(kind, n_kinds + 1).float()  # (E, N, C + 1)
    against, contributed = torch.zeros(n_kinds + 1, n_kinds, dtype=torch.float64), torch.zeros(n_kinds + 1, dtype=torch.float64)
    for result in history:
        offered = result.contributed.float()  # (E, N, K)
        by_kind = result.present is not None  # it says so already
        objected = (result.blocked_by[..., :n_kinds] if by_kind else objecting_kinds(result.blocked_by, kind, n_kinds)).float()
        against += torch.einsum("enk,enkc,enw->wc", offered, objected, whose)
        contributed += torch.einsum("enk,enw->w", offered, whose)
    return against / torch.where(contributed > 0, contributed, math.nan)[:, None]


def by_seat(history: Sequence[RoundResult]) -> Tensor:
    """Share of each proxy's contributed updates to which each principal objects, ``(N, N)``; NaN in rows that contributed nothing."""
    n = history[0].blocked_by.shape[-1]
    against, contributed = torch.zeros(n, n, dtype=torch.float64), torch.zeros(n, dtype=torch.float64)
    for result in history:
        against += (result.contributed[..., None] & result.blocked_by).sum(dim=(0, 2))
        contributed += result.contributed.sum(dim=(0, 2))
    return against / torch.where(contributed > 0, contributed, math.nan)[:, None]


def by_value(history: Sequence[RoundResult]) -> Tensor:
    """Share of the contributed updates to which somebody objects because of each value, ``(M,)``; NaN if nothing was contributed."""
    against = torch.zeros(history[0].harm.shape[-1], dtype=torch.float64)
    contributed = 0
    for result in history:
        beyond = ~(result.harm <= result.tolerance[:, None, None])  # (E, N, K, M): beyond the strictest tolerance is beyond somebody's
        against += (beyond & result.contributed[..., None]).sum(dim=(0, 1, 2))
        contributed += int(result.contributed.sum())
    return against / (contributed or math.nan)
