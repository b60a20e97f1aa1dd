"""Measurements as rows of a CSV file, which grows as they come: what is there already is not measured again."""

from __future__ import annotations

import csv
import io
import multiprocessing
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from proxycoop.files import write_text


@dataclass(frozen=True)
class Rows:
    """A table of measurements in a file.

    Attributes:
        path: The CSV file.
        about: Columns that say what was measured; no two rows have the same.
        measures: The other columns.
    """

    path: Path
    about: Sequence[str]
    measures: Sequence[str]

    def read(self) -> list[dict[str, str]]:
        """The rows, as texts by column; none if there is no file."""
        return list(csv.DictReader(io.StringIO(self.path.read_text()))) if self.path.exists() else []

    def add(self, row: Mapping[str, Any]) -> None:
        """Write one more row, in place of one about the same, and all in order."""
        self.write([*(other for other in self.read() if self.key(other) != self.key(row)), row])

    def write(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write all rows, in order."""
        text = io.StringIO()
        writer = csv.DictWriter(text, [*self.about, *self.measures], lineterminator="\n", restval="")
        writer.writeheader()
        writer.writerows(sorted(rows, key=self.place))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_text(self.path, text.getvalue())

    def missing(self, tasks: Iterable[Any]) -> list[Any]:
        """The tasks, with the columns of ``about`` as attributes, whose rows are not there."""
        have = self.done()
        return [task for task in tasks if self.key({name: getattr(task, name) for name in self.about}) not in have]

    def key(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        """What a row is about."""
        return tuple(str(row[name]) for name in self.about)

    def done(self) -> set[tuple[str, ...]]:
        """What is measured already."""
        return {self.key(row) for row in self.read()}

    def place(self, row: Mapping[str, Any]) -> tuple[Any, ...]:
        """By what rows are sorted."""
        return self.key(row)

    def measure(
        self, tasks: Sequence[Any], measured: Callable[[Any], Mapping[str, Any]], jobs: int, minutes: float, *, alone: bool = False
    ) -> None:
        """Measure what is missing.

        Args:
            tasks: All tasks.
            measured: From a task to its row.
            jobs: Processes side by side.
            minutes: Begin nothing after so many minutes.
            alone: Measure each in a process of its own, so that its peak of memory can be told.
        """
        waiting, until, running = iter(missing := self.missing(tasks)), time.monotonic() + 60 * minutes, set[Future[Mapping[str, Any]]]()
        spawn = multiprocessing.get_context("spawn")
        with (
            ProcessPoolExecutor(jobs, spawn, max_tasks_per_child=1 if alone else None) as pool,
            tqdm(total=len(missing), unit=" tasks") as bar,
        ):
            while True:
                while len(running) < jobs and time.monotonic() < until and (task := next(waiting, None)) is not None:
                    running.add(pool.submit(measured, task))
                if not running:
                    return
                ready, running = wait(running, return_when=FIRST_COMPLETED)
                for one in ready:
                    self.add(row := one.result())
                    bar.set_postfix_str(", ".join(self.key(row)))
                bar.update(len(ready))
