"""Quadratic games, and their semivalues in closed form."""

from __future__ import annotations

import pytest
import torch

from proxycoop import credit
from proxycoop.credit.games.game import CoalitionGame, Surrogate
from proxycoop.credit.games.surrogate import chances, quadratic


def drawn(n: int, seed: int = 0, n_envs: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    linear = torch.randn(n_envs, n, generator=generator, dtype=torch.float64)
    half = torch.randn(n_envs, n, n, generator=generator, dtype=torch.float64)
    weight = torch.rand(n_envs, n, generator=generator, dtype=torch.float64) ** 3 + 1e-4
    return linear, half + half.transpose(1, 2), weight


def by_hand(linear, curvature, weight, members) -> float:
    """⟨ℓ, c⟩ + ½⟨c, Qc⟩, entry by entry."""
    total = sum(weight[i] for i in members) if weight is not None else 1.0
    line = sum(linear[i] for i in members) / total if members else 0.0
    bend = sum(curvature[i][j] for i in members for j in members) / total**2 if members else 0.0
    return line + bend / 2


@pytest.mark.parametrize("weighted", [False, True])
def test_its_worths_are_the_formula_s(weighted):
    linear, curvature, weight = drawn(4)
    near = quadratic(linear, curvature, weight if weighted else None)
    for code, worth in enumerate(near.game.values()[1].tolist()):
        members = [i for i in range(4) if code >> i & 1]
        own = weight[1].tolist() if weighted else None
        assert worth == pytest.approx(by_hand(linear[1].tolist(), curvature[1].tolist(), own, members), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("value", ["shapley", "banzhaf"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("n", [1, 2, 3, 6, 11])
def test_its_semivalues_are_those_of_all_its_coalitions(n, weighted, value):
    linear, curvature, weight = drawn(n, seed=n)
    near = quadratic(linear, curvature, weight if weighted else None)
    assert near.solve is not None
    assert torch.allclose(near.solve(chances(value, n)), credit.make(value).values(near.game), rtol=1e-7, atol=1e-8)


def test_weights_may_span_six_orders_of_magnitude_and_players_may_have_none():
    linear, curvature, _ = drawn(5)
    weight = torch.tensor([[1e-6, 1.0, 0.0, 3.0, 1e-3]] * 3, dtype=torch.float64)
    linear[:, 2], curvature[:, 2], curvature[:, :, 2] = 0.0, 0.0, 0.0  # who has no weight brings nothing
    scale = weight.clone()
    linear, curvature = linear * scale, curvature * scale[:, :, None] * scale[:, None]  # what an agent brings grows with its weight
    near = quadratic(linear, curvature, weight)
    found = near.solve(chances("shapley", 5))
    assert torch.allclose(found, credit.make("shapley").values(near.game), rtol=1e-6, atol=1e-8)
    assert found[:, 2].tolist() == [0.0] * 3


def test_nobody_has_a_weight():
    near = quadratic(torch.zeros(2, 3), torch.zeros(2, 3, 3), torch.zeros(2, 3))
    assert near.solve(chances("shapley", 3)).tolist() == [[0.0] * 3] * 2


def test_a_game_does_not_depend_on_the_others_of_its_batch():
    linear, curvature, weight = drawn(6)
    weight[1] *= 1e5
    together = quadratic(linear, curvature, weight).solve(chances("shapley", 6))
    for e in range(3):
        alone = quadratic(linear[e : e + 1], curvature[e : e + 1], weight[e : e + 1]).solve(chances("shapley", 6))
        assert torch.equal(alone[0], together[e])


def test_shapley_s_is_efficient_and_symmetric_and_pays_null_players_nothing():
    linear, curvature, weight = drawn(7)
    for agent in (linear, curvature, curvature.transpose(1, 2)):
        agent[:, 3] = 0.0
    linear[:, 1], curvature[:, 1] = linear[:, 0], curvature[:, 0]
    curvature[:, :, 1] = curvature[:, :, 0]
    curvature[:, 1, 1] = curvature[:, 0, 0]
    weight[:, 1] = weight[:, 0]
    near = quadratic(linear, curvature)
    found = near.solve(chances("shapley", 7))
    assert torch.allclose(found.sum(dim=1), near.game.grand())
    assert torch.allclose(found[:, 0], found[:, 1])
    assert torch.allclose(found[:, 3], torch.zeros(3, dtype=torch.float64), atol=1e-12)
    renormalised = quadratic(linear, curvature, weight)
    assert torch.allclose(renormalised.solve(chances("shapley", 7)).sum(dim=1), renormalised.game.grand(), rtol=1e-7)


def test_another_value_has_no_chances():
    with pytest.raises(ValueError, match="value='owen': must be shapley or banzhaf"):
        chances("owen", 4)


# what games do with surrogates


def test_a_bare_game_says_that_it_has_none():
    assert CoalitionGame(lambda coalitions: coalitions.sum(dim=1), 3).surrogate(5) == "the game is a black box"


def test_a_game_hands_itself_and_the_number_of_evaluations_to_what_makes_its_surrogate():
    asked = []
    near = Surrogate(CoalitionGame(lambda coalitions: coalitions.sum(dim=1), 3), "near")
    game = CoalitionGame(lambda coalitions: coalitions.sum(dim=1), 3, surrogate=lambda *given: (asked.append(given), near)[1])
    assert game.surrogate(7) is near
    assert asked == [(game, 7)]


def test_what_a_game_has_learned_it_does_not_evaluate():
    asked = []

    def value(coalitions):
        asked.append(len(coalitions))
        return coalitions.double().sum(dim=1)

    game = CoalitionGame(value, 3)
    learned = torch.tensor([[True, True, False], [True, False, False]])
    game.learn(learned, torch.tensor([[20.0, 10.0]], dtype=torch.float64))
    assert game.evaluations == 2
    assert game.value(torch.tensor([[True, False, False], [True, True, False], [False, False, True]])).tolist() == [[10.0, 20.0, 1.0]]
    game.learn(learned, torch.tensor([[0.0, 0.0]], dtype=torch.float64))  # known already
    assert game.value(learned).tolist() == [[20.0, 10.0]]
    assert asked == [1]
    game.values()
    game.learn(learned, torch.tensor([[0.0, 0.0]], dtype=torch.float64))
    assert game.value(learned).tolist() == [[20.0, 10.0]]


@pytest.mark.parametrize("least", [1e-8, 1e-4])
def test_small_weights_and_players_without_one(least):
    """Who has no weight is in no step, whatever its part; who has little counts as exactly as the others."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.rand(1, 6, generator=generator, dtype=torch.float64) + 0.2
    weight[0, 0], weight[0, 1] = 0.0, 1.01 * least * weight.sum()
    linear = torch.randn(1, 6, generator=generator, dtype=torch.float64) * weight
    curvature = torch.randn(1, 6, 6, generator=generator, dtype=torch.float64)
    curvature = (curvature + curvature.mT) * weight[:, :, None] * weight[:, None]
    linear[0, 0], curvature[0, 0], curvature[0, :, 0] = 3.0, 2.0, 2.0
    near = quadratic(linear, curvature, weight)
    values = near.game.values()
    assert values[0, 1] == 0.0
    expected = credit.shapley_values(values)
    assert expected[0, 0].abs() < 1e-12
    assert torch.allclose(near.solve(chances("shapley", 6)), expected, rtol=0, atol=3e-9 * float(expected.abs().max()))


def test_a_curvature_that_is_not_symmetric_is_refused():
    with pytest.raises(ValueError, match=r"curvature must be symmetric, and differs from its transpose by 6"):
        quadratic(torch.zeros(1, 2), torch.tensor([[[0.0, 6.0], [0.0, 0.0]]]))


@pytest.mark.parametrize(
    ("weight", "said"),
    [
        (1e-9, "must be 0, or positive and at least 1e-08 of the sum"),
        (-0.5, "must be 0, or positive"),
        *((x, "finite") for x in (torch.nan, torch.inf)),
    ],
)
def test_a_weight_that_is_too_small_or_none_is_refused_by_its_place(weight, said):
    with pytest.raises(ValueError, match=rf"weight\[1, 1\]=.*: .*{said}"):
        quadratic(torch.ones(2, 2), torch.ones(2, 2, 2), torch.tensor([[1.0, 0.0], [1.0, weight]]))


@pytest.mark.parametrize(
    ("linear", "curvature", "weight", "complaint"),
    [
        ((2,), (1, 2, 2), None, r"linear has shape \(2,\), must be \(n_envs, n\)"),
        ((1, 2), (2, 2), None, r"curvature has shape \(2, 2\), must be \(1, 2, 2\) for linear of shape \(1, 2\)"),
        ((1, 2), (1, 2, 2), (2,), r"weight has shape \(2,\), must be \(1, 2\) for linear of shape \(1, 2\)"),
    ],
)
def test_shapes_that_do_not_fit_together_are_refused(linear, curvature, weight, complaint):
    with pytest.raises(ValueError, match=complaint):
        quadratic(torch.ones(linear), torch.ones(curvature), None if weight is None else torch.ones(weight))
