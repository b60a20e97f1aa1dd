"""Credit for coalitions: games, rounds, and the rules that divide what a coalition gained.

This is the ground floor: it works on tensors and callables alone and knows nothing of environments or agents, so that it
serves any game and any federated code::

    from proxycoop import credit

    glove = lambda coalitions: 1.0 * (coalitions[:, 0] & coalitions[:, 1:].any(dim=1))
    credit.make("shapley").values(glove, n_players=3)  # [[2/3, 1/6, 1/6]]
    credit.make("svarm", budget=300).estimate(glove, n_players=3).interval(0.95)
"""

if __name__ != "proxycoop.credit":
    raise ImportError(f"{__name__!r} is part of proxycoop: use 'import proxycoop.credit'")

from . import games
from .antithetic import AntitheticPermutations
from .apportionment import apportion, apportion_within
from .aristocrat import Aristocrat
from .axioms import RuleReport, RuleViolation, check_rule
from .banzhaf import Banzhaf, BanzhafMsr
from .battery import Case, game_round, learning_round
from .beta_shapley import BetaShapley
from .bridge import from_shapiq, to_shapiq
from .cgsv import CosineGradientShapley
from .comfedsv import ComFedSv
from .complementary import ComplementaryContributions
from .core import LeastCore, Nucleolus, least_core, nucleolus
from .data_shapley import DataShapley
from .data_size import DataSize
from .difference import Difference
from .equal import Equal
from .estimate import Estimate, Estimator
from .fael import FairYetEqual
from .fedsv import FedSv
from .from_updates import from_updates
from .g_shapley import GradientShapley
from .game import CoalitionGame, as_game, coalition_matrix
from .games import table_game
from .in_run import InRun
from .joint_shapley import JointShapley, joint_shapley_values
from .kernelshap import KernelShap, LeverageShap
from .loo import LeaveOneOut
from .lots import LotGame
from .myerson import Myerson
from .owen import Owen
from .peer_ranking import PeerRanking, peer_incentives
from .round import Round
from .rule import RULES, CreditRule, GameRule, LotRule, make
from .settlement import Accounts, Settlement, SettlementPolicy, settle
from .shapfed import ShapFed
from .shapley import Shapley, shapley_values
from .size_regression import SizeRegression
from .standalone import Standalone
from .svarm import StratifiedSvarm, Svarm
from .time_aware import Cumulation, Valuation, dividends
from .truncated import GuidedTruncationGradient, TruncatedMonteCarlo
from .verfedsv import VerFedSv
from .veto import VetoOwn, VetoShapley, VetoShared, veto_split
from .wrappers import Clipped, Coopetition, Normalised, Smoothed

__all__ = [
    "RULES",
    "Accounts",
    "AntitheticPermutations",
    "Aristocrat",
    "Banzhaf",
    "BanzhafMsr",
    "BetaShapley",
    "Case",
    "Clipped",
    "CoalitionGame",
    "ComFedSv",
    "ComplementaryContributions",
    "Coopetition",
    "CosineGradientShapley",
    "CreditRule",
    "Cumulation",
    "DataShapley",
    "DataSize",
    "Difference",
    "Equal",
    "Estimate",
    "Estimator",
    "FairYetEqual",
    "FedSv",
    "GameRule",
    "GradientShapley",
    "GuidedTruncationGradient",
    "InRun",
    "JointShapley",
    "KernelShap",
    "LeastCore",
    "LeaveOneOut",
    "LeverageShap",
    "LotGame",
    "LotRule",
    "Myerson",
    "Normalised",
    "Nucleolus",
    "Owen",
    "PeerRanking",
    "Round",
    "RuleReport",
    "RuleViolation",
    "Settlement",
    "SettlementPolicy",
    "ShapFed",
    "Shapley",
    "SizeRegression",
    "Smoothed",
    "Standalone",
    "StratifiedSvarm",
    "Svarm",
    "TruncatedMonteCarlo",
    "Valuation",
    "VerFedSv",
    "VetoOwn",
    "VetoShapley",
    "VetoShared",
    "apportion",
    "apportion_within",
    "as_game",
    "check_rule",
    "coalition_matrix",
    "dividends",
    "from_shapiq",
    "from_updates",
    "game_round",
    "games",
    "joint_shapley_values",
    "learning_round",
    "least_core",
    "make",
    "nucleolus",
    "peer_incentives",
    "settle",
    "shapley_values",
    "table_game",
    "to_shapiq",
    "veto_split",
]
