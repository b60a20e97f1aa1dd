"""What the aggregators promise: outliers are withstood, and mixtures of admissible updates are admissible."""

import pytest
import torch
from torch import Tensor
from torch.linalg import vector_norm

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
)

E, N, P, F = 4, 13, 5, 3
NNM = (NearestNeighbourMixing(f=F),)
IN_BOX = [
    Median(),
    TrimmedMean(f=F),
    TrimmedMean(f=F, weighted=True),
    Krum(f=F),
    MultiKrum(f=F),
    MinimumDiameter(f=F),
    TrimmedMean(f=F, before=(Bucketing(size=2),)),
    Median(before=(Bucketing(size=2),)),
    Krum(f=F, before=(NearestNeighbourMixing(f=F),)),
]
"""Rules whose aggregate stays between the honest units' coordinates, where outliers are far away."""
EVERY = [Mean(), *IN_BOX, Meamed(f=F), GeometricMedian(iterations=100), CenteredClipping(radius=2.0, iterations=3)]


def named(settings: AggregatorSettings) -> str:
    return "_after_".join([settings.kind, *(step.kind for step in settings.before)]) + "_weighted" * getattr(settings, "weighted", False)


@pytest.fixture(scope="module")
def honest() -> Tensor:
    return torch.randn(E, N, P, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def attacked(honest: Tensor, how: str) -> Tensor:
    """The last F units are outliers: in one place, in opposite ones, or anywhere."""
    vectors, far = honest.clone(), torch.randn(E, F, P, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    if how == "together":
        far[:] = 1.0
    elif how == "opposite":
        far = torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64)[:, None].expand(E, F, P)
    vectors[:, -F:] = 1e6 * far
    return vectors


def everyone(vectors: Tensor) -> Tensor:
    return torch.ones(len(vectors), 1, vectors.shape[1], dtype=torch.bool, device=vectors.device)


def full(settings: AggregatorSettings, vectors: Tensor, order: Tensor | None = None) -> Tensor:
    """The aggregate of all units, ``(E, P)``, where outliers claim a hundred times as many rows."""
    weight = torch.ones(vectors.shape[:2])
    weight[:, -F:] = 100
    order = torch.rand(E, vectors.shape[1], generator=torch.Generator().manual_seed(6)) if order is None else order
    return aggregate(settings, vectors, weight, everyone(vectors), order)[:, 0]


@pytest.mark.parametrize("how", ["together", "opposite", "anywhere"])
@pytest.mark.parametrize("settings", IN_BOX, ids=named)
def test_f_outliers_do_not_move_the_aggregate_out_of_the_honest_units_box(settings: AggregatorSettings, how: str, honest: Tensor) -> None:
    found, good = full(settings, attacked(honest, how)), honest[:, :-F]
    if settings.before and settings.before[0].kind == "bucketing":
        good = torch.cat([good, good.amin(dim=1, keepdim=True), good.amax(dim=1, keepdim=True)], dim=1)
    assert (found >= good.amin(dim=1) - 1e-9).all()
    assert (found <= good.amax(dim=1) + 1e-9).all()


@pytest.mark.parametrize("how", ["together", "opposite", "anywhere"])
def test_mean_around_median_stays_within_the_width_of_the_honest_units_of_the_median(how: str, honest: Tensor) -> None:
    vectors, good = attacked(honest, how), honest[:, :-F]
    width = good.amax(dim=1) - good.amin(dim=1)
    assert ((full(Meamed(f=F), vectors) - full(Median(), vectors)).abs() <= width).all()


@pytest.mark.parametrize("how", ["together", "opposite", "anywhere"])
def test_geometric_median_is_at_most_a_bounded_multiple_of_the_honest_spread_away(how: str, honest: Tensor) -> None:
    found, good = full(GeometricMedian(iterations=200), attacked(honest, how)), honest[:, :-F]
    centre = good.mean(dim=1)
    spread = vector_norm(good - centre[:, None], dim=-1).amax(dim=1)
    share = F / N  # Minsker (2015), lemma 2.1: within C r of the centre, C = (1 − a) / √(1 − 2a)
    assert (vector_norm(found - centre, dim=-1) <= spread * (1 - share) / (1 - 2 * share) ** 0.5).all()


@pytest.mark.parametrize("how", ["together", "opposite", "anywhere"])
def test_an_outlier_moves_centered_clipping_by_its_share_of_the_radius(how: str, honest: Tensor) -> None:
    settings = CenteredClipping(radius=2.0)
    moved = full(settings, attacked(honest, how)) - full(settings, honest)
    assert (vector_norm(moved, dim=-1) <= 2 * 2.0 * F / N).all()


def test_outliers_move_the_mean_out_of_the_box(honest: Tensor) -> None:
    assert (full(Mean(), attacked(honest, "together")) > honest.amax(dim=1)).all()


def test_units_that_claim_many_rows_win_the_weighted_median_but_not_the_weighted_trimmed_mean(honest: Tensor) -> None:
    vectors = attacked(honest, "together")
    assert (full(Median(weighted=True), vectors) == 1e6).all()
    assert (full(TrimmedMean(f=F, weighted=True), vectors) <= honest.amax(dim=1)).all()


@pytest.mark.parametrize("settings", [one for one in EVERY if one.kind != "minimum_diameter"], ids=named)
def test_the_order_of_the_units_does_not_matter(settings: AggregatorSettings, honest: Tensor) -> None:
    order = torch.rand(E, N, generator=torch.Generator().manual_seed(7))
    mixed = torch.randperm(N, generator=torch.Generator().manual_seed(8))
    everybody, weight = everyone(honest), torch.rand(E, N, generator=torch.Generator().manual_seed(9)) + 0.1
    plain = aggregate(settings, honest, weight, everybody, order)
    torch.testing.assert_close(aggregate(settings, honest[:, mixed], weight[:, mixed], everybody, order[:, mixed]), plain)
    of_each = parts(settings, honest, weight, everybody[:, 0], order)
    torch.testing.assert_close(parts(settings, honest[:, mixed], weight[:, mixed], everybody[:, 0], order[:, mixed]), of_each[:, mixed])


def test_of_several_sets_with_the_least_diameter_the_order_of_the_units_decides() -> None:
    # Without 0 the largest distance is 3, and without 4 it is 3.
    x = torch.tensor([[[0.0], [1.0], [3.0], [4.0]]], dtype=torch.float64)
    settings, order = MinimumDiameter(f=1), torch.rand(1, 4)
    assert aggregate(settings, x, torch.ones(1, 4), everyone(x), order).item() == pytest.approx(4 / 3)
    assert aggregate(settings, x.flip(1), torch.ones(1, 4), everyone(x), order).item() == pytest.approx(8 / 3)


def test_the_least_diameter_itself_does_not_depend_on_the_order_of_the_units(honest: Tensor) -> None:
    def diameter(vectors: Tensor) -> Tensor:
        chosen = mixture(MinimumDiameter(f=F), gram(vectors), torch.ones(E, N), everyone(vectors), torch.rand(E, N))[:, 0] > 0
        assert (chosen.sum(dim=1) == N - F).all()
        apart = torch.cdist(vectors, vectors)
        return torch.where(chosen[:, None] & chosen[:, :, None], apart, 0.0).amax(dim=(1, 2))

    mixed = torch.randperm(N, generator=torch.Generator().manual_seed(8))
    torch.testing.assert_close(diameter(honest[:, mixed]), diameter(honest))


@pytest.mark.parametrize("settings", [one for one in EVERY if one.kind != "centered_clipping"], ids=named)
def test_a_shift_of_all_units_shifts_the_aggregate(settings: AggregatorSettings, honest: Tensor) -> None:
    shift = torch.linspace(-2, 2, P, dtype=torch.float64)
    torch.testing.assert_close(full(settings, honest + shift), full(settings, honest) + shift, rtol=1e-5, atol=1e-5)


def test_rules_that_start_at_zero_and_clipping_are_not_shifted_with_the_units(honest: Tensor) -> None:
    for settings in (CenteredClipping(radius=1.0), Mean(before=(Clip(max_norm=1.0),)), GeometricMedian(iterations=1)):
        assert (vector_norm(full(settings, honest + 5.0) - full(settings, honest) - 5.0, dim=-1) > 0.1).all()


@pytest.mark.parametrize("settings", [one for one in EVERY if one.mixing], ids=named)
def test_a_mixture_of_admissible_updates_is_admissible(settings: AggregatorSettings, honest: Tensor) -> None:
    gradient = torch.randn(E, P, generator=torch.Generator().manual_seed(10), dtype=torch.float64)
    tolerance = 0.3
    harm = (honest @ gradient[..., None])[..., 0]
    admissible = honest - ((harm - tolerance).clamp(min=0) / gradient.square().sum(dim=-1, keepdim=True))[..., None] * gradient[:, None]
    assert ((full(settings, admissible) * gradient).sum(dim=-1) <= tolerance + 1e-9).all()


@pytest.mark.parametrize("settings", [Median(), TrimmedMean(f=1), Meamed(f=2)], ids=named)
def test_an_aggregate_by_coordinates_of_admissible_updates_may_be_inadmissible(settings: AggregatorSettings) -> None:
    # The value's gradient is (1, 1, 1) and the tolerance 0: each update does good on balance, 1 + 1 − 3 = −1. The aggregate takes the
    # middle of each coordinate and loses what each did good.
    vectors = torch.tensor([[[1.0, 1.0, -3.0], [1.0, -3.0, 1.0], [-3.0, 1.0, 1.0]]], dtype=torch.float64)
    if settings.kind == "meamed":
        vectors = torch.cat([vectors, vectors.roll(1, dims=1)], dim=1)  # of six it leaves out the two that are far away
    assert (vectors.sum(dim=-1) < 0).all()
    found = aggregate(settings, vectors, torch.ones(vectors.shape[:2]), everyone(vectors), torch.rand(vectors.shape[:2]))
    assert found[0, 0].tolist() == [1.0, 1.0, 1.0]
    mean = aggregate(Mean(), vectors, torch.ones(vectors.shape[:2]), everyone(vectors), torch.rand(vectors.shape[:2]))
    assert mean.sum() < 0
