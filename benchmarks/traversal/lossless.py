"""Is traversal learning lossless, what does it send, and what does its secure mode cost?

* The largest difference between the protocol's step and the centralised step on the same rows, for three models, all cuts, two precisions,
  and nodes that drop out.
* Bytes of a round, in which each of 1,200 rows on six nodes is visited once, beside federated averaging and split learning.
* The secure mode's error by fractional bits, its bytes and its time; and whether a share alone is uniform.

Run: ``python benchmarks/traversal/lossless.py [--only lossless bytes secure] [--markdown FOLDER]``. It writes traversal-lossless.md,
traversal-bytes.md and traversal-secure.md.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import networks
import numpy as np
import rivals
import scipy.stats
import torch
from torch import Tensor

from proxycoop.envs.data import load
from proxycoop.files import write_text
from proxycoop.traversal import (
    Helper,
    Local,
    Node,
    Orchestrator,
    Ring,
    SecureLocal,
    SecureNode,
    SecureOrchestrator,
    SplitModel,
    VirtualBatch,
    plan,
)
from proxycoop.traversal.secure_wire import SecureForwardRequest
from proxycoop.traversal.wire import BackwardRequest, ForwardRequest, Request

N_NODES, N_ROWS, BATCH = 6, 1200, 64
PRECISIONS = {"float64": torch.float64, "float32": torch.float32}
FAILURES: dict[str, Callable[[int, Request], bool]] = {
    "nobody": lambda *_: False,
    "before forward": lambda node, request: node == 1 and isinstance(request, ForwardRequest),
    "before backward": lambda node, request: node == 1 and isinstance(request, BackwardRequest),
    "two nodes, one at each": lambda node, request: (
        (node == 1 and isinstance(request, ForwardRequest)) or (node == 2 and isinstance(request, BackwardRequest))
    ),
}


def rows_of_nodes(dtype: torch.dtype) -> dict[int, tuple[Tensor, Tensor]]:
    """1,200 digits on six nodes, each class by a Dirichlet distribution with concentration 0.3."""
    digits = load("digits")
    x, y = torch.from_numpy(digits.features[:N_ROWS]).to(dtype), torch.from_numpy(digits.labels[:N_ROWS])
    return {node: (x[own], y[own]) for node, own in enumerate(rivals.shared_out(y, N_NODES, 0.3, seed=0))}


def split_of(name: str, cut: int, dtype: torch.dtype) -> SplitModel:
    """A model with its start."""
    torch.manual_seed(0)
    return SplitModel(networks.MODELS[name]().to(dtype), cut)


def difference(split: SplitModel, dtype: torch.dtype, fails: Callable[[int, Request], bool], n_steps: int = 3) -> float:
    """Largest difference of an entry between the protocol's gradient and the centralised one, over the largest entry, in a few steps."""
    data = rows_of_nodes(dtype)
    orchestrator = Orchestrator(split, Local({node: Node(split, *own) for node, own in data.items()}, fails))
    orchestrator.census(list(data))
    worst = 0.0
    for batch in plan(orchestrator.counts, BATCH, seed=0)[:n_steps]:
        shares = orchestrator.propose(batch)
        stayed = [visit for visit in batch.visits if visit.node not in shares.missing]
        x, y = (torch.cat([data[visit.node][i][visit.rows] for visit in stayed]) for i in (0, 1))
        wanted = rivals.gradient(split, orchestrator.theta, x, y)
        worst = max(worst, float((shares.pooled - wanted).abs().max() / wanted.abs().max()))
        orchestrator.theta -= 0.4 * shares.pooled
    return worst


def lossless() -> str:
    """The table of largest differences."""
    lines = ["| model | cut | type | " + " | ".join(FAILURES) + " |", "|---|---:|---|" + "---:|" * len(FAILURES)]
    for name in networks.MODELS:
        for cut in split_of(name, networks.CUTS[name], torch.float64).cuts:
            for precision, dtype in PRECISIONS.items():
                found = [difference(split_of(name, cut, dtype), dtype, fails) for fails in FAILURES.values()]
                lines.append(f"| {name} | {cut} | {precision} | " + " | ".join(f"{one:.1e}" for one in found) + " |")
                sys.stderr.write(lines[-1] + "\n")
    return "\n".join(lines) + "\n"


def traffic() -> str:
    """The table of bytes."""
    lines = ["| model, cut | parameters, below | activations a row | method | down | up | messages |", "|---|---:|---:|---|---:|---:|---:|"]
    data = rows_of_nodes(torch.float32)
    for name, cut in networks.CUTS.items():
        split = split_of(name, cut, torch.float32)
        width = split.activations(split.theta, data[0][0][:1]).numel()
        for method, kind in rivals.METHODS.items():
            if method == "centralised":
                continue
            one = kind(split, data, 0.1, BATCH, seed=0)
            counted = sum(one.traffic.sent.values())  # the census
            one.round()
            sent = one.traffic
            up = sent.up - counted
            cells = f"{split.n_parameters:,}, {split.n_below:,} | {width} | {method} | {sent.down / 1e6:.3f} MB | {up / 1e6:.3f} MB"
            lines.append(f"| {name}, {cut} | {cells} | {sum(sent.messages.values()):,} |")
    return "\n".join(lines) + "\n"


