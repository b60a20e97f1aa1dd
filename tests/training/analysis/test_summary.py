"""Tables of a comparison, recomputed by hand from a synthetic one."""

import math
from io import StringIO
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from rich.console import Console

from proxycoop.text import one_line
from proxycoop.training.analysis.summary import (
    cells,
    columns,
    console_table,
    difference,
    markdown,
    reference,
    spell,
    summarise,
    told,
    wrapped,
)
from proxycoop.training.evaluate import Estimate

WELFARE = {"planner": [60.0, 50.0, 70.0], "none": [0.0, 0.0, 0.0], "shapley": [48.0, 45.0, 52.0], "equal": [20.0, 31.0, 25.0]}


def result(
    agent: str,
    credit: str,
    seed: int,
    measures: dict[str, Any],
    *,
    utility: str = "neg_log_loss",
    name: str = "s",
    corruption: float = 0.5,
) -> dict[str, Any]:
    lots = {"per_principal": 4, "corruption": {"share": corruption}}
    scenario = {"name": name, "utility": utility, "principals": 4, "values": {}, "lots": lots}
    cell = {"format": 5, "agent": agent, "credit": credit, "seed": seed, "episodes": 8, "scenario": scenario}
    return {"cell": cell, "measures": measures, "series": {}, "curve": []}


def comparison() -> list[dict[str, Any]]:
    made = []
    for who, sample in WELFARE.items():
        scripted = who in ("planner", "none")
        for seed, welfare in enumerate(sample):
            measures = {
                "welfare": [welfare, 3.0],
                "test_utility": [-0.5 + welfare / 1000, 0.01],
                "clean_share": [0.0 if who == "none" else 0.6, 0.0],
            }
            measures |= {"corrupt_share": [0.0 if who == "none" else 0.1, 0.0], "admitted_share": [0.0 if who == "none" else 0.9, 0.0]}
            measures |= {"violations": [0.0, 0.0], "pearson_shapley": [None, None] if who != "shapley" else [0.9 + seed / 100, 0.0]}
            made.append(result(who if scripted else "learned", "shapley" if scripted else who, seed, measures))
    return made


def t_half_width(sample: list[float]) -> float:
    low, high = scipy.stats.t.interval(0.95, len(sample) - 1, loc=np.mean(sample), scale=scipy.stats.sem(sample))
    return float(high - low) / 2


def test_means_and_half_widths_are_scipys_t_interval_over_seeds() -> None:
    (table,) = summarise(comparison())
    for row in table.rows:
        welfare = row.measure("welfare")
        assert welfare.mean == pytest.approx(np.mean(WELFARE[row.name]))
        assert welfare.half_width == pytest.approx(t_half_width(WELFARE[row.name]) if row.name != "none" else 0)
        assert row.measure("test_cross_entropy").mean == pytest.approx(-row.mean("test_utility"))


def test_rows_stand_scripted_first_and_in_their_known_order() -> None:
    given = [result("learned", rule, 0, {}) for rule in ("zeta", "shapley", "alpha", "loo", "standalone", "data_size", "equal")]
    given += [result(agent, "shapley", 0, {}) for agent in ("planner", "all", "none", "oracle", "honest", "random", "extra")]
    (table,) = summarise(given)
    assert [row.name for row in table.scripted] == ["none", "all", "random", "honest", "oracle", "planner", "extra"]
    assert [row.name for row in table.learned] == ["equal", "data_size", "standalone", "loo", "shapley", "alpha", "zeta"]
    assert table.rows == table.scripted + table.learned


def test_scenarios_get_tables_of_their_own() -> None:
    tables = summarise([result("learned", "equal", 0, {}, name="b"), result("learned", "loo", 0, {}, name="a")])
    assert [(table.name, [row.name for row in table.rows]) for table in tables] == [("b", ["equal"]), ("a", ["loo"])]


def test_share_of_planner_is_the_ratio_of_means_with_a_linearised_interval() -> None:
    (table,) = summarise(comparison())
    w, p = np.array(WELFARE["shapley"]), np.array(WELFARE["planner"])
    share = next(row for row in table.learned if row.name == "shapley").measure("planner_share")
    ratio = w.mean() / p.mean()
    assert share.mean == pytest.approx(ratio)
    assert share.half_width == pytest.approx(t_half_width(list((w - ratio * p) / p.mean())))
    assert table.agent("planner").measure("planner_share") == Estimate(1.0, 0.0)


