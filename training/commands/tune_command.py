"""The command ``proxycoop tune``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..terminal import complain, remark, say, show
from .options import AlgoOption, HyperOption, JobsOption, OverwriteOption, RayOption, SetOption, hyperparameters, inputs_of, load_scenario

TUNE_EPILOG = (
    'Examples: `proxycoop tune equal -s complement --parameters "scenario:reward.public_share=0.0..0.5" --out out/tuned` · '
    '`proxycoop tune shapley -p "budget=log:20..200" -p "scenario:screening.governance=own|unanimous" --for worst_off` · '
    "run it again to continue after an interruption, or with more `--trials`"
)


def tune(
    rule: Annotated[str, typer.Argument(help="Credit rule, with arguments if it takes any; `proxycoop rules` lists them.")],
    parameters: Annotated[
        list[str],
        typer.Option(
            "--parameters",
            "-p",
            help="What is varied, and over which values: an argument of the rule, or `scenario:` and a setting of the scenario. A range is "
            "`NAME=LOW..HIGH`, of whole numbers alone if both ends are written without a dot. `NAME=log:LOW..HIGH` is searched on a log "
            "scale. Choices are `NAME=A|B|C`. May be repeated.",
        ),
    ],
    scenario: Annotated[str, typer.Option("--scenario", "-s", help="Name of a scenario, or path of its YAML file.")] = "digits",
    objective: Annotated[
        str,
        typer.Option("--for", help="What trials are scored by: `welfare`, `nash` (Nash welfare) or `worst_off` (the worst-off principal)."),
    ] = "welfare",
    trials: Annotated[int, typer.Option("--trials", min=1, help="Number of trials. The defaults are the first.")] = 20,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Number of seeds with which each trial trains.")] = 2,
    held_out_seeds: Annotated[
        int, typer.Option("--held-out-seeds", min=2, help="Number of other seeds on which the best is compared with the defaults.")
    ] = 5,
    first_seed: Annotated[
        int, typer.Option("--first-seed", min=0, help="The first seed; the others follow by a step of one, the held-out ones last.")
    ] = 0,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**32 - 1, help="Seed of the search.")] = 0,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Agent-steps of each training.")] = 30_000,
    episodes: Annotated[int, typer.Option("--episodes", min=1, help="Episodes of each evaluation on each split.")] = 16,
    evaluation_splits: Annotated[
        int, typer.Option("--evaluation-splits", min=2, max=1000, help="Data splits of each evaluation; nobody trains on them.")
    ] = 6,
    jobs: JobsOption = None,
    ray: RayOption = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the page, the JSON file, the search and the trainings.")] = Path(
        "tuning"
    ),
    overwrite: OverwriteOption = False,
    library: Annotated[str, typer.Option("--library", "-l", help="RL library that trains; `proxycoop libraries` lists them.")] = "ippo",
    algo: AlgoOption = None,
    hyper: HyperOption = None,
    overrides: SetOption = None,
) -> None:
    """Tune a mechanism: search its parameters, and train proxies under each choice. Compare the best with the defaults on held-out seeds.

    Each trial trains proxies anew and is scored by what they reach on data splits that nobody trained on. The defaults are the rule's and
    the scenario's as given here. It goes on where it was stopped. It needs the extra `tune`: `pip install 'proxycoop[tune]'`.
    """
    from tqdm import tqdm

    from ...files import output_folder, write_json
    from ..executors import require_place
    from ..outputs import Outputs, locked
    from ..tuning import console_table, planned, sentences, write_tuning
    from ..tuning import tune as run
    from ..tuning.search import JOURNAL

    require_place(jobs, ray)
    loaded, chosen = load_scenario(scenario, overrides), hyperparameters(library, algo, hyper)
    try:
        plan = planned(
            rule,
            loaded,
            parameters,
            objective=objective,
            library=library,
            algo=algo,
            seeds=seeds,
            first_seed=first_seed,
            sampler_seed=seed,
            episodes=episodes,
            evaluation_splits=evaluation_splits,
            total_steps=steps,
            **chosen,
        )
    except ValueError as error:
        said = str(error)
        raise ValueError(f"--{said}" if said.startswith("parameters ") else said) from None
    for note in plan.notes:
        remark(note)
    folder = output_folder(out)
    page, data = folder / "tuning.html", folder / "tuning.json"
    outputs = Outputs("tune", overwrite=overwrite, inputs=inputs_of([scenario]))
    with locked(folder, "tune"), tqdm(unit=" trainings", dynamic_ncols=True, disable=None) as bar:
        outputs.own_folder(folder, dict.fromkeys(("trainings", JOURNAL, page.name, data.name)), known="trainings")
        for path in filter(Path.is_file, (page, data)):
            outputs.wrote(path)  # if this run is stopped, changes by others are noticed the next time all the same

        state = [0, 0]

        def told(done: int, total: int, what: str) -> None:
            if not state[1]:
                complain(f"{total} trainings of {steps:,} agent-steps each" + (f", of which {done} are kept" if done else "") + "\n")
            state[:] = done, total
            bar.total = total
            bar.update(done - bar.n)
            if not what:
                return
            bar.set_description(what)
            if bar.disable:
                complain(f"{done} of {total}: {what}\n")

        try:
            found = run(plan, folder, trials=trials, held_out_seeds=held_out_seeds, jobs=jobs, ray=ray, told=told)
        except (KeyboardInterrupt, SystemExit):
            complain(f"stopped; {state[0]} of {state[1]} trainings are finished and kept, the same command goes on\n")
            raise
    show(console_table(found))
    say("".join(f"{text}\n" for text in sentences(found)) + "\n")
    for path in (write_tuning(found, page), write_json(data, found.to_dict())):
        outputs.wrote(path)
    say(f"wrote {page} and {data}\n")
