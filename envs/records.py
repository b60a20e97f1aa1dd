"""Records of a round: what stands before the proxies at its start, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .model.substrates import Proposals
from .screening.bargaining import Bargain
from .screening.filters import Filtered
from .screening.verdicts import Verdicts


@dataclass(frozen=True)
class RoundResult:
    """What happened in a round.

    Attributes:
        observations: What proxies see next, float32 ``(E, N, layout.size)``.
        rewards: ``(E, N)``, in reward units.
        credit: ``(E, N)``, in the utility's unit.
        lot_credit: What each lot earned of it, ``(E, N, K)``; ``None`` under rules that cannot tell.
        contributed: bool ``(E, N, K)``.
        admitted: bool ``(E, N, K)``.
        blocked_by: bool ``(E, N, K, N)``: which principal found which update inadmissible.
        harm: Harm that was foreseen of every update as it was proposed, contributed or not, ``(E, N, K, M)``, in the values' units.
        kept: Norm of what entered over the update's norm, ``(E, N, K)``: 1 for what entered as it was, 0 for what was not admitted.
        tolerance: The round's strictest tolerance for each value, ``(E, M)``; infinite where nobody has one.
        bargain: What was negotiated and why, under governance negotiate; else ``None``.
        gain: v(N), ``(E,)``, in the utility's unit.
        utility: Utility after the round, ``(E,)``.
        value_losses: Value losses on the probe sets after the round, ``(E, M)``.
        step_harm: Harm of the step that was applied, as the screening foresees it, ``(E, M)``.
        violated: Whether that harm, or the step's norm, was beyond somebody's limit, bool ``(E,)``.
        forbidden_used: Whether data that somebody forbids was in the step, bool ``(E,)``; no guard can undo that.
        gamma: The guard's factor, ``(E,)``; 1 without a guard.
        cost: What contributing cost each agent, fines included, ``(E, N)``, in reward units.
        revenue: What the round earned in money, int64 ``(E,)``, in minor units; ``None`` where the scenario has no settlement.
        payouts: What was paid to each agent after the round, int64 ``(E, N)``, in minor units, 0 in rounds without a settlement; ``None``
            where the scenario has none.
        evaluations: Coalitions evaluated for the credit, in each environment.
        done: Whether this was the episode's last round.
    """

    observations: Tensor
    rewards: Tensor
    credit: Tensor
    lot_credit: Tensor | None
    contributed: Tensor
    admitted: Tensor
    blocked_by: Tensor
    harm: Tensor
    kept: Tensor
    tolerance: Tensor
    bargain: Bargain | None
    gain: Tensor
    utility: Tensor
    value_losses: Tensor
    step_harm: Tensor
    violated: Tensor
    forbidden_used: Tensor
    gamma: Tensor
    cost: Tensor
    revenue: Tensor | None
    payouts: Tensor | None
    evaluations: int
    done: bool


@dataclass(frozen=True)
class Prospect:
    """What stands before the proxies at the start of a round, all of it computed from the shared parameters.

    Attributes:
        proposals: Every lot's update; updates that are not finite are replaced by zeros and never admitted.
        along: Its inner product with the last applied step, ``(E, N, K)``; 0 in the first round.
        verdicts: What everybody thinks of it: its harm, and whose limits it breaks.
        filtered: What of it may enter.
        available: Whether there is anything to contribute, bool ``(E, N, K)``: False for lots with no row in the virtual batch.
        value_gradients: ∇ℓ, ``(E, M, P)``.
        value_losses: ℓ, ``(E, M)``.
        log_share: Log-softmax of the shared model on the validation set, ``(E, V, C)``.
        validation_loss: Mean cross-entropy on the validation set, ``(E,)``, in nats.
        utility: U(θ), ``(E,)``.
    """

    proposals: Proposals
    along: Tensor
    verdicts: Verdicts
    filtered: Filtered
    available: Tensor
    value_gradients: Tensor
    value_losses: Tensor
    log_share: Tensor
    validation_loss: Tensor
    utility: Tensor

    @property
    def harm(self) -> Tensor:
        """Harm that is foreseen of every update, ``(E, N, K, M)``, in the values' units."""
        return self.verdicts.harm

    @property
    def norm(self) -> Tensor:
        """Euclidean norm of every update, ``(E, N, K)``; not finite for one that is not."""
        return self.verdicts.norm

    @property
    def finite(self) -> Tensor:
        """Whether an update is finite, bool ``(E, N, K)``."""
        return self.verdicts.finite

    @property
    def blocked_by(self) -> Tensor:
        """To whom an update is inadmissible, bool ``(E, N, K, N)``."""
        return self.verdicts.blocked_by

    @property
    def own_blocked(self) -> Tensor:
        """Whether an update is inadmissible to its own principal, bool ``(E, N, K)``."""
        return self.verdicts.own_blocked

    @property
    def passes(self) -> Tensor:
        """Whether an update would be admitted, bool ``(E, N, K)``; under governance negotiate, whether it is open to bargaining."""
        return self.filtered.passes
