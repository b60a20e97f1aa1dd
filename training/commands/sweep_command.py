"""The command ``proxycoop sweep``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..terminal import complain, say, show
from .options import (
    AlgoOption,
    HyperOption,
    JobsOption,
    LibraryOption,
    RayOption,
    SeatOption,
    SetOption,
    assigned,
    hyperparameters,
    inputs_of,
    load_scenario,
    named_as_options,
)

SWEEP_EPILOG = (
    "Examples: `proxycoop sweep -r equal -r shapley --vary reward.contribution_cost=0:.6:7 --out out/cost` · "
    "`proxycoop sweep -s digits -s adult -r equal --vary reward.contribution_cost=0,.15,.3 --vary gamma=0,.5,.9 --out out/two` · "
    "`proxycoop sweep -r loo --agent honest --vary lots.corruption.share=0:.5:6 --measure clean_share --out out/corrupt` · "
    "run it again to continue after an interruption"
)


def sweep(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the sweep.")],
    vary: Annotated[
        list[str],
        typer.Option(
            "--vary",
            help="A setting and its values: a range `NAME=FROM:TO:N`, ends included, or a list `NAME=A,B,C`. NAME is a setting of the "
            "scenario (`reward.contribution_cost`; `proxycoop scenarios --settings` lists them) or of the training (`gamma`; "
            "`proxycoop libraries sb3` lists them). May be repeated: all combinations are run.",
        ),
    ],
    scenario: Annotated[list[str] | None, typer.Option("--scenario", "-s", help="Scenario. May be repeated. [default: digits]")] = None,
    rule: Annotated[
        list[str] | None,
        typer.Option(
            "--rule",
            "-r",
            help="Credit rule, with arguments if it takes any. May be repeated. [default: equal, data_size, standalone, loo, shapley]",
        ),
    ] = None,
    agent: Annotated[
        list[str] | None,
        typer.Option(
            "--agent",
            "-a",
            help="Scripted agent to show beside the rules. May be repeated. Then these and the planners alone are played. "
            "[default: play those of `compare`, and show the planner]",
        ),
    ] = None,
    measure: Annotated[
        str, typer.Option("--measure", help="What tables and figures show: a measure that `evaluate` prints.")
    ] = "planner_share",
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Number of seeds at every point.")] = 5,
    first_seed: Annotated[int, typer.Option("--first-seed", min=0, help="The first seed; the others follow by a step of one.")] = 0,
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="Agent-steps of each training. [default: the algorithm's, as in compare]")
    ] = None,
    episodes: Annotated[
        int | None, typer.Option("--episodes", min=2, help="Episodes of each evaluation on each split. [default: as in compare]")
    ] = None,
    evaluation_splits: Annotated[
        int | None, typer.Option("--evaluation-splits", min=1, max=1000, help="Data splits of each evaluation. [default: as in compare]")
    ] = None,
    jobs: JobsOption = None,
    ray: RayOption = None,
    same_split: Annotated[bool, typer.Option("--same-split", help="Train on the scenario's own data split with all seeds.")] = False,
    markdown: Annotated[Path | None, typer.Option("--markdown", help="Write the tables and findings as Markdown to this file.")] = None,
    pictures: Annotated[Path | None, typer.Option("--pictures", help="Write the figures as SVG and PNG into this folder.")] = None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Write over what others made of the same names. Finished cells are kept in any case."),
    ] = False,
    seat: SeatOption = None,
    library: LibraryOption = "sb3",
    algo: AlgoOption = None,
    hyper: HyperOption = None,
    overrides: SetOption = None,
) -> None:
    """Compare credit rules at every point of a grid of settings, and draw the curves: where does a finding hold, and where does it turn?

    Every point is a comparison of its own, under `points/`. All values are checked before anything runs. `sweep.csv` gathers all cells,
    and `sweep.html` shows the curves. Finished cells are not run again, and values, rules, seeds and scenarios may be added.
    """
    from ...files import write_bytes, write_text
    from ..analysis.curves import console_table, scenario_sweeps
    from ..compare import rules_named
    from ..executors import require_place
    from ..outputs import Outputs
    from ..pages.sweep_page import sweep_drawings, sweep_markdown, sweep_page
    from ..sweep import planned, swept
    from ..sweep import sweep as run

    require_place(jobs, ray)
    varied, chosen = assigned_values(vary), hyperparameters(library, algo, hyper)
    for name in assigned("--set", overrides):
        if name in varied or f"scenario.{name}" in varied:
            raise ValueError(f"--set {name}=… and --vary {name}=…: the setting is set and varied: leave one")
    loaded = [load_scenario(name, overrides) for name in scenario or ["digits"]]
    given: dict[str, Any] = {"total_steps": steps, "episodes": episodes, "evaluation_splits": evaluation_splits}
    with named_as_options(chosen):
        plan = planned(
            loaded,
            rules_named(rule, loaded),
            range(first_seed, first_seed + seeds),
            varied,
            agents=agent or (),
            library=library,
            algo=algo,
            resplit=not same_split,
            **{name: value for name, value in given.items() if value is not None},
            **({"seats": tuple(seat)} if seat else {}),
            **chosen,
        )
    items = [item for one in loaded if one.conduct is not None for item in one.conduct.names]
    require_measure(measure, [value for one in loaded for value in one.values], items)
    page, names = out / "sweep.html", [f"{key}{end}" for key in plan.figures for end in (".svg", ".png")]
    inputs = inputs_of(scenario or [])
    outputs = Outputs("sweep", overwrite=overwrite, inputs=inputs)
    outputs.file(page)
    outputs.file(markdown)
    if pictures is not None:
        outputs.folder(pictures, names)
    outputs.prepare()
    n_cells = sum(len(point.cells) for point in plan.points)
    complain(f"{len(plan.points)} points, {n_cells} cells, {plan.n_trainings} of them trainings; finished cells are not run again\n")
    path = run(plan, out, jobs=jobs, ray=ray, overwrite=overwrite, inputs=inputs)
    for one in scenario_sweeps(swept(out)):
        show(console_table(one, measure))
    with outputs:
        if markdown is not None:
            say(f"wrote {write_text(markdown, sweep_markdown(out, measure=measure))}\n")
        if pictures is not None:
            drawings = [one for one in sweep_drawings(out, measure=measure) if one.key in plan.figures]
            for drawn in drawings:
                write_bytes(pictures / f"{drawn.key}.svg", drawn.svg)
                write_bytes(pictures / f"{drawn.key}.png", drawn.png)
            say(f"wrote {2 * len(drawings)} files to {pictures}\n")
        say(f"wrote {path} and {sweep_page(out, measure=measure)}\n")


def report_sweep(folder: Path, out: Path | None, parts: Path | None, paper: Path | None, *, overwrite: bool) -> None:
    """What ``proxycoop report`` does with a sweep: its page, and its tables and figures as files."""
    from ..outputs import Outputs
    from ..pages.sweep_page import Form, names_of_sweep_parts, sweep_page, sweep_parts
    from ..sweep import FILES

    inputs = dict.fromkeys(folder.glob("points/*/cells/*/*/*/*"), "a result that is read")
    inputs |= {folder / name: "the sweep's own" for name in (*FILES, "sweep.html")}
    page = folder / "report.html" if out is None else out
    with Outputs("report", overwrite=overwrite, inputs=inputs) as outputs:
        outputs.file(page)
        wanted: list[tuple[Path | None, Form]] = [(parts, "web"), (paper, "paper")]
        for place, form in wanted:
            if place is not None:
                outputs.folder(place, names_of_sweep_parts(folder, form))
        outputs.prepare()
        say(f"wrote {sweep_page(folder, page)}\n")
        for place, form in wanted:
            if place is not None:
                say(f"wrote {len(sweep_parts(folder, place, form))} files to {place}\n")


def assigned_values(vary: list[str]) -> dict[str, str]:
    """``NAME=VALUES`` pairs, the values as text.

    Raises:
        ValueError: If one is written otherwise, or two have the same name.
    """
    varied: dict[str, str] = {}
    for one in vary:
        name, equals, values = one.partition("=")
        if not name or not equals:
            raise ValueError(f"--vary {one[:80]!r}: write NAME=FROM:TO:N or NAME=A,B,C, such as reward.contribution_cost=0:.6:7")
        if name in varied:
            raise ValueError(f"--vary {one[:80]!r}: {name!r} is varied twice: leave one")
        varied[name] = values
    return varied


def require_measure(measure: str, values: list[str], items: list[str]) -> None:
    """Refuse a measure that no evaluation has, before anything is run.

    Raises:
        ValueError: If there is none; the message lists the measures.
    """
    from ...registry import unknown_name
    from ..measures import MEASURES

    names = {"<value>": values, "<item>": items}
    known = []
    for name in MEASURES:
        part = next((part for part in names if part in name), None)
        known += [name] if part is None else [name.replace(part, one) for one in names[part]]
    if measure not in known:
        raise unknown_name("measure", measure, list(dict.fromkeys(known)))
