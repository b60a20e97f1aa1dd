"""Scenarios as plain data, in the records of runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_FILE_CHANGED = "the data file has changed"


def differences(now: Mapping[str, Any], before: Mapping[str, Any]) -> list[str]:
    """Settings that differ between two scenarios as :meth:`~proxycoop.envs.Scenario.to_dict` gives them, as ``horizon: 1, was 2``.

    Settings that ``before`` lacks are left out: it may be of an earlier version.
    """
    now, before = json.loads(json.dumps(now)), json.loads(json.dumps(before))  # keys that are numbers become text, as in files
    told = [f"{key}: left out, was {str(old)[:60]}" for key, old in before.items() if key not in now and old is not None]
    for key, value in now.items():
        old = before.get(key, value)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            told += [inner if inner == _FILE_CHANGED else f"{key}.{inner}" for inner in differences(value, old)]
        elif value != old and key == "sha256":
            told.append(_FILE_CHANGED)
        elif value != old:
            told.append(f"{key}: {str(value)[:60]}, was {str(old)[:60]}")
    return told


def n_agents_of(plain: Mapping[str, Any]) -> int:
    """Number of proxies in a scenario as :meth:`~proxycoop.envs.Scenario.to_dict` gives it, which may be of an earlier version."""
    identities = (plain.get("conduct") or {}).get("identities", ())
    return int(plain.get("principals", 0)) + sum(int(one["split"]) - 1 for one in identities)
