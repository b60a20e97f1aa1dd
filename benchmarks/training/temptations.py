r"""What do credit rules tempt proxies to do when they may forge updates, or declare other values than their principals have?

Two trials, each with every rule that can serve the scenario. In the first, every proxy may send four forged updates beside its lots: an
echo of the last step, noise, a twin of its first lot, and its second lot three times as large. In the second it may declare its
principal's tolerances at a fifth or at five times. A third training, without either, is what both are compared with. Every policy then
plays the same cooperatives, on splits of the data on which none was trained.

Rules that pay the same here (estimators whose budget covers all coalitions, for instance) are trained once: :func:`alike` plays some
episodes of random choices under each, and compares what they pay. Defences against forgeries pay like the rule that they defend where there
are none.

Every finished training is a row of the CSV file and is not run again. So the file may come from several runs.

Run: ``python benchmarks/training/temptations.py [--scenarios digits-mean] [--seeds 5] [--steps 120000] [--jobs 1] [--minutes M]
[--csv FILE] [--markdown FILE] [--pictures FOLDER]``; ten to thirty seconds of one core for each training, of which there are about 1,600.
"""

from __future__ import annotations

import argparse
import csv
import io
import itertools
import multiprocessing
import re
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from tqdm import tqdm

from proxycoop import agents, credit
from proxycoop.envs import Engine, Scenario, scenario
from proxycoop.envs.metrics import episode_metrics
from proxycoop.envs.shared import require_served
from proxycoop.files import write_bytes, write_text
from proxycoop.training.analysis.summary import told
from proxycoop.training.evaluate import EVALUATION_SEED, held_out_splits
from proxycoop.training.intervals import Estimate
from proxycoop.training.libraries.registry import settings_for
from proxycoop.training.pages.drawing import BLUE, RULE, VERMILION, WIDTH, Drawing, drawing, house_style
from proxycoop.training.pages.temptation_figures import heat_map
from proxycoop.training.train import train

