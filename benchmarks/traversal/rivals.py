"""What traversal learning is compared with, on the same rows, blocks and counters of bytes: federated averaging and split learning.

Each method has a ``round``, in which each row is visited once, and counts bytes and exchanges. An exchange is a message to nodes and the
answers to it; exchanges with several nodes at once count as one.

* ``Central``: minibatch gradient descent on the rows of all nodes in one place.
* ``Traversal``: the protocol, with the last layer's error or with labels.
* ``FedSgd``: the same virtual batches, and each node sends its gradient of the whole model: lossless too.
* ``FedAvg``: each node takes minibatch steps over its rows; the models are averaged by rows (McMahan et al., 2017).
* ``SplitLearning``: nodes in turn take minibatch steps with the server, and hand on what is below the cut (Gupta & Raskar, 2018).
* ``SplitFed``: the same with one copy of what is below the cut for each node, averaged after the round, and one server part that serves
  nodes in random order (Thapa et al., 2022, SplitFedV2).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from proxycoop.traversal import Local, Node, Orchestrator, SplitModel, Traffic, plan
from proxycoop.traversal.wire import ForwardRequest

Data = Mapping[int, tuple[Tensor, Tensor]]
"""Rows and labels of each node."""


@dataclass(frozen=True)
class ModelRequest:
    """Parameters to a node, all or those below the cut."""

    theta: Tensor


@dataclass(frozen=True)
class ModelReply:
    """Parameters or their gradient from a node, and its number of rows."""

    theta: Tensor
    rows: int


@dataclass(frozen=True)
class ActivationsReply:
    """Activations at the cut and labels, from a node."""

    activations: Tensor
    labels: Tensor


@dataclass(frozen=True)
class CutErrorRequest:
    """The error at the cut, to a node."""

    error: Tensor


class Method:
    """Parameters that rounds change.

    Args:
        split: The model and its cut.
        data: Rows and labels of each node.
        lr: Learning rate of plain gradient descent.
        batch: Rows of a batch.
        seed: Of the order of rows.
    """

    def __init__(self, split: SplitModel, data: Data, lr: float, batch: int, seed: int) -> None:
        self.split, self.data, self.lr, self.batch, self.seed = split, data, lr, batch, seed
        self.theta, self.traffic, self.exchanges, self.rounds = split.theta.clone(), Traffic(), 0, 0

    def round(self) -> None:
        """Visit each row once."""
        self._round(np.random.default_rng([self.seed, self.rounds]))
        self.rounds += 1

    def _round(self, draw: np.random.Generator) -> None:
        raise NotImplementedError

    def _batches(self, node: int, draw: np.random.Generator) -> list[tuple[Tensor, Tensor]]:
        x, y = self.data[node]
        return [(x[part], y[part]) for part in torch.from_numpy(draw.permutation(len(x))).split(self.batch)]


class Central(Method):
    """All rows in one place, and the same virtual batches as the protocol."""

    def _round(self, draw: np.random.Generator) -> None:
        del draw
        counts = {node: (len(x),) for node, (x, _) in self.data.items()}
        for batch in plan(counts, self.batch, self.seed, self.rounds):
            x = torch.cat([self.data[visit.node][0][visit.rows] for visit in batch.visits])
            y = torch.cat([self.data[visit.node][1][visit.rows] for visit in batch.visits])
            self.theta = self.theta - self.lr * gradient(self.split, self.theta, x, y)


class Traversal(Method):
    """The protocol within a process."""

    tells = "error"

    def __init__(self, split: SplitModel, data: Data, lr: float, batch: int, seed: int) -> None:
        super().__init__(split, data, lr, batch, seed)
        self.orchestrator = Orchestrator(split, Local({node: Node(split, *rows) for node, rows in data.items()}), self.tells)
        self.orchestrator.census(list(data))
        self.traffic = self.orchestrator.traffic

    def _round(self, draw: np.random.Generator) -> None:
        del draw
        for batch in plan(self.orchestrator.counts, self.batch, self.seed, self.rounds):
            self.orchestrator.theta -= self.lr * self.orchestrator.propose(batch).pooled
            self.exchanges += 2
        self.theta = self.orchestrator.theta


class TraversalLabels(Traversal):
    """The protocol with labels, by which what is above the cut is not sent."""

    tells = "labels"


class FedSgd(Method):
    """Gradients of the whole model from each node, on the same virtual batches."""

    def _round(self, draw: np.random.Generator) -> None:
        del draw
        counts = {node: (len(x),) for node, (x, _) in self.data.items()}
        for batch in plan(counts, self.batch, self.seed, self.rounds):
            pooled = torch.zeros_like(self.theta)
            for visit in batch.visits:
                self.traffic.add(ForwardRequest(0, self.theta, visit.rows))
                x, y = (part[visit.rows] for part in self.data[visit.node])
                reply = ModelReply(gradient(self.split, self.theta, x, y), len(x))
                self.traffic.add(reply)
                pooled += reply.rows / batch.size * reply.theta
            self.theta = self.theta - self.lr * pooled
            self.exchanges += 1


class FedAvg(Method):
    """One pass over its rows at each node, then the average."""

    def _round(self, draw: np.random.Generator) -> None:
        models, sizes = [], []
        for node in self.data:
            theta = self.theta
            self.traffic.add(ModelRequest(theta))
            for x, y in self._batches(node, draw):
                theta = theta - self.lr * gradient(self.split, theta, x, y)
            self.traffic.add(ModelReply(theta, len(self.data[node][0])))
            models.append(theta)
            sizes.append(len(self.data[node][0]))
        weight = torch.tensor(sizes, dtype=self.theta.dtype)
        self.theta = weight / weight.sum() @ torch.stack(models)
        self.exchanges += 1


class SplitLearning(Method):
    """Nodes in turn; what is below the cut is handed on through the server."""

    def _round(self, draw: np.random.Generator) -> None:
        for node in draw.permutation(list(self.data)).tolist():
            self.traffic.add(ModelRequest(self.theta[self.split.below]))
            self._turn(node, draw)
            self.traffic.add(ModelReply(self.theta[self.split.below], len(self.data[node][0])))
            self.exchanges += 1

    def _turn(self, node: int, draw: np.random.Generator) -> None:
        for x, y in self._batches(node, draw):
            activations = self.split.activations(self.theta, x)
            self.traffic.add(ActivationsReply(activations, y))
            leaf = self.theta.detach().requires_grad_()
            inner = activations.detach().requires_grad_()
            loss = cross_entropy(self.split.head(leaf, inner), y)
            above, error = torch.autograd.grad(loss, (leaf, inner))
            self.traffic.add(CutErrorRequest(error))
            below = self.split.pull_below(self.theta, x, error)
            self.theta = self.theta - self.lr * self.split.joined(below, above[~self.split.below])
            self.exchanges += 1


class SplitFed(SplitLearning):
    """A copy below the cut for each node, averaged by rows after the round; the server's part goes from node to node."""

    def _round(self, draw: np.random.Generator) -> None:
        below, start = self.split.below, self.theta[self.split.below]
        copies, sizes = [], []
        for node in draw.permutation(list(self.data)).tolist():
            self.traffic.add(ModelRequest(start))
            self.theta = self.split.joined(start, self.theta[~below])
            self._turn(node, draw)
            self.traffic.add(ModelReply(self.theta[below], len(self.data[node][0])))
            copies.append(self.theta[below])
            sizes.append(len(self.data[node][0]))
        weight = torch.tensor(sizes, dtype=self.theta.dtype)
        self.theta = self.split.joined(weight / weight.sum() @ torch.stack(copies), self.theta[~below])
        self.exchanges += 1


