"""The engine's rounds as compiled functions of tensors: ``Engine(…, compile=True)``.

Two parts of a round are functions of tensors alone. *Advance* screens what was chosen and aggregates it into a step. *Close* applies the
step, looks at where it leads, and makes rewards and observations. Between them the credit rule runs as it is. If it asks for every
coalition of at most ten agents, their table is made in the first part, where the game is additive in the logits. The accounts of a
scenario with money run as they are, and so do marginal gains where proxies see them. A reset looks at where the episode begins; drawing
the lots is not compiled.

Both parts are the engine's own methods, traced once on the engine's own tensors, and compiled by :func:`torch.compile`: once a process,
scenario, number of environments, type, device and number of threads. Kernels of several operations round otherwise than the operations do
one after another. So the numbers are those of an engine that is not compiled to rounding, and an update that is admitted within rounding of
a tolerance may be refused, and an amount of money may differ by a minor unit. The same seed gives the same numbers to the last bit, as
ever.

A compiled function takes for granted what is usual: that all updates are finite, and that a limit for the episode does not shrink the
step. Where that does not hold in some environment, a second form of it, which takes nothing for granted and does more work, computes this
part of the round anew. It is compiled when it is first needed.

Refused is what takes its course by its data: governance ``negotiate``, the filters ``scale`` and ``project``, substrate ``traversal``.
Models of every kind are served. Everything else that an engine does runs as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy, deepcopy
from dataclasses import replace
from types import FunctionType, ModuleType
from typing import Any

import torch
from torch import Tensor

from ..compiled.compilers import require_compiler
from ..compiled.functions import CompiledFunction
from ..compiled.trees import leaves, with_leaves
from ..model.coalitions import RoundStep
from ..records import Entry, Merged, Pay, RoundResult
from ..scenario import Scenario
from ..shared import recipe
from .tables import is_tabulated, worths

Cooperatives = Any
"""An :class:`~proxycoop.envs.Engine`, which is made of this module and not the other way round."""


class CompiledRounds:
    """The compiled parts of an engine's rounds.

    Args:
        engine: The engine.

    Raises:
        ValueError: If there is no compiler for the engine's device, or the scenario's rounds take their course by their data.
    """

    def __init__(self, engine: Cooperatives) -> None:
        scenario: Scenario = engine.scenario
        if why := _course(scenario):
            raise ValueError(f"compile=True cannot serve scenario {scenario.name!r}: {why}; leave compile out")
        require_compiler(engine.device)
        self._name = scenario.name
        self._key = (scenario.to_yaml(), recipe(scenario), repr(engine.names), engine.num_envs, engine.dtype, engine.device)
        self._clear()

    def _clear(self) -> None:
        self._functions: dict[Any, CompiledFunction] = {}
        self._grounds: dict[int, tuple[Tensor, ...]] = {}
        self._numbers: dict[Any, Tensor] = {}

    def __getstate__(self) -> dict[str, Any]:
        """What is compiled stays in the process."""
        return {"_name": self._name, "_key": self._key}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        vars(self).update(state)
        self._clear()

    def open(self, engine: Cooperatives) -> None:
        """As the engine's ``_open``."""

        def part(other: Cooperatives) -> Any:
            other._open()
            return other.prospect, other._memory.past

        engine.prospect = None
        found = self._answer("open", engine, part, ())
        engine.prospect, engine._memory.past = found
        engine.profiles = engine.profiles.begun(engine.prospect.value_losses)

    def advance(self, engine: Cooperatives, chosen: Tensor) -> tuple[Entry, Merged, Tensor]:
        """As the engine's ``_advance``."""
        tabulates = is_tabulated(engine.rule, engine.num_agents)

        def part(other: Cooperatives, chosen: Tensor) -> Any:
            entry, merged, cost = other._advance(chosen)
            made = merged.aggregate
            table = worths(made, other.utility, other.prospect.log_share) if tabulates else None
            return entry, (made.updates, made.weight, made.gamma), merged.step, merged.delta, merged.guarded, cost, table

        found = self._answer("advance and tabulate" if tabulates else "advance", engine, part, (chosen,))
        entry, (updates, weight, gamma), step, delta, guarded, cost, table = found
        aggregate = RoundStep(
            engine.model,
            engine.scenario.server,
            engine.server_state,
            engine.theta,
            updates,
            weight,
            engine.scenario.weights,
            gamma,
        )
        return entry, Merged(aggregate, step, delta, guarded, table), cost

    def close(self, engine: Cooperatives, entry: Entry, merged: Merged, pay: Pay) -> RoundResult:
        """As the engine's ``_close``."""
        whole = engine.treasury is None and not engine.layout.informed
        gamma = merged.aggregate.gamma

        def part(other: Cooperatives, entry: Entry, step: Tensor, delta: Tensor, guarded: Any, gamma: Tensor, pay: Pay) -> Any:
            before = other.prospect
            merged_there = Merged(replace(merged.aggregate, gamma=gamma), step, delta, guarded)
            other._move(entry, merged_there, pay)
            told = (other._told(before, entry, merged_there, pay),) if whole else ()
            return other.theta, other.server_state, other._memory.past, other.prospect, *told

        found = self._answer("close", engine, part, (entry, merged.step, merged.delta, merged.guarded, gamma, pay))
        before = engine.prospect
        engine.theta, engine.server_state, engine._memory.past, engine.prospect, *told = found
        engine.t += 1
        if not whole:
            answer: RoundResult = engine._told(before, entry, merged, pay)
            return answer
        (result,) = told
        vars(result).update(evaluations=pay.evaluations, done=engine.t == engine.horizon)
        engine.observations = result.observations
        made: RoundResult = result
        return made

    def _answer(self, name: str, engine: Cooperatives, part: Callable[..., Any], given: tuple[Any, ...]) -> Any:
        """What a part of the round answers when compiled."""
        index = engine._on_split
        if index not in self._grounds:
            self._grounds[index] = tuple(_tensors_in(engine._ground))
        state = (
            engine.theta,
            engine.server_state,
            engine._memory.past,
            engine.prospect,
            engine.lots,
            engine.profiles,
            engine._keys,
            self._number(engine, engine.reward_scale, torch.float64),
            self._number(engine, engine.t, torch.int64),
        )
        ground = self._grounds[index]
        tensors = ground + leaves(state) + leaves(given)
        for cautious in (False, True):
            which = name, cautious, index, len(tensors), torch.get_num_threads()
            function = self._functions.get(which)
            if function is None:
                self._functions[which] = function = self._function(name, cautious, engine, part, state, given, tensors)
            if (answer := function(tensors)) is not None:
                return answer
        raise AssertionError("a function that takes nothing for granted always answers")

    def _function(
        self, name: str, cautious: bool, engine: Cooperatives, part: Callable[..., Any], state: Any, given: Any, tensors: Sequence[Tensor]
    ) -> CompiledFunction:
        """The compiled part of the round: another engine's of this process if it is of the same kind."""
        kind = (name, cautious, self._key, torch.get_num_threads(), tuple((tensor.shape, tensor.dtype) for tensor in tensors))
        if kind not in _made:
            n_ground, n_state = len(self._grounds[engine._on_split]), len(leaves(state))

            def traced(new: Sequence[Tensor]) -> Any:
                ground, now, rest = new[:n_ground], new[n_ground : n_ground + n_state], new[n_ground + n_state :]
                return part(_with_tensors(engine, tensors[:n_ground], ground, with_leaves(state, now)), *with_leaves(given, rest))

            try:
                _made[kind] = CompiledFunction(traced, tensors, cautious=cautious)
            except (ValueError, RuntimeError) as error:
                why = " ".join(str(error).split("\n")[:2])
                raise ValueError(f"compile=True cannot serve scenario {self._name!r}: {why}; leave compile out") from error
            while len(_made) > _MOST:
                del _made[next(iter(_made))]
        return _made[kind]

    def _number(self, engine: Cooperatives, number: float, dtype: torch.dtype) -> Tensor:
        """A number as a tensor, which a compiled function can be given instead of being made for it."""
        if (number, dtype) not in self._numbers:
            self._numbers[number, dtype] = torch.tensor(number, dtype=dtype).to(engine.device)
        return self._numbers[number, dtype]


