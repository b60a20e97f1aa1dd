r"""One strict reader of YAML, for every file and option that holds it, and the writer that goes with it.

Scalars are those of YAML 1.2's core schema. So ``yes``, ``on``, ``no``, ``off`` and dates are text, ``010`` is ten, ``0o10`` is eight and
``1e5`` is a number. PyYAML is used for the syntax alone; its own scalars are those of YAML 1.1, where ``no`` is false and ``1:30`` is 90.

What could be read as something else than was meant is refused, with its line:

* a key that is given twice, with both lines; merge keys (``<<``), which YAML 1.2 does not have; keys that are no text or number;
* tags outside the core schema, several documents in a file, and numbers that a float cannot hold;
* text that is not UTF-8, and characters that do not print.

An alias stands for a copy of what it names. Documents have bounds, which an alias cannot get around: :data:`MOST_VALUES`,
:data:`DEEPEST`, :data:`LARGEST_FILE`.

References:
    *YAML Ain't Markup Language, version 1.2.2* (2021), chapter 10.3: the core schema.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from math import inf, isinf, nan
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from .text import one_line

MOST_VALUES = 200_000
"""Values, keys included, in a document with all its aliases written out."""

DEEPEST = 50
"""Sequences and mappings within each other."""

LARGEST_FILE = 2**24
"""Bytes of a file."""

_LONGEST_NUMBER = 400
_SHOWN = 60
_CORE = "tag:yaml.org,2002:"
_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_INFINITE = re.compile(r"[-+]?(?:\.inf|\.Inf|\.INF)")
_NAN = re.compile(r"\.nan|\.NaN|\.NAN")
_BROKEN = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What YAML's text may not hold."""

KeyPath = tuple[str, ...]
"""The way to a value: keys and numbers of list items, as text."""


class YAMLError(ValueError):
    """Text that cannot be read as YAML, or not in one way only. The message says where and why."""


@dataclass(frozen=True)
class Document:
    """What a YAML document holds.

    Attributes:
        value: Mappings, lists, text, numbers, booleans or ``None``. No part is shared with another.
        lines: The line, from 1, of every key and list item.
    """

    value: Any
    lines: dict[KeyPath, int] = field(default_factory=dict)


def read_file(path: str | Path, what: str = "file") -> Document:
    """Read a YAML file.

    Args:
        path: The file.
        what: What kind of file it is, for messages: ``"scenario file"``.

    Raises:
        YAMLError: If it cannot be read, or as :func:`read_text` does.
    """
    where, path, data = str(path), Path(path), b""
    try:
        mode = path.stat().st_mode
        # a pipe that the shell opened, as in <(…), has a writer; one with a name may never get one, and reading would wait for ever
        if readable := stat.S_ISREG(mode) or (stat.S_ISFIFO(mode) and where.startswith(("/dev/", "/proc/"))):
            with path.open("rb") as file:
                data = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise YAMLError(f"{what} {where!r} cannot be read: {error.strerror or error}") from None
    except ValueError as error:  # a path with a NUL character
        raise YAMLError(f"{what} {where!r} cannot be read: {error}") from None
    if not readable:
        kind = "folder" if stat.S_ISDIR(mode) else "named pipe" if stat.S_ISFIFO(mode) else "device"
        raise YAMLError(f"{what} {where!r} cannot be read: it is a {kind}, must be a file")
    if len(data) > LARGEST_FILE:
        raise YAMLError(f"{what} {where!r} cannot be read: it has more than {LARGEST_FILE:,} bytes")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise YAMLError(
            f"{what} {where!r} cannot be read: byte 0x{data[error.start]:02x} in line {line} is not UTF-8: save it as UTF-8"
        ) from None
    return read_text(text, where)


def read_text(text: str, where: str) -> Document:
    """Read a YAML document.

    Args:
        text: The document. A byte order mark at its beginning is skipped.
        where: Where it comes from, for messages: a file's name.

    Raises:
        YAMLError: If it is not valid YAML, or breaks one of the module's rules. The message begins with ``where`` and the line.
    """
    return _Reader(text, one_line(where), has_lines=True).document()


def read_value(text: str, where: str) -> Any:
    """Read the value of an option, such as that of ``--set horizon=8``.

    Args:
        text: The value, as YAML.
        where: The option and its text, with which messages begin. They name no line.

    Raises:
        YAMLError: As :func:`read_text` does.
    """
    return _Reader(text, one_line(where), has_lines=False).document().value


def write(data: Any, *, in_a_line: bool = False) -> str:
    """Plain data as YAML, which PyYAML and :func:`read_text` read back as it was.

    Text that YAML 1.1 or 1.2 would take for something else is quoted. Characters that do not print are escaped.

    Args:
        data: Mappings, sequences, text, numbers, booleans or ``None``.
        in_a_line: Whether to write all of it in one line, with braces and brackets.
    """
    width = inf if in_a_line else None
    text: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=in_a_line, width=width)
    return "".join(letter if letter == "\n" or letter.isprintable() else _escape(letter) for letter in text)


