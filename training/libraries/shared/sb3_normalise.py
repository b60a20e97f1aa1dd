"""Stable-Baselines3's running normalisation, with statistics that are the same for all lots, as in the network."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from ....envs.observations.layout import ObservationLayout
from ....envs.vector import CooperativeVecEnv

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


class PresentMeanStd(PooledMeanStd):
    """The same, of the rows that are present in the round to come.

    Args:
        rows: The rows.
    """

    def __init__(self, rows: CooperativeVecEnv) -> None:
        super().__init__(rows.engine.layout)
        self._rows = rows

    def update(self, arr: NDArray[Any]) -> None:
        """Add what those present observe, of all rows' observations ``(E·N, size)``."""
        present = self._rows.present()
        if present.any():
            super().update(arr[present])


class PresentNormalize(VecNormalize):
    """Normalisation where only some rows are present in a round: the others are in no statistic.

    A discounted sum of rewards is over a row's own rounds, and is counted when its own round is complete: before its next one, or when the
    episode ends. See :mod:`~proxycoop.training.libraries.shared.own_rounds`.

    Args:
        rows: The rows.
        gamma: Discount per own round.
    """

    def __init__(self, rows: CooperativeVecEnv, gamma: float) -> None:
        super().__init__(rows, gamma=gamma)
        self._rows = rows
        self._here = self._begun = np.zeros(rows.num_envs, dtype=np.bool_)

    def step_async(self, actions: NDArray[Any]) -> None:
        """Take the actions of all rows, and note who is present."""
        self._here = self._rows.present()
        self._begun = self._here if self._rows.engine.t == 0 else self._begun | self._here
        super().step_async(actions)

    def _update_reward(self, reward: NDArray[Any]) -> None:
        self.returns = np.where(self._begun, np.where(self._here, self.returns * self.gamma, self.returns) + reward, 0)
        has_ended = self._rows.engine.t == 0  # and the next episode has begun
        complete = self._begun if has_ended else self._begun & self._rows.present()
        if complete.any():
            self.ret_rms.update(self.returns[complete])


def normalised(rows: VecEnv, layout: ObservationLayout, gamma: float) -> tuple[VecNormalize, PooledMeanStd]:
    """Stable-Baselines3's normalisation of observations and returns, pooled over lots, and its statistics of observations.

    Where only some rows are present in a round, both are of these.
    """
    if isinstance(rows, CooperativeVecEnv) and rows.engine.scenario.samples_some:
        env: VecNormalize = PresentNormalize(rows, gamma)
        statistics: PooledMeanStd = PresentMeanStd(rows)
    else:
        env, statistics = VecNormalize(rows, gamma=gamma), PooledMeanStd(layout)
    env.obs_rms = statistics  # type: ignore[assignment]  # annotated for dictionary observations only
    return env, statistics
