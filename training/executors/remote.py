"""What runs on a machine of a cluster: one task, in a process of Ray's, on copies of its folders."""

from __future__ import annotations

import hashlib
import importlib
import pickle
import platform
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ... import __version__
from ..own_modules import import_modules
from ..run import CHECKPOINT
from .folders import Files, moved, packed, unpack
from .workers import told_by


@dataclass(frozen=True)
class Work:
    """A task on its way.

    Attributes:
        call: The function and its arguments, pickled, with a number for each folder.
        folders: For each folder where it is at home, and its files.
    """

    call: bytes
    folders: tuple[tuple[str, Files], ...]


@dataclass(frozen=True)
class Outcome:
    """What came of a task.

    Attributes:
        answer: What the call returned, pickled; or what it raised.
        failed: Whether it raised.
        folders: The files of each folder, also if it failed: a checkpoint may be among them.
        told: Work that was reported.
    """

    answer: bytes
    failed: bool
    folders: tuple[Files, ...]
    told: int


@dataclass(frozen=True)
class _Folder:
    """A folder's place among a task's arguments."""

    number: int


@cache
def versions() -> dict[str, str]:
    """What must be the same on all machines, so that numbers are: by name, the version here."""
    return {
        "Python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "proxycoop": f"{__version__} (files {_digest_of_files()})",
    }


def work_of(call: Callable[..., Any], arguments: Sequence[Any]) -> Work:
    """A task to be sent. Its arguments that are paths are folders, whose files go with it."""
    folders: list[tuple[str, Files]] = []
    sent = []
    for argument in arguments:
        if isinstance(argument, Path):
            sent.append(_Folder(len(folders)))
            folders.append((str(argument), packed(argument)))
        else:
            sent.append(argument)
    return Work(pickle.dumps((call, sent)), tuple(folders))


def do(work: Work, expected: Mapping[str, str], modules: Sequence[str], tell: Callable[[int], object]) -> Outcome:
    """Do a task here.

    Args:
        work: The task.
        expected: What :func:`versions` gave where it comes from.
        modules: Modules to import before.
        tell: Called with all the work that is done so far, each time that some is reported.

    Returns:
        Its outcome. What the call raises is an outcome too, and not a reason to try again.
    """
    told = 0

    def add(done: int) -> None:
        nonlocal told
        told += done
        tell(told)

    told_by(add)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="proxycoop-") as temporary:
        homes = [Path(home) for home, _ in work.folders]
        copies = [Path(temporary) / str(number) / home.name for number, home in enumerate(homes)]
        try:
            require_same(expected)
            _import(modules)
            for (_, files), copy in zip(work.folders, copies, strict=True):
                copy.parent.mkdir()
                if files:
                    here = moved(files, zip(homes, copies, strict=True))
                    if here != files:
                        here.pop(CHECKPOINT, None)  # it names the policies that play in its seats too, and is no text
                    unpack(here, copy)
            call, arguments = pickle.loads(work.call)
            answer = _pickled(call(*(copies[one.number] if isinstance(one, _Folder) else one for one in arguments)))
            failed = False
        except Exception as error:  # a rule of one's own may raise anything
            answer, failed = _pickled_error(error), True
        back = tuple(moved(packed(copy), zip(copies, homes, strict=True)) for copy in copies)
    return Outcome(answer, failed, back, told)


def require_same(expected: Mapping[str, str]) -> None:
    """Refuse to compute with other versions than the driver has.

    Raises:
        ValueError: Naming what differs, and this machine.
    """
    here = versions()
    if other := [f"{name} {here.get(name)} instead of {version}" for name, version in expected.items() if here.get(name) != version]:
        raise ValueError(f"machine {platform.node()!r} of the cluster has {', '.join(other)}: install the same on all machines")


def _import(modules: Sequence[str]) -> None:
    for module in modules:
        try:
            import_modules([module])
        except ImportError as error:
            raise ValueError(
                f"module {module!r} cannot be imported on machine {platform.node()!r} of the cluster ({error}): install it there, or name "
                "the module that lacks with --import, so that it is sent along"
            ) from None


def _pickled(answer: Any) -> bytes:
    return pickle.dumps(answer)


def _pickled_error(error: Exception) -> bytes:
    """An exception; or its words, if it cannot be read back elsewhere."""
    try:
        text = pickle.dumps(error)
        pickle.loads(text)
    except Exception:  # whatever its constructor wants
        return pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))
    return text


def _digest_of_files() -> str:
    """A digest of the package's code: versions between two releases have the same number."""
    digest = hashlib.sha256()
    for part in ("", ".credit", ".envs", ".agents", ".training"):
        for root in map(Path, importlib.import_module(__name__.partition(".")[0] + part).__path__):
            files = sorted(root.rglob("*.py") if part else root.glob("*.py"))
            for path in files:
                digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:8]
