"""Rounds tried out: what the coming round would reward everybody with, if proxies chose so, without playing it.

The engine's own code computes it, on copies of what the round depends on. So a reward that was tried out is the reward that the engine then
pays: screening, guard, server, the real credit rule, costs and fines are all in it. The engine, its rule and its accounts stay as they are.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..credit import CreditRule, Estimator, GameRule
from ..envs.devices import plain_torch
from ..envs.engine import Engine
from ..envs.money.settlement import Turnover
from ..envs.records import Pay

_AT_ONCE = 512
"""Rounds in one batch, so that memory is bounded."""
_SAME_FOR_ALL = ("present", "samples", "directions", "_everyone", "spared", "fellows")
"""Tensors without an axis over environments."""
_ROWS_OF_LOTS = ("x", "inputs", "y", "rows")
"""What is large in a drawn lot. Only rules that ask agents to try updates on their own data need it."""


@dataclass(frozen=True)
class Tried:
    """What R rounds that were tried out would have brought.

    Attributes:
        rewards: What each agent would have been rewarded with, ``(R, N)``, in reward units.
        welfare: scale · v(N) minus everybody's costs, but for payments for places, ``(R,)``, in reward units.
    """

    rewards: Tensor
    welfare: Tensor


@plain_torch()
def try_out(engine: Engine, rows: Tensor, choices: Tensor) -> Tried:
    """Try out choices in the coming round.

    Rules that remember earlier rounds are asked on copies of themselves, one for each set of choices that a cooperative tries. Rules that
    draw random numbers draw them from the round's number and the episode's, so that they answer as they will when the round is played.
    Where agents are rewarded by settlements, the accounts are closed on copies as well; the reward is what the settlement after this round
    would pay, and no more than costs and the public share if none follows.

    Args:
        engine: The cooperatives. They are only read.
        rows: In which of the engine's environments each round is tried out, int64 ``(R,)``.
        choices: Which lots would be contributed, bool ``(R, N, K)``. A lot that is not available adds nothing.

    Raises:
        RuntimeError: If no episode is running.
    """
    engine.require_running()
    zeros, n_rows, n_agents = engine.theta.new_zeros, len(rows), engine.num_agents
    by_agent = n_rows, n_agents
    wholes = zeros(by_agent), zeros(n_rows), zeros(by_agent), zeros(n_rows), zeros(by_agent), zeros(by_agent)
    if remembers(bare(engine.rule)):
        for here in _layers(rows):
            chosen = choices.new_zeros(engine.num_envs, *choices.shape[1:])
            chosen[rows[here]] = choices[here]
            for whole, part in zip(wholes, _Copies(engine).pay(chosen), strict=True):
                whole[here] = part[rows[here]]
    else:
        for here in torch.arange(n_rows, device=rows.device).split(_AT_ONCE) if n_rows else ():
            for whole, part in zip(wholes, _Copies(engine, rows[here]).pay(choices[here]), strict=True):
                whole[here] = part
    credit, gain, cost, utility, suffered, payments = wholes
    gone = None
    if engine.items:
        leaves = engine.items.who(choices[..., engine.items.n_updates :], "quit")
        gone = engine.standing.gone[rows] if leaves is None else engine.standing.gone[rows] | leaves
    rewards = _Copies(engine).rewarded(Pay(credit, None, gain, cost, 0), _settled(engine, rows, credit, utility), gone, suffered)
    return Tried(rewards, engine.reward_scale * gain - (cost - payments).sum(dim=1))


def bare(rule: CreditRule | None) -> CreditRule | None:
    """The rule that pays, without what only watches it (an attribute ``only_watches`` says so), such as one that takes its time."""
    while rule is not None and getattr(rule, "only_watches", False):
        rule = rule.rule  # type: ignore[attr-defined]
    return rule


def remembers(rule: CreditRule | None) -> bool:
    """Whether a rule, or another rule that it is made of, remembers earlier rounds."""
    return rule is not None and (rule._remembers or any(remembers(part) for part in _parts(rule)))


def reads_game_alone(rule: CreditRule | None) -> bool:
    """Whether what a rule pays for a round is sure to follow from the round's coalition game, so that what was refused does not count."""
    if rule is None:
        return True
    from_game = type(rule).assign in (GameRule.assign, Estimator.assign)
    return from_game and not remembers(rule) and all(reads_game_alone(part) for part in _parts(rule))


