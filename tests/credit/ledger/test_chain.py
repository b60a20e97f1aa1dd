import hashlib
import math

import pytest

from proxycoop.credit.ledger.chain import GENESIS, canonical, link


def test_canonical_json_sorts_keys_leaves_out_spaces_and_escapes_what_is_not_ascii():
    assert canonical({"b": [1, None, "ü \"'<"], "a": 0.1}) == '{"a":0.1,"b":[1,null,"\\u00fc \\"\'<"]}'


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (2**63 - 1, "9223372036854775807"),
        (1.0, "1.0"),
        (5e-324, "5e-324"),
        (1.7976931348623157e308, "1.7976931348623157e+308"),
        (-0.1, "-0.1"),
    ],
)
def test_numbers_are_written_in_full(number, text):
    assert canonical(number) == text


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_lacks_are_refused(number):
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical([number])


def test_a_row_is_hashed_with_the_hash_before_it_and_its_table():
    text = f'["{GENESIS}","members",{{"cooperative":"clinics","name":"Zo\\u00eb","position":0,"seq":2}}]'
    fields = {"seq": 2, "position": 0, "name": "Zoë", "cooperative": "clinics"}
    assert link(GENESIS, "members", fields) == hashlib.sha256(text.encode()).hexdigest()
    assert len({link(GENESIS, "members", fields), link("1" * 64, "members", fields), link(GENESIS, "rounds", fields)}) == 3
