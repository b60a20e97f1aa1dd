"""The command ``proxycoop libraries``."""

from __future__ import annotations

from typing import Annotated

import typer

from ..terminal import add_row, say, show, table_of
from .options import OPTIONS_OF_THEIR_OWN


def libraries(
    library: Annotated[str | None, typer.Argument(help="List the settings of this library's algorithm.")] = None,
    algo: Annotated[str | None, typer.Argument(help="The algorithm. [default: the library's first]")] = None,
) -> None:
    """List the RL libraries that can train proxies and whether they are installed, or list the settings of one algorithm."""
    from ...settings import describe
    from ..libraries.registry import LIBRARIES, find, missing_packages

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
