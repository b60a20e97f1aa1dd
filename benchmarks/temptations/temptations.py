r"""What do credit rules tempt proxies to do when they may forge updates, or declare other values than their principals have?

Two trials, each with every rule that can serve the scenario. In the first, every proxy may send four forged updates beside its lots: an
echo of the last step, noise, a twin of its first lot, and its second lot three times as large. In the second it may declare its
principal's tolerances at a fifth or at five times. A third training, without either, is what both are compared with. Every policy then
plays the same cooperatives, on splits of the data on which none was trained. A few rules are trained twice as long as well.

Rules that pay the same here (estimators whose budget covers all coalitions, for instance) are trained once: ``trials.alike`` plays some
episodes of random choices under each, and compares what they pay. Defences against forgeries pay like the rule that they defend where there
are none.

Every finished training is a row of the CSV file and is not run again. So the file may come from several runs.

Run: ``python benchmarks/temptations/temptations.py [--scenarios digits-mean] [--rules loo] [--seeds 5] [--steps 120000] [--jobs 1]
[--minutes M] [--csv FILE] [--markdown FILE] [--pictures FOLDER]``; ten to thirty seconds of one core for each training, of which there are
1,925.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path

from echoes import echoes
from pictures import pictures
from result_tables import lengths, tables
from rows import Table
from tqdm import tqdm
from trials import SCENARIOS, TRIALS, alike, measured, rules_of, tasks

from proxycoop import credit
from proxycoop.files import write_bytes, write_text

ROOT = Path(__file__).parents[2]


def main() -> None:
    """Train what is missing, and write tables and pictures of what is there."""
    told_steps = ", ".join(f"{n_steps:,} in {name}" for name, n_steps in SCENARIOS.items())
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenarios", nargs="+", choices=list(SCENARIOS), default=list(SCENARIOS))
    parser.add_argument("--trials", nargs="+", choices=list(TRIALS), default=list(TRIALS))
    parser.add_argument("--rules", nargs="+", choices=sorted(credit.RULES), default=sorted(credit.RULES), metavar="RULE")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, help=f"agent-steps of each training (default: {told_steps})")
    parser.add_argument("--jobs", type=int, default=1, help="processes side by side")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no training after so many minutes")
    parser.add_argument("--csv", type=Path, default=ROOT / "docs" / "results" / "temptations.csv")
    parser.add_argument("--markdown", type=Path, help="write the tables into this file")
    parser.add_argument("--pictures", type=Path, help="write the pictures into this folder, as SVG")
    parser.add_argument("--draw", action="store_true", help="train nothing: only tables and pictures of what the CSV file has")
    arguments = parser.parse_args()
    if arguments.seeds < 1 or arguments.jobs < 1 or arguments.minutes < 0 or (arguments.steps or 1) < 1:
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
    kept = Table(arguments.csv)
    kept.read()  # what is wrong in it is said before anything is played
    played = tqdm(list(itertools.product(arguments.scenarios, arguments.trials)), "comparing what rules pay", leave=False)
    same = {(name, trial): alike(name, trial, rules_of(name, arguments.rules)) for name, trial in played}
    all_tasks = list(tasks(same, arguments.seeds, arguments.steps))
    waiting = kept.missing(all_tasks)
    sys.stderr.write(f"{len(waiting)} of {len(all_tasks)} trainings are missing\n")
    if waiting and not arguments.draw:
        kept.measure(waiting, measured, arguments.jobs, arguments.minutes)
    asked = {kept.key(vars(task)) for task in all_tasks}
    rows = [row for row in kept.read() if kept.key(row) in asked]  # not those of other seeds or lengths that the file may have
    usual = [row for row in rows if int(row["steps"]) == (arguments.steps or SCENARIOS[row["scenario"]])]
    text = f"{tables(usual, same, arguments.rules)}\n{lengths(rows)}{echoes(arguments.scenarios)}"
    sys.stdout.write(text)
    if arguments.markdown is not None:
        write_text(arguments.markdown, text)
    for one in pictures(usual, same) if arguments.pictures is not None and usual else ():
        write_bytes(arguments.pictures / f"{one.key}.svg", one.svg)


if __name__ == "__main__":
    main()
