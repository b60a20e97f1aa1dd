r"""What privacy costs: how well each rule's credit, and the model, survive noise, and what proxies then learn.

Honest proxies play on splits of the data, with the noise that a budget ε asks for if every lot is sent in each round (δ = 10⁻⁵). The
noise is on updates (``noise: updates``: credit is made of noised updates) or on the step (``noise: step``). Updates are clipped to the
median norm of an update in the first round. *Fidelity* is Pearson's correlation, over the proxies of all episodes, of what a rule pays a
proxy in an episode with what the exact Shapley value pays for the same choices without noise. ``--learned`` also trains proxies by PPO.

Run: ``python benchmarks/values/privacy.py [--scenarios breast_cancer digits] [--splits 5] [--episodes 16] [--learned] [--seeds 3]
[--steps 120000] [--csv FILE] [--markdown FILE] [--pictures FOLDER]``; minutes of a core, and half a minute more for each training. What is
done is in rows of the CSV file and is not run again.
"""

from __future__ import annotations

import argparse
import csv
import io
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1]))  # what benchmarks share, which processes find by its module's name

from held_out import trained_and_played

from proxycoop import agents, credit
from proxycoop.envs import Engine, Scenario, scenario
from proxycoop.envs.privacy import sigma_for
from proxycoop.files import write_bytes, write_text
from proxycoop.training.analysis.summary import told
from proxycoop.training.evaluate import EVALUATION_SEED, held_out_splits
from proxycoop.training.intervals import Estimate
from proxycoop.training.pages.drawing import WIDTH, Drawing, drawing, house_style

SCENARIOS = ("breast_cancer", "digits")
RULES = ("shapley", "banzhaf", "loo", "in_run", "cgsv", "standalone", "data_shapley")
LEARNED = ("shapley", "data_size")
EPSILONS = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, math.inf)
LEARNED_EPSILONS = (3.0, 30.0, 300.0, math.inf)
NOISES = ("updates", "step")
DELTA = 1e-5
ABOUT = ("what", "scenario", "noise", "epsilon", "rule", "part")
MEASURES = ("fidelity", "utility", "accuracy", "welfare", "clean_share", "corrupt_share", "spent")
COLUMNS = (*ABOUT, *MEASURES)


def private(name: str, noise: str, epsilon: float, split: int) -> Scenario:
    """A scenario with the noise of a budget, on one split of the data. Without a budget there is no noise; updates are clipped alike."""
    plain = scenario.load(name, weights="fixed").on_split(split)
    engine = Engine(plain, None, 8)
    engine.reset(range(8))
    clip = float(engine.prospect.norm.median())
    sigma = 0.0 if math.isinf(epsilon) else sigma_for(epsilon, plain.horizon, DELTA)
    terms = {"clip": round(clip, 4), "noise_multiplier": sigma, "noise": noise, "delta": DELTA}
    return scenario.load(name, weights="fixed", privacy=terms).on_split(split)


def paid(engine: Engine, rules: Sequence[str], seeds: Sequence[int], choices: Sequence[Tensor] | None) -> dict[str, Tensor]:
    """What rules pay in an episode, ``(E, N)`` each, and under ``choices`` what honest proxies chose, ``(T, E, N, K)``."""
    payers = {rule: credit.make(rule) for rule in rules}
    for rule in payers.values():
        rule.reset(engine.num_envs, engine.num_agents)
    engine.reset(seeds)
    honest = agents.make("honest")
    honest.begin(engine.layout, engine._keys)
    found = {rule: torch.zeros(engine.num_envs, engine.num_agents) for rule in rules}
    chosen = []
    while engine.t < engine.horizon:
        chosen.append(honest.act(engine.observations) if choices is None else choices[engine.t])
        engine.step(chosen[-1])
        for name, rule in payers.items():
            found[name] += engine.reward_scale * rule.assign(engine.round)
    return found | {"choices": torch.stack(chosen)}


