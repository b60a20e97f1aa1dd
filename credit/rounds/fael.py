"""Fair yet asymptotically equal: measure contributions first, then let the better agents share more often."""

from __future__ import annotations

from math import ceil
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import fdtrc
from torch import Tensor

from ..arguments import checked_seed, is_number, is_whole
from ..games.round import Round
from ..rule import RULES, CreditRule, Family


@RULES.register("fael")
class FairYetEqual(CreditRule):
    r"""Pays all agents alike while contributions are measured; later it pays a few that are drawn, the better the more often.

    .. math:: \psi_i^t = \frac{1}{n} \sum_{k=0}^{n-1} \bigl[\cos(G_{S_k \cup i}, G_N) - \cos(G_{S_k}, G_N)\bigr], \qquad
        G_S = \sum_{j \in S} u_j

    where S_k is a random set of k others, and u_j is agent j's part in the step. There is one S_k for each i and k, drawn anew each round.
    A sum of updates that is zero has the cosine 0.

    Explore: :math:`c_i = v(N)/n`, and ψ_i is the mean of the rounds so far. After each round the last ``window`` rounds are cut in two
    halves. Hotelling's two-sample T² tests whether the mean of ψ is the same in both. A p-value of at least ``level`` counts as stable.
    From the next round on that environment exploits, with the ψ that it has.

    Exploit: :math:`\lceil \text{nodes} \cdot n \rceil` agents are drawn without replacement, one after another, with
    :math:`p_i \propto \exp(\beta(\psi_i - \max_j \psi_j))`. They share v(N) alike, and the others get nothing.

    Directions in which ψ does not vary (except by rounding) are left out of the test. If the halves differ in such a direction, ψ has moved
    for certain, and the p-value is 0.

    Costs one evaluation, and takes at most ``window`` − 2 agents, since the test needs more rounds than that. Efficient. Symmetric while it
    explores, but not when it draws. Not null-player, because exploration pays everybody.

    Known failure: it decides once. A short window misses slow drifts. Once the test finds no drift, nothing is measured for the rest of the
    episode, so an agent that improves later is drawn by what it once was. Until then all are paid alike, so free riding pays.

    Departures from the source:

    - In the paper the drawn agents receive the current model, and only they send updates. Here they are paid, and everybody takes part.
    - The authors' code tests on the ψ of ten agents. It compares the mean of all rounds with that of all but the last τ = 15, as if the
      latter were a known number, at levels of 0.7 and 0.95. Here the two samples have no round in common, which is what the test assumes.
    - The authors' code draws ⌊0.4 n⌋ agents, which is nobody if n = 2. Here the number is rounded up.
    - The authors' code multiplies updates by their weights a second time in G. Here they are weighted once.

    Args:
        window: Rounds that the test looks at, at least 4. In an episode of no more rounds than that nobody is ever drawn.
        level: p-value from which ψ counts as stable, from 0 (stable as soon as there are enough rounds) to 1.
        nodes: Share of the agents that are drawn in a round, above 0 and at most 1.
        beta: β, at least 0. With 0 all agents are drawn with the same chance; with large values the same ones are drawn each time.
        seed: Seed of the draws, a whole number from 0.

    Raises:
        ValueError: If an argument is not a number in its range. At reset, if there are more than ``window`` − 2 agents.

    References:
        Lin, Xu, Ng, Foo & Low (2023), *Fair yet asymptotically equal collaborative learning*, ICML, arXiv 2306.05764.
    """

    family: ClassVar[Family] = "gradient"
    source = "Lin et al. 2023 (ICML)"
    pays = "v(N) / n until contributions are known, then a lottery among the better"
    known_failure = "free riding is paid until it decides, and it decides once"
    evaluations = "1"
    efficient = True

    def __init__(self, window: int = 15, level: float = 0.05, nodes: float = 0.4, beta: float = 150.0, seed: int = 0) -> None:
        if not is_whole(window, 4):
            raise ValueError(f"window={window!r}: must be a whole number of rounds, at least 4")
        if not is_number(level) or not 0 <= level <= 1:
            raise ValueError(f"level={level!r}: must be a number from 0 to 1")
        if not is_number(nodes) or not 0 < nodes <= 1:
            raise ValueError(f"nodes={nodes!r}: must be a number above 0, at most 1")
        if not is_number(beta) or beta < 0:
            raise ValueError(f"beta={beta!r}: must be a number from 0")
        self.window = int(window)
        self.level = level
        self.nodes = nodes
        self.beta = beta
        self.seed = checked_seed(seed)
        self.max_players = window - 2
        self._past: list[Tensor] = []  # ψ of the last rounds, double (E, N) each
        self._sum: Tensor | None = None  # of ψ over the rounds of exploration, double (E, N)
        self._n_explored: Tensor | None = None  # their number, (E, 1)
        self._exploits: Tensor | None = None  # bool (E, 1)

    def cost(self, n_players: int) -> int:
        """One evaluation, v(N)."""
        del n_players
        return 1

    def check(self, n_players: int) -> None:
        """Refuse more agents than the test can serve.

        Raises:
            ValueError: If there are more; the message says how many rounds the test needs.
        """
        if n_players > self.window - 2:
            raise ValueError(
                f"FairYetEqual takes at most {self.window - 2} agents, got {n_players}, with window={self.window}: Hotelling's test needs "
                f"two rounds more than there are agents, so use credit='fael(window={n_players + 2})'"
            )

    def reset(self, num_envs: int, num_agents: int) -> None:
        """Begin episodes, in which nothing is known of any agent."""
        super().reset(num_envs, num_agents)
        self._past, self._sum, self._n_explored, self._exploits = [], None, None, None

    def assign(self, round: Round) -> Tensor:
        """Credit of every agent for this round, ``(E, N)``, in the utility's unit."""
        n, gain = round.num_agents, round.gain
        generator = np.random.default_rng((self.seed, round.episode, round.t))
        luck = torch.from_numpy(generator.gumbel(size=n))  # drawn first, so that it does not depend on who still explores
        if self._sum is None or self._n_explored is None or self._exploits is None:
            self._sum = torch.zeros(round.num_envs, n, dtype=torch.float64, device=gain.device)
            self._n_explored = self._sum[:, :1].clone()
            self._exploits = torch.zeros_like(self._n_explored, dtype=torch.bool)
        exploits = self._exploits
        share = torch.where(exploits, self._drawn(luck.to(self._sum)), 1 / n)
        if not exploits.all():
            psi = contributions(round.updates, generator)
            self._past = [*self._past, psi][-self.window :]
            self._sum = torch.where(exploits, self._sum, self._sum + psi)
            self._n_explored = self._n_explored + ~exploits
            if len(self._past) == self.window:
                self._exploits = exploits | (p_value_of_no_drift(torch.stack(self._past, dim=1)) >= self.level)[:, None]
        return gain[:, None] * share.to(gain.dtype)

    def _drawn(self, luck: Tensor) -> Tensor:
        """Shares of the gain, ``(E, N)``. Agents are drawn with chances by ψ; those drawn have equal shares, the others none."""
        assert self._sum is not None
        assert self._n_explored is not None
        psi = self._sum / self._n_explored.clamp(min=1)
        n_drawn = max(1, ceil(self.nodes * psi.shape[1] - 1e-9))  # 0.1 · 30 is a little more than 3 in floating point
        # the agents with the largest log-chance plus Gumbel noise are a draw without replacement
        drawn = (self.beta * (psi - psi.amax(dim=1, keepdim=True)) + luck).topk(n_drawn, dim=1).indices
        return torch.zeros_like(psi).scatter(1, drawn, 1 / n_drawn)


