"""What the pages of the site show works as it stands.

How a page is read:

* its ```` ```python ```` blocks run one after another, in one namespace and an empty folder; ```` ```py ```` is for what cannot run here;
* a block whose first line is a comment with a path, ``# clinics/data.py``, is written to that file instead;
* a ```` ```text ```` block right below, with no word between, is what was printed, with ``…`` for what may be left out; numbers may differ
  by a little;
* in ```` ```console ```` blocks, commands of ``proxycoop`` exist, with their options, and ``make`` has the targets;
* what follows ``<!-- slow -->`` on a page runs in ``make slow`` only.

The pages of the course *Fifteen minutes* build on each other in one folder.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
import typer

from proxycoop import credit
from proxycoop.agents import AGENTS
from proxycoop.envs import scenario
from proxycoop.envs.data import DATA, sources
from proxycoop.envs.values import VALUES
from proxycoop.training.commands.cli import app

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
COURSE = [DOCS / "fifteen-minutes" / f"{name}.md" for name in ("data", "scenario", "rule", "value", "model", "compare")]
ELSEWHERE = {"rl/torchrl.md"}  # needs TorchRL: tests/benchmarl runs it
GENERATED = ("results", "api", "credit/rules")
REGISTRIES = {"credit rules": credit.RULES, "data sources": DATA, "values": VALUES, "agents": AGENTS}
SHORT = {"--seeds": "2", "--steps": "2000", "--episodes": "4", "--jobs": "2"}
"""What a comparison is cut down to."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page: its language, its text, the number of its first line, whether it is slow and right below another."""

    language: str
    text: str
    line: int
    slow: bool
    follows: bool

    @property
    def file(self) -> str | None:
        """The file that it is to be written to."""
        found = re.match(r"# ([\w./-]+\.\w+)\n", self.text)
        return found[1] if found else None


@cache
def blocks(page: Path) -> tuple[Block, ...]:
    text = page.read_text(encoding="utf-8")
    slow, end, found = text.find("<!-- slow -->"), 0, []
    for one in re.finditer(r"^```(\w+)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL):
        line = text.count("\n", 0, one.start(2)) + 1
        found.append(Block(one[1], one[2], line, slow=0 <= slow < one.start(), follows=not text[end : one.start()].strip()))
        end = one.end()
    return tuple(found)


def name_of(page: Path) -> str:
    return page.relative_to(DOCS).as_posix()


PAGES = sorted(page for page in DOCS.rglob("*.md") if not name_of(page).startswith(GENERATED))
WITH_CODE = [page for page in PAGES if any(block.language == "python" for block in blocks(page))]
ALONE = [page for page in WITH_CODE if page not in COURSE and name_of(page) not in ELSEWHERE]


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """An empty folder from which modules can be imported; what a page registers and imports is gone afterwards."""
    for registry in REGISTRIES.values():
        monkeypatch.setattr(registry, "_factories", dict(registry._factories))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    known = set(sys.modules)
    yield
    for name in set(sys.modules) - known:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]
    sources._load.cache_clear()


def play(page: Path, *, slow: bool, site: Path | None = None) -> None:
    """Run the blocks of a page; with a folder to install into, its commands too."""
    names: dict[str, object] = {"__name__": "page"}
    printed: str | None = None
    for block in blocks(page):
        if block.slow and not slow:
            break
        if block.file is not None:
            Path(block.file).parent.mkdir(parents=True, exist_ok=True)
            Path(block.file).write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec"), names)  # so that a traceback has the page's lines
            printed = out.getvalue()
            continue
        elif block.language == "text" and block.follows and printed is not None:
            assert_shown(block, printed, page)
        elif block.language == "console" and site is not None:
            type_in(block, page, site)
        printed = None


def assert_shown(block: Block, printed: str, page: Path) -> None:
    """What the page shows is what was printed."""
    shown = block.text.splitlines()
    lines = iter(printed.splitlines())
    for number, want in enumerate(shown, start=block.line):
        if want == "…":
            follows = shown[number - block.line + 1 : number - block.line + 2]
            lines = iter(_from(list(lines), follows[0]) if follows else [])
            continue
        got = next(lines, "(nothing)")
        assert agree(want, got, loose=block.slow), f"{page}:{number} shows\n{want}\nbut it printed\n{got}"
    assert list(lines) == [], f"{page}:{block.line + len(shown)}: it printed more than is shown"


def _from(lines: list[str], wanted: str) -> list[str]:
    """The lines from the first that agrees with the wanted one."""
    return next((lines[i:] for i, line in enumerate(lines) if agree(wanted, line, loose=False)), [])


