import errno
import json
import os
import stat
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxycoop.files import output_folder, read_json, remove_temporaries, write_atomically, write_json, write_text

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("files")


# writing


@pytest.mark.parametrize("error", [RuntimeError("disk on fire"), KeyboardInterrupt("user left")])
@pytest.mark.parametrize("old", ["the old one", None])
def test_a_failing_writer_leaves_the_old_file_and_no_temporary(tmp_path, error, old):
    path = tmp_path / "result.json"
    if old is not None:
        path.write_text(old)

    def fails(file):
        file.write(b"half of")
        file.flush()
        raise error

    with pytest.raises(type(error), match=str(error)):
        write_atomically(path, fails)
    assert {entry.name: entry.read_text() for entry in tmp_path.iterdir()} == ({} if old is None else {"result.json": old})


@pytest.mark.parametrize("step", ["fsync", "chmod", "replace"])
def test_a_failure_after_the_writer_leaves_the_old_file_and_no_temporary(tmp_path, monkeypatch, step):
    path = tmp_path / "result.json"
    path.write_text("the old one")

    def refuse(*args, **kwargs):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, step, refuse)
    with pytest.raises(OSError, match="no space left"):
        write_text(path, "the new one")
    assert [entry.name for entry in tmp_path.iterdir()] == ["result.json"]
    assert path.read_text() == "the old one"


def test_a_reader_sees_the_old_file_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "result.json"
    path.write_text("the old one")

    def write(file):
        file.write(b"the new")
        file.flush()
        assert path.read_text() == "the old one"
        file.write(b" one")

    assert write_atomically(path, write) == path
    assert path.read_text() == "the new one"
    assert [entry.name for entry in tmp_path.iterdir()] == ["result.json"]


def test_everybody_may_read_what_was_written(tmp_path):
    assert stat.S_IMODE(write_text(tmp_path / "a.txt", "a").stat().st_mode) == 0o644


def test_a_path_may_be_text_and_comes_back_as_a_path(tmp_path):
    assert write_text(str(tmp_path / "a.txt"), "a") == tmp_path / "a.txt"


def test_a_file_in_a_missing_folder_is_refused_and_the_folder_not_made(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_text(tmp_path / "missing" / "a.txt", "a")
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=40)
@given(text=st.text())
def test_text_is_written_as_utf_8_byte_for_byte(folder, text):
    assert write_text(folder / "text", text).read_bytes() == text.encode()


@settings(max_examples=40)
@given(data=st.dictionaries(st.text(), JSON, max_size=4))
def test_json_comes_back_as_it_went_floats_in_full_and_keys_in_order(folder, data):
    back = read_json(write_json(folder / "data.json", data))
    assert back == data
    assert list(back) == list(data)


def test_numbers_that_are_not_finite_are_null_in_json(tmp_path):
    infinite = float("inf")
    path = write_json(tmp_path / "data.json", {"mean": [1.0, -infinite], "series": ({"x": float("nan")}, infinite), "n": 3})

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    assert json.loads(path.read_text(), parse_constant=refuse) == {"mean": [1.0, None], "series": [{"x": None}, None], "n": 3}


@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes"])
def test_what_json_cannot_hold_is_refused_before_the_old_file_is_touched(tmp_path, value):
    path = write_json(tmp_path / "data.json", {"x": 1})
    with pytest.raises((ValueError, TypeError)):
        write_json(path, {"x": value})
    assert [entry.name for entry in tmp_path.iterdir()] == ["data.json"]
    assert read_json(path) == {"x": 1}


# reading


def test_json_cut_off_anywhere_is_called_damaged(tmp_path):
    path = tmp_path / "data.json"
    whole = json.dumps({"rule": "shäpley", "seeds": [0, 1], "gain": -1.5e-3, "done": True}, ensure_ascii=False).encode()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"data\.json' is damaged or half-written .*delete it and run the command again"):
            read_json(path)
    path.write_bytes(whole)
    assert read_json(path)["rule"] == "shäpley"


