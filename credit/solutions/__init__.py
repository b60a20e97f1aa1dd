"""Solution concepts of a coalition game: what each player is worth, from the worths of coalitions.

* ``shapley``: the Shapley value;
* ``banzhaf``: the Banzhaf value;
* ``beta_shapley``: Beta-Shapley values;
* ``owen``: the Owen value: players in unions;
* ``myerson``: the Myerson value: players in a graph;
* ``joint_shapley``: joint Shapley values: worth of groups;
* ``core``: the least core and the nucleolus;
* ``loo``: leave-one-out;
* ``difference``: the difference reward, which is leave-one-out under another name;
* ``standalone``: what each agent would have achieved alone;
* ``equal``: an equal split;
* ``data_size``: pay in proportion to the amount of data;
* ``semivalues``: averages of marginal contributions, for the modules above;
* ``excess``: linear programmes for ``core``.
"""

from .banzhaf import Banzhaf, BanzhafMsr
from .beta_shapley import BetaShapley
from .core import LeastCore, Nucleolus, least_core, nucleolus
from .data_size import DataSize
from .difference import Difference
from .equal import Equal
from .joint_shapley import JointShapley, joint_shapley_values
from .loo import LeaveOneOut
from .myerson import Myerson
from .owen import Owen
from .shapley import Shapley, shapley_values
from .standalone import Standalone

__all__ = [
    "Banzhaf",
    "BanzhafMsr",
    "BetaShapley",
    "DataSize",
    "Difference",
    "Equal",
    "JointShapley",
    "LeastCore",
    "LeaveOneOut",
    "Myerson",
    "Nucleolus",
    "Owen",
    "Shapley",
    "Standalone",
    "joint_shapley_values",
    "least_core",
    "nucleolus",
    "shapley_values",
]
