"""Evaluation: every measure recomputed another way."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch

from proxycoop import agents, credit
from proxycoop.credit import Shapley, coalition_matrix, shapley_values
from proxycoop.envs import Engine, scenario
from proxycoop.envs.data.names import Names
from proxycoop.envs.data.overlap import overlap
from proxycoop.envs.screening.profiles import Profile
from proxycoop.envs.shared import shared
from proxycoop.training.evaluate import Estimate, _gini, _jain, _pearson, agent_maker, evaluate
from proxycoop.training.false_names import second_name_gains

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


def test_the_gains_by_a_second_name_are_over_the_cooperative_without_it(small, evaluation):
    """Both names of principal 0 together, with everybody's choices of the honest episode, less its return under one name."""
    honest, metrics = played(small)
    chosen = [result.contributed for result in honest.history]
    for measure, first, second in (("split_gain", [0, 1], [2, 3]), ("copy_gain", [0, 1, 2, 3], [0, 1, 2, 3])):
        offered = torch.zeros(4, 4, dtype=torch.bool)
        offered[1:3] = True
        offered[0, first], offered[3, second] = True, True
        names = Names((0, 1, 2, 0), tuple(tuple(row) for row in offered.tolist()))
        two = Engine(small, "loo", EPISODES, names=names)
        two.reset(range(3, 3 + EPISODES))
        total = sum(two.step(lots[:, [0, 1, 2, 0]] & offered).rewards[:, [0, 3]].sum(dim=1) for lots in chosen)
        gain = (total - metrics["return"][:, 0]).mean()
        assert evaluation.measures[measure].mean == pytest.approx(float(gain), abs=1e-4)


def second_name(small, rule, agent="oracle"):
    """The gains by a second name, the episode without it, and the scale of rewards."""
    engine, metrics = played(small, rule, agent)
    chosen = [result.contributed for result in engine.history]
    return second_name_gains(small, credit.make(rule), range(3, 3 + EPISODES), chosen, metrics["return"]), engine


@pytest.mark.parametrize("rule", ["in_run", "data_size"])
def test_where_credit_adds_up_over_lots_splitting_gains_nothing(small, rule):
    """In-run credit of the first order, and credit by volume, are sums over lots whoever holds them."""
    gains, engine = second_name(small, rule)
    assert float(engine.credit_so_far[:, 0].abs().mean() * engine.reward_scale) > 1
    torch.testing.assert_close(gains["split_gain"], torch.zeros(EPISODES), rtol=0, atol=2e-3)


def test_under_equal_split_a_second_name_is_one_share_more_by_its_formula(small):
    gains, engine = second_name(small, "equal")
    whole = engine.reward_scale * torch.stack([result.gain for result in engine.history]).sum(dim=0)
    torch.testing.assert_close(gains["split_gain"], whole * (2 / 4 - 1 / 3), rtol=0, atol=2e-3)
    # copies: a quarter more data, so every lot weighs 3/4 of what it did, but the first principal's are there twice
    names = Names.copied(3, 4)
    two = Engine(small, "equal", EPISODES, names=names)
    two.reset(range(3, 3 + EPISODES))
    assert two.prospect.proposals.share[0].sum(dim=1).tolist() == pytest.approx([1 / 4] * 4)
    for result in engine.history:
        two.step(names.choices(result.contributed))
    with_copies = two.reward_scale * torch.stack([result.gain for result in two.history]).sum(dim=0)
    cost = small.reward.contribution_cost * sum(result.contributed[:, 0].sum(dim=1) for result in engine.history)
    torch.testing.assert_close(gains["copy_gain"], with_copies * 2 / 4 - whole / 3 - cost, rtol=0, atol=2e-3)


def test_under_shapley_splitting_gains_what_the_game_of_four_names_says(small):
    """From the lots' worths in the episode without a second name, which takes the same steps."""
    total = torch.zeros(EPISODES)
    members = coalition_matrix(4)
    engine = Engine(small, "shapley", EPISODES)

    def add(engine: Engine) -> None:
        lots = members[:, [0, 1, 2]][:, :, None].repeat(1, 1, 4)
        lots[:, 0, 2:] = members[:, 3, None]
        worth = engine.round.lots.value(lots & engine.history[-1].admitted[:, None])  # (E, 16)
        total.add_(shapley_values(worth)[:, [0, 3]].sum(dim=1) - engine.history[-1].credit[:, 0])

    metrics = agents.play(engine, agents.make("oracle"), range(3, 3 + EPISODES), on_round=add)
    chosen = [result.contributed for result in engine.history]
    gains = second_name_gains(small, credit.Shapley(), range(3, 3 + EPISODES), chosen, metrics["return"])
    torch.testing.assert_close(gains["split_gain"], engine.reward_scale * total, rtol=0, atol=2e-3)
    assert float(total.abs().max()) > 0


