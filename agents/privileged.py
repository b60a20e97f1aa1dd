"""References that see what no proxy can see. They show how much proxies could reach at best. No proxy could play them."""

from __future__ import annotations

import torch
from torch import Tensor

from ..envs.admission.mechanism import downwards, first
from ..envs.engine import Engine
from ..envs.metrics import episode_metrics
from ..envs.observations.layout import ObservationLayout
from ..envs.scenario import Scenario
from .agent import AGENTS, PrivilegedAgent


@AGENTS.register("oracle")
class Oracle(PrivilegedAgent):
    """For reference only: contributes exactly the clean lots that will be admitted."""

    def choose(self, observations: Tensor) -> Tensor:
        """The lots that are clean and will be admitted."""
        del observations
        passes = self.engine.for_all(self.engine.prospect.passes[..., : self.engine.num_lots])
        return ~self.engine.lots.corrupt & passes


@AGENTS.register("planner")
class Planner(PrivilegedAgent):
    r"""For reference only: contributes the lots whose true first-order gain on the validation set exceeds their cost.

    Where the scenario has forgeries, it sends those that do so, too: it may use every update. Lot (i, k) is contributed iff it will be
    admitted and
    :math:`\text{scale} \cdot p_{ik} \langle \nabla U(\theta), \Delta_{ik} \rangle > \text{cost}`. Where a round has room for only
    some, it sends those of them that gain most, as many as there are places.

    It predicts. Three things make it fall short of the best that could be done: lots are judged one by one, so that of many lots which say
    the same it contributes all; their gains are linear, so that a step which overshoots looks good; and it looks at one round at a time.
    Where the prediction is of another step than the one that is taken, it means little: with the participants' weights, a server with
    memory, or a server's learning rate other than 1. Everywhere agents may do better than it. :class:`MeasuringPlanner` measures instead.

    Raises:
        ValueError: When it plays, if the utility has no gradient.
    """

    @classmethod
    def lacks(cls, scenario: Scenario) -> str:
        """A utility with a gradient, if the scenario's has none."""
        if scenario.utility == "neg_log_loss":
            return ""
        return f"agent planner needs a utility with a gradient, and utility={scenario.utility} has none: use utility: neg_log_loss"

    def choose(self, observations: Tensor) -> Tensor:
        """The lots that will be admitted and whose gain for everybody exceeds their cost."""
        del observations
        return self.engine.for_all(self.engine.items.whole(self.of_those_present()))

    def of_those_present(self) -> Tensor:
        """What those contribute who are present in the round, bool ``(E, N, K)``."""
        engine = self.engine
        proposals, updates = engine.prospect.proposals, engine.prospect.filtered.updates
        gain = (updates @ engine.utility_gradient()[:, None, :, None])[..., 0]  # (E, N, K)
        net = engine.reward_scale * proposals.share * gain - _costs(engine)
        worth = (net > 0) & engine.prospect.passes & engine.prospect.available
        if engine.scenario.admission is not None:
            worth = first(engine.scenario.admission.capacity, worth, downwards(net))
        return worth


