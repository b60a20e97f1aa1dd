"""Values that are mean cross-entropies: of a class, of a group, of the group with the highest loss."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from pydantic import Field, field_validator
from torch import Tensor

from ..data.sources import Bools, Dataset, Rows
from ..model.likelihood import column_cross_entropy, cross_entropy, loss_and_residual
from .interface import VALUES, Value, require_two_classes, rows_of


class _MeanLoss(Value):
    """Mean cross-entropy on the probe set, in nats."""

    def loss(self, logits: Tensor, probe: Rows, dataset: Dataset) -> Tensor:
        """Mean cross-entropy on the probe set, ``(...,)``, in nats."""
        del dataset
        return column_cross_entropy(logits, probe.column).mean(dim=-1)

    def loss_and_gradient(self, logits: Tensor, probe: Rows, dataset: Dataset) -> tuple[Tensor, Tensor]:
        """In closed form."""
        del dataset
        loss, error = loss_and_residual(logits, probe.column)
        return loss.mean(dim=-1), error / len(probe)


@VALUES.register("class_loss")
class ClassLoss(_MeanLoss):
    """Mean cross-entropy on one class, in nats. It rises when the model misses more of the class's cases."""

    label: int | str = Field(description="The class, by name or number.")
    group: str | None = Field(None, description="Only rows in this group, by its name under data.groups; all rows by default.")

    def strata(self, dataset: Dataset, groups: Mapping[str, Bools]) -> Sequence[Bools]:
        """The rows of the class, in the group if one is named."""
        return [rows_of(dataset, groups, label=self.label, group=self.group)]

    def protected_class(self, dataset: Dataset) -> int:
        """The class."""
        return dataset.class_index(self.label)


@VALUES.register("group_loss")
class GroupLoss(_MeanLoss):
    """Mean cross-entropy on the members of one group, in nats."""

    group: str = Field(description="The group, by its name under data.groups.")

    def strata(self, dataset: Dataset, groups: Mapping[str, Bools]) -> Sequence[Bools]:
        """The rows of the group."""
        return [rows_of(dataset, groups, group=self.group)]

    def check(self, probe: Rows, dataset: Dataset) -> None:
        """The group needs at least two classes."""
        require_two_classes(probe.y, "", dataset)


@VALUES.register("worst_group_loss")
class WorstGroupLoss(Value):
    r"""Mean cross-entropy on the group with the highest loss, in nats, as a smooth maximum over groups.

    .. math:: T \log \Bigl( \tfrac{1}{G} \sum_g e^{L_g / T} \Bigr)

    Here L_g is the mean cross-entropy on group g. The smooth maximum never exceeds the largest L_g. It is at most T·ln G below it, which
    happens if all other groups have a much lower loss. If all groups have the same loss, it equals that loss. Its gradient weighs the
    groups by softmax(L/T), so groups within about T of the worst one count too. A smaller T is closer to the maximum, but then the gradient
    predicts harm only for shorter steps.

    The source trains on the worst group by reweighting. Here the worst group's loss limits which updates are admitted.

    References:
        Sagawa, Koh, Hashimoto & Liang (2020), *Distributionally robust neural networks for group shifts*, ICLR.
    """

    groups: tuple[str, ...] = Field(min_length=2, description="The groups, by their names under data.groups; they must not share members.")
    temperature: float = Field(0.05, gt=0, description="Temperature T of the smooth maximum, in nats; its error is at most T·ln G.")

    @field_validator("groups")
    @classmethod
    def _each_once(cls, groups: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(groups)) < len(groups):
            raise ValueError(f"groups={list(groups)}: name each group once")
        return groups

    def strata(self, dataset: Dataset, groups: Mapping[str, Bools]) -> Sequence[Bools]:
        """The rows of each group.

        Raises:
            ValueError: If two groups share members. Rows that are drawn for one would then bias the mean of the other.
        """
        strata = [rows_of(dataset, groups, group=group) for group in self.groups]
        for b, group in enumerate(self.groups):
            for a in range(b):
                if n_both := int((strata[a] & strata[b]).sum()):
                    raise ValueError(
                        f"worst_group_loss: {n_both} rows are in group {self.groups[a]!r} and in group {group!r}: name groups without "
                        "common members, or give each a group_loss of its own"
                    )
        return strata

    def check(self, probe: Rows, dataset: Dataset) -> None:
        """Each group needs at least two classes."""
        for group in self.groups:
            require_two_classes(probe.y[probe.groups[group]], f"of group {group!r}", dataset)

    def loss(self, logits: Tensor, probe: Rows, dataset: Dataset) -> Tensor:
        """Smooth maximum of the groups' mean cross-entropies, ``(...,)``, in nats."""
        del dataset
        by_row = cross_entropy(logits, probe.y)  # (..., n_rows)
        by_group = torch.stack([by_row[..., probe.groups[group]].mean(dim=-1) for group in self.groups], dim=-1)  # (..., G)
        return smooth_maximum(by_group, self.temperature)


def smooth_maximum(x: Tensor, temperature: float) -> Tensor:
    r"""Smooth maximum over the last axis of n numbers, :math:`T \log \frac{1}{n} \sum_i e^{x_i / T}`: at most T·ln n below the maximum."""
    return temperature * ((x / temperature).logsumexp(dim=-1) - math.log(x.shape[-1]))
