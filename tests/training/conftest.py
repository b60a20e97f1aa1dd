"""A small cooperative that PPO learns in seconds, and the command line."""

from __future__ import annotations

import sys

import pytest

from proxycoop.envs import scenario
from proxycoop.training import cli


@pytest.fixture(scope="session")
def small():
    return scenario.load("breast_cancer", principals=3, horizon=6, profiles=[{"holders": 1, "tolerances": {"missed_cancer": 0.1}}])


@pytest.fixture
def run(monkeypatch, capsys):
    """Run ``proxycoop WORDS`` and give its exit code, standard output and standard error."""

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["proxycoop", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    return call
