"""Profiles learned from people's choices between updates.

* ``comparisons``: the choices, and the CSV files that hold them;
* ``preferences``: one profile from choices, :func:`fit_profile`;
* ``choice_model``: the statistics behind one profile;
* ``populations``: types of people from the choices of many, :func:`fit_population`;
* ``ideal_points``: the statistics behind types of people;
* ``held_out``: cross-validation;
* ``identification``: what the choices cannot tell.
"""

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
