"""How well the fast tests find errors: small errors are planted, and the script reports which test finds each of them.

Every mutation in ``mutations.toml`` is one small error: a wrong sign, a missing clamp, an index that is off by one. For each, the script
copies the working tree, makes the error in the copy, and runs the files of fast tests that are nearest to the changed module. The mutations
that these let pass are then put into one copy together, on which all fast tests are run once; the tests that fail there are run on each of
these mutations alone. A mutation is *killed* by the first test that fails because of it: that test also fails by itself, and passes in a
copy without the error. A mutation that no fast test kills *survives*. ::

    python benchmarks/mutations.py --markdown docs/results/mutations.md
    python benchmarks/mutations.py --list
    python benchmarks/mutations.py --only ledger-chain-without-links
    python benchmarks/mutations.py --seed 1
    python benchmarks/mutations.py --nearest

A mutation is refused unless its old text is in the file exactly once, so that no mutation is lost when the code changes.
"""

from __future__ import annotations

import argparse
import compileall
import difflib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("envs", "agents", "credit", "training")
SAMPLE = 20
"""Mutations that a seed chooses."""


@dataclass(frozen=True)
class Mutation:
    """A small error.

    Attributes:
        name: What to call it.
        file: Where it is, from the root of the tree.
        old: The right text, which stands there exactly once.
        new: The wrong one.
    """

    name: str
    file: str
    old: str
    new: str


def areas() -> dict[str, list[Mutation]]:
    """The mutations of ``mutations.toml``, by the area of the code that they are in."""
    data = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
    return {area: [Mutation(**one) for one in mutations] for area, mutations in data.items()}


def pool() -> list[Mutation]:
    """All mutations, in their order."""
    return [mutation for area in areas().values() for mutation in area]


