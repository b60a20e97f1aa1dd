"""The base of every component's settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Literal, NamedTuple, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, model_validator
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError

from .registry import unknown_name

LATER: JsonDict = {"later": True}
"""``json_schema_extra`` of a setting that came later than its part. Files leave it out while it has its default, so that what earlier
versions wrote still equals what this one writes."""
_LONGEST_SHOWN = 80
_SWITCHES = ("y", "yes", "n", "no", "on", "off")
"""Text that YAML 1.1 took for true or false."""
_RULES = {"switch_for_number": "must be a number, not true or false", "no_switch": "must be true or false"}


class Settings(BaseModel):
    """A frozen, validated part of a scenario or a run. Unknown keys are refused. Every field is described, with its unit."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _switches_are_switches(cls, data: Any) -> Any:
        """Refuse true and false where a number is wanted, and all else where a switch is. Pydantic would read 1 and 0, 'on' and 'off'."""
        for name, given in data.items() if isinstance(data, Mapping) else ():
            mistake = ""
            if name in _fields_of_numbers(cls) and _holds_switch(given):
                mistake = "switch_for_number"
            elif name in _fields_of_switches(cls) and not isinstance(given, bool):
                mistake = "no_switch"
            if mistake:
                raise PydanticCustomError(mistake, "{key}={given}: {rule}", {"key": name, "given": repr(given), "rule": _RULES[mistake]})
        return data


def left_out(part: BaseModel, name: str) -> bool:
    """Whether files leave a field of a part out: it is marked :data:`LATER`, and has its default."""
    field = type(part).model_fields[name]
    extra = field.json_schema_extra
    later = isinstance(extra, dict) and bool(extra.get("later"))
    return later and getattr(part, name) == field.get_default(call_default_factory=True)


def describe(settings: type[BaseModel], prefix: str = "", default: Any = None) -> Iterator[tuple[str, str, str]]:
    """List every setting of a class and of its parts: dotted path, default and meaning.

    Where a part can be of several kinds, ``[kind]`` follows its name. ``<…>`` stands for the key or index in a mapping or sequence.

    Args:
        settings: The class.
        prefix: Put before the names of its settings.
        default: An instance that replaces the fields' own defaults, where the parent has a default of its own for this part.
    """
    for name, field in settings.model_fields.items():
        if name == "kind":
            continue
        parts = models_in(field.annotation)
        value = getattr(default, name, None if field.is_required() else field.get_default(call_default_factory=True))
        if not parts:
            yield f"{prefix}{name}", "required" if field.is_required() else _shown(value), field.description or ""
            continue
        many = get_origin(field.annotation) in (dict, tuple)
        for part in parts:
            kind = f"[{part.model_fields['kind'].default}]" if "kind" in part.model_fields else ""
            yield from describe(part, f"{prefix}{name}{'.<…>' if many else ''}{kind}.", value if type(value) is part else None)


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The pydantic models that a type annotation mentions."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [cls for part in get_args(annotation) for cls in models_in(part)]


def _shown(default: Any) -> str:
    return "none" if default is None else str(default) if default not in ((), {}, "") else "–"


def default_kind(kind: str) -> BeforeValidator:
    """For a part that can be of several kinds: settings that name no kind get this one."""

    def fill(data: Any) -> Any:
        return {"kind": kind, **data} if isinstance(data, Mapping) and "kind" not in data else data

    return BeforeValidator(fill)


def kind_by_name(what: str, known: Sequence[str]) -> BeforeValidator:
    """For a part that can be of several kinds: a text is the name of one, which then has its defaults. Unknown kinds are refused.

    Args:
        what: What kinds they are of, for the message, such as ``"aggregator"``.
        known: Their names.
    """

    def read(data: Any) -> Any:
        named = {"kind": data} if isinstance(data, str) else data
        if isinstance(named, Mapping) and isinstance(kind := named.get("kind"), str) and kind not in known:
            raise unknown_name(what, kind, list(known))
        return named

    return BeforeValidator(read)


def misplaced(path: Sequence[object], message: str) -> PydanticCustomError:
    """What a validator of a whole part raises about one setting within it, so that the message says where that stands.

    Args:
        path: The way from the part to the setting: keys and places in lists.
        message: What is wrong with it, and what is allowed.
    """
    way = [str(key) for key in path]
    return PydanticCustomError("misplaced", "{where}: {message}", {"where": ".".join(way), "message": message, "path": way})


class Problem(NamedTuple):
    """One wrong setting, for messages.

    Attributes:
        path: The way to it, as pydantic names it: a part of several kinds is followed by its kind.
        message: What is allowed.
        came: The end of the message: what came, with a hint where YAML 1.1 would have read something else. Empty for a whole part.
        known: The settings beside it, if it is one that its part does not have and the part named them.
    """

    path: tuple[str, ...]
    message: str
    came: str
    known: tuple[str, ...] | None = None

    def __str__(self) -> str:
        path = ".".join(self.path)
        return f"{path}: {self.message}{self.came}" if path else f"{self.message}{self.came}"


def problems(error: ValidationError) -> list[Problem]:
    """What pydantic found wrong."""
    found = []
    for one in error.errors():
        context = one.get("ctx", {})
        given, path = one["input"], tuple(str(part) for part in one["loc"])
        if one["type"] in ("unknown_key", *_RULES):  # found by a part, about one of its settings
            given, path = given[context["key"]], (*path, str(context["key"]))
        said = one["msg"]
        if one["type"] == "misplaced":
            path, given, said = (*path, *context["path"]), {}, context["message"]
        whole = isinstance(given, BaseModel) or (isinstance(given, dict) and not one["type"].endswith("_type"))  # too long to be shown
        came = "" if whole else _what_came(given)
        known = tuple(context["known"]) if one["type"] == "unknown_key" else () if one["type"] == "extra_forbidden" else None
        message = _RULES.get(one["type"]) or said.removeprefix("Value error, ")
        found.append(Problem(path, message, came, known))
    return found


def _what_came(given: Any) -> str:
    text = repr(given)
    text = text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"
    switch = isinstance(given, str) and given.lower() in _SWITCHES
    return f" (got {text}, which is text in YAML 1.2)" if switch else f" (got {text})"


@cache
def _fields_of_numbers(settings: type[BaseModel]) -> frozenset[str]:
    """The fields that hold numbers and never a boolean. Parts that are settings themselves check their own."""
    found = set()
    for name, field in settings.model_fields.items():
        leaves = set(_leaf_types(field.annotation))
        if leaves & {int, float} and bool not in leaves and not models_in(field.annotation):
            found.add(name)
    return frozenset(found)


@cache
def _fields_of_switches(settings: type[BaseModel]) -> frozenset[str]:
    """The fields that are true or false and nothing else."""
    return frozenset(name for name, field in settings.model_fields.items() if field.annotation is bool)


def _leaf_types(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) is Literal:
        return
    parts = get_args(annotation)
    if not parts:
        yield annotation
    for part in parts:
        yield from _leaf_types(part)


def _holds_switch(given: Any) -> bool:
    if isinstance(given, Mapping):
        return any(map(_holds_switch, given.values()))
    return any(map(_holds_switch, given)) if isinstance(given, list | tuple) else isinstance(given, bool)
