r"""Profiles learned from people's choices between updates.

It is hard to write down a tolerance. It is easy to say which of two updates one prefers. :func:`fit_profile` estimates weights and
tolerances from such choices, says how sure they are, and says what the choices cannot tell::

    fit = fit_profile(Comparisons.from_csv("choices.csv"))
    print(fit)
    profile = fit.profile(holders=2)

The model is Bradley and Terry's. The utility of an update is a function of its effects (:mod:`proxycoop.envs.people.choice_model`):

.. math:: P(a \succ b) = \sigma(u(a) - u(b)), \qquad u(g, h) = w_0 g - \sum_m w_m h_m - \sum_m \kappa_m \max(0, h_m - \tau_m)

A value's tolerance is the harm at which aversion steepens. It is claimed only where the choices show such a kink.

Known weaknesses:

* The model assumes that people have no habit of choosing the left or the right option. Shuffle the sides.
* If gains and harms go together, and a larger gain matters less per unit, that can look like a kink.
* The direction compares weights per unit of harm across values with different units.
* The choices of a person who decides by something that is not shown look noisy.
* With few choices a kink is easily missed, and then the weights' intervals do not account for it. With a planted kink, two values and a
  gain, 95 % intervals of the direction contained the truth in 81 % of cases at 100 choices, and in 92 % or more from 200 choices on
  (tests/envs/people/test_preferences.py has the planted profile).

References:
    Bradley & Terry (1952), *Rank analysis of incomplete block designs*, Biometrika 39. McFadden (1974), *Conditional logit analysis of
    qualitative choice behavior*.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.special import chdtrc, expit, ndtri

from ..screening.profiles import Profile
from .choice_model import Choices, covariance, maximise, runs_away, search_kinks, tolerance_interval
from .comparisons import GAIN, Comparisons, Floats
from .held_out import HeldOut, cross_validate, folds_of_persons
from .identification import check_settings, doubts, say_why_no_tolerance, unit_vector, what_moves

PENALTY = 0.01
"""Default penalty. It is a normal prior on each weight, with standard deviation 10 (log odds per root mean square difference)."""
HALF_SPACE = 90.0
"""A profile may hold a direction only if it is known to within so many degrees, that is, nearer to the truth than to its opposite."""
FEW_CLUSTERS = 20
"""From this number of persons on, errors allow one person's choices to depend on each other."""

Interval = tuple[float, float]


