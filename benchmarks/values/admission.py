"""Whether the mechanisms of admission keep what they guarantee, on random instances, against slow definitions.

Every mechanism answers in batches; the definitions here are loops over one instance at a time. Instances have two to five principals with
one to four updates each, and some places fewer than updates. In half of them bids, gains and wants are multiples of 1/4, so that there are
ties. The second table says what the rebates of the auction cost: *deficit* is the share of instances in which they sum to more than the
revenue.

Run: ``python benchmarks/values/admission.py [--instances 10000] [--markdown FILE]``; two minutes on one core.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from proxycoop.envs.admission import (
    Auction,
    ByGain,
    EqualShares,
    FairLottery,
    Lottery,
    Maximin,
    Offers,
    Places,
    Shareable,
    Turns,
    shared_credit,
)
from proxycoop.envs.admission.auction import sales
from proxycoop.envs.admission.lotteries import systematic
from proxycoop.envs.admission.mechanism import seats
from proxycoop.files import write_text

SHAPES = [(2, 1), (2, 2), (2, 4), (3, 1), (3, 2), (3, 3), (4, 1), (4, 2), (5, 1), (5, 2)]
BATCHES_OF_A_SHAPE = 4
EPS = 1e-9

Found = dict[str, list[bool]]
"""For each claim, whether each instance violates it."""


def random_offers(seed: int, n_envs: int, n: int, u: int, *, ties: bool, present: float = 0.8) -> Offers:
    """Random offers of n principals with u updates each."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        drawn = torch.randn(*shape, generator=generator, dtype=torch.float64)
        return (4 * drawn).round() / 4 if ties else drawn

    directions = torch.nn.functional.normalize(torch.randn(n_envs, n * u, 3, generator=generator, dtype=torch.float64), dim=-1)
    return Offers(
        candidates=torch.rand(n_envs, n, u, generator=generator) < present,
        gain=normal(n_envs, n, u),
        wants=normal(n_envs, n, n, u),
        likeness=directions @ directions.transpose(1, 2),
        bids=normal(n_envs, n).abs(),
        taken=torch.randint(0, 4, (n_envs, n), generator=generator),
        keys=torch.randint(-(2**62), 2**62, (n_envs,), generator=generator),
        t=seed % 7,
    )


