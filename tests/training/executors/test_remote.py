"""What a machine of a cluster does with a task, without a cluster."""

from __future__ import annotations

import pickle
import platform
from pathlib import Path

import pytest

from proxycoop.training.executors import remote, workers
from proxycoop.training.executors.remote import do, versions, work_of


class OddError(Exception):
    """It cannot be read back: its constructor wants more than its words."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def double(folder: Path, factor: int) -> str:
    """Write what stands in a file, so many times."""
    workers.tell(3)
    workers.tell(4)
    text = (folder / "in").read_text() * factor
    (folder / "out").write_text(text)
    (folder / "in").unlink()
    return str(folder)


def fail(folder: Path, odd: bool) -> None:
    """Raise, after something was written."""
    folder.mkdir(exist_ok=True)
    (folder / "checkpoint.pt").write_bytes(b"so far")
    raise OddError(1, 2) if odd else ValueError("it diverged")


@pytest.fixture(autouse=True)
def _untold(monkeypatch):
    monkeypatch.setattr(workers, "_progress", None)


def test_a_task_works_on_a_copy_of_its_folder_and_tells_all_that_it_did(tmp_path):
    (tmp_path / "in").write_text("ab")
    told = []
    outcome = do(work_of(double, [tmp_path, 3]), versions(), [], told.append)
    assert not outcome.failed
    assert Path(pickle.loads(outcome.answer)) != tmp_path
    assert not Path(pickle.loads(outcome.answer)).exists(), "nothing is left there"
    assert outcome.folders == ({"out": b"ababab"},)
    assert (tmp_path / "in").exists(), "the folder at home is left alone"
    assert told == [3, 7]
    assert outcome.told == 7


@pytest.mark.parametrize(("odd", "kind", "words"), [(False, ValueError, "it diverged"), (True, RuntimeError, "OddError: 1 and 2")])
def test_what_a_task_raises_comes_back_with_what_it_wrote(tmp_path, odd, kind, words):
    outcome = do(work_of(fail, [tmp_path / "new", odd]), versions(), [], lambda told: None)
    assert outcome.failed
    error = pickle.loads(outcome.answer)
    assert type(error) is kind
    assert str(error) == words
    assert outcome.folders == ({"checkpoint.pt": b"so far"},)


@pytest.mark.parametrize("name", ["Python", "torch", "numpy", "proxycoop"])
def test_other_versions_are_named_with_the_machine(name):
    outcome = do(work_of(int, []), versions() | {name: "0.0"}, [], lambda told: None)
    with pytest.raises(ValueError, match=rf"machine '{platform.node()}' of the cluster has {name} .* instead of 0\.0: install the same"):
        raise pickle.loads(outcome.answer)


def test_versions_tell_apart_other_files_of_the_same_version(tmp_path, monkeypatch):
    (tmp_path / "one.py").write_text("x = 1\n")
    monkeypatch.setattr(remote.importlib, "import_module", lambda name: type("Package", (), {"__path__": [str(tmp_path)]}))
    before = remote._digest_of_files()
    (tmp_path / "one.py").write_text("x = 2\n")
    assert remote._digest_of_files() != before


def test_a_module_that_is_missing_there_is_named_with_a_remedy():
    outcome = do(work_of(int, []), versions(), ["no_such_module_of_mine"], lambda told: None)
    with pytest.raises(ValueError, match=r"module 'no_such_module_of_mine' cannot be imported on machine .* with --import"):
        raise pickle.loads(outcome.answer)
