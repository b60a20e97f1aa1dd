"""Partial participation: a server that asks only some of the agents in each round.

* ``settings``: how many it asks;
* ``attendance``: who they are, and the way from agents to those who are present and back.
"""

if __name__ != "proxycoop.envs.participation":
    raise ImportError(f"{__name__!r} is part of proxycoop: use 'import proxycoop.envs'")

from .attendance import Attendance
from .settings import MOST_OF_ALL, MOST_PRESENT, Participation

__all__ = ["MOST_OF_ALL", "MOST_PRESENT", "Attendance", "Participation"]
