"""Tables of what the package knows about itself, written into pages while the site is built, so that they are never typed twice.

A page holds a line such as ``<!-- generated: scenarios -->``. On a code host it is invisible; here the line is replaced by Markdown.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import rule_pages
import typer.main
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

from proxycoop.agents import AGENTS
from proxycoop.envs import Scenario, scenario
from proxycoop.envs.data import DATA
from proxycoop.envs.screening.profiles import Profile
from proxycoop.envs.values import VALUES
from proxycoop.settings import describe
from proxycoop.training.commands.cli import app
from proxycoop.training.pages.description import describe as in_words

_MARKER = re.compile(r"^<!-- generated: ([a-z -]+?) -->$", re.MULTILINE)
_RESULTS = Path(__file__).parents[1] / "results"
_ELSEWHERE = {
    **dict.fromkeys(("adult", "compas", "german"), "\\*"),
    "reviews": "†",
    **dict.fromkeys(("fashion_mnist", "fashion_mnist_public", "fashion_mnist_private"), "‡"),
}
"""Data sources whose data is not in the core, and the mark of the note that says where it is."""


def _table(header: str, rows: Iterator[tuple[str, ...]] | list[tuple[str, ...]]) -> str:
    """A Markdown table; ``header`` has the names of its columns, with ``|`` between them."""
    names = header.split("|")
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    lines = [names, ["---"] * len(names), *cells]
    return "\n".join(f"| {' | '.join(name.strip() for name in line)} |" for line in lines)


def _sentence(text: str | None) -> str:
    """The first sentence of a docstring."""
    return re.sub(r"\s+", " ", re.split(r"(?<=[.?])\s", (text or "").strip(), maxsplit=1)[0])


def _roles(text: str) -> str:
    """Docstring markup as Markdown."""
    text = re.sub(r":[a-z:]+:`~?\.?([^`<]+?)(?: <[^`]*>)?`", lambda found: f"`{found[1].rsplit('.', 1)[-1]}`", text)
    return text.replace("``", "`")


def _scenarios() -> str:
    """What is special to each scenario; what it is about is its own description."""
    rows, measured = [], _interaction()
    for name in scenario.names():
        one = scenario.load(name)
        mark = _ELSEWHERE.get(one.data.source)
        rows.append(
            (
                f"[`{name}`](#{name.replace('_', '-')})",
                f"{one.data.source}, {len(DATA.make(one.data.source).labels):,} rows" if mark is None else f"{one.data.source} {mark}",
                ", ".join(f"{_protected(profile)} ({profile.holders})" for profile in one.profiles) or "nothing",
                one.weights,
                f"{one.substrate.kind}, {one.model.kind}",
                f"{_present(one)}{one.principals}\u00a0×\u00a0{one.lots.per_principal}\u00a0×\u00a0{one.horizon}",
                measured[name][0] if name in measured else "–",
            )
        )
    return _table("scenario | data | protected (by how many) | weights | substrate, model | N × K × T | additive", rows)


def _present(one: Scenario) -> str:
    """How many of the principals are present in a round, before their number; empty if all are."""
    return "" if one.participation is None else f"{one.participation.sample} of "


def _interaction() -> dict[str, tuple[str, str]]:
    """What ``benchmarks/values/interaction.py`` measured for each scenario, unscreened: R² of the best additive game, and all in words."""
    lines = (_RESULTS / "interaction.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    titles, found = rows[0], {}
    for name, screening, *numbers in rows[2:]:
        if screening == "none":
            said = [f"{title} {number}" for title, number in zip(titles[2:], numbers, strict=True)]
            found[name.strip("`")] = (numbers[0].split(" ")[0], f"{', '.join(said)} ([what that means](results/do-members-interact.md))")
    return found


def _protected(profile: Profile) -> str:
    """What a profile protects, in a word or two."""
    values = [f"`{value}`" for value in (*profile.tolerances, *profile.relative_tolerances, *profile.direction)]
    return " and ".join([*values, *(f"no {tag} data" for tag in profile.forbidden_tags)])


def _descriptions() -> str:
    """Every scenario under a heading of its own, in its own words."""
    made, measured = [], _interaction()
    for name in scenario.names():
        one = scenario.load(name)
        told = [*in_words(one.to_dict()), *([("Interaction, unscreened", measured[name][1])] if name in measured else [])]
        facts = "\n".join(f"- {what}: {text}" for what, text in told)
        made.append(f"### {name}\n\n{one.description}\n\n{facts}")
    return "\n\n".join(made)


def _settings() -> str:
    rows = [tuple(map(str, row)) for row in describe(Scenario)]
    for kind in VALUES:
        value: Any = VALUES[kind]
        rows.append((f"values.<…>[{kind}]", "–", _sentence(value.__doc__)))
        rows += [tuple(map(str, row)) for row in describe(value, f"values.<…>[{kind}].")]
    return _table("setting | default | meaning", [(f"`{path}`", default, _roles(meaning)) for path, default, meaning in rows])


def _agents() -> str:
    rows = []
    for name in AGENTS:
        factory: Any = AGENTS[name]
        rows.append(
            (
                f"`{name}`",
                "what no proxy could" if factory.privileged else getattr(factory, "knows", "what a proxy observes"),
                _roles(_sentence(factory.__doc__)),
            )
        )
    return _table("agent | sees | what it does", rows)


def _data() -> str:
    return _table("source | what it is", [(f"`{name}`", _roles(_sentence(DATA[name].__doc__))) for name in DATA])


def _commands() -> str:
    """Every command with its arguments, options and examples, as ``--help`` has them."""
    command: Any = typer.main.get_command(app)
    return "\n\n".join(_command(each, name, "##") for name, each in command.commands.items())


def _command(command: Any, path: str, heading: str) -> str:
    """A command, or a group of commands, under a heading of its own."""
    parts = [f"{heading} {path}", _paragraphs(command.help)]
    options = [] if hasattr(command, "commands") else [one for one in command.params if one.name != "help"]
    if options:
        parts.append(_table("argument or option | meaning", [(_names(one), _paragraphs(one.help) + _default(one)) for one in options]))
    if command.epilog and not hasattr(command, "commands"):
        examples = re.sub(r"^Examples?: ", "", _paragraphs(command.epilog)).split(" · ")
        parts.append("\n".join(["For example:", "", *(f"- {example}" for example in examples)]))
    if hasattr(command, "commands"):
        parts += [_command(each, f"{path} {name}", heading + "#") for name, each in command.commands.items()]
    return "\n\n".join(parts)


def _paragraphs(text: str | None) -> str:
    return "\n\n".join(re.sub(r"\s+", " ", part).strip() for part in re.split(r"\n\s*\n|\f", text or ""))


def _names(parameter: Any) -> str:
    """What one writes: ``NAME`` for an argument; for an option, its names and whether it is required."""
    if not parameter.opts[0].startswith("-"):
        return f"`{(parameter.metavar or parameter.name).upper()}`" + ("" if parameter.required else ", optional")
    return ", ".join(f"`{name}`" for name in [*parameter.opts, *parameter.secondary_opts]) + (", required" if parameter.required else "")


def _default(parameter: Any) -> str:
    """What it is if nobody says; nothing where there is none or the help says it."""
    default = parameter.default
    if default is None or isinstance(default, bool) or default in ((), []) or callable(default) or "[default" in (parameter.help or ""):
        return ""
    return f" [default: {', '.join(map(str, default)) if isinstance(default, (list, tuple)) else default}]"


_GENERATED: dict[str, Callable[[], str]] = {
    "scenarios": _scenarios,
    "scenario descriptions": _descriptions,
    "settings": _settings,
    "agents": _agents,
    "data sources": _data,
    "commands": _commands,
    "rules": rule_pages.table,
}


def _fill(app: Sphinx, docname: str, source: list[str]) -> None:
    """Replace the markers of a page."""
    del app

    def write(marker: re.Match[str]) -> str:
        if marker[1] not in _GENERATED:
            raise ExtensionError(f"{docname}: nothing is generated as {marker[1]!r}: write one of {', '.join(_GENERATED)}")
        return _GENERATED[marker[1]]()

    source[0] = _MARKER.sub(write, source[0])


def setup(app: Sphinx) -> dict[str, bool]:
    """Fill pages as they are read."""
    app.connect("source-read", _fill)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
