"""The command that the report prints does what was done: parsed again, it gives the same cells."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from proxycoop.envs import scenario
from proxycoop.training import compare as compare_module
from proxycoop.training import own_modules
from proxycoop.training.analysis.summary import summarise
from proxycoop.training.compare import Cell, cells, results
from proxycoop.training.pages.again import command


class StoppedError(ValueError):
    """A comparison got as far as its cells."""


@pytest.fixture
def typed(run: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Type a command, and get the cells that it would run."""

    def call(line: str) -> list[Cell]:
        found: list[Cell] = []

        def keep(all_cells: list[Cell], *_: object, **__: object) -> None:
            found.extend(all_cells)
            raise StoppedError("stopped")

        monkeypatch.setattr(compare_module, "compare", keep)
        words = shlex.split(line)
        words = words[3:] if words[0] == "python" else words[1:]
        code, _, err = run(*words)
        assert (code, err.splitlines()[-1]) == (2, "error: stopped"), err
        return found

    return call


def finish(folder: Path, todo: list[Cell], imports: list[str] | None = None) -> list[dict[str, Any]]:
    """Results of cells as a comparison leaves them, but for the numbers."""
    for cell in todo:
        path = folder / "cells" / cell.name / "result.json"
        path.parent.mkdir(parents=True)
        splits = list(cell.evaluation_splits)
        measured = {"measures": {"welfare": [1.0, 0.1]}, "splits": splits, "by_split": {"welfare": [1.0] * len(splits)}}
        measured |= {"series": {}, "curve": []}
        path.write_text(json.dumps({"version": "9", "imports": imports or [], "cell": cell.description(), **measured}))
    return results(folder)


def described(todo: list[Cell]) -> list[str]:
    return sorted(json.dumps(cell.description(), sort_keys=True) for cell in todo)


def loaded(name: str, /, **overrides: Any) -> scenario.Scenario:
    return scenario.load(name, **overrides)


@pytest.mark.parametrize(
    ("names", "overrides", "rules", "how", "said"),
    [
        (["digits"], {}, ["loo"], {}, "--library sb3 --algo ppo"),
        (["breast_cancer"], {}, ["loo"], {"library": "ippo", "gamma": 0.9}, "--library ippo --algo ppo --hyper gamma=0.9"),
        (["digits"], {}, ["loo"], {"library": "ippo", "algo": "grpo", "group": "agents"}, "--algo grpo --hyper group=agents"),
        (["digits"], {}, ["loo"], {"learning_rate": 1e-5, "actions": "discrete"}, "--hyper learning_rate=1e-05 --hyper actions=discrete"),
        (["digits"], {"horizon": 5}, ["shapley(budget=60)"], {"episodes": 7}, "--episodes 7 --library sb3 --algo ppo --set horizon=5"),
        (["digits", "breast_cancer"], {"reward.scale": 2.5}, ["equal", "loo"], {}, "--set reward.scale=2.5"),
        (["digits"], {"profiles": [{"tolerances": {"eights": 0.3}}]}, ["loo"], {"total_steps": 77}, "--steps 77"),
        (["digits"], {"data.split_seed": 4}, ["loo"], {"resplit": False}, "--set data.split_seed=4 --same-split"),
        (["digits"], {}, ["loo"], {"splits": 1, "evaluation_splits": 3}, "--evaluation-splits 3 --library sb3 --algo ppo --hyper splits=1"),
    ],
)
def test_the_printed_command_gives_the_same_cells(typed, tmp_path, names, overrides, rules, how, said):
    todo = cells([loaded(name, **overrides) for name in names], rules, [3, 4], **{"episodes": 8, "total_steps": 500, **how})
    found = finish(tmp_path, todo)
    line, custom = command(found, summarise(found))
    assert not custom
    assert said in line
    assert "--seeds 2 --first-seed 3" in line
    assert described(typed(line)) == described(todo)


def test_a_scenario_of_one_s_own_comes_from_the_file_that_holds_it(typed, tmp_path, monkeypatch):
    todo = cells([loaded("digits", name="mine", horizon=3), loaded("digits")], ["loo"], [0], episodes=8, total_steps=500)
    found = finish(tmp_path, todo)
    line, custom = command(found, summarise(found))
    assert custom == ["mine"]
    assert "--scenario digits --scenario mine.yaml" in line
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(loaded("digits", name="mine", horizon=3).to_yaml())
    assert described(typed(line)) == described(todo)


def test_scenarios_that_were_changed_differently_come_from_files(typed, tmp_path, monkeypatch):
    changed = [loaded("digits", horizon=3), loaded("breast_cancer", horizon=4)]
    todo = cells(changed, ["loo"], [0], episodes=8, total_steps=500)
    found = finish(tmp_path, todo)
    line, custom = command(found, summarise(found))
    assert sorted(custom) == ["breast_cancer", "digits"]
    assert "--set" not in line
    monkeypatch.chdir(tmp_path)
    for one in changed:
        (tmp_path / f"{one.name}.yaml").write_text(one.to_yaml())
    assert described(typed(line)) == described(todo)


def test_modules_of_one_s_own_are_imported_again(typed, tmp_path, monkeypatch):
    (tmp_path / "again_module.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(own_modules, "_imported", {})
    todo = cells([loaded("digits")], ["loo"], [0], episodes=8, total_steps=500)
    found = finish(tmp_path, todo, imports=["again_module"])
    line, _ = command(found, summarise(found))
    assert line.startswith("python -m proxycoop --import again_module compare ")
    assert described(typed(line)) == described(todo)
    assert sys.modules.pop("again_module")
