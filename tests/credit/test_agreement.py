"""Our exact values against those of shapiq's ExactComputer, on the same random games."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from shapiq import ExactComputer
from torch import Tensor

from proxycoop import credit
from proxycoop.credit.solutions.joint_shapley import groups

GAMES = [(n, seed) for n in range(2, 11) for seed in range(2)] + [(3, 2), (5, 2)]  # 20 of them


def worths(n: int, seed: int) -> Tensor:
    """Standard normal worths, v(∅) = 0, float64 ``(1, 2**n)``."""
    v = torch.randn(1, 2**n, dtype=torch.float64, generator=torch.Generator().manual_seed(100 * n + seed))
    v[:, 0] = 0
    return v


@pytest.fixture(scope="module", params=GAMES, ids=lambda game: f"n={game[0]}, seed={game[1]}")
def game(request) -> tuple[Tensor, ExactComputer]:
    """The worths, and shapiq's computer of the same game."""
    n, seed = request.param
    v = worths(n, seed)

    def look_up(coalitions: NDArray[np.bool_]) -> NDArray[np.float64]:
        return v[0].numpy()[coalitions @ 2 ** np.arange(n)]

    return v, ExactComputer(look_up, n_players=n)


def theirs(computer: ExactComputer, index: str, order: int, of: list[tuple[int, ...]]) -> list[float]:
    values = computer(index, order)
    return [float(values[group]) for group in of]


def test_the_shapley_value_agrees(game):
    v, computer = game
    n = computer.n_players
    expected = pytest.approx(theirs(computer, "SV", 1, groups(n, 1)), abs=1e-9)
    assert credit.shapley_values(v)[0].tolist() == expected
    assert credit.make("shapley").values(credit.table_game(v))[0].tolist() == expected


def test_the_banzhaf_value_agrees(game):
    v, computer = game
    expected = theirs(computer, "BV", 1, groups(computer.n_players, 1))
    assert credit.make("banzhaf").values(credit.table_game(v))[0].tolist() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_joint_shapley_values_agree(game, order):
    v, computer = game
    order = min(order, computer.n_players)
    expected = theirs(computer, "JointSV", order, groups(computer.n_players, order))
    assert credit.joint_shapley_values(v, order)[0].tolist() == pytest.approx(expected, abs=1e-9)