def chosen(names: Sequence[str] = (), seed: int | None = None) -> list[Mutation]:
    """Some mutations in their order: those that are named, or those that a seed draws, or all.

    Raises:
        ValueError: If a name is unknown.
    """
    every = pool()
    if unknown := sorted(set(names) - {mutation.name for mutation in every}):
        close = difflib.get_close_matches(unknown[0], [mutation.name for mutation in every], n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise ValueError(f"--only {unknown[0]}: there is no such mutation{hint}; --list names them")
    drawn = every if seed is None else random.Random(seed).sample(every, SAMPLE)
    return [mutation for mutation in every if mutation in drawn and (not names or mutation.name in names)]


def mutated(tree: Path, mutation: Mutation) -> tuple[Path, str]:
    """The file that a mutation changes, and its text with the error.

    In a tree in which the file has another name (one from before a move), the one file of the same folder that holds the old text is meant.

    Raises:
        ValueError: If the old text is not found exactly once.
    """
    path = tree / mutation.file
    if not path.exists():
        moved = [other for other in (tree / path.relative_to(tree).parts[0]).rglob("*.py") if mutation.old in other.read_text("utf-8")]
        if len(moved) != 1:
            raise ValueError(f"{mutation.name}: {mutation.file} does not exist, and {len(moved)} other files hold the old text")
        path = moved[0]
    text = path.read_text("utf-8")
    if (n := text.count(mutation.old)) != 1:
        raise ValueError(f"{mutation.name}: {mutation.file} holds the old text {n} times, not once: {mutation.old!r}")
    return path, text.replace(mutation.old, mutation.new)


# A copy of the tree, and the tests in it

_OWN = "tests/root/test_mutations.py"  # it looks for the old texts, and so every mutation makes it fail

_PLUGIN = '''"""Makes sure that the copy is what is tested, and writes down which tests fail."""

import importlib
import os
from pathlib import Path

import pytest


def pytest_sessionstart(session):
    for name in ("proxycoop", "proxycoop.envs", "proxycoop.agents", "proxycoop.credit", "proxycoop.training"):
        file = Path(importlib.import_module(name).__file__).resolve()
        if not file.is_relative_to(session.config.rootpath):
            pytest.exit(f"{name} is imported from {file}, and not from the copy", returncode=3)


def pytest_runtest_logreport(report):
    if report.failed:
        with open(os.environ["MUTATIONS_FAILED"], "a", encoding="utf-8") as file:
            file.write(report.nodeid + "\\n")
'''


@dataclass(frozen=True)
class Copy:
    """A copy of the working tree that is imported as ``proxycoop``.

    Attributes:
        tree: Its files.
        path: A folder with the package ``proxycoop``, made of links into the tree, and with the plugin that notes failing tests.
    """

    tree: Path
    path: Path

    @classmethod
    def of(cls, tree: Path, to: Path) -> Copy:
        """Copy what git tracks, or would track, of a tree."""
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=tree, check=True, capture_output=True
        )
        for name in sorted(set(listed.stdout.decode().split("\0")) - {""}):
            if (tree / name).is_file():  # one that was deleted is still listed
                (to / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(tree / name, to / "tree" / name)
        for folder in (*FOLDERS, "src"):  # once, rather than in every copy of the copy
            compileall.compile_dir(to / "tree" / folder, quiet=1)
        return cls(to / "tree", to / "path")._linked()

    def again(self, to: Path) -> Copy:
        """A copy of the copy."""
        shutil.copytree(self.tree, to / "tree", symlinks=True)
        return Copy(to / "tree", to / "path")._linked()

    def _linked(self) -> Copy:
        package = self.path / "proxycoop"
        package.mkdir(parents=True)
        for part in [*(self.tree / "src" / "proxycoop").iterdir(), *(self.tree / folder for folder in FOLDERS)]:
            if part.name != "__pycache__":
                (package / part.name).symlink_to(part)
        (self.path / "note_failures.py").write_text(_PLUGIN, "utf-8")
        return self

    def pytest(self, arguments: Sequence[str], limit: float) -> tuple[int, list[str], str]:
        """Run tests of the copy: exit status, tests that failed, and output.

        Raises:
            subprocess.TimeoutExpired: If it takes longer than ``limit`` seconds.
        """
        failed = self.path / "failed.txt"
        failed.unlink(missing_ok=True)
        environment = {**os.environ, "PYTHONPATH": str(self.path), "OMP_NUM_THREADS": "1", "MUTATIONS_FAILED": str(failed)}
        options = ["--tb=short", "-p", "note_failures", "-p", "no:cacheprovider", f"--basetemp={self.path / 'tmp'}"]
        command = [sys.executable, "-m", "pytest", *options, *arguments]
        with subprocess.Popen(
            command, cwd=self.tree, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        ) as process:
            try:
                output, _ = process.communicate(timeout=limit)
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)  # its own children too
                raise
        return process.returncode, failed.read_text("utf-8").splitlines() if failed.exists() else [], output

    def nearest(self, changed: Path) -> list[str]:
        """The test files nearest to a changed module: those that have its name, and the three that name the most of what it defines."""
        defined = set(re.findall(r"^\s*(?:def|class) (\w+)", changed.read_text("utf-8"), re.MULTILINE)) | {changed.stem}
        folder = changed.relative_to(self.tree).parts[0]
        ranked = []
        for file in (self.tree / "tests").rglob("test_*.py"):
            here = file.relative_to(self.tree)
            if str(here) == _OWN:
                continue
            named = len(defined & set(re.findall(r"\w+", file.read_text("utf-8"))))
            ranked.append((file.stem != f"test_{changed.stem}" or here.parts[1] != folder, here.parts[1] != folder, -named, str(here)))
        ranked.sort()
        n_near = sum(not other for other, *_ in ranked) + 3
        return [name for *_, name in ranked[:n_near]]


# Judging


@dataclass(frozen=True)
class Verdict:
    """What became of a mutation.

    Attributes:
        mutation: Which.
        outcome: ``killed``, ``survived``, ``timed out`` or ``error``.
        by: The test that killed it, or what went wrong.
        seconds: That it took.
    """

    mutation: Mutation
    outcome: str
    by: str
    seconds: float


