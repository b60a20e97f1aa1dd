r"""A member's side: a SuperNode is a principal, and its proxy decides each round what it offers.

What differs between members stands in the SuperNode's own configuration, and never leaves its machine::

    flower-supernode --node-config 'partition-id=3 agent="learned(path=\"/home/ada/policy.pt\")" rows="/home/ada/rows.npz"'

``agent`` is the proxy's policy. ``rows`` is a file of arrays ``x`` (features), ``y`` (labels), ``lot`` (of each row, its lot) and
``n_classes``; without it the lots are drawn from the scenario's data, as in the simulator.
"""

from pathlib import Path

from flwr.app import Context
from flwr.clientapp import ClientApp

from proxycoop.envs import scenario
from proxycoop.flower import OwnRows, Site, serve

app = ClientApp()


def site(context: Context) -> Site:
    """The principal of this node."""
    named = str(context.run_config["scenario"])
    beside = Path(__file__).parent / named
    agent = str(context.node_config.get("agent", context.run_config["agent"]))
    rows = context.node_config.get("rows")
    held = None if rows is None else OwnRows.read(str(rows))
    return Site(scenario.load(beside if beside.is_file() else named), agent, int(context.node_config["partition-id"]), held)


serve(app, site)
