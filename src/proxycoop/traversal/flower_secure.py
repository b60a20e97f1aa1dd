r"""The secure mode over Flower's messages. The helper is a SuperNode too, and what it and the nodes say to each other is sealed.

All messages pass the SuperLink, which the orchestrator's operator may run. So a node seals what goes to the helper, and the helper what
goes to a node (:mod:`proxycoop.traversal.sealed`). The orchestrator carries these bytes. At all SuperNodes::

    def party(context):
        if context.node_config.get("role") == "helper":
            return Helper(split)
        return SecureNode(split, *rows_of(context.node_config["partition-id"]))

    app = ClientApp()
    serve_secure(app, party)

and in the ``ServerApp``'s main function::

    transport = SecureGridTransport(grid)
    orchestrator = SecureOrchestrator(split, transport)
    orchestrator.census(transport.find(n_nodes=6))

The operator of a SuperNode sets, in its ``--node-config``:

- ``helper-key``, at a node: the helper's public key, 64 hex digits. Any other is refused.
- ``key-file``: the file of the party's private key, of :func:`~proxycoop.traversal.sealed.create_key`. Without it the party draws a key for
  the run, which nobody can pin.
- ``node-keys``, at the helper: a file with a line ``partition-id public-key`` for each node. Any other node is refused. Without it the
  helper takes the first key that it is told for a node, and no other later in the run.
- ``reveals``, at the helper: an SQLite file in which it notes each step before it reveals it. Flower stores a party's state after it has
  sent its reply, and may start two processes at once. So only with this file a step is revealed once even if a process is killed between
  the two, or the orchestrator asks twice at the same time.

Between two messages Flower may start the ClientApp anew. A node's open step, the helper's shares and both parties' fresh keys are in their
``Context.state``, which stays in the SuperNode.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import torch

try:
    from flwr.app import ConfigRecord, Context, Message, RecordDict
    from flwr.clientapp import ClientApp

    from .sealed import HELPER, Content, Keys, Label, from_hex, lasting_of, new_key, read_key
except ImportError as error:
    what = f"proxycoop.traversal.flower_secure needs flwr 1.41 or newer and cryptography ({error})"
    raise ImportError(f"{what}: pip install 'proxycoop[flower]'") from error

from .flower import Carried, Mailbox, failure, from_records, number_of, to_records
from .secure import Helper, HelperState, SecureNode
from .secure_wire import (
    CutErrorShare,
    GradientKey,
    GradientShare,
    Handed,
    HelperIntroduction,
    HelperRequest,
    HelperStart,
    IntroductionRequest,
    MaskedForward,
    NodeIntroduction,
    NodeReply,
    NodeRequest,
    Reveal,
    Revealed,
    Sealed,
    SecureForwardRequest,
)

_C = TypeVar("_C", bound=Carried)
ACTION = "secure"
"""Messages are of types ``query.secure`` (introductions) and ``train.secure`` (steps)."""
_KEYS, _CARDS, _OPEN, _KEPT, _LAST = (f"secure.{name}" for name in ("keys", "cards", "open", "helper", "last"))  # kept in a party's state


def serve_secure(
    app: ClientApp, party: Callable[[Context], SecureNode | Helper], pinned: bool = True, id_key: str = "partition-id"
) -> None:
    """Let a ``ClientApp`` take part in the secure mode, as a node or as the helper. A request that it refuses is answered with the reason.

    Args:
        app: The app. Its actions ``query.secure`` and ``train.secure`` are taken.
        party: Makes the node or the helper; it may be called for every message.
        pinned: Whether a node refuses to take part if its operator has not set ``helper-key``. If False, such a node believes the
            orchestrator whose key the helper's is.
        id_key: Where ``Context.node_config`` has the node's number.
    """

    def answered(message: Message, context: Context) -> Message:
        content = RecordDict()
        try:
            one = party(context)
            if isinstance(one, SecureNode):
                place = number_of(context, id_key)
                content["node"] = ConfigRecord({id_key: place})
                answer = _answer_as_node(one, _Desk(context, str(place)), message.content, pinned)
            else:
                answer = _answer_as_helper(one, _Desk(context, HELPER), message.content)
            content.update(answer)
        except ValueError as error:
            content["refused"] = ConfigRecord({"reason": str(error)})
        return Message(content, reply_to=message)

    app.query(ACTION)(answered)
    app.train(ACTION)(answered)


class _Desk:
    """A party's keys and what it knows of others, kept in its state."""

    def __init__(self, context: Context, name: str) -> None:
        self.state, self.config, self.name = context.state, context.node_config, name

    @property
    def keys(self) -> Keys:
        """The party's keys; they are drawn when they are first needed."""
        file = self.config.get("key-file")
        if (kept := self.state.get(_KEYS)) is None:
            kept = self.state[_KEYS] = ConfigRecord({"fresh": new_key()} | ({} if file is not None else {"lasting": new_key()}))
        return Keys(read_key(str(file)) if file is not None else kept["lasting"], kept["fresh"])

    def meet(self, name: str, card: object, pin: bytes | None) -> None:
        """Take another party's card.

        Raises:
            ValueError: If it is none, or its lasting key is another than the one that is pinned, or than before in the run.
        """
        lasting = lasting_of(card if isinstance(card, bytes) else b"")
        who, cards = "the helper" if name == HELPER else f"node {name}", self.state.get(_CARDS) or ConfigRecord()
        if pin is not None and lasting != pin:
            raise ValueError(f"public key of {who} is said to be {lasting.hex()}: pinned is {pin.hex()}")
        if name in cards and (before := lasting_of(cards[name])) != lasting:
            raise ValueError(f"public key of {who} is said to be {lasting.hex()}: it was {before.hex()} before in this run")
        cards[name] = card
        self.state[_CARDS] = cards

    def once(self, step: int) -> None:
        """Note that the helper's share of the error came in this step.

        Raises:
            ValueError: If one came in this step or a later one before: the node can be asked forward again, and an old share opens.
        """
        lasts, card = self.state.get(_LAST) or ConfigRecord(), self._card(HELPER).hex()  # a helper with new keys may begin steps anew
        if step <= (last := int(lasts.get(card, -1))):
            raise ValueError(f"sealed CutErrorShare of step {step} is replayed: one of step {last} came before")
        lasts[card] = step
        self.state[_LAST] = lasts

    def seal(self, message: Handed, step: int, receiver: str) -> bytes:
        """A message sealed for another party."""
        assert not isinstance(message, Sealed)
        return self.keys.seal(message, self._card(receiver), Label(step, type(message).__name__, self.name, receiver)).data

    def open(self, data: object, kind: type[Handed], step: int, sender: str) -> Content:
        """What another party sealed for this one."""
        label = Label(step, kind.__name__, sender, self.name)
        return self.keys.open(Sealed(data if isinstance(data, bytes) else b""), self._card(sender), label)

    def _card(self, name: str) -> bytes:
        cards = self.state.get(_CARDS) or {}
        if name not in cards:
            raise ValueError(f"{'the helper' if name == HELPER else 'node ' + name} is not known: call census first")
        return bytes(cards[name])

    def keep(self, prefix: str, message: Carried | None) -> None:
        """Keep a message, or forget the one that is kept."""
        for name in ("message", "arrays"):
            self.state.pop(f"{prefix}.{name}", None)
        if message is not None:
            self.state.update({f"{prefix}.{name}": record for name, record in to_records(message).items()})

    def kept(self, prefix: str) -> Carried | None:
        """The message that is kept."""
        if f"{prefix}.message" not in self.state:
            return None
        return from_records(RecordDict({name: self.state[f"{prefix}.{name}"] for name in ("message", "arrays")}))


