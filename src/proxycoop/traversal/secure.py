r"""The secure mode: activations, errors and gradients in additive shares between the orchestrator and a helper.

Above the cut there must be one linear layer, :math:`\text{logits} = W a + b`. Then all that the servers compute is linear in what is
shared, or a product of two shared matrices. For a virtual batch, node i holds activations A :math:`(b_i, h)` and errors E
:math:`(b_i, C)` of its rows; :math:`[x]_0, [x]_1` are the shares of the orchestrator and the helper.

1. The node draws matrices U like A and V like E, and shares of U, V and of :math:`V^\top U` (Beaver's triple; the node can deal it, since
   it knows A and E anyway). It sends both servers the masked :math:`D = A - U` and :math:`F = E - V`, and each its shares.
2. Each server has :math:`[A]_j = j_0 D + [U]_j` and :math:`[E]_j = j_0 F + [V]_j`, with :math:`j_0 = 1` for the orchestrator and 0 for the
   helper. It computes, for each lot, its share of the gradient above the cut,
   :math:`[E^\top A]_j = j_0 F^\top D + F^\top [U]_j + [V]_j^\top D + [V^\top U]_j`, and its share of the error at the cut,
   :math:`[E]_j W`, which goes to the node.
3. The node adds the two up, and computes each lot's gradient below the cut. It shares them.
4. Each server adds its shares up over the lots that stayed. The helper sends its sum, and the orchestrator decodes the step.

What this does not hide: the parameters and the pooled gradient of each step (from which something of the rows may be inferred, above all in
small batches); how many rows each node has, which of them are in a batch, and who dropped out. Orchestrator and helper together see
everything. Nobody checks that a node's error fits its activations, since nobody sees them. Parties are taken to follow the protocol.

References:
    *TL++* (2026), arXiv 2606.25627. There the labels and outputs are visible to the orchestrator, which also puts together the error at the
    cut and each node's gradients; a share is half the number plus normal noise of 2 or 10 % of its standard deviation; and a server
    part that is not linear is applied to each share, which is another function.
    Beaver (1991), *Efficient multiparty protocols using circuit randomization*, CRYPTO.
    Mohassel & Zhang (2017), *SecureML*, IEEE S&P: two servers, fixed-point numbers, matrix triples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from .batches import VirtualBatch, check_batch, checked_counts, lots_of
from .node import Node
from .ring import Ring, Words
from .split import SplitModel
from .wire import ForwardRequest, Traffic

_M = TypeVar("_M")
Stage = Literal["forward", "after_forward", "backward"]


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


def linear_head(split: SplitModel) -> nn.Linear:
    """The linear layer above the cut.

    Raises:
        ValueError: If above the cut is anything else, or the layer is frozen.
    """
    above = [getattr(split.module, name) for name in split.names[split.cut :]]
    if len(above) == 1 and isinstance(above[0], nn.Linear):
        size = sum(one.numel() for one in above[0].parameters())
        if split.n_parameters - split.n_below == size:
            return above[0]
        raise ValueError(f"secure mode trains the whole layer above the cut: {split.names[-1]} is frozen or a part of it is")
    last = len(split.names) - 1
    fits = isinstance(getattr(split.module, split.names[-1]), nn.Linear) and last in split.cuts
    hint = f"must be {last}" if fits else "no cut of this module leaves just a linear layer above it"
    raise ValueError(f"cut={split.cut}: secure mode needs exactly one nn.Linear above the cut, as shares pass only linear layers: {hint}")


def masked(ring: Ring, a: Words, e: Words, sizes: list[int], keys: tuple[bytes, bytes]) -> tuple[Words, Words, Words]:
    """D, F and the orchestrator's shares of the lots' VᵀU, for activations and errors ``(b, h)`` and ``(b, C)``, and the servers' keys."""
    u = ring.mask(keys[0], "U", a.shape) + ring.mask(keys[1], "U", a.shape)
    v = ring.mask(keys[0], "V", e.shape) + ring.mask(keys[1], "V", e.shape)
    products = np.stack([v_l.T @ u_l for v_l, u_l in zip(_parts(v, sizes), _parts(u, sizes), strict=True)])
    return a - u, e - v, products - ring.mask(keys[1], "VU", products.shape)


