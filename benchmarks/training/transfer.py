r"""Transfer: proxies trained on one split of the data, played on that split and on nine others, under each credit rule.

A split of the data decides which rows are in lots, which validate, which screen, and on which model the cooperative starts. A policy that
was trained on one split may have learned that split. So ten policies are trained under each rule, one on each of ten splits, and every
policy is played on all ten, :math:`W_{st}`. The diagonal is *at home*, the rest is *elsewhere*. Beside them stand ten policies that were
trained on eight splits each, none of which is among the ten: they are elsewhere on all.

What home is worth is :math:`h` in :math:`W_{st} = \mu + a_s + b_t + h\,[s = t] + e_{st}`. The table is balanced, so effects of policies and
splits cancel in the difference between the mean of the diagonal and that of the rest, whose variance is :math:`\sigma_e^2 (1/n + 1/(n^2 -
n))` (two-way analysis of variance without replication, Scheffé 1959, *The analysis of variance*, chapter 4). All other intervals are those
of :mod:`proxycoop.training.intervals`.

Run: ``python benchmarks/training/transfer.py [--scenarios breast_cancer] [--rules equal shapley] [--steps 60000] [--markdown FILE]``.
Finished trainings are kept in ``--out`` and not run again.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import scipy.stats
import torch
from torch import Tensor
from tqdm import tqdm

from proxycoop import agents
from proxycoop.envs import Engine, scenario
from proxycoop.files import write_text
from proxycoop.training.compare import CLASSIC_RULES
from proxycoop.training.evaluate import EVALUATION_SEED
from proxycoop.training.intervals import LEVEL, Estimate
from proxycoop.training.libraries.registry import settings_for
from proxycoop.training.train import train

ROOT = Path(__file__).parents[2]
EPISODES = 16
"""Episodes that a policy plays on each split."""
MANY = 8
"""Splits of a training on more than one, as trainings have by default."""
MEASURES = ("welfare", "clean_share")


def learn(name: str, rule: str, n_splits: int, split: int, steps: int, folder: Path) -> None:
    """Train on so many splits, unless that was done. Those of a training on many are no other training's."""
    torch.set_num_threads(1)
    first = split if n_splits == 1 else 1000 + n_splits * split
    home = scenario.load(name, **{"data.split_seed": first})
    settings = settings_for("ippo", "ppo", scenario=home, credit=rule, seed=split, total_steps=steps, splits=n_splits)
    train(settings, folder, resume=True, tensorboard=False)


def played(name: str, rule: str, folder: Path, n: int) -> dict[str, list[float]]:
    """Means over episodes on each of the splits 0 to n − 1, by measure. Whatever is compared plays the same cooperatives."""
    torch.set_num_threads(1)
    means: dict[str, list[float]] = {measure: [] for measure in MEASURES}
    for split in range(n):
        engine = Engine(scenario.load(name, **{"data.split_seed": split}), rule, EPISODES)
        first = EVALUATION_SEED + split * EPISODES
        metrics = agents.play(engine, agents.make("learned", path=folder), range(first, first + EPISODES))
        for measure in MEASURES:
            means[measure].append(float(metrics[measure].mean()))
    return means


def worth_of_home(matrix: Tensor) -> Estimate:
    """By how much entries of the diagonal lie above what their row and column would have them be, of a square matrix ``(n, n)``."""
    n = len(matrix)
    matrix, home = matrix.double(), torch.eye(n, dtype=torch.bool)
    gap = matrix.diagonal().mean() - matrix[~home].mean()
    rows, columns = torch.eye(n, dtype=torch.float64).repeat_interleave(n, dim=0), torch.eye(n, dtype=torch.float64).repeat(n, 1)
    design = torch.cat([rows, columns[:, 1:], home.flatten().double()[:, None]], dim=1)
    fitted = design @ torch.linalg.lstsq(design, matrix.reshape(-1, 1)).solution
    free = n * n - 2 * n
    variance = (matrix.reshape(-1, 1) - fitted).square().sum() / free * (1 / n + 1 / (n * n - n))
    return Estimate(float(gap), float(scipy.stats.t.ppf(0.5 + LEVEL / 2, free) * variance.sqrt()))