def _answer_as_node(node: SecureNode, desk: _Desk, content: RecordDict, pinned: bool) -> dict[str, object]:
    request = from_records(content)
    if isinstance(request, IntroductionRequest):
        if (card := content.get("cards", {}).get(HELPER)) is not None:
            pin = desk.config.get("helper-key")
            if pin is None and pinned:
                raise ValueError("helper-key is not set: give the SuperNode the helper's public key, --node-config \"helper-key='…'\"")
            desk.meet(HELPER, card, None if pin is None else from_hex(str(pin), "helper-key"))
        return {**to_records(node.introduction()), "cards": ConfigRecord({"own": desk.keys.card})}
    handed: Handed | None = None
    if isinstance(request, CutErrorShare):
        handed = desk.open(content.get("sealed", {}).get(HELPER), CutErrorShare, request.step, HELPER)
        desk.once(request.step)
        if isinstance(opened := desk.kept(_OPEN), SecureForwardRequest):
            node.reopen_secure(opened)
    reply, other = node.answer_secure(request, handed)  # type: ignore[arg-type]  # a node refuses what is no request to it
    sealed = ConfigRecord({HELPER: desk.seal(other, reply.step, HELPER)})
    desk.keep(_OPEN, request if isinstance(request, SecureForwardRequest) else None)
    return {**to_records(reply), "sealed": sealed}


