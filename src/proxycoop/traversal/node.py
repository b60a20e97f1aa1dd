"""The node's side: its rows never leave it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ..envs.model.likelihood import residual
from .batches import lots_of
from .split import SplitModel
from .wire import BackwardReply, BackwardRequest, CountReply, CountRequest, ForwardReply, ForwardRequest, LabelReply, Reply, Request


class Node:
    """A node with its lots.

    Args:
        split: The model. Both sides must hold the same one, with the same cut.
        x: Rows of all lots, one lot after another, ``(n, …)``.
        y: Their labels, int64 ``(n,)``.
        counts: Rows of each lot; all rows are one lot by default.

    Raises:
        ValueError: If rows and labels do not fit each other, the counts or the model, or rows are not finite.
    """

    def __init__(self, split: SplitModel, x: Tensor, y: Tensor, counts: Sequence[int] | None = None) -> None:
        self.counts = (len(x),) if counts is None else tuple(counts)
        if len(x) != len(y) or len(x) != sum(self.counts) or y.dtype != torch.int64:
            raise ValueError(
                f"{len(x)} rows, {len(y)} labels of type {y.dtype}, and lots of {self.counts} rows: must be as many, with labels int64"
            )
        if x.is_floating_point() and not x.isfinite().all():
            raise ValueError("x has rows that are not finite")
        if len(x):
            self._try(split, x, y)
        self.split, self.x, self.y = split, x, y
        self._open: ForwardRequest | None = None  # the last one, until it is answered

    @staticmethod
    def _try(split: SplitModel, x: Tensor, y: Tensor) -> None:
        """Check on one row that rows and labels fit the model."""
        try:
            with torch.no_grad():
                n_classes = split.logits(split.theta, x[:1]).shape[-1]
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"rows of {x.dtype} {tuple(x.shape[1:])} do not fit the model: {str(error).splitlines()[0]}") from error
        if int(y.min()) < 0 or int(y.max()) >= n_classes:
            raise ValueError(f"labels are from {int(y.min())} to {int(y.max())}: the model has the classes 0 to {n_classes - 1}")

    def answer(self, request: Request) -> Reply:
        """The reply to a request.

        Raises:
            ValueError: If the request does not fit the node, its model or the step before.
        """
        if isinstance(request, CountRequest):
            return CountReply(torch.tensor(self.counts))
        if isinstance(request, ForwardRequest) and request.labels:
            self.reopen(request)
            with torch.no_grad():
                lower = self.split.activations(self._whole(request), self.x[request.rows])
            return LabelReply(request.step, lower, self.y[request.rows])
        if isinstance(request, ForwardRequest):
            activations, error = self.forward(request)
            return ForwardReply(request.step, activations, error)
        if isinstance(request, BackwardRequest):
            return BackwardReply(request.step, self.backward(request.step, request.error))
        raise ValueError(f"a node cannot answer a {type(request).__name__}: must be a CountRequest, ForwardRequest or BackwardRequest")

    def forward(self, request: ForwardRequest) -> tuple[Tensor, Tensor]:
        """Activations at the cut, ``(b_i, …)``, and the last layer's error, ``(b_i, C)``, of the request's rows."""
        self.reopen(request)
        theta, rows = request.theta, request.rows
        with torch.no_grad():
            activations = self.split.activations(theta, self.x[rows])
            logits = self.split.head(theta, activations)
            error = residual(logits, self.y[rows])
        return activations, error

    def reopen(self, request: ForwardRequest) -> None:
        """Take up a step whose forward pass was answered before, such as by a process that is gone.

        Raises:
            ValueError: If the request does not fit the node or its model.
        """
        theta, rows = request.theta, request.rows
        if theta.shape != (self.split.n_below if request.labels else self.split.n_parameters,) or theta.dtype != self.split.dtype:
            raise ValueError(
                f"theta has shape {tuple(theta.shape)} and type {theta.dtype}: the node's model has {self.split.n_parameters} trained "
                f"parameters, {self.split.n_below} of them below the cut, of type {self.split.dtype}"
            )
        if rows.dim() != 1 or rows.dtype != torch.int64 or not len(rows) or bool((rows < 0).any() | (rows >= len(self.x)).any()):
            raise ValueError(f"rows must be int64 indices from 0 to {len(self.x) - 1}, at least one: got {rows.dtype} {tuple(rows.shape)}")
        if bool((rows.diff() <= 0).any()):
            raise ValueError("rows must be ascending, without repetition")
        self._open = request

    def _whole(self, request: ForwardRequest) -> Tensor:
        """The request's parameters, ``(P,)``; those above the cut are 0 if they were not sent, and are not used then."""
        if not request.labels:
            return request.theta
        return self.split.joined(request.theta, request.theta.new_zeros(self.split.n_parameters - self.split.n_below))

    def backward(self, step: int, error: Tensor) -> Tensor:
        """Each lot's gradient below the cut, ``(L, n_below)``, from the error at the cut, ``(b_i, …)``; it ends the step."""
        if self._open is None or self._open.step != step:
            asked = "none" if self._open is None else str(self._open.step)
            raise ValueError(f"backward request of step {step}: the node's open step is {asked}")
        theta, rows = self._whole(self._open), self._open.rows
        if len(error) != len(rows):
            raise ValueError(f"error has {len(error)} rows: the step has {len(rows)}")
        if error.dtype != self.split.dtype or not error.isfinite().all():
            raise ValueError(f"error is {error.dtype}, or not finite: must be finite {self.split.dtype}")
        self._open = None
        lots = lots_of(rows, self.counts)
        parts = [self.split.pull_below(theta, self.x[rows[lots == k]], error[lots == k]) for k in lots.unique().tolist()]
        return torch.stack(parts)


class Local:
    """A transport to nodes in this process, visited one after another.

    Args:
        nodes: Nodes by id.
        fails: Called with a node's id and its request; where it says True, the node does not answer. Nobody fails by default.
    """

    def __init__(self, nodes: Mapping[int, Node], fails: Callable[[int, Request], bool] | None = None) -> None:
        self.nodes, self.fails = dict(nodes), fails

    def exchange(self, requests: Mapping[int, Request]) -> dict[int, Reply | str]:
        """Ask each node; a request that a node refuses comes back as its reason."""
        replies: dict[int, Reply | str] = {}
        for node, request in requests.items():
            if self.fails is not None and self.fails(node, request):
                continue
            try:
                replies[node] = self.nodes[node].answer(request)
            except ValueError as error:
                replies[node] = str(error)
        return replies
