"""Every example is short, complete, and runs; those of libraries that are not in this environment run in their own (``make compat``)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from proxycoop.training.libraries.registry import LIBRARIES

FOLDER = Path(__file__).parents[2] / "examples"
ELSEWHERE = ("flower", "rllib", "benchmarl", "agilerl")
PPO = "gymnasium_ppo.py"
HERE = sorted(path.name for path in FOLDER.glob("*.py") if not path.name.startswith(ELSEWHERE) and path.name != PPO)


def output(name: str, folder: Path) -> str:
    """What an example prints; it leaves nothing behind."""
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}  # other tests stand beside
    done = subprocess.run([sys.executable, str(FOLDER / name)], cwd=folder, env=one_thread, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert not list(folder.iterdir())
    return done.stdout


def test_every_library_has_an_example_of_at_most_forty_lines():
    names = [path.name for path in FOLDER.glob("*.py")]
    for library in LIBRARIES:
        assert any(name.startswith(f"{library.replace('-', '_')}_") for name in names), library
    for path in FOLDER.glob("*.py"):
        assert path.name.startswith(("flower", PPO)) or len(path.read_text().splitlines()) <= 40, path.name


def test_a_rule_of_ones_own_takes_ten_lines():
    text = (FOLDER / "own_rule.py").read_text()
    rule = text[text.index("@credit.RULES") : text.index("print(")]
    assert sum(bool(line.strip()) for line in rule.splitlines()) <= 10


@pytest.mark.slow
@pytest.mark.parametrize("name", HERE)
def test_the_example_runs(name, tmp_path):
    output(name, tmp_path)


def test_ppo_in_a_single_file_is_short_and_needs_only_torch_and_gymnasium():
    text = (FOLDER / PPO).read_text()
    assert len(text.splitlines()) <= 150
    modules = {line.split()[1].split(".")[0] for line in text.splitlines() if line.startswith(("import ", "from "))}
    assert modules <= {"__future__", "collections", "dataclasses", "gymnasium", "torch", "proxycoop"}
    assert "proxycoop.envs" in text
    assert "proxycoop.training" not in text
    assert "proxycoop.agents" not in text


@pytest.mark.slow
def test_ppo_in_a_single_file_learns(tmp_path):
    lines = (line.split(": welfare ") for line in output(PPO, tmp_path).splitlines())
    welfare = {name: float(number) for name, number in lines}
    assert welfare["untrained"] < welfare["honest"]
    assert welfare["trained"] > max(welfare["honest"], welfare["random"]) + 10  # reward units; a good episode gains about N·T = 96
