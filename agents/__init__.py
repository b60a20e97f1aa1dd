"""Proxies: scripted, privileged references, and learned.

::

    from proxycoop import agents
    from proxycoop.envs import Engine, scenario

    engine = Engine(scenario.load("digits"), "shapley", num_envs=64)
    metrics = agents.play(engine, agents.make("honest"), seeds=range(64))
    print(metrics["welfare"].mean())
"""

if __name__ != "proxycoop.agents":
    raise ImportError(f"{__name__!r} is part of proxycoop: use 'import proxycoop.agents'")

from .agent import AGENTS, Agent, PrivilegedAgent, make, play
from .learned import Learned
from .network import LotNetwork
from .privileged import Oracle, Planner
from .scripted import All, Honest, Nothing, Random
from .seats import Seats

__all__ = [
    "AGENTS",
    "Agent",
    "All",
    "Honest",
    "Learned",
    "LotNetwork",
    "Nothing",
    "Oracle",
    "Planner",
    "PrivilegedAgent",
    "Random",
    "Seats",
    "make",
    "play",
]
