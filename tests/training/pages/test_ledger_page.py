"""A member's statement, as CSV, tables and a page."""

from __future__ import annotations

import csv
import dataclasses
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from proxycoop.credit.ledger.chain import Head
from proxycoop.credit.ledger.statement import Statement, StatementLine, StatementRound
from proxycoop.credit.money.money import Currency
from proxycoop.credit.money.settlement import LARGEST, SettlementPolicy
from proxycoop.training.pages.ledger_page import (
    COLUMNS,
    cells,
    console_table,
    facts,
    policy_in_words,
    round_cells,
    write_csv,
    write_statement,
)

LINE = StatementLine(
    number=1,
    at="2026-07-01T12:34:56.789012Z",
    n_rounds=3,
    first_round=4,
    last_round=9,
    credit=-0.125,
    standing=2.5,
    share=0.25,
    revenue=123456,
    payout=30864,
    paid=30864,
    reserve=7,
)
STATEMENT = Statement(
    cooperative="clinics",
    member="Ada",
    currency=Currency(),
    policy=SettlementPolicy(),
    joined="2026-01-02T03:04:05.000000Z",
    lines=(LINE,),
    n_rounds=2,
    credit=0.5,
    revenue=99,
    paid=30864,
    reserve=7,
    head=Head(42, "a1" * 32),
)


