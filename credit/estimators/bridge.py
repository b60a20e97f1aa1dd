"""A bridge to shapiq: its approximators can be used on our games, and as credit rules here.

shapiq (https://pypi.org/project/shapiq/) is an optional extra, ``pip install 'proxycoop[shapiq]'``. It is imported when one of these
functions is first called. The other way needs no bridge: a rule's ``values`` takes a ``shapiq.Game`` as it is.

References:
    Muschalik et al. (2024), *shapiq: Shapley interactions for machine learning*, NeurIPS Datasets and Benchmarks.
"""

from __future__ import annotations

import copy
import importlib
import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..games.game import CoalitionGame, GameLike, as_game
from .estimate import Estimate, Estimator

PLAYERS_VALUES = ("SV", "BV", "SII", "BII", "kADD-SHAP")
"""Indices of shapiq's whose values of single players are Shapley or Banzhaf values, at any order."""


def to_shapiq(game: GameLike, n_players: int | None = None, env: int = 0) -> Any:
    """One environment of a game, as a ``shapiq.Game``.

    Args:
        game: A :class:`CoalitionGame`, or any callable from coalitions, bool ``(m, n_players)``, to their worth, ``(m,)`` or
            ``(n_envs, m)``. A callable is asked for v(∅) once, and v(∅) is subtracted from its answers.
        n_players: Number of players, for a callable.
        env: Index of the environment, from 0.

    Returns:
        The game. shapiq's approximators, its ``ExactComputer`` and its ``Game.precompute`` take it. Its worths are in double precision, and
        v(∅) = 0 costs no evaluation.

    Raises:
        ImportError: If shapiq is not installed.
        ValueError: If the number of players is missing or is not the game's. When the game is first asked, if there is no such environment.
    """
    return _game_class()(as_game(game, n_players), env)


@lru_cache(maxsize=1)
def _game_class() -> Any:
    shapiq = _shapiq()

    class OneEnvironment(shapiq.Game):  # type: ignore[misc, name-defined]  # imported when it is first needed
        """One environment of a coalition game of proxycoop's."""

        def __init__(self, game: CoalitionGame, env: int) -> None:
            if env < 0:
                raise ValueError(f"env={env}: environments are counted from 0")
            self.game = game
            self.env = env
            super().__init__(n_players=game.n_players, normalize=True, normalization_value=0.0)

        def value_function(self, coalitions: NDArray[Any]) -> NDArray[np.float64]:
            """Worth of the coalitions, bool or 0/1 ``(m, n)``, in this environment, ``(m,)``."""
            rows = torch.from_numpy(np.array(coalitions, dtype=bool))
            somebody = rows.any(dim=1)
            v = self.game.value(rows[somebody])  # (n_envs, …)
            if self.env >= len(v):
                raise ValueError(f"env={self.env}: the game has {len(v)} environments")
            worth = np.zeros(len(rows))
            worth[somebody.numpy()] = v[self.env].detach().double().cpu().numpy()
            return worth

    return OneEnvironment


def from_shapiq(approximator: Any, budget: int | None = None, seed: int = 0, **kwargs: Any) -> ShapiqEstimator:
    """A credit rule from one of shapiq's approximators.

    For example ``credit.from_shapiq(shapiq.KernelSHAP, budget=60, pairing_trick=True)``, wherever a rule is taken.

    Args:
        approximator: A class of approximators: every draw builds a new one, with the number of players, ``kwargs`` and a ``random_state``.
            Or an approximator: every draw uses a copy of it. Its values of single players must be Shapley or Banzhaf values.
        budget: Most coalitions to evaluate in a round, v(∅) = 0 apart; ``None`` is 20 a player. shapiq counts v(∅), so it is given one
            more. Some of its approximators spend less.
        seed: Seed of the draws, a whole number from 0.
        **kwargs: Arguments of the class.

    Returns:
        The rule. Its standard errors are NaN, because shapiq gives none.

    Raises:
        ImportError: If shapiq is not installed.
        ValueError: If it is no approximator, does not take the arguments, or gives interactions instead of players' values.
    """
    return ShapiqEstimator(approximator, budget, seed, kwargs)


