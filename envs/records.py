"""Records of a round: the prospect at its start, what its steps hand on, and its result."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .admission import Places
from .model.coalitions import RoundStep
from .model.substrates import Proposals
from .participation import Attendance
from .screening.bargaining import Bargain
from .screening.filters import Filtered
from .screening.procedure import Guarded
from .screening.verdicts import Verdicts


@dataclass(frozen=True)
class RoundResult:
    """What happened in a round. With forgeries, updates have an axis of U instead of K: the lots', and then the forged ones.

    Attributes:
        observations: What proxies see next, float32 ``(E, N, layout.size)``.
        rewards: ``(E, N)``, in reward units.
        credit: ``(E, N)``, in the utility's unit.
        lot_credit: Each lot's part of the credit, ``(E, N, K)``; ``None`` under rules that do not credit single lots.
        contributed: Which lots were contributed, bool ``(E, N, K)``.
        admitted: Which lots were admitted, bool ``(E, N, K)``.
        blocked_by: Which principal found which update inadmissible, bool ``(E, N, K, N)``.
        harm: Predicted harm of every update as it was proposed, contributed or not, ``(E, N, K, M)``, in the values' units.
        kept: Norm of what was admitted over the update's norm, ``(E, N, K)``: 1 for an update that was admitted unchanged, 0 for one that
            was not admitted.
        tolerance: The round's strictest tolerance for each value, ``(E, M)``; infinite where nobody has one.
        bargain: What was negotiated and why, under governance negotiate; else ``None``.
        gain: v(N), ``(E,)``, in the utility's unit.
        utility: Utility after the round, ``(E,)``.
        value_losses: Value losses on the probe sets after the round, ``(E, M)``.
        left: What is left of the strictest limit for each value after the round, ``(E, M)``, in the value's unit: below 0 beyond the
            limit, infinite where nobody has one.
        step_harm: Harm of the step that was applied, as the screening predicts it, ``(E, M)``.
        violated: Whether that harm, or the step's norm, was beyond somebody's limit, bool ``(E,)``.
        forbidden_used: Whether the step used data that somebody forbids, bool ``(E,)``. A guard cannot undo that.
        gamma: The guard's factor, ``(E,)``; 1 without a guard.
        cost: What each agent's contributions cost it, fines included, ``(E, N)``, in reward units.
        revenue: What the round earned in money, int64 ``(E,)``, in minor units; ``None`` if the scenario has no settlement.
        payouts: What was paid to each agent after the round, int64 ``(E, N)``, in minor units; 0 in a round without a settlement. ``None``
            if the scenario has no settlement.
        evaluations: Coalitions evaluated for the credit, in each environment.
        done: Whether this was the episode's last round.
        pulled: Which levers were pulled, bool ``(E, N, L)``; ``None`` in a scenario without conduct.
        passed: Which updates passed the screening, bool ``(E, N, K)``, where there was room for only some; ``None`` without admission.
        payments: What each agent paid for its places, less what it got back, ``(E, N)``, in reward units; it is a part of its cost.
            ``None`` where places cost nothing.
        present: Who was present, int64 ``(E, m)``, ascending, where only some agents are; else ``None``.

    Where only some agents are present, what others have is 0 or False, but for ``observations``, which they keep from when they were last
    present (0 before that), and what of ``rewards`` and ``payouts`` is theirs whether or not they are there. ``blocked_by`` then says which
    of the scenario's profiles found an update inadmissible, ``(E, N, K, J)``, the last one that of principals without a profile: an
    objection is that of all who hold it, present or not.
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
    left: Tensor
    step_harm: Tensor
    violated: Tensor
    forbidden_used: Tensor
    gamma: Tensor
    cost: Tensor
    revenue: Tensor | None
    payouts: Tensor | None
    evaluations: int
    done: bool
    pulled: Tensor | None = None
    passed: Tensor | None = None
    payments: Tensor | None = None
    present: Tensor | None = None

    def among_all(self, who: Attendance) -> RoundResult:
        """The record of all agents, from one in which what belongs to updates is that of those who were present."""
        told: dict[str, Any] = {name: who.among_all(by_seat) for name in _OF_UPDATES if (by_seat := getattr(self, name)) is not None}
        return replace(self, present=who.agents, **told)

    @property
    def attended(self) -> Tensor:
        """Who was present, bool ``(E, N)``."""
        if self.present is None:
            return torch.ones_like(self.credit, dtype=torch.bool)
        return Attendance(self.present, self.credit.shape[1]).mask

    @property
    def chosen(self) -> Tensor:
        """Which items were chosen and did something, bool ``(E, N, I)``."""
        return self.contributed if self.pulled is None else torch.cat([self.contributed, self.pulled], dim=-1)


_OF_UPDATES = ("contributed", "admitted", "blocked_by", "harm", "kept", "passed")
"""What of a :class:`RoundResult` belongs to updates, and is there for those alone who were present."""


