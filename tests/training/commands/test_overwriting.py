"""No command replaces what is the user's: what is there already, and what the command reads."""

from __future__ import annotations

import json
import shutil

import pytest

from proxycoop.credit.ledger import Ledger
from proxycoop.envs import scenario
from proxycoop.training.commands.profiles import answer, sample
from proxycoop.training.compare import cells, results
from proxycoop.training.libraries.registry import settings_for
from proxycoop.training.outputs import MARKER
from proxycoop.training.train import train

TINY = ("-s", "breast_cancer", "--set", "horizon=2", "--set", "principals=2", "--set", "profiles=[]", "--set", "reward.scale=1")


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """What commands read: a ledger, choices, a scenario that extends another, a training and a comparison."""
    place = tmp_path_factory.mktemp("originals")
    with Ledger(place / "books.db") as ledger:
        ledger.init("clinics", ["Ada", "Bo"])
        ledger.record("clinics", 0, {"Ada": 0.3, "Bo": 0.1}, revenue=1000)
    digits = scenario.load("digits", principals=4, horizon=4, profiles=[{"holders": 1, "tolerances": {"eights": 0.3}}])
    answer(sample(digits, 300), digits.profiles).to_csv(place / "choices.csv")
    (place / "base.yaml").write_text("extends: digits\nname: base\n")
    (place / "my.yaml").write_text("extends: base.yaml\nname: my  # a comment\n")
    tiny = scenario.load("breast_cancer", horizon=2, principals=2, profiles=[], **{"reward.scale": 1.0})
    train(settings_for(scenario=tiny, total_steps=30, num_cooperatives=2), place / "run", tensorboard=False)
    for cell in cells([tiny], ["loo"], [0], episodes=2, total_steps=30):
        path = place / "table" / "cells" / cell.name / "result.json"
        path.parent.mkdir(parents=True)
        splits = list(cell.evaluation_splits)
        result = {"measures": {"welfare": [1.0, 0.1]}, "splits": splits, "by_split": {"welfare": [1.0] * len(splits)}}
        path.write_text(json.dumps({"version": "9", "cell": cell.description(), **result, "series": {}, "curve": []}))
    return place


