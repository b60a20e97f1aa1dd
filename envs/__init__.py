"""The cooperative: scenarios, data, values, the batch-first engine, and its faces.

Importing this package registers ``proxycoop/cooperative-v0`` with PettingZoo, from its version 1.27 on::

    import proxycoop.envs
    env = pettingzoo.make("parallel", "proxycoop/cooperative-v0", scenario="digits", credit="shapley")
"""

if __name__ != "proxycoop.envs":
    raise ImportError(f"{__name__!r} is part of proxycoop: use 'import proxycoop.envs'")

import pettingzoo

from . import cooperative_v0, scenario
from .engine import Engine
from .metrics import episode_metrics
from .observations.layout import ObservationLayout
from .people.comparisons import Comparisons
from .people.populations import PopulationFit, fit_population
from .people.preferences import ProfileFit, fit_profile
from .scenario import Scenario

if hasattr(pettingzoo, "register") and "proxycoop/cooperative-v0" not in pettingzoo.parallel_registry:  # PettingZoo >= 1.27
    pettingzoo.register("parallel", "proxycoop/cooperative-v0", entry_point="proxycoop.envs.cooperative_v0:parallel_env")
    pettingzoo.register("aec", "proxycoop/cooperative-v0", entry_point="proxycoop.envs.cooperative_v0:env")

__all__ = [
    "Comparisons",
    "Engine",
    "ObservationLayout",
    "PopulationFit",
    "ProfileFit",
    "Scenario",
    "cooperative_v0",
    "episode_metrics",
    "fit_population",
    "fit_profile",
    "scenario",
]
