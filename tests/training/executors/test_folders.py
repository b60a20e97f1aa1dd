"""Folders travel whole, and are written in the order in which they were made."""

from __future__ import annotations

import json
import os
from pathlib import Path

from proxycoop.training.executors.folders import moved, packed, unpack


def test_a_folder_that_travels_arrives_with_all_but_locks_and_halves(tmp_path):
    (tmp_path / "a/tb").mkdir(parents=True)
    for number, (name, content) in enumerate(
        [("result.json", b"{}"), ("tb/events", b"\x00\xff"), (".proxycoop.lock", b""), (f".p.{'0' * 12}", b"")]
    ):
        (tmp_path / "a" / name).write_bytes(content)
        os.utime(tmp_path / "a" / name, (1000 - number, 1000 - number))
    files = packed(tmp_path / "a")
    assert list(files.items()) == [("tb/events", b"\x00\xff"), ("result.json", b"{}")], "the oldest first"
    unpack(files, tmp_path / "b")
    assert packed(tmp_path / "b") == files
    assert packed(tmp_path / "nowhere") == {}


def test_what_is_the_same_is_left_alone_and_what_is_gone_is_removed(tmp_path):
    before = {"checkpoint.pt": b"old", "run.json": b"1", "same": b"s"}
    unpack(before, tmp_path)
    (tmp_path / "mine").write_bytes(b"not of the task")
    os.utime(tmp_path / "same", (5, 5))
    unpack({"run.json": b"2", "same": b"s"}, tmp_path, before)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"run.json": b"2", "same": b"s", "mine": b"not of the task"}
    assert (tmp_path / "same").stat().st_mtime == 5


def test_records_name_folders_where_they_are():
    old, new = Path("out/a"), Path("/tmp/x/0/a")
    seats = {"seats": ["1=learned(path='out/a')", "2=learned(path='out/ab')"], "text": "out/a stays"}
    files = {"run.json": json.dumps(seats).encode(), "policy.pt": b"'out/a'"}
    there = moved(files, [(old, new)])
    assert json.loads(there["run.json"])["seats"] == ["1=learned(path='/tmp/x/0/a')", "2=learned(path='out/ab')"]
    assert there["policy.pt"] == files["policy.pt"]
    assert moved(there, [(new, old)]) == files
