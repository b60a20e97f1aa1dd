"""Mechanisms on instances that can be worked out by hand, their draws, and what they must not depend on."""

import itertools
import math
from collections import Counter
from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from proxycoop.envs.admission import (
    MECHANISMS,
    Admission,
    Auction,
    ByGain,
    EqualShares,
    FairLottery,
    Lottery,
    Maximin,
    Mechanism,
    Offers,
    Places,
    Shareable,
    Turns,
    shared_credit,
)
from proxycoop.envs.admission.lotteries import fair_marginals, systematic
from proxycoop.envs.admission.mechanism import ranks
from proxycoop.envs.admission.shareable import components

D = torch.float64
ALL: list[Mechanism] = [
    *(Admission(capacity=1, choose=name).choose for name in MECHANISMS),  # type: ignore[arg-type]
    Auction(exponent=1, rebate="cavallo"),
    Auction(rebate="none"),
    EqualShares(utilities="approval", complete=False),
]


def offers(candidates: list[list[int]], n_envs: int = 1, **parts: list | Tensor | int) -> Offers:
    """One instance, as often as there are environments, with a key of its own each."""
    present = torch.tensor(candidates, dtype=torch.bool).expand(n_envs, -1, -1)
    given = {
        name: torch.tensor(part, dtype=D).expand(n_envs, *torch.tensor(part).shape)
        for name, part in parts.items()
        if isinstance(part, list)
    }
    other = {name: part for name, part in parts.items() if not isinstance(part, list)}
    empty = {
        "gain": None, "wants": None, "likeness": None, "bids": None, "t": 0,
        "taken": torch.zeros(present.shape[:2], dtype=torch.long), "keys": torch.arange(n_envs),
    }  # fmt: skip
    if "taken" in given:
        given["taken"] = given["taken"].long()
    return Offers(present, **(empty | given | other))  # type: ignore[arg-type]


def random_offers(seed: int, n_envs: int = 20, n: int = 4, u: int = 3, dtype: torch.dtype = D) -> Offers:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=D).to(dtype)

    direction = torch.nn.functional.normalize(normal(n_envs, n * u, 3), dim=-1)
    return Offers(
        candidates=torch.rand(n_envs, n, u, generator=generator) < 0.8,
        gain=normal(n_envs, n, u),
        wants=normal(n_envs, n, n, u),
        likeness=direction @ direction.mT,
        bids=normal(n_envs, n).abs(),
        taken=torch.randint(0, 4, (n_envs, n), generator=generator),
        keys=torch.randint(-(2**62), 2**62, (n_envs,), generator=generator),
        t=seed,
    )


def admitted(places: Places, e: int = 0) -> list[list[int]]:
    return places.admitted[e].int().tolist()


def test_ranks_sort_by_the_first_key_then_the_next_then_the_position() -> None:
    first, second = torch.tensor([[1, 0, 1, 0, 1]]), torch.tensor([[2.0, 5.0, 1.0, 5.0, 2.0]])
    assert ranks(first, second).tolist() == [[3, 0, 2, 1, 4]]


@pytest.mark.parametrize("mechanism", ALL, ids=repr)
def test_all_candidates_are_admitted_where_there_is_room(mechanism: Mechanism) -> None:
    some = random_offers(1)
    for capacity in (12, 13):
        places = mechanism.choose(capacity, some)
        assert torch.equal(places.admitted, some.candidates)
        if places.payments is not None:
            assert (places.payments == 0).all()
        if places.marginals is not None:
            assert torch.allclose(places.marginals, some.candidates.double(), atol=1e-12, rtol=0)
    exactly = replace(some, candidates=torch.zeros_like(some.candidates).index_fill(1, torch.tensor([1, 3]), True))
    assert torch.equal(mechanism.choose(6, exactly).admitted, exactly.candidates)


@pytest.mark.parametrize("mechanism", ALL, ids=repr)
def test_nothing_is_admitted_where_nothing_is_offered(mechanism: Mechanism) -> None:
    some = random_offers(2)
    places = mechanism.choose(3, replace(some, candidates=torch.zeros_like(some.candidates)))
    assert not places.admitted.any()
    assert places.payments is None or (places.payments == 0).all()
    assert places.marginals is None or (places.marginals == 0).all()
    assert places.kinds is None or (places.kinds == -1).all()


