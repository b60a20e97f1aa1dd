"""Governance against a loop that reads as its description, at its boundaries, in coalitions; settings that contradict each other."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
import yaml
from torch import Tensor

from proxycoop.envs import Engine, Scenario, scenario
from proxycoop.envs.screening.profiles import DIRECTION_SLACK, Profiles
from proxycoop.envs.screening.verdicts import Screening, Verdicts, admissible, let_through

SHARED = ("quorum", "weighted", "stakeholders")
EACH = ("none", "own", "unanimous", *SHARED)
N_ENVS, N, K, M, G, D = 3, 5, 4, 3, 3, 2


def random_verdicts(seed: int, dtype: torch.dtype = torch.float64) -> Verdicts:
    """Principals with tolerances, tags, norms and directions of all sorts; a few updates that are not finite."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    norm = uniform(N_ENVS, N, K) * 2
    norm[uniform(N_ENVS, N, K) < 0.05] = math.inf
    norm[uniform(N_ENVS, N, K) < 0.05] = math.nan
    directions = torch.randn(D, M, generator=generator, dtype=torch.float64)
    minds = torch.randint(-1, D, (N_ENVS, N), generator=generator)
    weight = uniform(N_ENVS, N) + 0.1
    profiles = Profiles(
        (uniform(N_ENVS, N, M) * 0.8).masked_fill(uniform(N_ENVS, N, M) < 0.5, math.inf).to(dtype),
        uniform(N_ENVS, N, G) < 0.05,
        (1 + uniform(N_ENVS, N)).masked_fill(uniform(N_ENVS, N) < 0.5, math.inf).to(dtype),
        directions=(directions / directions.norm(dim=1, keepdim=True)).to(dtype),
        follows=minds[..., None] == torch.arange(D),
    )
    harm = torch.randn(N_ENVS, N, K, M, generator=generator, dtype=torch.float64) * 0.4
    tags = torch.randint(G, (N_ENVS, N, K), generator=generator)
    return Verdicts(harm.to(dtype), norm.to(dtype), tags, profiles, (weight / weight.sum(dim=1, keepdim=True)).to(dtype))


def accounts(verdicts: Verdicts, e: int, i: int, k: int, j: int) -> dict[tuple[str, int], bool]:
    """What principal j's profile names, and whether it objects to update (i, k) on that account."""
    profiles, harm = verdicts.profiles, verdicts.harm[e, i, k].tolist()
    named = {}
    for m, tolerance in enumerate(profiles.tolerance[e, j].tolist()):
        if tolerance < math.inf:
            named["value", m] = harm[m] > tolerance
    if profiles.directions is not None:
        for d, direction in enumerate(profiles.directions.tolist()):
            if profiles.follows[e, j, d]:
                named["direction", d] = sum(w * h for w, h in zip(direction, harm, strict=True)) > DIRECTION_SLACK
    if profiles.max_norm[e, j] < math.inf:
        named["norm", 0] = float(verdicts.norm[e, i, k]) > float(profiles.max_norm[e, j])
    for tag in range(profiles.forbidden.shape[-1]):
        if profiles.forbidden[e, j, tag]:
            named["tag", tag] = int(verdicts.tags[e, i, k]) == tag
    return named


Accounts = dict[tuple[int, int, int, int], dict[tuple[str, int], bool]]


def all_accounts(verdicts: Verdicts) -> Accounts:
    """The accounts of every update (i, k) in environment e with every principal j, by ``(e, i, k, j)``."""
    n = verdicts.norm.shape[1]
    return {(*at, j): accounts(verdicts, *at, j) for at in itertools.product(*map(range, verdicts.norm.shape)) for j in range(n)}


