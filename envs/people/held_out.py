"""Cross-validation: how well a model of people's choices predicts choices that it has not seen."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import bdtrc, ndtri

from .comparisons import Comparisons, Floats

Predict = Callable[[Comparisons], Floats]
"""From comparisons to the probability that the first update of each pair is preferred, ``(n,)``. It must not read the choices."""


@dataclass(frozen=True)
class HeldOut:
    """How well held-out choices are predicted.

    Attributes:
        accuracy: Share of held-out choices that are predicted correctly; a tie counts one half.
        interval: Wilson's 95 % interval of the accuracy, which treats choices as independent.
        baseline: Accuracy of always predicting the side, first or second, that was chosen more often in the other folds.
        log_loss: Mean of −log probability of the choices, in nats. Guessing gives log 2 = 0.693.
        p_value: Probability of an accuracy at least this high by guessing.
        folds: Number of folds.
        unit: What is held out together, in words.
    """

    accuracy: float
    interval: tuple[float, float]
    baseline: float
    log_loss: float
    p_value: float
    folds: int
    unit: str

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"Held out ({self.folds} folds of {self.unit}): accuracy {self.accuracy:.1%} ({low:.1%} to {high:.1%}), always the more "
            f"frequent side {self.baseline:.1%}; log loss {self.log_loss:.3f} nats, guessing {math.log(2):.3f}."
        )


def cross_validate(
    comparisons: Comparisons, fit: Callable[[Comparisons], Predict], fold: npt.NDArray[np.int64], unit: str
) -> HeldOut | None:
    """For each fold: fit to all other folds, and predict this one.

    Args:
        comparisons: The choices.
        fit: A function that fits choices and returns the prediction.
        fold: Index of each choice's fold, ``(n,)``.
        unit: What is held out together, in words.

    Returns:
        How well the choices are predicted; ``None`` if there are fewer than two folds.
    """
    numbers = np.unique(fold)
    if len(numbers) < 2:
        return None
    chance = np.empty(len(comparisons))  # probability that the first is preferred
    baseline = np.empty(len(comparisons))
    for number in numbers:
        out = fold == number
        rest = comparisons.take(~out)
        chance[out] = fit(rest)(comparisons.take(out))
        baseline[out] = rest.chose_first.mean()
    first = comparisons.chose_first
    right = _right(chance, first)
    n, z = len(first), float(ndtri(0.975))
    share = right / n
    middle, half = share + z**2 / (2 * n), z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    chosen = np.clip(np.where(first, chance, 1 - chance), 1e-12, 1)
    return HeldOut(
        accuracy=share,
        interval=((middle - half) / (1 + z**2 / n), (middle + half) / (1 + z**2 / n)),
        baseline=_right(baseline, first) / n,
        log_loss=float(-np.log(chosen).mean()),
        p_value=float(bdtrc(math.floor(right) - 1, n, 0.5)),
        folds=len(numbers),
        unit=unit,
    )


def _right(chance: Floats, first: npt.NDArray[np.bool_]) -> float:
    return float(np.where(chance == 0.5, 0.5, (chance > 0.5) == first).sum())


def folds_of_persons(comparisons: Comparisons, folds: int, seed: int) -> tuple[npt.NDArray[np.int64], str]:
    """Each choice's fold, and what is held out together. A fold holds all choices of a person; or single choices if persons are too few."""
    random = np.random.default_rng(seed)
    n_persons = len(comparisons.persons)
    if n_persons >= folds:
        return (random.permutation(n_persons) % folds)[comparisons.who], "persons"
    return random.permutation(len(comparisons)) % folds, "choices"


def folds_within_persons(comparisons: Comparisons, folds: int, seed: int) -> tuple[npt.NDArray[np.int64], str]:
    """Each choice's fold, and what is held out together. Every person's choices are spread over the folds.

    This is for models that must know a person before they can predict its choices.
    """
    random = np.random.default_rng(seed)
    fold = np.empty(len(comparisons), dtype=np.int64)
    for person in range(len(comparisons.persons)):
        own = np.flatnonzero(comparisons.who == person)
        fold[own] = (random.permutation(len(own)) + random.integers(folds)) % folds
    return fold, "choices of known persons"
