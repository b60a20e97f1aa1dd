"""Populations: which agents play which seats of a cooperative, while others learn or play what they are asked to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator

from ...settings import Settings, problems

_WAYS = ("seats", "all_but", "count", "share")
_Seat = Annotated[int, Field(ge=0)]


class Members(Settings):
    """Some seats, and the agent that plays them. Say who in one of four ways: seats, all_but, count or share."""

    agent: str = Field(description="Name of the agent; `proxycoop agents` lists them.")
    seats: tuple[_Seat, ...] | None = Field(None, description="These seats, from 0.")
    all_but: tuple[_Seat, ...] | None = Field(None, description="All seats but these, apart from those that another entry names.")
    count: int | None = Field(None, ge=1, description="So many seats: the last ones that are free.")
    share: float | None = Field(None, gt=0, le=1, description="This share of all seats, halves rounded up: the last ones that are free.")

    @model_validator(mode="after")
    def _one_way(self) -> Members:
        given = [way for way in _WAYS if getattr(self, way) is not None]
        if len(given) != 1:
            raise ValueError(
                f"agent {self.agent!r} needs one of {', '.join(_WAYS)} (got {', '.join(given) or 'none'}), as in "
                f"{{agent: {self.agent}, count: 2}}"
            )
        if self.seats is not None and (not self.seats or len(set(self.seats)) < len(self.seats)):
            raise ValueError(f"seats={list(self.seats)}: name at least one seat, and each once")
        return self

    def __str__(self) -> str:
        way = next(way for way in _WAYS if getattr(self, way) is not None)
        said = getattr(self, way)
        told = ",".join(map(str, said)) if isinstance(said, tuple) else f"{said:g}"
        return f"{told if way == 'seats' else f'{way}:{told}'}={self.agent}"


def members_named(text: str) -> Members:
    """Some seats and their agent, from a text such as ``2=none``, ``2,4=none``, ``all_but:0=none``, ``count:2=none``, ``share:0.5=none``.

    Raises:
        ValueError: If it is written otherwise.
    """
    who, equals, agent = text.partition("=")
    way, colon, told = who.partition(":")
    if not colon:
        way, told = "seats", who
    parts = [part.strip() for part in told.split(",")]
    if equals and agent and way in _WAYS:
        number: Any = None
        if way in ("seats", "all_but") and all(part.isascii() and part.isdigit() for part in parts):
            number = [int(part) for part in parts]
        elif way == "count" and told.isascii() and told.isdigit():
            number = int(told)
        elif way == "share":
            try:
                number = float(told)
            except ValueError:
                number = None
        if number is not None:
            try:
                return Members.model_validate({"agent": agent, way: number})
            except ValidationError as error:
                raise ValueError(f"seat {text!r}: {problems(error)[0]}") from None
    raise ValueError(
        f"seat {text!r}: write a seat's number and an agent's name, such as 0=none; or several seats, as in 0,2=none, all_but:0=none, "
        "count:2=none or share:0.5=none"
    )


def seats_taken(population: Sequence[Members], n_agents: int) -> dict[int, str]:
    """Who plays which seat.

    Seats that entries name are dealt first. Then come those of counts and shares, from the last seat down; those of ``all_but`` come last.

    Args:
        population: The entries.
        n_agents: Number of seats N.

    Returns:
        Names of agents by seat, in the order of the seats. A seat that nobody takes is not there.

    Raises:
        ValueError: If a seat does not exist or is named twice, there are not so many free seats, a share comes to none, or two entries say
            all_but.
    """
    taken: dict[int, str] = {}

    def exists(seat: int, entry: Members) -> int:
        if seat >= n_agents:
            raise ValueError(f"seat {str(entry)!r}: seats go from 0 to {n_agents - 1}")
        return seat

    for entry in population:
        for seat in entry.seats or ():
            if exists(seat, entry) in taken:
                raise ValueError(f"seat {str(entry)!r}: seat {seat} is {taken[seat]!r} already: name each seat once")
            taken[seat] = entry.agent
    for entry in population:
        wanted = entry.count if entry.count is not None else int((entry.share or 0) * n_agents + 0.5)  # halves are rounded up
        if entry.share is not None and not wanted:
            raise ValueError(f"seat {str(entry)!r}: takes no seat of {n_agents}: give a larger share, or a count")
        free = [seat for seat in reversed(range(n_agents)) if seat not in taken]
        if wanted > len(free):
            raise ValueError(f"seat {str(entry)!r}: takes {wanted} seats, and {len(free)} of {n_agents} are free")
        taken |= dict.fromkeys(free[:wanted], entry.agent)
    if len(rest := [str(entry) for entry in population if entry.all_but is not None]) > 1:
        raise ValueError(f"seat {rest[1]!r}: {rest[0]!r} has all seats but some already: name all_but once")
    for entry in population:
        if entry.all_but is not None:
            kept = {exists(seat, entry) for seat in entry.all_but}
            taken |= {seat: entry.agent for seat in range(n_agents) if seat not in kept and seat not in taken}
    return dict(sorted(taken.items()))


def merged(population: Mapping[int, str], given: Mapping[int, str]) -> dict[int, str]:
    """The population's seats, with those that were given over them. A seat given to ``learned`` is free."""
    return {seat: name for seat, name in sorted((dict(population) | dict(given)).items()) if name != "learned"}
