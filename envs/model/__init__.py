"""The shared model, how it learns, and what coalitions of agents would have gained."""

from .coalitions import RoundStep, UtilityGame, UtilityName, WeightsName
from .models import Mlp, Model, ModelSettings, Module, Softmax
from .server import Adam, ServerSettings, ServerState, Sgd
from .substrates import FedAvg, Proposals, SubstrateSettings, Traversal, Vertical

__all__ = [
    "Adam",
    "FedAvg",
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
    "WeightsName",
]
