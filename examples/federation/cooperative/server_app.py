"""The server's side: it asks the sites, screens, credits and settles. Start it again with the same ``out``, and it goes on."""

from logging import INFO
from pathlib import Path

import torch
from flwr.app import Context
from flwr.common.logger import log
from flwr.serverapp import Grid, ServerApp

from proxycoop.envs import scenario
from proxycoop.flower import Federation

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Play the episode, and keep the model. What is wrong is the last line that Flower prints."""
    try:
        play(grid, context)
    except ValueError as error:
        raise error.with_traceback(None) from None


def play(grid: Grid, context: Context) -> None:
    """Play the episode to its end."""
    torch.set_num_threads(1)
    config = context.run_config
    beside, out = Path(__file__).parent / str(config["scenario"]), Path(str(config["out"]))
    federation = Federation(
        scenario.load(beside if beside.is_file() else str(config["scenario"])),
        str(config["credit"]),
        seed=int(config["seed"]),
        folder=out / "rounds",
        ledger=out / "ledger.db",
        timeout=float(config["timeout"]),
        at_once=int(config["at-once"]) or None,
    )
    engine = federation.run(grid)
    torch.save(engine.theta[0], out / "model.pt")
    log(INFO, "the rounds, the ledger and the model are in %s", out.resolve())
