"""The command ``proxycoop sweep``: what it refuses before anything runs, and what it writes."""

from __future__ import annotations

import json

import pytest

from proxycoop.training import compare as compare_module

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")

SMALL = ("-s", "breast_cancer", "--set", "principals=3", "--set", "horizon=4", "--set", "profiles=[]", "-r", "equal", "--seeds", "1")
QUICK = ("--steps", "100", "--episodes", "2", "--evaluation-splits", "2", "--hyper", "num_cooperatives=2", "--hyper", "splits=1", "-j", "1")


@pytest.fixture
def nothing_runs(monkeypatch):
    monkeypatch.setattr(compare_module, "_work_off", None)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--vary", "reward.contribution_cost"), "write NAME=FROM:TO:N or NAME=A,B,C"),
        (("--vary", "=1,2"), "write NAME=FROM:TO:N or NAME=A,B,C"),
        (("--vary", "gamma=0,1", "--vary", "gamma=0,.5"), "'gamma' is varied twice: leave one"),
        (("--vary", "horizon=4,6"), "--set horizon=… and --vary horizon=…: the setting is set and varied: leave one"),
        (("--vary", "gamma=0,1", "--hyper", "gamma=.5"), "gamma=0.5 is set, and gamma is varied"),
        (("--vary", "total_steps=100,200"), "total_steps=100 is set, and total_steps is varied"),
        (("--vary", "reward.contribution_cost=0,-1"), "point reward.contribution_cost=-1"),
        (("--vary", "gama=0,1"), "did you mean 'gamma'?"),
        (("--vary", "gamma=0,1", "--measure", "wellfare"), "unknown measure 'wellfare' (did you mean 'welfare'?)"),
        (("--vary", "gamma=0,1", "--agent", "nobody"), "unknown agent 'nobody'"),
    ],
)
def test_wrong_input_is_one_line_and_leaves_no_folder(run, nothing_runs, tmp_path, words, said):
    code, out, err = run("sweep", *SMALL, *QUICK, *words, "--out", tmp_path / "out")
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_files_of_others_are_refused_before_anything_runs(run, nothing_runs, tmp_path):
    (tmp_path / "mine.md").write_text("mine")
    code, _, err = run("sweep", *SMALL, *QUICK, "--vary", "gamma=0,1", "--out", tmp_path / "out", "--markdown", tmp_path / "mine.md")
    assert code == 2
    assert "mine.md' is there already" in err
    assert (tmp_path / "mine.md").read_text() == "mine"


def test_it_writes_tables_pages_and_pictures_and_goes_on(run, forking, tmp_path):
    out = tmp_path / "out"
    words = ("sweep", *SMALL, *QUICK, "--vary", "reward.contribution_cost=0,.3", "--agent", "honest", "--out", out)
    files = ("--markdown", tmp_path / "sweep.md", "--pictures", tmp_path / "pictures")
    with forking():
        code, shown, err = run(*words, *files)
    assert code == 0, err
    assert "breast_cancer: welfare, share of the planner's" in shown
    assert {path.name for path in (tmp_path / "pictures").iterdir() if path.suffix != ".json"} == {
        "breast_cancer-reward.contribution_cost.svg",
        "breast_cancer-reward.contribution_cost.png",
    }
    assert "| reward.contribution_cost |" in (tmp_path / "sweep.md").read_text()
    for name in ("sweep.csv", "sweep-columns.csv", "sweep.json", "sweep.html"):
        assert (out / name).stat().st_size > 100
    assert json.loads((out / "sweep.json").read_text())["agents"] == ["honest"]
    code, shown, err = run(*words, "--measure", "clean_share")
    assert code == 0, err
    assert "breast_cancer: clean share" in shown
    code, shown, err = run("report", out, "--parts", tmp_path / "parts", "--paper", tmp_path / "paper")
    assert code == 0, err
    assert (out / "report.html").stat().st_size > 10_000
    assert (tmp_path / "paper" / "breast_cancer-reward.contribution_cost.pdf").exists()
    code, _, err = run("report", out, "--out", out / "sweep.html", "--overwrite")
    assert code == 2
    assert "sweep.html' is the sweep's own" in err
