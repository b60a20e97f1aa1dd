"""Every aggregator and every step before it against its definition, written with loops, for every coalition."""

from itertools import combinations, product

import numpy as np
import pytest
import torch
from numpy.linalg import norm

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
    mixture,
    parts,
)
from proxycoop.envs.aggregation.sums import gram

ALL = [
    Mean(),
    Mean(weighted=True),
    Median(),
    Median(weighted=True),
    TrimmedMean(f=2),
    TrimmedMean(f=2, weighted=True),
    Meamed(f=2),
    Krum(f=1),
    MultiKrum(f=1),
    MultiKrum(f=2, selected=2),
    GeometricMedian(nu=0.1, iterations=3),
    GeometricMedian(weighted=True),
    CenteredClipping(radius=1.5, iterations=3),
    CenteredClipping(radius=2.0, weighted=True),
    MinimumDiameter(f=2),
]
STEPS = [
    (Clip(max_norm=2.0),),
    (NearestNeighbourMixing(f=2),),
    (Bucketing(size=2),),
    (Clip(max_norm=2.5), Bucketing(size=3), NearestNeighbourMixing(f=1)),
    (NearestNeighbourMixing(f=1), NearestNeighbourMixing(f=2), Bucketing()),
]
EVERY = [*ALL, *(one.model_copy(update={"before": before}) for one in ALL for before in STEPS)]
N = 7


def named(settings: AggregatorSettings) -> str:
    weighted = "weighted_" if getattr(settings, "weighted", False) else ""
    return "_after_".join([weighted + settings.kind, *(step.kind for step in reversed(settings.before))])


