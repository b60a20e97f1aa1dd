"""Which libraries there are, what they take, and what is said when something is missing."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from proxycoop.training.libraries import registry as libraries
from proxycoop.training.libraries.registry import LIBRARIES, find, learner, settings_for
from proxycoop.training.settings import RayPPOSettings
from proxycoop.training.train import train


def test_a_wrong_library_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown library 'rlib' \(did you mean 'rllib'\?\): the known ones are sb3"):
        find("rlib")


def test_a_wrong_pair_says_who_has_the_algorithm_and_what_is_possible():
    with pytest.raises(
        ValueError, match=r"'rllib' has no algorithm 'vdn'; vdn is in --library benchmarl\. Choose one of: sb3: ppo, a2c, dqn;"
    ):
        find("rllib", "vdn")
    with pytest.raises(ValueError, match=r"'sb3' has no algorithm 'nope'\. Choose one of"):
        find("sb3", "nope")


def test_a_library_without_algorithm_means_its_first(small):
    assert find("benchmarl")[0] == "ippo"
    assert settings_for("rllib", scenario=small).algo == "ppo"


@pytest.mark.parametrize(("name", "algo"), [(name, algo) for name, library in LIBRARIES.items() for algo in library.algorithms])
def test_every_pair_has_settings_that_its_algorithm_takes(small, name, algo):
    settings = settings_for(name, algo, scenario=small)
    assert (settings.library, settings.algo) == (name, algo)
    assert settings.actions in LIBRARIES[name].algorithms[algo].actions


def test_every_extra_is_one_of_the_package():
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    assert {library.extra for library in LIBRARIES.values() if library.extra} <= project["optional-dependencies"].keys()
    assert all(bool(library.extra) == bool(library.packages) for library in LIBRARIES.values())


def test_a_missing_library_gives_the_line_to_type_before_anything_is_written(small, tmp_path, monkeypatch):
    monkeypatch.setattr(libraries, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"library 'rllib' needs ray, which is not installed: pip install 'proxycoop\[rllib\]'"):
        train(settings_for("rllib", scenario=small), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_actions_and_settings_that_an_algorithm_does_not_take_are_refused(small):
    with pytest.raises(ValueError, match="actions='multi_discrete': sb3 dqn takes discrete"):
        learner(settings_for("sb3", "dqn", scenario=small, actions="multi_discrete"))
    with pytest.raises(ValueError, match=r"sb3 ppo takes PPOSettings, got RayPPOSettings: use libraries\.settings_for"):
        learner(RayPPOSettings(scenario=small))
    with pytest.raises(ValueError, match="Input should be 'team'"):
        settings_for("benchmarl", "qmix", scenario=small, rewards="own")


def test_no_library_and_no_database_is_imported_and_no_file_written_unless_asked_for(tmp_path):
    script = """
import sys
from proxycoop.envs import cooperative_v0, scenario
env = cooperative_v0.parallel_env(scenario.load("breast_cancer", horizon=1, settlement={}))
env.reset(seed=0)
env.step({agent: [1, 1, 1, 1] for agent in env.agents})
print("sqlalchemy" in sys.modules)
import proxycoop, proxycoop.agents, proxycoop.credit, proxycoop.envs, proxycoop.training.libraries, proxycoop.training.train
import proxycoop.training.commands.cli
heavy = {"stable_baselines3", "sb3_contrib", "supersuit", "ray", "benchmarl", "torchrl", "agilerl", "flwr", "matplotlib", "tensorboard"}
print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["False", "[]"]
    assert list(tmp_path.iterdir()) == []


def test_imports_bring_nothing_that_is_slow_to_import():
    script = """
import sys
import proxycoop, proxycoop.agents, proxycoop.credit, proxycoop.envs, proxycoop.training.libraries, proxycoop.training.train
import proxycoop.training.commands.cli, proxycoop.training.intervals
print(sorted({"scipy.stats", "scipy.optimize", "scipy.linalg", "sklearn", "sqlalchemy", "matplotlib"} & set(sys.modules)))
"""
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_command_lists_libraries_and_the_settings_of_an_algorithm(run):
    code, out, _ = run("libraries")
    assert code == 0
    assert all(name in out for name in LIBRARIES)
    code, out, _ = run("libraries", "sb3", "dqn")
    assert code == 0
    assert "proxycoop train --library sb3 --algo dqn --hyper NAME=VALUE" in out
    assert "exploration_share" in out
    assert "credit" not in out
    assert run("libraries", "sb4")[2].startswith("error: unknown library 'sb4'")
