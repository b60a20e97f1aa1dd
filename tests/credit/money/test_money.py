"""Money as text and as whole numbers of minor units."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxycoop.credit.money.money import EXPONENTS, MOST_DECIMALS, Currency
from proxycoop.credit.money.settlement import LARGEST

exponents = st.integers(0, MOST_DECIMALS)
amounts = st.integers(0, LARGEST) | st.sampled_from([0, 1, 99, 100, LARGEST - 1, LARGEST])


@given(exponents, amounts)
def test_an_amount_is_read_back_as_it_was_written(exponent, amount):
    currency = Currency("XYZ", exponent)
    assert currency.minor(currency.plain(amount)) == amount
    assert currency.format(amount) == f"{currency.plain(amount)} XYZ"


@given(exponents, amounts)
def test_an_amount_is_written_as_the_decimal_that_it_is(exponent, amount):
    text = Currency("XYZ", exponent).plain(amount)
    assert Decimal(text) * 10**exponent == amount
    assert len(text.partition(".")[2]) == exponent
    assert ("." in text) == (exponent > 0)


@given(exponents, st.integers(0, 8), st.data())
def test_decimals_that_are_not_written_are_zeros(exponent, whole, data):
    part = data.draw(st.text("0123456789", min_size=0, max_size=exponent))
    text = f"{whole}.{part}" if part else str(whole)
    assert Currency("XYZ", exponent).minor(text) == int(Decimal(text) * 10**exponent)


@given(exponents, st.text() | st.from_regex(r"[-+ ]?[0-9_,]*[.,]?[0-9]*([eE][+-]?[0-9]+)?", fullmatch=True))
def test_any_text_is_an_amount_or_one_short_line_that_says_why_not(exponent, text):
    currency = Currency("XYZ", exponent)
    said = ""
    try:
        amount = currency.minor(text)
    except ValueError as error:
        said = str(error)
    assert len(said) < 250
    assert not said or said.isprintable()
    assert said or 0 <= amount == Decimal(text) * 10**exponent <= LARGEST


@pytest.mark.parametrize(
    "text",
    [
        *("inf", "nan", "NaN", "١٢", "¹", "12.34 EUR", "€12", "1.2.3", "9" * 10_000, "0." + "1" * 10_000, "92233720368547758.08"),
        *(
            "",
            " ",
            "12.345",
            "12.340",
            "-1",
            "-0",
            "+1",
            "1e2",
            "1E2",
            "12.",
            ".5",
            "1,50",
            "1.000,00",
            "1 000",
            "1_000",
            " 1",
            "1\n",
            "0x10",
        ),
    ],
    ids=lambda text: text[:12],
)
def test_what_is_no_amount_of_euros_is_refused(text):
    with pytest.raises(ValueError, match=r"^amount '"):
        Currency().minor(text)


def test_the_largest_amount_is_the_last_that_is_taken():
    assert Currency().minor("92233720368547758.07") == LARGEST
    assert Currency("WEI", 18).minor("9.223372036854775807") == LARGEST
    with pytest.raises(ValueError, match=r"no more than 92233720368547758\.07 EUR \(2\^63 − 1 minor units\)"):
        Currency().minor("92233720368547758.08")
    assert Currency().minor("0" * 10_000 + "1.5") == 150, "leading zeros change nothing"


def test_messages_say_what_is_allowed():
    with pytest.raises(ValueError, match=r"amount '12\.345' has 3 decimals: EUR has 2, and nothing is rounded"):
        Currency().minor("12.345")
    with pytest.raises(ValueError, match=r"amount '12\.3' has 1 decimal: JPY has none"):
        Currency.of("JPY").minor("12.3")
    with pytest.raises(ValueError, match=r"amount '1,5': write digits with at most 3 behind a point, such as 12\.034"):
        Currency.of("KWD").minor("1,5")
    with pytest.raises(ValueError, match="amount 'ten': write digits alone, such as 12"):
        Currency.of("JPY").minor("ten")


@pytest.mark.parametrize("amount", [1.5, 1.0, 12, True, None, b"12", Decimal("12.34"), np.float64(2)])
def test_only_text_is_read_as_an_amount(amount):
    with pytest.raises(TypeError, match=r"write it as text, such as '12\.34'"):
        Currency().minor(amount)


@pytest.mark.parametrize("amount", [1.5, 1.0, True, "12", None, np.float64(2)])
def test_only_whole_numbers_are_written(amount):
    with pytest.raises(TypeError, match="whole number of minor units"):
        Currency().plain(amount)


def test_negative_amounts_are_not_written():
    with pytest.raises(ValueError, match="amount=-1: must not be negative"):
        Currency().format(-1)


def test_whole_numbers_of_numpy_are_written():
    assert Currency().plain(np.int64(1234)) == "12.34"


def test_exponents_are_those_of_iso_4217_unless_another_is_given():
    assert (Currency.of("JPY").exponent, Currency.of("KWD").exponent, Currency.of("CLF").exponent) == (0, 3, 4)
    assert Currency.of("EUR") == Currency() == Currency("EUR", 2)
    assert Currency.of("CREDITS").exponent == 2, "not of ISO 4217"
    assert Currency.of("JPY", 2).exponent == 2
    assert Currency.of("ETH", 18).format(1) == "0.000000000000000001 ETH"
    assert len(EXPONENTS) == 26
    for code, exponent in EXPONENTS.items():
        assert Currency.of(code).format(10**exponent).split(" ")[0].rstrip("0").rstrip(".") == "1"


@pytest.mark.parametrize("code", ["", "EU", "eur", "E R", "ΕUR", "EUR\n", "A" * 13, "€UR", "<b>", None, 978])
def test_what_is_no_code_is_refused(code):
    with pytest.raises(ValueError, match=r"^currency .*: write 3 to 12 capital letters or digits, such as EUR"):
        Currency.of(code)


@pytest.mark.parametrize("exponent", [-1, 19, 2.0, "2", True, 1 << 50_000], ids=["-1", "19", "2.0", "text", "True", "huge"])
def test_what_is_no_exponent_is_refused(exponent):
    with pytest.raises(ValueError, match=r"of EUR: must be a whole number of decimals from 0 to 18"):
        Currency.of("EUR", exponent)
