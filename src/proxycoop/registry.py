"""Things found by name: credit rules, agents, data sources, values."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


def unknown_name(kind: str, name: object, known: list[str]) -> ValueError:
    """The error for a name that nobody registered: it lists the known ones and, if one is close, suggests it."""
    close = difflib.get_close_matches(str(name), known, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return ValueError(f"unknown {kind} {name!r}{hint}: the known ones are {', '.join(known)}")


class Registry(Generic[T]):
    """Factories by name, open to third parties through an entry-point group.

    Args:
        kind: What is registered, in words, for error messages: ``"credit rule"``.
        group: Entry-point group that third-party packages use, such as ``"proxycoop.credit_rules"``; it is read when a name
            is first looked up, never at import.
    """

    def __init__(self, kind: str, group: str) -> None:
        self.kind = kind
        self.group = group
        self._factories: dict[str, Callable[..., T]] = {}
        self._third_party: dict[str, EntryPoint] | None = None

    def register(self, name: str) -> Callable[[F], F]:
        """Decorator for a class or function that builds the thing: ``@RULES.register("equal")``.

        Raises:
            ValueError: If the name is taken by another factory.
        """

        def decorate(factory: F) -> F:
            old = self._factories.get(name, factory)
            if (old.__module__, old.__qualname__) != (factory.__module__, factory.__qualname__):  # the same again: a notebook's cell
                raise ValueError(f"{self.kind} {name!r} is registered already, as {old!r}: choose another name")
            self._factories[name] = factory
            return factory

        return decorate

    def __getitem__(self, name: str) -> Callable[..., T]:
        """The factory called ``name``.

        Raises:
            ValueError: If nothing is registered under the name (the message lists what is), or it is a third party's and cannot be
                loaded.
        """
        if name in self._factories:
            return self._factories[name]
        entries = self._entry_points()
        if name not in entries:
            raise unknown_name(self.kind, name, self.names())
        try:
            self._factories[name] = entries[name].load()
        except Exception as error:  # whatever a third party's module does on import
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
        """The name under which a factory is registered, or ``None``; third parties' that were never asked for are not loaded."""
        return next((name for name, one in self._factories.items() if one is factory), None)

    def make(self, name: str, /, **kwargs: object) -> T:
        """Build the thing called ``name``; ``kwargs`` go to its constructor.

        Raises:
            ValueError: If the name is unknown or the constructor does not take these arguments.
        """
        factory = self[name]
        try:
            inspect.signature(factory).bind(**kwargs)
        except TypeError as error:
            raise ValueError(f"{self.kind} {name!r} does not take these arguments ({error}): {kwargs!r}") from None
        return factory(**kwargs)

    def _entry_points(self) -> dict[str, EntryPoint]:
        """Third parties' entry points by name; a name of ours wins over theirs."""
        if self._third_party is None:
            self._third_party = {entry.name: entry for entry in entry_points(group=self.group)}
        return self._third_party