def agree(shown: str, printed: str, *, loose: bool) -> bool:
    """Whether a line is as shown: word by word, numbers to a twentieth, or to a third and a half where it took a training to get there."""
    words, others = (re.findall(r"[+−-]?\d[\d,]*(?:\.\d+)?|…|\S", line) for line in (shown, printed))
    for a, b in zip_longest(words, others):
        if a == "…":
            return True
        if a == b:
            continue
        try:
            x, y = (float(str(word).replace(",", "").replace("−", "-")) for word in (a, b))
        except ValueError:
            return False
        if abs(x - y) > (0.5 + 0.35 * abs(x) if loose else 0.011 + 0.05 * abs(x)):
            return False
    return True


@pytest.mark.parametrize("page", ALONE, ids=name_of)
def test_the_code_of_a_page_runs(page):
    play(page, slow=False)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in ALONE if any(block.slow for block in blocks(page))], ids=name_of)
def test_all_the_code_of_a_page_runs(page):
    play(page, slow=True)


def test_the_course_runs():
    for page in COURSE:
        play(page, slow=False)


@pytest.mark.slow
def test_the_course_runs_as_a_reader_runs_it(tmp_path, monkeypatch):
    """With its package installed into a folder of its own, and each command in a process of its own."""
    site = tmp_path / "site"
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(site))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for page in COURSE:
        play(page, slow=True, site=site)


def type_in(block: Block, page: Path, site: Path) -> None:
    """Type the commands of a block, and compare what they print with what is shown."""
    for found in re.finditer(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block.text, flags=re.MULTILINE):
        command, shown = found[1].partition("  # ")[0], found[2]
        if command.startswith("pip install"):
            command = f"python -m pip install --quiet --no-deps --no-build-isolation --target {site} ."
        if " compare " in command:
            for option, value in SHORT.items():
                command = f"{re.sub(rf' {option} [^ ]+', '', command)} {option} {value}"
        done = subprocess.run(command, shell=True, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        if shown:
            line = block.line + block.text.count("\n", 0, found.start(2))
            assert_shown(Block("text", shown, line, block.slow, follows=True), done.stdout, page)


WITH_COMMANDS = [page for page in [*PAGES, *ROOT.glob("*.md")] if "\n$ " in page.read_text(encoding="utf-8")]


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=lambda page: page.name)
def test_commands_of_a_page_exist_with_their_options(page):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    for block in blocks(page):
        if block.language != "console":
            continue
        for line in re.findall(r"^\$ (.*)$", block.text, flags=re.MULTILINE):
            words = shlex.split(line, comments=True)
            words = words[3:] if words[:3] == ["python", "-m", "proxycoop"] else words
            where = f"{page}:{block.line}: {line}"
            if words[0] == "make":
                assert targets.issuperset(word for word in words[1:] if "=" not in word and not word.startswith(".venv")), where
            elif line.startswith(("proxycoop", "python -m proxycoop")):
                assert_parses(words[1:] if words[0] == "proxycoop" else words, where)


def assert_parses(words: list[str], where: str) -> None:
    """The command line takes these words; nothing is run."""
    command: Any = typer.main.get_command(app)
    rest = list(words)
    while hasattr(command, "commands"):  # a group; typer has a click of its own
        options = {flag: option for option in command.params for flag in option.opts}
        while rest and rest[0].startswith("-") and rest[0] in options:
            rest = rest[1 if options[rest[0]].is_flag else 2 :]
        if not rest or rest == ["--help"]:
            return
        n_words = 2 if " ".join(rest[:2]) in command.commands else 1
        name = " ".join(rest[:n_words])
        assert name in command.commands, f"{where}: there is no command {name!r}"
        command, rest = command.commands[name], rest[n_words:]
    if "--help" in rest:
        return
    try:
        command.make_context(command.name, rest)
    except Exception as error:
        raise AssertionError(f"{where}: {error}") from error


def table(page: str) -> list[list[str]]:
    """The cells of every row of a page's tables."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return [[cell.strip() for cell in line.strip("| \n").split(" | ")] for line in text.splitlines() if line.startswith("| ")]


def test_the_page_on_scenarios_explains_every_key():
    keys = [key for row in table("fifteen-minutes/scenario.md") for key in re.findall(r"`(\w+)`", row[0])]
    assert keys == list(scenario.Scenario.model_fields)


def test_the_page_on_rules_names_every_entry_point_group():
    groups = {row[0]: row[2].strip("`") for row in table("fifteen-minutes/rule.md") if row[0] in REGISTRIES}
    assert groups == {what: registry.group for what, registry in REGISTRIES.items()}


def test_the_page_on_libraries_names_every_library():
    from proxycoop.training.libraries.registry import LIBRARIES

    named = {row[0].strip("`"): row[2] for row in table("rl/libraries.md") if row[0].strip("`") in LIBRARIES}
    assert named.keys() == LIBRARIES.keys()
    for name, install in named.items():
        assert install == ("comes along" if LIBRARIES[name].extra is None else f"`proxycoop[{LIBRARIES[name].extra}]`")
