"""The Shapley value of embeddings that have moved on: VerFedSV."""

from __future__ import annotations

from typing import ClassVar

from ..games.round import Need
from ..rule import RULES, Family
from ..solutions.shapley import Shapley


@RULES.register("verfedsv")
class VerFedSv(Shapley):
    r"""Vertical federated Shapley value: what a round gains when only some principals' embeddings move on.

    .. math:: c_i^t = \sum_{S \subseteq N \setminus i} \frac{|S|!\,(n-|S|-1)!}{n!} \, [u_t(S \cup i) - u_t(S)], \qquad
        u_t(S) = \ell\Bigl(\sum_i h_i^{t-1}\Bigr) - \ell\Bigl(\sum_{i \in S} h_i^t + \sum_{i \notin S} h_i^{t-1}\Bigr)

    for a loss ℓ of the embeddings' sum, where :math:`h_i = X_i W_i` is principal i's embedding: its columns of the rows times its
    weights. The value of :math:`\sum_t u_t` is the sum of the rounds', since the Shapley value is additive, so that every round pays its
    own. Principals hold columns of the same rows, and each one's update moves its own weights only; so :math:`u_t` is the round's game
    :math:`v(S) = U(\theta + \sum_{i \in S} \Delta_i) - U(\theta)`, and the rule is ``shapley`` of a cooperative that is vertical, which
    ``needs`` asks for. Costs 2^n evaluations and takes n ≤ 20, or estimates within a budget; efficient, symmetric and null-player, its
    estimates as those of ``shapley``. Its known failure is columns that say the same: two principals with one column each share what one
    of them would have got, and who copies a column takes half.

    Departures: the loss is of held-out rows rather than of the training batch, so that nobody is paid for overfitting; every round
    computes the embeddings of all these rows, so that no matrix of embeddings has missing entries to complete, as the source's
    asynchronous variant has. And with a server that remembers (momentum, Adam), whose memory moves embeddings of its own accord, the
    round's game starts where that leads, and what it brings is nobody's; u_t would pay it to whose weights it moves.

    Args:
        budget: Most coalitions to evaluate in a round; ``None`` is all of them.
        seed: Seed of the draws.

    References:
        Fan, Fang, Wang, Zhou, Pei, Friedlander & Zhang (2022), *Fair and efficient contribution valuation for vertical federated
        learning*, arXiv 2201.02658.
    """

    family: ClassVar[Family] = "federated"
    source = "Fan et al. 2022 (arXiv 2201.02658)"
    needs: tuple[Need, ...] = ("columns",)
