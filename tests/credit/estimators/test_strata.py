"""Means and variances of draws by size and by player, by hand."""

import torch

from proxycoop.credit.estimators.strata import coalitions_with, moments, strata

# of five players {0, 1, 2} is worth 1, {0, 1, 3} is worth 3, and {0, 2, 4} is worth 8
MEMBERS = torch.tensor([[True, True, True, False, False], [True, True, False, True, False], [True, False, True, False, True]])
WORTH = torch.tensor([[1.0, 3.0, 8.0]], dtype=torch.float64)
MEAN = torch.tensor([4.0, 2.0, 4.5, 3.0, 8.0], dtype=torch.float64)
# sums of squares 26, 2, 24.5, 0 and 0; who has one draw has the spread of all, 52.5 with 2 + 1 + 1 degrees of freedom
SPREAD = torch.tensor([26 / 2, 2 / 1, 24.5 / 1, 52.5 / 4, 52.5 / 4], dtype=torch.float64)


def test_a_stratum_has_the_unbiased_variance_of_a_mean_of_draws_without_replacement():
    found = strata(MEMBERS, torch.tensor([3, 3, 3]), WORTH, coalitions_with(5))
    assert found.count[3].tolist() == [3, 2, 2, 1, 1]
    torch.testing.assert_close(found.mean[0, 3], MEAN)
    share_left = torch.tensor([3, 4, 4, 5, 5]) / 6  # each player is in six coalitions of three
    torch.testing.assert_close(found.variance[0, 3], SPREAD / found.count[3] * share_left)
    assert found.missing.all(dim=1).tolist() == [True, True, True, False, True, True]
    assert found.variance[0, found.missing].isnan().all()


def test_a_stratum_of_which_all_is_drawn_has_no_variance():
    # player 0 is in no other coalition of two; of player 1 and of player 2 there is one more
    members = torch.tensor([[True, True, False], [True, False, True]])
    found = strata(members, torch.tensor([2, 2]), torch.tensor([[1.0, 5.0]], dtype=torch.float64), coalitions_with(3))
    assert found.mean[0, 2].tolist() == [3.0, 1.0, 5.0]
    assert found.variance[0, 2].tolist() == [0.0, 4.0, 4.0]  # half of the spread of the others' draws, 8


def test_moments_have_the_unbiased_variance_of_one_draw():
    mean, variance, count = moments(WORTH, MEMBERS)
    torch.testing.assert_close(mean, MEAN[None])
    torch.testing.assert_close(variance, SPREAD[None])
    assert count.tolist() == [3, 2, 2, 1, 1]
