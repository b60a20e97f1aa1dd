"""What a mechanism may know when it deals out the places of a round, what it answers, and how candidates are put in order."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ...settings import Settings

Need = Literal["gain", "wants", "likeness", "bids"]
"""What only some mechanisms read."""


@dataclass(frozen=True)
class Offers:
    """What a mechanism may know, in a batch of E environments with N agents of U updates each (K lots, then forgeries).

    Attributes:
        candidates: Updates that were contributed and passed the screening, bool ``(E, N, U)``.
        gain: Predicted first-order gain of each update times its share of the data, ``(E, N, U)``, in the utility's unit; ``None`` where
            the utility has no gradient. Not read for updates that are not candidates.
        wants: By how much update (i, u), at ``[:, j, i, u]``, is predicted to lower the loss on principal j's own data, to first order,
            ``(E, N, N, U)``. May be negative.
        likeness: Cosine similarity of the updates, in the order of ``candidates.flatten(1)``, ``(E, N·U, N·U)``.
        bids: What each proxy bids this round for all that it contributes, in reward units, ``(E, N)``, at least 0.
        taken: How many places each agent had so far in the episode, int64 ``(E, N)``.
        keys: A key for each environment and episode, int64 ``(E,)``.
        t: Index of the round.

    What the mechanism does not read may be ``None``: see :attr:`Mechanism.needs`.

    Raises:
        ValueError: If a shape is not as described above.
    """

    candidates: Tensor
    gain: Tensor | None
    wants: Tensor | None
    likeness: Tensor | None
    bids: Tensor | None
    taken: Tensor
    keys: Tensor
    t: int

    def __post_init__(self) -> None:
        if self.candidates.ndim != 3:
            raise ValueError(f"candidates has shape {tuple(self.candidates.shape)}: must be (E, N, U)")
        e, n, u = self.candidates.shape
        wanted = {
            "gain": (e, n, u), "wants": (e, n, n, u), "likeness": (e, n * u, n * u), "bids": (e, n), "taken": (e, n), "keys": (e,),
        }  # fmt: skip
        for name, shape in wanted.items():
            came = getattr(self, name)
            if came is not None and tuple(came.shape) != shape:
                raise ValueError(f"{name} has shape {tuple(came.shape)}: must be {shape}")

    def the(self, need: Need) -> Tensor:
        """One of the parts that may be missing.

        Raises:
            ValueError: If it is missing.
        """
        part: Tensor | None = getattr(self, need)
        if part is None:
            raise ValueError(f"{need}=None: the mechanism reads it; pass a tensor, or choose a mechanism whose needs do not list it")
        return part


@dataclass(frozen=True)
class Places:
    """Who gets the places of a round.

    Attributes:
        admitted: Updates that are admitted, bool ``(E, N, U)``: a subset of the candidates, at most as many as there are places.
        payments: What each agent pays less what it gets back, in reward units, ``(E, N)``; ``None`` without money.
        kinds: Which kind of update each candidate is, int64 ``(E, N, U)``, −1 for what is no candidate; ``None`` where kinds do not matter.
        marginals: With which probability each candidate was to be admitted, ``(E, N, U)``; ``None`` where nothing is drawn.
    """

    admitted: Tensor
    payments: Tensor | None = None
    kinds: Tensor | None = None
    marginals: Tensor | None = None


class Mechanism(Settings, ABC):
    """Decides which candidates get the places of a round. Where there are at most as many candidates as places, it admits them all."""

    needs: ClassVar[tuple[Need, ...]] = ()
    """What it reads, of what only some mechanisms read."""
    optional: ClassVar[tuple[Need, ...]] = ()
    """What of its needs may be missing."""

    @abstractmethod
    def choose(self, capacity: int, offers: Offers) -> Places:
        """Deal out the places of a round.

        Args:
            capacity: Number of places B, at least 1.
            offers: What there is to choose from.

        Raises:
            ValueError: If something that the mechanism needs is missing.
        """


def ranks(*keys: Tensor) -> Tensor:
    """Place of every entry when the last dimension is sorted in ascending order, int64, from 0.

    Args:
        *keys: What to sort by, of one shape. The first decides, the next breaks its ties, and so on; the position breaks the last ties.
    """
    order = keys[-1].argsort(dim=-1, stable=True)
    for key in reversed(keys[:-1]):
        order = order.gather(-1, key.gather(-1, order).argsort(dim=-1, stable=True))
    return order.argsort(dim=-1)


def first(capacity: int, candidates: Tensor, *keys: Tensor) -> Tensor:
    """The candidates that come first in the ascending order of keys, as many as there are places.

    Args:
        capacity: Number of places B.
        candidates: bool ``(E, N, U)``.
        *keys: See :func:`ranks`, ``(E, N, U)`` each. Not read for what is no candidate.

    Returns:
        bool ``(E, N, U)``.
    """
    absent = (~candidates).long()
    places = ranks(absent.flatten(1), *(key.flatten(1) for key in keys)).reshape(candidates.shape)
    return candidates & (places < capacity)


def seats(candidates: Tensor, t: int) -> Tensor:
    """Place of each agent in the order of round t, int64 ``(N,)``: agent t mod N comes first, then the next ones."""
    n_agents = candidates.shape[1]
    return (torch.arange(n_agents, device=candidates.device) - t) % n_agents


def downwards(score: Tensor) -> Tensor:
    """A key that sorts the largest score first, double; what is not a number comes last."""
    descending = -score.double()
    return torch.where(descending.isnan(), torch.inf, descending)
