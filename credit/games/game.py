"""Coalition games, batched over environments: what each set of players is worth."""

from __future__ import annotations

import reprlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..arguments import checked_players, is_whole

ValueFunction = Callable[[Tensor], Tensor | NDArray[Any] | Sequence[Any]]
"""From coalitions, bool ``(m, n_players)``, to their worth: ``(n_envs, m)``, or ``(m,)`` for a single game.

The worth is a tensor, an array, or a list. Its numbers may be of any real type, ``Decimal`` and ``Fraction`` among them.
"""

Chances = tuple[tuple[float, ...], tuple[float, ...]]
"""A semivalue as a mixture over the chance p with which others join: points p in [0, 1], and their weights, which sum to 1."""


MAX_ENUMERATED = 20
"""Largest number of players for which all coalitions are enumerated."""
BLOCK_PLAYERS = 14
"""A larger game is streamed in blocks of all coalitions of this many players."""


def coalition_matrix(n_players: int, device: torch.device | None = None) -> Tensor:
    """Every coalition of ``n_players``, one in each row.

    Args:
        n_players: Number of players n, at most 20.
        device: Device of the rows.

    Returns:
        bool ``(2**n, n)``. Row c is the coalition of the players i whose bit i is set in c. The matrix is shared between callers: do not
        write into it.

    Raises:
        ValueError: If n is not a whole number within 0..20.
    """
    _require_enumerable(n_players)
    return _coalition_matrix(int(n_players), device)


@lru_cache(maxsize=32)
def _coalition_matrix(n_players: int, device: torch.device | None) -> Tensor:
    codes = torch.arange(2**n_players, device=device)
    return (codes[:, None] >> torch.arange(n_players, device=device)) & 1 == 1


def _require_enumerable(n_players: int) -> None:
    if not is_whole(n_players, 0) or n_players > MAX_ENUMERATED:
        raise ValueError(
            f"n_players={n_players!r}: must be a whole number from 0 to {MAX_ENUMERATED}, because all 2**n coalitions are listed"
        )


