"""The shared model, how it learns, and what coalitions of agents would have gained."""

from .coalitions import RoundStep, UtilityGame, WeightsName
from .models import Mlp, Model, ModelSettings, Module, Softmax
from .server import Adam, ServerSettings, ServerState, Sgd
from .substrates import FedAvg, Proposals, SubstrateSettings, Traversal, Vertical
from .utility import HeldOutUtility, UtilityName

__all__ = [
    "Adam",
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
    "WeightsName",
]
