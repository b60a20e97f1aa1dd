"""Training by ``ippo`` beside Stable-Baselines3's PPO: same algorithm, network, steps, batch and seeds.

Both train in turns, from start to saved policy. Both policies then play the same episodes. Time is that of the processor, by default on
one thread: unlike the clock's, it hardly depends on what else the machine does.

Two floors are timed too: the engine alone, under random choices, and the learner's matrix products alone, which every PPO needs that trains
this network in single precision. The columns "at most" say how many times as fast as Stable-Baselines3 a training would be whose learner
takes no time, and one whose learner takes no time but for these products.

On a machine with CUDA there is a second table: throughput of the engine and of training, by number of cooperatives. ``--groups`` instead
compares PPO with GRPO and OSPO, by who is compared and by what gaps are divided by. ``--memory`` instead trains under every rule whose pay
depends on earlier rounds, with the discount that ships and with one that looks over the whole episode, beside three rules without a memory.

Run: ``python benchmarks/training/ippo.py [--groups | --memory] [--seeds 5] [--steps 120000] [--markdown FILE]``.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from proxycoop import agents, credit
from proxycoop.envs import Engine, Scenario, scenario
from proxycoop.files import write_text
from proxycoop.training.analysis.summary import REFERENCES
from proxycoop.training.evaluate import Estimate
from proxycoop.training.libraries.registry import find, settings_for
from proxycoop.training.settings import EngineSettings
from proxycoop.training.train import train

CELLS = [(name, num_envs) for name in ("digits", "breast_cancer") for num_envs in (64, 256)]
LIBRARIES = ("sb3", "ippo")
EPISODES, FIRST_EPISODE = 128, 1_000_000
SIZES = (64, 256, 1024, 4096)
NO_MEMORY = ("shapley", "difference", "expected_difference")
"""Rules that pay by one round alone, for comparison."""
ARGUMENTS = {"fael": "fael(window=8)"}
"""Arguments with which a rule differs from equal split within an episode."""
FAR_SIGHTED = 0.99


def trained(library: str, one: Scenario, num_envs: int, steps: int, seed: int, algo: str = "ppo", **fields: Any) -> tuple[float, float]:
    """Agent-steps per second of one training, and the welfare that its policy reaches. On the CPU, seconds are those of the processor."""
    fields = {"scenario": one, "num_cooperatives": num_envs, "total_steps": steps, "seed": seed, "splits": 1, **fields}
    settings = settings_for(library, algo, **fields)  # policies are played at home
    clock = _clock(fields.get("device", "cpu"))
    with tempfile.TemporaryDirectory() as folder:
        began = clock()
        run = train(settings, Path(folder) / "run", tensorboard=False)
        rate = _whole_updates(one, num_envs, steps) / (clock() - began)
        episodes = range(FIRST_EPISODE, FIRST_EPISODE + EPISODES)
        metrics = agents.play(Engine(one, "shapley", EPISODES), agents.make("learned", path=run), episodes)
    return rate, float(metrics["welfare"].mean())


def engine_alone(one: Scenario, num_envs: int, seconds: float, device: str = "cpu") -> float:
    """Agent-steps per second of the engine under random choices, resets included. On the CPU, seconds are those of the processor."""
    engine = Engine(one, "shapley", num_envs, device=device)
    generator = torch.Generator(engine.device).manual_seed(0)
    shape = (num_envs, engine.num_agents, engine.num_lots)
    choices = torch.rand(engine.horizon, *shape, generator=generator, device=engine.device) < 0.5

    def episode() -> None:
        engine.reset()
        for chosen in choices:
            result = engine.step(chosen)
        result.rewards.sum().item()  # waits for the device

    engine.reset(range(num_envs))
    episode()
    return _rate(episode, engine.horizon * num_envs * engine.num_agents, seconds, _clock(device))


def products_alone(one: Scenario, num_envs: int, seconds: float) -> float:
    """Agent-steps per second of the products of matrices that PPO needs for the actor and the critic, on the CPU.

    These are a forward pass in every round, and a forward and a backward pass for every minibatch. The input that a proxy's lots have in
    common goes through the first layer once.
    """
    settings = settings_for("ippo", "ppo", scenario=one, num_cooperatives=num_envs)
    assert isinstance(settings, EngineSettings)
    engine = Engine(one, None, 1)
    n_lots, h = engine.num_lots, settings.hidden
    f, g = engine.layout.sizes["n_lot_features"], engine.layout.sizes["n_agent_features"]
    n_played = num_envs * engine.num_agents
    n_rows = engine.horizon * n_played
    n_minibatches = math.ceil(n_rows / settings.batch_size)

    def products(n_steps: int, backward: bool) -> list[tuple[Tensor, Tensor]]:
        lots, common, hidden = (torch.rand(2, rows, n) for rows, n in ((n_steps * n_lots, f), (n_steps, f + g), (n_steps * n_lots, h)))
        pairs = [(lots, torch.rand(2, f, h)), (common, torch.rand(2, f + g, h)), (hidden, torch.rand(2, h, h))]
        if backward:
            pairs += [(hidden.mT, hidden), (hidden, torch.rand(2, h, h)), (lots.mT, hidden), (common.mT, torch.rand(2, n_steps, h))]
        return pairs

    played, learned = products(n_played, False), products(n_rows // n_minibatches, True)
    plan = played * engine.horizon + learned * (settings.n_epochs * n_minibatches)
    outputs = {id(pair): torch.bmm(*pair) for pair in (*played, *learned)}

    def update() -> None:
        for pair in plan:
            torch.bmm(*pair, out=outputs[id(pair)])

    update()
    return _rate(update, n_rows, seconds, _clock("cpu"))


def _clock(device: str) -> Callable[[], float]:
    return time.process_time if device == "cpu" else time.perf_counter


def _rate(work: Callable[[], None], n_steps: int, seconds: float, clock: Callable[[], float]) -> float:
    """Agent-steps per second of ``work``, which does ``n_steps``."""
    began, done = clock(), 0
    while (elapsed := clock() - began) < seconds:
        work()
        done += n_steps
    return done / elapsed


def _whole_updates(one: Scenario, num_envs: int, steps: int) -> int:
    """The steps that a training takes: whole updates."""
    update = one.horizon * one.principals * num_envs
    return -(-steps // update) * update


def _together(rates: list[float]) -> float:
    """The rate of all seconds together, if each part did the same work."""
    return len(rates) / sum(1 / rate for rate in rates)


def _interval(sample: list[float]) -> str:
    estimate = Estimate.of(torch.tensor(sample))
    return f"{estimate.mean:.1f}" + ("" if estimate.half_width is None else f" ± {estimate.half_width:.1f}")


def side_by_side(seeds: int, steps: int, seconds: float) -> list[str]:
    """The table of both libraries on the CPU."""
    threads = torch.get_num_threads()
    lines = [
        f"Agent-steps per CPU second, {threads} thread{'s' * (threads > 1)}, {steps:,} steps of training, {seeds} seeds; mean welfare of",
        f"{EPISODES} episodes with a 95 % interval over seeds:",
        "",
        "| scenario | E | sb3 | ippo | ippo / sb3 | engine alone | products alone | at most, learner free | at most, but for products | "
        "welfare, sb3 | welfare, ippo | difference |",
        "|---|" + "---:|" * 11,
    ]
    for name, num_envs in CELLS:
        one = scenario.load(name)
        for library in LIBRARIES:
            trained(library, one, num_envs, 1, 0)  # imports, and the scale of rewards
        rates: dict[str, list[float]] = {library: [] for library in LIBRARIES}
        welfare: dict[str, list[float]] = {library: [] for library in LIBRARIES}
        engine, products = [], []
        for seed in tqdm(range(seeds), desc=f"{name}, E = {num_envs}", unit=" seeds"):
            engine.append(engine_alone(one, num_envs, seconds))
            products.append(products_alone(one, num_envs, seconds))
            for library in LIBRARIES:
                rate, reached = trained(library, one, num_envs, steps, seed)
                rates[library].append(rate)
                welfare[library].append(reached)
        sb3, ours = (_together(rates[library]) for library in LIBRARIES)
        floor, least = _together(engine), _together(products)
        gap = [b - a for a, b in zip(welfare["sb3"], welfare["ippo"], strict=True)]
        lines.append(
            f"| {name} | {num_envs} | {sb3:,.0f} | {ours:,.0f} | {ours / sb3:.2f} | {floor:,.0f} | {least:,.0f} | {floor / sb3:.2f} | "
            f"{1 / (1 / floor + 1 / least) / sb3:.2f} | "
            f"{_interval(welfare['sb3'])} | {_interval(welfare['ippo'])} | {_interval(gap)} |"
        )
    return lines


def on_cuda(steps: int, seconds: float) -> list[str]:
    """Throughput of the engine and of training on the accelerator."""
    lines = [
        "",
        f"On {torch.cuda.get_device_name()}, agent-steps per second:",
        "",
        "| scenario | E | engine alone | training by ippo | its welfare |",
        "|---|" + "---:|" * 4,
    ]
    for name in ("digits", "breast_cancer"):
        one = scenario.load(name)
        for num_envs in SIZES:
            whole = max(steps, 20 * _whole_updates(one, num_envs, 1))
            trained("ippo", one, num_envs, 1, 0, device="cuda")
            rate, reached = trained("ippo", one, num_envs, whole, 0, device="cuda")
            lines.append(f"| {name} | {num_envs} | {engine_alone(one, num_envs, seconds, 'cuda'):,.0f} | {rate:,.0f} | {reached:.1f} |")
    return lines


def without_critic(seeds: int, steps: int) -> list[str]:
    """The table of groups."""
    variants: list[tuple[str, dict[str, Any]]] = [("ppo", {})]
    for algo in ("grpo", "ospo"):
        for spread in ("update", "group"):
            variants += [(algo, {"group": "replicas", "group_size": size, "spread": spread}) for size in (4, 8)]
            variants.append((algo, {"group": "agents", "spread": spread}))
    lines = [
        f"Mean welfare of {EPISODES} episodes after {steps:,} agent-steps, E = 16, {seeds} seeds, with a 95 % interval over seeds:",
        "",
        "| algorithm | group | spread | digits | breast_cancer |",
        "|---|---|---|---:|---:|",
    ]
    for algo, fields in tqdm(variants, unit=" variants"):
        cells = []
        for name in ("digits", "breast_cancer"):
            one = scenario.load(name)
            cells.append(_interval([trained("ippo", one, 16, steps, seed, algo, **fields)[1] for seed in range(seeds)]))
        group = f"{fields['group_size']} replicas" if "group_size" in fields else fields.get("group", "")
        lines.append(f"| {algo} | {group} | {fields.get('spread', '')} | {' | '.join(cells)} |")
    return lines


def remembering() -> list[str]:
    """The registered rules with a memory, which they clear at a reset. Wrappers without one of their own only pass the reset on."""
    forgetful = (credit.CreditRule.reset, credit.Clipped.reset)
    return [rule for rule in credit.RULES if getattr(credit.RULES[rule], "reset", forgetful[0]) not in forgetful]


def looking_ahead(seeds: int, steps: int) -> list[str]:
    """The table of rules with a memory."""
    scenarios = ("digits", "breast_cancer")
    gammas = (float(find("ippo", "ppo")[1].settings.model_fields["gamma"].default), FAR_SIGHTED)
    lines = [
        f"Welfare, per cent of that of `{REFERENCES[0]}`, over {EPISODES} episodes after {steps:,} agent-steps of `ippo`, E = 16,",
        f"{seeds} seeds that also split the data; ± is a 95 % interval over seeds, *lost* what looking ahead costs, in points, by seed:",
        "",
        "| paid by | " + " | ".join(f"{name}, γ = {gammas[0]:g} | γ = {gammas[1]:g} | lost" for name in scenarios) + " |",
        "|---|" + "---:|" * 3 * len(scenarios),
    ]
    splits = {name: [scenario.load(name, **{"data.split_seed": seed}) for seed in range(seeds)] for name in scenarios}
    episodes = range(FIRST_EPISODE, FIRST_EPISODE + EPISODES)
    reference = {
        name: [
            float(agents.play(Engine(one, None, EPISODES), agents.make(REFERENCES[0]), episodes)["welfare"].mean()) for one in splits[name]
        ]
        for name in scenarios
    }
    for rule in tqdm([*remembering(), *NO_MEMORY], unit=" rules"):
        cells = []
        for name in scenarios:
            near, far = (
                [
                    100 * trained("ippo", one, 16, steps, seed, credit=ARGUMENTS.get(rule, rule), gamma=gamma)[1] / reached
                    for seed, (one, reached) in enumerate(zip(splits[name], reference[name], strict=True))
                ]
                for gamma in gammas
            )
            cells += [_interval(near), _interval(far), _interval([a - b for a, b in zip(near, far, strict=True)])]
        memory = " (no memory)" if rule in NO_MEMORY else ""
        lines.append(f"| `{ARGUMENTS.get(rule, rule)}`{memory} | {' | '.join(cells)} |".replace("-", "−"))
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", type=int, default=5, help="Trainings of each library in each cell.")
    parser.add_argument("--steps", type=int, default=120_000, help="Agent-steps of a training.")
    parser.add_argument("--threads", type=int, default=1, help="Threads of torch in the comparison of libraries.")
    parser.add_argument("--seconds", type=float, default=3, help="Seconds of each measurement of the engine alone.")
    parser.add_argument("--markdown", type=Path, help="write the tables into this file")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--groups", action="store_true", help="Compare algorithms without a critic instead of libraries.")
    mode.add_argument("--memory", action="store_true", help="Compare rules that remember, by discount, instead of libraries.")
    arguments = parser.parse_args()
    if arguments.groups:
        lines = without_critic(arguments.seeds, arguments.steps)
    elif arguments.memory:
        lines = looking_ahead(arguments.seeds, arguments.steps)
    else:
        torch.set_num_threads(arguments.threads)
        lines = side_by_side(arguments.seeds, arguments.steps, arguments.seconds)
        if torch.cuda.is_available():
            lines += on_cuda(arguments.steps, arguments.seconds)
    text = "\n".join(lines) + "\n"
    sys.stdout.write(f"\n{text}")
    if arguments.markdown is not None:
        write_text(arguments.markdown, text)


if __name__ == "__main__":
    main()
