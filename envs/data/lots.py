"""Lots: how principals' private data is drawn from the train pool.

Lots are drawn anew at each reset and stay fixed within an episode. A *mixture* says of which kinds a lot's rows are; a kind is a class, or
a class within a stratum. Principals that share a *site* are dealt different rows of a kind, without replacement, until the kind runs out at
that site. Then it is dealt again from its start. By default the whole cooperative is one site.

Several principals may hold the *same* lots, as where all bought them from one seller. Then each group of ``holders`` principals is dealt
one principal's lots, with their labels and whatever is wrong with them.

Where principals hold columns of the same rows instead, :mod:`proxycoop.envs.data.columns` draws them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from ...settings import LATER, Settings, default_kind
from .. import randomness
from ..participation import Attendance
from ..randomness import Purpose, fold
from .corruption import Corruption
from .mixtures import DirichletMixture, LogisticNormalMixture
from .sites import Sites
from .sources import Splits


class Lots(Settings):
    """How many lots there are, how large they are, and what they hold."""

    per_principal: int = Field(4, ge=1, le=10, description="Number of lots K of each principal.")
    rows: int | tuple[int, ...] = Field(20, description="Rows of each lot: one number, or one per principal for unequal holdings.")
    mixture: Annotated[Annotated[DirichletMixture | LogisticNormalMixture, Field(discriminator="kind")], default_kind("dirichlet")] = Field(
        default_factory=DirichletMixture, description="Which share of a lot each class has."
    )
    holders: int = Field(
        1,
        ge=1,
        json_schema_extra=LATER,
        description="Number of principals that hold the same lots. Each episode draws anew who holds the same as whom.",
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
        if self.holders > 1 and self.sites is not None:
            raise ValueError(f"holders={self.holders}: principals of different sites cannot hold the same lots: leave sites or holders out")
        if self.holders > 1 and len(set(rows)) > 1:
            raise ValueError(f"holders={self.holders}: lots that are the same have equally many rows: give one number for rows={self.rows}")
        if self.holders > 1 and self.corruption.principals:
            raise ValueError(
                f"holders={self.holders}: principals that hold the same lots also hold what is wrong with them, so corruption.principals "
                "would name others too: leave one of the two out"
            )
        return self

    def samples(self, n_principals: int) -> Tensor:
        """Rows of every lot, int64 ``(N, K)``.

        Raises:
            ValueError: If ``rows`` has entries for a different number of principals, or a principal is named that does not exist.
        """
        self.corruption.check(n_principals)
        rows = (self.rows,) * n_principals if isinstance(self.rows, int) else self.rows
        if len(rows) != n_principals:
            raise ValueError(f"lots.rows has {len(rows)} entries for {n_principals} principals: give one number, or one per principal")
        if self.holders > n_principals:
            raise ValueError(f"lots.holders={self.holders}: there are only {n_principals} principals: lower holders")
        return torch.tensor(rows)[:, None].repeat(1, self.per_principal)

    def groups(self, keys: Tensor, n_principals: int) -> tuple[Tensor, Tensor]:
        """Draw who holds the same lots as whom.

        Args:
            keys: One key per environment, int64 ``(E,)``.
            n_principals: Number of principals N. If ``holders`` does not divide it, one group is smaller.

        Returns:
            Each principal's group, and the principal whose lots its group holds, int64 ``(E, N)`` each.
        """
        if self.holders == 1:
            everyone = torch.arange(n_principals, device=keys.device).expand(len(keys), -1)
            return everyone, everyone
        order = randomness.permutation(fold(keys, Purpose.HOLDERS), n_principals)  # principals in random order
        place = order.argsort(dim=-1)
        group = place // self.holders
        return group, order.gather(1, group * self.holders)

    def drawn_tags(self, keys: Tensor, n_principals: int) -> Tensor:
        """Draw every lot's provenance tag, as an index, int64 ``(E, N, K)``; 0 if there are no tags."""
        if not self.tags:
            return keys.new_zeros(len(keys), n_principals, self.per_principal)
        edges = torch.tensor(list(self.tags.values()), dtype=torch.float64).cumsum(dim=0)[:-1].to(keys.device)
        return torch.searchsorted(edges, randomness.uniform(fold(keys, Purpose.TAGS), n_principals, self.per_principal), right=True)


