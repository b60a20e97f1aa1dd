"""How close every credit rule comes to the exact Shapley value on real rounds, and published facts about rules, reproduced.

**Fidelity.** In every scenario the same episodes (half of the lots contributed at random, 32 seeds) are paid by every rule that serves the
scenario. Pearson, Spearman and cosine compare a rule's credit with the exact Shapley value, over the agents of one round or over the
episode's totals; then they are averaged. If either pays all agents the same in a round, there is no correlation, and the round is left out.
Evaluations are the coalitions and sets of lots that are valued per round. Microseconds are the rule's CPU time per round and environment,
in a batch of 32, on one thread.

**Errors at budgets.** These cooperatives have five or six agents, so that 63 coalitions are all there are. What a budget costs in precision
is therefore measured with twelve agents in the same scenarios, where the value is known from all 4,095 coalitions. Every fourth round of
eight episodes is valued by every rule that takes a ``budget``, at 2, 5, 10 and 20 evaluations an agent; other arguments are the defaults.
The error in a round is ‖φ̂ − φ‖ / ‖φ‖, where φ is the exact value that the rule estimates: the Shapley or Banzhaf value, or what the rule
pays with a budget of all coalitions. Shown is the median over rounds, averaged over the scenarios with fixed weights, and over those with
participants' weights. ``shapley`` uses the round's surrogate; ``shapley(surrogate=False)`` stands beside it. The players of
``data_shapley`` are lots, most often 48, too many to enumerate: the mean over a hundred orders of all lots stands in for the value.

**Facts.**

- Identical clients that take part in different rounds differ under FedSV and agree better under ComFedSV (Fan et al. 2022).
- The shares of BitTensor's cabal (Rao et al. 2020).
- The cumulation rule tends to the Shapley value as β grows (Chen et al. 2025, *Incentivizing time-aware fairness in data sharing*,
  arXiv 2510.09240).
- What replication gains under Shapley, Banzhaf and leave-one-out (Han et al. 2022).
- Noisy lots are found better by Data Shapley than by leave-one-out (Ghorbani & Zou 2019).
- In-Run Data Shapley of second order is exact on a quadratic utility (Wang et al. 2025).

**A second name.** What a principal gains by dealing its lots out to two names, and by offering the same lots under two names, over the
cooperative without the second name: while everybody contributes what the agent ``oracle`` does, so that rules alone differ.

Run: ``python benchmarks/credit/fidelity.py [--only fidelity|facts|names] [--seeds 32] [--markdown FILE]``; six minutes on two cores.
The tables of the scenarios are printed. With ``--markdown`` the mean over scenarios, the facts and the gains by a second name are written
too.
"""

from __future__ import annotations

import argparse
import inspect
import math
import multiprocessing
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score
from torch import Tensor
from tqdm import tqdm

from proxycoop import agents, credit
from proxycoop.credit import CreditRule, Round, games, peer_incentives, shapley_values
from proxycoop.credit.rounds.peer_ranking import next_stakes
from proxycoop.credit.rule import Family
from proxycoop.envs import Engine, scenario
from proxycoop.files import write_text
from proxycoop.training.analysis.summary import spell
from proxycoop.training.evaluate import Estimate
from proxycoop.training.false_names import second_name_gains

Floats = NDArray[np.float64]

FAMILIES = get_args(Family)
SCENARIOS = [name for name in scenario.names() if scenario.load(name).participation is None]
"""Those in which all agents take part in every round, so that the exact value is known."""
FIRST_SEED = 2000
AGENTS = 12
"""Agents of the cooperatives in which errors at budgets are measured."""
LARGER: dict[str, dict[str, object]] = {
    "breast_cancer-vertical": {"lots.per_principal": 2},  # there are columns for 24 lots, not for 36
    "giant": {"lots.rows": [120] + [8] * (AGENTS - 1)},  # the large one still has more than half of all rows
}
"""What scenarios need beside ``principals`` to have so many agents."""
BUDGETS = (2, 5, 10, 20)
"""Evaluations an agent."""
WEIGHTS = {"fixed": "fixed weights", "participants": "participants' weights"}
"""What the weights of agents are; with fixed ones a round is nearly quadratic in who takes part."""
BESIDE = ("shapley(surrogate=False)",)
"""Rules of which only these errors are shown."""
EPISODES, EVERY = 8, 4
"""Episodes a scenario, and which of their rounds are valued."""
ORDERS = 100
"""Orders of all lots that stand in for the value among lots."""
SECOND_NAMES_IN = ("breast_cancer", "digits-mean")
SECOND_NAMES_UNDER = ("equal", "data_size", "standalone", "loo", "shapley", "banzhaf", "in_run", "cgsv", "shapfed", "peer_ranking")


