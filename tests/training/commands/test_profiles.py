"""``proxycoop profiles``: from pairs of real updates through choices to a scenario that can be played."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import yaml

from proxycoop.envs import Comparisons, Engine, scenario
from proxycoop.envs.screening.profiles import Profile
from proxycoop.training.commands.profiles import answer, as_yaml, sample

SMALL = {
    "principals": 4,
    "horizon": 4,
    "profiles": [{"holders": 1, "tolerances": {"eights": 0.3}}, {"holders": 1, "tolerances": {"nines": 0.3}}],
}


@pytest.fixture(scope="module")
def small():
    return scenario.load("digits", **SMALL)


@pytest.fixture
def run(run):
    """Run ``proxycoop profiles WORDS``, or of another group of commands."""

    def call(*words: object, group: str | None = "profiles") -> tuple[int, str, str]:
        return run(*([group] if group else []), *words)

    return call


@pytest.fixture(scope="module")
def choices(tmp_path_factory, small):
    """Simulated choices of the small scenario's first profile."""
    path = tmp_path_factory.mktemp("choices") / "choices.csv"
    answer(sample(small, 600), small.profiles[:1]).to_csv(path)
    return path


# the loop


def test_sampled_answered_fitted_choices_give_back_the_planted_tolerance_in_a_scenario_that_plays(run, tmp_path):
    code, out, _ = run("sample", "-s", "digits", "--pairs", 800, "--choose-by", 0, "--out", tmp_path / "new" / "c.csv")
    assert code == 0
    assert "wrote 800 pairs" in out
    path = tmp_path / "fitted.yaml"
    code, out, _ = run("fit", tmp_path / "new" / "c.csv", "-s", "digits", "--out", path)
    assert code == 0
    assert "Held out (5 folds of choices): accuracy" in out
    assert f"next: proxycoop play -s {path}" in out
    fitted, base = scenario.load(path), scenario.load("digits")
    assert [profile.holders for profile in fitted.profiles] == [base.principals]
    assert list(fitted.profiles[0].tolerances) == ["eights"]
    assert fitted.profiles[0].tolerances["eights"] == pytest.approx(base.profiles[0].tolerances["eights"], rel=0.15)
    assert fitted.model_copy(update={"name": base.name, "profiles": base.profiles}) == base  # all else is the scenario's

    code, out, _ = run("play", "-s", path, "--last", "-a", "all", "--set", "horizon=1", "--set", "reward.scale=1", group=None)
    assert code == 0
    assert "round 1/1" in out


def test_a_round_of_the_written_scenario_is_screened_by_the_fitted_profile(run, tmp_path, choices):
    path = tmp_path / "fitted.yaml"
    assert run("fit", choices, "-s", "digits", "--out", path)[0] == 0
    loaded = scenario.load(path, **{"reward.scale": 1.0, "screening.governance": "unanimous"})
    engine = Engine(loaded, None, num_envs=4)
    engine.reset(range(4))
    eights = list(loaded.values).index("eights")
    beyond = engine.prospect.harm[..., eights] > loaded.profiles[0].tolerances["eights"]
    assert beyond.any()
    result = engine.step(torch.ones(4, engine.num_agents, engine.num_lots, dtype=torch.bool))
    assert not (result.admitted & beyond).any()


def test_two_types_become_two_profiles(run, tmp_path):
    path = tmp_path / "many.csv"
    assert run("sample", "--pairs", 25, "--persons", 40, "--choose-by", 0, "--choose-by", 1, "--out", path)[0] == 0
    code, out, _ = run("fit", path, "-s", "digits", "--components", "auto", "--out", tmp_path / "types.yaml")
    assert code == 0
    assert "2 types among 40 persons, 1000 choices" in out
    profiles = scenario.load(tmp_path / "types.yaml").profiles
    assert sorted(profile.holders for profile in profiles) == [3, 3]
    assert sorted(list(profile.tolerances) for profile in profiles) == [["eights"], ["nines"]]
    assert run("fit", path, "--components", 2, "--holders", 4)[1].count("holders: 2") == 2


