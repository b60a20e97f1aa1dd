"""Vertical cooperatives: blocks of columns, wrong links, losslessness, the game of embeddings, and what is refused."""

from collections import Counter

import pytest
import torch
from pettingzoo.test import parallel_api_test
from torch import Tensor
from torch.nn.functional import cross_entropy

from proxycoop import agents, credit
from proxycoop.credit import coalition_matrix
from proxycoop.envs import Engine, cooperative_v0, scenario
from proxycoop.envs.data.columns import DrawnColumns, column_blocks

NAME = "breast_cancer-vertical"
N, K, D, C = 5, 3, 30, 2
FREE = {"screening.governance": "none", "reward.scale": 1.0}


def make_engine(num_envs: int = 2, rule: str | None = None, dtype: torch.dtype = torch.float64, **overrides: object) -> Engine:
    return Engine(scenario.load(NAME, **overrides), rule, num_envs, dtype=dtype)


def everything(engine: Engine) -> Tensor:
    return torch.ones(engine.num_envs, engine.num_agents, engine.num_lots, dtype=torch.bool)


def own_columns(i: int, k: int) -> slice:
    """Two columns a lot: the shipped scenario's 30 columns are 5 principals' 3 lots'."""
    return slice(6 * i + 2 * k, 6 * i + 2 * k + 2)


