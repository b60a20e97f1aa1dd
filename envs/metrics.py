"""What an episode amounted to."""

from __future__ import annotations

import torch
from torch import Tensor

from .engine import Engine
from .screening.bargaining import measures


def episode_metrics(engine: Engine) -> dict[str, Tensor]:
    """Metrics of the episode that the engine has just played, or of its rounds so far.

    Returns:
        By name, ``(E,)``, or ``(E, N)`` for what each agent has of its own:

        * ``return``: sum of rewards, ``(E, N)``;
        * ``cost``: sum of costs and fines, ``(E, N)``, in reward units;
        * ``welfare``: what the cooperative gained, in reward units, minus everybody's costs;
        * ``utility``: after the last round; ``gain``: its change since the start, in the utility's unit;
        * ``clean_share``, ``corrupt_share``: share of clean and of corrupt lots contributed; ``admitted_share``: of contributed
          lots admitted; where there are none of a kind, 0;
        * ``violations``: share of rounds whose applied step had a harm, as the screening foresees it, or a norm beyond somebody's
          limit, or was made with data that somebody forbids;
        * ``value_change/<name>``: change of each value loss on its probe set, in the value's unit;
        * ``kept``: mean over admitted updates of the share of the update's norm that entered, below 1 where a filter mended some;
        * ``imbalance``: sum of credit minus sum of v(N), in reward units; 0 for an efficient rule;
        * ``evaluations``: coalitions evaluated a round;
        * where the scenario has a settlement, ``revenue``: what was earned, ``(E,)``, and ``paid``: what each agent was paid of it,
          ``(E, N)``, both float64, in minor units;
        * under governance negotiate, ``negotiated/<measure>`` and ``unanimous/<measure>``: how satisfied the principals were with the
          sets that were bargained, and would have been with the unanimous ones, means over rounds of what
          :func:`~proxycoop.envs.screening.bargaining.measures` says.

    Raises:
        RuntimeError: If no round has been played.
    """
    history = engine.history
    if not history:
        raise RuntimeError("episode_metrics needs at least one round: call step first")
    contributed = torch.stack([result.contributed for result in history])  # (T, E, N, K)
    admitted = torch.stack([result.admitted for result in history])
    credit = torch.stack([result.credit for result in history])  # (T, E, N)
    cost = torch.stack([result.cost for result in history]).sum(dim=0)  # (E, N)
    gain = torch.stack([result.gain for result in history])  # (T, E)
    corrupt = engine.lots.corrupt
    metrics = {
        "return": torch.stack([result.rewards for result in history]).sum(dim=0),
        "cost": cost,
        "welfare": engine.reward_scale * (engine.prospect.utility - engine.initial_utility) - cost.sum(dim=1),
        "utility": engine.prospect.utility,
        "gain": engine.prospect.utility - engine.initial_utility,
        "clean_share": _share(contributed, ~corrupt),
        "corrupt_share": _share(contributed, corrupt),
        "admitted_share": admitted.sum(dim=(0, 2, 3)) / contributed.sum(dim=(0, 2, 3)).clamp(min=1),
        "violations": torch.stack([result.violated | result.forbidden_used for result in history]).to(gain.dtype).mean(dim=0),
        "kept": torch.stack([result.kept for result in history]).sum(dim=(0, 2, 3)) / admitted.sum(dim=(0, 2, 3)).clamp(min=1),
        "imbalance": engine.reward_scale * (credit.sum(dim=(0, 2)) - gain.sum(dim=0)),
        "evaluations": torch.full_like(gain[0], sum(result.evaluations for result in history) / len(history)),
    }
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
    return metrics | {f"value_change/{name}": change[:, m] for m, name in enumerate(engine.values)}


def _share(contributed: Tensor, kind: Tensor) -> Tensor:
    """Share of the lots of a kind that were contributed, over all rounds: ``(T, E, N, K)``, ``(E, N, K)`` → ``(E,)``."""
    count = kind.sum(dim=(1, 2)) * len(contributed)
    return (contributed & kind).sum(dim=(0, 2, 3)) / count.clamp(min=1)
