"""The aggregators against those of the package byzfl, where that is installed."""

import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from proxycoop.envs.aggregation import (
    AggregatorSettings,
    Bucketing,
    CenteredClipping,
    Clip,
    GeometricMedian,
    Krum,
    Meamed,
    Mean,
    Median,
    MinimumDiameter,
    MultiKrum,
    NearestNeighbourMixing,
    TrimmedMean,
    aggregate,
)

N, P = 11, 6
COALITIONS = [range(N), [0, 1, 3, 4, 7, 9, 10], [2, 3, 5, 6, 8]]


@pytest.fixture(scope="module")
def byzfl() -> Iterator[SimpleNamespace]:
    """Its aggregators and what comes before them, without its attacks and benchmarks, which import torchvision and seaborn."""
    spec = find_spec("byzfl")
    if spec is None:
        pytest.skip("byzfl is not installed: pip install --no-deps -r constraints/byzfl.txt")
    parts = ("utils", "utils.misc", "utils.torch_tools", "aggregators", "aggregators.aggregators", "aggregators.preaggregators")
    with pytest.MonkeyPatch.context() as patch:
        bare = ModuleType("byzfl")
        bare.__path__ = list(spec.submodule_search_locations or ())
        patch.setitem(sys.modules, "byzfl", bare)
        for part in parts:  # those imported below are forgotten afterwards
            patch.setitem(sys.modules, f"byzfl.{part}", ModuleType(part))
            del sys.modules[f"byzfl.{part}"]
        modules = [import_module(f"byzfl.aggregators.{name}") for name in ("aggregators", "preaggregators")]
        yield SimpleNamespace(**{name: one for module in modules for name, one in vars(module).items() if isinstance(one, type)})


@pytest.fixture(scope="module")
def vectors() -> torch.Tensor:
    return torch.randn(3, N, P, generator=torch.Generator().manual_seed(5), dtype=torch.float64) + 0.5


Made = Callable[[SimpleNamespace, int], Callable[[np.ndarray], np.ndarray]]
"""One of byzfl's, for a number of units."""
RULES: dict[str, tuple[Callable[[int], AggregatorSettings], Made]] = {
    "mean": (lambda m: Mean(weighted=False), lambda byzfl, m: byzfl.Average()),
    "median": (lambda m: Median(), lambda byzfl, m: byzfl.Median()),
    "trimmed_mean": (lambda m: TrimmedMean(f=2), lambda byzfl, m: byzfl.TrMean(2)),
    "meamed": (lambda m: Meamed(f=2), lambda byzfl, m: byzfl.Meamed(2)),
    "geometric_median": (lambda m: GeometricMedian(nu=0.1, iterations=3), lambda byzfl, m: byzfl.GeometricMedian(nu=0.1, T=3)),
    "long_geometric_median": (lambda m: GeometricMedian(iterations=50), lambda byzfl, m: byzfl.GeometricMedian(nu=1e-6, T=50)),
    "centered_clipping": (lambda m: CenteredClipping(radius=1.5, iterations=4), lambda byzfl, m: byzfl.CenteredClipping(L=4, tau=1.5)),
    "minimum_diameter": (lambda m: MinimumDiameter(f=2), lambda byzfl, m: byzfl.MDA(2)),
    # byzfl adds up distances to m − f − 1 neighbours, Blanchard et al. to m − f − 2: its f is one more for the same score.
    "krum": (lambda m: Krum(f=1), lambda byzfl, m: byzfl.Krum(2)),
    "multi_krum": (lambda m: MultiKrum(f=1, selected=m - 2), lambda byzfl, m: byzfl.MultiKrum(2)),
}
STEPS: dict[str, tuple[tuple[Clip | NearestNeighbourMixing | Bucketing, ...], Made]] = {
    "nothing": ((), lambda byzfl, m: lambda x: x),
    "clip": ((Clip(max_norm=1.5),), lambda byzfl, m: byzfl.Clipping(1.5)),
    "nnm": ((NearestNeighbourMixing(f=2),), lambda byzfl, m: byzfl.NNM(2)),
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("rule", RULES)
def test_aggregates_of_coalitions_are_those_of_byzfl_on_their_units(rule: str, step: str, byzfl: SimpleNamespace, vectors) -> None:
    if step == "nnm" and rule in ("krum", "multi_krum", "minimum_diameter", "meamed"):
        pytest.skip("after nnm units are often equally far apart, and byzfl breaks such ties by rounding; test_definitions has these")
    (settings_of, rule_of), (before, step_of) = RULES[rule], STEPS[step]
    for units in COALITIONS:
        m = len(units)
        settings = settings_of(m).model_copy(update={"before": before})
        present = torch.zeros(3, 1, N, dtype=torch.bool)
        present[:, :, list(units)] = True
        found = aggregate(settings, vectors, torch.ones(3, N), present, torch.rand(3, N))[:, 0]
        for e in range(3):
            expected = rule_of(byzfl, m)(step_of(byzfl, m)(vectors[e, list(units)].numpy().copy()))
            assert found[e].numpy() == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize("rule", ["mean", "median", "trimmed_mean", "geometric_median"])
def test_aggregates_after_bucketing_are_those_of_byzfl_after_the_same_dealing(
    rule: str, size: int, byzfl: SimpleNamespace, vectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = torch.rand(3, N, generator=torch.Generator().manual_seed(2))
    settings = RULES[rule][0](N).model_copy(update={"before": (Bucketing(size=size),)})
    if rule == "trimmed_mean":
        settings = TrimmedMean(f=1, before=(Bucketing(size=size),))
    for units in COALITIONS:
        m = len(units)
        if rule == "trimmed_mean" and m < 2 * size + 1:
            continue  # byzfl refuses fewer than three buckets
        present = torch.zeros(3, 1, N, dtype=torch.bool)
        present[:, :, list(units)] = True
        found = aggregate(settings, vectors, torch.ones(3, N), present, order)[:, 0]
        for e in range(3):
            dealt = order[e, list(units)].argsort().numpy()
            monkeypatch.setattr(np.random, "permutation", lambda x, dealt=dealt: x[dealt])
            buckets = byzfl.Bucketing(size)(vectors[e, list(units)].numpy())
            expected = (byzfl.TrMean(1) if rule == "trimmed_mean" else RULES[rule][1](byzfl, m))(buckets)
            assert found[e].numpy() == pytest.approx(expected, rel=1e-9, abs=1e-9)
