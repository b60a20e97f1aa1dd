"""The command ``proxycoop explain``."""

from __future__ import annotations

import csv
import json

import pytest

from proxycoop.training.libraries.registry import settings_for
from proxycoop.training.train import train


@pytest.fixture(scope="module")
def folder(small, tmp_path_factory):
    place = tmp_path_factory.mktemp("run")
    train(settings_for(scenario=small, credit="loo", total_steps=100, num_cooperatives=2), place)
    return place


def test_the_command_explains_a_run_and_writes_its_page_beside_it(run, folder, tmp_path):
    words = ("--episodes", 2, "--set", "horizon=2", "--budget", 45, "--draws", 1)
    code, out, err = run("explain", folder, *words, "--csv", tmp_path / "new" / "a.csv", "--json", tmp_path / "a.json")
    assert (code, err) == (0, "")
    assert "worth" in out
    assert "All proxies together are worth" in out
    assert (folder / "explain.html").exists()
    rows = list(csv.DictReader((tmp_path / "new" / "a.csv").read_text(encoding="utf-8").splitlines()))
    found = json.loads((tmp_path / "a.json").read_text())
    assert len(rows) == 2 * 3
    assert found["features"]["method"].startswith("paired KernelSHAP")
    assert sum(one["read"] for one in found["features"]["each"].values()) > 8


def test_the_command_explains_an_agent_and_writes_a_page_only_where_it_is_told_to(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ("explain", "--agent", "honest", "-s", "breast_cancer", "--episodes", 2, "--set", "horizon=2", "--set", "principals=2")
    words = (*words, "--set", "profiles=[]", "-c", "equal")
    code, out, _ = run(*words)
    assert code == 0
    assert "lot/excess_loss" in out
    assert not list(tmp_path.iterdir())
    assert run(*words, "--out", tmp_path / "page.html")[0] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_wrong_inputs_say_what_to_do(run, folder, tmp_path):
    for words, message in (
        ((tmp_path,), "is not the folder of a training run: it has no run.json"),
        (("--agent", "nope"), "unknown agent 'nope'"),
        (("--agent", "oracle"), "Oracle sees what no proxy could"),
        (("--agent", "all", "--csv", tmp_path), "is a folder: name a file in it"),
        ((folder, "--agent", "all"), "a training run or an --agent, not both"),
        (("--agent", "all", "--budget", 3), "budget=3: must be at least"),
    ):
        code, _, err = run("explain", *words)
        assert code == 2
        assert message in err
