"""The command ``proxycoop``."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

from ... import __version__
from ..terminal import complain, finish, prepare_streams, say
from .comparison_commands import COMPARE_EPILOG, COST_EPILOG, REPORT_EPILOG, compare, cost, report
from .drafts.new_command import EPILOG as NEW_EPILOG
from .drafts.new_command import new
from .explain_command import EPILOG as EXPLAIN_EPILOG
from .explain_command import explain
from .ledger_commands import ledger
from .listings.listing_commands import AGENTS_EPILOG, LIBRARIES_EPILOG, RULES_EPILOG, agents, libraries, rules
from .profile_commands import profiles
from .run_commands import AUDIT_EPILOG, EVALUATE_EPILOG, PLAY_EPILOG, TRAIN_EPILOG, audit, evaluate, play, train
from .scenario_commands import SCENARIOS_EPILOG, scenarios
from .strict_command import App, TwoWords
from .sweep_command import SWEEP_EPILOG, sweep
from .temptation_commands import REDTEAM_EPILOG, SCHELLING_EPILOG, redteam, schelling
from .tune_command import TUNE_EPILOG, tune

app = App(
    name="proxycoop",
    cls=TwoWords,
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
        complain(f"error: {_in_one_line(error)}\n")
        sys.exit(2)
    except (OSError, SystemExit) as stop:
        failure = finish() or (stop if isinstance(stop, OSError) else None)
        if failure is None:
            raise
        if not isinstance(failure, BrokenPipeError):
            complain(f"error: {failure}: the output is incomplete; what was done before is kept\n")
        sys.exit(1)


def _in_one_line(error: ValueError) -> str:
    """The error's message; of settings that were refused, as a scenario that was changed may be, what is wrong with each."""
    from pydantic import ValidationError  # only now: --help and --version do without

    from ...settings import problems

    return "; ".join(map(str, problems(error))) if isinstance(error, ValidationError) else str(error)


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


app.command(epilog=SCENARIOS_EPILOG)(scenarios)
app.command("scenarios new", epilog=NEW_EPILOG)(new)
app.command(epilog=RULES_EPILOG)(rules)
app.command(epilog=LIBRARIES_EPILOG)(libraries)
app.command(epilog=AGENTS_EPILOG)(agents)
app.command(epilog=PLAY_EPILOG)(play)
app.command(epilog=TRAIN_EPILOG)(train)
app.command(epilog=EVALUATE_EPILOG)(evaluate)
app.command(epilog=AUDIT_EPILOG)(audit)
app.command(epilog=COMPARE_EPILOG)(compare)
app.command(epilog=SWEEP_EPILOG)(sweep)
app.command(epilog=REPORT_EPILOG)(report)
app.command(epilog=COST_EPILOG)(cost)
app.command(epilog=EXPLAIN_EPILOG)(explain)
app.command(epilog=REDTEAM_EPILOG)(redteam)
app.command(epilog=SCHELLING_EPILOG)(schelling)
app.command(epilog=TUNE_EPILOG)(tune)
app.add_typer(profiles, name="profiles", epilog="Examples: `proxycoop profiles sample --help` · `proxycoop profiles fit choices.csv`")
app.add_typer(
    ledger, name="ledger", epilog="Examples: `proxycoop ledger init books.db -c clinics --member Ada` · `proxycoop ledger verify books.db`"
)
