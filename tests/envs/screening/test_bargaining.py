"""Bargaining: hand-computed and exhaustive answers, what never gets worse, what the search may not depend on, and its own account."""

import itertools
import math
from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from proxycoop.envs.screening.bargaining import Bargain, Objective, Offers, explain, measures, negotiate

D = torch.float64
WEIGHTS = ["fixed", "participants"]
OBJECTIVES: list[Objective] = ["nash", "worst_off"]


def offers(gain: list[float], harm: list[list[float]], tolerance: list[list[float]], start: list[bool] | None = None, **other) -> Offers:
    """One environment in which each of N principals offers one lot of share 1/N; a row of harm a lot, a row of tolerances a principal."""
    n, m = len(gain), len(tolerance[0])
    made = {
        "candidates": torch.ones(1, n, 1, dtype=torch.bool),
        "start": torch.tensor(start or [False] * n).reshape(1, n, 1),
        "share": torch.full((1, n, 1), 1 / n, dtype=D),
        "gain": torch.tensor(gain, dtype=D).reshape(1, n, 1),
        "harm": torch.tensor(harm, dtype=D).reshape(1, n, 1, m),
        "tolerance": torch.tensor(tolerance, dtype=D).reshape(1, n, m),
        "directions": torch.zeros(1, n, m, dtype=D),
    }
    return Offers(**(made | other))


def random_offers(
    seed: int, n_envs: int = 100, n: int = 4, k: int = 3, m: int = 2, weights: str = "fixed", dtype: torch.dtype = D
) -> Offers:
    """Random instances; half of the tolerances are infinite, a quarter of the principals have directions; the start passes unanimously."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=D).to(dtype)

    def chance(p: float, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator) < p

    candidates = chance(0.8, n_envs, n, k)
    share = normal(n_envs, n, k).abs()
    share = share / share.sum(dim=(1, 2), keepdim=True)
    gain, harm = normal(n_envs, n, k) + 0.3, normal(n_envs, n, k, m)
    tolerance = normal(n_envs, n, m).abs().masked_fill(chance(0.5, n_envs, n, m), math.inf)
    directions = torch.nn.functional.normalize(normal(n_envs, n, m), dim=-1) * chance(0.25, n_envs, n, 1)
    alone = (harm[:, :, :, None] <= tolerance[:, None, None]).all(dim=-1) & (torch.einsum("enkm,ejm->enkj", harm, directions) <= 0)
    start = candidates & alone.all(dim=-1)
    return Offers(candidates, start, share, gain, harm, tolerance, directions, weights)  # type: ignore[arg-type]


def judged(o: Offers, e: int, chosen: set[int]) -> tuple[list[float], bool]:
    """Everybody's satisfaction with a set of lots, and whether it is admissible, by the definition, number by number."""
    n, k, m = o.harm.shape[1:]
    p, gain, harm = (tensor[e].reshape(n * k, -1).tolist() for tensor in (o.share, o.gain, o.harm))
    lots = [lot for lot in range(n * k) if o.candidates[e].flatten()[lot]]
    total = sum(p[lot][0] for lot in chosen) if o.weights == "participants" else 1.0
    g = sum(p[lot][0] * gain[lot][0] for lot in chosen) / total if chosen else 0.0
    h = [sum(p[lot][0] * harm[lot][v] for lot in chosen) / total if chosen else 0.0 for v in range(m)]
    if o.weights == "fixed":
        most = sum(max(0.0, p[lot][0] * gain[lot][0]) for lot in lots)
    else:
        most = max([0.0, *(gain[lot][0] for lot in lots)])
    satisfaction, admissible = [], True
    for tolerance, direction in zip(o.tolerance[e].tolist(), o.directions[e].tolist(), strict=True):
        admissible &= all(h[v] <= tolerance[v] + 1e-5 for v in range(m)) and sum(w * x for w, x in zip(direction, h, strict=True)) <= 1e-5
        used = [max(-1.0, h[v] / tolerance[v]) if tolerance[v] else 0.0 for v in range(m) if math.isfinite(tolerance[v])]
        satisfaction.append(1 + g / (most or 1.0) - (sum(used) / len(used) if used else 0.0))
    return satisfaction, admissible


def valued(satisfaction: list[float], objective: Objective) -> float:
    if objective == "worst_off":
        return min(satisfaction)
    return sum(map(math.log, satisfaction)) if min(satisfaction) > 0 else -math.inf


