"""The orchestrator of the secure mode, and its transport within a process. :mod:`proxycoop.traversal.secure` has the mathematics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import Tensor

from .batches import VirtualBatch, check_batch, checked_counts, lots_of, told_counts
from .ring import Ring
from .secure import Helper, SecureNode, SecureServer, linear_head
from .secure_wire import (
    CutErrorShare,
    GradientShare,
    Handed,
    HelperIntroduction,
    HelperRequest,
    HelperStart,
    IntroductionRequest,
    MaskedForward,
    NodeIntroduction,
    NodeReply,
    NodeRequest,
    Reveal,
    Revealed,
    SecureForwardRequest,
    SecureTransport,
)
from .split import SplitModel
from .wire import Traffic

_M = TypeVar("_M")
_R = TypeVar("_R", MaskedForward, GradientShare)
Stage = Literal["forward", "after_forward", "backward"]
"""When a node is gone: before it is asked forward, before it is asked backward, or with its last answer."""


@dataclass(frozen=True)
class SecureStep:
    """What the orchestrator learns from a step.

    Attributes:
        pooled: Mean gradient over the rows that stayed, float64 ``(P,)``.
        rows: How many these are.
        lots: Node and number of each lot that stayed.
        counts: Its rows in the batch, int64 ``(L,)``.
        gradient: Each lot's mean gradient, float64 ``(L, P)``, if lots were revealed.
        missing: By node when and why its rows left the batch.
    """

    pooled: Tensor
    rows: int
    lots: list[tuple[int, int]]
    counts: Tensor
    gradient: Tensor | None
    missing: dict[int, str]


class SecureLocal:
    """A transport to nodes and a helper in this process.

    Args:
        nodes: Nodes by id.
        helper: The second server.
        fails: Called with a stage and a node; where it says True, the node does not answer there any more. Nobody fails by default.
    """

    def __init__(self, nodes: Mapping[int, SecureNode], helper: Helper, fails: Callable[[Stage, int], bool] | None = None) -> None:
        self.nodes, self.helper, self.fails = dict(nodes), helper, fails or (lambda *_: False)

    def introduce(self, nodes: list[int]) -> tuple[HelperIntroduction, dict[int, NodeIntroduction | str]]:
        """See :class:`~proxycoop.traversal.SecureTransport`."""
        return self.helper.introduction(), {node: self.nodes[node].introduction() for node in nodes if node in self.nodes}

    def to_nodes(self, requests: Mapping[int, tuple[NodeRequest, Handed | None]]) -> dict[int, tuple[NodeReply, Handed] | str]:
        """See :class:`~proxycoop.traversal.SecureTransport`. Nodes are asked one after another."""
        replies: dict[int, tuple[NodeReply, Handed] | str] = {}
        for node, (request, handed) in requests.items():
            forward = isinstance(request, SecureForwardRequest)
            if self.fails("forward" if forward else "after_forward", node):
                continue
            try:
                reply = self.nodes[node].answer_secure(request, handed)
            except ValueError as error:
                replies[node] = str(error)
                continue
            if forward or not self.fails("backward", node):
                replies[node] = reply
        return replies

    def to_helper(self, request: HelperRequest, handed: Mapping[int, Handed]) -> tuple[Revealed | None, dict[int, Handed | str]]:
        """See :class:`~proxycoop.traversal.SecureTransport`."""
        return self.helper.answer(request, handed)


class SecureOrchestrator(SecureServer):
    """Runs the secure mode over a transport, which also carries what nodes and helper say to each other.

    Args:
        split: The model, with one linear layer above the cut.
        transport: To the nodes and the helper.
        ring: As at the nodes and the helper.

    Attributes:
        theta: The parameters, ``(P,)``, the caller's to change.
        counts: Rows of each node's lots, by node, as the nodes told.
        traffic: Bytes sent, by link: ``orchestrator to nodes`` and so on. What the orchestrator carries is counted once, as it was handed
            over: sealed, if the transport seals.
    """

    def __init__(self, split: SplitModel, transport: SecureTransport, ring: Ring | None = None) -> None:
        super().__init__(split, ring or Ring(), 0)
        self.transport = transport
        self.theta = split.theta.clone()
        self.counts: dict[int, tuple[int, ...]] = {}
        links = "orchestrator to nodes", "nodes to orchestrator", "nodes to helper", "helper to nodes", "orchestrator to helper"
        self.traffic = {link: Traffic() for link in (*links, "helper to orchestrator")}

    def census(self, nodes: list[int]) -> dict[int, str]:
        """Ask the helper and the nodes who they are. Returns by node why one is left out.

        Raises:
            ConnectionError: If the helper does not answer.
            ValueError: If rings differ, or no node has rows.
        """
        for link in ("orchestrator to helper", *["orchestrator to nodes"] * len(nodes)):
            self._sent(link, IntroductionRequest())
        helper, came = self.transport.introduce(nodes)
        self._sent("helper to orchestrator", helper)
        known, missing, fractions = {}, {}, {self.ring.fraction, helper.fraction}
        for node in nodes:
            reply = came.get(node, "no answer")
            try:
                if isinstance(reply, str):
                    raise ValueError(reply)
                known[node] = told_counts(self._sent("nodes to orchestrator", reply).counts)
                fractions.add(reply.fraction)
            except ValueError as error:
                missing[node] = f"introduction: {error}"
        if len(fractions) > 1:
            raise ValueError(f"rings have {sorted(fractions)} fractional bits: orchestrator, helper and nodes must have the same")
        self.counts = checked_counts(known)
        self._step = max(self._step, helper.step)
        return missing

    def propose(self, batch: VirtualBatch, by_lot: bool = False) -> SecureStep:
        """The pooled gradient on a virtual batch, and with ``by_lot`` each lot's.

        Raises:
            ConnectionError: If the helper does not answer. The step is lost; the next call begins another.
            ValueError: If the batch does not fit the nodes, or the helper refuses to reveal.
        """
        check_batch(batch, self.counts)
        step = max(self._step, 0) + 1
        theta = self.theta.detach().clone()
        head = linear_head(self.split)
        weight = theta[~self.split.below][: head.weight.numel()].reshape(head.weight.shape)
        self.begin(step, weight)
        rows = {visit.node: visit.rows for visit in batch.visits}
        lots = {node: lots_of(own, self.counts[node]).unique(return_counts=True) for node, own in rows.items()}
        missing: dict[int, str] = {}
        requests = {node: SecureForwardRequest(step, theta, own, batch.size) for node, own in rows.items()}
        errors, handed = self._forward(requests, {node: n.tolist() for node, (_, n) in lots.items()}, missing)
        _, said = self._ask_helper(HelperStart(step, weight), handed)
        asked = {}
        for node, first in errors.items():
            second = said.get(node, "no answer to the node")
            if isinstance(second, str):
                missing[node] = f"forward: the helper: {second}"
            else:
                asked[node] = first, second
        keys = self._backward(asked, missing) if self.split.n_below else {}
        stayed = [node for node in rows if node not in missing]
        revealed, said = self._ask_helper(Reveal(step, torch.tensor(stayed, dtype=torch.int64), by_lot), keys)
        missing |= {node: f"backward: the helper: {reason}" for node, reason in said.items()}
        stayed = [node for node in stayed if node not in missing]
        mine = self.shares(stayed, by_lot)
        if revealed is None or revealed.step != step or revealed.gradients.shape != mine.shape:
            came = None if revealed is None else (revealed.step, revealed.gradients.shape)
            raise ValueError(f"the helper's step and the shape of its shares are {came}: must be {(step, mine.shape)}")
        sums = self.ring.decode(mine + revealed.gradients)
        names = [(node, k) for node in stayed for k in lots[node][0].tolist()]
        count = torch.cat([lots[node][1] for node in stayed])
        n_rows = int(count.sum())
        pooled = (sums.sum(dim=0) if by_lot else sums) / n_rows
        return SecureStep(pooled, n_rows, names, count, sums / count[:, None] if by_lot else None, missing)

    def _forward(
        self, requests: Mapping[int, SecureForwardRequest], sizes: Mapping[int, list[int]], missing: dict[int, str]
    ) -> tuple[dict[int, CutErrorShare], dict[int, Handed]]:
        """The orchestrator's shares of errors at the cut, and what nodes say to the helper; nodes that fail are added to the missing."""
        errors, handed = {}, {}
        asked = {node: (request, None) for node, request in requests.items()}
        for node, (own, other) in self._ask(asked, MaskedForward, "forward", missing).items():
            try:
                if own.sizes.tolist() != sizes[node]:
                    raise ValueError(f"lots of {own.sizes.tolist()} rows: the node was asked for {sizes[node]}")
                errors[node], handed[node] = self.take_forward(node, own), other
            except ValueError as error:
                missing[node] = f"forward: {error}"
        return errors, handed

    def _backward(self, asked: Mapping[int, tuple[CutErrorShare, Handed]], missing: dict[int, str]) -> dict[int, Handed]:
        """What nodes say to the helper with their shares of the gradients below the cut; nodes that fail are added to the missing."""
        keys = {}
        for node, (own, other) in self._ask(asked, GradientShare, "backward", missing).items():
            try:
                self.take_backward(node, own.step, own.gradients)
                keys[node] = other
            except ValueError as error:
                missing[node] = f"backward: {error}"
        return keys

    def _ask(
        self, requests: Mapping[int, tuple[NodeRequest, Handed | None]], kind: type[_R], when: str, missing: dict[int, str]
    ) -> dict[int, tuple[_R, Handed]]:
        """Send and count, and keep the replies of the right kind; the others' nodes are added to the missing."""
        for request, handed in requests.values():
            self._sent("orchestrator to nodes", request)
            if handed is not None:
                self._sent("helper to nodes", handed)
        came = self.transport.to_nodes(requests)
        replies = {}
        for node in requests:
            reply = came.get(node, "no answer")
            if isinstance(reply, tuple) and isinstance(reply[0], kind):
                replies[node] = self._sent("nodes to orchestrator", reply[0]), self._sent("nodes to helper", reply[1])
            else:
                missing[node] = f"{when}: {reply if isinstance(reply, str) else 'answered with a ' + type(reply[0]).__name__}"
        return replies

    def _ask_helper(self, request: HelperRequest, handed: Mapping[int, Handed]) -> tuple[Revealed | None, Mapping[int, Handed | str]]:
        """Send and count."""
        revealed, said = self.transport.to_helper(self._sent("orchestrator to helper", request), handed)
        if revealed is not None:
            self._sent("helper to orchestrator", revealed)
        return revealed, said

    def _sent(self, link: str, message: _M) -> _M:
        self.traffic[link].add(message)
        return message
