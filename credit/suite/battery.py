"""Rounds on which rules are tested: builders of rounds, and the battery of cases for :func:`check_rule`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial

import torch
from torch import Tensor

from .. import games
from ..games.game import CoalitionGame
from ..games.lots import LotGame
from ..games.round import Round

MAX_ENUMERATED = 12
"""Cases of more agents are judged by v(N) alone, since finding interchangeable and null agents takes all coalitions."""


def learning_round(
    updates: Tensor,
    target: Tensor,
    *,
    admitted: Tensor | None = None,
    contributed: Tensor | None = None,
    samples: Tensor | None = None,
    blocked_by: Tensor | None = None,
    lot_updates: Tensor | None = None,
    own_targets: Tensor | None = None,
    forged: Tensor | None = None,
    t: int = 0,
    episode: int = 0,
) -> Round:
    r"""The round of a cooperative whose utility is :math:`U(\theta) = -\tfrac12 \lVert\theta - \text{target}\rVert^2`, at θ = 0.

    .. math:: v(S) = U(\Delta_S) - U(0) = \langle \text{target}, \Delta_S \rangle - \tfrac12 \lVert \Delta_S \rVert^2, \qquad
        \Delta_S = \sum_{i \in S} \Delta_i

    The utility's gradient is the target. So updates, gradient and game fit together as they do in a cooperative: agents with equal updates
    are interchangeable, and an agent whose update is zero adds nothing. Each parameter belongs to a class of its own.

    Args:
        updates: Δ, each agent's part in the step, ``(E, N, P)``.
        target: ``(E, P)``.
        admitted: bool ``(E, N, K)``; by default one admitted lot each. It is on record only: the updates are taken as they are.
        contributed: bool ``(E, N, K)``; by default all lots.
        samples: ``(N, K)``; by default one data row a lot.
        blocked_by: bool ``(E, N, K, N)``; by default what is not admitted is inadmissible to everybody.
        lot_updates: What each lot would do, ``(E, N, K, P)``. An agent's admitted lots should sum to its update. By default the admitted
            lots have equal parts in it, and the others do nothing; an agent with an update then needs an admitted lot.
        own_targets: What minimises the loss on each agent's own data, ``(E, N, P)``; that loss is half the squared distance. By default
            everybody's is the target.
        forged: Which updates an audit would find to be forged, bool ``(E, N, K)``; by default none.
        t: Index of the round within its episode.
        episode: Index of the episode.
    """
    n_envs, n_players, n_parameters = updates.shape

    def worth(step: Tensor) -> Tensor:
        return torch.einsum("ep,ecp->ec", target, step) - 0.5 * step.square().sum(dim=-1)

    def value(coalitions: Tensor) -> Tensor:
        return worth(torch.einsum("cn,enp->ecp", coalitions.to(updates.dtype), updates))

    def value_of_lots(lots: Tensor) -> Tensor:
        return worth(torch.einsum("ecnk,enkp->ecp", lots.to(updates.dtype), of_lots))

    def peer_gains() -> Tensor:
        own = target[:, None] if own_targets is None else own_targets
        gains = own @ updates.transpose(1, 2) - 0.5 * updates.square().sum(dim=-1)[:, None]  # (E, N or 1, N)
        return gains.expand(-1, n_players, -1)

    if admitted is None:
        admitted = torch.ones(n_envs, n_players, 1, dtype=torch.bool)
    if samples is None:
        samples = torch.ones(n_players, admitted.shape[-1], dtype=torch.int64)
    if blocked_by is None:
        blocked_by = (~admitted)[..., None].expand(*admitted.shape, n_players).clone()
    part = (admitted / admitted.sum(dim=-1, keepdim=True).clamp(min=1)).to(updates.dtype)  # (E, N, K)
    of_lots = part[..., None] * updates[:, :, None] if lot_updates is None else lot_updates
    return Round(
        CoalitionGame(value, n_players),
        contributed=torch.ones_like(admitted) if contributed is None else contributed,
        admitted=admitted,
        blocked_by=blocked_by,
        samples=samples,
        updates=lambda: updates,
        utility_gradient=lambda: target,
        t=t,
        episode=episode,
        lots=LotGame(value_of_lots, ~blocked_by.any(dim=-1)),
        lot_updates=lambda: torch.where(admitted[..., None], of_lots, 0.0),
        utility_curvature=lambda direction: -direction,
        peer_gains=peer_gains,
        class_head=torch.arange(n_parameters),
        forged=torch.zeros_like(admitted) if forged is None else forged,
    )


def game_round(game: CoalitionGame, *, num_envs: int = 1, t: int = 0, episode: int = 0) -> Round:
    """A round in which only the game matters: each agent has one lot, which is admitted, and updates and gradient are zero.

    Args:
        game: The round's game, of ``num_envs`` environments.
        num_envs: Number of environments E.
        t: Index of the round within its episode.
        episode: Index of the episode.
    """
    zeros = torch.zeros(num_envs, game.n_players, 1, dtype=torch.float64)
    return _with_game(learning_round(zeros, zeros[:, 0], t=t, episode=episode), game)


def _with_game(the_round: Round, game: CoalitionGame) -> Round:
    """The round with another game, in which each lot is worth what its owner is."""
    the_round.game = game
    the_round._lots = LotGame.of_agents(game, the_round.num_envs)
    return the_round


def random_round(
    n_agents: int,
    seed: int,
    *,
    num_envs: int = 2,
    unit: float = 1.0,
    dtype: torch.dtype = torch.float64,
    t: int = 0,
    backwards: bool = False,
) -> Round:
    """A learning round with 3 parameters and 2 lots an agent, in which agents 0 and 1 (and n − 2, of five or more) are alike.

    The last agent's update is zero. Agents that are alike hold different amounts of data and have other lots admitted, since what the game
    cannot see may differ. Environments alternate between small steps, which gain, and large ones, which harm. A third of the updates are
    forged.

    Args:
        n_agents: Number of agents N.
        seed: Seed of the draw.
        num_envs: Number of environments E.
        unit: Unit of the utility: worths are proportional to it.
        dtype: Precision of the utility.
        t: Index of the round within its episode.
        backwards: Number the agents from the last to the first.
    """
    n, generator = n_agents, torch.Generator().manual_seed(seed)
    updates = torch.randn(num_envs, n, 3, dtype=torch.float64, generator=generator)
    target = torch.randn(num_envs, 3, dtype=torch.float64, generator=generator)
    admitted = torch.rand(num_envs, n, 2, generator=generator) < 0.7
    admitted[:, :, 0] = True
    contributed = admitted | (torch.rand(num_envs, n, 2, generator=generator) < 0.5)
    samples = torch.randint(1, 100, (n, 2), generator=generator)
    samples[0] = samples[0] + 100
    updates[::2] = (0.5 * updates[::2] + target[::2, None]) / n
    if n > 1:
        updates[:, [1, n - 2] if n > 4 else 1] = updates[:, [0, 0] if n > 4 else 0]
        updates[:, -1] = 0
    if backwards:
        updates, admitted, contributed, samples = updates.flip(1), admitted.flip(1), contributed.flip(1), samples.flip(0)
    return learning_round(
        (updates * unit**0.5).to(dtype),
        (target * unit**0.5).to(dtype),
        admitted=admitted,
        contributed=contributed,
        samples=samples,
        forged=torch.rand(admitted.shape, generator=generator) < 1 / 3,
        t=t,
    )


def veto_round(n_agents: int, seed: int, *, num_envs: int = 2, t: int = 0, dtype: torch.dtype = torch.float64) -> Round:
    """A learning round with 3 parameters and 2 lots an agent, in which agents object to some of each other's lots.

    Screening is unanimous, so a coalition lets through what none of its members objects to. Some lots are withheld although nobody objects.
    With three or more agents, agents 0 and 1 contribute alike, but do not object alike. With two or more, the last agent's updates are
    zero, but it objects too. Each agent's own data have a target of their own.

    Args:
        n_agents: Number of agents N.
        seed: Seed of the draw.
        num_envs: Number of environments E.
        t: Index of the round within its episode.
        dtype: Precision of the utility.
    """
    n, generator = n_agents, torch.Generator().manual_seed(seed)
    lot_updates = torch.randn(num_envs, n, 2, 3, dtype=torch.float64, generator=generator) / n
    own_targets = torch.randn(num_envs, n, 3, dtype=torch.float64, generator=generator)
    contributed = torch.rand(num_envs, n, 2, generator=generator) < 0.7
    blocked_by = torch.rand(num_envs, n, 2, n, generator=generator) < 0.6 / n
    if n > 1:
        lot_updates[:, 1], contributed[:, 1], blocked_by[:, 1] = lot_updates[:, 0], contributed[:, 0], blocked_by[:, 0]
        lot_updates[:, -1] = 0
    admitted = contributed & ~blocked_by.any(dim=-1)
    return learning_round(
        (admitted[..., None] * lot_updates).sum(dim=2).to(dtype),
        own_targets.mean(dim=1).to(dtype),
        admitted=admitted,
        contributed=contributed,
        samples=torch.randint(1, 100, (n, 2), generator=generator),
        blocked_by=blocked_by,
        lot_updates=lot_updates.to(dtype),
        own_targets=own_targets.to(dtype),
        t=t,
    )


@dataclass(frozen=True)
class Facts:
    r"""What the axioms need to know about a round's game, found by looking at all coalitions.

    Attributes:
        gain: v(N), double ``(E,)``.
        scale: Largest \|v(S)\|, double ``(E,)``; 1 if all are 0.
        alike: Which agents are interchangeable, bool ``(E, N, N)``.
        null: Which agents add nothing to any coalition, bool ``(E, N)``.
        precision: Relative accuracy of the game's numbers.
    """

    gain: Tensor
    scale: Tensor
    alike: Tensor
    null: Tensor
    precision: float


@dataclass(frozen=True, eq=False)
class Case:
    """An episode of rounds to try a rule on.

    Attributes:
        name: The case in words, for messages.
        build: ``() -> rounds``: builds the episode anew each time, since a round's game remembers what was evaluated.
    """

    name: str
    build: Callable[[], Sequence[Round]]

    @cached_property
    def n_agents(self) -> int:
        """Number of agents N."""
        return self.build()[0].num_agents

    @cached_property
    def facts(self) -> list[Facts]:
        """The facts about each round's game."""
        return [_facts(the_round) for the_round in self.build()]


