"""Compare credit rules: train and evaluate every scenario, rule and seed, in parallel processes. What is finished is not run again.

A *cell* is one training and its evaluation, or the evaluation of one scripted agent. Each has a folder under ``cells/``, and is finished
when its ``result.json`` is there. ``results.csv`` gathers all cells, ``results-splits.csv`` what each came to on each data split, and
``results-columns.csv`` says what their columns mean. A folder holds one set of settings: its cells differ in scenario, rule, agent and seed
only, so that everything else that a number depends on is the same for all.

Training seeds and evaluation splits are crossed. Each seed trains on data splits of its own, and all policies are evaluated in the same
cooperatives, on splits that none was trained on. What a scripted agent does depends on no training, so it is evaluated once, not for every
seed. See :mod:`~proxycoop.training.intervals` for what follows from this.
"""

from __future__ import annotations

import hashlib
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from tqdm import tqdm

from .. import __version__, credit
from ..agents import AGENTS, Agent
from ..agents.seats import seated, seats_named
from ..checks import items_of
from ..envs.observations.layout import ObservationLayout
from ..envs.scenario import Scenario
from ..envs.shared import require_served, shared
from ..files import output_folder, read_json, write_json, write_text
from .evaluate import EVALUATION_SEED as EVALUATION_SEED
from .evaluate import EVALUATION_SPLITS, EXACT_COMPARISON, agent_maker, checked_splits, evaluate, held_out_splits
from .executors import cost_of, executor, measuring, require_place
from .executors.costs import MARGIN
from .executors.workers import tell
from .libraries.registry import settings_for
from .measures import CELL_COLUMNS as CELL_COLUMNS
from .measures import EVALUATION, TABLES, tables
from .measures import columns_of as columns_of
from .measures import scenario_digest as scenario_digest
from .measures import training_settings as training_settings
from .outputs import Outputs, locked
from .own_modules import modules_for, modules_of, not_ours
from .settings import TrainSettings, differing
from .train import train

BASELINES = ("none", "all", "random", "honest", "oracle", "planner", "measuring_planner")
"""Scripted agents that every comparison shows beside the learned agents."""

RULE_BOUND = ("best_reply",)
"""Scripted agents that play what the credit rule pays for, so that every comparison shows them under each rule."""

CLASSIC_RULES = ("equal", "data_size", "standalone", "loo", "shapley")
"""Credit rules that are compared by default. Tables and figures show them in this order, which begins with the rule that depends least on
the outcome. Other rules follow by name."""

MOST_TRIED = 250_000
"""Most coalitions that replying once in a round may evaluate in each environment for :data:`RULE_BOUND` agents to be in a comparison. That
is minutes for each split of the evaluation; see :func:`tried`."""
FORMAT = 5
_UNTRAINED = "every-seed"
_DIGEST = "scenario.data.file.sha256"
"""Folder of a scripted agent's cell, where that of a training has its seed."""
EPISODES = 16
"""Episodes of an evaluation on each of its splits."""


@dataclass(frozen=True)
class Cell:
    """One row of a comparison.

    Attributes:
        settings: What to train. For a scripted agent, only scenario, credit and seats are used.
        agent: ``learned``, or the name of a scripted agent. It plays all seats that ``settings.seats`` gives to no other.
        episodes: Episodes of the evaluation on each split.
        evaluation_splits: Seeds of the data splits of the evaluation.
    """

    settings: TrainSettings
    agent: str
    episodes: int
    evaluation_splits: tuple[int, ...] = tuple(EVALUATION_SPLITS)

    @property
    def name(self) -> str:
        """Its name in messages, which is also its folder under ``cells/``."""
        if self.agent != "learned":
            under = f"-{_folder_name(self.settings.credit)}" * (self.agent in RULE_BOUND)
            return f"{self.settings.scenario.name}/agent-{self.agent}{under}/{_UNTRAINED}"
        return f"{self.settings.scenario.name}/{_folder_name(self.settings.credit)}/seed-{self.settings.seed}"

    def description(self) -> dict[str, Any]:
        """Everything that the cell's result depends on."""
        settings = self.settings.plain()
        settings.pop("checkpoint_every", None)
        if self.agent != "learned":
            settings = {name: settings[name] for name in ("scenario", "credit", "seats") if name in settings}
        evaluation = {"episodes": self.episodes, "evaluation_splits": list(self.evaluation_splits)}
        return {"format": FORMAT, "agent": self.agent, **evaluation, **settings}


