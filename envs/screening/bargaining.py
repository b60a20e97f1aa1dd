r"""Bargaining: under governance ``negotiate``, all principals together agree on which contributed updates are admitted.

Under governance ``unanimous`` everybody judges every update alone. So one objection keeps an update out, even if the other updates would
make up for its harm. Here the principals judge the step that a set A of lots makes as a whole. Let p be the lots' shares (with
participants' weights, divided by their sum over A). The step's predicted gain is
:math:`g(A) = \sum_{l \in A} p_l \langle \nabla U, \Delta_l \rangle`. Its predicted harm to value m is
:math:`h_m(A) = \sum_{l \in A} p_l h_{l,m}`. Principal j's satisfaction with the step is

.. math:: s_j(A) = 1 + \frac{g(A)}{g^+} - \frac{1}{|M_j|} \sum_{m \in M_j} \max\Bigl(-1, \frac{h_m(A)}{\tau_{j,m}}\Bigr)

:math:`M_j` are the values for which j has a tolerance. Without any, the last term is missing. A value with tolerance 0 adds 0 to the sum.
:math:`g^+` is the largest first-order gain of any set of the candidates (1 where that is 0). Harm within the tolerances costs at most 1,
and improvement of the values brings at most 1. If nothing happens, everybody's satisfaction is 1: the disagreement point.

A is *admissible* if the step is within everybody's tolerances and directions: :math:`h_m(A) \le \tau_{j,m}` and
:math:`\sum_m w_{j,m} h_m(A) \le 0`. Among the admissible sets, the bargain raises either Nash welfare :math:`\sum_j \log s_j`, or the
satisfaction of the worst-off principal (Rawls 1971); ties are broken by the sum of satisfactions.

Nash (1950) measures utilities from the disagreement point. Here they are measured from a worse point, satisfaction 0, as in Kaneko &
Nakamura (1979). An example is a step that uses up all of j's tolerances and gains nothing. So a principal may end below the disagreement
point, but within its tolerances, if others gain enough.

The search is local. Each move lets one lot in or takes one out, the best move first. The result is never worse than the start. The start is
the unanimous set; or the empty set, if the unanimous set as a whole is inadmissible or worse than nothing. The search need not find the
best set. If a better set needs two changes at once, and each of them alone is bad or inadmissible, it is not found. If two moves are
equally good, the order of lots decides.

References:
    Nash (1950), *The bargaining problem*, Econometrica 18(2). Kaneko & Nakamura (1979), *The Nash social welfare function*,
    Econometrica 47(2). Rawls (1971), *A Theory of Justice*.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

Objective = Literal["nash", "worst_off"]
_RISE = 1e-9  # a move must raise the objective by at least this much
_SLACK = 1e-6  # share of a tolerance, and of all harm on the table, by which rounding may exceed a limit


@dataclass(frozen=True)
class Offers:
    """What is on the table in a batch of E environments with N principals, K lots each, and M values.

    Attributes:
        candidates: Lots that were contributed, are finite, and have no tag or norm that anybody rules out, bool ``(E, N, K)``.
        start: The candidates that pass unanimously, bool ``(E, N, K)``.
        share: Share p of each lot, ``(E, N, K)``, at least 0.
        gain: Predicted gain of each lot's update, ``(E, N, K)``, in the utility's unit; not read for lots that are not candidates.
        harm: Predicted harm, ``(E, N, K, M)``, in each value's unit; not read for lots that are not candidates.
        tolerance: Each principal's tolerances, ``(E, N, M)``, at least 0; infinite where a principal has none.
        directions: Each principal's direction over values, ``(E, N, M)``; zeros where a principal has none.
        weights: fixed: the step is Σ p·Δ; participants: the step is Σ p·Δ divided by the sum of the admitted shares.

    Raises:
        ValueError: If a shape or an entry is not as described above.
    """

    candidates: Tensor
    start: Tensor
    share: Tensor
    gain: Tensor
    harm: Tensor
    tolerance: Tensor
    directions: Tensor
    weights: Literal["fixed", "participants"] = "fixed"

    def __post_init__(self) -> None:
        if self.candidates.ndim != 3 or self.harm.ndim != 4:
            raise ValueError(
                f"candidates {tuple(self.candidates.shape)} and harm {tuple(self.harm.shape)}: must be (E, N, K) and (E, N, K, M)"
            )
        lots, principals = tuple(self.candidates.shape), (*self.candidates.shape[:2], self.harm.shape[-1])
        wanted = dict.fromkeys(("start", "share", "gain"), lots) | dict.fromkeys(("tolerance", "directions"), principals)
        for name, shape in (wanted | {"harm": (*lots, self.harm.shape[-1])}).items():
            if tuple(getattr(self, name).shape) != shape:
                raise ValueError(f"{name} has shape {tuple(getattr(self, name).shape)}: must be {shape}")
        if self.weights not in ("fixed", "participants"):
            raise ValueError(f"weights={self.weights!r}: must be 'fixed' or 'participants'")
        if (self.start & ~self.candidates).any():
            raise ValueError("start contains lots that are not candidates: must be a subset of candidates")
        if not (self.tolerance >= 0).all():
            raise ValueError("tolerance has an entry that is negative or not a number: must be at least 0, or infinite for none")
        if not (self.share >= 0).all():
            raise ValueError("share has an entry that is negative or not a number: must be at least 0")
        if not (self.gain.isfinite() & self.harm.isfinite().all(dim=-1))[self.candidates].all():
            raise ValueError("gain or harm of a candidate is not finite: such a lot must not be a candidate")

    @cached_property
    def _lots(self) -> Tensor:
        """Share, and gain and harm times share, of each lot, float64 ``(E, N·K, 2 + M)``; 0 for lots that are not candidates."""
        share = self.share.double()[..., None]
        columns = torch.cat([torch.ones_like(share), self.gain.double()[..., None], self.harm.double()], dim=-1) * share
        return torch.where(self.candidates[..., None], columns, 0.0).flatten(1, 2)

    @cached_property
    def most_gain(self) -> Tensor:
        """Largest first-order gain of any set of candidates, g⁺, float64 ``(E,)``; 1 where no set has a gain."""
        if self.weights == "fixed":
            most = self._lots[..., 1].clamp(min=0.0).sum(dim=1)
        else:  # a mean is at most its largest member
            matters = self.candidates & (self.share > 0)
            most = torch.where(matters, self.gain.double(), 0.0).flatten(1).amax(dim=1).clamp(min=0.0)
        return torch.where(most > 0, most, 1.0)

    @cached_property
    def objections(self) -> Tensor:
        """Which principal objects to which lot alone, bool ``(E, N, K, N, M + 1)``: because of each value, and last of its direction."""
        over = self.harm[:, :, :, None] > self.tolerance[:, None, None]  # (E, N, K, N, M)
        against = torch.einsum("enkm,ejm->enkj", self.harm, self.directions) > 0
        return torch.cat([over, against[..., None]], dim=-1) & self.candidates[..., None, None]

    def outcome(self, sums: Tensor) -> tuple[Tensor, Tensor]:
        """Everybody's satisfaction with S steps, and whether each is admissible.

        Args:
            sums: Weighted sums of share, gain and harm over the admitted lots, float64 ``(E, S, 2 + M)``.

        Returns:
            Float64 ``(E, S, N)`` and bool ``(E, S)``.
        """
        step = sums[..., 1:]
        if self.weights == "participants":
            total = sums[..., :1]
            # a set whose shares sum to 0 makes no step; the sum may differ from 0 by rounding after removals
            step = torch.where(total > 1e-12, step / total.clamp(min=1e-12), 0.0)
        gain, harm = step[..., 0], step[..., 1:]  # (E, S), (E, S, M)
        tolerance, directions = self.tolerance.double(), self.directions.double()
        on_the_table = self._lots[..., 2:].abs().sum(dim=1)  # (E, M)
        if self.weights == "participants":
            on_the_table = torch.where(self.candidates[..., None], self.harm.double().abs(), 0.0).flatten(1, 2).amax(dim=1)
        satisfaction = (1 + gain / self.most_gain[:, None])[..., None].repeat(1, 1, tolerance.shape[1])  # (E, S, N)
        admissible = torch.ones_like(gain, dtype=torch.bool)
        held = tolerance.isfinite()
        n_held = held.sum(dim=-1).clamp(min=1)  # (E, N)
        for m in range(harm.shape[-1]):  # value by value, to keep memory at (E, S, N)
            h, limit = harm[..., m, None], tolerance[:, None, :, m]  # (E, S, 1), (E, 1, N)
            admissible &= (h <= limit * (1 + _SLACK) + _SLACK * on_the_table[:, m, None, None]).all(dim=-1)
            used = torch.where(limit > 0, h / limit.clamp(min=torch.finfo(torch.float64).tiny), 0.0)  # 0 for infinite limits
            satisfaction -= used.clamp(min=-1.0) / n_held[:, None]
        against = harm @ directions.transpose(-1, -2)  # (E, S, N)
        admissible &= (against <= _SLACK * (directions.abs() @ on_the_table[..., None])[:, None, :, 0]).all(dim=-1)
        return satisfaction, admissible


@dataclass(frozen=True)
class Bargain:
    """What was agreed on in E environments, and how.

    Attributes:
        admitted: The admitted lots, bool ``(E, N, K)``.
        satisfaction: Everybody's satisfaction with the admitted set, ``(E, N)``; it is 1 for the empty set.
        before: Everybody's satisfaction with the unanimous set, ``(E, N)``.
        from_nothing: Whether the search began from the empty set, bool ``(E,)``, because the unanimous set as a whole is inadmissible or
            worse than nothing.
        moves: The lot that each move let in or took out, int64 ``(E, budget)``, as i·K + k; -1 where there was no move.
        added: Whether the move let the lot in, bool ``(E, budget)``.
        rise: By how much the move raised the objective, Σ log s or min s, ``(E, budget)``. Infinite if Σ log s was -∞ before the move.
        change: By how much the move changed everybody's satisfaction, ``(E, budget, N)``.
        offers: What was on the table.
        objective: The objective of the bargain.
    """

    admitted: Tensor
    satisfaction: Tensor
    before: Tensor
    from_nothing: Tensor
    moves: Tensor
    added: Tensor
    rise: Tensor
    change: Tensor
    offers: Offers
    objective: Objective


def welfare(satisfaction: Tensor, objective: Objective) -> tuple[Tensor, Tensor]:
    """The objective, and the measure that breaks ties: ``(..., N)`` → two tensors ``(...)``.

    nash: the objective is Σ log s, which is -∞ if any s ≤ 0; the smallest s breaks ties among those. worst_off: the objective is the
    smallest s; the sum breaks ties.
    """
    least = satisfaction.amin(dim=-1)
    if objective == "worst_off":
        return least, satisfaction.sum(dim=-1)
    total = satisfaction.clamp(min=0.0).log().sum(dim=-1)
    return total, torch.where(total.isinf(), least, 0.0)


def negotiate(offers: Offers, objective: Objective = "nash", budget: int = 8) -> Bargain:
    """Bargain over which lots are admitted.

    Args:
        offers: What is on the table.
        objective: nash: raise the sum of the logarithms of all satisfactions; worst_off: raise the smallest satisfaction.
        budget: Largest number of moves. Each move lets one lot in or takes one out.

    Returns:
        The bargain. The admitted set is admissible, to one part in 10^6 of the tolerances and of the harm on the table. Its objective is at
        least that of the empty set, and at least that of the start if the start is admissible.

    Raises:
        ValueError: If the objective is unknown or the budget negative.
    """
    if objective not in ("nash", "worst_off"):
        raise ValueError(f"objective={objective!r}: must be 'nash' or 'worst_off'")
    if budget < 0:
        raise ValueError(f"budget={budget}: must be at least 0 moves")
    lots, candidates = offers._lots, offers.candidates.flatten(1)  # (E, L, 2 + M), (E, L), with L = N·K
    n_envs, n_principals = offers.tolerance.shape[:2]
    row = torch.arange(n_envs, device=lots.device)

    def value_of(sets: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        satisfaction, admissible = offers.outcome(sets)
        return satisfaction, *welfare(satisfaction, objective), admissible

    admitted = offers.start.flatten(1)
    sums = (lots * admitted[..., None]).sum(dim=1, keepdim=True)  # (E, 1, 2 + M)
    before, first, second, admissible = value_of(sums)
    nothing, nothing_first, nothing_second, _ = value_of(torch.zeros_like(sums))
    worse = (first < nothing_first) | ((first == nothing_first) & (second < nothing_second))
    from_nothing = (worse | ~admissible)[:, 0]
    admitted = admitted & ~from_nothing[:, None]
    now = torch.where(from_nothing[:, None], nothing[:, 0], before[:, 0])  # (E, N)
    first, second = (tensor[:, 0] for tensor in welfare(now[:, None], objective))  # (E,)

    moves = torch.full((n_envs, budget), -1, dtype=torch.int64, device=lots.device)
    added = torch.zeros_like(moves, dtype=torch.bool)
    rise, change = lots.new_zeros(n_envs, budget), lots.new_zeros(n_envs, budget, n_principals)
    for move in range(budget):
        if not candidates.any():
            break
        sums = (lots * admitted[..., None]).sum(dim=1, keepdim=True)  # computed again, so that rounding does not accumulate
        sign = torch.where(admitted, -1.0, 1.0).to(lots.dtype)[..., None]
        satisfaction, a, b, admissible = value_of(sums + sign * lots)  # (E, L, N), (E, L), …: every lot flipped
        better = (a > first[:, None] + _RISE) | ((a >= first[:, None]) & (b > second[:, None] + _RISE))
        better &= admissible & candidates
        moving = better.any(dim=1)
        if not moving.any():
            break
        top = a.masked_fill(~better, -torch.inf).amax(dim=1, keepdim=True)
        best = better & (a >= top - _RISE)
        lot = b.masked_fill(~best, -torch.inf).argmax(dim=1)  # (E,)
        into = satisfaction[row, lot]
        moves[:, move] = torch.where(moving, lot, -1)
        added[:, move] = moving & ~admitted[row, lot]
        jump = torch.where(a[row, lot] == first, 0.0, a[row, lot] - first)  # -∞ to -∞ is no rise
        rise[:, move] = torch.where(moving, jump, 0.0)
        change[:, move] = torch.where(moving[:, None], into - now, 0.0)
        flipped = torch.nn.functional.one_hot(lot, candidates.shape[1]).bool() & moving[:, None]
        admitted = admitted ^ flipped
        now = torch.where(moving[:, None], into, now)
        first, second = torch.where(moving, a[row, lot], first), torch.where(moving, b[row, lot], second)
    dtype = offers.gain.dtype
    return Bargain(
        admitted=admitted.reshape(offers.candidates.shape),
        satisfaction=now.to(dtype),
        before=before[:, 0].to(dtype),
        from_nothing=from_nothing,
        moves=moves,
        added=added,
        rise=rise.to(dtype),
        change=change.to(dtype),
        offers=offers,
        objective=objective,
    )


def measures(satisfaction: Tensor, group: Tensor) -> dict[str, Tensor]:
    """How satisfaction is spread over the principals.

    Args:
        satisfaction: ``(E, N)``.
        group: Number of the profile each principal holds, int64 ``(E, N)``; negative where it holds none.

    Returns:
        By name, ``(E,)`` each:

        * ``total``: the sum;
        * ``worst_group``: the mean over principals with the same profile, for the profile where it is smallest; the mean over all
          principals if nobody holds a profile;
        * ``percentile_20``: the 20th percentile, with linear interpolation between ranks;
        * ``gini``: mean absolute difference over twice the mean, from 0 (all equal); satisfaction below 0 counts as 0;
        * ``nash_welfare``: the geometric mean; 0 if anybody's satisfaction is at most 0.
    """
    n = satisfaction.shape[1]
    everyone = satisfaction.mean(dim=1)
    worst = torch.full_like(everyone, torch.inf)
    for profile in range(int(group.max()) + 1):
        holds = group == profile
        mean = (satisfaction * holds).sum(dim=1) / holds.sum(dim=1).clamp(min=1)
        worst = torch.where(holds.any(dim=1), torch.minimum(worst, mean), worst)
    positive = satisfaction.clamp(min=0.0)
    ranked = positive.sort(dim=1).values
    rank = torch.arange(1, n + 1, device=ranked.device, dtype=ranked.dtype)
    tiny = torch.finfo(ranked.dtype).tiny
    return {
        "total": satisfaction.sum(dim=1),
        "worst_group": torch.where(worst.isinf(), everyone, worst),
        "percentile_20": torch.quantile(satisfaction, 0.2, dim=1),
        "gini": (((2 * rank - n - 1) * ranked).sum(dim=1) / (n * ranked.sum(dim=1)).clamp(min=tiny)).clamp(min=0.0),
        "nash_welfare": positive.log().mean(dim=1).exp(),
    }


def explain(bargain: Bargain, env: int, principals: Sequence[str], values: Sequence[str]) -> str:
    """Say in words what was agreed on in one environment, and why: one line for the start, one for each move, and one for the end.

    Args:
        bargain: The bargain.
        env: Index of the environment.
        principals: Names of the N principals.
        values: Names of the M values.

    Raises:
        ValueError: If there are more or fewer names than principals or values.
    """
    n_lots = bargain.admitted.shape[2]
    for name, names, n in (
        ("principals", principals, bargain.admitted.shape[1]),
        ("values", values, bargain.offers.harm.shape[3]),
    ):
        if len(names) != n:
            raise ValueError(f"{name} has {len(names)} names: must have {n}")
    started, n_candidates = int(bargain.offers.start[env].sum()), int(bargain.offers.candidates[env].sum())
    unanimous = f"the unanimous set, {started} of {_counted(n_candidates, 'lot')}"
    if bargain.from_nothing[env]:
        lines = [f"begins with nothing: {unanimous}, as a whole is inadmissible or worse than nothing"]
    else:
        lines = [f"begins with {unanimous}"]
    target = {"nash": "Nash welfare (sum of logs)", "worst_off": "satisfaction of the worst off"}[bargain.objective]
    n_moves = int((bargain.moves[env] >= 0).sum())
    for move in range(n_moves):
        owner, lot = divmod(int(bargain.moves[env, move]), n_lots)
        added, change = bool(bargain.added[env, move]), bargain.change[env, move]
        most, least = int(change.argmax()), int(change.argmin())
        parts = [f"{principals[most]} gains most ({change[most]:+.3f})"] if change[most] > 0 else ["nobody gains"]
        parts += [f"{principals[least]} loses most ({change[least]:+.3f})"] if change[least] < 0 else ["nobody loses"]
        objectors = _objectors(bargain, env, owner, lot, principals, values)
        lines.append(
            f"{'admits' if added else 'takes out'} {principals[owner]}'s lot {lot}{objectors}: {target} {bargain.rise[env, move]:+.3f}; "
            f"{', '.join(parts)}"
        )
    why = "the budget is spent" if n_moves == bargain.moves.shape[1] else "no single lot in or out would do better"
    lines.append(
        f"ends with {int(bargain.admitted[env].sum())} of {_counted(n_candidates, 'lot')} after {_counted(n_moves, 'move')}: {why}"
    )
    return "\n".join(lines)


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _objectors(bargain: Bargain, env: int, owner: int, lot: int, principals: Sequence[str], values: Sequence[str]) -> str:
    """Who objects to a lot alone, and why, as a clause: ", to which proxy_0 (eights) and proxy_3 (its direction) object"."""
    reasons = [*values, "its direction"]
    objects = bargain.offers.objections[env, owner, lot]  # (N, M + 1)
    who = [
        f"{principal} ({', '.join(reason for reason, no in zip(reasons, objects[j].tolist(), strict=True) if no)})"
        for j, principal in enumerate(principals)
        if objects[j].any()
    ]
    if not who:
        return ""
    listed = who[0] if len(who) == 1 else f"{', '.join(who[:-1])} and {who[-1]}"
    return f", to which {listed} object{'s' if len(who) == 1 else ''}"
