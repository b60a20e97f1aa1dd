"""Whether a Ray cluster can be asked at all: its address, Ray itself, and whether somebody answers. Seconds at most."""

from __future__ import annotations

import importlib.util
import os
import socket
import ssl
from contextlib import suppress

TIMEOUT = 5.0
"""Seconds within which a machine must answer."""
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""How HTTP/2 begins (RFC 9113, section 3.4): its first words, and settings with nothing in them. Ray speaks it, by gRPC."""
_SETTINGS = 4


class WorkerLostError(OSError):
    """Something was not done, because its worker died again and again, or the cluster was lost."""


def require_reachable(address: str) -> None:
    """Refuse an address at which no Ray cluster can be.

    Args:
        address: ``local``, ``auto``, ``HOST:PORT`` or ``ray://HOST:PORT``.

    Raises:
        ValueError: If it is written otherwise, Ray is not installed, or nobody answers in :data:`TIMEOUT` seconds, or what answers is not
            Ray.
    """
    if address not in ("local", "auto"):
        host, port = _parts(address)
    if importlib.util.find_spec("ray") is None:
        raise ValueError("--ray needs Ray, which is not installed: pip install 'proxycoop[ray]'")
    if address not in ("local", "auto"):
        _require_answer(address, host, port)


def _parts(address: str) -> tuple[str, int]:
    """The host and the port."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 2**16 or "/" in host:
        raise ValueError(
            f"--ray {address!r} is no address of a Ray cluster: write 'local' to start one here, 'auto' for the one of this machine, "
            "HOST:PORT (the port is 6379 unless 'ray start' said otherwise) or ray://HOST:PORT (10001)"
        )
    return host.strip("[]"), int(port)


def _require_answer(address: str, host: str, port: int) -> None:
    try:
        with socket.create_connection((host, port), timeout=TIMEOUT) as connection:
            answers = _is_encrypted() or _speaks_http2(connection)
    except (OSError, ssl.SSLError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ValueError(
            f"--ray {address}: nothing can be reached there ({reason}): is Ray running on that machine, and is its port open to this one?"
        ) from None
    if not answers:
        raise ValueError(f"--ray {address}: what answers there is not Ray; 'ray status' on that machine shows whether it runs, and where")


def _is_encrypted() -> bool:
    return os.environ.get("RAY_USE_TLS", "0") not in ("", "0")


def _speaks_http2(connection: socket.socket) -> bool:
    """Whether the other end answers with a frame of settings, as every server of HTTP/2 does."""
    connection.sendall(_PREFACE)
    head = b""
    with suppress(TimeoutError, ConnectionError):
        while len(head) < 9 and (more := connection.recv(9 - len(head))):
            head += more
    return len(head) == 9 and head[3] == _SETTINGS
