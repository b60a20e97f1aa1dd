"""Speed of rounds by model and credit rule, beside the same rounds written by hand.

Softmax regression, a multilayer perceptron, a convolutional network and a transformer learn in ``digits`` (without limits and guard), under
rules that evaluate no coalition, one more than there are agents, two an agent, or all. The hand-written round is what one would write
without this package: networks whose layers take a batch of parameters (batched products, grouped convolutions), automatic differentiation
of the sum over the batch, screening to first order, and the credit. It has no observations, no bookkeeping, no checks, and no choice of
model, server or rule. Before anything is timed, both must agree on the credit (but for estimates) and on the parameters.

Run: ``python benchmarks/training/models.py [--envs 16] [--rounds 3] [--markdown FILE]``. CPU seconds of one thread are counted; all take
turns, and medians of five are printed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.functional import conv2d, cross_entropy, gelu, layer_norm

sys.path.insert(0, str(Path(__file__).parents[1] / "credit"))  # the networks, which processes find by their module's name

from proxycoop.credit import coalition_matrix, shapley_values
from proxycoop.envs import Engine, scenario
from proxycoop.files import write_text

MODELS: dict[str, dict[str, Any]] = {
    "softmax": {"kind": "softmax"},
    "MLP, 32 units": {"kind": "mlp", "hidden": [32]},
    "CNN": {"kind": "module", "factory": "networks:cnn"},
    "transformer": {"kind": "module", "factory": "networks:transformer"},
}
RULES = ("equal", "loo", "shapley", "shapley(budget=12)", "in_run")
Parameters = Sequence[Tensor]
"""Parameters of a batch of networks: for each of the module's, ``(B, *shape)``."""


def softmax(p: Parameters, x: Tensor) -> Tensor:
    """Logits ``(B, R, C)`` of rows ``(B, R, D)``; here and below."""
    return x @ p[0][:, :-1] + p[0][:, -1:]


def mlp(p: Parameters, x: Tensor) -> Tensor:
    h = torch.baddbmm(p[1][:, None], x, p[0].transpose(1, 2)).relu()
    return torch.baddbmm(p[3][:, None], h, p[2].transpose(1, 2))


def cnn(p: Parameters, x: Tensor) -> Tensor:
    b, r = x.shape[:2]
    h = x.transpose(0, 1).reshape(r, b, 8, 8)
    for weight, bias in ((p[0], p[1]), (p[2], p[3])):
        h = conv2d(h, weight.flatten(0, 1), bias.flatten(), stride=2, padding=1, groups=b).relu()
    return torch.baddbmm(p[5][:, None], h.reshape(r, b, -1).transpose(0, 1), p[4].transpose(1, 2))


def transformer(p: Parameters, x: Tensor) -> Tensor:
    def linear(h: Tensor, i: int) -> Tensor:
        return torch.baddbmm(p[i + 1][:, None], h.flatten(1, 2), p[i].transpose(1, 2)).unflatten(1, h.shape[1:3])

    h = linear(x.unflatten(-1, (8, 8)), 1) + p[0][:, None]
    keys, queries, values = (linear(h, i) for i in (3, 5, 7))
    h = h + (queries @ keys.transpose(-1, -2) / h.shape[-1] ** 0.5).softmax(dim=-1) @ values
    normal = layer_norm(h, h.shape[-1:]) * p[9][:, None, None] + p[10][:, None, None]
    h = (h + linear(gelu(linear(normal, 11)), 13)).mean(dim=-2)
    return torch.baddbmm(p[16][:, None], h, p[15].transpose(1, 2))


FORWARD: dict[str, Callable[[Parameters, Tensor], Tensor]] = dict(zip(MODELS, (softmax, mlp, cnn, transformer), strict=True))


