"""What all environments of a scenario share: its :class:`Ground`. And which credit rules can serve them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from threading import RLock

import torch
from torch import Tensor

from ..credit import RULES, CreditRule
from ..credit.games.round import lacking
from ..strict_yaml import read_text
from .data.columns import ColumnSource
from .data.dataset import Bools, Dataset
from .data.lots import LotSource
from .data.sources import DATA, Rows, Splits, split
from .data.tables import require_unchanged
from .devices import CPU, plain_torch
from .model.interface import Model
from .model.likelihood import cross_entropy
from .model.lora import Vit
from .model.utility import HeldOutUtility
from .scenario import Scenario
from .screening.harm import Harm
from .screening.procedure import Screener
from .values.gradients import protected_classes
from .values.interface import Value, require_losses

_BUILDING = RLock()
"""Threads build one after another: modules draw their start from torch's generator, which is the process's."""
_WORSE = 1.25  # a start's log loss over that of equal chances, from which it is told; a random start may lie a little above
_NO_LOSS = 1e-6  # a value loss, in its unit, that cannot be told from 0 in single precision


class Ground:
    """What all episodes on one split of a scenario's data share, whatever is played. Nothing here changes.

    Attributes:
        scenario: The scenario, with this split alone.
        splits: Its data.
        model: The shared model.
        theta: Parameters with which every episode starts, ``(P,)``.
        held_x: Validation rows and all probe sets, prepared for the model, one after another, so that they are answered in one pass.
        held_sizes: How many rows each of them has.
        validation: The validation rows, prepared.
        probes: Each value's probe set, prepared.
        utility: The utility on the validation rows.
        lot_source: Draws the lots.
        screener: Screens the rounds.
        protects: Which value protects which class, bool ``(M, n_classes)``.

    Args:
        scenario: The scenario.
        dtype: Type of the numbers.
        device: Where the tensors live.
        index: Which of the scenario's splits, from 0.

    Raises:
        ValueError: If the scenario does not fit its data.
    """

    def __init__(self, scenario: Scenario, dtype: torch.dtype, device: torch.device, index: int = 0) -> None:
        self.scenario = scenario = scenario.on_split(scenario.data.split_seed + index)
        self.splits, self.model, self.theta = shared(scenario, dtype, device)
        held_out = [self.splits.validation, *(self.splits.probe[name] for name in scenario.values)]
        self.held_x = self.model.prepare(torch.cat([rows.x for rows in held_out]))
        self.held_sizes = [len(rows) for rows in held_out]
        parts = self.held_x.split(self.held_sizes)
        self.validation, *self.probes = (replace(rows, x=part) for rows, part in zip(held_out, parts, strict=True))
        self.utility = HeldOutUtility(scenario.utility, self.model, self.validation)
        source = ColumnSource if scenario.substrate.kind == "vertical" else LotSource
        self.lot_source = source(scenario.lots, self.splits, scenario.principals)
        harm = Harm(scenario.screening.harm, scenario.values, self.probes, self.model, self.splits.dataset)
        measured = Harm("measured", scenario.values, self.probes, self.model, self.splits.dataset) if scenario.limited else None
        self.screener = Screener(scenario.screening, harm, measured)
        self.protects = protected_classes(scenario.values, self.splits.dataset).to(device)


def shared(scenario: Scenario, dtype: torch.dtype, device: torch.device = CPU) -> tuple[Splits, Model, Tensor]:
    """A scenario's data, its model, and the parameters ``(P,)`` on which every episode starts; made once, the same for every device."""
    if scenario.data.file is not None:
        require_unchanged(scenario.data.source, scenario.data.file)
    text, made_by = scenario.undefended().model_copy(update={"conduct": None, "population": ()}).to_yaml(), recipe(scenario)
    with _BUILDING:
        return _shared(text, dtype, made_by) if device == CPU else _moved(text, dtype, made_by, device)


def recipe(scenario: Scenario) -> tuple[object, ...]:
    """What makes a scenario's data, values and model: it is a part of the key of whatever is made once, beside the scenario's text.

    The text has their names alone. When a notebook's cell runs again, the same names stand for new functions and classes.
    """
    return (DATA[scenario.data.source], *(type(value) for value in scenario.values.values()), scenario.model.maker())


