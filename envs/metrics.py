"""The infos of a round and the metrics of an episode, which all faces report."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..credit import LotRule
from .engine import Engine
from .model.utility import least_divisor
from .scenario import Scenario
from .screening.bargaining import measures

PREFIX = "metrics/"
"""In the infos of a single proxy, the metrics of an episode are numbers of their own, each under this prefix and its name."""
DECLARED = ["declared/larger", "declared/smaller"]
"""Metrics of scenarios in which proxies may declare other tolerances than their principals have."""
ROUNDING = 1e-9
"""Levers that come to a factor this near to 1 declare the truth: a fifth and five times, together."""


def round_infos(engine: Engine) -> dict[str, NDArray[Any]]:
    """The infos of each agent about the round just played; zeros before the first round of an episode.

    Returns:
        By name, ``(E, N)`` or ``(E, N, …)``, on the CPU:

        * ``credit``: what the rule assigned, in the utility's unit;
        * ``contributed``, ``admitted``: which of the agent's lots were contributed, and which were admitted, bool ``(E, N, K)``;
        * ``kept``: norm of what was admitted over the norm of the update, ``(E, N, K)``, below 1 where the filter changed the update;
        * ``blocked_by``: which principal found which update inadmissible, bool ``(E, N, K, N)``; where only some agents are present in a
          round, which of the scenario's profiles did, ``(E, N, K, J)``, the last one that of principals who have none;
        * where only some agents are present, ``present``: whether the agent is present in the round to come, bool ``(E, N)``;
        * ``utility``: the utility of the shared model now, the same for all agents of a cooperative;
        * under rules that credit single lots (:class:`~proxycoop.credit.LotRule`), ``lot_credit``: what each lot earned, ``(E, N, K)``;
        * where the scenario has a settlement, ``payout``: what was paid to the agent after this round, and ``paid``: what was paid to it
          in this episode so far, both int64, in minor units;
        * where it has one, also ``paid_share``: its share of everything that was paid in this episode so far, 1/N before the first payment.
    """
    last = engine.history[-1] if engine.history else None
    by_agent = engine.num_envs, engine.num_agents
    by_lot = *by_agent, engine.items.n_updates
    infos = {
        "credit": np.zeros(by_agent) if last is None else _copied(last.credit),
        "contributed": np.zeros(by_lot, dtype=bool) if last is None else _copied(last.contributed),
        "admitted": np.zeros(by_lot, dtype=bool) if last is None else _copied(last.admitted),
        "kept": np.zeros(by_lot) if last is None else _copied(last.kept),
        "blocked_by": np.zeros((*by_lot, engine.prospect.blocked_by.shape[-1]), dtype=bool) if last is None else _copied(last.blocked_by),
        "utility": _copied(engine.prospect.utility[:, None].expand(by_agent)),
    }
    if engine.attendance is not None:
        infos["present"] = _copied(engine.attendance.mask)
    if isinstance(engine.rule, LotRule):
        infos["lot_credit"] = np.zeros(by_lot) if last is None or last.lot_credit is None else _copied(last.lot_credit)
    if engine.treasury is not None:
        paid = engine.treasury.accounts.paid  # Python's integers
        total = paid.sum(axis=1, keepdims=True)
        infos |= {
            "payout": np.zeros(by_agent, dtype=np.int64) if last is None or last.payouts is None else _copied(last.payouts),
            "paid": paid.astype(np.int64),
            "paid_share": np.where(total > 0, paid / np.maximum(total, 1), 1 / engine.num_agents).astype(np.float64),
        }
    return infos


def agent_metrics(engine: Engine) -> dict[str, Tensor]:
    """The :func:`episode_metrics` of each agent, ``(E, N)``. Metrics of the whole cooperative are repeated for every agent."""
    each = engine.num_envs, engine.num_agents
    return {name: measure.reshape(len(measure), -1).expand(each) for name, measure in episode_metrics(engine).items()}


def metrics_in(info: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of an episode that the info of one proxy holds, by their names without :data:`PREFIX`."""
    return {name.removeprefix(PREFIX): float(number) for name, number in info.items() if name.startswith(PREFIX)}


