"""The rounds of a federation on disk: what came in, one file a round, from which the server goes on after it was stopped.

A round's file is written before the round is played, whole or not at all. The ledger then names the file's digest in the same transaction
as the round. So a round either left neither, and is asked again, or left its file, and is played from it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..agents import saved
from ..files import output_folder, write_atomically

_ADVICE = "take it from a backup; without it the rounds from there on cannot be played again"


@dataclass(frozen=True)
class Came:
    """What came in for a round.

    Attributes:
        offered: Which lots were offered, bool ``(1, N, K)``.
        updates: Their updates, ``(1, N, K, P)``; zeros for the others. NaN for an update that was not finite, or too long.
        refused: By principal, what was refused before the screening: a lot or ``None``, and the reason.
    """

    offered: Tensor
    updates: Tensor
    refused: dict[int, list[tuple[int | None, str]]]


class Archive:
    """The folder of an episode.

    Args:
        folder: It is made if it is not there.

    Raises:
        ValueError: If it cannot be made.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = output_folder(folder)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other servers out of the folder. The lock is gone when the process is.

        Raises:
            ValueError: If another server is at work there.
        """
        with (self.folder / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise ValueError(f"folder {str(self.folder)!r} is in use by another server: stop that one, or use another folder") from None
            yield

    def begin(self, facts: dict[str, Any]) -> dict[str, Any]:
        """Remember with what the episode began, or say with what it did.

        Args:
            facts: Numbers, texts, and lists and dictionaries of these.

        Raises:
            ValueError: If it cannot be written.
        """
        path = self.folder / "start.json"
        if not path.exists():
            text = json.dumps(facts, sort_keys=True, indent=1)
            self._write(path, text.encode())
        try:
            there: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(f"{str(path)!r} cannot be read ({error}): {_ADVICE}") from error
        return there

    def start(self) -> dict[str, Any] | None:
        """With what the episode began; ``None`` if it did not."""
        return self.begin({}) if (self.folder / "start.json").exists() else None

    def __len__(self) -> int:
        """How many rounds there are, without a gap, from 0."""
        t = 0
        while self._path(t).exists():
            t += 1
        return t

    def write(self, t: int, came: Came) -> str:
        """Write a round's file.

        Returns:
            Its digest.

        Raises:
            ValueError: If it cannot be written, as where the disk is full.
        """
        faulty = ~came.updates.isfinite().all(dim=-1) & came.offered
        entries = (came.offered & ~faulty).nonzero()
        data = {
            "t": t,
            "offered": came.offered,
            "faulty": faulty,
            "updates": came.updates[tuple(entries.T)],
            "parameters": came.updates.shape[-1],
            "refused": json.dumps({str(i): reasons for i, reasons in came.refused.items()}),
        }
        try:
            saved.write(self._path(t), data, "round")
        except OSError as error:
            raise ValueError(f"round {t} cannot be written to {str(self._path(t))!r}: {error.strerror or error}") from error
        _sync(self.folder)
        return self.digest(t)

    def read(self, t: int) -> Came:
        """Read a round's file.

        Raises:
            ValueError: If it is damaged.
        """
        data = saved.read(self._path(t), "round", _ADVICE)
        offered, faulty = data["offered"], data["faulty"]
        updates = torch.zeros(*offered.shape, data["parameters"])
        updates[tuple((offered & ~faulty).nonzero().T)] = data["updates"]
        updates[faulty] = torch.nan
        refused = {int(i): [(lot, reason) for lot, reason in reasons] for i, reasons in json.loads(data["refused"]).items()}
        return Came(offered, updates, refused)

    def digest(self, t: int) -> str:
        """SHA-256 digest of a round's file."""
        return hashlib.sha256(self._path(t).read_bytes()).hexdigest()

    def _path(self, t: int) -> Path:
        return self.folder / f"round-{t:04}.pt"

    def _write(self, path: Path, content: bytes) -> None:
        try:
            write_atomically(path, lambda file: file.write(content))
        except OSError as error:
            raise ValueError(f"{str(path)!r} cannot be written: {error.strerror or error}") from error
        _sync(self.folder)


def _sync(folder: Path) -> None:
    """Make sure that a new name in a folder survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
