"""Traversal learning over Flower's messages; ``make compat-flower`` runs these tests."""

import importlib.util
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"  # before flwr is imported
pytest.importorskip("flwr.serverapp", reason="flwr is an extra: make compat-flower")

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, RecordDict
from flwr.clientapp import ClientApp

from proxycoop.traversal import Local, Node, Orchestrator, SplitModel, plan
from proxycoop.traversal.flower import GridTransport, from_records, serve, to_records
from proxycoop.traversal.secure import HelperState
from proxycoop.traversal.secure_wire import (
    CutErrorShare,
    GradientShare,
    HelperIntroduction,
    HelperStart,
    IntroductionRequest,
    MaskedForward,
    NodeIntroduction,
    Reveal,
    Revealed,
    SecureForwardRequest,
)
from proxycoop.traversal.wire import BackwardReply, BackwardRequest, CountReply, CountRequest, ForwardReply, ForwardRequest, LabelReply

ROOT = Path(__file__).parents[2]
LOTS = [(7, 5), (9,), (4, 6, 3)]
WORDS = np.array([[1, 2, 3], [0, 2**63, 2**64 - 1]], dtype=np.uint64)


def in_process_grid(app: ClientApp, n_nodes: int):
    spec = importlib.util.spec_from_file_location("flower_digits", ROOT / "examples" / "flower_digits.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.InProcessGrid(app, n_nodes)


def split() -> SplitModel:
    torch.manual_seed(0)
    return SplitModel(nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4), nn.GELU(), nn.Linear(4, 3)).double(), 2)


def node(i: int) -> Node:
    draw = torch.Generator().manual_seed(i)
    x = torch.rand(sum(LOTS[i]), 6, generator=draw, dtype=torch.float64)
    return Node(split(), x, torch.randint(0, 3, (len(x),), generator=draw), LOTS[i])


def app_of(make=node) -> ClientApp:
    app = ClientApp()
    serve(app, lambda context: make(int(context.node_config["partition-id"])))
    return app


@pytest.mark.parametrize("tells", ["error", "labels"])
def test_over_flower_the_step_and_the_bytes_are_those_within_a_process(tells):
    transport = GridTransport(in_process_grid(app_of(), 3))
    far, near = Orchestrator(split(), transport, tells), Orchestrator(split(), Local({i: node(i) for i in range(3)}), tells)
    assert far.census(transport.find(3)) == near.census([0, 1, 2]) == {}
    for epoch in range(2):
        for batch in plan(far.counts, 12, seed=0, epoch=epoch):
            there, here = far.propose(batch), near.propose(batch)
            assert there.missing == {}
            assert there.lots == here.lots
            assert torch.equal(there.gradient, here.gradient)
            far.theta -= 0.3 * there.pooled
            near.theta -= 0.3 * here.pooled
    assert torch.equal(far.theta, near.theta)
    assert far.traffic.sent == near.traffic.sent


def test_a_node_that_fails_or_refuses_leaves_the_batch_with_its_reason():
    def make(i: int) -> Node:
        if i == 1 and broken:
            raise RuntimeError("out of memory")
        if i == 2 and broken:
            return Node(split(), torch.zeros(4, 6, dtype=torch.float64), torch.zeros(4, dtype=torch.int64))
        return node(i)

    broken: list[bool] = []
    transport = GridTransport(in_process_grid(app_of(make), 3))
    orchestrator = Orchestrator(split(), transport)
    orchestrator.census(transport.find(3))
    broken.append(True)
    shares = orchestrator.propose(plan(orchestrator.counts, None, seed=0)[0])
    assert {name for name, _ in shares.lots} == {0}
    assert "out of memory" in shares.missing[1]
    assert shares.missing[2].startswith("forward: rows must be int64 indices from 0 to 3")


def test_two_nodes_may_not_have_the_same_number_and_there_must_be_enough():
    grid = in_process_grid(app_of(), 3)
    with pytest.raises(ValueError, match="3 nodes answered: the run needs 4"):
        GridTransport(grid).find(4, wait=0)
    grid.contexts[102].node_config["partition-id"] = 0
    with pytest.raises(ValueError, match="nodes 100 and 102 both have partition-id 0"):
        GridTransport(grid).find()


def test_a_node_without_a_number_is_told_so_on_both_sides():
    grid = in_process_grid(app_of(), 3)
    del grid.contexts[101].node_config["partition-id"]
    wrong = "2 nodes answered: the run needs 3; node 101: this node has no partition-id: start its SuperNode with --node-config"
    with pytest.raises(ValueError, match=wrong):
        GridTransport(grid).find(3, wait=0)