def _facts(the_round: Round) -> Facts:
    n, grand = the_round.num_agents, the_round.gain
    precision = torch.finfo(grand.dtype).eps
    if n > MAX_ENUMERATED:
        scale = torch.where(grand == 0, 1.0, grand.abs()).double()
        return Facts(
            grand.double(), scale, torch.zeros(len(grand), n, n, dtype=torch.bool), torch.zeros(len(grand), n, dtype=torch.bool), precision
        )
    v = the_round.game.values().double()
    largest = v.abs().amax(dim=1)
    scale = torch.where(largest == 0, 1.0, largest)
    nothing = 1e4 * precision * scale  # a difference as large as rounding can make
    codes = torch.arange(2**n)
    alike = torch.zeros(len(v), n, n, dtype=torch.bool)
    null = torch.zeros(len(v), n, dtype=torch.bool)
    for i in range(n):
        without = codes[codes >> i & 1 == 0]
        null[:, i] = (v[:, without | 1 << i] - v[:, without]).abs().amax(dim=1) <= nothing
        for j in range(i):
            neither = without[without >> j & 1 == 0]
            alike[:, i, j] = (v[:, neither | 1 << i] - v[:, neither | 1 << j]).abs().amax(dim=1) <= nothing
    return Facts(grand.double(), scale, alike, null, precision)