# fidelity on real rounds


class Timed(CreditRule):
    """A rule, and how long it takes."""

    def __init__(self, rule: CreditRule) -> None:
        self.rule = rule
        self.needs = rule.needs
        self.seconds = 0.0

    def reset(self, num_envs: int, num_agents: int) -> None:
        """Begin episodes."""
        self.rule.reset(num_envs, num_agents)

    def check(self, n_players: int) -> None:
        """As the rule does."""
        self.rule.check(n_players)

    def assign(self, round: Round) -> Tensor:
        """What the rule pays."""
        begin = time.process_time()
        paid = self.rule.assign(round)
        self.seconds += time.process_time() - begin
        return paid


@dataclass(frozen=True)
class Fidelity:
    """How one rule does in one scenario; means, NaN where nothing is defined."""

    rule: str
    scenario: str
    round: tuple[float, float, float]  # Pearson, Spearman, cosine
    episode: tuple[float, float, float]
    evaluations: float
    microseconds: float
    errors: dict[str, tuple[float, ...]] = field(default_factory=dict)  # by weights, one for each of BUDGETS; NaN where that is too small


def paid_by(rule: CreditRule, name: str, seeds: Sequence[int]) -> tuple[Tensor, float]:
    """What a rule pays in whole episodes, ``(T, E, N)``, and the mean number of evaluations a round."""
    engine = Engine(scenario.load(name, **{"reward.scale": 1.0}), rule, num_envs=len(seeds))
    engine.reset(seeds)
    generator = torch.Generator().manual_seed(FIRST_SEED)
    shape = (len(seeds), engine.num_agents, engine.num_lots)
    results = [engine.step(torch.rand(shape, generator=generator) < 0.5) for _ in range(engine.horizon)]
    return torch.stack([result.credit for result in results]), float(np.mean([result.evaluations for result in results]))


def measure(name: str, seeds: Sequence[int]) -> list[Fidelity]:
    """Every rule that serves a scenario."""
    torch.set_num_threads(1)
    exact = paid_by(credit.make("shapley"), name, seeds)[0].double().numpy()
    found = []
    for rule in sorted(credit.RULES, key=_place):
        timed = Timed(credit.make(rule))
        try:
            Engine(scenario.load(name, **{"reward.scale": 1.0}), timed)
        except ValueError:
            continue  # it needs what this cooperative has not
        paid, evaluations = paid_by(timed, name, seeds)
        amounts = paid.double().numpy()
        found.append(
            Fidelity(
                rule,
                name,
                likeness(amounts, exact),
                likeness(amounts.sum(axis=0), exact.sum(axis=0)),
                evaluations,
                1e6 * timed.seconds / (len(paid) * len(seeds)),
            )
        )
    return found


def _place(rule: str) -> tuple[int, str]:
    """Where a rule stands in the tables: by family and name."""
    return FAMILIES.index(credit.make(rule).family), rule


def likeness(a: Floats, b: Floats) -> tuple[float, float, float]:
    """Mean Pearson, Spearman and cosine over rows of agents, ``(..., N)``."""

    def pearson(a: Floats, b: Floats) -> float:
        return cosine(a - a.mean(axis=-1, keepdims=True), b - b.mean(axis=-1, keepdims=True))

    def cosine(a: Floats, b: Floats) -> float:
        size = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
        floor = 1e-12 * np.linalg.norm(b, axis=-1).max() ** 2  # what is alike but for rounding
        there = size > floor
        return float(((a * b).sum(axis=-1)[there] / size[there]).mean()) if there.any() else math.nan

    def ranks(a: Floats) -> Floats:
        """Mean ranks of what is alike to four digits of the row's largest, so that rounding ranks nobody."""
        largest = np.abs(a).max(axis=-1, keepdims=True)
        ranked: Floats = rankdata(np.round(a / np.where(largest > 0, largest, 1.0), 4), axis=-1)
        return ranked

    return pearson(a, b), pearson(ranks(a), ranks(b)), cosine(a, b)


