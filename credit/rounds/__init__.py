"""Rules that read the round itself: who took part, gradients, peers, time, vetoes."""

from .aristocrat import Aristocrat
from .cgsv import CosineGradientShapley
from .comfedsv import ComFedSv
from .data_shapley import DataShapley
from .fael import FairYetEqual
from .fedsv import FedSv
from .g_shapley import GradientShapley
from .in_run import InRun
from .peer_ranking import PeerRanking, peer_incentives
from .shapfed import ShapFed
from .time_aware import Cumulation, Valuation, dividends
from .verfedsv import VerFedSv
from .veto import VetoOwn, VetoShapley, VetoShared, veto_split

__all__ = [
    "Aristocrat",
    "ComFedSv",
    "CosineGradientShapley",
    "Cumulation",
    "DataShapley",
    "FairYetEqual",
    "FedSv",
    "GradientShapley",
    "InRun",
    "PeerRanking",
    "ShapFed",
    "Valuation",
    "VerFedSv",
    "VetoOwn",
    "VetoShapley",
    "VetoShared",
    "dividends",
    "peer_incentives",
    "veto_split",
]
