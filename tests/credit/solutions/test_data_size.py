import pytest
import torch

from proxycoop import credit


def make_round(admitted, samples, gain) -> credit.Round:
    """A round whose coalitions all gain ``gain[e]``: only the amounts of data tell the agents apart."""
    admitted = torch.tensor(admitted)
    gain = torch.as_tensor(gain)
    n = admitted.shape[1]
    return credit.Round(
        credit.CoalitionGame(lambda c: gain[:, None].expand(-1, len(c)), n),
        contributed=torch.ones_like(admitted),
        admitted=admitted,
        blocked_by=(~admitted)[..., None].expand(*admitted.shape, n),
        samples=torch.tensor(samples),
        updates=lambda: pytest.fail("the rule needs no updates"),
        utility_gradient=lambda: pytest.fail("the rule needs no gradient"),
        t=0,
    )


YES_NO = [[True, True], [True, False], [False, False]]


def test_gain_is_shared_by_admitted_samples():
    # agent 0: 10 + 20 = 30 rows; agent 1: 10 rows, its lot of 99 was refused; agent 2: none. 30/40 and 10/40 of 8
    the_round = make_round([YES_NO], [[10, 20], [10, 99], [5, 5]], [8.0])
    assert credit.DataSize().assign(the_round).tolist() == [[6.0, 2.0, 0.0]]


def test_each_environment_is_shared_by_its_own_admissions_and_a_loss_is_shared_too():
    everything = [[True, True]] * 3
    the_round = make_round([YES_NO, everything], [[1, 2], [1, 2], [3, 1]], [4.0, -10.0])
    assert credit.DataSize().assign(the_round).tolist() == [[3.0, 1.0, 0.0], [-3.0, -3.0, -4.0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nothing_admitted_pays_nobody_and_nothing_is_nan(dtype):
    nobody = [[False, False]] * 3
    paid = credit.DataSize().assign(make_round([nobody], [[1, 2], [1, 2], [3, 1]], torch.zeros(1, dtype=dtype)))
    assert paid.dtype == dtype
    assert paid.tolist() == [[0.0, 0.0, 0.0]]


def test_a_corrupt_lot_earns_what_a_clean_one_does_which_is_its_known_failure():
    # only agent 0 gains anything, and agent 1 is paid the same for the same number of rows
    the_round = make_round([[[True], [True]]], [[50], [50]], [1.0])
    the_round.game = credit.CoalitionGame(lambda c: 1.0 * c[:, 0] - 0.5 * c[:, 1], 2)
    assert credit.DataSize().assign(the_round).tolist() == [[0.25, 0.25]]


def test_costs_one_evaluation():
    the_round = make_round([YES_NO], [[1, 2], [1, 2], [3, 1]], [1.0])
    credit.DataSize().assign(the_round)
    assert the_round.game.evaluations == credit.DataSize().cost(3) == 1