def test_an_idle_seat_s_weight_is_no_gain_by_splitting(small):
    """Lots hardly interact here, so under marginal credit one's name is worth next to nothing."""
    gains, engine = second_name(small, "loo")
    assert float(gains["split_gain"].abs().mean()) < 0.1 * float(engine.reward_scale * engine.credit_so_far[:, 0].abs().mean())


def test_the_public_share_is_a_principal_s_and_counted_once(small):
    shared = small.model_copy(update={"reward": small.reward.model_copy(update={"public_share": 0.5})})
    torch.testing.assert_close(second_name(shared, "in_run")[0]["split_gain"], torch.zeros(EPISODES), rtol=0, atol=2e-3)


def test_the_second_name_has_its_principal_s_profile_and_nobody_s_is_lost(small):
    engine = Engine(small, "loo", 8, names=Names.copied(3, 4, principal=1))
    engine.reset(range(8))
    plain = Engine(small, "loo", 8)
    plain.reset(range(8))
    assert torch.equal(engine.profiles.kind, plain.profiles.kind[:, [0, 1, 2, 1]])
    assert torch.equal(engine.profiles.tolerance, plain.profiles.tolerance[:, [0, 1, 2, 1]])
    assert torch.equal(engine.lots.x, plain.lots.x[:, [0, 1, 2, 1]])
    assert torch.equal(engine.prospect.proposals.updates, plain.prospect.proposals.updates[:, [0, 1, 2, 1]])
    assert engine.reward_scale == plain.reward_scale
    assert engine.observations.isfinite().all()


def test_a_split_principal_s_lots_are_the_same_lots(small):
    names = Names.split(3, 4)
    engine, plain = Engine(small, "loo", 4, names=names), Engine(small, "loo", 4)
    engine.reset(range(4))
    plain.reset(range(4))
    for t in range(small.horizon):
        lots = torch.rand(4, 3, 4, generator=torch.Generator().manual_seed(t)) < 0.7
        two, one = engine.step(names.choices(lots)), plain.step(lots)
        assert torch.equal(two.admitted[:, 0] | two.admitted[:, 3], one.admitted[:, 0])
        assert not (two.admitted[:, 0] & two.admitted[:, 3]).any()
        torch.testing.assert_close(two.gain, one.gain, rtol=0, atol=1e-6)
    assert not engine.prospect.available[:, 0, 2:].any()
    assert engine.observations.isfinite().all()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Names.split(3, 1), "n_lots=1: one lot cannot be split"),
        (lambda: Names.copied(3, 4, principal=3), "principal=3: principals go from 0 to 2"),
        (lambda: Names((0, 1), ((True,),)), "each name needs a principal"),
        (lambda: Names((0,), ((False, False),)), "each name must offer at least one lot"),
        (lambda: Engine("breast_cancer", None, names=Names.copied(7, 4)), r"owner=.*principals go from 0 to 5"),
        (lambda: Engine("breast_cancer", None, names=Names.copied(6, 3)), "holds has 3 entries a name, but principals have 4 lots"),
        (lambda: Engine("breast_cancer-vertical", None, names=Names.copied(5, 3)), "a vertical cooperative hold columns"),
    ],
)
def test_names_that_fit_no_cooperative_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_a_second_name_that_the_rule_or_the_lots_do_not_allow_is_undefined(small):
    single = small.model_copy(update={"lots": small.lots.model_copy(update={"per_principal": 1})})
    gains, _ = second_name(single, "loo")
    assert gains["split_gain"].isnan().all()
    assert gains["copy_gain"].isfinite().all()
    unions = second_name(small, "owen(unions=[[0, 1], [2]])")[0]  # of three agents, and no more
    assert unions["split_gain"].isnan().all()
    assert unions["copy_gain"].isnan().all()


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
    assert measures["copy_gain"] == measures["split_gain"] == Estimate(None, None)
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
    assert len(evaluation.series["limit"]) == len(names)
    offered, objected = torch.zeros(2), torch.zeros(2)  # holders of the profile, and of none
    for result in engine.history:
        for e, i, k in result.contributed.nonzero().tolist():
            offered[engine.profiles.kind[e, i]] += 1
            objected[engine.profiles.kind[e, i]] += bool(result.blocked_by[e, i, k].any())
    assert [row[0] for row in evaluation.series["blocks"]] == pytest.approx((objected / offered).tolist())
    assert evaluation.series["blocks_by_value"][names.index("missed_cancer")] == pytest.approx(float(objected.sum() / offered.sum()))
    assert evaluation.series["blocks_by_value"][names.index("false_alarm")] == 0


