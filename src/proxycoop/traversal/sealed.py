r"""Sealed messages: what a node and the helper say to each other, so that who carries it can neither read nor change it.

Each party has a lasting key, by which others know it, and a fresh one, drawn for the run. Both are X25519 keys. The two public ones are its
card. A message from s to r is sealed under

.. math:: k = \text{HKDF-SHA256}(\text{DH}(f_s, f_r) \,\|\, \text{DH}(l_s, l_r);\; \text{card}_s \,\|\, \text{card}_r)

with ChaCha20-Poly1305 and a random nonce of 96 bits. DH of the lasting keys l authenticates: k takes one of their private halves. DH of
the fresh keys f lets nothing of another run be replayed, and who gets hold of the lasting keys later cannot open what was recorded. The
associated data are the :class:`Label`: step, kind, sender and receiver. So a message opens only as what it was sealed for.

It needs the package ``cryptography``, which the extra ``flower`` brings.

References:
    RFC 7748 (X25519), RFC 5869 (HKDF), RFC 8439 (ChaCha20-Poly1305).
    Perrin (2018), *The Noise protocol framework*, pattern KK, which mixes more of the four products.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from torch import Tensor

from .ring import Words
from .secure_wire import CutErrorShare, GradientKey, MaskedForward, Sealed

KEY, NONCE = 32, 12  # bytes
HELPER = "helper"
"""The helper's name in labels. A node's is its number."""
Content = MaskedForward | GradientKey | CutErrorShare
"""What is sealed."""
_KINDS: dict[str, type[Content]] = {kind.__name__: kind for kind in (MaskedForward, GradientKey, CutErrorShare)}


@dataclass(frozen=True)
class Label:
    """What a sealed message is, which both sides know. It is not sent.

    Attributes:
        step: Number of the step.
        kind: Name of the message's class.
        sender: A node's number, or :data:`HELPER`.
        receiver: The same.
    """

    step: int
    kind: str
    sender: str
    receiver: str


class Keys:
    """A party's private keys.

    Args:
        lasting: The private key by which it is known, 32 bytes.
        fresh: That of this run, 32 bytes.
    """

    def __init__(self, lasting: bytes, fresh: bytes) -> None:
        self._private = X25519PrivateKey.from_private_bytes(fresh), X25519PrivateKey.from_private_bytes(lasting)

    @property
    def card(self) -> bytes:
        """Both public keys, the lasting one first, 64 bytes."""
        fresh, lasting = (_public(one) for one in self._private)
        return lasting + fresh

    def seal(self, message: Content, receiver: bytes, label: Label) -> Sealed:
        """Seal a message for the party with a card.

        Raises:
            ValueError: If the card is none.
        """
        nonce = os.urandom(NONCE)
        cipher = self._cipher(receiver, self.card + receiver)
        return Sealed(nonce + cipher.encrypt(nonce, _packed(message), _bytes(label)))

    def open(self, sealed: Sealed, sender: bytes, label: Label) -> Content:
        """The message that the party with a card sealed under a label.

        Raises:
            ValueError: If it did not.
        """
        cipher = self._cipher(sender, sender + self.card)
        try:
            data = cipher.decrypt(sealed.data[:NONCE], sealed.data[NONCE:], _bytes(label))
        except (InvalidTag, ValueError):
            who = f"{label.kind} of step {label.step} from {_name(label.sender)} to {_name(label.receiver)}"
            raise ValueError(f"sealed {who} does not open: changed, replayed, swapped, or sealed with other keys") from None
        return _unpacked(label.kind, data)

    def _cipher(self, card: bytes, both: bytes) -> ChaCha20Poly1305:
        """The cipher between this party and that of a card, in the direction that the order of both cards says."""
        public = X25519PublicKey.from_public_bytes(fresh_of(card)), X25519PublicKey.from_public_bytes(lasting_of(card))
        try:
            secret = b"".join(own.exchange(other) for own, other in zip(self._private, public, strict=True))
        except ValueError as error:
            raise ValueError("card has a key of low order, with which nothing is secret") from error
        return ChaCha20Poly1305(HKDF(SHA256(), KEY, None, b"proxycoop.traversal.sealed 1" + both).derive(secret))


def lasting_of(card: bytes) -> bytes:
    """The lasting public key of a card.

    Raises:
        ValueError: If the card has another length.
    """
    if len(card) != 2 * KEY:
        raise ValueError(f"card has {len(card)} bytes: must have {2 * KEY}, two public keys")
    return card[:KEY]


def fresh_of(card: bytes) -> bytes:
    """The fresh public key of a card."""
    return card[len(lasting_of(card)) :]


def new_key() -> bytes:
    """A private key from the operating system's generator, 32 bytes."""
    return bytes(X25519PrivateKey.generate().private_bytes_raw())


