"""Estimators against exact values: unbiased or as biased as they say, with errors that can be trusted, within their budget."""

from functools import cache

import pytest
import torch
from torch import Tensor

from proxycoop import credit

N_RUNS = [300, pytest.param(2_000, marks=pytest.mark.slow)]
N = 8
BUDGET = 160  # of 255 coalitions

# what turns a truncated estimator into an unbiased one
UNTRUNCATED = {"tmc": {"tolerance": 0.0}, "gtg": {"between": 0.0, "within": 0.0, "convergence": 0.0}}
UNBIASED = ["antithetic", "banzhaf_msr", "complementary", "gtg", "stratified_svarm", "svarm", "tmc"]
PAIRED = ["kernelshap", "kernelshap(by_size=True)", "leverage", "leverage(by_size=True)"]
REGRESSIONS = [*PAIRED, "size_regression"]
SAMPLED = UNBIASED + REGRESSIONS
ESTIMATORS = [*SAMPLED, "gaussian_process", "stacked"]  # whose errors are a process's: test_gaussian_process.py, test_stacked.py


@cache
def worths(n: int) -> Tensor:
    """Two games with redundancy, harm and interactions of all orders, double ``(2, 2**n)``."""
    generator = torch.Generator().manual_seed(0)
    members = credit.coalition_matrix(n).double()
    worth = torch.rand(n, generator=generator, dtype=torch.float64) + 0.2
    worth[-1] = -0.3  # harmful
    saturating = 1 - torch.exp(-(members @ worth) / 2)
    noisy = members.sum(dim=1) + 0.3 * torch.randn(2**n, generator=generator, dtype=torch.float64)
    noisy[0] = 0
    return torch.stack([saturating, noisy])


def game_of(v: Tensor) -> credit.CoalitionGame:
    n = v.shape[-1].bit_length() - 1
    return credit.CoalitionGame(lambda coalitions: v[..., (coalitions * 2 ** torch.arange(n)).sum(dim=1)], n)


def truth(name: str, v: Tensor) -> Tensor:
    return credit.make("banzhaf" if name == "banzhaf_msr" else "shapley").values(game_of(v))


@cache
def runs(name: str, n_runs: int) -> tuple[Tensor, Tensor, Tensor]:
    """Estimates and ends of 95 % intervals of many seeds, ``(runs, games, players)`` each."""
    game = game_of(worths(N))
    game.values()
    found = [credit.make(name, budget=BUDGET, seed=seed, **UNTRUNCATED.get(name, {})).estimate(game) for seed in range(n_runs)]
    low, high = zip(*(estimate.interval(0.95) for estimate in found), strict=True)
    return torch.stack([estimate.values for estimate in found]), torch.stack(low), torch.stack(high)


def test_every_estimator_is_tested_here():
    assert {name.split("(")[0] for name in ESTIMATORS} == {name for name in credit.RULES if credit.make(name).family == "estimator"}


@pytest.mark.parametrize("n_runs", N_RUNS)
@pytest.mark.parametrize("name", UNBIASED)
def test_is_unbiased(name, n_runs):
    values, _, _ = runs(name, n_runs)
    z = (values.mean(dim=0) - truth(name, worths(N))) / (values.std(dim=0) / n_runs**0.5)
    assert z.abs().max() < 4  # of 16; chance exceeds this once in a thousand suites
    assert 0.5 < z.square().mean() < 2