def secure() -> str:
    """Error, bytes and time of the secure mode, and what shares look like."""
    lines = [
        "| model | fractional bits | largest difference | bytes a step | secure | to the helper | CPU ms a step | secure |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    data = rows_of_nodes(torch.float64)
    for name in networks.MODELS:
        last = split_of(name, networks.CUTS[name], torch.float64).cuts[-1]
        split = split_of(name, last, torch.float64)
        batches = plan({node: (len(x),) for node, (x, _) in data.items()}, BATCH, seed=0)[:5]
        plain = Orchestrator(split, Local({node: Node(split, *own) for node, own in data.items()}))
        plain.census(list(data))
        counted = plain.traffic.total
        open_ms, grads = timed(plain, batches)
        open_bytes = (plain.traffic.total - counted) / len(batches)
        for fraction in (12, 16, 20, 24):
            nodes = {node: SecureNode(split, *own, ring=Ring(fraction)) for node, own in data.items()}
            shared = SecureOrchestrator(split, SecureLocal(nodes, Helper(split, Ring(fraction))), Ring(fraction))
            shared.census(list(data))
            told = sum(link.total for link in shared.traffic.values())
            ms, found = timed(shared, batches)
            worst = max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, grads, strict=True))
            sent = (sum(link.total for link in shared.traffic.values()) - told) / len(batches)
            helper = shared.traffic["nodes to helper"].total / len(batches)
            cells = f"{open_bytes / 1e3:.0f} kB | {sent / 1e3:.0f} kB | {helper / 1e3:.0f} kB | {open_ms:.0f} | {ms:.0f}"
            lines.append(f"| {name} | {fraction} | {worst:.1e} | {cells} |")
            sys.stderr.write(lines[-1] + "\n")
    return "\n".join(lines) + "\n\n" + uniform(data)


def timed(one: Orchestrator | SecureOrchestrator, batches: list[VirtualBatch]) -> tuple[float, list[Tensor]]:
    """Median CPU milliseconds of a step, all parties together, and the gradients."""
    spent, found = [], []
    for batch in batches:
        began = time.process_time()
        step = one.propose(batch)
        spent.append(1e3 * (time.process_time() - began))
        found.append(step.pooled)
    return statistics.median(spent), found


def uniform(data: dict[int, tuple[Tensor, Tensor]]) -> str:
    """What a share of activations alone tells: uniformity of its bytes, and its correlation with the activations."""
    split = split_of("MLP", 4, torch.float64)
    x, y = data[0]
    n = len(x)
    activations = split.activations(split.theta, x)
    lines = [
        "| share | χ² of its bytes (255 degrees), p | Kolmogorov–Smirnov, p | correlation with the activations |",
        "|---|---:|---:|---:|",
    ]
    ring = Ring()
    mine, other = SecureNode(split, x, y, ring=ring).forward_shares(SecureForwardRequest(1, split.theta, torch.arange(n), n))
    shares = {
        "the orchestrator's": mine.activations + ring.mask(mine.key, "U", mine.activations.shape),
        "the helper's": ring.mask(other.key, "U", other.activations.shape),
        "masked activations, which both see": mine.activations,
        "activations in the ring, not shared": ring.encode(activations, "activations", ring.limit / n),
    }
    for name, words in shares.items():
        counts = np.bincount(np.ascontiguousarray(words).view(np.uint8).ravel(), minlength=256)
        chi, ks = scipy.stats.chisquare(counts).pvalue, scipy.stats.kstest(words.ravel() / 2.0**64, "uniform").pvalue
        like = float(np.corrcoef(words.view(np.int64).ravel().astype(float), activations.flatten().numpy())[0, 1])
        lines.append(f"| {name} | {chi:.2g} | {ks:.2g} | {like:+.3f} |")
    draw = torch.Generator().manual_seed(0)
    noise = torch.randn(activations.shape, generator=draw, dtype=activations.dtype) * 0.02 * activations.std()
    half = activations / 2 + noise
    like = float(torch.corrcoef(torch.stack([half.flatten(), activations.flatten()]))[0, 1])
    lines.append(f"| TL++'s: half the number plus 2 % noise | – | – | {like:+.3f} |")
    return f"{n * activations.shape[1]:,} activations of the MLP, keys drawn anew with each run:\n\n" + "\n".join(lines) + "\n"


TABLES = {"lossless": lossless, "bytes": traffic, "secure": secure}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--markdown", type=Path, help="write the tables into this folder")
    parser.add_argument("--only", nargs="+", default=list(TABLES), choices=list(TABLES))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.only:
        table = TABLES[name]()
        sys.stdout.write(f"\n{table}")
        if arguments.markdown is not None:
            write_text(arguments.markdown / f"traversal-{name}.md", table)


if __name__ == "__main__":
    main()
