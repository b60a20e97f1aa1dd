"""The Gaussian process over coalitions, against all its coalitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from proxycoop import credit
from proxycoop.credit import coalition_matrix, games
from proxycoop.credit.estimators.gaussian_process import _NUGGET, _SIZE_WEIGHT, FALLS, _Covariances, _ordered, _Posterior

KINDS = [(0.2, 0.0), ([0.4, 0.2, 0.05, 0.01, 0.3, 0.1, 0.8], 1.0), ([0.01, 0.6, 0.3, 0.3, 0.1, 0.02, 0.2], 10.0)]
"""λ of each player (of the first ones, if they are fewer), and b."""


def covariances(kinds, n: int, *, ordered: bool = False) -> _Covariances:
    falls = [[fall] * n if isinstance(fall, float) else fall[:n] for fall, _ in kinds]
    generator = torch.Generator().manual_seed(n)
    place = torch.stack([torch.randperm(n, generator=generator) for _ in kinds])
    step = torch.rand(len(kinds), n, dtype=torch.float64, generator=generator) * torch.tensor([[0.0], [1.0], [50.0]])[: len(kinds)]
    more = (place, step) if ordered else ()
    return _Covariances(torch.tensor(falls, dtype=torch.float64), torch.tensor([slope for _, slope in kinds], dtype=torch.float64), *more)


def steps_by_hand(s: list[bool], t: list[bool], place: list[int], step: list[float]) -> float:
    """The sum over k of g_k, where both have one of the k best players."""
    order = sorted(range(len(s)), key=place.__getitem__)
    return sum(g for k, g in enumerate(step, 1) if any(s[i] for i in order[:k]) and any(t[i] for i in order[:k]))


def covariance_by_hand(s: list[bool], t: list[bool], fall: list[float], slope: float) -> float:
    """k(S, T) by its formula, but for its fourth part."""
    n, a, b = len(s), sum(s), sum(t)
    by_size = np.exp(-0.5 * ((a - b) / (0.3 * n)) ** 2)
    product = sum((x - a / n) * (y - b / n) for x, y in zip(s, t, strict=True))
    factors = [(1 - f) / (1 + f) for f, x, y in zip(fall, s, t, strict=True) if x != y]
    return np.prod(factors) + by_size * (3 + slope * 4 / n * product)


def test_its_covariance_is_the_formula_s():
    rows, all_kinds = coalition_matrix(4).clone(), covariances(KINDS, 4, ordered=True)
    found = all_kinds.matrix(rows)
    for k, (fall, slope) in enumerate(zip(all_kinds.fall.tolist(), all_kinds.slope.tolist(), strict=True)):
        place, step = all_kinds.place[k].tolist(), all_kinds.step[k].tolist()
        for i, s in enumerate(rows.tolist()):
            for j, t in enumerate(rows.tolist()):
                nugget = _NUGGET * (1 + _SIZE_WEIGHT + slope + sum(step)) if i == j else 0.0
                expected = covariance_by_hand(s, t, fall, slope) + steps_by_hand(s, t, place, step) + nugget
                assert float(found[k, i, j]) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("n", [2, 3, 7])
def test_the_value_of_a_covariance_and_its_variance_are_those_of_all_coalitions(n, ordered):
    kernels, rows = covariances(KINDS, n, ordered=ordered), coalition_matrix(n).clone()
    k = kernels.matrix(rows)
    largest = 1 + _SIZE_WEIGHT + kernels.slope[:, None] + (kernels.step.sum(dim=1, keepdim=True) if ordered else 0.0)
    k.diagonal(dim1=1, dim2=2).sub_(_NUGGET * largest)
    for which, variance in enumerate(kernels.variance()):
        values = credit.shapley_values(k[which])  # row T: of the game k(·, T)
        assert torch.allclose(kernels.values(rows)[which], values, rtol=1e-10, atol=1e-12)
        twice = credit.shapley_values(values.T.contiguous())
        assert torch.allclose(twice.diagonal(), variance, rtol=1e-9, atol=1e-12)


def test_a_game_that_is_drawn_from_the_process_is_found_and_its_error_foretold():
    """Games with the process's own covariance: the error over the standard error is a standard normal number."""
    rows = coalition_matrix(7).clone()
    k = covariances(KINDS[:1], 7).matrix(rows)[0]
    generator = torch.Generator().manual_seed(0)
    drawn = (torch.linalg.cholesky(k) @ torch.randn(128, 60, generator=generator, dtype=torch.float64)).T
    v = drawn - drawn[:, :1]
    found = credit.make("gaussian_process", budget=60).estimate(credit.table_game(v))
    z = (found.values - credit.shapley_values(v)) / found.standard_error
    assert 0.85 < float(z.std()) < 1.15
    assert abs(float(z.mean())) < 0.15


