import torch

from proxycoop import credit

UPDATES = torch.tensor([[[1.0, 0.0], [0.0, 2.0]], [[0.0, 0.0], [1.0, 1.0]]], dtype=torch.float64)  # (E=2, N=2, P=2)
TARGET = torch.tensor([[1.0, 1.0], [2.0, 0.0]], dtype=torch.float64)


def test_says_how_many_environments_and_agents_it_holds(learning_round):
    the_round = learning_round(UPDATES[:, :, :1].expand(2, 2, 5), torch.ones(2, 5, dtype=torch.float64), t=3)
    assert (the_round.num_envs, the_round.num_agents, the_round.t, the_round.episode) == (2, 2, 3, 0)


def test_gain_is_the_worth_of_the_grand_coalition(learning_round):
    the_round = learning_round(UPDATES, TARGET)
    assert the_round.gain.tolist() == [1.0 + 2.0 - 0.5 * 5.0, 2.0 - 0.5 * 2.0]
    assert the_round.gain.equal(the_round.game.grand())


def test_value_is_the_game_s_and_costs_each_coalition_once(learning_round):
    the_round = learning_round(UPDATES, TARGET)
    assert the_round.value(credit.coalition_matrix(2)[[0, 1, 2, 1]]).tolist() == [[0.0, 0.5, 0.0, 0.5], [0.0, 0.0, 1.0, 0.0]]
    assert the_round.game.evaluations == 3


def test_updates_are_computed_when_asked_for_and_once(learning_round):
    asked = []
    the_round = learning_round(UPDATES, TARGET)
    the_round._updates = lambda: asked.append("updates") or UPDATES
    assert asked == []
    assert the_round.updates is the_round.updates
    assert the_round.updates.equal(UPDATES)
    assert asked == ["updates"]


def test_utility_gradient_predicts_the_gain_of_a_small_step(learning_round):
    small = 1e-6 * UPDATES
    the_round = learning_round(small, TARGET)
    predicted = (the_round.utility_gradient()[:, None] * the_round.updates).sum(dim=(1, 2))
    torch.testing.assert_close(the_round.gain, predicted, rtol=1e-5, atol=0)