def admitted_lots(bargain: Bargain, e: int) -> set[int]:
    return set(bargain.admitted[e].flatten().nonzero()[:, 0].tolist())


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("weights", WEIGHTS)
def test_it_is_admissible_and_never_worse_than_unanimity_or_nothing_on_100_instances(objective: Objective, weights: str) -> None:
    o = random_offers(1, weights=weights)
    bargain = negotiate(o, objective, budget=12)
    assert not (bargain.admitted & ~o.candidates).any()
    better = 0
    for e in range(100):
        satisfaction, admissible = judged(o, e, admitted_lots(bargain, e))
        before, _ = judged(o, e, set(o.start[e].flatten().nonzero()[:, 0].tolist()))
        assert admissible
        assert bargain.satisfaction[e].tolist() == pytest.approx(satisfaction, abs=1e-9)
        assert bargain.before[e].tolist() == pytest.approx(before, abs=1e-9)
        assert valued(satisfaction, objective) >= valued(before, objective) - 1e-12
        assert valued(satisfaction, objective) >= valued([1.0] * 4, objective) - 1e-12
        better += valued(satisfaction, objective) > valued(before, objective) + 1e-6
    assert better > 50


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("weights", WEIGHTS)
def test_no_single_flip_improves_on_it_and_the_best_of_all_sets_bounds_it(objective: Objective, weights: str) -> None:
    o = random_offers(2, n_envs=30, n=3, k=2, weights=weights)
    bargain = negotiate(o, objective, budget=20)
    found = 0
    for e in range(30):
        lots = o.candidates[e].flatten().nonzero()[:, 0].tolist()
        sets = [set(some) for size in range(len(lots) + 1) for some in itertools.combinations(lots, size)]
        worth = {frozenset(some): valued(judged(o, e, some)[0], objective) for some in sets if judged(o, e, some)[1]}
        got = worth[frozenset(admitted_lots(bargain, e))]
        best = max(worth.values())
        assert got <= best
        for lot in lots:
            assert worth.get(frozenset(admitted_lots(bargain, e) ^ {lot}), -math.inf) <= got + 1e-6
        found += got >= best - 1e-6
    assert found >= 15  # what local search is worth here: half the time or more it is the best of all sets


def test_without_values_every_lot_with_a_gain_is_admitted() -> None:
    o = offers([1.0, -1.0, 0.5, 0.0], [[]] * 4, [[]] * 4)
    bargain = negotiate(o)
    assert bargain.admitted.flatten().tolist() == [True, False, True, False]
    assert bargain.satisfaction.tolist() == [[2.0] * 4]  # all of the gain there is, and no harm
    assert bargain.moves.tolist() == [[0, 2, -1, -1, -1, -1, -1, -1]]


def test_with_participants_weights_and_without_values_only_the_lots_of_largest_gain_are_admitted() -> None:
    o = offers([1.0, 3.0, 2.0, 3.0], [[]] * 4, [[]] * 4, start=[True] * 4, weights="participants")
    bargain = negotiate(o)
    assert bargain.admitted.flatten().tolist()[0::2] == [False, False]
    assert bargain.satisfaction[0].tolist() == pytest.approx([2.0] * 4)


def test_a_hand_computed_bargain() -> None:
    # Lots of share 1/2 with gains 1 and 3, so g⁺ = 2. The first harms by 0.2 and the second by 1.2, which is beyond the tolerance of 1
    # alone; together the harm is 0.7. Principal 0 has a tolerance of 1, principal 1 none.
    o = offers([1.0, 3.0], [[0.2], [1.2]], [[1.0], [math.inf]], start=[True, False])
    bargain = negotiate(o)
    assert bargain.before[0].tolist() == pytest.approx([1 + 0.25 - 0.1, 1.25])
    assert bargain.satisfaction[0].tolist() == pytest.approx([1 + 1 - 0.7, 2.0])
    assert bargain.admitted.all()
    assert bargain.moves[0].tolist() == [1] + [-1] * 7
    assert bargain.added[0].tolist() == [True] + [False] * 7
    assert bargain.rise[0, 0].item() == pytest.approx(math.log(1.3) + math.log(2) - math.log(1.15) - math.log(1.25))
    assert bargain.change[0, 0].tolist() == pytest.approx([0.15, 0.75])
    assert not bargain.from_nothing


def test_the_objectives_differ_over_a_lot_that_costs_the_worst_off_a_little() -> None:
    o = offers([1.0, 1.0], [[0.0], [1.8]], [[1.0], [math.inf]], start=[True, False])
    # both: s = (1 + 1 - 0.9, 2) = (1.1, 2); the first alone: (1.5, 1.5)
    assert negotiate(o, "worst_off").admitted.flatten().tolist() == [True, False]
    assert negotiate(o, "nash").admitted.flatten().tolist() == [True, False]  # 1.1·2 < 1.5²
    cheaper = replace(o, harm=o.harm * 0.8)  # both: (1.28, 2), 2.56 > 2.25
    assert negotiate(cheaper, "worst_off").admitted.flatten().tolist() == [True, False]
    assert negotiate(cheaper, "nash").admitted.flatten().tolist() == [True, True]


