"""Games and approximators across the bridge to shapiq, in both directions."""

import sys

import numpy as np
import pytest
import shapiq
import torch
from torch import Tensor

from proxycoop import credit
from proxycoop.envs import Engine, scenario

N = 6


def worths(n_envs: int = 3, n: int = N, seed: int = 0) -> Tensor:
    """Standard normal worths, v(∅) = 0, float64 ``(n_envs, 2**n)``."""
    v = torch.randn(n_envs, 2**n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    v[:, 0] = 0
    return v


class Glove(shapiq.Game):
    """shapiq's kind of game: player 0 has the left glove, the others a right one each; v(∅) is not subtracted."""

    def __init__(self, n: int = 3, normalize: bool = False) -> None:
        super().__init__(n_players=n, normalize=normalize, normalization_value=0.5 if normalize else None)
        self.asked = 0

    def value_function(self, coalitions: np.ndarray) -> np.ndarray:
        assert isinstance(coalitions, np.ndarray)
        self.asked += len(coalitions)
        return 0.5 + (coalitions[:, 0] * coalitions[:, 1:].any(axis=1)).astype(float)


# our games there


@pytest.mark.parametrize("env", [0, 2])
def test_shapiq_computes_the_values_of_an_environment_of_our_game(env):
    v = worths()
    game = credit.to_shapiq(credit.table_game(v), env=env)
    assert isinstance(game, shapiq.Game)
    values = shapiq.ExactComputer(game)("SV", 1)
    assert [values[(i,)] for i in range(N)] == pytest.approx(credit.shapley_values(v)[env].tolist(), abs=1e-12)


def test_a_function_becomes_a_game_of_shapiq_s_with_nothing_for_nobody():
    game = credit.to_shapiq(lambda c: 7.0 + c.sum(dim=1), n_players=4)
    assert game.n_players == 4
    assert game.is_normalized
    assert game(np.array([[True, False, True, False], [False] * 4])).tolist() == [2.0, 0.0]
    assert game([(0, 1, 2), ()]).tolist() == [3.0, 0.0]


def test_a_bridged_game_evaluates_each_coalition_once_and_nobody_never():
    asked = []
    ours = credit.CoalitionGame(lambda c: (asked.extend(map(tuple, c.tolist())), c.double().sum(dim=1))[1], 4)
    game = credit.to_shapiq(ours)
    game.precompute()
    credit.to_shapiq(ours).precompute()
    assert len(asked) == len(set(asked)) == ours.evaluations == 15


@pytest.mark.parametrize(
    ("approximator", "budget"),
    [(shapiq.KernelSHAP, 16), (shapiq.SVARM, 16), (shapiq.PermutationSamplingSV, 16), (shapiq.OwenSamplingSV, 200)],
)
def test_shapiq_s_approximators_take_our_games(approximator, budget):
    worth = torch.tensor([1.0, -2.0, 3.0, 0.5], dtype=torch.float64)
    game = credit.to_shapiq(lambda c: c.double() @ worth, n_players=4)
    values = approximator(n=4, random_state=0).approximate(budget=budget, game=game)
    assert [values[(i,)] for i in range(4)] == pytest.approx(worth.tolist(), abs=1e-6)


def test_an_environment_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="env=-1: environments are counted from 0"):
        credit.to_shapiq(credit.table_game(worths()), env=-1)
    game = credit.to_shapiq(credit.table_game(worths()), env=3)
    with pytest.raises(ValueError, match="env=3: the game has 3 environments"):
        game(game.grand_coalition)


def test_the_number_of_players_is_asked_for_and_checked():
    with pytest.raises(ValueError, match="n_players is missing"):
        credit.to_shapiq(lambda c: c.sum(dim=1))
    with pytest.raises(ValueError, match="n_players=3, but the game has 6 players"):
        credit.to_shapiq(credit.table_game(worths()), n_players=3)


# their games here


@pytest.mark.parametrize("normalize", [False, True])
def test_our_rules_take_a_game_of_shapiq_s_as_it_is(normalize):
    game = Glove(normalize=normalize)
    assert credit.make("shapley").values(game)[0].tolist() == pytest.approx([2 / 3, 1 / 6, 1 / 6], abs=1e-14)
    assert credit.make("nucleolus").values(game)[0].tolist() == pytest.approx([1, 0, 0], abs=1e-8)
    assert credit.make("kernelshap", budget=5).estimate(game).values.sum().item() == pytest.approx(1, abs=1e-12)


def test_a_precomputed_game_of_shapiq_s_is_looked_up():
    game = Glove()
    game.precompute()
    asked = game.asked
    assert credit.make("banzhaf").values(game)[0].tolist() == pytest.approx([3 / 4, 1 / 4, 1 / 4], abs=1e-14)
    assert game.asked == asked


