"""The data: where rows come from, and how they are dealt to principals as lots.

* ``dataset``: a labelled table, and the registry of data sources;
* ``sources``: the sources digits and breast_cancer, and how a data set is split into public, train, validation, test and probe sets;
* ``duplicates``: rows that occur in several splits;
* ``overlap``: how many rows two splits of the same data have in common;
* ``fairness``: the sources adult, compas and german (extra ``fairness``);
* ``texts``: the source reviews, on sentence embeddings (extra ``text``);
* ``fashion``: the source fashion_mnist, from the four files of Fashion-MNIST;
* ``lots``: how lots are drawn from the train pool;
* ``corruption``: which lots are corrupt, how badly, and what is wrong with them;
* ``names``: under which names principals take part;
* ``columns``: how lots are drawn where principals hold columns of the same rows;
* ``mixtures``: which share of a lot's rows has which class;
* ``sites``: how rows are divided among principals.
"""

from .columns import ColumnSource
from .dataset import DATA, Bools, Dataset
from .duplicates import shared_rows
from .lots import DealtLots, DrawnLots, LotRecords, Lots, LotSource
from .mixtures import DirichletMixture
from .sources import Data, Group, HeldOut, Rows, Splits, load, split

__all__ = [
    "DATA",
    "Bools",
    "ColumnSource",
    "Data",
    "Dataset",
    "DealtLots",
    "DirichletMixture",
    "DrawnLots",
    "Group",
    "HeldOut",
    "LotRecords",
    "LotSource",
    "Lots",
    "Rows",
    "Splits",
    "load",
    "shared_rows",
    "split",
]
