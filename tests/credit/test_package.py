import importlib.util
import inspect

import pytest

from proxycoop import credit


def test_public_names_are_these():
    assert sorted(credit.__all__) == [
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
        "RULES",
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
    ]  # fmt: skip


def test_every_public_name_exists_and_is_documented():
    assert all(inspect.getdoc(getattr(credit, name)) for name in credit.__all__)


def test_importing_the_folder_bare_is_refused_with_the_right_name():
    spec = importlib.util.spec_from_file_location("credit", credit.__file__)
    with pytest.raises(ImportError, match=r"use 'import proxycoop\.credit'"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
