"""The price of values: how much a cooperative gains and how well it protects, for every filter, as tolerances grow from 0.

All clean lots are offered (the oracle), and all tolerances are multiplied by a factor from 0 up. *Gain* is the rise of the utility on the
test set, in nats. *Harm* is the rise of the protected values' losses on the probe test sets, which no screening sees; each is divided by
its shipped tolerance, and they are averaged. Below 0, those who are protected are better off than before. A filter dominates another where
it gains more and harms no more. So for every point of ``reject``, the largest gain of the other filters with at most the same harm is read
off their curves, by linear interpolation. If they always harm more, the point is out of their reach.

Run: ``python benchmarks/values/strictness.py [--markdown FILE]``, which writes the picture beside the file; three minutes on two cores.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from tqdm import tqdm

from proxycoop import agents
from proxycoop.envs import Engine, scenario
from proxycoop.files import write_atomically, write_text

FILTERS = {"reject": ("#D55E00", "o"), "scale": ("#0072B2", "s"), "project": ("#009E73", "^")}
HARMS = {"first_order": "-", "measured": ":"}
FACTORS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.35, 0.6, 1.0, 1.5, 2.5, 1e6)
FACTORS_OF = {"first_order": FACTORS, "measured": FACTORS[::2]}  # measuring takes longer
SCENARIOS = ("digits", "breast_cancer", "adult")
SPLITS = range(5)
EPISODES = 16

Curve = NDArray[np.float64]
"""Harm and gain at every factor, ``(n, 2)``."""


def curve(name: str, filter_name: str, harm: str) -> Curve:
    """What a filter gains at which harm, by factor on the tolerances; means over splits and episodes."""
    torch.set_num_threads(1)
    shipped = scenario.load(name).unlimited()
    tolerances = {value: tau for profile in shipped.profiles for value, tau in profile.tolerances.items()}
    points = []
    for factor in FACTORS_OF[harm]:
        profiles = [profile.tightened(factor) for profile in shipped.profiles]
        screening = {"governance": "unanimous", "filter": filter_name, "harm": harm, "guard": False}
        per_split = []
        for split in SPLITS:
            changes = {"profiles": profiles, "screening": screening, "data.split_seed": split, "reward.scale": 1.0}
            engine = Engine(scenario.load(name, **changes), None, EPISODES)
            engine.reset(range(EPISODES))
            start = engine.test()
            agents.play(engine, agents.make("oracle"), range(EPISODES))
            end = engine.test()
            harms = [(end[f"value/{value}"] - start[f"value/{value}"]).mean() / tau for value, tau in tolerances.items()]
            per_split.append([float(sum(harms)) / len(harms), float((end["utility"] - start["utility"]).mean())])
        points.append(np.mean(per_split, axis=0))
    return np.array(points)


def at_equal_harm(of: Curve, harms: Curve) -> Curve:
    """The most that a curve gains with at most so much harm, ``(n,)``; nan where all of it harms more.

    A curve may turn back, and then has several gains at one harm; along a segment between neighbouring factors it is taken to be straight.
    """
    most = np.full(len(harms), np.nan)
    for i, harm in enumerate(harms):
        gains = of[of[:, 0] <= harm + 1e-6, 1].tolist()  # equal but for rounding
        for (h, gain), (next_h, next_gain) in pairwise(of):
            if min(h, next_h) < harm < max(h, next_h):
                gains.append(gain + (harm - h) / (next_h - h) * (next_gain - gain))
        most[i] = max(gains, default=np.nan)
    return most


def table(curves: dict[tuple[str, str, str], Curve]) -> str:
    """Gain and harm by factor, first order, and what the other filters gain where reject stands, as Markdown."""
    lines = [
        "| scenario | tolerances × | reject: gain, harm | scale: gain, harm | project: gain, harm | scale at reject's harm "
        "| project at reject's harm |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name in dict.fromkeys(name for name, _, _ in curves):
        reject, *others = (curves[name, one, "first_order"] for one in FILTERS)
        for i, factor in enumerate(FACTORS):
            cells = [f"{of[i, 1]:.3f}, {of[i, 0]:+.2f}" for of in (reject, *others)]
            more = (at_equal_harm(of, reject[i : i + 1, 0])[0] - reject[i, 1] for of in others)
            cells += ["out of reach" if np.isnan(one) else f"{one:+.3f}" for one in more]
            lines.append(f"| `{name}` | {'∞' if factor > 1e3 else f'{factor:g}'} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def picture(curves: dict[tuple[str, str, str], Curve]) -> Figure:
    """Gain against harm, one panel a scenario."""
    names = list(dict.fromkeys(name for name, _, _ in curves))
    figure = Figure(figsize=(4.3 * len(names), 4.1), layout="constrained")
    for ax, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        for (of, filter_name, harm), points in curves.items():
            if of == name:
                colour, marker = FILTERS[filter_name]
                label = filter_name if harm == "first_order" else f"{filter_name}, measured harm"
                ax.plot(points[:, 0], points[:, 1], HARMS[harm], color=colour, marker=marker, markersize=3.5, linewidth=1.5, label=label)
        end = curves[name, "reject", "first_order"][-1]
        ax.plot(*end, "k*", markersize=11, label="nobody screens")
        limits = ax.get_xlim()
        ax.axvline(0, color="#999999", linewidth=0.8)
        ax.set_xlim(limits)  # where nobody is worse off, there is no need to show it
        ax.set_title(name, loc="left", fontweight="bold", fontsize=11)
        ax.set_xlabel("harm to the protected, in shipped tolerances\n(left: better off than before)", fontsize=9)
        ax.grid(color="#e8e8e8", linewidth=0.7)
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=8)
    figure.axes[0].set_ylabel("gain in test utility, nats", fontsize=9)
    figure.axes[0].legend(fontsize=8, frameon=False, loc="lower right")
    return figure


def main() -> None:
    """Print the table and draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenarios", nargs="+", default=list(SCENARIOS))
    parser.add_argument("--jobs", type=int, default=2, help="processes side by side")
    parser.add_argument("--markdown", type=Path, help="write the table into this file, and the picture beside it as .svg")
    arguments = parser.parse_args()
    keys = [
        (name, one, harm) for name in arguments.scenarios for harm in HARMS for one in FILTERS if harm == "first_order" or one != "scale"
    ]
    with ProcessPoolExecutor(arguments.jobs, multiprocessing.get_context("spawn")) as pool:
        running = {key: pool.submit(curve, *key) for key in keys}
        curves = {key: future.result() for key, future in tqdm(running.items(), unit=" curves")}
    text = table(curves)
    sys.stdout.write(f"\n{text}")
    if arguments.markdown is not None:
        write_text(arguments.markdown, text)
        figure = picture(curves)
        write_atomically(arguments.markdown.with_suffix(".svg"), lambda file: figure.savefig(file, format="svg", metadata={"Date": None}))


if __name__ == "__main__":
    main()
