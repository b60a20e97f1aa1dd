"""Parameters of a mechanism: how they are written, and the mechanism that their values make."""

from __future__ import annotations

import math

import pytest

from proxycoop.credit.rule import parse
from proxycoop.training.tuning.parameters import defaults, mechanism, read_parameters, remarks, require_valid


def one(text):
    (found,) = read_parameters([text])
    return found


@pytest.mark.parametrize(
    ("text", "low", "high", "log", "kind"),
    [
        ("budget=20..200", 20, 200, False, int),
        ("budget=log:20..200", 20, 200, True, int),
        ("decay=0.5..0.99", 0.5, 0.99, False, float),
        ("decay=1..2.0", 1.0, 2.0, False, float),
        ("decay=log:1e-3..1", 1e-3, 1.0, True, float),
        ("scenario:reward.public_share=0.0..0.5", 0.0, 0.5, False, float),
        ("x=-3..-1", -3, -1, False, int),
    ],
)
def test_a_range_has_whole_numbers_if_both_ends_are_written_so(text, low, high, log, kind):
    found = one(text)
    assert (found.low, found.high, found.log) == (low, high, log)
    assert type(found.low) is type(found.high) is kind
    assert one(str(found)) == found


def test_choices_are_read_as_the_values_of_settings_are():
    found = one("scenario:screening.guard=true|false")
    assert found.part == "scenario"
    assert dict(found.choices) == {"true": True, "false": False}
    assert dict(one("rule='loo'|'shapley'").choices) == {"'loo'": "loo", "'shapley'": "shapley"}
    assert dict(one("budget=20|200|null").choices) == {"20": 20, "200": 200, "null": None}


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ([], "names none"),
        (["budget"], "write NAME=LOW..HIGH"),
        (["=1..2"], "write NAME=LOW..HIGH"),
        (["budget="], "write NAME=LOW..HIGH"),
        (["budget=200..20"], "from a smaller number to a larger one"),
        (["budget=20..20"], "from a smaller number to a larger one"),
        (["budget=a..b"], "a range is LOW..HIGH"),
        (["budget=20..200..2"], "a range is LOW..HIGH"),
        (["budget=log:0..5"], "on a log scale both ends must be above 0"),
        (["budget=20"], "there is one value"),
        (["budget=20||30"], "a choice is empty"),
        (["budget=20|20"], "20 is there twice"),
        (["budget=1..2", "budget=3..4"], "budget is there twice"),
        (["reward.public_share=0.0..0.5"], "a setting of the scenario is scenario:reward.public_share=…"),
        (["scenario:reward.scale=1.0..2.0"], "reward.scale cannot be tuned: it is the unit"),
        (["scenario:data.split_seed=1..2"], "data.split_seed cannot be tuned"),
        (["scenario:screening={}|{guard: true}", "scenario:screening.guard=true|false"], "parts of each other"),
    ],
)
def test_what_is_written_otherwise_is_refused_with_what_to_write(texts, said):
    with pytest.raises(ValueError, match=r"^parameters") as error:
        read_parameters(texts)
    assert said in str(error.value)


def test_values_of_a_range_are_rounded_within_it():
    found = one("decay=0.5..0.99")
    assert found.rounded(0.7234567891) == 0.7235
    assert one("x=0.12345..0.5").rounded(0.123451) == 0.1235
    assert one("x=0.12342..0.5").rounded(0.123421) == 0.12342
    assert one("x=log:1e-6..1e-2").rounded(1.23456e-5) == 1.235e-5
    assert one("budget=20..200").rounded(37) == 37
    narrow = one("x=1000.01..1000.02")
    assert math.isclose(narrow.rounded(1000.01345678), 1000.013457, abs_tol=1e-9)


def test_what_a_parameter_holds():
    assert one("budget=20..200").holds(20)
    assert not one("budget=20..200").holds(20.5)
    assert not one("budget=20..200").holds(None)
    assert not one("budget=20..200").holds(201)
    assert not one("x=0..1").holds(True)
    assert one("x=0.0..1.0").holds(1)
    assert one("x=own|unanimous").holds("own")
    assert not one("x=1|2").holds(True)


def test_a_mechanism_has_its_values_and_all_else_as_it_was(tiny):
    rule, made = mechanism("shapley(seed=3)", tiny, {"budget": 12, "scenario:reward.public_share": 0.25})
    assert parse(rule) == ("shapley", {"seed": 3, "budget": 12})
    expected = tiny.to_dict()
    expected["reward"]["public_share"] = 0.25
    assert made.to_dict() == expected
    assert mechanism("shapley", tiny, {}) == ("shapley", tiny)


def test_settings_within_lists_and_new_tolerances_can_be_varied(tiny):
    _, made = mechanism("equal", tiny, {"scenario:profiles.0.tolerances.missed_cancer": 0.5})
    assert made.profiles[0].tolerances == {"missed_cancer": 0.5}


def test_defaults_are_those_of_the_rule_and_the_scenario_as_given(tiny):
    read = read_parameters(["budget=5..9", "seed=0..5", "scenario:reward.public_share=0.0..0.5", "scenario:settlement.period=1..2"])
    assert defaults("shapley(budget=7)", tiny, read) == {
        "budget": 7,
        "seed": 0,
        "scenario:reward.public_share": tiny.reward.public_share,
        "scenario:settlement.period": None,
    }


@pytest.mark.parametrize(
    ("rule", "text", "said"),
    [
        ("shapley", "budgets=5..9", "does not take these arguments"),
        ("shapley", "budget=-5..9", "-5 is not allowed: budget=-5"),
        ("shapley", "budget=5.0..9.0", "must be a positive whole number"),
        ("equal", "scenario:reward.publicshare=0.0..0.5", "no setting 'reward.publicshare' (did you mean 'reward.public_share'?)"),
        ("equal", "scenario:reward.public_share=-1.0..0.5", "-1 is not allowed: reward.public_share"),
        ("equal", "scenario:reward.public_share=0..1", "takes any number: write 0.0..1.0, or 0|1"),
        ("equal", "scenario:horizon=4.0..8.0", "is not allowed: horizon"),
        ("equal", "scenario:screening.governance=own|nobody", "nobody is not allowed"),
        ("equal", "scenario:profiles.7.tolerances.missed_cancer=0.1..0.2", "0.1 is not allowed"),
        ("nope", "budget=5..9", "unknown credit rule 'nope'"),
    ],
)
def test_values_are_refused_before_anything_is_trained(tiny, rule, text, said):
    with pytest.raises(ValueError, match=r".") as error:
        require_valid(rule, tiny, read_parameters([text]))
    assert said in str(error.value)


def test_what_belongs_to_the_cooperative_or_protects_values_gets_a_remark():
    texts = [
        "scenario:reward.contribution_cost=0.0..0.5",
        "scenario:lots.rows=10..20",
        "scenario:reward.public_share=0.0..0.5",
        "budget=1..2",
    ]
    said = remarks(read_parameters(texts))
    assert len(said) == 2
    assert "reward.contribution_cost belongs to the cooperative" in said[0]
    (said,) = remarks(read_parameters(["scenario:screening.governance=own|unanimous"]))
    assert "screening.governance protects them: look at the violations" in said
