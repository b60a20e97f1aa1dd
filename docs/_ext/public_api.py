"""The API reference: what is public is documented once, under the name by which users import it.

The directive ``{public} proxycoop.envs.data`` documents the public names of a module, except for those that a face of the package
(:data:`FACES`) or a part of a face (:data:`PARTS`) offers too. When all pages have been read, a public name of these modules that no page
documents is a warning. References in docstrings are written from where an object is defined, and lead to where it is documented.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
from collections import namedtuple
from collections.abc import Iterator
from functools import cache
from types import ModuleType
from typing import Any, Literal, TypeVar, get_args, get_origin

from docutils import nodes
from pydantic import BaseModel
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.ext.autodoc.mock import mock
from sphinx.ext.napoleon import GoogleDocstring
from sphinx.pycode import ModuleAnalyzer
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode

from proxycoop.settings import describe

_LOG = logging.getLogger(__name__)

FACES = ("proxycoop.credit", "proxycoop.envs", "proxycoop.agents")
"""Where users import from. Their pages in docs/api list the names in groups."""
PARTS = (
    *(f"proxycoop.credit.{part}" for part in ("games", "suite", "ledger", "money", "resistant")),
    *(f"proxycoop.envs.{part}" for part in ("data", "model", "values", "screening", "people", "conduct", "files", "observations", "money")),
    *(f"proxycoop.envs.{part}" for part in ("aggregation", "admission", "privacy", "participation", "data.tables")),
    "proxycoop.traversal",
)
"""Parts of the faces with a ``__all__`` of their own."""


# what is documented where


def public(module: ModuleType) -> list[str]:
    """Public names of a module: ``__all__``, or what is defined there; a constant is public if something is said of it."""
    if hasattr(module, "__all__"):
        return [name for name in module.__all__ if not isinstance(getattr(module, name), ModuleType)]
    own = [name for name, member in vars(module).items() if getattr(member, "__module__", None) == module.__name__]
    own += [name for name in _words(module.__name__) if name not in own]
    return [name for name in own if not name.startswith("_") and not isinstance(getattr(module, name), TypeVar)]


def _words(module_name: str) -> dict[str, list[str]]:
    """What a module says of each of its constants and aliases of types."""
    analyzer = ModuleAnalyzer.for_module(module_name)
    analyzer.analyze()
    return {name: words for (owner, name), words in analyzer.attr_docs.items() if not owner}


def homes() -> dict[int, str]:
    """The full name on a face or a part of what is public there, by identity."""
    found: dict[int, str] = {}
    for package in map(importlib.import_module, (*FACES, *PARTS)):
        for name in public(package):
            found.setdefault(id(getattr(package, name)), f"{package.__name__}.{name}")
    return found


class Public(SphinxDirective):
    """Document the public names of a module that no face, and no other part, has."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Write the directives of Sphinx's autodoc, and parse them."""
        with mock(self.config.autodoc_mock_imports):
            module = importlib.import_module(self.arguments[0])
        at = {name: homes().get(id(getattr(module, name)), f"{module.__name__}.{name}") for name in public(module)}
        here = [name for name, home in at.items() if home == f"{module.__name__}.{name}"]
        of = _imports(module)
        data = [name for name in here if name in of and not _is_code(getattr(module, name))]
        members = ", ".join(name for name in here if name not in data)
        options = [f"   :members: {members}", "   :imported-members:", "   :special-members: __call__", "   :show-inheritance:"]
        options = options if members else []
        lines = [f".. automodule:: {module.__name__}", *options]
        for name in data:
            lines += ["", *_data(module, name, of[name])]
        found = self.parse_text_to_nodes("\n".join(["```{eval-rst}", *lines, "```"]))
        if elsewhere := sorted(home for name, home in at.items() if name not in here):
            roles = ", ".join(f"{{py:obj}}`{home}`" for home in elsewhere)
            found += self.parse_text_to_nodes(f"Documented under the names by which they are imported: {roles}.")
        _documented(self.env).add(module.__name__)
        return found


def _is_code(member: object) -> bool:
    return inspect.isclass(member) or inspect.isroutine(member)


@cache
def _imports(module: ModuleType) -> dict[str, str]:
    """Where the names come from that a package takes from its modules: ``DATA`` → ``proxycoop.envs.data.dataset``."""
    tree = ast.parse(inspect.getsource(module))
    steps = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module]
    return {alias.asname or alias.name: f"{module.__package__}.{node.module}" for node in steps for alias in node.names}


