r"""How much members of a cooperative interact: whether a coalition is worth more, or less, than the sum of what its members are worth.

Where v(S) is a sum over members, every credit rule that pays marginal contributions pays the same. Where it is not, rules differ. The
round's whole game is taken apart into orders by its Walsh expansion, which is orthogonal over all coalitions with equal weights:

.. math:: v(S) = \sum_{T \subseteq N} \hat v(T)\, (-1)^{|S \cap T|}, \qquad
    \hat v(T) = 2^{-n} \sum_{S \subseteq N} (-1)^{|S \cap T|}\, v(S), \qquad
    \operatorname{Var} v = \sum_{T \neq \emptyset} \hat v(T)^2.

So the variance of the game splits into the parts of single members (:math:`|T| = 1`), of pairs and of larger groups, as in an analysis of
variance, and these shares sum to 1. The share of single members is the R² of the best additive game
:math:`a_0 + \sum_{i \in S} a_i`, fitted by least squares to all :math:`2^n` coalitions with equal weights and a free intercept: cutting the
expansion after the first order is that fit, and :math:`a_i = -2 \hat v(\{i\})` is member i's Banzhaf value (Hammer & Holzman). The
intercept is free, so v(∅) = 0 does not bind the fit. With it the fit could only be worse.

References:
    Hammer & Holzman (1992), *Approximations of pseudo-Boolean functions; applications to game theory*, Zeitschrift für Operations Research
    36. Grabisch, Marichal & Roubens (2000), *Equivalent representations of set functions*, Mathematics of Operations Research 25(2).
    O'Donnell (2014), *Analysis of Boolean functions*, chapter 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ...checks import whole_number
from ...credit import coalition_matrix, shapley_values
from ...envs import Engine, Scenario
from ...envs.randomness import Purpose, fold, uniform
from ..evaluate import Estimate

MOST_AGENTS = 12
"""Largest number of agents whose whole game is computed, in every round of every episode."""
CLEAN_SHARE, CORRUPT_SHARE = 0.8, 0.2
"""Probability that a clean lot, and that a corrupt lot, is contributed: what proxies that tell them apart fairly well would do."""
_NOTHING = 1e-20
"""Variance, in the utility's unit squared, that is rounding in double precision."""


def walsh(v: Tensor) -> Tensor:
    r"""Walsh coefficients of games: :math:`\hat v(T) = 2^{-n} \sum_S (-1)^{|S \cap T|} v(S)`.

    Args:
        v: Coalition values, ``(batch, 2**n)``, in any unit. Bit ``i`` of the column says whether player ``i`` is in.

    Returns:
        ``(batch, 2**n)``, same unit, in double precision. Bit ``i`` of the column says whether player ``i`` is in T.

    Raises:
        ValueError: If the number of columns is not a power of two.
    """
    if v.dim() != 2 or v.shape[1] < 1 or v.shape[1] & (v.shape[1] - 1):
        raise ValueError(f"v has shape {tuple(v.shape)}: must be (batch, 2**n), one column a coalition")
    n_players = v.shape[1].bit_length() - 1
    transformed = v.double()
    for i in range(n_players):  # the fast transform: one butterfly a player
        without, within = transformed.unflatten(1, (-1, 2, 2**i)).unbind(dim=2)  # (batch, 2**(n - i - 1), 2**i) each
        transformed = torch.stack([without + within, without - within], dim=2).flatten(start_dim=1) / 2
    return transformed


def variance_by_order(v: Tensor) -> Tensor:
    r"""Parts of a game's variance over all coalitions, by order: :math:`\sum_{|T| = k} \hat v(T)^2` for k = 1 … n.

    Args:
        v: Coalition values, ``(batch, 2**n)`` with n at least 1, in any unit.

    Returns:
        ``(batch, n)``, in the unit squared. Rows sum to the variance of v over the :math:`2^n` coalitions. Over that sum, the first column
        is the R² of the best additive game, and the second the share of pairs.

    Raises:
        ValueError: If the number of columns is not a power of two, or there is no player.
    """
    square = walsh(v).square()
    n_players = v.shape[1].bit_length() - 1
    if n_players < 1:
        raise ValueError(f"v has shape {tuple(v.shape)}: a game needs at least one player")
    order = coalition_matrix(n_players, v.device).sum(dim=1)  # (2**n,)
    return square.new_zeros(len(v), n_players + 1).index_add_(1, order, square)[:, 1:]


