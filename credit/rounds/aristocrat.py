"""How much better an agent's action was than others that it might have taken: aristocrat utility, and the expected difference reward.

Both subtract from the team's reward its mean over actions of the agent's own, with the others' actions as they are. They differ in which
actions these are: what the agent did in the last rounds, or every set of its lots alike.
"""

from __future__ import annotations

from collections import deque
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ..arguments import checked_seed, is_whole
from ..games.game import coalition_matrix
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

    Known failures: constancy and foresight. An agent that always does the same is paid nothing for it, even if nothing better could be
    done. And an agent that looks ahead withholds, because what it contributes now is subtracted from its pay in later rounds.

    Departures from the source:

    - Wolpert & Tumer take the expectation over the agent's policy. A rule does not see policies, so the actions of the last rounds stand in
      for it. They are whole joint actions rather than one probability for each lot, since an agent's lots may go together.
    - This round's action is not among them. So what is subtracted in a round does not depend on that round's action, and the policy
      gradient of a learner with discount 0 keeps its expectation. There are two exceptions. A guard's factor is that of the step that was
      applied. And where admission is negotiated, lots that were not contributed count as admitted if nobody objects to them.
    - It does depend on the agent's actions in the ``window`` rounds before. For any discount above 0 the subtracted term is therefore no
      baseline: a contribution lowers one's own pay in the rounds to come, by about what it brings now if rounds are alike and the discount
      is near 1. :class:`ExpectedDifference` has no such memory.

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
    known_failure = "who always does the same is paid nothing for it; who looks ahead withholds"
    needs: tuple[Need, ...] = ("lots", "withheld")

    def __init__(self, window: int = 8) -> None:
        if not is_whole(window, 1):
            raise ValueError(f"window={window!r}: must be a whole number of rounds, at least 1")
        self.window = int(window)
        self.evaluations = f"{window} n + 1"
        self._past: deque[Tensor] = deque(maxlen=self.window)  # what was contributed, bool (E, N, K) each

    def cost(self, n_players: int) -> int:
        """n · window + 1: what was admitted, and every agent's past actions in place of its own."""
        return n_players * self.window + 1

    def reset(self, num_envs: int, num_agents: int) -> None:
        """Begin episodes, with no memory."""
        super().reset(num_envs, num_agents)
        self._past.clear()

    def assign(self, round: Round) -> Tensor:
        """Credit of every agent for this round, ``(E, N)``, in the utility's unit."""
        past = torch.stack(list(self._past) or [torch.zeros_like(round.contributed)], dim=2)  # (E, N, W, K)
        self._past.append(round.contributed.clone())
        return _gained_over(past, round).mean(dim=-1)