class CoalitionGame:
    """A batch of coalition games over the same players. Coalitions are evaluated on demand, each at most once.

    Games of more than 14 players are too large to be kept whole: each pass through :meth:`blocks` evaluates all their coalitions.

    Credit rules assume v(∅) = 0, as coalition games do by definition. For a function with another v(∅), use :func:`as_game`, which
    subtracts it.

    Args:
        value: From coalitions, bool ``(n_coalitions, n_players)``, to their worth: ``(n_envs, n_coalitions)``, or ``(n_coalitions,)`` for a
            single game. Any callable of that form will do. Arrays and lists are taken too, with numbers of any real type. Gradients are
            kept, and pass through every rule that is no linear programme.
        n_players: Number of players n.
        value_block: Optional, for games that can do this faster than ``value``. ``(first, n_low) -> (n_envs, 2**n_low)``: worth of the
            coalitions first … first + 2**n_low − 1, coded with bit i for player i, where first is a multiple of 2**n_low.
        surrogate: Optional, for games that may have a cheap one near them: called with the game and with how many coalitions beside v(N)
            may be evaluated in making it, it returns the surrogate, or says in words why there is none.

    Raises:
        ValueError: If ``n_players`` is not a whole number from 1. When the game is asked, if its function answers with anything else.
    """

    def __init__(
        self,
        value: ValueFunction,
        n_players: int,
        *,
        value_block: Callable[[int, int], Tensor] | None = None,
        surrogate: SurrogateMaker | None = None,
    ) -> None:
        self.n_players = n_players = checked_players(n_players)
        self._value = value
        self._value_block = value_block
        self._surrogate = surrogate
        self._all: Tensor | None = None  # (n_envs, 2**n)
        self._streamed = False
        self._known: NDArray[np.bytes_] = np.empty(0, dtype=f"S{(n_players + 7) // 8}")  # packed coalitions, sorted
        self._where: NDArray[np.intp] = np.empty(0, dtype=np.intp)  # their columns in self._columns
        self._columns: Tensor | None = None  # (n_envs, number known)

    @property
    def evaluations(self) -> int:
        """How many distinct coalitions have been evaluated so far, in each environment."""
        return 2**self.n_players if self._streamed or self._all is not None else len(self._known)

    def value(self, coalitions: Tensor) -> Tensor:
        """Worth of the given coalitions.

        Args:
            coalitions: bool ``(n_coalitions, n_players)``, on any device.

        Returns:
            ``(n_envs, n_coalitions)``, in the utility's unit, on the game's device.

        Raises:
            ValueError: If ``coalitions`` is not a bool matrix with one column for each player, or the game's function answers with the
                wrong shape.
        """
        if not isinstance(coalitions, Tensor) or coalitions.dtype != torch.bool or coalitions.shape[1:] != (self.n_players,):
            came = f"{coalitions.dtype} {tuple(coalitions.shape)}" if isinstance(coalitions, Tensor) else f"({type(coalitions).__name__})"
            raise ValueError(f"coalitions must be a tensor, bool of shape (n_coalitions, {self.n_players}), got {came}")
        if self._all is not None:
            bits = 2 ** torch.arange(self.n_players, device=coalitions.device)
            return self._all[:, (coalitions * bits).sum(dim=1).to(self._all.device)]
        keys = packed(coalitions.cpu().numpy())
        unique, first_row, inverse = np.unique(keys, return_index=True, return_inverse=True)
        place = np.searchsorted(self._known, unique)
        known = np.zeros(len(unique), dtype=bool)
        inside = place < len(self._known)
        known[inside] = self._known[place[inside]] == unique[inside]
        if not known.all():
            rows = np.sort(first_row[~known])  # in the order in which they were asked for
            asked = coalitions[torch.from_numpy(rows).to(coalitions.device)]
            self._remember(keys[rows], _worths(self._value(asked), len(rows)))
            place = np.searchsorted(self._known, unique)
        if self._columns is None:  # no coalition was asked for, so nothing says how many environments there are
            return _worths(self._value(coalitions), 0)
        return self._columns[:, torch.from_numpy(self._where[place][inverse]).to(self._columns.device)]

    def surrogate(self, most: int) -> Surrogate | str:
        """A cheap game near this one, or in words why there is none.

        Args:
            most: How many coalitions, beside v(N), may be evaluated in making it.
        """
        return "the game is a black box" if self._surrogate is None else self._surrogate(self, most)

    def learn(self, coalitions: Tensor, worth: Tensor) -> None:
        """Take over what coalitions are worth from whoever evaluated them for this game: they are not evaluated again.

        Args:
            coalitions: bool ``(m, n_players)``, each once.
            worth: ``(n_envs, m)``.
        """
        if self._all is not None:
            return
        keys = packed(coalitions.cpu().numpy())
        new = torch.from_numpy(~np.isin(keys, self._known))
        if new.any():
            self._remember(keys[new.numpy()], _worths(worth[:, new.to(worth.device)], int(new.sum())))

    def values(self) -> Tensor:
        """Worth of every coalition.

        Returns:
            ``(n_envs, 2**n)``; bit i of the column says whether player i is in.

        Raises:
            ValueError: If there are more than 20 players.
        """
        if self._all is None:
            _require_enumerable(self.n_players)
            single = self.n_players <= BLOCK_PLAYERS
            self._all = self._block(0, self.n_players) if single else torch.cat([v for _, v in self.blocks()], dim=1)
        return self._all.clone()

    def blocks(self) -> Iterator[tuple[int, Tensor]]:
        """Worth of every coalition, one block after another, so that memory stays bounded.

        A game of at most 14 players is one block, which is kept. Of larger games only v(N) is kept.

        Yields:
            ``(first, v)``: v, ``(n_envs, 2**b)`` with b = min(n, 14), is the worth of the coalitions first … first + 2**b − 1.

        Raises:
            ValueError: If there are more than 20 players.
        """
        n, low = self.n_players, min(self.n_players, BLOCK_PLAYERS)
        _require_enumerable(n)
        if n == low:
            self.values()
        for first in range(0, 2**n, 2**low):
            v = self._block(first, low) if self._all is None else self._all[:, first : first + 2**low]
            if first + 2**low == 2**n and self._all is None:
                self._streamed = True
                everyone = packed(np.ones((1, n), dtype=bool))
                if everyone[0] not in self._known:
                    self._remember(everyone, v[:, -1:].clone())
            yield first, v

    def grand(self) -> Tensor:
        """Worth of the grand coalition, ``(n_envs,)``."""
        if self._all is not None:
            return self._all[:, -1]
        return self.value(torch.ones(1, self.n_players, dtype=torch.bool))[:, 0]

    def _block(self, first: int, n_low: int) -> Tensor:
        """Worth of the coalitions first … first + 2**n_low − 1, ``(n_envs, 2**n_low)``."""
        if self._value_block is not None:
            return _worths(self._value_block(first, n_low), 2**n_low)
        high = (first >> torch.arange(n_low, self.n_players)) & 1 == 1
        coalitions = torch.cat([coalition_matrix(n_low), high.expand(2**n_low, -1)], dim=1)
        # evaluate no coalition again that is known; a block by itself holds no coalition twice
        return self.value(coalitions) if len(self._known) and n_low == self.n_players else _worths(self._value(coalitions), 2**n_low)

    def _remember(self, keys: NDArray[np.bytes_], values: Tensor) -> None:
        """Keep the worth, ``(n_envs, len(keys))``, of coalitions that were not known before."""
        if self._columns is not None and len(values) != len(self._columns):
            raise ValueError(
                f"the game answered for {len(values)} environments, and before for {len(self._columns)}: it must always be the same number"
            )
        self._columns = values if self._columns is None else torch.cat([self._columns, values], dim=1)
        order = np.argsort(keys)
        place = np.searchsorted(self._known, keys[order])
        self._where = np.insert(self._where, place, len(self._known) + order)
        self._known = np.insert(self._known, place, keys[order])


