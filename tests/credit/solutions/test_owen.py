from itertools import permutations, product

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


@st.composite
def union_structures(draw, most: int = 6) -> list[list[int]]:
    n = draw(st.integers(1, most))
    label = draw(st.lists(st.integers(0, n - 1), min_size=n, max_size=n))
    players = draw(st.permutations(range(n)))
    unions = [[i for i in players if label[i] == u] for u in range(n)]
    return [union for union in unions if union]


def by_orders(v: Tensor, unions: list[list[int]]) -> list[float]:
    """The mean marginal contribution over the orders in which every union arrives as a whole."""
    n = sum(map(len, unions))
    total, count = [0.0] * n, 0
    for arrival in permutations(unions):
        for inside in product(*(permutations(union) for union in arrival)):
            count += 1
            here = 0
            for i in (i for union in inside for i in union):
                total[i] += (v[0, here | 1 << i] - v[0, here]).item()
                here |= 1 << i
    return [x / count for x in total]


def quotient(v: Tensor, unions: list[list[int]]) -> Tensor:
    """The worths of the game between the unions."""
    codes = torch.zeros(2 ** len(unions), dtype=torch.int64)
    for u, union in enumerate(unions):
        codes += credit.coalition_matrix(len(unions))[:, u] * sum(1 << i for i in union)
    return v[:, codes]


def owen(unions, value, n: int) -> list[float]:
    return credit.Owen(unions).values(value, n)[0].tolist()


# games with known values


def glove(c: Tensor) -> Tensor:
    """Player 0 has the left glove, players 1 and 2 a right one each."""
    return 1.0 * (c[:, 0] & c[:, 1:].any(dim=1)).double()


def test_sellers_who_unite_halve_what_the_buyer_gets():
    # alone, player 0 gets 2/3; against the union of the others it is one of two, and they split their half
    assert owen([[0], [1, 2]], glove, 3) == pytest.approx([1 / 2, 1 / 4, 1 / 4], abs=1e-15)


def test_a_union_of_both_gloves_shares_the_worth_by_what_its_members_could_do_with_the_other_union():
    # {0, 1} wins as a union; within it v(0) = 1/2 (with 2 there or not), v(1) = 0, v(01) = 1
    assert owen([[0, 1], [2]], glove, 3) == pytest.approx([3 / 4, 1 / 4, 0], abs=1e-15)


def test_two_of_three_voters_who_unite_take_all():
    assert owen([[0, 1], [2]], lambda c: c.sum(dim=1) >= 2, 3) == pytest.approx([1 / 2, 1 / 2, 0], abs=1e-15)


def test_a_weighted_majority_with_unions_by_hand():
    # [5; 3, 2, 2, 1]; of the unions A = {3}, B = {2, 2}, C = {1}, AB has 7 votes, BC 5, AC 4 and B alone 4: the glove game with B
    # scarce, (1/6, 2/3, 1/6), and inside B the twins are alike
    def value(c):
        return c.double() @ torch.tensor([3.0, 2.0, 2.0, 1.0], dtype=torch.float64) >= 5

    assert owen([[0], [1, 2], [3]], value, 4) == pytest.approx([1 / 6, 1 / 3, 1 / 3, 1 / 6], abs=1e-15)


@given(union_structures(), st.data())
def test_unanimity_game_is_split_between_the_unions_it_needs_and_then_within_them(unions, data):
    n = sum(map(len, unions))
    needed = data.draw(st.sets(st.integers(0, n - 1), min_size=1))
    touched = [union for union in unions if needed & set(union)]
    expected = [0.0] * n
    for union in touched:
        for i in needed & set(union):
            expected[i] = 1 / len(touched) / len(needed & set(union))
    assert owen(unions, lambda c: c[:, sorted(needed)].all(dim=1), n) == pytest.approx(expected, abs=1e-14)


# against the definition, and what the value promises


@given(SEEDS, union_structures(most=5))
def test_is_the_mean_marginal_contribution_over_the_orders_that_keep_unions_together(seed, unions):
    n = sum(map(len, unions))
    v = random_worths(seed, n)
    paid = credit.Owen(unions).values(credit.table_game(v))
    assert paid[0].tolist() == pytest.approx(by_orders(v, unions), abs=1e-12)