def looped(verdicts: Verdicts, screening: Screening, members: tuple[int, ...], found: Accounts) -> Tensor:
    """What members of a coalition let through, update by update."""
    passes = torch.zeros(verdicts.norm.shape, dtype=torch.bool)
    for e, i, k in itertools.product(*map(range, verdicts.norm.shape)):
        if not math.isfinite(verdicts.norm[e, i, k]):
            continue
        named = {j: found[e, i, k, j] for j in range(verdicts.norm.shape[1])}
        content = [j for j in members if not any(named[j].values())]
        quorum = screening.quorum
        match screening.governance:
            case "none":
                passes[e, i, k] = True
            case "own":
                passes[e, i, k] = not any(named[i].values())
            case "unanimous":
                passes[e, i, k] = len(content) == len(members)
            case "quorum":
                passes[e, i, k] = bool(members) and len(content) >= quorum * len(members) - 1e-9
            case "weighted":
                weight = verdicts.weight[e].tolist()
                total = sum(weight[j] for j in members)
                passes[e, i, k] = total > 0 and sum(weight[j] for j in content) >= quorum * total - 1e-9
            case "stakeholders":
                everything = {account for j in members for account in named[j]}
                passes[e, i, k] = all(
                    sum(not named[j][a] for j in members if a in named[j]) >= quorum * sum(a in named[j] for j in members) - 1e-9
                    for a in everything
                )
    return passes


def made(governance: str, quorum: float) -> Screening:
    return Screening(governance=governance, **({"quorum": quorum} if governance in SHARED else {}))


def with_quorums(*quorums: float) -> list[tuple[str, float]]:
    """Every governance, those by share with each quorum."""
    return [(governance, quorum) for governance in EACH for quorum in (quorums if governance in SHARED else (1.0,))]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("governance", "quorum"), with_quorums(0.2, 0.37, 0.5, 0.8, 1.0))
def test_what_is_admissible_is_what_a_loop_over_updates_and_principals_finds(governance: str, quorum: float, dtype: torch.dtype) -> None:
    screening = made(governance, quorum)
    passed = []
    for seed in range(2):
        verdicts = random_verdicts(seed, dtype)
        passed.append(admissible(verdicts, screening))
        assert torch.equal(passed[-1], looped(verdicts, screening, tuple(range(N)), all_accounts(verdicts)))
    assert 0.02 < torch.stack(passed).double().mean() < 0.98  # there is something to tell apart


@pytest.mark.parametrize(("governance", "quorum"), with_quorums(0.37, 0.5, 1.0))
def test_every_coalition_lets_through_what_a_loop_over_its_members_finds(governance: str, quorum: float) -> None:
    verdicts, screening = random_verdicts(7), made(governance, quorum)
    coalitions = torch.tensor(list(itertools.product([False, True], repeat=N)))
    passes = let_through(coalitions, verdicts, screening)  # (E, 32, N, K)
    found = all_accounts(verdicts)
    for c, coalition in enumerate(coalitions):
        assert torch.equal(passes[:, c], looped(verdicts, screening, tuple(coalition.nonzero()[:, 0].tolist()), found)), coalition
    assert torch.equal(passes[:, -1], admissible(verdicts, screening))


@pytest.mark.parametrize("governance", EACH)
def test_an_update_that_is_not_finite_passes_no_coalition_under_any_governance(governance: str) -> None:
    verdicts = random_verdicts(3)
    broken = ~verdicts.norm.isfinite()
    assert broken.any()
    assert verdicts.blocked_by[broken].all()
    coalitions = torch.tensor(list(itertools.product([False, True], repeat=N)))
    passes = let_through(coalitions, verdicts, made(governance, 0.5))
    assert not passes.transpose(0, 1)[:, broken].any()


@pytest.mark.parametrize("governance", ["own", "unanimous", "quorum", "weighted", "negotiate"])
def test_an_update_whose_harm_is_no_number_passes_nobody_s_screening(governance: str) -> None:
    verdicts = random_verdicts(3)
    harm = verdicts.harm.clone()
    harm[0, 1, 2, 0] = math.nan
    spoiled = replace(verdicts, harm=harm)
    assert spoiled.blocked_by[0, 1, 2].all()
    assert not admissible(spoiled, made(governance, 0.5))[0, 1, 2]


def test_stakeholders_of_a_value_refuse_an_update_whose_harm_to_it_is_no_number() -> None:
    verdicts = stakes([0.5, 0.5, math.inf])
    assert admissible(verdicts, made("stakeholders", 0.5)).item()
    assert not admissible(replace(verdicts, harm=verdicts.harm * math.nan), made("stakeholders", 0.5)).item()


def test_a_quorum_of_all_stakeholders_is_unanimity() -> None:
    for seed in range(20):
        verdicts = random_verdicts(seed)
        assert torch.equal(admissible(verdicts, made("stakeholders", 1.0)), admissible(verdicts, Screening(governance="unanimous")))