def metric_names(scenario: Scenario) -> list[str]:
    """Names of the :func:`episode_metrics` of a scenario, in their order, without playing a round."""
    names = ["return", "cost", "welfare", "utility", "gain", "clean_share", "corrupt_share", "admitted_share", "violations", "kept"]
    names += ["imbalance", "evaluations"]
    if scenario.conduct is not None:
        n_forgeries = len(scenario.conduct.forgeries)
        names += [f"{'sent' if i < n_forgeries else 'pulled'}/{name}" for i, name in enumerate(scenario.conduct.names)]
        names += DECLARED * scenario.conduct.misdeclares
    if scenario.admission is not None:
        names += ["refused_share", "envy", *["payments"] * ("bids" in scenario.admission.choose.needs)]
    if scenario.privacy is not None and scenario.privacy.noise_multiplier > 0:
        names += ["epsilon"]
    if scenario.settlement is not None:
        names += ["revenue", "paid"]
    if scenario.screening.governance == "negotiate":
        spread = measures(torch.zeros(1, 1), torch.zeros(1, 1, dtype=torch.int64))
        names += [f"{which}/{name}" for which in ("negotiated", "unanimous") for name in spread]
    names += [f"value_change/{name}" for name in scenario.values]
    if any(profile.bounds for profile in scenario.profiles):
        names += ["own_harm", "principal_welfare"]
    return names + ["beyond_limits", *(f"limit_used/{name}" for name in scenario.limited)] * bool(scenario.limited)


