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

from .batches import lots_of
from .node import Node
from .ring import Ring, Words
from .secure_wire import (
    CutErrorShare,
    GradientKey,
    GradientShare,
    Handed,
    HelperIntroduction,
    HelperRequest,
    HelperStart,
    MaskedForward,
    NodeIntroduction,
    NodeReply,
    NodeRequest,
    Reveal,
    Revealed,
    SecureForwardRequest,
)
from .split import SplitModel
from .wire import ForwardRequest

_H = TypeVar("_H", MaskedForward, GradientKey)


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

    def introduction(self) -> NodeIntroduction:
        """How many rows it has, and its ring."""
        return NodeIntroduction(torch.tensor(self.counts), self.ring.fraction)

    def answer_secure(self, request: NodeRequest, handed: Handed | None = None) -> tuple[NodeReply, Handed]:
        """The reply to the orchestrator, and what goes to the helper.

        Args:
            request: The orchestrator's.
            handed: What the helper said, for the second request of a step.

        Raises:
            ValueError: If the request does not fit the node or its step, or numbers are too large.
        """
        if isinstance(request, SecureForwardRequest):
            return self.forward_shares(request)
        if isinstance(request, CutErrorShare) and isinstance(handed, CutErrorShare):
            return self.backward_shares(request, handed)
        came = f"{type(request).__name__} with {'nothing' if handed is None else type(handed).__name__} from the helper"
        raise ValueError(f"a node cannot answer a {came}: must be a SecureForwardRequest, or a CutErrorShare with a CutErrorShare")

    def reopen_secure(self, request: SecureForwardRequest) -> None:
        """Take up a step whose forward pass was answered before, such as by a process that is gone.

        Raises:
            ValueError: If the request does not fit.
        """
        self.reopen(ForwardRequest(request.step, request.theta, request.rows))
        if request.batch < len(request.rows):
            raise ValueError(f"batch={request.batch}: must be at least the node's {len(request.rows)} rows")
        self._batch = len(request.rows), request.batch

    def forward_shares(self, request: SecureForwardRequest) -> tuple[MaskedForward, MaskedForward]:
        """What goes to the orchestrator and to the helper.

        Raises:
            ValueError: If the request does not fit, or numbers are so large that a sum over the batch may overflow.
        """
        self.reopen_secure(request)
        activations, error = self.forward(ForwardRequest(request.step, request.theta, request.rows))
        head = request.theta[~self.split.below].abs().max()  # entries of the error at the cut are at most twice that
        self.ring.encode(2 * head, "weights above the cut", self.ring.limit)
        a = self.ring.encode(activations, "activations", self.ring.limit / request.batch)  # entries of errors are at most 1
        e = self.ring.encode(error, "errors", self.ring.limit / request.batch)
        sizes = lots_of(request.rows, self.counts).unique(return_counts=True)[1]
        keys = self.ring.key(), self.ring.key()
        d, f, products = masked(self.ring, a, e, sizes.tolist(), keys)
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
        wanted = self._batch[0], linear_head(self.split).in_features
        if not first.error.shape == second.error.shape == wanted:
            raise ValueError(f"shares of the error have shapes {first.error.shape} and {second.error.shape}: must be {wanted}")
        error = self.ring.decode(first.error + second.error).to(self.split.dtype)
        gradients = self.backward(first.step, error)
        own, batch = self._batch
        words = self.ring.encode(gradients, "gradients below the cut", self.ring.limit * own / batch / len(gradients), products=True)
        rest, key = self.ring.split(words, "G")
        return GradientShare(first.step, rest), GradientKey(first.step, key, len(gradients))