def contributions(updates: Tensor, generator: np.random.Generator) -> Tensor:
    """ψ of every agent, double ``(E, N)``, from everybody's part in the step, ``(E, N, P)``; all environments share the sets S_k."""
    n = updates.shape[1]
    updates = updates.double()
    gram = updates @ updates.transpose(1, 2)  # (E, N, N): all cosines follow from it
    with_all = gram.sum(dim=2)  # ⟨u_i, G_N⟩
    length_of_all = with_all.sum(dim=1).clamp(min=0).sqrt()  # ‖G_N‖
    squared = gram.diagonal(dim1=1, dim2=2)  # ‖u_i‖²
    squares = squared.sum(dim=1)

    def cosine(product: Tensor, square: Tensor, parts: Tensor) -> Tensor:
        """From ⟨G_S, G_N⟩, ‖G_S‖² and Σ_{j∈S} ‖u_j‖², ``(E, n)`` each; 0 where updates cancel, since what is left is rounding."""
        there = (square > 1e-12 * parts) & (length_of_all.square() > 1e-12 * squares)[:, None]
        return torch.where(there, product / torch.where(there, square.clamp(min=0).sqrt() * length_of_all[:, None], 1.0), 0.0)

    psi = []
    for i in range(n):
        others = _sets_of_others(n, i, generator).to(gram)  # (n, N): S_0, S_1, …, S_{n−1}
        product, parts = with_all @ others.T, squared @ others.T  # (E, n)
        beside = others @ gram  # (E, n, N): ⟨G_S, u_j⟩
        square = (beside * others).sum(dim=2)
        without = cosine(product, square, parts)
        joined = square + 2 * beside[:, :, i] + squared[:, i : i + 1]
        with_i = cosine(product + with_all[:, i : i + 1], joined, parts + squared[:, i : i + 1])
        psi.append((with_i - without).mean(dim=1))
    return torch.stack(psi, dim=1)