class GreedySearch(PrivilegedAgent):
    r"""Contributes lots as long as that raises what the round truly brings, measured on the validation set.

    The round with the set A of lots brings :math:`W(A) = \text{scale} \cdot G(A) - \text{cost} \cdot |A|` reward units. G(A) is the rise
    of the utility over a round without contributions, after the step that the cooperative would take with A: with its weights, server and
    filter (:meth:`~proxycoop.envs.Engine.lot_game`). The search begins with the best of three sets of lots that will be admitted: none,
    all, and those that :class:`Planner` would contribute. Then it adds or withdraws the lot that raises W most, until no single lot raises
    it. With utility ``accuracy``, which has no gradient, it begins with the better of the first two. Where a round has room for only
    some, a set has as many as there are places at most, so that all of it is admitted.

    So every round brings at least as much as the planner's set would, and at least 0.

    Costs N·K evaluations of the validation set for every lot that is added or withdrawn, and N·K + 3 a round in any case, for all
    environments at once.
    """

    def choose(self, observations: Tensor) -> Tensor:
        """A set of lots that no single lot improves, bool ``(E, N, K)``."""
        del observations
        engine, game = self.engine, self.engine.lot_game()
        scale, cost = engine.reward_scale, _costs(engine)
        places = None if engine.scenario.admission is None else engine.scenario.admission.capacity

        def worth(sets: Tensor) -> Tensor:
            """W, ``(E, C, N, K)`` → ``(E, C)``."""
            worths = scale * game.value(sets) - (sets.sum(dim=2) * cost).sum(dim=-1)
            return worths if places is None else torch.where(sets.sum(dim=(2, 3)) <= places, worths, -torch.inf)

        starts = [torch.zeros_like(game.candidates), game.candidates]
        if Planner.plays(engine.scenario):
            first_order = Planner()
            first_order.watch(engine)
            starts.append(first_order.of_those_present())
        sets = torch.stack(starts, dim=1)  # (E, 2 or 3, N, K)
        best, which = worth(sets).max(dim=1)
        chosen = _picked(sets, which)
        n_lots = chosen[0].numel()
        flip = torch.eye(n_lots, dtype=torch.bool, device=chosen.device).reshape(n_lots, *chosen.shape[1:])
        # the same set's worth may differ in the last digits from one batch to another; a smaller rise is none
        least = 16 * torch.finfo(best.dtype).eps * scale * (1 + engine.prospect.utility.abs())
        while True:
            flipped = chosen[:, None] ^ flip  # (E, N·K, N, K)
            worths = torch.where(game.candidates.flatten(start_dim=1), worth(flipped), -torch.inf)
            highest, lot = worths.max(dim=1)
            rises = highest > best + least
            if not rises.any():
                return engine.for_all(engine.items.whole(chosen))
            best = torch.where(rises, highest, best)
            chosen = torch.where(rises[:, None, None], chosen ^ flip[lot], chosen)


@AGENTS.register("measuring_planner")
class MeasuringPlanner(PrivilegedAgent):
    """For reference only: tries three references out, and plays in each cooperative what ends with the highest welfare.

    They are the :class:`Oracle`, the :class:`Planner`, and a greedy search (:class:`~proxycoop.agents.privileged.GreedySearch`) that adds
    and withdraws lots as long as the measured gain of the round, less their cost, rises. They are tried out when an episode begins, in a
    copy of the cooperatives (:meth:`~proxycoop.envs.Engine.fork`), with everybody following. So nothing is predicted: if everybody plays
    this agent, no cooperative ends below what any of the three reaches there. That is why welfare is compared with this agent's. It is a
    reference and no upper bound: the search looks at one round at a time, and a set that differs by several lots may be better.

    Costs three episodes more, the search's among them. On one core 16 episodes of ``digits`` take about a second, and of ``digits-mean``,
    where the search is longer, two.
    """

    def watch(self, engine: Engine) -> None:
        """Take the engine, to look into it."""
        super().watch(engine)
        kinds: list[type[PrivilegedAgent]] = [Oracle, Planner, GreedySearch]
        self.tried = [kind() for kind in kinds if kind.plays(engine.scenario)]

    def begin(self, layout: ObservationLayout, keys: Tensor) -> None:
        """Begin an episode: try the references out."""
        super().begin(layout, keys)
        welfare = []
        for agent in self.tried:
            trial = self.engine.fork()
            agent.watch(trial)
            agent.begin(layout, keys)
            while trial.t < trial.horizon:
                trial.step(agent.act(trial.observations))
            welfare.append(episode_metrics(trial)["welfare"])
            agent.watch(self.engine)
        self.best = torch.stack(welfare).argmax(dim=0)  # which of them, (E,)

    def choose(self, observations: Tensor) -> Tensor:
        """What the reference that did best in a cooperative contributes there, bool ``(E, N, K)``."""
        choices = [self.engine.items.whole(agent.choose(observations)) for agent in self.tried]
        return _picked(torch.stack(choices, dim=1), self.best)


def _costs(engine: Engine) -> Tensor:
    """What each update costs if it is sent, ``(U,)``, in reward units."""
    shares = engine.items.costs[: engine.items.n_updates]
    return engine.scenario.reward.contribution_cost * torch.tensor(shares, dtype=torch.float64).to(engine.theta)


def _picked(sets: Tensor, which: Tensor) -> Tensor:
    """One of the sets in each environment, ``(E, C, N, K)``, ``(E,)`` → ``(E, N, K)``."""
    return sets[torch.arange(len(sets), device=sets.device), which]