def marginals(v: Tensor) -> tuple[Tensor, Tensor]:
    """What each player adds to nobody, v({i}) − v(∅), and to all others, v(N) − v(N − i): ``(batch, 2**n)`` → ``(batch, n)`` each."""
    n_players = v.shape[1].bit_length() - 1
    single = 1 << torch.arange(n_players, device=v.device)
    everyone = v.shape[1] - 1
    return v[:, single] - v[:, :1], v[:, everyone, None] - v[:, everyone - single]


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's correlation over the last dimension: ``(…, n)``, ``(…, n)`` → ``(…)``; NaN where one of them is constant."""
    a, b = (x.double() - x.double().mean(dim=-1, keepdim=True) for x in (a, b))
    spread = a.square().sum(dim=-1), b.square().sum(dim=-1)
    constant = torch.minimum(*spread) <= _NOTHING
    return torch.where(constant, torch.nan, (a * b).sum(dim=-1) / (spread[0] * spread[1]).clamp(min=1e-300).sqrt())


@dataclass(frozen=True)
class Interaction:
    """How much the members of a scenario's cooperatives interact. Means over episodes with 95 % intervals.

    Attributes:
        scenario: The scenario's name.
        screened: Whether the scenario's own screening was at work. If not, nobody screened.
        agents: Number of agents N.
        episodes: Number of episodes.
        additive: R² of the best additive game, over all rounds of an episode: the sum of the rounds' first-order variances over the sum of
            their variances.
        pairs: Share of the variance that is interaction of two members.
        higher: Share that is interaction of three and more. The three shares sum to 1.
        loo: Pearson correlation over agents of v(N) − v(N − i) with the exact Shapley value, averaged over the rounds in which it is
            defined.
        standalone: The same of v({i}).
        gain: What an episode gained, in the utility's unit.
        alone: What all members would have gained alone, summed over members and rounds, in the same unit. In an additive game it equals the
            gain. It is larger where members replace each other, and smaller where they need each other.
        last: What all members add to the others, v(N) − v(N − i), summed in the same way. It is smaller than the gain where they replace
            each other.
    """

    scenario: str
    screened: bool
    agents: int
    episodes: int
    additive: Estimate
    pairs: Estimate
    higher: Estimate
    loo: Estimate
    standalone: Estimate
    gain: Estimate
    alone: Estimate
    last: Estimate

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON: estimates as pairs of the mean and the half-width."""
        return {name: [value["mean"], value["half_width"]] if isinstance(value, dict) else value for name, value in asdict(self).items()}


def games(scenario: Scenario, seeds: Sequence[int], *, clean: float = CLEAN_SHARE, corrupt: float = CORRUPT_SHARE) -> tuple[Tensor, Tensor]:
    """Play episodes in which lots are contributed at random, and compute every round's whole game.

    Args:
        scenario: The cooperative.
        seeds: One seed an episode. Lots of an episode depend on its seed alone, and so does what is contributed in each round.
        clean: Probability that a clean lot is contributed, anew in each round.
        corrupt: The same of a corrupt lot.

    Returns:
        v(S) of every episode and round, float64 ``(E, T, 2**N)``, and every episode's gain, ``(E,)``, in the utility's unit.

    Raises:
        ValueError: If there are more than 12 agents, or a probability is not within 0..1.
    """
    scenario.require_everybody("the whole game of each round")
    if scenario.n_agents > MOST_AGENTS:
        raise ValueError(
            f"scenario {scenario.name!r} has {scenario.n_agents} proxies: the whole game is computed for at most {MOST_AGENTS}, "
            f"because it has 2**N coalitions: use --set principals={MOST_AGENTS}, or another scenario"
        )
    for name, share in (("clean", clean), ("corrupt", corrupt)):
        if not 0 <= share <= 1:
            raise ValueError(f"{name}={share}: must be a probability, from 0 to 1")
    reward = scenario.reward.model_copy(update={"scale": 1.0})  # it does not matter here, and a reference episode would be played for it
    engine = Engine(
        scenario.without_items().model_copy(update={"reward": reward, "settlement": None}), None, len(seeds), dtype=torch.float64
    )
    engine.reset(seeds)
    assert engine.seeds is not None
    probability = torch.where(engine.lots.corrupt, corrupt, clean)
    coalitions = coalition_matrix(engine.num_agents, engine.device)
    played = []
    while engine.t < engine.horizon:
        coins = uniform(fold(engine.seeds, Purpose.POLICY, engine.t), *probability.shape[1:])
        engine.step(coins < probability)
        played.append(engine.round.value(coalitions).double())
    return torch.stack(played, dim=1), engine.prospect.utility - engine.initial_utility


def interaction(scenario: Scenario, *, episodes: int = 32, seed: int = 0, screened: bool = False) -> Interaction:
    """How much members interact, in episodes in which 80 % of the clean and 20 % of the corrupt lots are contributed at random.

    Args:
        scenario: The cooperative.
        episodes: Number of episodes, at least 2.
        seed: Seed of the first episode's cooperative; the others follow by a step of one.
        screened: Whether the scenario's own screening is at work. By default nobody screens, so that the game is that of the data alone.

    Raises:
        ValueError: If there are more than 12 agents, or too few episodes.
    """
    episodes = whole_number("episodes", episodes, 2)
    seed = whole_number("seed", seed, 0)
    played = scenario if screened else scenario.unscreened(1.0)
    v, gain = games(played, range(seed, seed + episodes))  # (E, T, 2**N), (E,)
    n_envs, horizon, _ = v.shape
    rows = v.flatten(end_dim=1)
    variance = variance_by_order(rows).reshape(n_envs, horizon, -1).sum(dim=1)  # (E, N)
    total = variance.sum(dim=-1)
    share = torch.where(total > horizon * _NOTHING, 1.0, torch.nan)[:, None] * variance / total.clamp(min=1e-300)[:, None]
    alone, last = marginals(rows)
    exact = shapley_values(rows)

    def with_shapley(credit: Tensor) -> Tensor:
        return correlation(credit, exact).reshape(n_envs, horizon).nanmean(dim=1)

    return Interaction(
        scenario=scenario.name,
        screened=screened,
        agents=scenario.n_agents,
        episodes=n_envs,
        additive=Estimate.of(share[:, 0]),
        pairs=Estimate.of(share[:, 1:2].sum(dim=1)),
        higher=Estimate.of(share[:, 2:].sum(dim=1)),
        loo=Estimate.of(with_shapley(last)),
        standalone=Estimate.of(with_shapley(alone)),
        gain=Estimate.of(gain),
        alone=Estimate.of(alone.sum(dim=-1).reshape(n_envs, horizon).sum(dim=1)),
        last=Estimate.of(last.sum(dim=-1).reshape(n_envs, horizon).sum(dim=1)),
    )


COLUMNS = ("scenario", "screening", "additive", "pairs", "higher", "loo", "standalone", "gain", "alone", "last")
"""Titles of the columns of :func:`cells`."""


def cells(found: Interaction, *, digits: int = 2) -> list[str]:
    """A row of a table for one scenario; a mean without an interval stands alone, and – is undefined."""
    shown = [f"{found.scenario}", "its own" if found.screened else "none"]
    for name in COLUMNS[2:]:
        estimate: Estimate = getattr(found, name)
        if estimate.mean is None:
            shown.append("–")
            continue
        wide = "" if estimate.half_width is None else f" ± {estimate.half_width:.{digits}f}"
        shown.append(f"{estimate.mean:z.{digits}f}{wide}".replace("-", "−"))
    return shown
