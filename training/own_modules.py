"""The modules that register credit rules, values, data and agents of your own: other processes import them before they begin."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from .. import credit
from ..agents.agent import class_of
from ..credit.rule import parse
from ..envs.data import DATA
from ..envs.scenario import Scenario

_imported: dict[str, None] = {}


def import_modules(modules: Iterable[str]) -> None:
    """Import modules, for what they register. Processes that this one starts for a training or a comparison import them as well."""
    for module in modules:
        importlib.import_module(module)
        if module != "__mp_main__":
            _imported[module] = None


def modules_for(scenario: Scenario, rule: str, agents: Iterable[str] = ()) -> list[str]:
    """The modules that other processes import before they play a scenario under a rule.

    Args:
        scenario: The scenario.
        rule: The rule, with arguments if it takes any.
        agents: Names of agents that play.

    Returns:
        Modules that :func:`import_modules` imported here, in that order; then those that register the rule, the rules that its arguments
        name, the data source, the values and the agents. A script needs no import, because other processes run it again: it is
        ``__mp_main__``.

    Raises:
        ValueError: If one of them was defined in an interactive session, so that no module can be imported.
    """
    needed = modules_of(rule) | {_module_of("data source", scenario.data.source, DATA[scenario.data.source])}
    needed |= {_module_of("value", name, type(value)) for name, value in scenario.values.items()}
    needed |= {_module_of("agent", name, class_of(name)) for name in agents}
    return list(dict.fromkeys([*_imported, *sorted(needed)]))


def modules_of(rule: str) -> set[str]:
    """The modules that register a rule, and the rules that its arguments name.

    Raises:
        ValueError: If a rule was defined in an interactive session, so that no module can be imported.
    """
    name, arguments = parse(rule)
    texts = [text for text in arguments.values() if isinstance(text, str) and text.partition("(")[0].strip() in credit.RULES]
    return {_module_of("credit rule", name, credit.RULES[name])}.union(*map(modules_of, texts))


def not_ours(modules: Iterable[str]) -> list[str]:
    """Those of the modules that somebody else wrote and that can be imported by name."""
    ours = __name__.partition(".")[0]
    return [module for module in modules if module != "__mp_main__" and module.partition(".")[0] != ours]


def imported_files() -> list[Path]:
    """The files of the modules that :func:`import_modules` imported here."""
    return [Path(file) for module in _imported if (file := getattr(sys.modules.get(module), "__file__", None))]


def _module_of(kind: str, name: str, factory: Callable[..., Any]) -> str:
    """The module that defines what is registered."""
    module: str = factory.__module__
    if module == "__main__" and not hasattr(sys.modules["__main__"], "__file__"):
        raise ValueError(
            f"{kind} {name!r} is defined in an interactive session, where other processes cannot find it: put it into a module"
        )
    return "__mp_main__" if module == "__main__" else module
