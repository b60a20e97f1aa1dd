"""How the engine's rounds are computed.

* ``steps``: the steps of a round;
* ``compiled``: the rounds as compiled functions of tensors;
* ``tables``: rounds whose coalition game is known whole.
"""

if __name__ != "proxycoop.envs.rounds":
    raise ImportError(f"{__name__!r} is part of proxycoop: use 'import proxycoop.envs'")

from .compiled import CompiledRounds
from .steps import RoundSteps
from .tables import tabulated

__all__ = ["CompiledRounds", "RoundSteps", "tabulated"]