@pytest.mark.parametrize("mechanism", ALL, ids=repr)
def test_an_environment_is_answered_as_if_it_were_alone(mechanism: Mechanism) -> None:
    some = random_offers(3)
    whole = mechanism.choose(5, some)
    for e in range(len(some.candidates)):
        parts = {field.name: getattr(some, field.name) for field in fields(some)}
        alone = mechanism.choose(5, Offers(**{name: part[e : e + 1] if isinstance(part, Tensor) else part for name, part in parts.items()}))
        for field in fields(whole):
            expected, found = getattr(whole, field.name), getattr(alone, field.name)
            assert expected is found is None or torch.equal(expected[e : e + 1], found)


@pytest.mark.parametrize("mechanism", ALL, ids=repr)
def test_what_is_no_candidate_is_not_read(mechanism: Mechanism) -> None:
    some = random_offers(4)
    absent = ~some.candidates
    assert some.gain is not None
    assert some.wants is not None
    assert some.likeness is not None
    spoilt = replace(
        some,
        gain=some.gain.masked_fill(absent, math.nan),
        wants=some.wants.masked_fill(absent[:, None], math.inf),
        likeness=some.likeness.masked_fill(absent.flatten(1)[:, None], math.nan),
    )
    for field in fields(Places):
        expected, found = (getattr(mechanism.choose(4, one), field.name) for one in (some, spoilt))
        assert expected is found is None or torch.equal(expected, found)


@pytest.mark.parametrize("mechanism", ALL, ids=repr)
def test_single_precision_is_taken(mechanism: Mechanism) -> None:
    single, double = random_offers(5, dtype=torch.float32), random_offers(5)
    same = mechanism.choose(4, single).admitted == mechanism.choose(4, double).admitted
    assert same.all(dim=2).all(dim=1).double().mean() >= 0.95  # a cosine may fall on the other side of the threshold


def test_a_lottery_draws_every_set_equally_often_and_anew_each_round() -> None:
    n = 30_000
    some = offers([[1, 1], [0, 1], [1, 0]], n)
    places = Lottery().choose(2, some)
    sets = Counter(tuple(map(tuple, one.nonzero().tolist())) for one in places.admitted[:6000])
    assert len(sets) == 6
    assert max(abs(number - 1000) for number in sets.values()) < 5 * math.sqrt(1000)
    assert places.marginals is not None
    assert places.marginals[0].tolist() == [[0.5, 0.5], [0.0, 0.5], [0.5, 0.0]]
    assert ((places.admitted.double().mean(dim=0) - places.marginals[0]).abs() < 5 * 0.5 / math.sqrt(n)).all()
    again = Lottery().choose(2, replace(some, t=1)).admitted
    assert (again == places.admitted).all(dim=2).all(dim=1).double().mean() == pytest.approx(1 / 6, abs=0.02)


def test_by_gain_breaks_ties_in_item_order_and_admits_losses_where_there_is_room() -> None:
    some = offers([[1, 1], [1, 1], [1, 0]], gain=[[1.0, -2.0], [3.0, 1.0], [1.0, 9.0]])
    assert admitted(ByGain().choose(1, some)) == [[0, 0], [1, 0], [0, 0]]
    assert admitted(ByGain().choose(2, some)) == [[1, 0], [1, 0], [0, 0]]
    assert admitted(ByGain().choose(3, some)) == [[1, 0], [1, 1], [0, 0]]
    assert admitted(ByGain().choose(5, some)) == [[1, 1], [1, 1], [1, 0]]
    assert admitted(ByGain().choose(1, replace(some, gain=torch.full((1, 3, 2), math.nan)))) == [[1, 0], [0, 0], [0, 0]]


def test_turns_go_round_move_on_and_continue_where_they_stopped() -> None:
    some = offers([[1, 1, 1], [0, 1, 0], [1, 0, 1]])
    assert admitted(Turns().choose(2, some)) == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert admitted(Turns().choose(2, replace(some, t=1))) == [[0, 0, 0], [0, 1, 0], [1, 0, 0]]
    assert admitted(Turns().choose(2, replace(some, t=5))) == [[1, 0, 0], [0, 0, 0], [1, 0, 0]]  # the third begins
    assert admitted(Turns().choose(5, some)) == [[1, 1, 0], [0, 1, 0], [1, 0, 1]]  # the second has nothing for its next turn
    later = replace(some, taken=torch.tensor([[2, 7, 1]]))
    assert admitted(Turns().choose(4, later)) == [[1, 0, 1], [0, 1, 0], [0, 0, 1]]