@dataclass(frozen=True)
class Prospect:
    """What is known at the start of a round, before the proxies choose. All of it is computed from the shared parameters.

    With forgeries, updates have an axis of U instead of K: the lots', and then the forged ones.

    Attributes:
        proposals: Every lot's update. An update that is not finite is replaced by zeros and never admitted.
        along: Inner product of each update with the last applied step, ``(E, N, K)``; 0 in the first round.
        verdicts: The principals' verdicts on each update: its harm, and whose limits it breaks.
        filtered: What of each update may be admitted.
        available: Whether there is anything to contribute, bool ``(E, N, K)``: False for lots with no row in the virtual batch.
        value_gradients: ∇ℓ, ``(E, M, P)``.
        value_losses: ℓ, ``(E, M)``.
        left: What is left of everybody's limits, ``(E, N, M)``; see :meth:`~proxycoop.envs.screening.profiles.Profiles.left`.
        left_share: The same as shares of the limits, own or else strictest, ``(E, N, M)``, from −1 to 1.
        log_share: Log-softmax of the shared model on the validation set, ``(E, V, C)``.
        validation_loss: Mean cross-entropy on the validation set, ``(E,)``, in nats.
        utility: U(θ), ``(E,)``.
        pullable: Which levers do anything in the coming round, bool ``(E, N, L)``; ``None`` in a scenario without conduct.
        claimed: Rows that each update claims, ``(E, N, U)``; ``None`` where these are the lots' own.
        vouching: Who vouches for its cabal in this round, bool ``(E, N)``; ``None`` where nobody can.
        fellows: Who belongs to whose cabal, bool ``(N, N)``; ``None`` where nobody can vouch.
    """

    proposals: Proposals
    along: Tensor
    verdicts: Verdicts
    filtered: Filtered
    available: Tensor
    value_gradients: Tensor
    value_losses: Tensor
    left: Tensor
    left_share: Tensor
    log_share: Tensor
    validation_loss: Tensor
    utility: Tensor
    pullable: Tensor | None = None
    claimed: Tensor | None = None
    vouching: Tensor | None = None
    fellows: Tensor | None = None

    @property
    def choosable(self) -> Tensor:
        """Which items there is anything to choose of, bool ``(E, N, I)``: updates that are available, and levers that do anything."""
        return self.available if self.pullable is None else torch.cat([self.available, self.pullable], dim=-1)

    @property
    def harm(self) -> Tensor:
        """Predicted harm of every update, ``(E, N, K, M)``, in the values' units."""
        return self.verdicts.harm

    @property
    def norm(self) -> Tensor:
        """Euclidean norm of every update, ``(E, N, K)``; not finite for an update that is not finite."""
        return self.verdicts.norm

    @property
    def finite(self) -> Tensor:
        """Whether an update is finite, bool ``(E, N, K)``."""
        return self.verdicts.finite

    @property
    def blocked_by(self) -> Tensor:
        """To which principals an update is inadmissible, bool ``(E, N, K, N)``."""
        return self.verdicts.blocked_by

    @property
    def own_blocked(self) -> Tensor:
        """Whether an update is inadmissible to its own principal, bool ``(E, N, K)``."""
        return self.verdicts.own_blocked

    @property
    def own_admissible(self) -> Tensor:
        """Whether an update is admissible to its own principal, bool ``(E, N, K)``."""
        return self.verdicts.own_admissible

    @property
    def passes(self) -> Tensor:
        """Whether an update would be admitted, bool ``(E, N, K)``. Under governance negotiate: whether it may be bargained over."""
        return self.filtered.passes


@dataclass(frozen=True)
class Entry:
    """What the screening admits in a round.

    Attributes:
        contributed: Lots that were contributed and had something to contribute, bool ``(E, N, K)``.
        admitted: Those of them that are admitted, bool ``(E, N, K)``.
        candidates: Lots that would have been admitted if contributed, bool ``(E, N, K)``.
        bargain: What was negotiated and why, under governance negotiate; else ``None``.
        pulled: Which levers were pulled, bool ``(E, N, L)``; ``None`` in a scenario without conduct.
        passed: Which of the contributed lots passed the screening, bool ``(E, N, K)``; ``None`` where all of them are admitted.
        places: How places were given, where there is room for only some.
    """

    contributed: Tensor
    admitted: Tensor
    candidates: Tensor
    bargain: Bargain | None = None
    pulled: Tensor | None = None
    passed: Tensor | None = None
    places: Places | None = None


@dataclass(frozen=True)
class Merged:
    """The admitted updates, aggregated into one step.

    Attributes:
        aggregate: The data from which the step of any coalition can be computed.
        step: The aggregate that the server takes, ``(E, P)``.
        delta: What the server adds to the shared parameters, shrunk by the guard if there is one, ``(E, P)``.
        guarded: The guard's factor, and the step's harm and violations.
        worths: v of every coalition, ``(E, 2**N)``, where that is known already; else ``None``.
    """

    aggregate: RoundStep
    step: Tensor
    delta: Tensor
    guarded: Guarded
    worths: Tensor | None = None


@dataclass(frozen=True)
class Pay:
    """Credit and costs of a round.

    Attributes:
        credit: Each agent's credit, ``(E, N)``, in the utility's unit.
        lot_credit: Each lot's part of it, ``(E, N, K)``; ``None`` under rules that do not credit single lots.
        gain: v(N), ``(E,)``, in the utility's unit.
        cost: What each agent's contributions cost it, fines included, ``(E, N)``, in reward units.
        evaluations: Coalitions evaluated for the credit, in each environment.
    """

    credit: Tensor
    lot_credit: Tensor | None
    gain: Tensor
    cost: Tensor
    evaluations: int

    def among_all(self, who: Attendance) -> Pay:
        """Those of all agents, from those of the agents who were present."""
        lot_credit = None if self.lot_credit is None else who.among_all(self.lot_credit)
        return replace(self, credit=who.among_all(self.credit), lot_credit=lot_credit, cost=who.among_all(self.cost))
