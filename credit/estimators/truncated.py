"""TMC-Shapley and GTG-Shapley: permutation sampling that stops where nothing is left to gain."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..arguments import is_number, is_whole
from ..games.game import CoalitionGame, packed
from ..rule import RULES
from .estimate import Estimate, Estimator
from .sampling import positions, prefixes, random_orders, tensor


@RULES.register("tmc")
class TruncatedMonteCarlo(Estimator):
    r"""Pays an estimate of the Shapley value from random orders, each followed until it has come close to v(N) and stays there.

    .. math:: c_i = \frac{1}{K} \sum_{k=1}^{K} 1[\text{i comes before the truncation of } \pi_k] \; \Delta_i(P_i^{\pi_k})

    where :math:`\Delta_i(P_i^\pi)` is what i adds to those before it in the order π. An order is truncated after more than ``patience``
    positions in a row with :math:`|v(P) - v(N)| \le \text{tolerance} \cdot |v(N)|`. Players that come later get 0 from it.

    Costs at most ``budget`` evaluations, which decides the number of orders K. Truncation saves some of them. They are not spent on more
    orders, so that an environment's estimate does not depend on the others in its batch. Null-player. Efficient with ``tolerance=0`` only,
    since truncation leaves up to the tolerance unpaid. Symmetric in expectation only. Unbiased with ``tolerance=0`` in a game that is
    nowhere flat; otherwise its bias is what would have been gained after the truncation. Where v(N) is NaN, so is every value.

    Known failure: a game in which much happens late, after a plateau at v(N).

    Args:
        budget: Most coalitions to evaluate in a round, v(∅) apart: a positive whole number. ``None`` is 20 a player.
        seed: Seed of the draws, a whole number from 0.
        tolerance: Distance from v(N), as a share of \|v(N)\|, that counts as arrived; at least 0.
        patience: Positions in a row that must have arrived before the next one truncates, a whole number from 0.

    Raises:
        ValueError: If an argument is not a number in its range. At reset, if the budget is too small for the number of agents.

    References:
        Ghorbani & Zou (2019), *Data Shapley: equitable valuation of data for machine learning*, ICML.
    """

    source = "Ghorbani & Zou 2019 (ICML)"
    pays = "Shapley value, from random orders that are cut off near v(N)"
    known_failure = "games in which much happens after a plateau at v(N)"
    null_player = True

    def __init__(self, budget: int | None = None, seed: int = 0, tolerance: float = 0.01, patience: int = 5) -> None:
        super().__init__(budget, seed)
        if not is_number(tolerance) or tolerance < 0:
            raise ValueError(f"tolerance={tolerance!r}: must be a number of at least 0")
        if not is_whole(patience, 0):
            raise ValueError(f"patience={patience!r}: must be a whole number of at least 0")
        self.tolerance = tolerance
        self.patience = int(patience)
        self.efficient = tolerance == 0  # an order then stops only where it has paid exactly v(N)

    def sample(self, game: CoalitionGame, budget: int, generator: np.random.Generator) -> Estimate:
        """See the class."""
        n = game.n_players
        orders = random_orders(n, max(1, (budget - 1) // (n - 1)), generator)
        scan = _Scan(game, orders)
        arrived = torch.zeros_like(scan.worth, dtype=torch.int64)  # positions in a row, (E, K)
        for position in range(n):
            scan.step(position, arrived <= self.patience)
            # nothing finite is close to an infinite v(N), whatever share of it is allowed
            close = ((scan.worth - scan.grand).abs() <= self.tolerance * scan.grand.abs()) & scan.grand.isfinite()
            arrived = torch.where(close | (arrived > self.patience), arrived + 1, 0)
        n_used = torch.full_like(scan.grand, len(orders))
        return _mean_over_orders(scan.marginals(), n_used, scan.grand, scan.evaluations, "truncated permutations")


@RULES.register("gtg")
class GuidedTruncationGradient(Estimator):
    r"""Pays an estimate of the Shapley value from random orders, truncated between rounds and within orders, with an early stop.

    .. math:: c_i = \frac{1}{K} \sum_{k=1}^{K} \Delta_i(P_i^{\pi_k}) \; 1[\,|v(N) - v(P_i^{\pi_k})| \ge \varepsilon_i\,], \qquad
        c = 0 \text{ where } |v(N)| \le \varepsilon_b

    where :math:`\Delta_i(P_i^\pi)` is what i adds to those before it in the order π.

    - Between rounds: a round with \|v(N)\| of at most ``between`` pays nobody.
    - Within orders: a position is evaluated only while the order is ``within`` or more away from v(N).
    - Guided: in every n orders each player comes first once.
    - Early stop: an environment stops once its running mean is close to those of the 10 orders before. Their relative distances, averaged
      over players, must all be below ``convergence``.

    Costs at most ``budget`` evaluations. Null-player. Not efficient, since truncation leaves up to ``within`` unpaid, and all of a small
    round. Symmetric in expectation only. Unbiased with ``between = within = convergence = 0``; otherwise its bias is what truncation leaves
    out. Where v(N) is NaN, so is every value: nobody knows how far from v(N) an order is.

    Known failure: scale. Its thresholds are absolute, and the usual ones were set for accuracies.

    Args:
        budget: Most coalitions to evaluate in a round, v(∅) apart: a positive whole number. ``None`` is 20 a player.
        seed: Seed of the draws, a whole number from 0.
        between: ε_b, in the utility's unit; at least 0.
        within: ε_i, in the utility's unit; at least 0.
        convergence: Relative change of the mean below which it counts as converged; at least 0.

    Raises:
        ValueError: If an argument is not a number in its range. At reset, if the budget is too small for the number of agents.

    References:
        Liu, Chen, Yu, Liu & Cui (2022), *GTG-Shapley: efficient and accurate participant contribution evaluation in federated learning*,
        ACM TIST 13(4).
    """

    source = "Liu et al. 2022 (ACM TIST)"
    pays = "Shapley value, from balanced orders; small rounds and the ends of orders are skipped"
    known_failure = "thresholds are absolute, in the utility's unit"
    null_player = True

    def __init__(
        self, budget: int | None = None, seed: int = 0, between: float = 0.001, within: float = 0.001, convergence: float = 0.05
    ) -> None:
        super().__init__(budget, seed)
        for name, number in (("between", between), ("within", within), ("convergence", convergence)):
            if not is_number(number) or number < 0:
                raise ValueError(f"{name}={number!r}: must be a number of at least 0")
        self.between = between
        self.within = within
        self.convergence = convergence

    def sample(self, game: CoalitionGame, budget: int, generator: np.random.Generator) -> Estimate:
        """See the class."""
        n = game.n_players
        # the single players and v(N) are evaluated once for all orders; an order of two players evaluates the first one only
        n_orders = max(1, (budget - 1 - n) // (n - 2)) if n > 2 else budget - 1
        grand = game.grand().double()[:, None]
        running = grand.abs() > self.between  # (E, 1)
        collected: list[Tensor] = []
        first: list[np.ndarray] = []
        n_used = torch.zeros_like(grand)
        evaluations = 1
        seen: set[bytes] = set()
        while running.any() and (left := n_orders - sum(part.shape[1] for part in collected)) > 0:
            scan = _Scan(game, _guided_orders(n, generator)[:left], seen)
            first.append(scan.orders[:, 0])
            for position in range(n):
                scan.step(position, running & ((scan.grand - scan.worth).abs() >= self.within))
            collected.append(scan.marginals())
            n_used = n_used + running * collected[-1].shape[1]
            running = running & ~self._converged(torch.cat(collected, dim=1))
            evaluations = 1 + len(seen)
        if not collected:
            nothing = torch.where(grand.isnan(), torch.nan, torch.zeros(len(grand), n).to(grand))
            return Estimate.exact(nothing, evaluations, "GTG: no round gained anything")
        marginals = torch.cat(collected, dim=1)
        return _mean_over_orders(marginals, n_used, grand, evaluations, "guided truncated permutations", np.concatenate(first))

    def _converged(self, marginals: Tensor) -> Tensor:
        """Whether the means after each of the 10 orders before the last are close to the mean now: ``(E, K, n)`` → ``(E, 1)``."""
        n_orders = marginals.shape[1]
        if n_orders <= 10:
            return torch.zeros(len(marginals), 1, dtype=torch.bool, device=marginals.device)
        means = marginals.cumsum(dim=1) / torch.arange(1, n_orders + 1).to(marginals)[:, None]  # (E, K, n)
        last = means[:, -1:]
        moved = (means[:, -11:-1] - last).abs() / last.abs().clamp(min=1e-12)
        return moved.mean(dim=2).amax(dim=1, keepdim=True) < self.convergence


class _Scan:
    """Many orders followed position by position, in all environments at once.

    A coalition is evaluated if any environment wants it. It counts in the environments that want it.

    Args:
        game: The game.
        orders: Which player joins at each position, ``(K, n)``.
        seen: Coalitions evaluated so far; new ones are added to it.
    """

    def __init__(self, game: CoalitionGame, orders: np.ndarray, seen: set[bytes] | None = None) -> None:
        self.game = game
        self.orders = orders
        self.position = positions(orders)  # (K, n)
        self.inside = prefixes(self.position)  # (K, n − 1, n)
        self.grand = game.grand().double()[:, None]  # (E, 1)
        self.worth = torch.zeros(1, len(orders)).to(self.grand).expand(len(self.grand), -1)  # v(P) so far, (E, K)
        self._seen = set() if seen is None else seen
        self._steps: list[Tensor] = []

    @property
    def evaluations(self) -> int:
        """Distinct coalitions evaluated, v(N) included."""
        return 1 + len(self._seen)

    def step(self, position: int, wanted: Tensor) -> None:
        """The next player of each order joins. Where that is not ``wanted``, bool ``(E, K)``, v stays as it is."""
        n = self.orders.shape[1]
        wanted = wanted.expand_as(self.worth)
        after = self.worth
        if position == n - 1:
            after = torch.where(wanted, self.grand, self.worth)
        elif (some := wanted.any(dim=0)).any():  # (K,)
            rows = self.inside[some.cpu().numpy(), position]
            self._seen.update(packed(rows).tolist())
            v = self.worth.clone()
            v[:, some] = self.game.value(tensor(rows)).double()
            after = torch.where(wanted, v, self.worth)
        self._steps.append(after - self.worth)
        self.worth = after

    def marginals(self) -> Tensor:
        """What each player brought in each order, ``(E, K, n)``, once all have joined."""
        position = torch.from_numpy(self.position).to(self.grand.device)
        steps = torch.stack(self._steps, dim=2)  # (E, K, n): of who joins at each position
        return steps.gather(2, position.expand_as(steps))


def _guided_orders(n: int, generator: np.random.Generator) -> np.ndarray:
    """n random orders, with each player first in one of them, ``(n, n)``."""
    others = random_orders(n, n, generator)
    first = generator.permutation(n)
    rest = others[others != first[:, None]].reshape(n, n - 1)
    return np.concatenate([first[:, None], rest], axis=1)


def _mean_over_orders(
    marginals: Tensor, n_used: Tensor, grand: Tensor, evaluations: int, method: str, first: np.ndarray | None = None
) -> Estimate:
    """Mean over each environment's first ``n_used`` ``(E, 1)`` orders of marginals ``(E, K, n)``, and its standard error.

    Both are NaN where v(N), ``grand`` ``(E, 1)``, is, because what was left out depends on it. ``first`` ``(K,)`` says who came first in
    each order, if that was not random.
    """
    n_orders, n = marginals.shape[1:]
    counted = (torch.arange(n_orders).to(n_used) < n_used)[..., None]  # (E, K, 1)
    number = n_used.clamp(min=1)
    mean = torch.where(grand.isnan(), torch.nan, (marginals * counted).sum(dim=1) / number)  # (E, n)

    def errors() -> tuple[Tensor, Tensor]:
        random = counted if first is None else counted & (torch.arange(n) != torch.from_numpy(first)[:, None]).to(counted.device)
        count = random.sum(dim=1)  # (E, n)
        centre = (marginals * random).sum(dim=1) / count.clamp(min=1)
        squares = ((marginals - centre[:, None]).square() * random).sum(dim=1)
        error = torch.where(count > 1, (squares / (count - 1).clamp(min=1) * count).sqrt() / number, torch.nan)
        error = torch.where(n_used > 0, error, 0.0)  # 0 in an environment that was skipped
        return torch.where(grand.isnan(), torch.nan, error), (count - 1).clamp(min=1).to(mean)

    return Estimate(mean, errors, evaluations, f"{method}, {n_orders} orders")