@dataclass(frozen=True)
class ProfileFit:
    """Weights and tolerances fitted to choices. ``print(fit)`` is a report.

    Attributes:
        values: Names of the values.
        n_choices: Number of choices that were fitted.
        weights: Aversion to harm up to the tolerance, in log odds per unit of the value, by value. Weights that are not identified are
            missing.
        weight_intervals: Intervals of the weights; infinite on the side where a weight has no finite estimate.
        gain_weight: Liking of the gain, in log odds per unit of utility; ``None`` if no gain was shown or the weight is not identified.
        gain_interval: Interval of the gain's weight.
        steepening: Additional aversion beyond the tolerance, κ, in log odds per unit, for values with a tolerance.
        tolerances: Harm at which aversion steepens, in the value's unit; only for values where the choices show a kink.
        tolerance_intervals: Intervals of the tolerances. An end is 0 or infinity where the choices do not bound the tolerance on that side.
        direction: The weights as a unit vector.
        angle: Largest angle between this direction and the true one, at the given confidence, in degrees; NaN without any weight.
        confidence: Level of all intervals.
        accuracy: How well held-out choices are predicted; ``None`` if there are too few choices to hold any out.
        p_value: p-value of the likelihood-ratio test that the weights of all values are 0, so that people care only about the gain, or
            choose at random.
        unidentified: What these choices cannot tell, and why, by value (or ``gain``).
        warnings: What else a reader should know before using the fit.
        model: The fitted utility; :meth:`predict` uses it.
    """

    values: tuple[str, ...]
    n_choices: int
    weights: dict[str, float]
    weight_intervals: dict[str, Interval]
    gain_weight: float | None
    gain_interval: Interval | None
    steepening: dict[str, float]
    tolerances: dict[str, float]
    tolerance_intervals: dict[str, Interval]
    direction: dict[str, float]
    angle: float
    confidence: float
    accuracy: HeldOut | None
    p_value: float
    unidentified: dict[str, str]
    warnings: tuple[str, ...]
    model: _Model = field(repr=False)

    def predict(self, comparisons: Comparisons) -> Floats:
        """Probability that the first update of each pair is preferred, ``(n,)``.

        Raises:
            ValueError: If the comparisons are about other values than the fit, or only one of the two has gains.
        """
        return self.model.predict(comparisons)

    def profile(self, holders: int = 1, *, direction: bool | None = None) -> Profile:
        """The fit as a profile of a scenario.

        Args:
            holders: Number of principals that hold the profile.
            direction: Whether the profile has the direction. With it, no update may do harm on balance, whatever it gains. This is far
                stricter than tolerances above 0, which then matter little. ``None``: only if there is no tolerance.

        Raises:
            ValueError: If the choices support no profile. Then they show no tolerance, and the direction is not wanted or not known: people
                may have chosen at random, or the direction is not known to within 90°.
        """
        known = self.p_value <= 1 - self.confidence and self.angle < HALF_SPACE
        try:
            return profile_of(self.tolerances, self.direction if known else {}, holders, direction)
        except ValueError as error:
            why = "; ".join(self.statements()[:3])
            raise ValueError(f"these {self.n_choices} choices support no profile: {error}. {why}".rstrip()) from None

    def statements(self) -> list[str]:
        """What is not identified, and the warnings, one sentence each."""
        return [f"{name}: {why}" for name, why in self.unidentified.items()] + list(self.warnings)

    def __str__(self) -> str:
        level = f"{100 * self.confidence:g} %"
        lines = [
            f"Profile from {self.n_choices} choices. Weights are log odds per unit. A tolerance is the harm at which aversion steepens.",
            f"  {'value':20} {'weight':>9}  {level + ' interval':22} {'tolerance':>9}  {level + ' interval':22} {'steeper by':>10}",
        ]
        for value in self.values:
            lines.append(
                f"  {value:20} {number_text(self.weights.get(value)):>9}  {interval_text(self.weight_intervals.get(value)):22} "
                f"{number_text(self.tolerances.get(value)):>9}  {interval_text(self.tolerance_intervals.get(value)):22} "
                f"{number_text(self.steepening.get(value)):>10}"
            )
        if self.gain_weight is not None:
            lines.append(f"  {'(gain)':20} {number_text(self.gain_weight):>9}  {interval_text(self.gain_interval):22}")
        if self.direction:
            parts = ", ".join(f"{value} {weight:+.3f}" for value, weight in self.direction.items())
            lines.append(f"Direction: {parts}; within {self.angle:.1f}° at {level}.")
        if self.accuracy is not None:
            lines.append(str(self.accuracy))
        return "\n".join([*lines, *(f"note: {statement}" for statement in self.statements())])


@dataclass(frozen=True)
class _Model:
    """A fitted utility, as a function of scaled effects."""

    values: tuple[str, ...]
    scale: Floats
    kinks: dict[int, float]
    theta: Floats

    @classmethod
    def fit(cls, comparisons: Comparisons, kinkable: Sequence[int], penalty: float, significance: float) -> _Model:
        """Find the weights, and the kinks of the values in ``kinkable``."""
        choices = Choices.of(comparisons)
        kinks = dict(sorted(search_kinks(choices, kinkable, penalty, significance).items()))
        theta, _ = maximise(choices.columns(kinks), penalty)
        return cls(comparisons.values, choices.scale, kinks, theta)

    def predict(self, comparisons: Comparisons) -> Floats:
        """Probability that the first update of each pair is preferred, ``(n,)``."""
        has_gain = len(self.scale) > len(self.values)
        if comparisons.values != self.values or has_gain != (comparisons.gain is not None):
            gain = "with" if has_gain else "without"
            raise ValueError(
                f"comparisons are about {', '.join(comparisons.values)}: must be about {', '.join(self.values)}, {gain} gain, as in the fit"
            )
        z = Choices.of(comparisons, self.scale).columns(self.kinks) @ self.theta
        chance: Floats = np.where(comparisons.chose_first, expit(z), expit(-z))
        return chance