@lru_cache(maxsize=1)
def battery() -> tuple[Case, ...]:
    """The cases, of 1 to 12 agents and of 64. A rule that does not keep an axiom breaks it in some of them."""
    return (*_learning(), *_episodes(), *_random_games(), *_known_games())


def _learning() -> list[Case]:
    """Rounds of a learning cooperative."""
    cases = [Case(f"a random round of {n} agents", partial(_random, n, n)) for n in range(1, 13)]
    cases += [
        Case(f"a random round of 5 agents in units of {unit:g}", partial(_random, 5, 20, unit=unit)) for unit in (1e-8, 1e-4, 1e4, 1e8)
    ]
    cases += [
        Case(f"a random round of {n} agents in single precision", partial(_random, n, 30 + n, dtype=torch.float32)) for n in (3, 5, 8)
    ]
    cases += [Case(f"a round in which none of {n} agents does anything", partial(_nobody, n)) for n in (2, 5)]
    # target (1, 1), one lot each
    written: dict[str, tuple[list[list[float]], list[int]]] = {
        "twins with unequal data, one alone, one that harms, one without an update": (
            [[0.5, 0.0], [0.5, 0.0], [0.0, 0.4], [-0.3, 0.0], [0.0, 0.0]],
            [10, 70, 20, 30, 40],
        ),
        "one who works and two free riders": ([[0.5, 0.5], [0.0, 0.0], [0.0, 0.0]], [10, 20, 60]),
        "an update that overshoots to where nothing is gained": ([[0.0, 0.4], [0.0, -0.2], [2.0, 0.0]], [10, 20, 30]),
        "twins of whom one overshoots": ([[0.5, 0.0], [1.5, 0.0], [0.0, 0.4], [0.0, 0.3]], [10, 10, 10, 10]),
        "twins whose updates mirror each other": ([[0.5, 0.2], [0.2, 0.5], [0.1, 0.1], [0.2, 0.2]], [10, 10, 10, 10]),
        "everybody harms": ([[-0.5, 0.0], [-0.5, 0.0], [0.0, -0.4], [-0.3, -0.1], [0.0, 0.0]], [10, 70, 20, 30, 40]),
    }
    cases += [Case(name, partial(_written, *what)) for name, what in written.items()]
    # U(0.5) = U((√13 − 1)/4), and U(1) = 0, which the gradient at 0 does not show
    bent = {"twins on a bent utility, who do unequal steps": [0.5, (13**0.5 - 1) / 4], "a step to where a bent utility is 0 again": [1.0]}
    cases += [Case(name, partial(_bent, steps)) for name, steps in bent.items()]
    # U = x(1 − 4x)(1 − x/2) has the roots 0 and 1/4, and U(5/4) = U(3/2); under U = ln(1 + x + y) it matters how much is done, not what
    curved: dict[str, tuple[list[list[float]], Callable[[Tensor], Tensor], float]] = {
        "a step that nobody gains from, beside a longer one": ([[1.25], [0.25]], lambda x: x * (1 - 4 * x) * (1 - x / 2), -9.0),
        "two who do the same, and one who does as much of something else": ([[0.5, 0.0], [0.5, 0.0], [0.0, 0.5]], torch.log1p, -1.0),
    }
    cases += [Case(name, partial(_curved, *what)) for name, what in curved.items()]
    return [*cases, Case("a round of 8 agents, of whom one has two lots that undo each other", _undone)]


