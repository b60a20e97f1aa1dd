"""``proxycoop scenarios --interaction``: what it prints and writes, for the scenarios named and for all."""

from __future__ import annotations

import csv
import json

import pytest

from proxycoop.envs import scenario
from proxycoop.training.analysis import interaction as analysis
from proxycoop.training.analysis.interaction import interaction


def test_the_scenarios_named_are_measured_without_screening_and_with_their_own(run, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    files = tmp_path / "made.csv", tmp_path / "made.json"
    words = ("scenarios", "digits-mean", "redundant", "--set", "horizon=2", "--interaction", "--episodes", 3, "--seed", 5)
    code, out, err = run(*words, "--csv", files[0], "--json", files[1])
    assert (code, err) == (0, ""), err
    rows = list(csv.DictReader(files[0].read_text().splitlines()))
    assert [(row["scenario"], row["screened"]) for row in rows] == [
        (name, screened) for name in ("digits-mean", "redundant") for screened in ("False", "True")
    ]
    expected = interaction(scenario.load("redundant", horizon=2), episodes=3, seed=5)
    assert json.loads(files[1].read_text())[2] == expected.to_dict()
    assert expected.additive.mean is not None
    assert float(rows[2]["additive"]) == expected.additive.mean
    assert float(rows[2]["additive_half_width"]) == expected.additive.half_width
    assert f"{expected.additive.mean:.2f}" in out
    code, _, err = run(*words, "--csv", files[0])
    assert code == 2
    assert "--overwrite" in err
    assert run(*words, "--csv", files[0], "--overwrite")[0] == 0


def test_without_names_every_scenario_is_measured_and_those_that_cannot_be_are_named(run, monkeypatch):
    def measured(one, *, episodes, seed, screened):
        if one.name == "giant":
            raise ValueError("it is too large")
        return interaction(scenario.load("digits", horizon=1), episodes=episodes, seed=seed, screened=screened)

    monkeypatch.setattr(analysis, "interaction", measured)
    monkeypatch.setattr(scenario, "names", lambda: ["digits", "digits-mean", "giant"])
    code, out, err = run("scenarios", "--interaction", "--episodes", 2)
    assert code == 0, err
    assert "giant is left out: it is too large" in err
    assert out.count("│ digits ") == 4  # measured, as patched, is always digits


@pytest.mark.parametrize("more", [(), ("--seed", 0)])
def test_one_scenario_is_printed_as_before_and_takes_no_options_of_interaction(run, more):
    code, out, err = run("scenarios", "digits", *more)
    if more:
        assert code == 2
        assert "--seed is an option of --interaction" in err
    else:
        assert out.startswith(scenario.load("digits").to_yaml(full=True))


def test_a_scenario_that_the_default_rule_cannot_serve_names_rules_that_can(run):
    code, _, err = run("scenarios", "crowd")
    assert code == 0
    assert "note: shapley, the default rule, cannot serve 32 agents in a round: give --credit loo, or --credit 'shapley(budget=640)'" in err
    assert "the default rule" not in run("scenarios", "digits")[2]
    code, _, err = run("play", "-s", "crowd")
    assert code == 2
    assert "such as --credit 'shapley(budget=640)'" in err
    assert len(err.splitlines()) == 1
