"""Differential privacy of updates: norms are clipped, noise is added, and what that guarantees is counted.

* ``settings``: how much noise is added, and where (``privacy:`` in a scenario), and what it does to a round;
* ``mechanism``: clipped updates, noised updates, and the noise of a step;
* ``units``: what is protected, a lot, and how often a round tells of it;
* ``accountant``: (ε, δ) of what was released, and the noise that a budget asks for;
* ``sampling``: the same where lots are drawn at random, and nobody knows which (extra ``privacy``).
"""

if __name__ != "proxycoop.envs.privacy":
    raise ImportError(f"{__name__!r} is part of proxycoop: use 'import proxycoop.envs'")

from .accountant import ORDERS, epsilon, sigma_for
from .mechanism import clipped, noised, step_noise
from .sampling import sampled_epsilon
from .settings import Privacy
from .units import overlapping, releases

__all__ = [
    "ORDERS",
    "Privacy",
    "clipped",
    "epsilon",
    "noised",
    "overlapping",
    "releases",
    "sampled_epsilon",
    "sigma_for",
    "step_noise",
]
