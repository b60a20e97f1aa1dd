"""The commands that play or train in one cooperative: ``play``, ``train``, ``evaluate`` and ``audit``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..terminal import add_row, finish, say, show, table_of
from .calibration import examine, parts_told
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
    named_as_options,
    outputs_of,
    playable,
    player,
    rule_as_option,
    scenario_of_run,
    seats_given,
    seats_of,
    splits_of_run,
)

if TYPE_CHECKING:
    from ...agents import Agent

MOST_TOLD = 24
"""Largest number of proxies whose returns are told one by one."""
PLAY_EPILOG = (
    "Examples: `proxycoop play` · `proxycoop play -s digits -c loo --seat 0=none --seat 1=all` · "
    "`proxycoop play -c 'shapley(budget=30)' --last` · `proxycoop play --policy out/run --picture round.png` · "
    "`proxycoop play -s breast_cancer --set settlement.period=4 --ledger books.db`"
)
TRAIN_EPILOG = (
    "Examples: `proxycoop train --out out/run` · `proxycoop train -s breast_cancer -c loo --seed 1 --out out/loo-1` · "
    "`proxycoop train --library benchmarl --algo qmix --out out/qmix` · `proxycoop train --out out/run --resume` · "
    "watch with `tensorboard --logdir out/run/tb`"
)
EVALUATE_EPILOG = (
    "Examples: `proxycoop evaluate out/run` · `proxycoop evaluate --agent planner -s breast_cancer` · "
    "`proxycoop evaluate out/run -c loo --json loo.json` (the same policy, paid by another rule)"
)
AUDIT_EPILOG = (
    "Examples: `proxycoop audit out/run` · `proxycoop audit --agent honest -s breast_cancer --out audit.html` · "
    "`proxycoop audit --agent all --set screening.filter=project --csv objections.csv`"
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
    from .listings.rules import working

    everyone = agent_named(agent or ("learned" if policy else "honest"), policy)
    scenario = scenario or (PLAYED_FIRST if policy is None else scenario_of_run(policy))
    loaded = load_scenario(scenario, overrides)
    plays_policy = policy is not None and agent in (None, "learned")
    by_agent = plays_policy or policy is None
    seats = seats_of(seat, loaded, policy) if by_agent else playable(loaded.company | seats_given(seat, loaded), loaded)
    others = {place: agent_named(name, policy) for place, name in seats.items()}
    everyone.check_scenario(loaded)
    with rule_as_option():
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
    say(f"credit: {working(credit, loaded.n_seats)}\n\n")

    def show_round(engine: Engine) -> None:
        if bookkeeper is not None:
            bookkeeper.write()
        if not last or engine.t == engine.horizon:
            say(render_text(engine) + "\n\n")

    metrics = proxies.play(engine, proxies.Seats(everyone, others) if others else everyone, [seed], on_round=show_round)
    each = metrics["return"][0]
    returns = (
        ", ".join(f"{value:z.2f}" for value in each.tolist()) if len(each) <= MOST_TOLD else f"from {each.min():z.2f} to {each.max():z.2f}"
    )
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
    from ..train import is_finished, tqdm_progress
    from ..train import train as run
    from .listings.rules import working

    loaded, chosen = load_scenario(scenario, overrides), hyperparameters(library, algo, hyper)
    with named_as_options(chosen), rule_as_option():
        settings = settings_for(
            library, algo, scenario=loaded, credit=credit, seed=seed, total_steps=steps, seats=tuple(seat or ()), **chosen
        )
    say(f"credit: {working(credit, settings.scenario.n_seats)}\n")
    examine(loaded, scenario)
    bar, progress = tqdm_progress(f"{settings.scenario.name}, {credit}, {settings.library} {settings.algo}")
    was_finished = resume and is_finished(out)
    with bar:
        folder = run(
            settings,
            out,
            resume=resume,
            overwrite=overwrite,
            inputs=inputs_of([scenario]),
            progress=progress,
            told=lambda text: say(f"{text}\n"),
        )
    say(f"{'there is' if was_finished else 'wrote'} {folder / 'policy.pt'}; next: proxycoop evaluate {folder}\n")


def evaluate(
    run: PlayedRunArgument = None,
    agent: AgentOption = None,
    scenario: PlayedScenarioOption = None,
    credit: Annotated[
        str | None, typer.Option("--credit", "-c", help="Credit rule, as for `train`. [default: the run's own, or shapley]")
    ] = None,
    episodes: Annotated[int, typer.Option("--episodes", min=2, help="Episodes on each data split.")] = 16,
    evaluation_splits: Annotated[
        int | None, typer.Option("--evaluation-splits", min=1, max=1000, help="Data splits, on which nobody trained. [default: 10]")
    ] = None,
    home: Annotated[
        bool, typer.Option("--home", help="Play on the data splits of the training instead, or on the scenario's own.")
    ] = False,
    seed: FirstSeedOption = 1_000_000,
    seat: SeatOption = None,
    cheats: Annotated[
        bool,
        typer.Option(
            "--cheats",
            help="Measure too what scripted cheats would gain among these agents: those that the scenario has room for (`conduct`).",
        ),
    ] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all measures and series to this file.")] = None,
    overwrite: OverwriteOption = False,
    overrides: SetOption = None,
) -> None:
    """Evaluate a trained policy or a scripted agent by every measure that needs no further training.

    It plays on data splits that nobody trained on, with start models, validation and test sets of their own; the same as in `compare`.
    """
    from ...agents.seats import seated
    from ...files import write_json
    from ..evaluate import evaluate as measure
    from ..evaluate import held_out_splits
    from .listings.rules import working

    if home and evaluation_splits is not None:
        raise ValueError(
            f"--home plays on the training's own data splits, so --evaluation-splits {evaluation_splits} has no effect: leave one"
        )
    in_its_scenario = run is not None and scenario is None
    maker, who, scenario, credit = player("evaluate", run, agent, scenario, credit)
    trained = splits_of_run(run) if run is not None and in_its_scenario else None
    loaded = load_scenario(scenario, overrides)
    own = range(loaded.data.split_seed, loaded.data.split_seed + loaded.data.splits)
    played = list(trained or own) if home else list(held_out_splits(evaluation_splits))
    if not home and trained and (both := [split for split in played if split in trained]):
        raise ValueError(
            f"the policy was trained on data split {both[0]}, so nothing would be held out: give --home to play there, or train with a "
            f"lower data.split_seed, which was {trained[0]}"
        )
    seats = seats_of(seat, loaded, run)
    if cheats:
        from ...agents.seats import require_unprivileged

        require_unprivileged(_seated(maker, seats))
    outputs = outputs_of("evaluate", overwrite, json_file, scenarios=[scenario], run=run)
    of = f"the training's {len(played)}" if home and trained else f"the scenario's {len(played)}" if home else f"{len(played)} held-out"
    where = f"{episodes} episodes on each of {of} data splits" if len(played) > 1 else f"{episodes} episodes"
    say(f"credit: {working(credit, loaded.n_seats)}\n{loaded.name}, {where}, played by {in_words(who, seats)}\n")
    finish()  # what is evaluated is told before the work, also where standard output is no terminal
    with parts_told() as move:
        evaluation = measure(
            loaded,
            credit,
            lambda: seated(maker(), seats, instead=True),
            episodes=episodes,
            seed=seed,
            splits=played,
            home=None if home else trained,
            progress=move,
        )
    table = table_of("measure", "mean", "± 95 %")
    for name, estimate in evaluation.measures.items():
        cells = ["–" if number is None else f"{number:.4g}" for number in (estimate.mean, estimate.half_width)]
        add_row(table, name, *cells)
    found = {}
    if cheats:
        from dataclasses import asdict

        from ..temptations.cheats import gains

        everybody = partial(_seated, maker, seats)
        for one in gains(loaded, credit, episodes=episodes, splits=played, seed=seed, others=everybody):
            found[one.cheat] = asdict(one)
            cells = ["–" if number is None else f"{number:.4g}" for number in (one.gain.mean, one.gain.half_width)]
            add_row(table, f"gain/{one.cheat}", *cells)
    show(table)
    say("".join(f"{note}\n" for note in evaluation.notes))
    if json_file is not None:
        with outputs:
            more = {"cheats": found} if cheats else {}
            write_json(json_file, evaluation.to_dict() | {"seats": {str(seat): name for seat, name in seats.items()}} | more)


def _seated(maker: Callable[[], Agent], seats: Mapping[int, str]) -> Agent:
    """The agent that is evaluated, with the others in their seats."""
    from ...agents.seats import seated

    return seated(maker(), seats, instead=True)


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
    played = play(loaded, lambda: seated(maker(), seats, instead=True), credit=credit, episodes=episodes, seed=seed)
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
