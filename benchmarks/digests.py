"""Check that no number changes: SHA-256 digests of trajectories and of a training.

Run it before and after such a change, on the same machine, and compare::

    python benchmarks/digests.py --out before.txt
    python benchmarks/digests.py --against before.txt

A trajectory's digest covers every tensor of every :class:`RoundResult`, and the shared parameters after each round. Digests differ
between processors and between versions of torch, so the repository holds none.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
from dataclasses import fields
from pathlib import Path

import torch
from torch import Tensor

from proxycoop.credit import RULES
from proxycoop.envs import Engine, scenario
from proxycoop.files import write_text
from proxycoop.training.outputs import Outputs

SCENARIOS = ("digits", "digits-mean", "breast_cancer")
EVERY_RULE_ON = "breast_cancer"
FIVE_RULES = ("equal", "data_size", "loo", "shapley", "aristocrat")
VARIANTS: dict[str, tuple[str, dict[str, object]]] = {
    "measured harm, project, guard": ("digits", {"screening.harm": "measured", "screening.filter": "project", "screening.guard": True}),
    "second order, scale, quorum": (
        "digits",
        {"screening.harm": "second_order", "screening.filter": "scale", "screening.governance": "quorum", "screening.quorum": 0.7},
    ),
    "negotiated": ("digits", {"screening.governance": "negotiate"}),
    "tags": ("digits-provenance", {}),
    "adam": ("digits-mean", {"server.kind": "adam", "server.lr": 0.02, "screening.guard": True}),
    "momentum": ("digits", {"server.momentum": 0.5, "screening.guard": True}),
    "traversal": ("breast_cancer", {"substrate.kind": "traversal"}),
    "mlp": ("breast_cancer", {"model": {"kind": "mlp", "hidden": [4]}}),
    "columns": ("breast_cancer-vertical", {}),
    "settlement": ("breast_cancer", {"settlement.period": 4, "settlement.reward": "settlement"}),
}
TRAINING = ("--library", "ippo", "--scenario", "breast_cancer", "--credit", "loo", "--steps", "6000", "--seed", "0")


class Digest:
    """SHA-256 over tensors: type, shape and bytes of each."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, name: str, tensor: Tensor) -> None:
        """Take one tensor in, under its name."""
        head = f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode()
        self._hash.update(head + tensor.detach().cpu().contiguous().numpy().tobytes())

    def __str__(self) -> str:
        return self._hash.hexdigest()[:32]


def trajectory(made: scenario.Scenario, rule: str, *, num_envs: int = 4, n_episodes: int = 2) -> str:
    """Digest of random play over whole episodes, in the batch that the engine steps at once."""
    engine, digest = Engine(made, rule, num_envs=num_envs), Digest()
    coins = torch.Generator().manual_seed(7)
    observations = engine.reset(range(num_envs))
    for _ in range(n_episodes):
        digest.add("observations", observations)
        while engine.t < engine.horizon:
            result = engine.step(torch.rand(num_envs, engine.num_agents, engine.num_lots, generator=coins) < 0.6)
            for field in fields(result):
                if isinstance(value := getattr(result, field.name), Tensor):
                    digest.add(field.name, value)
            digest.add("theta", engine.theta)
        observations = engine.reset()
    return str(digest)


def with_settings(name: str, settings: dict[str, object]) -> scenario.Scenario:
    """A shipped scenario with some settings changed, each named by its path."""
    return scenario.load(name, **settings)


def training() -> str:
    """Digest of the weights that one training by ``ippo`` ends with."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [sys.executable, "-m", "proxycoop", "train", *TRAINING, "--out", str(out)]
        one_thread = os.environ | {"OMP_NUM_THREADS": "1"}  # sums depend on how many threads share them
        subprocess.run(command, check=True, capture_output=True, env=one_thread)
        saved = torch.load(out / "policy.pt", weights_only=True)
    digest = Digest()
    _add_all(digest, "policy", saved)
    return str(digest)


def _add_all(digest: Digest, name: str, part: object) -> None:
    if isinstance(part, Tensor):
        digest.add(name, part)
    elif isinstance(part, dict):
        for key, entry in part.items():
            _add_all(digest, f"{name}.{key}", entry)


def main() -> None:
    """Print the digests, and what differs from those of an earlier run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="write the digests here as well")
    parser.add_argument("--against", type=Path, help="digests of an earlier run to compare with")
    parser.add_argument("--overwrite", action="store_true", help="replace the file of --out, whoever wrote it")
    chosen = parser.parse_args()
    if chosen.against and not chosen.against.is_file():
        parser.error(f"--against {chosen.against}: there is no such file; --out writes one")
    if chosen.out and not chosen.out.resolve().parent.is_dir():
        parser.error(f"--out {chosen.out}: there is no folder {chosen.out.parent}")
    outputs = Outputs("digests", overwrite=chosen.overwrite, inputs={chosen.against: "what is compared with"} if chosen.against else {})
    try:
        outputs.file(chosen.out)
        outputs.prepare()
    except ValueError as error:
        parser.error(str(error))
    torch.set_num_threads(1)
    before = dict(line.rsplit("  ", 1) for line in chosen.against.read_text().splitlines()) if chosen.against else {}
    lines, moved = [], []

    def row(what: str, digest: str) -> None:
        verdict = "" if not before else "  same" if before.get(what) == digest else f"  MOVED from {before.get(what, 'nothing')}"
        moved.extend([what] if verdict.startswith("  MOVED") else [])
        lines.append(f"{what}  {digest}")
        print(f"{what:<58}{digest}{verdict}", flush=True)

    for name in SCENARIOS:
        for rule in FIVE_RULES:
            row(f"{name}, {rule}", trajectory(with_settings(name, {}), rule))
    for what, (name, settings) in VARIANTS.items():
        row(f"{name}, {what}, shapley", trajectory(with_settings(name, settings), "shapley"))
    for rule in RULES.names():
        home = "breast_cancer-vertical" if rule == "verfedsv" else EVERY_RULE_ON
        row(f"{home}, every rule, {rule}", trajectory(with_settings(home, {}), rule, num_envs=2, n_episodes=1))
    row("training: " + " ".join(TRAINING), training())
    if chosen.out:
        with outputs:
            write_text(chosen.out, "\n".join(lines) + "\n")
    if moved:
        sys.exit(f"{len(moved)} of {len(lines)} digests moved")


if __name__ == "__main__":
    main()
