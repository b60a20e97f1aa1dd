"""The base of every component's settings."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """A frozen, validated part of a scenario: unknown keys are refused, every field has a default and says its unit."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