METHODS: dict[str, type[Method]] = {
    "centralised": Central,
    "traversal": Traversal,
    "traversal, labels": TraversalLabels,
    "FedSGD": FedSgd,
    "FedAvg": FedAvg,
    "split learning": SplitLearning,
    "SplitFed": SplitFed,
}
"""All methods by name."""


def gradient(split: SplitModel, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Gradient of the mean cross-entropy, ``(P,)``, from the whole model by plain automatic differentiation."""
    leaf = theta.detach().requires_grad_()
    (found,) = torch.autograd.grad(cross_entropy(split.logits(leaf, x), y), leaf)
    return found


def shared_out(labels: Tensor, n_nodes: int, concentration: float | None, seed: int, least: int = 10) -> list[Tensor]:
    """Each node's rows: shuffled evenly, or each class by a Dirichlet distribution; drawn again until every node has ``least`` rows.

    References:
        Hsu et al. (2019), *Measuring the effects of non-identical data distribution for federated visual classification*.
    """
    draw = np.random.default_rng([seed, 0xD1])
    if concentration is None:
        return [torch.from_numpy(part.copy()) for part in np.array_split(draw.permutation(len(labels)), n_nodes)]
    for _ in range(1000):
        parts: list[list[int]] = [[] for _ in range(n_nodes)]
        for c in labels.unique().tolist():
            rows = draw.permutation((labels == c).nonzero()[:, 0].numpy())
            ends = (np.cumsum(draw.dirichlet([concentration] * n_nodes)) * len(rows)).round().astype(int)[:-1]
            for part, own in zip(parts, np.split(rows, ends), strict=True):
                part += own.tolist()
        if min(map(len, parts)) >= least:
            return [torch.tensor(sorted(part)) for part in parts]
    raise SystemExit(f"no split of {len(labels)} rows with {least} for each of {n_nodes} nodes in 1,000 draws: raise concentration")
