"""Profiles learned from choices: planted ones are recovered, and what the choices cannot tell is said."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, log_expit
from scipy.stats import binom, chi2
from sklearn.linear_model import LogisticRegression

from proxycoop.envs import Comparisons, fit_profile
from proxycoop.envs.people.choice_model import Choices, maximise, runs_away, search_kinks, tolerance_interval
from proxycoop.envs.people.held_out import cross_validate, folds_of_persons, folds_within_persons
from proxycoop.envs.people.identification import unit_vector

WEIGHTS = np.array([1.5, 1.0])
TOLERANCE, STEEPENING = 0.3, 8.0
SEEDS = range(12)


def pairs(n: int, seed: int, spread: float = 0.4) -> Comparisons:
    """Pairs of random updates, a quarter of them against no update; the first is always chosen."""
    random = np.random.default_rng(seed)
    first, second, gain = random.normal(0, spread, (n, 2)), random.normal(0, spread, (n, 2)), random.normal(0, 1, (n, 2))
    second[::4] = 0
    gain[::4, 1] = 0
    return Comparisons(("x", "y"), first, second, np.ones(n, bool), gain)


def chosen(comparisons: Comparisons, seed: int, *, steepening: float = STEEPENING, noise: bool = True) -> Comparisons:
    """Answers by the planted profile: gain 1, weights (1.5, 1), and beyond a harm of 0.3 to x 8 more."""

    def utility(harm):
        return -harm @ WEIGHTS - steepening * np.maximum(harm[:, 0] - TOLERANCE, 0)

    better = utility(comparisons.first) - utility(comparisons.second) + comparisons.gain[:, 0] - comparisons.gain[:, 1]
    answers = np.random.default_rng(10_000 + seed).random(len(comparisons)) < expit(better) if noise else better > 0
    return replace(comparisons, chose_first=answers)


def planted(n: int, seed: int, **settings) -> Comparisons:
    return chosen(pairs(n, seed), seed, **settings)


@pytest.fixture(scope="module")
def fits():
    """Fits by number of choices, one a seed."""
    return {n: [fit_profile(planted(n, seed), folds=2) for seed in SEEDS] for n in (100, 400, 1600)}


# recovery


def test_the_error_of_the_direction_falls_with_the_number_of_choices(fits):
    true = WEIGHTS / np.linalg.norm(WEIGHTS)
    errors = [
        np.median([math.degrees(math.acos(np.clip(fit.direction["x"] * true[0] + fit.direction["y"] * true[1], -1, 1))) for fit in of_n])
        for of_n in fits.values()
    ]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 5  # degrees


def test_the_error_of_the_tolerance_falls_with_the_number_of_choices(fits):
    errors = [np.median([abs(fit.tolerances.get("x", math.inf) - TOLERANCE) for fit in of_n]) for of_n in fits.values()]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.1 * TOLERANCE
    assert all("x" in fit.tolerances for fit in fits[1600])


def test_intervals_cover_what_was_planted_about_as_often_as_they_say(fits):
    covered = [
        fit.weight_intervals[value][0] <= weight <= fit.weight_intervals[value][1]
        for of_n in fits.values()
        for fit in of_n
        for value, weight in zip("xy", WEIGHTS, strict=True)
    ]
    # fewer would come by chance once in 10,000, at a true coverage of 90 % (to first order it is 95 %)
    assert sum(covered) >= binom.ppf(1e-4, len(covered), 0.9)
    ends = [fit.tolerance_intervals["x"] for of_n in fits.values() for fit in of_n if "x" in fit.tolerances]
    assert sum(low <= TOLERANCE <= high for low, high in ends) >= binom.ppf(1e-4, len(ends), 0.85)
    assert all(0 <= low < high for low, high in ends)
    assert np.median([high - low for low, high in ends[-12:]]) < 0.5 * TOLERANCE


def test_a_person_without_a_kink_is_given_no_tolerance():
    # two values and twelve persons: more than three false tolerances come with probability 0.002 at a level of 5 % a person
    false = [value for seed in SEEDS for value in fit_profile(planted(400, seed, steepening=0.0), folds=2).tolerances]
    assert len(false) <= 3


def test_a_tolerance_is_sought_only_where_the_kink_is(fits):
    assert sum("y" in fit.tolerances for of_n in fits.values() for fit in of_n) <= 4


def test_two_tolerances_are_found_together():
    base = pairs(1600, 5)

    def utility(harm):
        return -harm @ WEIGHTS - 8 * np.maximum(harm[:, 0] - 0.3, 0) - 10 * np.maximum(harm[:, 1] - 0.15, 0)

    better = utility(base.first) - utility(base.second) + base.gain[:, 0] - base.gain[:, 1]
    fit = fit_profile(replace(base, chose_first=np.random.default_rng(6).random(1600) < expit(better)), folds=2)
    assert fit.tolerances["x"] == pytest.approx(0.3, abs=0.08)
    assert fit.tolerances["y"] == pytest.approx(0.15, abs=0.08)
    for value, tolerance in (("x", 0.3), ("y", 0.15)):
        low, high = fit.tolerance_intervals[value]
        assert low <= tolerance <= high


def test_held_out_accuracy_comes_near_the_best_possible():
    comparisons = planted(1600, 3)
    fit = fit_profile(comparisons)
    best = np.mean((chosen(comparisons, 3, noise=False).chose_first) == comparisons.chose_first)
    assert fit.accuracy.folds == 5
    assert fit.accuracy.accuracy == pytest.approx(best, abs=0.03)
    assert fit.accuracy.interval[0] < fit.accuracy.accuracy < fit.accuracy.interval[1]
    assert fit.accuracy.baseline < 0.56
    assert fit.accuracy.log_loss < math.log(2)


# the model against independent computations


def test_weights_are_those_of_logistic_regression():
    comparisons = planted(300, 0, steepening=0.0)
    columns = Choices.of(comparisons).linear
    theta, _ = maximise(columns, penalty=0.5)
    signs = np.where(comparisons.chose_first, 1.0, -1.0)
    reference = LogisticRegression(C=2.0, fit_intercept=False, tol=1e-10, max_iter=1000).fit(
        columns * signs[:, None], comparisons.chose_first
    )
    assert theta == pytest.approx(reference.coef_[0], rel=1e-4)


def test_the_fit_is_the_maximum_over_weights_and_tolerance_together():
    comparisons = planted(800, 1)
    fit = fit_profile(comparisons, folds=2)
    difference = comparisons.differences
    scale = np.sqrt(np.square(difference).mean(axis=0))

    def loss(at):
        w, gain, steeper, tolerance = at[:2], at[2], at[3], at[4]
        utility = [
            -harm @ w - steeper * np.maximum(harm[:, 0] - tolerance, 0) + gain * comparisons.gain[:, side]
            for side, harm in enumerate((comparisons.first, comparisons.second))
        ]
        sign = np.where(comparisons.chose_first, 1, -1)
        scaled = np.array([*w, gain, steeper]) * scale[[0, 1, 2, 0]]
        return np.log1p(np.exp(-sign * (utility[0] - utility[1]))).sum() + 0.005 * scaled @ scaled

    found = np.array([fit.weights["x"], fit.weights["y"], fit.gain_weight, fit.steepening["x"], fit.tolerances["x"]])
    starts = [found, [1.5, 1, 1, 8, 0.2], [1.5, 1, 1, 8, 0.4]]
    best = min(minimize(loss, start, method="Nelder-Mead", options={"maxiter": 5000, "xatol": 1e-6, "fatol": 1e-8}).fun for start in starts)
    assert loss(found) == pytest.approx(best, abs=1e-2)


def test_tolerances_follow_the_unit_of_the_value():
    comparisons = planted(800, 2)
    fit = fit_profile(comparisons, folds=2)
    other = fit_profile(replace(comparisons, first=comparisons.first * [1000, 1], second=comparisons.second * [1000, 1]), folds=2)
    assert other.tolerances["x"] == pytest.approx(1000 * fit.tolerances["x"], rel=1e-3)
    assert other.tolerance_intervals["x"] == pytest.approx([1000 * end for end in fit.tolerance_intervals["x"]], rel=1e-3)
    assert other.weights["x"] == pytest.approx(fit.weights["x"] / 1000, rel=1e-3)
    assert other.steepening["x"] == pytest.approx(fit.steepening["x"] / 1000, rel=1e-3)
    assert other.weights["y"] == pytest.approx(fit.weights["y"], rel=1e-3)


def test_which_update_stands_first_changes_nothing():
    comparisons = planted(300, 4)
    turned = replace(
        comparisons,
        first=comparisons.second,
        second=comparisons.first,
        gain=comparisons.gain[:, ::-1],
        chose_first=~comparisons.chose_first,
    )
    one, other = fit_profile(comparisons), fit_profile(turned)
    assert one.weights == pytest.approx(other.weights)
    assert one.tolerances == pytest.approx(other.tolerances)
    assert one.accuracy.accuracy == other.accuracy.accuracy


def test_predictions_are_the_logistic_function_of_the_fitted_utilities():
    comparisons = planted(600, 7)
    fit = fit_profile(comparisons, folds=2)
    new = pairs(50, 99)

    def utility(harm, gain):
        kinks = sum(fit.steepening[v] * np.maximum(harm[:, "xy".index(v)] - tolerance, 0) for v, tolerance in fit.tolerances.items())
        return fit.gain_weight * gain - harm @ [fit.weights["x"], fit.weights["y"]] - kinks

    expected = expit(utility(new.first, new.gain[:, 0]) - utility(new.second, new.gain[:, 1]))
    assert fit.predict(new) == pytest.approx(expected)
    assert fit.predict(replace(new, chose_first=~new.chose_first)) == pytest.approx(expected)  # the answers are not read
    with pytest.raises(ValueError, match="comparisons are about x, y: must be about x, y, with gain, as in the fit"):
        fit.predict(replace(new, gain=None))


def test_a_tolerance_interval_s_ends_lose_half_the_quantile_in_log_likelihood():
    choices = Choices.of(planted(1600, 0))
    kinks = search_kinks(choices, [0], 0.01, 0.05)
    ends = tolerance_interval(choices, kinks, 0, 0.01, 0.95)
    best = maximise(choices.columns(kinks), 0.01)[1]
    for end in ends:
        assert best - maximise(choices.columns({0: end}), 0.01)[1] == pytest.approx(3.841 / 2, abs=0.05)


def test_the_angle_of_a_direction_in_the_plane_is_that_of_a_normal_number():
    # the error across (3, 4)/5 has standard deviation 0.1, the length is 5: the angle's is 0.02
    unit, angle = unit_vector(np.array([3.0, 4.0]), 0.01 * np.eye(2), 0.95)
    assert unit == pytest.approx([0.6, 0.8])
    assert angle == pytest.approx(math.degrees(1.95996 * 0.02), rel=1e-4)
    assert unit_vector(np.array([-2.0]), np.eye(1), 0.95)[1] == 0


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ([[1, 0], [2, 0], [0, 1], [0, -1]], [True, False]),  # the first never speaks against a choice, the second is balanced
        ([[1, 0], [-1, 0], [0, 1], [0, -1]], [False, False]),
        ([[1, 1], [1, 2], [2, 1]], [True, True]),
        ([[1, 0], [0, 0]], [True, False]),
    ],
)
def test_weights_that_run_away_are_those_of_separated_columns(columns, expected):
    assert runs_away(np.array(columns, dtype=float)).tolist() == expected


# persons


def test_errors_allow_for_one_person_s_choices_being_alike():
    base = planted(100, 0)
    everyone = np.arange(100)
    copies = base.take(np.tile(everyone, 4))  # everybody answers each of its questions four times, always alike
    of_persons = fit_profile(replace(copies, person=np.tile(everyone, 4).astype(str)), folds=2)
    as_one = fit_profile(copies, folds=2)
    once = fit_profile(base, folds=2)

    def width(fit, value):
        low, high = fit.weight_intervals[value]
        return high - low

    if once.tolerances.keys() == of_persons.tolerances.keys() == as_one.tolerances.keys():
        for value in "xy":
            assert width(of_persons, value) == pytest.approx(width(once, value), rel=0.3)
    for value in "xy":
        assert width(of_persons, value) > 1.4 * width(as_one, value)


def test_persons_are_held_out_whole_or_spread_as_asked():
    comparisons = replace(planted(120, 0), person=np.repeat([f"p{i}" for i in range(12)], 10))
    whole, unit = folds_of_persons(comparisons, 4, 0)
    assert unit == "persons"
    assert all(len(set(whole[comparisons.person == p])) == 1 for p in comparisons.persons)
    assert np.bincount(whole).tolist() == [30] * 4
    spread, _ = folds_within_persons(comparisons, 5, 0)
    assert all(np.bincount(spread[comparisons.person == p]).tolist() == [2] * 5 for p in comparisons.persons)
    assert folds_of_persons(planted(120, 0), 4, 0)[1] == "choices"
    assert fit_profile(comparisons, folds=12).accuracy.unit == "persons"
    assert fit_profile(comparisons, folds=13).accuracy.unit == "choices"


def test_a_fold_is_predicted_from_the_others_alone():
    comparisons = planted(40, 0)
    fold = np.arange(40) % 4
    seen = []

    def fit(part):
        seen.append(part)
        return lambda out: np.full(len(out), 0.9)

    held_out = cross_validate(comparisons, fit, fold, "choices")
    for number, part in enumerate(seen):
        assert np.array_equal(part.first, comparisons.first[fold != number])
    share = comparisons.chose_first.mean()
    assert held_out.accuracy == pytest.approx(share)
    assert held_out.log_loss == pytest.approx(-share * math.log(0.9) - (1 - share) * math.log(0.1))
    assert cross_validate(comparisons, fit, np.zeros(40, dtype=int), "choices") is None


# what cannot be identified


def said(fit, *words: str) -> bool:
    return any(all(word in statement for word in words) for statement in fit.statements()) and all(word in str(fit) for word in words)


def test_a_value_whose_effect_never_differs_is_named():
    comparisons = pairs(300, 0)
    fit = fit_profile(chosen(replace(comparisons, second=np.column_stack([comparisons.second[:, 0], comparisons.first[:, 1]])), 0))
    assert fit.unidentified["y"].startswith("its effect is the same in both options of every pair")
    assert set(fit.weights) == {"x"}
    assert fit.direction == {"x": 1.0}
    assert fit.angle == 0


def test_effects_that_move_together_are_named():
    comparisons = pairs(300, 0)
    fit = fit_profile(chosen(replace(comparisons, first=comparisons.first[:, [0, 0]], second=comparisons.second[:, [0, 0]]), 0))
    assert said(fit, "x: its effect moves with y in all pairs")
    assert said(fit, "y: its effect moves with x in all pairs")
    assert fit.weights == {}
    assert fit.gain_weight is not None
    with pytest.raises(ValueError, match=r"support no profile: no tolerance shows, and no direction is known. x: its effect moves with y"):
        fit.profile()


def test_effects_that_nearly_move_together_are_a_warning():
    comparisons = pairs(300, 0)
    first, second = (np.column_stack([harm[:, 0], harm[:, 0] + 0.02 * harm[:, 1]]) for harm in (comparisons.first, comparisons.second))
    fit = fit_profile(chosen(replace(comparisons, first=first, second=second), 0))
    assert said(fit, "the effects on x and y move together", "condition number")
    assert set(fit.weights) == {"x", "y"}


def test_fewer_choices_than_weights_identify_none():
    fit = fit_profile(planted(2, 0))
    assert set(fit.unidentified) == {"x", "y", "gain"}
    assert fit.gain_weight is None
    assert said(fit, "2 choices are few for 3 weights: give at least 30")
    assert math.isnan(fit.angle)
    alone = fit_profile(planted(1, 0))
    assert alone.accuracy is None
    assert said(alone, "too few choices to hold any out")


def test_choices_without_any_error_give_a_direction_and_no_finite_weights():
    comparisons = chosen(pairs(400, 0), 0, steepening=0.0, noise=False)
    fit = fit_profile(comparisons)
    for value in ("x", "y"):
        assert "the size of its weight" in fit.unidentified[value]
        assert fit.weight_intervals[value][1] == math.inf
    assert "gain" in fit.unidentified
    true = WEIGHTS / np.linalg.norm(WEIGHTS)
    assert math.degrees(math.acos(fit.direction["x"] * true[0] + fit.direction["y"] * true[1])) < 2
    assert "∞" in str(fit)


def test_a_limit_that_nobody_ever_crosses_is_said_to_be_hard():
    comparisons = planted(800, 0, steepening=0.0)
    beyond = np.maximum(comparisons.first[:, 0], 0.3) - np.maximum(comparisons.second[:, 0], 0.3)
    answers = np.where(beyond == 0, comparisons.chose_first, beyond < 0)
    fit = fit_profile(replace(comparisons, chose_first=answers))
    assert fit.tolerances["x"] == pytest.approx(0.3, abs=0.1)
    assert said(fit, "x: in the half of the pairs that go furthest beyond its tolerance", "it may be a hard limit")
    assert not said(fit_profile(planted(800, 0)), "hard limit")


def test_harms_that_never_reach_a_tolerance_leave_it_unknown():
    comparisons = pairs(300, 0)
    fit = fit_profile(chosen(replace(comparisons, first=-abs(comparisons.first), second=-abs(comparisons.second)), 0))
    assert "its tolerance: only 0 pairs have an option that harms it" in fit.unidentified["x"]
    assert fit.tolerances == {}
    always = fit_profile(
        replace(comparisons, first=abs(comparisons.first) % 0.2 + 5 * (np.arange(300) % 2)[:, None], second=comparisons.second * 0)
    )
    assert "tolerance" not in always.unidentified.get("x", "")


def test_no_kink_is_said_with_the_largest_harm_offered():
    comparisons = planted(300, 2, steepening=0.0)
    fit = fit_profile(comparisons)
    largest = max(comparisons.first[:, 1].max(), comparisons.second[:, 1].max())
    assert said(fit, f"y: no tolerance is claimed, because aversion does not steepen up to the largest harm offered, {largest:.3g}")


def test_a_tolerance_bounded_on_one_side_only_is_reported(fits):
    open_below = [fit for fit in fits[100] if fit.tolerance_intervals.get("x", (1, 1))[0] == 0]
    open_above = [fit for fit in fits[100] if fit.tolerance_intervals.get("x", (1, 1))[1] == math.inf]
    assert open_below
    assert open_above
    assert all(said(fit, "x: the choices do not bound its tolerance from below") for fit in open_below)
    assert all(said(fit, "x: the choices do not bound its tolerance from", "above") for fit in open_above)
    assert not any(said(fit, "do not bound") for fit in fits[1600])


def test_random_choices_cannot_be_told_from_guessing_and_give_no_profile():
    refused = 0
    for seed in SEEDS:
        comparisons = replace(pairs(200, seed), chose_first=np.random.default_rng(seed).random(200) < 0.5)
        fit = fit_profile(comparisons)
        refused += said(fit, "the choices cannot be told from guessing")
        if fit.p_value > 0.05 and not fit.tolerances:
            with pytest.raises(ValueError, match="these 200 choices support no profile: no tolerance shows, and no direction is known"):
                fit.profile()
    assert refused >= binom.ppf(1e-4, len(SEEDS), 0.95)


def test_contradictory_choices_cannot_be_told_from_guessing():
    comparisons = planted(100, 0)
    both = comparisons.take(np.repeat(np.arange(100), 2))
    fit = fit_profile(replace(both, chose_first=np.arange(200) % 2 == 0))  # every pair once each way
    assert said(fit, "cannot be told from guessing", "contradict each other")
    assert fit.weights == pytest.approx({"x": 0, "y": 0}, abs=1e-6)


def test_people_who_choose_harm_are_reported():
    base = pairs(400, 0)
    better = (base.first - base.second) @ [2, 0] + base.gain[:, 0] - base.gain[:, 1]
    fit = fit_profile(replace(base, chose_first=np.random.default_rng(0).random(400) < expit(better)))
    assert fit.weights["x"] < 0
    assert said(fit, "x: its weight is negative: people chose harm to it")


def test_a_few_persons_are_said_to_be_taken_as_independent():
    fit = fit_profile(replace(planted(120, 0), person=np.repeat(["ada", "bob"], 60)))
    assert said(fit, "the choices of 2 persons are treated as independent")


# profiles


def test_a_profile_has_the_tolerances_and_the_direction_only_if_asked_for(fits):
    fit = next(fit for fit in fits[1600] if list(fit.tolerances) == ["x"])
    profile = fit.profile(holders=3)
    assert profile.holders == 3
    assert profile.tolerances == pytest.approx(fit.tolerances, rel=1e-5)
    assert profile.direction == {}
    assert fit.profile(direction=True).direction == pytest.approx(fit.direction, rel=1e-5)


def test_without_a_tolerance_a_profile_has_the_direction():
    fit = fit_profile(planted(400, 2, steepening=0.0))
    assert fit.tolerances == {}
    assert fit.profile().direction == pytest.approx(fit.direction, rel=1e-5)
    with pytest.raises(ValueError, match="no tolerance shows, and direction=False leaves out the direction"):
        fit.profile(direction=False)


def test_people_who_mind_the_gain_alone_give_no_direction():
    found = 0
    for seed in SEEDS:
        base = pairs(100, seed)
        answers = np.random.default_rng(seed).random(100) < expit(2 * (base.gain[:, 0] - base.gain[:, 1]))
        fit = fit_profile(replace(base, chose_first=answers))
        assert not said(fit, "cannot be told from guessing")
        if not fit.tolerances and fit.p_value > 0.05:
            found += 1
            assert said(fit, "the choices can be explained by the gain alone")
            with pytest.raises(ValueError, match="no tolerance shows, and no direction is known"):
                fit.profile()
    assert found >= binom.ppf(1e-4, len(SEEDS), 0.9)  # two tests at a level of 5 %


def test_the_p_value_is_that_of_the_likelihood_ratio_against_the_gain_alone():
    comparisons = planted(60, 1, steepening=0.0)
    signs = np.where(comparisons.chose_first, 1.0, -1.0)[:, None]

    def best(columns):
        fit = LogisticRegression(C=1e6, fit_intercept=False, tol=1e-10, max_iter=1000).fit(columns, comparisons.chose_first)
        return log_expit((columns * signs) @ fit.coef_[0]).sum()

    ratio = 2 * (best(comparisons.differences) - best(comparisons.differences[:, 2:]))
    assert fit_profile(comparisons, penalty=1e-6).p_value == pytest.approx(chi2.sf(ratio, 2), rel=1e-3)


def test_people_need_not_be_shown_a_gain():
    base = pairs(800, 0)
    better = -(np.maximum(base.first, 4 * base.first - 0.9) - np.maximum(base.second, 4 * base.second - 0.9)) @ [2.0, 0]
    fit = fit_profile(replace(base, gain=None, chose_first=np.random.default_rng(0).random(800) < expit(better)))
    assert fit.tolerances["x"] == pytest.approx(0.3, abs=0.1)
    assert fit.gain_weight is None
    assert "(gain)" not in str(fit)


def test_the_same_choices_give_the_same_fit():
    assert str(fit_profile(planted(200, 0))) == str(fit_profile(planted(200, 0)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"confidence": 1.0}, "confidence=1.0: must lie between 0 and 1"),
        ({"confidence": float("nan")}, "confidence=nan"),
        ({"penalty": 0.0}, "penalty=0.0: must be positive"),
        ({"penalty": math.inf}, "penalty=inf"),
        ({"folds": 1}, "folds=1: must be at least 2"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        fit_profile(planted(50, 0), **settings)
