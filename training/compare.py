"""Compare credit rules: train and evaluate every scenario, rule and seed, in parallel processes. What is finished is not run again.

A *cell* is one training and its evaluation, or the evaluation of one scripted agent. Each has a folder under ``cells/``, and is finished
when its ``result.json`` is there. ``results.csv`` gathers all cells.
"""

from __future__ import annotations

import csv
import hashlib
import io
import multiprocessing
import os
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from queue import Empty
from threading import Thread
from typing import Any, cast

import torch
from tqdm import tqdm

from .. import __version__, credit
from ..agents import AGENTS, Agent
from ..envs.scenario import Scenario
from ..envs.shared import require_served
from ..files import output_folder, read_json, write_json, write_text
from .evaluate import EXACT_COMPARISON, agent_maker, evaluate
from .libraries.registry import settings_for
from .rule_modules import import_modules, modules_of
from .settings import TrainSettings
from .train import train

BASELINES = ("none", "all", "random", "honest", "oracle", "planner")
"""Scripted agents that every comparison shows beside the learned agents."""

CLASSIC_RULES = ("equal", "data_size", "standalone", "loo", "shapley")
"""Credit rules that are compared by default. Tables and figures show them in this order, which begins with the rule that depends least on
the outcome. Other rules follow by name."""

FORMAT = 3
EVALUATION_SEED = 1_000_000
"""First seed of the cooperatives in evaluations. A training draws its cooperatives' seeds from its own seed."""


@dataclass(frozen=True)
class Cell:
    """One row of a comparison.

    Attributes:
        settings: What to train. For a scripted agent, only scenario, credit and seed are used.
        agent: ``learned``, or the name of a scripted agent.
        episodes: Episodes of the evaluation.
    """

    settings: TrainSettings
    agent: str
    episodes: int

    @property
    def name(self) -> str:
        """Its name in messages, which is also its folder under ``cells/``."""
        who = _folder_name(self.settings.credit) if self.agent == "learned" else f"agent-{self.agent}"
        return f"{self.settings.scenario.name}/{who}/seed-{self.settings.seed}"

    def description(self) -> dict[str, Any]:
        """Everything that the cell's result depends on."""
        settings = self.settings.plain()
        settings.pop("checkpoint_every", None)
        if self.agent != "learned":
            settings = {name: settings[name] for name in ("seed", "scenario", "credit")}
        return {"format": FORMAT, "agent": self.agent, "episodes": self.episodes, **settings}


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
    return list(dict.fromkeys(rule for name in names or CLASSIC_RULES for rule in (every if name == "all" else [name])))


def cells(
    scenarios: Sequence[Scenario],
    rules: Sequence[str],
    seeds: Iterable[int],
    *,
    episodes: int = 64,
    resplit: bool = True,
    library: str = "sb3",
    algo: str | None = None,
    **training: Any,
) -> list[Cell]:
    """The cells of a comparison.

    Args:
        scenarios: Cooperatives; their names must differ.
        rules: Credit rules, by name, with arguments if they take any.
        seeds: Seeds. Each is the seed of a training and of its evaluation.
        episodes: Episodes of each evaluation.
        resplit: Whether to split the data by the cell's seed, so that intervals over seeds cover the split as well.
        library: RL library that trains.
        algo: Algorithm of the library; its first if not given.
        **training: Other fields of the algorithm's settings.

    Raises:
        ValueError: If a rule is unknown, cannot serve a scenario, or is defined where other processes cannot find it; or if two scenarios
            have the same name.
    """
    if len({scenario.name for scenario in scenarios}) < len(scenarios):
        raise ValueError(f"scenarios have the names {', '.join(s.name for s in scenarios)}: each must have a name of its own")
    made = []
    for scenario in scenarios:
        for rule in rules:
            require_served(scenario, credit.make(rule), rule)
            modules_of(rule)
        for seed in seeds:
            data = scenario.data.model_copy(update={"split_seed": seed}) if resplit else scenario.data
            settings = [
                settings_for(library, algo, scenario=scenario.model_copy(update={"data": data}), credit=rule, seed=seed, **training)
                for rule in rules
            ]
            made += [Cell(one, "learned", episodes) for one in settings]
            # the rule changes what scripted agents are paid, not what they do; so one rule serves all, and cells can be reused
            paid = settings[0].model_copy(update={"credit": "shapley" if scenario.principals <= EXACT_COMPARISON else "equal"})
            made += [Cell(paid, agent, episodes) for agent in BASELINES if cast(type[Agent], AGENTS[agent]).plays(scenario)]
    return made