def test_among_equals_for_the_worst_off_the_sum_decides() -> None:
    # lot 0 leaves principal 0 where it was, as its harm takes all of the gain, and raises the other
    o = offers([1.0, 0.0], [[2.0], [0.0]], [[1.0], [math.inf]])
    bargain = negotiate(o, "worst_off")
    assert bargain.satisfaction[0].tolist() == pytest.approx([1.0, 2.0])
    assert bargain.rise[0, 0].item() == 0.0


def test_harm_that_one_lot_does_may_be_made_up_for_by_another() -> None:
    o = offers([0.0, 2.0], [[-1.0], [2.4]], [[1.0], [math.inf]])  # the second alone does 1.2 to a tolerance of 1, together 0.7
    bargain = negotiate(o)
    assert bargain.moves[0, :2].tolist() == [0, 1]
    assert bargain.admitted.all()


def test_improvement_counts_up_to_one_tolerance() -> None:
    o = offers([0.0, 0.0], [[-1.0], [-50.0]], [[0.4], [0.4]])
    assert negotiate(o).satisfaction[0].tolist() == pytest.approx([2.0, 2.0])


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_tolerance_of_zero_lets_no_harm_in_and_counts_for_nothing_else(objective: Objective) -> None:
    o = offers([5.0, 1.0, 1.0], [[0.1], [-0.2], [0.1]], [[0.0], [math.inf], [math.inf]])
    bargain = negotiate(o, objective)
    # lot 1 is let in first; it makes up for one of the others, and in the end for both: -0.2 + 0.1 + 0.1 = 0
    assert bargain.admitted.all()
    assert bargain.satisfaction[0].tolist() == pytest.approx([2.0, 2.0, 2.0])
    alone = replace(o, candidates=torch.tensor([True, False, True]).reshape(1, 3, 1))
    assert not negotiate(alone, objective).admitted.any()


def test_a_step_against_somebodys_direction_is_not_admitted() -> None:
    directions = torch.tensor([[[0.6, 0.8], [0.0, 0.0]]], dtype=D)
    o = offers([1.0, 1.0], [[1.0, -0.7], [1.0, -0.8]], [[math.inf] * 2] * 2, directions=directions)
    # 0.6·1 - 0.8·0.7 = 0.04 > 0 ≥ -0.04 = 0.6·1 - 0.8·0.8, and both together are 0
    bargain = negotiate(o)
    assert bargain.moves[0, :2].tolist() == [1, 0]
    assert bargain.admitted.all()
    assert negotiate(replace(o, directions=directions * torch.tensor([1.0, 0.9]))).admitted.sum() == 0


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_where_every_candidate_only_harms_nothing_is_admitted(objective: Objective) -> None:
    o = offers([-1.0, -2.0], [[0.1], [0.1]], [[1.0], [1.0]], start=[True, True])
    bargain = negotiate(o, objective)
    assert not bargain.admitted.any()
    assert bargain.from_nothing
    assert bargain.satisfaction.tolist() == [[1.0, 1.0]]
    assert bargain.before[0].tolist() == pytest.approx([1 - 1.5 - 0.1] * 2)  # no set has a gain: g⁺ is 1


def test_a_start_that_is_inadmissible_as_a_whole_gives_way_to_nothing() -> None:
    share = torch.full((1, 2, 1), 1.0, dtype=D)  # shares that sum to 2: a sum of admissible updates need not be admissible
    o = offers([1.0, 1.0], [[0.9], [0.8]], [[1.0], [1.0]], start=[True, True], share=share)
    bargain = negotiate(o, budget=0)
    assert bargain.from_nothing
    assert not bargain.admitted.any()
    assert bargain.before[0].tolist() == pytest.approx([2 - 1.7] * 2)