def _parts(words: Words, sizes: list[int]) -> list[Words]:
    return np.split(words, np.cumsum(sizes)[:-1])


class SecureNode(Node):
    """A node that shares what it sends. Arguments as for :class:`~proxycoop.traversal.Node`, and the ring.

    Raises:
        ValueError: As there, and if above the cut is not one linear layer.
    """

    def __init__(self, split: SplitModel, x: Tensor, y: Tensor, counts: tuple[int, ...] | None = None, ring: Ring | None = None) -> None:
        super().__init__(split, x, y, counts)
        linear_head(split)
        self.ring = ring or Ring()
        self._batch = (0, 0)

    def forward_shares(self, request: SecureForwardRequest) -> tuple[MaskedForward, MaskedForward]:
        """What goes to the orchestrator and to the helper.

        Raises:
            ValueError: If the request does not fit, or numbers are so large that a sum over the batch may overflow.
        """
        activations, error = self.forward(ForwardRequest(request.step, request.theta, request.rows))
        head = request.theta[~self.split.below].abs().max()  # entries of the error at the cut are at most twice that
        self.ring.encode(2 * head, "weights above the cut", self.ring.limit)
        a = self.ring.encode(activations, "activations", self.ring.limit / request.batch)  # entries of errors are at most 1
        e = self.ring.encode(error, "errors", self.ring.limit / request.batch)
        sizes = lots_of(request.rows, self.counts).unique(return_counts=True)[1]
        keys = self.ring.key(), self.ring.key()
        d, f, products = masked(self.ring, a, e, sizes.tolist(), keys)
        self._batch = len(request.rows), request.batch
        return (
            MaskedForward(request.step, d, f, sizes, keys[0], products),
            MaskedForward(request.step, d, f, sizes, keys[1], products[:0]),
        )

    def backward_shares(self, first: CutErrorShare, second: CutErrorShare) -> tuple[GradientShare, GradientKey]:
        """What goes to the orchestrator and to the helper, from their shares of the error at the cut.

        Raises:
            ValueError: If the shares are of different steps, or numbers are so large that a sum over the batch may overflow.
        """
        if first.step != second.step:
            raise ValueError(f"shares of the error are of steps {first.step} and {second.step}: must be the same")
        error = self.ring.decode(first.error + second.error).to(self.split.dtype)
        gradients = self.backward(first.step, error)
        own, batch = self._batch
        words = self.ring.encode(gradients, "gradients below the cut", self.ring.limit * own / batch / len(gradients), products=True)
        rest, key = self.ring.split(words, "G")
        return GradientShare(first.step, rest), GradientKey(first.step, key, len(gradients))


