"""What columns are taken for, and which alone predict the label."""

from __future__ import annotations

import numpy as np
import pytest

from proxycoop.envs.data.tables import Column
from proxycoop.training.drafting.leaks import Alone, Judge, _area, _standard_error
from proxycoop.training.drafting.roles import guess

N = 400
RANDOM = np.random.default_rng(0)
LABELS = np.arange(N) % 2


def words(name, entries):
    known = list(dict.fromkeys(entry for entry in entries if entry))
    return Column(name, np.array([known.index(entry) if entry else -1 for entry in entries], dtype=np.int32), tuple(known))


def numbers(name, entries):
    return Column(name, np.asarray(entries, dtype=np.float64))


@pytest.mark.parametrize(
    ("column", "role"),
    [
        (words("customer", [f"c{i}" for i in range(N)]), "identifier"),
        (numbers("row", range(N)), "identifier"),
        (numbers("account_id", RANDOM.permutation(N) * 977), "identifier"),
        (numbers("population", RANDOM.permutation(N) * 977), "number"),
        (numbers("weight", RANDOM.normal(size=N)), "number"),
        (words("state", ["a"] * N), "constant"),
        (numbers("year", [2020] * N), "constant"),
        (words("flag", ["x" if i % 3 else "" for i in range(N)]), "category"),
        (numbers("nothing", [np.nan] * N), "empty"),
        (words("opened", [f"2020-01-{1 + i % 28:02}" for i in range(N)]), "date"),
        (words("closed", [f"{1 + i % 28}.3.2021 10:0{i % 10}" for i in range(N)]), "date"),
        (words("month", [f"{one} 2021" for one in ("Jan", "February", "mar.", "Dec") * (N // 4)]), "date"),
        (words("month", [["Jan", "May"][i // 2 % 2] for i in range(N)]), "category"),
        (words("comment", [f"text {i % 120}" for i in range(N)]), "text"),
        (words("gender", [["f", "m"][i // 2 % 2] for i in range(N)]), "protected"),
        (words("applicantRace", [["a", "b"][i // 2 % 2] for i in range(N)]), "protected"),
        (numbers("age_years", RANDOM.integers(18, 90, N)), "protected"),
        (numbers("mileage", RANDOM.integers(18, 90, N)), "number"),
        (words("Geschlecht", [["f", "m"][i // 2 % 2] for i in range(N)]), "protected"),
        (words("staatsangehörigkeit", [["f", "m"][i // 2 % 2] for i in range(N)]), "protected"),
        (numbers("Alter", RANDOM.integers(18, 90, N)), "protected"),
        (numbers("AGE_DU_CLIENT", RANDOM.integers(18, 90, N)), "protected"),
        (words("Nationalité", [["f", "m"][i // 2 % 2] for i in range(N)]), "protected"),
        (words("género", [["f", "m"][i // 2 % 2] for i in range(N)]), "protected"),
        (numbers("edad", RANDOM.integers(18, 90, N)), "protected"),
        (numbers("alternative", RANDOM.integers(18, 90, N)), "number"),
        (words("Verwendung", [f"für den Umbau Nr. {i}" for i in range(N)]), "text"),
        (words("sextant", [["f", "m"][i // 2 % 2] for i in range(N)]), "category"),
        (words("Hospital", [["f", "m", "k"][i % 3] for i in range(N)]), "site"),
        (words("outcome", [["good", "bad"][i % 2] for i in range(N)]), "leak"),
        (numbers("fees", np.where(LABELS, RANDOM.gamma(2, 3, N) + 1, np.nan)), "leak"),
        (numbers("twisted", np.where(LABELS, np.where(RANDOM.random(N) < 0.5, -5, 5), 0) + RANDOM.normal(size=N) / 9), "leak"),
        (numbers("strong", LABELS + 0.5 * RANDOM.normal(size=N)), "number"),
    ],
)
def test_what_a_column_is_taken_for(column, role):
    (found,) = guess([column], "label", LABELS)
    assert found.role == role, found.why


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 1.7e18), (1e6, 1.7e18), (1e300, 0.0), (1e-300, 0.0), (1.0, -0.5)])
def test_a_leak_is_seen_whatever_the_size_of_its_numbers(scale, offset):
    """As in timestamps of nanoseconds, all of which are one number in single precision."""
    leak = offset + scale * (1024 * LABELS + np.arange(N) % 9)
    leak[:3] = np.nan, np.inf, -np.inf
    assert Judge(LABELS).judged(numbers("updated", leak)).area > 0.99


@pytest.mark.parametrize("entry", ["3.{:03},94", "3,{:03}.94", "3'{:03}.94", "3 {:03},94", "-3 {:03}"])
def test_numbers_with_thousands_separators_are_told(entry):
    entries = [entry.format(i) if i % 3 else f"{i}{entry.partition('}')[2]}" for i in range(N)]
    (found,) = guess([words("income", entries)], "label", LABELS)
    assert (found.role, found.dropped) == ("text", True)
    assert found.why.startswith(f"looks like numbers with thousands separators, such as {entry.format(1)!r}")
    (other,) = guess([words("income", [*entries[:-1], "1.2.3"])], "label", LABELS)
    assert other.role == "identifier"


def test_names_that_were_given_come_before_guesses():
    ward, sex = words("ward", [["f", "m"][i // 2 % 2] for i in range(N)]), words("sex", [["f", "m"][i // 2 % 2] for i in range(N)])
    hospital = words("hospital", [["f", "m"][i // 2 % 2] for i in range(N)])
    roles = [one.role for one in guess([ward, sex, hospital], "label", LABELS, attributes=["ward"], sites="sex")]
    assert roles == ["attribute", "site", "category"]


def test_a_leak_that_is_kept_is_not_dropped():
    column = words("outcome", [["good", "bad"][i % 2] for i in range(N)])
    (found,) = guess([column], "label", LABELS, keep=["outcome"])
    assert (found.role, found.dropped) == ("leak", False)


def test_no_column_of_noise_and_no_ordinary_feature_leaks():
    from sklearn.datasets import load_breast_cancer, load_iris, load_wine

    for load in (load_breast_cancer, load_iris, load_wine):
        bunch = load()
        judge = Judge(bunch.target.astype(np.int64))
        alone = [judge.judged(numbers(str(j), bunch.data[:, j])) for j in range(bunch.data.shape[1])]
        assert not any(one.leaks for one in alone), load.__name__
        assert max(one.area for one in alone) > 0.8
    noise = words("noise", [f"w{one}" for one in RANDOM.integers(0, 200, N)])
    assert Judge(LABELS).judged(noise).area == pytest.approx(0.5, abs=0.1)  # it is judged on other rows than it was fitted to


@pytest.mark.fairness
def test_no_column_of_adult_leaks():
    from proxycoop.envs.data import load

    adult = load("adult")
    judge = Judge(adult.labels)
    for name in ("age", "years_of_schooling", "log_capital_gain", "hours_per_week", "marital_married_civ_spouse"):
        alone = judge.judged(numbers(name, adult.features[:, adult.column(name)]))
        assert 0.5 < alone.area < 0.9, name


def test_the_area_is_the_share_of_pairs_in_order():
    score, labels = np.array([1.0, 2.0, 2.0, 3.0]), np.array([0, 0, 1, 1])
    assert _area(score, labels, 1, 0) == (1 + 1 + 0.5 + 1) / 4
    assert _area(score, labels, 0, 1) == 0.5 / 4


def test_the_standard_error_is_that_of_hanley_and_mcneil():
    """Their formula by hand for A = 0.9, 20 and 30 rows."""
    a, m, n = 0.9, 20, 30
    q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
    by_hand = ((a * (1 - a) + (m - 1) * (q1 - a * a) + (n - 1) * (q2 - a * a)) / (m * n)) ** 0.5
    assert _standard_error(a, m, n) == pytest.approx(by_hand)
    assert _standard_error(1.0, m, n) == 0
    assert not Alone(0.99, 0.006).leaks
    assert Alone(0.99, 0.004).leaks


def test_with_too_few_rows_of_a_second_class_nothing_is_judged():
    labels = np.zeros(N, dtype=np.int64)
    labels[:8] = 1
    assert Judge(labels).judged(numbers("x", labels)) is None