ROOT = Path(__file__).parents[2]
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
SHOWN: dict[str, tuple[str, dict[str, str]]] = {
    "forgeries": (
        "forged updates",
        {
            "welfare": "welfare",
            "clean": "clean_share",
            "corrupt": "corrupt_share",
            **{kind: f"sent/{kind}" for kind in ("echo", "noise", "twin", "boost")},
        },
    ),
    "values": (
        "declared values",
        {
            "welfare": "welfare",
            "clean": "clean_share",
            "smaller": "declared/smaller",
            "larger": "declared/larger",
            "own harm": "own_harm",
            "a principal's welfare": "principal_welfare",
            "largest rise of a loss": "realised_rise",
        },
    ),
    "honest": (
        "without temptations",
        {
            "welfare": "welfare",
            "clean": "clean_share",
            "corrupt": "corrupt_share",
            "own harm": "own_harm",
            "a principal's welfare": "principal_welfare",
        },
    ),
}
"""The tables: of each trial its title, and its columns with their measures."""
OVERVIEW = (
    ("clean", "forgeries", "clean_share"),
    ("echo", "forgeries", "sent/echo"),
    ("noise", "forgeries", "sent/noise"),
    ("larger", "values", "declared/larger"),
)
"""What the picture of all scenarios shows: title, trial and measure."""
DAMAGES = {"damage": "welfare", "harm added": "own_harm"}
"""Columns of both trials once there are trainings without temptations: the measure less the same without (:func:`damage`)."""
UNITS = ("welfare", "return", "principal_welfare")
"""Measures in reward units, which are shown with one decimal."""
WELFARE_LOOKS: Mapping[str, Mapping[str, Any]] = {
    "honest": {"color": "black", "marker": "|", "markersize": 7, "markeredgewidth": 1.5},
    "forgeries": {"color": BLUE, "marker": "o", "markersize": 4},
    "values": {"color": VERMILION, "marker": "s", "markersize": 4, "fillstyle": "none"},
}
LOYALTY_COLUMNS = {
    "larger": "declared/larger",
    "smaller": "declared/smaller",
    "own harm": "own_harm",
    "a principal's welfare": "principal_welfare",
    "welfare": "welfare",
}
COLUMNS = (*ABOUT, *MEASURES, *ITEMS)
ECHOES: Mapping[str, tuple[int, Mapping[str, Any]]] = {
    "clean lots": (0, {}),
    "clean lots, the server's steps twice as long": (0, {"server": {"kind": "sgd", "lr": 2}}),
    "clean lots, the server with momentum .5": (0, {"server": {"kind": "sgd", "momentum": 0.5}}),
    "clean lots, and one proxy's echo": (1, {}),
    "clean lots, and three proxies' echoes": (3, {}),
    "clean lots, and all proxies' echoes": (99, {}),
}
"""What everybody plays to show what echoes do to the model (:func:`echoes`): how many proxies send one, and settings of the scenario."""
CHANCES = (0.05, 0.2, 0.5, 0.9)
"""In the episodes in which rules are compared (:func:`alike`), the chance of each choice."""
EPISODES = 16
"""Episodes that a policy plays on each of the splits. Of what is played in :func:`echoes`, four times as many."""


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
    """The rows of the CSV file; none if there is no file. What a row lacks is empty.

    Raises:
        SystemExit: If it cannot be read, is not such a table, or a number in it is none. The message says why.
    """
    if not path.exists():
        return []
    try:
        rows = [dict.fromkeys(COLUMNS, "") | {"loyalty": "0.0"} | row for row in csv.DictReader(io.StringIO(path.read_text()))]
        for i, row in enumerate(rows, 2):
            if absent := [name for name in (*ABOUT, "welfare") if not row[name]]:
                raise ValueError(f"line {i} has no {', '.join(absent)}")
            if row["scenario"] not in SCENARIOS or row["trial"] not in TRIALS:
                raise ValueError(f"line {i} is of {row['scenario']}, {row['trial']}: allowed are {[*SCENARIOS]}, {[*TRIALS]}")
            for name in (*ABOUT[4:], *MEASURES, *ITEMS):
                float(row[name] or 0)
    except (OSError, ValueError) as error:
        raise SystemExit(f"--csv {path}: {error}") from error
    return rows


def key(about: Mapping[str, Any]) -> tuple[str, ...]:
    """What a training is of, from a row or a task's fields."""
    return tuple(str(about[one]) for one in ABOUT)


def write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write all rows, in the order of scenario, trial, rule and seed."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n", restval="")
    writer.writeheader()
    order = {name: i for i, name in enumerate((*SCENARIOS, *TRIALS))}

    def place(row: dict[str, Any]) -> tuple[Any, ...]:
        return order[row["scenario"]], order[row["trial"]], row["rule"], float(row["loyalty"]), int(row["seed"])

    writer.writerows(sorted(rows, key=place))
    write_text(path, text.getvalue())


def tasks(same: Same, seeds: int, steps: int | None) -> Iterator[Task]:
    """All trainings: of the first scenario all seeds, those of :data:`FIRST` before other rules, then of the next; the honest ones last."""
    for tempts in (True, False):
        some = [trial for trial in TRIALS if (TRIALS[trial] is not None) == tempts]
        for name in dict.fromkeys(name for name, _ in same):
            length = SCENARIOS[name] if steps is None else steps
            for first in (True, False):
                for seed, trial in itertools.product(range(seeds), some):
                    rules = [rule for rule, paid in same.get((name, trial), {}).items() if rule == paid and (rule in FIRST) == first]
                    yield from (Task(name, trial, rule, seed, length) for rule in rules)
                if tempts and first and (name, "values") in same and name == LOYAL_SCENARIO:
                    for seed, loyalty in itertools.product(range(seeds), LOYALTIES):
                        yield from (Task(name, "values", rule, seed, length, loyalty) for rule in LOYAL)


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
                row = one.result()
                write(path, [*(other for other in read(path) if key(other) != key(row)), row])
                submit()


