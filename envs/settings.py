"""The base of every component's settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, BeforeValidator, ConfigDict


class Settings(BaseModel):
    """A frozen, validated part of a scenario: unknown keys are refused, every field has a default and says its unit."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def default_kind(kind: str) -> BeforeValidator:
    """For a part of several kinds: settings that name no kind are of this one."""

    def fill(data: Any) -> Any:
        return {"kind": kind, **data} if isinstance(data, Mapping) and "kind" not in data else data

    return BeforeValidator(fill)
