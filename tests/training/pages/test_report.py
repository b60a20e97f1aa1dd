"""The report of a synthetic comparison: complete, self-contained, escaped, and true to its data."""

import base64
import csv
import io
import json
import re
import shlex
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import scipy.stats
from markupsafe import escape
from matplotlib.figure import Figure

from proxycoop.credit import RULES
from proxycoop.envs import scenario
from proxycoop.training.analysis.latex import latex
from proxycoop.training.analysis.summary import Table, markdown, summarise
from proxycoop.training.compare import columns_of
from proxycoop.training.pages import figures as figures_module
from proxycoop.training.pages.description import describe
from proxycoop.training.pages.drawing import Drawing, Looks, house_style
from proxycoop.training.pages.figures import figures, looks
from proxycoop.training.pages.report import _to_share, findings, names_of_parts, parts, report

HOSTILE = "<script>alert('x')</script> $x_ \"quoted\" & 漢 a very long name of a rule that goes on and on"
N, T, STEPS = 6, 16, 5


def write(
    folder: Path,
    agent: str,
    credit: str,
    seed: int,
    *,
    name: str = "digits",
    changes: dict[str, Any] | None = None,
    **measures: Any,
) -> None:
    rng = np.random.default_rng([seed, sum(map(ord, agent + credit))])
    plain = scenario.load("digits").to_dict() | {"name": name} | (changes or {})
    plain["data"] = plain["data"] | {"split_seed": seed}
    learned = agent == "learned"
    cell: dict[str, Any] = {
        "format": 5,
        "agent": agent,
        "episodes": 8,
        "evaluation_splits": [1_000_000],
        "scenario": plain,
        "credit": credit,
    }
    cell |= {"seed": seed} if learned else {}
    numbers = {
        key: [float(rng.uniform(0, 0.4)), 0.01] for key in ("clean_share", "corrupt_share", "admitted_share", "test_worst_value", "jain")
    }
    numbers |= {key: [float(rng.normal(5, 2)), 1.0] for key in ("welfare", "copy_gain", "split_gain", "imbalance", "cost", "return")}
    numbers |= {"test_utility": [-float(rng.uniform(0.9, 1.1)), 0.02], "test_accuracy": [0.8, 0.01], "pearson_shapley": [None, None]}
    numbers |= {f"{kind}_value/{value}": [float(rng.uniform(1, 2)), 0.1] for kind in ("test", "unscreened") for value in plain["values"]}
    numbers |= measures
    series = {
        "utility": np.linspace(-1, -0.8, T + 1).tolist(),
        "clean_share": [0.5] * T,
        "corrupt_share": [0.1] * T,
        "value_loss": [[1.0] * len(plain["values"])] * (T + 1),
        "unscreened_value_loss": [[1.0 + t / 10] * len(plain["values"]) for t in range(T + 1)],
        "tolerance": [[0.25, None][: len(plain["values"])]] * T,
        "limit": [0.3, None][: len(plain["values"])],
        "blocks": [[0.25 + seed / 100, 0.0], [0.5, 0.125], [None, None]],
        "blocks_by_value": [0.1] * len(plain["values"]),
        "credit": (np.arange(1, T + 1)[:, None] * np.arange(N, 0, -1) * 0.1).tolist(),
    }
    curve = [
        {"agent_steps": 100.0 * i, **{key: (numbers[key][0] or 0.0) * i for key in ("welfare", "clean_share", "corrupt_share")}}
        for i in range(1, STEPS)
    ]
    if learned:
        cell["total_steps"] = 400
    place = folder / "cells" / re.sub(r"\W", "-", name) / (re.sub(r"\W", "-", credit) if learned else f"agent-{agent}")
    place /= f"seed-{seed}" if learned else "every-seed"
    place.mkdir(parents=True, exist_ok=not learned)  # a scripted agent has one cell, which is written last with the last seed
    by_split = {key: [mean] for key, (mean, _) in numbers.items()}
    result = {"version": "9.9", "cell": cell, "measures": numbers, "splits": [1_000_000], "by_split": by_split, "series": series}
    result["curve"] = curve if learned else []
    (place / "result.json").write_text(json.dumps(result))


