"""Files of tensors: what was written comes back, and nothing else does."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch

from proxycoop import agents
from proxycoop.agents import saved
from proxycoop.agents.network import LotNetwork, save
from proxycoop.envs import ObservationLayout, scenario

LAYOUT = ObservationLayout.of(scenario.load("breast_cancer"))
DATA = {"network": {"actor.weight": torch.arange(12.0).reshape(3, 4)}, "names": ["a", "b"], "hidden": 3, "scale": 0.5}


@pytest.fixture
def file(tmp_path):
    return saved.write(tmp_path / "data.pt", DATA, "policy")


def read(path):
    return saved.read(path, "policy", "train it again")


def policy(path, **changes):
    torch.manual_seed(0)
    network = LotNetwork(**LAYOUT.sizes, hidden=4)
    for name, number in changes.items():
        torch.nn.init.constant_(network.get_parameter(name.replace("__", ".")), number)
    n_features = sum(LAYOUT.sizes.values())
    save(path, network, torch.zeros(n_features), torch.ones(n_features), LAYOUT)


def test_what_was_written_comes_back_and_torch_reads_it_too(file):
    for data in (read(file), torch.load(file, weights_only=True)):
        assert torch.equal(data["network"]["actor.weight"], DATA["network"]["actor.weight"])
        assert {key: data[key] for key in ("names", "hidden", "scale")} == {key: DATA[key] for key in ("names", "hidden", "scale")}


def test_any_flipped_bit_is_noticed_and_any_missing_end(file):
    whole = file.read_bytes()
    coins = random.Random(0)
    for place in [*coins.sample(range(len(whole)), 60), *range(len(whole) - 104, len(whole), 2)]:
        flipped = bytearray(whole)
        flipped[place] ^= 1 << coins.randrange(8)
        file.write_bytes(flipped)
        with pytest.raises(ValueError, match=r"policy '.*data\.pt' is damaged or not a policy \(.*\): train it again"):
            read(file)
    for length in [0, 1, 21, 22, *coins.sample(range(len(whole)), 10), *range(len(whole) - 90, len(whole), 8)]:
        file.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"policy '.*data\.pt' is damaged or not a policy"):
            read(file)


@pytest.mark.parametrize("content", [bytes(5000), b"PK\x05\x06" + bytes(18), b"half", b"\x80\x02}q\x00.", b"%PDF-1.7\n" * 99])
def test_another_file_is_refused_by_its_name(tmp_path, content):
    (tmp_path / "other.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"other\.pt' is damaged or not a policy"):
        read(tmp_path / "other.pt")


def test_a_file_of_an_earlier_version_has_no_digest_and_is_held_to_its_checksums(tmp_path):
    torch.save(DATA, tmp_path / "old.pt")
    assert torch.equal(read(tmp_path / "old.pt")["network"]["actor.weight"], DATA["network"]["actor.weight"])
    content = bytearray((tmp_path / "old.pt").read_bytes())
    content[content.index(np.float32(11.0).tobytes())] ^= 4  # within the tensor
    (tmp_path / "old.pt").write_bytes(content)
    assert torch.load(tmp_path / "old.pt", weights_only=True)["network"]["actor.weight"][2, 3] != 11  # torch does not mind
    with pytest.raises(ValueError, match=r"old\.pt' is damaged .* checksum of its entry"):
        read(tmp_path / "old.pt")


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ({"network": {"a": torch.zeros(2), "b": torch.tensor([1.0, math.nan])}}, "network.b"),
        ({"state": [({"exp_avg": torch.tensor(math.inf)},)]}, "state.0.0.exp_avg"),
        ({"mean": torch.tensor([0.0, -math.inf])}, "mean"),
        ({"scale": math.nan}, "scale"),
    ],
)
def test_numbers_that_are_not_finite_are_neither_written_nor_read(tmp_path, data, name):
    with pytest.raises(ValueError, match=rf"policy '.*new\.pt' was not written: {name} is not finite"):
        saved.write(tmp_path / "new.pt", data, "policy")
    assert not (tmp_path / "new.pt").exists()
    torch.save(data, tmp_path / "old.pt")
    with pytest.raises(ValueError, match=rf"policy '.*old\.pt' holds numbers that are not finite, in {name}: delete it"):
        saved.read(tmp_path / "old.pt", "policy", "delete it")


def test_an_array_that_is_not_finite_is_not_written_and_a_file_with_more_than_tensors_and_plain_data_not_read(tmp_path):
    with pytest.raises(ValueError, match=r"policy '.*new\.pt' was not written: mean is not finite"):
        saved.write(tmp_path / "new.pt", {"mean": np.array([0.0, -math.inf])}, "policy")
    torch.save({"mean": np.zeros(2)}, tmp_path / "old.pt")
    with pytest.raises(ValueError, match=r"policy '.*' is damaged .* \(it holds more than tensors and plain data\): delete it"):
        saved.read(tmp_path / "old.pt", "policy", "delete it")


def test_a_policy_that_diverged_is_not_saved_and_one_that_was_is_not_played(tmp_path):
    with pytest.raises(ValueError, match=r"was not written: network\.actor\.0\.weight is not finite"):
        policy(tmp_path / "policy.pt", actor__0__weight=math.nan)
    policy(tmp_path / "policy.pt")
    old = torch.load(tmp_path / "policy.pt", weights_only=True)
    old["network"]["decide.bias"] = torch.tensor([math.nan])
    torch.save(old, tmp_path / "policy.pt")  # as an earlier version did
    with pytest.raises(ValueError, match=r"policy '.*policy\.pt' holds numbers that are not finite, in network\.decide\.bias"):
        agents.make("learned", path=tmp_path)
    old["network"]["decide.bias"] = torch.zeros(1)
    torch.save(old | {"mean": torch.zeros(3)}, tmp_path / "policy.pt")
    with pytest.raises(ValueError, match=r"policy\.pt' is damaged or not a policy"):
        agents.make("learned", path=tmp_path)
    torch.save(old, tmp_path / "policy.pt")
    agents.make("learned", path=tmp_path)  # an earlier version's, whole


def test_a_policy_with_a_flipped_bit_is_refused(tmp_path):
    policy(tmp_path / "policy.pt", decide__bias=11.0)
    content = bytearray((tmp_path / "policy.pt").read_bytes())
    content[content.index(np.float32(11.0).tobytes()) + 2] ^= 4
    (tmp_path / "policy.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"policy '.*policy\.pt' is damaged .* digest .*: copy it again .* or train it again"):
        agents.make("learned", path=tmp_path)
