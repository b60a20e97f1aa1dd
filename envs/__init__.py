"""The cooperative: scenarios, data, values, the batch-first engine, and its faces."""

if __name__ != "proxycoop.envs":
    raise ImportError(f"{__name__!r} is part of proxycoop: use 'import proxycoop.envs'")

from . import scenario
from .engine import Engine
from .scenario import Scenario

__all__ = ["Engine", "Scenario", "scenario"]
