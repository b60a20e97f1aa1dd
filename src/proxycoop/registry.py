"""Things found by name: credit rules, agents, data sources, values."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
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
        self._read_entry_points = False

    def register(self, name: str) -> Callable[[F], F]:
        """Decorator for a class or function that builds the thing: ``@RULES.register("equal")``.

        Raises:
            ValueError: If the name is taken by another factory.
        """

        def decorate(factory: F) -> F:
            if self._factories.get(name, factory) is not factory:
                raise ValueError(f"{self.kind} {name!r} is registered already, as {self._factories[name]!r}: choose another name")
            self._factories[name] = factory
            return factory

        return decorate

    def __getitem__(self, name: str) -> Callable[..., T]:
        """The factory called ``name``.

        Raises:
            ValueError: If nothing is registered under the name; the message lists what is.
        """
        self._load_entry_points()
        if name not in self._factories:
            raise unknown_name(self.kind, name, self.names())
        return self._factories[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __contains__(self, name: object) -> bool:
        return name in self.names()

    def names(self) -> list[str]:
        """The known names, sorted."""
        self._load_entry_points()
        return sorted(self._factories)

    def make(self, name: str, **kwargs: object) -> T:
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

    def _load_entry_points(self) -> None:
        if self._read_entry_points:
            return
        self._read_entry_points = True
        for entry in entry_points(group=self.group):
            if entry.name not in self._factories:  # a package of ours wins over a third party's reuse of its name
                self._factories[entry.name] = entry.load()
