r"""What do credit rules tempt proxies to do when they may forge updates, or declare other values than their principals have?

Two trials, each with every rule that can serve the scenario. In the first, every proxy may send four forged updates beside its lots: an
echo of the last step, noise, a twin of its first lot, and its second lot three times as large. In the second it may declare its
principal's tolerances at a fifth or at five times. A third training, without either, is what both are compared with. Every policy then
plays the same cooperatives, on splits of the data on which none was trained.

Rules that pay the same here (estimators whose budget covers all coalitions, for instance) are trained once: :func:`alike` plays some
episodes of random choices under each, and compares what they pay.

Every finished training is a row of the CSV file and is not run again. So the file may come from several runs.

Run: ``python benchmarks/training/temptations.py [--scenarios digits-mean] [--seeds 5] [--steps 120000] [--jobs 1] [--minutes M]
[--csv FILE] [--markdown FILE] [--pictures FOLDER]``; half a minute of one core for each training, of which there are over a thousand.
"""

from __future__ import annotations

import argparse
import csv
import io
import itertools
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from proxycoop import agents, credit
from proxycoop.envs import Engine, Scenario, scenario
from proxycoop.envs.shared import require_served
from proxycoop.files import write_text
from proxycoop.training.evaluate import EVALUATION_SEED, held_out_splits
from proxycoop.training.libraries.registry import settings_for
from proxycoop.training.train import train

ROOT = Path(__file__).parents[2]
SCENARIOS = ("digits-mean", "adult-mean", "breast_cancer")
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
ITEMS = ("sent/echo", "sent/noise", "sent/twin", "sent/boost", "pulled/strict", "pulled/lax")
LOYALTIES = (0.3, 1.0, 3.0, 10.0)
"""Values of ``reward.loyalty`` beside 0 with which the trial of declared values is made under :data:`LOYAL` in the first scenario."""
LOYAL = ("shapley", "loo", "equal", "veto_shapley")
COLUMNS = (*ABOUT, *MEASURES, *ITEMS)
EPISODES = 16
"""Episodes that a policy plays on each of the splits."""


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


def alike(name: str, rules: Sequence[str]) -> dict[str, str]:
    """For each rule, the first one that pays the same: a rule that pays like no earlier one stands for itself.

    Four episodes of random choices with all forgeries are played under each rule, on the same seeds. Payments are the same if they differ
    by less than a ten-thousandth of the mean payment.
    """
    tempted = scenario.load(name, conduct=TRIALS["forgeries"])
    paid: dict[str, torch.Tensor] = {}
    found: dict[str, str] = {}
    for rule in rules:
        engine = Engine(tempted, rule, 4)
        engine.reset(range(4))
        generator = torch.Generator().manual_seed(0)
        while engine.t < engine.horizon:
            engine.step(torch.rand(4, engine.num_agents, engine.num_items, generator=generator) < 0.5)
        own = torch.stack([result.credit for result in engine.history])
        same = [one for one, other in paid.items() if float((own - other).abs().max()) < 1e-4 * float(other.abs().mean())]
        found[rule] = same[0] if same else rule
        if not same:
            paid[rule] = own
    return found


def rules_of(name: str) -> list[str]:
    """The rules that can serve a scenario, :data:`FIRST` before the others, and estimators last."""
    served = []
    for rule in dict.fromkeys((*FIRST, *sorted(credit.RULES, key=lambda one: credit.RULES[one].family == "estimator"))):
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
    settings = settings_for("ippo", "ppo", scenario=home, credit=task.rule, seed=task.seed, total_steps=task.steps)
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        train(settings, folder, tensorboard=False, overwrite=True)
        for index, split in enumerate(held_out_splits()):
            first = EVALUATION_SEED + index * EPISODES
            # what agents are paid does not change what they do here, so one rule serves all; returns are taken under the rule itself
            engine = Engine(played.on_split(split), task.rule, EPISODES)
            metrics = agents.play(engine, agents.make("learned", path=folder), range(first, first + EPISODES))
            losses = engine.prospect.value_losses - engine.initial_value_losses
            metrics["realised_rise"] = losses.amax(dim=1) if losses.shape[1] else torch.zeros(EPISODES)
            for one in (*MEASURES, *ITEMS):
                if one in metrics:
                    found.setdefault(one, []).append(float(metrics[one].double().mean()))
    about = {one: getattr(task, one) for one in ABOUT}
    return about | {one: round(sum(means) / len(means), 5) for one, means in found.items()}


