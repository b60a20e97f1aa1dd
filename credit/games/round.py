"""What a credit rule sees of one round of a learning cooperative."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Literal, TypeVar, get_args

import torch
from torch import Tensor

from .game import CoalitionGame
from .lots import LotGame, unanimous

Need = Literal["utility_gradient", "utility_curvature", "class_head", "lots", "withheld", "vetoes", "peer_gains", "columns", "audits"]
"""What a rule may need of a cooperative beyond the game, by name; see :attr:`~proxycoop.credit.CreditRule.needs`."""

REMEDIES: dict[str, str] = {
    "utility_gradient": "the utility must be differentiable: neg_log_loss rather than accuracy",
    "utility_curvature": "the utility must be twice differentiable: neg_log_loss rather than accuracy",
    "class_head": "the model's last layer must be linear, with one output a class",
    "lots": "the round must say what its lots would have gained",
    "withheld": "the round must say what lots that were not contributed would have gained",
    "vetoes": "an update must be let in whole or not at all, whatever the others are: screening with filter reject, not negotiated, and no "
    "admission",
    "peer_gains": "the agents must be able to try each other's updates on their own data",
    "columns": "principals must hold columns of the same rows: substrate vertical",
    "audits": "the round must say which updates an audit would find to be forged",
}
"""What a cooperative must be like to have it, in words."""
assert set(REMEDIES) == set(get_args(Need))

_T = TypeVar("_T")


class Round:
    """One screened and aggregated round, batched over E environments, N agents and K lots.

    Args:
        game: v(S): what the round's utility gain would have been with only the agents of S; v(∅) = 0.
        contributed: bool ``(E, N, K)``: the lots that the proxies chose to contribute.
        admitted: bool ``(E, N, K)``: contributed and not screened out.
        blocked_by: bool ``(E, N, K, N)``: whether lot ``(i, k)`` is inadmissible to principal j, whatever governance made of it.
        samples: ``(N, K)``: data rows behind each lot.
        updates: ``() -> (E, N, P)``: each agent's part in the step that was applied: its admitted updates times their weights, the
            guard's factor and the server's learning rate. They sum to the step, less what the server's memory alone brings; Adam's
            step is shared coordinate by coordinate in proportion to what enters it.
        utility_gradient: ``() -> (E, P)``: gradient of the utility at the parameters on which the round's game starts.
        t: Index of the round within its episode, from 0.
        episode: Index of the episode among those of its seed; rules that sample draw anew in every round of every episode.
        lots: What sets of lots would have gained. This and what follows is for the rules that need it.
        lot_updates: ``() -> (E, N, K, P)``: each lot's part in the step; an agent's lots sum to its part. Agents of one lot need not say.
        screening: From coalitions, bool ``(C, N)``, to the lots that the coalition's members would let through if only they were
            there, bool ``(E, C, N, K)``; by default those to which none of them objects.
        utility_curvature: ``(E, P) -> (E, P)``: the utility's Hessian, at the same parameters, times a direction.
        utility_expansion: ``(E, P) -> (E, P), (E, P)``: gradient and curvature, where the two cost less together.
        peer_gains: ``() -> (E, N, N)``: by how much agent i's part in the step, alone, lowers the mean loss on agent j's own data, at
            ``[:, j, i]``.
        class_head: Which class each parameter of the last layer gives its answer for, int64 ``(P,)``; −1 for other parameters.
        forged: bool ``(E, N, K)``: what an audit would find: the update is not what the data behind it yields. It says nothing of updates
            that were not contributed.
        sent: ``() -> (E, N, P)``: each agent's admitted updates, added up by their weights, whatever the aggregator made of them; by
            default ``updates``.
        agents: Who the N agents of this round are, int64 ``(E, N)``, where only some members of the cooperative are present; the same N
            in every round by default.
        n_members: Number of members of the cooperative, present or not; N by default.

    Where only some members are present in a round, agents are those, and everything said of agents is said of them. The next round may be
    one of others, so a rule with a memory keeps it by :attr:`agents`.
    """

    def __init__(
        self,
        game: CoalitionGame,
        *,
        contributed: Tensor,
        admitted: Tensor,
        blocked_by: Tensor,
        samples: Tensor,
        updates: Callable[[], Tensor],
        utility_gradient: Callable[[], Tensor],
        t: int,
        episode: int = 0,
        lots: LotGame | None = None,
        lot_updates: Callable[[], Tensor] | None = None,
        screening: Callable[[Tensor], Tensor] | None = None,
        utility_curvature: Callable[[Tensor], Tensor] | None = None,
        utility_expansion: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None,
        peer_gains: Callable[[], Tensor] | None = None,
        class_head: Tensor | None = None,
        forged: Tensor | None = None,
        sent: Callable[[], Tensor] | None = None,
        agents: Tensor | None = None,
        n_members: int | None = None,
    ) -> None:
        self.game = game
        self.contributed = contributed
        self.admitted = admitted
        self.blocked_by = blocked_by
        self.samples = samples
        self.t = t
        self.episode = episode
        self._updates = updates
        self._utility_gradient = utility_gradient
        self._lots = lots
        self._lot_updates = lot_updates
        self._screening = screening
        self._utility_curvature = utility_curvature
        self._utility_expansion = utility_expansion
        self._peer_gains = peer_gains
        self._class_head = class_head
        self._forged = forged
        self._sent = sent
        self._agents = agents
        self.n_members = contributed.shape[1] if n_members is None else n_members

    @property
    def agents(self) -> Tensor:
        """Who the agents of this round are, int64 ``(E, N)``: numbers from 0 to ``n_members`` − 1."""
        if self._agents is None:
            return torch.arange(self.num_agents, device=self.contributed.device).expand(self.num_envs, -1)
        return self._agents

    def of_agents(self, by_member: Tensor) -> Tensor:
        """What the agents of this round have of something that all members have, ``(E, n_members, …)`` → ``(E, N, …)``."""
        return (
            by_member if self._agents is None else by_member[torch.arange(len(by_member), device=by_member.device)[:, None], self._agents]
        )

    def among_members(self, by_agent: Tensor, others: Tensor) -> Tensor:
        """What all members have, from what the agents of this round have, ``(E, N, …)``, and the others, ``(E, n_members, …)``."""
        if self._agents is None:
            return by_agent
        whole = others.clone()
        whole[torch.arange(len(whole), device=whole.device)[:, None], self._agents] = by_agent
        return whole

    @property
    def num_envs(self) -> int:
        """Number of environments E."""
        return self.contributed.shape[0]

    @property
    def num_agents(self) -> int:
        """Number of agents N."""
        return self.contributed.shape[1]

    @property
    def evaluations(self) -> int:
        """How many coalitions of agents and sets of lots have been valued so far, in each environment."""
        return self.game.evaluations + (self._lots.evaluations if self._lots is not None else 0)

    @property
    def took_part(self) -> Tensor:
        """Which agents contributed a lot, admitted or not, bool ``(E, N)``."""
        return self.contributed.any(dim=-1)

    @cached_property
    def updates(self) -> Tensor:
        """Each agent's part in the step that was applied, ``(E, N, P)``; see the class."""
        return self._updates()

    @property
    def rows_held(self) -> Tensor:
        """Rows behind each agent's lots, contributed or not, ``(N,)`` or ``(E, N)``. What forged updates claim does not count, where the
        round knows which are forged.
        """
        samples = self.samples.to(self.contributed.device)
        return samples.sum(dim=-1) if self._forged is None else samples.masked_fill(self._forged, 0).sum(dim=-1)

    @cached_property
    def sent(self) -> Tensor:
        """Each agent's admitted updates, added up by their weights, ``(E, N, P)``. Of them the aggregator makes :attr:`updates`."""
        return self.updates if self._sent is None else self._sent()

    @cached_property
    def lot_updates(self) -> Tensor:
        """Each lot's part in the step that was applied, ``(E, N, K, P)``.

        Raises:
            ValueError: If the round does not know it.
        """
        if self._lot_updates is None and self.contributed.shape[2] == 1:
            return self.updates[:, :, None]
        return _there(self._lot_updates, "lots")()

    @cached_property
    def gain(self) -> Tensor:
        """What the round gained over contributing nothing: v(N), ``(E,)``, in the utility's unit."""
        return self.game.grand()

    def value(self, coalitions: Tensor) -> Tensor:
        """v(S) of the given coalitions, bool ``(C, N)``: ``(E, C)``, each coalition evaluated at most once."""
        return self.game.value(coalitions)

    def utility_gradient(self) -> Tensor:
        """Gradient of the utility at the parameters on which the round's game starts, ``(E, P)``."""
        return self._utility_gradient()

    def utility_curvature(self, direction: Tensor) -> Tensor:
        """The utility's Hessian at the same parameters times a direction, ``(E, P)`` → ``(E, P)``.

        Raises:
            ValueError: If the round does not know it.
        """
        return _there(self._utility_curvature, "utility_curvature")(direction)

    def utility_expansion(self, direction: Tensor) -> tuple[Tensor, Tensor]:
        """:meth:`utility_gradient` and :meth:`utility_curvature` along a direction, ``(E, P)`` each, for less than the two apart.

        Raises:
            ValueError: If the round does not know the curvature.
        """
        if self._utility_expansion is not None:
            return self._utility_expansion(direction)
        return self.utility_gradient(), self.utility_curvature(direction)

    @property
    def lots(self) -> LotGame:
        """What sets of lots would have gained.

        Raises:
            ValueError: If the round does not know it.
        """
        return _there(self._lots, "lots")

    def let_through(self, coalitions: Tensor) -> Tensor:
        """A(S): contributed lots of the members of S that the members of S would let through, ``(C, N)`` → bool ``(E, C, N, K)``.

        A(N) is what was admitted, wherever the screening is nobody else's.
        """
        passes = unanimous(coalitions, self.blocked_by) if self._screening is None else self._screening(coalitions)
        shape = (self.num_envs, len(coalitions), *self.contributed.shape[1:])
        if tuple(passes.shape) != shape:
            raise ValueError(f"the round's screening answered with shape {tuple(passes.shape)}, must be (E, C, N, K) = {shape}")
        return passes & self.contributed[:, None] & coalitions.to(passes.device)[None, :, :, None]

    @cached_property
    def peer_gains(self) -> Tensor:
        """By how much agent i's part in the step, alone, lowers the mean loss on agent j's own data: ``(E, N, N)`` at ``[:, j, i]``.

        Raises:
            ValueError: If the round does not know it.
        """
        return _there(self._peer_gains, "peer_gains")()

    @property
    def class_head(self) -> Tensor:
        """Which class each parameter of the last layer gives its answer for, int64 ``(P,)``; −1 for other parameters.

        Raises:
            ValueError: If the model has no such layer.
        """
        return _there(self._class_head, "class_head")

    @property
    def forged(self) -> Tensor:
        """Which updates are not what the data behind them yields, bool ``(E, N, K)``: what an audit of them would find.

        Raises:
            ValueError: If the round does not know it.
        """
        return _there(self._forged, "audits")


def lacking(what: str) -> ValueError:
    """The error for something that a round, or a whole cooperative, does not have."""
    return ValueError(f"this cooperative has no {what}: {REMEDIES[what]}")


def _there(found: _T | None, what: str) -> _T:
    if found is None:
        raise lacking(what)
    return found
