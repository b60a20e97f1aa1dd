r"""The nearest admissible update, by which the filter ``project`` replaces an inadmissible one.

.. math:: \min_{\Delta'} \tfrac12 \|\Delta' - \Delta\|^2 \quad \text{s.t.} \quad
    \langle n_c, \Delta' \rangle \le \ell_c \;\; \forall c, \qquad \|\Delta'\| \le r

This quadratic programme has P unknowns. With C half-spaces and no ball, its dual has only C unknowns:
:math:`\Delta' = \Delta - \sum_c \lambda_c n_c`, where λ ≥ 0 minimises
:math:`\tfrac12 \lambda^\top A \lambda - \lambda^\top (h - \ell)`, with :math:`A_{cd} = \langle n_c, n_d \rangle` and
:math:`h_c = \langle n_c, \Delta \rangle`. The dual is solved by Goldfarb and Idnani's active-set method. It takes finitely many steps, and
it can handle repeated, dependent and opposite normals.

With the ball, the Karush–Kuhn–Tucker conditions give :math:`\Delta' = \Pi(s \Delta)`. Here :math:`\Pi` is the projection on the
half-spaces, and s in (0, 1] is the largest factor with :math:`\|\Pi(s \Delta)\| \le r`. As long as the active set is the same, that norm is
:math:`\sqrt{\kappa + a s^2}`. So each active set gives one root, and the roots are kept inside a bracket.

References:
    Goldfarb & Idnani (1983), *A numerically stable dual method for solving strictly convex quadratic programs*, Mathematical
    Programming 27.
"""

from __future__ import annotations

import torch
from torch import Tensor

_DEPENDENT = 2e-14  # a normal's squared distance from the span of others counts as 0 up to this, per (1 + sum of |coefficients|)²
_VIOLATION = 1e-12  # distance by which a limit may be exceeded inside the solver, per unit of the update's norm

_PASSES = 4  # one is enough, except for rounding where normals are nearly opposite


def inward_margin(dtype: torch.dtype) -> float:
    """How far inside a limit :func:`project` aims, as a share of ‖n‖·‖Δ‖. It is larger than the rounding error of an inner product."""
    return max(8 * torch.finfo(dtype).eps, 10 * _VIOLATION)


def project(updates: Tensor, normals: Tensor, limits: Tensor, max_norm: Tensor) -> Tensor:
    r"""Move each update to the nearest point within its limits.

    Args:
        updates: Δ, ``(E, B, P)``, float32 or float64. An update that is not finite, or whose harm is not, is returned as it is.
        normals: n, ``(E, C, P)``, of the same dtype, shared by the updates of an environment. Zeros, repetitions and opposites are allowed.
        limits: ℓ, ``(E, B, C)``, at least 0, so that the zero update is always admissible; infinite where there is no limit.
        max_norm: r, ``(E, B)``, at least 0; infinite where there is no limit.

    Returns:
        Δ', ``(E, B, P)``. An update within its limits is returned unchanged, to the bit. For any other update, let m be the
        :func:`inward_margin` (9.5e-7 in float32, 1e-11 in float64) and :math:`\mu = m \|n_c\| \min(\|\Delta\|, r)`. Its Δ'

        * is the nearest point for the limits :math:`\max(0, \ell_c - \mu)`. So where :math:`\ell_c \ge \mu`, the comparison
          :math:`\langle n_c, \Delta' \rangle \le \ell_c` holds, except for unusual rounding;
        * never exceeds :math:`\ell_c + \mu`, and does not exceed :math:`\ell_c + \mu / 8` if a few passes are enough. So where
          :math:`\ell_c` is 0, the harm is 0 up to rounding of either sign;
        * has norm at most r, again with a margin of m·r.

        If several normals are opposite or equal up to 1e-6 or less, rounding may keep the solver from its goal. Then Δ' is shrunk towards 0
        until the last two statements hold, and it need not be the nearest point.

    Raises:
        ValueError: If shapes do not fit, or a limit is negative or not a number.
    """
    _check(updates, normals, limits, max_norm)
    harm, norm, broken = _broken(updates, normals, limits, max_norm)  # (E, B, C), (E, B), (E, B)
    if not broken.any():
        return updates
    unit = normals.double()
    length = torch.linalg.vector_norm(unit, dim=-1)  # (E, C)
    unit = unit / length.clamp(min=torch.finfo(torch.float64).tiny)[..., None]
    # the move is computed in an orthonormal basis: multipliers of nearly opposite normals are huge and cancel, coordinates are not
    basis, coordinates = torch.linalg.qr(unit.transpose(-1, -2))  # (E, P, R), (E, R, C), with R = min(P, C)
    gram = coordinates.transpose(-1, -2) @ coordinates  # (E, C, C)
    span = basis.transpose(-1, -2).to(updates.dtype)
    margin = inward_margin(updates.dtype)
    inwards = margin * length.to(norm.dtype)[:, None] * torch.minimum(norm, max_norm)[..., None]  # μ, (E, B, C)

    result = updates
    for _ in range(_PASSES):
        environment = broken.nonzero()[:, 0]
        per_length = 1 / length[environment]
        per_length[~per_length.isfinite()] = 0.0  # a zero normal has no harm, and its limit is at least 0
        s, multipliers = _solve(
            gram[environment],
            harm[broken].double() * per_length,
            (limits - inwards).clamp(min=0.0)[broken].double() * per_length.masked_fill(per_length == 0, 1.0),
            norm[broken].double(),
            max_norm[broken].double() * (1 - margin),
        )
        factor, move = torch.ones_like(norm), result.new_zeros(*norm.shape, span.shape[1])
        factor[broken] = s.to(norm.dtype)
        move[broken] = (coordinates[environment] @ multipliers[..., None])[..., 0].to(move.dtype)
        moved = torch.baddbmm(result * factor[..., None], move, span, alpha=-1)
        result = torch.where(broken[..., None], moved, result)
        max_norm = torch.minimum(max_norm, norm)  # 0 is admissible, so the nearest point is not longer than the update
        # where rounding leaves more than an eighth of the margin, the next pass corrects it
        harm, norm, broken = _broken(result, normals, limits + inwards / 8, max_norm)
        if not broken.any():
            return result
    return _pulled_in(result, limits + inwards, max_norm, harm, norm, broken)


