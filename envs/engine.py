"""The engine: the only place where a round happens. What it does step by step is in :mod:`~proxycoop.envs.rounds.steps`.

It steps E cooperatives at once; every array begins with the axes (E, N, …). Shapes: E environments, N agents, K lots each,
P parameters, M values. Environment e of a batch with seed s gives the same trajectory as a single environment with seed s.

Where the scenario has several splits of its data (``data.splits``), all environments play an episode on one of them, and the next episode
on the next.

A round, in the order of :meth:`Engine.step`:

1. Lots *propose* updates from the shared parameters, and proxies *observe* them. Both were done at the end of the round before.
2. Proxies *choose* which of their lots to contribute.
3. The contributed updates are *screened*; under governance ``negotiate`` they are bargained over. Where there is room for only some, a
   mechanism chooses among those that pass.
4. What is admitted is *aggregated* into one step.
5. The credit rule *credits* the agents.
6. The step is *applied*: the server remembers it, and the shared parameters move.
7. Where the scenario has money, what the round earned is booked, and now and then *settled*.
8. Credit, or what was paid, and costs make the *rewards*.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy, deepcopy
from functools import lru_cache
from pathlib import Path
from uuid import uuid4

import torch
from torch import Tensor

from .. import credit as credit_rules
from ..checks import whole_number
from ..credit import CreditRule, LotGame
from ..strict_yaml import read_text
from .conduct import Items, Standing
from .data.lots import DrawnLots, LotSource
from .data.names import Names
from .data.sources import Splits
from .devices import checked_device, plain_torch
from .model.interface import Model
from .model.utility import UTILITIES, HeldOutUtility, least_divisor
from .money.settlement import CEILING, Treasury, check_size, money_scale, needs_reference
from .observations.layout import ObservationLayout
from .observations.memory import Memory
from .participation import Attendance
from .randomness import Purpose, checked_seeds, fold, seeds_from
from .records import RoundResult
from .rounds import CompiledRounds, RoundSteps, tabulated
from .scenario import Observations, Scenario, load
from .screening.electorate import Electorate, kinds
from .screening.profiles import ProfileTable
from .shared import Ground, name_of, recipe, require_served


class Engine(RoundSteps):
    """E cooperatives of one scenario, stepped at once.

    Args:
        scenario: A scenario, its name, or the path of its YAML file.
        credit: A credit rule, or its name (with arguments, if it takes any: ``"shapley(budget=60)"``); ``None`` pays nobody (for runs
            that need no credit).
        num_envs: Number of environments E.
        dtype: Type of all numbers but observations, which are float32; float64 costs about twice as much.
        device: Where all tensors live: ``"cpu"``, ``"cuda"``, ``"cuda:1"`` …; rules that need a solver on the CPU answer there.
        names: Under which names the principals take part: for measuring what a second name gains. By default those of the scenario
            (``conduct.identities``), or else one each. Agents are the names; lots, profiles and the reward scale are those of the
            scenario's principals.
        compile: Whether rounds are compiled by ``torch.compile``, for the CPU or for CUDA; ``proxycoop.envs.rounds.compiled`` says what
            of them. The numbers are those of ``compile=False`` to rounding, and what is within rounding of a limit may fall on its other
            side. The first rounds take a minute or two, once a process, scenario and ``num_envs``. Credit rules run as they are; one that
            asks for all coalitions of at most ten agents is handed them. Governance negotiate, the filters scale and project, and substrate
            traversal are refused.

    Raises:
        ValueError: If the scenario is unknown, not valid or does not fit its data, the rule is unknown or cannot serve so many
            agents, ``num_envs`` is not positive, there is no such dtype or device, or the names do not fit the scenario. With ``compile``,
            if there is no compiler for the device, or what happens in the scenario's rounds cannot be compiled.
    """

    @plain_torch()
    def __init__(
        self,
        scenario: Scenario | str | Path,
        credit: CreditRule | str | None = "shapley",
        num_envs: int = 1,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        names: Names | None = None,
        compile: bool = False,
    ) -> None:
        scenario = scenario if isinstance(scenario, Scenario) else load(scenario)
        self.scenario = scenario
        self.num_envs = whole_number("num_envs", num_envs, 1)
        if dtype not in (torch.float32, torch.float64):
            raise ValueError(f"dtype={dtype!r}: must be torch.float32 or torch.float64")
        if names is not None:
            if not isinstance(names, Names):
                raise ValueError(f"names={names!r}: must be a Names, as from Names.split(n_principals, n_lots), or None")
            if scenario.names is not None:
                raise ValueError(
                    f"names={names}: scenario {scenario.name!r} has conduct.identities, which say who has which names: leave one out"
                )
            names.check(scenario.principals, scenario.lots.per_principal)
            if scenario.substrate.kind == "vertical":
                raise ValueError(f"names={names}: seats of a vertical cooperative hold columns, which only one name can offer")
            if scenario.participation is not None:
                raise ValueError(
                    f"names={names}: scenario {scenario.name!r} has participation, which does not go with names: leave one out"
                )
        self.names = names = scenario.names if names is None else names
        self.num_agents = scenario.principals if names is None else len(names.owner)
        self.num_seats = self.num_agents if scenario.participation is None else scenario.n_seats
        self.items = Items(scenario.conduct, scenario.lots.per_principal)
        self.num_lots, self.num_items = self.items.n_lots, len(self.items)
        self.horizon = scenario.horizon
        self.dtype, self.device = dtype, checked_device(device)
        if not isinstance(credit, (str, CreditRule)) and credit is not None:
            raise ValueError(f"credit={credit!r}: must be a credit rule, its name, or None")
        self.rule = credit_rules.make(credit) if isinstance(credit, str) else credit
        self.rule_name = credit if isinstance(credit, str) else name_of(credit)
        self.values = scenario.values
        if self.rule is not None:
            require_served(scenario, self.rule, self.rule_name, n_agents=self.num_seats)
        self.layout = ObservationLayout.of(scenario)
        self._profile_table = ProfileTable(
            scenario.profiles, scenario.principals, list(self.values), list(scenario.lots.tags), scenario.profiles_drawn, dtype, self.device
        )
        self._kind_table: ProfileTable | None = None
        if scenario.participation is not None:
            in_force = kinds(scenario.profiles)
            self._kind_table = ProfileTable(in_force, len(in_force), list(self.values), list(scenario.lots.tags), False, dtype, self.device)
        self.attendance: Attendance | None = None
        self._electorate: Electorate | None = None
        self._looked_up: DrawnLots | None = None
        self._everyone = torch.ones(1, self.num_seats, dtype=torch.bool, device=self.device)
        self._unguarded = torch.ones(self.num_envs, dtype=dtype, device=self.device)
        self._none = torch.zeros(self.num_envs, dtype=torch.bool, device=self.device)
        if not isinstance(compile, bool):
            raise ValueError(f"compile={compile!r}: must be True or False")
        self._compiled = CompiledRounds(self) if compile else None
        self._grounds = [self._prepare(index) for index in range(scenario.data.splits)]
        self._stand_on(0)
        self.seeds: Tensor | None = None
        self._rule_mark = ""
        self.episode = 0
        self.t = self.horizon
        self.history: list[RoundResult] = []

    @plain_torch()
    def reset(self, seeds: Sequence[int] | None = None, *, episode: int = 0, copies: Mapping[int, int] | None = None) -> Tensor:
        """Begin an episode in every environment.

        Args:
            seeds: One seed an environment, each within 0..2^63 − 1. ``None`` goes on to the next episode of the seeds in use (and
                draws seeds from the operating system the first time).
            episode: Which of the seeds' episodes to begin with; only with seeds. It also says on which of the data's splits to play.
            copies: ``{a: b}`` gives seat a copies of seat b's lots instead of its own: for measuring what copying earns.

        Returns:
            Observations, float32 ``(E, N, layout.size)``.

        Raises:
            ValueError: If there is not one seed an environment, a seed is out of range, a copied seat does not exist, or seats hold
                columns, which cannot be copied.
        """
        seats = self._seats({} if copies is None else copies)
        episode = whole_number("episode", episode, 0, 2**63 - 1)
        if seeds is None and episode:
            raise ValueError(f"episode={episode} needs seeds: without them the next episode of the seeds in use begins")
        if seeds is not None:
            self.seeds, self.episode = checked_seeds(seeds, self.num_envs).to(self.device), episode
        elif self.seeds is None:
            self.seeds, self.episode = torch.tensor(seeds_from(None, self.num_envs), device=self.device), 0
        else:
            self.episode += 1
        self._stand_on(self.episode % len(self._grounds))
        self._keys = fold(self.seeds, self.episode)
        self.profiles = self._profile_table.deal(fold(self._keys, Purpose.PROFILES))
        owned = (self.profiles.holds.float() @ self._ground.protects.float()) > 0  # (E, N, n_classes)
        if self._kind_table is None:
            drawn = self._drawn(owned)
            if self.names is not None:
                self.profiles, drawn = self.profiles.seated(self.names.owner), self.names.lots(drawn)
            self.lots = (drawn.seated(seats) if copies else drawn).prepared(self.model.prepare)
        else:
            assert self.profiles.kind is not None
            assert isinstance(self._ground.lot_source, LotSource)
            self.lots = self._ground.lot_source.deal(self._keys, owned)
            rows_held = self.lots.samples.sum(dim=1)
            self._electorate = Electorate.of(self._kind_table, self.profiles.kind, rows_held)
            self.observations = torch.zeros(self.num_envs, self.num_agents, self.layout.size, device=self.device)

        self.theta = self._ground.theta.repeat(self.num_envs, 1)  # (E, P)
        self.server_state = self.scenario.server.start(self.theta)
        self.t = 0
        self.history = []
        self._memory = Memory(self.scenario, self.items, self.layout, self.reward_scale, self.theta, self.num_agents)
        self.standing = Standing.start(self.theta, self.num_agents)
        if self.rule is not None:
            self.rule.reset(self.num_envs, self.num_seats)
            self._rule_mark = self._mark_rule(self.rule)
        if self._compiled is None:
            self._open()
        else:
            self._compiled.open(self)
        self.initial_utility, self.initial_value_losses = self.prospect.utility, self.prospect.value_losses
        if self.treasury is not None:
            self.treasury.begin(self.initial_utility)
        self.observations = self._observe()
        return self.observations

    @plain_torch()
    def step(self, actions: Tensor) -> RoundResult:
        """Play one round.

        Args:
            actions: Which items are chosen, bool or 0/1, ``(E, N, I)``, on any device: the K lots, and where the scenario has ``conduct``
                its forgeries and levers after them. An item that is not ``choosable`` does nothing,
                such as one of an agent that is not present.

        Raises:
            RuntimeError: Before the first :meth:`reset`, after the episode's last round, or if another engine shares the object of a
                rule that has a memory, and has reset it since.
            ValueError: If the actions have another shape or values other than 0 and 1.
        """
        self.require_running()
        self._require_own_rule()
        chosen = self.of_those_present(self._checked_actions(actions))
        entry, merged, cost = self._advance(chosen) if self._compiled is None else self._compiled.advance(self, chosen)
        played = self._as_played(entry, merged.aggregate)
        self.round = (played if merged.worths is None else tabulated(played, merged.worths)).as_round()
        pay = self._pay(entry, cost)
        result = self._close(entry, merged, pay) if self._compiled is None else self._compiled.close(self, entry, merged, pay)
        self.history.append(result)
        return result

    def require_running(self) -> None:
        """Refuse to go on when no episode is running.

        Raises:
            RuntimeError: Before the first :meth:`reset`, or after the episode's last round.
        """
        if self.t >= self.horizon:
            when = "before the first reset" if self.seeds is None else f"after the episode's {self.horizon} rounds"
            raise RuntimeError(f"no episode is running {when}: call reset first")

    def require_begun(self, what: str) -> None:
        """Refuse what needs an episode before there is one.

        Args:
            what: What was called, for the message.

        Raises:
            RuntimeError: Before the first :meth:`reset`.
        """
        if self.seeds is None:
            raise RuntimeError(f"{what} was called before the first reset: call reset first")

    def state(self) -> Tensor:
        """Everybody's observations side by side, for centralised critics: float32 ``(E, N·layout.size)``.

        Raises:
            RuntimeError: Before the first :meth:`reset`.
        """
        self.require_begun("state")
        return self.observations.flatten(start_dim=1)

    @property
    def choosable(self) -> Tensor:
        """Which items there is anything to choose of in the round to come, bool ``(E, N, I)``; nothing for agents that are not present."""
        self.require_begun("choosable")
        return self.for_all(self.prospect.choosable)

    def for_all(self, of_those_present: Tensor) -> Tensor:
        """What belongs to all agents, with zeros for those who are not present, ``(E, m, …)`` → ``(E, N, …)``; the same where all are."""
        return of_those_present if self.attendance is None else self.attendance.among_all(of_those_present)

    @property
    def credit_so_far(self) -> Tensor:
        """Cumulative credit of this episode, ``(E, N)``, in the utility's unit."""
        self.require_begun("credit_so_far")
        return torch.stack([result.credit for result in self.history]).sum(dim=0) if self.history else self._no_credit()

    @plain_torch()
    def utility_gradient(self, theta: Tensor | None = None) -> Tensor:
        """Gradient of the utility at ``theta`` ``(E, P)``, by default the shared parameters: ``(E, P)``.

        Raises:
            ValueError: If the utility is ``accuracy``, which has no gradient.
            RuntimeError: Before the first :meth:`reset`, if there is no ``theta``.
        """
        if theta is None:
            self.require_begun("utility_gradient")
        return self.utility.gradient(self.theta if theta is None else theta)

    @plain_torch()
    def predicted_gain(self) -> Tensor:
        """First-order gain ⟨∇U, Δ⟩ of every update as proposed, ``(E, N, K)``, in the utility's unit; raises as `utility_gradient`."""
        self.require_begun("predicted_gain")
        return self._predicted_gain()

    def fork(self) -> Engine:
        """The same cooperatives as they stand, to try out what would follow. They pay nobody, and what is played there leaves these alone.

        Raises:
            RuntimeError: Before the first :meth:`reset`.
        """
        self.require_begun("fork")
        other = self._as_it_stands()
        other.rule, other.rule_name, other._rule_mark = None, name_of(None), ""
        return other

    def __copy__(self) -> Engine:
        """The same cooperatives as they stand, with a rule of their own: what is played in one leaves the other alone."""
        other = self._as_it_stands()
        other.rule = deepcopy(self.rule)
        return other

    def _as_it_stands(self) -> Engine:
        """An engine that shares with this one only what no round changes, and the rule."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other.history = list(self.history)
        other._grounds = [(ground, scale, deepcopy(treasury)) for ground, scale, treasury in self._grounds]
        other._stand_on(self._on_split)
        if self.seeds is not None:
            other._memory = copy(self._memory)
        return other

    @staticmethod
    def _mark_rule(rule: CreditRule) -> str:
        """Mark a rule with a memory as at work in the episode that begins, which ends its work in any other: the mark."""
        if type(rule).reset is CreditRule.reset:
            return ""
        mark = uuid4().hex
        vars(rule)["_at_work_in"] = mark
        return mark

    def _require_own_rule(self) -> None:
        """Refuse to go on where another engine has begun an episode with the same object of a rule, whose memory is now of that episode.

        Raises:
            RuntimeError: If so.
        """
        if self._rule_mark and vars(self.rule).get("_at_work_in") != self._rule_mark:
            raise RuntimeError(
                f"credit rule {self.rule_name} has a memory, and its object was reset since this episode began, by another engine "
                "that shares it: give each engine a rule of its own, by its name or with copy.deepcopy(rule)"
            )

    def lot_game(self) -> LotGame:
        """What the coming round would gain with any set of lots: the utility measured after the step, with the cooperative's weights and
        server, less the utility where nothing is contributed. A guard's factor, which depends on the set, is left out, and so is an
        admission: the set enters as a whole.

        Raises:
            RuntimeError: Before the first :meth:`reset`.
        """
        self.require_begun("lot_game")
        return self._lot_game()

    @plain_torch()
    def utility_curvature(self, direction: Tensor, theta: Tensor | None = None) -> Tensor:
        """Hessian of the utility at ``theta`` ``(E, P)``, by default the shared parameters, times a direction ``(E, P)``: ``(E, P)``.

        Raises:
            ValueError: If the utility is ``accuracy``, which has none.
            RuntimeError: Before the first :meth:`reset`, if there is no ``theta``.
        """
        if theta is None:
            self.require_begun("utility_curvature")
        return self.utility.curvature(self.theta if theta is None else theta, direction)

    @plain_torch()
    def test(self) -> dict[str, Tensor]:
        """The shared model on data that credit never touches.

        Returns:
            ``utility`` and ``accuracy`` on the test set, ``(E,)`` each, and ``value/<name>`` on each value's probe test set, ``(E,)``.

        Raises:
            RuntimeError: Before the first :meth:`reset`.
        """
        self.require_begun("test")
        rows = self.splits.test
        logits = self.model.logits(self.theta, rows.x)
        measures = {
            "utility": UTILITIES[self.scenario.utility](logits, rows.y),
            "accuracy": UTILITIES["accuracy"](logits, rows.y),
        }
        for name, value in self.values.items():
            probe = self.splits.probe_test[name]
            measures[f"value/{name}"] = value.loss(self.model.logits(self.theta, probe.x), probe, self.splits.dataset)
        return measures

    @property
    def splits(self) -> Splits:
        """The split of the data on which this episode is played."""
        return self._ground.splits

    @property
    def model(self) -> Model:
        """The shared model."""
        return self._ground.model

    @property
    def utility(self) -> HeldOutUtility:
        """The utility on this episode's validation rows."""
        return self._ground.utility

    def _prepare(self, index: int) -> tuple[Ground, float, Treasury | None]:
        """One of the scenario's splits, with its reward scale and, if the scenario has money, its accounts."""
        ground = Ground(self.scenario, self.dtype, self.device, index)
        reward = self.scenario.reward
        reward_scale = reference_scale(ground.scenario) if reward.scale == "auto" else float(reward.scale)
        return ground, reward_scale, self._treasury(ground, reward_scale)

    def _drawn(self, owned: Tensor) -> DrawnLots:
        """The lots of an episode, drawn where principals protect these classes, bool ``(E, N, n_classes)``."""
        return self._ground.lot_source.draw(self._keys, owned)

    def _stand_on(self, index: int) -> None:
        """Play what follows on one of the scenario's splits."""
        self._on_split = index
        self._ground, self.reward_scale, self.treasury = self._grounds[index]

    def _treasury(self, ground: Ground, reward_scale: float) -> Treasury | None:
        """The accounts, if the scenario has money."""
        terms, scenario = self.scenario.settlement, ground.scenario
        if terms is None:
            return None
        scale = 0.0
        if terms.reward == "settlement":
            played = reference(scenario) if needs_reference(terms) else None
            scale = money_scale(terms, reward_scale, played, 0.0 if played is None else _least_gain(played))
        start = UTILITIES[scenario.utility](ground.model.logits(ground.theta[None], ground.validation.x), ground.validation.y)
        check_size(terms.revenue, self.horizon, CEILING[scenario.utility] - float(start))
        return Treasury(terms, (self.num_envs, self.num_agents), self.horizon, scale)

    def _seats(self, copies: Mapping[int, int]) -> list[int]:
        """Whose lots each seat has."""
        seats = list(range(self.num_agents))
        if not isinstance(copies, Mapping):
            raise ValueError(f"copies={copies!r}: must be a dictionary {{copier: original}} of seats, such as {{1: 0}}, or None")
        if copies and self.scenario.participation is not None:
            raise ValueError(
                f"copies={dict(copies)}: seats cannot be copied where only some agents are present in a round: leave copies out"
            )
        if copies and self.scenario.substrate.kind == "vertical":
            raise ValueError(
                f"copies={dict(copies)}: seats of a vertical cooperative hold columns, and a copied column adds nothing to a model"
            )
        last, hint = self.num_agents - 1, f"seats go from 0 to {self.num_agents - 1}"
        for pair in copies.items():
            copier, original = (whole_number(f"copies={dict(copies)}, seat", seat, 0, last, hint) for seat in pair)
            seats[copier] = original
        return seats

    def _checked_actions(self, actions: Tensor) -> Tensor:
        shape = (self.num_envs, self.num_agents, self.num_items)
        if not isinstance(actions, Tensor):
            raise ValueError(f"actions is {type(actions).__name__}: must be a torch tensor {shape}, as in torch.as_tensor(actions)")
        of = f"num_items: {self.num_lots} lots, {', '.join(self.items.names)}" if self.items else "num_lots"
        if tuple(actions.shape) != shape:
            raise ValueError(f"actions have shape {tuple(actions.shape)}, must be (num_envs, num_agents, {of}) = {shape}")
        if actions.dtype != torch.bool and not ((actions == 0) | (actions == 1)).all():
            raise ValueError("actions must be 0 (withhold) or 1 (contribute) for every lot")
        return actions.to(self.device, torch.bool)


