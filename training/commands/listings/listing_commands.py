"""The commands that list what can be named: ``proxycoop rules``, ``proxycoop libraries`` and ``proxycoop agents``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ...terminal import add_row, say, show, table_of
from ..options import OPTIONS_OF_THEIR_OWN

RULES_EPILOG = (
    "Examples: `proxycoop rules` · `proxycoop rules --agents 64` (what each costs) · `proxycoop rules shapley` · "
    "`proxycoop rules 'shapley(budget=600)' --agents 64` · `python -m proxycoop --import my_module rules mine --check`"
)
LIBRARIES_EPILOG = "Examples: `proxycoop libraries` · `proxycoop libraries benchmarl qmix`"
AGENTS_EPILOG = "Example: `proxycoop agents`"


def rules(
    rule: Annotated[
        str | None, typer.Argument(help="Print this rule's manual. It may have arguments, as in `'shapley(budget=60)'`.")
    ] = None,
    agents: Annotated[int | None, typer.Option("--agents", min=1, max=10_000, help="Show what a round of so many agents costs.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Test whether the rule keeps what it promises.")] = False,
) -> None:
    """List the credit rules with their costs and axioms, print the manual of one, or test one."""
    from ....credit import RuleViolation, check_rule
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


def libraries(
    library: Annotated[str | None, typer.Argument(help="List the settings of this library's algorithm.")] = None,
    algo: Annotated[str | None, typer.Argument(help="The algorithm. [default: the library's first]")] = None,
) -> None:
    """List the RL libraries that can train proxies and whether they are installed, or list the settings of one algorithm."""
    from ....settings import describe
    from ...libraries.registry import LIBRARIES, find, missing_packages

    if library is not None:
        algo, algorithm = find(library, algo)
        settings = algorithm.settings
        say(f"proxycoop train --library {library} --algo {algo} --hyper NAME=VALUE\n")
        table = table_of("setting", "default", "meaning")
        for row in describe(settings):
            if row[0].partition(".")[0] not in OPTIONS_OF_THEIR_OWN:
                add_row(table, *row)
        show(table)
        return
    table = table_of("--library", "--algo", "actions", "masks", "installed", "what it is")
    for name, one in LIBRARIES.items():
        installed = f"pip install 'proxycoop[{one.extra}]'" if missing_packages(one) else "yes"
        for i, (algo_name, algorithm) in enumerate(one.algorithms.items()):
            first = (installed, one.what) if i == 0 else ("", "")
            forms = ", ".join(algorithm.actions)
            add_row(table, name if i == 0 else "", algo_name, forms, "kept" if algorithm.masks else "ignored", *first)
    show(table, spare=("what it is", "installed", "masks"))
    say("`proxycoop libraries NAME ALGO` lists the settings of an algorithm.\n")


def agents() -> None:
    """List the agents."""
    from ....agents import AGENTS

    table = table_of("agent", "what it may know", "what it does")
    for name in AGENTS:
        factory: Any = AGENTS[name]
        sees = "what no proxy could: for reference only" if factory.privileged else getattr(factory, "knows", "what a proxy observes")
        add_row(table, name, sees, first_sentence(factory))
    show(table)


def first_sentence(factory: Any) -> str:
    """The first sentence of a class's docstring, for a table."""
    sentence = (factory.__doc__ or "").strip().split("\n")[0].removeprefix("For reference only: ").replace("`", "")
    return sentence[:1].upper() + sentence[1:]
