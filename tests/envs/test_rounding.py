"""Rounding: no observation is a quotient of rounding errors, and in double precision no number is formed in single precision."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from proxycoop import credit
from proxycoop.envs import Engine, scenario
from proxycoop.envs.engine import reference
from proxycoop.envs.metrics import episode_metrics

EPS = torch.finfo(torch.float32).eps


class Pays(credit.CreditRule):
    """A rule that pays the same in every round, whatever happens: ``(E, N)``."""

    def __init__(self, paid: list[list[float]]) -> None:
        self.paid = torch.tensor(paid, dtype=torch.float64)

    def assign(self, round: credit.Round) -> Tensor:
        return self.paid.to(round.gain.dtype)


def shares_after(rounds: int, *paid: list[float], dtype: torch.dtype = torch.float32) -> Tensor:
    """What six agents see of their share of credit, in environments that pay them like this."""
    engine = Engine(scenario.load("breast_cancer", **{"reward.scale": 1.0}), Pays(list(paid)), len(paid), dtype=dtype)
    engine.reset(range(len(paid)))
    for _ in range(rounds):
        seen = engine.step(torch.zeros(len(paid), engine.num_agents, engine.num_lots, dtype=torch.bool)).observations
    return engine.layout.agent(seen, "payout_share")


def test_shares_of_credit_that_rounding_may_bring_are_equal() -> None:
    sizes = (0.0, 1e-12, 1e-9, 1e-6)
    found = shares_after(2, *([3 * size, size, 0.0, 0.0, 0.0, -size] for size in sizes))
    torch.testing.assert_close(found, torch.full((4, 6), 1 / 6))
    found = shares_after(2, [3e-16, 1e-16, 0.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(found, torch.full((1, 6), 1 / 6))


def test_shares_of_credit_beyond_rounding_are_what_they_are() -> None:
    exact = torch.tensor([[0.75, 0.25, 0, 0, 0, 0]])
    torch.testing.assert_close(shares_after(2, [3e-3, 1e-3, 0.0, 0.0, 0.0, -1e-3]), exact)
    torch.testing.assert_close(shares_after(2, [3e-9, 1e-9, 0.0, 0.0, 0.0, -1e-9], dtype=torch.float64), exact)


def test_shares_do_not_jump_where_credit_begins_to_be_told() -> None:
    """A change of credit by rounding, 2 eps, changes no share by more than two percent, however much was credited."""
    sizes = [2.0 ** (k / 2) for k in range(-64, 0)]
    before = shares_after(1, *([size, size, 0.0, 0.0, 0.0, 0.0] for size in sizes))
    after = shares_after(1, *([size + 2 * EPS, size, 0.0, 0.0, 0.0, 0.0] for size in sizes))
    assert (after - before).abs().max() < 0.02
    assert before[:, 0].diff().min() >= 0
    assert (before[0, 0], before[-1, 0]) == (pytest.approx(1 / 6), 0.5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_direction_of_updates_that_no_parameter_feels_is_not_told(dtype: torch.dtype) -> None:
    """Updates below the rounding of the parameters: their cosine with the last step is near 0, and their norms are alike."""
    made = scenario.load("breast_cancer", **{"reward.scale": 1.0, "substrate.local_lr": 1e-3 * torch.finfo(dtype).eps})
    engine = Engine(made, "equal", 2, dtype=dtype)
    engine.reset([0, 1])
    for _ in range(2):
        seen = engine.step(torch.ones(2, engine.num_agents, engine.num_lots, dtype=torch.bool)).observations
    assert engine.layout.lot(seen, "cosine").abs().max() < 1e-3
    assert engine.layout.lot(seen, "norm").abs().max() < 1e-3


def test_harm_is_observed_in_a_unit_above_its_rounding() -> None:
    profile = {"holders": 1, "tolerances": {"missed_cancer": 0.0}}
    made = scenario.load("breast_cancer", **{"screening.harm": "measured", "reward.scale": 1.0, "profiles": [profile]})
    for dtype, least in ((torch.float32, 100 * EPS), (torch.float64, 1e-6)):
        engine = Engine(made, "equal", dtype=dtype)
        engine.reset([0])
        assert engine.profiles.yardstick.min() == pytest.approx(least)


def test_a_scale_is_not_measured_by_a_gain_of_rounding() -> None:
    made = scenario.load("breast_cancer", **{"substrate.local_lr": 1e-7})
    gain = float((reference(made)[-1] - reference(made)[0]).mean())
    assert 0 < gain < 100 * EPS
    with pytest.raises(ValueError, match=r"reward.scale: auto needs an episode of all clean lots to gain utility.* rounding"):
        Engine(made, "equal")
    paid = {"reward": "settlement", "revenue": {"kind": "level", "base": 5}}
    made = scenario.load("breast_cancer", **{"substrate.local_lr": 1e-7, "reward.scale": 1.0, "settlement": paid})
    with pytest.raises(ValueError, match=r"settlement.revenue: .* rounding"):
        Engine(made, "equal")


class _SinglePrecision(TorchDispatchMode):
    """Collects operations by which numbers that were rounded to single precision enter numbers in double precision."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        entering = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
        double = any(one.dtype == torch.float64 for one in tree_leaves(out) if isinstance(one, Tensor))
        for one in entering if double else ():
            finite = one[one.isfinite()] if one.dtype == torch.float32 else None
            if finite is not None and not torch.equal(finite, finite.round()):  # whole numbers and ∞ are exact
                self.found.add(str(func))
        return out


