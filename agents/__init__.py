"""Proxies: scripted and learned ones, and privileged references.

::

    from proxycoop import agents
    from proxycoop.envs import Engine, scenario

    engine = Engine(scenario.load("digits"), "shapley", num_envs=64)
    metrics = agents.play(engine, agents.make("honest"), seeds=range(64))
    print(metrics["welfare"].mean())

Importing this package registers ``proxycoop/seat-v0`` with Gymnasium. That is :class:`SeatEnv`: one proxy learns, the others play a fixed
policy.

The modules:

* ``agent``: the base class of all policies, :func:`make` to find one by name, :func:`play` to play an episode;
* ``scripted``: rules of thumb (``all``, ``none``, ``random``, ``honest``);
* ``adversaries``: proxies that cheat (``free_rider``, ``doubler``, ``hypocrite`` …);
* ``privileged``: references that see what no proxy can see (``oracle``, ``planner``, ``measuring_planner``);
* ``best_reply``: selfish proxies that know the true gain and the credit rule (``best_reply``); ``equilibrium``: best replies and the
  equilibria of one round; ``trial``: what a round would pay, tried out;
* ``network``: the network that learned proxies share, and its file format; ``learned``: proxies that play such a file;
* ``saved``: files of tensors, with a digest;
* ``seats``: different policies in different seats; ``seat_env``: one seat as a Gymnasium environment.
"""

if __name__ != "proxycoop.agents":
    raise ImportError(f"{__name__!r} is part of proxycoop: use 'import proxycoop.agents'")

import gymnasium

from . import adversaries
from .agent import AGENTS, Agent, PrivilegedAgent, make, play
from .best_reply import BestReply
from .equilibrium import Equilibria, Replies, best_replies, equilibria
from .learned import Learned
from .network import LotNetwork
from .privileged import MeasuringPlanner, Oracle, Planner
from .scripted import All, Honest, Nothing, Random
from .seat_env import SeatEnv
from .seats import Mixture, Seats

if "proxycoop/seat-v0" not in gymnasium.registry:
    gymnasium.register("proxycoop/seat-v0", entry_point="proxycoop.agents:SeatEnv")

__all__ = [
    "AGENTS",
    "Agent",
    "All",
    "BestReply",
    "Equilibria",
    "Honest",
    "Learned",
    "LotNetwork",
    "MeasuringPlanner",
    "Mixture",
    "Nothing",
    "Oracle",
    "Planner",
    "PrivilegedAgent",
    "Random",
    "Replies",
    "SeatEnv",
    "Seats",
    "adversaries",
    "best_replies",
    "equilibria",
    "make",
    "play",
]