class _Server:
    """What both servers do. It sees only what it is handed: shares and masked matrices."""

    def __init__(self, split: SplitModel, ring: Ring, place: Literal[0, 1]) -> None:
        linear_head(split)
        self.split, self.ring, self._place = split, ring, place
        self._above: dict[int, Words] = {}
        self._below: dict[int, Words] = {}
        self._step = -1

    def begin(self, step: int, weight: Tensor) -> None:
        self._step, self._above, self._below = step, {}, {}
        self._weight = self.ring.encode(weight, "weights above the cut", self.ring.limit)

    def take_forward(self, node: int, came: MaskedForward) -> CutErrorShare:
        if came.step != self._step:
            raise ValueError(f"shares of step {came.step}: this is step {self._step}")
        d, f, sizes = came.activations, came.error, came.sizes.tolist()
        u, v = self.ring.mask(came.key, "U", d.shape), self.ring.mask(came.key, "V", f.shape)
        shape = len(sizes), f.shape[1], d.shape[1]
        products = came.products if self._place == 0 else self.ring.mask(came.key, "VU", shape)
        e = v + f if self._place == 0 else v
        above = []
        for d_l, f_l, u_l, v_l, e_l, product in zip(*(_parts(part, sizes) for part in (d, f, u, v, e)), products, strict=True):
            weight = f_l.T @ u_l + v_l.T @ d_l + product
            weight = weight + f_l.T @ d_l if self._place == 0 else weight
            bias = e_l.sum(axis=0, dtype=np.uint64) << np.uint64(self.ring.fraction)
            above.append(np.concatenate([weight.ravel(), bias])[: self.split.n_parameters - self.split.n_below])
        self._above[node] = np.stack(above)
        return CutErrorShare(came.step, e @ self._weight)

    def take_backward(self, node: int, gradients: Words) -> None:
        self._below[node] = gradients

    def shares(self, nodes: list[int], by_lot: bool) -> Words:
        below = self.split.below.numpy()
        rows = []
        for node in nodes:
            whole = np.zeros((len(self._above[node]), self.split.n_parameters), dtype=np.uint64)
            whole[:, ~below] = self._above[node]
            if below.any():
                whole[:, below] = self._below[node]
            rows.append(whole)
        together = np.concatenate(rows)
        return together if by_lot else np.asarray(together.sum(axis=0, dtype=np.uint64))


class Helper(_Server):
    """The second server. It answers one reveal a step, so that nobody can be found out as the difference of two sums.

    Args:
        split: The model; only its shapes are used.
        ring: As at the nodes.
        least: A sum over fewer nodes is not revealed.
        by_lot: Whether it agrees to reveal each lot's gradient to the orchestrator. Credit by lot and screening need that.
    """

    def __init__(self, split: SplitModel, ring: Ring | None = None, least: int = 2, by_lot: bool = False) -> None:
        super().__init__(split, ring or Ring(), 1)
        self.least, self.by_lot = least, by_lot
        self._told = -1

    def start(self, request: HelperStart) -> None:
        """Begin a step.

        Raises:
            ValueError: If the step is not later than the last one.
        """
        if request.step <= self._step:
            raise ValueError(f"step {request.step} does not come after step {self._step}")
        self.begin(request.step, request.weight)

    def take_key(self, node: int, came: GradientKey) -> None:
        """Take a node's share of its gradients below the cut."""
        self.take_backward(node, self.ring.mask(came.key, "G", (came.n_lots, self.split.n_below)))

    def reveal(self, request: Reveal) -> Revealed:
        """Its shares.

        Raises:
            ValueError: If it was asked in this step before, or too few nodes are to be added up, or lots are to be kept apart against its
                settings.
        """
        if self._told >= request.step or request.step != self._step:
            raise ValueError(f"step {request.step} was revealed before, or is not the present step {self._step}: each is revealed once")
        nodes = request.nodes.tolist()
        if request.by_lot and not self.by_lot:
            raise ValueError("the helper does not reveal lots: it was made with by_lot=False")
        if not request.by_lot and len(set(nodes)) < self.least:
            raise ValueError(f"{len(set(nodes))} nodes: the helper reveals a sum over at least {self.least}")
        self._told = request.step
        return Revealed(request.step, self.shares(nodes, request.by_lot))


