r"""What do attackers do to the shared model, and what do they earn, under each aggregator and each credit rule?

Some principals' proxies attack, in one of several ways; the others contribute all their lots, none of which is corrupt. Nobody screens, so
that the aggregator alone defends; for comparison, the last defence is the mean behind the scenario's own screening. Aggregators are told
how many updates may be Byzantine. An attacker sends as many updates as an honest proxy has lots.

Neither these nor attackers react to what they are paid, so one episode serves all credit rules.

Run: ``python benchmarks/values/robustness.py [--scenarios digits-mean] [--attackers 1 2 3] [--seeds 5] [--episodes 2] [--csv FILE]
[--markdown FILE] [--pictures FOLDER]``; two hours of a core. Finished cells are rows of the CSV file and are not run again.
"""

from __future__ import annotations

import argparse
import csv
import io
import itertools
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from proxycoop import agents, credit
from proxycoop.agents.seats import populated
from proxycoop.envs import Engine, Scenario, scenario
from proxycoop.envs.metrics import episode_metrics
from proxycoop.envs.shared import require_served
from proxycoop.files import write_bytes, write_text
from proxycoop.training.analysis.summary import told
from proxycoop.training.evaluate import EVALUATION_SEED, held_out_splits
from proxycoop.training.intervals import Estimate
from proxycoop.training.pages.drawing import house_style
from proxycoop.training.pages.temptation_figures import heat_map

SCENARIOS = ("digits-mean", "breast_cancer", "adult-mean")
RULES = ("shapley", "loo", "in_run", "cgsv", "data_size", "equal")
ATTACKERS = (1, 2, 3)
"""How many of six principals attack: 17, 33 and 50 %."""


@dataclass(frozen=True)
class Attack:
    """What attackers do: the agent that plays their seats, and the forgeries that it needs, one for each of K lots."""

    agent: str
    forgery: dict[str, Any] | None = None

    def forgeries(self, n_lots: int) -> list[dict[str, Any]]:
        """As many forgeries as there are lots, each of its own lot if it is made of one."""
        if self.forgery is None:
            return []
        of_a_lot = self.forgery["kind"] in ("flip", "boost")
        return [self.forgery | ({"of": lot} if of_a_lot else {}) for lot in range(n_lots)]


ATTACKS = {
    "wrong labels": Attack("label_flipper"),
    "sign turned": Attack("saboteur", {"kind": "flip"}),
    "noise, 10 times as long": Attack("noise_maker", {"kind": "noise", "size": 10.0}),
    "little is enough": Attack("saboteur", {"kind": "little_is_enough"}),
    "inner product": Attack("saboteur", {"kind": "inner_product", "factor": 0.5}),
    "inner product, 5 times as long": Attack("saboteur", {"kind": "inner_product", "factor": 5.0}),
    "last step sent back": Attack("free_rider", {"kind": "echo"}),
}
NOBODY = "no attack"
SCREENED = "mean, screened"
MIXED = [{"kind": "nnm"}]
DEFENCES: dict[str, dict[str, Any]] = {
    "mean": {"kind": "mean"},
    "median": {"kind": "median"},
    "trimmed_mean": {"kind": "trimmed_mean"},
    "meamed": {"kind": "meamed"},
    "krum": {"kind": "krum"},
    "multi_krum": {"kind": "multi_krum"},
    "minimum_diameter": {"kind": "minimum_diameter", "over": "agents"},
    "geometric_median": {"kind": "geometric_median"},
    "centered_clipping": {"kind": "centered_clipping"},
    "nnm, trimmed_mean": {"kind": "trimmed_mean", "before": MIXED},
    "nnm, krum": {"kind": "krum", "before": MIXED},
    SCREENED: {"kind": "mean"},
}
"""Defences by name, as a scenario's aggregator without its f."""
TAKES_F = ("trimmed_mean", "meamed", "krum", "multi_krum", "minimum_diameter", "nnm")
ABOUT = ("scenario", "attack", "attackers", "defence", "split")
MEASURES = ("test_utility", "test_accuracy", "welfare")
EARNED = tuple(f"earned/{rule}" for rule in RULES)
HONEST = tuple(f"honest/{rule}" for rule in RULES)
COLUMNS = (*ABOUT, *MEASURES, *EARNED, *HONEST)


