"""The parameters that a tuning varies: how they are written, their values, and the mechanism that they make.

A parameter is an argument of the credit rule (``budget=20..200``) or, after ``scenario:``, a setting of the scenario by its dotted path
(``scenario:reward.public_share=0.0..0.5``). Its values are a range, a range on a log scale (``log:20..200``), or choices
(``own|unanimous``). A range whose two ends are whole numbers without a dot has whole numbers alone.
"""

from __future__ import annotations

import difflib
import inspect
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from ... import credit
from ...credit.rule import parse
from ...envs.scenario import Scenario
from ...envs.shared import require_served, shared
from ...settings import describe
from ...strict_yaml import YAMLError, read_value
from ..grid import changed, in_words

SCENARIO = "scenario:"
"""What the name of a scenario's setting begins with."""
_NUMBER = r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?"
_RANGE = re.compile(rf"(log:)?({_NUMBER})\.\.({_NUMBER})", re.ASCII)
_WHOLE = re.compile(r"[+-]?[0-9]+", re.ASCII)
_DIGITS = 4
"""Digits to which a value of a range is rounded, so that what is reported is what was trained."""
_NOT_TUNED = {
    "name": "no number depends on it",
    "description": "no number depends on it",
    "version": "no number depends on it",
    "data.splits": "it is a setting of the training: --hyper splits=…",
    "data.split_seed": "each seed trains on splits of its own",
    "reward.scale": "it is the unit in which scores are measured",
}
"""Settings of a scenario that are no parameters of a mechanism, each with the reason."""
_WORLD = (
    *("principals", "horizon", "data", "lots", "model", "start", "substrate", "weights", "server", "utility", "values"),
    *("conduct", "population"),
)
_PROTECTION = ("screening", "profiles", "profiles_drawn")
_PRIVACY = "privacy"
_FACTS = ("reward.contribution_cost",)


@dataclass(frozen=True)
class Parameter:
    """A parameter that is varied, and its values.

    Attributes:
        part: Whether it is an argument of the rule or a setting of the scenario.
        path: The argument's name, or the setting's dotted path.
        low: The least value of a range; ``None`` for choices. Whole numbers are ``int``.
        high: Its largest value.
        log: Whether the range is searched on a log scale.
        choices: The values of choices, each by its text.
    """

    part: Literal["rule", "scenario"]
    path: str
    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    choices: Mapping[str, Any] | None = None

    @property
    def name(self) -> str:
        """Its name, as one writes it."""
        return self.path if self.part == "rule" else f"{SCENARIO}{self.path}"

    @property
    def is_whole(self) -> bool:
        """Whether it is a range of whole numbers."""
        return isinstance(self.low, int)

    @property
    def values_in_words(self) -> str:
        """Its values, as one writes them."""
        if self.choices is not None:
            return "|".join(self.choices)
        return f"{'log:' * self.log}{self.low!r}..{self.high!r}"

    def __str__(self) -> str:
        return f"{self.name}={self.values_in_words}"

    def at_the_door(self) -> list[Any]:
        """Values with which the mechanism is built before any training: all choices, or both ends of a range and one number between."""
        if self.choices is not None:
            return list(self.choices.values())
        assert self.low is not None
        assert self.high is not None
        between = self.low + 0.37 * (self.high - self.low)  # no whole number, unless the range has only these
        return [self.low, self.high, self.rounded(round(between) if self.is_whole else between)]

    def rounded(self, value: Any) -> Any:
        """A value of a range in as few digits as tell it from its neighbours, within the range; a choice as it is."""
        if self.low is None or self.high is None or self.is_whole:
            return value
        places = _DIGITS - 1 - math.floor(math.log10(value if self.log else self.high - self.low))
        return min(max(round(float(value), places), float(self.low)), float(self.high))

    def holds(self, value: Any) -> bool:
        """Whether a value is one of the parameter's."""
        if self.choices is not None:
            return self.text_of(value) is not None
        if isinstance(value, bool) or not isinstance(value, int if self.is_whole else int | float):
            return False
        assert self.low is not None
        assert self.high is not None
        return bool(self.low <= value <= self.high)

    def text_of(self, value: Any) -> str | None:
        """The text of a choice, by its value; ``None`` if it is none of them."""
        return next((text for text, one in (self.choices or {}).items() if one == value and type(one) is type(value)), None)


