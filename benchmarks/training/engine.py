"""Speed of the engine, beside the same rounds written as bare tensor operations.

These bare operations (the *floor*) are only what a round needs: forward and backward passes of all lots, value gradients, screening,
aggregation, all 2^N coalition values and exact Shapley values, and the utility after the step. They have no observations, no bookkeeping,
no checks, and no choice of model, substrate, server or rule. Before anything is timed, both must agree on every credit and on the final
parameters.

The two vectorised faces are timed too, with their resets: Stable-Baselines3's, and Gymnasium's with full infos and with the mask alone.

Run: ``python benchmarks/training/engine.py [--seconds 0.5] [--markdown FILE]``. All take turns, and the medians are printed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from proxycoop.credit.solutions.shapley import shapley_values
from proxycoop.envs import Engine, scenario
from proxycoop.envs.gymnasium_vector import CooperativeVectorEnv
from proxycoop.envs.observations.spaces import InfoForm
from proxycoop.envs.vector import CooperativeVecEnv
from proxycoop.files import write_text

COLUMNS = (
    "scenario",
    "cooperatives E",
    "engine",
    "bare tensors",
    "bare / engine",
    "Stable-Baselines3 face",
    "Gymnasium face",
    "the same with `infos=mask`",
)


class Floor:
    """The rounds of one engine's episode, for softmax regression, one local step, fixed weights, unanimous screening, plain server."""

    def __init__(self, engine: Engine) -> None:
        splits, lots = engine.splits, engine.lots
        ones = torch.ones_like
        self.x = torch.cat([lots.x, ones(lots.x[..., :1])], dim=-1)  # (E, N, K, R, D + 1)
        self.y = lots.y[..., None]
        held = [splits.validation, *splits.probe.values()]
        self.held = torch.cat([torch.cat([rows.x, ones(rows.x[:, :1])], dim=-1) for rows in held])
        self.held_y = torch.cat([rows.y for rows in held])
        self.cuts = [len(rows) for rows in held]
        self.tau = engine.profiles.tolerance.amin(dim=1)[:, None, None]  # (E, 1, 1, M)
        self.lr = engine.scenario.substrate.local_lr
        self.share = 1 / (engine.num_agents * engine.num_lots)
        self.n_classes = engine.model.n_classes
        self.theta = engine.theta.reshape(engine.num_envs, -1, self.n_classes)  # (E, D + 1, C)

    def episode(self, actions: Tensor, rounds: int) -> tuple[Tensor, list[Tensor]]:
        """Final parameters ``(E, D + 1, C)`` and each round's credit ``(E, N)``."""
        theta, paid = self.theta, []
        n_envs, n_agents, n_lots, n_rows, _ = self.x.shape
        c, n_validation = self.n_classes, self.cuts[0]
        flat = self.x.reshape(n_envs, -1, self.x.shape[-1])
        minus = torch.full((1,), -1.0)
        half = n_agents // 2
        for _ in range(rounds):
            logits = (flat @ theta).reshape(*self.y.shape[:-1], c)
            error = (logits - logits.logsumexp(dim=-1, keepdim=True)).exp_()
            error.scatter_add_(-1, self.y, minus.expand(self.y.shape))
            gradient = self.x.flatten(end_dim=2).transpose(1, 2) @ error.flatten(end_dim=2)
            updates = gradient.reshape(n_envs, n_agents, n_lots, -1) * (-self.lr / n_rows)

            answers = (self.held @ theta.transpose(0, 1).reshape(theta.shape[1], -1)).reshape(-1, n_envs, c)  # (rows, E, C)
            log_p = answers - answers.logsumexp(dim=-1, keepdim=True)
            gradients = []
            start = n_validation
            for rows in self.cuts[1:]:
                part = log_p[start : start + rows].exp()
                index = self.held_y[start : start + rows, None, None].expand(-1, n_envs, 1)
                part.scatter_add_(-1, index, minus.expand(index.shape))
                gradients.append((self.held[start : start + rows].T @ part.reshape(rows, -1)).reshape(-1, n_envs, c) / rows)
                start += rows
            value_gradients = torch.stack(gradients).permute(2, 0, 1, 3).flatten(start_dim=2)  # (E, M, P)
            harm = (updates.flatten(1, 2) @ value_gradients.transpose(1, 2)).reshape(n_envs, n_agents, n_lots, -1)
            admitted = actions & (harm <= self.tau).all(dim=-1)
            parts = ((admitted * self.share)[:, :, None] @ updates)[:, :, 0]  # (E, N, P)

            side = parts.reshape(n_envs * n_agents, -1, c).transpose(0, 1).reshape(theta.shape[1], -1)
            shift = (self.held[:n_validation] @ side).reshape(n_validation, n_envs * n_agents, c)
            right = shift.gather(-1, self.held_y[:n_validation, None, None].expand(-1, n_envs * n_agents, 1))
            factor = (shift - right).exp_().reshape(n_validation, n_envs, n_agents, c)
            low = _products(factor[:, :, :half], log_p[:n_validation].exp())
            high = _products(factor[:, :, half:], torch.ones(n_validation, n_envs, c))
            sums = torch.bmm(high.flatten(end_dim=1), low.flatten(end_dim=1).transpose(1, 2)).log_()
            v = -sums.reshape(n_validation, n_envs, -1).mean(dim=0)
            paid.append(shapley_values(v))
            theta = theta + parts.sum(dim=1).reshape(theta.shape)
        return theta, paid