def _check(updates: Tensor, normals: Tensor, limits: Tensor, max_norm: Tensor) -> None:
    if updates.ndim != 3 or normals.ndim != 3 or normals.shape[::2] != updates.shape[::2]:
        raise ValueError(
            f"updates {tuple(updates.shape)} and normals {tuple(normals.shape)}: must be (E, B, P) and (E, C, P), with the same E and P"
        )
    expected = {"limits": (*updates.shape[:2], normals.shape[1]), "max_norm": tuple(updates.shape[:2])}
    for name, tensor in (("limits", limits), ("max_norm", max_norm)):
        if tuple(tensor.shape) != expected[name]:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}: must be {expected[name]}")
        if not (tensor >= 0).all():
            raise ValueError(f"{name} has an entry that is negative or not a number: must be at least 0, or infinite for no limit")


def _broken(updates: Tensor, normals: Tensor, limits: Tensor, max_norm: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Harm ``(E, B, C)``, norm ``(E, B)``, and whether a finite update breaks a limit, bool ``(E, B)``."""
    harm, norm = updates @ normals.transpose(-1, -2), torch.linalg.vector_norm(updates, dim=-1)
    broken = (harm > limits).any(dim=-1) | (norm > max_norm)
    return harm, norm, broken & harm.isfinite().all(dim=-1) & norm.isfinite()


def _pulled_in(updates: Tensor, limits: Tensor, max_norm: Tensor, harm: Tensor, norm: Tensor, broken: Tensor) -> Tensor:
    """Shrink the updates that still exceed a limit towards 0, which is within every limit."""
    size, limit = torch.cat([harm, norm[..., None]], dim=-1), torch.cat([limits, max_norm[..., None]], dim=-1)  # (E, B, C + 1)
    factor = torch.where(size > limit, limit / size * (1 - inward_margin(updates.dtype)), 1.0).amin(dim=-1)  # (E, B)
    return torch.where(broken[..., None], updates * factor[..., None], updates)


def _solve(gram: Tensor, harm: Tensor, limit: Tensor, norm: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
    """Factor s and multipliers λ of n problems: ``(n, C, C)``, ``(n, C)``, ``(n, C)``, ``(n,)``, ``(n,)`` → ``(n,)`` and ``(n, C)``.

    The solution of each problem is sΔ − λᵀn, for unit normals n.
    """
    s = torch.ones_like(norm)
    multipliers = _multipliers(gram, harm - limit, _VIOLATION * norm)
    left = (_squared_norm(gram, harm, norm, s, multipliers) > radius.square()).nonzero()[:, 0]  # problems in which the ball matters
    low, high = radius / norm, torch.ones_like(norm)  # Π shortens, because 0 is admissible: so s = r/‖Δ‖ is small enough
    s[left], multipliers[left] = low[left], 0.0
    trial = low.clone()
    for iteration in range(200):
        if not len(left):
            break
        a, h, size, r, t = gram[left], harm[left], norm[left], radius[left], trial[left]
        found = _multipliers(a, t[:, None] * h - limit[left], _VIOLATION * t * size)
        squared = _squared_norm(a, h, size, t, found)
        within = squared <= r.square() * (1 + 1e-13)
        s[left] = torch.where(within, t, s[left])
        multipliers[left] = torch.where(within[:, None], found, multipliers[left])
        low[left] = torch.where(within, t, low[left])
        high[left] = torch.where(within, high[left], t)
        slope = size.square() - (_solved(a, found > 0, h) * h).sum(dim=-1)  # the a of κ + a s²
        root = (t.square() + (r.square() - squared) / slope).clamp(min=0.0).sqrt()
        middle = (low[left] + high[left]) / 2
        # every third step halves the bracket, so that a long series of active sets cannot slow down the search
        inside = (root > low[left]) & (root < high[left]) if iteration % 3 != 2 else torch.zeros_like(within)
        trial[left] = torch.where(inside, root, middle)
        done = within & (squared >= r.square() * (1 - 1e-12))
        done |= high[left] - low[left] <= 1e-13 * high[left]
        left = left[~done]
    return s, multipliers


def _squared_norm(gram: Tensor, harm: Tensor, norm: Tensor, s: Tensor, multipliers: Tensor) -> Tensor:
    """‖sΔ − λᵀn‖² from inner products, ``(n,)``."""
    pulled = (gram @ multipliers[..., None])[..., 0] - 2 * s[:, None] * harm
    return s.square() * norm.square() + (multipliers * pulled).sum(dim=-1)


def _solved(gram: Tensor, active: Tensor, right: Tensor) -> Tensor:
    """x with A_PP x_P = b_P for each problem's active set P, and 0 outside it, ``(n, C)``."""
    identity = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    matrix = torch.where(active[:, :, None] & active[:, None, :], gram, identity)
    solution, _ = torch.linalg.solve_ex(matrix, right.masked_fill(~active, 0.0))
    return torch.as_tensor(solution)


def _multipliers(gram: Tensor, excess: Tensor, tolerance: Tensor) -> Tensor:
    """The dual's solution λ, ``(n, C)``, for unit normals: ``(n, C, C)``, ``(n, C)`` (-inf: no limit) and ``(n,)``.

    The search starts from λ = 0. The most violated limit *enters* the active set: its multiplier grows, while the other multipliers keep
    the active limits tight. It grows until the limit is met, or until another multiplier falls to 0 and its limit leaves the active set.
    The dual objective never decreases, and no active set occurs twice. A problem that is solved is taken out, so that no solution depends
    on how long the other problems take.
    """
    n, size = excess.shape
    excess = excess.clone()
    multipliers, active = torch.zeros_like(excess), torch.zeros_like(excess, dtype=torch.bool)
    if size == 0:
        return multipliers
    entering = torch.full((n,), -1, dtype=torch.int64, device=excess.device)
    left = torch.arange(n, device=excess.device)
    for _ in range(20 * size + 20):  # far more than needed; what is not solved by then is shrunk afterwards
        a, y, on, j = gram[left], multipliers[left], active[left], entering[left]
        violation = excess[left] - (a @ y[..., None])[..., 0]  # (left, C)
        worst, most = violation.masked_fill(on, -torch.inf).max(dim=-1)
        finished = (j < 0) & (worst <= tolerance[left])
        if finished.any():
            keep = ~finished
            left, a, y, on, j, violation, most = left[keep], a[keep], y[keep], on[keep], j[keep], violation[keep], most[keep]
            if not len(left):
                break
        j = torch.where(j < 0, most, j)[:, None]  # (left, 1)
        column = a.gather(2, j[..., None].expand(-1, size, 1))[..., 0]  # (left, C)
        slide = _solved(a, on, column)  # by how much the active multipliers fall per unit of the entering one
        curvature = 1 - (slide * column).sum(dim=-1)  # squared sine of the angle to the active normals
        independent = curvature > _DEPENDENT * (1 + slide.abs().sum(dim=-1)).square()  # beyond rounding
        full = torch.where(independent, violation.gather(1, j)[:, 0].clamp(min=0.0) / curvature, torch.inf)
        partial, leaver = torch.where(on & (slide > 0), y / slide, torch.inf).min(dim=-1)
        step = torch.minimum(full, partial)
        stuck = step.isinf()  # dependent, and no limit can leave: the limit is met, up to rounding
        step = step.masked_fill(stuck, 0.0)[:, None]
        met = (full <= partial) & ~stuck
        excess[left] = excess[left].scatter(1, j, torch.where(stuck[:, None], -torch.inf, excess[left].gather(1, j)))

        y = (y - step * slide).clamp(min=0.0).scatter_add(1, j, step)
        leaves = torch.zeros_like(on).scatter(1, leaver[:, None], ~(met | stuck)[:, None])
        multipliers[left] = y.masked_fill(leaves, 0.0)
        active[left] = (on & ~leaves).scatter(1, j, met[:, None])
        entering[left] = torch.where(met | stuck, -1, j[:, 0])
    return multipliers
