"""Games whose values are known in closed form, for any number of players. Rules and estimators are measured against them.

Each function documents its formula. Sums over coalitions are taken by size and weight, with whole numbers of any length, or as integrals of
a polynomial that Gauss's quadrature computes without error. So 64 players are as exact as 6::

    from proxycoop.credit import games

    glove = games.glove(1, 2)
    credit.make("shapley").values(glove.game())  # [[2/3, 1/6, 1/6]]
    glove.shapley  # the same, from the formula

The Shapley values of games that are sums of unanimity games are from Harsanyi (1963), *A simplified bargaining model for the n-person
cooperative game*, International Economic Review 4(2). Their Banzhaf values are from Dubey & Shapley (1979), *Mathematical properties of the
Banzhaf power index*, Mathematics of Operations Research 4(2).
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from math import comb, factorial, nan
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..arguments import checked_players, checked_seed, is_number, is_whole
from .game import CoalitionGame

MAX_COUNTED = 10**8
"""Largest number of players times votes for which coalitions are counted."""

GameKind = Literal["saturating", "coverage", "unanimity_sum", "weighted_majority"]
"""Kinds of games that :func:`random_game` draws."""


@dataclass(frozen=True, eq=False)
class KnownGame:
    """A game with its values.

    Attributes:
        name: What it is, with its arguments where they are short.
        n_players: Number of players n.
        value: From coalitions, bool ``(m, n)``, to their worth, double ``(m,)``; v(∅) = 0.
        shapley: Shapley value, double ``(n,)``, in the game's unit.
        banzhaf: Banzhaf value, double ``(n,)``, same unit.
    """

    name: str
    n_players: int
    value: Callable[[Tensor], Tensor]
    shapley: Tensor
    banzhaf: Tensor

    def game(self) -> CoalitionGame:
        """The game, with nothing evaluated yet."""
        return CoalitionGame(self.value, self.n_players)


def table_game(v: Tensor) -> CoalitionGame:
    """The game that looks its worths up in a table.

    Args:
        v: Worth of every coalition, ``(2**n,)``, or ``(E, 2**n)`` for a batch of games; bit i of the column says whether player i is in.

    Raises:
        ValueError: If v is no tensor, its columns are no power of two or stand for no player, or v(∅) is not 0 (but for rounding).
    """
    if not isinstance(v, Tensor):
        raise ValueError(f"v must be a tensor of shape (2**n,) or (E, 2**n), got {type(v).__name__}: use torch.as_tensor(v)")
    n = v.shape[-1].bit_length() - 1
    if v.dim() not in (1, 2) or v.shape[-1] != 2**n or n < 1:
        raise ValueError(f"v must have shape (2**n,) or (E, 2**n), got {tuple(v.shape)}")
    real = v if v.is_floating_point() else v.double()
    rounding = 16 * torch.finfo(real.dtype).eps * torch.where(real.isfinite(), real.abs(), 0.0).amax(dim=-1)
    if not (real[..., 0].abs() <= rounding).all():
        raise ValueError(
            f"v[..., 0]={reprlib.repr(v[..., 0].tolist())}: the worth of the empty coalition must be 0; pass v - v[..., :1] to subtract it"
        )

    def value(coalitions: Tensor) -> Tensor:
        return v[..., (coalitions * 2 ** torch.arange(n, device=coalitions.device)).sum(dim=1).to(v.device)]

    return CoalitionGame(value, n)


def additive(worth: Sequence[float]) -> KnownGame:
    r"""Each player adds the same to every coalition: :math:`v(S) = \sum_{i \in S} w_i`, so every semivalue is w.

    Args:
        worth: w, ``(n,)``, in any unit.

    Raises:
        ValueError: If ``worth`` is empty or not finite.
    """
    w = _numbers("worth", worth)
    return KnownGame(
        f"additive game of {len(w)} players", len(w), lambda coalitions: _double(coalitions) @ w.to(coalitions.device), w, w.clone()
    )


def unanimity(n_players: int, members: Collection[int]) -> KnownGame:
    r"""Some players achieve 1 if all of them are there, and otherwise nothing: :math:`v(S) = 1[T \subseteq S]`.

    .. math:: \phi_i = \frac{1[i \in T]}{|T|}, \qquad \beta_i = \frac{1[i \in T]}{2^{|T|-1}}

    Args:
        n_players: Number of players n.
        members: T, players from 0 to n − 1.

    Raises:
        ValueError: If T is empty or names a player who is not there.

    References:
        Shapley (1953), *A value for n-person games*, Contributions to the Theory of Games II.
    """
    members = _listed("members", members)
    known = unanimity_sum(n_players, [members], [1.0])
    return _renamed(known, f"unanimity game of {sorted(members)} among {n_players} players")


def unanimity_sum(n_players: int, coalitions: Sequence[Collection[int]], weights: Sequence[float]) -> KnownGame:
    r"""A sum of unanimity games: :math:`v(S) = \sum_T w_T \, 1[T \subseteq S]`. Every game can be written as one.

    .. math:: \phi_i = \sum_{T \ni i} \frac{w_T}{|T|}, \qquad \beta_i = \sum_{T \ni i} \frac{w_T}{2^{|T|-1}}

    Args:
        n_players: Number of players n.
        coalitions: The T, each a collection of players from 0 to n − 1.
        weights: w_T (Harsanyi's dividends), one for each coalition, in any unit.

    Raises:
        ValueError: If ``n_players`` is not a whole number from 1, a coalition is empty or names a player who is not there, or there is not
            one weight for each coalition.

    References:
        Harsanyi (1963), *A simplified bargaining model for the n-person cooperative game*, International Economic Review 4(2).
    """
    n_players, w = checked_players(n_players), _numbers("weights", weights)
    coalitions = _listed("coalitions", coalitions)
    if len(coalitions) != len(w):
        raise ValueError(f"there are {len(coalitions)} coalitions, but {len(w)} weights: give one a coalition")
    needed = _members("coalitions", coalitions, n_players)  # (k, n)
    size = needed.sum(dim=1)
    if not size.all():
        raise ValueError("coalitions: none of them may be empty, since v(∅) = 0")

    def value(asked: Tensor) -> Tensor:
        present = _single(asked) @ _single(needed).T.to(asked.device)  # (m, k): members who are there
        return _double(present == size.to(present)) @ w.to(asked.device)

    return KnownGame(
        f"sum of {len(w)} unanimity games of {n_players} players",
        n_players,
        value,
        (w / size) @ needed.double(),
        (w * 2.0 ** (1 - size)) @ needed.double(),
    )


def glove(n_left: int, n_right: int) -> KnownGame:
    r"""Players own a left or a right glove, and a pair is worth 1: :math:`v(S) = \min(|S \cap L|, |S \cap R|)`.

    A player with a left glove brings 1 to a coalition of a lefts and b rights if b > a, and else nothing:

    .. math:: \phi_\text{left} = \sum_{b > a} \binom{l-1}{a} \binom{r}{b} \frac{(a+b)!\,(n-a-b-1)!}{n!}, \qquad
        \beta_\text{left} = 2^{1-n} \sum_{b > a} \binom{l-1}{a} \binom{r}{b}

    and likewise for the right ones. Players 0 to l − 1 own the left gloves.

    Args:
        n_left: l, at least 1.
        n_right: r, at least 1.

    Raises:
        ValueError: If there is not one of either.

    References:
        Shapley (1959), *The solutions of a symmetric market game*, Contributions to the Theory of Games IV.
    """
    if not is_whole(n_left, 1) or not is_whole(n_right, 1):
        raise ValueError(f"n_left={n_left!r}, n_right={n_right!r}: both must be whole numbers of at least 1")
    n_left, n_right = int(n_left), int(n_right)
    n = n_left + n_right

    def value(coalitions: Tensor) -> Tensor:
        return torch.minimum(coalitions[:, :n_left].sum(dim=1), coalitions[:, n_left:].sum(dim=1)).double()

    def pivotal(own: int, other: int) -> list[int]:
        """In how many coalitions of each size a player with one of ``own`` gloves completes a pair."""
        return [sum(comb(own - 1, a) * comb(other, s - a) for a in range(s + 1) if s - a > a) for s in range(n)]

    counts = [pivotal(n_left, n_right)] * n_left + [pivotal(n_right, n_left)] * n_right
    return KnownGame(f"glove game of {n_left} left and {n_right} right", n, value, _shapley(counts), _banzhaf(counts))


def airport(costs: Sequence[float]) -> KnownGame:
    r"""A runway costs what its most demanding user needs: :math:`v(S) = \max_{i \in S} c_i`.

    All users of a piece of the runway pay the same for it. With players in ascending order of cost and :math:`c_0 = 0`,

    .. math:: \phi_i = \sum_{k=1}^{i} \frac{c_k - c_{k-1}}{n - k + 1}, \qquad \beta_i = \sum_{k=1}^{i} \frac{c_k - c_{k-1}}{2^{n-k}}

    Args:
        costs: c, ``(n,)``, non-negative, in any order and any unit.

    Raises:
        ValueError: If ``costs`` is empty, negative or not finite.

    References:
        Littlechild & Owen (1973), *A simple expression for the Shapley value in a special case*, Management Science 20(3).
    """
    c = _numbers("costs", costs)
    if (c < 0).any():
        raise ValueError(f"costs={c.tolist()}: must not be negative")
    n = len(c)
    order = c.argsort()
    pieces = c[order].diff(prepend=c.new_zeros(1))
    users = torch.arange(n, 0, -1)  # of each piece

    def value(coalitions: Tensor) -> Tensor:
        return torch.where(coalitions, c.to(coalitions.device), 0.0).amax(dim=1)

    def shares(of_piece: Tensor) -> Tensor:
        return torch.empty_like(c).scatter_(0, order, of_piece.cumsum(dim=0))

    return KnownGame(f"airport game of {n} players", n, value, shares(pieces / users), shares(pieces * 2.0 ** (1 - users)))


def weighted_majority(weights: Sequence[int], quota: int) -> KnownGame:
    r"""A coalition wins if its votes reach the quota: :math:`v(S) = 1[\sum_{i \in S} w_i \ge q]`.

    With :math:`d_i(s, x)` the number of coalitions of s others who hold x votes,

    .. math:: \phi_i = \sum_{s=0}^{n-1} \frac{s!\,(n-s-1)!}{n!} \sum_{x=q-w_i}^{q-1} d_i(s, x), \qquad
        \beta_i = 2^{1-n} \sum_{s=0}^{n-1} \sum_{x=q-w_i}^{q-1} d_i(s, x)

    The d are counted by dynamic programming over players, in whole numbers.

    Args:
        weights: w, ``(n,)``, whole numbers from 0.
        quota: q, a whole number from 1.

    Raises:
        ValueError: If weights or quota are not such numbers.

    References:
        Shapley & Shubik (1954), *A method for evaluating the distribution of power in a committee system*, American Political Science
        Review 48(3); Mann & Shapley (1962), RAND RM-3158, for the generating function.
    """
    given = _listed("weights", weights)
    votes = [_whole(w) for w in given]
    if not votes or min(votes) < 0:
        raise ValueError(f"weights={given!r}: must be whole numbers from 0, at least one")
    if (needed := _whole(quota)) < 1:
        raise ValueError(f"quota={quota!r}: must be a whole number from 1, since v(∅) = 0")
    quota = needed
    n = len(votes)
    if sum(votes) * n > MAX_COUNTED:
        raise ValueError(
            f"weights={reprlib.repr(given)}: {sum(votes):,} votes of {n} players are too many to count, more than {MAX_COUNTED:,} // n: "
            "divide weights and quota by a common factor"
        )
    counted = _by_size_and_votes(votes)
    pivotal: dict[int, list[int]] = {}
    for w in set(votes):
        pivotal[w] = [int(row[max(0, quota - w) : quota].sum()) for row in _without(counted, w)]
    counts = [pivotal[w] for w in votes]
    held = torch.tensor(votes, dtype=torch.float64)

    def value(coalitions: Tensor) -> Tensor:
        return (_double(coalitions) @ held.to(coalitions.device) >= quota).double()

    return KnownGame(f"weighted majority game of {n} players, quota {quota} of {sum(votes)}", n, value, _shapley(counts), _banzhaf(counts))


def coverage(sets: Sequence[Collection[int]], weights: Sequence[float]) -> KnownGame:
    r"""Each element counts once, however many players cover it: :math:`v(S) = \sum_e w_e \, 1[\exists i \in S : e \in C_i]`.

    All players who cover an element share it equally. With :math:`k_e` the number of players who cover e,

    .. math:: \phi_i = \sum_{e \in C_i} \frac{w_e}{k_e}, \qquad \beta_i = \sum_{e \in C_i} \frac{w_e}{2^{k_e - 1}}

    The game is submodular for non-negative weights: the more players are there, the less one more adds. So data that others have too earn
    little.

    Args:
        sets: C, for each player the elements that it covers, from 0; a set may be empty.
        weights: w, ``(n_elements,)``, in any unit.

    Raises:
        ValueError: If there is no player, or a set names an element that has no weight.

    References:
        Nemhauser, Wolsey & Fisher (1978), *An analysis of approximations for maximizing submodular set functions*, Mathematical Programming
        14. The airport game is the special case of nested sets.
    """
    w = _numbers("weights", weights)
    sets = _listed("sets", sets)
    if not sets:
        raise ValueError("sets must hold one set a player, got none")
    covers = _members("sets", sets, len(w))  # (n, n_elements)
    k = covers.sum(dim=0)

    def value(coalitions: Tensor) -> Tensor:
        return _double(_single(coalitions) @ _single(covers).to(coalitions.device) > 0) @ w.to(coalitions.device)

    return KnownGame(
        f"coverage of {len(w)} elements by {len(sets)} players",
        len(sets),
        value,
        covers.double() @ (w / k.clamp(min=1)),
        covers.double() @ (w * 2.0 ** (1 - k)),
    )


def saturating(weights: Sequence[float], scale: float, holdings: Sequence[int] | None = None) -> KnownGame:
    r"""Information with diminishing returns, where copies hold the same: :math:`v(S) = 1 - \exp(-\sum_{l \in L(S)} w_l / \text{scale})`.

    L(S) are the lots that somebody in S holds. Let :math:`x_l = e^{-w_l/\text{scale}}`, and let :math:`k_l` be the number of holders of lot
    l. The multilinear extension is a product. So for a player i who holds l

    .. math:: \phi_i = (1 - x_l) \int_0^1 (1-p)^{k_l-1} \prod_{h \ne l} \bigl[(1-p)^{k_h} + (1 - (1-p)^{k_h}) x_h\bigr] dp

    The integrand is a polynomial of degree n − 1, which Gauss's quadrature with ⌈n/2⌉ points integrates without error. β_i is the integrand
    at p = ½. Lots with a negative weight are harmful, and all orders of interaction occur.

    Args:
        weights: w, ``(n_lots,)``, of either sign.
        scale: The information at which all but 1/e of the most that can be gained is gained; in the unit of w, positive.
        holdings: The lot of each player, ``(n,)``, from 0; ``None`` if every player has a lot of its own.

    Raises:
        ValueError: If ``scale`` is not positive, or so small that a worth would be infinite. If a player holds a lot that has no weight.

    References:
        Owen (1972), *Multilinear extensions of games*, Management Science 18(5). Replication as in Han et al. (2022), *Replication robust
        payoff allocation in submodular cooperative games*, IEEE Transactions on Artificial Intelligence.
    """
    w = _numbers("weights", weights)
    if not is_number(scale) or scale <= 0:
        raise ValueError(f"scale={scale!r}: must be a positive number")
    lot_of = list(range(len(w))) if holdings is None else _listed("holdings", holdings)
    if not lot_of:
        raise ValueError("holdings must name one lot a player, got none")
    holds = _members("holdings", [[lot] for lot in lot_of], len(w))  # (n, n_lots)
    n = len(lot_of)
    nodes, node_weights = np.polynomial.legendre.leggauss((n + 1) // 2)
    p = torch.tensor([*((nodes + 1) / 2), 0.5], dtype=torch.float64)[:, None]  # the last is Banzhaf's
    if not (-w.clamp(max=0).sum() / scale).exp().isfinite():
        raise ValueError(f"scale={scale!r} is too small for the negative weights: a worth would be beyond what float64 holds")
    x, k = (-w / scale).exp(), holds.sum(dim=0)
    missing = (1 - p) ** k  # (n_points, n_lots): the chance that nobody holds it
    factor = missing + (1 - missing) * x
    others = torch.stack([torch.cat([factor[:, :lot], factor[:, lot + 1 :]], dim=1).prod(dim=1) for lot in range(len(w))], dim=1)
    integrand = -torch.expm1(-w / scale) * (1 - p) ** (k - 1).clamp(min=0) * others
    of_lot = torch.from_numpy(node_weights / 2) @ integrand[:-1]

    def value(coalitions: Tensor) -> Tensor:
        there = _double(_single(coalitions) @ _single(holds).to(coalitions.device) > 0)
        return -torch.expm1(-(there @ w.to(coalitions.device)) / scale)

    return KnownGame(f"saturating game of {len(w)} lots and {n} players", n, value, of_lot[lot_of], integrand[-1, lot_of])


def random_game(kind: GameKind, n_players: int, seed: int) -> KnownGame:
    """A random instance. The same arguments draw the same one.

    Args:
        kind: ``"saturating"``: about 15 % of the players are harmful, and a quarter hold copies of others' lots. All useful lots together
            are three times the scale. ``"coverage"``: 4n elements, of which each player covers 5 to 30 %. ``"unanimity_sum"``: each single
            player and 4n random coalitions of 2 to 6 players, with standard normal weights. ``"weighted_majority"``: 1 to 20 votes each,
            and a quota of 50 to 70 %.
        n_players: Number of players.
        seed: Seed of the draw, a whole number from 0.

    Raises:
        ValueError: If the kind is unknown, ``n_players`` is not a whole number from 1, or ``seed`` is negative or not whole.
    """
    if kind not in get_args(GameKind):
        raise ValueError(f"kind={kind!r}: must be one of {', '.join(get_args(GameKind))}")
    n, seed = checked_players(n_players), checked_seed(seed)
    generator = np.random.default_rng((seed, n))
    if kind == "saturating":
        known = _random_saturating(n, generator)
    elif kind == "coverage":
        covers = generator.random((n, 4 * n)) < generator.uniform(0.05, 0.3, size=(n, 1))
        known = coverage([np.flatnonzero(row).tolist() for row in covers], generator.exponential(size=4 * n).tolist())
    elif kind == "unanimity_sum":
        alone = [[i] for i in range(n)]
        together = [generator.permutation(n)[: generator.integers(2, 7)].tolist() for _ in range(4 * n)]
        known = unanimity_sum(n, alone + together, generator.normal(size=5 * n).tolist())
    else:
        votes = generator.integers(1, 21, size=n)
        known = weighted_majority(votes.tolist(), max(1, round(float(votes.sum() * generator.uniform(0.5, 0.7)))))
    return _renamed(known, f"{known.name}, seed {seed}")


def _random_saturating(n: int, generator: np.random.Generator) -> KnownGame:
    n_copies = n // 4
    n_lots = n - n_copies
    size = generator.gamma(2.0, size=n_lots)
    harmful = generator.permutation(n_lots)[: round(0.15 * n)]
    useful = np.delete(size, harmful).sum()
    size[harmful] *= -0.5
    holdings = generator.permutation([*range(n_lots), *generator.integers(n_lots, size=n_copies)])
    return saturating(size.tolist(), float(useful / 3), holdings.tolist())


def _renamed(known: KnownGame, name: str) -> KnownGame:
    return KnownGame(name, known.n_players, known.value, known.shapley, known.banzhaf)


def _single(members: Tensor) -> Tensor:
    return members.to(torch.float32)  # head counts are exact in single precision


def _double(members: Tensor) -> Tensor:
    return members.to(torch.float64)


def _listed(name: str, given: Any) -> list[Any]:
    """The entries of a list, or of anything else that has an order and can be gone through."""
    try:
        return list(given)
    except TypeError:
        raise ValueError(f"{name}={given!r}: must be a list") from None


def _numbers(name: str, numbers: Sequence[Any]) -> Tensor:
    given = _listed(name, numbers)
    try:
        found = torch.tensor([nan if isinstance(x, str | bytes) else float(x) for x in given], dtype=torch.float64)
    except (TypeError, ValueError, OverflowError):
        found = torch.empty(0)
    if not len(found) or not found.isfinite().all():
        raise ValueError(f"{name}={given!r}: must be finite numbers, at least one")
    return found


def _whole(number: Any) -> int:
    """A whole number of any type; −1 for anything else."""
    try:
        return int(number) if not isinstance(number, str) and int(number) == number else -1
    except (TypeError, ValueError, OverflowError):
        return -1


def _members(name: str, sets: Sequence[Collection[int]], n_columns: int) -> Tensor:
    """Which of the columns each set names, bool ``(len(sets), n_columns)``."""
    found = torch.zeros(len(sets), n_columns, dtype=torch.bool)
    for row, members in zip(found, sets, strict=True):
        for i in _listed(f"one of {name}", members):
            if not 0 <= (column := _whole(i)) < n_columns:
                raise ValueError(f"{name} names {i!r}: must be a whole number from 0 to {n_columns - 1}")
            row[column] = True
    return found


def _shapley(counts: Sequence[Sequence[int]]) -> Tensor:
    """Shapley values, from the number of coalitions of each size to which each player adds 1, ``(n, n)``; to the others it adds 0."""
    n = len(counts)
    orders = [factorial(s) * factorial(n - s - 1) for s in range(n)]
    exact = {id(of_size): sum(c * o for c, o in zip(of_size, orders, strict=True)) / factorial(n) for of_size in counts}
    return torch.tensor([exact[id(of_size)] for of_size in counts], dtype=torch.float64)


def _banzhaf(counts: Sequence[Sequence[int]]) -> Tensor:
    """Banzhaf values of the same players."""
    return torch.tensor([sum(of_size) / 2 ** (len(counts) - 1) for of_size in counts], dtype=torch.float64)


Counts = NDArray[np.object_]
"""Number of coalitions of each size (row) with so many votes (column), as Python integers, which do not overflow."""


def _by_size_and_votes(votes: Sequence[int]) -> Counts:
    n, total = len(votes), sum(votes)
    counted = np.zeros((n + 1, total + 1), dtype=object)
    counted[0, 0] = 1
    for w in votes:
        joined = counted[:-1, : total + 1 - w].copy()
        counted[1:, w:] += joined
    return counted


def _without(counted: Counts, w: int) -> Iterator[NDArray[np.object_]]:
    """The rows of sizes 0 to n − 1 if a player with w votes had not been counted."""
    row = counted[0]
    for with_player in counted[1:]:
        yield row
        after = with_player.copy()
        after[w:] -= row[: len(row) - w]
        row = after