@dataclass(frozen=True)
class LotRecords:
    """What is known of the lots of a batch of E cooperatives with N principals, without the features of their rows.

    There are K lots each, with at most R rows.

    Attributes:
        y: Labels after corruption, whole numbers ``(E, N, K, R)``.
        present: bool ``(N, K, R)``: False where a smaller lot is padded.
        corrupt: Which lots are corrupt, bool ``(E, N, K)``.
        tags: Index of each lot's provenance tag, int64 ``(E, N, K)``; 0 if there are no tags.
        samples: Number of rows of each lot, int64 ``(N, K)``.
        rows: Each row's index in the train pool, whole numbers ``(E, N, K, R)``. Nobody in the cooperative sees it.
        severity: How bad each corrupt lot is, float64 ``(E, N, K)``; see :meth:`~proxycoop.envs.data.corruption.Corruption.severity`. It is
            0 for clean lots. Nobody in the cooperative sees it.

    Of those who are present in a round alone, ``present`` and ``samples`` may have the axis of environments too.
    """

    y: Tensor
    present: Tensor
    corrupt: Tensor
    tags: Tensor
    samples: Tensor
    rows: Tensor
    severity: Tensor

    @cached_property
    def filled(self) -> Tensor:
        """Which lots have rows, bool ``(E, N, K)``."""
        return (self.samples > 0).expand(self.corrupt.shape)

    @cached_property
    def clean(self) -> Tensor:
        """Which lots have rows and are not corrupt, bool ``(E, N, K)``."""
        return self.filled & ~self.corrupt

    def held_by(self, holder: Tensor) -> LotRecords:
        """The same records, in which principal i of environment e holds the lots of principal ``holder[e, i]``, int64 ``(E, N)``."""
        e = torch.arange(len(holder), device=holder.device)[:, None]
        of_lots = {name: getattr(self, name)[e, holder] for name in ("y", "corrupt", "tags", "rows", "severity")}
        return replace(self, **of_lots)


@dataclass(frozen=True)
class DealtLots(LotRecords):
    """The lots of a cooperative of whom only some are present in a round: features are looked up for these alone.

    Attributes:
        keys: One key per environment, int64 ``(E,)``, from which the lots were drawn.
        holder: The principal whose lots each one holds, int64 ``(E, N)``.
        wrong: Rows that corruption moves, bool ``(E, N, K, R)``; ``None`` where it moves none.
    """

    keys: Tensor
    holder: Tensor
    wrong: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class DrawnLots(LotRecords):
    """The lots of a batch of E cooperatives with N principals, K lots each, and at most R rows per lot, with the features of the rows.

    Attributes:
        x: Features of the rows, ``(E, N, K, R, D)``.
        inputs: The same rows, prepared for the model; see :meth:`~proxycoop.envs.model.models.Model.prepare`.
    """

    x: Tensor
    inputs: Tensor

    @cached_property
    def row_weight(self) -> Tensor:
        """Weight of each row in its lot's mean, ``(N, K, R)``: one over the lot's rows, 0 for padding."""
        return self.present.to(self.inputs.dtype) / self.samples.clamp(min=1)[..., None]  # a lot may have no rows

    @cached_property
    def share(self) -> Tensor:
        """Each lot's share of all rows, ``(E, N, K)``, summing to 1 over lots."""
        n_rows = self.samples.sum() if self.samples.dim() == 2 else self.samples.sum(dim=(1, 2), keepdim=True)
        return (self.samples.to(self.inputs.dtype) / n_rows).expand(self.corrupt.shape)

    @cached_property
    def rows_of_all(self) -> tuple[Tensor, Tensor]:
        """Prepared features and labels of an environment's rows one after another, ``(E, N·K·R, ·)`` and ``(E, N·K·R, 1)``."""
        return self.inputs.flatten(1, 3), self.y.flatten(1)[..., None]

    @cached_property
    def rows_of_lots(self) -> Tensor:
        """Prepared features of each lot's rows, ``(E·N·K, R, ·)``."""
        return self.inputs.flatten(0, 2)

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
            severity=self.severity[:, index],
        )

    def held_as(self, holder: Tensor) -> DrawnLots:
        """The same cooperatives, in which principal i of environment e holds the lots of principal ``holder[e, i]``, int64 ``(E, N)``.

        Lots keep their number of rows, which must be the same for both.
        """
        e = torch.arange(len(holder), device=holder.device)[:, None]
        x = self.x[e, holder]
        return replace(
            self,
            x=x,
            inputs=x if self.inputs is self.x else self.inputs[e, holder],
            y=self.y[e, holder],
            corrupt=self.corrupt[e, holder],
            tags=self.tags[e, holder],
            rows=self.rows[e, holder],
            severity=self.severity[e, holder],
        )

    def only(self, held: Tensor) -> DrawnLots:
        """The same cooperatives, in which the lots that are not ``held``, bool ``(N, K)``, have no rows, and nothing that is wrong."""
        return replace(
            self,
            present=self.present & held[..., None],
            corrupt=self.corrupt & held,
            samples=self.samples * held,
            severity=self.severity * held,
        )


