r"""Models that people use: what proxies learn under five rules where the shared model is one, and how good that model gets.

Of each scenario two tables are made.

* **How good the model is**, on the test rows: at the start; after an episode of federated averaging of all lots, and of all clean lots,
  both unscreened; after an episode that learned proxies play; and the same model trained centrally by Adam, from its random start, in ten
  passes over the whole train pool with its true labels, in batches of 64. That is no target: the pool has many times as many rows as the
  lots of an episode. It says what the model can do.
* **What proxies learn** under equal split, pay by volume, leave-one-out, the Shapley value and the stand-alone value. Where the model is
  not linear, the Shapley value is estimated from two evaluations an agent, with the round's expansion as a control variate.

Proxies are trained by PPO (``ippo``) on eight splits of the data of their seed, and play on splits on which none was trained. A row also
has the CPU seconds of the training and the process's peak of memory.

Run: ``python benchmarks/people/people_models.py [--scenarios fashion …] [--seeds 3] [--steps 40000] [--jobs 1] [--minutes M] [--csv FILE]
[--markdown FOLDER] [--pictures FOLDER] [--draw]``. What is done is in rows of the CSV file and is not run again.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).parents[1]))  # csv_rows, which processes find by its module's name

from csv_rows import Rows

from proxycoop import agents
from proxycoop.envs import Engine, Scenario, scenario
from proxycoop.envs.model import Model
from proxycoop.envs.model.likelihood import cross_entropy
from proxycoop.envs.scenario import Start
from proxycoop.envs.shared import shared
from proxycoop.files import write_bytes, write_text
from proxycoop.training.analysis.summary import told
from proxycoop.training.evaluate import EVALUATION_SEED, held_out_splits
from proxycoop.training.intervals import Estimate
from proxycoop.training.libraries.registry import settings_for
from proxycoop.training.pages.drawing import BLUE, VERMILION, WIDTH, Drawing, drawing, house_style
from proxycoop.training.train import train

SCENARIOS = ("fashion", "fashion-lora", "reviews")
RULES = ("equal", "data_size", "loo", "shapley", "standalone")
CENTRAL, START, ALL, CLEAN = "central", "start", "all", "clean"
REFERENCES = {
    START: "the start",
    ALL: "FedAvg of all lots",
    CLEAN: "FedAvg of all clean lots",
    CENTRAL: "central, the whole pool",
}
"""What the model is compared with; ``central`` is trained once a seed, the others play episodes."""
ABOUT = ("scenario", "what", "seed", "steps")
MEASURES = (
    *("accuracy", "log_loss", "value_loss", "welfare", "clean_share", "corrupt_share", "admitted_share"),
    *("cpu_seconds", "wall_seconds", "peak_mib"),
)
EPISODES, SPLITS = 8, 4
"""Episodes that are played on each split, and splits."""
PASSES, BATCH, CENTRAL_RATE = 10, 64, 0.002
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Task:
    """A training, or a reference (``what``), and what is measured of it."""

    scenario: str
    what: str
    seed: int
    steps: int

    @property
    def rule(self) -> str:
        """The rule that pays, with its budget."""
        played = scenario.load(self.scenario)
        exact = self.what != "shapley" or shared(played, torch.float32)[1].linear
        return self.what if exact else f"shapley(budget={2 * played.n_agents})"


def measured(task: Task) -> dict[str, Any]:
    """A row of the table."""
    torch.set_num_threads(1)
    cpu, wall = time.process_time(), time.perf_counter()
    played = scenario.load(task.scenario)
    found: dict[str, float] = {}
    if task.what in RULES:
        home = played.model_copy(update={"data": played.data.model_copy(update={"split_seed": 8 * task.seed})})  # eight splits of its own
        settings = settings_for("ippo", "ppo", scenario=home, credit=task.rule, seed=task.seed, total_steps=task.steps)
        with tempfile.TemporaryDirectory() as folder:
            train(settings, folder, tensorboard=False, overwrite=True)
            found = _used() | {"cpu_seconds": time.process_time() - cpu, "wall_seconds": time.perf_counter() - wall}
            found |= abroad(played, agents.make("learned", path=folder), task.seed)
    elif task.what == CENTRAL:
        found = central(played.on_split(held_out_splits(SPLITS)[task.seed % SPLITS]))
    else:
        bare = played if task.what == START else played.unscreened(reward_scale=1.0)
        who = {START: "none", ALL: "all", CLEAN: "oracle"}[task.what]
        found = abroad(bare, agents.make(who), task.seed)
    if task.what not in RULES:
        found |= _used() | {"cpu_seconds": time.process_time() - cpu, "wall_seconds": time.perf_counter() - wall}
        for one in ("welfare",):  # its unit is the screened scenario's
            found.pop(one, None)
    about = {name: getattr(task, name) for name in ABOUT}
    return about | {name: round(found[name], 5) for name in MEASURES if name in found}


def abroad(played: Scenario, agent: Any, seed: int) -> dict[str, float]:
    """How a policy plays on splits that were held out, means over splits and episodes."""
    found: dict[str, list[float]] = {}
    for index, split in enumerate(held_out_splits(SPLITS)):
        first = EVALUATION_SEED + (SPLITS * seed + index) * EPISODES
        # what agents are paid does not change what they do here, so the cheapest rule pays
        engine = Engine(played.on_split(split), "equal", EPISODES)
        metrics = agents.play(engine, agent, range(first, first + EPISODES))
        test = engine.test()
        metrics |= {"accuracy": test["accuracy"], "log_loss": -test["utility"]}
        values = [loss for name, loss in test.items() if name.startswith("value/")]
        metrics |= {"value_loss": torch.stack(values).mean(dim=0)} if values else {}
        for name in MEASURES:
            if name in metrics:
                found.setdefault(name, []).append(float(metrics[name].double().mean()))
    return {name: sum(means) / len(means) for name, means in found.items()}


def central(played: Scenario) -> dict[str, float]:
    """The same model, trained on the whole train pool with true labels."""
    splits, model, _ = shared(played.model_copy(update={"start": Start(steps=0), "profiles": ()}), torch.float32)
    start = Start(steps=PASSES * (len(splits.train) // BATCH), lr=CENTRAL_RATE, optimizer="adam", batch=BATCH)
    theta = start.train(model, model.start()[None], splits.train, seed=0)
    logits = answers(model, theta, splits.test.x)
    return {
        "accuracy": float((logits.argmax(dim=1) == splits.test.y).double().mean()),
        "log_loss": float(cross_entropy(logits, splits.test.y).mean()),
    }


def answers(model: Model, theta: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """One model's logits, some rows at a time, ``(R, C)``."""
    return torch.cat([model.logits(theta, some)[0] for some in x.split(500)])


