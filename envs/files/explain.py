"""What is wrong in a scenario's files, with the file and line, or the override, in which it stands."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from ...settings import models_in, problems
from ...text import one_line
from .draft import Draft


def explain(error: ValidationError, draft: Draft, whole: type[BaseModel]) -> str:
    """A pydantic error as one line per problem: where it stands, key, what is allowed, what came.

    Args:
        error: The error.
        draft: What was read.
        whole: The class that refused it.
    """
    lines = []
    for problem in problems(error):
        path, beside = _locate(problem.path, whole)
        key = one_line(".".join(path))
        said = str(problem._replace(path=(key,) * bool(key))) if problem.known is None else _unknown_key(key, problem.known or beside)
        lines.append(f"{draft.place(path)}: {said}")
    return "\n".join(lines)


def _unknown_key(key: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(key.rpartition(".")[2], known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"unknown key {key!r}{hint} (allowed here: {', '.join(known)})"


def _locate(loc: tuple[str, ...], whole: type[BaseModel]) -> tuple[tuple[str, ...], list[str]]:
    """Translate a pydantic location into a path of keys in the file. Also return the keys that are allowed beside the last one.

    A pydantic location also contains tags of unions and names of validators, which are not in the file.
    """
    types: list[Any] = [whole]
    place: list[str] = []
    beside: list[str] = []
    for part in loc:
        tagged = [cls for cls in types if "kind" in cls.model_fields and cls.model_fields["kind"].default == part]
        if tagged:
            types = tagged
            continue
        if part in ("int", "str", "float", "bool", "[key]") or part.startswith(("function-", "constrained-", "literal[", "tuple[")):
            continue
        place.append(part)
        beside = sorted({key for cls in types for key in cls.model_fields})
        inside = [cls for one in types if part in one.model_fields for cls in models_in(one.model_fields[part].annotation)]
        types = inside or types
    return tuple(place), beside
