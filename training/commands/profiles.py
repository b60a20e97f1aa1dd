"""What ``proxycoop profiles`` does: draw pairs of real updates for people to judge, and fit profiles to their choices."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from scipy.special import expit

from ... import strict_yaml
from ...envs import Engine, scenario
from ...envs.people.comparisons import Bools, Comparisons, Floats
from ...envs.people.populations import PopulationFit, fit_population
from ...envs.people.preferences import ProfileFit, fit_profile
from ...envs.scenario import Scenario
from ...envs.screening.profiles import Profile
from ...registry import unknown_name
from ...text import one_line

NOTHING = 0.25
"""Share of the pairs in which one option is no update at all."""
AVERSION = 1.0
"""Weight of harm in a simulated person's liking. Gain has weight 1. Both are divided by their root mean square differences."""
STEEPENING = 8.0
"""Additional weight of harm beyond the tolerance."""


def sample(loaded: Scenario, pairs: int, persons: int = 1, seed: int = 0) -> Comparisons:
    """Draw pairs of updates for people to judge. Nobody has chosen yet: every choice is set to "the second".

    Whole episodes of the scenario are played. All lots are contributed, and screened as the scenario says. Both updates of a pair come from
    the same round; in one pair of four, the second is no update at all. The sides are then shuffled. Effects are first-order predictions:
    the harm to each value and, unless the utility is accuracy, the gain.

    Args:
        loaded: The scenario.
        pairs: Pairs for each person.
        persons: Number of people who will judge. If there are several, each gets a name.
        seed: Seed of the cooperatives and of the pairs.

    Raises:
        ValueError: If the scenario has no values, or pairs or persons are not positive.
    """
    if not loaded.values:
        raise ValueError(f"scenario {loaded.name!r} has no values, so its updates harm nobody: choose a scenario with values")
    if pairs < 1 or persons < 1:
        raise ValueError(f"pairs={pairs}, persons={persons}: both must be at least 1")
    random = np.random.default_rng(seed)
    wanted = pairs * persons
    a_round = loaded.principals * loaded.lots.per_principal // 2 or 1
    batch = max(4, min(64, math.ceil(2 * wanted / (a_round * loaded.horizon))))
    # a fixed reward scale saves the reference episodes; rewards do not matter here
    unpaid = loaded.model_copy(update={"reward": loaded.reward.model_copy(update={"scale": 1.0}), "conduct": None})
    engine = Engine(unpaid, None, batch, dtype=torch.float64)
    first, second = [], []
    episode = found = 0
    while found < 2 * wanted or episode == 0:
        engine.reset([seed * batch + e for e in range(batch)], episode=episode)
        while engine.t < engine.horizon:
            for effects in _effects(engine):
                order = random.permutation(len(effects))
                half = (len(order) + 1) // 2
                one = effects[order[:half]]
                other = np.zeros_like(one)  # if the number is odd, the last is compared with no update
                other[: len(order) - half] = effects[order[half:]]
                other[random.random(half) < NOTHING] = 0
                differ = (one != other).any(axis=1)
                first.append(one[differ])
                second.append(other[differ])
                found += int(differ.sum())
            engine.step(torch.ones(engine.num_envs, engine.num_agents, engine.num_lots, dtype=torch.bool))
        if not found:
            raise ValueError(
                f"scenario {loaded.name!r}: no two updates of an episode differ in their effects, so there is nothing to choose"
            )
        episode += 1
    one, other = np.concatenate(first), np.concatenate(second)
    chosen = random.choice(len(one), wanted, replace=False)
    swap = random.random((wanted, 1)) < 0.5
    a, b = np.where(swap, other[chosen], one[chosen]), np.where(swap, one[chosen], other[chosen])
    m = len(loaded.values)
    who = np.repeat([f"person-{p + 1:0{len(str(persons))}}" for p in range(persons)], pairs) if persons > 1 else None
    return Comparisons(
        tuple(loaded.values),
        a[:, :m],
        b[:, :m],
        np.zeros(wanted, bool),
        np.column_stack([a[:, m:], b[:, m:]]) if a.shape[1] > m else None,
        who,
    )


def _effects(engine: Engine) -> list[Floats]:
    """Predicted effects of the updates of a round, for each environment: ``(updates, M)``, or with the gain ``(updates, M + 1)``."""
    prospect = engine.prospect
    effects = prospect.harm  # (E, N, K, M)
    if engine.scenario.utility != "accuracy":
        effects = torch.cat([effects, engine.predicted_gain()[..., None]], dim=-1)
    there = prospect.finite & prospect.available
    return [effects[e][there[e]].numpy() for e in range(engine.num_envs)]


