r"""The aggregators and the steps before them, as settings: what a scenario may say.

An aggregator takes n units, vectors in :math:`R^P`, to one vector. A unit is an update, or an agent's mean update.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from ...settings import Settings, default_kind, kind_by_name, models_in

MOST_REMOVED = 10
"""Largest f of ``minimum_diameter``: it follows up to 2^f branches in every coalition."""

_F = Field(ge=0, description="Most Byzantine units f that are to be withstood. A coalition of m units withstands min(f, (m − 1) // 2).")


class Clip(Settings):
    r"""Shortens every unit that is longer than c: :math:`x_i' = \min(1, c / \|x_i\|)\, x_i`."""

    kind: Literal["clip"] = "clip"
    max_norm: float = Field(gt=0, description="Largest norm of a unit, c: Euclidean, in units of the parameters.")


class NearestNeighbourMixing(Settings):
    r"""Replaces every unit by the mean of the m − f units that are nearest to it, itself included.

    Of units at the same distance the earlier one is nearer. A mixed unit keeps the weight of the unit that it replaces.

    References:
        Allouah, Farhadkhani, Guerraoui, Gupta, Pinot & Stephan (2023), *Fixing by mixing: a recipe for optimal Byzantine ML under
        heterogeneity*, AISTATS.
    """

    kind: Literal["nnm"] = "nnm"
    f: int = _F


class Bucketing(Settings):
    r"""Deals the units to buckets of s in a random order and replaces each bucket by its mean.

    The last bucket may hold fewer, and counts as much as the others. Where weights count, a bucket's mean is weighted, and the bucket has
    the weight of its units.

    References:
        Karimireddy, He & Jaggi (2022), *Byzantine-robust learning on heterogeneous datasets via bucketing*, ICLR.
    """

    kind: Literal["bucketing"] = "bucketing"
    size: int = Field(2, ge=2, description="Units in a bucket, s.")


Before = Annotated[Clip | NearestNeighbourMixing | Bucketing, Field(discriminator="kind")]


class _Aggregator(Settings):
    """What every aggregator may say."""

    mixing: ClassVar[bool] = True
    """Whether the aggregate is a convex mixture of the units, shortened at most."""
    before: tuple[Before, ...] = Field((), description="What is done to the units before they are aggregated, in this order.")
    over: Literal["updates", "agents"] = Field(
        "updates", description="What a unit is: every admitted update (updates), or the mean of every agent's admitted updates (agents)."
    )

    @field_validator("before")
    @classmethod
    def _buckets_once(cls, before: tuple[Before, ...]) -> tuple[Before, ...]:
        sizes = [step.size for step in before if isinstance(step, Bucketing)]
        if len(sizes) > 1:
            raise ValueError(f"before has bucketing {len(sizes)} times: use it at most once, with a larger size")
        return before


class _Weighted(_Aggregator):
    """An aggregator whose source lets units weigh."""

    weighted: bool = Field(
        False, description="Whether updates count by the rows that they claim. An update that claims none then takes no part."
    )


class _Robust(_Aggregator):
    """An aggregator that is told how many Byzantine units there may be."""

    f: int = _F


class Mean(_Weighted):
    r"""The mean, :math:`\sum_i w_i x_i / \sum_i w_i`, by default weighted as in FedAvg. One Byzantine unit moves it anywhere."""

    kind: Literal["mean"] = "mean"
    weighted: bool = Field(
        True, description="Whether updates count by the rows that they claim. An update that claims none then takes no part."
    )


class Median(_Weighted):
    r"""The median of each coordinate. Of an even number it is the midpoint of the middle two.

    The weighted median is the midpoint of the least value up to which at least half of the weight lies, and of the least value up to which
    more than half lies. It withstands Byzantine units with less than half of the weight.

    References:
        Yin, Chen, Ramchandran & Bartlett (2018), *Byzantine-robust distributed learning: towards optimal statistical rates*, ICML.
    """

    kind: Literal["median"] = "median"
    mixing: ClassVar[bool] = False


class TrimmedMean(_Weighted, _Robust):
    r"""The mean of each coordinate without its f smallest and its f largest values.

    f counts units, also where weights count: what is left is then averaged by weight. So a Byzantine unit gains nothing by claiming more
    rows than it has: every coordinate stays between honest ones.

    References:
        Yin, Chen, Ramchandran & Bartlett (2018), *Byzantine-robust distributed learning: towards optimal statistical rates*, ICML.
    """

    kind: Literal["trimmed_mean"] = "trimmed_mean"
    mixing: ClassVar[bool] = False


class Meamed(_Robust):
    r"""The mean, in each coordinate, of the m − f values nearest to the median. Of values at the same distance the smaller one stays.

    References:
        Xie, Koyejo & Gupta (2018), *Generalized Byzantine-tolerant SGD*, arXiv 1802.10116: mean around median.
    """

    kind: Literal["meamed"] = "meamed"
    mixing: ClassVar[bool] = False


class Krum(_Robust):
    r"""The unit with the smallest score: the sum of its squared distances to its max(1, m − f − 2) nearest other units.

    Of equal scores the earlier unit's wins. A unit that is alone is the aggregate.

    References:
        Blanchard, El Mhamdi, Guerraoui & Stainer (2017), *Machine learning with adversaries: Byzantine tolerant gradient descent*, NeurIPS.
    """

    kind: Literal["krum"] = "krum"


class MultiKrum(_Robust):
    r"""The mean of the units with the smallest scores of :class:`Krum`.

    References:
        Blanchard, El Mhamdi, Guerraoui & Stainer (2017), *Machine learning with adversaries: Byzantine tolerant gradient descent*, NeurIPS.
    """

    kind: Literal["multi_krum"] = "multi_krum"
    selected: int | None = Field(
        None, ge=1, description="How many units are averaged, at most m − f in a coalition of m units; null for m − f."
    )


class GeometricMedian(_Weighted):
    r"""The point with the least (weighted) sum of distances to the units, by the smoothed Weiszfeld algorithm.

    .. math:: z^{t+1} = \frac{\sum_i \beta_i x_i}{\sum_i \beta_i}, \qquad \beta_i = \frac{w_i}{\max(\nu, \|z^t - x_i\|)}

    It starts at zero, the step that changes nothing, as byzfl does. The authors' own program starts at the (weighted) mean, which one
    Byzantine unit can move far away.

    References:
        Pillutla, Kakade & Harchaoui (2022), *Robust aggregation for federated learning*, IEEE Transactions on Signal Processing 70.
    """

    kind: Literal["geometric_median"] = "geometric_median"
    nu: float = Field(1e-6, gt=0, description="Smoothing ν: distances below it count as it, in units of the parameters.")
    iterations: int = Field(8, ge=1, le=1000, description="Iterations.")


class CenteredClipping(_Weighted):
    r"""Moves, from zero, by the (weighted) mean of the differences to the units, each shortened to τ.

    .. math:: z^{t+1} = z^t + \frac{\sum_i w_i\, \min(1, \tau / \|x_i - z^t\|)\, (x_i - z^t)}{\sum_i w_i}

    It starts at zero in every round. The source starts at the last round's aggregate.

    References:
        Karimireddy, He & Jaggi (2021), *Learning from history for Byzantine robust optimization*, ICML.
    """

    kind: Literal["centered_clipping"] = "centered_clipping"
    radius: float = Field(gt=0, description="Largest difference that counts in full, τ: Euclidean, in units of the parameters.")
    iterations: int = Field(1, ge=1, le=1000, description="Iterations.")


class MinimumDiameter(_Robust):
    r"""The mean of the m − f units whose largest distance to each other is least.

    Of several such sets the one that comes first in lexicographic order counts.

    References:
        El Mhamdi, Guerraoui, Guirguis, Hoang & Rouault (2020), *Genuinely distributed Byzantine machine learning*, PODC.
    """

    kind: Literal["minimum_diameter"] = "minimum_diameter"
    f: int = Field(
        ge=0,
        le=MOST_REMOVED,
        description="Most Byzantine units f that are to be withstood. A coalition of m units withstands min(f, (m − 1) // 2). "
        "The work doubles with every one.",
    )


_Any = Annotated[
    Mean | Median | TrimmedMean | Krum | MultiKrum | GeometricMedian | CenteredClipping | MinimumDiameter | Meamed,
    Field(discriminator="kind"),
]

AGGREGATORS: tuple[str, ...] = tuple(str(one.model_fields["kind"].default) for one in models_in(_Any))
"""The kinds of aggregators."""


AggregatorSettings = Annotated[Annotated[_Any, default_kind("mean")], kind_by_name("aggregator", AGGREGATORS)]
MixingSettings = Mean | Krum | MultiKrum | GeometricMedian | CenteredClipping | MinimumDiameter
CoordinateSettings = Median | TrimmedMean | Meamed


def counts_weights(settings: AggregatorSettings) -> bool:
    """Whether units count by their weights."""
    return isinstance(settings, _Weighted) and settings.weighted


def least_units(settings: AggregatorSettings) -> int:
    """The least number of units in a full round with which the aggregator, and every step before it, withstands its f.

    It is 2f + 3 for ``krum`` and ``multi_krum`` and 2f + 1 for others with an f. Bucketing by s leaves ⌈n / s⌉ units.
    """
    least = 1
    if isinstance(settings, _Robust):
        least = 2 * settings.f + (3 if isinstance(settings, Krum | MultiKrum) else 1)
    for step in reversed(settings.before):
        match step:
            case Bucketing():
                least = step.size * (least - 1) + 1
            case NearestNeighbourMixing():
                least = max(least, 2 * step.f + 1)
    return least


def check(settings: AggregatorSettings, n_units: int) -> None:
    """Refuse an aggregator that is too much for a full round.

    Args:
        settings: The aggregator.
        n_units: Number of units when everybody contributes everything and all is admitted.

    Raises:
        ValueError: If fewer units than :func:`least_units` can come, or ``multi_krum`` is to average more than n − f of them.
    """
    least = least_units(settings)
    if n_units < least:
        sizes = [f"f={part.f}" for part in (settings,) if isinstance(part, _Robust)]
        for step in settings.before:
            sizes += [f"{step.kind} f={step.f}"] if isinstance(step, NearestNeighbourMixing) else []
            sizes += [f"{step.kind} size={step.size}"] if isinstance(step, Bucketing) else []
        raise ValueError(
            f"aggregator {settings.kind!r} with {', '.join(sizes)} needs at least {least} units, but a full round has {n_units}: "
            "lower f"
            + " or the size of the buckets" * any(isinstance(step, Bucketing) for step in settings.before)
            + ", or use more principals or lots"
        )
    if isinstance(settings, MultiKrum) and settings.selected is not None:
        left = n_units
        for step in settings.before:
            left = -(-left // step.size) if isinstance(step, Bucketing) else left
        if settings.selected > left - settings.f:
            raise ValueError(
                f"aggregator 'multi_krum': selected={settings.selected} with f={settings.f} of {left} units: must be at most "
                f"{left - settings.f}"
            )
