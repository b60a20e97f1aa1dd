"""What work costs: the time and the memory of a cell, measured while it runs, and from these the cost of many."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...files import read_json, write_json

FILE = "cost.json"
"""Name of the file with a cell's cost, in its folder."""
MARGIN = 1.2
"""A cell asks for this times the most memory that one like it had."""
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Cost:
    """What one cell cost.

    Attributes:
        seconds: Time that passed.
        cpu_seconds: Time of the processor, which does not grow when others are busy on the same core.
        peak_memory: Most memory that its process held, in bytes; ``None`` where the system does not say.
    """

    seconds: float
    cpu_seconds: float
    peak_memory: int | None


@dataclass(frozen=True)
class Estimate:
    """What many cells would cost.

    Attributes:
        n_cells: How many cells.
        core_hours: Hours of one core for all of them.
        hours: Hours that pass on ``cores`` cores: the cells are spread evenly, and the longest one is never split.
        cores: Cores that work at once, one cell each.
        memory: Most memory that ``cores`` cells hold at once, in bytes; ``None`` if it was not measured.
        price: Money for all core-hours, in the unit of ``price_per_core_hour``.
    """

    n_cells: int
    core_hours: float
    hours: float
    cores: int
    memory: int | None
    price: float


@contextmanager
def measuring(folder: Path) -> Iterator[None]:
    """Measure what is done within it by this process, and write it to the folder's :data:`FILE`."""
    _forget_peak()
    passed, busy = time.perf_counter(), time.process_time()
    yield
    cost = Cost(round(time.perf_counter() - passed, 2), round(time.process_time() - busy, 2), _peak())
    write_json(folder / FILE, asdict(cost))


def cost_of(folder: Path) -> Cost | None:
    """What the cell of a folder cost; ``None`` if it was not measured, or the file is damaged."""
    try:
        plain: Mapping[str, Any] = read_json(folder / FILE)
        memory = plain["peak_memory"]
        return Cost(float(plain["seconds"]), float(plain["cpu_seconds"]), None if memory is None else int(memory))
    except (ValueError, KeyError, TypeError):
        return None


def estimate(measured: Sequence[Cost], n_cells: int, cores: int, price_per_core_hour: float) -> Estimate:
    """What so many cells would cost that are like those that were measured.

    Args:
        measured: Costs of cells, at least one. The mean of their processor time counts: a core of a cluster works for one cell alone.
        n_cells: How many cells.
        cores: Cores that work at once.
        price_per_core_hour: What an hour of one core costs, in any currency. An assumption: nobody is asked.

    Raises:
        ValueError: If no cell was measured, or a number is out of range.
    """
    if not measured:
        raise ValueError("no cell was measured: run some first")
    if n_cells < 1 or cores < 1:
        raise ValueError(f"n_cells={n_cells} and cores={cores}: each must be at least 1")
    if not math.isfinite(price_per_core_hour) or price_per_core_hour < 0:
        raise ValueError(f"price_per_core_hour={price_per_core_hour}: must be a number of at least 0")
    each = [one.cpu_seconds for one in measured]
    seconds = n_cells * sum(each) / len(each)
    peaks = [one.peak_memory for one in measured if one.peak_memory is not None]
    at_once = min(cores, n_cells)
    return Estimate(
        n_cells=n_cells,
        core_hours=seconds / 3600,
        hours=max(seconds / at_once, max(each)) / 3600,
        cores=cores,
        memory=at_once * max(peaks) if peaks else None,
        price=seconds / 3600 * price_per_core_hour,
    )


def _forget_peak() -> None:
    """Let the peak of this process's memory begin anew, where Linux allows it: a worker does one cell after another."""
    with suppress(OSError):
        _RESET.write_text("5")


def _peak() -> int | None:
    """Most memory that this process has held since then, in bytes."""
    with suppress(OSError):
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) if sys.platform == "darwin" else int(peak) * 1024
