r"""Surrogates: cheap games that stand in for one that is dear to evaluate.

A value φ that is linear in the game can be split, :math:`\phi(v) = \phi(s) + \phi(v - s)`. Where φ(s) is known, only the value of the small
difference has to be estimated from evaluations of v. The surrogate s is then a *control variate*: the estimate is right whatever s is, and
its error is that of the difference.

A round has a surrogate because it is no black box. With :math:`u_i` what agent i adds to the step, and g and H the utility's gradient and
Hessian where the round's game starts, its *quadratic expansion* is

.. math:: s(S) = \langle g, x_S \rangle + \tfrac12 \langle x_S, H x_S \rangle, \qquad
    x_S = \sum_{i \in S} u_i \quad\text{or}\quad x_S = \frac{1}{w(S)} \sum_{i \in S} u_i, \quad w(S) = \sum_{i \in S} w_i

for fixed weights, and for weights that are renormalised over those who take part. It is a matter of n numbers
:math:`\ell_i = \langle g, u_i \rangle` and an n × n matrix :math:`Q_{ij} = \langle u_i, H u_j \rangle`.

**Its semivalues are known in closed form.** A semivalue is a mixture, over chances p, of what a player adds to a coalition that each of the
others has joined with chance p (Owen 1972; Dubey, Neyman & Weber 1981): Shapley's takes all p alike, Banzhaf's takes p = ½. With fixed
weights that is :math:`\phi_i = \ell_i + \tfrac12 Q_{ii} + \mathrm{E}[p] \sum_{j \ne i} Q_{ij}`. With renormalised weights,
:math:`1/w(S) = \int_0^\infty e^{-t\,w(S)} dt` and :math:`1/w(S)^2 = \int_0^\infty t\,e^{-t\,w(S)} dt` turn the expectation into products
over players, for each p and t. The integral over p is exact by Gauss and Legendre's rule, since it is of a polynomial. The one over t is of
an analytic function, and is taken by a double-exponential rule. So φ(s) is exact to about nine digits of the largest value, at O(n³)
operations, for weights down to 1e-8 of their sum.

References:
    Owen (1972), *Multilinear extensions of games*, Management Science 18. Takahasi & Mori (1974), *Double exponential formulas for
    numerical integration*, Publ. RIMS 9. Control variates with known value: Witter, Liu & Musco (2025), *Regression-adjusted Monte Carlo
    estimators for Shapley values and probabilistic values*, NeurIPS. The expansion of a round as one: ours.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from .game import Chances, CoalitionGame, Surrogate

_LEAST_SHARE, _ASYMMETRY = 1e-8, 1e-4
_STEP, _FIRST, _LAST = 0.35, -3.2, math.log(30 / _LEAST_SHARE) + 2.5
"""Points of the integral over t, in logarithms: an error below 1e-9 where no weight above 0 is a smaller share of the sum."""
_CHUNK = 2**21  # numbers that a temporary tensor may hold: 16 MiB


@lru_cache(maxsize=64)
def chances(value: str, n_players: int) -> Chances:
    """The mixture that a semivalue is, with points that are exact for polynomials of degree n − 1.

    Args:
        value: ``shapley`` or ``banzhaf``.
        n_players: Number of players n.

    Raises:
        ValueError: If it is another value.
    """
    if value == "banzhaf":
        return (0.5,), (1.0,)
    if value != "shapley":
        raise ValueError(f"value={value!r}: must be shapley or banzhaf")
    points, weights = np.polynomial.legendre.leggauss((n_players + 1) // 2)
    return tuple(((points + 1) / 2).tolist()), tuple((weights / 2).tolist())


def quadratic(linear: Tensor, curvature: Tensor, weight: Tensor | None = None, name: str = "quadratic expansion") -> Surrogate:
    r"""The game :math:`s(S) = \langle \ell, c_S \rangle + \tfrac12 \langle c_S, Q c_S \rangle`, whose semivalues are known.

    Args:
        linear: ℓ, ``(n_envs, n)``, in the game's unit, times the weights' unit if there are any.
        curvature: Q, symmetric, ``(n_envs, n, n)``, in the game's unit, times the weights' unit squared if there are any.
        weight: Weights w of the players, ``(n_envs, n)``, 0 or at least 1e-8 of the sum over the players: then :math:`c_S = 1_S / w(S)`,
            and players without a weight have no part in it. ``None``: :math:`c_S = 1_S`.
        name: What it is, in words.

    Returns:
        The surrogate, in double precision.

    Raises:
        ValueError: If the shapes do not fit together, the curvature is not symmetric, or a weight is negative, not finite, or above 0 and
            below 1e-8 of the sum.
    """
    if linear.dim() != 2:
        raise ValueError(f"linear has shape {tuple(linear.shape)}, must be (n_envs, n)")
    n_envs, n = linear.shape
    for what, one, shape in (("curvature", curvature, (n_envs, n, n)), ("weight", weight, (n_envs, n))):
        if one is not None and one.shape != shape:
            raise ValueError(f"{what} has shape {tuple(one.shape)}, must be {shape} for linear of shape {(n_envs, n)}")
    linear, curvature = linear.double(), curvature.double()
    off = (curvature - curvature.mT).abs().amax() if n_envs * n else torch.tensor(0.0)
    if off > _ASYMMETRY * curvature.abs().amax():
        raise ValueError(f"curvature must be symmetric, and differs from its transpose by {float(off):g}: pass (Q + Q.mT) / 2")
    if weight is not None:
        weight = weight.double()
        if not weight.isfinite().all():
            env, player = (int(at) for at in (~weight.isfinite()).nonzero()[0])
            raise ValueError(f"weight[{env}, {player}]={float(weight[env, player]):g}: must be finite")
        least = _LEAST_SHARE * weight.sum(dim=1, keepdim=True)
        wrong = (weight < 0) | ((weight > 0) & (weight < least))
        if wrong.any():
            env, player = (int(at) for at in wrong.nonzero()[0])
            raise ValueError(
                f"weight[{env}, {player}]={float(weight[env, player]):g}: must be 0, or positive and at least {_LEAST_SHARE:g} of the sum "
                f"of its environment's, which is {float(weight[env].sum()):g}"
            )
        there = (weight > 0).double()  # who has no weight is in no step
        linear, curvature = linear * there, curvature * there[:, :, None] * there[:, None]

    def value(coalitions: Tensor) -> Tensor:
        members = coalitions.to(linear)[None]  # (1, m, n)
        if weight is not None:
            total = members @ weight[:, :, None]  # (E, m, 1)
            members = members / torch.where(total > 0, total, torch.inf)
        return (members @ linear[:, :, None])[..., 0] + 0.5 * ((members @ curvature) * members).sum(dim=-1)

    def solve(at: Chances) -> Tensor:
        if weight is None:
            mean = sum(p * share for p, share in zip(*at, strict=True))
            own = curvature.diagonal(dim1=1, dim2=2)
            return linear + 0.5 * own + mean * (curvature.sum(dim=2) - own)
        return _renormalised(linear, curvature, weight, at)

    return Surrogate(CoalitionGame(value, linear.shape[1]), name, paired=weight is None, solve=solve)


def _renormalised(linear: Tensor, curvature: Tensor, weight: Tensor, at: Chances) -> Tensor:
    """The semivalue of the quadratic game with renormalised weights, ``(E, n)``; see the module's docstring."""
    n = linear.shape[1]
    whole = weight.sum(dim=1, keepdim=True)
    whole = torch.where(whole > 0, whole, 1.0)
    weight = weight / whole  # (E, n), so that the sum over players is 1
    linear, own = linear / whole, curvature.diagonal(dim1=1, dim2=2) / whole.square()
    others = (curvature / whole[..., None].square()) * (1 - torch.eye(n, dtype=torch.float64)).to(linear.device)
    t, dt = (part.to(linear) for part in _laplace())
    p, share = (torch.tensor(part, dtype=torch.float64).to(linear.device) for part in at)
    at_once, envs = max(1, _CHUNK // (n * len(p))), max(1, _CHUNK // (n * len(p) * len(t)))
    found = torch.zeros_like(linear)
    for some in (slice(first, first + envs) for first in range(0, len(linear), envs)):
        for t_some, dt_some in zip(t.split(at_once), dt.split(at_once), strict=True):
            found[some] += _expected(linear[some], own[some], others[some], weight[some], t_some, dt_some, p, share)
    return found


def _expected(linear: Tensor, own: Tensor, others: Tensor, weight: Tensor, t: Tensor, dt: Tensor, p: Tensor, share: Tensor) -> Tensor:
    r"""A part of the integral over t: what each player adds in expectation, ``(E, n)``.

    With chance p and :math:`x_j = e^{-t w_j}`, the expectation of :math:`e^{-t\,w(S)}` over coalitions is :math:`Z = \prod_j z_j`,
    :math:`z_j = 1 - p + p\,x_j`. Tilted by it, player j is in with chance :math:`a_j = p\,x_j / z_j`, independently of the others.
    """
    x = torch.exp(-t[:, None, None] * weight[:, None, None])  # (E, t, 1, n)
    p = p[:, None]
    z = 1 - p + p * x  # (E, t, p, n)
    a = p * x / z
    log = z.log()
    without = (log.sum(dim=-1, keepdim=True) - log).exp()  # Z over the factor of the player itself
    line, bend = linear[:, None, None], own[:, None, None]
    along = a * line
    along = along.sum(dim=-1, keepdim=True) - along  # Σ_{j≠i} a_j ℓ_j
    pulled = (a.flatten(1, 2) @ others).unflatten(1, a.shape[1:3])  # Σ_{j≠i} a_j Q_ij
    pairs, alone = a * pulled, a * bend
    rest = pairs.sum(dim=-1, keepdim=True) - 2 * pairs + alone.sum(dim=-1, keepdim=True) - alone  # E⟨1_S, Q 1_S⟩ over the others
    first = x * (line + along) - along
    second = 0.5 * (x * (rest + 2 * pulled + bend) - rest)
    integrand = without * (first + t[:, None, None] * second)  # (E, t, p, n)
    part: Tensor = (integrand * (dt[:, None] * share)[..., None]).sum(dim=(1, 2))
    return part


@lru_cache(maxsize=1)
def _laplace() -> tuple[Tensor, Tensor]:
    r"""Points t and weights for :math:`\int_0^\infty f(t)\,dt`, where f decays like :math:`e^{-t w}` with w from 1e-8 to 1."""
    u = torch.arange(_FIRST, _LAST + _STEP / 2, _STEP, dtype=torch.float64)
    t = torch.exp(u - torch.exp(-u))
    return t, t * (1 + torch.exp(-u)) * _STEP
