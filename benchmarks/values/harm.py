"""Predicted harm against realised harm on real rounds, and whether screening by measured harm holds.

**Prediction.** Random proxies play every shipped scenario. In every round, the harm of all candidate updates and of the applied step is
predicted to first and to second order. It is compared with what the same change does to the value's loss on the screening's probe set
(*realised*), and on the probe test set, which no screening sees (*held out*). *r* is Pearson's correlation. *slope* is the least-squares
slope, through the origin, of realised on predicted harm; it is 1 where predictions are calibrated. *missed*: of the changes that truly
broke the strictest tolerance, the share that the prediction let pass. *false*: of the changes that the prediction stopped, the share that
would not have broken it.

**Counts.** Rounds in which a protected value's loss truly rose beyond somebody's tolerance, on the probe set: where nobody screens, with
unanimous screening by predicted and by measured harm, and with measured harm and the guard. The last must be 0, else the command fails.
Tolerances are those of the scenario, and a fifth of them, because a step is the mean of many lots.

Run: ``python benchmarks/values/harm.py [--rounds 500] [--markdown FILE]``; two minutes on two cores.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from proxycoop import agents
from proxycoop.envs import Engine, Scenario, scenario
from proxycoop.envs.screening.harm import Harm
from proxycoop.files import write_text

ORDERS = ("first_order", "second_order")
SCREENINGS: dict[str, dict[str, Any]] = {
    "nobody screens": {"governance": "none"},
    "unanimous, first order": {"governance": "unanimous"},
    "unanimous, second order": {"governance": "unanimous", "harm": "second_order"},
    "unanimous, measured": {"governance": "unanimous", "harm": "measured"},
    "unanimous, measured, guard": {"governance": "unanimous", "harm": "measured", "guard": True},
    "guard alone, measured": {"governance": "none", "harm": "measured", "guard": True},
}


@dataclass(frozen=True)
class Prediction:
    """How well one order foresees: on the probe set, and how well that tells of held-out people; see the module's docstring."""

    r: float
    slope: float
    missed: float
    false: float
    held_out: float


