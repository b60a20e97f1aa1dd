"""The Myerson value: the Shapley value where only agents that are connected in a graph can cooperate."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from math import comb
from operator import index
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from ..games.game import CoalitionGame
from ..rule import RULES, GameRule

MAX_CONNECTED = 2**16
GraphName = Literal["ring", "line", "star", "complete"]


@RULES.register("myerson")
class Myerson(GameRule):
    r"""Pays the Shapley value of the game in which a coalition is worth what its connected components are worth.

    .. math:: c = \phi(v^g), \qquad v^g(S) = \sum_{C \text{ component of } g[S]} v(C)

    Only connected coalitions C matter. Let ∂C be the neighbours of C, c = \|C\| and b = \|∂C\|. C is a component of S if S holds all of C
    and none of ∂C. So

    .. math:: c_i = \sum_{C \ni i} v(C) \frac{(c-1)!\, b!}{(c+b)!} - \sum_{C : i \in \partial C} v(C) \frac{c!\,(b-1)!}{(c+b)!}

    The first weight is the chance that i is the last of C to arrive, before all of ∂C. The second is the chance that i is the first of ∂C
    to arrive, after all of C. With the complete graph this is the Shapley value.

    Costs one evaluation for every connected coalition, at most 65,536: a ring has n(n − 1) + 1, a complete graph 2^n − 1. Efficient if the
    graph is connected. Linear. Not symmetric and not null-player, because position is paid; the complete graph keeps both.

    Known failure: position. An agent that adds nothing itself is paid for connecting others.

    Args:
        graph: Edges as pairs of players, numbered from 0. All players must occur; one without neighbours is written ``(i, i)``. Or a
            networkx graph of the players. Or ``"ring"``, ``"line"``, ``"star"`` (player 0 is the centre) or ``"complete"``, for any number
            of players.

    Raises:
        ValueError: If the graph's name is unknown, it has no players, or an edge is not a pair of whole numbers from 0. At reset, if the
            graph is of another number of agents, or has more than 65,536 connected coalitions.

    References:
        Myerson (1977), *Graphs and cooperation in games*, Mathematics of Operations Research 2(3).
    """

    source = "Myerson 1977"
    pays = "Shapley value when only connected agents cooperate"
    known_failure = "position is paid: who connects others, but adds nothing, earns"
    evaluations = "connected coalitions"

    def __init__(self, graph: GraphName | Iterable[Iterable[int]] | Any = "ring") -> None:
        if isinstance(graph, str):
            if graph not in get_args(GraphName):
                raise ValueError(f"graph={graph!r}: as a name, must be one of {', '.join(get_args(GraphName))}")
            self.graph: str | list[tuple[int, int]] = graph
        else:
            edges = getattr(graph, "edges", graph)
            if not isinstance(edges, Iterable):
                raise ValueError(f"graph={graph!r}: must be edges, as pairs of players, or one of {', '.join(get_args(GraphName))}")
            loops = ((i, i) for i in getattr(graph, "nodes", ()))
            self.graph = [_edge(pair) for pair in (*loops, *edges)]
            if not self.graph:
                raise ValueError("graph names no players: name one without neighbours as (i, i)")
        around = [] if isinstance(self.graph, str) else self.neighbours(self._n_named)
        groups = _components(around)
        complete = all(around[i] | 1 << i == group for group in groups for i in _bits(group))
        self.efficient = len(groups) <= 1  # graphs with a name are connected
        self.symmetric = self.graph == "complete" or (len(groups) == 1 and complete)
        self.null_player = self.graph == "complete" or (len(groups) > 0 and complete)
        self._connected: dict[int, tuple[Tensor, Tensor]] = {}

    @property
    def tied_to_places(self) -> str:
        """A graph of agents by their place."""
        return "" if self.graph == "complete" else "graph connects agents by their place, and other agents take the places in every round"

    def neighbours(self, n_players: int) -> list[int]:
        """The neighbours of each player, as bits.

        Raises:
            ValueError: If the graph is of another number of players, or has too many connected coalitions.
        """
        n = n_players
        if isinstance(self.graph, str):
            if (count := _n_connected(self.graph, n)) > MAX_CONNECTED:
                raise _too_many(n, f"{count:,}" if n <= 64 else f"more than {MAX_CONNECTED:,}")
            named: dict[str, Iterable[tuple[int, int]]] = {
                "ring": ((i, (i + 1) % n) for i in range(n)),
                "line": ((i, i + 1) for i in range(n - 1)),
                "star": ((0, i) for i in range(1, n)),
                "complete": ((i, j) for i in range(n) for j in range(i)),
            }
            edges = list(named[self.graph])
        else:
            edges = self.graph
            if n != self._n_named:
                raise ValueError(f"graph is of {self._n_named} players, but there are {n}: pass a graph of all of them")
        bits = [0] * n
        for i, j in edges:
            if i != j:
                bits[i] |= 1 << j
                bits[j] |= 1 << i
        return bits

    def cost(self, n_players: int) -> int:
        """Number of connected coalitions."""
        return len(self._coalitions(n_players)[0])

    def check(self, n_players: int) -> None:
        """Refuse a number of players that is not the graph's, or a graph with too many connected coalitions.

        Raises:
            ValueError: If the graph is of another number of players, or more than 65,536 coalitions are connected.
        """
        super().check(n_players)
        self._coalitions(n_players)

    def divide(self, game: CoalitionGame) -> Tensor:
        """The Myerson value of every player, ``(n_envs, n_players)``."""
        rows, weights = self._coalitions(game.n_players)
        v = game.value(rows)
        return v @ weights.to(v)

    @property
    def _n_named(self) -> int:
        """Number of players among whom the edges are."""
        return max(max(edge) for edge in self.graph if not isinstance(edge, str)) + 1

    def _coalitions(self, n: int) -> tuple[Tensor, Tensor]:
        """All connected coalitions, bool ``(m, n)``, and their weight in each player's value, double ``(m, n)``."""
        if n not in self._connected:
            around = self.neighbours(n)
            connected: dict[int, int] = {}  # coalition -> its neighbours
            grown = {1 << i: around[i] for i in range(n)}
            while grown:
                connected |= grown
                if len(connected) > MAX_CONNECTED:
                    raise _too_many(n, f"more than {MAX_CONNECTED:,}")
                larger: dict[int, int] = {}
                for coalition, boundary in grown.items():
                    for i in _bits(boundary):
                        joined = coalition | 1 << i
                        if joined not in larger:
                            larger[joined] = (boundary | around[i]) & ~joined
                grown = larger
            self._connected[n] = _weights(n, connected)
        return self._connected[n]


