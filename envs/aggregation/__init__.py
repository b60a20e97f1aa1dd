"""Aggregation: from the updates of a round to one step, for every coalition.

* ``settings``: the aggregators and the steps before them, as data;
* ``aggregates``: the aggregate of every coalition, and every update's part in it;
* ``mixtures``: aggregators whose aggregate is a mixture of updates: mean, Krum, geometric median and others;
* ``diameter``: the set of updates with the least diameter;
* ``coordinates``: aggregators that take every coordinate by itself: median, trimmed mean, mean around median;
* ``units``: what is done to updates before they are aggregated: clipping, nearest-neighbour mixing, bucketing;
* ``sums``: sums that do not depend on what is computed beside them.
"""

from .aggregates import aggregate, mixture, parts
from .settings import (
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
from .sums import gram

__all__ = [
    "AggregatorSettings",
    "Bucketing",
    "CenteredClipping",
    "Clip",
    "GeometricMedian",
    "Krum",
    "Meamed",
    "Mean",
    "Median",
    "MinimumDiameter",
    "MultiKrum",
    "NearestNeighbourMixing",
    "TrimmedMean",
    "aggregate",
    "check",
    "gram",
    "least_units",
    "mixture",
    "parts",
]
