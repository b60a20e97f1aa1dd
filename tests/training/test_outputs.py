"""What may be written: never what is the user's, and never by two processes at once."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from threading import Thread

import pytest

from proxycoop import __version__
from proxycoop.files import write_text
from proxycoop.training.outputs import LOCK, MARKER, Outputs, locked


def wrote(folder, name, text, command="audit"):
    """A file that a command wrote into a folder of ours."""
    with Outputs(command) as outputs:
        outputs.folder(folder, [name])
        outputs.prepare()
        write_text(folder / name, text)


# what is there already


def test_a_file_that_is_there_is_replaced_only_with_overwrite(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("mine")
    outputs = Outputs("audit")
    outputs.file(path)
    with pytest.raises(ValueError, match=r"output '.*mine\.csv' is there already: .*--overwrite"):
        outputs.prepare()
    outputs = Outputs("audit", overwrite=True)
    outputs.file(path)
    outputs.prepare()
    assert path.read_text() == "mine", "nothing is written yet"
    assert list(tmp_path.iterdir()) == [path], "a folder of the user's gets no marker"


def test_a_new_folder_is_marked_with_the_command_and_the_version(tmp_path):
    wrote(tmp_path / "new" / "pages", "a.html", "one")
    marker = json.loads((tmp_path / "new" / "pages" / MARKER).read_text())
    assert (marker["command"], marker["version"]) == ("audit", __version__)
    assert marker["entries"]["a.html"]["command"] == "audit"
    assert not (tmp_path / "new" / MARKER).exists()


def test_in_a_folder_of_ours_a_command_replaces_its_own_work_but_not_another_s(tmp_path):
    for text in ("one", "two"):
        wrote(tmp_path / "ours", "a.html", text)
    assert (tmp_path / "ours" / "a.html").read_text() == "two"
    with pytest.raises(ValueError, match="'proxycoop explain' did not write it"):
        wrote(tmp_path / "ours", "a.html", "three", command="explain")
    (tmp_path / "ours" / "b.html").write_text("mine")
    with pytest.raises(ValueError, match=r"b\.html' is there already"):
        wrote(tmp_path / "ours", "b.html", "theirs")


def test_work_that_the_user_changed_since_is_the_user_s(tmp_path):
    wrote(tmp_path / "ours", "choices.csv", "choice\n")
    (tmp_path / "ours" / "choices.csv").write_text("choice\na\n")
    with pytest.raises(ValueError, match=r"choices\.csv' was changed since 'proxycoop audit' wrote it: .*--overwrite"):
        wrote(tmp_path / "ours", "choices.csv", "choice\n")
    assert (tmp_path / "ours" / "choices.csv").read_text() == "choice\na\n"


def test_the_same_content_may_be_written_again(tmp_path):
    (tmp_path / "verify.py").write_text("same")
    outputs = Outputs("export")
    outputs.file(tmp_path / "verify.py", b"same")
    outputs.prepare()
    other = Outputs("export")
    other.file(tmp_path / "verify.py", b"other")
    with pytest.raises(ValueError, match="is there already"):
        other.prepare()


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_input_is_never_an_output_by_whatever_path(tmp_path, overwrite):
    source = tmp_path / "mine.yaml"
    source.write_text("extends: digits\n")
    (tmp_path / "link.yaml").symlink_to(source)
    (tmp_path / "hard.yaml").hardlink_to(source)
    (tmp_path / "sub").mkdir()
    for path in (source, tmp_path / "link.yaml", tmp_path / "hard.yaml", tmp_path / "sub" / ".." / "mine.yaml"):
        with pytest.raises(ValueError, match="is a scenario file that is read: choose another"):
            Outputs("audit", overwrite=overwrite, inputs={source: "a scenario file that is read"}).file(path)


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_file_is_not_replaced(tmp_path, overwrite):
    with pytest.raises(ValueError, match="is a folder: name a file in it"):
        Outputs("audit", overwrite=overwrite).file(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(os.devnull)
    for name in ("pipe", "link"):
        outputs = Outputs("audit", overwrite=overwrite)
        outputs.file(tmp_path / name)
        with pytest.raises(ValueError, match="neither a file nor a folder"):
            outputs.prepare()


@pytest.mark.parametrize("name", [MARKER, LOCK])
def test_our_own_marks_are_no_outputs(tmp_path, name):
    with pytest.raises(ValueError, match="files of this name are proxycoop's own"):
        Outputs("audit", overwrite=True).file(tmp_path / name)


def test_two_outputs_of_one_name_are_refused_and_nothing_is_made(tmp_path):
    outputs = Outputs("audit")
    outputs.file(tmp_path / "new" / "x")
    with pytest.raises(ValueError, match=r"new/x' is named twice"):
        outputs.folder(tmp_path / "new", ["y", "x"])
    assert list(tmp_path.iterdir()) == []


# folders with one owner


def own(folder, command="train", overwrite=False, inputs=None, **entries):
    return Outputs(command, overwrite=overwrite, inputs=inputs).own_folder(
        folder, entries or {"tb": None, "run.json": None}, known="run.json"
    )


def test_a_folder_with_other_things_is_taken_if_no_name_is_taken_and_then_belongs_to_the_command(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    own(tmp_path)
    (tmp_path / "tb").mkdir()
    own(tmp_path)  # its own work
    with pytest.raises(ValueError, match="is a folder of 'proxycoop train': choose another --out"):
        own(tmp_path, command="compare", overwrite=True)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_folder_entry_of_the_user_s_is_named(tmp_path):
    (tmp_path / "tb").mkdir()
    with pytest.raises(ValueError, match=r"tb' is there already: choose"):
        own(tmp_path)
    own(tmp_path, overwrite=True)


def test_a_folder_of_an_older_version_says_what_to_do(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(ValueError, match=r"holds 'run\.json' and no proxycoop\.json.*older version.*--overwrite"):
        own(tmp_path)
    own(tmp_path, overwrite=True)


def test_an_input_within_a_folder_that_would_be_replaced_is_refused(tmp_path):
    (tmp_path / "tb").mkdir()
    (tmp_path / "tb" / "mine.yaml").write_text("extends: digits\n")
    with pytest.raises(ValueError, match=r"tb' holds '.*mine\.yaml', which is read: choose another folder"):
        own(tmp_path, overwrite=True, inputs={tmp_path / "tb" / "mine.yaml": "read"})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is damaged or half-written"),
        ('{"name": "mine"}', "is no marker of proxycoop"),
        ('{"format": 99, "command": "train", "entries": {}}', "has format 99, this version reads 1"),
    ],
)
def test_a_marker_that_is_not_ours_or_damaged_is_named(tmp_path, text, said):
    (tmp_path / MARKER).write_text(text)
    with pytest.raises(ValueError, match=rf"{MARKER}' {said}"):
        own(tmp_path, overwrite=True)


# one at a time


def test_a_folder_in_use_is_refused_with_the_process_that_uses_it_and_free_afterwards(tmp_path):
    in_use = rf"is in use by 'proxycoop compare' \(process {os.getpid()} on .*\): wait"
    with locked(tmp_path, "compare"), pytest.raises(ValueError, match=in_use), locked(tmp_path, "compare"):
        pass
    assert list(tmp_path.iterdir()) == []
    with locked(tmp_path, "compare"):
        pass


def test_the_lock_of_a_process_that_died_is_free(tmp_path):
    (tmp_path / LOCK).write_text("'proxycoop compare' (process 1 on elsewhere)")
    with locked(tmp_path, "compare"):
        assert str(os.getpid()) in (tmp_path / LOCK).read_text()


@pytest.mark.skipif(sys.platform == "win32", reason="flock is POSIX")
def test_without_locks_on_the_file_system_there_is_a_warning(tmp_path, monkeypatch):
    import fcntl

    def missing(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", missing)
    with pytest.warns(UserWarning, match="file system without locks .*do not run two commands in it at once"), locked(tmp_path, "compare"):
        pass


def test_a_lock_that_is_a_link_does_not_write_over_its_target(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / LOCK).symlink_to("../mine.txt")
    with pytest.raises(ValueError, match="is a link"), locked(tmp_path / "run", "train"):
        pass
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_commands_that_end_at_once_all_note_what_they_wrote(tmp_path):
    wrote(tmp_path / "ours", "first.html", "one")

    def work(i):
        for j in range(5):
            wrote(tmp_path / "ours", f"{i}-{j}.html", "text", command=f"command {i}")

    threads = [Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(json.loads((tmp_path / "ours" / MARKER).read_text())["entries"]) == 41


@pytest.mark.parametrize(("name", "said"), [("x" * 300, "File name too long"), ("-", "standard input and output"), ("~/a", "HOME")])
def test_a_name_that_cannot_be_written_is_refused_before_the_work(name, said):
    with pytest.raises(ValueError, match=f"output '.*{said}"):
        Outputs("audit").file(Path(name))