@lru_cache(maxsize=16)  # what a device has is dear
def _moved(scenario_yaml: str, dtype: torch.dtype, made_by: tuple[object, ...], device: torch.device) -> tuple[Splits, Model, Tensor]:
    splits, model, theta = _shared(scenario_yaml, dtype, made_by)
    return splits.to(device), model.to(device), theta.to(device)


@lru_cache(maxsize=64)
@plain_torch()
def _shared(scenario_yaml: str, dtype: torch.dtype, made_by: tuple[object, ...]) -> tuple[Splits, Model, Tensor]:
    del made_by  # a part of the key
    scenario = Scenario.model_validate(read_text(scenario_yaml, "scenario").value)
    splits = split(scenario.data, {name: partial(_strata, name, value) for name, value in scenario.values.items()}, dtype)
    for name, value in scenario.values.items():
        for what, probe in (("probe set", splits.probe[name]), ("probe test set", splits.probe_test[name])):
            try:
                value.check(probe, splits.dataset)
            except ValueError as refusal:
                raise ValueError(f"the {what} of value {name!r} {refusal}") from None
    if isinstance(scenario.model, Vit):
        scenario.model.pretraining.check(splits.dataset)
    with torch.random.fork_rng(devices=[]):  # modules draw their parameters from torch's global generator
        torch.manual_seed(scenario.data.split_seed)
        model = scenario.model.build(splits.n_features, splits.n_classes)
    theta = model.start().to(dtype)[None]  # (1, P)
    if scenario.start.steps and not len(splits.public):
        raise ValueError("start.steps needs a public set to train on: set data.public_rows, or start.steps to 0")
    theta = scenario.start.train(model, theta, splits.public, scenario.data.split_seed)
    _check_start(scenario, splits, model, theta)
    splits = _with_references(splits, scenario, model, theta)
    losses = _start_losses(scenario, splits, model, theta)
    _check_shares(scenario, losses)
    return splits, model, theta[0]


def _strata(name: str, value: Value, dataset: Dataset, groups: Mapping[str, Bools]) -> Sequence[Bools]:
    """The rows that a value's probe set needs, with the value's name before what is wrong."""
    try:
        return value.strata(dataset, groups)
    except ValueError as error:
        raise ValueError(f"values.{name}: {error}") from None


def _check_start(scenario: Scenario, splits: Splits, model: Model, theta: Tensor) -> None:
    """Refuse a start that diverged, and warn of one that is clearly worse than to know nothing; ``theta`` is ``(1, P)``."""
    start, rows = scenario.start, splits.validation
    loss, nothing = float(cross_entropy(model.logits(theta, rows.x), rows.y).mean()), math.log(splits.n_classes)
    trained = f"{start.steps} steps of {start.optimizer} with start.lr={start.lr:g}"
    remedy = (
        f"lower start.lr{'' if start.optimizer == 'adam' else ', or train a network by start: {optimizer: adam, lr: 0.003}'}; "
        "proxycoop scenarios NAME --calibrate proposes a start"
    )
    if not math.isfinite(loss):
        raise ValueError(f"scenario {scenario.name!r}: the model diverges in {trained} on the public rows: {remedy}")
    if loss > _WORSE * nothing:
        warnings.warn(
            f"scenario {scenario.name!r}: after {trained} on the public rows the model has a log loss of {loss:.2f} nats on the validation "
            f"rows, and one that gives all {splits.n_classes} classes the same chance has {nothing:.2f}: {remedy}",
            stacklevel=2,
        )


def _with_references(splits: Splits, scenario: Scenario, model: Model, theta: Tensor) -> Splits:
    """The splits, with the start model's answers on the probe sets of values that ask for them; ``theta`` is ``(1, P)``."""

    def answered(probes: Mapping[str, Rows]) -> dict[str, Rows]:
        return {
            name: replace(rows, reference=model.logits(theta, rows.x)[0].detach()) if scenario.values[name].needs_reference else rows
            for name, rows in probes.items()
        }

    return replace(splits, probe=answered(splits.probe), probe_test=answered(splits.probe_test))


