"""Settlement against accounts by hand, against its formula in fractions, and its promises on drawn cases."""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import assume, event, example
from hypothesis import strategies as st
from pydantic import ValidationError

from proxycoop.credit import Accounts, SettlementPolicy, settle
from proxycoop.credit.money.settlement import aged

LARGEST = 2**63 - 1

CREDIT = st.one_of(
    st.sampled_from([0.0, 0.0, 1.0, 1.0, 2.0, -1.0, 0.3, 1e-308, 1e308, -1e308]),
    st.integers(-2, 4).map(float),
    st.floats(-1, 1),
    st.floats(1e-308, 1e308),
)
CREDITS = st.one_of(
    st.lists(CREDIT, min_size=2, max_size=5),
    st.lists(st.integers(1, 9).map(float), min_size=2, max_size=5),
    st.lists(st.floats(0.01, 1), min_size=2, max_size=5),
    st.tuples(st.integers(1, 5), CREDIT).map(lambda drawn: [drawn[1]] * drawn[0]),
)
LARGE = st.integers(2**53, LARGEST)
AMOUNT = st.one_of(st.integers(5, 30), st.integers(100, 10**6), LARGE, LARGE, st.sampled_from([0, 1, 2**53 + 1, LARGEST - 1, LARGEST]))
SHARE = st.one_of(st.sampled_from([0.0, 0.0, 0.1, 0.29, 0.5]), st.floats(0, 0.99))
SOLIDARITY = st.sampled_from([0.0, 0.0, 0.1, 0.29, 0.5, 0.999, 1.0])