def batches(instances: int, seed: int) -> Iterator[tuple[int, Offers]]:
    """Numbers of places with offers, about as many instances in all."""
    shapes = SHAPES * BATCHES_OF_A_SHAPE
    for b, (n, u) in enumerate(shapes):
        capacity = 1 + torch.randint(0, n * u - 1, (), generator=torch.Generator().manual_seed(seed + b)).item() if n * u > 2 else 1
        yield int(capacity), random_offers(seed + b, -(-instances // len(shapes)), n, u, ties=b // len(SHAPES) % 2 == 1)


def listed(chosen: Tensor) -> list[set[tuple[int, int]]]:
    """The updates (i, u) that are chosen in each environment."""
    return [{(int(i), int(u)) for i, u in one.nonzero().tolist()} for one in chosen]


def counted(capacity: int, offers: Offers, places: Places) -> list[bool]:
    """Whether something else than min(B, candidates) candidates is admitted."""
    wrong = places.admitted.sum(dim=(1, 2)) != offers.candidates.sum(dim=(1, 2)).clamp(max=capacity)
    return (wrong | (places.admitted & ~offers.candidates).any(dim=2).any(dim=1)).tolist()


def of_lottery(capacity: int, offers: Offers) -> Found:
    """Numbers, and probabilities."""
    places = Lottery().choose(capacity, offers)
    assert places.marginals is not None
    wrong = []
    for marginals, candidates in zip(places.marginals, listed(offers.candidates), strict=True):
        wanted = {lot: min(1.0, capacity / len(candidates)) for lot in candidates}
        n, u = marginals.shape
        wrong.append(any(abs(float(marginals[i, k]) - wanted.get((i, k), 0.0)) > EPS for i in range(n) for k in range(u)))
    return {"min(B, candidates) are admitted": counted(capacity, offers, places), "each has the same probability": wrong}


def of_by_gain(capacity: int, offers: Offers) -> Found:
    """Against all sets of as many candidates."""
    places = ByGain().choose(capacity, offers)
    assert offers.gain is not None
    worse = []
    for candidates, admitted, gain in zip(listed(offers.candidates), listed(places.admitted), offers.gain.tolist(), strict=True):
        most = max(sum(gain[i][u] for i, u in some) for some in itertools.combinations(candidates, min(capacity, len(candidates))))
        worse.append(sum(gain[i][u] for i, u in admitted) < most - EPS)
    return {"min(B, candidates) are admitted": counted(capacity, offers, places), "no set has a larger gain": worse}


def dealt_by_turns(capacity: int, candidates: set[tuple[int, int]], taken: list[int], t: int) -> set[tuple[int, int]]:
    """Turns, one after another."""
    n = len(taken)
    queues = []
    for i in range(n):
        own = sorted(lot for lot in candidates if lot[0] == i)
        start = taken[i] % len(own) if own else 0
        queues.append(own[start:] + own[:start])
    chosen: set[tuple[int, int]] = set()
    turn = t
    while len(chosen) < min(capacity, len(candidates)):
        if queues[turn % n]:
            chosen.add(queues[turn % n].pop(0))
        turn += 1
    return chosen


def uneven(admitted: set[tuple[int, int]], candidates: set[tuple[int, int]], n: int) -> bool:
    """Whether somebody who had more to send has two places fewer than another."""
    got = [sum(i == j for i, _ in admitted) for j in range(n)]
    offered = [sum(i == j for i, _ in candidates) for j in range(n)]
    return any(got[i] < offered[i] and got[i] < got[j] - 1 for i in range(n) for j in range(n))


def of_turns(capacity: int, offers: Offers) -> Found:
    """Against turns one after another; what everybody gets; and the turns of each lot over an episode."""
    places = Turns().choose(capacity, offers)
    n = offers.taken.shape[1]
    listed_candidates, admitted = listed(offers.candidates), listed(places.admitted)
    slow = [
        dealt_by_turns(capacity, candidates, taken, offers.t)
        for candidates, taken in zip(listed_candidates, offers.taken.tolist(), strict=True)
    ]
    sent = torch.zeros_like(offers.candidates, dtype=torch.long)
    for t in range(9):
        sent = sent + Turns().choose(capacity, replace(offers, taken=sent.sum(dim=2), t=t)).admitted
    most = torch.where(offers.candidates, sent, -1).amax(dim=2)
    least = torch.where(offers.candidates, sent, 10).amin(dim=2)
    return {
        "min(B, candidates) are admitted": counted(capacity, offers, places),
        "as if dealt one by one": [fast != by_hand for fast, by_hand in zip(admitted, slow, strict=True)],
        "places of those who had more differ by at most 1": [uneven(a, c, n) for a, c in zip(admitted, listed_candidates, strict=True)],
        "turns of a principal's lots differ by at most 1": (most > least + 1).any(dim=1).tolist(),
    }


def partitions(total: int, parts: int, most: int) -> Iterator[list[int]]:
    """All ways to write a number as a sum of so many, in descending order."""
    if parts == 0:
        if total == 0:
            yield []
        return
    for one in range(min(total, most), -1, -1):
        for rest in partitions(total - one, parts - 1, one):
            yield [one, *rest]


def maximin_share(capacity: int, n: int, gains: list[float]) -> float:
    """The worst bundle of the best partition of the places, by the definition."""

    def worth(k: int) -> float:
        return sum(sorted((max(0.0, gain) for gain in gains), reverse=True)[:k])

    return max(min(worth(k) for k in sizes) for sizes in partitions(capacity, n, capacity))


def dealt_by_right(
    capacity: int, candidates: set[tuple[int, int]], gain: list[list[float]], taken: list[int], t: int
) -> set[tuple[int, int]]:
    """Maximin shares, then one place after another to who has the fewest."""
    n = len(taken)
    queues = [sorted((lot for lot in candidates if lot[0] == i), key=lambda lot: (-gain[lot[0]][lot[1]], lot)) for i in range(n)]
    chosen: list[tuple[int, int]] = []
    has = list(taken)
    for i in range(n):
        for _ in range(min(capacity // n, len(queues[i]))):
            chosen.append(queues[i].pop(0))
            has[i] += 1
    while len(chosen) < capacity and any(queues):
        i = min((i for i in range(n) if queues[i]), key=lambda i: (has[i], (i - t) % n))
        chosen.append(queues[i].pop(0))
        has[i] += 1
    return set(chosen)


def of_maximin(capacity: int, offers: Offers) -> Found:
    """Against a search of all partitions, dealing one by one, and the totals of an episode."""
    places = Maximin().choose(capacity, offers)
    assert offers.gain is not None
    n, n_updates = offers.candidates.shape[1:]
    short, other = [], []
    for candidates, admitted, gain, taken in zip(
        listed(offers.candidates), listed(places.admitted), offers.gain.tolist(), offers.taken.tolist(), strict=True
    ):
        other.append(admitted != dealt_by_right(capacity, candidates, gain, taken, offers.t))
        share = [maximin_share(capacity, n, [gain[j][u] for j, u in candidates if j == i]) for i in range(n)]
        has = [sum(max(0.0, gain[j][u]) for j, u in admitted if j == i) for i in range(n)]
        short.append(any(has[i] < share[i] - EPS for i in range(n)))
    found = {
        "min(B, candidates) are admitted": counted(capacity, offers, places),
        "everybody has its maximin share": short,
        "as if dealt one by one": other,
    }
    total = torch.zeros_like(offers.taken)
    spread, all_want_more = torch.zeros_like(total[:, 0]), True
    for t in range(9):
        got = Maximin().choose(capacity, replace(offers, candidates=torch.ones_like(offers.candidates), taken=total, t=t))
        all_want_more = all_want_more and bool((got.admitted.sum(dim=2) < n_updates).all())
        total = total + got.admitted.sum(dim=2)
        spread = torch.maximum(spread, total.amax(dim=1) - total.amin(dim=1))
    if all_want_more:
        found["totals differ by at most 1 while all want more"] = (spread > 1).tolist()
    return found


def dearest(budget: dict[int, Fraction], utility: dict[int, Fraction]) -> Fraction | None:
    """The least price per utility at which an update is affordable: its supporters are added one by one to those who pay all they have."""
    supporters = sorted((j for j in utility if utility[j] > 0), key=lambda j: budget[j] / utility[j])
    if sum(budget[j] for j in supporters) < 1:
        return None
    for k, j in enumerate(supporters):
        price = (1 - sum((budget[i] for i in supporters[:k]), Fraction(0))) / sum((utility[i] for i in supporters[k:]), Fraction(0))
        if price * utility[j] <= budget[j]:
            return price
    raise AssertionError("affordable at no price, although there is money enough")


def slow_equal_shares(capacity: int, utilities: list[dict[int, Fraction]], n: int) -> list[int]:
    """The method of equal shares in exact fractions: the updates that are paid for."""
    budget = {j: Fraction(capacity, n) for j in range(n)}
    chosen: list[int] = []
    while True:
        prices = {c: dearest(budget, u) for c, u in enumerate(utilities) if c not in chosen}
        affordable = {c: price for c, price in prices.items() if price is not None}
        if not affordable:
            return chosen
        c = min(affordable, key=lambda c: (affordable[c], c))
        budget = {j: budget[j] - min(budget[j], affordable[c] * utilities[c][j]) for j in budget}
        chosen.append(c)


def breaks_ejr(capacity: int, utilities: list[dict[int, Fraction]], n: int, chosen: set[int], *, up_to_one: bool) -> bool:
    """Whether some group of principals has less than it could demand, by all groups. Demands with fewer updates are implied."""
    for size in range(1, n + 1):
        for group in itertools.combinations(range(n), size):
            common = sorted((min(u[j] for j in group) for u in utilities), reverse=True)
            demand = sum(common[: capacity * size // n], Fraction(0))
            if demand == 0:
                continue
            satisfied = False
            for j in group:
                has = sum((utilities[c][j] for c in chosen), Fraction(0))
                more = max((utilities[c][j] for c in range(len(utilities)) if c not in chosen), default=Fraction(0))
                satisfied |= has >= demand or (up_to_one and has + more > demand)
            if not satisfied:
                return True
    return False


def of_equal_shares(capacity: int, offers: Offers) -> Found:
    """Against exact fractions, and EJR against all groups, before completion."""
    found: Found = {}
    assert offers.wants is not None
    n = offers.taken.shape[1]
    complete = EqualShares().choose(capacity, offers)
    found["min(B, candidates) are admitted"] = counted(capacity, offers, complete)
    for utilities in ("cardinal", "approval"):
        incomplete = listed(EqualShares(utilities=utilities, complete=False).choose(capacity, offers).admitted)
        completed = listed(EqualShares(utilities=utilities).choose(capacity, offers).admitted)
        other, unjust = [], []
        for e, candidates in enumerate(listed(offers.candidates)):
            lots = sorted(candidates)
            wants = offers.wants[e].tolist()
            worth = [{j: Fraction(max(0.0, wants[j][i][u])) for j in range(n)} for i, u in lots]
            if utilities == "approval":
                worth = [{j: Fraction(int(value > 0)) for j, value in one.items()} for one in worth]
            paid = slow_equal_shares(capacity, worth, n)
            rest = sorted((c for c in range(len(lots)) if c not in paid), key=lambda c: (-sum(worth[c].values()), c))
            full = [*paid, *rest][: min(capacity, len(lots))]
            paid = list(range(len(lots))) if len(lots) <= capacity else paid
            other.append(incomplete[e] != {lots[c] for c in paid} or completed[e] != {lots[c] for c in full})
            chosen = {lots.index(lot) for lot in incomplete[e]}
            unjust.append(breaks_ejr(capacity, worth, n, chosen, up_to_one=utilities == "cardinal"))
        found[f"{utilities}: as in exact fractions"] = other
        found[f"{utilities}: EJR{' up to one project' if utilities == 'cardinal' else ''}, before completion"] = unjust
    return found


def slow_fair_marginals(
    capacity: int, approved: list[set[tuple[int, int]]], candidates: set[tuple[int, int]]
) -> dict[tuple[int, int], float]:
    """Spread, then fill up by bisection of the water level."""
    q = dict.fromkeys(candidates, 0.0)
    for wanted in approved:
        for lot in wanted:
            q[lot] += min(capacity, len(wanted)) / len(approved) / len(wanted)
    low, high = 0.0, 1.0
    for _ in range(60):
        level = (low + high) / 2
        filled = sum(max(one, level) for one in q.values())
        low, high = (level, high) if filled < min(capacity, len(q)) else (low, level)
    return {lot: max(one, high) for lot, one in q.items()}


def integrated(places: Places, offers: Offers, capacity: int) -> Tensor:
    """The probabilities of systematic sampling in item order and backwards, integrated exactly over its start: ``(2, E, N·U)``."""
    assert places.marginals is not None
    marginals = places.marginals.flatten(1)
    number = offers.candidates.sum(dim=(1, 2)).clamp(max=capacity)
    c = marginals.shape[1]
    both = []
    for order in (torch.arange(c), torch.arange(c - 1, -1, -1)):
        ends = marginals[:, order].cumsum(dim=1) % 1
        breaks = torch.cat([torch.zeros_like(ends[:, :1]), ends, torch.ones_like(ends[:, :1])], dim=1).sort(dim=1).values
        length, middle = breaks.diff(dim=1), (breaks[:, 1:] + breaks[:, :-1]) / 2
        total = torch.zeros_like(marginals)
        for piece in range(length.shape[1]):
            start = middle[:, piece].clamp(min=1e-12, max=1 - 1e-12)
            drawn = systematic(marginals, number, order.expand_as(marginals), start)
            total = total + drawn * length[:, piece : piece + 1]
        both.append(total)
    return torch.stack(both)


def of_fair_lottery(capacity: int, offers: Offers) -> Found:
    """Marginals against a slow definition, all groups, and the sampling."""
    places = FairLottery().choose(capacity, offers)
    assert places.marginals is not None
    assert offers.wants is not None
    n = offers.taken.shape[1]
    other, unfair = [], []
    for e, candidates in enumerate(listed(offers.candidates)):
        approved = [{lot for lot in candidates if float(offers.wants[e, j, lot[0], lot[1]]) > 0} for j in range(n)]
        p = {lot: float(places.marginals[e, lot[0], lot[1]]) for lot in candidates}
        slow = slow_fair_marginals(capacity, approved, candidates)
        total = float(places.marginals[e].sum())
        other.append(
            any(abs(p[lot] - slow[lot]) > EPS or p[lot] > 1 for lot in candidates) or abs(total - min(capacity, len(candidates))) > EPS
        )
        group_short = False
        for size in range(1, n + 1):
            for group in itertools.combinations(range(n), size):
                union = set().union(*(approved[j] for j in group))
                owed = sum(min(capacity, len(approved[j])) for j in group) / n
                group_short |= sum(p[lot] for lot in union) < owed - EPS
        unfair.append(group_short)
    off = (integrated(places, offers, capacity) - places.marginals.flatten(1)).abs().amax(dim=(0, 2)) > EPS
    return {
        "min(B, candidates) are admitted": counted(capacity, offers, places),
        "marginals as by slow filling": other,
        "group fair share, all groups": unfair,
        "sampling has these marginals, integrated exactly": off.tolist(),
    }


class SlowAuction:
    """The auction of one instance, in loops."""

    def __init__(self, capacity: int, sizes: list[int], bids: list[float], exponent: float, t: int) -> None:
        self.capacity, self.sizes, self.bids, self.exponent, self.t = capacity, sizes, bids, exponent, t

    def score(self, i: int, bids: list[float]) -> float:
        """What the bid of i is compared by."""
        return float(bids[i] / self.sizes[i] ** self.exponent)

    def winners(self, bids: list[float], absent: tuple[int, ...] = ()) -> set[int]:
        """Who wins, by going through the bids."""
        n = len(bids)
        bidders = [i for i in range(n) if self.sizes[i] > 0 and i not in absent]
        left, won = self.capacity, set()
        for i in sorted(bidders, key=lambda i: (-self.score(i, bids), (i - self.t) % n)):
            if self.sizes[i] <= left:
                won.add(i)
                left -= self.sizes[i]
        return won

    def wins_with(self, i: int, bid: float, absent: tuple[int, ...] = ()) -> bool:
        """Whether i would win with some bid."""
        return i in self.winners([bid if j == i else other for j, other in enumerate(self.bids)], absent)

    def critical(self, i: int, absent: tuple[int, ...] = ()) -> float:
        """The least bid with which i wins, by bisection. It wins with its own."""
        low, high = 0.0, self.bids[i]
        if self.wins_with(i, 0.0, absent):
            return 0.0
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (low, middle) if self.wins_with(i, middle, absent) else (middle, high)
        return high

    def points(self, i: int) -> list[float]:
        """The bids of i at which its place in the order can change."""
        others = [j for j in range(len(self.bids)) if j != i and self.sizes[j] > 0]
        return [0.0, *sorted(self.score(j, self.bids) * max(self.sizes[i], 1) ** self.exponent for j in others)]

    def revenue(self, absent: tuple[int, ...] = ()) -> float:
        """What the winners pay together, before rebates: the least of the points from which on each wins."""
        return sum(
            min(point for point in self.points(i) if self.wins_with(i, point * (1 + 1e-12) + 1e-14, absent))
            for i in self.winners(self.bids, absent)
        )

    def revenue_if(self, i: int, bid: float) -> float:
        """The revenue if i bids something else."""
        bids = [bid if j == i else other for j, other in enumerate(self.bids)]
        return SlowAuction(self.capacity, self.sizes, bids, self.exponent, self.t).revenue()

    def rebate(self, i: int, kind: str) -> float:
        """What i gets back."""
        n = len(self.bids)
        if kind == "cavallo":
            return min(self.revenue_if(i, point * (1 + 1e-12) + 1e-14) for point in self.points(i)) / n
        return self.revenue((i,)) / n

    @property
    def tied(self) -> bool:
        """Whether two scores are equal."""
        scores = [self.score(i, self.bids) for i in range(len(self.bids)) if self.sizes[i] > 0]
        return len(set(scores)) < len(scores)


def of_auction(capacity: int, offers: Offers) -> Found:
    """Payments against bisection, every agent against all its other bids, and the budget."""
    found: Found = {}
    for exponent, rebate in ((0.5, "bailey"), (1.0, "bailey"), (0.5, "cavallo")):
        auction = Auction(exponent=exponent, rebate=rebate)
        regrets, falls = deviations(auction, capacity, offers)
        found |= {f"x = {exponent:g}, {rebate}: {claim}": wrong for claim, wrong in sold(auction, capacity, offers).items()}
        found[f"x = {exponent:g}, {rebate}: no bid is better than the truth"] = (regrets > EPS).any(dim=1).tolist()
        found[f"x = {exponent:g}, {rebate}: a higher bid never loses"] = falls.any(dim=1).tolist()
    return found


def deviations(auction: Auction, capacity: int, offers: Offers) -> tuple[Tensor, Tensor]:
    """What each agent gains at most by another bid than the truth, and whether it loses with a higher bid what it wins with a lower one."""
    assert offers.bids is not None
    bids, size = offers.bids, offers.candidates.sum(dim=2)
    places = auction.choose(capacity, offers)
    assert places.payments is not None
    wins = places.admitted.any(dim=2)
    scale = size.clamp(min=1).double() ** auction.exponent
    regrets, falls = torch.zeros_like(bids), torch.zeros_like(bids, dtype=torch.bool)
    for i in range(bids.shape[1]):
        points = (bids / scale) * scale[:, i : i + 1]  # where its place in the order changes
        grid = torch.cat([torch.zeros_like(points[:, :1]), points, points * (1 - 1e-6), points * (1 + 1e-6), points + 10], dim=1)
        value, truthful = bids[:, i], bids[:, i] * wins[:, i] - places.payments[:, i]
        won_before = torch.zeros_like(wins[:, i])
        for bid in grid.sort(dim=1).values.unbind(dim=1):
            instead = bids.clone()
            instead[:, i] = bid
            answer = auction.choose(capacity, replace(offers, bids=instead))
            assert answer.payments is not None
            wins_now = answer.admitted.any(dim=2)[:, i]
            regrets[:, i] = torch.maximum(regrets[:, i], value * wins_now - answer.payments[:, i] - truthful)
            falls[:, i] |= won_before & ~wins_now
            won_before = wins_now
    return regrets, falls


def sold(auction: Auction, capacity: int, offers: Offers) -> Found:
    """Who wins and what all pay, against loops."""
    assert offers.bids is not None
    size, n = offers.candidates.sum(dim=2), offers.taken.shape[1]
    places = auction.choose(capacity, offers)
    assert places.payments is not None
    wins = places.admitted.any(dim=2)
    result = sales(capacity, size, offers.bids, seats(offers.candidates, offers.t), auction.exponent, auction.rebate)
    mispriced, misrebated, other = [], [], []
    for e, (candidates, admitted) in enumerate(zip(listed(offers.candidates), listed(places.admitted), strict=True)):
        slow = SlowAuction(capacity, size[e].tolist(), offers.bids[e].tolist(), auction.exponent, offers.t)
        won = slow.winners(slow.bids)
        other.append(admitted != {lot for lot in candidates if lot[0] in won} or len(admitted) > capacity)
        price = [slow.critical(i) if i in won else 0.0 for i in range(n)]
        mispriced.append(any(abs(price[i] - float(result.price[e, i])) > EPS for i in range(n)))
        above = [float(result.rebate[e, i]) - slow.rebate(i, auction.rebate) for i in range(n)]
        equal = auction.rebate == "bailey" or not slow.tied  # between equal scores there is no place to bid for, but it is counted
        misrebated.append(any(gap > EPS or (equal and gap < -EPS) for gap in above))
    found = {
        "all of an agent's candidates or none, as in loops": other,
        "prices as by bisection": mispriced,
        "rebates as in loops": misrebated,
        "net payments are prices less rebates": ((places.payments - result.price + result.rebate).abs() > EPS).any(dim=1).tolist(),
        "nobody pays more than it bids": (places.payments > offers.bids * wins + EPS).any(dim=1).tolist(),
    }
    if auction.rebate == "cavallo":
        found["rebates sum to the revenue at most"] = (result.rebate.sum(dim=1) > result.price.sum(dim=1) + EPS).tolist()
    return found


def slow_kinds(candidates: set[tuple[int, int]], likeness: Tensor, n_updates: int, similarity: float) -> dict[tuple[int, int], int]:
    """The least index in each candidate's kind, by going from neighbour to neighbour."""
    kinds: dict[tuple[int, int], int] = {}
    for lot in sorted(candidates):
        if lot in kinds:
            continue
        number, reached = lot[0] * n_updates + lot[1], [lot]
        while reached:
            one = reached.pop()
            kinds[one] = number
            reached += [
                other
                for other in candidates
                if other not in kinds and float(likeness[one[0] * n_updates + one[1], other[0] * n_updates + other[1]]) >= similarity
            ]
    return kinds


def of_shareable(capacity: int, offers: Offers) -> Found:
    """Kinds, places of each kind and shared credit against loops."""
    mechanism = Shareable(similarity=0.7)
    places = mechanism.choose(capacity, offers)
    assert places.kinds is not None
    assert offers.gain is not None
    assert offers.likeness is not None
    n, n_updates = offers.candidates.shape[1:]
    credit = torch.where(places.admitted, offers.gain, 0.0)
    shared = shared_credit(credit, places.kinds, offers.candidates)
    other_kinds, other_places, other_credit = [], [], []
    admitted = listed(places.admitted)
    for e, candidates in enumerate(listed(offers.candidates)):
        kinds = slow_kinds(candidates, offers.likeness[e], n_updates, mechanism.similarity)
        fast = {(i, u): int(places.kinds[e, i, u]) for i in range(n) for u in range(n_updates)}
        other_kinds.append(fast != {lot: kinds.get(lot, -1) for lot in fast})
        members = {g: [lot for lot in candidates if kinds[lot] == g] for g in kinds.values()}
        best = {g: max(float(offers.gain[e, i, u]) for i, u in lots) for g, lots in members.items()}
        wanted = dict.fromkeys(members, 0)
        left = min(capacity, len(candidates))
        while left:
            for g in sorted(members, key=lambda g: (-best[g], g)):
                if left and wanted[g] < len(members[g]):
                    wanted[g] += 1
                    left -= 1
        other_places.append(any(sum(lot in admitted[e] for lot in members[g]) != wanted[g] for g in members))
        part = dict.fromkeys(fast, 0.0)
        for lots in members.values():
            owners = {i for i, _ in lots}
            earned = sum(float(credit[e, i, u]) for i, u in lots)
            for i, u in lots:
                part[i, u] = earned / len(owners) / sum(owner == i for owner, _ in lots)
        wrong = any(abs(part[i, u] - float(shared[e, i, u])) > EPS for i, u in fast)
        other_credit.append(wrong or abs(float(shared[e].sum() - credit[e].sum())) > EPS)
    return {
        "min(B, candidates) are admitted": counted(capacity, offers, places),
        "kinds are the connected components": other_kinds,
        "places of kinds as if dealt one by one": other_places,
        "shared credit as by hand, with the same sum": other_credit,
    }


CHECKS: dict[str, Callable[[int, Offers], Found]] = {
    "lottery": of_lottery,
    "by_gain": of_by_gain,
    "turns": of_turns,
    "maximin": of_maximin,
    "equal_shares": of_equal_shares,
    "fair_lottery": of_fair_lottery,
    "auction": of_auction,
    "shareable": of_shareable,
}
"""For each mechanism, what checks its guarantees on a batch of instances."""


def checked(mechanism: str, instances: int, seed: int = 0) -> dict[str, tuple[int, int]]:
    """For each claim about a mechanism: the number of random instances, and how many violate it."""
    sums: dict[str, tuple[int, int]] = {}
    for capacity, offers in batches(instances, seed):
        for claim, violated in CHECKS[mechanism](capacity, offers).items():
            n, bad = sums.get(claim, (0, 0))
            sums[claim] = n + len(violated), bad + sum(violated)
    return sums


def deficits(instances: int) -> list[tuple[str, float, float, float]]:
    """For each kind of auction: the share with a deficit, rebates over revenue, and deficits over revenue, in sums over all instances."""
    generator = torch.Generator().manual_seed(0)
    n, capacity = 6, 8
    worth = torch.rand(instances, n, generator=generator, dtype=torch.float64)
    sizes = {"2 each": torch.full((instances, n), 2), "1 to 4 each": torch.randint(1, 5, (instances, n), generator=generator)}
    rows = []
    for name, exponent, rebate in [
        ("2 each", 0.5, "bailey"),
        *(("1 to 4 each", x, "bailey") for x in (0.0, 0.5, 1.0)),
        *(("1 to 4 each", x, "cavallo") for x in (0.0, 0.5, 1.0)),
    ]:
        size = sizes[name]
        result = sales(capacity, size, worth * size, seats(size[..., None], 0), exponent, rebate)  # type: ignore[arg-type]
        revenue, back = result.price.sum(dim=1), result.rebate.sum(dim=1)
        excess = (back - revenue).clamp(min=0)
        share = (excess > EPS).double().mean()
        rows.append(
            (f"{name}, x = {exponent:g}, {rebate}", float(share), float(back.sum() / revenue.sum()), float(excess.sum() / revenue.sum()))
        )
    return rows


def table(found: dict[str, dict[str, tuple[int, int]]], budget: list[tuple[str, float, float, float]]) -> str:
    """What was checked and what the rebates cost, as two Markdown tables."""
    lines = ["| mechanism | claim | instances | violations |", "|---|---|---:|---:|"]
    for mechanism, claims in found.items():
        lines += [f"| `{mechanism}` | {claim} | {n:,} | {bad} |" for claim, (n, bad) in claims.items()]
    lines += [
        "",
        "| auction of 8 places among 6 agents | instances with a deficit | rebates, share of revenue | deficits, share of revenue |",
        "|---|" + "---:|" * 3,
    ]
    lines += [f"| {name} | {100 * share:.1f} % | {100 * back:.1f} % | {100 * excess:.2f} % |" for name, share, back, excess in budget]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", type=int, default=10_000, help="random instances for each mechanism")
    parser.add_argument("--markdown", type=Path, help="write the tables into this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = {mechanism: checked(mechanism, arguments.instances) for mechanism in tqdm(CHECKS, unit=" mechanisms")}
    text = table(found, deficits(arguments.instances))
    sys.stdout.write(f"\n{text}")
    if arguments.markdown is not None:
        write_text(arguments.markdown, text)


if __name__ == "__main__":
    main()