@contextmanager
def nothing_enters_from_single_precision() -> Iterator[None]:
    with _SinglePrecision() as watch:
        yield
    assert not watch.found


@pytest.mark.parametrize(
    ("name", "settings", "rule"),
    [
        ("breast_cancer", {}, "cgsv"),
        ("breast_cancer", {"weights": "participants", "screening.governance": "weighted"}, "peer_ranking"),
        ("breast_cancer", {"substrate": {"kind": "traversal", "batch": 100}}, "shapley"),
        ("breast_cancer", {"model": {"kind": "mlp", "hidden": [4]}, "substrate.local_steps": 2}, "in_run"),
        ("breast_cancer", {"settlement.period": 2, "settlement.reward": "settlement"}, "data_size"),
        ("breast_cancer-vertical", {}, "verfedsv"),
    ],
)
def test_in_double_precision_no_number_is_formed_in_single_precision(name: str, settings: dict[str, object], rule: str) -> None:
    made = scenario.load(name, **{**settings, "horizon": 3, "reward.scale": 30.0})
    engine = Engine(made, rule, 2, dtype=torch.float64)
    engine.reset([1, 2])
    coins = torch.Generator().manual_seed(0)
    with nothing_enters_from_single_precision():
        engine.theta = engine.theta + 0  # the lots are drawn alike in both; what follows from them is computed in double precision
        engine.prospect = engine._look()
        for _ in range(3):
            engine.step(torch.rand(2, engine.num_agents, engine.num_lots, generator=coins) < 0.6)


def test_shares_among_the_metrics_are_those_of_double_precision() -> None:
    engine = Engine(scenario.load("breast_cancer", **{"horizon": 3, "reward.scale": 30.0}), "equal", dtype=torch.float64)
    engine.reset([3])
    coins = torch.Generator().manual_seed(0)
    while engine.t < 3:
        engine.step(torch.rand(1, engine.num_agents, engine.num_lots, generator=coins) < 0.6)
    contributed = torch.stack([result.contributed for result in engine.history])[:, 0]
    admitted = sum(int(result.admitted.sum()) for result in engine.history)
    corrupt = engine.lots.corrupt[0]
    found = episode_metrics(engine)
    assert found["admitted_share"][0] == admitted / int(contributed.sum())
    assert found["clean_share"][0] == int((contributed & ~corrupt).sum()) / int(3 * (~corrupt).sum())
    assert found["corrupt_share"][0] == int((contributed & corrupt).sum()) / int(3 * corrupt.sum())
