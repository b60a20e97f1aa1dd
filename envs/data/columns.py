"""Draws the data of a vertical cooperative, in which principals hold columns of the same rows.

The columns are cut, in their order, into N·K consecutive blocks. Block (i, k) is lot k of principal i. All lots share the same R rows,
which are drawn anew at each reset. Each principal has a record of its own for every row, and these records must be linked. In a corrupt lot
some links are wrong: the row carries another row's values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .. import randomness
from ..randomness import Purpose, fold
from .lots import DrawnLots, Lots
from .sources import Splits


def column_blocks(n_columns: int, n_blocks: int) -> Tensor:
    """The block of each column, int64 ``(n_columns,)``. Blocks are consecutive, and their sizes differ by at most one."""
    return torch.arange(n_columns) * n_blocks // n_columns


@dataclass(frozen=True)
class DrawnColumns(DrawnLots):
    """The lots of a vertical cooperative. Every lot's ``x``, ``inputs`` and ``y`` are views of the shared rows.

    ``x`` holds the rows with the columns of all lots, as the server puts them together. A principal sees only its own columns.
    """

    def prepared(self, prepare: Callable[[Tensor], Tensor]) -> DrawnColumns:
        """The same rows, prepared for a model. They are stored once for all lots.

        Args:
            prepare: The model's :meth:`~proxycoop.envs.model.models.Model.prepare`.
        """
        shape = self.x.shape
        inputs = prepare(self.x[:, 0, 0])[:, None, None].expand(*shape[:-1], -1)
        return replace(self, x=inputs[..., : shape[-1]], inputs=inputs)

    def seated(self, seats: Sequence[int]) -> DrawnLots:
        """Not possible here: a column that two seats hold would be in the model twice.

        Raises:
            ValueError: Always.
        """
        raise ValueError(f"seats={list(seats)}: in a vertical cooperative lots are columns, so a seat cannot hold copies of another's lots")


class ColumnSource:
    """Draws the lots of a vertical scenario.

    Args:
        lots: The settings.
        splits: The cooperative's data.
        n_principals: Number of principals N.

    Raises:
        ValueError: If there are fewer columns than lots, or fewer rows in the train pool than ``lots.rows``.
    """

    def __init__(self, lots: Lots, splits: Splits, n_principals: int) -> None:
        self.lots = lots
        self.splits = splits
        samples = lots.samples(n_principals)
        self.device = splits.train.y.device
        self.samples, self.n_rows = samples.to(self.device), int(samples[0, 0])
        n_pool, n_columns = splits.train.x.shape
        n_lots = self.samples.numel()
        if n_columns < n_lots:
            raise ValueError(
                f"substrate vertical: {n_columns} columns cannot be cut into {n_principals} × {lots.per_principal} = {n_lots} lots: keep "
                "more data.columns, or lower principals or lots.per_principal"
            )
        if self.n_rows > n_pool:
            raise ValueError(
                f"lots.rows={self.n_rows}: the train pool has only {n_pool} rows for a vertical cooperative to share; lower lots.rows"
            )
        self.block = column_blocks(n_columns, n_lots).to(self.device)  # (D,)

    def draw(self, keys: Tensor, owned: Tensor) -> DrawnColumns:
        """Draw the shared rows, and the wrong links in corrupt lots.

        Args:
            keys: One key per environment, int64 ``(E,)``.
            owned: Not used: all principals have the same rows, whichever classes their profiles protect.
        """
        del owned
        n_envs, (n_agents, n_lots), train = len(keys), self.samples.shape, self.splits.train
        rows = randomness.permutation(fold(keys, Purpose.ROWS), len(train))[:, : self.n_rows]  # (E, R)
        corrupt = self.lots.corruption.lots(keys, n_agents, n_lots)
        n_wrong = (self.lots.corruption.rates(keys, n_agents, n_lots) * self.n_rows).round().long()  # (E, N, K)
        links = self._links(fold(keys, Purpose.CORRUPTION, 1), torch.where(corrupt, n_wrong, 0).flatten(start_dim=1))  # (E, N·K, R)
        x = train.x[rows].gather(1, links[:, self.block].transpose(1, 2))  # (E, R, D)
        shape = (n_envs, n_agents, n_lots, self.n_rows)
        x = x[:, None, None].expand(*shape, -1)
        return DrawnColumns(
            x=x,
            inputs=x,
            y=train.y[rows][:, None, None].expand(shape),
            present=torch.ones(shape[1:], dtype=torch.bool, device=self.device),
            corrupt=corrupt,
            tags=self.lots.drawn_tags(keys, n_agents),
            samples=self.samples,
            rows=rows[:, None, None].expand(shape),
            severity=self.lots.corruption.severity(keys, corrupt),
        )

    def _links(self, keys: Tensor, n_wrong: Tensor) -> Tensor:
        """The row whose values each row carries, in each lot, int64 ``(E, N·K, R)``.

        The rows that are linked wrongly are put in a random circle, and each carries the values of its neighbour, so that none of them
        keeps its own.

        Args:
            keys: One key per environment, int64 ``(E,)``.
            n_wrong: How many of a lot's rows are linked wrongly, int64 ``(E, N·K)``.
        """
        order = randomness.permutation(keys, n_wrong.shape[1], self.n_rows)  # the circle comes first
        place = torch.arange(self.n_rows, device=self.device).expand_as(order)
        last = (n_wrong - 1).clamp(min=0)[..., None]
        neighbour = order.gather(2, torch.where(place == 0, last, place - 1))
        return torch.empty_like(order).scatter_(2, order, torch.where(place < n_wrong[..., None], neighbour, order))
