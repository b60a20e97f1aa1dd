"""Slashing: random audits, and a stake that is lost where one finds a forged update."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from ...checks import real_number
from ..arguments import checked_seed
from ..games.round import Need, Round
from ..rule import RULES, CreditRule
from ..wrappers import Guard

Receiver = Literal["burnt", "members"]
"""Who gets lost stakes: nobody, or the agents that no audit found out."""


@RULES.register("slashing")
class Slashing(Guard):
    r"""Pays another rule's credit, less the stake of agents in whose updates an audit finds a forgery.

    .. math:: c_i = \pi_i - s L_i - \frac{a}{n} \sum_j A_j + R_i, \qquad A_i \sim \mathrm{Bernoulli}(p), \qquad
        \Pr(L_i \mid A_i) = 1 - (1 - e)^{f_i} (1 - h)^{u_i - f_i}

    for the other rule's credit π. Every agent that contributes stakes s in every round. It is audited with probability p, whatever happens
    to the others. An audit looks at all u updates that the agent sent. It recognises each of the f forged ones with probability e, and
    takes each of the others for forged with probability h. If it finds any, the stake is lost: L = 1. An audit costs a, which all n members
    pay alike. R is what an agent receives of others' stakes: nothing if they are burnt. If they go to members, all that are not found out
    receive equal parts, and they are burnt where nobody is left.

    The stake is taken on top of the credit, and the credit is paid in any case. So what deters does not depend on what the rule would have
    paid: a forged update that replaces an honest one, and raises the credit by g, does not pay if

    .. math:: g < p \, (e - h) \, s

    (for one update, with burnt stakes; :func:`least_stake` is this for s). With members as receivers it pays less still, because who is
    found out receives nothing of others' stakes. If the credit were withheld instead, it would be in the forger's interest to be found out
    where the credit is a loss.

    Costs what the other rule costs. Not efficient: stakes are burnt, and audits cost. Not symmetric, because audits are random. Not
    null-player, because it may forge, and pays for audits. If nobody is audited, or stake and audits are 0, the rule keeps every promise
    of the other rule.

    Known failure: false alarms. An honest agent that sends u updates loses p (1 − (1 − h)^u) s in every round, so it sends fewer.

    Audits are drawn anew in every round of every episode, and are the same in all environments of a batch.

    Args:
        rule: The other rule, or its name.
        stake: s, in the utility's unit, at least 0.
        audit_rate: p, from 0 to 1.
        audit_cost: a, of one audit, in the utility's unit, at least 0.
        evidence: e, from 0 to 1.
        false_alarm: h, from 0 to 1.
        to: Who gets lost stakes: ``"burnt"`` or ``"members"``.
        seed: Seed of the draws, a whole number from 0.

    Raises:
        ValueError: If ``rule`` is not a rule, or an argument is not in its range.

    References:
        Becker (1968), *Crime and punishment: an economic approach*, Journal of Political Economy 76(2), for fines that deter at a given
        chance of being found out. Buterin & Griffith (2017), *Casper the friendly finality gadget*, arXiv 1710.09437, for slashing stakes.
    """

    source = "inspection with fines (Becker 1968), as slashing of stakes"
    pays = "another rule's credit, less the stake of who is found to have forged"
    known_failure = "false alarms fine honest agents"
    needs: tuple[Need, ...] = ("audits",)

    def __init__(
        self,
        rule: CreditRule | str = "shapley",
        stake: float = 1.0,
        audit_rate: float = 0.1,
        audit_cost: float = 0.0,
        evidence: float = 1.0,
        false_alarm: float = 0.0,
        to: Receiver = "burnt",
        seed: int = 0,
    ) -> None:
        super().__init__(rule)
        self.stake = real_number("stake", stake, 0)
        self.audit_rate = real_number("audit_rate", audit_rate, 0, 1)
        self.audit_cost = real_number("audit_cost", audit_cost, 0)
        self.evidence = real_number("evidence", evidence, 0, 1)
        self.false_alarm = real_number("false_alarm", false_alarm, 0, 1)
        if to not in get_args(Receiver):
            raise ValueError(f"to={to!r}: must be one of {', '.join(get_args(Receiver))}")
        self.to = to
        self.seed = checked_seed(seed)
        harmless = self.stake == 0 or self.evidence == self.false_alarm == 0
        if self.audit_rate == 0 or (harmless and self.audit_cost == 0):
            self.efficient, self.symmetric, self.null_player = self.rule.efficient, self.rule.symmetric, self.rule.null_player

    def assign(self, round: Round) -> Tensor:
        """Credit of every agent for this round, ``(E, N)``, in the utility's unit."""
        credit = self.rule.assign(round)
        audited, caught = self.audits(round)
        lost = self.stake * caught.to(credit)  # (E, N)
        credit = credit - lost - self.audit_cost * audited.to(credit).mean(dim=1, keepdim=True)
        if self.to == "burnt":
            return credit
        receives = ~caught
        return credit + receives * lost.sum(dim=1, keepdim=True) / receives.sum(dim=1, keepdim=True).clamp(min=1)

    def audits(self, round: Round) -> tuple[Tensor, Tensor]:
        """Who is audited in this round, and in whose updates an audit finds a forgery, bool ``(E, N)`` each."""
        _, n_agents, n_lots = round.contributed.shape
        draws = np.random.default_rng((self.seed, round.episode, round.t))
        device = round.contributed.device
        drawn = torch.from_numpy(draws.random(n_agents) < self.audit_rate).to(device)  # (N,)
        luck = torch.from_numpy(draws.random((n_agents, n_lots))).to(device)  # (N, K)
        suspected = torch.where(round.forged.to(device), luck < self.evidence, luck < self.false_alarm)  # (E, N, K)
        audited = drawn & round.took_part
        return audited, audited & (suspected & round.contributed).any(dim=-1)


def least_stake(gain: float, audit_rate: float, evidence: float = 1.0, false_alarm: float = 0.0) -> float:
    r"""The stake above which a forged update does not pay.

    .. math:: s = \frac{g}{p \, (e - h)}

    Args:
        gain: g, by how much forging one update, instead of sending an honest one, raises the forger's credit; in the utility's unit, at
            least 0.
        audit_rate: p, above 0 and at most 1.
        evidence: e, chance that an audit recognises a forged update.
        false_alarm: h, chance that it takes an honest one for forged; below ``evidence``.

    Returns:
        The stake at which forging neither pays nor costs, in the utility's unit.

    Raises:
        ValueError: If an argument is not in its range, or no stake deters because audits do not tell forged updates from honest ones.
    """
    gain = real_number("gain", gain, 0)
    audit_rate = real_number("audit_rate", audit_rate, 0, 1)
    evidence = real_number("evidence", evidence, 0, 1)
    false_alarm = real_number("false_alarm", false_alarm, 0, 1)
    if audit_rate == 0 or evidence <= false_alarm:
        raise ValueError(
            f"audit_rate={audit_rate}, evidence={evidence}, false_alarm={false_alarm}: no stake deters; audit_rate must be above 0, and "
            "evidence above false_alarm"
        )
    return gain / (audit_rate * (evidence - false_alarm))