def episode_metrics(engine: Engine) -> dict[str, Tensor]:
    """Metrics of the episode that the engine has just played, or of its rounds so far.

    Returns:
        By name, ``(E,)``; or ``(E, N)`` for metrics of each agent:

        * ``return``: sum of rewards, ``(E, N)``;
        * ``cost``: sum of costs and fines, ``(E, N)``, in reward units;
        * ``welfare``: the cooperative's gain in utility, in reward units, minus the costs of all agents, but for payments for places,
          which stay in the cooperative;
        * ``utility``: utility after the last round; ``gain``: its change since the start, in the utility's unit;
        * ``clean_share``, ``corrupt_share``: share of the clean lots, and of the corrupt lots, that were contributed; 0 if there are none;
          where only some agents are present in a round, of theirs;
        * ``admitted_share``: share of the contributed lots that were admitted; 0 if there are none;
        * ``violations``: share of rounds with a violation: the applied step's harm, as the screening predicts it, or its norm was beyond
          somebody's limit, or the step used data that somebody forbids;
        * ``value_change/<name>``: change of each value loss on its probe set, in the value's unit;
        * where a profile has a tolerance or a limit, ``own_harm``, ``(E, N)``: how far the losses of the own principal's values rose, in
          its tolerances for one update; and ``principal_welfare``, ``(E, N)``: the return without what loyalty takes, less that harm, so
          that one tolerance counts as one reward unit;
        * where profiles have limits, ``limit_used/<name>``: the largest rise of the value's loss over its start, at the end of any round,
          as a share of the strictest limit on it, above 1 beyond the limit; and ``beyond_limits``: share of rounds after which a loss was
          beyond a limit, by more than rounding;
        * ``kept``: mean over admitted updates of the share of the update's norm that was admitted, below 1 if the filter changed any;
        * ``imbalance``: sum of credit minus sum of v(N), in reward units; 0 for an efficient rule;
        * ``evaluations``: coalitions evaluated per round;
        * where the scenario has conduct, ``sent/<forgery>`` and ``pulled/<lever>``: share of all agents' rounds in which the item was
          chosen; of ``strict`` and ``lax`` among the agents whose profile has a tolerance. Where there are such levers,
          ``declared/larger`` and ``declared/smaller``: share of these agents' rounds in which the levers come to larger tolerances
          than the true ones, and to smaller ones;
        * where there is room for only some, ``refused_share``: share of the updates that passed the screening and found no place;
          ``envy``, ``(E, N)``: how many more places, in the mean of rounds, the agent had updates for and another agent had;
          and under an auction ``payments``, ``(E, N)``: what the agent paid for places, less what it got back, in reward units;
        * under privacy with noise, ``epsilon``, ``(E, N)``: the principal's loss of privacy, see
          :meth:`~proxycoop.envs.privacy.Privacy.spent`;
        * where the scenario has a settlement, ``revenue``: what was earned, ``(E,)``, and ``paid``: what each agent was paid of it,
          ``(E, N)``, both float64, in minor units;
        * under governance negotiate, ``negotiated/<measure>``: how satisfied the principals were with the negotiated sets, and
          ``unanimous/<measure>``: how satisfied they would have been with the unanimous sets. Both are means over rounds; see
          :func:`~proxycoop.envs.screening.bargaining.measures`.

    Raises:
        RuntimeError: If no round has been played.
    """
    history = engine.history
    if not history:
        raise RuntimeError("episode_metrics needs at least one round: call step first")
    contributed = torch.stack([result.contributed for result in history])  # (T, E, N, U)
    lots = contributed[..., : engine.num_lots]
    admitted = torch.stack([result.admitted for result in history])
    credit = torch.stack([result.credit for result in history])  # (T, E, N)
    cost = torch.stack([result.cost for result in history]).sum(dim=0)  # (E, N)
    gain = torch.stack([result.gain for result in history])  # (T, E)
    clean, corrupt = engine.lots.clean, engine.lots.corrupt
    attended = None if engine.attendance is None else torch.stack([result.attended for result in history])  # (T, E, N)
    payments = [result.payments for result in history if result.payments is not None]
    paid = torch.stack(payments).sum(dim=0).to(cost) if payments else None  # (E, N)
    metrics = {
        "return": torch.stack([result.rewards for result in history]).sum(dim=0),
        "cost": cost,
        "welfare": engine.reward_scale * (engine.prospect.utility - engine.initial_utility)
        - (cost if paid is None else cost - paid).sum(dim=1),
        "utility": engine.prospect.utility,
        "gain": engine.prospect.utility - engine.initial_utility,
        "clean_share": _share(lots, clean, gain.dtype, attended),
        "corrupt_share": _share(lots, corrupt, gain.dtype, attended),
        "admitted_share": admitted.sum(dim=(0, 2, 3)).to(gain.dtype) / contributed.sum(dim=(0, 2, 3)).clamp(min=1),
        "violations": torch.stack([result.violated | result.forbidden_used for result in history]).to(gain.dtype).mean(dim=0),
        "kept": torch.stack([result.kept for result in history]).sum(dim=(0, 2, 3)) / admitted.sum(dim=(0, 2, 3)).clamp(min=1),
        "imbalance": engine.reward_scale * (credit.sum(dim=(0, 2)) - gain.sum(dim=0)),
        "evaluations": torch.full_like(gain[0], sum(result.evaluations for result in history) / len(history)),
    }
    if engine.items:
        metrics |= _items_chosen(engine, contributed)
    if engine.scenario.admission is not None:
        passed = torch.stack([result.passed for result in history if result.passed is not None])
        refused = (passed & ~admitted).sum(dim=(0, 2, 3)).to(gain.dtype)
        metrics |= {"refused_share": refused / passed.sum(dim=(0, 2, 3)).clamp(min=1), "envy": _envy(passed, admitted, gain.dtype)}
        if "bids" in engine.scenario.admission.choose.needs:
            metrics["payments"] = torch.zeros_like(cost) if paid is None else paid
    if (privacy := engine.scenario.privacy) is not None and privacy.noise_multiplier > 0:  # else it is infinite
        forgeries = engine.items.conduct.forgeries
        all_read = engine.scenario.admission is not None and "wants" in engine.scenario.admission.choose.needs
        whose = attended if all_read and attended is not None else all_read  # of the absent there is nothing to read
        releases = privacy.releases(contributed, forgeries, engine.num_lots, all_read=whose)
        metrics["epsilon"] = privacy.spent(releases.sum(dim=0)).to(cost)
    if engine.treasury is not None:
        revenue = [result.revenue for result in history if result.revenue is not None]
        payouts = [result.payouts for result in history if result.payouts is not None]
        metrics |= {"revenue": torch.stack(revenue).sum(dim=0).double(), "paid": torch.stack(payouts).sum(dim=0).double()}
    if bargains := [result.bargain for result in history if result.bargain is not None]:
        kind = engine.profiles.kind
        assert kind is not None
        group = torch.where(kind < len(engine.scenario.profiles), kind, -1)
        for which, satisfied in (("negotiated", [b.satisfaction for b in bargains]), ("unanimous", [b.before for b in bargains])):
            spread = [measures(satisfaction, group) for satisfaction in satisfied]
            metrics |= {f"{which}/{name}": torch.stack([one[name] for one in spread]).mean(dim=0) for name in spread[0]}
    change = engine.prospect.value_losses - engine.initial_value_losses  # (E, M)
    metrics |= {f"value_change/{name}": change[:, m] for m, name in enumerate(engine.values)}
    if any(profile.bounds for profile in engine.scenario.profiles):
        harm = own_harm(engine)
        without_loyalty = metrics["return"] + engine.scenario.reward.loyalty * harm
        metrics |= {"own_harm": harm, "principal_welfare": without_loyalty - harm}
    if not engine.scenario.limited:
        return metrics
    used = limits_used(engine)  # (T, E, M)
    rounding = least_divisor(engine.initial_value_losses.abs().clamp(min=1))
    beyond = torch.stack([(result.left < -rounding).any(dim=-1) for result in history])
    metrics["beyond_limits"] = beyond.to(gain.dtype).mean(dim=0)
    return metrics | {f"limit_used/{name}": used[..., engine.layout.values.index(name)].amax(dim=0) for name in engine.scenario.limited}