# several splits of the data


@pytest.fixture(scope="module")
def on_three_splits(small):
    return evaluate(small, "loo", agent_maker("honest"), episodes=4, seed=3, splits=[7, 5, 6], home=[0, 1])


def on(small, split):
    return small.model_copy(update={"data": small.data.model_copy(update={"split_seed": split})})


def test_an_evaluation_on_several_splits_is_those_on_each_with_seeds_of_its_own(small, on_three_splits):
    alone = [evaluate(on(small, split), "loo", agent_maker("honest"), episodes=4, seed=3 + 4 * i) for i, split in enumerate((7, 5, 6))]
    assert on_three_splits.splits == (7, 5, 6)
    for name, estimate in alone[0].measures.items():
        if name == "credit_microseconds":
            continue
        means = [one.measures[name].mean for one in alone]
        assert on_three_splits.by_split[name] == means
        assert on_three_splits.measures[name] == Estimate.of(torch.tensor([np.nan if m is None else m for m in means], dtype=torch.float64))
        assert alone[0].by_split[name] == [estimate.mean]
    for name in ("utility", "value_loss", "credit", "clean_share"):
        expected = np.mean([one.series[name] for one in alone], axis=0)
        assert np.allclose(on_three_splits.series[name], expected)
    assert alone[0].splits == (7,)


def test_the_gap_to_home_is_welfare_there_less_welfare_here(small, on_three_splits):
    at_home = []
    for i, split in enumerate((0, 1)):
        engine = Engine(on(small, split), "loo", 4)
        at_home.append(float(agents.play(engine, agents.make("honest"), range(3 + 4 * i, 7 + 4 * i))["welfare"].mean()))
    home, here = on_three_splits.measures["home_welfare"], on_three_splits.measures["welfare"]
    assert home.mean == pytest.approx(np.mean(at_home))
    assert home.half_width == pytest.approx(Estimate.of(torch.tensor(at_home)).half_width)
    gap = on_three_splits.measures["home_gap"]
    assert gap.mean == pytest.approx(home.mean - here.mean)
    by_split = torch.tensor(on_three_splits.by_split["welfare"])
    assert gap.half_width == pytest.approx(Estimate.difference(torch.tensor(at_home), by_split).half_width)  # it covers both
    assert "home_gap" not in evaluate(small, "loo", agent_maker("honest"), episodes=2).measures


def test_overlap_is_counted_row_by_row(small, on_three_splits):
    def rows(split, *what):
        splits = shared(on(small, split), torch.float32)[0]
        return {int(row) for one in what for row in splits.index[one]}

    for i, split in enumerate((7, 5, 6)):
        judged = [
            *shared(on(small, split), torch.float32)[0].index["validation"],
            *shared(on(small, split), torch.float32)[0].index["test"],
        ]
        used = rows(0, "public", "train", "validation") | rows(1, "public", "train", "validation")
        assert on_three_splits.by_split["overlap"][i] == pytest.approx(sum(int(row) in used for row in judged) / len(judged))
    ours = shared(small, torch.float32)[0]
    assert overlap(ours, [ours]) == pytest.approx(len(ours.validation) / (len(ours.validation) + len(ours.test)))
    with pytest.raises(ValueError, match="the splits are of data sets with 569 and 1797 rows"):
        overlap(ours, [shared(scenario.load("digits"), torch.float32)[0]])


def test_indices_of_splits_are_those_of_their_rows(small):
    splits = shared(scenario.load("digits"), torch.float32)[0]
    for name, rows in (("public", splits.public), ("train", splits.train), ("validation", splits.validation), ("test", splits.test)):
        assert torch.equal(rows.y, torch.tensor(splits.dataset.labels[splits.index[name]]))


def test_without_splits_it_plays_on_all_of_the_scenario_s_own(small):
    two = small.model_copy(update={"data": small.data.model_copy(update={"split_seed": 5, "splits": 2})})
    assert evaluate(two, "loo", agent_maker("none"), episodes=2).splits == (5, 6)


