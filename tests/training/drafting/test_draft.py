"""A scenario that is drafted on a table loads, plays, is the same each time, and says where each of its numbers comes from."""

from __future__ import annotations

import os
import re

import pytest

from proxycoop import agents, strict_yaml
from proxycoop.envs import Engine, scenario
from proxycoop.training.drafting import Sheet, Wishes, draft_scenario
from proxycoop.training.drafting.table import open_table


def test_the_draft_loads_plays_and_is_the_same_each_time(table, write, tmp_path):
    path = write(table)
    made = draft_scenario(path, "default", out=tmp_path / "there" / "mine.yaml")
    text = made.to_yaml()
    assert text == draft_scenario(path, "default", out=tmp_path / "there" / "mine.yaml").to_yaml()
    assert "path: ../loans.csv" in text
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine.yaml").write_text(text)
    loaded = scenario.load(tmp_path / "there" / "mine.yaml")
    assert loaded == made.scenario
    engine = Engine(loaded, "loo", num_envs=2)
    welfare = {name: float(agents.play(engine, agents.make(name), seeds=range(2))["welfare"].mean()) for name in ("all", "oracle")}
    assert welfare["all"] < welfare["oracle"]


def test_what_the_columns_are_is_in_the_file(table, write):
    made = draft_scenario(write(table), "default")
    file = made.sheet.settings["data"]["file"]
    assert file["drop"] == ["loan_id", "opened", "currency", "fees"]
    assert file["attributes"] == ["branch", "sex"]
    assert file["missing"] == "fill"
    assert made.scenario.principals == 4  # one a branch
    assert made.scenario.lots.sites.attribute == "branch"
    assert set(made.scenario.data.groups) == {"sex_f", "age_low"}
    assert list(made.scenario.values) == ["missed", "sex_f_loss", "age_low_loss"]  # four principals, and a fourth probe set lacks rows
    assert any("sex_f_gap" in sentence for sentence in made.people.left_out)
    assert "AUC 1.000" in made.sheet.comments["data.file.drop"]
    assert "take it out of this list" in made.sheet.comments["data.file.drop"]


def keys(settings, comments, path=""):
    for key, value in settings.items():
        yield f"{path}{key}"
        within = any(name.startswith(f"{path}{key}.") for name in comments)
        if within and isinstance(value, dict):
            yield from keys(value, comments, f"{path}{key}.")
        elif within:
            yield from (f"{path}{key}.{i}" for i in range(len(value)))


def test_every_key_has_a_comment_and_no_line_is_long(table, write):
    made = draft_scenario(write(table), "default")
    assert [key for key in keys(made.sheet.settings, made.sheet.comments) if not made.sheet.comments.get(key)] == []
    assert max(map(len, made.to_yaml().splitlines())) <= 120
    assert strict_yaml.read_text(made.to_yaml(), "here").value == made.sheet.settings


def test_what_was_asked_for_is_done(table, write):
    wishes = {"attributes": ["work,age"], "sites": "sex", "principals": 3, "keep": ["fees"], "drop": ["late"]}
    made = draft_scenario(write(table), "default", **wishes)
    file = made.sheet.settings["data"]["file"]
    assert "fees" not in file["drop"]
    assert file["drop"][0] == "late"
    assert file["attributes"] == ["sex", "work"]
    assert made.scenario.principals == 3
    assert made.scenario.lots.sites.attribute == "sex"
    assert {"age_low"} < set(made.scenario.data.groups)


def test_few_gaps_leave_rows_out_and_semicolons_and_decimal_commas_are_seen(table, write):
    table["income"] = [(entry or "30").replace(".", ",") for entry in table["income"]]
    table["work"][:5] = [""] * 5
    made = draft_scenario(write(table, delimiter=";"), "default")
    file = made.sheet.settings["data"]["file"]
    assert (file["decimal"], file["missing"]) == (",", "drop_rows")
    assert len(made.table.dataset.labels) == 895
    assert any("semicolons" in sentence for sentence in made.table.told)
    assert any("comma is the decimal point" in sentence for sentence in made.table.told)


def test_a_comma_between_thousands_is_no_decimal_comma(table, write):
    table["late"] = [f"{2 + i % 90},{i % 1000:03}" for i in range(len(table["late"]))]
    made = draft_scenario(write(table, delimiter=";"), "default")
    assert "decimal" not in made.sheet.settings["data"]["file"]
    (late,) = (one for one in made.table.guesses if one.name == "late")
    assert "thousands separators" in late.why


def test_small_levels_of_a_protected_column_are_told(table, write):
    table["sex"] = ["divers" if i % 60 == 0 else entry for i, entry in enumerate(table["sex"])]
    made = draft_scenario(write(table), "default")
    assert any("a group of sex: divers 1.7%: too few rows" in sentence for sentence in made.people.left_out)
    assert "sex_f" in made.scenario.data.groups


