"""The commands of comparisons: ``proxycoop compare`` and ``proxycoop report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
    SeatOption,
    SetOption,
    hyperparameters,
    inputs_of,
    load_scenario,
    named_as_options,
)

COMPARE_EPILOG = (
    "Examples: `proxycoop compare --seeds 5 --out out/table` · `proxycoop compare -s digits -r equal -r shapley --out out/two` · "
    "`proxycoop compare -r shapley -r 'shapley(budget=30)' -r \"normalised(rule='loo')\" --out out/three` · "
    "run it again to continue after an interruption"
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
    path = run(todo, out, jobs=jobs, overwrite=overwrite, inputs=inputs_of(scenario or []))
    for table in summarise(results(out)):
        show(console_table(table))
    say(f"wrote {path}; next: proxycoop report {out}\n")


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
