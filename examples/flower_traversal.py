"""Traversal learning over Flower. Six nodes read digits; the model is that of training in one place, to rounding.

Run ``pip install 'proxycoop[flower]'``, then ``python examples/flower_traversal.py``. It needs no network. With ``--simulation`` the nodes
run in Flower's simulation, for which ray is needed: ``pip install 'flwr[simulation]'``.
"""

from __future__ import annotations

import argparse
import os
import warnings

os.environ |= {"FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0"}  # before flwr is imported
os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"

import torch
from flwr.app import Context
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from torch import Tensor, nn

from proxycoop.envs.data import load
from proxycoop.traversal import Node, Orchestrator, SplitModel, plan
from proxycoop.traversal.flower import GridTransport, serve

N_NODES, N_ROWS, N_EPOCHS, BATCH, LR = 6, 1200, 2, 200, 0.3


def model() -> SplitModel:
    """A perceptron with one hidden layer, cut behind it; both sides build it."""
    torch.manual_seed(0)
    return SplitModel(nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10)).double(), cut=2)


def rows() -> tuple[Tensor, Tensor]:
    """All rows, sorted by their digit: each node gets two or three digits."""
    digits = load("digits")
    order = digits.labels[:N_ROWS].argsort(kind="stable")
    return torch.from_numpy(digits.features[order]), torch.from_numpy(digits.labels[order])


def client_app() -> ClientApp:
    """The nodes' app: each holds its sixth of the rows."""
    app = ClientApp()

    def node(context: Context) -> Node:
        x, y = (part.chunk(N_NODES)[int(context.node_config["partition-id"])] for part in rows())
        return Node(model(), x, y)

    serve(app, node)
    return app


def train(grid: Grid) -> None:
    """The orchestrator's loop; it prints how far its model is from that of training in one place."""
    split, transport = model(), GridTransport(grid)
    orchestrator = Orchestrator(split, transport)
    orchestrator.census(transport.find(N_NODES))
    x, y = rows()
    first = {node: node * N_ROWS // N_NODES for node in orchestrator.counts}
    central = split.theta.clone()
    for epoch in range(N_EPOCHS):
        for batch in plan(orchestrator.counts, BATCH, seed=0, epoch=epoch):
            orchestrator.theta -= LR * orchestrator.propose(batch).pooled
            pooled = torch.cat([first[visit.node] + visit.rows for visit in batch.visits])
            leaf = central.requires_grad_()
            loss = nn.functional.cross_entropy(split.logits(leaf, x[pooled]), y[pooled])
            central = (leaf - LR * torch.autograd.grad(loss, leaf)[0]).detach()
        right = float((split.logits(orchestrator.theta, x).argmax(dim=1) == y).double().mean())
        sent = orchestrator.traffic
        print(f"epoch {epoch + 1}: accuracy {right:.1%}, {sent.down / 1e6:.1f} MB to nodes, {sent.up / 1e6:.1f} MB from them")
    print(f"largest difference from training in one place: {float((orchestrator.theta - central).abs().max()):.1e}")


def main() -> None:
    """Train, within this process or in Flower's simulation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulation", action="store_true", help="run the nodes in Flower's simulation")
    if not parser.parse_args().simulation:
        from flower_digits import InProcessGrid

        train(InProcessGrid(client_app(), N_NODES))
        return
    warnings.simplefilter("ignore")  # ray's
    from flwr.simulation import run_simulation

    server = ServerApp()

    @server.main()
    def run(grid: Grid, context: Context) -> None:
        del context
        train(grid)

    run_simulation(server, client_app(), N_NODES)


if __name__ == "__main__":
    main()
