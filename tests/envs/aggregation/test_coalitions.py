"""A coalition's aggregate depends on its own units in its own environment, and on nothing that is computed beside it."""

import pytest
import torch
from torch import Tensor

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
    gram,
    mixture,
    parts,
    sums,
)

E, N, P, C = 5, 9, 40, 33
NNM, BUCKETS = NearestNeighbourMixing(f=2), Bucketing(size=2)
EXACT = [
    Mean(),
    Mean(weighted=True),
    Median(),
    Median(weighted=True, before=(Clip(max_norm=5.0),)),
    TrimmedMean(f=2),
    TrimmedMean(f=2, weighted=True),
    Meamed(f=2),
    Krum(f=2, before=(NNM,)),
    MultiKrum(f=2),
    GeometricMedian(weighted=True),
    CenteredClipping(radius=5.0, iterations=3, before=(BUCKETS,)),
    MinimumDiameter(f=3, before=(Clip(max_norm=6.0), NNM)),
]
CLOSE = [Median(before=(NNM,)), TrimmedMean(f=1, weighted=True, before=(BUCKETS,)), Meamed(f=1, before=(NNM,))]
Units = tuple[Tensor, Tensor, Tensor, Tensor]


def named(settings: AggregatorSettings) -> str:
    return "_after_".join([settings.kind, *(step.kind for step in settings.before)]) + "_weighted" * getattr(settings, "weighted", False)


@pytest.fixture(scope="module")
def units() -> Units:
    generator = torch.Generator().manual_seed(11)
    vectors = torch.randn(E, N, P, generator=generator)
    weight = torch.rand(E, N, generator=generator)
    order = torch.rand(E, N, generator=generator, dtype=torch.float64)
    present = torch.rand(E, C, N, generator=generator) > 0.4
    present[:, 0], present[:, 1] = False, True
    return vectors, weight, present, order


@pytest.mark.parametrize("settings", EXACT, ids=named)
def test_neither_other_coalitions_nor_other_environments_nor_absent_units_move_a_bit(settings: AggregatorSettings, units: Units) -> None:
    vectors, weight, present, order = units
    together = aggregate(settings, vectors, weight, present, order)
    for c in (0, 1, 7, C - 1):
        assert torch.equal(aggregate(settings, vectors, weight, present[:, c : c + 1], order)[:, 0], together[:, c])
    for e in range(E):
        alone = aggregate(settings, *(part[e : e + 1] for part in (vectors, weight, present, order)))
        assert torch.equal(alone[0], together[e])
        for c in (1, 5, 20):
            some = present[e, c]
            inside = [part[e : e + 1, some] for part in (vectors, weight, order)]
            all_of_it = torch.ones(1, 1, int(some.sum()), dtype=torch.bool)
            assert torch.equal(aggregate(settings, inside[0], inside[1], all_of_it, inside[2])[0, 0], together[e, c])


@pytest.mark.parametrize("settings", CLOSE, ids=named)
def test_after_mixing_rules_by_coordinates_depend_on_what_is_beside_them_by_rounding_at_most(
    settings: AggregatorSettings, units: Units
) -> None:
    vectors, weight, present, order = units
    together = aggregate(settings, vectors, weight, present, order)
    for e in range(E):
        for c in range(C):
            some = present[e, c]
            inside = [part[e : e + 1, some] for part in (vectors, weight, order)]
            if some.any():
                all_of_it = torch.ones(1, 1, int(some.sum()), dtype=torch.bool)
                alone = aggregate(settings, inside[0], inside[1], all_of_it, inside[2])[0, 0]
                torch.testing.assert_close(alone, together[e, c], rtol=1e-5, atol=1e-6)
            else:
                assert (together[e, c] == 0).all()