@dataclass(frozen=True)
class Surrogate:
    """A cheap game near another.

    Attributes:
        game: The cheap game, of the same players and environments. If it is no table of numbers but costs something itself, it may have a
            surrogate in turn.
        name: What it is, in words.
        evaluations: How many coalitions of the dear game it took to make it, apart from v(N).
        known: Sizes of coalitions all of which have been evaluated in making it.
        paired: Whether nothing of pairs is left in the difference, so that coalitions are best drawn with their complements.
        solve: Its semivalue, ``(n_envs, n)``, for chances; ``None`` if that has to be computed from its worths.
    """

    game: CoalitionGame
    name: str
    evaluations: int = 0
    known: frozenset[int] = frozenset()
    paired: bool = False
    solve: Callable[[Chances], Tensor] | None = None


SurrogateMaker = Callable[[CoalitionGame, int], Surrogate | str]
"""From a game, and how many coalitions beside v(N) may be evaluated, to a surrogate; or in words why there is none."""
GameLike = CoalitionGame | ValueFunction
"""What is accepted as a game: a :class:`CoalitionGame`, or a function of coalitions."""


def as_game(game: GameLike, n_players: int | None = None) -> CoalitionGame:
    """A game from a function of coalitions, with v(∅) = 0.

    Args:
        game: A :class:`CoalitionGame`, which is returned as it is. Or a ``shapiq.Game``, or any callable from bool ``(m, n_players)`` to
            ``(m,)`` or ``(n_envs, m)``. These are asked for v(∅) once, with the first coalitions, and v(∅) is subtracted from all answers.
        n_players: Number of players. Not needed for a callable with an attribute ``n_players``, as shapiq's games have.

    Raises:
        ValueError: If ``game`` cannot be asked, or the number of players is missing, is not a whole number from 1, or is not the game's.
    """
    if not isinstance(game, CoalitionGame) and not callable(game):
        raise ValueError(
            f"game={reprlib.repr(game)}: must be a CoalitionGame or a function of coalitions; a table of all worths becomes one by "
            "credit.table_game(v)"
        )
    known: int | None = getattr(game, "n_players", None)
    n = n_players if known is None else known
    if n is None:
        raise ValueError("n_players is missing: say how many players the function's game has, as in values(game, n_players=6)")
    n = checked_players(n)
    if n_players is not None and checked_players(n_players) != n:
        raise ValueError(f"n_players={n_players}, but the game has {n} players")
    if isinstance(game, CoalitionGame):
        return game
    return CoalitionGame(_Normalised(_asked_in_numpy(game) if _is_shapiqs(game) else game, n), n)


