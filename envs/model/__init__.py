"""The shared model, how it learns, and what coalitions of agents would have gained.

* ``interface``: what a cooperative asks of a model, batched over parameters;
* ``models``: softmax regression, multilayer perceptrons and any ``nn.Module``;
* ``networks``: convolutional networks for images;
* ``vit``, ``lora``: a small vision transformer, trained on public rows and frozen, and its adapters;
* ``likelihood``: softmax, cross-entropy and its gradient;
* ``substrates``: how lots become updates: fedavg, traversal, vertical;
* ``server``: how the aggregate is applied: sgd, adam;
* ``utility``: the utility of the shared model, and its derivatives;
* ``coalitions``: the step and the utility gain of every coalition, v(S);
* ``additive``: the same where every agent moves the logits by something of its own;
* ``surrogates``: cheap games near a round's own, for estimates;
* ``peers``: what agents find when they try each other's updates on their own data.
"""

from .additive import WeightsName
from .coalitions import RoundStep, UtilityGame
from .interface import Model
from .lora import Vit
from .models import Mlp, ModelSettings, Module, Softmax
from .networks import Cnn
from .server import Adam, ServerSettings, ServerState, Sgd
from .substrates import FedAvg, Proposals, SubstrateSettings, Traversal, Vertical
from .utility import HeldOutUtility, UtilityName

__all__ = [
    "Adam",
    "Cnn",
    "FedAvg",
    "HeldOutUtility",
    "Mlp",
    "Model",
    "ModelSettings",
    "Module",
    "Proposals",
    "RoundStep",
    "ServerSettings",
    "ServerState",
    "Sgd",
    "Softmax",
    "SubstrateSettings",
    "Traversal",
    "UtilityGame",
    "UtilityName",
    "Vertical",
    "Vit",
    "WeightsName",
]
