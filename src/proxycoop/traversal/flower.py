r"""Traversal learning over Flower's messages: a node is a ``ClientApp``, and the orchestrator a loop over a ``Grid``.

Flower (https://flower.ai) is an optional extra: ``pip install 'proxycoop[flower]'``. At the nodes::

    app = ClientApp()
    serve(app, lambda context: Node(split, *rows_of(context.node_config["partition-id"])))

and in the ``ServerApp``'s main function::

    transport = GridTransport(grid)
    orchestrator = Orchestrator(split, transport)
    orchestrator.census(transport.find(n_nodes=6))
    for batch in plan(orchestrator.counts, 64, seed=0):
        orchestrator.theta -= 0.4 * orchestrator.propose(batch).pooled

Nodes are known by their partition ids, because Flower draws its own node ids anew in each run. A node keeps the open step, the request's
parameters and row indices, in its ``Context.state``: between two messages Flower may start the ClientApp anew, or in another process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from .node import Node
from .secure import HelperState
from .secure_wire import (
    CutErrorShare,
    GradientShare,
    HelperIntroduction,
    HelperStart,
    IntroductionRequest,
    MaskedForward,
    NodeIntroduction,
    Reveal,
    Revealed,
    SecureForwardRequest,
)
from .wire import BackwardRequest, CountRequest, ForwardRequest, Reply, Request

try:
    from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid
except ImportError as error:
    raise ImportError(f"proxycoop.traversal.flower needs flwr 1.41 or newer ({error}): pip install 'proxycoop[flower]'") from error

ACTION = "traversal"
"""Messages are of types ``query.traversal`` (who are you, how many rows) and ``train.traversal`` (forward and backward)."""
Carried = (
    Request
    | Reply
    | IntroductionRequest
    | NodeIntroduction
    | HelperIntroduction
    | SecureForwardRequest
    | MaskedForward
    | CutErrorShare
    | GradientShare
    | HelperStart
    | Reveal
    | Revealed
    | HelperState
)
"""What records stand for: a message of the open or the secure mode, or what a helper keeps."""
KINDS = {kind.__name__: kind for kind in get_args(Carried)}
"""The kinds of messages by name."""
_TYPES = {"Tensor": Tensor, "Words": np.ndarray, "int": int, "bool": bool, "bytes": bytes}
_OPEN = "traversal.open"  # prefix of what a node keeps in its state


def to_records(message: Carried) -> RecordDict:
    """A message as Flower's records: tensors and words in the ``ArrayRecord`` ``arrays``, the rest in the ``ConfigRecord`` ``message``."""
    arrays, rest = ArrayRecord(), ConfigRecord({"kind": type(message).__name__})
    for part in fields(message):
        value = getattr(message, part.name)
        if isinstance(value, Tensor):
            arrays[part.name] = Array(value.detach().cpu().numpy())
        elif isinstance(value, np.ndarray):
            arrays[part.name] = Array(value)
        else:
            rest[part.name] = value
    return RecordDict({"arrays": arrays, "message": rest})


def from_records(content: RecordDict) -> Carried:
    """The message that records stand for.

    Raises:
        ValueError: If they stand for none: no kind, an unknown one, or fields too few or of another type.
    """
    config, arrays = content.get("message"), content.get("arrays")
    kind = config.get("kind") if isinstance(config, ConfigRecord) else None
    if not isinstance(kind, str) or kind not in KINDS or not isinstance(arrays, ArrayRecord):
        raise ValueError(f"records are of kind {kind!r}: must be one of {', '.join(KINDS)}, with an ArrayRecord named arrays")
    values: dict[str, Any] = {name: value for name, value in config.items() if name != "kind"}
    wanted = {part.name: str(part.type) for part in fields(KINDS[kind])}
    try:
        for name, array in arrays.items():
            words = array.numpy().copy()
            values[name] = words if wanted.get(name) == "Words" and words.dtype == np.uint64 else torch.from_numpy(words)
    except (TypeError, ValueError) as error:
        raise ValueError(f"arrays of a {kind} cannot be read: {error}") from error
    if wrong := sorted(set(wanted) ^ set(values)):
        raise ValueError(f"a {kind} has the fields {', '.join(wanted) or 'none'}: {', '.join(wrong)} is missing or too many")
    for name, value in values.items():
        if not isinstance(value, _TYPES[wanted[name]]):
            raise ValueError(f"field {name} of a {kind} is a {type(value).__name__}: must be a {wanted[name]}")
    message: Carried = KINDS[kind](**values)
    return message


def serve(app: ClientApp, node: Callable[[Context], Node], id_key: str = "partition-id") -> None:
    """Let a ``ClientApp`` answer an orchestrator's messages; it may answer other messages too.

    A request that the node refuses is answered with the reason.

    Args:
        app: The app. Its actions ``query.traversal`` and ``train.traversal`` are taken.
        node: Makes the node; it may be called for every message.
        id_key: Where ``Context.node_config`` has the node's number.
    """

    def answered(message: Message, context: Context) -> Message:
        place = None
        try:
            place = number_of(context, id_key)
            request = from_records(message.content)
            one = node(context)
            if isinstance(request, BackwardRequest) and (opened := context.state.get(f"{_OPEN}.message")) is not None:
                kept = RecordDict({"message": opened, "arrays": context.state[f"{_OPEN}.arrays"]})
                one.reopen(_forward(from_records(kept)))
            content = to_records(one.answer(request))  # type: ignore[arg-type]  # a node refuses replies
            _keep(context, message.content if isinstance(request, ForwardRequest) else None)
        except ValueError as error:
            content = RecordDict({"refused": ConfigRecord({"reason": str(error)})})
        if place is not None:
            content["node"] = ConfigRecord({id_key: place})
        return Message(content, reply_to=message)

    app.query(ACTION)(answered)
    app.train(ACTION)(answered)


