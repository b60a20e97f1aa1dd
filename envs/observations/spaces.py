"""Action and observation spaces of a proxy, and whose reward it is given: shared by all faces of the engine."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from ...credit import coalition_matrix
from ...registry import unknown_name
from .layout import BOUND, ObservationLayout

ActionForm = Literal["multi_discrete", "discrete"]
RewardForm = Literal["own", "team"]
"""``own``: every proxy gets what its credit and costs come to; ``team``: all get the mean of that, as fully cooperative learners assume."""
MOST_BITS = 16
"""Most items of a proxy for which every set of them has a code of its own."""
InfoForm = Literal["full", "mask"]
"""``full``: all that a face tells of the round; ``mask``: only the action mask, for libraries that take no more, and for speed."""


def checked_info_form(form: InfoForm) -> InfoForm:
    """The same.

    Raises:
        ValueError: If the form is unknown.
    """
    if form not in get_args(InfoForm):
        raise unknown_name("infos", form, list(get_args(InfoForm)))
    return form


class Pay:
    """From the rewards of a round to what each proxy is given.

    Args:
        form: ``own`` or ``team``.

    Raises:
        ValueError: If the form is unknown.
    """

    def __init__(self, form: RewardForm) -> None:
        if form not in get_args(RewardForm):
            raise unknown_name("form of the rewards", form, list(get_args(RewardForm)))
        self.form = form

    def __call__(self, rewards: Tensor) -> Tensor:
        """``(E, N)`` → ``(E, N)``, in reward units."""
        return rewards if self.form == "own" else rewards.mean(dim=1, keepdim=True).expand_as(rewards)


class ActionCodec:
    """Between a library's actions and the engine's ``(…, K)`` choices.

    Args:
        form: ``multi_discrete`` for ``MultiDiscrete([2] * K)``; ``discrete`` for ``Discrete(2**K)``, where bit k says whether
            lot k is contributed: for value-based learners.
        n_lots: Lots K.

    Raises:
        ValueError: If the form is unknown, or there are too many sets of lots for ``discrete``.
    """

    def __init__(self, form: ActionForm, n_lots: int) -> None:
        if form not in get_args(ActionForm):
            raise unknown_name("action form", form, list(get_args(ActionForm)))
        if form == "discrete" and n_lots > MOST_BITS:
            raise ValueError(
                f"actions='discrete' has a code for every set of a proxy's items, and with {n_lots} lots, forgeries and levers these are "
                f"2**{n_lots}: have {MOST_BITS} at most (lots.per_principal, conduct), or use actions='multi_discrete'"
            )
        self.form = form
        self.n_lots = n_lots

    @cached_property
    def table(self) -> Tensor:
        """Every set of lots, bool ``(2**K, K)``, by its code."""
        return coalition_matrix(self.n_lots)

    def space(self) -> spaces.Space[Any]:
        """A fresh action space."""
        return spaces.MultiDiscrete([2] * self.n_lots) if self.form == "multi_discrete" else spaces.Discrete(2**self.n_lots)

    def decode(self, actions: object, whose: str, batch: tuple[int, ...] | None = None) -> Tensor:
        """Choices behind some actions.

        Args:
            actions: ``(*batch, K)`` of 0 and 1, or ``batch`` of codes below 2**K, by form. Arrays, tensors of any kind (on a device, with
                gradients, in half precision), or lists of numbers.
            whose: Whose they are, for the message.
            batch: Shape of the batch: ``()`` for one agent's action. Any shape by default.

        Returns:
            bool ``(*batch, K)``.

        Raises:
            ValueError: If an action is not a whole number, out of range, or of the wrong shape.
        """
        pairs = self.form == "multi_discrete"
        allowed = f"{self.n_lots} numbers, each 0 or 1" if pairs else f"a whole number from 0 to {2**self.n_lots - 1}"
        array = _numbers(actions)
        if array is None:
            raise ValueError(f"action of {whose} is {_in_short(actions)}: must be {allowed}")
        own = (self.n_lots,) if pairs else ()
        if array.shape != (*batch, *own) if batch is not None else pairs and array.shape[-1:] != own:
            shape = (*batch, *own) if batch is not None else f"(…, {self.n_lots})"
            each = " in each row" if batch else ""
            raise ValueError(f"action of {whose} has shape {array.shape}: must have shape {shape}, {allowed}{each}")
        wrong = ~np.isfinite(array) | (array != np.floor(array)) | (array < 0) | (array >= (2 if pairs else 2**self.n_lots))
        if wrong.any():
            first = f"has {array[wrong][0].item()} at {tuple(np.argwhere(wrong)[0].tolist())}"
            raise ValueError(f"action of {whose} {f'is {array.tolist()}' if array.size <= 16 else first}: must be {allowed}")
        whole = torch.from_numpy(array.astype(np.int64))
        return whole.bool() if pairs else self.table[whole]

    def decode_all(self, actions: Sequence[object], whose: Sequence[str]) -> Tensor:
        """Choices behind one action of each of several agents, bool ``(N, K)``; raises as :meth:`decode`.

        Args:
            actions: The agents' actions.
            whose: Whose they are, for the message.
        """
        try:
            array = np.array(actions)
        except (TypeError, ValueError, RuntimeError):  # which one depends on what they are
            array = np.empty(0)
        pairs = self.form == "multi_discrete"
        right = array.dtype.kind in "iu" and array.shape == (len(whose), *((self.n_lots,) if pairs else ()))
        if right and array.size and array.min() >= 0 and array.max() < (2 if pairs else 2**self.n_lots):
            whole = torch.from_numpy(array.astype(np.int64, copy=False))
            return whole.bool() if pairs else self.table[whole]
        return torch.stack([self.decode(action, name, ()) for action, name in zip(actions, whose, strict=True)])

    def mask(self, available: Tensor) -> tuple[NDArray[np.int8], ...] | NDArray[np.int8]:
        """One proxy's action mask, in the form that ``space.sample(mask)`` takes.

        Args:
            available: Which of its lots there is anything to contribute of, bool ``(K,)``.

        Returns:
            For ``multi_discrete`` a tuple of K arrays ``[1, available]``; for ``discrete`` a flat ``(2**K,)``.
        """
        return self.masks(available[None])[0]

    def masks(self, available: Tensor) -> list[tuple[NDArray[np.int8], ...] | NDArray[np.int8]]:
        """The masks of several proxies, bool ``(N, K)``; see :meth:`mask`."""
        if self.form == "multi_discrete":
            pairs = np.ones((*available.shape, 2), dtype=np.int8)
            pairs[..., 1] = available.numpy()
            return [tuple(of_proxy) for of_proxy in pairs]
        return list(self._codes_allowed(available))

    def flat_mask(self, available: Tensor) -> NDArray[np.bool_]:
        """Masks side by side, as sb3-contrib's MaskablePPO takes them: ``(…, K)`` → ``(…, 2K)`` or ``(…, 2**K)``."""
        if self.form == "multi_discrete":
            return torch.stack([torch.ones_like(available), available], dim=-1).flatten(start_dim=-2).numpy()
        return self._codes_allowed(available).astype(bool)

    def _codes_allowed(self, available: Tensor) -> NDArray[np.int8]:
        return (~(self.table & ~available[..., None, :]).any(dim=-1)).numpy().astype(np.int8)


def _numbers(actions: object) -> NDArray[Any] | None:
    """Actions as an array of numbers; ``None`` if they are none, or rows of different lengths."""
    if isinstance(actions, Tensor):
        plain = actions.detach().cpu()
        actions = plain.double() if plain.is_floating_point() else plain  # NumPy has no bfloat16
    try:
        array = np.asarray(actions)
    except (TypeError, ValueError, RuntimeError):  # which one depends on what the rows are
        return None
    return array if array.dtype.kind in "biuf" else None


def _in_short(actions: object) -> str:
    """What came, for a message: in full if it is short, else its type."""
    text = repr(actions)
    if len(text) <= 60 and "\n" not in text:
        return text
    if isinstance(actions, np.ndarray):
        return f"an array of {actions.dtype}"
    return f"a {type(actions).__name__} that makes no array of numbers"


def observation_space(layout: ObservationLayout) -> spaces.Box:
    """A fresh observation space of one proxy."""
    return spaces.Box(-BOUND, BOUND, (layout.size,), np.float32)


def state_space(layout: ObservationLayout, n_agents: int) -> spaces.Box:
    """A fresh space of the global state: everybody's observations side by side."""
    return spaces.Box(-BOUND, BOUND, (n_agents * layout.size,), np.float32)
