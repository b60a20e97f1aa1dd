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
HERE = sorted(path.name for path in FOLDER.glob("*.py") if not path.name.startswith(ELSEWHERE))


def test_every_library_has_an_example_of_at_most_forty_lines():
    names = [path.name for path in FOLDER.glob("*.py")]
    for library in LIBRARIES:
        assert any(name.startswith(f"{library.replace('-', '_')}_") for name in names), library
    for path in FOLDER.glob("*.py"):
        assert path.name.startswith("flower") or len(path.read_text().splitlines()) <= 40, path.name


def test_a_rule_of_ones_own_takes_ten_lines():
    text = (FOLDER / "own_rule.py").read_text()
    rule = text[text.index("@credit.RULES") : text.index("print(")]
    assert sum(bool(line.strip()) for line in rule.splitlines()) <= 10


@pytest.mark.slow
@pytest.mark.parametrize("name", HERE)
def test_the_example_runs(name, tmp_path):
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}  # other tests stand beside
    done = subprocess.run([sys.executable, str(FOLDER / name)], cwd=tmp_path, env=one_thread, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert not list(tmp_path.iterdir())