class SecureOrchestrator(_Server):
    """Runs the secure mode with nodes and a helper in this process. The messages are dataclasses that any transport can carry.

    Args:
        split: The model, with one linear layer above the cut.
        nodes: Nodes by id.
        helper: The second server.
        ring: As at the nodes and the helper.
        fails: Called with a stage and a node; where it says True, the node does not answer there any more. Nobody fails by default.

    Attributes:
        theta: The parameters, ``(P,)``, the caller's to change.
        counts: Rows of each node's lots.
        traffic: Bytes sent, by link: ``orchestrator to nodes`` and so on.
    """

    def __init__(
        self,
        split: SplitModel,
        nodes: Mapping[int, SecureNode],
        helper: Helper,
        ring: Ring | None = None,
        fails: Callable[[Stage, int], bool] | None = None,
    ) -> None:
        super().__init__(split, ring or Ring(), 0)
        fractions = {self.ring.fraction, helper.ring.fraction, *(node.ring.fraction for node in nodes.values())}
        if len(fractions) > 1:
            raise ValueError(f"rings have {sorted(fractions)} fractional bits: orchestrator, helper and nodes must have the same")
        self.nodes, self.helper, self.fails = dict(nodes), helper, fails or (lambda *_: False)
        self.theta = split.theta.clone()
        self.counts = checked_counts({node: one.counts for node, one in self.nodes.items()})
        links = "orchestrator to nodes", "nodes to orchestrator", "nodes to helper", "helper to nodes", "orchestrator to helper"
        self.traffic = {link: Traffic() for link in (*links, "helper to orchestrator")}

    def propose(self, batch: VirtualBatch, by_lot: bool = False) -> SecureStep:
        """The pooled gradient on a virtual batch, and with ``by_lot`` each lot's.

        Raises:
            ValueError: If the batch does not fit the nodes, or the helper refuses to reveal.
        """
        check_batch(batch, self.counts)
        step = max(self._step, 0) + 1
        theta = self.theta.detach().clone()
        head = linear_head(self.split)
        weight = theta[~self.split.below][: head.weight.numel()].reshape(head.weight.shape)
        self.begin(step, weight)
        start = HelperStart(step, weight)
        self.helper.start(self._sent("orchestrator to helper", start))
        missing: dict[int, str] = {}
        for visit in batch.visits:
            if reason := self._visit(step, theta, visit.node, visit.rows, batch.size):
                missing[visit.node] = reason
        stayed = [visit for visit in batch.visits if visit.node not in missing]
        asked = Reveal(step, torch.tensor([visit.node for visit in stayed], dtype=torch.int64), by_lot)
        revealed = self._sent("helper to orchestrator", self.helper.reveal(self._sent("orchestrator to helper", asked)))
        sums = self.ring.decode(self.shares([visit.node for visit in stayed], by_lot) + revealed.gradients)
        lots, counts = [], []
        for visit in stayed:
            own, n = lots_of(visit.rows, self.counts[visit.node]).unique(return_counts=True)
            lots += [(visit.node, k) for k in own.tolist()]
            counts.append(n)
        count = torch.cat(counts)
        n_rows = int(count.sum())
        pooled = (sums.sum(dim=0) if by_lot else sums) / n_rows
        return SecureStep(pooled, n_rows, lots, count, sums / count[:, None] if by_lot else None, missing)

    def _visit(self, step: int, theta: Tensor, node: int, rows: Tensor, batch: int) -> str:
        """All of a node's step. Returns when and why it failed, or nothing."""
        if self.fails("forward", node):
            return "forward: no answer"
        request = self._sent("orchestrator to nodes", SecureForwardRequest(step, theta, rows, batch))
        try:
            mine, other = self.nodes[node].forward_shares(request)
        except ValueError as error:
            return f"forward: {error}"
        first = self.take_forward(node, self._sent("nodes to orchestrator", mine))
        second = self.helper.take_forward(node, self._sent("nodes to helper", other))
        if self.fails("after_forward", node):
            return "backward: no answer"
        if not self.split.n_below:
            return ""
        first, second = self._sent("orchestrator to nodes", first), self._sent("helper to nodes", second)
        if self.fails("backward", node):
            return "backward: no answer"
        try:
            share, key = self.nodes[node].backward_shares(first, second)
        except ValueError as error:
            return f"backward: {error}"
        self.take_backward(node, self._sent("nodes to orchestrator", share).gradients)
        self.helper.take_key(node, self._sent("nodes to helper", key))
        return ""

    def _sent(self, link: str, message: _M) -> _M:
        self.traffic[link].add(message)
        return message