class _Dumper(yaml.SafeDumper):
    """Quotes text that looks like a number to YAML 1.2 alone, and text in which something must be escaped."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        quoted = _INT.fullmatch(data) or _FLOAT.fullmatch(data) or not data.replace("\n", "").isprintable()
        node: yaml.ScalarNode = self.represent_scalar(f"{_CORE}str", data, style='"' if quoted else None)
        return node


_Dumper.add_representer(str, _Dumper.represent_str)


def _escape(letter: str) -> str:
    code = ord(letter)
    return f"\\x{code:02x}" if code < 2**8 else f"\\u{code:04x}" if code < 2**16 else f"\\U{code:08x}"


class _Anchored(NamedTuple):
    value: Any
    size: int  # values in it
    height: int  # sequences and mappings within each other, itself included


class _Reader:
    """Builds values from PyYAML's stream of events, without its resolver and constructor."""

    def __init__(self, text: str, where: str, has_lines: bool) -> None:
        self.text = text.removeprefix("\ufeff")
        self.where = where
        self.has_lines = has_lines
        self.lines: dict[KeyPath, int] = {}
        self.anchors: dict[str, _Anchored | None] = {}  # None: what it names is still being read
        self.n_values = 0

    def document(self) -> Document:
        if broken := _BROKEN.search(self.text):
            line = len(re.findall("\r\n?|[\n\x85\u2028\u2029]", self.text[: broken.start()])) + 1
            raise self.error(line, f"the character U+{ord(broken[0]):04X} is not allowed: leave it out, or escape it in double quotes")
        events = self.events()
        next(events)  # the stream begins
        if isinstance(next(events), yaml.StreamEndEvent):
            return Document(None)
        value = self.value(next(events), events, (), 0)
        next(events)  # the document ends
        if not isinstance(another := next(events), yaml.StreamEndEvent):
            raise self.error(_line(another), "a second document begins here: leave one")
        return Document(value, self.lines)

    def error(self, line: int, problem: str) -> YAMLError:
        return YAMLError(f"{self.where}{f':{line}' * self.has_lines}: not valid YAML: {problem}")

    def events(self) -> Iterator[yaml.Event]:
        parser: Any = yaml.SafeLoader(self.text)  # only its syntax: it is asked for no node and no value
        try:
            while parser.check_event():
                yield parser.get_event()
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            said = ", ".join(one_line(part) for part in (error.context, error.problem) if part)
            raise self.error(mark.line + 1 if mark else 1, said + ": indent with spaces" * ("'\\t'" in said)) from None
        except (ValueError, OverflowError):  # PyYAML takes any number here
            raise self.error(parser.line + 1, "the number of an escaped character or of YAML's version is out of range") from None
        finally:
            parser.dispose()

    def value(self, event: yaml.Event, events: Iterator[yaml.Event], path: KeyPath, depth: int) -> Any:
        """The value that begins with this event, within so many sequences and mappings."""
        line = _line(event)
        if isinstance(event, yaml.AliasEvent):
            return self.alias(str(event.anchor), line, depth)
        self.count(1, line)
        before = self.n_values
        assert isinstance(event, yaml.NodeEvent)
        if event.anchor in self.anchors:
            raise self.error(line, f"the anchor {_shown(event.anchor)} is given twice")
        if event.anchor is not None:
            self.anchors[event.anchor] = None
        value: Any
        if isinstance(event, yaml.ScalarEvent):
            value = self.scalar(event, line)
        else:
            self.require_depth(depth + 1, line)
            value = (
                self.sequence(event, events, path, depth)
                if isinstance(event, yaml.SequenceStartEvent)
                else self.mapping(event, events, path, depth)
            )
        if event.anchor is not None:
            self.anchors[event.anchor] = _Anchored(value, self.n_values - before + 1, _height(value))
        return value

    def sequence(self, event: yaml.SequenceStartEvent, events: Iterator[yaml.Event], path: KeyPath, depth: int) -> list[Any]:
        self.require_tag(event, "seq")
        items: list[Any] = []
        while not isinstance(inner := next(events), yaml.SequenceEndEvent):
            here = (*path, str(len(items)))
            self.lines[here] = _line(inner)
            items.append(self.value(inner, events, here, depth + 1))
        return items

    def mapping(self, event: yaml.Event, events: Iterator[yaml.Event], path: KeyPath, depth: int) -> dict[Any, Any]:
        self.require_tag(event, "map")
        found: dict[Any, Any] = {}
        first: dict[str, int] = {}  # the line of each key
        while not isinstance(inner := next(events), yaml.MappingEndEvent):
            line = _line(inner)
            if isinstance(inner, yaml.ScalarEvent) and inner.value == "<<" and inner.implicit[0]:
                raise self.error(line, "YAML 1.2 has no merge keys (<<): write the keys out")
            key = self.value(inner, events, path, depth + 1)
            if isinstance(key, list | dict):
                raise self.error(line, "a key must be text or a number, not a sequence or mapping")
            name = str(key)
            if name in first or key in found:  # 3 and "3" are one key wherever keys are text, and 1 and 1.0 are equal
                before = f", first in line {first[name]}" if self.has_lines and name in first else ""
                raise self.error(line, f"the key {_shown(name)} is given twice{before}: leave one")
            first[name] = line
            here = (*path, name)
            self.lines[here] = line
            found[key] = self.value(next(events), events, here, depth + 1)
        return found

    def alias(self, name: str, line: int, depth: int) -> Any:
        """A copy of what the anchor names."""
        if name not in self.anchors:
            raise self.error(line, f"the alias {_shown(name)} names no anchor before it")
        anchored = self.anchors[name]
        if anchored is None:
            raise self.error(line, f"the alias {_shown(name)} stands inside what it names")
        self.count(anchored.size, line)
        self.require_depth(depth + anchored.height, line)
        return deepcopy(anchored.value)

    def scalar(self, event: yaml.ScalarEvent, line: int) -> Any:
        """The scalar's value: by its tag if it has one, by the core schema if it is plain, else text."""
        text: str = event.value
        if re.search("[\ud800-\udfff]", text):
            raise self.error(line, "half of a surrogate pair is no character: write the whole character")
        if event.tag is None and not event.implicit[0]:  # it is quoted, or a block
            return text
        if event.tag in ("!", f"{_CORE}str"):
            return text
        kind, value = self.resolved(text, line)
        if event.tag is None or event.tag == f"{_CORE}{kind}":
            return value
        if event.tag == f"{_CORE}float" and kind == "int":
            return float(value)
        known = event.tag in [f"{_CORE}{name}" for name in ("null", "bool", "int", "float")]
        raise self.error(
            line, f"{_shown(text)} is no {event.tag.removeprefix(_CORE)}, as its tag says" if known else _unknown_tag(event.tag)
        )

    def resolved(self, text: str, line: int) -> tuple[str, Any]:
        """What a plain scalar is in the core schema: the name of its tag, and its value."""
        if _NULL.fullmatch(text):
            return "null", None
        if _BOOL.fullmatch(text):
            return "bool", text.lower() == "true"
        if _INFINITE.fullmatch(text):
            return "float", -inf if text.startswith("-") else inf
        if _NAN.fullmatch(text):
            return "float", nan
        whole, broken = _INT.fullmatch(text), _FLOAT.fullmatch(text)
        if not whole and not broken:
            return "str", text
        if len(text) > _LONGEST_NUMBER:
            raise self.error(line, f"the number {_shown(text)} has {len(text):,} characters: at most {_LONGEST_NUMBER} are read")
        if whole:
            return "int", int(text, 8 if text.startswith("0o") else 16 if text.startswith("0x") else 10)
        number = float(text)
        if isinf(number) or (number == 0 and re.search("[1-9]", re.split("[eE]", text)[0])):
            raise self.error(line, f"the number {_shown(text)} is too {'large' if number else 'small'} for a float of 64 bits")
        return "float", number

    def count(self, n: int, line: int) -> None:
        self.n_values += n
        if self.n_values > MOST_VALUES:
            raise self.error(line, f"it holds more than {MOST_VALUES:,} values, aliases written out")

    def require_depth(self, depth: int, line: int) -> None:
        if depth > DEEPEST:
            raise self.error(line, f"it has more than {DEEPEST} sequences and mappings within each other")

    def require_tag(self, event: yaml.Event, name: str) -> None:
        tag = getattr(event, "tag", None)
        if tag not in (None, "!", f"{_CORE}{name}"):
            raise self.error(_line(event), _unknown_tag(tag))


def _line(event: yaml.Event) -> int:
    mark: Any = event.start_mark  # the parser marks every event
    return int(mark.line) + 1


def _height(value: Any) -> int:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inside is None else 1 + max(map(_height, inside), default=0)


def _unknown_tag(tag: str) -> str:
    return (
        f"the tag {_shown(tag.replace(_CORE, '!!'))} is not allowed here: known are !!null, !!bool, !!int, !!float, !!str, !!seq and !!map"
    )


def _shown(text: object) -> str:
    shown = repr(text if not isinstance(text, str) else text[: _SHOWN + 1])
    return shown if len(shown) <= _SHOWN + 2 else f"{shown[:_SHOWN]}…"
