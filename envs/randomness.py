r"""Random numbers that depend only on an environment's own seed, not on the other environments in the batch.

torch's generators have one state for a whole tensor, so row e of a batch would depend on the size of the batch. Here every number is a
function of (seed, episode, purpose, index): SplitMix64's output function applied to a counter. Every operation is elementwise, so a batch
takes one pass, and all devices give the same numbers.

References:
    Salmon et al. (2011), *Parallel random numbers: as easy as 1, 2, 3*, for counter-based generators. Steele, Lea & Flood (2014), *Fast
    splittable pseudorandom number generators*, for SplitMix64.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from enum import IntEnum
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ..checks import whole_number


class Purpose(IntEnum):
    """What a random number is for. Each purpose has its own stream."""

    PROFILES = 1
    CORRUPTION = 2
    MIXTURE = 3
    ROWS = 4
    LABELS = 5
    SITE_SHIFT = 6
    TAGS = 7
    VIRTUAL_BATCH = 8
    POLICY = 9
    QUALITY = 10
    NOISE = 11
    DRIFT = 12
    HOLDERS = 13
    FORGERY = 14
    PRIVACY = 15
    ADMISSION = 16
    AGGREGATION = 17
    PARTICIPATION = 18


_GOLDEN = 0x9E3779B97F4A7C15 - 2**64  # as a signed 64-bit number
_WORD = 0xD1342543DE82EF95 - 2**64  # another odd number, so that a small word cannot cancel a small key
_MIX_1 = 0xBF58476D1CE4E5B9 - 2**64
_MIX_2 = 0x94D049BB133111EB - 2**64


def _shift_right(z: Tensor, bits: int) -> Tensor:
    """Logical shift to the right. torch's ``>>`` on int64 would copy the sign bit."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _mix(z: Tensor) -> Tensor:
    """SplitMix64's output function. It works on int64, because products wrap there as they do on unsigned integers."""
    z = (z ^ _shift_right(z, 30)) * _MIX_1
    z = (z ^ _shift_right(z, 27)) * _MIX_2
    return z ^ _shift_right(z, 31)


@lru_cache(maxsize=1024)
def _mixed(word: int) -> int:
    """:func:`_mix` of a word, made odd, in Python's integers: the same 64 bits."""
    z = (word * _WORD + 1) % 2**64
    z = (z ^ (z >> 30)) * _MIX_1 % 2**64
    z = (z ^ (z >> 27)) * _MIX_2 % 2**64
    z ^= z >> 31
    return z - 2**64 if z >= 2**63 else z


def fold(keys: Tensor, *words: int) -> Tensor:
    """Derive keys from keys: ``fold(seeds, episode, Purpose.ROWS)``.

    Args:
        keys: int64 ``(E,)``.
        *words: Integers within int64 that say what the new keys are for. Their order matters.

    Returns:
        int64 ``(E,)``.
    """
    for word in words:
        keys = _mix(_mix(keys + _GOLDEN) ^ _mixed(int(word)))
    return keys


def checked_seeds(seeds: Sequence[int], num_envs: int) -> Tensor:
    """Seeds as keys, int64 ``(E,)``.

    Raises:
        ValueError: If there is not one seed per environment, or a seed is not a whole number from 0 to 2^63 − 1.
    """
    if isinstance(seeds, str | bytes | bytearray | Mapping | Set) or not hasattr(seeds, "__len__") or getattr(seeds, "ndim", 1) != 1:
        raise ValueError(f"seeds={seeds!r}: must be a list with one seed per environment")
    if len(seeds) != num_envs:
        raise ValueError(f"seeds has {len(seeds)} entries for {num_envs} environments: give one seed per environment")
    return torch.tensor([whole_number("seed", seed, 0, 2**63 - 1, "must be a whole number from 0 to 2^63 - 1") for seed in seeds])


def seeds_from(entropy: int | None, n: int) -> list[int]:
    """Make n seeds from one, each within 0..2^63 − 1. With ``None``, the operating system's entropy is used.

    Raises:
        ValueError: If the seed is negative or not a whole number.
    """
    words = np.random.SeedSequence(None if entropy is None else whole_number("seed", entropy, 0)).generate_state(n, dtype=np.uint64)
    return [int(word >> np.uint64(1)) for word in words]


def uniform(keys: Tensor, *shape: int) -> Tensor:
    """Uniform numbers in the open interval (0, 1).

    Args:
        keys: int64 ``(E,)``; row e of the result depends on ``keys[e]`` alone.
        *shape: Shape of a row.

    Returns:
        float64 ``(E, *shape)``.
    """
    bits = _mix(keys[:, None] + _steps(math.prod(shape), keys.device))  # (E, prod(shape))
    return ((_shift_right(bits, 12).double() + 0.5) * 2.0**-52).reshape(len(keys), *shape)


@lru_cache(maxsize=32)
def _steps(n: int, device: torch.device) -> Tensor:
    """What a counter adds to a key, int64 ``(n,)``."""
    with torch.inference_mode(False):  # it may be made in inference mode, and outlives it
        return (torch.arange(1, n + 1) * _GOLDEN).to(device)


def normal(keys: Tensor, *shape: int) -> Tensor:
    """Standard normal numbers, float64 ``(E, *shape)``, by inversion."""
    numbers: Tensor = torch.special.ndtri(uniform(keys, *shape))
    return numbers


def normal_at(keys: Tensor, index: Tensor) -> Tensor:
    """Some of the numbers of :func:`normal`: those at flat places of a row, int64 ``(E, …)`` → float64 ``(E, …)``."""
    counter = keys.reshape(-1, *[1] * (index.dim() - 1)) + (index + 1) * _GOLDEN
    numbers: Tensor = torch.special.ndtri((_shift_right(_mix(counter), 12).double() + 0.5) * 2.0**-52)
    return numbers


def gamma(keys: Tensor, shape_parameter: int, *shape: int) -> Tensor:
    """Gamma(``shape_parameter``, 1) numbers for an integer shape parameter, as sums of exponential numbers, float64 ``(E, *shape)``."""
    exponential = -uniform(keys, *shape, shape_parameter).log()
    return exponential.sum(dim=-1)


def permutation(keys: Tensor, *shape: int) -> Tensor:
    """Random permutations along the last dimension, int64 ``(E, *shape)``."""
    return uniform(keys, *shape).argsort(dim=-1)