class Page(HTMLParser):
    """What matters of a page: attributes of every element, and the text of every table row."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.open = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        self.open = tag in ("td", "th", "span") and bool(self.rows)
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self.open:
            self.rows[-1][-1] += data

    def handle_endtag(self, tag: str) -> None:
        self.open = False if tag in ("td", "th") else self.open

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("comparison")
    for seed in range(3):
        for agent in ("none", "all", "oracle", "planner"):
            write(place, agent, "shapley", seed)
        for rule in ("equal", "shapley", HOSTILE):
            write(place, "learned", rule, seed)
        write(place, "learned", "shapley", seed, name="other", changes={"description": "<img src=x onerror=alert(1)> $y_"})
    return place


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made, and not drawn, which takes most of a report's time; for what is said around them."""

    def save(self: Figure, file: io.BytesIO, **_: object) -> None:
        file.write(b"<?xml?><svg></svg>")

    monkeypatch.setattr(Figure, "savefig", save)
    monkeypatch.setattr(Figure, "draw_without_rendering", lambda _: None)


@pytest.fixture(scope="module")
def page(folder: Path) -> tuple[str, Page]:
    text = report(folder).read_text(encoding="utf-8")
    return text, Page(text)


def results_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("cells/*/*/*/result.json"))]


def test_page_is_self_contained(page: tuple[str, Page]) -> None:
    text, parsed = page
    assert not parsed.all("script")
    assert not parsed.all("link")
    for _, attributes in parsed.elements:
        for name in ("src", "href", "srcset", "data", "poster", "action"):
            assert name not in attributes or str(attributes[name]).startswith(("data:", "#")), attributes
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def test_hostile_names_are_escaped_on_the_page_and_drawn_literally(page: tuple[str, Page]) -> None:
    text, parsed = page
    assert "<script" not in text
    assert "onerror=alert(1)>" not in text
    assert not [image for image in parsed.all("img") if image["src"] == "x"]
    assert "&lt;script&gt;" in text
    for image in parsed.all("img"):
        svg = base64.b64decode(str(image["src"]).removeprefix("data:image/svg+xml;base64,"))
        assert svg.startswith(b"<?xml")
        assert b"<script" not in svg
        assert b"<image" not in svg


def test_every_figure_has_alternative_text_and_a_caption(page: tuple[str, Page]) -> None:
    _, parsed = page
    images = parsed.all("img")
    assert len(images) == 18  # nine figures in each of two scenarios
    assert all(len(str(image["alt"])) > 20 for image in images)
    assert len(parsed.all("figcaption")) == len(images)


def test_tables_have_scoped_headers_and_anchors_have_targets(page: tuple[str, Page]) -> None:
    _, parsed = page
    assert all(header["scope"] in ("col", "row", "rowgroup") for header in parsed.all("th"))
    ids = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {str(link["href"])[1:] for link in parsed.all("a")} <= set(ids)


def test_numbers_in_the_table_are_those_recomputed_from_the_data(folder: Path, page: tuple[str, Page]) -> None:
    _, parsed = page
    results = [one for one in results_of(folder) if one["cell"]["scenario"]["name"] == "digits"]
    for rule in ("equal", "shapley", HOSTILE):
        mine = [one["measures"] for one in results if one["cell"]["agent"] == "learned" and one["cell"]["credit"] == rule]
        (row, *_) = [row for row in parsed.rows if row and row[0] == rule]
        expected = []
        for name, scale, places in (("test_utility", -1, 3), ("welfare", 1, 2), ("clean_share", 100, 1), ("corrupt_share", 100, 1)):
            sample = [scale * measures[name][0] for measures in mine]
            low, high = scipy.stats.t.interval(0.95, 2, loc=np.mean(sample), scale=scipy.stats.sem(sample))
            expected.append(f"{np.mean(sample):.{places}f} ± {(high - low) / 2:.{places}f}".replace("-", "−"))
        assert [row[1], row[2], row[5], row[6]] == expected
        assert row[8] == "–", "undefined"


