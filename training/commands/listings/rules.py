"""Credit rules as text: the table of all of them, and one rule's manual."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import get_args

from rich.table import Table

from ....credit import RULES, CreditRule, make
from ....credit.rule import Family, parse
from ...terminal import add_row, table_of


def table(n_agents: int | None = None) -> Table:
    """All registered rules, by family and name; readable from a width of 150 letters on.

    Args:
        n_agents: If given, the last column says what a round of so many agents costs. Otherwise it says how many agents a rule serves at
            most.
    """
    last = "largest\nN" if n_agents is None else f"for {n_agents}\nagents"
    drawn = table_of("rule", "family", "source", "evaluations\na round", "efficient", "symmetric", "null\nplayer", last)
    rows = []
    for name in RULES:
        try:
            rule = make(name)
        except ValueError as error:  # a third party's rule that needs arguments or is broken must not hide the others
            rows.append(((len(_FAMILIES), name), [name, "–", str(error), *"–––––"]))
            continue
        marks = ["yes" if holds else "no" for holds in (rule.efficient, rule.symmetric, rule.null_player)]
        most = str(rule.max_players or "any") if n_agents is None else _cost(rule, n_agents)
        rows.append(((_rank(rule), name), [name, rule.family, rule.source, rule.evaluations, *marks, most]))
    before = None
    for (rank, _), cells in sorted(rows):
        if before not in (None, rank):
            drawn.add_section()
        add_row(drawn, *cells)
        before = rank
    return drawn


def manual(text: str, n_agents: int | None = None) -> str:
    """A rule's manual: its promises, its cost, its arguments with their defaults, and its docstring.

    Args:
        text: Its name, with or without arguments. Promises and costs are those of the rule with these arguments.
        n_agents: If given, the manual also says what a round of so many agents costs and how it is done, or why it cannot be done.

    Raises:
        ValueError: If the rule is unknown, or does not take the arguments.
    """
    rule, factory = make(text), RULES[parse(text)[0]]
    promises = {"efficient": rule.efficient, "symmetric": rule.symmetric, "null player": rule.null_player}
    facts = {
        **{name: text for name, text in (("pays", rule.pays), ("failure", rule.known_failure)) if text},
        "arguments": _arguments(factory) or "none",
        "family": rule.family,
        "source": rule.source,
        "evaluations": f"{rule.evaluations} a round",
        "promises": ", ".join(name for name, holds in promises.items() if holds) or "none",
        "largest N": str(rule.max_players or "any"),
    }
    if n_agents is not None:
        facts[f"{n_agents} agent{'s' * (n_agents > 1)}"] = _working(rule, n_agents)
    width = max(map(len, facts))
    head = "\n".join(f"  {name:{width}}  {fact}" for name, fact in facts.items())
    return f"{text}\n{head}\n\n{_docstring(factory)}\n"


def working(text: str, n_agents: int) -> str:
    """How a rule works for so many agents, in one line.

    Raises:
        ValueError: If the rule is unknown, does not take the arguments, or cannot serve so many agents.
    """
    rule = make(text)
    rule.check(n_agents)
    return f"{text}, {rule.method(n_agents)}"


_FAMILIES = get_args(Family)


def _rank(rule: CreditRule) -> int:
    """The position of its family in the table."""
    return _FAMILIES.index(rule.family) if rule.family in _FAMILIES else len(_FAMILIES)


def _cost(rule: CreditRule, n_agents: int) -> str:
    try:
        rule.check(n_agents)
    except ValueError:
        return "cannot"
    return f"{rule.cost(n_agents):,}"


def _working(rule: CreditRule, n_agents: int) -> str:
    try:
        rule.check(n_agents)
    except ValueError as error:
        return f"cannot: {error}"
    return rule.method(n_agents)


def _arguments(factory: Callable[..., CreditRule]) -> str:
    """The arguments that a rule takes, with defaults: ``"budget=None, seed=0"``."""
    parameters = inspect.signature(factory).parameters.values()
    return ", ".join(str(one.replace(annotation=inspect.Parameter.empty)) for one in parameters)


def _docstring(factory: Callable[..., CreditRule]) -> str:
    """A rule's docstring for a terminal. If it explains no arguments, those of a base class's docstring are added."""
    doc = inspect.cleandoc(factory.__doc__ or "This rule has no description.")
    if _arguments(factory) and not _section(doc):
        bases = factory.__mro__ if isinstance(factory, type) else ()
        inherited = next((part for base in bases if (part := _section(inspect.cleandoc(base.__doc__ or "")))), "")
        cut = re.search(r"^References:", doc, re.MULTILINE)
        at = cut.start() if cut else len(doc)
        doc = f"{doc[:at].rstrip()}\n\n{inherited}\n{doc[at:]}".rstrip()
    doc = re.sub(r":\w+:`~?([^`]*)`", r"\1", doc)  # :math:`n` → n
    return doc.replace(".. math::", "   ").replace("``", "").replace(r"\|", "|")


def _section(doc: str) -> str:
    """The docstring's section on arguments, or ``""``."""
    found = re.search(r"^Args:\n(?:[ ]+\S.*\n?|\n(?=[ ]))+", doc, re.MULTILINE)
    return found[0].rstrip() + "\n" if found else ""
