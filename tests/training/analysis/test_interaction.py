"""Interaction: known games, an independent least-squares fit, and what the shipped scenarios are like."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from proxycoop import credit
from proxycoop.envs import scenario
from proxycoop.training.analysis.interaction import COLUMNS, cells, correlation, games, interaction, marginals, variance_by_order, walsh


def random_games(n: int, batch: int = 5) -> Tensor:
    return torch.randn(batch, 2**n, dtype=torch.float64, generator=torch.Generator().manual_seed(n))


def shares(v: Tensor) -> Tensor:
    parts = variance_by_order(v)
    return parts / parts.sum(dim=1, keepdim=True)


def members(n: int) -> Tensor:
    return credit.coalition_matrix(n).double()


def test_an_additive_game_is_all_first_order() -> None:
    worth = torch.tensor([3.0, -1.0, 0.5, 2.0], dtype=torch.float64)
    v = (members(4) @ worth)[None]
    torch.testing.assert_close(variance_by_order(v), torch.tensor([[float(worth.square().sum()) / 4, 0, 0, 0]], dtype=torch.float64))
    for found in marginals(v):
        torch.testing.assert_close(found, worth[None])


def test_unanimity_of_two_players_is_two_thirds_additive() -> None:
    """v = x₁x₂ has variance 3/16: 1/16 from each player and 1/16 from the pair."""
    v = members(2).prod(dim=1)[None]
    torch.testing.assert_close(variance_by_order(v), torch.tensor([[2 / 16, 1 / 16]], dtype=torch.float64))
    torch.testing.assert_close(shares(v)[0, 0], torch.tensor(2 / 3, dtype=torch.float64))


def test_a_null_player_changes_no_share() -> None:
    v = members(3)[:, :2].prod(dim=1)[None]
    torch.testing.assert_close(variance_by_order(v), torch.tensor([[2 / 16, 1 / 16, 0]], dtype=torch.float64))


@pytest.mark.parametrize("order", [1, 2, 3])
def test_parity_of_k_players_is_all_of_order_k(order: int) -> None:
    sign = (1 - 2 * members(4)[:, :order]).prod(dim=1)[None]
    expected = torch.zeros(1, 4, dtype=torch.float64)
    expected[0, order - 1] = 1
    torch.testing.assert_close(variance_by_order(sign), expected)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_parts_sum_to_the_variance_and_a_constant_adds_nothing(n: int) -> None:
    v = random_games(n)
    torch.testing.assert_close(variance_by_order(v).sum(dim=1), v.var(dim=1, correction=0))
    torch.testing.assert_close(variance_by_order(v + 7), variance_by_order(v))


@pytest.mark.parametrize("n", [1, 3, 6])
def test_walsh_coefficients_are_those_of_the_definition(n: int) -> None:
    v = random_games(n, batch=2)
    found = walsh(v)
    for mask in range(2**n):
        signs = torch.tensor([(-1.0) ** bin(mask & coalition).count("1") for coalition in range(2**n)], dtype=torch.float64)
        torch.testing.assert_close(found[:, mask], (v * signs).mean(dim=1))


@pytest.mark.parametrize("n", [2, 4, 6])
def test_the_first_order_is_the_least_squares_fit_with_an_intercept_whose_weights_are_banzhaf_values(n: int) -> None:
    """Against NumPy's least squares, game by game: additive terms, then those of pairs."""
    v = random_games(n)
    columns = [[1.0] + [float(c >> i & 1) for i in range(n)] for c in range(2**n)]
    with_pairs = [row + [row[1 + i] * row[1 + j] for i, j in itertools.combinations(range(n), 2)] for row in columns]
    banzhaf = credit.make("banzhaf").values(credit.table_game(v - v[:, :1]), n)
    for game, share, worth in zip(v.numpy(), shares(v), banzhaf, strict=True):
        explained = []
        for design in (np.array(columns), np.array(with_pairs)):
            weights, *_ = np.linalg.lstsq(design, game, rcond=None)
            explained.append(1 - np.square(game - design @ weights).mean() / game.var())
            if design.shape[1] == n + 1:
                np.testing.assert_allclose(weights[1:], worth.numpy(), atol=1e-12)
        assert float(share[0]) == pytest.approx(explained[0], abs=1e-12)
        assert float(share[:2].sum()) == pytest.approx(explained[1], abs=1e-12)


def test_marginals_are_the_rules_standalone_and_loo() -> None:
    v = random_games(4)
    v = v - v[:, :1]
    alone, last = marginals(v)
    torch.testing.assert_close(alone, credit.make("standalone").values(credit.table_game(v), 4))
    torch.testing.assert_close(last, credit.make("loo").values(credit.table_game(v), 4))


def test_correlation_is_numpys_and_undefined_where_one_is_constant() -> None:
    a, b = random_games(3)[:, :6], random_games(4)[:, :6]
    expected = [np.corrcoef(x, y)[0, 1] for x, y in zip(a.numpy(), b.numpy(), strict=True)]
    np.testing.assert_allclose(correlation(a, b).numpy(), expected)
    assert correlation(torch.ones(1, 6), b[:1]).isnan().all()


