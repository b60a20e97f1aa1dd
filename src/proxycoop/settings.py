"""The base of every component's settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict


class Settings(BaseModel):
    """A frozen, validated part of a scenario or a run. Unknown keys are refused. Every field is described, with its unit."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


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
