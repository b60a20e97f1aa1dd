"""What is guaranteed where lots are drawn at random and nobody learns which: amplification by sampling, computed by Opacus."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...checks import real_number
from .accountant import ORDERS, counted, epsilon, guaranteed


def sampled_epsilon(n_rounds: Tensor | int, noise_multiplier: float, delta: float, sample_rate: float) -> Tensor:
    """ε of n rounds in each of which a lot takes part with probability q, by itself, and secretly.

    It holds only where all of this does:

    * The draws are independent, of each other and of the data.
    * Only a noised sum of the drawn lots' updates is released (``noise: step``). With ``noise: updates`` everybody sees who sends.
    * Nobody who sees the steps learns who was drawn. A public lottery amplifies nothing: use :func:`~proxycoop.envs.privacy.epsilon` then.

    Args:
        n_rounds: In how many rounds the lot *could* be drawn, n, not in how many it was: one number, or integers of any shape.
        noise_multiplier: σ, the noise's standard deviation as a multiple of what one lot changes the sum at most. At least 0.
        delta: δ, above 0 and below 1.
        sample_rate: q, from 0 to 1. At 1 it is :func:`~proxycoop.envs.privacy.epsilon`.

    Returns:
        float64 of the shape of ``n_rounds``.

    Raises:
        ValueError: If an argument is out of bounds.
        ImportError: If Opacus is not installed and 0 < q < 1.

    References:
        Mironov, Talwar & Zhang (2019), *Rényi differential privacy of the sampled Gaussian mechanism*, arXiv 1908.10530.
    """
    rate = real_number("sample_rate", sample_rate, 0, 1)
    if rate == 1:
        return epsilon(n_rounds, noise_multiplier, delta)
    n, sigma = counted("n_rounds", n_rounds), real_number("noise_multiplier", noise_multiplier, 0)
    if rate == 0:  # nothing is ever released
        return guaranteed(torch.zeros_like(n), n.new_zeros(len(ORDERS)), delta)
    divergence = torch.from_numpy(_divergence(sigma, rate)).to(n)
    return guaranteed(n, divergence, delta)


def _divergence(noise_multiplier: float, sample_rate: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Rényi divergence of one round at each of the orders, by Opacus."""
    try:
        from opacus.accountants.analysis.rdp import compute_rdp
    except ImportError as error:
        raise ImportError("amplification by sampling needs Opacus, which is not installed: pip install 'proxycoop[privacy]'") from error
    found = compute_rdp(q=sample_rate, noise_multiplier=noise_multiplier, steps=1, orders=list(ORDERS))
    return np.asarray(found, dtype=np.float64)
