r"""The surrogates of a round: cheap games near the round's own.

They describe what is applied: the server's rate, the guard's factor and what filters left are in the agents' parts of the step. A linear
model's round has its quadratic expansion, of which all moments are known (:meth:`.AdditiveLogits.expansion`). For other models there are
two.

**Logits.** Every agent is taken to move the logits f of the validation rows by something of its own, L. It is read off where everybody
takes part, from the coalitions that lack one agent:

.. math:: L_i = f(N) - f(N \setminus i) \quad\text{or}\quad L_i = w(N)\,[f(N) - f_0] - w(N \setminus i)\,[f(N \setminus i) - f_0]

for fixed and for renormalised weights. What is then missing to f(N) is added to all in equal parts, or in proportion to their weights. So
s(N) = v(N), and for a model that is linear in its parameters s = v. It keeps the utility's own shape, which bends less than its expansion
where steps are steep. It takes the n evaluations of N∖i, whose worth is known from then on.

**Quadratic.** The utility's expansion in the parameters takes no evaluation, but n products of its Hessian with an agent's part.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...credit import CoalitionGame
from ...credit.games.game import Surrogate
from ...credit.games.surrogate import quadratic
from .additive import AdditiveLogits, against_right
from .coalitions import UtilityGame
from .server import Sgd
from .utility import UTILITIES, HeldOutUtility


def surrogate_of(played: UtilityGame, game: CoalitionGame, most: int) -> Surrogate | str:
    """A surrogate of a round's game, or in words why it has none.

    Args:
        played: The round's game.
        game: The same as credit rules take it; it learns what coalitions are worth that are evaluated here.
        most: How many coalitions beside v(N) may be evaluated.
    """
    if played.utility != "neg_log_loss":
        return f"utility {played.utility} has no expansion"
    if not isinstance(played.round_step.server, Sgd):
        return f"a server of kind {played.round_step.server.kind} does not add up what agents bring"
    if played.additive:
        return played.logits.expansion()
    return _logits(played, game) if most >= game.n_players else _quadratic(played)


def _logits(played: UtilityGame, game: CoalitionGame) -> Surrogate:
    """The surrogate in logit space; n evaluations beside v(N)."""
    step, n = played.round_step, game.n_players
    coalitions = torch.cat([torch.ones(1, n, dtype=torch.bool), ~torch.eye(n, dtype=torch.bool)])
    start = played.start_logits[:, None]  # (E, 1, V, C)
    answers = played.answers(coalitions)  # (E, n + 1, V, C)
    worth = UTILITIES[played.utility](torch.cat([start, answers], dim=1), played.validation.y)
    game.learn(coalitions, worth[:, 1:] - worth[:, :1])
    everybody, without = answers[:, :1] - start, answers[:, 1:] - start
    weight = step.weight[..., None, None]  # (E, n, 1, 1)
    whole = weight.sum(dim=1, keepdim=True)
    if step.weights == "fixed":
        moves = everybody - without
        takes_part = (weight > 0).to(weight)
        share = takes_part / takes_part.sum(dim=1, keepdim=True).clamp(min=1)
    else:
        moves = whole * everybody - (whole - weight) * without
        everybody = whole * everybody
        share = weight / torch.where(whole > 0, whole, 1.0)
    moves = moves + share * (everybody - moves.sum(dim=1, keepdim=True))
    shift = against_right(moves.permute(2, 0, 1, 3), played.validation.y)  # (V, E, n, C)
    near = AdditiveLogits(shift, played.log_share, step.weight, step.weights)
    return Surrogate(near.game(near.surrogate), "logits, from all coalitions that lack one agent", evaluations=n, known=frozenset({n - 1}))


def _quadratic(played: UtilityGame) -> Surrogate:
    """The utility's expansion in the parameters."""
    step = played.round_step
    updates = step.updates * (step.gamma * step.server.lr)[:, None, None]
    utility = HeldOutUtility(played.utility, step.model, played.validation)
    slope = utility.gradient(step.start)  # (E, P)
    # one agent after another: a product takes as much memory as several evaluations
    bent = torch.stack([utility.curvature(step.start, part) for part in updates.unbind(dim=1)], dim=1)  # (E, n, P)
    curvature: Tensor = updates @ bent.transpose(1, 2)
    curvature = (curvature + curvature.transpose(1, 2)) / 2
    return quadratic((updates @ slope[:, :, None])[..., 0], curvature, step.weight if step.weights == "participants" else None)
