"""What commands may write: an output never replaces what is the user's.

The rule is the same for every command, and it is checked before any work is done:

* An output never replaces an input, by whatever path or link.
* A file that is there already is replaced only with ``overwrite``, or if it is known to be this command's own work: it stands in a folder
  that carries our marker, the marker says that the same command wrote it, and it has not changed since.
* The folder of a training or of a comparison has one owner. Another command does not take it over.

The marker is the file ``proxycoop.json``. It names the command that made the folder, the version of the package, and who wrote which entry.
"""

from __future__ import annotations

import hashlib
import os
import socket
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from .. import __version__
from ..files import output_folder, read_json, require_name, write_json

MARKER = "proxycoop.json"
"""Name of the file that marks a folder as ours."""

LOCK = ".proxycoop.lock"
"""Name of the file that is locked while a command works in a folder."""

FORMAT = 1


class Outputs:
    """The files and folders that a command will write. Before the work begins, claim each of them, and then :meth:`prepare` them.

    Use it as a context around the writing. At its end, files that were written into marked folders are noted there, so that the command may
    replace them the next time.

    Args:
        command: The command's name, as in ``proxycoop NAME``.
        overwrite: Whether to replace what is there already, whoever wrote it. Inputs are never replaced.
        inputs: Files that the command reads, each with what it is, in words.
    """

    def __init__(self, command: str, *, overwrite: bool = False, inputs: Mapping[Path, str] | None = None) -> None:
        self.command = command
        self.overwrite = overwrite
        self._inputs = dict(inputs or {})
        self._claimed: list[Path] = []
        self._files: dict[Path, bytes | None] = {}
        self._new: list[Path] = []
        self._before: dict[Path, tuple[int, int] | None] = {}

    def __enter__(self) -> Outputs:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        for path, before in self._before.items():
            if _state(path) not in (None, before):
                self.wrote(path)

    def wrote(self, path: Path) -> None:
        """Note in the folder's marker, if it has one, that this command wrote a file. From then on, changes by others are noticed."""
        with _alone(path.parent):  # another command may note something at the same time
            if (marker := _read_marker(path.parent)) is not None:
                marker["entries"][path.name] = {"command": self.command, "sha256": _sha256(path.read_bytes())}
                write_json(path.parent / MARKER, marker)

    def file(self, path: Path | None, content: bytes | None = None) -> None:
        """Claim a file. ``None`` stands for a file that is not wanted.

        Args:
            path: The file.
            content: What will be written, if it is known. A file that holds exactly this may be written again.

        Raises:
            ValueError: If the path is a folder, an input, another output or no name of a file (see :func:`~proxycoop.files.require_name`).
        """
        if path is None:
            return
        require_name(path, "output")
        try:
            path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:  # such as a name that is too long
            raise ValueError(f"output {str(path)!r} cannot be written: {error.strerror or error}") from error
        if path.is_dir():
            raise ValueError(f"{str(path)!r} is a folder: name a file in it")
        self._keep_apart(path)
        self._files[path] = content

    def folder(self, path: Path, files: Sequence[str]) -> None:
        """Claim files in a folder. If the folder is missing or empty, it will be marked as ours.

        Args:
            path: The folder.
            files: Names of the files that will be written.

        Raises:
            ValueError: As :meth:`file` does, for any of them.
        """
        for name in files:
            self.file(path / name)
        if not path.exists() or (path.is_dir() and not any(path.iterdir())):
            self._new.append(path)

    def prepare(self) -> Outputs:
        """Check that all claimed files may be written, and then make their folders. Call it before the work begins.

        Raises:
            ValueError: If a file is there already and is not this command's own work, or is no file; or if a folder cannot be written.
        """
        for path, content in self._files.items():
            if os.path.lexists(path):
                self._require_own(path, content)
        for folder in dict.fromkeys([*(path.parent for path in self._files), *self._new]):
            output_folder(folder)
        for folder in self._new:
            write_json(folder / MARKER, self._marker({}))
        self._before = {path: _state(path) for path in self._files}
        return self

    def own_folder(self, path: str | Path, entries: Mapping[str, bytes | None], *, known: str) -> Path:
        """Claim a folder in which this command, and no other, does its work: a training or a comparison. It is marked as ours.

        Args:
            path: The folder. It may hold other things, as long as they have other names.
            entries: Names of the files and folders that the command writes, each with its content where that is known. Those that are its
                own work may be replaced.
            known: The entry by which folders of versions before the marker can be told.

        Returns:
            The folder.

        Raises:
            ValueError: If the folder cannot be written, or is that of another command; or if an entry is an input, or is there already and
                is not this command's own work.
        """
        folder = output_folder(path)
        marker = _read_marker(folder)
        if marker is not None and marker["command"] != self.command:
            raise ValueError(f"{str(path)!r} is a folder of 'proxycoop {marker['command']}': choose another --out")
        there = [name for name in entries if os.path.lexists(folder / name)]
        for name, content in entries.items():
            if not _holds(folder / name, content):
                self._keep_apart(folder / name)
        if marker is None and known in there and not self.overwrite:
            raise ValueError(
                f"{str(path)!r} holds {', '.join(map(repr, there))} and no {MARKER}, by which this version knows its own folders. If an "
                f"older version of 'proxycoop {self.command}' made it, and nothing of these names is yours, go on with --overwrite; else "
                "choose another --out"
            )
        for name in there:
            self._require_own(folder / name, entries[name], hint="choose another --out, or replace it with --overwrite")
        noted = {name: {"command": self.command} | ({} if text is None else {"sha256": _sha256(text)}) for name, text in entries.items()}
        write_json(folder / MARKER, self._marker((marker or {"entries": {}})["entries"] | noted))
        return folder

    def _marker(self, entries: Mapping[str, Any]) -> dict[str, Any]:
        return {"format": FORMAT, "command": self.command, "version": __version__, "entries": dict(entries)}

    def _keep_apart(self, path: Path) -> None:
        """Refuse a path that leads to an input or to another output."""
        if path.name in (MARKER, LOCK):
            raise ValueError(f"output {str(path)!r}: files of this name are proxycoop's own: choose another name")
        for one, what in self._inputs.items():
            if same_file(path, one):
                raise ValueError(f"output {str(path)!r} is {what}: choose another file")
            if path.is_dir() and path.resolve() in one.resolve().parents:
                raise ValueError(f"output {str(path)!r} holds {str(one)!r}, which is {what}: choose another folder")
        if any(same_file(path, one) for one in self._claimed):
            raise ValueError(f"output {str(path)!r} is named twice: choose a file for each")
        self._claimed.append(path)

    def _require_own(self, path: Path, content: bytes | None, hint: str = "choose another name, or replace it with --overwrite") -> None:
        """Refuse to replace what this command did not write, or what changed since."""
        if path.exists() and not path.is_file() and not path.is_dir():
            raise ValueError(f"output {str(path)!r} is neither a file nor a folder, so it cannot be replaced: choose another name")
        if self.overwrite or _holds(path, content):
            return
        marker = _read_marker(path.parent)
        if marker is None:  # in such a folder nobody knows who wrote what
            raise ValueError(f"output {str(path)!r} is there already: {hint}")
        note = marker["entries"].get(path.name)
        if not isinstance(note, dict) or note.get("command") != self.command:
            raise ValueError(f"output {str(path)!r} is there already, and 'proxycoop {self.command}' did not write it: {hint}")
        if "sha256" in note and note["sha256"] != _sha256(path.read_bytes()):
            raise ValueError(f"output {str(path)!r} was changed since 'proxycoop {self.command}' wrote it: {hint}")


