from itertools import combinations
from math import comb

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from proxycoop import credit
from proxycoop.credit.solutions.joint_shapley import arrival_weights, groups

SEEDS = st.integers(0, 2**32 - 1)
SIZES_AND_ORDERS = st.integers(1, 6).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n)))


def random_worths(seed: int, n: int, n_envs: int = 1) -> Tensor:
    """Standard normal worths with v(∅) = 0, float64 ``(n_envs, 2**n)``."""
    v = torch.randn(n_envs, 2**n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    v[:, 0] = 0
    return v


def by_arrival(v: list[float], n: int, order: int) -> list[float]:
    """Players arrive in groups of at most ``order``, every possible next group alike; a group gets what its arrival adds, expected."""
    names = groups(n, order)
    chance = [0.0] * 2**n
    chance[0] = 1.0
    paid = dict.fromkeys(names, 0.0)
    for here in range(2**n):
        outside = [i for i in range(n) if not here >> i & 1]
        coming = [group for size in range(1, min(order, len(outside)) + 1) for group in combinations(outside, size)]
        for group in coming:
            there = here | sum(1 << i for i in group)
            chance[there] += chance[here] / len(coming)
            paid[group] += chance[here] / len(coming) * (v[there] - v[here])
    return [paid[group] for group in names]


@given(SEEDS, SIZES_AND_ORDERS)
def test_is_what_groups_add_on_average_when_they_arrive_at_random(seed, n_and_order):
    n, order = n_and_order
    v = random_worths(seed, n)
    assert credit.joint_shapley_values(v, order)[0].tolist() == pytest.approx(by_arrival(v[0].tolist(), n, order), abs=1e-12)


@given(SIZES_AND_ORDERS)
def test_the_weights_are_the_chances_of_a_random_arrival(n_and_order):
    n, order = n_and_order
    chance = [0.0] * 2**n
    chance[0] = 1.0
    for here in range(2**n - 1):
        outside = [1 << i for i in range(n) if not here >> i & 1]
        coming = [sum(group) for size in range(1, min(order, len(outside)) + 1) for group in combinations(outside, size)]
        for group in coming:
            chance[here | group] += chance[here] / len(coming)
        q = arrival_weights(n, order)[bin(here).count("1")]
        assert q * len(coming) == pytest.approx(chance[here], abs=1e-13)
    assert chance[-1] == pytest.approx(1, abs=1e-12)


def test_two_players_of_order_two_by_hand():
    # {1}, {2} and {1, 2} may come first, each with 1/3: φ_i = (v(i) + v(12) − v(j)) / 3, φ_12 = v(12) / 3
    v = torch.tensor([[0.0, 1.0, 4.0, 10.0]], dtype=torch.float64)
    assert credit.joint_shapley_values(v, 2)[0].tolist() == pytest.approx([7 / 3, 13 / 3, 10 / 3], abs=1e-14)


def test_three_players_of_order_two_by_hand():
    # q_0 = 1/6; a player is reached with 1/6 and may be followed by 3 groups: q_1 = 1/18; a pair is reached with 1/6 + 2/18 = 5/18 = q_2
    assert arrival_weights(3, 2) == pytest.approx([1 / 6, 1 / 18, 5 / 18], abs=1e-15)


def test_three_players_of_order_three_by_hand():
    # q_0 = 1/7; a player is reached with 1/7 and may be followed by 3 groups: q_1 = 1/21; a pair with 1/7 + 2/21 = 5/21 = q_2
    assert arrival_weights(3, 3) == pytest.approx([1 / 7, 1 / 21, 5 / 21], abs=1e-15)


@given(SEEDS, st.integers(1, 8))
def test_order_one_is_the_shapley_value(seed, n):
    v = random_worths(seed, n, n_envs=2)
    torch.testing.assert_close(credit.joint_shapley_values(v, 1), credit.shapley_values(v), rtol=0, atol=1e-12)


@given(SEEDS, SIZES_AND_ORDERS)
def test_what_groups_get_sums_to_the_worth_of_all(seed, n_and_order):
    n, order = n_and_order
    v = random_worths(seed, n, n_envs=2) + 3.0
    paid = credit.joint_shapley_values(v, order)
    assert paid.shape == (2, sum(comb(n, size) for size in range(1, order + 1)))
    torch.testing.assert_close(paid.sum(dim=1), v[:, -1] - v[:, 0], rtol=0, atol=1e-11)


@given(SEEDS, st.integers(2, 6), st.data())
def test_a_group_that_adds_nothing_to_any_coalition_gets_nothing(seed, n, data):
    # all of them together change nothing; some of them may
    group = sorted(data.draw(st.sets(st.integers(0, n - 1), min_size=1, max_size=n - 1)))
    mask = sum(1 << i for i in group)
    codes = torch.arange(2**n)
    v = random_worths(seed, n)[:, torch.where(codes & mask == mask, codes & ~mask, codes)]
    null = groups(n, n).index(tuple(group))
    assert credit.joint_shapley_values(v, n)[0, null].item() == pytest.approx(0, abs=1e-13)


@given(SEEDS, SIZES_AND_ORDERS)
def test_the_rule_shares_a_group_s_value_equally_among_its_members(seed, n_and_order):
    n, order = n_and_order
    v = random_worths(seed, n)
    values = credit.joint_shapley_values(v, order)[0].tolist()
    expected = [sum(value / len(group) for value, group in zip(values, groups(n, order), strict=True) if i in group) for i in range(n)]
    paid = credit.JointShapley(order).values(lambda c: v[0, (c * 2 ** torch.arange(n)).sum(dim=1)], n)
    assert paid[0].tolist() == pytest.approx(expected, abs=1e-12)
    assert paid.sum().item() == pytest.approx(v[0, -1].item(), abs=1e-11)


def test_an_order_beyond_the_number_of_agents_means_all_of_them():
    v = random_worths(0, 3)

    def game(coalitions):
        return v[:, (coalitions * torch.tensor([1, 2, 4])).sum(dim=1)]

    assert credit.JointShapley(9).values(game, 3).equal(credit.JointShapley(3).values(game, 3))


def test_a_free_rider_in_good_company_is_paid_which_is_its_known_failure():
    # player 1 adds nothing, but a third of the arrivals bring both at once: v(12)/3 is shared
    paid = credit.JointShapley(2).values(lambda c: 1.0 * c[:, 0], 2)[0].tolist()
    assert paid == pytest.approx([5 / 6, 1 / 6], abs=1e-7)
    assert not credit.JointShapley(2).null_player
    assert credit.JointShapley(1).null_player


@given(SEEDS, st.integers(1, 5), st.integers(1, 4))
def test_a_batch_of_games_equals_the_games_one_by_one(seed, n, n_envs):
    v = random_worths(seed, n, n_envs)
    one_by_one = torch.cat([credit.joint_shapley_values(row[None], n) for row in v])
    torch.testing.assert_close(credit.joint_shapley_values(v, n), one_by_one, rtol=0, atol=1e-13)


def test_twelve_players_are_served_and_thirteen_refused():
    sizes = credit.coalition_matrix(12).sum(dim=1)
    paid = credit.JointShapley(3).values(lambda c: c.sum(dim=1) ** 2, 12)[0]
    assert paid.tolist() == pytest.approx([sizes.max().item() ** 2 / 12] * 12, abs=1e-10)
    with pytest.raises(ValueError, match="at most 12 agents, got 13"):
        credit.JointShapley().values(credit.CoalitionGame(lambda c: pytest.fail("evaluated"), 13))


@pytest.mark.parametrize("order", [0, -1, 1.5, True, "2"])
def test_an_order_that_is_no_whole_number_from_1_is_refused(order):
    with pytest.raises(ValueError, match="order="):
        credit.make("joint_shapley", order=order)


@pytest.mark.parametrize(("shape", "order"), [((1, 7), 1), ((8,), 1), ((1, 1), 1), ((1, 2**13), 1), ((1, 8), 0), ((1, 8), 4)])
def test_worths_of_the_wrong_shape_and_orders_out_of_range_are_refused(shape, order):
    with pytest.raises(ValueError, match=r"v must have shape|order="):
        credit.joint_shapley_values(torch.zeros(shape), order)
