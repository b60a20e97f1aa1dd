"""How many rows each split and each lot of a drafted scenario gets."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

FEWEST_ROWS = 200
"""A table with fewer rows is refused: its splits would be too small to tell anything."""
PRINCIPALS, LOTS_EACH, ROUNDS = 6, 4, 16
"""What a scenario has unless it is told otherwise."""


@dataclass(frozen=True)
class Sizes:
    """Numbers of rows.

    Attributes:
        public: Rows of the public set.
        validation: Rows of the validation set.
        test: Rows of the test set.
        train: Largest number of rows of the train pool; ``None`` if it takes all that are left.
        lot: Rows of each lot.
    """

    public: int
    validation: int
    test: int
    train: int | None
    lot: int

    @staticmethod
    def of(n_rows: int, rarest: float, n_classes: int) -> Sizes:
        """Sizes for a table.

        Args:
            n_rows: Its rows.
            rarest: The share of the rarest class.
            n_classes: Number of classes.
        """
        for_the_rarest = ceil(2 / rarest)  # rows in which two of the rarest class are expected
        public = min(max(n_rows // 50, 12, min(for_the_rarest, n_rows // 20)), 60)
        return Sizes(
            public=max(public, min(2 * n_classes, n_rows // 10)),
            validation=_between(30, n_rows // 10, 400),
            test=_between(40, n_rows // 5, 1700),
            train=12_000 if n_rows > 16_000 else None,
            lot=_between(8, min(ceil(3 / rarest), n_rows // 80), 60) if n_rows < 2000 else _between(24, ceil(3 / rarest), 60),
        )


def _between(least: int, number: int, most: int) -> int:
    return max(least, min(number, most))
