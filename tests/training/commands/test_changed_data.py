"""A run remembers the content of its data: what plays or goes on later notices that the file has changed."""

from __future__ import annotations

import json

import pytest

ROWS = [f"{i % 7},{i % 5},{'yes' if i % 3 else 'no'}" for i in range(400)]
SCENARIO = """
name: own
principals: 3
horizon: 2
data: {source: csv, file: {path: own.csv, label: label}, scaling: standardise, public_rows: 20, validation: {rows: 40}, test: {rows: 40}}
lots: {rows: 10}
start: {steps: 2, lr: 0.1}
reward: {scale: 1}
"""
TRAINING = ("--library", "ippo", "--hyper", "num_cooperatives=2", "--hyper", "splits=1")


@pytest.fixture
def trained(run, tmp_path):
    (tmp_path / "own.csv").write_text("\n".join(["a,b,label", *ROWS]) + "\n")
    (tmp_path / "own.yaml").write_text(SCENARIO)
    code, _, err = run("train", "-s", tmp_path / "own.yaml", "--steps", 60, "--out", tmp_path / "run", *TRAINING)
    assert code == 0, err
    return tmp_path


def test_evaluating_and_going_on_notice_another_content(trained, run):
    record = json.loads((trained / "run" / "run.json").read_text())["settings"]["scenario"]["data"]["file"]
    assert record["path"] == str(trained / "own.csv")
    evaluate = ("evaluate", trained / "run", "--episodes", 2, "--evaluation-splits", 1)
    assert run(*evaluate)[0] == 0
    (trained / "own.csv").write_text("\n".join(["a,b,label", "9,9,no", *ROWS]) + "\n")
    code, _, err = run(*evaluate)
    assert code == 2
    assert err.count("\n") == 1
    assert "own.csv' has changed since it was recorded" in err
    assert "set data.file.sha256=null" in err
    assert run(*evaluate, "--set", "data.file.sha256=null")[0] == 0
    code, _, err = run("train", "-s", trained / "own.yaml", "--steps", 60, "--out", trained / "run", "--resume", *TRAINING)
    assert code == 2
    assert "holds a run with another scenario (the data file has changed): choose another --out" in err


def test_no_command_writes_over_the_data(trained, run):
    before = (trained / "own.csv").read_bytes()
    code, _, err = run("evaluate", "-a", "none", "-s", trained / "own.yaml", "--json", trained / "own.csv", "--overwrite")
    assert code == 2, err
    assert (trained / "own.csv").read_bytes() == before
