"""Sweep settings: a comparison of credit rules at every point of a grid of settings, to see where a finding holds and where it turns.

Every point is a comparison of its own, in a folder ``points/NAME``, with the cells and results of :mod:`~proxycoop.training.compare`.
``sweep.csv`` gathers the cells of all points, and ``sweep-columns.csv`` says what its columns mean. ``sweep.json`` is the plan. A folder
holds one sweep: the same settings are varied, and all others are the same. Values, rules, seeds and scenarios may be added. What is
finished is not run again.

.. code-block:: python

    plan = planned([scenario.load("digits")], ["equal", "shapley"], range(10), {"reward.contribution_cost": "0:.6:7"})
    sweep(plan, "out/sweep")
    for point in swept("out/sweep").points:
        print(point.values, len(point.results))
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from .. import __version__
from ..agents import AGENTS, Agent
from ..checks import items_of
from ..envs.scenario import Scenario
from ..files import output_folder, read_json, write_json, write_text
from .compare import CELL_COLUMNS, Cell, all_modules, cells, columns_of, compare, require_buildable, results
from .executors import connected, require_place
from .grid import Setting, are_numbers, grid, meaning_of_setting, point_name
from .libraries.registry import find
from .outputs import Outputs, locked

FORMAT = 1
REFERENCES = ("measuring_planner", "planner")
"""Scripted agents that every point plays, so that welfare can be given as a share of theirs."""
FILES = ("sweep.json", "sweep.csv", "sweep-columns.csv")
"""Files of a sweep. Its comparisons are in ``points``."""


@dataclass(frozen=True)
class Point:
    """A point of a sweep.

    Attributes:
        values: The value of each varied setting, by :attr:`Setting.column <proxycoop.training.grid.Setting.column>`.
        cells: What is run there.
    """

    values: Mapping[str, Any]
    cells: tuple[Cell, ...]

    @property
    def name(self) -> str:
        """Its name in messages, and its folder under ``points/``."""
        return point_name(self.values)


@dataclass(frozen=True)
class Plan:
    """What a sweep runs.

    Attributes:
        settings: The settings that are varied.
        points: The points of the grid, the last setting changing fastest.
        agents: Scripted agents that are shown beside the rules.
    """

    settings: tuple[Setting, ...]
    points: tuple[Point, ...]
    agents: tuple[str, ...] = ()

    @property
    def figures(self) -> list[str]:
        """Names of the figures, one for every scenario and setting, as files are called without their ending."""
        names = dict.fromkeys(cell.settings.scenario.name for point in self.points for cell in point.cells)
        return [figure_name(name, setting) for name in names for setting in self.settings]

    @property
    def n_trainings(self) -> int:
        """Number of trainings at all points together."""
        return sum(cell.agent == "learned" for point in self.points for cell in point.cells)


@dataclass(frozen=True)
class SweptPoint:
    """A point of a sweep, and what was found there.

    Attributes:
        values: The value of each varied setting, by its column.
        results: The finished cells, as :func:`~proxycoop.training.compare.results` reads them.
    """

    values: Mapping[str, Any]
    results: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class Swept:
    """What a sweep found.

    Attributes:
        settings: The settings that were varied, with all values of which a point is finished.
        points: The points of which a cell is finished.
        agents: Scripted agents that are shown beside the rules.
        meanings: What each varied setting means, by its column.
    """

    settings: tuple[Setting, ...]
    points: tuple[SweptPoint, ...]
    agents: tuple[str, ...]
    meanings: Mapping[str, str]


def planned(
    scenarios: Sequence[Scenario],
    rules: Sequence[str],
    seeds: Iterable[int],
    vary: Mapping[str, str | Sequence[Any]],
    *,
    agents: Sequence[str] = (),
    library: str = "sb3",
    algo: str | None = None,
    **comparison: Any,
) -> Plan:
    """Plan a sweep. Every point's cooperatives and trainings are made and checked here, before anything runs.

    Args:
        scenarios: Cooperatives; their names must differ.
        rules: Credit rules, by name, with arguments if they take any.
        seeds: Seeds of every point. Points share them, so that they differ by the varied settings alone.
        vary: For each setting's name its values, as :func:`~proxycoop.training.grid.grid` takes them:
            ``{"reward.contribution_cost": "0:.6:7", "gamma": [0, 0.5, 0.9]}``.
        agents: Scripted agents to show beside the rules. If any are named, these alone are played besides the planners; otherwise all that
            a comparison plays.
        library: RL library that trains.
        algo: Algorithm of the library; its first if not given.
        **comparison: Other arguments of :func:`~proxycoop.training.compare.cells`: ``episodes``, ``resplit`` and the settings of the
            training.

    Raises:
        ValueError: As :func:`~proxycoop.training.grid.grid` and :func:`~proxycoop.training.compare.cells` do; the message names the point.
            Also if a varied setting of the training is set as well, or an agent is unknown.
    """
    scenarios, seeds = items_of("scenarios", scenarios, "scenarios"), items_of("seeds", seeds, "seeds")
    if named := next((one for one in scenarios if not isinstance(one, Scenario)), None):
        raise ValueError(f"scenarios holds {named!r}: give scenarios, such as scenario.load('digits')")
    agents = tuple(dict.fromkeys(items_of("agents", agents, "agents")))
    for agent in agents:
        if agent == "learned":
            raise ValueError("agents holds 'learned': proxies that learn are shown for every rule; name scripted agents")
        AGENTS[agent]  # refuses unknown names
    settings, points = grid(scenarios, vary, library=library, algo=algo)
    for setting in settings:
        if setting.part == "training" and setting.path in comparison:
            raise ValueError(f"{setting.path}={comparison[setting.path]!r} is set, and {setting.path} is varied: leave one")
    made = []
    for point in points:
        try:
            todo = cells(point.scenarios, rules, seeds, library=library, algo=algo, **comparison, **point.training)
        except ValueError as error:
            raise ValueError(f"point {point.name}: {error}") from None
        made.append(Point(point.values, tuple(_with_agents(todo, agents))))
    return Plan(settings, tuple(made), agents)


def sweep(
    plan: Plan,
    out: str | Path,
    *,
    jobs: int | None = None,
    ray: str | None = None,
    quiet: bool = False,
    overwrite: bool = False,
    inputs: Mapping[Path, str] | None = None,
) -> Path:
    """Finish all cells of all points and gather their results.

    Points are worked off one after another, each by processes side by side. If this is stopped, the same call goes on. If cells of a point
    fail, the other points are finished first.

    Args:
        plan: What to run; see :func:`planned`. It is joined with what the folder holds already.
        out: Folder of the sweep.
        jobs: Processes that run at once; by default one per core.
        ray: Address of a Ray cluster on which cells are run instead; see :mod:`~proxycoop.training.executors`.
        quiet: Whether to show no progress.
        overwrite: Whether to take a folder over in which other things have the names of ours. Finished cells are kept in any case.
        inputs: Files that were read, each with what it is, in words. They are never replaced.

    Returns:
        The path of ``sweep.csv``.

    Raises:
        ValueError: As :func:`~proxycoop.training.compare.compare` does; or if the folder holds a sweep of other settings. Also if cells
            failed; then the message names their points, and all others are finished.
    """
    require_place(jobs, ray)
    folder = output_folder(out)
    with locked(folder, "sweep"), connected(ray, all_modules(cell for point in plan.points for cell in point.cells)):
        outputs = Outputs("sweep", overwrite=overwrite, inputs=inputs)
        record = _joined(folder, plan)
        outputs.own_folder(folder, {"points": None, **dict.fromkeys(FILES)}, known="points")
        for point in plan.points:
            try:
                require_buildable(point.cells)
            except ValueError as error:
                raise ValueError(f"point {point.name}: {error}") from None
        outputs.wrote(write_json(folder / "sweep.json", record))
        failures = {}
        for number, point in enumerate(plan.points, 1):
            if not quiet:
                sys.stderr.write(f"point {number} of {len(plan.points)}: {point.name}\n")
                sys.stderr.flush()
            try:
                place = folder / "points" / point.name
                compare(point.cells, place, jobs=jobs, ray=ray, quiet=quiet, overwrite=overwrite, inputs=inputs)
            except ValueError as error:
                failures[point.name] = error
        path = folder / "sweep.csv"
        if any(True for _ in _finished(folder, record)):
            for written in _gather(folder):
                outputs.wrote(written)
    if failures:
        told = "; ".join(f"{name}: {error}" for name, error in failures.items())
        others = ", the others are finished" * (len(failures) < len(plan.points))
        raise ValueError(f"{len(failures)} of {len(plan.points)} points failed{others}: {told}")
    return path


def figure_name(scenario: str, setting: Setting) -> str:
    """The name of a scenario's figure along a setting, fit for a file: ``digits-reward.contribution_cost``."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", f"{scenario}-{setting.path}")


