"""The grid of a sweep: which settings are varied, over which values, and the cooperative and the training at every point.

A *setting* is one of the scenario, by its dotted path (``reward.contribution_cost``), or one of the training, by its name (``gamma``).
Paths lead through mappings by their keys, and through lists by positions from 0 (``profiles.0.holders``). Where it could be unclear, a
name may begin with ``scenario.`` or ``training.``.
"""

from __future__ import annotations

import difflib
import hashlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from ..checks import items_of
from ..envs.files import Draft
from ..envs.scenario import Scenario
from ..settings import describe, problems
from ..strict_yaml import YAMLError, read_value
from .libraries.registry import find
from .settings import TrainSettings

MOST_POINTS = 10_000
"""Points of a grid beyond which it is refused."""

_NUMBER = r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?"
_RANGE = re.compile(rf"\s*({_NUMBER})\s*:\s*({_NUMBER})\s*:\s*([0-9]{{1,6}})\s*", re.ASCII)
_NOT_VARIED = {
    "training.scenario": "name several scenarios instead (--scenario)",
    "training.credit": "name several rules instead (--rule)",
    "training.seed": "seeds are repetitions: say how many (--seeds)",
    "training.library": "make a sweep for each library (--library)",
    "training.algo": "make a sweep for each algorithm (--algo)",
    "training.seats": "make a sweep for each company (--seat)",
    "training.checkpoint_every": "no number depends on it",
    "scenario.name": "it tells scenarios apart: name several scenarios instead (--scenario)",
    "scenario.description": "no number depends on it",
    "scenario.version": "no number depends on it",
    "scenario.data.splits": "trainings have a setting of their own for it: vary splits",
    "scenario.data.split_seed": "seeds are repetitions, and each has splits of its own: say how many (--seeds)",
}
"""Settings that are no axis of a grid, each with what to do instead."""


class _UnknownSettingError(ValueError):
    """There is no such setting, at any point."""


@dataclass(frozen=True)
class Setting:
    """A setting that is varied.

    Attributes:
        part: Whether it is one of the scenario or of the training.
        path: Its dotted path, or its name.
        values: The values that it takes, each once: numbers in ascending order, others in the order given. Numbers are of the setting's
            type: whole where it is.
    """

    part: Literal["scenario", "training"]
    path: str
    values: tuple[Any, ...]

    @property
    def column(self) -> str:
        """Its name in files, which no other column has: ``scenario.reward.contribution_cost``, ``training.gamma``."""
        return f"{self.part}.{self.path}"

    @property
    def is_numeric(self) -> bool:
        """Whether all values are numbers."""
        return are_numbers(self.values)


@dataclass(frozen=True)
class GridPoint:
    """A point of a grid.

    Attributes:
        values: The value of each varied setting, by the setting's :attr:`~Setting.column`.
        scenarios: The cooperatives there.
        training: The varied settings of the training there, by name.
    """

    values: Mapping[str, Any]
    scenarios: tuple[Scenario, ...]
    training: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Its name in messages and as a folder; see :func:`point_name`."""
        return point_name(self.values)


def are_numbers(values: Iterable[Any]) -> bool:
    """Whether all values are numbers; true and false are none."""
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def point_name(values: Mapping[str, Any]) -> str:
    """The name of a point: ``reward.contribution_cost=0.1,gamma=0.5``. It is fit for a folder.

    Where letters are left out that some file systems refuse, or the name would be long, a digest keeps names apart.
    """
    whole = ",".join(f"{column.partition('.')[2]}={in_words(value)}" for column, value in values.items())
    safe = re.sub(r"[^\w.=,+-]", "", whole, flags=re.ASCII)[:100]
    return whole if safe == whole else f"{safe}-{hashlib.sha256(whole.encode()).hexdigest()[:10]}"


def in_words(value: Any) -> str:
    """A value as it is written in names and tables: numbers with all their digits and no more."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return value if isinstance(value, str) else json.dumps(value)


def spaced(first: str, last: str, n: int) -> list[int | float]:
    """``n`` evenly spaced numbers from ``first`` to ``last``, ends included. Each is the number nearest to its exact value.

    Raises:
        ValueError: If there are fewer than two points, or the ends are equal.
    """
    a, b = Fraction(first), Fraction(last)
    if not 2 <= n <= MOST_POINTS:
        raise ValueError(f"a range has 2 to {MOST_POINTS:,} points, got {n:,}")
    if a == b:
        raise ValueError(f"a range begins and ends at two different numbers, got {first} twice")
    points = [a + (b - a) * i / (n - 1) for i in range(n)]
    return [int(point) if point.denominator == 1 else float(point) for point in points]


