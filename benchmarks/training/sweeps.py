"""Where the findings hold and where they turn: what credit rules teach, by the settings that decide it.

Five sweeps, each along one setting, all others as the scenario has them:

* the cost of contributing a lot for a round (``reward.contribution_cost``);
* the discount of the learner (``gamma``);
* the number of principals (``principals``);
* the share of the lots that are corrupt (``lots.corruption.share``);
* the share of the common gain that everybody gets besides their credit (``reward.public_share``).

At every point proxies are trained under every rule with every seed, and evaluated on data splits that nobody trained on, as in ``proxycoop
compare``. Welfare is given as a share of what the planner that measures reaches in the same cooperatives, at the same point. Bands are the
95 % intervals of ``proxycoop compare``.

All are swept in ``breast_cancer``, whose members do not interact, unless another scenario is named.

Run: ``python benchmarks/training/sweeps.py [--seeds 10] [--steps N] [--only cost] [--markdown FILE]``, which writes the pictures beside the
file. Finished cells are kept in ``--out`` and not run again.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

from proxycoop.envs import scenario
from proxycoop.files import output_folder, write_bytes, write_text
from proxycoop.training.pages.sweep_page import sweep_drawings, sweep_markdown
from proxycoop.training.sweep import Plan, planned, sweep, swept

ROOT = Path(__file__).parents[2]
SCENARIO = "breast_cancer"
RULES = ("equal", "shapley")


class Question(NamedTuple):
    """A sweep.

    Attributes:
        setting: What is varied.
        values: The values, as ``proxycoop sweep --vary`` takes them.
        heading: What it is about, in words.
    """

    setting: str
    values: str
    heading: str


QUESTIONS = {
    "cost": Question("reward.contribution_cost", "0,.05,.15,.6", "What contributing costs"),
    "gamma": Question("gamma", "0,.5,.99", "How far proxies look ahead"),
    "principals": Question("principals", "4,6,10", "How many principals there are"),
    "corruption": Question("lots.corruption.share", "0,.25,.5,.75", "How many lots are corrupt"),
    "public": Question("reward.public_share", "0,.1,.5", "How much of the common gain everybody gets"),
}
"""The sweeps, by the names that ``--only`` takes. Each holds the value that the scenario has. Six principals have four lots each, so all
shares of corrupt lots are whole numbers of lots."""


def plans(arguments: argparse.Namespace) -> dict[str, Plan]:
    """The sweeps that are asked for. All are checked before the first runs."""
    how = {
        "library": arguments.library,
        "episodes": arguments.episodes,
        "evaluation_splits": arguments.evaluation_splits,
        "total_steps": arguments.steps,
    }
    agents = arguments.agent or ["honest", "best_reply"]
    how = {name: value for name, value in how.items() if value is not None}
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    return {
        key: planned(
            [scenario.load(name) for name in arguments.scenario or [SCENARIO]],
            arguments.rule or RULES,
            seeds,
            {question.setting: question.values},
            agents=agents,
            **how,
        )
        for key, question in QUESTIONS.items()
        if not arguments.only or key in arguments.only
    }


def text_of(key: str, folder: Path, pictures: list[str]) -> str:
    """A sweep's part of the page: its heading, its pictures, its tables and findings."""
    question = QUESTIONS[key]
    (setting,) = swept(folder).settings
    meaning = swept(folder).meanings[setting.column]
    shown = "\n\n".join(f"![{question.heading}: welfare of each rule by {question.setting}]({name})" for name in pictures)
    return f"## {question.heading}\n\n`{question.setting}`: {meaning[0].lower()}{meaning[1:]}\n\n{shown}\n\n{sweep_markdown(folder)}"


def parsed(words: list[str] | None = None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", "-s", action="append", help="may be repeated (default: breast_cancer)")
    parser.add_argument("--rule", "-r", action="append", help=f"may be repeated (default: {', '.join(RULES)})")
    parser.add_argument(
        "--agent", "-a", action="append", help="scripted agent beside the rules, may be repeated (default: honest, best_reply)"
    )
    parser.add_argument("--only", action="append", choices=QUESTIONS, help="may be repeated (default: all)")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--library", default="ippo", help="RL library that trains")
    parser.add_argument("--steps", type=int, help="agent-steps of each training (default: the algorithm's)")
    parser.add_argument("--episodes", type=int, help="episodes of each evaluation on each split (default: as in compare)")
    parser.add_argument("--evaluation-splits", type=int, help="data splits of each evaluation (default: as in compare)")
    parser.add_argument("--jobs", type=int, help="processes that run at once (default: one per core)")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "sweeps", help="folder of the sweeps")
    parser.add_argument("--markdown", type=Path, help="write the page into this file, and the pictures beside it as .svg")
    return parser.parse_args(words)


def main() -> None:
    """Run the sweeps, and write tables and pictures."""
    arguments = parsed()
    parts = []
    for key, plan in plans(arguments).items():
        folder = arguments.out / key
        sweep(plan, folder, jobs=arguments.jobs)
        drawings = sweep_drawings(folder)
        names = [f"sweeps-{key}-{name}.svg" for name in dict.fromkeys(cell.settings.scenario.name for cell in plan.points[0].cells)]
        parts.append(text_of(key, folder, names))
        sys.stdout.write(f"\n{parts[-1]}")
        if arguments.markdown is not None:
            place = output_folder(arguments.markdown.parent)
            for name, drawn in zip(names, drawings, strict=True):
                write_bytes(place / name, drawn.svg)
    if arguments.markdown is not None:
        write_text(
            arguments.markdown, f"Seeds {arguments.first_seed} to {arguments.first_seed + arguments.seeds - 1}.\n\n" + "\n".join(parts)
        )


if __name__ == "__main__":
    main()
