"""Peer ranking: agents score each other's updates on their own data, and stakes decide whose score counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from ..arguments import is_number
from ..games.round import Need, Round
from ..rule import RULES, CreditRule, Family
from .shares import by_shares, proportions


def peer_incentives(weights: Tensor, stakes: Tensor, *, rho: float = 10.0, kappa: float = 0.5) -> tuple[Tensor, Tensor, Tensor]:
    r"""BitTensor's ranking of peers by peers.

    .. math:: R = W^\top S, \qquad C = \sigma\bigl(\rho\,(T^\top S - \kappa)\bigr),\ T_{ji} = 1[W_{ji} > 0], \qquad I = R \circ C

    Args:
        weights: W, ``(..., N, N)``: what j gives i at ``[..., j, i]``, non-negative. Rows sum to one, or to zero for a peer that ranks
            nobody.
        stakes: S, ``(..., N)``, non-negative, summing to one.
        rho: ρ, how sharp the consensus is, positive.
        kappa: κ, the stake that must trust a peer for it to count, from 0 to 1.

    Returns:
        Rank R, consensus C and incentive I, ``(..., N)`` each.

    References:
        Rao et al. (2020), *BitTensor: a peer-to-peer intelligence market*, arXiv 2003.03917.
    """
    rank = (stakes[..., None, :] @ weights)[..., 0, :]
    trust = (stakes[..., None, :] @ (weights > 0).to(stakes.dtype))[..., 0, :]
    consensus = (rho * (trust - kappa)).sigmoid()
    return rank, consensus, rank * consensus


def next_stakes(stakes: Tensor, incentive: Tensor, *, tau: float = 0.1) -> Tensor:
    r"""Stakes after a round, :math:`(S + \tau I / \sum_j I_j) / (1 + \tau)`; unchanged where nobody has an incentive.

    Args:
        stakes: S, ``(..., N)``, summing to one.
        incentive: I, ``(..., N)``, from :func:`peer_incentives`.
        tau: τ, the stake that is handed out, relative to all there is.
    """
    grown = (stakes + tau * proportions(incentive, 0.0)) / (1 + tau)
    return torch.where(incentive.sum(dim=-1, keepdim=True) > 0, grown, stakes)


@RULES.register("peer_ranking")
class PeerRanking(CreditRule):
    r"""Pays parts of the round's gain to agents that others trust: each agent ranks the others' updates on its own data.

    .. math:: c_i = \max(v(N), 0) \, \frac{I_i}{\sum_j I_j} + \frac{\min(v(N), 0)}{n}, \qquad
        I = (W^\top S) \circ \sigma\bigl(\rho\,(T^\top S - \kappa)\bigr), \qquad
        W_{ji} \propto \max\bigl(0, \ell_j(\theta) - \ell_j(\theta + \Delta_i)\bigr)

    where ℓ_j is the mean loss on agent j's own data. W's rows sum to one and its diagonal is zero, and T_ji = 1 where W_ji > 0. Stakes S
    start as given and grow by what was earned, :math:`S \leftarrow (S + \tau I / \sum_j I_j) / (1 + \tau)`. Where nobody is ranked, gains
    are shared equally. Losses always are, since distrust does not prove harm.

    Costs one evaluation. Efficient. Not symmetric, because equal work is judged on unequal data. Not null-player, because losses are
    shared.

    Known failures: a majority of stake can pay itself. And agents whose own data are wrong praise updates that are wrong in the same way.

    Departures from the source: its scores are Fisher information, and its incentive is newly issued stake. Here the scores are measured
    gains, and the incentive divides what the round gained.

    Args:
        stakes: S at the start of an episode, one number an agent, non-negative, summing to 1. ``None`` gives all agents the same.
        tau: τ, at least 0: stake that is handed out in a round, relative to all there is.
        rho: ρ, how sharp the consensus is, positive.
        kappa: κ, the stake that must trust an agent for it to count, from 0 to 1.

    Raises:
        ValueError: If an argument is not a number in its range, or ``stakes`` do not sum to 1. At reset, if there is not one stake for each
            agent.

    References:
        Rao et al. (2020), *BitTensor: a peer-to-peer intelligence market*, arXiv 2003.03917.
    """

    family: ClassVar[Family] = "peer"
    source = "BitTensor (arXiv 2003.03917)"
    pays = "v(N) by trust: peers rank updates on their own data, weighted by stake"
    known_failure = "a majority of stake pays itself"
    evaluations = "1"
    efficient = True
    needs: tuple[Need, ...] = ("peer_gains",)

    def __init__(self, stakes: Sequence[float] | Tensor | None = None, tau: float = 0.1, rho: float = 10.0, kappa: float = 0.5) -> None:
        self.stakes = None if stakes is None else _checked_stakes(stakes)
        if not is_number(tau) or tau < 0:
            raise ValueError(f"tau={tau!r}: must be a number of at least 0")
        if not is_number(rho) or rho <= 0:
            raise ValueError(f"rho={rho!r}: must be a positive number")
        if not is_number(kappa) or not 0 <= kappa <= 1:
            raise ValueError(f"kappa={kappa!r}: must be a number from 0 to 1")
        self.tau = tau
        self.rho = rho
        self.kappa = kappa
        self._stakes: Tensor | None = None  # (E, N)

    def cost(self, n_players: int) -> int:
        """One evaluation, v(N)."""
        del n_players
        return 1

    def check(self, n_players: int) -> None:
        """Refuse a number of agents that is not the number of stakes.

        Raises:
            ValueError: If stakes were given, and there is not one for each agent.
        """
        super().check(n_players)
        if self.stakes is not None and len(self.stakes) != n_players:
            raise ValueError(f"stakes has {len(self.stakes)} entries for {n_players} agents: give one each")

    def reset(self, num_envs: int, num_agents: int) -> None:
        """Begin episodes, with the stakes of the start."""
        super().reset(num_envs, num_agents)
        self._stakes = None

    def assign(self, round: Round) -> Tensor:
        """Credit of every agent for this round, ``(E, N)``, in the utility's unit."""
        gain, scores = round.gain, round.peer_gains.double()
        n = round.num_agents
        if self._stakes is None:
            start = gain.new_full((n,), 1 / n) if self.stakes is None else torch.tensor(self.stakes, dtype=torch.float64)
            self._stakes = (start / start.sum()).to(scores).expand(len(gain), n)
        scores = scores.clamp(min=0) * ~torch.eye(n, dtype=torch.bool, device=scores.device)
        incentive = peer_incentives(proportions(scores, 0.0), self._stakes, rho=self.rho, kappa=self.kappa)[2]
        self._stakes = next_stakes(self._stakes, incentive, tau=self.tau)
        return by_shares(gain, proportions(incentive, 1 / n))


def _checked_stakes(stakes: object) -> tuple[float, ...]:
    if isinstance(stakes, str) or not isinstance(stakes, Sequence | Tensor):
        raise ValueError(f"stakes={stakes!r}: must be one number an agent")
    given: list[float] = stakes.tolist() if isinstance(stakes, Tensor) else list(stakes)
    if not all(is_number(stake) and stake >= 0 for stake in given) or abs(sum(given) - 1) > 1e-6:
        total = f", but sum to {sum(given):.6g}" if all(map(is_number, given)) else ""
        raise ValueError(f"stakes={stakes!r}: must be non-negative numbers that sum to 1{total}")
    return tuple(map(float, given))
