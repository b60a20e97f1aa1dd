"""Scenario files: what a scenario says, put together from its file, those that it extends, and overrides."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from ... import strict_yaml
from ...registry import unknown_name
from ...settings import left_out
from ...text import one_line
from ..data.tables.settings import path_within
from ..values.interface import VALUES, Value
from .shipped import shipped, shipped_names

KeyPath = strict_yaml.KeyPath
_RATES: tuple[KeyPath, ...] = (("start", "lr"), ("substrate", "local_lr"), ("substrate", "lr"), ("server", "lr"))
"""The settings that are learning rates of the shared model."""


@dataclass(frozen=True)
class RateOfAnotherModel:
    """A learning rate that a file set for a model of another kind than the scenario's.

    Attributes:
        setting: Its dotted path, such as ``substrate.local_lr``.
        rate: The learning rate.
        model: The model for which it was set, in words: its kind, and of a module the factory.
        place: File and line.
    """

    setting: str
    rate: float
    model: str
    place: str


def model_in_words(model: Any) -> str:
    """The kind of a model, and of a module the factory, by its settings as plain data, which need not be valid yet."""
    settings = model if isinstance(model, Mapping) else {}
    return " ".join(str(settings[key]) for key in ("kind", "factory") if key in settings) or "softmax"


@dataclass
class Draft:
    """A scenario that is being put together, and where each of its keys comes from.

    Attributes:
        where: The file, for messages.
        data: What it says so far.
        places: Of each key: the file and line, or the override, that it was read from last.
        overridden: The keys that an override has set.
        files: The files that were read, the one that extends the others last.
        set_for: Of each learning rate that a file set: the model of the scenario then, in words.
    """

    where: str
    data: dict[str, Any]
    places: dict[KeyPath, str]
    overridden: dict[KeyPath, str] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)
    set_for: dict[KeyPath, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._mark_rates(self.places)

    def merge(self, data: Mapping[str, Any], places: Mapping[KeyPath, str]) -> None:
        """Merge data, mapping by mapping. An empty mapping, or a part of another ``kind``, replaces the whole old part."""
        self._merge(self.data, data, places, ())
        self._mark_rates(places)

    def _mark_rates(self, places: Mapping[KeyPath, str]) -> None:
        """Remember for which model the learning rates at these places were set."""
        self.set_for |= {path: model_in_words(self.data.get("model")) for path in _RATES if path in places}

    def rates_set(self) -> tuple[RateOfAnotherModel, ...]:
        """The learning rates that files set for another model than there is now, unless an override or another file set them anew."""
        model = model_in_words(self.data.get("model"))
        return tuple(
            RateOfAnotherModel(".".join(path), float(self.data[path[0]][path[1]]), known, self.places[path])
            for path, known in self.set_for.items()
            if known != model and path in self.places and path not in self.overridden
        )

    def _merge(self, base: dict[str, Any], extra: Mapping[str, Any], places: Mapping[KeyPath, str], path: KeyPath) -> None:
        for key, value in extra.items():
            old, here = base.get(key), (*path, str(key))
            if value and isinstance(old, dict) and isinstance(value, Mapping) and _fits(value.get("kind"), old.get("kind")):
                self.places |= {here: places[here]} if here in places else {}
                self._merge(old, value, places, here)
            else:
                base[key] = dict(value) if isinstance(value, Mapping) else value
                self._forget(here)
                inside = {place: at for place, at in places.items() if place[: len(here)] == here}
                if inside:
                    self.places[here] = next(iter(inside.values()))
                self.places |= inside

    def override(self, overrides: Mapping[str, tuple[Any, str]]) -> None:
        """Set keys, the kinds of parts first: a part of another kind replaces the whole old part.

        Args:
            overrides: By dotted path, in which items of lists are named by their places, from 0: the value, and where it comes from.

        Raises:
            ValueError: If a path leads through a single setting, or names no item of a list.
        """
        for dotted, (value, origin) in sorted(overrides.items(), key=lambda one: one[0].rpartition(".")[2] != "kind"):
            self._override(tuple(dotted.split(".")), plain(value), origin)

    def _override(self, path: KeyPath, value: Any, origin: str) -> None:
        """Set one key, and make the mappings on the way to it."""
        *parents, last = path
        data: Any = self.data
        for depth, key in enumerate(parents):
            if isinstance(data, list):
                data = data[_position(data, path, depth, origin)]
            else:
                if data.get(key) is None:
                    data[key] = {}
                data = data[key]
            if not isinstance(data, dict | list):
                raise ValueError(f"{origin}: {key!r} is {data!r} and has no settings of its own")
        if last == "kind" and isinstance(data, dict) and not _fits(value, data.get("kind")):
            data.clear()  # the settings of the old kind do not fit the new one
            self._forget(tuple(parents))
        places = {(*path, *inner): origin for inner in _leaves(value)}
        if isinstance(data, list):
            place = _position(data, path, len(parents), origin)
            items = {last: data[place]}
            self._merge(items, {last: value}, places, tuple(parents))
            data[place] = items[last]
        else:
            self._merge(data, {last: value}, places, tuple(parents))
        self.overridden |= places

    def _forget(self, path: KeyPath) -> None:
        """Forget where what stands at and below a key came from: it has been replaced."""
        for places in (self.places, self.overridden):
            for gone in [place for place in places if place[: len(path)] == path]:
                del places[gone]

    def data_file(self) -> Path | None:
        """The file of the data, if the scenario names one that could be."""
        part = self.data.get("data")
        file = part.get("file") if isinstance(part, dict) else None
        path = file.get("path") if isinstance(file, dict) else None
        return Path(path) if isinstance(path, str) and path else None

    def place(self, path: KeyPath) -> str:
        """Where a key was read from, or the nearest key above it; with the overrides below it."""
        at = next((self.places[path[:n]] for n in range(len(path), 0, -1) if path[:n] in self.places), self.where)
        inside = [origin for place, origin in self.overridden.items() if place[: len(path)] == path and origin != at]
        return " with ".join([at, ", ".join(dict.fromkeys(inside))]) if inside else at


def _position(items: list[Any], path: KeyPath, depth: int, origin: str) -> int:
    """The place in a list that a part of a path names."""
    place = path[depth]
    if not items:
        raise ValueError(f"{origin}: {'.'.join(path[:depth])} is an empty list: set all of it, as in {'.'.join(path[:depth])}=[{{…}}]")
    if not re.fullmatch(r"[0-9]{1,4}", place, re.ASCII) or int(place) >= len(items):
        whole = f"a place in the list {'.'.join(path[:depth])}, from 0 to {len(items) - 1}"
        raise ValueError(f"{origin}: {place!r} must be {whole}; or set all of it, as in {'.'.join(path[:depth])}=[{{…}}, {{…}}]")
    return int(place)


def _leaves(value: Any) -> list[KeyPath]:
    """The paths, within a value, of what is no mapping or an empty one."""
    if not isinstance(value, Mapping) or not value:
        return [()]
    return [(str(key), *inner) for key, part in value.items() for inner in _leaves(part)]


def read_draft(name_or_path: str | Path, seen: tuple[str, ...] = ()) -> Draft:
    """Read a scenario and those that it extends."""
    path = Path(name_or_path)
    is_path = path.suffix in (".yaml", ".yml") or len(path.parts) > 1
    if not is_path and str(name_or_path) not in names():
        raise ValueError(str(unknown_name("scenario", str(name_or_path), names())) + "; or pass the path of a .yaml file")
    if not is_path and str(name_or_path) not in _own_names():
        path, is_path = shipped(str(name_or_path)), True
    where = str(path) if is_path else f"{name_or_path}.yaml"
    if is_path and (path.is_fifo() or path.is_char_device()):
        raise ValueError(f"scenario file {where!r} is a pipe or a device, and a scenario is read more than once: save it as a file first")
    identity = str(path.resolve()) if is_path else str(name_or_path)
    if identity in seen:
        raise ValueError(f"{where} extends itself, by way of {' → '.join(seen)}: change or remove one of the keys 'extends'")
    read = (
        strict_yaml.read_file(where, "scenario file") if is_path else strict_yaml.read_text((_folder() / where).read_text("utf-8"), where)
    )
    data = read.value
    if not isinstance(data, dict):
        raise ValueError(f"scenario file {where!r} holds {'nothing' if data is None else f'a {type(data).__name__}'}, must hold a mapping")
    places = {path: f"{one_line(where)}:{line}" for path, line in read.lines.items()}
    if is_path:
        _place_data(data, path.parent)
    base = data.pop("extends", None)
    if base is None:
        return Draft(where, data, places, files=[path] * is_path)
    if not isinstance(base, str):
        raise ValueError(f"{places['extends',]}: extends: must be the name of a scenario, or the path of its file (got {base!r})")
    draft = read_draft(path.parent / base if is_path and base.endswith((".yaml", ".yml")) else base, (*seen, identity))
    draft.where = where
    draft.files += [path] * is_path
    draft.merge(data, places)
    return draft


def _place_data(data: dict[str, Any], folder: Path) -> None:
    """Make the path of a scenario's data file absolute. It is written relative to the scenario's file, in ``folder``."""
    part = data.get("data")
    file = part.get("file") if isinstance(part, dict) else None
    if isinstance(file, dict) and isinstance(file.get("path"), str) and file["path"]:
        file["path"] = path_within(folder, file["path"])


def _fits(kind: object, old: object) -> bool:
    """Whether settings of one kind can be merged with settings of another. Settings without a kind can be merged with any."""
    return kind is None or old is None or kind == old


def plain(part: Any, full: bool = False) -> Any:
    """Settings as plain data, which YAML can write and read back: mappings, lists, numbers and strings."""
    if isinstance(part, BaseModel):
        kind = {}
        if isinstance(part, Value):
            if (name := VALUES.name_of(type(part))) is None:
                raise ValueError(f"value class {type(part).__name__} is not registered: decorate it with @VALUES.register(NAME)")
            kind = {"kind": name}
        return kind | {name: plain(getattr(part, name), full) for name in type(part).model_fields if full or not left_out(part, name)}
    if isinstance(part, Mapping):
        return {key: plain(value, full) for key, value in part.items()}
    return [plain(value, full) for value in part] if isinstance(part, (list, tuple)) else part


def names() -> list[str]:
    """Names of the scenarios that come with this package, and of those that other packages ship."""
    return sorted(_own_names().union(shipped_names()))


def _own_names() -> set[str]:
    return {path.name.removesuffix(".yaml") for path in _folder().iterdir() if path.name.endswith(".yaml")}


def _folder() -> Any:
    return resources.files("proxycoop.envs") / "scenarios"