def of_which(row: Mapping[str, str], **which: object) -> bool:
    """Whether a row is of a scenario, trial, rule, …, as named."""
    return all(row[name] == str(value) for name, value in which.items())


def of(rows: Sequence[dict[str, str]], measure: str, **which: object) -> Estimate:
    """The mean of a measure over seeds, with its 95 % interval (Student), in some rows."""
    found = [row[measure] for row in rows if of_which(row, **which) and row[measure]]
    return Estimate.of(torch.tensor([float(one) for one in found], dtype=torch.float64))


def trained_as(same: Same, name: str, trial: str, rule: str) -> str:
    """The rule whose trainings stand for a rule in a trial: the first one that pays the same there."""
    return same.get((name, trial), {}).get(rule, rule)


def mean(rows: Sequence[dict[str, str]], same: Same, measure: str, name: str, trial: str, rule: str) -> float | None:
    """The mean of a measure over the trainings that stand for a rule; ``None`` if there are none."""
    return of(rows, measure, scenario=name, trial=trial, rule=trained_as(same, name, trial, rule), loyalty=0.0).mean


def damage(rows: Sequence[dict[str, str]], same: Same, name: str, trial: str, rule: str, measure: str) -> Estimate:
    """A measure with a temptation less the same without, over the seeds of which both trainings are there; seeds are paired."""
    tempted, honest = (
        {
            row["seed"]: float(row[measure])
            for row in rows
            if of_which(row, scenario=name, trial=one, rule=trained_as(same, name, one, rule), loyalty=0.0)
        }
        for one in (trial, "honest")
    )
    both = sorted(tempted.keys() & honest.keys())
    return Estimate.of(torch.tensor([tempted[seed] - honest[seed] for seed in both], dtype=torch.float64))


def rules_in(rows: Sequence[dict[str, str]], same: Same, name: str, trial: str) -> list[str]:
    """The rules of a trial, by welfare, the highest first; without those that pay like another one."""
    found = {row["rule"] for row in rows if of_which(row, scenario=name, trial=trial, loyalty=0.0)}
    found -= {rule for rule, first in same.get((name, trial), {}).items() if rule != first}
    return sorted(found, key=lambda rule: -(of(rows, "welfare", scenario=name, trial=trial, rule=rule, loyalty=0.0).mean or 0.0))


def not_trained(same: Same) -> list[str]:
    """Which rules have no row in the tables, and why, as Markdown. Trials that agree share a list."""
    said: dict[tuple[str, ...], dict[str, list[str]]] = {}
    for (name, trial), found in same.items():
        like: dict[str, list[str]] = {}
        for rule, first in found.items():
            if rule != first:
                like.setdefault(first, []).append(f"`{rule}`")
        reasons = [f"- They pay like `{first}`: {', '.join(sorted(rules))}." for first, rules in like.items()]
        if refused := sorted(set(credit.RULES) - set(found)):
            reasons.append(f"- They cannot serve the scenario: {', '.join(f'`{rule}`' for rule in refused)}.")
        said.setdefault(tuple(reasons), {}).setdefault(SHOWN[trial][0], []).append(f"`{name}`")
    lines: list[str] = []
    for why, where in said.items():
        if why:
            places = "; ".join(f"{title} in {', '.join(names)}" for title, names in where.items())
            lines += [f"Rules without a row ({places}):", "", *why, ""]
    return lines


