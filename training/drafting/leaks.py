r"""How well a column alone predicts the label, on rows that it was not fitted to.

Half of the rows fit, the other half judge. Words are scored by the classes' shares among the fitted rows with the same word, numbers by a
decision tree of at most 16 leaves on their ranks, so that size and unit do not matter; where a column is empty counts as a word, or a
number, of its own. What is judged is the area under the ROC curve: the probability that of two rows of different classes the one with the
higher score for a class is of that class. Beyond two classes it is the mean over all pairs of classes (Hand & Till).

A column is a *probable leak* if that area is almost 1 for certain: two standard errors below it, it is still at least :data:`ALMOST`. The
standard error is that of Hanley & McNeil, with the rarest class against all others. Where a half holds fewer than :data:`FEWEST` rows of a
class, that class is left out; with fewer than two classes left nothing is judged.

References:
    Hanley & McNeil (1982), *The meaning and use of the area under a receiver operating characteristic (ROC) curve*, Radiology 143(1).
    Hand & Till (2001), *A simple generalisation of the area under the ROC curve for multiple class classification problems*, Machine
    Learning 45(2). Kaufman, Rosset, Perlich & Stitelman (2012), *Leakage in data mining*, ACM TKDD 6(4), for what leaks are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...envs.data.tables import Column

ALMOST = 0.98
"""The area under the curve from which on a column is a probable leak."""
FEWEST = 10
"""Rows of a class that a half must hold."""
_MOST_ROWS = 20_000
_LEAVES = 16
_PRIOR_ROWS = 5.0
_SEED = 0


@dataclass(frozen=True)
class Alone:
    """How well one column predicts the label alone.

    Attributes:
        area: Area under the ROC curve on the rows that judge, from 0 to 1; 0.5 is guessing.
        error: Its standard error.
    """

    area: float
    error: float

    @property
    def leaks(self) -> bool:
        """Whether the column is a probable leak."""
        return self.area - 2 * self.error >= ALMOST


class Judge:
    """Judges the columns of a table, all on the same rows.

    Args:
        labels: Every row's class, int64 ``(n_rows,)``.
    """

    def __init__(self, labels: NDArray[np.int64]) -> None:
        random = np.random.default_rng(_SEED)
        order = random.permutation(len(labels))[:_MOST_ROWS]
        fit, judge = order[: len(order) // 2], order[len(order) // 2 :]
        n_classes = int(labels.max()) + 1
        counts = np.minimum(*(np.bincount(labels[half], minlength=n_classes) for half in (fit, judge)))
        self.classes = np.flatnonzero(counts >= FEWEST)
        self.fit, self.judge = (half[np.isin(labels[half], self.classes)] for half in (fit, judge))
        self.labels = np.searchsorted(self.classes, labels.clip(max=self.classes[-1] if len(self.classes) else 0))

    def judged(self, column: Column) -> Alone | None:
        """How well a column predicts the label alone; ``None`` if there are not two classes with enough rows."""
        if len(self.classes) < 2:
            return None
        return self._alone(self._by_number(column.numbers) if column.words is None else self._by_word(column.numbers, len(column.words)))

    def _by_number(self, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        """Every class's predicted share from a column of numbers, NaN where it is empty, ``(n_judged, n_classes)``."""
        from sklearn.tree import DecisionTreeClassifier

        used = np.concatenate([self.fit, self.judge])
        x = np.full((len(numbers), 1), np.nan, dtype=np.float32)  # trees read single precision, which cuts the digits of large numbers
        x[used, 0] = _ranks(numbers[used])
        tree = DecisionTreeClassifier(max_leaf_nodes=_LEAVES, min_samples_leaf=FEWEST // 2, random_state=_SEED)
        shares: NDArray[np.float64] = tree.fit(x[self.fit], self.labels[self.fit]).predict_proba(x[self.judge])
        return shares

    def _by_word(self, places: NDArray[np.int32], n_words: int) -> NDArray[np.float64]:
        """The same from the places of words, −1 where it is empty."""
        n_classes, codes = len(self.classes), places.astype(np.int64) + 1  # 0: empty
        cells = np.bincount(codes[self.fit] * n_classes + self.labels[self.fit], minlength=(n_words + 1) * n_classes)
        counts = cells.reshape(n_words + 1, n_classes)
        prior = counts.sum(axis=0) / counts.sum()
        shares: NDArray[np.float64] = (counts + _PRIOR_ROWS * prior) / (counts.sum(axis=1, keepdims=True) + _PRIOR_ROWS)
        return shares[codes[self.judge]]

    def _alone(self, shares: NDArray[np.float64]) -> Alone:
        """The area from every class's predicted share, ``(n_judged, n_classes)``."""
        labels, n_classes = self.labels[self.judge], len(self.classes)
        areas = [(_area(shares[:, a], labels, a, b) + _area(shares[:, b], labels, b, a)) / 2 for b in range(n_classes) for a in range(b)]
        area = float(np.mean(areas))
        n_rare = int(np.bincount(labels).min())
        return Alone(area, _standard_error(area, n_rare, len(labels) - n_rare))


def _ranks(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """The place of each number among the different ones, ``(n,)``; NaN where it is NaN."""
    place = np.unique(numbers, return_inverse=True)[1]  # NaN is one of them, the last
    return np.where(np.isnan(numbers), np.nan, place.reshape(-1))


def _area(score: NDArray[np.float64], labels: NDArray[np.int64], one: int, other: int) -> float:
    """Probability that a row of one class has a higher score than a row of the other; ties count half."""
    from scipy.stats import rankdata

    among = np.isin(labels, (one, other))
    is_one = labels[among] == one
    n_one, n_other = int(is_one.sum()), int((~is_one).sum())
    return float((rankdata(score[among])[is_one].sum() - n_one * (n_one + 1) / 2) / (n_one * n_other))


def _standard_error(area: float, n_one: int, n_other: int) -> float:
    """Hanley & McNeil's standard error of an area, from the numbers of rows of either side."""
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    variance = area * (1 - area) + (n_one - 1) * (q1 - area**2) + (n_other - 1) * (q2 - area**2)
    return math.sqrt(max(variance, 0.0) / (n_one * n_other))
