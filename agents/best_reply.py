"""A reference for what a credit rule asks of selfish proxies: everybody replies best to everybody else."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from ..checks import whole_number
from ..envs.engine import Engine
from ..envs.observations.layout import ObservationLayout
from ..envs.scenario import Scenario
from .agent import AGENTS, PrivilegedAgent
from .equilibrium import STARTS, Start, best_replies, start_of


@AGENTS.register("best_reply")
class BestReply(PrivilegedAgent):
    r"""For reference only: contributes the set of its own lots that maximises its own reward of this round.

    It knows the true gain of every set of lots and what the credit rule will pay for it. So it reaches what the rule asks of selfish
    proxies, apart from learning and information: where learned proxies fall short of it, that is no matter of incentives. It is myopic:
    later rounds do not count. It computes

    .. math::

        a_i = \arg\max_{a \subseteq \text{own lots}} \; \text{scale} \cdot c_i(a, a_{-i}) + \text{public share} \cdot \text{scale} \cdot
        v(N) - \text{cost} \cdot |a| - \text{fines}

    by trying all 2^K sets in the engine's own round, with the credit rule that the engine has (:mod:`~proxycoop.agents.trial`). A rule that
    remembers earlier rounds is asked on copies. A rule that draws random numbers is asked with the numbers that it will draw, so this agent
    knows its luck as well.

    *What the others play.* The proxies that play this agent reply to each other: they begin with ``start``, and reply one after another, in
    the order of their seats, until nobody changes its choice. By default they begin with the clean lots that will be admitted, so that what
    they end with is what the rule makes of honest play. Where members need each other, a round may have another equilibrium in which nobody
    contributes, because a single lot would do harm: ``start="last"``, which begins the episode with nothing, finds that one. Then the
    round's choices are a pure Nash equilibrium (:mod:`~proxycoop.agents.equilibrium`). If there is none, or it is not found, they stop
    after ``sweeps`` times through all proxies and play what they have; :attr:`converged` says where. Seats with another agent
    (:class:`~proxycoop.agents.Seats`) are taken to repeat their last contributions, and to contribute nothing in the first round. If a
    single seat plays this agent, it so replies to the others' last contributions (Cournot's adjustment). Two agents of this class are each
    other's others: use one object for several seats.

    *Settlements.* Where agents are rewarded with settlements, the reward of a round is what a settlement right after it pays. With
    ``period`` above 1, most rounds have none. In these this agent contributes nothing, unless there is a public share: it does not look
    ahead.

    A round costs N·2^K rounds of credit for every time through the proxies; lots that would be refused are left out where that cannot
    matter.

    Args:
        start: Where replies begin; see :data:`~proxycoop.agents.equilibrium.Start`.
        sweeps: How often to go through the proxies at most; by default N + 1 times, at least 4.

    Attributes:
        converged: For each round of the episode, where replies came to an end, bool ``(E,)`` each.

    Raises:
        ValueError: If there is no such start, or ``sweeps`` is not a whole number from 1.
    """

    def __init__(self, start: Start = "clean", sweeps: int | None = None) -> None:
        if start not in STARTS:
            raise ValueError(f"start={start!r}: must be one of {', '.join(STARTS)}")
        self.start: Start = start
        self.sweeps = None if sweeps is None else whole_number("sweeps", sweeps, 1)
        self.converged: list[Tensor] = []

    @classmethod
    def lacks(cls, scenario: Scenario) -> str:
        """All agents in every round, if only some take part."""
        return scenario.lacks_everybody("agent best_reply")

    def watch(self, engine: Engine) -> None:
        """Take the engine, to look into it. All seats are this agent's, until :meth:`sit` says otherwise."""
        super().watch(engine)
        self.seats = tuple(range(engine.num_agents))

    def sit(self, seats: Iterable[int]) -> None:
        """Take these seats only; the others do not reply."""
        self.seats = tuple(seats)

    def begin(self, layout: ObservationLayout, keys: Tensor) -> None:
        """Begin an episode."""
        super().begin(layout, keys)
        self.converged = []

    def choose(self, observations: Tensor) -> Tensor:
        """Everybody's best reply in the seats of this agent, and the last contributions in the others, bool ``(E, N, K)``."""
        del observations
        engine, own = self.engine, list(self.seats)
        start = start_of(engine, "last")
        start[:, own] = start_of(engine, self.start)[:, own]
        replies = best_replies(engine, start, seats=own, sweeps=self.sweeps)
        self.converged.append(replies.converged)
        return replies.choices