@contextmanager
def locked(folder: Path, command: str) -> Iterator[None]:
    """Keep a folder for one process: within it, another one that asks is refused. The lock of a process that died is free.

    Where the file system has no locks, there is a warning instead.

    Raises:
        ValueError: If another process, or another thread, works in the folder; the message names it.
    """
    path = folder / LOCK
    while True:
        try:
            file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | _NOT_A_LINK, 0o666), "a+b")
        except OSError as error:
            if path.is_symlink():
                raise ValueError(f"{str(path)!r} is a link, so its target would be written over: remove it") from error
            raise ValueError(f"output folder {str(folder)!r} cannot be written: {error.strerror or error}") from error
        if not _lock(file, folder):
            file.seek(0)
            holder = file.read(200).decode(errors="replace").strip() or "another process"
            file.close()
            raise ValueError(f"{str(folder)!r} is in use by {holder}: wait until it has ended, or choose another --out")
        with suppress(OSError):
            if os.path.samestat(path.stat(), os.fstat(file.fileno())):
                break
        file.close()  # whoever had it has removed it meanwhile
    try:
        file.truncate(0)
        file.write(f"'proxycoop {command}' (process {os.getpid()} on {socket.gethostname()})".encode())
        file.flush()
        yield
    finally:
        if sys.platform != "win32":
            path.unlink(missing_ok=True)  # while it is ours, so that nobody waits for a file without a name
        _unlock(file)
        file.close()


def same_file(one: Path, other: Path) -> bool:
    """Whether two paths lead to the same file, also by links, or would do so if the file existed."""
    try:
        return one.samefile(other)
    except OSError:  # one of them is not there
        return os.path.realpath(one) == os.path.realpath(other)


_NOT_A_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)

if sys.platform == "win32":
    import msvcrt

    def _lock(file: BinaryIO, folder: Path) -> bool:
        del folder
        try:
            file.seek(1000)  # beyond what is read
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _unlock(file: BinaryIO) -> None:
        file.seek(1000)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)

    @contextmanager
    def _alone(folder: Path) -> Iterator[None]:
        del folder
        yield

else:
    import fcntl

    def _lock(file: BinaryIO, folder: Path) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            warnings.warn(
                f"{str(folder)!r} is on a file system without locks ({error.strerror}): do not run two commands in it at once", stacklevel=4
            )
        return True

    def _unlock(file: BinaryIO) -> None:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_UN)  # also for processes that were forked meanwhile

    @contextmanager
    def _alone(folder: Path) -> Iterator[None]:
        """Within it, others that enter it for the same folder wait. Where the file system has no locks, they do not."""
        handle = os.open(folder, os.O_RDONLY)
        try:
            with suppress(OSError):
                fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def _read_marker(folder: Path) -> dict[str, Any] | None:
    """The folder's marker, if there is one.

    Raises:
        ValueError: If it is damaged, is a file of somebody else, or was written by a later version.
    """
    path = folder / MARKER
    if not path.is_file():
        return None
    marker = read_json(path)
    if not isinstance(marker.get("command"), str) or not isinstance(marker.get("entries"), dict):
        raise ValueError(f"{str(path)!r} is no marker of proxycoop: choose another folder, or move the file away")
    if marker.get("format") != FORMAT:
        raise ValueError(f"{str(path)!r} has format {marker.get('format')}, this version reads {FORMAT}: choose another folder")
    return marker


def _holds(path: Path, content: bytes | None) -> bool:
    """Whether a file holds exactly this."""
    return content is not None and not path.is_symlink() and path.is_file() and path.read_bytes() == content


def _state(path: Path) -> tuple[int, int] | None:
    """Changes whenever the file is replaced or written; ``None`` if there is none."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
