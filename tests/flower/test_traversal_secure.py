"""The secure mode over Flower's messages: what nodes and helper say to each other is sealed; ``make compat-flower`` runs these tests."""

import importlib.util
import os
import re
from pathlib import Path

import pytest
import torch
from torch import nn

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"  # before flwr is imported
pytest.importorskip("flwr.serverapp", reason="flwr is an extra: make compat-flower")

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.serde import context_from_proto, context_to_proto, recorddict_from_proto, recorddict_to_proto

from proxycoop.traversal import Helper, SecureLocal, SecureNode, SecureOrchestrator, SplitModel, plan, sealed
from proxycoop.traversal.flower import from_records, to_records
from proxycoop.traversal.flower_secure import SecureGridTransport, serve_secure
from proxycoop.traversal.secure_wire import HelperStart, MaskedForward, Reveal, SecureForwardRequest

ROOT = Path(__file__).parents[2]
LOTS = [(7, 5), (9,), (4, 6, 3)]
HELPER = 103  # Flower's id of the helper; nodes have 100, 101 and 102


def split(frozen: bool = False) -> SplitModel:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4), nn.GELU(), nn.Linear(4, 3)).double()
    if frozen:
        module[:3].requires_grad_(False)
    return SplitModel(module, 4)


def node(i: int, model: SplitModel) -> SecureNode:
    draw = torch.Generator().manual_seed(i)
    x = torch.rand(sum(LOTS[i]), 6, generator=draw, dtype=torch.float64)
    return SecureNode(model, x, torch.randint(0, 3, (len(x),), generator=draw), LOTS[i])


