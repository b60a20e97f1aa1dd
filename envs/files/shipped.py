"""Scenarios that other packages ship, with their data, by the entry-point group ``proxycoop.scenarios``.

An entry point leads to the path of a scenario's YAML file, or to a function that returns it. A path that is not absolute begins in the
folder of the module that the entry point names::

    [project.entry-points."proxycoop.scenarios"]
    harvest = "my_package:HARVEST"    # in my_package/__init__.py: HARVEST = "harvest.yaml"

A file of data that the scenario names by a relative path lies beside the scenario's file.
"""

from __future__ import annotations

import os
import sys
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

GROUP = "proxycoop.scenarios"
"""The entry-point group."""


def shipped_names() -> list[str]:
    """Names of the scenarios that other packages ship. None of the packages is imported."""
    return sorted(_entries())


def shipped(name: str) -> Path:
    """The file of a scenario that another package ships.

    Args:
        name: One of :func:`shipped_names`.

    Raises:
        ValueError: If the package cannot be imported, or does not say where the file is.
    """
    entry = _entries()[name]
    what = f"scenario {name!r} of the entry point {entry.value!r}"
    try:
        found = entry.load()
        if callable(found):
            found = found()
    except Exception as error:  # another package's module may raise anything
        raise ValueError(f"{what} cannot be loaded: {error!r}") from error
    if not isinstance(found, str | os.PathLike) or Path(found).suffix not in (".yaml", ".yml"):
        raise ValueError(f"{what} is {found!r}: must be the path of a .yaml file, or a function that returns it")
    path = Path(found)
    if not path.is_absolute():
        path = Path(sys.modules[entry.module].__file__ or "").parent / path
    if not path.is_file():
        raise ValueError(f"{what}: its file {str(path)!r} does not exist: list it as package data")
    return path


@cache
def _entries() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}
