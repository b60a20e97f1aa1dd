"""What commands write: any encoding takes it, names that differ look different, and nothing that users wrote moves the cursor."""

import io
import itertools
import os
import shlex
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from proxycoop.agents import AGENTS
from proxycoop.credit import RULES
from proxycoop.credit.ledger.ledger import Ledger
from proxycoop.envs import Engine, scenario
from proxycoop.envs.rendering import render_text
from proxycoop.text import encodable, one_line, printable, shortened
from proxycoop.training import terminal
from proxycoop.training.commands import cli
from proxycoop.training.pages.page import write_page

ROOT = Path(__file__).parents[2]

# Encodings


@pytest.mark.parametrize(
    ("text", "encoding", "written"),
    [
        ("−14.0 ± 2.5", "ascii", "-14.0 +/- 2.5"),
        ("−14.0 ± 2.5", "latin-1", "-14.0 ± 2.5"),
        ("−14.0 ± 2.5", "utf-8", "−14.0 ± 2.5"),
        ("2 × 3 · 4 … → ≤ θ Δ ∞", "ascii", "2 x 3 * 4 ... -> <= theta Delta inf"),
        ("Zoë 名", "ascii", r"Zo\xeb \u540d"),  # a name stays a name that one can tell from others
        ("a − b", None, "a − b"),
    ],
)
def test_characters_of_ours_become_ascii_where_an_encoding_lacks_them(text, encoding, written):
    assert encodable(text, encoding) == written


def test_every_character_that_the_package_prints_has_an_ascii_form():
    """All of our own text: code, docstrings (which commands print) and scenarios. Names in references keep their letters, escaped."""
    paths = itertools.chain.from_iterable((ROOT / top).rglob("*.py") for top in ("agents", "credit", "envs", "training", "src"))
    ours = set().union(*(path.read_text(encoding="utf-8") for path in [*paths, *(ROOT / "envs").rglob("*.yaml")]))
    symbols = [one for one in ours if not one.isascii() and unicodedata.category(one)[0] in "PS"]
    assert [one for one in symbols if encodable(one, "ascii").startswith("\\u")] == []


def command(*words: str, **environment: str) -> "subprocess.CompletedProcess[bytes]":
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "PYTHON")) and name != "LANG"}
    return subprocess.run(
        [sys.executable, "-m", "proxycoop", *words], check=False, capture_output=True, env=kept | environment | {"OMP_NUM_THREADS": "1"}
    )


@pytest.fixture
def statement(tmp_path):
    """Words of a command that shows a table and then writes ``all.csv``."""
    with Ledger(tmp_path / "books.db") as books:
        books.init("c", ["Ada"])
        books.record("c", 0, {"Ada": 1.0}, 500)
        books.settle("c")
    return "ledger", "statement", str(tmp_path / "books.db"), "Ada", "--csv", str(tmp_path / "all.csv")