class SecureServer:
    """What the orchestrator and the helper both do. It sees only what it is handed: shares and masked matrices."""

    def __init__(self, split: SplitModel, ring: Ring, place: Literal[0, 1]) -> None:
        linear_head(split)
        self.split, self.ring, self._place = split, ring, place
        self._above: dict[int, Words] = {}
        self._below: dict[int, Words] = {}
        self._step = -1

    def begin(self, step: int, weight: Tensor) -> None:
        """Begin a step with the layer above the cut, ``(C, h)``; shares of the last one are forgotten."""
        self._step, self._above, self._below = step, {}, {}
        self._weight = self.ring.encode(weight, "weights above the cut", self.ring.limit)

    def take_forward(self, node: int, came: MaskedForward) -> CutErrorShare:
        """Take a node's masked numbers, and compute the server's share of the error at the cut.

        Raises:
            ValueError: If they are not of this step, or do not fit.
        """
        if came.step != self._step:
            raise ValueError(f"shares of step {came.step}: this is step {self._step}")
        d, f, sizes = came.activations, came.error, came.sizes.tolist()
        n_classes, width = self._weight.shape
        n, shape = sum(sizes), (len(sizes), n_classes, width)
        if d.shape != (n, width) or f.shape != (n, n_classes) or min(sizes, default=0) < 1:
            raise ValueError(f"shares of {d.shape} and {f.shape} for lots of {sizes} rows: must be {(n, width)} and {(n, n_classes)}")
        if self._place == 0 and came.products.shape != shape:
            raise ValueError(f"products have shape {came.products.shape}: must be {shape}")
        u, v = self.ring.mask(came.key, "U", d.shape), self.ring.mask(came.key, "V", f.shape)
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

    def take_backward(self, node: int, step: int, gradients: Words) -> None:
        """Take the server's share of a node's gradients below the cut, ``(L, n_below)``.

        Raises:
            ValueError: If it is not of this step, or does not fit.
        """
        wanted = len(self._above.get(node, ())), self.split.n_below
        if step != self._step or gradients.shape != wanted:
            raise ValueError(f"gradients of step {step} have shape {gradients.shape}: must be {wanted} in step {self._step}")
        self._below[node] = gradients

    def shares(self, nodes: list[int], by_lot: bool) -> Words:
        """The server's shares of these nodes' gradients: ``(P,)`` added up, or ``(L, P)`` by lot."""
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


@dataclass(frozen=True)
class HelperState:
    """What a helper keeps between two messages, such as for a process that takes over.

    Attributes:
        step: The present step.
        told: The last step that was revealed.
        weight: The layer above the cut, ``(C, h)``.
        above_nodes: Node of each lot above the cut, int64 ``(L,)``.
        above: Shares of the lots' gradients above the cut, ``(L, n_above)``.
        below_nodes: Node of each lot below the cut, int64 ``(M,)``.
        below: Shares of the lots' gradients below the cut, ``(M, n_below)``.
    """

    step: int
    told: int
    weight: Words
    above_nodes: Tensor
    above: Words
    below_nodes: Tensor
    below: Words


