"""Lots: how principals' private data is drawn from the train pool.

Lots are drawn anew at each reset and stay fixed within an episode. A *mixture* says of which kinds a lot's rows are; a kind is a class, or
a class within a stratum. Principals that share a *site* are dealt different rows of a kind, without replacement, until the kind runs out at
that site. Then it is dealt again from its start. By default the whole cooperative is one site.

Where principals hold columns of the same rows instead, :mod:`proxycoop.envs.data.columns` draws them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from ...settings import Settings, default_kind
from .. import randomness
from ..randomness import Purpose, fold
from .mixtures import DirichletMixture, LogisticNormalMixture
from .sites import Sites
from .sources import Dataset, Splits


class Corruption(Settings):
    """What is wrong with corrupt lots: labels are swapped within pairs of classes, or records are linked to the wrong rows."""

    what: Literal["labels", "links"] = Field(
        "labels",
        description="labels: a corrupt lot's labels are swapped within pairs of classes. links, for substrate vertical: rows of a corrupt "
        "lot carry another row's values in the lot's columns; labels stay right.",
    )
    share: float = Field(0.0, ge=0, le=1, description="Share of the cooperative's lots that are corrupt (rounded to whole lots).")
    rate: float = Field(0.9, ge=0, le=1, description="Share of a corrupt lot's labels that are swapped, or of its rows linked wrongly.")
    pairs: tuple[tuple[int | str, int | str], ...] = Field((), description="Pairs of classes, by name or number, whose labels are swapped.")

    @model_validator(mode="after")
    def _check(self) -> Corruption:
        if self.what == "links":
            if self.pairs:
                raise ValueError(f"pairs={self.pairs}: with what: links no labels are swapped: leave pairs out, or use what: labels")
            if self.share > 0 and not self.rate > 0:
                raise ValueError(f"share={self.share} of the lots must be corrupt, but no row is linked wrongly: give a rate above 0")
        elif self.share > 0 and not (self.pairs and self.rate > 0):
            raise ValueError(f"share={self.share} of the lots must be corrupt, but no labels are swapped: give pairs and a rate above 0")
        return self

    def lots(self, keys: Tensor, n_principals: int, n_lots: int) -> Tensor:
        """Draw the corrupt lots, bool ``(E, N, K)``: equally many in every cooperative, each lot with equal probability."""
        n_all = n_principals * n_lots
        place = randomness.uniform(fold(keys, Purpose.CORRUPTION), n_all).argsort(dim=-1).argsort(dim=-1)
        return (place < round(self.share * n_all)).reshape(len(keys), n_principals, n_lots)

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


class Lots(Settings):
    """How many lots there are, how large they are, and what they hold."""

    per_principal: int = Field(4, ge=1, le=10, description="Number of lots K of each principal.")
    rows: int | tuple[int, ...] = Field(20, description="Rows of each lot: one number, or one per principal for unequal holdings.")
    mixture: Annotated[Annotated[DirichletMixture | LogisticNormalMixture, Field(discriminator="kind")], default_kind("dirichlet")] = Field(
        default_factory=DirichletMixture, description="Which share of a lot each class has."
    )
    sites: Sites | None = Field(
        None, description="How the rows are divided among the principals. By default every lot is dealt from all rows."
    )
    strata: str | None = Field(
        None, description="Attribute whose levels are mixed in a lot as classes are; needs mixture logistic_normal. None by default."
    )
    corruption: Corruption = Field(default_factory=Corruption, description="How many lots are corrupt, and how.")
    site_shift: float = Field(0.0, ge=0, description="Standard deviation of the constant that is added to each feature of each principal.")
    tags: dict[str, float] = Field(default_factory=dict, description="Provenance tags, with the probability of each; they must sum to 1.")

    @model_validator(mode="after")
    def _check(self) -> Lots:
        rows = (self.rows,) if isinstance(self.rows, int) else self.rows
        if not rows or min(rows) < 1:
            raise ValueError(f"rows={self.rows}: every lot needs at least one row")
        if self.tags and (abs(sum(self.tags.values()) - 1) > 1e-6 or min(self.tags.values()) < 0):
            raise ValueError(f"tags={self.tags}: probabilities must be at least 0 and sum to 1")
        if self.strata is not None and self.mixture.kind != "logistic_normal":
            raise ValueError(f"strata={self.strata!r}: a {self.mixture.kind} mixture mixes only classes: use mixture.kind logistic_normal")
        return self

    def samples(self, n_principals: int) -> Tensor:
        """Rows of every lot, int64 ``(N, K)``.

        Raises:
            ValueError: If ``rows`` has entries for a different number of principals.
        """
        rows = (self.rows,) * n_principals if isinstance(self.rows, int) else self.rows
        if len(rows) != n_principals:
            raise ValueError(f"lots.rows has {len(rows)} entries for {n_principals} principals: give one number, or one per principal")
        return torch.tensor(rows)[:, None].repeat(1, self.per_principal)

    def drawn_tags(self, keys: Tensor, n_principals: int) -> Tensor:
        """Draw every lot's provenance tag, as an index, int64 ``(E, N, K)``; 0 if there are no tags."""
        if not self.tags:
            return keys.new_zeros(len(keys), n_principals, self.per_principal)
        edges = torch.tensor(list(self.tags.values()), dtype=torch.float64).cumsum(dim=0)[:-1].to(keys.device)
        return torch.searchsorted(edges, randomness.uniform(fold(keys, Purpose.TAGS), n_principals, self.per_principal), right=True)