def test_the_more_are_asked_for_the_less_passes() -> None:
    verdicts = random_verdicts(11)
    for governance in SHARED:
        passes = [admissible(verdicts, made(governance, quorum)) for quorum in (0.01, 0.2, 0.4, 0.6, 0.8, 1.0)]
        assert all(bool((strict <= lenient).all()) for lenient, strict in itertools.pairwise(passes))
        assert passes[0].sum() > passes[-1].sum()


def stakes(tolerance: list[float], harm: float = 0.3, weight: Tensor | None = None) -> Verdicts:
    """One update of that harm to one value, and principals with these tolerances."""
    n = len(tolerance)
    dtype = torch.float32 if weight is None else weight.dtype
    limits = torch.tensor([tolerance], dtype=dtype)[..., None]
    profiles = Profiles(limits, torch.zeros(1, n, 0, dtype=torch.bool), torch.full((1, n), math.inf, dtype=dtype))
    harms, tags = torch.full((1, 1, 1, 1), harm, dtype=dtype), torch.zeros(1, 1, 1, dtype=torch.int64)
    return Verdicts(harms, torch.ones(1, 1, 1, dtype=dtype), tags, profiles, weight)


def test_where_nobody_names_a_value_stakeholders_screen_nothing_by_it() -> None:
    nobody = stakes([math.inf] * 4, harm=1e6)
    assert admissible(nobody, made("stakeholders", 1.0)).item()
    one = stakes([math.inf, math.inf, 0.1, math.inf])
    assert not admissible(one, made("stakeholders", 0.01)).item()  # the only one that it concerns objects
    assert admissible(one, made("quorum", 0.75)).item()


def test_exactly_k_of_n_stakeholders_meet_a_quorum_of_k_over_n_whoever_else_is_there() -> None:
    for n in range(1, 30):
        for k in range(1, n + 1):
            for bystanders in (0, 7):
                enough, lacking = ([0.5] * c + [0.1] * (n - c) + [math.inf] * bystanders for c in (k, k - 1))
                assert admissible(stakes(enough), made("stakeholders", k / n)).item(), (k, n)
                assert not admissible(stakes(lacking), made("stakeholders", k / n)).item(), (k, n)


def test_a_tag_that_somebody_names_passes_no_stakeholders_whatever_others_name() -> None:
    forbidden = torch.tensor([[[True, False], [False, True], [False, True], [False, False]]])  # (1, 4, G = 2)
    profiles = Profiles(torch.zeros(1, 4, 0), forbidden, torch.full((1, 4), math.inf))
    for tag in (0, 1):
        verdicts = Verdicts(torch.zeros(1, 1, 1, 0), torch.ones(1, 1, 1), torch.full((1, 1, 1), tag), profiles)
        assert not admissible(verdicts, made("stakeholders", 0.1)).item()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_that_sum_exactly_to_the_quorum_meet_it_and_the_least_below_does_not(dtype: torch.dtype) -> None:
    stake = [1, 2, 3, 4, 7, 11, 13]
    weight = torch.tensor([stake], dtype=dtype) / sum(stake)
    for content in itertools.product([False, True], repeat=len(stake)):
        agreed = sum(s for s, c in zip(stake, content, strict=True) if c)
        verdicts = stakes([0.5 if c else 0.1 for c in content], weight=weight)
        if agreed:
            assert admissible(verdicts, made("weighted", agreed / sum(stake))).item()
        if agreed < sum(stake):
            assert not admissible(verdicts, made("weighted", (agreed + 1e-3) / sum(stake))).item()


def test_equal_weights_are_a_quorum() -> None:
    for seed in range(5):
        verdicts = random_verdicts(seed)
        equal = replace(verdicts, weight=torch.full((N_ENVS, N), 1 / N, dtype=torch.float64))
        for quorum in (0.2, 0.4, 0.55, 0.6, 1.0):
            assert torch.equal(admissible(equal, made("weighted", quorum)), admissible(verdicts, made("quorum", quorum)))


def test_negotiation_is_open_to_all_that_breaks_nobody_s_tag_or_norm_and_judges_no_update_alone() -> None:
    verdicts, screening = random_verdicts(2), Screening(governance="negotiate")
    expected = torch.ones(N_ENVS, N, K, dtype=torch.bool)
    for e, i, k in itertools.product(range(N_ENVS), range(N), range(K)):
        objections = [a for j in range(N) for a, against in accounts(verdicts, e, i, k, j).items() if against]
        expected[e, i, k] = math.isfinite(verdicts.norm[e, i, k]) and not any(what in ("tag", "norm") for what, _ in objections)
    assert torch.equal(admissible(verdicts, screening), expected)
    assert expected.any()
    with pytest.raises(ValueError, match="negotiate judges no update on its own"):
        let_through(torch.ones(1, N, dtype=torch.bool), verdicts, screening)


