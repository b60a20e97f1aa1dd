"""What the server and the sites of a federation say to each other, and how Flower's records hold it.

A round has two messages each way. With the first, a :class:`Look`, sites are given the shared parameters, and each says how long its
updates are, as one sum: proxies observe the norm of an update relative to the mean of all. With the second, an :class:`Ask`, each site is
told what the cooperative announces and what the server knows of this member. Its policy decides, and the :class:`Offer` holds the updates
of the lots that it offers. Before the first round, a :class:`Hello` asks every node who it is.

All requests hold everything that an answer needs: between two messages Flower may start the ClientApp anew.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from torch import Tensor

PROTOCOL = 1
"""Version of these messages. Server and sites must have the same."""
ACTION = "proxycoop"
"""Messages are of types ``query.proxycoop`` (:class:`Hello`, :class:`Look`) and ``train.proxycoop`` (:class:`Ask`)."""


@dataclass(frozen=True)
class Hello:
    """Who are you?

    Attributes:
        protocol: The server's :data:`PROTOCOL`.
        version: The server's proxycoop, for messages.
        scenario: Digest of the server's scenario.
        seed: The episode's seed.
        episode: Its number among those of the seed.
        n_features: Features of a row D, as the model takes them.
        n_classes: Number of classes C.
    """

    protocol: int
    version: str
    scenario: str
    seed: int
    episode: int
    n_features: int
    n_classes: int


@dataclass(frozen=True)
class Introduction:
    """Who a site is.

    Attributes:
        place: Number of the principal, from 0.
        protocol: The site's :data:`PROTOCOL`.
        version: Its proxycoop, for messages.
        samples: Number of rows of each lot, K of them.
        tags: Index of each lot's provenance tag.
    """

    place: int
    protocol: int
    version: str
    samples: list[int]
    tags: list[int]


@dataclass(frozen=True)
class Look:
    """The shared parameters of a round, for the sites to make their updates from.

    Attributes:
        seed: The episode's seed.
        episode: Its number among those of the seed.
        t: The round's index, from 0.
        theta: ``(1, P)``.
    """

    seed: int
    episode: int
    t: int
    theta: Tensor


@dataclass(frozen=True)
class Norms:
    """How long a site's updates are.

    Attributes:
        place: Number of the principal.
        t: The round's index.
        total: The sum of its updates' norms, as observations have them.
        n_finite: How many of its updates are finite.
    """

    place: int
    t: int
    total: float
    n_finite: int


@dataclass(frozen=True)
class Ask:
    """What does your proxy offer?

    Attributes:
        seed: As in :class:`Look`.
        episode: As there.
        t: As there.
        theta: As there.
        value_gradients: ∇ℓ of every value, ``(1, M, P)``.
        value_losses: ℓ, ``(1, M)``.
        start_losses: ℓ at the episode's start, ``(1, M)``.
        validation_loss: ``(1,)``, in nats.
        utility: U(θ), ``(1,)``.
        mean_norm: Mean norm of all sites' updates, ``(1, 1, 1)``.
        money: Features of the accounts, some numbers or none, ``(n,)``.
        reward_scale: Reward units per unit of utility.
        past: What happened so far, as far as this member is concerned: the fields of
            :class:`~proxycoop.envs.observations.memory.Past`.
    """

    seed: int
    episode: int
    t: int
    theta: Tensor
    value_gradients: Tensor
    value_losses: Tensor
    start_losses: Tensor
    validation_loss: Tensor
    utility: Tensor
    mean_norm: Tensor
    money: Tensor
    reward_scale: float
    past: dict[str, Tensor]


@dataclass(frozen=True)
class Offer:
    """What a site offers.

    Attributes:
        place: Number of the principal.
        t: The round's index.
        updates: The updates of the lots that it offers, ``(P,)`` each, by the lot's number as text.
    """

    place: int
    t: int
    updates: dict[str, Tensor]


@dataclass(frozen=True)
class Refusal:
    """A site does not answer, and why.

    Attributes:
        place: Number of the principal; −1 if the site does not know.
        reason: One line.
    """

    place: int
    reason: str


Request = Hello | Look | Ask
Reply = Introduction | Norms | Offer | Refusal
KINDS: dict[str, Any] = {kind.__name__: kind for kind in (Hello, Introduction, Look, Norms, Ask, Offer, Refusal)}
"""The kinds of messages by name."""
_TYPES = {"int": int, "float": float, "str": str, "list[int]": list, "Tensor": Tensor, "dict[str, Tensor]": dict}


def to_records(message: Request | Reply) -> RecordDict:
    """A message as Flower's records: tensors in an ``ArrayRecord`` named ``arrays``, the rest in a ``ConfigRecord`` named ``message``."""
    arrays, rest = ArrayRecord(), ConfigRecord({"kind": type(message).__name__})
    for part in fields(message):
        value = getattr(message, part.name)
        if isinstance(value, Tensor):
            arrays[part.name] = Array(value.detach().cpu().numpy())
        elif isinstance(value, dict):
            for name, tensor in value.items():
                arrays[f"{part.name}.{name}"] = Array(tensor.detach().cpu().numpy())
        else:
            rest[part.name] = value
    return RecordDict({"arrays": arrays, "message": rest})


def from_records(content: RecordDict) -> Request | Reply:
    """The message that records stand for.

    Raises:
        ValueError: If they stand for none: no kind, an unknown one, or fields too few, too many, of another type, or not to be read.
    """
    config, arrays = content.get("message"), content.get("arrays")
    kind = config.get("kind") if isinstance(config, ConfigRecord) else None
    if not isinstance(config, ConfigRecord) or not isinstance(kind, str) or kind not in KINDS or not isinstance(arrays, ArrayRecord):
        raise ValueError(f"its kind is {kind!r}: must be one of {', '.join(KINDS)}, with an ArrayRecord named 'arrays'")
    wanted = {part.name: str(part.type) for part in fields(KINDS[kind])}
    values: dict[str, Any] = {name: {} for name, of_type in wanted.items() if of_type.startswith("dict")}
    values |= {str(name): value for name, value in config.items() if name != "kind"}
    try:
        for name, array in arrays.items():
            tensor, (whole, dot, part) = torch.from_numpy(array.numpy().copy()), name.partition(".")
            if dot and isinstance(values.get(whole), dict):
                values[whole][part] = tensor
            else:
                values[name] = tensor
    except Exception as error:  # from numpy, on foreign bytes: which one depends on them
        raise ValueError(f"the arrays of its {kind} cannot be read ({type(error).__name__})") from error
    if wrong := sorted(set(wanted) ^ set(values)):
        if (protocol := config.get("protocol", PROTOCOL)) != PROTOCOL:
            raise ValueError(f"its {kind} is of protocol {protocol}, and this side has {PROTOCOL}: install the same version of proxycoop")
        raise ValueError(f"its {kind} lacks, or has too many of: {', '.join(wrong)}")
    for name, value in values.items():
        if type(value) is not _TYPES[wanted[name]]:
            raise ValueError(f"{name} of its {kind} is a {type(value).__name__}: must be {wanted[name]}")
    message: Request | Reply = KINDS[kind](**values)
    return message
