"""What aggregators refuse, and how many units they need."""

import pytest
from pydantic import TypeAdapter, ValidationError

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
    check,
    least_units,
)

READ = TypeAdapter(AggregatorSettings)


def test_settings_without_a_kind_are_the_mean() -> None:
    assert READ.validate_python({}) == Mean()
    assert READ.validate_python({"weighted": True}) == Mean(weighted=True)
    assert Mean().over == "updates"


def test_a_rule_and_the_steps_before_it_are_read_from_plain_data() -> None:
    found = READ.validate_python(
        {"kind": "trimmed_mean", "f": 4, "over": "agents", "before": [{"kind": "nnm", "f": 4}, {"kind": "bucketing"}]}
    )
    assert found == TrimmedMean(f=4, over="agents", before=(NearestNeighbourMixing(f=4), Bucketing(size=2)))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"kind": "krum"}, "f\n  Field required"),
        ({"kind": "krum", "f": -1}, "greater than or equal to 0"),
        ({"kind": "krum", "f": 1.5}, "valid integer"),
        ({"kind": "krum", "f": 1, "weighted": True}, "weighted\n  Extra inputs are not permitted"),
        ({"kind": "median", "f": 1}, "f\n  Extra inputs are not permitted"),
        ({"kind": "multi_krum", "f": 1, "selected": 0}, "greater than or equal to 1"),
        ({"kind": "centered_clipping"}, "radius\n  Field required"),
        ({"kind": "geometric_median", "nu": 0}, "greater than 0"),
        ({"kind": "minimum_diameter", "f": 11}, "less than or equal to 10"),
        ({"kind": "mean", "before": [{"kind": "clip"}]}, "max_norm\n  Field required"),
        ({"kind": "mean", "before": [{"kind": "bucketing", "size": 1}]}, "greater than or equal to 2"),
        ({"kind": "mean", "before": [{"kind": "bucketing"}] * 2}, "before has bucketing 2 times: use it at most once, with a larger size"),
        ({"kind": "mode"}, "unknown aggregator 'mode'"),
        ({"over": "lots"}, "Input should be 'updates' or 'agents'"),
    ],
)
def test_wrong_settings_are_refused(data: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError) as error:
        READ.validate_python(data)
    assert message in str(error.value)


def test_the_kinds_that_mix() -> None:
    kinds = [Mean(), Krum(f=1), MultiKrum(f=1), GeometricMedian(), CenteredClipping(radius=1), MinimumDiameter(f=1)]
    assert all(kind.mixing for kind in kinds)
    assert not any(kind.mixing for kind in (Median(), TrimmedMean(f=1), Meamed(f=1)))


@pytest.mark.parametrize(
    ("settings", "least"),
    [
        (Mean(), 1),
        (Median(), 1),
        (Median(before=(NearestNeighbourMixing(f=3),)), 7),
        (TrimmedMean(f=0), 1),
        (TrimmedMean(f=4), 9),
        (Meamed(f=4), 9),
        (MinimumDiameter(f=4), 9),
        (Krum(f=4), 11),
        (MultiKrum(f=4), 11),
        (TrimmedMean(f=2, before=(Bucketing(size=3),)), 13),  # five buckets, the last with a single unit
        (TrimmedMean(f=2, before=(NearestNeighbourMixing(f=7), Bucketing(size=3))), 15),
        (TrimmedMean(f=2, before=(Bucketing(size=3), NearestNeighbourMixing(f=3), Clip(max_norm=1.0))), 19),
    ],
)
def test_least_units(settings: AggregatorSettings, least: int) -> None:
    assert least_units(settings) == least
    check(settings, least)
    if least > 1:
        with pytest.raises(ValueError, match=f"needs at least {least} units, but a full round has {least - 1}: lower f"):
            check(settings, least - 1)


def test_the_error_names_the_rule_its_sizes_and_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"^aggregator 'krum' with f=4 needs at least 11 units, but a full round has 10: lower f, or use "):
        check(Krum(f=4), 10)
    with pytest.raises(ValueError, match=r"with f=1, nnm f=2, bucketing size=2 needs .* lower f or the size of the buckets, or use more "):
        check(TrimmedMean(f=1, before=(NearestNeighbourMixing(f=2), Bucketing())), 4)


def test_multi_krum_averages_at_most_the_units_that_may_be_honest() -> None:
    check(MultiKrum(f=2, selected=8), 10)
    with pytest.raises(ValueError, match="selected=9 with f=2 of 10 units: must be at most 8"):
        check(MultiKrum(f=2, selected=9), 10)
    with pytest.raises(ValueError, match="selected=9 with f=2 of 10 units: must be at most 8"):
        check(MultiKrum(f=2, selected=9, before=(Bucketing(size=2),)), 20)