# errors at budgets


def takes_budget(rule: str) -> bool:
    """Whether a rule is told how many evaluations a round may take."""
    return "budget" in inspect.signature(credit.RULES[rule.partition("(")[0]]).parameters


def larger(name: str) -> scenario.Scenario:
    """The scenario with so many agents that budgets matter."""
    return scenario.load(name, **{"principals": AGENTS, "reward.scale": 1.0, **LARGER.get(name, {})})


def errors_at_budgets(name: str, seeds: Sequence[int]) -> dict[str, tuple[float, ...]]:
    """Median relative L2 error at each of the :data:`BUDGETS` of every rule that takes one and serves a scenario.

    Args:
        name: The scenario.
        seeds: Of the episodes.

    Returns:
        By rule, an error for each budget; NaN where the budget is below the rule's least.
    """
    torch.set_num_threads(1)
    engine = Engine(larger(name), None, num_envs=len(seeds), dtype=torch.float64)
    engine.reset(seeds)
    n, draws = engine.num_agents, SCENARIOS.index(name)  # scenarios share no draws of coalitions
    estimates: dict[str, list[CreditRule | None]] = {}
    values: dict[str, CreditRule] = {}
    for rule in (*filter(takes_budget, credit.RULES), *BESIDE):
        try:
            Engine(engine.scenario, rule)
        except ValueError:
            continue  # it needs what this cooperative has not
        values[rule] = estimated_value(rule, n, engine.num_lots, draws)
        estimates[rule] = [within(rule, times * n, n, engine.num_lots, draws) for times in BUDGETS]
    for made in (*values.values(), *(one for row in estimates.values() for one in row if one is not None)):
        made.reset(len(seeds), n)
    errors: dict[str, list[list[float]]] = {rule: [[] for _ in BUDGETS] for rule in estimates}
    generator = torch.Generator().manual_seed(FIRST_SEED)
    for t in range(engine.horizon):
        engine.step(torch.rand(len(seeds), n, engine.num_lots, generator=generator) < 0.5)
        if t % EVERY:
            continue
        for rule, row in estimates.items():
            value = values[rule].assign(engine.round)
            for known, one in zip(errors[rule], row, strict=True):
                if one is not None:
                    known += relative_error(one.assign(engine.round), value)
    return {rule: tuple(float(np.median(known)) if known else math.nan for known in row) for rule, row in errors.items()}


def within(rule: str, budget: int, n_agents: int, n_lots: int, seed: int) -> CreditRule | None:
    """A rule with a budget; ``None`` if that is too small for so many agents, of so many lots each."""
    made = credit.make(rule, budget=budget, seed=seed)
    try:
        made.check(n_agents * n_lots if "lots" in made.needs else n_agents)
    except ValueError:
        return None
    return made


def estimated_value(rule: str, n_agents: int, n_lots: int, seed: int) -> CreditRule:
    """The rule that pays exactly what a rule with a budget estimates."""
    made = credit.make(rule)
    if isinstance(made, credit.Estimator):
        return credit.make(made.target)
    if "lots" in made.needs:  # from orders of its own: the estimate's first ones would be like the estimate
        return credit.make("data_shapley", budget=ORDERS * n_agents * n_lots, seed=seed + len(SCENARIOS), tolerance=0.0)
    return credit.make(rule, budget=2**n_agents, seed=seed)


def relative_error(estimate: Tensor, value: Tensor) -> list[float]:
    """‖φ̂ − φ‖ / ‖φ‖ of every environment's round in which somebody is worth something; both are ``(E, N)``."""
    size = value.norm(dim=1)
    error: list[float] = ((estimate - value).norm(dim=1) / size)[size > 0].tolist()
    return error


