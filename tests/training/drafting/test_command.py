"""``proxycoop scenarios new``: what it prints and writes, and what it refuses."""

from __future__ import annotations

import pytest

from proxycoop.envs import scenario


def test_the_draft_is_written_beside_the_table_and_every_guess_is_told(table, write, run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    path = write(table)
    code, out, err = run("scenarios", "new", path, "--label", "default", "--principals", 3)
    assert code == 0, err
    file = path.with_suffix(".yaml")
    assert f"wrote {file}; next: proxycoop play -s {file} --last" in out
    assert f"proxycoop compare -s {file} -r equal -r loo --seeds 2 --steps 30000 --out out/loans" in out  # as on the page
    loaded = scenario.load(file)
    assert (loaded.name, loaded.principals) == ("loans", 3)
    for told in (
        "identifier",
        "another word in every row",
        "AUC 1.000 on held-out rows",
        "--keep fees",
        "always 'EUR'",
        "its entries are dates",
    ):
        assert told in out
    assert "not seen by the model; groups" in out
    assert "contribution_cost" in out
    written = file.read_bytes()
    code, _, err = run("scenarios", "new", path, "--label", "default")
    assert (code, file.read_bytes()) == (2, written)
    assert "is there already: choose another name, or replace it with --overwrite" in err
    assert err.count("\n") == 1
    assert run("play", "-s", file, "--last")[0] == 0


def test_another_file_may_be_named_and_the_table_is_never_replaced(table, write, run, tmp_path):
    path = write(table)
    before = path.read_bytes()
    out = tmp_path / "folder" / "mine.yaml"
    code, _, err = run("scenarios", "new", path, "-l", "default", "-n", 3, "-a", "work", "--out", out, "--drop", "branch,sex")
    assert code == 0, err
    assert scenario.load(out).data.file.path == str(path)
    code, _, err = run("scenarios", "new", path, "-l", "default", "--out", path, "--overwrite")
    assert code == 2
    assert "the table that is read" in err
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("loans.csv", "--label", "defualt"), "--label: unknown column 'defualt' (did you mean 'default'?)"),
        (("loans.csv", "--label", "default", "--keep", "fee"), "--keep: unknown column 'fee' (did you mean 'fees'?)"),
        (("loans.csv", "--label", "default", "-n", "1"), "--principals=1"),
        (("none.csv", "--label", "default"), "none.csv' does not exist"),
        (("loans.csv",), "error: Missing option '--label' / '-l'; see 'proxycoop scenarios new --help'"),
        (("loans.csv", "--lable", "default"), "error: No such option: --lable"),
        (("loans.json", "--label", "default"), "a scenario is drafted on a file whose name ends in"),
    ],
)
def test_wrong_words_are_refused_in_one_line(words, message, table, write, run, monkeypatch, tmp_path):
    write(table)
    monkeypatch.chdir(tmp_path)
    code, out, err = run("scenarios", "new", *words)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["loans.csv"]


@pytest.mark.parametrize(("number", "are"), [("inf", "not finite"), ("1e300", "beyond ±3.4e+38")])
def test_a_number_that_cannot_be_used_is_refused_in_one_line_with_its_column(number, are, table, write, run):
    table["debt"] = [number, *range(2, 2 * len(table["default"]), 2)]
    code, _, err = run("scenarios", "new", write(table), "--label", "default")
    assert code == 2
    assert f"column 'debt' holds {float(number)} in row 1; 1 entries in all are {are}" in err
    assert err.count("\n") == 1