def test_files_are_written_though_the_reader_of_standard_output_has_ended(run, statement, tmp_path, monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(os.fdopen(writer, "wb")))
    code, _, err = run(*statement)
    sys.stdout.close()
    assert (code, err) == (1, "")
    assert (tmp_path / "all.csv").read_text().startswith("settlement")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_files_are_written_though_the_disk_of_standard_output_is_full(run, statement, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdout", Path("/dev/full").open("w", encoding="utf-8"))  # noqa: SIM115 (closed below)
    code, _, err = run(*statement)
    sys.stdout.close()
    assert code == 1
    assert err == "error: [Errno 28] No space left on device: the output is incomplete; what was done before is kept\n"
    assert (tmp_path / "all.csv").read_text().startswith("settlement")


def test_files_are_written_though_standard_output_is_closed(run, statement, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    code, _, err = run(*statement)
    sys.stdout.close()
    assert (code, err) == (0, "")
    assert (tmp_path / "all.csv").exists()


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell")
@pytest.mark.parametrize(("end", "code"), [("| true", "1"), (">&-", "0"), ("2>&- | cat", "0")])
def test_files_are_written_in_a_shell_that_does_not_read_all(statement, tmp_path, end, code):
    words = shlex.join([sys.executable, "-m", "proxycoop", *statement])
    done = subprocess.run(["/bin/sh", "-c", f"({words}; echo $? > code) {end}"], cwd=tmp_path, check=False, capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    assert (tmp_path / "all.csv").exists()
    assert (tmp_path / "code").read_text().strip() == code


def test_a_terminal_of_unknown_width_gets_text(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "0")
    monkeypatch.setattr(sys, "argv", ["proxycoop", "rules", "--help"])
    with pytest.raises(SystemExit):
        cli.main()
    assert "Test whether the rule" in capsys.readouterr().out


ASCII_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("environment", "encoding"),
    [
        ({"PYTHONIOENCODING": "ascii"}, "ascii"),
        ({"PYTHONIOENCODING": "cp1252"}, "cp1252"),
        (ASCII_LOCALE, "ascii"),
        ({"LC_ALL": "C"}, "utf-8"),
    ],
)
def test_commands_write_minus_signs_and_intervals_in_any_encoding(environment, encoding):
    for words in (
        ("play", "--agent", "all", "--last"),
        ("evaluate", "--agent", "honest", "--episodes", "2"),
        ("rules", "shapley"),
        ("scenarios",),
        ("--help",),
    ):
        done = command(*words, **environment)
        text = done.stdout.decode(encoding)
        assert (done.returncode, done.stderr) == (0, b""), words
        assert not [mark for mark in (r"\xb1", r"\xb7", r"\xd7") if mark in text], words
        assert "\\u" not in text, words


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_streams_are_prepared_for_their_encoding(monkeypatch, encoding):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    terminal.prepare_streams()
    terminal.say("−1.5 ± 0.2\x1b[2J\u202e\n")
    table = terminal.table_of("name", "± 95 %")
    terminal.add_row(table, "[bold]x[/bold]\x07", "−3")
    terminal.show(table)
    sys.stdout.flush()
    text = raw.getvalue().decode(encoding)
    assert "\\u2212" not in text
    assert r"\x1b[2J\u202e" in text
    assert r"[bold]x[/bold]\x07" in text
    assert ("-3" in text) == (encoding != "utf-8")


def test_a_person_watching_in_ascii_sees_the_rounds(monkeypatch):
    from proxycoop.envs import cooperative_v0

    raw = io.BytesIO()
    env = cooperative_v0.parallel_env("digits", "loo", render_mode="human")
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    env.reset(seed=0)
    env.step({agent: env.action_space(agent).sample() for agent in env.agents})
    sys.stdout.flush()
    assert b"digits * credit rule: loo" in raw.getvalue()


# Text from users


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31mb", r"a\x1b[31mb"),
        ("safe\u202etxt.exe", r"safe\u202etxt.exe"),
        ("a\u2066b\u2069c\u200fd", r"a\u2066b\u2069c\u200fd"),
        ("a\x00b\x7fc\x9bd", r"a\x00b\x7fc\x9bd"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("שלום 名前", "שלום 名前"),
        ("\ud800", r"\ud800"),
    ],
)
def test_characters_that_command_a_terminal_or_reverse_a_line_are_escaped(text, shown):
    assert printable(text) == one_line(text) == shown


def test_line_breaks_stay_unless_there_is_one_line():
    assert printable("a\nb\tc\u2028d") == "a\nb\\tc\\u2028d"
    assert one_line("a\nb\tc\u2028d") == "a b c d"


HOSTILE = "fine\u202eenif\x1b[2J"


def test_hostile_descriptions_are_escaped_on_the_terminal_and_can_be_read_back(capsys, monkeypatch, tmp_path):
    made = scenario.load("digits", description=HOSTILE)
    (tmp_path / "mine.yaml").write_text(made.to_yaml(), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["proxycoop", "scenarios", str(tmp_path / "mine.yaml")])
    with pytest.raises(SystemExit):
        cli.main()
    out = capsys.readouterr().out
    assert r'description: "fine\u202eenif\e[2J"' in out
    assert out.replace("\n", "").isprintable()
    (tmp_path / "again.yaml").write_text(out, encoding="utf-8")
    assert scenario.load(tmp_path / "again.yaml") == made


def test_hostile_text_is_escaped_on_pages(tmp_path, monkeypatch):
    from proxycoop.training.pages import page

    monkeypatch.setattr(page, "_template", lambda _: "<p>{{ name }}</p><b title='{{ name }}'>{{ n }}</b>")
    written = write_page(tmp_path / "p.html", "any", name=HOSTILE + "<i>", n=3).read_text()
    shown = r"fine\u202eenif\x1b[2J&lt;i&gt;"
    assert written == f"<p>{shown}</p><b title='{shown}'>3</b>"


# Names that are cut


@given(st.lists(st.text(st.sampled_from("ab"), max_size=30), max_size=12), st.integers(8, 20))
def test_short_names_differ_where_names_differ(names, length):
    short = shortened(names, length)
    assert all(len(one) <= length for one in short)
    assert len(set(zip(names, short, strict=True))) == len(set(names)) == len(set(short))


def test_a_short_name_shows_where_names_differ():
    assert shortened(["breast_cancer-hospitals", "breast_cancer-vertical", "digits"], 14) == ["brea…hospitals", "brea…-vertical", "digits"]
    assert shortened(["a" * 20 + "x" + "b" * 20, "a" * 20 + "y" + "b" * 20], 10) == ["aaa…aaxbbb", "aaa…aaybbb"]
    assert shortened(["a" * 30], 10) == ["aaaaaaaaa…"]


@pytest.mark.parametrize("width", [20, 40, 60, 80, 120])
def test_no_name_in_a_table_is_cut_however_narrow_the_terminal(monkeypatch, width):
    out = io.StringIO()
    monkeypatch.setattr(terminal, "console", lambda: Console(width=width, file=out))
    for words in (["scenarios"], ["rules"], ["libraries"], ["agents"]):
        monkeypatch.setattr(sys, "argv", ["proxycoop", *words])
        with pytest.raises(SystemExit):
            cli.main()
    text = out.getvalue()
    assert "…" not in text
    for name in (*scenario.names(), *RULES, *AGENTS, "maskable_ppo"):
        assert any(name in line.split() for line in text.splitlines()), name


def test_columns_that_a_narrow_terminal_lacks_are_named(capsys, monkeypatch):
    monkeypatch.setattr(terminal, "console", lambda: Console(width=30, file=sys.stdout))
    table = terminal.table_of("name", "much\nmore", "most")
    terminal.add_row(table, "n" * 12, "m" * 12, "k" * 12)
    terminal.show(table, spare=("much\nmore",))
    out = capsys.readouterr().out
    assert "n" * 12 in out
    assert "k" * 12 in out
    assert "m" * 12 not in out
    assert out.endswith("a wider terminal, or a file, also gets: much more\n")


def test_profiles_that_are_cut_in_a_round_still_differ():
    values = {f"value_{'x' * 20}_{i}": {"kind": "class_loss", "label": i} for i in range(4)}
    profiles = [{"tolerances": dict.fromkeys(list(values)[: i + 2], 0.1)} for i in range(3)]
    engine = Engine(scenario.load("digits", values=values, profiles=profiles, profiles_drawn=False), "loo")
    engine.reset([0])
    protects = [line.split()[1] for line in render_text(engine).splitlines() if line.startswith("proxy_")]
    assert any("…" in one for one in protects)
    assert len(set(protects[:3])) == 3


# Notes


def test_a_note_is_told_once_in_a_command_and_again_in_the_next(capsys):
    for _ in range(2):
        terminal.prepare_streams()
        terminal.remark("the start \x1b[31m is poor")
        terminal.remark("the start \x1b[31m is poor")
        terminal.remark("another")
        assert capsys.readouterr().err == "note: the start \\x1b[31m is poor\nnote: another\n"
