"""Error of Shapley estimators by budget, beside shapiq's estimators at the same budgets, in one run.

The games have known values (saturating utilities with redundant and harmful players, weighted coverage, random sums of unanimity games,
weighted majorities, airports), or are real rounds: of ``digits-mean``, ``digits`` and ``adult``, and of a multilayer perceptron and a
convolutional network. For rounds, values are exact for up to 16 agents; for more they come from an estimate with a surrogate and 1,000
evaluations per agent. Networks are played with up to 16. All estimators get the same number of evaluations. shapiq evaluates the empty
coalition, which is worth 0 by definition and costs us nothing, so ours get one evaluation less.

The number shown is the median, over games, of the relative L2 error ‖φ̂ − φ‖ / ‖φ‖. For each game and budget there are three:
``shapley(budget)``, which chooses its estimator by the number of players and the budget alone; the best of our estimators in hindsight; and
the best of shapiq's in hindsight. For rounds, ``shapley(budget)`` is shown with the round's surrogate as control variate, and without.
shapiq's SPEX and ProxySPEX, which look for sparse interactions, are left out: they refuse most of these budgets as too small.

shapiq runs in an interpreter of its own (``shapiq_worker.py``): ``make estimators`` sets up ``.venv-estimators`` with version 1.8.0, which
needs Python 3.12. Where there is none, the version that is installed here is taken, and the run says so.

Run: ``python benchmarks/credit/estimators.py [--players 8 16 32 64] [--budgets 2 5 10 20] [--games 20] [--markdown FILE]``; half an hour
on two cores.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from tqdm import tqdm

from proxycoop import credit
from proxycoop.credit import CoalitionGame, games
from proxycoop.envs import Engine, scenario
from proxycoop.files import write_text

HERE = Path(__file__).parent
SHAPIQ_PYTHON = HERE.parents[1] / ".venv-estimators" / "bin" / "python"
OURS = (
    "antithetic",
    "gaussian_process",
    "stacked",
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
KINDS = ("saturating", "coverage", "unanimity_sum", "weighted_majority", "airport")
UNSCREENED = {"screening.governance": "none", "screening.guard": False, "profiles": []}
TRAINED = {"substrate.local_lr": 0.3, "substrate.local_steps": 3, **UNSCREENED}
ROUNDS: dict[str, tuple[str, dict[str, Any]]] = {
    "rounds of digits-mean": ("digits-mean", {}),
    "rounds of digits": ("digits", {}),
    "rounds of adult": ("adult", {}),
    "rounds of an MLP": ("digits-mean", {"model": {"kind": "mlp", "hidden": [32]}, **TRAINED}),
    "rounds of a CNN": ("digits-mean", {"model": {"kind": "module", "factory": "networks:cnn"}, **TRAINED}),
}
"""Scenarios and changes of the rounds, by what they are called."""
EXACT_UP_TO = 16
FIRST_SEED = 1000  # the choices of shapley(budget) were made on games of lower seeds

Value = Callable[[Tensor], Tensor]


def known(kind: Any, n: int, n_games: int) -> Iterator[tuple[CoalitionGame, Tensor]]:
    """Games with their Shapley values."""
    for seed in range(FIRST_SEED, FIRST_SEED + n_games):
        if kind == "airport":
            game = games.airport(np.random.default_rng(seed).lognormal(size=n).tolist())
        else:
            game = games.random_game(kind, n, seed)
        yield CoalitionGame(game.value, n), game.shapley


def real_rounds(kind: str, n: int, n_games: int) -> Iterator[tuple[CoalitionGame, Tensor]]:
    """Rounds in which half of the lots are contributed at random, each of a cooperative and a time of its own."""
    name, changes = ROUNDS[kind]
    engine = Engine(scenario.load(name, principals=n, **changes), None, dtype=torch.float64)
    for seed in range(FIRST_SEED, FIRST_SEED + n_games):
        engine.reset([seed])
        generator = torch.Generator().manual_seed(seed)
        for _ in range(1 + seed % 8):
            engine.step(torch.rand(1, n, engine.num_lots, generator=generator) < 0.5)
        game = engine.round.game
        if n <= EXACT_UP_TO:
            rule = credit.make("shapley")
        else:
            rule = credit.make("shapley", budget=1000 * n, seed=seed)
        values = rule.values(game)[0]
        if values.norm() > 1e-9:  # something was admitted
            yield game, values


class Shapiq:
    """shapiq's estimators, in a process of their own."""

    def __init__(self, python: Path) -> None:
        self._listener = Listener(None)
        self._process = subprocess.Popen(
            [str(python), str(HERE / "shapiq_worker.py"), str(self._listener.address)], stderr=subprocess.DEVNULL
        )
        self._connection: Connection = self._listener.accept()
        _, (self.version, self.names) = self._connection.recv()

    def estimate(self, name: str, game: CoalitionGame, budget: int, seed: int) -> Tensor | None:
        """An estimate of the first environment's values; ``None`` if it refuses."""
        self._connection.send((name, game.n_players, budget, seed))
        while True:
            what, content = self._connection.recv()
            if what == "value":
                self._connection.send(game.value(torch.from_numpy(content))[0].numpy())
            else:
                return torch.from_numpy(np.nan_to_num(content, nan=np.inf)) if what == "done" else None

    def close(self) -> None:
        """End the process."""
        self._connection.send(None)
        self._process.wait()
        self._listener.close()


