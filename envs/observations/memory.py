"""What observations need of an episode's past, and the observations that are made from it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..model.utility import least_divisor
from ..records import Prospect
from ..scenario import Scenario
from .layout import ObservationLayout


class Memory:
    """Remembers what observations need of an episode's past.

    Observations hold ratios, and no ratio may be one of rounding errors; :func:`~proxycoop.envs.model.utility.least_divisor` says from
    where on a number is more than rounding. The share of cumulative credit is 1/N below that, the share itself from twice that on, and
    goes from one to the other in between. An update's norm, and that of the last step, count as at least that much in ``norm`` and
    ``cosine``: updates that the parameters' own rounding hides look alike, and have no direction.

    Attributes:
        last_step: The step that was applied last, ``(E, P)``.

    Args:
        scenario: The cooperative.
        layout: The layout of an observation.
        reward_scale: Reward units per unit of utility.
        theta: The shared parameters at the episodes' start, ``(E, P)``.
        n_agents: Number of agents N.
    """

    def __init__(self, scenario: Scenario, layout: ObservationLayout, reward_scale: float, theta: Tensor, n_agents: int) -> None:
        self._scenario = scenario
        self._layout = layout
        self._limited = [layout.values.index(name) for name in layout.limited]
        self._reward_scale = reward_scale
        shape = (len(theta), n_agents, scenario.lots.per_principal)
        self.last_step = torch.zeros_like(theta)
        self._last_contributed = theta.new_zeros(shape, dtype=torch.bool)
        self._last_admitted = theta.new_zeros(shape, dtype=torch.bool)
        self._n_contributed = theta.new_zeros(shape)
        self._n_admitted = theta.new_zeros(shape)
        self._lot_credit = theta.new_zeros(shape)  # summed, in reward units
        self._last_credit = theta.new_zeros(shape[:2])
        self._credited = theta.new_zeros(shape[:2])  # cumulative non-negative credit
        self._credited_from = theta.new_zeros(len(theta), 1)  # the size of the utilities whose differences that is
        self._spent = theta.new_zeros(shape[:2])
        self._last_utility: Tensor | None = None

    def remember(
        self,
        contributed: Tensor,
        admitted: Tensor,
        credit: Tensor,
        lot_credit: Tensor | None,
        cost: Tensor,
        step: Tensor,
        utility: Tensor,
    ) -> None:
        """Remember a round.

        Args:
            contributed: Which lots were contributed, bool ``(E, N, K)``.
            admitted: Which lots were admitted, bool ``(E, N, K)``.
            credit: Each agent's credit, ``(E, N)``, in the utility's unit.
            lot_credit: Each lot's part of it, ``(E, N, K)``; ``None`` under rules that do not credit single lots.
            cost: Each agent's costs, ``(E, N)``, in reward units.
            step: What was added to the shared parameters, ``(E, P)``.
            utility: Utility before the round, ``(E,)``.
        """
        self._last_credit = self._reward_scale * credit
        if lot_credit is None:  # the proxy cannot know more, so it takes its admitted lots to have earned equally
            n_admitted = admitted.sum(dim=-1, keepdim=True).clamp(min=1)  # (E, N, 1)
            self._lot_credit = self._lot_credit + admitted * (self._last_credit[..., None] / n_admitted)
        else:
            self._lot_credit = self._lot_credit + self._reward_scale * lot_credit
        self._n_contributed = self._n_contributed + contributed
        self._n_admitted = self._n_admitted + admitted
        self._last_contributed, self._last_admitted = contributed, admitted
        self._credited = self._credited + credit.clamp(min=0)
        self._credited_from = self._credited_from + utility.abs().clamp(min=1)[:, None]
        self._spent = self._spent + cost
        self.last_step = step
        self._last_utility = utility

    @property
    def last_contributed(self) -> Tensor:
        """Which lots were contributed in the last round, bool ``(E, N, K)``; none before the first."""
        return self._last_contributed

    def observe(
        self,
        t: int,
        theta: Tensor,
        look: Prospect,
        holds: Tensor,
        money: Sequence[Tensor | float] = (),
        gains: Sequence[Tensor] = (),
    ) -> Tensor:
        """What every proxy sees: its own lots, its own profile, and what the cooperative announces.

        Args:
            t: Number of rounds played.
            theta: The shared parameters now, ``(E, P)``.
            look: The prospect of the next round.
            holds: Whether an agent's profile names a value, ``(E, N, M)``.
            money: Features of the accounts, if agents are rewarded by settlements.
            gains: The lots' marginal gains, ``(E, N, K)``, in the utility's unit, as the one entry, if proxies see them.

        Returns:
            float32 ``(E, N, layout.size)``.
        """
        scenario, scale = self._scenario, self._reward_scale
        n_agents, n_lots = self._last_contributed.shape[1:]
        finite = look.verdicts.finite
        least_norm = least_divisor(theta.norm(dim=-1)).clamp(min=1e-12)[:, None, None]
        norm = torch.where(finite, look.verdicts.norm, 0.0).maximum(least_norm)  # one lot that overflows must not spoil the mean norm
        mean_norm = norm.sum(dim=(1, 2), keepdim=True) / finite.sum(dim=(1, 2), keepdim=True).clamp(min=1)
        last_norm = self.last_step.norm(dim=-1)[:, None, None].maximum(least_norm)
        n_offered = self._last_contributed.sum(dim=(1, 2))
        worst_cost = (scenario.reward.contribution_cost + scenario.reward.violation_penalty) * n_lots * scenario.horizon
        last_utility = look.utility if self._last_utility is None else self._last_utility
        lots: list[Tensor] = [
            look.proposals.loss,
            look.proposals.loss - look.validation_loss[:, None, None],
            (norm / mean_norm).log_(),
            look.along / (norm * last_norm),
            ~look.own_blocked,
            self._last_contributed,
            self._last_admitted,
            (self._n_admitted + 0.5) / (self._n_contributed + 1),
            self._lot_credit / self._n_contributed.clamp(min=1),
            *(look.verdicts.harm / look.verdicts.profiles.yardstick[:, :, None]).clamp_(-3, 3).unbind(dim=-1),
            *(scale * gain for gain in gains),
        ]
        agent: list[Tensor | float] = [
            t / scenario.horizon,
            look.utility[:, None],
            (scale / n_agents) * (look.utility - last_utility)[:, None],
            (self._last_admitted.sum(dim=(1, 2)) / n_offered.clamp(min=1))[:, None],
            self._last_credit,
            self._payout_share(),
            self._spent / max(worst_cost, 1e-12),
            self._last_contributed.to(look.utility.dtype).mean(dim=-1),
            *look.value_losses[:, :, None].unbind(dim=1),
            *holds.unbind(dim=-1),
            *(look.left_share[..., m] for m in self._limited),
            *money,
        ]
        return self._layout.join(lots, agent, (len(self.last_step), n_agents))

    def _payout_share(self) -> Tensor:
        """Everybody's share of all cumulative positive credit, as far as it is more than rounding, ``(E, N)``."""
        total = self._credited.sum(dim=1, keepdim=True)  # (E, 1)
        least = least_divisor(self._credited_from).clamp(min=torch.finfo(total.dtype).tiny)
        share, even = self._credited / total.maximum(least), 1 / self._credited.shape[1]
        told = (total / least - 1).clamp(0, 1)
        return torch.where(told == 1, share, even + told * (share - even))
