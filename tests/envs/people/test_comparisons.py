"""Choices between pairs of updates: what is refused at the door, with its line, and that files come back as they went."""

from __future__ import annotations

import numpy as np
import pytest

from proxycoop.envs import Comparisons

HEADER = "a:women,a:men,a:gain,b:women,b:men,b:gain,choice,person\n"
GOOD = "0.1,0.2,1.5,0,0,0,a,ada\n-0.3,0.1,0.5,0.2,0.1,0.4,b,bob\n"


def written(tmp_path, text: str):
    path = tmp_path / "choices.csv"
    path.write_text(text)
    return path


def test_a_file_is_read_by_its_header_whatever_the_order_of_columns(tmp_path):
    path = written(tmp_path, "person,choice,b:women,a:women\nada,A,0,0.25\n\nbob, b ,0.5,-1\n")
    comparisons = Comparisons.from_csv(path)
    assert comparisons.values == ("women",)
    assert comparisons.first.tolist() == [[0.25], [-1]]
    assert comparisons.second.tolist() == [[0], [0.5]]
    assert comparisons.chose_first.tolist() == [True, False]
    assert comparisons.gain is None
    assert comparisons.persons == ("ada", "bob")


@pytest.mark.parametrize("gain", [False, True])
@pytest.mark.parametrize("person", [False, True])
def test_what_is_written_is_read_back(tmp_path, gain, person):
    random = np.random.default_rng(0)
    numbers = random.integers(-100, 100, (6, 20, 1)) / 128
    comparisons = Comparisons(
        ("x", "y"),
        np.concatenate([numbers[0], numbers[1]], axis=1),
        np.concatenate([numbers[2], numbers[3]], axis=1),
        random.random(20) < 0.5,
        np.concatenate([numbers[4], numbers[5]], axis=1) if gain else None,
        random.choice(["ada", "bob, jr"], 20) if person else None,
    )
    back = Comparisons.from_csv(comparisons.to_csv(tmp_path / "c.csv"))
    assert back.values == comparisons.values
    for name in ("first", "second", "chose_first", "gain", "person"):
        one, other = getattr(back, name), getattr(comparisons, name)
        assert (one is None) == (other is None)
        assert one is None or np.allclose(one, other, rtol=1e-5) if name not in ("person", "chose_first") else np.array_equal(one, other)


def test_a_file_to_be_filled_in_is_refused_until_it_is(tmp_path):
    comparisons = Comparisons(("x",), [[1.0]], [[2.0]], [True])
    path = comparisons.to_csv(tmp_path / "c.csv", answered=False)
    with pytest.raises(ValueError, match=r"c.csv:2: choice is '': must be a or b"):
        Comparisons.from_csv(path)


def test_some_pairs_can_be_taken_by_mask_or_index(tmp_path):
    comparisons = Comparisons.from_csv(written(tmp_path, HEADER + GOOD))
    one = comparisons.take(comparisons.person == "bob")
    assert one.first.tolist() == [[-0.3, 0.1]]
    assert one.gain.tolist() == [[0.5, 0.4]]
    assert comparisons.take([1, 0]).person.tolist() == ["bob", "ada"]


def test_differences_are_first_less_second_with_the_gain_last(tmp_path):
    comparisons = Comparisons.from_csv(written(tmp_path, HEADER + GOOD))
    assert comparisons.differences == pytest.approx(np.array([[0.1, 0.2, 1.5], [-0.5, 0, 0.1]]))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no column 'a:<value>'"),
        ("choice\na\n", "no column 'a:<value>'"),
        ("a:gain,b:gain,choice\n1,2,a\n", "no column 'a:<value>'"),
        ("a:x,choice\n1,a\n", "column 'b:x' is missing (columns in the file: a:x, choice)"),
        ("a:x,b:x\n1,2\n", "column 'choice' is missing"),
        ("a:x,b:x,a:gain,choice\n1,2,3,a\n", "column 'b:gain' is missing"),
        ("a:x,b:x,choice,note\n1,2,a,hm\n", "unknown column 'note': allowed are a:x, b:x, choice and person"),
        ("a:x,b:x,b:y,choice\n1,2,3,a\n", "unknown column 'b:y'"),
        ("a:x,a:x,b:x,choice\n1,1,2,a\n", "c.csv:1: a column occurs twice"),
        ("a:x,b:x,choice\n", "there are no comparisons"),
        ("a:x,b:x,choice\n1,2,a\n1,2,c\n", "c.csv:3: choice is 'c': must be a or b"),
        ("a:x,b:x,choice\n1,2,a\n\n1,two,a\n", "c.csv:4: b:x is 'two': must be a number"),
        ("a:x,b:x,choice\nnan,2,a\n", "c.csv:2: a:x is 'nan': must be finite"),
        ("a:x,b:x,choice\n1,inf,a\n", "c.csv:2: b:x is 'inf': must be finite"),
        ("a:x,b:x,choice\n1,1.0,a\n", "c.csv:2: a and b have the same effects"),
        ("a:x,b:x,choice\n1,2\n", "c.csv:2: has 2 cells, must have 3"),
        ("a:x,b:x,choice,person\n1,2,a,ada\n1,2,a, \n", "c.csv:3: person is empty"),
    ],
)
def test_a_wrong_file_is_refused_with_its_line(tmp_path, text, said):
    path = tmp_path / "c.csv"
    path.write_text(text)
    with pytest.raises(ValueError) as error:  # noqa: PT011  # the message is compared below, literally
        Comparisons.from_csv(path)
    assert said in str(error.value)
    assert "c.csv" in str(error.value)


def test_a_missing_or_binary_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"none.csv' cannot be read: No such file"):
        Comparisons.from_csv(tmp_path / "none.csv")
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"b.csv' is not a CSV file"):
        Comparisons.from_csv(tmp_path / "b.csv")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"values": ()}, "give at least one value, each once"),
        ({"values": ("x", "x")}, "give at least one value, each once"),
        ({"values": ("x", "gain")}, "none called 'gain'"),
        ({"first": np.zeros((3, 1))}, r"first has shape \(3, 1\) for 2 values and 3 pairs: must be \(3, 2\)"),
        ({"first": np.zeros(3)}, "first has shape"),
        ({"second": np.ones((2, 2))}, r"second has shape \(2, 2\)"),
        ({"chose_first": [True]}, "chose_first has shape"),
        ({"chose_first": [0, 1, 2]}, "chose_first: must be True or False"),
        ({"gain": np.zeros(3)}, r"gain has shape \(3,\)"),
        ({"person": ["ada"]}, "person has shape"),
        ({"second": [[1, 1], [1, np.nan], [1, 1]]}, "second: pair 1 has a number that is not finite"),
        ({"gain": [[0, 0], [0, 1], [np.inf, 1]]}, "gain: pair 2 has a number that is not finite"),
        ({"second": [[1, 1], [0, 0], [1, 1]]}, "pair 1: both updates have the same effects"),
        ({"first": np.zeros((0, 2)), "second": np.zeros((0, 2)), "chose_first": []}, "there are no comparisons"),
    ],
)
def test_wrong_arrays_are_refused(arguments, said):
    good = {"values": ("x", "y"), "first": np.zeros((3, 2)), "second": np.ones((3, 2)), "chose_first": [True, False, True]}
    Comparisons(**good)
    with pytest.raises(ValueError, match=said):
        Comparisons(**{**good, **arguments})
