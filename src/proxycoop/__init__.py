"""proxycoop: what self-interested agents learn to do when a learning cooperative pays them by a given rule.

The parts, from the ground up; each is imported by its full name and none is imported here:

* :mod:`proxycoop.credit`: coalition games and credit rules;
* :mod:`proxycoop.envs`: scenarios, the batch-first engine and its PettingZoo and Stable-Baselines3 faces;
* :mod:`proxycoop.agents`: scripted and learned proxies;
* :mod:`proxycoop.training`: train, evaluate, compare, report, and the command line.
"""

__version__ = "0.1.0"

__all__ = ["__version__"]