@pytest.fixture
def place(originals, tmp_path, monkeypatch):
    """A copy of them, in which a command runs."""
    shutil.copytree(originals, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def snapshot(place):
    """Every file but those that SQLite keeps beside a database while somebody reads it."""
    files = [path for path in sorted(place.rglob("*")) if path.is_file() and not path.name.startswith("books.db-")]
    return {path.relative_to(place): path.read_bytes() for path in files}


@pytest.mark.parametrize(
    "words",
    [
        ("play", *TINY, "--last", "--picture", "MINE"),
        ("evaluate", *TINY, "--episodes", 2, "--json", "MINE"),
        ("audit", *TINY, "--episodes", 1, "--csv", "MINE"),
        ("audit", *TINY, "--episodes", 1, "--json", "MINE"),
        ("audit", *TINY, "--episodes", 1, "--out", "MINE"),
        ("explain", *TINY, "--episodes", 2, "--csv", "MINE"),
        ("scenarios", "digits", "--set", "horizon=1", "--interaction", "--episodes", 2, "--csv", "MINE"),
        ("scenarios", "digits", "--set", "horizon=1", "--interaction", "--episodes", 2, "--json", "MINE"),
        ("explain", *TINY, "--episodes", 2, "--json", "MINE"),
        ("explain", *TINY, "--episodes", 2, "--out", "MINE"),
        ("profiles", "sample", "--pairs", 3, "--out", "MINE"),
        ("profiles", "fit", "choices.csv", "--out", "MINE"),
        ("report", "table", "--out", "MINE"),
        ("ledger", "statement", "books.db", "Ada", "--csv", "MINE"),
        ("ledger", "statement", "books.db", "Ada", "--html", "MINE"),
        ("ledger", "verify", "books.db", "--save-head", "MINE"),
        ("ledger", "export", "books.db", "--bundle", "MINE"),
    ],
    ids=lambda words: f"{' '.join(words[:2])} {words[-2]}",
)
def test_a_file_of_the_user_s_stays_as_it_is(run, place, words):
    (place / "MINE").write_text("mine")
    before = snapshot(place)
    code, out, err = run(*words)
    assert (code, out) == (2, ""), "refused before any work is done"
    assert "output 'MINE' is there already" in err
    assert "--overwrite" in err
    assert snapshot(place) == before


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("report", "table", "--parts", "there"), "breast_cancer.md"),
        (("report", "table", "--parts", "there"), "breast_cancer-shares.svg"),
        (("ledger", "export", "books.db", "--csv", "there"), "credits.csv"),
        (("ledger", "export", "books.db", "--parquet", "there"), "credits.parquet"),
        (("ledger", "export", "books.db", "--bundle", "there/b.json"), "verify_bundle.py"),
        (("train", *TINY, "--steps", 30, "--out", "there"), "scenario.yaml"),
        (("train", *TINY, "--steps", 30, "--out", "there"), "curve.json"),
        (("train", *TINY, "--steps", 30, "--out", "there"), "tb/events.mine"),
        (("compare", *TINY, "-r", "loo", "--seeds", 1, "--out", "there"), "results.csv"),
        (("compare", *TINY, "-r", "loo", "--seeds", 1, "--out", "there"), "cells/notes"),
    ],
    ids=lambda part: part if isinstance(part, str) else " ".join(part[:2]),
)
def test_what_the_user_has_in_a_folder_stays_as_it_is(run, place, words, name):
    path = place / "there" / name
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    before = snapshot(place)
    code, _, err = run(*words)
    assert code == 2
    assert f"there/{name.partition('/')[0]}'" in err or f"'there' holds '{name.partition('/')[0]}'" in err
    assert "--overwrite" in err
    assert snapshot(place) == before


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("train", "-s", "run/scenario.yaml", "--set", "horizon=3", "--out", "run"), "run/scenario.yaml' is a scenario file"),
        (("profiles", "fit", "choices.csv", "-s", "my.yaml", "--out", "my.yaml"), "my.yaml' is a scenario file"),
        (("profiles", "fit", "choices.csv", "-s", "my.yaml", "--out", "base.yaml"), "base.yaml' is a scenario file"),
        (("profiles", "fit", "choices.csv", "--out", "choices.csv"), "choices.csv' is the file of choices"),
        (("profiles", "sample", "-s", "my.yaml", "--out", "./my.yaml"), "my.yaml' is a scenario file"),
        (("evaluate", "run", "--json", "run/policy.pt"), "run/policy.pt' is part of the training"),
        (("audit", "run", "--json", "run/run.json"), "run/run.json' is part of the training"),
        (("explain", "-s", "my.yaml", "--csv", "base.yaml"), "base.yaml' is a scenario file"),
        (("play", "--policy", "run", "--picture", "run/policy.pt"), "run/policy.pt' is part of the training"),
        (("play", "--ledger", "books.db", "--picture", "books.db"), "books.db' is the ledger itself"),
        (("report", "table", "--out", "table/cells/breast_cancer/loo/seed-0/result.json"), "result.json' is a result that is read"),
        (("compare", "-s", "other/cells/my.yaml", "--out", "other"), "cells' holds 'other/cells/base.yaml', which is a scenario file"),
        (("ledger", "verify", "books.db", "--save-head", "books.db"), "books.db' is the ledger itself"),
    ],
    ids=lambda part: part if isinstance(part, str) else " ".join(map(str, part)),
)
def test_not_even_with_overwrite_is_an_input_replaced(run, place, words, what):
    (place / "other" / "cells").mkdir(parents=True)
    for name in ("my.yaml", "base.yaml"):
        shutil.copy(place / name, place / "other" / "cells")
    before = snapshot(place)
    code, _, err = run(*words, "--overwrite")
    assert code == 2
    assert err.count("error:") == 1
    assert what in err
    assert snapshot(place) == before


def test_with_overwrite_it_is_replaced(run, place):
    (place / "MINE").write_text("mine")
    assert run("evaluate", *TINY, "--episodes", 2, "--json", "MINE", "--overwrite")[0] == 0
    assert "welfare" in json.loads((place / "MINE").read_text())["measures"]


