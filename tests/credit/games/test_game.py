import re
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from proxycoop import credit

N = 4
WORTH = torch.tensor([1.0, 2.0, 4.0, 8.0], dtype=torch.float64)


def bits(coalitions: torch.Tensor) -> torch.Tensor:
    """A game whose worth tells the coalition: the sum of 2**i over its members."""
    return coalitions.double() @ WORTH


class Counted:
    """A game that remembers each coalition it was asked for."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def __call__(self, coalitions: torch.Tensor) -> torch.Tensor:
        v = bits(coalitions)
        self.seen += v.int().tolist()
        return v


# credit.coalition_matrix


@pytest.mark.parametrize("n", range(8))
def test_row_c_of_the_coalition_matrix_is_the_binary_form_of_c(n):
    rows = credit.coalition_matrix(n)
    assert rows.dtype == torch.bool
    assert rows.tolist() == [[bool(code >> i & 1) for i in range(n)] for code in range(2**n)]


@pytest.mark.parametrize("kind", [np.int8, np.int32, np.int64, np.uint8])
def test_the_number_of_players_may_be_numpys(kind):
    assert credit.coalition_matrix(kind(8)).shape == (256, 8)
    assert credit.CoalitionGame(bits, kind(N)).values().tolist() == [list(range(16))]
    assert type(credit.CoalitionGame(bits, kind(N)).n_players) is int
    assert credit.as_game(bits, kind(N)).grand().tolist() == [15.0]


@pytest.mark.parametrize("n", [-1, 21, 64, 3.0, True, "3", None])
def test_coalition_matrix_refuses_more_than_it_can_list(n):
    with pytest.raises(ValueError, match=rf"n_players={n!r}.*0 to 20"):
        credit.coalition_matrix(n)


# evaluation on demand


@given(st.lists(st.lists(st.integers(0, 2**N - 1), max_size=12), max_size=6))
def test_each_coalition_is_evaluated_at_most_once_and_answered_in_the_order_asked(requests):
    counted = Counted()
    game = credit.CoalitionGame(counted, N)
    for codes in requests:
        assert game.value(credit.coalition_matrix(N)[codes]).tolist() == [[float(code) for code in codes]]
    assert sorted(counted.seen) == sorted({code for codes in requests for code in codes})
    assert game.evaluations == len(counted.seen)


def test_repeated_and_known_coalitions_are_not_asked_for_again():
    counted = Counted()
    game = credit.CoalitionGame(counted, N)
    game.value(credit.coalition_matrix(N)[[5, 3, 5]])
    assert counted.seen == [5, 3]
    assert game.value(credit.coalition_matrix(N)[[3, 9, 5, 9]]).tolist() == [[3.0, 9.0, 5.0, 9.0]]
    assert counted.seen == [5, 3, 9]


def test_all_values_ask_only_for_what_is_not_known_yet():
    counted = Counted()
    game = credit.CoalitionGame(counted, N)
    game.grand()
    assert game.values().tolist() == [list(range(16))]
    game.values()
    game.value(credit.coalition_matrix(N)[[7, 7, 0]])
    assert sorted(counted.seen) == list(range(16))
    assert game.evaluations == 16


def test_the_function_never_sees_a_request_without_news():
    asked = []
    game = credit.CoalitionGame(lambda coalitions: (asked.append(len(coalitions)), bits(coalitions))[1], N)
    game.value(credit.coalition_matrix(N)[[1, 2]])
    game.value(credit.coalition_matrix(N)[[2, 1, 1]])
    game.value(credit.coalition_matrix(N)[[]])
    assert asked == [2]


def test_no_coalitions_give_no_values():
    assert credit.CoalitionGame(bits, N).value(torch.zeros(0, N, dtype=torch.bool)).shape == (1, 0)


def test_grand_is_the_worth_of_everybody():
    assert credit.CoalitionGame(lambda c: torch.stack([bits(c), -bits(c)]), N).grand().tolist() == [15.0, -15.0]


def test_coalitions_of_more_players_than_a_machine_word_has_bits_are_told_apart():
    n = 130
    rows = torch.eye(n, dtype=torch.bool).repeat(2, 1)
    rows = torch.cat([rows, ~rows])
    asked = []
    game = credit.CoalitionGame(lambda c: (asked.append(len(c)), c.double() @ torch.arange(n).double())[1], n)
    everybody = float(sum(range(n)))
    assert game.value(rows)[0].tolist() == 2 * [float(i) for i in range(n)] + 2 * [everybody - i for i in range(n)]
    assert game.value(rows[:3]).tolist() == [[0.0, 1.0, 2.0]]
    assert asked == [2 * n]
    assert game.evaluations == 2 * n


# all coalitions, a block at a time


def additive_game(n: int, asked: list[int] | None = None) -> credit.CoalitionGame:
    """A game whose worth tells the coalition: the sum of 2**i over its members."""

    def worth(coalitions: torch.Tensor) -> torch.Tensor:
        v = coalitions.double() @ 2.0 ** torch.arange(n, dtype=torch.float64)
        if asked is not None:
            asked.extend(v.long().tolist())
        return v

    return credit.CoalitionGame(worth, n)


@pytest.mark.parametrize("n", [1, 3, 14, 15, 16])
def test_blocks_hold_every_coalition_once_and_in_order_and_agree_with_values(n):
    asked: list[int] = []
    game = additive_game(n, asked)
    firsts, blocks = zip(*game.blocks(), strict=True)
    assert firsts == tuple(range(0, 2**n, 2 ** min(n, 14)))
    assert sorted(asked) == list(range(2**n))
    assert game.evaluations == 2**n
    expected = torch.arange(2**n, dtype=torch.float64)[None]
    assert torch.cat(blocks, dim=1).equal(expected)
    assert additive_game(n).values().equal(expected)


def test_a_game_of_at_most_14_players_is_kept_after_its_blocks_were_seen():
    asked: list[int] = []
    game = additive_game(14, asked)
    list(game.blocks())
    game.values()
    list(game.blocks())
    game.value(credit.coalition_matrix(14)[[5, 16383]])
    assert len(asked) == 2**14


def test_of_a_larger_game_the_worth_of_all_is_kept_after_its_blocks_were_seen():
    asked: list[int] = []
    game = additive_game(15, asked)
    list(game.blocks())
    assert game.grand().tolist() == [2.0**15 - 1]
    assert len(asked) == 2**15


def test_blocks_ask_only_for_what_is_not_known_yet():
    asked: list[int] = []
    game = additive_game(6, asked)
    game.grand()
    game.value(credit.coalition_matrix(6)[[1, 2, 4]])
    list(game.blocks())
    assert sorted(asked) == list(range(64))


def test_a_stream_that_was_left_has_not_evaluated_everything():
    game = additive_game(16)
    next(game.blocks())
    assert game.evaluations < 2**16


def test_value_block_serves_all_coalitions_and_every_later_request():
    def unused(coalitions):
        raise AssertionError("value was asked although value_block has answered")

    game = credit.CoalitionGame(unused, N, value_block=lambda first, n_low: torch.arange(first, first + 2.0**n_low)[None])
    assert game.values().tolist() == [list(range(16))]
    assert game.value(credit.coalition_matrix(N)[[6, 6, 9]]).tolist() == [[6.0, 6.0, 9.0]]
    assert game.grand().tolist() == [15.0]
    assert game.evaluations == 16


@pytest.mark.parametrize(("n", "n_low"), [(4, 4), (14, 14), (15, 14), (17, 14)])
def test_value_block_is_asked_for_aligned_blocks_of_all_coalitions_once(n, n_low):
    asked = []

    def block(first: int, n_low: int) -> torch.Tensor:
        asked.append((first, n_low))
        return torch.arange(first, first + 2**n_low, dtype=torch.float64)[None]

    game = credit.CoalitionGame(bits, n, value_block=block)
    assert torch.cat([v for _, v in game.blocks()], dim=1).equal(torch.arange(2**n, dtype=torch.float64)[None])
    assert asked == [(first, n_low) for first in range(0, 2**n, 2**n_low)]
    assert all(first % 2**low == 0 for first, low in asked)


def test_value_block_is_not_asked_for_single_coalitions():
    def unused(first, n_low):
        raise AssertionError("value_block was asked for one coalition")

    assert credit.CoalitionGame(bits, N, value_block=unused).grand().tolist() == [15.0]


def test_a_function_that_writes_into_its_argument_spoils_nothing():
    def careless(coalitions):
        v = bits(coalitions)
        coalitions.zero_()
        return v

    game = credit.CoalitionGame(careless, N)
    assert game.values().tolist() == [list(range(16))]
    assert credit.coalition_matrix(N)[15].all()


def test_a_writer_into_the_values_does_not_change_the_game():
    game = credit.CoalitionGame(bits, N)
    game.values().zero_()
    assert game.grand().tolist() == [15.0]


def test_a_function_that_reuses_its_buffer_does_not_change_what_is_known():
    buffer = np.zeros(16)

    def reuse(coalitions):
        buffer[: len(coalitions)] = bits(coalitions).numpy()
        return buffer[: len(coalitions)]

    game = credit.CoalitionGame(reuse, N)
    assert game.value(credit.coalition_matrix(N)[[3]]).tolist() == [[3.0]]
    game.grand()
    assert game.value(credit.coalition_matrix(N)[[3]]).tolist() == [[3.0]]


def test_a_function_that_failed_can_be_asked_again():
    answers = iter([torch.zeros(7, 7, 7), RuntimeError("out of memory")])

    def fails_twice(coalitions):
        answer = next(answers, None)
        if isinstance(answer, Exception):
            raise answer
        return bits(coalitions) if answer is None else answer

    game = credit.CoalitionGame(fails_twice, N)
    with pytest.raises(ValueError, match="shape"):
        game.grand()
    with pytest.raises(RuntimeError, match="out of memory"):
        game.grand()
    assert game.evaluations == 0
    assert game.grand().tolist() == [15.0]


# what a function may answer


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(lambda c: bits(c).numpy(), id="numpy"),
        pytest.param(lambda c: np.stack([bits(c).numpy()]), id="numpy matrix"),
        pytest.param(lambda c: bits(c).int().numpy(), id="numpy int"),
        pytest.param(lambda c: bits(c).long(), id="int"),
        pytest.param(lambda c: np.broadcast_to(bits(c).numpy(), (1, len(c))), id="read-only numpy"),
    ],
)
def test_numpy_and_int_answers_become_float64_tensors(answer):
    v = credit.CoalitionGame(answer, N).values()
    assert v.dtype == torch.float64
    assert v.tolist() == [list(range(16))]


def test_bool_answers_of_a_simple_game_become_zero_and_one():
    assert credit.CoalitionGame(lambda c: c.all(dim=1), 2).values().tolist() == [[0.0, 0.0, 0.0, 1.0]]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(lambda c: bits(c).numpy().astype(">f8"), id="big-endian"),
        pytest.param(lambda c: c.numpy().astype(">i4") @ np.array([1, 2, 4, 8]), id="big-endian whole"),
        pytest.param(lambda c: bits(c).numpy().astype(np.longdouble), id="long double"),
        pytest.param(lambda c: bits(c).numpy().astype(np.uint16), id="unsigned"),
        pytest.param(lambda c: [Decimal(worth) for worth in bits(c).tolist()], id="Decimal"),
        pytest.param(lambda c: np.array([Fraction(worth) for worth in bits(c).tolist()]), id="Fraction"),
        pytest.param(lambda c: [int(worth) for worth in bits(c).tolist()], id="list of whole numbers"),
        pytest.param(lambda c: [bits(c).tolist()], id="list of lists"),
        pytest.param(lambda c: list(bits(c)), id="list of tensors"),
        pytest.param(lambda c: tuple(bits(c)), id="tuple of tensors"),
    ],
)
def test_answers_in_numbers_of_any_real_type_are_read(answer):
    game = credit.CoalitionGame(answer, N)
    assert game.value(credit.coalition_matrix(N)[[5, 3]]).tolist() == [[5.0, 3.0]]
    assert game.values().tolist() == [list(range(16))]
    assert game.values().dtype == torch.float64


def test_a_big_endian_answer_keeps_its_precision_and_what_is_masked_is_nan():
    v = credit.CoalitionGame(lambda c: bits(c).numpy().astype(">f4"), N).values()
    assert v.dtype == torch.float32
    assert v.tolist() == [list(range(16))]
    masked = credit.CoalitionGame(lambda c: np.ma.masked_equal(bits(c).numpy(), 3), N).values()
    assert masked.isnan().nonzero().tolist() == [[0, 3]]


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (lambda c: None, "None"),
        (lambda c: [None] * len(c), r"\[None, None"),
        (lambda c: [0.0] * (len(c) - 1) + [None], r"\[0.0"),
        (lambda c: ["1.5"] * len(c), "'1.5'"),
        (lambda c: [Decimal(1)] * (len(c) - 1) + ["1.5"], "Decimal"),
        (lambda c: dict.fromkeys(range(len(c)), 1.0), "{0: 1.0"),
        (lambda c: (worth for worth in bits(c).tolist()), "generator"),
        (lambda c: [[1.0], [1.0, 2.0]], r"\[\[1.0\]"),
        (lambda c: np.zeros(len(c), dtype="M8[D]"), "1970"),
        (lambda c: [10**400] * len(c), "1000"),
        (lambda c: bits(c) + 1j, "complex128"),
        (lambda c: bits(c).numpy() + 1j, "complex128"),
    ],
)
@pytest.mark.parametrize("build", [credit.CoalitionGame, credit.as_game])
def test_answers_that_are_no_real_numbers_are_refused_and_shown(build, answer, named):
    with pytest.raises(ValueError, match=rf"the game answered with .*{named}.*must be a real number"):
        build(answer, N).values()


@pytest.mark.parametrize("as_list", [False, True])
def test_gradients_pass_through_a_game(as_list):
    worth = WORTH.clone().requires_grad_()
    game = credit.CoalitionGame(lambda c: list(c.double() @ worth) if as_list else c.double() @ worth, N)
    game.value(credit.coalition_matrix(N)[[5, 3]]).sum().backward()
    assert worth.grad is not None
    assert worth.grad.tolist() == [2.0, 1.0, 1.0, 0.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_floating_point_answers_keep_their_precision(dtype):
    assert credit.CoalitionGame(lambda c: bits(c).to(dtype), N).values().dtype == dtype


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(lambda c: torch.tensor(1.0), id="scalar"),
        pytest.param(lambda c: torch.zeros(len(c) + 1), id="one too many"),
        pytest.param(lambda c: torch.zeros(len(c), 3), id="transposed"),
        pytest.param(lambda c: torch.zeros(3, len(c), 1), id="one axis too many"),
    ],
)
def test_answers_of_the_wrong_shape_are_refused(answer):
    with pytest.raises(ValueError, match=r"answered with shape \(.*\) for 16 coalitions"):
        credit.CoalitionGame(answer, N).values()


def test_value_block_of_the_wrong_shape_is_refused():
    with pytest.raises(ValueError, match=r"answered with shape \(1, 15\) for 16 coalitions"):
        credit.CoalitionGame(bits, N, value_block=lambda first, n_low: torch.zeros(1, 15)).values()


def test_a_changed_number_of_environments_is_refused_and_what_was_known_stays_known():
    n_envs = iter([1, 2])
    game = credit.CoalitionGame(lambda c: bits(c).expand(next(n_envs), -1), N)
    game.value(credit.coalition_matrix(N)[[1]])
    with pytest.raises(ValueError, match="2 environments, and before for 1"):
        game.value(credit.coalition_matrix(N)[[2]])
    assert game.evaluations == 1
    assert game.value(credit.coalition_matrix(N)[[1]]).tolist() == [[1.0]]


# what a caller may ask


@pytest.mark.parametrize(
    "coalitions",
    [
        pytest.param(torch.ones(1, N), id="float"),
        pytest.param(torch.ones(1, N, dtype=torch.int64), id="int"),
        pytest.param(torch.ones(N, dtype=torch.bool), id="vector"),
        pytest.param(torch.ones(1, N + 1, dtype=torch.bool), id="one player too many"),
        pytest.param(torch.ones(1, 1, N, dtype=torch.bool), id="one axis too many"),
        pytest.param(np.ones((1, N), dtype=bool), id="numpy"),
    ],
)
@pytest.mark.parametrize("all_known", [False, True])
def test_coalitions_of_the_wrong_type_or_shape_are_refused(coalitions, all_known):
    game = credit.CoalitionGame(bits, N)
    if all_known:
        game.values()
    with pytest.raises(ValueError, match=rf"bool of shape \(n_coalitions, {N}\), got .*\("):
        game.value(coalitions)


@pytest.mark.parametrize("n", [0, -3, 3.0, True, "3", np.float64(3), np.int64(-1)])
@pytest.mark.parametrize("build", [credit.CoalitionGame, credit.as_game, credit.make("shapley").values, credit.make("svarm").estimate])
def test_a_number_of_players_that_is_none_is_refused(build, n):
    with pytest.raises(ValueError, match=re.escape(f"n_players={n!r}: must be a whole number, and a game needs at least one player")):
        build(bits, n)


def test_twenty_one_players_are_served_on_demand_but_not_listed():
    game = credit.CoalitionGame(lambda c: c.double().sum(dim=1), 21)
    assert game.grand().tolist() == [21.0]
    with pytest.raises(ValueError, match="n_players=21"):
        game.values()
    with pytest.raises(ValueError, match="n_players=21"):
        next(game.blocks())


# credit.as_game


class Shifted(Counted):
    """A function with v(∅) = 100 that knows its number of players."""

    n_players = N

    def __call__(self, coalitions: torch.Tensor) -> torch.Tensor:
        return super().__call__(coalitions) + 100.0


def test_as_game_subtracts_the_worth_of_nobody_and_asks_for_it_once():
    shifted = Shifted()
    game = credit.as_game(shifted)
    assert game.value(credit.coalition_matrix(N)[[3, 8]]).tolist() == [[3.0, 8.0]]
    assert game.grand().tolist() == [15.0]
    assert game.value(torch.zeros(1, N, dtype=torch.bool)).tolist() == [[0.0]]
    assert shifted.seen.count(0) == 2  # once to subtract it, once because it was asked for
    assert game.evaluations == 4


def test_as_game_subtracts_the_worth_of_nobody_in_each_environment():
    v = torch.tensor([[5.0, 6.0, 7.0, 8.0], [-1.0, 0.0, 1.0, 5.0]])
    game = credit.as_game(lambda c: v[:, (c * torch.tensor([1, 2])).sum(dim=1)], 2)
    assert game.values().tolist() == [[0.0, 1.0, 2.0, 3.0], [0.0, 1.0, 2.0, 6.0]]


def test_as_game_takes_numpy_whole_and_truth_valued_answers():
    for answer in (lambda c: bits(c).numpy() + 7, lambda c: bits(c).long() + 7, lambda c: bits(c).int().numpy() + 7):
        assert credit.as_game(answer, N).values().tolist() == [list(range(16))]
    assert credit.as_game(lambda c: ~c.any(dim=1), 2).values().tolist() == [[0.0, -1.0, -1.0, -1.0]]


@pytest.mark.parametrize("game", [3, "glove", None, torch.zeros(1, 16), {(0,): 1.0}])
def test_as_game_refuses_what_cannot_be_asked(game):
    with pytest.raises(ValueError, match=r"game=.*must be a CoalitionGame or a function of coalitions.*table_game"):
        credit.as_game(game, N)


def test_as_game_returns_a_game_as_it_is():
    game = credit.CoalitionGame(bits, N)
    assert credit.as_game(game) is game
    assert credit.as_game(game, N) is game


def test_as_game_reads_the_number_of_players_off_the_function():
    assert credit.as_game(Shifted()).n_players == N
    assert credit.as_game(Shifted(), N).n_players == N


@pytest.mark.parametrize("game", [Shifted(), credit.CoalitionGame(bits, N)])
def test_as_game_refuses_a_number_of_players_that_contradicts_the_game(game):
    with pytest.raises(ValueError, match="n_players=3, but the game has 4 players"):
        credit.as_game(game, 3)


def test_as_game_says_how_to_tell_the_number_of_players():
    with pytest.raises(ValueError, match=r"n_players is missing.*n_players=6"):
        credit.as_game(bits)


@pytest.mark.parametrize("answer", [lambda c: torch.tensor(1.0), lambda c: torch.zeros(1), lambda c: torch.zeros(2, 3, len(c))])
def test_as_game_refuses_answers_of_the_wrong_shape(answer):
    with pytest.raises(ValueError, match="answered with shape"):
        credit.as_game(answer, N).values()


@pytest.mark.parametrize("change", [lambda v: v.to_sparse(), lambda v: v.to(torch.float8_e4m3fn)])
def test_worths_in_a_form_that_is_not_computed_with_are_converted(change):
    values = credit.make("shapley").values(lambda s: change(s.float().sum(dim=1)), 3)
    torch.testing.assert_close(values.double(), torch.ones(1, 3, dtype=torch.float64))