def _weights(n: int, connected: dict[int, int]) -> tuple[Tensor, Tensor]:
    inside, boundary = _rows(connected.keys(), n), _rows(connected.values(), n)  # (m, n)
    sizes = list(zip(inside.sum(dim=1).tolist(), boundary.sum(dim=1).tolist(), strict=True))
    # (c−1)! b! / (c+b)! = 1 / (c C(c+b, c)); c! (b−1)! / (c+b)! = 1 / (b C(c+b, c))
    joins = torch.tensor([1 / (c * comb(c + b, c)) for c, b in sizes], dtype=torch.float64)
    stays = torch.tensor([1 / (b * comb(c + b, c)) if b else 0.0 for c, b in sizes], dtype=torch.float64)
    return inside, inside * joins[:, None] - boundary * stays[:, None]


def _n_connected(graph: str, n: int) -> int:
    """Number of connected coalitions of a named graph."""
    if graph == "line":
        return n * (n + 1) // 2
    if graph == "ring":
        return n * (n - 1) + 1 if n > 2 else (1 << n) - 1
    return (1 << n - 1) + n - 1 if graph == "star" else (1 << n) - 1


def _too_many(n: int, count: str) -> ValueError:
    return ValueError(
        f"the graph of {n} players has {count} connected coalitions, at most {MAX_CONNECTED:,} are evaluated: use a sparser graph, or "
        f"credit='shapley(budget={20 * n})'"
    )


def _components(around: list[int]) -> list[int]:
    """The connected components of a graph, given everybody's neighbours, as bits."""
    groups: list[int] = []
    left = 2 ** len(around) - 1
    while left:
        reached, grown = 0, left & -left
        while grown != reached:
            reached = grown
            for i in _bits(reached):
                grown |= around[i]
        groups.append(reached)
        left &= ~reached
    return groups


def _edge(pair: Iterable[int]) -> tuple[int, int]:
    try:
        i, j = (index(end) for end in pair)
    except (TypeError, ValueError):
        i = j = -1
    if min(i, j) < 0:
        raise ValueError(f"graph has the edge {pair!r}: an edge is a pair of players, whole numbers from 0")
    return i, j


def _rows(codes: Collection[int], n: int) -> Tensor:
    """The players of each code, bool ``(m, n)``."""
    size = (n + 7) // 8
    packed = np.frombuffer(b"".join(code.to_bytes(size, "little") for code in codes), dtype=np.uint8).reshape(-1, size)
    return torch.from_numpy(np.unpackbits(packed, axis=1, count=n, bitorder="little")).bool()


def _bits(code: int) -> Iterator[int]:
    while code:
        lowest = code & -code
        yield lowest.bit_length() - 1
        code ^= lowest
