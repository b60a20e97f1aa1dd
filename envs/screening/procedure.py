"""The screener: one round's screening in its order, for the engine.

Harms are foreseen, everybody judges, the governance decides, the filter mends, and the guard looks at the step that is made of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.lots import DrawnLots
from .bargaining import Bargain, Offers, negotiate
from .filters import Filtered, filtered, largest
from .harm import Harm
from .profiles import Profiles
from .verdicts import Screening, Verdicts, admissible, exceeds, guard_factor, weights_of

ROUNDING = 1e-5
"""Relative and absolute slack below which a harm beyond a tolerance is rounding, in single precision."""
_HALVINGS = 24


@dataclass(frozen=True)
class Guarded:
    """The step that is applied.

    Attributes:
        gamma: The guard's factor, ``(E,)``; 1 without a guard.
        harm: The step's harm, ``(E, M)``.
        violated: Whether the harm, or the norm, is beyond somebody's limit by more than rounding, bool ``(E,)``.
    """

    gamma: Tensor
    harm: Tensor
    violated: Tensor


class Screener:
    """Screens the rounds of a scenario.

    Args:
        screening: The settings.
        harm: How harm is foreseen.
    """

    def __init__(self, screening: Screening, harm: Harm) -> None:
        self.screening = screening
        self.harm = harm

    def judge(
        self,
        theta: Tensor,
        updates: Tensor,
        norm: Tensor,
        first_order: Tensor,
        lots: DrawnLots,
        profiles: Profiles,
        value_losses: Tensor,
        value_gradients: Tensor,
    ) -> tuple[Verdicts, Filtered]:
        """What everybody thinks of the candidate updates, and what of them may enter.

        Args:
            theta: The shared parameters, ``(E, P)``.
            updates: ``(E, N, K, P)``; zeros for those that are not finite.
            norm: Their norm, not finite for those, ``(E, N, K)``.
            first_order: Their harm to first order, ``(E, N, K, M)``.
            lots: Whose updates they are.
            profiles: The round's.
            value_losses: ``(E, M)``.
            value_gradients: ``(E, M, P)``.
        """

        def along(some: Tensor) -> Callable[[Tensor], Tensor]:
            return self.harm.along(theta, some, value_losses, value_gradients)

        harm = first_order if self.harm.linear else self.harm(theta, updates, value_losses, value_gradients)
        verdicts = Verdicts(harm, norm, lots.tags, profiles, weights_of(self.screening, profiles, lots.samples))
        mended = filtered(updates, verdicts, self.screening, value_gradients, None if self.harm.linear else along)
        return verdicts, mended

    def bargain(self, contributed: Tensor, verdicts: Verdicts, share: Tensor, gain: Tensor, participants: bool) -> Bargain:
        """Governance negotiate: which of the contributed updates enter.

        Args:
            contributed: bool ``(E, N, K)``.
            verdicts: Everybody's.
            share: Each lot's share of all data, ``(E, N, K)``.
            gain: First-order gain of each update in utility, ``(E, N, K)``.
            participants: Whether the step is renormalised over what enters.
        """
        profiles = verdicts.profiles
        unanimous = admissible(verdicts, Screening(governance="unanimous"))
        offers = Offers(
            candidates=contributed & verdicts.negotiable,
            start=contributed & verdicts.negotiable & unanimous,
            share=share,
            gain=gain,
            harm=verdicts.harm,
            tolerance=profiles.tolerance,
            directions=profiles.direction_of_each,
            weights="participants" if participants else "fixed",
        )
        return negotiate(offers, self.screening.bargain, self.screening.budget)

    def guard(self, theta: Tensor, step: Tensor, profiles: Profiles, value_losses: Tensor, value_gradients: Tensor) -> Guarded:
        """Look at a step, ``(E, P)``, before it is added to θ, and shrink it if there is a guard."""
        gamma = torch.ones_like(step[:, 0])
        harm, norm = self.harm(theta, step, value_losses, value_gradients), step.norm(dim=-1)
        if self.screening.guard and self.harm.linear:
            gamma = guard_factor(harm, norm, profiles)
            harm, norm = gamma[:, None] * harm, gamma * norm
        elif self.screening.guard:
            harm_of = self.harm.along(theta, step, value_losses, value_gradients)
            gamma = largest(lambda factor: ~exceeds(harm_of(factor), factor * norm, profiles, 0.0), gamma, _HALVINGS)
            harm, norm = harm_of(gamma), gamma * norm
        return Guarded(gamma, harm, exceeds(harm, norm, profiles, ROUNDING))
