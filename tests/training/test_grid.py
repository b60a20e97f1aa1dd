"""The grid of a sweep: ranges and lists, settings of both kinds, and what is refused at the door."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from proxycoop.envs import scenario
from proxycoop.training.grid import changed, grid, in_words, point_name, read_values, spaced


@pytest.mark.parametrize("name", scenario.names())
def test_a_scenario_without_changes_is_itself(name):
    loaded = scenario.load(name)
    assert changed(loaded, {}) == loaded


def test_a_change_is_what_an_override_is(small):
    changes = {"reward.contribution_cost": 0.25, "screening.governance": "own", "principals": 4, "settlement.period": 3}
    assert changed(scenario.load("digits"), changes) == scenario.load("digits", **changes)


def test_a_change_of_kind_leaves_the_old_kinds_settings_behind():
    changes = {"server.lr": 0.5, "server.kind": "adam"}
    assert changed(scenario.load("digits"), changes) == scenario.load("digits", **changes)


def test_a_place_in_a_list_can_be_changed(small):
    assert changed(small, {"profiles.0.holders": 2}).profiles[0].holders == 2


@pytest.mark.parametrize(("first", "last", "n"), [("0", ".6", 7), ("1", "0", 3), ("-1e-3", "2.5E1", 11), ("4", "12", 5), ("0.1", "0.3", 3)])
def test_a_range_has_the_numbers_nearest_to_even_spacing(first, last, n):
    exact = [Fraction(first) + (Fraction(last) - Fraction(first)) * i / (n - 1) for i in range(n)]
    assert [Fraction(float(value)) for value in spaced(first, last, n)] == [Fraction(float(value)) for value in exact]


def test_a_range_is_written_as_one_would_write_it():
    assert [in_words(value) for value in read_values("0:.6:7", "vary")] == ["0", "0.1", "0.2", "0.3", "0.4", "0.5", "0.6"]


def test_whole_numbers_stay_whole_where_the_setting_is_whole(small):
    settings, _ = grid([small], {"horizon": "4:12:5", "reward.public_share": "0:1:2", "total_steps": "100:300:3", "gamma": [0, 1]})
    assert [[type(value) for value in setting.values] for setting in settings] == [[int] * 5, [float] * 2, [int] * 3, [float] * 2]
    assert settings[0].values == (4, 6, 8, 10, 12)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0,.5,.9", [0, 0.5, 0.9]),
        ("true,false", [True, False]),
        ("own, unanimous", ["own", "unanimous"]),
        ("'a,b',c", ["a,b", "c"]),
        ("[20, 40],[40, 80]", [[20, 40], [40, 80]]),
        ("{kind: sgd},{kind: adam}", [{"kind": "sgd"}, {"kind": "adam"}]),
    ],
)
def test_a_list_is_yaml_between_commas(text, values):
    assert read_values(text, "vary") == values


def test_the_grid_is_full_and_its_last_setting_changes_fastest(small):
    settings, points = grid([small], {"reward.contribution_cost": "0:.2:3", "gamma": [0.5, 0.9]})
    assert [setting.column for setting in settings] == ["scenario.reward.contribution_cost", "training.gamma"]
    assert [tuple(point.values.values()) for point in points] == [(c, g) for c in (0.0, 0.1, 0.2) for g in (0.5, 0.9)]
    for point in points:
        assert point.scenarios[0].reward.contribution_cost == point.values["scenario.reward.contribution_cost"]
        assert point.training == {"gamma": point.values["training.gamma"]}
        assert point.scenarios[0].model_copy(update={"reward": small.reward}) == small
    assert points[1].name == "reward.contribution_cost=0,gamma=0.9"


def test_a_setting_may_be_named_with_its_part(small):
    plain, whole = ({"horizon": [4, 6], "gamma": [0, 1]}, {"scenario.horizon": [4, 6], "training.gamma": [0, 1]})
    assert grid([small], plain) == grid([small], whole)


def test_values_may_come_from_numpy(small):
    (setting,), _ = grid([small], {"reward.contribution_cost": np.linspace(0, 1, 3)})
    assert setting.values == (0.0, 0.5, 1.0)


def test_names_of_points_are_fit_for_folders_and_differ():
    hostile = [point_name({"scenario.a": value}) for value in ("x/y", "x:y", "x y", "x" * 200, "x" * 201)]
    assert len(set(hostile)) == len(hostile)
    for name in hostile:
        assert not set(name) & set('/\\:*?"<>| ')
        assert len(name) < 120


@pytest.mark.parametrize(
    ("vary", "said"),
    [
        ({}, "vary names no setting: give at least one"),
        (
            {"reward.contribution_cost": "0:.6"},
            r"a range is FROM:TO:N, two numbers and a number of points, such as 0:\.6:7 \(got '0:\.6'\)",
        ),
        ({"reward.contribution_cost": "0:x:3"}, "a range is FROM:TO:N"),
        ({"reward.contribution_cost": "0:.6:1"}, "a range has 2 to 10,000 points, got 1"),
        ({"reward.contribution_cost": ".5:.5:3"}, r"begins and ends at two different numbers, got \.5 twice"),
        ({"reward.contribution_cost": ""}, "write values with commas between them"),
        ({"reward.contribution_cost": "0,.1,"}, "write values with commas between them"),
        ({"reward.contribution_cost": "0,,1"}, "vary reward.contribution_cost=0,,1"),
        ({"reward.contribution_cost": ".1"}, "a sweep needs at least two values, got 1: set a single one instead"),
        ({"reward.contribution_cost": "0,.1,0.10"}, r"a value is given twice \(0\.1\): leave one"),
        (
            {"reward.contribution_cost": "0,-1"},
            r"point reward\.contribution_cost=-1 of scenario 'breast_cancer': reward\.contribution_cost: .*",
        ),
        ({"reward.contribution_cost": "0,much"}, r"point reward\.contribution_cost=much of scenario .*valid number.*\(got 'much'\)"),
        ({"horizon": "4:8:4"}, r"point horizon=5\.33\d* of scenario .*: horizon: Input should be a valid integer"),
        ({"horizon": "true,false"}, r"point horizon=true of scenario .*: horizon: must be a number, not true or false"),
        (
            {"reward.cost": "0,1"},
            r"there is no such setting.*settings of the training are .*gamma.*scenarios --settings",
        ),
        ({"contribution_cost": "0,1"}, r"did you mean 'reward\.contribution_cost'\?"),
        ({"training.horizon": "4,6"}, r"there is no such setting \(did you mean 'horizon'\?\)"),
        ({"gama": "0,1"}, r"did you mean 'gamma'\?"),
        ({"profiles.7.holders": "1,2"}, r"profiles\.7\.holders: '7' must be a place in the list profiles, from 0 to 0"),
        ({"horizon.x": "1,2"}, "'horizon' is 6 and has no settings of its own"),
        ({"seed": "0,1"}, "it cannot be varied: seeds are repetitions: say how many"),
        ({"credit": "loo,equal"}, "it cannot be varied: name several rules instead"),
        ({"data.split_seed": "0,1"}, "it cannot be varied: seeds are repetitions"),
        ({"name": "a,b"}, "it cannot be varied: it tells scenarios apart"),
        ({"gamma": "0,1", "training.gamma": "0,1"}, "gamma is varied twice: leave one"),
        ({"reward": "{scale: 1},{scale: 2}", "reward.scale": "1,2"}, "it is part of reward, or the other way round"),
        ({"horizon": "1:10000:10000", "gamma": "0,1"}, "the grid has 20,000 points, at most 10,000 are allowed"),
        ({"gamma": 3}, "give a sequence of values, or text"),
    ],
)
def test_bad_input_is_refused_with_what_is_allowed(small, vary, said):
    with pytest.raises(ValueError, match=said):
        grid([small], vary)


def test_a_value_that_one_scenario_lacks_names_that_scenario(small):
    with pytest.raises(ValueError, match=r"point screening\.quorum=0\.5 of scenario 'other'|there is no such setting|quorum"):
        grid([small, small.model_copy(update={"name": "other"})], {"screening.quorum": [0.5, -1]})


def test_no_value_is_infinite(small):
    with pytest.raises(ValueError, match=r"point reward\.contribution_cost="):
        grid([small], {"reward.contribution_cost": [0.0, math.inf]})


@pytest.mark.parametrize("given", ["0.5,0,1", "1:0:3", [0.5, 1, 0]])
def test_numbers_are_taken_in_ascending_order(small, given):
    (setting,), points = grid([small], {"reward.public_share": given})
    assert setting.values == (0, 0.5, 1)
    assert [point.values["scenario.reward.public_share"] for point in points] == [0, 0.5, 1]


def test_what_is_no_number_stays_in_the_order_given(small):
    (setting,), _ = grid([small], {"screening.governance": "unanimous,none,own"})
    assert setting.values == ("unanimous", "none", "own")


def test_two_values_that_are_written_alike_are_refused():
    with pytest.raises(ValueError, match=r"two points have the name values\.eights\.label=8"):
        grid([scenario.load("digits")], {"values.eights.label": "8,'8'"})
