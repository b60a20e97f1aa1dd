"""Coalition games, batched over environments: what each set of players is worth."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ValueFunction = Callable[[Tensor], Tensor | NDArray[Any]]


@lru_cache(maxsize=32)
def coalition_matrix(n_players: int, device: torch.device | None = None) -> Tensor:
    """Every coalition of ``n_players``, one a row.

    Args:
        n_players: Number of players n, at most 20.
        device: Where the rows are to live.

    Returns:
        bool ``(2**n, n)``; row c is the coalition whose bit i is set in c. Shared between callers: do not write into it.

    Raises:
        ValueError: If n is not within 0..20.
    """
    if not 0 <= n_players <= 20:
        raise ValueError(f"n_players={n_players}: all 2**n coalitions are listed for 0 to 20 players")
    codes = torch.arange(2**n_players, device=device)
    return (codes[:, None] >> torch.arange(n_players, device=device)) & 1 == 1


class CoalitionGame:
    """A batch of coalition games over the same players, evaluated on demand, each coalition at most once.

    Credit rules assume v(∅) = 0, as coalition games do by definition: subtract v(∅) in ``value`` if it is not.

    Args:
        value: From coalitions, bool ``(n_coalitions, n_players)``, to their worth: ``(n_envs, n_coalitions)``, or
            ``(n_coalitions,)`` for a single game. Any callable of that form will do; numpy results are taken too.
        n_players: Number of players n.
        value_all: Worth of all coalitions at once, ``(n_envs, 2**n)`` with bit i of the column saying whether player i is
            in; for games that can do this faster than ``value`` on :func:`coalition_matrix`. Optional.

    Raises:
        ValueError: If ``n_players`` is not positive.
    """

    def __init__(self, value: ValueFunction, n_players: int, *, value_all: Callable[[], Tensor] | None = None) -> None:
        if n_players < 1:
            raise ValueError(f"n_players={n_players}: a game needs at least one player")
        self.n_players = n_players
        self._value = value
        self._value_all = value_all
        self._all: Tensor | None = None  # (n_envs, 2**n)
        self._known: dict[bytes, int] = {}  # coalition -> column of self._columns
        self._columns: Tensor | None = None  # (n_envs, number known)

    @property
    def evaluations(self) -> int:
        """How many distinct coalitions have been evaluated so far, in each environment."""
        return len(self._known) if self._all is None else 2**self.n_players

    def value(self, coalitions: Tensor) -> Tensor:
        """Worth of the given coalitions.

        Args:
            coalitions: bool ``(n_coalitions, n_players)``.

        Returns:
            ``(n_envs, n_coalitions)``, in the utility's unit.

        Raises:
            ValueError: If ``coalitions`` is not a bool matrix with one column a player, or the game's function answers
                with the wrong shape.
        """
        if coalitions.dtype != torch.bool or coalitions.dim() != 2 or coalitions.shape[1] != self.n_players:
            raise ValueError(
                f"coalitions must be bool of shape (n_coalitions, {self.n_players}), got {coalitions.dtype} {tuple(coalitions.shape)}"
            )
        if self._all is not None:
            bits = 2 ** torch.arange(self.n_players, device=coalitions.device)
            return self._all[:, (coalitions * bits).sum(dim=1)]
        keys = [row.tobytes() for row in coalitions.cpu().numpy()]
        fresh = {key: row for row, key in reversed(list(enumerate(keys))) if key not in self._known}
        if fresh:
            rows = sorted(fresh.values())
            values = self._checked(self._value(coalitions[rows]), len(rows))
            if self._columns is not None and len(values) != len(self._columns):
                raise ValueError(f"the game answered for {len(values)} environments after {len(self._columns)} before")
            self._columns = values if self._columns is None else torch.cat([self._columns, values], dim=1)
            self._known |= {keys[row]: len(self._known) + column for column, row in enumerate(rows)}
        if self._columns is None:  # no coalition was asked for, so nothing says how many environments there are
            return self._checked(self._value(coalitions), 0)
        return self._columns[:, [self._known[key] for key in keys]]

    def values(self) -> Tensor:
        """Worth of every coalition.

        Returns:
            ``(n_envs, 2**n)``; bit i of the column says whether player i is in.

        Raises:
            ValueError: If there are more than 20 players.
        """
        if self._all is None:
            coalitions = coalition_matrix(self.n_players)  # refuses more than 20 players
            self._all = self.value(coalitions) if self._value_all is None else self._checked(self._value_all(), len(coalitions))
        return self._all.clone()

    def grand(self) -> Tensor:
        """Worth of the grand coalition, ``(n_envs,)``."""
        if self._all is not None:
            return self._all[:, -1]
        return self.value(torch.ones(1, self.n_players, dtype=torch.bool))[:, 0]

    def _checked(self, values: Tensor | NDArray[Any], n_coalitions: int) -> Tensor:
        # a copy: the function may reuse its buffer, or hand out one that must not be written to
        values = values.clone() if isinstance(values, Tensor) else torch.from_numpy(np.array(values))
        if values.dim() == 1:
            values = values[None]
        if values.dim() != 2 or values.shape[1] != n_coalitions:
            raise ValueError(f"the game answered with shape {tuple(values.shape)} for {n_coalitions} coalitions")
        return values if values.is_floating_point() else values.double()