def _answer_as_helper(helper: Helper, desk: _Desk, content: RecordDict) -> dict[str, object]:
    request = from_records(content)
    if isinstance(state := desk.kept(_KEPT), HelperState):
        helper.restore(state)
    left: dict[str, str] = {}
    if isinstance(request, IntroductionRequest):
        pins = _pins(desk.config.get("node-keys"))
        for name, card in content.get("cards", {}).items():
            try:
                if pins is not None and name not in pins:
                    raise ValueError(f"node {name} is not in the helper's node-keys: must be one of {', '.join(pins)}")
                desk.meet(name, card, None if pins is None else pins[name])
            except ValueError as error:
                left[name] = str(error)
        introduction = to_records(helper.introduction())
        return {**introduction, "cards": ConfigRecord({"own": desk.keys.card}), "left": ConfigRecord(left)}
    if not isinstance(request, HelperStart | Reveal):
        raise ValueError(f"a helper cannot answer a {type(request).__name__}: must be a HelperStart or a Reveal")
    kind = MaskedForward if isinstance(request, HelperStart) else GradientKey
    handed: dict[int, Handed] = {}
    for name, data in content.get("sealed", {}).items():
        try:
            handed[int(name)] = desk.open(data, kind, request.step, name)
        except ValueError as error:
            left[name] = str(error)
    if isinstance(request, Reveal):
        stayed = [node for node in request.nodes.tolist() if str(node) not in left]
        request = Reveal(request.step, torch.tensor(stayed, dtype=torch.int64), request.by_lot)
    revealed, said = helper.answer(request, handed)
    if revealed is not None:
        _note(desk.config.get("reveals"), desk.keys.card.hex(), request.step)
    left |= {str(node): answer for node, answer in said.items() if isinstance(answer, str)}
    sealed = {str(node): desk.seal(answer, request.step, str(node)) for node, answer in said.items() if not isinstance(answer, str)}
    desk.keep(_KEPT, helper.state())
    answer = {} if revealed is None else to_records(revealed)
    return {**answer, "sealed": ConfigRecord(sealed), "left": ConfigRecord(left)}


def _pins(file: object) -> dict[str, bytes] | None:
    """Nodes' public keys by number, from the file that the helper's operator named."""
    if file is None:
        return None
    try:
        lines = [line.split() for line in Path(str(file)).read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"node-keys={str(file)!r} cannot be read: {error}") from error
    if bad := [" ".join(line) for line in lines if len(line) != 2 or not line[0].isdecimal()]:
        raise ValueError(f"node-keys={str(file)!r} has the line {bad[0]!r}: must be partition-id and public key")
    return {number: from_hex(key, f"node-keys, node {number}") for number, key in lines}


def _note(file: object, card: str, step: int) -> None:
    """Note that a step is revealed under the helper's present keys, durably, unless it was before."""
    if file is None:
        return
    try:
        with closing(sqlite3.connect(str(file), timeout=30)) as notes, notes:
            notes.execute("CREATE TABLE IF NOT EXISTS reveals (card TEXT, step INTEGER, PRIMARY KEY (card, step))")
            notes.execute("INSERT INTO reveals VALUES (?, ?)", (card, step))
    except sqlite3.IntegrityError:
        raise ValueError(f"step {step} was revealed before: each is revealed once") from None
    except sqlite3.Error as error:
        raise ValueError(f"reveals={str(file)!r} cannot be written: {error}") from error