def tables(rows: Sequence[dict[str, str]], same: Same) -> str:
    """The tables of both trials in each scenario, and that of loyalty, as Markdown."""
    lines = not_trained(same)
    for name in (one for one in SCENARIOS if any(row["scenario"] == one for row in rows)):
        compared = any(of_which(row, scenario=name, trial="honest") for row in rows)
        for trial, (title, columns) in SHOWN.items():
            rules = rules_in(rows, same, name, trial)
            if not rules:
                continue
            damages = DAMAGES if compared and trial != "honest" else {}
            head = ["rule", "seeds", *damages, *columns]
            lines += [f"**`{name}`, {title}**", "", f"| {' | '.join(head)} |", "|---|" + "---:|" * (len(head) - 1)]
            for rule in rules:
                here = {"scenario": name, "trial": trial, "rule": rule, "loyalty": 0.0}
                n_seeds = sum(of_which(row, **here) for row in rows)
                cells = [told(damage(rows, same, name, trial, rule, one), 1 if one in UNITS else 2) for one in damages.values()]
                cells += [told(of(rows, measure, **here), 1 if measure in UNITS else 2) for measure in columns.values()]
                lines.append(f"| `{rule}` | {n_seeds} | {' | '.join(cells)} |")
            lines.append("")
    if loyal := loyalty_rows(rows):
        lines += [f"**`{LOYAL_SCENARIO}`, declared values, by loyalty λ**", ""]
        lines += ["| rule | λ | seeds | " + " | ".join(LOYALTY_COLUMNS) + " |", "|---|---:|---:|" + "---:|" * len(LOYALTY_COLUMNS)]
        lines += [f"| `{rule}` | {loyalty:g} | {n_seeds} | {' | '.join(cells)} |" for rule, loyalty, n_seeds, cells in loyal]
        lines.append("")
    return "\n".join(lines)


def echoes(names: Sequence[str]) -> str:
    """Welfare if all clean lots are contributed, with echoes and without, as Markdown. Intervals are over episodes."""
    lines = ["**All clean lots, with echoes and without: welfare**", "", f"| played | {' | '.join(f'`{name}`' for name in names)} |"]
    lines.append("|---|" + "---:|" * len(names))
    seeds = range(EVALUATION_SEED, EVALUATION_SEED + 4 * EPISODES)
    for title, (n_echoes, settings) in ECHOES.items():
        cells = []
        for name in names:
            engine = Engine(scenario.load(name, conduct={"forgeries": [{"kind": "echo"}]}, **settings), "equal", len(seeds))
            engine.reset(seeds)
            while engine.t < engine.horizon:
                chosen = torch.zeros(len(seeds), engine.num_agents, engine.num_items, dtype=torch.bool)
                chosen[..., : engine.num_lots] = engine.lots.clean
                chosen[:, :n_echoes, engine.num_lots] = True
                engine.step(chosen)
            cells.append(told(Estimate.of(episode_metrics(engine)["welfare"]), 1))
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def loyalty_rows(rows: Sequence[dict[str, str]]) -> list[tuple[str, float, int, list[str]]]:
    """By rule and λ: the seeds, and the measures as text; empty if only λ = 0 was trained."""
    values = [row for row in rows if (row["scenario"], row["trial"]) == (LOYAL_SCENARIO, "values") and row["rule"] in LOYAL]
    if all(float(row["loyalty"]) == 0 for row in values):
        return []
    found = []
    for rule, loyalty in itertools.product(LOYAL, (0.0, *LOYALTIES)):
        here = [row for row in values if row["rule"] == rule and float(row["loyalty"]) == loyalty]
        if here:
            cells = [told(of(here, measure), 1 if measure in UNITS else 2) for measure in LOYALTY_COLUMNS.values()]
            found.append((rule, loyalty, len(here), cells))
    return found


def pictures(rows: Sequence[dict[str, str]], same: Same) -> list[Drawing]:
    """Heat maps of both trials in each scenario, one of all scenarios together, welfare, and the curves of loyalty."""
    drawn = []
    with house_style():
        for name in (one for one in SCENARIOS if any(row["scenario"] == one for row in rows)):
            for trial, (_, columns) in SHOWN.items():
                items = [measure for measure in columns.values() if measure in (*ITEMS, "clean_share", "corrupt_share")]
                if TRIALS[trial] is None or not (rules := rules_in(rows, same, name, trial)):
                    continue
                shares = [[of(rows, one, scenario=name, trial=trial, rule=rule, loyalty=0.0).mean for one in items] for rule in rules]
                titles = [one.partition("/")[2] or one.replace("_share", " lots") for one in items]
                drawn.append(heat_map(f"temptations-{name}-{trial}", rules, titles, shares, "share of rounds", share=True))
        drawn.append(overview(rows, same))
        if any(of_which(row, trial="honest") for row in rows):
            drawn.append(welfares(rows, same))
        if loyalty_rows(rows):
            drawn.append(loyalty_curves(rows))
    return drawn


