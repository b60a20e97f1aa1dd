r"""The Gaussian mechanism: what a lot changes is limited, and then hidden in noise.

.. math:: \bar\Delta = \Delta \min\Bigl(1, \frac{C}{\lVert\Delta\rVert}\Bigr), \qquad
    \tilde\Delta = \bar\Delta + \sigma C\, z, \qquad
    \tilde d = \sum_{ik} w_{ik} \bar\Delta_{ik} + \sigma C \max_{ik} w_{ik}\, z, \qquad z \sim \mathcal{N}(0, I)

An update is noised with ``noise: updates``, the step d with ``noise: step``.

The noise is that of a simulation. It follows from the seed, so whoever knows the seed can take it away again.

References:
    Dwork & Roth (2014), *The algorithmic foundations of differential privacy*, appendix A. McMahan, Ramage, Talwar & Zhang (2018),
    *Learning differentially private recurrent language models*, ICLR, for the step. Mironov (2012), *On significance of the least
    significant bits for differential privacy*, CCS, for what noise in floating-point numbers may still tell.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .. import randomness
from ..randomness import Purpose, fold


def clipped(updates: Tensor, norm: Tensor, clip: float) -> Tensor:
    """Updates, shortened to a norm.

    An update that is not finite becomes zero. If it were left out, this would tell of the data, however much noise the others get.

    Args:
        updates: ``(E, N, U, P)``.
        norm: Their norms, ``(E, N, U)``.
        clip: The largest norm C, in units of the parameters.

    Returns:
        ``(E, N, U, P)``. Updates that are no longer than C are as they were, to the last bit.
    """
    finite = norm < torch.inf  # neither is a norm that is no number
    return torch.where(finite[..., None], updates * (clip / norm).clamp(max=1.0)[..., None], 0.0)


def noised(updates: Tensor, keys: Tensor, t: int, scale: float) -> Tensor:
    """Updates with Gaussian noise on every coordinate.

    Args:
        updates: Clipped updates, ``(E, N, U, P)``.
        keys: One key per environment and episode, int64 ``(E,)``. The noise of row e depends on ``keys[e]`` alone.
        t: Index of the round. Every round has its own noise.
        scale: Standard deviation σC of the noise, in units of the parameters.

    Returns:
        ``(E, N, U, P)``. The noise of an agent's first updates does not depend on how many more it has.
    """
    if scale == 0:
        return updates
    _, n_agents, n_updates, n_parameters = updates.shape
    drawn = randomness.normal(fold(keys, Purpose.PRIVACY, t), n_updates, n_agents, n_parameters)  # (E, U, N, P)
    return updates + (scale * drawn).transpose(1, 2).to(updates)


def step_noise(scale: Tensor, n_parameters: int, keys: Tensor, t: int) -> Tensor:
    r"""What the server adds to the aggregated step: Gaussian noise on every coordinate.

    It is added to d itself. What the server makes of d then, with its learning rate, momentum and guard, is post-processing.

    Args:
        scale: Standard deviation :math:`\sigma C \max_{ik} w_{ik}` of the noise, ``(E,)``, in units of the parameters.
        n_parameters: Number of parameters P.
        keys: One key per environment and episode, int64 ``(E,)``.
        t: Index of the round.

    Returns:
        ``(E, P)``.
    """
    drawn = randomness.normal(fold(keys, Purpose.PRIVACY, t), n_parameters)  # (E, P)
    return scale[:, None] * drawn.to(scale)