def _data(module: ModuleType, name: str, source: str) -> list[str]:
    """A constant or an alias of types that a package takes from one of its modules; autodoc looks for its words in the package only."""
    words = _words(source).get(name, [])
    if choices := _choices(getattr(module, name)):
        words = [*words, "", f"One of {', '.join(choices)}."]
    head = [f".. py:data:: {name}", f"   :module: {module.__name__}", f"   :canonical: {source}.{name}", ""]
    return head + [f"   {line}" for line in words]


def _choices(alias: object) -> list[str]:
    """What an alias of types allows, as reStructuredText."""
    if get_origin(alias) is Literal:
        return [f"``{choice!r}``" for choice in get_args(alias)]
    if inspect.isclass(alias):
        return [f":py:class:`~{alias.__module__}.{alias.__name__}`"] if alias.__module__.startswith("proxycoop.") else []
    return [choice for part in get_args(alias) for choice in _choices(part)]


def _documented(env: BuildEnvironment) -> set[str]:
    """Modules that some page documents."""
    if not hasattr(env, "public_modules"):
        env.public_modules = set()  # type: ignore[attr-defined]  # an extension's own data, kept with the environment
    return env.public_modules  # type: ignore[attr-defined,no-any-return]


def complete(app: Sphinx, env: BuildEnvironment) -> None:
    """Warn of public names that no page documents."""
    known, at = env.domains.python_domain.objects, homes()
    for module_name in sorted({*FACES, *PARTS, *_documented(env)}):
        with mock(app.config.autodoc_mock_imports):
            module = importlib.import_module(module_name)
        for name in public(module):
            full = at.get(id(getattr(module, name)), f"{module_name}.{name}")
            if full not in known:
                _LOG.warning("%s is public, but documented nowhere in docs/api", full)


# references


def resolve(app: Sphinx, env: BuildEnvironment, node: addnodes.pending_xref, contnode: nodes.TextElement) -> nodes.Element | None:
    """Lead a reference that is written from where an object is defined to where it is documented."""
    if node.get("refdomain") != "py":
        return None
    known = env.domains.python_domain.objects
    for path in (*_paths(node["reftarget"], str(node.source or "")), f"{node.get('py:module')}.{node['reftarget']}"):
        for full in _names(path):
            if full in known:
                return make_refnode(app.builder, node["refdoc"], known[full].docname, known[full].node_id, contnode, full)
    return None


def say_where_from(app: Sphinx, doctree: nodes.document) -> None:
    """In a signature, name the module from which a type was imported: several modules may have one of that name."""
    del app
    for node in doctree.findall(addnodes.pending_xref):
        module = sys.modules.get(str(node.get("py:module")))
        target = node.get("reftarget", "")
        if node.get("refdomain") == "py" and module is not None and "." not in target:
            node["reftarget"] = f"{_imports(module)[target]}.{target}" if target in _imports(module) else target


def _paths(target: str, source: str) -> Iterator[str]:
    """What a reference may mean that stands in the docstring of some object."""
    yield target
    context = source.rpartition("docstring of ")[2]
    while context.startswith("proxycoop"):
        yield f"{context}.{target}"
        found = _object(context)
        if inspect.isclass(found[-1] if found else None):
            yield f"{found[-1].__module__}.{target}"
        context = context.rpartition(".")[0]


def _object(path: str) -> list[Any]:
    """Module, class, member … that a dotted path leads through; nothing if it leads nowhere."""
    parts = path.split(".")
    for n in range(len(parts), 0, -1):
        module = sys.modules.get(".".join(parts[:n]))
        if module is not None:
            found: list[Any] = [module]
            for part in parts[n:]:
                if not hasattr(found[-1], part):
                    return []
                found.append(getattr(found[-1], part))
            return found
    return []


def _names(path: str) -> Iterator[str]:
    """Names under which the object of a dotted path may be documented."""
    yield path
    found = _object(path)
    if len(found) < 2 or not isinstance(found[0], ModuleType):
        return
    at = homes()
    if id(found[1]) in at and (_is_code(found[1]) or len(found) == 2):
        rest = path.split(".")[len(found[0].__name__.split(".")) + 1 :]
        yield ".".join([at[id(found[1])], *rest])
    if len(found) == 3 and inspect.isclass(found[1]):  # a member, maybe of a base
        name = path.rpartition(".")[2]
        for base in found[1].__mro__:
            if name in vars(base):
                yield f"{at.get(id(base), f'{base.__module__}.{base.__name__}')}.{name}"


