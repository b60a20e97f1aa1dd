"""The published facts that `benchmarks/credit/fidelity.py` reproduces, the quick ones on fewer runs."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest


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
