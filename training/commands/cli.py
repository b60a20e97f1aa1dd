"""The command ``proxycoop``."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ... import __version__
from ..terminal import add_row, complain, finish, prepare_streams, say, show, table_of
from .explain_command import EPILOG as EXPLAIN_EPILOG
from .explain_command import explain
from .ledger_commands import ledger
from .library_commands import libraries
from .options import (
    PLAYED_FIRST,
    AgentOption,
    AlgoOption,
    CreditOption,
    FirstSeedOption,
    HyperOption,
    LibraryOption,
    MeanwhileCreditOption,
    OverwriteOption,
    PlayedRunArgument,
    PlayedScenarioOption,
    ScenarioOption,
    SeatOption,
    SeedOption,
    SetOption,
    agent_named,
    hyperparameters,
    in_words,
    inputs_of,
    ledger_files,
    load_scenario,
    outputs_of,
    player,
    scenario_of_run,
    seats_given,
    seats_of,
)
from .profile_commands import profiles
from .strict_command import App

app = App(
    name="proxycoop",
    help="What do self-interested agents learn to do when a learning cooperative pays them by a given credit rule?",
    epilog="Begin with: proxycoop play · proxycoop compare --seeds 1 --out out/first · proxycoop report out/first",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def main() -> None:
    """Run the command line. A wrong input gives one line on standard error and exit code 2, never a traceback.

    Characters that a stream's encoding lacks are written in ASCII, so that the command does not fail after its work is done. If standard
    output cannot be written, for example on a full disk, the command does its work and writes its files all the same; then it writes one
    line on standard error and exits with code 1. It is silent about a reader that wanted no more, such as ``head``.
    """
    prepare_streams()
    try:
        _require_words(sys.argv[1:])
        app()
    except ValueError as error:
        finish()
        complain(f"error: {error}\n")
        sys.exit(2)
    except (OSError, SystemExit) as stop:
        failure = finish() or (stop if isinstance(stop, OSError) else None)
        if failure is None:
            raise
        if not isinstance(failure, BrokenPipeError):
            complain(f"error: {failure}: the output is incomplete; what was done before is kept\n")
        sys.exit(1)


def _require_words(words: Sequence[str]) -> None:
    """Refuse empty words. A path of one would be the folder that the command runs in."""
    for before, word in zip(["", *words], words, strict=False):
        option = before if not word and before.startswith("-") else word[:-1] if re.fullmatch("--[a-z-]+=", word) else ""
        if option or not word:
            raise ValueError(f"{option or 'an argument'} is '', which is empty: if it comes from a variable of the shell, that is not set")


def _version(value: bool) -> None:
    if value:
        say(f"proxycoop {__version__}\n")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")] = False,
    modules: Annotated[
        list[str] | None,
        typer.Option("--import", help="Import this module first. It may register rules, agents, values and data. May be repeated."),
    ] = None,
) -> None:
    del version
    if not modules:
        return
    from ..own_modules import import_modules

    for module in modules:
        if module.endswith(".py") or not all(map(str.isidentifier, module.split("."))):
            raise ValueError(f"--import {module!r}: write a module's name, such as my_module or my_package.rules: no path, and no .py")
        try:
            import_modules([module])
        except ImportError as error:
            raise ValueError(
                f"--import {module!r} failed ({error}); to import a module in this folder, run 'python -m proxycoop --import …'"
            ) from error
        except (Exception, SystemExit) as error:  # a module of one's own may do anything when it is imported
            at = traceback.extract_tb(error.__traceback__)[-1]
            file, line = (error.filename, error.lineno) if isinstance(error, SyntaxError) else (at.filename, at.lineno)
            raise ValueError(f"--import {module!r} failed in {file}, line {line}: {type(error).__name__}: {error}") from error


@app.command(
    epilog="Examples: `proxycoop scenarios` · `proxycoop scenarios digits` · `proxycoop scenarios --settings` · "
    "`proxycoop scenarios my.yaml --set horizon=8`"
)
def scenarios(
    name: Annotated[str | None, typer.Argument(help="Print this scenario in full, as YAML, and list what its proxies observe.")] = None,
    settings: Annotated[bool, typer.Option("--settings", help="List every setting of a scenario, with its default and meaning.")] = False,
    overrides: SetOption = None,
) -> None:
    """List the scenarios, print one in full, or list all settings."""
    from ...envs import scenario
    from ...envs.observations.layout import ObservationLayout
    from ...envs.values import VALUES
    from ...settings import describe

    if settings and (name is not None or overrides):
        raise ValueError("--settings lists what every scenario can have: leave the scenario's name and --set out")
    if overrides and name is None:
        raise ValueError("--set changes one scenario: name it, as in proxycoop scenarios digits --set horizon=8")
    if settings:
        table = table_of("setting", "default", "meaning")
        for row in describe(scenario.Scenario):
            add_row(table, *row)
        for kind in VALUES:
            value: Any = VALUES[kind]
            add_row(table, f"values.<…>[{kind}]", "–", _first_sentence(value))
            for row in describe(value, f"values.<…>[{kind}]."):
                add_row(table, *row)
        show(table)
        return
    if name is not None:
        loaded = load_scenario(name, overrides)
        say(loaded.to_yaml())
        layout = ObservationLayout.of(loaded)
        say(f"\n# A proxy observes {layout.size} numbers: for each of its {layout.n_lots} lots\n")
        meaning = layout.describe()
        for title, features in (("", layout.lot_features), ("# and for itself and the cooperative\n", layout.agent_features)):
            say(title)
            for feature in features:
                say(f"#   {feature:24} {meaning[feature]}\n")
        return
    table = table_of("scenario", "N", "K", "T", "data", "values", "governance", "weights", "description")
    for known in scenario.names():
        one = scenario.load(known)
        add_row(
            table,
            known,
            str(one.principals),
            str(one.lots.per_principal),
            str(one.horizon),
            one.data.source,
            ", ".join(one.values) or "–",
            one.screening.governance,
            one.weights,
            one.description,
        )
    show(table, spare=("weights", "values", "governance", "data"))


@app.command(
    epilog="Examples: `proxycoop rules` · `proxycoop rules --agents 64` (what each costs) · `proxycoop rules shapley` · "
    "`proxycoop rules 'shapley(budget=600)' --agents 64` · `python -m proxycoop --import my_module rules mine --check`"
)
def rules(
    rule: Annotated[
        str | None, typer.Argument(help="Print this rule's manual. It may have arguments, as in `'shapley(budget=60)'`.")
    ] = None,
    agents: Annotated[int | None, typer.Option("--agents", min=1, max=10_000, help="Show what a round of so many agents costs.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Test whether the rule keeps what it promises.")] = False,
) -> None:
    """List the credit rules with their costs and axioms, print the manual of one, or test one."""
    from ...credit import RuleViolation, check_rule
    from .rules import manual, table

    if check:
        if rule is None:
            raise ValueError("--check tests one rule: name it, as in proxycoop rules loo --check")
        if agents is not None:
            raise ValueError(f"--agents {agents}: --check plays games with numbers of players of its own: leave one of the two out")
        try:
            say(f"{check_rule(rule)}\n")
        except RuleViolation as violation:
            say(f"{violation}\n")
            raise typer.Exit(1) from None
        return
    if rule is not None:
        say(manual(rule, agents))
        return
    show(table(agents), spare=("source", "family", "evaluations\na round"))
    say(
        "Rules take arguments, as in --credit 'shapley(budget=60)' or --credit \"normalised(rule='banzhaf')\".\n"
        "`proxycoop rules shapley` prints the manual of a rule; with `--agents 64` it also says what 64 agents cost.\n"
    )


app.command(epilog="Examples: `proxycoop libraries` · `proxycoop libraries benchmarl qmix`")(libraries)


@app.command(epilog="Example: `proxycoop agents`")
def agents() -> None:
    """List the agents."""
    from ...agents import AGENTS

    table = table_of("agent", "sees", "what it does")
    for name in AGENTS:
        factory: Any = AGENTS[name]
        sees = "what no proxy could: for reference only" if factory.privileged else "what a proxy sees"
        add_row(table, name, sees, _first_sentence(factory))
    show(table)


@app.command(
    epilog="Examples: `proxycoop play` · `proxycoop play -s digits -c loo --seat 0=none --seat 1=all` · "
    "`proxycoop play -c 'shapley(budget=30)' --last` · `proxycoop play --policy out/run --picture round.png` · "
    "`proxycoop play -s breast_cancer --set settlement.period=4 --ledger books.db`"
)
def play(
    scenario: Annotated[
        str | None, typer.Option("--scenario", "-s", help=f"Scenario. [default: the policy's own, or {PLAYED_FIRST}]")
    ] = None,
    agent: AgentOption = None,
    credit: CreditOption = "shapley",
    seed: SeedOption = 0,
    seat: SeatOption = None,
    policy: Annotated[Path | None, typer.Option("--policy", help="Play the policy of this training run.")] = None,
    last: Annotated[bool, typer.Option("--last", help="Show only the last round.")] = False,
    picture: Annotated[Path | None, typer.Option("--picture", help="Write a PNG of the last round.")] = None,
    overwrite: OverwriteOption = False,
    ledger: Annotated[
        str | None, typer.Option("--ledger", help="Write rounds and settlements into this ledger: a file, or a database's URL.")
    ] = None,
    cooperative: Annotated[
        str | None,
        typer.Option("--cooperative", help="Name of the cooperative in the ledger; seed and episode follow it. [default: SCENARIO/RULE]"),
    ] = None,
    overrides: SetOption = None,
) -> None:
    """Play one episode and show every round as text."""
    from ... import agents as proxies
    from ...envs import Engine
    from ...envs.rendering import render_picture, render_text
    from .rules import working

    everyone = agent_named(agent or ("learned" if policy else "honest"), policy)
    scenario = scenario or (PLAYED_FIRST if policy is None else scenario_of_run(policy))
    loaded = load_scenario(scenario, overrides)
    plays_policy = policy is not None and agent in (None, "learned")
    seats = seats_of(seat, loaded, policy) if plays_policy or policy is None else seats_given(seat, loaded)
    others = {place: agent_named(name, policy) for place, name in seats.items()}
    engine = Engine(loaded, credit)
    books = {} if ledger is None else dict.fromkeys(ledger_files(ledger), "the ledger itself")
    outputs = outputs_of("play", overwrite, picture, scenarios=[scenario], run=policy, others=books)
    bookkeeper = None
    if picture is not None and picture.suffix.lower() not in ("", ".png"):
        raise ValueError(f"--picture {str(picture)!r}: pictures are PNG files, so let the name end in .png")
    if cooperative is not None and ledger is None:
        raise ValueError(f"--cooperative {cooperative!r} is a name in a ledger: give --ledger FILE too")
    if ledger is not None:
        from ...envs.bookkeeping import Bookkeeper  # brings a database

        bookkeeper = Bookkeeper(engine, ledger, cooperative)
    say(f"credit: {working(credit, loaded.principals)}\n\n")

    def show_round(engine: Engine) -> None:
        if bookkeeper is not None:
            bookkeeper.write()
        if not last or engine.t == engine.horizon:
            say(render_text(engine) + "\n\n")

    metrics = proxies.play(engine, proxies.Seats(everyone, others) if others else everyone, [seed], on_round=show_round)
    returns = ", ".join(f"{value:z.2f}" for value in metrics["return"][0].tolist())
    say(
        f"welfare {float(metrics['welfare'][0]):z.2f} (gain minus costs, in reward units); returns {returns}; "
        f"clean lots contributed {float(metrics['clean_share'][0]):.0%}, corrupt {float(metrics['corrupt_share'][0]):.0%}\n"
    )
    if picture is not None:
        from matplotlib.image import imsave

        from ...files import write_atomically

        with outputs:
            write_atomically(picture, lambda file: imsave(file, render_picture(engine), format="png"))
        say(f"wrote {picture}\n")
    if bookkeeper is not None:
        bookkeeper.close()
        written = bookkeeper.ledger.name  # a URL without its password
        say(f"wrote {bookkeeper.cooperative!r} into the ledger {written}; next: proxycoop ledger verify {written}\n")


@app.command(
    epilog="Examples: `proxycoop train --out out/run` · `proxycoop train -s breast_cancer -c loo --seed 1 --out out/loo-1` · "
    "`proxycoop train --library benchmarl --algo qmix --out out/qmix` · `proxycoop train --out out/run --resume` · "
    "watch with `tensorboard --logdir out/run/tb`"
)
def train(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run.")],
    scenario: ScenarioOption = "digits",
    credit: CreditOption = "shapley",
    seed: SeedOption = 0,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Agent-steps of the training.")] = 120_000,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in the folder, if there is one.")] = False,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Begin anew and replace what has the names of a run's files, whoever wrote it. With `--resume`, a run there goes on.",
        ),
    ] = False,
    seat: SeatOption = None,
    library: LibraryOption = "sb3",
    algo: AlgoOption = None,
    hyper: HyperOption = None,
    overrides: SetOption = None,
) -> None:
    """Train proxies under a credit rule with one of the RL libraries, and save the policy with its scenario and seed."""
    from ..libraries.registry import settings_for
    from ..train import tqdm_progress
    from ..train import train as run
    from .rules import working

    settings = settings_for(
        library,
        algo,
        scenario=load_scenario(scenario, overrides),
        credit=credit,
        seed=seed,
        total_steps=steps,
        seats=tuple(seat or ()),
        **hyperparameters(library, algo, hyper),
    )
    say(f"credit: {working(credit, settings.scenario.principals)}\n")
    bar, progress = tqdm_progress(f"{settings.scenario.name}, {credit}, {settings.library} {settings.algo}")
    with bar:
        folder = run(settings, out, resume=resume, overwrite=overwrite, inputs=inputs_of([scenario]), progress=progress)
    say(f"wrote {folder / 'policy.pt'}; next: proxycoop evaluate {folder}\n")


@app.command(
    epilog="Examples: `proxycoop evaluate out/run` · `proxycoop evaluate --agent planner -s breast_cancer` · "
    "`proxycoop evaluate out/run -c loo --json loo.json` (the same policy, paid by another rule)"
)
def evaluate(
    run: PlayedRunArgument = None,
    agent: AgentOption = None,
    scenario: PlayedScenarioOption = None,
    credit: Annotated[
        str | None, typer.Option("--credit", "-c", help="Credit rule, as for `train`. [default: the run's own, or shapley]")
    ] = None,
    episodes: Annotated[int, typer.Option("--episodes", min=2, help="Episodes.")] = 64,
    seed: FirstSeedOption = 1_000_000,
    seat: SeatOption = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all measures and series to this file.")] = None,
    overwrite: OverwriteOption = False,
    overrides: SetOption = None,
) -> None:
    """Evaluate a trained policy or a scripted agent by every measure that needs no further training."""
    from ...agents.seats import seated
    from ...files import write_json
    from ..evaluate import evaluate as measure
    from .rules import working

    maker, who, scenario, credit = player("evaluate", run, agent, scenario, credit)
    loaded = load_scenario(scenario, overrides)
    seats = seats_of(seat, loaded, run)
    outputs = outputs_of("evaluate", overwrite, json_file, scenarios=[scenario], run=run)
    say(f"credit: {working(credit, loaded.principals)}\n{loaded.name}, {episodes} episodes, played by {in_words(who, seats)}\n")
    evaluation = measure(loaded, credit, lambda: seated(maker(), seats), episodes=episodes, seed=seed)
    table = table_of("measure", "mean", "± 95 %")
    for name, estimate in evaluation.measures.items():
        cells = ["–" if number is None else f"{number:.4g}" for number in (estimate.mean, estimate.half_width)]
        add_row(table, name, *cells)
    show(table)
    say("".join(f"{note}\n" for note in evaluation.notes))
    if json_file is not None:
        with outputs:
            write_json(json_file, evaluation.to_dict() | {"seats": {str(seat): name for seat, name in seats.items()}})


@app.command(
    epilog="Examples: `proxycoop audit out/run` · `proxycoop audit --agent honest -s breast_cancer --out audit.html` · "
    "`proxycoop audit --agent all --set screening.filter=project --csv objections.csv`"
)
def audit(
    run: PlayedRunArgument = None,
    agent: AgentOption = None,
    scenario: PlayedScenarioOption = None,
    credit: MeanwhileCreditOption = None,
    episodes: Annotated[int, typer.Option("--episodes", min=1, help="Episodes.")] = 16,
    seed: FirstSeedOption = 1_000_000,
    seat: SeatOption = None,
    top: Annotated[int, typer.Option("--top", min=0, help="How many of the most harmful blocked updates to list.")] = 10,
    csv_file: Annotated[Path | None, typer.Option("--csv", help="Write every objection to this file, one row each.")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the totals, the table and the most harmful updates to this file.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="HTML page. [default: audit.html in the run's folder]")] = None,
    overwrite: OverwriteOption = False,
    overrides: SetOption = None,
) -> None:
    """Explain which updates were blocked, by whose profile, because of which value, and how much harm was predicted and realised."""
    from ...agents.seats import seated
    from ...files import write_json, write_text
    from ..analysis.audit import audit as play
    from ..analysis.objections import Findings
    from ..pages.audit_page import console_table, totals_in_words, write_audit

    maker, who, scenario, credit = player("audit", run, agent, scenario, credit)
    loaded = load_scenario(scenario, overrides)
    seats = seats_of(seat, loaded, run)
    who = in_words(who, seats)
    out = run / "audit.html" if out is None and run is not None else out
    outputs = outputs_of("audit", overwrite, csv_file, json_file, out, scenarios=[scenario], run=run)
    played = play(loaded, lambda: seated(maker(), seats), credit=credit, episodes=episodes, seed=seed)
    findings = Findings(played)
    words = [*totals_in_words(findings.totals), *findings.notes()]
    say(f"{loaded.name}, {episodes} episode{'s' * (episodes > 1)}, played by {who}\n\n" + "".join(f"{text}\n" for text in words))
    if findings.accounts:
        show(console_table(findings.accounts))
    if worst := findings.worst(top):
        say(
            "blocked or mended updates, the most harmful on the probe test set first: of each lot and value the worst round; harms to "
            "different values are compared as multiples of the mean predicted harm\n"
        )
        say("".join(f"{text}\n" for text in worst))
    if bargains := findings.audit.bargains:
        say(f"\nhow the first rounds of episode {seed} were negotiated\n" + "\n".join(f"{text}\n" for text in bargains))
    with outputs:
        if csv_file is not None:
            say(f"wrote {write_text(csv_file, findings.to_csv())}\n")
        if json_file is not None:
            say(f"wrote {write_json(json_file, findings.to_dict(top))}\n")
        if out is not None:
            say(f"wrote {write_audit(findings, out, agents=who, top=top)}\n")


@app.command(
    epilog="Examples: `proxycoop compare --seeds 5 --out out/table` · `proxycoop compare -s digits -r equal -r shapley --out out/two` · "
    "`proxycoop compare -r shapley -r 'shapley(budget=30)' -r \"normalised(rule='loo')\" --out out/three` · "
    "run it again to continue after an interruption"
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
    episodes: Annotated[int, typer.Option("--episodes", min=2, help="Episodes of each evaluation.")] = 64,
    jobs: Annotated[int | None, typer.Option("--jobs", "-j", min=1, help="Processes that run at once. [default: one per core]")] = None,
    same_split: Annotated[bool, typer.Option("--same-split", help="Keep the scenario's own data split for all seeds.")] = False,
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
    """Train and evaluate every rule in every scenario with every seed, beside scripted agents. Finished cells are not run again."""
    from ..analysis.summary import console_table, summarise
    from ..compare import cells, results, rules_named
    from ..compare import compare as run

    loaded = [load_scenario(name, overrides) for name in scenario or ["digits"]]
    todo = cells(
        loaded,
        rules_named(rule, loaded),
        range(first_seed, first_seed + seeds),
        episodes=episodes,
        resplit=not same_split,
        library=library,
        algo=algo,
        total_steps=steps,
        seats=tuple(seat or ()),
        **hyperparameters(library, algo, hyper),
    )
    n_trainings = sum(cell.agent == "learned" for cell in todo)
    complain(f"{len(todo)} cells, {n_trainings} of them trainings of {steps:,} agent-steps; finished cells are not run again\n")
    path = run(todo, out, jobs=jobs, overwrite=overwrite, inputs=inputs_of(scenario or []))
    for table in summarise(results(out)):
        show(console_table(table))
    say(f"wrote {path}; next: proxycoop report {out}\n")


@app.command(
    epilog="Examples: `proxycoop report out/table` · `proxycoop report out/table --parts docs/results` · "
    "`proxycoop report out/table --paper paper/results` (LaTeX and PDF)"
)
def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a comparison.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="HTML file. [default: report.html in the folder]")] = None,
    parts: Annotated[
        Path | None, typer.Option("--parts", help="Write the tables as Markdown and the figures as SVG into this folder.")
    ] = None,
    paper: Annotated[
        Path | None, typer.Option("--paper", help="Write the tables as LaTeX and the figures as PDF into this folder.")
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Write a comparison as one self-contained HTML page with figures."""
    from ..outputs import Outputs
    from ..pages.report import Form, names_of_parts
    from ..pages.report import parts as write_parts
    from ..pages.report import report as write

    inputs = dict.fromkeys(folder.glob("cells/*/*/seed-*/*"), "a result that is read") | {folder / "results.csv": "the comparison's own"}
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


app.command(epilog=EXPLAIN_EPILOG)(explain)
app.add_typer(profiles, name="profiles", epilog="Examples: `proxycoop profiles sample --help` · `proxycoop profiles fit choices.csv`")
app.add_typer(
    ledger, name="ledger", epilog="Examples: `proxycoop ledger init books.db -c clinics --member Ada` · `proxycoop ledger verify books.db`"
)


def _first_sentence(factory: Any) -> str:
    """The first sentence of a class's docstring, for a table."""
    sentence = (factory.__doc__ or "").strip().split("\n")[0].removeprefix("For reference only: ").replace("`", "")
    return sentence[:1].upper() + sentence[1:]
