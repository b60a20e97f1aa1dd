"""The base of every component's settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict


class Settings(BaseModel):
    """A frozen, validated part of a scenario or a run: unknown keys are refused, every field has a default and says its unit."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def describe(settings: type[BaseModel], prefix: str = "", default: Any = None) -> Iterator[tuple[str, str, str]]:
    """Every setting below a class of settings: its dotted path, its default and what it means.

    Parts of several kinds are told apart by ``[kind]`` behind their name, entries of mappings and sequences by ``<…>``.

    Args:
        settings: The class.
        prefix: What stands before its settings' names.
        default: What the settings are where this part is not given, if that is not what each of them says.
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
    """The models that stand in a type annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [cls for part in get_args(annotation) for cls in models_in(part)]


def _shown(default: Any) -> str:
    return "none" if default is None else str(default) if default not in ((), {}, "") else "–"


def default_kind(kind: str) -> BeforeValidator:
    """For a part of several kinds: settings that name no kind are of this one."""

    def fill(data: Any) -> Any:
        return {"kind": kind, **data} if isinstance(data, Mapping) and "kind" not in data else data

    return BeforeValidator(fill)