class Page(HTMLParser):
    """Text, tags and the addresses that a page loads."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.alts = [], "", []
        self.addresses = re.findall(r"(?:src|href)\s*=\s*[\"']([^\"']*)|url\(([^)]*)\)|@import", text)
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.alts += [value for name, value in attrs if name == "alt"]

    def handle_data(self, data):
        self.text += data


def page(statement, tmp_path):
    return Page(write_statement(statement, tmp_path / "page.html").read_text(encoding="utf-8"))


def many(n):
    lines = tuple(
        dataclasses.replace(
            LINE, number=i + 1, payout=100 * i, paid=50 * i * (i + 1), share=(i % 10) / 10, n_rounds=1, first_round=i, last_round=i
        )
        for i in range(n)
    )
    return dataclasses.replace(STATEMENT, lines=lines, paid=lines[-1].paid)


def test_a_row_says_what_happened_in_words_of_the_currency():
    assert cells(LINE, Currency()) == ["1 · 2026-07-01 12:34", "4–9 (3)", "−0.125", "2.5", "25.0", "1234.56", "308.64", "308.64"]
    assert cells(LINE, Currency("JPY", 0))[5:] == ["123456", "30864", "30864"]
    assert len(cells(LINE, Currency())) == len(COLUMNS)
    assert cells(dataclasses.replace(LINE, n_rounds=1, last_round=4), Currency())[1] == "4"
    assert cells(dataclasses.replace(LINE, n_rounds=0, first_round=None, last_round=None), Currency())[1] == "–"
    assert (
        cells(dataclasses.replace(LINE, n_rounds=0, first_round=None, last_round=None, payout=LARGEST), Currency())[6]
        == "92233720368547758.07"
    )


def test_an_objection_says_by_how_much_in_as_many_digits_as_it_takes_and_leaves_names_as_they_are():
    objections = [
        {"lot": 2, "by": "Ada-Bo", "about": "false-alarm", "amount": 0.12, "limit": 0.05},
        {"lot": 0, "by": "Cy", "about": "nines", "amount": 0.3600004, "limit": 0.36},
        {"lot": 1, "by": "Cy", "about": "direction 0", "amount": 0.5, "limit": 1e-6},
        {"lot": 1, "by": "Cy", "about": "tag pre-2020"},
    ]
    told = round_cells(StatementRound(0, 0.0, 0, {"objections": objections}, {}), Currency())[-1]
    assert told == (
        "Ada-Bo objected to lot 2: false-alarm 0.12 > 0.05; Cy objected to lot 0: nines 0.3600004 > 0.36; "
        "Cy objected to lot 1: direction 0 0.5 > 1e−06; Cy objected to lot 1: tag pre-2020"
    )


def test_facts_say_what_was_paid_and_what_is_to_come():
    assert dict(facts(STATEMENT)) == {
        "paid so far": "308.64 EUR",
        "settlements": "1",
        "member since": "2026-01-02 03:04",
        "rounds since the last settlement": "2",
        "credit in these": "0.5",
        "to be settled next, for all": "0.99 EUR",
        "the cooperative's reserve": "0.07 EUR",
    }


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        (
            SettlementPolicy(),
            "split in proportion to cumulative credit, or equally if nobody has any; a round's negative credit counts as 0",
        ),
        (SettlementPolicy(split="equal"), "split equally, whatever the credit"),
        (SettlementPolicy(decay=0.9), "counts 0.9 times as much after every further round"),
        (SettlementPolicy(early=0.5), "counts 0.5 times as much with every round that it comes later"),
        (SettlementPolicy(solidarity=0.125), "12.5 % of what is paid is split equally"),
        (SettlementPolicy(reserve=0.1), "10 % of every revenue is kept in reserve"),
        (SettlementPolicy(floor=150), "nobody gets less than 1.50 EUR"),
        (SettlementPolicy(cap=0), "nobody gets more than 0.00 EUR"),
        (SettlementPolicy(clawback=True), "credit counts with its sign; a member that turns out to have been overpaid waits"),
    ],
)
def test_every_setting_of_a_policy_is_told_where_it_does_something(policy, said):
    everything = "; ".join(policy_in_words(policy, Currency()))
    assert said in everything
    assert ("counts as 0" in everything) == (policy.split == "credit" and not policy.clawback)


def test_csv_has_amounts_as_exact_decimals_and_measures_in_full(tmp_path):
    line = dataclasses.replace(LINE, credit=1 / 3, share=0.1, revenue=LARGEST, first_round=None, last_round=None)
    path = write_csv(dataclasses.replace(STATEMENT, lines=(line,)), tmp_path / "statement.csv")
    (row,) = csv.DictReader(path.read_text().splitlines())
    assert row == {
        "settlement": "1",
        "at": "2026-07-01T12:34:56.789012Z",
        "n_rounds": "3",
        "first_round": "",
        "last_round": "",
        "credit": repr(1 / 3),
        "standing": "2.5",
        "share": "0.1",
        "revenue": "92233720368547758.07",
        "payout": "308.64",
        "paid": "308.64",
        "reserve": "0.07",
        "currency": "EUR",
    }


def test_a_page_holds_all_rows_and_loads_nothing(tmp_path):
    shown = page(STATEMENT, tmp_path)
    for text in (*cells(LINE, Currency()), "Statement of Ada", "a1" * 32, "308.64 EUR", "0.99 EUR"):
        assert text in shown.text
    assert "script" not in shown.tags
    assert shown.tags.count("img") == 1
    assert all(one.startswith("data:image/svg+xml;base64,") for address in shown.addresses for one in address if one)
    assert shown.alts == ["settlement 1: 308.64 EUR, 25.0 % of cumulative credit."]


def test_a_page_without_settlements_says_so_and_draws_nothing(tmp_path):
    shown = page(dataclasses.replace(STATEMENT, lines=(), paid=0), tmp_path)
    assert "Nothing has been settled since the member joined." in shown.text
    assert "img" not in shown.tags
    assert "table" not in shown.tags


def test_a_page_of_200_settlements_has_all_rows_and_tells_the_picture_in_few_words(tmp_path):
    shown = page(many(200), tmp_path)
    assert shown.tags.count("tr") == 201
    (alt,) = shown.alts
    assert "settlement 1: 0.00 EUR" in alt
    assert "176 settlements in between" in alt
    assert alt.endswith("settlement 200: 199.00 EUR, 90.0 % of cumulative credit.")


@pytest.mark.parametrize(
    "change",
    [
        {"payout": 0, "share": 0.0, "standing": 0.0},
        {"payout": LARGEST, "paid": LARGEST, "revenue": LARGEST},
        {"credit": -1.7e308, "standing": 5e-324},
    ],
)
@pytest.mark.parametrize("money", [Currency("JPY", 0), Currency("ETH", 18)])
def test_amounts_at_the_limits_are_drawn(tmp_path, change, money):
    line = dataclasses.replace(LINE, **change)
    shown = page(dataclasses.replace(STATEMENT, lines=(line, dataclasses.replace(line, number=2)), currency=money), tmp_path)
    assert money.plain(line.payout) in shown.text


@pytest.mark.parametrize("name", ["<script>alert(\"1\")</script> & 'x'", "שלום <b>", "{{ 7 * 7 }}", "$x_1$ \\frac", "x" * 200])
def test_names_are_text_on_a_page_and_nothing_else(tmp_path, name):
    shown = page(dataclasses.replace(STATEMENT, member=name, cooperative=name), tmp_path)
    assert shown.text.count(name) == 5, "member and cooperative in the title and in the introduction, the member in the heading"
    assert not {"script", "b"}.intersection(shown.tags)
    assert shown.tags.count("bdi") == 3


@pytest.mark.parametrize(
    "name", ["[bold]Ada[/bold]", "[/]", "[link=http://x]y", ":smile:", "שלום עולם", "名前 x", "a\x1b[31mb\nc", "x" * 200]
)
def test_names_are_text_in_a_table_and_nothing_else(name):
    console = Console(width=60, record=True, force_terminal=True, color_system="truecolor", file=io.StringIO())
    console.print(console_table(("member", "payout"), [[name, "1.00"], ["Bo", "2.00"]]))
    text = console.export_text()
    assert "\x1b" not in text
    lines = text.splitlines()
    assert any(line.split() == ["Bo", "2.00"] for line in lines)
    shown = re.sub(r"\s", "", text)
    assert re.sub(r"\s", "", name.replace("\x1b", r"\x1b").replace("\n", ""))[:20] in shown


def test_files_that_cannot_be_written_are_named():
    with pytest.raises(ValueError, match=r"page '/dev/null/x\.html' cannot be written"):
        write_statement(STATEMENT, Path("/dev/null/x.html"))
    with pytest.raises(ValueError, match=r"'/dev/null/x\.csv' cannot be written"):
        write_csv(STATEMENT, Path("/dev/null/x.csv"))


@pytest.mark.slow
@pytest.mark.parametrize(("width", "paper"), [(400, False), (680, True)])
def test_on_a_telephone_and_on_paper_nothing_is_cut_off(tmp_path, in_browser, width, paper):
    text = write_statement(many(30), tmp_path / "page.html").read_text(encoding="utf-8")
    found = in_browser(text, width, paper=paper)
    assert found["page"] <= 0
    assert max(found["boxes"]) <= 0
    assert found["hidden"] == 0
