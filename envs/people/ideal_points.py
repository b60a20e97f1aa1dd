"""Expectation maximisation for a mixture of ideal points, and the errors of the fit; see :mod:`proxycoop.envs.people.populations`."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.special import expit, log_expit, logsumexp

from .choice_model import Choices, maximise
from .comparisons import Comparisons, Floats

MAX_ITERATIONS = 500
"""Largest number of iterations of expectation maximisation from each start."""


@dataclass(frozen=True)
class Mixture:
    """A fitted mixture: C types, P persons, q columns (harms, gain if shown, squared harms).

    Attributes:
        scale: Root mean square difference of each effect within a pair, ``(M,)``, or ``(M + 1,)`` with gain.
        theta: Each type's weights for the scaled effects, ``(C, q)``.
        share: Shares of the types, ``(C,)``, descending.
        membership: Probability that a person is of a type, ``(P, C)``.
        log_likelihood: Log-likelihood of all choices.
        converged: Whether expectation maximisation converged within its iterations.
    """

    scale: Floats
    theta: Floats
    share: Floats
    membership: Floats
    log_likelihood: float
    converged: bool

    def bic(self) -> float:
        """Bayesian information criterion of the marginal likelihood, with persons as the observations."""
        n_free = self.theta.size + len(self.share) - 1
        return -2 * self.log_likelihood + n_free * math.log(len(self.membership))


def mixture_columns(comparisons: Comparisons, scale: Floats | None = None) -> tuple[Floats, Floats]:
    """Advantages of the chosen option, ``(n, q)``: less harm, more gain, less squared harm. Also the effects' scale."""
    choices = Choices.of(comparisons, scale)
    return np.column_stack([choices.linear, np.square(choices.rejected) - np.square(choices.chosen)]), choices.scale


def fit_mixture(comparisons: Comparisons, n_types: int, penalty: float, restarts: int, seed: int) -> Mixture:
    """Expectation maximisation from several starts. Each start groups persons by rough fits to their own choices."""
    from sklearn.cluster import KMeans  # slow to import

    columns, scale = mixture_columns(comparisons)
    who = comparisons.who
    n_persons = len(comparisons.persons)
    rough = np.stack([maximise(columns[who == p], 1.0)[0] for p in range(n_persons)])
    ends = []
    n_groups = min(n_types, len(np.unique(rough, axis=0)))  # people with the same rough fit are in one group
    for start in range(restarts if n_groups > 1 else 1):
        groups = np.zeros(n_persons, dtype=int)
        if n_groups > 1:
            groups = KMeans(n_groups, n_init=1, random_state=seed + start).fit_predict(rough)
        ends.append(_maximise_expectation(columns, who, np.eye(n_types)[groups], len(comparisons.values), penalty))
    theta, share, membership, log_likelihood, converged = max(ends, key=lambda end: end[3])
    order = np.argsort(-share, kind="stable")
    return Mixture(scale, theta[order], share[order], membership[:, order], log_likelihood, converged)


def _maximise_expectation(
    columns: Floats, who: npt.NDArray[np.int64], membership: Floats, n_values: int, penalty: float
) -> tuple[Floats, Floats, Floats, float, bool]:
    """From memberships ``(P, C)`` to a local maximum of the penalised likelihood.

    Returns:
        Weights, shares, memberships, log-likelihood, and whether it converged.
    """
    from scipy.optimize import minimize  # slow to import

    n_types, n_columns = membership.shape[1], columns.shape[1]
    bounds = [(None, None)] * (n_columns - n_values) + [(0.0, None)] * n_values  # a squared harm may only be disliked
    theta = np.zeros((n_types, n_columns))
    before = -math.inf
    for _ in range(MAX_ITERATIONS):
        share = membership.mean(axis=0)
        for c in range(n_types):
            weight = membership[who, c]

            def loss(at: Floats, weight: Floats = weight) -> tuple[float, Floats]:
                z = columns @ at
                value = weight @ log_expit(z) - 0.5 * penalty * at @ at
                return -float(value), -(columns.T @ (weight * expit(-z))) + penalty * at

            theta[c] = minimize(loss, theta[c], jac=True, method="L-BFGS-B", bounds=bounds).x
        by_type = _by_person(log_expit(columns @ theta.T), who, len(membership)) + np.log(np.maximum(share, 1e-300))  # (P, C)
        by_person = logsumexp(by_type, axis=1)
        membership = np.exp(by_type - by_person[:, None])
        now = float(by_person.sum() - 0.5 * penalty * np.square(theta).sum())
        if converged := now - before < 1e-6 * (1 + abs(now)):
            break
        before = now
    return theta, share, membership, float(by_person.sum()), converged


def _by_person(numbers: Floats, who: npt.NDArray[np.int64], n_persons: int) -> Floats:
    """Sums over each person's choices, ``(n, …)`` → ``(P, …)``."""
    sums = np.zeros((n_persons, *numbers.shape[1:]))
    np.add.at(sums, who, numbers)
    return sums


def predict(mixture: Mixture, persons: tuple[str, ...], comparisons: Comparisons) -> Floats:
    """Probability that the first is preferred. Persons of the fit have their fitted memberships; for others the types' shares are used."""
    place = {person: p for p, person in enumerate(persons)}
    assert comparisons.person is not None
    weight = np.stack([mixture.membership[place[one]] if one in place else mixture.share for one in comparisons.person])  # (n, C)
    first = replace(comparisons, chose_first=np.ones(len(comparisons), dtype=bool))
    by_type: Floats = expit(mixture_columns(first, mixture.scale)[0] @ mixture.theta.T)
    chance: Floats = (by_type * weight).sum(axis=1)
    return chance


def mixture_spread(comparisons: Comparisons, mixture: Mixture, penalty: float) -> Floats:
    """Covariance of the types' scaled weights, ``(C·q, C·q)``, by Louis' formula. It is infinite if the information is not positive.

    Weights of squared harms that are at their bound 0 are treated as known.
    """
    columns, who = mixture_columns(comparisons)[0], comparisons.who
    n_types, q = mixture.theta.shape
    n_persons, size = len(mixture.membership), n_types * q + n_types - 1
    information = np.zeros((size, size))
    expected = np.zeros((n_persons, size))
    for c in range(n_types):
        r = mixture.membership[:, c]
        wrong = expit(-(columns @ mixture.theta[c]))
        block = slice(c * q, (c + 1) * q)
        information[block, block] += (columns * (r[who] * wrong * (1 - wrong))[:, None]).T @ columns + penalty * np.eye(q)
        score = np.zeros((n_persons, size))
        score[:, block] = _by_person(columns * wrong[:, None], who, n_persons)
        score[:, n_types * q :] = np.eye(n_types)[c, : n_types - 1] - mixture.share[: n_types - 1]
        information -= (score * r[:, None]).T @ score
        expected += score * r[:, None]
    some = mixture.share[: n_types - 1]
    information[n_types * q :, n_types * q :] += n_persons * (np.diag(some) - np.outer(some, some))
    information += expected.T @ expected
    bounded = np.zeros((n_types, q), dtype=bool)
    bounded[:, q - len(comparisons.values) :] = mixture.theta[:, q - len(comparisons.values) :] <= 1e-8
    free = np.flatnonzero(~np.append(bounded.ravel(), np.zeros(n_types - 1, dtype=bool)))
    inner = information[np.ix_(free, free)]
    spread = np.zeros((size, size))
    spread[np.ix_(free, free)] = np.linalg.inv(inner) if np.linalg.eigvalsh(inner)[0] > 1e-9 else np.inf
    return spread[: n_types * q, : n_types * q]