def test_with_one_place_and_as_many_lots_as_principals_every_lot_has_its_turn() -> None:
    some, sent = offers([[1] * 3] * 3), torch.zeros(1, 3, 3, dtype=torch.long)
    for t in range(9):
        sent = sent + Turns().choose(1, replace(some, taken=sent.sum(dim=2), t=t)).admitted
    assert (sent == 1).all()


def test_maximin_gives_rights_first_then_to_who_had_the_fewest() -> None:
    some = offers([[1, 1, 1], [1, 1, 1]], gain=[[9.0, 8.0, 7.0], [1.0, 3.0, 2.0]])
    assert admitted(Maximin().choose(4, some)) == [[1, 1, 0], [0, 1, 1]]
    assert admitted(Maximin().choose(3, some)) == [[1, 1, 0], [0, 1, 0]]
    assert admitted(Maximin().choose(3, replace(some, t=1))) == [[1, 0, 0], [0, 1, 1]]  # ties by rotation
    assert admitted(Maximin().choose(3, replace(some, taken=torch.tensor([[5, 4]])))) == [[1, 0, 0], [0, 1, 1]]
    assert admitted(Maximin().choose(3, replace(some, taken=torch.tensor([[0, 99]])))) == [[1, 1, 0], [0, 1, 0]]  # a right is a right
    few = replace(some, candidates=torch.tensor([[[True, True, True], [False, False, True]]]))
    assert admitted(Maximin().choose(4, few)) == [[1, 1, 1], [0, 0, 1]]


def test_maximin_without_gains_takes_item_order() -> None:
    assert admitted(Maximin().choose(3, offers([[0, 1, 1], [1, 1, 1]]))) == [[0, 1, 1], [1, 0, 0]]


def test_equal_shares_represent_a_minority_that_the_sum_would_leave_out() -> None:
    # Two principals want the first three updates, the third wants the last one.
    wants = torch.tensor([[1.0, 1, 1, -1], [1, 1, 1, -1], [-1, -1, -1, 1]], dtype=D)
    some = offers([[1, 1], [1, 1], [0, 0]], wants=torch.cat([wants.reshape(3, 2, 2), torch.zeros(3, 1, 2, dtype=D)], dim=1)[None])
    for utilities in ("approval", "cardinal"):
        for complete in (True, False):
            places = EqualShares(utilities=utilities, complete=complete).choose(3, some)  # type: ignore[arg-type]
            assert admitted(places) == [[1, 1], [0, 1], [0, 0]]


def test_equal_shares_pay_in_proportion_to_utility_and_leave_what_nobody_can_pay() -> None:
    # Each has 1. The first update costs them 3/4 and 1/4; then 1/4 and 3/4 are left, and the second and third are wanted by one each.
    wants = torch.zeros(1, 2, 2, 2, dtype=D)
    wants[0, 0, 0], wants[0, 1, 0] = torch.tensor([3.0, 2.0]), torch.tensor([1.0, 0.0])
    wants[0, 1, 1, 0] = 2.5
    some = offers([[1, 1], [1, 0]], wants=wants)
    assert admitted(EqualShares(complete=False).choose(2, some)) == [[1, 0], [0, 0]]
    assert admitted(EqualShares().choose(2, some)) == [[1, 0], [1, 0]]  # a total utility of 2.5 is above 2
    assert admitted(EqualShares(complete=False).choose(2, replace(some, wants=wants * 1e-200))) == [[1, 0], [0, 0]]
    assert admitted(EqualShares(complete=False).choose(2, replace(some, wants=wants * 1e200))) == [[1, 0], [0, 0]]


def test_equal_shares_of_many_principals_are_paid_in_spite_of_rounding() -> None:
    for n in (3, 7, 11, 49):  # 1/n + 1/n + … is not 1 in binary
        wants = torch.ones(1, n, n, 1, dtype=D)
        assert EqualShares(complete=False).choose(n - 1, offers([[1]] * n, wants=wants)).admitted.sum() == n - 1


