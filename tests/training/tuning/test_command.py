"""The command ``proxycoop tune``: what it prints and writes, and what it refuses before anything is trained."""

from __future__ import annotations

import json

import pytest

from proxycoop.training.tuning import outer_loop as outer_loop_module

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")

SHARE = ("--parameters", "scenario:reward.public_share=0.0..0.5")
QUICK = ("--trials", 3, "--seeds", 1, "--held-out-seeds", 2, "--steps", 60, "--episodes", 2, "--evaluation-splits", 2, "--jobs", 1)
QUICK = (*QUICK, "--hyper", "num_cooperatives=2", "--hyper", "splits=1")


@pytest.fixture(scope="module")
def file(tiny, tmp_path_factory):
    path = tmp_path_factory.mktemp("scenario") / "tiny.yaml"
    path.write_text(tiny.to_yaml())
    return path


def test_it_prints_what_was_found_writes_page_and_json_and_goes_on(run, file, tmp_path):
    words = ("tune", "equal", "-s", file, *SHARE, *QUICK, "--for", "worst_off", "--out", tmp_path / "out")
    code, out, err = run(*words)
    assert code == 0, err
    assert "equal in tiny: return of the worst-off at the tuning seeds" in " ".join(out.split())
    assert "Of 3 trials of 1 tuning seed each" in out
    assert "3 of 7: trial 3 of 3, seed 0" in err
    data = json.loads((tmp_path / "out" / "tuning.json").read_text())
    assert data["settings"]["objective"] == "worst_off"
    assert len(data["trials"]) == 3
    assert data["tuning_seeds"] == [0]
    assert data["held_out"] is None or data["held_out"]["seeds"] == [1, 2]
    assert "Which parameters make equal best" in (tmp_path / "out" / "tuning.html").read_text()
    code, again, err = run(*words)
    assert code == 0, err
    assert again == out
    assert "trial 3" not in err
    code, _, err = run(*words, "--set", "horizon=5")
    assert code == 2
    assert "holds a tuning with another scenario" in err
    assert "choose another --out" in err
    (tmp_path / "out" / "tuning.html").write_text("mine")
    code, _, err = run(*words)
    assert code == 2
    assert "tuning.html" in err
    assert (tmp_path / "out" / "tuning.html").read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("equal",), "Missing option"),
        (("nope", *SHARE), "unknown credit rule 'nope'"),
        (("equal", *SHARE, "-s", "nowhere"), "nowhere"),
        (("equal", *SHARE, "--for", "wealth"), "unknown objective 'wealth'"),
        (("equal", *SHARE, *SHARE), "--parameters 'scenario:reward.public_share=0.0..0.5'"),
        (("equal", "-p", "budget=5..9"), "--parameters budget=5..9: 5 is not allowed"),
        (("equal", "-p", "reward.public_share=0.0..0.5"), "scenario:reward.public_share=…"),
        (("equal", "-p", "scenario:reward.public_share=0..1"), "write 0.0..1.0"),
        (("equal", "-p", "scenario:reward.scale=1.0..2.0"), "reward.scale cannot be tuned"),
        (("equal", "-p", "scenario:nothing=1|2"), "no setting 'nothing'"),
        (("equal", *SHARE, "--held-out-seeds", "1"), "--held-out-seeds"),
        (("equal", *SHARE, "--trials", "0"), "--trials"),
        (("equal", *SHARE, "--library", "nope"), "unknown library 'nope'"),
        (("equal", *SHARE, "--hyper", "gama=1"), "unknown setting of ippo ppo 'gama'"),
        (("equal", *SHARE, "--first-seed", "125000"), "choose smaller seeds"),
    ],
)
def test_wrong_words_are_refused_and_leave_no_folder(run, monkeypatch, tmp_path, words, said):
    monkeypatch.setattr(outer_loop_module, "training_pool", None)
    code, out, err = run("tune", *words, "--out", tmp_path / "out")
    assert (code, out) == (2, "")
    assert said in err
    assert not (tmp_path / "out").exists()


def test_a_setting_of_the_cooperative_gets_a_note(run, file, tmp_path):
    cost = ("--parameters", "scenario:reward.contribution_cost=0.0..0.2")
    code, out, err = run("tune", "equal", "-s", file, *cost, *QUICK, "--trials", 1, "--out", tmp_path / "out")
    del code, out
    assert "--trials is given 2 times" in err
    words = [word for word in QUICK if word not in ("--trials", 3)]
    code, out, err = run("tune", "equal", "-s", file, *cost, *words, "--trials", 1, "--out", tmp_path / "out")
    assert code == 0, err
    assert "note: reward.contribution_cost belongs to the cooperative" in err
    assert "reward.contribution_cost belongs to the cooperative" in out
