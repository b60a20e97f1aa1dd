"""Notes about a scenario's start and scales, and ``proxycoop scenarios NAME --calibrate``."""

from __future__ import annotations

import pytest

from proxycoop.envs import scenario
from proxycoop.training.analysis import calibrate as module
from proxycoop.training.analysis import diagnosis
from proxycoop.training.analysis.calibrate import calibrate
from proxycoop.training.commands import calibration as commands

SMALL = ("--set", "horizon=2", "--set", "principals=4")
WRONG = ("--set", "start.steps=0", "--set", "profiles=[{holders: 1, tolerances: {eights: 90}}, {holders: 1, limits: {nines: 0.1}}]")
NOTES = ("the start (start.steps=0, start.lr=0.5) is worse than guessing", "profiles.0.tolerances.eights=90 never binds")


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr(module, "_CPU_SECONDS", 0.0)
    monkeypatch.setattr(diagnosis, "SPLITS", 2)


def test_what_makes_no_sense_is_noted_once_in_a_line_each(run, tmp_path):
    trained = ("--steps", 1, "--hyper", "splits=1", "--hyper", "num_cooperatives=1", "-c", "equal")
    compared = (*trained[:4], "--hyper", "num_cooperatives=1", "-r", "equal", "--seeds", 1, "--episodes", 2, "--evaluation-splits", 1)
    for words in (
        ("scenarios", "digits"),
        ("train", "-s", "digits", *trained, "--out", tmp_path / "run"),
        ("compare", "-s", "digits", *compared, "--jobs", 1, "--out", tmp_path / "table"),
    ):
        code, _, err = run(*words, *SMALL, *WRONG)
        assert code == 0, err
        notes = [line for line in err.splitlines() if line.startswith("note: ")]
        assert len(notes) == 3, words
        assert all(text in note for text, note in zip(NOTES, notes, strict=False))
        assert notes[-1] == "note: `proxycoop scenarios digits --calibrate` measures and proposes what makes sense"


def test_a_scenario_that_makes_sense_is_printed_without_a_note(run):
    assert run("scenarios", "digits")[::2] == (0, "")


def test_a_scenario_whose_data_cannot_be_had_is_printed_all_the_same(run):
    code, out, err = run("scenarios", "digits", "--set", "data.public_rows=100000")
    assert (code, err) == (0, "")
    assert "public_rows: 100000" in out


def test_the_proposal_is_printed_and_written_and_is_the_one_of_the_function(run, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    base = tmp_path / "mine.yaml"
    base.write_text("extends: digits\nname: mine\nhorizon: 2\n")
    file = tmp_path / "there" / "calibrated.yaml"
    words = ("scenarios", base, "--set", "principals=4", "--set", "model.kind=mlp", "--calibrate", "--rule", "loo", "--episodes", 2)
    code, out, err = run(*words, "--out", file)
    assert code == 0, err
    assert "learning rates were set for another: start.lr=0.5 for softmax (digits.yaml:" in err
    assert f"wrote {file}; next: proxycoop play -s {file}" in out
    expected = calibrate(scenario.load(base, principals=4, **{"model.kind": "mlp"}), rule="loo", episodes=2)
    read = scenario.load(file)
    assert read.name == "mine-calibrated"
    assert read.model_copy(update={"name": "mine"}) == expected.proposed
    assert read.rates_of_another_model == ()
    assert "extends: ../mine.yaml" in file.read_text()
    assert f"guessing {expected.guessing:.3f}" in out
    assert f"{expected.proposed.substrate.local_lr:g}" in out
    assert "agent-steps a CPU second, without the learner" in out
    assert run(*words, "--out", file)[0] == 2
    assert run(*words, "--out", base, "--overwrite")[0] == 2  # it is read
    code, out, _ = run(*words)
    assert code == 0
    printed = out[out.index("# Measured by") :]
    assert printed.replace("extends: ", "").splitlines()[3:] == file.read_text().splitlines()[3:]


def test_without_a_terminal_lines_tell_how_far_the_work_is(run, monkeypatch):
    monkeypatch.setattr(commands, "_QUIET", 0.0)
    code, _, err = run("scenarios", "digits", *SMALL, "--calibrate", "--rule", "equal", "--episodes", 2)
    assert code == 0
    assert "1 of 16 parts are done, now starts\n" in err
    assert "15 of 16 parts are done, now the speed under equal\n" in err


def test_more_rows_are_blocked_where_more_is_asked(run, tmp_path):
    words = ("scenarios", "digits", *SMALL, "--calibrate", "--rule", "equal", "--episodes", 2)
    for share in (0.1, 0.4):
        assert run(*words, "--blocked", share, "-o", tmp_path / f"{share}.yaml")[0] == 0
    few, many = (scenario.load(tmp_path / f"{share}.yaml").profiles[0].tolerances["eights"] for share in (0.1, 0.4))
    assert many < few


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--calibrate",), "--calibrate measures one scenario: name it"),
        (("digits", "adult", "--calibrate"), "2 scenarios are named, and one is measured at a time"),
        (("digits", "--calibrate", "--interaction"), "--interaction has no place beside it"),
        (("--calibrate", "--settings"), "--settings has no place beside it"),
        (("digits", "--blocked", "0.2"), "--blocked is an option of --calibrate: give that too"),
        (("digits", "--interaction", "--rule", "loo"), "--rule is an option of --calibrate: give that too"),
        (("digits", "--calibrate", "--csv", "a.csv"), "--csv is an option of --interaction: give that too"),
        (("digits", "--overwrite"), "--overwrite is an option of --interaction and --calibrate: give that too"),
        (("digits", "--calibrate", "--blocked", "1"), "--blocked=1.0: must be a share of the updates, above 0 and below 1"),
        (("digits", "--calibrate", "--rule", "shaply"), "did you mean 'shapley'"),
        (("digits", "--calibrate", "--rule", "verfedsv"), "cannot serve scenario 'digits'"),
    ],
)
def test_wrong_words_are_refused_in_one_line(run, words, message):
    code, out, err = run("scenarios", *words)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
