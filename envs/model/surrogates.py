r"""The surrogates of a round: cheap games near the round's own.

They describe what is applied: the server's rate, the guard's factor and what filters left are in the agents' parts of the step. A linear
model's round has its quadratic expansion, of which all moments are known (:meth:`.AdditiveLogits.expansion`). For other models there are
two.

**Logits.** The logits f of the validation rows are interpolated between coalitions that are evaluated, as functions of the agents' shares
c in the step:

.. math:: f(S) \approx f_0 + \sum_{i \in S} c_i F_i + \sum_{i \in S} b_i q_i, \qquad F_i = f(\{i\}) - f_0

With renormalised weights, :math:`c_i = w_i / w_S` and :math:`b_i = c_i (1 - c_i)`. With fixed weights, :math:`c_i = 1` and
:math:`b_i = |S| - 1`. So s is v for single agents, whose b is 0. The bends q are such that it is v for all agents together, too. With n
evaluations beside v(N) all agents have the same bend. With 2n each has its own, by least squares on the coalitions that lack one agent.
That is a second-order model of the logits, in which what two agents' steps do together is the sum of a part for each. For a model that is
linear in its parameters s = v. This surrogate keeps the utility's own shape, which bends less than its expansion where steps are steep.
The worths of the coalitions that were evaluated are known from then on.

**Quadratic.** The utility's expansion in the parameters takes no evaluation, but n products of its Hessian with an agent's part.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...credit import CoalitionGame
from ...credit.games.game import Surrogate
from ...credit.games.surrogate import quadratic
from .additive import AdditiveLogits, WeightsName, against_right, coefficients
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
    if why := played.round_step.does_not_add_up:
        return why
    if not isinstance(played.round_step.server, Sgd):
        return f"a server of kind {played.round_step.server.kind} does not add up what agents bring"
    if played.additive:
        return played.logits.expansion()
    n = game.n_players
    return _logits(played, game, ends=2 < n <= most // 2) if most >= n else _quadratic(played)


def _logits(played: UtilityGame, game: CoalitionGame, *, ends: bool) -> Surrogate:
    """The surrogate in logit space; n evaluations beside v(N), or 2n to know both ``ends``: agents alone, and all but one."""
    step, n = played.round_step, game.n_players
    alone = torch.eye(n, dtype=torch.bool)
    asked = torch.cat([alone, ~alone, alone.new_ones(1, n)] if ends else [alone, alone.new_ones(1, n)])
    start = played.start_logits[:, None]  # (E, 1, V, C)
    answers = played.answers(asked)  # (E, 2n + 1, V, C)
    worth = UTILITIES[played.utility](torch.cat([start, answers], dim=1), played.validation.y)
    game.learn(asked, worth[:, 1:] - worth[:, :1])
    moved = (answers - start).flatten(2)  # (E, 2n + 1, V·C)
    shares, bends = _shares(asked[n:], step.weight, step.weights)  # of those of more than one agent
    single = moved[:, :n]
    left = moved[:, n:] - shares @ single
    own = torch.linalg.pinv(bends) @ left if ends else torch.zeros_like(single)
    whole = bends[:, -1:]  # what is then missing to f(N), in equal parts of q
    missing = left[:, -1:] - whole @ own
    total = whole.sum(dim=2, keepdim=True)
    own = own + missing / torch.where(total > 0, total, torch.inf)
    parts = torch.cat([single, own], dim=1).unflatten(2, answers.shape[2:])  # (E, 2n, V, C)
    linear, both = (
        AdditiveLogits(against_right(some.permute(2, 0, 1, 3), played.validation.y), played.log_share, step.weight, step.weights)
        for some in (parts[:, :n] * (1 if step.weights == "fixed" else step.weight[..., None, None]), parts)
    )

    def value(coalitions: Tensor) -> Tensor:
        return both.moved(torch.cat(_shares(coalitions, step.weight, step.weights), dim=2))

    name = "logits, between single agents and all" + " but one" * ends
    known = frozenset({1, n - 1} if ends else {1})
    return Surrogate(CoalitionGame(value, n, surrogate=linear.surrogate), name, evaluations=len(asked) - 1, known=known)


def _shares(coalitions: Tensor, weight: Tensor, weights: WeightsName) -> tuple[Tensor, Tensor]:
    """How much of each agent is in coalitions' steps, c, and of its bend, b: bool ``(C, N)`` → ``(E, C, N)`` each."""
    takes_part = (weight > 0).to(weight)[:, None]
    if weights == "fixed":
        share = coalitions.to(weight) * takes_part
        return share, (share.sum(dim=2, keepdim=True) - 1).clamp(min=0) * share
    share = coefficients(coalitions.to(weight.device), weight, weights) * weight[:, None]
    return share, share * (1 - share)


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