def pooled_gradient(theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Of the mean cross-entropy of softmax regression written out by hand, ``(D + 1, C)``."""
    weight = theta.detach().clone().reshape(D + 1, C).requires_grad_()
    (gradient,) = torch.autograd.grad(cross_entropy(x @ weight[:D] + weight[D], y), weight)
    return gradient


def shared_rows(engine: Engine, e: int) -> tuple[Tensor, Tensor]:
    return engine.lots.x[e, 0, 0], engine.lots.y[e, 0, 0]


# Columns and updates


@pytest.mark.parametrize(("n_columns", "n_blocks"), [(30, 15), (30, 8), (64, 24), (7, 7), (5, 1)])
def test_columns_are_cut_in_their_order_into_blocks_that_differ_by_one_at_most(n_columns: int, n_blocks: int) -> None:
    block = column_blocks(n_columns, n_blocks)
    assert (block.diff() >= 0).all()
    sizes = torch.bincount(block, minlength=n_blocks)
    assert len(sizes) == n_blocks
    assert sizes.min() >= 1
    assert sizes.max() - sizes.min() <= 1


def test_each_update_is_the_scaled_gradient_of_its_own_columns_parameters_and_zero_elsewhere() -> None:
    engine = make_engine(**FREE)
    engine.reset([1, 2])
    for e in range(2):
        expected = -0.1 * N * K * pooled_gradient(engine.theta[e], *shared_rows(engine, e))
        for i in range(N):
            for k in range(K):
                update = engine.prospect.proposals.updates[e, i, k].reshape(D + 1, C)
                torch.testing.assert_close(update[own_columns(i, k)], expected[own_columns(i, k)])
                assert update[own_columns(i, k)].norm() > 0
                assert torch.count_nonzero(update) == torch.count_nonzero(update[own_columns(i, k)])


def test_shares_are_equal_and_sum_to_one_and_every_lot_reports_the_loss_on_the_shared_rows() -> None:
    engine = make_engine(**FREE)
    engine.reset([1, 2])
    proposals = engine.prospect.proposals
    torch.testing.assert_close(proposals.share, torch.full((2, N, K), 1 / 15, dtype=torch.float64))
    for e in range(2):
        x, y = shared_rows(engine, e)
        weight = engine.theta[e].reshape(D + 1, C)
        expected = cross_entropy(x @ weight[:D] + weight[D], y)
        torch.testing.assert_close(proposals.loss[e], expected.expand(N, K))


def test_sum_of_the_lots_parts_is_the_centralised_step_bias_apart_in_each_round() -> None:
    engine = make_engine(**FREE)
    engine.reset([3, 4])
    while engine.t < engine.horizon:
        before = engine.theta.clone()
        engine.step(everything(engine))
        for e in range(2):
            step = -0.1 * pooled_gradient(before[e], *shared_rows(engine, e))
            step[D] = 0  # the server's bias stays
            assert (engine.theta[e] - before[e] - step.flatten()).norm() <= 1e-6 * step.norm()


def test_with_a_column_more_in_some_lots_the_parts_still_pool_to_the_centralised_step() -> None:
    engine = make_engine(1, **FREE, principals=4, **{"lots.per_principal": 2})  # 30 columns in 8 lots
    engine.reset([3])
    before = engine.theta[0].clone()
    engine.step(everything(engine))
    step = -0.1 * pooled_gradient(before, *shared_rows(engine, 0))
    step[D] = 0
    assert (engine.theta[0] - before - step.flatten()).norm() <= 1e-6 * step.norm()


def test_what_is_withheld_is_missing_from_the_step_and_changes_nobody_elses_part() -> None:
    engine = make_engine(1, **FREE)
    engine.reset([6])
    actions = torch.arange(15).reshape(1, N, K) % 4 != 0
    before = engine.theta[0].clone()
    step = -0.1 * pooled_gradient(before, *shared_rows(engine, 0))
    engine.step(actions)
    moved = (engine.theta[0] - before).reshape(D + 1, C)
    for i in range(N):
        for k in range(K):
            expected = step[own_columns(i, k)] * actions[0, i, k]
            torch.testing.assert_close(moved[own_columns(i, k)], expected)


@pytest.mark.parametrize("server", [{"kind": "sgd", "momentum": 0.9}, {"kind": "adam"}])
def test_the_bias_stays_where_the_public_start_left_it_whatever_the_server(server: dict[str, object]) -> None:
    engine = make_engine(1, **FREE, server=server)
    engine.reset([6])
    bias = engine.theta[0, -C:].clone()
    assert bias.norm() > 0
    for _ in range(3):
        engine.step(everything(engine))
    assert torch.equal(engine.theta[0, -C:], bias)


# Rows and links


def test_all_lots_share_pool_rows_drawn_without_replacement_with_their_labels() -> None:
    engine = make_engine(20, **{"lots.corruption.share": 0.0})
    engine.reset(range(20))
    pool = engine.splits.train
    known = {row.numpy().tobytes(): i for i, row in enumerate(pool.x)}
    drawn = []
    for e in range(20):
        rows = [known[row.numpy().tobytes()] for row in engine.lots.x[e, 0, 0]]
        assert len(set(rows)) == len(rows) == 60
        assert pool.y[rows].tolist() == engine.lots.y[e, 0, 0].tolist()
        drawn.append(tuple(rows))
    assert len(set(drawn)) == 20
    assert engine.lots.samples.eq(60).all()
    assert engine.lots.present.all()


def test_every_pool_row_is_equally_likely_to_be_drawn() -> None:
    engine = make_engine(400, **{"lots.corruption.share": 0.0})
    engine.reset(range(400))
    pool = engine.splits.train
    often = Counter(row.numpy().tobytes() for row in engine.lots.x[:, 0, 0].flatten(end_dim=1))
    p = 60 / len(pool)
    share = torch.tensor([often[row.numpy().tobytes()] / 400 for row in pool.x])
    assert (share - p).abs().max() < 5 * (p * (1 - p) / 400) ** 0.5


@pytest.mark.parametrize(("rate", "n_wrong"), [(0.9, 54), (0.5, 30), (1.0, 60)])
def test_wrong_links_move_whole_records_within_a_corrupt_lots_columns_and_leave_labels(rate: float, n_wrong: int) -> None:
    engine, clean = make_engine(**{"lots.corruption.rate": rate}), make_engine(**{"lots.corruption.share": 0.0})
    engine.reset([1, 2])
    clean.reset([1, 2])
    assert torch.equal(engine.lots.y, clean.lots.y)
    assert engine.lots.corrupt.sum(dim=(1, 2)).tolist() == [7, 7]
    for e in range(2):
        found, right = engine.lots.x[e, 0, 0], clean.lots.x[e, 0, 0]
        for i in range(N):
            for k in range(K):
                mine, true = found[:, own_columns(i, k)], right[:, own_columns(i, k)]
                wrong = (mine != true).any(dim=1)
                assert int(wrong.sum()) == n_wrong * bool(engine.lots.corrupt[e, i, k])
                assert Counter(map(tuple, mine.tolist())) == Counter(map(tuple, true.tolist()))


def test_corrupt_lots_of_a_cooperative_are_linked_wrongly_each_in_its_own_way() -> None:
    engine, clean = make_engine(1), make_engine(1, **{"lots.corruption.share": 0.0})
    engine.reset([1])
    clean.reset([1])
    wrong = engine.lots.x[0, 0, 0] != clean.lots.x[0, 0, 0]  # (R, D)
    kept = {
        tuple(torch.nonzero(~wrong[:, own_columns(i, k).start])[:, 0].tolist()) for i, k in torch.nonzero(engine.lots.corrupt[0]).tolist()
    }
    assert len(kept) == 7


def test_rows_are_stored_once_for_all_lots() -> None:
    engine = make_engine()
    engine.reset([1, 2])
    assert isinstance(engine.lots, DrawnColumns)
    assert engine.lots.inputs.shape == (2, N, K, 60, D + 1)
    assert engine.lots.inputs.untyped_storage().nbytes() == 2 * 60 * (D + 1) * 8
    assert engine.lots.x.data_ptr() == engine.lots.inputs.data_ptr()


def test_lots_carry_tags_as_elsewhere() -> None:
    engine = make_engine(50, **{"lots.tags": {"a": 0.5, "b": 0.5}, "profiles": [{"forbidden_tags": ["b"]}], "reward.scale": 1.0})
    engine.reset(range(50))
    assert 0.4 < engine.lots.tags.double().mean() < 0.6
    assert torch.equal(engine.prospect.passes, engine.lots.tags == 0)


# Batches and seeds


def test_a_batch_equals_its_singles_and_a_seed_its_trajectory() -> None:
    batch = make_engine(3, "shapley", **{"reward.scale": 100.0})
    singles = [make_engine(1, "shapley", **{"reward.scale": 100.0}) for _ in range(3)]
    seeds = [5, 2**40 + 1, 5]
    batch.reset(seeds)
    for seed, single in zip(seeds, singles, strict=True):
        single.reset([seed])
    generator = torch.Generator().manual_seed(0)
    for _ in range(4):
        actions = torch.rand(1, N, K, generator=generator) < 0.6
        result = batch.step(actions.expand(3, N, K))
        for e, single in enumerate(singles):
            alone = single.step(actions)
            for name in ("observations", "rewards", "credit", "utility", "blocked_by"):
                torch.testing.assert_close(getattr(result, name)[e], getattr(alone, name)[0])
        torch.testing.assert_close(result.rewards[0], result.rewards[2], rtol=1e-9, atol=1e-9)  # products of a batch may round by row
        assert (result.rewards[0] - result.rewards[1]).abs().max() > 1e-6


# The game


def test_the_game_is_the_utility_of_the_members_new_embeddings_beside_the_others_old_ones() -> None:
    engine = make_engine(2, "shapley")
    engine.reset([7, 8])
    coalitions = coalition_matrix(N)
    generator = torch.Generator().manual_seed(3)
    rows = engine.splits.validation
    for _ in range(3):
        old = engine.theta.reshape(2, D + 1, C).clone()
        proposed = engine.prospect.proposals.updates.reshape(2, N, K, D + 1, C) / (N * K)
        engine.step(torch.rand(2, N, K, generator=generator) < 0.7)
        value = engine.round.value(coalitions)
        for e in range(2):
            embeddings = torch.zeros(2, N, len(rows), C, dtype=torch.float64)  # of the last round and of this one
            for i in range(N):
                mine = slice(6 * i, 6 * i + 6)
                new = old[e] + (proposed[e, i] * engine.round.admitted[e, i, :, None, None]).sum(dim=0)
                embeddings[0, i], embeddings[1, i] = rows.x[:, mine] @ old[e, mine], rows.x[:, mine] @ new[mine]
            for c, members in enumerate(coalitions.long()):
                logits = embeddings[members, torch.arange(N)].sum(dim=0) + old[e, D]
                before = embeddings[0].sum(dim=0) + old[e, D]
                expected = cross_entropy(before, rows.y) - cross_entropy(logits, rows.y)
                torch.testing.assert_close(value[e, c], expected)


def test_clean_columns_raise_the_utility_and_wrongly_linked_ones_alone_do_not() -> None:
    gains = {}
    for kind in ("clean", "corrupt"):
        engine = make_engine(16, dtype=torch.float32)
        engine.reset(range(16))
        while engine.t < engine.horizon:
            engine.step(engine.lots.corrupt if kind == "corrupt" else ~engine.lots.corrupt)
        gains[kind] = float((engine.prospect.utility - engine.initial_utility).mean())
    assert gains["clean"] > 0.04
    assert gains["corrupt"] < 0


def test_the_oracle_beats_everybody_at_random_and_everything() -> None:
    welfare = {}
    for name in ("none", "all", "random", "oracle"):
        engine = make_engine(16, dtype=torch.float32)
        welfare[name] = float(agents.play(engine, agents.make(name), range(16))["welfare"].mean())
    assert welfare["none"] == 0
    assert welfare["oracle"] > 1.5 * max(welfare["all"], welfare["random"]) > 0


def test_it_is_a_petting_zoo_environment() -> None:
    env = cooperative_v0.parallel_env(scenario=NAME, credit="shapley")
    parallel_api_test(env, num_cycles=20)


@pytest.mark.parametrize("rule", [name for name in credit.RULES if credit.RULES[name].__module__.startswith("proxycoop.")])
def test_every_rule_pays_in_a_vertical_cooperative_and_what_it_promises(rule: str) -> None:
    engine = make_engine(2, rule, **{"reward.scale": 100.0})
    assert engine.rule is not None
    engine.reset([1, 2])
    for _ in range(3):
        result = engine.step(engine.prospect.passes)
        assert result.credit.isfinite().all()
        if engine.rule.efficient:
            torch.testing.assert_close(result.credit.sum(dim=1), result.gain, rtol=1e-6, atol=1e-9)


class Columnar(credit.Equal):
    """Equal pay for columns."""

    needs = ("columns",)


def test_a_rule_that_needs_columns_is_served_here_and_refused_elsewhere() -> None:
    rules = [Columnar(), *(["verfedsv"] if "verfedsv" in credit.RULES else [])]
    for rule in rules:
        engine = Engine(NAME, rule, 2)
        engine.reset([1, 2])
        assert engine.step(everything(engine)).credit.isfinite().all()
        with pytest.raises(ValueError, match=r"cannot serve scenario 'breast_cancer': .*has no columns: .*substrate vertical"):
            Engine("breast_cancer", rule)


# What is refused


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        ({"model": {"kind": "mlp"}}, "model.kind=mlp: only in a linear model do parameters belong to columns"),
        ({"weights": "participants"}, "weights=participants: the columns' parts add up, so renormalising"),
        ({"lots.rows": [60] * 5}, "all lots share the same rows; give one number"),
        ({"lots.mixture": {"kind": "logistic_normal"}}, "lots.mixture.kind=logistic_normal: all lots share the same rows"),
        ({"lots.mixture": {"concentration": 5}}, "lots.mixture.kind=dirichlet: all lots share the same rows"),
        ({"lots.site_shift": 0.5}, "lots.site_shift=0.5: no two principals hold the same column"),
        ({"lots.corruption": {"what": "labels", "pairs": [[0, 1]]}}, "lots.corruption.what=labels: principals hold columns"),
        ({"lots.corruption": {"what": "labels", "pairs": [[0, 1]], "share": 0.0}}, "use what: links, without pairs"),
        ({"lots.corruption.pairs": [[0, 1]]}, "with what: links no labels are swapped"),
        ({"lots.corruption.rate": 0.0}, "no row is linked wrongly: give a rate above 0"),
        ({"lots.corruption.rate": 0.02}, "lots.corruption.rate=0.02 of lots.rows=60: wrong links need at least two rows"),
    ],
)
def test_what_does_not_apply_to_columns_is_refused_rather_than_ignored(overrides: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the message is looked at below)
        scenario.load(NAME, **overrides)
    assert complaint in str(caught.value)


@pytest.mark.parametrize("substrate", ["fedavg", "traversal"])
def test_wrong_links_are_refused_where_principals_hold_rows(substrate: str) -> None:
    with pytest.raises(ValueError, match=r"lots.corruption.what=links needs substrate vertical"):
        scenario.load(NAME, substrate={"kind": substrate})


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        ({"data.columns": list(range(14))}, "14 columns cannot be cut into 5 × 3 = 15 lots"),
        ({"lots.rows": 400}, "lots.rows=400: the train pool has only 139 rows"),
    ],
)
def test_data_that_is_too_small_is_refused_before_the_first_round(overrides: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the message is looked at below)
        make_engine(**overrides)
    assert complaint in str(caught.value)


def test_no_seat_can_hold_copies_of_anothers_columns_and_asking_for_it_changes_nothing() -> None:
    engine = make_engine(1)
    engine.reset([1])
    with pytest.raises(ValueError, match=r"copies=\{1: 0\}: seats of a vertical cooperative hold columns"):
        engine.reset([2], copies={1: 0})
    assert engine.seeds.tolist() == [1]
    with pytest.raises(ValueError, match="lots are columns"):
        engine.lots.seated([0, 0, 2, 3, 4])


def test_without_corruption_a_vertical_scenario_needs_no_word_on_it() -> None:
    made = scenario.load(NAME, **{"lots.corruption": {}, "reward.scale": 1.0})
    engine = Engine(made, None)
    engine.reset([1])
    assert not engine.lots.corrupt.any()