def _sets_of_others(n: int, i: int, generator: np.random.Generator) -> Tensor:
    """A random set of each size 0 … n − 1 among all but i, bool ``(n, n)``."""
    place = generator.random((n, n))
    place[:, i] = 2.0  # comes last
    return torch.from_numpy(_ranks(place) < np.arange(n)[:, None])


def _ranks(numbers: NDArray[np.float64]) -> NDArray[np.intp]:
    return np.argsort(np.argsort(numbers, axis=1), axis=1)


def p_value_of_no_drift(psi: Tensor) -> Tensor:
    r"""Hotelling's two-sample test of the first half of some rounds against the second.

    .. math:: T^2 = \frac{a b}{a + b}\, d^\top \Sigma^{+} d, \qquad \frac{a + b - r - 1}{r (a + b - 2)} T^2 \sim F_{r,\, a + b - r - 1}

    for the difference d of the means of a and b rounds, and the pseudo-inverse of their pooled covariance Σ, of rank r.

    Args:
        psi: double ``(E, a + b, N)``, with more than N + 1 rounds. The first half is the shorter one if their number is odd.

    Returns:
        Probability ``(E,)`` of a difference as large as that by chance; 0 where the halves differ in a direction in which nothing varies.
    """
    n_rounds = psi.shape[1]
    a = n_rounds // 2
    first, second = psi[:, :a], psi[:, a:]
    difference = second.mean(dim=1) - first.mean(dim=1)  # (E, N)
    centred = torch.cat([half - half.mean(dim=1, keepdim=True) for half in (first, second)], dim=1)
    pooled = centred.transpose(1, 2) @ centred / (n_rounds - 2)  # (E, N, N)
    variance, axes = torch.linalg.eigh(pooled)
    negligible = (1e-10 * variance.amax(dim=1, keepdim=True)).clamp(min=1e-20)  # ψ is of the order of 1, and rounded at 1e-16
    varies = variance > negligible  # (E, N)
    along = (difference[:, None] @ axes)[:, 0].square()  # squared parts of d along the axes
    statistic = a * (n_rounds - a) / n_rounds * torch.where(varies, along / torch.where(varies, variance, 1.0), 0.0).sum(dim=1)
    rank = varies.sum(dim=1)
    freedom = n_rounds - rank - 1
    ratio = statistic * freedom / (rank.clamp(min=1) * (n_rounds - 2))
    tail = fdtrc(rank.clamp(min=1).cpu().numpy(), freedom.cpu().numpy(), ratio.cpu().numpy())
    p_value = torch.from_numpy(np.asarray(tail)).to(psi)  # 1 where nothing varies, since T² is 0 there
    moved = ((along * ~varies) > 100 * negligible).any(dim=1)  # by ten times the largest spread that is ignored
    return torch.where(moved, 0.0, p_value)
