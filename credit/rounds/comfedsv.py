"""ComFedSV: the Shapley value of a utility matrix whose unknown entries are completed."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ..arguments import checked_budget, checked_seed, is_number, is_whole
from ..estimators.sampling import affordable, positions, prefixes, random_orders, tensor
from ..games.game import MAX_ENUMERATED, coalition_matrix, packed
from ..games.round import Round
from ..rule import RULES, CreditRule, Family
from ..solutions.semivalues import semivalues, shapley_weights

MAX_ALL = 10
"""Largest number of agents for which all coalitions are columns if there is no budget."""
BETTER = 1e-3
"""By which part of itself a fit's loss must be undercut before another fit is used: sweeps may leave less than that to be gained."""


def complete(observed: Tensor, mask: Tensor, start: Tensor, *, regularisation: float, sweeps: int) -> tuple[Tensor, Tensor]:
    r"""Complete matrices of which some entries are known with low-rank ones, by alternating least squares.

    .. math:: \min_{W, H} \sum_{(t, S) \text{ known}} (U_{tS} - w_t^\top h_S)^2 + \lambda \, (\lVert W \rVert^2 + \lVert H \rVert^2)

    Given H, every row of W is a ridge regression; given W, every row of H is one. A sweep does both. It then gives the columns of W and H
    the same lengths, which changes no product and lowers the penalty. (Without that step, thousands of sweeps are needed when λ is small.)
    A row or column of which nothing is known is 0. The problem is not convex: an unlucky start ends in a local minimum. With rank 1 that
    takes entries of both signs, of which a factor gets the wrong one.

    Args:
        observed: U, ``(E, T, C)``; what is not known is not read.
        mask: Which entries are known, bool ``(E, T, C)``.
        start: H before the first sweep, ``(C, rank)`` for every matrix, or ``(E, C, rank)``.
        regularisation: λ, positive, in U's unit.
        sweeps: Number of sweeps.

    Returns:
        W ``(E, T, rank)`` and H ``(E, C, rank)``; the completed matrices are ``w @ h.mT``.
    """
    known = mask.to(observed.dtype)
    u = torch.where(mask, observed, 0.0)
    h = start.to(observed).expand(len(u), -1, -1)
    w = u.new_zeros(*u.shape[:2], start.shape[1])
    for _ in range(sweeps):
        w = _ridge(h, u, known, regularisation)
        h = _ridge(w, u.mT, known.mT, regularisation)
        lengths = w.norm(dim=1, keepdim=True), h.norm(dim=1, keepdim=True)  # (E, 1, rank) each
        balance = torch.where(lengths[0] * lengths[1] > 0, lengths[0] / lengths[1], 1.0).sqrt()
        w, h = w / balance, h * balance
    return w, h


def _ridge(features: Tensor, targets: Tensor, known: Tensor, regularisation: float) -> Tensor:
    """Regressions of each row of targets ``(E, A, B)``, 0 where not known, on features ``(E, B, rank)``: ``(E, A, rank)``."""
    rank = features.shape[-1]
    products = (features[..., :, None] * features[..., None, :]).flatten(start_dim=2)  # (E, B, rank²)
    normal = (known @ products).unflatten(2, (rank, rank))  # (E, A, rank, rank)
    penalty = regularisation * torch.eye(rank).to(features)
    solution: Tensor = torch.linalg.solve(normal + penalty, (targets @ features)[..., None])[..., 0]
    return solution


