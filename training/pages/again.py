"""The command line that repeats a comparison: with the same library, settings, scenarios and modules, it gives the same numbers."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...envs import scenario as scenarios
from ...strict_yaml import YAMLError, read_value
from ..analysis.summary import Table
from ..compare import own_split, training_settings
from ..evaluate import EVALUATION_SPLITS
from ..libraries.registry import find

_MOST_OVERRIDES = 8
"""Settings of a scenario beyond which the command takes a file instead of ``--set``."""
_OPTIONS = {"total_steps": "--steps", "library": "--library", "algo": "--algo", "seats": "--seat"}


def is_resplit(found: Sequence[Mapping[str, Any]]) -> bool:
    """Whether every seed trained on splits of the data of its own; also where nothing was trained."""
    cells = [result["cell"] for result in found if result["cell"]["agent"] == "learned"]
    return all(cell["scenario"]["data"]["split_seed"] == own_split(cell) for cell in cells)


def command(found: Sequence[Mapping[str, Any]], tables: Sequence[Table]) -> tuple[str, list[str]]:
    """The command that repeats a comparison, or does what it did and more where rules or seeds differ between scenarios.

    Args:
        found: Its results.
        tables: Their tables, one for each scenario.

    Returns:
        The command; and the names of the scenarios that it takes from files ``NAME.yaml``, which hold the scenario as it is in the results.
    """
    resplit = is_resplit(found)
    changes = [_changes(table, keep_split=not resplit) for table in tables]
    sets = changes[0] if all(one == changes[0] for one in changes) else None  # --set goes for all scenarios
    custom = [table.name for table, change in zip(tables, changes, strict=True) if change is None or (change and sets is None)]
    modules = list(dict.fromkeys(module for result in found for module in result.get("imports", ())))
    words = ["python", "-m", "proxycoop", *_each("--import", modules)] if modules else ["proxycoop"]
    words += ["compare", *_each("--scenario", [f"{table.name}.yaml" if table.name in custom else table.name for table in tables])]
    words += _each("--rule", dict.fromkeys(row.name for table in tables for row in table.learned))
    seeds = sorted({result["cell"]["seed"] for result in found if result["cell"]["agent"] == "learned"}) or [0]
    words += ["--seeds", str(seeds[-1] - seeds[0] + 1), *(["--first-seed", str(seeds[0])] if seeds[0] else [])]
    training: Mapping[str, Any] = next(filter(None, (training_settings(result["cell"]) for result in found)), {})
    words += ["--steps", str(training["total_steps"])] if "total_steps" in training else []
    words += ["--episodes", str(found[0]["cell"]["episodes"])]
    if (held_out := found[0]["cell"]["evaluation_splits"]) != list(EVALUATION_SPLITS):
        words += ["--evaluation-splits", str(len(held_out))]
    words += [word for name in ("library", "algo") if name in training for word in (_OPTIONS[name], str(training[name]))]
    words += _each("--seat", training.get("seats", ()))
    words += _each("--seat", found[0]["cell"].get("seats", []))
    words += _each("--hyper", [f"{name}={_written(value)}" for name, value in _hyperparameters(training)])
    words += _each("--set", [f"{path}={_written(value)}" for path, value in (sets or {}).items()])
    return shlex.join([*words, *([] if resplit else ["--same-split"]), "--out", "out/again"]), custom


def _each(option: str, values: Sequence[str] | Mapping[str, object]) -> list[str]:
    return [word for value in values for word in (option, value)]


def _hyperparameters(training: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Settings of a training that are not the algorithm's defaults, and have no option of their own."""
    if "library" not in training:
        return
    _, algorithm = find(training["library"], training["algo"])
    training = {"splits": 1, **training}  # one split is left out of files
    for name, field in algorithm.settings.model_fields.items():
        default = algorithm.actions[0] if name == "actions" else field.default
        if name in training and name not in _OPTIONS and training[name] != default:
            yield name, training[name]


def _changes(table: Table, *, keep_split: bool) -> dict[str, Any] | None:
    """The overrides that make the package's scenario of this name into the table's; ``None`` if there is none, or if they are many."""
    if table.name not in scenarios.names():
        return None
    wanted = json.loads(json.dumps(table.scenario))
    ours = _plain(scenarios.load(table.name))
    if not keep_split:
        wanted["data"]["split_seed"] = ours["data"]["split_seed"]
    changes = dict(_differences(ours, wanted))
    if len(changes) > _MOST_OVERRIDES:
        return None
    try:
        return changes if _plain(scenarios.load(table.name, **changes)) == wanted else None
    except ValueError:
        return None


def _plain(scenario: scenarios.Scenario) -> dict[str, Any]:
    """A scenario as results hold it: numbers as keys have become text."""
    plain: dict[str, Any] = json.loads(json.dumps(scenario.to_dict()))
    return plain


def _differences(ours: Mapping[str, Any], wanted: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """What to set in one mapping to get the other, by dotted paths."""
    for key, value in wanted.items():
        old = ours.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping) and value and old.get("kind") == value.get("kind"):
            yield from _differences(old, value, f"{path}{key}.")
        elif old != value or key not in ours:
            yield f"{path}{key}", value


def _written(value: Any) -> str:
    """A value as the command line reads it: as it is, if that is read back, and else as JSON."""
    if isinstance(value, str):
        try:
            if read_value(value, "") == value:
                return value
        except YAMLError:
            pass
    return json.dumps(value, ensure_ascii=False)