def told(of: Estimate, scale: float = 1.0) -> str:
    """An estimate, as text."""
    if of.mean is None:
        return "–"
    half = "" if of.half_width is None else f" ± {scale * of.half_width:.1f}"
    return f"{scale * of.mean:z.1f}{half}".replace("-", "−")


def elsewhere(matrix: Tensor) -> Tensor:
    """The matrix without its diagonal: NaN there."""
    return torch.where(torch.eye(len(matrix), dtype=torch.bool), torch.nan, matrix)


def row(name: str, rule: str, one: Mapping[str, Tensor], many: Mapping[str, Tensor]) -> str:
    """A rule's row of the table."""
    welfare, clean = one["welfare"], one["clean_share"]
    away = clean[~torch.eye(len(clean), dtype=torch.bool)]
    parts = [
        f"`{name}`",
        f"`{rule}`",
        told(Estimate.of(welfare.diagonal())),
        told(Estimate.crossed(elsewhere(welfare))),
        told(worth_of_home(welfare)),
        f"{100 * away.min():.0f} to {100 * away.max():.0f}",
        told(Estimate.crossed(many["welfare"])),
        told(Estimate.crossed(many["welfare"] - elsewhere(welfare))),
    ]
    return f"| {' | '.join(parts)} |"


def main() -> None:
    """Train, play, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenarios", nargs="+", default=["breast_cancer"])
    parser.add_argument("--rules", nargs="+", default=list(CLASSIC_RULES))
    parser.add_argument("--splits", type=int, default=10, help="splits, each with a policy that was trained there; at least 3")
    parser.add_argument("--steps", type=int, default=60_000, help="agent-steps of each training")
    parser.add_argument("--jobs", type=int, default=2, help="processes side by side, with one thread each")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "transfer", help="folder of the trainings")
    parser.add_argument("--markdown", type=Path, help="write the table into this file")
    arguments = parser.parse_args()
    if arguments.splits < 3:
        parser.error(f"--splits {arguments.splits}: at least 3 are needed to tell home from policies and splits")
    cells = [(name, rule) for name in arguments.scenarios for rule in arguments.rules]
    lessons = [(*cell, n_splits, split) for cell in cells for n_splits in (1, MANY) for split in range(arguments.splits)]
    folders = {one: arguments.out / one[0] / f"{one[1]}-{one[2]}-{arguments.steps}" / f"split-{one[3]}" for one in lessons}
    with ProcessPoolExecutor(arguments.jobs, multiprocessing.get_context("spawn")) as pool:
        trainings = [pool.submit(learn, *one, arguments.steps, folder) for one, folder in folders.items()]
        for training in tqdm(trainings, unit=" trainings"):
            training.result()
        plays = {one: pool.submit(played, *one[:2], folder, arguments.splits) for one, folder in folders.items()}
        by_policy = {one: play.result() for one, play in plays.items()}

    def matrices(name: str, rule: str, n_splits: int) -> dict[str, Tensor]:
        """Each measure of the ten policies on the ten splits, ``(n, n)``."""
        policies: Sequence[Mapping[str, list[float]]] = [by_policy[name, rule, n_splits, split] for split in range(arguments.splits)]
        return {measure: torch.tensor([one[measure] for one in policies], dtype=torch.float64) for measure in MEASURES}

    text = (
        f"{arguments.splits} policies a rule, trained by `ippo` for {arguments.steps:,} agent-steps, and played on the same "
        f"{arguments.splits} splits, {EPISODES} episodes each. Welfare is in reward units, and ± is a 95 % interval.\n\n"
        f"| scenario | rule | one split: at home | elsewhere | home's worth | clean lots elsewhere, % | {MANY} splits: elsewhere "
        f"| {MANY} less one |\n|---|---|{'---:|' * 6}\n"
    )
    text += "\n".join(row(*cell, matrices(*cell, 1), matrices(*cell, MANY)) for cell in cells) + "\n"
    sys.stdout.write(f"\n{text}")
    if arguments.markdown is not None:
        write_text(arguments.markdown, text)


if __name__ == "__main__":
    main()