def test_a_game_there_and_back_is_the_game():
    v = worths(n_envs=1)
    back = credit.as_game(credit.to_shapiq(credit.table_game(v)))
    torch.testing.assert_close(back.values(), v, rtol=0, atol=0)


# their approximators as our rules


@pytest.mark.parametrize(
    ("approximator", "arguments"),
    [
        (shapiq.KernelSHAP, {"pairing_trick": True}),
        (shapiq.SVARM, {}),
        (shapiq.UnbiasedKernelSHAP, {}),
        (shapiq.SHAPIQ, {"index": "SV", "max_order": 1}),
    ],
)
def test_a_budget_of_all_coalitions_gives_the_exact_value(approximator, arguments):
    v = worths()
    rule = credit.from_shapiq(approximator, budget=2**N, **arguments)
    torch.testing.assert_close(rule.values(credit.table_game(v)), credit.shapley_values(v), rtol=0, atol=1e-5)


@pytest.mark.parametrize("approximator", [shapiq.KernelSHAP, shapiq.SVARM, shapiq.PermutationSamplingSV, shapiq.StratifiedSamplingSV])
@pytest.mark.parametrize("budget", [16, 40, None])
def test_no_more_coalitions_are_evaluated_than_the_budget_in_all_environments_together(approximator, budget):
    game = credit.table_game(worths(n_envs=5))
    rule = credit.from_shapiq(approximator, budget=budget)
    estimate = rule.estimate(game)
    assert game.evaluations == estimate.evaluations <= rule.cost(N) == min(budget or 20 * N, 2**N - 1)
    assert estimate.standard_error.isnan().all()
    assert approximator.__name__ in estimate.method
    assert approximator.__name__ in rule.method(N)


def test_an_approximator_s_result_is_what_it_gives_by_itself():
    v = worths()
    rule = credit.from_shapiq(shapiq.KernelSHAP, budget=30, seed=3, pairing_trick=True)
    random_state = int(np.random.default_rng((3, 0, 0)).integers(2**31))
    paid = rule.values(credit.table_game(v))
    for env in range(3):
        alone = shapiq.KernelSHAP(n=N, pairing_trick=True, random_state=random_state)
        values = alone.approximate(31, lambda c, env=env: v[env].numpy()[c @ 2 ** np.arange(N)])
        assert paid[env].tolist() == pytest.approx([values[(i,)] for i in range(N)], abs=1e-12)


def draws(rule: credit.Estimator, learning_round) -> list[Tensor]:
    """What is paid in rounds (0, 0), (0, 1) and (1, 0) of the same game."""
    generator = torch.Generator().manual_seed(0)
    updates = torch.randn(2, N, 3, dtype=torch.float64, generator=generator)
    paid = []
    for episode, t in ((0, 0), (0, 1), (1, 0)):
        the_round = learning_round(updates, torch.ones(2, 3, dtype=torch.float64), t=t)
        the_round.episode = episode
        paid.append(rule.assign(the_round))
    return paid


@pytest.mark.parametrize("built", [False, True])
def test_every_round_of_every_episode_draws_anew_and_the_same_seed_draws_the_same(built, learning_round):
    def rule(seed: int) -> credit.Estimator:
        return credit.from_shapiq(shapiq.KernelSHAP(n=N, random_state=99) if built else shapiq.KernelSHAP, budget=20, seed=seed)

    first, again, other = (draws(rule(seed), learning_round) for seed in (1, 1, 2))
    assert all(a.equal(b) for a, b in zip(first, again, strict=True))
    assert not first[0].equal(first[1])
    assert not first[0].equal(first[2])
    assert not first[0].equal(other[0])


def test_an_approximator_that_is_built_already_stays_as_it_was():
    v, approximator = worths(), shapiq.SVARM(n=N, random_state=5)
    before = approximator.approximate(20, credit.to_shapiq(credit.table_game(v))).values
    approximator = shapiq.SVARM(n=N, random_state=5)
    rule = credit.from_shapiq(approximator, budget=20)
    assert rule.values(credit.table_game(v)).equal(rule.values(credit.table_game(v)))
    assert np.array_equal(approximator.approximate(20, credit.to_shapiq(credit.table_game(v))).values, before)


def test_a_single_player_gets_everything():
    assert credit.from_shapiq(shapiq.KernelSHAP, budget=10).values(lambda c: 3.0 + 2.0 * c[:, 0], 1).tolist() == [[2.0]]