# in whole rounds


def engine_of(profiles: list[dict[str, object]], screening: dict[str, object], **overrides: object) -> Engine:
    settings = {"reward.scale": 1.0, "profiles": profiles, "profiles_drawn": False, "screening": screening, **overrides}
    engine = Engine(scenario.load("digits", **settings), None, num_envs=4)
    engine.reset(range(4))
    return engine


STRICT = {"eights": 0.05}


@pytest.mark.parametrize(
    ("rows", "passes"),
    [
        ((20, 20, 20, 20, 20, 20), True),
        ((26, 20, 20, 20, 20, 20), False),
        ((60, 10, 10, 10, 10, 10), False),
        ((10, 60, 10, 10, 10, 10), True),
    ],
)
def test_data_weighs_a_verdict_by_rows(rows: tuple[int, ...], passes: bool) -> None:
    engine = engine_of([{"tolerances": STRICT}], {"governance": "weighted", "quorum": 5 / 6}, **{"lots.rows": rows})
    harmful = engine.prospect.harm[..., 0] > 0.05
    assert harmful.any()
    result = engine.step(torch.ones(4, 6, 4))
    assert torch.equal(result.admitted, torch.ones_like(harmful) if passes else ~harmful)


@pytest.mark.parametrize(("stake", "passes"), [(1.0, True), (1.01, False), (3e38, False), (1e-30, True)])
def test_stake_weighs_a_verdict_in_any_unit(stake: float, passes: bool) -> None:
    profiles = [{"tolerances": STRICT, "stake": stake}]
    engine = engine_of(profiles, {"governance": "weighted", "weigh_by": "stake", "quorum": 5 / 6})
    harmful = engine.prospect.harm[..., 0] > 0.05
    assert torch.equal(engine.step(torch.ones(4, 6, 4)).admitted, torch.ones_like(harmful) if passes else ~harmful)


def test_stakes_move_with_the_profiles_where_these_are_drawn() -> None:
    profiles = [{"tolerances": STRICT, "stake": 5.0}]
    engine = engine_of(profiles, {"governance": "weighted", "weigh_by": "stake", "quorum": 0.6}, profiles_drawn=True)
    holder = engine.profiles.tolerance[..., 0].isfinite()
    assert holder.double().argmax(dim=1).unique().numel() > 1
    assert torch.equal(engine.profiles.stake.argmax(dim=1), holder.double().argmax(dim=1))
    assert torch.equal(engine.prospect.passes, ~(engine.prospect.harm[..., 0] > 0.05))  # it holds half of all stake


def test_stakeholders_are_those_whose_profiles_name_the_value() -> None:
    profiles = [{"tolerances": STRICT}, {"tolerances": {"eights": 10.0}}, {"tolerances": {"nines": 0.02}}]
    half = engine_of(profiles, {"governance": "stakeholders", "quorum": 0.5})
    nines = half.prospect.harm[..., 1] > 0.02
    assert torch.equal(half.prospect.passes, ~nines)  # one of two stakeholders of eights is content, the one of nines need be
    most = engine_of(profiles, {"governance": "stakeholders", "quorum": 0.51})
    assert torch.equal(most.prospect.passes, ~nines & (most.prospect.harm[..., 0] <= 0.05))


# settings


def test_a_seat_with_copied_lots_weighs_what_it_holds() -> None:
    changes = {"screening": {"governance": "weighted"}, "lots.rows": [5, 40, 20, 20, 20, 20], "reward.scale": 1.0}
    engine = Engine(scenario.load("digits", **changes), None)
    for copies, rows in (({0: 1}, [40, 40, 20, 20, 20, 20]), ({}, [5, 40, 20, 20, 20, 20])):
        engine.reset([0], copies=copies)
        weight = engine.prospect.verdicts.weight
        assert weight is not None
        torch.testing.assert_close(weight[0], torch.tensor(rows) / sum(rows))