def read(path: Path) -> list[dict[str, str]]:
    """The rows of the CSV file; none if there is no file."""
    return [{"loyalty": "0.0", **row} for row in csv.DictReader(io.StringIO(path.read_text()))] if path.exists() else []


def write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write all rows, in the order of scenario, trial, rule and seed."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n", restval="")
    writer.writeheader()
    order = {name: i for i, name in enumerate((*SCENARIOS, *TRIALS))}
    last = len(order)

    def place(row: dict[str, Any]) -> tuple[Any, ...]:
        return order.get(row["scenario"], last), order[row["trial"]], row["rule"], float(row["loyalty"]), int(row["seed"])

    writer.writerows(sorted(rows, key=place))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text.getvalue())


def tasks(names: Sequence[str], trials: Sequence[str], seeds: int, steps: int) -> Iterator[Task]:
    """All trainings: of the first scenario all seeds, those of :data:`FIRST` before other rules, then of the next; the honest ones last."""
    of_its_own = {name: [rule for rule, first in alike(name, rules_of(name)).items() if rule == first] for name in names}
    tempting, honest = ([one for one in trials if (TRIALS[one] is not None) == tempts] for tempts in (True, False))
    for some in (tempting, honest):
        for name in names:
            for first in (True, False):
                for seed in range(seeds):
                    for trial in some:
                        yield from (Task(name, trial, rule, seed, steps) for rule in of_its_own[name] if (rule in FIRST) == first)
                if first and name == SCENARIOS[0] and "values" in some:
                    for seed, loyalty in itertools.product(range(seeds), LOYALTIES):
                        yield from (Task(name, "values", rule, seed, steps, loyalty) for rule in LOYAL)


def run(waiting: Sequence[Task], path: Path, jobs: int, minutes: float | None) -> None:
    """Work tasks off, and add each result to the file as it comes."""
    until = None if minutes is None else time.monotonic() + 60 * minutes
    rest = iter(waiting)
    running: dict[Future[dict[str, Any]], Task] = {}
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool, tqdm(total=len(waiting), unit=" trainings") as bar:

        def submit() -> None:
            if (until is None or time.monotonic() < until) and (task := next(rest, None)) is not None:
                running[pool.submit(measured, task)] = task

        for _ in range(jobs):
            submit()
        while running:
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for one in finished:
                task = running.pop(one)
                bar.update()
                bar.set_postfix_str(f"{task.scenario}, {task.trial}, {task.rule}, seed {task.seed}")
                write(path, [*read(path), one.result()])
                submit()


def main() -> None:
    """Train what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenarios", nargs="+", default=list(SCENARIOS))
    parser.add_argument("--trials", nargs="+", choices=list(TRIALS), default=list(TRIALS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=120_000, help="agent-steps of each training")
    parser.add_argument("--jobs", type=int, default=1, help="processes side by side")
    parser.add_argument("--minutes", type=float, help="begin no training after so many minutes")
    parser.add_argument("--csv", type=Path, default=ROOT / "docs" / "results" / "temptations.csv")
    arguments = parser.parse_args()
    all_tasks = list(tasks(arguments.scenarios, arguments.trials, arguments.seeds, arguments.steps))
    have = {tuple(str(row[one]) for one in ABOUT) for row in read(arguments.csv)}
    waiting = [task for task in all_tasks if tuple(str(getattr(task, one)) for one in ABOUT) not in have]
    sys.stderr.write(f"{len(waiting)} of {len(all_tasks)} trainings are missing\n")
    run(waiting, arguments.csv, arguments.jobs, arguments.minutes)


if __name__ == "__main__":
    main()