def read_parameters(texts: Iterable[str]) -> tuple[Parameter, ...]:
    """Read parameters and their values.

    Args:
        texts: One for each parameter: ``decay=0.5..0.99``, ``budget=log:20..200``, ``scenario:screening.governance=own|unanimous``.

    Raises:
        ValueError: If there is none, one is written otherwise, has fewer than two values, or is named twice.
    """
    found: list[Parameter] = []
    for text in texts:
        one = _read(text)
        for other in found:
            if one.name == other.name:
                raise ValueError(f"parameters {_short(text)}: {one.name} is there twice: leave one")
            if f"{one.name}.".startswith(f"{other.name}.") or f"{other.name}.".startswith(f"{one.name}."):
                raise ValueError(f"parameters {_short(text)}: {one.name} and {other.name} are parts of each other: leave one")
        found.append(one)
    if not found:
        raise ValueError("parameters names none: give at least one, such as budget=20..200 or scenario:reward.public_share=0.0..0.5")
    return tuple(found)


def _read(text: str) -> Parameter:
    name, equals, values = text.partition("=")
    part: Literal["rule", "scenario"] = "scenario" if name.startswith(SCENARIO) else "rule"
    path = name.removeprefix(SCENARIO)
    keys = path.split(".") if part == "scenario" else [path]
    if not equals or not values or not all(keys) or (part == "rule" and not path.isidentifier()):
        hint = f": a setting of the scenario is {SCENARIO}{path}=…" if "." in path and part == "rule" and equals else ""
        raise ValueError(
            f"parameters {_short(text)}{hint or ': write NAME=LOW..HIGH, NAME=log:LOW..HIGH or NAME=A|B|C, such as budget=20..200'}"
        )
    if part == "scenario" and path in _NOT_TUNED:
        raise ValueError(f"parameters {_short(text)}: {path} cannot be tuned: {_NOT_TUNED[path]}")
    if ".." in values and "|" not in values:
        return _range(text, part, path, values)
    return _choices(text, part, path, values)


def _range(text: str, part: Literal["rule", "scenario"], path: str, values: str) -> Parameter:
    written = _RANGE.fullmatch(values)
    if written is None:
        raise ValueError(f"parameters {_short(text)}: a range is LOW..HIGH or log:LOW..HIGH, two numbers, such as 0.5..0.99")
    is_whole = all(_WHOLE.fullmatch(end) for end in written.groups()[1:])
    low, high = (int(end) if is_whole else float(end) for end in written.groups()[1:])
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"parameters {_short(text)}: both ends must be finite")
    if low >= high:
        raise ValueError(f"parameters {_short(text)}: a range goes from a smaller number to a larger one: turn it round, or leave it out")
    if written[1] and low <= 0:
        raise ValueError(f"parameters {_short(text)}: on a log scale both ends must be above 0: raise {written[2]}, or leave log: out")
    return Parameter(part, path, low, high, log=bool(written[1]))


def _choices(text: str, part: Literal["rule", "scenario"], path: str, values: str) -> Parameter:
    choices: dict[str, Any] = {}
    for choice in values.split("|"):
        if not choice.strip():
            raise ValueError(f"parameters {_short(text)}: a choice is empty: write values with | between them, such as own|unanimous")
        if choice in choices:
            raise ValueError(f"parameters {_short(text)}: {choice} is there twice: leave one")
        try:
            choices[choice] = read_value(choice, f"parameters {_short(text)}")
        except YAMLError as error:
            raise ValueError(str(error)) from None
    if len(choices) < 2:
        raise ValueError(
            f"parameters {_short(text)}: there is one value, and a parameter has at least two: write LOW..HIGH or A|B, or set the one in "
            "the rule's name or with --set"
        )
    return Parameter(part, path, choices=choices)


def _short(text: str) -> str:
    return repr(text) if len(text) <= 80 else f"{text[:80]!r}…"


def mechanism(rule: str, scenario: Scenario, values: Mapping[str, Any]) -> tuple[str, Scenario]:
    """The rule and the scenario with some values of parameters, by :attr:`Parameter.name`. All others stay as they are.

    Returns:
        The rule with its arguments, as text; and the scenario.

    Raises:
        ValueError: If the rule has no such argument, the scenario no such setting, or they do not allow a value.
    """
    arguments = {name: value for name, value in values.items() if not name.startswith(SCENARIO)}
    if arguments:
        name, own = parse(rule)
        rule = f"{name}({', '.join(f'{key}={value!r}' for key, value in (own | arguments).items())})"
    made = credit.make(rule)
    settings = {name.removeprefix(SCENARIO): value for name, value in values.items() if name.startswith(SCENARIO)}
    if settings:
        try:
            scenario = changed(scenario, settings)
        except ValueError as error:
            if str(error) in settings:  # the path alone is said of a setting that there is not
                raise _unknown_setting(str(error)) from None
            raise
    require_served(scenario, made, rule)
    return rule, scenario


