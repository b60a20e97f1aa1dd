"""The privacy value: the model's confidence in the true labels of records that it must not learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import Field
from torch import Tensor

from ..data.sources import Bools, Dataset, Rows
from ..model.likelihood import cross_entropy
from .interface import VALUES, Value, rows_of


@VALUES.register("confidence")
class Confidence(Value):
    r"""Mean probability that the model gives to the true labels of private records: a privacy value.

    .. math:: \frac{1}{n} \sum_i p_\theta(y_i \mid x_i)

    The probe set is a "do not memorise" set: records whose labels the model must not learn to predict better. They are in no lot and in no
    other split, so nobody trains on them. Updates may still reveal something about them, if somebody holds copies of the records, records
    of the same people, or similar records. The value limits that. Simple attacks read the confidence in the true label. The attack of Yeom
    et al. guesses that a record with a small loss was trained on. The attack of Shokri et al. learns the difference from the model's
    answers.

    What the value does not protect:

    * the rows in the lots: it says nothing about them;
    * single records: the mean can stay the same while one record is learned;
    * features: it is only about the label, given the features.

    It is not differential privacy. There is no guarantee against an attacker who knows more. Whoever screens must hold the records, and
    learns the updates' harm to them. The value also cannot tell memorising from learning: a model that is right about everybody is right
    about these records too. So it conflicts with utility wherever the records resemble the validation set. Use it for records that the task
    is not about.

    References:
        Shokri, Stronati, Song & Shmatikov (2017), *Membership inference attacks against machine learning models*, IEEE S&P.
        Yeom, Giacomelli, Fredrikson & Jha (2018), *Privacy risk in machine learning*, IEEE CSF.
    """

    label: int | str | None = Field(None, description="Class of the records, by name or number; any class by default.")
    group: str | None = Field(None, description="Group of the records, by its name under data.groups; any group by default.")

    def strata(self, dataset: Dataset, groups: Mapping[str, Bools]) -> Sequence[Bools]:
        """The rows from which the records are drawn."""
        return [rows_of(dataset, groups, label=self.label, group=self.group)]

    def loss(self, logits: Tensor, probe: Rows, dataset: Dataset) -> Tensor:
        """Mean probability of the true labels, ``(...,)``."""
        del dataset
        return (-cross_entropy(logits, probe.y)).exp().mean(dim=-1)
