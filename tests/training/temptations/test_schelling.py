"""Schelling diagrams."""

from __future__ import annotations

import json

import pytest

from proxycoop import agents
from proxycoop.envs import Engine
from proxycoop.training.evaluate import held_out_splits
from proxycoop.training.intervals import Estimate
from proxycoop.training.temptations.diagram import Diagram, schelling


def test_returns_are_those_of_episodes_that_are_played_one_by_one(small):
    found = schelling(small, "loo", "none", episodes=1, splits=1, seed=5)
    split = held_out_splits(1)[0]
    for n in range(3):
        for own, expected in (("honest", found.honest[n]), ("none", found.cheating[n])):
            seats = {0: own, **{seat: "honest" if seat <= n else "none" for seat in (1, 2)}}
            engine = Engine(small.on_split(split), "loo")
            metrics = agents.play(engine, agents.Seats(agents.make("all"), {seat: agents.make(name) for seat, name in seats.items()}), [5])
            assert expected.mean == pytest.approx(float(metrics["return"][0, 0]), abs=1e-3)
            if own == "honest":
                assert found.welfare[n].mean == pytest.approx(float(metrics["welfare"][0]), abs=1e-3)
        assert found.temptation[n].mean == pytest.approx((found.cheating[n].mean or 0) - (found.honest[n].mean or 0), abs=1e-5)
    assert found.reward_over_punishment.mean == pytest.approx((found.honest[-1].mean or 0) - (found.cheating[0].mean or 0), abs=1e-5)


@pytest.mark.parametrize(
    ("among_honest", "among_cheats", "together", "game"),
    [
        (1.0, 1.0, 1.0, "dilemma"),
        (1.0, 1.0, -1.0, "none"),
        (1.0, 1.0, 0.1, "undecided"),
        (-1.0, 1.0, 1.0, "stag hunt"),
        (1.0, -1.0, 1.0, "chicken"),
        (-1.0, -1.0, 1.0, "none"),
        (0.1, 1.0, 1.0, "undecided"),
    ],
)
def test_the_class_follows_from_four_numbers(among_honest, among_cheats, together, game):
    zero = (Estimate(0.0, 0.0),) * 3
    temptation = (Estimate(among_cheats, 0.2), Estimate(0.0, 0.2), Estimate(among_honest, 0.2))
    assert Diagram("loo", "small", "none", zero, zero, temptation, Estimate(together, 0.2), zero).game == game


def test_the_command_writes_a_table_a_picture_and_json(run, tmp_path):
    words = ["schelling", "equal", "loo", "-s", "breast_cancer", "--set", "horizon=3", "--splits", "2", "--episodes", "1"]
    code, out, _ = run(*words, "--cheat", "doubler", "--picture", tmp_path / "a.svg", "--json", tmp_path / "a.json")
    assert code == 0
    assert "R − P" in out
    assert (tmp_path / "a.svg").read_text().startswith("<?xml")
    diagrams = json.loads((tmp_path / "a.json").read_text())["diagrams"]
    assert [one["rule"] for one in diagrams] == ["equal", "loo"]
    assert len(diagrams[0]["honest"]) == 6


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nope"], "unknown credit rule 'nope'"),
        (["loo", "--cheat", "nope"], "unknown agent 'nope'"),
        (["loo", "--cheat", "oracle"], "sees what no proxy could"),
        (["loo", "--cheat", "honest"], "compared with honest proxies"),
        (["loo", "--picture", "a.gif"], "let the name end in .svg, .png or .pdf"),
        (["loo", "-s", "breast_cancer-vertical", "--cheat", "doubler"], "has substrate vertical: principals hold columns"),
        (["loo", "--set", "population=[{agent: none, seats: [0]}]", "--cheat", "none"], "plays populations of its own"),
    ],
)
def test_wrong_words_are_refused(run, words, said):
    code, _, err = run("schelling", *words)
    assert code == 2
    assert said in err
