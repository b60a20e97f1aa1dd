"""Registries: credit rules, agents, data sources and values are found by their names."""

from __future__ import annotations

import ast
import difflib
import inspect
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


def unknown_name(kind: str, name: object, known: list[str]) -> ValueError:
    """The error for a name that is not registered. It lists the known names, and suggests one if it is similar."""
    close = difflib.get_close_matches(str(name), known, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return ValueError(f"unknown {kind} {name!r}{hint}: the known ones are {', '.join(known)}")


def with_arguments(kind: str, text: str, examples: str) -> tuple[str, dict[str, object]]:
    """A name and its arguments: ``"shapley(budget=60)"`` → ``("shapley", {"budget": 60})``.

    Args:
        kind: What it is the name of, for messages: ``"credit rule"``.
        text: The name, which may be followed by arguments in brackets.
        examples: Names with arguments, for messages.

    Raises:
        ValueError: If the name is followed by anything but ``(argument=value, …)``, with Python literals as values.
    """
    name, bracket, rest = text.partition("(")
    if not bracket:
        return text, {}
    problem = f"{kind} {text!r}: write a name, or a name with arguments such as {examples}"
    try:
        call = ast.parse(f"name({rest}", mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise ValueError(problem) from None
    # text after the closing bracket makes it something other than a call; positional and starred arguments have no name
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args or any(k.arg is None for k in call.keywords):
        raise ValueError(problem)
    arguments = dict[str, object]()
    for keyword in call.keywords:
        try:
            arguments[str(keyword.arg)] = ast.literal_eval(keyword.value)
        except (ValueError, TypeError, SyntaxError):
            what = ast.unparse(keyword.value)
            raise ValueError(
                f"{kind} {text!r}: {keyword.arg}={what} is no value: write a number, True, False, None, a list, or text in quotes, "
                f"as in {examples}"
            ) from None
    if len(arguments) < len(call.keywords):
        raise ValueError(f"{kind} {text!r}: an argument is given twice")
    return name.strip(), arguments


class Registry(Generic[T]):
    """Factories by name. Third-party packages add theirs through an entry-point group.

    Args:
        kind: What is registered, in words, for error messages: ``"credit rule"``.
        group: Entry-point group for third-party packages, such as ``"proxycoop.credit_rules"``. It is read at the first look-up of a name
            that is not registered yet, or of the list of names; never at import.
    """

    def __init__(self, kind: str, group: str) -> None:
        self.kind = kind
        self.group = group
        self._factories: dict[str, Callable[..., T]] = {}
        self._third_party: dict[str, EntryPoint] | None = None

    def register(self, name: str) -> Callable[[F], F]:
        """Decorator for a class or function that builds the object: ``@RULES.register("equal")``.

        Raises:
            ValueError: If another factory has the name already. If the name could not be looked up: it is no text, is empty, begins or ends
                with a space, or has a bracket, which is where a name's arguments begin.
            TypeError: If what is decorated is no class or function.
        """
        if not isinstance(name, str) or not name or name != name.strip() or "(" in name or ")" in name:
            raise ValueError(f"{self.kind} {name!r}: a name must be text without brackets, and without spaces at its ends")

        def decorate(factory: F) -> F:
            if not callable(factory):
                raise TypeError(f"{self.kind} {name!r} is {factory!r}: register a class or a function that builds it")
            old = self._factories.get(name, factory)
            if (old.__module__, old.__qualname__) != (factory.__module__, factory.__qualname__):  # a notebook's cell that runs twice
                raise ValueError(f"{self.kind} {name!r} is registered already, as {old!r}: choose another name")
            self._factories[name] = factory
            return factory

        return decorate

    def __getitem__(self, name: str) -> Callable[..., T]:
        """The factory called ``name``.

        Raises:
            ValueError: If the name is not registered (the message lists the known names), or if a third party registered it and its module
                cannot be loaded.
        """
        if name in self._factories:
            return self._factories[name]
        entries = self._entry_points()
        if name not in entries:
            raise unknown_name(self.kind, name, self.names())
        try:
            self._factories[name] = entries[name].load()
        except Exception as error:  # a third party's module may raise anything when it is imported
            raise ValueError(f"{self.kind} {name!r} cannot be loaded from {entries[name].value!r}: {error!r}") from error
        return self._factories[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __contains__(self, name: object) -> bool:
        return name in self.names()

    def names(self) -> list[str]:
        """The known names, sorted."""
        return sorted(self._factories.keys() | self._entry_points().keys())

    def name_of(self, factory: Callable[..., T]) -> str | None:
        """The name under which a factory is registered, or ``None``. It does not load third-party factories that nobody has asked for."""
        return next((name for name, one in self._factories.items() if one is factory), None)

    def make(self, name: str, /, **kwargs: object) -> T:
        """Build the object called ``name``; ``kwargs`` go to its constructor.

        Raises:
            ValueError: If the name is unknown or the constructor does not take these arguments.
        """
        factory = self[name]
        signature = inspect.signature(factory)
        try:
            signature.bind(**kwargs)
        except TypeError as error:
            takes = ", ".join(signature.parameters) or "none"
            raise ValueError(f"{self.kind} {name!r} does not take these arguments ({error}): {kwargs!r}; it takes {takes}") from None
        return factory(**kwargs)

    def _entry_points(self) -> dict[str, EntryPoint]:
        """Third parties' entry points by name. Where a name is registered here as well, the one here is used."""
        if self._third_party is None:
            self._third_party = {entry.name: entry for entry in entry_points(group=self.group)}
        return self._third_party