def fidelities(name: str, splits: int, episodes: int, done: set[tuple[str, ...]]) -> Iterable[dict[str, Any]]:
    """Rows of one scenario: by split, noise and budget, how well every rule's credit survives."""
    for split, noise, epsilon in product(held_out_splits(splits), NOISES, EPSILONS):
        about = {"what": "credit", "scenario": name, "noise": noise, "epsilon": f"{epsilon:g}", "part": str(split)}
        if all((*(about[one] for one in ABOUT[:4]), rule, str(split)) in done for rule in RULES):
            continue
        seeds = range(EVALUATION_SEED, EVALUATION_SEED + episodes)
        quiet = Engine(private(name, noise, math.inf, split), None, episodes)
        truth = paid(quiet, ("shapley",), seeds, None)
        noised = Engine(private(name, noise, epsilon, split), None, episodes)
        found = paid(noised, RULES, seeds, list(truth["choices"]))
        test = noised.test()
        for rule in RULES:
            both = np.corrcoef(truth["shapley"].flatten().numpy(), found[rule].flatten().numpy())
            yield about | {
                "rule": rule,
                "fidelity": round(float(both[0, 1]), 5),
                "utility": round(float(test["utility"].double().mean()), 5),
                "accuracy": round(float(test["accuracy"].double().mean()), 5),
            }


def learned(name: str, seeds: int, steps: int, done: set[tuple[str, ...]]) -> Iterable[dict[str, Any]]:
    """Rows of one scenario: what proxies learn under noise."""
    for seed, rule, epsilon, noise in product(range(seeds), LEARNED, LEARNED_EPSILONS, NOISES):
        about = {"what": "learned", "scenario": name, "noise": noise, "epsilon": f"{epsilon:g}", "rule": rule, "part": str(seed)}
        if tuple(about[one] for one in ABOUT) in done or (math.isinf(epsilon) and noise == "step"):
            continue
        played = private(name, noise, epsilon, 8 * seed)
        home = played.model_copy(update={"data": played.data.model_copy(update={"split_seed": 8 * seed, "splits": 8})})
        yield about | trained_and_played(home, played, rule, seed, steps, MEASURES, _told)