_MOST = 64
_made: dict[Any, CompiledFunction] = {}
"""The compiled functions of this process, oldest first."""


def _course(scenario: Scenario) -> str:
    """What of a scenario takes its course by the data, in words; empty if nothing does."""
    screening = scenario.screening
    if screening.governance == "negotiate":
        return "under screening.governance: negotiate, principals bargain in as many moves as it takes"
    if screening.filter != "reject":
        return f"screening.filter: {screening.filter} mends updates in as many passes as it takes"
    if scenario.participation is not None:
        return "with participation other agents are present in every round"
    if scenario.conduct is not None and scenario.conduct.names:
        return "conduct leads to rounds that depend on those before them"
    for part in ("aggregator", "admission", "privacy"):
        if getattr(scenario, part) != getattr(scenario.undefended(), part):
            return f"{part} does what depends on who takes part, or draws anew in every round"
    if scenario.substrate.kind == "traversal":
        return "substrate traversal draws a batch of its own in every round"
    return ""


def _with_tensors(engine: Cooperatives, real: Sequence[Tensor], new: Sequence[Tensor], state: Any) -> Cooperatives:
    """The engine with other tensors: of its ground, and of its state. What is done to it leaves the engine alone."""
    other = object.__new__(type(engine))
    vars(other).update(vars(engine))
    keep = [engine.scenario, engine._ground.scenario, *engine.values.values(), engine.splits.dataset]
    memo: dict[int, Any] = {id(thing): thing for thing in keep}
    memo |= {id(tensor): replaced for tensor, replaced in zip(real, new, strict=True)}
    other._ground = deepcopy(engine._ground, memo)
    other._memory = copy(engine._memory)
    other.theta, other.server_state, other._memory.past, other.prospect, other.lots, other.profiles, other._keys, *rest = state
    other.reward_scale, other.t = rest
    other._memory._reward_scale = other.reward_scale
    return other


def _tensors_in(thing: object, seen: dict[int, object] | None = None) -> Iterator[Tensor]:
    """All tensors that something holds, each once, in an order that is the same for what is made alike."""
    seen = {} if seen is None else seen
    if id(thing) in seen:
        return
    seen[id(thing)] = thing
    if isinstance(thing, Tensor):
        yield thing
    elif isinstance(thing, Mapping):
        for part in thing.values():
            yield from _tensors_in(part, seen)
    elif isinstance(thing, (list, tuple)):
        for part in thing:
            yield from _tensors_in(part, seen)
    elif hasattr(thing, "__dict__") and not isinstance(thing, (type, FunctionType, ModuleType)):
        yield from _tensors_in(vars(thing), seen)