def fit_profile(
    comparisons: Comparisons, *, confidence: float = 0.95, penalty: float = PENALTY, folds: int = 5, seed: int = 0
) -> ProfileFit:
    """Fit weights and tolerances to choices.

    The fit is by maximum likelihood with a small L2 penalty. A tolerance is claimed only where a test finds a kink, at level
    1 − ``confidence`` over all values together. With at least 20 persons, the errors allow one person's choices to depend on each other
    (the sandwich estimator). The test for a kink treats all choices as independent.

    Args:
        comparisons: The choices. If several persons made them, the profile is an average; for types of persons see
            :func:`~proxycoop.envs.people.populations.fit_population`.
        confidence: Level of the intervals, in (0, 1).
        penalty: λ of the penalty λ/2·‖θ‖² on the weights of the scaled effects; > 0, so that there always is an estimate.
        folds: Number of folds of the cross-validation, ≥ 2. If there are at least as many persons, each is held out as a whole. Each fold
            finds its own kinks.
        seed: Seed of the division into folds. The fit itself uses no random numbers.

    Raises:
        ValueError: If an argument is out of range.
    """
    check_settings(confidence, penalty, folds)
    names = [*comparisons.values, *([GAIN] if comparisons.gain is not None else [])]
    choices = Choices.of(comparisons)
    unidentified, warnings = what_moves(choices, names)
    known = [j for j, name in enumerate(names) if name not in unidentified]
    kinkable = [j for j in known if names[j] != GAIN]
    model = _Model.fit(comparisons, kinkable, penalty, 1 - confidence)
    if len(comparisons) < 10 * len(names):
        warnings.append(f"{len(comparisons)} choices are few for {len(names)} weights: give at least {10 * len(names)}")

    endless = np.zeros(len(names), dtype=bool)
    endless[known] = runs_away(choices.linear[:, known])
    for j in known:
        if endless[j]:
            unidentified[names[j]] = (
                "the size of its weight: every choice can be predicted from the effects, so the weight has no finite estimate, and only "
                "the penalty limits it; offer options between which the choice is harder"
            )
    clusters = None
    if (n_persons := len(comparisons.persons)) >= FEW_CLUSTERS:
        clusters = comparisons.who
    elif n_persons > 1:
        warnings.append(
            f"the choices of {n_persons} persons are treated as independent: to allow for dependence, at least {FEW_CLUSTERS} are needed"
        )
    spread, independent = covariance(choices, model.kinks, model.theta, penalty, clusters)
    weights = model.theta[: len(names)] / choices.scale
    own = spread[: len(names), : len(names)] / np.outer(choices.scale, choices.scale)
    half = ndtri(0.5 + confidence / 2) * np.sqrt(np.diag(own))
    low = np.where(endless & (weights < 0), -np.inf, weights - half).tolist()
    high = np.where(endless & (weights > 0), np.inf, weights + half).tolist()
    warnings += [
        f"{names[j]}: its weight is negative: people chose {'less of it' if names[j] == GAIN else 'harm to it'}"
        for j in known
        if high[j] < 0
    ]

    tolerances = _tolerances(choices, model, penalty, confidence, spread, independent)
    steepening = {names[m]: float(model.theta[len(names) + i] / choices.scale[m]) for i, m in enumerate(model.kinks)}
    warnings += _open_ends(choices, model, tolerances, endless=bool(endless.any()))
    for m in kinkable:
        if m not in model.kinks:
            say_why_no_tolerance(choices, m, names[m], unidentified, warnings)

    gains = choices.linear[:, len(comparisons.values) :]
    p_value = _chance_of(choices.linear, gains, penalty)
    accuracy = cross_validate(
        comparisons, lambda part: _Model.fit(part, kinkable, penalty, 1 - confidence).predict, *folds_of_persons(comparisons, folds, seed)
    )
    if said := doubts(_chance_of(choices.linear, gains[:, :0], penalty), accuracy, confidence):
        warnings += said
    elif p_value > 1 - confidence:
        warnings.append(f"the choices can be explained by the gain alone: the weights of all values may be 0 (p = {p_value:.2g})")
    direction, angle = unit_vector(weights[kinkable], own[np.ix_(kinkable, kinkable)], confidence)
    gain = names.index(GAIN) if GAIN in names and names.index(GAIN) in known else None
    return ProfileFit(
        values=comparisons.values,
        n_choices=len(comparisons),
        weights={names[m]: float(weights[m]) for m in kinkable},
        weight_intervals={names[m]: (low[m], high[m]) for m in kinkable},
        gain_weight=None if gain is None else float(weights[gain]),
        gain_interval=None if gain is None else (low[gain], high[gain]),
        steepening=steepening,
        tolerances={names[m]: float(tolerance * choices.scale[m]) for m, tolerance in model.kinks.items()},
        tolerance_intervals=tolerances,
        direction=dict(zip([names[m] for m in kinkable], direction.tolist(), strict=True)) if len(direction) else {},
        angle=angle,
        confidence=confidence,
        accuracy=accuracy,
        p_value=p_value,
        unidentified=unidentified,
        warnings=tuple(warnings),
        model=model,
    )


