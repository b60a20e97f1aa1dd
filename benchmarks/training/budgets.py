r"""Do policies differ if credit is estimated within a budget instead of counted exactly? A convolutional network as the shared model.

In ``digits``, with a convolutional network of 1,626 parameters, proxies are trained under exact ``shapley`` (64 evaluations of the model
a round) and under ``shapley(budget=12)``. The same seeds train under both. Every policy then plays the same cooperatives, on splits of the
data on which none was trained. Shown are welfare and the share of clean lots that are contributed, means over seeds, and the paired
difference with its 95 % interval (Student's t over seeds).

Run: ``python benchmarks/training/budgets.py [--steps 120000] [--seeds 5] [--markdown FILE]``; an hour and a half of one core. Finished
trainings are kept in ``--out`` and not run again.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1] / "credit"))  # the network, which processes find by its module's name

from proxycoop import agents
from proxycoop.envs import Engine, Scenario, scenario
from proxycoop.files import read_json, write_json, write_text
from proxycoop.training.evaluate import EVALUATION_SEED, held_out_splits
from proxycoop.training.intervals import Estimate
from proxycoop.training.libraries.registry import settings_for
from proxycoop.training.train import train

ROOT = Path(__file__).parents[2]
RULES = ("shapley", "shapley(budget=12)")
EPISODES = 16
"""Episodes that a policy plays on each split."""
SPLITS = 4
MEASURES = ("welfare", "clean_share")


def of_network() -> Scenario:
    """The cooperative. It keeps the learning rates of ``digits``, at which honest proxies gain 21 and all lots together lose 15."""
    return scenario.load("digits", model={"kind": "module", "factory": "networks:cnn"})


def learned(rule: str, seed: int, steps: int, folder: Path) -> dict[str, float]:
    """Train, unless that was done; then play on the splits that were held out."""
    torch.set_num_threads(1)
    home = of_network()
    settings = settings_for("ippo", "ppo", scenario=home, credit=rule, seed=seed, total_steps=steps, splits=1)
    took = folder / "seconds.json"
    if not took.exists():
        began = time.process_time()
        train(settings, folder, resume=True, tensorboard=False)
        write_json(took, {"seconds": time.process_time() - began})
    found: dict[str, list[float]] = {name: [] for name in MEASURES}
    for index, split in enumerate(held_out_splits(SPLITS)):
        first = EVALUATION_SEED + index * EPISODES
        # what agents are paid does not change what they do, so the cheapest rule pays
        engine = Engine(home.on_split(split), "equal", EPISODES)
        played = agents.play(engine, agents.make("learned", path=folder), range(first, first + EPISODES))
        for name in MEASURES:
            found[name].append(float(played[name].double().mean()))
    return {name: sum(means) / len(means) for name, means in found.items()} | read_json(took)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=120_000, help="agent-steps of each training")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=1, help="processes side by side")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "budgets")
    parser.add_argument("--markdown", type=Path, help="write the table into this file")
    arguments = parser.parse_args()
    with ProcessPoolExecutor(arguments.jobs, multiprocessing.get_context("spawn")) as pool:
        running = {
            (rule, seed): pool.submit(learned, rule, seed, arguments.steps, arguments.out / rule / str(seed))
            for seed in range(arguments.seeds)
            for rule in RULES
        }
        found = {which: one.result() for which, one in tqdm(running.items(), unit=" trainings")}

    def of(rule: str, name: str) -> torch.Tensor:
        return torch.tensor([found[rule, seed][name] for seed in range(arguments.seeds)], dtype=torch.float64)

    lines = ["| | `shapley` | `shapley(budget=12)` | difference, paired |", "|---|---:|---:|---:|"]
    for name, title, scale in (("welfare", "welfare", 1.0), ("clean_share", "clean lots contributed, %", 100.0)):
        exact, estimated = (scale * of(rule, name) for rule in RULES)
        paired = Estimate.of(estimated - exact)
        apart = "" if paired.half_width is None else f" ± {paired.half_width:.1f}"
        lines.append(f"| {title} | {float(exact.mean()):.1f} | {float(estimated.mean()):.1f} | {paired.mean:.1f}{apart} |")
    seconds = [float(of(rule, "seconds").median()) for rule in RULES]
    lines.append(f"| CPU seconds of a training | {seconds[0]:,.0f} | {seconds[1]:,.0f} | |")
    text = "\n".join(lines).replace("-", "−").replace("|−−−|", "|---|").replace("−−−:", "---:") + "\n"
    sys.stdout.write(text)
    if arguments.markdown is not None:
        write_text(arguments.markdown, text)


if __name__ == "__main__":
    main()