@RULES.register("comfedsv")
class ComFedSv(CreditRule):
    r"""Pays what agents would have earned had everybody taken part in every round: the completed federated Shapley value.

    .. math:: c^t = \phi^t - \phi^{t-1}, \qquad
        \phi^t = \begin{cases}
        \mathrm{Shapley}\Bigl(S \mapsto \sum_{\tau \le t} w_\tau^\top h_S\Bigr)
        & \text{if } I_\tau = I_1 \cup \dots \cup I_t \text{ for some } \tau \le t \\
        \sum_{\tau \le t} \mathrm{Shapley}\bigl(S \mapsto v_\tau(S \cap I_\tau)\bigr) & \text{otherwise}
        \end{cases}

    .. math:: \min_{W, H} \sum_{\tau \le t} \sum_{S \subseteq I_\tau} \bigl(v_\tau(S) - w_\tau^\top h_S\bigr)^2
        + \lambda \, (\lVert W \rVert^2 + \lVert H \rVert^2)

    where :math:`I_\tau` are the agents who contributed a lot in round τ, admitted or not. The utilities of an episode form a matrix, with a
    row for each round and a column for each coalition. An entry is known if all of the coalition took part. A matrix of low rank is fitted
    to the known entries and gives the others (:func:`complete`). So the Shapley value of the completed utilities does not depend on who
    took part when.

    A column of which no entry is known cannot be completed: whatever it is filled with fits as well. The source assumes that there is none,
    because everybody takes part in the first round ("everyone being heard"). Here proxies choose, so the assumption is checked in every
    environment and round: it holds if all agents who have taken part so far met in some round. While it does not hold, nothing is
    completed, and agents have been paid the sum of what each round was worth to those who took part in it. That is the value of ``fedsv``.

    After every round the matrix is fitted anew. The round pays by how much φ has changed, so an episode's credits sum to its last φ,
    whatever was paid on the way. A round in which the assumption begins or ceases to hold therefore settles earlier rounds: it pays agents
    for rounds in which they rested, or takes that back. An environment in which nobody takes part pays nobody in that round.

    Without a budget, all coalitions of up to 10 agents are columns. Otherwise the columns are the prefixes of random orders: as many orders
    as fit, and the same ones for the whole episode. Both values are then the mean over these orders. Only columns that some environment
    needs are evaluated. Memory grows with environments × columns × (rounds + rank²).

    Where only m of the members are present in a round, the assumption can hold only while at most m agents have taken part in the whole
    episode: :math:`I_\tau` has no more. Until then the columns are coalitions of these; from then on nothing is completed for good. So
    memory grows with m, and not with the number of members. A round costs up to twice the columns while the assumption may still hold: once
    for what it is worth by itself, and once for the matrix. A round pays those who are present what they are worth so far, less what they
    have been paid. What a round changes for an agent that is absent waits until it is present again.

    None of the axioms holds in a round: the penalty shrinks the sum, and a new fit pays for earlier rounds too. Over an episode in which
    the assumption holds, identical agents are paid about the same, whenever they took part. Over one in which it does not, credits sum to
    what the rounds have gained.

    Known failure: the promise itself. While the assumption holds, an agent that has taken part once is paid for rounds in which it did
    nothing, as much as if it had repeated what it did then. And where the relative worth of coalitions changes, as with harmful agents, a
    matrix of low rank extrapolates wrongly.

    Departures from the source:

    - Scale. The penalty depends on the unit of the utility. So an environment's utilities are divided by the largest absolute one that is
      known, and the fit is scaled back. While all that is known is 0, everybody is paid 0.
    - First round. In the source everybody takes part in the first round. Here any round will do, and only those who have taken part so far
      must have met in it. An agent that has never taken part counts as a null player, and the entry of S is that of its members who have.
      So equal columns occur, and the penalty weighs the less the more agents there are that have never taken part.
      (In a single round, an agent that takes no part is a null player of the game itself: its presence changes no coalition's worth.)
    - Before that round, the value of ``fedsv`` is paid. The source leaves such histories out, and we found no other source that completes a
      column without an entry.
    - Start of a fit. Every fit begins where the first one began, rather than with the last W and H. A fit to one round has rank one, and
      alternating least squares would never leave it. So the episode's sum is the source's value, whatever was paid on the way. That start
      takes all worths to have one sign. Where they have both, a second fit begins with the largest round in which everyone met, and the
      better one of the two is used.
    - Defaults. The rank is 1 and λ is 0.01, where others used 5 and 0.1. The penalty amounts to a nuclear norm. At higher ranks it explains
      a round of few participants by a vector of its own, rather than by large utilities of coalitions that were seen in few rounds, and
      completes too little.

    Args:
        rank: Length of the vectors w and h, at least 1. With 1, a round is a factor on what coalitions are worth.
        regularisation: λ, at least 1e-9, relative to the largest absolute utility that is known.
        sweeps: Sweeps of alternating least squares after each round, at least 1.
        budget: Most columns, at least n. ``None`` is all coalitions of up to 10 agents; for more agents it is 1,023 or 20 an agent,
            whichever is more.
        seed: Seed of the orders, and of the H that fits begin with; a whole number from 0.

    Raises:
        ValueError: If an argument is not a number in its range. At reset, if the budget is too small for the number of agents.

    References:
        Fan, Fang, Zhou, Pei, Friedlander, Liu & Zhang (2022), *Improving fairness for data valuation in horizontal federated learning*,
        ICDE; arXiv 2109.09046.
    """

    family: ClassVar[Family] = "federated"
    source = "Fan et al. 2022 (ICDE; arXiv 2109.09046)"
    pays = "Shapley value of all rounds, with missing coalitions completed by low rank"
    known_failure = "an agent is paid for rounds in which it rests"
    _value: Tensor
    """φ, what all rounds so far are worth to each agent, ``(E, N)``."""
    _apart: Tensor
    """The sum of the rounds' own Shapley values so far, ``(E, N)``."""
    _places: Tensor
    _too_many: Tensor
    by_agent: ClassVar[bool] = True

    def __init__(self, rank: int = 1, regularisation: float = 0.01, sweeps: int = 60, budget: int | None = None, seed: int = 0) -> None:
        for name, number in (("rank", rank), ("sweeps", sweeps)):
            if not is_whole(number, 1):
                raise ValueError(f"{name}={number!r}: must be a positive whole number")
        if not is_number(regularisation) or regularisation < 1e-9:
            raise ValueError(f"regularisation={regularisation!r}: must be a number of at least 1e-9")
        self.rank = int(rank)
        self.regularisation = float(regularisation)
        self.sweeps = int(sweeps)
        self.budget = checked_budget(budget)
        self.seed = checked_seed(seed)
        self.evaluations = "≤ max(1023, 20 n)" if budget is None else str(budget)
        self._forget()

    def cost(self, n_players: int) -> int:
        """The number of columns: all of them are known in a round in which everybody takes part."""
        budget = max((1 << MAX_ALL) - 1, 20 * n_players) if self.budget is None else self.budget
        return min(budget, (1 << n_players) - 1)

    def method(self, n_players: int) -> str:
        """Which coalitions are columns."""
        columns = "all coalitions" if self._all(n_players) else "prefixes of random orders"
        return f"completion of {columns}, {super().method(n_players)}"

    def check(self, n_players: int) -> None:
        """Refuse a cooperative for which the budget is too small for one order.

        Raises:
            ValueError: If it is too small; the message says how much is needed.
        """
        super().check(n_players)
        if self.cost(n_players) < min(n_players, (1 << n_players) - 1):
            raise ValueError(f"budget={self.budget} is too small for ComFedSv with {n_players} players: pass at least {n_players}")

    def reset(self, num_envs: int, num_agents: int) -> None:
        """Begin episodes, with no memory."""
        super().reset(num_envs, num_agents)
        self._forget()

    def assign(self, round: Round) -> Tensor:
        """Credit of every agent for this round, ``(E, N)``, in the utility's unit."""
        if round.num_agents < round.n_members:
            return self._assign_to_some(round)
        took_part = round.took_part
        if not self._took_part:
            self._set_up(round)
        self._took_part.append(took_part)
        rounds = torch.stack(self._took_part, dim=1)  # (E, T, N)
        heard = rounds.any(dim=1)  # (E, N)
        meeting = (rounds == heard[:, None]).all(dim=2)  # (E, T): everyone heard so far has taken part in this round
        met = meeting.any(dim=1)  # (E,)
        known = self._known()  # (E, T, C)
        alone = self._observe(round, known[:, -1], ~met | ~heard.all(dim=1))

        before = self._value
        self._apart = self._apart + torch.where(took_part, self._divide(alone), 0.0)
        whole = self._completed(known, meeting) * heard if met.any() else self._apart
        value = torch.where(met[:, None], whole, self._apart)
        self._value = torch.where(took_part.any(dim=1, keepdim=True), value, before)
        return (self._value - before).to(self._dtype)

    def _assign_to_some(self, round: Round) -> Tensor:
        """The same where only some members are present: columns are coalitions of places, which agents take when they first take part."""
        took_part, agents, m = round.took_part, round.agents, round.num_agents
        if not self._took_part:
            self._set_up(round)
            self._value = self._apart = self._value.new_zeros(round.num_envs, round.n_members)
            self._places = torch.full_like(agents, -1)  # who has which place, (E, m)
            self._too_many = torch.zeros_like(took_part[:, 0])  # where more agents have taken part than there are places, (E,)
        taken = (self._places >= 0).sum(dim=1)
        heard = (self._places[:, :, None] == agents[:, None]).any(dim=1)  # (E, m): of those present
        for seat in range(m):
            new = took_part[:, seat] & ~heard[:, seat]
            self._too_many = self._too_many | new & (taken >= m)
            at = torch.where(new & (taken < m), taken, -1)[:, None] == torch.arange(m, device=agents.device)
            self._places = torch.where(at, agents[:, seat, None], self._places)
            taken = taken + (new & (taken < m))
        seat_of = (self._places[:, :, None] == agents[:, None]) & took_part[:, None]  # (E, place, seat)
        self._took_part.append(seat_of.any(dim=2))
        rounds = torch.stack(self._took_part, dim=1)  # (E, T, place)
        heard = self._places >= 0
        meeting = (rounds == heard[:, None]).all(dim=2)  # (E, T)
        met = meeting.any(dim=1) & ~self._too_many

        columns = round.value(self._columns)  # of seats: what each column is worth to those present, (E, C)
        self._dtype = columns.dtype
        own = self._divide(torch.where(took_part.double() @ self._columns.T.double() > 0, columns.double(), 0.0))
        worth = torch.where(took_part, own, 0.0)
        self._apart = round.among_members(round.of_agents(self._apart) + worth, self._apart)
        value = self._apart
        if self._too_many.all():
            self._utilities.clear()
        else:
            known = self._known()  # (E, T, C)
            there = (self._columns.double() @ seat_of.double()) > 0  # (E, C, seat)
            of_places = round.lots.value(there[..., None] & round.admitted[:, None]).double()
            self._utilities.append(torch.where(known[:, -1], of_places, 0.0))
            if met.any():
                whole = self._completed(known, meeting) * heard  # of places
                by_member = torch.zeros_like(value).scatter_add_(1, self._places.clamp(min=0), whole)
                value = torch.where(met[:, None], by_member, value)
        paid = round.of_agents(self._value)
        due = torch.where(took_part.any(dim=1, keepdim=True), round.of_agents(value), paid)
        self._value = round.among_members(due, self._value)
        return (due - paid).to(self._dtype)

    def _completed(self, known: Tensor, meeting: Tensor) -> Tensor:
        """The Shapley value of all rounds so far, completed from what is known.

        Args:
            known: Which entries are known, bool ``(E, T, C)``.
            meeting: The rounds in which everyone met, bool ``(E, T)``.

        Returns:
            ``(E, N)``.
        """
        u = torch.stack(self._utilities, dim=1)  # (E, T, C), 0 where not known
        scale = u.abs().amax(dim=(1, 2))  # (E,)
        unit = torch.where(scale > 0, scale, 1.0)[:, None]
        u = u / unit[..., None]
        total, loss = self._fit(u, known, self._start)
        mixed = (u > 0).any(dim=2).any(dim=1) & (u < 0).any(dim=2).any(dim=1)  # (E,)
        if mixed.any():
            largest = torch.where(meeting, u.square().sum(dim=2), 0.0).argmax(dim=1)  # (E,)
            met = u.gather(1, largest[:, None, None].expand(-1, 1, u.shape[2])).mT  # (E, C, 1)
            start = torch.cat([met, self._start[:, 1:].expand(len(u), -1, -1)], dim=2)
            other, loss_of_other = self._fit(u, known, start)
            total = torch.where((mixed & (loss_of_other < (1 - BETTER) * loss))[:, None], other, total)
        return self._divide(unit * total)

    def _fit(self, u: Tensor, known: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        """The completed worths, summed over rounds, ``(E, C)``, and what the fit has minimised, ``(E,)``; see :func:`complete`."""
        w, h = complete(u, known, start, regularisation=self.regularisation, sweeps=self.sweeps)
        missed = torch.where(known, u - w @ h.mT, 0.0).square().sum(dim=(1, 2))
        loss = missed + self.regularisation * (w.square().sum(dim=(1, 2)) + h.square().sum(dim=(1, 2)))
        return (w.sum(dim=1, keepdim=True) @ h.mT)[:, 0], loss

    def _forget(self) -> None:
        self._took_part: list[Tensor] = []  # (E, N) a round
        self._utilities: list[Tensor] = []  # (E, C) a round, 0 where not known
        self._value = self._apart = torch.zeros(0)

    def _all(self, n_players: int) -> bool:
        """Whether all coalitions are columns."""
        return n_players <= MAX_ENUMERATED and self.cost(n_players) == (1 << n_players) - 1

    def _set_up(self, round: Round) -> None:
        """The columns, and the H that fits begin with, for a new episode."""
        n, device = round.num_agents, round.contributed.device
        generator = np.random.default_rng((self.seed, round.episode, round.t))
        if self._all(n):
            self._columns, self._shares = coalition_matrix(n, device)[1:], None
        else:
            self._columns, self._shares = (made.to(device) for made in _prefix_columns(n, self.cost(n), generator))
        self._start = torch.from_numpy(0.1 * generator.standard_normal((len(self._columns), self.rank))).to(device)
        self._start[:, 0] += 1  # most utilities have one sign; the noise is for those that sum to 0
        self._value = self._apart = torch.zeros(round.num_envs, n, dtype=torch.float64, device=device)

    def _known(self) -> Tensor:
        """Which columns S are known in each round so far, bool ``(E, T, C)``: one of S took part, and so did all of S that ever did."""
        took_part = torch.stack(self._took_part, dim=1)  # (E, T, N)
        missing = took_part.any(dim=1, keepdim=True) & ~took_part
        members = self._columns.T.double()
        return (took_part.double() @ members > 0) & (missing.double() @ members == 0)

    def _observe(self, round: Round, known: Tensor, apart: Tensor) -> Tensor:
        """Keep the round's utilities where they are ``known`` ``(E, C)``, and give its own game, v(S ∩ I) of every column S.

        Args:
            round: The round.
            known: Which columns are known in it.
            apart: Environments ``(E,)`` in which the round's own game may be needed. Elsewhere the answer may be anything.

        Returns:
            ``(E, C)``, in double precision.
        """
        took_part = round.took_part
        here = took_part.double() @ self._columns.T.double() > 0  # (E, C): somebody of S is there
        asked = (known | here & apart[:, None]).any(dim=0) if self._shares is not None else known.any(dim=0)
        present = took_part.any(dim=0)  # in some environment; the others are null players everywhere
        v = round.value(self._columns[asked] & present)
        self._dtype = v.dtype
        u = torch.zeros(known.shape, dtype=torch.float64, device=known.device)
        u[:, asked] = v.double()
        self._utilities.append(torch.where(known, u, 0.0))
        if self._shares is not None:
            return torch.where(here, u, 0.0)
        bits = 2 ** torch.arange(took_part.shape[1], device=known.device)
        among = torch.arange(1, known.shape[1] + 1, device=known.device) & (took_part * bits).sum(dim=1)[:, None]  # codes of S ∩ I
        return torch.nn.functional.pad(u, (1, 0)).gather(1, among)

    def _divide(self, total: Tensor) -> Tensor:
        """The Shapley value of the columns' worths, ``(E, C)`` → ``(E, N)``."""
        if self._shares is not None:
            return total @ self._shares
        return semivalues(torch.nn.functional.pad(total, (1, 0)), shapley_weights(self._columns.shape[1]))


def _prefix_columns(n: int, budget: int, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Distinct prefixes of as many random orders as fit: bool ``(C, n)``, and each one's share in each agent's value, ``(C, n)``."""
    orders = random_orders(n, 2 * ((budget - 1) // (n - 1)) + 1, generator)
    inside = prefixes(positions(orders))  # (K, n − 1, n)
    n_orders, _ = affordable(inside, budget - 1)
    everyone = np.ones((n_orders, 1, n), dtype=bool)
    rows = np.concatenate([inside[:n_orders], everyone], axis=1).reshape(-1, n)
    _, first, column = np.unique(packed(rows), return_index=True, return_inverse=True)
    column, orders = column.reshape(n_orders, n), orders[:n_orders]
    shares = np.zeros((len(first), n))
    np.add.at(shares, (column, orders), 1 / n_orders)  # the agent that joins last gets what the prefix is worth …
    np.add.at(shares, (column[:, :-1], orders[:, 1:]), -1 / n_orders)  # … less what it was before
    return tensor(rows[first]), torch.from_numpy(shares)
