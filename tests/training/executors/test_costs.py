"""What cells cost is measured while they run, and what many would cost follows from it."""

from __future__ import annotations

import pytest

from proxycoop.training.compare import cells, compare
from proxycoop.training.executors import Cost, cost_of, estimate, measuring


def test_cost_of_many_is_their_number_times_the_mean():
    found = estimate([Cost(9, 10.0, 300), Cost(9, 30.0, 500)], 3600, 100, 0.5)
    assert found.core_hours == pytest.approx(20)
    assert found.hours == pytest.approx(0.2)
    assert found.price == pytest.approx(10)
    assert found.memory == 100 * 500


def test_fewer_cells_than_cores_take_as_long_as_the_longest():
    found = estimate([Cost(9, 10.0, None), Cost(9, 3590.0, None)], 2, 64, 1.0)
    assert found.hours == pytest.approx(3590 / 3600)
    assert found.memory is None


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"measured": []}, "no cell"),
        ({"n_cells": 0}, "at least 1"),
        ({"cores": 0}, "at least 1"),
        ({"price_per_core_hour": -1.0}, "-1.0"),
    ],
)
def test_wrong_numbers_are_refused(wrong, words):
    given = {"measured": [Cost(1, 1, None)], "n_cells": 1, "cores": 1, "price_per_core_hour": 0.0} | wrong
    with pytest.raises(ValueError, match=words):
        estimate(**given)


def test_what_runs_is_measured_and_kept(tmp_path):
    with measuring(tmp_path):
        held = bytearray(50_000_000)
        held[::4096] = b"x" * len(held[::4096])
    found = cost_of(tmp_path)
    assert found is not None
    assert found.peak_memory is None or found.peak_memory > 50_000_000
    assert found.cpu_seconds >= 0


@pytest.mark.parametrize("text", ["", "{}", '{"seconds": "x", "cpu_seconds": 1, "peak_memory": 1}', "[]"])
def test_a_damaged_cost_is_none(tmp_path, text):
    (tmp_path / "cost.json").write_text(text)
    assert cost_of(tmp_path) is None


def test_a_cell_that_fails_leaves_no_cost(tmp_path):
    with pytest.raises(KeyError), measuring(tmp_path):
        raise KeyError
    assert cost_of(tmp_path) is None


def test_the_command_says_what_many_such_cells_would_cost(small, forking, run, tmp_path):
    todo = [cell for cell in cells([small], ["loo"], [0], episodes=2, evaluation_splits=2) if cell.agent == "none"]
    with forking():
        compare(todo, tmp_path / "out", jobs=1, quiet=True)
    (place,) = (tmp_path / "out").glob("cells/*/*/*")
    (place / "cost.json").write_text('{"seconds": 99, "cpu_seconds": 7.2, "peak_memory": 500000000}')
    code, out, _ = run("cost", tmp_path / "out", "--cells", 1000, "--cores", 10, "--price", 0.5)
    assert code == 0
    row = next(line for line in out.splitlines() if "scripted" in line)
    assert [word for word in row.replace("│", " ").split() if word[0].isdigit()] == ["1", "7.2", "7.2", "500", "2.0", "0.20", "5.0", "1.00"]
    (place / "cost.json").unlink()
    assert "holds no cost.json" in run("cost", tmp_path / "out")[2]
    assert "holds no finished results" in run("cost", tmp_path / "nowhere")[2]