def test_without_a_scenario_the_profiles_alone_are_written(run, choices, tmp_path):
    code, out, _ = run("fit", choices)
    assert code == 0
    report, _, text = out.partition("\n# Learned from the choices in choices.csv")
    assert "Profile from 600 choices" in report
    assert "Use it as `profiles` of a scenario" in text
    (plain,) = yaml.safe_load("#" + text)["profiles"]
    assert Profile(**plain).holders == 1
    code, out, _ = run("fit", choices, "--holders", 3, "--out", tmp_path / "p.yaml")
    assert yaml.safe_load((tmp_path / "p.yaml").read_text())["profiles"] == [{**plain, "holders": 3}]
    assert "next" not in out


def test_the_direction_is_written_when_asked_for(run, choices):
    plain = yaml.safe_load("#" + run("fit", choices, "--direction")[1].partition("\n#")[2])["profiles"][0]
    assert set(plain["direction"]) == {"eights", "nines"}
    assert np.linalg.norm(list(plain["direction"].values())) == pytest.approx(1, abs=1e-5)


def test_a_scenario_given_by_its_path_is_extended_by_a_relative_one(run, choices, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "mine.yaml").write_text("extends: digits\nname: mine\nhorizon: 3\n")
    assert run("fit", choices, "-s", tmp_path / "a" / "mine.yaml", "--out", tmp_path / "b" / "fitted.yaml")[0] == 0
    text = (tmp_path / "b" / "fitted.yaml").read_text()
    assert "extends: ../a/mine.yaml" in text
    loaded = scenario.load(tmp_path / "b" / "fitted.yaml")
    assert loaded.horizon == 3
    assert loaded.name == "mine-fitted"


# pairs


def test_sampled_effects_are_those_the_engine_predicts(small):
    comparisons = sample(small, 40, seed=3)
    engine = Engine(small.model_copy(update={"reward": small.reward.model_copy(update={"scale": 1.0})}), None, 4, dtype=torch.float64)
    engine.reset([3 * 4 + e for e in range(4)])
    known = [torch.zeros(1, 3, dtype=torch.float64)]
    while engine.t < engine.horizon:
        gain = (engine.prospect.proposals.updates * engine.utility_gradient()[:, None, None]).sum(dim=-1, keepdim=True)
        known.append(torch.cat([engine.prospect.harm, gain], dim=-1).flatten(end_dim=2))
        engine.step(torch.ones(4, engine.num_agents, engine.num_lots, dtype=torch.bool))
    everything = torch.cat(known).numpy()
    for side, harm in enumerate((comparisons.first, comparisons.second)):
        for effects in np.column_stack([harm, comparisons.gain[:, side]]):
            assert np.abs(everything - effects).max(axis=1).min() < 1e-9
    nothing = (comparisons.first == 0).all(axis=1) | (comparisons.second == 0).all(axis=1)
    assert 0 < nothing.sum() < 20


def test_the_same_seed_gives_the_same_pairs(small):
    one, other = sample(small, 30, 2, seed=1), sample(small, 30, 2, seed=1)
    assert np.array_equal(one.first, other.first)
    assert one.persons == ("person-1", "person-2")
    assert not np.array_equal(one.first, sample(small, 30, 2, seed=2).first)


def test_more_pairs_than_an_episode_holds_are_drawn_from_several(small):
    comparisons = sample(small.model_copy(update={"horizon": 1}), 1000)
    assert len(comparisons) == 1000
    assert len(np.unique(comparisons.differences, axis=0)) == 1000


def test_a_utility_without_a_gradient_shows_no_gain(small):
    assert sample(small.model_copy(update={"utility": "accuracy"}), 5).gain is None


def test_simulated_people_refuse_what_is_far_beyond_their_tolerance_and_take_gain():
    harm = np.array([[3.0, 0.0], [0.0, 3.0], [0.0, 0.0]]).repeat(200, axis=0)
    gain = np.column_stack([np.repeat([0.0, 3.0, 3.0], 200), np.zeros(600)])
    pairs = Comparisons(("x", "y"), harm, np.zeros((600, 2)), np.zeros(600, bool), gain)
    took = answer(pairs, [Profile(tolerances={"x": 0.5})]).chose_first.reshape(3, 200).mean(axis=1)
    assert took[0] < 0.02
    assert (took[1:] > 0.65).all()
    went = answer(pairs, [Profile(direction={"x": 1.0, "y": -1.0})]).chose_first.reshape(3, 200).mean(axis=1)
    assert went[0] < 0.35 < 0.8 < went[1]