def _is_shapiqs(game: ValueFunction) -> bool:
    shapiq = sys.modules.get("shapiq")  # whoever has a shapiq game has imported shapiq
    return shapiq is not None and isinstance(game, shapiq.Game)


def _asked_in_numpy(game: ValueFunction) -> ValueFunction:
    """A shapiq game, asked with numpy arrays: by the type it tells coalitions from lists of players."""
    ask: Callable[[NDArray[np.bool_]], NDArray[Any]] = game  # type: ignore[assignment]  # it takes arrays, not tensors
    return lambda coalitions: ask(coalitions.cpu().numpy())


class _Normalised:
    """v(S) − v(∅) of a function whose v(∅) may be other than 0; v(∅) is asked for once."""

    def __init__(self, value: ValueFunction, n_players: int) -> None:
        self._value = value
        self._nobody = torch.zeros(1, n_players, dtype=torch.bool)
        self._worth_of_nobody: Tensor | None = None

    def __call__(self, coalitions: Tensor) -> Tensor:
        ask = coalitions if self._worth_of_nobody is not None else torch.cat([coalitions, self._nobody.to(coalitions.device)])
        v = _worths(self._value(ask), len(ask))
        if self._worth_of_nobody is None:
            v, self._worth_of_nobody = v[:, :-1], v[:, -1:]
        return v - self._worth_of_nobody


def packed(coalitions: NDArray[np.bool_]) -> NDArray[np.bytes_]:
    """Each coalition as a short byte string, bool ``(m, n)`` → ``(m,)``. Equal strings are equal coalitions."""
    bits = np.ascontiguousarray(np.packbits(coalitions, axis=1))
    return bits.view(f"S{bits.shape[1]}")[:, 0]


def _worths(answer: Tensor | NDArray[Any] | Sequence[Any], n_coalitions: int) -> Tensor:
    """A function's answer for ``n_coalitions``, as ``(n_envs, n_coalitions)`` in floating point.

    It is a copy, since the function may reuse its buffer, or return one that must not be written to.

    Raises:
        ValueError: If the answer does not consist of real numbers, or has another shape.
    """
    if isinstance(answer, Tensor) and answer.layout != torch.strided:
        answer = answer.to_dense()
    values = answer.clone() if isinstance(answer, Tensor) else _as_tensor(answer)
    if values.is_complex():
        raise ValueError(f"the game answered with complex numbers, {values.dtype}: what a coalition is worth must be a real number")
    if values.dim() == 1:
        values = values[None]
    if values.dim() != 2 or values.shape[1] != n_coalitions:
        raise ValueError(
            f"the game answered with shape {tuple(values.shape)} for {n_coalitions} coalitions, must be (n_envs, {n_coalitions})"
        )
    # PyTorch stores numbers of less than two bytes, but does not compute with them
    return values if values.is_floating_point() and values.element_size() > 1 else values.double()


def _number(worth: Any) -> float:
    if isinstance(worth, str | bytes):
        raise TypeError("text is no number, though float() reads it")
    return float(worth)


def _as_tensor(answer: object) -> Tensor:
    """A copy of an answer that is no tensor. Floating point of up to 8 bytes keeps its precision; all else becomes double precision."""
    if isinstance(answer, list | tuple) and answer and all(isinstance(worth, Tensor) for worth in answer):
        return torch.stack(list(answer))  # gradients are kept
    if isinstance(answer, np.ma.MaskedArray):
        answer = np.ma.filled(answer.astype(np.float64), np.nan)
    try:
        array = np.array(answer)
        if array.dtype.kind == "O":  # such as Decimal, Fraction, and whole numbers of any size
            array = np.array([_number(worth) for worth in array.flat]).reshape(array.shape)
    except (TypeError, ValueError, OverflowError):
        array = np.array(None)
    if array.dtype.kind not in "biufc":
        raise ValueError(f"the game answered with {reprlib.repr(answer)}: what each coalition is worth must be a real number")
    if array.dtype.kind != "c":
        keeps = array.dtype.kind == "f" and array.dtype.itemsize <= 8
        array = array.astype(array.dtype.newbyteorder("=") if keeps else np.float64)
    return torch.from_numpy(array)
