"""The cooperative: scenarios, data, values, the batch-first engine, and its faces.

Importing this package registers ``proxycoop/cooperative-v0`` with PettingZoo, from its version 1.27 on::

    import proxycoop.envs
    env = pettingzoo.make("parallel", "proxycoop/cooperative-v0", scenario="digits", credit="shapley")

It registers the same name with Gymnasium, for all proxies of several cooperatives at once
(:class:`~proxycoop.envs.gymnasium_vector.CooperativeVectorEnv`)::

    envs = gymnasium.make_vec("proxycoop/cooperative-v0", num_cooperatives=8, scenario="digits", credit="shapley")

The modules and parts:

* ``scenario``: scenarios, read from YAML files; ``scenarios/``: those that come with the package;
* ``engine``: the only place where a round happens;
* ``rounds``, ``compiled``: the same rounds as compiled functions of tensors;
* ``played_round``: what credit rules may ask of a round;
* ``records``: what a round holds at its start, on its way and at its end;
* ``metrics``: the infos of a round and the metrics of an episode;
* ``shared``: what all environments of a scenario share, and which credit rules can serve them;
* ``cooperative_v0``: the PettingZoo face;
* ``gymnasium_vector``, ``vector``: the faces for Gymnasium and for Stable-Baselines3, one row per proxy; ``rows``: what both share;
* ``rendering``: a table and a picture of a round; ``outcome``: what episodes came to, in words;
* ``bookkeeping``: writes rounds into a ledger;
* ``randomness``, ``devices``: random numbers per environment, and where tensors live;
* ``data``: data sets, and how lots are drawn from them;
* ``model``: shared models, how they learn, and what coalitions would have gained;
* ``values``, ``screening``: value losses, value profiles, and which updates are admitted;
* ``observations``: what proxies see;
* ``money``: revenue and settlement;
* ``people``: profiles learned from people's choices.
"""

if __name__ != "proxycoop.envs":
    raise ImportError(f"{__name__!r} is part of proxycoop: use 'import proxycoop.envs'")

import gymnasium
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
if "proxycoop/cooperative-v0" not in gymnasium.registry:
    gymnasium.register(
        "proxycoop/cooperative-v0",
        entry_point="proxycoop.envs.gymnasium_vector:single_env",  # says what to call instead
        vector_entry_point="proxycoop.envs.gymnasium_vector:vector_env",
    )

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