def test_persons_take_the_profiles_in_turn():
    harm = np.tile([[0.0, 5.0]], (400, 1))
    who = np.repeat(["p1", "p2"], 200)
    pairs = Comparisons(("x", "y"), harm, np.tile([[5.0, 0.0]], (400, 1)), np.zeros(400, bool), None, who)
    took = answer(pairs, [Profile(tolerances={"x": 1.0}), Profile(tolerances={"y": 1.0})]).chose_first
    assert took[who == "p1"].mean() > 0.97  # the chance to err is 0.0006 a choice
    assert took[who == "p2"].mean() < 0.03


# what is refused


def test_unanswered_pairs_are_refused_until_they_are_answered(run, tmp_path):
    path = tmp_path / "c.csv"
    code, out, _ = run("sample", "--pairs", 3, "--out", path)
    assert code == 0
    assert "write a or b into every line's choice" in out
    code, _, err = run("fit", path)
    assert code == 2
    assert "c.csv:2: choice is '': must be a or b" in err


def test_choices_that_support_no_profile_are_reported_before_they_are_refused(run, tmp_path):
    path = tmp_path / "c.csv"
    harm = np.random.default_rng(2).normal(size=(2, 30, 1)).repeat(2, axis=1)  # every pair, once each way
    Comparisons(("eights",), harm[0], harm[1], np.arange(60) % 2).to_csv(path)
    code, out, err = run("fit", path, "--out", tmp_path / "p.yaml")
    assert code == 2
    assert "cannot be told from guessing" in out
    assert "error: these 60 choices support no profile" in err
    assert not (tmp_path / "p.yaml").exists()


def test_choices_about_other_values_than_the_scenario_s_are_refused(run, choices):
    code, _, err = run("fit", choices, "-s", "breast_cancer")
    assert code == 2
    assert "unknown value in" in err
    assert "'eights': the known ones are false_alarm, missed_cancer" in err


def test_more_holders_than_principals_are_refused(run, choices):
    code, _, err = run("fit", choices, "-s", "digits", "--holders", 7)
    assert code == 2
    assert "profiles have 7 holders in all, but there are only 6 principals" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("fit", "/nonexistent.csv"), "'/nonexistent.csv' cannot be read"),
        (("fit", "CHOICES", "--components", "many"), "--components 'many': write a number of types, or auto"),
        (("fit", "CHOICES", "--components", "0"), "--components 0: must be at least 1"),
        (("fit", "CHOICES", "--components", "2"), "choices.csv has no column 'person', which types of people need: leave --components out"),
        (("fit", "CHOICES", "--components", "auto"), "has no column 'person'"),
        (("fit", "CHOICES", "--confidence", "2"), "confidence=2.0: must lie between 0 and 1"),
        (("fit", "CHOICES", "-s", "nope"), "unknown scenario 'nope'"),
        (("fit", "CHOICES", "--out", "/dev/null/p.yaml"), "output folder '/dev/null' cannot be written"),
        (("sample", "--out", "/dev/null/c.csv"), "output folder '/dev/null' cannot be written"),
        (("sample", "--choose-by", "2", "--out", "c.csv"), "--choose-by 2: scenario 'digits' has profiles 0 to 1"),
        (("sample", "-s", "nope", "--out", "c.csv"), "unknown scenario 'nope'"),
    ],
)
def test_a_wrong_input_is_one_clear_error(run, choices, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(*(str(choices) if word == "CHOICES" else word for word in words))
    assert code == 2
    assert message in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_scenarios_without_values_or_profiles_to_choose_by_are_refused(small):
    with pytest.raises(ValueError, match="scenario 'digits' has no values, so its updates harm nobody"):
        sample(small.model_copy(update={"values": {}}), 5)
    with pytest.raises(ValueError, match="pairs=0, persons=1: both must be at least 1"):
        sample(small, 0)
    with pytest.raises(ValueError, match="profile 0 of those to choose by has no tolerance and no direction"):
        answer(sample(small, 5), [Profile(max_norm=1.0)])


def test_profiles_that_do_not_fit_a_scenario_are_not_written():
    with pytest.raises(ValueError, match="unknown value 'tens'"):
        as_yaml([Profile(tolerances={"tens": 0.1})], "c.csv", "digits", None)


def test_every_command_s_help_has_examples(run):
    for command in ("sample", "fit"):
        code, out, _ = run(command, "--help")
        assert code == 0
        assert "Example" in out
    assert "a:VALUE" in run("fit", "--help")[1]
