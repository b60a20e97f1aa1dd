"""Apportionment against history, against enumeration, and against water filling by another way."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import event, example
from hypothesis import strategies as st

from proxycoop.credit import apportion, apportion_within
from proxycoop.credit.money.apportionment import whole_weights

LARGEST = 2**63 - 1

WEIGHT = st.one_of(
    st.sampled_from([0.0, 0.0, 1.0, 1.0, 2.0, 3.0, 0.5, 0.1, 5e-324, 1e-308, 1e308]),
    st.floats(0, 1),
    st.floats(1e-308, 1e308),
)
WEIGHTS = st.one_of(
    st.lists(WEIGHT, min_size=1, max_size=6),
    st.lists(st.integers(0, 3).map(float), min_size=1, max_size=6),  # ties and zeros
    st.tuples(st.integers(1, 6), WEIGHT).map(lambda drawn: [drawn[1]] * drawn[0]),
)
AMOUNT = st.one_of(st.integers(0, 20), st.integers(2**53, LARGEST), st.sampled_from([0, 1, 2**53 + 1, LARGEST - 1, LARGEST]))


@st.composite
def limited(draw):
    """An amount, weights, and a floor and a cap that matter to it."""
    weight = draw(WEIGHTS)
    amount = draw(AMOUNT)
    mean = amount // len(weight)
    floor = draw(st.one_of(st.just(0), st.integers(mean // 2, mean + 1), st.integers(1, mean + 1), st.integers(0, 2 * mean + 5)))
    cap = draw(
        st.one_of(st.none(), st.integers(0, 3).map(lambda more: floor + more), st.integers(0, 2 * mean + 1).map(lambda more: floor + more))
    )
    return amount, weight, floor, cap


def one(amount, weight):
    return apportion([amount], np.array([weight]))[0].tolist()


def one_within(amount, weight, floor=0, cap=None):
    parts, left = apportion_within([amount], np.array([weight]), floor, cap)
    return parts[0].tolist(), left[0]


def test_hamiltons_bill_of_1792():
    """The first apportionment of the House, 120 seats by the census of 1790, which Washington vetoed: Balinski & Young (2001), ch. 3."""
    states = {
        "Virginia": (630_560, 21),
        "Massachusetts": (475_327, 16),
        "Pennsylvania": (432_879, 14),
        "North Carolina": (353_523, 12),
        "New York": (331_589, 11),
        "Maryland": (278_514, 9),
        "Connecticut": (236_841, 8),
        "South Carolina": (206_236, 7),
        "New Jersey": (179_570, 6),
        "New Hampshire": (141_822, 5),
        "Vermont": (85_533, 3),
        "Georgia": (70_835, 2),
        "Kentucky": (68_705, 2),
        "Rhode Island": (68_446, 2),
        "Delaware": (55_540, 2),
    }
    assert sum(people for people, _ in states.values()) == 3_615_920
    assert one(120, [people for people, _ in states.values()]) == [seats for _, seats in states.values()]


def test_five_methods_example_has_hamiltons_seats():
    """26 seats for five states of 26,000 people, on which the five divisor methods all differ: Balinski & Young (2001), ch. 9."""
    assert one(26, [9061, 7179, 5259, 3319, 1182]) == [9, 7, 5, 4, 1]


def test_alabama_paradox_more_to_split_can_cost_a_member_a_unit():
    """What the method lacks: monotone in the amount. Quotas 4.29, 4.29, 1.43, and then 4.71, 4.71, 1.57."""
    assert one(10, [6, 6, 2]) == [4, 4, 2]
    assert one(11, [6, 6, 2]) == [5, 5, 1]


def test_new_member_paradox_who_joins_can_move_a_unit_between_the_others():
    """The other thing it lacks: quotas 0.44 and 3.56; then 0.42, 3.33 and 1.25 when a third brings along the unit that it is paid."""
    assert one(4, [1, 8]) == [0, 4]
    assert one(5, [1, 8, 3]) == [1, 3, 1]


def test_population_paradox_needs_several_weights_to_change():
    """Who falls by less can win a unit from who rises, if a third changes too; never when one rises alone (see the properties)."""
    assert one(10, [1.45, 3.40, 5.15]) == [2, 3, 5]
    assert one(10, [1.47, 3.38, 4.65]) == [1, 4, 5]


def test_ties_go_to_who_comes_first():
    assert one(1, [1, 1, 1]) == [1, 0, 0]
    assert one(5, [1, 1, 1]) == [2, 2, 1]
    assert one(3, [2, 1, 1, 2]) == [1, 1, 0, 1]  # quotas 1, ½, ½, 1
    assert one(2, [1, 3]) == [1, 1]


def test_without_weights_it_is_split_equally():
    assert one(5, [0.0, 0.0]) == [3, 2]
    assert one(0, [0.0, 0.0]) == [0, 0]


def test_who_has_no_weight_gets_nothing_beside_who_has():
    assert one(LARGEST, [0.0, 5e-324, 0.0]) == [0, LARGEST, 0]


def test_a_unit_is_not_lost_beyond_what_float64_counts():
    third = LARGEST // 3
    assert one(LARGEST, [1, 1, 1]) == [third + 1, third, third]
    assert one(2**53 + 1, [1, 1]) == [2**52 + 1, 2**52]
    assert one(10**30, [0.1, 0.1, 0.1]) == [333333333333333333333333333334, 333333333333333333333333333333, 333333333333333333333333333333]


def test_weights_are_what_float64_says_and_not_the_decimal():
    """.1 + .2 is a little more than .3 in float64, so the odd unit goes to the sum though it comes second."""
    assert one(1, [0.3, 0.1 + 0.2]) == [0, 1]
    assert one(1, [0.3, 0.3]) == [1, 0]


def test_weights_from_the_smallest_to_the_largest_float_are_taken_exactly():
    weight = [5e-324, 2.2250738585072014e-308, 1.0, 1.7976931348623157e308]
    whole = whole_weights(np.array([weight]))[0]
    assert [Fraction(a) / Fraction(b) for a, b in itertools.pairwise(weight)] == [Fraction(a, b) for a, b in itertools.pairwise(whole)]


def test_integer_weights_are_taken_as_they_are():
    assert one(3, np.array([2**80, 2**80 + 1], dtype=object)) == [1, 2]
    assert one(3, np.array([2, 1], dtype=np.uint64)) == [2, 1]


def test_parts_are_the_whole_numbers_nearest_to_the_quotas(every):
    @every(st.integers(0, 9), st.lists(st.integers(0, 5), min_size=1, max_size=4))
    def claim(amount, weight):
        """Of all ways to split the amount, the one with the least sum of squared distances; of several, the one that favours the first."""
        weight = weight if any(weight) else [1] * len(weight)
        quotas = [Fraction(amount * one, sum(weight)) for one in weight]
        ways = [way for way in itertools.product(range(amount + 1), repeat=len(weight)) if sum(way) == amount]
        nearest = min(ways, key=lambda way: (sum((a - q) ** 2 for a, q in zip(way, quotas, strict=True)), [-a for a in way]))
        event("tied" if len({q % 1 for q in quotas if q % 1}) < sum(q % 1 > 0 for q in quotas) else "not tied")
        assert one(amount, weight) == list(nearest)


def test_parts_sum_to_the_amount_and_stay_within_a_unit_of_the_quota(every):
    @every(AMOUNT, WEIGHTS)
    @example(LARGEST, [1e-308, 1e308])
    @example(LARGEST, [5e-324] * 6)
    @example(LARGEST, [1.7976931348623157e308] * 6)
    def claim(amount, weight):
        event("no weight" if not any(weight) else "equal weights" if len(set(weight)) == 1 else "weights differ")
        event(f"amount above 2^53: {amount > 2**53}")
        parts = one(amount, weight)
        assert sum(parts) == amount
        total = sum(map(Fraction, weight))
        for part, w in zip(parts, weight, strict=True):
            assert type(part) is int
            assert part >= 0
            assert abs(part - (amount * Fraction(w) / total if total else Fraction(amount, len(weight)))) < 1


def test_raising_one_weight_alone_never_lowers_its_part(every):
    @every(AMOUNT, WEIGHTS, st.data())
    def claim(amount, weight, data):
        i = data.draw(st.integers(0, len(weight) - 1))
        more = [
            *weight[:i],
            data.draw(st.one_of(st.just(np.nextafter(weight[i], np.inf)), WEIGHT.map(lambda w: max(w, weight[i])))),
            *weight[i + 1 :],
        ]
        event("raised" if more != weight else "the same")
        assert one(amount, more)[i] >= one(amount, weight)[i]


def test_limits_hold_and_quotas_are_those_of_water_filling(every, water_filled, largest_remainders):
    @every(limited())
    @example((100, [1.0, 0.0], 10, 50))  # the cap of one frees what the floor of the other would not
    @example((100, [1.0, 0.0, 0.0], 10, 45))
    @example((7, [0.0, 0.0], 0, 3))
    @example((LARGEST, [1.0, 0.0], 5, 2**63))  # beyond what an integer of 64 bits holds
    @example((10, [8.0, 1.0, 1.0], 2, 5))
    @example((5, [9.0, 0.0], 3, 3))
    def claim(case):
        amount, weight, floor, cap = case
        parts, left = one_within(*case)
        quotas = water_filled(*case)
        event(f"floor at work: {floor > 0 and floor in quotas}, cap at work: {cap is not None and cap in quotas}, reached: {left == 0}")
        assert sum(parts) + left == amount
        assert parts == largest_remainders(quotas)
        with_weight = sum(one > 0 for one in weight) or len(weight)
        assert left == (0 if cap is None else max(amount - with_weight * cap - (len(weight) - with_weight) * floor, 0))
        for part, one in zip(parts, weight, strict=True):
            assert part <= floor or one > 0 or not any(weight)
        assert all(part >= (floor if amount >= floor * len(weight) else 0) for part in parts)
        assert cap is None or max(parts) <= cap


def test_without_limits_it_is_the_same_split(every):
    @every(AMOUNT, WEIGHTS)
    def claim(amount, weight):
        assert one_within(amount, weight) == (one(amount, weight), 0)


def test_a_batch_is_its_rows_one_by_one(every):
    @every(st.lists(st.tuples(AMOUNT, st.lists(WEIGHT, min_size=4, max_size=4)), max_size=4), st.integers(0, 9), st.integers(0, 9))
    def claim(rows, floor, more):
        amounts, weights = [amount for amount, _ in rows], np.array([weight for _, weight in rows]).reshape(-1, 4)
        event(f"{len(rows)} rows")
        assert apportion(amounts, weights).tolist() == [one(*row) for row in rows]
        assert apportion_within(amounts, weights)[0].tolist() == [one(*row) for row in rows]
        parts, left = apportion_within(amounts, weights, floor, floor + more)
        assert list(zip(parts.tolist(), left.tolist(), strict=True)) == [one_within(*row, floor, floor + more) for row in rows]


def test_floors_take_from_those_above_in_proportion():
    """10 by 8 : 1 : 1, nobody below 2: the others keep 2, 6 are left for the first. By 6 : 3 : 1, 8 are left for the first two."""
    assert one_within(10, [8, 1, 1], floor=2) == ([6, 2, 2], 0)
    assert one_within(10, [6, 3, 1], floor=2) == ([5, 3, 2], 0)  # 8 · 2/3 = 5⅓, 8 · 1/3 = 2⅔


def test_caps_give_to_those_below_in_proportion():
    assert one_within(12, [8, 2, 2], cap=6) == ([6, 3, 3], 0)
    assert one_within(12, [9, 2, 1], cap=6) == ([6, 4, 2], 0)


def test_lifting_to_the_floor_and_lowering_to_the_cap_are_weighed_against_each_other():
    """100 by 90 : 6 : 4: the cap sets 45 free, which lift the last above a floor of 15 that its first quota of 4 lay below."""
    assert one_within(100, [90, 6, 4], floor=15, cap=45) == ([45, 33, 22], 0)


def test_what_nobody_may_take_is_left():
    assert one_within(10, [1, 1], cap=3) == ([3, 3], 4)
    assert one_within(10, [1, 0], cap=0) == ([0, 0], 10)
    assert one_within(10, [0, 0], cap=3) == ([3, 3], 4)


def test_who_has_no_weight_gets_the_floor_and_none_of_what_the_others_may_not():
    assert one_within(10, [1, 0, 0], cap=5) == ([5, 0, 0], 5)
    assert one_within(10, [1, 0, 0], floor=2, cap=5) == ([5, 2, 2], 1)
    assert one_within(8, [1, 0, 0], floor=2, cap=5) == ([4, 2, 2], 0)


def test_too_little_for_the_floors_is_split_equally():
    assert one_within(5, [9, 1, 0], floor=2) == ([2, 2, 1], 0)
    assert one_within(6, [9, 1, 0], floor=2) == ([2, 2, 2], 0)


@pytest.mark.parametrize(
    ("amount", "weight", "message"),
    [
        ([-1], [[1.0]], "amount=-1: must not be negative"),
        ([1, 2], [[1.0]], "amount has 2 entries for 1 rows of weights"),
        ([1], [1.0, 2.0], r"weight has shape \(2,\): must be \(batch, n\)"),
        ([1], np.zeros((1, 0)), r"weight has shape \(1, 0\): must be \(batch, n\) with n at least 1"),
        ([1], [[1.0, -0.5]], r"weight=-0\.5: weights must be finite and not negative"),
        ([1], [[1.0, np.nan]], "weight=nan"),
        ([1], [[1.0, np.inf]], "weight=inf"),
        ([1], [[1, -1]], "weight has negative entries"),
        ([1], np.array([[1, -1]], dtype=object), "weight has negative entries"),
    ],
)
def test_bad_weights_and_amounts_are_refused(amount, weight, message):
    for split in (apportion, apportion_within):
        with pytest.raises(ValueError, match=message):
            split(amount, np.array(weight))


@pytest.mark.parametrize("amount", [1.0, np.float64(2), True, np.bool_(True), "3", None, Fraction(1)])
def test_money_is_counted_and_not_measured(amount):
    for split in (apportion, apportion_within):
        with pytest.raises(TypeError, match=r"amount=.*: must be a whole number of minor units"):
            split([amount], np.ones((1, 2)))


def test_weights_that_are_objects_must_be_whole():
    with pytest.raises(TypeError, match=r"weight=0\.5: must be a whole number"):
        apportion([3], np.array([[0.5, 1]], dtype=object))


@pytest.mark.parametrize(("floor", "cap"), [(-1, None), (3, 2), (0, -1)])
def test_limits_out_of_order_are_refused(floor, cap):
    with pytest.raises(ValueError, match=f"floor={floor}, cap={cap}: must be 0 ≤ floor ≤ cap"):
        apportion_within([1], np.ones((1, 2)), floor, cap)


@pytest.mark.parametrize(("floor", "cap", "name"), [(0.5, None, "floor=0.5"), (0, 2.0, "cap=2.0"), (True, 2, "floor=True")])
def test_limits_are_money_too(floor, cap, name):
    with pytest.raises(TypeError, match=f"{name}: must be a whole number of minor units"):
        apportion_within([1], np.ones((1, 2)), floor, cap)


@pytest.mark.parametrize("weight", [[["1", "2"]], np.ma.masked_array([[1.0, 2.0]], mask=[[True, False]]), np.array([[True, False]])])
def test_weights_that_are_no_numbers_or_masked_are_refused(weight):
    with pytest.raises(ValueError, match=r"weight=.*must be an array of real numbers"):
        apportion([10], weight)