def rules_named(names: Sequence[str] | None, scenarios: Sequence[Scenario] = ()) -> list[str]:
    """The rules of a comparison: those that are named, each once, or the classic ones if none is named.

    ``all`` stands for every registered rule that can serve all of the scenarios.
    """

    def serves(rule: str) -> bool:
        try:
            for scenario in scenarios:
                require_served(scenario, credit.make(rule), rule)
        except ValueError:
            return False
        return True

    every = filter(serves, credit.RULES)
    names = items_of("names", names or CLASSIC_RULES, "rules")
    return list(dict.fromkeys(rule for name in names for rule in (every if name == "all" else [name])))


def cells(
    scenarios: Sequence[Scenario],
    rules: Sequence[str],
    seeds: Iterable[int],
    *,
    episodes: int = EPISODES,
    evaluation_splits: int | Sequence[int] = len(EVALUATION_SPLITS),
    resplit: bool = True,
    library: str = "sb3",
    algo: str | None = None,
    **training: Any,
) -> list[Cell]:
    """The cells of a comparison: a training for every rule and seed, and each scripted agent once, or once a rule (:data:`RULE_BOUND`).

    Agents bound to a rule are left out where they would take too long; see :func:`left_out`.

    Args:
        scenarios: Cooperatives; their names must differ.
        rules: Credit rules, by name, with arguments if they take any.
        seeds: Seeds of the trainings.
        episodes: Episodes of each evaluation on each of its splits.
        evaluation_splits: Seeds of the data splits on which all are evaluated; or how many, counted from
            :data:`~proxycoop.training.evaluate.EVALUATION_SPLITS`'s first.
        resplit: Whether each seed trains on data splits of its own, from ``seed·splits`` on with ``splits`` of the training's settings, so
            that intervals over seeds cover the splits of the training as well. Else all train on those from the scenario's ``split_seed``
            on.
        library: RL library that trains.
        algo: Algorithm of the library; its first if not given.
        **training: Other fields of the algorithm's settings.

    Raises:
        ValueError: If a rule is unknown, cannot serve a scenario, or is defined where other processes cannot find it; if two scenarios
            have the same name; or if a training would play on a split of the evaluation.
    """
    scenarios, rules, seeds = (
        items_of("scenarios", scenarios, "scenarios"),
        items_of("rules", rules, "rules"),
        items_of("seeds", seeds, "seeds"),
    )
    if named := next((one for one in scenarios if not isinstance(one, Scenario)), None):
        raise ValueError(f"scenarios holds {named!r}: give scenarios, such as scenario.load('digits')")
    if len({scenario.name for scenario in scenarios}) < len(scenarios):
        raise ValueError(f"scenarios have the names {', '.join(s.name for s in scenarios)}: each must have a name of its own")
    if isinstance(evaluation_splits, int):
        evaluation_splits = held_out_splits(evaluation_splits)
    held_out = tuple(checked_splits("evaluation_splits", evaluation_splits))
    made = []
    for scenario in scenarios:
        for rule in rules:
            require_served(scenario, credit.make(rule), rule)
            modules_of(rule)

        def settings_of(rule: str, seed: int, scenario: Scenario = scenario) -> TrainSettings:
            settings = settings_for(library, algo, scenario=scenario, credit=rule, seed=seed, **training)
            if resplit:
                data = scenario.data.model_copy(update={"split_seed": seed * settings.splits})
                settings = settings.model_copy(update={"scenario": scenario.model_copy(update={"data": data})})
            if both := [split for split in held_out if split in training_splits(settings)]:
                own = "choose smaller seeds" if resplit else f"set data.split_seed lower, which is {scenario.data.split_seed}"
                raise ValueError(f"seed {seed} trains on split {both[0]} of the data, which the evaluation holds out: {own}")
            return settings

        trained = [settings_of(rule, seed) for seed in seeds for rule in rules]
        made += [Cell(settings, "learned", episodes, held_out) for settings in trained]
        # the rule changes what scripted agents are paid, not what they do; so one rule serves all, and cells can be reused
        update = {"credit": "shapley" if scenario.n_agents <= EXACT_COMPARISON else "equal", "scenario": scenario, "seed": 0}
        paid = [settings.model_copy(update=update) for settings in trained[:1]]
        scripted = [agent for agent in BASELINES if cast(type[Agent], AGENTS[agent]).plays(scenario)]
        made += [Cell(settings, agent, episodes, held_out) for settings in paid for agent in scripted]
        bound = [settings.model_copy(update={"credit": rule}) for settings in paid for rule in rules]
        can = scenario.participation is None
        within = [settings for settings in bound if can and tried(scenario, settings.credit) <= MOST_TRIED]
        made += [Cell(settings, agent, episodes, held_out) for settings in within for agent in RULE_BOUND]
    return made


