"""One reader for all YAML: YAML 1.2's scalars, nothing read in two ways, and one error class for whatever cannot be read."""

import math
import os
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from proxycoop.strict_yaml import DEEPEST, LARGEST_FILE, MOST_VALUES, YAMLError, read_file, read_text, read_value, write


def fails(text: str) -> str:
    with pytest.raises(YAMLError) as refused:
        read_text(text, "f.yaml")
    return str(refused.value)


# Scalars: the examples and the table of YAML 1.2.2, chapter 10.3.2


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", "yes"),
        ("No", "No"),
        ("on", "on"),
        ("OFF", "OFF"),
        ("y", "y"),
        ("true", True),
        ("FALSE", False),
        ("tRue", "tRue"),
        ("~", None),
        ("Null", None),
        ("", None),
        ("0", 0),
        ("010", 10),
        ("0o10", 8),
        ("0x3A", 58),
        ("-19", -19),
        ("+12", 12),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("1:30", "1:30"),
        ("190:20:30.15", "190:20:30.15"),
        ("2024-01-01", "2024-01-01"),
        ("2024-99-99", "2024-99-99"),
        ("0.", 0.0),
        ("-0.0", -0.0),
        (".5", 0.5),
        ("1e5", 1e5),
        ("12e03", 12000.0),
        ("-2E+05", -2e5),
        (".inf", math.inf),
        ("-.Inf", -math.inf),
        ("+.INF", math.inf),
        ("inf", "inf"),
        ("nan", "nan"),
        ("=", "="),
        ("'010'", "010"),
        ('"true"', "true"),
        ("! 010", "010"),
        ("!!str 010", "010"),
        ("!!float 3", 3.0),
        ("!!int '3'", 3),
        ("!!null ''", None),
    ],
)
def test_scalars_are_those_of_the_core_schema_of_yaml_1_2(text, value):
    got = read_text(f"key: {text}\n", "f.yaml").value["key"]
    assert (type(got), got) == (type(value), value)
    assert read_value(text, "--set key") == value


def test_nan_is_a_number():
    assert math.isnan(read_value(".NaN", "--set key"))


