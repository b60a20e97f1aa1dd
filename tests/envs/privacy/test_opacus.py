"""The accountant against that of Opacus."""

import itertools
import sys
import warnings

import pytest
import torch

from proxycoop.envs.privacy import ORDERS, epsilon, sampled_epsilon

SIGMAS, DELTAS, ROUNDS = (0.4, 1.0, 1.7, 6.0, 25.0), (1e-3, 1e-5, 1e-9), (1, 2, 16, 100, 1000)


def by_opacus(n: int, sigma: float, delta: float, rate: float) -> float:
    """ε by Opacus, step by step as it is used."""
    accountants = pytest.importorskip("opacus.accountants", reason="opacus is an extra: pip install 'proxycoop[privacy]'")
    accountant = accountants.RDPAccountant()
    for _ in range(n):
        accountant.step(noise_multiplier=sigma, sample_rate=rate)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Optimal order is the")  # of orders at the end of the list
        return float(accountant.get_epsilon(delta=delta))


def test_the_orders_are_those_of_opacus() -> None:
    accountants = pytest.importorskip("opacus.accountants", reason="opacus is an extra: pip install 'proxycoop[privacy]'")
    assert list(ORDERS) == accountants.RDPAccountant.DEFAULT_ALPHAS


@pytest.mark.parametrize(("sigma", "delta"), list(itertools.product(SIGMAS, DELTAS)))
def test_epsilon_is_that_of_opacus_where_everybody_takes_part(sigma: float, delta: float) -> None:
    found = epsilon(torch.tensor([0, *ROUNDS]), sigma, delta)
    assert found.tolist() == pytest.approx([by_opacus(n, sigma, delta, 1.0) for n in (0, *ROUNDS)], rel=1e-12)


@pytest.mark.parametrize(("sigma", "rate"), list(itertools.product((0.6, 1.0, 3.0), (0.01, 0.1, 0.5))))
def test_epsilon_of_secretly_drawn_lots_is_that_of_opacus(sigma: float, rate: float) -> None:
    pytest.importorskip("opacus", reason="opacus is an extra: pip install 'proxycoop[privacy]'")
    found = sampled_epsilon(torch.tensor([0, *ROUNDS]), sigma, 1e-5, rate)
    assert found.tolist() == pytest.approx([by_opacus(n, sigma, 1e-5, rate) for n in (0, *ROUNDS)], rel=1e-12)
    assert (found[1:] < epsilon(torch.tensor(ROUNDS), sigma, 1e-5)).all()


def test_who_is_surely_drawn_spends_as_without_drawing_and_who_never_is_spends_nothing() -> None:
    n = torch.tensor([0, 3, 16])
    assert sampled_epsilon(n, 1.2, 1e-5, 1.0).equal(epsilon(n, 1.2, 1e-5))
    assert sampled_epsilon(n, 1.2, 1e-5, 0.0).tolist() == [0.0, 0.0, 0.0]


def test_without_opacus_drawn_lots_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opacus.accountants.analysis.rdp", None)
    with pytest.raises(ImportError, match=r"Opacus, which is not installed: pip install 'proxycoop\[privacy\]'"):
        sampled_epsilon(16, 1.0, 1e-5, 0.5)


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
def test_rates_that_are_no_probabilities_are_refused(rate: float) -> None:
    with pytest.raises(ValueError, match=r"sample_rate=.*: must be a number from 0 to 1"):
        sampled_epsilon(16, 1.0, 1e-5, rate)


def test_drawing_without_noise_protects_nothing() -> None:
    pytest.importorskip("opacus", reason="opacus is an extra: pip install 'proxycoop[privacy]'")
    assert sampled_epsilon(torch.tensor([0, 1]), 0.0, 1e-5, 0.5).tolist() == [0.0, float("inf")]
