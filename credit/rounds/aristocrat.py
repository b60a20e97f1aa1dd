"""Aristocrat utility: how much better an agent's action was than what it usually does."""

from __future__ import annotations

from collections import deque
from typing import ClassVar

import torch
from torch import Tensor

from ..arguments import is_whole
from ..games.round import Need, Round
from ..rule import RULES, CreditRule, Family


@RULES.register("aristocrat")
class Aristocrat(CreditRule):
    r"""The team's reward, less what it would have been on average had the agent acted as it did in the last rounds.

    .. math:: c_i = G(z) - \frac{1}{|W|} \sum_{a' \in W_i} G(z_{-i}, a')

    for the worth G of a set of lots, the admitted lots z, and the sets of lots that agent i chose to contribute in the last ``window``
    rounds, :math:`W_i`. :math:`(z_{-i}, a')` has the others' lots as they were admitted, and those of agent i that are in a' and would
    be admitted if contributed in this round. In the first round nothing is known of anybody, and :math:`W_i` is "contribute nothing":
    the difference reward.

    Wolpert & Tumer take the expectation over the agent's policy. A rule does not see policies, so that of the last rounds stands in for
    it: whole joint actions rather than one probability a lot, since an agent's lots may go together. This round's action is left out,
    so that what is subtracted does not depend on it and a policy gradient keeps its expectation; but for a guard's factor, which is
    that of the step that was applied, and where it is negotiated what enters: there, of the lots that were not contributed, those
    to which nobody objects are taken to be let in.

    Costs n · window + 1 evaluations of sets of lots. Not efficient; symmetric and null-player in a first round only, since agents that
    do the same now may have done other things before, and one that rests is charged for what it used to bring. Its known failure
    is constancy: an agent that always does the same is paid nothing for it, even if nothing better could be done.

    Args:
        window: Number of past rounds that say what an agent usually does, at least 1.

    Raises:
        ValueError: If ``window`` is not a positive whole number.

    References:
        Wolpert & Tumer (2001), *Optimal payoff functions for members of collectives*, Advances in Complex Systems 4.
    """

    family: ClassVar[Family] = "learning"
    source = "aristocrat utility (Wolpert & Tumer 2001)"
    needs: tuple[Need, ...] = ("lots",)

    def __init__(self, window: int = 8) -> None:
        if not is_whole(window, 1):
            raise ValueError(f"window={window!r}: must be a whole number of rounds, at least 1")
        self.window = window
        self.evaluations = f"{window} n + 1"
        self._past: deque[Tensor] = deque(maxlen=window)  # what was contributed, bool (E, N, K) each

    def cost(self, n_players: int) -> int:
        """What was admitted, and every agent's past actions in place of its own."""
        return n_players * self.window + 1

    def reset(self, num_envs: int, num_agents: int) -> None:
        """Begin episodes, with no memory."""
        super().reset(num_envs, num_agents)
        self._past.clear()

    def assign(self, round: Round) -> Tensor:
        """Credit of every agent for this round, ``(E, N)``, in the utility's unit."""
        past = torch.stack(list(self._past) or [torch.zeros_like(round.contributed)], dim=1)  # (E, W, N, K)
        usual = past & round.lots.candidates[:, None]
        n_envs, n_past, n_agents, n_lots = usual.shape
        acts = torch.eye(n_agents, dtype=torch.bool, device=usual.device)[:, None, :, None]  # agent i in row i, (N, 1, N, 1)
        instead = torch.where(acts, usual[:, None], round.admitted[:, None, None])  # (z_{-i}, a'), (E, N, W, N, K)
        sets = torch.cat([instead.reshape(n_envs, -1, n_agents, n_lots), round.admitted[:, None]], dim=1)
        worth = round.lots.value(sets)  # (E, N·W + 1)
        others = worth[:, :-1].reshape(n_envs, n_agents, n_past)
        same = (instead == round.admitted[:, None, None]).flatten(start_dim=3).all(dim=-1)  # (E, N, W)
        # equal sets may differ in the last digit, and nothing must come of that
        difference = torch.where(same, 0.0, worth[:, -1, None, None] - others)
        self._past.append(round.contributed.clone())
        return difference.mean(dim=-1)
