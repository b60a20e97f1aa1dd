"""The weighted mean of two fits: between them, by what each foretells, for each environment by itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from proxycoop import credit
from proxycoop.credit import games
from proxycoop.credit.estimators.regression import single_design
from proxycoop.credit.estimators.single_draws import SingleDraws

NAMES = ("stacked", "gaussian_process", "size_regression")


def fits(game: credit.CoalitionGame, budget: int, seed: int):
    """What the three make of the same draws."""
    design = single_design(game.n_players, budget - 1, np.random.default_rng(seed))
    rules = [credit.make(name, budget=budget) for name in NAMES]
    assert all(isinstance(rule, SingleDraws) for rule in rules)
    return design, [rule.fitted(game, design, np.random.default_rng(0)) for rule in rules]


@pytest.mark.parametrize("kind", ["saturating", "weighted_majority"])
def test_it_is_the_mean_by_its_formula(kind):
    game = games.random_game(kind, 7, 1).game()
    design, (both, smooth, linear) = fits(game, 50, 0)
    counts = design.weight.square() * design.left
    r = [float((counts * one.left_out()[0].square()).sum().sqrt()) for one in (smooth, linear)]
    w = 1 / (1 + (r[0] / (0.9 * r[1])) ** 4)
    expected = w * smooth.estimate.values + (1 - w) * linear.estimate.values
    assert torch.allclose(both.estimate.values, expected, rtol=1e-12)
    mean = w * smooth.estimate.standard_error + (1 - w) * linear.estimate.standard_error
    left = float((counts * (w * smooth.left_out()[0] + (1 - w) * linear.left_out()[0]).square()).sum().sqrt())
    scaled = left / r[1] * linear.estimate.standard_error
    assert torch.allclose(both.estimate.standard_error, torch.maximum(mean, scaled), rtol=1e-12)
    assert (mean < scaled).any() or kind == "saturating"


def test_what_is_left_out_is_what_the_others_foretell():
    """By fitting the process anew without each draw in turn."""
    game = games.random_game("saturating", 6, 3).game()
    design, (_, smooth, _) = fits(game, 40, 1)
    found = smooth.left_out()[0]
    rows = torch.cat([torch.tensor([[True] * 6, [False] * 6]), design.members])
    y = torch.cat([game.grand()[:, None], torch.zeros(1, 1, dtype=torch.float64), game.value(design.members)], dim=1)
    k = credit.make("gaussian_process")._likeliest(rows, y, 2, 0, np.random.default_rng(0)).matrix(rows)[0]
    for draw in range(2, len(rows)):
        others = torch.arange(len(rows)) != draw
        foretold = k[draw, others] @ torch.linalg.solve(k[others][:, others], y[0, others])
        assert float(found[draw - 2]) == pytest.approx(float(y[0, draw] - foretold), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(("kind", "winner"), [("saturating", "gaussian_process"), ("weighted_majority", "size_regression")])
def test_where_one_is_far_better_it_is_that_one_nearly(kind, winner):
    def error(name: str) -> float:
        found = []
        for seed in range(8):
            game = games.random_game(kind, 8, seed)
            values = credit.make(name, budget=160, seed=seed).values(game.game())[0]
            found.append(float((values - game.shapley).norm() / game.shapley.norm()))
        return float(np.median(found))

    errors = {name: error(name) for name in NAMES}
    assert min(errors, key=errors.__getitem__) in ("stacked", winner)
    assert errors["stacked"] < 1.15 * errors[winner]


@pytest.mark.parametrize("name", ["stacked", "gaussian_process"])
def test_each_environment_has_its_own_fit_and_does_not_depend_on_the_others(name):
    smooth, rough = games.random_game("saturating", 8, 2), games.random_game("weighted_majority", 8, 3)
    together = credit.CoalitionGame(lambda c: torch.stack([smooth.value(c), rough.value(c)]), 8)
    both = credit.make(name, budget=90).estimate(together)
    for e, game in enumerate((smooth, rough)):
        alone = credit.make(name, budget=90).estimate(game.game())
        assert torch.allclose(both.values[e], alone.values[0], atol=1e-9)
        assert torch.allclose(both.standard_error[e], alone.standard_error[0], rtol=1e-6)


def test_with_all_coalitions_it_is_exact_and_of_zeros_it_is_zero():
    game = games.random_game("coverage", 5, seed=1)
    found = credit.make("stacked", budget=31).estimate(game.game())
    assert torch.allclose(found.values[0], game.shapley, rtol=1e-9)
    assert found.standard_error.max() == 0.0
    zeros = credit.make("stacked", budget=20).estimate(credit.CoalitionGame(lambda c: torch.zeros(len(c)), 5))
    assert zeros.values.abs().max() == 0.0


def test_it_is_efficient_and_takes_no_more_than_the_budget():
    game = games.random_game("coverage", 9, 4).game()
    found = credit.make("stacked", budget=50).estimate(game)
    assert game.evaluations == found.evaluations == 50
    assert float(found.values.sum()) == pytest.approx(float(game.grand()), rel=1e-9)


@pytest.mark.parametrize("budget", [12, 13, 16])
def test_with_few_draws_it_is_no_worse_than_the_process(budget):
    """A regression with hardly a degree of freedom foretells its own draws too well, unless all that it fitted is counted."""

    def error(name: str) -> float:
        found = []
        for seed in range(40):
            game = games.random_game("saturating", 8, seed)
            values = credit.make(name, budget=budget, seed=seed).values(game.game())[0]
            found.append(float((values - game.shapley).norm() / game.shapley.norm()))
        return float(np.median(found))

    assert error("stacked") < 1.2 * error("gaussian_process")


def test_a_coalition_more_than_unknowns_is_the_least():
    game = games.random_game("saturating", 4, 9000)
    for name in ("stacked", "size_regression"):
        with pytest.raises(ValueError, match="pass at least 8"):
            credit.make(name, budget=7).estimate(game.game())
        assert (credit.make(name, budget=8).estimate(game.game()).standard_error > 1e-6).all()