def shapiq_python() -> Path:
    """The interpreter that has shapiq 1.8, or else this one."""
    return SHAPIQ_PYTHON if SHAPIQ_PYTHON.exists() else Path(sys.executable)


def errors(game: CoalitionGame, shapley: Tensor, budget: int, seed: int, theirs: Shapiq | None) -> dict[str, float]:
    """Relative L2 error of every estimator that takes the budget; shapiq's are marked by a leading ``shapiq ``."""
    n, found = game.n_players, dict[str, Tensor]()

    def anew() -> CoalitionGame:  # an evaluation counts for whoever asks for it
        return CoalitionGame(game.value, n, surrogate=lambda _, most: game.surrogate(most))

    for name in ("shapley", "shapley(surrogate=False)", *OURS):
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
        found[name] = rule.values(anew())[0]
    for name in theirs.names if theirs is not None else ():
        answer = theirs.estimate(name, game, budget, seed)
        if answer is not None:
            found[f"shapiq {name}"] = answer
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
        """Our best estimator in hindsight, without surrogates."""
        return min((name for name in OURS if name in self.median), key=self.median.__getitem__)

    @property
    def theirs(self) -> str:
        """The best of shapiq's in hindsight."""
        return min((name for name in self.median if name.startswith("shapiq ")), key=self.median.__getitem__, default="")

    @property
    def chosen(self) -> str:
        """What ``shapley(budget)`` is here, on a bare game."""
        rule = credit.make("shapley", budget=int(self.times * self.n) - 1, surrogate=False)
        return rule.method(self.n).split(", ")[0].removeprefix("estimated by ")


def measure(kind: str, n: int, budgets: list[float], n_games: int, alone: bool) -> list[Place]:
    """All budgets for one kind of game and number of players."""
    torch.set_num_threads(1)
    samples: dict[float, dict[str, list[float]]] = {times: defaultdict(list) for times in budgets}
    theirs = None if alone else Shapiq(shapiq_python())
    for seed, (game, shapley) in enumerate(real_rounds(kind, n, n_games) if kind in ROUNDS else known(kind, n, n_games)):
        for times in budgets:
            for name, error in errors(game, shapley, int(times * n), seed, theirs).items():
                samples[times][name].append(error)
    if theirs is not None:
        theirs.close()
    return [
        Place(kind, n, times, {name: statistics.median(sample) for name, sample in by_name.items()}) for times, by_name in samples.items()
    ]


def full_table(places: list[Place]) -> Table:
    """Every place in a row."""
    table = Table("game", "N", "budget", "shapley(budget)", "error", "ours, best", "error", "shapiq, best", "error", "shapiq / shapley()")
    for place in places:
        median, chosen = place.median, place.median["shapley"]
        theirs = median.get(place.theirs, float("nan"))
        table.add_row(
            *(place.kind, str(place.n), f"{place.times:g} N", place.chosen, f"{chosen:.3f}", place.ours, f"{median[place.ours]:.3f}"),
            *(place.theirs.removeprefix("shapiq "), f"{theirs:.3f}", f"{theirs / max(chosen, 1e-12):.2f}"),
        )
    return table