def play(one: Scenario, rounds: int, watch: Callable[[Engine, Callable[[], None]], None]) -> Engine:
    """Play whole episodes of random proxies; ``watch`` is given the engine before each round, and what plays it."""
    engine = Engine(one, None, -(-rounds // one.horizon))
    agent = agents.make("random")
    observations = engine.reset(range(engine.num_envs))
    agent.begin(engine.layout, engine.seeds)
    while engine.t < engine.horizon:
        actions = agent.act(observations)
        watch(engine, lambda actions=actions: engine.step(actions))  # type: ignore[misc]  # a default is how a loop's value is bound
        observations = engine.observations
    return engine


def predictions(name: str, rounds: int) -> dict[tuple[str, str], Prediction]:
    """By what (``updates``, ``steps``) and order, over the protected values of a scenario."""
    collected: dict[tuple[str, str], list[NDArray[np.float64]]] = {}

    def watch(engine: Engine, play_round: Callable[[], None]) -> None:
        look, theta, splits = engine.prospect, engine.theta, engine.splits
        updates = look.proposals.updates.flatten(1, 2)  # (E, N·K, P)
        tolerance = look.verdicts.profiles.strictest_tolerance[:, None]  # (E, 1, M)
        play_round()
        on_probe, on_test = (_harm("measured", engine, probes) for probes in (splits.probe, splits.probe_test))
        held_losses = on_test.losses(theta)
        for what, changes in (("updates", updates), ("steps", (engine.theta - theta)[:, None])):
            known = (theta, changes, look.value_losses, look.value_gradients)
            realised = on_probe(*known)  # (E, B, M)
            held_out = on_test(theta, changes, held_losses, look.value_gradients)
            for order in ORDERS:
                predicted = _harm(order, engine, splits.probe)(*known)
                all_of_it = torch.stack([predicted, realised, held_out, tolerance.expand_as(realised)], dim=-1)
                rows = all_of_it[tolerance.isfinite().expand_as(realised)]  # protected values alone
                collected.setdefault((what, order), []).append(rows.double().numpy())

    play(scenario.load(name).unlimited(), rounds, watch)
    return {key: _prediction(np.concatenate(parts)) for key, parts in collected.items()}


def _harm(kind: Any, engine: Engine, probes: Any) -> Harm:
    return Harm(kind, engine.values, [probes[value] for value in engine.values], engine.model, engine.splits.dataset)


def _prediction(rows: NDArray[np.float64]) -> Prediction:
    """Of rows ``(n, 4)``: predicted, realised, held-out harm, and tolerance."""
    predicted, realised, held_out, tolerance = rows.T
    breaks, stopped = realised > tolerance, predicted > tolerance
    return Prediction(
        r=float(np.corrcoef(predicted, realised)[0, 1]),
        slope=float((predicted * realised).sum() / (predicted * predicted).sum()),
        missed=float((breaks & ~stopped).sum() / breaks.sum()) if breaks.any() else np.nan,
        false=float((stopped & ~breaks).sum() / stopped.sum()) if stopped.any() else np.nan,
        held_out=float(np.corrcoef(predicted, held_out)[0, 1]),
    )


def beyond(name: str, screening: dict[str, Any], factor: float, rounds: int) -> int:
    """Rounds in which a protected value's loss on its probe set rose beyond the strictest tolerance."""
    profiles = [profile.tightened(factor) for profile in scenario.load(name).unlimited().profiles]
    engine = play(
        scenario.load(name, profiles=profiles, screening={"guard": False, **screening, "quorum": 0.5}),
        rounds,
        lambda _, play_round: play_round(),
    )
    losses = torch.stack([engine.initial_value_losses, *(result.value_losses for result in engine.history)])  # (T + 1, E, M)
    tolerance = torch.stack([result.tolerance for result in engine.history])  # (T, E, M)
    return int((losses.diff(dim=0) > tolerance + 1e-6).any(dim=-1).sum())


def measure(name: str, rounds: int) -> tuple[dict[tuple[str, str], Prediction], dict[tuple[str, float], int]]:
    """Everything about one scenario."""
    torch.set_num_threads(1)
    counts = {(label, factor): beyond(name, screening, factor, rounds) for factor in (1.0, 0.2) for label, screening in SCREENINGS.items()}
    return predictions(name, rounds), counts


def prediction_table(found: dict[str, Any]) -> str:
    """How well harm is foreseen, as Markdown."""
    lines = ["| scenario | of | order | r | slope | missed, % | false, % | r, held out |", "|---|---|---|---:|---:|---:|---:|---:|"]
    for name, (foreseen, _) in found.items():
        for (what, order), one in foreseen.items():
            shares = ("–" if np.isnan(share) else f"{100 * share:.1f}" for share in (one.missed, one.false))
            cells = [f"{one.r:.3f}", f"{one.slope:.2f}", *shares, f"{one.held_out:.3f}"]
            lines.append(f"| `{name}` | {what} | {order.split('_')[0]} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def count_table(found: dict[str, Any], rounds: int) -> str:
    """Rounds beyond a tolerance, as Markdown."""
    played = {name: -(-rounds // scenario.load(name).horizon) * scenario.load(name).horizon for name in found}
    lines = [
        "| rounds beyond a tolerance, of " + "/".join(sorted({str(n) for n in played.values()})) + " | " + " | ".join(found) + " |",
    ]
    lines += ["|---|" + "---:|" * len(found)]
    for factor in (1.0, 0.2):
        for label in SCREENINGS:
            cells = [str(counts[label, factor]) for _, counts in found.values()]
            lines.append(f"| {label}{'' if factor == 1 else f', tolerances × {factor:g}'} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the tables; fail if the guard does not hold."""
    names = [name for name in scenario.names() if scenario.load(name).participation is None]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=500, help="rounds in each scenario, rounded up to whole episodes")
    parser.add_argument("--scenarios", nargs="+", default=names, help="all by default")
    parser.add_argument("--jobs", type=int, default=2, help="processes side by side")
    parser.add_argument(
        "--markdown", type=Path, help="write the first table into this file, and the counts into one beside it, NAME-counts.md"
    )
    arguments = parser.parse_args()
    with ProcessPoolExecutor(arguments.jobs, multiprocessing.get_context("spawn")) as pool:
        running = {name: pool.submit(measure, name, arguments.rounds) for name in arguments.scenarios}
        found = {name: future.result() for name, future in tqdm(running.items(), unit=" scenarios")}
    predicted, counted = prediction_table(found), count_table(found, arguments.rounds)
    sys.stdout.write(f"\n{predicted}\n{counted}")
    if arguments.markdown is not None:
        write_text(arguments.markdown, predicted)
        write_text(arguments.markdown.with_stem(f"{arguments.markdown.stem}-counts"), counted)
    failures = [
        f"{name}, {label}, tolerances × {factor:g}: {count}"
        for name, (_, counts) in found.items()
        for (label, factor), count in counts.items()
        if count and "guard" in label
    ]
    if failures:
        sys.exit("steps went beyond a tolerance in spite of the guard: " + "; ".join(failures))


if __name__ == "__main__":
    main()