def _random(n: int, seed: int, **kwargs: object) -> list[Round]:
    return [random_round(n, seed, **kwargs)]  # type: ignore[arg-type]  # the cases below name their arguments


def _nobody(n: int) -> list[Round]:
    nothing = torch.zeros(2, n, 2, dtype=torch.bool)
    return [learning_round(torch.zeros(2, n, 3).double(), torch.ones(2, 3).double(), admitted=nothing, contributed=nothing)]


def _written(updates: list[list[float]], samples: list[int]) -> list[Round]:
    target = torch.ones(1, 2, dtype=torch.float64)
    return [learning_round(torch.tensor([updates], dtype=torch.float64), target, samples=torch.tensor(samples)[:, None])]


def _bent(steps: list[float]) -> list[Round]:
    """U(x) = x − x³ at x = 0, where its gradient is 1 and its curvature 0."""
    updates = torch.tensor(steps, dtype=torch.float64)[None, :, None]

    def value(coalitions: Tensor) -> Tensor:
        x = coalitions.to(updates.dtype) @ updates[0, :, 0]
        return (x - x**3)[None]

    the_round = _with_game(learning_round(updates, torch.ones(1, 1, dtype=torch.float64)), CoalitionGame(value, len(steps)))
    the_round._utility_curvature = torch.zeros_like
    return [the_round]


def _curved(updates: list[list[float]], utility: Callable[[Tensor], Tensor], bend: float) -> list[Round]:
    """A utility of the parameters' sum, at 0, where its first derivative is 1 and its second one is ``bend``."""
    of_agents = torch.tensor([updates], dtype=torch.float64)

    def value(coalitions: Tensor) -> Tensor:
        return utility(coalitions.to(of_agents.dtype) @ of_agents[0].sum(dim=-1))[None]

    target = torch.ones(1, of_agents.shape[-1], dtype=torch.float64)
    the_round = _with_game(learning_round(of_agents, target), CoalitionGame(value, len(updates)))
    the_round._utility_curvature = lambda direction: bend * direction.sum(dim=-1, keepdim=True).expand_as(direction)
    return [the_round]


def _undone() -> list[Round]:
    lots = torch.rand(1, 8, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) / 8
    lots[:, 0, 1] = -lots[:, 0, 0]
    admitted = torch.ones(1, 8, 2, dtype=torch.bool)
    return [learning_round(lots.sum(dim=2), torch.ones(1, 2, dtype=torch.float64), admitted=admitted, lot_updates=lots)]