@dataclass(frozen=True)
class Cell:
    """Episodes that are played, and what is measured of them."""

    scenario: str
    attack: str
    attackers: int
    defence: str
    split: int

    @property
    def played(self) -> Scenario:
        """The cooperative, with attackers in its first seats."""
        plain = scenario.load(self.scenario)
        n_lots, attackers = plain.lots.per_principal, list(range(self.attackers))
        overrides: dict[str, Any] = {"aggregator": self.aggregator(plain), "lots.corruption.share": 0.0}
        if self.defence != SCREENED:
            overrides |= {"screening.governance": "none"}
        if attackers:
            attack = ATTACKS[self.attack]
            overrides |= {"population": [{"agent": attack.agent, "seats": attackers}]}
            if attack.agent == "label_flipper":
                overrides |= {"lots.corruption.principals": attackers}
            if forgeries := attack.forgeries(n_lots):
                overrides |= {"conduct": {"forgeries": forgeries}}
        return scenario.load(self.scenario, **overrides).on_split(self.split)

    def aggregator(self, plain: Scenario) -> dict[str, Any]:
        """The aggregator, told how many of its units the attackers send."""
        made = dict(DEFENCES[self.defence])
        n_units = plain.principals if made.get("over") == "agents" else plain.principals * plain.lots.per_principal
        of_attackers = self.attackers * (n_units // plain.principals)
        most = (n_units - 3) // 2 if "krum" in made["kind"] else (n_units - 1) // 2
        f = min(of_attackers, most)
        if made["kind"] == "centered_clipping":
            made |= {"radius": usual_norm(self.scenario), "iterations": 3}
        if made["kind"] in TAKES_F:
            made["f"] = f
        if "before" in made:
            made["before"] = [one | {"f": f} for one in made["before"]]
        return made


@cache
def usual_norm(name: str) -> float:
    """The median norm of lots' updates in the first round of a scenario, over 8 episodes."""
    engine = Engine(name, None, 8)
    engine.reset(range(8))
    return round(float(engine.prospect.norm.median()), 4)


def measured(cell: Cell, n_episodes: int, rules: Sequence[str]) -> dict[str, Any]:
    """Play, and ask every rule what it pays."""
    played = cell.played
    engine = Engine(played, None, n_episodes)
    payers = {rule: credit.make(rule) for rule in rules}
    policy = populated(agents.make("all"), played)
    engine.reset(range(EVALUATION_SEED, EVALUATION_SEED + n_episodes))
    policy.begin(engine.layout, engine._keys)
    for rule in payers.values():
        rule.reset(n_episodes, engine.num_agents)
    paid = {rule: torch.zeros(n_episodes, engine.num_agents) for rule in rules}
    while engine.t < engine.horizon:
        engine.step(policy.act(engine.observations))
        for name, rule in payers.items():
            paid[name] += engine.reward_scale * rule.assign(engine.round)
    test, metrics = engine.test(), episode_metrics(engine)
    found = {"test_utility": test["utility"], "test_accuracy": test["accuracy"], "welfare": metrics["welfare"]}
    for name, of_rule in paid.items():
        found[f"earned/{name}"] = of_rule[:, : cell.attackers].mean(dim=1) if cell.attackers else torch.zeros(n_episodes)
        found[f"honest/{name}"] = of_rule[:, cell.attackers :].mean(dim=1)
    about = {one: getattr(cell, one) for one in ABOUT}
    return about | {name: round(float(numbers.double().mean()), 5) for name, numbers in found.items()}


def cells(scenarios: Iterable[str], attackers: Iterable[int], seeds: int) -> list[Cell]:
    """All cells; without an attack, each defence once for every number of attackers that it is told of."""
    splits = held_out_splits(seeds)
    found = [Cell(name, NOBODY, 0, defence, split) for split, name, defence in itertools.product(splits, scenarios, DEFENCES)]
    return found + [
        Cell(name, attack, n, defence, split)
        for split, name, n, attack, defence in itertools.product(splits, scenarios, attackers, ATTACKS, DEFENCES)
    ]


def read(path: Path) -> list[dict[str, str]]:
    """The rows of the CSV file; none if there is no file."""
    return list(csv.DictReader(io.StringIO(path.read_text()))) if path.exists() else []


def write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write all rows in a fixed order."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(sorted(rows, key=lambda row: tuple(str(row[one]) for one in ABOUT)))
    write_text(path, text.getvalue())


def estimate(rows: Sequence[dict[str, str]], measure: str, **which: str) -> Estimate:
    """The mean over splits of a measure, in the rows of some cells."""
    found = [float(row[measure]) for row in rows if all(row[key] == value for key, value in which.items())]
    return Estimate.of(torch.tensor(found, dtype=torch.float64))


def worst(rows: Sequence[dict[str, str]], measure: str, **which: str) -> tuple[str, Estimate]:
    """The attack under which a measure is least, and what it is."""
    each = {attack: estimate(rows, measure, attack=attack, **which) for attack in ATTACKS}
    attack = min(each, key=lambda one: each[one].mean if each[one].mean is not None else float("inf"))
    return attack, each[attack]


def tables(rows: Sequence[dict[str, str]], scenarios: Iterable[str], attackers: Sequence[int]) -> str:
    """Tables in Markdown: of each defence the worst attack, and what attackers earn at most under each rule."""
    lines: list[str] = []
    for name in scenarios:
        own = [row for row in rows if row["scenario"] == name]
        if not own:
            continue
        lines += [f"**`{name}`: accuracy under the worst attack**", ""]
        heads = [f"{n} attacker{'s' * (n > 1)}: worst attack | accuracy | welfare" for n in attackers]
        lines += [f"| defence | no attack | {' | '.join(heads)} |", "|---|---:|" + "---|---:|---:|" * len(attackers)]
        for defence in DEFENCES:
            line = [f"`{defence}`", told(estimate(own, "test_accuracy", attack=NOBODY, defence=defence), 3)]
            for n in attackers:
                attack, least = worst(own, "test_accuracy", defence=defence, attackers=str(n))
                line += [attack, told(least, 3), told(worst(own, "welfare", defence=defence, attackers=str(n))[1], 0)]
            lines.append(f"| {' | '.join(line)} |")
        lines += ["", f"**`{name}`: what an attacker earns at most, reward units an episode (an honest proxy at the same time)**", ""]
        lines += [f"| defence | attackers | {' | '.join(f'`{rule}`' for rule in RULES)} |", "|---|---:|" + "---:|" * len(RULES)]
        for defence, n in itertools.product(DEFENCES, attackers):
            line = [f"`{defence}`", str(n)]
            for rule in RULES:
                each = [
                    (estimate(own, f"earned/{rule}", attack=attack, defence=defence, attackers=str(n)).mean, attack) for attack in ATTACKS
                ]
                most, attack = max((mean, attack) for mean, attack in each if mean is not None)
                honest = estimate(own, f"honest/{rule}", attack=attack, defence=defence, attackers=str(n)).mean
                line.append(f"{most:.1f} ({honest:.1f})".replace("-", "−"))
            lines.append(f"| {' | '.join(line)} |")
        lines.append("")
    return "\n".join(lines)


def draw(rows: Sequence[dict[str, str]], folder: Path, scenarios: Iterable[str], attackers: Sequence[int]) -> None:
    """Heat maps, a file for each scenario and number of attackers: change of accuracy by each attack, the worst in the last row."""
    for name, n in itertools.product(scenarios, attackers):
        own = [row for row in rows if row["scenario"] == name]
        if not own:
            continue
        plain = estimate(own, "test_accuracy", attack=NOBODY, defence="mean").mean or 0.0
        change = [
            [_points(estimate(own, "test_accuracy", attack=attack, defence=defence, attackers=str(n)).mean, plain) for defence in DEFENCES]
            for attack in ATTACKS
        ]
        lowest = [min((row[j] for row in change if row[j] is not None), default=None) for j in range(len(DEFENCES))]
        with house_style():
            made = heat_map(f"robustness-{name}-{n}", [*ATTACKS, "the worst"], list(DEFENCES), [*change, lowest], "points of accuracy")
        write_bytes(folder / f"robustness-{name}-{n}.svg", made.svg)


def _points(mean: float | None, plain: float) -> float | None:
    return None if mean is None else 100 * (mean - plain)


def main() -> None:
    """Play what is missing, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenarios", nargs="+", default=list(SCENARIOS))
    parser.add_argument("--attackers", nargs="+", type=int, default=list(ATTACKERS))
    parser.add_argument("--seeds", type=int, default=5, help="data splits")
    parser.add_argument("--episodes", type=int, default=2, help="episodes on each split")
    parser.add_argument("--csv", type=Path, default=Path(__file__).parents[2] / "docs" / "results" / "robustness.csv")
    parser.add_argument("--markdown", type=Path, help="write the tables into this file")
    parser.add_argument("--pictures", type=Path, help="write the heat maps into this folder")
    parser.add_argument("--draw", action="store_true", help="play nothing; only make tables and pictures of what is there")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = list(read(arguments.csv))
    if not arguments.draw:
        done = {tuple(str(row[one]) for one in ABOUT) for row in rows}
        todo = [
            cell
            for cell in cells(arguments.scenarios, arguments.attackers, arguments.seeds)
            if tuple(str(getattr(cell, one)) for one in ABOUT) not in done
        ]
        served = {name: _served(name) for name in arguments.scenarios}
        for i, cell in enumerate(tqdm(todo, unit=" cells"), 1):
            rows.append(measured(cell, arguments.episodes, served[cell.scenario]))
            if i % 20 == 0 or i == len(todo):
                write(arguments.csv, rows)
    rows = list(read(arguments.csv))
    text = tables(rows, arguments.scenarios, arguments.attackers)
    sys.stdout.write(text)
    if arguments.markdown is not None:
        write_text(arguments.markdown, text)
    if arguments.pictures is not None:
        draw(rows, arguments.pictures, arguments.scenarios, arguments.attackers)


def _served(name: str) -> list[str]:
    """The rules that can serve a scenario."""
    made = scenario.load(name)
    for rule in RULES:
        require_served(made, credit.make(rule), rule)
    return list(RULES)


if __name__ == "__main__":
    main()