def test_a_fair_lottery_spreads_fills_up_and_owes_no_strong_share() -> None:
    # Of four principals two approve the first candidate alone, the others all six others: 2/4 for it, and 2 · 4/4/6 for each other.
    wants = -torch.ones(1, 4, 4, 2, dtype=D)
    flat = wants.view(4, 8)
    flat[:2, 0] = flat[2:, 1:7] = 1.0
    some = offers([[1, 1], [1, 1], [1, 1], [1, 0]], 20_000, wants=wants.expand(20_000, -1, -1, -1))
    places = FairLottery().choose(4, some)
    assert places.marginals is not None
    assert places.marginals[0].flatten().tolist() == pytest.approx([4 / 7] * 7 + [0.0], abs=1e-12)  # the water is above both
    assert (places.admitted.sum(dim=(1, 2)) == 4).all()
    assert ((places.admitted.double().mean(dim=0) - places.marginals[0]).abs() < 5 * 0.5 / math.sqrt(20_000)).all()
    flat[0, 0] = flat[2, :] = -1.0
    less = FairLottery().choose(4, replace(some, wants=wants.expand(20_000, -1, -1, -1)))
    assert less.marginals is not None
    one_each = [1 / 4, *[1 / 6] * 6]  # given
    assert sum(max(p, 4 / 7) for p in one_each) == pytest.approx(4)
    assert less.marginals[0].flatten()[:7].tolist() == pytest.approx([4 / 7] * 7)


def test_a_fair_lottery_leaves_a_share_that_is_above_the_water() -> None:
    wants = -torch.ones(1, 2, 2, 2, dtype=D)
    wants[0, :, 0, 0] = 1.0  # both approve the first alone, and give it 1/2 each
    places = FairLottery().choose(2, offers([[1, 1], [1, 1]], 500, wants=wants.expand(500, -1, -1, -1)))
    assert places.marginals is not None
    assert places.marginals[0].flatten().tolist() == pytest.approx([1, 1 / 3, 1 / 3, 1 / 3])
    assert places.admitted[:, 0, 0].all()


def test_systematic_sampling_picks_by_hand_and_always_as_many() -> None:
    p = torch.tensor([[0.5, 1.0, 0.25, 0.25]], dtype=D)
    for start, order, picked in (
        (0.3, [0, 1, 2, 3], [0, 1]),
        (0.6, [0, 1, 2, 3], [1, 2]),
        (0.9, [0, 1, 2, 3], [1, 3]),
        (0.3, [2, 3, 0, 1], [1, 3]),
    ):
        drawn = systematic(p, torch.tensor([2]), torch.tensor([order]), torch.tensor([start], dtype=D))
        assert drawn[0].nonzero().flatten().tolist() == picked
    generator = torch.Generator().manual_seed(0)
    for n, places in ((60, 7), (61, 59), (5, 1)):
        approves = torch.rand(5000, 7, n, generator=generator) < 0.1
        approves[:, :, 0] = True
        p = fair_marginals(places, torch.ones(5000, n, dtype=torch.bool), approves)
        order = torch.rand(5000, n, generator=generator).argsort(dim=1)
        drawn = systematic(p, torch.full((5000,), places), order, torch.rand(5000, generator=generator, dtype=D))
        assert (drawn.sum(dim=1) == places).all()
        assert drawn[p > 1 - 1e-12].all()


def test_one_place_is_sold_to_the_highest_bid_at_the_second_and_bailey_and_cavallo_return_the_third() -> None:
    some = offers([[1], [1], [1], [1]], bids=[3.0, 8.0, 5.0, 2.0])
    net = [-3 / 4, 5 - 3 / 4, -3 / 4, -5 / 4]  # without the first or the last, 5 is paid; without the two highest bids, 3
    net[0] = -5 / 4
    for rebate, expected in (("bailey", net), ("cavallo", net), ("none", [0.0, 5.0, 0.0, 0.0])):
        places = Auction(rebate=rebate).choose(1, some)  # type: ignore[arg-type]
        assert admitted(places) == [[0], [1], [0], [0]]
        assert places.payments is not None
        assert places.payments[0].tolist() == pytest.approx(expected)


def test_bids_are_compared_by_size_and_a_bid_that_does_not_fit_is_skipped() -> None:
    some = offers([[1, 1, 1, 1], [1, 0, 0, 0], [1, 1, 0, 0]], bids=[6.0, 2.9, 4.0])
    by_root, by_bid, by_place = (Auction(exponent=x, rebate="none").choose(4, some) for x in (0.5, 0.0, 1.0))
    assert [one.admitted[0].any(dim=1).tolist() for one in (by_root, by_bid, by_place)] == [
        [True, False, False],
        [True, False, False],
        [False, True, True],
    ]
    prices = [one.payments[0].tolist() for one in (by_root, by_bid, by_place) if one.payments is not None]
    assert prices[0] == pytest.approx([max(2 * 2.9, 2 * 4 / math.sqrt(2)), 0, 0])
    assert prices[1] == pytest.approx([4, 0, 0])
    assert prices[2] == pytest.approx([0, 0, 0])  # without either, the other still leaves no room for the first, and room for it


