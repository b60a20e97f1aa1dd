r"""Audit screening. Episodes are played, and for every contributed update it is recorded who objected, why, what harm was predicted, and
what harm the update would have done.

The screening predicts harm from its own probe sets. The harm that an update would truly have done to a value is
:math:`\ell_m(\theta + \Delta) - \ell_m(\theta)`. It is measured here on the probe test sets, which the screening never sees, and also on
the screening's own probe sets. The two differ only because the sets are different samples. Both measure the update alone, at full
length; the step that is applied takes only the lot's share of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from ...agents import Agent, play
from ...agents.seats import populated
from ...credit import CreditRule
from ...envs import Engine, Scenario
from ...envs.data.sources import Rows
from ...envs.outcome import strictest_limits
from ...envs.rendering import direction_in_short, profile_in_short
from ...envs.screening.bargaining import explain
from ...envs.screening.harm import Harm
from ...envs.screening.verdicts import Verdicts
from ..blocks import by_profile, by_seat
from ..evaluate import value_losses_of

BARGAINS_TOLD = 2
"""Rounds of the first episode for which the negotiation is described."""


@dataclass(frozen=True)
class Audit:
    """What screening did in E episodes of T rounds, with N agents, K lots each, M values, D directions, C profiles.

    Attributes:
        scenario: The cooperative.
        seeds: The seed of each episode.
        directions: The directions in words, in order.
        kind: Which profile a principal holds, int64 ``(E, N)``; C for none.
        corrupt: Whether a lot is corrupt, bool ``(E, N, K)``; forged updates, which come after the lots, count as corrupt.
        contributed: Whether a lot's update was contributed, bool ``(T, E, N, K)``.
        admitted: Whether it was admitted, bool ``(T, E, N, K)``.
        kept: Norm of what entered over the update's norm, ``(T, E, N, K)``: 1 if it entered unchanged, 0 if it was not admitted.
        norm: Norm of each update, ``(T, E, N, K)``; not finite if the update is not finite.
        predicted: Predicted harm of each update as proposed, and how far it goes against each direction, ``(T, E, N, K, M + D)``.
        realised: The same, measured on the probe test sets, for the update alone and at full length.
        on_probe: The same, measured on the screening's own probe sets.
        entered: The same, measured on the probe test sets, for the update as the filter changed it; ``realised`` if it entered unchanged.
        limit: Everybody's limits, ``(T, E, N, M + D)``; infinite if there is none.
        max_norm: Everybody's largest norm, ``(E, N)``.
        objections: One row for each objection to a contributed update, int64 ``(n, 6)``: round, episode, proxy, lot, who objects, account;
            see :attr:`accounts`.
        value_losses: Value losses on the screening's probe sets, start included, ``(T + 1, E, M)``.
        unscreened_value_losses: The same where the same agents play and nobody screens.
        tolerance: The strictest tolerance in each round, within what is left of limits, ``(T, E, M)``; infinite if nobody has one.
        max_rise: The strictest limit on the rise of each value's loss over an episode, ``(E, M)``; infinite if nobody has one.
        blocks_by_profile: See :func:`~proxycoop.training.blocks.by_profile`, ``(C + 1, C)``.
        blocks_by_seat: See :func:`~proxycoop.training.blocks.by_seat`, ``(N, N)``.
        bargains: Under governance negotiate, how the first rounds of the first episode were negotiated, in words.
    """

    scenario: Scenario
    seeds: tuple[int, ...]
    directions: tuple[str, ...]
    kind: Tensor
    corrupt: Tensor
    contributed: Tensor
    admitted: Tensor
    kept: Tensor
    norm: Tensor
    predicted: Tensor
    realised: Tensor
    on_probe: Tensor
    entered: Tensor
    limit: Tensor
    max_norm: Tensor
    objections: Tensor
    value_losses: Tensor
    unscreened_value_losses: Tensor
    tolerance: Tensor
    max_rise: Tensor
    blocks_by_profile: Tensor
    blocks_by_seat: Tensor
    bargains: tuple[str, ...]

    @property
    def accounts(self) -> tuple[str, ...]:
        """The accounts, that is, reasons to object: values, directions, the norm, each tag, numbers that are not finite; and the lever
        ``block``, where there is one.
        """
        directions = (f"direction {name}" for name in self.directions)
        tags = (f"tag {tag}" for tag in self.scenario.lots.tags)
        levers = () if self.scenario.conduct is None else self.scenario.conduct.levers
        block = ("block",) if any(lever.kind == "block" for lever in levers) else ()
        return (*self.scenario.values, *directions, "norm", *tags, "not finite", *block)

    @property
    def profile_names(self) -> tuple[str, ...]:
        """The profiles in short, and a name for having none."""
        return (*(profile_in_short(profile) for profile in self.scenario.profiles), "no profile")


def audit(
    scenario: Scenario,
    agent: Callable[[], Agent],
    *,
    credit: CreditRule | str | None = "shapley",
    episodes: int = 16,
    seed: int = 0,
) -> Audit:
    """Play episodes twice, with screening and without, and record what screening did.

    Args:
        scenario: The cooperative.
        agent: Makes everybody's policy, apart from the scenario's population.
        credit: The credit rule. It matters to agents that observe their pay.
        episodes: Number of episodes, at least 1. All are played at once.
        seed: Seed of the first episode; the others follow by a step of one.

    Raises:
        ValueError: If ``episodes`` is below 1, or the agent or the rule does not fit the scenario.
    """
    if episodes < 1:
        raise ValueError(f"episodes={episodes}: must be at least 1")
    scenario.require_everybody("an audit")
    seeds = range(seed, seed + episodes)
    engine = Engine(scenario, credit, episodes)
    recorder = _Recorder(engine)
    play(engine, populated(agent(), scenario), seeds, before_round=recorder.before, on_round=recorder.after)
    unscreened = Engine(scenario.unscreened(engine.reward_scale), engine.rule, episodes)
    play(unscreened, populated(agent(), scenario), seeds)
    return recorder.audit(seeds, value_losses_of(unscreened))


@dataclass(frozen=True)
class _Seen:
    """What was measured for one round's updates. The attributes are those of :class:`Audit`, without the axis T."""

    norm: Tensor
    predicted: Tensor
    realised: Tensor
    on_probe: Tensor
    entered: Tensor
    limit: Tensor
    objections: Tensor