def _episodes() -> list[Case]:
    """Episodes of several rounds, in which agents change their parts."""

    def episode(n: int) -> list[Round]:
        return [random_round(n, seed=40 + t, t=t, backwards=t == 1) for t in range(3)]

    def with_vetoes(n: int) -> list[Round]:
        return [veto_round(n, seed=50 + t, t=t) for t in range(3)]

    cases = [Case(f"an episode of 3 random rounds of {n} agents, who change their parts", partial(episode, n)) for n in (2, 3, 4, 5, 9)]

    def joining(n: int) -> list[Round]:
        """Of n agents, one takes part in the first round, two in the second, and all in the third."""
        rounds = []
        for t in range(3):
            there = (torch.arange(n) <= t)[None, :, None] if t < 2 else torch.ones(1, n, 1, dtype=torch.bool)
            every = random_round(n, seed=60 + t, t=t)
            rounds.append(
                learning_round(
                    every.updates * there,
                    every.utility_gradient(),
                    admitted=every.admitted & there,
                    contributed=every.contributed & there,
                    samples=every.samples,
                    t=t,
                )
            )
        return rounds

    def long() -> list[Round]:
        """For rules that look at many rounds before they change what they pay."""
        twins, target = torch.tensor([[[0.3, 0.2], [0.3, 0.2]]]).double(), torch.ones(1, 2).double()
        return [learning_round(twins.clone(), target.clone(), t=t) for t in range(18)]

    cases += [Case(f"an episode of 3 rounds of {n} agents who object to lots", partial(with_vetoes, n)) for n in (2, 3, 5, 8)]
    cases += [Case(f"an episode of 3 rounds that {n} agents join one after another", partial(joining, n)) for n in (2, 3, 5)]

    def absent() -> list[Round]:
        """Absent agents add nothing, which an estimate from few coalitions cannot be sure of."""
        power = torch.tensor([1.0, 2.0, 0.0, 1.5, 0.0, 0.5, 1.0, 0.0], dtype=torch.float64)
        the_round = game_round(CoalitionGame(lambda coalitions: (coalitions.double() @ power)[None] ** 3, len(power)))
        the_round.contributed = the_round.admitted = (power > 0)[None, :, None]
        return [the_round]

    cases.append(Case("a round of 8 agents of whom 3 are absent", absent))
    return [*cases, Case("an episode of 18 rounds of twins who always do the same", long)]


def _random_games() -> list[Case]:
    """Games that come from no learning, with worths of either sign."""

    def with_twins(n: int) -> Tensor:
        """Players 0 and 1 are interchangeable, and with three or more players the last one adds nothing."""
        v = _random_table(n, n)
        codes = torch.arange(2**n)
        if n > 1:
            v = (v + v[:, codes & ~3 | codes >> 1 & 1 | (codes & 1) << 1]) / 2
        return v[:, codes & ~(1 << n - 1)] if n > 2 else v

    def of_two_kinds(n: int) -> Tensor:
        """The worth depends on how many of the even players, and how many of the odd ones, are there."""
        bits = torch.arange(2**n)[:, None] >> torch.arange(n) & 1
        return _random_table(n, n)[:, bits[:, ::2].sum(dim=1) * (n // 2 + 1) + bits[:, 1::2].sum(dim=1)]

    tables: list[tuple[str, Callable[[], Tensor]]] = [
        (f"a random game of {n} players, two alike", partial(with_twins, n)) for n in (1, 2, 3, 4, 5, 6, 10)
    ]
    tables += [(f"a random game of {n} players of two kinds", partial(of_two_kinds, n)) for n in (2, 3, 4, 5, 6, 11)]
    tables.append(("a game that all together gain nothing in", lambda: torch.tensor([[0.0, 0.7, -0.3, 0.1, -0.3, 0.1, 0.5, 0.0]]).double()))
    return [Case(name, partial(_tabled, table)) for name, table in tables]


def _random_table(n: int, seed: int) -> Tensor:
    v = torch.randn(2, 2**n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    v[:, 0] = 0
    return v


def _tabled(table: Callable[[], Tensor]) -> list[Round]:
    v = table()
    return [game_round(games.table_game(v), num_envs=len(v))]


def _known_games() -> list[Case]:
    """Games whose values are known. The largest ones are for estimators and other cheap rules."""
    known = [
        games.glove(1, 2),
        games.glove(4, 6),
        games.airport([3.0, 1.0, 2.0, 2.0, 5.0]),
        *(games.unanimity(n, [0, n - 1]) for n in (2, 3, 4, 5, 6)),
        games.unanimity(11, [2, 5, 7]),
        games.additive([1.0, 2.0, -3.0, 0.0, 1.0]),
        games.weighted_majority([4, 2, 1, 1, 0, 2], 6),
        games.coverage([[0, i + 1] if i < 6 else [i + 1] for i in range(10)], [1.0] + [1e-3] * 10),  # nearly all is done by any of six
        games.saturating([1.0, 2.0, -0.5], 2.0, [0, 1, 1, 2, 1, 0]),
        *(
            games.random_game(kind, n, seed=1)
            for kind in ("saturating", "coverage", "unanimity_sum", "weighted_majority")
            for n in (5, 10, 64)
        ),
    ]
    return [Case(f"the {one.name}", lambda one=one: [game_round(one.game())]) for one in known]  # type: ignore[misc]  # mypy cannot infer a lambda with a default