@RULES.register("expected_difference")
class ExpectedDifference(CreditRule):
    r"""Pays the team's reward, less its average over all that the agent might have done in this round.

    .. math:: c_i = G(z) - \frac{1}{2^K} \sum_{a' \subseteq \text{lots of } i} G(z_{-i}, a')

    where G is the worth of a set of lots, and z are the lots that were admitted. :math:`(z_{-i}, a')` holds the others' lots as they were
    admitted, and those lots of a' that would be admitted if agent i contributed them in this round. So it is aristocrat utility for an
    agent that tosses a coin for each of its K lots. If lots do not interact, a lot that is contributed is paid half of its worth, and one
    that is withheld is charged half of it.

    What is subtracted depends on the others' actions of this round and on where the shared model stands. It does not depend on what agent i
    does now, and the rule remembers nothing. So, as with the difference reward (``difference``), earlier actions are not charged again,
    whatever the learner's discount. There are two exceptions. A guard's factor is that of the step that was applied. And where admission is
    negotiated, lots that were not contributed count as admitted if nobody objects to them.

    Costs n · samples + 1 evaluations of sets of lots. Not efficient, not symmetric and not null-player, because it looks at lots that the
    game among agents does not show.

    Known failure: hostages. An agent with harmful lots is paid for withholding them, and one with useful lots is charged for withholding
    them, so that taking part may not be worth it.

    Departures from the source: there an agent has few actions, and all are tried. Here that is done where ``samples`` is at least 2^K.
    Otherwise as many sets are drawn, half of them at random and the other half what these leave out. The draws are the same for all agents
    and are drawn anew in every round.

    Args:
        samples: Largest number of an agent's own actions to value in a round, an even whole number from 2.
        seed: Seed of the draws, a whole number from 0. Not used where all actions are tried.

    Raises:
        ValueError: If ``samples`` is not an even whole number from 2, or ``seed`` is negative or not whole.

    References:
        Tumer & Agogino (2007), *Distributed agent-based air traffic flow management*, AAMAS: the expected difference reward.

        Wolpert & Tumer (2001), *Optimal payoff functions for members of collectives*, Advances in Complex Systems 4: aristocrat utility.

        Foerster et al. (2018), *Counterfactual multi-agent policy gradients*, AAAI: a baseline that depends on the others' actions alone
        leaves the expected gradient as it is.
    """

    family: ClassVar[Family] = "learning"
    source = "expected difference reward (Tumer & Agogino 2007, AAMAS)"
    pays = "G(z) − mean of G(z₋ᵢ, a′) over all of one's own actions a′"
    known_failure = "withholding harmful lots is paid, withholding useful ones is charged"
    needs: tuple[Need, ...] = ("lots", "withheld")

    def __init__(self, samples: int = 16, seed: int = 0) -> None:
        if not is_whole(samples, 2) or samples % 2:
            raise ValueError(f"samples={samples!r}: must be an even whole number of actions, at least 2")
        self.samples, self.seed = int(samples), checked_seed(seed)
        self.evaluations = f"{samples} n + 1"

    def cost(self, n_players: int) -> int:
        """n · samples + 1: what was admitted, and other actions in place of every agent's own. Less where agents have fewer actions."""
        return n_players * self.samples + 1

    def assign(self, round: Round) -> Tensor:
        """Credit of every agent for this round, ``(E, N)``, in the utility's unit."""
        n_envs, n_agents, n_lots = round.contributed.shape
        actions = self._actions(n_lots, round.episode, round.t).to(round.contributed.device)  # (A, K)
        return _gained_over(actions.expand(n_envs, n_agents, *actions.shape), round).mean(dim=-1)

    def _actions(self, n_lots: int, episode: int, t: int) -> Tensor:
        """The sets of an agent's own lots over which the mean is taken, bool ``(A, K)``."""
        if n_lots < self.samples.bit_length():  # 2^K <= samples
            return coalition_matrix(n_lots)
        drawn = torch.from_numpy(np.random.default_rng((self.seed, episode, t)).random((self.samples // 2, n_lots)) < 0.5)
        return torch.cat([drawn, ~drawn])


def _gained_over(actions: Tensor, round: Round) -> Tensor:
    """G(z) − G(z_{-i}, a') for some of every agent's own actions a', bool ``(E, N, A, K)``: ``(E, N, A)``, in the utility's unit."""
    n_envs, n_agents, n_actions, n_lots = actions.shape
    own = actions & round.lots.candidates[:, :, None]
    acts = torch.eye(n_agents, dtype=torch.bool, device=own.device)[:, None, :, None]  # agent i in row i, (N, 1, N, 1)
    # (z_{-i}, a') at [:, i, a']: agent i's lots from its action, the others' as they were admitted, (E, N, A, N, K)
    instead = torch.where(acts, own.transpose(1, 2)[:, None], round.admitted[:, None, None])
    sets = torch.cat([instead.reshape(n_envs, -1, n_agents, n_lots), round.admitted[:, None]], dim=1)
    worth = round.lots.value(sets)  # (E, N·A + 1)
    others = worth[:, :-1].reshape(n_envs, n_agents, n_actions)
    same = (instead == round.admitted[:, None, None]).flatten(start_dim=3).all(dim=-1)  # (E, N, A)
    # the worths of equal sets may differ in the last digit, which must not be paid
    return torch.where(same, 0.0, worth[:, -1, None, None] - others)
