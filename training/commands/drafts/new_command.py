"""The command ``proxycoop scenarios new``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...terminal import add_row, say, show, table_of
from ..calibration import parts_told
from ..options import OverwriteOption, outputs_of

if TYPE_CHECKING:
    from ...drafting import Draft, Guess

EPILOG = (
    "Examples: `proxycoop scenarios new loans.csv --label default` · "
    "`proxycoop scenarios new loans.csv -l default --attributes sex,age --principals 8 --out mine.yaml` · "
    "`proxycoop scenarios new visits.parquet -l ill --sites clinic --keep ward --drop comment`"
)
_TRAINING = 120_000  # agent-steps, the default of `train`
_ARGUMENTS = ("label", "attributes", "sites", "principals", "keep", "drop")


def new(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The table: .csv, .tsv, .txt, .csv.gz or .parquet, with the columns' names.")
    ],
    label: Annotated[str, typer.Option("--label", "-l", help="The column that the model learns to predict.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write the scenario to this file. [default: FILE's name with .yaml, beside it]")
    ] = None,
    attributes: Annotated[
        list[str] | None,
        typer.Option(
            "--attributes",
            "-a",
            help="Protected columns, of which groups are made: `sex,age`. May be repeated. [default: those with such names]",
        ),
    ] = None,
    sites: Annotated[
        str | None,
        typer.Option("--sites", help="Column whose levels are the places that hold the data. [default: one with such a name, or none]"),
    ] = None,
    principals: Annotated[
        int | None, typer.Option("--principals", "-n", help="Number of principals. [default: 6, or one a site if there are 3 to 5]")
    ] = None,
    keep: Annotated[
        list[str] | None, typer.Option("--keep", help="Do not drop these columns, whatever they look like. May be repeated.")
    ] = None,
    drop: Annotated[list[str] | None, typer.Option("--drop", help="Drop these columns. May be repeated.")] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Draft a scenario on a table of your own: guess what its columns are, measure what can be measured, and write commented YAML.

    Guessed are: the delimiter, types, what to do about gaps; identifiers, dates, constants and columns that give the label away, which are
    dropped; protected attributes and groups; values on these; the sizes of all splits. Measured are: how many public rows the start needs,
    the start, the learning rate, tolerances and limits, and a cost of contributing at which equal shares lose half of what can be won. The
    file plays at once. It takes a minute for 20,000 rows and 20 columns.
    """
    from ....files import write_text
    from ...drafting import draft_scenario

    out = file.with_name(f"{file.name.split('.')[0]}.yaml") if out is None else out
    outputs = outputs_of("scenarios", overwrite, out, others={file: "the table that is read"})
    with parts_told() as move:
        try:
            made = draft_scenario(
                file,
                label,
                out=out,
                attributes=attributes,
                sites=sites,
                principals=principals,
                keep=keep or (),
                drop=drop or (),
                progress=move,
            )
        except ValueError as refusal:
            name = re.split(r"[ :=]", str(refusal), maxsplit=1)[0]
            raise ValueError(f"--{refusal}" if name in _ARGUMENTS else str(refusal)) from None
    _tell(made)
    with outputs:
        write_text(out, made.to_yaml())
    compare = f"proxycoop compare -s {out} -r equal -r loo --seeds 2 --steps 30000 --out out/{made.scenario.name}"
    say(f"\nwrote {out}; next: proxycoop play -s {out} --last, then {compare}\n")


def _tell(made: Draft) -> None:
    """What was guessed and measured, as tables and sentences."""
    scenario = made.scenario
    say(f"{made.table.path.name}: {made.table.told[0]}\n\n")
    table = table_of("column", "taken for", "what is done", "gaps", "AUC alone", "why")
    for one in made.table.guesses:
        gaps = float(one.column.missing.mean())
        area = "–" if one.area is None else f"{one.area:.3f}"
        add_row(table, one.name, one.role, _done(one), f"{gaps:.1%}" if gaps else "–", area, one.why)
    show(table, spare=("AUC alone",))
    say(
        "AUC alone: how well the column alone predicts the label on rows that it was not fitted to; 0.5 is guessing, and 1 gives it away.\n"
    )
    for sentence in made.table.told[1:]:
        say(f"- {sentence}\n")
    for sentence in made.people.left_out:
        say(f"- not proposed: {sentence}\n")

    for one in made.table.guesses:
        if one.role == "leak" and one.dropped:
            say(f"- {one.name} is dropped as a probable leak; if it is known before {made.table.wishes.label} is: --keep {one.name}\n")
    lots = scenario.lots
    say(f"\n{scenario.principals} principals, {lots.per_principal} lots of {lots.rows} rows each, {scenario.horizon} rounds\n\n")
    if scenario.values:
        table = table_of("value", "what it is", "holders", "tolerance", "limit")
        for profile in scenario.profiles:
            for value, most in profile.tolerances.items():
                add_row(table, value, made.people.why[value], str(profile.holders), f"{most:.2g}", f"{profile.limits[value]:.2g}")
        show(table)
    of_start, start = made.calibration, scenario.start
    say(
        f"\nStart: {start.steps} steps of {start.lr:g} on {scenario.data.public_rows} public rows; log loss {of_start.proposed_start:.3f} "
        f"nats, guessing {of_start.guessing:.3f}. {of_start.searched}: {made.sheet.settings['substrate']['local_lr']:g}.\n\n"
    )
    table = table_of("contribution_cost", "planner's welfare", "best replies, equal shares", "of the planner's")
    for cost, (planner, equal) in sorted(made.stakes.tried.items()):
        add_row(table, f"{cost:g}", f"{planner:.1f}", f"{equal:.1f}", f"{equal / planner:.0%}" if planner > 0 else "–")
    show(table)
    if made.stakes.is_dilemma:
        say(f"At a cost of {made.stakes.cost:g} equal shares lose half of what can be won: what a credit rule can win back.\n")
    else:
        say("At none of these costs do equal shares lose half of what can be won, so that rules may hardly differ.\n")
    for finding in of_start.after:
        say(f"Beware: {finding}\n")
    say(
        f"A training of {_TRAINING:,} agent-steps takes about {_TRAINING / of_start.speed:,.0f} CPU seconds under {of_start.rule}, and "
        "what the learner takes.\n"
    )


def _done(one: Guess) -> str:
    """What is done with a column."""
    if one.role == "label":
        return "predicted"
    if one.dropped:
        return "dropped"
    protected = one.role in ("attribute", "protected")
    if one.role == "site" or (protected and one.in_words):
        return "not seen by the model" + ("; sites" if one.role == "site" else "; groups")
    return "seen; groups" if protected else "seen"