def test_the_first_small_case_leaves_logs_and_scenario(run, place):
    """``train --out`` a folder with logs and the very scenario that is read."""
    (place / "proj" / "tb").mkdir(parents=True)
    (place / "proj" / "tb" / "events.mine").write_text("logs")
    (place / "proj" / "scenario.yaml").write_text("extends: breast_cancer\nname: mine\nhorizon: 4 # comment\n")
    before = snapshot(place)
    words = ("train", "-s", "proj/scenario.yaml", "-c", "loo", "--steps", 300, "--out", "proj")
    for more in ((), ("--overwrite",), ("--resume",)):
        code, _, err = run(*words, *more)
        assert code == 2
        assert "proj/scenario.yaml' is a scenario file that is read: choose another" in err
        assert snapshot(place) == before


def test_a_page_in_a_run_s_folder_is_written_again_and_a_changed_one_is_not(run, place):
    words = ("audit", "run", "--episodes", 1)
    for _ in range(2):
        code, out, err = run(*words)
        assert code == 0, err
        assert "wrote run/audit.html" in out
    (place / "run" / "audit.html").write_text("with my notes")
    code, _, err = run(*words)
    assert code == 2
    assert "'run/audit.html' was changed since 'proxycoop audit' wrote it" in err
    assert (place / "run" / "audit.html").read_text() == "with my notes"


def test_an_export_is_written_again_into_the_folder_that_it_made(run, place):
    for _ in range(2):
        code, _, err = run("ledger", "export", "books.db", "--csv", "tables", "--bundle", "tables/audit.json")
        assert code == 0, err
    assert json.loads((place / "tables" / MARKER).read_text())["command"] == "ledger export"
    (place / "tables" / "credits.csv").write_text("mine")
    assert run("ledger", "export", "books.db", "--csv", "tables")[0] == 2


def test_filled_in_choices_are_not_sampled_over(run, place):
    assert run("profiles", "sample", "--pairs", 3, "--out", "new/c.csv")[0] == 0
    path = place / "new" / "c.csv"
    filled = path.read_text().replace("\n,", "\na,")
    path.write_text(filled + "\n")
    code, _, err = run("profiles", "sample", "--pairs", 3, "--out", "new/c.csv")
    assert code == 2
    assert "new/c.csv' was changed since" in err or "new/c.csv' is there already" in err
    assert path.read_text() == filled + "\n"


def test_a_run_of_an_older_version_goes_on_when_told_to(run, place):
    (place / "run" / MARKER).unlink()
    (place / "run" / "policy.pt").unlink()
    words = (
        "train",
        "-s",
        "run/scenario.yaml",
        "-c",
        "shapley",
        "--steps",
        30,
        "--hyper",
        "num_cooperatives=2",
        "--out",
        "run",
        "--resume",
    )
    code, _, err = run(*words)
    assert code == 2
    assert "no proxycoop.json, by which this version knows its own folders" in err
    code, _, err = run(*words, "--overwrite")
    assert code == 0, err
    assert (place / "run" / "policy.pt").exists()


def test_a_comparison_made_by_hand_or_by_an_older_version_is_reported_and_named(run, place):
    assert len(results(place / "table")) > 1
    code, _, err = run("compare", *TINY, "-r", "loo", "--seeds", 1, "--steps", 30, "--episodes", 2, "--out", "table")
    assert code == 2
    assert "'table' holds 'cells' and no proxycoop.json" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("train", *TINY, "--steps", 30, "--out", ""), "--out is ''"),
        (("train", *TINY, "--steps", 30, "--out="), "--out is ''"),
        (("report", ""), "an argument is ''"),
        (("train", *TINY, "--steps", 30, "--out", "~/run"), "write $HOME"),
        (("evaluate", *TINY, "--json", "-"), "output '-'"),
        (("evaluate", *TINY, "--json", "x" * 300), "File name too long"),
        (("evaluate", "x" * 300), "does not exist"),
        (("play", "-s", "/dev/null"), "is a pipe or a device"),
        (("ledger", "init", "-", "-c", "c", "--member", "Ada"), "ledger '-'"),
    ],
    ids=lambda part: part if isinstance(part, str) else " ".join(map(str, (*part[:1], *part[-2:])))[:30],
)
def test_a_name_that_is_none_is_refused_and_nothing_is_written(run, place, words, said):
    before = snapshot(place)
    code, _, err = run(*words)
    assert code == 2
    assert said in err
    assert snapshot(place) == before