def test_settings_seeds_and_the_command_are_told(page: tuple[str, Page]) -> None:
    text, _ = page
    assert "proxycoop compare --scenario digits --scenario other.yaml --rule equal" in text
    assert "--seeds 3 --steps 400 --episodes 8" in text
    assert "--same-split" not in text
    assert "proxycoop 9.9" in text


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("agents", [("learned",), ("learned", "none"), ("none", "planner"), ("best_reply",), ("oracle",)])
def test_one_seed_and_missing_agents_still_make_a_page(tmp_path: Path, agents: tuple[str, ...]) -> None:
    for agent in agents:
        write(tmp_path, agent, "shapley", 4)
    text = report(tmp_path).read_text(encoding="utf-8")
    assert ("One seed only" in text) == ("learned" in agents)
    assert ("--seeds 1 --first-seed 4" if "learned" in agents else "--seeds 1 ") in text


@pytest.mark.parametrize("registered", [list(RULES)[::8], pytest.param(list(RULES), marks=pytest.mark.slow)], ids=["some", "all"])
def test_many_rules_and_long_names_still_make_a_page(tmp_path: Path, registered: list[str]) -> None:
    rules = [*registered, "normalised(rule='shapley(budget=60, seed=1)', max_scale=4.0)", f"coopetition(interdependence={[[0.0] * 6] * 6})"]
    for rule in rules:
        write(tmp_path, "learned", rule, 0)
    write(tmp_path, "planner", "shapley", 0)
    text = report(tmp_path).read_text(encoding="utf-8")  # a figure that is too small for its names would warn
    for rule in rules:
        assert escape(rule) in text
    assert escape(f"--rule {shlex.quote(rules[-2])}") in text, "the command can be pasted into a shell"
    (table,) = summarise(results_of(tmp_path))
    styles = looks([table])
    assert len({(look.colour, str(look.dashes), look.marker) for look in styles.values()}) == len(styles) >= len(rules)


@pytest.mark.usefixtures("undrawn")
def test_measures_undefined_everywhere_still_make_a_page(tmp_path: Path) -> None:
    names = ("welfare", "test_utility", "clean_share", "corrupt_share", "copy_gain", "split_gain", "jain", "imbalance")
    for seed in range(2):
        write(tmp_path, "none", "shapley", seed, **{key: [None, None] for key in names})
        write(tmp_path, "learned", "equal", seed, **{key: [None, None] for key in names})
    parsed = Page(report(tmp_path).read_text(encoding="utf-8"))
    (row, *_) = [row for row in parsed.rows if row and row[0] == "none"]
    assert [row[i] for i in (1, 2, 3, 4, 5, 8)] == ["–"] * 6


@pytest.mark.usefixtures("undrawn")
def test_one_principal_and_no_values_leave_out_what_has_no_meaning(tmp_path: Path) -> None:
    write(tmp_path, "learned", "equal", 0, changes={"principals": 1, "values": {}, "profiles": [], "utility": "accuracy"})
    (table,) = summarise(results_of(tmp_path))
    assert [drawing.key for drawing in figures(table, looks([table]))] == ["shares", "outcomes", "training", "rounds", "robustness"]
    assert "nobody protects anything" in report(tmp_path).read_text(encoding="utf-8")