@lru_cache(maxsize=64)
def _reference(scenario_yaml: str, made_by: tuple[object, ...]) -> Tensor:
    del made_by  # a part of the key
    scenario = Scenario.model_validate(read_text(scenario_yaml, "scenario").value)
    engine = Engine(scenario.unscreened(reward_scale=1.0), None, num_envs=32)
    engine.reset(range(32))
    while engine.t < engine.horizon:
        engine.step(~engine.lots.corrupt)
    return torch.stack([engine.initial_utility, *(result.utility for result in engine.history)])


def reference(scenario: Scenario) -> Tensor:
    """Utilities in 32 fixed episodes of all clean lots without screening or other defences, start included, ``(T + 1, 32)``."""
    plain = scenario.undefended().model_copy(update={"settlement": None, "observations": Observations(), "conduct": None, "population": ()})
    return _reference(plain.to_yaml(), recipe(scenario))


def _least_gain(utility: Tensor) -> float:
    """The least gain of :func:`reference` episodes that is more than rounding."""
    return float(least_divisor(utility.abs().clamp(min=1).amax()))


def reference_scale(scenario: Scenario) -> float:
    """``reward.scale: auto``: N·T over the mean gain of the :func:`reference` episodes; m·T where m agents are present in a round.

    Raises:
        ValueError: If that gain is not positive, or so small that rounding could have brought it.
    """
    utility = reference(scenario)
    gain, least = float((utility[-1] - utility[0]).mean()), _least_gain(utility)
    if not gain > least:
        raise ValueError(
            f"scenario {scenario.name!r}: reward.scale: auto needs an episode of all clean lots to gain utility, but it changes it by "
            f"{gain:.4g}, and rounding hides less than {least:.1g}: are there clean lots? Change the substrate's learning rate (lower it "
            "after a loss, raise it after a small gain), or give reward.scale a number"
        )
    return (scenario.n_seats if scenario.participation else scenario.principals) * scenario.horizon / gain