def test_the_reference_is_the_planner_that_measures_where_it_was_played() -> None:
    given = comparison()
    for seed, welfare in enumerate([80.0, 75.0, 90.0]):
        given.append(result("measuring_planner", "shapley", seed, {"welfare": [welfare, 1.0]}))
    (table,) = summarise(given)
    assert reference(table) is table.agent("measuring_planner")
    assert next(row for row in table.learned if row.name == "shapley").measure("planner_share").mean == pytest.approx(145 / 245)
    assert table.agent("planner").measure("planner_share").mean == pytest.approx(180 / 245)
    (before,) = summarise(comparison())  # as where the other has not finished
    assert reference(before) is before.agent("planner")


@pytest.mark.parametrize("planner", [None, -2.0])
def test_share_of_planner_is_undefined_without_a_planner_that_gains(planner: float | None) -> None:
    given = [result("learned", "equal", 0, {"welfare": [5.0, 1.0]})]
    given += [] if planner is None else [result("planner", "shapley", 0, {"welfare": [planner, 1.0]})]
    assert summarise(given)[0].learned[0].measure("planner_share") == Estimate(None, None)


def test_one_seed_keeps_the_interval_over_episodes_and_says_so() -> None:
    (table,) = summarise([one for one in comparison() if one["cell"]["seed"] == 0])
    assert table.learned[0].measure("welfare") == Estimate(20.0, 3.0)
    assert "One seed only" in table.meaning_of_intervals
    (mixed,) = summarise([one for one in comparison() if one["cell"]["seed"] == 0 or one["cell"]["credit"] != "equal"])
    assert "(learned, equal)" in mixed.meaning_of_intervals
    assert mixed.seeds == (0, 1, 2)


def test_undefined_measures_are_dashes_in_every_form() -> None:
    (table,) = summarise(comparison())
    titles = [column.short for column in columns(table)]
    by_row = {row.name: dict(zip(titles, texts, strict=True)) for row, texts in zip(table.rows, cells(table), strict=True)}
    assert table.agent("none").measure("admitted_share") == Estimate(None, None), "of nothing contributed, no share was admitted"
    assert by_row["none"]["worst value %"] == ("–", "")
    assert by_row["equal"]["Pearson"] == ("–", "")
    assert by_row["shapley"]["Pearson"] == ("0.91", "0.02")
    assert by_row["planner"]["Pearson"] == ("–", "")
    missing = summarise([result("learned", "equal", 0, {})])[0]
    assert {text for texts in cells(missing) for text in texts} == {("–", "")}
    assert markdown(missing).splitlines()[-1] == "| learned, equal |" + " – |" * len(columns(missing))


@pytest.mark.parametrize(("corruption", "told"), [(0.0, None), (0.03, None), (0.5, 0.0)])
def test_share_of_corrupt_lots_is_undefined_where_there_are_none(corruption: float, told: float | None) -> None:
    given = result("learned", "equal", 0, {"corrupt_share": [0.0, 0.0]}, corruption=corruption)
    assert summarise([given])[0].learned[0].measure("corrupt_share").mean == told


def test_lots_of_named_principals_are_corrupt_where_none_are_drawn() -> None:
    given = result("learned", "equal", 0, {"corrupt_share": [0.0, 0.0]}, corruption=0.0)
    given["cell"]["scenario"]["lots"]["corruption"]["principals"] = [1]
    assert summarise([given])[0].learned[0].measure("corrupt_share").mean == 0.0


def test_accuracy_as_utility_is_shown_in_place_of_cross_entropy() -> None:
    (table,) = summarise([result("learned", "equal", 0, {"test_utility": [0.875, 0.01]}, utility="accuracy")])
    assert columns(table)[0].title == "test accuracy, %"
    assert cells(table)[0][0] == ("87.5", "1.0")
    assert table.learned[0].measure("test_cross_entropy") == Estimate(None, None)


def test_console_and_markdown_show_the_same_rows_and_numbers() -> None:
    (table,) = summarise(comparison())
    text = StringIO()
    Console(file=text, width=96).print(console_table(table))
    half_width = f"{t_half_width(WELFARE['shapley']):.1f}"
    assert f"48.3 ±{half_width}" in text.getvalue()
    lines = markdown(table).splitlines()
    assert len(lines) == 2 + len(table.rows)
    assert len({line.count("|") for line in lines}) == 1
    assert f"| learned, shapley | 0.452 ± 0.009 | 48.3 ± {half_width} |" in markdown(table)


