r"""Types of people, learned from the choices of many: a mixture of ideal points.

Persons of type c have an ideal effect on each value. The further an update's effects are from the ideal, the less they like it; each value
has its own weight. Their liking of the gain is proportional to it:

.. math:: u_c(g, h) = b_c\, g - \sum_m a_{cm} (h_m - h^*_{cm})^2 = b_c\, g - \sum_m (w_{cm} h_m + a_{cm} h_m^2) + \text{const}

with :math:`a \ge 0`. So :math:`w_{cm} = -2 a_{cm} h^*_{cm}` is the aversion to harm at the status quo, where nothing changes. With a = 0
the ideal is at infinity: the less harm, the better.

The choices follow the model of Bradley and Terry, and a person keeps its type. Expectation maximisation with restarts fits the model. The
Bayesian information criterion over persons chooses the number of types.

An ideal point has no kink from which a tolerance could be read. A type's tolerance is its *just noticeable harm*. Take an update that harms
one value by τ, and does nothing else. At the tolerance, three in four persons of the type choose "no update" instead:
:math:`w \tau + a \tau^2 = \log 3`. That is the usual 75 % threshold of psychophysics. It depends on how consistently people choose; the
kink of :func:`~proxycoop.envs.people.preferences.fit_profile` does not. To find the kinks of a type, fit the choices of its members alone::

    types = fit_population(comparisons)
    fit_profile(types.choices_of(0))

References:
    Coombs (1950), *Psychological scaling without a unit of measurement*, Psychological Review 57, for ideal points. Böckenholt &
    Böckenholt (1991), *Constrained latent class analysis*, Psychometrika 56, for classes of them. Dempster, Laird & Rubin (1977), JRSS
    B 39. Louis (1982), *Finding the observed information matrix when using the EM algorithm*, JRSS B 44, for the errors.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import chdtrc, ndtri

from ..screening.profiles import Profile
from .choice_model import Choices, runs_away
from .comparisons import GAIN, Comparisons, Floats
from .held_out import HeldOut, cross_validate, folds_within_persons
from .ideal_points import Mixture, fit_mixture, mixture_columns, mixture_spread, predict
from .identification import check_settings, doubts, unit_vector, what_moves
from .preferences import HALF_SPACE, PENALTY, Interval, interval_text, number_text, profile_of

MAX_TYPES = 4
"""Largest number of types that ``components="auto"`` tries."""
NOTICEABLE = math.log(3)
"""Log odds at which a harm counts as noticed: three in four persons choose against it."""
CLEAR = 0.9
"""A person whose most probable type has at least this probability counts as clearly of that type."""


@dataclass(frozen=True)
class PersonType:
    """One type of people.

    Attributes:
        share: Share of persons that are of this type.
        weights: Aversion to harm at the status quo, in log odds per unit of the value, by value. Unidentified weights are missing.
        weight_intervals: Intervals of the weights.
        ideal: The effect that the type likes best, in the value's unit, by value; −∞ if less harm is always better, ∞ if more is.
        tolerances: Just noticeable harm, in the value's unit, by value; only where it lies within the harms offered and the dislike of it
            is beyond chance.
        tolerance_intervals: Intervals of the tolerances.
        gain_weight: Liking of the gain, in log odds per unit of utility; ``None`` if no gain was shown or the weight is not identified.
        direction: The weights as a unit vector.
        angle: Largest angle between this direction and the true one, at the given confidence, in degrees.
        p_value: p-value of the Wald test that the weights of all values are 0.
    """

    share: float
    weights: dict[str, float]
    weight_intervals: dict[str, Interval]
    ideal: dict[str, float]
    tolerances: dict[str, float]
    tolerance_intervals: dict[str, Interval]
    gain_weight: float | None
    direction: dict[str, float]
    angle: float
    p_value: float


@dataclass(frozen=True)
class PopulationFit:
    """Types of people fitted to their choices. ``print(fit)`` is a report.

    Attributes:
        values: Names of the values.
        types: The types, the most frequent first.
        persons: Who chose, sorted.
        membership: Probability that a person is of a type, ``(len(persons), len(types))``.
        bic: Bayesian information criterion for each number of types that was tried; the smallest is best.
        confidence: Level of all intervals.
        accuracy: How well held-out choices of known persons are predicted; ``None`` if there are too few choices.
        unidentified: What these choices cannot tell, and why, by value (or ``gain``).
        warnings: What else a reader should know before using the fit.
        comparisons: The choices that were fitted.
    """

    values: tuple[str, ...]
    types: tuple[PersonType, ...]
    persons: tuple[str, ...]
    membership: Floats
    bic: dict[int, float]
    confidence: float
    accuracy: HeldOut | None
    unidentified: dict[str, str]
    warnings: tuple[str, ...]
    comparisons: Comparisons

    def choices_of(self, number: int) -> Comparisons:
        """The choices of all persons whose most probable type is this one. ``number`` is its index in ``types``."""
        return self.comparisons.take(self.membership.argmax(axis=1)[self.comparisons.who] == number)

    def profiles(self, holders: int, *, direction: bool | None = None) -> list[Profile]:
        """The types as profiles of a scenario.

        Args:
            holders: Number of principals. They are divided among the types in proportion to the types' shares, by largest remainder. A type
                that gets none is left out.
            direction: As for :meth:`~proxycoop.envs.people.preferences.ProfileFit.profile`. The principals of a type that supports no
                profile hold none.

        Raises:
            ValueError: If ``holders`` is not positive, or no type supports a profile.
        """
        if holders < 1:
            raise ValueError(f"holders={holders}: must be at least 1")
        profiles, reasons = [], []
        for one, count in zip(self.types, largest_remainder([one.share for one in self.types], holders), strict=True):
            try:
                if count:
                    known = one.p_value <= 1 - self.confidence and one.angle < HALF_SPACE
                    profiles.append(profile_of(one.tolerances, one.direction if known else {}, count, direction))
            except ValueError as error:
                reasons.append(str(error))
        if not profiles:
            raise ValueError(f"these {len(self.comparisons)} choices support no profile of any type: {reasons[0]}")
        return profiles

    def statements(self) -> list[str]:
        """What is not identified, and the warnings, one sentence each."""
        return [f"{name}: {why}" for name, why in self.unidentified.items()] + list(self.warnings)

    def __str__(self) -> str:
        level = f"{100 * self.confidence:g} %"
        tried = ", ".join(f"{n}: {bic:.1f}" for n, bic in self.bic.items())
        types = "1 type" if len(self.types) == 1 else f"{len(self.types)} types"
        lines = [f"{types} among {len(self.persons)} persons, {len(self.comparisons)} choices (BIC by number of types: {tried})."]
        lines.append(
            "Weights are log odds per unit. The ideal is the harm liked best (-∞: the less, the better; ∞: the more). A tolerance is "
            "the harm that three in four persons refuse."
        )
        for number, one in enumerate(self.types):
            lines.append(f"Type {number}: {one.share:.0%} of persons.")
            head = f"  {'value':20} {'weight':>9}  {level + ' interval':22} {'ideal':>9} {'tolerance':>10}  {level + ' interval':22}"
            lines.append(head.rstrip())
            for value in self.values:
                lines.append(
                    f"  {value:20} {number_text(one.weights.get(value)):>9}  {interval_text(one.weight_intervals.get(value)):22} "
                    f"{number_text(one.ideal.get(value)):>9} {number_text(one.tolerances.get(value)):>10}  "
                    f"{interval_text(one.tolerance_intervals.get(value)):22}".rstrip()
                )
            if one.gain_weight is not None:
                lines.append(f"  {'(gain)':20} {number_text(one.gain_weight):>9}")
            if one.direction:
                parts = ", ".join(f"{value} {weight:+.3f}" for value, weight in one.direction.items())
                lines.append(f"  Direction: {parts}; within {one.angle:.1f}° at {level}.")
        if self.accuracy is not None:
            lines.append(str(self.accuracy))
        return "\n".join([*lines, *(f"note: {statement}" for statement in self.statements())])


def largest_remainder(shares: list[float], total: int) -> list[int]:
    """Divide ``total`` in proportion to shares: rounded down, then the rest goes to the largest remainders; ties go by order."""
    exact = [share / sum(shares) * total for share in shares]
    counts = [math.floor(one + 1e-9) for one in exact]
    order = sorted(range(len(shares)), key=lambda i: (counts[i] - exact[i], i))
    for i in order[: total - sum(counts)]:
        counts[i] += 1
    return counts


def fit_population(
    comparisons: Comparisons,
    components: int | Literal["auto"] = "auto",
    *,
    confidence: float = 0.95,
    penalty: float = PENALTY,
    folds: int = 5,
    restarts: int = 5,
    seed: int = 0,
) -> PopulationFit:
    """Fit types of people to the choices of many.

    Args:
        comparisons: The choices, with the persons who made them; several choices per person.
        components: Number of types; or ``"auto"``: from 1 to 4, by the Bayesian information criterion.
        confidence: Level of the intervals, in (0, 1).
        penalty: As for :func:`~proxycoop.envs.people.preferences.fit_profile`; > 0.
        folds: Number of folds of the cross-validation, ≥ 2. Every person's choices are spread over the folds, because a person's type must
            be known before its choices can be predicted.
        restarts: Number of starts of expectation maximisation, ≥ 1; the end with the highest likelihood is used.
        seed: Seed of the starts and the folds. The same seed gives the same fit.

    Raises:
        ValueError: If it is not known who chose, there are fewer than two persons per type, or an argument is out of range.
    """
    check_settings(confidence, penalty, folds)
    if restarts < 1:
        raise ValueError(f"restarts={restarts}: must be at least 1")
    persons = comparisons.persons
    if not persons:
        raise ValueError("comparisons do not say who chose: a population needs 'person'; for one profile of all people use fit_profile")
    if components != "auto" and not 1 <= components <= len(persons) // 2:
        raise ValueError(f"components={components} for {len(persons)} persons: must be 'auto' or from 1 to {len(persons) // 2}")
    tried = range(1, max(1, min(MAX_TYPES, len(persons) // 2)) + 1) if components == "auto" else [components]
    mixtures = {n: fit_mixture(comparisons, n, penalty, restarts, seed) for n in tried}
    bic = {n: mixture.bic() for n, mixture in mixtures.items()}
    best = mixtures[min(bic, key=lambda n: bic[n])]

    names = [*comparisons.values, *([GAIN] if comparisons.gain is not None else [])]
    choices = Choices.of(comparisons)
    unidentified, warnings = what_moves(choices, names)
    spread = mixture_spread(comparisons, best, penalty)
    if not best.converged:
        warnings.append("expectation maximisation did not converge: the types overlap; give more choices per person, or fewer types")
    if not np.isfinite(spread).all():
        warnings.append("the types overlap too much to estimate errors: give more choices per person, or fewer types")
    types = tuple(
        _person_type(c, best, spread, comparisons, [name not in unidentified for name in names], confidence) for c in range(len(best.share))
    )
    unclear = [person for person, row in zip(persons, best.membership, strict=True) if row.max() < CLEAR]
    if unclear:
        shown = ", ".join(unclear[:5]) + (", …" if len(unclear) > 5 else "")
        warnings.append(
            f"{len(unclear)} of {len(persons)} persons are not clearly of one type ({shown}): they made too few choices, or lie between"
        )
    columns, who = mixture_columns(comparisons)[0], comparisons.who
    for c in range(len(types)):
        mine = best.membership.argmax(axis=1)[who] == c
        if not mine.any():
            warnings.append(f"type {c} is nobody's most probable type: fit fewer types")
        elif runs_away(columns[mine]).any():
            warnings.append(f"type {c}: every choice of its members can be predicted, so only the penalty limits the size of its weights")
        for value in comparisons.values:
            if value in types[c].weights and value not in types[c].tolerances:
                warnings.append(f"type {c}: no tolerance for {value}: none of the harms offered is refused by three in four beyond chance")

    def fit(part: Comparisons) -> Callable[[Comparisons], Floats]:
        n_types = min(len(types), max(1, len(part.persons) // 2))
        mixture = fit_mixture(part, n_types, penalty, restarts, seed)
        return lambda rest: predict(mixture, part.persons, rest)

    accuracy = cross_validate(comparisons, fit, *folds_within_persons(comparisons, folds, seed))
    warnings += doubts(None, accuracy, confidence)
    return PopulationFit(
        comparisons.values, types, persons, best.membership, bic, confidence, accuracy, unidentified, tuple(warnings), comparisons
    )


def _person_type(
    c: int, mixture: Mixture, spread: Floats, comparisons: Comparisons, identified: list[bool], confidence: float
) -> PersonType:
    """One type of the mixture, in the values' own units."""
    names, n_values, q = comparisons.values, len(comparisons.values), mixture.theta.shape[1]
    known = [m for m in range(n_values) if identified[m]]
    scale = mixture.scale
    unit = np.concatenate([scale, np.square(scale[:n_values])])
    theta = mixture.theta[c] / unit
    own = spread[c * q : (c + 1) * q, c * q : (c + 1) * q] / np.outer(unit, unit)
    z = float(ndtri(0.5 + confidence / 2))
    half = z * np.sqrt(np.diag(own))
    largest = np.maximum(comparisons.first, comparisons.second).max(axis=0)
    ideal, tolerances, tolerance_intervals = {}, {}, {}
    for m in known:
        linear, square = float(theta[m]), float(theta[q - n_values + m])
        if linear or square > 1e-12:
            ideal[names[m]] = -linear / (2 * square) if square > 1e-12 else -math.copysign(math.inf, linear)
        steepest = linear + math.sqrt(linear**2 + 4 * square * NOTICEABLE)
        tolerance = 2 * NOTICEABLE / steepest if steepest > 0 else math.inf
        if not tolerance <= largest[m]:
            continue
        pair = [m, q - n_values + m]
        powers = np.array([tolerance, tolerance**2])
        error = (
            math.sqrt(max(float(powers @ own[np.ix_(pair, pair)] @ powers), 0.0)) if np.isfinite(own).all() else math.inf
        )  # of the log odds
        if z * error >= NOTICEABLE:
            continue
        relative = error / (2 * square * tolerance + linear) / tolerance
        tolerances[names[m]] = tolerance
        tolerance_intervals[names[m]] = (tolerance * math.exp(-z * relative), tolerance * math.exp(z * relative))
    inner = own[np.ix_(known, known)]
    finite = bool(known) and bool(np.isfinite(inner).all())
    direction, angle = unit_vector(theta[known], inner, confidence) if finite else (np.empty(0), math.nan)
    wald = float(theta[known] @ np.linalg.solve(inner, theta[known])) if finite else 0.0
    has_gain = comparisons.gain is not None and identified[n_values]
    return PersonType(
        share=float(mixture.share[c]),
        weights={names[m]: float(theta[m]) for m in known},
        weight_intervals={names[m]: (float(theta[m] - half[m]), float(theta[m] + half[m])) for m in known},
        ideal=ideal,
        tolerances=tolerances,
        tolerance_intervals=tolerance_intervals,
        gain_weight=float(theta[n_values]) if has_gain else None,
        direction=dict(zip([names[m] for m in known], direction.tolist(), strict=True)) if len(direction) else {},
        angle=angle,
        p_value=float(chdtrc(max(len(known), 1), wald)),
    )