def is_sweep(folder: str | Path) -> bool:
    """Whether a folder holds a sweep."""
    return (Path(folder) / "sweep.json").is_file()


def swept(out: str | Path) -> Swept:
    """What a sweep found so far.

    Raises:
        ValueError: If the folder holds no sweep, or no finished results, or a file is damaged.
    """
    folder = Path(out)
    record = _read(folder)
    points = tuple(_finished(folder, record))
    if not points:
        raise ValueError(f"{str(out)!r} holds no finished results: run the same 'proxycoop sweep --out {out}' again")
    settings = []
    for one in record["settings"]:
        column = f"{one['part']}.{one['path']}"
        taken = [value for value in one["values"] if any(point.values[column] == value for point in points)]
        settings.append(Setting(one["part"], one["path"], tuple(taken)))
    meanings = {f"{one['part']}.{one['path']}": one["meaning"] for one in record["settings"]}
    return Swept(tuple(settings), points, tuple(record["agents"]), meanings)


def _with_agents(todo: Sequence[Cell], agents: Sequence[str]) -> Iterator[Cell]:
    """The cells, with only those scripted agents that are named and the references, if any are named."""
    if not agents:
        yield from todo
        return
    wanted = {*agents, *REFERENCES}
    there = {cell.agent for cell in todo}
    models: dict[tuple[str, int], Cell] = {}
    for cell in todo:
        if cell.agent != "learned":
            models.setdefault((cell.settings.scenario.name, cell.settings.seed), cell)
        if cell.agent == "learned" or cell.agent in wanted:
            yield cell
    for (_, cell), agent in itertools.product(models.items(), agents):
        if agent not in there and cast(type[Agent], AGENTS[agent]).plays(cell.settings.scenario):
            yield replace(cell, agent=agent)


