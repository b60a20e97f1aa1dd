import pytest
import torch

from proxycoop import credit


def test_everyone_gets_the_same_share_of_the_grand_worth():
    game = credit.CoalitionGame(lambda c: torch.stack([6.0 * c.all(dim=1), -1.5 * c.all(dim=1)]).double(), 3)
    assert credit.Equal().values(game).tolist() == [[2.0] * 3, [-0.5] * 3]


def test_the_free_rider_is_paid_which_is_its_known_failure():
    assert credit.Equal().values(credit.CoalitionGame(lambda c: 1.0 * c[:, 0], 2)).tolist() == [[0.5, 0.5]]


@pytest.mark.parametrize("n", [1, 2, 12, 100])
def test_costs_one_evaluation_and_serves_any_number_of_players(n):
    game = credit.CoalitionGame(lambda c: c.double().sum(dim=1), n)
    assert credit.Equal().values(game).tolist() == [[1.0] * n]
    assert game.evaluations == credit.Equal().cost(n) == 1


def test_writing_into_one_credit_leaves_the_others_alone():
    paid = credit.Equal().values(credit.CoalitionGame(lambda c: c.double().sum(dim=1), 3))
    paid[0, 0] = 7.0
    assert paid.tolist() == [[7.0, 1.0, 1.0]]
