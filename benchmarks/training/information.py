"""Incentive or information: how far proxies fall short of their own best replies, and how much of that is because they cannot see enough.

Three kinds of proxies play under the same credit rule in the same cooperatives:

* ``best_reply`` knows the true gain of every set of its lots and what the rule will pay for it. Everybody replies best to everybody. What
  it leaves out, the rule does not pay for: that is the incentive.
* *Learned, blind* proxies are trained by PPO on what a proxy observes.
* *Learned, informed* proxies are trained in the same way, and also observe what each of their lots would add to the round
  (``observations.marginal_gains``). Nothing is paid for it, and no rule changes.

Best reply less blind is the gap that is no matter of incentives. Informed less blind is the part of it that more information closes. The
rest is learning: exploration, one policy for all seats, a finite training, and that others explore too. A best reply is myopic and assumes
that the others reply as well, so it is no upper bound: learned proxies may do better.

Each seed trains on data splits of its own. All are evaluated in the same cooperatives, on splits that nobody trained on. Intervals are 95 %
and cover seeds and splits (:mod:`proxycoop.training.intervals`); gaps are paired by both.

Run: ``python benchmarks/training/information.py [--scenarios digits] [--rules equal] [--seeds 10] [--steps 300000] [--markdown FILE]``.
Finished trainings are kept in ``--out`` and not run again.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from tqdm import tqdm

from proxycoop import agents
from proxycoop.envs import Engine, Scenario, scenario
from proxycoop.files import write_text
from proxycoop.training.evaluate import EVALUATION_SEED, EVALUATION_SPLITS
from proxycoop.training.intervals import Estimate
from proxycoop.training.libraries.registry import settings_for
from proxycoop.training.train import train

ROOT = Path(__file__).parents[2]
EPISODES = 16
"""Episodes of the evaluation on each of its splits."""
SPLITS = 8
"""Data splits that a training plays on."""
MEASURES = ("welfare", "clean_share", "corrupt_share")
Sight = Literal["blind", "informed"]
SIGHTS: tuple[Sight, ...] = ("blind", "informed")
REFERENCES = ("best_reply", "planner")
Measured = Mapping[str, Tensor]
"""By measure a matrix of seeds by evaluation splits; one row for an agent that does not learn."""
Results = Mapping[str, Measured]
"""By who plays: ``best_reply``, ``planner``, ``blind``, ``informed``."""


def cooperative(name: str, sight: Sight = "blind", split: int = 0) -> Scenario:
    """The scenario on one split of its data."""
    return scenario.load(name, **{"data.split_seed": split, "observations.marginal_gains": sight == "informed"})


def learn(name: str, rule: str, sight: Sight, seed: int, steps: int, folder: Path) -> None:
    """Train, unless that was done."""
    torch.set_num_threads(1)
    home = cooperative(name, sight, seed * SPLITS)
    settings = settings_for("ippo", "ppo", scenario=home, credit=rule, seed=seed, total_steps=steps, splits=SPLITS)
    train(settings, folder, resume=True, tensorboard=False)


def played(name: str, rule: str, who: str, folder: Path | None, splits: Sequence[int]) -> dict[str, list[float]]:
    """Means over episodes on each split, by measure: of a policy in a folder, or of the agent called ``who``."""
    torch.set_num_threads(1)
    means: dict[str, list[float]] = {measure: [] for measure in MEASURES}
    for nth, split in enumerate(splits):
        agent = agents.make(who) if folder is None else agents.make("learned", path=folder)
        engine = Engine(cooperative(name, "informed" if who == "informed" else "blind", split), rule, EPISODES)
        first = EVALUATION_SEED + nth * EPISODES
        metrics = agents.play(engine, agent, range(first, first + EPISODES))
        for measure in MEASURES:
            means[measure].append(float(metrics[measure].mean()))
    return means


def stacked(by_seed: Sequence[Mapping[str, Sequence[float]]]) -> Measured:
    """Each measure as a matrix of seeds by splits."""
    return {measure: torch.tensor([one[measure] for one in by_seed], dtype=torch.float64) for measure in MEASURES}


def told(matrix: Tensor, scale: float = 1.0) -> str:
    """Mean and half-width of a matrix of seeds by splits."""
    of = Estimate.crossed(scale * matrix)
    half = "" if of.half_width is None else f" ± {of.half_width:.1f}"
    return f"{of.mean:z.1f}{half}".replace("-", "−")


def table(results: Mapping[tuple[str, str], Results]) -> str:
    """Scenario, rule and who plays, as Markdown."""
    lines = ["| scenario | rule | proxies | welfare | below best reply | clean lots, % | corrupt lots, % |", "|---|---|---|" + "---:|" * 4]
    names = {"best_reply": "best reply", "blind": "learned, blind", "informed": "learned, informed", "planner": "(planner)"}
    for (name, rule), of in results.items():
        for who in ("best_reply", "informed", "blind", "planner"):
            one = of[who]
            below = "–" if who in REFERENCES else told(of["best_reply"]["welfare"] - one["welfare"])
            shares = f"{told(one['clean_share'], 100)} | {told(one['corrupt_share'], 100)}"
            lines.append(f"| {name} | {rule} | {names[who]} | {told(one['welfare'])} | {below} | {shares} |")
    return "\n".join(lines) + "\n"


def findings(results: Mapping[tuple[str, str], Results]) -> str:
    """What the table says, in sentences made from its numbers."""
    said = []
    for (name, rule), of in results.items():
        reply, blind, informed, planner = (of[who]["welfare"] for who in ("best_reply", "blind", "informed", "planner"))
        incentive, information, learning = planner - reply, informed - blind, reply - informed
        sure = Estimate.crossed(information)
        proven = sure.mean is not None and sure.half_width is not None and abs(sure.mean) > sure.half_width
        said.append(
            f"On `{name}` under `{rule}`, best replies end {told(incentive)} reward units of welfare below the planner: that is the "
            f"incentive. Blind proxies learn to end {told(reply - blind)} below best replies. Of that, information accounts for "
            f"{told(information)}{'' if proven else ' (not told from none)'}, and learning for {told(learning)}."
        )
    return "\n\n".join(said) + "\n"


def main() -> None:
    """Train, evaluate, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenarios", nargs="+", default=["digits"])
    parser.add_argument("--rules", nargs="+", default=["equal"])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=10)
    parser.add_argument("--steps", type=int, default=300_000, help="agent-steps of each training")
    parser.add_argument("--splits", type=int, default=len(EVALUATION_SPLITS), help="data splits of the evaluation")
    parser.add_argument("--jobs", type=int, default=2, help="processes side by side, with one thread each")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "information", help="folder of the trainings")
    parser.add_argument("--markdown", type=Path, help="write the table and what it says into this file")
    arguments = parser.parse_args()
    seeds, splits = range(arguments.first_seed, arguments.first_seed + arguments.seeds), EVALUATION_SPLITS[: arguments.splits]
    cells = [(name, rule) for name in arguments.scenarios for rule in arguments.rules]
    lessons = [(name, rule, sight, seed) for name, rule in cells for sight in SIGHTS for seed in seeds]
    folders = {one: arguments.out / one[0] / f"{one[1]}-{one[2]}-{arguments.steps}" / f"seed-{one[3]}" for one in lessons}
    with ProcessPoolExecutor(arguments.jobs, multiprocessing.get_context("spawn")) as pool:
        trainings = [pool.submit(learn, *one, arguments.steps, folder) for one, folder in folders.items()]
        references = {(*cell, who): pool.submit(played, *cell, who, None, splits) for cell in cells for who in REFERENCES}
        for training in tqdm(trainings, unit=" trainings"):
            training.result()
        policies = {one: pool.submit(played, *one[:3], folder, splits) for one, folder in folders.items()}
        results = {
            cell: {sight: stacked([policies[(*cell, sight, seed)].result() for seed in seeds]) for sight in SIGHTS}
            | {who: stacked([references[(*cell, who)].result()]) for who in REFERENCES}
            for cell in cells
        }
    text = (
        f"PPO by `ippo` with its default settings, {arguments.steps:,} agent-steps, {arguments.seeds} seeds; {EPISODES} episodes on each "
        f"of {len(splits)} data splits that nobody trained on. Welfare is in reward units; ± is a 95 % interval over seeds and splits:\n\n"
        f"{table(results)}\n{findings(results)}"
    )
    sys.stdout.write(f"\n{text}")
    if arguments.markdown is not None:
        write_text(arguments.markdown, text)


if __name__ == "__main__":
    main()
