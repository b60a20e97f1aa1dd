"""What proxies see: the layout of an observation, what it remembers of an episode, and the spaces of the faces."""

from .layout import ObservationLayout
from .memory import Memory
from .spaces import ActionCodec, ActionForm, Pay, RewardForm

__all__ = [
    "ActionCodec",
    "ActionForm",
    "Memory",
    "ObservationLayout",
    "Pay",
    "RewardForm",
]
