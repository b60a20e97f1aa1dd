"""Faithful group Shapley value: an agent's lots earn the same, however they are dealt out to names."""

from __future__ import annotations

from typing import ClassVar, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from ..arguments import checked_budget, checked_seed, is_whole
from ..estimators.kernelshap import KernelShap
from ..estimators.sampling import tensor
from ..games.game import MAX_ENUMERATED, CoalitionGame
from ..games.round import Need, Round
from ..rule import RULES, CreditRule, Family
from ..solutions.shapley import Shapley

Estimate = Literal["lots", "groups"]
"""How the value is estimated: as a sum over lots, or by the source's estimator of groups."""
MAX_VISITS = 1000
"""Most visits of each size: a budget beyond is not used."""


@RULES.register("faithful_group_shapley")
class FaithfulGroupShapley(CreditRule):
    r"""Pays each agent the sum of its admitted lots' Shapley values, estimated for each agent's lots as a group.

    .. math:: c_i = \sum_k \varphi_{ik}(w) = \frac{K}{n}\, w(N) + \sum_{s=1}^{n-1} T_i(s), \qquad
        T_i(s) = \frac{n}{s(n-s)} \, \mathrm{E}_{|S| = s} \Bigl[\bigl(|S \cap G_i| - \tfrac{sK}{n}\bigr) \, w(S)\Bigr]

    where w(S) is what the round would have gained with the admitted lots of S alone, φ is the Shapley value among all n lots, and
    :math:`G_i` are the K lots of agent i. The rule that pays groups as players is open to *shell companies*: an agent gains by registering
    its lots under several names. Here the names together earn what the agent would have earned. It is the only value of groups that is
    null-player, symmetric, linear and efficient among groups of lots, and does not depend on how other lots are grouped.

    Where the budget covers all sets of lots, the value is exact. It is then that of ``data_shapley``, whose estimate is another one. There
    are two estimates. ``"lots"``: the lots' Shapley values by ``kernelshap(by_size=True)``, added up. ``"groups"``: the source's. Below
    ``threshold`` lots, T(s) is a mean over sets with each possible number of own lots, weighted by the chance of that number. From there on
    the mean worth is taken to be linear in the number of own lots near its expectation, so that

    .. math:: T_i(s) \approx \frac{n}{n-1} \frac{K}{n} \Bigl(1 - \frac{K}{n}\Bigr) \,
        \frac{w(S^+) - w(S^-)}{|S^+ \cap G_i| - |S^- \cap G_i|}

    where :math:`S^+` and :math:`S^-` have one own lot more and one less than expected, and otherwise share as many lots as they can. On
    games in which many lots are needed together (sums of unanimity games, four lots an agent), ``"groups"`` has half the error of
    ``"lots"`` or less. Where the worth is smooth in the lots, as in rounds of learning, it has several times the error. Where lots interact
    by pairs alone, ``"lots"`` is exact.

    Costs at most ``budget`` evaluations, of sets of lots. Efficient: what an estimate lacks is shared equally by the agents that have an
    admitted lot. Not symmetric among agents, since agents that are interchangeable may have unlike lots. Not null-player among agents,
    since lots that undo each other are each paid for what they do.

    Known failure: the copy. It resists dealing lots out, not copying them: a copied lot is one lot more.

    Departures from the source: there, players are single rows, and the model is trained anew for each set. Here they are lots, and each
    set redoes the round's step. Lots that were not admitted are null players. All groups are estimated together, and each visits the same
    sizes, in a random order. Where the budget does not cover all sizes, those visited stand for all. That the estimates sum to w(N) is
    ours.

    Args:
        budget: Most sets of lots to value in a round; ``None`` is 100 an agent.
        seed: Seed of the draws, a whole number from 0. Every round draws new sets.
        estimate: ``"lots"`` or ``"groups"``, where the value is not exact.
        threshold: Least number of lots in a set from which on ``"groups"`` is linear, a whole number from 1.

    Raises:
        ValueError: If an argument is not allowed. At reset, if the budget is too small for the number of agents. In a round, if it is too
            small for the number of lots.

    References:
        Lee et al. (2025), *Faithful group Shapley value*, NeurIPS, arXiv 2505.19013. Their code: https://github.com/KiljaeL/Faithful_GSV.
    """

    family: ClassVar[Family] = "federated"
    source = "faithful group Shapley value (2025, NeurIPS, arXiv 2505.19013), players are lots"
    pays = "sum of the own lots' Shapley values, whatever names they are under"
    known_failure = "a copied lot is paid as one lot more"
    evaluations = "100 n"
    efficient = True
    needs: tuple[Need, ...] = ("lots",)

    def __init__(self, budget: int | None = None, seed: int = 0, estimate: Estimate = "lots", threshold: int = 5) -> None:
        self.budget = checked_budget(budget)
        self.seed = checked_seed(seed)
        if estimate not in get_args(Estimate):
            raise ValueError(f"estimate={estimate!r}: must be one of {', '.join(get_args(Estimate))}")
        self.estimate = estimate
        if not is_whole(threshold, 1):
            raise ValueError(f"threshold={threshold!r}: must be a whole number from 1")
        self.threshold = int(threshold)
        self.evaluations = "100 n" if budget is None else str(budget)

    def cost(self, n_players: int) -> int:
        """Most sets of lots that are valued in a round."""
        return 100 * n_players if self.budget is None else self.budget

    def check(self, n_players: int) -> None:
        """Refuse a cooperative for which the budget is too small.

        Raises:
            ValueError: If it is too small for agents of one lot each.
        """
        super().check(n_players)
        of_lots = min(KernelShap(by_size=True).least_budget(n_players), 2**n_players - 1)
        least = of_lots if self.estimate == "lots" else 1 + n_players * max(2, self.threshold)
        if self.cost(n_players) < least:
            raise ValueError(
                f"budget={self.budget} is too small for FaithfulGroupShapley with {n_players} agents and estimate={self.estimate!r}: pass "
                f"at least {least}"
            )

    def assign(self, round: Round) -> Tensor:
        """Credit of every agent for this round, ``(E, N)``, in the utility's unit.

        Raises:
            ValueError: If the budget is too small for the number of lots.
        """
        admitted = round.admitted
        game = round.lots.among(admitted)
        budget = self.cost(round.num_agents)
        if game.n_players <= MAX_ENUMERATED and 2**game.n_players <= budget:
            return torch.where(admitted, Shapley().divide(game).reshape(admitted.shape), 0.0).sum(dim=-1)
        if self.estimate == "lots":
            of_lots = KernelShap(budget, self.seed, by_size=True)
            of_lots.check(game.n_players)
            estimate = of_lots.at(game, round.episode, round.t).values.reshape(admitted.shape)
            estimate = torch.where(admitted, estimate, 0.0).sum(dim=-1)
        else:
            draws = np.random.default_rng((self.seed, round.episode, round.t))
            estimate = group_values(game, admitted.shape[2], budget, draws, self.threshold)
        there = admitted.any(dim=-1)
        estimate = torch.where(there, estimate, 0.0)
        lacking = (game.grand() - estimate.sum(dim=1)) / there.sum(dim=1).clamp(min=1)
        return torch.where(there, estimate + lacking[:, None], 0.0)