@st.composite
def case(draw):
    """A policy, and what there is to settle: limits and earlier payments that matter to the amount, and all within what can be recorded."""
    standing = draw(CREDITS)
    amount = draw(AMOUNT)
    mean = amount // len(standing)
    room = LARGEST - amount
    reserve = draw(st.one_of(st.just(0), st.integers(0, min(20, room)), st.integers(0, room)))
    room = (room - reserve) // len(standing)
    one = st.one_of(st.just(0), st.integers(0, min(10, room)), st.integers(0, min(mean, room)), st.integers(0, room))
    some = st.lists(
        st.one_of(st.integers(0, min(9, room)), st.integers(0, min(mean, room))), min_size=len(standing), max_size=len(standing)
    )
    overpaid = st.permutations([min(3 * mean, room), *[0] * (len(standing) - 1)]).map(list)
    paid = draw(st.one_of(st.just([0] * len(standing)), some, overpaid, st.lists(one, min_size=len(standing), max_size=len(standing))))
    near = st.integers(1, min(mean + 1, LARGEST))
    far = st.integers(mean, 2 * mean + 5).map(lambda most: min(most, LARGEST // 2))
    floor = draw(st.one_of(st.just(0), st.just(0), near, far))
    cap = draw(st.one_of(st.none(), st.none(), st.integers(0, 3), st.integers(0, mean + 1)))
    equal = draw(st.sampled_from([False] * 9 + [True]))
    policy = SettlementPolicy(
        split="equal" if equal else "credit",
        solidarity=0 if equal else draw(SOLIDARITY),
        clawback=False if equal else draw(st.sampled_from([True, False])),
        floor=floor,
        cap=None if cap is None else min(floor + cap, LARGEST),
        reserve=draw(SHARE),
    )
    return policy, amount, standing, paid, reserve


def one(policy, amount, standing, paid=None, reserve=0):
    """Payouts and the reserve of one cooperative."""
    paid = None if paid is None else np.array([paid], dtype=object)
    settlement = settle([amount], np.array([standing], dtype=float), policy, paid=paid, reserve=np.array([reserve], dtype=object))
    return settlement.payouts[0].tolist(), settlement.reserve[0]


def to_pay(policy, amount, n, reserve):
    kept_back = int(amount * Fraction(str(policy.reserve)))
    return amount - kept_back + min(max(n * policy.floor - (amount - kept_back), 0), reserve + kept_back)


def formula(policy, amount, standing, paid, reserve):
    """What is paid, the weights by which it is, the limits, and the highest level λ, term by term as the module says it."""
    n = len(standing)
    positive = [Fraction(max(one, 0)) if policy.split == "credit" else Fraction(0) for one in standing]
    s = Fraction(str(policy.solidarity))
    weight = [s / n + (1 - s) * (one / sum(positive) if any(positive) else Fraction(1, n)) for one in positive]
    paying = to_pay(policy, amount, n, reserve)
    if policy.clawback:
        weight = [max((paying + sum(paid)) * w - before, 0) for w, before in zip(weight, paid, strict=True)]
    return paying, weight, policy.floor, policy.cap, 1 if policy.clawback else None


# By hand


def test_revenue_follows_cumulative_credit():
    accounts = Accounts(SettlementPolicy(), 3)
    accounts.credit([[1.0, 2.0, 0.0]], 0)
    accounts.credit([[2.0, 1.0, 4.0]], 1)
    settlement = accounts.settle([101])
    assert settlement.payouts.tolist() == [[30, 30, 41]]  # 30.3, 30.3, 40.4: the odd unit to the largest remainder
    assert (settlement.revenue.tolist(), settlement.reserve.tolist()) == ([101], [0])
    assert accounts.paid.tolist() == [[30, 30, 41]]


def test_negative_credit_counts_as_none_in_its_round():
    accounts = Accounts(SettlementPolicy(), 2)
    accounts.credit([[3.0, 1.0]], 0)
    accounts.credit([[-9.0, 0.0]], 1)
    assert accounts.standing.tolist() == [[3.0, 1.0]]


def test_decay_halves_what_a_round_counts_with_every_round_since():
    accounts = Accounts(SettlementPolicy(decay=0.5), 2)
    accounts.credit([[8.0, 0.0]], 0)
    accounts.credit([[0.0, 2.0]], 1)
    assert accounts.standing.tolist() == [[4.0, 2.0]]
    accounts.credit([[1.0, 0.0]], 4)  # rounds 2 and 3 were credited nothing and count all the same
    assert accounts.standing.tolist() == [[1.5, 0.25]]


def test_a_late_report_of_an_early_round_counts_as_old_as_it_is():
    accounts = Accounts(SettlementPolicy(decay=0.5), 2)
    accounts.credit([[0.0, 2.0]], 3)
    accounts.credit([[8.0, 0.0]], 1)
    assert accounts.standing.tolist() == [[2.0, 2.0]]
    assert accounts.now == 3


def test_early_rounds_count_more():
    accounts = Accounts(SettlementPolicy(early=0.5), 2)
    accounts.credit([[1.0, 0.0]], 0)
    accounts.credit([[0.0, 4.0]], 2)
    assert accounts.standing.tolist() == [[1.0, 1.0]]


def test_the_first_round_need_not_be_0():
    accounts = Accounts(SettlementPolicy(decay=0.5), 2)
    accounts.credit([[1.0, 3.0]], 7)
    assert accounts.standing.tolist() == [[1.0, 3.0]]


def test_nobody_with_positive_credit_is_an_equal_split():
    assert one(SettlementPolicy(), 5, [0.0, -1.0]) == ([3, 2], 0)
    assert one(SettlementPolicy(clawback=True), 5, [-2.0, -1.0]) == ([3, 2], 0)


def test_equal_split_looks_at_no_credit():
    assert one(SettlementPolicy(split="equal"), 10, [5.0, 0.0, -1.0]) == ([4, 3, 3], 0)


def test_solidarity_splits_its_part_equally():
    assert one(SettlementPolicy(solidarity=0.4), 100, [1.0, 0.0]) == ([80, 20], 0)
    assert one(SettlementPolicy(solidarity=1), 100, [1.0, 0.0]) == ([50, 50], 0)


def test_clawback_lets_who_was_overpaid_wait_until_that_is_made_good():
    accounts = Accounts(SettlementPolicy(clawback=True), 2)
    accounts.credit([[3.0, 1.0]], 0)
    assert accounts.settle([100]).payouts.tolist() == [[75, 25]]
    accounts.credit([[-2.0, 0.0]], 1)  # all that was ever paid is now due half and half
    assert accounts.settle([20]).payouts.tolist() == [[0, 20]]  # 60 : 60 would be due, 75 : 25 was paid
    assert accounts.settle([40]).payouts.tolist() == [[5, 35]]  # 80 : 80 against 75 : 45
    assert accounts.settle([40]).payouts.tolist() == [[20, 20]]
    assert accounts.paid.tolist() == [[100, 100]]


def test_without_clawback_what_was_paid_is_done_with():
    accounts = Accounts(SettlementPolicy(), 2)
    accounts.credit([[3.0, 1.0]], 0)
    accounts.settle([100])
    accounts.credit([[-2.0, 0.0]], 1)
    assert accounts.settle([20]).payouts.tolist() == [[15, 5]]


def test_reserve_is_kept_back_and_rounded_down():
    assert one(SettlementPolicy(reserve=0.1), 105, [1.0, 1.0]) == ([48, 47], 10)


def test_shares_are_decimals_and_not_floats():
    assert 0.29 * 100 < 29
    assert one(SettlementPolicy(reserve=0.29), 100, [1.0]) == ([71], 29)
    assert one(SettlementPolicy(reserve=0.1), 10**18 + 10, [1.0]) == ([9 * 10**17 + 9], 10**17 + 1)
    assert one(SettlementPolicy(reserve=1e-7), 10**7, [1.0]) == ([10**7 - 1], 1)


def test_reserve_helps_out_where_revenue_does_not_reach_for_the_floors():
    assert one(SettlementPolicy(floor=10), 5, [1.0, 0.0], reserve=30) == ([10, 10], 15)
    assert one(SettlementPolicy(floor=10), 0, [1.0, 0.0], reserve=30) == ([10, 10], 10)
    assert one(SettlementPolicy(floor=10, reserve=0.5), 24, [1.0, 0.0]) == ([10, 10], 4)  # of 12 kept back, 8 are needed at once


def test_what_does_not_reach_for_the_floors_with_the_reserve_is_split_equally():
    assert one(SettlementPolicy(floor=10), 5, [1.0, 0.0], reserve=4) == ([5, 4], 0)


def test_floor_takes_from_those_above():
    assert one(SettlementPolicy(floor=10), 100, [19.0, 1.0, 0.0]) == ([80, 10, 10], 0)


def test_cap_gives_to_those_below_and_what_nobody_may_have_to_the_reserve():
    assert one(SettlementPolicy(cap=60), 100, [9.0, 1.0], reserve=3) == ([60, 40], 3)
    assert one(SettlementPolicy(cap=30), 100, [9.0, 1.0], reserve=3) == ([30, 30], 43)


def test_beyond_the_cap_nothing_goes_to_who_has_earned_nothing():
    assert one(SettlementPolicy(cap=100), 150, [1.0, 0.0]) == ([100, 0], 50)
    assert one(SettlementPolicy(cap=100), 150, [1.0, -3.0]) == ([100, 0], 50)
    assert one(SettlementPolicy(cap=100, floor=10), 150, [1.0, 0.0]) == ([100, 10], 40)
    assert one(SettlementPolicy(cap=100, solidarity=0.1), 150, [1.0, 0.0]) == ([100, 50], 0)  # all have a weight
    assert one(SettlementPolicy(cap=100), 150, [0.0, 0.0]) == ([75, 75], 0)


def test_who_was_overpaid_is_not_paid_when_anothers_cap_is_reached():
    accounts = Accounts(SettlementPolicy(cap=100, clawback=True), 2)
    accounts.credit([[1.0, 0.0]], 0)
    first = accounts.settle([150])
    assert (first.payouts.tolist(), first.reserve.tolist()) == ([[100, 0]], [50])
    accounts.credit([[-3.0, 1.0]], 1)
    second = accounts.settle([150])
    assert (second.payouts.tolist(), second.reserve.tolist()) == ([[0, 100]], [100])
    assert one(SettlementPolicy(cap=100, clawback=True), 150, [-2.0, 1.0], paid=[100, 50]) == ([0, 100], 50)


def test_with_clawback_anothers_cap_pays_nobody_more_than_is_due():
    """Of 160 + 140 by 2 : 1 : 0, less 0, 90 and 70: 200, 10 and nothing are due. The first has its cap, the second its 10."""
    policy = SettlementPolicy(cap=100, clawback=True)
    assert one(policy, 140, [2.0, 1.0, 0.0], paid=[0, 90, 70]) == ([100, 10, 0], 30)
    assert one(policy.model_copy(update={"floor": 15}), 140, [2.0, 1.0, 0.0], paid=[0, 90, 70]) == ([100, 15, 15], 10)
    # 166⅔, 83⅓ by 2 : 1, of which 80 are paid: the third of a unit is nobody's
    assert one(policy, 170, [2.0, 1.0], paid=[0, 80]) == ([100, 3], 67)


def test_floor_binds_before_clawback():
    """Who was overpaid waits, but not below the floor."""
    assert one(SettlementPolicy(clawback=True, floor=5), 20, [1.0, 1.0], paid=[75, 25]) == ([5, 15], 0)


def test_who_joins_stands_behind_with_nothing():
    accounts = Accounts(SettlementPolicy(), 1)
    accounts.credit([[1.0]], 0)
    accounts.settle([7])
    accounts.join(2)
    accounts.credit([[0.0, 1.0, 0.0]], 1)
    assert accounts.settle([9]).payouts.tolist() == [[5, 4, 0]]
    assert accounts.paid.tolist() == [[12, 4, 0]]


def test_largest_amount_is_settled_to_the_unit():
    assert one(SettlementPolicy(), LARGEST, [1.0, 1.0]) == ([2**62, 2**62 - 1], 0)


# Properties; see `every` for how many cases


def test_payouts_and_the_reserves_gain_are_the_revenue_and_keep_to_the_limits(every):
    @every(case())
    def claim(drawn):
        policy, amount, standing, paid, reserve = drawn
        payouts, after = one(*drawn)
        affordable = to_pay(policy, amount, len(standing), reserve) >= len(standing) * policy.floor
        event(f"floor {policy.floor > 0}, affordable {affordable}, cap reached {policy.cap in payouts}")
        event(f"clawback {policy.clawback and any(paid)}, above 2^53: {amount > 2**53}")
        assert sum(payouts) + after - reserve == amount
        assert after >= 0
        assert all(type(payout) is int and payout >= (policy.floor if affordable else 0) for payout in payouts)
        assert policy.cap is None or max(payouts) <= policy.cap


def test_payouts_are_the_formulas_rounded_once(every, water_filled, largest_remainders):
    @every(case())
    def claim(drawn):
        policy = drawn[0]
        weight = formula(*drawn)[1]
        event(f"dues of 0: {policy.clawback and 0 in weight}, all alike: {len(set(weight)) == 1}")
        assert one(*drawn)[0] == largest_remainders(water_filled(*formula(*drawn)))


def test_a_cap_pays_nobody_without_a_weight_and_nobody_more_than_is_due(every):
    @every(case(), st.integers(0, 30))
    def claim(drawn, percent):
        policy, amount, standing, paid, reserve = drawn
        policy = policy.model_copy(update={"cap": max(policy.floor, amount * percent // 100)})
        payouts, after = one(policy, amount, standing, paid, reserve)
        paying, weight, floor, cap, highest = formula(policy, amount, standing, paid, reserve)
        event(f"clawback {policy.clawback}, at the cap {cap in payouts}, left {sum(payouts) < paying}")
        for payout, w in zip(payouts, weight, strict=True):
            if highest is None:
                assert payout <= floor or w > 0
            else:
                assert payout <= max(floor, -(-w // 1))  # of a due of 3.2, 4 at most: rounded to a whole unit
        if sum(payouts) < paying:  # then everybody has all that the policy allows
            most = [cap if w > 0 and highest is None else min(max(w, floor), cap) for w in weight]
            assert all(payout >= one // 1 for payout, one in zip(payouts, most, strict=True))
        assert after - reserve == amount - sum(payouts)


def test_more_credit_alone_is_never_paid_less(every):
    @every(case(), st.data())
    @example((SettlementPolicy(clawback=True, cap=7), 20, [1.0, 1.0, 2.0], [4, 0, 1], 0), None)
    def claim(drawn, data):
        policy, amount, standing, paid, reserve = drawn
        i = data.draw(st.integers(0, len(standing) - 1)) if data else 0
        ways = [np.nextafter(standing[i], np.inf), standing[i] + abs(standing[i]) / 7, standing[i] + abs(standing[i]), standing[i] + 1]
        drawn_more = st.one_of(st.sampled_from(ways), CREDIT.map(lambda credit: max(credit, standing[i])))
        more = float(min(data.draw(drawn_more), 1.7e308)) if data else 1.5
        raised = [*standing[:i], more, *standing[i + 1 :]]
        before, after = one(*drawn)[0], one(policy, amount, raised, paid, reserve)[0]
        event("paid more" if after[i] > before[i] else "paid the same")
        assert after[i] >= before[i]


def test_equal_members_get_the_same_up_to_the_odd_unit_of_who_joined_first(every):
    @every(case(), st.data())
    def claim(drawn, data):
        policy, amount, standing, paid, reserve = drawn
        assume(len(standing) > 1)
        i, j = sorted(data.draw(st.permutations(range(len(standing))))[:2])
        standing, paid = list(standing), list(paid)
        standing[j], paid[j] = standing[i], min(paid)
        paid[i] = paid[j]
        payouts, _ = one(policy, amount, standing, paid, reserve)
        event(f"odd unit: {payouts[i] - payouts[j]}")
        assert payouts[i] - payouts[j] in (0, 1)


def test_order_of_members_moves_only_the_odd_units_of_equal_remainders(every, water_filled):
    @every(case(), st.data())
    def claim(drawn, data):
        policy, amount, standing, paid, reserve = drawn
        order = data.draw(st.permutations(range(len(standing))))
        payouts, after = one(*drawn)
        moved, after_moved = one(policy, amount, [standing[i] for i in order], [paid[i] for i in order], reserve)
        remainders = [quota % 1 for quota in water_filled(*formula(*drawn))]
        event("a tie" if any(remainders.count(one) > 1 for one in remainders if one) else "no tie")
        assert after_moved == after
        assert sum(moved) == sum(payouts)
        for place, i in enumerate(order):
            assert abs(moved[place] - payouts[i]) <= (remainders.count(remainders[i]) > 1)


def test_a_batch_is_its_cooperatives_one_by_one(every):
    @every(st.lists(case(), min_size=1, max_size=4))
    def claim(drawn):
        policy = drawn[0][0]
        n = max(len(standing) for _, _, standing, _, _ in drawn)
        rows = [
            (amount, standing + [1.0] * (n - len(standing)), paid + [0] * (n - len(paid)), reserve)
            for _, amount, standing, paid, reserve in drawn
        ]
        amounts, standings, paids, reserves = zip(*rows, strict=True)
        event(f"{len(rows)} cooperatives")
        together = settle(
            amounts, np.array(standings), policy, paid=np.array(paids, dtype=object), reserve=np.array(reserves, dtype=object)
        )
        singles = [one(policy, *row) for row in rows]
        assert list(zip(together.payouts.tolist(), together.reserve.tolist(), strict=True)) == singles


def test_settling_again_without_revenue_pays_nothing(every):
    @every(case())
    def claim(drawn):
        policy, amount, standing, paid, reserve = drawn
        policy = policy.model_copy(update={"floor": 0})
        payouts, after = one(policy, amount, standing, paid, reserve)
        event(f"in reserve: {after > 0}")
        assert one(policy, 0, standing, [a + b for a, b in zip(paid, payouts, strict=True)], after) == ([0] * len(standing), after)


ROUNDS = st.lists(
    st.tuples(st.integers(0, 60), st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3)), max_size=8, unique_by=lambda drawn: drawn[0]
)
AGEING = st.one_of(
    st.tuples(st.just("decay"), st.one_of(st.sampled_from([1.0, 0.5, 0.9]), st.floats(0.01, 1))),
    st.tuples(st.just("early"), st.one_of(st.sampled_from([0.5, 0.9]), st.floats(0.01, 1))),
)


def test_rounds_in_any_order_come_to_the_same_standings(every):
    @every(ROUNDS, AGEING, st.booleans(), st.data())
    def claim(rounds, ageing, clawback, data):
        policy = SettlementPolicy(**dict([ageing]), clawback=clawback)
        one, other = Accounts(policy, 3), Accounts(policy, 3)
        for t, credit in sorted(rounds):
            one.credit([credit], t)
        shuffled = data.draw(st.permutations(rounds))
        for t, credit in shuffled:
            other.credit([credit], t)
        event(f"in order: {shuffled == sorted(rounds)}")
        latest = max((t for t, _ in rounds), default=-1)
        assert one.now == other.now == latest
        by_formula, size = np.zeros(3), np.zeros(3)
        for t, credit in rounds:
            earned = policy.decay ** (latest - t) * policy.early**t * (np.array(credit) if clawback else np.maximum(credit, 0))
            by_formula, size = by_formula + earned, size + abs(earned)
        for accounts in (one, other):
            assert (abs(accounts.standing[0] - by_formula) <= 1e-12 * size + 1e-300).all()


def test_accounts_that_hear_the_same_pay_the_same_and_lose_nothing(every):
    event_of = st.one_of(st.lists(CREDIT, min_size=3, max_size=3), st.integers(0, 10**15), st.just("join"))

    @every(case(), st.lists(event_of, max_size=10))
    def claim(drawn, heard):
        policy = drawn[0]
        both = Accounts(policy, 3), Accounts(policy, 3)
        revenue, told = 0, []
        for t, what in enumerate(heard):
            for accounts in both:
                if what == "join":
                    accounts.join(1)
                elif isinstance(what, int):
                    told.append(accounts.settle([what]).payouts.tolist())
                else:
                    newer = [0.5] * (accounts.standing.shape[1] - 3)
                    accounts.credit([[*(one / 16 for one in what), *newer]], t)
            revenue += what if isinstance(what, int) else 0
        event(f"settlements: {len(told) // 2}")
        assert told[::2] == told[1::2]
        assert both[0].paid.sum() + both[0].reserve.sum() == revenue
        assert both[0].standing.tobytes() == both[1].standing.tobytes()


def test_powers_are_rounded_alike_on_every_machine():
    """By products alone: no library's pow, which differ in the last digit."""
    accounts = Accounts(SettlementPolicy(decay=0.9), 2)
    accounts.credit([[1.0, 0.3]], 0)
    accounts.credit([[0.0, 0.0]], 1000)
    assert [one.hex() for one in accounts.standing[0].tolist()] == ["0x1.fee7413dac412p-153", "0x1.328ac0be9a8d7p-154"]


# Refusals


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"decay": 0}, "greater than 0"),
        ({"decay": 1.1}, "less than or equal to 1"),
        ({"early": 0}, "greater than 0"),
        ({"early": float("nan")}, "finite"),
        ({"solidarity": -0.1}, "greater than or equal to 0"),
        ({"solidarity": 1.1}, "less than or equal to 1"),
        ({"reserve": 1}, "less than 1"),
        ({"reserve": -0.1}, "greater than or equal to 0"),
        ({"floor": -1}, "greater than or equal to 0"),
        ({"floor": 1.0}, "valid integer"),
        ({"floor": 2**63}, "less than or equal to"),
        ({"cap": 0.5}, "valid integer"),
        ({"cap": 2**63}, "less than or equal to"),
        ({"floor": 5, "cap": 4}, "cap=4 is below floor=5: raise the cap, or lower the floor"),
        ({"decay": 0.9, "early": 0.9}, "decay=0.9 and early=0.9: .* give one of them"),
        ({"split": "equal", "decay": 0.9, "clawback": True}, "decay and clawback would do nothing: leave it out, or use split: credit"),
        ({"split": "fair"}, "'credit' or 'equal'"),
        ({"ceiling": 3}, "ceiling"),
    ],
)
def test_policies_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        SettlementPolicy(**settings)


@pytest.mark.parametrize("amount", [1.0, 1.5, np.float64(3), True, "12", None])
def test_money_must_be_counted(amount):
    accounts = Accounts(SettlementPolicy(), 2)
    with pytest.raises(TypeError, match=rf"revenue={re.escape(repr(amount))}: must be a whole number of minor units"):
        accounts.settle([amount])
    with pytest.raises(TypeError, match=r"paid=.*: must be a whole number"):
        settle([1], np.ones((1, 2)), SettlementPolicy(), paid=np.array([[0, amount]], dtype=object))
    with pytest.raises(TypeError, match=r"reserve=.*: must be a whole number"):
        settle([1], np.ones((1, 2)), SettlementPolicy(), reserve=np.array([amount], dtype=object))
    assert accounts.paid.tolist() == [[0, 0]]


def test_negative_and_misshapen_accounts_are_refused():
    standing, policy = np.ones((1, 2)), SettlementPolicy()
    with pytest.raises(ValueError, match="revenue=-1: must not be negative"):
        settle([-1], standing, policy)
    with pytest.raises(ValueError, match="reserve=-1: must not be negative"):
        settle([1], standing, policy, reserve=np.array([-1], dtype=object))
    with pytest.raises(ValueError, match="paid=-1: must not be negative"):
        settle([1], standing, policy, paid=np.array([[0, -1]], dtype=object))
    with pytest.raises(ValueError, match=r"paid has shape \(1, 3\): must be \(batch, n\) = \(1, 2\)"):
        settle([1], standing, policy, paid=np.zeros((1, 3), dtype=object))
    with pytest.raises(ValueError, match="revenue has 2 entries for 1 rows"):
        settle([1, 2], standing, policy)
    with pytest.raises(ValueError, match="weight=nan"):
        settle([1], np.array([[1.0, np.nan]]), policy)


def test_amounts_beyond_what_can_be_recorded_are_refused_and_nothing_is_changed():
    accounts = Accounts(SettlementPolicy(), 2)
    with pytest.raises(ValueError, match=f"a revenue would come to {2**63} minor units: no more than 2\\^63 − 1"):
        accounts.settle([2**63])
    accounts.settle([LARGEST])
    with pytest.raises(ValueError, match="all payouts would come to"):
        accounts.settle([1])
    assert accounts.paid.sum() == LARGEST
    capped = Accounts(SettlementPolicy(cap=0), 1)
    capped.settle([LARGEST])
    with pytest.raises(ValueError, match="the reserve would come to"):
        capped.settle([1])
    assert capped.reserve.tolist() == [LARGEST]


@pytest.mark.parametrize(
    ("credit", "t", "error", "message"),
    [
        ([[1.0, np.nan]], 0, ValueError, "credit=nan of round 0: must be finite"),
        ([[1.0, np.inf]], 3, ValueError, "credit=inf of round 3: must be finite"),
        ([[1.0]], 0, ValueError, r"credit of shape \(1, 1\): must be at least 0, and of shape \(batch, n\) = \(1, 2\)"),
        ([1.0, 1.0], 0, ValueError, "credit of shape"),
        ([[1.0, 1.0]], -1, ValueError, "t=-1"),
        ([[1.0, 1.0]], 1.0, TypeError, r"t=1\.0: must be a whole number, not float"),
    ],
)
def test_credit_that_cannot_be_counted_is_refused_and_nothing_is_changed(credit, t, error, message):
    accounts = Accounts(SettlementPolicy(), 2)
    with pytest.raises(error, match=message):
        accounts.credit(credit, t)
    assert (accounts.standing.tolist(), accounts.now) == ([[0.0, 0.0]], -1)


@pytest.mark.parametrize("sign", [1, -1])
def test_cumulative_credit_beyond_float64_is_refused_and_nothing_is_changed(sign):
    accounts = Accounts(SettlementPolicy(clawback=True), 1)
    accounts.credit([[sign * 1.7e308]], 0)
    with pytest.raises(
        ValueError, match="the credit of round 1 brings cumulative credit beyond what float64 holds: give credit in a larger unit"
    ):
        accounts.credit([[sign * 1.7e308]], 1)
    assert accounts.standing.tolist() == [[sign * 1.7e308]]


def test_standings_of_a_batch_age_alike():
    standing, credit = np.array([[8.0, 0.0], [4.0, 2.0]]), np.array([[0.0, 1.0], [1.0, 0.0]])
    together = aged(standing, 2, credit, 4, SettlementPolicy(decay=0.5))
    assert together.tolist() == [[2.0, 1.0], [2.0, 0.5]]
    singles = [aged(standing[i], 2, credit[i], 4, SettlementPolicy(decay=0.5)).tolist() for i in range(2)]
    assert together.tolist() == singles


def test_policies_cannot_be_changed_afterwards():
    policy = SettlementPolicy()
    with pytest.raises(ValidationError, match="frozen"):
        policy.reserve = 0.5


def test_switches_are_no_shares():
    for name in ("decay", "early", "solidarity", "reserve"):
        with pytest.raises(ValueError, match=f"{name}=False: must be a number"):
            SettlementPolicy(**{name: False})


def test_a_round_so_late_that_all_credit_would_be_forgotten_is_refused():
    accounts = Accounts(SettlementPolicy(decay=0.5), 2)
    accounts.credit([[3.0, 1.0]], 0)
    with pytest.raises(ValueError, match="round=2000 is 2,000 rounds after the latest, 0"):
        accounts.credit([[1.0, 1.0]], 2000)
    assert accounts.now == 0


@pytest.mark.parametrize("policy", [None, {"decay": 0.9}, SettlementPolicy, 2])
def test_what_is_no_policy_is_refused(policy):
    with pytest.raises(ValueError, match=r"policy=.*must be a SettlementPolicy"):
        Accounts(policy, 2)
    with pytest.raises(ValueError, match=r"policy=.*must be a SettlementPolicy"):
        settle([10], np.ones((1, 2)), policy)


@pytest.mark.parametrize("number", [-1, 2.0, "2", True, None])
def test_a_number_of_members_that_is_none_is_refused(number):
    with pytest.raises(ValueError, match="n_members="):
        Accounts(SettlementPolicy(), number)
    with pytest.raises(ValueError, match="batch="):
        Accounts(SettlementPolicy(), 2, batch=number)
    with pytest.raises(ValueError, match="n_members="):
        Accounts(SettlementPolicy(), 2).join(number)


@pytest.mark.parametrize("revenue", [10, "10", None, {10}, {10: 1}, np.int64(10)])
def test_revenue_that_is_no_list_is_refused(revenue):
    with pytest.raises(TypeError, match=r"revenue=.*give a list of whole numbers"):
        Accounts(SettlementPolicy(), 2).settle(revenue)


@pytest.mark.parametrize(
    "credit",
    [
        [[1, "2"]],
        [["1", "2"]],
        [[None, 2]],
        [[1, 2j]],
        [[True, False]],
        {"Ada": 1, "Bo": 2},
        np.ma.masked_array([[1.0, 2.0]], mask=[[True, False]]),
        [[10**400, 1]],
        torch.tensor([[1j, 2.0]]),
    ],
)
def test_credit_that_is_no_number_or_is_masked_is_refused_and_changes_nothing(credit):
    accounts = Accounts(SettlementPolicy(), 2)
    with pytest.raises(ValueError, match=r"credit=.*must be an array of real numbers"):
        accounts.credit(credit, t=0)
    assert accounts.now == -1
    with pytest.raises(ValueError, match=r"standing=.*must be an array of real numbers"):
        settle([10], credit, SettlementPolicy())


@pytest.mark.parametrize(
    "credit",
    [
        [[1, 3]],
        torch.tensor([[1.0, 3.0]], requires_grad=True),
        torch.tensor([[1, 3]], dtype=torch.bfloat16),
        [[Decimal(1), Fraction(3)]],
        np.array([[1, 3]], dtype=">f4"),
    ],
)
def test_credit_may_be_numbers_of_any_real_type(credit):
    accounts = Accounts(SettlementPolicy(), 2)
    accounts.credit(credit, t=0)
    assert accounts.settle([8]).payouts.tolist() == settle([8], credit, SettlementPolicy()).payouts.tolist() == [[2, 6]]
