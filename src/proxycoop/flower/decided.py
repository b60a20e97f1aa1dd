"""What was decided in a round, as the ledger has it: who offered what, who objected to it, and what entered."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ..envs.records import RoundResult
from .remote import RemoteEngine

Refused = Mapping[int, Sequence[tuple[int | None, str]]]
"""By principal, what was refused before the screening: a lot, or ``None`` for a whole answer, and the reason."""


def decisions(engine: RemoteEngine, result: RoundResult, refused: Refused) -> dict[str, Any]:
    """What was decided in the round that was just played, as JSON has it.

    Of the whole round: ``model``, the SHA-256 digest of the shared parameters after it (float32, little-endian), ``utility``, ``gain``,
    ``values`` (their losses after it) and ``gamma``, the guard's factor. Under ``members``, for each by name:

    * ``offered``: its lots that it offered; ``entered``: those that are in the step;
    * ``kept``: of a lot that a filter changed, the share of its update's norm that entered, by the lot;
    * ``objections``: who objects to a lot (``by``), over what (``about``), and where it is a number, how large it is (``amount``) and how
      large it may be (``limit``). Those whose verdict the governance does not ask are left out;
    * ``refused``: a lot, or null for the whole answer, and the ``reason``.

    Args:
        engine: The server's engine.
        result: The round's result.
        refused: What was refused before the screening.
    """
    said: dict[str, Any] = {}
    objections = _objections(engine, result)
    passed = result.admitted if result.passed is None else result.passed
    for i in range(engine.num_agents):
        offered, entered, kept = (one[0, i] for one in (result.contributed, result.admitted, result.kept))
        reasons = [{"lot": lot, "reason": reason} for lot, reason in refused.get(i, ())]
        told = {lot for lot, _ in refused.get(i, ())}
        for k in offered.nonzero()[:, 0].tolist():
            if not engine.before.finite[0, i, k] and k not in told:
                reasons.append({"lot": k, "reason": "its update is not finite"})
            elif passed[0, i, k] and not entered[k]:
                reasons.append({"lot": k, "reason": "it passed the screening, and got no place"})
        one: dict[str, Any] = {"offered": _places(offered), "entered": _places(entered)}
        changed = {str(k): float(kept[k]) for k in one["entered"] if float(kept[k]) != 1.0}
        for name, part in (("kept", changed), ("objections", objections.get(i, [])), ("refused", reasons)):
            if part:
                one[name] = part
        said[f"proxy_{i}"] = one
    return {
        "model": digest_of_model(engine.theta),
        "utility": float(result.utility[0]),
        "gain": float(result.gain[0]),
        "values": dict(zip(engine.values, result.value_losses[0].tolist(), strict=True)),
        "gamma": float(result.gamma[0]),
        "members": said,
    }


def digest_of_model(theta: Tensor) -> str:
    """SHA-256 digest of the shared parameters, ``(1, P)``, as float32, little-endian, in hexadecimal digits."""
    return hashlib.sha256(theta.numpy().astype("<f4").tobytes()).hexdigest()


def _places(which: Tensor) -> list[int]:
    return [int(k) for k in which.nonzero()[:, 0]]


def _objections(engine: RemoteEngine, result: RoundResult) -> dict[int, list[dict[str, Any]]]:
    """By principal, the objections to its lots that were offered."""
    verdicts, governance = engine.before.verdicts, engine.scenario.screening.governance
    if governance == "none":
        return {}
    profiles = verdicts.profiles
    objects = verdicts.objects[0] & (result.contributed[0] & verdicts.finite[0])[..., None, None]  # (N, K, N, A)
    effects, limit, n_effects = profiles.effects(verdicts.harm)[0], profiles.limit[0], profiles.limit.shape[-1]
    names = [*engine.values, *(f"direction {d}" for d in range(n_effects - len(engine.values)))]
    tags, found = list(engine.scenario.lots.tags), dict[int, list[dict[str, Any]]]()
    for i, k, j, a in objects.nonzero().tolist():
        if governance == "own" and i != j:
            continue
        one: dict[str, Any] = {"lot": k, "by": f"proxy_{j}"}
        if a < n_effects:
            one |= {"about": names[a], "amount": float(effects[i, k, a]), "limit": float(limit[j, a])}
        elif a == n_effects:
            one |= {"about": "norm", "amount": float(verdicts.norm[0, i, k]), "limit": float(profiles.max_norm[0, j])}
        else:
            one |= {"about": f"tag {tags[a - n_effects - 1]}"}
        found.setdefault(i, []).append(one)
    return found