@pytest.mark.usefixtures("undrawn")
def test_who_blocks_whom_and_value_losses_are_shown_of_the_rule_with_the_highest_welfare(tmp_path: Path) -> None:
    for seed in range(2):
        write(tmp_path, "learned", "equal", seed, welfare=[1.0, 0.1])
        write(tmp_path, "learned", "loo", seed, welfare=[2.0, 0.1])
    (table,) = summarise(results_of(tmp_path))
    drawn = {drawing.key: drawing for drawing in figures(table, looks([table]))}
    alt = drawn["blocks"].alt
    eights, nines = (f"{name}≤0.36 (≤0.6 in all)" for name in ("eights", "nines"))
    assert alt.startswith(f"Updates of learned, loo; {eights}, objected to by {eights}: 26 %")  # the mean of 25 and 26
    assert f"{nines}, objected to by {nines}: 12 %" in alt
    assert "no profile" not in alt, "nothing was contributed without a profile"
    assert "eights: from 1 to 1 screened and 2.6 unscreened; the limit is 1.3" in drawn["value-losses"].alt
    assert "objected" not in drawn["values"].alt
    text = report(tmp_path).read_text(encoding="utf-8")
    assert text.count("under loo, the rule with the highest welfare") == 2
    assert (tmp_path / "parts" / "digits-blocks.svg") in parts(tmp_path, tmp_path / "parts")
    assert (tmp_path / "parts" / "digits-value-losses.svg").exists()


@pytest.mark.parametrize(
    ("screening", "said"),
    [
        ({"governance": "none"}, ("none: nobody screens", "harm predicted to first order")),
        (
            {"governance": "own", "filter": "scale", "harm": "second_order"},
            (
                "everybody screens its own updates",
                "harm predicted to second order, inadmissible updates are shrunk until they are admissible",
            ),
        ),
        ({"governance": "quorum", "quorum": 0.75}, ("quorum: admissible to at least 75 % of the principals",)),
        (
            {"governance": "weighted", "weigh_by": "stake", "filter": "project"},
            ("principals with at least 50 % of all stake", "replaced by the nearest admissible ones"),
        ),
        (
            {"governance": "stakeholders", "harm": "measured", "guard": True},
            ("at least 50 % of those whose profile names", "harm measured on the probe sets", "the applied step is guarded"),
        ),
        (
            {"governance": "negotiate", "bargain": "worst_off", "budget": 5},
            ("negotiate: the set of updates is bargained for the best for the worst-off principal, within 5 moves",),
        ),
    ],
)
def test_descriptions_say_how_is_screened(screening: dict[str, Any], said: tuple[str, ...]) -> None:
    text = dict(describe(scenario.load("digits", screening=screening).to_dict()))
    assert all(part in f"{text['Governance']}; {text['Screening']}" for part in said)


def test_descriptions_say_every_limit_of_a_profile() -> None:
    profile = {"relative_tolerances": {"eights": 0.1}, "direction": {"nines": 2.0}, "max_norm": 0.5, "stake": 3.0, "holders": 2}
    text = dict(describe(scenario.load("digits", profiles=[profile]).to_dict()))["Who protects what"]
    assert text == (
        "2 of them (stake 3 each): the loss of eights rises by at most 10 % of itself an update, no update against the direction 1·nines, "
        "no update longer than 0.5; the others nothing"
    )


