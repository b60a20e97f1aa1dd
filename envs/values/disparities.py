"""The value for gaps between groups: demographic parity, equal opportunity, equalised odds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from ..data.sources import Bools, Dataset, Rows
from .interface import VALUES, Value, members_of, require_two_classes
from .losses import smooth_maximum

_EPSILON = 1e-3
_TEMPERATURE = 0.01


@VALUES.register("disparity")
class Disparity(Value):
    r"""Gap in the mean score for a class between a group and everybody else, or another group, in probability.

    The score is the probability p that the model gives to the class ``label``. The criterion says among which rows scores are compared:

    - ``demographic_parity``: all rows. Scores must not depend on the group, even if the classes' true shares do.
    - ``equal_opportunity``: rows whose true class is ``label``. People of that class must be found equally often in both groups.
    - ``equalised_odds``: rows of each true class in turn; the widest gap counts. With two classes, these are the gap between the
      true-positive rates and the gap between the false-positive rates.

    The gap is smoothed, so that it is differentiable at 0. The smooth gap is at most ε = 0.001 below the gap:

    .. math:: d = \sqrt{(\bar p_\text{group} - \bar p_\text{others})^2 + \epsilon^2} - \epsilon

    For equalised odds, the widest of the C gaps is smoothed too: :math:`T \log \frac{1}{C} \sum_y e^{d_y / T}` with T = 0.01. It is 0 if
    all gaps are 0. It is below the widest gap by at most T·ln C (two classes: 0.007; ten: 0.023) + ε.

    The sources define the criteria by the rates of decisions. Mean scores are the rates of a model that decides by chance, with its scores
    as probabilities. Scores that agree on average may disagree once they are cut off at one half.

    Near equality the loss bends sharply: its second derivative there is 1/ε. It also bends sharply within T of a tie of the widest gaps. To
    first order no update harms a gap of 0. To second order, a change of the gap beyond ε looks far worse than it is. If groups start nearly
    equal, screen with ``harm: measured``.

    The probe set holds ``data.probe_rows`` rows of each side. With equalised odds, it holds that many per side and true class.

    References:
        Dwork, Hardt, Pitassi, Reingold & Zemel (2012), *Fairness through awareness*, ITCS.
        Hardt, Price & Srebro (2016), *Equality of opportunity in supervised learning*, NeurIPS.
    """

    group: str = Field(description="The group, by its name under data.groups.")
    label: int | str = Field(description="The class whose score is compared, by name or number.")
    criterion: Literal["demographic_parity", "equal_opportunity", "equalised_odds"] = Field(
        "demographic_parity",
        description="Rows among which scores are compared. demographic_parity: all. equal_opportunity: those whose true class is label. "
        "equalised_odds: those of each true class; the widest gap counts.",
    )
    against: str | None = Field(None, description="The group to compare with, by its name under data.groups; everybody else by default.")

    @model_validator(mode="after")
    def _check(self) -> Disparity:
        if self.against == self.group:
            raise ValueError(f"against={self.against!r} is the group itself: name another group, or leave it out for everybody else")
        return self

    def strata(self, dataset: Dataset, groups: Mapping[str, Bools]) -> Sequence[Bools]:
        """The rows of the group, and those of the other side; by true class unless the criterion is demographic parity.

        Raises:
            ValueError: If a class or group is unknown, the two groups share members, or one side has no rows (of a class).
        """
        dataset.class_index(self.label)
        members = members_of(self.group, groups)
        others = ~members if self.against is None else members_of(self.against, groups)
        if n_both := int((members & others).sum()):
            raise ValueError(
                f"disparity: {n_both} rows are in group {self.group!r} and in group {self.against!r}: name groups without common members"
            )
        sides = [
            (members, f"in group {self.group!r}"),
            (others, f"outside group {self.group!r}" if self.against is None else f"in group {self.against!r}"),
        ]
        strata = []
        for true in self._true_classes(dataset):
            for side, who in sides:
                stratum = side if true is None else side & (dataset.labels == true)
                if not stratum.any():
                    of_class = "" if true is None else f" of class {dataset.class_names[true]!r}"
                    raise ValueError(f"disparity: the data has no rows{of_class} {who}: name another group or class")
                strata.append(stratum)
        return strata

    def check(self, probe: Rows, dataset: Dataset) -> None:
        """Demographic parity needs rows of at least two classes. The other criteria draw their rows by class."""
        if self.criterion == "demographic_parity":
            require_two_classes(probe.y, "", dataset)

    def loss(self, logits: Tensor, probe: Rows, dataset: Dataset) -> Tensor:
        """Smooth gap on the probe set, ``(...,)``, in probability."""
        score = logits.softmax(dim=-1)[..., dataset.class_index(self.label)]  # (..., n_rows)
        members = probe.groups[self.group]
        others = ~members if self.against is None else probe.groups[self.against]
        gaps = []
        for true in self._true_classes(dataset):
            here, there = (side if true is None else side & (probe.y == true) for side in (members, others))
            gap = score[..., here].mean(dim=-1) - score[..., there].mean(dim=-1)
            gaps.append((gap.square() + _EPSILON**2).sqrt() - _EPSILON)
        return gaps[0] if len(gaps) == 1 else smooth_maximum(torch.stack(gaps, dim=-1), _TEMPERATURE)

    def _true_classes(self, dataset: Dataset) -> Sequence[int | None]:
        """The true classes among whose rows scores are compared; ``None`` stands for all rows at once."""
        match self.criterion:
            case "demographic_parity":
                return [None]
            case "equal_opportunity":
                return [dataset.class_index(self.label)]
            case "equalised_odds":
                return list(range(len(dataset.class_names)))
