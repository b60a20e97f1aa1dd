"""A cluster that cannot be there is refused in one line, within seconds, before anything is done."""

from __future__ import annotations

import importlib.util
import os
import socket
import threading
import time
from types import SimpleNamespace

import pytest

from proxycoop.envs import scenario
from proxycoop.training.compare import cells, compare
from proxycoop.training.executors import cluster, reachable, require_place


@pytest.fixture
def listening():
    """Start servers on this machine that answer each caller with some bytes; gives a server's port."""
    sockets = []

    def start(answer: bytes) -> int:
        server = socket.create_server(("127.0.0.1", 0))
        sockets.append(server)

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        return server.getsockname()[1]

    yield start
    for one in sockets:
        one.close()


@pytest.mark.parametrize(
    "address", ["", "here", "host", "host:", ":6379", "host:0", "host:99999", "host:port", "http://host:80", "ray://host"]
)
def test_what_is_no_address_is_refused_with_what_is_allowed(address):
    with pytest.raises(ValueError, match=r"no address of a Ray cluster: write 'local' .* 'auto' .* HOST:PORT .* ray://HOST:PORT"):
        reachable.require_reachable(address)


def test_ray_and_jobs_exclude_each_other():
    with pytest.raises(ValueError, match="--ray auto and --jobs 2: give one of them"):
        require_place(2, "auto")


def test_without_ray_the_command_that_installs_it_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"not installed: pip install 'proxycoop\[ray\]'"):
        require_place(None, "local")


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_nobody_at_an_address_is_one_line_within_seconds(scheme):
    pytest.importorskip("ray")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    began = time.monotonic()
    with pytest.raises(
        ValueError, match=rf"--ray {scheme}127.0.0.1:{port}: nothing can be reached there \(Connection refused\)"
    ) as refused:
        require_place(None, f"{scheme}127.0.0.1:{port}")
    assert "\n" not in str(refused.value)
    assert time.monotonic() - began < reachable.TIMEOUT + 5


def test_a_machine_that_does_not_exist_is_one_line():
    pytest.importorskip("ray")
    with pytest.raises(ValueError, match=r"--ray nowhere\.invalid:6379: nothing can be reached there"):
        require_place(None, "nowhere.invalid:6379")


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", b"\x00"])
def test_what_answers_and_is_not_ray_is_refused(listening, answer):
    pytest.importorskip("ray")
    with pytest.raises(ValueError, match="what answers there is not Ray"):
        require_place(None, f"127.0.0.1:{listening(answer)}")


def test_what_answers_with_settings_of_http2_passes(listening):
    pytest.importorskip("ray")
    require_place(None, f"127.0.0.1:{listening(bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))}")


def test_a_comparison_refuses_before_it_makes_its_folder(tmp_path):
    todo = cells([scenario.load("breast_cancer")], ["equal"], [0])
    with pytest.raises(ValueError, match="no address"):
        compare(todo, tmp_path / "out", ray="here", quiet=True)
    assert not (tmp_path / "out").exists()


class _Refusing:
    """Ray as it is where the cluster has another token: native code writes a line for each try."""

    exceptions = SimpleNamespace(AuthenticationError=type("AuthenticationError", (Exception,), {}))

    @staticmethod
    def init(**_: object) -> None:
        os.write(2, b"[W 1 1] gcs_client.cc:210: Failed to get cluster ID: Unauthenticated: RPC error: InvalidAuthToken: it is incorrect\n")
        os.write(2, b"another line\n")
        raise ConnectionError("Failed to connect to Ray cluster at 127.0.0.1:6379")


def test_another_token_is_one_line_about_authentication(capfd):
    with pytest.raises(ValueError, match=r"--ray host:6379: the cluster refuses the authentication.*RAY_AUTH_TOKEN.*=disabled"):
        cluster._join(_Refusing, "host:6379", [])
    assert capfd.readouterr().err == "another line\n"


def test_a_token_that_is_missing_is_the_same_line(monkeypatch):
    def init(**_: object) -> None:
        raise _Refusing.exceptions.AuthenticationError("no authentication token was found")

    monkeypatch.setattr(_Refusing, "init", init)
    with pytest.raises(ValueError, match="--ray auto: the cluster refuses the authentication"):
        cluster._join(_Refusing, "auto", [])


@pytest.mark.parametrize(
    "words",
    [
        ("compare", "--out", "o"),
        ("sweep", "--vary", "gamma=0,1", "--out", "o"),
        ("redteam", "loo"),
        ("tune", "equal", "-p", "scenario:reward.public_share=0.0..0.5"),
    ],
)
def test_all_four_commands_take_ray_and_refuse_bad_addresses(words, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(*words, "--ray", "here")
    assert code == 2
    assert err.startswith("error: --ray 'here' is no address of a Ray cluster")  # before anything is loaded, and so before any other line
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())
