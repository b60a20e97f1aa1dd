"""The template of examples/federation, started by ``flwr run`` in Flower's simulation, as its users do."""

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

pytest.importorskip("flwr.serverapp", reason="flwr is an extra: make compat-flower")
pytest.importorskip("ray", reason="Flower's simulation needs ray: pip install 'flwr[simulation]'")

import httpx

from proxycoop.envs import scenario
from proxycoop.flower import Federation

from .test_federation import in_process

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def answers(port):
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health").is_success
    except httpx.HTTPError:
        return False


@pytest.fixture
def superlink(tmp_path):
    """A SuperLink for simulations. Gives the environment in which ``flwr run`` finds it."""
    home, port = tmp_path / "flower", free_port()
    home.mkdir()
    ray = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # Ray would join a cluster that runs here; and names of sockets must be short
    link = f'[superlink]\ndefault = "test"\n\n[superlink.test]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
    (home / "config.toml").write_text(link)
    environment = os.environ | {
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TMPDIR": ray,
        "OMP_NUM_THREADS": "1",
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
    }
    where = ["--insecure", "--simulation", "--host", "127.0.0.1", "--port", str(port), "--disable-runtime-dependency-installation"]
    log = tmp_path / "superlink.log"
    with log.open("w") as file:
        process = subprocess.Popen([BIN / "flower-superlink", *where], env=environment, stdout=file, stderr=subprocess.STDOUT)
        until = time.monotonic() + 300
        while time.monotonic() < until and process.poll() is None and not answers(port):
            time.sleep(0.5)
    yield environment
    process.terminate()
    process.wait(timeout=60)
    shutil.rmtree(ray, ignore_errors=True)


def test_the_template_runs_in_the_simulation_and_is_equal_to_the_simulator(superlink, tmp_path):
    app, out = tmp_path / "federation", tmp_path / "out"
    shutil.copytree(ROOT / "examples" / "federation", app)
    agreed = app / "cooperative" / "scenario.yaml"
    agreed.write_text(re.sub(r"^horizon: .*$", "horizon: 2", agreed.read_text(), flags=re.M))
    settings = ["--federation-config", "num-supernodes=6", "--run-config", f"out='{out}' timeout=600.0"]
    command = [BIN / "flwr", "run", app, "test", *settings, "--stream"]
    done = subprocess.run(command, env=superlink, capture_output=True, text=True, timeout=600, check=False)
    assert "round 1: " in done.stdout, done.stdout + done.stderr + (tmp_path / "superlink.log").read_text()
    assert f"the rounds, the ledger and the model are in {out}" in done.stdout
    cooperative = scenario.load(agreed)
    played = Federation(cooperative, "shapley", seed=5, folder=out / "rounds", ledger=out / "ledger.db")
    assert not played.books.ledger.verify().problems
    played.run(in_process.FaultyGrid([]))  # from the files, without a site
    largest = in_process.compared(played.engine, cooperative, "shapley", "honest", 5)
    assert largest == dict.fromkeys(largest, 0.0)
    assert int(played.engine.history[0].admitted.sum()) == 4
