"""The published facts that `benchmarks/credit/fidelity.py` reproduces, the quick ones on fewer runs."""

from __future__ import annotations

import math
from types import ModuleType

import numpy as np
import pytest
import torch

from proxycoop import credit
from proxycoop.envs import Engine, scenario


@pytest.fixture(scope="module")
def fidelity(benchmark_script) -> ModuleType:
    return benchmark_script("credit/fidelity")


def test_identical_clients_that_take_part_at_different_times_agree_better_under_comfedsv(fidelity: ModuleType) -> None:
    differences = fidelity.participation(n_runs=24)
    assert np.median(differences["fedsv"]) > 0.2
    assert np.median(differences["comfedsv"]) < 0.75 * np.median(differences["fedsv"])


def test_the_cabal_loses_its_stake_as_published(fidelity: ModuleType) -> None:
    assert [round(share, 4) for share in fidelity.cabal()] == [0.4877, 0.4850, 0.4816, 0.4774, 0.4723]


def test_cumulation_tends_to_the_shapley_value(fidelity: ModuleType) -> None:
    distances = fidelity.cumulation((1.0, 10.0, 1000.0), n_games=5)
    assert distances[0] > 5 * distances[1] > 25 * distances[2]


def test_what_replication_gains(fidelity: ModuleType) -> None:
    gains, alone = fidelity.replication(copies=4, n_seeds=4)
    shapley, banzhaf, loo = gains["shapley"], gains["banzhaf"], gains["loo"]
    assert 1 < shapley[0] < shapley[1] < shapley[2] < shapley[3] < alone
    assert banzhaf[0] == pytest.approx(1)
    assert banzhaf == pytest.approx([(k + 1) / 2**k for k in (1, 2, 3, 4)])  # (k + 1) copies, of which the others must be absent
    assert np.allclose(loo, 0, atol=1e-9)


def test_noisy_lots_are_found_better_by_data_shapley_than_by_leave_one_out(fidelity: ModuleType) -> None:
    found = fidelity.noisy_lots("digits-mean", n_seeds=16)
    gained = found["data_shapley"] - found["loo"]
    assert gained.mean() > 2 * gained.std(ddof=1) / 4
    assert found["data_shapley"].mean() > 0.9


def test_in_run_is_exact_on_quadratic_utilities(fidelity: ModuleType) -> None:
    assert fidelity.quadratic(20) < 1e-12


def test_likeness_of_rows_by_hand(fidelity: ModuleType) -> None:
    a, b = np.array([[1.0, 2.0, 4.0], [1.0, 1.0, 1.0]]), np.array([[2.0, 4.0, 3.0], [1.0, 2.0, 3.0]])
    # first row: centred (−4, −1, 5)/3 and (−1, 1, 0), ranks (1, 2, 3) and (1, 3, 2); the second row has no correlation
    pearson, spearman, cosine = fidelity.likeness(a, b)
    assert pearson == pytest.approx(1 / 84**0.5 * 3)
    assert spearman == pytest.approx(0.5)
    assert cosine == pytest.approx((22 / (21 * 29) ** 0.5 + 6 / 42**0.5) / 2)


def test_splitting_gains_nothing_under_shapley_and_a_share_under_equal_split(fidelity: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fidelity, "SECOND_NAMES_UNDER", ("equal", "shapley"))
    monkeypatch.setattr(fidelity, "SECOND_NAMES_IN", ("breast_cancer",))
    equal, shapley = ([cell.strip() for cell in row.strip("|").split("|")] for row in fidelity.second_names(range(4)).splitlines()[-2:])
    assert float(equal[1].split(" ± ")[0]) > 5
    assert shapley[1] == "0.0 ± 0.0"


# errors at budgets

N_AGENTS = 6
TWO, ALL = 0, 1
"""Places of the budgets 2 N = 12, and 11 N = 66, which covers all 63 coalitions."""