def _used() -> dict[str, float]:
    """The process's peak of memory so far, in MiB."""
    return {"peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def estimate(rows: Sequence[dict[str, str]], measure: str, **which: str) -> Estimate:
    """The mean over seeds of a measure, with its 95 % interval, in some rows."""
    found = [float(row[measure]) for row in rows if row[measure] and all(row[key] == value for key, value in which.items())]
    return Estimate.of(torch.tensor(found, dtype=torch.float64))


def accuracies(rows: Sequence[dict[str, str]], name: str) -> dict[str, tuple[str, Estimate, Estimate]]:
    """By what was done, in the order of the tables: in words, accuracy and log loss on the test rows."""
    order = {**{one: REFERENCES[one] for one in (START, ALL)}, **{rule: f"proxies under `{rule}`" for rule in RULES}}
    order |= {one: REFERENCES[one] for one in (CLEAN, CENTRAL)}
    found = {
        what: (words, *(estimate(rows, m, scenario=name, what=what) for m in ("accuracy", "log_loss"))) for what, words in order.items()
    }
    return {what: one for what, one in found.items() if one[1].mean is not None}


def table(rows: Sequence[dict[str, str]], name: str) -> str:
    """The tables of a scenario, as Markdown."""
    lines = ["| the model | accuracy, % | log loss, nats | seeds |", "|---|---:|---:|---:|"]
    for what, (words, accuracy, loss) in accuracies(rows, name).items():
        n = sum(row["scenario"] == name and row["what"] == what for row in rows)
        percent = Estimate(*(None if part is None else 100 * part for part in (accuracy.mean, accuracy.half_width)))
        lines.append(f"| {words} | {told(percent, 1)} | {told(loss, 2)} | {n} |")
    shown = {"welfare": 1, "clean_share": 2, "corrupt_share": 2, "value_loss": 2, "cpu_seconds": 0, "peak_mib": 0}
    titles = ("welfare", "clean lots", "corrupt lots", "value losses, nats", "CPU seconds", "peak, MiB")
    rules = [rule for rule in RULES if any(row["scenario"] == name and row["what"] == rule for row in rows)]
    if rules:
        lines += ["", f"| rule | {' | '.join(titles)} |", "|---|" + "---:|" * len(titles)]
    for rule in rules:
        cells = [told(estimate(rows, measure, scenario=name, what=rule), places) for measure, places in shown.items()]
        lines.append(f"| `{rule}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def picture(rows: Sequence[dict[str, str]], name: str) -> Drawing:
    """Accuracy of the model, by what was done."""
    found = list(accuracies(rows, name).items())
    with house_style():
        figure, said = Figure((WIDTH, 0.6 + 0.24 * len(found)), layout="constrained"), []
        ax = figure.subplots()
        for y, (what, (words, accuracy, _)) in enumerate(found):
            mean, half = accuracy.mean or 0.0, accuracy.half_width or 0.0
            ax.errorbar([mean], [y], xerr=[half], fmt="o" if what in RULES else "s", color=VERMILION if what in RULES else BLUE, capsize=2)
            said.append(f"{words.replace('`', '')}: {told(accuracy, 3)}")
        ax.set_yticks(range(len(found)), [words.replace("`", "") for _, (words, *_) in found])
        ax.invert_yaxis()
        ax.set_xlabel("accuracy on the test rows")
        return drawing(f"people-models-{name}", figure, said)


def main() -> None:
    """Measure what is missing, and write tables and pictures of what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenarios", nargs="+", default=list(SCENARIOS))
    parser.add_argument("--rules", nargs="+", choices=RULES, default=list(RULES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40_000, help="agent-steps of each training")
    parser.add_argument("--jobs", type=int, default=1, help="processes side by side")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin nothing after so many minutes")
    parser.add_argument("--csv", type=Path, default=ROOT / "docs" / "results" / "people-models.csv")
    parser.add_argument("--markdown", type=Path, help="write a page people-models-SCENARIO.md for each scenario into this folder")
    parser.add_argument("--pictures", type=Path, help="write the pictures into this folder, as SVG")
    parser.add_argument("--draw", action="store_true", help="measure nothing: only tables and pictures of what the CSV file has")
    arguments = parser.parse_args()
    kept = Rows(arguments.csv, ABOUT, MEASURES)
    tasks = [
        Task(name, what, seed, arguments.steps if what in RULES else 0)
        for name in arguments.scenarios
        for seed in range(arguments.seeds)
        for what in (*REFERENCES, *arguments.rules)
    ]
    if not arguments.draw:
        kept.measure(tasks, measured, arguments.jobs, arguments.minutes, alone=True)
    rows = kept.read()
    for name in arguments.scenarios:
        if not any(row["scenario"] == name for row in rows):
            continue
        text = table(rows, name)
        sys.stdout.write(f"{name}\n\n{text}\n")
        if arguments.markdown is not None:
            write_text(arguments.markdown / f"people-models-{name}.md", text)
        if arguments.pictures is not None:
            one = picture(rows, name)
            write_bytes(arguments.pictures / f"{one.key}.svg", one.svg)


if __name__ == "__main__":
    main()
