"""The screener: the screening of one round, in its order, for the engine.

1. The harm of every update is predicted.
2. Every principal judges every update, and the governance decides which pass.
3. The filter changes updates that do not pass, so that they do, where it can.
4. The guard checks the step that is made from the admitted updates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.linalg import vector_norm

from .bargaining import Bargain, Offers, negotiate
from .electorate import Electorate
from .filters import Filtered, filtered, largest
from .harm import Harm, beside
from .profiles import Profiles
from .verdicts import Screening, Verdicts, admissible, exceeds, guard_factor, weights_of

ROUNDING = 1e-5
"""Relative and absolute slack in single precision: a harm that exceeds a tolerance by less counts as rounding."""
_HALVINGS = 24


@dataclass(frozen=True)
class Guarded:
    """The step that is applied.

    Attributes:
        gamma: The guard's factor, ``(E,)``; 1 without a guard.
        harm: Harm of the step after the guard, ``(E, M)``.
        violated: Whether its harm, or its norm, is beyond somebody's limit by more than rounding, bool ``(E,)``.
    """

    gamma: Tensor
    harm: Tensor
    violated: Tensor


class Screener:
    """Screens the rounds of a scenario.

    Args:
        screening: The settings.
        harm: How harm is predicted.
        measured: Measures harm. The guard of an episode's limits needs it; ``None`` where nobody has limits.
    """

    def __init__(self, screening: Screening, harm: Harm, measured: Harm | None = None) -> None:
        self.screening = screening
        self.harm = harm
        self.measured = measured

    def judge(
        self,
        theta: Tensor,
        updates: Tensor,
        norm: Tensor,
        finite: Tensor,
        first_order: Tensor,
        tags: Tensor,
        samples: Tensor,
        profiles: Profiles,
        value_losses: Tensor,
        value_gradients: Tensor,
        electorate: Electorate | None = None,
    ) -> tuple[Verdicts, Filtered]:
        """Everybody's verdicts on the candidate updates, and what the filter makes of them.

        Args:
            theta: The shared parameters, ``(E, P)``.
            updates: The candidate updates, ``(E, N, K, P)``; zeros in place of an update that is not finite.
            norm: Norm of the updates, ``(E, N, K)``; not finite for an update that is not finite.
            finite: Whether that norm is finite, bool ``(E, N, K)``.
            first_order: First-order harm of the updates, ``(E, N, K, M)``.
            tags: Tag of each update, int64 ``(E, N, K)``.
            samples: Rows of each lot, ``(N, K)``.
            profiles: Everybody's profiles in this round.
            value_losses: Value losses at θ, ``(E, M)``.
            value_gradients: Their gradients at θ, ``(E, M, P)``.
            electorate: Where only some agents are present: who judges; the profiles are then its own.
        """

        def along(some: Tensor) -> Callable[[Tensor], Tensor]:
            return self.harm.along(theta, some, value_losses, value_gradients)

        harm = first_order if self.harm.linear else self.harm(theta, updates, value_losses, value_gradients)
        weight = weights_of(self.screening, profiles, samples, electorate)
        verdicts = Verdicts(harm, norm, tags, profiles, weight, electorate=electorate)
        vars(verdicts)["finite"] = finite
        mended = filtered(updates, verdicts, self.screening, value_gradients, None if self.harm.linear else along)
        return verdicts, mended

    def bargain(self, contributed: Tensor, verdicts: Verdicts, share: Tensor, gain: Tensor, participants: bool) -> Bargain:
        """Under governance negotiate, bargain over which contributed updates are admitted.

        Args:
            contributed: Which lots were contributed, bool ``(E, N, K)``.
            verdicts: Everybody's verdicts.
            share: Each lot's share of all data, ``(E, N, K)``.
            gain: First-order gain in utility of each update, ``(E, N, K)``.
            participants: Whether the step is renormalised over the admitted lots.
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
        """Check a step, ``(E, P)``, before it is added to θ. If there is a guard, find the factor by which it is shrunk.

        The guard keeps the step's harm, as it is predicted, within everybody's tolerances. Where principals have limits for the episode, it
        also measures the step on the probe sets, however harm is predicted: no loss may rise above a limit. γ = 0 never leads there, so
        with a guard every limit holds on the probe sets after every round.
        """
        harm, norm = self.harm(theta, step, value_losses, value_gradients), vector_norm(step, dim=-1)
        if self.screening.guard and self.harm.linear:
            gamma = guard_factor(harm, norm, profiles)
            harm, norm = gamma[:, None] * harm, gamma * norm
        else:
            gamma = torch.ones_like(norm)
        if self.screening.guard and not self.harm.linear:
            harm_of = self.harm.along(theta, step, value_losses, value_gradients)
            gamma = largest(lambda factor: ~exceeds(harm_of(factor), factor * beside(norm, factor, 1), profiles, 0.0), gamma, _HALVINGS)
            harm, norm = harm_of(gamma), gamma * norm
        if self.screening.guard and self.measured is not None and profiles.may_rise is not None:
            rise_of = self.measured.along(theta, step, value_losses, value_gradients)
            may_rise = profiles.may_rise.amin(dim=1)
            held = largest(lambda factor: (rise_of(factor) <= beside(may_rise, factor, 1)).all(dim=-1), gamma, _HALVINGS)
            if held is not gamma:  # it is shrunk further
                less = torch.where(gamma > 0, held / gamma.clamp(min=torch.finfo(gamma.dtype).tiny), 1.0)
                harm = less[:, None] * harm if self.harm.linear else harm_of(held)
                gamma, norm = held, less * norm
        return Guarded(gamma, harm, exceeds(harm, norm, profiles, ROUNDING))