class Judge:
    """Runs the fast tests on mutations.

    Args:
        original: A copy of the tree without an error.
        scratch: A folder for copies with one.
        left_out: Tests that are not run, since they fail without an error too.
        limit: Seconds that a run of tests may take.
    """

    def __init__(self, original: Copy, scratch: Path, left_out: Sequence[str], limit: float) -> None:
        self._original = original
        self._scratch = scratch
        self._left_out = left_out
        self._limit = limit

    def nearest(self, mutation: Mutation) -> Verdict:
        """Whether the nearest files of tests notice a mutation."""
        return self._alone(mutation, None)

    def among(self, mutation: Mutation, tests: Sequence[str]) -> Verdict:
        """Whether one of some tests notices a mutation."""
        return self._alone(mutation, tests) if tests else Verdict(mutation, "survived", "", 0.0)

    def suspects(self, mutations: Sequence[Mutation], jobs: int) -> list[str]:
        """The fast tests that fail where several mutations are in one copy together.

        Raises:
            SystemExit: If the tests could not be run there.
        """
        folder = self._scratch / "together"
        copy = self._original.again(folder)
        for mutation in mutations:
            changed, text = mutated(copy.tree, mutation)
            changed.write_text(text, "utf-8")
        code, failed, output = copy.pytest(["-n", str(jobs), "--ignore", _OWN, *self._deselected(self._left_out)], self._limit)
        shutil.rmtree(folder, ignore_errors=True)
        if code not in (0, 1) or (code == 1 and not failed):
            sys.exit(f"pytest exits with {code} where {len(mutations)} mutations are together:\n{output[-2000:]}")
        return list(dict.fromkeys(failed))

    def _alone(self, mutation: Mutation, tests: Sequence[str] | None) -> Verdict:
        began, folder = time.monotonic(), self._scratch / mutation.name
        try:
            copy = self._original.again(folder)
            changed, text = mutated(copy.tree, mutation)
            changed.write_text(text, "utf-8")
            outcome, by = self._run(copy, copy.nearest(changed) if tests is None else tests)
        except subprocess.TimeoutExpired:
            outcome, by = "timed out", f"after {self._limit:.0f} s"
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return Verdict(mutation, outcome, by, time.monotonic() - began)

    def checked(self, verdicts: Sequence[Verdict]) -> list[Verdict]:
        """The verdicts, with an error for each by a test that fails without the mutation too."""
        tests = sorted({verdict.by for verdict in verdicts if verdict.outcome == "killed"})
        if not tests:
            return list(verdicts)
        code, failed, output = self._original.pytest(tests, self._limit)
        if code not in (0, 1) or (code == 1 and not failed):
            sys.exit(f"pytest exits with {code} where there is no error:\n{output[-2000:]}")
        why = "fails without the error too: leave it out with --deselect"
        return [
            replace(verdict, outcome="error", by=f"{verdict.by} {why}") if verdict.outcome == "killed" and verdict.by in failed else verdict
            for verdict in verdicts
        ]

    @staticmethod
    def _deselected(tests: Sequence[str]) -> list[str]:
        return [argument for test in tests for argument in ("--deselect", test)]

    def _run(self, copy: Copy, tests: Sequence[str]) -> tuple[str, str]:
        """Run some tests, or files of them, until one fails, and fails again by itself."""
        left_out = list(self._left_out)
        while True:
            code, failed, output = copy.pytest(["-x", *tests, *self._deselected(left_out)], self._limit)
            if code in (0, 5):  # all passed, or there were none
                return "survived", ""
            if code != 1 or not failed:
                return "error", f"pytest exits with {code}:\n{output[-2000:]}"
            if copy.pytest(failed[:1], self._limit)[0] == 1:
                return "killed", failed[0]
            left_out.append(failed[0])  # it fails at times


def row(verdict: Verdict) -> str:
    """A verdict as a line."""
    return f"{verdict.mutation.name:<44}{verdict.mutation.file:<34}{verdict.seconds:>6.0f} s  {verdict.outcome} {verdict.by}".rstrip()


def counts(verdicts: Sequence[Verdict]) -> str:
    """How many were killed, in words."""
    n_killed = sum(verdict.outcome == "killed" for verdict in verdicts)
    others = {outcome: sum(verdict.outcome == outcome for verdict in verdicts) for outcome in ("survived", "timed out", "error")}
    return f"{n_killed} of {len(verdicts)} killed" + "".join(f", {n} {outcome}" for outcome, n in others.items() if n)


