r"""One round as a game among proxies: best replies, and equilibria in pure strategies.

In a round proxy i chooses a set :math:`a_i` of its own lots, and is rewarded with :math:`r_i(a_i, a_{-i})`, as the engine would reward it
(:func:`~proxycoop.agents.trial.try_out`). Its *best reply* to the others' choices maximises that. Where everybody's choice is a best reply
to the others', the choices are a *Nash equilibrium in pure strategies*: no proxy gains by choosing otherwise alone. A round may have none,
one or many.

Rewards that differ by less than rounding count as equal. A proxy that is indifferent keeps its choice; if it must change, it takes the
fewest lots. What happens in later rounds is not looked at: a best reply is myopic.

Where the scenario has ``conduct``, a choice is one of all items: K counts forgeries and levers, too.

References:
    Nash (1951), *Non-cooperative games*, Annals of Mathematics 54(2). Monderer & Shapley (1996), *Potential games*, Games and Economic
    Behavior 14(1), for games in which best replies one after another end in an equilibrium. Koutsoupias & Papadimitriou (1999), *Worst-case
    equilibria*, STACS, for the price of anarchy; Anshelevich et al. (2004), *The price of stability for network design with fair cost
    allocation*, FOCS.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

import torch
from torch import Tensor

from ..checks import whole_number
from ..credit import coalition_matrix
from ..envs.devices import plain_torch
from ..envs.engine import Engine
from .trial import bare, reads_game_alone, try_out

Start = Literal["last", "none", "all", "clean"]
"""Where best replies begin. ``last``: what everybody contributed in the last round, nothing in the first. ``none``: nothing. ``all``: every
lot. ``clean``: the clean lots that will be admitted."""
STARTS: tuple[Start, ...] = get_args(Start)

MOST_ITEMS = 14
"""Largest number of items of a proxy of which best replies try all choices."""
MOST_PROFILES = 2**16
"""Largest number of choices of all proxies that :func:`equilibria` enumerates in each environment, by default."""
_PROFILES_AT_ONCE = 2**13


@dataclass(frozen=True)
class Replies:
    """What best replies, one after another, came to.

    Attributes:
        choices: Everybody's choice, bool ``(E, N, K)``.
        converged: Whether each choice of the replying proxies is a best reply to all others, bool ``(E,)``. If all proxies reply, these
            choices are then a Nash equilibrium of the round.
        sweeps: How often the proxies were gone through, int64 ``(E,)``.
    """

    choices: Tensor
    converged: Tensor
    sweeps: Tensor


@dataclass(frozen=True)
class Equilibria:
    """The pure Nash equilibria of the coming round. Welfare is scale · v(N) minus everybody's costs, in reward units.

    Attributes:
        exact: Whether all choices were enumerated. If not, these are the equilibria that best replies found from each start; there may
            be others, and the optimum is unknown.
        count: Number of equilibria, int64 ``(E,)``.
        best: Welfare of the best equilibrium, ``(E,)``; NaN where there is none.
        worst: Welfare of the worst equilibrium, ``(E,)``; NaN where there is none.
        optimum: The highest welfare of any choices, ``(E,)``; NaN if not ``exact``.
        best_choices: The best equilibrium, bool ``(E, N, K)``; nothing where there is none.
        worst_choices: The worst equilibrium, bool ``(E, N, K)``; nothing where there is none.
    """

    exact: bool
    count: Tensor
    best: Tensor
    worst: Tensor
    optimum: Tensor
    best_choices: Tensor
    worst_choices: Tensor

    @property
    def price_of_anarchy(self) -> Tensor:
        """Optimum over the worst equilibrium, ``(E,)``: at least 1; infinite if the latter brings nothing, NaN if there is none."""
        return _ratio(self.optimum, self.worst)

    @property
    def price_of_stability(self) -> Tensor:
        """Optimum over the best equilibrium, ``(E,)``: at least 1; infinite if the latter brings nothing, NaN if there is none."""
        return _ratio(self.optimum, self.best)


def start_of(engine: Engine, start: Start) -> Tensor:
    """The choices in which best replies begin, bool ``(E, N, K)``.

    Raises:
        ValueError: If there is no such start.
    """
    look, items = engine.prospect, engine.items
    match start:
        case "last":
            return engine.history[-1].chosen.clone() if engine.history else torch.zeros_like(look.choosable)
        case "none":
            return torch.zeros_like(look.choosable)
        case "all":
            return items.lots(look.available)
        case "clean":
            return items.lots(look.passes & look.available) & items.whole(~engine.lots.corrupt)
    raise ValueError(f"start={start!r}: must be one of {', '.join(STARTS)}")


@plain_torch()
def best_reply(engine: Engine, choices: Tensor, seat: int) -> Tensor:
    """The best reply of one proxy to the others' choices in the coming round, by trying all 2^K.

    Args:
        engine: The cooperatives; they are only read.
        choices: Everybody's choices, bool ``(E, N, K)``. The proxy keeps its own if no other brings more.
        seat: The proxy's seat.

    Returns:
        bool ``(E, K)``.

    Raises:
        RuntimeError: If no episode is running.
        ValueError: If there is no such seat.
    """
    whole_number("seat", seat, 0, engine.num_agents - 1)
    return _reply(engine, choices, seat, torch.arange(engine.num_envs, device=choices.device))


@plain_torch()
def best_replies(
    engine: Engine, start: Start | Tensor = "last", *, seats: Iterable[int] | None = None, sweeps: int | None = None
) -> Replies:
    """Let proxies reply to each other in the coming round, one after another in the order of their seats, until nobody changes its choice.

    Args:
        engine: The cooperatives; they are only read.
        start: Where to begin: a name, or choices, bool ``(E, N, K)``.
        seats: Who replies; everybody by default. The others' choices stay as they are at the start.
        sweeps: How often to go through the proxies at most; by default N + 1 times, at least 4. Without an equilibrium replies go round in
            a cycle, and stop here.

    Raises:
        RuntimeError: If no episode is running.
        ValueError: If there is no such start or seat, or ``sweeps`` is not a whole number from 1.
    """
    engine.require_running()
    engine.scenario.require_everybody("an equilibrium of a round")
    n_agents, n_envs = engine.num_agents, engine.num_envs
    replying = range(n_agents) if seats is None else sorted({whole_number("seat", seat, 0, n_agents - 1) for seat in seats})
    most = max(n_agents + 1, 4) if sweeps is None else whole_number("sweeps", sweeps, 1)
    choices = (start if isinstance(start, Tensor) else start_of(engine, start)).to(engine.device, torch.bool)
    if tuple(choices.shape) != (n_envs, n_agents, engine.num_items):
        axes = "(E, N, I)" if engine.items else "(E, N, K)"
        raise ValueError(f"start has shape {tuple(choices.shape)}: must be {axes} = {(n_envs, n_agents, engine.num_items)}")
    choices = choices & engine.prospect.choosable
    stale = torch.zeros(n_envs, n_agents, dtype=torch.bool, device=choices.device)  # whose choice may not be a best reply
    stale[:, list(replying)] = True
    swept = torch.zeros(n_envs, dtype=torch.int64, device=choices.device)
    for _ in range(most):
        if not stale.any():
            break
        swept += stale.any(dim=1)
        for seat in replying:
            where = stale[:, seat].nonzero()[:, 0]
            if not len(where):
                continue
            reply = _reply(engine, choices, seat, where)
            changed = (reply != choices[where, seat]).any(dim=1)
            choices[where, seat] = reply
            others = [other for other in replying if other != seat]
            stale[where[changed][:, None], torch.tensor(others, dtype=torch.int64, device=stale.device)] = True
            stale[where, seat] = False
    return Replies(choices, ~stale.any(dim=1), swept)


@plain_torch()
def equilibria(engine: Engine, *, most: int = MOST_PROFILES, starts: Sequence[Start] = STARTS) -> Equilibria:
    """All pure Nash equilibria of the coming round if it is small, else those that best replies find.

    Lots that would be refused are left out where the rule pays by the coalition game alone. Contributing them changes nothing but costs.

    Args:
        engine: The cooperatives; they are only read.
        most: Number of choices of all proxies, 2^(N·K), up to which all of them are tried.
        starts: Where best replies begin, if they are needed.

    Raises:
        RuntimeError: If no episode is running.
        ValueError: If there is no such start, or ``most`` is not a whole number from 1.
    """
    engine.require_running()
    if not starts:
        raise ValueError(f"starts={starts!r}: name at least one of {', '.join(STARTS)}")
    n_bits = engine.num_agents * engine.num_items
    if n_bits <= 62 and 2**n_bits <= whole_number("most", most, 1):
        return _enumerated(engine)
    found = [best_replies(engine, start) for start in starts]
    everywhere = torch.arange(engine.num_envs, device=engine.device)
    welfare = torch.stack([try_out(engine, everywhere, one.choices).welfare for one in found], dim=1)
    return _of(False, torch.stack([one.choices for one in found], dim=1), torch.stack([one.converged for one in found], dim=1), welfare)


def _reply(engine: Engine, choices: Tensor, seat: int, where: Tensor) -> Tensor:
    """Best replies of one proxy in some environments ``(W,)``, bool ``(W, K)``."""
    table, code_at = _choices_of(engine.num_items)
    table, n_choices = table.to(choices.device), len(table)
    offered = (table & ~_matters(engine)[where, seat][:, None]).any(dim=2).logical_not()  # (W, 2^K)
    rows, which = offered.nonzero(as_tuple=True)
    tried = choices[where[rows]]
    tried[:, seat] = table[which]
    rewards = engine.theta.new_full((len(where), n_choices), -math.inf)
    rewards[rows, which] = try_out(engine, where[rows], tried).rewards[:, seat]
    enough = rewards >= (rewards.amax(dim=1) - _rounding(engine)[where])[:, None]
    current = choices[where, seat] & engine.prospect.choosable[where, seat]
    code = code_at.to(choices.device)[(current * (1 << torch.arange(engine.num_items, device=choices.device))).sum(dim=1)]
    best = enough.to(torch.uint8).argmax(dim=1)  # the first of them, which has the fewest lots
    stays = enough.gather(1, code[:, None])[:, 0]
    return table[torch.where(stays, code, best)]


def _enumerated(engine: Engine) -> Equilibria:
    """All choices of all proxies, tried."""
    n_envs, n_agents, n_lots = engine.num_envs, engine.num_agents, engine.num_items
    table, _ = _choices_of(n_lots)
    n_own = len(table)
    index = torch.cartesian_prod(*[torch.arange(n_own)] * n_agents).reshape(-1, n_agents)  # (S, N)
    profiles = table[index].to(engine.device)  # (S, N, K)
    offered = (profiles & ~_matters(engine)[:, None]).flatten(start_dim=2).any(dim=2).logical_not()  # (E, S)
    rewards = engine.theta.new_full((n_envs, len(profiles), n_agents), -math.inf)
    welfare = engine.theta.new_full((n_envs, len(profiles)), -math.inf)
    for rows, which in zip(*(half.split(_PROFILES_AT_ONCE) for half in offered.nonzero(as_tuple=True)), strict=True):
        tried = try_out(engine, rows, profiles[which])
        rewards[rows, which], welfare[rows, which] = tried.rewards, tried.welfare
    least = _rounding(engine)[:, None]
    stable = offered.clone()
    for seat in range(n_agents):
        own = rewards[:, :, seat].reshape(n_envs, *[n_own] * n_agents)
        best = own.amax(dim=1 + seat, keepdim=True).expand_as(own).reshape(n_envs, -1)
        stable &= rewards[:, :, seat] >= best - least
    return _of(True, profiles.expand(n_envs, *profiles.shape), stable, welfare)


def _of(exact: bool, choices: Tensor, stable: Tensor, welfare: Tensor) -> Equilibria:
    """The summary of choices ``(E, S, N, K)``, of which some are equilibria, bool ``(E, S)``, with their welfare ``(E, S)``."""
    high = torch.where(stable, welfare, -math.inf)
    low = torch.where(stable, welfare, math.inf)
    (best, at_best), (worst, at_worst) = high.max(dim=1), low.min(dim=1)
    there = stable.any(dim=1)
    each = torch.arange(len(choices), device=choices.device)
    first = torch.ones_like(stable) if exact else _first_of_its_kind(choices, stable)
    return Equilibria(
        exact=exact,
        count=(stable & first).sum(dim=1),
        best=torch.where(there, best, math.nan),
        worst=torch.where(there, worst, math.nan),
        optimum=welfare.amax(dim=1) if exact else torch.full_like(best, math.nan),
        best_choices=choices[each, at_best] & there[:, None, None],
        worst_choices=choices[each, at_worst] & there[:, None, None],
    )


def _first_of_its_kind(choices: Tensor, stable: Tensor) -> Tensor:
    """Which choices of ``(E, S, N, K)`` no earlier equilibrium equals, bool ``(E, S)``."""
    same = (choices[:, :, None] == choices[:, None]).flatten(start_dim=3).all(dim=3)  # (E, S, S)
    earlier = torch.ones_like(same[0]).tril(-1)
    return ~(same & earlier & stable[:, None]).any(dim=2)


def _matters(engine: Engine) -> Tensor:
    """Lots whose contribution may change more than costs, bool ``(E, N, K)``: for the others every choice without them is as good."""
    look = engine.prospect
    if engine.scenario.screening.governance == "negotiate" or not reads_game_alone(bare(engine.rule)):
        return look.choosable
    return torch.cat([look.available & look.passes, look.choosable[..., engine.items.n_updates :]], dim=-1)


def _rounding(engine: Engine) -> Tensor:
    """Differences of rewards up to which rounding may have brought them, ``(E,)``, in reward units."""
    eps = torch.finfo(engine.dtype).eps
    return 16 * eps * engine.reward_scale * (1 + engine.prospect.utility.abs())


@lru_cache(maxsize=16)
def _choices_of(n_lots: int) -> tuple[Tensor, Tensor]:
    """All choices of a proxy, bool ``(2^K, K)``, those with fewer lots first; and where each code (bit k = lot k) is among them.

    Raises:
        ValueError: If there are too many.
    """
    if n_lots > MOST_ITEMS:
        raise ValueError(
            f"best replies try all choices of a proxy, and with {n_lots} items these are 2^{n_lots}: have {MOST_ITEMS} at most"
        )
    codes = sorted(range(2**n_lots), key=lambda code: (code.bit_count(), code))
    place = torch.empty(2**n_lots, dtype=torch.int64)
    place[torch.tensor(codes)] = torch.arange(2**n_lots)
    return coalition_matrix(n_lots)[codes], place


def _ratio(optimum: Tensor, reached: Tensor) -> Tensor:
    """Optimum over what was reached; 1 where both are the same, infinite where nothing was reached."""
    ratio = torch.where(reached > 0, optimum / reached, math.inf)
    return torch.where(reached.isnan() | optimum.isnan(), math.nan, torch.where(optimum == reached, 1.0, ratio))
