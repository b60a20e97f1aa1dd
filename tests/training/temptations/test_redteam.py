"""Red teams, as a user runs them."""

from __future__ import annotations

import json
import multiprocessing
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from proxycoop.training.executors import processes
from proxycoop.training.intervals import Estimate
from proxycoop.training.pages.redteam_page import to_dict, write_redteam
from proxycoop.training.temptations import cheats as cheats_module
from proxycoop.training.temptations import findings as findings_module
from proxycoop.training.temptations import redteam as redteam_module
from proxycoop.training.temptations.cheats import CHEATS, Gain, tempting
from proxycoop.training.temptations.findings import Defence, Findings, defences
from proxycoop.training.temptations.words import sentences

QUICK = ("--steps", 72, "--response-steps", 200, "--jobs", 2)


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Forked processes, and few episodes."""
    module = findings_module
    cheats = cheats_module
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "multiprocessing", SimpleNamespace(get_context=lambda _: multiprocessing.get_context("fork")))
        patch.setattr(module, "EPISODES", 2)
        patch.setattr(module, "SPLITS", 2)
        patch.setitem(cheats.gain_of.__kwdefaults__, "episodes", 1)
        patch.setitem(cheats.gain_of.__kwdefaults__, "splits", 2)
        yield


@pytest.fixture(scope="module")
def file(small, tmp_path_factory):
    path = tmp_path_factory.mktemp("scenario") / "small.yaml"
    path.write_text(small.model_copy(update={"name": "small"}).to_yaml())
    return path


@pytest.fixture(scope="module")
def found(small, file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("redteam")
    told = []
    answers = redteam_module(
        ["twice_for_the_first", "equal"],
        small,
        folder,
        steps=72,
        response_steps=200,
        jobs=2,
        told=lambda done, total, what: told.append((done, total, what)),
    )
    return answers, told, folder


def test_a_broken_rule_is_found_out(found):
    answers, _, _ = found
    broken, equal = answers
    best = {one.rule: next(gain for gain in one.gains if gain.cheat == "best_seat") for one in answers}
    assert abs(best["equal"].gain.mean or 0) < 1e-3
    assert abs(best["twice_for_the_first"].gain.mean or 0) > 1
    assert {one.cheat for one in broken.gains} == {name for name, cheat in CHEATS.items() if not cheat.lacks(tempting_of(broken))}
    assert equal.worlds.keys() == {"tempted", "honest", "planner"}
    assert "declared" in equal.worlds["tempted"]
    assert "declared" not in equal.worlds["honest"]


def tempting_of(found):
    del found
    from proxycoop.envs import scenario

    return tempting(scenario.load("breast_cancer"))


def test_progress_moves_when_a_job_is_done_however_many_are_handed_in_at_once():
    jobs = [findings_module._Job(key, f"job {key}", str.upper, (key,)) for key in "abc"]
    told = []
    with ThreadPoolExecutor(1) as pool:
        workers = SimpleNamespace(slots=sys.maxsize, submit=pool.submit)  # as on a cluster
        answers = findings_module._worked_off(jobs, workers, lambda *one: told.append(one), before=2)
    assert answers == {"a": "A", "b": "B", "c": "C"}
    assert told[:3] == [(2, 5, "job a"), (2, 5, "job b"), (2, 5, "job c")]
    assert [done for done, _, _ in told[3:]] == [3, 4, 5, 5]
    assert sorted(what for _, _, what in told[3:-1]) == [f"job {key}: done" for key in "abc"]
    assert told[-1] == (5, 5, "")


def test_it_tells_what_is_tried(found):
    _, told, _ = found
    assert told[0][0] == 0
    assert any("a proxy that sends the last step back" in what for _, _, what in told)
    assert told[-1][0] == told[-1][1]


def test_its_page_and_json_say_what_was_found(found, small, tmp_path):
    answers, _, _ = found
    page = write_redteam(answers, tempting(small), tmp_path / "page.html").read_text()
    assert "twice_for_the_first" in page
    assert page.count("<figure>") == 2 + 2 * 4
    data = json.loads(json.dumps(to_dict(answers)))
    assert [one["rule"] for one in data["findings"]] == ["twice_for_the_first", "equal"]
    assert all(len(one["sentences"]) >= 3 for one in data["findings"])
    assert data["findings"][0]["damage"]["welfare"] is not None


def test_finished_trainings_are_not_run_again(found, small):
    answers, _, folder = found
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/policy.pt")}
    assert len(before) == 2 * 4
    again = redteam_module(["equal"], small, folder, steps=72, response_steps=200, jobs=2)
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*/policy.pt")} == before
    assert again[0].responses == answers[1].responses


def test_the_command_prints_findings_and_writes_page_and_json(run, file, tmp_path):
    code, out, err = run("redteam", "equal", "-s", file, "--out", tmp_path / "out", *QUICK)
    assert code == 0, err
    assert "scripted cheats" in out
    assert "equal: all proxies learn, and may cheat" in err
    assert (tmp_path / "out" / "redteam.html").exists()
    assert json.loads((tmp_path / "out" / "redteam.json").read_text())["findings"][0]["rule"] == "equal"
    code, again, err = run("redteam", "equal", "-s", file, "--out", tmp_path / "out", *QUICK)
    assert code == 0, err
    assert again == out
    (tmp_path / "out" / "redteam.html").write_text("mine")
    code, _, err = run("redteam", "equal", "-s", file, "--out", tmp_path / "out", *QUICK)
    assert code == 2
    assert "redteam.html" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nope"], "unknown credit rule 'nope'"),
        (["loo", "-s", "breast_cancer-vertical"], "has substrate vertical: principals hold columns"),
        (["loo", "--set", "population=[{agent: oracle, seats: [0]}]"], "Oracle sees what no proxy could"),
        (["loo", "--set", "population=[{agent: nope, seats: [0]}]"], "unknown agent 'nope'"),
    ],
)
def test_wrong_words_are_refused_before_anything_is_tried(run, words, said, tmp_path):
    code, _, err = run("redteam", *words, "--out", tmp_path / "out")
    assert code == 2
    assert said in err
    assert "all proxies learn" not in err


def gain(name, mean, half=0.1):
    return Gain(name, Estimate(mean, half), Estimate(mean, half), Estimate(-1.0, half))


def made(found, **changes):
    import dataclasses

    return dataclasses.replace(found[0][1], **changes)


def test_sentences_say_which_cheats_pay_and_what_helps(found):
    helps = Defence("--set x=1", "doubler", Estimate(0.2, 0.3), 0.05, 50.0, 49.0)
    dear = Defence("--set y=1", "doubler", Estimate(0.2, 0.3), 0.05, 50.0, 25.0)
    said = " ".join(sentences(made(found, gains=(gain("doubler", 4.0), gain("saboteur", -3.0)), defences=(helps, dear))))
    assert "1 of 2 scripted cheats pays" in said
    assert "doubler (a proxy that sends the update of a lot twice) gains 4.0" in said
    assert "--set x=1 leaves 0.2" in said
    assert "--set y=1" not in said
    nothing = " ".join(sentences(made(found, gains=(gain("doubler", -4.0),), defences=())))
    assert "None of the 1 scripted cheats pays" in nothing
    assert "nothing to defend against" in nothing
    assert "nothing that was tried" in " ".join(sentences(made(found, gains=(gain("doubler", 4.0),), defences=(dear,))))


def test_damage_and_price_of_anarchy_are_differences_and_shares_of_welfare(found):
    worlds = {name: {"welfare": Estimate(welfare, 1.0)} for name, welfare in (("tempted", 20.0), ("honest", 50.0), ("planner", 80.0))}
    one: Findings = made(found, worlds=worlds)
    assert one.damage("welfare") == pytest.approx(-30.0)
    assert one.damage("nothing") is None
    assert one.price_of_anarchy == pytest.approx(0.25)
    assert made(found, worlds={**worlds, "planner": {"welfare": Estimate(-1.0, None)}}).price_of_anarchy is None


@pytest.mark.parametrize(
    ("before", "after", "helps"), [(50.0, 49.0, True), (50.0, 40.0, False), (-10.0, -20.0, False), (-10.0, -5.0, True)]
)
def test_a_defence_helps_if_honest_proxies_lose_little(before, after, helps):
    assert Defence("x", "doubler", Estimate(1.0, 0.1), 0.2, before, after).helps == helps


def test_what_is_declared_counts_in_the_round_in_which_it_is_declared(small):
    import torch

    from proxycoop import agents
    from proxycoop.envs import Engine

    module = findings_module
    engine = Engine(tempting(small, "loo"), "loo", 2)
    agents.play(engine, agents.make("hypocrite"), [1, 2])
    assert module._declared(engine) == pytest.approx((1 + 5 * 5) / 6)
    assert torch.is_tensor(engine.theta)


ODD = {
    "one principal": {"principals": 1, "profiles": []},
    "one lot each": {"lots.per_principal": 1},
    "lax alone": {"conduct": {"levers": [{"kind": "lax"}]}},
    "an adversary in the population": {"population": [{"agent": "plagiarist", "seats": [2]}]},
    "the same with what it needs": {"population": [{"agent": "plagiarist", "seats": [2]}], "conduct": {"forgeries": [{"kind": "blend"}]}},
    "one round": {"horizon": 1},
}


@pytest.mark.parametrize("odd", ODD)
def test_odd_cooperatives_are_served(odd, tmp_path):
    from proxycoop.envs import scenario

    made = scenario.load(
        "breast_cancer", **{"principals": 3, "horizon": 2, "profiles": [{"tolerances": {"missed_cancer": 0.1}}], **ODD[odd]}
    )
    (found,) = redteam_module(["loo"], made, tmp_path, steps=12, response_steps=12, jobs=2)
    assert len(sentences(found)) >= 3
    assert write_redteam([found], tempting(made), tmp_path / "page.html").exists()


def test_defences_are_settings_that_can_be_written(small):
    tried = defences("loo", tempting(small, "loo"))
    assert any(what.startswith("--credit") and "clipped" in what for what, _, _ in tried)
    assert any("max_norm" in what for what, _, _ in tried)
    assert all(where.to_yaml() for _, _, where in tried)
