"""The orchestrator's side: virtual batches, what is above the cut, and each lot's exact share of the step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import torch
from torch import Tensor

from ..envs.model.likelihood import cross_entropy, residual
from .batches import VirtualBatch, check_batch, checked_counts, lots_of, told_counts
from .split import SplitModel
from .wire import (
    BackwardReply,
    BackwardRequest,
    CountReply,
    CountRequest,
    ForwardReply,
    ForwardRequest,
    LabelReply,
    Reply,
    Request,
    Traffic,
    Transport,
)

_R = TypeVar("_R", CountReply, ForwardReply, LabelReply, BackwardReply)


@dataclass(frozen=True)
class Shares:
    r"""What each lot adds to a step. There are L lots with rows in the batch, in the order of (node, lot).

    The mean gradient over the batch is :math:`\sum_l p_l\, g_l`.

    Attributes:
        lots: Node and number of each lot.
        gradient: Each lot's mean gradient g over its rows in the batch, ``(L, P)``.
        counts: Its rows in the batch, int64 ``(L,)``.
        loss: Mean cross-entropy over these rows, ``(L,)``, in nats.
        missing: By node why its rows left the batch: when it failed, and how.
    """

    lots: list[tuple[int, int]]
    gradient: Tensor
    counts: Tensor
    loss: Tensor
    missing: dict[int, str] = field(default_factory=dict)

    @property
    def share(self) -> Tensor:
        """Each lot's share p of the batch, ``(L,)``, summing to 1."""
        return self.counts.to(self.gradient.dtype) / max(int(self.counts.sum()), 1)

    @property
    def pooled(self) -> Tensor:
        """Mean gradient over the rows of the batch that stayed, ``(P,)``: the centralised one on these rows."""
        return (self.share[:, None] * self.gradient).sum(dim=0)

    def updates(self, lr: float) -> Tensor:
        """Each lot's update Δ = −lr · g, ``(L, P)``. The step is their sum weighted by :attr:`share`, as in the engine's substrate."""
        return -lr * self.gradient


