r"""Explain what was learned: what each proxy's policy is worth to all, and which features of the observations the policy lives on.

Both are Shapley values, :math:`\phi_i = \sum_{S \not\ni i} \frac{|S|!\,(n-|S|-1)!}{n!} [v(S \cup i) - v(S)]`, of games that are played:

* *Proxies.* v(S) is what an episode is worth when the proxies of S play the policy and the others contribute nothing. After Heuillet,
  Couthouis & Díaz-Rodríguez (2022), who estimate it from sampled coalitions, and also try random actions and other agents' for the
  absent. Here all coalitions are played, with their true weights, up to :data:`EXACT_PROXIES` proxies, and in the same cooperatives with
  the same random numbers, so that every episode has values of its own; with more proxies they are estimated, with standard errors.
* *Features, outcomes.* v(C) is what an episode is worth when everybody's policy sees only the features of C, in all rounds.
* *Features, behaviour.* v(C) is the probability of contributing a lot in a situation that the full policy got into, when only the features
  of C are seen.

The last two are after Beechey, Smith & Şimşek (2023, 2025), who average the policy over what hidden features may be *given those that are
seen*. Here they are drawn from what others observed in the same round, whatever is seen: a marginal, not a conditional expectation. So a
feature that the policy ignores has no influence, even if it tells of one that the policy reads; but the policy is also asked about
situations that never occur. A feature of lots is one player for all lots of a proxy together.

References:
    Shapley (1953), *A value for n-person games*, Contributions to the Theory of Games II.
    Heuillet, Couthouis & Díaz-Rodríguez (2022), *Collective explainable AI: explaining cooperative strategies and agent contribution in
    multiagent reinforcement learning with Shapley values*, IEEE Computational Intelligence Magazine 17(1).
    Beechey, Smith & Şimşek (2023), *Explaining reinforcement learning with Shapley values*, ICML; (2025), *A theoretical framework for
    explaining reinforcement learning with Shapley values*, arXiv 2505.07797.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...agents import Agent, play
from ...credit import CoalitionGame, CreditRule, Shapley
from ...envs import Engine, Scenario, episode_metrics
from ...envs.observations.layout import ObservationLayout
from ...envs.randomness import fold
from ..evaluate import Estimate, defined
from .attribution import Attribution, attribute, rule_within
from .coalition_play import Background, FeatureGame, ProxyGame, features
from .masked_features import MaskedFeatures

EXACT_PROXIES = 10
"""Up to so many proxies all coalitions play; beyond, 20 coalitions a proxy."""
PER_FEATURE = 10
"""Coalitions of features for each feature, unless told otherwise."""
REFERENCES = 64
"""Cooperatives from whose observations the stand-ins for hidden features are drawn."""
ASKED_MORE = 4
"""How many times more stand-ins a policy is asked with than it plays with: there are no episodes over which their noise would average."""

Progress = Callable[[str, int, int], None]
"""Called with what is going on, how many coalitions are done, and how many there are to do, at most."""


@dataclass(frozen=True)
class ProxyWorth:
    """What proxies are worth, by rank: in each episode the proxy with most clean lots is the first, and so on.

    Attributes:
        worth: Of the ranks, for each of :data:`~proxycoop.training.analysis.coalition_play.TARGETS`.
        returns: What each rank was paid, costs taken off, double ``(E, N)``, in reward units.
        seats: Which seat has each rank, int64 ``(E, N)``.
        clean: Its clean lots, ``(E, N)``.
        kind: Which profile its principal holds, int64 ``(E, N)``; the number of profiles for none.
    """

    worth: Attribution
    returns: Tensor
    seats: Tensor
    clean: Tensor
    kind: Tensor

    @property
    def welfare(self) -> Tensor:
        """Each rank's worth in welfare, double ``(E, N)``."""
        return self.worth.values[0]

    @property
    def pearson(self) -> Estimate:
        """Correlation of pay with worth within episodes; undefined in those in which one of them is the same for all."""
        worth, paid = _centred(self.welfare), _centred(self.returns)
        norm = worth.norm(dim=1) * paid.norm(dim=1)
        known = torch.minimum(worth.norm(dim=1), paid.norm(dim=1)) > 1e-9
        return Estimate.of(torch.where(known, (worth * paid).sum(dim=1) / norm.clamp(min=1e-30), math.nan))

    @property
    def slope(self) -> Estimate:
        """By how much more a proxy is paid than others of its episode for a unit more of worth: least squares, with a jackknife over
        episodes (Efron & Tibshirani 1993) for the interval.
        """
        worth, paid = _centred(self.welfare), _centred(self.returns)
        product, square = (worth * paid).sum(dim=1), worth.square().sum(dim=1)
        if not square.sum() > 1e-12:
            return Estimate(None, None)
        spared = (product.sum() - product) / (square.sum() - square).clamp(min=1e-30)  # each episode left out
        n = len(spared)
        # the interval of a mean of numbers of this spread is the jackknife's
        pseudo = Estimate.of((n - 1) * (spared - spared.mean()))
        return Estimate(float(product.sum() / square.sum()), pseudo.half_width)

    def of_profile(self, kind: int, numbers: Tensor) -> Estimate:
        """Mean of numbers ``(E, N)`` over the holders of a profile, with an interval over the episodes in which there are any."""
        holds = self.kind == kind
        mean = torch.where(holds, numbers, 0.0).sum(dim=1) / holds.sum(dim=1)  # NaN where nobody holds it
        return Estimate.of(mean)


