r"""What n releases of a Gaussian mechanism guarantee, by Rényi differential privacy.

The mechanism's Rényi divergence of order α is α/(2σ²), and n adaptive releases add it up. So for every order

.. math:: \varepsilon_\alpha = \frac{n \alpha}{2 \sigma^2} + \ln\frac{\alpha - 1}{\alpha} - \frac{\ln\delta + \ln\alpha}{\alpha - 1},
    \qquad \varepsilon = \max\bigl(0, \min_\alpha \varepsilon_\alpha\bigr)

and any event has a probability of at most :math:`e^\varepsilon p + \delta`, where p is its probability in a neighbour. The orders and the
conversion are those of Opacus' ``RDPAccountant`` (version 1.6). One thing differs: it does not stop at 0, where δ is large.

References:
    Mironov (2017), *Rényi differential privacy*, CSF, for the Gaussian mechanism and its composition. Balle, Barthe, Gaboardi, Hsu & Sato
    (2020), *Hypothesis testing interpretations and Rényi differential privacy*, AISTATS, theorem 21 of arXiv 1905.09982, for the
    conversion. Yousefpour et al. (2021), *Opacus: user-friendly differential privacy library in PyTorch*, arXiv 2109.12298.
"""

from __future__ import annotations

from functools import lru_cache
from math import log

import torch
from torch import Tensor

from ...checks import real_number, whole_number

ORDERS: tuple[float, ...] = (*(1 + x / 10 for x in range(1, 100)), *(float(order) for order in range(12, 64)))
"""The orders α that are tried: 1.1, 1.2, … 10.9 and 12, 13, … 63."""
_ROUNDING = 1e-12


def epsilon(n_releases: Tensor | int, noise_multiplier: float, delta: float) -> Tensor:
    r"""ε of n releases of a Gaussian mechanism, see :mod:`proxycoop.envs.privacy.accountant`.

    Nothing is assumed about who is drawn: whoever contributes is known to do so.

    Args:
        n_releases: How many releases, n: one number, or integers of any shape.
        noise_multiplier: σ, the noise's standard deviation as a multiple of what one unit changes at most. At least 0.
        delta: δ, above 0 and below 1.

    Returns:
        float64 of the shape of ``n_releases``. 0 where nothing was released; infinite where something was, without noise.

    Raises:
        ValueError: If an argument is out of bounds, or n are no whole numbers.
    """
    n = counted("n_releases", n_releases)
    variance = real_number("noise_multiplier", noise_multiplier, 0) ** 2
    orders = _orders(n.device)
    return guaranteed(n, orders / (2 * variance), delta)


def sigma_for(epsilon: float, n_releases: int, delta: float) -> float:
    r"""The least noise multiplier with which n releases spend ε at most.

    .. math:: \sigma = \min_\alpha \sqrt{\frac{n \alpha}{2 (\varepsilon - c_\alpha)}}, \qquad
        c_\alpha = \ln\frac{\alpha - 1}{\alpha} - \frac{\ln\delta + \ln\alpha}{\alpha - 1}, \quad c_\alpha < \varepsilon

    Args:
        epsilon: The budget ε, above 0.
        n_releases: How many releases, n.
        delta: δ, above 0 and below 1.

    Returns:
        σ, rounded up by 1e-12 of it, so that :func:`epsilon` of it is within the budget. 0 if there are no releases.

    Raises:
        ValueError: If an argument is out of bounds, or no noise is enough: at the orders that are tried, c is above 0.
    """
    budget = real_number("epsilon", epsilon, 0)
    n = whole_number("n_releases", n_releases, 0)
    orders = _orders(torch.device("cpu"))
    offset = _offset(orders, _probability(delta))
    if n == 0:
        return 0.0
    enough = offset < budget
    if not enough.any():
        raise ValueError(
            f"epsilon={budget:g}: with delta={delta:g} no noise spends less than {max(0.0, float(offset.min())):.4g} by the orders that "
            f"are tried, up to {max(ORDERS):g}: give a larger epsilon, or a larger delta"
        )
    sigma = (n * orders[enough] / (2 * (budget - offset[enough]))).sqrt().min()
    return float(sigma) * (1 + _ROUNDING)


def guaranteed(n: Tensor, divergence: Tensor, delta: float) -> Tensor:
    """ε of n releases from the Rényi divergence of each.

    Args:
        n: How many, float64 of any shape, from :func:`counted`.
        divergence: The divergences of one release, in the order of :data:`ORDERS`, float64.
        delta: δ, above 0 and below 1.

    Returns:
        float64 of the shape of ``n``.

    Raises:
        ValueError: If δ is out of bounds.
    """
    by_order = n[..., None] * divergence + _offset(_orders(n.device), _probability(delta))  # (…, orders)
    by_order = by_order.nan_to_num(nan=torch.inf, posinf=torch.inf)  # orders at which nothing is known
    return torch.where(n > 0, by_order.amin(dim=-1).clamp(min=0.0), 0.0)


def counted(name: str, n: Tensor | int) -> Tensor:
    """Numbers of releases or rounds as float64.

    Raises:
        ValueError: If they are no whole numbers, or below 0.
    """
    if not isinstance(n, Tensor):
        return torch.tensor(float(whole_number(name, n, 0)), dtype=torch.float64)
    if n.is_floating_point() or n.is_complex() or n.dtype == torch.bool:
        raise ValueError(f"{name} has dtype {n.dtype}: must be whole numbers, such as int64")
    if (n < 0).any():
        raise ValueError(f"{name} has entries below 0, the least of them {int(n.min())}: must be at least 0")
    return n.double()


def _probability(delta: float) -> float:
    if not 0 < real_number("delta", delta) < 1:
        raise ValueError(f"delta={delta!r}: must be above 0 and below 1")
    return float(delta)


def _offset(orders: Tensor, delta: float) -> Tensor:
    """What the conversion adds to the divergence at each order, c."""
    return ((orders - 1) / orders).log() - (log(delta) + orders.log()) / (orders - 1)


@lru_cache(maxsize=8)
def _orders(device: torch.device) -> Tensor:
    """The orders, float64."""
    with torch.inference_mode(False):  # it may be made in inference mode, and outlives it
        return torch.tensor(ORDERS, dtype=torch.float64).to(device)