def compare(all_cells: Sequence[Cell], out: str | Path, *, jobs: int | None = None, quiet: bool = False) -> Path:
    """Finish all cells and gather their results.

    Args:
        all_cells: What to run; see :func:`cells`. Finished cells are not run again.
        out: Folder of the comparison.
        jobs: Processes that run at once; by default one per core.
        quiet: Whether to show no progress bar.

    Returns:
        The path of ``results.csv``.

    Raises:
        ValueError: If the folder cannot be written or holds results of other settings, or if a result is damaged. Also if cells failed;
            then the message names them, and all others are finished.
    """
    folder = output_folder(out)
    waiting = [cell for cell in all_cells if not _finished(cell, folder)]
    failures: dict[str, BaseException] = {}
    if waiting:
        context = multiprocessing.get_context("spawn")
        with (
            context.Manager() as manager,
            tqdm(
                total=sum(_work(cell) for cell in waiting), unit=" agent-steps", unit_scale=True, dynamic_ncols=True, disable=quiet or None
            ) as bar,
        ):
            queue = manager.Queue()
            n_done = 0
            modules = sorted({module for cell in waiting for module in modules_of(cell.settings.credit)})
            n_jobs = min(jobs or os.cpu_count() or 1, len(waiting))
            with ProcessPoolExecutor(n_jobs, context, initializer=_begin, initargs=(modules,)) as pool:
                bar.set_description(f"{n_done} of {len(waiting)} cells")
                watcher = Thread(target=_move, args=(bar, queue), daemon=True)
                watcher.start()
                # longest first, so that the last process does not work alone for long
                ordered = sorted(waiting, key=_work, reverse=True)
                running: dict[Future[None], Cell] = {pool.submit(_run, cell, str(folder), queue): cell for cell in ordered}
                try:
                    for future in as_completed(running):
                        if (error := future.exception()) is not None:
                            failures[running[future].name] = error
                        n_done += 1
                        bar.set_description(f"{n_done} of {len(waiting)} cells")
                except KeyboardInterrupt:
                    pool.shutdown(wait=False, cancel_futures=True)  # running cells continue from their checkpoints next time
                    raise
                finally:
                    queue.put(None)
                    watcher.join()
    path = folder / "results.csv"
    if len(failures) < len(all_cells):
        _gather(folder)
    if failures:
        told = "; ".join(f"{name}: {error}" for name, error in failures.items())
        raise ValueError(f"{len(failures)} of {len(all_cells)} cells failed, the others are finished: {told}")
    return path


def results(out: str | Path) -> list[dict[str, Any]]:
    """The results of all finished cells of a comparison, sorted by their folders: scenario, rule or agent, and seed.

    Raises:
        ValueError: If there are none, or one is damaged or was written by another version.
    """
    paths = sorted(Path(out).glob("cells/*/*/seed-*/result.json"))
    if not paths:
        raise ValueError(f"{str(out)!r} holds no finished results: run 'proxycoop compare --out {out}' first")
    return [_read_result(path) for path in paths]


def _work(cell: Cell) -> int:
    """Agent-steps of a cell, for the progress bar."""
    steps = 4 * cell.episodes * cell.settings.scenario.horizon * cell.settings.scenario.principals
    return steps + (cell.settings.total_steps if cell.agent == "learned" else 0)


def _move(bar: tqdm[Any], queue: Any) -> None:
    while True:
        try:
            steps = queue.get(timeout=1)
        except Empty:
            bar.refresh()
            continue
        if steps is None:
            return
        bar.update(steps)


def _begin(modules: Sequence[str]) -> None:
    """Set up a process: one thread, because others run beside it, and the modules that register rules."""
    torch.set_num_threads(1)
    import_modules(modules)


def _folder_name(rule: str) -> str:
    """A rule's text as a folder name. Letters that some file systems refuse are left out; then a digest keeps the names apart."""
    safe = re.sub(r"[^\w.=,()-]", "", rule)[:80]
    return rule if safe == rule else f"{safe}-{hashlib.sha256(rule.encode()).hexdigest()[:10]}"


def _run(cell: Cell, folder: str, queue: Any) -> None:
    """Run a cell in a process of its own: train, unless its agent is scripted, and evaluate."""
    place = output_folder(Path(folder) / "cells" / cell.name)
    told = 0

    def progress(done: int, total: int, metrics: dict[str, float]) -> None:
        nonlocal told
        del total, metrics
        queue.put(done - told)
        told = done

    settings = cell.settings
    curve: list[dict[str, float]] = []
    if cell.agent == "learned":
        train(settings, place, resume=True, progress=progress)
        curve = read_json(place / "curve.json")["updates"]
        maker = agent_maker("learned", path=place)
    else:
        maker = agent_maker(cell.agent)
    evaluation = evaluate(
        settings.scenario, settings.credit, maker, episodes=cell.episodes, seed=EVALUATION_SEED + settings.seed * cell.episodes
    )
    result = {"version": __version__, "cell": cell.description(), **evaluation.to_dict(), "curve": curve}
    write_json(place / "result.json", result)
    queue.put(_work(cell) - told)


def _finished(cell: Cell, folder: Path) -> bool:
    """Whether the cell has a result.

    Raises:
        ValueError: If the result is damaged, or is that of other settings.
    """
    path = folder / "cells" / cell.name / "result.json"
    if not path.exists():
        return False
    old, new = _read_result(path)["cell"], cell.description()
    if changed := sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key)):
        raise ValueError(f"{str(path)!r} is the result of another {', '.join(changed)}: choose another --out, or delete it")
    return True


def _read_result(path: Path) -> dict[str, Any]:
    result = read_json(path)
    missing = [key for key in ("cell", "measures", "series", "curve") if key not in result]
    if missing or result["cell"].get("format") != FORMAT:
        what = f"lacks {', '.join(missing)}" if missing else f"has format {result['cell'].get('format')}, this version reads {FORMAT}"
        raise ValueError(f"{str(path)!r} {what}: delete it and run the command again")
    return result


def _gather(folder: Path) -> None:
    """Write ``results.csv``: one row a cell, one column a measure."""
    found = results(folder)
    names = sorted({name for result in found for name in result["measures"]})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["scenario", "agent", "credit", "seed", *names])
    for result in found:
        cell, measures = result["cell"], result["measures"]
        means = [measures[name][0] if name in measures else None for name in names]
        writer.writerow(
            [cell["scenario"]["name"], cell["agent"], cell["credit"], cell["seed"], *("" if mean is None else mean for mean in means)]
        )
    write_text(folder / "results.csv", text.getvalue())
