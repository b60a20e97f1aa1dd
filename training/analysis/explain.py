r"""Explain what was learned: what each proxy's policy is worth to all, and which features of the observations the policy uses.

Both are Shapley values, :math:`\phi_i = \sum_{S \not\ni i} \frac{|S|!\,(n-|S|-1)!}{n!} [v(S \cup i) - v(S)]`, of games that are played:

* *Proxies.* v(S) is what an episode is worth when the proxies of S play the policy and the others contribute nothing. This follows
  Heuillet, Couthouis & Díaz-Rodríguez (2022), who estimate the values from sampled coalitions, and also let absent proxies act at random or
  as another agent does. Here all coalitions are played, with their true weights, up to :data:`EXACT_PROXIES` proxies; with more proxies the
  values are estimated, with standard errors. All coalitions play the same cooperatives with the same random numbers, so every episode has
  values of its own.
* *Features, outcomes.* v(C) is what an episode is worth when everybody's policy sees only the features of C, in all rounds.
* *Features, behaviour.* v(C) is the probability of contributing a lot when the policy sees only the features of C. It is asked in
  situations that occurred when it saw all features.

The last two follow Beechey, Smith & Şimşek (2023, 2025), who average the policy over the hidden features *given those that are seen*. Here
hidden features are drawn from what others observed in the same round, whatever is seen: a marginal expectation, not a conditional one. So a
feature that the policy ignores has no influence, even if it is informative about one that the policy reads. But the policy is also asked
about situations that never occur. A feature of lots is one player for all lots of a proxy together.

References:
    Shapley (1953), *A value for n-person games*, Contributions to the Theory of Games II.
    Heuillet, Couthouis & Díaz-Rodríguez (2022), *Collective explainable AI: explaining cooperative strategies and agent contribution in
    multiagent reinforcement learning with Shapley values*, IEEE Computational Intelligence Magazine 17(1).
    Beechey, Smith & Şimşek (2023), *Explaining reinforcement learning with Shapley values*, ICML; (2025), *A theoretical framework for
    explaining reinforcement learning with Shapley values*, arXiv 2505.07797.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...agents import Agent, play
from ...agents.seats import seated
from ...credit import CoalitionGame, CreditRule, Shapley
from ...envs import Engine, Scenario, episode_metrics
from ...envs.observations.layout import ObservationLayout
from ...envs.randomness import fold
from ..evaluate import Estimate, defined
from .attribution import Attribution, attribute, rule_within
from .coalition_play import Background, FeatureGame, ProxyGame, features
from .masked_features import MaskedFeatures
from .ranking import Ranking, rank

EXACT_PROXIES = 10
"""Largest number of proxies for which all coalitions play. With more, 20 coalitions per proxy do."""
PER_FEATURE = 10
"""Default budget: coalitions of features per feature."""
REFERENCES = 64
"""Number of cooperatives from whose observations hidden features are drawn."""
ASKED_MORE = 4
"""How many times more draws are used where a policy is only asked than where it plays: there, no episodes average out the noise."""

Progress = Callable[[str, int, int], None]
"""Called with the name of the stage, how many coalitions are done, and how many there are at most."""


@dataclass(frozen=True)
class ProxyWorth:
    """What proxies are worth, by rank: in each episode, rank 1 is the proxy with the most clean lots, and so on.

    Attributes:
        worth: Worth of the ranks, for each of :data:`~proxycoop.training.analysis.coalition_play.TARGETS`.
        returns: What each rank was paid, minus its costs, double ``(E, N)``, in reward units.
        seats: The seat of each rank, int64 ``(E, N)``.
        clean: Number of its clean lots, ``(E, N)``.
        kind: Index of the profile that its principal holds, int64 ``(E, N)``; the number of profiles if it holds none.
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
        """Correlation of pay with worth within episodes; undefined in episodes in which pay or worth is the same for all."""
        worth, paid = _centred(self.welfare), _centred(self.returns)
        norm = worth.norm(dim=1) * paid.norm(dim=1)
        known = torch.minimum(worth.norm(dim=1), paid.norm(dim=1)) > 1e-9
        return Estimate.of(torch.where(known, (worth * paid).sum(dim=1) / norm.clamp(min=1e-30), math.nan))

    @property
    def slope(self) -> Estimate:
        """How much more a proxy is paid than others of its episode for each additional unit of worth. Estimated by least squares, with an
        interval from a jackknife over episodes (Efron & Tibshirani 1993).
        """
        worth, paid = _centred(self.welfare), _centred(self.returns)
        product, square = (worth * paid).sum(dim=1), worth.square().sum(dim=1)
        if not square.sum() > 1e-12:
            return Estimate(None, None)
        spared = (product.sum() - product) / (square.sum() - square).clamp(min=1e-30)  # each episode left out
        n = len(spared)
        # the jackknife's interval is that of the mean of these numbers
        pseudo = Estimate.of((n - 1) * (spared - spared.mean()))
        return Estimate(float(product.sum() / square.sum()), pseudo.half_width)

    def of_profile(self, kind: int, numbers: Tensor) -> Estimate:
        """Mean of numbers ``(E, N)`` over the holders of a profile, with an interval over the episodes that have holders."""
        holds = self.kind == kind
        mean = torch.where(holds, numbers, 0.0).sum(dim=1) / holds.sum(dim=1)  # NaN where nobody holds it
        return Estimate.of(mean)


