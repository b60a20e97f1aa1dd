"""What is lost when proxies are paid late: PPO rewarded by credit in every round, and by settlements every 1, 4 and 16 rounds.

By credit, a proxy is rewarded in the round in which it acts. Under ``settlement.reward: settlement`` it pays its costs at once, and is paid
when the cooperative settles: the revenue for improvement is split by cumulative Shapley credit. Even with a settlement in every round, when
nothing is late, this differs from credit in two ways. Shares are cumulative: old credit still draws a part of what others earn now, and a
contribution is paid for in small parts in all later rounds. And negative credit is not charged; it counts as 0.

With longer periods payment is late as well, but less of it depends on old credit. A single settlement at the end pays each proxy about the
sum of its own credits, because the revenue is then the whole gain, and Shapley credit sums to it. Each variant is trained with the default
discount, which looks two rounds ahead, and with a discount that looks over the whole episode. A settlement policy that forgets nearly all
old credit, settled every round, shows how much is due to cumulative shares.

All use Stable-Baselines3's PPO with its default settings, splits of the data by the seed, and the same 64 evaluation episodes per seed.
Welfare is what the cooperative gained minus everybody's costs, whoever is paid when; it is given as a share of the oracle's welfare on the
same episodes. Intervals are Student's over seeds.

Run: ``python benchmarks/training/delay.py [--seeds 5] [--steps 120000] [--markdown FILE]``, which writes the picture beside the file.
Finished trainings are kept in ``--out`` and not run again.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter
from tqdm import tqdm

from proxycoop import agents
from proxycoop.envs import Engine, Scenario, scenario
from proxycoop.files import write_atomically, write_text
from proxycoop.training.analysis.summary import Floats
from proxycoop.training.compare import EVALUATION_SEED
from proxycoop.training.evaluate import Estimate
from proxycoop.training.libraries.registry import find, settings_for
from proxycoop.training.pages.drawing import BLUE, GREY, VERMILION, Look, drawing, figure_of_lines, fit, house_style, line, name_ends
from proxycoop.training.train import train

SCENARIO = "breast_cancer"
RULE = "shapley"
EPISODES = 64
PERIODS = (1, 4, 16)
FAR_SIGHTED = 0.99
FORGETFUL = 0.1
"""Decay of the policy that forgets: a round's credit counts a tenth a round later."""
ROOT = Path(__file__).parents[2]
MEASURES = ("welfare", "clean_share", "corrupt_share")
BY_ROUND = "clean_share_by_round"


@dataclass(frozen=True)
class Pay:
    """How proxies are paid.

    Attributes:
        period: Rounds between settlements; ``None`` rewards by credit.
        decay: Of the settlement's policy.
    """

    period: int | None = None
    decay: float = 1.0

    @property
    def words(self) -> str:
        """For the table."""
        if self.period is None:
            return "credit, every round"
        often = "once an episode" if self.period == 16 else f"every {self.period} rounds" if self.period > 1 else "every round"
        return f"settlement, {often}" + (f", decay {self.decay:g}" if self.decay < 1 else "")

    @property
    def key(self) -> str:
        """Its folder's name."""
        return "credit" if self.period is None else f"settlement-{self.period}-decay-{self.decay:g}"

    def scenario(self, seed: int) -> Scenario:
        """The cooperative, its data split by the seed."""
        money = {"reward": "settlement", "period": self.period, "policy": {"decay": self.decay}}
        return scenario.load(SCENARIO, **{"data.split_seed": seed}, **({} if self.period is None else {"settlement": money}))


PAYS = (Pay(), *(Pay(period) for period in PERIODS), Pay(1, FORGETFUL))
LOOKS = (
    Look("#000000", "-", "D"),
    Look("#009E73", (0, (5, 1.5)), "o"),
    Look("#CC79A7", (0, (1, 1)), "^"),
    Look("#E69F00", (0, (7, 1.5, 1, 1.5)), "s"),
)
Results = Mapping[tuple[Pay, float], Mapping[str, Floats]]
"""By pay and discount the measures by name, one number a seed, or by round one for each."""


def learn(pay: Pay, gamma: float, seed: int, steps: int, folder: Path) -> None:
    """Train, unless that was done."""
    torch.set_num_threads(1)
    settings = settings_for("sb3", "ppo", scenario=pay.scenario(seed), credit=RULE, seed=seed, total_steps=steps, gamma=gamma, splits=1)
    train(settings, folder, resume=True, tensorboard=False)