def base() -> type:
    spec = importlib.util.spec_from_file_location("flower_digits", ROOT / "examples" / "flower_digits.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.InProcessGrid


class Link(base()):
    """A SuperLink whose operator keeps all that passes, and may lose or change it. Every message meets a new process.

    Of a process nothing remains but its Context, as the bytes that Flower makes of it.
    """

    def __init__(self, frozen: bool = False, pinned: bool = False, **helper) -> None:
        self.frozen, self.pinned, self.settings = frozen, pinned, helper
        super().__init__(self.started(), 4)
        self.passed: list[bytes] = []
        self.requests: list[tuple[int, RecordDict]] = []
        self.change = lambda place, content: content  # of a request, or None to lose it
        self.lost = lambda place, request, reply: False

    def started(self) -> ClientApp:
        def party(context):
            i = int(context.node_config["partition-id"])
            return Helper(split(self.frozen), **self.settings) if i == 3 else node(i, split(self.frozen))

        app = ClientApp()
        serve_secure(app, party, self.pinned)
        return app

    def send_and_receive(self, messages, *, timeout=None):
        replies = []
        for message in messages:
            place = message.metadata.dst_node_id
            content = self.change(place, recorddict_from_proto(recorddict_to_proto(message.content)))
            if content is None or place not in self.contexts:
                continue
            self.requests.append((place, content))
            message = Message(content, dst_node_id=place, message_type=message.metadata.message_type)
            self.app, self.contexts[place] = self.started(), context_from_proto(context_to_proto(self.contexts[place]))
            (reply,) = super().send_and_receive([message])
            self.passed.append(recorddict_to_proto(content).SerializeToString())
            if not reply.has_error():
                self.passed.append(recorddict_to_proto(reply.content).SerializeToString())
            if not self.lost(place, content, reply):
                replies.append(reply)
        return replies


def over(link: Link) -> SecureOrchestrator:
    transport = SecureGridTransport(link)
    orchestrator = SecureOrchestrator(split(link.frozen), transport)
    assert orchestrator.census(transport.find(3)) == {}
    return orchestrator


def within(frozen: bool = False, fails=None, **helper) -> SecureOrchestrator:
    model = split(frozen)
    transport = SecureLocal({i: node(i, model) for i in range(3)}, Helper(model, **helper), fails)
    orchestrator = SecureOrchestrator(split(frozen), transport)
    orchestrator.census([0, 1, 2])
    return orchestrator


def kind_of(content: RecordDict) -> str:
    return content["message"]["kind"] if "message" in content else ""


def whole(counts):
    return plan(counts, None, seed=0)[0]


# the step


@pytest.mark.parametrize("by_lot", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
def test_over_flower_with_a_new_process_for_every_message_the_step_is_that_within_a_process_to_the_bit(frozen, by_lot):
    far, near = over(Link(frozen, by_lot=by_lot)), within(frozen, by_lot=by_lot)
    assert far.counts == near.counts
    for epoch in range(2):
        for batch in plan(far.counts, 12, seed=0, epoch=epoch):
            if len(batch.visits) < 2:
                continue
            there, here = far.propose(batch, by_lot), near.propose(batch, by_lot)
            assert there.missing == {}
            assert there.lots == here.lots
            assert torch.equal(there.pooled, here.pooled)
            assert not by_lot or torch.equal(there.gradient, here.gradient)
            far.theta -= 0.3 * there.pooled
            near.theta -= 0.3 * here.pooled
    assert torch.equal(far.theta, near.theta)
    for link, traffic in near.traffic.items():
        if link in ("nodes to helper", "helper to nodes"):
            assert set(far.traffic[link].messages) <= {"Sealed"}
            assert far.traffic[link].messages.total() == traffic.messages.total()
            assert far.traffic[link].total > traffic.total or not traffic.total
        else:
            assert far.traffic[link].sent == traffic.sent


GONE = {
    "forward": (lambda place, request, reply: place == 101 and kind_of(request) == "SecureForwardRequest", "forward: no answer"),
    "backward": (lambda place, request, reply: place == 101 and kind_of(request) == "CutErrorShare", "backward: no answer"),
}


@pytest.mark.parametrize("stage", GONE)
def test_a_node_that_drops_out_leaves_nothing_behind(stage):
    link = Link()
    far, near = over(link), within(fails=lambda at, i: at == stage and i == 1)
    link.lost, reason = GONE[stage]
    batch = whole(far.counts)
    there, here = far.propose(batch), near.propose(batch)
    assert there.missing == here.missing == {1: reason}
    assert there.rows == 25
    assert torch.equal(there.pooled, here.pooled)
    link.lost = lambda *_: False  # it comes back
    assert torch.equal(far.propose(batch).pooled, within().propose(batch).pooled)


def test_a_node_that_raises_or_refuses_leaves_the_batch_with_its_reason():
    link = Link()
    far = over(link)
    far.theta *= 6e6  # twice that is too large for a node
    with pytest.raises(ValueError, match="0 nodes: the helper reveals a sum over at least 2"):
        far.propose(whole(far.counts))
    far.theta /= 6e6
    link.contexts[100].node_config["partition-id"] = "no number"
    step = far.propose(whole(far.counts))
    assert list(step.missing) == [0]
    assert step.missing[0].startswith("forward: ")


@pytest.mark.parametrize("kind", ["HelperStart", "Reveal"])
def test_a_helper_that_is_gone_is_an_error_and_the_next_step_can_be_taken(kind):
    link = Link()
    far = over(link)
    far.transport.timeout = 60
    link.change = lambda place, content: None if kind_of(content) == kind else content
    with pytest.raises(ConnectionError, match=f"the helper did not answer the {kind} of step 1 within 60 s"):
        far.propose(whole(far.counts))
    link.change = lambda place, content: content
    assert far.propose(whole(far.counts)).missing == {}


def test_a_helper_that_fails_or_was_never_found_is_an_error():
    link = Link()
    far = over(link)
    link.settings = {"misspelt": 2}
    with pytest.raises(ConnectionError, match=r"the helper failed at the HelperStart of step 1: .*misspelt"):
        far.propose(whole(far.counts))
    with pytest.raises(ValueError, match="the helper is not known: call find first"):
        SecureOrchestrator(split(), SecureGridTransport(link)).census([0, 1, 2])


def test_there_must_be_one_helper_and_enough_nodes():
    link = Link()
    with pytest.raises(ValueError, match="3 nodes and 1 helpers answered: the run needs 4 and one helper"):
        SecureGridTransport(link).find(4, wait=0)
    del link.contexts[HELPER]
    with pytest.raises(ValueError, match="3 nodes and 0 helpers answered: the run needs 3 and one helper"):
        SecureGridTransport(link).find(3, wait=0)


def test_another_orchestrator_goes_on_where_the_last_one_stopped():
    link = Link()
    first = over(link)
    first.propose(whole(first.counts))
    second = over(link)
    assert second.propose(whole(second.counts)).missing == {}
    assert [request["message"]["step"] for _, request in link.requests if kind_of(request) == "HelperStart"] == [1, 2]


# what the orchestrator sees, and what it may try


def test_the_orchestrator_carries_nothing_that_it_can_read(monkeypatch):
    plain = []
    packed = sealed._packed
    monkeypatch.setattr(sealed, "_packed", lambda message: plain.append(message) or packed(message))
    link = Link()
    far = over(link)
    batch = whole(far.counts)
    far.propose(batch)
    assert [type(one).__name__ for one in plain] == ["MaskedForward"] * 3 + ["CutErrorShare"] * 3 + ["GradientKey"] * 3
    view = b"".join(link.passed)
    for message in plain:
        if hasattr(message, "key"):
            assert message.key not in view
            assert message.key.hex().encode() not in view
        else:
            assert not any(word.tobytes() in view for word in message.error.ravel())
    carried = [data for _, request in link.requests for data in request.get("sealed", {}).values()]
    assert len(carried) == 9
    for data, message in zip(carried, plain, strict=True):
        words = packed(message)
        assert len(data) == len(words) + sealed.NONCE + 16
        assert not any(words[i : i + 8] in data for i in range(len(words) - 8))
    secrets = [record for context in link.contexts.values() for record in [context.state["secure.keys"]]]
    assert not any(secret in view for record in secrets for secret in record.values())


def flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def tried(link: Link, place: int, kind: str, change) -> None:
    """Change what is sealed in the second step's request of a kind. It is given that of the first step, too."""
    before = next(content for to, content in link.requests if to == place and kind_of(content) == kind)["sealed"]

    def changed(to, content):
        if to == place and kind_of(content) == kind:
            content["sealed"] = ConfigRecord(change(dict(content["sealed"]), dict(before)))
        return content

    link.change = changed


@pytest.mark.parametrize(
    "change",
    [
        lambda now, before: now | {"1": flipped(now["1"])},
        lambda now, before: now | {"1": before["1"]},  # a replay
        lambda now, before: now | {"1": now["0"]},  # another node's
        lambda now, before: now | {"1": now["1"][:20]},
        lambda now, before: now | {"1": b""},
    ],
    ids=["changed", "replayed", "swapped", "cut", "empty"],
)
@pytest.mark.parametrize(("kind", "what"), [("HelperStart", "MaskedForward"), ("Reveal", "GradientKey")])
def test_what_is_changed_on_the_way_to_the_helper_does_not_open_and_its_node_leaves_the_batch(kind, what, change):
    link = Link()
    far, near = over(link), within(fails=lambda at, i: at == "forward" and i == 1)
    far.propose(whole(far.counts))
    tried(link, HELPER, kind, change)
    step = far.propose(whole(far.counts))
    stage = "forward" if kind == "HelperStart" else "backward"
    reason = f"sealed {what} of step 2 from node 1 to the helper does not open: changed, replayed, swapped, or sealed with other keys"
    assert step.missing == {1: f"{stage}: the helper: {reason}"}
    assert torch.equal(step.pooled, near.propose(whole(near.counts)).pooled)


@pytest.mark.parametrize(
    "change",
    [
        lambda now, before: {"helper": flipped(now["helper"])},
        lambda now, before: before,
        lambda now, before: {},
    ],
    ids=["changed", "replayed", "left out"],
)
def test_what_is_changed_on_the_way_to_a_node_does_not_open(change):
    link = Link()
    far = over(link)
    far.propose(whole(far.counts))
    tried(link, 101, "CutErrorShare", change)
    assert far.propose(whole(far.counts)).missing == {
        1: "backward: sealed CutErrorShare of step 2 from the helper to node 1 does not open: changed, replayed, swapped, "
        "or sealed with other keys"
    }


def test_a_node_that_is_asked_forward_again_takes_no_share_of_the_error_twice():
    link = Link()
    far = over(link)
    far.propose(whole(far.counts))
    kinds = "SecureForwardRequest", "CutErrorShare"
    requests = [next(content for place, content in link.requests if place == 101 and kind_of(content) == kind) for kind in kinds]
    true = next(content for place, content in link.requests if place == 101 and "cards" in content)
    false = RecordDict({**true, "cards": ConfigRecord({"helper": true["cards"]["helper"][:32] + bytes(range(32))})})
    for content in (false, true):  # nor if it was told another card in between
        link.send_and_receive([Message(content, dst_node_id=101, message_type="query.secure")])
    _, reply = (link.send_and_receive([Message(content, dst_node_id=101, message_type="train.secure")])[0] for content in requests)
    assert reply.content["refused"]["reason"] == "sealed CutErrorShare of step 1 is replayed: one of step 1 came before"
    assert far.propose(whole(far.counts)).missing == {}


def test_what_was_sealed_as_one_kind_does_not_open_as_another():
    link = Link()
    far = over(link)
    far.propose(whole(far.counts))
    forward = []

    def changed(place, content):
        if kind_of(content) == "HelperStart":
            forward.append(content["sealed"]["1"])
        elif kind_of(content) == "Reveal":  # with the masked numbers of the same step and node
            content["sealed"]["1"] = forward[0]
        return content

    link.change = changed
    assert "sealed GradientKey of step 2 from node 1 to the helper does not open" in far.propose(whole(far.counts)).missing[1]


def again(link: Link, content: RecordDict) -> str:
    """Why the helper refuses what it is sent once more."""
    (reply,) = link.send_and_receive([Message(content, dst_node_id=HELPER, message_type="train.secure")])
    return str(reply.content["refused"]["reason"])


def test_the_helper_reveals_a_step_once_though_its_process_was_started_anew():
    link = Link()
    far = over(link)
    far.propose(whole(far.counts))
    request = link.requests[-1][1]
    assert kind_of(request) == "Reveal"
    assert again(link, request) == "step 1 was revealed before, or is not the present step 1: each is revealed once"
    start = next(content for _, content in link.requests if kind_of(content) == "HelperStart")
    assert again(link, start) == "step 1 does not come after step 1"
    fewer = RecordDict({**to_records(Reveal(1, torch.tensor([0, 1]), False)), "sealed": request["sealed"]})
    assert "each is revealed once" in again(link, fewer)
    state = link.contexts[HELPER].state
    assert len(from_records(RecordDict({name: state[f"secure.helper.{name}"] for name in ("message", "arrays")})).above) == 0


def test_with_a_file_a_step_is_revealed_once_though_the_state_was_lost_after_the_reply(tmp_path):
    link = Link()
    link.contexts[HELPER].node_config["reveals"] = str(tmp_path / "reveals.db")
    far = over(link)
    kept = []

    def changed(place, content):
        if kind_of(content) == "Reveal":  # the state as it was before
            kept.append(context_to_proto(link.contexts[HELPER]))
        return content

    link.change = changed
    far.propose(whole(far.counts))
    link.contexts[HELPER] = context_from_proto(kept[0])
    link.change = lambda place, content: content
    request = RecordDict({**to_records(Reveal(1, torch.tensor([0, 1]), False)), "sealed": link.requests[-1][1]["sealed"]})
    assert again(link, request) == "step 1 was revealed before: each is revealed once"
    link.contexts[HELPER].node_config["reveals"] = str(tmp_path / "nowhere" / "reveals.db")
    assert again(link, request).startswith(f"reveals='{tmp_path}/nowhere/reveals.db' cannot be written: ")


def test_requests_of_the_other_party_are_refused():
    link = Link()
    over(link)
    request = to_records(SecureForwardRequest(1, split().theta, torch.tensor([0]), 1))
    assert again(link, request) == "a helper cannot answer a SecureForwardRequest: must be a HelperStart or a Reveal"
    start = to_records(HelperStart(1, torch.zeros(3, 4)))
    (reply,) = link.send_and_receive([Message(start, dst_node_id=100, message_type="train.secure")])
    assert reply.content["refused"]["reason"].startswith("a node cannot answer a HelperStart with nothing from the helper")


# keys


def pinned(tmp_path, **change) -> Link:
    """All keys in files, and pinned at both sides; ``change`` sets something of it differently."""
    link = Link(pinned=True)
    public = {name: sealed.create_key(tmp_path / f"{name}.key") for name in ("0", "1", "2", "helper")}
    (tmp_path / "nodes").write_text("".join(f"{i} {public[str(i)]}\n" for i in range(3)))
    for i in range(3):
        link.contexts[100 + i].node_config |= {"key-file": str(tmp_path / f"{i}.key"), "helper-key": public["helper"]}
    link.contexts[HELPER].node_config |= {"key-file": str(tmp_path / "helper.key"), "node-keys": str(tmp_path / "nodes")}
    return link


def census(link: Link) -> dict[int, str]:
    transport = SecureGridTransport(link)
    return SecureOrchestrator(split(), transport).census(transport.find(3))


def test_with_all_keys_pinned_the_step_is_the_same(tmp_path):
    link = pinned(tmp_path)
    far, near = over(link), within()
    assert torch.equal(far.propose(whole(far.counts)).pooled, near.propose(whole(near.counts)).pooled)
    assert all("lasting" not in context.state["secure.keys"] for context in link.contexts.values())


def test_a_node_refuses_a_helper_with_another_key_than_the_one_that_is_pinned(tmp_path):
    link = pinned(tmp_path)
    true = link.contexts[100].node_config["helper-key"]
    other = link.contexts[100].node_config["helper-key"] = "ab" * 32
    assert census(link) == {0: f"introduction: public key of the helper is said to be {true}: pinned is {other}"}
    link.contexts[100].node_config["helper-key"] = "abc"
    assert census(link) == {0: "introduction: helper-key='abc': must be a public key, 64 hex digits"}
    del link.contexts[100].node_config["helper-key"]
    assert census(link)[0].startswith("introduction: helper-key is not set: give the SuperNode the helper's public key")


def test_an_orchestrator_that_passes_its_own_key_off_as_the_helper_s_gets_nothing_from_nodes_that_pinned_it(tmp_path):
    link, own = pinned(tmp_path), sealed.Keys(sealed.new_key(), sealed.new_key())

    def changed(place, content):
        if place != HELPER and "cards" in content:
            content["cards"]["helper"] = own.card
        return content

    link.change = changed
    with pytest.raises(ValueError, match="counts: the nodes have no rows"):
        census(link)
    assert not any("secure.cards" in link.contexts[place].state for place in (100, 101, 102))
    open_link = Link()  # nobody pinned anything: now the orchestrator reads what was meant for the helper
    open_link.change = changed
    far = over(open_link)
    with pytest.raises(ValueError, match="0 nodes"):
        far.propose(whole(far.counts))
    data = next(content["sealed"]["0"] for _, content in open_link.requests if kind_of(content) == "HelperStart")
    card = next(content["cards"]["0"] for place, content in open_link.requests if place == HELPER and "cards" in content)
    assert isinstance(own.open(sealed.Sealed(data), card, sealed.Label(1, "MaskedForward", "0", "helper")), MaskedForward)


def test_the_helper_refuses_nodes_that_its_operator_does_not_know(tmp_path):
    link = pinned(tmp_path)
    lines = (tmp_path / "nodes").read_text().splitlines()
    (tmp_path / "nodes").write_text(f"{lines[0]}\n\n1 {'ab' * 32}\n")
    missing = census(link)
    assert re.fullmatch(rf"introduction: the helper: public key of node 1 is said to be [0-9a-f]{{64}}: pinned is {'ab' * 32}", missing[1])
    assert missing[2] == "introduction: the helper: node 2 is not in the helper's node-keys: must be one of 0, 1"
    (tmp_path / "nodes").write_text("0 what is this\n")
    with pytest.raises(ValueError, match=r"node-keys=.* has the line '0 what is this': must be partition-id and public key"):
        census(link)
    (tmp_path / "nodes").unlink()
    with pytest.raises(ValueError, match=r"node-keys=.* cannot be read"):
        census(link)


def test_without_pins_a_key_stays_the_same_in_a_run():
    link = Link()
    over(link)
    link.contexts[100].state.clear()
    wanted = r"introduction: the helper: public key of node 0 is said to be .{64}: it was .{64} before in this run"
    assert re.fullmatch(wanted, census(link)[0])


def test_a_party_with_a_key_file_may_lose_its_state(tmp_path):
    link = pinned(tmp_path)
    far = over(link)
    far.propose(whole(far.counts))
    for place in (100, HELPER):
        link.contexts[place].state.clear()
    with pytest.raises(ValueError, match="0 nodes: the helper reveals a sum over at least 2"):
        far.propose(whole(far.counts))
    assert over(link).propose(whole(far.counts)).missing == {}


def test_before_the_census_nobody_is_known():
    link = Link()
    transport = SecureGridTransport(link)
    transport.find(3)
    request = SecureForwardRequest(1, split().theta, torch.tensor([0]), 1)
    assert transport.to_nodes({0: (request, None)}) == {0: "the helper is not known: call census first"}
    _, said = transport.to_helper(HelperStart(1, torch.zeros(3, 4)), {0: sealed.Sealed(b"")})
    assert said == {0: "node 0 is not known: call census first"}