def test_whoever_always_does_the_same_earns_nothing_by_aristocrat_utility_whatever_a_bargain_leaves_out() -> None:
    engine = Engine(scenario.load("digits", screening={"governance": "negotiate"}, **{"reward.scale": 1.0}), "aristocrat", 4)
    engine.reset(range(4))
    n_left_out = 0
    while engine.t < engine.horizon:
        unopposed, first = ~engine.prospect.blocked_by.any(dim=-1), engine.t == 0
        result = engine.step(torch.ones(4, 6, 4))
        n_left_out += int((unopposed & ~result.admitted).sum())
        assert first or torch.equal(result.credit, torch.zeros(4, 6))
    assert n_left_out > 100


def test_bargaining_over_a_utility_without_a_gradient_is_refused_before_anybody_plays() -> None:
    with pytest.raises(ValueError, match="governance=negotiate needs predicted gains, but utility=accuracy has no gradient"):
        scenario.load("digits", utility="accuracy", screening={"governance": "negotiate"})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"governance": "none", "quorum": 0.7}, "quorum=0.7 contradicts governance none.*quorum or weighted or stakeholders"),
        ({"governance": "own", "quorum": 0.7}, "quorum=0.7 contradicts governance own"),
        ({"governance": "unanimous", "quorum": 0.7}, "quorum=0.7 contradicts governance unanimous"),
        ({"governance": "negotiate", "quorum": 0.7}, "quorum=0.7 contradicts governance negotiate"),
        ({"governance": "quorum", "weigh_by": "stake"}, "weigh_by=stake contradicts governance quorum.*use governance weighted"),
        ({"governance": "stakeholders", "weigh_by": "stake"}, "weigh_by=stake contradicts governance stakeholders"),
        (
            {"governance": "unanimous", "bargain": "worst_off"},
            "bargain=worst_off contradicts governance unanimous.*use governance negotiate",
        ),
        ({"governance": "quorum", "budget": 3}, "budget=3 contradicts governance quorum"),
        (
            {"governance": "none", "filter": "scale"},
            "filter=scale contradicts governance none, under which nobody screens: use filter reject",
        ),
        ({"governance": "none", "filter": "project"}, "filter=project contradicts governance none"),
        ({"governance": "negotiate", "filter": "project"}, "filter=project contradicts governance negotiate, under which updates are"),
        ({"governance": "negotiate", "filter": "scale"}, "filter=scale contradicts governance negotiate"),
        ({"governance": "quorum", "quorum": 0.0}, "quorum\n.*greater than 0"),
        ({"governance": "quorum", "quorum": 1.01}, "quorum\n.*less than or equal to 1"),
        ({"governance": "negotiate", "budget": -1}, "budget\n.*greater than or equal to 0"),
        ({"governance": "vote"}, "governance\n.*'own', 'unanimous', 'quorum', 'weighted', 'stakeholders' or 'negotiate'"),
        ({"filter": "drop"}, "filter\n.*'reject', 'scale' or 'project'"),
        ({"harm": "third_order"}, "harm\n.*'first_order', 'second_order' or 'measured'"),
        ({"vote": 1}, "vote\n.*Extra inputs are not permitted"),
    ],
)
def test_contradictory_or_unknown_screening_is_refused_by_name(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=f"(?s){message}"):
        Screening(**settings)


def combinations() -> list[dict[str, object]]:
    each = [{"governance": g, "filter": f} for g in EACH[1:] for f in ("reject", "scale", "project")]
    each += [{"governance": "none"}, {"governance": "negotiate", "bargain": "worst_off", "budget": 4}]
    each += [{"governance": "weighted", "weigh_by": "stake", "quorum": 0.7, "harm": "measured", "guard": True}]
    return each


@pytest.mark.parametrize("settings", combinations(), ids=str)
def test_every_screened_cooperative_has_an_unscreened_one_beside_it(settings: dict[str, object]) -> None:
    loaded = scenario.load("digits", screening=settings)
    free = loaded.unscreened(reward_scale=2.0)
    assert free.screening == Screening(governance="none", harm=loaded.screening.harm)
    assert free.reward.scale == 2.0
    assert free.profiles == loaded.profiles
    assert Scenario.model_validate(yaml.safe_load(free.to_yaml())) == free
    assert Scenario.model_validate(yaml.safe_load(loaded.to_yaml())) == loaded
    assert loaded.screening.judges_each == (loaded.screening.filter == "reject" and loaded.screening.governance != "negotiate")