@pytest.mark.parametrize("n_runs", N_RUNS)
@pytest.mark.parametrize("name", REGRESSIONS)
def test_bias_is_small_beside_the_error_and_falls_with_the_budget(name, n_runs):
    v = worths(N)
    values, _, _ = runs(name, n_runs)
    bias = (values.mean(dim=0) - truth(name, v)).norm(dim=1)
    assert (bias < 0.5 * values.std(dim=0).norm(dim=1)).all()
    game = game_of(v)
    game.values()
    small = torch.stack([credit.make(name, budget=40, seed=seed).values(game) for seed in range(n_runs // 4)])
    assert (bias < 0.5 * (small.mean(dim=0) - truth(name, v)).norm(dim=1)).all()


@pytest.mark.parametrize("n_runs", N_RUNS)
@pytest.mark.parametrize("name", SAMPLED)
def test_intervals_of_95_percent_cover_93_to_97(name, n_runs):
    _, low, high = runs(name, n_runs)
    exact = truth(name, worths(N))
    covered = ((low <= exact) & (exact <= high)).double().mean(dim=(0, 2))  # of each game
    assert ((covered >= 0.93) & (covered <= 0.97)).all(), covered


@pytest.mark.parametrize("name", ESTIMATORS)
def test_intervals_widen_with_the_level_and_refuse_what_is_none(name):
    estimate = credit.make(name, budget=BUDGET).estimate(game_of(worths(N)))
    narrow, wide = estimate.interval(0.5), estimate.interval(0.99)
    assert (wide[0] < narrow[0]).all()
    assert (narrow[1] < wide[1]).all()
    with pytest.raises(ValueError, match=r"level=1\.0: must be between 0 and 1"):
        estimate.interval(1.0)


# budgets


@pytest.mark.parametrize("name", [*ESTIMATORS, "shapley"])
@pytest.mark.parametrize("n", [2, 3, 4, 5, 6, 16, 33, *(pytest.param(n, marks=pytest.mark.slow) for n in (9, 64, 100))])
def test_evaluates_each_coalition_once_and_no_more_than_the_budget(name, n):
    for times in [2, 5, 20]:
        seen: set[tuple[bool, ...]] = set()

        def value(coalitions, seen=seen):
            asked = [tuple(row) for row in coalitions.tolist()]
            assert len(set(asked)) == len(asked)
            assert not seen & set(asked)
            seen.update(asked)
            return coalitions.double().sum(dim=1).sqrt()

        rule = credit.make(name, budget=times * n)
        if min(times * n, 2**n - 1) < min(rule.least_budget(n), 2**n - 1):
            with pytest.raises(ValueError, match="too small"):
                rule.check(n)
            continue
        game = credit.CoalitionGame(value, n)
        estimate = rule.estimate(game)
        assert game.evaluations == len(seen)
        assert len(seen) <= min(times * n, 2**n)
        if name != "shapley":
            assert estimate.evaluations == len(seen - {(False,) * n})
            assert (False,) * n not in seen  # nobody is worth nothing
        assert estimate.values.isfinite().all()


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("n", [3, 8, 16, 40])
def test_its_least_budget_is_enough_and_one_less_is_refused_with_the_number(name, n):
    least = min(credit.make(name).least_budget(n), 2**n - 1)
    game = credit.CoalitionGame(lambda coalitions: coalitions.double().sum(dim=1), n)
    assert credit.make(name, budget=least).values(game).isfinite().all()
    with pytest.raises(ValueError, match=rf"budget={least - 1} is too small for \w+ with {n} players: pass at least {least}"):
        credit.make(name, budget=least - 1).values(game)


@pytest.mark.parametrize("name", [*ESTIMATORS, "shapley"])
@pytest.mark.parametrize("n", [2, 3, 4])
def test_any_budget_that_is_accepted_is_kept_to(name, n):
    least = credit.make("antithetic" if name == "shapley" else name).least_budget(n)
    for budget in range(min(least, 2**n - 1), 2**n):
        seen: set[tuple[bool, ...]] = set()

        def value(coalitions, seen=seen):
            seen.update(map(tuple, coalitions.tolist()))
            return (coalitions.double() @ torch.arange(1.0, n + 1).double()).square()

        credit.make(name, budget=budget).divide(credit.CoalitionGame(value, n))
        assert len(seen - {(False,) * n}) <= budget


def test_gtg_estimates_a_game_of_two_players_from_one_order():
    v = torch.tensor([[0.0, 1.0, 2.0, 7.0]], dtype=torch.float64)
    paid = {tuple(credit.make("gtg", budget=2, seed=seed).values(game_of(v))[0].tolist()) for seed in range(20)}
    assert paid == {(1.0, 6.0), (5.0, 2.0)}


@pytest.mark.parametrize("budget", [0, -3, 2.5, "many", True])
def test_a_budget_that_is_none_is_refused(budget):
    with pytest.raises(ValueError, match=r"budget=.* must be a positive whole number"):
        credit.make("svarm", budget=budget)


@pytest.mark.parametrize("seed", [-1, 0.5, None, True])
def test_a_seed_that_is_none_is_refused(seed):
    with pytest.raises(ValueError, match=r"seed=.* must be a whole number from 0"):
        credit.make("svarm", seed=seed)


@pytest.mark.parametrize("name", ["complementary", "stratified_svarm", "banzhaf_msr", *REGRESSIONS])
@pytest.mark.parametrize("n", [2, 3, 4, 5, 6, 7])
def test_a_budget_of_all_coalitions_gives_the_exact_value_and_no_error(name, n):
    v = worths(n)
    estimate = credit.make(name, budget=2**n - 1).estimate(game_of(v))
    torch.testing.assert_close(estimate.values, truth(name, v), rtol=0, atol=1e-10)
    assert estimate.standard_error.abs().max() < 1e-10


@pytest.mark.parametrize("name", [*ESTIMATORS, "shapley"])
def test_a_single_player_gets_everything(name):
    estimate = credit.make(name, budget=5).estimate(lambda coalitions: 3.0 * coalitions[:, 0], 1)
    assert estimate.values.tolist() == [[3.0]]
    assert estimate.standard_error.tolist() == [[0.0]]


# what they do without error


@pytest.mark.parametrize("name", ["antithetic", *PAIRED])
@pytest.mark.parametrize("n", [5, 12, 30])
def test_paired_orders_and_regressions_are_exact_where_players_interact_by_pairs(name, n):
    generator = torch.Generator().manual_seed(n)
    alone = torch.randn(n, generator=generator, dtype=torch.float64)
    together = torch.randn(n, n, generator=generator, dtype=torch.float64).tril(-1)
    together = together + together.T

    def value(coalitions):
        members = coalitions.double()
        return members @ alone + 0.5 * torch.einsum("ci,ij,cj->c", members, together, members)

    exact = alone + 0.5 * together.sum(dim=1)
    game = credit.CoalitionGame(value, n)
    found = credit.make(name, budget=20 * n).values(game)[0]
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["antithetic", "gtg", "tmc"])
def test_orders_are_exact_for_additive_games(name):
    worth = torch.tensor([1.0, -2.0, 0.5, 4.0, 0.0], dtype=torch.float64)
    estimate = credit.make(name, budget=20, **UNTRUNCATED.get(name, {})).estimate(lambda coalitions: coalitions.double() @ worth, 5)
    torch.testing.assert_close(estimate.values[0], worth, rtol=0, atol=1e-12)
    assert estimate.standard_error.abs().max() < 1e-12


@pytest.mark.parametrize("name", ["antithetic", *REGRESSIONS])
@pytest.mark.parametrize("n", [2, 3, 8, 20, 64])
def test_efficient_estimators_pay_out_exactly_the_worth_of_all(name, n):
    game = credit.CoalitionGame(lambda coalitions: (coalitions.double().sum(dim=1) + 3).log() - torch.tensor(3.0).double().log(), n)
    for seed in range(5):
        assert credit.make(name, budget=6 * n, seed=seed).values(game).sum().item() == pytest.approx(game.grand().item(), abs=1e-10)


# draws


@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_same_seed_gives_the_same_numbers_on_any_batch(name):
    v = worths(N)
    both = credit.make(name, budget=100, seed=4).estimate(game_of(v))
    for e in range(2):
        single = credit.make(name, budget=100, seed=4).estimate(game_of(v[e : e + 1]))
        torch.testing.assert_close(both.values[e : e + 1], single.values, rtol=0, atol=1e-12)
        torch.testing.assert_close(both.standard_error[e : e + 1], single.standard_error, rtol=0, atol=1e-12)
    assert not credit.make(name, budget=100, seed=5).values(game_of(v)).equal(both.values)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_round_of_every_episode_draws_anew(name, learning_round):
    rule = credit.make(name, budget=100)
    found = []
    for episode, t in [(0, 0), (0, 1), (1, 0), (0, 0)]:
        the_round = learning_round(torch.zeros(1, N, 1), torch.zeros(1, 1), t=t)
        the_round.episode = episode
        the_round.game = game_of(worths(N)[:1])
        found.append(rule.assign(the_round))
    assert found[0].equal(found[3])
    assert not found[0].equal(found[1])
    assert not found[0].equal(found[2])
    assert not found[1].equal(found[2])


def test_single_precision_games_are_estimated_in_double_and_answered_in_single():
    v = worths(N).float()
    for name in ESTIMATORS:
        estimate = credit.make(name, budget=100).estimate(game_of(v))
        assert estimate.values.dtype == estimate.standard_error.dtype == torch.float32
        exact = credit.make(name, budget=100).estimate(game_of(v.double())).values
        torch.testing.assert_close(estimate.values.double(), exact, rtol=0, atol=1e-5)


# which one


@pytest.mark.parametrize(
    ("n", "budget", "how"),
    [
        (6, None, "exact"),
        (6, 63, "exact"),
        (6, 62, "estimated by stacked"),
        (8, 40, "estimated by stacked"),
        (8, 30, "estimated by gaussian_process"),
        (8, 20, "estimated by gaussian_process"),
        (15, 75, "estimated by stacked"),
        (16, 80, "estimated by stacked"),
        (16, 78, "estimated by gaussian_process"),
        (300, 1400, "estimated by antithetic"),
        (8, 9, "estimated by gaussian_process"),
        (8, 8, "estimated by tmc(tolerance=0)"),
        (64, 1280, "estimated by stacked"),
        (64, 1301, "estimated by size_regression"),
    ],
)
def test_shapley_says_what_it_does_with_its_budget(n, budget, how):
    rule = credit.make("shapley", budget=budget)
    assert rule.method(n).split(", ")[0] == how
    rule.check(n)
    if n <= 8:
        v = worths(n)
        estimate = rule.estimate(game_of(v))
        name = how.removeprefix("estimated by ")
        expected = truth("shapley", v) if how == "exact" else credit.make(name, budget=budget).values(game_of(v))
        assert estimate.values.equal(expected)
        assert ("exact" in estimate.method) == (how == "exact")


def test_pairs_that_fit_because_they_repeat_coalitions_tell_no_error():
    """Three players, five evaluations: one pair of orders, and those others that ask for nothing new."""
    for seed in range(40):
        game = credit.CoalitionGame(lambda c: (c.double() @ torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)) ** 3, 3)
        assert credit.make("antithetic", budget=5, seed=seed).estimate(game).standard_error.isnan().all()


def test_one_pair_of_orders_tells_no_error():
    estimate = credit.make("antithetic", budget=15).estimate(game_of(worths(N)))
    assert estimate.standard_error.isnan().all()
    assert "1 pair" in estimate.method


# truncation


def test_truncation_saves_evaluations_and_leaves_no_more_than_the_tolerance_unpaid():
    def value(coalitions):  # two players suffice
        return coalitions.sum(dim=1).clamp(max=2).double() / 2 + coalitions.double() @ torch.linspace(0, 1e-5, 20, dtype=torch.float64)

    full, short = (credit.CoalitionGame(value, 20) for _ in range(2))
    all_of_it = credit.make("tmc", budget=400, tolerance=0.0).values(full)
    truncated = credit.make("tmc", budget=400, tolerance=0.001).values(short)
    assert short.evaluations < full.evaluations / 2
    torch.testing.assert_close(truncated, all_of_it, rtol=0, atol=1e-4)
    assert truncated.sum().item() == pytest.approx(full.grand().item(), abs=0.001 * full.grand().item())


def test_gtg_pays_nobody_in_a_round_that_gains_nothing():
    v = torch.zeros(1, 16, dtype=torch.float64)
    v[0, 1:-1] = 1.0
    v[0, -1] = 0.0005
    game = game_of(v)
    estimate = credit.make("gtg").estimate(game)
    assert estimate.values.abs().max() == 0
    assert game.evaluations == 1
    assert credit.make("gtg", between=0.0, within=0.0).estimate(game_of(v)).values.abs().max() > 0


@pytest.mark.parametrize("budget", [5, 12, 15])
@pytest.mark.parametrize("name", ["tmc", "gtg"])
def test_a_worth_of_all_that_is_nan_makes_every_value_nan_and_concerns_no_other_game(name, budget):
    v = worths(4).clone()
    alone = credit.make(name, budget=budget).estimate(game_of(v[1:]))
    v[0, -1] = torch.nan
    estimate = credit.make(name, budget=budget).estimate(game_of(v))
    assert estimate.values[0].isnan().all()
    assert estimate.standard_error[0].isnan().all()
    torch.testing.assert_close(estimate.values[1:], alone.values, rtol=0, atol=0)
    only = credit.make(name, budget=budget).estimate(game_of(v[:1]))
    assert only.values.isnan().all()


@pytest.mark.parametrize("name", ESTIMATORS)
def test_no_estimator_of_a_game_whose_worth_of_all_is_nan_answers_with_numbers(name):
    v = worths(4).clone()
    v[0, -1] = torch.nan
    paid = credit.make(name, budget=2**4 - 1).values(game_of(v))
    assert paid[0].isnan().any()
    assert paid[1].isfinite().all()


def test_gtg_stops_when_its_means_have_settled():
    eager, patient = (credit.CoalitionGame(lambda coalitions: coalitions.double().sum(dim=1), 12) for _ in range(2))
    credit.make("gtg", budget=2000).values(eager)
    credit.make("gtg", budget=2000, convergence=0.0).values(patient)
    assert eager.evaluations < patient.evaluations / 2


@pytest.mark.parametrize(
    ("name", "argument", "value"),
    [
        ("tmc", "tolerance", -0.1),
        ("tmc", "patience", -1),
        ("gtg", "between", -1.0),
        ("gtg", "within", float("nan")),
        ("gtg", "convergence", -1.0),
    ],
)
def test_thresholds_below_zero_are_refused(name, argument, value):
    with pytest.raises(ValueError, match=rf"{argument}=.* must be a (whole )?number of at least 0"):
        credit.make(name, **{argument: value})


def test_a_level_as_text_is_shown_as_text():
    estimate = credit.make("svarm", budget=30).estimate(credit.games.additive([1.0, 2.0, 3.0]).game())
    with pytest.raises(ValueError, match=r"level='0\.95': must be between 0 and 1"):
        estimate.interval("0.95")
