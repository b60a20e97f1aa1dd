"""The value that keeps the shared model's answers near those of the start model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from ..data.sources import Bools, Dataset, Rows
from ..model.likelihood import log_softmax
from .interface import VALUES, Value, rows_of


@VALUES.register("drift")
class Drift(Value):
    r"""Mean divergence of the model's answers from those of the start model, in nats.

    .. math:: \frac{1}{n} \sum_i \mathrm{KL}\bigl(p_{\theta_0}(\cdot \mid x_i) \,\|\, p_\theta(\cdot \mid x_i)\bigr)

    This value is for people who rely on how the model answers today. The start model's probabilities come first in the divergence, so it
    matters most that answers which were probable stay probable. It is the distillation loss of learning without forgetting, up to the
    constant entropy of the start model's answers.

    In an episode's first round, drift and its gradient are 0 up to rounding. So to first order no update harms it. If that matters, screen
    with second-order or measured harm, and give the value a tolerance above 0.

    References:
        Li & Hoiem (2016), *Learning without forgetting*, ECCV.
    """

    needs_reference: ClassVar[bool] = True

    label: int | str | None = Field(None, description="Class of the rows on which answers are compared, by name or number; any by default.")
    group: str | None = Field(None, description="Group of these rows, by its name under data.groups; any group by default.")

    def strata(self, dataset: Dataset, groups: Mapping[str, Bools]) -> Sequence[Bools]:
        """The rows on which answers are compared."""
        return [rows_of(dataset, groups, label=self.label, group=self.group)]

    def loss(self, logits: Tensor, probe: Rows, dataset: Dataset) -> Tensor:
        """Mean divergence on the probe set, ``(...,)``, in nats.

        Raises:
            ValueError: If the probe set has no reference.
        """
        del dataset
        before, after = log_softmax(_reference(probe)), log_softmax(logits)
        return (before.exp() * (before - after)).sum(dim=-1).mean(dim=-1)

    def loss_and_gradient(self, logits: Tensor, probe: Rows, dataset: Dataset) -> tuple[Tensor, Tensor]:
        """In closed form: the gradient of a row's divergence is the model's probabilities minus the start model's."""
        gradient = log_softmax(logits).exp() - log_softmax(_reference(probe)).exp()
        return self.loss(logits, probe, dataset), gradient / len(probe)


def _reference(probe: Rows) -> Tensor:
    """The start model's answers on the probe set, ``(n_rows, n_classes)``."""
    if probe.reference is None:
        raise ValueError(
            "drift: the probe set has no reference: add the start model's logits, of shape (n_rows, n_classes), with "
            "replace(rows, reference=logits); an Engine's probe sets have them"
        )
    return probe.reference