def markdown(places: list[Place], budgets: list[float]) -> str:
    """A row for every kind and number of players: for rounds with and without surrogate, and shapiq's best; else ours and shapiq's best."""
    parts = []
    for title, shown, columns in (
        ("game", [p for p in places if p.kind not in ROUNDS], lambda p: ("shapley", p.ours, p.theirs)),
        ("", [p for p in places if p.kind in ROUNDS], lambda p: ("shapley", "shapley(surrogate=False)", p.theirs)),
    ):
        if not shown:
            continue
        lines = [
            f"| {title} | N | " + " | ".join(f"{times:g} N evaluations" for times in budgets) + " |",
            "|---|---:|" + "---:|" * len(budgets),
        ]
        for kind, n in dict.fromkeys((place.kind, place.n) for place in shown):
            cells = [
                " / ".join(_digits(place.median[name]) for name in columns(place) if name)
                for place in shown
                if (place.kind, place.n) == (kind, n)
            ]
            lines.append(f"| {kind.replace('_', ' ')} | {n} | " + " | ".join(cells) + " |")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _digits(error: float) -> str:
    return f"{error:.3f}" if error >= 0.0995 else f"{error:.2g}" if error >= 1e-4 else "<.0001"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--players", type=int, nargs="+", default=[8, 16, 32, 64])
    parser.add_argument("--budgets", type=float, nargs="+", default=[2, 5, 10, 20], help="evaluations a player")
    parser.add_argument("--games", type=int, default=20, help="of each kind")
    parser.add_argument("--kinds", nargs="+", default=[*KINDS, *ROUNDS], choices=[*KINDS, *ROUNDS])
    parser.add_argument("--alone", action="store_true", help="leave shapiq out")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes side by side")
    parser.add_argument("--markdown", type=Path, help="write a short table into this file")
    arguments = parser.parse_args()
    if not arguments.alone:
        theirs = Shapiq(shapiq_python())
        sys.stdout.write(f"beside shapiq {theirs.version or 'of this environment'}, {len(theirs.names)} estimators\n")
        if not SHAPIQ_PYTHON.exists():
            sys.stdout.write("there is no .venv-estimators with shapiq 1.8 (make estimators makes it where Python 3.12 is found)\n")
        theirs.close()
    networks = [kind for kind, (_, changes) in ROUNDS.items() if "model" in changes]
    cases = [(kind, n) for kind in arguments.kinds for n in arguments.players if kind not in networks or n <= EXACT_UP_TO]
    with ProcessPoolExecutor(arguments.jobs, multiprocessing.get_context("spawn")) as pool:
        running = {
            pool.submit(measure, kind, n, arguments.budgets, arguments.games, arguments.alone): (kind, n)
            for kind, n in sorted(cases, key=lambda case: -case[1])
        }
        for future in tqdm(as_completed(running), total=len(running), unit=" kinds and sizes"):
            future.result()  # an error is told at once
    done = {running[future]: future.result() for future in running}
    places = [place for case in cases for place in done[case]]
    Console(width=None if sys.stdout.isatty() else 170).print(full_table(places))
    chosen: tuple[tuple[str, Callable[[Place], str]], ...] = (
        ("shapley(budget)", lambda _: "shapley"),
        ("shapley(budget, surrogate=False)", lambda _: "shapley(surrogate=False)"),
        ("the best of ours without surrogates", lambda place: place.ours),
    )
    for what, name in () if arguments.alone else chosen:
        behind = [f"{p.kind}, N = {p.n}, {p.times:g} N" for p in places if p.median[p.theirs] < p.median[name(p)]]
        sys.stdout.write(f"{what} is behind shapiq's best at {len(behind)} of {len(places)} places: {'; '.join(behind) or 'none'}\n")
    if arguments.markdown is not None:
        write_text(arguments.markdown, markdown(places, arguments.budgets))


if __name__ == "__main__":
    main()