class Helper(SecureServer):
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

    def introduction(self) -> HelperIntroduction:
        """Its ring and the last step that it began."""
        return HelperIntroduction(self.ring.fraction, self._step)

    def answer(self, request: HelperRequest, handed: Mapping[int, Handed]) -> tuple[Revealed | None, dict[int, Handed | str]]:
        """Its shares if it was asked to reveal, and what it says to nodes, or why it does not take what they say.

        Args:
            request: The orchestrator's.
            handed: What nodes said: masked numbers at the start of a step, keys before a reveal. A node whose key it does not take is left
                out of the sum.

        Raises:
            ValueError: If it refuses the request.
        """
        if isinstance(request, HelperStart):
            self.start(request)
            return None, self._each(handed, MaskedForward, self.take_forward)
        if not isinstance(request, Reveal):
            raise ValueError(f"a helper cannot answer a {type(request).__name__}: must be a HelperStart or a Reveal")
        said = self._each(handed, GradientKey, self.take_key)
        stayed = [node for node in request.nodes.tolist() if node not in said]
        return self.reveal(Reveal(request.step, torch.tensor(stayed, dtype=torch.int64), request.by_lot)), said

    @staticmethod
    def _each(handed: Mapping[int, Handed], kind: type[_H], take: Callable[[int, _H], Handed | None]) -> dict[int, Handed | str]:
        said: dict[int, Handed | str] = {}
        for node, came in handed.items():
            try:
                if not isinstance(came, kind):
                    raise ValueError(f"came with a {type(came).__name__}: must be a {kind.__name__}")
                if (answer := take(node, came)) is not None:
                    said[node] = answer
            except ValueError as error:
                said[node] = str(error)
        return said

    def start(self, request: HelperStart) -> None:
        """Begin a step.

        Raises:
            ValueError: If the step is not later than the last one, or the layer does not fit the model.
        """
        if request.step <= self._step:
            raise ValueError(f"step {request.step} does not come after step {self._step}")
        if request.weight.shape != (wanted := linear_head(self.split).weight.shape):
            raise ValueError(f"weight has shape {tuple(request.weight.shape)}: the helper's model has {tuple(wanted)} above the cut")
        self.begin(request.step, request.weight)

    def take_forward(self, node: int, came: MaskedForward) -> CutErrorShare:
        """Take a node's masked numbers, and answer with its share of the error at the cut.

        Raises:
            ValueError: If they are not of this step, do not fit, or came before.
        """
        if node in self._above or self._told >= came.step:
            raise ValueError(f"shares of node {node} in step {came.step} came before, or the step was revealed")
        return super().take_forward(node, came)

    def take_key(self, node: int, came: GradientKey) -> None:
        """Take a node's share of its gradients below the cut.

        Raises:
            ValueError: If it is not of this step, does not fit, or came before.
        """
        n_lots = len(self._above.get(node, ()))
        if node in self._below or came.n_lots != n_lots:
            raise ValueError(f"a key for {came.n_lots} lots: node {node} has {n_lots} in step {self._step}, or its key came before")
        self.take_backward(node, came.step, self.ring.mask(came.key, "G", (n_lots, self.split.n_below)))

    def reveal(self, request: Reveal) -> Revealed:
        """Its shares. It forgets them then.

        Raises:
            ValueError: If it was asked in this step before, or too few nodes are to be added up, or lots are to be kept apart against its
                settings, or it has no shares of a node.
        """
        if self._told >= request.step or request.step != self._step:
            raise ValueError(f"step {request.step} was revealed before, or is not the present step {self._step}: each is revealed once")
        nodes = request.nodes.tolist()
        if request.by_lot and not self.by_lot:
            raise ValueError("the helper does not reveal lots: it was made with by_lot=False")
        if len(set(nodes)) < (least := 1 if request.by_lot else self.least):
            raise ValueError(f"{len(set(nodes))} nodes: the helper reveals a sum over at least {least}")
        complete = self._above.keys() & self._below.keys() if self.split.n_below else self._above.keys()
        if len(set(nodes)) < len(nodes) or not complete >= set(nodes):
            raise ValueError(f"nodes {nodes} are to be added up: must be of {sorted(complete)}, whose shares came, each once")
        revealed = Revealed(request.step, self.shares(nodes, request.by_lot))
        self._told, self._above, self._below = request.step, {}, {}
        return revealed

    def state(self) -> HelperState:
        """What another process needs to go on, and what keeps it from revealing a step again."""
        above, below = _table(self._above, self.split.n_parameters - self.split.n_below), _table(self._below, self.split.n_below)
        weight = self._weight if self._step >= 0 else np.zeros((0, 0), dtype=np.uint64)
        return HelperState(self._step, self._told, weight, *above, *below)

    def restore(self, state: HelperState) -> None:
        """Go on from a state."""
        self._step, self._told, self._weight = state.step, state.told, state.weight
        self._above, self._below = _by_node(state.above_nodes, state.above), _by_node(state.below_nodes, state.below)


def _table(parts: Mapping[int, Words], width: int) -> tuple[Tensor, Words]:
    nodes = [node for node, words in parts.items() for _ in words]
    return torch.tensor(nodes, dtype=torch.int64), np.concatenate([np.zeros((0, width), dtype=np.uint64), *parts.values()])


def _by_node(nodes: Tensor, words: Words) -> dict[int, Words]:
    return {node: words[(nodes == node).numpy()] for node in nodes.unique().tolist()}
