r"""Values: what an update may do to people, as differentiable losses of the shared model.

Each value m is a loss :math:`\ell_m(\theta)` on its own probe set. An update's first-order harm to it is
:math:`h_m = \langle \nabla \ell_m(\theta), \Delta \rangle`, which is positive if the update makes things worse.

Importing this package registers all kinds:

* ``interface``: the base class :class:`Value`, which says how to write a value of your own, and the registry;
* ``losses``: the loss of a class, of a group, of the worst group;
* ``miss_rate``: the share of a class's cases that the model misses;
* ``disparities``: gaps between groups;
* ``drift``: change of the model's answers;
* ``confidence``: privacy of records;
* ``gradients``: losses and gradients of all values of a cooperative at once.
"""

from .confidence import Confidence
from .disparities import Disparity
from .drift import Drift
from .gradients import losses_and_gradients, protected_classes
from .interface import VALUES, Value
from .losses import ClassLoss, GroupLoss, WorstGroupLoss
from .miss_rate import MissRate

__all__ = [
    "VALUES",
    "ClassLoss",
    "Confidence",
    "Disparity",
    "Drift",
    "GroupLoss",
    "MissRate",
    "Value",
    "WorstGroupLoss",
    "losses_and_gradients",
    "protected_classes",
]
