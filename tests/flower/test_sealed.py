"""Sealed messages open for whom, and as what, they were sealed; ``make compat-flower`` runs these tests."""

import pytest

pytest.importorskip("cryptography", reason="the extra flower brings cryptography: make compat-flower")

from proxycoop.traversal import sealed
from proxycoop.traversal.secure_wire import GradientKey


def parties() -> tuple[sealed.Keys, sealed.Keys]:
    return tuple(sealed.Keys(sealed.new_key(), sealed.new_key()) for _ in range(2))


LABEL = sealed.Label(3, "GradientKey", "1", "helper")


def test_a_sealed_message_opens_for_its_receiver_under_its_label():
    node, helper = parties()
    message = GradientKey(3, bytes(range(32)), 2)
    one, other = (node.seal(message, helper.card, LABEL) for _ in range(2))
    assert one != other
    assert helper.open(one, node.card, LABEL) == message


@pytest.mark.parametrize(
    ("field", "value"), [("step", 4), ("kind", "CutErrorShare"), ("sender", "2"), ("sender", "helper"), ("receiver", "1")]
)
def test_under_another_label_it_does_not_open(field, value):
    node, helper = parties()
    one = node.seal(GradientKey(3, b"", 2), helper.card, LABEL)
    label = sealed.Label(**{**vars(LABEL), field: value})
    with pytest.raises(ValueError, match="does not open"):
        helper.open(one, node.card, label)


def test_nobody_else_opens_it_nor_is_it_sent_back_nor_kept_for_another_run():
    lasting = sealed.new_key()
    node, helper = sealed.Keys(sealed.new_key(), sealed.new_key()), sealed.Keys(lasting, sealed.new_key())
    one = node.seal(GradientKey(3, b"", 2), helper.card, LABEL)
    later = sealed.Keys(lasting, sealed.new_key())
    for opener, sender in ((parties()[0], node), (later, node), (node, helper), (node, node), (helper, parties()[0])):
        with pytest.raises(ValueError, match="does not open"):
            opener.open(one, sender.card, LABEL)


def test_cards_that_are_none_are_refused():
    node, _ = parties()
    with pytest.raises(ValueError, match="card has 3 bytes: must have 64, two public keys"):
        node.seal(GradientKey(3, b"", 2), b"abc", LABEL)
    with pytest.raises(ValueError, match="card has a key of low order"):
        node.seal(GradientKey(3, b"", 2), bytes(64), LABEL)


def test_a_key_file_is_its_owner_s_only_and_is_not_written_over(tmp_path):
    file = tmp_path / "helper.key"
    public = sealed.create_key(file)
    assert file.stat().st_mode & 0o777 == 0o600
    assert sealed.lasting_of(sealed.Keys(sealed.read_key(file), sealed.new_key()).card).hex() == public
    with pytest.raises(FileExistsError):
        sealed.create_key(file)
    file.write_text("a private matter")
    with pytest.raises(ValueError, match=r"has no key: must have 64 hex digits") as refusal:
        sealed.read_key(file)
    assert "private matter" not in str(refusal.value)
    with pytest.raises(ValueError, match=r"key-file=.* cannot be read"):
        sealed.read_key(tmp_path / "nowhere")