def played(agent: agents.Agent, pay: Pay, seed: int) -> dict[str, Any]:
    """Means over a seed's evaluation episodes: the measures, and the share of clean lots contributed by round."""
    first = EVALUATION_SEED + seed * EPISODES
    engine = Engine(pay.scenario(seed), RULE, EPISODES)
    metrics = agents.play(engine, agent, range(first, first + EPISODES))
    clean = ~engine.lots.corrupt
    by_round = [float((result.contributed & clean).sum() / clean.sum()) for result in engine.history]
    return {name: float(metrics[name].mean()) for name in MEASURES} | {BY_ROUND: by_round}


def by_seed(measured: Sequence[Mapping[str, Any]]) -> dict[str, Floats]:
    """Each measure's values over seeds, ``(n_seeds,)``; by round ``(n_seeds, T)``."""
    return {name: np.array([one[name] for one in measured]) for name in (*MEASURES, BY_ROUND)}


def estimate(values: Floats) -> str:
    """Mean and half-width of the 95 % interval over seeds, in per cent, of shares."""
    of = Estimate.of(torch.from_numpy(100 * values))
    half = "" if of.half_width is None else f" ± {of.half_width:.0f}"
    return f"{of.mean:z.0f}{half}".replace("-", "−")


def table(results: Results, references: Mapping[str, Mapping[str, Floats]]) -> str:
    """Pay × discount, as Markdown."""
    lines = [
        "| paid by | γ | welfare, % of the oracle's | below credit, points | clean lots contributed, % | in the first, the last quarter "
        "| corrupt lots, % |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    oracle = references["oracle"]["welfare"]
    for (pay, gamma), measures in results.items():
        share = measures["welfare"] / oracle
        below = "–" if pay.period is None else estimate(results[Pay(), gamma]["welfare"] / oracle - share)
        lines.append(f"| {' | '.join([pay.words, f'{gamma:g}', estimate(share), below, *_lots(measures)])} |")
    for name, measures in references.items():
        share = measures["welfare"] / oracle
        lines.append(f"| {' | '.join([f'(the agent `{name}`)', '–', estimate(share), '–', *_lots(measures)])} |")
    return "\n".join(lines) + "\n"


def _lots(measures: Mapping[str, Floats]) -> list[str]:
    """Cells on what was contributed."""
    by_round = 100 * measures[BY_ROUND].mean(axis=0)
    quarter = len(by_round) // 4
    ends = f"{by_round[:quarter].mean():.0f}, {by_round[-quarter:].mean():.0f}"
    return [estimate(measures["clean_share"]), ends, estimate(measures["corrupt_share"])]


def findings(results: Results, oracle: Floats) -> str:
    """What the table says, in sentences made from its numbers."""

    def beside(pay: Pay, gamma: float, other: Pay) -> str:
        """By how much it lies below another, in points of the oracle's welfare, seed by seed."""
        points = 100 * (results[other, gamma]["welfare"] - results[pay, gamma]["welfare"]) / oracle
        of = Estimate.of(torch.from_numpy(points))
        words = f"{abs(of.mean):.0f} points {'below' if of.mean > 0 else 'above'}"
        if of.half_width is None:
            return f"{words} (one seed)"
        return f"{words} (± {of.half_width:.0f}{', so it cannot be told from none' if abs(of.mean) <= of.half_width else ''})"

    return (
        "\n\n".join(
            f"With γ = {gamma:g}, what proxies learn from settlements every round, where nothing is late, lies "
            f"{beside(Pay(1), gamma, Pay())} what they learn from credit; where old credit is all but forgotten (decay {FORGETFUL:g}), "
            f"{beside(Pay(1, FORGETFUL), gamma, Pay())}. What settlements every 4 rounds teach lies {beside(Pay(4), gamma, Pay(1))} what "
            f"those of every round teach, and once an episode {beside(Pay(16), gamma, Pay(1))}."
            for gamma in dict.fromkeys(gamma for _, gamma in results)
        )
        + "\n"
    )


def picture(results: Results, oracle: Floats, path: Path) -> None:
    """Welfare by how often is settled (small points are seeds), and when in an episode clean lots are contributed."""
    gammas = list(dict.fromkeys(gamma for _, gamma in results))
    pays = [pay for pay in PAYS if pay.decay == 1]
    often = [pay.words.removeprefix("settlement, ") for pay in pays]
    said = []
    with house_style():
        figure = figure_of_lines(often, 2.3, panels=1 + len(gammas))
        first, *others = figure.subplots(1 + len(gammas), 1)
        ends = []
        for gamma, look, shift in zip(gammas, (Look(VERMILION, "-", "o"), Look(BLUE, (0, (5, 1.5)), "s")), (-0.1, 0.1), strict=True):
            shares = [results[pay, gamma]["welfare"] / oracle for pay in pays]
            means = [float(share.mean()) for share in shares]
            first.plot(range(1, len(pays)), means[1:], color=look.colour, linestyle=look.dashes)
            for place, share in enumerate(shares):
                _points(first, place, shift, share, look, look.colour)
            _points(first, 1.3, shift, results[Pay(1, FORGETFUL), gamma]["welfare"] / oracle, look, "white")
            ends.append((len(pays) - 1.0, means[-1], f"γ = {gamma:g}", look.colour))
            told = ", ".join(f"{pay.words} {mean:.0%}" for pay, mean in zip(pays, means, strict=True))
            said.append(f"Welfare, of the oracle's, γ = {gamma:g}: {told}")
        first.axhline(1, color=GREY, linestyle=(0, (4, 2)), linewidth=1)
        ends.append((len(pays) - 1.0, 1.0, "oracle", GREY))
        first.set_title(f"Welfare, of the oracle's (white: decay {FORGETFUL:g})")
        first.set_xticks([*range(len(pays)), 1.3], [*(one.replace(", ", ",\n") for one in often), ""])
        first.grid(visible=False, axis="x")
        fit([first])
        first.yaxis.set_major_formatter(PercentFormatter(1, 0, " %"))
        first.set_xlim(left=-0.3)
        all_ends = [ends]
        for ax, gamma in zip(others, gammas, strict=True):
            ends = []
            for i, (pay, name, look) in enumerate(zip(pays, often, LOOKS, strict=True)):
                shares = results[pay, gamma][BY_ROUND]
                ends.append(line(ax, np.arange(1.0, shares.shape[1] + 1), shares, name, look, i))
                said.append(f"clean lots contributed, γ = {gamma:g}, {pay.words}: {shares[:, 0].mean():.0%} to {shares[:, -1].mean():.0%}")
            ax.set_title(f"Clean lots contributed, γ = {gamma:g}")
            all_ends.append(ends)
        others[-1].set_xlabel("round")
        fit(others, share=True)
        for ax, ends in zip((first, *others), all_ends, strict=True):
            name_ends(figure, ax, ends)
        drawn = drawing("delay", figure, said)
    write_atomically(path, lambda file: file.write(drawn.svg))


def _points(ax: Axes, place: float, shift: float, shares: Floats, look: Look, face: str) -> None:
    """A mean, and beside it its seeds."""
    style: dict[str, Any] = {"color": look.colour, "linestyle": "", "clip_on": False, "zorder": 3}
    ax.plot([place + shift] * len(shares), shares, marker=".", markersize=3, alpha=0.6, **style)
    ax.plot([place], [shares.mean()], marker=look.marker, markersize=5, markerfacecolor=face, **style)


def main() -> None:
    """Train, evaluate, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=10)
    parser.add_argument("--steps", type=int, default=120_000, help="agent-steps of each training")
    parser.add_argument("--jobs", type=int, default=2, help="trainings side by side, with one thread each")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "delay", help="folder of the trainings")
    parser.add_argument("--markdown", type=Path, help="write the table into this file, and the picture beside it as .svg")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # trainings stand beside
    shipped = float(find("sb3", "ppo")[1].settings.model_fields["gamma"].default)
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    lessons = [(pay, gamma) for gamma in (shipped, FAR_SIGHTED) for pay in PAYS]
    folders = {
        (pay, gamma, seed): arguments.out / f"{pay.key}-gamma-{gamma:g}-{arguments.steps}" / f"seed-{seed}"
        for pay, gamma in lessons
        for seed in seeds
    }
    with ProcessPoolExecutor(arguments.jobs, multiprocessing.get_context("spawn")) as pool:
        running = [pool.submit(learn, *key, arguments.steps, folder) for key, folder in folders.items()]
        for one in tqdm(as_completed(running), total=len(running), unit=" trainings"):
            one.result()
    results = {
        (pay, gamma): by_seed([played(agents.make("learned", path=folders[pay, gamma, seed]), pay, seed) for seed in seeds])
        for pay, gamma in lessons
    }
    references = {name: by_seed([played(agents.make(name), Pay(), seed) for seed in seeds]) for name in ("oracle", "honest", "random")}
    oracle = references["oracle"]["welfare"]
    text = (
        f"PPO on `{SCENARIO}` under {RULE.capitalize()} credit, {arguments.steps:,} agent-steps, {arguments.seeds} seeds, "
        f"{EPISODES} episodes a seed; ± is a 95 % interval over seeds:\n\n{table(results, references)}\n{findings(results, oracle)}"
    )
    sys.stdout.write(f"\n{text}")
    if arguments.markdown is not None:
        write_text(arguments.markdown, text)
        picture(results, oracle, arguments.markdown.with_suffix(".svg"))


if __name__ == "__main__":
    main()
