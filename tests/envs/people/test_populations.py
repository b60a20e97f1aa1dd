"""Types of people learned from the choices of many: planted ones are recovered, with who is of which."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from scipy.special import expit, log_expit, logsumexp
from scipy.stats import binom
from sklearn.linear_model import LogisticRegression

from proxycoop.envs import Comparisons, fit_population, fit_profile
from proxycoop.envs.people.ideal_points import fit_mixture, mixture_columns, mixture_spread
from proxycoop.envs.people.populations import largest_remainder

WEIGHTS = np.array([[4.0, 0.5], [0.5, 3.0]])  # of the two types, at the status quo
SQUARES = np.array([[3.0, 0.0], [0.0, 4.0]])


def people(n_persons: int = 30, each: int = 20, seed: int = 0, *, gain: bool = True) -> tuple[Comparisons, np.ndarray]:
    """Choices of two thirds of the first type and one third of the second; and who is of which."""
    random = np.random.default_rng(seed)
    kind = (np.arange(n_persons) >= 2 * n_persons // 3).astype(int)
    n, of = n_persons * each, np.repeat(kind, each)
    first, second, gains = random.normal(0, 0.4, (n, 2)), random.normal(0, 0.4, (n, 2)), random.normal(0, 1, (n, 2))
    second[::4] = 0
    gains[::4, 1] = 0

    def utility(harm, side):
        return (gains[:, side] if gain else 0) - (WEIGHTS[of] * harm).sum(axis=1) - (SQUARES[of] * harm**2).sum(axis=1)

    answers = random.random(n) < expit(utility(first, 0) - utility(second, 1))
    names = np.repeat([f"p{i:03d}" for i in range(n_persons)], each)
    return Comparisons(("x", "y"), first, second, answers, gains if gain else None, names), kind


@pytest.fixture(scope="module")
def fitted():
    comparisons, kind = people()
    return fit_population(comparisons, restarts=3, folds=2), kind


# recovery


def test_two_planted_types_are_found_by_the_criterion_with_their_shares_and_members(fitted):
    fit, kind = fitted
    assert min(fit.bic, key=fit.bic.get) == 2
    assert len(fit.types) == 2
    assert fit.types[0].share == pytest.approx(2 / 3, abs=0.1)
    assert sum(one.share for one in fit.types) == pytest.approx(1)
    assert (fit.membership.argmax(axis=1) == kind).mean() >= 0.9
    assert fit.membership.sum(axis=1) == pytest.approx(np.ones(30))
    for one, weights in zip(fit.types, WEIGHTS, strict=True):
        unit = weights / np.linalg.norm(weights)
        assert math.degrees(math.acos(one.direction["x"] * unit[0] + one.direction["y"] * unit[1])) < 15


def test_intervals_of_the_weights_cover_what_was_planted():
    covered = []
    for seed in range(8):
        fit = fit_population(people(seed=seed)[0], 2, restarts=2, folds=2)
        for one, weights in zip(fit.types, WEIGHTS, strict=True):
            covered += [one.weight_intervals[v][0] <= w <= one.weight_intervals[v][1] for v, w in zip("xy", weights, strict=True)]
    # fewer would come by chance once in 10,000, at a true coverage of 90 % (to first order it is 95 %)
    assert sum(covered) >= binom.ppf(1e-4, len(covered), 0.9)


def test_the_error_of_the_weights_falls_with_the_number_of_persons():
    def error(n_persons):
        fits = [fit_mixture(people(n_persons, seed=seed)[0], 2, 0.01, 2, 0) for seed in range(6)]
        unit = WEIGHTS / np.linalg.norm(WEIGHTS, axis=1, keepdims=True)
        found = [fit.theta[:, :2] / fit.scale[:2] for fit in fits]
        return np.median([np.linalg.norm(one / np.linalg.norm(one, axis=1, keepdims=True) - unit) for one in found])

    assert error(15) > error(60)


def test_a_population_of_one_type_is_one_type():
    comparisons, kind = people(30)
    mine = comparisons.take(kind[comparisons.who] == 0)
    assert len(fit_population(mine, restarts=2, folds=2).types) == 1


def test_a_tolerance_is_the_harm_that_three_in_four_refuse(fitted):
    fit, _ = fitted
    comparisons, _ = people()
    _, scale = mixture_columns(comparisons)
    mixture = fit_mixture(comparisons, 2, 0.01, 3, 0)
    for number, value in enumerate("xy"):
        tolerance = fit.types[number].tolerances[value]
        harm = np.zeros((1, 2))
        harm[0, number] = tolerance
        refused = Comparisons(("x", "y"), np.zeros((1, 2)), harm, [True], np.zeros((1, 2)), ["p000"])
        assert expit(mixture_columns(refused, scale)[0] @ mixture.theta[number])[0] == pytest.approx(0.75, abs=1e-3)
        low, high = fit.types[number].tolerance_intervals[value]
        assert low < tolerance < high
    # the first type's, planted: 4τ + 3τ² = log 3
    low, high = fit.types[0].tolerance_intervals["x"]
    assert low < (-4 + math.sqrt(16 + 12 * math.log(3))) / 6 < high


def test_an_ideal_point_is_where_its_utility_is_largest(fitted):
    fit, _ = fitted
    one = fit.types[0]
    assert one.ideal["x"] == pytest.approx(-4 / 6, abs=0.3)  # −w/(2a)
    assert one.ideal["x"] < 0  # less harm than at the status quo


# the mathematics


def test_fitted_weights_are_a_stationary_point_and_the_errors_come_from_the_likelihood_s_curvature():
    comparisons, _ = people(12, 25, seed=3, gain=False)
    mixture = fit_mixture(comparisons, 2, 0.5, 3, 0)
    columns, who = mixture_columns(comparisons)[0], comparisons.who
    q = columns.shape[1]

    def log_likelihood(at):
        theta, share = at[: 2 * q].reshape(2, q), expit(at[2 * q])
        per_choice = log_expit(columns @ theta.T)
        per_person = np.stack([per_choice[who == p].sum(axis=0) for p in range(12)]) + np.log([share, 1 - share])
        return logsumexp(per_person, axis=1).sum() - 0.25 * np.square(theta).sum()

    at = np.append(mixture.theta.ravel(), np.log(mixture.share[0] / mixture.share[1]))
    free = np.flatnonzero(np.append((mixture.theta > 1e-8) | (np.arange(q) < 2), True))
    slope = np.array([approx_fprime(at, log_likelihood, 1e-6)])[0]
    assert np.abs(slope[free]).max() < 0.2  # its curvature is of the order of 10

    def gradient(x):
        whole = at.copy()
        whole[free] = x
        return np.array([(log_likelihood(whole + h) - log_likelihood(whole - h)) / 2e-4 for h in 1e-4 * np.eye(len(at))[free]])

    hessian = np.array([(gradient(at[free] + h) - gradient(at[free] - h)) / 2e-3 for h in 1e-3 * np.eye(len(free))])
    expected = np.linalg.inv(-hessian)
    spread = mixture_spread(comparisons, mixture, 0.5)
    inner = free[:-1]
    assert np.sqrt(np.diag(spread))[inner] == pytest.approx(np.sqrt(np.diag(expected))[:-1], rel=0.02)


def test_one_type_is_logistic_regression_on_harms_and_their_squares():
    comparisons, _ = people(20)
    mixture = fit_mixture(comparisons, 1, 0.5, 1, 0)
    assert (mixture.theta[0, -2:] > 0).all()  # so their bound does not matter
    assert mixture.membership.tolist() == [[1.0]] * 20
    signs = np.where(comparisons.chose_first, 1.0, -1.0)[:, None]
    reference = LogisticRegression(C=2.0, fit_intercept=False, tol=1e-10, max_iter=1000)
    reference.fit(mixture_columns(comparisons)[0] * signs, comparisons.chose_first)
    assert mixture.theta == pytest.approx(reference.coef_, rel=1e-2, abs=1e-3)


@pytest.mark.parametrize(
    ("shares", "total", "expected"),
    [
        ([0.5, 0.5], 3, [2, 1]),
        ([0.66, 0.34], 6, [4, 2]),
        ([0.7, 0.2, 0.1], 3, [2, 1, 0]),
        ([1.0], 4, [4]),
        ([0.1, 0.9], 10, [1, 9]),
    ],
)
def test_holders_are_shared_out_by_largest_remainder(shares, total, expected):
    assert largest_remainder(shares, total) == expected


# use


def test_profiles_have_holders_in_proportion(fitted):
    fit, _ = fitted
    profiles = fit.profiles(6)
    assert [profile.holders for profile in profiles] == [4, 2]
    for profile, one in zip(profiles, fit.types, strict=True):
        assert profile.tolerances == pytest.approx(one.tolerances, rel=1e-5)
        assert profile.direction == {}
    assert [profile.holders for profile in fit.profiles(1)] == [1]
    assert all(profile.direction for profile in fit.profiles(6, direction=True))
    with pytest.raises(ValueError, match="holders=0: must be at least 1"):
        fit.profiles(0)


def test_the_choices_of_a_type_s_members_can_be_fitted_alone(fitted):
    fit, _ = fitted
    parts = [fit.choices_of(number) for number in range(2)]
    assert sum(map(len, parts)) == 600
    assert set(parts[0].persons).isdisjoint(parts[1].persons)
    assert fit_profile(parts[0], folds=2).weights["x"] > fit_profile(parts[1], folds=2).weights["x"]


def test_types_predict_held_out_choices_better_than_one_profile(fitted):
    fit, _ = fitted
    comparisons, _ = people()
    assert fit.accuracy.unit == "choices of known persons"
    assert fit.accuracy.log_loss < fit_profile(comparisons, folds=2).accuracy.log_loss
    assert "2 types among 30 persons, 600 choices" in str(fit)


def test_the_same_seed_gives_the_same_types():
    comparisons, _ = people(12)
    one, other = (fit_population(comparisons, 2, seed=4, restarts=2, folds=2) for _ in range(2))
    assert str(one) == str(other)
    assert np.array_equal(one.membership, other.membership)


# what cannot be told


def test_people_who_choose_alike_are_one_type_and_a_second_is_nobody_s():
    comparisons, _ = people(6)
    mine = comparisons.take(comparisons.person == "p000")
    alike = replace(mine.take(np.tile(np.arange(20), 4)), person=np.repeat(list("abcd"), 20))
    assert len(fit_population(alike, folds=2).types) == 1
    fit = fit_population(alike, 2, folds=2)
    assert [one.share for one in fit.types] == pytest.approx([1, 0])
    assert "type 1 is nobody's most probable type: fit fewer types" in fit.warnings


def test_persons_with_few_choices_are_not_clearly_of_a_type():
    comparisons, _ = people()
    few = comparisons.take(~((comparisons.person == "p000") & (np.arange(600) > 0)))
    fit = fit_population(few, 2, restarts=2, folds=2)
    assert any("not clearly of one type" in warning and "p000" in warning for warning in fit.warnings)


def test_a_value_whose_effect_never_differs_is_named_and_has_no_weight():
    comparisons, _ = people(10)
    fit = fit_population(replace(comparisons, second=np.column_stack([comparisons.second[:, 0], comparisons.first[:, 1]])), 1)
    assert "same in both options" in fit.unidentified["y"]
    assert set(fit.types[0].weights) == set(fit.types[0].direction) == {"x"}


def test_types_that_choose_at_random_support_no_profile():
    comparisons, _ = people(12)
    fit = fit_population(replace(comparisons, chose_first=np.random.default_rng(1).random(240) < 0.5), 1, folds=2)
    assert any("cannot be told from guessing" in warning for warning in fit.warnings)
    with pytest.raises(ValueError, match="these 240 choices support no profile of any type: no tolerance shows"):
        fit.profiles(6)


def test_types_that_choose_without_error_are_reported():
    comparisons, kind = people(12)
    of = kind[comparisons.who]
    better = np.where(of == 0, comparisons.first[:, 0] < comparisons.second[:, 0], comparisons.first[:, 1] < comparisons.second[:, 1])
    fit = fit_population(replace(comparisons, chose_first=better), 2, restarts=2, folds=2)
    assert sum("every choice of its members can be predicted" in warning for warning in fit.warnings) == 2
    assert (fit.membership.argmax(axis=1) == kind).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"components": 0}, "components=0 for 12 persons: must be 'auto' or from 1 to 6"),
        ({"components": 7}, "components=7 for 12 persons"),
        ({"restarts": 0}, "restarts=0: must be at least 1"),
        ({"confidence": 0}, "confidence=0"),
        ({"folds": 1}, "folds=1"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        fit_population(people(12)[0], **settings)


def test_choices_that_say_not_who_chose_are_refused():
    with pytest.raises(ValueError, match=r"do not say who chose: a population needs 'person'; for one profile of all people"):
        fit_population(replace(people(12)[0], person=None))
