"""The benchmark of temptations: how its table is kept, and how rules and trials are compared."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks" / "temptations"
PARTS = ("trials", "rows", "result_tables", "pictures")


@pytest.fixture(scope="module")
def parts():
    """The benchmark's files, which find one another as scripts do: beside themselves."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield {name: __import__(name) for name in PARTS}
    for name in PARTS:
        del sys.modules[name]


def row(trial, rule, seed, **measures):
    return {"scenario": "digits-mean", "trial": trial, "loyalty": "0.0", "rule": rule, "seed": str(seed), "steps": "120000", **measures}


def table(parts, *rows):
    return [dict.fromkeys(parts["rows"].COLUMNS, "") | one for one in rows]


def test_a_table_is_read_as_it_was_written_in_the_order_of_trials(parts, tmp_path):
    rows = table(parts, *(row(trial, "loo", seed, welfare="1.5") for trial in ("honest", "values", "forgeries") for seed in (10, 9)))
    parts["rows"].Table(tmp_path / "t.csv").write(rows)
    assert parts["rows"].Table(tmp_path / "t.csv").read() == [rows[i] for i in (5, 4, 3, 2, 1, 0)]
    assert parts["rows"].Table(tmp_path / "none.csv").read() == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("1.5", "much"), "line 2: welfare is 'much', which is not a number"),
        (lambda text: text.replace(",0,120000", ",0.5,120000"), "line 2: seed is '0.5', which is not a number"),
        (lambda text: text.replace("120000", ""), "line 2 has no steps"),
        (lambda text: text.replace("digits-mean", "digits"), "line 2 is of digits, values: allowed are ['digits-mean', "),
        (lambda text: text + "digits-mean" + "," * 40, "line 3 has more cells than the header"),
        (lambda text: text.replace("welfare", "joy", 1), "it has a column 'joy', which is none of scenario, trial, "),
    ],
    ids=["number", "seed", "steps", "scenario", "cells", "column"],
)
def test_a_file_that_is_not_such_a_table_is_refused(parts, tmp_path, change, message):
    path = tmp_path / "t.csv"
    parts["rows"].Table(path).write(table(parts, row("values", "loo", 0, welfare="1.5")))
    path.write_text(change(path.read_text()))
    with pytest.raises(SystemExit) as refused:
        parts["rows"].Table(path).read()
    assert str(refused.value).startswith(f"--csv {path}: {message}")


def test_damage_pairs_seeds_and_takes_the_trainings_that_stand_for_a_rule(parts):
    rows = table(
        parts,
        *(row("values", "loo", seed, welfare=str(welfare)) for seed, welfare in ((0, 5.0), (1, 9.0), (2, 100.0))),
        *(row("honest", "shapley", seed, welfare=str(welfare)) for seed, welfare in ((0, 4.0), (1, 5.0), (3, -100.0))),
        row("values", "loo", 0, welfare="-1000") | {"loyalty": "3.0"},
    )
    same = {("digits-mean", "values"): {"loo": "loo"}, ("digits-mean", "honest"): {"shapley": "shapley", "loo": "shapley"}}
    damage = parts["rows"].damage(rows, same, "digits-mean", "values", "loo", "welfare")
    assert damage.mean == pytest.approx(2.5)  # of 5 - 4 and 9 - 5
    assert damage.half_width == pytest.approx(12.706 * 1.5, rel=1e-3)  # Student, one degree of freedom; standard error 1.5


@pytest.mark.parametrize("trial", ["forgeries", "values"])
def test_rules_are_alike_where_they_pay_the_same(parts, trial):
    """All coalitions of the proxies are in the budget of `kernelshap`; `quotient` guards `shapley` against twins."""
    rules = ["shapley", "loo", "kernelshap", "quotient", "cumulation"]
    found = parts["trials"].alike("digits-mean", trial, rules)
    assert found == {rule: rule for rule in rules} | {"kernelshap": "shapley"} | ({"quotient": "shapley"} if trial == "values" else {})


def test_every_training_is_asked_for_once(parts):
    same = {("digits-mean", trial): {"loo": "loo", "shapley": "shapley", "kernelshap": "shapley"} for trial in parts["trials"].TRIALS}
    found = list(parts["trials"].tasks(same, 2, None))
    assert len(found) == len(set(found)) == 2 * (3 * 2 + 4 * 2 + 2 * 2)  # trials and rules; λ and rules; twice as long
    assert {task.rule for task in found} == {"loo", "shapley"}
    assert [task.trial for task in found if task.steps == 120_000][-4:] == ["honest"] * 4
    assert [task.trial for task in found if task.steps == 240_000] == ["honest", "honest", "forgeries", "forgeries"] * 2


def test_tables_and_pictures_show_what_is_there(parts):
    measures = {"welfare": "7", "declared/larger": "0.25"}
    rows = table(parts, *(row("values", rule, seed, **measures) for rule in ("loo", "cgsv") for seed in (0, 1)))
    same = {("digits-mean", "values"): {"loo": "loo", "banzhaf": "loo", "cgsv": "cgsv"}}
    text = parts["result_tables"].tables(rows, same, ["loo", "banzhaf", "cgsv", "slashing"]).replace("\N{NO-BREAK SPACE}", " ")
    assert "- They pay like `loo`: `banzhaf`.\n- They cannot serve the scenario: `slashing`.\n" in text
    assert "| `loo` | 2 | 7.0 ± 0.0 |" in text
    assert "0.25 ± 0.00" in text
    assert [one.key for one in parts["pictures"].pictures(rows, same)] == ["temptations-digits-mean-values"]


def test_trainings_of_two_lengths_stand_beside_each_other(parts):
    rows = table(
        parts,
        *(row("honest", "loo", seed, welfare=welfare) for seed, welfare in ((0, "5"), (1, "7"))),
        *(row("forgeries", "loo", seed, welfare=welfare) for seed, welfare in ((0, "4"), (1, "6"))),
        *(row(trial, "loo", 0, welfare=welfare) | {"steps": "240000"} for trial, welfare in (("honest", "10"), ("forgeries", "12"))),
        row("forgeries", "loo", 0, welfare="99") | {"loyalty": "1.0"},
    )
    text = parts["result_tables"].lengths(rows).replace("\N{NO-BREAK SPACE}", " ")
    assert "| `digits-mean` | `loo` | 120,000 | 2 | 6.0 ± 12.7 | 5.0 ± 12.7 | −1.0 ± 0.0 |" in text
    assert "| `digits-mean` | `loo` | 240,000 | 1 | 10.0 | 12.0 | 2.0 |" in text
    assert parts["result_tables"].lengths(rows[:4]) == ""