def with_errors(found: Sequence[Fidelity], name: str, errors: dict[str, tuple[float, ...]]) -> list[Fidelity]:
    """A scenario's rows with their errors at budgets, and a row for each rule of which nothing else is shown."""
    nothing = (math.nan, math.nan, math.nan)
    rows = [*found, *(Fidelity(rule, name, nothing, nothing, math.nan, math.nan) for rule in BESIDE if rule in errors)]
    weights = scenario.load(name).weights
    rows = [replace(one, errors={weights: errors[one.rule]}) if one.rule in errors else one for one in rows]
    return sorted(rows, key=lambda one: _place(one.rule))


# the tables


def mean_over_scenarios(found: Sequence[Fidelity]) -> list[Fidelity]:
    """One row a rule: the mean over the scenarios that it serves; of an error, NaN if the budget is too small in one of them."""
    by_rule: dict[str, list[Fidelity]] = {}
    for one in sorted(found, key=lambda one: _place(one.rule)):
        by_rule.setdefault(one.rule, []).append(one)

    def mean(numbers: Sequence[float]) -> float:
        there = [number for number in numbers if not math.isnan(number)]
        return sum(there) / len(there) if there else math.nan

    return [
        Fidelity(
            rule,
            f"{len(rows)} scenarios",
            (mean([row.round[0] for row in rows]), mean([row.round[1] for row in rows]), mean([row.round[2] for row in rows])),
            (mean([row.episode[0] for row in rows]), mean([row.episode[1] for row in rows]), mean([row.episode[2] for row in rows])),
            mean([row.evaluations for row in rows]),
            mean([row.microseconds for row in rows]),
            {
                weights: tuple(
                    sum(at) / len(at) for at in zip(*(row.errors[weights] for row in rows if weights in row.errors), strict=True)
                )
                for weights in WEIGHTS
            },
        )
        for rule, rows in by_rule.items()
    ]


def fidelity_table(found: Sequence[Fidelity]) -> str:
    """The rows as Markdown."""
    budgets = " / ".join(f"{times} N" for times in BUDGETS)
    heads = ["Pearson, round", "Spearman", "cosine", "Pearson, episode", "Spearman", "cosine", "evaluations", "µs"]
    heads += [f"error at {budgets}, {name}" for name in WEIGHTS.values()]
    lines, family = [f"| rule | {' | '.join(heads)} |", "|---|" + "---:|" * len(heads)], None
    for one in found:
        if family != (family := credit.make(one.rule).family):
            lines.append(f"| **{family}** |" + " |" * len(heads))
        cells = ["–" if math.isnan(number) else f"{number:.3f}".replace("-", "−") for number in (*one.round, *one.episode)]
        cells += [f"{one.evaluations:.0f}", f"{one.microseconds:.0f}"]
        if one.rule in BESIDE:
            cells = [""] * len(cells)
        errors = [" / ".join(map(_digits, one.errors.get(weights, ()))) for weights in WEIGHTS]
        lines.append("| " + " | ".join([f"`{one.rule}`", *cells, *errors]) + " |")
    return "\n".join(lines) + "\n"


def _digits(error: float) -> str:
    """Two digits that count."""
    if math.isnan(error):
        return "–"
    return f"{error:#.2g}".rstrip(".") if error >= 1e-4 else "<0.0001"


# published facts


