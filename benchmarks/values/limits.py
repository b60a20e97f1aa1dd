"""What limits for an episode hold, prevent and cost, in every scenario that has some.

Four ways of screening are compared in the same cooperatives: nobody screens; the scenario's tolerances alone; its tolerances and limits;
and the same with the guard. *Beyond* counts rounds after which a value's loss was above its limit. *Harm* is the rise of the limited
values' losses at the episode's end, each over its limit and at least 0, averaged over values and episodes; *prevented* is by how much it is
smaller than where nobody screens. *Probe* are the rows that the screening measures on, *test* are other people. *Gain* is the rise of the
utility on test rows, in nats.

Run: ``python benchmarks/values/limits.py [--agent oracle] [--markdown FILE]``; two minutes on one core.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from proxycoop import agents
from proxycoop.envs import Engine, Scenario, scenario
from proxycoop.files import write_text

SPLITS = range(4)
EPISODES = 32
WAYS = ("free", "tolerances", "limits", "guarded")


def screened(name: str, way: str, split: int, scale: float) -> Scenario:
    """A scenario under one of the ways of screening, with the same reward scale under all of them."""
    shipped = scenario.load(name, **{"data.split_seed": split, "reward.scale": scale})
    if way == "free":
        return shipped.unscreened(scale)
    if way == "tolerances":
        return shipped.unlimited()
    return shipped.model_copy(update={"screening": shipped.screening.model_copy(update={"guard": way == "guarded"})})


def rises(engine: Engine) -> tuple[Tensor, Tensor, Tensor]:
    """By how much value losses stand above their start, and by how much the utility on test rows has risen.

    Returns:
        Rises on the probe sets after each round, ``(T, E, M)``; on test rows at the end, ``(E, M)``; and of the utility, ``(E,)``.
    """
    on_probe = torch.stack([result.value_losses for result in engine.history]) - engine.initial_value_losses
    end = engine.test()
    beginning = Engine(engine.scenario, None, engine.num_envs)
    beginning.reset(engine.seeds.tolist() if engine.seeds is not None else None)
    start = beginning.test()
    on_test = torch.stack([end[f"value/{name}"] - start[f"value/{name}"] for name in engine.values], dim=1)
    return on_probe, on_test, end["utility"] - start["utility"]


def measured(name: str, agent: str) -> dict[str, dict[str, float]]:
    """For each way of screening: beyond, harm and gain, over all splits and episodes."""
    shipped = scenario.load(name)
    limited = [list(shipped.values).index(value) for value in shipped.limited]
    sums: dict[str, dict[str, float]] = {
        way: dict.fromkeys(("beyond", "rounds", "beyond_test", "probe", "test", "gain"), 0.0) for way in WAYS
    }
    for split in SPLITS:
        scale = Engine(scenario.load(name, **{"data.split_seed": split}), None).reward_scale
        guarded = Engine(screened(name, "guarded", split, scale), None, EPISODES)
        guarded.reset(range(EPISODES))
        limit = guarded.prospect.left.amin(dim=1)[:, limited]  # (E, M): all of it is left
        for way in WAYS:
            engine = Engine(screened(name, way, split, scale), None, EPISODES)
            agents.play(engine, agents.make(agent), range(EPISODES))
            on_probe, on_test, gain = rises(engine)
            on_probe, on_test = on_probe[..., limited], on_test[:, limited]
            of = sums[way]
            of["beyond"] += float((on_probe > limit).any(dim=-1).sum())
            of["rounds"] += on_probe.shape[0] * on_probe.shape[1]
            of["beyond_test"] += float((on_test > limit).any(dim=-1).double().mean()) / len(SPLITS)
            of["probe"] += float((on_probe[-1] / limit).clamp(min=0).mean()) / len(SPLITS)
            of["test"] += float((on_test / limit).clamp(min=0).mean()) / len(SPLITS)
            of["gain"] += float(gain.mean()) / len(SPLITS)
    return sums


def table(found: dict[str, dict[str, dict[str, float]]]) -> str:
    """What was measured, as two Markdown tables: what holds, and what is prevented at what cost."""

    def percent(share: float) -> str:
        return f"{100 * share:.0f} %".replace("-", "−")

    def prevented(of: dict[str, dict[str, float]], way: str) -> str:
        free = of["free"]
        return ", ".join("–" if free[rows] < 0.005 else percent(1 - of[way][rows] / free[rows]) for rows in ("probe", "test"))

    lines = [
        f"| rounds beyond a limit, of {next(iter(found.values()))['free']['rounds']:.0f} | nobody screens | tolerances | limits "
        "| limits and guard | episodes beyond on test people: nobody screens | limits and guard |",
        "|---|" + "---:|" * 6,
    ]
    for name, of in found.items():
        beyond = [f"{of[way]['beyond']:.0f}" for way in WAYS]
        lines.append(f"| `{name}` | {' | '.join([*beyond, percent(of['free']['beyond_test']), percent(of['guarded']['beyond_test'])])} |")
    lines += [
        "",
        "| harm prevented on probe, test | tolerances | limits and guard | gain: nobody screens | tolerances | limits and guard |",
        "|---|" + "---:|" * 5,
    ]
    for name, of in found.items():
        cells = [
            *(prevented(of, way) for way in ("tolerances", "guarded")),
            *(f"{of[way]['gain']:.3f}" for way in ("free", "tolerances", "guarded")),
        ]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the table."""
    names = [name for name in scenario.names() if scenario.load(name).participation is None]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenarios", nargs="+", default=[name for name in names if scenario.load(name).limited])
    parser.add_argument("--agent", default="oracle", help="who plays")
    parser.add_argument("--markdown", type=Path, help="write the table into this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    text = table({name: measured(name, arguments.agent) for name in tqdm(arguments.scenarios, unit=" scenarios")})
    sys.stdout.write(f"\n{text}")
    if arguments.markdown is not None:
        write_text(arguments.markdown, text)


if __name__ == "__main__":
    main()
