"""Estimates that take a game's surrogate as a control variate."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from proxycoop import credit
from proxycoop.credit.estimators import GaussianProcess
from proxycoop.credit.games.game import CoalitionGame, Surrogate
from proxycoop.credit.games.surrogate import quadratic

N = 8
TAKE_ONE = (
    "antithetic",
    "kernelshap",
    "kernelshap(by_size=True)",
    "leverage",
    "size_regression",
    "gaussian_process",
    "stacked",
    "complementary",
    "stratified_svarm",
    "svarm",
    "banzhaf_msr",
)


def parts(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What each member brings, and its weight."""
    return torch.linspace(-0.4, 1.2, n, dtype=torch.float64), torch.linspace(1.0, 2.0, n, dtype=torch.float64).flip(0)


def worth(coalitions: torch.Tensor, n: int = N) -> torch.Tensor:
    """Two games of the mean of what members bring, which are not quadratic in it."""
    (strength, weight), members = parts(n), coalitions.double()
    mean = (members @ (weight * strength)) / (members @ weight).clamp(min=1e-9)
    return torch.stack([1 - torch.exp(-mean), torch.tanh(2 * mean) + 0.1 * mean])


def near(n: int = N, factor: float = 1.0) -> Surrogate:
    """The expansion of the first game at ∅, for both."""
    strength, weight = parts(n)
    brought = weight * strength
    linear, curvature = factor * brought, -factor * brought[:, None] * brought
    return quadratic(linear.expand(2, -1), curvature.expand(2, -1, -1), weight.expand(2, -1))


def game(surrogate: Surrogate | str | None, n: int = N) -> CoalitionGame:
    maker = None if surrogate is None else lambda *_: surrogate
    return CoalitionGame(lambda coalitions: worth(coalitions, n), n, surrogate=maker)


def exactly(rule: str = "shapley", n: int = N) -> torch.Tensor:
    return credit.make(rule).values(game(None, n))


@pytest.mark.parametrize("name", TAKE_ONE)
def test_where_the_surrogate_is_the_game_the_value_is_exact_whatever_is_drawn(name):
    itself = near()
    rule = credit.make(f"{name[:-1]}, budget=60)" if "(" in name else f"{name}(budget=60)")
    rule.surrogate = True
    found = rule.estimate(CoalitionGame(itself.game.value, N, surrogate=lambda *_: itself))
    target = "banzhaf" if name == "banzhaf_msr" else "shapley"
    assert torch.allclose(found.values, credit.make(target).values(itself.game), atol=1e-12)
    assert float(found.standard_error.max()) < 1e-12
    assert torch.allclose(found.explained, torch.ones(2, dtype=torch.float64))
    assert found.surrogate == "quadratic expansion"
    assert found.method.endswith("of the difference to quadratic expansion")


@pytest.mark.parametrize("name", ["antithetic", "complementary", "svarm", "banzhaf_msr"])
def test_it_stays_unbiased_with_a_surrogate_that_is_off(name):
    rule = credit.make(name, budget=60)
    rule.surrogate = True
    target = exactly("banzhaf" if name == "banzhaf_msr" else "shapley")
    drawn = []
    for seed in range(400):
        rule.seed = seed
        drawn.append(rule.estimate(game(near(factor=0.6))).values)
    sample = torch.stack(drawn)
    z = (sample.mean(dim=0) - target) / (sample.std(dim=0) / len(sample) ** 0.5)
    assert float(z.abs().max()) < 4.0  # 16 numbers; that is exceeded by chance once in a thousand


@pytest.mark.parametrize("budget", [16, 24, 40])
def test_it_is_closer_by_far_at_the_same_budget(budget):
    def error(surrogate: bool) -> float:
        found = [credit.make("shapley", budget=budget, seed=seed, surrogate=surrogate).estimate(game(near())) for seed in range(40)]
        return float(np.median([(one.values - exactly())[0].norm() for one in found]))

    assert error(True) < 0.5 * error(False)