def participation(n_runs: int = 50) -> dict[str, Floats]:
    r"""Relative difference of the totals of two identical clients, \\|a − b\\| / max(\\|a\\|, \\|b\\|), by rule, one number a run.

    Seat 1 holds copies of seat 0's lots. Everybody takes part in the first round, and then a random half of the agents in each.
    """
    made = scenario.load(
        "digits", **{"lots.corruption.share": 0, "screening.governance": "none", "weights": "participants", "reward.scale": 1.0}
    )
    engine = Engine(made, None, num_envs=n_runs, dtype=torch.float64)
    engine.reset(range(n_runs), copies={1: 0})
    rules = {name: credit.make(name) for name in ("fedsv", "comfedsv")}
    totals = {name: torch.zeros(n_runs, engine.num_agents, dtype=torch.float64) for name in rules}
    for rule in rules.values():
        rule.reset(n_runs, engine.num_agents)
    generator = torch.Generator().manual_seed(FIRST_SEED)
    for t in range(engine.horizon):
        rank = torch.rand(n_runs, engine.num_agents, generator=generator).argsort(dim=1).argsort(dim=1)
        part = (rank < engine.num_agents // 2) | (t == 0)
        engine.step(part[..., None].expand(-1, -1, engine.num_lots))
        for name, rule in rules.items():
            totals[name] += rule.assign(engine.round)
    return {name: _relative_difference(total[:, 0], total[:, 1]) for name, total in totals.items()}


def _relative_difference(a: Tensor, b: Tensor) -> Floats:
    difference: Floats = ((a - b).abs() / torch.maximum(a.abs(), b.abs())).numpy()
    return difference


def cabal(n_rounds: int = 5) -> list[float]:
    """The cabal's share of all stake after each round: 49 % at first, τ = .1; both sides rank only themselves."""
    stakes, shares = torch.tensor([0.51, 0.49], dtype=torch.float64), []
    for _ in range(n_rounds):
        incentive = peer_incentives(torch.eye(2, dtype=torch.float64), stakes)[2]
        stakes = next_stakes(stakes, incentive, tau=0.1)
        shares.append(float(stakes[1]))
    return shares


def cumulation(betas: Sequence[float], n_games: int = 50) -> list[float]:
    """Mean relative distance of the cumulation rule from the Shapley value in superadditive games that 6 players join in turn."""
    distances = []
    for beta in betas:
        off = []
        for seed in range(n_games):
            v = games.random_game("unanimity_sum", 6, seed).game().values()
            v = _from_dividends(credit.dividends(v).clamp(min=0))
            rule = credit.make("cumulation", beta=beta)
            rule.reset(1, 6)
            for t in range(6):
                the_round = credit.game_round(credit.table_game(v), t=t)
                the_round.contributed = (torch.arange(6) <= t)[None, :, None]
                paid = rule.assign(the_round)
            exact = shapley_values(v)
            off.append(float((paid - exact).norm() / exact.norm()))
        distances.append(sum(off) / n_games)
    return distances


def _from_dividends(d: Tensor) -> Tensor:
    """v(S), the sum of the dividends of all parts of S."""
    v = d.clone()
    for i in range(v.shape[-1].bit_length() - 1):
        with_i = v.view(len(v), -1, 2, 2**i)
        with_i[:, :, 1] += with_i[:, :, 0]
    return v


def replication(copies: int = 5, n_seeds: int = 20) -> tuple[dict[str, list[float]], float]:
    """What a player and its copies earn over what it earns alone, for 1 … ``copies`` copies, by rule; and v({i}) over its Shapley value.

    Rounds of ``digits-mean`` in which all clean lots are contributed; every player with a positive value is replicated in turn. A
    coalition with any of the copies is worth what it is with the player: copies add nothing but themselves. Totals over players.
    """
    engine = Engine(scenario.load("digits-mean", **{"reward.scale": 1.0}), None, num_envs=n_seeds, dtype=torch.float64)
    engine.reset(range(n_seeds))
    engine.step(~engine.lots.corrupt)
    v, n = engine.round.game.values(), engine.num_agents
    rules = {name: credit.make(name) for name in ("shapley", "banzhaf", "loo")}
    totals = {name: [0.0] * (copies + 1) for name in rules}
    alone = 0.0
    chosen = [(e, i) for e, i in (shapley_values(v) > 0).nonzero().tolist()]
    for k in range(copies + 1):
        codes = torch.arange(2 ** (n + k))
        any_copy = (codes >> n).bool()
        for i in range(n):
            base = codes & (2**n - 1) | (any_copy * 2**i)
            envs = [e for e, j in chosen if j == i]
            for name, rule in rules.items():
                assert isinstance(rule, credit.GameRule)
                paid = rule.values(credit.table_game(v[envs][:, base]))
                totals[name][k] += float(paid[:, [i, *range(n, n + k)]].sum())
            alone += float(v[envs, 2**i].sum()) if k == 0 else 0.0
    gains = {name: [total[k] / total[0] for k in range(1, copies + 1)] for name, total in totals.items()}
    return gains, alone / totals["shapley"][0]


def noisy_lots(name: str, n_seeds: int = 50) -> dict[str, Floats]:
    """AUROC of finding the mislabelled lots by what they earn in an episode in which all are contributed and none screened."""
    made = scenario.load(name, **{"screening.governance": "none", "reward.scale": 1.0})
    engine = Engine(made, "data_shapley", num_envs=n_seeds)
    engine.reset(range(n_seeds))
    n_lots = engine.num_agents * engine.num_lots
    everything = torch.ones(1, n_lots, dtype=torch.bool)
    earned = {rule: torch.zeros(n_seeds, n_lots) for rule in ("data_shapley", "loo")}
    for _ in range(engine.horizon):
        result = engine.step(torch.ones(n_seeds, engine.num_agents, engine.num_lots))
        assert result.lot_credit is not None
        earned["data_shapley"] += result.lot_credit.flatten(1)
        v = engine.round.lots.among(result.admitted).value(torch.cat([everything, ~torch.eye(n_lots, dtype=torch.bool)]))
        earned["loo"] += v[:, :1] - v[:, 1:]
    noisy = engine.lots.corrupt.flatten(1).numpy()
    return {
        rule: np.array([roc_auc_score(noisy[e], -amounts[e].numpy()) for e in range(n_seeds)], dtype=np.float64)
        for rule, amounts in earned.items()
    }


def quadratic(n_rounds: int = 100) -> float:
    """Largest difference of second-order In-Run Data Shapley from the exact value on quadratic utilities, relative to the largest."""
    generator = torch.Generator().manual_seed(FIRST_SEED)
    updates = torch.randn(n_rounds, 8, 5, generator=generator, dtype=torch.float64)
    the_round = credit.learning_round(updates, torch.randn(n_rounds, 5, generator=generator, dtype=torch.float64))
    exact = credit.make("shapley").assign(the_round)
    return float((credit.make("in_run").assign(the_round) - exact).abs().max() / exact.abs().max())


def _interval(sample: Floats) -> str:
    """Mean and half-width of a 95 % interval."""
    return f"{sample.mean():.3f} ± {1.96 * sample.std(ddof=1) / len(sample) ** 0.5:.3f}".replace("-", "−")


def facts() -> str:
    """All published facts as Markdown, each with what was published."""
    torch.set_num_threads(1)
    lines = ["| published | here |", "|---|---|"]
    differences = participation()
    quartiles = {rule: " / ".join(f"{q:.3f}" for q in np.quantile(sample, [0.25, 0.5, 0.75])) for rule, sample in differences.items()}
    lines.append(
        "| Identical clients that take part in different rounds differ under FedSV, and agree better under ComFedSV (Fan et al. 2022) | "
        f"relative difference, quartiles over 50 runs: `fedsv` {quartiles['fedsv']}, `comfedsv` {quartiles['comfedsv']} |"
    )
    lines.append(
        "| A cabal with 49 % of the stake falls to .4877 .4850 .4816 .4774 .4723 (BitTensor) | "
        + " ".join(f"{share:.4f}".removeprefix("0") for share in cabal())
        + " |"
    )
    betas = (1.0, 2.0, 10.0, 100.0, 1000.0)
    lines.append(
        "| Cumulation tends to the Shapley value as β grows (Chen et al. 2025, *Incentivizing time-aware fairness in data sharing*, "
        "arXiv 2510.09240) | relative distance for β = "
        + ", ".join(f"{beta:g}" for beta in betas)
        + ": "
        + ", ".join(f"{distance:.2g}" for distance in cumulation(betas))
        + " |"
    )
    gains, limit = replication()
    lines.append(
        "| Copies raise a player's Shapley value towards v({i}); Banzhaf is neutral to one copy and then falls; leave-one-out drops to 0 "
        "(Han et al. 2022) | total over the player alone, 1 to 5 copies: "
        + "; ".join(f"`{rule}` {' '.join(f'{abs(gain):.2f}' for gain in gain_of)}" for rule, gain_of in gains.items())
        + f"; v({{i}}) is {limit:.2f} |"
    )
    for name in ("digits", "digits-mean", "breast_cancer"):
        found = noisy_lots(name)
        lines.append(
            f"| Noisy data is found better by Data Shapley than by leave-one-out (Ghorbani & Zou 2019), `{name}` | AUROC over lots, 50 "
            f"seeds: `data_shapley` {_interval(found['data_shapley'])}, leave-one-lot-out {_interval(found['loo'])}, difference "
            f"{_interval(found['data_shapley'] - found['loo'])} |"
        )
    lines.append(
        "| Second-order In-Run Data Shapley is the exact value on a quadratic utility (Wang et al. 2025) | largest relative difference in "
        f"100 rounds {quadratic():.1g} |"
    )
    return "\n".join(lines) + "\n"


# what a second name gains


def second_names(seeds: Sequence[int]) -> str:
    """What the first principal gains by a second name under some rules, as Markdown, with 95 % intervals over episodes."""
    torch.set_num_threads(1)
    columns = " | ".join(f"{name}: split | copy" for name in SECOND_NAMES_IN)
    lines = [
        f"Reward units an episode, everybody playing as the `oracle` does, {len(seeds)} episodes; ± is a 95 % interval over episodes:",
        "",
        f"| rule | {columns} |",
        "|---|" + "---:|" * 2 * len(SECOND_NAMES_IN),
    ]
    for rule in SECOND_NAMES_UNDER:
        cells = []
        for name in SECOND_NAMES_IN:
            engine = Engine(scenario.load(name), rule, len(seeds))
            returns = agents.play(engine, agents.make("oracle"), seeds)["return"]
            assert engine.rule is not None
            chosen = [result.contributed for result in engine.history]
            gains = second_name_gains(engine.scenario, engine.rule, seeds, chosen, returns)
            cells += [" ± ".join(part for part in spell(Estimate.of(gains[what]), 1) if part) for what in ("split_gain", "copy_gain")]
        lines.append(f"| `{rule}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the tables, the facts and the gains by a second name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["fidelity", "facts", "names"], help="one of the three parts")
    parser.add_argument("--scenarios", nargs="+", default=SCENARIOS, help="all by default")
    parser.add_argument("--seeds", type=int, default=32, help="episodes a scenario")
    parser.add_argument("--jobs", type=int, default=2, help="processes side by side")
    parser.add_argument(
        "--markdown", type=Path, help="write the mean table into this file, and the others beside it, as NAME-facts.md and NAME-names.md"
    )
    arguments = parser.parse_args()
    seeds = range(FIRST_SEED, FIRST_SEED + arguments.seeds)
    jobs: dict[str, tuple[Callable[..., object], tuple[object, ...]]] = {}
    if arguments.only in (None, "facts"):
        jobs["facts"] = (facts, ())
    if arguments.only in (None, "names"):
        jobs["names"] = (second_names, (seeds,))
    if arguments.only in (None, "fidelity"):
        jobs |= {f"errors of {name}": (errors_at_budgets, (name, seeds[:EPISODES])) for name in arguments.scenarios}
        jobs |= {name: (measure, (name, seeds)) for name in arguments.scenarios}
    with ProcessPoolExecutor(arguments.jobs, multiprocessing.get_context("spawn")) as pool:
        running = {pool.submit(work, *given): name for name, (work, given) in jobs.items()}
        for future in tqdm(as_completed(running), total=len(running), unit=" parts"):
            future.result()  # an error is told at once
        done = {name: future.result() for future, name in running.items()}
    told = {part: str(done.pop(part)) for part in ("facts", "names") if part in done}
    played = [name for name in arguments.scenarios if name in done]
    found = [one for name in played for one in with_errors(done[name], name, done[f"errors of {name}"])]  # type: ignore[arg-type]
    for name in played:
        sys.stdout.write(f"\n{name}\n\n{fidelity_table([one for one in found if one.scenario == name])}")
    if found:
        sys.stdout.write(f"\nmean over scenarios\n\n{fidelity_table(mean_over_scenarios(found))}")
    for text in told.values():
        sys.stdout.write(f"\n{text}")
    if arguments.markdown is not None:
        if found:
            write_text(arguments.markdown, fidelity_table(mean_over_scenarios(found)))
        for part, text in told.items():
            write_text(arguments.markdown.with_stem(f"{arguments.markdown.stem}-{part}"), text)


if __name__ == "__main__":
    main()