@pytest.fixture(scope="module")
def errors(fidelity: ModuleType) -> dict[str, tuple[float, ...]]:
    """Of three episodes of six agents, four rounds each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fidelity, "AGENTS", N_AGENTS)
        patch.setattr(fidelity, "BUDGETS", (2, 11))
        found: dict[str, tuple[float, ...]] = fidelity.errors_at_budgets("digits-mean", range(3))
    return found


def test_every_rule_with_a_budget_that_serves_the_scenario_has_an_error(errors: dict[str, tuple[float, ...]]) -> None:
    estimators = {name for name in credit.RULES if isinstance(credit.make(name), credit.Estimator)}
    vertical = {"verfedsv"}  # it needs a cooperative that holds columns
    assert vertical < estimators
    assert errors.keys() == (estimators - vertical) | {
        "fedsv",
        "comfedsv",
        "data_shapley",
        "faithful_group_shapley",
        "shapley(surrogate=False)",
    }


def test_a_budget_of_all_coalitions_leaves_no_error_against_the_value_that_a_rule_estimates(errors: dict[str, tuple[float, ...]]) -> None:
    for rule in ("shapley", "shapley(surrogate=False)", "kernelshap", "leverage", "banzhaf_msr", "stratified_svarm", "fedsv", "comfedsv"):
        assert errors[rule][ALL] < 1e-9, rule
    assert min(errors[rule][ALL] for rule in ("tmc", "svarm", "data_shapley")) > 0.01  # truncated, with replacement, among lots


def test_the_surrogate_spares_most_of_the_error_at_two_evaluations_an_agent(errors: dict[str, tuple[float, ...]]) -> None:
    assert errors["shapley"][TWO] < 0.25 * errors["shapley(surrogate=False)"][TWO]
    assert errors["fedsv"][TWO] == pytest.approx(errors["shapley"][TWO], rel=0.5)  # all but the same: it pays nothing to those who rest


def test_a_budget_below_the_least_has_no_error(errors: dict[str, tuple[float, ...]]) -> None:
    for rule in ("svarm", "complementary", "stratified_svarm", "data_shapley"):  # 24 lots
        assert math.isnan(errors[rule][TWO]), rule
        assert not math.isnan(errors[rule][ALL]), rule


def test_the_error_is_the_median_over_the_rounds_that_are_valued(errors: dict[str, tuple[float, ...]], fidelity: ModuleType) -> None:
    engine = Engine(scenario.load("digits-mean", **{"reward.scale": 1.0}), None, num_envs=3, dtype=torch.float64)
    engine.reset(range(3))
    generator = torch.Generator().manual_seed(fidelity.FIRST_SEED)
    estimate = credit.make("kernelshap", budget=2 * N_AGENTS, seed=fidelity.SCENARIOS.index("digits-mean"))
    found: list[float] = []
    for t in range(engine.horizon):
        engine.step(torch.rand(3, N_AGENTS, engine.num_lots, generator=generator) < 0.5)
        if t in (0, 4, 8, 12):
            value = credit.shapley_values(engine.round.game.values())
            found += ((estimate.assign(engine.round) - value).norm(dim=1) / value.norm(dim=1)).tolist()
    assert errors["kernelshap"][TWO] == pytest.approx(float(np.median(found)))


def test_rounds_that_are_worth_nothing_have_no_relative_error(fidelity: ModuleType) -> None:
    value = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    assert fidelity.relative_error(torch.tensor([[3.0, 5.0], [1.0, 0.0]]), value) == pytest.approx([0.2])


@pytest.mark.parametrize("name", ["breast_cancer-vertical", "giant"])
def test_scenarios_whose_lots_are_numbered_have_twelve_agents_too(fidelity: ModuleType, name: str) -> None:
    engine = Engine(fidelity.larger(name), None)
    engine.reset([0])
    assert engine.num_agents == fidelity.AGENTS == 12


def test_errors_in_the_table(fidelity: ModuleType) -> None:
    likeness = (0.5, 0.25, math.nan)
    played = {
        name: [fidelity.Fidelity(rule, name, likeness, likeness, 6, 9) for rule in ("equal", "shapley", "svarm")]
        for name in ("digits", "breast_cancer", "digits-mean")  # fixed weights, fixed weights, participants' weights
    }
    by_name = {"digits": 0.1, "breast_cancer": 0.3, "digits-mean": 2.0}
    found = [
        one
        for name, rows in played.items()
        for one in fidelity.with_errors(
            rows,
            name,
            {
                "shapley": (by_name[name], 0.00004, 0.0123, 0.1),
                "shapley(surrogate=False)": (0.5, 0.5, 0.5, 0.5),
                "svarm": (0.2 if name == "digits" else math.nan, by_name[name], 0.2, 0.2),
            },
        )
    ]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in fidelity.fidelity_table(fidelity.mean_over_scenarios(found)).splitlines()
    ]
    assert rows[0][-2:] == [f"error at 2 N / 5 N / 10 N / 20 N, {weights} weights" for weights in ("fixed", "participants'")]
    assert {len(row) for row in rows} == {11}
    by_rule = {row[0]: row[1:] for row in rows}
    assert list(by_rule)[2:] == [
        "**division**",
        "`equal`",
        "**value**",
        "`shapley`",
        "`shapley(surrogate=False)`",
        "**estimator**",
        "`svarm`",
    ]
    assert by_rule["`equal`"] == ["0.500", "0.250", "–", "0.500", "0.250", "–", "6", "9", "", ""]
    assert by_rule["`shapley`"][-4:] == ["6", "9", "0.20 / <0.0001 / 0.012 / 0.10", "2.0 / <0.0001 / 0.012 / 0.10"]
    assert by_rule["`shapley(surrogate=False)`"] == [*[""] * 8, *["0.50 / 0.50 / 0.50 / 0.50"] * 2]
    assert by_rule["`svarm`"][-2:] == ["– / 0.20 / 0.20 / 0.20", "– / 2.0 / 0.20 / 0.20"]