def _told(engine: Engine, metrics: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The model's accuracy on test rows, and the loss of privacy that was spent."""
    return {"accuracy": engine.test()["accuracy"]} | ({"spent": metrics["epsilon"]} if "epsilon" in metrics else {})


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
    """The mean over splits or seeds of a measure, in some rows."""
    found = [float(row[measure]) for row in rows if row[measure] and all(row[key] == value for key, value in which.items())]
    return Estimate.of(torch.tensor(found, dtype=torch.float64))


def tables(rows: Sequence[dict[str, str]]) -> str:
    """Tables in Markdown."""
    lines: list[str] = []
    for name, noise in product(dict.fromkeys(row["scenario"] for row in rows), NOISES):
        own = [row for row in rows if row["scenario"] == name and row["noise"] == noise and row["what"] == "credit"]
        if own:
            lines += [f"**`{name}`, noise on {'the ' * (noise == 'step')}{noise}**", ""]
            lines += [f"| ε | accuracy | {' | '.join(f'`{rule}`' for rule in RULES)} |", "|---:|---:|" + "---:|" * len(RULES)]
            for epsilon in (f"{one:g}" for one in EPSILONS):
                cells = [told(estimate(own, "accuracy", epsilon=epsilon), 3)]
                cells += [told(estimate(own, "fidelity", epsilon=epsilon, rule=rule), 2) for rule in RULES]
                lines.append(f"| {epsilon.replace('inf', '∞')} | {' | '.join(cells)} |")
            lines.append("")
    trained = [row for row in rows if row["what"] == "learned"]
    if trained:
        shown = {"welfare": 1, "accuracy": 3, "clean_share": 2, "corrupt_share": 2, "spent": 1}
        lines += ["**What proxies learn**", "", f"| scenario | rule | noise | ε | {' | '.join(shown).replace('_', ' ')} | seeds |"]
        lines += ["|---|---|---|---:|" + "---:|" * (len(shown) + 1)]
        cells_of = dict.fromkeys((row["scenario"], row["rule"], row["noise"], row["epsilon"]) for row in trained)
        for name, rule, noise, epsilon in sorted(cells_of, key=lambda one: (*one[:3], float(one[3]))):
            which = {"scenario": name, "rule": rule, "noise": noise, "epsilon": epsilon}
            found = [estimate(trained, measure, **which) for measure in shown]
            cells = ["–" if one.mean is None else told(one, places) for one, places in zip(found, shown.values(), strict=True)]
            n = sum(all(row[key] == value for key, value in which.items()) for row in trained)
            where = "–" if epsilon == "inf" else noise
            lines.append(f"| `{name}` | `{rule}` | {where} | {epsilon.replace('inf', '∞')} | {' | '.join(cells)} | {n} |")
        lines.append("")
    return "\n".join(lines)


def picture(rows: Sequence[dict[str, str]]) -> Drawing:
    """Fidelity of rules, and accuracy of the model, against ε: a row of panels for each scenario, a column for each place of the noise."""
    own = [row for row in rows if row["what"] == "credit"]
    names = list(dict.fromkeys(row["scenario"] for row in own))
    figure, said = Figure((1.5 * WIDTH, 2.2 * len(names) + 0.6), layout="constrained"), []
    axes = figure.subplots(len(names), 2, squeeze=False, sharex=True, sharey=True)
    finite = [epsilon for epsilon in EPSILONS if not math.isinf(epsilon)]
    markers = "os^Dv<>P"
    for (i, name), (j, noise) in product(enumerate(names), enumerate(NOISES)):
        ax, here = axes[i][j], [row for row in own if row["scenario"] == name and row["noise"] == noise]
        for rule, marker in zip(RULES, markers, strict=False):
            means = [estimate(here, "fidelity", epsilon=f"{one:g}", rule=rule).mean for one in finite]
            ax.plot(finite, [math.nan if one is None else one for one in means], marker=marker, markersize=3, label=rule)
            said.append(f"{name}, noise on {noise}, {rule}: {', '.join('–' if one is None else f'{one:.2f}' for one in means)}")
        means = [estimate(here, "accuracy", epsilon=f"{one:g}").mean for one in finite]
        ax.plot(finite, [math.nan if one is None else one for one in means], color="black", linestyle="--", label="accuracy of the model")
        ax.set_xscale("log")
        ax.set_xticks([1, 10, 100, 1000], ["1", "10", "100", "1,000"])
        ax.minorticks_off()
        ax.set_title(f"{name}, noise on {'the ' * (noise == 'step')}{noise}")
        ax.set_ylim(-0.6, 1.04)
    figure.supxlabel("ε of a lot in an episode", fontsize=8)
    figure.supylabel("correlation with exact Shapley credit", fontsize=8)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=4)
    return drawing("privacy", figure, said)


def main() -> None:
    """Play and train what is missing, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenarios", nargs="+", default=list(SCENARIOS))
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--episodes", type=int, default=16, help="episodes on each split")
    parser.add_argument("--learned", action="store_true", help="train proxies too, in the first scenario")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each kind")
    parser.add_argument("--steps", type=int, default=120_000, help="agent-steps of each training")
    parser.add_argument("--csv", type=Path, default=Path(__file__).parents[2] / "docs" / "results" / "privacy.csv")
    parser.add_argument("--markdown", type=Path, help="write the tables into this file")
    parser.add_argument("--pictures", type=Path, help="write the picture into this folder")
    parser.add_argument("--draw", action="store_true", help="play nothing; only make tables and pictures of what is there")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = list(read(arguments.csv))
    if not arguments.draw:
        done = {tuple(row[one] for one in ABOUT) for row in rows}
        sources = [fidelities(name, arguments.splits, arguments.episodes, done) for name in arguments.scenarios]
        if arguments.learned:
            sources.append(learned(arguments.scenarios[0], arguments.seeds, arguments.steps, done))
        for source in sources:
            for row in tqdm(source, unit=" rows"):
                rows.append(row)
                write(arguments.csv, rows)
    rows = list(read(arguments.csv))
    text = tables(rows)
    sys.stdout.write(text)
    if arguments.markdown is not None:
        write_text(arguments.markdown, text)
    if arguments.pictures is not None:
        with house_style():
            made = picture(rows)
        write_bytes(arguments.pictures / "privacy.svg", made.svg)


if __name__ == "__main__":
    main()
