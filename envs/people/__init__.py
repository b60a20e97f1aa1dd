"""Profiles learned from people's choices between updates."""

from .comparisons import Comparisons
from .populations import PopulationFit, fit_population
from .preferences import ProfileFit, fit_profile

__all__ = [
    "Comparisons",
    "PopulationFit",
    "ProfileFit",
    "fit_population",
    "fit_profile",
]