def _unknown_setting(path: str) -> ValueError:
    known = list(dict.fromkeys(re.sub(r"\[[a-z_0-9]+\]", "", name) for name, _, _ in describe(Scenario)))
    close = difflib.get_close_matches(path, known, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return ValueError(f"a scenario has no setting {path!r}{hint}: 'proxycoop scenarios --settings' lists them")


def defaults(rule: str, scenario: Scenario, parameters: Sequence[Parameter]) -> dict[str, Any]:
    """The values that the parameters have in the rule and the scenario as they were given; ``None`` where there is none."""
    name, own = parse(rule)
    signature = inspect.signature(credit.RULES[name]).parameters
    own = {key: one.default for key, one in signature.items() if one.default is not one.empty} | own
    plain = scenario.to_dict(full=True)
    return {one.name: own.get(one.path) if one.part == "rule" else _named(_at(plain, one.path)) for one in parameters}


def _named(value: Any) -> Any:
    """A part that only says its kind, as its name: the two mean the same."""
    return value["kind"] if isinstance(value, Mapping) and value.keys() == {"kind"} else value


def _at(plain: Any, path: str) -> Any:
    """What stands at a dotted path in nested mappings and lists; ``None`` if nothing does."""
    for key in path.split("."):
        if isinstance(plain, Mapping):
            plain = plain.get(key)
        elif isinstance(plain, list | tuple) and key.isdecimal() and int(key) < len(plain):
            plain = plain[int(key)]
        else:
            return None
    return plain


def require_valid(rule: str, scenario: Scenario, parameters: Sequence[Parameter]) -> list[tuple[str, Scenario]]:
    """Build the mechanism as it was given, and with each parameter at its ends, before any training begins.

    Returns:
        What was built: rules and scenarios, the given ones first.

    Raises:
        ValueError: If it cannot be built; the message names the parameter and the value. Also if a range has whole numbers alone where the
            rule or the scenario takes any number.
    """
    built = [mechanism(rule, scenario, {})]
    shared(scenario, torch.float32)
    for one in parameters:
        for value in one.at_the_door():
            try:
                made = mechanism(rule, scenario, {one.name: value})
                if one.part == "scenario":
                    shared(made[1], torch.float32)
            except ValueError as error:
                raise ValueError(f"parameters {one}: {in_words(value)} is not allowed: {error}") from None
            built.append(made)
        if one.is_whole and _takes_any_number(rule, made[1], one):
            raise ValueError(
                f"parameters {one}: this is a range of whole numbers, but {one.path} takes any number: write "
                f"{float(one.low or 0)}..{float(one.high or 0)}, or {one.low}|{one.high} for these two alone"
            )
    return built


def _takes_any_number(rule: str, scenario: Scenario, parameter: Parameter) -> bool:
    """Whether a parameter is of type ``float``."""
    if parameter.part == "scenario":
        return isinstance(_at(scenario.to_dict(full=True), parameter.path), float)
    argument = inspect.signature(credit.RULES[parse(rule)[0]]).parameters.get(parameter.path)
    return argument is not None and argument.annotation in (float, "float")


def remarks(parameters: Iterable[Parameter]) -> list[str]:
    """What a user should know of parameters that are no part of a mechanism, or that protect values, a sentence for each."""
    said = []
    for one in parameters:
        part = one.path.partition(".")[0] if one.part == "scenario" else ""
        if part in _WORLD or one.path in _FACTS:
            said.append(
                f"{one.path} belongs to the cooperative and not to its mechanism: trials differ in it as worlds do, and reward units may "
                "differ too."
            )
        if part in _PROTECTION:
            said.append(f"Scores do not count harm to values, and {one.path} protects them: look at the violations as well.")
        if part == _PRIVACY:
            said.append(f"Scores do not count loss of privacy, and {one.path} decides how much there is: look at epsilon as well.")
    return said
