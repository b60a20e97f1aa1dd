"""The papers' claims on data of ours: traversal learning beside centralised training, federated averaging and split learning.

Six nodes hold the rows of digits, adult or Fashion-MNIST. ``0.1``: each class is dealt by a Dirichlet distribution with concentration 0.1,
so that most nodes lack most classes. ``iid``: rows are dealt evenly. All methods have the same model, start, batch of 64 rows and plain
gradient descent; in a round each row is visited once. Each method takes the learning rate out of 0.03, 0.1, 0.3 and 1 that ends best on a
seed of its own (traversal learning takes that of centralised training). Seeds deal the rows, draw the start and order the batches; the rows
themselves are the same. Methods that send less in a round are run longer, for what they reach by byte and by second.

Seconds are CPU seconds of all parties, one after another, and what a link would take: bytes at 100 Mbit/s, and 20 ms for each exchange.

Run: ``python benchmarks/traversal/claims.py [--seeds 5] [--rounds 12] [--markdown FILE]``. Finished trainings are kept in ``--out`` and
are not run again. Fashion-MNIST is left out where its files are not in ``--fashion``.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import networks
import numpy as np
import rivals
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, StrMethodFormatter
from sklearn.metrics import f1_score
from torch import Tensor

from proxycoop.envs.data import load
from proxycoop.files import write_bytes, write_text
from proxycoop.training.intervals import Estimate
from proxycoop.training.pages.drawing import Drawing, house_style
from proxycoop.traversal import SplitModel

ROOT = Path(__file__).parents[2]
N_NODES, BATCH, N_TRAIN, N_TEST = 6, 64, 1200, 597
RATES = (0.03, 0.1, 0.3, 1.0)
COMPARED = ("centralised", "traversal", "FedAvg", "split learning", "SplitFed")
CASES = (("digits", "iid"), ("digits", "0.1"), ("adult", "0.1"), ("fashion", "0.1"))
LINK, LATENCY = 100e6 / 8, 0.02  # bytes a second, seconds an exchange
TUNING_SEED = 1000
LONGER = {"FedAvg": 100, "split learning": 36, "SplitFed": 36}
"""Rounds of methods that send less in a round: about half the bytes that traversal learning sends in 12."""
Curve = dict[str, list[float]]


@cache
def table_of(name: str, fashion: Path) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Train and test rows, features scaled to at most 1 or to unit variance."""
    if name == "fashion":
        raw = gzip.decompress((fashion / "train-images-idx3-ubyte.gz").read_bytes())[16:]
        labels = gzip.decompress((fashion / "train-labels-idx1-ubyte.gz").read_bytes())[8:]
        features, y = np.frombuffer(raw, np.uint8).reshape(-1, 784), np.frombuffer(labels, np.uint8).astype(np.int64)
    else:
        data = load(name)
        features, y = np.asarray(data.features), np.asarray(data.labels)
    order = np.random.default_rng(0).permutation(len(y))[: N_TRAIN + N_TEST]
    features, y = features[order], y[order]
    if name == "fashion":
        features = features / 255.0
    if name == "adult":
        spread = features[:N_TRAIN].std(axis=0)
        features = (features - features[:N_TRAIN].mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    x, labels_of = torch.from_numpy(features).float(), torch.from_numpy(y)
    return x[:N_TRAIN], labels_of[:N_TRAIN], x[N_TRAIN:], labels_of[N_TRAIN:]


def train(name: str, dealt: str, method: str, rate: float, seed: int, rounds: int, fashion: Path) -> Curve:
    """Accuracy, macro-F1, megabytes and seconds after each round."""
    x, y, test_x, test_y = table_of(name, fashion)
    n_classes = int(max(y.max(), test_y.max())) + 1
    torch.manual_seed(seed)
    split = SplitModel(networks.mlp(x.shape[1], n_classes), networks.CUTS["MLP"])
    own = rivals.shared_out(y, N_NODES, None if dealt == "iid" else float(dealt), seed)
    one = rivals.METHODS[method](split, {node: (x[rows], y[rows]) for node, rows in enumerate(own)}, rate, BATCH, seed)
    curve: Curve = {"accuracy": [], "macro_f1": [], "megabytes": [], "seconds": []}
    spent = 0.0
    for _ in range(rounds):
        began = time.process_time()
        one.round()
        spent += time.process_time() - began
        with torch.no_grad():
            said = split.logits(one.theta, test_x).argmax(dim=1)
        curve["accuracy"].append(float((said == test_y).double().mean()))
        curve["macro_f1"].append(float(f1_score(test_y, said, average="macro", zero_division=0)))
        curve["megabytes"].append(one.traffic.total / 1e6)
        curve["seconds"].append(spent + one.traffic.total / LINK + LATENCY * one.exchanges)
    return curve


class Kept:
    """Finished trainings, in a file."""

    def __init__(self, path: Path, fashion: Path) -> None:
        self.path, self.fashion = path, fashion
        self.known: dict[str, Curve] = json.loads(path.read_text()) if path.exists() else {}

    def __call__(self, name: str, dealt: str, method: str, rate: float, seed: int, rounds: int) -> Curve:
        """A training, run if it is not there yet."""
        key = f"{name} {dealt} {method} {rate} {seed} {rounds}"
        if key not in self.known:
            self.known[key] = train(name, dealt, method, rate, seed, rounds, self.fashion)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_text(self.path, json.dumps(self.known))
            sys.stderr.write(f"{key}: {self.known[key]['accuracy'][-1]:.3f}\n")
        return self.known[key]


def chosen_rate(kept: Kept, name: str, dealt: str, method: str, rounds: int) -> float:
    """The learning rate that ends with the best macro-F1 on a seed of its own."""
    method = "centralised" if method == "traversal" else method
    return max(RATES, key=lambda rate: kept(name, dealt, method, rate, TUNING_SEED, rounds)["macro_f1"][-1])


Found = dict[tuple[str, str], dict[str, tuple[float, list[Curve]]]]


def percent(found: Estimate) -> str:
    """In points, with its interval."""
    return f"{100 * (found.mean or 0):.1f} ± {100 * (found.half_width or 0):.1f}"


def after(curves: list[Curve], measure: str, rounds: int) -> Tensor:
    """A measure after so many rounds, by seed."""
    return torch.tensor([curve[measure][rounds - 1] for curve in curves], dtype=torch.float64)


def ends(found: Found, rounds: int) -> str:
    """The table of what comes out after equally many rounds."""
    lines = [
        "| data | dealt | method | rate | accuracy, % | macro-F1, % | traversal's lead in macro-F1 |",
        "|---|---|---|---:|---:|---:|---:|",
    ]
    for (name, dealt), methods in found.items():
        ours = after(methods["traversal"][1], "macro_f1", rounds)
        for method, (rate, curves) in methods.items():
            accuracy, f1 = after(curves, "accuracy", rounds), after(curves, "macro_f1", rounds)
            lead = "" if method == "traversal" else percent(Estimate.of(ours - f1))
            lines.append(
                f"| {name} | {dealt} | {method} | {rate:g} | {percent(Estimate.of(accuracy))} | {percent(Estimate.of(f1))} | {lead} |"
            )
    return "\n".join(lines) + "\n"


def first_at(curve: Curve, goal: float, axis: str) -> float:
    """Where on an axis a macro-F1 is first reached; NaN if it never is."""
    for place, value in enumerate(curve["macro_f1"]):
        if value >= goal:
            return place + 1.0 if axis == "rounds" else curve[axis][place]
    return float("nan")


def reached(found: Found) -> str:
    """The table of rounds, bytes and seconds to nine tenths of what centralised training ends with."""
    lines = [
        "| data | dealt | method | reached by | rounds | MB | seconds | MB a round | s a round | rounds run | macro-F1 then, % |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for (name, dealt), methods in found.items():
        goals = [0.9 * curve["macro_f1"][-1] for curve in methods["centralised"][1]]
        for method, (_, curves) in methods.items():
            cells = []
            for axis in ("rounds", "megabytes", "seconds"):
                at = torch.tensor([first_at(curve, goal, axis) for curve, goal in zip(curves, goals, strict=True)])
                came = at[~at.isnan()]
                digits = 2 if axis == "megabytes" else 1
                cells.append(f"{float(came.mean()):.{digits}f}" if len(came) else "–")
            n_rounds = len(curves[0]["accuracy"])
            per_round = [float(after(curves, axis, n_rounds).mean()) / n_rounds for axis in ("megabytes", "seconds")]
            cells += [f"{per_round[0]:.2f}", f"{per_round[1]:.2f}", f"{n_rounds}"]
            cells.append(percent(Estimate.of(after(curves, "macro_f1", n_rounds))))
            lines.append(f"| {name} | {dealt} | {method} | {len(came)} of {len(at)} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


LOOKS: dict[str, Any] = {
    "centralised": {"color": "#000000", "linestyle": (0, (1, 2)), "linewidth": 2.5},
    "traversal": {"color": "#D55E00", "linestyle": "-"},
    "FedAvg": {"color": "#0072B2", "linestyle": (0, (5, 1.5))},
    "split learning": {"color": "#009E73", "linestyle": (0, (3, 1, 1, 1))},
    "SplitFed": {"color": "#CC79A7", "linestyle": (0, (2, 1))},
}


def picture(found: Found, rounds: int) -> bytes:
    """Macro-F1, mean over seeds, by round, by megabyte and by second."""
    cases = {case: methods for case, methods in found.items() if case[1] != "iid"}
    said = []
    with house_style():
        figure = Figure((9.0, 2.5 * len(cases)), layout="constrained")
        panels = figure.subplots(len(cases), 3, sharey="row", squeeze=False)
        for row, ((name, dealt), methods) in zip(panels, cases.items(), strict=True):
            for ax, axis in zip(row, ("rounds", "megabytes", "seconds"), strict=True):
                for method, (_, curves) in methods.items():
                    if method == "centralised" and axis != "rounds":
                        continue
                    f1 = np.array([curve["macro_f1"] for curve in curves]).mean(axis=0)
                    where = np.arange(1, len(f1) + 1) if axis == "rounds" else np.array([curve[axis] for curve in curves]).mean(axis=0)
                    shown = slice(rounds if axis == "rounds" else None)
                    ax.plot(where[shown], f1[shown], label=method, **LOOKS[method])
                ax.set_xlabel(axis)
                if axis != "rounds":
                    ax.set_xscale("log")
                    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
                    ax.xaxis.set_minor_formatter(NullFormatter())
            row[0].set_ylabel("macro-F1")
            row[0].set_title(f"{name}, concentration {dealt}")
            told = ", ".join(f"{method} {float(after(curves, 'macro_f1', rounds).mean()):.2f}" for method, (_, curves) in methods.items())
            said.append(f"{name}, concentration {dealt}, macro-F1 after {rounds} rounds: {told}")
        handles, labels = panels[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
        return Drawing("traversal", ". ".join(said), figure).svg


def main() -> None:
    """Train, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "traversal-claims.json", help="file of finished trainings")
    parser.add_argument("--fashion", type=Path, default=Path("/usr/share/datasets/fashion-mnist"), help="folder of Fashion-MNIST's files")
    parser.add_argument("--markdown", type=Path, help="write the tables into this file, and the picture beside it as .svg")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    kept = Kept(arguments.out, arguments.fashion)
    found: Found = {}
    for name, dealt in CASES:
        if name == "fashion" and not arguments.fashion.is_dir():
            sys.stderr.write(f"fashion is left out: there is no folder {arguments.fashion}\n")
            continue
        found[name, dealt] = {}
        for method in COMPARED:
            rate = chosen_rate(kept, name, dealt, method, arguments.rounds)
            rounds = max(arguments.rounds, LONGER.get(method, 0))
            found[name, dealt][method] = rate, [kept(name, dealt, method, rate, seed, rounds) for seed in range(arguments.seeds)]
    text = (
        f"{N_TRAIN:,} train rows on {N_NODES} nodes, {N_TEST} test rows, {arguments.rounds} rounds, {arguments.seeds} seeds; ± is a 95 % "
        f"interval over seeds, and leads are of the same seeds:\n\n{ends(found, arguments.rounds)}\nTo nine tenths of the macro-F1 with "
        "which centralised training ends; means over the seeds that reached it. Methods that send less in a round are run longer:\n\n"
        f"{reached(found)}"
    )
    sys.stdout.write(f"\n{text}")
    if arguments.markdown is not None:
        write_text(arguments.markdown, text)
        write_bytes(arguments.markdown.with_suffix(".svg"), picture(found, arguments.rounds))


if __name__ == "__main__":
    main()