def read_values(text: str, where: str) -> list[Any]:
    """The values that a text names: a range ``FROM:TO:N`` or a list ``A,B,C``, whose entries are YAML.

    Args:
        text: ``0:.6:7``, ``0,.5,.9``, ``true,false`` or ``[20, 40],[40, 80]``.
        where: What messages begin with.

    Raises:
        ValueError: If it is neither, or the range has no points.
    """
    if found := _RANGE.fullmatch(text):
        try:
            return spaced(found[1], found[2], int(found[3]))
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
    if ":" in text and not any(sign in text for sign in "'\"[{"):
        raise ValueError(f"{where}: a range is FROM:TO:N, two numbers and a number of points, such as 0:.6:7 (got {text[:60]!r})")
    if not text.strip() or text.strip().endswith(","):
        raise ValueError(f"{where}: write values with commas between them, such as 0,.5,.9, or a range, such as 0:.6:7 (got {text[:60]!r})")
    try:
        values: list[Any] = read_value(f"[{text}]", where)
    except YAMLError as error:
        raise ValueError(str(error)) from None
    return values


def grid(
    scenarios: Sequence[Scenario],
    vary: Mapping[str, str | Sequence[Any]],
    *,
    library: str = "sb3",
    algo: str | None = None,
) -> tuple[tuple[Setting, ...], list[GridPoint]]:
    """All points of a grid, each with its validated cooperatives.

    Args:
        scenarios: The cooperatives, as they are but for the varied settings.
        vary: For each setting's name its values: a sequence, or text as :func:`read_values` takes it.
        library: RL library that trains.
        algo: Algorithm of the library; its first if not given.

    Returns:
        The settings; and the points, the last setting changing fastest.

    Raises:
        ValueError: If a setting is unknown (the message lists those of the scenario and those of the training), is no axis of a grid, or is
            named twice; if it has fewer than two values, one twice, or two that are written alike; or if a scenario does not allow a value.
            The message then names the point.
    """
    if not vary:
        raise ValueError("vary names no setting: give at least one, such as reward.contribution_cost=0:.6:7")
    _, algorithm = find(library, algo)
    named: dict[str, list[Any]] = {}
    for name, given in vary.items():
        column = _column(name, algorithm.settings)
        values = read_values(given, f"vary {name}={given}") if isinstance(given, str) else _values(name, given)
        for other in named:
            if column == other:
                raise ValueError(f"vary {name}: {column.partition('.')[2]} is varied twice: leave one")
            if f"{column}.".startswith(f"{other}.") or f"{other}.".startswith(f"{column}."):
                raise ValueError(f"vary {name}: it is part of {other.partition('.')[2]}, or the other way round: vary one of them")
        if len(values) < 2:
            raise ValueError(
                f"vary {name}: a sweep needs at least two values, got {len(values)}: set a single one instead (--set, --hyper)"
            )
        named[column] = sorted(values) if are_numbers(values) else values
    n_points = 1
    for values in named.values():
        n_points *= len(values)
    if n_points > MOST_POINTS:
        raise ValueError(f"vary {', '.join(vary)}: the grid has {n_points:,} points, at most {MOST_POINTS:,} are allowed")
    points = []
    for combination in itertools.product(*named.values()):
        points.append(_point(scenarios, dict(zip(named, combination, strict=True)), algorithm.settings))
    settings = []
    for column, values in named.items():
        part, _, path = column.partition(".")
        taken: list[Any] = []
        for point in points:
            if (value := point.values[column]) not in taken:
                taken.append(value)
        if len(taken) < len(values):
            texts = [in_words(value) for value in values]
            twice = next((text for text in texts if texts.count(text) > 1), ", ".join(texts))
            raise ValueError(f"vary {path}: a value is given twice ({twice}): leave one")
        settings.append(Setting("training" if part == "training" else "scenario", path, tuple(taken)))
    if alike := [name for name, count in Counter(point_name(point.values) for point in points).items() if count > 1]:
        raise ValueError(f"vary {', '.join(vary)}: two points have the name {alike[0]}, such as a number and the same as text: leave one")
    return tuple(settings), points


def changed(scenario: Scenario, changes: Mapping[str, Any]) -> Scenario:
    """A scenario with other values of some settings, by dotted path. A mapping is merged into the settings that are there.

    Raises:
        ValueError: If there is no such setting, or a value is not allowed.
    """
    draft = Draft(scenario.name, scenario.to_dict(), {})
    draft.override({path: (value, path) for path, value in changes.items()})
    try:
        return Scenario.model_validate(draft.data)
    except ValidationError as error:
        found = problems(error)
        unknown = [path for path in changes for one in found if one.known is not None and one.path[-1] in path.split(".")]
        if unknown:
            raise _UnknownSettingError(unknown[0]) from None
        raise ValueError("; ".join(map(str, found))) from None


