"""Estimators: a solution concept from a budget of evaluations, with standard errors.

* ``estimate``: an estimate with its standard errors, and the base class of estimators;
* ``antithetic``: antithetic permutation sampling;
* ``complementary``: complementary contributions;
* ``gaussian_process``: the value of a Gaussian process that is fitted to the sampled coalitions;
* ``kernelshap``: least squares: paired KernelSHAP and leverage-score sampling;
* ``size_regression``: regression on coalition size and membership;
* ``stacked``: the mean of a Gaussian process's and a regression's value, weighted by cross-validation;
* ``svarm``: SVARM and stratified SVARM;
* ``truncated``: TMC-Shapley and GTG-Shapley: sampling that stops early;
* ``bridge``: estimators of the library shapiq;
* ``regression``: weighted least squares on sampled coalitions, for the modules above;
* ``single_draws``: what those share that fit something to coalitions drawn one by one;
* ``sampling``: drawing orders and coalitions, for the modules above;
* ``strata``: means over coalitions by size and member, for the modules above.
"""

from .antithetic import AntitheticPermutations
from .bridge import from_shapiq, to_shapiq
from .complementary import ComplementaryContributions
from .estimate import Estimate, Estimator
from .gaussian_process import GaussianProcess
from .kernelshap import KernelShap, LeverageShap
from .size_regression import SizeRegression
from .stacked import Stacked
from .svarm import StratifiedSvarm, Svarm
from .truncated import GuidedTruncationGradient, TruncatedMonteCarlo

__all__ = [
    "AntitheticPermutations",
    "ComplementaryContributions",
    "Estimate",
    "Estimator",
    "GaussianProcess",
    "GuidedTruncationGradient",
    "KernelShap",
    "LeverageShap",
    "SizeRegression",
    "Stacked",
    "StratifiedSvarm",
    "Svarm",
    "TruncatedMonteCarlo",
    "from_shapiq",
    "to_shapiq",
]
