import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from proxycoop import credit


def pay(value, n: int) -> list[float]:
    return credit.LeaveOneOut().values(value, n)[0].tolist()


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=15))
def test_additive_game_gives_each_player_its_own_worth(worth):
    weights = torch.tensor(worth, dtype=torch.float64)
    assert pay(lambda c: c.double() @ weights, len(worth)) == pytest.approx(worth, abs=1e-11)


def test_unanimity_game_pays_the_whole_worth_to_each_player_it_needs():
    assert pay(lambda c: 3.0 * c[:, [0, 2]].all(dim=1), 4) == [3.0, 0.0, 3.0, 0.0]


def test_glove_game_pays_only_the_right_glove():
    assert pay(lambda c: c[:, 2] & c[:, :2].any(dim=1), 3) == [0.0, 0.0, 1.0]


def test_redundancy_is_its_known_failure_two_copies_earn_nothing():
    assert pay(lambda c: c.any(dim=1), 2) == [0.0, 0.0]


def test_a_harmful_player_pays():
    assert pay(lambda c: 1.0 * c[:, 0] - 0.5 * (c[:, 0] & c[:, 1]), 2) == [0.5, -0.5]


def test_is_the_difference_reward_so_it_rises_exactly_as_the_team_does():
    # for whatever the others do, what player 0 gains by joining is what the team gains
    v = torch.tensor([0.0, 0.3, -0.2, 0.9], dtype=torch.float64)
    game = credit.CoalitionGame(lambda c: v[(c * torch.tensor([1, 2])).sum(dim=1)], 2)
    torch.testing.assert_close(credit.LeaveOneOut().values(game)[0], torch.stack([v[3] - v[2], v[3] - v[1]]))


def test_costs_n_plus_one_evaluations_and_serves_any_number_of_players():
    game = credit.CoalitionGame(lambda c: c.double().sum(dim=1), 200)
    assert credit.LeaveOneOut().values(game).tolist() == [[1.0] * 200]
    assert game.evaluations == credit.LeaveOneOut().cost(200) == 201


def test_a_batch_of_games_equals_the_games_one_by_one():
    worth = torch.randn(3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def game(v):
        return credit.CoalitionGame(lambda c: v[:, (c * torch.tensor([1, 2, 4])).sum(dim=1)], 3)

    one_by_one = torch.cat([credit.LeaveOneOut().values(game(row[None])) for row in worth])
    assert credit.LeaveOneOut().values(game(worth)).equal(one_by_one)