def meaning_of_setting(column: str, training: type[TrainSettings]) -> str:
    """What a varied setting means, in a sentence: its description. Empty for one of a value or of a part of one's own."""
    part, _, path = column.partition(".")
    if part == "training":
        field = training.model_fields.get(path)
        return "" if field is None else field.description or ""
    plain = re.sub(r"\.\d+(?=\.|$)", ".<…>", path)
    return next((text for name, _, text in describe(Scenario) if _without_kinds(name) == plain), "")


def _column(name: str, training: type[TrainSettings]) -> str:
    """A setting's name with its part before it."""
    part, dot, path = name.partition(".")
    if dot and part == "training":
        if path not in training.model_fields:
            raise _unknown(name, training)
        column = name
    elif name in training.model_fields:
        column = f"training.{name}"
    else:
        path = path if part == "scenario" else name
        if path.partition(".")[0] not in Scenario.model_fields:
            raise _unknown(name, training)
        column = f"scenario.{path}"
    if column in _NOT_VARIED:
        raise ValueError(f"vary {name}: it cannot be varied: {_NOT_VARIED[column]}")
    return column


def _unknown(name: str, training: type[TrainSettings]) -> ValueError:
    """The error for a setting that there is not. It lists those of the training, and says where those of the scenario are."""
    named = dict.fromkeys(_without_kinds(one) for one, _, _ in describe(Scenario))
    of_scenario = [path for path in named if f"scenario.{path}" not in _NOT_VARIED]
    of_training = [field for field in training.model_fields if f"training.{field}" not in _NOT_VARIED]
    last = name.rpartition(".")[2]
    close = [path for path in (*of_training, *of_scenario) if path.rpartition(".")[2] == last]
    close = close or difflib.get_close_matches(name, [*of_training, *of_scenario], n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return ValueError(
        f"vary {name}: there is no such setting{hint}; settings of the training are {', '.join(of_training)}; 'proxycoop scenarios "
        "--settings' lists those of a scenario, and of its values (values.NAME.…)"
    )


def _without_kinds(path: str) -> str:
    return re.sub(r"\[[a-z_0-9]+\]", "", path)


def _values(name: str, given: Any) -> list[Any]:
    if isinstance(given, Mapping) or not hasattr(given, "__iter__"):
        raise ValueError(f"vary {name}: give a sequence of values, or text such as '0:.6:7' (got {given!r})")
    plain = given.tolist() if hasattr(given, "tolist") else list(given)
    return list(items_of(name, [value.item() if hasattr(value, "item") else value for value in plain], "values"))


def _point(scenarios: Sequence[Scenario], values: Mapping[str, Any], training: type[TrainSettings]) -> GridPoint:
    """A point, with its values as the settings hold them: a number of the setting's type."""
    name = point_name(values)
    of_scenario = {column.partition(".")[2]: value for column, value in values.items() if column.startswith("scenario.")}
    of_training = {column.partition(".")[2]: value for column, value in values.items() if column.startswith("training.")}
    made = []
    for scenario in scenarios:
        try:
            made.append(changed(scenario, of_scenario))
        except _UnknownSettingError as error:
            raise _unknown(str(error), training) from None
        except ValueError as error:
            raise ValueError(f"point {name} of scenario {scenario.name!r}: {error}") from None
    for path in of_scenario:
        of_scenario[path] = _held(made[0], path, of_scenario[path])
    for field, value in of_training.items():
        of_training[field] = _as_field(training, field, value)
    held = {f"scenario.{path}": value for path, value in of_scenario.items()}
    held |= {f"training.{field}": value for field, value in of_training.items()}
    return GridPoint({column: held[column] for column in values}, tuple(made), of_training)


def _as_field(training: type[TrainSettings], field: str, value: Any) -> Any:
    """A number as a field of the settings holds it; its limits are checked with the others, when the settings are made."""
    annotation = training.model_fields[field].annotation
    return float(value) if annotation is float and isinstance(value, int) and not isinstance(value, bool) else value


def _held(scenario: Scenario, path: str, given: Any) -> Any:
    """The value of a setting as the scenario holds it; what was given for a part that is no single value."""
    part: Any = scenario
    for key in path.split("."):
        if isinstance(part, Mapping):
            part = next((value for name, value in part.items() if str(name) == key), given)
        elif isinstance(part, list | tuple):
            part = part[int(key)]
        else:
            part = getattr(part, key, given)
    return given if isinstance(part, BaseModel | Mapping | list | tuple) else part