def overview(rows: Sequence[dict[str, str]], same: Same) -> Drawing:
    """What is sent and declared, by rule and scenario: the rule with the most clean lots among forgeries first."""
    names = [one for one in SCENARIOS if any(row["scenario"] == one for row in rows)]
    asked = [(*one, name) for one in OVERVIEW for name in names]
    rules = sorted({rule for name in names for rule in rules_in(rows, same, name, "forgeries")})
    shares = {rule: [mean(rows, same, measure, name, trial, rule) for _, trial, measure, name in asked] for rule in rules}

    def clean(rule: str) -> float:
        return -sum(part or 0.0 for part, (title, *_) in zip(shares[rule], asked, strict=True) if title == "clean")

    order = sorted(shares, key=clean)
    titles = [f"{re.split('[-_]', name)[0]} {title}" for title, _, _, name in asked]
    return heat_map("temptations", order, titles, [shares[rule] for rule in order], "share of rounds", share=True)


def welfares(rows: Sequence[dict[str, str]], same: Same) -> Drawing:
    """Welfare in each trial, by rule and scenario: the rule with the most welfare among forgeries first."""
    names = [one for one in SCENARIOS if any(row["scenario"] == one for row in rows)]
    found = {rule for name in names for rule in rules_in(rows, same, name, "forgeries")}
    rules = sorted(found, key=lambda rule: sum(mean(rows, same, "welfare", name, "forgeries", rule) or 0.0 for name in names))
    figure, said = Figure((WIDTH, 0.9 + 0.165 * len(rules)), layout="constrained"), []
    for ax, name in zip(figure.subplots(1, len(names), sharey=True, squeeze=False)[0], names, strict=True):
        for trial, look in WELFARE_LOOKS.items():
            there = [(x, y) for y, rule in enumerate(rules) if (x := mean(rows, same, "welfare", name, trial, rule)) is not None]
            ax.plot([x for x, _ in there], [y for _, y in there], linestyle="", label=SHOWN[trial][0], **look)
            said.append(f"{name}, {SHOWN[trial][0]}: {', '.join(f'{rules[y]} {x:.0f}' for x, y in reversed(there))}")
        for y, rule in enumerate(rules):
            ends = [mean(rows, same, "welfare", name, trial, rule) for trial in ("honest", "forgeries")]
            if None not in ends:
                ax.plot(ends, [y, y], color=RULE, linewidth=0.8, zorder=1)
        ax.set_yticks(range(len(rules)), rules)
        ax.set_ylim(-0.7, len(rules) - 0.3)
        ax.set_title(name)
        ax.xaxis.set_major_locator(MaxNLocator(4))
    figure.supxlabel("welfare, reward units an episode", fontsize="medium")
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=len(WELFARE_LOOKS))
    return drawing("temptations-welfare", figure, said)


