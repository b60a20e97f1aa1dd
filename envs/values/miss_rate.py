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

    At T = 1 it is the expected miss rate of a model that draws its answers with its own probabilities. As T goes to 0, it becomes the miss
    rate of the most probable answer, unless two answers tie. Let m = z_c − T·log Σ_{j≠c} exp(z_j/T) be the margin of a case: the smooth
    lead of the class over the other classes. The case's term is then the sigmoid of −m/T.

    Unlike a cross-entropy, it is a share of cases: no case counts for more than one, however wrong the answer is.

    At the default, T = 1, its gradient predicts its changes best. With a small T, only few cases are close enough to the boundary to have a
    gradient. But T = 1 understates changes of the most probable answers. Where the model is unsure, an update may change many of them while
    the probabilities change little. Their miss rate then changes by several times the predicted harm. Choose tolerances with that in mind,
    or a smaller T with ``screening.harm: measured``.

    A case that is missed by far has almost no gradient at any T. If such cases matter, use ``class_loss``.
    """

    label: int | str = Field(description="The class whose cases must not be missed, by name or number.")
    group: str | None = Field(None, description="Only cases in this group, by its name under data.groups; all cases by default.")
    temperature: float = Field(
        1.0, gt=0, description="Temperature T. 1 counts the model's own probabilities; T near 0 counts its most probable answers."
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
