"""Sites: how rows are divided among principals, so that each principal holds data of different people."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ...settings import Settings
from .dataset import Dataset


class Sites(Settings):
    """How the rows are divided into sites: by the levels of an attribute, or by a column of numbers.

    Principal i holds only rows of site i. If there are fewer sites than principals, site j goes to the principals j, j + n_sites, and so
    on. They are dealt different rows of it.
    """

    attribute: str | None = Field(None, description="Attribute whose levels make the sites.")
    levels: tuple[str | tuple[str, ...], ...] | None = Field(
        None,
        min_length=1,
        description="The level or levels of each site. Rows of other levels belong to nobody. By default each level is a site, the most "
        "frequent first, with at most one site per principal. If there are fewer sites than principals, principals share them in turn.",
    )
    column: str | None = Field(
        None, description="Column of numbers that is cut at its quantiles: every principal gets equally many rows, the lowest first."
    )

    @model_validator(mode="after")
    def _check(self) -> Sites:
        if (self.attribute is None) == (self.column is None):
            raise ValueError("sites: give exactly one of 'attribute' and 'column'")
        if self.levels is not None and self.attribute is None:
            raise ValueError("sites: 'levels' needs 'attribute', whose levels it names")
        named = [level for site in self._groups() for level in site]
        for level in named:
            if named.count(level) > 1:
                raise ValueError(f"sites: level {level!r} is named twice; it can belong to one site only")
        if not all(self._groups()):
            raise ValueError("sites: every site needs at least one level")
        return self

    def _groups(self) -> list[tuple[str, ...]]:
        """The levels of each site that the settings name."""
        return [(site,) if isinstance(site, str) else site for site in self.levels or ()]

    def divide(self, dataset: Dataset, n_principals: int) -> tuple[list[str], NDArray[np.int64]]:
        """Divide a data set.

        Args:
            dataset: The data.
            n_principals: Number of principals N, which is also the largest number of sites.

        Returns:
            The sites' names, and the index of each row's site, int64 ``(n_rows,)``; −1 for rows without a site.

        Raises:
            ValueError: If the attribute, a level or the column is unknown, there are more sites than principals, or the column has too few
                different numbers.
        """
        if self.column is not None:
            return self._cut(self.column, dataset, n_principals)
        assert self.attribute is not None
        groups = self._groups() or [(level,) for level in dataset.levels(self.attribute)[:n_principals]]
        if len(groups) > n_principals:
            raise ValueError(
                f"lots.sites.levels names {len(groups)} sites for {n_principals} principals: join some sites, or raise principals"
            )
        site = np.full(len(dataset.labels), -1, dtype=np.int64)
        for j, levels in enumerate(groups):
            site[dataset.with_levels(self.attribute, levels)] = j
        return [" + ".join(levels) for levels in groups], site

    def _cut(self, column: str, dataset: Dataset, n_principals: int) -> tuple[list[str], NDArray[np.int64]]:
        numbers = dataset.features[:, dataset.column(column)]
        if gaps := int(np.isnan(numbers).sum()):
            raise ValueError(
                f"lots.sites.column={column!r} lacks {gaps:,} entries, whose rows belong to no part: name another column, or an attribute"
            )
        edges = np.quantile(numbers, np.arange(1, n_principals) / n_principals)
        site = np.searchsorted(edges, numbers, side="left").astype(np.int64)
        if len(np.unique(site)) < n_principals:
            raise ValueError(
                f"lots.sites.column={column!r} has too few different numbers to be cut into {n_principals} parts: name another column, or "
                "an attribute"
            )
        return [f"part {j + 1} of {column!r}" for j in range(n_principals)], site
