"""The commands ``proxycoop profiles``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..terminal import say
from .options import OverwriteOption, ScenarioOption, SeedOption, SetOption, load_scenario, outputs_of
from .strict_command import App

profiles = App(help="Learn value profiles from people's choices between updates.", no_args_is_help=True, rich_markup_mode="markdown")


@profiles.command(
    "sample",
    epilog="Examples: `proxycoop profiles sample -s digits --pairs 200 --out choices.csv` (then fill in the column `choice`) · "
    "`proxycoop profiles sample --pairs 600 --choose-by 0 --out choices.csv` · "
    "`proxycoop profiles sample --pairs 30 --persons 40 --choose-by 0 --choose-by 1 --out many.csv`",
)
def profiles_sample(
    out: Annotated[Path, typer.Option("--out", "-o", help="CSV file.")],
    scenario: ScenarioOption = "digits",
    pairs: Annotated[int, typer.Option("--pairs", min=1, help="Pairs of updates for each person.")] = 200,
    persons: Annotated[int, typer.Option("--persons", min=1, help="Number of people who will choose.")] = 1,
    choose_by: Annotated[
        list[int] | None,
        typer.Option(
            "--choose-by", help="Simulate answers by this profile of the scenario, counted from 0. If repeated, persons take turns."
        ),
    ] = None,
    seed: SeedOption = 0,
    overwrite: OverwriteOption = False,
    overrides: SetOption = None,
) -> None:
    """Draw pairs of real updates for people to judge, as a CSV file. People write a or b into its column `choice`.

    `a:VALUE` and `b:VALUE` are the predicted harms of the two updates to a value (positive is worse, in the value's unit). `a:gain` and
    `b:gain` are their predicted gains in utility. Where all numbers are 0, the option is no update at all.
    """
    from .profiles import answer, chosen_profiles, sample

    loaded = load_scenario(scenario, overrides)
    holders = chosen_profiles(loaded, choose_by or [])
    outputs = outputs_of("profiles sample", overwrite, out, scenarios=[scenario])
    comparisons = sample(loaded, pairs, persons, seed)
    if holders:
        comparisons = answer(comparisons, holders, seed)
    with outputs:
        comparisons.to_csv(out, answered=bool(holders))
    before = "" if holders else "write a or b into every line's choice, then "
    say(f"wrote {len(comparisons)} pairs to {out}; next: {before}proxycoop profiles fit {out} --scenario {scenario}\n")


@profiles.command(
    "fit",
    epilog="Examples: `proxycoop profiles fit choices.csv` · `proxycoop profiles fit choices.csv -s digits --out fitted.yaml`, then "
    "`proxycoop play -s fitted.yaml` · `proxycoop profiles fit many.csv -s digits --components auto --out types.yaml`",
)
def profiles_fit(
    choices: Annotated[Path, typer.Argument(help="CSV file of the choices.")],
    scenario: Annotated[
        str | None, typer.Option("--scenario", "-s", help="Write a scenario that extends this one; the choices must be about its values.")
    ] = None,
    components: Annotated[str, typer.Option("--components", help="Number of types of people, or `auto`. 1 is one profile for all.")] = "1",
    holders: Annotated[
        int | None,
        typer.Option("--holders", min=1, help="Principals who hold the profiles. [default: all principals of the scenario, or 1]"),
    ] = None,
    direction: Annotated[
        bool | None,
        typer.Option("--direction/--no-direction", help="Whether profiles contain the direction. [default: only if no tolerance shows]"),
    ] = None,
    confidence: Annotated[float, typer.Option("--confidence", help="Confidence level of intervals and tests.")] = 0.95,
    seed: SeedOption = 0,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="YAML file. [default: printed below the report]")] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Fit a value profile to choices between updates, with intervals, and write it for a scenario.

    The file needs the column `choice` (a or b), and for every value the columns `a:VALUE` and `b:VALUE`: the harm of the two updates, in
    the value's unit; positive is worse. `a:gain` and `b:gain` (utility) and `person` (who chose) are optional. Types of people need
    `person`.
    """
    from ...envs.people.comparisons import Comparisons
    from ...files import write_text
    from .profiles import as_yaml, fit, profiles_of, require_values

    if components != "auto" and not components.isdigit():
        raise ValueError(f"--components {components!r}: write a number of types, or auto")
    if components != "auto" and int(components) < 1:
        raise ValueError(f"--components {components}: must be at least 1")
    comparisons = Comparisons.from_csv(choices)
    if comparisons.person is None and components != "1":
        raise ValueError(f"--components {components}: {choices} has no column 'person', which types of people need: leave --components out")
    principals = 1
    if scenario is not None:
        loaded = load_scenario(scenario, None)
        require_values(comparisons, loaded, str(choices))
        principals = loaded.principals
    read = {choices: "the file of choices that is read"}
    outputs = outputs_of("profiles fit", overwrite, out, scenarios=[] if scenario is None else [scenario], others=read)
    fitted = fit(comparisons, "auto" if components == "auto" else int(components), confidence=confidence, seed=seed)
    say(f"{fitted}\n")
    text = as_yaml(profiles_of(fitted, holders or principals, direction), choices.name, scenario, out)
    if out is None:
        say(f"\n{text}")
        return
    with outputs:
        write_text(out, text)
    say(f"wrote {out}" + (f"; next: proxycoop play -s {out}\n" if scenario is not None else "\n"))
