"""Parts of checkpoints that several libraries share: plain data, and the states of the global random generators.

A checkpoint holds tensors and plain data only, so that reading one runs no code (see :mod:`~proxycoop.agents.saved`). What libraries keep
in NumPy's arrays becomes tensors here.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor


def plain(data: Any) -> Any:
    """The same data with tensors for NumPy's arrays, which share their memory, and Python's own numbers, dictionaries, lists and tuples."""
    if isinstance(data, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(data)).reshape(data.shape)
    if isinstance(data, np.generic):
        return data.item()
    if isinstance(data, Tensor):
        return data.detach()
    if isinstance(data, Mapping):
        return {key: plain(value) for key, value in data.items()}
    if isinstance(data, list | deque):
        return [plain(value) for value in data]
    return tuple(plain(value) for value in data) if isinstance(data, tuple) else data


def random_states() -> dict[str, Any]:
    """States of the global generators of Python, NumPy and torch, from which libraries draw."""
    name, keys, *rest = np.random.get_state()  # noqa: NPY002  # a tuple, as it is not asked for a dictionary
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest),
        "torch": torch.get_rng_state(),
    }


def set_random_states(states: Mapping[str, Any]) -> None:
    """Let the global generators go on from where :func:`random_states` found them."""
    random.setstate(states["python"])
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(states["torch"])
