r"""Values: what a model update may do to people, as differentiable losses of the shared model.

A value m is a loss :math:`\ell_m(\theta)` on a probe set of its own. An update's predicted harm to it is first order,
:math:`h_m = \langle \nabla \ell_m(\theta), \Delta \rangle`, positive when the update makes things worse.

Importing this package registers all kinds. :class:`Value` says how to write one's own.
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