# docstrings


def settings(app: Sphinx, what: str, name: str, obj: Any, options: object, lines: list[str]) -> None:
    """List the settings of a class that is made of them, with defaults and meanings."""
    del app, name, options
    if what == "class" and inspect.isclass(obj) and issubclass(obj, BaseModel) and obj.model_fields:
        lines += ["", "Settings:", ""]
        lines += [f"* ``{path}`` ({default or '–'}): {meaning}" for path, default, meaning in describe(obj)]


def only_whole_things(app: Sphinx, doctree: nodes.document) -> None:
    """Leave methods and attributes out of the tables of contents: a page of classes has hundreds."""
    del app
    for one in doctree.findall(addnodes.desc):
        if one.get("objtype") in ("method", "attribute", "property"):
            one["no-contents-entry"] = True


_ATTRIBUTES: dict[str, list[str]] = {}


def dashes(app: Sphinx, doctree: nodes.document) -> None:
    """Between an argument and its description, a dash rather than two hyphens."""
    del app
    for text in list(doctree.findall(nodes.Text)):
        if text == " -- ":
            text.parent.replace(text, nodes.Text(" – "))


def not_a_type(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Hide an attribute's docstring from napoleon, which would take the words before a colon in its first line for a type."""
    del options
    if what in ("attribute", "data", "property"):
        _ATTRIBUTES[name] = GoogleDocstring(lines, app.config, app, "method", name, obj).lines()
        lines.clear()


def still_there(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Bring it back."""
    del app, what, obj, options
    lines += _ATTRIBUTES.pop(name, [])


_ARRAY = re.compile(r"~?numpy\.ndarray\[tuple\[~?(?:typing\.)?Any, \.\.\.\], ~?numpy\.dtype\[~?numpy\.(\w+)\]\]")


def short_types(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Write the types of arrays as in the code; keep reStructuredText from reading ``numpy.str_`` as a link."""
    del app, what, name, obj, options
    for i, line in enumerate(lines):
        if ":type:" in line:
            lines[i] = re.sub(r"(\w)_(?!\w)", r"\1\\_", _ARRAY.sub(r"NDArray[\1]", line))


def short_signature(
    app: Sphinx, what: str, name: str, obj: object, options: object, arguments: str | None, returned: str | None
) -> tuple[str | None, str | None]:
    """The types of arrays as in the code; the settings that a class is made of stand in a list below."""
    del app, what, name, options
    if inspect.isclass(obj) and issubclass(obj, BaseModel):
        return "(**settings)", None
    return _ARRAY.sub(r"NDArray[\1]", arguments or "") or arguments, _ARRAY.sub(r"NDArray[\1]", returned or "") or returned


_FIELD_OF_TUPLE = type(namedtuple("_Pair", "first").first)  # type: ignore[attr-defined]  # each has the docstring "Alias for field number 0"


def not_ours(app: Sphinx, what: str, name: str, obj: object, skip: bool, options: object) -> bool | None:
    """Leave out what pydantic and ``NamedTuple`` add to a class: the docstring lists a tuple's fields already."""
    del app, what, options, skip
    return True if (name == "model_config" and isinstance(obj, dict)) or isinstance(obj, _FIELD_OF_TUPLE) else None


def nothing_inherited(app: Sphinx, doctree: nodes.document) -> None:
    """That a class inherits from ``object`` goes without saying."""
    del app
    for paragraph in list(doctree.findall(nodes.paragraph)):
        if paragraph.astext() == "Bases: object":
            paragraph.parent.remove(paragraph)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive and the checks."""
    app.add_directive("public", Public)
    app.connect("autodoc-process-docstring", not_a_type, priority=400)  # before napoleon
    app.connect("autodoc-process-docstring", still_there, priority=600)  # after it
    app.connect("autodoc-process-docstring", short_types, priority=600)
    app.connect("autodoc-process-docstring", settings, priority=600)
    app.connect("doctree-read", only_whole_things, priority=400)  # before Sphinx collects the contents
    app.connect("doctree-read", say_where_from)
    app.connect("doctree-read", dashes)
    app.connect("doctree-read", nothing_inherited)
    app.connect("autodoc-process-signature", short_signature)
    app.connect("autodoc-skip-member", not_ours)
    app.connect("env-check-consistency", complete)
    app.connect("missing-reference", resolve)
    return {"parallel_read_safe": False, "parallel_write_safe": True}