def _rounded(number: float) -> float:
    return float(f"{number:.6g}")


def _chance_of(columns: Floats, fewer: Floats, penalty: float) -> float:
    """p-value of the likelihood-ratio test that only some of the columns have weights."""
    ratio = 2 * (maximise(columns, penalty)[1] - maximise(fewer, penalty)[1])
    freedom = np.linalg.matrix_rank(columns) - (np.linalg.matrix_rank(fewer) if fewer.size else 0)
    return float(chdtrc(freedom, max(ratio, 0.0))) if freedom else 1.0


def _tolerances(
    choices: Choices, model: _Model, penalty: float, confidence: float, spread: Floats, independent: Floats
) -> dict[str, Interval]:
    """Intervals of the tolerances in the values' units, by value. They are wider if one person's choices depend on each other."""
    n_weights = choices.linear.shape[1] + len(model.kinks)
    intervals = {}
    for i, m in enumerate(model.kinks):
        inflation = max(1.0, spread[n_weights + i, n_weights + i] / independent[n_weights + i, n_weights + i])
        low, high = tolerance_interval(choices, model.kinks, m, penalty, confidence, inflation)
        intervals[model.values[m]] = (float(low * choices.scale[m]), float(high * choices.scale[m]))
    return intervals


def _open_ends(choices: Choices, model: _Model, intervals: Mapping[str, Interval], *, endless: bool) -> list[str]:
    """Statements about what the choices do not tell of the claimed tolerances."""
    said = []
    for i, (m, tolerance) in enumerate(model.kinks.items()):
        name = model.values[m]
        low, high = intervals[name]
        if ends := [word for word, is_open in (("below", low == 0), ("above", high == math.inf)) if is_open]:
            said.append(f"{name}: the choices do not bound its tolerance from {' or from '.join(ends)}; offer more harms there")
        further = choices.median_beyond(m, tolerance)
        columns = choices.columns({**model.kinks, m: further})
        if not endless and runs_away(columns)[choices.linear.shape[1] + i]:
            said.append(
                f"{name}: in the half of the pairs that go furthest beyond its tolerance, past {further * choices.scale[m]:.3g}, every "
                "choice can be predicted: it may be a hard limit, so the choices give no upper bound on how much aversion steepens"
            )
    return said


def profile_of(tolerances: Mapping[str, float], known: Mapping[str, float], holders: int, direction: bool | None) -> Profile:
    """A profile from what was learned, rounded to six digits; ``direction`` as for :meth:`ProfileFit.profile`.

    Raises:
        ValueError: If the profile would be empty.
    """
    wanted = not tolerances if direction is None else direction
    if wanted and not known:
        raise ValueError("no tolerance shows, and no direction is known" if not tolerances else "no direction is known")
    if not (wanted or tolerances):
        raise ValueError("no tolerance shows, and direction=False leaves out the direction")
    return Profile(
        holders=holders,
        tolerances={value: _rounded(tolerance) for value, tolerance in tolerances.items()},
        direction={value: _rounded(weight) for value, weight in known.items()} if wanted else {},
    )


def number_text(number: float | None) -> str:
    """A number for a report, to three digits; a dash for ``None``."""
    return "–" if number is None else f"{number:.3g}".replace("inf", "∞")


def interval_text(interval: Interval | None) -> str:
    """An interval for a report; a dash for ``None``."""
    return "–" if interval is None else f"{interval[0]:.3g} to {interval[1]:.3g}".replace("inf", "∞")
