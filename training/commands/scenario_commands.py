"""The command ``proxycoop scenarios``."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..terminal import add_row, complain, remark, say, show, table_of
from .calibration import calibrate_scenario, examine
from .listings.listing_commands import first_sentence
from .options import OverwriteOption, SetOption, load_scenario, outputs_of

if TYPE_CHECKING:
    from ...envs.scenario import Scenario
    from ..analysis.interaction import Interaction

SCENARIOS_EPILOG = (
    "Examples: `proxycoop scenarios` · `proxycoop scenarios digits` · `proxycoop scenarios --settings` · "
    "`proxycoop scenarios my.yaml --set horizon=8` · `proxycoop scenarios digits redundant --interaction` · "
    "`proxycoop scenarios --interaction --csv interaction.csv` (every scenario) · "
    "`proxycoop scenarios digits --set model.kind=mlp --calibrate --out mine.yaml` · `proxycoop scenarios new --help` (on your own table)"
)

_DEFAULT_RULE = "shapley"
"""The credit rule of `play` and `train` if none is given."""


@dataclass(frozen=True)
class _Asked:
    """What ``--interaction`` or ``--calibrate`` was asked for; ``None`` where an option was not given."""

    episodes: int | None
    seed: int | None
    csv_file: Path | None
    json_file: Path | None
    rule: str | None
    blocked: float | None
    out: Path | None
    overwrite: bool

    def refuse_stray(self, interaction: bool, calibrate: bool) -> None:
        """Refuse options without the one that they belong to.

        Raises:
            ValueError: If there is one.
        """
        one, other = ("--interaction", interaction), ("--calibrate", calibrate)
        of_one = {"--csv": self.csv_file, "--json": self.json_file}
        of_other = {"--rule": self.rule, "--blocked": self.blocked, "--out": self.out}
        of_both = {"--episodes": self.episodes, "--seed": self.seed, "--overwrite": self.overwrite or None}
        for options, owners in ((of_one, [one]), (of_other, [other]), (of_both, [one, other])):
            stray = [name for name, value in options.items() if value is not None]
            if stray and not any(is_given for _, is_given in owners):
                raise ValueError(f"{stray[0]} is an option of {' and '.join(name for name, _ in owners)}: give that too")


def scenarios(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]",
            help="Name of a scenario, or path of its file. Print it in full, as YAML, and list what its proxies observe. With "
            "`--interaction` there may be several.",
        ),
    ] = None,
    more: Annotated[list[str] | None, typer.Option("--scenario", "-s", hidden=True, help="As in other commands: the same as NAME.")] = None,
    settings: Annotated[bool, typer.Option("--settings", help="List every setting of a scenario, with its default and meaning.")] = False,
    interaction: Annotated[
        bool,
        typer.Option(
            "--interaction",
            help="Measure how much members interact, in the scenarios named or in all: R² of the best additive game, the share of pairwise "
            "interaction, and the correlation of `loo` and `standalone` with `shapley`.",
        ),
    ] = False,
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate",
            help="Measure the scenario named, and propose a start, a learning rate, tolerances and limits for it, as YAML. Say how many "
            "agent-steps a CPU second it plays.",
        ),
    ] = False,
    rule: Annotated[
        str | None, typer.Option("--rule", "-r", help="Credit rule under which `--calibrate` measures the speed. [default: shapley]")
    ] = None,
    blocked: Annotated[
        float | None, typer.Option("--blocked", help="Share of the updates that each proposed tolerance would block. [default: 0.1]")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the proposal to this file. [default: printed]")] = None,
    episodes: Annotated[
        int | None,
        typer.Option(
            "--episodes",
            min=2,
            help="Episodes of `--interaction` in each scenario, or of `--calibrate` on each data split. [default: 32, or 8]",
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="Seed of the first of these episodes' cooperatives. [default: 0]")
    ] = None,
    csv_file: Annotated[Path | None, typer.Option("--csv", help="Write what `--interaction` measured to this file.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write it to this file.")] = None,
    overwrite: OverwriteOption = False,
    overrides: SetOption = None,
) -> None:
    """List the scenarios, print one in full, list all settings, measure how much members interact, or calibrate one.

    Of a scenario that is printed, a note tells whether its start is worse than guessing, whether a tolerance never binds or always, and
    whether its learning rates were set for another kind of model.
    """
    names = [*(names or ()), *(more or ())] or None
    asked = _Asked(episodes, seed, csv_file, json_file, rule, blocked, out, overwrite)
    if settings and (names or overrides):
        raise ValueError("--settings lists what every scenario can have: leave the scenario's name and --set out")
    if settings and interaction:
        raise ValueError("--settings lists what every scenario can have, and --interaction measures scenarios: leave one of the two out")
    if calibrate and (settings or interaction):
        raise ValueError(f"--calibrate measures one scenario, so {'--settings' if settings else '--interaction'} has no place beside it")
    if calibrate and not names:
        raise ValueError("--calibrate measures one scenario: name it, as in proxycoop scenarios digits --calibrate")
    if overrides and not names:
        raise ValueError("--set changes one scenario: name it, as in proxycoop scenarios digits --set horizon=8")
    asked.refuse_stray(interaction, calibrate)
    if names and len(names) > 1 and not interaction:
        what = "measured" if calibrate else "printed"
        raise ValueError(f"{len(names)} scenarios are named, and one is {what} at a time: name one, or give --interaction")
    if settings:
        _list_settings()
    elif interaction:
        _interact(names, overrides, asked)
    elif calibrate and names:
        calibrate_scenario(names[0], overrides, rule=rule, blocked=blocked, episodes=episodes, seed=seed, out=out, overwrite=overwrite)
    elif names:
        loaded = load_scenario(names[0], overrides)
        _print(loaded)
        examine(loaded, names[0])
        _tell_whether_default_serves(loaded)
    else:
        _list()


def _list_settings() -> None:
    from ...envs import scenario
    from ...envs.values import VALUES
    from ...settings import describe

    table = table_of("setting", "default", "meaning")
    for row in describe(scenario.Scenario):
        add_row(table, *row)
    for kind in VALUES:
        value: Any = VALUES[kind]
        add_row(table, f"values.<…>[{kind}]", "–", first_sentence(value))
        for row in describe(value, f"values.<…>[{kind}]."):
            add_row(table, *row)
    show(table)


def _print(loaded: Scenario) -> None:
    from ...envs.observations.layout import ObservationLayout

    say(loaded.to_yaml(full=True))
    layout = ObservationLayout.of(loaded)
    say(f"\n# A proxy observes {layout.size} numbers: for each of its {layout.n_lots} lots\n")
    meaning = layout.describe()
    for title, features in (("", layout.lot_features), ("# and for itself and the cooperative\n", layout.agent_features)):
        say(title)
        for feature in features:
            say(f"#   {feature:24} {meaning[feature]}\n")


def _tell_whether_default_serves(loaded: Scenario) -> None:
    """Where the rule that commands take by default cannot serve the scenario, name rules that can."""
    from ... import credit

    try:
        credit.make(_DEFAULT_RULE).check(loaded.n_seats)
    except ValueError:
        remark(
            f"{_DEFAULT_RULE}, the default rule, cannot serve {loaded.n_seats:,} agents in a round: give --credit loo, or "
            f"--credit 'shapley(budget={20 * loaded.n_seats})'"
        )


def _list() -> None:
    from ...envs import scenario

    table = table_of("scenario", "N", "K", "T", "data", "values", "governance", "weights", "description")
    refused: list[str] = []
    for known in scenario.names():
        try:
            one = scenario.load(known)
        except ValueError as refusal:  # of another package's scenario
            refused.append(f"{known} is left out: {refusal}\n")
            continue
        add_row(
            table,
            known,
            f"{one.principals:,}" if one.participation is None else f"{one.participation.sample} of {one.principals:,}",
            str(one.lots.per_principal),
            str(one.horizon),
            one.data.source,
            ", ".join(one.values) or "–",
            one.screening.governance,
            one.weights,
            one.description,
        )
    show(table, spare=("weights", "values", "governance", "data"))
    for line in refused:
        complain(line)


def _interact(names: Sequence[str] | None, overrides: list[str] | None, asked: _Asked) -> None:
    from tqdm import tqdm

    from ...envs import scenario
    from ...files import write_json, write_text
    from ..analysis.interaction import COLUMNS, cells, interaction

    wanted, loaded = names or scenario.names(), []
    for name in wanted:
        try:
            loaded.append(load_scenario(name, overrides))
        except ValueError as refusal:
            if names:
                raise
            complain(f"{name} is left out: {refusal}\n")
    outputs = outputs_of("scenarios", asked.overwrite, asked.csv_file, asked.json_file, scenarios=wanted)
    episodes, seed = 32 if asked.episodes is None else asked.episodes, asked.seed or 0
    found: list[Interaction] = []
    for one in tqdm(loaded, unit=" scenarios", delay=1, disable=None):
        try:
            found += [interaction(one, episodes=episodes, seed=seed, screened=screened) for screened in (False, True)]
        except ValueError as refusal:
            if names:
                raise
            complain(f"{one.name} is left out: {refusal}\n")
    table = table_of(*COLUMNS)
    for measured in found:
        add_row(table, *cells(measured))
    say(
        f"{episodes} episodes a row, in which 80 % of the clean and 20 % of the corrupt lots are contributed at random; mean ± half-width "
        "of a 95 % interval over episodes\n"
    )
    show(table, spare=("last", "alone", "higher"))
    say(
        "additive: R² of the best additive game; pairs, higher: shares of the game's variance that are interaction of two members, and of "
        "more. loo, standalone: correlation over agents with shapley. gain, alone, last: what an episode gained, and what all members "
        "would have gained alone or as the last to join, in the utility's unit.\n"
    )
    with outputs:
        if asked.csv_file is not None:
            say(f"wrote {write_text(asked.csv_file, _to_csv(found))}\n")
        if asked.json_file is not None:
            say(f"wrote {write_json(asked.json_file, [one.to_dict() for one in found])}\n")


def _to_csv(found: Sequence[Interaction]) -> str:
    """One row for each scenario, unscreened and screened; the half-width of an estimate's interval is in a column of its own."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for i, one in enumerate(found):
        flat: dict[str, object] = {}
        for name, value in one.to_dict().items():
            flat |= {name: value[0], f"{name}_half_width": value[1]} if isinstance(value, list) else {name: value}
        if i == 0:
            writer.writerow(flat)
        writer.writerow(["" if value is None else value for value in flat.values()])
    return text.getvalue()
