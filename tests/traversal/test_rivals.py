"""What the benchmarks compare the protocol with is what they say it is."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from proxycoop.traversal import SplitModel

FOLDER = Path(__file__).parents[2] / "benchmarks" / "traversal"


def load(name: str):
    spec = importlib.util.spec_from_file_location(f"traversal_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


rivals, networks = load("rivals"), load("networks")


def made(method: str, sizes=(30, 20, 14), cut=2, batch=16):
    torch.manual_seed(0)
    split = SplitModel(networks.mlp(6, 3).double(), cut)
    x, y = torch.rand(sum(sizes), 6, dtype=torch.float64), torch.randint(0, 3, (sum(sizes),))
    data = dict(enumerate(zip(x.split(sizes), y.split(sizes), strict=True)))
    return rivals.METHODS[method](split, data, 0.3, batch, seed=1)


@pytest.mark.parametrize("method", ["traversal", "traversal, labels", "FedSGD"])
def test_lossless_methods_train_as_in_one_place(method):
    central, other = made("centralised"), made(method)
    for _ in range(3):
        central.round()
        other.round()
        torch.testing.assert_close(other.theta, central.theta, rtol=1e-10, atol=1e-13)
    assert other.exchanges == 12 * (1 if method == "FedSGD" else 2)


@pytest.mark.parametrize("method", ["FedAvg", "split learning", "SplitFed"])
def test_with_one_node_and_one_batch_every_method_takes_the_centralised_step(method):
    central, other = made("centralised", (30,), batch=30), made(method, (30,), batch=30)
    central.round()
    other.round()
    torch.testing.assert_close(other.theta, central.theta, rtol=1e-12, atol=1e-14)


def test_split_learning_takes_the_same_steps_wherever_it_is_cut():
    ends = []
    for cut in (1, 2, 3, 4):
        one = made("split learning", cut=cut)
        one.round()
        ends.append(one.theta)
    for end in ends[1:]:
        torch.testing.assert_close(end, ends[0], rtol=1e-12, atol=1e-14)


def test_federated_averaging_with_one_step_is_the_step_on_all_rows():
    federated, central = made("FedAvg", batch=64), made("centralised", batch=64)
    federated.round()
    central.round()
    torch.testing.assert_close(federated.theta, central.theta, rtol=1e-12, atol=1e-14)


def test_bytes_of_federated_averaging_and_split_learning():
    federated, split = made("FedAvg"), made("split learning")
    federated.round()
    split.round()
    assert federated.traffic.down == 3 * 8 * federated.split.n_parameters
    assert federated.traffic.up == 3 * (8 * federated.split.n_parameters + 8)
    assert split.traffic.down == 3 * 8 * split.split.n_below + 64 * 8 * 64
    assert split.traffic.up == 3 * (8 * split.split.n_below + 8) + 64 * (8 * 64 + 8)


@pytest.mark.parametrize("concentration", [None, 0.1, 10.0])
def test_rows_are_dealt_once_each(concentration):
    labels = torch.arange(200) % 4
    dealt = rivals.shared_out(labels, 5, concentration, seed=0)
    assert torch.equal(torch.cat(dealt).sort().values, torch.arange(200))
    assert min(map(len, dealt)) >= 10
    assert all(torch.equal(a, b) for a, b in zip(dealt, rivals.shared_out(labels, 5, concentration, seed=0), strict=True))
