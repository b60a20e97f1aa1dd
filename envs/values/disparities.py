"""The value that is a gap between groups: demographic parity, equal opportunity, equalised odds."""

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

    The score is the probability p that the model gives to the class ``label``. Among which rows it is compared, the criterion says:

    - ``demographic_parity``: all. Scores must not depend on the group, even where the classes' true shares do.
    - ``equal_opportunity``: those whose true class is ``label``. Who deserves it is found as often in either group.
    - ``equalised_odds``: those of each true class in turn, and the widest gap counts. With two classes these are the gaps between the
      true-positive and between the false-positive rates.

    A gap is made smooth, so that it is differentiable at 0, and within ε = 0.001 below the gap everywhere:

    .. math:: d = \sqrt{(\bar p_\text{group} - \bar p_\text{others})^2 + \epsilon^2} - \epsilon

    and the widest of the C gaps of equalised odds is :math:`T \log \frac{1}{C} \sum_y e^{d_y / T}` with T = 0.01: 0 where all gaps are, and
    at most T·ln C (two classes: 0.007; ten: 0.023) + ε below the widest.

    The sources speak of the rates of decisions; mean scores are the rates of a model that decides by chance, with its scores as
    probabilities. Scores that agree on average can disagree once cut off at one half.

    Near equality the loss bends sharply (its second derivative is 1/ε there), and so it does within T of a tie of the widest gaps. To
    first order no update harms a gap of 0, and to second order a change of it beyond ε looks far worse than it is. Where groups start
    nearly equal, screen with ``harm: measured``.

    The probe set holds ``data.probe_rows`` rows of either side, and with equalised odds so many per side and true class.

    References:
        Dwork, Hardt, Pitassi, Reingold & Zemel (2012), *Fairness through awareness*, ITCS.
        Hardt, Price & Srebro (2016), *Equality of opportunity in supervised learning*, NeurIPS.
    """

    group: str = Field(description="The group, by its name under data.groups.")
    label: int | str = Field(description="The class whose score is compared, by name or number.")
    criterion: Literal["demographic_parity", "equal_opportunity", "equalised_odds"] = Field(
        "demographic_parity",
        description="Among which rows scores are compared: all; those whose true class is the label; those of each true class, and the "
        "widest gap counts.",
    )
    against: str | None = Field(None, description="The group to compare with, by its name under data.groups; everybody else by default.")

    @model_validator(mode="after")
    def _check(self) -> Disparity:
        if self.against == self.group:
            raise ValueError(f"against={self.against!r}: is the group itself; name another, or leave it out for everybody else")
        return self

    def strata(self, dataset: Dataset, groups: Mapping[str, Bools]) -> Sequence[Bools]:
        """The group's rows, and the others'; by true class unless the criterion is demographic parity.

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
                    raise ValueError(f"disparity: the data has no rows{of_class} {who}")
                strata.append(stratum)
        return strata

    def check(self, probe: Rows, dataset: Dataset) -> None:
        """Two classes at least, for demographic parity; the other criteria draw their rows by class."""
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
        """The true classes among whose rows scores are compared; ``None`` for all rows at once."""
        match self.criterion:
            case "demographic_parity":
                return [None]
            case "equal_opportunity":
                return [dataset.class_index(self.label)]
            case "equalised_odds":
                return list(range(len(dataset.class_names)))