def loyalty_curves(rows: Sequence[dict[str, str]]) -> Drawing:
    """Sell-out, own harm and principals' welfare by λ, a curve for each rule."""
    figure, said = Figure((WIDTH, 6.2), layout="constrained"), []
    panels = {
        "declared/larger": "larger tolerances declared, share",
        "own_harm": "own harm, tolerances",
        "principal_welfare": "a principal's welfare",
    }
    styles = dict(zip(LOYAL, ((BLUE, "-", "o"), (VERMILION, "--", "s"), ("#009E73", "-.", "^"), ("#CC79A7", ":", "D")), strict=True))
    for ax, (measure, title) in zip(figure.subplots(len(panels), 1, sharex=True), panels.items(), strict=True):
        for rule, (colour, dashes, marker) in styles.items():
            levels = (0.0, *LOYALTIES)
            estimates = [of(rows, measure, scenario=LOYAL_SCENARIO, trial="values", rule=rule, loyalty=level) for level in levels]
            known = [(i, one) for i, one in enumerate(estimates) if one.mean is not None]
            x, mean, half = ([i for i, _ in known], [one.mean or 0.0 for _, one in known], [one.half_width or 0.0 for _, one in known])
            ax.errorbar(x, mean, half, color=colour, linestyle=dashes, marker=marker, markersize=4, capsize=2, elinewidth=0.7, label=rule)
            said.append(f"{rule}, {title}: {', '.join(told(one, 2) for _, one in known)}")
        ax.set_ylabel(title)
        ax.set_xticks(range(len(LOYALTIES) + 1), [f"{level:g}" for level in (0.0, *LOYALTIES)])
    ax.set_xlabel("loyalty λ, reward units per tolerance")
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=len(LOYAL))
    return drawing("temptations-loyalty", figure, said)


def main() -> None:
    """Train what is missing, and write tables and pictures of what is there."""
    told_steps = ", ".join(f"{n_steps:,} in {name}" for name, n_steps in SCENARIOS.items())
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenarios", nargs="+", choices=list(SCENARIOS), default=list(SCENARIOS))
    parser.add_argument("--trials", nargs="+", choices=list(TRIALS), default=list(TRIALS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, help=f"agent-steps of each training (default: {told_steps})")
    parser.add_argument("--jobs", type=int, default=1, help="processes side by side")
    parser.add_argument("--minutes", type=float, help="begin no training after so many minutes")
    parser.add_argument("--csv", type=Path, default=ROOT / "docs" / "results" / "temptations.csv")
    parser.add_argument("--markdown", type=Path, help="write the tables into this file")
    parser.add_argument("--pictures", type=Path, help="write the pictures into this folder, as SVG")
    parser.add_argument("--draw", action="store_true", help="train nothing: only tables and pictures of what the CSV file has")
    arguments = parser.parse_args()
    if arguments.seeds < 1 or arguments.jobs < 1 or (arguments.minutes or 0) < 0 or (arguments.steps or 1) < 1:
        parser.error("--seeds, --jobs and --steps must be at least 1, and --minutes at least 0")
    for file in (arguments.csv, arguments.markdown):
        if file is not None and file.is_dir():
            parser.error(f"{file} is a folder: give a file")
    for folder in (arguments.csv.parent, arguments.markdown and arguments.markdown.parent, arguments.pictures):
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)  # before hours of training, not after them
            except OSError as error:
                parser.error(f"{folder} cannot be made: {error.strerror}")
    read(arguments.csv)
    played = tqdm(list(itertools.product(arguments.scenarios, arguments.trials)), "comparing what rules pay", leave=False)
    same = {(name, trial): alike(name, trial, rules_of(name)) for name, trial in played}
    all_tasks = list(tasks(same, arguments.seeds, arguments.steps))
    have = {key(row) for row in read(arguments.csv) if row["trial"] != "values" or row["declared/larger"]}  # older files lack it
    waiting = [task for task in all_tasks if key(vars(task)) not in have]
    sys.stderr.write(f"{len(waiting)} of {len(all_tasks)} trainings are missing\n")
    if waiting and not arguments.draw:
        run(waiting, arguments.csv, arguments.jobs, arguments.minutes)
    rows = read(arguments.csv)
    text = f"{tables(rows, same)}\n{echoes(arguments.scenarios)}"
    sys.stdout.write(text)
    if arguments.markdown is not None:
        write_text(arguments.markdown, text)
    for one in pictures(rows, same) if arguments.pictures is not None and rows else ():
        write_bytes(arguments.pictures / f"{one.key}.svg", one.svg)


if __name__ == "__main__":
    main()
