"""The value that counts missed cases of a class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import Field
from torch import Tensor

from ..data.sources import Bools, Dataset, Rows
from .interface import VALUES, Value, rows_of


@VALUES.register("miss_rate")
class MissRate(Value):
    r"""Share of a class's cases that the model misses, smoothed; within one group if one is named.

    .. math:: 1 - \frac{1}{n} \sum_i \operatorname{softmax}(z_i / T)_c

    At T = 1 it is the expected miss rate of a model that answers by chance, with its own probabilities. As T goes to 0 it becomes the
    miss rate of the most probable answer, save where two answers tie. For a case with margin m = z_c − T·log Σ_{j≠c} exp(z_j/T), the
    smooth lead of the class over its rivals, the term is the sigmoid of −m/T.

    Unlike a cross-entropy it is a share of cases, and no single case counts for more than one, however wrong the answer. At the default,
    T = 1, its own gradient predicts it best: with a small T, few cases are close enough to the boundary to have one. What T = 1 gives up is
    size: where the model hesitates, an update that turns many most probable answers moves their probabilities by little, so that the rate
    of wrong most probable answers changes by several times the predicted harm. Choose tolerances with that in mind, or a smaller T
    with ``screening.harm: measured``. A case that is missed by far has hardly a gradient at any T; where that matters use
    ``class_loss``.
    """

    label: int | str = Field(description="The class whose cases must not be missed, by name or number.")
    group: str | None = Field(None, description="Only cases in this group, by its name under data.groups; all cases by default.")
    temperature: float = Field(
        1.0, gt=0, description="Temperature T: 1 counts the model's own probabilities; towards 0, its most probable answers."
    )

    def strata(self, dataset: Dataset, groups: Mapping[str, Bools]) -> Sequence[Bools]:
        """The rows of the class, in the group if one is named."""
        return [rows_of(dataset, groups, label=self.label, group=self.group)]

    def protected_class(self, dataset: Dataset) -> int:
        """The class."""
        return dataset.class_index(self.label)

    def loss(self, logits: Tensor, probe: Rows, dataset: Dataset) -> Tensor:
        """Smooth miss rate on the probe set, ``(...,)``, as a share of its rows."""
        del probe
        return 1 - (logits / self.temperature).softmax(dim=-1)[..., dataset.class_index(self.label)].mean(dim=-1)