def test_a_bridged_rule_pays_in_a_cooperative():
    rule = credit.from_shapiq(shapiq.KernelSHAP, budget=40, pairing_trick=True)
    made = scenario.load("digits", **{"horizon": 2, "data.validation.rows": 60})
    paid = []
    for _ in range(2):
        engine = Engine(made, credit=rule, num_envs=2)
        engine.reset([0, 1])
        result = engine.step(torch.ones(2, engine.num_agents, engine.num_lots))
        paid.append(result.credit)
        assert result.evaluations <= rule.cost(engine.num_agents)
    exact = credit.Shapley().assign(engine.round)
    assert paid[0].equal(paid[1])
    assert paid[0].dtype == exact.dtype
    assert (paid[0] - exact).norm() < exact.norm()
    torch.testing.assert_close(paid[0].sum(dim=1), result.gain, rtol=1e-3, atol=1e-5)


def test_a_bridged_rule_owes_what_every_rule_owes_and_can_be_wrapped():
    def bridged() -> credit.CreditRule:
        return credit.from_shapiq(shapiq.KernelSHAP, budget=60, pairing_trick=True)

    credit.check_rule(bridged, waive=("efficient", "symmetric", "null_player"))  # kept or not, nothing is promised
    v = worths()
    torch.testing.assert_close(credit.Normalised(bridged()).values(credit.table_game(v)).sum(dim=1), v[:, -1], rtol=0, atol=1e-10)


# what is refused


@pytest.mark.parametrize(
    ("approximator", "arguments"),
    [
        (shapiq.KernelSHAPIQ, {}),
        (shapiq.KernelSHAPIQ, {"index": "k-SII", "max_order": 2}),
        (shapiq.SVARMIQ, {}),
        (shapiq.RegressionFSII, {"max_order": 2}),
        (shapiq.SHAPIQ, {"index": "SII", "max_order": 2, "top_order": True}),
    ],
)
@pytest.mark.parametrize("built", [False, True])
def test_interactions_are_refused_before_any_evaluation(approximator, arguments, built):
    game = credit.CoalitionGame(lambda c: pytest.fail("evaluated"), 4)
    rule = credit.from_shapiq(approximator(n=4, **arguments)) if built else credit.from_shapiq(approximator, **arguments)
    with pytest.raises(ValueError, match=r"gives the interactions .* of order 2: credit needs players' values, so pass max_order=1"):
        rule.values(game)


def test_an_approximator_of_other_players_is_refused():
    rule = credit.from_shapiq(shapiq.KernelSHAP(n=5), budget=20)
    with pytest.raises(ValueError, match="KernelSHAP was built for 5 players, but there are 6: pass the class"):
        rule.values(credit.table_game(worths()))
    with pytest.raises(ValueError, match="built for 5 players"):
        rule.reset(1, 6)


@pytest.mark.parametrize(
    ("approximator", "arguments", "message"),
    [
        (shapiq.ExactComputer, {}, "must be one of shapiq's approximators, or a class of them"),
        ("KernelSHAP", {}, "must be one of shapiq's approximators"),
        (Glove(), {}, "must be one of shapiq's approximators"),
        (shapiq.SVARMIQ, {"depth": 3}, r"SVARMIQ does not take these arguments \(.*'depth'\)"),
        (shapiq.KernelSHAP, {"n": 4}, "n=4: leave it out"),
        (shapiq.KernelSHAP, {"random_state": 4}, "random_state=4: leave it out"),
        (shapiq.KernelSHAP(n=4), {"pairing_trick": True}, "KernelSHAP is built already and takes no arguments: pairing_trick"),
        (shapiq.KernelSHAP, {"budget": 0}, "budget=0"),
        (shapiq.KernelSHAP, {"seed": -1}, "seed=-1"),
    ],
)
def test_wrong_arguments_are_refused_with_a_clear_message(approximator, arguments, message):
    with pytest.raises(ValueError, match=message):
        credit.from_shapiq(approximator, **arguments)


def test_too_small_a_budget_is_refused_with_one_that_would_do():
    with pytest.raises(ValueError, match=r"budget=4 is too small .* with 6 players: pass at least 6"):
        credit.from_shapiq(shapiq.KernelSHAP, budget=4).values(credit.table_game(worths()))
    credit.from_shapiq(shapiq.KernelSHAP, budget=6).values(credit.table_game(worths()))


def test_without_shapiq_the_error_names_the_extra_and_everything_else_works(monkeypatch):
    monkeypatch.setitem(sys.modules, "shapiq", None)
    credit.estimators.bridge._game_class.cache_clear()
    try:
        with pytest.raises(ImportError, match=r"pip install 'proxycoop\[shapiq\]'"):
            credit.to_shapiq(lambda c: c.sum(dim=1), 3)
        with pytest.raises(ImportError, match=r"pip install 'proxycoop\[shapiq\]'"):
            credit.from_shapiq(shapiq.KernelSHAP, budget=20)
        assert credit.make("shapley").values(lambda c: c.double().sum(dim=1), 3)[0].tolist() == pytest.approx([1] * 3)
    finally:
        credit.estimators.bridge._game_class.cache_clear()
