"""Screening: whose profiles let which updates in, and what becomes of the others."""

from .bargaining import Bargain, Offers
from .filters import Filtered
from .harm import Harm
from .procedure import Guarded, Screener
from .profiles import Profile, Profiles, ProfileTable
from .verdicts import Screening, Verdicts

__all__ = [
    "Bargain",
    "Filtered",
    "Guarded",
    "Harm",
    "Offers",
    "Profile",
    "ProfileTable",
    "Profiles",
    "Screener",
    "Screening",
    "Verdicts",
]
