from itertools import combinations
from math import comb

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from proxycoop import credit

SEEDS = st.integers(0, 2**32 - 1)


def random_worths(seed: int, n: int, n_envs: int = 1) -> Tensor:
    """Standard normal worths with v(∅) = 0, float64 ``(n_envs, 2**n)``."""
    v = torch.randn(n_envs, 2**n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    v[:, 0] = 0
    return v


def banzhaf(v: Tensor) -> Tensor:
    """The Banzhaf value of the games whose worths are in the table, ``(n_envs, n)``."""
    n = v.shape[1].bit_length() - 1
    return credit.Banzhaf().values(lambda c: v[:, (c * 2 ** torch.arange(n)).sum(dim=1)], n)


def majority(quota: float, weights: list[float]):
    """1 if the coalition's weights reach the quota."""
    return lambda c: c.double() @ torch.tensor(weights, dtype=torch.float64) >= quota


def power(value, n: int) -> list[float]:
    return credit.make("banzhaf").values(value, n)[0].tolist()


# voting games whose indices are in the literature: the number of swings over 2^(n−1)


@pytest.mark.parametrize(
    ("quota", "weights", "swings"),
    [
        (51, [50, 49, 1], [3, 1, 1]),
        (4, [3, 2, 1, 1], [6, 2, 2, 2]),
        (5, [5, 1, 1, 1], [8, 0, 0, 0]),  # a dictator
        (12, [4, 4, 4, 2, 2, 1], [10, 10, 10, 6, 6, 0]),  # the Council of the EEC of 1958: Luxembourg's vote never mattered
        (58, [31, 31, 28, 21, 2, 2], [16, 16, 16, 0, 0, 0]),  # Nassau County Board of Supervisors 1964, Banzhaf's own case
    ],
)
def test_weighted_majority_gives_the_banzhaf_index(quota, weights, swings):
    n = len(weights)
    assert power(majority(quota, weights), n) == pytest.approx([s / 2 ** (n - 1) for s in swings], abs=1e-14)


def test_the_un_security_council_gives_each_veto_848_swings_and_each_seat_84():
    expected = [848 / 2**14] * 5 + [84 / 2**14] * 10  # 848 = Σ_{k≥4} C(10, k), 84 = C(9, 3)
    assert power(lambda c: c[:, :5].all(dim=1) & (c.sum(dim=1) >= 9), 15) == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize("n", [1, 3, 5, 11, 15])
def test_one_vote_among_an_odd_number_decides_as_often_as_penrose_says(n):
    expected = comb(n - 1, (n - 1) // 2) / 2 ** (n - 1)
    assert power(lambda c: 2 * c.sum(dim=1) > n, n) == pytest.approx([expected] * n, abs=1e-14)


# other games with known values


@given(st.integers(1, 8).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1), min_size=1))))
def test_unanimity_game_gives_those_it_needs_the_chance_that_the_others_are_there(n_and_needed):
    n, needed = n_and_needed
    expected = [2.0 ** (1 - len(needed)) if i in needed else 0.0 for i in range(n)]
    assert power(lambda c: c[:, sorted(needed)].all(dim=1), n) == pytest.approx(expected, abs=1e-14)


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=8))
def test_additive_game_gives_each_player_its_own_worth(worth):
    weights = torch.tensor(worth, dtype=torch.float64)
    assert power(lambda c: c.double() @ weights, len(worth)) == pytest.approx(worth, abs=1e-9)


def test_glove_game_gives_right_glove_three_quarters_and_the_others_one_quarter_each():
    assert power(lambda c: c[:, 2] & c[:, :2].any(dim=1), 3) == [0.25, 0.25, 0.75]


@pytest.mark.parametrize("n", [15, 18])
def test_many_players_share_an_additive_and_a_unanimity_game_in_closed_form(n):
    worth = torch.linspace(-1, 2, n, dtype=torch.float64)
    needed = [0, 3, n - 1]
    expected = worth + torch.tensor([5 / 4 if i in needed else 0.0 for i in range(n)], dtype=torch.float64)
    paid = credit.Banzhaf().values(lambda c: c.double() @ worth + 5.0 * c[:, needed].all(dim=1), n)
    torch.testing.assert_close(paid[0], expected, rtol=0, atol=1e-12)


# against the definition, and what the value promises


@given(SEEDS, st.integers(1, 6))
def test_is_the_mean_marginal_contribution_over_all_coalitions_of_the_others(seed, n):
    v = random_worths(seed, n)
    expected = []
    for i in range(n):
        others = [1 << j for j in range(n) if j != i]
        codes = [sum(chosen) for size in range(n) for chosen in combinations(others, size)]
        expected.append(sum((v[0, code | 1 << i] - v[0, code]).item() for code in codes) / len(codes))
    assert banzhaf(v)[0].tolist() == pytest.approx(expected, abs=1e-12)


@given(SEEDS, st.integers(2, 7), st.data())
def test_two_players_who_merge_get_what_both_got(seed, n, data):
    # Lehrer (1988): the axiom that singles out the Banzhaf value; the merged player is i, and j is gone
    i, j = sorted(data.draw(st.permutations(range(n)))[:2])
    v = random_worths(seed, n)
    keep = [k for k in range(n) if k != j]
    apart = credit.coalition_matrix(n - 1)
    codes = sum((apart[:, new].long() << old for new, old in enumerate(keep)), torch.zeros(2 ** (n - 1), dtype=torch.int64))
    codes = codes | (codes >> i & 1) << j
    together = banzhaf(v[:, codes])[0, keep.index(i)]
    assert together.item() == pytest.approx((banzhaf(v)[0, i] + banzhaf(v)[0, j]).item(), abs=1e-12)


@given(SEEDS)
def test_two_players_get_their_shapley_value(seed):
    v = random_worths(seed, 2)
    torch.testing.assert_close(banzhaf(v), credit.shapley_values(v), rtol=0, atol=1e-14)


@given(SEEDS, st.integers(1, 7), st.floats(-10, 10), st.floats(-10, 10))
def test_is_linear_in_the_game(seed, n, a, b):
    v, w = random_worths(seed, n, n_envs=2).unsqueeze(1)
    torch.testing.assert_close(banzhaf(a * v + b * w), a * banzhaf(v) + b * banzhaf(w), rtol=0, atol=1e-11)


def test_the_budget_is_missed_either_way_which_is_its_known_failure():
    assert sum(power(majority(2, [1, 1, 1]), 3)) == 1.5
    assert sum(power(lambda c: c.all(dim=1), 3)) == 0.75
    assert not credit.Banzhaf().efficient


@given(SEEDS, st.integers(1, 6), st.integers(1, 5))
def test_a_batch_of_games_equals_the_games_one_by_one(seed, n, n_envs):
    v = random_worths(seed, n, n_envs)
    torch.testing.assert_close(banzhaf(v), torch.cat([banzhaf(row[None]) for row in v]), rtol=0, atol=1e-13)


def test_float32_stays_float32_and_close():
    v = random_worths(3, 10)
    assert banzhaf(v.float()).dtype == torch.float32
    torch.testing.assert_close(banzhaf(v.float()).double(), banzhaf(v), rtol=0, atol=1e-6)


def test_twenty_one_players_are_refused_before_any_evaluation():
    with pytest.raises(ValueError, match=r"Banzhaf takes at most 20 agents, got 21 \(2,097,152 coalitions"):
        credit.Banzhaf().values(credit.CoalitionGame(lambda c: pytest.fail("evaluated"), 21))
