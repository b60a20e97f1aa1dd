"""Rules that read the round itself: who took part, gradients, peers, time, vetoes.

* ``fedsv``: Shapley value of the agents that took part, round by round;
* ``comfedsv``: the same, with the unknown entries of the utility matrix completed;
* ``verfedsv``: Shapley value where principals hold columns;
* ``data_shapley``: Shapley value with lots as the players;
* ``in_run``: In-Run Data Shapley: the gain expanded in the updates;
* ``g_shapley``: gradient Shapley: updates applied in a random order;
* ``cgsv``: cosine similarity of an update with the others;
* ``shapfed``: agreement of an update with the aggregate, class by class;
* ``fael``: measure contributions first, then share more often with the better agents;
* ``peer_ranking``: agents score each other's updates;
* ``aristocrat``: how much better an action was than what the agent usually does, or than all that it might have done;
* ``time_aware``: agents that joined early are paid more;
* ``veto``: rules where one principal's values block another's updates;
* ``running_mean``: running means over rounds, for the modules above;
* ``shares``: dividing a round's gain by given shares, for the modules above.
"""

from .aristocrat import Aristocrat, ExpectedDifference
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
    "ExpectedDifference",
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
