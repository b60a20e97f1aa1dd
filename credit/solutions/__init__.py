"""Solution concepts of a coalition game: what each player is worth, from the worths of coalitions."""

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
