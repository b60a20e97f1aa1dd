"""Error of Shapley estimators by budget, beside shapiq's estimators at the same budgets, in one run.

The games have known values (saturating utilities with redundant and harmful players, weighted coverage, random sums of unanimity games), or
are real rounds of a cooperative on ``digits-mean``. For these, values are exact for up to 16 agents; for more agents they come from an
antithetic estimate with 1,000 evaluations per agent. All estimators get the same number of evaluations. shapiq evaluates the empty
coalition, which is worth 0 by definition and costs us nothing, so ours get one evaluation less.

The number shown is the median, over games, of the relative L2 error ‖φ̂ − φ‖ / ‖φ‖. For each game and budget there are three:
``shapley(budget)``, which chooses its estimator by the number of players and the budget alone; the best of our estimators in hindsight; and
the best of shapiq's in hindsight. shapiq's SPEX and ProxySPEX, which look for sparse interactions, are left out: they refuse most of these
budgets as too small.

Run: ``python benchmarks/credit/estimators.py [--players 8 16 32 64] [--budgets 2 5 10 20] [--games 20] [--markdown FILE]``; six
minutes on two cores.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import sys
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapiq
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from shapiq.approximator import kADDSHAP
from torch import Tensor
from tqdm import tqdm

from proxycoop import credit
from proxycoop.credit import games
from proxycoop.envs import Engine, scenario
from proxycoop.files import write_text

OURS = (
    "antithetic",
    "kernelshap",
    "kernelshap(by_size=True)",
    "leverage",
    "leverage(by_size=True)",
    "size_regression",
    "complementary",
    "stratified_svarm",
    "svarm",
    "tmc",
    "gtg",
)
THEIRS: dict[str, Callable[[int, int], shapiq.Approximator]] = {
    "PermutationSamplingSV": lambda n, seed: shapiq.PermutationSamplingSV(n=n, random_state=seed),
    "StratifiedSamplingSV": lambda n, seed: shapiq.StratifiedSamplingSV(n=n, random_state=seed),
    "OwenSamplingSV": lambda n, seed: shapiq.OwenSamplingSV(n=n, random_state=seed),
    "KernelSHAP": lambda n, seed: shapiq.KernelSHAP(n=n, random_state=seed),
    "KernelSHAP, paired": lambda n, seed: shapiq.KernelSHAP(n=n, pairing_trick=True, random_state=seed),
    "UnbiasedKernelSHAP, paired": lambda n, seed: shapiq.UnbiasedKernelSHAP(n=n, pairing_trick=True, random_state=seed),
    "kADDSHAP, paired": lambda n, seed: kADDSHAP(n=n, max_order=2, pairing_trick=True, random_state=seed),
    "SVARM": lambda n, seed: shapiq.SVARM(n=n, random_state=seed),
    "SVARM, paired": lambda n, seed: shapiq.SVARM(n=n, pairing_trick=True, random_state=seed),
}
KINDS: tuple[games.GameKind, ...] = ("saturating", "coverage", "unanimity_sum")
ROUNDS = "real rounds"
EXACT_UP_TO = 16
FIRST_SEED = 1000  # the choices of shapley(budget) were made on games of lower seeds

Value = Callable[[Tensor], Tensor]


def known(kind: games.GameKind, n: int, n_games: int) -> Iterator[tuple[Value, Tensor]]:
    """Games with their Shapley values."""
    for seed in range(FIRST_SEED, FIRST_SEED + n_games):
        game = games.random_game(kind, n, seed)
        yield game.value, game.shapley


def real_rounds(n: int, n_games: int) -> Iterator[tuple[Value, Tensor]]:
    """Rounds in which half of the lots are contributed at random, each of a cooperative and a time of its own."""
    engine = Engine(scenario.load("digits-mean").model_copy(update={"principals": n}), None, dtype=torch.float64)
    for seed in range(FIRST_SEED, FIRST_SEED + n_games):
        engine.reset([seed])
        generator = torch.Generator().manual_seed(seed)
        for _ in range(1 + seed % 8):
            engine.step(torch.rand(1, n, engine.num_lots, generator=generator) < 0.5)
        game = engine.round.game
        rule = credit.make("shapley") if n <= EXACT_UP_TO else credit.make("antithetic", budget=1000 * n, seed=seed)
        yield (lambda coalitions, game=game: game.value(coalitions)[0]), rule.values(game)[0]


def as_shapiq(value: Value) -> Callable[[NDArray[np.bool_]], NDArray[np.float64]]:
    """The game as shapiq calls it, with one coalition or many."""
    return lambda coalitions: value(torch.from_numpy(np.atleast_2d(np.asarray(coalitions, dtype=bool)))).numpy()


def errors(value: Value, shapley: Tensor, n: int, budget: int, seed: int) -> dict[str, float]:
    """Relative L2 error of every estimator that takes the budget; shapiq's are marked by a leading ``shapiq ``."""
    found: dict[str, Tensor] = {}
    for name in ("shapley", *OURS):
        arguments: dict[str, object] = {"budget": budget - 1, "seed": seed}
        if name == "tmc":
            arguments["tolerance"] = 0.0  # nothing is saved here by stopping early
        if name == "gtg":
            arguments |= {"between": 0.0, "within": 0.0, "convergence": 0.0}
        rule = credit.make(name, **arguments)
        try:
            rule.check(n)
        except ValueError:
            continue  # below its least budget
        assert isinstance(rule, credit.GameRule)
        found[name] = rule.values(credit.CoalitionGame(value, n))[0]
    for name, make in THEIRS.items():
        answer = make(n, seed).approximate(budget, as_shapiq(value))
        found[f"shapiq {name}"] = torch.tensor([float(answer[(i,)]) for i in range(n)], dtype=torch.float64)
    return {name: float((phi.double() - shapley).norm() / shapley.norm()) for name, phi in found.items()}


