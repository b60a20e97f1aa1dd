"""Rows that occur more than once: people who cannot be told apart by their features, in several splits or in several lots.

No row of a data set is in two splits. But two rows may have the same features, as in tables of a few coarse columns. A model that has seen
one of them has seen the other, so a test set that shares rows with the train pool or the validation set says less about others than its
size suggests. ``data.duplicates: drop`` keeps the first row of each kind. Lots share rows where more are dealt than there are in the pool.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from .sources import Rows, Splits


def splits_of(splits: Splits) -> dict[str, Rows]:
    """The splits by name. Probe sets of all values count as one, and so do probe test sets."""

    def joined(parts: list[Rows]) -> Rows:
        return Rows(
            torch.cat([splits.test.x[:0], *(part.x for part in parts)]), torch.cat([splits.test.y[:0], *(part.y for part in parts)]), {}
        )

    return {
        "public": splits.public,
        "train": splits.train,
        "validation": splits.validation,
        "test": splits.test,
        "probe": joined(list(splits.probe.values())),
        "probe_test": joined(list(splits.probe_test.values())),
    }


def shared_rows(splits: Splits) -> dict[tuple[str, str], int]:
    """How many rows of each split have the features of a row of another one.

    Features are those that the model sees: the scenario's columns, scaled. Labels may differ.

    Args:
        splits: A cooperative's data.

    Returns:
        For each two splits of :func:`splits_of`, in both orders, the number of the first one's rows of which the second has one alike:
        ``("test", "validation")`` is the number of test rows that are in the validation set too.
    """
    parts = splits_of(splits)
    x = torch.cat([rows.x for rows in parts.values()]).cpu().numpy()
    kind: NDArray[np.int64] = np.unique(x, axis=0, return_inverse=True)[1].reshape(-1)  # rows alike have one number
    cuts = np.cumsum([len(rows) for rows in parts.values()])[:-1]
    kinds = dict(zip(parts, np.split(kind, cuts), strict=True))
    return {(one, other): int(np.isin(kinds[one], kinds[other]).sum()) for one in parts for other in parts if one != other}