@dataclass(frozen=True)
class FeatureWorth:
    """What seeing each feature is worth, and what it does to the policy; see :func:`~proxycoop.training.analysis.coalition_play.features`.

    Attributes:
        outcomes: Worth of what is seen, for each of :data:`~proxycoop.training.analysis.coalition_play.TARGETS`.
        discrimination: How far what is seen raises the probability of contributing clean lots above that of corrupt ones; undefined in
            episodes that have none of a kind.
        influence: By how much each feature moves the probability of contributing a lot, up or down, as a mean over lots and situations.
        noise: What that would be, about, for a feature without influence, because coalitions were sampled.
        direction: Correlation of a feature with how far it moves the probability up; ``None`` where one of them does not vary.
        is_read: Whether the policy reads the feature at all. The values of those that it does not are 0.
        n_lots: Lots in situations on which behaviour was measured.
    """

    outcomes: Attribution
    discrimination: Attribution
    influence: tuple[Estimate, ...]
    noise: float
    direction: tuple[float | None, ...]
    is_read: tuple[bool, ...]
    n_lots: int


@dataclass(frozen=True)
class Explanation:
    """What was found about a policy.

    Attributes:
        scenario: The cooperative.
        seeds: Each episode's.
        clean_share: Share of the clean lots that were contributed.
        corrupt_share: Share of the corrupt ones.
        proxies: What proxies are worth.
        features: What seeing features is worth.
    """

    scenario: Scenario
    seeds: tuple[int, ...]
    clean_share: Estimate
    corrupt_share: Estimate
    proxies: ProxyWorth
    features: FeatureWorth


def explain(
    scenario: Scenario,
    agent: Callable[[], Agent],
    *,
    credit: CreditRule | str | None = "shapley",
    episodes: int = 16,
    seed: int = 0,
    budget: int | None = None,
    proxy_budget: int | None = None,
    draws: int = 4,
    progress: Progress | None = None,
) -> Explanation:
    """Play coalitions of proxies and coalitions of features, and divide what they are worth.

    Args:
        scenario: The cooperative.
        agent: Makes everybody's policy.
        credit: The credit rule; it matters to agents that look at their pay.
        episodes: Number of episodes, at least 2.
        seed: Seed of the first; the others follow by a step of one, and then the reference cooperatives.
        budget: Most coalitions of features; :data:`PER_FEATURE` a feature if not given.
        proxy_budget: Most coalitions of proxies; if not given, all of them up to :data:`EXACT_PROXIES` proxies, else 20 a proxy.
        draws: Stand-ins for hidden features over which probabilities are averaged in play; :data:`ASKED_MORE` times as many are drawn
            where the policy is only asked.
        progress: Called as coalitions are done.

    Raises:
        ValueError: If there are too few episodes, draws or coalitions, the agent sees more than it observes, or the agent or the rule does
            not fit the scenario.
    """
    n = scenario.principals
    layout = ObservationLayout.of(scenario)
    n_features = len(features(layout))
    budget = PER_FEATURE * n_features if budget is None else budget
    for argument, came, least in (("episodes", episodes, 2), ("draws", draws, 1), ("budget", budget, 2 * n_features - 1)):
        if came < least:
            raise ValueError(f"{argument}={came}: must be at least {least}" + f" for {n_features} features" * (argument == "budget"))
    proxy_rule = Shapley(20 * n if proxy_budget is None and n > EXACT_PROXIES else proxy_budget)
    proxy_rule.check(n)
    if agent().privileged:
        raise ValueError(
            f"{type(agent()).__name__} sees what no proxy could: only an agent that plays by its observations can be explained"
        )

    seeds = range(seed, seed + episodes)
    engine = Engine(scenario, credit, episodes)
    observations = _observed(engine, agent, seeds)
    assert engine.seeds is not None
    assert engine.profiles.kind is not None
    metrics, corrupt = episode_metrics(engine), engine.lots.corrupt
    seats = (~corrupt).sum(dim=-1).argsort(dim=1, descending=True, stable=True)
    counted = _counter("coalitions of proxies", proxy_rule.cost(n) + 1, progress)
    proxies = ProxyWorth(
        worth=attribute(
            ProxyGame(scenario, credit, seeds, counted, agent=agent, order=seats),
            tuple(f"rank {i + 1}" for i in range(n)),
            proxy_rule,
        ),
        returns=metrics["return"].double().gather(1, seats),
        seats=seats,
        clean=(~corrupt).sum(dim=-1).gather(1, seats),
        kind=engine.profiles.kind.gather(1, seats),
    )

    others = range(seeds.stop, seeds.stop + REFERENCES)
    background = Background(_observed(Engine(scenario, credit, REFERENCES), agent, others), layout)
    counted = _counter("what the policy looks at", 2 * n_features + 2 + budget, progress)
    keys = fold(engine.seeds, engine.episode)
    situations = MaskedFeatures(agent(), observations, keys, layout, background, ASKED_MORE * draws, counted)
    counted = _counter("coalitions of features", budget + 1, progress)
    played = FeatureGame(scenario, credit, seeds, counted, agent=agent, background=background, draws=draws)
    return Explanation(
        scenario=scenario,
        seeds=tuple(seeds),
        clean_share=Estimate.of(metrics["clean_share"]),
        corrupt_share=Estimate.of(metrics["corrupt_share"]),
        proxies=proxies,
        features=explain_features(situations, played, corrupt, budget),
    )


