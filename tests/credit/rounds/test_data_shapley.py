"""Data Shapley among lots: an agent is paid what its lots earn."""

from __future__ import annotations

import pytest
import torch

from proxycoop import credit
from proxycoop.credit import shapley_values
from proxycoop.envs import Engine, scenario


def lots_round(lot_updates: list, admitted: list, target: list, **kwargs: object) -> credit.Round:
    """One environment; ``lot_updates`` (N, K, P), ``admitted`` (N, K), target (P,)."""
    updates = torch.tensor([lot_updates], dtype=torch.float64)
    passes = torch.tensor([admitted], dtype=torch.bool)
    return credit.learning_round(
        (passes[..., None] * updates).sum(dim=2),
        torch.tensor([target], dtype=torch.float64),
        admitted=passes,
        lot_updates=updates,
        **kwargs,
    )


def test_two_agents_with_two_lots_by_hand() -> None:
    """One parameter, target 1, so w(L) = x − x²/2 with x the lots' sum.

    Lots .4 and .2 of agent 0, .4 of agent 1 (its other lot, 9, is not admitted). On a quadratic utility a lot's Shapley value is
    x_k − x_k·x/2 = x_k (1 − x/2) with x = 1: half of x_k. So lots earn .2, .1, .2, and 0; agents .3 and .2; together w = .5.
    """
    the_round = lots_round([[[0.4], [0.2]], [[0.4], [9.0]]], [[1, 1], [1, 0]], [1.0])
    rule = credit.make("data_shapley")
    rule.reset(1, 2)
    lots = rule.assign_lots(the_round)
    torch.testing.assert_close(lots, torch.tensor([[[0.2, 0.1], [0.2, 0.0]]], dtype=torch.float64))
    assert lots[0, 1, 1] == 0
    assert rule.assign(the_round).equal(lots.sum(dim=-1))


def test_a_budget_that_covers_all_sets_of_lots_makes_it_exact_and_others_come_close() -> None:
    generator = torch.Generator().manual_seed(0)
    updates = torch.randn(4, 3, 4, generator=generator, dtype=torch.float64).tolist()
    admitted = [[1, 1, 1], [0, 1, 1], [1, 1, 0], [1, 1, 1]]

    def new_round() -> credit.Round:
        return lots_round(updates, admitted, [1.0, -1.0, 0.5, 0.2])

    the_round = new_round()
    exact = shapley_values(the_round.lots.among(the_round.admitted).values()).reshape(4, 3)
    torch.testing.assert_close(credit.make("data_shapley", budget=4096).assign_lots(new_round())[0], exact)
    estimate = credit.make("data_shapley", budget=4095, tolerance=0).assign_lots(new_round())[0]
    assert 0 < (estimate - exact).norm() < 0.15 * exact.norm()
    assert exact[1, 0].abs() < 1e-12


def test_who_cuts_its_data_into_more_lots_is_paid_more() -> None:
    """Any lot does the whole work, which is worth 1. Agent 0 has two lots and agent 1 one: 2/3 and 1/3; among agents it is 1/2 each."""
    the_round = lots_round([[[0.1], [0.1]], [[0.1], [0.1]]], [[1, 1], [1, 0]], [1.0])
    the_round._lots = credit.LotGame(lambda lots: lots.flatten(2).any(dim=-1).double(), the_round.admitted)
    lots = credit.make("data_shapley").assign_lots(the_round)
    torch.testing.assert_close(lots, torch.tensor([[[1 / 3, 1 / 3], [1 / 3, 0.0]]], dtype=torch.float64))


@pytest.mark.parametrize("name", ["digits", "breast_cancer", "digits-mean"])
def test_in_a_cooperative_lots_sum_to_credit_and_credit_to_the_gain(name: str) -> None:
    engine = Engine(scenario.load(name, horizon=3), credit.make("data_shapley", tolerance=0), num_envs=3, dtype=torch.float64)
    engine.reset([3, 4, 5])
    while engine.t < engine.horizon:
        result = engine.step(~engine.lots.corrupt)
        torch.testing.assert_close(result.lot_credit.sum(dim=-1), result.credit)
        torch.testing.assert_close(result.credit.sum(dim=-1), result.gain)
        assert not result.lot_credit[~result.admitted].any()
        assert result.lot_credit[result.admitted].all()
        assert result.evaluations <= 600 + 1  # and v(N), which the reward needs


def test_it_tells_a_proxy_which_of_its_lots_are_corrupt() -> None:
    engine = Engine(scenario.load("digits", **{"screening.governance": "none"}), "data_shapley", num_envs=8)
    engine.reset(range(8))
    earned = torch.zeros(8, 6, 4)
    for _ in range(4):
        earned += engine.step(torch.ones(8, 6, 4)).lot_credit
    corrupt = engine.lots.corrupt
    assert earned[~corrupt].mean() > 0 > earned[corrupt].mean()
    assert earned[~corrupt].median() > earned[corrupt].quantile(0.9)


def test_rounds_and_episodes_draw_anew_and_the_same_ones_draw_alike() -> None:
    generator = torch.Generator().manual_seed(1)
    updates = torch.randn(3, 2, 4, generator=generator, dtype=torch.float64).tolist()

    def paid(**when: int) -> torch.Tensor:
        return credit.make("data_shapley", budget=30).assign(lots_round(updates, [[1, 1]] * 3, [1.0, -1.0, 0.5, 0.2], **when))

    assert paid(t=1).equal(paid(t=1))
    assert not paid(t=1).equal(paid(t=2))
    assert not paid(t=1).equal(paid(t=1, episode=1))


def test_budgets_that_are_too_small_are_refused() -> None:
    with pytest.raises(ValueError, match=r"budget=5 is too small for DataShapley with 6 agents.*at least 6"):
        Engine("digits", "data_shapley(budget=5)")
    engine = Engine("digits", "data_shapley(budget=20)")
    engine.reset([0])
    with pytest.raises(ValueError, match=r"budget=20 is too small for DataShapley with 24 lots: pass at least 24"):
        engine.step(torch.ones(1, 6, 4))
    engine = Engine("digits", "data_shapley(budget=24)")
    engine.reset([0])
    assert engine.step(torch.ones(1, 6, 4)).evaluations <= 25


@pytest.mark.parametrize("wrong", [{"budget": 0}, {"budget": 2.5}, {"seed": -1}, {"tolerance": -1.0}, {"patience": -1}])
def test_wrong_arguments_are_refused_by_name(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}=.*must be"):
        credit.make("data_shapley", **wrong)


def test_a_round_that_does_not_know_its_lots_is_refused() -> None:
    the_round = lots_round([[[0.4]], [[0.2]]], [[1], [1]], [1.0])
    the_round._lots = None
    with pytest.raises(ValueError, match="has no lots"):
        credit.make("data_shapley").assign(the_round)