def test_ties_of_bids_go_round_and_zero_bids_win_where_there_is_room() -> None:
    tied = offers([[1], [1], [1]], bids=[1.0, 1.0, 1.0])
    for t in range(4):
        places = Auction(rebate="none").choose(1, replace(tied, t=t))
        assert places.admitted[0, :, 0].nonzero().item() == t % 3
        assert places.payments is not None
        assert places.payments[0].tolist() == [float(i == t % 3) for i in range(3)]
    zero = Auction().choose(3, offers([[1, 1], [1, 0], [1, 1]], bids=[0.0, 4.0, 0.0]))
    assert admitted(zero) == [[1, 1], [1, 0], [0, 0]]
    assert zero.payments is not None
    assert (zero.payments == 0).all()


def test_baileys_rebates_can_exceed_the_revenue_and_cavallos_cannot() -> None:
    some = offers([[1, 1], [1, 0], [1, 0]], bids=[4.0, 5.0, 6.0])
    bailey, cavallo = (Auction(exponent=0, rebate=rebate).choose(2, some) for rebate in ("bailey", "cavallo"))  # type: ignore[arg-type]
    assert admitted(bailey) == admitted(cavallo) == [[0, 0], [1, 0], [1, 0]]
    assert bailey.payments is not None
    assert cavallo.payments is not None
    assert bailey.payments[0].tolist() == pytest.approx(
        [0, -4 / 3, -4 / 3]
    )  # alone, either small one would pay 4; together they pay nothing
    assert cavallo.payments[0].tolist() == [0, 0, 0]


def test_copies_of_an_update_get_one_place_before_others_have_theirs_and_share_its_credit() -> None:
    n = 6000
    likeness = torch.eye(4, dtype=D)
    likeness[:3, :3] = 0.95
    some = offers([[1], [1], [1], [1]], n, gain=[[1.0], [5.0], [2.0], [3.0]], likeness=likeness.tolist())
    places = Shareable().choose(2, some)
    assert places.kinds is not None
    assert places.kinds[0, :, 0].tolist() == [0, 0, 0, 3]
    assert places.admitted[:, 3].all()
    assert (places.admitted[:, :3].sum(dim=(1, 2)) == 1).all()
    assert ((places.admitted[:, :3, 0].double().mean(dim=0) - 1 / 3).abs() < 5 * math.sqrt(2 / 9 / n)).all()
    assert Shareable().choose(1, some).admitted[:, 3].sum() == 0  # the best of the three copies gains more
    assert Shareable().choose(1, replace(some, gain=None)).admitted[:, 3].sum() == 0  # in item order
    assert (Shareable().choose(3, some).admitted[:, :3].sum(dim=(1, 2)) == 2).all()
    apart = Shareable(similarity=0.96).choose(2, some)
    assert admitted(apart) == [[0], [1], [0], [1]]

    credit = torch.where(places.admitted, some.gain if some.gain is not None else 0.0, 0.0)
    shared = shared_credit(credit, places.kinds, some.candidates)
    assert torch.allclose(shared[:, :3, 0], (credit[:, :3].sum(dim=(1, 2)) / 3)[:, None].expand(-1, 3))
    assert torch.equal(shared[:, 3], credit[:, 3])


def test_shared_credit_counts_agents_and_not_copies() -> None:
    candidates = torch.tensor([[[True, True], [True, False], [False, True]]])
    kinds = torch.tensor([[[0, 0], [0, -1], [-1, 5]]])
    credit = torch.tensor([[[6.0, 0.0], [0.0, 7.0], [0.0, 2.0]]], dtype=D)
    assert shared_credit(credit, kinds, candidates).tolist() == [[[1.5, 1.5], [3.0, 7.0], [0.0, 2.0]]]


def test_a_chain_of_similar_updates_is_one_kind() -> None:
    n = 9
    linked = torch.zeros(2, n, n, dtype=torch.bool)
    for a, b in itertools.pairwise([8, 0, 7, 1, 6, 2, 5]):
        linked[0, a, b] = True
    assert components(linked).tolist() == [[0, 0, 0, 3, 4, 0, 0, 0, 0], list(range(n))]
