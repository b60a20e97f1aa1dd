"""The difference reward, by its name in multi-agent learning."""

from __future__ import annotations

from typing import ClassVar

from ..rule import RULES, Family
from .loo import LeaveOneOut


@RULES.register("difference")
class Difference(LeaveOneOut):
    r"""What the team's reward would lose if the agent had contributed nothing.

    .. math:: D_i = G(z) - G(z_{-i}) = v(N) - v(N \setminus i)

    for the team's reward G of the joint action z, in which agent i's action is replaced by a default: here "contribute nothing", the
    default action that Wolpert & Tumer call clamping to null. That is leave-one-out (``loo``) to the last digit; it has a name of its
    own here so that it is found beside the other rules of multi-agent learning. An agent's reward rises exactly as the team's does,
    whatever it changes in its own action, since the second term does not depend on it (under a guard it does, a little: the guard's
    factor is that of the step that was applied). Costs n + 1 evaluations. Symmetric and
    null-player; not efficient. Its known failure is redundancy: of two agents with the same data each is paid nothing, because
    the other is still there, and so neither learns to contribute.

    References:
        Wolpert & Tumer (2001), *Optimal payoff functions for members of collectives*, Advances in Complex Systems 4.
    """

    family: ClassVar[Family] = "learning"