def _start_losses(scenario: Scenario, splits: Splits, model: Model, theta: Tensor) -> dict[str, float]:
    """The loss of each value where every episode starts; ``theta`` is ``(1, P)``. One that is not finite would pass nothing."""
    losses: dict[str, float] = {}
    for name, value in scenario.values.items():
        probe = splits.probe[name]
        logits = model.logits(theta, probe.x)
        loss = value.loss(logits, probe, splits.dataset)
        require_losses(name, loss, logits)
        losses[name] = float(loss)
        if not math.isfinite(losses[name]):
            raise ValueError(f"value {name!r}: its loss is {losses[name]:g} where every episode starts: it must be finite")
    return losses


def _check_shares(scenario: Scenario, losses: Mapping[str, float]) -> None:
    """Refuse shares of nothing: of a loss that is 0 at the start, rounding would decide what passes."""
    for i, profile in enumerate(scenario.profiles):
        for kind in ("tolerances", "limits"):
            for name in getattr(profile, f"relative_{kind}"):
                if losses[name] < _NO_LOSS:
                    raise ValueError(
                        f"scenario {scenario.name!r}: profiles.{i}.relative_{kind}.{name} is a share of the value's loss, which is 0 where "
                        f"every episode starts, so that rounding would decide what passes: give it an absolute one, under {kind}"
                    )


def require_served(scenario: Scenario, rule: CreditRule, name: str | None = None, *, n_agents: int | None = None) -> None:
    """Refuse a rule that cannot serve a cooperative.

    Args:
        scenario: The cooperative.
        rule: The rule.
        name: What to call it; its registered name by default.
        n_agents: Number of agents in a round; the scenario's by default.

    Raises:
        ValueError: If it cannot serve so many agents, or needs what the cooperative has not; the message says what.
    """
    name = name or name_of(rule)
    if scenario.participation is not None:
        _require_served_in_part(scenario, rule, name)
    rule.check(scenario.n_seats if n_agents is None else n_agents)
    smooth = scenario.utility == "neg_log_loss"
    has = {"utility_gradient": smooth, "utility_curvature": smooth, "columns": scenario.substrate.kind == "vertical"}
    has["vetoes"] = scenario.screening.judges_each and scenario.admission is None
    if "class_head" in rule.needs:  # else the model need not be built
        has["class_head"] = shared(scenario, torch.float32)[1].class_head is not None
    if need := rule.unmet(has, name):
        raise ValueError(f"credit rule {name!r} cannot serve scenario {scenario.name!r}: {lacking(need)}")


def _require_served_in_part(scenario: Scenario, rule: CreditRule, name: str) -> None:
    """Refuse a rule that cannot serve rounds in which only some agents are present; see :func:`require_served`."""
    m, n = scenario.n_seats, scenario.n_agents
    who = f"scenario {scenario.name!r}, in which {m:,} of {n:,} agents are present in a round"
    if "vetoes" in rule.needs and not scenario.samples_some:
        raise ValueError(
            f"credit rule {name!r} cannot serve scenario {scenario.name!r} with participation, which counts verdicts by profiles, not by "
            f"agents: participation.sample={m:,} is everybody, so leave participation out"
        )
    if "vetoes" in rule.needs:
        raise ValueError(
            f"credit rule {name!r} cannot serve {who}: it asks what each coalition would have let through, but the profiles of all "
            f"{n:,} principals are in force, whoever is present"
        )
    if not scenario.samples_some:
        return
    if "peer_gains" in rule.needs:
        raise ValueError(
            f"credit rule {name!r} cannot serve {who}: each agent would have to try every other one's update on its own data, and of "
            f"{n * (n - 1):,} pairs {m * (m - 1):,} can ({m * (m - 1) / (n * (n - 1)):.2g} of all); use a rule that asks no peers"
        )
    if why := rule.tied_to_places:
        raise ValueError(f"credit rule {name!r} cannot serve {who}: {why}")


def name_of(rule: CreditRule | None) -> str:
    """What a rule is called where its text is not known."""
    return "none" if rule is None else RULES.name_of(type(rule)) or type(rule).__name__