def test_test_welfare_is_the_gain_on_test_rows_minus_costs(small, evaluation):
    engine, metrics = played(small)
    end = engine.test()["utility"]
    fresh = Engine(small, None, EPISODES)
    fresh.reset(range(3, 3 + EPISODES))
    welfare = engine.reward_scale * (end - fresh.test()["utility"]) - metrics["cost"].sum(dim=1)
    assert evaluation.measures["test_welfare"].mean == pytest.approx(float(welfare.mean()), abs=1e-4)
    assert evaluate(small, "loo", agent_maker("none"), episodes=2).measures["test_welfare"].mean == 0


@pytest.mark.parametrize(
    ("profile", "allowed_by"),
    [
        ({"tolerances": {"missed_cancer": 0.1}}, lambda start: 6 * 0.1),  # of one update; six rounds
        ({"relative_tolerances": {"missed_cancer": 0.1}}, lambda start: 6 * 0.1 * start),
        ({"tolerances": {"missed_cancer": 0.1}, "limits": {"missed_cancer": 0.25}}, lambda start: 0.25),
        ({"relative_limits": {"missed_cancer": 0.5}}, lambda start: 0.5 * start),
        ({"tolerances": {"missed_cancer": 0.1}, "limits": {"missed_cancer": 0.0}}, lambda start: 6 * 0.1),  # no share of nothing
    ],
)
def test_the_worst_value_is_told_as_a_share_of_what_profiles_allow(small, profile, allowed_by):
    bound = small.model_copy(update={"profiles": (Profile.model_validate({"holders": 1, **profile}),)})
    found = evaluate(bound, "loo", agent_maker("all"), episodes=3, seed=2)
    engine = Engine(bound, "loo", 3)
    engine.reset([2, 3, 4])
    before = engine.test()["value/missed_cancer"]
    agents.play(engine, agents.make("all"), [2, 3, 4])
    m = list(bound.values).index("missed_cancer")
    most = allowed_by(engine.initial_value_losses[:, m])
    change = (engine.prospect.value_losses - engine.initial_value_losses)[:, m]
    assert found.measures["worst_value"].mean == pytest.approx(float((change / most).mean()), abs=1e-5)
    test_change = engine.test()["value/missed_cancer"] - before
    assert found.measures["test_worst_value"].mean == pytest.approx(float((test_change / most).mean()), abs=1e-5)


def test_where_nobody_limits_a_value_none_is_the_worst(small):
    free = small.model_copy(update={"profiles": ()})
    found = evaluate(free, "loo", agent_maker("all"), episodes=2).measures
    assert found["worst_value"] == found["test_worst_value"] == Estimate(None, None)
    bare = free.model_copy(update={"values": {}})
    assert evaluate(bare, "loo", agent_maker("all"), episodes=2).measures["worst_value"] == Estimate(None, None)


@pytest.mark.parametrize(("name", "splits"), [("splits", []), ("splits", [3, 3]), ("home", [-1]), ("splits", "12")])
def test_splits_that_are_none_or_named_twice_are_refused(small, name, splits):
    with pytest.raises(ValueError, match=rf"{name}="):
        evaluate(small, "loo", agent_maker("all"), episodes=2, **{name: splits})


class _FollowsItsPay(agents.Agent):
    """Contributes everything in the first round, and then the lots that earned something."""

    made_for = "any"

    def choose(self, observations):
        first = self.layout.agent(observations, "time")[..., None] == 0
        return first | (self.layout.lot(observations, "credit") > 0)


@pytest.mark.parametrize("rule", ["loo", "data_size", "in_run"])
def test_proxies_see_in_an_evaluation_what_a_rule_says_of_single_lots(small, rule):
    found = evaluate(small, rule, _FollowsItsPay, episodes=EPISODES, seed=3)
    metrics = agents.play(Engine(small, rule, EPISODES), _FollowsItsPay(), range(3, 3 + EPISODES))
    assert found.measures["welfare"].mean == pytest.approx(float(metrics["welfare"].mean()))


def test_where_nothing_passes_on_several_splits_the_first_is_explained_and_the_others_are_named():
    strict = scenario.load("digits", horizon=2, profiles=[{"holders": 1, "max_norm": 1e-6}])
    first, others = evaluate(strict, "equal", agent_maker("all"), episodes=2, splits=[4, 5, 6]).notes
    assert first.startswith("split 4: ")
    assert "nothing passed in 2 of 2 episodes" in first
    assert others == "So in some episodes on split 5, 6."


def test_progress_is_told_before_each_split_and_at_the_end(small):
    told = []
    evaluate(small, "equal", agent_maker("all"), episodes=2, splits=[5, 6], home=[0], progress=lambda *words: told.append(words))
    assert told == [(0, 3, "data split 5"), (1, 3, "data split 6"), (2, 3, "data split 0 of the training"), (3, 3, "")]