@pytest.mark.parametrize("budget", [0, 8])
def test_a_start_that_is_inadmissible_gives_way_to_nothing_although_it_has_more_welfare(budget: int) -> None:
    # Shares of 1 each, so g⁺ = 2. The start harms by 1.6, beyond the tolerance of 1 that principal 0 has: s = (1 + 1 − 1.6, 2, 2, 2), and
    # the product 3.2 is above the 1 of nothing. From nothing, one lot is let in: s = (1 + 1/2 − 0.8, 1.5, 1.5, 1.5), with a product of 2.4.
    o = offers(
        [1.0, 1.0, 0.0, 0.0],
        [[0.8], [0.8], [0.0], [0.0]],
        [[1.0], [math.inf], [math.inf], [math.inf]],
        start=[True, True, False, False],
        share=torch.ones(1, 4, 1, dtype=D),
    )
    bargain = negotiate(o, budget=budget)
    assert bargain.before[0].tolist() == pytest.approx([0.4, 2.0, 2.0, 2.0])
    assert bargain.from_nothing
    assert bargain.admitted.flatten().tolist() == [budget > 0, False, False, False]
    assert bargain.satisfaction[0].tolist() == pytest.approx([0.7, 1.5, 1.5, 1.5] if budget else [1.0] * 4)


def test_without_budget_the_unanimous_set_stays() -> None:
    o = offers([1.0, 3.0], [[0.2], [1.2]], [[1.0], [math.inf]], start=[True, False])
    bargain = negotiate(o, budget=0)
    assert torch.equal(bargain.admitted, o.start)
    assert bargain.moves.shape == (1, 0)
    torch.testing.assert_close(bargain.satisfaction, bargain.before)


@pytest.mark.parametrize("budget", [1, 2, 5])
def test_the_moves_lead_from_the_start_to_the_admitted_set_within_the_budget(budget: int) -> None:
    o = random_offers(3)
    bargain = negotiate(o, budget=budget)
    assert bargain.moves.shape == bargain.added.shape == bargain.rise.shape == (100, budget)
    now = torch.where(bargain.from_nothing[:, None, None], False, o.start).flatten(1)
    satisfaction = torch.where(bargain.from_nothing[:, None], 1.0, bargain.before)
    for e, move in itertools.product(range(100), range(budget)):
        if (lot := int(bargain.moves[e, move])) >= 0:
            assert bargain.added[e, move] == ~now[e, lot]
            now[e, lot] ^= True
    assert torch.equal(now.reshape(100, 4, 3), bargain.admitted)
    torch.testing.assert_close(satisfaction + bargain.change.sum(dim=1), bargain.satisfaction)
    assert ((bargain.rise > 0) == (bargain.moves >= 0)).all()
    assert (bargain.moves[:, -1] >= 0).any()  # some would go on


def test_more_budget_is_never_worse() -> None:
    o = random_offers(4)
    worth = torch.stack([negotiate(o, budget=budget).satisfaction.log().sum(dim=1) for budget in range(1, 6)])
    assert (worth.diff(dim=0) >= -1e-12).all()


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("dtype", [torch.float32, D])
def test_what_an_environment_gets_does_not_depend_on_its_batch(weights: str, dtype: torch.dtype) -> None:
    o = random_offers(5, n_envs=20, weights=weights, dtype=dtype)
    together = negotiate(o)
    assert together.satisfaction.dtype == dtype
    for e in range(20):
        one = {field.name: getattr(o, field.name)[e : e + 1] for field in fields(o) if field.name != "weights"}
        alone = negotiate(Offers(**one, weights=o.weights))
        for name in ("admitted", "moves", "added", "from_nothing"):
            assert torch.equal(getattr(alone, name), getattr(together, name)[e : e + 1])
        for name in ("satisfaction", "before", "rise", "change"):
            torch.testing.assert_close(getattr(alone, name), getattr(together, name)[e : e + 1])


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_renaming_the_principals_renames_the_bargain(objective: Objective) -> None:
    o = random_offers(6)
    order = torch.tensor([2, 0, 3, 1])
    renamed = Offers(**{field.name: getattr(o, field.name)[:, order] for field in fields(o) if field.name != "weights"})
    torch.testing.assert_close(negotiate(renamed, objective).admitted, negotiate(o, objective).admitted[:, order])


def test_lots_that_are_no_candidates_are_not_read() -> None:
    o = random_offers(7)
    spoilt = replace(o, gain=o.gain.masked_fill(~o.candidates, math.nan), harm=o.harm.masked_fill(~o.candidates[..., None], math.inf))
    assert torch.equal(negotiate(spoilt).admitted, negotiate(o).admitted)


def test_from_an_infinitely_bad_start_the_search_takes_the_better_of_nothing() -> None:
    o = offers([-3.0, 1.0], [[0.0], [0.0]], [[1.0], [1.0]], start=[True, True])  # g = -1, g⁺ = 0.5: s = -1
    bargain = negotiate(o)
    assert bargain.before[0].tolist() == pytest.approx([-1.0, -1.0])
    assert bargain.from_nothing
    assert bargain.admitted.flatten().tolist() == [False, True]