class _Recorder:
    """Records one episode of an engine, in every environment."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.seen: list[_Seen] = []
        self.bargains: list[str] = []

        def measured_on(probes: Mapping[str, Rows]) -> Harm:
            prepared = [replace(probes[name], x=engine.model.prepare(probes[name].x)) for name in engine.values]
            return Harm("measured", engine.values, prepared, engine.model, engine.splits.dataset)

        self._on_probe, self._on_test = measured_on(engine.splits.probe), measured_on(engine.splits.probe_test)

    def before(self, engine: Engine) -> None:
        """Keep the parameters and the updates before a round."""
        self._theta, self._prospect = engine.theta, engine.prospect

    @torch.no_grad()
    def after(self, engine: Engine) -> None:
        """Measure the round's updates at the parameters before the round."""
        prospect, result = self._prospect, engine.history[-1]
        verdicts = prospect.verdicts
        blocks = None if result.pulled is None else engine.items.who(result.pulled, "block")
        updates, mended = prospect.proposals.updates, prospect.filtered.updates
        realised = self._measured(self._on_test, updates)
        is_mended = result.admitted & (result.kept < 1)
        entered = torch.where(is_mended[..., None], self._measured(self._on_test, mended), realised) if is_mended.any() else realised
        effects = verdicts.profiles.effects
        self.seen.append(
            _Seen(
                norm=verdicts.norm,
                predicted=effects(verdicts.harm),
                realised=effects(realised),
                on_probe=effects(self._measured(self._on_probe, updates)),
                entered=effects(entered),
                limit=verdicts.profiles.limit,
                objections=_objections(verdicts, result.contributed, engine.t - 1, blocks),
            )
        )
        if result.bargain is not None and len(self.bargains) < BARGAINS_TOLD:
            names = [f"proxy_{i}" for i in range(engine.num_agents)]
            self.bargains.append(f"round {engine.t}:\n{explain(result.bargain, 0, names, list(engine.values))}")

    def audit(self, seeds: Sequence[int], unscreened: Tensor) -> Audit:
        """The audit of what was recorded."""
        engine, history = self.engine, self.engine.history
        kind, scenario = engine.profiles.kind, engine.scenario
        assert kind is not None

        def over_rounds(name: str) -> Tensor:
            return torch.stack([getattr(part, name) for part in self.seen])

        return Audit(
            scenario=scenario,
            seeds=tuple(seeds),
            directions=tuple(direction_in_short(profile.direction) for profile in scenario.profiles if profile.direction),
            kind=kind,
            corrupt=pad(engine.lots.corrupt, (0, engine.items.n_updates - engine.num_lots), value=True),
            contributed=torch.stack([result.contributed for result in history]),
            admitted=torch.stack([result.admitted for result in history]),
            kept=torch.stack([result.kept for result in history]),
            norm=over_rounds("norm"),
            predicted=over_rounds("predicted"),
            realised=over_rounds("realised"),
            on_probe=over_rounds("on_probe"),
            entered=over_rounds("entered"),
            limit=over_rounds("limit"),
            max_norm=engine.profiles.max_norm,
            objections=torch.cat([part.objections for part in self.seen]),
            value_losses=value_losses_of(engine),
            unscreened_value_losses=unscreened,
            tolerance=torch.stack([result.tolerance for result in history]),
            max_rise=strictest_limits(engine),
            blocks_by_profile=by_profile(history, kind, len(scenario.profiles)),
            blocks_by_seat=by_seat(history),
            bargains=tuple(self.bargains),
        )

    def _measured(self, harm: Harm, updates: Tensor) -> Tensor:
        """ℓ(θ + Δ) − ℓ(θ) of every update: ``(E, N, K, P)`` → ``(E, N, K, M)``."""
        return harm(self._theta, updates, harm.losses(self._theta), self._prospect.value_gradients)


def _objections(verdicts: Verdicts, contributed: Tensor, t: int, blocks: Tensor | None) -> Tensor:
    """Every objection to a contributed update, int64 ``(n, 6)``: round, episode, proxy, lot, who objects, account.

    ``blocks`` says who objects to all that others send, bool ``(E, N)``.
    """
    finite = verdicts.finite[..., None, None]
    not_finite = (~finite).expand(*verdicts.blocked_by.shape, 1)
    objects = torch.cat([verdicts.objects & finite, not_finite], dim=-1)  # (E, N, K, N, A + 1)
    if blocks is not None:
        others = ~torch.eye(blocks.shape[1], dtype=torch.bool, device=blocks.device)[:, None]  # (N, 1, N)
        blocked = (blocks[:, None, None] & others).expand(verdicts.blocked_by.shape)
        objects = torch.cat([objects, blocked[..., None]], dim=-1)
    where = (objects & contributed[..., None, None]).nonzero()  # (n, 5)
    return torch.cat([torch.full_like(where[:, :1], t), where], dim=1)
