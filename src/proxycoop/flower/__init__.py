"""proxycoop with Flower (https://flower.ai): federated learning in real processes, with screening, credit and a ledger.

Flower is an optional extra: ``pip install 'proxycoop[flower]'``. There are two ways to use it:

* :class:`ValueConstrainedStrategy` is a strategy for models and clients of your own.
* ``serve`` and :class:`Federation` are the two sides of a federation of a *scenario*: at every site a policy that was trained in the
  simulator decides each round what the site offers; the server screens, credits and settles as the simulator does.

Parts: ``strategy``; ``site`` and ``client``, a member's side; ``federation``, ``remote``, ``decided`` and ``archive``, the server's side;
``messages``, what they say to each other.
"""

if __name__ != "proxycoop.flower":
    raise ImportError(f"{__name__!r} is part of proxycoop: use 'import proxycoop.flower'")

try:
    import flwr.app
    import flwr.clientapp
    import flwr.serverapp.strategy  # noqa: F401
except ImportError as error:
    raise ImportError(f"proxycoop.flower needs flwr 1.41 or newer ({error}): pip install 'proxycoop[flower]'") from error

from .client import serve
from .federation import Federation
from .remote import RemoteEngine, require_federated
from .site import OwnRows, Site
from .strategy import ClientId, RoundRecord, ValueConstrainedStrategy, Weights

__all__ = [
    "ClientId",
    "Federation",
    "OwnRows",
    "RemoteEngine",
    "RoundRecord",
    "Site",
    "ValueConstrainedStrategy",
    "Weights",
    "require_federated",
    "serve",
]