def number_of(context: Context, id_key: str) -> int:
    """The number of a node.

    Raises:
        ValueError: If its SuperNode was started without one.
    """
    place = context.node_config.get(id_key)
    if type(place) is not int:
        has = f"no {id_key}" if place is None else f"{id_key} {place!r}, which is no whole number"
        raise ValueError(f"this node has {has}: start its SuperNode with --node-config '{id_key}=NUMBER', from 0")
    return place


def _forward(message: Carried) -> ForwardRequest:
    if not isinstance(message, ForwardRequest):
        raise ValueError(f"the open step is a {type(message).__name__}: must be a ForwardRequest")
    return message


def _keep(context: Context, opened: RecordDict | None) -> None:
    """Keep the open step, or forget it."""
    for name in ("message", "arrays"):
        context.state.pop(f"{_OPEN}.{name}", None)
        if opened is not None:
            context.state[f"{_OPEN}.{name}"] = opened[name]


class Mailbox:
    """Sends records to the SuperNodes of a ``Grid``, and waits for the replies.

    Args:
        grid: Flower's.
        timeout: Seconds to wait for replies to one kind of message. No limit by default.
        id_key: Where ``Context.node_config`` of a node has its number.

    Attributes:
        places: Flower's node ids by partition id.
    """

    def __init__(self, grid: Grid, timeout: float | None = None, id_key: str = "partition-id") -> None:
        self.grid, self.timeout, self.id_key = grid, timeout, id_key
        self.places: dict[int, int] = {}

    def await_places(self, n_places: int, wait: float) -> list[int]:
        """Flower's ids of the SuperNodes that are connected, as soon as there are so many, or after ``wait`` seconds."""
        until = time.monotonic() + wait
        while len(list(self.grid.get_node_ids())) < n_places and time.monotonic() < until:
            time.sleep(0.1)
        return list(self.grid.get_node_ids())

    def settle(self, reply: Message) -> None:
        """Keep where a node is that says its number.

        Raises:
            ValueError: If another node has the same, or it says none.
        """
        said, place = reply.content.get("node"), reply.metadata.src_node_id
        partition = said.get(self.id_key) if isinstance(said, ConfigRecord) else None
        if type(partition) is not int:
            raise ValueError(f"node {place} does not say its {self.id_key}: its ClientApp serves something else")
        if partition in self.places:
            raise ValueError(f"nodes {self.places[partition]} and {place} both have {self.id_key} {partition}: each needs its own")
        self.places[partition] = place

    def ask(self, contents: Mapping[int, RecordDict], message_type: str) -> list[Message]:
        """The replies to records, by Flower's node id. Flower sends to all at once."""
        messages = [Message(content, dst_node_id=place, message_type=message_type, ttl=self.timeout) for place, content in contents.items()]
        return list(self.grid.send_and_receive(messages, timeout=self.timeout))


class GridTransport(Mailbox):
    """Carries the protocol's messages over a ``Grid``. Arguments as for :class:`Mailbox`.

    Nodes that have not answered after the timeout drop out of the step.
    """

    def find(self, n_nodes: int = 1, wait: float = 60.0) -> list[int]:
        """Ask all nodes of the grid who they are. Returns their partition ids, ascending.

        Args:
            n_nodes: How many are needed.
            wait: Seconds to wait for so many to connect.

        Raises:
            ValueError: If fewer nodes answer than ``n_nodes``, or two have the same partition id.
        """
        self.places, others = {}, []
        for reply in self.ask({place: to_records(CountRequest()) for place in self.await_places(n_nodes, wait)}, f"query.{ACTION}"):
            if reply.has_error() or "node" not in reply.content:
                others.append(f"; node {reply.metadata.src_node_id}: {failure(reply) or 'no answer of a node of traversal learning'}")
            else:
                self.settle(reply)
        if len(self.places) < n_nodes:
            raise ValueError(f"{len(self.places)} nodes answered: the run needs {n_nodes}{''.join(others)}")
        return sorted(self.places)

    def exchange(self, requests: Mapping[int, Request]) -> dict[int, Reply | str]:
        """See :class:`~proxycoop.traversal.Transport`. Flower sends to all nodes at once."""
        kind = "query" if all(isinstance(request, CountRequest) for request in requests.values()) else "train"
        known = {self.places[node]: node for node in requests if node in self.places}
        replies: dict[int, Reply | str] = {}
        for reply in self.ask({place: to_records(requests[node]) for place, node in known.items()}, f"{kind}.{ACTION}"):
            node = known[reply.metadata.src_node_id]
            replies[node] = "answered twice" if node in replies else _read(reply)
        return replies


def failure(reply: Message) -> str:
    """Why a reply has no answer: Flower's error, or the reason for which the request was refused; nothing if it has one."""
    if reply.has_error():
        return f"{reply.error.reason or 'error ' + str(reply.error.code)}"
    return str(reply.content["refused"]["reason"]) if "refused" in reply.content else ""


def _read(reply: Message) -> Reply | str:
    if reason := failure(reply):
        return reason
    try:
        return from_records(reply.content)  # type: ignore[return-value]  # the orchestrator refuses requests
    except ValueError as error:
        return str(error)
