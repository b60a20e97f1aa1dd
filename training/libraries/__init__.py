"""The RL libraries that can train proxies: a registry, and one adapter per file.

* ``registry``: the libraries, what each needs, and its algorithms;
* ``sb3``: Stable-Baselines3: PPO, A2C, DQN;
* ``sb3_contrib``: Stable-Baselines3 contrib: PPO with action masks;
* ``policy``: the shared network as policies for Stable-Baselines3;
* ``supersuit``: Stable-Baselines3 on the PettingZoo face, by SuperSuit;
* ``ippo``: PPO in a single file, on the engine's tensors;
* ``torchrl_env``: the engine as a TorchRL environment;
* ``benchmarl``: BenchMARL: IPPO, MAPPO, IQL, VDN, QMIX;
* ``rllib``: Ray's RLlib: PPO;
* ``agilerl``: AgileRL: IPPO, MADDPG, MATD3;
* ``agilerl_env``: the engine as an environment for AgileRL;
* ``shared``: pieces that several of them are made of.
"""

from .registry import LIBRARIES, Algorithm, Library, find, missing_packages, settings_for

__all__ = [
    "LIBRARIES",
    "Algorithm",
    "Library",
    "find",
    "missing_packages",
    "settings_for",
]
