"""The two levels of a tuning: the outer loop chooses a mechanism, and in the inner loop proxies learn under it.

Each trial trains proxies anew under its mechanism, once for each *tuning seed*, and is scored by what they then reach on data splits that
nobody trained on. The best of many noisy scores is too high: the winner's curse. So in the end the best trial's mechanism and the one that
was given are trained anew on *held-out seeds*, and measured on other splits. The difference is paired by seed and split.

References:
    Zheng, Trott, Srinivasa, Parkes & Socher (2022), *The AI Economist: taxation policy design via two-level deep multiagent reinforcement
    learning*, Science Advances 8(18). There, a planner learns a tax policy by reinforcement learning while agents learn. Here, the outer
    loop searches few parameters without gradients, and proxies are trained to the end under each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from ...checks import whole_number
from ...files import output_folder
from ..evaluate import held_out_splits
from ..executors import require_place
from .found import HeldOut, Tuned
from .plan import Plan
from .pool import Answer, TrainAll, training_pool
from .search import BATCH, Search
from .trainings import Training, scoring_splits

Told = Callable[[int, int, str], None]
"""Called with the trainings that are done, their total, and what was just finished."""


def tune(
    plan: Plan,
    folder: str | Path,
    *,
    trials: int = 20,
    held_out_seeds: int = 5,
    jobs: int | None = None,
    ray: str | None = None,
    told: Told | None = None,
) -> Tuned:
    """Search the parameters, and compare the best with the defaults on held-out seeds.

    If this is stopped, the same call goes on. More trials may be added, and more held-out seeds.

    Args:
        plan: What is tuned; see :func:`~proxycoop.training.tuning.planned`.
        folder: Where the search and the trainings are kept.
        trials: Number of trials, those included that the folder holds already. The defaults are the first, if they lie in the ranges.
        held_out_seeds: Number of seeds of the comparison, at least 2.
        jobs: Processes that run at once; by default one per core. The results do not depend on it.
        ray: Address of a Ray cluster on which trainings run instead; see :mod:`~proxycoop.training.executors`. Nor on this.
        told: Called after each training, and before the first.

    Raises:
        ValueError: If the folder holds another tuning, all trials fail, or a training of the comparison does. A trial whose values do not
            go together, or whose training diverges, is recorded as failed, and the search goes on.
    """
    whole_number("trials", trials, 1)
    whole_number("held_out_seeds", held_out_seeds, 2)
    require_place(jobs, ray)
    plan.trainings(plan.default, plan.held_out_seeds(held_out_seeds), (), Path(), "")  # refuses seeds that train on splits of evaluations
    place, seeds = output_folder(folder), list(plan.seeds)
    search = Search(place, plan.parameters, plan.settings.sampler_seed, plan.settings.plain(), plan.default)
    kept = {one.number for one in search.trials()}
    n_trials = max([trials, *(number + 1 for number in kept)])
    total = n_trials * len(seeds) + 2 * held_out_seeds
    done = len(kept) * len(seeds)

    def report(what: str) -> None:
        nonlocal done
        done += 1
        if told is not None:
            told(done, total, what)

    if told is not None:
        told(done, total, "")
    with training_pool(plan.modules, jobs, ray) as train_all:
        for first in range(0, n_trials, BATCH):
            numbers = range(first, min(first + BATCH, n_trials))
            asked: dict[int, list[Training]] = {}
            for number, values in search.proposed(numbers).items():
                what = f"trial {number + 1} of {n_trials}"
                try:
                    asked[number] = plan.trainings(values, seeds, scoring_splits(plan.settings.evaluation_splits), place, what)
                except ValueError as error:
                    search.tell(number, None, {}, str(error))
                    done += len(seeds)
            found = train_all([training for some in asked.values() for training in some], report)
            for number, some in asked.items():
                _tell(search, number, [found[training.folder] for training in some], plan.settings.objective)
        tried = tuple(search.trials())
        if all(one.score is None for one in tried):
            raise ValueError(f"all {len(tried)} trials failed; the first: {tried[0].failed}")
        tuned = Tuned(plan, tried, None)
        if not tuned.best.is_default:
            tuned = Tuned(plan, tried, _compared(tuned, held_out_seeds, place, train_all, report))
    if told is not None:
        told(total, total, "")
    return tuned


def _tell(search: Search, number: int, answers: Sequence[Answer], objective: str) -> None:
    """Record a trial: its scores by objective, seed and split, or why a training failed."""
    scores = [one for one in answers if not isinstance(one, str)]
    if failed := [one for one in answers if isinstance(one, str)]:
        search.tell(number, None, {}, failed[0])
        return
    by_objective = {name: [one[name] for one in scores] for name in scores[0]}
    means = [mean for row in by_objective[objective] for mean in row]
    score = sum(means) / len(means)
    if not math.isfinite(score):
        search.tell(number, None, {}, f"its {objective} is no finite number")
        return
    search.tell(number, score, by_objective)


def _compared(tuned: Tuned, count: int, folder: Path, train_all: TrainAll, report: Callable[[str], None]) -> HeldOut:
    """Train the best trial's mechanism and the defaults on held-out seeds, and measure both on the same splits.

    Raises:
        ValueError: If a training fails.
    """
    plan = tuned.plan
    seeds, splits = plan.held_out_seeds(count), tuple(held_out_splits(plan.settings.evaluation_splits))
    pair = {
        which: plan.trainings(values, seeds, splits, folder, f"held out: {which}")
        for which, values in (("tuned", tuned.best.values), ("default", plan.default))
    }
    found = train_all([training for some in pair.values() for training in some], report)
    scores: dict[str, list[dict[str, list[float]]]] = {}
    for which, some in pair.items():
        for training in some:
            answer = found[training.folder]
            if isinstance(answer, str):
                raise ValueError(f"{training.what}: failed: {answer}")
            scores.setdefault(which, []).append(answer)
    by_objective = {which: {name: [one[name] for one in rows] for name in rows[0]} for which, rows in scores.items()}
    return HeldOut(tuple(seeds), splits, by_objective["tuned"], by_objective["default"])