def f_of(f: int, m: int) -> int:
    return min(f, (m - 1) // 2)


def squared(a: np.ndarray, b: np.ndarray) -> float:
    """A squared distance to nine digits: mixtures are often equally far apart, and ties go by the units' order."""
    exact = float(sum((a - b) ** 2))
    return float(f"{exact:.8e}") if exact > 1e-14 else 0.0


def nearest_first(x: np.ndarray, i: int) -> list[int]:
    return sorted(range(len(x)), key=lambda j: (j != i, squared(x[i], x[j]), j))


def before(step, x: np.ndarray, w: np.ndarray, order: np.ndarray, weighted: bool) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(step, Clip):
        return np.stack([one * min(1.0, step.max_norm / norm(one)) for one in x]), w
    if isinstance(step, NearestNeighbourMixing):
        k = len(x) - f_of(step.f, len(x))
        return np.stack([x[sorted(nearest_first(x, i)[:k])].mean(axis=0) for i in range(len(x))]), w
    dealt = np.argsort(order)
    buckets = [dealt[first : first + step.size] for first in range(0, len(x), step.size)]
    means = np.stack([sum(w[i] * x[i] for i in bucket) / sum(w[i] for i in bucket) for bucket in buckets])
    return means, np.array([w[bucket].sum() if weighted else 1.0 for bucket in buckets])


def weighted_median(values: np.ndarray, w: np.ndarray) -> float:
    low = min(v for v in values if w[values <= v].sum() >= w.sum() / 2 - 1e-6)
    high = min((v for v in values if w[values <= v].sum() > w.sum() / 2 + 1e-6), default=low)
    return (low + high) / 2


def krum_order(x: np.ndarray, f: int) -> list[int]:
    k = max(1, len(x) - f - 2)
    scores = [sum(sorted(squared(x[i], x[j]) for j in range(len(x)) if j != i)[:k]) for i in range(len(x))]
    return sorted(range(len(x)), key=lambda i: (scores[i], i))


def smallest_diameter(x: np.ndarray, k: int) -> tuple[int, ...]:
    def diameter(subset: tuple[int, ...]) -> float:
        return max((squared(x[i], x[j]) for i, j in combinations(subset, 2)), default=0.0)

    return min(combinations(range(len(x)), k), key=lambda subset: (diameter(subset), subset))


def by_definition(settings: AggregatorSettings, x: np.ndarray, w: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The aggregate of some units."""
    weighted = getattr(settings, "weighted", False)
    if not weighted:
        w = np.ones(len(x))
    if len(x) == 0:
        return np.zeros(x.shape[1])
    for step in settings.before:
        x, w = before(step, x, w, order, weighted)
    m = len(x)
    share = w / w.sum()
    f = f_of(getattr(settings, "f", 0), m)
    match settings:
        case Mean():
            return share @ x
        case Median():
            return np.array([weighted_median(column, w) for column in x.T])
        case TrimmedMean():
            kept = [np.argsort(column, kind="stable")[f : m - f] for column in x.T]
            return np.array([np.average(column[some], weights=w[some]) for column, some in zip(x.T, kept, strict=True)])
        case Meamed():
            return np.array([np.mean(sorted(column, key=lambda v: (round(abs(v - np.median(column)), 9), v))[: m - f]) for column in x.T])
        case Krum():
            return x[krum_order(x, f)[0]]
        case MultiKrum():
            return x[krum_order(x, f)[: min(settings.selected or m, m - f)]].mean(axis=0)
        case GeometricMedian():
            z = np.zeros(x.shape[1])
            for _ in range(settings.iterations):
                beta = np.array([share[i] / max(settings.nu, norm(z - x[i])) for i in range(m)])
                z = beta @ x / beta.sum()
            return z
        case CenteredClipping():
            z = np.zeros(x.shape[1])
            for _ in range(settings.iterations):
                z = z + sum(share[i] * (x[i] - z) * min(1.0, settings.radius / max(norm(x[i] - z), 1e-300)) for i in range(m))
            return z
        case MinimumDiameter():
            return x[list(smallest_diameter(x, m - f))].mean(axis=0)


@pytest.fixture(scope="module")
def units() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two environments of seven units with twins among them, all 128 coalitions, weights and priorities."""
    generator = torch.Generator().manual_seed(1)
    vectors = torch.randn(2, N, 5, generator=generator, dtype=torch.float64)
    vectors[1, 4] = vectors[1, 2]
    vectors[0, 5] *= 3
    weight = torch.randint(1, 5, (2, N), generator=generator) / 20
    order = torch.rand(2, N, generator=generator, dtype=torch.float64)
    present = torch.tensor(list(product([False, True], repeat=N))).expand(2, -1, -1)
    return vectors, weight, present, order


@pytest.mark.parametrize("settings", EVERY, ids=named)
def test_every_coalition_has_the_aggregate_of_the_definition(settings: AggregatorSettings, units) -> None:
    vectors, weight, present, order = units
    found = aggregate(settings, vectors, weight, present, order)
    for e in range(2):
        for c in range(present.shape[1]):
            some = present[e, c]
            expected = by_definition(settings, *(part[e, some].double().numpy() for part in (vectors, weight, order)))
            assert found[e, c].numpy() == pytest.approx(expected, rel=1e-8, abs=1e-8), present[e, c]


@pytest.mark.parametrize("settings", EVERY, ids=named)
def test_parts_sum_to_the_aggregate_and_absent_units_have_none(settings: AggregatorSettings, units) -> None:
    vectors, weight, present, order = units
    for c in (0, 4, 37, 99, 127):
        found = parts(settings, vectors, weight, present[:, c], order)
        whole = aggregate(settings, vectors, weight, present[:, c : c + 1], order)[:, 0]
        torch.testing.assert_close(found.sum(dim=1), whole, rtol=1e-12, atol=1e-12)
        assert (found[~present[:, c]] == 0).all()


@pytest.mark.parametrize("settings", [one for one in EVERY if one.mixing], ids=named)
def test_coefficients_of_a_mixture_are_not_negative_and_sum_to_at_most_one(settings: AggregatorSettings, units) -> None:
    vectors, weight, present, order = units
    found = mixture(settings, gram(vectors), weight, present, order)
    assert (found >= 0).all()
    assert (found[~present] == 0).all()
    sums = found.sum(dim=-1)
    assert (sums <= 1 + 1e-12).all()
    if settings.kind != "centered_clipping" and not any(step.kind == "clip" for step in settings.before):
        torch.testing.assert_close(sums, present.any(dim=-1).double())
    torch.testing.assert_close(found @ vectors, aggregate(settings, vectors, weight, present, order))


@pytest.mark.parametrize("settings", [one for one in EVERY if not one.mixing and not one.before], ids=named)
def test_parts_of_a_rule_by_coordinates_are_the_units_coordinates_times_shares_that_sum_to_one(settings: AggregatorSettings, units) -> None:
    vectors, weight, present, order = units
    share = parts(settings, vectors, weight, present[:, 120], order) / vectors
    assert (share >= 0).all()
    torch.testing.assert_close(share.sum(dim=1), torch.ones(2, 5, dtype=torch.float64))


def test_median_belongs_to_the_middle_units() -> None:
    x = torch.tensor([[[3.0], [1.0], [2.0], [10.0]]], dtype=torch.float64)
    ones, order = torch.ones(1, 4), torch.rand(1, 4)
    odd = torch.tensor([[True, True, True, False]])
    assert parts(Median(), x, ones, odd, order).flatten().tolist() == [0, 0, 2, 0]
    assert parts(Median(), x, ones, torch.ones(1, 4, dtype=torch.bool), order).flatten().tolist() == [1.5, 0, 1, 0]


def test_trimmed_mean_counts_units_and_then_weighs_what_is_left() -> None:
    x = torch.tensor([[[0.0], [1.0], [2.0], [100.0]]], dtype=torch.float64)
    weight, everyone = torch.tensor([[1.0, 3.0, 1.0, 50.0]]), torch.ones(1, 1, 4, dtype=torch.bool)
    assert aggregate(TrimmedMean(f=1, weighted=True), x, weight, everyone, torch.rand(1, 4)).item() == (3 * 1 + 1 * 2) / 4


def test_weighted_median_has_half_of_the_weight_on_each_side() -> None:
    x = torch.tensor([[[0.0], [1.0], [2.0], [3.0]]], dtype=torch.float64)
    everyone, order = torch.ones(1, 1, 4, dtype=torch.bool), torch.rand(1, 4)
    for weight, median in (([1, 1, 1, 1], 1.5), ([5, 1, 1, 1], 0.0), ([1, 1, 1, 3], 2.5), ([0.1, 0.2, 0.3, 0.1], 2.0), ([0, 1, 0, 0], 1.0)):
        assert aggregate(Median(weighted=True), x, torch.tensor([weight]), everyone, order).item() == median


def test_a_unit_of_no_weight_takes_no_part_where_weights_count() -> None:
    x = torch.tensor([[[0.0], [1.0], [5.0], [9.0], [7.0]]], dtype=torch.float64)
    weight, everyone = torch.tensor([[0.0, 1.0, 1.0, 0.0, 1.0]]), torch.ones(1, 1, 5, dtype=torch.bool)
    for settings in (Median(weighted=True), TrimmedMean(f=1, weighted=True)):
        assert aggregate(settings, x, weight, everyone, torch.rand(1, 5)).item() == 5
    nobody = torch.zeros(1, 5)
    for settings in (Mean(weighted=True), Median(weighted=True), GeometricMedian(weighted=True), TrimmedMean(f=1, weighted=True)):
        assert aggregate(settings, x, nobody, everyone, torch.rand(1, 5)).item() == 0


def test_krum_of_twins_takes_the_first_and_multi_krum_the_first_ones() -> None:
    x = torch.tensor([[[9.0], [1.0], [1.0], [1.0], [-4.0]]], dtype=torch.float64)
    everyone, order = torch.ones(1, 1, 5, dtype=torch.bool), torch.rand(1, 5)
    ones = torch.ones(1, 5)
    assert mixture(Krum(f=1), gram(x), ones, everyone, order)[0, 0].tolist() == [0, 1, 0, 0, 0]
    assert mixture(MultiKrum(f=1, selected=2), gram(x), ones, everyone, order)[0, 0].tolist() == [0, 0.5, 0.5, 0, 0]


def test_geometric_median_of_a_triangle_is_the_point_that_sees_its_sides_at_120_degrees() -> None:
    x = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [0.5, 3**0.5 / 2]]], dtype=torch.float64)
    found = aggregate(GeometricMedian(iterations=200), x, torch.ones(1, 3), torch.ones(1, 1, 3, dtype=torch.bool), torch.rand(1, 3))
    torch.testing.assert_close(found[0, 0], x[0].mean(dim=0))  # of an equilateral one it is the centre


@pytest.mark.parametrize("f", [1, 3, 4])
def test_the_first_of_many_sets_with_the_least_diameter_is_found_as_by_trying_all(f: int) -> None:
    vectors = torch.randint(0, 4, (12, 9, 2), generator=torch.Generator().manual_seed(f)).double()  # most distances occur several times
    everyone = torch.ones(12, 1, 9, dtype=torch.bool)
    found = mixture(MinimumDiameter(f=f), gram(vectors), torch.ones(12, 9), everyone, torch.rand(12, 9))[:, 0]
    for e in range(12):
        assert tuple(found[e].nonzero().flatten().tolist()) == smallest_diameter(vectors[e].numpy(), 9 - f)


@pytest.mark.parametrize("settings", EVERY, ids=named)
def test_a_round_of_a_single_unit(settings: AggregatorSettings) -> None:
    vectors = torch.tensor([[[0.5, -0.5]]], dtype=torch.float64)
    present = torch.tensor([[[True], [False]]])
    found = aggregate(settings, vectors, torch.ones(1, 1), present, torch.rand(1, 1))
    torch.testing.assert_close(found, torch.cat([vectors, 0 * vectors], dim=1))