@pytest.mark.parametrize("shape", [(2, 3), (8,), (2, 0)])
def test_other_tables_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"must be \(batch, 2\*\*n\)"):
        walsh(torch.zeros(shape))
    with pytest.raises(ValueError, match="at least one player"):
        variance_by_order(torch.zeros(2, 1))


# Scenarios


def short(name: str, **overrides: object) -> scenario.Scenario:
    return scenario.load(name, **{"horizon": 3, **overrides})


def test_an_episode_s_games_depend_on_its_seed_alone() -> None:
    together, gain = games(short("digits-mean"), [4, 9])
    alone, gain_alone = games(short("digits-mean"), [9])
    assert together.shape == (2, 3, 64)
    torch.testing.assert_close(together[1:], alone, rtol=0, atol=1e-12)
    torch.testing.assert_close(gain[1:], gain_alone, rtol=0, atol=1e-12)
    torch.testing.assert_close(together[..., -1].sum(dim=1), gain)  # a plain server: what the rounds gained is what the episode gained
    assert torch.equal(games(short("digits-mean"), [4, 9])[0], together)


def test_only_what_is_contributed_plays() -> None:
    v, gain = games(short("digits"), [0], clean=0.0, corrupt=0.0)
    assert v.abs().max() < 1e-15
    assert gain.abs().max() < 1e-15
    found = interaction(short("digits", profiles=[{"holders": 1, "max_norm": 1e-9}]), episodes=2, screened=True)
    assert found.additive.mean is None  # nothing passes, so nothing varies
    assert found.loo.mean is None
    assert cells(found)[2:] == ["–"] * 5 + ["0.00 ± 0.00"] * 3


def test_screening_changes_the_game_unless_nobody_screens() -> None:
    plain, own = (interaction(short("digits-mean"), episodes=3, screened=screened) for screened in (False, True))
    assert plain != own
    assert (plain.screened, own.screened) == (False, True)
    free = short("digits-mean", **{"screening.governance": "none"})
    assert interaction(free, episodes=3, screened=True).additive == interaction(free, episodes=3).additive


def test_shares_sum_to_one_and_go_into_rows_and_json() -> None:
    found = interaction(short("digits-steep"), episodes=3)
    numbers = [found.additive.mean, found.pairs.mean, found.higher.mean]
    assert None not in numbers
    assert math.fsum(x for x in numbers if x is not None) == pytest.approx(1)
    assert len(cells(found)) == len(COLUMNS)
    assert found.to_dict()["gain"] == [found.gain.mean, found.gain.half_width]


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"has 13 proxies: the whole game is computed for at most 12"):
        interaction(short("digits", principals=13))
    with pytest.raises(ValueError, match=r"clean=1\.5: must be a probability"):
        games(short("digits"), [0], clean=1.5)
    with pytest.raises(ValueError, match="episodes=1"):
        interaction(short("digits"), episodes=1)


@pytest.mark.parametrize(
    ("change", "low", "high"),
    [
        (("digits", {}), 0.99, 1.0),
        (("digits", {"substrate.local_lr": 1.5}), 0.93, 0.99),
        (("digits", {"substrate.local_lr": 4.0}), 0.5, 0.7),
        (("digits", {"lots.mixture.classes_per_lot": 2, "substrate.local_lr": 3.0}), 0.6, 0.8),
        (("digits-mean", {}), 0.6, 0.8),
        (("digits-mean", {"lots.mixture.classes_per_lot": 2, "substrate.local_lr": 0.5}), 0.4, 0.55),
    ],
)
def test_larger_steps_and_skewed_labels_make_members_interact(change: tuple[str, dict[str, object]], low: float, high: float) -> None:
    found = interaction(scenario.load(change[0], **change[1]), episodes=8)
    assert found.additive.mean is not None
    assert low < found.additive.mean < high


@pytest.mark.parametrize("name", ["complement", "redundant", "giant", "digits-steep", "digits-graded"])
@pytest.mark.parametrize("screened", [False, True])
def test_members_of_the_interacting_scenarios_interact_whether_or_not_there_is_screening(name: str, screened: bool) -> None:
    found = interaction(scenario.load(name), episodes=16, screened=screened)
    assert found.additive.mean is not None
    assert found.additive.mean < 0.8
    assert found.loo.mean is not None
    assert found.loo.mean < 0.9


def test_who_complements_others_loses_alone_and_who_is_redundant_adds_little_last() -> None:
    whole, copied = (interaction(scenario.load(name), episodes=16) for name in ("complement", "redundant"))
    assert None not in (whole.alone.mean, whole.gain.mean, whole.last.mean, copied.last.mean, copied.gain.mean)
    assert whole.alone.mean < 0 < whole.gain.mean < whole.last.mean  # type: ignore[operator]
    assert 0 < copied.last.mean < 0.5 * copied.gain.mean  # type: ignore[operator]
