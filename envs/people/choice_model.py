r"""The statistics behind profiles learned from choices: a logistic choice model whose utility is linear, except for kinks.

The effects of an update are its harms :math:`h_m`, and its gain g if people were shown one. A person who chooses between updates a and b
takes a with probability :math:`\sigma(u(a) - u(b))`, where

.. math:: u(g, h) = w_0 g - \sum_m w_m h_m - \sum_m \kappa_m \max(0, h_m - \tau_m)

Below, every pair is arranged so that the chosen option comes first. Each effect is in units of its root mean square difference within a
pair. The fit maximises the log-likelihood minus :math:`\frac{\lambda}{2}\lVert\theta\rVert^2` over the scaled weights θ. For given
tolerances this is concave.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit, gammaincinv, log_expit, ndtr

from .comparisons import Bools, Comparisons, Floats

GRID = 32
"""Number of candidate tolerances of each value."""
EITHER_SIDE = 10
"""Number of pairs that must reach beyond a candidate tolerance, and number of pairs that must reach below it."""


@dataclass(frozen=True)
class Choices:
    """Comparisons as the model reads them: n choices, M values, p linear columns.

    Attributes:
        chosen: Scaled harms of the chosen options, ``(n, M)``.
        rejected: Scaled harms of the rejected options, ``(n, M)``.
        linear: Scaled advantages of the chosen option over the rejected one, ``(n, p)``: how much less harm to each value, how much more
            gain.
        scale: Root mean square difference of each effect within a pair, ``(p,)``; 1 where the effect never differs.
    """

    chosen: Floats
    rejected: Floats
    linear: Floats
    scale: Floats

    @classmethod
    def of(cls, comparisons: Comparisons, scale: Floats | None = None) -> Choices:
        """Scale comparisons: by their own differences, or by the scale that is given."""
        difference = comparisons.differences
        if scale is None:
            scale = np.sqrt(np.square(difference).mean(axis=0))
            scale = np.where(scale > 0, scale, 1.0)
        m = len(comparisons.values)
        took_first = comparisons.chose_first[:, None]
        chosen = np.where(took_first, comparisons.first, comparisons.second) / scale[:m]
        rejected = np.where(took_first, comparisons.second, comparisons.first) / scale[:m]
        linear = rejected - chosen
        if comparisons.gain is not None:
            more = (comparisons.gain[:, 0] - comparisons.gain[:, 1]) / scale[m]
            linear = np.column_stack([linear, np.where(comparisons.chose_first, more, -more)])
        return cls(chosen, rejected, linear, scale)

    def kink(self, m: int, tolerance: float) -> Floats:
        """By how much less the chosen option harms value m beyond a tolerance than the rejected one, ``(n,)``."""
        return np.maximum(self.rejected[:, m] - tolerance, 0) - np.maximum(self.chosen[:, m] - tolerance, 0)

    def kink_slope(self, m: int, tolerance: float) -> Floats:
        """Derivative of :meth:`kink` with respect to the tolerance, ``(n,)``."""
        return (self.chosen[:, m] > tolerance).astype(float) - (self.rejected[:, m] > tolerance)

    def median_beyond(self, m: int, tolerance: float) -> float:
        """Among the pairs with a harm to value m beyond the tolerance, the median of the larger harm."""
        larger = np.maximum(self.chosen[:, m], self.rejected[:, m])
        return float(np.median(larger[larger > tolerance]))

    def columns(self, kinks: Mapping[int, float]) -> Floats:
        """The linear columns, followed by a column for each kink, ``(n, p + len(kinks))``."""
        return np.column_stack([self.linear, *(self.kink(m, tolerance) for m, tolerance in kinks.items())])

    def candidates(self, m: int) -> Floats:
        """Candidate tolerances for value m, ascending. Enough pairs reach beyond each candidate, and enough reach below it."""
        if len(self.chosen) < 2 * EITHER_SIDE:
            return np.empty(0)
        larger = np.sort(np.maximum(self.chosen[:, m], self.rejected[:, m]))
        smaller = np.sort(np.minimum(self.chosen[:, m], self.rejected[:, m]))
        low, high = max(0.0, smaller[EITHER_SIDE - 1]), larger[-EITHER_SIDE]
        harms = np.concatenate([larger, smaller])
        inside = harms[(harms >= low) & (harms <= high)]
        return np.unique(np.quantile(inside, np.linspace(0, 1, GRID))) if low < high and len(inside) >= EITHER_SIDE else np.empty(0)


def maximise(columns: Floats, penalty: float, start: Floats | None = None) -> tuple[Floats, float]:
    """The weights with the largest penalised log-likelihood, ``(q,)``, and that log-likelihood.

    Newton's method with step halving. A search for kinks needs hundreds of fits of a few weights, each from a start that is near. There the
    overhead of a general optimiser would be ten times the work.
    """
    theta = np.zeros(columns.shape[1]) if start is None else start

    def value(theta: Floats) -> float:
        return float(log_expit(columns @ theta).sum() - 0.5 * penalty * theta @ theta)

    now = value(theta)
    for _ in range(100):
        wrong = expit(-(columns @ theta))  # probability of the option that was not chosen
        gradient = columns.T @ wrong - penalty * theta
        curvature = (columns * (wrong * (1 - wrong))[:, None]).T @ columns + penalty * np.eye(len(theta))
        step = np.linalg.solve(curvature, gradient)
        expected = float(gradient @ step)
        if expected < 1e-10 * (1 + abs(now)):
            break
        size = 1.0
        while (then := value(theta + size * step)) < now + 1e-4 * size * expected and size > 1e-8:
            size /= 2
        theta, now = theta + size * step, then
    return theta, now


def search_kinks(choices: Choices, values: Sequence[int], penalty: float, significance: float) -> dict[int, float]:
    r"""Find the tolerances (scaled) that the choices show, by value.

    Kinks are added one at a time, the clearest first. A kink is accepted if it is unlikely to arise by chance. Z(τ) is the signed root of
    the likelihood ratio for a kink at τ. Davies bounds the probability that, without a kink, Z exceeds c at any candidate:

    .. math:: P\Big(\sup_\tau Z(\tau) > c\Big) \le \Phi(-c) + \frac{e^{-c^2/2}}{\sqrt{8\pi}} \sum_i |Z(\tau_{i+1}) - Z(\tau_i)|

    The bound must be at most ``significance`` divided by the number of values with candidates. A likelihood-ratio test with a fixed number
    of degrees of freedom would be wrong, because without a kink there is no τ. The test is one-sided: only aversion that steepens counts.
    After each kink that is added, all tolerances found so far are refined in turn.

    References:
        Davies (1977), *Hypothesis testing when a nuisance parameter is present only under the alternative*, Biometrika 64(2).
    """
    candidates = {m: grid for m in values if len(grid := choices.candidates(m)) > 1}
    kinks: dict[int, float] = {}
    while open_values := [m for m in candidates if m not in kinks]:
        found = []
        base, without = maximise(choices.columns(kinks), penalty)
        for m in open_values:
            root, start = np.empty(len(candidates[m])), np.append(base, 0.0)
            for i, tolerance in enumerate(candidates[m]):
                start, value = maximise(choices.columns({**kinks, m: tolerance}), penalty, start)
                root[i] = np.sign(start[-1]) * np.sqrt(max(2 * (value - without), 0.0))
            top = root.max()
            chance = ndtr(-top) + np.abs(np.diff(root)).sum() * np.exp(-(top**2) / 2) / np.sqrt(8 * np.pi)
            found.append((chance, m, int(root.argmax())))
        chance, m, i = min(found)
        if chance > significance / len(candidates):
            break
        kinks[m] = float(candidates[m][i])
        for _ in range(2 if len(kinks) > 1 else 1):
            for other in kinks:
                kinks[other] = _refined(choices, kinks, other, candidates[other], penalty)
    return kinks


def _refined(choices: Choices, kinks: Mapping[int, float], m: int, grid: Floats, penalty: float) -> float:
    """The most likely tolerance for value m, given the other tolerances: first the best candidate, then the best between its neighbours."""
    from scipy.optimize import minimize_scalar  # slow to import

    start, _ = maximise(choices.columns(kinks), penalty)

    def loss(tolerance: float) -> float:
        return -maximise(choices.columns({**kinks, m: tolerance}), penalty, start)[1]

    best = int(np.argmin([loss(tolerance) for tolerance in grid]))
    bounds = (grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)])
    refined = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-4 * (grid[-1] - grid[0])})
    return float(min(refined.x, grid[best], key=loss))


def tolerance_interval(
    choices: Choices, kinks: Mapping[int, float], m: int, penalty: float, confidence: float, inflation: float = 1.0
) -> tuple[float, float]:
    r"""Profile-likelihood interval of the tolerance for value m, scaled.

    An end of the interval that lies beyond the candidates becomes 0 or infinity. At every τ all weights are fitted again. The other
    tolerances are profiled out through the derivatives of their kinks (Muggeo's linearisation). If the set of likely τ has gaps, the
    interval spans them.

    Args:
        choices: The choices.
        kinks: The fitted tolerances, by value.
        m: Index of the value.
        penalty: The same as for the fit.
        confidence: Level of the interval, in (0, 1).
        inflation: Divisor of the log-likelihood ratio, above 1 for choices that depend on each other.

    References:
        Muggeo (2003), *Estimating regression models with unknown break-points*, Statistics in Medicine 22. Feder (1975), Annals of
        Statistics 3(1), for the distribution of the likelihood ratio where the utility is continuous at the kink.
    """
    from scipy.optimize import brentq  # slow to import

    moves = [choices.kink_slope(other, tolerance) for other, tolerance in kinks.items() if other != m]
    start = np.zeros(choices.linear.shape[1] + len(kinks) + len(moves))

    def value(tolerance: float) -> float:
        return maximise(np.column_stack([choices.columns({**kinks, m: tolerance}), *moves]), penalty, start)[1]

    grid = choices.candidates(m)
    grid = np.unique(np.append(grid, kinks[m]))
    values = np.array([value(tolerance) for tolerance in grid])
    floor = values.max() - inflation * gammaincinv(0.5, confidence)  # half the quantile of χ² with one degree of freedom
    likely = np.flatnonzero(values >= floor)
    first, last = int(likely[0]), int(likely[-1])

    def edge(outside: int, inside: int) -> float:
        return float(brentq(lambda tolerance: value(tolerance) - floor, *sorted((grid[outside], grid[inside])), xtol=1e-6, rtol=1e-6))

    return (0.0 if first == 0 else edge(first - 1, first)), (np.inf if last == len(grid) - 1 else edge(last + 1, last))


def covariance(
    choices: Choices, kinks: Mapping[int, float], theta: Floats, penalty: float, who: npt.NDArray[np.int64] | None = None
) -> tuple[Floats, Floats]:
    r"""Covariance of the scaled linear weights, steepenings and tolerances, from the information matrix at the fit.

    The matrix :math:`J = \partial z / \partial(w, \kappa, \tau)` has columns for the tolerances too. So the weights' errors include the
    uncertainty about the places of the kinks.

    Args:
        choices: The choices.
        kinks: The fitted tolerances, by value.
        theta: The linear weights, then the steepenings.
        penalty: The same as for the fit.
        who: Index of the person who made each choice, from 0. If given, the sandwich estimator allows one person's choices to depend on
            each other.

    Returns:
        Two matrices ``(q, q)``: the covariance, and the covariance if all choices were independent.
    """
    p = choices.linear.shape[1]
    moves = [theta[p + i] * choices.kink_slope(m, tolerance) for i, (m, tolerance) in enumerate(kinks.items())]
    jacobian = np.column_stack([choices.columns(kinks), *moves])
    wrong = expit(-(choices.columns(kinks) @ theta))
    # the penalty makes the matrix invertible where the data say nothing about a direction
    information = (jacobian * (wrong * (1 - wrong))[:, None]).T @ jacobian + penalty * np.eye(jacobian.shape[1])
    independent = np.linalg.inv(information)
    if who is None:
        return independent, independent
    scores = np.zeros((who.max() + 1, jacobian.shape[1]))
    np.add.at(scores, who, jacobian * wrong[:, None])
    meat = scores.T @ scores * len(scores) / (len(scores) - 1)
    return independent @ meat @ independent, independent


def runs_away(columns: Floats) -> Bools:
    r"""Which weights have no finite maximum-likelihood estimate, bool ``(q,)``.

    The choices are separable iff some direction β ≠ 0 makes no choice less likely, :math:`z_i = S_i\beta \ge 0` for all i, and at least one
    more likely. A linear programme maximises :math:`\sum_i z_i` over such directions.

    References:
        Albert & Anderson (1984), *On the existence of maximum likelihood estimates in logistic regression models*, Biometrika 71(1). Konis
        (2007), *Linear programming algorithms for detecting separated data in binary logistic regression models*, Oxford.
    """
    from scipy.optimize import linprog  # slow to import

    if columns.shape[1] == 0:
        return np.zeros(0, dtype=bool)
    bounds = [(-1, 1) if column.any() else (0, 0) for column in columns.T]
    result = linprog(-columns.sum(axis=0), A_ub=-columns, b_ub=np.zeros(len(columns)), bounds=bounds, method="highs")
    if result.status != 0 or -result.fun <= 1e-7 * max(np.abs(columns).sum(), 1.0):
        return np.zeros(columns.shape[1], dtype=bool)
    return np.asarray(np.abs(result.x) > 1e-6)
