"""The difference reward, by its name in multi-agent learning."""

from __future__ import annotations

from typing import ClassVar

from ..rule import RULES, Family
from .loo import LeaveOneOut


@RULES.register("difference")
class Difference(LeaveOneOut):
    r"""Pays each agent what the team's reward would lose if the agent had contributed nothing.

    .. math:: D_i = G(z) - G(z_{-i}) = v(N) - v(N \setminus i)

    where G is the team's reward of the joint action z. In :math:`z_{-i}` agent i's action is replaced by a default action, here "contribute
    nothing". Wolpert & Tumer call this clamping to null. The rule is leave-one-out (``loo``) to the last digit; it has a name of its own so
    that it is found beside the other rules of multi-agent learning.

    The second term does not depend on the agent's own action. So whatever the agent changes in its action, its reward rises exactly as the
    team's does. A guard is an exception: its factor is that of the step that was applied, so the second term depends on the action a
    little.

    Costs n + 1 evaluations. Symmetric and null-player. Not efficient.

    Known failure: redundancy. Of two agents with the same data each is paid nothing, because the other is still there. So neither learns to
    contribute.

    References:
        Wolpert & Tumer (2001), *Optimal payoff functions for members of collectives*, Advances in Complex Systems 4.
    """

    family: ClassVar[Family] = "learning"
    pays = "G(z) − G(z₋ᵢ), which is v(N) − v(N∖i)"
    known_failure = "of two agents with the same data, each is paid nothing"