def tried(scenario: Scenario, rule: str) -> int:
    """Coalitions that agents bound to a rule evaluate in a round and environment when each of N replies once: N·2^K times the rule's."""
    n_agents = scenario.n_seats
    each: int = 2 ** ObservationLayout.of(scenario).n_items
    return n_agents * each * max(credit.make(rule).cost(n_agents), 1)


def left_out(scenarios: Sequence[Scenario], rules: Sequence[str]) -> list[str]:
    """Why :func:`cells` leaves agents that are bound to a rule out, a sentence for each scenario and rule where it does."""
    return [
        f"{RULE_BOUND[0]} is left out under {rule} in {scenario.name}: in one round, to try the sets of lots once takes "
        f"{tried(scenario, rule):,} coalition evaluations, and at most {MOST_TRIED:,} are allowed here"
        for scenario in scenarios
        for rule in rules
        if tried(scenario, rule) > MOST_TRIED
    ]


def training_splits(settings: TrainSettings) -> range:
    """Seeds of the data splits that a training plays on: home."""
    first = settings.scenario.data.split_seed
    return range(first, first + settings.splits)


def compare(
    all_cells: Sequence[Cell],
    out: str | Path,
    *,
    jobs: int | None = None,
    ray: str | None = None,
    quiet: bool = False,
    overwrite: bool = False,
    inputs: Mapping[Path, str] | None = None,
) -> Path:
    """Finish all cells and gather their results.

    While it works, the folder is locked. If this process ends, however it ends, the processes that it started end too. Cells that are
    finished by then are kept, and the others go on from their checkpoints when it is called again. On a cluster the others begin anew.

    Args:
        all_cells: What to run; see :func:`cells`. Finished cells are not run again.
        out: Folder of the comparison.
        jobs: Processes that run at once; by default one per core.
        ray: Address of a Ray cluster on which cells are run instead; see :mod:`~proxycoop.training.executors`. The table is the same.
        quiet: Whether to show no progress: neither a bar on a terminal, nor a line for each finished cell elsewhere.
        overwrite: Whether to take a folder over in which other things have the names of ours. Finished cells are kept in any case.
        inputs: Files that were read, each with what it is, in words. They are never replaced.

    Returns:
        The path of ``results.csv``.

    Raises:
        ValueError: If a scenario's data, values and model do not fit each other, the folder cannot be written, another process works in
            it, something in it is not ours to replace (see :mod:`~proxycoop.training.outputs`), it holds cells of other settings, or a
            result is damaged. If ``jobs`` and ``ray`` are both given, or the cluster cannot be joined. Also if cells failed; then the
            message names them, and all others are finished.
    """
    require_place(jobs, ray)
    for cell in all_cells:
        _modules_of(cell)  # refuses what other processes cannot find
    if not Path(out).exists():
        require_buildable(all_cells)
    folder = output_folder(out)
    with locked(folder, "compare"):
        outputs = Outputs("compare", overwrite=overwrite, inputs=inputs)
        _require_one_set(folder, all_cells)
        _require_resumable(folder, all_cells)
        outputs.own_folder(folder, {"cells": None, **dict.fromkeys(TABLES)}, known="cells")
        waiting = [cell for cell in all_cells if not _result_of(cell, folder).exists()]
        require_buildable(waiting)
        failures = _work_off(waiting, folder, jobs, quiet, ray) if waiting else {}
        path = folder / "results.csv"
        if len(failures) < len(all_cells):
            for name, text in tables(results(folder)).items():
                outputs.wrote(write_text(folder / name, text))
    if failures:
        told = "; ".join(f"{name}: {error}" for name, error in failures.items())
        others = ", the others are finished" * (len(failures) < len(all_cells))
        raise ValueError(f"{len(failures)} of {len(all_cells)} cells failed{others}: {told}")
    return path


def require_buildable(some_cells: Iterable[Cell]) -> None:
    """Build what each scenario plays with once, before processes start.

    Raises:
        ValueError: If a scenario's data, values and model do not fit each other.
    """
    for scenario in {cell.settings.scenario.name: cell.settings.scenario for cell in some_cells}.values():
        shared(scenario, torch.float32)


