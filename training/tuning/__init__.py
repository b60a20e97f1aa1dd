"""Tuning a mechanism: an outer loop over its parameters, with proxies that learn inside.

* ``parameters``: what is varied, and the mechanism that values make;
* ``objectives``: what a mechanism is tuned for;
* ``search``: which values are tried next, and the record of the search;
* ``trainings``: one training and its scores; ``pool``: trainings side by side;
* ``plan``: what a tuning is to do; ``outer_loop``: the two levels, and the comparison on held-out seeds; ``found``: what came out;
* ``words``, ``figures``, ``page``: what was found, in sentences, figures and on a page.
"""

if __name__ != "proxycoop.training.tuning":
    raise ImportError(f"{__name__!r} is part of proxycoop: use 'import proxycoop.training.tuning'")

from .found import HeldOut, Tuned
from .objectives import OBJECTIVES
from .outer_loop import tune
from .page import write_tuning
from .parameters import Parameter, read_parameters
from .plan import Plan, TuningSettings, planned
from .search import Trial
from .words import console_table, sentences

__all__ = [
    "OBJECTIVES",
    "HeldOut",
    "Parameter",
    "Plan",
    "Trial",
    "Tuned",
    "TuningSettings",
    "console_table",
    "planned",
    "read_parameters",
    "sentences",
    "tune",
    "write_tuning",
]