class Orchestrator:
    r"""Runs the protocol over a transport.

    :meth:`propose` takes one virtual batch through four messages per node:

    1. θ and the indices of the rows go to each node of the plan.
    2. The node answers with the activations at the cut and the last layer's error of each row.
    3. The orchestrator computes the blocks above the cut again, from the activations. With the error it has each lot's gradient above the
       cut, and each row's error at the cut, which goes back to the row's node.
    4. The node answers with each lot's gradient below the cut.

    All gradients are sums over rows until the end, so a node that drops out leaves nothing behind: its rows leave the batch, and the step
    is the centralised step on the rows that stayed. That holds before forward, between forward and backward, and before the last reply.

    A reply that does not fit is treated like none: another shape or type, numbers that are not finite, or an error that the activations
    contradict. The last is a check on softmax − one-hot of the logits that the orchestrator computed itself. A false gradient below the
    cut of the right shape cannot be seen, and neither can false activations.

    θ is the caller's to change: with ``theta -= lr * shares.pooled``, with any optimiser of torch after ``theta.grad = shares.pooled``, or
    with the updates of the lots that screening admits.

    Args:
        split: The model. Both sides must hold the same one, with the same cut.
        transport: To the nodes.
        tells: What nodes answer beside activations. ``error``: the last layer's error, as in the paper; nodes are sent all of θ for it.
            ``labels``: the labels, as in the base mode of TL++; nodes are sent what is below the cut only. The error shows the label too.
        tolerance: Largest entry by which an error may differ from what the activations say.

    Attributes:
        theta: The parameters, ``(P,)``.
        counts: Rows of each node's lots, by node, as the nodes told.
        traffic: Bytes sent.
    """

    def __init__(
        self, split: SplitModel, transport: Transport, tells: Literal["error", "labels"] = "error", tolerance: float = 1e-3
    ) -> None:
        if tells not in ("error", "labels"):
            raise ValueError(f"tells={tells!r}: must be error or labels")
        self.split, self.transport, self.tells, self.tolerance = split, transport, tells, tolerance
        self.theta = split.theta.clone()
        self.counts: dict[int, tuple[int, ...]] = {}
        self.traffic = Traffic()
        self._steps = 0

    def census(self, nodes: list[int]) -> dict[int, str]:
        """Ask nodes how many rows they have. Returns by node why one is left out.

        Raises:
            ValueError: If no node has rows.
        """
        replies, missing = self._exchange({node: CountRequest() for node in nodes}, CountReply)
        told = {}
        for node, reply in replies.items():
            try:
                told[node] = told_counts(reply.counts)
            except ValueError as error:
                missing[node] = str(error)
        self.counts = checked_counts(told)
        return missing

    def propose(self, batch: VirtualBatch) -> Shares:
        """Each lot's exact share of the step on a virtual batch. The parameters stay as they are.

        Raises:
            ValueError: If the batch has a node twice, one that is not in the census, or rows that it does not have.
        """
        check_batch(batch, self.counts)
        self._steps += 1
        step, theta = self._steps, self.theta.detach().clone()
        rows = {visit.node: visit.rows for visit in batch.visits}
        sent = theta if self.tells == "error" else theta[self.split.below]
        requests = {node: ForwardRequest(step, sent, own, self.tells == "labels") for node, own in rows.items()}
        forward: Mapping[int, ForwardReply | LabelReply]
        forward, missing = self._exchange(requests, ForwardReply) if self.tells == "error" else self._exchange(requests, LabelReply)
        above: dict[int, tuple[Tensor, Tensor]] = {}
        errors: dict[int, Tensor] = {}
        for node, reply in forward.items():
            found = self._read(reply, step, theta, len(rows[node]))
            if isinstance(found, str):
                missing[node] = f"forward: {found}"
                continue
            error, row_loss = found
            lots = lots_of(rows[node], self.counts[node])
            parts = [self.split.pull_above(theta, reply.activations[lots == k], error[lots == k]) for k in lots.unique().tolist()]
            above[node] = torch.stack([part[0] for part in parts]), torch.stack([row_loss[lots == k].sum() for k in lots.unique()])
            errors[node] = torch.cat([part[1] for part in parts])  # rows are ascending, so lots are one after another
        below = self._below(step, errors, missing, {node: len(part[0]) for node, part in above.items()})
        return self._shares({node: (below[node], *above[node]) for node in above if node in below}, rows, missing)

    def _read(self, reply: ForwardReply | LabelReply, step: int, theta: Tensor, n_rows: int) -> tuple[Tensor, Tensor] | str:
        """The last layer's error ``(b_i, C)`` and the cross-entropy of each row ``(b_i,)``, or what is wrong with the reply."""
        if problem := self._problem(reply, step, theta, n_rows):
            return problem
        with torch.no_grad():
            logits = self.split.head(theta, reply.activations)
        if isinstance(reply, LabelReply):
            return residual(logits, reply.labels), cross_entropy(logits, reply.labels)
        labels = (logits.softmax(dim=-1) - reply.error).argmax(dim=-1)  # of a row that the model is sure of, the error may be all zeros
        apart = float((reply.error - residual(logits, labels)).abs().max())
        if not apart <= self.tolerance:
            return f"error differs by {apart:.3g} from what its activations give: must be at most {self.tolerance:g}"
        return reply.error, cross_entropy(logits, labels)

    def _below(self, step: int, errors: Mapping[int, Tensor], missing: dict[int, str], n_lots: Mapping[int, int]) -> dict[int, Tensor]:
        """Each node's gradients below the cut, ``(L_i, n_below)``; nodes that fail are added to those that are missing."""
        if not self.split.n_below:  # all that is below is frozen: there is nothing to ask for
            return {node: self.theta.new_zeros(n_lots[node], 0) for node in errors}
        replies, failed = self._exchange({node: BackwardRequest(step, error) for node, error in errors.items()}, BackwardReply)
        missing |= failed
        found = {}
        for node, reply in replies.items():
            wanted = (n_lots[node], self.split.n_below)
            if problem := _unfit("gradients", reply.gradients, wanted, self.split.dtype) or _stale(reply.step, step):
                missing[node] = f"backward: {problem}"
            else:
                found[node] = reply.gradients
        return found

    def _shares(self, sums: Mapping[int, tuple[Tensor, Tensor, Tensor]], rows: Mapping[int, Tensor], missing: dict[int, str]) -> Shares:
        """From sums over rows below and above the cut and of the loss, by node, to means of lots."""
        names, gradients, counts, losses = [], [], [], []
        for node in sorted(sums):
            below, above, loss = sums[node]
            lots, own = lots_of(rows[node], self.counts[node]).unique(return_counts=True)
            names += [(node, k) for k in lots.tolist()]
            gradients.append(self.split.joined(below, above) / own[:, None])
            counts.append(own)
            losses.append(loss / own)
        if not names:
            none = self.theta.detach().new_zeros(0, self.split.n_parameters)
            return Shares([], none, torch.zeros(0, dtype=torch.int64), none[:, 0], missing)
        return Shares(names, torch.cat(gradients), torch.cat(counts), torch.cat(losses), missing)

    def _exchange(self, requests: Mapping[int, Request], kind: type[_R]) -> tuple[dict[int, _R], dict[int, str]]:
        """Send and count, and keep the replies of the right kind; the others' reasons by node."""
        when = {CountReply: "count", BackwardReply: "backward"}.get(kind, "forward")
        for request in requests.values():
            self.traffic.add(request)
        came = self.transport.exchange(requests)
        replies, missing = {}, {}
        for node in requests:
            reply: Reply | str = came.get(node, "no answer")
            if isinstance(reply, kind):
                self.traffic.add(reply)
                replies[node] = reply
            else:
                missing[node] = f"{when}: {reply if isinstance(reply, str) else 'answered with a ' + type(reply).__name__}"
        return replies, missing

    def _problem(self, reply: ForwardReply | LabelReply, step: int, theta: Tensor, n_rows: int) -> str:
        """What is wrong with a reply to a forward request; nothing if it fits."""
        if problem := _stale(reply.step, step):
            return problem
        if len(reply.activations) != n_rows or reply.activations.dtype != self.split.dtype:
            shape = tuple(reply.activations.shape)
            return f"activations are {reply.activations.dtype} {shape}: must be {self.split.dtype} ({n_rows}, …)"
        if not reply.activations.isfinite().all():
            return "activations are not finite"
        try:
            with torch.no_grad():
                n_classes = self.split.head(theta, reply.activations[:1]).shape[-1]
        except (RuntimeError, ValueError) as error:
            return f"activations of shape {tuple(reply.activations.shape)} do not fit the model above the cut: {str(error).splitlines()[0]}"
        if isinstance(reply, ForwardReply):
            return _unfit("error", reply.error, (n_rows, n_classes), self.split.dtype)
        if problem := _unfit("labels", reply.labels, (n_rows,), torch.int64):
            return problem
        inside = bool((reply.labels >= 0).all() and (reply.labels < n_classes).all())
        return "" if inside else f"labels are not all from 0 to {n_classes - 1}"


def _unfit(name: str, value: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> str:
    if value.shape != shape or value.dtype != dtype:
        return f"{name}: {value.dtype} {tuple(value.shape)}, must be {dtype} {shape}"
    return "" if bool(value.isfinite().all()) else f"{name} is not finite"


def _stale(came: int, step: int) -> str:
    return "" if came == step else f"the reply is of step {came}, and this is step {step}"
