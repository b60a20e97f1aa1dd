"""The unit of privacy is a lot: which lots stand for themselves, and how often a round tells of one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..conduct.settings import AnyForgery, OfALot, Stale

READ_ALL = ("echo", "noise", "little_is_enough", "inner_product")
"""Forgeries whose length or content comes from the updates of all lots of the round, also of those that stay at home."""


def releases(sent: Tensor, forgeries: Sequence[AnyForgery], n_lots: int, *, in_one_sum: bool, all_read: bool | Tensor = False) -> Tensor:
    r"""How many releases a round was for each lot: how many Gaussian mechanisms of noise multiplier σ tell as much of it.

    A lot tells of itself by its own update, and by forgeries that are made of it. Each of these is C long at most.

    * ``noise: updates``: lots' updates are noised first, and forgeries are made of noised ones. So a lot and what is forged of its update
      of this round are one release together. ``stale`` sends another one, of an earlier round. Where somebody sends a forgery that
      comes from the updates of all lots (``echo``, ``noise``, ``little_is_enough``, ``inner_product``), or the mechanism of an admission
      reads them, every lot has a release.
    * ``noise: step``: the m updates that come from a lot are in one sum, which has one noise. Together they change it by m times as much
      as one of them. This tells as much as :math:`m^2` releases, because the Rényi divergence of two Gaussians grows with the square of
      their distance.

    Args:
        sent: Which updates were contributed, admitted or not, bool ``(E, N, U)``: those of K lots first, then forged ones.
        forgeries: What the forged ones are.
        n_lots: Number of lots K.
        in_one_sum: Whether the noise is on the step.
        all_read: Whether something in the round reads the updates of all lots, sent or not; or whose it reads, bool ``(E, N)``.

    Returns:
        int64 ``(E, N, K)``. Its sum over an episode's rounds is what :meth:`~proxycoop.envs.privacy.Privacy.spent` takes.
    """
    fresh = sent[..., :n_lots].long()  # the lots' updates of this round, and what is made of them
    old = torch.zeros_like(fresh)
    for f, forgery in enumerate(forgeries):
        if isinstance(forgery, OfALot):
            made = sent[..., n_lots + f, None] & (torch.arange(n_lots, device=sent.device) == forgery.of)
            if isinstance(forgery, Stale):
                old = old + made
            else:
                fresh = fresh + made
    if in_one_sum:
        return (fresh + old).square()
    read = torch.as_tensor(all_read, device=sent.device)[..., None]  # (1,) or (..., N, 1)
    for f, forgery in enumerate(forgeries):
        if forgery.kind in READ_ALL:
            read = read | sent[..., n_lots + f].any(dim=-1)[..., None, None]
    return fresh.clamp(max=1).maximum(read.long()) + old


def overlapping(rows: Tensor, present: Tensor) -> Tensor:
    """Which lots have a row in common with another lot.

    The ε of such a lot does not protect that row, because the other lot tells of it too.

    Args:
        rows: Each row's index in the train pool, int64 ``(E, N, K, R)``.
        present: False where a smaller lot is padded, bool ``(N, K, R)``.

    Returns:
        bool ``(E, N, K)``.
    """
    n_envs, n_agents, n_lots, n_rows = rows.shape
    lot = torch.arange(n_agents * n_lots, device=rows.device).repeat_interleave(n_rows)  # (N·K·R,)
    flat = rows.flatten(start_dim=1)
    pairs = torch.where(present.flatten(), flat * n_agents * n_lots + lot, -1).sort(dim=1).values  # pairs of a row and a lot
    new = torch.cat([pairs[:, :1] >= 0, pairs[:, 1:] != pairs[:, :-1]], dim=1)  # a lot may hold a row twice: that is one pair
    pool_row = pairs.clamp(min=0) // (n_agents * n_lots)
    holders = torch.zeros(n_envs, int(rows.max()) + 1, dtype=torch.int64, device=rows.device).scatter_add(1, pool_row, new.long())
    shared = holders.gather(1, flat).reshape(rows.shape) > 1
    return (shared & present).any(dim=-1)