def test_findings_follow_from_the_data(tmp_path: Path) -> None:
    for seed in range(3):
        write(tmp_path, "none", "shapley", seed, test_utility=[-1.2, 0.0], clean_share=[0.0, 0.0])
        write(tmp_path, "oracle", "shapley", seed, clean_share=[0.8, 0.0])
        write(tmp_path, "planner", "shapley", seed, welfare=[50.0, 0.0])
        noise = 0.1 * seed
        common = {"beyond_limits": [0.0, 0.0], "home_gap": [-1.0 + noise, 0.0], "imbalance": [0.0, 0.0], "split_gain": [-1.0 + noise, 0.0]}
        write(
            tmp_path,
            "learned",
            "loo",
            seed,
            welfare=[40 + 9 * seed, 0],
            clean_share=[0.6, 0],
            corrupt_share=[0.01, 0],
            test_utility=[-0.9, 0],
            **common,
        )
        write(
            tmp_path,
            "learned",
            "equal",
            seed,
            welfare=[-5, 0],
            clean_share=[0.1, 0],
            corrupt_share=[0, 0],
            test_utility=[-1.3, 0],
            **common,
        )
        paid = common | {"split_gain": [3.0 + noise, 0.0], "beyond_limits": [0.25, 0.0], "test_worst_value": [1.5, 0.0]}
        write(
            tmp_path,
            "learned",
            "data_size",
            seed,
            welfare=[39 + 9 * seed + noise, 0],
            clean_share=[0.7, 0],
            corrupt_share=[0.3, 0],
            test_utility=[-0.8, 0],
            **paid,
        )
    (table,) = summarise(results_of(tmp_path))
    said = dict(findings(table))
    assert said["Highest welfare"].startswith(
        "loo with 49.0\u00a0±\u00a022.4 reward units, 98\u00a0% of the planner's; lowest: equal with −5.0"
    )
    assert "0.9\u00a0±\u00a00.2 over data_size," in said["Highest welfare"], "paired by seeds, it is beyond the noise"
    assert said["Worse than nothing"].endswith("under equal (−5.0\u00a0±\u00a00.0).")
    assert said["Lowest test cross-entropy"].startswith("data_size with 0.800")
    assert said["Lowest test cross-entropy"].endswith("although loo has the highest welfare.")
    assert said["A worse model"].endswith("under equal (1.300\u00a0±\u00a00.000).")
    assert "under equal (10.0" in said["Free riding"]
    assert "loo" not in said["Free riding"]
    assert said["Spamming"].endswith("under data_size (30.0\u00a0±\u00a00.0\u00a0%).")
    assert "data_size (3.1" in said["Splitting"]
    assert "loo" not in said["Splitting"]
    assert said["Beyond a limit"].endswith("limit for the episode: data_size (25.0\u00a0±\u00a00.0\u00a0%).")
    assert said["Values strained"].endswith("under data_size (150.0\u00a0±\u00a00.0\u00a0%).")
    assert "Home advantage" not in said
    assert "Unbalanced budget" not in said
    assert {"Value eights", "Value nines"} <= said.keys()


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no finished results"):
        report(tmp_path)


@pytest.mark.usefixtures("undrawn")
def test_a_place_that_cannot_be_written_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be written"):
        report(folder, tmp_path / "missing" / "report.html")


def test_parts_are_the_page_s_tables_and_pictures_drawn_again_as_files_and_leave_matplotlib_as_it_was(
    folder: Path, page: tuple[str, Page], tmp_path: Path
) -> None:
    before = dict(matplotlib.rcParams)
    written = parts(folder, tmp_path / "parts")
    assert dict(matplotlib.rcParams) == before
    tables = summarise(results_of(folder))
    assert len({path.name for path in written}) == len(written)
    assert all(path.parent == tmp_path / "parts" for path in written)
    texts = [path.read_text() for path in written]
    assert all(markdown(table) in texts for table in tables)
    drawings = [base64.b64decode(str(image["src"]).partition(",")[2]).decode() for image in page[1].all("img")]
    assert sorted(text for text in texts if "<svg" in text) == sorted(drawings), "same data, same pictures"


@pytest.mark.usefixtures("undrawn")
def test_same_data_gives_the_same_page_wherever_it_is_written(folder: Path, tmp_path: Path) -> None:
    first, again = (report(folder, tmp_path / name) for name in ("first.html", "again.html"))
    assert again == tmp_path / "again.html"
    assert again.read_text(encoding="utf-8") == first.read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize(("width", "paper"), [(400, False), (680, True), (520, True)])
