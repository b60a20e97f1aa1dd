"""Estimators: a solution concept from a budget of evaluations, with standard errors."""

from .antithetic import AntitheticPermutations
from .bridge import from_shapiq, to_shapiq
from .complementary import ComplementaryContributions
from .estimate import Estimate, Estimator
from .kernelshap import KernelShap, LeverageShap
from .size_regression import SizeRegression
from .svarm import StratifiedSvarm, Svarm
from .truncated import GuidedTruncationGradient, TruncatedMonteCarlo

__all__ = [
    "AntitheticPermutations",
    "ComplementaryContributions",
    "Estimate",
    "Estimator",
    "GuidedTruncationGradient",
    "KernelShap",
    "LeverageShap",
    "SizeRegression",
    "StratifiedSvarm",
    "Svarm",
    "TruncatedMonteCarlo",
    "from_shapiq",
    "to_shapiq",
]