@dataclass(frozen=True)
class FeatureWorth:
    """What seeing each feature is worth, and how it changes the policy; see :func:`~proxycoop.training.analysis.coalition_play.features`.

    Attributes:
        outcomes: Worth of seeing the features, for each of :data:`~proxycoop.training.analysis.coalition_play.TARGETS`.
        discrimination: How far seeing a feature raises the probability of contributing clean lots above that of corrupt lots; undefined in
            episodes without clean or without corrupt lots.
        influence: By how much each feature moves the probability of contributing a lot, up or down: a mean over lots and situations.
        noise: About what the influence of a feature without influence would appear to be, because coalitions were sampled.
        direction: Correlation of a feature with its change of the probability; ``None`` if one of them does not vary.
        is_read: Whether the policy reads the feature at all. If it does not, the feature's values are 0.
        n_lots: Number of lots, over all situations, on which behaviour was measured.
    """

    outcomes: Attribution
    discrimination: Attribution
    influence: tuple[Estimate, ...]
    noise: float
    direction: tuple[float | None, ...]
    is_read: tuple[bool, ...]
    n_lots: int

    def ranked(self, estimates: Sequence[Estimate]) -> Ranking:
        """The features that the policy reads, ranked by estimates of theirs. Tables, figures and sentences show them in this order."""
        return rank([one if is_read else Estimate(None, None) for one, is_read in zip(estimates, self.is_read, strict=True)])


