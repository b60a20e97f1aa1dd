"""The command ``proxycoop explain``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..terminal import say, show
from .options import (
    AgentOption,
    FirstSeedOption,
    MeanwhileCreditOption,
    OverwriteOption,
    PlayedRunArgument,
    PlayedScenarioOption,
    SeatOption,
    SetOption,
    in_words,
    load_scenario,
    outputs_of,
    player,
    seats_of,
)

EPILOG = (
    "Examples: `proxycoop explain out/run` · `proxycoop explain --agent honest -s breast_cancer --out explain.html` · "
    "`proxycoop explain out/run --episodes 64 --budget 460` (narrower intervals)"
)


def explain(
    run: PlayedRunArgument = None,
    agent: AgentOption = None,
    scenario: PlayedScenarioOption = None,
    credit: MeanwhileCreditOption = None,
    episodes: Annotated[int, typer.Option("--episodes", min=2, help="Episodes that every coalition plays.")] = 16,
    seed: FirstSeedOption = 1_000_000,
    seat: SeatOption = None,
    budget: Annotated[int | None, typer.Option("--budget", help="Most coalitions of features. [default: 10 per feature]")] = None,
    proxy_budget: Annotated[
        int | None, typer.Option("--proxy-budget", help="Most coalitions of proxies. [default: all; beyond 10 proxies, 20 per proxy]")
    ] = None,
    draws: Annotated[int, typer.Option("--draws", help="Draws of the hidden features over which a policy is averaged.")] = 4,
    csv_file: Annotated[
        Path | None, typer.Option("--csv", help="Write worth and pay of every proxy in every episode to this file.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all results to this file.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="HTML page. [default: explain.html in the run's folder]")] = None,
    overwrite: OverwriteOption = False,
    overrides: SetOption = None,
) -> None:
    """Explain what was learned: what each proxy's policy is worth to all, what it is paid, and which features the policy uses.

    Both are Shapley values. In one game the players are proxies, which play or contribute nothing. In the other they are features, which
    the policy sees or does not see.
    """
    from tqdm import tqdm

    from ...files import write_json, write_text
    from ..analysis.explain import explain as find
    from ..pages.explain_page import (
        FEATURE_COLUMNS,
        MOST_ROWS,
        PROXY_COLUMNS,
        console_table,
        feature_rows,
        proxy_rows,
        sentences,
        to_csv,
        to_dict,
        write_explanation,
    )

    maker, who, scenario, credit = player("explain", run, agent, scenario, credit)
    loaded = load_scenario(scenario, overrides)
    seats = seats_of(seat, loaded, run)
    who = in_words(who, seats)
    out = run / "explain.html" if out is None and run is not None else out
    outputs = outputs_of("explain", overwrite, csv_file, json_file, out, scenarios=[scenario], run=run)
    with tqdm(unit=" coalitions", dynamic_ncols=True, delay=1, disable=None) as bar:
        current = ""

        def progress(stage: str, done: int, total: int) -> None:
            nonlocal current
            if stage != current:
                current = stage
                bar.set_description(stage, refresh=False)
                bar.reset(total)
            bar.update(done - bar.n)

        found = find(
            loaded,
            maker,
            credit=credit,
            seats=seats,
            episodes=episodes,
            seed=seed,
            budget=budget,
            proxy_budget=proxy_budget,
            draws=draws,
            progress=progress,
        )
    say(f"{loaded.name}, {episodes} episodes, played by {who}\n\n")
    say(f"what proxies are worth to all, in reward units per episode ({found.proxies.worth.method})\n")
    show(console_table(PROXY_COLUMNS, proxy_rows(found)))
    if rows := feature_rows(found):
        say(f"what seeing a feature is worth, and what it changes ({found.features.outcomes.method})\n")
        show(console_table(FEATURE_COLUMNS, rows[:MOST_ROWS]))
        if len(rows) > MOST_ROWS:
            where = " and ".join([*["on the page"] * (out is not None), *["in the JSON file"] * (json_file is not None)])
            say(f"{len(rows) - MOST_ROWS} features that add less welfare on average are {where or 'left out: --out FILE has all'}\n\n")
    say("".join(f"{text[0].upper()}{text[1:]}.\n" for text in sentences(found)))
    with outputs:
        if csv_file is not None:
            say(f"wrote {write_text(csv_file, to_csv(found))}\n")
        if json_file is not None:
            say(f"wrote {write_json(json_file, to_dict(found))}\n")
        if out is not None:
            say(f"wrote {write_explanation(found, out, agents=who)}\n")
