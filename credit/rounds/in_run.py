"""In-Run Data Shapley: the round's gain is expanded in the updates, and every term is divided."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from ..games.round import Need, Round
from ..rule import RULES, Family, LotRule


@RULES.register("in_run")
class InRun(LotRule):
    r"""Pays the Shapley value of the utility's Taylor expansion, without evaluating a coalition.

    .. math:: c_i = \langle g, u_i \rangle + \tfrac12 \Bigl\langle u_i, H \sum_j u_j \Bigr\rangle

    where u_i is agent i's part in the step, :math:`p_i \Delta_i`, and g and H are the utility's gradient and Hessian at the parameters on
    which the round starts. The first term is the linear part of what i adds. The second shares each interaction
    :math:`\langle u_i, H u_j \rangle` equally between i and j. The credit is linear in u_i, so it also says what each lot earned.

    Costs no evaluations, but one gradient and, for order 2, one Hessian-vector product a round. Not efficient in either order, because v(N)
    is not looked at. With order 2 it is the Shapley value wherever the utility is quadratic within the step, and there it is symmetric and
    null-player. Elsewhere it is off by terms of third order in the step (of second order where rectified units pass their kinks). Then only
    agents with equal updates are sure to get the same, and only agents without an update are sure to get nothing. With order 1 it is off by
    terms of second order.

    Known failure: a large step, which an expansion at its start does not describe. An update that overshoots is paid for its direction
    (order 1), or for a curvature that ends sooner (order 2).

    Departures from the source: in the paper the players are data points, and the step is plain gradient descent. Here they are agents, and
    u_i is an agent's part in whatever step the server made. With an Adam server, each coordinate of the step is shared in proportion to
    what enters it. The game v redoes the server's step for each coalition, so it is then not quadratic even for a quadratic utility, and
    the credit belongs to the step that was applied. The same holds for weights that depend on who takes part.

    Args:
        order: 1 for the gradient alone, 2 for the Hessian too.

    Raises:
        ValueError: If ``order`` is neither 1 nor 2.

    References:
        Wang, Mittal, Song & Jia (2025), *Data Shapley in one training run*, ICLR, arXiv 2406.11011.
    """

    family: ClassVar[Family] = "gradient"
    source = "In-Run Data Shapley (arXiv 2406.11011)"
    pays = "⟨g, uᵢ⟩ + ½⟨uᵢ, H Σu⟩: Shapley value of the utility's Taylor expansion"
    known_failure = "large steps, which the expansion does not describe"
    needs: tuple[Need, ...] = ("utility_gradient", "utility_curvature")

    def __init__(self, order: int = 2) -> None:
        if isinstance(order, bool) or order not in (1, 2):
            raise ValueError(f"order={order!r}: must be 1 (gradient) or 2 (gradient and Hessian)")
        self.order = order
        if order == 1:
            self.needs = ("utility_gradient",)

    def method(self, n_players: int) -> str:
        """What is computed instead of coalitions."""
        curvature = " and a Hessian-vector product" if self.order == 2 else ""
        return f"{super().method(n_players)}, but a gradient{curvature}"

    def assign(self, round: Round) -> Tensor:
        """Credit of every agent for this round, ``(E, N)``, in the utility's unit."""
        return (round.updates @ self._slope(round)[:, :, None])[:, :, 0]

    def assign_lots(self, round: Round) -> Tensor:
        """Credit of every lot for this round, ``(E, N, K)``, in the utility's unit."""
        return (round.lot_updates @ self._slope(round)[:, None, :, None])[..., 0]

    def _slope(self, round: Round) -> Tensor:
        """What a unit of each parameter is worth, ``(E, P)``: the gradient, halfway along the step for order 2."""
        if self.order == 1:
            return round.utility_gradient()
        gradient, product = round.utility_expansion(round.updates.sum(dim=1))
        return gradient + 0.5 * product