def test_on_a_telephone_and_on_paper_nothing_is_cut_or_folded_away(folder: Path, in_browser: Any, width: int, paper: bool) -> None:
    found = in_browser(report(folder).read_text(encoding="utf-8"), width, paper=paper)
    assert found["page"] <= 0
    assert found["boxes"]
    assert max(found["boxes"]) <= 0
    assert paper <= (found["hidden"] == 0), "on paper, what is folded is open"


def test_print_keeps_headings_with_what_they_head_and_dark_colours_to_screens(page: tuple[str, Page]) -> None:
    style = page[0].partition("<style>")[2].partition("</style>")[0]
    paper = style.partition("@media print {")[2]
    assert re.search(r"h1, h2, h3, summary \{[^}]*break-after: avoid", paper)
    assert re.search(r"details::details-content \{[^}]*content-visibility: visible", paper)
    assert re.search(r"pre \{[^}]*white-space: pre-wrap", paper)
    assert "@media screen and (prefers-color-scheme: dark)" in style


def test_every_cell_says_its_column_so_that_rows_can_stand_alone(page: tuple[str, Page]) -> None:
    _, parsed = page
    assert all(cell["data-title"] for cell in parsed.all("td"))
    for tag, role in (("table", "table"), ("tr", "row"), ("td", "cell")):
        assert {element["role"] for element in parsed.all(tag)} == {role}, "a table for screen readers, however it is laid out"


def test_the_text_of_figures_is_text_in_fonts_that_are_at_hand_and_they_say_what_they_show(page: tuple[str, Page]) -> None:
    space = "{http://www.w3.org/2000/svg}"
    for image in page[1].all("img"):
        svg = ElementTree.fromstring(base64.b64decode(str(image["src"]).partition(",")[2]))
        texts = svg.findall(f".//{space}text")
        assert len(texts) > 5
        for text in texts:
            style = text.attrib["style"]
            assert "DejaVu Sans" in style
            assert "sans-serif" in style
            assert (text.text or "").strip()
        assert not [one for group in svg.iter(f"{space}g") if group.get("id", "").startswith("text_") for one in group.iter(f"{space}use")]
        assert svg.findtext(f"{space}desc") == image["alt"]


@pytest.mark.usefixtures("undrawn")
def test_on_one_seed_nothing_is_highest(tmp_path: Path) -> None:
    for rule, welfare in (("loo", 41.0), ("shapley", 40.9), ("equal", 3.0)):
        write(tmp_path, "learned", rule, 0, welfare=[welfare, 0.1], test_utility=[-1 / welfare, 0.001])
    (table,) = summarise(results_of(tmp_path))
    said = dict(findings(table))
    assert not [text for one in said.items() for text in one if re.search("highest|lowest|best", text, re.IGNORECASE)]
    assert said["One seed"].startswith("each rule was trained once.")
    assert said["Welfare"].startswith(
        "equal (3.0\u00a0±\u00a00.1), loo (41.0\u00a0±\u00a00.1), shapley (40.9\u00a0±\u00a00.1), in reward units."
    )
    assert "nats" in said["Test cross-entropy"]
    page = report(tmp_path).read_text(encoding="utf-8")
    assert "the rule with the highest" not in page
    assert "under loo, whose welfare is the largest on this one seed, which says nothing about other seeds." in page


def test_what_is_within_noise_is_not_called_highest(tmp_path: Path) -> None:
    for seed in range(3):
        for rule, welfare in (("loo", 41.0), ("shapley", 40.9 + 0.3 * (seed - 1)), ("equal", 3.0 + 0.1 * seed)):
            write(tmp_path, "learned", rule, seed, welfare=[welfare, 9.0])
    (table,) = summarise(results_of(tmp_path))
    said = dict(findings(table))
    assert said["Highest welfare"].startswith("not certain; on average it is loo with 41.0")
    assert "; lowest: equal with 3.1" in said["Highest welfare"], "that is certain"
    assert "over shapley (within noise)" in said["Highest welfare"]
    assert re.search(r"over equal\.$", said["Highest welfare"])


