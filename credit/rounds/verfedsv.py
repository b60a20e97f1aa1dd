"""VerFedSV: the Shapley value of what a round gains when only some principals' embeddings change."""

from __future__ import annotations

from typing import ClassVar

from ..games.round import Need
from ..rule import RULES, Family
from ..solutions.shapley import Shapley


@RULES.register("verfedsv")
class VerFedSv(Shapley):
    r"""Pays the Shapley value of what a round gains when only some principals' embeddings change (vertical federated Shapley).

    .. math:: c_i^t = \sum_{S \subseteq N \setminus i} \frac{|S|!\,(n-|S|-1)!}{n!} \, [u_t(S \cup i) - u_t(S)], \qquad
        u_t(S) = \ell\Bigl(\sum_i h_i^{t-1}\Bigr) - \ell\Bigl(\sum_{i \in S} h_i^t + \sum_{i \notin S} h_i^{t-1}\Bigr)

    for a loss ℓ of the embeddings' sum. :math:`h_i = X_i W_i` is principal i's embedding: its columns of the rows times its weights. The
    Shapley value is additive, so the value of :math:`\sum_t u_t` is the sum of the rounds' values, and every round pays its own.

    Principals hold columns of the same rows, and each principal's update changes its own weights only. So :math:`u_t` is the round's game
    :math:`v(S) = U(\theta + \sum_{i \in S} \Delta_i) - U(\theta)`. The rule is ``shapley`` in a vertical cooperative, which ``needs`` asks
    for.

    Costs 2^n evaluations and takes n ≤ 20, or estimates within a budget. Efficient, symmetric and null-player; its estimates have the
    promises of those of ``shapley``.

    Known failure: columns that say the same. Two principals with one column each share what one of them would have got, and a principal
    that copies a column takes half.

    Departures from the source:

    - The loss is that of held-out rows rather than of the training batch, so that nobody is paid for overfitting.
    - Every round computes the embeddings of all these rows. So no matrix of embeddings has missing entries to complete, as in the source's
      asynchronous variant.
    - A server that remembers (momentum, Adam) moves embeddings by its memory too. The round's game starts where the memory leads, and what
      the memory brings is credited to nobody; u_t would pay it to those whose weights it moves.

    Args:
        budget: Most coalitions to evaluate in a round, v(∅) apart: a positive whole number. ``None`` is all of them.
        seed: Seed of the draws, a whole number from 0.

    Raises:
        ValueError: As :class:`Shapley`.

    References:
        Fan, Fang, Wang, Zhou, Pei, Friedlander & Zhang (2022), *Fair and efficient contribution valuation for vertical federated learning*,
        arXiv 2201.02658.
    """

    family: ClassVar[Family] = "federated"
    source = "Fan et al. 2022 (arXiv 2201.02658)"
    pays = "Shapley value where principals hold columns of the same rows"
    known_failure = "who copies a column takes half of its pay"
    needs: tuple[Need, ...] = ("columns",)