@dataclass(frozen=True)
class DrawnLots:
    """The lots of a batch of E cooperatives with N principals, K lots each, and at most R rows per lot.

    Attributes:
        x: Features of the rows, ``(E, N, K, R, D)``.
        inputs: The same rows, prepared for the model; see :meth:`~proxycoop.envs.model.models.Model.prepare`.
        y: Labels after corruption, int64 ``(E, N, K, R)``.
        present: bool ``(N, K, R)``: False where a smaller lot is padded.
        corrupt: Which lots are corrupt, bool ``(E, N, K)``.
        tags: Index of each lot's provenance tag, int64 ``(E, N, K)``; 0 if there are no tags.
        samples: Number of rows of each lot, int64 ``(N, K)``.
        rows: Each row's index in the train pool, int64 ``(E, N, K, R)``. Nobody in the cooperative sees it.
    """

    x: Tensor
    inputs: Tensor
    y: Tensor
    present: Tensor
    corrupt: Tensor
    tags: Tensor
    samples: Tensor
    rows: Tensor

    def prepared(self, prepare: Callable[[Tensor], Tensor]) -> DrawnLots:
        """The same lots, prepared for a model. ``x`` becomes a view of ``inputs``, so that nothing is stored twice.

        Args:
            prepare: The model's :meth:`~proxycoop.envs.model.models.Model.prepare`.
        """
        inputs = prepare(self.x)
        return replace(self, x=inputs[..., : self.x.shape[-1]], inputs=inputs)

    def seated(self, seats: Sequence[int]) -> DrawnLots:
        """The same cooperatives, in which seat i holds copies of the lots of seat ``seats[i]``."""
        index = list(seats)
        return DrawnLots(
            x=self.x[:, index],
            inputs=self.inputs[:, index],
            y=self.y[:, index],
            present=self.present[index],
            corrupt=self.corrupt[:, index],
            tags=self.tags[:, index],
            samples=self.samples[index],
            rows=self.rows[:, index],
        )

    def only(self, held: Tensor) -> DrawnLots:
        """The same cooperatives, in which the lots that are not ``held``, bool ``(N, K)``, have no rows."""
        return replace(self, present=self.present & held[..., None], samples=self.samples * held)