def results(out: str | Path) -> list[dict[str, Any]]:
    """The results of all finished cells of a comparison, sorted by their folders: scenario, rule or agent, and seed.

    Raises:
        ValueError: If there are none, one is damaged or was written by another version, or they are of different settings.
    """
    found = _require_one_set(Path(out))
    if not found:
        trained = (Path(out) / "run.json").exists()
        remedy = f"it is a training run: see 'proxycoop evaluate {out}'" if trained else f"run 'proxycoop compare --out {out}' first"
        raise ValueError(f"{str(out)!r} holds no finished results: {remedy}")
    return found


def _work_off(waiting: Sequence[Cell], folder: Path, jobs: int | None, quiet: bool, ray: str | None) -> dict[str, BaseException]:
    """Run cells in processes of their own. Returns what failed, by the cells' names."""
    failures: dict[str, BaseException] = {}
    modules = all_modules(waiting)
    total = sum(_work(cell) for cell in waiting)
    bar = tqdm(total=total, unit=" agent-steps", unit_scale=True, dynamic_ncols=True, disable=quiet or None)
    lines = bar.disable and not quiet
    n_done = 0

    def moved(steps: int) -> None:
        bar.update(steps) if steps else bar.refresh()

    with bar, executor(modules, jobs=jobs, ray=ray, n_tasks=len(waiting), moved=moved) as workers:
        bar.set_description(f"0 of {len(waiting)} cells")
        memory = _memory_of(waiting, folder) if ray else {}
        try:
            # longest first, so that the last process does not work alone for long
            running: dict[Future[str], Cell] = {}
            for cell in sorted(waiting, key=_work, reverse=True):
                place = _result_of(cell, folder).parent
                running[workers.submit(_run, cell, place, modules, memory=memory.get(cell.settings.scenario.name))] = cell
            for n_done, future in enumerate(as_completed(running), 1):
                name, error = running[future].name, future.exception()
                if error is not None:
                    failures[name] = error
                bar.set_description(f"{n_done} of {len(waiting)} cells")
                if lines:
                    sys.stderr.write(f"{n_done} of {len(waiting)}: {name}: {future.result() if error is None else f'failed: {error}'}\n")
                    sys.stderr.flush()
        except (KeyboardInterrupt, SystemExit):
            if not quiet:  # those that are not finished continue from their checkpoints next time, if they have any
                bar.write(f"stopped; {n_done} of {len(waiting)} cells are finished and kept, the same command goes on", file=sys.stderr)
            raise
    return failures


def all_modules(some_cells: Iterable[Cell]) -> list[str]:
    """The modules that processes import before they run cells.

    Raises:
        ValueError: If one cannot be imported elsewhere, because it was defined in an interactive session.
    """
    return list(dict.fromkeys(module for cell in some_cells for module in _modules_of(cell)))


def _memory_of(waiting: Sequence[Cell], folder: Path) -> dict[str, int]:
    """Bytes of memory that a cell needs, by its scenario, as far as finished cells of the folder say it."""
    found: dict[str, int] = {}
    for name in {cell.settings.scenario.name for cell in waiting}:
        costs = map(cost_of, (path.parent for path in folder.glob(f"cells/{name}/*/*/result.json")))
        peaks = [cost.peak_memory for cost in costs if cost is not None and cost.peak_memory is not None]
        if peaks:
            found[name] = int(MARGIN * max(peaks))
    return found


def _modules_of(cell: Cell) -> list[str]:
    """What a process imports before it runs a cell."""
    seated = [seat.partition("=")[2] for seat in cell.settings.seats]
    return modules_for(cell.settings.scenario, cell.settings.credit, seated)


def _work(cell: Cell) -> int:
    """Agent-steps of a cell, for the progress bar. Agents bound to a rule try all sets of their lots in every step."""
    each = cell.episodes * cell.settings.scenario.horizon * cell.settings.scenario.n_agents
    steps = 4 * each * len(cell.evaluation_splits)
    if cell.agent == "learned":
        return steps + cell.settings.total_steps + each * cell.settings.splits
    return steps // 2 * 2 ** ObservationLayout.of(cell.settings.scenario).n_items if cell.agent in RULE_BOUND else steps


def _folder_name(rule: str) -> str:
    """A rule's text as a folder name. Letters that some file systems refuse are left out; then a digest keeps the names apart."""
    safe = re.sub(r"[^\w.=,()-]", "", rule)[:80]
    return rule if safe == rule else f"{safe}-{hashlib.sha256(rule.encode()).hexdigest()[:10]}"


