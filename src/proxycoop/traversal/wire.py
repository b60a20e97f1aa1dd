"""What is sent: plain dataclasses of tensors and numbers that any transport can carry, and how many bytes they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class CountRequest:
    """Orchestrator to node, once: how many rows do you have?"""


@dataclass(frozen=True)
class CountReply:
    """Node to orchestrator, once. It is all that a node tells of its data before training.

    Attributes:
        counts: Rows of each of the node's lots, int64 ``(K,)``.
    """

    counts: Tensor


@dataclass(frozen=True)
class ForwardRequest:
    """Orchestrator to node.

    Attributes:
        step: Number of the step. A node answers the backward request of the last step it was asked forward for, and no other.
        theta: The model's parameters, ``(P,)``. The node needs all of them, because it computes the last layer's error itself. If it is to
            answer with labels, only those below the cut, ``(n_below,)``.
        rows: Indices of the node's rows in the batch, int64 ``(b_i,)``.
        labels: Whether to answer with labels.
    """

    step: int
    theta: Tensor
    rows: Tensor
    labels: bool = False


@dataclass(frozen=True)
class ForwardReply:
    """Node to orchestrator. Labels are not sent, but the error has its only negative entry at the label.

    Attributes:
        step: As in the request.
        activations: What the blocks below the cut make of the rows, ``(b_i, …)``.
        error: Each row's gradient of the cross-entropy with respect to its logits (softmax − one-hot), ``(b_i, C)``.
    """

    step: int
    activations: Tensor
    error: Tensor


@dataclass(frozen=True)
class LabelReply:
    """Node to orchestrator, if it was asked for labels.

    Attributes:
        step: As in the request.
        activations: What the blocks below the cut make of the rows, ``(b_i, …)``.
        labels: Their labels, int64 ``(b_i,)``.
    """

    step: int
    activations: Tensor
    labels: Tensor


@dataclass(frozen=True)
class BackwardRequest:
    """Orchestrator to node.

    Attributes:
        step: As before.
        error: Gradient of each row's cross-entropy with respect to its activations, ``(b_i, …)``.
    """

    step: int
    error: Tensor


@dataclass(frozen=True)
class BackwardReply:
    """Node to orchestrator.

    Attributes:
        step: As before.
        gradients: For each lot with rows in the batch, in order, the gradient of the sum of its rows' cross-entropies with respect to the
            parameters below the cut, ``(L, n_below)``.
    """

    step: int
    gradients: Tensor


Request = CountRequest | ForwardRequest | BackwardRequest
Reply = CountReply | ForwardReply | LabelReply | BackwardReply


def payload_bytes(message: object) -> int:
    """Bytes of a message's content: each tensor's or array's bytes, and 8 for a number. What a transport adds is not counted."""
    total = 0
    for part in fields(message):  # type: ignore[arg-type]  # any dataclass
        value = getattr(message, part.name)
        if isinstance(value, int | float):
            total += 8
        elif isinstance(value, bytes):
            total += len(value)
        else:
            total += int(value.nbytes)
    return total


@dataclass
class Traffic:
    """Bytes sent so far, by kind of message, and how many messages.

    Attributes:
        sent: Bytes by name of the message's class.
        messages: Messages by name of their class.
    """

    sent: Counter[str] = field(default_factory=Counter)
    messages: Counter[str] = field(default_factory=Counter)

    def add(self, message: object) -> None:
        """Count a message."""
        self.sent[type(message).__name__] += payload_bytes(message)
        self.messages[type(message).__name__] += 1

    @property
    def down(self) -> int:
        """Bytes from the orchestrator to nodes."""
        return sum(n for name, n in self.sent.items() if name.endswith("Request"))

    @property
    def up(self) -> int:
        """Bytes from nodes to the orchestrator."""
        return sum(n for name, n in self.sent.items() if name.endswith("Reply"))

    @property
    def total(self) -> int:
        """All bytes."""
        return sum(self.sent.values())


class Transport(Protocol):
    """Carries requests to nodes and replies back."""

    def exchange(self, requests: Mapping[int, Request]) -> Mapping[int, Reply | str]:
        """Send each node its request, in order, and wait for the replies.

        Args:
            requests: By node.

        Returns:
            By node its reply, or why there is none. A node that is left out did not answer.
        """
        ...