def markdown(verdicts: Sequence[Verdict]) -> str:
    """The page: the count, who was killed by which test, and what each mutation changes."""

    def code(text: str) -> str:
        return f"`` {' '.join(text.split())} ``"

    lines = [
        "# Seeded mutations",
        "",
        "Small errors that are put into the code one at a time, and the fast test that notices each. "
        "`python benchmarks/mutations.py --markdown docs/results/mutations.md` writes this page.",
        "",
        f"**{counts(verdicts)}.**",
    ]
    for area, mutations in areas().items():
        here = [verdict for verdict in verdicts if verdict.mutation in mutations]
        if not here:
            continue
        lines += ["", f"## {area.capitalize()}", "", f"{counts(here)}.", "", "| mutation | file | killed by | s |", "|---|---|---|---:|"]
        for verdict in here:
            by = f"`{verdict.by.removeprefix('tests/')}`".replace("|", "\\|") if verdict.outcome == "killed" else f"({verdict.outcome})"
            lines.append(f"| {verdict.mutation.name} | `{verdict.mutation.file}` | {by} | {verdict.seconds:.0f} |")
        lines.append("")
        lines += [f"- {verdict.mutation.name}: {code(verdict.mutation.old)} → {code(verdict.mutation.new)}" for verdict in here]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Judge mutations, print what became of each, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", metavar="NAME", nargs="+", default=[], help="judge these mutations alone")
    parser.add_argument("--seed", type=int, help=f"judge {SAMPLE} mutations that this number chooses (default: all)")
    parser.add_argument("--nearest", action="store_true", help="run the nearest files of tests alone")
    parser.add_argument("--list", action="store_true", help="list the mutations and judge none")
    parser.add_argument("--markdown", type=Path, help="write the page here")
    parser.add_argument("--tree", type=Path, default=ROOT, help="working tree to judge (default: this one); call its own Python")
    parser.add_argument("--deselect", metavar="TEST", nargs="+", default=[], help="leave these tests out, which fail without an error too")
    parser.add_argument("--limit", type=float, default=3600, metavar="SECONDS", help="most that one run of tests may take (default: 3600)")
    parser.add_argument("-j", "--jobs", type=int, default=1, help="mutations that are judged at once (default: 1)")
    options = parser.parse_args()
    if options.jobs < 1:
        parser.error(f"--jobs {options.jobs}: must be at least 1")
    if not options.tree.is_dir():
        parser.error(f"--tree {options.tree}: there is no such folder")
    if options.markdown and not options.markdown.resolve().parent.is_dir():
        parser.error(f"--markdown {options.markdown}: there is no folder {options.markdown.parent}")
    if options.nearest and options.markdown:
        parser.error("--nearest --markdown: the page says what the whole of the fast tests finds; leave one of the two out")
    try:
        mutations = chosen(options.only, options.seed)
        for mutation in mutations:
            mutated(options.tree, mutation)
    except ValueError as error:
        sys.exit(str(error))
    if options.list:
        print("\n".join(f"{mutation.name:<44}{mutation.file}" for mutation in mutations))
        return
    found: dict[Mutation, Verdict] = {}
    with tempfile.TemporaryDirectory(prefix="mutations-") as scratch, ThreadPoolExecutor(options.jobs) as jobs:
        original = Copy.of(options.tree.resolve(), Path(scratch) / "original")
        judge = Judge(original, Path(scratch), options.deselect, options.limit)

        def note(running: Iterable[Future[Verdict]]) -> None:
            for done in as_completed(running):
                verdict = done.result()
                found[verdict.mutation] = verdict
                print(row(verdict), flush=True)

        note([jobs.submit(judge.nearest, mutation) for mutation in mutations])
        passed = [mutation for mutation in mutations if found[mutation].outcome == "survived"]
        if passed and not options.nearest:
            print(f"all fast tests on the {len(passed)} that survived these, together ...", flush=True)
            suspects = judge.suspects(passed, options.jobs)
            print(f"the {len(suspects)} tests that fail there, on each alone ...", flush=True)
            note([jobs.submit(judge.among, mutation, suspects) for mutation in passed])
        verdicts = judge.checked([found[mutation] for mutation in mutations])
    for verdict in verdicts:
        if verdict != found[verdict.mutation]:
            print(row(verdict))
    print(counts(verdicts))
    if options.markdown:
        options.markdown.write_text(markdown(verdicts), "utf-8")
    if wrong := [verdict.mutation.name for verdict in verdicts if verdict.outcome == "error"]:
        sys.exit(f"{', '.join(wrong)}: could not be judged")


if __name__ == "__main__":
    main()