def _items_chosen(engine: Engine, contributed: Tensor) -> dict[str, Tensor]:
    """Share of agents' rounds in which each forgery and lever was chosen, ``(E,)`` each, from the updates sent, ``(T, E, N, U)``."""
    items, dtype = engine.items, engine.dtype
    pulled = torch.stack([result.pulled for result in engine.history if result.pulled is not None])
    chosen = torch.cat([contributed[..., engine.num_lots :], pulled], dim=-1)
    whose = items.may(engine.profiles.tolerates)
    shares = (chosen & whose).sum(dim=(0, 2)).to(dtype) / (len(chosen) * whose.sum(dim=1)).clamp(min=1)
    n_forgeries = len(items.conduct.forgeries)
    found = {f"{'sent' if i < n_forgeries else 'pulled'}/{name}": shares[:, i] for i, name in enumerate(items.names)}
    if not items.conduct.misdeclares:
        return found
    factors, holds = items.declared(pulled), engine.profiles.tolerates  # (T, E, N), (E, N)
    departs = (factors > 1 + ROUNDING, factors < 1 - ROUNDING)
    n_rounds = (len(factors) * holds.sum(dim=1)).clamp(min=1)
    return found | {name: (one & holds).sum(dim=(0, 2)).to(dtype) / n_rounds for name, one in zip(DECLARED, departs, strict=True)}


def _envy(passed: Tensor, admitted: Tensor, dtype: torch.dtype) -> Tensor:
    """How many more places agents had updates for and another agent had, in the mean of rounds, bool ``(T, E, N, U)`` → ``(E, N)``."""
    offered, places = passed.sum(dim=-1), admitted.sum(dim=-1)  # (T, E, N)
    most = places.amax(dim=-1, keepdim=True)
    return (torch.minimum(offered, most) - places).clamp(min=0).to(dtype).mean(dim=0)


def own_harm(engine: Engine) -> Tensor:
    """How far the losses of the values of each principal rose in the episode so far, in its own tolerances, ``(E, N)``.

    See :meth:`~proxycoop.envs.screening.profiles.Profiles.suffered`.
    """
    losses = [engine.initial_value_losses, *(result.value_losses for result in engine.history)]
    profiles, n_rounds = engine.profiles, engine.horizon
    return torch.stack([profiles.suffered(*pair, n_rounds) for pair in pairwise(losses)]).sum(dim=0)


def limits_used(engine: Engine) -> Tensor:
    """How much of the strictest limit on each value is used up after each round of the episode, as a share of it, ``(T, E, M)``.

    At least 0; above 1 beyond the limit; 0 where nobody has one. A limit smaller than rounding counts as that.
    """
    start = engine.initial_value_losses
    if not engine.history:
        return start.new_zeros(0, *start.shape)
    left = torch.stack([result.left for result in engine.history])
    rise = torch.stack([result.value_losses for result in engine.history]) - start
    limit = torch.maximum(left + rise, least_divisor(start.abs().clamp(min=1)))
    return torch.where(left.isfinite(), rise.clamp(min=0) / limit, 0.0)


def _copied(of_engine: Tensor) -> NDArray[Any]:
    """A copy as an array. Floating-point numbers become float64."""
    dtype = torch.float64 if of_engine.is_floating_point() else of_engine.dtype
    copied: NDArray[Any] = of_engine.to("cpu", dtype, copy=True).numpy()
    return copied


def _share(contributed: Tensor, kind: Tensor, dtype: torch.dtype, attended: Tensor | None = None) -> Tensor:
    """Share of the lots of one kind that were contributed, over all rounds: ``(T, E, N, K)``, ``(E, N, K)`` → ``(E,)``.

    Where only some agents are present, of the lots of those who were, bool ``(T, E, N)``.
    """
    n_lots = kind.sum(dim=2)  # (E, N)
    count = n_lots.sum(dim=1) * len(contributed) if attended is None else (attended * n_lots).sum(dim=(0, 2))
    return (contributed & kind).sum(dim=(0, 2, 3)).to(dtype) / count.clamp(min=1)