@pytest.mark.parametrize(("given", "degrees"), [(0, 20 - 5 - 3), (6, 14**2 / 19 - 3), (18, 2.0)])
def test_its_errors_and_what_is_left_out_are_those_of_leaving_each_draw_out_in_turn(given, degrees):
    n, kernels = 5, covariances(KINDS[1:2], 5)
    rows = coalition_matrix(n)[torch.randperm(32, generator=torch.Generator().manual_seed(2))[:20]]
    y = torch.randn(1, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    posterior = _Posterior(kernels, rows, given)
    k, value = kernels.matrix(rows)[0], kernels.values(rows)[0]
    spread = 0.0
    for i in range(20):
        others = torch.arange(20) != i
        weights = torch.linalg.solve(k[others][:, others], k[others, i])
        off, variance = float(y[0, i] - weights @ y[0, others]), float(k[i, i] - weights @ k[others, i])
        assert float(posterior.left_out(y)[0, i]) == pytest.approx(off, rel=1e-9)
        spread += off**2 / variance if i >= given else 0.0
    left = kernels.variance()[0] - (value * torch.linalg.solve(k, value)).sum(dim=0)
    assert torch.allclose(posterior.errors(y)[0], (spread / degrees * left).sqrt(), rtol=1e-9)


@pytest.mark.parametrize(
    ("n_rows", "given", "plain", "with_steps"), [(40, 0, 32, 32 - 200 / 45), (20, 6, 196 / 19 - 3, 196 / 19 - 3 - 70 / 19)]
)
def test_steps_take_degrees_of_freedom_as_players_do(n_rows, given, plain, with_steps):
    found = covariances(KINDS, 5, ordered=True).freedom(n_rows, given)  # the first has steps of height 0
    assert torch.allclose(found, torch.tensor([plain, with_steps, with_steps], dtype=torch.float64))
    assert covariances(KINDS, 5).freedom(n_rows, given).tolist() == pytest.approx([plain] * 3)
    assert covariances(KINDS, 5, ordered=True).freedom(10, 0).tolist() == [2.0, 2.0, 2.0]
    assert covariances(KINDS, 5, ordered=True).freedom(9, 0).tolist() == [1.0, 1.0, 1.0]


def test_with_all_coalitions_it_is_exact():
    game = games.random_game("saturating", 5, seed=1)
    found = credit.make("gaussian_process", budget=31).estimate(game.game())
    assert torch.allclose(found.values[0], game.shapley, atol=1e-5)


@pytest.mark.parametrize("kind", ["saturating", "coverage", "unanimity_sum"])
def test_it_is_closer_than_others_on_smooth_games(kind):
    def error(name: str) -> float:
        found = []
        for seed in range(12):
            game = games.random_game(kind, 10, seed)
            values = credit.make(name, budget=200, seed=seed).values(game.game())[0]
            found.append(float((values - game.shapley).norm() / game.shapley.norm()))
        return float(np.median(found))

    assert error("gaussian_process") < 0.7 * min(error("kernelshap"), error("size_regression"), error("antithetic"))


@pytest.mark.parametrize("n", [8, 16])
def test_where_a_coalition_is_worth_its_best_member_the_steps_are_found(n):
    """Airport games. The process without these steps has errors of some .04 and .1 here."""
    errors = []
    for seed in range(6):
        game = games.airport(np.random.default_rng(seed).lognormal(size=n).tolist())
        found = credit.make("gaussian_process", budget=5 * n, seed=seed).estimate(game.game())
        errors.append(float((found.values[0] - game.shapley).norm() / game.shapley.norm()))
    assert np.median(errors) < (0.002 if n == 8 else 0.02)


def test_players_are_ordered_by_worth_with_the_steps_of_an_airport_game():
    costs = [1.0, 1.5, 4.0, 4.0]
    place, step = _ordered(games.airport(costs).shapley[None])
    assert place[0].tolist() in ([3, 2, 0, 1], [3, 2, 1, 0])
    heights = (torch.tensor([0.0, 2.5, 0.5, 1.0], dtype=torch.float64) / 2.5 + 0.05).square()  # between costs, from the largest down
    assert torch.allclose(step[0], heights / heights.sum())
    place, step = _ordered(torch.zeros(1, 3, dtype=torch.float64))
    assert torch.allclose(step, torch.full((1, 3), 1 / 3, dtype=torch.float64))


def test_a_game_of_zeros_and_one_of_infinite_worth_have_their_values():
    zeros = credit.make("gaussian_process", budget=20).estimate(credit.CoalitionGame(lambda c: torch.zeros(len(c)), 5))
    assert zeros.values.abs().max() == 0.0
    assert zeros.standard_error.max() < 1e-12
    odd = credit.make("gaussian_process", budget=20).estimate(credit.CoalitionGame(lambda c: torch.full((len(c),), torch.inf), 5))
    assert not odd.values.isfinite().any()


def test_it_is_efficient_and_takes_no_more_than_the_budget():
    game = games.random_game("coverage", 9, 4).game()
    found = credit.make("gaussian_process", budget=50).estimate(game)
    assert game.evaluations == found.evaluations == 50
    assert float(found.values.sum()) == pytest.approx(float(game.grand()), rel=1e-9)
    assert tuple(sorted(FALLS, reverse=True)) == FALLS


@pytest.mark.slow
def test_large_games_select_on_some_draws():
    game = games.random_game("saturating", 40, 5)
    found = credit.make("gaussian_process", budget=800).estimate(game.game())
    assert float((found.values[0] - game.shapley).norm() / game.shapley.norm()) < 0.12
