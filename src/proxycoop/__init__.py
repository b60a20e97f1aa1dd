"""proxycoop: what self-interested agents learn to do when a learning cooperative pays them by a given rule.

These are the parts, from the ground up. Import each by its full name; importing ``proxycoop`` imports none of them.

* :mod:`proxycoop.credit`: coalition games, credit rules, settlement and the ledger;
* :mod:`proxycoop.envs`: scenarios, the batch-first engine, and its faces: PettingZoo, Gymnasium and Stable-Baselines3;
* :mod:`proxycoop.agents`: scripted and learned proxies;
* :mod:`proxycoop.training`: train, evaluate, compare, report, and the command line.
"""

__version__ = "0.1.0"

__all__ = ["__version__"]