def _parts(rule: CreditRule) -> list[CreditRule]:
    """The rules that a rule is made of."""
    held = [inner for part in vars(rule).values() for inner in (part if isinstance(part, (list, tuple)) else [part])]
    return [part for part in held if isinstance(part, CreditRule)]


class _Copies(Engine):
    """The coming round of an engine's cooperatives, once or more each. Only what a round needs until it is paid is copied."""

    def __init__(self, engine: Engine, rows: Tensor | None = None) -> None:
        rule = bare(engine.rule)
        whole_lots = rule is not None and "peer_gains" in rule.needs
        made: dict[int, Tensor] = {}

        def taken(part: Any, name: str) -> Any:
            if isinstance(part, Tensor):
                if name in _SAME_FOR_ALL or (name in _ROWS_OF_LOTS and not whole_lots):
                    return part
                if id(part) not in made:  # what is one tensor is copied once
                    made[id(part)] = part[rows]
                return made[id(part)]
            if is_dataclass(part) and not isinstance(part, type):
                return replace(part, **{one.name: taken(getattr(part, one.name), one.name) for one in fields(part)})
            return part

        vars(self).update(vars(engine))
        self.rule = deepcopy(rule)
        if rows is None:  # each cooperative once
            return
        self.num_envs = len(rows)
        for name in ("server_state", "prospect", "lots", "profiles", "standing"):
            setattr(self, name, taken(getattr(engine, name), name))
        for name, part in vars(engine).items():
            if isinstance(part, Tensor) and part.dim() and len(part) == engine.num_envs and name != "observations":
                setattr(self, name, taken(part, name))

    def pay(self, choices: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Credit ``(R, N)``, gain ``(R,)`` and costs ``(R, N)``; where settlements reward, the utility after the round ``(R,)``; where
        loyalty counts, what principals suffered ``(R, N)``; and what was paid for places ``(R, N)``.
        """
        entry, merged, cost = self._advance(choices)
        self.round = self._as_played(entry, merged.aggregate).as_round()
        pay = self._pay(entry, cost)
        utility, suffered = self.prospect.utility, torch.zeros_like(pay.cost)
        if _settles(self):
            utility = self.utility.of_logits(self.model.logits(self.theta + merged.delta, self.utility.rows.x))
        if self.scenario.reward.loyalty:
            losses = self._value_losses(self.theta + merged.delta)
            suffered = self.profiles.suffered(self.prospect.value_losses, losses, self.horizon)
        paid = None if entry.places is None else entry.places.payments
        payments = torch.zeros_like(pay.cost) if paid is None else paid.to(pay.cost)
        return pay.credit, pay.gain, pay.cost, utility, suffered, payments

    def rewarded(self, pay: Pay, turnover: Turnover | None, gone: Tensor | None, suffered: Tensor) -> Tensor:
        """What each agent is rewarded with, ``(R, N)``, in reward units.

        Those who are gone, bool ``(R, N)``, have no part in what the others gain. What principals suffered counts where loyalty does.
        """
        return self._rewards(pay, turnover, gone, suffered if self.scenario.reward.loyalty else None)


def _settles(engine: Engine) -> bool:
    """Whether agents are rewarded by settlements."""
    terms = engine.scenario.settlement
    return terms is not None and terms.reward == "settlement"


def _settled(engine: Engine, rows: Tensor, credit: Tensor, utility: Tensor) -> Turnover | None:
    """What the books, closed after each round on copies of their own, would pay; ``None`` where credit is the reward."""
    if engine.treasury is None or not _settles(engine):
        return None
    worth = torch.zeros(credit.shape, dtype=torch.float64)
    for here in _layers(rows):
        of_all, after = credit.new_zeros(engine.num_envs, engine.num_agents), engine.prospect.utility.clone()
        of_all[rows[here]], after[rows[here]] = credit[here], utility[here]
        worth[here.cpu()] = deepcopy(engine.treasury).close(engine.t, of_all, after).worth[rows[here].cpu()]
    nothing = torch.zeros(credit.shape, dtype=torch.int64)
    return Turnover(nothing[:, 0], nothing, worth.to(credit.device))


def _layers(rows: Tensor) -> list[Tensor]:
    """Indices of the rows in as few parts as it takes for all rows of a part to be of different environments."""
    order = rows.argsort(stable=True)
    ordered = rows[order]
    nth = torch.arange(len(rows), device=rows.device) - torch.searchsorted(ordered, ordered)  # of its environment
    return [order[nth == n] for n in range(int(nth.max()) + 1 if len(rows) else 0)]