def test_bytes_that_are_no_text_are_called_damaged(tmp_path):
    path = tmp_path / "data.json"
    path.write_bytes(b"\x80\x04\x95")
    with pytest.raises(ValueError, match=r"data\.json' is damaged"):
        read_json(path)


def test_missing_json_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"absent\.json' does not exist"):
        read_json(tmp_path / "absent.json")


@pytest.mark.parametrize(("text", "kind"), [("[1, 2]", "list"), ('"a"', "str"), ("3", "int"), ("null", "NoneType"), ("true", "bool")])
def test_json_that_is_no_object_is_refused_with_what_it_is(tmp_path, text, kind):
    path = tmp_path / "data.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"data\.json' holds a {kind}, must be a JSON object"):
        read_json(path)


def test_a_folder_in_the_place_of_json_is_a_value_error_that_names_it(tmp_path):
    with pytest.raises(ValueError, match=tmp_path.name):
        read_json(tmp_path)


# folders


def test_output_folder_is_made_with_its_parents_and_left_empty(tmp_path):
    folder = output_folder(str(tmp_path / "runs" / "first"))
    assert folder == tmp_path / "runs" / "first"
    assert list(folder.iterdir()) == []


def test_an_output_folder_that_exists_keeps_what_is_in_it(tmp_path):
    (tmp_path / "kept.txt").write_text("kept")
    assert output_folder(tmp_path) == tmp_path
    assert [entry.name for entry in tmp_path.iterdir()] == ["kept.txt"]


@pytest.mark.parametrize(
    ("below", "said"),
    [
        ("", "'.*taken' is a file, and must be a folder"),
        ("runs", r"output folder '.*taken.*' cannot be written: \w+"),
        ("runs/first", r"output folder '.*taken.*' cannot be written: \w+"),
    ],
)
def test_an_output_folder_on_or_below_a_file_is_refused_and_the_file_kept(tmp_path, below, said):
    file = tmp_path / "taken"
    file.write_text("mine")
    with pytest.raises(ValueError, match=said):
        output_folder(file / below)
    assert file.read_text() == "mine"


def test_an_output_folder_that_may_not_be_written_is_refused(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(ValueError, match="cannot be written: Permission denied"):
        output_folder(tmp_path)


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_a_new_file_has_the_permissions_that_the_process_gives(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        assert stat.S_IMODE(write_text(tmp_path / "a.txt", "a").stat().st_mode) == mode
    finally:
        os.umask(before)


def test_a_file_that_is_replaced_keeps_its_permissions(tmp_path):
    path = tmp_path / "private.json"
    path.write_text("old")
    path.chmod(0o600)
    assert stat.S_IMODE(write_text(path, "new").stat().st_mode) == 0o600


def test_a_name_as_long_as_the_file_system_takes_can_be_written(tmp_path):
    assert write_text(tmp_path / ("x" * 255), "a").read_text() == "a"


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    def full(file):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match=r"No space left on device: '.*result\.json'"):
        write_atomically(tmp_path / "result.json", full)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_writer_left_is_removed_and_nothing_else(tmp_path):
    for name in (".policy.pt.0123456789ab", ".policy.pt.mine", "policy.pt", ".other.pt.0123456789ab"):
        (tmp_path / name).touch()
    remove_temporaries(tmp_path, ["policy.pt"])
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.pt.0123456789ab", ".policy.pt.mine", "policy.pt"]


@pytest.mark.parametrize("text", ['{"a":' + "[" * 100_000, '{"a":' + "1" * 6000 + "}"], ids=["deep", "long number"])
def test_json_that_python_cannot_hold_is_called_damaged(tmp_path, text):
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(ValueError, match=r"result\.json' is damaged or half-written"):
        read_json(tmp_path / "result.json")


@pytest.mark.parametrize(
    ("name", "said"), [("", "the name is empty"), ("-", "standard input and output"), ("~/run", "write \\$HOME"), ("~", "write \\$HOME")]
)
def test_a_name_that_shells_mean_otherwise_is_refused_and_nothing_made(tmp_path, monkeypatch, name, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=said):
        output_folder(name)
    assert list(tmp_path.iterdir()) == []
    assert output_folder("~mine") == Path("~mine"), "a name that begins so is fine"