def _record(plan: Plan) -> dict[str, Any]:
    """The plan as plain data."""
    first = plan.points[0].cells[0].settings
    training = find(first.library, first.algo)[1].settings
    return {
        "format": FORMAT,
        "version": __version__,
        "settings": [
            {
                "part": setting.part,
                "path": setting.path,
                "meaning": meaning_of_setting(setting.column, training),
                "values": list(setting.values),
            }
            for setting in plan.settings
        ],
        "agents": list(plan.agents),
        "fixed": _fixed(plan),
        "points": [{"name": point.name, "values": dict(point.values)} for point in plan.points],
    }


def _fixed(plan: Plan) -> dict[str, Any]:
    """All settings that are not varied, by dotted path: those of the training and of each scenario, apart from the split of the data."""
    columns = [setting.column for setting in plan.settings]
    free = {"scenario.name", "scenario.data.split_seed", *(column.removesuffix(".kind") for column in columns)}
    fixed: dict[str, Any] = {}
    for cell in plan.points[0].cells:
        if cell.agent != "learned":
            continue
        description = cell.description()
        scenario = description.pop("scenario")
        for own in ("agent", "credit", "seed"):
            description.pop(own)
        for path, value in (*_leaves(description, "training"), *_leaves(scenario, "scenario")):
            if not any(path == one or path.startswith(f"{one}.") for one in free):
                fixed[path if path.startswith("training.") else f"{scenario['name']}: {path}"] = value
    return fixed


def _leaves(part: Any, path: str) -> Iterator[tuple[str, Any]]:
    """The settings in nested mappings and lists, by their dotted paths."""
    inside = part.items() if isinstance(part, Mapping) else enumerate(part) if isinstance(part, list) else ()
    if not inside:
        yield path, part
    for key, value in inside:
        yield from _leaves(value, f"{path}.{key}")


