"""What a drafted scenario says, key by key, with a comment on each; and that as YAML."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from ... import strict_yaml

_WIDTH = 120


class Sheet:
    """Settings as plain data, and a comment on each.

    Attributes:
        settings: The settings.
        comments: Comments by dotted path; items of lists by their places, from 0.
    """

    def __init__(self) -> None:
        self.settings: dict[str, Any] = {}
        self.comments: dict[str, str] = {}

    def put(self, path: str, value: Any, comment: str) -> None:
        """Set a value, new or not, and say what it is and where it comes from."""
        *parts, last = path.split(".")
        here = self.settings
        for part in parts:
            here = here.setdefault(part, {})
        here[last] = value
        self.comments[path] = comment

    def say(self, path: str, comment: str) -> None:
        """Comment on a part whose settings have comments of their own."""
        self.comments[path] = comment

    def to_yaml(self) -> str:
        """The settings as YAML with the comments.

        Mappings and lists that have comments within are written over several lines, all others in one, if that is not too long.
        """
        return "".join(f"{line}\n" for line in self._mapping(self.settings, "", ""))

    def _mapping(self, settings: Mapping[str, Any], path: str, indent: str) -> Iterator[str]:
        for key, value in settings.items():
            here = f"{path}{key}"
            comment = self.comments.get(here, "")
            within = any(name.startswith(f"{here}.") for name in self.comments)
            line = indent + strict_yaml.write({key: value}, in_a_line=True).strip()[1:-1]  # without the braces
            if not within and comment and len(line) + len(comment) + 4 <= _WIDTH:
                yield f"{line}  # {comment}"
                continue
            yield from _lines(comment, indent)
            if within:
                yield f"{indent}{key}:"
                inner = self._items if isinstance(value, list) else self._mapping
                yield from inner(value, f"{here}.", f"{indent}  ")
            elif len(line) <= _WIDTH:
                yield line
            else:
                yield from textwrap.indent(strict_yaml.write({key: value}), indent).splitlines()

    def _items(self, items: list[Any], path: str, indent: str) -> Iterator[str]:
        for place, item in enumerate(items):
            line, comment = f"{indent}- {strict_yaml.write(item, in_a_line=True).strip()}", self.comments[f"{path}{place}"]
            if len(line) + len(comment) + 4 <= _WIDTH:
                yield f"{line}  # {comment}"
            else:
                yield from (*_lines(comment, indent), line)


def _lines(comment: str, indent: str) -> Iterator[str]:
    """A comment in lines of its own."""
    yield from textwrap.wrap(comment, _WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ", break_on_hyphens=False)
