"""Stable-Baselines3 contrib: PPO that respects action masks (Huang & Ontañón 2022)."""

from __future__ import annotations

from sb3_contrib import MaskablePPO
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


def learn(run: Run) -> Trained:
    """Train. An interrupted run continues from its checkpoint, to the same numbers."""
    return sb3.learn_on_rows(run, _maskable_ppo)


def _maskable_ppo(run: Run, env: VecNormalize, policy_kwargs: dict[str, int]) -> MaskablePPO:
    assert isinstance(run.settings, PPOSettings)
    arguments = sb3.ppo_arguments(run.settings, env.num_envs) | sb3.common_arguments(run, env.num_envs, policy_kwargs)
    return MaskablePPO(MaskableLotPolicy, env, **arguments)