def group_values(game: CoalitionGame, group: int, budget: int, draws: np.random.Generator, threshold: int = 5) -> Tensor:
    """An estimate of the faithful group Shapley value of groups of equal size.

    Args:
        game: The game among lots. Players 0 … K − 1 are the first group, the next K the second, and so on.
        group: Number of players in a group, K.
        budget: Most coalitions to evaluate, at least 1 + (number of groups) · max(2, ``threshold``).
        draws: Where chance comes from.
        threshold: Least size from which on the estimate is linear.

    Returns:
        ``(n_envs, n_groups)``, in the game's unit.
    """
    n = game.n_players
    n_groups = n // group
    grand = game.grand()
    if n_groups == 1:
        return grand[:, None].clone()
    kinds = {s: _kinds(n, group, s, linear=s >= threshold) for s in range(1, n)}
    sizes, left = list[int](), budget - 1
    while True:
        for s in draws.permutation(np.arange(1, n)).tolist():
            if (left := left - n_groups * len(kinds[s])) < 0:
                break
            sizes.append(s)
        if left < 0 or len(sizes) >= MAX_VISITS * (n - 1):
            break
    times = np.bincount(sizes, minlength=n)
    own = np.array([count for s in sizes for count, _ in kinds[s]])  # (R,): own lots of each set that a group asks for
    size = np.array([s for s in sizes for _ in kinds[s]])
    visit = np.repeat(np.arange(len(sizes)), [len(kinds[s]) for s in sizes])
    weight = np.array([w / times[s] for s in sizes for _, w in kinds[s]]) * (n - 1) / (times > 0).sum()

    # a random order of everybody for each visit of each group; a set takes the first own lots, and the first others
    is_own = np.repeat(np.eye(n_groups, dtype=bool), group, axis=1)  # (G, n)
    order = draws.random((n_groups, len(sizes), n))
    rank_own = np.where(is_own[:, None], order, np.inf).argsort(axis=-1).argsort(axis=-1)  # (G, V, n)
    rank_other = np.where(is_own[:, None], np.inf, order).argsort(axis=-1).argsort(axis=-1)
    first_own, first_other = rank_own[:, visit] < own[:, None], rank_other[:, visit] < (size - own)[:, None]
    rows = np.where(is_own[:, None], first_own, first_other)  # (G, R, n)
    v = game.value(tensor(rows.reshape(-1, n))).double().unflatten(1, rows.shape[:2])  # (E, G, R)
    total: Tensor = v @ torch.from_numpy(weight).to(v.device) + group / n * grand.double()[:, None]
    return total.to(grand.dtype)


def _kinds(n: int, group: int, s: int, *, linear: bool) -> list[tuple[int, float]]:
    """For sets of ``s`` of ``n`` players: how many own ones the sets hold that T(s) is estimated from, and the weight of each."""
    least, most = max(0, group + s - n), min(group, s)
    expected = s * group / n
    if not linear:
        from scipy.stats import hypergeom  # slow to import

        counts = np.arange(least, most + 1)
        weights = hypergeom.pmf(counts, n, group, s) * (counts - expected) * n / (s * (n - s))
        return list(zip(counts.tolist(), weights.tolist(), strict=True))
    low, high = max(least, round(expected) - 1), min(most, round(expected) + 1)
    slope = group * (n - group) / (n * (n - 1)) / (high - low)
    return [(high, slope), (low, -slope)]
