from itertools import permutations
from math import log

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from proxycoop import credit
from proxycoop.envs import Engine


def parties(seed: int, n: int = 4, columns: int = 2, rows: int = 15, classes: int = 3) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Columns X ``(n, rows, columns)``, answers, and weights W ``(n, columns, classes)`` before and after a round."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, rows, columns, dtype=torch.float64, generator=generator)
    y = torch.randint(classes, (rows,), generator=generator)
    before = torch.randn(n, columns, classes, dtype=torch.float64, generator=generator)
    return x, y, before, before + torch.randn(n, columns, classes, dtype=torch.float64, generator=generator)


def game_of_updates(x: Tensor, y: Tensor, before: Tensor, after: Tensor) -> credit.CoalitionGame:
    """v(S) = U(θ + Σ_{i∈S} Δ_i) − U(θ) of a linear model whose parameters are all parties' weights, one below the other."""
    n, _, columns = x.shape
    rows = torch.cat(list(x), dim=1)  # (rows, n·columns): what the parties hold, side by side
    theta = before.flatten(0, 1)  # (n·columns, classes)
    updates = torch.zeros(n, *theta.shape, dtype=theta.dtype)
    for i in range(n):
        updates[i, i * columns : (i + 1) * columns] = after[i] - before[i]

    def utility(parameters: Tensor) -> Tensor:
        return torch.stack([-cross_entropy(rows @ one, y) for one in parameters])

    def value(coalitions: Tensor) -> Tensor:
        stepped = theta + torch.einsum("cn,npk->cpk", coalitions.to(theta), updates)
        return utility(stepped) - utility(theta[None])

    return credit.CoalitionGame(value, n)


def by_embeddings(x: Tensor, y: Tensor, before: Tensor, after: Tensor) -> list[float]:
    """The published value, from embeddings of either round, as a mean over all orders of the parties."""
    n = len(x)
    old, new = [x[i] @ before[i] for i in range(n)], [x[i] @ after[i] for i in range(n)]

    def u(coalition: set[int]) -> float:
        mixed = sum(new[i] if i in coalition else old[i] for i in range(n))
        return (cross_entropy(sum(old), y) - cross_entropy(mixed, y)).item()

    orders = list(permutations(range(n)))
    value = [0.0] * n
    for order in orders:
        for place, i in enumerate(order):
            value[i] += (u(set(order[: place + 1])) - u(set(order[:place]))) / len(orders)
    return value


def test_estimates_pass_the_suite_too():
    credit.check_rule("verfedsv(budget=40)")


def test_two_parties_by_hand():
    # One row of class 0 of two; embeddings are 0 before, so the loss is ln 2. After the round party 0's raises the right answer by
    # ln 3 and party 1's by ln 2, each relative to the other answer: losses ln(1 + 1/3), ln(1 + 1/2) and, of both, ln(1 + 1/6).
    # u({0}) = ln 3/2, u({1}) = ln 4/3, u({0, 1}) = ln 12/7
    # c_0 = ½ [ln 3/2 + ln (12/7)(3/4)] = ½ ln 27/14, c_1 = ½ [ln 4/3 + ln (12/7)(2/3)] = ½ ln 32/21
    x, y = torch.ones(2, 1, 1, dtype=torch.float64), torch.tensor([0])
    before, after = torch.zeros(2, 1, 2).double(), torch.tensor([[[log(3), 0.0]], [[log(2), 0.0]]], dtype=torch.float64)
    expected = [log(27 / 14) / 2, log(32 / 21) / 2]
    assert credit.VerFedSv().values(game_of_updates(x, y, before, after))[0].tolist() == pytest.approx(expected, abs=1e-14)
    assert by_embeddings(x, y, before, after) == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize("seed", range(4))
def test_the_round_s_game_is_the_game_of_embeddings(seed):
    what = parties(seed)
    the_round = credit.game_round(game_of_updates(*what))
    assert credit.VerFedSv().assign(the_round)[0].tolist() == pytest.approx(by_embeddings(*what), abs=1e-13)


def test_an_episode_pays_the_value_of_the_summed_utilities():
    games = [game_of_updates(*parties(seed)) for seed in range(3)]
    rule = credit.VerFedSv()
    rule.reset(1, 4)
    paid = sum(rule.assign(credit.game_round(game, t=t)) for t, game in enumerate(games))
    summed = credit.shapley_values(sum(game.values() for game in games))
    torch.testing.assert_close(paid, summed, rtol=0, atol=1e-13)


def test_who_copies_a_column_takes_half_which_is_its_known_failure():
    x, y, before, after = parties(0, n=1)
    alone = credit.VerFedSv().values(game_of_updates(x, y, before, after))[0]
    half = (before / 2).expand(2, -1, -1), (after / 2).expand(2, -1, -1)  # the same model, of which each holds half
    shared = credit.VerFedSv().values(game_of_updates(x.expand(2, -1, -1), y, *half))[0]
    torch.testing.assert_close(shared, alone.expand(2) / 2, rtol=0, atol=1e-14)


def test_a_cooperative_in_which_principals_hold_rows_is_refused():
    with pytest.raises(ValueError, match=r"columns.*substrate vertical"):
        Engine("digits", "verfedsv")


def test_it_takes_the_shapley_value_s_arguments():
    rule, shapley = credit.make("verfedsv(budget=60, seed=3)"), credit.make("shapley(budget=60, seed=3)")
    v = torch.randn(2, 2**7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    v[:, 0] = 0
    assert rule.values(credit.table_game(v)).equal(shapley.values(credit.table_game(v)))
    assert (rule.cost(7), rule.method(7)) == (60, shapley.method(7))
    with pytest.raises(ValueError, match="at most 20 agents, got 21"):
        credit.VerFedSv().reset(1, 21)
    with pytest.raises(ValueError, match="budget=True"):
        credit.VerFedSv(budget=True)
