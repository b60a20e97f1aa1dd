"""The base class of all values, and the registry in which values are found by their kind."""

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
    """A value: a differentiable loss of the shared model on its own probe set.

    To write one, subclass this class, say which rows the probe set must hold and what the loss is, and register it::

        @VALUES.register("calm")
        class Calm(Value):
            '''Mean size of the answers to one class, in logits.'''

            label: int | str = Field(description="The class, by name or number.")

            def strata(self, dataset, groups):
                return [rows_of(dataset, groups, label=self.label)]

            def loss(self, logits, probe, dataset):
                return logits.square().mean(dim=(-1, -2))

    A scenario then names it: ``values: {quiet: {kind: calm, label: malignant}}``. The class's fields are its settings.
    ``proxycoop scenarios --settings`` prints the first line of its docstring. Packages register their values under the entry-point group
    ``proxycoop.values``.

    First-order harm uses the loss's first derivative, and second-order harm its second derivative. Both must exist for all parameters. So
    :meth:`loss` may only use operations that torch can differentiate twice, and none in place. A maximum or an absolute value must be
    smoothed.

    Attributes:
        needs_reference: Whether the loss reads ``probe.reference``, the logits of the start model.
    """

    needs_reference: ClassVar[bool] = False

    @abstractmethod
    def strata(self, dataset: Dataset, groups: Mapping[str, Bools]) -> Sequence[Bools]:
        """One mask, bool ``(n_rows,)``, per stratum. Equally many probe rows are drawn from each stratum.

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
            logits: The model's logits on the probe set, ``(..., n_rows, n_classes)``.
            probe: The probe set.
            dataset: The data set from which it came, to look up classes.

        Returns:
            ``(...,)``; lower is better. Tolerances on this value have the same unit.
        """

    def loss_and_gradient(self, logits: Tensor, probe: Rows, dataset: Dataset) -> tuple[Tensor, Tensor]:
        """:meth:`loss`, and its gradient with respect to the logits. It uses automatic differentiation unless it is overridden."""
        with torch.enable_grad():
            logits = logits.detach().requires_grad_()
            loss = self.loss(logits, probe, dataset)
            kind = type(self).__name__
            require_losses(kind, loss, logits)
            if not loss.requires_grad:
                raise ValueError(f"value {kind}: its loss does not depend on the logits in a way that can be differentiated")
            (gradient,) = torch.autograd.grad(loss.sum(), logits)
        return loss.detach(), gradient

    def check(self, probe: Rows, dataset: Dataset) -> None:
        """Refuse a probe set that is not suitable for the value. By default every probe set is accepted.

        This is called once for the probe set and once for the probe test set, after they were drawn.

        Raises:
            ValueError: If the probe set is not suitable. The message continues "the probe set of value 'name' …", and says what to do.
        """
        del probe, dataset

    def protected_class(self, dataset: Dataset) -> int | None:
        """The class that the value protects, if it is about one class; else ``None``."""
        del dataset
        return None


def require_losses(name: str, loss: object, logits: Tensor) -> None:
    """Refuse what is no loss for each model.

    Args:
        name: The value's name, for the message.
        loss: What it answered.
        logits: What it was asked about, ``(..., n_rows, n_classes)``.

    Raises:
        ValueError: If it is not a floating-point tensor ``(...,)``.
    """
    shape = tuple(logits.shape[:-2])
    if not isinstance(loss, Tensor) or tuple(loss.shape) != shape or not loss.is_floating_point():
        came = f"{loss.dtype} of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise ValueError(
            f"value {name}: loss answered with {came}: it must be a floating-point tensor of shape {shape}, one for each model"
        )


VALUES: Registry[Value] = Registry("value", "proxycoop.values")


def members_of(group: str, groups: Mapping[str, Bools]) -> Bools:
    """Members of a group, bool ``(n_rows,)``.

    Raises:
        ValueError: If there is no such group; the message lists the known groups.
    """
    if group not in groups:
        raise unknown_name("group", group, sorted(groups) or ["none: define one under data.groups"])
    return groups[group]


def rows_of(dataset: Dataset, groups: Mapping[str, Bools], *, label: int | str | None = None, group: str | None = None) -> Bools:
    """Rows of a class, of a group, of both, or all rows: bool ``(n_rows,)``.

    Raises:
        ValueError: If the class or group is unknown, or no row is left.
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
    """Refuse rows that are all of one class. This is for values about how well a group is served, whatever the class.

    Args:
        labels: int64 ``(n_rows,)``.
        of_whom: Whose rows they are: ``"of group 'women'"``; or empty for the whole set.
        dataset: The data set from which they came.

    Raises:
        ValueError: If there are fewer than two classes among them.
    """
    whose = f"rows {of_whom}".strip()
    found = labels.unique().tolist()
    if not found:
        raise ValueError(f"holds no {whose}: name another group, or raise data.probe_rows")
    if len(found) == 1:
        raise ValueError(
            f"holds {whose} of class {dataset.class_names[found[0]]!r} only: a model that always answers this class would have the lowest "
            "loss. Raise data.probe_rows, or use a value about one class: class_loss or miss_rate, which can be limited to a group, or "
            "disparity with criterion equal_opportunity"
        )