def create_key(path: str | Path) -> str:
    """Write a new lasting key into a file that only its owner may read. Returns the public key, 64 hex digits, for others to pin.

    Raises:
        FileExistsError: If there is such a file.
    """
    key = new_key()
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(key.hex() + "\n")
    return _public(X25519PrivateKey.from_private_bytes(key)).hex()


def read_key(path: str | Path) -> bytes:
    """The private key in a file of :func:`create_key`.

    Raises:
        ValueError: If the file cannot be read or has no key.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"key-file={str(path)!r} cannot be read: {error}") from error
    try:
        return from_hex(text, "it")
    except ValueError:  # the message must not show what may be a private key
        raise ValueError(f"key-file={str(path)!r} has no key: must have 64 hex digits, as create_key writes them") from None


def from_hex(text: str, name: str) -> bytes:
    """The 32 bytes that 64 hex digits stand for.

    Raises:
        ValueError: If the text is anything else.
    """
    try:
        key = bytes.fromhex(text.strip())
    except ValueError:
        key = b""
    if len(key) != KEY:
        raise ValueError(f"{name}={text.strip()!r}: must be a public key, 64 hex digits")
    return key


def _public(private: X25519PrivateKey) -> bytes:
    return bytes(private.public_key().public_bytes_raw())


def _name(party: str) -> str:
    return "the helper" if party == HELPER else f"node {party}"


def _bytes(label: Label) -> bytes:
    return json.dumps(asdict(label)).encode()


def _packed(message: Content) -> bytes:
    """A line of JSON with the numbers, keys and shapes, and then the arrays' words, little-endian."""
    head: dict[str, Any] = {}
    words = []
    for part in fields(message):
        value = getattr(message, part.name)
        if isinstance(value, int):
            head[part.name] = value
        elif isinstance(value, bytes):
            head[part.name] = value.hex()
        else:
            array = value.numpy().astype("<i8") if isinstance(value, Tensor) else value.astype("<u8")
            head[part.name] = array.shape
            words.append(array.tobytes())
    return b"".join([json.dumps(head).encode(), b"\n", *words])


def _unpacked(kind: str, data: bytes) -> Content:
    """The message of a kind that :func:`_packed` wrote."""
    line, _, rest = data.partition(b"\n")
    values: dict[str, Any] = {}
    place = 0
    try:
        head = json.loads(line)
        for part in fields(_KINDS[kind]):
            value = head[part.name]
            if part.type in ("int", "bytes"):
                values[part.name] = int(value) if part.type == "int" else bytes.fromhex(value)
                continue
            n_words = int(np.prod(value, dtype=np.int64))
            words: Words = np.frombuffer(rest, dtype="<u8", count=n_words, offset=place).astype(np.uint64).reshape(value)
            values[part.name] = torch.from_numpy(words.view(np.int64)) if part.type == "Tensor" else words
            place += 8 * n_words
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"what was sealed is no {kind}: {error}") from error
    return _KINDS[kind](**values)