@dataclass(frozen=True)
class Explanation:
    """An explanation of a policy.

    Attributes:
        scenario: The cooperative.
        seeds: The seed of each episode.
        clean_share: Share of the clean lots that were contributed.
        corrupt_share: Share of the corrupt lots that were contributed.
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
    seats: Mapping[int, str] | None = None,
    episodes: int = 16,
    seed: int = 0,
    budget: int | None = None,
    proxy_budget: int | None = None,
    draws: int = 4,
    progress: Progress | None = None,
) -> Explanation:
    """Play coalitions of proxies and coalitions of features, and compute Shapley values of what they are worth.

    Args:
        scenario: The cooperative.
        agent: Makes everybody's policy.
        credit: The credit rule. It matters to agents that observe their pay.
        seats: Names of agents that play some of the seats instead of the policy. They are players among the proxies. What is said about
            features is about the policy, in the other seats.
        episodes: Number of episodes, at least 2.
        seed: Seed of the first episode. The others follow by a step of one, and then those of the reference cooperatives.
        budget: Most coalitions of features. By default :data:`PER_FEATURE` per feature.
        proxy_budget: Most coalitions of proxies. By default all of them up to :data:`EXACT_PROXIES` proxies, and 20 per proxy with more.
        draws: Draws of the hidden features over which probabilities are averaged in play. Where the policy is only asked,
            :data:`ASKED_MORE` times as many are drawn.
        progress: Called as coalitions are done.

    Raises:
        ValueError: If there are too few episodes, draws or coalitions, the agent is privileged (it sees more than a proxy observes), or the
            agent or the rule does not fit the scenario.
    """
    scenario.require_everybody("an explanation by coalitions of proxies")
    n = scenario.n_agents
    layout = ObservationLayout.of(scenario)
    n_features = len(features(layout))
    budget = PER_FEATURE * n_features if budget is None else budget
    for argument, came, least in (("episodes", episodes, 2), ("draws", draws, 1), ("budget", budget, 2 * n_features - 1)):
        if came < least:
            raise ValueError(f"{argument}={came}: must be at least {least}" + f" for {n_features} features" * (argument == "budget"))
    proxy_rule = Shapley(20 * n if proxy_budget is None and n > EXACT_PROXIES else proxy_budget)
    proxy_rule.check(n)
    if agent().privileged:
        raise ValueError(f"{type(agent()).__name__} sees what no proxy could: choose an agent that plays by its observations")

    others = dict(scenario.company if seats is None else seats)
    asked = [seat for seat in range(n) if seat not in others]  # the policy's seats
    if not asked:
        raise ValueError(f"seats={others}: all {n} seats are taken, and none is left to the policy")

    def everyone() -> Agent:
        return seated(agent(), others)

    seeds = range(seed, seed + episodes)
    engine = Engine(scenario, credit, episodes)
    observations = _observed(engine, everyone, seeds)[:, :, asked]
    assert engine.seeds is not None
    assert engine.profiles.kind is not None
    metrics, clean, corrupt = episode_metrics(engine), engine.lots.clean, engine.lots.corrupt
    order = clean.sum(dim=-1).argsort(dim=1, descending=True, stable=True)
    counted = _counter("coalitions of proxies", proxy_rule.cost(n) + 1, progress)
    proxies = ProxyWorth(
        worth=attribute(
            ProxyGame(scenario, credit, seeds, counted, agent=everyone, order=order),
            tuple(f"rank {i + 1}" for i in range(n)),
            proxy_rule,
        ),
        returns=metrics["return"].double().gather(1, order),
        seats=order,
        clean=clean.sum(dim=-1).gather(1, order),
        kind=engine.profiles.kind.gather(1, order),
    )

    elsewhere = range(seeds.stop, seeds.stop + REFERENCES)
    background = Background(_observed(Engine(scenario, credit, REFERENCES), everyone, elsewhere)[:, :, asked], layout)
    counted = _counter("what the policy looks at", 2 * n_features + 2 + budget, progress)
    keys = fold(engine.seeds, engine.episode)
    situations = MaskedFeatures(agent(), observations, keys, layout, background, ASKED_MORE * draws, counted)
    counted = _counter("coalitions of features", budget + 1, progress)
    played = FeatureGame(scenario, credit, seeds, counted, agent=agent, seats=others, background=background, draws=draws)
    return Explanation(
        scenario=scenario,
        seeds=tuple(seeds),
        clean_share=Estimate.of(metrics["clean_share"]),
        corrupt_share=Estimate.of(metrics["corrupt_share"]),
        proxies=proxies,
        features=explain_features(situations, played, corrupt[:, asked], budget, clean=clean[:, asked]),
    )


def explain_features(
    situations: MaskedFeatures, played: Callable[[Tensor], Tensor], corrupt: Tensor, budget: int, *, clean: Tensor | None = None
) -> FeatureWorth:
    """What features are worth.

    Args:
        situations: Asks the policy what it would do.
        played: The game in play: from coalitions of features, bool ``(m, n_features)``, to their worth, double ``(R, E, m)``.
        corrupt: Which lots are corrupt, bool ``(E, N, K)``.
        budget: Most coalitions of the features that the policy reads.
        clean: Which lots are clean, bool ``(E, N, K)``; by default all that are not corrupt.
    """
    clean = ~corrupt if clean is None else clean
    names = features(situations.layout)
    is_read = situations.is_read()
    read = is_read.nonzero()[:, 0] if is_read.any() else torch.tensor([0])  # if none is read, one null player saves a special case
    rule = rule_within(len(read), budget)

    def among_all(coalitions: Tensor) -> Tensor:
        """Coalitions of the features that are read, ``(m, n_read)``, as coalitions of all features. The others count as seen."""
        return torch.ones(len(coalitions), len(names), dtype=torch.bool).index_copy(1, read, coalitions)

    blind = situations(among_all(torch.zeros(1, len(read), dtype=torch.bool)))[0].double()  # (T', E, N, K)
    moves = CoalitionGame(lambda coalitions: (situations(among_all(coalitions)).double() - blind).flatten(1).T, len(read))

    def contrast(coalitions: Tensor) -> Tensor:
        """Mean probability of contributing clean lots above that of corrupt ones, ``(1, E, m)``."""
        probability = moves.value(coalitions).unflatten(0, blind.shape) + blind[..., None]  # (T', E, N, K, m)

        def mean_over(kind: Tensor) -> Tensor:
            count = len(blind) * kind.sum(dim=(1, 2))
            mean: Tensor = (probability[..., : kind.shape[-1], :] * kind[..., None]).sum(dim=(0, 2, 3)) / count[:, None]
            return mean  # NaN where there are none

        return (mean_over(clean) - mean_over(corrupt))[None]

    read_names = tuple(names[f] for f in read.tolist())
    outcomes = attribute(lambda coalitions: played(among_all(coalitions)), read_names, rule)
    discrimination = attribute(contrast, read_names, rule)
    found = rule.estimate(moves)  # the policy has been asked about these coalitions already
    move = torch.zeros(*blind.shape, len(names), dtype=torch.float64)
    move[..., read] = found.values.unflatten(0, blind.shape)
    of_episodes = move.abs().mean(dim=(0, 2, 3))  # (E, n_features)
    return FeatureWorth(
        outcomes=outcomes.among(names),
        discrimination=discrimination.among(names),
        influence=tuple(Estimate.of(column) for column in of_episodes.unbind(dim=1)),
        noise=float((2 / math.pi) ** 0.5 * found.standard_error.mean()),  # the mean absolute value of a normal variable
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
    """A function that counts the coalitions of a stage and reports progress."""
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
    """Correlation of each column of a with the same column of b, ``(m, n)``, ``(m, n)`` → ``(n,)``; NaN where one does not vary."""
    a, b = a - a.mean(dim=0), b - b.mean(dim=0)
    norm = a.norm(dim=0) * b.norm(dim=0)
    varies = (a.abs().amax(dim=0) > 1e-6) & (b.abs().amax(dim=0) > 1e-6)
    return torch.where(varies, (a * b).sum(dim=0) / norm.clamp(min=1e-30), math.nan)
