"""How forged updates are made, and what has to be remembered for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.linalg import vector_norm

from .. import randomness
from ..randomness import Purpose, fold
from .settings import AnyForgery, Blend, Boost, Echo, Flip, InnerProduct, LittleIsEnough, NearTwin, Noise, Stale


@dataclass(frozen=True)
class Sent:
    """What an episode's rounds so far leave for forgeries.

    Attributes:
        total: Sum of the updates that each agent sent in the last round, admitted or not, double ``(E, N, P)``.
        count: How many these were, ``(E, N)``.
        earlier: What the lots proposed in the rounds before this one, the last round first, ``(E, N, K, P)`` each, as far back as the
            forgeries reach.
    """

    total: Tensor
    count: Tensor
    earlier: tuple[Tensor, ...] = ()

    @classmethod
    def none(cls, theta: Tensor, n_agents: int) -> Sent:
        """Before the first round, with the shared parameters ``(E, P)``."""
        nothing = torch.zeros_like(theta, dtype=torch.float64)[:, None].expand(-1, n_agents, -1)
        return cls(nothing, nothing[..., 0])


def remember(sent: Sent, forgeries: Sequence[AnyForgery], contributed: Tensor, updates: Tensor, n_lots: int) -> Sent:
    """What is left after a round.

    Args:
        sent: What was left before it.
        forgeries: The forgeries there are.
        contributed: Which updates were sent, bool ``(E, N, U)``: those of K lots first, then forged ones.
        updates: The updates as proposed, ``(E, N, U, P)``.
        n_lots: Number of lots K.
    """
    reach = max((one.rounds for one in forgeries if isinstance(one, Stale)), default=0)
    total, count = sent.total, sent.count
    if any(isinstance(one, Blend) for one in forgeries):
        members = contributed.double()  # another's huge update must not hide what the rest sent
        total, count = (members[..., None, :] @ updates.double())[..., 0, :], members.sum(dim=-1)
    return Sent(total, count, (updates[:, :, :n_lots], *sent.earlier)[:reach])


def forge(
    forgeries: Sequence[AnyForgery],
    updates: Tensor,
    norm: Tensor,
    available: Tensor,
    step: Tensor,
    sent: Sent,
    keys: Tensor,
    t: int,
) -> tuple[Tensor, Tensor]:
    """The forged updates of a round.

    Args:
        forgeries: What to forge.
        updates: The lots' updates, ``(E, N, K, P)``.
        norm: Their norms, ``(E, N, K)``.
        available: Which lots have something to contribute, bool ``(E, N, K)``.
        step: The step that was applied last, ``(E, P)``; zeros before the first.
        sent: What earlier rounds leave.
        keys: One key per environment and episode, int64 ``(E,)``.
        t: Index of the round.

    Returns:
        Updates ``(E, N, F, P)``, zeros where there is nothing to forge from; and where there is something, bool ``(E, N, F)``.
    """
    finite = (norm < torch.inf) & available
    mean_norm = torch.where(finite, norm, 0.0).sum(dim=(1, 2)) / finite.sum(dim=(1, 2)).clamp(min=1)  # (E,)
    _, n_agents, _, n_parameters = updates.shape

    def random(f: int, size: Tensor) -> Tensor:
        """A random direction of some length, ``(E, N)``."""
        drawn = randomness.normal(fold(keys, Purpose.FORGERY, t, f), n_agents, n_parameters).to(updates)
        scaled: Tensor = drawn * (size / vector_norm(drawn, dim=-1))[..., None]
        return scaled

    made: list[Tensor] = []
    can: list[Tensor] = []
    for f, forgery in enumerate(forgeries):
        match forgery:
            case Echo():
                length = vector_norm(step, dim=-1)  # (E,)
                scaled = step * (forgery.size * mean_norm / length.clamp(min=torch.finfo(step.dtype).tiny))[:, None]
                one, there = scaled[:, None].expand(-1, n_agents, -1), (length > 0)[:, None].expand(-1, n_agents)
            case Noise():
                size = (forgery.size * mean_norm)[:, None].expand(-1, n_agents)
                one, there = random(f, size), size > 0
            case Blend():
                others = sent.count.sum(dim=1, keepdim=True) - sent.count  # (E, N)
                of_others = (sent.total.sum(dim=1, keepdim=True) - sent.total) / others.clamp(min=1)[..., None]
                one, there = of_others.to(updates), others > 0
            case LittleIsEnough() | InnerProduct():
                there, mean, deviation = _others(updates, finite)
                one = mean - forgery.deviations * deviation if isinstance(forgery, LittleIsEnough) else -forgery.factor * mean
                one = one.to(updates)
            case Stale():
                long_ago = len(sent.earlier) >= forgery.rounds
                one = sent.earlier[forgery.rounds - 1][:, :, forgery.of] if long_ago else torch.zeros_like(updates[:, :, 0])
                there = vector_norm(one, dim=-1) > 0  # it proposed something then
            case _:
                one, there = updates[:, :, forgery.of], finite[..., forgery.of]
                if isinstance(forgery, NearTwin):
                    one = one + random(f, forgery.noise * norm[..., forgery.of])
                elif isinstance(forgery, Boost):
                    one = forgery.factor * one
                elif isinstance(forgery, Flip):
                    one = -one
        made.append(torch.where(there[..., None], one, 0.0))
        can.append(there)
    if not forgeries:
        return updates[:, :, :0], finite[..., :0]
    return torch.stack(made, dim=2), torch.stack(can, dim=2)


def _others(updates: Tensor, finite: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What the lots of all others propose, by agent: whether anything, bool ``(E, N)``; mean and standard deviation, double ``(E, N, P)``.

    Args:
        updates: The lots' updates, ``(E, N, K, P)``.
        finite: Which of them there are, bool ``(E, N, K)``.
    """
    some = torch.where(finite[..., None], updates, 0.0).double()
    centre = some.sum(dim=(1, 2), keepdim=True) / finite.sum(dim=(1, 2)).clamp(min=1)[:, None, None, None]
    apart = torch.where(finite[..., None], some - centre, 0.0)  # so that squares do not cancel
    count, total, squares = finite.sum(dim=2), apart.sum(dim=2), apart.square().sum(dim=2)  # by agent
    n_others = count.sum(dim=1, keepdim=True) - count
    mean = (total.sum(dim=1, keepdim=True) - total) / n_others.clamp(min=1)[..., None]
    square = (squares.sum(dim=1, keepdim=True) - squares) / n_others.clamp(min=1)[..., None]
    deviation = (square - mean.square()).clamp(min=0).sqrt()
    return n_others > 0, centre[:, :, 0] + mean, deviation
