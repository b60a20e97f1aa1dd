"""What proxies see.

* ``layout``: the name, place and meaning of every feature of an observation;
* ``memory``: what observations need of an episode's past, and the observations that are made from it;
* ``spaces``: the spaces of the faces, and the forms of actions, rewards and infos.
"""

from .layout import ObservationLayout
from .memory import Memory, Past
from .spaces import ActionCodec, ActionForm, Pay, RewardForm

__all__ = [
    "ActionCodec",
    "ActionForm",
    "Memory",
    "ObservationLayout",
    "Past",
    "Pay",
    "RewardForm",
]
