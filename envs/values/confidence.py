"""The privacy value: confidence in the true labels of records that the model must not come to know."""

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

    The probe set is a "do not memorise" set: records whose labels the model must not come to know better. They stand in no lot and in no
    other split, so that nobody trains on them; what the value limits is what updates reveal of them all the same, because somebody
    holds copies of the records, records of the same people, or records much like theirs. Confidence in the true label is what simple
    attacks read: that of Yeom et al. takes a record with a small loss for one that was trained on, that of Shokri et al. learns the
    difference from the answers.

    What it does not protect: the rows in the lots, about which it says nothing; single records, since a mean can stay while one of
    them is learned; features, only the label given the features. It is no differential privacy: there is no guarantee against an attacker
    who knows more, and whoever screens must hold the records and learns the updates' harm to them. It cannot tell memorising
    from learning either: a model that is right about everybody is right about these records. So it is at odds with utility wherever
    the records are like the validation set; it fits records that the task is not about.

    References:
        Shokri, Stronati, Song & Shmatikov (2017), *Membership inference attacks against machine learning models*, IEEE S&P.
        Yeom, Giacomelli, Fredrikson & Jha (2018), *Privacy risk in machine learning*, IEEE CSF.
    """

    label: int | str | None = Field(None, description="Class of the records, by name or number; any by default.")
    group: str | None = Field(None, description="Group of the records, by its name under data.groups; any by default.")

    def strata(self, dataset: Dataset, groups: Mapping[str, Bools]) -> Sequence[Bools]:
        """The rows that the records are drawn from."""
        return [rows_of(dataset, groups, label=self.label, group=self.group)]

    def loss(self, logits: Tensor, probe: Rows, dataset: Dataset) -> Tensor:
        """Mean probability of the true labels, ``(...,)``."""
        del dataset
        return (-cross_entropy(logits, probe.y)).exp().mean(dim=-1)
