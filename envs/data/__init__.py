"""Where rows come from, and how they are dealt to principals as lots."""

from .columns import ColumnSource
from .dataset import DATA, Bools, Dataset
from .lots import DrawnLots, Lots, LotSource
from .mixtures import DirichletMixture
from .sources import Data, Group, HeldOut, Rows, Splits, load, split

__all__ = [
    "DATA",
    "Bools",
    "ColumnSource",
    "Data",
    "Dataset",
    "DirichletMixture",
    "DrawnLots",
    "Group",
    "HeldOut",
    "LotSource",
    "Lots",
    "Rows",
    "Splits",
    "load",
    "split",
]
