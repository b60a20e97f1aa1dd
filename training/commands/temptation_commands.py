"""The commands that find out what rules tempt proxies to do: ``proxycoop redteam`` and ``proxycoop schelling``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..terminal import add_row, complain, say, show, table_of
from .options import JobsOption, OverwriteOption, RayOption, SeedOption, SetOption, inputs_of, load_scenario, outputs_of

if TYPE_CHECKING:
    from collections.abc import Callable

REDTEAM_EPILOG = (
    "Examples: `proxycoop redteam loo -s digits-mean` · `proxycoop redteam shapley cgsv data_size --out out/three` · "
    "`python -m proxycoop --import my_rule redteam mine` (a rule of one's own) · "
    "`proxycoop redteam loo --steps 20000 --response-steps 8000` (a first look)"
)
SCHELLING_EPILOG = (
    "Examples: `proxycoop schelling equal loo` · `proxycoop schelling shapley --cheat doubler -s breast_cancer` · "
    "`proxycoop schelling equal data_size --cheat none --picture schelling.svg`"
)
RulesArgument = Annotated[list[str], typer.Argument(help="Credit rules, with arguments if they take any; `proxycoop rules` lists them.")]
TemptedOption = Annotated[
    str,
    typer.Option(
        "--scenario", "-s", help="Name of a scenario, or path of its YAML file. What it does not say proxies may do (`conduct`), they may."
    ),
]


def redteam(
    rules: RulesArgument,
    scenario: TemptedOption = "digits-mean",
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the page, the JSON file and the trainings.")] = Path("redteam"),
    steps: Annotated[int, typer.Option("--steps", min=1, help="Agent-steps of each training of all proxies.")] = 120_000,
    response_steps: Annotated[int, typer.Option("--response-steps", min=1, help="Agent-steps of each best response.")] = 48_000,
    seed: SeedOption = 0,
    jobs: JobsOption = None,
    ray: RayOption = None,
    overwrite: OverwriteOption = False,
    overrides: SetOption = None,
) -> None:
    """Find out what a credit rule tempts proxies to do: scripted cheats, a learned best response, and what happens when all learn.

    Every cheat plays among honest proxies. One proxy learns to exploit honest ones, and those that have learned. All learn where they may
    cheat, and where they may not. Against the cheats that pay, it is tried what the package has. Ten minutes a rule on two cores.
    """
    from tqdm import tqdm

    from ... import credit
    from ...files import output_folder, write_json
    from ..executors import require_place
    from ..outputs import Outputs, locked
    from ..pages.redteam_page import console_table, to_dict, write_redteam
    from ..temptations.cheats import tempting
    from ..temptations.findings import redteam as find
    from ..temptations.words import sentences

    require_place(jobs, ray)
    loaded = load_scenario(scenario, overrides)
    names = list(dict.fromkeys(rules))
    ranked = next((name for name in names if "peer_gains" in credit.make(name).needs), names[0])  # the page shows all that any rule has
    tempted = tempting(loaded, ranked)
    folder = output_folder(out)
    page, data = folder / "redteam.html", folder / "redteam.json"
    outputs = Outputs("redteam", overwrite=overwrite, inputs=inputs_of([scenario]))
    with locked(folder, "redteam"), tqdm(unit=" tries", dynamic_ncols=True, disable=None) as bar:
        outputs.own_folder(folder, dict.fromkeys(("trainings", page.name, data.name)), known="trainings")

        def told(done: int, total: int, what: str) -> None:
            bar.total = total
            bar.update(done - bar.n)
            if not what:
                return
            bar.set_description(what)
            if bar.disable:
                complain(f"{done} of {total}: {what}\n")

        kept = folder / "trainings"
        found = find(names, loaded, kept, steps=steps, response_steps=response_steps, seed=seed, jobs=jobs, ray=ray, told=told)
    for one in found:
        show(console_table(one))
        say("".join(f"{text}\n" for text in sentences(one)) + "\n")
    for path in (write_redteam(found, tempted, page), write_json(data, to_dict(found))):
        outputs.wrote(path)
    say(f"wrote {page} and {data}\n")


def schelling(
    rules: RulesArgument,
    scenario: TemptedOption = "digits-mean",
    cheat: Annotated[
        str, typer.Option("--cheat", help="Agent that cheats; `proxycoop agents` lists them. `none` withholds everything.")
    ] = "free_rider",
    episodes: Annotated[int, typer.Option("--episodes", min=1, help="Episodes on each data split.")] = 4,
    splits: Annotated[int, typer.Option("--splits", min=2, max=1000, help="Data splits, over which intervals are.")] = 12,
    seed: SeedOption = 0,
    picture: Annotated[
        Path | None, typer.Option("--picture", help="Write the diagrams to this file: SVG, PNG or PDF by its ending.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all numbers to this file.")] = None,
    overwrite: OverwriteOption = False,
    overrides: SetOption = None,
) -> None:
    """Draw Schelling diagrams: what honesty and a cheat earn against the number of others who are honest, and which game that is."""
    from tqdm import tqdm

    from ... import credit
    from ...agents.agent import class_of
    from ...envs.shared import require_served
    from ...files import write_bytes, write_json
    from ..analysis.summary import told
    from ..executors.workers import single_threaded
    from ..pages.drawing import house_style
    from ..pages.temptation_figures import schelling_panels
    from ..temptations.cheats import tempting
    from ..temptations.diagram import schelling as measure

    loaded = load_scenario(scenario, overrides)
    names = list(dict.fromkeys(rules))
    for name in names:
        require_served(loaded, credit.make(name), name)
    ending = "" if picture is None else picture.suffix.lower()
    if picture is not None and ending not in (".svg", ".png", ".pdf"):
        raise ValueError(f"--picture {str(picture)!r}: let the name end in .svg, .png or .pdf")
    outputs = outputs_of("schelling", overwrite, picture, json_file, scenarios=[scenario])
    kinds = getattr(class_of(cheat), "kinds", ())
    diagrams = []
    with single_threaded(), tqdm(total=len(names) * splits, unit=" splits", dynamic_ncols=True, delay=1, disable=None) as bar:
        for i, name in enumerate(names):
            bar.set_description(name)
            diagrams.append(
                measure(
                    tempting(loaded, name, kinds), name, cheat, episodes=episodes, splits=splits, seed=seed, told=_moves(bar, i * splits)
                )
            )
    table = table_of("rule", "game", "R: honest, as all", "S: honest alone", "T: cheats alone", "P: cheats, as all", "R − P")
    for one in diagrams:
        ends = (one.honest[-1], one.honest[0], one.cheating[-1], one.cheating[0], one.reward_over_punishment)
        add_row(table, one.rule, one.game, *(told(end, 1) for end in ends))
    show(table)
    say(f"returns of a proxy in reward units an episode, {loaded.name}, ± 95 % over {splits} splits of the data; the cheat: {cheat}\n")
    with outputs:
        if picture is not None:
            with house_style():
                drawn = schelling_panels(diagrams)
            say(f"wrote {write_bytes(picture, {'.svg': drawn.svg, '.png': drawn.png, '.pdf': drawn.pdf}[ending])}\n")
        if json_file is not None:
            say(f"wrote {write_json(json_file, {'diagrams': [one.to_dict() for one in diagrams]})}\n")


def _moves(bar: Any, before: int) -> Callable[[int, int], None]:
    def told(done: int, total: int) -> None:
        del total
        bar.update(before + done - bar.n)

    return told
