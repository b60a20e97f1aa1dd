"""The closed forms, against averages over all orders and all coalitions."""

from itertools import permutations, product
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from proxycoop import credit
from proxycoop.credit import games

SMALL = [
    games.additive([2.0]),
    games.additive([1.0, -2.0, 0.0, 0.5]),
    games.unanimity(1, [0]),
    games.unanimity(5, [1, 3, 4]),
    games.unanimity_sum(4, [[0], [0, 1], [1, 2, 3], [0, 1, 2, 3]], [1.0, -2.0, 0.5, 3.0]),
    games.glove(1, 1),
    games.glove(1, 2),
    games.glove(3, 2),
    games.glove(2, 4),
    games.airport([3.0, 0.0, 1.0, 3.0, 2.0]),
    games.weighted_majority([3, 2, 1, 1], 4),
    games.weighted_majority([5, 0, 5, 2, 2, 1], 8),
    games.weighted_majority([1, 1], 3),  # which nobody can win
    games.coverage([[0, 1], [1, 2], [], [0, 1, 3]], [1.0, 2.0, 0.5, 4.0, 8.0]),
    games.saturating([1.0, 2.0, -0.5, 0.0], 1.5),
    games.saturating([1.0, 2.0, -0.5, 7.0], 2.0, [0, 1, 1, 2, 1, 0]),
    *(games.random_game(kind, n, seed=3) for kind in get_args(games.GameKind) for n in (1, 2, 5, 6)),
]
KINDS = pytest.mark.parametrize("kind", get_args(games.GameKind))


def worth(known: games.KnownGame, players) -> float:
    coalition = torch.zeros(1, known.n_players, dtype=torch.bool)
    coalition[0, list(players)] = True
    return known.value(coalition).item()


def shapley_by_orders(known: games.KnownGame) -> Tensor:
    total = [0.0] * known.n_players
    orders = list(permutations(range(known.n_players)))
    values = {frozenset(s): worth(known, s) for s in subsets(known.n_players)}
    for order in orders:
        for k, i in enumerate(order):
            total[i] += values[frozenset(order[: k + 1])] - values[frozenset(order[:k])]
    return torch.tensor(total, dtype=torch.float64) / len(orders)


def banzhaf_by_coalitions(known: games.KnownGame) -> Tensor:
    n = known.n_players
    values = {frozenset(s): worth(known, s) for s in subsets(n)}
    total = [sum(values[s | {i}] - values[s] for s in values if i not in s) for i in range(n)]
    return torch.tensor(total, dtype=torch.float64) / 2 ** (n - 1)


def subsets(n: int) -> list[list[int]]:
    return [[i for i in range(n) if inside[i]] for inside in product([False, True], repeat=n)]


@pytest.mark.parametrize("known", SMALL, ids=lambda known: known.name)
def test_shapley_values_are_the_averages_over_all_orders(known):
    torch.testing.assert_close(known.shapley, shapley_by_orders(known), rtol=0, atol=1e-12)


@pytest.mark.parametrize("known", SMALL, ids=lambda known: known.name)
def test_banzhaf_values_are_the_averages_over_all_coalitions(known):
    torch.testing.assert_close(known.banzhaf, banzhaf_by_coalitions(known), rtol=0, atol=1e-12)


@pytest.mark.parametrize("known", SMALL, ids=lambda known: known.name)
def test_nobody_is_worth_nothing(known):
    assert worth(known, []) == 0


# values that are known by hand


def test_the_right_glove_of_one_against_two_is_worth_two_thirds():
    assert games.glove(1, 2).shapley.tolist() == pytest.approx([2 / 3, 1 / 6, 1 / 6])


def test_the_airport_of_littlechild_and_owen_splits_each_piece_among_its_users():
    assert games.airport([1.0, 2.0, 4.0]).shapley.tolist() == pytest.approx([1 / 3, 1 / 3 + 1 / 2, 1 / 3 + 1 / 2 + 2])


def test_the_security_council_has_the_power_that_shapley_and_shubik_gave_it():
    # 5 permanent members with a veto and 10 others, 9 votes: 7 votes to a permanent member, 39 needed (since the enlargement of 1965)
    known = games.weighted_majority([7] * 5 + [1] * 10, 39)
    assert known.shapley[:5].tolist() == pytest.approx([0.196270] * 5, abs=1e-6)
    assert known.shapley[5:].tolist() == pytest.approx([0.001865] * 10, abs=1e-6)


def test_of_copies_of_a_lot_each_gets_a_share_and_together_they_gain_nothing():
    alone, copied = games.saturating([1.0, 1.0], 1.0), games.saturating([1.0, 1.0], 1.0, [0, 1, 1])
    assert copied.game().grand() == alone.game().grand()
    assert copied.shapley[1] == copied.shapley[2] < alone.shapley[1]


# many players