@pytest.mark.parametrize("settings", [*EXACT, *CLOSE], ids=named)
def test_absent_units_may_hold_anything(settings: AggregatorSettings, units: Units) -> None:
    vectors, weight, present, order = units
    some = present[:, 3:4]
    zeros, other, broken = (torch.where(some[:, 0, :, None], vectors, junk) for junk in (0.0, 1e4, torch.nan))
    expected = aggregate(settings, zeros, weight, some, order)
    assert torch.isfinite(expected).all()
    for junk in (other, broken):
        assert torch.equal(aggregate(settings, junk, weight, some, order), expected)
        assert torch.equal(parts(settings, junk, weight, some[:, 0], order), parts(settings, zeros, weight, some[:, 0], order))


@pytest.mark.parametrize("settings", [*EXACT, *CLOSE], ids=named)
def test_memory_is_bounded_by_taking_coalitions_in_turn(
    settings: AggregatorSettings, units: Units, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = aggregate(settings, *units)
    monkeypatch.setattr(sums, "_CACHE", 1)
    monkeypatch.setattr(sums, "CHUNK", 1)
    torch.testing.assert_close(aggregate(settings, *units), together, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("settings", [*EXACT, *CLOSE], ids=named)
def test_no_coalitions_and_coalitions_of_nobody(settings: AggregatorSettings, units: Units) -> None:
    vectors, weight, present, order = units
    assert aggregate(settings, vectors, weight, present[:, :0], order).shape == (E, 0, P)
    nobody = torch.zeros(E, 2, N, dtype=torch.bool)
    assert torch.equal(aggregate(settings, vectors, weight, nobody, order), torch.zeros(E, 2, P))
    assert torch.equal(parts(settings, vectors, weight, nobody[:, 0], order), torch.zeros(E, N, P))


@pytest.mark.parametrize("settings", [*EXACT, *CLOSE], ids=named)
def test_a_unit_that_is_alone_is_the_aggregate(settings: AggregatorSettings, units: Units) -> None:
    vectors, weight, _, order = units
    alone = torch.eye(N, dtype=torch.bool).expand(E, N, N)
    if settings.kind != "centered_clipping" and not any(step.kind == "clip" for step in settings.before):
        torch.testing.assert_close(aggregate(settings, vectors, weight, alone, order), vectors)


def test_inner_products_are_symmetric_and_those_of_twins_equal_to_the_bit() -> None:
    vectors = torch.randn(3, 6, 1001, generator=torch.Generator().manual_seed(1))
    vectors[:, 4] = vectors[:, 1]
    found = gram(vectors)
    assert found.dtype == torch.float64
    assert torch.equal(found, found.transpose(1, 2))
    assert torch.equal(found[:, 4], found[:, 1])
    torch.testing.assert_close(found, vectors.double() @ vectors.double().transpose(1, 2))


def test_nearby_units_far_from_zero_are_told_apart() -> None:
    # All are 1000 long, and the honest ones differ by a ten-thousandth of that: what float32 still holds must not cancel.
    generator = torch.Generator().manual_seed(2)
    vectors = 1000 + 0.1 * torch.randn(1, 8, 30, generator=generator)
    vectors[0, 7] += 0.5
    everyone = torch.ones(1, 1, 8, dtype=torch.bool)
    ones, order = torch.ones(1, 8), torch.rand(1, 8)
    exact = torch.cdist(vectors.double(), vectors.double()).square()[0]
    scores = exact.sort(dim=1).values[:, 1:6].sum(dim=1)
    assert mixture(Krum(f=1), gram(vectors), ones, everyone, order)[0, 0].argmax() == scores.argmin()
    assert mixture(MinimumDiameter(f=1), gram(vectors), ones, everyone, order)[0, 0, 7] == 0


def test_a_rule_by_coordinates_is_no_mixture(units: Units) -> None:
    vectors, weight, present, order = units
    with pytest.raises(
        ValueError,
        match="aggregator 'median' is no mixture of updates: use aggregate, or one of centered_clipping, geometric_median, krum, mean, "
        "minimum_diameter, multi_krum",
    ):
        mixture(Median(), gram(vectors), weight, present, order)