def answer(comparisons: Comparisons, profiles: Sequence[Profile], seed: int = 0) -> Comparisons:
    r"""Simulate answers. Person i holds profile i modulo the number of profiles.

    Let g be the gain of an update, h its harms, τ the tolerances, and d the root mean square difference of an effect within a pair. A
    person likes the update by

    .. math:: \frac{g}{d_g} - \sum_m \Big(\frac{h_m}{d_m} + 8 \frac{\max(0, h_m - \tau_m)}{d_m}\Big)

    where the sum is over the values with a tolerance. If the profile has a direction, the harm along it, divided by its own root mean
    square difference, is subtracted too. The person chooses the first of two updates with a probability that is the logistic function of
    the difference.

    Raises:
        ValueError: If a profile has neither a tolerance nor a direction.
    """
    names = comparisons.values
    size = np.sqrt(np.square(comparisons.differences).mean(axis=0))
    size[size == 0] = 1.0
    person = comparisons.who % len(profiles)
    better = np.zeros(len(comparisons))
    for i, profile in enumerate(profiles):
        if not (profile.tolerances or profile.direction):
            raise ValueError(
                f"profile {i} of those to choose by has no tolerance and no direction, so its holder's choices cannot be simulated: "
                "choose another"
            )
        mine = person == i

        def liking(harm: Floats, profile: Profile = profile) -> Floats:
            total = np.zeros(len(harm))
            for value, tolerance in profile.tolerances.items():
                m = names.index(value)
                total -= (AVERSION * harm[:, m] + STEEPENING * np.maximum(harm[:, m] - tolerance, 0)) / size[m]
            if profile.direction:
                weights = np.array([profile.direction.get(value, 0.0) for value in names])
                total -= harm @ weights / (np.sqrt(np.square((comparisons.first - comparisons.second) @ weights).mean()) or 1.0)
            return total

        better[mine] = (liking(comparisons.first) - liking(comparisons.second))[mine]
    if comparisons.gain is not None:
        better += (comparisons.gain[:, 0] - comparisons.gain[:, 1]) / size[-1]
    chose_first: Bools = np.random.default_rng(seed).random(len(comparisons)) < expit(better)
    return Comparisons(names, comparisons.first, comparisons.second, chose_first, comparisons.gain, comparisons.person)


def chosen_profiles(loaded: Scenario, indices: Sequence[int]) -> list[Profile]:
    """Profiles of a scenario by their index.

    Raises:
        ValueError: If there is no such profile.
    """
    for index in indices:
        if not 0 <= index < len(loaded.profiles):
            raise ValueError(f"--choose-by {index}: scenario {loaded.name!r} has profiles 0 to {len(loaded.profiles) - 1}")
    return [loaded.profiles[index] for index in indices]


def fit(
    comparisons: Comparisons, components: int | Literal["auto"] = 1, *, confidence: float = 0.95, seed: int = 0
) -> ProfileFit | PopulationFit:
    """One profile for all, or a mixture of types."""
    if components == 1:
        return fit_profile(comparisons, confidence=confidence, seed=seed)
    return fit_population(comparisons, components, confidence=confidence, seed=seed)


def require_values(comparisons: Comparisons, loaded: Scenario, source: str) -> None:
    """Refuse choices about values that a scenario does not have.

    Raises:
        ValueError: Naming the value and the known ones.
    """
    for value in comparisons.values:
        if value not in loaded.values:
            raise unknown_name(f"value in {source}", value, sorted(loaded.values) or ["none: define one under values"])


def profiles_of(fitted: ProfileFit | PopulationFit, holders: int, direction: bool | None) -> list[Profile]:
    """The fitted profiles, in the form that a scenario takes."""
    if isinstance(fitted, PopulationFit):
        return fitted.profiles(holders, direction=direction)
    return [fitted.profile(holders, direction=direction)]


def as_yaml(profiles: Sequence[Profile], source: str, base: str | None, out: Path | None) -> str:
    """The profiles as YAML: a scenario that extends another, or the list alone.

    Args:
        profiles: The profiles.
        source: Where the choices came from, for the comment at the top.
        base: Name or path of the scenario to extend, if any; a path is written relative to the file.
        out: The file that will hold them, if any.

    Raises:
        ValueError: If the profiles do not fit the scenario.
    """
    plain = [profile.model_dump(exclude_defaults=True) | {"holders": profile.holders} for profile in profiles]
    head = f"# Learned from the choices in {one_line(source)} by `proxycoop profiles fit`.\n"
    if base is None:
        head += "# Use it as `profiles` of a scenario whose values have these names, or fit again with --scenario.\n"
        return head + strict_yaml.write({"profiles": plain})
    loaded = scenario.load(base, profiles=plain)  # refuses what does not fit
    extends = base
    if base.endswith((".yaml", ".yml")):
        place = out.parent if out is not None else Path()
        extends = Path(os.path.relpath(os.path.realpath(base), os.path.realpath(place))).as_posix()  # a folder may be a link
    return head + strict_yaml.write({"extends": extends, "name": f"{loaded.name[:50]}-fitted", "profiles": plain})
