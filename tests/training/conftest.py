"""A small cooperative that PPO learns in seconds, and the command line."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import subprocess
import sys
from contextlib import contextmanager
from html import escape, unescape
from types import SimpleNamespace
from typing import Any

import pytest

from proxycoop.envs import scenario
from proxycoop.training.commands import cli
from proxycoop.training.executors import processes as processes_module


@pytest.fixture(scope="session")
def small():
    return scenario.load("breast_cancer", principals=3, horizon=6, profiles=[{"holders": 1, "tolerances": {"missed_cancer": 0.1}}])


@pytest.fixture(scope="session")
def forking():
    """Within it, the processes of a comparison are forked from this one: interpreters of their own would cost seconds of imports each."""

    @contextmanager
    def within():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(processes_module, "multiprocessing", SimpleNamespace(get_context=lambda _: multiprocessing.get_context("fork")))
            yield

    return within


@pytest.fixture
def run(monkeypatch, capsys):
    """Run ``proxycoop WORDS`` and give its exit code, standard output and standard error."""

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["proxycoop", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    return call


CHROMIUM = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
_MEASURED = """
const page = document.querySelector("iframe").contentDocument;
const over = e => e.scrollWidth - e.clientWidth;
document.title = JSON.stringify({
  page: over(page.documentElement),
  boxes: [...page.querySelectorAll(".scroll, pre")].filter(e => getComputedStyle(e).whiteSpace != "pre").map(over),
  hidden: [...page.querySelectorAll("td, pre")].filter(e => !e.checkVisibility({contentVisibilityAuto: true})).length,
});
"""


@pytest.fixture
def in_browser(tmp_path):
    """Look at a page in Chromium, at a width in pixels, on the screen or on paper.

    Gives by how many pixels the page and its boxes of tables and text are wider than their places, and how many cells are not shown.
    """
    if CHROMIUM is None:
        pytest.skip("needs Chromium")

    def look(page: str, width: int, *, paper: bool = False) -> dict[str, Any]:
        assert "@media print" in page
        if paper:  # as good as a print: the screen's styles hold on paper too
            page = page.replace("@media print", "@media all").replace("@media screen", "@media print")
        frame = f'<iframe style="width: {width}px; height: 900px; border: 0" srcdoc="{escape(page)}"></iframe>'
        file = tmp_path / "frame.html"
        file.write_text(f"<!doctype html><body>{frame}<script>onload = () => {{{_MEASURED}}}</script>", encoding="utf-8")
        options = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            f"--user-data-dir={tmp_path / 'profile'}",
        ]
        command = [str(CHROMIUM), *options, "--virtual-time-budget=4000", "--dump-dom", file.as_uri()]
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found: dict[str, Any] = json.loads(unescape(shown.partition("<title>")[2].partition("</title>")[0]))
        return found

    return look


@pytest.fixture
def shown_whole(in_browser):
    """Check that nothing of a page is cut on a telephone, and nothing is cut or folded away on paper."""

    def check(page: str) -> None:
        for width, paper in ((400, False), (680, True)):
            seen = in_browser(page, width, paper=paper)
            assert seen["page"] <= 0
            assert max(seen["boxes"]) <= 0
            assert paper <= (seen["hidden"] == 0)

    return check