def test_long_names_are_broken_at_spaces_and_within_arguments_and_none_is_lost() -> None:
    name = "normalised(rule='shapley(budget=60, seed=1)', max_scale=4.0)"
    assert wrapped(name, 20).split("\n") == ["normalised(", "rule='shapley(", "budget=60, seed=1)',", "max_scale=4.0)"]
    assert wrapped("shapley(budget=60)", 20) == "shapley(budget=60)"
    assert wrapped("digits-provenance", 10) == "digits-\nprovenance"
    assert wrapped("", 20) == " "
    matrix = wrapped(f"coopetition(interdependence={[[0.1] * 64] * 64})", 20).split("\n")
    assert len(matrix) == 8
    assert matrix[-1].endswith("…")
    (table,) = summarise([result("learned", rule, 0, {}) for rule in (name, "equal")])
    text = StringIO()
    Console(file=text, width=96).print(console_table(table))
    shown = "".join(line[:20].replace(" ", "") for line in text.getvalue().splitlines())
    assert name.replace(" ", "") in shown


def test_names_are_taken_literally_by_rich_and_markdown() -> None:
    (table,) = summarise([result("learned", "[red]x[/]|<b>_y_\x1b\n", 0, {}, name="[bold]s")])
    text = StringIO()
    Console(file=text, width=200).print(console_table(table))
    assert [line.split()[0] for line in text.getvalue().splitlines() if "x[" in line or "_y_" in line] == ["[red]x[", r"/]|<b>_y_\x1b"]
    assert "[bold]s" in text.getvalue()
    assert r"learned, \[red\]x\[/\]\|\<b\>\_y\_" in markdown(table)
    assert one_line("a\x1b\nb") == r"a\x1b b"


def test_rules_whose_long_names_differ_only_at_the_end_look_different() -> None:
    names = [f"mine({', '.join(f'argument_{i}={i}' for i in range(20))}, last={last})" for last in (1, 2)]
    (table,) = summarise([result("learned", name, 0, {}) for name in names])
    text = StringIO()
    Console(file=text, width=200).print(console_table(table))
    assert "last=1)" in text.getvalue()
    assert "last=2)" in text.getvalue()


def test_difference_pairs_seeds() -> None:
    (table,) = summarise(comparison())
    equal, shapley = table.learned
    expected = [a - b for a, b in zip(WELFARE["shapley"], WELFARE["equal"], strict=True)]
    assert difference(shapley, equal, "welfare").mean == pytest.approx(np.mean(expected))
    assert difference(shapley, equal, "welfare").half_width == pytest.approx(t_half_width(expected))
    (partial,) = summarise([one for one in comparison() if one["cell"]["credit"] != "equal" or one["cell"]["seed"] == 1])
    equal, shapley = partial.learned
    assert difference(shapley, equal, "welfare") == Estimate(45.0 - 31.0, None)


def test_numbers_are_spelt_without_minus_zero_and_with_a_true_minus() -> None:
    assert spell(Estimate(-0.0001, None), 2) == ("0.00", "")
    assert spell(Estimate(-1.5, 0.25), 2) == ("−1.50", "0.25")
    assert told(Estimate(0.425, 0.01), 1, percent=True) == "42.5\u00a0±\u00a01.0\u00a0%"
    assert told(Estimate(None, None), 1, percent=True) == "–"
    assert math.isnan(summarise(comparison())[0].rows[0].mean("unknown"))


def crossed() -> tuple[dict[str, np.ndarray], list[dict[str, Any]]]:
    """Two rules of three seeds on four splits, and the planner, which needs no seeds; the splits move all alike, the seeds each rule."""
    rng = np.random.default_rng(0)
    splits, seeds = rng.normal(0, 10, 4), rng.normal(0, 2, (3, 1))
    welfare = {
        "planner": 60 + splits[None] + rng.normal(size=(1, 4)),
        "shapley": 48 + splits + seeds + rng.normal(size=(3, 4)),
        "equal": 40 + splits + seeds + rng.normal(size=(3, 4)),
    }
    found = []
    for who, matrix in welfare.items():
        for seed, row in enumerate(matrix):
            by_split = {
                "welfare": row.tolist(),
                "clean_share": [0.5, 0.0, 0.5, 0.5],
                "corrupt_share": [0.0] * 4,
                "admitted_share": [0.0] * 4,
            }
            by_split["test_utility"] = (-row / 100).tolist()
            measures = {name: [float(np.mean(means)), 1.0] for name, means in by_split.items()}
            one = result("learned" if who != "planner" else who, "shapley" if who == "planner" else who, seed, measures)
            if who == "planner":
                del one["cell"]["seed"]
            found.append(one | {"splits": [7, 8, 9, 10], "by_split": by_split})
    return welfare, found


