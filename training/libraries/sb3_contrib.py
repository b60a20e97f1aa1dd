"""Stable-Baselines3 contrib: PPO that respects action masks (Huang & Ontañón 2022).

Where only some agents are present in a round, it learns from these, as PPO does; see :mod:`~proxycoop.training.libraries.sb3`.
"""

from __future__ import annotations

from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.buffers import MaskableRolloutBuffer
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from stable_baselines3.common.vec_env import VecNormalize

from ..run import Run, Trained
from ..settings import PPOSettings
from . import sb3
from .policy import SharedOverLots


class MaskableLotPolicy(SharedOverLots, MaskableActorCriticPolicy):
    """:class:`~proxycoop.agents.LotNetwork` for MaskablePPO: ``MaskablePPO(MaskableLotPolicy, env, policy_kwargs=env.policy_kwargs)``.

    Its arguments are those of :class:`~proxycoop.training.libraries.policy.SharedOverLots`.
    """


class MaskablePresentRows(sb3.PresentRows, MaskableRolloutBuffer):  # type: ignore[misc]  # their minibatches are named differently
    """:class:`~proxycoop.training.libraries.sb3.PresentRows` with action masks."""

    columns = (*sb3.PresentRows.columns, "action_masks")


def learn(run: Run) -> Trained:
    """Train. An interrupted run continues from its checkpoint, to the same numbers."""
    return sb3.learn_on_rows(run, _maskable_ppo, MaskablePresentRows)


def _maskable_ppo(run: Run, env: VecNormalize, policy_kwargs: dict[str, int]) -> MaskablePPO:
    assert isinstance(run.settings, PPOSettings)
    arguments = sb3.ppo_arguments(run.settings, env.num_envs) | sb3.common_arguments(run, env.num_envs, policy_kwargs)
    return MaskablePPO(MaskableLotPolicy, env, **arguments)
