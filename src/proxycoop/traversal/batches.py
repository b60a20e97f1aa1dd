"""Virtual batches over the nodes' index ranges, and the order in which nodes are visited.

The orchestrator knows how many rows each lot of each node has, and nothing else. It draws batches of indices over all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Visit:
    """What one node does for a virtual batch.

    Attributes:
        node: The node's id.
        rows: Indices of its own rows, int64 ``(b_i,)``, ascending. Index 0 is the first row of its first lot.
    """

    node: int
    rows: Tensor


@dataclass(frozen=True)
class VirtualBatch:
    """A batch of rows that nobody holds together: the visits, in order."""

    visits: tuple[Visit, ...]

    @property
    def size(self) -> int:
        """Rows of the batch, b."""
        return sum(len(visit.rows) for visit in self.visits)


def checked_counts(counts: Mapping[int, Sequence[int]]) -> dict[int, tuple[int, ...]]:
    """The rows of each node's lots, by node.

    Raises:
        ValueError: If there are no nodes, a node has no lots, a number is not an integer or negative, or nobody has rows.
    """
    known = {}
    for node, lots in counts.items():
        own = tuple(lots)
        if not own or not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in own):
            raise ValueError(f"counts of node {node} are {own}: must be the rows of each of its lots, integers from 0 on")
        known[node] = own
    if not sum(map(sum, known.values())):
        raise ValueError("counts: the nodes have no rows")
    return known


def told_counts(counts: Tensor) -> list[int]:
    """The rows of each lot as a node told them.

    Raises:
        ValueError: If they are not int64 ``(K,)``, from 0 on.
    """
    if counts.dtype != torch.int64 or counts.dim() != 1 or not len(counts) or bool((counts < 0).any()):
        raise ValueError(f"counts are {counts.dtype} {tuple(counts.shape)}: must be int64 (lots,), from 0 on")
    return [int(n) for n in counts]


def plan(counts: Mapping[int, Sequence[int]], batch: int | None, seed: int, epoch: int = 0) -> list[VirtualBatch]:
    """The virtual batches of an epoch: a random permutation of all rows, cut into pieces.

    Each row is in one batch. The last batch may be smaller. Within a batch each node is visited once, in an order that is drawn too. The
    result depends on the arguments only. The authors' code draws one plan for all epochs, and visits nodes in the order of their ids.

    Args:
        counts: Rows of each node's lots, by node.
        batch: Rows of a batch; all rows by default.
        seed: Seed of the draw.
        epoch: Number of the epoch. Each has another permutation.

    Raises:
        ValueError: If the counts are not valid, or the batch, the seed or the epoch is out of range.
    """
    known = checked_counts(counts)
    if batch is not None and batch < 1:
        raise ValueError(f"batch={batch}: must be at least 1 row, or None for all rows")
    if not 0 <= seed < 2**31 or not 0 <= epoch < 2**31:
        raise ValueError(f"seed={seed}, epoch={epoch}: both must be from 0 to 2³¹ − 1")
    nodes = sorted(known)
    sizes = torch.tensor([sum(known[node]) for node in nodes])
    first = sizes.cumsum(0) - sizes
    draw = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch])))
    order = torch.from_numpy(draw.permutation(int(sizes.sum())))
    batches = []
    for part in order.split(len(order) if batch is None else batch):
        visits = []
        for place in draw.permutation(len(nodes)).tolist():
            low, high = int(first[place]), int(first[place] + sizes[place])
            rows = part[(part >= low) & (part < high)].sort().values - low
            if len(rows):
                visits.append(Visit(nodes[place], rows))
        batches.append(VirtualBatch(tuple(visits)))
    return batches


def from_mask(chosen: Mapping[int, Tensor], counts: Mapping[int, Sequence[int]]) -> VirtualBatch:
    """The virtual batch that a mask chose, nodes in the mask's order.

    Args:
        chosen: For each node which rows of which lot are in the batch, bool ``(K, R)``. Where a smaller lot is padded, it is False.
        counts: Rows of each node's lots.

    Raises:
        ValueError: If a mask does not fit its node's lots.
    """
    visits = []
    for node, mask in chosen.items():
        lots = counts[node]
        if mask.dim() != 2 or len(mask) != len(lots) or any(bool(mask[k, n:].any()) for k, n in enumerate(lots)):
            raise ValueError(f"chosen[{node}] has shape {tuple(mask.shape)}: must be (lots, rows), True only for rows of its lots {lots}")
        rows = torch.cat([mask[k, :n] for k, n in enumerate(lots)]).nonzero()[:, 0]
        if len(rows):
            visits.append(Visit(node, rows))
    return VirtualBatch(tuple(visits))


def check_batch(batch: VirtualBatch, counts: Mapping[int, Sequence[int]]) -> None:
    """Check that a batch fits the nodes.

    Raises:
        ValueError: If it visits nobody, a node twice or one that is not there, or asks for rows that a node does not have.
    """
    nodes = [visit.node for visit in batch.visits]
    if not nodes or len(set(nodes)) < len(nodes):
        raise ValueError(f"batch visits nodes {nodes}: must be at least one, each once")
    for visit in batch.visits:
        if visit.node not in counts:
            known = ", ".join(map(str, counts)) or "none: call census first"
            raise ValueError(f"batch visits node {visit.node}: the census has {known}")
        n = sum(counts[visit.node])
        if not len(visit.rows) or int(visit.rows.min()) < 0 or int(visit.rows.max()) >= n or bool((visit.rows.diff() <= 0).any()):
            raise ValueError(f"batch asks node {visit.node} for rows that are not ascending from 0 to {n - 1}, at least one")


def lots_of(rows: Tensor, counts: Sequence[int]) -> Tensor:
    """The lot of each of a node's rows, int64 ``(b_i,)``."""
    ends = torch.tensor(list(counts)).cumsum(0)
    return torch.searchsorted(ends, rows, right=True)