def test_intervals_of_learned_rows_cover_seeds_and_splits_and_of_scripted_ones_splits() -> None:
    welfare, found = crossed()
    (table,) = summarise(found)
    for row in table.rows:
        matrix = torch.from_numpy(welfare[row.name])
        assert torch.equal(row.matrix("welfare"), matrix)
        assert row.measure("welfare") == Estimate.crossed(matrix)
        assert row.measure("test_cross_entropy").mean == pytest.approx(float(matrix.mean()) / 100)
    planner = table.agent("planner")
    assert planner.seeds == ()
    assert planner.measure("welfare").half_width == pytest.approx(t_half_width(list(welfare["planner"][0])))
    assert table.seeds == (0, 1, 2)
    assert table.meaning_of_intervals == (
        "± is the half-width of a 95 % interval over training seeds and 4 evaluation splits (two-way random effects, Satterthwaite); "
        "of scripted agents, over evaluation splits."
    )


def test_differences_are_paired_by_seed_and_split_and_a_scripted_agent_with_every_seed() -> None:
    welfare, found = crossed()
    (table,) = summarise(found)
    equal, shapley = table.learned
    lead = difference(shapley, equal, "welfare")
    assert lead == Estimate.crossed(torch.from_numpy(welfare["shapley"] - welfare["equal"]))
    assert lead.half_width < 0.5 * shapley.measure("welfare").half_width
    behind = difference(table.agent("planner"), shapley, "welfare")
    assert behind == Estimate.crossed(torch.from_numpy(welfare["planner"] - welfare["shapley"]))
    share, ratio = shapley.measure("planner_share"), welfare["shapley"].mean() / welfare["planner"].mean()
    assert share.mean == pytest.approx(ratio)
    linear = (welfare["shapley"] - ratio * welfare["planner"]) / welfare["planner"].mean()
    assert share.half_width == pytest.approx(Estimate.crossed(torch.from_numpy(linear)).half_width)
    assert table.agent("planner").measure("planner_share") == Estimate(pytest.approx(1.0), pytest.approx(0.0, abs=1e-9))


def test_two_rows_with_one_seed_in_common_have_no_interval() -> None:
    _, found = crossed()
    kept = [one for one in found if one["cell"]["agent"] == "planner" or one["cell"]["seed"] == (one["cell"]["credit"] == "equal")]
    (table,) = summarise([*kept, *(one for one in found if one["cell"].get("seed") == 2)])
    equal, shapley = table.learned
    assert (equal.seeds, shapley.seeds) == ((1, 2), (0, 2))
    lead = difference(shapley, equal, "welfare")
    assert lead.mean is not None
    assert lead.half_width is None
    (single,) = summarise(kept)
    assert "One seed only: ± is the half-width of a 95 % interval over evaluation splits" in single.meaning_of_intervals
    assert single.learned[0].measure("welfare").half_width is not None
    assert difference(single.agent("planner"), single.learned[0], "welfare").half_width is None


def test_where_nothing_was_contributed_on_a_split_no_share_of_it_was_admitted() -> None:
    _, found = crossed()
    (table,) = summarise(found)
    assert table.learned[0].matrix("admitted_share").isnan().tolist() == [[False, True, False, False]] * 3


def test_what_was_learned_stands_beside_best_replies_under_the_same_rule() -> None:
    welfare, found = crossed()
    planner = next(one for one in found if one["cell"]["agent"] == "planner")
    replies = {"shapley": welfare["planner"] - 2, "equal": welfare["planner"] - 30}
    for rule, matrix in replies.items():
        by_split = planner["by_split"] | {"welfare": matrix[0].tolist()}
        found.append(planner | {"cell": planner["cell"] | {"agent": "best_reply", "credit": rule}, "by_split": by_split})
    (table,) = summarise(found)
    assert [row.name for row in table.scripted] == ["planner", "best_reply, equal", "best_reply, shapley"]
    for row in table.learned:
        gap = row.measure("best_reply_gap")
        assert gap == Estimate.crossed(torch.from_numpy(replies[row.name] - welfare[row.name]))
        assert "best_reply_gap" in row.measures
    assert "below best reply, reward units" in [column.title for column in columns(table)]
    assert table.agent("planner").measure("best_reply_gap") == Estimate(None, None)
    (without,) = summarise(crossed()[1])
    assert "below best reply, reward units" not in [column.title for column in columns(without)]