def test_a_limit_that_an_interval_reaches_is_told_as_within_noise(tmp_path: Path) -> None:
    for seed in range(3):
        write(tmp_path, "oracle", "shapley", seed, clean_share=[0.8, 0.0])
        write(tmp_path, "learned", "loo", seed, welfare=[-2.0 + seed, 0], corrupt_share=[0.04 + 0.03 * seed, 0], clean_share=[0.3, 0])
    (table,) = summarise(results_of(tmp_path))
    said = dict(findings(table))
    assert said["Worse than nothing"] == "welfare is negative under loo (−1.0\u00a0±\u00a02.5, within noise)."
    assert said["Spamming"].endswith("loo (7.0\u00a0±\u00a07.5\u00a0%, within noise).")
    assert said["Free riding"].endswith("loo (30.0\u00a0±\u00a00.0\u00a0%).")


@pytest.mark.usefixtures("undrawn")
def test_policies_that_contribute_nothing_have_a_page_and_are_said_to_be_alike(tmp_path: Path) -> None:
    idle = {key: [0.0, 0.0] for key in ("welfare", "clean_share", "corrupt_share", "admitted_share", "cost", "gain")}
    losses = {f"{kind}_value/{value}": [1.0, 0.0] for kind in ("test", "unscreened") for value in ("eights", "nines")}
    for seed in range(2):
        write(tmp_path, "none", "shapley", seed, **idle, **losses)
        for rule in ("equal", "loo"):
            write(tmp_path, "learned", rule, seed, **idle, **losses, test_utility=[-1.0, 0.0], imbalance=[-1.1e-5, 0.0])
    for path in tmp_path.glob("cells/*/*/*/result.json"):
        result = json.loads(path.read_text())
        result["series"]["blocks"] = [[None, None]] * 3
        path.write_text(json.dumps(result))
    (table,) = summarise(results_of(tmp_path))
    said = dict(findings(table))
    assert said["Welfare"].startswith("the same on every seed under all rules: equal (0.0\u00a0±\u00a00.0), loo (0.0")
    assert said["Test cross-entropy"].startswith("the same on every seed under all rules: equal (1.000")
    assert said["Value eights"].startswith("its loss does not change under equal: 1.000")
    assert "Unbalanced budget" not in said, "that is rounding"
    assert "blocks" not in {drawing.key for drawing in figures(table, looks([table]))}
    assert report(tmp_path).exists()


def test_what_is_said_of_the_budget_is_said_with_its_doubt(tmp_path: Path) -> None:
    for seed in range(2):
        for rule, imbalance in (("loo", 9.0 + seed), ("data_size", 30.0 * seed)):
            write(tmp_path, "learned", rule, seed, imbalance=[imbalance, 1], welfare=[10.0, 1], cost=[0.0, 0], gain=[0.1, 0])
    (table,) = summarise(results_of(tmp_path))
    said = dict(findings(table))["Unbalanced budget"]
    assert re.search(r"data_size \(15.0[^)]*, within noise\), loo \(9.5[^)w]*\)", said), said


def test_small_and_large_rewards_are_told_with_the_digits_that_matter(tmp_path: Path) -> None:
    for scale, expected in ((1e-3, "0.00300"), (1e9, "3000000000\u00a0")):
        for seed in range(2):
            for rule in ("loo", "equal"):
                write(tmp_path / f"{scale}", "learned", rule, seed, welfare=[scale * (2.5 + seed + (rule == "loo")), 0.0])
        (table,) = summarise(results_of(tmp_path / f"{scale}"))
        assert f"lowest: equal with {expected}" in dict(findings(table))["Highest welfare"]


def test_a_lead_that_is_certain_is_not_told_as_none(tmp_path: Path) -> None:
    for seed in range(2):
        write(tmp_path, "learned", "loo", seed, welfare=[30.0 + seed, 0.1])
        write(tmp_path, "learned", "equal", seed, welfare=[29.98 + seed, 0.1])
    (table,) = summarise(results_of(tmp_path))
    assert dict(findings(table))["Highest welfare"].endswith("Its lead, seed by seed: 0.020\u00a0±\u00a00.000 over equal.")


