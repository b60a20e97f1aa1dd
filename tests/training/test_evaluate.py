"""Evaluation: every measure recomputed another way."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch

from proxycoop import agents
from proxycoop.credit import Shapley
from proxycoop.envs import Engine, scenario
from proxycoop.training.evaluate import Estimate, _gini, _jain, _pearson, agent_maker, evaluate

EPISODES = 6


@pytest.fixture(scope="module")
def evaluation(small):
    return evaluate(small, "loo", agent_maker("honest"), episodes=EPISODES, seed=3)


def played(small, rule="loo", agent="honest"):
    engine = Engine(small, rule, EPISODES)
    return engine, agents.play(engine, agents.make(agent), range(3, 3 + EPISODES))


def test_an_estimate_is_student_s_interval():
    sample = torch.tensor([1.0, 2.0, 4.0, float("nan"), 9.0])
    estimate = Estimate.of(sample)
    kept = np.array([1.0, 2.0, 4.0, 9.0])
    low, high = scipy.stats.t.interval(0.95, 3, loc=kept.mean(), scale=scipy.stats.sem(kept))
    assert estimate.mean == pytest.approx(4.0)
    assert estimate.half_width == pytest.approx((high - low) / 2)
    assert Estimate.of(torch.tensor([float("nan")])) == Estimate(None, None)
    assert Estimate.of(torch.tensor([2.0])) == Estimate(2.0, None)


def test_measures_are_means_over_episodes(small, evaluation):
    engine, metrics = played(small)
    for name in ("welfare", "gain", "clean_share", "corrupt_share", "violations", "imbalance"):
        assert evaluation.measures[name].mean == pytest.approx(float(metrics[name].mean()), abs=1e-6)
    assert evaluation.measures["return"].mean == pytest.approx(float(metrics["return"].mean()), abs=1e-6)
    assert evaluation.measures["test_accuracy"].mean == pytest.approx(float(engine.test()["accuracy"].mean()))


def test_welfare_is_gain_in_reward_units_minus_costs(small):
    engine, metrics = played(small)
    expected = engine.reward_scale * (engine.prospect.utility - engine.initial_utility) - metrics["cost"].sum(dim=1)
    assert torch.allclose(metrics["welfare"], expected)


def test_correlation_with_shapley_is_one_under_shapley_and_undefined_under_equal(small, evaluation):
    assert evaluate(small, "shapley", agent_maker("all"), episodes=4).measures["pearson_shapley"].mean == pytest.approx(1.0)
    assert evaluate(small, "equal", agent_maker("all"), episodes=4).measures["pearson_shapley"].mean is None
    exact = torch.zeros(EPISODES, 3)
    engine = Engine(small, "loo", EPISODES)
    agents.play(engine, agents.make("honest"), range(3, 9), on_round=lambda engine: exact.add_(Shapley().values(engine.round.game)))
    expected = np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(engine.credit_so_far.numpy(), exact.numpy(), strict=True)])
    assert evaluation.measures["pearson_shapley"].mean == pytest.approx(expected, abs=1e-5)


def test_fairness_measures_on_known_distributions():
    x = torch.tensor([[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 8.0], [-3.0, 0.0, 2.0, 2.0], [0.0, -1.0, 0.0, 0.0]])
    assert _jain(x).tolist() == pytest.approx([1.0, 0.25, 0.5, 1.0])
    assert _gini(x).tolist() == pytest.approx([0.0, 0.75, 0.5, 0.0])
    a = torch.tensor([[1.0, 2.0, 3.0], [1.0, 1.0, 1.0], [1.0, 2.0, 3.0]])
    b = torch.tensor([[2.0, 4.0, 6.0], [1.0, 2.0, 3.0], [3.0, 2.0, 1.0]])
    assert _pearson(a, b)[[0, 2]].tolist() == pytest.approx([1.0, -1.0])
    assert _pearson(a, b)[1].isnan()


def test_copying_pays_what_it_adds_to_the_copier_s_return(small, evaluation):
    seeds = range(3, 3 + EPISODES)
    engine = Engine(small, "loo", EPISODES)
    copying = agents.play(engine, agents.make("honest"), seeds, copies={1: 0})["return"]
    assert (engine.lots.x[:, 1] == engine.lots.x[:, 0]).all()
    idle = agents.play(engine, agents.Seats(agents.make("honest"), {1: agents.make("none")}), seeds)["return"]
    assert evaluation.measures["copy_gain"].mean == pytest.approx(float((copying - idle)[:, 1].mean()), abs=1e-5)
    assert evaluation.measures["sybil_gain"].mean == pytest.approx(float((copying - idle)[:, :2].sum(dim=1).mean()), abs=1e-5)


def test_equal_split_pays_the_copier_nothing_for_itself_but_its_share(small):
    """Under equal split a copy earns a third of what it adds to the whole, and bears its cost alone."""
    measures = evaluate(small, "equal", agent_maker("oracle"), episodes=4).measures
    assert measures["copy_gain"].mean < measures["sybil_gain"].mean


def test_without_screening_nobody_is_screened(small, evaluation):
    bare = small.model_copy(update={"screening": small.screening.model_copy(update={"governance": "none"})})
    engine = Engine(bare, "loo", EPISODES)
    engine.reward_scale = Engine(small, None).reward_scale
    agents.play(engine, agents.make("honest"), range(3, 3 + EPISODES))
    assert evaluation.measures["unscreened_utility"].mean == pytest.approx(float(engine.test()["utility"].mean()), abs=1e-6)


def test_realised_violations_count_rounds_in_which_a_value_truly_got_worse():
    strict = [{"holders": 1, "tolerances": {"missed_cancer": 0.0, "false_alarm": 0.0}}]
    loose = scenario.load("breast_cancer", principals=3, horizon=6, profiles=strict, **{"screening.governance": "none"})
    engine = Engine(loose, None, 4)
    agents.play(engine, agents.make("all"), range(4))
    losses = torch.stack([engine.initial_value_losses, *(result.value_losses for result in engine.history)])
    count = 0
    for e in range(4):
        tolerance = engine.profiles.tolerance[e].amin(dim=0)
        count += sum(bool((losses[t + 1, e] - losses[t, e] > tolerance).any()) for t in range(6))
    measured = evaluate(loose, "equal", agent_maker("all"), episodes=4).measures["realised_violations"].mean
    assert measured == pytest.approx(count / 24)
    assert count > 0


def test_series_run_over_the_rounds(small, evaluation):
    engine, metrics = played(small)
    series = evaluation.series
    assert len(series["utility"]) == len(series["value_loss"]) == 7
    assert len(series["credit"]) == len(series["clean_share"]) == 6
    assert series["utility"][0] == pytest.approx(float(engine.initial_utility.mean()))
    assert series["utility"][-1] == pytest.approx(float(metrics["utility"].mean()))
    assert sum(series["credit"][-1]) == pytest.approx(float(engine.reward_scale * engine.credit_so_far.sum(dim=1).mean()), rel=1e-5)


def test_the_same_evaluation_twice_is_the_same_but_for_the_stopwatch(small, evaluation):
    again = evaluate(small, "loo", agent_maker("honest"), episodes=EPISODES, seed=3)
    timed = "credit_microseconds"
    assert {k: v for k, v in again.measures.items() if k != timed} == {k: v for k, v in evaluation.measures.items() if k != timed}
    assert again.series == evaluation.series
    assert again.measures[timed].mean > 0


def test_more_than_twelve_agents_have_no_exact_shapley_to_compare_with(small):
    many = small.model_copy(update={"principals": 14, "lots": small.lots.model_copy(update={"rows": 4})})
    assert evaluate(many, "loo", agent_maker("all"), episodes=2).measures["pearson_shapley"].mean is None


def test_what_copying_earns_is_undefined_where_lots_are_columns():
    vertical = scenario.load("breast_cancer-vertical", horizon=2)
    measures = evaluate(vertical, "loo", agent_maker("oracle"), episodes=2).measures
    assert measures["copy_gain"] == measures["sybil_gain"] == Estimate(None, None)
    assert measures["welfare"].mean > 0


def test_one_episode_is_refused(small):
    with pytest.raises(ValueError, match="episodes=1: at least 2"):
        evaluate(small, "loo", agent_maker("all"), episodes=1)


def test_series_on_screening_are_recomputed_from_the_rounds(small, evaluation):
    engine, _ = played(small)
    free = Engine(small.unscreened(engine.reward_scale), "loo", EPISODES)
    agents.play(free, agents.make("honest"), range(3, 3 + EPISODES))
    expected = torch.stack([free.initial_value_losses, *(result.value_losses for result in free.history)]).mean(dim=1)
    assert torch.allclose(torch.tensor(evaluation.series["unscreened_value_loss"]), expected, atol=1e-6)
    names = list(small.values)
    assert [row[names.index("missed_cancer")] for row in evaluation.series["tolerance"]] == pytest.approx([0.1] * small.horizon)
    assert {row[names.index("false_alarm")] for row in evaluation.series["tolerance"]} == {None}, "nobody has one"
    offered, objected = torch.zeros(2), torch.zeros(2)  # holders of the profile, and of none
    for result in engine.history:
        for e, i, k in result.contributed.nonzero().tolist():
            offered[engine.profiles.kind[e, i]] += 1
            objected[engine.profiles.kind[e, i]] += bool(result.blocked_by[e, i, k].any())
    assert [row[0] for row in evaluation.series["blocks"]] == pytest.approx((objected / offered).tolist())
    assert evaluation.series["blocks_by_value"][names.index("missed_cancer")] == pytest.approx(float(objected.sum() / offered.sum()))
    assert evaluation.series["blocks_by_value"][names.index("false_alarm")] == 0