def _run(cell: Cell, place: Path, modules: Sequence[str]) -> str:
    """Run a cell in its folder, in a process of its own: train, unless its agent is scripted, and evaluate.

    Returns:
        What came of it, in a few words.
    """
    began = time.perf_counter()
    with measuring(output_folder(place)):
        welfare = _result(cell, place, modules)
    return f"{time.perf_counter() - began:.0f} s" + ("" if welfare is None else f", welfare {welfare:.1f}")


def _result(cell: Cell, place: Path, modules: Sequence[str]) -> float | None:
    """Write a cell's result into its folder. Returns the mean welfare."""
    told = 0

    def progress(done: int, total: int, metrics: dict[str, float]) -> None:
        nonlocal told
        del total, metrics
        tell(done - told)
        told = done

    settings = cell.settings
    curve: list[dict[str, float]] = []
    if cell.agent == "learned":
        # the comparison's folder is ours, and with it all that stands under cells/
        train(settings, place, resume=True, overwrite=True, progress=progress)
        curve = read_json(place / "curve.json")["updates"]
        maker = agent_maker("learned", path=place)
    else:
        maker = agent_maker(cell.agent)
    evaluation = evaluate(
        settings.scenario,
        settings.credit,
        lambda: seated(maker(), seats_named(settings.seats, settings.scenario.n_agents), instead=True),
        episodes=cell.episodes,
        seed=EVALUATION_SEED,
        splits=cell.evaluation_splits,
        home=training_splits(settings) if cell.agent == "learned" else None,
        unscreened=cell.agent not in RULE_BOUND,
    )
    result = {"version": __version__, "imports": not_ours(modules), "cell": cell.description(), **evaluation.to_dict(), "curve": curve}
    write_json(place / "result.json", result)
    tell(_work(cell) - told)
    return evaluation.measures["welfare"].mean


def _result_of(cell: Cell, folder: Path) -> Path:
    """Where a cell's result is, or will be."""
    return folder / "cells" / cell.name / "result.json"


def _require_one_set(folder: Path, new: Sequence[Cell] = ()) -> list[dict[str, Any]]:
    """Refuse to gather in one folder what was trained or evaluated by different settings.

    Returns:
        The results that are in the folder.

    Raises:
        ValueError: If cells in the folder, finished or not, and the new cells differ in more than scenario, rule, agent and seed. The
            message names what differs, with both settings. Also if a result is damaged.
    """
    found = {path: _read_result(path) for path in sorted(folder.glob("cells/*/*/*/result.json"))}
    records = [(result["cell"], repr(str(path))) for path, result in found.items()]
    for path in sorted(folder.glob("cells/*/*/*/run.json")):
        if path.with_name("result.json") not in found and isinstance(settings := read_json(path).get("settings"), dict):
            records.append(({"agent": "learned", **settings}, repr(str(path))))
    records += [(cell.description(), "") for cell in new]
    seen: dict[tuple[str, ...], tuple[dict[str, Any], str]] = {}
    splits: dict[str, list[tuple[int, int]]] = {}
    for cell, where in records:
        for part, settings in _shared(cell):
            old, first = seen.setdefault(part, (settings, where))
            if changed := [name for name in old | settings if old.get(name) != settings.get(name)]:
                if _DIGEST in changed and not where:
                    file = str(settings.get("scenario.data.file.path"))
                    raise ValueError(
                        f"{first} is the result of another content of {file!r} (the data file has changed): choose another --out, or put "
                        "the old file back"
                        if first
                        else f"the new cells are of two contents of {file!r}: give each scenario a name of its own"
                    )
                both = "; ".join(f"{name}: {_short(old.get(name))} and {_short(settings.get(name))}" for name in changed)
                which = f"{first} and {where} are results" if where else f"{first} is the result" if first else "the new cells are results"
                raise ValueError(
                    f"{which} of another {', '.join(changed)} ({both}): a folder holds one set of settings, so choose another --out"
                )
        if cell["agent"] != "learned":
            continue
        name = cell["scenario"]["name"]
        splits.setdefault(name, []).append((own_split(cell), cell["scenario"]["data"]["split_seed"]))
        if len({split for _, split in splits[name]}) > 1 and any(own != split for own, split in splits[name]):
            raise ValueError(
                f"{str(folder)!r}: every seed of scenario {name!r} trains on splits of its own in some cells, all on the same in others "
                "(--same-split): a folder holds one set of settings, so choose another --out"
            )
    return list(found.values())