class SecureGridTransport(Mailbox):
    """Carries the secure mode over a ``Grid``. It sees nothing of what nodes and helper say to each other.

    Args:
        grid: Flower's.
        timeout: Seconds to wait for replies to one kind of message. Nodes that have not answered by then drop out of the step; a helper
            that has not is an error. No limit by default.
        id_key: As in :func:`serve_secure`.

    Attributes:
        places: Flower's node ids by partition id, as :meth:`find` found them.
        helper: The helper's.
    """

    helper: int | None = None
    _card: bytes = b""

    def find(self, n_nodes: int = 2, wait: float = 60.0) -> list[int]:
        """Ask all SuperNodes who they are. Returns the nodes' partition ids, ascending.

        Args:
            n_nodes: How many nodes are needed, beside the helper.
            wait: Seconds to wait for so many to connect.

        Raises:
            ValueError: If fewer nodes answer than ``n_nodes``, two have the same partition id, or not exactly one SuperNode is a helper.
        """
        self.places = {}
        helpers, refusals = [], ""
        asked = {place: to_records(IntroductionRequest()) for place in self.await_places(n_nodes + 1, wait)}
        for reply in self.ask(asked, f"query.{ACTION}"):
            if reason := failure(reply):
                refusals += f"; SuperNode {reply.metadata.src_node_id}: {reason}"
            elif "node" in reply.content:
                self.settle(reply)
            elif "cards" in reply.content:
                helpers.append(reply.metadata.src_node_id)
                self._card = bytes(reply.content["cards"]["own"])
        if len(helpers) != 1 or len(self.places) < n_nodes:
            answered = f"{len(self.places)} nodes and {len(helpers)} helpers answered"
            raise ValueError(f"{answered}: the run needs {n_nodes} and one helper{refusals}")
        self.helper = helpers[0]
        return sorted(self.places)

    def introduce(self, nodes: list[int]) -> tuple[HelperIntroduction, dict[int, NodeIntroduction | str]]:
        """See :class:`~proxycoop.traversal.SecureTransport`. Nodes are told the helper's card, and then the helper theirs."""
        known: dict[int, NodeIntroduction | str] = {}
        cards: dict[str, bytes] = {}
        told = RecordDict({**to_records(IntroductionRequest()), "cards": ConfigRecord({HELPER: self._card})})
        for node, content in self._ask_nodes(dict.fromkeys(nodes, told), "query").items():
            try:
                known[node], cards[str(node)] = _expected(content, NodeIntroduction), _entry(content, "cards", "own")
            except ValueError as error:
                known[node] = str(error)
        told = RecordDict({**to_records(IntroductionRequest()), "cards": ConfigRecord(cards)})
        content = self._ask_helper(told, "introduction", "query")
        left = {int(name): f"the helper: {reason}" for name, reason in content.get("left", {}).items()}
        return _expected(content, HelperIntroduction), known | left

    def to_nodes(self, requests: Mapping[int, tuple[NodeRequest, Handed | None]]) -> dict[int, tuple[NodeReply, Handed] | str]:
        """See :class:`~proxycoop.traversal.SecureTransport`. Flower sends to all nodes at once."""
        contents = {}
        for node, (request, handed) in requests.items():
            contents[node] = to_records(request)
            if isinstance(handed, Sealed):
                contents[node]["sealed"] = ConfigRecord({HELPER: handed.data})
        replies: dict[int, tuple[NodeReply, Handed] | str] = {}
        for node, content in self._ask_nodes(contents, "train").items():
            try:
                forward = isinstance(requests[node][0], SecureForwardRequest)
                reply = _expected(content, MaskedForward) if forward else _expected(content, GradientShare)
                replies[node] = reply, Sealed(_entry(content, "sealed", HELPER))
            except ValueError as error:
                replies[node] = str(error)
        return replies

    def to_helper(self, request: HelperRequest, handed: Mapping[int, Handed]) -> tuple[Revealed | None, dict[int, Handed | str]]:
        """See :class:`~proxycoop.traversal.SecureTransport`."""
        sealed = {str(node): one.data for node, one in handed.items() if isinstance(one, Sealed)}
        told = RecordDict({**to_records(request), "sealed": ConfigRecord(sealed)})
        content = self._ask_helper(told, f"{type(request).__name__} of step {request.step}", "train")
        said: dict[int, Handed | str] = {int(node): Sealed(data) for node, data in content.get("sealed", {}).items()}
        said |= {int(node): str(reason) for node, reason in content.get("left", {}).items()}
        return _expected(content, Revealed) if isinstance(request, Reveal) else None, said

    def _ask_nodes(self, contents: Mapping[int, RecordDict], kind: str) -> dict[int, RecordDict | str]:
        """The replies' records by node, or why there are none."""
        known = {self.places[node]: node for node in contents if node in self.places}
        replies: dict[int, RecordDict | str] = {}
        for reply in self.ask({place: contents[node] for place, node in known.items()}, f"{kind}.{ACTION}"):
            node = known[reply.metadata.src_node_id]
            replies[node] = "answered twice" if node in replies else failure(reply) or reply.content
        return replies

    def _ask_helper(self, content: RecordDict, what: str, kind: str) -> RecordDict:
        """The helper's reply.

        Raises:
            ConnectionError: If there is none.
            ValueError: If the helper refuses.
        """
        if self.helper is None:
            raise ValueError("the helper is not known: call find first")
        for reply in self.ask({self.helper: content}, f"{kind}.{ACTION}"):
            if reply.has_error():
                raise ConnectionError(f"the helper failed at the {what}: {failure(reply)}")
            if reason := failure(reply):
                raise ValueError(reason)
            return reply.content
        within = "" if self.timeout is None else f" within {self.timeout:g} s"
        raise ConnectionError(f"the helper did not answer the {what}{within}")


def _expected(content: RecordDict | str, kind: type[_C]) -> _C:
    """The message in a reply, if it is of this kind.

    Raises:
        ValueError: If it is not, or the reply is a reason.
    """
    if isinstance(content, str):
        raise ValueError(content)
    message = from_records(content)
    if not isinstance(message, kind):
        raise ValueError(f"answered with a {type(message).__name__}: must be a {kind.__name__}")
    return message


def _entry(content: RecordDict | str, record: str, name: str) -> bytes:
    """The bytes of this name in a record of a reply."""
    value = content.get(record, {}).get(name) if isinstance(content, RecordDict) else None
    if not isinstance(value, bytes):
        raise ValueError(f"the reply has no bytes {name!r} in a record {record!r}")
    return value
