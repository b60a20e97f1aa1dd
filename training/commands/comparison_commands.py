"""The commands of comparisons: ``proxycoop compare`` and ``proxycoop report``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..terminal import complain, say, show
from .calibration import examine
from .options import (
    AlgoOption,
    EvaluationSplitsOption,
    HyperOption,
    JobsOption,
    LibraryOption,
    OverwriteOption,
    RayOption,
    SeatOption,
    SetOption,
    hyperparameters,
    inputs_of,
    load_scenario,
    named_as_options,
)

if TYPE_CHECKING:
    from ..executors import Cost

COMPARE_EPILOG = (
    "Examples: `proxycoop compare --seeds 5 --out out/table` · `proxycoop compare -s digits -r equal -r shapley --out out/two` · "
    "`proxycoop compare -r shapley -r 'shapley(budget=30)' -r \"normalised(rule='loo')\" --out out/three` · "
    "run it again to continue after an interruption"
)
COST_EPILOG = (
    "Examples: `proxycoop cost out/table` · `proxycoop cost out/table --cells 10000 --cores 64 --price 0.04` (what 10,000 such cells would "
    "cost on 64 cores, at 0.04 an hour of one core)"
)
REPORT_EPILOG = (
    "Examples: `proxycoop report out/table` · `proxycoop report out/table --parts docs/results` · "
    "`proxycoop report out/table --paper paper/results` (LaTeX and PDF)"
)


def compare(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the comparison.")],
    scenario: Annotated[list[str] | None, typer.Option("--scenario", "-s", help="Scenario. May be repeated. [default: digits]")] = None,
    rule: Annotated[
        list[str] | None,
        typer.Option(
            "--rule",
            "-r",
            help="Credit rule, with arguments if it takes any. `all` is every rule that can serve the scenarios. May be repeated. "
            "[default: equal, data_size, standalone, loo, shapley]",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Number of seeds.")] = 5,
    first_seed: Annotated[int, typer.Option("--first-seed", min=0, help="The first seed; the others follow by a step of one.")] = 0,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Agent-steps of each training.")] = 120_000,
    episodes: Annotated[int, typer.Option("--episodes", min=2, help="Episodes of each evaluation on each of its data splits.")] = 16,
    evaluation_splits: EvaluationSplitsOption = 10,
    jobs: JobsOption = None,
    ray: RayOption = None,
    same_split: Annotated[bool, typer.Option("--same-split", help="Train on the scenario's own data splits with all seeds.")] = False,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Write into the folder although others made what is in it. Finished cells are kept in any case."),
    ] = False,
    seat: SeatOption = None,
    library: LibraryOption = "sb3",
    algo: AlgoOption = None,
    hyper: HyperOption = None,
    overrides: SetOption = None,
) -> None:
    """Train every rule in every scenario with every seed, and evaluate all beside scripted agents on data splits that nobody trained on.

    Each seed trains on data splits of its own, eight by default (`--hyper splits=1` for one). Intervals cover other seeds and other
    evaluation splits. Finished cells are not run again.
    """
    from ..analysis.summary import console_table, summarise
    from ..compare import cells, left_out, results, rules_named
    from ..compare import compare as run
    from ..executors import require_place

    require_place(jobs, ray)
    if not same_split and any(one.partition("=")[0].strip() == "data.split_seed" for one in overrides or ()):
        raise ValueError(
            "--set data.split_seed: each seed trains on data splits of its own, from seed·splits on: choose them by --first-seed, or train "
            "all seeds on the splits that you set, with --same-split"
        )
    loaded = [load_scenario(name, overrides) for name in scenario or ["digits"]]
    rules = rules_named(rule, loaded)
    chosen = hyperparameters(library, algo, hyper)
    with named_as_options(chosen):
        todo = cells(
            loaded,
            rules,
            range(first_seed, first_seed + seeds),
            episodes=episodes,
            evaluation_splits=evaluation_splits,
            resplit=not same_split,
            library=library,
            algo=algo,
            total_steps=steps,
            seats=tuple(seat or ()),
            **chosen,
        )
    n_trainings = sum(cell.agent == "learned" for cell in todo)
    complain(f"{len(todo)} cells, {n_trainings} of them trainings of {steps:,} agent-steps; finished cells are not run again\n")
    complain("".join(f"{reason}\n" for reason in left_out(loaded, rules)))
    for one, name in zip(loaded, scenario or ["digits"], strict=True):
        examine(one, name)
    path = run(todo, out, jobs=jobs, ray=ray, overwrite=overwrite, inputs=inputs_of(scenario or []))
    for table in summarise(results(out)):
        show(console_table(table))
    say(f"wrote {path}; next: proxycoop report {out}\n")


def cost(
    folder: Annotated[Path, typer.Argument(help="Folder of a comparison, of which cells are finished.")],
    n_cells: Annotated[int, typer.Option("--cells", min=1, help="How many cells like those of a row.")] = 10_000,
    cores: Annotated[int, typer.Option("--cores", min=1, help="Cores that work at once, one cell each.")] = 64,
    price: Annotated[
        float, typer.Option("--price", min=0.0, help="What an hour of one core costs, in any currency. It is an assumption: set yours.")
    ] = 0.05,
) -> None:
    """Say what many cells would cost, by those of a comparison that are finished: core-hours, hours on so many cores, memory, and money.

    Each cell's processor time and peak memory were measured while it ran. Time on busy cores does not count.
    """
    from ..compare import results
    from ..executors import cost_of, estimate
    from ..executors.costs import FILE
    from ..terminal import add_row, table_of

    results(folder)  # refuses a folder that holds none
    measured: dict[tuple[str, str], list[Cost]] = {}
    for path in sorted(folder.glob("cells/*/*/*/result.json")):
        found = cost_of(path.parent)
        if found is not None:
            kind = "scripted" if path.parent.parent.name.startswith("agent-") else "trained"
            measured.setdefault((path.parts[-4], kind), []).append(found)
    if not measured:
        raise ValueError(f"{str(folder)!r} holds no {FILE}: its cells were run by an older version, which did not measure them")
    table = table_of(
        "scenario", "cells", "measured", "s each", "s at most", "MB", "core-hours", f"hours on {cores:,}", "GB on them", "price"
    )
    for (scenario, kind), costs in measured.items():
        many = estimate(costs, n_cells, cores, price)
        seconds, peaks = [one.cpu_seconds for one in costs], [one.peak_memory for one in costs if one.peak_memory is not None]
        held = [f"{max(peaks) / 1e6:,.0f}", f"{(many.memory or 0) / 1e9:,.1f}"] if peaks else ["–", "–"]
        times = [f"{sum(seconds) / len(seconds):,.1f}", f"{max(seconds):,.1f}", held[0], f"{many.core_hours:,.1f}", f"{many.hours:,.2f}"]
        add_row(table, scenario, kind, str(len(costs)), *times, held[1], f"{many.price:,.2f}")
    show(table)
    say(f"{n_cells:,} cells like those of a row; {price:g} for an hour of one core is an assumption, see --price\n")


def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a comparison or of a sweep.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="HTML file. [default: report.html in the folder]")] = None,
    parts: Annotated[
        Path | None, typer.Option("--parts", help="Write the tables as Markdown and the figures as SVG into this folder.")
    ] = None,
    paper: Annotated[
        Path | None, typer.Option("--paper", help="Write the tables as LaTeX and the figures as PDF into this folder.")
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Write a comparison, or a sweep, as one self-contained HTML page with figures. Of a sweep, `--paper` writes the figures alone."""
    from ..outputs import Outputs
    from ..pages.report import Form, names_of_parts
    from ..pages.report import parts as write_parts
    from ..pages.report import report as write
    from ..sweep import is_sweep
    from .sweep_command import report_sweep

    if is_sweep(folder):
        report_sweep(folder, out, parts, paper, overwrite=overwrite)
        return
    inputs = dict.fromkeys(folder.glob("cells/*/*/*/*"), "a result that is read") | {folder / "results.csv": "the comparison's own"}
    with Outputs("report", overwrite=overwrite, inputs=inputs) as outputs:
        outputs.file(folder / "report.html" if out is None else out)
        wanted: list[tuple[Path | None, Form]] = [(parts, "web"), (paper, "paper")]
        for place, form in wanted:
            if place is not None:
                outputs.folder(place, names_of_parts(folder, form))
        outputs.prepare()
        say(f"wrote {write(folder, out)}\n")
        for place, form in wanted:
            if place is not None:
                say(f"wrote {len(write_parts(folder, place, form))} files to {place}\n")
