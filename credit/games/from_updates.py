"""Credit for federated code outside this package: a round from a module and its clients' updates."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ...checks import items_of
from ..arguments import is_number, is_whole
from .game import CoalitionGame, Surrogate
from .head import class_head
from .lots import LotGame, unanimous
from .replica import Replica, Update, Utility
from .round import Round, lacking
from .surrogate import quadratic

_NOBODY_S = "the utility of clients []"


def from_updates(
    model: nn.Module,
    updates: Sequence[Update],
    weights: Sequence[float] | Tensor | None = None,
    utility: Utility | None = None,
    *,
    contributed: Sequence[bool] | Tensor | None = None,
    admitted: Sequence[bool] | Tensor | None = None,
    blocked_by: Sequence[Sequence[bool]] | Tensor | None = None,
    screening: Callable[[Tensor], Tensor] | None = None,
    renormalise: bool = False,
    factor: float = 1.0,
    samples: Sequence[int] | Tensor | None = None,
    peers: Sequence[Utility] | None = None,
    t: int = 0,
    episode: int = 0,
) -> Round:
    r"""The round of any federated training, for any credit rule: one environment of n agents with one lot each.

    .. math:: v(S) = U\Bigl(\theta + \sum_{i \in S \cap A} w_i \Delta_i\Bigr) - U(\theta)

    where A are the clients whose updates were admitted. A rule without a memory takes the round as it is. A rule with a memory is reset
    once, and then given one round after another::

        rule = credit.make("shapley")
        rule.reset(1, n_clients)
        for t in range(n_rounds):
            updates = [train(client, model) for client in clients]  # state dicts of differences
            round = credit.from_updates(model, updates, shares, utility, t=t)
            print(rule.assign(round)[0])  # one number a client, in the utility's unit

    The round works on one deep copy of the module, in the mode (train or eval) that it is in. The module itself is never changed here, and
    may be changed at once. The utility is a black box. It is called once for every set of clients that a rule asks about, one set after
    another, and never twice for the same set.

    All numbers of the round are float64 and on the CPU, wherever the module is. A vector of parameters (``round.updates``, its gradient)
    holds ``model.parameters()`` in order, and then the floating-point buffers of the state dict. Buffers enter the game, but have no
    gradient or curvature: those are 0.

    Args:
        model: Holds the shared parameters before the round.
        updates: What each of the n clients would add, by the names of ``model.state_dict()``, with an entry for every floating-point one.
            Other entries, such as a batch normalisation's ``num_batches_tracked``, are ignored. If two layers share a tensor, its first
            name is enough. All updates must be known and finite, also those of clients that contributed nothing: pass zeros if they have
            none.
        weights: w, one number a client, at least 0, such as its share of all data; 1/n by default. They are taken as they are and stay
            fixed, so that a missing client changes nothing for the others.
        utility: From a module to a number or a 0-d tensor, higher is better; there is no default. It is called without gradients for the
            game, and with gradients for rules that need its gradient or curvature. If its answer is a number or has no gradient, the round
            has neither.
        contributed: bool, one a client: who offered its update. Everybody by default.
        admitted: bool, one a client: whose update is in the step. The others' count as zero in the game. By default those who contributed
            and whom nobody blocks.
        blocked_by: bool ``(n, n)``: whether client i's update is inadmissible to client j, at ``[i][j]``. By default an update that was
            contributed and not admitted is inadmissible to everybody.
        screening: From coalitions, bool ``(C, n)``, to the updates that their members would let through, bool ``(1, C, n, 1)``; see
            :class:`Round`. By default those that none of them blocks.
        renormalise: Divide the weights by their sum over those in the step (classic federated averaging). A missing client then gives the
            others more weight.
        factor: What every step is multiplied by, at least 0, such as a server's learning rate or a guard's factor.
        samples: Data rows behind each client's update, whole numbers from 0; 1 by default.
        peers: For rules that ask peers: for each client, the mean loss of a module on the client's own data, lower is better.
        t: Index of the round within its episode, from 0.
        episode: Index of the episode, from 0.

    Raises:
        ValueError: If there are no updates; an update's entry is unknown, missing, of another shape or not finite; an argument has another
            number of entries than there are clients; or a number is out of range. When a rule asks, if the utility does not answer with a
            finite number.
    """
    updates = items_of("updates", updates, "state dicts of differences, one a client")
    n = len(updates)
    if not isinstance(model, nn.Module):
        raise ValueError(f"model={reprlib.repr(model)}: must be a torch.nn.Module, not its state dict")
    if not callable(utility):
        raise ValueError(f"utility={utility!r}: must be a function from a module to a number, higher is better")
    if n == 0:
        raise ValueError("updates is empty: give one state dict of differences a client")
    for name, index in (("t", t), ("episode", episode)):
        if not is_whole(index, 0):
            raise ValueError(f"{name}={index!r}: must be a whole number, at least 0")
    if not is_number(factor) or factor < 0:
        raise ValueError(f"factor={factor!r}: must be a finite number, at least 0")
    if peers is not None:
        peers = items_of("peers", peers, "losses, one a client")
        if len(peers) != n:
            raise ValueError(f"peers has {len(peers)} entries for {n} clients: give one loss a client")
        for i, peer in enumerate(peers):
            if not callable(peer):
                raise ValueError(f"peers[{i}]={peer!r}: must be a function from a module to a number, lower is better")
    if not isinstance(renormalise, bool):
        raise ValueError(f"renormalise={renormalise!r}: must be True or False")
    if screening is not None and not callable(screening):
        raise ValueError(f"screening={screening!r}: must be a function of coalitions")
    everyone = torch.ones(1, n, dtype=torch.bool)
    offered = _bools("contributed", contributed, (n,)) if contributed is not None else everyone[0]
    blocks = _bools("blocked_by", blocked_by, (n, n))[None, :, None] if blocked_by is not None else None  # (1, n, 1, n)
    if admitted is not None:
        entered = _bools("admitted", admitted, (n,))
        if (entered & ~offered).any():
            raise ValueError(
                f"admitted: client {int((entered & ~offered).nonzero()[0])} contributed nothing, so nothing of it can be admitted"
            )
    else:
        entered = offered if blocks is None else offered & ~blocks[0, :, 0].any(dim=-1)
    if blocks is None:
        blocks = (offered & ~entered)[None, :, None, None].expand(1, n, 1, n).clone()

    worlds = _Worlds(model, updates, _weights(weights, n), renormalise, factor, utility)
    passes = unanimous(everyone, blocks) if screening is None else screening(everyone)  # (1, 1, n, 1)
    if not isinstance(passes, Tensor) or passes.dtype != torch.bool or tuple(passes.shape) != (1, 1, n, 1):
        came = f"shape {tuple(passes.shape)}" if isinstance(passes, Tensor) else type(passes).__name__
        came += f" of {passes.dtype}" if isinstance(passes, Tensor) and passes.dtype != torch.bool else ""
        raise ValueError(f"screening answered with {came} for everybody, must be (1, C, {n}, 1) for C coalitions, bool")
    disagree = entered != (offered & passes[0, 0, :, 0])
    if disagree.any():
        i = int(disagree.nonzero()[0])
        said, but = ("admitted", "somebody blocks it") if entered[i] else ("not admitted", "it contributed, and nobody blocks it")
        raise ValueError(f"admitted: client {i} is {said}, but {but}: admitted must be what blocked_by, or screening, lets through")
    return Round(
        CoalitionGame(lambda coalitions: worlds.gains(coalitions.cpu() & entered), n, surrogate=lambda *_: worlds.expansion(entered)),
        contributed=offered[None, :, None].clone(),
        admitted=entered[None, :, None].clone(),
        blocked_by=blocks,
        samples=_samples(samples, n)[:, None],
        updates=lambda: worlds.parts(entered)[None],
        utility_gradient=lambda: worlds.gradient()[None],
        t=t,
        episode=episode,
        lots=LotGame(lambda lots: worlds.gains(lots[0, :, :, 0].cpu()), passes[:, 0].clone()),
        screening=screening,
        utility_curvature=lambda direction: worlds.curvature(direction)[None],
        peer_gains=None if peers is None else lambda: worlds.peer_gains(entered, peers)[None],
        class_head=worlds.class_head,
    )


def step_weights(entering: Tensor, *, renormalise: bool) -> Tensor:
    """The weights ``(n,)`` with which updates enter a step, 0 for those left out: as they are, or divided by their sum."""
    return entering / entering.sum() if renormalise and entering.any() else entering


class _Worlds:
    """The module with only some of the clients' updates applied."""

    def __init__(
        self, model: nn.Module, updates: Sequence[Update], weights: Tensor, renormalise: bool, factor: float, utility: Utility
    ) -> None:
        self.replica = Replica(model)
        self.theta = self.replica.theta  # (P,)
        self.weights, self.renormalise, self.factor = weights, renormalise, factor
        self.utility = utility
        self.updates = torch.stack([self._checked(update, i).to(self.theta) for i, update in enumerate(updates)])  # (n, P)
        self._known: dict[bytes, float] = {}
        head = class_head(model)
        n_parameters = sum(parameter.numel() for parameter in model.parameters())
        self.class_head = None if head is None else torch.cat([head, torch.full((len(self.theta) - n_parameters,), -1)])

    def _checked(self, update: Update, i: int) -> Tensor:
        layout = self.replica.layout
        if problem := layout.problem(update):
            raise ValueError(f"updates[{i}]{problem}")
        for name in layout.names:
            if not update[name].to(self.theta).isfinite().all():  # in the module's own precision
                raise ValueError(f"updates[{i}][{name!r}] holds NaN or infinity: give zeros for a client that is screened out")
        return layout.vector(update)

    def coefficients(self, members: Tensor) -> Tensor:
        """The factor of each client's update in the step of those who take part, bool ``(n,)`` → ``(n,)``."""
        return self.factor * step_weights(self.weights * members, renormalise=self.renormalise)

    def gains(self, sets: Tensor) -> Tensor:
        """What the steps of sets of clients gain over none, bool ``(C, n)`` → ``(1, C)``."""
        nobody = self._worth(torch.zeros(len(self.weights), dtype=torch.bool))
        return torch.tensor([[self._worth(members) - nobody for members in sets]], dtype=torch.float64)

    def _worth(self, members: Tensor) -> float:
        """The utility with the updates of some clients, bool ``(n,)``. The utility is asked once for each set."""
        who = members.numpy().tobytes()
        if who not in self._known:
            after = self.theta + self.coefficients(members).to(self.theta) @ self.updates
            self._known[who] = self.replica.value(self.utility, after, f"the utility of clients {members.nonzero()[:, 0].tolist()}")
        return self._known[who]

    def parts(self, members: Tensor) -> Tensor:
        """Each client's part in the step of those who take part, ``(n, P)``."""
        return self.coefficients(members)[:, None] * self.updates.cpu().double()

    def gradient(self) -> Tensor:
        """The utility's gradient at θ, ``(P,)``."""
        found = self.replica.gradient(self.utility, self.theta, _NOBODY_S)
        if found is None:
            raise lacking("utility_gradient")
        return found

    def curvature(self, direction: Tensor) -> Tensor:
        """The utility's Hessian at θ times a direction, ``(1, P)`` → ``(P,)``."""
        if direction.shape != (1, len(self.theta)):
            raise ValueError(f"direction has shape {tuple(direction.shape)}, must be (1, {len(self.theta)})")
        found = self.replica.curvature(self.utility, self.theta, direction[0], _NOBODY_S)
        if found is None:
            raise lacking("utility_curvature")
        return found

    def expansion(self, members: Tensor) -> Surrogate | str:
        """The utility's quadratic expansion in the parts of those whose updates are admitted, bool ``(n,)``, or why there is none."""
        entering = self.factor * (self.weights * members)
        parts = entering[:, None] * self.updates.cpu().double()
        try:
            slope = self.replica.gradient(self.utility, self.theta, _NOBODY_S)
            bent = None if slope is None else self.replica.curvatures(self.utility, self.theta, parts, _NOBODY_S)
        except RuntimeError as error:  # an operation that cannot be differentiated, or not twice
            return f"the utility cannot be differentiated twice ({error})"
        if slope is None or bent is None:
            return "the utility has no gradient"
        curvature = parts @ bent.T
        weight = (self.weights * members)[None] if self.renormalise else None
        return quadratic((parts @ slope)[None], (curvature + curvature.T)[None] / 2, weight)

    def peer_gains(self, members: Tensor, peers: Sequence[Utility]) -> Tensor:
        """By how much client i's part in the step, alone, lowers client j's loss, ``(n, n)`` at ``[j, i]``."""

        def losses(theta: Tensor) -> Tensor:
            return torch.tensor([self.replica.value(peer, theta, f"peers[{j}]") for j, peer in enumerate(peers)], dtype=torch.float64)

        before = losses(self.theta)
        steps = self.coefficients(members).to(self.theta)[:, None] * self.updates
        return torch.stack([before - losses(self.theta + step) for step in steps], dim=1)