@KINDS
@pytest.mark.parametrize("n", [20, 64, 100])
def test_shapley_values_of_many_players_sum_to_the_worth_of_all(kind, n):
    known = games.random_game(kind, n, seed=5)
    assert known.shapley.sum().item() == pytest.approx(known.game().grand().item(), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("known", [games.glove(30, 34), games.airport([float(i % 7) for i in range(64)])], ids=lambda known: known.name)
def test_so_do_those_of_the_games_with_a_formula(known):
    assert known.shapley.sum().item() == pytest.approx(known.game().grand().item(), rel=1e-12)


@KINDS
def test_values_of_64_players_are_the_mean_marginal_contributions_of_a_sample(kind):
    """Shapley's along random orders and Banzhaf's to random coalitions, within 5 standard errors."""
    known = games.random_game(kind, 64, seed=6)
    generator = torch.Generator().manual_seed(0)
    n_samples = 2000
    rank = torch.rand(n_samples, 64, generator=generator)
    for player in [0, 17, 63]:
        before = rank < rank[:, player : player + 1]
        anybody = torch.rand(n_samples, 64, generator=generator) < 0.5
        for others, exact in ((before, known.shapley), (anybody, known.banzhaf)):
            without, joined = others.clone(), others.clone()
            without[:, player], joined[:, player] = False, True
            marginal = known.value(joined) - known.value(without)
            assert abs(marginal.mean() - exact[player]) <= 5 * marginal.std() / n_samples**0.5 + 1e-12


def test_votes_of_64_players_are_counted_in_whole_numbers_of_any_length():
    # all alike: by symmetry 1/64 each, although C(64, 32) coalitions have 32 votes
    known = games.weighted_majority([1] * 64, 33)
    assert known.shapley.tolist() == [1 / 64] * 64


def test_player_order_does_not_matter():
    weights, order = [1.0, 2.0, -0.5, 4.0], [2, 0, 3, 1]
    known, renamed = games.saturating(weights, 2.0), games.saturating([weights[i] for i in order], 2.0)
    torch.testing.assert_close(renamed.shapley, known.shapley[order], rtol=1e-14, atol=0)


# properties of random instances


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(2, 9))
def test_every_random_game_has_the_shapley_values_that_the_exact_rule_finds(seed, n):
    for kind in get_args(games.GameKind):
        known = games.random_game(kind, n, seed)
        torch.testing.assert_close(credit.make("shapley").values(known.game())[0], known.shapley, rtol=0, atol=1e-11)


@KINDS
def test_the_same_seed_draws_the_same_game_and_another_another(kind):
    one, same, other = (games.random_game(kind, 10, seed) for seed in (1, 1, 2))
    assert one.shapley.equal(same.shapley)
    assert not one.shapley.equal(other.shapley)


def test_random_saturating_games_have_redundant_and_harmful_players():
    known = games.random_game("saturating", 40, seed=0)
    alone = known.value(torch.eye(40, dtype=torch.bool))
    assert 3 <= (alone < 0).sum() <= 12
    assert len(alone.unique()) <= 30
    assert ((known.shapley < 0) == (alone < 0)).all()


def test_random_coverage_is_submodular():
    known = games.random_game("coverage", 12, seed=0)
    generator = torch.Generator().manual_seed(1)
    large = torch.rand(500, 12, generator=generator) < 0.6
    small = large & (torch.rand(500, 12, generator=generator) < 0.5)
    for i in range(12):
        large[:, i] = small[:, i] = False
        joins = torch.eye(12, dtype=torch.bool)[i]
        assert (known.value(small | joins) - known.value(small) >= known.value(large | joins) - known.value(large) - 1e-12).all()


# a game is counted afresh


def test_each_game_handed_out_has_evaluated_nothing():
    known = games.glove(2, 2)
    credit.make("shapley").values(known.game())
    assert known.game().evaluations == 0


@KINDS
def test_worths_are_doubles_one_a_coalition(kind):
    known = games.random_game(kind, 7, seed=0)
    v = known.value(torch.rand(30, 7, generator=torch.Generator().manual_seed(0)) < 0.5)
    assert v.shape == (30,)
    assert v.dtype == torch.float64


# the table


def test_a_table_is_looked_up_by_the_bits_of_the_players():
    v = torch.tensor([[0.0, 1.0, 2.0, 3.0], [0.0, 10.0, 20.0, 30.0]])
    assert credit.table_game(v).value(torch.tensor([[True, False], [False, True]])).tolist() == [[1.0, 2.0], [10.0, 20.0]]
    assert credit.table_game(v[0]).values().tolist() == [[0.0, 1.0, 2.0, 3.0]]