@pytest.mark.parametrize(
    ("n", "budget", "how"),
    [
        (20, 50, "antithetic permutations"),
        (20, 70, "Gaussian process"),
        (20, 110, "Gaussian process and"),
        (200, 1400, "paired KernelSHAP by size"),
    ],
)
def test_where_it_takes_all_that_pairs_do_few_coalitions_are_drawn_with_their_complements(n, budget, how):
    linear = torch.linspace(0.1, 0.5, n, dtype=torch.float64)[None]
    pairs = quadratic(linear, -0.01 * torch.ones(1, n, n, dtype=torch.float64))
    assert pairs.paired
    assert not near().paired
    asked = []
    cubic = CoalitionGame(
        lambda c: (asked.extend(c), pairs.game.value(c) + 0.001 * c.double().sum(dim=1) ** 3)[1], n, surrogate=lambda *_: pairs
    )
    found = credit.make("shapley", budget=budget).estimate(cubic)
    assert found.method.startswith(how)
    if "Gaussian" not in how:
        drawn = {tuple(row.tolist()) for row in asked}
        assert all(tuple(not one for one in row) in drawn for row in drawn if not all(row))


@pytest.mark.parametrize(("n", "budget"), [(400, 1900), (100, 1400)])
def test_no_process_is_fitted_to_more_than_1300_evaluations(n, budget, monkeypatch):
    """What made the surrogate counts: a process would be fitted to it, too."""
    monkeypatch.setattr(GaussianProcess, "fitted", lambda *_: pytest.fail("a process was fitted"))
    single = torch.eye(n, dtype=torch.bool)

    def made(game, most):
        del most
        game.value(single)
        return Surrogate(CoalitionGame(lambda c: 0.9 * c.double().sum(dim=1), n), "near", evaluations=n, known=frozenset({1}))

    game = CoalitionGame(lambda c: c.double().sum(dim=1), n, surrogate=made)
    found = credit.make("shapley", budget=budget).estimate(game)
    assert torch.allclose(found.values, torch.ones(1, n, dtype=torch.float64))


def test_without_it_nothing_is_different_to_the_bit():
    for budget in (16, 40, 80):
        bare = credit.make("shapley", budget=budget).estimate(game(None))
        left_out = credit.make("shapley", budget=budget, surrogate=False).estimate(game(near()))
        assert torch.equal(bare.values, left_out.values)
        assert torch.equal(bare.standard_error.nan_to_num(-1.0), left_out.standard_error.nan_to_num(-1.0))
        assert (bare.surrogate, left_out.surrogate) == ("the game is a black box", "")
        assert left_out.explained is None
        assert bare.explained.isnan().all()


def test_why_there_is_none_is_told():
    found = credit.make("shapley", budget=40).estimate(game("a server of kind adam does not add up what agents bring"))
    assert found.surrogate == "a server of kind adam does not add up what agents bring"
    assert "difference" not in found.method


def test_what_it_explains_is_one_minus_the_share_of_variance_that_is_left():
    asked = []
    seen = CoalitionGame(lambda coalitions: (asked.append(coalitions), worth(coalitions))[1], N, surrogate=lambda *_: near())
    found = credit.make("size_regression", budget=40, surrogate=True).estimate(seen)
    rows = torch.cat(asked).numpy()
    v, s = worth(torch.from_numpy(rows)).numpy(), near().game.value(torch.from_numpy(rows)).numpy()
    assert found.explained.tolist() == pytest.approx(list(1 - (v - s).var(axis=1) / v.var(axis=1)))
    assert found.explained[0] > 0.9 > found.explained[1], "it is the expansion of the first game"


