r"""Corruption: which lots are corrupt, how badly, and what is wrong with them.

Four things can be wrong. *Labels* are swapped within pairs of classes. *Links* put another row's values into a lot's columns. *Features*
are measured with noise. *Stale* rows come from an earlier state of the world, in which each class lay elsewhere:

.. math:: x_r \leftarrow x_r + a_{ik}\, s \odot d_{y_r}, \qquad d_c \sim \mathcal{N}(0, I)

with :math:`a_{ik}` the lot's ``size`` (how far the world has moved since), s the features' standard deviations in the train pool, and
:math:`d_c` the way in which class c moved. It is drawn once an episode, so that all stale lots tell of the same past, each of its own date.
Labels were right at the time. What an old row teaches is where the boundary between classes was, not where it is: p(y | x) differs, which
is *real concept drift* in the words of Gama et al.

References:
    Gama, Žliobaitė, Bifet, Pechenizkiy & Bouchachia (2014), *A survey on concept drift adaptation*, ACM Computing Surveys 46(4). Natarajan,
    Dhillon, Ravikumar & Tewari (2013), *Learning with noisy labels*, NeurIPS, for labels that are wrong at a known rate.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from ...settings import LATER, Settings, misplaced
from .. import randomness
from ..randomness import Purpose, fold
from .dataset import Dataset

_Share = Annotated[float, Field(ge=0, le=1)]
_Size = Annotated[float, Field(ge=0)]
_ONE_SIZE = 1.0


class Corruption(Settings):
    """What is wrong with corrupt lots: labels, links between records, features, or their age."""

    what: Literal["labels", "links", "features", "stale"] = Field(
        "labels",
        description="labels: a corrupt lot's labels are swapped within pairs of classes. links, for substrate vertical: rows of a corrupt "
        "lot carry another row's values in the lot's columns; labels stay right. features: its rows are measured with normal noise. stale: "
        "its rows come from an earlier state of the world, in which each class lay elsewhere.",
    )
    share: float = Field(0.0, ge=0, le=1, description="Share of the cooperative's lots that are corrupt (rounded to whole lots).")
    principals: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        (),
        json_schema_extra=LATER,
        description="Principals whose lots are all corrupt, in every episode, such as [2, 3]; from 0. They are so beside the share that is "
        "drawn among all lots.",
    )
    rate: _Share | tuple[_Share, _Share] = Field(
        0.9,
        description="Share of a corrupt lot's labels that are swapped, or of its rows that are linked wrongly, noisy or old. Two numbers: "
        "each corrupt lot draws its own between them, uniformly.",
    )
    pairs: tuple[tuple[int | str, int | str], ...] = Field((), description="Pairs of classes, by name or number, whose labels are swapped.")
    size: _Size | tuple[_Size, _Size] = Field(
        _ONE_SIZE,
        json_schema_extra=LATER,
        description="features: standard deviation of the noise. stale: standard deviation of the classes' moves since. Both in each "
        "feature's own standard deviation. Two numbers: each corrupt lot draws its own between them, uniformly.",
    )

    @model_validator(mode="after")
    def _check(self) -> Corruption:
        (_, most), (_, largest) = (self._range("rate"), self._range("size"))
        if self.what != "labels" and self.pairs:
            raise ValueError(f"pairs={self.pairs}: with what: {self.what} no labels are swapped: leave pairs out, or use what: labels")
        if self.what in ("labels", "links") and self.size != _ONE_SIZE:
            raise ValueError(f"size={self.size}: with what: {self.what} nothing has a size: leave it out, or use what: features or stale")
        for place, principal in enumerate(self.principals):
            if principal in self.principals[:place]:
                raise misplaced(("principals", place), f"principal {principal} is named already: name each once")
        if not self.some:
            return self
        which = f"share={self.share} of the lots" if self.share else f"all lots of principals={list(self.principals)}"
        if self.what == "labels" and not (self.pairs and most > 0):
            raise ValueError(f"{which} must be corrupt, but no labels are swapped: give pairs and a rate above 0")
        if self.what == "links" and not most > 0:
            raise ValueError(f"{which} must be corrupt, but no row is linked wrongly: give a rate above 0")
        if self.what in ("features", "stale") and not (most > 0 and largest > 0):
            raise ValueError(f"{which} must be corrupt, but no row differs: give a rate and a size above 0")
        return self

    def check(self, n_principals: int) -> None:
        """Refuse principals that do not exist.

        Raises:
            ValueError: If so. The error has its place in a scenario.
        """
        for place, principal in enumerate(self.principals):
            if principal >= n_principals:
                where = ("lots", "corruption", "principals", place)
                raise misplaced(where, f"principals go from 0 to {n_principals - 1} (got {principal})")

    def _range(self, name: Literal["rate", "size"]) -> tuple[float, float]:
        """The least and the largest of a lot's numbers.

        Raises:
            ValueError: If they stand in the wrong order.
        """
        given: float | tuple[float, float] = getattr(self, name)
        low, high = given if isinstance(given, tuple) else (given, given)
        if low > high:
            raise ValueError(f"{name}=[{low:g}, {high:g}]: the smaller number must come first")
        return low, high

    @property
    def some(self) -> bool:
        """Whether lots are to be corrupt at all."""
        return self.share > 0 or bool(self.principals)

    @property
    def least_rate(self) -> float:
        """The smallest rate that a corrupt lot can have."""
        return self._range("rate")[0]

    def lots(self, keys: Tensor, n_principals: int, n_lots: int) -> Tensor:
        """Draw the corrupt lots, bool ``(E, N, K)``: equally many in every cooperative, each lot with equal probability.

        Beside them, all lots of the named ``principals`` are corrupt. Naming principals changes nothing about the lots of others.
        """
        n_all = n_principals * n_lots
        place = randomness.uniform(fold(keys, Purpose.CORRUPTION), n_all).argsort(dim=-1).argsort(dim=-1)
        drawn = (place < round(self.share * n_all)).reshape(len(keys), n_principals, n_lots)
        if self.principals:
            drawn[:, list(self.principals)] = True
        return drawn

    def mean_corrupt(self, n_principals: int, n_lots: int) -> float:
        """How many of the N·K lots of a cooperative are corrupt, on average."""
        n_all = n_principals * n_lots
        drawn = round(self.share * n_all) / n_all
        return (drawn * (n_principals - len(self.principals)) + len(self.principals)) * n_lots

    def rates(self, keys: Tensor, n_principals: int, n_lots: int) -> Tensor:
        """Every lot's rate, if it is corrupt, float64 ``(E, N, K)``."""
        return self._drawn("rate", fold(keys, Purpose.QUALITY, 0), n_principals, n_lots)

    def sizes(self, keys: Tensor, n_principals: int, n_lots: int) -> Tensor:
        """Every lot's size, if it is corrupt, float64 ``(E, N, K)``."""
        return self._drawn("size", fold(keys, Purpose.QUALITY, 1), n_principals, n_lots)

    def _drawn(self, name: Literal["rate", "size"], keys: Tensor, *shape: int) -> Tensor:
        """One number, or numbers drawn uniformly between two, float64 ``(E, *shape)``."""
        low, high = self._range(name)
        if low == high:
            return torch.full((len(keys), *shape), low, dtype=torch.float64, device=keys.device)
        return low + (high - low) * randomness.uniform(keys, *shape)

    def severity(self, keys: Tensor, corrupt: Tensor) -> Tensor:
        """How bad each lot is, float64 ``(E, N, K)``: 0 for clean lots, the rate where labels or links are wrong, else rate × size.

        Args:
            keys: One key per environment, int64 ``(E,)``.
            corrupt: Which lots are corrupt, bool ``(E, N, K)``.
        """
        rates = self.rates(keys, *corrupt.shape[1:])
        bad = rates if self.what in ("labels", "links") else rates * self.sizes(keys, *corrupt.shape[1:])
        return torch.where(corrupt, bad, 0.0)

    def swapped(self, dataset: Dataset) -> Tensor:
        """The label that each label is swapped to, int64 ``(n_classes,)``.

        Raises:
            ValueError: If a class is unknown or occurs in two pairs.
        """
        target = torch.arange(len(dataset.class_names))
        for a, b in self.pairs:
            i, j = dataset.class_index(a), dataset.class_index(b)
            if target[i] != i or target[j] != j or i == j:
                raise ValueError(f"lots.corruption.pairs: the pair ({a}, {b}) repeats a class; every class may occur in one pair only")
            target[i], target[j] = j, i
        return target

    @property
    def moves(self) -> bool:
        """Whether corruption moves features."""
        return self.what in ("features", "stale") and self.some

    def moved(
        self,
        keys: Tensor,
        labels: Tensor,
        wrong: Tensor,
        deviation: Tensor,
        n_classes: int,
        who: Tensor | None = None,
        n_principals: int = 0,
    ) -> Tensor | None:
        """How far corruption moves the features of each row, ``(E, N, K, R, D)``; ``None`` where it moves none.

        Args:
            keys: One key per environment, int64 ``(E,)``.
            labels: True labels, int64 ``(E, N, K, R)``.
            wrong: Rows that are noisy or old, bool ``(E, N, K, R)``.
            deviation: Standard deviation of each feature, ``(D,)``.
            n_classes: Number of classes.
            who: The principals whose rows these are, int64 ``(E, N)``; all of them by default.
            n_principals: Number of all principals, if only some are given.
        """
        if not self.moves:
            return None
        n_envs, n_agents, n_lots, n_rows = labels.shape
        if self.what == "features" and who is not None:
            n_numbers = n_lots * n_rows * len(deviation)
            places = who[..., None] * n_numbers + torch.arange(n_numbers, device=who.device)
            unit = randomness.normal_at(fold(keys, Purpose.NOISE), places).reshape(*labels.shape, len(deviation))
        elif self.what == "features":
            unit = randomness.normal(fold(keys, Purpose.NOISE), n_agents, n_lots, n_rows, len(deviation))
        else:
            move = randomness.normal(fold(keys, Purpose.DRIFT), n_classes, len(deviation))  # (E, n_classes, D)
            unit = move[torch.arange(n_envs, device=keys.device)[:, None], labels.flatten(1)].reshape(*labels.shape, -1)
        size = self.sizes(keys, n_agents if who is None else n_principals, n_lots)
        size = (size if who is None else size.gather(1, who[..., None].expand(-1, -1, n_lots)))[..., None, None]
        moved: Tensor = torch.where(wrong[..., None], size * unit, 0.0).to(deviation.dtype) * deviation
        return moved