def test_a_scenario_that_was_changed_since_the_training_is_played_only_if_it_is_meant(run, place):
    path = place / "run" / "scenario.yaml"
    path.write_text(path.read_text().replace("horizon: 2", "horizon: 1"))
    for words in (("evaluate", "run", "--episodes", 2), ("play", "--policy", "run", "--last")):
        code, _, err = run(*words)
        assert code == 2
        assert "is not the scenario of the training any more (horizon: 1, was 2)" in err
    assert run("evaluate", "run", "--episodes", 2, "-s", "run/scenario.yaml")[0] == 0


def test_a_training_does_not_go_on_beside_a_scenario_that_is_another(run, place):
    path = place / "run" / "scenario.yaml"
    path.write_text(path.read_text().replace("horizon: 2", "horizon: 1"))
    (place / "run" / "policy.pt").unlink()
    words = ("train", *TINY, "--steps", 30, "--hyper", "num_cooperatives=2", "--resume", "--out", "run")
    before = snapshot(place)
    code, _, err = run(*words)
    assert code == 2
    assert "was changed since the training began (horizon: 1, was 2)" in err
    assert {path for path in snapshot(place) if path.name != ".proxycoop.lock"} == set(before)


@pytest.mark.parametrize(
    "change",
    [
        {"cell": 1}, {"measures": {"welfare": 3}}, {"measures": {"welfare": ["a", "b"]}}, {"measures": []}, {"series": None},
        {"series": {"utility": ["a"]}}, {"curve": 5}, {"curve": [1]}, {"splits": [3]}, {"by_split": {"welfare": [1.0]}},
    ],
    ids=str,
)  # fmt: skip
def test_a_damaged_result_is_named(run, place, change):
    path = next((place / "table").glob("cells/*/*/*/result.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    code, _, err = run("report", "table")
    assert code == 2
    assert "result.json' is damaged" in err


@pytest.mark.parametrize("gone", ["seed", "scenario", "credit"])
def test_a_result_that_does_not_say_of_what_is_named(run, place, gone):
    path = next((place / "table").glob("cells/*/*/seed-*/result.json"))
    result = json.loads(path.read_text())
    del result["cell"][gone]
    path.write_text(json.dumps(result))
    code, _, err = run("report", "table")
    assert code == 2
    assert f"result.json' is damaged (its cell has no {gone})" in err


@pytest.mark.parametrize("settings", [{}, {"credit": 5}, {"seats": 7}, {"scenario": []}], ids=str)
def test_a_damaged_record_of_a_training_is_named(run, place, settings):
    path = place / "run" / "run.json"
    record = json.loads(path.read_text())
    record["settings"] = record["settings"] | settings if settings else {}
    path.write_text(json.dumps(record))
    code, _, err = run("evaluate", "run", "--episodes", 2)
    assert code == 2
    assert "run.json' is damaged" in err


def test_a_fitted_scenario_finds_what_it_extends_through_a_linked_folder(run, place):
    (place / "real" / "deep").mkdir(parents=True)
    (place / "link").symlink_to("real/deep")
    assert run("profiles", "fit", "choices.csv", "-s", "my.yaml", "--out", "link/fitted.yaml")[0] == 0
    assert scenario.load(place / "link" / "fitted.yaml").name == "my-fitted"


def test_columns_between_semicolons_are_called_that(run, place):
    path = place / "choices.csv"
    path.write_text(path.read_text().replace(",", ";"))
    assert "separated by ';'" in run("profiles", "fit", "choices.csv")[2]
    (place / "credits.csv").write_text("round;member;credit\n1;Ada;0,5\n")
    assert "separated by ';'" in run("ledger", "record", "books.db", "--file", "credits.csv")[2]


def test_a_file_of_heads_may_begin_with_a_byte_order_mark(run, place):
    assert run("ledger", "verify", "books.db", "--save-head", "head.json")[0] == 0
    (place / "head.json").write_bytes(b"\xef\xbb\xbf" + (place / "head.json").read_bytes())
    assert run("ledger", "verify", "books.db", "--head", "head.json")[0] == 0