def _products(factor: Tensor, first: Tensor) -> Tensor:
    products = first.new_empty(*first.shape[:2], 2 ** factor.shape[2], first.shape[-1])
    products[:, :, 0] = first
    for i in range(factor.shape[2]):
        torch.mul(products[:, :, : 2**i], factor[:, :, i, None], out=products[:, :, 2**i : 2 ** (i + 1)])
    return products


def _seconds(run: Callable[[], object], at_least: float) -> float:
    """Seconds a call takes, over as many calls as fit."""
    began, calls = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - began) < at_least or calls == 0:
        run()
        calls += 1
    return elapsed / calls


def measure(name: str, num_envs: int, seconds: float) -> dict[str, float]:
    """Agent-steps per second of the engine, of the floor, and of the vectorised faces (resets included)."""
    engine = Engine(scenario.load(name), "shapley", num_envs)
    engine.reset(range(num_envs))
    floor = Floor(engine)
    actions = torch.rand(num_envs, engine.num_agents, engine.num_lots, generator=torch.Generator().manual_seed(0)) < 0.5

    def rounds() -> list[Tensor]:
        return [engine.step(actions).credit for _ in range(engine.horizon)]

    paid = rounds()
    theta, floor_paid = floor.episode(actions, engine.horizon)
    if not torch.allclose(theta.flatten(start_dim=1), engine.theta, atol=1e-5):
        sys.exit(f"{name}: the floor does not play the engine's rounds")
    for ours, bare in zip(paid, floor_paid, strict=True):
        if not torch.allclose(ours, bare, atol=1e-6):
            sys.exit(f"{name}: the floor does not pay the engine's credit")

    rows = CooperativeVecEnv(name, "shapley", num_envs, seed=0)
    rows.reset()
    choices = np.asarray(actions.reshape(rows.num_envs, -1), dtype=np.int64)

    def sb3() -> None:
        for _ in range(engine.horizon):
            rows.step(choices)

    def gymnasium(infos: InfoForm) -> Callable[[], None]:
        envs = CooperativeVectorEnv(name, "shapley", num_envs, infos=infos, autoreset_mode="SameStep")
        envs.reset(seed=0)

        def face() -> None:
            for _ in range(engine.horizon):
                envs.step(choices)

        return face

    faces = {"sb3": sb3, "gymnasium": gymnasium("full"), "gymnasium, mask": gymnasium("mask")}
    steps = num_envs * engine.num_agents * engine.horizon
    times: dict[str, list[float]] = {what: [] for what in ("engine", "floor", *faces)}
    for _ in range(5):
        total, calls = 0.0, 0
        while total < seconds or calls == 0:  # a reset begins every episode; it is the faces that are charged for it
            engine.reset()
            began = time.perf_counter()
            rounds()
            total, calls = total + time.perf_counter() - began, calls + 1
        times["engine"].append(total / calls)
        times["floor"].append(_seconds(lambda: floor.episode(actions, engine.horizon), seconds))
        for what, face in faces.items():
            times[what].append(_seconds(face, seconds))
    return {what: steps / statistics.median(measured) for what, measured in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=0.5, help="Seconds of each of five measurements.")
    parser.add_argument("--markdown", type=Path, help="Write the table here as well.")
    arguments = parser.parse_args()
    rows = []
    for name in ("digits", "breast_cancer"):
        for num_envs in (1, 8, 64, 256):
            rates = measure(name, num_envs, arguments.seconds)
            engine, floor, *faces = (f"{rate:,.0f}" for rate in rates.values())
            rows.append((name, str(num_envs), engine, floor, f"{rates['floor'] / rates['engine']:.2f}", *faces))
    table = Table(*COLUMNS, title=f"agent-steps per second, {torch.get_num_threads()} threads")
    for row in rows:
        table.add_row(*row)
    Console(width=120).print(table)
    if arguments.markdown:
        lines = [COLUMNS, ("---", *["---:"] * (len(COLUMNS) - 1)), *rows]
        write_text(arguments.markdown, "".join(f"| {' | '.join(line)} |\n" for line in lines))


if __name__ == "__main__":
    main()
