"""Folders that travel: their files as bytes, between machines that share no disk."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from ...files import output_folder, write_bytes
from ..outputs import LOCK

Files = dict[str, bytes]
"""What files hold, by their paths within a folder, with slashes; the one that was written last comes last."""
_TEMPORARY = re.compile(r"\..*\.[0-9a-f]{12}")


def packed(folder: Path) -> Files:
    """The files of a folder, those of its folders too, but for locks and what was only half written. None if there is no folder."""
    if not folder.is_dir():
        return {}
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != LOCK and not _TEMPORARY.fullmatch(path.name)]
    paths.sort(key=lambda path: (path.stat().st_mtime_ns, path))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def unpack(files: Mapping[str, bytes], folder: Path, before: Mapping[str, bytes] | None = None) -> None:
    """Write files into a folder, each at once or not at all, in their order: so the one that says "finished" appears after the others.

    Args:
        files: What is written.
        folder: Where. It is made if it is missing.
        before: What was there before. Files that are the same are left alone, and those that are gone are removed.
    """
    before = before or {}
    output_folder(folder)
    for name, content in files.items():
        if before.get(name) != content:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(path, content)
    for name in before.keys() - files.keys():
        (folder / name).unlink(missing_ok=True)


def moved(files: Mapping[str, bytes], places: Iterable[tuple[Path, Path]]) -> Files:
    """The files, with folders' new paths for their old ones where those stand in quotes in JSON: the record of a training names policies
    that play in its seats, as ``learned(path='out/run')``.
    """
    words = [tuple(json.dumps(repr(str(path)))[1:-1].encode() for path in pair) for pair in places]
    changed = dict(files)
    for name in changed:
        if name.endswith(".json"):
            for old, new in words:
                changed[name] = changed[name].replace(old, new)
    return changed