_LARGEST_TABLE = 2**24
"""Entries of the largest table of rows by cells that is made to count who came before."""


def _turns(cell: Tensor, present: Tensor) -> Tensor:
    """How many of the present rows before each row are of its cell, int64 ``(E, n)``, bool ``(E, n)`` → int64 ``(E, n)``; in n log n."""
    by_cell = cell.argsort(dim=1, stable=True)
    sorted_cell, counts = cell.gather(1, by_cell), present.gather(1, by_cell).long()
    before = counts.cumsum(dim=1) - counts  # present rows of all cells so far
    first = torch.ones_like(sorted_cell, dtype=torch.bool)
    first[:, 1:] = sorted_cell[:, 1:] != sorted_cell[:, :-1]
    of_cell = torch.where(first, before, 0).cummax(dim=1).values  # what had come before the cell's first row
    return torch.zeros_like(cell).scatter_(1, by_cell, before - of_cell)


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
        self.deviation = splits.train.x.std(dim=0, correction=0)  # (D,)
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
        self.cells = torch.arange(n_cells).to(self.device)
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
        records, labels, wrong, holder = self._records(keys, owned)
        x = self._features(keys, records.rows, labels, wrong)
        drawn = DrawnLots(**vars(records), x=x, inputs=x)
        return drawn if self.lots.holders == 1 else drawn.held_as(holder)

    def deal(self, keys: Tensor, owned: Tensor) -> DealtLots:
        """Draw the same lots, without the features of their rows; :meth:`of_those` looks them up. The arguments are as for :meth:`draw`.

        One environment is drawn after another, and numbers are kept as small as they may be: with thousands of principals that is what
        takes memory.
        """
        parts = [self._dealt(keys[e : e + 1], owned[e : e + 1]) for e in range(len(keys))]
        joined = {
            name: torch.cat([getattr(part, name) for part in parts])
            for name in ("y", "corrupt", "tags", "rows", "severity", "keys", "holder")
        }
        wrong = None if parts[0].wrong is None else torch.cat([part.wrong for part in parts if part.wrong is not None])
        return DealtLots(present=parts[0].present, samples=parts[0].samples, wrong=wrong, **joined)

    def of_those(self, dealt: DealtLots, who: Attendance) -> DrawnLots:
        """The lots of those who are present, with the features of their rows, ``(E, m, K, R, D)``."""
        rows, y = who.of(dealt.rows).long(), who.of(dealt.y).long()
        wrong = None if dealt.wrong is None else who.of(dealt.wrong)
        x = self._features(dealt.keys, rows, y, wrong, dealt.holder.gather(1, who.agents))
        alike = bool((dealt.samples == dealt.samples[:1]).all())
        samples, present = dealt.samples, dealt.present
        n_seats = who.agents.shape[1]
        return DrawnLots(
            x=x,
            inputs=x,
            y=y,
            present=present[:n_seats] if alike else present[who.agents],
            corrupt=who.of(dealt.corrupt),
            tags=who.of(dealt.tags),
            samples=samples[:n_seats] if alike else samples[who.agents],
            rows=rows,
            severity=who.of(dealt.severity),
        )

    def _dealt(self, keys: Tensor, owned: Tensor) -> DealtLots:
        """As :meth:`deal`, all environments at once."""
        records, _, wrong, holder = self._records(keys, owned)
        if self.lots.holders > 1:
            records, wrong = records.held_by(holder), None if wrong is None else wrong[torch.arange(len(keys))[:, None], holder]
        return DealtLots(
            y=records.y.to(torch.int16 if self.splits.n_classes < 2**15 else torch.int32),
            present=records.present,
            corrupt=records.corrupt,
            tags=records.tags,
            samples=records.samples,
            rows=records.rows.to(torch.int32),
            severity=records.severity,
            keys=keys,
            holder=holder,
            wrong=wrong if self.lots.corruption.moves else None,
        )

    def _records(self, keys: Tensor, owned: Tensor) -> tuple[LotRecords, Tensor, Tensor, Tensor]:
        """The lots without features; true labels, and rows that are wrong, ``(E, N, K, R)``; and whose lots each one holds, ``(E, N)``.

        What all of a group hold is that of its holder; only corrupt lots are those of the group already.
        """
        n_agents, n_lots = self.samples.shape
        n_rows = self.n_rows
        present = torch.arange(n_rows, device=self.device) < self.samples[..., None]  # (N, K, R)
        group, holder = self.lots.groups(keys, n_agents)  # (E, N) each
        if self.lots.holders > 1:  # a class that one of a group protects is as frequent as if all of them did
            whose = group[..., None].expand_as(owned)
            by_group = torch.zeros_like(owned, dtype=torch.float64).scatter_add_(1, whose, owned.double())
            owned = by_group.gather(1, whose) > 0
        kinds = self._kinds(keys, owned, n_rows)  # (E, N, K, R)
        labels = kinds % self.splits.n_classes
        dealt = present & (holder == torch.arange(n_agents, device=self.device))[..., None, None]  # rows that nobody copies
        rows = self._deal(fold(keys, Purpose.ROWS, 1), kinds, dealt)  # (E, N, K, R)

        corruption = self.lots.corruption
        corrupt = corruption.lots(keys, -(-n_agents // self.lots.holders), n_lots)  # of each group
        corrupt = corrupt.gather(1, group[..., None].expand(-1, -1, n_lots))  # (E, N, K)
        noisy = randomness.uniform(fold(keys, Purpose.LABELS), n_agents, n_lots, n_rows)
        wrong = corrupt[..., None] & (noisy < corruption.rates(keys, n_agents, n_lots)[..., None])
        records = LotRecords(
            y=torch.where(wrong, self.swapped[labels], labels),
            present=present,
            corrupt=corrupt,
            tags=self.lots.drawn_tags(keys, n_agents),
            samples=self.samples,
            rows=rows,
            severity=corruption.severity(keys, corrupt),
        )
        return records, labels, wrong, holder

    def _features(self, keys: Tensor, rows: Tensor, labels: Tensor, wrong: Tensor | None, who: Tensor | None = None) -> Tensor:
        """The features of rows, ``(E, N, K, R)`` → ``(E, N, K, R, D)``: shifted by site, and moved where corruption does so.

        Args:
            keys: One key per environment, int64 ``(E,)``.
            rows: Their indices in the train pool.
            labels: True labels.
            wrong: Which of them are wrong, bool; ``None`` if corruption moves none.
            who: The principals whose lots these are, int64 ``(E, N)``; all of them by default.
        """
        x = self.splits.train.x[rows]  # (E, N, K, R, D)
        n_agents, n_features = rows.shape[1], x.shape[-1]
        if self.lots.site_shift:
            drawn = fold(keys, Purpose.SITE_SHIFT)
            if who is None:
                shift = randomness.normal(drawn, n_agents, 1, 1, n_features)
            else:
                places = who[..., None] * n_features + torch.arange(n_features, device=who.device)  # (E, m, D)
                shift = randomness.normal_at(drawn, places)[:, :, None, None]
            x = x + self.lots.site_shift * shift.to(x.dtype)
        if wrong is None:
            return x
        moved = self.lots.corruption.moved(keys, labels, wrong, self.deviation, self.splits.n_classes, who, len(self.samples))
        return x if moved is None else x + moved

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
        """A pool row for every lot row: the next row of its cell in random order; from the start again when the cell runs out.

        Args:
            keys: One key per environment, int64 ``(E,)``.
            kinds: The kind of each row, int64 ``(E, N, K, R)``.
            present: Rows that are to be dealt, bool ``(E, N, K, R)``. The others get some row.
        """
        n_envs = len(keys)
        order = randomness.uniform(keys, len(self.by_cell)) + self.cell  # sorts within cells
        dealt = self.by_cell[order.argsort(dim=-1)]  # (E, pool): every cell in random order, cells one after another
        flat = (kinds + self.n_kinds * self.site[:, None, None]).reshape(n_envs, -1)  # (E, N·K·R), cells
        present, cell = present.reshape(n_envs, -1, 1), flat[..., None]
        if flat.numel() * len(self.cells) <= _LARGEST_TABLE:
            wanted = (cell == self.cells) & present  # (E, N·K·R, n_cells)
            turn = (wanted.cumsum(dim=1).gather(-1, cell) - present.long())[..., 0]  # how many rows of its cell came before
        else:
            turn = _turns(flat, present[..., 0])
        index = self.cell_start[flat] + turn % self.cell_size[flat]
        return dealt.gather(1, index).reshape(kinds.shape)