def _joined(folder: Path, plan: Plan) -> dict[str, Any]:
    """The record of a plan, with the values, points and scenarios that the folder's sweep has already.

    Raises:
        ValueError: If the folder's sweep varies other settings, or differs in a setting that is not varied.
    """
    new: dict[str, Any] = json.loads(json.dumps(_record(plan)))
    if not is_sweep(folder):
        return new
    old = _read(folder)
    axes, others = ([f"{one['part']}.{one['path']}" for one in record["settings"]] for record in (new, old))
    if axes != others:
        raise ValueError(
            f"{str(folder)!r} holds a sweep of {', '.join(others)}, and this one is of {', '.join(axes)}: choose another --out"
        )
    fixed = old["fixed"]
    known = {path.partition(": ")[0] for path in fixed if not path.startswith("training.")}
    for path in dict.fromkeys([*fixed, *new["fixed"]]):
        name = path.partition(": ")[0]
        if not path.startswith("training.") and not (name in known and any(one.startswith(f"{name}: ") for one in new["fixed"])):
            continue  # a scenario that only one of the two has
        if fixed.get(path) != new["fixed"].get(path):
            raise ValueError(
                f"{str(folder)!r} holds a sweep with another {path.removeprefix('training.')} ({fixed.get(path)!r} and "
                f"{new['fixed'].get(path)!r}): a folder holds one set of settings, so choose another --out"
            )
    for ours, theirs in zip(new["settings"], old["settings"], strict=True):
        values = [*theirs["values"], *(value for value in ours["values"] if value not in theirs["values"])]
        ours["values"] = sorted(values) if are_numbers(values) else values
    points = {one["name"]: one for one in (*old["points"], *new["points"])}
    axis = {f"{one['part']}.{one['path']}": one["values"] for one in new["settings"]}
    ordered = sorted(points.values(), key=lambda point: [axis[column].index(value) for column, value in point["values"].items()])
    agents = list(dict.fromkeys([*old["agents"], *new["agents"]]))
    return {**new, "agents": agents, "fixed": fixed | new["fixed"], "points": ordered}


def _read(folder: Path) -> dict[str, Any]:
    """The record of a folder's sweep.

    Raises:
        ValueError: If there is none, it is damaged, or another version wrote it.
    """
    path = folder / "sweep.json"
    record = read_json(path)
    if record.get("format") != FORMAT:
        raise ValueError(f"{str(path)!r} has format {record.get('format')}, this version reads {FORMAT}: choose another folder")
    kinds = {"settings": list, "agents": list, "fixed": dict, "points": list}
    wrong = [name for name, kind in kinds.items() if not isinstance(record.get(name), kind)]
    wrong = wrong or ["settings"] * any(not {"part", "path", "meaning", "values"} <= set(one) for one in record["settings"])
    columns = {f"{one['part']}.{one['path']}" for one in record["settings"]} if not wrong else set()
    wrong = wrong or ["points"] * any(set(one.get("values", ())) != columns for one in record["points"])
    if wrong:
        raise ValueError(f"{str(path)!r} is damaged (it holds no usable {', '.join(wrong)}): delete it and run the command again")
    return record


def _finished(folder: Path, record: Mapping[str, Any]) -> Iterator[SweptPoint]:
    """The points of which a cell is finished, in the order of the record."""
    for one in record["points"]:
        place = folder / "points" / point_name(one["values"])
        if any(place.glob("cells/*/*/*/result.json")):
            yield SweptPoint(one["values"], tuple(results(place)))


def _gather(folder: Path) -> tuple[Path, Path]:
    """Write ``sweep.csv``: the rows of every point's ``results.csv``, with the varied settings as first columns; and its dictionary."""
    found = swept(folder)
    settings, measures, meanings = columns_of([result for point in found.points for result in point.results])
    varied = [setting.column for setting in found.settings]
    rows = []
    for point in found.points:
        own = {column: "" if value is None else value for column, value in point.values.items()}
        own = {column: value if isinstance(value, str | int | float) else json.dumps(value) for column, value in own.items()}
        table = folder / "points" / point_name(point.values) / "results.csv"
        if table.is_file():  # it is missing where the point was stopped
            rows += [own | row for row in csv.DictReader(io.StringIO(table.read_text(encoding="utf-8")))]
    columns = list(dict.fromkeys([*varied, *CELL_COLUMNS, *settings, *measures, *(column for row in rows for column in row)]))
    text, dictionary = io.StringIO(), io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    head, *entries = meanings.splitlines(keepends=True)
    csv.writer(dictionary, lineterminator="\n").writerows(
        (column, "varied setting", found.meanings[column] or "A setting of the scenario.") for column in varied
    )
    return (
        write_text(folder / "sweep.csv", text.getvalue()),
        write_text(folder / "sweep-columns.csv", head + dictionary.getvalue() + "".join(entries)),
    )
