import unicodedata

import pytest

from proxycoop.credit.ledger.names import LONGEST, checked_name, shown

FINE = [
    "Ada",
    'Jean-Luc O\'Brien "the 1st"',
    "<b>Bo</b> & Söhne",
    "Ελένη",
    "نرگس",
    "می\u200cخواهم",  # Persian, with a zero-width non-joiner
    "क्\u200dष",  # Hindi, with a zero-width joiner
    "👩\u200d🌾",
    "a = b",
    "x" * LONGEST,
]


@pytest.mark.parametrize("name", FINE)
def test_letters_of_all_scripts_quotes_and_signs_are_fine(name):
    assert checked_name("member", name) == unicodedata.normalize("NFC", name)


def test_the_same_letters_in_another_form_are_the_same_name():
    assert checked_name("member", "Zoe\u0308") == "Zo\u00eb"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "has 0 characters: must have 1 to 200"),
        ("x" * 201, "has 201 characters"),
        ("x" * 10_000, "has 10,000 characters"),
        ("Ada\nBo", r"a control character, U\+000A"),
        ("Ada\x00", r"a control character, U\+0000"),
        ("Ada\u2028Bo", r"a line separator, U\+2028"),
        ("Ada\u2029Bo", r"a paragraph separator, U\+2029"),
        ("Ada\u202eoB", r"an invisible formatting character, U\+202E"),
        ("Ada\u200f", r"an invisible formatting character, U\+200F"),
        ("Ada\ufeff", r"an invisible formatting character, U\+FEFF"),
        ("Ada\ud800", r"half of a surrogate pair, U\+D800"),
        ("Ada\ue000", r"a private-use character, U\+E000"),
        ("Ada\uffff", r"an unassigned character, U\+FFFF"),
        ("A\u200dda", r"an invisible formatting character, U\+200D"),
        ("نرگس\u200c", r"an invisible formatting character, U\+200C"),
        ("Ada\ufe0f", r"a character that shows nothing, U\+FE0F"),
        ("Ada\u3164", r"a character that shows nothing, U\+3164"),
        ("\u2800", r"a character that shows nothing, U\+2800"),
        ("＝1", "which a spreadsheet would read as a formula"),
        (" Ada", "begins or ends with a space"),
        ("Ada\u00a0", "begins or ends with a space"),
        (" ", "begins or ends with a space"),
        ("=1+1", "begins with '=', which a spreadsheet would read as a formula"),
        ("+1", "begins with '[+]'"),
        ("-1", "begins with '-'"),
        ("@SUM(A1)", "begins with '@'"),
        (7, "must be text, not int"),
        (None, "must be text, not NoneType"),
        (b"Ada", "must be text, not bytes"),
    ],
)
def test_what_does_not_print_or_may_be_misread_is_refused(name, reason):
    with pytest.raises(ValueError, match=reason) as caught:
        checked_name("member", name)
    message = str(caught.value)
    assert message.startswith("member ")
    assert message.isprintable()
    assert len(message) < 200


@pytest.mark.parametrize("name", ["x" * 10_000, "\x00" * 10_000, b"x" * 10_000, 10**1000, "\U000e0001" * 60])
def test_names_are_shown_escaped_and_short(name):
    assert len(shown(name)) <= 60
    assert shown(name).isascii() or shown(name).endswith("…")
    assert shown(name).isprintable()


def test_a_short_name_is_shown_whole():
    assert shown("Ada's") == '"Ada\'s"'
    assert shown("x" * 58) == "'" + "x" * 58 + "'"
