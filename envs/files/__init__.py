"""Scenario files: how they are read, extend each other, are overridden, and what is said of mistakes in them.

* ``draft``: what a scenario says, put together from files and overrides;
* ``explain``: mistakes, with the file and line in which they stand;
* ``shipped``: scenarios that other packages ship;
* ``recorded``: scenarios as plain data, in the records of runs.
"""

if __name__ != "proxycoop.envs.files":
    raise ImportError(f"{__name__!r} is part of proxycoop: use 'import proxycoop.envs.files'")

from .draft import Draft, RateOfAnotherModel
from .explain import explain
from .recorded import differences, n_agents_of

__all__ = ["Draft", "RateOfAnotherModel", "differences", "explain", "n_agents_of"]
