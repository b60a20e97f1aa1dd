"""Credit for coalitions: games, rounds, and the rules that divide what a coalition gained.

This package works on tensors and callables alone. It knows nothing of environments or agents, so it can be used on any coalition game and
in any federated code::

    from proxycoop import credit

    glove = lambda coalitions: 1.0 * (coalitions[:, 0] & coalitions[:, 1:].any(dim=1))
    credit.make("shapley").values(glove, n_players=3)  # [[2/3, 1/6, 1/6]]
    credit.make("svarm", budget=300).estimate(glove, n_players=3).interval(0.95)
"""

if __name__ != "proxycoop.credit":
    raise ImportError(f"{__name__!r} is part of proxycoop: use 'import proxycoop.credit'")

from . import games
from .estimators.antithetic import AntitheticPermutations
from .estimators.bridge import from_shapiq, to_shapiq
from .estimators.complementary import ComplementaryContributions
from .estimators.estimate import Estimate, Estimator
from .estimators.gaussian_process import GaussianProcess
from .estimators.kernelshap import KernelShap, LeverageShap
from .estimators.size_regression import SizeRegression
from .estimators.stacked import Stacked
from .estimators.svarm import StratifiedSvarm, Svarm
from .estimators.truncated import GuidedTruncationGradient, TruncatedMonteCarlo
from .games.from_updates import from_updates
from .games.game import CoalitionGame, as_game, coalition_matrix
from .games.known import table_game
from .games.lots import LotGame
from .games.round import Round
from .money.apportionment import apportion, apportion_within
from .money.settlement import Accounts, Settlement, SettlementPolicy, settle
from .resistant.fact import Fact
from .resistant.faithful import FaithfulGroupShapley
from .resistant.quotient import Quotient
from .resistant.slashing import Slashing
from .rounds.aristocrat import Aristocrat, ExpectedDifference
from .rounds.cgsv import CosineGradientShapley
from .rounds.comfedsv import ComFedSv
from .rounds.data_shapley import DataShapley
from .rounds.fael import FairYetEqual
from .rounds.fedsv import FedSv
from .rounds.g_shapley import GradientShapley
from .rounds.in_run import InRun
from .rounds.peer_ranking import PeerRanking, peer_incentives
from .rounds.shapfed import ShapFed
from .rounds.time_aware import Cumulation, Valuation, dividends
from .rounds.verfedsv import VerFedSv
from .rounds.veto import VetoOwn, VetoShapley, VetoShared, veto_split
from .rule import RULES, CreditRule, GameRule, LotRule, make
from .solutions.banzhaf import Banzhaf, BanzhafMsr
from .solutions.beta_shapley import BetaShapley
from .solutions.core import LeastCore, Nucleolus, least_core, nucleolus
from .solutions.data_size import DataSize
from .solutions.difference import Difference
from .solutions.equal import Equal
from .solutions.joint_shapley import JointShapley, joint_shapley_values
from .solutions.loo import LeaveOneOut
from .solutions.myerson import Myerson
from .solutions.owen import Owen
from .solutions.shapley import Shapley, shapley_values
from .solutions.standalone import Standalone
from .suite.axioms import RuleReport, RuleViolation, check_rule
from .suite.battery import Case, game_round, learning_round
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
    "ExpectedDifference",
    "Fact",
    "FairYetEqual",
    "FaithfulGroupShapley",
    "FedSv",
    "GameRule",
    "GaussianProcess",
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
    "Quotient",
    "Round",
    "RuleReport",
    "RuleViolation",
    "Settlement",
    "SettlementPolicy",
    "ShapFed",
    "Shapley",
    "SizeRegression",
    "Slashing",
    "Smoothed",
    "Stacked",
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