def explain_features(situations: MaskedFeatures, played: Callable[[Tensor], Tensor], corrupt: Tensor, budget: int) -> FeatureWorth:
    """What features are worth.

    Args:
        situations: Asks the policy.
        played: From coalitions of features, bool ``(m, n_features)``, to what they are worth in play, double ``(R, E, m)``.
        corrupt: Which lots are, bool ``(E, N, K)``.
        budget: Most coalitions, of those features that are read at all.
    """
    names = features(situations.layout)
    is_read = situations.is_read()
    read = is_read.nonzero()[:, 0] if is_read.any() else torch.tensor([0])  # a null player is as good as none, and saves a special case
    rule = rule_within(len(read), budget)

    def among_all(coalitions: Tensor) -> Tensor:
        """Coalitions of the features that are read, ``(m, n_read)``, as such of all: the others are seen, which makes no difference."""
        return torch.ones(len(coalitions), len(names), dtype=torch.bool).index_copy(1, read, coalitions)

    blind = situations(among_all(torch.zeros(1, len(read), dtype=torch.bool)))[0].double()  # (T', E, N, K)
    moves = CoalitionGame(lambda coalitions: (situations(among_all(coalitions)).double() - blind).flatten(1).T, len(read))

    def contrast(coalitions: Tensor) -> Tensor:
        """Mean probability of contributing clean lots above that of corrupt ones, ``(1, E, m)``."""
        probability = moves.value(coalitions).unflatten(0, blind.shape) + blind[..., None]  # (T', E, N, K, m)

        def mean_over(kind: Tensor) -> Tensor:
            count = len(blind) * kind.sum(dim=(1, 2))
            mean: Tensor = (probability * kind[..., None]).sum(dim=(0, 2, 3)) / count[:, None]
            return mean  # NaN where there are none

        return (mean_over(~corrupt) - mean_over(corrupt))[None]

    read_names = tuple(names[f] for f in read.tolist())
    outcomes = attribute(lambda coalitions: played(among_all(coalitions)), read_names, rule)
    discrimination = attribute(contrast, read_names, rule)
    found = rule.estimate(moves)  # of the coalitions that were asked about already
    move = torch.zeros(*blind.shape, len(names), dtype=torch.float64)
    move[..., read] = found.values.unflatten(0, blind.shape)
    of_episodes = move.abs().mean(dim=(0, 2, 3))  # (E, n_features)
    return FeatureWorth(
        outcomes=outcomes.among(names),
        discrimination=discrimination.among(names),
        influence=tuple(Estimate.of(column) for column in of_episodes.unbind(dim=1)),
        noise=float((2 / math.pi) ** 0.5 * found.standard_error.mean()),  # the mean of the absolute value of a normal number
        direction=tuple(defined(_correlations(situations.feature_values().flatten(0, 3).double(), move.flatten(0, 3)))),
        is_read=tuple(is_read.tolist()),
        n_lots=blind.numel(),
    )


def _observed(engine: Engine, agent: Callable[[], Agent], seeds: Sequence[int]) -> Tensor:
    """What everybody observes in an episode, ``(T, E, N, size)``."""
    observations: list[Tensor] = []
    play(engine, agent(), seeds, before_round=lambda engine: observations.append(engine.observations))
    return torch.stack(observations)


def _counter(stage: str, total: int, progress: Progress | None) -> Callable[[int], None]:
    """Counts the coalitions of a stage, and tells."""
    done = 0

    def count(n_coalitions: int) -> None:
        nonlocal done
        done += n_coalitions
        if progress is not None:
            progress(stage, done, total)

    return count


def _centred(numbers: Tensor) -> Tensor:
    """Numbers of each rank less the episode's mean, ``(E, N)``."""
    return numbers - numbers.mean(dim=1, keepdim=True)


def _correlations(a: Tensor, b: Tensor) -> Tensor:
    """Correlation of each column with the other's, ``(m, n)``, ``(m, n)`` → ``(n,)``; NaN where one of them does not vary."""
    a, b = a - a.mean(dim=0), b - b.mean(dim=0)
    norm = a.norm(dim=0) * b.norm(dim=0)
    varies = (a.abs().amax(dim=0) > 1e-6) & (b.abs().amax(dim=0) > 1e-6)
    return torch.where(varies, (a * b).sum(dim=0) / norm.clamp(min=1e-30), math.nan)
