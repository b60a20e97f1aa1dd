"""Who is presumed to be one principal: clusters of names, by their updates or by evidence, and how often that is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from operator import index

import torch
from torch import Tensor


def similar(updates: Tensor, similarity: float) -> Tensor:
    r"""Clusters of agents whose updates point the same way.

    Agents i and j are linked where :math:`\cos(\Delta_i, \Delta_j) \ge` ``similarity``. The clusters are the connected components of this
    graph. An agent whose update is zero, or is not finite, is linked to nobody.

    Args:
        updates: Each agent's update, ``(E, N, P)``.
        similarity: Least cosine of a link, from −1 to 1.

    Returns:
        int64 ``(E, N)``: the label of each agent's cluster, which is the least index of its members.
    """
    length = updates.double().norm(dim=-1, keepdim=True)
    there = (length > 0) & length.isfinite()  # (E, N, 1)
    unit = torch.where(there, updates.double() / torch.where(there, length, 1.0), 0.0)
    linked = unit @ unit.transpose(1, 2) >= similarity - 1e-12  # copies have a cosine of 1 but for rounding
    return components(linked & there & there.transpose(1, 2))


def components(linked: Tensor) -> Tensor:
    """The connected components of graphs.

    Args:
        linked: Which vertices are linked, bool ``(E, C, C)``, in either direction. Each is linked to itself, whatever is said.

    Returns:
        int64 ``(E, C)``: the least index of each vertex's component.
    """
    n = linked.shape[-1]
    linked = linked | linked.transpose(1, 2) | torch.eye(n, dtype=torch.bool, device=linked.device)
    label = torch.arange(n, device=linked.device).expand(len(linked), -1)
    for _ in range(n):
        least = torch.where(linked, label[:, None], n).amin(dim=2)
        least = least.gather(1, least)  # a label is a vertex: take that one's label
        if torch.equal(least, label):
            break
        label = least
    return label.clone()


def labels_of(clusters: Sequence[Sequence[int]]) -> Tensor:
    """Labels from clusters that are known from elsewhere.

    Args:
        clusters: Lists of agents, each agent from 0 on in exactly one.

    Returns:
        int64 ``(N,)``: the least index of each agent's cluster.

    Raises:
        ValueError: If a cluster is empty, or an agent is in none or in several.
    """
    try:
        lists = [[index(agent) for agent in cluster] for cluster in clusters]
    except TypeError:
        raise ValueError(f"by={clusters!r}: must be 'updates', or clusters as lists of agents, such as [[0, 3], [1], [2]]") from None
    agents = [agent for cluster in lists for agent in cluster]
    if not all(lists) or not agents or sorted(agents) != list(range(len(agents))):
        raise ValueError(f"by={lists}: every agent from 0 on must be in exactly one cluster, and no cluster may be empty")
    labels = torch.empty(len(agents), dtype=torch.int64)
    for cluster in lists:
        labels[cluster] = min(cluster)
    return labels


def false_merge_rate(labels: Tensor, principals: Tensor) -> Tensor:
    """How often names of different principals are taken for one.

    Args:
        labels: The cluster of each name, int64 ``(E, N)``.
        principals: Whose name it is, int64 ``(E, N)`` or ``(N,)``.

    Returns:
        ``(E,)``, double: of the pairs of names of different principals, the share in one cluster; 0 where there is no such pair.

    Raises:
        ValueError: If the shapes do not fit.
    """
    together, one = _pairs(labels, principals)
    return _share(together, ~one)


def false_split_rate(labels: Tensor, principals: Tensor) -> Tensor:
    """How often names of one principal are taken for several.

    Args:
        labels: The cluster of each name, int64 ``(E, N)``.
        principals: Whose name it is, int64 ``(E, N)`` or ``(N,)``.

    Returns:
        ``(E,)``, double: of the pairs of names of one principal, the share in different clusters; 0 where there is no such pair.

    Raises:
        ValueError: If the shapes do not fit.
    """
    together, one = _pairs(labels, principals)
    return _share(~together, one)


def _pairs(labels: Tensor, principals: Tensor) -> tuple[Tensor, Tensor]:
    """Which pairs i < j are in one cluster, and which are of one principal, bool ``(E, pairs)`` each."""
    if labels.dim() != 2 or tuple(principals.shape) not in (tuple(labels.shape), tuple(labels.shape[1:])):
        raise ValueError(
            f"labels must be of shape (E, N) and principals (E, N) or (N,), got {tuple(labels.shape)} and {tuple(principals.shape)}"
        )
    i, j = torch.triu_indices(labels.shape[1], labels.shape[1], offset=1, device=labels.device)
    principals = principals.to(labels.device).expand_as(labels)
    return labels[:, i] == labels[:, j], principals[:, i] == principals[:, j]


def _share(wrong: Tensor, among: Tensor) -> Tensor:
    return (wrong & among).sum(dim=1).double() / among.sum(dim=1).clamp(min=1)
