"""Commands on a scenario with forgeries and levers."""

from __future__ import annotations

import json

CONDUCT = {
    "forgeries": [{"kind": "echo"}, {"kind": "twin"}, {"kind": "blend"}],
    "levers": [{"kind": "claim"}, {"kind": "lax"}, {"kind": "quit"}],
}


def test_commands_take_a_scenario_with_conduct(run, tmp_path):
    file = tmp_path / "tempted.yaml"
    file.write_text(f"extends: digits\nname: tempted\nprincipals: 4\nhorizon: 3\nreward: {{scale: 100}}\nconduct: {json.dumps(CONDUCT)}\n")
    code, out, err = run("scenarios", file)
    assert code == 0, err
    assert "is/echo" in out
    code, out, err = run("play", "-s", file, "-a", "random")
    assert code == 0, err
    code, out, err = run("evaluate", "-s", file, "-a", "honest", "--episodes", 2)
    assert code == 0, err
    code, out, err = run("audit", "-s", file, "-a", "all", "--episodes", 2)
    assert code == 0, err
    code, out, err = run("explain", "-s", file, "-a", "honest", "--episodes", 2, "--out", tmp_path / "e.html")
    assert code == 0, err
    code, out, err = run("scenarios", file, "--calibrate", "--rule", "equal", "--episodes", 2)
    assert code == 0, err
    assert "conduct" not in out  # it extends the file, which has it
