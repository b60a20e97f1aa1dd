r"""Fixed-point numbers in the ring of integers modulo 2⁶⁴, and additive shares of them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Words = NDArray[np.uint64]
KEY_BYTES = 32


class Ring:
    r"""Real numbers as :math:`\operatorname{round}(x\,2^f) \bmod 2^{64}`.

    Sums and products of such words wrap around and lose nothing. A product of two numbers has 2f fractional bits. It is not cut back to
    f bits: results are decoded at 2f. So the only error is that of encoding, at most :math:`\delta = 2^{-(f+1)}` per number, plus the
    rounding of the float that is encoded or decoded. A sum of products :math:`\sum_r e_r a_r` is off by at most
    :math:`\sum_r \delta(|e_r| + |a_r| + \delta)`.

    Whatever is decoded must be below :attr:`limit`, or it would come out with another sign. :meth:`encode` refuses what could lead there.

    Masks are the output of SHAKE-256 on a key of 32 bytes from the operating system's generator (``os.urandom``) and a label. SHAKE-256 is
    an extendable-output function of FIPS 202: without the key its output cannot be told from uniform words by any known attack.

    Args:
        fraction: Fractional bits f, from 1 to 30.
        entropy: Makes n bytes for keys. Tests pass their own.

    Attributes:
        limit: Largest absolute value that a result at 2f fractional bits may have, :math:`2^{62 - 2f}`. It leaves one bit to spare.

    Raises:
        ValueError: If ``fraction`` is out of range.

    References:
        NIST (2015), *SHA-3 standard: permutation-based hash and extendable-output functions*, FIPS 202.
    """

    def __init__(self, fraction: int = 20, entropy: Callable[[int], bytes] = os.urandom) -> None:
        if not 1 <= fraction <= 30:
            raise ValueError(f"fraction={fraction}: must be from 1 to 30 bits, so that a product of two numbers fits 64")
        self.fraction, self._entropy = fraction, entropy
        self.limit = 2.0 ** (62 - 2 * fraction)

    def encode(self, x: Tensor, name: str, bound: float, products: bool = False) -> Words:
        """Words of numbers.

        Args:
            x: Any shape.
            name: What it is called in errors.
            bound: Largest absolute value that is allowed.
            products: Whether to encode at 2f fractional bits, as a product has, rather than at f.

        Raises:
            ValueError: If a number is not finite or too large.
        """
        values = x.detach().double().cpu().numpy()
        largest = float(np.abs(values).max(initial=0.0))
        if not largest <= bound:  # also for NaN
            raise ValueError(
                f"{name}: reach {largest:.6g}, must be at most {bound:.6g} for sums to fit 64 bits with 2·{self.fraction} fractional ones: "
                "lower fraction, or the batch"
            )
        scaled = np.rint(values * 2.0 ** (self.fraction * (1 + products)))
        return np.asarray(scaled.astype(np.int64).view(np.uint64))

    def decode(self, words: Words) -> Tensor:
        """Numbers of words at 2f fractional bits, float64."""
        return torch.from_numpy(words.view(np.int64).astype(np.float64) * 2.0 ** (-2 * self.fraction))

    def key(self) -> bytes:
        """A fresh key."""
        return self._entropy(KEY_BYTES)

    @staticmethod
    def mask(key: bytes, label: str, shape: Sequence[int]) -> Words:
        """Words of a shape that look uniform to everybody who does not have the key."""
        n_words = int(np.prod(shape, dtype=np.int64))
        stream = hashlib.shake_256(key + label.encode()).digest(8 * n_words)
        return np.frombuffer(stream, dtype="<u8").astype(np.uint64).reshape(tuple(shape))

    def split(self, words: Words, label: str) -> tuple[Words, bytes]:
        """Two shares of words that sum to them: words, and the key of a mask."""
        key = self.key()
        return words - self.mask(key, label, words.shape), key