class ShapiqEstimator(Estimator):
    r"""Pays a value that one of shapiq's approximators computes; :func:`from_shapiq` makes these rules.

    .. math:: c_i \approx \phi_i \text{ in the approximator's own way}

    All environments are asked for the same coalitions, which are drawn anew in every round, unless an approximator chooses coalitions by
    the worths that it has seen.

    Costs ``budget`` evaluations at most. It promises neither efficiency nor symmetry nor null players, because approximators differ; look
    at the one that is used.

    Known failure: speed. Every environment is approximated by itself.

    Args:
        approximator: See :func:`from_shapiq`.
        budget: See :func:`from_shapiq`.
        seed: See :func:`from_shapiq`.
        kwargs: Arguments of the class.

    Raises:
        ImportError: See :func:`from_shapiq`.
        ValueError: See :func:`from_shapiq`.

    References:
        Muschalik et al. (2024), *shapiq: Shapley interactions for machine learning*, NeurIPS Datasets and Benchmarks.
    """

    source = "shapiq (Muschalik et al. 2024)"

    def __init__(self, approximator: Any, budget: int | None, seed: int, kwargs: dict[str, Any]) -> None:
        super().__init__(budget, seed)
        base = _shapiq().approximator.Approximator
        if not isinstance(approximator, base) and not (isinstance(approximator, type) and issubclass(approximator, base)):
            raise ValueError(f"approximator={approximator!r}: must be one of shapiq's approximators, or a class of them")
        self.name = approximator.__name__ if isinstance(approximator, type) else type(approximator).__name__
        self.approximator = approximator
        self.kwargs = kwargs
        if not isinstance(approximator, type):
            if kwargs:
                raise ValueError(f"{self.name} is built already and takes no arguments: {', '.join(kwargs)}")
            return
        for ours in ("n", "random_state"):
            if ours in kwargs:
                raise ValueError(f"{ours}={kwargs[ours]!r}: leave it out, since the rule sets it (by the number of players, and by seed)")
        try:
            inspect.signature(approximator).bind(n=2, **kwargs)
        except TypeError as error:
            raise ValueError(f"{self.name} does not take these arguments ({error}): {kwargs!r}") from None

    def method(self, n_players: int) -> str:
        """The approximator's name, and the cost."""
        return f"estimated by shapiq's {self.name}, {super().method(n_players)}"

    def check(self, n_players: int) -> None:
        """Refuse a number of players that the approximator was not built for, interactions, or too small a budget.

        Raises:
            ValueError: If there are other players, the budget is too small, or the approximator gives no values of single players or cannot
                be built for them.
        """
        if not isinstance(self.approximator, type) and self.approximator.n != n_players:
            raise ValueError(f"{self.name} was built for {self.approximator.n} players, but there are {n_players}: pass the class")
        super().check(n_players)
        if n_players > 1:
            _require_values(self._drawn(n_players, 0))

    def sample(self, game: CoalitionGame, budget: int, generator: np.random.Generator) -> Estimate:
        """See the class."""
        random_state = int(generator.integers(2**31))
        values = []
        for env in range(len(game.grand())):
            approximator = self._drawn(game.n_players, random_state)
            found = approximator.approximate(budget=budget + 1, game=to_shapiq(game, env=env))
            values.append([float(found[(i,)]) for i in range(game.n_players)])
        phi = torch.tensor(values, dtype=torch.float64)
        unknown = torch.full_like(phi, torch.nan)
        return Estimate(phi, lambda: (unknown, unknown), game.evaluations, f"shapiq's {self.name}")

    def _drawn(self, n_players: int, random_state: int) -> Any:
        """An unused approximator, which draws by ``random_state`` if it draws at all."""
        if not isinstance(self.approximator, type):
            approximator = copy.deepcopy(self.approximator)
            if callable(seed := getattr(approximator, "set_random_state", None)):
                seed(random_state)
            return approximator
        takes = inspect.signature(self.approximator).parameters
        seeded = "random_state" in takes or any(p.kind is p.VAR_KEYWORD for p in takes.values())
        build: Callable[..., Any] = self.approximator
        return build(n=n_players, **self.kwargs, **({"random_state": random_state} if seeded else {}))


def _require_values(approximator: Any) -> None:
    """Refuse an approximator of interactions: their part for single players is not a division of anything."""
    index, order, least = (getattr(approximator, name, None) for name in ("index", "max_order", "min_order"))
    if (index not in PLAYERS_VALUES and order != 1) or (least or 0) > 1:
        raise ValueError(
            f"{type(approximator).__name__} gives the interactions {index!r} of order {order}: credit needs players' values, so pass "
            f"max_order=1 or an index among {', '.join(PLAYERS_VALUES)}"
        )


def _shapiq() -> Any:
    try:
        return importlib.import_module("shapiq")
    except ImportError as error:
        raise ImportError("shapiq is not installed: pip install 'proxycoop[shapiq]'") from error
