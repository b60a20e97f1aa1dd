"""A file that changed since a scenario was made is noticed, wherever the scenario goes."""

from __future__ import annotations

import hashlib
import os
import pickle

import pytest

from proxycoop.envs import Engine, scenario
from proxycoop.envs.data import Data, load
from proxycoop.envs.data.tables import TableFile, digest_of

ROWS = [f"{i % 7},{i % 5},{'yes' if i % 3 else 'no'}" for i in range(300)]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "own.csv"
    path.write_text("\n".join(["a,b,label", *ROWS]) + "\n")
    return path


@pytest.fixture
def file(path, tmp_path):
    """A scenario's file, beside the data."""
    file = tmp_path / "own.yaml"
    sizes = "public_rows: 20, validation: {rows: 40}, test: {rows: 40}"
    file.write_text(f"data: {{source: csv, file: {{path: own.csv, label: label}}, {sizes}}}\nreward: {{scale: 1}}\n")
    return file


def change(path) -> None:
    """Another entry in the first row; the size and the time stay as they were."""
    before = path.stat()
    path.write_text(path.read_text().replace("0,0,no", "9,0,no", 1))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000))


def test_the_digest_is_taken_when_a_scenario_is_made(path, file, monkeypatch):
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert scenario.load(file).data.file.sha256 == digest
    monkeypatch.chdir(path.parent)
    made = Data.model_validate({"source": "csv", "file": {"path": "own.csv", "label": "label"}})
    assert (made.file.sha256, made.file.path) == (digest, str(path))
    assert pickle.loads(pickle.dumps(made)) == made
    assert f"sha256: {digest}" in scenario.load(file).to_yaml()


def test_a_path_is_relative_to_the_file_that_has_it(path, file, tmp_path, monkeypatch):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "more.yaml").write_text("extends: ../own.yaml\nhorizon: 3\n")
    assert scenario.load(tmp_path / "inner" / "more.yaml").data.file.path == str(path)
    monkeypatch.chdir(tmp_path / "inner")
    (tmp_path / "inner" / "other.csv").write_bytes(path.read_bytes())
    assert scenario.load(file, **{"data.file.path": "other.csv"}).data.file.path == str(tmp_path / "inner" / "other.csv")
    assert scenario.load("../own.yaml").data.file.path == str(path)
    assert path in scenario.files_of(tmp_path / "inner" / "more.yaml")  # so that no command writes over it


def test_a_changed_file_is_refused_with_what_to_do(path, file, tmp_path):
    recorded = scenario.load(file)
    (tmp_path / "recorded.yaml").write_text(recorded.to_yaml())
    change(path)
    before = scenario.load(tmp_path / "recorded.yaml")
    assert before == recorded  # a record can be read without its data
    with pytest.raises(ValueError, match=r"own\.csv' has changed since it was recorded.*set data\.file\.sha256=null"):
        Engine(before, "equal")
    anew = scenario.load(tmp_path / "recorded.yaml", **{"data.file.sha256": None})
    assert anew.data.file.sha256 not in (None, recorded.data.file.sha256)
    Engine(anew, "equal").reset([0])
    assert scenario.load(file) == anew


def test_a_change_that_keeps_the_size_and_the_time_of_modification_is_noticed(path, file):
    recorded = scenario.load(file)
    before = path.stat()
    path.write_text(path.read_text().replace("0,0,no", "9,0,no", 1))
    while path.stat().st_ctime_ns == before.st_ctime_ns:  # until the clock of the file system has ticked
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    with pytest.raises(ValueError, match="has changed since it was recorded"):
        Engine(recorded, "equal")


def test_a_file_that_is_gone_is_told_when_it_is_needed(path, file, tmp_path):
    recorded = scenario.load(file).to_dict()
    path.unlink()
    again = scenario.Scenario.model_validate(recorded)
    with pytest.raises(ValueError, match=r"own\.csv' does not exist"):
        Engine(again, "equal")
    with pytest.raises(ValueError, match=r"own\.yaml:1: data\.file\.path: .*own\.csv' does not exist"):
        scenario.load(file)


def test_a_file_is_read_and_hashed_once(path, file, monkeypatch):
    made = scenario.load(file).data
    first = load("csv", made.file)
    assert load("csv", made.file) is first
    monkeypatch.setattr("proxycoop.envs.data.tables.digests.open", None, raising=False)  # whoever opens it now fails
    assert digest_of("csv", made.file) == made.file.sha256
    assert load("csv", TableFile(path=str(path), label="label")) is first


def test_a_table_of_other_settings_is_another(path):
    whole = load("csv", TableFile(path=str(path), label="label"))
    part = load("csv", TableFile(path=str(path), label="label", drop=["b"]))
    assert len(whole.feature_names) == 2
    assert part.feature_names == ("a",)


def test_what_differs_is_said_in_words(path, file):
    before = scenario.load(file).to_dict()
    change(path)
    assert scenario.differences(scenario.load(file).to_dict(), before) == ["the data file has changed"]
