"""Runs shapiq's estimators in an interpreter of their own, for ``estimators.py``.

It needs nothing but shapiq, so that the version may be one for which the rest of the project's environment is too old. The games stay with
who asks: the worths of coalitions are asked for over the connection.

Run by ``estimators.py`` as ``python shapiq_worker.py ADDRESS``.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from multiprocessing.connection import Client, Connection
from typing import Any

import numpy as np
import shapiq

Build = Callable[[int, int], Any]
"""From the number of players and a seed to an approximator."""


def estimators() -> dict[str, Build]:
    """The estimators of players' values that the installed shapiq has, by name."""
    import shapiq.approximator as approximators

    def named(name: str, **arguments: Any) -> Build:
        return lambda n, seed: getattr(approximators, name)(n=n, random_state=seed, **arguments)

    wanted = {
        "PermutationSamplingSV": named("PermutationSamplingSV"),
        "StratifiedSamplingSV": named("StratifiedSamplingSV"),
        "OwenSamplingSV": named("OwenSamplingSV"),
        "KernelSHAP": named("KernelSHAP"),
        "KernelSHAP, paired": named("KernelSHAP", pairing_trick=True),
        "UnbiasedKernelSHAP, paired": named("UnbiasedKernelSHAP", pairing_trick=True),
        "kADDSHAP, paired": named("kADDSHAP", max_order=2, pairing_trick=True),
        "SVARM": named("SVARM"),
        "SVARM, paired": named("SVARM", pairing_trick=True),
        "LeverageSHAP": named("LeverageSHAP"),
        "PolySHAP": named("PolySHAP", max_order=2, pairing_trick=True),
        "OddSHAP": named("OddSHAP"),
        "RegressionMSR": named("RegressionMSR", index="SV"),
        "ProxySHAP": named("ProxySHAP", index="SV", max_order=1),
        "ProxySHAP, adjusted": named("ProxySHAP", index="SV", max_order=1, adjustment=True),
    }
    return {name: build for name, build in wanted.items() if hasattr(approximators, name.partition(",")[0])}


def serve(connection: Connection) -> None:
    """Answer requests ``(name, n, budget, seed)`` with ``("done", values)`` or ``("refused", why)``, asking for worths meanwhile."""
    warnings.simplefilter("ignore")  # about budgets and solvers
    known = estimators()
    connection.send(("ready", (shapiq.__version__ if isinstance(shapiq.__version__, str) else "", list(known))))
    while (request := connection.recv()) is not None:
        name, n, budget, seed = request

        def value(coalitions: Any) -> Any:
            connection.send(("value", np.atleast_2d(np.asarray(coalitions, dtype=bool))))
            return connection.recv()

        try:
            found = known[name](n, seed).approximate(budget, value)
            connection.send(("done", np.array([float(found[(i,)]) for i in range(n)])))
        except Exception as error:  # shapiq's own, of many kinds: a budget that is too small, a solver that finds nothing
            connection.send(("refused", f"{type(error).__name__}: {error}"))


if __name__ == "__main__":
    with Client(sys.argv[1]) as connection:
        serve(connection)
