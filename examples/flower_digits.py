"""Flower with screening and credit. Six offices read digits: one mislabels its mail, and one protects its 8s and 9s.

Run ``pip install 'proxycoop[flower]'``, then ``python examples/flower_digits.py``. It needs no network: the digits come with scikit-learn,
and the clients run in this process, behind a Grid of thirty lines. For a deployment or Flower's simulation, keep the ClientApp and the
strategy, and let Flower make the Grid: call ``strategy.start`` in a function under ``@ServerApp().main()``.
"""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Iterable

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")  # before flwr is imported

import torch
from flwr.app import ArrayRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from torch import Tensor, nn

from proxycoop.envs import Engine, scenario
from proxycoop.flower import ValueConstrainedStrategy

N_CLIENTS, N_ROUNDS = 6, 8
PROTECTOR = 0  # the office whose 8s and 9s must not be misread more often
TOLERANCES = {"eights": 0.6, "nines": 0.6}  # by how much one update may raise the loss on them, in nats


def data() -> Engine:
    """The data of the scenario ``digits``: one lot of 80 rows a client, one lot in six mislabelled, and held-out rows for the server."""
    settings = {
        "lots.per_principal": 1,
        "lots.rows": 80,
        "lots.corruption.share": 1 / N_CLIENTS,
        "lots.mixture": {"concentration": 20, "classes_per_lot": 8, "owner_share": 1.0, "other_share": 0.7},  # decides who has 8s and 9s
        "profiles": [{"tolerances": TOLERANCES}],
        "profiles_drawn": False,  # the first client holds it
        "reward.scale": 1.0,  # nobody is rewarded here
    }
    cooperative = Engine(scenario.load("digits", **settings), None)
    cooperative.reset([0])
    return cooperative


def net() -> nn.Module:
    """Softmax regression; any module will do."""
    return nn.Linear(64, 10)


def started(cooperative: Engine) -> nn.Module:
    """The model before the first round, trained for 20 steps on 40 public rows."""
    public = cooperative.splits.public
    model = net()
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    return train_on(model, public.x, public.y, steps=20)[0]


def train_on(model: nn.Module, x: Tensor, y: Tensor, steps: int) -> tuple[nn.Module, float]:
    """Take steps of gradient descent on all rows. Returns the model, and its loss before the last step."""
    optimiser = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(steps):
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimiser.step()
    return model, loss.item()


def client_app(cooperative: Engine) -> ClientApp:
    """The app of each client: it trains on its own rows, and reports its number."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        partition = int(context.node_config["partition-id"])
        x, y = cooperative.lots.x[0, partition, 0], cooperative.lots.y[0, partition, 0]
        model = net()
        model.load_state_dict(message.content["arrays"].to_torch_state_dict())
        model, loss = train_on(model, x, y, steps=3)
        metrics = MetricRecord({"partition-id": partition, "num-examples": len(y), "train-loss": loss})
        return Message(RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics}), reply_to=message)

    return app


class InProcessGrid(Grid):
    """Clients as plain function calls: no processes, no ports."""

    def __init__(self, app: ClientApp, n_clients: int) -> None:
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1  # a runtime would set these
        self.app = app
        self.contexts = {
            100 + i: Context(1, 100 + i, {"partition-id": i, "num-partitions": n_clients}, RecordDict(), {}) for i in range(n_clients)
        }

    def get_node_ids(self) -> Iterable[int]:
        """All clients are always there."""
        return list(self.contexts)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Call the ClientApp; an exception becomes an error reply, as it would elsewhere."""
        del timeout
        replies = []
        for message in messages:
            try:
                replies.append(self.app(message, self.contexts[message.metadata.dst_node_id]))
            except Exception as error:  # whatever goes wrong in a client
                replies.append(Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, repr(error)), reply_to=message))
        return replies

    def create_message(self, *args: object, **kwargs: object) -> Message:
        """Not used by strategies."""
        raise NotImplementedError

    push_messages = pull_messages = set_run = create_message

    @property
    def run(self) -> Run:
        """A run without a number."""
        return Run.create_empty(1)


def main() -> None:
    """Train, and print what each client earned."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--credit", default="shapley", help="a credit rule, such as loo or 'shapley(budget=40)'")
    rule = parser.parse_args().credit
    logging.getLogger("flwr").setLevel(logging.ERROR)
    cooperative = data()
    held_out, probe = cooperative.splits.validation, cooperative.splits.probe

    def loss_on(name: str, model: nn.Module) -> Tensor:
        return nn.functional.cross_entropy(model(probe[name].x), probe[name].y)

    strategy = ValueConstrainedStrategy(
        model=net,
        clients=N_CLIENTS,
        utility=lambda model: -nn.functional.cross_entropy(model(held_out.x), held_out.y),
        credit=rule,
        values={"eights": lambda model: loss_on("eights", model), "nines": lambda model: loss_on("nines", model)},
        profiles={PROTECTOR: {"tolerances": TOLERANCES}},
        fraction_evaluate=0.0,
        min_train_nodes=N_CLIENTS,
        min_available_nodes=N_CLIENTS,
    )
    grid, initial_arrays = InProcessGrid(client_app(cooperative), N_CLIENTS), ArrayRecord(started(cooperative).state_dict())
    result = strategy.start(grid=grid, initial_arrays=initial_arrays, num_rounds=N_ROUNDS)

    def accuracy(arrays: ArrayRecord) -> float:
        model = net()
        model.load_state_dict(arrays.to_torch_state_dict())
        test = cooperative.splits.test
        return float((model(test.x).argmax(dim=1) == test.y).float().mean())

    mislabelled = cooperative.lots.corrupt[0, :, 0].nonzero()[:, 0].tolist()
    print(f"credit by {rule}, in nats; client {PROTECTOR} protects its 8s and 9s, clients {mislabelled} mislabel; (…): screened out")
    print("round" + "".join(f"  client {i}" for i in range(N_CLIENTS)))
    for t, record in enumerate(strategy.history, start=1):
        cells = (f"{credit:z.3f}" if admitted else "(…)" for credit, admitted in zip(record.credit, record.admitted, strict=True))
        print(f"{t:5d}" + "".join(f"{cell:>10}" for cell in cells))
    print("  all" + "".join(f"{credit:z10.3f}" for credit in strategy.credits))
    print(f"accuracy on the test set: {accuracy(initial_arrays):.1%} before, {accuracy(result.arrays):.1%} after")
    for client, reason in strategy.history[-1].reasons.items():
        print(f"last round: client {client} {reason}")


if __name__ == "__main__":
    main()
