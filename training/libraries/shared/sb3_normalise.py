"""Stable-Baselines3's running normalisation, with statistics that are the same for all lots, as in the network."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from ....envs.observations.layout import ObservationLayout

Floats = NDArray[np.float64]


class PooledMeanStd(RunningMeanStd):
    """Running mean and variance, with one number for each lot feature, pooled over a proxy's lots.

    Args:
        layout: Layout of an observation.
    """

    def __init__(self, layout: ObservationLayout) -> None:
        super().__init__(shape=(layout.size,))
        self._n_lots = layout.n_items
        self._cut = layout.n_items * len(layout.lot_features)

    def update_from_moments(self, batch_mean: Floats, batch_var: Floats, batch_count: float) -> None:
        """Add a batch with these moments of every entry, ``(size,)`` each."""
        mean, second = batch_mean.copy(), batch_var + batch_mean**2
        for moment in (mean, second):
            lots = moment[: self._cut].reshape(self._n_lots, -1)
            lots[:] = lots.mean(axis=0)
        super().update_from_moments(mean, second - mean**2, batch_count)

    def per_feature(self) -> tuple[Floats, Floats]:
        """Mean and variance of each lot feature, then of each agent feature."""
        width = self._cut // self._n_lots
        mean, variance = (np.concatenate([part[:width], part[self._cut :]]) for part in (self.mean, self.var))
        return mean, variance


def normalised(rows: VecEnv, layout: ObservationLayout, gamma: float) -> tuple[VecNormalize, PooledMeanStd]:
    """Stable-Baselines3's normalisation of observations and returns, pooled over lots, and its statistics of observations."""
    env = VecNormalize(rows, gamma=gamma)
    statistics = PooledMeanStd(layout)
    env.obs_rms = statistics  # type: ignore[assignment]  # annotated for dictionary observations only
    return env, statistics