class ByHand:
    """The rounds of one engine's episode: one local step, fixed weights, unanimous screening, plain server."""

    def __init__(self, engine: Engine, name: str, rule: str) -> None:
        self.forward, self.rule = FORWARD[name], rule
        lots, splits = engine.lots, engine.splits
        self.x, self.y = lots.x.flatten(end_dim=2), lots.y.flatten(end_dim=2)  # (B, R, D), (B, R)
        self.shape = engine.num_envs, engine.num_agents, engine.num_lots
        self.validation, self.probes = splits.validation, list(splits.probe.values())
        self.tau = engine.profiles.tolerance.amin(dim=1)[:, None, None]  # (E, 1, 1, M)
        self.lr, self.share = engine.scenario.substrate.local_lr, 1 / (engine.num_agents * engine.num_lots)
        if name == "softmax":
            self.shapes = [torch.Size((splits.n_features + 1, splits.n_classes))]
        else:
            self.shapes = [one.shape for one in engine.model.module.parameters()]
        self.theta = engine.theta.clone()

    def parts(self, theta: Tensor) -> list[Tensor]:
        """Flat parameters ``(B, P)`` as those of the layers."""
        return [part.unflatten(1, shape) for part, shape in zip(theta.split([s.numel() for s in self.shapes], 1), self.shapes, strict=True)]

    def loss(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Mean cross-entropy of each network, ``(B,)``."""
        x = x if x.dim() == 3 else x.expand(len(theta), -1, -1)
        logits = self.forward(self.parts(theta), x)
        return (
            cross_entropy(logits.flatten(end_dim=1), y.expand(logits.shape[:2]).flatten(), reduction="none").reshape(len(theta), -1).mean(1)
        )

    def gradient(self, theta: Tensor, x: Tensor, y: Tensor, *, graph: bool = False) -> Tensor:
        """Its gradient, ``(B, P)``."""
        theta = theta if graph else theta.detach().requires_grad_()
        (found,) = torch.autograd.grad(self.loss(theta, x, y).sum(), theta, create_graph=graph)
        return found

    def play(self, actions: Tensor, rounds: int) -> tuple[Tensor, list[Tensor]]:
        """Final parameters ``(E, P)`` and each round's credit ``(E, N)``."""
        _, n_agents, n_lots = self.shape
        theta, paid = self.theta, []
        for _ in range(rounds):
            each = theta.repeat_interleave(n_agents * n_lots, dim=0)
            updates = (-self.lr * self.gradient(each, self.x, self.y)).reshape(*self.shape, -1)
            harms = torch.stack([self.gradient(theta, rows.x, rows.y) for rows in self.probes], dim=1)  # (E, M, P)
            harm = torch.einsum("enkp,emp->enkm", updates, harms)
            admitted = actions & (harm <= self.tau).all(dim=-1)
            parts = ((admitted * self.share)[:, :, None] @ updates)[:, :, 0]  # (E, N, P)
            paid.append(self.credit(theta, parts))
            theta = (theta + parts.sum(dim=1)).detach()
        return theta, paid

    def credit(self, theta: Tensor, parts: Tensor) -> Tensor:
        """What the rule pays, ``(E, N)``. An estimate takes as many evaluations here, and the mean of what they gain."""
        n_envs, n_agents, _ = parts.shape
        rows = self.validation
        if self.rule == "in_run":
            point = theta.detach().requires_grad_()
            slope = self.gradient(point, rows.x, rows.y, graph=True)
            (bend,) = torch.autograd.grad((slope * parts.sum(dim=1)).sum(), point)
            return -(parts @ (slope.detach() + 0.5 * bend)[:, :, None])[..., 0]
        everybody = torch.ones(1, n_agents, dtype=torch.bool)
        coalitions = {
            "equal": everybody,
            "loo": torch.cat([everybody, ~torch.eye(n_agents, dtype=torch.bool)]),
            "shapley": coalition_matrix(n_agents),
            "shapley(budget=12)": coalition_matrix(n_agents)[-12:],
        }[self.rule]
        with torch.no_grad():
            before = self.loss(theta, rows.x, rows.y)
            moved = theta[:, None] + coalitions.to(parts) @ parts  # (E, C, P)
            v = before[:, None] - self.loss(moved.flatten(end_dim=1), rows.x, rows.y).reshape(n_envs, -1)
        if self.rule == "equal":
            return v.expand(-1, n_agents) / n_agents
        return v[:, :1] - v[:, 1:] if self.rule == "loo" else shapley_values(v) if self.rule == "shapley" else v[:, :n_agents]


def measure(name: str, rule: str, num_envs: int, rounds: int) -> tuple[float, float]:
    """Agent-steps a CPU second of the engine, and of the rounds by hand."""
    cooperative = scenario.load("digits", model=MODELS[name], **{"reward.scale": 100.0}).unlimited()
    engine = Engine(cooperative, rule, num_envs)
    engine.reset(range(num_envs))
    hand = ByHand(engine, name, rule)
    actions = torch.rand(*hand.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    paid = [engine.step(actions).credit for _ in range(rounds)]
    theta, by_hand = hand.play(actions, rounds)
    if not torch.allclose(theta, engine.theta, atol=1e-5):
        sys.exit(f"{name}: the hand-written rounds do not play the engine's")
    if "budget" not in rule and not all(torch.allclose(a, b, atol=1e-5) for a, b in zip(paid, by_hand, strict=True)):
        sys.exit(f"{name}: the hand-written rounds do not pay the engine's {rule}")
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(5):
        engine.reset()
        for run, spent in zip(
            (lambda: [engine.step(actions) for _ in range(rounds)], lambda: hand.play(actions, rounds)), times, strict=True
        ):
            began = time.process_time()
            run()
            spent.append(time.process_time() - began)
    ours, bare = (num_envs * engine.num_agents * rounds / statistics.median(spent) for spent in times)
    return ours, bare


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--envs", type=int, default=16, help="cooperatives side by side")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--markdown", type=Path, help="write the table into this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in arguments.models:
        cells = []
        for rule in RULES:
            ours, bare = measure(name, rule, arguments.envs, arguments.rounds)
            cells.append(f"{ours:,.0f} / {bare:,.0f} ({bare / ours:.2f})")
            sys.stderr.write(f"{name}, {rule}: {cells[-1]}\n")
        rows.append((name, *cells))
    table = Table("model", *RULES, title=f"agent-steps a CPU second: here / by hand (by hand over here); {arguments.envs} cooperatives")
    for row in rows:
        table.add_row(*row)
    Console(width=150).print(table)
    if arguments.markdown is not None:
        lines = [("model", *(f"`{rule}`" for rule in RULES)), ("---", *["---:"] * len(RULES)), *rows]
        write_text(arguments.markdown, "".join(f"| {' | '.join(line)} |\n" for line in lines))


if __name__ == "__main__":
    main()
