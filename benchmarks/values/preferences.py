"""How well value profiles are learned from choices, by the number of choices.

A person with known preferences is simulated. Gain has weight 1; harm to two values has weights 1.5 and 1; harm to the first value beyond .3
has an additional weight of 8. She chooses between random updates (a quarter of them against no update) by a Bradley–Terry model, and
:func:`~proxycoop.envs.fit_profile` gets her choices. The table has the median error of the direction over values; how often the tolerance
was found, and its median error where it was; how often the 95 % intervals contain the truth; and the accuracy on held-out choices, beside
the accuracy of her true preferences.

Run: ``python benchmarks/values/preferences.py [--seeds 50] [--markdown FILE]``; two minutes on two cores.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from tqdm import tqdm

from proxycoop.envs import Comparisons, fit_profile
from proxycoop.files import write_text

WEIGHTS = np.array([1.5, 1.0])
TOLERANCE, STEEPENING = 0.3, 8.0
SIZES = (50, 100, 200, 400, 800, 1600)
FIRST_SEED = 500


def planted(n: int, seed: int) -> tuple[Comparisons, float]:
    """Choices of the planted person, and how often she chooses what she thinks better."""
    random = np.random.default_rng(seed)
    first, second, gain = random.normal(0, 0.4, (n, 2)), random.normal(0, 0.4, (n, 2)), random.normal(0, 1, (n, 2))
    second[::4], gain[::4, 1] = 0, 0

    def utility(harm: NDArray[np.float64]) -> NDArray[np.float64]:
        utility: NDArray[np.float64] = -harm @ WEIGHTS - STEEPENING * np.maximum(harm[:, 0] - TOLERANCE, 0)
        return utility

    better = utility(first) - utility(second) + gain[:, 0] - gain[:, 1]
    chose = random.random(n) < expit(better)
    return Comparisons(("first", "second"), first, second, chose, gain), float((chose == (better > 0)).mean())


def recovery(seed: int, n: int) -> list[float]:
    """Of one person: angle, whether the tolerance was found, its error, whether intervals hold the truth, accuracies."""
    comparisons, possible = planted(n, seed)
    fit = fit_profile(comparisons)
    true = WEIGHTS / np.linalg.norm(WEIGHTS)
    cosine = sum(fit.direction[name] * one for name, one in zip(fit.weights, true, strict=True)) if fit.direction else math.nan
    found = "first" in fit.tolerances
    low, high = fit.tolerance_intervals["first"] if found else (math.nan, math.nan)
    intervals = [fit.weight_intervals.get(name) for name in fit.weights]
    held = [one is not None and one[0] <= truth <= one[1] for one, truth in zip(intervals, WEIGHTS, strict=True)]
    return [
        math.degrees(math.acos(min(max(cosine, -1), 1))) if not math.isnan(cosine) else math.nan,
        float(found),
        abs(fit.tolerances["first"] - TOLERANCE) if found else math.nan,
        float(np.mean(held)),
        float(low <= TOLERANCE <= high) if found else math.nan,
        math.nan if fit.accuracy is None else fit.accuracy.accuracy,
        possible,
    ]


def table(found: dict[int, NDArray[np.float64]]) -> str:
    """The measures by number of choices, as Markdown."""
    lines = [
        "| choices | direction, median error | tolerance found | its median error | weights in their 95 % intervals | tolerance in its | "
        "accuracy, held out | of one who knows |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for n, rows in found.items():
        angle, is_found, error, weights, tolerance, accuracy, possible = rows.T
        cells = [f"{np.nanmedian(angle):.1f}°", f"{100 * is_found.mean():.0f} %", f"{np.nanmedian(error):.3f}"]
        cells += [f"{100 * share:.0f} %" for share in (weights.mean(), np.nanmean(tolerance), np.nanmean(accuracy), possible.mean())]
        lines.append(f"| {n} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=50, help="persons for each number of choices")
    parser.add_argument("--jobs", type=int, default=2, help="processes side by side")
    parser.add_argument("--markdown", type=Path, help="write the table into this file")
    arguments = parser.parse_args()
    seeds = range(FIRST_SEED, FIRST_SEED + arguments.seeds)
    found = {}
    with ProcessPoolExecutor(arguments.jobs, multiprocessing.get_context("spawn")) as pool:
        for n in tqdm(SIZES, unit=" sizes"):
            found[n] = np.array(list(pool.map(partial(recovery, n=n), seeds)))
    text = table(found)
    sys.stdout.write(f"\n{text}")
    if arguments.markdown is not None:
        write_text(arguments.markdown, text)


if __name__ == "__main__":
    main()