# What is refused, and where


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("reward: {}\nhorizon: 8\nreward: {}\n", "f.yaml:3: not valid YAML: the key 'reward' is given twice, first in line 1: leave one"),
        ("a:\n  b: 1\n  c: 2\n  b: 3\n", "f.yaml:4: not valid YAML: the key 'b' is given twice, first in line 2"),
        ("a: {b: 1, b: 2}", "f.yaml:1: not valid YAML: the key 'b' is given twice"),
        ("3: a\n'3': b\n", "f.yaml:2: not valid YAML: the key '3' is given twice, first in line 1"),
        ("1: a\n1.0: b\n", "f.yaml:2: not valid YAML: the key '1.0' is given twice"),
        ("1: a\ntrue: b\n", "f.yaml:2: not valid YAML: the key 'True' is given twice"),
        ("a: &x {b: 1}\nc:\n  <<: *x\n", "f.yaml:3: not valid YAML: YAML 1.2 has no merge keys (<<): write the keys out"),
        ("a: 1\n[b]: 2\n", "f.yaml:2: not valid YAML: a key must be text or a number, not a sequence or mapping"),
        ("a: 1\nb: !!python/object:os.system {}\n", "f.yaml:2: not valid YAML: the tag '!!python/object:os.system' is not allowed here"),
        ("a: 1\nb: !mine 3\n", "f.yaml:2: not valid YAML: the tag '!mine' is not allowed here"),
        ("a: !!set {b, c}", "f.yaml:1: not valid YAML: the tag '!!set' is not allowed here"),
        ("a: !!timestamp 2024-01-01", "f.yaml:1: not valid YAML: the tag '!!timestamp' is not allowed here"),
        ("a: !!int yes", "f.yaml:1: not valid YAML: 'yes' is no int, as its tag says"),
        ("a: 1\n---\nb: 2\n", "f.yaml:2: not valid YAML: a second document begins here: leave one"),
        ("a:\n  b: 1\n\tc: 2\n", "f.yaml:3: not valid YAML: "),
        ("a:\n\t- 1\n", "cannot start any token: indent with spaces"),
        ("a: 1\nb: \x00\n", "f.yaml:2: not valid YAML: the character U+0000 is not allowed"),
        ("a: 1\r\nb: \x1b[31m\r\n", "f.yaml:2: not valid YAML: the character U+001B is not allowed"),
        ('a: 1\nb: "\\ud800"\n', "f.yaml:2: not valid YAML: half of a surrogate pair is no character"),
        ('a: 1\nb: "\\UFFFFFFFF"\n', "f.yaml:2: not valid YAML: the number of an escaped character or of YAML's version is out of range"),
        ("%YAML 1." + "9" * 5000 + "\n---\na: 1\n", "out of range"),
        ("a: 1\nb: 1e999\n", "f.yaml:2: not valid YAML: the number '1e999' is too large for a float of 64 bits"),
        ("a: 1e-999", "is too small for a float of 64 bits"),
        ("a: " + "9" * 5000, "has 5,000 characters: at most 400 are read"),
        ("a: *b", "f.yaml:1: not valid YAML: the alias 'b' names no anchor before it"),
        ("a: 1\nb: &x [*x]\n", "f.yaml:2: not valid YAML: the alias 'x' stands inside what it names"),
        ("a: &x 1\nb: &x 2\n", "f.yaml:2: not valid YAML: the anchor 'x' is given twice"),
        ("[" * 100_000, f"it has more than {DEEPEST} sequences and mappings within each other"),
        ("- " * 100_000, f"it has more than {DEEPEST} sequences and mappings within each other"),
        ("a: b: c", "f.yaml:1: not valid YAML: mapping values are not allowed here"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_in_one_way_is_refused_with_its_line(text, complaint):
    assert complaint in (message := fails(text)) or message.startswith(complaint)
    assert "\n" not in message
    assert message.startswith("f.yaml:")


def test_an_option_is_named_by_its_text_and_without_a_line():
    with pytest.raises(YAMLError) as refused:
        read_value("{a: 1, a: 2}", "--set 'lots={a: 1, a: 2}'")
    assert str(refused.value) == "--set 'lots={a: 1, a: 2}': not valid YAML: the key 'a' is given twice: leave one"


def test_an_alias_is_a_copy():
    value = read_text("a: &x {b: [1]}\nc: *x\n", "f.yaml").value
    value["a"]["b"].append(2)
    assert value == {"a": {"b": [1, 2]}, "c": {"b": [1]}}


def test_aliases_that_explode_are_refused_before_they_take_memory():
    laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
    laughs += "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30))
    assert f"it holds more than {MOST_VALUES:,} values, aliases written out" in fails(laughs)


def test_aliases_cannot_get_around_the_bound_on_depth():
    deep = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 100))
    assert f"f.yaml:{DEEPEST}: not valid YAML: it has more than {DEEPEST}" in fails(deep)


def test_lines_of_keys_and_items():
    assert read_text("a:\n  b: 1\nc:\n  - d\n  - e: 2\n", "f.yaml").lines == {
        ("a",): 1,
        ("a", "b"): 2,
        ("c",): 3,
        ("c", "0"): 4,
        ("c", "1"): 5,
        ("c", "1", "e"): 5,
    }


# Files


def test_a_byte_order_mark_is_skipped(tmp_path: Path):
    (tmp_path / "f.yaml").write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read_file(tmp_path / "f.yaml").value == {"a": 1}


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"a: 1\nb: caf\xe9\n", "byte 0xe9 in line 2 is not UTF-8: save it as UTF-8"),
        ("a: 1\n".encode("utf-16"), "byte 0xff in line 1 is not UTF-8: save it as UTF-8"),
        (b"a: \x00", "U+0000 is not allowed"),
    ],
)
def test_a_file_that_is_no_utf_8_text_is_named(tmp_path: Path, data, complaint):
    (tmp_path / "f.yaml").write_bytes(data)
    with pytest.raises(YAMLError, match=r"f\.yaml") as refused:
        read_file(tmp_path / "f.yaml", "scenario file")
    assert complaint in str(refused.value)