@dataclass(frozen=True)
class Place:
    """Median errors for one kind of game, number of players and budget, by estimator."""

    kind: str
    n: int
    times: float
    median: dict[str, float]

    @property
    def ours(self) -> str:
        """Our best estimator in hindsight."""
        return min((name for name in OURS if name in self.median), key=self.median.__getitem__)

    @property
    def theirs(self) -> str:
        """The best of shapiq's in hindsight."""
        return min((name for name in self.median if name.startswith("shapiq ")), key=self.median.__getitem__)

    @property
    def chosen(self) -> str:
        """What ``shapley(budget)`` is here."""
        return credit.make("shapley", budget=int(self.times * self.n) - 1).method(self.n).split(", ")[0].removeprefix("estimated by ")


def measure(kind: str, n: int, budgets: list[float], n_games: int) -> list[Place]:
    """All budgets for one kind of game and number of players."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # shapiq's, about budgets and solvers
    samples: dict[float, dict[str, list[float]]] = {times: defaultdict(list) for times in budgets}
    for seed, (value, shapley) in enumerate(real_rounds(n, n_games) if kind == ROUNDS else known(kind, n, n_games)):
        for times in budgets:
            for name, error in errors(value, shapley, n, int(times * n), seed).items():
                samples[times][name].append(error)
    return [
        Place(kind, n, times, {name: statistics.median(sample) for name, sample in by_name.items()}) for times, by_name in samples.items()
    ]


def full_table(places: list[Place]) -> Table:
    """Every place in a row."""
    table = Table("game", "N", "budget", "shapley(budget)", "error", "ours, best", "error", "shapiq, best", "error", "shapiq / shapley()")
    for place in places:
        median, chosen = place.median, place.median["shapley"]
        table.add_row(
            *(place.kind, str(place.n), f"{place.times:g} N", place.chosen, f"{chosen:.3f}", place.ours, f"{median[place.ours]:.3f}"),
            *(place.theirs.removeprefix("shapiq "), f"{median[place.theirs]:.3f}", f"{median[place.theirs] / max(chosen, 1e-12):.2f}"),
        )
    return table


def markdown(places: list[Place], budgets: list[float]) -> str:
    """The errors of shapley(budget), of our best and of shapiq's best, a row for every kind and number of players."""
    lines = [
        "| game | N | " + " | ".join(f"{times:g} N evaluations" for times in budgets) + " |",
        "|---|---:|" + "---:|" * len(budgets),
    ]
    for kind, n in dict.fromkeys((place.kind, place.n) for place in places):
        cells = [
            " / ".join(f"{place.median[name]:.3f}" for name in ("shapley", place.ours, place.theirs))
            for place in places
            if (place.kind, place.n) == (kind, n)
        ]
        lines.append(f"| {kind.replace('_', ' ')} | {n} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--players", type=int, nargs="+", default=[8, 16, 32, 64])
    parser.add_argument("--budgets", type=float, nargs="+", default=[2, 5, 10, 20], help="evaluations a player")
    parser.add_argument("--games", type=int, default=20, help="of each kind")
    parser.add_argument("--kinds", nargs="+", default=[*KINDS, ROUNDS], choices=[*KINDS, "weighted_majority", ROUNDS])
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes side by side")
    parser.add_argument("--markdown", type=Path, help="write a short table into this file")
    arguments = parser.parse_args()
    cases = [(kind, n) for kind in arguments.kinds for n in arguments.players]
    with ProcessPoolExecutor(arguments.jobs, multiprocessing.get_context("spawn")) as pool:
        running = {
            pool.submit(measure, kind, n, arguments.budgets, arguments.games): (kind, n)
            for kind, n in sorted(cases, key=lambda case: -case[1])
        }
        for future in tqdm(as_completed(running), total=len(running), unit=" kinds and sizes"):
            future.result()  # an error is told at once
    done = {running[future]: future.result() for future in running}
    places = [place for case in cases for place in done[case]]
    Console(width=None if sys.stdout.isatty() else 170).print(full_table(places))
    for what, name in (("shapley(budget)", lambda _: "shapley"), ("the best of ours", lambda place: place.ours)):
        behind = [f"{p.kind}, N = {p.n}, {p.times:g} N" for p in places if p.median[p.theirs] < p.median[name(p)]]
        sys.stdout.write(f"{what} is behind shapiq's best at {len(behind)} of {len(places)} places: {'; '.join(behind) or 'none'}\n")
    if arguments.markdown is not None:
        write_text(arguments.markdown, markdown(places, arguments.budgets))


if __name__ == "__main__":
    main()
