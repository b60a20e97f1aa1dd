"""What observations need of an episode's past, and the observations that are made from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.linalg import vector_norm

from ..conduct import Items
from ..model.utility import least_divisor
from ..participation import Attendance
from ..records import Entry, Pay, Prospect
from ..scenario import Scenario
from .layout import ObservationLayout


@dataclass(frozen=True)
class Past:
    """What observations need of the rounds of an episode so far.

    Where only some agents are present in a round, what belongs to an agent is of the rounds in which it was present: its last round is the
    last one of these.

    Attributes:
        step: The step that was applied last, ``(E, P)``.
        utility: Utility before the last round, ``(E,)``.
        contributed: Which lots were contributed in the last round, bool ``(E, N, K)``; none before the first.
        admitted: Which lots were admitted in it, bool ``(E, N, K)``.
        n_contributed: How often each lot was contributed, ``(E, N, K)``.
        n_admitted: How often it was admitted, ``(E, N, K)``.
        lot_credit: What each lot earned so far, ``(E, N, K)``, in reward units.
        credit: Everybody's credit of the last round, ``(E, N)``, in reward units.
        credited: Everybody's cumulative non-negative credit, ``(E, N)``, in the utility's unit.
        credited_from: The size of the utilities whose differences that is, ``(E, 1)``.
        spent: Everybody's costs so far, ``(E, N)``, in reward units.
        pulled: Which levers were pulled in the last round, bool ``(E, N, L)``; ``None`` where there are none.
        offered: How many updates were contributed in the last round, int64 ``(E,)``; ``None`` where ``contributed`` says so.
        entered: How many of these were admitted, of the utility's type ``(E,)``; ``None`` where ``admitted`` says so.
        credited_all: The sum of ``credited`` over all agents, ``(E, 1)``; ``None`` where all are there.

    Updates are those of lots, and forged ones after them: K stands for all of them.
    """

    step: Tensor
    utility: Tensor
    contributed: Tensor
    admitted: Tensor
    n_contributed: Tensor
    n_admitted: Tensor
    lot_credit: Tensor
    credit: Tensor
    credited: Tensor
    credited_from: Tensor
    spent: Tensor
    pulled: Tensor | None = None
    offered: Tensor | None = None
    entered: Tensor | None = None
    credited_all: Tensor | None = None

    def of(self, who: Attendance) -> Past:
        """What of the past of all agents those need who are present."""
        return replace(
            self,
            credited_all=self.credited.sum(dim=1, keepdim=True),
            **{name: who.of(told) for name in _OF_AGENTS if (told := getattr(self, name)) is not None},
        )

    def among_all(self, who: Attendance, all_before: Past) -> Past:
        """The past of all agents, from that of those who were present, after a round, and from that of all before it."""
        told = {name: (getattr(self, name), getattr(all_before, name)) for name in _OF_AGENTS}
        return replace(
            self,
            offered=self.contributed.sum(dim=(1, 2)),
            entered=self.admitted.sum(dim=(1, 2), dtype=self.utility.dtype),
            credited_all=None,
            **{name: who.among_all(new, old) for name, (new, old) in told.items() if new is not None},
        )

    @classmethod
    def none(cls, theta: Tensor, n_agents: int, n_lots: int, n_levers: int = 0) -> Past:
        """Before the first round, with the shared parameters ``(E, P)``."""
        by_agent, by_lot = theta.new_zeros(len(theta), n_agents), theta.new_zeros(len(theta), n_agents, n_lots)
        nothing, nobody = torch.zeros_like(by_lot, dtype=torch.bool), theta.new_zeros(len(theta), 1)
        return cls(
            step=torch.zeros_like(theta),
            utility=nobody[:, 0],
            contributed=nothing,
            admitted=nothing,
            n_contributed=by_lot,
            n_admitted=by_lot,
            lot_credit=by_lot,
            credit=by_agent,
            credited=by_agent,
            credited_from=nobody,
            spent=by_agent,
            pulled=nothing.new_zeros(*nothing.shape[:2], n_levers) if n_levers else None,
        )


_OF_AGENTS = ("contributed", "admitted", "n_contributed", "n_admitted", "lot_credit", "credit", "credited", "spent", "pulled")
"""What of :class:`Past` belongs to agents."""


def least_norm_at(theta: Tensor) -> Tensor:
    """The least norm of an update that the rounding of the shared parameters ``(E, P)`` does not hide, ``(E, 1, 1)``."""
    return least_divisor(vector_norm(theta, dim=-1)).clamp_(min=1e-12).reshape(-1, 1, 1)


def seen_norms(theta: Tensor, norm: Tensor) -> Tensor:
    """Norms of updates ``(E, N, K)`` as observations have them: no less than the least that rounding does not hide.

    One that overflows counts as that least norm: it must not spoil the mean.
    """
    return norm.nan_to_num(0.0, 0.0, 0.0).maximum(least_norm_at(theta))


class Memory:
    """Remembers what observations need of an episode's past.

    Observations hold ratios, and no ratio may be one of rounding errors; :func:`~proxycoop.envs.model.utility.least_divisor` says from
    where on a number is more than rounding. The share of cumulative credit is 1/N below that, the share itself from twice that on, and
    goes from one to the other in between. An update's norm, and that of the last step, count as at least that much in ``norm`` and
    ``cosine``: updates that the parameters' own rounding hides look alike, and have no direction.

    What it remembers is a ``Past``; another takes its place after every round.

    Attributes:
        past: What happened so far.

    Args:
        scenario: The cooperative.
        items: The items of every proxy.
        layout: The layout of an observation.
        reward_scale: Reward units per unit of utility.
        theta: The shared parameters at the episodes' start, ``(E, P)``.
        n_agents: Number of agents N.

    Where only some agents are present, ``past`` is that of those who are, once :meth:`seat` has said who they are.
    """

    def __init__(
        self, scenario: Scenario, items: Items, layout: ObservationLayout, reward_scale: float, theta: Tensor, n_agents: int
    ) -> None:
        self._scenario = scenario
        self._items = items
        self._layout = layout
        self._limited = [layout.values.index(name) for name in layout.limited]
        self._all_limited = len(self._limited) == len(layout.values)
        self._reward_scale: float | Tensor = reward_scale
        self._kinds = items.one_hot(theta) if items else None
        self._worst = sum(items.costs) if items else scenario.lots.per_principal  # costs of a round, in units of a lot
        self._n_agents = n_agents
        self._n_seats = n_agents if scenario.participation is None else scenario.n_seats  # of whom a site sees one alone
        self.past = Past.none(theta, n_agents, items.n_updates, items.n_levers)
        self._seated: tuple[Attendance, Past] | None = None  # who is present, and the past of all agents

    def seat(self, who: Attendance) -> None:
        """Take the past of those who are present in the round to come."""
        everybody = self.past if self._seated is None else self.past.among_all(*self._seated)
        self._seated = who, everybody
        self.past = everybody.of(who)

    def begin(self, utility: Tensor) -> None:
        """Remember the utility with which the episode begins, ``(E,)``."""
        self.past = replace(self.past, utility=utility)

    def remember(self, entry: Entry, pay: Pay, step: Tensor, utility: Tensor) -> None:
        """Remember a round.

        Args:
            entry: What was contributed and what was admitted.
            pay: Credit and costs.
            step: What was added to the shared parameters, ``(E, P)``.
            utility: Utility before the round, ``(E,)``.
        """
        past, contributed, admitted, credit, lot_credit = self.past, entry.contributed, entry.admitted, pay.credit, pay.lot_credit
        scaled = self._reward_scale * credit
        if lot_credit is None:  # the proxy cannot know more, so it takes its admitted lots to have earned equally
            n_admitted = admitted.sum(dim=-1, keepdim=True).clamp_(min=1)  # (E, N, 1)
            earned = admitted * (scaled[..., None] / n_admitted)
        else:
            earned = self._reward_scale * lot_credit
        self.past = Past(
            step=step,
            utility=utility,
            contributed=contributed,
            admitted=admitted,
            n_contributed=past.n_contributed + contributed,
            n_admitted=past.n_admitted + admitted,
            lot_credit=past.lot_credit + earned,
            credit=scaled,
            credited=past.credited + credit.clamp(min=0),
            credited_from=past.credited_from + utility.abs().clamp_(min=1)[:, None],
            spent=past.spent + pay.cost,
            pulled=entry.pulled,
        )

    def observe(
        self,
        t: int | Tensor,
        theta: Tensor,
        look: Prospect,
        holds: Tensor,
        money: Sequence[Tensor | float] = (),
        gains: Sequence[Tensor] = (),
        mean_norm: Tensor | None = None,
    ) -> Tensor:
        """What every proxy sees: its own lots, its own profile, and what the cooperative announces.

        Args:
            t: Number of rounds played.
            theta: The shared parameters now, ``(E, P)``.
            look: The prospect of the next round.
            holds: Whether an agent's profile names a value, ``(E, N, M)``.
            money: Features of the accounts, if agents are rewarded by settlements.
            gains: The lots' marginal gains, ``(E, N, K)``, in the utility's unit, as the one entry, if proxies see them.
            mean_norm: Mean norm of all updates, ``(E, 1, 1)``. By default that of the updates in ``look``; a site of a federation has its
                own alone.

        Returns:
            float32 ``(E, N, layout.size)``.
        """
        scenario, scale, past, dtype = self._scenario, self._reward_scale, self.past, look.utility.dtype
        n_envs, n_agents, _ = past.contributed.shape
        finite = look.verdicts.finite
        least_norm = least_norm_at(theta)
        norm = seen_norms(theta, look.verdicts.norm)
        if mean_norm is None:
            mean_norm = norm.sum(dim=(1, 2), keepdim=True) / finite.sum(dim=(1, 2), keepdim=True).clamp_(min=1)
        last_norm = vector_norm(past.step, dim=-1).reshape(-1, 1, 1).maximum(least_norm)
        n_offered = past.contributed.sum(dim=(1, 2)) if past.offered is None else past.offered.clone()
        n_entered = past.admitted.sum(dim=(1, 2), dtype=dtype) if past.entered is None else past.entered
        reward = scenario.reward
        worst_cost = (reward.contribution_cost * self._worst + reward.violation_penalty * self._items.n_updates) * scenario.horizon
        lots = [
            look.proposals.loss,
            look.proposals.loss - look.validation_loss.reshape(-1, 1, 1),
            (norm / mean_norm).log_(),
            look.along / (norm * last_norm),
            look.own_admissible,
            past.contributed,
            past.admitted,
            (past.n_admitted + 0.5) / (past.n_contributed + 1),
            past.lot_credit / past.n_contributed.clamp(min=1),
        ]
        of_owner = look.verdicts.of_owner
        harm = (look.verdicts.harm / of_owner(look.verdicts.profiles.yardstick)[:, :, None]).clamp_(-3, 3)  # (E, N, K, M)
        left_share = of_owner(look.left_share)
        announced = [
            torch.full_like(look.utility, t / scenario.horizon) if isinstance(t, int) else (t / scenario.horizon).expand(n_envs),
            look.utility,
            (scale / self._n_seats) * (look.utility - past.utility),
            n_entered / n_offered.clamp_(min=1),
        ]
        own = [
            past.credit,
            self._payout_share(),
            past.spent / max(worst_cost, 1e-12),
            past.contributed[..., : self._items.n_lots].mean(dim=-1, dtype=dtype),
        ]
        features = [torch.stack(lots, dim=-1), harm, *((scale * gain)[..., None] for gain in gains)]
        return self._layout.join(
            features if self._kinds is None else self._of_items(features),
            [
                torch.stack(announced, dim=-1)[:, None],
                torch.stack(own, dim=-1),
                look.value_losses[:, None],
                holds,
                *([left_share] if self._all_limited else [left_share[..., m, None] for m in self._limited]),
                *(seen[..., None] if isinstance(seen, Tensor) else look.utility.new_full((1, 1, 1), seen) for seen in money),
            ],
            (n_envs, n_agents),
        )

    def _of_items(self, features: Sequence[Tensor]) -> list[Tensor]:
        """The updates' features, ``(E, N, U, ·)`` each, with rows for the levers, ``(E, N, I, ·)``; and of which kind each item is."""
        assert self._kinds is not None
        made = self._items.padded(features)
        if self.past.pulled is not None:
            made[0][..., self._items.n_updates :, self._layout.lot_features.index("last_contributed")] = self.past.pulled.to(made[0])
        return [*made, self._kinds.expand(*made[0].shape[:2], -1, -1)]

    def _payout_share(self) -> Tensor:
        """Everybody's share of all cumulative positive credit, as far as it is more than rounding, ``(E, N)``."""
        total = self.past.credited.sum(dim=1, keepdim=True) if self.past.credited_all is None else self.past.credited_all  # (E, 1)
        least = least_divisor(self.past.credited_from).clamp(min=torch.finfo(total.dtype).tiny)
        share, even = self.past.credited / total.maximum(least), 1 / self._n_agents
        told = (total / least - 1).clamp(0, 1)
        return torch.where(told == 1, share, even + told * (share - even))