class LotSource:
    """Draws the lots of a scenario.

    Args:
        lots: The settings.
        splits: The cooperative's data.
        n_principals: Number of principals N.

    Raises:
        ValueError: If the settings do not fit the data.
    """

    def __init__(self, lots: Lots, splits: Splits, n_principals: int) -> None:
        lots.mixture.check(splits.dataset)
        self.lots = lots
        self.splits = splits
        self.device = splits.train.y.device
        samples = lots.samples(n_principals)
        self.samples, self.n_rows = samples.to(self.device), int(samples.max())
        self.swapped = lots.corruption.swapped(splits.dataset).to(self.device)
        names, site = self._sites(n_principals)
        strata, stratum = self._strata()
        shape = (len(names), len(strata), splits.n_classes)
        n_cells = math.prod(shape)  # a cell holds the rows of one kind at one site
        self.n_kinds = shape[1] * shape[2]
        self.site = torch.arange(n_principals, device=self.device) % len(names)  # (N,)
        cell = torch.where(site < 0, n_cells, (site * shape[1] + stratum) * shape[2] + splits.train.y)  # rows without a site come last
        self.by_cell = cell.argsort(stable=True)[: int((site >= 0).sum())]  # the pool's rows, cell by cell
        self.cell = cell[self.by_cell]
        self.cell_size = torch.bincount(self.cell, minlength=n_cells)
        self.cell_start = self.cell_size.cumsum(dim=0) - self.cell_size
        counts = self.cell_size.reshape(shape)
        self._check_pool(counts.sum(dim=1), names)
        self.counts = counts[self.site].double()  # (N, n_strata, n_classes)

    def draw(self, keys: Tensor, owned: Tensor) -> DrawnLots:
        """Draw the lots of all principals.

        Args:
            keys: One key per environment, int64 ``(E,)``.
            owned: Whether a principal's profile protects a class, bool ``(E, N, n_classes)``.
        """
        n_agents, n_lots = self.samples.shape
        n_rows = self.n_rows
        present = torch.arange(n_rows, device=self.device) < self.samples[..., None]  # (N, K, R)
        kinds = self._kinds(keys, owned, n_rows)  # (E, N, K, R)
        labels = kinds % self.splits.n_classes
        rows = self._deal(fold(keys, Purpose.ROWS, 1), kinds, present)  # (E, N, K, R)
        x = self.splits.train.x[rows]  # (E, N, K, R, D)
        if self.lots.site_shift:
            shift = randomness.normal(fold(keys, Purpose.SITE_SHIFT), n_agents, 1, 1, x.shape[-1])
            x = x + self.lots.site_shift * shift.to(x.dtype)

        corrupt = self.lots.corruption.lots(keys, n_agents, n_lots)
        noisy = randomness.uniform(fold(keys, Purpose.LABELS), n_agents, n_lots, n_rows) < self.lots.corruption.rate
        y = torch.where(corrupt[..., None] & noisy, self.swapped[labels], labels)
        return DrawnLots(
            x=x,
            inputs=x,
            y=y,
            present=present,
            corrupt=corrupt,
            tags=self.lots.drawn_tags(keys, n_agents),
            samples=self.samples,
            rows=rows,
        )

    def _check_pool(self, counts: Tensor, names: Sequence[str]) -> None:
        """Refuse sites without rows that the mixture may need. ``counts``: rows of every class at every site, ``(n_sites, n_classes)``."""
        where = "" if self.lots.sites is None else "; or join levels into larger sites"
        for name, of_class in zip(names, counts, strict=True):
            empty = [self.splits.dataset.class_names[i] for i in torch.nonzero(of_class == 0)[:, 0]]
            if empty and (self.lots.mixture.every_class or len(empty) == len(of_class)):
                what = f"{', '.join(empty)}{'' if self.lots.sites is None else f' at site {name!r}'}"
                raise ValueError(f"data: no rows are left in the train pool for {what}: lower the rows of the other splits{where}")

    def _sites(self, n_principals: int) -> tuple[list[str], Tensor]:
        """The sites' names, and each pool row's site, int64 ``(n_pool,)``; −1 for rows without a site."""
        if self.lots.sites is None:
            return ["the train pool"], torch.zeros(len(self.splits.train), dtype=torch.int64, device=self.device)
        names, site = self.lots.sites.divide(self.splits.dataset, n_principals)
        return names, torch.from_numpy(site[self.splits.train_index]).to(self.device)

    def _strata(self) -> tuple[list[str], Tensor]:
        """The strata's names, and each pool row's stratum, int64 ``(n_pool,)``."""
        if self.lots.strata is None:
            return ["all"], torch.zeros(len(self.splits.train), dtype=torch.int64, device=self.device)
        levels = self.splits.dataset.levels(self.lots.strata)
        words = self.splits.dataset.attribute(self.lots.strata)[self.splits.train_index]
        return levels, torch.from_numpy((words[:, None] == np.array(levels)).argmax(axis=1)).to(self.device)

    def _kinds(self, keys: Tensor, owned: Tensor, n_rows: int) -> Tensor:
        """The kind of each row, int64 ``(E, N, K, R)``, drawn with the probabilities of its lot's mixture."""
        n_agents, n_lots = self.samples.shape
        shares = self.lots.mixture.shares(fold(keys, Purpose.MIXTURE), n_lots, owned, self.counts, self.splits.dataset)
        u = randomness.uniform(fold(keys, Purpose.ROWS, 0), n_agents, n_lots, n_rows)
        edges = shares.cumsum(dim=-1)  # (E, N, K, n_kinds)
        edges = edges.masked_fill(edges >= edges[..., -1:], 1.0)  # rounding must not lead to a last kind without rows
        return torch.searchsorted(edges[..., :-1].contiguous(), u, right=True)

    def _deal(self, keys: Tensor, kinds: Tensor, present: Tensor) -> Tensor:
        """A pool row for every lot row: the next row of its cell in random order; from the start again when the cell runs out."""
        n_envs = len(keys)
        order = randomness.uniform(keys, len(self.by_cell)) + self.cell  # sorts within cells
        dealt = self.by_cell[order.argsort(dim=-1)]  # (E, pool): every cell in random order, cells one after another
        flat = (kinds + self.n_kinds * self.site[:, None, None]).reshape(n_envs, -1)  # (E, N·K·R), cells
        wanted = torch.nn.functional.one_hot(flat, len(self.cell_size)) * present.reshape(-1, 1)  # (E, N·K·R, n_cells)
        turn = (wanted.cumsum(dim=1) - wanted).gather(-1, flat[..., None])[..., 0]  # how many rows of its cell came before
        index = self.cell_start[flat] + turn % self.cell_size[flat]
        return dealt.gather(1, index).reshape(kinds.shape)
