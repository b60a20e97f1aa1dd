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
    r"""Pays the team's reward, less its average had the agent acted as it did in the last rounds.

    .. math:: c_i = G(z) - \frac{1}{|W|} \sum_{a' \in W_i} G(z_{-i}, a')

    where G is the worth of a set of lots, and z are the lots that were admitted. :math:`W_i` are the sets of lots that agent i chose to
    contribute in the last ``window`` rounds. :math:`(z_{-i}, a')` holds the others' lots as they were admitted, and those lots of a' that
    would be admitted if agent i contributed them in this round. In the first round nothing is known of any agent, and :math:`W_i` is
    "contribute nothing": the credit is then the difference reward.

    Costs n · window + 1 evaluations of sets of lots. Not efficient. Symmetric and null-player in the first round only: agents that do the
    same now may have done other things before, and an agent that rests is charged for what it used to bring.

    Known failure: constancy. An agent that always does the same is paid nothing for it, even if nothing better could be done.

    Departures from the source:

    - Wolpert & Tumer take the expectation over the agent's policy. A rule does not see policies, so the actions of the last rounds stand in
      for it. They are whole joint actions rather than one probability for each lot, since an agent's lots may go together.
    - This round's action is not among them. So what is subtracted does not depend on this round's action, and a policy gradient keeps its
      expectation. There are two exceptions. A guard's factor is that of the step that was applied. And where admission is negotiated, lots
      that were not contributed count as admitted if nobody objects to them.

    Args:
        window: Number of past rounds that say what an agent usually does, at least 1.

    Raises:
        ValueError: If ``window`` is not a positive whole number.

    References:
        Wolpert & Tumer (2001), *Optimal payoff functions for members of collectives*, Advances in Complex Systems 4.
    """

    family: ClassVar[Family] = "learning"
    source = "aristocrat utility (Wolpert & Tumer 2001)"
    pays = "G(z) − mean of G(z₋ᵢ, a′) over one's own recent actions a′"
    known_failure = "who always does the same is paid nothing for it"
    needs: tuple[Need, ...] = ("lots",)

    def __init__(self, window: int = 8) -> None:
        if not is_whole(window, 1):
            raise ValueError(f"window={window!r}: must be a whole number of rounds, at least 1")
        self.window = window
        self.evaluations = f"{window} n + 1"
        self._past: deque[Tensor] = deque(maxlen=window)  # what was contributed, bool (E, N, K) each

    def cost(self, n_players: int) -> int:
        """n · window + 1: what was admitted, and every agent's past actions in place of its own."""
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
        # the worths of equal sets may differ in the last digit, which must not be paid
        difference = torch.where(same, 0.0, worth[:, -1, None, None] - others)
        self._past.append(round.contributed.clone())
        return difference.mean(dim=-1)
