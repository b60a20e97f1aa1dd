"""Permutation sampling that stops looking where nothing is left to gain: TMC-Shapley and GTG-Shapley."""

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
    r"""Truncated Monte Carlo Shapley: marginal contributions along random orders, each order until it has come close to v(N) for good.

    .. math:: c_i = \frac{1}{K} \sum_{k=1}^{K} 1[\text{i comes before the truncation of } \pi_k] \; \Delta_i(P_i^{\pi_k})

    An order is truncated after more than ``patience`` positions in a row with :math:`|v(P) - v(N)| \le \text{tolerance} \cdot |v(N)|`; who
    comes later gets 0 from it. Costs at most ``budget`` evaluations, which decides the number of orders; truncation saves some of them
    (they are not spent on more orders, so that an environment's estimate does not depend on the others in its batch). Null-player;
    efficient with ``tolerance=0`` only, since truncation leaves up to the tolerance unpaid; symmetric in expectation only. Unbiased with
    ``tolerance=0`` in a game that is nowhere flat; else its bias is what would have been gained after the truncation. Its known
    failure is a game in which much happens late, after a plateau at v(N).

    Args:
        budget: Most coalitions to evaluate in a round; ``None`` is 20 a player.
        seed: Seed of the draws.
        tolerance: Distance from v(N), as a share of \|v(N)\|, that counts as arrived.
        patience: Positions in a row that must have arrived before the next one truncates.

    References:
        Ghorbani & Zou (2019), *Data Shapley: equitable valuation of data for machine learning*, ICML.
    """

    source = "Ghorbani & Zou 2019 (ICML)"
    null_player = True

    def __init__(self, budget: int | None = None, seed: int = 0, tolerance: float = 0.01, patience: int = 5) -> None:
        super().__init__(budget, seed)
        if not is_number(tolerance) or tolerance < 0:
            raise ValueError(f"tolerance={tolerance!r}: must be at least 0 (a number)")
        if not is_whole(patience, 0):
            raise ValueError(f"patience={patience!r}: must be at least 0 (a whole number)")
        self.tolerance = tolerance
        self.patience = patience
        self.efficient = tolerance == 0  # an order is then left where it has paid out v(N) exactly

    def sample(self, game: CoalitionGame, budget: int, generator: np.random.Generator) -> Estimate:
        """See the class."""
        n = game.n_players
        orders = random_orders(n, max(1, (budget - 1) // (n - 1)), generator)
        scan = _Scan(game, orders)
        arrived = torch.zeros_like(scan.worth, dtype=torch.int64)  # positions in a row, (E, K)
        for position in range(n):
            scan.step(position, arrived <= self.patience)
            close = (scan.worth - scan.grand).abs() <= self.tolerance * scan.grand.abs()
            arrived = torch.where(close | (arrived > self.patience), arrived + 1, 0)
        marginals = scan.marginals()
        return _mean_over_orders(marginals, torch.full_like(scan.grand, len(orders)), scan.evaluations, "truncated permutations")


@RULES.register("gtg")
class GuidedTruncationGradient(Estimator):
    r"""GTG-Shapley: truncation between rounds and within orders, orders that let everybody come first, and an early stop.

    .. math:: c_i = \frac{1}{K} \sum_{k=1}^{K} \Delta_i(P_i^{\pi_k}) \; 1[\,|v(N) - v(P_i^{\pi_k})| \ge \varepsilon_i\,], \qquad
        c = 0 \text{ where } |v(N)| \le \varepsilon_b

    A round that gains no more than ``between`` pays nobody. A position is evaluated only while the order is ``within`` or more away from
    v(N). Every n orders let each player come first once. An environment stops when its running means have moved by no more than
    ``convergence`` over the last 10 orders. Costs at most ``budget`` evaluations. Null-player; not efficient, since truncation leaves
    up to ``within`` unpaid (and all of a small round); symmetric in expectation only. Unbiased with ``between = within = convergence =
    0``; else its bias is what truncation leaves out. Its known failure is scale: its thresholds are absolute, and the usual
    ones were set for accuracies.

    Args:
        budget: Most coalitions to evaluate in a round; ``None`` is 20 a player.
        seed: Seed of the draws.
        between: ε_b, in the utility's unit.
        within: ε_i, in the utility's unit.
        convergence: Largest relative change of the mean that counts as converged.

    References:
        Liu, Chen, Yu, Liu & Cui (2022), *GTG-Shapley: efficient and accurate participant contribution evaluation in federated
        learning*, ACM TIST 13(4).
    """

    source = "Liu et al. 2022 (ACM TIST)"
    null_player = True

    def __init__(
        self, budget: int | None = None, seed: int = 0, between: float = 0.001, within: float = 0.001, convergence: float = 0.05
    ) -> None:
        super().__init__(budget, seed)
        for name, number in (("between", between), ("within", within), ("convergence", convergence)):
            if not is_number(number) or number < 0:
                raise ValueError(f"{name}={number!r}: must be at least 0 (a number)")
        self.between = between
        self.within = within
        self.convergence = convergence

    def sample(self, game: CoalitionGame, budget: int, generator: np.random.Generator) -> Estimate:
        """See the class."""
        n = game.n_players
        # everybody alone, and v(N), are shared by all orders
        n_orders = max(1, (budget - 1 - n) // (n - 2)) if n > 2 else n
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
            return Estimate.exact(torch.zeros(len(grand), n).to(grand), evaluations, "GTG: no round gained anything")
        return _mean_over_orders(torch.cat(collected, dim=1), n_used, evaluations, "guided truncated permutations", np.concatenate(first))

    def _converged(self, marginals: Tensor) -> Tensor:
        """Whether the means over the first k orders, for the last 10 k, are all close to the last: ``(E, K, n)`` → ``(E, 1)``."""
        n_orders = marginals.shape[1]
        if n_orders <= 10:
            return torch.zeros(len(marginals), 1, dtype=torch.bool, device=marginals.device)
        means = marginals.cumsum(dim=1) / torch.arange(1, n_orders + 1).to(marginals)[:, None]  # (E, K, n)
        last = means[:, -1:]
        moved = (means[:, -11:-1] - last).abs() / last.abs().clamp(min=1e-12)
        return moved.mean(dim=2).amax(dim=1, keepdim=True) < self.convergence


class _Scan:
    """Many orders followed position by position, in all environments at once.

    A coalition is evaluated if any environment wants it, and counts in those that want it.

    Args:
        game: The game.
        orders: Who joins when, ``(K, n)``.
        seen: Coalitions evaluated so far, which is added to.
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
        """The next player of each order joins; where it is not ``wanted``, bool ``(E, K)``, v stays as it is."""
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
    """n random orders, each player first in one of them, ``(n, n)``."""
    others = random_orders(n, n, generator)
    first = generator.permutation(n)
    rest = others[others != first[:, None]].reshape(n, n - 1)
    return np.concatenate([first[:, None], rest], axis=1)


def _mean_over_orders(marginals: Tensor, n_used: Tensor, evaluations: int, method: str, first: np.ndarray | None = None) -> Estimate:
    """Mean over each environment's first ``n_used`` ``(E, 1)`` orders of marginals ``(E, K, n)``, and its standard error.

    ``first`` ``(K,)`` says who came first in each order if that was not left to chance.
    """
    n_orders, n = marginals.shape[1:]
    counted = (torch.arange(n_orders).to(n_used) < n_used)[..., None]  # (E, K, 1)
    number = n_used.clamp(min=1)
    mean = (marginals * counted).sum(dim=1) / number  # (E, n)

    def errors() -> tuple[Tensor, Tensor]:
        random = counted if first is None else counted & (torch.arange(n) != torch.from_numpy(first)[:, None]).to(counted.device)
        count = random.sum(dim=1)  # (E, n)
        centre = (marginals * random).sum(dim=1) / count.clamp(min=1)
        squares = ((marginals - centre[:, None]).square() * random).sum(dim=1)
        error = torch.where(count > 1, (squares / (count - 1).clamp(min=1) * count).sqrt() / number, torch.nan)
        return torch.where(n_used > 0, error, 0.0), (count - 1).clamp(min=1).to(mean)  # 0 in an environment that was skipped

    return Estimate(mean, errors, evaluations, f"{method}, {n_orders} orders")