@pytest.mark.parametrize("wrong", [-20.0, float("nan"), float("inf")])
def test_a_surrogate_that_is_worse_than_none_is_left_out_where_it_is(wrong):
    """In the first environment it is far off; in the second it is the game's expansion."""
    good = near()
    assert good.solve is not None
    scale = torch.tensor([[wrong], [1.0]], dtype=torch.float64)
    odd = Surrogate(CoalitionGame(lambda c: scale * good.game.value(c), N), "odd", solve=lambda at: scale * good.solve(at))
    rule = credit.make("size_regression", budget=60, surrogate=True)
    found, fine = rule.estimate(game(odd)), rule.estimate(game(good))
    bare = credit.make("size_regression", budget=60).estimate(game(None))
    assert torch.equal(found.values[0], bare.values[0])
    assert torch.equal(found.standard_error[0], bare.standard_error[0])
    assert torch.equal(found.values[1], fine.values[1])
    assert torch.equal(found.standard_error[1], fine.standard_error[1])


def test_coalitions_that_made_it_count_in_the_budget_once():
    asked = []

    def value(coalitions):
        asked.extend(coalitions.tolist())
        return worth(coalitions)

    def make(played, most):
        assert most == 40 - 3
        lacking = ~torch.eye(N, dtype=torch.bool)
        played.value(lacking)
        made = near()
        return Surrogate(made.game, "near", evaluations=N, known=frozenset({N - 1}), solve=made.solve)

    found = credit.make("shapley", budget=40).estimate(CoalitionGame(value, N, surrogate=make))
    assert len({tuple(row) for row in asked}) == len(asked) == found.evaluations == 40
    assert sum(sum(row) == N - 1 for row in asked) == N, "all of that size are known, and used"


@pytest.mark.parametrize("n", [9, 13])
def test_a_surrogate_without_a_closed_form_is_enumerated_or_sampled_with_its_error(n):
    """The surrogate is the game; so only its own value can be off."""
    itself = CoalitionGame(lambda coalitions: worth(coalitions, n), n, surrogate=lambda *_: near(n))
    found = credit.make("shapley", budget=5 * n).estimate(game(Surrogate(itself, "the game"), n))
    target = exactly(n=n)
    if n <= 12:
        assert torch.allclose(found.values, target, atol=1e-12)
        assert float(found.standard_error.max()) < 1e-12
    else:
        assert 0 < float(found.standard_error.max()) < 0.01
        assert float(((found.values - target) / found.standard_error).abs().max()) < 5


def test_its_draws_are_others_than_those_of_the_difference():
    asked: dict[str, set] = {"game": set(), "surrogate": set()}

    def seen(what, n=13):
        return lambda coalitions: (asked[what].update(map(tuple, coalitions.tolist())), worth(coalitions, n))[1]

    itself = CoalitionGame(seen("surrogate"), 13)
    credit.make("shapley", budget=65).estimate(CoalitionGame(seen("game"), 13, surrogate=lambda *_: Surrogate(itself, "the game")))
    assert len(asked["game"] & asked["surrogate"]) < len(asked["surrogate"]) / 2, "the difference asks for all of its own"


def test_one_order_serves_the_smallest_budgets():
    found = credit.make("shapley", budget=N).estimate(game(near()))
    assert found.evaluations == N
    assert torch.allclose(found.values.sum(dim=1), worth(torch.ones(1, N, dtype=torch.bool))[:, 0])
    assert found.standard_error.isnan().all()
    with pytest.raises(ValueError, match=r"budget=7 is too small for Shapley with 8 players: pass at least 8"):
        credit.make("shapley", budget=N - 1).check(N)


@pytest.mark.slow
@pytest.mark.parametrize("times", [4, 5, 10, 20])
def test_intervals_cover_the_value(times):
    target, inside = exactly(), []
    for seed in range(400):
        low, high = credit.make("shapley", budget=times * N, seed=seed).estimate(game(near())).interval(0.95)
        inside.append(((low <= target) & (target <= high)).double().mean())
    assert 0.92 <= float(torch.stack(inside).mean()) <= 0.998  # the mean of two errors is wide


@pytest.mark.parametrize("given", [1, "yes", None])
def test_a_wrong_switch_is_refused(given):
    with pytest.raises(ValueError, match=rf"surrogate={given!r}: must be True or False"):
        credit.make("shapley", budget=40, surrogate=given)
