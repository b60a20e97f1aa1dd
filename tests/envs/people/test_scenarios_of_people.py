"""Scenarios whose principals hold different people's data: the dilemma is wide and the values bind, on several splits of the data."""

from statistics import mean

import pytest
import torch

from proxycoop import agents
from proxycoop.envs import Engine, scenario

NAMES = ["adult", "adult-mean", "compas", "german", "breast_cancer-hospitals"]
SEEDS = range(12)
each_split = pytest.mark.parametrize("split_seed", [0, pytest.param(3, marks=pytest.mark.slow)])


def blocked(engine: Engine) -> tuple[float, float]:
    """Share of the last round's updates that are inadmissible to somebody, and to their own principal."""
    verdicts = engine.history[-1].blocked_by  # (E, N, K, N)
    return float(verdicts.any(dim=-1).double().mean()), float(verdicts.diagonal(dim1=1, dim2=3).double().mean())


@each_split
@pytest.mark.parametrize("name", NAMES)
def test_the_dilemma_is_wide(name: str, split_seed: int) -> None:
    engine = Engine(scenario.load(name, **{"data.split_seed": split_seed}), None, num_envs=len(SEEDS))
    welfare = {
        one: float(agents.play(engine, agents.make(one), SEEDS)["welfare"].mean())
        for one in ("all", "random", "honest", "oracle", "planner")
    }
    assert welfare["all"] < welfare["random"] < welfare["honest"] < welfare["oracle"] < welfare["planner"]
    assert welfare["all"] < 0.25 * welfare["oracle"]  # contributing everything gives most of it away
    assert welfare["honest"] > 0


@each_split
@pytest.mark.parametrize("name", NAMES)
def test_the_values_bind_more_for_others_updates_than_for_ones_own(name: str, split_seed: int) -> None:
    shares = []
    engine = Engine(scenario.load(name, **{"data.split_seed": split_seed}), None, num_envs=len(SEEDS))
    agents.play(engine, agents.make("oracle"), SEEDS, on_round=lambda played: shares.append(blocked(played)))
    assert 0.2 < mean(anybody for anybody, _ in shares) < 0.5
    assert 0.05 < mean(own for _, own in shares) < 0.2


@each_split
@pytest.mark.parametrize("name", NAMES)
def test_corrupt_lots_harm_and_clean_lots_help(name: str, split_seed: int) -> None:
    made = scenario.load(name, **{"data.split_seed": split_seed}).unscreened(1.0)
    engine = Engine(made, None, num_envs=len(SEEDS))
    gain = {}
    for what in ("clean", "corrupt"):
        engine.reset(SEEDS)
        while engine.t < engine.horizon:
            engine.step(engine.lots.corrupt == (what == "corrupt"))
        gain[what] = float((engine.prospect.utility - engine.initial_utility).mean())
    assert gain["clean"] > 0 > gain["corrupt"]


@pytest.mark.fairness
@pytest.mark.parametrize(("name", "attribute"), [("adult", "workplace"), ("compas", "charge"), ("german", "purpose")])
def test_every_principal_holds_rows_of_its_own_site(name: str, attribute: str) -> None:
    made = scenario.load(name, **{"reward.scale": 1.0})
    engine = Engine(made, None)
    engine.reset([1])
    assert made.lots.sites is not None
    names, site = made.lots.sites.divide(engine.splits.dataset, 6)
    pool = {row.numpy().tobytes(): set[int]() for row in engine.splits.train.x}
    for row, index in zip(engine.splits.train.x, engine.splits.train_index, strict=True):
        pool[row.numpy().tobytes()].add(int(site[index]))  # rows that look alike may lie at several sites
    for i in range(6):
        assert all(i % len(names) in pool[row.numpy().tobytes()] for row in engine.lots.x[0, i].flatten(end_dim=1))


@pytest.mark.fairness
@pytest.mark.parametrize("name", ["adult", "compas", "german"])
def test_the_model_sees_neither_sex_nor_race(name: str) -> None:
    made = scenario.load(name, **{"reward.scale": 1.0})
    dataset = Engine(made, None).splits.dataset
    seen = {dataset.feature_names[i] for i in dataset.columns(made.data.columns or ())}
    assert seen
    assert not any(column.startswith(("sex_", "race_", "age_young", "age_old")) for column in seen)


@pytest.mark.fairness
def test_adult_mean_halves_the_steps_and_tolerances_of_adult() -> None:
    fixed, mean_ = scenario.load("adult"), scenario.load("adult-mean")
    assert mean_.weights == "participants"
    assert mean_.substrate.local_lr == fixed.substrate.local_lr / 2  # type: ignore[union-attr]
    for ours, theirs in zip(mean_.profiles, fixed.profiles, strict=True):
        assert ours.tolerances == {value: tolerance / 2 for value, tolerance in theirs.tolerances.items()}
    assert mean_.data == fixed.data
    assert torch.equal(*(Engine(made, None)._ground.theta for made in (fixed, mean_)))