# what callers can get wrong


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: games.additive([]), "worth"),
        (lambda: games.additive([1.0, float("nan")]), "worth"),
        (lambda: games.unanimity(3, []), "empty"),
        (lambda: games.unanimity(3, [3]), "names 3"),
        (lambda: games.unanimity_sum(3, [[0]], [1.0, 2.0]), "1 coalitions, but 2 weights"),
        (lambda: games.glove(0, 2), "n_left=0"),
        (lambda: games.airport([1.0, -1.0]), "must not be negative"),
        (lambda: games.weighted_majority([1, -1], 1), "whole numbers from 0"),
        (lambda: games.weighted_majority([1, 1.5], 1), "whole numbers from 0"),
        (lambda: games.weighted_majority([1, 1], 0), "quota=0"),
        (lambda: games.coverage([], [1.0]), "one set a player"),
        (lambda: games.coverage([[1]], [1.0]), "names 1"),
        (lambda: games.saturating([1.0], 0.0), "scale=0"),
        (lambda: games.saturating([1.0], 1.0, [1]), "names 1"),
        (lambda: games.saturating([1.0], 1.0, []), "one lot a player"),
        (lambda: games.random_game("glove", 3, 0), "saturating, coverage, unanimity_sum, weighted_majority"),
        (lambda: games.random_game("coverage", 0, 0), "at least one player"),
        (lambda: games.random_game("coverage", 3.0, 0), r"n_players=3\.0: must be a whole number"),
        (lambda: games.random_game("coverage", 3, -1), "seed=-1"),
        (lambda: games.unanimity(-1, [0]), "n_players=-1: must be a whole number"),
        (lambda: games.glove(1.0, 2), r"n_left=1\.0"),
        (lambda: games.additive([None, 1.0]), "worth=.*finite numbers"),
        (lambda: games.additive(["1", 1.0]), "worth=.*finite numbers"),
        (lambda: games.unanimity(3, [0.5]), r"names 0\.5: must be a whole number from 0 to 2"),
        (lambda: games.unanimity(3, "01"), "names '0': must be a whole number"),
        (lambda: games.weighted_majority([1, float("nan")], 1), "whole numbers from 0"),
        (lambda: games.weighted_majority([1, float("inf")], 1), "whole numbers from 0"),
        (lambda: games.weighted_majority([1, 1], float("nan")), "quota=nan"),
        (lambda: games.table_game([0.0, 1.0]), "must be a tensor of shape .*, got list"),
        (lambda: games.table_game(torch.zeros(3)), r"\(2\*\*n,\)"),
        (lambda: games.table_game(torch.zeros(1)), r"\(2\*\*n,\)"),
    ],
)
def test_what_is_no_game_is_refused_with_the_reason(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_arguments_may_be_arrays_and_tensors():
    for of in (list, np.array, torch.tensor):
        assert games.additive(of([1.0, 2.0])).shapley.tolist() == [1.0, 2.0]
        assert games.unanimity(np.int64(3), of([0, 1])).shapley.tolist() == [0.5, 0.5, 0.0]
        assert games.weighted_majority(of([1, 2, 3]), np.int32(6)).shapley.tolist() == pytest.approx([1 / 3] * 3)
    assert games.glove(np.int64(1), np.int8(2)).n_players == 3


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: games.additive(5), "worth=5: must be a list"),
        (lambda: games.additive(None), "worth=None: must be a list"),
        (lambda: games.additive([b"1"]), "finite numbers"),
        (lambda: games.airport(3), "costs=3: must be a list"),
        (lambda: games.unanimity(3, 1), "members=1: must be a list"),
        (lambda: games.unanimity_sum(3, [0, 1], [1, 2]), "one of coalitions=0: must be a list"),
        (lambda: games.unanimity_sum(3, None, [1]), "coalitions=None: must be a list"),
        (lambda: games.weighted_majority(5, 1), "weights=5: must be a list"),
        (lambda: games.weighted_majority([2**53, 1], 2), "too many to count"),
        (lambda: games.weighted_majority([1, 2], "2"), "quota='2'"),
        (lambda: games.coverage([0], [1]), "one of sets=0: must be a list"),
        (lambda: games.coverage(None, [1]), "sets=None: must be a list"),
        (lambda: games.saturating([1], "1"), "scale='1': must be a positive number"),
        (lambda: games.saturating([1], None), "scale=None"),
        (lambda: games.saturating([1], 1, 0), "holdings=0: must be a list"),
        (lambda: games.saturating([1, -1000], 1), "scale=1 is too small for the negative weights"),
        (lambda: games.table_game(torch.tensor([1.0, 1.0, 1.0, 2.0])), r"the worth of the empty coalition must be 0"),
        (lambda: games.table_game(torch.tensor([[0.0, 1.0], [torch.nan, 1.0]])), r"the worth of the empty coalition must be 0"),
    ],
)
def test_what_makes_no_game_is_refused_by_name(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_an_array_of_sets_is_taken():
    assert games.coverage(np.array([[0], [0]]), [1.0]).shapley.tolist() == [0.5, 0.5]


def test_a_table_s_empty_coalition_may_be_worth_what_rounding_leaves():
    v = torch.tensor([1e-17, 1.0, 1.0, 2.0], dtype=torch.float64)
    torch.testing.assert_close(credit.make("shapley").values(games.table_game(v), 2), torch.tensor([[1.0, 1.0]], dtype=torch.float64))