@pytest.mark.skipif(os.name != "posix", reason="needs pipes and devices with names")
def test_what_is_no_file_is_refused_at_once(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    for path, kind in ((tmp_path, "folder"), (tmp_path / "pipe", "named pipe"), ("/dev/zero", "device")):
        with pytest.raises(YAMLError, match=f"policy file '.*' cannot be read: it is a {kind}, must be a file"):
            read_file(path, "policy file")
    for path, why in ((tmp_path / "none", "No such file"), ("a\0b", "null")):
        with pytest.raises(YAMLError, match=f"cannot be read: .*{why}"):
            read_file(path)


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="needs /dev/fd")
def test_a_pipe_that_the_shell_opened_is_read():
    read, written = os.pipe()
    os.write(written, b"a: 1\n")
    os.close(written)
    try:
        assert read_file(f"/dev/fd/{read}").value == {"a": 1}
    finally:
        os.close(read)


def test_a_file_that_is_too_large_is_refused(tmp_path: Path):
    with (tmp_path / "f.yaml").open("wb") as file:
        file.truncate(LARGEST_FILE + 1)
    with pytest.raises(YAMLError, match="has more than 16,777,216 bytes"):
        read_file(tmp_path / "f.yaml")


# Writing, and anything at all

LETTERS = st.text(st.characters(exclude_categories=["Cs"]))
SCALARS = st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False) | LETTERS
PLAIN = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(LETTERS, inner, max_size=4), max_leaves=8)


def check_round_trip(data):
    text = write(data)
    assert read_text(text, "f.yaml").value == data
    assert yaml.safe_load(text) == data
    assert text.replace("\n", "").isprintable()


@pytest.mark.parametrize(
    "data", ["1e5", "0o10", "010", "no", "1:30", "2024-01-01", "", "~", "\u202e\x1b[31m", "\x85 \u2028", "a\n\nb", [], {}]
)
def test_what_is_written_is_read_back_by_yaml_1_2_and_1_1(data):
    check_round_trip(data)
    check_round_trip({"key": [data]})


@pytest.mark.slow
@given(PLAIN)
@settings(max_examples=500, deadline=None)
def test_any_plain_data_is_read_back(data):
    check_round_trip(data)


WORDS = r"""a b:_ -_ [ ] { } ,_ :_ ?_ &x_ *x_ !!int_ ! !< --- ... | >- ' " \ \x \U0010ffff # <<:_ 1 0o7 1e9 .inf ~ yes ` @ %YAML_1.2"""
PIECES = st.sampled_from([*(word.replace("_", " ") for word in WORDS.split()), "\t", "\n", "\n  ", "\r", "\0", "\ufeff", "\x85", " "])


def check_value_or_error(data: bytes, where: Path):
    where.write_bytes(data)
    try:
        value = read_file(where).value
    except YAMLError as refused:
        assert str(where) in str(refused)  # noqa: PT017
        assert str(refused).isprintable()  # noqa: PT017
        return
    assert isinstance(value, dict | list | str | int | float | None)


@pytest.mark.parametrize(
    "data", [b"\xff", b"\xef\xbb\xbf", b"%", b"%YAML", b"!<", b"&", b"*", b"? ", b"|", b"'", b'"\\', b"\0", b"\r", b"- - ? *"]
)
def test_a_fragment_gives_a_value_or_the_one_error(tmp_path: Path, data):
    check_value_or_error(data, tmp_path / "f.yaml")


@pytest.mark.slow
@given(st.binary(max_size=200) | st.lists(PIECES, max_size=30).map(lambda parts: "".join(parts).encode()))
@example(b'"\\UFFFFFFFF"')
@settings(max_examples=5_000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_give_a_value_or_the_one_error(tmp_path: Path, data):
    check_value_or_error(data, tmp_path / "f.yaml")