def test_a_backward_request_without_an_open_step_is_refused():
    app, context = app_of(), Context(1, 100, {"partition-id": 0}, RecordDict(), {})
    grid = in_process_grid(app, 1)
    grid.contexts[100] = context
    transport = GridTransport(grid)
    transport.find()
    assert transport.exchange({0: BackwardRequest(3, torch.zeros(2, 5))}) == {0: "backward request of step 3: the node's open step is none"}
    theta, rows = split().theta, torch.tensor([0, 8])
    assert isinstance(transport.exchange({0: ForwardRequest(3, theta, rows)})[0], ForwardReply)
    assert isinstance(transport.exchange({0: BackwardRequest(3, torch.zeros(2, 5, dtype=torch.float64))})[0], BackwardReply)
    assert not list(context.state)  # what was kept for the step is gone


@pytest.mark.parametrize(
    "message",
    [
        CountRequest(),
        CountReply(torch.tensor([3, 4])),
        ForwardRequest(2, torch.rand(7), torch.tensor([0, 2])),
        ForwardReply(2, torch.rand(2, 3, 4), torch.rand(2, 10, dtype=torch.float64)),
        LabelReply(2, torch.rand(2, 3, 4), torch.tensor([1, 0])),
        BackwardRequest(2, torch.rand(2, 3, 4)),
        BackwardReply(2, torch.zeros(2, 0)),
        IntroductionRequest(),
        NodeIntroduction(torch.tensor([3, 4]), 20),
        HelperIntroduction(20, -1),
        SecureForwardRequest(2, torch.rand(7), torch.tensor([0, 2]), 5),
        MaskedForward(2, WORDS, WORDS[:, :1], torch.tensor([2]), b"key", np.zeros((0, 1, 3), dtype=np.uint64)),
        CutErrorShare(2, WORDS),
        GradientShare(2, WORDS),
        HelperStart(2, torch.rand(2, 3)),
        Reveal(2, torch.tensor([0, 2]), True),
        Revealed(2, WORDS[0]),
        HelperState(2, 1, WORDS, torch.tensor([0, 0]), WORDS, torch.tensor([], dtype=torch.int64), WORDS[:0]),
    ],
)
def test_messages_come_back_as_they_were(message):
    back = from_records(to_records(message))
    assert type(back) is type(message)
    for part in fields(message):
        value, came = getattr(message, part.name), getattr(back, part.name)
        if isinstance(value, np.ndarray):
            assert came.dtype == value.dtype == np.uint64
            assert np.array_equal(came, value)
        else:
            assert torch.equal(came, value) if isinstance(value, torch.Tensor) else came == value


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda c: c.pop("message"), "records are of kind None: must be one of CountRequest, "),
        (lambda c: c.pop("arrays"), "with an ArrayRecord named arrays"),
        (lambda c: c["message"].update({"kind": "Theft"}), "records are of kind 'Theft'"),
        (lambda c: c["message"].pop("step"), "a ForwardRequest has the fields step, theta, rows, labels: step is missing or too many"),
        (lambda c: c["arrays"].pop("theta"), "theta is missing or too many"),
        (lambda c: c["arrays"].update({"step": c["arrays"]["theta"]}), "field step of a ForwardRequest is a Tensor: must be a int"),
        (lambda c: setattr(c["arrays"]["theta"], "data", b"no array"), "arrays of a ForwardRequest cannot be read"),
    ],
)
def test_records_that_are_no_message_are_refused(change, problem):
    content = to_records(ForwardRequest(2, torch.rand(7), torch.tensor([0, 2])))
    change(content)
    with pytest.raises(ValueError, match=problem):
        from_records(content)


def test_words_and_numbers_of_another_type_are_refused():
    content = to_records(CutErrorShare(2, WORDS))
    content["arrays"]["error"] = Array(WORDS.astype(np.int64))
    with pytest.raises(ValueError, match="field error of a CutErrorShare is a Tensor: must be a Words"):
        from_records(content)
    content = to_records(CutErrorShare(2, WORDS))
    content["message"]["step"] = "2"
    with pytest.raises(ValueError, match="field step of a CutErrorShare is a str: must be a int"):
        from_records(content)


def test_other_records_are_refused():
    with pytest.raises(ValueError, match="records are of kind None"):
        from_records(RecordDict({"arrays": ArrayRecord(), "message": ConfigRecord({"kind": 3})} | {"message": ArrayRecord()}))


@pytest.mark.parametrize(
    ("arguments", "bound"),
    [
        ([], 1e-12),
        (["--secure"], 1e-5),
        pytest.param(["--simulation"], 1e-12, marks=pytest.mark.slow),
        pytest.param(["--simulation", "--secure"], 1e-5, marks=pytest.mark.slow),
    ],
)
def test_the_example_trains_the_model_of_training_in_one_place(arguments, bound):
    if "--simulation" in arguments:
        pytest.importorskip("ray", reason="Flower's simulation needs ray: pip install 'flwr[simulation]'")
    command = [sys.executable, str(ROOT / "examples" / "flower_traversal.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert "epoch 2: accuracy " in done.stdout
    assert float(done.stdout.strip().splitlines()[-1].rpartition(" ")[2]) < bound
