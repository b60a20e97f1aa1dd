"""What is trained for the benchmark of temptations: in which cooperatives, under which rules, and what is measured of it."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # what benchmarks share, which processes find by its module's name

from held_out import trained_and_played

from proxycoop import credit
from proxycoop.envs import Engine, Scenario, scenario
from proxycoop.envs.shared import require_served

SCENARIOS = {"digits-mean": 120_000, "adult-mean": 60_000, "breast_cancer": 60_000}
"""The scenarios, and the agent-steps of a training in each: of `digits-mean` as in the first trials, of the others as in the sweeps."""
TRIALS: dict[str, dict[str, Any] | None] = {
    "forgeries": {"forgeries": [{"kind": "echo"}, {"kind": "noise"}, {"kind": "twin", "of": 0}, {"kind": "boost", "of": 1, "factor": 3}]},
    "values": {"levers": [{"kind": "strict", "factor": 0.2}, {"kind": "lax", "factor": 5}]},
    "honest": None,
}
"""What proxies may do in each trial, as ``conduct`` of the scenario."""
FIRST = (
    *("shapley", "loo", "data_size", "equal", "veto_shapley", "cgsv", "standalone", "in_run", "banzhaf"),
    *("peer_ranking", "aristocrat", "shapfed", "fael", "data_shapley", "comfedsv"),
)
"""Rules that are trained before the others, so that a table of them is there early."""
ABOUT = ("scenario", "trial", "loyalty", "rule", "seed", "steps")
MEASURES = ("welfare", "return", "clean_share", "corrupt_share", "own_harm", "principal_welfare", "realised_rise", "beyond_limits")
ITEMS = ("sent/echo", "sent/noise", "sent/twin", "sent/boost", "pulled/strict", "pulled/lax", "declared/larger", "declared/smaller")
LOYALTIES = (0.3, 1.0, 3.0, 10.0)
"""Values of ``reward.loyalty`` beside 0 with which the trial of declared values is made under :data:`LOYAL` in :data:`LOYAL_SCENARIO`."""
LOYAL = ("shapley", "loo", "equal", "veto_shapley")
LOYAL_SCENARIO = "digits-mean"
LONGER = ("shapley", "loo", "equal", "cgsv", "data_size")
"""Rules that are trained twice as long as well, with forgeries and without, to see whether trainings are long enough."""
CHANCES = (0.05, 0.2, 0.5, 0.9)
"""In the episodes in which rules are compared (:func:`alike`), the chance of each choice."""


@dataclass(frozen=True)
class Task:
    """A training and what is measured of it."""

    scenario: str
    trial: str
    rule: str
    seed: int
    steps: int
    loyalty: float = 0.0

    @property
    def played(self) -> Scenario:
        """The cooperative of the trial."""
        return scenario.load(self.scenario, conduct=TRIALS[self.trial], **{"reward.loyalty": self.loyalty})


Same = Mapping[tuple[str, str], Mapping[str, str]]
"""By scenario and trial: each rule, and the first one that pays the same (:func:`alike`)."""


def alike(name: str, trial: str, rules: Sequence[str]) -> dict[str, str]:
    """For each rule, the first one that pays the same in a trial: a rule that pays like no earlier one stands for itself.

    Four episodes of random choices among lots and what the trial has beside them are played under each rule, on the same seeds. In the
    first hardly anything is chosen, so that proxies join late; in the last nearly everything. Payments are the same if they differ by less
    than a ten-thousandth of the mean payment.
    """
    tempted = scenario.load(name, conduct=TRIALS[trial])
    paid: dict[str, torch.Tensor] = {}
    found: dict[str, str] = {}
    for rule in rules:
        engine = Engine(tempted, rule, len(CHANCES))
        engine.reset(range(len(CHANCES)))
        generator = torch.Generator().manual_seed(0)
        while engine.t < engine.horizon:
            drawn = torch.rand(len(CHANCES), engine.num_agents, engine.num_items, generator=generator)
            engine.step(drawn < torch.tensor(CHANCES)[:, None, None])
        own = torch.stack([result.credit for result in engine.history])
        same = [one for one, other in paid.items() if float((own - other).abs().max()) < 1e-4 * float(other.abs().mean())]
        found[rule] = same[0] if same else rule
        if not same:
            paid[rule] = own
    return found


def rules_of(name: str, asked: Collection[str]) -> list[str]:
    """Those of the rules asked for that can serve a scenario, :data:`FIRST` before the others, and estimators last."""
    served = []
    for rule in dict.fromkeys((*FIRST, *sorted(credit.RULES, key=lambda one: credit.RULES[one].family == "estimator"))):
        if rule not in asked:
            continue
        try:
            require_served(scenario.load(name), credit.make(rule), rule)
        except ValueError:
            continue
        served.append(rule)
    return served


def measured(task: Task) -> dict[str, Any]:
    """Train, and play on the splits that were held out. Returns a row of the table."""
    torch.set_num_threads(1)
    played = task.played
    data = played.data.model_copy(update={"split_seed": 8 * task.seed})  # every seed trains on eight splits of its own
    home = played.model_copy(update={"data": data})
    about = {one: getattr(task, one) for one in ABOUT}
    return about | trained_and_played(home, played, task.rule, task.seed, task.steps, (*MEASURES, *ITEMS), _rise)


def _rise(engine: Engine, _: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """By how much the protected loss that rose most did so in the episode."""
    losses = engine.prospect.value_losses - engine.initial_value_losses
    return {"realised_rise": losses.amax(dim=1) if losses.shape[1] else torch.zeros(engine.num_envs)}


def tasks(same: Same, seeds: int, steps: int | None) -> Iterator[Task]:
    """All trainings: of the first scenario all seeds, those of :data:`FIRST` before other rules, then of the next.

    The honest ones follow, and those that are twice as long are last.
    """
    names = list(dict.fromkeys(name for name, _ in same))
    lengths = {name: SCENARIOS[name] if steps is None else steps for name in names}
    for tempts in (True, False):
        some = [trial for trial in TRIALS if (TRIALS[trial] is not None) == tempts]
        for name, length in lengths.items():
            for first in (True, False):
                for seed, trial in itertools.product(range(seeds), some):
                    rules = [rule for rule, paid in same.get((name, trial), {}).items() if rule == paid and (rule in FIRST) == first]
                    yield from (Task(name, trial, rule, seed, length) for rule in rules)
                if tempts and first and (name, "values") in same and name == LOYAL_SCENARIO:
                    for seed, loyalty in itertools.product(range(seeds), LOYALTIES):
                        yield from (Task(name, "values", rule, seed, length, loyalty) for rule in LOYAL if rule in same[name, "values"])
    for name, seed, trial in itertools.product(names, range(seeds), ("honest", "forgeries")):
        rules = [rule for rule in LONGER if same.get((name, trial), {}).get(rule) == rule]
        yield from (Task(name, trial, rule, seed, 2 * lengths[name]) for rule in rules)