@given(SEEDS, union_structures())
def test_a_union_gets_its_shapley_value_in_the_game_between_unions(seed, unions):
    n = sum(map(len, unions))
    v = random_worths(seed, n, n_envs=2)
    paid = credit.Owen(unions).values(credit.table_game(v))
    of_unions = torch.stack([paid[:, union].sum(dim=1) for union in unions], dim=1)
    torch.testing.assert_close(of_unions, credit.shapley_values(quotient(v, unions)), rtol=0, atol=1e-12)
    torch.testing.assert_close(paid.sum(dim=1), v[:, -1], rtol=0, atol=1e-11)


@given(SEEDS, st.integers(1, 7))
def test_everybody_alone_or_all_in_one_union_is_the_shapley_value(seed, n):
    v = random_worths(seed, n, n_envs=2)
    for unions in (1, n, [[i] for i in range(n)], [list(range(n))]):
        rule = credit.Owen(unions)
        torch.testing.assert_close(rule.values(credit.table_game(v)), credit.shapley_values(v), rtol=0, atol=1e-12)
        assert rule.symmetric or unions == n > 1  # as a number, it holds for other numbers of players too


@given(SEEDS, union_structures())
def test_a_player_that_adds_nothing_gets_nothing(seed, unions):
    n = sum(map(len, unions))
    v = random_worths(seed, n)[:, torch.arange(2**n) & ~1]
    assert credit.Owen(unions).values(credit.table_game(v))[0, 0].item() == pytest.approx(0, abs=1e-13)


def test_a_twin_in_a_strong_union_is_paid_more_which_is_its_known_failure():
    # three alike voters, two of whom have united
    paid = owen([[0, 1], [2]], lambda c: c.sum(dim=1) >= 2, 3)
    assert paid[0] > paid[2]
    assert not credit.Owen([[0, 1], [2]]).symmetric


@given(SEEDS, union_structures(), st.integers(1, 4))
def test_a_batch_of_games_equals_the_games_one_by_one(seed, unions, n_envs):
    n = sum(map(len, unions))
    v = random_worths(seed, n, n_envs)
    rule = credit.Owen(unions)
    one_by_one = torch.cat([rule.values(credit.table_game(row[None])) for row in v])
    torch.testing.assert_close(rule.values(credit.table_game(v)), one_by_one, rtol=0, atol=1e-13)


# sizes and costs


@pytest.mark.parametrize(("n", "structure"), [(5, [[0, 1], [2, 3], [4]]), (4, [[0, 1], [2, 3]]), (1, [[0]])])
def test_a_number_forms_unions_of_that_size_in_order(n, structure):
    assert credit.Owen(2).structure(n) == structure


def test_many_players_in_few_unions_are_no_trouble():
    # 60 players in 5 unions; additive, and a bonus that a whole union and player 59 bring together
    n, bonus = 60, list(range(12))
    worth = torch.linspace(-1, 1, n, dtype=torch.float64)
    rule = credit.Owen(12)
    game = credit.as_game(lambda c: c.double() @ worth + 6.0 * (c[:, bonus].all(dim=1) & c[:, 59]), n)
    expected = worth + torch.tensor([3 / 12 if i in bonus else 3.0 if i == 59 else 0.0 for i in range(n)], dtype=torch.float64)
    torch.testing.assert_close(rule.values(game)[0], expected, rtol=0, atol=1e-12)
    assert game.evaluations <= rule.cost(n) == 5 * 2 ** (4 + 12)


def test_unions_that_cost_too_much_are_refused_before_any_evaluation_with_the_numbers():
    with pytest.raises(ValueError, match=r"20 unions of 40 players need 41,943,040 coalition evaluations, at most 1,048,576") as caught:
        credit.Owen(2).values(credit.CoalitionGame(lambda c: pytest.fail("evaluated"), 40))
    assert "credit='shapley(budget=800)'" in str(caught.value)


@pytest.mark.parametrize("unions", [[[0, 1], [1, 2]], [[0], [2]], [[0, 1], []], [], [[1, 2]], 0, -2, True, 1.5, [0, 1], [[0, "b"]], "ab"])
def test_unions_that_do_not_hold_every_player_once_are_refused(unions):
    with pytest.raises(ValueError, match="unions="):
        credit.make("owen", unions=unions)


def test_unions_of_other_players_are_refused():
    with pytest.raises(ValueError, match=r"are of 3 players, but there are 4"):
        credit.Owen([[0, 1], [2]]).values(lambda c: c.sum(dim=1), 4)
