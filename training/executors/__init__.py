"""Where the tasks of a comparison, a sweep, a red team and a tuning are worked on: processes of this machine, or a Ray cluster."""

if __name__ != "proxycoop.training.executors":
    raise ImportError(f"{__name__!r} is part of proxycoop: use 'import proxycoop.training.executors'")

from .cluster import connected
from .costs import Cost, Estimate, cost_of, estimate, measuring
from .places import Executor, executor, require_place
from .reachable import WorkerLostError

__all__ = ["Cost", "Estimate", "Executor", "WorkerLostError", "connected", "cost_of", "estimate", "executor", "measuring", "require_place"]
