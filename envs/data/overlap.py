"""How many rows two splits of the same data have in common: data are finite, so splits with other seeds deal out the same rows anew."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from .sources import Splits

USED = ("public", "train", "validation")
"""What an episode uses, beside the probe sets: the start model's rows, the rows of lots, and those of which credit is computed."""


def overlap(held_out: Splits, used: Iterable[Splits]) -> float:
    """Share of a split's validation and test rows that other splits use.

    A row counts once, if it lies in the public set, the train pool or the validation set of any of the others. So with many splits of small
    data it is close to 1: what differs between splits is not the rows but who holds them, from which model an episode starts, and on
    which rows the utility is computed. Policies see none of the rows.

    Args:
        held_out: The split.
        used: The other splits, of the same data set.

    Returns:
        The share, from 0 to 1.

    Raises:
        ValueError: If the splits are of different data sets.
    """
    seen = np.zeros(len(held_out.dataset.labels), dtype=bool)
    for one in used:
        if one.dataset is not held_out.dataset and len(one.dataset.labels) != len(seen):
            raise ValueError(
                f"the splits are of data sets with {len(seen)} and {len(one.dataset.labels)} rows: give splits of the same data"
            )
        for what in USED:
            seen[one.index[what]] = True
    return float(seen[np.concatenate([held_out.index["validation"], held_out.index["test"]])].mean())
