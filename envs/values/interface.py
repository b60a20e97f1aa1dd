"""The interface of a value, and the registry in which values are found by kind."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ...registry import Registry, unknown_name
from ...settings import Settings
from ..data.sources import Bools, Dataset, Rows


class Value(Settings):
    """One value: a differentiable loss of the shared model on a probe set of its own.

    A value is small: subclass, say which rows the probe set must hold and what the loss is, and register it::

        @VALUES.register("calm")
        class Calm(Value):
            '''Mean size of the answers to one class, in logits.'''

            label: int | str = Field(description="The class, by name or number.")

            def strata(self, dataset, groups):
                return [rows_of(dataset, groups, label=self.label)]

            def loss(self, logits, probe, dataset):
                return logits.square().mean(dim=(-1, -2))

    A scenario then names it: ``values: {quiet: {kind: calm, label: malignant}}``. Its fields are its settings; the first line of its
    docstring is what ``proxycoop scenarios --settings`` prints. Packages register theirs under the entry-point group
    ``proxycoop.values``.

    Predicted harm is read off the loss's first derivative, the second-order correction off its second; both must exist
    wherever the model may go. So :meth:`loss` may only use operations that torch can differentiate twice, none of them in place, and a
    maximum or an absolute value must be smoothed.

    Attributes:
        needs_reference: Whether the loss reads ``probe.reference``, the answers of the model on which every episode starts.
    """

    needs_reference: ClassVar[bool] = False

    @abstractmethod
    def strata(self, dataset: Dataset, groups: Mapping[str, Bools]) -> Sequence[Bools]:
        """Masks, bool ``(n_rows,)`` each, of the strata from which equally many probe rows are taken.

        Args:
            dataset: The data set.
            groups: Members of each group, bool ``(n_rows,)``.

        Raises:
            ValueError: If the value names a class or group that the data does not have, or no row belongs to a stratum.
        """

    @abstractmethod
    def loss(self, logits: Tensor, probe: Rows, dataset: Dataset) -> Tensor:
        """The value loss.

        Args:
            logits: The model's answers on the probe set, ``(..., n_rows, n_classes)``.
            probe: The probe set.
            dataset: Where it came from, to look up classes.

        Returns:
            ``(...,)``; lower is better. Its unit is the unit of the tolerances on this value.
        """

    def loss_and_gradient(self, logits: Tensor, probe: Rows, dataset: Dataset) -> tuple[Tensor, Tensor]:
        """:meth:`loss` and its gradient with respect to the logits, of their shape; by automatic differentiation unless overridden."""
        with torch.enable_grad():
            logits = logits.detach().requires_grad_()
            loss = self.loss(logits, probe, dataset)
            (gradient,) = torch.autograd.grad(loss.sum(), logits)
        return loss.detach(), gradient

    def check(self, probe: Rows, dataset: Dataset) -> None:
        """Refuse a probe set that does not tell what the value needs to know; by default any will do.

        Called once for the probe set and once for the probe test set, after they were drawn.

        Raises:
            ValueError: If it does not; the message goes on from "the probe set of value 'name' …", and says what to do.
        """
        del probe, dataset

    def protected_class(self, dataset: Dataset) -> int | None:
        """The class that the value protects, if it is about one class."""
        del dataset
        return None


VALUES: Registry[Value] = Registry("value", "proxycoop.values")


def members_of(group: str, groups: Mapping[str, Bools]) -> Bools:
    """Members of a group, bool ``(n_rows,)``.

    Raises:
        ValueError: If there is no such group; the message lists the known.
    """
    if group not in groups:
        raise unknown_name("group", group, sorted(groups) or ["none: define one under data.groups"])
    return groups[group]


def rows_of(dataset: Dataset, groups: Mapping[str, Bools], *, label: int | str | None = None, group: str | None = None) -> Bools:
    """Rows of a class, of a group, of both, or all rows: bool ``(n_rows,)``.

    Raises:
        ValueError: If the class or group is unknown, or there is no such row.
    """
    rows = np.ones(len(dataset.labels), dtype=bool)
    of_what = []
    if label is not None:
        rows = rows & (dataset.labels == dataset.class_index(label))
        of_what.append(f"of class {label!r}")
    if group is not None:
        rows = rows & members_of(group, groups)
        of_what.append(f"in group {group!r}")
    if not rows.any():
        raise ValueError(f"the data has no rows {' '.join(of_what)}: name another class or group")
    return rows


def require_two_classes(labels: Tensor, of_whom: str, dataset: Dataset) -> None:
    """Refuse rows that are all of one class, for values that say how well people are served whatever their class.

    Args:
        labels: int64 ``(n_rows,)``.
        of_whom: Whose rows they are: ``"of group 'women'"``, or empty for the whole set.
        dataset: Where they came from.

    Raises:
        ValueError: If there are fewer than two classes among them.
    """
    whose = f"rows {of_whom}".strip()
    found = labels.unique().tolist()
    if not found:
        raise ValueError(f"holds no {whose}")
    if len(found) == 1:
        raise ValueError(
            f"holds {whose} of class {dataset.class_names[found[0]]!r} only: the least loss on it would be to answer that class always. "
            "Raise data.probe_rows, or use a value that is about one class: class_loss or miss_rate, which take a group as well, or "
            "disparity with criterion equal_opportunity"
        )
