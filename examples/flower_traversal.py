"""Traversal learning over Flower. Six nodes read digits; the model is that of training in one place, to rounding.

Run ``pip install 'proxycoop[flower]'``, then ``python examples/flower_traversal.py``. It needs no network. With ``--simulation`` the nodes
run in Flower's simulation, for which ray is needed: ``pip install 'flwr[simulation]'``. With ``--secure`` a seventh party helps. Neither it
nor the orchestrator then sees activations, labels or a node's gradients, and what nodes and helper say to each other is sealed.
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
from proxycoop.traversal import Helper, Node, Orchestrator, SecureNode, SecureOrchestrator, SplitModel, plan
from proxycoop.traversal.flower import GridTransport, serve
from proxycoop.traversal.flower_secure import SecureGridTransport, serve_secure

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


def client_app(secure: bool) -> ClientApp:
    """The nodes' app: each holds its sixth of the rows. In the secure mode the seventh SuperNode is the helper."""
    app = ClientApp()

    def party(context: Context) -> SecureNode | Helper:
        number = int(context.node_config["partition-id"])
        if number == N_NODES:
            return Helper(model())
        x, y = (part.chunk(N_NODES)[number] for part in rows())
        return SecureNode(model(), x, y)

    def node(context: Context) -> Node:
        x, y = (part.chunk(N_NODES)[int(context.node_config["partition-id"])] for part in rows())
        return Node(model(), x, y)

    if secure:
        serve_secure(app, party, pinned=False)  # a deployment pins: each operator sets the helper's key in --node-config
    else:
        serve(app, node)
    return app


def orchestrated(split: SplitModel, grid: Grid, secure: bool) -> Orchestrator | SecureOrchestrator:
    """The orchestrator, as soon as it knows the nodes."""
    if secure:
        sealed = SecureGridTransport(grid)
        hidden = SecureOrchestrator(split, sealed)
        hidden.census(sealed.find(N_NODES))
        return hidden
    transport = GridTransport(grid)
    orchestrator = Orchestrator(split, transport)
    orchestrator.census(transport.find(N_NODES))
    return orchestrator


def sent(orchestrator: Orchestrator | SecureOrchestrator) -> str:
    """How many bytes went where."""
    if isinstance(orchestrator, Orchestrator):
        return f"{orchestrator.traffic.down / 1e6:.1f} MB to nodes, {orchestrator.traffic.up / 1e6:.1f} MB from them"
    return ", ".join(f"{link} {traffic.total / 1e6:.1f} MB" for link, traffic in orchestrator.traffic.items())


def train(grid: Grid, secure: bool) -> None:
    """The orchestrator's loop; it prints how far its model is from that of training in one place."""
    split = model()
    orchestrator = orchestrated(split, grid, secure)
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
        print(f"epoch {epoch + 1}: accuracy {right:.1%}, {sent(orchestrator)}")
    print(f"largest difference from training in one place: {float((orchestrator.theta - central).abs().max()):.1e}")


def main() -> None:
    """Train, within this process or in Flower's simulation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulation", action="store_true", help="run the nodes in Flower's simulation")
    parser.add_argument("--secure", action="store_true", help="the secure mode, with a helper")
    arguments = parser.parse_args()
    secure, n_parties = arguments.secure, N_NODES + arguments.secure
    if not arguments.simulation:
        from flower_digits import InProcessGrid

        train(InProcessGrid(client_app(secure), n_parties), secure)
        return
    warnings.simplefilter("ignore")  # ray's
    from flwr.simulation import run_simulation

    server = ServerApp()

    @server.main()
    def run(grid: Grid, context: Context) -> None:
        del context
        train(grid, secure)

    run_simulation(server, client_app(secure), n_parties)


if __name__ == "__main__":
    main()