def test_a_label_of_many_numbers_is_noted(table, write, capsys):
    table["default"] = [int(income.partition(".")[0] or 30) % 30 for income in table["income"]]
    open_table(write(table), Wishes("default"), Sheet())
    assert "note: label: 'default' has 30 different numbers, each of which is taken for a class" in capsys.readouterr().err


def test_rows_that_look_alike_are_used_once(table, write):
    table = {name: column + column[:100] for name, column in table.items()}
    made = draft_scenario(write(table), "default")
    assert made.scenario.data.duplicates == "drop"


def test_columns_that_are_nearly_always_the_same_are_not_seen(table, write):
    table["rare"] = ["odd" if i % 100 == 0 else "usual" for i in range(len(table["sex"]))]
    made = draft_scenario(write(table), "default")
    assert not any("rare" in column for column in made.scenario.data.columns)
    (told,) = (one for one in made.table.told if "the same in nearly every row" in one)
    assert "columns after coding" in told
    assert "rare" in told.partition(": ")[2]
    assert "income" in made.scenario.data.columns


def test_three_classes_are_swapped_in_pairs_and_a_table_without_people_still_plays(table, write):
    table = {name: table[name] for name in ("income", "late", "work", "default")}
    table["default"] = ["late" if d == "no" and n > 0 else d for d, n in zip(table["default"], table["late"], strict=True)]
    table["late"] = [n + (i % 7) / 10 for i, n in enumerate(table["late"])]
    made = draft_scenario(write(table), "default", keep=["late"])
    assert len(made.scenario.lots.corruption.pairs) == 1
    assert made.scenario.data.groups == {}
    assert list(made.scenario.values) == ["missed"]


def test_a_small_table_gets_small_splits(table, write):
    table = {name: column[:220] for name, column in table.items() if name != "branch"}
    made = draft_scenario(write(table), "default")
    assert made.scenario.data.validation.rows == 30
    assert made.scenario.lots.rows == 8


def test_the_draft_is_made_in_steps_that_are_told(table, write):
    told = []
    draft_scenario(write(table), "default", progress=lambda done, total, what: told.append((done, total, what)))
    assert told[0] == (0, 22, "the file and its columns")
    assert told[-1][0] == told[-1][1]
    assert [one[0] for one in told] == sorted(one[0] for one in told)


def a_label_of(entries):
    return lambda table: table | {"default": entries(len(table["default"]))}


@pytest.mark.parametrize(
    ("change", "wishes", "message"),
    [
        (None, {"label": "defualt"}, "label: unknown column 'defualt' (did you mean 'default'?)"),
        (None, {"label": "default", "attributes": ["sxe"]}, "attributes: unknown column 'sxe'"),
        (None, {"label": "default", "sites": "nowhere"}, "sites: unknown column 'nowhere'"),
        (None, {"label": "default", "drop": ["default"]}, "drop: 'default' is the label"),
        (None, {"label": "default", "drop": ["sex"], "keep": ["sex"]}, "drop: 'sex' is one of keep too"),
        (None, {"label": "default", "attributes": ["loan_id"]}, "attributes: 'loan_id' has 900 different words, and at most 50"),
        (None, {"label": "default", "principals": 1}, "principals=1"),
        (None, {"label": "default", "principals": 65}, "principals=65: must be from 2 to 64"),
        (a_label_of(lambda n: ["no"] * n), {"label": "default"}, "label: 'default' has the same entry in every row"),
        (a_label_of(lambda n: list(range(n))), {"label": "default"}, "label: 'default' has 900 different entries, and at most 100 classes"),
        (lambda table: {name: column[:150] for name, column in table.items()}, {"label": "default"}, "has 150 rows that can be used"),
        (a_label_of(lambda n: ["no", "yes"] * 50 + [""] * (n - 100)), {"label": "default"}, "rows that can be used"),
        (lambda table: {name: table[name] for name in ("loan_id", "currency", "default")}, {"label": "default"}, "no column is left"),
    ],
)
def test_what_cannot_be_drafted_is_refused_in_one_line(change, wishes, message, table, write):
    path = write(table if change is None else change(table))
    with pytest.raises(ValueError, match=re.escape(message)) as refusal:
        draft_scenario(path, **wishes)
    assert "\n" not in str(refusal.value)


def test_files_of_other_kinds_and_unusable_rows_are_refused(table, write, tmp_path):
    with pytest.raises(ValueError, match=r"'loans\.xlsx': a scenario is drafted on a file whose name ends in"):
        draft_scenario(tmp_path / "loans.xlsx", "default")
    with pytest.raises(ValueError, match="does not exist"):
        draft_scenario(tmp_path / "none.csv", "default")
    table["default"][::50] = [""] * len(table["default"][::50])
    for i, name in enumerate(("sex", "age", "late", "work")):  # together every row has a gap, and no row is left
        table[name] = ["" if row % 4 == i else entry for row, entry in enumerate(table[name])]
    with pytest.raises(ValueError, match="leaves no row"):
        draft_scenario(write(table), "default")
    assert os.listdir(tmp_path) == ["loans.csv"]
