import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from proxycoop import credit


def pay(value, n: int) -> list[float]:
    return credit.Standalone().values(value, n)[0].tolist()


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=15))
def test_additive_game_gives_each_player_its_own_worth(worth):
    weights = torch.tensor(worth, dtype=torch.float64)
    assert pay(lambda c: c.double() @ weights, len(worth)) == pytest.approx(worth, abs=1e-11)


def test_what_can_only_be_done_together_is_paid_to_nobody():
    assert pay(lambda c: c.all(dim=1), 3) == [0.0, 0.0, 0.0]


def test_what_several_know_is_paid_several_times_which_is_its_known_failure():
    assert pay(lambda c: c.any(dim=1), 3) == [1.0, 1.0, 1.0]


def test_airport_game_gives_each_player_the_runway_it_would_need_alone():
    costs = torch.tensor([1.0, 3.0, 6.0, 10.0], dtype=torch.float64)
    assert pay(lambda c: (c * costs).amax(dim=1), 4) == costs.tolist()


def test_a_worth_of_nobody_is_nobody_s():
    assert pay(lambda c: 7.0 + c.sum(dim=1), 3) == [1.0, 1.0, 1.0]


def test_costs_n_evaluations_and_serves_any_number_of_players():
    game = credit.CoalitionGame(lambda c: c.double().sum(dim=1), 200)
    assert credit.Standalone().values(game).tolist() == [[1.0] * 200]
    assert game.evaluations == credit.Standalone().cost(200) == 200


def test_a_batch_of_games_equals_the_games_one_by_one():
    worth = torch.randn(3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def game(v):
        return credit.CoalitionGame(lambda c: v[:, (c * torch.tensor([1, 2, 4])).sum(dim=1)], 3)

    one_by_one = torch.cat([credit.Standalone().values(game(row[None])) for row in worth])
    assert credit.Standalone().values(game(worth)).equal(one_by_one)
