"""Scenarios that another package ships with their data, by an entry point."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PACKAGE = {
    "harvests/__init__.py": """
from pathlib import Path

HARVEST = "scenarios/harvest.yaml"
NO_PATH = 3
NO_FILE = "nothing.yaml"


def whole():
    return Path(__file__).parent / "scenarios" / "harvest.yaml"


def fails():
    raise RuntimeError("no harvest this year")
""",
    "harvests/scenarios/harvest.yaml": """
name: harvest
data: {source: csv, file: {path: harvest.csv, label: ripe}, public_rows: 20, validation: {rows: 40}, test: {rows: 40}}
lots: {rows: 10}
horizon: 2
reward: {scale: 1}
""",
    "harvests/scenarios/harvest.csv": "\n".join(["sun,rain,ripe", *(f"{i % 7},{i % 5},{'yes' if i % 3 else 'no'}" for i in range(400))])
    + "\n",
    "harvests-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: harvests\nVersion: 1.0\n",
}


@pytest.fixture
def installed(tmp_path):
    """Runs Python where a package that ships scenarios is installed; answers with what it prints, or with its error."""

    def run(code: str, **entries: str) -> str:
        files = PACKAGE | {
            "harvests-1.0.dist-info/entry_points.txt": "[proxycoop.scenarios]\n" + "".join(f"{k} = {v}\n" for k, v in entries.items())
        }
        for name, text in files.items():
            path = tmp_path / "site" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.lstrip())
        paths = os.pathsep.join([str(tmp_path / "site"), *filter(None, [os.environ.get("PYTHONPATH")])])
        done = subprocess.run(
            [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": paths}, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        return done.stdout if done.returncode == 0 else done.stderr.strip().splitlines()[-1]

    return run


PLAYS = """
import sys
from proxycoop.envs import Engine, scenario
assert "harvests" not in sys.modules
assert "harvest" in scenario.names() and "harvests" not in sys.modules
made = scenario.load("harvest", horizon=1)
Engine(made, "equal").reset([0])
print(made.name, made.data.file.path.endswith("/site/harvests/scenarios/harvest.csv"), len(scenario.files_of("harvest")))
"""


@pytest.mark.parametrize("entry", ["harvests:HARVEST", "harvests:whole"])
def test_a_scenario_of_another_package_plays_by_its_name(entry, installed):
    assert installed(PLAYS, harvest=entry) == "harvest True 2\n"


def test_its_name_is_listed_and_can_be_extended(installed, tmp_path):
    (tmp_path / "mine.yaml").write_text("extends: harvest\nhorizon: 7\n")
    code = "from proxycoop.envs import scenario; print(scenario.load('mine.yaml').horizon, 'digits' in scenario.names())"
    assert installed(code, harvest="harvests:HARVEST") == "7 True\n"
    said = installed("from proxycoop.envs import scenario; scenario.load('harvst')", harvest="harvests:HARVEST")
    assert "unknown scenario 'harvst' (did you mean 'harvest'?)" in said
    assert "harvest, redundant" in said


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("harvests:fails", "scenario 'harvest' of the entry point 'harvests:fails' cannot be loaded: RuntimeError('no harvest this year')"),
        ("harvests:nowhere", "of the entry point 'harvests:nowhere' cannot be loaded: AttributeError"),
        ("barvests:HARVEST", "cannot be loaded: ModuleNotFoundError"),
        ("harvests:NO_PATH", "is 3: must be the path of a .yaml file, or a function that returns it"),
        ("harvests:NO_FILE", "nothing.yaml' does not exist: list it as package data"),
    ],
)
def test_what_is_wrong_with_a_package_is_said(entry, said, installed):
    assert said in installed("from proxycoop.envs import scenario; scenario.load('harvest')", harvest=entry)


def test_the_others_are_listed_where_a_package_is_broken(installed):
    code = "import sys; sys.argv[1:] = ['scenarios']; sys.stderr = sys.stdout; from proxycoop.training.commands.cli import main; main()"
    said = installed(code, harvest="harvests:fails", reap="harvests:HARVEST")
    assert "digits" in said
    assert "reap" in said
    assert "harvest is left out: scenario 'harvest' of the entry point 'harvests:fails' cannot be loaded" in " ".join(said.split())


def test_a_name_of_ours_stays_ours(installed):
    code = "from proxycoop.envs import scenario; print(scenario.load('digits').data.source)"
    assert installed(code, digits="harvests:HARVEST") == "digits\n"