def test_cells_that_are_missing_are_told_and_a_lead_of_one_seed_is_called_so(tmp_path: Path) -> None:
    for seed in range(3):
        write(tmp_path, "learned", "loo", seed, welfare=[5.0 + seed, 0.1])
    write(tmp_path, "learned", "equal", 1, welfare=[3.0, 0.1])
    write(tmp_path, "planner", "shapley", 2, welfare=[10.0, 0.1])
    (table,) = summarise(results_of(tmp_path))
    said = dict(findings(table))
    assert said["Unfinished"].startswith("cells are missing: learned, equal (seeds 0, 2).")
    assert "3.0 over equal (one seed in common)." in said["Highest welfare"]
    assert "60\u00a0% of the planner's;" in said["Highest welfare"]


def test_without_corrupt_lots_and_without_screens_nothing_is_said_of_them(tmp_path: Path) -> None:
    lots = scenario.load("digits").to_dict()["lots"]
    lots["corruption"]["share"] = 0.0
    for seed in range(2):
        for agent in ("none", "learned"):
            write(tmp_path, agent, "loo", seed, changes={"lots": lots, "profiles": []}, corrupt_share=[0.0, 0.0])
    (table,) = summarise(results_of(tmp_path))
    said = dict(findings(table))
    assert not {"Spamming", "No spamming"} & set(said)
    assert said["Value eights"].endswith("nobody screens.")
    assert "even with screening" not in said["Value eights"]


def test_copying_that_pays_is_a_finding(tmp_path: Path) -> None:
    for seed in range(3):
        write(tmp_path, "learned", "loo", seed, copy_gain=[4.0 + seed / 10, 1.0])
        write(tmp_path, "learned", "equal", seed, copy_gain=[1.0 + 3 * (-1) ** seed, 1.0])
    (table,) = summarise(results_of(tmp_path))
    assert "under loo (4.1\u00a0±\u00a00.2), in reward units." in dict(findings(table))["Copying"]


def test_parts_for_papers_are_latex_tables_and_pdf_figures_with_text(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def shares(table: Table, styles: Looks) -> list[Drawing]:
        with house_style():
            return [figures_module._shares(table, styles)]  # the others take long

    monkeypatch.setattr("proxycoop.training.pages.report.figures", shares)
    written = parts(folder, tmp_path / "paper", "paper")
    assert {path.name for path in written} <= set(names_of_parts(folder, "paper"))
    tables = summarise(results_of(folder))
    assert [path.read_text() for path in written if path.suffix == ".tex"] == [latex(table) for table in tables]
    pictures = [path.read_bytes() for path in written if path.suffix == ".pdf"]
    assert len(pictures) == len(written) - len(tables)
    assert all(picture.startswith(b"%PDF") and b"/FontFile2" in picture for picture in pictures)
    again = parts(folder, tmp_path / "again", "paper")
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in written], "same data, same files"


def test_the_page_says_what_every_column_of_the_results_means(folder: Path, page: tuple[str, Page]) -> None:
    rows = page[1].rows
    *_, text = columns_of(results_of(folder))
    assert list(csv.reader(text.splitlines()))[1:] == rows[-len(text.splitlines()) + 1 :]


def test_the_page_names_the_data_file_without_its_folders():
    plain = {"name": "own", "data": {"source": "csv", "file": {"path": "/home/somebody/secret/own.csv", "label": "y"}}}
    assert _to_share(plain) == {"name": "own", "data": {"source": "csv", "file": {"path": "own.csv", "label": "y"}}}
    assert plain["data"]["file"]["path"] == "/home/somebody/secret/own.csv", "what was recorded stays"
    digits = scenario.load("digits").to_dict()
    assert _to_share(digits) == digits
