r"""Whether a scenario's start and scales make sense: what is wrong with them, each in one sentence with the numbers.

Three things are looked for:

* **a start that is worse than guessing**: a log loss on the validation rows above the entropy of their labels,
  :math:`-\sum_c f_c \ln f_c`, or an accuracy below the share of the largest class, :math:`\max_c f_c`. Both are means over four splits of
  the data, or over the scenario's own if it has several: a start of a few public rows is now and then bad by chance;
* **tolerances and limits that never bind, or always**: they block none, or all, of the updates that are looked at in the reference
  episodes, in which all clean lots are contributed without screening (the episodes that give ``reward.scale: auto`` its unit). All lots
  are looked at, the corrupt ones too; under governance ``own`` only those of the profile's holders;
* **learning rates that were set for a model of another kind**, and came here with ``extends`` or remained when the model was changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ...envs import Engine, Scenario
from ...envs.model.utility import UTILITIES, UtilityName
from ...envs.scenario import Observations
from ...envs.shared import shared

BoundName = Literal["tolerances", "relative_tolerances", "limits", "relative_limits"]
BOUNDS: tuple[BoundName, ...] = ("tolerances", "relative_tolerances", "limits", "relative_limits")
"""The settings of a profile that bound what an update, or an episode, does to a value."""
EPISODES = 32
"""Reference episodes, as many as those that give ``reward.scale: auto`` its unit."""
SPLITS = 4
"""Splits of the data on which the start of a scenario is measured that has one of its own."""
_TENTH = 0.1
_ROUNDING = 1e-6
"""Difference of two utilities that is rounding in single precision."""


@dataclass(frozen=True)
class Finding:
    """Something about a scenario that makes no sense.

    Attributes:
        about: What it is about.
        settings: The settings in question, by dotted path; items of lists by their places, from 0.
        text: One sentence with the numbers, on one line.
    """

    about: Literal["start", "tolerance", "limit", "learning_rate"]
    settings: tuple[str, ...]
    text: str

    def __str__(self) -> str:
        return self.text


def utility_of_guessing(y: Tensor, n_classes: int, utility: UtilityName) -> float:
    """The utility of a model that answers with the frequencies of the classes, whatever it sees.

    Args:
        y: Labels of the rows, int64 ``(V,)``.
        n_classes: Number of classes C.
        utility: Which utility.

    Returns:
        Under ``neg_log_loss`` minus the entropy of the labels, in nats; under ``accuracy`` the share of the largest class.
    """
    share = torch.bincount(y, minlength=n_classes).double() / len(y)
    return float(share.max()) if utility == "accuracy" else float(torch.xlogy(share, share).sum())


@dataclass(frozen=True)
class Standing:
    """How good the start is beside guessing, as means over splits, in the utility's unit.

    Attributes:
        start: Utility of the start on the validation rows.
        guessing: Utility of guessing by the frequencies of the classes there.
    """

    start: float
    guessing: float

    @staticmethod
    def of(scenario: Scenario) -> Standing:
        """The start of a scenario, on four splits or its own."""
        found = []
        for split in range(splits_of(scenario)):
            splits, model, theta = shared(scenario.on_split(scenario.data.split_seed + split), torch.float32)
            rows = splits.validation
            utility = UTILITIES[scenario.utility](model.logits(theta[None], rows.x), rows.y)
            found.append((float(utility), utility_of_guessing(rows.y, splits.n_classes, scenario.utility)))
        start, guessing = np.mean(found, axis=0)
        return Standing(float(start), float(guessing))


def splits_of(scenario: Scenario) -> int:
    """On how many splits a scenario is measured: its own if it has several, else four."""
    return scenario.data.splits if scenario.data.splits > 1 else SPLITS


@dataclass(frozen=True)
class Looks:
    """What was seen in reference episodes: R rounds in all, E episodes at once, N agents with K lots each, M values.

    Attributes:
        gain: Gain of each episode, ``(splits·E,)``, in the utility's unit.
        harm: Predicted harm of every update, ``(R, E, N, K, M)``, in the values' units.
        losses: Value losses at the rounds' start, ``(R, E, M)``.
        first_losses: Value losses where the episodes began, ``(R, E, M)``.
        there: Whether there was a finite update, bool ``(R, E, N, K)``.
        kind: Index of the profile that a principal holds, int64 ``(R, E, N)``; the number of profiles if it holds none.
    """

    gain: Tensor
    harm: Tensor
    losses: Tensor
    first_losses: Tensor
    there: Tensor
    kind: Tensor

    def needed(self, bound: BoundName, value: int, holders: int | None = None) -> Tensor:
        """The least tolerance, or limit, under which each update would not have been blocked, in the unit of that setting.

        Args:
            bound: Which setting. A limit's tolerance in a round is what is left of it.
            value: Index of the value.
            holders: Only lots of principals who hold the profile of this index; all lots by default.

        Returns:
            ``(n,)``, at least 0: updates that do no harm need nothing.
        """
        harm = self.harm[..., value].double()
        here, first = (losses[..., value, None, None].double() for losses in (self.losses, self.first_losses))  # (R, E, 1, 1)
        needs = harm if bound.endswith("tolerances") else harm + (here - first)
        if bound.startswith("relative"):
            needs = needs / (here if bound == "relative_tolerances" else first).clamp(min=torch.finfo(torch.float32).tiny)
        looked_at = self.there if holders is None else self.there & (self.kind == holders)[..., None]
        needs = needs.nan_to_num(nan=torch.inf, posinf=torch.inf)  # where the model diverged nothing is enough
        return torch.where(harm > 0, needs, 0.0).clamp(min=0)[looked_at]


def look(scenario: Scenario, *, episodes: int = EPISODES, seed: int = 0, splits: int | None = None) -> Looks:
    """Play reference episodes: all clean lots are contributed, and nobody screens.

    Args:
        scenario: The cooperative.
        episodes: Episodes on each split.
        seed: Seed of the first episode's cooperative; the others follow by a step of one.
        splits: Number of splits of the data; the scenario's own by default.

    Raises:
        ValueError: If the scenario does not fit its data.
    """
    n_splits = scenario.data.splits if splits is None else splits
    plain = {
        "settlement": None,
        "observations": Observations(),
        "conduct": None,
        "data": scenario.data.model_copy(update={"splits": n_splits}),
    }
    engine = Engine(scenario.unscreened(reward_scale=1.0).model_copy(update=plain), None, num_envs=episodes)
    gain: list[Tensor] = []
    seen: list[tuple[Tensor, ...]] = []
    for split in range(n_splits):
        engine.reset(range(seed, seed + episodes), episode=split)
        while engine.t < engine.horizon:
            now, held = engine.prospect, engine.profiles.kind
            assert held is not None  # it was dealt
            kind = engine.of_those_present(held)
            seen.append((now.harm, now.value_losses, engine.initial_value_losses, now.available & now.finite, kind))
            engine.step(~engine.lots.corrupt)
        gain.append(engine.prospect.utility - engine.initial_utility)
    return Looks(torch.cat(gain), *(torch.stack(parts) for parts in zip(*seen, strict=True)))


def level(needed: Tensor, blocked: float) -> float:
    """The least tolerance, or limit, that would block no more than a share of updates, from what each of them needs, ``(n,)``."""
    return float(np.quantile(needed.numpy(), 1 - blocked, method="inverted_cdf"))


def diagnose(scenario: Scenario) -> list[Finding]:
    """What makes no sense about a scenario's start, tolerances, limits and learning rates; nothing if all is well.

    It plays 32 reference episodes on each of the scenario's splits.

    Raises:
        ValueError: If the scenario does not fit its data.
    """
    return [*_of_start(scenario, Standing.of(scenario)), *_of_bounds(scenario, look(scenario)), *_of_rates(scenario)]


def _of_start(scenario: Scenario, standing: Standing) -> Iterator[Finding]:
    """A start that is worse than guessing."""
    start, guessing = standing.start, standing.guessing
    if start > guessing - _ROUNDING:
        return
    if scenario.utility == "accuracy":
        numbers = f"its accuracy on the validation rows is {start:.3f}, and that of naming the largest class {guessing:.3f}"
    else:
        numbers = f"its log loss on the validation rows is {-start:.3f} nats, and that of the classes' frequencies {-guessing:.3f}"
    trained = f"start.steps={scenario.start.steps}, start.lr={scenario.start.lr:g}"
    yield Finding(
        "start",
        ("start.steps", "start.lr"),
        f"scenario {scenario.name!r}: the start ({trained}) is worse than guessing: {numbers}",
    )


def _of_bounds(scenario: Scenario, looks: Looks) -> Iterator[Finding]:
    """Tolerances and limits that block no update of the reference episodes, or all."""
    governance, values = scenario.screening.governance, list(scenario.values)
    for i, profile in enumerate(scenario.profiles if governance != "none" else ()):
        for bound in BOUNDS:
            for name, most in getattr(profile, bound).items():
                needed = looks.needed(bound, values.index(name), i if governance == "own" else None)
                n_blocked = int((needed > most).sum())
                if not len(needed) or 0 < n_blocked < len(needed):
                    continue
                setting = f"profiles.{i}.{bound}.{name}"
                yield Finding(
                    "tolerance" if bound.endswith("tolerances") else "limit",
                    (setting,),
                    f"scenario {scenario.name!r}: {setting}={most:g} {'always' if n_blocked else 'never'} binds: it blocks "
                    f"{'all' if n_blocked else 'none'} of {len(needed):,} updates in the reference episodes; "
                    f"{level(needed, _TENTH):.2g} would block {_TENTH:.0%}",
                )


def _of_rates(scenario: Scenario) -> Iterator[Finding]:
    """Learning rates that were set for another kind of model."""
    if rates := scenario.rates_of_another_model:
        told = ", ".join(f"{one.setting}={one.rate:g} for {one.model} ({one.place})" for one in rates)
        yield Finding(
            "learning_rate",
            tuple(one.setting for one in rates),
            f"scenario {scenario.name!r}: the model is {scenario.model_in_words}, but learning rates were set for another: {told}",
        )