def _require_resumable(folder: Path, new: Sequence[Cell]) -> None:
    """Refuse to go on with a training by settings with which it did not begin.

    Raises:
        ValueError: Naming the training and the settings.
    """
    for cell in new:
        path = _result_of(cell, folder).with_name("run.json")
        if cell.agent == "learned" and path.exists() and not path.with_name("result.json").exists():
            old, plain = read_json(path).get("settings"), cell.settings.plain()
            if isinstance(old, dict) and (others := differing(old, plain)):
                raise ValueError(f"{str(path)!r} is that of a training with another {', '.join(others)}: choose another --out")


def _shared(cell: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """What a cell has in common with the others of its folder, in parts: evaluation, training, and its scenario apart from the split."""
    if "episodes" in cell:
        yield ("evaluation",), {name: cell[name] for name in EVALUATION}
    yield ("seats", cell["scenario"]["name"]), {"seats": cell.get("seats", [])}
    if cell["agent"] == "learned":
        yield ("training",), training_settings(cell)
    scenario = dict(_leaves(cell["scenario"]))
    del scenario["scenario.data.split_seed"]
    yield ("scenario", cell["scenario"]["name"]), scenario


def own_split(cell: Mapping[str, Any]) -> int:
    """The first split on which a seed trains where each has splits of its own."""
    own: int = cell["seed"] * cell.get("splits", 1)
    return own


def _leaves(part: Any, path: str = "scenario") -> Iterator[tuple[str, Any]]:
    """The settings in nested mappings, by their dotted paths."""
    if isinstance(part, Mapping) and part:
        for key, value in part.items():
            yield from _leaves(value, f"{path}.{key}")
    else:
        yield path, part


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _read_result(path: Path) -> dict[str, Any]:
    result = read_json(path)
    missing = [key for key in ("cell", "measures", "splits", "by_split", "series", "curve") if key not in result]
    if "cell" not in missing and not isinstance(result["cell"], dict):
        raise ValueError(f"{str(path)!r} is damaged (its cell is a {type(result['cell']).__name__}): delete it and run the command again")
    written = result.get("cell", {}).get("format")
    if missing or written != FORMAT:
        other = written is not None and written != FORMAT
        what = f"has format {written}, this version reads {FORMAT}" if other else f"lacks {', '.join(missing)}"
        raise ValueError(f"{str(path)!r} {what}: delete it and run the command again")
    if damage := _damage(result):
        raise ValueError(f"{str(path)!r} is damaged ({damage}): delete it and run the command again")
    return result


def _damage(result: Mapping[str, Any]) -> str | None:
    """What in a result is not as :func:`_run` writes it; ``None`` if nothing is."""
    cell = result["cell"]
    for name, kind in (("agent", str), ("credit", str), ("episodes", int), ("evaluation_splits", list), ("scenario", dict)):
        if not isinstance(cell.get(name), kind):
            return f"its cell has no {name}"
    if cell["agent"] == "learned" and not isinstance(cell.get("seed"), int):
        return "its cell has no seed"
    scenario = cell["scenario"]
    for name, kind in (("name", str), ("principals", int), ("values", dict), ("data", dict)):
        if not isinstance(scenario.get(name), kind):
            return f"its scenario has no {name}"
    if not isinstance(scenario["data"].get("split_seed"), int):
        return "its scenario has no data.split_seed"
    if not isinstance(result["measures"], dict) or not all(_numbers(pair) and len(pair) == 2 for pair in result["measures"].values()):
        return "its measures are no pairs of numbers"
    by_split, n_splits = result["by_split"], len(cell["evaluation_splits"])
    if result["splits"] != cell["evaluation_splits"] or not isinstance(by_split, dict):
        return "its splits are not those of its cell"
    if not all(_numbers(means) and len(means) == n_splits for means in by_split.values()):
        return "its measures by split are not one for each split"
    if not isinstance(result["series"], dict) or not all(_numbers(series) for series in result["series"].values()):
        return "its series are no lists of numbers"
    if not isinstance(result["curve"], list) or not all(isinstance(point, dict) and "agent_steps" in point for point in result["curve"]):
        return "its curve is no list of updates"
    return None


def _numbers(part: object) -> bool:
    """Whether this is a list of numbers, of ``None``, or of such lists."""
    return isinstance(part, list) and all(entry is None or isinstance(entry, int | float) or _numbers(entry) for entry in part)
