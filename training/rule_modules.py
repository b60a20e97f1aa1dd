"""Find the modules that define credit rules of your own, so that other processes can import them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable

from .. import credit
from ..credit.rule import parse


def modules_of(rule: str) -> set[str]:
    """The modules that register a rule, and the rules that its arguments name. Other processes import them.

    Raises:
        ValueError: If a rule was defined in an interactive session, so that no module can be imported.
    """
    name, arguments = parse(rule)
    texts = [text for text in arguments.values() if isinstance(text, str) and text.partition("(")[0].strip() in credit.RULES]
    return {_module_of(name)}.union(*map(modules_of, texts))


def _module_of(rule: str) -> str:
    """The module that registers a rule. A script needs no import: other processes run it again."""
    module: str = credit.RULES[rule].__module__
    if module == "__main__" and not hasattr(sys.modules["__main__"], "__file__"):
        raise ValueError(
            f"credit rule {rule!r} is defined in an interactive session, where other processes cannot find it: put it into a module"
        )
    return "__mp_main__" if module == "__main__" else module


def import_modules(modules: Iterable[str]) -> None:
    """Import modules, for what they register."""
    for module in modules:
        importlib.import_module(module)
