"""What the secure mode sends: plain dataclasses, and the transport that carries them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from .ring import Words


@dataclass(frozen=True)
class IntroductionRequest:
    """Orchestrator to node or helper, once: who are you?"""


@dataclass(frozen=True)
class NodeIntroduction:
    """Node to orchestrator.

    Attributes:
        counts: Rows of each of the node's lots, int64 ``(K,)``.
        fraction: Fractional bits of its ring.
    """

    counts: Tensor
    fraction: int


@dataclass(frozen=True)
class HelperIntroduction:
    """Helper to orchestrator.

    Attributes:
        fraction: Fractional bits of its ring.
        step: The last step that it began, or −1. The orchestrator's steps go on from there.
    """

    fraction: int
    step: int


@dataclass(frozen=True)
class SecureForwardRequest:
    """Orchestrator to node.

    Attributes:
        step: Number of the step.
        theta: The model's parameters, ``(P,)``.
        rows: Indices of the node's rows in the batch, int64 ``(b_i,)``.
        batch: Rows of the whole batch b, by which the node knows how large sums may become.
    """

    step: int
    theta: Tensor
    rows: Tensor
    batch: int


@dataclass(frozen=True)
class MaskedForward:
    """Node to either server.

    Attributes:
        step: As in the request.
        activations: D = A − U, ``(b_i, h)``.
        error: F = E − V, ``(b_i, C)``.
        sizes: Rows of each of the node's lots in the batch, int64 ``(L,)``; rows of a lot are together.
        key: Key of the server's shares of U and V, and for the helper also of VᵀU.
        products: The orchestrator's share of VᵀU of each lot, ``(L, C, h)``; ``(0, C, h)`` for the helper.
    """

    step: int
    activations: Words
    error: Words
    sizes: Tensor
    key: bytes
    products: Words


@dataclass(frozen=True)
class CutErrorShare:
    """Either server to node: its share of the error at the cut, ``(b_i, h)``, at 2f fractional bits."""

    step: int
    error: Words


@dataclass(frozen=True)
class GradientShare:
    """Node to orchestrator: its share of each lot's gradient below the cut, ``(L, n_below)``, at 2f fractional bits."""

    step: int
    gradients: Words


@dataclass(frozen=True)
class GradientKey:
    """Node to helper: the key of its share of each lot's gradient below the cut, and their number."""

    step: int
    key: bytes
    n_lots: int


@dataclass(frozen=True)
class HelperStart:
    """Orchestrator to helper: the layer above the cut, ``(C, h)``."""

    step: int
    weight: Tensor


@dataclass(frozen=True)
class Reveal:
    """Orchestrator to helper: whose shares to add up, int64 ``(n,)``, and whether to keep lots apart."""

    step: int
    nodes: Tensor
    by_lot: bool


@dataclass(frozen=True)
class Revealed:
    """Helper to orchestrator: its shares, ``(P,)`` added up, or ``(L, P)`` by lot."""

    step: int
    gradients: Words


@dataclass(frozen=True)
class Sealed:
    """A message between a node and the helper that the orchestrator carries and cannot read."""

    data: bytes


Handed = MaskedForward | GradientKey | CutErrorShare | Sealed
"""What goes between nodes and the helper. The orchestrator hands it on, and never looks into it."""
NodeRequest = SecureForwardRequest | CutErrorShare
"""What the orchestrator asks of nodes in a step."""
NodeReply = MaskedForward | GradientShare
"""What nodes answer."""
HelperRequest = HelperStart | Reveal
"""What the orchestrator asks of the helper in a step."""


class SecureTransport(Protocol):
    """Carries messages to the nodes and the helper, and what these say to each other."""

    def introduce(self, nodes: list[int]) -> tuple[HelperIntroduction, Mapping[int, NodeIntroduction | str]]:
        """Ask the helper and the nodes who they are, and let them know each other.

        Returns:
            The helper's answer, and each node's, or why it is left out. A node that is left out of the mapping did not answer.

        Raises:
            ConnectionError: If the helper does not answer.
        """
        ...

    def to_nodes(self, requests: Mapping[int, tuple[NodeRequest, Handed | None]]) -> Mapping[int, tuple[NodeReply, Handed] | str]:
        """Send each node its request, and what the helper said to it, and wait for the replies.

        Returns:
            By node its reply and what it says to the helper, or why there is none. A node that is left out did not answer.
        """
        ...

    def to_helper(self, request: HelperRequest, handed: Mapping[int, Handed]) -> tuple[Revealed | None, Mapping[int, Handed | str]]:
        """Send the helper a request, and what nodes said to it.

        Returns:
            Its shares if it was asked to reveal. By node what it says to the node, or why it did not take what the node said.

        Raises:
            ConnectionError: If the helper does not answer.
            ValueError: If it refuses.
        """
        ...
