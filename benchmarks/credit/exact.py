"""Speed of exact Shapley values beside shapiq's ExactComputer and svfl, on the same games.

The game's values are a table, so that only the package's own work is timed, not the evaluation of coalitions. The games are monotone: worth
is the square root of what a coalition's members hold. Two things are timed for us and for shapiq: the value *by itself*, with all worths
known (``shapley_values(v)``; ``ExactComputer(..., evaluate_game=True)`` built beforehand, then ``computer("SV", 1)``), and *with the
game*, from a callable to the value (``credit.make("shapley").values(CoalitionGame(...))``; building an ``ExactComputer`` and
``("SV", 1)``). A batch is 256 games at once, and is given per game; shapiq takes games one by one.

svfl (PyPI, 0.1.0) goes through all n! orders of joining, so it is timed up to 8 players (10 take about a hundred times as long as 8). It is
not a Shapley value: a contribution is the amount by which a coalition's worth exceeds the sum of the earlier contributions, cut off at 0.
If no player harms any coalition, as here, nothing is cut off and the two agree.

Before anything is timed, all must agree. Everything runs on one thread, packages take turns, and medians are printed.

Run: ``python benchmarks/credit/exact.py [--repetitions 30] [--svfl-up-to 8]``.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from shapiq import ExactComputer
from svfl.svfl import calculate_sv
from threadpoolctl import threadpool_limits
from torch import Tensor

from proxycoop import credit
from proxycoop.credit import CoalitionGame, coalition_matrix, shapley_values

BATCH = 256


@dataclass
class Contender:
    """Something that is timed.

    Attributes:
        run: The call, on what ``prepare`` made.
        prepare: Makes it, untimed.
        games: How many games a call serves.
        seconds: A game took in each turn so far, on average.
    """

    run: Callable[[Any], object]
    prepare: Callable[[], Any] = lambda: None
    games: int = 1
    seconds: list[float] = field(default_factory=list)

    def turn(self) -> None:
        """As many calls as fit in 5 ms, and one at least."""
        total, calls = 0.0, 0
        while total < 0.005:
            prepared = self.prepare()
            began = time.perf_counter()
            self.run(prepared)
            total, calls = total + time.perf_counter() - began, calls + 1
        self.seconds.append(total / calls / self.games)


def table(n: int) -> Tensor:
    """Worths of a batch of games of n players, float64 ``(256, 2**n)``."""
    holdings = torch.rand(BATCH, n, dtype=torch.float64, generator=torch.Generator().manual_seed(n))
    return (holdings @ coalition_matrix(n).T.double()).sqrt()


def contenders(n: int, with_svfl: bool) -> dict[str, Contender]:
    v = table(n)
    one, worths, bits = v[:1].contiguous(), v[0].numpy(), 2 ** np.arange(n)
    codes = torch.from_numpy(bits)

    def ours(table: Tensor) -> Tensor:
        return credit.make("shapley").values(CoalitionGame(lambda coalitions: table[:, (coalitions * codes).sum(dim=1)], n))

    def look_up(coalitions: NDArray[np.bool_]) -> NDArray[np.float64]:
        return worths[coalitions @ bits]

    def built() -> ExactComputer:
        return ExactComputer(look_up, n_players=n, evaluate_game=True)

    def orders() -> dict[int, float]:
        value: dict[int, float] = calculate_sv({i: 1 << i for i in range(n)}, lambda code: worths[code], lambda some: sum(some.values()))
        return value

    timed = {
        "ours, by itself": Contender(lambda _: shapley_values(one)),
        "ours, by itself, batch": Contender(lambda _: shapley_values(v), games=BATCH),
        "ours, with the game": Contender(lambda _: ours(one)),
        "ours, with the game, batch": Contender(lambda _: ours(v), games=BATCH),
        "shapiq, by itself": Contender(lambda computer: computer("SV", 1), built),
        "shapiq, with the game": Contender(lambda _: built()("SV", 1)),
    }
    if with_svfl:
        timed["svfl"] = Contender(lambda _: orders())

    theirs = built()("SV", 1)
    answers = {"ours": ours(one)[0].tolist(), "shapiq": [float(theirs[(i,)]) for i in range(n)]}
    if with_svfl:
        answers["svfl"] = list(orders().values())
    expected = shapley_values(v)
    if not torch.allclose(ours(v), expected, rtol=0, atol=1e-12):
        sys.exit(f"n={n}: the rule and the function do not agree on the batch")
    for name, answer in answers.items():
        if not np.allclose(answer, expected[0].numpy(), rtol=0, atol=1e-9):
            sys.exit(f"n={n}: {name} gives {answer}, but shapley_values {expected[0].tolist()}")
    return timed


def measure(n: int, repetitions: int, with_svfl: bool) -> dict[str, float]:
    """Median seconds a game of every contender."""
    timed = contenders(n, with_svfl)
    for contender in timed.values():
        contender.turn()  # to warm up
        contender.seconds.clear()
    for turn in range(repetitions):
        for name, contender in timed.items():
            if name != "svfl" or turn < 3:  # orders take long, and their time hardly varies
                contender.turn()
    return {name: statistics.median(contender.seconds) for name, contender in timed.items()}


def pretty(seconds: float) -> str:
    return f"{seconds * 1e6:,.2f} µs" if seconds < 1e-3 else f"{seconds * 1e3:,.2f} ms" if seconds < 1 else f"{seconds:,.2f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--repetitions", type=int, default=30, help="Turns of each contender; svfl has three.")
    parser.add_argument("--svfl-up-to", type=int, default=8, help="Most players for svfl; 9 and 10 take minutes.")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    times = Table("players", "ours", f"ours, of {BATCH}", "shapiq", "svfl", title="exact Shapley, time a game (medians, one thread)")
    ratios = Table("players", "shapiq / ours", f"shapiq / ours of {BATCH}", "svfl / ours", title="ratios")
    with threadpool_limits(1):
        for n in (6, 8, 10, 12):
            with_svfl = n <= arguments.svfl_up_to
            seconds = measure(n, arguments.repetitions, with_svfl)
            for part in ("by itself", "with the game"):
                single, batch, theirs = (
                    seconds[f"{who}, {part}{many}"] for who, many in (("ours", ""), ("ours", ", batch"), ("shapiq", ""))
                )
                svfl = seconds["svfl"] if with_svfl and part == "with the game" else None
                label = f"{n}, {part}"
                times.add_row(label, pretty(single), pretty(batch), pretty(theirs), "" if svfl is None else pretty(svfl))
                ratios.add_row(label, f"{theirs / single:,.0f}", f"{theirs / batch:,.0f}", "" if svfl is None else f"{svfl / single:,.0f}")
    console = Console(width=110)
    console.print(times)
    console.print(ratios)


if __name__ == "__main__":
    main()
