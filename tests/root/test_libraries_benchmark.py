"""The benchmark of RL libraries covers all of them, and reads their results as it says."""

from __future__ import annotations

import numpy as np
import pytest

from proxycoop.training.libraries.registry import LIBRARIES


@pytest.fixture(scope="module")
def script(benchmark_script):
    return benchmark_script("training/libraries")


def result(script, welfare, curves):
    welfare = np.array(welfare)
    n = len(welfare)
    return script.Result(welfare, np.full(n, 10.0), np.zeros(n), np.full(n, 12.0), welfare + 1, np.full(n, 1000.0), curves)


def test_every_library_and_algorithm_is_trained(script):
    trained = {(lesson.library, lesson.algo) for lesson in script.SUITES["libraries"]}
    every = {(name, algo) for name, library in LIBRARIES.items() for algo in library.algorithms}
    assert every - trained == {("supersuit", "a2c"), ("supersuit", "dqn")}  # Stable-Baselines3's own, on the same rows as supersuit's PPO
    assert trained <= every
    keys = [lesson.key for suite in script.SUITES.values() for lesson in suite]
    assert len(set(keys)) == len({(one.library, one.algo, one.credit, str(one.hyper)) for suite in script.SUITES.values() for one in suite})


def test_running_means_begin_with_what_there_is(script):
    curve = np.array([[1.0, 2, 3, 4], [4.0, 2, 6, 8]])
    assert script.smoothed(curve, width=2).tolist() == [[1, 2, 3, 4], [4, 3, 4, 7]]


def test_decompositions_are_compared_by_seed_and_by_when_they_reach_half(script):
    early, late, never = (np.array([[1000.0, 2000.0, 3000.0], welfare]) for welfare in ([6.0, 6, 6], [0.0, 0, 15], [0.0, 0, 0]))
    first, second = (script.Lesson("benchmarl", "vdn", label=label) for label in ("A, x", "B, y"))
    text = script.table_of_decompositions({first: result(script, [8, 10], [early, early]), second: result(script, [9, 11], [late, never])})
    _, _, one, other = text.splitlines()
    assert one.startswith("| A | x | 9.0 ± 12.7 | – | 90.0")
    assert one.endswith("| 1 ± 0 |")
    assert "| 1.0 ± 0.0 |" in other
    assert other.endswith("| 3 (1 of 2 seeds) |")


def test_libraries_are_compared_with_the_oracle_and_with_the_first(script):
    first, second = (script.Lesson("sb3", algo) for algo in ("ppo", "dqn"))
    text = script.table_of_libraries({first: result(script, [8, 8], []), second: result(script, [4, 4], [])})
    rows = text.splitlines()[2:]
    assert rows[0] == "| `sb3` | `ppo` | multi_discrete | no | 80.0 ± 0.0 | 100 | 1,000 |"
    assert rows[1] == "| `sb3` | `dqn` | discrete | no | 40.0 ± 0.0 | 50 | 1,000 |"
    assert rows[3].startswith("| – | random, for comparison | – | – | 0.0 ± 0.0 | 0 |")