def _weights(weights: Sequence[float] | Tensor | None, n: int) -> Tensor:
    if weights is None:
        return torch.full((n,), 1 / n, dtype=torch.float64)
    try:
        found = torch.as_tensor(weights, dtype=torch.float64).detach().cpu()
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"weights={weights!r}: must be one number a client") from None
    if found.shape != (n,):
        raise ValueError(f"weights has shape {tuple(found.shape)} for {n} clients: give one number a client")
    for i, weight in enumerate(found.tolist()):
        if not 0 <= weight < float("inf"):
            raise ValueError(f"weights[{i}]={weight}: must be a finite number, at least 0")
    return found


def _bools(name: str, given: Sequence[bool] | Sequence[Sequence[bool]] | Tensor, shape: tuple[int, ...]) -> Tensor:
    try:
        found = torch.as_tensor(given).cpu()
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{name}={reprlib.repr(given)}: must be bool of shape {shape}") from None
    if found.dtype != torch.bool or found.shape != shape:
        raise ValueError(f"{name} must be bool of shape {shape}, got {found.dtype} {tuple(found.shape)}")
    return found.clone()


def _samples(samples: Sequence[int] | Tensor | None, n: int) -> Tensor:
    if samples is None:
        return torch.ones(n, dtype=torch.int64)
    try:
        found = torch.as_tensor(samples).cpu()
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise ValueError(f"samples={reprlib.repr(samples)}: must be one whole number a client, at least 0, for {n} clients") from None
    if found.shape != (n,) or found.is_floating_point() or found.dtype == torch.bool or (found < 0).any():
        raise ValueError(f"samples={found.tolist()}: must be one whole number a client, at least 0, for {n} clients")
    return found.long()