def test_measures_have_their_closed_forms() -> None:
    satisfaction = torch.tensor([[1.0, 2.0, 3.0, 4.0], [2.0] * 4, [0.0, 0.0, 0.0, 8.0], [-1.0, 1.0, 1.0, 1.0]], dtype=D)
    group = torch.tensor([[0, 1, 0, 1], [-1, -1, 0, 0], [-1] * 4, [2, 2, 0, -1]])
    got = measures(satisfaction, group)
    assert got["total"].tolist() == [10.0, 8.0, 8.0, 2.0]
    assert got["worst_group"].tolist() == [2.0, 2.0, 2.0, 0.0]
    assert got["percentile_20"].tolist() == pytest.approx([1.6, 2.0, 0.0, 0.2])
    assert got["gini"].tolist() == pytest.approx([0.25, 0.0, 0.75, 0.25])  # of 0, 1, 1, 1 in the last row
    assert got["nash_welfare"].tolist() == pytest.approx([24**0.25, 2.0, 0.0, 0.0])


def test_explain_names_the_lot_the_objectors_and_who_gains_and_loses() -> None:
    directions = torch.tensor([[[0.0], [1.0], [0.0]]], dtype=D)
    o = offers([4.0, 1.0, 0.5], [[1.2], [-1.0], [-0.5]], [[1.0], [math.inf], [0.5]], start=[False, True, True], directions=directions)
    assert explain(negotiate(o), 0, ["proxy_0", "proxy_1", "proxy_2"], ["eights"]).splitlines() == [
        "begins with the unanimous set, 2 of 3 lots",
        "admits proxy_0's lot 0, to which proxy_0 (eights), proxy_1 (its direction) and proxy_2 (eights) object: "
        "Nash welfare (sum of logs) +0.589; proxy_1 gains most (+0.727), proxy_2 loses most (-0.073)",
        "ends with 3 of 3 lots after 1 move: no single lot in or out would do better",
    ]


def test_explain_says_that_it_began_with_nothing_and_that_the_budget_is_spent() -> None:
    o = offers([-3.0, 1.0], [[0.0], [0.0]], [[1.0], [1.0]], start=[True, False])
    text = explain(negotiate(o, "worst_off", budget=1), 0, ["a", "b"], ["harm"])
    assert text.splitlines() == [
        "begins with nothing: the unanimous set, 1 of 2 lots, as a whole is inadmissible or worse than nothing",
        "admits b's lot 0: satisfaction of the worst off +1.000; a gains most (+1.000), nobody loses",
        "ends with 1 of 2 lots after 1 move: the budget is spent",
    ]


def test_explain_wants_a_name_for_everybody() -> None:
    bargain = negotiate(offers([1.0, 1.0], [[0.0]] * 2, [[1.0]] * 2))
    with pytest.raises(ValueError, match="principals has 1 names: must have 2"):
        explain(bargain, 0, ["a"], ["harm"])
    with pytest.raises(ValueError, match="values has 2 names: must have 1"):
        explain(bargain, 0, ["a", "b"], ["harm", "more"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"candidates": torch.ones(2, 1, dtype=torch.bool)}, r"candidates \(2, 1\) and harm .*\(E, N, K\) and \(E, N, K, M\)"),
        ({"gain": torch.ones(1, 2, 2)}, r"gain has shape \(1, 2, 2\): must be \(1, 2, 1\)"),
        ({"tolerance": torch.ones(1, 2, 3)}, r"tolerance has shape \(1, 2, 3\): must be \(1, 2, 1\)"),
        ({"candidates": torch.zeros(1, 2, 1, dtype=torch.bool), "start": torch.ones(1, 2, 1, dtype=torch.bool)}, "start contains lots"),
        ({"tolerance": torch.full((1, 2, 1), -1.0)}, "tolerance has an entry that is negative"),
        ({"share": torch.full((1, 2, 1), math.nan)}, "share has an entry"),
        ({"harm": torch.full((1, 2, 1, 1), math.inf)}, "gain or harm of a candidate is not finite"),
        ({"weights": "equal"}, "weights='equal': must be 'fixed' or 'participants'"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(offers([1.0, 1.0], [[0.0]] * 2, [[1.0]] * 2), **change)


def test_unknown_objectives_and_negative_budgets_are_refused() -> None:
    o = offers([1.0, 1.0], [[0.0]] * 2, [[1.0]] * 2)
    with pytest.raises(ValueError, match="objective='utilitarian': must be 'nash' or 'worst_off'"):
        negotiate(o, "utilitarian")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="budget=-1: must be at least 0"):
        negotiate(o, budget=-1)
