"""Where orders are cut off, in games that depend on the size alone, so that every order is cut off at the same place."""

import pytest
import torch

from proxycoop import credit


def followed(worth, **arguments):
    """TMC-Shapley where s players are worth ``worth[s]``: the sizes that it asks for, and what it pays in all."""
    asked, worth = set(), torch.tensor(worth, dtype=torch.float64)

    def value(coalitions):
        size = coalitions.sum(dim=1)
        asked.update(size.tolist())
        return worth[size][None]

    paid = credit.make("tmc", budget=100, **arguments).values(credit.CoalitionGame(value, len(worth) - 1))
    return asked, paid.sum().item()


@pytest.mark.parametrize("patience", [0, 1, 2, 3])
def test_an_order_ends_after_one_position_near_the_end_more_than_the_patience(patience):
    worth = [0.0, *[1.0] * (patience + 1), 7.0, 7.0, 1.0]
    asked, paid = followed(worth, patience=patience)
    n = len(worth) - 1
    assert asked - {0} == {*range(1, patience + 2), n}  # the 7s are not seen
    assert paid == pytest.approx(1.0)


def test_a_position_away_from_the_end_makes_the_count_begin_anew():
    asked, paid = followed([0.0, 1.0, 1.0, 4.0, 1.0, 1.0, 1.0, 7.0, 1.0], patience=2)
    assert asked - {0} == {1, 2, 3, 4, 5, 6, 8}
    assert paid == pytest.approx(1.0)


def test_what_is_gained_after_the_end_is_not_paid():
    # near v(N) = 1 by a tenth, and cut off there: the last tenth is paid to nobody
    asked, paid = followed([0.0, 0.9, 0.9, 0.95, 1.0], tolerance=0.1001, patience=1)
    assert asked - {0} == {1, 2, 4}
    assert paid == pytest.approx(0.9)


def test_no_order_has_arrived_at_an_infinite_worth_of_all():
    game = credit.CoalitionGame(lambda s: torch.where(s.all(dim=1), torch.inf, s.double().sum(dim=1)), 9)
    assert credit.make("tmc").values(game).isinf().any()
